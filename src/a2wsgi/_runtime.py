"""What a bridge needs of the event loop that it runs on: asyncio's (uvloop included).

Strategy
    One `Runtime` per bridge and loop. It holds the two things that would cost too much for each request: a *doorbell*,
    by which any number of threads wake the loop with one write to its self-pipe, and a *timer*, which visits the
    requests in flight ten times a second and is not even set while there are none.

Guarantees
    - `ring` may be called from any thread, also by a finalizer in the midst of another `ring`; it holds its lock for an
      append only, and never raises because a loop ended.
    - What was rung is called on the loop thread, in the order of the rings, in an empty context.
    - The timer holds no request: one that ends between two ticks never meets it.

Assumes
    Every other method is called on the loop thread. What is rung, and ``tick``, raise nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from ._errors import MissingCapability

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = [
    "Doorbell",
    "Host",
    "Interruption",
    "Runtime",
    "Runtimes",
    "Visited",
    "take_marks",
    "wake",
    "wake_all",
]

#: How often the timer visits the requests in flight. A client that left is to be noticed within a second, also by a
#: request that sends nothing; arbitrary below that.
TICK_SECONDS = 0.1


class Visited(Protocol):
    """A request in flight, as the timer sees it."""

    def tick(self, now: float) -> None:
        """Look after the request. ``now`` is the loop's own clock, in seconds. Must not raise."""

    def give_up(self, reason: str) -> None:
        """End the request, whatever it does."""


class Doorbell:
    """Calls functions on one loop, on behalf of any thread, with one wake-up for all that ring before it answers."""

    __slots__ = ("_answering", "_context", "_lock", "_rung", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # Re-entrant, for a finalizer that rings: the collector may run it wherever something is allocated, here too.
        self._lock = threading.RLock()
        self._rung: deque[tuple[Callable[[Any], object], Any]] = deque()  # guarded by _lock
        self._answering = False  # guarded by _lock: a call of _answer is under way to the loop
        # An empty context of our own: call_soon_threadsafe() would copy the caller's at each call.
        self._context = contextvars.Context()

    def ring(self, function: Callable[[Any], object], argument: Any) -> bool:  # noqa: ANN401 - passed on as it is
        """Have the loop call ``function(argument)`` soon. Any thread. False if the loop is closed: nobody will."""
        with self._lock:
            self._rung.append((function, argument))
            if self._answering:
                return not self.loop.is_closed()
            self._answering = True
        try:
            self.loop.call_soon_threadsafe(self._answer, context=self._context)
        except RuntimeError:  # the loop was closed
            with self._lock:
                self._answering = False
                self._rung.clear()
            return False
        return True

    def _answer(self) -> None:
        # Cleared and taken in one step: who rings after this rings anew, so nothing is left in the queue unseen.
        with self._lock:
            self._answering = False
            rung, self._rung = self._rung, deque()
        for function, argument in rung:
            function(argument)


def wake(waiter: asyncio.Future[None]) -> None:
    """End the wait for ``waiter``, unless it was cancelled meanwhile. Loop thread."""
    if not waiter.done():
        try:  # noqa: SIM105 - suppress() is three calls, and this is run for each request
            waiter.set_result(None)
        except RuntimeError:  # the loop was closed, and nobody waits any more
            pass


def wake_all(waiters: list[asyncio.Future[None]]) -> None:
    """As `wake`, for each of them. Loop thread."""
    for waiter in waiters:
        wake(waiter)


def take_marks(error: BaseException, context: contextvars.Context) -> None:
    """Set here what ``context`` has set to ``error`` itself, before that is raised here.

    An error reporter that reports an error remembers it in such a variable, or a weak reference to it, and so knows it
    again where it comes by next: Sentry does. Without this one that has come through a bridge would be reported on
    either side of it.

    Nothing else comes out of ``context``. A server thread that took what the app had set there would keep it, and show
    it to the next request.

    Args:
        error: What is about to be raised in the current context.
        context: What it was raised in. Nobody is inside it any more.
    """
    for variable, value in context.items():
        if value is error or (type(value) is weakref.ref and value() is error):
            variable.set(value)


class Runtime:
    """One bridge on one loop."""

    __slots__ = (
        "__weakref__",
        "_context",
        "_drained",
        "_pid",
        "_ticking",
        "create_future",
        "doorbell",
        "in_flight",
        "loop",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.doorbell = Doorbell(loop)
        self.create_future: Callable[[], asyncio.Future[None]] = loop.create_future
        #: The requests that run on this loop. Written on the loop thread only.
        self.in_flight: set[Visited] = set()
        self._pid = os.getpid()
        self._ticking = False
        self._context = contextvars.Context()  # the timer's: not that of the request which happens to start it
        self._drained: asyncio.Future[None] | None = None

    def is_live(self) -> bool:
        """Whether the loop may run: it is not closed, and not of a process that this one was forked of."""
        return self._pid == os.getpid() and not self.loop.is_closed()

    def enter(self, request: Visited) -> None:
        """Have the timer visit ``request`` from now on."""
        self.in_flight.add(request)
        if not self._ticking:
            self._ticking = True
            self.loop.call_later(TICK_SECONDS, self._tick, context=self._context)

    def leave(self, request: Visited) -> None:
        """Have the timer visit ``request`` no more."""
        self.in_flight.discard(request)
        if self._drained is not None and not self.in_flight:
            wake(self._drained)

    async def drain(self, seconds: float) -> None:
        """Wait until no request is in flight, at most ``seconds``."""
        if self.in_flight:
            if self._drained is None or self._drained.done():
                self._drained = self.create_future()
            await asyncio.wait((self._drained,), timeout=seconds)

    def _tick(self) -> None:
        if not self.in_flight:
            self._ticking = False  # the next enter() sets it again: an idle bridge costs its loop nothing
            return
        self.loop.call_later(TICK_SECONDS, self._tick, context=self._context)
        now = self.loop.time()
        for request in tuple(self.in_flight):
            request.tick(now)

    def start_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``coroutine`` beside the caller. Whoever starts a task ends it with `end_task`."""
        return self.loop.create_task(coroutine)

    @staticmethod
    async def end_task(task: asyncio.Task[None], seconds: float) -> None:
        """Cancel ``task`` and wait for its end, at most ``seconds``: a server's code may swallow the cancellation."""
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=seconds)

    @staticmethod
    async def go_round() -> None:
        """Let whatever else the loop has to do come first, once."""
        await asyncio.sleep(0)

    async def in_thread(self, function: Callable[..., object], *args: object) -> None:
        """Call a function that may block on a disk in a thread of the loop's own executor."""
        await self.loop.run_in_executor(None, function, *args)


class Host(Runtime):
    """A loop that does not call us but is called: a `Runtime` that knows where a calling thread waits for it.

    Attributes:
        sign_seconds: How often a thread that waits asks after `trouble`.
        wakes_late: Whether even the last word to a thread is best said by `soon`.
    """

    __slots__ = ("soon",)

    wakes_late = False

    #: Arbitrary, but so that the error of a loop that has ended is there within a second.
    sign_seconds = 0.5

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        #: Calls a function after the current step of the app. Loop thread.
        self.soon: Callable[[Callable[[], object]], object] = loop.call_soon

    def gate(self) -> threading.Lock:
        """A closed gate, for the calling thread to wait at until the loop opens it. Any thread."""
        gate = threading.Lock()
        gate.acquire()
        return gate

    def trouble(self) -> BaseException | None:
        """Why the loop will do nothing any more; None while it runs. Any thread."""
        raise NotImplementedError


class Runtimes:
    """The loops that one bridge has been called on: nearly always one.

    Threading: any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: list[Runtime] = []  # replaced under _lock, never changed
        self._last: Runtime | None = None  # the one of the last call is most likely that of the next

    def here(self) -> Runtime:
        """That of the running loop. Loop thread.

        Raises:
            MissingCapability: None of asyncio's runs.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise MissingCapability(
                "The bridge was called where no event loop of asyncio runs, which it needs: by trio, say. Serve it "
                "with asyncio or uvloop (hypercorn: --worker-class asyncio)."
            ) from None
        runtime = self._last
        if runtime is None or runtime.loop is not loop:
            with self._lock:
                live = self.live()
                runtime = next((known for known in live if known.loop is loop), None)
                if runtime is None:
                    runtime = Runtime(loop)
                    live = [*live, runtime]
                self._known = live
                self._last = runtime
        return runtime

    def live(self) -> list[Runtime]:
        """Those whose loop may still run here."""
        return [runtime for runtime in self._known if runtime.is_live()]


class Interruption:
    """Ends the current task's wait from outside, as ``asyncio.timeout`` does, told apart from a cancellation by others.

    `asyncio.timeout` itself is not in Python 3.10, and would cost a timer for each message.
    """

    __slots__ = ("_before", "_task", "fired")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        task = asyncio.current_task(loop)
        assert task is not None  # a coroutine of asyncio's runs in one
        self._task = task
        self.fired = False  # and not taken back
        self._before = 0  # what the task counts: one that was cancelled, and goes on all the same, keeps the count
        if sys.version_info >= (3, 11):
            self._before = task.cancelling()

    def fire(self) -> None:
        """Raise ``CancelledError`` where the task waits. Loop thread; once."""
        if not self.fired:
            self.fired = True
            self._task.cancel()

    def is_ours(self) -> bool:
        """Whether the ``CancelledError`` in hand comes of `fire` alone; takes it back from the task's count. Once."""
        if not self.fired:
            return False
        self.fired = False
        if sys.version_info >= (3, 11):
            return self._task.uncancel() <= self._before
        return True  # 3.10 does not count: who cancelled besides us cannot be told
