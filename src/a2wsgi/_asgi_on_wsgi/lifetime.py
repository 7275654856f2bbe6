"""The loop of one bridge in this process, with its app started up on it: start, stop, and what comes between.

Strategy
    A `Lifetime` belongs to one bridge. At the first request it takes a loop, which is its *host*, and starts the app up
    there. It lets the loop go when the bridge is closed or dropped, or when the process ends.

    ========  =========================================  ==============================================================
    state     what shows it                              what follows
    ========  =========================================  ==============================================================
    idle      ``host`` is None                           the next request starts it up
    starting  ``_change`` is a startup                   idle if that fails, else started; others wait for it
    started   ``host`` is set                            stopping by `Lifetime.stop`; idle if the loop ends
    stopping  ``_change`` is a stop                      idle; a request that comes waits for it
    closed    ``_closed`` is true                        nothing: a request is refused
    ========  =========================================  ==============================================================

Guarantees
    - No constructor, import or fork starts anything. A forked child starts anew, with its own loop, thread and lifespan
      (`exit_and_fork`).
    - One startup or stop runs at a time. Requests that come meanwhile wait for it and share the outcome of a startup,
      but not its error: each raises one of its own, so that their tracebacks stay apart.
    - The finalizer of a bridge that has a thread for its loop takes no lock: the garbage collector may run it in a
      thread that holds any of ours.

Assumes
    ``loop.call_soon_threadsafe`` takes no lock that is held while other code runs. asyncio's and uvloop's take none.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from typing import TYPE_CHECKING, Any, Literal

from a2wsgi._log import logger

from . import exit_and_fork
from .changes import Change
from .faults import closed_error, loop_held_up, loop_stopped
from .lifespan import Lifespan, run_lifespan
from .loops.host import CANCEL_SECONDS, GivenHost, LoopHost, expect_given, warn_of_uwsgi_without_threads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from a2wsgi._types import ASGIApp

    from .endings import InFlight
    from .loops.shared_loop import SharedHost

#: The tasks that end dropped bridges. asyncio itself keeps no strong reference to a task.
_ending_tasks: set[asyncio.Task[None]] = set()


class Lifetime:
    """The loop and the lifespan of one bridge, in this process.

    Args:
        loop: A loop that the user runs; None takes ``shared``, one of ours.
        inline: Let the server threads run the loop.
        lifespan: Drive the app's lifespan.
        startup_timeout: How many seconds the startup may take.
        shutdown_timeout: How many seconds running requests, and then the lifespan's shutdown, may take.
        inside: Tells how many seconds the bridges inside the app take at most to stop, within the lifespan's shutdown.

    Attributes:
        host: Where the app is started up; None while it is not. Written under the lock, but for `stop_dropped`.
        state: The lifespan's state, of which each request gets a copy. Written by the loop thread before ``host`` is.
        requests: Those that were handed to the loop and are not over. A server thread adds its own before it rings the
            loop, and takes it out if it has withdrawn it; else the loop takes it out. Whoever walks the set copies it
            first: `a2wsgi._threads` says what is one step without a lock.
        disconnected, stalled, timed_out: What `count` has counted in this process.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop | None,
        shared: type[SharedHost],
        inline: bool,
        lifespan: bool,
        startup_timeout: float,
        shutdown_timeout: float,
        inside: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._shared_loop = shared
        self._inline = inline
        self._drives_lifespan = lifespan
        self._startup_timeout = startup_timeout
        self._shutdown_timeout = shutdown_timeout
        self._inside = inside
        self._closed = False  # written under _lock, once
        if loop is not None:
            expect_given(loop)
        self.reset()
        exit_and_fork.register(self)

    def reset(self) -> None:
        """Start from nothing: in the constructor, and in a forked child."""
        self._lock = threading.RLock()  # never held while anything is waited for; a signal handler may take it again
        self._change: Change | None = None  # what is under way; written under _lock: a look without it may be late
        self._lifespan: Lifespan | None = None  # the loop thread's
        self.host: LoopHost | None = None
        self.state: dict[str, Any] = {}
        self.requests: set[InFlight] = set()
        self.disconnected = self.stalled = self.timed_out = 0  # guarded by _lock

    def inherited(self) -> object:
        """What a forked child must neither use nor let go of."""
        return self.host, self._lifespan, self.requests

    def count(self, what: Literal["disconnected", "stalled", "timed_out"]) -> None:
        """Count a request in the statistic of this name. Any thread."""
        with self._lock:
            setattr(self, what, getattr(self, what) + 1)

    def __repr__(self) -> str:
        """The state in a word or two, for the bridge's own."""
        return "closed" if self._closed else "not started" if self.host is None else "started"

    def loop_for_one_x(self, app: ASGIApp, *, lifespan: bool) -> asyncio.AbstractEventLoop:
        """The loop, for a2wsgi 1.x; if this starts it, with a lifespan only if asked. Any thread but the loop's."""
        if self._loop is not None:
            return self._loop
        if self.host is None:
            self._drives_lifespan = lifespan
        return (self.host or self.start(app)).loop

    # -- Start: a server thread -----------------------------------------------------------------------------------

    def start(self, app: ASGIApp) -> LoopHost:
        """The loop, with ``app`` started up on it. A server thread; waits for the startup.

        The app is not kept: it may know the bridge. The loop knows this object, so such a bridge would never be
        collected.

        Raises:
            BridgeClosed: `close` was called.
            LifespanFailed: The app did not start up. The next call tries again.
            BridgeError: The given loop does not run or has ended, or an app that blocks holds it up.
        """
        while True:
            mine = Change("startup")
            try:
                with self._lock:
                    if self._closed:
                        raise closed_error()  # noqa: TRY301 - the same for those who would wait for this one
                    if self.host is not None:
                        return self.host
                    change = self._change
                    if change is None:
                        change = self._change = mine
                if change is mine:
                    self._start_up(mine, app)
                    continue
            except BaseException as error:
                # Another thread may have raised it into this one before _start_up() could tell that it is over.
                mine.fail(error)
                self._end_change(mine)
                raise
            if change.is_startup:
                change.await_startup(self._startup_timeout + CANCEL_SECONDS, self._startup_timeout)
            else:
                # 1. The app is being shut down. 2. It would be started up again. 3. The end of the first would take the
                # loop and the lifespan from the second.
                change.await_stop(self.longest_stop())

    def _end_change(self, change: Change) -> None:
        """Let those go on who wait for ``change``."""
        with self._lock:
            if self._change is change:
                self._change = None
        change.over.set()

    def _start_up(self, startup: Change, app: ASGIApp) -> None:
        """Find a loop and start the app up on it; tell ``startup`` how it went."""
        host: LoopHost | None = None
        started = has_ended = False
        try:
            exit_and_fork.set_exit_hooks()
            if not self._inline:
                warn_of_uwsgi_without_threads()
            host = startup.host = self._find_host()
            host.refuse_own_thread()
            if self._drives_lifespan:
                run_lifespan(host, lambda: self._start_lifespan(host, app), self._longest_startup())
            started = True
        except BaseException as error:
            startup.fail(error)
            raise
        finally:
            with self._lock:
                # 1. The app has started up. 2. Its loop ends, and finds no bridge that uses it. 3. This one would.
                has_ended = host is not None and host.has_ended()
                if started and not has_ended:
                    self.host = host  # also if the bridge was closed meanwhile: close() waits for this, or we stop it
                self._change = None  # last: a signal handler that closes the bridge here must find one of the two
            startup.over.set()
            if host is not None and (has_ended or not started):  # not by a look at self.host, which close() may take
                host.release(self)
        if has_ended:
            self._lifespan = None
            raise loop_stopped()
        if startup.is_given_up and self._closed:  # by close(), which has returned
            self.stop_started()

    def _find_host(self) -> LoopHost:
        if self._inline:
            from .loops.inline_loop import InlineHost  # noqa: PLC0415 - few programs need it

            return InlineHost()
        if self._loop is not None:
            return GivenHost(self._loop)
        return self._shared_loop.acquire(self)

    async def _start_lifespan(self, host: LoopHost, app: ASGIApp) -> None:
        lifespan = Lifespan(app, host)
        await lifespan.startup(self._startup_timeout)
        self._lifespan, self.state = (lifespan, lifespan.state) if lifespan.supported else (None, {})
        if not lifespan.supported:
            await lifespan.shutdown(self._shutdown_timeout)

    def _longest_startup(self) -> float:
        """How many seconds `_start_lifespan` takes at most, unless somebody holds up the thread of the loop."""
        # If it fails, it waits twice more: for what the app raises, and for its task. The rest is for a busy loop.
        return self._startup_timeout + 3 * CANCEL_SECONDS

    # -- Stop: any thread but the loop's --------------------------------------------------------------------------

    def close(self) -> None:
        """End what runs, shut the app down, and refuse what comes. Idempotent.

        Raises:
            LifespanFailed: The shutdown failed. Everything is released all the same.
            BridgeError: As `stop`. If the calling thread runs the loop, the bridge stays open.
        """
        if (runs := self.host or self._change) is not None:
            runs.refuse_own_thread()
        with self._lock:
            self._closed = True
        self.stop()

    def stop(self) -> None:
        """End what runs and shut the app down, once a startup that is under way is over. The next request starts it.

        Raises:
            LifespanFailed: The shutdown failed. Everything is released all the same.
            BridgeError: An app that blocks holds up the loop, or the calling thread runs it.
        """
        startup = self._change
        if startup is not None and startup.is_startup and not startup.wait(self._longest_startup() + CANCEL_SECONDS):
            with self._lock:
                startup.is_given_up = self._change is startup
            # If a signal handler has closed the bridge, its thread goes on after it, and stops what it starts.
            if startup.is_given_up and not (self._closed and startup.is_here()):
                raise loop_held_up()
        self.stop_started()

    def stop_started(self) -> None:
        """`stop` that waits for no startup, but for another stop."""
        host = self.host  # looked at once: another thread may stop it as well
        if host is not None:
            host.refuse_own_thread()
        host, stop = None, Change("stop")
        try:
            with self._lock:
                host, self.host = self.host, None
                if host is not None:
                    stop.host, self._change = host, stop
            if host is None:
                if (other := self._change) is not None:
                    other.let_end(self.longest_stop())
                return
            if host.trouble() is None:
                if self._inline:  # a thread that waits for its app lets no other one run the loop
                    with contextlib.suppress(RuntimeError):  # closed meanwhile
                        host.loop.call_soon_threadsafe(self._abort_all, context=contextvars.Context())
                run_lifespan(host, lambda: self._shut_down(host), self._longest_shutdown())
        finally:
            try:
                if host is not None:
                    if host.trouble() is not None:
                        self._lose(self.requests.copy())
                    self.requests.clear()  # of apps that ignore their end: a later stop must not wait for them
                    host.release(self)
                    host.join(self._shutdown_timeout)
            finally:
                self._end_change(stop)

    def forget(self, host: LoopHost) -> None:
        """Start anew at the next request: the loop was closed by somebody else. Any thread."""
        with self._lock:
            if self.host is not host:
                return
            self.host = self._lifespan = None
            requests = self.requests.copy()  # as in loop_ended()
        host.release(self)
        self._lose(requests)

    def _lose(self, requests: set[InFlight]) -> None:
        """Abort what ran on a loop that does not run any more. Any thread, in the place of the loop's."""
        self.requests -= requests  # they will not take themselves out any more
        for request in requests:
            request.abort(loop_stopped())

    def loop_ended(self, host: LoopHost, error: Callable[[], BaseException]) -> None:
        """Abort what runs on a loop that has ended. The next request starts anew. Loop thread."""
        with self._lock:
            if self.host is host:
                self.host = self._lifespan = None
            elif self.host is not None:
                return  # the bridge has another loop by now
            requests = self.requests.copy()  # with the lock held, before the next request starts another loop
            self.requests -= requests  # as in _lose()
        for request in requests:
            request.abort(error())

    # -- A bridge that was dropped --------------------------------------------------------------------------------

    def stop_dropped(self) -> None:
        """`stop` for a bridge that was dropped. Any thread, at any point of its code; waits only for an inline loop."""
        host, self.host = self.host, None
        if host is None:
            return
        try:
            if self._inline:
                try:
                    run_lifespan(host, lambda: self._shut_down(host), self._longest_shutdown())
                finally:
                    host.release(self)
            else:
                departure = exit_and_fork.Departure(host, self._longest_shutdown())
                if host.trouble() is None:  # else nobody runs the loop, so there is nothing to wait for
                    departure.begin()
                host.loop.call_soon_threadsafe(self._depart, departure, context=contextvars.Context())
        except BaseException:  # noqa: BLE001 - of a loop that was closed, or an app that fails to end: nobody is to be told
            logger.debug("A bridge that was dropped did not end cleanly", exc_info=True)

    def _depart(self, departure: exit_and_fork.Departure) -> None:
        """Shut down and let the loop go, without waiting for it. Loop thread."""
        host = departure.host

        def leave() -> None:
            host.release(self)
            departure.end()

        if not self.requests and self._lifespan is None:
            leave()
            return
        shutting_down = self._shut_down(host)
        try:
            task = host.loop.create_task(shutting_down)
        except BaseException:  # of a task factory of the app's: the end of the process would wait for ever
            shutting_down.close()
            leave()
            raise
        _ending_tasks.add(task)

        def is_over(task: asyncio.Task[None]) -> None:
            _ending_tasks.discard(task)
            leave()
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("The app of a bridge that was dropped did not shut down", exc_info=error)

        task.add_done_callback(is_over)

    # -- Stop: the loop thread ------------------------------------------------------------------------------------

    async def _shut_down(self, host: LoopHost) -> None:
        """End the requests on ``host``, then the lifespan."""
        requests = self._abort_all()
        tasks = {request.task for request in requests if request.task is not None}
        if tasks:
            await host.end_tasks(tasks, self._shutdown_timeout)
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            await lifespan.shutdown(self._shutdown_timeout, self._inside())

    def _abort_all(self) -> set[InFlight]:
        """Tell the requests that the bridge is closed, and return them."""
        requests = self.requests.copy()
        for request in requests:
            request.abort(closed_error())  # one for each: an error that several threads raise joins their tracebacks
        return requests

    def _longest_shutdown(self) -> float:
        """How many seconds `_shut_down` takes at most, unless somebody holds up the thread of the loop."""
        # Its two waits; in each, a cancelled task may take CANCEL_SECONDS. The rest is for a busy loop.
        return 2 * (self._shutdown_timeout + CANCEL_SECONDS) + self._inside() + CANCEL_SECONDS

    def longest_stop(self) -> float:
        """How many seconds `stop` takes at most, with the same exception."""
        change = self._change
        before = self._longest_startup() + CANCEL_SECONDS if change is not None and change.is_startup else 0
        # For the loop to end: at most `join`, or what `close_loop` waits for.
        return before + self._longest_shutdown() + max(self._shutdown_timeout, 4 * CANCEL_SECONDS)
