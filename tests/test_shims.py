"""What was written for a2wsgi 1.10.10 runs: its import paths, its names, its calls with every keyword."""

from __future__ import annotations

import asyncio
import importlib
import io
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

import a2wsgi
from a2wsgi.asgi_typing import Receive, Scope, Send
from a2wsgi.wsgi_typing import Environ, StartResponse
from support import asgi_driver, wsgi_driver
from support.lockstep import Signal

#: The public names of 1.10.10, by module; those of the typing modules are tested elsewhere.
NAMES = {
    "a2wsgi": {"WSGIMiddleware", "ASGIMiddleware", "__version__"},
    "a2wsgi.wsgi": {"WSGIMiddleware", "Body", "build_environ"},
    "a2wsgi.asgi": {"ASGIMiddleware", "build_scope"},
}


def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Gives back the body after a greeting."""
    start_response("200 OK", [("content-type", "text/plain; charset=utf-8")])
    return [b"Hello, ", environ["wsgi.input"].read()]


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    """The same."""
    if scope["type"] == "lifespan":
        raise RuntimeError("unknown")
    body = (await receive())["body"]
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, ", "more_body": True})
    await send({"type": "http.response.body", "body": body})


def over_asgi(app: Any) -> bytes:
    """What it answers to a POST of ``1.x``."""
    scope = asgi_driver.http_scope("POST", headers=[(b"content-length", b"3")])
    return asgi_driver.call(app, asgi_driver.Client(b"1.x"), scope).body


def over_wsgi(app: Any) -> bytes:
    """The same."""
    return wsgi_driver.call(app, wsgi_driver.environ_of("POST", body=b"1.x")).body


@pytest.mark.parametrize("module", NAMES)
def test_module_has_every_name_of_1_10_10(module: str) -> None:
    """Each can be imported from where it was."""
    found = importlib.import_module(module)
    assert [name for name in NAMES[module] if not hasattr(found, name)] == []  # some are loaded when they are asked for


def test_classes_are_the_same_by_every_path() -> None:
    """So ``isinstance`` holds whichever is used."""
    from a2wsgi import asgi, wsgi

    assert wsgi.WSGIMiddleware is a2wsgi.WSGIMiddleware
    assert asgi.ASGIMiddleware is a2wsgi.ASGIMiddleware


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((), {}),
        ((5,), {}),
        ((5, 10), {}),
        ((), {"workers": 5}),
        ((), {"send_queue_size": 10}),
        ((), {"workers": 5, "send_queue_size": 10}),
        ((5,), {"send_queue_size": None}),
    ],
)
def test_calls_of_wsgi_middleware_are_those_of_1_10_10(args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """By place, by name, and with the defaults."""
    assert over_asgi(a2wsgi.WSGIMiddleware(wsgi_app, *args, **options)) == b"Hello, 1.x"
    if not args:
        assert over_asgi(a2wsgi.WSGIMiddleware(app=wsgi_app, **options)) == b"Hello, 1.x"


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((), {}),
        ((5.0,), {}),
        ((5.0, None), {}),
        ((), {"wait_time": 5.0}),
        ((), {"wait_time": None, "loop": None}),
        ((5.0,), {"loop": None}),
    ],
)
def test_calls_of_asgi_middleware_are_those_of_1_10_10(args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """By place, by name, and with the defaults."""
    with a2wsgi.ASGIMiddleware(asgi_app, *args, **options) as app:
        assert over_wsgi(app) == b"Hello, 1.x"
    if not args:
        with a2wsgi.ASGIMiddleware(app=asgi_app, **options) as app:
            assert over_wsgi(app) == b"Hello, 1.x"


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


def test_given_loop_is_the_one_that_runs_the_app(loop: asyncio.AbstractEventLoop) -> None:
    """By place and by name."""
    seen: list[asyncio.AbstractEventLoop] = []

    async def telling(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(asyncio.get_running_loop())
        await asgi_app(scope, receive, send)

    with pytest.warns(DeprecationWarning, match="lifespan=False"):
        apps = (a2wsgi.ASGIMiddleware(telling, None, loop), a2wsgi.ASGIMiddleware(telling, loop=loop))
    for app in apps:
        with app:
            assert over_wsgi(app) == b"Hello, 1.x"
    assert set(seen) == {loop}


def test_workers_are_how_many_requests_run_at_a_time() -> None:
    """As the pool of 1.10.10."""
    seen: set[int] = set()

    def telling(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.add(threading.get_ident())
        return wsgi_app(environ, start_response)

    app = a2wsgi.WSGIMiddleware(telling, workers=1)
    for _ in range(3):
        assert over_asgi(app) == b"Hello, 1.x"
    assert len(seen) == 1


def test_wait_time_ends_what_goes_on_after_the_response() -> None:
    """As in 1.10.10 it is cancelled then."""
    cancelled = Signal("the app was cancelled")

    async def going_on(scope: Scope, receive: Receive, send: Send) -> None:
        await asgi_app(scope, receive, send)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    with a2wsgi.ASGIMiddleware(going_on, wait_time=0.01) as app:
        assert over_wsgi(app) == b"Hello, 1.x"
        cancelled.wait()


def test_subclass_of_1_10_10_wraps_call_and_constructor() -> None:
    """With the arguments that its documentation and users' code have."""

    class Logged(a2wsgi.WSGIMiddleware):
        def __init__(self, app: Any, workers: int = 10, send_queue_size: int = 10) -> None:
            super().__init__(app, workers=workers, send_queue_size=send_queue_size)
            self.seen: list[str] = []

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            self.seen.append(scope["type"])
            await super().__call__(scope, receive, send)

    app = Logged(wsgi_app)
    assert over_asgi(app) == b"Hello, 1.x"
    assert app.seen == ["http"]
    assert app.app is wsgi_app


def test_lifespan_and_websockets_are_answered_as_1_10_10_did() -> None:
    """A server that sends them may go on; the close now comes before the handshake, which servers answer by 403."""
    app = a2wsgi.WSGIMiddleware(wsgi_app)
    lifespan = asgi_driver.Client(messages=[{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    assert asgi_driver.call(app, lifespan, {"type": "lifespan", "asgi": {"version": "3.0"}}).messages == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]
    websocket = asgi_driver.Client(messages=[{"type": "websocket.connect"}])
    (message,) = asgi_driver.call(app, websocket, {"type": "websocket", "path": "/"}).messages
    assert message["type"] == "websocket.close"


def test_body_reads_from_a_loop_that_runs_elsewhere(loop: asyncio.AbstractEventLoop) -> None:
    """``Body(loop, receive)`` in a thread, with the reads of a ``wsgi.input``."""
    from a2wsgi.wsgi import Body

    def body_of(*parts: bytes) -> Body:
        return Body(loop, asgi_driver.Client(*parts).receive)

    assert body_of(b"one ", b"two").read() == b"one two"
    assert body_of().read() == b""
    body = body_of(b"one\ntw", b"o\nthree")
    assert [body.readline(), body.read(2), body.readlines(), body.read(1)] == [b"one\n", b"tw", [b"o\n", b"three"], b""]
    assert list(body_of(b"a\nb", b"\nc")) == [b"a\n", b"b\n", b"c"]


def test_build_environ_is_the_environ_of_a_scope() -> None:
    """With the body that it is given, and all that PEP 3333 wants."""
    import sys

    from a2wsgi.wsgi import build_environ

    body = io.BytesIO(b"1.x")
    scope = asgi_driver.http_scope("POST", "/a/b?c=d", [(b"content-type", b"text/plain"), (b"x-one", b"1")])
    environ = build_environ(scope, body)
    assert environ.pop("asgi.scope") == scope
    assert environ == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "c=d",
        "REQUEST_URI": "/a/b?c=d",
        "RAW_URI": "/a/b?c=d",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "54321",
        "CONTENT_TYPE": "text/plain",
        "HTTP_HOST": "testserver",
        "HTTP_X_ONE": "1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": body,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }


def test_build_environ_takes_the_prefix_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's ``SCRIPT_NAME``, as it is at the call: there is no bridge that could have read it once."""
    from a2wsgi.wsgi import build_environ

    monkeypatch.setenv("SCRIPT_NAME", "/prefix")
    environ = build_environ(asgi_driver.http_scope("GET", "/prefix/a"), io.BytesIO())
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/prefix", "/a")
    environ = build_environ({**asgi_driver.http_scope("GET", "/root/a"), "root_path": "/root"}, io.BytesIO())
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/root", "/a")


def test_build_scope_is_the_scope_of_an_environ() -> None:
    """With the environ in it, as in 1.10.10."""
    from a2wsgi.asgi import build_scope

    environ = wsgi_driver.environ_of("POST", "/a/b", QUERY_STRING="c=d", CONTENT_TYPE="text/plain", HTTP_X_ONE="1")
    assert build_scope(environ) == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/a/b",
        "raw_path": b"/a/b",
        "query_string": b"c=d",
        "root_path": "",
        "headers": [(b"host", b"testserver"), (b"content-type", b"text/plain"), (b"x-one", b"1")],
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 54321),
        "extensions": {},
        "wsgi_environ": environ,
    }
