"""The loop threads of a process: one for asyncio, and one for trio, each shared by all bridges that need it.

Strategy
    The first bridge that needs a `SharedHost` starts it, and it ends with the last. Here is what asyncio's and trio's
    have in common, and asyncio's; trio's is in `trio_host`.

Guarantees
    - The thread ends with its last user, and leaves nothing behind: no task, no descriptor, no executor. Only a thread
      of `asyncio.to_thread` that takes longer than a second goes on.
    - ``SystemExit`` in a task of the app's does not end the thread.
    - Under gevent's monkey-patching it is a real thread. No greenlet of the server's sees its loop running, and they go
      on while one of them waits at a gate, which is gevent's then.

Assumes
    `forget_shared` is called in a forked child before anything else here.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import sys
import threading
from typing import TYPE_CHECKING, ClassVar, cast

from a2wsgi._asgi_on_wsgi import faults
from a2wsgi._log import logger

from .fast_loop import FastLoop, new_event_loop
from .greenlets import gevent_start_thread
from .host import LOOK_SECONDS, LoopHost, close_loop

if TYPE_CHECKING:
    import asyncio

    from typing_extensions import Self

    from a2wsgi._threads.runtime import Doorbell

    from .host import LoopUser

#: Guards `_shared`, and the users of each shared loop. It is held while a thread is started, which needs nothing that
#: we guard; else nothing is waited for while it is held, but by a signal handler or a finalizer that closes a bridge in
#: the thread that holds it: so it is re-entrant.
_lock = threading.RLock()
#: The one of each class that takes users.
_shared: dict[type[SharedHost], SharedHost] = {}


class SharedHost(LoopHost):
    """A loop in a daemon thread of ours, shared by all bridges that need one of its kind.

    Its stages, each of which is reached once:

    ========  ===========================================================================================
    starting  `launch` was called; the thread makes its loop
    ready     ``_ready`` is set: the loop is there, or ``_failure`` says why not
    stopping  ``stopping`` is true: it takes no more users, and `acquire` starts another
    ended     ``_ended`` is set: nobody runs the loop; ``_broken`` is the type of what it failed with, if it did
    ========  ===========================================================================================
    """

    __slots__ = ("_broken", "_ended", "_failure", "_ready", "_thread", "_users", "stopping")

    wakes_late = True
    thread_name: ClassVar[str]

    def __init__(self) -> None:
        # The loop, and what `LoopHost` needs of it, are made in the thread: under gevent a loop belongs to its maker.
        self._users: set[LoopUser] = set()  # guarded by the module's _lock
        # Only grows true: under the module's _lock, or by the thread that could not make its loop. Any thread may look:
        # who must not miss it does so under the lock.
        self.stopping = False
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._failure: BaseException | None = None  # written by the loop thread before _ready is set
        self._broken: str | None = None  # written by the loop thread before _ended is set
        self._thread: threading.Thread | None = None  # None under gevent

    # -- Any thread -----------------------------------------------------------------------------------------------

    @classmethod
    def acquire(cls, user: LoopUser) -> Self:
        """The process's one shared loop of this kind, with ``user`` on it. Starts it if there is none. Any thread.

        Raises:
            BaseException: It could not be made, or an exception from outside has interrupted the wait for it.
        """
        with _lock:
            host = cast("Self | None", _shared.get(cls))
            if host is None or host.stopping:
                host = cls()
                host._users.add(user)
                try:
                    host.launch()
                except BaseException:
                    host.release(user)  # an exception from outside may have come when its thread was started already
                    raise
                _shared[cls] = host  # only now: nobody else finds a loop that will never be ready
            host._users.add(user)
        try:
            host.wait_ready()
        except BaseException:
            host.release(user)
            raise
        return host

    def launch(self) -> None:
        """Start the thread. Once.

        Raises:
            MissingCapability: This is WebAssembly, or a subinterpreter that allows no such threads.
            RuntimeError: No thread can be started: the system has no more, or the process ends.
        """
        start = gevent_start_thread()
        if start is not None:
            # gevent imports a part of itself when a thread makes its first hub. If this thread and the new one did so
            # at once, they would wait for each other's import locks for ever. So this one makes its hub first.
            importlib.import_module("gevent").get_hub()
            start(self._main, ())
            return
        try:
            self._thread = threading.Thread(target=self._main, name=self.thread_name, daemon=True)
            contextvars.Context().run(self._thread.start)  # free-threaded Pythons copy the caller's, a request's
        except RuntimeError as error:
            # Python says "thread is not supported for isolated subinterpreters" (3.10, 3.11), or "daemon threads are
            # disabled in this (sub)interpreter" (since 3.12).
            if sys.platform == "emscripten" or "subinterpreter" in str(error).replace("(sub)", "sub"):
                raise faults.no_daemon_threads() from error
            raise

    def wait_ready(self) -> None:
        """Wait until the loop is there.

        Raises:
            BaseException: It could not be made.
        """
        while not self._ready.wait(LOOK_SECONDS):
            pass  # without a timeout gevent, which does not count threads, would say that nobody can ever set it
        if self._failure is not None:
            raise self._failure

    def has_ended(self) -> bool:
        return self.stopping

    def trouble(self) -> BaseException | None:
        if self._ended.is_set():
            return self._end_error()
        return faults.loop_stopped() if self.is_inherited() else None

    def release(self, user: LoopUser) -> None:
        with _lock:
            self._users.discard(user)
            if self._users or self.stopping:
                return
            self._stop_sharing()
            # 1. Its thread was started. 2. The only user gives up waiting for it. 3. It is ready, and looks for itself.
            # Under the lock, which the loop takes before it closes: a stop that came later would cut that short.
            if self._ready.is_set():
                with contextlib.suppress(RuntimeError):  # closed: it has ended already
                    self.loop.call_soon_threadsafe(self.loop.stop)

    def join(self, seconds: float) -> None:
        if not self.stopping:
            return  # others use it
        self._ended.wait(seconds)
        if self._thread is not None and self._ended.is_set():
            self._thread.join()

    def _stop_sharing(self) -> None:
        """Take no more users. The module's lock is held."""
        self.stopping = True
        if _shared.get(type(self)) is self:
            del _shared[type(self)]

    # -- The loop thread ------------------------------------------------------------------------------------------

    def _main(self) -> None:
        """Run the loop thread, from its start to its end. It sets ``_ready`` and, in any case, ``_ended``."""
        raise NotImplementedError

    def _could_not_start(self, error: BaseException) -> None:
        """Have `wait_ready` raise what the loop could not be made for."""
        self._failure = error
        self.stopping = True

    def _fail_users(self) -> None:
        """Tell those who still use a loop that has ended; there are none if the last has left."""
        with _lock:
            self._stop_sharing()
            users, self._users = self._users, set()
        for user in users:
            try:
                user.loop_ended(self, self._end_error)
            except Exception:  # noqa: BLE001 - the other users are to be told as well
                logger.exception("A bridge could not be told that its event loop has ended")

    def _end_error(self) -> BaseException:
        return faults.loop_stopped() if self._broken is None else faults.loop_broke(self._broken)


# -- asyncio's --------------------------------------------------------------------------------------------------------


class AsyncioHost(SharedHost):
    """A loop of asyncio's in a thread of ours: what a bridge gets that asks for nothing else."""

    __slots__ = ()

    thread_name = "a2wsgi-loop"

    def _main(self) -> None:
        try:
            loop = new_event_loop()
            LoopHost.__init__(self, loop)
            if isinstance(loop, FastLoop):
                self.before_wait = loop.before_wait
                self.doorbell = cast("Doorbell", loop)  # it can be rung itself, and that is all that is asked of it
        except BaseException as error:  # noqa: BLE001 - raised by wait_ready()
            self._could_not_start(error)
            self._ended.set()
            return
        finally:
            self._ready.set()
        try:
            self._run(loop)
        finally:
            try:
                self._fail_users()
                close_loop(loop)
            finally:
                self._ended.set()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the loop until we or an app stop it, or it breaks."""
        while not self.stopping:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # asyncio lets these two out of a task, to end the process. Here they end a request at most.
                logger.exception(
                    "A task of the app raised an exception that would end the process; the event loop goes on"
                )
            except BaseException as error:  # noqa: BLE001 - its traceback is logged; requests get another error for it
                # An app has closed the selector's descriptor, say, or another thread has raised an exception in this
                # one. A broken loop would fail again at once, so it is not run again.
                self._broken = type(error).__name__
                logger.exception(
                    "The event loop failed, and its requests with it. The next request starts another loop"
                )
                return
            else:
                return


# -- Forks: called by exit_and_fork -----------------------------------------------------------------------------------


def forget_shared() -> object:
    """Forget, in a forked child, the loops and the threads that only its parent has.

    Returns:
        What must be kept, and not be used: its finalizers would reach into the parent.
    """
    global _lock, _shared  # noqa: PLW0603 - one per process is what they are for
    inherited, _shared = _shared, {}
    _lock = threading.RLock()  # another thread of the parent may have held it
    return inherited
