"""Our end of a WebSocket on the loop: frames of the client's, messages of the app's, pings, and the close handshake.

Strategy
    An `Endpoint` is an ``asyncio.Protocol`` over the client's socket. What the client sends becomes events one by one,
    and only as long as there is room for them: in the `MessageQueue` for messages, in the transport for pongs. Else
    reading stops, and the client is held up by TCP. What the app sends goes to the transport, and waits while that is
    full. Messages are received meanwhile: the client may read nothing before it has sent all.

Guarantees
    - Held at most: `QUEUE_BYTES` and one message, what one read gave, and ``write_buffer_bytes`` and one message; of a
      lost client `REST_BYTES`, too. A client that floods with pings, fragments or messages is stopped.
    - Each turn of the loop takes about `TURN_SECONDS` for one socket at most, besides what one message takes.
    - What a client has sent before a write to it fails is received, its Close, too, up to `REST_BYTES`.
    - Past ``OPEN`` the connection is gone within seconds, whatever the client does. While ``OPEN``, a client that
      is gone without a word is noticed by pings, if they are on.
    - A connection is shut down, not just closed: a copy of its descriptor in a forked child does not keep it.

Assumes
    All is called on the loop thread, but for what is run in a forked child.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
from typing import TYPE_CHECKING, Final, cast

from a2wsgi._protocol.close_codes import LOST, WebSocketEnding
from a2wsgi._protocol.frames import Close, Message, Ping, Violation
from a2wsgi._threads.runtime import wake_all

from .keepalive import Keepalive, Turn
from .message_queue import Ended, MessageQueue, wait_in
from .our_sockets import discard, open_sockets, rest_of
from .phase import Phase

if TYPE_CHECKING:
    import socket

    from a2wsgi._asgi_on_wsgi.loops.host import LoopHost
    from a2wsgi._protocol.frames import Event, Frames
    from a2wsgi._threads.handles import Waiter

#: How long the client may take for its part of the close handshake, and to take what it was sent; as in `websockets`.
CLOSE_SECONDS: Final = 10.0
#: How long it may take when the process ends, which is not to wait for clients. Arbitrary.
STOP_SECONDS: Final = 1.0

#: How much is made frames of between two looks at the clock: two thousand fragments; and how many messages. As many
#: bytes of pongs are gathered before they are written, and may wait while the transport is full.
PIECE_BYTES: Final = 16_384
LOOK_EVENTS: Final = 16


class Endpoint(asyncio.Protocol):
    """One WebSocket's connection.

    Args:
        host: The loop.
        frames: The codec.
        sock: The client's socket, which is the endpoint's from now on.
        write_buffer_bytes: How much may wait to be taken by the client before `send` waits.
        ping_interval: Seconds of silence before a ping.
        ping_timeout: Seconds for its answer.

    Attributes:
        phase: How far the connection is.
    """

    def __init__(
        self,
        host: LoopHost,
        frames: Frames,
        sock: socket.socket,
        *,
        write_buffer_bytes: int,
        ping_interval: float | None,
        ping_timeout: float | None,
    ) -> None:
        self.phase = Phase.OPEN
        self._host = host
        self._loop = loop = host.loop
        self._frames = frames
        self._socket = sock
        self._write_buffer_bytes = write_buffer_bytes
        self._transport: asyncio.Transport | None = None
        self._queue = MessageQueue(loop, self._go_on)
        self._keepalive = Keepalive(
            self._loop,
            ping_interval,
            ping_timeout,
            ping=self._ping,
            fail=self._no_pong,
            taken=self._taken_by_client,
            is_full=lambda: self._full,
            hears=lambda: self._full or not self._paused,
        )
        self._received = memoryview(b"")  # what is still to be fed
        self._turn = Turn(loop)
        self._paused = False  # reading
        self._full = False  # the transport
        self._extra_bytes = 0  # of pongs that were made while that was full
        self._given_up = False  # a sender has given up waiting for it since: the next ones wait before they add more
        self._greeting = b"", b""  # the head of the answer and what is said right after it; what came before it
        self._written = 0  # bytes in all
        self._writers: list[Waiter] = []  # who waits until the transport is not full
        self._closers: list[Waiter] = []  # who waits until the connection is gone
        self._deadline: asyncio.TimerHandle | None = None  # past OPEN
        self._seconds = CLOSE_SECONDS  # that the client has, past OPEN

    def __repr__(self) -> str:
        return f"<Endpoint {self.phase.name} paused={self._paused} full={self._full} {self._frames!r}>"

    # -- The start

    async def open(self, head: bytes, early: bytes) -> None:
        """Answer the handshake with ``head``, and begin.

        Args:
            head: The response.
            early: What the client has sent behind its request.

        Raises:
            OSError: The socket cannot be used.
        """
        open_sockets.add(self._socket)
        self._greeting = head, early
        try:
            self._socket.setblocking(False)  # noqa: FBT003 - the standard library's
            await self._host.connect(self, self._socket, self._write_buffer_bytes)
        except BaseException:
            self.abort()
            raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._write_buffer_bytes)  # `LoopHost.connect` does so too late
        self._keepalive.start()
        # Here: what comes next from the client may come before open() goes on.
        (head, early), self._greeting = self._greeting, (b"", b"")
        self._write(head)
        if early:  # not now: Python 3.10 would not stop reading where that is paused in connection_made()
            self._received = memoryview(early)
            self._loop.call_soon(self._work, context=contextvars.Context())

    # -- From the client

    def data_received(self, data: bytes) -> None:
        self._keepalive.heard()
        if self.phase is Phase.OPEN or self.phase is Phase.CLOSING:
            self._received = memoryview(bytes(self._received) + data)  # early bytes first: all else has paused reading
            self._work()

    def _work(self) -> None:
        """Make events of what has come, until there is no room for more, or others are to have their turn."""
        self._turn.begin()
        count, pongs = 0, bytearray()
        try:
            while True:
                piece, self._received = self._received[:PIECE_BYTES], self._received[PIECE_BYTES:]
                for event in self._frames.feed(piece):
                    self._handle(event, pongs)
                    if len(pongs) >= PIECE_BYTES:
                        self._write(pongs)
                        pongs.clear()
                    if self._is_over():
                        return
                    count += 1
                    if self._is_stuck() or (count % LOOK_EVENTS == 0 and self._turn.is_over()):
                        self._pause()
                        return
                if not self._received:
                    break
                if self._turn.is_over():
                    self._pause()
                    return
        except BaseException:  # no memory, say: nobody can read on, and the app would wait for ever
            self._queue.end(Ended(LOST, ""))
            self.abort()
            raise
        finally:
            self._write(pongs)
        self._resume()
        if self.phase is Phase.CLOSED:  # that was the rest of what a client had sent that is lost
            self._queue.end(Ended(LOST, ""))

    def _is_stuck(self) -> bool:
        """Whether there is no room for what the client may send next."""
        return self._extra_bytes >= PIECE_BYTES or (self._queue.ended is None and self._queue.full)

    def _is_over(self) -> bool:
        """Whether it makes no difference any more what the client sends."""
        return self.phase is Phase.ENDING or (self.phase is Phase.CLOSED and self._queue.ended is not None)

    def _pause(self) -> None:
        """Read no more before `_work` has come to its end."""
        if not self._paused:
            self._paused = True
            if self._transport is not None:
                self._transport.pause_reading()
        if not self._is_stuck():
            self._loop.call_soon(self._go_on, context=contextvars.Context())

    def _go_on(self) -> None:
        """There may be room again."""
        if self._paused and not self._is_stuck():
            self._resume() if self._is_over() else self._work()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def _handle(self, event: Event, pongs: bytearray) -> None:
        if type(event) is Message:
            if self._queue.ended is None:
                self._queue.put(event.data)
        elif type(event) is Ping:
            pong = self._frames.pong(event.payload)
            pongs += pong
            self._extra_bytes += len(pong) if self._full else 0
        elif type(event) is Close or type(event) is Violation:
            # RFC 6455 §5.5.1: answer with the same Close, unless one was sent. §7.1.1: we close the connection first.
            self._write(pongs + self._frames.close(event.code, event.reason))
            pongs.clear()
            self._queue.end(Ended(event.code, event.reason))
            if type(event) is Violation:
                self._hang_up()
                return
            self._enter(Phase.ENDING)
            if self._transport is not None:
                self._transport.close()

    def eof_received(self) -> bool:
        """It is lost, though it may still take what it was sent: the transport closes itself, once that is written."""
        if self.phase is Phase.OPEN:
            self._queue.end(Ended(LOST, ""))
            self._enter(Phase.ENDING)
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self._keepalive.stop()
        if self._deadline is not None:
            self._deadline.cancel()
        rest = b""
        # If a write failed, the client's last words may be unread. Any other error is of what reads them.
        if self.phase is Phase.OPEN and isinstance(exc, OSError):
            rest = bytes(self._received) + rest_of(self._socket)
            self._paused = True  # until the app has room for them
        else:
            self._queue.end(Ended(LOST, ""))
        self.phase, self._transport, self._received = Phase.CLOSED, None, memoryview(rest)
        discard(self._socket)
        self._wake_writers()
        wake_all(self._closers)
        self._go_on()

    # -- To the client

    async def take(self) -> str | bytes | Ended:
        """Wait for the client's next message, or the end. Cancellation: no message is lost."""
        return await self._queue.take()

    async def send(self, data: str | bytes) -> bool:
        """Send a message, and wait while the client has too much to take. One that takes all is not to hold the loop.

        Cancellation: the message is sent all the same, unless the wait for the one before was cancelled as well.

        Returns:
            Whether the connection is still there.

        Raises:
            UnicodeEncodeError: The text cannot be encoded. Nothing was sent.
        """
        while self._given_up and self.phase is Phase.OPEN:  # else each send() that gives up would add its message
            await wait_in(self._writers, self._loop)
        if self.phase is Phase.OPEN:
            self._write(self._frames.message(data))
            try:
                while self._full:
                    await wait_in(self._writers, self._loop)
            except BaseException:
                self._given_up = self._full  # if not, it was cancelled as it was woken, and nobody would wake the next
                raise
            if self._turn.is_over():
                self._turn.begin()
                await self._host.go_round()
            if self._transport is not None and not self._transport.is_closing():
                return True
        await self._host.go_round()  # only the loop can end it, and an app may send on regardless
        return False

    def _write(self, data: bytes | bytearray) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._written += len(data)
            self._transport.write(bytes(data))

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._wake_writers()
        # Not now: asyncio's transport calls this amid a write of its own. Closed here, it tells twice that it is lost.
        self._loop.call_soon(self._go_on, context=contextvars.Context())

    def _wake_writers(self) -> None:
        self._full = self._given_up = False
        self._extra_bytes = 0
        writers, self._writers = self._writers, []
        wake_all(writers)

    # -- Silence

    def _ping(self) -> None:
        self._write(self._frames.ping(os.urandom(4)))  # RFC 6455 §5.5.3: of a payload that the pong repeats

    def _taken_by_client(self) -> int:
        """How many bytes have left our buffer."""
        return self._written - (0 if self._transport is None else self._transport.get_write_buffer_size())

    def _no_pong(self) -> None:
        ending = WebSocketEnding.NO_PONG
        self._queue.end(Ended(cast("int", ending.app), ""))
        self._write(self._frames.close(ending.client, ending.reason))
        self._hang_up()

    # -- The end

    def close(self, code: int, reason: str = "") -> None:
        """Begin the close handshake, unless it was begun.

        Args:
            code: One that may travel.
            reason: Cut at 123 bytes.
        """
        if self.phase is Phase.OPEN:
            self._queue.end(Ended(code, reason))
            close = self._frames.close(code, reason)
            if self._transport is None:  # `open` waits for it
                self._greeting = self._greeting[0] + close, self._greeting[1]
            self._write(close)
            self._enter(Phase.CLOSING)
            self._go_on()  # what the app did not take is thrown away from now on

    def stop(self) -> None:
        """End the connection because the process or the bridge ends."""
        self._seconds = STOP_SECONDS
        if self.phase is Phase.OPEN:
            self.close(WebSocketEnding.STOPPED.client)
        elif self.phase is not Phase.CLOSED:
            self._set_deadline()

    def _hang_up(self) -> None:
        """Say no more. The client may take what it was sent: an end at once might lose it, if it goes on sending."""
        self._enter(Phase.ENDING)
        self._received = memoryview(b"")
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._go_on()  # what comes is thrown away, up to the client's end
        else:
            self._transport.close()

    def _enter(self, phase: Phase) -> None:
        if self.phase is not Phase.CLOSED:  # else this comes of the rest of what the client had sent
            self.phase = phase
            self._keepalive.stop()
            self._set_deadline()

    def _set_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(self._seconds, self.abort, context=contextvars.Context())

    def abort(self) -> None:
        """End the connection at once. Any thread, if the loop does not run any more."""
        if self.phase is Phase.OPEN:
            self.phase = Phase.ENDING  # until the transport is gone
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._transport.abort()
        if (self._transport is None or not self._loop.is_running()) and self.phase is not Phase.CLOSED:
            self.connection_lost(None)  # it never came to a transport, or there is nobody who calls this

    async def wait_closed(self) -> None:
        """Wait until the connection is gone: some seconds at most once its phase is past ``OPEN``.

        Cancellation: the connection is ended at once.
        """
        try:
            while self.phase is not Phase.CLOSED:
                await wait_in(self._closers, self._loop)
        except BaseException:
            self.abort()
            raise
