"""The stream from the event loop to one server thread, which is the only place where that thread waits.

Strategy
    A stream for the response, and three more things for the thread to wait for: the loop may ask it to read a part of
    the request's body, may have it call a function of the server's, and may be done with the request. How the thread
    waits is up to the host: at a lock or, if there is no other thread, by running the loop itself (see `loops`).

    What the app sends in one step of the loop is collected in a `_Step` without taking a lock, and is handed over when
    the step ends or the buffer is full. So a step costs one lock and one wake-up, however many chunks it sends.

    A step with nothing but a head may be held back for a few turns of the loop: the thread is to find the head together
    with what follows at once.

Guarantees
    - Those of `a2wsgi._threads.stream`. Besides, what is queued is delivered before the thread is asked for a part of
      the body. A function is called before anything else.
    - The thread finds all that a step has sent, or nothing of it.
    - A thread that waits learns within a second that the loop has ended, and that the client has left if the server
      can tell.

Assumes
    What `a2wsgi._threads.stream` assumes; but any number of tasks may wait for room.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Protocol

from a2wsgi._threads.runtime import wake_all
from a2wsgi._threads.stream import Stream

from . import faults

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from a2wsgi._threads.handles import Waiter

    from .loops.host import LoopHost


class Watch(Protocol):
    """What a thread that takes from a stream looks after meanwhile. Server thread."""

    def has_hung_up(self) -> bool:
        """Whether the client has left. Asked now and then while nothing comes."""
        raise NotImplementedError

    def hung_up_error(self) -> BaseException:
        """What `ToServer.take` raises then."""
        raise NotImplementedError


class _Call:
    """A function that the thread is to call, and how that went. The loop thread makes it, the thread fills it in."""

    __slots__ = ("error", "function", "is_over")

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function
        self.error: Exception | None = None
        self.is_over = False

    def run(self) -> None:
        try:
            self.function()
        except Exception as error:  # noqa: BLE001 - raised again on the loop thread
            self.error = error
        self.is_over = True  # not reached if the thread is ended: then the end of its request wakes who waits


class _Step:
    """What a step of the loop adds to the stream: its chunks, and what it says after them. The loop thread's alone.

    `ToServer.flush` merges it into what both threads share, and makes it ready for the next step.
    """

    __slots__ = ("asks", "calls", "chunks", "finishes", "is_begun", "is_done", "patience", "room", "size")

    def __init__(self, room: int) -> None:
        self.is_begun = False  # it is to be handed over at its end; set once that is arranged, which needs memory
        self.chunks: list[bytes] = []
        self.size = 0  # of the chunks, in bytes
        self.room = room  # bytes that it may add before it is full: as of the last look, maybe more by now
        self.asks = False  # for a part of the request's body
        self.calls: list[_Call] = []  # what the thread is to call
        self.finishes = False  # no chunk follows
        self.patience = 0  # turns of the loop for which it is held back as long as it has nothing but a head
        self.is_done = False  # the loop is done with the request


class ToServer(Stream):
    """Chunks from one loop to a server thread, which also reads the request's body when the loop asks for it.

    Args:
        host: The loop that writes; it decides how the thread waits.
        limit: Bytes that may be queued before `wait_room` waits.

    Attributes:
        given_up: A sender has given up waiting for room, and nobody has found any since. Whoever sends next has to wait
            before it adds more. The loop thread's.
    """

    __slots__ = ("_asked", "_calls", "_done", "_host", "_sender_waiters", "_step", "given_up")

    def __init__(self, host: LoopHost, limit: int) -> None:
        super().__init__(host, limit)
        self._host = host
        self._step = _Step(limit)
        self.given_up = False
        # Guarded by _lock, as are all of Stream's.
        self._asked = False  # the loop wants a part of the request's body
        self._calls: list[_Call] = []  # what the thread is to call
        self._done = False  # the loop is done with the request
        self._sender_waiters: list[Waiter] = []  # of senders that wait for room, or for a call

    # -- The loop thread ----------------------------------------------------------------------------------------------

    def put(self, chunk: bytes) -> bool:
        """Queue ``chunk``, which may be empty. Never waits.

        Returns:
            Whether the sender has to `wait_room`.
        """
        step = self._step
        step.chunks.append(chunk)
        step.size = size = step.size + len(chunk)
        if not step.is_begun:
            self._host.before_wait(self.flush)
            step.is_begun = True
        return size >= step.room

    def put_head(self, turns: int) -> None:
        """Queue an empty chunk that stands for the head, and hold it back for some turns of the loop. Never waits."""
        step = self._step
        step.chunks.append(b"")
        step.patience = turns
        if not step.is_begun:
            self._host.before_wait(self.flush)
            step.is_begun = True

    def finish(self, chunk: bytes) -> None:
        """Queue the last chunk, if it is not empty. Never waits."""
        step = self._step
        if chunk:
            step.chunks.append(chunk)
            step.size += len(chunk)
        step.finishes = True
        if not step.is_begun:
            self._host.before_wait(self.flush)
            step.is_begun = True

    def ask(self) -> None:
        """Have the thread read a part of the request's body, once it has delivered what is queued."""
        step = self._step
        step.asks = True
        if not step.is_begun:
            self._host.before_wait(self.flush)
            step.is_begun = True

    def set_done(self) -> None:
        """Say that the loop is done with the request. The last call of the loop."""
        step = self._step
        step.is_done = True
        if not self._host.wakes_late:
            step.is_begun = True
            self.flush()
        elif not step.is_begun:
            self._host.before_wait(self.flush)
            step.is_begun = True

    def flush(self) -> None:
        """Hand over the step, if one has begun, and wake the thread.

        1. The thread finds nothing and leaves a gate, in one look under the lock.
        2. Here, under the same lock, the gate is taken out together with what the step adds to the queue.
        3. The gate is opened outside the lock. Whether the thread waits at it already or comes to it later, it goes on.

        Memory may run out in the middle, or the loop be closed. Then the thread gets an error: no later step would hand
        over what this one has.
        """
        step = self._step
        if not step.is_begun:
            return  # what was due at its end has been done before
        gate = None
        try:
            more = step.size or step.finishes or step.is_done or step.asks or step.calls
            if step.patience and len(step.chunks) == 1 and not more:
                step.patience -= 1
                self._host.loop.call_soon_threadsafe(self.flush)  # wakes the loop, which may be about to wait
                return
            with self._lock:
                gate, self._gate = self._gate, None
                # All that needs memory comes first. From the first change on, the step is handed over whole.
                size = self._size + step.size
                room = self._limit - size
                rest: list[bytes] = []
                if step.calls:
                    self._calls.extend(step.calls)
                    step.calls.clear()
                if self._abort_error is None:
                    self._chunks += step.chunks
                    self._size = size
                if step.asks:
                    self._asked = True
                step.is_begun = step.asks = False
                step.chunks, step.size, step.room = rest, 0, room
                if step.finishes or step.is_done:
                    self._finished = True
                    self._done = step.is_done
        except Exception as error:
            # Else it would take what there is for the whole.
            failure = MemoryError if isinstance(error, MemoryError) else faults.loop_stopped
            self._abort_error = self._abort_error or failure
            self._done = self._done or step.is_done
            gate = gate or self._gate
            raise
        finally:
            if gate is not None:
                gate.release()

    async def wait_room(self) -> None:
        """Wait until fewer than ``limit`` bytes are queued, or the stream is aborted. Any number of tasks may.

        Cancellation: whoever sends next has to wait first.
        """
        while True:
            if self._step.chunks:
                self.flush()
            # 1. A sender fills the queue. 2. The thread takes all. 3. The sender looks and leaves its waiter in one
            # go, and only if there is no room: so the thread either came before, or finds the waiter.
            with self._lock:
                if self._abort_error is not None:
                    break
                if not self._chunks or self._size < self._limit:
                    self._step.room = self._limit - self._size
                    self.given_up = False
                    return
                waiter = self._runtime.create_waiter()
                self._sender_waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                self.given_up = True
                with self._lock, contextlib.suppress(ValueError):  # it was woken at the same moment
                    self._sender_waiters.remove(waiter)
                raise
        await self._host.go_round()  # an endless app hears of the abort from the loop alone

    async def run(self, function: Callable[[], object]) -> None:
        """Have the thread call ``function``, which may wait, and await that or the end of the stream by `abort`.

        Raises:
            Exception: What it raised.

        Cancellation: it may be called all the same.
        """
        call = _Call(function)
        step = self._step
        step.calls.append(call)
        if not step.is_begun:
            self._host.before_wait(self.flush)
            step.is_begun = True
        while True:
            # 1. The thread finds the call, and runs it. 2. It takes out who waits. 3. The sender looks and leaves its
            # waiter in one go, and only if the call is not over: so 2 comes either before, or finds the waiter.
            with self._lock:
                if call.is_over or self._abort_error is not None:
                    break
                waiter = self._runtime.create_waiter()
                self._sender_waiters.append(waiter)
            await waiter
        error, call.error = call.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # it holds this frame, by its traceback

    def abort(self, error: Callable[[], BaseException]) -> None:
        """End the stream at once: the thread gets ``error()`` from now on. Also wakes all senders that wait."""
        super().abort(error)
        with self._lock:
            waiters, self._sender_waiters = self._sender_waiters, []
        wake_all(waiters)

    # -- The server thread --------------------------------------------------------------------------------------------

    def take(self, watch: Watch | None = None) -> tuple[list[bytes], bool]:
        """All that is queued, and whether that was the end; waits until there is something.

        No chunks and no end mean that the loop asks for a part of the request's body.

        Raises:
            BaseException: The error of `abort`, or why the loop does not run any more; or that of ``watch``, if the
                client hangs up while nothing is queued.
            BridgeError: The calling thread runs the loop.
        """
        chunks: list[bytes] = []
        ended = False
        waiters: list[Waiter] = []
        hung_up = False
        while True:
            gate = None
            with self._lock:
                if self._abort_error is not None:
                    raise self._abort_error()
                if not self._calls:
                    if self._chunks or self._finished:
                        chunks, self._chunks = self._chunks, []
                        self._size = 0
                        ended = self._finished
                        waiters, self._sender_waiters = self._sender_waiters, []
                        self._released_writer = bool(waiters)
                        break
                    if self._released_writer:
                        self._grow_limit()
                    if self._asked:
                        self._asked = False
                        return [], False
                    # 1. The client was found to have hung up. 2. The last step is handed over. 3. That comes first.
                    if hung_up and watch is not None:
                        raise watch.hung_up_error()
                    gate = self._gate = self._host.gate()
            if gate is None:
                self._run_calls()
            else:
                hung_up = self._wait_and_look(gate, watch)
        if waiters:
            self._runtime.doorbell.ring(wake_all, waiters)
        return chunks, ended

    def wait_done(self, seconds: float | None) -> bool:
        """Wait until the loop is done with the request, at most ``seconds``; None waits for ever.

        Returns:
            Whether it is.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        timeout = look_seconds = self._host.look_seconds
        while True:
            with self._lock:
                if self._done:
                    return True
                gate = self._gate = self._host.gate()
            if deadline is not None:
                timeout = deadline - time.monotonic()
                if timeout <= 0:
                    break
                timeout = min(timeout, look_seconds)
            if not gate.acquire(timeout=timeout) and self._host.trouble() is not None:
                break
        # 1. The time is over. 2. The loop is done. 3. This look sees it, and takes back the gate in any case: the next
        # step would open it for nobody.
        with self._lock:
            self._gate = None
            return self._done

    def _run_calls(self) -> None:
        """Call what the loop wants called. The lock is not held: a function may wait for the client."""
        with self._lock:
            calls = self._calls.copy()
            self._calls.clear()
        for call in calls:
            call.run()
        with self._lock:
            waiters, self._sender_waiters = self._sender_waiters, []
        self._runtime.doorbell.ring(wake_all, waiters)

    def _wait_and_look(self, gate: threading.Lock, watch: Watch | None) -> bool:
        """Wait until the gate is opened, and now and then look after the loop and the client. The lock is not held.

        Returns:
            Whether the client was found to have hung up.
        """
        while not gate.acquire(timeout=self._host.look_seconds):
            if self._gate is not gate:
                # 1. The loop takes it out. 2. A signal handler raises before it is open. 3. Nobody else has it. Or
                # another thread closes the response, and has left its own gate.
                break
            trouble = self._host.trouble()
            if trouble is not None:
                self._lose_loop(trouble)
                break
            self._host.refuse_own_thread()  # an app reads another's response; each request would pay for it before
            self._host.doorbell.look_soon()
            if watch is not None and watch.has_hung_up():
                with self._lock:
                    self._gate = None
                return True
        return False

    def _lose_loop(self, trouble: BaseException) -> None:
        with self._lock:
            # 1. The loop was found to have ended. 2. The stream is aborted. 3. The first word counts.
            self._abort_error = self._abort_error or (lambda: trouble)
            self._gate = None
