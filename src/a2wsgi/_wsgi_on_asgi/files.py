"""``environ["wsgi.file_wrapper"]``, and the files that the server sends by itself.

Strategy
    An app that returns a `FileWrapper` may have its file sent by the server: no byte of it passes through Python, and
    no worker is held. `find` says whether that is possible. Whatever is not certain is read in blocks, like any
    iterable; so is a `FileWrapper` that some middleware has wrapped.

Guarantees
    - The file that is sent is the one that the app has open, not another one of the same name.
    - A path is looked at last when the app has closed its response: an app that deletes its file then has it sent all
      the same. A bridge further in is closed later, since its ``close()`` waits for what its app does after the file.

What remains
    A server opens a path that it is sent a moment later. A file that is replaced in between is sent as it is then; if
    its length has changed, the client sees a broken response. With a descriptor there is no such moment. But if a file
    becomes shorter while its last piece is sent, only the server can notice.

Threading: a worker thread; the loop thread calls `SentFile.messages` and `SentFile.close`.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from a2wsgi._protocol.files import (
    BLOCK_BYTES,
    PATHSEND,
    PIECE_BYTES,
    ZEROCOPYSEND,
    OpenFile,
    absolute_name,
    is_same_file,
    is_whole,
    offers,
    plain_file,
)

from .faults import file_shrank

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator, Mapping

    from typing_extensions import Self

    from a2wsgi._types import Message


class FileWrapper:
    """``environ["wsgi.file_wrapper"]``: an iterable over a file (PEP 3333, "Optional Platform-Specific File Handling").

    Return it itself, and the server sends the file without reading it, if it can.

    Args:
        filelike: Anything with a ``read()``.
        block_size: A proposal; the file is read in blocks of 64 KiB.
    """

    def __init__(self, filelike: Any, block_size: int = BLOCK_BYTES) -> None:  # noqa: ANN401 - PEP 3333 asks for a read()
        self.filelike = filelike
        self.block_size = block_size
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(BLOCK_BYTES)
        if not data:
            raise StopIteration
        return data

    def seekable(self) -> bool:
        """Whether `seek` works. Werkzeug asks, before it answers a range."""
        seekable = getattr(self.filelike, "seekable", None)
        return seekable is not None and bool(seekable())

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go on from another position."""
        position: int = self.filelike.seek(offset, whence)
        return position

    def tell(self) -> int:
        """The position."""
        position: int = self.filelike.tell()
        return position

    def close(self) -> None:
        """Close the file, if it can be. Once."""
        closed, self._closed = self._closed, True
        close = getattr(self.filelike, "close", None)
        if not closed and close is not None:
            close()


class SentFile:
    """A file that the server sends by itself.

    Args:
        file: A descriptor of ours. The app may close its own.
        offset: Where the body begins.
        length: Of the body, in bytes.
        path: Send this path; None sends the descriptor.
    """

    __slots__ = ("_file", "_length", "_offset", "path")

    def __init__(self, file: OpenFile, offset: int, length: int, path: str | None) -> None:
        self._file = file
        self._offset = offset
        self._length = length
        self.path = path

    def messages(self) -> Iterator[Message]:
        """The body, as it is sent.

        Raises:
            AppProtocolError: The file has become shorter meanwhile. Send nothing more.
        """
        if self.path is not None:
            yield {"type": PATHSEND, "path": self.path}
            return
        offset, end = self._offset, self._offset + self._length
        while offset < end:
            count = min(PIECE_BYTES, end - offset)
            if os.fstat(self._file.fileno()).st_size < offset + count:  # what sends it unread does not notice that
                raise file_shrank()
            yield {
                "type": ZEROCOPYSEND,
                "file": self._file,
                "offset": offset,
                "count": count,
                "more_body": offset + count < end,
            }
            offset += count

    @property
    def pieces(self) -> int:
        """How many pieces one message has: a server may send all of a path's within ``send()``."""
        return 1 if self.path is None else -(-self._length // PIECE_BYTES)

    @property
    def is_there(self) -> bool:
        """Whether the path still leads to the file."""
        return self.path is not None and _leads_to(self.path, os.fstat(self._file.fileno()))

    def blocks(self) -> Iterator[bytes]:
        """The body, read after all."""
        self._file.seek(self._offset)
        while block := self._file.read(BLOCK_BYTES):
            yield block

    def close(self) -> None:
        """Give the descriptor back. May be called more than once, from any thread. Raises nothing."""
        with contextlib.suppress(OSError):  # of a network's file system; nothing was written that could be lost
            self._file.close()


def find(filelike: object, length: int, scope: Mapping[str, Any]) -> SentFile | None:
    """Find out whether the server can send a file by itself.

    Args:
        filelike: What the app wants sent.
        length: The response's ``Content-Length``, more than 0.
        scope: The request's, which says what the server offers.

    Returns:
        The file, to be closed; None if it has to be read.
    """
    # A path where both are offered: Starlette's BaseHTTPMiddleware and GZipMiddleware pass it on, and fail at a
    # descriptor.
    by_descriptor = not offers(scope, PATHSEND)
    if (by_descriptor and not offers(scope, ZEROCOPYSEND)) or (file := plain_file(filelike)) is None:
        return None
    try:
        # A wrapper reads through its file, so the two are at the same position.
        descriptor, offset = file.fileno(), file.tell()
        status = os.fstat(descriptor)
        if by_descriptor:
            if not is_whole(status, 0, status.st_size) or offset + length > status.st_size:
                return None
            return SentFile(_duplicate(descriptor), offset, length, None)
        if not is_whole(status, offset, length) or (path := _path_of(file, status)) is None:
            return None
        return SentFile(_duplicate(descriptor), offset, length, path)
    except (OSError, ValueError):  # it is closed, or its name cannot be looked up: reading it will tell
        return None


def _duplicate(descriptor: int) -> OpenFile:
    duplicate = os.dup(descriptor)
    try:
        return OpenFile(duplicate, "rb")
    except BaseException:
        os.close(duplicate)
        raise


def _path_of(file: io.BufferedReader | io.FileIO, status: os.stat_result) -> str | None:
    """The path of an open file, without symbolic links; None if it has none any more."""
    path = absolute_name(file.name, os.getcwd())  # noqa: PTH109 - as absolute_name()
    if path is None:
        return None
    path = os.path.realpath(path)
    return path if _leads_to(path, status) else None


def _leads_to(path: str, status: os.stat_result) -> bool:
    try:
        return is_same_file(status, os.stat(path))  # noqa: PTH116 - without the objects of pathlib
    except (OSError, ValueError):
        return False
