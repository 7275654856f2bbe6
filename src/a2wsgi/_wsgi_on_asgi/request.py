"""One HTTP request to a WSGI app on an ASGI server, told from top to bottom.

1. *Loop thread.* The scope becomes an environ. The body is read ahead until it is complete or a buffer is full, so that
   no worker waits for a slow upload of less than that.
2. *Loop thread.* The request is submitted to the workers, and waits for their output. From here on one task at most
   calls ``receive()``: it brings the rest of the body, and then watches whether the client leaves. A request that is
   over within a tenth of a second never has that task.
3. *Worker thread.* The app, its iterable and its ``close()`` run in one copy of the request's context. What they write
   is queued for the loop; they wait only while the queue is full.
4. *Loop thread.* What is queued is sent, joined into messages of 64 KiB at most. A longer chunk is sent by itself,
   in pieces of 1 MiB.
5. *Loop thread.* Exactly one `Ending` is decided. It wakes whoever waits, on both sides.
"""

# Apps hold `Disconnected`: whatever is not for them has an underscore.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextvars
import functools
import sys
import time
from typing import TYPE_CHECKING, cast

from a2wsgi import _nested
from a2wsgi._errors import ClientDisconnected, RequestTooLarge
from a2wsgi._log import logger
from a2wsgi._protocol.environ import environ_from_scope
from a2wsgi._protocol.framing import BadRequest
from a2wsgi._protocol.hints import EXTENSION, KEY
from a2wsgi._protocol.iterables import CompleteBody, NoBody
from a2wsgi._threads.runtime import renew_lock
from a2wsgi._wrong_server import named_as

from .disconnected import current_request
from .endings import Ending
from .faults import is_of_an_ending, worker_lost
from .files import FileWrapper
from .jobs import Overloaded
from .overdue import AppTimeoutMixin
from .receiver import Receiver
from .refusals import refusal
from .response import Response, ignore_hint
from .spool import close_file
from .streams import ToLoop

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from a2wsgi._types import Environ, Receive, Scope, Send, WSGIApp

    from .bridge import Shared, WSGIBridge

_LIST_ITER = type([b""]).__iter__  # what a list iterates with, unless a subclass has its own


class Request(AppTimeoutMixin):
    """One request. Each method says in whose thread it runs."""

    __slots__ = (
        "_ahead",
        "_app",
        "_body",
        "_environ",
        "_is_inner",
        "_ran",
        "_receiver",
        "_shared",
        "_submitted_at",
    )

    def __init__(self, app: WSGIApp, shared: Shared, scope: Scope, receive: Receive, send: Send) -> None:
        loop = shared.loops.here()
        settings = shared.settings
        super().__init__(loop, send, settings.send_timeout)
        self._app = app
        self._shared = shared
        self._workers = shared.workers
        self._scope = scope
        self._is_inner = "wsgi_environ" in scope  # the server is a bridge itself
        self._receiver = Receiver(
            self,
            loop.runtime,
            receive,
            settings.request_buffer_bytes,
            settings.max_request_bytes,
            spool=settings.spool_request,
        )
        self._output = output = ToLoop(loop.runtime, settings.response_buffer_bytes, settings.send_queue_size)
        self._response = Response(
            shared,
            output,
            self._disconnected,
            adds_length=not (self._is_inner and _nested.is_of_server(scope["wsgi_environ"])),
        )
        # The loop thread's.
        self._ahead = False  # the body is being read ahead
        # The loop thread writes these before it submits the request, and the worker thread reads them.
        self._environ: Environ
        self._body: IO[bytes]
        self._submitted_at = 0.0  # 0 if it was not submitted, or was withdrawn
        # See `FailureMixin` and `AppTimeoutMixin`.
        self._failure = None
        self._server_error = None
        self._started_at = 0.0
        self._is_abandoned = False
        self._is_overdue = False
        # The worker thread writes this.
        self._ran = False  # run() has come to its end

    # -- The story: loop thread -----------------------------------------------------------------------------------

    @classmethod
    @named_as("WSGIMiddleware.__call__")
    async def answer(
        cls, _bridge: WSGIBridge, app: WSGIApp, shared: Shared, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Handle one request from start to end. Raises whatever the server should hear of.

        The unused ``_bridge`` keeps the bridge alive: one that is garbage-collected ends its workers.
        """
        self = cls(app, shared, scope, receive, send)  # in the task that answers it, which may not be the caller's
        may_wait = False  # true once nothing of the request runs any more, and there is a loop to wait on
        try:
            self._loop.enter(self)
            if await self._request_in():
                await self._response_out()
                if (pair := self._disconnected._pair) is not None:
                    self._failure = pair.take_failure(self._failure)
                if self._failure is not None or self._server_error is not None:
                    self._raise_failure()
            may_wait = True
        except Exception as error:
            reason = f"the server raised {type(error).__name__}"  # not its repr(), which may raise or be long
            self.abort(Ending.SEND_FAILED, functools.partial(ClientDisconnected, reason))
            if self._submitted_at:
                await self._output.wait_done()
            self._log_failure()
            may_wait = True
            raise
        except BaseException:  # a cancellation, or the end of a coroutine that nobody awaits any more
            self.abort(Ending.CANCELLED, functools.partial(ClientDisconnected, "the server cancelled the request"))
            self._log_failure()
            raise
        finally:
            self._loop.leave(self)
            if self._submitted_at and (self._is_overdue or not may_wait):
                self._abandon_worker(watch=self._shared.settings.app_timeout is not None)
            else:
                self._disconnected._finish()
            if self._response.file is not None:
                self._response.file.close()
            if self._receiver.close():
                await self._receiver.end_task(wait=may_wait)

    # -- Request in: loop thread ----------------------------------------------------------------------------------

    async def _request_in(self) -> bool:
        """Read the body ahead and have a worker run the app. False if the request is answered without the app."""
        try:
            self._environ = environ = environ_from_scope(self._scope, self._shared.template)
            if self._is_inner:
                _nested.take_back_environ(environ, self._scope)
            self._response.method = environ["REQUEST_METHOD"]  # PEP 3333: the environ itself is the app's to change
            opening = self._receiver.open if (guard := self._interruption.guard) is None else guard(self._receiver.open)
            self._ahead = True
            environ["wsgi.input"] = self._body = await opening(environ)
        except (BadRequest, RequestTooLarge) as error:
            return await self._refuse(Ending.TOO_LARGE if type(error) is RequestTooLarge else Ending.BAD_REQUEST, error)
        except BaseException:
            if not self._interruption.settle():
                raise
        finally:
            self._ahead = False
        if self._interruption.fired:  # receive() has caught the cancellation, and returned all the same
            self._interruption.settle()
        # The app runs even with half an upload: only it knows what that means to it.
        if self.ending is not None and not (self.ending is Ending.CLIENT_LEFT and self._receiver.received):
            self._receiver.discard()
            await self._answer_ending()
            return False
        environ = self._environ
        environ.setdefault("wsgi.errors", sys.stderr)  # a bridge further out may have the server's
        environ["a2wsgi.disconnected"] = self._disconnected
        if (extensions := self._scope.get("extensions")) and EXTENSION in extensions:
            environ[KEY] = ignore_hint if self._scope.get("http_version") == "1.0" else self._response.give_hint
        self._context = contextvars.copy_context()
        self._submitted_at = time.monotonic()
        try:
            self._workers.submit(self)
        except BaseException as error:  # the queue is full, or no thread can be started
            self._submitted_at = 0.0
            self._receiver.discard()
            if isinstance(error, Overloaded):
                return await self._refuse(Ending.OVERLOADED, self._workers.max_queue)
            raise
        self._receiver.go_on()
        return True

    async def _refuse(self, ending: Ending, detail: object) -> bool:
        """Answer a request that never reaches the app. False, for `_request_in`."""
        ending.log(detail)
        await self._answer_with(ending)
        return False

    # -- The app runs: worker thread ------------------------------------------------------------------------------

    def run(self) -> None:
        """Run the app, in one copy of the request's context from its call to its close()."""
        try:
            self._context.run(self._run_app)
        except BaseException as error:  # noqa: BLE001 - another thread may raise one into this; nobody must wait for ever
            if self._failure is None:
                self._failure = error
        self._ran = True

    def _run_app(self) -> None:
        """Call the app, write what it returns, and close that."""
        current_request.set(self._disconnected)
        environ = self._environ
        self._started_at = time.monotonic()
        environ["a2wsgi.queued_seconds"] = self._started_at - self._submitted_at
        response = self._response
        close = None
        last = None
        try:
            iterable = self._app(environ, response.start_response)
            kind = type(iterable)
            if kind is list or kind is tuple or kind is CompleteBody:
                last = response.take_whole(iterable)
            else:
                close = None if kind is NoBody else getattr(iterable, "close", None)
                if isinstance(iterable, list) and kind.__iter__ is _LIST_ITER:  # a bridge's, whose app goes on
                    last = response.take_whole(iterable)
                elif kind is FileWrapper:
                    iterable, close = response.take_file(cast("FileWrapper", iterable), self._scope, self._close)
            if last is None:
                last = response.write_each(iterable)
        except BaseException as error:  # noqa: BLE001 - raised again on the loop thread, or logged
            self._fail(error)
        finally:
            try:  # this must run whatever happens, even if another thread raises an exception in this one right here
                if close is None:
                    response.last = last  # done() hands it over and says that this thread is done: one wake-up for both
                else:
                    try:
                        self._output.finish(last)  # now, so that a slow close() holds no client back
                    finally:
                        self._close(close)
                if self._is_inner:
                    _nested.give_back(self._body, self._scope)
            finally:
                if self._receiver.spooled is not None:
                    self._receiver.discard(close_file)

    def _close(self, close: Callable[[], object]) -> None:
        """PEP 3333, "Specification Details": close() is called once, however the request ended."""
        try:
            close()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the response is over: it can only be logged
            if not is_of_an_ending(error) and not self._response.is_told_late(error):
                logger.exception("close() of the WSGI app's iterable raised")

    def done(self) -> None:
        """Tell the loop thread that this thread is done with the request."""
        self._output.finish(self._response.last, done=True)
        self._response.last = None  # kept here, it would stay in memory while it is sent
        if self._is_abandoned:  # see the race in _abandon_worker()
            self._log_failure()
            self._disconnected._finish()

    def lost(self) -> None:
        """Do what the worker thread, which died, has not done. Any thread."""
        if self._output.done:
            return
        if not self._ran and self._failure is None:
            self._failure = worker_lost()
        self._receiver.discard()
        self.done()

    # -- Response out: loop thread --------------------------------------------------------------------------------

    async def _response_out(self) -> None:
        """Send what the worker thread hands over, until it is done with the request."""
        output = self._output
        ended = False
        while not ended and self.ending is None:
            chunks, ended = await output.take()
            if self._server_error is None and self.ending is None:
                try:
                    await self._response.send(
                        self, self._receiver, chunks, ended=ended, failed=self._failure is not None
                    )
                except OSError as error:
                    if not self._go_on_without_client(error):
                        raise
        if self.ending is not Ending.FINISHED:
            await self._answer_ending()
        if not output.done:
            # The iterable's close() may join a thread that waits for the disconnect, and would wait for us.
            self._disconnected._response_ended()
            await output.wait_done()

    # -- Endings: loop thread -------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look after a request that takes a while: does its client still send, take its response, and stay at all?"""
        self._workers.look_after(now)
        self._output.revive()
        self._receiver.watch()
        timeout = self._shared.settings.receive_timeout
        if timeout is not None and self._receiver.is_silent(now, timeout):
            self._stall(Ending.SILENT, f"sent nothing of its body for {timeout:g} s")
        timeout = self._shared.settings.app_timeout
        if timeout is not None and self._started_at and not self._is_overdue:
            self._look_at_app(timeout)
        super().tick(now)

    def renew_locks(self) -> None:
        """Those of the streams: the app may go on reading and writing in a child, until it has to wait."""
        renew_lock(self._output)
        if self._receiver.stream is not None:
            renew_lock(self._receiver.stream)

    def _pieces(self) -> int:
        return 1 if self._response.file is None else self._response.file.pieces

    def _client_is_slow(self) -> None:
        self._output.reset_limit()

    def client_left(self, reason: str) -> None:
        """The client is gone. Its request ends, unless it is to go on regardless."""
        if self.ending is None and self._shared.settings.ignore_disconnect:
            self._count(Ending.CLIENT_LEFT)
            self._disconnected._set()
            Ending.CLIENT_LEFT.log(reason)
        else:
            self.abort(Ending.CLIENT_LEFT, functools.partial(ClientDisconnected, reason), reason)

    def body_too_large(self, limit: int) -> None:
        """The body has grown past ``limit`` while the app runs: the client is told, if it can be."""
        if not self._response.begun:
            self.abort(Ending.TOO_LARGE, functools.partial(RequestTooLarge, limit), RequestTooLarge(limit))

    def receive_raised(self, error: Exception) -> None:
        """The server, or a middleware above us, raised in receive(): it gets its error back."""
        reason = f"receive() raised {type(error).__name__}"  # not its text, which may quote the body
        if self.abort(Ending.RECEIVE_FAILED, functools.partial(ClientDisconnected, reason)):
            self._server_error = error

    def _end_waits(self, ending: Ending, error: Callable[[], BaseException]) -> None:
        self._output.abort(error)
        self._receiver.abort(error)
        if self._submitted_at and self._workers.withdraw(self):
            self._receiver.discard()
            self._output.finish(done=True)  # in the worker's place: it never enters the app
            self._submitted_at = 0.0
        # That a client left while its body is read ahead is reported by the very task that would be interrupted.
        if self._ahead and ending is not Ending.CLIENT_LEFT:
            self._interruption.fire()

    async def _answer_ending(self) -> None:
        """Answer a client that is still there, if the ending has a status and the response has not begun."""
        ending = self.ending
        if ending is None or ending.status is None or self._response.begun:
            return
        if ending.status == 503 and self._submitted_at:
            return  # it would have the client send the request again, which the app has seen
        await self._answer_with(ending)

    async def _answer_with(self, ending: Ending) -> None:
        """Answer in the app's place."""
        assert ending.status is not None
        # Nothing that the client sends changes this answer, be it that it leaves or that its body is too long.
        self._receiver.response_ends()
        for message in refusal(ending.status, self._scope):
            if not await self.send_message(message):
                return

    def _go_on_without_client(self, error: OSError) -> bool:
        """Let the app run to its end though ``send()`` raised ``error``, and drop its output. False if it must not."""
        if not self._shared.settings.ignore_disconnect or isinstance(error, TimeoutError):  # that is a middleware's
            return False
        self._server_error = error
        self._disconnected._set()
        self._receiver.response_ends()  # no more of the body comes, nor http.disconnect, which would count again
        return True
