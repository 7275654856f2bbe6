"""What the app of one WebSocket raised, and what the server did: who is told of it, and how."""

# Apps hold `Disconnected`: whatever is not for them has an underscore.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import TYPE_CHECKING

from a2wsgi._errors import ClientDisconnected
from a2wsgi._log import logger
from a2wsgi._protocol import close_codes
from a2wsgi._threads.runtime import carry_reporter_marks
from a2wsgi._wsgi_on_asgi.endings import Ending
from a2wsgi._wsgi_on_asgi.faults import fit_for_a_loop, is_of_an_ending, is_of_used_socket

from .denial import DenialMixin

if TYPE_CHECKING:
    from .app import AppRun
    from .link import Link


#: How often, and every how many seconds, to look whether the server has told how a client has left. Arbitrary: long for
#: a few turns of a loop, and short for an app that waits in a send() of its own.
DISCONNECT_LOOKS = 10
DISCONNECT_LOOK_SECONDS = 0.05
#: How long it may take in all. The client may not have left: whoever wraps the server's send() may raise as well.
MOST_DISCONNECT_SECONDS = 10.0

_BY_THE_APP = {Ending.FINISHED, Ending.FAILED, Ending.APP_BROKE_FRAMES}


class WebSocketFailureMixin(DenialMixin):
    """The part of a `WebSocketSession` that tells of failures. The session sets the attributes. Loop thread."""

    _receive_error: Exception | None
    _heard = 0  # how many messages receive() has given

    async def _await_disconnect(self) -> None:
        """Wait for the server's disconnect, since send() has failed: a while after each message, but not for long.

        ASGI, "Disconnected Client - send() exception": the client has left. Its close code comes by receive(),
        behind what it has sent before, and the app is to get all of that.
        """
        runtime, looks = self._loop.runtime, 0
        last = runtime.time() + MOST_DISCONNECT_SECONDS
        while self.ending is None and looks < DISCONNECT_LOOKS and runtime.time() < last:
            before = self._heard
            await runtime.wait(runtime.create_waiter(), DISCONNECT_LOOK_SECONDS)
            looks = looks + 1 if self._heard == before else 0

    async def _app_ended(self, run: AppRun, link: Link) -> None:
        """The app's side of the link has ended without a Close."""
        if link.was_shut_down:  # the process ends, and the server has not said so
            self.abort(Ending.SHUT_DOWN, closed)
            return
        failure, head = run.failure, run.head
        # Nothing has ended it yet. So a ClientDisconnected is another's: a peer's that a message was passed on to, say.
        failed = run.raised = failure is not None and not is_of_used_socket(failure, ended=False)
        failed = failed or (head is not None and head.status >= 500)
        if self.abort(Ending.FAILED if failed else Ending.FINISHED, closed):
            ending = close_codes.WebSocketEnding.APP_RAISED if failed else close_codes.WebSocketEnding.APP_RETURNED
            await self.close(ending.client, ending.reason)

    def _raise_failure(self, run: AppRun) -> None:
        """Raise what the server is to know of, now that the worker thread is done. Loop thread."""
        error, self._receive_error = self._receive_error, None
        if error is not None:
            try:
                raise error  # then the app's failure, if there is one, is logged
            finally:
                del error  # it holds this frame, by its traceback
        failure, context = run.take_failure(self._disconnected._pair)
        try:
            if failure is None or self._is_regular(run, failure):
                return
            carry_reporter_marks(failure, context)
            if self.ending in _BY_THE_APP:
                raise fit_for_a_loop(failure)
            logger.error("The WSGI app failed after its WebSocket was over", exc_info=failure)
        finally:
            del failure  # it holds this frame, by its traceback

    def _log_failure(self, run: AppRun) -> None:
        """Log what the app raised, if it has: the server gets another error. Any thread, once the worker is done."""
        failure, _ = run.take_failure(self._disconnected._pair)
        if failure is not None and not self._is_regular(run, failure):
            logger.error("The WSGI app failed after its WebSocket was over", exc_info=failure)

    def _is_regular(self, run: AppRun, failure: BaseException) -> bool:
        """Whether the app raised this since its WebSocket was over. Any thread, once the worker is done."""
        if run.raised:
            return False
        if is_of_an_ending(failure):
            return True
        # Whoever else ends it ends the socket, too, be it before the app has used it.
        if (run.used_socket or self.ending not in _BY_THE_APP) and is_of_used_socket(failure, ended=True):
            logger.debug("The app ended its WebSocket by raising %s", type(failure).__name__)
            return True
        return False

    def _abandoned_app_ended(self, run: AppRun) -> None:
        """The app has ended, after the server's call. Any thread."""
        self._log_failure(run)
        self._disconnected._finish()


def closed() -> ClientDisconnected:
    """What the app gets from whatever it waits for, but on its WebSocket."""
    return ClientDisconnected("its WebSocket was closed")
