"""What an app behind two bridges has back of the server, and the server of the app, that is not said in between."""

from __future__ import annotations

import asyncio
import contextlib
import io
from typing import Any

import pytest

from a2wsgi import ASGIMiddleware, WSGIMiddleware
from a2wsgi.asgi_typing import Receive, Scope, Send
from a2wsgi.wsgi_typing import Environ, StartResponse
from support import asgi_driver, wsgi_driver
from support.asgi_driver import Client
from support.lockstep import Signal

pytestmark = pytest.mark.usefixtures("runtime")


def seen_by_an_app(**environ: Any) -> Environ:
    """The environ that an app behind two bridges gets, of one that the server has made with these."""
    seen: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        seen.append(environ)
        start_response("204 No Content", [])
        return []

    with contextlib.closing(ASGIMiddleware(WSGIMiddleware(app))) as bridge:
        wsgi_driver.call(bridge, {**wsgi_driver.environ_of(), **environ})
    return seen[0]


def test_server_s_own_keys_reach_the_app() -> None:
    """The stream for errors is the server's, and so is what it says of its processes."""
    errors = io.StringIO()
    environ = seen_by_an_app(**{"wsgi.errors": errors, "wsgi.multiprocess": False, "wsgi.run_once": True})
    assert environ["wsgi.errors"] is errors
    assert (environ["wsgi.multiprocess"], environ["wsgi.run_once"]) == (False, True)


@pytest.mark.parametrize(
    ("script_name", "path_info"), [("/app", "foo"), ("/app", ""), ("", "/a/b"), ("/app/", "x"), ("/\xc3\xa4", "/\xe4")]
)
def test_path_is_cut_where_the_server_cut_it(script_name: str, path_info: str) -> None:
    """Also where no bridge would have cut it."""
    environ = seen_by_an_app(SCRIPT_NAME=script_name, PATH_INFO=path_info)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script_name, path_info)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_what_ends_a_server_is_the_server_s_to_have(error: BaseException) -> None:
    """An app that raises it on a WSGI server raises it there, whatever is in between."""

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        raise error

    with contextlib.closing(ASGIMiddleware(WSGIMiddleware(app))) as bridge, pytest.raises(type(error)) as raised:
        wsgi_driver.call(bridge, wsgi_driver.environ_of())
    assert raised.value is error


# -- What an ASGI app behind two bridges has, and its server ----------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
def test_error_after_the_response_is_raised_to_the_asgi_server(
    streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Starlette sends its error page and raises: the client has the page, the server the very same error."""
    error = ValueError("after the response")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": 500, "headers": []})
        for part in [b"pa", b"ge"] if streamed else []:
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"" if streamed else b"page"})
        raise error

    client = Client()
    with contextlib.closing(ASGIMiddleware(app)) as inner, pytest.raises(ValueError, match="after") as raised:
        asgi_driver.call(WSGIMiddleware(inner), client)
    assert raised.value is error
    assert client.sent[0]["status"] == 500
    assert b"".join(message.get("body", b"") for message in client.sent) == b"page"
    assert not client.sent[-1].get("more_body", False)
    assert [record for record in caplog.records if record.name == "a2wsgi"] == []


def test_names_with_underscores_reach_an_asgi_app() -> None:
    """They are dropped for WSGI alone, where one could forge its twin: the twin is not touched."""
    seen: list[list[tuple[bytes, bytes]]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        seen.append(scope["headers"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    headers = [(b"x_values", b"1"), (b"x-values", b"2"), (b"x_values", b"3")]
    with contextlib.closing(ASGIMiddleware(app)) as inner:
        asgi_driver.call(WSGIMiddleware(inner), Client(), asgi_driver.http_scope(headers=headers))
    assert seen == [[(b"host", b"testserver"), *headers]]


@pytest.mark.parametrize("reads", [0, 2, 5])
def test_stream_in_memory_is_left_where_the_app_left_it(reads: int) -> None:
    """A test client may send it a second time, after a redirect."""

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        environ["wsgi.input"].read(reads)
        start_response("204 No Content", [])
        return []

    environ = wsgi_driver.environ_of("POST", body=b"12345")
    environ["wsgi.input"] = stream = io.BytesIO(b"before12345after")
    stream.seek(len("before"))
    with contextlib.closing(ASGIMiddleware(WSGIMiddleware(app))) as bridge:
        wsgi_driver.call(bridge, environ)
    assert stream.read() == b"12345after"[reads:]


# A startup that raises and tells nothing is no failure: ASGI Lifespan 2.0, "Scope".
@pytest.mark.parametrize(("phase", "tells"), [("startup", True), ("shutdown", True), ("shutdown", False)])
def test_error_of_a_lifespan_is_raised_to_the_asgi_server(phase: str, tells: bool) -> None:
    """Once it was told in the app's own words, as Starlette does it."""
    error = ValueError("no database")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for step in ["startup", "shutdown"]:
            await receive()
            if step == phase:
                if tells:
                    await send({"type": f"lifespan.{step}.failed", "message": "it was told"})
                raise error
            await send({"type": f"lifespan.{step}.complete"})

    sent: list[dict[str, Any]] = []

    async def main() -> None:
        events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> dict[str, Any]:
            return next(events)

        async def send(message: Any) -> None:
            sent.append(message)

        await WSGIMiddleware(inner)({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)

    with contextlib.closing(ASGIMiddleware(app)) as inner, pytest.raises(ValueError, match="no database") as raised:
        asgi_driver.run(main())
    assert raised.value is error
    assert sent[-1]["type"] == f"lifespan.{phase}.failed"
    assert ("it was told" if tells else "no database") in sent[-1]["message"]


def test_head_reaches_the_asgi_server_before_the_body() -> None:
    """A quiet stream of events begins: the client hears of it, though WSGI has headers wait for a chunk."""
    heard = Signal("the client has the head")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await heard.wait_in_task()
        await send({"type": "http.response.body", "body": b"event"})

    sent: list[Any] = []

    async def main() -> None:
        client = Client()

        async def send(message: Any) -> None:
            sent.append(message)
            heard.set()

        await WSGIMiddleware(inner)(asgi_driver.http_scope(), client.receive, send)

    with contextlib.closing(ASGIMiddleware(app)) as inner:
        asgi_driver.run(main())
    assert sent[0] == {"type": "http.response.start", "status": 200, "headers": []}
    assert b"".join(message.get("body", b"") for message in sent) == b"event"


def test_state_of_a_lifespan_reaches_what_stands_above() -> None:
    """A middleware of the outer server sees what the app inside has set up."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        scope["state"]["database"] = "open"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def main() -> None:
        events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> dict[str, Any]:
            return next(events)

        async def send(message: Any) -> None:
            sent.append(message)

        await WSGIMiddleware(inner)(scope, receive, send)

    sent: list[Any] = []
    scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {"own": 1}}
    with contextlib.closing(ASGIMiddleware(app)) as inner:
        asgi_driver.run(main())
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert scope["state"] == {"own": 1, "database": "open"}


# -- TLS --------------------------------------------------------------------------------------------------------------

TLS = {
    "server_cert": "server's",
    "client_cert_chain": ["client's"],
    "client_cert_name": "CN=client",
    "client_cert_error": None,
    "tls_version": 0x0304,
    "cipher_suite": 0xFFFF,  # which WSGI has no word for
}
APACHE = {
    "HTTPS": "on",
    "SSL_PROTOCOL": "TLSv1.3",
    "SSL_CIPHER": "A-SUITE-OF-TOMORROW",  # which ASGI has no word for
    "SSL_CLIENT_CERT": "client's",
    "SSL_CLIENT_S_DN": "/CN=client",
    "SSL_CLIENT_S_DN_CN": "client",
}


def test_wsgi_app_has_the_tls_of_its_server() -> None:
    """All of it, as the server says it."""
    environ = seen_by_an_app(**APACHE)
    assert {key: value for key, value in environ.items() if key.startswith(("SSL", "HTTPS"))} == APACHE


@pytest.mark.parametrize("changed", [None, {**TLS, "client_cert_chain": []}], ids=["removed", "changed"])
def test_tls_that_middleware_has_changed_is_not_taken_back(changed: Any) -> None:
    """None of it: an ASGI middleware that hides the client's name hides all of its parts."""
    seen: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        seen.append(environ)
        start_response("204 No Content", [])
        return []

    inner = WSGIMiddleware(app)

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if "extensions" in scope:
            scope["extensions"] = {} if changed is None else {"tls": changed}
        await inner(scope, receive, send)

    with contextlib.closing(ASGIMiddleware(middleware)) as bridge:
        wsgi_driver.call(bridge, {**wsgi_driver.environ_of(), **APACHE})
    keys = {key for key in seen[0] if key.startswith(("SSL", "HTTPS"))}
    made = {"HTTPS", "SSL_PROTOCOL", "SSL_SERVER_CERT", "SSL_CLIENT_S_DN", "SSL_CLIENT_VERIFY"}
    assert keys == (set() if changed is None else made)


@pytest.mark.parametrize("change", [None, {}, {"SSL_CLIENT_CERT": "another's"}], ids=["same", "removed", "changed"])
def test_asgi_app_has_the_tls_of_its_server(change: Any) -> None:
    """The very same, unless what lies between has changed any of it."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        seen.append(scope["extensions"].get("tls"))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    with contextlib.closing(ASGIMiddleware(app)) as inner:

        def middleware(environ: Environ, start_response: StartResponse) -> Any:
            if change == {}:
                environ = {key: value for key, value in environ.items() if not key.startswith(("SSL", "HTTPS"))}
            return inner({**environ, **(change or {})}, start_response)

        asgi_driver.call(WSGIMiddleware(middleware), Client(), asgi_driver.http_scope(extensions={"tls": TLS}))
    expected: dict[str, Any] = {
        "None": TLS,
        "{}": None,
    }
    other = {**TLS, "client_cert_chain": ["another's"], "cipher_suite": None}
    assert seen == [expected.get(str(change), other)]
