"""What users of other bridges hit with an ASGI app on a WSGI server, and what must be true here instead.

Each test is named after the behaviour. What belongs to one step of a request has its test beside that step, in a file
of ``asgi_on_wsgi`` or ``protocol``; what shows only with a real server is in ``interop``. Those tests name the row that
they are of, as in ``PAINS E2``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import logging
import os
import queue
import subprocess
import sys
import textwrap
import threading
import types
import unicodedata
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.handlers import SimpleHandler

import anyio
import anyio.lowlevel
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, StreamingResponse

from a2wsgi import ASGIMiddleware, ClientDisconnected, WSGIMiddleware
from a2wsgi.wsgi_typing import Environ, StartResponse
from support.bridges import Bridged, bridges_to_wsgi, only_single
from support.lockstep import BOUND_SECONDS, Signal
from support.wsgi_driver import BodyStream, Exchange, InThread, Response, call, environ_of

START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}


def body(data: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    """A part of a response's body."""
    return {"type": "http.response.body", "body": data, "more_body": more}


class Recording:
    """An ASGI app that keeps its scopes, and answers with nothing."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError
        self.scopes.append(scope)
        await send(START)
        await send(body())


def python(program: str, *arguments: str, strict: bool = False) -> str:
    """What a program prints, which ends in good order; silently and without a warning, if it is to be strict."""
    here = str(Path(__file__).parent)
    ended = subprocess.run(
        [sys.executable, *["-X", "dev", "-W", "error"] * strict, "-c", textwrap.dedent(program), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))},
        capture_output=True,
        timeout=50,
        check=False,
        text=True,
    )
    assert (ended.returncode, ended.stderr if strict else "") == (0, ""), ended.stderr
    return ended.stdout


#: For an app that is written with asyncio itself.
ASYNCIO_ALONE = pytest.mark.parametrize("bridged", ["single", "nested"], indirect=True)


@pytest.fixture(params=["single", "nested", "single trio"])
def bridged(request: pytest.FixtureRequest) -> Iterator[Bridged]:
    """Makes a WSGI app of an ASGI app, by one bridge or by three around one another."""
    with bridges_to_wsgi(request.param) as make:
        yield make


def scope_of(bridged: Bridged, environ: Environ) -> dict[str, Any]:
    """The scope that an app gets for a request."""
    app = Recording()
    assert call(bridged(app), environ).status == "200 OK"
    (scope,) = app.scopes
    return scope


# -- A1, B2, B3: a process, a startup, a state ------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("served", [False, True], ids=["unused", "served"])
def test_app_is_started_up_once_in_each_forked_process(served: bool) -> None:
    """Parent, child and grandchild each answer, whether the parent had answered before or not."""
    program = """
        import os, sys
        from support.wsgi_driver import call
        from a2wsgi import ASGIMiddleware

        def say(what):
            os.write(1, f"{what} {depth}\\n".encode())

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                for kind in ("startup", "shutdown"):
                    await receive()
                    say(kind)
                    await send({"type": f"lifespan.{kind}.complete"})
                return
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"answer"})

        depth = 0
        bridge = ASGIMiddleware(app)
        if sys.argv[1] == "True":
            call(bridge)
        while depth < 2 and (child := os.fork()) == 0:
            depth += 1
            say(call(bridge).body.decode())
        if depth < 2:
            assert os.waitpid(child, 0)[1] == 0
            say(call(bridge).body.decode())
    """
    lines = python(program, str(served)).splitlines()
    once = [f"{what} {depth}" for what in ("startup", "shutdown") for depth in (0, 1, 2)]
    assert sorted(lines) == sorted([*once, "answer 0", "answer 1", "answer 1", "answer 2"])


def test_failed_startup_is_a_500_with_its_reason_in_the_log(bridged: Bridged) -> None:
    """The client is not told the reason; the log of the server is, and it is the app's own."""
    from starlette.applications import Starlette

    def connect() -> None:
        raise LookupError("the database is away")

    @contextlib.asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        connect()
        yield

    written, errors = served_by_wsgiref(bridged(Starlette(lifespan=lifespan)), (b"", Signal()))
    assert written.startswith(b"Status: 500 ")
    assert b"database" not in written
    assert "LookupError: the database is away" in errors


def test_state_of_a_lifespan_is_each_requests_own(bridged: Bridged) -> None:
    """``request.state`` has what the lifespan has yielded; what a request puts there is not seen by the next."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    @contextlib.asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"number": 1}

    async def endpoint(request: Request) -> JSONResponse:
        request.state.number += 1
        return JSONResponse(request.state.number)

    bridge = bridged(Starlette(routes=[Route("/", endpoint)], lifespan=lifespan))
    assert [call(bridge).body for _ in range(3)] == [b"2"] * 3


# -- C5: a loop is touched by its own thread alone --------------------------------------------------------------------


def test_loop_is_touched_by_its_own_thread_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In asyncio's debug mode a call from another thread raises; every step of a request is taken in it."""
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    debug: list[bool] = []
    ended = Signal("the closed response's app has ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()
        debug.append(loop.get_debug())
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        length = 0
        more = True
        while more:
            message = await receive()
            length += len(message["body"])
            more = message["more_body"]
        await send(START)
        try:
            for _ in range(10):
                await send(body(b"x" * 1000, more=True))
            await send(body(b"%d" % length))
        except OSError:
            ended.set()
            raise
        await anyio.lowlevel.checkpoint()  # background work

    with ASGIMiddleware(app, response_buffer_bytes=2000) as bridge:
        data = b"x" * 200_000
        assert call(bridge, environ_of("POST", body=data)).body == b"x" * 10_000 + b"200000"
        exchange = Exchange(bridge, environ_of("POST", body=data)).begin()
        assert exchange.next()
        exchange.close()
        ended.wait()
    assert set(debug) == {True}


# -- C7: synchronous and asynchronous code call one another -----------------------------------------------------------


@ASYNCIO_ALONE  # which asgiref is for
@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
def test_sync_code_of_an_app_may_run_a_coroutine(bridged: Bridged, inline: bool) -> None:
    """Asgiref's ``sync_to_async`` around ``async_to_sync``, as in Django's middleware, neither hangs nor complains."""
    from asgiref.sync import async_to_sync, sync_to_async

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError

        async def answer() -> bytes:
            await anyio.lowlevel.checkpoint()
            return b"from within"

        data = await sync_to_async(async_to_sync(answer), thread_sensitive=False)()
        await send(START)
        await send(body(data))

    assert call(bridged(app, inline=inline)).body == b"from within"


def test_wsgi_app_may_run_a_coroutine_through_a_pair() -> None:
    """``async_to_sync`` in a view, as Flask's ``async def`` views are run, sees no loop of ours."""
    from asgiref.sync import async_to_sync

    async def answer() -> bytes:
        await anyio.lowlevel.checkpoint()
        return b"from within"

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [async_to_sync(answer)()]

    with ASGIMiddleware(WSGIMiddleware(app)) as bridge:
        assert call(bridge).body == b"from within"


# -- E5: two requests of one conversation -----------------------------------------------------------------------------

ROUNDS = 100


class Conversation:
    """A Starlette app of two endpoints: ``GET /sse`` gives as events what comes to ``POST /messages``, up to "end".

    Args:
        respond: Makes the response of the events.
    """

    def __init__(self, respond: Callable[[AsyncIterator[str]], Any]) -> None:
        from starlette.applications import Starlette
        from starlette.responses import Response as Answer
        from starlette.routing import Route

        messages: list[str] = []
        waiting: list[anyio.Event] = []
        self.ended = Signal("the generator of the events has ended")

        async def get() -> str:
            while not messages:
                waiting.append(anyio.Event())
                await waiting[-1].wait()
            return messages.pop(0)

        async def events() -> AsyncIterator[str]:
            try:
                while (message := await get()) != "end":
                    yield message
            finally:
                self.ended.set()

        async def sse(request: Request) -> Any:
            return respond(events())

        async def post(request: Request) -> Answer:
            messages.append((await request.body()).decode())
            while waiting:
                waiting.pop().set()
            return Answer(status_code=202)

        self.app = Starlette(routes=[Route("/sse", sse), Route("/messages", post, methods=["POST"])])


def streaming(events: AsyncIterator[str]) -> Any:
    """Starlette's own response, with the events made by hand."""

    async def lines() -> AsyncIterator[str]:
        async for event in events:
            yield f"data: {event}\r\n\r\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


def event_source(events: AsyncIterator[str]) -> Any:
    """sse_starlette's."""
    from sse_starlette import EventSourceResponse

    return EventSourceResponse(events)


RESPONSES = pytest.mark.parametrize(
    "respond",
    [
        streaming,
        pytest.param(
            event_source,
            marks=pytest.mark.skipif(find_spec("sse_starlette") is None, reason="needs sse_starlette"),
        ),
    ],
)


class Listener:
    """A server thread with a response that goes on; what it gets is there to be waited for."""

    def __init__(self, bridge: Any) -> None:
        self.chunks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._bridge = bridge
        self._exchange: Exchange | None = None
        self._thread = InThread(self._listen)
        self._left = b""

    def _listen(self) -> Exchange:
        exchange = Exchange(self._bridge, environ_of(path="/sse")).begin()
        for chunk in exchange.iterator:
            self.chunks.put(chunk)
        exchange.close()
        self.chunks.put(None)
        return exchange

    def next_event(self) -> bytes:
        """Wait for an event."""
        while b"\r\n\r\n" not in self._left:
            chunk = self.chunks.get(timeout=BOUND_SECONDS)
            assert chunk is not None, "The stream has ended"
            self._left += chunk
        event, _, self._left = self._left.partition(b"\r\n\r\n")
        return event

    def end(self) -> Exchange:
        """Wait for the end, which must come without another event."""
        while (chunk := self.chunks.get(timeout=BOUND_SECONDS)) is not None:
            assert chunk == b""
        assert self._left == b""
        exchange: Exchange = self._thread.result()
        return exchange


@RESPONSES
def test_stream_of_one_request_tells_what_another_brings(bridged: Bridged, respond: Callable[..., Any]) -> None:
    """A response in one server thread gives each event that a request in another causes, and then ends cleanly."""
    conversation = Conversation(respond)
    bridge = bridged(conversation.app)
    listener = Listener(bridge)
    for number in range(ROUNDS):
        answer = call(bridge, environ_of("POST", "/messages", body=b"%d" % number))
        assert (answer.status, answer.body) == ("202 Accepted", b"")
        assert listener.next_event() == b"data: %d" % number
    assert not conversation.ended.is_set()
    call(bridge, environ_of("POST", "/messages", body=b"end"))
    exchange = listener.end()
    assert exchange.status == "200 OK"
    assert conversation.ended.is_set()


@RESPONSES
def test_stream_that_is_closed_leaves_the_next_one_alone(bridged: Bridged, respond: Callable[..., Any]) -> None:
    """The server closes a response between two events: its generator is closed, and other requests are served."""
    conversation = Conversation(respond)
    bridge = bridged(conversation.app, grace_timeout=0.01)  # Starlette's stream waits for its events alone
    call(bridge, environ_of("POST", "/messages", body=b"first"))
    exchange = Exchange(bridge, environ_of(path="/sse")).begin()
    assert b"data: first" in next(filter(None, iter(exchange.next, None)))
    exchange.close()
    conversation.ended.wait()
    assert call(bridge, environ_of("POST", "/messages", body=b"second")).status == "202 Accepted"


# -- C6: every kind of response, under every kind of middleware -------------------------------------------------------

PAYLOAD = "0123456789" * 10_000
PIECES = [PAYLOAD[at : at + 30_000] for at in range(0, len(PAYLOAD), 30_000)]


async def pieces() -> AsyncIterator[str]:
    """The payload, in pieces that are not all there at once."""
    for piece in PIECES:
        await anyio.lowlevel.checkpoint()
        yield piece


def mirror(response: str, middlewares: int, *, gzipped: bool, file: Path) -> Any:
    """A Starlette app that reads a request's body, says how long it was, and answers with the payload."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.responses import FileResponse, JSONResponse
    from starlette.responses import Response as Answer
    from starlette.routing import Route

    async def endpoint(request: Request) -> Answer:
        answer: Answer
        if response == "json":
            answer = JSONResponse(PAYLOAD)
        elif response == "stream":
            answer = StreamingResponse(pieces())
        elif response == "file":
            answer = FileResponse(file)
        else:
            answer = event_source(pieces())
        answer.headers["x-length"] = str(len(await request.body()))
        return answer

    async def pass_on(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    middleware = [Middleware(BaseHTTPMiddleware, dispatch=pass_on)] * middlewares
    routes = [Route("/", endpoint, methods=["GET", "POST"])]
    return Starlette(routes=routes, middleware=[*middleware, *[Middleware(GZipMiddleware)] * gzipped])


@pytest.mark.parametrize("middleware", ["none", "one", "three", "gzip"])
@pytest.mark.parametrize("response", ["json", "stream", "file", "events"])
def test_response_is_whole_under_middleware(bridged: Bridged, response: str, middleware: str, tmp_path: Path) -> None:
    """Neither a body that is read, nor who waits for a disconnect meanwhile, takes anything from a response."""
    if response == "events":
        pytest.importorskip("sse_starlette")
    file = tmp_path / "payload"
    file.write_text(PAYLOAD)
    number = {"one": 1, "three": 3}.get(middleware, 0)
    bridge = bridged(mirror(response, number, gzipped=middleware == "gzip", file=file))
    wanted = {
        "json": json.dumps(PAYLOAD),
        "events": "".join(f"data: {piece}\r\n\r\n" for piece in PIECES),
    }.get(response, PAYLOAD)
    for data in (None, b"x" * 5, b"x" * 1_000_000):
        environ = environ_of("GET" if data is None else "POST", body=data, HTTP_ACCEPT_ENCODING="gzip")
        answer = call(bridge, environ)
        fields = dict(answer.fields)
        text = gzip.decompress(answer.body) if "content-encoding" in fields else answer.body
        assert (answer.status, fields["x-length"], text.decode()) == ("200 OK", str(len(data or b"")), wanted)


# -- E6: background work ----------------------------------------------------------------------------------------------


@only_single("a bridge in between is closed by who is further out, and no server thread of it waits")
def test_background_task_ends_after_the_response_and_within_its_close(bridged: Bridged) -> None:
    """Starlette's: the server has all of the response while the task waits, and its thread again when that is done."""
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.routing import Route

    received, done = Signal("the server has the response"), Signal("the task is done")

    async def work() -> None:
        await received.wait_in_task()
        done.set()

    async def endpoint(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("answer", background=BackgroundTask(work))

    exchange = Exchange(bridged(Starlette(routes=[Route("/", endpoint)]))).begin()
    assert list(exchange.iterator) == [b"answer"]
    assert not done.is_set()
    received.set()
    exchange.close()
    assert done.is_set()


# -- G3: a body without a length --------------------------------------------------------------------------------------


def test_upload_in_chunks_is_streamed_to_its_end(bridged: Bridged) -> None:
    """Where the server says that the stream ends with the body, each part arrives before the last one is read."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    stream = BodyStream(b"x" * 1_000_000, ends=True)
    unread: list[int] = []

    async def endpoint(request: Request) -> PlainTextResponse:
        length = 0
        async for part in request.stream():
            length += len(part)
            unread.append(stream._left)
        return PlainTextResponse(str(length))

    bridge = bridged(Starlette(routes=[Route("/", endpoint, methods=["POST"])]))
    environ = environ_of("POST", HTTP_TRANSFER_ENCODING="chunked", wsgi__input=stream, wsgi__input_terminated=True)
    answer = call(bridge, environ)
    assert answer.body == b"1000000"
    assert unread[0] > 500_000


# -- F8, F9, F10: what apps send and look for -------------------------------------------------------------------------


def test_app_may_go_on_after_a_message_that_nobody_knows(bridged: Bridged) -> None:
    """A message of an extension that the scope does not offer raises in the app's own ``send()``, and there alone."""
    raised: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError
        assert "http.response.push" not in scope["extensions"]
        try:
            await send({"type": "http.response.push", "path": "/style.css", "headers": []})
        except Exception as error:  # noqa: BLE001  # whatever it is, the app goes on
            raised.append(type(error).__name__)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})
        await send(body(b"ignored"))

    assert call(bridged(app)).chunks == [b""]
    assert raised == ["AppProtocolError"]


def test_connection_header_of_an_app_is_no_error(bridged: Bridged) -> None:
    """``connection: keep-alive``, as event streams send it, never reaches a server that would assert on it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError
        await send({**START, "headers": [(b"connection", b"keep-alive"), (b"cache-control", b"no-store")]})
        await send(body(b"x"))

    assert call(bridged(app)).fields == [("cache-control", "no-store"), ("content-length", "1")]


def test_version_of_the_spec_is_one_that_frameworks_take(bridged: Bridged) -> None:
    """Falcon refuses a ``spec_version`` of 3.0, which is the version of ASGI itself."""
    version = scope_of(bridged, environ_of())["asgi"]
    assert version == {"version": "3.0", "spec_version": "2.5"}


def hello_falcon() -> Any:
    """An app of Falcon's."""
    from falcon.asgi import App

    class Resource:
        async def on_get(self, _request: Any, response: Any) -> None:
            response.text = "hello"

    app: Any = App()
    app.add_route("/", Resource())
    return app


def hello_litestar() -> Any:
    """An app of Litestar's."""
    from litestar import Litestar, get

    async def hello() -> str:
        return "hello"

    hello.__annotations__["return"] = str  # Litestar looks for the names of annotations in the module
    return Litestar([get("/")(hello)])


def hello_quart() -> Any:
    """An app of Quart's."""
    from quart import Quart

    app: Any = Quart("hello")

    async def hello() -> str:
        return "hello"

    app.get("/")(hello)
    return app


def hello_sanic() -> Any:
    """An app of Sanic's, whose names are taken for the whole process; a second one only in its test mode."""
    from sanic import Sanic
    from sanic.response import text

    Sanic.test_mode = True
    app: Any = Sanic(f"hello-{uuid.uuid4().hex}")

    async def hello(_request: Any) -> Any:
        return text("hello")

    app.get("/")(hello)
    return app


def hello_blacksheep() -> Any:
    """An app of BlackSheep's."""
    from blacksheep import Application, Router
    from blacksheep.server.responses import text

    router: Any = Router()

    async def hello() -> Any:
        return text("hello")

    router.get("/")(hello)
    return Application(router=router)


def hello_django() -> Any:
    """Django's ASGI handler, over a project of one view."""
    from django.conf import settings

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="of a test", ROOT_URLCONF="urls")
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse
    from django.urls import path

    async def hello(_request: Any) -> Any:
        return HttpResponse(b"hello")

    sys.modules["urls"] = types.SimpleNamespace(urlpatterns=[path("", hello)])  # type: ignore[assignment]
    return get_asgi_application()


FRAMEWORKS: dict[str, Callable[[], Any]] = {
    "blacksheep": hello_blacksheep,
    "django": hello_django,
    "falcon": hello_falcon,
    "litestar": hello_litestar,
    "quart": hello_quart,
    "sanic": hello_sanic,
}


def answers_of(framework: str, **options: Any) -> None:
    """Have an app answer twice through one bridge and twice through three, and say what it answered."""
    for kind in ("single", "nested"):
        with bridges_to_wsgi(kind, **options) as make:
            bridge = make(FRAMEWORKS[framework]())
            for _ in range(2):
                answer = call(bridge)
                print(answer.status, answer.body.decode())  # noqa: T201  # to the process that asked


@pytest.mark.parametrize("options", ["", "inline=True"], ids=["thread", "inline"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_framework_answers(framework: str, options: str) -> None:
    """Each starts up, answers 200 and shuts down; in a process of its own, for frameworks leave threads and files."""
    pytest.importorskip(framework)
    said = python(f"from test_pains_asgi_on_wsgi import answers_of; answers_of({framework!r}, {options})")
    # Sanic prints more.
    assert [line for line in said.splitlines() if line.startswith(tuple("12345"))] == ["200 OK hello"] * 4


# -- H1, H3: a failure reaches the server that logs it ----------------------------------------------------------------


class Handler(SimpleHandler):
    """wsgiref's, without the clock."""

    server_software = None
    origin_server = False


class Client(io.BytesIO):
    """What wsgiref writes to.

    Args:
        got: What the client gets, and when.
    """

    def __init__(self, got: tuple[bytes, Signal]) -> None:
        super().__init__()
        self._got = got

    def write(self, data: Any, /) -> int:
        if bytes(data) == self._got[0]:
            self._got[1].set()
        return super().write(data)


def served_by_wsgiref(app: Any, got: tuple[bytes, Signal]) -> tuple[bytes, str]:
    """What wsgiref writes to the client and to its log."""
    written, errors = Client(got), io.StringIO()
    handler = Handler(io.BytesIO(), written, errors, environ_of(), multithread=True, multiprocess=False)
    handler.run(app)
    return written.getvalue(), errors.getvalue()


@pytest.mark.parametrize("begun", [False, True], ids=["before the head", "after the head"])
def test_error_of_an_app_is_in_the_log_of_the_server(bridged: Bridged, begun: bool) -> None:
    """Its traceback is there once, and names the app's own line; the client gets a 500, or a response cut off."""
    taken = Signal("the client has the first part")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError
        if begun:
            await send(START)
            await send(body(b"part", more=True))
            await taken.wait_in_task()
        raise LookupError("what only the log says")

    written, errors = served_by_wsgiref(bridged(app), (b"part", taken))
    assert errors.count("LookupError: what only the log says") == 1
    assert 'raise LookupError("what only the log says")' in errors
    assert b"what only" not in written
    assert written.startswith(b"Status: 200 OK" if begun else b"Status: 500 ")


# -- H5: a client that leaves is nobody's error -----------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["in its upload", "between two parts of the response"])
def test_client_that_leaves_is_no_error_in_the_log(
    bridged: Bridged, caplog: pytest.LogCaptureFixture, moment: str
) -> None:
    """Nothing above DEBUG, of whichever logger."""
    ended = Signal("the app has ended")

    class Parts:  # no generator: StreamingResponse would not close it, of which trio warns
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            await anyio.lowlevel.checkpoint()
            return b"x" * 1000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError
        answer: Any = StreamingResponse(Parts())
        try:
            await Request(scope, receive).body()
        except ClientDisconnect:
            answer = PlainTextResponse("half", 400)
        try:
            await answer(scope, receive, send)
        finally:
            ended.set()

    caplog.set_level(logging.DEBUG)
    bridge = bridged(app)
    if moment == "in its upload":
        stream = BodyStream(b"x" * 100, gone_after=10)
        # A server with nobody left to answer gets the error that it knows, from a bridge that knows it too.
        with contextlib.suppress(ClientDisconnected):
            response = call(bridge, environ_of("POST", body=b"x" * 100, wsgi__input=stream))
            assert (response.status, response.body) == ("400 Bad Request", b"half")
        bridge.close()  # by now the app has ended; it was not called at all if its client had left before that
    else:
        exchange = Exchange(bridge).begin()
        exchange.next()
        exchange.close()
        ended.wait()
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


# -- I: paths, encodings, environs ------------------------------------------------------------------------------------


def test_app_under_a_prefix_makes_links_with_it(bridged: Bridged) -> None:
    """FastAPI below Werkzeug's dispatcher: pages, documentation, redirects and links know where they are."""
    pytest.importorskip("fastapi")
    from fastapi import FastAPI
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    app = FastAPI()

    @app.get("/items/{number}")
    async def item(request: Request, number: int) -> dict[str, str]:
        return {"url": str(request.url), "link": str(request.url_for("item", number=number + 1))}

    @app.get("/list/")
    async def listing() -> list[int]:
        return []

    site: Any = DispatcherMiddleware(lambda *_: [], {"/api": bridged(app)})

    def get(path: str) -> Response:
        return call(site, environ_of(path=path))

    assert json.loads(get("/api/items/1").body) == {
        "url": "http://testserver/api/items/1",
        "link": "http://testserver/api/items/2",
    }
    assert b"'/api/openapi.json'" in get("/api/docs").body
    assert "/items/{number}" in json.loads(get("/api/openapi.json").body)["paths"]
    redirect = get("/api/list")
    assert ("location", "http://testserver/api/list/") in redirect.fields


@pytest.mark.parametrize("script", ["", "/api", "/\xc3\xa9"])
def test_path_is_script_name_and_path_info(bridged: Bridged, script: str) -> None:
    """ASGI's ``path`` includes ``root_path``."""
    scope = scope_of(bridged, environ_of(path="/x", SCRIPT_NAME=script))
    text = script.encode("latin-1").decode()
    assert (scope["root_path"], scope["path"]) == (text, text + "/x")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/%C3%A5", "/å"),
        ("/" + "%61%CC%8A", unicodedata.normalize("NFD", "/å")),
        ("/%F0%9F%90%8D", "/🐍"),
        ("/%E5", "/\ufffd"),
        ("/%2F", "//"),
        ("/%252F", "/%2F"),
        ("/%00", "/\0"),
        ("/a%20b%3Fc%23d", "/a b?c#d"),
    ],
)
@pytest.mark.parametrize("told", [False, True], ids=["decoded only", "with its URI"])
def test_path_of_any_bytes_is_no_error(bridged: Bridged, target: str, path: str, told: bool) -> None:
    """Whatever is quoted, ``path`` is its text, and ``raw_path`` unquotes to its very bytes."""
    uri: dict[str, Any] = {"REQUEST_URI": target} if told else {}
    scope = scope_of(bridged, environ_of(path=unquote_to_bytes(target).decode("latin-1"), **uri))
    assert scope["path"] == path
    assert unquote_to_bytes(scope["raw_path"]) == unquote_to_bytes(target)


def test_path_that_is_no_utf_8_is_the_same_there_and_back() -> None:
    """``/caf%E9``: the bytes of its ``PATH_INFO`` reach a WSGI app behind both bridges."""
    seen: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ["PATH_INFO"])
        start_response("204 No Content", [])
        return []

    with ASGIMiddleware(WSGIMiddleware(app)) as bridge:
        assert call(bridge, environ_of(path="/caf\xe9")).status == "204 No Content"
    assert seen == ["/caf\xe9"]


def test_query_of_any_bytes_is_no_error(bridged: Bridged) -> None:
    """Raw UTF-8 in a query, as curl sends it, and bytes that are no text at all, arrive as they are."""
    for query in ("q=å€".encode(), b"q=\xff\xfe", b"q=%C3%A5"):
        assert scope_of(bridged, environ_of(QUERY_STRING=query.decode("latin-1")))["query_string"] == query


@pytest.mark.parametrize(
    ("uri", "raw_path"),
    [
        ({"REQUEST_URI": "/a%2Fb?q"}, b"/a%2Fb"),
        ({"RAW_URI": "/a%2Fb?q"}, b"/a%2Fb"),
        ({"REQUEST_URI": "/other"}, b"/a/b"),
        ({}, b"/a/b"),
    ],
)
def test_quoted_slash_is_in_the_raw_path(bridged: Bridged, uri: dict[str, Any], raw_path: bytes) -> None:
    """``raw_path`` is what the server says was requested, where that is the path that is asked for; else the path."""
    assert scope_of(bridged, environ_of(path="/a/b", QUERY_STRING="q", **uri))["raw_path"] == raw_path


def test_cookies_are_all_read(bridged: Bridged) -> None:
    """A server has joined them with a semicolon, and they are one header."""
    scope = scope_of(bridged, environ_of(HTTP_COOKIE="a=1; b=2"))
    assert Request(scope).cookies == {"a": "1", "b": "2"}


def test_test_client_of_flask_gets_through_a_pair_what_it_gets_without() -> None:
    """One type and one length each way, and every other header as often as it was sent."""
    pytest.importorskip("flask")
    from flask import Flask, jsonify, request
    from flask import Response as Answer

    app = Flask(__name__)

    @app.post("/echo")
    def echo() -> Answer:
        answer = jsonify(
            data=request.get_json(),
            type=request.headers.getlist("Content-Type"),
            length=request.headers.getlist("Content-Length"),
            mine=request.headers.getlist("X-Mine"),
        )
        answer.headers.add("X-Twice", "1")
        answer.headers.add("X-Twice", "2")
        return answer

    def ask() -> tuple[Any, ...]:
        answer = app.test_client().post("/echo", json={"a": 1}, headers={"X-Mine": "1"})
        return answer.status_code, answer.get_json(), sorted((name.lower(), value) for name, value in answer.headers)

    direct = ask()
    with ASGIMiddleware(WSGIMiddleware(app.wsgi_app)) as bridge:
        app.wsgi_app = bridge  # type: ignore[method-assign]  # as Flask's documentation has it
        assert ask() == direct
    assert direct[1]["type"] == ["application/json"]
    assert len(direct[1]["length"]) == 1


@pytest.mark.parametrize(
    ("port", "server"), [("8000", ("127.0.0.1", 8000)), ("", ("127.0.0.1", None)), ("None", ("127.0.0.1", None))]
)
def test_server_port_that_is_none_is_no_error(port: str, server: object) -> None:
    """An empty ``SERVER_PORT``, as on a Unix socket, is no port."""
    with bridges_to_wsgi("single") as make:
        assert scope_of(make, environ_of(SERVER_PORT=port))["server"] == server


@pytest.mark.parametrize(
    ("changes", "client"),
    [
        ({"REMOTE_ADDR": "203.0.113.9", "REMOTE_PORT": "1"}, ("203.0.113.9", 1)),
        ({"REMOTE_ADDR": "203.0.113.9", "REMOTE_PORT": None}, ("203.0.113.9", 0)),
        ({"REMOTE_ADDR": None, "REMOTE_PORT": "1"}, None),
        ({"REMOTE_ADDR": "", "REMOTE_PORT": ""}, None),
    ],
)
def test_client_is_known_without_its_port(bridged: Bridged, changes: dict[str, Any], client: object) -> None:
    """Apps ask for the address: it stands where a server tells no port."""
    environ = {key: value for key, value in environ_of(**changes).items() if value is not None}
    assert scope_of(bridged, environ)["client"] == client


@pytest.mark.parametrize(
    "changes",
    [
        {"SERVER_PROTOCOL": "INCLUDED"},
        {"SERVER_PROTOCOL": None},
        {"PATH_INFO": None},
        {"QUERY_STRING": None},
        {"SERVER_NAME": None, "SERVER_PORT": None},
        {"SCRIPT_NAME": None, "REMOTE_ADDR": None, "HTTP_HOST": None},
        {"CONTENT_LENGTH": ""},
        {"CONTENT_LENGTH": "0", "CONTENT_TYPE": ""},
    ],
    ids=str,
)
def test_odd_environ_kills_no_request(bridged: Bridged, changes: dict[str, Any]) -> None:
    """What a server leaves out or says oddly has a default."""
    environ = {key: value for key, value in environ_of(**changes).items() if value is not None}
    scope = scope_of(bridged, environ)
    assert (scope["path"], scope["http_version"], scope["query_string"]) == ("/", "1.1", b"")


# -- B1: what a lifespan opens, requests use --------------------------------------------------------------------------


def test_task_group_of_a_lifespan_runs_what_requests_start(bridged: Bridged) -> None:
    """As MCP's session manager: opened once, before the first of many requests at once, in the task of the lifespan."""
    anyio = pytest.importorskip("anyio")
    from starlette.applications import Starlette
    from starlette.routing import Route

    opened: list[int] = []

    @contextlib.asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[dict[str, Any]]:
        opened.append(1)
        async with anyio.create_task_group() as group:
            yield {"group": group}
        opened.append(-1)

    async def endpoint(request: Request) -> PlainTextResponse:
        done = anyio.Event()

        async def work() -> None:
            done.set()

        request.state.group.start_soon(work)
        request.state.group = None  # each request has a state of its own
        await done.wait()
        return PlainTextResponse("done")

    with contextlib.closing(bridged(Starlette(routes=[Route("/", endpoint)], lifespan=lifespan))) as bridge:
        threads = [InThread(lambda: call(bridge)) for _ in range(50)]
        assert {thread.result().body for thread in threads} == {b"done"}
        assert opened == [1]
    assert opened == [1, -1]


# -- D3: a slow client is waited for ----------------------------------------------------------------------------------


@only_single("each of three bridges holds a part of its own")
def test_response_to_a_slow_client_is_not_held_in_memory(bridged: Bridged) -> None:
    """However long the app is let run between two chunks that the server takes, it is at most a mebibyte ahead."""
    made = 0
    loops: list[asyncio.AbstractEventLoop] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal made
        if scope["type"] != "http":
            raise ValueError
        loops.append(asyncio.get_running_loop())
        await send(START)
        for _ in range(400):
            await send(body(b"x" * 65_536, more=True))
            made += 65_536
        await send(body())

    async def turns() -> None:
        for _ in range(50):
            await anyio.lowlevel.checkpoint()

    exchange = Exchange(bridged(app)).begin()
    taken = ahead = 0
    for chunk in exchange.iterator:
        taken += len(chunk)
        if taken < 50 * 65_536:
            asyncio.run_coroutine_threadsafe(turns(), loops[0]).result(BOUND_SECONDS)
        ahead = max(ahead, made - taken)
    exchange.close()
    assert taken == 400 * 65_536
    assert ahead <= 2**20


# -- E3: a client that leaves its upload ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, ConnectionResetError()], ids=["eof", "raises"])
def test_upload_that_breaks_off_is_not_read_again(error: Exception | None) -> None:
    """An app that goes on asking is told each time that the client is gone, and costs the server nothing."""
    stream = BodyStream(b"x" * 100, gone_after=10, error=error)
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.extend([await receive() for _ in range(5)])

    with ASGIMiddleware(app, lifespan=False) as bridge, pytest.raises(ClientDisconnected):
        call(bridge, environ_of("POST", body=b"x" * 100, wsgi__input=stream))
    gone = {"type": "http.disconnect"}
    assert received == [{"type": "http.request", "body": b"x" * 10, "more_body": True}, gone, gone, gone, gone]
    assert stream.reads == [100, 90]


# -- K5: gevent -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
def test_under_gevent_sync_code_runs_a_loop_of_its_own_amid_requests(inline: bool) -> None:
    """Neither a greenlet of the server's, nor an app's in place of a thread, sees the bridge's loop run."""
    pytest.importorskip("gevent")
    program = """
        import gevent.monkey
        gevent.monkey.patch_all()
        import asyncio, logging, sys, gevent, gevent.event
        from starlette.applications import Starlette
        from starlette.responses import PlainTextResponse, StreamingResponse
        from starlette.routing import Route
        from support.wsgi_driver import call, environ_of
        from a2wsgi import ASGIMiddleware
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # its debug mode warns of a machine that is slow

        async def own():
            async def numbers():
                yield 1
                await asyncio.sleep(0.01)
                yield 2
            return [number async for number in numbers()]

        def sync(request):
            return PlainTextResponse(str(asyncio.run(own())))

        begun = []

        async def wait(request):
            async def parts():
                begun.append(True)
                for _ in range(10):
                    yield b"x"
                    await asyncio.sleep(0.01)
            return StreamingResponse(parts())

        app = Starlette(routes=[Route("/sync", sync), Route("/wait", wait)])
        bridge = ASGIMiddleware(app, inline=sys.argv[1] == "True")
        waiting = [gevent.spawn(call, bridge, environ_of(path="/wait")) for _ in range(5)]
        while not begun:
            gevent.sleep(0.001)  # a look now and then: an event would belong to one hub of gevent's
        print(asyncio.run(own()))
        print(call(bridge, environ_of(path="/sync")).body.decode())
        gevent.joinall(waiting, raise_error=True)
        print({each.value.body for each in waiting})
        bridge.close()
    """
    said = python(program, str(inline), strict=True)
    assert said.splitlines() == ["[1, 2]", "[1, 2]", "{b'xxxxxxxxxx'}"]


@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
def test_under_gevent_a_new_thread_of_the_executor_runs_a_loop_of_its_own(inline: bool) -> None:
    """It is a greenlet, which runs as soon as it is made; and one that goes on when the response has ended."""
    pytest.importorskip("gevent")
    program = """
        import gevent.monkey
        gevent.monkey.patch_all()
        import asyncio, logging, sys, gevent
        from support.wsgi_driver import call
        from a2wsgi import ASGIMiddleware
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # its debug mode warns of a machine that is slow

        begun, answered, ended = [], [], []

        async def own(name, *, outlast):
            loop = asyncio.get_running_loop()
            begun.append(name)
            await asyncio.sleep(0)
            while outlast and not answered:
                await asyncio.sleep(0.001)  # a look now and then: an event would belong to one hub of gevent's
            print(name, loop is asyncio.get_running_loop())

        def run(name, outlast=False):
            asyncio.run(own(name, outlast=outlast))
            ended.append(name)  # only now: till then its loop counts as running in the thread that all share

        async def app(scope, receive, send):
            await asyncio.to_thread(run, "new thread")
            asyncio.get_running_loop().run_in_executor(None, run, "afterwards", True)
            while len(begun) < 2:
                await asyncio.sleep(0.001)  # as above
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"hello"})

        bridge = ASGIMiddleware(app, lifespan=False, inline=sys.argv[1] == "True")
        print(call(bridge).body.decode(), flush=True)
        answered.append(True)
        while len(ended) < 2:
            gevent.sleep(0.001)  # as above
        run("server's")
        bridge.close()
    """
    said = python(program, str(inline), strict=True)
    assert said.splitlines() == ["new thread True", "hello", "afterwards True", "server's True"]


def test_under_gevent_the_only_greenlet_waits_for_the_loop_thread() -> None:
    """A loop thread that is slow to start is waited for, though gevent knows of nothing that could end the wait."""
    pytest.importorskip("gevent")
    program = """
        import gevent.monkey
        gevent.monkey.patch_all()
        import asyncio, logging
        from support.wsgi_driver import call
        from a2wsgi import ASGIMiddleware
        from a2wsgi._asgi_on_wsgi.loops import shared_loop as _loop_thread
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # its debug mode warns of a machine that is slow

        make = _loop_thread.new_event_loop
        def make_slowly():
            gevent.monkey.get_original("time", "sleep")(0.2)  # of the loop thread, which is a real one
            return make()
        _loop_thread.new_event_loop = make_slowly

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"hello"})

        with ASGIMiddleware(app, lifespan=False) as bridge:
            print(call(bridge).body.decode())
    """
    assert python(program, strict=True) == "hello\n"


# -- K7: one loop for all requests ------------------------------------------------------------------------------------


@ASYNCIO_ALONE
def test_connection_of_one_request_serves_the_next(bridged: Bridged) -> None:
    """What is bound to a loop, such as a client with open connections, is made in one request and used in another."""
    made: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    servers: list[asyncio.Server] = []

    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()
        await writer.wait_closed()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError
        if not made:
            servers.append(await asyncio.start_server(upper, "127.0.0.1", 0))
            made.append(await asyncio.open_connection(*servers[0].sockets[0].getsockname()))
        reader, writer = made[0]
        writer.write(scope["path"].encode() + b"\n")
        answer = await reader.readline()
        if scope["path"] == "/last":
            writer.close()
            await writer.wait_closed()
            servers[0].close()
            await servers[0].wait_closed()
        await send(START)
        await send(body(answer))

    bridge = bridged(app)
    assert call(bridge, environ_of(path="/first")).body == b"/FIRST\n"
    assert InThread(lambda: call(bridge, environ_of(path="/other"))).result().body == b"/OTHER\n"
    assert call(bridge, environ_of(path="/last")).body == b"/LAST\n"


# -- A4: input that does not end --------------------------------------------------------------------------------------


class Endless(io.RawIOBase):
    """``wsgi.input`` of wsgiref: a socket, on which a read past the body waits for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.never = threading.Event()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        raise AssertionError(f"read({size}) of a request without a body waits for ever")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_input_without_a_length_is_not_touched(bridged: Bridged, method: str) -> None:
    """A request that tells of no body has none."""
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError
        received.append(await receive())
        await send(START)
        await send(body())

    assert call(bridged(app), environ_of(method, wsgi__input=Endless())).status == "200 OK"
    assert received == [{"type": "http.request", "body": b"", "more_body": False}]
