"""``app_timeout``: the request of an app that is late with its response ends, and its thread is left alone."""

# Apps hold `Disconnected`: whatever is not for them has an underscore.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import functools
import sys
import time
import traceback
from typing import TYPE_CHECKING, cast

from a2wsgi._errors import AppTimeout
from a2wsgi._log import logger

from .endings import Ending
from .failures import FailureMixin

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from a2wsgi._types import Scope

    from .jobs import Job
    from .response import Response
    from .workers import Workers


class AppTimeoutMixin(FailureMixin):
    """The part of a `Request` that looks after ``app_timeout``. `Request` sets the attributes.

    The time runs from the app's start to the first chunk of its response, which takes the head along. A request that is
    over for another reason is timed all the same: clients leave long before an app that hangs comes back. Nobody is
    answered then, but its thread is just as lost.

    Fast path: it is a mixin, as `FailureMixin` is.
    """

    __slots__ = ("_is_abandoned", "_is_overdue", "_response", "_scope", "_started_at", "_workers")

    _scope: Scope
    _response: Response
    _workers: Workers
    #: When the worker thread called the app, by ``time.monotonic``; 0 before. The worker thread's.
    _started_at: float
    #: The time is over. The loop thread's.
    _is_overdue: bool
    #: Nobody waits for the worker thread, which may still run the app. The loop thread's.
    _is_abandoned: bool

    def _look_at_app(self, timeout: float) -> None:
        """Give the app up if it has not begun its response in time. Loop thread, each tick, until that has happened."""
        if self._output.done or self._response.framing is not None:
            self._loop.abandoned.discard(self)
        elif time.monotonic() - self._started_at >= timeout:
            # The stack is taken first: the worker goes on as soon as the request ends.
            if (thread := self._workers.write_off(cast("Job", self))) is None:
                return  # it is done, and about to say so
            self._is_overdue = True
            self._loop.abandoned.discard(self)
            text = _describe(self._scope, thread, timeout)
            if not self.abort(Ending.TIMED_OUT, functools.partial(AppTimeout, timeout), text):
                self._count(Ending.TIMED_OUT)
                logger.error("A request is over, but its app is still running: %s", text)
            self._output.abandon()

    def _abandon_worker(self, *, watch: bool) -> None:
        """The request is over for the server, and the worker thread may still run its app. Loop thread.

        Args:
            watch: There is an ``app_timeout``, so the timer goes on.
        """
        # 1. The worker thread says that it is done. 2. It sees that it is not abandoned. 3. It is abandoned. So this
        # looks whether it is done after it has said so.
        self._is_abandoned = True
        if self._output.done:
            # 1. The app fails, and finds its request not yet aborted. 2. The request is aborted, and finds no failure
            # to log. 3. The worker thread keeps the failure, and is done.
            self._log_failure()
            self._disconnected._finish()
        elif watch and not self._is_overdue:
            self._loop.abandoned.add(self)


def _describe(scope: Scope, thread: threading.Thread, seconds: float) -> str:
    """What the log says, with the stack of ``thread`` at this moment. The query may hold secrets, and is left out."""
    return (
        f"{scope.get('method')} {scope.get('path')!r} has not begun its response within app_timeout={seconds:g} s. Its "
        f"thread {thread.name} does not count towards workers until the app returns. It is at:\n{_stack(thread.ident)}"
    )


def _is_safe() -> bool:
    """Whether the frames of a thread that runs may be looked at.

    Python's docs, "Python support for free threading", "Frame objects": in 3.13 that may crash a process without a GIL.
    From 3.14 on only a frame's ``f_locals`` may, which a stack does not need.
    """
    has_gil: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)  # Python 3.13's
    return sys.version_info >= (3, 14) or has_gil()


def _stack(ident: int | None) -> str:
    """The stack of a thread, from the call of the app; all of it if that is not on it."""
    if not _is_safe():
        return "  (unknown: this Python may crash if one thread reads the stack of another)"
    frame = sys._current_frames().get(ident or 0)
    try:
        stack = list[traceback.FrameSummary]() if frame is None else list(traceback.extract_stack(frame))
    except Exception:  # noqa: BLE001 - a module's loader, which finds the lines, may be the user's
        logger.debug("The stack of a thread could not be read", exc_info=True)
        return "  (unknown)"
    finally:
        del frame
    calls = [number for number, entry in enumerate(stack) if entry.name == "_run_app"]
    return "".join(traceback.format_list(stack[calls[0] + 1 if calls else 0 :])).rstrip("\n")
