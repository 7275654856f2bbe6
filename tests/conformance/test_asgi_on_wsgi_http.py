"""ASGI HTTP 2.5, PEP 3333 and RFC 9110, clause by clause, for an ASGI app under `ASGIMiddleware`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from a2wsgi import AppProtocolError, InvalidHeader
from support.bridges import Bridged, bridges_to_wsgi, only_single
from support.wsgi_driver import Exchange, Response, call, environ_of


def sending(*messages: Any) -> Any:
    """An app that sends these."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def start(status: Any = 200, **others: Any) -> dict[str, Any]:
    """A head."""
    return {"type": "http.response.start", "status": status, **others}


def body(data: Any = b"", **others: Any) -> dict[str, Any]:
    """A part of a body."""
    return {"type": "http.response.body", "body": data, **others}


SINGLE = ["single", "single inline", "single trio"]


@pytest.fixture(params=[*SINGLE, "nested", "nested inline", "nested trio"])
def bridged(request: pytest.FixtureRequest) -> Iterator[Bridged]:
    """Makes a WSGI app of an ASGI app."""
    with bridges_to_wsgi(request.param, lifespan=False) as make:
        yield make


@pytest.fixture
def answer(bridged: Bridged) -> Callable[..., Response]:
    """Has an app answer one request."""

    def answer(app: Any, environ: dict[str, Any] | None = None, **options: Any) -> Response:
        return call(bridged(app), environ, **options)

    return answer


# -- ASGI HTTP 2.5 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-a", b"1"), (b"x-b", b"2")],
        [[b"x-a", b"1"], [b"x-b", b"2"]],
        ((b"x-a", b"1"), (b"x-b", b"2")),
        [(bytearray(b"x-a"), bytearray(b"1")), (memoryview(b"x-b"), memoryview(b"2"))],
    ],
    ids=["tuples", "lists", "tuple", "buffers"],
)
def test_headers_may_be_any_iterable_of_pairs(answer: Any, headers: Any) -> None:
    """ASGI HTTP 2.5, "Response Start": headers is an iterable of pairs; the server gets a list of tuples of str."""
    response = answer(sending(start(headers=headers), body()))
    assert response.fields == [("x-a", "1"), ("x-b", "2"), ("content-length", "0")]


def test_headers_may_be_read_only_once(answer: Any) -> None:
    """DESIGN 6: members of a message may be one-shot iterators (Falcon)."""
    response = answer(sending(start(headers=iter([(b"x-a", b"1")])), body()))
    assert response.fields == [("x-a", "1"), ("content-length", "0")]


def test_optional_members_may_be_left_out(answer: Any) -> None:
    """ASGI HTTP 2.5, "Response Start", "Response Body": headers, body and more_body are optional."""
    response = answer(sending(start(), {"type": "http.response.body"}))
    assert (response.status, response.fields, response.chunks) == ("200 OK", [("content-length", "0")], [b""])
    assert response.length == 1


@pytest.mark.parametrize("data", [bytearray(b"abc"), memoryview(b"abc")], ids=["bytearray", "memoryview"])
def test_body_of_another_buffer_becomes_bytes(answer: Any, data: Any) -> None:
    """PEP 3333, "Unicode Issues": servers take bytes and nothing else."""
    assert answer(sending(start(), body(data))).chunks == [b"abc"]


def test_messages_after_the_end_are_ignored(answer: Any) -> None:
    """ASGI HTTP 2.5, "Response Body": "any further messages on the channel will be ignored"."""
    further = body(b"def", more_body=True), body(b"ghi"), start(500)
    assert answer(sending(start(), body(b"abc"), *further)).chunks == [b"abc"]


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.response.odd"}],
        [{}],
        [body(b"abc")],
        [start(), start()],
        [{"type": "http.response.start"}],
        [start("200")],
        [start(20)],
        [start(100)],
        [start(103)],
        [start(199)],
        [start(headers=[("x", "1")])],
        [start(headers=[(b"x",)])],
        [start(), body("abc")],
        [start(headers=[(b"content-length", b"abc")])],
        [start(headers=[(b"content-length", b"1"), (b"content-length", b"2")])],
    ],
    ids=str,
)
def test_wrong_message_raises_in_the_apps_own_send(answer: Any, messages: list[Any]) -> None:
    """ASGI, "Error Handling": the server raises out of the send awaitable; the app may catch that and go on."""
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages[:-1]:
            await send(message)
        with pytest.raises(AppProtocolError) as caught:
            await send(messages[-1])
        raised.append(caught.value)
        if len(messages) == 1:
            await send(start())
        await send(body(b"fine"))

    assert answer(app).chunks == [b"fine"]
    assert len(raised) == 1


@pytest.mark.parametrize("status", [200, 204, 299, 304, 418, 599, 999])
def test_status_has_a_reason_phrase(answer: Any, status: int) -> None:
    """PEP 3333, "The start_response() Callable": the status has a reason; registered or not (PAINS F7)."""
    code, _, reason = answer(sending(start(status), body())).status.partition(" ")
    assert (code, bool(reason)) == (str(status), True)


@pytest.mark.parametrize("value", [b"a\r\nX-Injected: 1", b"a\nb", b"a\rb", b"a\0b"])
def test_header_that_would_start_another_is_an_error(answer: Any, value: bytes) -> None:
    """RFC 9110 §5.5: CR, LF and NUL are an error, and nothing is sent."""
    response = answer(sending(start(headers=[(b"x-a", value)]), body()), fails=InvalidHeader)
    assert (response.status, response.where) == (None, "call")


@pytest.mark.parametrize("status", [100, 101, 103, 199])
def test_interim_status_is_no_response(answer: Any, status: int) -> None:
    """RFC 9110 §15.2: a 1xx as the final status is an error of the app, and nothing is sent."""
    response = answer(sending(start(status), body()), fails=AppProtocolError)
    assert (response.status, response.where) == (None, "call")


# -- PEP 3333 ---------------------------------------------------------------------------------------------------------


def test_hop_by_hop_headers_are_dropped_and_said_once(bridged: Bridged, caplog: pytest.LogCaptureFixture) -> None:
    """PEP 3333, "Other HTTP Features": applications must not send them (PAINS F9)."""
    names = ["connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "Proxy-Connection"]
    app = sending(start(headers=[(name.encode(), b"x") for name in names] + [(b"x-a", b"1")]), body())
    bridge = bridged(app)
    for _ in range(2):
        assert call(bridge).fields == [("x-a", "1"), ("content-length", "0")]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * len(names)


def test_server_that_asks_for_the_length_is_told(answer: Any) -> None:
    """PEP 3333, "Handling the Content-Length Header": an iterable of length 1 is the whole body."""
    assert answer(sending(start(), body(b"a", more_body=True), body(b"b"))).length == 1


# -- RFC 9110 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "status", "length"),
    [
        ("HEAD", 200, [("content-length", "6")]),
        ("HEAD", 404, [("content-length", "6")]),
        ("GET", 204, []),
        ("GET", 304, []),
    ],
)
def test_response_that_has_no_body_has_none(
    answer: Any, method: str, status: int, length: list[tuple[str, str]]
) -> None:
    """RFC 9110 §6.4.1: HEAD, 204 and 304 have no body, whatever the app sends; HEAD tells the length of GET."""
    app = sending(start(status, headers=[(b"x-a", b"1")]), body(b"abc", more_body=True), body(b"def"))
    response = answer(app, environ_of(method))
    assert (response.fields, response.body, response.length) == ([("x-a", "1"), *length], b"", None)


def test_head_of_what_may_be_empty_says_no_length(answer: Any) -> None:
    """RFC 9110 §9.3.2: an app that sends HEAD no body has not said how long GET's is."""
    assert answer(sending(start(200, headers=[]), body(b"")), environ_of("HEAD")).fields == []


@pytest.mark.parametrize(("method", "status", "kept"), [("HEAD", 200, True), ("GET", 204, False), ("HEAD", 204, False)])
def test_content_length_without_a_body(answer: Any, method: str, status: int, kept: bool) -> None:
    """RFC 9110 §8.6: HEAD keeps the length of GET, 204 has none."""
    app = sending(start(status, headers=[(b"content-length", b"3")]), body(b""))
    assert answer(app, environ_of(method)).fields == [("content-length", "3")] * kept


@only_single("a bridge to ASGI in between leaves the length out, as towards any ASGI server", kinds=SINGLE)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_304_keeps_its_length(answer: Any, method: str) -> None:
    """RFC 9110 §8.6: a 304 may say the length that a 200 would have."""
    app = sending(start(304, headers=[(b"content-length", b"3")]), body(b""))
    assert answer(app, environ_of(method)).fields == [("content-length", "3")]


def test_head_of_an_endless_response_ends(bridged: Bridged) -> None:
    """RFC 9110 §9.3.2: HEAD of a stream without end holds the server for grace_timeout at most."""
    ended: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        try:
            while True:
                await send(body(b"x", more_body=True))
                await anyio.sleep(0.001)  # an endless app of this kind makes pauses
        except BaseException as error:  # of send(), or its cancellation where the machine is busy
            ended.append(error)
            raise

    response = call(bridged(app, grace_timeout=0.02), environ_of("HEAD"))
    assert (response.status, response.body) == ("200 OK", b"")
    assert len(ended) == 1


@pytest.mark.parametrize("pieces", [[b"abcdef"], [b"ab", b"cdef"], [b"abc", b"def"]])
def test_body_over_its_length_is_cut(answer: Any, pieces: list[bytes]) -> None:
    """RFC 9112 §6.3: what is over would be taken for the next response (PAINS F6)."""
    app = sending(
        start(headers=[(b"content-length", b"3")]), *(body(piece, more_body=True) for piece in pieces), body()
    )
    response = answer(app)
    assert (response.fields, response.body) == ([("content-length", "3")], b"abc")


def test_body_under_its_length_is_an_error(answer: Any) -> None:
    """RFC 9112 §8: a response that ends early must not look complete (PAINS F6)."""
    response = answer(sending(start(headers=[(b"content-length", b"10")]), body(b"abc")), fails=AppProtocolError)
    assert "7 bytes" in str(response.raised)


@only_single(
    "PEP 3333 between two bridges has the head wait for the body, so that the error can still be a page", kinds=SINGLE
)
def test_body_under_its_length_breaks_a_response_that_has_begun(answer: Any) -> None:
    """RFC 9112 §8: as above, once the head is out."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(headers=[(b"content-length", b"10")]))
        for _ in range(5):
            await receive_nothing()
        await send(body(b"abc"))

    async def receive_nothing() -> None:
        await anyio.sleep(0.001)  # lets the server thread take the head

    response = answer(app, fails=AppProtocolError)
    assert (response.where, response.body) == ("iteration", b"")


def test_repeats_of_set_cookie_are_kept(answer: Any) -> None:
    """RFC 6265 §3: Set-Cookie is never joined."""
    app = sending(start(headers=[(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]), body())
    assert answer(app).fields == [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("content-length", "0")]


# -- The scope --------------------------------------------------------------------------------------------------------


def test_scope_is_that_of_a_server(answer: Any) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": all members, of the types that it says."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await send(start())
        await send(body())

    environ = environ_of("POST", "/a/b", body=b"x", QUERY_STRING="q=1", SCRIPT_NAME="/root", CONTENT_TYPE="text/plain")
    answer(app, environ)
    del scopes[0]["wsgi_environ"]
    scopes[0]["headers"].sort()
    assert scopes == [
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/root/a/b",
            "raw_path": b"/root/a/b",
            "query_string": b"q=1",
            "root_path": "/root",
            "headers": [(b"content-length", b"1"), (b"content-type", b"text/plain"), (b"host", b"testserver")],
            "client": ("127.0.0.1", 54321),
            "server": ("127.0.0.1", 8000),
            "extensions": {"http.response.pathsend": {}},
            "state": {},
        }
    ]


@only_single("through more bridges it is the environ of the one in between", kinds=SINGLE)
def test_scope_has_the_environ(answer: Any) -> None:
    """ASGI, "Extensions": the environ stands in the scope, itself."""
    environ = environ_of()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["wsgi_environ"] is environ
        await send(start())
        await send(body())

    assert answer(app, environ).status == "200 OK"


def test_validator_finds_nothing_to_say(bridged: Bridged, recwarn: pytest.WarningsRecorder) -> None:
    """PEP 3333: wsgiref.validate, on both sides of which stand code of ours and of the standard library."""
    from wsgiref.validate import validator

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(start(headers=[(b"content-type", b"text/plain")]))
        await send(body(b"abc"))

    environ = environ_of("POST", body=b"abc")
    environ["wsgi.input"] = __import__("io").BytesIO(b"abc")
    environ["wsgi.errors"] = __import__("sys").stderr
    assert call(validator(bridged(app)), environ).body == b"abc"


@only_single("PEP 3333 between two bridges has the head wait for the first chunk that is not empty", kinds=SINGLE)
def test_chunk_that_is_empty_is_not_given_to_the_server(bridged: Bridged) -> None:
    """PEP 3333, "Middleware Handling of Block Boundaries": but for the first, an empty chunk says nothing."""
    from support.lockstep import Signal

    go = Signal("go")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await go.wait_in_task()
        await send(body(b"", more_body=True))
        await send(body(b"end", more_body=True))
        await send(body())

    exchange = Exchange(bridged(app)).begin()
    assert exchange.next() == b""
    go.set()
    assert exchange.next() == b"end"
    with pytest.raises(StopIteration):
        exchange.next()
    exchange.close()
