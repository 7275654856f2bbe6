"""The event loops that one bridge is called on, and the requests in flight on each.

Strategy
    A `BridgeLoop` belongs to one bridge and one loop. One *timer* serves all its requests, since one for each would
    cost too much: it visits those in flight ten times a second, and is not set while there are none.

Guarantees
    - The timer holds no request: it never meets one that begins and ends between two ticks.
    - A request that cannot be looked after does not keep the timer from the others.
    - Counts are never lost: each is written on one loop thread, and the next loop takes over those of a dead one.
    - A forked child makes new loops, whatever lock another thread of its parent held at the fork. An app that
      forks during its request and goes on in the child does not wait for such a lock either.

Assumes
    Everything but `BridgeLoops` and ``renew_locks`` is called on the loop thread. ``tick`` raises nothing.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

from a2wsgi._errors import MissingCapability
from a2wsgi._log import logger
from a2wsgi._threads.runtime import renew_lock, running_trio, runtime_of, wake

if TYPE_CHECKING:
    from collections.abc import Callable

    from a2wsgi._threads.handles import Waiter
    from a2wsgi._threads.runtime import Runtime
    from a2wsgi._threads.runtime_trio import TrioRun

    from .endings import Ending

#: How many seconds count between two visits at most. In a loop that stood still for longer no client could be heard, be
#: it that other code held it up or that the process was stopped. Arbitrary: long for a busy loop, short for a timeout.
MOST_TICK_SECONDS = 0.5

#: How often the timer visits the requests in flight. A client that left is to be noticed within a second, also by a
#: request that sends nothing; arbitrary below that.
TICK_SECONDS = 0.1


class InFlight(Protocol):
    """A request in flight, as the timer sees it."""

    def tick(self, now: float) -> None:
        """Look after the request. ``now`` is the loop's own clock, in seconds, less what was lost. Must not raise."""

    def abort(self, ending: Ending, error: Callable[[], BaseException], detail: object = "") -> object:
        """End the request, unless it has ended. See `Abortable.abort`."""

    def renew_locks(self) -> None:
        """See `Abortable.renew_locks`."""


class BridgeLoop:
    """One loop that a bridge is called on.

    Attributes:
        runtime: The loop's verbs.
        in_flight: The requests that run on this loop. Written on the loop thread, but for a request that the garbage
            collector ends, which may be on any thread. So whoever walks this copies it first: see `a2wsgi._threads`.
        abandoned: Requests that are over though their app still runs, and may yet exceed ``app_timeout``. Written on
            the loop thread only.
        disconnected: How many requests lost their client here. This count and the next three are written on the loop
            thread only, so that none is lost when a bridge serves several loops.
        stalled: How many requests were aborted here because their client had stopped.
        timed_out: How many requests exceeded ``app_timeout`` here.
        refused: How many WebSockets were refused here for want of room.
        lifespans: One object for each lifespan of a server on this loop, and whether it has not begun to shut down.
            Written on the loop thread only; others look whether there is any.
        draining: `drain` waits: the server shuts down. Written on the loop thread only.
    """

    __slots__ = (
        "_drained",
        "_lost_seconds",
        "_pid",
        "_ticked_at",
        "_ticking",
        "abandoned",
        "disconnected",
        "draining",
        "in_flight",
        "lifespans",
        "refused",
        "runtime",
        "stalled",
        "timed_out",
    )

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.in_flight: set[InFlight] = set()
        self.abandoned: set[InFlight] = set()
        self.disconnected = 0
        self.stalled = 0
        self.timed_out = 0
        self.lifespans: dict[object, bool] = {}
        self.draining = False
        self.refused = 0
        self._pid = os.getpid()
        self._ticking = False
        self._ticked_at = math.inf  # by the loop's clock
        self._lost_seconds = 0.0  # in which the loop stood still
        self._drained: Waiter | None = None

    def is_live(self) -> bool:
        """Whether the loop may run: it is not closed, and was not inherited by a fork."""
        return self._pid == os.getpid() and not self.runtime.is_closed()

    def enter(self, request: InFlight) -> None:
        """Have the timer visit ``request`` from now on."""
        self.in_flight.add(request)
        if not self._ticking:
            self.runtime.call_later(TICK_SECONDS, self._tick)
            self._ticking = True  # after it: Ctrl-C may end this, and the program go on with its loop

    def leave(self, request: InFlight) -> None:
        """Have the timer visit ``request`` no more."""
        self.in_flight.discard(request)
        if self._drained is not None and not self.in_flight:
            wake(self._drained)

    def is_kept(self) -> bool:
        """Whether a server on this loop goes on using the bridge. Loop thread."""
        return any(self.lifespans.values())

    async def drain(self, seconds: float) -> None:
        """Wait until no request is in flight, at most ``seconds``."""
        if self.in_flight:
            if self._drained is None or self._drained.done():
                self._drained = self.runtime.create_waiter()
            self.draining = True
            try:
                await self.runtime.wait(self._drained, seconds)
            finally:
                self.draining = False  # a bridge may serve again

    def _tick(self) -> None:
        self._ticking = False  # the next enter() sets it again: an idle bridge costs its loop nothing
        if not self.in_flight and not self.abandoned:
            return
        self.runtime.call_later(TICK_SECONDS, self._tick)
        self._ticking = True
        self.runtime.doorbell.look()
        # 1. A client sends. 2. The loop stands still. 3. It goes on, and visits the requests before any task has taken
        # what came. None of them is to be told that its client was silent for all that time.
        now = self.runtime.time()
        self._lost_seconds += max(0.0, now - self._ticked_at - MOST_TICK_SECONDS)
        self._ticked_at = now
        now -= self._lost_seconds
        # Copies: see `in_flight`.
        for request in (*self.in_flight.copy(), *self.abandoned.copy()):
            try:
                request.tick(now)
            except Exception:  # noqa: BLE001 - users can replace some of that code: the other requests are visited too
                logger.exception("Checking the timeouts of a request failed")


class BridgeLoops:
    """The loops that one bridge has been called on: nearly always one.

    Args:
        on_new_loop: Called on each loop thread at its first call of the bridge.

    Threading: any thread.
    """

    def __init__(self, on_new_loop: Callable[[], object]) -> None:
        self.reset()
        self._on_new_loop = on_new_loop
        self._known: list[BridgeLoop] = []  # replaced under _lock, never changed
        _all_loops.add(self)

    def reset(self) -> None:
        """Make the lock: in the constructor, and in a forked child, where nobody would release the parent's.

        A child may go on with its parent's loop, as an object. It is another loop there.
        """
        self._lock = threading.Lock()
        # That of the last call, which is most likely that of the next. Any loop thread's, without a lock: each looks
        # whether what it finds is its own.
        self._last: BridgeLoop | None = None

    def here(self) -> BridgeLoop:
        """The `BridgeLoop` of the running loop, or of the running trio. Loop thread.

        Raises:
            MissingCapability: Neither runs.
        """
        loop: asyncio.AbstractEventLoop | TrioRun | None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = running_trio()
            if loop is None:
                raise MissingCapability(
                    "The bridge was called without a running asyncio or trio event loop. Serve it with an ASGI server "
                    "that runs on asyncio, uvloop or trio."
                ) from None
        here = self._last
        if here is None or here.runtime.loop is not loop:
            here = self._last = self._find(loop)
        return here

    def _find(self, loop: asyncio.AbstractEventLoop | TrioRun) -> BridgeLoop:
        """The `BridgeLoop` of ``loop``; a new one takes over the counts of the loops that have ended."""
        if isinstance(loop, asyncio.AbstractEventLoop):
            # In trio's guest mode its tasks run within callbacks of another loop.
            loop = running_trio() or loop
        with self._lock:
            live = self.live()
            here = next((known for known in live if known.runtime.loop is loop), None)
            if here is None:
                self._on_new_loop()
                here = BridgeLoop(runtime_of(loop))
                for known in self._known:
                    if known not in live:
                        here.disconnected += known.disconnected
                        here.stalled += known.stalled
                        here.timed_out += known.timed_out
                        here.refused += known.refused
                self._known = [*live, here]
        return here

    def live(self) -> list[BridgeLoop]:
        """Those whose loop may still run here."""
        return [known for known in self._known if known.is_live()]

    def known(self) -> list[BridgeLoop]:
        """Those that have the counts: the live ones, and dead ones whose counts no other has taken over yet."""
        return self._known


#: Each bridge's, for a fork.
_all_loops: weakref.WeakSet[BridgeLoops] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for loops in tuple(_all_loops):
        loops.reset()
        for loop in loops.known():
            renew_lock(loop.runtime.doorbell)
            for request in (*loop.in_flight.copy(), *loop.abandoned.copy()):
                request.renew_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
