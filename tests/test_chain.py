"""`chain`: middleware of both kinds around an app of either, in any order, over the fewest bridges.

What one stack answers is the same whatever the order and whatever the server: so a test compares the orders with each
other, and with what each middleware is there for.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import inspect
import itertools
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from a2wsgi import (
    AppInterfaceError,
    ASGIMiddleware,
    LifespanFailed,
    WSGIMiddleware,
    chain,
    interface_of,
    to_asgi,
    to_wsgi,
)
from a2wsgi.asgi_typing import Receive, Scope, Send
from a2wsgi.wsgi_typing import Environ, StartResponse
from support import asgi_driver, wsgi_driver

TEXT = "The quick brown fox jumps over the lazy dog. " * 40
#: As a client sends them, by way of a proxy: two headers of cookies, one that is repeated, an address to be trusted.
HEADERS = [
    (b"host", b"shop.example"),
    (b"accept-encoding", b"gzip"),
    (b"cookie", b"a=1"),
    (b"cookie", b"b=2"),
    (b"x-tag", b"one"),
    (b"x-tag", b"two"),
    (b"x-forwarded-for", b"203.0.113.9"),
    (b"origin", b"https://elsewhere.example"),
]


# -- Apps that tell what reaches them ---------------------------------------------------------------------------------


def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Tells the request, in words that both interfaces have."""
    told = {
        "method": environ["REQUEST_METHOD"],
        "path": environ["SCRIPT_NAME"] + environ["PATH_INFO"],
        "query": environ["QUERY_STRING"],
        "client": environ["REMOTE_ADDR"],
        "host": environ["HTTP_HOST"],
        "body": environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode(),
        "text": TEXT,
    }
    start_response("200 OK", [("Content-Type", "application/json"), ("X-App", "one"), ("X-App", "two")])
    return [json.dumps(told).encode()]


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    """The same."""
    if scope["type"] == "lifespan":
        raise RuntimeError("unknown")
    body = b""
    more = True
    while more:
        message = await receive()
        body += message["body"]
        more = message.get("more_body", False)
    told = {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "client": scope["client"][0],
        "host": dict(scope["headers"])[b"host"].decode(),
        "body": body.decode(),
        "text": TEXT,
    }
    headers = [(b"content-type", b"application/json"), (b"x-app", b"one"), (b"x-app", b"two")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


# -- Middleware as functions ------------------------------------------------------------------------------------------


def wsgi_tag(app: Any, name: str = "wsgi") -> Any:
    """A WSGI middleware that tells that it was there."""

    def tagged(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("X-Through", name)], exc_info)

        result: Iterable[bytes] = app(environ, start)
        return result

    return tagged


def asgi_tag(app: Any, name: str = "asgi") -> Any:
    """The same of ASGI."""

    async def tagged(scope: Scope, receive: Receive, send: Send) -> None:
        async def tagging(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-through", name.encode())]}
            await send(message)

        await app(scope, receive, tagging)

    return tagged


def silent_tag(app: Any) -> Any:
    """A middleware of either kind, as decorators are: it passes on what it is called with."""

    def tagged(*args: Any) -> Any:
        return app(*args)

    return tagged


def layers(app: Any) -> Iterator[Any]:
    """The app and all that is beneath it, as attributes or in closures."""
    yield app
    cells = [cell.cell_contents for cell in getattr(app, "__closure__", None) or ()]
    held = [vars(app).get(name) for name in ("app", "application", "wsgi_app")] if hasattr(app, "__dict__") else []
    for beneath in (*cells, *held):
        if callable(beneath) and not isinstance(beneath, type):
            yield from layers(beneath)


def bridges(app: Any) -> list[type]:
    """The bridges in a stack, the outermost first."""
    return [type(layer) for layer in layers(app) if isinstance(layer, WSGIMiddleware | ASGIMiddleware)]


def answer(app: Any, target: str = "/there?a=1", method: str = "GET", body: bytes = b"") -> tuple[int, Any, bytes]:
    """The status, the headers and the body, over ASGI: the stack's own interface, or one bridge more."""
    headers = [*HEADERS, (b"content-length", b"%d" % len(body))] if body else HEADERS
    client = asgi_driver.Client(body, strict=False)
    response = asgi_driver.call(to_asgi(app), client, asgi_driver.http_scope(method, target, headers))
    sent = b"".join(message.get("body", b"") for message in response.messages[1:])
    return response.status, sorted((name.lower(), value) for name, value in response.headers), sent


@pytest.fixture(params=["wsgi", "asgi"])
def app(request: pytest.FixtureRequest) -> Any:
    """An app of each kind."""
    return {"wsgi": wsgi_app, "asgi": asgi_app}[request.param]


# -- Orders -----------------------------------------------------------------------------------------------------------


def test_no_middleware_is_the_app_itself(app: Any) -> None:
    """Nothing is around it."""
    assert chain(app) is app


def kinds_of(middleware: Sequence[Any]) -> str:
    """One letter for each."""
    return "".join("w" if item is wsgi_tag else "a" for item in middleware)


@pytest.mark.parametrize("length", range(5))
def test_functions_of_both_kinds_stand_in_any_order(app: Any, length: int) -> None:
    """Every order has as many bridges as there are changes of kind, and each function sees the response once."""
    for middleware in itertools.product((wsgi_tag, asgi_tag), repeat=length):
        stack = chain(app, *middleware)
        kinds = kinds_of(middleware) + ("w" if app is wsgi_app else "a")
        changes = [
            WSGIMiddleware if pair == "aw" else ASGIMiddleware
            for pair in map("".join, itertools.pairwise(kinds))
            if pair in {"aw", "wa"}
        ]
        assert bridges(stack) == changes
        assert interface_of(stack) == ("wsgi" if kinds[0] == "w" else "asgi3")
        if length > 2:
            continue  # the rest is more of the same, and each bridge is a thread
        through = sorted(b"wsgi" if item is wsgi_tag else b"asgi" for item in middleware)
        status, headers, body = answer(stack, method="POST", body=b"posted")
        assert status == 200
        assert headers == sorted(
            [
                (b"content-type", b"application/json"),
                # To what an ASGI app sends to an ASGI server nobody adds a length, whatever is in between.
                *([(b"content-length", b"%d" % len(body))] if app is wsgi_app else []),
                (b"x-app", b"one"),
                (b"x-app", b"two"),
                *((b"x-through", name) for name in through),
            ]
        )
        assert json.loads(body) == {
            "method": "POST",
            "path": "/there",
            "query": "a=1",
            "client": "127.0.0.1",
            "host": "shop.example",
            "body": "posted",
            "text": TEXT,
        }


def test_outermost_is_named_first() -> None:
    """As in Starlette's list of middleware: what is first sees the request first, and the response last."""
    stack = chain(wsgi_app, (wsgi_tag, ("outer",), {}), (asgi_tag, (), {"name": "middle"}), (wsgi_tag, ["inner"], {}))
    response = wsgi_driver.call(stack)
    assert response.headers is not None
    assert [value for name, value in response.headers if name.lower() == "x-through"] == ["inner", "middle", "outer"]


def proxy_fix() -> Any:
    """Werkzeug's: takes the client's address from a proxy's header."""
    from werkzeug.middleware.proxy_fix import ProxyFix

    return (ProxyFix, (), {"x_for": 1})


def dispatcher() -> Any:
    """Werkzeug's: has another app at a path."""
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    def other(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"other"]

    return (DispatcherMiddleware, ({"/other": other},), {})


def cors() -> Any:
    """Starlette's."""
    from starlette.middleware.cors import CORSMiddleware

    return (CORSMiddleware, (), {"allow_origins": ["*"]})


def gzip_() -> Any:
    """Starlette's."""
    from starlette.middleware.gzip import GZipMiddleware

    return GZipMiddleware


def session() -> Any:
    """Starlette's."""
    pytest.importorskip("itsdangerous")
    from starlette.middleware.sessions import SessionMiddleware

    return (SessionMiddleware, ["secret"], {})


def trusted_host() -> Any:
    """Starlette's, as a partial."""
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return functools.partial(TrustedHostMiddleware, allowed_hosts=["shop.example"])


WSGI_KINDS = {proxy_fix, dispatcher}
MAKERS = [proxy_fix, dispatcher, cors, gzip_, session, trusted_host]
# ProxyFix must come before what looks at the address, and a compressor before what reads a body: nothing here does.
ORDERS = [
    *itertools.permutations((proxy_fix, cors, gzip_)),
    *itertools.permutations((dispatcher, session, trusted_host)),
    tuple(MAKERS),
    tuple(reversed(MAKERS)),
    (cors, proxy_fix, gzip_, dispatcher, session),
]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "-".join(make.__name__.strip("_") for make in order))
def test_real_middleware_does_its_work_in_any_order(app: Any, order: tuple[Callable[[], Any], ...]) -> None:
    """The response is what each of them makes of it, over as many bridges as the kinds change."""
    pytest.importorskip("werkzeug")
    pytest.importorskip("starlette")
    stack = chain(app, *(make() for make in order))
    kinds = [*("wsgi" if make in WSGI_KINDS else "asgi3" for make in order), interface_of(app)]
    assert interface_of(stack) == kinds[0]
    assert len(bridges(stack)) == sum(outer != inner for outer, inner in itertools.pairwise(kinds))

    status, headers, body = answer(stack)
    assert status == 200
    fields = dict(headers)
    expected: dict[bytes, bytes] = {b"content-type": b"application/json", b"x-app": b"two"}
    if cors in order:
        expected |= {b"access-control-allow-origin": b"*"}
    if gzip_ in order:
        expected |= {b"content-encoding": b"gzip"}
        body = gzip.decompress(body)
    fields.pop(b"content-length", None)
    # Starlette joins what varies in the order of its middleware.
    vary = {name for name in fields.pop(b"vary", b"").split(b", ") if name}
    assert vary == {name for make, name in ((cors, b"Origin"), (gzip_, b"Accept-Encoding")) if make in order}
    assert fields == expected
    told = json.loads(body)
    assert told == {
        "method": "GET",
        "path": "/there",
        "query": "a=1",
        "client": "203.0.113.9" if proxy_fix in order else "127.0.0.1",
        "host": "shop.example",
        "body": "",
        "text": TEXT,
    }
    if dispatcher in order:
        assert answer(stack, "/other/x")[2] == b"other"  # too short to be worth compressing


@pytest.mark.parametrize("order", list(itertools.permutations(("whitenoise", "gzip", "proxy_fix"))), ids="-".join)
def test_whitenoise_serves_its_files_in_any_order(app: Any, order: tuple[str, ...], tmp_path: Path) -> None:
    """A file comes from WhiteNoise, all else from the app."""
    whitenoise = pytest.importorskip("whitenoise")
    pytest.importorskip("werkzeug")
    pytest.importorskip("starlette")
    (tmp_path / "robots.txt").write_text(TEXT)
    makers = {
        "whitenoise": (whitenoise.WhiteNoise, (), {"root": tmp_path}),
        "gzip": gzip_(),
        "proxy_fix": proxy_fix(),
    }
    stack = chain(app, *(makers[name] for name in order))
    kinds = [*("asgi3" if name == "gzip" else "wsgi" for name in order), interface_of(app)]
    assert len(bridges(stack)) == sum(outer != inner for outer, inner in itertools.pairwise(kinds))
    for target, text in (("/robots.txt", TEXT), ("/there", TEXT)):
        status, headers, body = answer(stack, target)
        body = gzip.decompress(body) if (b"content-encoding", b"gzip") in headers else body
        assert status == 200
        assert (body.decode() if target == "/robots.txt" else json.loads(body)["text"]) == text


# -- What a middleware wants ------------------------------------------------------------------------------------------


def test_class_is_made_once_and_function_at_most_twice() -> None:
    """A class shows what it wants; a function has to be tried, with the app as it is first."""
    made: list[Any] = []

    class Middleware:
        def __init__(self, app: Any) -> None:
            made.append(app)

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    chain(wsgi_app, Middleware)
    assert [type(app) for app in made] == [WSGIMiddleware]
    made.clear()
    chain(wsgi_app, functools.partial(functools.partial(Middleware)))
    assert [type(app) for app in made] == [WSGIMiddleware]
    made.clear()
    chain(wsgi_app, lambda app: Middleware(app))  # noqa: PLW0108  # a function that makes one
    assert [app if app is wsgi_app else type(app) for app in made] == [wsgi_app, WSGIMiddleware]
    made.clear()
    chain(asgi_app, lambda app: Middleware(app))  # noqa: PLW0108  # as above
    assert made == [asgi_app]


def test_call_of_a_class_may_be_inherited() -> None:
    """As Starlette's ``BaseHTTPMiddleware`` is meant to be used."""
    pytest.importorskip("starlette")
    from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
    from starlette.requests import Request
    from starlette.responses import Response

    class Through(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            response = await call_next(request)
            response.headers.append("x-through", "base")
            return response

    stack = chain(wsgi_app, Through, wsgi_tag)
    assert bridges(stack) == [WSGIMiddleware]
    status, headers, body = answer(stack)
    assert (status, json.loads(body)["path"]) == (200, "/there")
    assert [value for name, value in headers if name == b"x-through"] == [b"base", b"wsgi"]


def test_call_that_is_set_on_the_instance_is_found_by_its_result() -> None:
    """As Sentry's does, which has its ``__call__`` in a slot."""

    class Slotted:
        __slots__ = ("__call__", "app")

        def __init__(self, app: Any) -> None:
            self.app = app
            self.__call__ = self._run

        async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(scope, receive, send)

    stack = chain(wsgi_app, Slotted)
    assert type(stack.app) is WSGIMiddleware


class Picky:
    """Sentry's middleware, as to what it takes for ASGI 3: what is async. All else is ASGI 2 to it."""

    __slots__ = ("__call__", "app")

    def __init__(self, app: Any) -> None:
        self.app = app
        self.__call__ = self._asgi3 if inspect.iscoroutinefunction(app.__call__) or is_async(app) else self._asgi2

    def _asgi2(self, scope: Scope) -> Any:
        return self.app(scope)

    async def _asgi3(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def is_async(app: Any) -> bool:
    """Whether it is a function that is."""
    return inspect.iscoroutinefunction(app)


def sentry() -> Any:
    """Sentry's own."""
    return pytest.importorskip("sentry_sdk.integrations.asgi").SentryAsgiMiddleware


def function_of(make: Any) -> Any:
    """A function that makes one."""

    def wrap(app: Any) -> Any:
        return make(app)

    return wrap


@pytest.mark.parametrize("form", [lambda make: make, function_of, functools.partial], ids=["class", "def", "partial"])
@pytest.mark.parametrize("make", [lambda: Picky, sentry], ids=["stand-in", "sentry"])
def test_middleware_that_tells_nothing_is_given_an_asgi_3_app(app: Any, make: Any, form: Any) -> None:
    """Else what takes each app that is not async for ASGI 2 would make an ASGI 2 stack."""
    middleware = form(make())
    for stack in (chain(app, middleware), chain(app, middleware, wsgi_tag), chain(app, asgi_tag, middleware)):
        assert interface_of(stack) == "asgi3"
        assert answer(stack)[0] == 200
    assert interface_of(chain(app, wsgi_tag, middleware)) == "wsgi"
    inside = chain(app, middleware).app
    assert type(inside) is WSGIMiddleware if app is wsgi_app else inside is app


def test_class_of_either_kind_is_tried_with_asgi_3_and_then_with_wsgi() -> None:
    """By what its instances turn out to be, each made once for a kind."""
    made: list[Any] = []

    class Slotted:
        __slots__ = ("__call__", "app")

        def __init__(self, app: Any) -> None:
            made.append(type(app))
            self.app = app
            self.__call__ = self._run

        def _run(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            result: Iterable[bytes] = self.app(environ, start_response)
            return result

    stack = chain(wsgi_app, Slotted)
    assert (interface_of(stack), stack.app) == ("wsgi", wsgi_app)
    assert made == [WSGIMiddleware, type(wsgi_app)]
    assert type(chain(asgi_app, Slotted).app) is ASGIMiddleware


def test_silent_class_is_of_the_kind_of_what_is_beneath_it(app: Any) -> None:
    """As Werkzeug's ``LintMiddleware``, which takes ``*args``."""

    class Silent:
        def __init__(self, app: Any) -> None:
            self.app = app

        def __call__(self, *args: Any) -> Any:
            return self.app(*args)

    stack = chain(app, asgi_tag, wsgi_tag, Silent, Silent)
    assert bridges(stack) == [WSGIMiddleware] * 1 + ([] if app is wsgi_app else [ASGIMiddleware])
    assert answer(stack)[0] == 200
    silent = silent_tag(app)
    assert chain(silent, Silent).app is silent


def test_asgi_2_class_that_tells_nothing_gets_an_asgi_2_app(app: Any) -> None:
    """Where the result says ``scope`` alone, whatever it is given."""

    class Double:
        __slots__ = ("__call__", "app")

        def __init__(self, app: Any) -> None:
            self.app = app
            self.__call__ = self._run

        def _run(self, scope: Scope) -> Any:
            return self.app(scope)

    stack = chain(app, Double)
    assert interface_of(stack) == "asgi2"
    assert answer(stack)[0] == 200


def test_asgi_2_middleware_gets_an_asgi_2_app() -> None:
    """ASGI, "Legacy Applications": it calls what is beneath it twice."""

    class Double:
        def __init__(self, app: Any) -> None:
            self.app = app

        def __call__(self, scope: Scope) -> Callable[[Receive, Send], Awaitable[None]]:
            inner: Callable[[Receive, Send], Awaitable[None]] = self.app(scope)
            return inner

    for app in (wsgi_app, asgi_app):
        stack = chain(app, asgi_tag, Double, Double)
        status, headers, body = answer(stack)
        assert (status, json.loads(body)["path"]) == (200, "/there")
        assert (b"x-through", b"asgi") in headers


def test_silent_middleware_is_of_the_kind_of_what_is_beneath_it(app: Any) -> None:
    """It passes on what it is called with, so its own silence says nothing against it."""
    stack = chain(app, wsgi_tag, silent_tag, asgi_tag, silent_tag, silent_tag)
    assert bridges(stack) == ([ASGIMiddleware, WSGIMiddleware] if app is wsgi_app else [ASGIMiddleware])
    status, headers, _ = answer(chain(stack, asgi_tag))
    assert status == 200
    assert [value for name, value in headers if name == b"x-through"] == [b"asgi", b"asgi", b"wsgi"]


def test_bridge_by_its_name_converts_what_is_beneath_it() -> None:
    """`WSGIMiddleware` and `ASGIMiddleware` in a chain do what a call of them does: no pair comes of it."""
    for bridge in (WSGIMiddleware, ASGIMiddleware):
        stack = chain(wsgi_app, bridge)
        assert (type(stack), stack.app) == (WSGIMiddleware, wsgi_app)
        stack = chain(asgi_app, (bridge, (), {"wait_time": 1.0}))
        assert (type(stack), stack.app) == (ASGIMiddleware, asgi_app)
        assert bridges(chain(wsgi_app, asgi_tag, bridge, asgi_tag)) == [WSGIMiddleware]


@pytest.mark.parametrize("convert", [to_asgi, to_wsgi])
def test_conversion_may_stand_in_a_chain(app: Any, convert: Any) -> None:
    """Where it changes nothing it costs nothing."""
    stack = chain(app, asgi_tag, convert, asgi_tag)
    assert bridges(stack) == ([WSGIMiddleware] if app is wsgi_app else [])


def test_bridge_of_a_user_s_own_class_wants_what_it_bridges() -> None:
    """As a class, as a partial, and made by a function, which fails for the other kind."""

    class Mine(WSGIMiddleware):
        pass

    for make in (Mine, functools.partial(Mine, workers=1), lambda app: Mine(app, workers=1)):
        for app, beneath in ((wsgi_app, [Mine]), (asgi_app, [Mine, ASGIMiddleware])):
            stack = chain(app, make)
            assert bridges(stack) == beneath
            assert answer(stack)[0] == 200


def test_app_that_has_a_bridge_already_keeps_or_loses_it() -> None:
    """What stands around the wanted kind is taken off."""
    assert bridges(chain(WSGIMiddleware(wsgi_app), asgi_tag)) == [WSGIMiddleware]
    assert bridges(chain(WSGIMiddleware(wsgi_app), wsgi_tag)) == []
    assert bridges(chain(ASGIMiddleware(asgi_app), asgi_tag)) == []
    assert bridges(chain(ASGIMiddleware(asgi_app), wsgi_tag)) == [ASGIMiddleware]


def no_app(app: Any) -> None:
    """What forgets to return."""


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ((None,), "NoneType object is not middleware. Pass a callable that takes an app, or a tuple of "),
        (("cors",), "str object is not middleware. "),
        ((("cors", (), {}),), "tuple object is not middleware. "),
        (((wsgi_tag, {"name": "x"}),), "tuple object is not middleware. "),
        (((),), "tuple object is not middleware. "),
        ((no_app,), f"The middleware {__name__}.no_app returned something that is not an app. None is not an app."),
        (
            (functools.partial(no_app),),
            f"The middleware functools.partial of {__name__}.no_app returned something that is not an app. None is ",
        ),
    ],
)
def test_what_is_no_middleware_is_refused(app: Any, items: tuple[Any, ...], message: str) -> None:
    """The error says what was passed, and what is wanted."""
    with pytest.raises(AppInterfaceError) as told:
        chain(app, *items)
    assert str(told.value).startswith(message)


@pytest.mark.parametrize("items", [(), (wsgi_tag,)])
def test_what_is_no_app_is_refused(items: tuple[Any, ...]) -> None:
    """Also where there is no middleware to ask for a kind."""
    with pytest.raises(AppInterfaceError, match="None is not an app"):
        chain(None, *items)


def test_silent_app_is_refused_where_its_kind_matters() -> None:
    """With the names of both classes; wrapped in one of them, it is taken."""
    silent = silent_tag(wsgi_app)
    with pytest.raises(
        AppInterfaceError, match="in WSGIMiddleware if it is a WSGI app, or in ASGIMiddleware if it is an ASGI app"
    ):
        chain(silent, asgi_tag)
    assert bridges(chain(WSGIMiddleware(silent), wsgi_tag)) == []


# -- What reaches the innermost app -----------------------------------------------------------------------------------


class Inner:
    """An ASGI app with a lifespan: keeps what it gets.

    Args:
        refuses: The phase that it fails, if any.
    """

    def __init__(self, refuses: str | None = None) -> None:
        self.refuses = refuses
        self.events: list[str] = []
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        self.scopes.append(scope)
        scope["state"]["seen"] = True  # a copy: another request does not see it
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        for phase in ("startup", "shutdown"):
            message = await receive()
            assert message == {"type": f"lifespan.{phase}"}
            self.events.append(phase)
            if phase == self.refuses:
                await send({"type": f"lifespan.{phase}.failed", "message": "no database"})
                return
            if phase == "startup":
                scope["state"]["pool"] = "of the innermost"
            await send({"type": f"lifespan.{phase}.complete"})


def asgi_deaf(app: Any) -> Any:
    """ASGI middleware that keeps the lifespan to itself, and answers it."""

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})

    return deaf


class Server:
    """The side of an ASGI server that drives a lifespan around its requests."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._outbox: asyncio.Queue[Any] = asyncio.Queue()
        self.state: dict[str, Any] = {}

    async def __aenter__(self) -> Server:  # noqa: PYI034  # nobody subclasses it
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self._task = asyncio.ensure_future(self._app(scope, self._inbox.get, self._outbox.put))
        return self

    async def says(self, phase: str) -> Any:
        """What the app answers to a phase."""
        await self._inbox.put({"type": f"lifespan.{phase}"})
        answered = asyncio.ensure_future(self._outbox.get())
        await asyncio.wait({answered, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if answered.done():
            return answered.result()
        answered.cancel()
        return self._task.exception()

    async def __aexit__(self, *_: object) -> None:
        await asyncio.wait_for(self._task, 10)


MIXED = [
    (asgi_tag, wsgi_tag),
    (asgi_tag, wsgi_tag, asgi_tag),
    (asgi_tag, asgi_tag, wsgi_tag, wsgi_tag, asgi_tag, wsgi_tag),
    (asgi_deaf, wsgi_tag, asgi_deaf, wsgi_tag),
    (silent_tag, asgi_tag, silent_tag, wsgi_tag, silent_tag),
    (WSGIMiddleware, wsgi_tag),
]


@pytest.mark.parametrize("middleware", MIXED, ids=range(len(MIXED)))
def test_lifespan_and_state_reach_the_innermost_app(middleware: tuple[Any, ...]) -> None:
    """It starts with the server and not at the first request, once, and ends with the server."""
    inner = Inner()
    stack = chain(inner, *middleware)

    async def main() -> list[Any]:
        async with Server(stack) as server:
            answers = [await server.says("startup")]
            started = list(inner.events)
            server.state["of the server"] = 1
            scope = asgi_driver.http_scope(headers=HEADERS, state=dict(server.state))
            await asgi_driver.answer(stack, scope=scope)
            answers += [started, await server.says("shutdown")]
        return answers

    answers = asgi_driver.run(main())
    if middleware[0] is asgi_deaf:
        assert answers[1] == []
    else:
        assert answers == [{"type": "lifespan.startup.complete"}, ["startup"], {"type": "lifespan.shutdown.complete"}]
        assert inner.events == ["startup", "shutdown"]
    assert inner.scopes[0]["state"] == {"of the server": 1, "pool": "of the innermost", "seen": True}


def test_bridge_that_is_put_around_a_chain_by_hand_has_no_lifespan_to_pass_on() -> None:
    """Middleware hides what it wraps: the app starts at the first request, and ends when its bridge is closed."""
    inner = Inner()
    by_hand = WSGIMiddleware(chain(inner, wsgi_tag))

    async def main() -> list[Any]:
        async with Server(by_hand) as server:
            answers = [await server.says("startup"), list(inner.events)]
            await asgi_driver.answer(by_hand, scope=asgi_driver.http_scope())
            return [*answers, list(inner.events), await server.says("shutdown")]

    assert asgi_driver.run(main()) == [
        {"type": "lifespan.startup.complete"},
        [],
        ["startup"],
        {"type": "lifespan.shutdown.complete"},
    ]
    assert inner.events == ["startup"]
    close(by_hand)
    assert inner.events == ["startup", "shutdown"]


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
def test_failure_of_the_innermost_lifespan_reaches_the_server(phase: str) -> None:
    """In the app's own words, through two bridges and what is between."""
    inner = Inner(refuses=phase)
    stack = chain(inner, asgi_tag, wsgi_tag, asgi_tag, wsgi_tag)

    async def main() -> list[Any]:
        async with Server(stack) as server:
            return [await server.says(each) for each in ("startup", "shutdown")[: 1 + (phase == "shutdown")]]

    failed = {"type": f"lifespan.{phase}.failed", "message": f"The app's lifespan {phase} failed: no database"}
    assert asgi_driver.run(main())[-1] == failed
    assert inner.events == ["startup", "shutdown"][: 1 + (phase == "shutdown")]


def test_bridge_that_cannot_start_is_a_failed_startup() -> None:
    """Whatever the reason: here it was closed."""
    bridge = ASGIMiddleware(Inner())
    stack = chain(bridge, asgi_tag, wsgi_tag)
    bridge.close()

    async def main() -> Any:
        async with Server(stack) as server:
            return await server.says("startup")

    answer = asgi_driver.run(main())
    assert answer["type"] == "lifespan.startup.failed"
    assert answer["message"].startswith("The bridge was closed: ")


def test_lifespan_failure_of_one_app_ends_those_that_had_started() -> None:
    """A server whose startup failed leaves nothing running."""
    inner, outer = Inner(), Inner(refuses="startup")
    first, second = ASGIMiddleware(inner), ASGIMiddleware(outer)
    stack = WSGIMiddleware(wsgi_tag(first))
    stack.carry_lifespan([first, second])

    async def main() -> Any:
        async with Server(stack) as server:
            return await server.says("startup")

    assert asgi_driver.run(main()) == {
        "type": "lifespan.startup.failed",
        "message": "The app's lifespan startup failed: no database",
    }
    assert (inner.events, outer.events) == (["startup", "shutdown"], ["startup"])


def test_shutdown_failure_of_one_app_ends_the_others_all_the_same() -> None:
    """The server hears of the first failure."""
    inner, outer = Inner(), Inner(refuses="shutdown")
    first, second = ASGIMiddleware(inner), ASGIMiddleware(outer)
    stack = WSGIMiddleware(wsgi_tag(first))
    stack.carry_lifespan([first, second])

    async def main() -> Any:
        async with Server(stack) as server:
            await server.says("startup")
            return await server.says("shutdown")

    assert asgi_driver.run(main()) == {
        "type": "lifespan.shutdown.failed",
        "message": "The app's lifespan shutdown failed: no database",
    }
    assert (inner.events, outer.events) == (["startup", "shutdown"], ["startup", "shutdown"])


def test_wsgi_server_starts_the_innermost_app_at_the_first_request() -> None:
    """A WSGI server has no lifespan, so the outermost bridge drives it, down to the innermost."""
    inner = Inner()
    stack = chain(inner, wsgi_tag, asgi_tag, wsgi_tag, asgi_tag)
    assert inner.events == []
    assert wsgi_driver.call(stack).status == "204 No Content"
    assert inner.events == ["startup"]
    assert inner.scopes[0]["state"] == {"pool": "of the innermost", "seen": True}
    close(stack)
    assert inner.events == ["startup", "shutdown"]


def test_failed_startup_of_the_innermost_app_reaches_a_wsgi_server() -> None:
    """As the error of the first request."""
    stack = chain(Inner(refuses="startup"), wsgi_tag, asgi_tag, wsgi_tag, asgi_tag)
    raised = wsgi_driver.call(stack, fails=LifespanFailed).raised
    assert str(raised) == "The app's lifespan startup failed: no database"
    close(stack)


@pytest.mark.parametrize("middleware", MIXED[:3], ids=range(3))
def test_scope_reaches_the_innermost_app_whole(middleware: tuple[Any, ...]) -> None:
    """Repeated headers, their order and names, the raw path, the client and the extensions, through every bridge."""
    inner = Inner()
    scope = asgi_driver.http_scope(
        target="/a%2Fb/%C3%A9?q=%20", headers=HEADERS, extensions={"tls": {"version": 772}}, state={"one": 1}
    )
    stack = chain(inner, *middleware)
    asgi_driver.call(stack, scope=dict(scope))
    (seen,) = inner.scopes
    seen.pop("wsgi_environ", None)
    assert seen == {
        **scope,
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "extensions": {"tls": {"version": 772}, "http.response.pathsend": {}},  # the latter is the innermost bridge's
        "state": {"one": 1, "pool": "of the innermost", "seen": True},
    }
    close(stack)


def close(stack: Any) -> None:
    """Close the bridges to ASGI that a stack has."""
    for layer in layers(stack):
        if isinstance(layer, ASGIMiddleware):
            layer.close()


def test_environ_reaches_the_innermost_app_whole() -> None:
    """Keys that ASGI has no word for, too."""
    seen: list[Environ] = []

    def inner(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(dict(environ))
        start_response("204 No Content", [])
        return []

    environ = wsgi_driver.environ_of(
        path="/a\xc3\xa9", REQUEST_URI="/a%C3%A9", RAW_URI="/a%C3%A9", REMOTE_USER="anna", HTTP_X_TAG="one,two"
    )
    stack = chain(inner, wsgi_tag, asgi_tag, wsgi_tag)
    assert wsgi_driver.call(stack, dict(environ)).status == "204 No Content"
    (got,) = seen
    own = {key for key in got if key.startswith(("wsgi.", "asgi.", "a2wsgi."))}
    assert {key: value for key, value in got.items() if key not in own} == {
        key: value for key, value in environ.items() if not key.startswith("wsgi.")
    }
    close(stack)


def test_what_lies_between_may_change_the_request() -> None:
    """ProxyFix's address and prefix, and a header that is replaced, are what the innermost app gets."""
    pytest.importorskip("werkzeug")
    inner = Inner()

    def retag(app: Any) -> Any:
        def retagged(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            result: Iterable[bytes] = app({**environ, "HTTP_X_TAG": "three", "HTTP_X_NEW": "new"}, start_response)
            return result

        return retagged

    from werkzeug.middleware.proxy_fix import ProxyFix

    stack = chain(inner, asgi_tag, (ProxyFix, (1,), {"x_prefix": 1}), retag)
    headers = [*HEADERS, (b"x-forwarded-prefix", b"/shop")]
    asgi_driver.call(stack, scope=asgi_driver.http_scope(target="/a", headers=headers))
    (seen,) = inner.scopes
    assert (seen["client"], seen["root_path"], seen["path"]) == (("203.0.113.9", 54321), "/shop", "/shop/a")
    got: Mapping[bytes, bytes] = dict(seen["headers"])
    assert (got[b"x-tag"], got[b"x-new"]) == (b"three", b"new")
    assert [value for name, value in seen["headers"] if name == b"cookie"] == [b"a=1", b"b=2"]
    close(stack)
