"""One request to an ASGI app on a WSGI server, from top to bottom.

1. *Server thread.* The bridge has made a scope of the environ, and has read a small body. The loop is rung once, to
   start the app's task. From here on the server thread waits in one place for whatever comes first: a part of the
   response, the app's wish for a part of the request's body, or the end.
2. *Loop thread.* The app runs in a copy of the server thread's context. ``receive()`` gives what was read, or has the
   server thread read on. ``send()`` queues, and waits only while the queue is full. The server thread is woken after
   the app's current step, so it finds a response that was sent in one go whole.
3. *Server thread.* ``start_response()`` is called. A response that is complete goes to the server as a list of one
   chunk; any other as an iterable that gives what is queued, joined.
4. *Both.* The endings: the app's and the server's. Each is decided once, on the loop thread, by the machines and the
   table of `outcome`.

With ``inline=True`` both threads are one, and all of this holds as it stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
from typing import TYPE_CHECKING, NoReturn

from a2wsgi._errors import AppTimeout, ClientDisconnected
from a2wsgi._log import logger
from a2wsgi._threads.runtime import carry_reporter_marks

from . import faults
from .endings import EndingMixin
from .faults import closed_error, fit_for_a_server
from .inbox import Inbox
from .outcome import COMPLETE, ENDED, GONE, NEW, OPENING, READING, RUNNING, WAITING, Failure, Outcome, outcome
from .response import Response, gateway_timeout, give_file, give_whole, request_timeout, start_with_three
from .server_socket import has_hung_up, hung_up_error
from .to_server import ToServer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from a2wsgi._types import Environ, Message, Scope, StartResponse

    from .body import RequestBody
    from .bridge import Shared
    from .files import SentFile
    from .loops.host import LoopHost


class Request(EndingMixin):
    """One request.

    The loop thread writes all that changes, with three exceptions: `_pair`, `_failure`, and `_app_state` if the loop
    never hears of the request. The server thread looks at it without a lock. Once the stream has told it of a head or
    of the end, it sees what the loop wrote before that; at any other time, it sees what held a moment ago. So it then
    decides nothing alone: it rings the loop, which looks again.
    """

    __slots__ = ("_body", "_context", "_start_lock")

    def __init__(self, shared: Shared, host: LoopHost, environ: Environ, scope: Scope, body: RequestBody) -> None:
        self._shared = shared
        self._host = host
        self._environ = environ
        self._scope = scope
        self._method = scope["method"]
        self._body = body
        self._context = contextvars.copy_context()
        self._stream = ToServer(host, shared.settings.response_buffer_bytes)
        self._inbox = Inbox(host, self._stream, body)
        self._pair = None
        self.task: asyncio.Task[None] | None = None
        #: Acquired by whichever is first: the loop thread to start the app, or the server thread to give up waiting.
        self._start_lock = threading.Lock()
        self._app_state = NEW
        self._sent = WAITING
        self._taker = READING
        self._gone_error = None
        self._head = None
        self._framing = None
        self._file = None
        self._hidden_bytes = 0
        self._timer = None
        self._failure = None

    # -- The story: the server thread ---------------------------------------------------------------------------------

    def answer(self, start_response: StartResponse) -> Iterable[bytes]:
        """Run the app until its response begins, and give that to the server."""
        # Before the loop is rung, so that it finds the pair. Fast path: hardly any request is worth the call.
        if "a2wsgi.disconnected" in self._environ:
            self._join(self._environ, self._outer_aborted)
        try:
            if not self._host.doorbell.ring(Request._begin, self):
                self._app_state = ENDED  # nobody will start it
                error = self._host.trouble() or closed_error()
                self._shared.lifetime.forget(self._host)
                raise error  # noqa: TRY301 - ends as a failed wait does
            chunks, ended = self.next_chunks()
            head = self._head
            # As long as the server has got nothing, a failure can still become its error page. An ASGI server around us
            # has got something: each message that the app has sent.
            if head is None or (self._failure is not None and self._sent is not COMPLETE and not self._is_under_asgi()):
                self.raise_failure()
            if ended and self._sent is COMPLETE:
                framing, body = self._framing, b"".join(chunks)
                assert framing is not None  # it is set with the head
                if head.content_length is None and (length := self.length_to_add(len(body))) is not None:
                    head.headers.append(("Content-Length", str(length)))
                over = self._app_state is ENDED
                closes = not over or self._failure is not None
                return give_whole(self, start_response, head, framing, body, ended=over, closes=closes)
            if (file := self._file) is not None and file.is_open and not any(chunks):
                wrapper = self._environ.get("wsgi.file_wrapper")
                return give_file(self, start_response, head, file, wrapper, inline=self._shared.settings.inline)
            try:
                start_response(head.status, head.headers)
            except TypeError as error:
                start_with_three(start_response, head.status, head.headers, error)
            return Response(self, chunks, ended=ended)
        except BaseException as error:
            refusal = self._give_up(error, start_response)
            if refusal is None:
                raise
            return refusal

    def _give_up(self, error: BaseException, start_response: StartResponse) -> Iterable[bytes] | None:
        """No response has begun: have the app end, and answer if the error is a timeout of ours. None to raise it."""
        self.leave("the request failed on the server's side")
        if self._app_state is not ENDED and isinstance(error, Exception):  # not the end of the server's thread
            is_cancelled = isinstance(error, AppTimeout)
            self._host.let_finish(self._stream, 0 if is_cancelled else self._shared.settings.grace_timeout)
        if error is not self._gone_error:
            return None
        # The server thread met this error while it waited for the head.
        if isinstance(error, AppTimeout):
            return gateway_timeout(self._environ, start_response)
        return request_timeout(self._environ, start_response) if self._body.stalled else None

    # -- Request in: the loop thread ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        running = None
        try:
            if self._shared.lifetime.host is not self._host:
                # 1. The server thread saw the host. 2. The bridge was closed. 3. The server thread rang.
                self._failure = Failure(closed_error(), self._context)
            elif self._taker is READING and self._start_lock.acquire(blocking=False):
                self._app_state = RUNNING
                running = self._run()
                if (timeout := self._shared.settings.app_timeout) is not None:  # first: the task may begin at once
                    self._set_timer(timeout, functools.partial(self._time_out, running, timeout))
                self.task = self._context.run(self._host.create_task, running)
                return
            # Else nobody waits for the request: a given loop did not run in time, or an outer bridge has aborted it.
            if self._timer is not None:
                self._timer.cancel()
            self._app_state = ENDED
            self._stream.set_done()
        except BaseException as error:  # of a task factory, a given loop or no memory: the server thread waits
            if self._app_state is ENDED:
                raise  # not of the app: with inline=True, a signal handler raised after the app's only step
            self._app_ended(error, self._context)
            if running is not None:
                with contextlib.suppress(RuntimeError):  # it runs, and goes on
                    running.close()

    def _arrive(self, messages: list[Message]) -> None:
        """A part of the body has come from the server thread."""
        self._inbox.put(messages)
        self._inbox.wake()

    def _body_broke_off(self, messages: list[Message]) -> None:
        """The last part of a body that ends early has come: its client has left, or sent nothing for too long."""
        self._inbox.put(messages)
        if self._sent is COMPLETE or self._app_state is ENDED or self._taker is GONE:
            return  # it makes no difference, or the client was counted when it was lost
        self._inbox.broke_off = True
        # Before the server thread is woken, which may ask.
        self._shared.lifetime.count("stalled" if self._body.stalled else "disconnected")
        if self._body.stalled:
            seconds = self._shared.settings.receive_timeout
            self._lose_client_with_grace(ClientDisconnected(f"the client sent nothing of its body for {seconds:g} s"))
            logger.warning("Request aborted: the client sent nothing of its body for %g s", seconds)
        else:
            self._inbox.wake()

    # -- The app runs: the loop thread --------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            try:
                await self._shared.app(self._scope, self._inbox.receive, self.send)
            except BaseException as error:  # noqa: BLE001 - SystemExit must not end the loop, a CancelledError must be told
                self._app_ended(error, contextvars.copy_context())  # the task has a copy of its own
            else:
                self._app_ended(None, self._context)
        except BaseException as error:
            # With inline=True, a signal handler may have raised in the middle of that. Nobody else tells the server
            # thread, which would wait for ever.
            self._app_ended(error, self._context)
            self._stream.set_done()
            raise

    def _has_lost_task(self) -> bool:
        """Whether the app was to be started, and no task will ever tell how it ended. Any thread."""
        # 1. The loop makes the app's task. 2. Somebody cancels all tasks. 3. It ends before its first step, and tells
        # nobody. Or a signal handler raises, with inline=True, before there is a task.
        return self._app_state is not ENDED and self._start_lock.locked() and (self.task is None or self.task.done())

    def _look_at_task(self) -> None:
        if self._has_lost_task():
            self._app_ended(asyncio.CancelledError(), self._context)

    # -- Response out: the server thread ------------------------------------------------------------------------------

    def withdraw(self) -> bool:
        """Keep the loop from starting the app. False if it is too late for that."""
        if not self._start_lock.acquire(blocking=False):
            return False
        self._host.take_back(self)
        return True

    def next_chunks(self) -> tuple[list[bytes], bool]:
        """What the app sends next, and whether that is all. Reads the request's body whenever the app asks for it."""
        while True:
            file = self._file  # looked at once: the loop thread may take it away
            if file is not None and file.is_open:
                return file.next()
            chunks, ended = self._stream.take(self)
            file = self._file
            if file is not None and file.is_new and not ended:
                return self._open_file(file, chunks)
            if chunks or ended:
                return chunks, ended
            messages = self._body.next()
            self._host.doorbell.ring(self._body_broke_off if self._body.broke_off else self._arrive, messages)

    def _open_file(self, file: SentFile, chunks: list[bytes]) -> tuple[list[bytes], bool]:
        """Open the file that the app has sent after ``chunks``, and wait for what the loop makes of it.

        Returns:
            If the file is open: ``chunks``, and not the end, since the file comes next. Otherwise: ``chunks`` with what
            the app sends instead, and whether that is the end.
        """
        file.open()
        self._host.doorbell.ring(self._file_was_opened, file)
        more: list[bytes] = []
        ended = False
        while not ended and not any(more):  # a failure that follows finds the head not given yet
            more, ended = self._stream.take(self) if file.is_open else self.next_chunks()
        if self._sent is not COMPLETE:
            file.close()
        return chunks + more, ended and not file.is_open

    def has_hung_up(self) -> bool:
        """Whether the client has left, as far as the server lets us see. Now and then while nothing comes."""
        if self._has_lost_task():  # maybe not yet: the loop is about to make it
            self._host.doorbell.ring(Request._look_at_task, self)
        return has_hung_up(self._environ, self._body.client_socket)

    def hung_up_error(self) -> BaseException:
        """What is raised to the server then."""
        return hung_up_error(self._environ)

    @property
    def ends_quietly(self) -> bool:
        """Whether the response just ends then: the server (uWSGI) logs any error, and its client could not see one."""
        return "uwsgi.version" in self._environ

    def length_to_add(self, size: int | None) -> int | None:
        """The ``Content-Length`` that the head of a complete response is to get; None for none."""
        # Between two bridges, and under an ASGI server, the server adds it or not, as it would without us.
        if self._shared.has_bridge_inside or self._is_under_asgi():
            return None
        framing = self._framing
        assert framing is not None  # it is set with the head
        return framing.length_to_add(self._hidden_bytes if framing.bodiless else size)

    # -- Endings: the loop thread -------------------------------------------------------------------------------------

    def _app_ended(self, error: BaseException | None, context: contextvars.Context) -> None:
        """The app has returned or raised, or could not be started. The first word of that counts.

        Nothing that its error or a log handler does keeps the server thread from being told.

        Args:
            error: What it raised; None if it returned.
            context: The one that it leaves.
        """
        if self._app_state is ENDED:
            return
        inbox = self._inbox
        result, failure = Outcome.RAISED, error  # should anything here fail
        try:
            if self._timer is not None:
                self._timer.cancel()
            if self._sent is OPENING and self._file is not None:
                self._sent = self._file.sent_before  # 1. It is being opened. 2. The app ends. 3. It opens, for nobody.
            result = outcome(
                self._sent, self._taker, error, body_broke_off=inbox.broke_off and inbox.tells_of_the_break
            )
            if result.fault is not None:
                failure = result.fault()
            elif not result.is_failure:
                failure = None
            elif error is not None:
                failure = fit_for_a_server(error, inline=self._shared.settings.inline)
        finally:
            # 1. The failure is there. 2. The app has ended. 3. The server thread is told. It may look at any moment: if
            # it finds 2, it looks for 1 next.
            self._failure = None if failure is None else Failure(failure, context)
            self._app_state = ENDED
            self._shared.lifetime.requests.discard(self)
            inbox.is_closed = True
            if inbox.receivers:
                inbox.wake()
            self._stream.set_done()
        if result is Outcome.UNHEARD:
            logger.debug("The app ended after its client had left", exc_info=error)
        elif result is Outcome.DETACHED:
            self._log_failure()

    # -- Endings: the server thread -----------------------------------------------------------------------------------

    def raise_failure(self) -> NoReturn:
        """Raise what the app ended in, unless that has been told."""
        failure, self._failure = self._failure or Failure(faults.unfinished(), self._context), None
        try:
            carry_reporter_marks(failure.error, failure.context)
            raise failure.error
        finally:
            del failure  # its traceback holds this frame

    @property
    def queued(self) -> bool:
        """Whether the app has not been called yet. Any thread."""
        return self._app_state is NEW

    @property
    def complete(self) -> bool:
        """Whether the app has sent its last message. Any thread."""
        return self._sent is COMPLETE

    @property
    def broken(self) -> bool:
        """Whether the app has ended in the middle of its response."""
        return self._app_state is ENDED and self._sent is not COMPLETE

    def close(self) -> None:
        """The server is through with the response: wait for what the app still does, or tell it to stop.

        Raises:
            Exception: What the app raised after its response was complete.
        """
        if self._file is not None:
            self._file.close()
        settings = self._shared.settings
        if settings.detach_background or self._sent is not COMPLETE or self._host.is_here():
            # 1. The server closes a response that has no end yet. 2. The app sends the end. 3. The loop hears of this:
            # it looks again, and lets the app go on as with any complete response. So it does with one that is closed
            # on its own thread, by the garbage collector or another app: it cannot wait for itself.
            self.tell_server_left("the server closed the response before its end")
            self._host.let_finish(self._stream, settings.grace_timeout)
        elif not self._wait_done(settings.wait_time):
            # 1. The time is over. 2. The app fails. 3. The loop hears of this: it logs what nobody raises any more.
            self._host.doorbell.ring(Request._background_ran_out_of_time, self)
            self._host.let_finish(self._stream, 0)
        elif self._failure is not None:
            if self._pair is not None:
                self._pair.late_failure = self._failure.error
            self.raise_failure()

    def _wait_done(self, seconds: float | None) -> bool:
        try:
            return self._stream.wait_done(seconds)
        except BaseException:  # raised into this thread: nobody else tells the loop that it has left
            self.tell_server_left("the server no longer waits for the end of the app")
            raise

    def _is_under_asgi(self) -> bool:
        """Whether the bridge around this one is called by an ASGI server."""
        return self._pair is not None and self._pair.under_asgi_server

    def tell_server_left(self, reason: str) -> None:
        """Tell the loop that the server takes nothing more."""
        self._host.doorbell.ring(self._server_left, reason)

    def leave(self, reason: str) -> None:
        """The server thread is through with the response, and waits for nothing."""
        if self._file is not None:
            self._file.close()
        self.tell_server_left(reason)

    def drop(self) -> None:
        """`leave`, called by the garbage collector in the middle of anything: takes no lock."""
        if self._file is not None:
            self._file.close()
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._host.loop.call_soon_threadsafe(self._server_left, "the server dropped the response without close()")
