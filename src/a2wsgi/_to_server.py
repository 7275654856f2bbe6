"""A hand-off from one event loop to a server thread, which is the only place where that thread waits.

Strategy
    A stream for the response, with two more things for the thread to wait for: the loop may ask it to read a part of
    the request's body, and the loop may be through with the request. Where the thread waits is the host's business: at
    a lock or, where there is no other thread, by running the loop itself (see `_loop_thread`).

    What the app sends in one step of the loop is gathered without a lock, and handed over when the step ends, or when
    the queue is full: so a step costs the lock and the thread's wake-up once, however many chunks it sends.

Guarantees
    - Those of `_handoff`. Besides, what is queued is delivered before the thread is asked for anything.
    - The thread finds whole what a step has sent.
    - A thread that waits is told of a loop that has ended, and of a client that has left, if the server can tell.

Assumes
    What `_handoff` assumes; but any number of tasks may wait for room.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ._handoff import Stream
from ._runtime import wake_all

if TYPE_CHECKING:
    import asyncio
    import threading
    from collections.abc import Callable

    from ._runtime import Host

__all__ = ["ToServer"]


class ToServer(Stream):
    """Chunks from one loop to a server thread, which is also asked for the request's body.

    Args:
        host: The loop that writes; where the thread waits is its business.
        limit: How many bytes may be queued before `room` waits.
    """

    __slots__ = (
        "_asked",
        "_asking",
        "_flush_due",
        "_free",
        "_gathered",
        "_host",
        "_last_given",
        "_leaving",
        "_left",
        "_room_waiters",
        "_unused",
        "hang_up",
        "hung_up",
    )

    def __init__(self, host: Host, limit: int) -> None:
        super().__init__(host, limit)
        self._host = host
        # The loop thread alone uses these: what `flush` is to hand over.
        self._flush_due = False
        self._gathered: list[bytes] = []
        # How many bytes may be gathered, as far as the loop knows; the thread may have made more room meanwhile.
        self._free: int = limit
        self._unused: int = limit  # what is left of those
        self._last_given = False
        self._asking = False
        self._leaving = False
        # Guarded by _lock, as all of Stream's.
        self._asked = False  # the loop wants a part of the request's body
        self._left = False  # the loop is through with the request
        self._room_waiters: list[asyncio.Future[None]] = []
        # The thread alone uses these.
        self.hang_up: Callable[[], bool] | None = None  # tells whether the client has left; asked while nothing comes
        self.hung_up = False  # it did

    # -- the loop thread ------------------------------------------------------------------------------------------

    def give(self, chunk: bytes) -> bool:
        """Queue ``chunk``, which may be empty. Never waits.

        Returns:
            Whether `room` is to be waited for.
        """
        self._gathered.append(chunk)
        self._unused = unused = self._unused - len(chunk)
        if not self._flush_due:
            self._flush_due = True
            self._host.soon(self._flush_if_due)
        return unused <= 0

    def end(self, chunk: bytes) -> None:
        """Queue the last chunk, if it is not empty. Never waits."""
        if chunk:
            self._gathered.append(chunk)
            self._unused -= len(chunk)
        self._last_given = True
        self._flush_soon()

    def ask(self) -> None:
        """Have the thread fetch a part of the request's body, once it has delivered what is queued."""
        self._asking = True
        self._flush_soon()

    def leave(self) -> None:
        """Say that the loop is through with the request. Last call of the loop."""
        self._leaving = True
        if self._host.wakes_late:
            self._flush_soon()
        else:
            self.flush()

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._host.soon(self._flush_if_due)

    def _flush_if_due(self) -> None:
        if self._flush_due:
            self.flush()

    def flush(self) -> None:
        """Hand over what was gathered, and wake the thread."""
        self._flush_due = False
        with self._lock:
            if self._stopped is None:
                self._chunks += self._gathered
                self._size += self._free - self._unused
            if self._leaving:
                self._ended = self._left = True
            elif self._last_given:
                self._ended = True
            self._asked = self._asked or self._asking
            self._free = self._unused = self._limit - self._size
            gate, self._gate = self._gate, None
        self._gathered = []
        self._asking = False
        if gate is not None:
            gate.release()

    async def room(self) -> None:
        """Wait until fewer than ``limit`` bytes are queued, or the stream is stopped. Any number of tasks may.

        Cancellation: nothing changes.
        """
        while True:
            if self._gathered:
                self.flush()
            with self._lock:
                if not self._chunks or self._size < self._limit or self._stopped is not None:
                    self._free = self._unused = self._limit - self._size
                    return
                waiter = self._runtime.create_future()
                self._room_waiters.append(waiter)
            await waiter

    def stop(self, error: Callable[[], BaseException]) -> None:
        """As `Stream.stop`."""
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
