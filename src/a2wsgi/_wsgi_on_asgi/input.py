"""``wsgi.input``, with the whole interface of ``io.BufferedReader``.

Strategy
    A body that is complete when the app starts is a `WholeBody`, in memory. One that is still arriving is a raw stream,
    `BodyReader`, with Python's own ``io.BufferedReader`` above it. So ``read``, ``read1``, ``readinto``, ``readline``,
    ``readlines``, ``peek`` and iteration are those of every file, in C, however the body is cut into messages.

Guarantees
    - A body that did not arrive whole never looks complete: reading past what came raises, each time.
    - A read waits for bytes, for the end of the body, or for the end of the request. Whichever comes first wakes it.

Assumes
    One thread reads at a time: ``io.BufferedReader`` has a lock for that.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING

from a2wsgi._protocol.framing import leaves_a_coding
from a2wsgi._threads.runtime import LoopThreadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Buffer

    from a2wsgi._types import Environ

    from .streams import ToThread

#: The smallest buffer of a file. ``readline()`` fills it anew for each such part of a line, which takes 12 µs with
#: `BodyReader`. A fill takes what is there and waits for no more, so no reader waits longer. Python's own figure until
#: 3.13; later ones have 128 KiB, which would be much for each request.
LEAST_BUFFER_BYTES = 8_192

#: The largest. It is allocated whole, so one of an option that is to mean "no limit" would find no memory. Python's own
#: figure from 3.14 on.
MOST_BUFFER_BYTES = 131_072


class WholeBody(io.BytesIO):
    """A body that is complete when the app starts, with what ``io.BufferedReader`` has and ``io.BytesIO`` lacks."""

    __slots__ = ()

    # io.BytesIO's own stops before the hint, and that of every other file after it.
    readlines = io.IOBase.readlines  # type: ignore[assignment]  # typeshed says only of one of them that it takes None

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like ``io.BufferedReader``: -1 and None mean all that is left, and anything below -1 is an error."""
        if size is not None and size < -1:
            raise ValueError("read length must be non-negative or -1")
        return super().read(size)

    def writable(self) -> bool:
        """False, like ``io.BufferedReader``'s."""
        return False

    def write(self, buffer: Buffer, /) -> int:  # noqa: ARG002 - whatever it is, it is refused
        """Refuse."""
        raise io.UnsupportedOperation("write")

    def writelines(self, lines: Iterable[Buffer], /) -> None:  # noqa: ARG002 - whatever they are, they are refused
        """Refuse."""
        raise io.UnsupportedOperation("write")

    def truncate(self, size: int | None = None, /) -> int:  # noqa: ARG002 - whatever it is, it is refused
        """Refuse."""
        raise io.UnsupportedOperation("truncate")

    def peek(self, size: int = 0, /) -> bytes:  # noqa: ARG002 - io.BufferedReader gives what it has, whatever the size
        """Show some of what follows, without reading it."""
        position = self.tell()
        return bytes(self.getbuffer()[position : position + io.DEFAULT_BUFFER_SIZE])


def declare_length(environ: Environ, length: int) -> None:
    """Say in ``environ`` how long a complete body is that came without a length, perhaps chunked.

    Django sees no body without a CONTENT_LENGTH, and a body that is complete is not chunked any more.
    """
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is not None:
        if leaves_a_coding(coding):
            return  # RFC 9112 §6.2: the body is not the content yet, and no length may stand beside such a header
        del environ["HTTP_TRANSFER_ENCODING"]
    environ["CONTENT_LENGTH"] = str(length)


class BodyReader(io.RawIOBase):
    """The body as a raw stream. Worker thread.

    Args:
        stream: Where the body arrives.
        ask: Called before the first read, for a body that the client sends only when asked (RFC 9110 §10.1.1).
    """

    def __init__(self, stream: ToThread, ask: Callable[[], object] | None = None) -> None:
        self._stream = stream
        self._ask = ask
        self._rest = memoryview(b"")  # taken from the stream and not read yet

    def readable(self) -> bool:
        """True, for ``io.BufferedReader``."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Read what there is into ``buffer``, waiting only for the first byte.

        Returns:
            The number of bytes; 0 at the end of the body.

        Raises:
            ClientDisconnected: The client left before the body was complete. Stop: there is nobody to answer.
            RequestTooLarge: The body is longer than ``max_request_bytes``.
            LoopThreadError: The read would wait on the loop's own thread. So does each later one, in any thread.
        """
        if not self._rest:
            self._fetch()
        # The views are released at once: PyPy would not let the caller resize its buffer until they are collected.
        with memoryview(buffer) as given, given.cast("B") as view:
            part = self._rest[: len(view)]
            view[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)

    def readall(self) -> bytes:
        """Read to the end of the body. Raises as `readinto` does."""
        parts: list[memoryview] = []
        while self._rest or not parts:
            parts.append(self._rest)
            self._rest = memoryview(b"")
            self._fetch()
        return b"".join(parts)

    def _fetch(self) -> None:
        """Wait for more of the body. There is nothing at its end."""
        if self._ask is not None:
            self._ask()
            self._ask = None  # after it: an exception that another thread raises in this one loses no ring
        try:
            self._rest = memoryview(b"".join(self._stream.take()))
        except LoopThreadError as error:
            # What a read has taken before it failed is lost. The next one fails as well, and does not skip that part.
            self._stream.abort_threadsafe(functools.partial(LoopThreadError, *error.args))
            raise


def streamed_input(stream: ToThread, ask: Callable[[], object] | None, buffer_bytes: int) -> io.BufferedReader:
    """A ``wsgi.input`` over ``stream``. Its own buffer has ``buffer_bytes``, but 8 KiB at least and 128 KiB at most."""
    return io.BufferedReader(BodyReader(stream, ask), min(max(buffer_bytes, LEAST_BUFFER_BYTES), MOST_BUFFER_BYTES))
