"""A hand-off from one event loop to a server thread, which is the only place where that thread waits.

Strategy
    A `ToThread` for the response, with two more things for the thread to wait for: the loop may ask it to read a part
    of the request's body, and the loop may be through with the request. Where the thread waits is the host's business:
    at a lock or, where there is no other thread, by running the loop itself (see `_loop_thread`).

Guarantees
    - Those of `_handoff`. Besides, what is queued is delivered before the thread is asked for anything.
    - The thread is woken after the app's current step, so it finds whole what that step sent.
    - A thread that waits is told of a loop that has ended, and of a client that has left, if the server can tell.

Assumes
    What `_handoff` assumes; but any number of tasks may wait for room.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ._handoff import ToThread
from ._runtime import wake_all

if TYPE_CHECKING:
    import asyncio
    import threading
    from collections.abc import Callable

    from ._runtime import Host

__all__ = ["ToServer"]


class ToServer(ToThread):
    """`ToThread` for a server thread, which is not only told of chunks but also asked for the request's body.

    Args:
        host: The loop that writes; where the thread waits is its business.
        limit: How many bytes may be queued before `room` waits.
    """

    __slots__ = ("_asked", "_flush_due", "_host", "_left", "_room_waiters", "hang_up", "hung_up")

    def __init__(self, host: Host, limit: int) -> None:
        super().__init__(host, limit)
        self._host = host
        self._flush_due = False  # the loop thread alone uses it
        # Guarded by _lock, as all of _Stream's.
        self._asked = False  # the loop wants a part of the request's body
        self._left = False  # the loop is through with the request
        self._room_waiters: list[asyncio.Future[None]] = []
        # The thread alone uses these.
        self.hang_up: Callable[[], bool] | None = None  # tells whether the client has left; asked while nothing comes
        self.hung_up = False  # it did

    # -- the loop thread ------------------------------------------------------------------------------------------

    def give(self, chunk: bytes, *, last: bool = False) -> bool:
        """`put`, `end` if this is the last, and `flush_soon`, in one. Never waits.

        Returns:
            Whether `room` is to be waited for.
        """
        with self._lock:
            if chunk and self._stopped is None:
                self._chunks.append(chunk)
                self._size += len(chunk)
            self._ended = last
            full = self._size >= self._limit and not last
        if not self._flush_due:
            self._flush_due = True
            self._host.soon(self._flush_now)
        return full

    def flush_soon(self) -> None:
        """`flush`, once the app's current step is over: what that queues, the thread then finds whole."""
        if not self._flush_due:
            self._flush_due = True
            self._host.soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_due = False
        self.flush()

    def ask(self) -> None:
        """Have the thread fetch a part of the request's body, once it has delivered what is queued."""
        with self._lock:
            self._asked = True
        self.flush_soon()

    def leave(self) -> None:
        """Say that the loop is through with the request, and wake the thread. Last call of the loop."""
        gate = None
        with self._lock:
            self._ended = self._left = True
            if not self._host.wakes_late:
                gate, self._gate = self._gate, None
        if gate is not None:
            gate.release()
        elif self._host.wakes_late:
            self.flush_soon()

    async def room(self) -> None:
        """Wait until fewer than ``limit`` bytes are queued, or the stream is stopped. Any number of tasks may.

        Cancellation: nothing changes.
        """
        while True:
            with self._lock:
                if not self._chunks or self._size < self._limit or self._stopped is not None:
                    return
                waiter = self._runtime.create_future()
                self._room_waiters.append(waiter)
            await waiter

    def stop(self, error: Callable[[], BaseException]) -> None:
        """As `ToThread.stop`."""
        super().stop(error)
        waiters, self._room_waiters = self._room_waiters, []
        wake_all(waiters)

    # -- the thread -----------------------------------------------------------------------------------------------

    def collect(self) -> tuple[list[bytes], bool]:
        """All that is queued, and whether that was the end; waits until there is something. Nothing: the loop asks.

        A client that hangs up while nothing is queued is the end, too.

        Raises:
            BaseException: The error of `stop`, or why the loop does not run any more.
        """
        chunks: list[bytes] = []
        ended = False
        waiters: list[asyncio.Future[None]] = []
        while True:
            with self._lock:
                if self._stopped is not None:
                    raise self._stopped()
                if self._chunks or self._ended:
                    chunks, ended = self._take(), self._ended
                    waiters, self._room_waiters = self._room_waiters, []
                    self._freed = bool(waiters)
                    break
                if self._freed:
                    self._hold_more()
                if self._asked:
                    self._asked = False
                    return [], False
                if self.hung_up:
                    return [], True
                gate = self._hang_up_a_gate()
            self._pass(gate)
        if waiters:
            self._runtime.doorbell.ring(wake_all, waiters)
        return chunks, ended

    def wait_left(self, seconds: float | None) -> bool:
        """Wait until the loop is through with the request, at most ``seconds``; None is for ever.

        Returns:
            Whether it is.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        timeout = sign = self._host.sign_seconds
        while True:
            with self._lock:
                if self._left:
                    return True
                gate = self._hang_up_a_gate()
            if deadline is not None:
                timeout = deadline - time.monotonic()
                if timeout <= 0:
                    break
                timeout = min(timeout, sign)
            if not gate.acquire(timeout=timeout) and self._host.trouble() is not None:
                break
        with self._lock:
            self._gate = None
            return self._left

    def _hang_up_a_gate(self) -> threading.Lock:
        gate = self._gate = self._host.gate()
        return gate

    def _pass(self, gate: threading.Lock) -> None:
        while not gate.acquire(timeout=self._host.sign_seconds):
            trouble = self._host.trouble()
            if trouble is not None:
                self._lose(trouble)
                return
            if self.hang_up is not None and self.hang_up():
                self.hung_up = True
                with self._lock:
                    self._gate = None
                return

    def _lose(self, trouble: BaseException) -> None:
        with self._lock:
            self._stopped = self._stopped or (lambda: trouble)
            self._gate = None
