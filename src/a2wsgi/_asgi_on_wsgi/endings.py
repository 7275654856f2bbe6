"""How a request ends that is not left to its app: its client has left, its time is over, or its bridge is closed.

All of it runs on the loop thread, unless it says otherwise. What the end of the app itself means is in `outcome`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from a2wsgi._errors import AppTimeout, ClientDisconnected
from a2wsgi._log import logger
from a2wsgi._threads.runtime import renew_lock, wake

from .outcome import COMPLETE, DETACHED, ENDED, GONE, READING, RUNNING, WAITING
from .overdue import describe
from .sender import SenderMixin

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from a2wsgi._threads.handles import Timer

    from .outcome import Failure


class InFlight(Protocol):
    """A request, as the lifetime of its bridge sees it."""

    task: asyncio.Task[None] | None

    def abort(self, error: BaseException) -> None:
        """End the request: its server thread gets ``error``, its app ``http.disconnect``.

        Threading: the loop's thread, or any one if the loop does not run any more.
        """


class _BothTimers:
    """The timers of ``app_timeout`` and of ``grace_timeout``, which are cancelled as one."""

    __slots__ = ("_timers",)

    def __init__(self, *timers: Timer) -> None:
        self._timers = timers

    def cancel(self) -> None:
        """Cancel both."""
        for timer in self._timers:
            timer.cancel()


class EndingMixin(SenderMixin):
    """The part of a `Request` that ends it from outside. `Request` sets the attributes.

    Fast path: it is a mixin, as `SenderMixin` is.
    """

    __slots__ = ("_failure",)

    #: What the app failed with, and nobody was told yet. Whoever tells it, server thread or loop thread, takes it out.
    _failure: Failure | None

    def renew_lock(self) -> None:
        """Make the stream's lock anew, which another thread may have held as the process was forked. In the child."""
        renew_lock(self._stream)

    def _look_at_task(self) -> None:
        """End the app if it has lost its task. Loop thread."""
        raise NotImplementedError

    def _outer_aborted(self, error: BaseException) -> None:
        """The bridge around this one has aborted the request. Any thread; an inline loop's doorbell would wait."""
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._host.loop.call_soon_threadsafe(self._abort_with_grace, error)

    def _abort_with_grace(self, error: BaseException) -> None:
        if self._sent is not COMPLETE and self._app_state is not ENDED and self._taker is READING:
            self._lose_client_with_grace(error)

    def abort(self, error: BaseException) -> None:
        """The bridge is closed, or its loop has ended. Whoever calls this looks after the task."""
        if self._sent is not COMPLETE and self._taker is READING:
            self._lose_client(error)

    def _time_out(self, running: Coroutine[Any, Any, None], seconds: float) -> None:
        """The app has not begun its response in time: cancel it, and have its client answered 504.

        The time holds for a request whose client has left, too, or whose bridge is closed: an app that hangs does not
        hear of that. One that was told may be cleaning up, and has the time that it was given for this.
        """
        has_client = self._taker is READING
        if self._sent is not WAITING or self._app_state is not RUNNING or (not has_client and self._inbox.has_told):
            return
        self._shared.lifetime.count("timed_out")  # before the server thread is woken, which may ask
        if has_client:
            self._end_taking(AppTimeout(seconds))
        self._give_app_up()
        # Last, as it looks at objects of the app's. The app still is where it waited: it goes on in a later step.
        what = "504 to a request" if has_client else "A request is over, but its app has not come back"
        logger.error("%s: %s", what, describe(self._scope, running, seconds))

    def _lose_client_with_grace(self, error: BaseException) -> None:
        """Nobody takes the response any more: the app has ``grace_timeout`` to end by itself."""
        self._lose_client(error)
        of_app, self._timer = self._timer, None
        grace = self._set_timer(self._shared.settings.grace_timeout, self._give_app_up)
        if of_app is None:
            return
        if self._sent is WAITING:  # whichever comes first
            self._timer = _BothTimers(of_app, grace)
        else:
            of_app.cancel()

    def _give_app_up(self) -> None:
        """Cancel the app, and let no timer do so again: it may be cleaning up by then."""
        if self._timer is not None:
            self._timer.cancel()
        self._cancel()

    def _lose_client(self, error: BaseException) -> None:
        if isinstance(error, ClientDisconnected) and not self._inbox.broke_off:  # else it was counted then
            self._shared.lifetime.count("disconnected")
        self._end_taking(error)

    def _end_taking(self, error: BaseException) -> None:
        self._taker, self._gone_error = GONE, error
        self._stream.abort(lambda: error)
        self._inbox.lose_client()
        if self._file is not None:
            wake(self._file.waiter)

    # -- The server has left --------------------------------------------------------------------------------------

    def _server_left(self, reason: str) -> None:
        """The server takes nothing more of the response."""
        self._look_at_task()
        if self._app_state is ENDED:
            self._detach()
            if self._sent is not COMPLETE and self._taker is not GONE:  # a task that the app has left may still send
                self._end_taking(ClientDisconnected(reason))
        elif self._sent is COMPLETE:
            self._detach()
            if self._shared.settings.wait_time is not None:
                self._set_timer(self._shared.settings.wait_time, self._cancel)
        elif self._taker is READING:
            self._lose_client_with_grace(ClientDisconnected(reason))

    def _background_ran_out_of_time(self) -> None:
        """The server thread no longer waits for what the app does after its response."""
        self._detach()
        if self._app_state is not ENDED:
            self._cancel()

    def _detach(self) -> None:
        """No server thread will come for a failure any more: log it, now or when the app ends."""
        if self._taker is READING:
            self._taker = DETACHED
        if self._app_state is ENDED:
            self._log_failure()

    def _log_failure(self) -> None:
        """Log a failure that no server thread will raise, if there is one."""
        failure, self._failure = self._failure, None
        if failure is not None and self._sent is not COMPLETE:
            logger.debug(
                "The app failed before its client left, so the server did not get the error", exc_info=failure.error
            )
        elif failure is not None and self._host.loop.is_closed() and type(failure.error.__cause__) is GeneratorExit:
            # asyncio tells of it.
            logger.debug("The app was destroyed when its loop was closed", exc_info=failure.error)
        elif failure is not None:
            # In the app's context, by which an error reporter knows what it has reported.
            failure.context.run(logger.error, "The app failed after its response was complete", exc_info=failure.error)
