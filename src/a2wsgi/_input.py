"""``wsgi.input`` of a request whose body is still arriving, with the whole interface of ``io.BufferedReader``.

Strategy
    A raw stream over a hand-off, and Python's own ``io.BufferedReader`` above it: ``read``, ``read1``, ``readinto``,
    ``readline``, ``readlines``, ``peek`` and iteration are the ones every file has, in C, over any cut of the body into
    messages. A body that is complete when the app starts needs none of this: it is a `WholeBody`, in memory.

Guarantees
    - A body that did not arrive whole never looks complete: reading past what came raises, now and each time again.
    - A read waits for bytes, for the end, or for the end of the request; whichever comes first wakes it.

Assumes
    One thread reads at a time (``io.BufferedReader`` sees to that with a lock of its own).
"""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING

from ._errors import ClientDisconnected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Buffer

    from ._handoff import ToThread
    from ._types import Message, Receive

__all__ = ["BodyReader", "PulledBody", "WholeBody", "give_back", "streamed_input"]


class WholeBody(io.BytesIO):
    """A body that is complete when the app starts, with what ``io.BufferedReader`` has and ``io.BytesIO`` lacks."""

    __slots__ = ()

    # io.BytesIO's own stops at the hint, the one of every other file past it.
    readlines = io.IOBase.readlines  # type: ignore[assignment]  # that it takes None, too, typeshed says of one only

    def read(self, size: int | None = -1, /) -> bytes:
        """As ``io.BufferedReader``: -1 and None are all that is left, and what is below them an error."""
        if size is not None and size < -1:
            raise ValueError("read length must be non-negative or -1")
        return super().read(size)

    def writable(self) -> bool:
        """False, as of ``io.BufferedReader``."""
        return False

    def write(self, buffer: Buffer, /) -> int:  # noqa: ARG002 - refused whatever it is
        """Refuse."""
        raise io.UnsupportedOperation("write")

    def writelines(self, lines: Iterable[Buffer], /) -> None:  # noqa: ARG002 - as above
        """Refuse."""
        raise io.UnsupportedOperation("write")

    def truncate(self, size: int | None = None, /) -> int:  # noqa: ARG002 - as above
        """Refuse."""
        raise io.UnsupportedOperation("truncate")

    def peek(self, size: int = 0, /) -> bytes:  # noqa: ARG002 - io.BufferedReader gives what it has, whatever the size
        """Some of what follows, without reading it."""
        position = self.tell()
        return bytes(self.getbuffer()[position : position + io.DEFAULT_BUFFER_SIZE])


def give_back(body: object, source: object) -> None:
    """Leave a stream in memory where the app has left the body that was read from it, for a bridge further out.

    Test clients follow a redirect with the stream that the app has not read. Worker thread.
    """
    if type(body) is WholeBody and type(source) is io.BytesIO and not (body.closed or source.closed):
        unread = len(body.getbuffer()) - body.tell()
        if 0 < unread <= source.tell():
            source.seek(-unread, io.SEEK_CUR)


class BodyReader(io.RawIOBase):
    """The body as a raw stream. Worker thread.

    Args:
        stream: Where the body arrives.
        ask: Called before the first read, for a body that is not sent unless asked for (RFC 9110 §10.1.1).
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
            ClientDisconnected: The client left before the body was complete. Stop; nobody is there to answer.
            RequestTooLarge: The body is over ``max_request_bytes``.
        """
        if not self._rest:
            self._fetch()
        view = memoryview(buffer).cast("B")
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
        """Wait for more of the body; nothing at its end."""
        if self._ask is not None:
            ask, self._ask = self._ask, None
            ask()
        self._rest = memoryview(b"".join(self._stream.get()))


class PulledBody(io.BufferedReader):
    """A body that is received message by message as it is read: `Body` of 1.x.

    Args:
        loop: The loop of the request, which must run in another thread.
        receive: The request's ``receive()``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Receive) -> None:
        super().__init__(_Pull(loop, receive))


class _Pull(io.RawIOBase):
    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Receive) -> None:
        self._loop = loop
        self._receive = receive
        self._more = True
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        while self._more and not self._rest:
            message = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected("the server sent http.disconnect before the body was complete")
            self._more = bool(message.get("more_body"))
            self._rest = memoryview(message.get("body") or b"")
        view = memoryview(buffer).cast("B")
        part = self._rest[: len(view)]
        view[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)

    async def _next(self) -> Message:
        return await self._receive()


def streamed_input(stream: ToThread, ask: Callable[[], object] | None, buffer_bytes: int) -> io.BufferedReader:
    """A ``wsgi.input`` over ``stream``, with a buffer of its own of ``buffer_bytes``."""
    return io.BufferedReader(BodyReader(stream, ask), max(buffer_bytes, 1))
