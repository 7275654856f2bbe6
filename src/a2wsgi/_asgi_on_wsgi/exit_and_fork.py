"""What the end of the process, and a fork of it, mean for all its bridges.

Strategy
    Each `Lifetime` registers itself. At the end of the process, each is stopped; in a forked child, each starts anew.

Guarantees
    - No hook is set before a bridge is first started, and none is set twice.
    - At the end of the process every app is shut down, in time for its shutdown to use threads (``asyncio.to_thread``).
      The loop threads have ended before the interpreter does.
    - Bridges that were dropped shortly before have time to end, too.
    - A forked child neither uses nor closes what it has inherited: its parent still has it. The two share an epoll
      instance, for example.

Assumes
    The threads of `shared_loop` are daemons. Else the process would not end before they do.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING

from a2wsgi._log import logger

from .endings import EndingMixin
from .loops.host import CANCEL_SECONDS, LOOK_SECONDS, forget_given
from .loops.shared_loop import forget_shared

if TYPE_CHECKING:
    from .lifetime import Lifetime
    from .loops.host import LoopHost

#: By their ids. A dictionary, since that can be copied in one step while other threads build bridges; a WeakSet cannot.
_lifetimes: dict[int, weakref.ref[Lifetime]] = {}
#: Bridges that were dropped and are still ending. Added to by any thread, taken from by the loop thread.
_departures: set[Departure] = set()
#: What this process has inherited by a fork, to be kept unused for ever.
_inherited: list[object] = []
#: One item until the exit hooks are set: whoever takes it out, in one step, sets them.
_exit_hooks_due: list[None] = [None]


class Departure:
    """The end of a bridge that was dropped: the end of the process waits for it.

    Args:
        host: The loop that the bridge still uses.
        seconds: How long the end of the process waits at most.
    """

    def __init__(self, host: LoopHost, seconds: float) -> None:
        self.host = host
        self._seconds = seconds
        self._over = threading.Event()

    def begin(self) -> None:
        """Have the end of the process wait. Any thread; takes no lock."""
        _departures.add(self)

    def end(self) -> None:
        """Nothing of the bridge is left. Loop thread."""
        _departures.discard(self)
        self._over.set()

    def wait(self) -> None:
        """Wait until nothing of the bridge is left, its loop will do nothing any more, or the time is over."""
        deadline = time.monotonic() + self._seconds
        while self.host.trouble() is None and not self._over.wait(LOOK_SECONDS):
            if time.monotonic() > deadline:
                logger.error("A bridge that was dropped did not end: blocking code holds up its event loop")
                return
        self.host.join(CANCEL_SECONDS)


def register(lifetime: Lifetime) -> None:
    """Have ``lifetime`` end with the process, and start anew in a forked child. It is not kept alive."""
    key = id(lifetime)
    _lifetimes[key] = weakref.ref(lifetime, lambda _: _lifetimes.pop(key, None))


def _all_lifetimes() -> list[Lifetime]:
    """The lifetimes of this process. Any thread."""
    return [lifetime for reference in _lifetimes.copy().values() if (lifetime := reference()) is not None]


# -- Exit: the main thread --------------------------------------------------------------------------------------------


def set_exit_hooks() -> None:
    """Have the end of the process stop all bridges. A forked child inherits the hooks. Any thread."""
    # Two bridges may be started at once. No lock: a fork may come meanwhile, and nobody would release the child's.
    try:
        _exit_hooks_due.pop()
    except IndexError:
        return
    atexit.register(_stop_all)
    register_early = getattr(threading, "_register_atexit", None)
    if register_early is not None:
        with contextlib.suppress(RuntimeError):  # the process is ending already
            # Sets the hook that ends the threads of executors. It has to be set before ours to run after it. Imported
            # here, since a process that only imports us does not need it.
            importlib.import_module("concurrent.futures.thread")
            register_early(_stop_all_early)


def _stop_all_early() -> None:
    """Stop all bridges while an app's shutdown can still use threads, unless a server may go on serving.

    A server may serve in a thread that is no daemon. It serves on when the main thread has ended, until it ends
    itself. The later hook stops the bridges then.
    """
    # The hook of the executors, which runs after ours, ends their threads.
    executors = sys.modules["concurrent.futures.thread"]
    queues: weakref.WeakKeyDictionary[threading.Thread, object] | None = getattr(executors, "_threads_queues", None)
    # In one step: an executor that goes on may start a thread while this one looks.
    references = [] if queues is None else queues.keyrefs()
    workers = {reference() for reference in references}
    here = threading.current_thread()
    if not any(t for t in threading.enumerate() if t is not here and not t.daemon and t not in workers):
        _stop_all()


def _stop_all() -> None:
    for lifetime in _all_lifetimes():
        try:
            lifetime.stop_started()  # a startup may wait for what never comes
        except BaseException:  # noqa: BLE001 - the apps of the other bridges are to be shut down as well
            logger.exception("The app of a bridge did not shut down at the end of the process")
    for departure in _departures.copy():
        departure.wait()


# -- Fork: the only thread of the child -------------------------------------------------------------------------------


def _renew_locks(lifetime: Lifetime) -> None:
    """Make anew what the parent's loop thread may have held: the child may go on with a response, and gets an error."""
    if lifetime.host is not None:
        lifetime.host.renew_locks()
    for request in lifetime.requests:
        if isinstance(request, EndingMixin):
            request.renew_lock()


def _after_fork_in_child() -> None:
    lifetimes = _all_lifetimes()
    for lifetime in lifetimes:
        _renew_locks(lifetime)
    forget_given()
    _inherited.append((forget_shared(), [lifetime.inherited() for lifetime in lifetimes], *_departures))
    _departures.clear()
    for lifetime in lifetimes:
        lifetime.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
