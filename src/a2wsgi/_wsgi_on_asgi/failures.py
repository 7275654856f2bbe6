"""What the app of one request raised, and what the server did: who is told of it, and how."""

# Apps hold `Disconnected`: whatever is not for them has an underscore.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import TYPE_CHECKING

from a2wsgi._log import logger
from a2wsgi._threads.runtime import carry_reporter_marks

from .endings import Abortable, Ending
from .faults import fit_for_a_loop, is_of_an_ending

if TYPE_CHECKING:
    import contextvars

    from .streams import ToLoop


class FailureMixin(Abortable):
    """The part of a `Request` that tells of failures. `Request` sets the attributes.

    Fast path: it is a mixin, since an object of its own would cost each request a call.
    """

    __slots__ = ("_context", "_failure", "_output", "_server_error")

    # The loop thread writes these before it submits the request, and the worker thread reads them.
    _output: ToLoop
    _context: contextvars.Context
    #: What the app raised. The worker thread writes it, or whoever finds that dead; once that thread is done, it is the
    #: loop thread's. Before that the loop thread looks at it with each part of the response. If the app fails
    #: meanwhile, the loop thread may see it one part early, and sends the part all the same.
    _failure: BaseException | None
    #: Of ``receive()`` or ``send()``: for whoever raised it, at the end. The loop thread's.
    _server_error: Exception | None

    # -- Worker thread --------------------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        """The app raised. If its request is over, there is nobody to raise it to."""
        if not self._output.aborted:
            self._failure = error
        elif not is_of_an_ending(error):
            logger.error("The WSGI app failed after its request was over", exc_info=error)

    # -- Loop thread ----------------------------------------------------------------------------------------------

    def _log_failure(self) -> None:
        """Log what the app raised, if it has: the server gets another error. Keep it no longer: it leads back here.

        Once the worker thread is abandoned, that thread does this; or both do, each at its own end of the race in
        `AppTimeoutMixin._abandon_worker`. So one of them takes the failure out, and tells of it.
        """
        with self._output.locked():
            # 1. The worker thread has found its request not aborted. 2. Here it has not failed yet. 3. It writes its
            # failure, which takes no lock. To write None now would lose that: nobody else has seen it.
            if (failure := self._failure) is not None:
                self._failure = None
            if (pair := self._disconnected._pair) is not None:
                failure = pair.take_failure(failure)
        if failure is not None and not is_of_an_ending(failure):
            logger.error("The WSGI app failed, and meanwhile the server ended its request", exc_info=failure)

    def _raise_failure(self) -> None:
        """Raise what the server is to know of, now that the worker thread is done."""
        error, self._server_error = self._server_error, None
        if error is not None:
            try:
                raise error  # then the app's failure, if there is one, is logged
            finally:
                del error  # it holds this frame, by its traceback
        failure, self._failure = self._failure, None
        try:
            assert failure is not None
            carry_reporter_marks(failure, self._context)
            if self.ending is None or self.ending is Ending.FINISHED:
                self.ending = self.ending or Ending.FAILED
                raise fit_for_a_loop(failure)
            if not is_of_an_ending(failure):
                logger.error("The WSGI app failed after its request was over", exc_info=failure)
        finally:
            del failure  # it holds this frame, by its traceback
