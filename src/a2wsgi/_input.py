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

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from ._handoff import ToThread

__all__ = ["BodyReader", "WholeBody", "streamed_input"]


class WholeBody(io.BytesIO):
    """A body that is complete when the app starts, with what ``io.BufferedReader`` has and ``io.BytesIO`` lacks."""

    __slots__ = ()

    # io.BytesIO's own stops at the hint, the one of every other file past it.
    readlines = io.IOBase.readlines  # type: ignore[assignment]  # that it takes None, too, typeshed says of one only

    def peek(self, size: int = 0, /) -> bytes:  # noqa: ARG002 - io.BufferedReader gives what it has, whatever the size
        """Some of what follows, without reading it."""
        position = self.tell()
        return bytes(self.getbuffer()[position : position + io.DEFAULT_BUFFER_SIZE])


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


def streamed_input(stream: ToThread, ask: Callable[[], object] | None, buffer_bytes: int) -> io.BufferedReader:
    """A ``wsgi.input`` over ``stream``, with a buffer of its own of ``buffer_bytes``."""
    return io.BufferedReader(BodyReader(stream, ask), max(buffer_bytes, 1))
