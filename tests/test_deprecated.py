"""Programs written for a2wsgi 1.x: what still works with a warning, and what an import of a name that is gone says."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, cast

import pytest

import a2wsgi
from a2wsgi import ASGIMiddleware, WSGIMiddleware
from support import asgi_driver
from support.wsgi_driver import call, environ_of

KINDS = pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])


class App:
    """Knows lifespan, and writes down what happens."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(scope["type"])
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})


def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    """The same, of the other kind."""
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"hello"]


@contextlib.contextmanager
def warned(words: str) -> Iterator[None]:
    """One warning of what is deprecated, at the line of the program that does it."""
    with pytest.warns(DeprecationWarning, match=words) as caught:
        yield
    assert [warning.filename for warning in caught] == [__file__]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One that runs in a thread of its own, as the documentation of 1.10.10 has it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


# -- A loop and a lifespan driven by hand -----------------------------------------------------------------------------


class Driven(ASGIMiddleware):
    """A subclass, whose constructor is one frame more between the program and the warning."""

    def __init__(self, app: Any, loop: Any) -> None:
        super().__init__(app, None, loop)


@pytest.mark.parametrize(
    "make",
    [
        lambda app, loop: ASGIMiddleware(app, None, loop),
        lambda app, loop: ASGIMiddleware(app, loop=loop),
        lambda app, loop: cast("Any", WSGIMiddleware)(app, loop=loop),
        Driven,
    ],
    ids=["by place", "by name", "by the other name", "subclass"],
)
def test_lifespan_is_not_run_on_a_given_loop(loop: asyncio.AbstractEventLoop, make: Any) -> None:
    """Programs for 1.10.10 run it there by themselves, and an app that is started up twice may fail."""
    app = App()
    with warned("lifespan=False"):
        bridge = make(app, loop)
    with bridge:
        assert call(bridge).body == b"hello"
    assert app.seen == ["http"]


@pytest.mark.parametrize("lifespan", [True, False])
def test_lifespan_on_a_given_loop_is_as_the_program_says(loop: asyncio.AbstractEventLoop, lifespan: bool) -> None:
    """With no warning."""
    app = App()
    with ASGIMiddleware(app, loop=loop, lifespan=lifespan) as bridge:
        assert call(bridge).body == b"hello"
    assert app.seen == (["lifespan", "http"] if lifespan else ["http"])


@KINDS
def test_lifespan_is_run_where_no_loop_is_given(inline: bool) -> None:
    """And nothing is said; None is the default."""
    app = App()
    with ASGIMiddleware(app, lifespan=None, inline=inline) as bridge:
        assert call(bridge).body == b"hello"
    assert app.seen == ["lifespan", "http"]


def test_mcp_server_whose_lifespan_is_run_by_hand_is_served(loop: asyncio.AbstractEventLoop) -> None:
    """The session manager of the real ``mcp`` can be run once only: a second time is an error."""
    mcp = pytest.importorskip("mcp.server.mcpserver")
    server = mcp.MCPServer("calculator")
    app = server.streamable_http_app(streamable_http_path="/")
    stop = asyncio.Event()

    async def run(started: threading.Event) -> None:
        async with server.session_manager.run():
            started.set()
            await stop.wait()

    started = threading.Event()
    running = asyncio.run_coroutine_threadsafe(run(started), loop)
    assert started.wait(10)
    with warned("lifespan=False"):
        bridge = ASGIMiddleware(app, loop=loop)
    with bridge:
        environ = environ_of("POST", body=b"{}", CONTENT_TYPE="text/plain", HTTP_HOST="127.0.0.1:8000")
        assert call(bridge, environ).status == "400 Bad Request"
    loop.call_soon_threadsafe(stop.set)
    running.result(10)


@KINDS
def test_loop_is_started_without_lifespan_for_who_asks_for_it_first(inline: bool) -> None:
    """Airflow enters the app's lifespan on ``middleware.loop`` by hand, before its first request."""
    app = App()
    bridge = ASGIMiddleware(app, inline=inline)
    with warned("loop is deprecated"):
        loop = bridge.loop
    with bridge:
        assert call(bridge).body == b"hello"
        with warned("loop is deprecated"):
            assert bridge.loop is loop
    assert app.seen == ["http"]


def test_loop_runs_what_the_program_gives_it() -> None:
    """It runs already when it is given out."""

    async def where() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with ASGIMiddleware(App(), lifespan=False) as bridge, warned("loop is deprecated"):
        loop = bridge.loop
        assert asyncio.run_coroutine_threadsafe(where(), loop).result(10) is loop


def test_loop_starts_the_app_up_where_the_program_says_so() -> None:
    """With ``lifespan=True``, or after the first request."""
    app = App()
    with ASGIMiddleware(app, lifespan=True) as bridge, warned("loop is deprecated"):
        assert bridge.loop.is_running()
    assert app.seen == ["lifespan"]


def test_loop_that_was_given_is_given_back(loop: asyncio.AbstractEventLoop) -> None:
    """Also on its own thread, where nothing can be waited for."""
    bridge = ASGIMiddleware(App(), loop=loop, lifespan=False)

    async def on_the_loop() -> asyncio.AbstractEventLoop:
        return bridge.loop

    with warned("loop is deprecated"):
        assert bridge.loop is loop
    with warned("loop is deprecated"):
        assert asyncio.run_coroutine_threadsafe(on_the_loop(), loop).result(10) is loop


def test_loop_false_is_none() -> None:
    """OCA's module for Odoo passes it, so that no loop be started."""
    app = App()
    with warned("loop=False is treated as None"):
        bridge: ASGIMiddleware = ASGIMiddleware(app, None, cast("Any", False))
    with bridge:
        assert call(bridge).body == b"hello"
    assert app.seen == ["lifespan", "http"]


# -- Calls and attributes ---------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("kind", ["whole", "parts", "bad request", "no body"])
def test_start_response_is_given_three_arguments_where_it_requires_them(kind: str, inline: bool) -> None:
    """PEP 3333 has the third optional; 1.10.10 always gave it, and servers of programs' own rely on that."""
    started: list[Any] = []

    def requiring_three(status: str, headers: Any, exc_info: Any) -> Any:
        started.append((status, exc_info))
        return lambda _: None

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204 if kind == "no body" else 200})
        if kind == "parts":
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        await send({"type": "http.response.body", "body": b"x"})

    start_response: Any = requiring_three
    environ = environ_of("POST", CONTENT_LENGTH="x") if kind == "bad request" else environ_of()
    with ASGIMiddleware(app, lifespan=False, inline=inline) as bridge:
        response = bridge(environ, start_response)
        list(response)
        getattr(response, "close", lambda: None)()
    assert started == [({"bad request": "400 Bad Request", "no body": "204 No Content"}.get(kind, "200 OK"), None)]


@KINDS
def test_type_error_of_start_response_is_raised_and_nothing_is_called_twice(inline: bool) -> None:
    """It comes of what is in it, not of how it was called."""
    calls: list[str] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        calls.append(status)
        raise TypeError("a header is no str")

    with (
        ASGIMiddleware(App(), lifespan=False, inline=inline) as bridge,
        pytest.raises(TypeError, match="a header is no str"),
    ):
        bridge(environ_of(), start_response)
    assert calls == ["200 OK"]


def test_options_are_attributes_as_they_were() -> None:
    """Each with a warning, to be read and to be set."""
    to_asgi = WSGIMiddleware(wsgi_app, 3, 5)
    with warned("send_queue_size is deprecated"):
        assert to_asgi.send_queue_size == 5
    with warned("Setting WSGIMiddleware.send_queue_size is deprecated"):
        to_asgi.send_queue_size = 7
    with warned("send_queue_size is deprecated"):
        assert to_asgi.send_queue_size == 7
    to_wsgi = ASGIMiddleware(App(), 2.5)
    with warned("wait_time is deprecated"):
        assert to_wsgi.wait_time == 2.5
    with warned("Setting ASGIMiddleware.wait_time is deprecated"):
        to_wsgi.wait_time = None
    with warned("wait_time is deprecated"):
        assert to_wsgi.wait_time is None


def test_executor_is_a_pool_of_as_many_threads() -> None:
    """Programs submit work of their own to it, or shut it down."""
    bridge = WSGIMiddleware(wsgi_app, workers=3)
    with warned("executor is deprecated"):
        executor = bridge.executor
    with warned("executor is deprecated"):
        assert bridge.executor is executor
    assert isinstance(executor, ThreadPoolExecutor)
    assert executor._max_workers == 3
    with executor:
        assert executor.submit(lambda: threading.current_thread().name).result().startswith("WSGI")
    with warned("Setting WSGIMiddleware.executor is deprecated"):
        bridge.executor = executor


def test_version_is_a_tuple() -> None:
    """One warning a process, though ``from a2wsgi import VERSION`` asks for it twice."""
    with contextlib.suppress(AttributeError):  # another test has asked for it
        del a2wsgi.VERSION  # pyright: ignore[reportAttributeAccessIssue]  # it is given by __getattr__
    with warned("a2wsgi.VERSION is deprecated"):
        from a2wsgi import VERSION
    assert ".".join(map(str, VERSION)) == a2wsgi.__version__.partition(".dev")[0]
    assert not hasattr(a2wsgi, "WSGIResponder")


# -- Names that are gone ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("a2wsgi.wsgi", "unicode_to_wsgi"),
        ("a2wsgi.asgi", "AsyncEvent"),
        ("a2wsgi.asgi", "SyncEvent"),
        ("a2wsgi.asgi", "StatusStringMapping"),
        ("a2wsgi.asgi", "defaultdict"),
    ],
)
def test_import_of_a_name_that_is_gone_names_the_guide(module: str, name: str) -> None:
    """Python's own error, which an `AttributeError` would become, has no word of it."""
    with pytest.raises(ImportError, match=rf"{module}\.{name} was in a2wsgi 1\.x.*/docs/migrating\.md"):
        exec(f"from {module} import {name}")  # noqa: S102 - an import is what is tested


@pytest.mark.parametrize("module", ["a2wsgi", "a2wsgi.wsgi", "a2wsgi.asgi"])
def test_name_that_never_was_is_an_attribute_error(module: str) -> None:
    """So that `hasattr` works."""
    assert not hasattr(importlib.import_module(module), "never_was")


# -- The responders ---------------------------------------------------------------------------------------------------


def test_asgi_responder_answers_on_its_loop(loop: asyncio.AbstractEventLoop) -> None:
    """OCA's module for Odoo makes one for each request, with a loop out of a pool of its own."""
    from a2wsgi.asgi import ASGIResponder

    seen: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(asyncio.get_running_loop())
        await App()(scope, receive, send)

    with warned("ASGIResponder is deprecated"):
        responder = ASGIResponder(app, loop)
    assert call(responder).body == b"hello"
    assert seen == [loop]


def over_asgi(make: Any) -> asgi_driver.Response:
    """What a responder answers, which is made where a loop runs."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await make()(scope, receive, send)

    return asgi_driver.call(app, asgi_driver.Client(strict=False), asgi_driver.http_scope())


@pytest.fixture
def executor() -> Iterator[Executor]:
    """As a program makes one for its responders."""
    from a2wsgi.wsgi import _bridges_of_executors

    with ThreadPoolExecutor(max_workers=2) as executor:
        yield executor
        _bridges_of_executors.pop(executor, None)  # as when the executor is dropped, which pytest still holds


@pytest.mark.filterwarnings("ignore:WSGIResponder:DeprecationWarning")
def test_wsgi_responders_answer_each_for_its_own_app(executor: Executor) -> None:
    """Programs share one executor among responders of many apps, on no more threads than it has."""
    from a2wsgi.wsgi import WSGIResponder

    def other(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("404 Not Found", [])
        return [b"other"]

    assert over_asgi(lambda: WSGIResponder(wsgi_app, executor, 10)).body == b"hello"
    assert over_asgi(lambda: WSGIResponder(other, executor)).body == b"other"


@pytest.mark.filterwarnings("ignore:WSGIResponder:DeprecationWarning")
@pytest.mark.parametrize("super_too", [False, True])
def test_wsgi_responder_sends_by_the_send_of_a_subclass(executor: Executor, super_too: bool) -> None:
    """Lilya holds the messages back in it, and sends them after ``super().__call__()``; others add to it."""
    from a2wsgi.wsgi import WSGIResponder

    held: list[Any] = []

    class Holding(WSGIResponder):
        def send(self, message: Any) -> None:
            held.append(message)
            if super_too:
                super().send(message)

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await super().__call__(scope, receive, send)
            for message in () if super_too else held:
                await send(message)

    assert over_asgi(lambda: Holding(wsgi_app, executor, 10)).body == b"hello"
    assert [message["type"] for message in held] == ["http.response.start", *["http.response.body"] * 2]
