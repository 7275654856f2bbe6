"""A WSGI app on an ASGI server.

A request, from top to bottom (`_Request`, read downwards):

1. *Loop thread.* The scope becomes an environ. The body is read ahead, until it is complete or a buffer is full, so
   that no worker waits for a slow upload of less than that.
2. *Loop thread.* The request is submitted to the workers, and waits for output. From here on one task at most calls
   ``receive()``: it brings the rest of the body and then watches for the client's leaving. A request that is over
   within a tenth of a second never has that task.
3. *Worker thread.* The app, its iterable and its ``close()`` run in one copy of the request's context. What they write
   is queued in a hand-off; they wait only where it is full.
4. *Loop thread.* What is queued is sent, joined into messages of 64 KiB at most; a longer chunk is one by itself.
5. *Endings.* Exactly one is decided, on the loop thread: the response was finished, the app failed, the client left, or
   one of those in `_Ending`. It wakes whoever waits, on both sides.

The hand-offs between the threads are in `_handoff`; the worker threads are `_workers`; the loop's side is `_runtime`.
"""

from __future__ import annotations

import contextvars
import enum
import functools
import logging
import os
import sys
import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast, overload

from ._disconnection import Disconnection
from ._errors import ClientDisconnected, RequestTooLarge, ServerProtocolError
from ._handoff import ToLoop
from ._headers import (
    ASGIResponseHead,
    BadRequest,
    no_body,
    response_head_from_wsgi,
    status_line,
)
from ._incoming import Incoming
from ._input import give_back
from ._interface import MARK, ClassSignature, first_argument, tell, wrong_kind
from ._lifespan import Startable, answer_lifespan
from ._runtime import Interruption, Runtimes, take_marks
from ._translate import EnvironTemplate, environ_from_scope, is_of_server
from ._workers import Overloaded, Workers
from ._wsgi_faults import (
    as_bytes,
    fit_for_a_loop,
    holds_one,
    is_of_an_ending,
    iterator_of,
    no_head,
    second_head,
    too_short,
)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable

    from typing_extensions import Self, Unpack

    from ._runtime import Runtime
    from ._types import (
        AnyASGIApp,
        AnyWSGIApp,
        ASGI2App,
        ASGIMiddlewareOptions,
        Environ,
        ExceptionInfo,
        Message,
        Receive,
        Scope,
        Send,
        WSGIApp,
        WSGIMiddlewareOptions,
    )
    from .asgi_to_wsgi import ASGIMiddleware

__all__ = ["Statistics", "WSGIMiddleware"]

logger = logging.getLogger("a2wsgi")

MYPY = False  # mypy takes the name for true

# What a list iterates with, unless a subclass has its own.
_LIST_ITER = type([b""]).__iter__

#: anyio's figure for the threads of a process; 1.10.10 had 10.
DEFAULT_WORKERS: Final = 40


@dataclass(frozen=True)
class Statistics:
    """What a bridge does at the moment, and what it has met so far."""

    workers: int
    """Worker threads that there are."""
    busy: int
    """Worker threads that run a request."""
    queued: int
    """Requests that wait for a worker."""
    in_flight: int
    """Requests that the server has handed over and that are not answered to the end."""
    shed: int
    """Requests answered 503 because ``max_queue`` others waited, since the bridge was made."""
    disconnected: int
    """Requests whose client left before its answer was complete, since the bridge was made."""
    stalled: int
    """Requests given up because the client took nothing for ``send_timeout``, since the bridge was made."""


class _WSGIBridge:
    """What `WSGIMiddleware` is, once it has looked at its app."""

    _a2wsgi_interface_: Final = "asgi3"

    def __init__(
        self,
        app: WSGIApp,
        workers: int | None = None,
        send_queue_size: int | None = None,
        *,
        request_buffer_bytes: int = 65_536,
        response_buffer_bytes: int = 65_536,
        spool_request: bool = False,
        max_request_bytes: int | None = None,
        max_queue: int | None = None,
        send_timeout: float | None = 300.0,
        shutdown_timeout: float = 30.0,
        script_name: str | None = None,
        ignore_disconnect: bool = False,
        allow_underscores: bool = False,
    ) -> None:
        if tell(app).interface not in {"wsgi", None}:
            raise wrong_kind(type(self).__name__, app, "WSGI", "ASGI")
        workers = _default_workers() if workers is None else workers
        _check_options(
            workers=(workers, 1),
            send_queue_size=(send_queue_size, 1),
            request_buffer_bytes=(request_buffer_bytes, 0),
            response_buffer_bytes=(response_buffer_bytes, 0),
            max_request_bytes=(max_request_bytes, 0),
            max_queue=(max_queue, 0),
            send_timeout=(send_timeout, 0),
            shutdown_timeout=(shutdown_timeout, 0),
        )
        self.app = app
        #: The bridges to ASGI further in, whose apps start up and shut down with this one's server.
        self._inner: tuple[Startable, ...] = (cast("Startable", app),) if getattr(type(app), MARK, "") == "wsgi" else ()
        self._shutdown_timeout = shutdown_timeout
        self._shared = _Shared(
            workers=Workers(workers, max_queue),
            template=EnvironTemplate(
                script_name=os.environ.get("SCRIPT_NAME", "") if script_name is None else script_name,
                fixed=script_name is not None,
                allow_underscores=allow_underscores,
                multithread=workers > 1,
            ),
            request_buffer_bytes=request_buffer_bytes,
            response_buffer_bytes=response_buffer_bytes,
            send_queue_size=send_queue_size,
            spool_request=spool_request,
            max_request_bytes=max_request_bytes,
            send_timeout=send_timeout,
            ignore_disconnect=ignore_disconnect,
        )
        # Worker threads hold the pool, never the bridge: a bridge that is dropped ends them.
        weakref.finalize(self, self._shared.workers.retire).atexit = False

    def __repr__(self) -> str:
        """The app, and what goes on."""
        return f"<{type(self).__name__} of {self.app!r}: {self.statistics()}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one scope, as an ASGI 3 app.

        Raises:
            Exception: What the app raised, before its response was complete: the very same object.
            AppError: The app broke WSGI, or raised what a coroutine cannot.
            ServerProtocolError: The scope is of a type that there is no answer to.

        Threading: the thread of the running event loop.
        """
        kind = scope["type"]
        if kind == "http":
            await _Request(self.app, self._shared, scope, receive, send).answer()
        elif kind == "lifespan":
            runtime = self._shared.runtimes.here()
            wind_up = functools.partial(self._wind_up, runtime)
            await answer_lifespan(scope, receive, send, runtime=runtime, bridges=self._inner, wind_up=wind_up)
        elif kind == "websocket":
            await _refuse_websocket(scope, receive, send)
        else:
            raise ServerProtocolError(
                f"The server sent a scope of type {kind!r}, which a WSGI app cannot answer: only 'http' is."
            )

    def statistics(self) -> Statistics:
        """What the bridge does at the moment, and has met so far. Any thread."""
        shared = self._shared
        workers = shared.workers
        return Statistics(
            workers=workers.alive,
            busy=workers.busy,
            queued=workers.queued,
            in_flight=sum(len(runtime.in_flight) for runtime in shared.runtimes.live()),
            shed=workers.shed,
            disconnected=shared.disconnected,
            stalled=shared.stalled,
        )

    async def _wind_up(self, runtime: Runtime) -> None:
        """Let running requests end, and the workers. Requests that do not are given up."""
        await runtime.drain(self._shutdown_timeout)
        for request in tuple(runtime.in_flight):
            request.give_up("the server shuts down")
        self._shared.workers.end_idle()

    def carry_lifespan(self, bridges: Iterable[Startable]) -> None:
        """Start and stop these, which are somewhere below the app, with the server. See `chain`."""
        self._inner = tuple(dict.fromkeys((*self._inner, *bridges)))


class WSGIMiddleware(_WSGIBridge):
    """Runs a WSGI app on an ASGI server: wraps a WSGI app, is an ASGI 3 app.

    Args:
        app: The WSGI app.
        workers: How many threads may run the app at a time. None takes the environment variable ``A2WSGI_WORKERS``, or
            40. They start on demand and end after 10 s without work. With 1 it is always the same thread, and
            ``wsgi.multithread`` is false.
        send_queue_size: How many chunks of a response may be queued, on top of the bound in bytes; None sets no bound.
        request_buffer_bytes: How much of a request's body is read before a worker is taken, and held while the app does
            not read. 0 starts the app at once.
        response_buffer_bytes: How much of a response is queued before the app waits for the client. Of both buffers, up
            to seven times as much may be held where whoever takes from them is the quicker one.
        spool_request: Read the whole body before the app starts, past the buffer into a temporary file: no slow
            upload ever holds a worker.
        max_request_bytes: Answer 413 to a longer body; None sets no limit.
        max_queue: How many requests may wait for a worker before others are answered 503; None sets no limit, 0 lets
            none wait.
        send_timeout: For how many seconds a client may take nothing of its response before it is given up; None is for
            ever.
        shutdown_timeout: For how many seconds the server's shutdown waits for running requests.
        script_name: The prefix under which the app is mounted, as a decoded path. None takes the server's ``root_path``
            or, where that is empty, the process's environment variable ``SCRIPT_NAME``.
        ignore_disconnect: Run the app to its end though the client has left: some servers report a client that only
            closed its sending side as gone.
        allow_underscores: Keep request headers whose name has an underscore. Behind a proxy that does not drop them
            a client can then forge the twin with a hyphen.

    Threading: built anywhere, forked anywhere, called on any event loop, on several too. The app is called on the
    bridge's own worker threads.

    Cancellation: a cancelled request does not wait for the app; the app's next read or write raises
    `ClientDisconnected`, and its iterable is closed.

    Spec: PEP 3333; ASGI 3.0, HTTP 2.5, lifespan 2.0.
    """

    # The overloads say which bridge comes out; mypy goes by them since __init__ stands in another class. The last is
    # for subclasses with a constructor of their own, which pyright checks against these, too. With it, mypy would make
    # Any of each call with an app whose types have an Any.
    @overload
    def __new__(
        cls,
        app: AnyWSGIApp,
        workers: int | None = None,
        send_queue_size: int | None = None,
        **options: Unpack[WSGIMiddlewareOptions],
    ) -> Self: ...
    @overload
    def __new__(  # type: ignore[misc]  # it gives the other bridge
        cls,
        app: AnyASGIApp | ASGI2App,
        wait_time: float | None = None,
        loop: AbstractEventLoop | None = None,
        **options: Unpack[ASGIMiddlewareOptions],
    ) -> ASGIMiddleware: ...

    if not MYPY:

        @overload
        def __new__(cls, *args: Any, **options: Any) -> Self: ...  # noqa: ANN401 - whatever it takes

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Make the bridge that the app needs: for an ASGI app an `ASGIMiddleware`, but not in a subclass."""
        if cls is WSGIMiddleware and tell(first_argument(args, options)).interface not in {"wsgi", None}:
            from .asgi_to_wsgi import ASGIMiddleware  # noqa: PLC0415 - each of the two can be the other

            return ASGIMiddleware(*args, **options)
        return super().__new__(cls)

    __signature__ = ClassSignature()


@dataclass(eq=False)
class _Shared:
    """What the requests of one bridge share: its options, its workers, its loops, and what is counted."""

    workers: Workers
    template: EnvironTemplate
    request_buffer_bytes: int
    response_buffer_bytes: int
    send_queue_size: int | None
    spool_request: bool
    max_request_bytes: int | None
    send_timeout: float | None
    ignore_disconnect: bool
    disconnected: int = 0  # written on a loop thread
    stalled: int = 0  # as above
    runtimes: Runtimes = field(default_factory=Runtimes)
    said_dropped: set[str] = field(default_factory=set[str])

    def say_dropped(self, names: Iterable[str]) -> None:
        """Log hop-by-hop headers that the app sets, each once. Any thread."""
        for name in names:
            if name not in self.said_dropped:
                self.said_dropped.add(name)
                logger.warning(
                    "The app sets %s, which is the server's to set: dropped (PEP 3333, RFC 9110 §7.6.1)", name
                )


class _Ending(enum.Enum):
    """How a request ends. The loop thread decides it, once."""

    FINISHED = enum.auto()  # the server has taken the last message of its response
    FAILED = enum.auto()  # the app raised, or broke the protocol
    CLIENT_LEFT = enum.auto()
    SEND_FAILED = enum.auto()
    RECEIVE_FAILED = enum.auto()
    CANCELLED = enum.auto()
    STALLED = enum.auto()
    TOO_LARGE = enum.auto()
    GIVEN_UP = enum.auto()  # the server shuts down


class _Request:
    """One request. Each method says in whose thread it runs; nothing but the hand-offs is touched by two at a time."""

    __slots__ = (
        "_app",
        "_body",
        "_committed",
        "_context",
        "_disconnected",
        "_ending",
        "_environ",
        "_failure",
        "_head",
        "_head_sent",
        "_incoming",
        "_interruption",
        "_last",
        "_length",
        "_method",
        "_output",
        "_receive_error",
        "_remaining",
        "_runtime",
        "_said",
        "_scope",
        "_seen_sends",
        "_seen_sends_at",
        "_send",
        "_sends",
        "_shared",
        "_submitted_at",
        "_workers",
    )

    def __init__(self, app: WSGIApp, shared: _Shared, scope: Scope, receive: Receive, send: Send) -> None:
        self._app = app
        self._shared = shared
        self._workers = shared.workers
        self._runtime = runtime = shared.runtimes.here()
        self._scope = scope
        self._send = send
        self._incoming = Incoming(
            self, runtime, receive, shared.request_buffer_bytes, shared.max_request_bytes, spool=shared.spool_request
        )
        self._output = ToLoop(runtime, shared.response_buffer_bytes, shared.send_queue_size)
        self._disconnected = Disconnection()
        # The loop thread's:
        self._ending: _Ending | None = None
        self._submitted_at = 0.0  # 0 if it was not
        self._head_sent = False
        self._sends = 0  # odd while in send(): so the timer sees whether one takes long, without a clock a message
        self._seen_sends = 0
        self._seen_sends_at = 0.0
        self._receive_error: Exception | None = None
        self._interruption = Interruption(runtime.loop)  # of this task, in send()
        # The worker thread's, until it has ended the output; the loop thread's from then on:
        self._head: ASGIResponseHead | None = None  # what start_response() said last
        self._said: tuple[str, list[str]] | None = None  # its status and the names, for a bridge further out
        self._committed = False  # the head can be replaced no more
        self._remaining: int | None = None  # bytes that the response may still have; None where no length was said
        self._length: int | None = None  # of the whole body, where the app gave it in one piece
        self._last: list[bytes] | None = None  # chunks that are handed over with the end
        self._failure: BaseException | None = None  # what the app raised

    # -- The story: loop thread -----------------------------------------------------------------------------------

    async def answer(self) -> None:
        """Answer the request, from its first byte to its end. Raises what the server is to know of."""
        self._runtime.enter(self)
        settled = False  # nothing of the request runs any more, so the loop may be waited on
        try:
            if await self._request_in():
                await self._response_out()
                if self._failure is None:
                    self._failure = self._disconnected.late_failure  # an ASGI server may have this one, too
                if self._failure is not None or self._receive_error is not None:
                    self._raise_failure()
            settled = True
        except Exception as error:
            self._end(_Ending.SEND_FAILED, functools.partial(ClientDisconnected, f"the server raised {error!r}"))
            if self._submitted_at:
                await self._output.wait_left()
            settled = True
            raise
        except BaseException:  # a cancellation, or the end of a coroutine that nobody awaits any more
            self._end(_Ending.CANCELLED, functools.partial(ClientDisconnected, "the server cancelled the request"))
            raise
        finally:
            self._runtime.leave(self)
            self._disconnected.finish()
            if self._incoming.close():
                await self._incoming.end_task(wait=settled)

    # -- Request in: loop thread ----------------------------------------------------------------------------------

    async def _request_in(self) -> bool:
        """Read the body ahead and have a worker run the app. False if the request is answered without the app."""
        try:
            self._environ = environ = environ_from_scope(self._scope, self._shared.template)
            self._method: str = environ["REQUEST_METHOD"]  # PEP 3333: the environ itself is the app's to change
            environ["wsgi.input"] = self._body = await self._incoming.open(environ)
        except BadRequest as error:
            logger.info("400 to a request: %s", error)
            await self._refuse(400)
            return False
        except RequestTooLarge as error:
            logger.info("413 to a request: %s", error)
            await self._refuse(413)
            return False
        if self._ending is not None and not self._incoming.has_begun:
            return False  # the client left before it had sent anything
        environ.setdefault("wsgi.errors", sys.stderr)  # a bridge further out may have the server's
        environ["a2wsgi.disconnected"] = self._disconnected
        self._context = contextvars.copy_context()
        self._submitted_at = time.monotonic()
        try:
            self._workers.submit(self)
        except Overloaded:
            self._submitted_at = 0.0
            self._incoming.discard()
            logger.info("503 to a request: %s others wait for a worker", self._workers.max_queue)
            await self._refuse(503, (b"retry-after", b"1"))
            return False
        except BaseException:  # no thread to be had
            self._submitted_at = 0.0
            self._incoming.discard()
            raise
        self._incoming.go_on()
        return True

    # -- The app runs: worker thread ------------------------------------------------------------------------------

    def run(self) -> None:
        """Run the app, in one copy of the request's context from its call to its close()."""
        try:
            self._context.run(self._run_app)
        except BaseException as error:  # noqa: BLE001 - a user's logging filter that fails, say. Nobody is to wait for ever
            if self._failure is None:
                self._failure = error

    def done(self) -> None:
        """Tell the loop thread that this thread is through with the request."""
        self._output.end(self._last, leaves=True)

    def _run_app(self) -> None:
        environ = self._environ
        environ["a2wsgi.queued_seconds"] = time.monotonic() - self._submitted_at
        close = None
        whole = None
        try:
            iterable = self._app(environ, self._start_response)
            kind = type(iterable)
            if kind is list or kind is tuple:
                whole = self._take_whole(iterable)
            else:
                close = getattr(iterable, "close", None)
                if isinstance(iterable, list) and kind.__iter__ is _LIST_ITER:  # a bridge's, whose app goes on
                    whole = self._take_whole(iterable)
            if whole is None:
                whole = self._write_each(iterable)
        except BaseException as error:  # noqa: BLE001 - raised again on the loop thread, or logged
            self._fail(error)
        if close is None:
            self._last = whole  # handed over by done(), with the thread's leaving: so the loop is woken once
        else:
            self._output.end(whole)  # now, so that a slow close() holds no client back
            self._close(close)
        outer: Environ | None = self._scope.get("wsgi_environ")
        if isinstance(outer, dict):
            give_back(self._body, outer.get("wsgi.input"))
        self._incoming.discard()

    def _close(self, close: Callable[[], object]) -> None:
        """PEP 3333, "Specification Details": close() is called once, however the request ended."""
        try:
            close()
        except BaseException as error:
            if error is not self._disconnected.late_failure and not is_of_an_ending(error):
                logger.exception("close() of the WSGI app's iterable raised")

    def _fail(self, error: BaseException) -> None:
        """The app raised. If its request is over, nobody is there to raise it to."""
        if not self._output.stopped:
            self._failure = error
        elif not is_of_an_ending(error):
            logger.error("The WSGI app failed after its request was over", exc_info=error)

    def _start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        /,
        exc_info: ExceptionInfo | tuple[None, None, None] | None = None,
    ) -> Callable[[bytes], object]:
        """PEP 3333, "The start_response() Callable". WSGI servers let apps name the last argument, too."""
        if exc_info is not None and exc_info[1] is not None:
            try:
                if self._committed:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # PEP 3333, "Error Handling": no circular reference through the traceback
        elif self._head is not None:
            raise second_head()
        nested = "wsgi_environ" in self._scope and is_of_server(self._scope["wsgi_environ"])
        if nested and type(headers) is not list:
            headers = list(headers)  # read twice
        self._head = head = response_head_from_wsgi(status, headers)
        if nested and not self._disconnected.from_asgi:
            self._said = status, [name for name, _ in headers]
        if head.dropped:
            self._shared.say_dropped(head.dropped)
        return self._write

    def _write_each(self, iterable: Iterable[bytes]) -> list[bytes] | None:
        """Write what the app yields, and ask it for no more than is wanted.

        Returns:
            The last chunk, to be handed over with the end; None where it came unannounced, and is written.
        """
        output = self._output
        output.check()
        # PEP 3333, "Handling the Content-Length Header": one chunk is the whole body, and its length the body's.
        single = not self._committed and holds_one(iterable)
        plain = False  # the head is fixed, and any length of body may follow: the chunk needs no second look
        for chunk in iterator_of(iterable):
            if plain and type(chunk) is bytes and chunk:
                output.put(chunk)
            elif chunk:
                first = not self._committed
                fitted = self._fit(chunk)
                if single:
                    self._length = len(chunk)
                    if self._remaining is None:
                        self._remaining = 0  # it gets that Content-Length, whatever else the iterable may hold
                if self._remaining == 0 and not self._disconnected.from_asgi:  # that ends as ASGI apps do
                    return [fitted]  # its Content-Length is reached, or the response has no body
                if fitted or first:  # an empty one tells the loop of the head
                    output.put(fitted)
                else:
                    output.check()
                plain = self._remaining is None
            else:
                # PEP 3333, "The start_response() Callable": headers wait for the first chunk that is not empty.
                as_bytes(chunk)
                if self._disconnected.from_asgi:
                    self._write(b"")  # but those of ASGI do not
                output.check()
                if self._remaining == 0 and not self._disconnected.from_asgi:  # write() has reached it
                    return None
        if not self._committed:
            self._commit()
        if self._remaining:
            raise too_short(self._remaining)
        return None

    def _write(self, chunk: bytes, /) -> None:
        """PEP 3333, "The write() Callable".

        Raises:
            ClientDisconnected: The request is over. Stop.
        """
        first = not self._committed
        fitted = self._fit(chunk)
        if fitted or first:  # as above
            self._output.put(fitted)
        else:
            self._output.check()

    def _fit(self, chunk: bytes) -> bytes:
        """What of a chunk the response has room for. Fixes the head."""
        if type(chunk) is not bytes:
            chunk = as_bytes(chunk)
        if not self._committed:
            self._commit()
        remaining = self._remaining
        if remaining is not None:
            # RFC 9112 §6.3: what goes past the Content-Length would be taken for the next response.
            chunk = chunk[:remaining]
            self._remaining = remaining - len(chunk)
        return chunk

    def _take_whole(self, iterable: Iterable[bytes]) -> list[bytes] | None:
        """The whole body, to be handed over in one go; None if it must be written piece by piece."""
        if len(chunks := list(iterable)) == 1 and type(chunks[0]) is bytes:  # most responses: spares two loops
            length = len(chunks[0])
        else:
            chunks = [chunk if type(chunk) is bytes else as_bytes(chunk) for chunk in chunks]
            length = sum(map(len, chunks))
        if not self._committed:
            self._length = length  # PEP 3333, "Handling the Content-Length Header"
        if length > self._shared.response_buffer_bytes and len(chunks) > 1:
            return None  # joined, it would be in memory twice
        if not self._committed:
            self._commit()
        remaining = self._remaining
        if remaining is None or remaining == length:
            return chunks
        if length < remaining:
            raise too_short(remaining - length)
        return [b"".join(chunks)[:remaining]]

    def _commit(self) -> None:
        """Fix the head: from now on start_response() cannot replace it."""
        head = self._head
        if head is None:
            raise no_head()
        self._committed = True
        self._remaining = 0 if no_body(self._method, head.status) else head.content_length

    # -- Response out: loop thread --------------------------------------------------------------------------------

    async def _response_out(self) -> None:
        """Send what the worker hands over until it ends, and see it off."""
        output = self._output
        ended = False
        while not ended and self._ending is None:
            chunks, ended = await output.take()
            if self._ending is None:
                await self._send_chunks(chunks, ended=ended)
        if self._ending is _Ending.TOO_LARGE:
            logger.info(
                "413 to a request: its body grew longer than max_request_bytes=%s", self._shared.max_request_bytes
            )
            await self._refuse(413)
        if not output.left:
            await output.wait_left()

    async def _send_chunks(self, chunks: list[bytes], *, ended: bool) -> None:
        """Send what is queued, the head first, and the end if this is it."""
        failed = self._failure is not None
        begins = not self._head_sent
        head = self._head
        if head is None or (begins and (not self._committed or (failed and not chunks))):
            return  # the app failed before it had anything to say: the server answers
        if self._disconnected.messages and not await self._send_passed_on(self._disconnected.messages):
            return
        if begins:
            self._head_sent = True
            await self._send_message(self._head_message(head, chunks, whole=ended and not failed))
            if self._ending is not None:
                return
            self._incoming.response_has_begun()
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()  # a slow client is not to have its part of the response in memory twice
        if ended and not failed:
            self._incoming.response_ends()
            await self._send_message({"type": "http.response.body", "body": body, "more_body": False})
            if self._disconnected.trailers:
                await self._send_passed_on(self._disconnected.trailers)
            self._ending = self._ending or _Ending.FINISHED
        elif body or (begins and self._remaining != 0 and not failed):
            # granian and daphne keep a head until a part of the body follows, be it empty.
            await self._send_message({"type": "http.response.body", "body": body, "more_body": True})

    def _head_message(self, head: ASGIResponseHead, chunks: list[bytes], *, whole: bool) -> Message:
        """The head: with a Content-Length, where the app said none and ``chunks`` are the ``whole`` body."""
        headers = head.headers
        # Between two bridges it is left to the server, as without them.
        nested = self._said is not None or self._disconnected.from_asgi
        if head.content_length is None and not nested and not no_body("", head.status):
            if self._method == "HEAD":
                # RFC 9110 §9.3.2: the headers are GET's; but whether an empty body is what GET has, nobody knows.
                length = self._length or None
            else:
                length = sum(map(len, chunks)) if whole else self._length
            if length is not None:
                headers = [*headers, (b"content-length", b"%d" % length)]
        start: Message = {"type": "http.response.start", "status": head.status, "headers": headers}
        if self._disconnected.trailers is not None:
            start["trailers"] = True
        if self._said is not None:
            start["a2wsgi.said"] = self._said
        return start

    async def _send_passed_on(self, messages: list[Message]) -> bool:
        """Send what an app behind another bridge has sent by extensions so far. Whether the request goes on.

        Nothing after an ending: it interrupts one ``send()``, and nobody would interrupt the next.
        """
        while messages and self._ending is None:
            await self._send_message(messages.pop(0))
        return self._ending is None

    async def _send_message(self, message: Message) -> None:
        """Call the server's send(), so that the timer sees how long it takes and an ending can interrupt it."""
        self._sends += 1
        try:
            await self._send(message)
        except BaseException as error:
            # An ending has interrupted it: that is decided, and the caller looks at it.
            if not (self._interruption.fired and self._interruption.is_ours()):
                if isinstance(error, OSError) and not self._disconnected.is_set():  # else it is counted already
                    # ASGI HTTP 2.4, "Disconnected Client - send() exception"
                    self._shared.disconnected += 1
                raise
        else:
            if self._interruption.fired:
                self._interruption.is_ours()  # send() has kept it to itself
        finally:
            self._sends += 1

    async def _refuse(self, status: int, *headers: tuple[bytes, bytes]) -> None:
        """Answer without the app, with a fixed text."""
        text = status_line(status).encode() + b"\n"
        fields = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text)), *headers]
        await self._send_message({"type": "http.response.start", "status": status, "headers": fields})
        body = b"" if self._scope.get("method") == "HEAD" else text
        await self._send_message({"type": "http.response.body", "body": body, "more_body": False})

    # -- Endings: loop thread -------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look after a request that takes a while: is its client still there, and does it take its response?"""
        self._incoming.watch()
        if not self._sends & 1:
            return
        if self._sends != self._seen_sends:
            self._seen_sends, self._seen_sends_at = self._sends, now
            return
        self._output.calm()
        timeout = self._shared.send_timeout
        if timeout is not None and now - self._seen_sends_at >= timeout:
            reason = f"it took nothing of its response for {timeout:g} s"
            if self._end(_Ending.STALLED, functools.partial(ClientDisconnected, reason)):
                self._shared.stalled += 1
                logger.warning("Request given up: the client took nothing of its response for %g s", timeout)

    def client_left(self, reason: str) -> None:
        """The client is gone. Its request ends, unless it is to go on regardless."""
        if self._ending is not None:
            return
        self._shared.disconnected += 1
        logger.debug("The client left: %s", reason)
        if self._shared.ignore_disconnect:
            self._disconnected.set()
        else:
            self._end(_Ending.CLIENT_LEFT, functools.partial(ClientDisconnected, reason))

    def body_too_large(self, limit: int) -> None:
        """The body has grown past ``limit`` while the app runs: the client is told, if it can be."""
        if not self._head_sent:
            self._end(_Ending.TOO_LARGE, functools.partial(RequestTooLarge, limit))

    def receive_raised(self, error: Exception) -> None:
        """The server, or a middleware above us, raised in receive(): it is to have it back."""
        if self._end(_Ending.RECEIVE_FAILED, functools.partial(ClientDisconnected, f"receive() raised {error!r}")):
            self._receive_error = error

    def give_up(self, reason: str) -> None:
        """End the request, whatever it does."""
        self._end(_Ending.GIVEN_UP, functools.partial(ClientDisconnected, reason))

    def _end(self, ending: _Ending, error: Callable[[], BaseException]) -> bool:
        """Decide how the request ends, unless that is decided; wake whoever waits. The worker gets ``error()``."""
        if self._ending is not None:
            return False
        self._ending = ending
        # Who waits for the disconnection is woken last: its next chunk must find the output stopped.
        self._disconnected.note()
        self._output.stop(error)
        self._incoming.stop(error)
        self._disconnected.give_up(error)
        if self._submitted_at and self._workers.withdraw(self):
            self._incoming.discard()
            self._output.end(leaves=True)  # in the worker's place: it never enters the app
        if self._sends & 1:
            self._interruption.fire()
        return True

    def _raise_failure(self) -> None:
        """Raise what the server is to know of, now that the worker is through."""
        failure, self._failure = self._failure, None
        if self._receive_error is not None:
            raise self._receive_error
        assert failure is not None  # noqa: S101 - there is one or the other
        try:
            take_marks(failure, self._context)
            if self._ending is None or self._ending is _Ending.FINISHED:
                self._ending = self._ending or _Ending.FAILED
                raise fit_for_a_loop(failure)
            if not is_of_an_ending(failure):
                logger.error("The WSGI app failed after its request was over", exc_info=failure)
        finally:
            del failure  # it holds this frame, by its traceback


# -- What has no app ----------------------------------------------------------------------------------------------


async def _refuse_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI WebSocket, "Close": sent before the handshake is accepted, it has the server answer 403."""
    await receive()  # websocket.connect
    logger.info("403 to a WebSocket at %r: a WSGI app cannot take it", scope.get("path"))
    await send({"type": "websocket.close", "code": 1008, "reason": ""})


def _default_workers() -> int:
    """The environment's ``A2WSGI_WORKERS``, or our own default."""
    text = os.environ.get("A2WSGI_WORKERS", "")
    if not text:
        return DEFAULT_WORKERS
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"The environment variable A2WSGI_WORKERS is {text!r}. It must be a whole number from 1.")
    return int(text)


def _check_options(**options: tuple[float | None, float]) -> None:
    """Raise `ValueError` for an option below its minimum."""
    for name, (value, minimum) in options.items():
        if value is not None and value < minimum:
            raise ValueError(f"{name} is {value!r}. It must be {minimum} or more.")
