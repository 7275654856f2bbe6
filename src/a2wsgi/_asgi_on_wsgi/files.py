"""A file that the app has sent by its path: ``http.response.pathsend``.

Strategy
    The loop thread passes the path on. The server thread opens the file, before the head is given to the server, and
    tells the loop: the app's ``send()`` returns, or raises what went wrong. Then the server gets what its own
    ``wsgi.file_wrapper`` makes of the file, and may send it without reading it. If it has none, or if it would not send
    exactly the bytes of the response, the server thread reads the file block by block.

*Facts*

- ASGI, "Path Send": the app is responsible for ``Content-Length``. uWSGI sends the file to its end whatever that says.
- PEP 3333, "Optional Platform-Specific File Handling": what ``file_wrapper`` makes must be returned itself, and its
  ``close()`` calls that of the file. So that is where a request ends.
- A server that sends a file unread does not notice that it became shorter: gunicorn keeps the connection, and its
  client takes the next response for the rest of this one. An error in ``close()`` has it close the connection.
- waitress reads the file on the thread of all its connections, and calls ``close()`` there. That thread must not wait.

Threading: the loop thread makes a `SentFile`, and looks at it again when it is rung. All else is the server thread's.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
from typing import TYPE_CHECKING

from a2wsgi._protocol.files import BLOCK_BYTES

from . import faults

if TYPE_CHECKING:
    from typing_extensions import Self

    from a2wsgi._threads.handles import Waiter

    from .outcome import Sent
    from .request import Request

# Windows would translate the ends of lines. A FIFO that has no writer would have us wait.
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


def _open(path: str, _: int) -> int:
    return os.open(path, _FLAGS)


class SentFile:
    """A file that the app has sent.

    Args:
        path: Its path.
        length: How much of it the body may have, in bytes; None if no ``Content-Length`` says it.
        waiter: Where the app's ``send()`` waits for the server thread.
        sent_before: What the app had sent before.

    Attributes:
        error: Why it could not be opened. Set before the loop is rung.
        is_new: The server thread has not tried to open it.
        length: As given; once it is open, the length of the file if that is known.
        sent_before: As given.
        waiter: As given.
    """

    __slots__ = ("_file", "_path", "_size", "error", "is_new", "length", "sent_before", "waiter")

    def __init__(self, path: str, length: int | None, waiter: Waiter, sent_before: Sent) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._size = 0
        self.length = length
        self.waiter = waiter
        self.sent_before = sent_before
        self.is_new = True
        self.error: BaseException | None = None

    def open(self) -> None:
        """Open it. If that fails, ``error`` says why."""
        self.is_new = False
        try:
            self._file = io.FileIO(self._path, "rb", opener=_open)
            self._check(os.fstat(self._file.fileno()))
        except Exception as error:  # noqa: BLE001 - a ValueError for a NUL, say: the app's send() raises it
            self.close()
            self.error = error

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise faults.no_file(self._path)
        self._size = status.st_size
        if self.length is None:
            self.length = self._size or None  # of 0 is a file of /proc as well, whatever is in it
        elif self._size < self.length:
            raise faults.file_too_short(self._path, self.length - self._size)

    @property
    def is_open(self) -> bool:
        """Whether there is something to be sent or read."""
        return self._file is not None

    @property
    def is_whole(self) -> bool:
        """Whether the body is all of the file, so that a server may send it to its end."""
        return self._size != 0 and self._size == self.length

    @property
    def is_shorter(self) -> bool:
        """Whether it is known to have become shorter than the body is."""
        try:
            return self.length is not None and os.fstat(self.raw.fileno()).st_size < self.length
        except (OSError, ValueError):  # it is out of reach by now, or closed
            return False

    @property
    def raw(self) -> io.FileIO:
        """The open file.

        Raises:
            ValueError: It is closed. As of Python's own files: a server or its middleware may still ask it something.
        """
        if self._file is None:
            raise ValueError(f"The file {self._path!r} is closed.")
        return self._file

    def read(self, size: int = -1) -> bytes:
        """Read from where it stands, at most to the end of the body.

        Raises:
            AppProtocolError: It has become shorter.
        """
        left = None if self.length is None else self.length - self.raw.tell()
        if left is not None:
            size = max(left, 0) if size < 0 else min(size, max(left, 0))
        data = self.raw.read(size)
        if not data and size != 0 and left is not None:
            raise faults.file_too_short(self._path, left)
        return data

    def next(self) -> tuple[list[bytes], bool]:
        """The next block, and whether there is none."""
        block = self.read(BLOCK_BYTES)
        return ([block], False) if block else ([], True)

    def close(self) -> None:
        """Give the descriptor back. May be called more than once. Raises nothing: the request's end follows it."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # of a network's file system; nothing was written that could be lost
                file.close()


class WrappedFile:
    """What the server's ``wsgi.file_wrapper`` gets: a file whose ``close()`` ends the request.

    The request does not hold it. So one that the server drops without ``close()`` is collected, and closes itself.

    Args:
        request: The request.
        file: The file, which is open.
    """

    def __init__(self, request: Request, file: SentFile) -> None:
        self._request = request
        self._file = file
        self._thread = threading.get_ident()
        self.closed = False

    @property
    def name(self) -> str:
        """The path, as the app sent it."""
        return str(self._file.raw.name)

    def fileno(self) -> int:
        """The descriptor, for a server that sends the file unread."""
        return self._file.raw.fileno()

    def read(self, size: int = -1, /) -> bytes:
        """Read a part of the file."""
        return self._file.read(size)

    def seekable(self) -> bool:
        """It is: waitress looks for the end first."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go on from another position."""
        return self._file.raw.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self._file.raw.tell()

    # uWSGI returns the file itself, so some middleware may iterate over it.

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if block := self._file.read(BLOCK_BYTES):
            return block
        raise StopIteration

    @property
    def _a2wsgi_plain_file_(self) -> io.FileIO:
        """For a bridge around this one: `a2wsgi._protocol.files.plain_file`."""
        return self._file.raw

    def close(self) -> None:
        """End the request: wait for what the app still does, as `Request.close` says.

        Raises:
            AppProtocolError: The file has become shorter while the server sent it.
            Exception: What the app raised after its response was complete.
        """
        if self.closed:
            return
        self.closed = True
        if self._file.is_shorter:
            self._request.leave("the file has become shorter")
            raise faults.file_shrank()
        if threading.get_ident() == self._thread:
            self._request.close()
        else:
            self._request.leave("the server closed the response")

    def __del__(self) -> None:
        if not self.closed:
            self.closed = True
            self._request.drop()


def closes_on_another_thread(file_wrapper: object) -> bool:
    """Whether a server calls ``close()`` on a thread that serves all its connections."""
    return str(getattr(file_wrapper, "__module__", "")).startswith("waitress.")
