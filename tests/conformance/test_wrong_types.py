"""What happens when a scope, an environ or a message has a value of a wrong type: a plain answer, or a plain error.

Servers and middleware do hand over odd types. Where it is clear what is meant, the request is answered. Where it is
not, the error is a documented one, and it names the value and whoever made it. No `TypeError`, `AttributeError`,
`KeyError` or `IndexError` comes out of a2wsgi's own code.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from a2wsgi import AppProtocolError, ASGIMiddleware, ServerProtocolError, WSGIMiddleware
from apps import hello
from support import asgi_driver, wsgi_driver
from support.asgi_driver import Client, http_scope
from support.lockstep import Signal
from support.runtimes import for_ever, soon
from support.wsgi_driver import environ_of

pytestmark = pytest.mark.usefixtures("runtime")

ABSENT = object()
FINE = None  # what is guilty where the request is answered


def without_absent(values: dict[Any, Any]) -> dict[Any, Any]:
    """Return the values less those that are `ABSENT`."""
    return {key: value for key, value in values.items() if value is not ABSENT}


def label(value: object) -> str:
    """A name for a case: what it is made of."""
    return re.sub(" at 0x[0-9a-f]+", "", str(value).replace(str(ABSENT), "absent"))[:60]


# -- A WSGI app on an ASGI server -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "guilty"),
    [
        ("type", ABSENT, "no 'type'"),
        ("type", None, "a scope of type None"),
        ("type", 5, "a scope of type 5"),
        ("method", ABSENT, FINE),
        ("method", None, FINE),
        ("http_version", 1.1, FINE),
        ("http_version", ["1.1"], "'http_version' of type list"),
        ("http_version", {}, "'http_version' of type dict"),
        ("scheme", None, FINE),
        ("scheme", ["http"], "'scheme' of type list"),
        ("path", None, FINE),
        ("path", b"/", "'path' of type bytes"),
        ("path", 5, "'path' of type int"),
        ("raw_path", "/", FINE),
        ("raw_path", bytearray(b"/"), FINE),
        ("raw_path", 5, "'raw_path' of type int"),
        ("raw_path", 10**12, "'raw_path' of type int"),
        ("root_path", None, FINE),
        ("root_path", b"/x", "'root_path' of type bytes"),
        ("root_path", 5, "'root_path' of type int"),
        ("query_string", None, FINE),
        ("query_string", bytearray(b"a=b"), FINE),
        ("query_string", "a=b", "'query_string' of type str"),
        ("query_string", 5, "'query_string' of type int"),
        ("headers", None, FINE),
        ("headers", 5, "The headers in the scope"),
        ("headers", "ab", "The headers in the scope"),
        ("headers", {b"a": b"b"}, "The headers in the scope"),
        ("headers", [("host", "h")], "The headers in the scope"),
        ("headers", [(b"a", None)], "The headers in the scope"),
        ("headers", [(b"a", 5)], "The headers in the scope"),
        ("headers", [b"ab"], "The headers in the scope"),
        ("client", None, FINE),
        ("client", [], FINE),
        ("client", {}, FINE),
        ("client", (None, None), FINE),
        ("client", ("192.0.2.1", None), FINE),
        ("client", ("192.0.2.1",), "'client' of type tuple and length 1"),
        ("client", ["192.0.2.1"], "'client' of type list and length 1"),
        ("client", "192.0.2.1", "'client' of type str"),
        ("client", 5, "'client' of type int"),
        ("server", (None, None), FINE),
        ("server", ("192.0.2.1", "80"), FINE),
        ("server", ("192.0.2.1",), "'server' of type tuple and length 1"),
        ("server", "192.0.2.1", "'server' of type str"),
        ("server", 5, "'server' of type int"),
        ("extensions", 5, "extensions"),
        ("state", 5, FINE),
        ("asgi", None, FINE),
    ],
    ids=label,
)
def test_scope_of_wrong_types(key: str, value: object, guilty: str | None) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": a member of a wrong type is the server's fault, and is named."""
    scope = without_absent({**http_scope(), key: value})
    if guilty is None:
        assert asgi_driver.call(WSGIMiddleware(hello.app), None, scope).status == 200
    else:
        response = asgi_driver.call(WSGIMiddleware(hello.app), None, scope, fails=ServerProtocolError)
        assert response.messages == []
        assert guilty in str(response.raised)


@pytest.mark.parametrize("scope", [[], 5, "http"], ids=label)
def test_scope_that_is_none(scope: Any) -> None:
    """ASGI 3.0, "Connection Scope": a scope is a dict."""
    response = asgi_driver.call(WSGIMiddleware(hello.app), None, scope, fails=ServerProtocolError)
    assert f"of type {type(scope).__name__}" in str(response.raised)


def reading(environ: Any, start_response: Any) -> Iterable[bytes]:
    """Answer with the request's body."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [body]


REQUEST = {"type": "http.request"}


@pytest.mark.parametrize("later", [False, True], ids=["first", "later"])
@pytest.mark.parametrize(
    ("message", "guilty"),
    [
        ({}, "a message without a type"),
        ([], "something of type list"),
        (None, "something of type NoneType"),
        (5, "something of type int"),
        (REQUEST, FINE),
        ({**REQUEST, "body": None}, FINE),
        ({**REQUEST, "body": bytearray(b"ab")}, FINE),
        ({**REQUEST, "body": memoryview(b"ab")}, FINE),
        ({**REQUEST, "body": b"ab", "more_body": None}, FINE),
        ({**REQUEST, "body": "ab"}, "a body of type str"),
        ({**REQUEST, "body": "ab", "more_body": True}, "a body of type str"),
        ({**REQUEST, "body": 5}, "a body of type int"),
        ({**REQUEST, "body": 10**12}, "a body of type int"),
        ({**REQUEST, "body": [97, 98]}, "a body of type list"),
    ],
    ids=label,
)
def test_request_message_of_wrong_types(message: Any, guilty: str | None, *, later: bool) -> None:
    """ASGI HTTP 2.5, "Request": such a message is the server's fault; it never looks like the end of a body."""
    messages = [{**REQUEST, "body": b"x", "more_body": True}] * later + [message]
    # With Expect, the messages come while the app waits for them.
    scope = http_scope("POST", headers=[(b"expect", b"100-continue")] * later)
    client = Scripted(messages)
    if guilty is None:
        body = b"x" * later + bytes(message.get("body") or b"")
        assert asgi_driver.call(WSGIMiddleware(reading), client, scope).body == body
    else:
        response = asgi_driver.call(WSGIMiddleware(reading), client, scope, fails=ServerProtocolError)
        assert response.messages == []
        assert guilty in str(response.raised)


class Scripted(Client):
    """A client whose messages need not be any; when they are used up, it says nothing."""

    def __init__(self, messages: Iterable[Any]) -> None:
        super().__init__()
        self._script: Iterator[Any] = iter(messages)

    async def receive(self) -> Any:
        """The next."""
        for message in self._script:
            return message
        return await for_ever()


@pytest.mark.parametrize("message", [{}, None, 5], ids=label)
def test_message_of_wrong_type_after_the_body(message: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What a server says after the body cannot spoil a request that is here whole: its client is watched no more."""
    caplog.set_level(logging.DEBUG, "a2wsgi")
    told = Signal("the server has told of it")

    class Telling(Scripted):
        async def receive(self) -> Any:
            received = await super().receive()
            if received is message:
                soon(told.set)
            return received

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        told.wait()  # the bridge watches a request that takes a while
        return reading(environ, start_response)

    client = Telling([{**REQUEST, "body": b"ab"}, message])
    assert asgi_driver.call(WSGIMiddleware(app), client, http_scope("POST")).body == b"ab"
    assert [record.message[:26] for record in caplog.records if record.name == "a2wsgi"] == [
        "The client is not watched:"
    ]


@pytest.mark.parametrize(
    ("arguments", "guilty"),
    [
        ((None, []), "a status of type NoneType"),
        ((True, []), "a status of type bool"),
        ((200, []), "a status of type int"),
        ((b"200 OK", []), "a status of type bytes"),
        (("200 OK", None), "something of type NoneType"),
        (("200 OK", 5), "something of type int"),
        (("200 OK", {"a": "b"}), "something of type str"),
        (("200 OK", [None]), "something of type NoneType"),
        (("200 OK", [("a",)]), "something of type tuple"),
        (("200 OK", [("a", 5)]), "the header 'a' with a value of type int"),
        (("200 OK", [(b"a", b"b")]), "a header name of type bytes"),
        (("200 OK", [("Content-Length", 5)]), "the header 'Content-Length' with a value of type int"),
        (("200 OK", [], None), FINE),
        (("200 OK", [], (None, None, None)), FINE),
        (("200 OK", [], [None, None, None]), FINE),
        (("200 OK", [], (ValueError, ValueError(), None)), FINE),
        (("200 OK", [], True), "an exc_info of type bool"),
        (("200 OK", [], 5), "an exc_info of type int"),
        (("200 OK", [], ()), "an exc_info of type tuple"),
        (("200 OK", [], (1, 2, 3)), "an exc_info of type tuple"),
        (("200 OK", [], (ValueError, ValueError(), "x")), "an exc_info of type tuple"),
    ],
    ids=label,
)
def test_start_response_of_wrong_types(arguments: tuple[Any, ...], guilty: str | None) -> None:
    """PEP 3333, "The start_response() Callable": what the app gives it is the app's fault."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(*arguments)
        return [b"ab"]

    if guilty is None:
        assert asgi_driver.call(WSGIMiddleware(app)).body == b"ab"
    else:
        response = asgi_driver.call(WSGIMiddleware(app), fails=AppProtocolError)
        assert response.messages == []
        assert guilty in str(response.raised)


@pytest.mark.parametrize("exc_info", [True, (1, 2, 3), (ValueError, ValueError(), "x")], ids=label)
def test_exc_info_of_wrong_types_after_the_head_was_sent(exc_info: Any) -> None:
    """PEP 3333, "The start_response() Callable": the error is the app's also where its own cannot be raised again."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])(b"ab")
        start_response("500 Sorry", [], exc_info)
        return []

    response = asgi_driver.call(WSGIMiddleware(app), fails=AppProtocolError)
    assert "an exc_info of type" in str(response.raised)


@pytest.mark.parametrize(
    "returned", [None, 5, "ab", ["ab"], b"ab", [None], [5], [bytearray(b"x")], {"a": 1}], ids=label
)
def test_wsgi_body_of_wrong_types(returned: Any) -> None:
    """PEP 3333, "Specification Details": a body is an iterable of bytes."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return returned

    assert asgi_driver.call(WSGIMiddleware(app), fails=AppProtocolError).messages == []


@pytest.mark.parametrize("message", [{}, None, 5], ids=label)
def test_lifespan_message_of_wrong_types(message: Any) -> None:
    """ASGI Lifespan 2.0: a message without a type is the server's fault."""
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
    asgi_driver.call(WSGIMiddleware(hello.app), Scripted([message]), scope, fails=ServerProtocolError)


# -- An ASGI app on a WSGI server -------------------------------------------------------------------------------------


def answered(environ: Any, app: Any, *, fails: type[BaseException] | None = None) -> wsgi_driver.Response:
    """Have an ASGI app answer a request, on the thread of the test."""
    with ASGIMiddleware(app, lifespan=False, inline=True) as bridge:
        return wsgi_driver.call(bridge, environ, fails=fails)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the request's body."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize(
    ("changes", "guilty"),
    [
        ({"REQUEST_METHOD": ABSENT}, FINE),
        ({"REQUEST_METHOD": None}, FINE),
        ({"REQUEST_METHOD": 5}, "REQUEST_METHOD of type int"),
        ({"REQUEST_METHOD": b"GET"}, "REQUEST_METHOD of type bytes"),
        ({"wsgi.url_scheme": ABSENT}, FINE),
        ({"SCRIPT_NAME": None}, FINE),
        ({"SCRIPT_NAME": b"/x"}, "SCRIPT_NAME of type bytes"),
        ({"SCRIPT_NAME": 5}, "SCRIPT_NAME of type int"),
        ({"PATH_INFO": ABSENT}, FINE),
        ({"PATH_INFO": None}, FINE),
        ({"PATH_INFO": b"/"}, "PATH_INFO of type bytes"),
        ({"PATH_INFO": 5}, "PATH_INFO of type int"),
        ({"QUERY_STRING": None}, FINE),
        ({"QUERY_STRING": b"a=b"}, "QUERY_STRING of type bytes"),
        ({"QUERY_STRING": 5}, "QUERY_STRING of type int"),
        ({"REQUEST_URI": b"/"}, "REQUEST_URI of type bytes"),
        ({"REQUEST_URI": 5}, "REQUEST_URI of type int"),
        ({"RAW_URI": b"/"}, "RAW_URI of type bytes"),
        ({"SERVER_PROTOCOL": None}, FINE),
        ({"SERVER_PROTOCOL": 1.1}, FINE),
        ({"SERVER_PROTOCOL": [1]}, "SERVER_PROTOCOL of type list"),
        ({"SERVER_NAME": None}, FINE),
        ({"SERVER_PORT": 80}, FINE),
        ({"SERVER_PORT": None}, FINE),
        ({"SERVER_PORT": b"80"}, FINE),
        ({"REMOTE_ADDR": None}, FINE),
        ({"REMOTE_PORT": 5}, FINE),
        ({"REMOTE_PORT": []}, FINE),
        ({"CONTENT_TYPE": None}, FINE),
        ({"CONTENT_TYPE": 5}, FINE),
        ({"CONTENT_LENGTH": None}, FINE),
        ({"CONTENT_LENGTH": 0}, FINE),
        ({"CONTENT_LENGTH": " 0"}, FINE),
        ({"CONTENT_LENGTH": b"0"}, "CONTENT_LENGTH of type bytes"),
        ({"CONTENT_LENGTH": 0.5}, "CONTENT_LENGTH of type float"),
        ({"CONTENT_LENGTH": True}, "CONTENT_LENGTH of type bool"),
        ({"CONTENT_LENGTH": [5]}, "CONTENT_LENGTH of type list"),
        ({"HTTP_X": None}, FINE),
        ({"HTTP_X": 5}, FINE),
        ({"HTTP_X": b"5"}, FINE),
        ({"HTTP_EXPECT": 5}, FINE),
        ({"HTTP_TRANSFER_ENCODING": 5, "CONTENT_LENGTH": "0"}, FINE),
        ({5: "x"}, FINE),
        ({("a",): "x"}, FINE),
        ({"asgi.scope": 5}, FINE),
        ({"a2wsgi.disconnected": 5}, FINE),
        ({"wsgi.input": ABSENT}, FINE),
        ({"wsgi.input": None}, FINE),
        ({"wsgi.input": 5}, "wsgi.input of type int"),
        ({"wsgi.input": 5, "CONTENT_LENGTH": "3"}, "wsgi.input of type int"),
        ({"wsgi.input": io.StringIO("abc"), "CONTENT_LENGTH": "3"}, "wsgi.input returned something of type str"),
        ({"wsgi.input": io.StringIO("abc"), "CONTENT_LENGTH": "300000"}, "wsgi.input returned something of type str"),
    ],
    ids=label,
)
def test_environ_of_wrong_types(changes: dict[Any, Any], guilty: str | None) -> None:
    """PEP 3333, "environ Variables": a value of a wrong type is the server's fault, and is named."""
    environ = without_absent({**environ_of(), **changes})
    if guilty is None:
        assert answered(environ, echo).status == "200 OK"
    else:
        response = answered(environ, echo, fails=ServerProtocolError)
        assert response.status is None
        assert guilty in str(response.raised)


@pytest.mark.parametrize("environ", [[], 5, "x"], ids=label)
def test_environ_that_is_none(environ: Any) -> None:
    """PEP 3333, "Specification Details": an environ is a dict."""
    with (
        ASGIMiddleware(echo, lifespan=False, inline=True) as bridge,
        pytest.raises(ServerProtocolError, match=f"an environ of type {type(environ).__name__}"),
    ):
        bridge(environ, lambda *_: print)


@pytest.mark.parametrize("given", [bytearray(b"abc"), memoryview(b"abc")], ids=label)
def test_wsgi_input_of_other_buffers(given: Any) -> None:
    """ASGI HTTP 2.5, "Request": a body is bytes, whatever buffer the server's stream gives."""

    class Odd:
        def read(self, size: int) -> Any:
            return given

    response = answered({**environ_of("POST"), "wsgi.input": Odd(), "CONTENT_LENGTH": "3"}, echo)
    assert response.body == b"abc"


START = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": b"ab"}


@pytest.mark.parametrize(
    ("messages", "guilty"),
    [
        ([{}], "of the type (a NoneType, not a str)"),
        ([None], "of the type (a NoneType, not a str)"),
        ([5], "of the type (a NoneType, not a str)"),
        (["http.response.start"], "of the type (a NoneType, not a str)"),
        ([{"type": None}], "of the type (a NoneType, not a str)"),
        ([{"type": []}], "of the type (a list, not a str)"),
        ([{"type": b"http.response.start"}], "of the type (a bytes, not a str)"),
        ([{"status": 200}], "of the type (a NoneType, not a str)"),
        ([{"type": "http.response.start"}], "without a status"),
        ([{**START, "status": "200"}], "the status '200' of type str"),
        ([{**START, "status": None}], "the status 'None' of type NoneType"),
        ([{**START, "status": True}], "the status 'True' of type bool"),
        ([{**START, "status": 200.0}], "the status '200.0' of type float"),
        ([{**START, "status": [200]}], "the status '[200]' of type list"),
        ([{**START, "headers": None}, BODY], FINE),
        ([{**START, "headers": 5}], "something of type int"),
        ([{**START, "headers": "ab"}], "something of type str"),
        ([{**START, "headers": {b"a": b"b"}}], "something of type bytes"),
        ([{**START, "headers": [None]}], "something of type NoneType"),
        ([{**START, "headers": [("a", "b")]}], "a header name of type str"),
        ([{**START, "headers": [(b"a", 5)]}], "the header b'a' with a value of type int"),
        ([{**START, "trailers": 5}, BODY], FINE),
        ([START, {**BODY, "body": None}], "a body of type NoneType"),
        ([START, {**BODY, "body": "ab"}], "a body of type str"),
        ([START, {**BODY, "body": 5}], "a body of type int"),
        ([START, {**BODY, "body": [97, 98]}], "a body of type list"),
        ([START, {**BODY, "body": "ab", "more_body": True}], "a body of type str"),
        ([START, {**BODY, "more_body": None}], FINE),
        ([START, {**BODY, "body": b"a", "more_body": "no"}, {**BODY, "body": b"b"}], FINE),
        ([START, {}], "of the type (a NoneType, not a str)"),
        ([START, None], "of the type (a NoneType, not a str)"),
        ([START, {"type": []}], "of the type (a list, not a str)"),
        ([START, {"type": "http.response.trailers"}], "of the type 'http.response.trailers'"),
    ],
    ids=label,
)
def test_response_message_of_wrong_types(messages: list[Any], guilty: str | None) -> None:
    """ASGI, "Error Handling": such a message is the app's fault, and its own send() raises."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    if guilty is None:
        assert answered(environ_of(), app).body == b"ab"
    else:
        assert guilty in str(answered(environ_of(), app, fails=AppProtocolError).raised)


@pytest.mark.parametrize("message", [{}, None, 5, {"type": []}], ids=label)
def test_lifespan_answer_of_wrong_types(message: Any) -> None:
    """ASGI, "Error Handling": the app's own send() raises, and an app that gives up so is served all the same."""
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            try:
                await send(message)
            except AppProtocolError as error:
                raised.append(error)
                return
        await echo(scope, receive, send)

    with ASGIMiddleware(app, inline=True) as bridge:
        assert wsgi_driver.call(bridge, environ_of()).status == "200 OK"
    assert len(raised) == 1
