"""One bridge's event loop in this process, with the app started up on it: start, fork, close, exit.

Strategy
    An `Engine` belongs to one bridge. At the first request it takes a place on a host of `_loop_thread`, and starts the
    app up there. It gives the place up when the bridge is closed, when it is dropped, or when the process ends.

Guarantees
    - Nothing is started by a constructor, an import or a fork. A forked child starts anew, with its own loop, thread
      and lifespan; what it inherited is neither used nor closed, since the parent still has it.
    - Startup runs once at a time; who comes meanwhile waits for it and shares its outcome.
    - At the end of the process every app is shut down, while threads can still be started (``asyncio.to_thread``
      works), and the loop thread has ended before the interpreter goes.
    - The finalizer of a bridge takes no lock: the garbage collector may run it in a thread that holds any of ours.

Assumes
    ``loop.call_soon_threadsafe`` takes no lock that is held while Python code runs (asyncio's and uvloop's take none).
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # its exit hook has to be set before ours, so that it is run after it
import contextlib
import contextvars
import logging
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from ._errors import AppError, AppProtocolError, BridgeClosed, BridgeError, LifespanFailed
from ._lifespan import Lifespan
from ._loop_thread import (
    CANCEL_SECONDS,
    SIGN_SECONDS,
    GivenHost,
    InlineHost,
    Place,
    ThreadHost,
    adopt_orphans,
    expect_given,
)

if TYPE_CHECKING:
    from ._types import ASGIApp

__all__ = ["Engine", "Running", "closed_error", "fit_for_a_server", "is_cancellation"]

logger = logging.getLogger("a2wsgi")

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_leaving: set[asyncio.Task[None]] = set()
#: Where bridges that were dropped are still ending, each with what tells of its end: the process's end waits for them.
_abandoned: set[tuple[Place, threading.Event]] = set()
_exit_hooks_are_set = False
_uwsgi_is_checked = False


class Running(Protocol):
    """A request, as its engine sees it."""

    task: asyncio.Task[None] | None

    def give_up(self, error: BaseException) -> None:
        """End the request: its server thread gets ``error``, its app ``http.disconnect``. Loop thread."""


class _Startup:
    """One attempt to start an app up, for which several threads may wait."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.place: Place | None = None  # where it goes on; whoever waits for it must not be that loop's thread
        self.error: BaseException | None = None  # written before `over` is set

    def wait(self, seconds: float) -> bool:
        """Wait until it is over, at most ``seconds``. False if it is not.

        Raises:
            BridgeError: The calling thread runs the loop on which the app starts up.
        """
        if self.place is not None:
            self.place.refuse_own_thread()
        return self.over.wait(seconds)


class Engine:
    """The event loop of one bridge, in this process.

    Args:
        loop: A loop that runs elsewhere; None takes one of ours.
        inline: Let the server threads run the loop.
        lifespan: Drive the app's lifespan.
        startup_timeout: How many seconds the startup may take.
        shutdown_timeout: How many seconds running requests, and then the lifespan's shutdown, may take.

    Attributes:
        host: Where the app is started up; None while it is not. Written under the lock.
        state: The lifespan's state, of which each request gets a copy.
        requests: Those on the loop. Loop thread.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop | None,
        inline: bool,
        lifespan: bool,
        startup_timeout: float,
        shutdown_timeout: float,
    ) -> None:
        self._loop = loop
        self._inline = inline
        self._drives_lifespan = lifespan
        self._startup_timeout = startup_timeout
        self._shutdown_timeout = shutdown_timeout
        self._closed = False  # guarded by _lock
        if loop is not None:
            expect_given(loop)
        self.forget()
        _engines.add(self)

    def forget(self) -> None:
        """Start from nothing: in the constructor, and in the child after a fork."""
        self._lock = threading.Lock()  # never held while anything is waited for
        self._startup: _Startup | None = None  # the attempt that is under way; guarded by _lock
        self._lifespan: Lifespan | None = None
        self.host: Place | None = None
        self.state: dict[str, Any] = {}
        self.requests: set[Running] = set()

    def inheritance(self) -> object:
        """What a forked child must neither use nor let go of."""
        return self.host, self._lifespan, self.requests

    def __repr__(self) -> str:
        """In a word, for the bridge's own."""
        return "closed" if self._closed else "not started" if self.host is None else "started"

    # -- Start: a server thread -----------------------------------------------------------------------------------

    def start(self, app: ASGIApp) -> Place:
        """The host, with ``app`` started up on it. A server thread; waits for the startup.

        The engine, which its host knows, does not keep the app, which may know the bridge: else no such bridge would
        ever be collected.

        Raises:
            BridgeClosed: `close` was called.
            LifespanFailed: The app did not start up. The next call tries again.
            BridgeError: The given loop does not run, or ended.
        """
        while True:
            with self._lock:
                if self._closed:
                    raise closed_error()
                if self.host is not None:
                    return self.host
                startup = self._startup
                mine = startup is None
                if startup is None:
                    startup = self._startup = _Startup()
            if mine:
                self._start_up(startup, app)
            elif not startup.wait(self._startup_timeout + CANCEL_SECONDS):
                raise LifespanFailed(
                    "The app's startup, which another request waits for, took longer than "
                    f"startup_timeout={self._startup_timeout} s. Make it quicker, or raise startup_timeout."
                )
            if startup.error is not None:
                raise startup.error

    def _start_up(self, startup: _Startup, app: ASGIApp) -> None:
        """Find a place and start the app up on it; say in ``startup`` how it went."""
        _set_exit_hooks()
        if not self._inline:
            _check_uwsgi()
        place: Place | None = None
        started = False
        try:
            place = startup.place = self._find_place()
            place.refuse_own_thread()
            if self._drives_lifespan:
                place.run(lambda: self._start_lifespan(app))
            started = True
        except BaseException as error:
            startup.error = (
                error if isinstance(error, Exception) else BridgeError(f"The startup was interrupted: {error!r}")
            )
            raise
        finally:
            with self._lock:
                self._startup = None
                if started:
                    self.host = place  # also if the bridge was closed meanwhile: close() waits for this, and stops it
            startup.over.set()
            if place is not None and not started:
                place.leave_host(self)

    def _find_place(self) -> Place:
        if self._inline:
            return InlineHost()
        if self._loop is not None:
            return GivenHost(self._loop)
        host = ThreadHost.take(self)
        host.wait_ready()
        return host

    async def _start_lifespan(self, app: ASGIApp) -> None:
        lifespan = Lifespan(app)
        await lifespan.startup(self._startup_timeout)
        if lifespan.supported:
            self._lifespan, self.state = lifespan, lifespan.state
        else:
            await lifespan.shutdown(self._shutdown_timeout)

    # -- Stop: any thread but the loop's --------------------------------------------------------------------------

    def close(self) -> None:
        """End what runs, shut the app down, and refuse what comes. Idempotent.

        Raises:
            LifespanFailed: The shutdown failed; everything is released all the same.
        """
        with self._lock:
            self._closed = True
            startup = self._startup
        if startup is not None:
            startup.wait(self._startup_timeout + CANCEL_SECONDS)
        self.stop()

    def stop(self) -> None:
        """End what runs and shut the app down. The next request would start it again."""
        if self.host is not None:
            self.host.refuse_own_thread()
        with self._lock:
            host, self.host = self.host, None
        if host is None:
            return
        try:
            if host.trouble() is None:
                host.run(self._wind_up)
        finally:
            host.leave_host(self)
            host.join(self._shutdown_timeout)

    def abandon(self) -> None:
        """`stop` for a bridge that was dropped. Any thread, amid anything; waits for an inline loop only."""
        host, self.host = self.host, None
        if host is None:
            return
        try:
            if isinstance(host, InlineHost):
                host.run(self._wind_up)
                host.leave_host(self)
            else:
                ending = host, threading.Event()
                if host.trouble() is None:  # else nobody runs it, and nothing is to be waited for
                    _abandoned.add(ending)
                host.loop.call_soon_threadsafe(self._leave_soon, ending, context=contextvars.Context())
        except Exception:  # a loop that was closed, an app that fails to end: nobody is there to be told
            logger.debug("A bridge that was dropped did not end well", exc_info=True)

    def _leave_soon(self, ending: tuple[Place, threading.Event]) -> None:
        """Wind up and leave the loop that this runs on."""
        host, gone = ending

        def leave() -> None:
            host.leave_host(self)
            _abandoned.discard(ending)
            gone.set()

        if not self.requests and self._lifespan is None:
            leave()
            return
        task = host.loop.create_task(self._wind_up())
        _leaving.add(task)  # asyncio keeps no strong reference

        def left(task: asyncio.Task[None]) -> None:
            _leaving.discard(task)
            if not task.cancelled() and task.exception() is not None:
                logger.error("The app of a bridge that was dropped did not shut down", exc_info=task.exception())
            leave()

        task.add_done_callback(left)

    async def _wind_up(self) -> None:
        """End the requests, then the lifespan. Loop thread."""
        requests = tuple(self.requests)
        for request in requests:
            request.give_up(closed_error())
        await self._end_tasks({request.task for request in requests if request.task is not None})
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            await lifespan.shutdown(self._shutdown_timeout)

    async def _end_tasks(self, tasks: set[asyncio.Task[None]]) -> None:
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=self._shutdown_timeout)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=CANCEL_SECONDS)

    def lost(self, host: Place, error: BaseException) -> None:
        """See `Tenant`. The next request starts anew."""
        with self._lock:
            if self.host is host:
                self.host = None
        for request in tuple(self.requests):
            request.give_up(error)


def closed_error() -> BridgeClosed:
    """What a call of a closed bridge raises, and what ends the requests on one that is closed."""
    return BridgeClosed(
        "The bridge was closed: close() was called, its with block has ended, or the process ends. No request is "
        "served after that. Close it after the last request, or build another."
    )


def _check_uwsgi() -> None:
    """Warn, once a process, of a uWSGI that runs no thread but its own between requests."""
    global _uwsgi_is_checked  # noqa: PLW0603 - once a process
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is None or _uwsgi_is_checked:
        return
    _uwsgi_is_checked = True
    options = {key.decode() if isinstance(key, bytes) else key for key in getattr(uwsgi, "opt", ())}
    if not options & {"enable-threads", "threads"}:
        logger.warning(
            "uWSGI runs without threads: between requests the event loop stands still, and with it background tasks. "
            "Start uWSGI with --enable-threads, or build the bridge with inline=True."
        )


# -- Exit -------------------------------------------------------------------------------------------------------------


def _set_exit_hooks() -> None:
    global _exit_hooks_are_set  # noqa: PLW0603 - once a process, and inherited by its forks as the hooks are
    if _exit_hooks_are_set:
        return
    _exit_hooks_are_set = True
    atexit.register(_stop_all)
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        with contextlib.suppress(RuntimeError):  # the process is ending already
            register(_stop_all_early)


def _stop_all_early() -> None:
    """Stop all engines, at a time when an app's shutdown can still use threads.

    A server that serves in a thread which is no daemon serves on when the main thread has ended, until its own end:
    then it is left to the later hook.
    """
    # Executors' threads are told to end by the hook that is called after ours.
    workers: set[threading.Thread] = set(getattr(concurrent.futures.thread, "_threads_queues", ()))
    here = threading.current_thread()
    if not any(t for t in threading.enumerate() if t is not here and not t.daemon and t not in workers):
        _stop_all()


def _stop_all() -> None:
    for engine in tuple(_engines):
        try:
            engine.stop()
        except Exception:
            logger.exception("The app of a bridge did not shut down at the end of the process")
    for host, gone in _abandoned.copy():
        while host.trouble() is None and not gone.wait(SIGN_SECONDS):
            pass
        host.join(CANCEL_SECONDS)


# -- Fork -------------------------------------------------------------------------------------------------------------


def _after_fork_in_child() -> None:
    engines = tuple(_engines)
    adopt_orphans([*(engine.inheritance() for engine in engines), *_abandoned])
    _abandoned.clear()
    for engine in engines:
        engine.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# -- What an app ended in ---------------------------------------------------------------------------------------------


def fit_for_a_server(error: BaseException, *, inline: bool) -> BaseException:
    """What the server is to get for what the app raised: the same object, unless that would harm the server.

    Args:
        error: What the app raised.
        inline: It was raised in the server's own thread. What ends a thread there comes from the server itself, as
            gunicorn ends a worker by ``SystemExit`` in a signal handler, or from the user's Ctrl-C.
    """
    wrapped = error.__cause__
    if type(error) is AppError and isinstance(wrapped, (SystemExit, KeyboardInterrupt)):
        return wrapped  # of a WSGI app behind another bridge, which the server called: it is the server's to have
    if isinstance(error, asyncio.CancelledError):
        fault: BaseException = AppProtocolError(
            "The ASGI app ended in CancelledError, which nobody but itself asked for. The response is not complete. "
            "Catch CancelledError where a task of the app's own is cancelled."
        )
    elif isinstance(error, Exception) or (inline and not isinstance(error, GeneratorExit)):
        return error
    else:
        fault = AppError(
            f"The ASGI app raised {error!r}, which would end the server's thread. It fails this request alone. Raise "
            "an Exception."
        )
    fault.__cause__ = error
    return fault


def is_cancellation(error: BaseException) -> bool:
    """Whether it is asyncio's ``CancelledError``."""
    return isinstance(error, asyncio.CancelledError)
