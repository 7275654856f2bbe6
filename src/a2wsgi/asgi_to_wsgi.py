"""An ASGI app on a WSGI server.

A request, from top to bottom (`_Request`, read downwards):

1. *Server thread.* The environ becomes a scope. A small body is read. The loop is rung once, to start the app's task.
   From here on the server thread waits in one place for whatever comes first: a part of the response, the app's wish
   for a part of the request's body, or the end.
2. *Loop thread.* The app runs in a copy of the server thread's context. ``receive()`` gives what was read, or has the
   server thread read on. ``send()`` queues, and waits only where the queue is full. The server thread is woken after
   the app's current step: it finds a response that was sent in one go whole.
3. *Server thread.* ``start_response()`` is called. A response that is whole goes to the server as a list of one chunk;
   any other as an iterable that gives what is queued, joined.
4. *Endings.* The app's and the server's, each decided once, on the loop thread: see there.

The queue between the threads is `_to_server`; the loop, and where it runs, `_loop_thread`; its start and end,
with the app's lifespan, `_engine`. With ``inline=True`` both threads are one, and all of this holds as it stands.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import os
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast, overload

from . import _asgi_faults as faults
from ._disconnection import Disconnection
from ._engine import Engine, closed_error, fit_for_a_server, is_cancellation
from ._errors import ClientDisconnected
from ._headers import BadRequest, WSGIResponseHead, head_taken_back, no_body, response_head_from_asgi
from ._interface import ClassSignature, first_argument, tell, wrong_kind
from ._request_body import RequestBody, has_hung_up
from ._runtime import take_marks, wake_all
from ._to_server import ToServer
from ._translate import PASSED_ON, process_headers, scope_from_environ

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from ._loop_thread import Place
    from ._types import (
        AnyASGIApp,
        AnyWSGIApp,
        ASGI2App,
        ASGIApp,
        ASGIMiddlewareOptions,
        Environ,
        Message,
        Receive,
        Scope,
        Send,
        StartResponse,
        WSGIMiddlewareOptions,
    )
    from .wsgi_to_asgi import WSGIMiddleware

__all__ = ["ASGIMiddleware"]

logger = logging.getLogger("a2wsgi")

#: For how long an app that heard of the disconnect by receive() may stop its task that sends, before that is failed: so
#: many waits of so many seconds. Arbitrary: long for a few steps of a loop, short for whoever waits. Several, since a
#: loop that is held up elsewhere takes no steps meanwhile.
_LISTENER_WAITS = 10
_LISTENER_SECONDS = 0.01

MYPY = False  # mypy takes the name for true


class _ASGIBridge:
    """What `ASGIMiddleware` is, once it has looked at its app."""

    _a2wsgi_interface_: Final = "wsgi"

    def __init__(
        self,
        app: AnyASGIApp | ASGI2App,
        wait_time: float | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        detach_background: bool = False,
        inline: bool = False,
        lifespan: bool = True,
        response_buffer_bytes: int = 65_536,
        grace_timeout: float = 10.0,
        startup_timeout: float = 60.0,
        shutdown_timeout: float = 10.0,
    ) -> None:
        if inline and (loop is not None or detach_background):
            raise TypeError(
                "inline=True runs the loop only while a request waits for it: it can neither be a loop= that runs "
                "elsewhere, nor go on with detach_background. Leave out inline, or the other."
            )
        if tell(app).interface == "wsgi":
            raise wrong_kind(type(self).__name__, app, "ASGI", "WSGI")
        self.app = app
        self._process_headers = process_headers(os.environ)
        self._engine = Engine(
            loop=loop,
            inline=inline,
            lifespan=lifespan,
            startup_timeout=startup_timeout,
            shutdown_timeout=shutdown_timeout,
        )
        self._plan = _Plan(
            app=_as_asgi3(app),
            engine=self._engine,
            inline=inline,
            wait_time=wait_time,
            detach_background=detach_background,
            response_buffer_bytes=response_buffer_bytes,
            grace_timeout=grace_timeout,
        )
        # The bridge and its requests hold the plan; the engine and its loop never do. When the last of them is gone, so
        # is the place on the loop. The end of the process has a hook of its own.
        weakref.finalize(self._plan, self._engine.abandon).atexit = False

    def __repr__(self) -> str:
        """The app, and whether it is started up."""
        return f"<{type(self).__name__} of {self.app!r}: {self._engine}>"

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, as a WSGI app.

        Raises:
            Exception: What the app raised before its head was sent: the very same object.
            AppProtocolError: The app broke ASGI, or ended without a whole response.
            LifespanFailed: The app's startup failed. The next request tries it again.
            BridgeClosed: `close` was called.
            BridgeError: The given ``loop`` does not run, or the calling thread is its thread.

        Threading: a server thread. Waits for the app's response to begin.
        """
        host = self._engine.host or self._engine.start(self._plan.app)
        host.refuse_own_thread()
        try:
            scope = scope_from_environ(environ, self._process_headers)
            body = RequestBody(environ)
        except BadRequest:
            return _bad_request(start_response)
        # ASGI Lifespan 2.0, "Lifespan State": a shallow copy for each request. A bridge further out may have one too.
        scope["state"] = {**(scope.get("state") or {}), **self._engine.state}
        request = _Request(self._plan, host, environ, scope, body)
        turn = host.turn
        if turn is None:
            return request.answer(start_response)
        with turn:
            return request.answer(start_response)

    @property
    def state(self) -> Mapping[str, object]:
        """What the app has put into its lifespan's state; each request gets a shallow copy. Any thread."""
        return self._engine.state

    def start(self) -> None:
        """Start the loop and the app's lifespan now, and wait for it; else the first request does. Idempotent.

        Raises:
            LifespanFailed: The app's startup failed. May be tried again.
            BridgeClosed: `close` was called.

        Threading: any thread but that of its own loop.
        """
        self._engine.start(self._plan.app)

    def stop(self) -> None:
        """End as `close` does, but serve again: the next request, or `start`, starts the app up anew. Idempotent.

        For whoever has a lifespan of their own around the bridge: a server, or a bridge further out.

        Raises:
            LifespanFailed: As of `close`.

        Threading: as of `close`.
        """
        self._engine.stop()

    def close(self) -> None:
        """End what runs, shut the app's lifespan down, and give the loop back. Idempotent.

        The end of the process does it too. Requests that run get `BridgeClosed` on the server's side and
        ``http.disconnect`` on the app's; later ones get `BridgeClosed`.

        Raises:
            LifespanFailed: The app's shutdown failed. All is released all the same.

        Threading: any thread but that of its own loop. Waits at most ``shutdown_timeout`` for what runs, and again for
        the lifespan.
        """
        self._engine.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class ASGIMiddleware(_ASGIBridge):
    """Runs an ASGI app on a WSGI server: wraps an ASGI app, is a WSGI app.

    Args:
        app: The ASGI 3 or ASGI 2 app.
        wait_time: For how many seconds ``close()`` of the response waits for work that the app goes on with after its
            last message (background tasks), before it is cancelled. The client has its whole response by then. None
            waits until it ends.
        loop: The event loop to run the app on; it must run in another thread for as long as requests come. None takes
            the loop that all bridges of the process share, in a thread of its own.
        detach_background: Do not wait for such work: it goes on on the loop, at most for ``wait_time``.
        inline: Run the app's loop in the server's thread while that waits for the response. No other thread is needed,
            and it is several times faster; requests run one at a time, and between requests nothing runs. For servers
            with one request at a time: gunicorn's sync worker, uWSGI without threads.
        lifespan: Send the app ``lifespan`` events: startup before its first request in each process, shutdown at the
            process's end or at `close`.
        response_buffer_bytes: How much of a response is queued before the app's ``send()`` waits for the server; up to
            seven times as much where the server is the quicker one.
        grace_timeout: For how many seconds an app may go on whose response the server has closed early, before it is
            cancelled.
        startup_timeout: For how many seconds the lifespan's startup may keep requests waiting.
        shutdown_timeout: For how many seconds `close` waits for what still runs, and then for the lifespan's shutdown.

    Threading: built anywhere, forked anywhere, called on any thread but that of its own loop, on many at once.

    Spec: PEP 3333; ASGI 3.0, HTTP 2.5, lifespan 2.0.
    """

    # The overloads say which bridge comes out; mypy goes by them since __init__ stands in another class. The last is
    # for subclasses with a constructor of their own, which pyright checks against these, too. With it, mypy would make
    # Any of each call with an app whose types have an Any.
    @overload
    def __new__(  # type: ignore[misc]  # it gives the other bridge
        cls,
        app: AnyWSGIApp,
        workers: int | None = None,
        send_queue_size: int | None = None,
        **options: Unpack[WSGIMiddlewareOptions],
    ) -> WSGIMiddleware: ...
    @overload
    def __new__(
        cls,
        app: AnyASGIApp | ASGI2App,
        wait_time: float | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        **options: Unpack[ASGIMiddlewareOptions],
    ) -> Self: ...

    if not MYPY:

        @overload
        def __new__(cls, *args: Any, **options: Any) -> Self: ...  # noqa: ANN401 - whatever it takes

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Make the bridge that the app needs: for a WSGI app a `WSGIMiddleware`, but not in a subclass."""
        if cls is ASGIMiddleware and tell(first_argument(args, options)).interface == "wsgi":
            from .wsgi_to_asgi import WSGIMiddleware  # noqa: PLC0415 - each of the two can be the other

            return WSGIMiddleware(*args, **options)
        return super().__new__(cls)

    __signature__ = ClassSignature()


@dataclass(frozen=True, eq=False)
class _Plan:
    """What all requests of a bridge share. For the options see `ASGIMiddleware`."""

    app: ASGIApp
    engine: Engine
    inline: bool
    wait_time: float | None
    detach_background: bool
    response_buffer_bytes: int
    grace_timeout: float
    said_dropped: set[str] = field(default_factory=set[str])

    def say_dropped(self, names: tuple[str, ...]) -> None:
        """Log, once for each name, that the app sent a header that is the server's business."""
        for name in set(names) - self.said_dropped:
            self.said_dropped.add(name)
            logger.warning(
                "The app sent the header %r, which belongs to the server's connection; it was dropped (PEP 3333, "
                '"Other HTTP Features"; RFC 9110 §7.6.1). Said once.',
                name,
            )


def _as_asgi3(app: AnyASGIApp | ASGI2App) -> ASGIApp:
    """The app, with an adapter if it is of ASGI 2 (ASGI, "Legacy Applications")."""
    if tell(app).interface != "asgi2":
        return cast("ASGIApp", app)
    double = cast("ASGI2App", app)

    async def asgi3(scope: Scope, receive: Receive, send: Send) -> None:
        await double(scope)(receive, send)

    return asgi3


def _bad_request(start_response: StartResponse) -> Iterable[bytes]:
    text = b"The request's Content-Length is malformed."
    start_response("400 Bad Request", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]


class _Request:
    """One request.

    Which thread writes an attribute is said at each; what both write is in the hand-off, under its lock. The server
    thread reads what the loop thread wrote after the hand-off has told it of a head or an end.
    """

    __slots__ = (
        "_announced",
        "_arrived",
        "_asked",
        "_body",
        "_complete",
        "_context",
        "_environ",
        "_failure",
        "_gone",
        "_head",
        "_host",
        "_left_out",
        "_listened",
        "_method",
        "_missing",
        "_nested",
        "_no_body",
        "_outer",
        "_over",
        "_plain",
        "_plan",
        "_receivers",
        "_scope",
        "_stream",
        "_timer",
        "_trailers",
        "_unwatched",
        "task",
    )

    def __init__(self, plan: _Plan, host: Place, environ: Environ, scope: Scope, body: RequestBody) -> None:
        self._plan = plan
        self._host = host
        self._environ = environ
        outer = environ.get("a2wsgi.disconnected")
        self._outer = outer if isinstance(outer, Disconnection) else None  # that of a bridge further out
        self._scope = scope
        self._method: str = scope["method"]
        self._body = body  # the server thread alone uses it
        self._context = contextvars.copy_context()
        self._stream = ToServer(host, plan.response_buffer_bytes)
        # All below is the loop thread's, once it has begun.
        self.task: asyncio.Task[None] | None = None
        self._arrived = body.first()  # messages that receive() has not given yet
        self._asked = False  # the server thread is to bring more of the body
        self._receivers: list[asyncio.Future[None]] = []  # who waits in receive()
        self._head: WSGIResponseHead | None = None
        self._nested = False  # it is a WSGI app's, further in
        self._no_body = False  # the response must not have one (RFC 9110 §6.4.1)
        self._left_out = 0  # how many bytes of one the app has sent all the same
        self._missing: int | None = None  # how many bytes of its Content-Length the body lacks; None without one
        self._plain = False  # the head is sent, and of a body of any length all but the last part needs no second look
        self._announced: list[Message] | None = None  # where the app's trailers go, once its body is over
        self._trailers: list[Message] | None = None  # the same, from then on
        self._complete = False  # the app has sent its last message
        self._over = False  # the app has ended
        self._failure: BaseException | None = None  # what it ended in, for the server thread to raise
        self._unwatched = False  # no server thread will come for _failure
        self._gone: BaseException | None = None  # why nobody takes the response any more
        self._listened = False  # somebody waited in receive() at that moment, and knows
        self._timer: asyncio.TimerHandle | None = None

    # -- The story: the server thread ---------------------------------------------------------------------------------

    def answer(self, start_response: StartResponse) -> Iterable[bytes]:
        """Run the app until its response begins, and give that to the server."""
        if not self._host.doorbell.ring(_Request._begin, self):
            raise self._host.trouble() or closed_error()
        if self._outer is not None:  # it ends the request, and needs to know more than PEP 3333 has words for
            self._outer.tell(self._outer_gave_up)
            self._outer.from_asgi = True
        self._stream.hang_up = functools.partial(has_hung_up, self._environ)
        try:
            chunks, ended = self.next_chunks()
            head = self._head
            if head is None and self._failure is None and self._stream.hung_up:
                raise ClientDisconnected("the client hung up before the response began")  # noqa: TRY301 - the end of one
            # What failed before anything was given to the server can still become an error page. To an ASGI server it
            # was given: each message that the app has sent.
            if head is None or (self._failure is not None and not self._complete and not self._has_asgi_server()):
                self.raise_failure()
            if ended and self._complete:
                return self._whole(head, chunks, start_response)
            start_response(head.status, head.headers)
            return _Response(self, chunks, ended=ended)
        except BaseException as error:
            self.leave("the request failed on the server's side")
            if not self._over and isinstance(error, Exception):  # not the end of the server's thread
                self._host.see_out(self._stream, self._plan.grace_timeout)
            raise

    def next_chunks(self) -> tuple[list[bytes], bool]:
        """What the app sends next, and whether that is all; meanwhile reads the request's body as the app wants it."""
        while True:
            chunks, ended = self._stream.collect()
            if chunks or ended:
                return chunks, ended
            self._host.doorbell.ring(self._arrive, self._body.next())

    def _whole(self, head: WSGIResponseHead, chunks: list[bytes], start_response: StartResponse) -> Iterable[bytes]:
        """Give the server a response that is complete, with its length."""
        body = b"".join(chunks)
        # RFC 9110 §9.3.2: to HEAD, the length that GET would be told; unless it was left away, as nobody can tell.
        length = len(body) if not self._no_body else self._left_out if not no_body("", head.code) else 0
        if (
            head.content_length is None
            and (length or not self._no_body)
            and not (self._nested or self._has_asgi_server())  # between two bridges it is the server's
        ):
            head.headers.append(("Content-Length", str(length)))
        write = start_response(head.status, head.headers)
        if not self._over and not body and callable(write):
            # PEP 3333 has servers send the head with the first chunk that is not empty, or at the end: which would be
            # after close(), and so after the app's background work. Some servers have no write(), against the PEP.
            write(b"")
        if self._no_body:
            # No list: of that a server would take the length, and say "Content-Length: 0" (wsgiref does).
            return iter((b"",)) if self._over and self._failure is None else _Response(self, [b""], ended=True)
        return [body] if self._over and self._failure is None else _WholeResponse(self, body)

    # -- Request in: the loop thread ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        engine = self._plan.engine
        if engine.host is not self._host:
            # 1. The server thread saw the host. 2. The bridge was closed. 3. The server thread rang.
            self._failure, self._over = closed_error(), True
            self._stream.leave()
            return
        engine.requests.add(self)
        self.task = self._context.run(self._host.loop.create_task, self._run())

    def _arrive(self, messages: list[Message]) -> None:
        """A part of the body has come from the server thread."""
        self._asked = False
        self._arrived += messages
        self._wake_receivers()

    def _wake_receivers(self) -> None:
        receivers, self._receivers = self._receivers, []
        wake_all(receivers)

    async def receive(self) -> Message:
        """ASGI's ``receive()``. Several tasks may wait in it, while others send.

        Cancellation: no part of the body is lost.
        """
        while True:
            # ASGI HTTP 2.5, "Disconnect": also "if receive is called after a response has been sent".
            if self._complete or self._over or self._gone is not None:
                return {"type": "http.disconnect"}
            if self._arrived:
                if self._arrived[0]["type"] == "http.disconnect":
                    return {"type": "http.disconnect"}
                return self._arrived.pop(0)
            if not self._asked and self._body.unread:
                self._asked = True
                self._stream.ask()
            waiter = self._host.create_future()
            self._receivers.append(waiter)
            try:
                await waiter
            except BaseException:  # cancelled: who looks for the disconnect at each step does so each time
                with contextlib.suppress(ValueError):  # it was woken at the same moment
                    self._receivers.remove(waiter)
                raise

    # -- The app runs: the loop thread --------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._plan.app(self._scope, self.receive, self.send)
        except BaseException as error:  # noqa: BLE001 - SystemExit must not end the loop, a CancelledError must be told
            self._context = contextvars.copy_context()  # as the app leaves it: the task has a copy of its own
            self._app_ended(error)
        else:
            self._app_ended(None)

    async def send(self, message: Message) -> None:
        """ASGI's ``send()``. Waits while ``response_buffer_bytes`` are queued.

        Raises:
            AppProtocolError: The message is wrong. Nothing of it was sent; the app may catch this and send another.
            InvalidHeader: As above.
            ClientDisconnected: Nobody takes the response any more. Stop.
        """
        try:
            kind = message["type"]
        except (KeyError, TypeError):
            kind = None  # which is unknown, too
        if self._plain and kind == "http.response.body" and message.get("more_body"):
            body = message.get("body", b"")
            if type(body) is not bytes:
                body = faults.as_bytes(body)
            full = self._stream.give(body) if body else False
        elif self._gone is not None:
            raise await self._send_fails() from self._gone
        elif self._complete:
            return  # ASGI HTTP 2.5, "Response Body": "any further messages on the channel will be ignored"
        elif kind == "http.response.body":
            full = self._take_body(message)
        elif kind == "http.response.start":
            self._take_head(message)
            return
        else:
            self._pass_on(kind, message)
            return
        if full:
            await self._stream.room()
            if self._gone is not None:
                raise await self._send_fails() from self._gone

    async def _send_fails(self) -> ClientDisconnected:
        """The error of a ``send()`` that nobody takes anything of.

        Many apps have one task that listens, and cancels the one that sends. Django does, and where that one has failed
        instead, it never closes its response, nor sends ``request_finished``; Litestar leaves out its last hook.
        """
        if self._listened:
            self._listened = False  # once: an app that goes on all the same is not to be slowed down
            for _ in range(_LISTENER_WAITS):
                waiter = self._host.create_future()
                self._host.loop.call_later(_LISTENER_SECONDS, wake_all, [waiter])
                await waiter
        return ClientDisconnected("the server has closed the response")

    def _take_head(self, message: Message) -> None:
        if self._head is not None:
            raise faults.second_head()
        if "status" not in message:
            raise faults.no_status()
        head = response_head_from_asgi(message["status"], message.get("headers"))
        if "a2wsgi.said" in message:
            self._nested = True
            head = head_taken_back(head, *message["a2wsgi.said"])
        if head.dropped:
            self._plan.say_dropped(head.dropped)
        if no_body(self._method, head.code):
            self._no_body = True
            # A stream without end does not notice that nobody reads it, and would hold the server thread for ever.
            self._set_timer(self._plan.grace_timeout, self._cut)
        else:
            self._missing = head.content_length
        outer = self._outer if message.get("trailers") else None
        if outer is not None and "http.response.trailers" in self._scope["extensions"]:
            self._announced = outer.trailers = []
        self._head = head
        self._plain = self._missing is None and not self._no_body
        self._stream.give(b"")  # wakes the server thread, and is what it gives the server to flush the head with

    def _take_body(self, message: Message) -> bool:
        """Queue a part of the body. Whether that fills the queue."""
        if self._head is None:
            raise faults.body_before_head()
        if self._trailers is not None:
            return False  # as what follows the last message
        body = message.get("body", b"")
        if type(body) is not bytes:
            body = faults.as_bytes(body)
        last = not message.get("more_body")
        if self._missing is not None:
            if last and len(body) < self._missing:
                raise faults.too_short(self._missing - len(body))
            body = body[: self._missing]  # RFC 9112 §6.3: what is over would be taken for the next response
            self._missing -= len(body)
        if self._no_body:
            self._left_out += len(body)
        if last:
            self._plain = False
        if last and self._announced is not None:
            last, self._trailers = False, self._announced
        if last:
            self._complete = True
            if self._receivers:
                self._wake_receivers()
        if self._no_body:
            body = b""
        if last:
            self._stream.end(body)
            return False
        return bool(body) and self._stream.give(body)

    def _pass_on(self, kind: str | None, message: Message) -> None:
        """Give a message that WSGI has no word for to a bridge further out, if its ASGI server offers to take it."""
        outer = self._outer if kind in PASSED_ON and kind in self._scope["extensions"] else None
        messages = outer.messages if outer is not None else None
        if outer is not None and kind == "http.response.trailers":
            messages = self._trailers  # None before its body is over, and without word of them in its head
        if messages is None:
            raise faults.unknown(kind)
        messages.append(message)
        if messages is self._trailers and not message.get("more_trailers", False):
            self._complete = True
            self._wake_receivers()
            self._stream.end(b"")

    # -- Endings: the loop thread -------------------------------------------------------------------------------------

    def _app_ended(self, error: BaseException | None) -> None:
        """The app has returned or raised."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._gone is not None:  # whoever is to be told has been told
            if error is not None:
                logger.debug("The app ended after its client had left", exc_info=error)
        elif self._complete:
            if error is not None and not is_cancellation(error):
                self._failure = fit_for_a_server(error, inline=self._plan.inline)
                if self._unwatched:
                    self._log_failure()
        elif error is not None:
            self._failure = fit_for_a_server(error, inline=self._plan.inline)
        elif self._arrived and self._arrived[0]["type"] == "http.disconnect":
            self._failure = ClientDisconnected("the request's body ended early")  # an app that was told may just return
        else:
            self._failure = faults.no_response() if self._head is None else faults.unfinished()
        if self._receivers:
            self._wake_receivers()
        self._plan.engine.requests.discard(self)
        self._stream.leave()

    def _server_left(self, reason: str) -> None:
        """The server takes nothing more of the response."""
        self._unwatched = True
        if self._over:
            self._log_failure()
        elif self._complete:
            if self._plan.wait_time is not None:
                self._set_timer(self._plan.wait_time, self._cancel)
        elif self._gone is None:
            self._lose_client(ClientDisconnected(reason))
            self._set_timer(self._plan.grace_timeout, self._cancel)

    def _outer_gave_up(self, error: BaseException) -> None:
        """The bridge further out has ended the request. Any thread; must not wait, as an inline loop's bell does."""
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._host.loop.call_soon_threadsafe(self._lose_client_with_grace, error)

    def _lose_client_with_grace(self, error: BaseException) -> None:
        if not self._complete and not self._over and self._gone is None:
            self._lose_client(error)
            self._set_timer(self._plan.grace_timeout, self._cancel)

    def _cut(self) -> None:
        """The app goes on with a response that has no body."""
        if not self._complete:
            self._gone = ClientDisconnected("a response without a body was sent")
            self._complete = True
            self._stream.end(b"")
            self._wake_receivers()
            self._set_timer(self._plan.grace_timeout, self._cancel)

    def _set_timer(self, seconds: float, function: Callable[[], object]) -> None:
        """Call ``function`` unless the app ends before. One at a time."""
        if self._timer is not None:
            self._timer.cancel()
        # In an empty context: a timer that is cancelled would keep the request's until its time.
        self._timer = self._host.loop.call_later(seconds, function, context=contextvars.Context())

    def give_up(self, error: BaseException) -> None:
        """See `Running`: the bridge is closed, or its loop ends."""
        if not self._complete and self._gone is None:
            self._lose_client(error)

    def _lose_client(self, error: BaseException) -> None:
        self._gone = error
        self._plain = False
        self._listened = bool(self._receivers)
        self._stream.stop(lambda: error)
        self._wake_receivers()

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def _give_up_background(self) -> None:
        """The server thread waits no longer for what the app does after its response."""
        self._unwatched = True
        if self._over:
            self._log_failure()
        else:
            self._cancel()

    def _log_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None and self._complete:
            # In the app's context, by which an error reporter knows what it has reported.
            self._context.run(logger.error, "The app failed after its response was complete", exc_info=failure)

    # -- Endings: the server thread -----------------------------------------------------------------------------------

    def raise_failure(self) -> NoReturn:
        """Raise what the app ended in, if that is not told yet."""
        failure, self._failure = self._failure or faults.unfinished(), None
        try:
            take_marks(failure, self._context)
            raise failure
        finally:
            del failure  # its traceback holds this frame

    @property
    def broken(self) -> bool:
        """Whether the app has ended in the middle of its response."""
        return self._over and not self._complete

    def close(self) -> None:
        """The server is through with the response: wait for what the app still does, or tell it to stop.

        Raises:
            Exception: What the app raised after its response was complete.
        """
        if self._plan.detach_background or not self._complete:
            self.leave("the server closed the response before its end")
            self._host.see_out(self._stream, self._plan.grace_timeout)
        elif not self._stream.wait_left(self._plan.wait_time):
            self._host.doorbell.ring(_Request._give_up_background, self)
            self._host.see_out(self._stream, 0)
        elif self._failure is not None:
            if self._outer is not None:
                self._outer.late_failure = self._failure
            self.raise_failure()

    def _has_asgi_server(self) -> bool:
        """Whether the bridge further out is the outermost, and so under an ASGI server."""
        return self._outer is not None and "wsgi_environ" not in self._environ.get("asgi.scope", ())

    def leave(self, reason: str) -> None:
        """Tell the loop that the server takes nothing more."""
        self._host.doorbell.ring(self._server_left, reason)

    def drop(self) -> None:
        """`leave`, called by the garbage collector, in the middle of anything: takes no lock."""
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._host.loop.call_soon_threadsafe(self._server_left, "the server dropped the response without close()")


class _Response:
    """The iterable that the server gets: what is queued, joined, at each step. Server thread.

    The request does not hold it. So one that the server drops without ``close()`` is collected, and closes itself.
    """

    __slots__ = ("_chunks", "_closed", "_ended", "_request")

    def __init__(self, request: _Request, chunks: list[bytes], *, ended: bool) -> None:
        self._request = request
        self._chunks: list[bytes] | None = chunks  # to be given next
        self._ended = ended  # nothing follows them
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._chunks is None and not self._ended:
            self._chunks, self._ended = self._request.next_chunks()
        chunks, self._chunks = self._chunks, None
        if chunks:
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if self._request.broken:
            self._request.raise_failure()
        raise StopIteration

    def close(self) -> None:
        """PEP 3333, "Specification Details": "the server or gateway must call that method upon completion"."""
        if not self._closed:
            self._closed = True
            self._request.close()

    def __del__(self) -> None:
        if not self._closed:
            self._request.drop()


class _WholeResponse(list[bytes]):
    """The same for a response that is complete, whose app goes on: servers ask a list for its length. Server thread."""

    __slots__ = ("_closed", "_request")

    def __init__(self, request: _Request, body: bytes) -> None:
        super().__init__((body,))
        self._request = request
        self._closed = False

    def close(self) -> None:
        """See `_Response.close`."""
        if not self._closed:
            self._closed = True
            self._request.close()

    def __del__(self) -> None:
        if not self._closed:
            self._request.drop()
