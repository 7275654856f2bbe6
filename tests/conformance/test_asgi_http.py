"""ASGI 3.0 and ASGI HTTP 2.5, the app's side, as a server sees `WSGIMiddleware`.

What holds for every message (types, keys, order, no overlap of ``receive()``) the driver checks in every test.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

import pytest

from a2wsgi import ClientDisconnected, ServerProtocolError
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import echo, hello
from apps.counting import Counting, endless
from apps.raising import Raising
from apps.recording import Recording
from support.asgi_driver import Client, Message, answer, call, http_scope, run
from support.bridges import Bridged
from support.lockstep import Signal

pytestmark = pytest.mark.usefixtures("runtime")


def environ_of(bridged: Bridged, scope: Any) -> Environ:
    """The environ that an app gets for a request without a body."""
    app = Recording()
    call(bridged(app), None, scope)
    return app.environ


# -- ASGI -------------------------------------------------------------------------------------------------------------


def test_app_is_one_coroutine_of_three_arguments(bridged: Bridged) -> None:
    """ASGI, "Applications": a single async callable that takes a scope, a receive and a send, by position."""
    client = Client()
    coroutine = bridged(hello.app)(http_scope(), client.receive, client.send)
    assert inspect.iscoroutine(coroutine)
    run(coroutine)
    assert client.sent[-1]["body"] == b"hello"


def test_app_raises_for_a_protocol_that_it_does_not_know(bridged: Bridged) -> None:
    """ASGI, "Applications": an app should raise for a scope type that it does not understand, and send nothing."""
    response = call(bridged(hello.app), None, {"type": "odd"}, fails=ServerProtocolError)
    assert response.messages == []


def test_scope_of_others_is_not_changed(bridged: Bridged) -> None:
    """ASGI, "Middleware": what a server or a middleware outside handed over is theirs."""
    scope = http_scope("POST", "/x?y=1", [(b"x-one", b"1")], root_path="/x", extensions={}, mine=object())
    before = {**scope, "headers": list(scope["headers"])}
    call(bridged(echo.app), Client(b"abc"), scope)
    assert scope == before


# An extension for another message ends at WSGI, which could not carry it.
@pytest.mark.parametrize(
    ("bridged", "extension"),
    [("single", "http.response.odd"), ("single", "odd"), ("nested", "odd")],
    indirect=["bridged"],
)
def test_scope_may_have_keys_of_others(bridged: Bridged, extension: str) -> None:
    """ASGI, "Extensions": keys that nobody knows are ignored, and reach the app by ``asgi.scope``."""
    environ = environ_of(bridged, http_scope(extensions={extension: {}}, odd=1))
    assert environ["asgi.scope"]["odd"] == 1
    extensions = dict(environ["asgi.scope"]["extensions"])
    extensions.pop("http.response.pathsend", None)  # of the bridge in the middle, which is the inner one's server
    assert extensions == {extension: {}}


def test_error_is_raised_to_the_server(bridged: Bridged) -> None:
    """ASGI, "Error Handling": an app that fails raises, and the server does what it does then."""
    error = ValueError("x")
    assert call(bridged(Raising(error)), fails=ValueError).raised is error


# -- The scope --------------------------------------------------------------------------------------------------------

MINIMUM = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/", "query_string": b"", "headers": []}


def test_scope_may_lack_what_is_optional(bridged: Bridged) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": scheme, raw_path, root_path, client, server and state have defaults."""
    environ = environ_of(bridged, dict(MINIMUM))
    wanted = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "REQUEST_URI": "/",
        "RAW_URI": "/",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    assert {key: value for key, value in environ.items() if key.isupper()} == wanted


@pytest.mark.parametrize("key", ["raw_path", "client", "server", "state"])
def test_scope_may_say_none(bridged: Bridged, key: str) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": what is optional may be None."""
    assert environ_of(bridged, {**MINIMUM, key: None})["PATH_INFO"] == "/"


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        (list, [[b"x-one", b"1"], [b"x-two", b"2"]]),
        (tuple, ((b"x-one", b"1"), (b"x-two", b"2"))),
        (iter, [(b"x-one", b"1"), (b"x-two", b"2")]),
        (list, [(b"X-One", b"1"), (b"X-TWO", b"2")]),
        (list, [(bytearray(b"x-one"), memoryview(b"1")), (b"x-two", bytearray(b"2"))]),
    ],
    ids=["lists", "tuple", "iterator", "upper case", "buffers"],
)
def test_scope_headers_are_any_pairs(bridged: Bridged, kind: Any, headers: Any) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": headers are an iterable of two-item iterables of byte strings."""
    environ = environ_of(bridged, {**MINIMUM, "headers": kind(headers)})
    assert {key: value for key, value in environ.items() if key.startswith("HTTP_")} == {
        "HTTP_X_ONE": "1",
        "HTTP_X_TWO": "2",
    }


def test_scope_may_be_read_only(bridged: Bridged) -> None:
    """ASGI, "Applications": a scope is a mapping; peregrine's is a ``mappingproxy``."""
    assert environ_of(bridged, MappingProxyType(http_scope(target="/x")))["PATH_INFO"] == "/x"


@pytest.mark.parametrize(
    ("version", "protocol"),
    [("1.0", "HTTP/1.0"), ("1.1", "HTTP/1.1"), ("2", "HTTP/2"), ("3", "HTTP/3")],
)
def test_scope_http_version_is_the_protocol(bridged: Bridged, version: str, protocol: str) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": ``http_version`` is one of these."""
    assert environ_of(bridged, http_scope(http_version=version))["SERVER_PROTOCOL"] == protocol


def test_scope_root_path_is_the_prefix_of_the_path(bridged: Bridged) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": ``root_path`` is SCRIPT_NAME, and ``path`` begins with it."""
    environ = environ_of(bridged, http_scope(target="/mounted/x", root_path="/mounted"))
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/mounted", "/x")
    assert (environ["REQUEST_URI"], environ["RAW_URI"]) == ("/mounted/x", "/mounted/x")


# -- Request ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.request"}],
        [{"type": "http.request", "body": b""}],
        [{"type": "http.request", "more_body": True}, {"type": "http.request"}],
        [{"type": "http.request", "body": None, "more_body": None}],
    ],
)
@pytest.mark.parametrize("buffer_bytes", [65_536, 0])
def test_request_may_lack_its_keys(bridged: Bridged, messages: list[Message], buffer_bytes: int) -> None:
    """ASGI HTTP 2.5, "Request": ``body`` and ``more_body`` are optional."""
    bridge = bridged(echo.app, request_buffer_bytes=buffer_bytes)
    assert call(bridge, Client(messages=messages), http_scope("POST")).body == b""


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("buffer_bytes", [65_536, 0])
def test_request_body_is_put_together(bridged: Bridged, kind: Any, buffer_bytes: int) -> None:
    """ASGI HTTP 2.5, "Request": the body is what all messages have, in their order, empty ones among them."""
    parts = [kind(part) for part in (b"one", b"", b"two", b"three", b"")]
    bridge = bridged(echo.app, request_buffer_bytes=buffer_bytes)
    assert call(bridge, Client(*parts), http_scope("POST")).body == b"onetwothree"


# -- Response ---------------------------------------------------------------------------------------------------------


def test_response_start_has_names_in_lower_case_and_bytes(bridged: Bridged) -> None:
    """ASGI HTTP 2.5, "Response Start": names are lower case, order and repeats are kept."""
    headers = [("Set-Cookie", "a=1"), ("X-Mixed-CASE", "Va Lue"), ("Set-Cookie", "b=2"), ("X-Latin", "\xe9")]
    response = call(bridged(Counting([b"x"], headers=[*headers, ("Content-Length", "1")])))
    assert response.headers == [
        (b"set-cookie", b"a=1"),
        (b"x-mixed-case", b"Va Lue"),
        (b"set-cookie", b"b=2"),
        (b"x-latin", b"\xe9"),
        (b"content-length", b"1"),
    ]


def test_response_start_is_not_sent_before_there_is_a_body(bridged: Bridged) -> None:
    """ASGI HTTP 2.5, "Response Start": an app that fails before its body leaves the answer to the server."""
    assert call(bridged(Raising(ValueError("x"), "first chunk")), fails=ValueError).messages == []


def test_response_body_ends_once(bridged: Bridged) -> None:
    """ASGI HTTP 2.5, "Response Body": the last message says ``more_body: False``, and all keys are there."""
    response = call(bridged(Counting([b"a", b"b", b"c"])))
    assert [message["more_body"] for message in response.messages[1:]].count(False) == 1
    assert response.complete
    assert response.body == b"abc"


def test_response_without_a_body_is_complete(bridged: Bridged) -> None:
    """ASGI HTTP 2.5, "Response Body": an empty one ends the response."""
    assert call(bridged(Counting([], "404 Not Found"))).complete


# -- Disconnect -------------------------------------------------------------------------------------------------------


def test_disconnect_stops_the_app(bridged: Bridged) -> None:
    """ASGI HTTP 2.5, "Disconnect": what is sent after it goes nowhere, so the app is stopped."""
    app = endless()

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 2:
                client.leave()

        client = Client(on_send=on_send)
        await answer(bridged(app), client)

    run(main())
    app.closed.wait()
    assert app.closes == 1


def test_disconnected_client_makes_send_raise(bridged: Bridged) -> None:
    """ASGI HTTP 2.4, "Disconnected Client - send exception": an `OSError` of ``send()`` reaches the server again."""
    app = endless()

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 3:
                raise error

        response = await answer(bridged(app), Client(on_send=on_send), fails=OSError)
        assert response.raised is error

    error = OSError("the client is gone")
    run(main())
    app.closed.wait()
    assert app.closes == 1


def test_disconnected_client_is_an_os_error_to_the_app(bridged: Bridged) -> None:
    """ASGI HTTP 2.4, "Disconnected Client - send exception": the app's own writes raise an `OSError` as well."""
    errors: list[BaseException] = []
    ended = Signal("the app has ended")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"x")
        assert environ["a2wsgi.disconnected"].wait(10)
        try:
            write(b"y")
        except OSError as error:
            errors.append(error)
        ended.set()
        return []

    async def main() -> None:
        async def on_send(_: int, __: Message) -> None:
            raise OSError("gone")

        await answer(bridged(app), Client(on_send=on_send), fails=OSError)

    run(main())
    ended.wait()
    assert [type(error) for error in errors] == [ClientDisconnected]


def test_response_is_whole_for_a_client_that_waits(bridged: Bridged) -> None:
    """ASGI HTTP 2.5, "Response Body": messages are joined, and none of the body is lost."""
    body = [b"%d," % number for number in range(2000)]
    assert call(bridged(Counting(body))).body == b"".join(body)


def test_receive_that_raises_in_the_midst_of_the_body_is_heard_by_who_raised(bridged: Bridged) -> None:
    """ASGI HTTP, "Request": what a middleware's receive() raises while the app reads is raised to it again."""
    refused = ValueError("too much")
    reads: list[type[BaseException]] = []
    entered, told = Signal("the app is entered"), Signal("the app is told")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        entered.set()
        try:
            environ["wsgi.input"].read()
        except ClientDisconnected as error:
            reads.append(type(error))
            told.set()
            raise
        return []

    async def receive() -> Message:
        await entered.wait_in_task()
        raise refused

    async def send(message: Message) -> None:
        raise AssertionError(message)

    async def story() -> None:
        with pytest.raises(ValueError, match="too much") as raised:
            await bridged(app, request_buffer_bytes=0)(http_scope("POST"), receive, send)
        assert raised.value is refused

    run(story())
    told.wait()  # a bridge further in is told a moment later
    assert reads == [ClientDisconnected]


def test_client_that_left_before_it_sent_anything_never_enters_the_app(bridged: Bridged) -> None:
    """ASGI HTTP, "Disconnect": as the first message it means that nobody asks."""
    entered: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        entered.append(environ)
        return []

    assert call(bridged(app), Client(messages=[{"type": "http.disconnect"}]), http_scope("POST")).messages == []
    assert entered == []


def test_address_that_can_be_read_once_is_read_once(bridged: Bridged) -> None:
    """Members of a scope may be one-shot iterators (Falcon), and stay readable for whoever is further in."""
    seen: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        start_response("204 No Content", [])
        return []

    call(bridged(app), None, {**http_scope(), "server": iter(("h", 1)), "client": iter(("c", 2))})
    (environ,) = seen
    names = ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "REMOTE_PORT")
    assert [environ[name] for name in names] == ["h", "1", "c", "2"]
    assert (environ["asgi.scope"]["server"], environ["asgi.scope"]["client"]) == (("h", 1), ("c", 2))
