"""A bounded stream of bytes between one thread and one event loop: what all its kinds share.

Strategy
    A stream is a list of chunks, its size in bytes and the state of both ends, under one lock. Nothing is waited for,
    called back or copied while the lock is held. A side that finds nothing to do leaves something to wake it by: the
    coroutine a *waiter* of its loop, the thread a *gate*, which is a closed lock. Whoever changes the stream takes that
    out under the lock, and wakes the other side after it has released the lock. So each real wait costs one wake-up,
    and a chunk that finds the other side at work costs none.

    To sleep and wake takes longer than to send 64 KiB. So the limit doubles when the reader finds nothing although it
    has just let a waiting writer go on: the writer should be awake again before the reader runs out. If both keep pace,
    wake-ups become rare. A slow reader always finds something, and the limit stays as it is.

Guarantees
    - Chunks keep their order. None is lost or doubled, and none is given out after `Stream.abort`.
    - At most ``limit`` bytes and one chunk are held, or `GROWTH` times as many if the reader is faster than the writer.
    - The first `Stream.abort` decides. It wakes both sides, and so does the end of the stream.
    - A thread that waits looks once a second whether its loop was closed. If so, it gets the error of an abort: no
      thread waits for a loop that was thrown away.
    - No thread waits for the loop that it runs itself: that is an error.
    - Another thread may raise an exception in ours (``stopit`` does) after ours has taken a waiter out, and before it
      has woken it. `Stream.revive`, which a timer calls, then wakes the coroutine.

Assumes
    One coroutine at a time uses a stream, and one thread at a time reads it. Several threads may write. A coroutine
    whose wait was cancelled may wait again: what it has left in the stream is overwritten, or wakes nobody.

    What is read without the lock is written once (`Stream.aborted`, `Stream.check`), or told as it was a moment ago.
    Nobody decides to wait by such a look (`a2wsgi._threads`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from a2wsgi._errors import ClientDisconnected

from .finalizers import refuse_within_finalizer
from .runtime import wake

if TYPE_CHECKING:
    from collections.abc import Callable

    from .handles import Waiter
    from .runtime import Runtime

#: How often a thread that waits looks whether its loop was closed. Arbitrary: that is an accident, and a wake-up a
#: second costs nothing.
LOOK_SECONDS = 1.0

#: How many times its limit a stream may hold while its reader is faster than its writer. On a slow machine half a
#: megabyte is sent while a thread wakes. With seven times 64 KiB under way, a stream stays below 1 MiB.
GROWTH = 7


def loop_closed() -> ClientDisconnected:
    """What a thread gets whose loop was closed."""
    return ClientDisconnected("the server's event loop was closed")


class Stream:
    """The chunks, and how each side waits and ends.

    Args:
        runtime: The loop on one side.
        limit: How many bytes may be queued before the writer waits.
    """

    __slots__ = (
        "_abort_error",
        "_base_limit",
        "_chunks",
        "_finished",
        "_gate",
        "_last_waiter",
        "_limit",
        "_lock",
        "_released_writer",
        "_runtime",
        "_size",
        "_waiter",
    )

    def __init__(self, runtime: Runtime, limit: int) -> None:
        self._runtime = runtime
        self._base_limit = limit
        # Re-entrant: the garbage collector may end another request, and abort its streams, while this one is held.
        self._lock = threading.RLock()
        # Written under _lock by either side:
        self._limit = limit  # how many bytes may be queued for now
        self._released_writer = False  # the reader has let a waiting writer go on, and has found something ever since
        self._chunks: list[bytes] = []
        self._size: int = 0
        self._finished = False  # the writer will add no more
        self._abort_error: Callable[[], BaseException] | None = None  # makes what the thread gets from now on
        self._gate: threading.Lock | None = None  # closed; open it to have the thread go on
        self._waiter: Waiter | None = None  # wake it to have the coroutine go on
        # The loop thread's alone, written together with _waiter: what the coroutine has awaited last.
        self._last_waiter: Waiter | None = None

    def abort(self, error: Callable[[], BaseException]) -> None:
        """End the stream at once. The thread gets ``error()`` from now on. Loop thread.

        What was queued is dropped. Only the first call decides on the error.
        """
        waiter = self._abort(error)
        if waiter is not None:
            wake(waiter)

    def abort_threadsafe(self, error: Callable[[], BaseException]) -> None:
        """`abort` in any thread. The loop may be closed."""
        waiter = self._abort(error)
        if waiter is not None:
            self._wake_loop(waiter)

    def _abort(self, error: Callable[[], BaseException]) -> Waiter | None:
        """Abort, wake the thread, and return what wakes the coroutine."""
        with self._lock:
            if self._abort_error is None:
                self._abort_error = error
                self._chunks = []
                self._size = 0
            gate, self._gate = self._gate, None
            waiter, self._waiter = self._waiter, None
        if gate is not None:
            gate.release()
        return waiter

    def _wake_loop(self, waiter: Waiter) -> None:
        """Wake the coroutine, from any thread."""
        self._runtime.doorbell.ring(wake, waiter)

    def revive(self) -> None:
        """Wake the coroutine if its waiter was taken out a while ago and not woken. Loop thread, now and then.

        1. The thread takes the waiter out. 2. An exception from another thread ends it. 3. Nobody else has the waiter.
        """
        waiter = self._last_waiter
        if waiter is not None and waiter is not self._waiter:
            wake(waiter)

    @property
    def aborted(self) -> bool:
        """Whether the loop's side has aborted the stream. Any thread."""
        return self._abort_error is not None

    def check(self) -> None:
        """Raise the error of `abort`, if there was one. The thread."""
        if self._abort_error is not None:
            raise self._abort_error()

    def _grow_limit(self) -> None:
        """Let more be queued: the reader found nothing though it has just let a writer go on. The lock is held."""
        self._released_writer = False
        self._limit = min(2 * self._limit, GROWTH * self._base_limit)

    # Whoever waits leaves its gate or waiter under the lock under which it found that it has to:
    # 1. It finds nothing. 2. The other side adds something, and finds nobody to wake. 3. It leaves its gate. It would
    # wait for ever. Step 2 needs the lock, so it comes before 1 or after 3.

    def _leave_gate(self) -> threading.Lock:
        """Leave a closed gate for the loop to open, or find that of another writer. The thread; the lock is held."""
        gate = self._gate
        if gate is None:
            gate = self._gate = threading.Lock()
            gate.acquire()
        return gate

    def _wait_at(self, gate: threading.Lock) -> None:
        """Wait until ``gate`` is opened or the loop is closed. The thread; the lock is not held.

        Raises:
            LoopThreadError: The thread runs the loop.
        """
        self._runtime.refuse_loop_thread()
        while not gate.acquire(timeout=LOOK_SECONDS):
            if self._runtime.is_closed():
                with self._lock:
                    # 1. The wait has timed out. 2. The loop aborts the stream. 3. The loop is closed. The abort came
                    # first, so its error is the one to raise.
                    self._abort_error = self._abort_error or loop_closed
                    self._gate = None
                return
            if self._gate is not gate:  # whoever was to open it, or to pass it on, was ended by another thread
                return
            refuse_within_finalizer("read() or write()")
        gate.release()  # another writer that waits here passes, too, and each looks again whether there is room
