"""One bounded stream of bytes between one thread and one event loop, in either direction.

Strategy
    `ToLoop` is written by a thread and read by a coroutine; `ToThread` is written on the loop and read by a thread.
    Each is a list of chunks, its size in bytes and the state of both ends, under one lock that is never held while
    anything is waited for, called back or copied. Whoever finds nothing to do leaves a *waiter* (a future of the loop)
    or a *gate* (a lock, for a thread) in the stream; whoever changes the stream takes it out, under the lock, and opens
    it, outside. So there is one wake-up for each time that somebody really waited, and none for a chunk that finds the
    other side at work: it takes what has gathered meanwhile without waiting.

    To sleep and wake takes longer than to send 64 KiB. So where the reader finds nothing though a writer waited for it
    just before, the limit is doubled: the writer is to be awake again before the reader is through. Between ends that
    keep pace this soon makes wake-ups rare; a reader that is slow never finds nothing, and the limit stays as it is.
    The coroutine takes no more than a message's worth at a time, and has the writer go on when half of the rest is
    taken: one message is on its way to the client while the next ones are made, and nothing is there twice.

Guarantees
    - The order of chunks is kept, none is lost or doubled, and none is given out after `stop`.
    - At most ``limit`` bytes and one chunk are held, `PACE` times as many where the reader is the quicker one, besides
      the last chunks that `ToLoop.end` is given. A writing thread waits for room before it adds a chunk, not after: so
      the next chunk is made while the last ones travel.
    - The first `stop` decides; it, and each end, wakes whoever waits, on both sides. Nobody waits for one that left.
    - A thread that waits looks once a second whether the loop is closed, and is told so by the error of `stop`: a loop
      that was thrown away strands no thread.

Assumes
    One thread and one coroutine at a time on each side. A coroutine that is cancelled in a wait may wait again: what it
    left is opened for nobody, or is overwritten.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ._errors import AppProtocolError, ClientDisconnected
from ._runtime import wake

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ._runtime import Runtime

__all__ = ["ToLoop", "ToThread"]

#: How often a thread that waits looks whether its loop is still there. Arbitrary: a loop that was closed under a
#: request is an accident, and a wake-up a second costs nothing.
LIFE_SIGN_SECONDS = 1.0

#: How much of a response is joined into one message. Arbitrary: it is what servers and sockets take in one go, and past
#: it a copy costs more than a message.
MESSAGE_BYTES = 65_536

#: How many times its limit a stream may hold while its reader outruns its writer. On a slow machine a thread sleeps and
#: wakes in the time in which half a megabyte is sent; with as much on its way, a stream of 64 KiB stays below 1 MiB.
PACE = 7


def _loop_closed() -> ClientDisconnected:
    return ClientDisconnected("the server's event loop was closed")


def _after_end() -> AppProtocolError:
    return AppProtocolError(
        "The WSGI app called write() when its response was complete. The client has all of it, and would take more for "
        "the next response. Write before the iterable ends, and not in its close() or in another thread later."
    )


class Stream:
    """What both directions share: the chunks, and how each end ended."""

    __slots__ = (
        "_chunks",
        "_ended",
        "_freed",
        "_gate",
        "_least",
        "_limit",
        "_lock",
        "_runtime",
        "_size",
        "_stopped",
        "_waiter",
    )

    def __init__(self, runtime: Runtime, limit: int) -> None:
        self._runtime = runtime
        self._least = limit
        # Re-entrant: the collector may end a request, and stop its streams, wherever something is allocated.
        self._lock = threading.RLock()
        # All below is guarded by _lock.
        self._freed = False  # the reader has let a waiting writer go on, and not found nothing since
        self._limit = limit  # how many bytes may be queued, for now
        self._chunks: list[bytes] = []
        self._size: int = 0
        self._ended = False  # the writer will add no more
        self._stopped: Callable[[], BaseException] | None = None  # makes the error that the thread gets from now on
        self._gate: threading.Lock | None = None  # held, and to be released when the thread is to go on
        self._waiter: asyncio.Future[None] | None = None  # to be completed when the coroutine is to go on

    def stop(self, error: Callable[[], BaseException]) -> None:
        """End the stream at once, from the loop's side; the thread gets ``error()`` from now on. Loop thread.

        The first stop decides. What was queued is dropped.
        """
        with self._lock:
            if self._stopped is None:
                self._stopped = error
                self._chunks = []
                self._size = 0
            gate, self._gate = self._gate, None
            waiter, self._waiter = self._waiter, None
        if gate is not None:
            gate.release()
        if waiter is not None:
            wake(waiter)

    @property
    def stopped(self) -> bool:
        """Whether the loop's side has ended the stream. Any thread."""
        return self._stopped is not None

    def check(self) -> None:
        """Raise the error of `stop`, if there was one. The thread."""
        if self._stopped is not None:
            raise self._stopped()

    def _take(self) -> list[bytes]:
        """All chunks that are queued. The lock is held."""
        chunks, self._chunks = self._chunks, []
        self._size = 0
        return chunks

    def _hold_more(self) -> None:
        """The reader finds nothing, though it has just let a writer go on. The lock is held."""
        self._freed = False
        self._limit = min(2 * self._limit, PACE * self._least)

    def _hang_up_a_gate(self) -> threading.Lock:
        """Leave a gate for the loop to open, and give it back closed. The lock is held."""
        gate = self._gate = threading.Lock()
        gate.acquire()
        return gate

    def _pass(self, gate: threading.Lock) -> None:
        """Wait in the thread until ``gate`` is opened. The lock is not held."""
        while not gate.acquire(timeout=LIFE_SIGN_SECONDS):
            if self._runtime.loop.is_closed():
                with self._lock:
                    self._stopped = self._stopped or _loop_closed
                    self._gate = None
                return


class ToLoop(Stream):
    """Chunks from one thread to one coroutine.

    Args:
        runtime: The loop that reads.
        limit: How many bytes may be queued before `put` waits.
        limit_chunks: How many chunks may be queued before `put` waits; None sets no such bound.
    """

    __slots__ = ("_left", "_limit_chunks")

    def __init__(self, runtime: Runtime, limit: int, limit_chunks: int | None = None) -> None:
        super().__init__(runtime, limit)
        self._limit_chunks = limit_chunks
        self._left = False  # the thread has left: it will touch nothing of the request any more

    # -- the thread -----------------------------------------------------------------------------------------------

    def put(self, chunk: bytes) -> None:
        """Queue ``chunk``, as soon as there is room.

        Raises:
            BaseException: The error of `stop`; the chunk is not queued.
            AppProtocolError: The thread has said `end`. Nobody would take the chunk, nor ever make room for another.
        """
        waiter = None
        while True:
            with self._lock:
                if self._stopped is not None:
                    raise self._stopped()
                if self._ended:
                    raise _after_end()
                # The first spares most chunks the call.
                if (self._size < self._limit and self._limit_chunks is None) or self._has_room():
                    self._chunks.append(chunk)
                    self._size += len(chunk)
                    waiter, self._waiter = self._waiter, None
                    break
                self._freed = False  # full again, before the reader found nothing
                gate = self._hang_up_a_gate()
            self._pass(gate)
        if waiter is not None:
            self._runtime.doorbell.ring(wake, waiter)

    def end(self, chunks: list[bytes] | None = None, *, leaves: bool = False) -> None:
        """Say that no chunk follows, after these last ones, which are queued whatever room there is. Never waits.

        Args:
            chunks: The last chunks, for a writer that has the whole in hand.
            leaves: Say, too, that the thread is through with the request. It says so once, by its last call.
        """
        with self._lock:
            if chunks is not None and self._stopped is None:
                self._chunks += chunks
                self._size += sum(map(len, chunks))
            self._ended = True
            self._left = leaves
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._runtime.doorbell.ring(wake, waiter)

    def _has_room(self) -> bool:
        # An empty queue always has room, so that a limit of 0 means one chunk at a time and not none ever.
        return not self._chunks or (
            self._size < self._limit and (self._limit_chunks is None or len(self._chunks) < self._limit_chunks)
        )

    # -- the loop thread ------------------------------------------------------------------------------------------

    async def take(self) -> tuple[list[bytes], bool]:
        """What is queued, `MESSAGE_BYTES` or one chunk at most, and whether that was the end. Waits for it.

        A stream that was stopped is at its end.

        Cancellation: nothing is lost, what is queued stays so.
        """
        chunks: list[bytes] = []
        ended = False
        gate = None
        while True:
            with self._lock:
                if self._chunks or self._ended or self._stopped is not None:
                    chunks = self._take() if self._size <= MESSAGE_BYTES else self._take_some()
                    ended = not self._chunks and (self._ended or self._stopped is not None)
                    if self._gate is not None and self._is_half_empty():
                        gate, self._gate = self._gate, None
                        self._freed = True
                    break
                if self._freed:
                    self._hold_more()
                waiter = self._waiter = self._runtime.create_future()
            await waiter
        if gate is not None:
            gate.release()
        return chunks, ended

    def _take_some(self) -> list[bytes]:
        """A message's worth of the chunks, or the first if that is longer. The lock is held."""
        count = size = 0
        for chunk in self._chunks:
            size += len(chunk)
            if count and size > MESSAGE_BYTES:
                size -= len(chunk)
                break
            count += 1
        some = self._chunks[:count]
        del self._chunks[:count]
        self._size -= size
        return some

    def _is_half_empty(self) -> bool:
        """Whether the writer is to go on. The lock is held."""
        return 2 * self._size <= self._limit and (
            self._limit_chunks is None or 2 * len(self._chunks) <= self._limit_chunks
        )

    def calm(self) -> None:
        """Queue no more than ``limit`` again: the client is slow."""
        with self._lock:
            self._limit = self._least

    @property
    def left(self) -> bool:
        """Whether the thread is through with the request. Any thread."""
        return self._left

    async def wait_left(self) -> None:
        """Wait until the thread is through with the request.

        Cancellation: nothing changes.
        """
        while True:
            with self._lock:
                if self._left:
                    return
                waiter = self._waiter = self._runtime.create_future()
            await waiter


class ToThread(Stream):
    """Chunks from one loop to one thread.

    Args:
        runtime: The loop that writes.
        limit: How many bytes may be queued before `room` waits.
    """

    __slots__ = ()

    # -- the loop thread ------------------------------------------------------------------------------------------

    def put(self, chunk: bytes) -> None:
        """Queue ``chunk``. Never waits: see `room`. The thread learns of it at `flush`."""
        with self._lock:
            if self._stopped is None:
                self._chunks.append(chunk)
                self._size += len(chunk)

    def end(self) -> None:
        """Say that no chunk follows. The thread learns of it at `flush`."""
        with self._lock:
            self._ended = True

    def flush(self) -> None:
        """Wake the thread if it waits. Apart from `put`, so that one wake-up can serve all that one step queues."""
        with self._lock:
            gate, self._gate = self._gate, None
        if gate is not None:
            gate.release()

    async def room(self) -> None:
        """Wait until fewer than ``limit`` bytes are queued, or the stream is stopped.

        Cancellation: nothing changes.
        """
        while True:
            with self._lock:
                if not self._chunks or self._size < self._limit or self._stopped is not None:
                    return
                waiter = self._waiter = self._runtime.create_future()
            await waiter

    # -- the thread -----------------------------------------------------------------------------------------------

    def get(self) -> list[bytes]:
        """All that is queued; waits until there is something. Nothing at the end.

        Raises:
            BaseException: The error of `stop`.
        """
        chunks: list[bytes] = []
        waiter = None
        while True:
            with self._lock:
                if self._stopped is not None:
                    raise self._stopped()
                if self._chunks or self._ended:
                    chunks = self._take()
                    waiter, self._waiter = self._waiter, None
                    self._freed = waiter is not None
                    break
                if self._freed:
                    self._hold_more()
                gate = self._hang_up_a_gate()
            self._pass(gate)
        if waiter is not None:
            self._runtime.doorbell.ring(wake, waiter)
        return chunks
