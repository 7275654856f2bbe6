"""How messages pass between the loop and the app of a WebSocket: as frames on the link, or as they are.

Strategy
    A library of the app's speaks RFC 6455 on its end of the link, and `FramePassage` does so on ours. Our own object
    (`app_socket`) is spared that: it answers the handshake on the link, and from then on its messages go through
    `ObjectPassage`, which is two of the streams that requests have, with messages for chunks. That takes half the
    processor time of frames (benchmarks/websocket_echo.py). The link stays: by its end we know of the app's.

Guarantees
    - Messages keep their order. Those that have come before the client's Close are received before it.
    - As many bytes wait as in a `Stream`, both ways; to the app, what a message takes in memory is counted, so that an
      empty one is not free. From the app, `MOST_MESSAGES` wait at most.
    - Nobody stays blocked in `ObjectPassage.receive` or `ObjectPassage.send` when the WebSocket has ended, either side
      was closed, or the process ends.

Assumes
    Methods for the app are called by its threads: any number that send or receive at a time, and one that closes.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from a2wsgi._errors import AppProtocolError, WebSocketClosed
from a2wsgi._protocol.close_codes import LOST
from a2wsgi._protocol.frames import Close, Message, Ping, Violation
from a2wsgi._threads.finalizers import refuse_within_finalizer
from a2wsgi._threads.runtime import renew_lock
from a2wsgi._threads.stream import LOOK_SECONDS
from a2wsgi._wsgi_on_asgi.streams import ToLoop, ToThread

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from a2wsgi._protocol.frames import Frames
    from a2wsgi._threads.runtime import Runtime
    from a2wsgi._wsgi_on_asgi.disconnected import AbortReason

    from .link import Link

#: How many messages of the app may wait for the server. Arbitrary: it bounds empty ones.
MOST_MESSAGES: Final = 1_024


class Passage(Protocol):
    """The way of messages, as the loop's side sees it. Loop thread."""

    async def take(self) -> Iterator[str | bytes | Close | Violation] | None:
        """Wait for what the app has sent next. None at the end of its side."""

    def put(self, message: str | bytes) -> None:
        """Pass a message on to the app. Never waits: see `drain`."""

    async def drain(self) -> None:
        """Wait until there is room for more messages to the app."""


class FramePassage:
    """Messages as frames on the link.

    Args:
        link: Our end.
        frames: The codec.
        data: What the app has written behind its answer to the handshake.
    """

    def __init__(self, link: Link, frames: Frames, data: bytes) -> None:
        self._link = link
        self._frames = frames
        self._data = data
        self.drain = link.drain

    async def take(self) -> Iterator[str | bytes | Close | Violation] | None:
        """See `Passage`."""
        data, self._data = self._data or await self._link.read(), b""
        return self._events(data) if data else None

    def _events(self, data: bytes) -> Iterator[str | bytes | Close | Violation]:
        for event in self._frames.feed(data):
            if isinstance(event, Message):
                yield event.data
            elif isinstance(event, Ping):
                # ASGI has no pings; the server has its own. RFC 6455 §5.5.3: a pong for the latest may do.
                self._link.write_latest(self._frames.pong(event.payload))
            elif isinstance(event, Close | Violation):
                yield event

    def put(self, message: str | bytes) -> None:
        """See `Passage`."""
        if not self._frames.close_sent:  # RFC 6455 §5.5.1: it crosses the app's Close, or ours as the server stops
            self._link.write(self._frames.message(message))


class ObjectPassage:
    """Messages as they are, between the loop and an object of ours.

    Args:
        runtime: The loop's.
        limit: How many bytes may wait, either way.

    Attributes:
        in_use: The app has accepted by it. Set before that is said on the link, and read after.
        is_closed: The app has closed it.
        ended: The code and reason of the end, for the app. Written by the loop thread before `end`.
    """

    def __init__(self, runtime: Runtime, limit: int) -> None:
        self._runtime = runtime
        self._from_app: Any = ToLoop(runtime, limit, MOST_MESSAGES)  # of bytes, by its annotations
        self._to_app = _ToApp(runtime, limit)
        self._farewell: Close | None = None  # of the app's, from before its side is finished
        self.in_use = False
        self.is_closed = False
        self.ended: tuple[int, str] = (LOST, "")
        self._abort_error: AbortReason | None = None  # of `end`, from before the app may see it
        self.drain = self._to_app.wait_room

    # -- The loop thread

    async def take(self) -> Iterator[str | bytes | Close | Violation] | None:
        """See `Passage`."""
        if self._from_app.holds_some:  # an app that sends without end is not to keep the loop from everything else
            await self._runtime.go_round()
        messages, ended = await self._from_app.take()
        if ended and self._farewell is not None:
            messages, self._farewell = [*messages, self._farewell], None
        return iter(messages) if messages or not ended else None

    def put(self, message: str | bytes | bytearray | memoryview) -> None:
        """See `Passage`."""
        self._to_app.put(message if isinstance(message, str | bytes) else bytes(message))
        self._to_app.flush()

    def finish_app(self) -> None:
        """The app's side has ended: it sends no more."""
        self._from_app.finish()

    def end(self, error: AbortReason) -> None:
        """Tell the app that it has ended, once it has received what is there. Whoever waits in `drain` goes on."""
        self._abort_error = error
        self._to_app.finish()
        self._to_app.flush()
        self._from_app.abort(self.closed)

    def revive(self) -> None:
        """See `Stream.revive`."""
        self._from_app.revive()
        self._to_app.revive()

    def renew_locks(self) -> None:
        """Make those of the streams anew. In a forked child."""
        renew_lock(self._from_app)
        renew_lock(self._to_app)

    # -- The app's threads

    def send(self, message: str | bytes) -> None:
        """Send a message, once there is room.

        Raises:
            WebSocketClosed: It has ended. The message may not have been sent.
        """
        try:
            self._from_app.put(message)
        except AppProtocolError:  # another thread of the app's, which runs on though the app has returned
            raise self.closed() from None

    def receive(self, deadline: float | None) -> str | bytes:
        """Wait for the next message.

        Raises:
            TimeoutError: None has come.
            WebSocketClosed: It has ended, and there is none left.
        """
        message = self._to_app.take_one(deadline)
        if message is None:
            raise self.closed()
        return message

    def close(self, code: int, reason: str) -> None:
        """End it from the app's side, after what it has sent. A `send` that still waits for room raises."""
        self.is_closed = True
        # First: the loop may end it as soon as it knows, and whoever receives is to get this code.
        self._to_app.abort_threadsafe(lambda: WebSocketClosed(code, reason))
        self._farewell = Close(code, reason)
        self._from_app.finish()

    def shut_down(self) -> None:
        """Wake all threads, as the process ends. Any thread; the loop may be gone."""
        self._to_app.abort_threadsafe(self.closed)
        self._from_app.abort_threadsafe(self.closed)

    def closed(self) -> WebSocketClosed:
        """How it has ended, to be raised in the app: what that runs on the loop from then on is its clean-up."""
        if self._abort_error is not None:
            self._abort_error.told = True
        return WebSocketClosed(*self.ended)


class _ToApp(ToThread):
    """Messages to the app, taken one by one and for a limited time, by any number of threads."""

    __slots__ = ()

    def put(self, chunk: str | bytes) -> None:
        """See `ToThread.put`. What comes after the end is dropped: nobody waits for room then."""
        with self._lock:
            if self._abort_error is None and not self._finished:
                self._chunks.append(chunk)  # type: ignore[arg-type]  # of bytes, by its annotations
                self._size += sys.getsizeof(chunk)

    def take_one(self, deadline: float | None) -> str | bytes | None:
        """Take the first message. Wait until there is one. None is the end. The thread.

        Raises:
            BaseException: The error of `abort`.
            TimeoutError: There was none by the deadline.
        """
        message: str | bytes | None = None
        waiter = None
        while True:
            with self._lock:
                if self._abort_error is not None:
                    raise self._abort_error()
                if self._chunks or self._finished:
                    if self._chunks:
                        message = self._chunks.pop(0)
                        self._size -= sys.getsizeof(message)
                    if 2 * self._size <= self._limit:
                        waiter, self._waiter = self._waiter, None
                    break
                gate = self._leave_gate()
            self._wait_until(gate, deadline)
        if waiter is not None:
            self._wake_loop(waiter)
        return message

    def _wait_until(self, gate: threading.Lock, deadline: float | None) -> None:
        """Wait at a gate of ours, as `Stream._wait_at` does."""
        if deadline is None:
            self._wait_at(gate)
            return
        if time.monotonic() < deadline:
            self._runtime.refuse_loop_thread()
        while not gate.acquire(timeout=max(min(deadline - time.monotonic(), LOOK_SECONDS), 0)):
            if self._runtime.is_closed():
                self.abort_threadsafe(lambda: WebSocketClosed(LOST, ""))
                return
            if self._gate is not gate:  # whoever was to open it, or to pass it on, was ended by another thread
                return
            if time.monotonic() >= deadline:
                raise TimeoutError("No message came in time")
            refuse_within_finalizer("receive()")
        gate.release()  # another thread that waits here passes, too, and each looks again whether there is a message
