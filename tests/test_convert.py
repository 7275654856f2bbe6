"""Either class name takes either kind of app; `to_asgi` and `to_wsgi` make a bridge only where one is needed."""

from __future__ import annotations

import inspect
import json
import pydoc
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

import a2wsgi
from a2wsgi import AppInterfaceError, ASGIMiddleware, Interface, WSGIMiddleware, interface_of, to_asgi, to_wsgi
from a2wsgi.asgi_typing import Receive, Scope, Send
from a2wsgi.wsgi_typing import Environ, StartResponse
from support import asgi_driver, wsgi_driver

HELLO = b"Hello, /there?a=1"
#: No two classes of one, as types are to a checker: which of them comes out is the test.
EITHER: list[Any] = [WSGIMiddleware, ASGIMiddleware]


def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Tells its path and query."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"Hello, {environ['PATH_INFO']}?{environ['QUERY_STRING']}".encode()]


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    """The same."""
    if scope["type"] == "lifespan":
        raise RuntimeError("unknown")
    body = f"Hello, {scope['path']}?{scope['query_string'].decode()}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


def asgi2_app(scope: Scope) -> Callable[[Receive, Send], Any]:
    """The same."""

    async def instance(receive: Receive, send: Send) -> None:
        await asgi_app(scope, receive, send)

    return instance


def silent_app(*args: Any) -> Any:
    """WSGI for two arguments, ASGI 3 for three; nothing shows it."""
    return wsgi_app(*args) if len(args) == len(("environ", "start_response")) else asgi_app(*args)


# -- Real frameworks --------------------------------------------------------------------------------------------------


def flask_app() -> Any:
    """The same, by Flask."""
    flask = pytest.importorskip("flask")
    app = flask.Flask("shop")
    app.add_url_rule("/there", view_func=lambda: f"Hello, {flask.request.path}?{flask.request.query_string.decode()}")
    return app


def starlette_app() -> Any:
    """The same, by Starlette."""
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def there(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"Hello, {request.url.path}?{request.url.query}")

    return Starlette(routes=[Route("/there", there)])


def fastapi_app() -> Any:
    """The same, by FastAPI."""
    pytest.importorskip("fastapi")
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI()

    @app.get("/there", response_class=PlainTextResponse)
    async def there(a: int) -> str:
        return f"Hello, /there?a={a}"

    return app


def configure_django() -> None:
    """Set Django up, unless a test before has: there is one setup a process, so the URLs are swapped in by each."""
    django = pytest.importorskip("django")
    from django.conf import settings

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="x", USE_TZ=True, LOGGING_CONFIG=None, MIDDLEWARE=[])
        django.setup()


def django_urls() -> tuple[Any, ...]:
    """Those of Django's app."""
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def there(request: HttpRequest) -> Any:
        return HttpResponse(f"Hello, {request.path}?{request.META['QUERY_STRING']}".encode(), content_type="text/plain")

    return (path("there", there),)


def django_wsgi_app() -> Any:
    """The same, by Django."""
    configure_django()
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


def django_asgi_app() -> Any:
    """The same, by Django."""
    configure_django()
    from django.core.asgi import get_asgi_application

    return get_asgi_application()


WSGI_APPS: list[Callable[[], Any]] = [lambda: wsgi_app, flask_app, django_wsgi_app]
ASGI_APPS: list[Callable[[], Any]] = [lambda: asgi_app, starlette_app, fastapi_app, django_asgi_app]
NAMES = ["function", "flask", "django"]
ASGI_NAMES = ["function", "starlette", "fastapi", "django"]


@pytest.fixture(autouse=True)
def _urls_of_django(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have Django answer as the other apps do."""
    if "django" not in request.node.name:
        yield
        return
    configure_django()
    from django.test.utils import override_settings
    from django.urls import clear_url_caches

    clear_url_caches()
    with override_settings(ROOT_URLCONF=django_urls()):
        yield
    clear_url_caches()


def over_asgi(app: Any) -> tuple[int, bytes]:
    """What an ASGI app answers to the request that all apps here know."""
    response = asgi_driver.call(app, asgi_driver.Client(strict=False), asgi_driver.http_scope(target="/there?a=1"))
    return response.status, b"".join(message.get("body", b"") for message in response.messages[1:])


def over_wsgi(app: Any) -> tuple[str | None, bytes]:
    """What a WSGI app answers to it."""
    response = wsgi_driver.call(app, wsgi_driver.environ_of(path="/there", QUERY_STRING="a=1"))
    return response.status, response.body


# -- The table of both names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bridge", EITHER)
@pytest.mark.parametrize("make", WSGI_APPS, ids=NAMES)
def test_wsgi_app_becomes_an_asgi_app_under_either_name(bridge: Any, make: Callable[[], Any]) -> None:
    """It is a `WSGIMiddleware`, whose ``__call__`` is a coroutine function: so servers know it for ASGI 3."""
    app: Any = bridge(make())
    assert type(app) is WSGIMiddleware
    assert interface_of(app) == "asgi3"
    assert inspect.iscoroutinefunction(app.__call__)
    assert over_asgi(app) == (200, HELLO)


@pytest.mark.parametrize("bridge", EITHER)
@pytest.mark.parametrize("make", ASGI_APPS, ids=ASGI_NAMES)
def test_asgi_app_becomes_a_wsgi_app_under_either_name(bridge: Any, make: Callable[[], Any]) -> None:
    """It is an `ASGIMiddleware`, whose ``__call__`` is no coroutine function."""
    app: Any = bridge(make())
    assert type(app) is ASGIMiddleware
    assert interface_of(app) == "wsgi"
    assert not inspect.iscoroutinefunction(app.__call__)
    with app:
        assert over_wsgi(app) == ("200 OK", HELLO)


@pytest.mark.parametrize("bridge", EITHER)
def test_asgi_2_app_becomes_a_wsgi_app_under_either_name(bridge: Any) -> None:
    """The double callable is called as such."""
    with bridge(asgi2_app) as app:
        assert type(app) is ASGIMiddleware
        assert over_wsgi(app) == ("200 OK", HELLO)


@pytest.mark.parametrize("bridge", EITHER)
def test_app_may_be_passed_by_its_name(bridge: Any) -> None:
    """``app=`` is as good as the first place, for both kinds."""
    wrapped, served = bridge(app=wsgi_app, workers=2), bridge(app=asgi_app, wait_time=1.0)
    assert (type(wrapped), wrapped.app) == (WSGIMiddleware, wsgi_app)
    assert (type(served), served.app) == (ASGIMiddleware, asgi_app)


@pytest.mark.parametrize("bridge", EITHER)
def test_options_of_1_10_10_may_be_passed_by_their_place(bridge: Any) -> None:
    """They are those of the bridge that comes out."""
    assert type(bridge(wsgi_app, 3, 10)) is WSGIMiddleware
    assert type(bridge(asgi_app, 1.5, None)) is ASGIMiddleware


@pytest.mark.parametrize("bridge", EITHER)
def test_option_of_the_other_direction_is_a_type_error(bridge: Any) -> None:
    """Whatever the name, the app decides what the options are."""
    with pytest.raises(TypeError, match="wait_time"):
        bridge(wsgi_app, wait_time=1.0)
    with pytest.raises(TypeError, match="workers"):
        bridge(asgi_app, workers=1)
    with pytest.raises(TypeError, match="nonsense"):
        bridge(asgi_app, nonsense=1)


@pytest.mark.parametrize("bridge", EITHER)
def test_bridge_without_an_app_is_a_type_error(bridge: Any) -> None:
    """Python's own words say that ``app`` is missing."""
    with pytest.raises(TypeError, match="'app'"):
        bridge()


def test_silent_app_goes_by_the_name_of_the_class() -> None:
    """As in 1.10.10: what a signature of ``*args`` does not say, the user has said."""
    wrapped: Any = WSGIMiddleware(silent_app)
    served: Any = ASGIMiddleware(silent_app)
    assert type(wrapped) is WSGIMiddleware
    assert over_asgi(wrapped) == (200, HELLO)
    with served:
        assert type(served) is ASGIMiddleware
        assert over_wsgi(served) == ("200 OK", HELLO)


@pytest.mark.parametrize("bridge", EITHER)
@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (None, "None is not an app. "),
        ("shop:app", "'shop:app' is a string, not an app. "),
        (json, "json is a module, not an app. "),
        (dict, "dict is a class, not an app. "),
        (lambda: None, "takes (), but servers pass "),
    ],
    ids=["None", "str", "module", "class", "factory"],
)
def test_what_is_no_app_is_refused_by_either_name(bridge: Any, thing: Any, message: str) -> None:
    """At once, with the words of `interface_of`; and so by `to_asgi` and `to_wsgi`."""
    for convert in (bridge, to_asgi, to_wsgi):
        with pytest.raises(AppInterfaceError) as told:
            convert(thing)
        assert message in str(told.value)


@pytest.mark.parametrize("bridge", EITHER)
def test_constructors_never_unwrap(bridge: Any) -> None:
    """A bridge is an app of the other kind: its bridge is one more, and not the app inside."""
    pair, other_pair = bridge(ASGIMiddleware(asgi_app)), bridge(WSGIMiddleware(wsgi_app))
    assert (type(pair), type(pair.app), pair.app.app) == (WSGIMiddleware, ASGIMiddleware, asgi_app)
    assert (type(other_pair), type(other_pair.app), other_pair.app.app) == (ASGIMiddleware, WSGIMiddleware, wsgi_app)


# -- Called by the wrong server ---------------------------------------------------------------------------------------


def environ_and_start() -> tuple[Any, Any]:
    """What a WSGI server calls an app with."""
    return wsgi_driver.environ_of(), lambda *args: None


def scope_and_more() -> tuple[Any, Any, Any]:
    """What an ASGI server calls an app with."""

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None: ...

    return asgi_driver.http_scope(), receive, send


def told(call: Callable[..., Any], *args: Any) -> str:
    """The text of the error that is raised at once."""
    with pytest.raises(AppInterfaceError) as raised:
        call(*args)
    return str(raised.value)


class Plain(WSGIMiddleware):
    pass


@pytest.mark.parametrize("bridge", [WSGIMiddleware, Plain])
def test_asgi_app_says_that_a_wsgi_server_called_it(bridge: Any) -> None:
    """The call raises, so that the server sees it; and the line that is given mends it."""
    app = bridge(wsgi_app)
    assert told(app, *environ_and_start()) == (
        f"This {bridge.__name__} is an ASGI app, but was called by a WSGI server or framework: it turns "
        f"the WSGI app {__name__}.wsgi_app into an ASGI app. Write application = a2wsgi.to_wsgi(app) instead, where "
        f"app is what the {bridge.__name__} wraps."
    )
    assert over_wsgi(to_wsgi(app.app)) == ("200 OK", HELLO)


@pytest.mark.parametrize("count", [1, 3])
def test_wsgi_app_says_that_an_asgi_server_called_it(count: int) -> None:
    """With three arguments, or with one: servers take what is not async for ASGI 2."""
    app: Any = ASGIMiddleware(asgi_app)
    assert told(app, *scope_and_more()[:count]) == (
        "This ASGIMiddleware is a WSGI app, but was called by an ASGI server or framework: it turns the "
        f"ASGI app {__name__}.asgi_app into a WSGI app. Write application = a2wsgi.to_asgi(app) instead, where app is "
        "what the ASGIMiddleware wraps."
    )
    assert over_asgi(to_asgi(app.app)) == (200, HELLO)


@pytest.mark.parametrize("bridge", EITHER)
def test_app_that_was_wrapped_twice_says_so(bridge: Any) -> None:
    """The second bridge undoes the first: what comes out is of the kind that the server does not call."""
    twice = bridge(WSGIMiddleware(wsgi_app))
    text = told(twice, *scope_and_more())
    assert text == (
        "This ASGIMiddleware is a WSGI app, but was called by an ASGI server or framework: it wraps another bridge, "
        "a2wsgi.WSGIMiddleware object, but one bridge is enough. Write application = a2wsgi.to_asgi(app) instead, "
        "where app is what the ASGIMiddleware wraps."
    )
    assert over_asgi(to_asgi(twice.app)) == (200, HELLO)
    twice = bridge(ASGIMiddleware(asgi_app))
    assert "it wraps another bridge, a2wsgi.ASGIMiddleware object" in told(twice, *environ_and_start())
    assert over_wsgi(to_wsgi(twice.app)) == ("200 OK", HELLO)


@pytest.mark.parametrize(
    ("app", "args", "message"),
    [
        (
            WSGIMiddleware(wsgi_app),
            ({"type": "http"},),
            (
                "This WSGIMiddleware is an ASGI app, but was called with 1 argument. Servers call it with (scope, "
                "receive, send)."
            ),
        ),
        (WSGIMiddleware(wsgi_app), (3, 4), "with 2 arguments. Servers call it with (scope, receive, send)."),
        (ASGIMiddleware(asgi_app), ({},), "with 1 argument. Servers call it with (environ, start_response)."),
        (ASGIMiddleware(asgi_app), ({}, 1, 2), "with 3 arguments. Servers call it with (environ, start_response)."),
    ],
)
def test_other_calls_say_what_a_bridge_is_called_with(app: Any, args: tuple[Any, ...], message: str) -> None:
    """Nothing is guessed of a caller that is neither kind of server."""
    assert told(app, *args).endswith(message)


def test_no_private_name_is_shown() -> None:
    """In what Python itself says of a bridge: its errors, the ``repr`` of what it returns, and its warnings."""
    wrapped: Any = WSGIMiddleware(wsgi_app)
    served: Any = ASGIMiddleware(asgi_app)
    for app in (wrapped, served):
        with pytest.raises(TypeError, match=rf"^{type(app).__name__}\.__call__\(\) missing 1 required"):
            app()
        assert repr(app.__call__).startswith(f"<bound method {type(app).__name__}.__call__ of <")
        for name in dir(app):
            method = inspect.getattr_static(app, name)
            if inspect.isfunction(method) or name == "__call__":
                assert not method.__qualname__.startswith("_")
    for scope in ({"type": "lifespan"}, {"type": "http"}):
        coroutine = wrapped(scope, None, None)
        assert coroutine.__qualname__.startswith("WSGIMiddleware.")
        coroutine.close()
    assert "a2wsgi._front._" not in repr(to_asgi(asgi2_app))


def test_request_is_made_in_the_task_that_answers_it() -> None:
    """A framework may make the coroutine in one task, or in none, and await it in another."""
    client = asgi_driver.Client()
    app: Any = WSGIMiddleware(wsgi_app)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    coroutine = app(asgi_driver.http_scope(target="/there?a=1"), client.receive, send)
    asgi_driver.run(coroutine)
    assert (sent[0]["status"], b"".join(message["body"] for message in sent[1:])) == (200, HELLO)


def test_call_may_be_made_through_the_class_and_by_name() -> None:
    """As wrappers of methods do."""
    app: Any = WSGIMiddleware(wsgi_app)

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        await WSGIMiddleware.__call__(app, scope=scope, receive=receive, send=send)

    assert over_asgi(called) == (200, HELLO)
    assert inspect.iscoroutinefunction(WSGIMiddleware.__call__)
    assert inspect.iscoroutinefunction(Counted.__call__)
    assert not inspect.iscoroutinefunction(ASGIMiddleware.__call__)
    served: Any = ASGIMiddleware(asgi_app)
    with served:
        assert over_wsgi(
            lambda environ, start: ASGIMiddleware.__call__(served, environ=environ, start_response=start)
        ) == ("200 OK", HELLO)


# -- Subclasses -------------------------------------------------------------------------------------------------------


class Counted(WSGIMiddleware):
    """As users write it: another constructor, and a call of the one that is inherited."""

    def __init__(self, name: str, *, of: Any) -> None:
        super().__init__(of, workers=3)
        self.name = name
        self.calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        await super().__call__(scope, receive, send)


class Named(ASGIMiddleware):
    """The same of the other direction."""

    def __init__(self, name: str, *, of: Any) -> None:
        super().__init__(of, wait_time=1.0)
        self.name = name

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["PATH_INFO"] = "/there"
        return super().__call__(environ, start_response)


def test_subclass_may_have_any_constructor_and_call_what_it_inherits() -> None:
    """The kind of the app is looked at where the constructor of ours is called, and nowhere before."""
    counted = Counted("a", of=wsgi_app)
    assert over_asgi(counted) == (200, HELLO)
    assert (type(counted), counted.calls, counted.name, counted.app) == (Counted, 1, "a", wsgi_app)
    with Named("b", of=asgi_app) as named:
        assert wsgi_driver.call(named, wsgi_driver.environ_of(path="/x", QUERY_STRING="a=1")).body == HELLO
        assert (type(named), named.name, named.app) == (Named, "b", asgi_app)


def test_subclass_without_a_constructor_takes_what_the_bridge_takes() -> None:
    """Its instances are of the subclass."""
    subclass = type("Plain", (WSGIMiddleware,), {})
    app = subclass(wsgi_app, 2, request_buffer_bytes=1)
    assert type(app) is subclass
    assert over_asgi(app) == (200, HELLO)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Counted("a", of=asgi_app),
            (
                f"Counted wraps WSGI apps, but {__name__}.asgi_app is an ASGI app. A subclass cannot become the other "
                "bridge. Wrap the app in ASGIMiddleware, or call to_asgi or to_wsgi."
            ),
        ),
        (
            lambda: Counted("a", of=asgi2_app),
            (
                f"Counted wraps WSGI apps, but {__name__}.asgi2_app is an ASGI app. A subclass cannot become the other "
                "bridge. Wrap the app in ASGIMiddleware, or call to_asgi or to_wsgi."
            ),
        ),
        (
            lambda: Named("b", of=wsgi_app),
            (
                f"Named wraps ASGI apps, but {__name__}.wsgi_app is a WSGI app. A subclass cannot become the other "
                "bridge. Wrap the app in WSGIMiddleware, or call to_asgi or to_wsgi."
            ),
        ),
    ],
    ids=["asgi3", "asgi2", "wsgi"],
)
def test_subclass_refuses_the_wrong_kind(make: Callable[[], Any], message: str) -> None:
    """It cannot become the other bridge, so it says what can."""
    with pytest.raises(AppInterfaceError) as told:
        make()
    assert str(told.value) == message


OPTIONS_OF_WSGI = (
    "(app, workers=None, send_queue_size=None, *, request_buffer_bytes=65536, response_buffer_bytes=65536, "
    "spool_request=False, max_request_bytes=None, max_queue=None, max_websockets=None, app_timeout=None, "
    "send_timeout=300.0, receive_timeout=60.0, shutdown_timeout=30.0, script_name=None, multiprocess=None, "
    "ignore_disconnect=False, allow_underscores=False)"
)
OPTIONS_OF_ASGI = (
    "(app, wait_time=None, loop=None, *, detach_background=False, inline=False, backend='asyncio', lifespan=None, "
    "response_buffer_bytes=65536, app_timeout=None, receive_timeout=60.0, grace_timeout=10.0, startup_timeout=60.0, "
    "shutdown_timeout=10.0, max_websockets=None, websocket_max_message_bytes=16777216, "
    "websocket_ping_interval=20.0, websocket_ping_timeout=20.0, websocket_compression=True)"
)


def signature_of(thing: Any) -> str:
    """What `inspect` tells of it, without the types."""
    signature = inspect.signature(thing)
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


@pytest.mark.parametrize(("bridge", "options"), [(WSGIMiddleware, OPTIONS_OF_WSGI), (ASGIMiddleware, OPTIONS_OF_ASGI)])
def test_class_shows_its_options(bridge: type, options: str) -> None:
    """To `inspect` and to ``help()``, though it takes either kind of app."""
    assert signature_of(bridge) == options
    assert signature_of(type("Plain", (bridge,), {})) == options
    # Python 3.13 breaks a long signature into lines.
    assert re.search(rf"\|  {bridge.__name__}\([\s|]*app: ", pydoc.plain(pydoc.render_doc(bridge)))


def test_subclass_and_instance_show_a_signature_of_their_own() -> None:
    """That of the constructor that is called, and that of the call of an app."""

    class Making(WSGIMiddleware):
        def __new__(cls, name: str) -> Any:
            return super().__new__(cls, wsgi_app)

    assert signature_of(Counted) == signature_of(Named) == "(name, *, of)"
    assert signature_of(Making) == "(name)"
    assert signature_of(WSGIMiddleware(wsgi_app)) == "(scope, receive, send)"
    assert signature_of(ASGIMiddleware(asgi_app)) == "(environ, start_response)"


# -- to_asgi and to_wsgi ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ASGI_APPS, ids=ASGI_NAMES)
def test_to_asgi_leaves_an_asgi_app_as_it_is(make: Callable[[], Any]) -> None:
    """The very same object: no bridge costs nothing."""
    app = make()
    assert to_asgi(app) is app


@pytest.mark.parametrize("make", WSGI_APPS, ids=NAMES)
def test_to_wsgi_leaves_a_wsgi_app_as_it_is(make: Callable[[], Any]) -> None:
    """As above."""
    app = make()
    assert to_wsgi(app) is app


@pytest.mark.parametrize("make", WSGI_APPS, ids=NAMES)
def test_to_asgi_bridges_a_wsgi_app(make: Callable[[], Any]) -> None:
    """With the options that it is given."""
    app: Any = to_asgi(make(), workers=1)
    assert type(app) is WSGIMiddleware
    assert over_asgi(app) == (200, HELLO)
    assert app.statistics().workers == 1


@pytest.mark.parametrize("make", ASGI_APPS, ids=ASGI_NAMES)
def test_to_wsgi_bridges_an_asgi_app(make: Callable[[], Any]) -> None:
    """With the options that it is given."""
    app: Any = to_wsgi(make(), inline=True)
    with app:
        assert type(app) is ASGIMiddleware
        assert over_wsgi(app) == ("200 OK", HELLO)


def test_to_asgi_adapts_an_asgi_2_app() -> None:
    """ASGI, "Legacy Applications": no thread is needed for it, so it gets no bridge."""
    app = to_asgi(asgi2_app)
    assert not isinstance(app, WSGIMiddleware | ASGIMiddleware)
    assert interface_of(app) == "asgi3"
    assert over_asgi(app) == (200, HELLO)
    assert to_asgi(app) is app


def test_bridge_around_the_wanted_kind_is_taken_off() -> None:
    """One that only leads away from what is wanted, and back by a second, is none."""
    assert to_wsgi(WSGIMiddleware(wsgi_app)) is wsgi_app
    assert to_asgi(ASGIMiddleware(asgi_app)) is asgi_app
    assert over_asgi(to_asgi(ASGIMiddleware(asgi2_app))) == (200, HELLO)


def test_bridge_around_a_bridge_is_taken_off_alone() -> None:
    """What is inside has the wanted interface, and stays as it is."""
    inner, other_inner = WSGIMiddleware(wsgi_app), ASGIMiddleware(asgi_app)
    assert to_asgi(ASGIMiddleware(inner)) is inner
    assert to_wsgi(WSGIMiddleware(other_inner)) is other_inner


def test_bridge_around_a_silent_app_has_said_of_what_kind_that_is() -> None:
    """So it can be taken off, though `interface_of` would not tell the app inside."""
    assert to_wsgi(WSGIMiddleware(silent_app)) is silent_app
    assert to_asgi(ASGIMiddleware(silent_app)) is silent_app


def test_subclass_of_a_bridge_is_never_taken_off() -> None:
    """It may do more than bridge: it is bridged as any other app."""
    counted, named = Counted("a", of=wsgi_app), Named("b", of=asgi_app)
    assert to_asgi(counted) is counted
    assert to_wsgi(named) is named
    around, other_around = to_wsgi(counted), to_asgi(named)
    assert isinstance(around, ASGIMiddleware)
    assert isinstance(other_around, WSGIMiddleware)
    assert (around.app, other_around.app) == (counted, named)


@pytest.mark.parametrize("app", [wsgi_app, asgi_app, WSGIMiddleware(wsgi_app), ASGIMiddleware(asgi_app)])
def test_options_are_checked_whether_a_bridge_is_made_or_not(app: Any) -> None:
    """A typing error in an option is found before the day on which the app's kind changes."""
    # Any: type checkers know of these, too.
    wait_time: Any = {"wait_time": 1.0}
    workers: Any = {"workers": 1}
    another_app: Any = {"app": wsgi_app}
    with pytest.raises(TypeError, match="wait_time"):
        to_asgi(app, **wait_time)
    with pytest.raises(TypeError, match="workers"):
        to_wsgi(app, **workers)
    with pytest.raises(TypeError, match="two apps"):
        to_asgi(app, **another_app)


def test_wrong_value_of_an_option_is_the_bridge_s_to_refuse() -> None:
    """As its constructor does."""
    with pytest.raises(ValueError, match="workers=0"):
        to_asgi(wsgi_app, workers=0)


@pytest.mark.parametrize("convert", [to_asgi, to_wsgi])
def test_silent_app_is_refused_with_both_names(convert: Callable[[Any], Any]) -> None:
    """There is no class name to decide, so the error tells of both."""
    with pytest.raises(AppInterfaceError) as told:
        convert(silent_app)
    assert str(told.value) == (
        f"{__name__}.silent_app is not async and takes (*args), which could be WSGI or ASGI. Wrap it in "
        "WSGIMiddleware if it is a WSGI app, or in ASGIMiddleware if it is an ASGI app."
    )


@pytest.mark.parametrize("app", [wsgi_app, asgi_app, asgi2_app])
def test_converting_again_changes_nothing(app: Any) -> None:
    """Whatever the way, an app ends under one bridge or none."""
    there_and_back: list[tuple[Interface, Any]] = [("asgi3", to_asgi(to_wsgi(app))), ("wsgi", to_wsgi(to_asgi(app)))]
    for interface, converted in there_and_back:
        assert interface_of(converted) == interface
        assert not isinstance(getattr(converted, "app", None), WSGIMiddleware | ASGIMiddleware)


def test_public_names_are_those_that_the_package_says() -> None:
    """Each can be imported from ``a2wsgi``, and is documented."""
    for name in a2wsgi.__all__:
        assert name in {"__version__", "Interface"} or getattr(a2wsgi, name).__doc__
