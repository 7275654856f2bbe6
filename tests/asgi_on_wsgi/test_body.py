"""The body of a request: what is read of `wsgi.input`, and how long a read may wait for the client."""

from __future__ import annotations

import io
import logging
import socket
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from a2wsgi import (
    ASGIMiddleware,
    ClientDisconnected,
    ServerProtocolError,
)
from a2wsgi._asgi_on_wsgi.body import READ_BYTES, RequestBody
from a2wsgi._protocol.framing import BadRequest
from support.asgi_bridges import HELLO, THREAD_INLINE_TRIO, Bridge, alone, echo, hello
from support.wsgi_driver import BodyStream, Exchange, call, environ_of


class Received:
    """``wsgi.input`` of a server that receives as it is read from, as gunicorn's does."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.timeouts: list[float | None] = []  # of the socket, at each read

    def read(self, size: int) -> bytes:
        self.timeouts.append(self._connection.gettimeout())
        return self._connection.recv(size)


class Connection:
    """A server's end of a connection, and the client's."""

    def __init__(self) -> None:
        self.server, self.client = socket.socketpair()
        self.input = Received(self.server)

    def environ(self, length: int, key: str = "gunicorn__socket", **others: object) -> dict[str, Any]:
        """A POST of so many bytes."""
        named: dict[str, Any] = {"CONTENT_LENGTH": str(length), key: self.server, **others}
        return environ_of("POST", wsgi__input=self.input, **named)


@pytest.fixture
def connection() -> Iterator[Connection]:
    """One whose client has sent nothing yet."""
    made = Connection()
    with made.server, made.client:
        yield made


class Reading:
    """An ASGI app that reads its body to the end, and writes down what it is told."""

    def __init__(self, *, head_first: bool = False) -> None:
        self.head_first = head_first
        self.seen: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.head_first:
            await send({"type": "http.response.start", "status": 200})
        while True:
            message = await receive()
            self.seen.append(message)
            if message["type"] == "http.disconnect" or not message["more_body"]:
                break
        if self.seen[-1]["type"] == "http.disconnect":
            return
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"read"})


@THREAD_INLINE_TRIO
@pytest.mark.parametrize("key", ["gunicorn__socket", "werkzeug__socket"])
def test_client_that_sends_nothing_of_a_large_body_is_answered_408(
    connection: Connection, options: dict[str, Any], key: str, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 9110 §15.5.9: the app is told of a disconnect, the server is given the 408, its socket is as it was."""
    app = Reading()
    with ASGIMiddleware(app, lifespan=False, **options, receive_timeout=0.05) as bridge:
        response = call(bridge, connection.environ(100_000, key))
        assert (response.status, response.body) == (
            "408 Request Timeout",
            b"The request's body did not arrive in time.",
        )
        bridge.stop()  # the app has ended
        statistics = bridge.statistics()
    assert app.seen == [{"type": "http.disconnect"}]
    assert connection.input.timeouts == [0.05]
    assert connection.server.gettimeout() is None
    assert (statistics.stalled, statistics.disconnected, statistics.in_flight) == (1, 0, 0)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "Request aborted: the client sent nothing of its body for 0.05 s"
    ]


@THREAD_INLINE_TRIO
def test_client_that_sends_nothing_of_a_small_body_never_enters_the_app(
    connection: Connection, options: dict[str, Any]
) -> None:
    """What is read before the app starts is given up before it does."""
    app = Reading()
    with ASGIMiddleware(app, lifespan=False, **options, receive_timeout=0.05) as bridge:
        assert call(bridge, connection.environ(10)).status == "408 Request Timeout"
        assert bridge.statistics().stalled == 1
    assert app.seen == []


@THREAD_INLINE_TRIO
def test_client_that_stalls_after_the_head_breaks_its_response(connection: Connection, options: dict[str, Any]) -> None:
    """There is no second head: the server gets an error, which has it break the connection."""
    app = Reading(head_first=True)
    with ASGIMiddleware(app, lifespan=False, **options, receive_timeout=0.05) as bridge:
        exchange = Exchange(bridge, connection.environ(100_000)).begin()
        assert exchange.status == "200 OK"
        with pytest.raises(ClientDisconnected, match=r"sent nothing of its body for 0\.05 s"):
            list(exchange.iterator)
        exchange.close()
        assert bridge.statistics().stalled == 1


@THREAD_INLINE_TRIO
def test_client_that_sends_in_time_is_served(connection: Connection, options: dict[str, Any]) -> None:
    """The bound is one of each receive, not of the whole body."""
    app = Reading()
    connection.client.sendall(b"x" * 100_000)
    with ASGIMiddleware(app, lifespan=False, **options) as bridge:
        assert call(bridge, connection.environ(100_000)).body == b"read"
    assert set(connection.input.timeouts) == {60.0}
    assert connection.server.gettimeout() is None
    assert sum(len(message["body"]) for message in app.seen) == 100_000


@pytest.mark.parametrize(
    ("timeout", "before", "others", "seen"),
    [
        (None, None, {}, None),
        (60.0, 5.0, {}, 5.0),
        (60.0, None, {"SERVER_PROTOCOL": "HTTP/2.0"}, None),
    ],
    ids=["switched off", "the server's own is shorter", "HTTP/2"],
)
def test_socket_is_left_alone(
    connection: Connection, timeout: float | None, before: float | None, others: dict[str, Any], seen: float | None
) -> None:
    """Where the bound is not wanted or not needed, or the socket carries other requests as well."""
    connection.client.sendall(b"x" * 10)
    connection.server.settimeout(before)
    with ASGIMiddleware(Reading(), lifespan=False, receive_timeout=timeout) as bridge:
        assert call(bridge, connection.environ(10, **others)).body == b"read"
    assert connection.input.timeouts == [seen]
    assert connection.server.gettimeout() == before


@THREAD_INLINE_TRIO
def test_logging_that_raises_does_not_change_what_a_broken_body_is(options: dict[str, Any]) -> None:
    """The app hears of the disconnect all the same."""

    class Broken:
        def read(self, size: int) -> bytes:
            raise OSError("reset")

    def fail(record: logging.LogRecord) -> bool:
        raise RuntimeError("logging fails")

    app = Reading()
    logger = logging.getLogger("a2wsgi")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addFilter(fail)
    try:
        with ASGIMiddleware(app, lifespan=False, **options) as bridge:
            call(bridge, environ_of("POST", CONTENT_LENGTH="100000", wsgi__input=Broken()), fails=ClientDisconnected)
            assert bridge.statistics().disconnected == 1
    finally:
        logger.removeFilter(fail)
        logger.setLevel(level)
    assert app.seen == [{"type": "http.disconnect"}]


# -- What is read -----------------------------------------------------------------------------------------------------


def request(data: bytes, *, more: bool = False) -> dict[str, Any]:
    """A part of the body, as ASGI has it."""
    return {"type": "http.request", "body": data, "more_body": more}


DISCONNECT = {"type": "http.disconnect"}


def rest_of(body: RequestBody) -> list[Any]:
    """All messages that the app would get, from the first read on."""
    messages: list[Any] = body.first()
    while body.read is not None:
        messages += body.next()
    return messages


def test_small_body_is_one_message_before_the_app_starts() -> None:
    """However little the stream gives at a time."""
    body = RequestBody(environ_of("POST", body=b"abcdefg", wsgi__input=BodyStream(b"abcdefg", most=2)))
    assert body.first() == [request(b"abcdefg")]
    assert body.read is None
    assert body.next() == []


def test_large_body_is_read_when_it_is_asked_for() -> None:
    """At most `READ_BYTES` at a time, and never past its end."""
    stream = BodyStream(b"x" * (READ_BYTES + 1))
    body = RequestBody(environ_of("POST", body=b"x" * (READ_BYTES + 1), wsgi__input=stream))
    assert body.first() == []
    assert stream.reads == []
    assert rest_of(body) == [request(b"x" * READ_BYTES, more=True), request(b"x")]
    assert stream.reads == [READ_BYTES, 1]


def test_body_that_is_to_be_asked_for_is_not_read_before() -> None:
    """RFC 9110 §10.1.1: a read may have the server say "100 Continue", which is the app's to decide."""
    stream = BodyStream(b"abc")
    body = RequestBody(environ_of("POST", body=b"abc", wsgi__input=stream, HTTP_EXPECT="100-continue"))
    assert body.first() == []
    assert stream.reads == []
    assert rest_of(body) == [request(b"abc")]


@pytest.mark.parametrize("error", [None, OSError("gone"), ValueError("of the server's own")])
def test_body_that_ends_early_has_broken_off(error: Exception | None) -> None:
    """What came is kept, and a disconnect follows; whatever a server raises for it."""
    stream = BodyStream(b"abcdef", gone_after=4, error=error)
    body = RequestBody(environ_of("POST", body=b"abcdef", wsgi__input=stream))
    assert body.first() == [request(b"abcd", more=True), DISCONNECT]
    assert (body.broke_off, body.stalled, body.read) == (True, False, None)


@pytest.mark.parametrize("length", [6, READ_BYTES + 1], ids=["read before", "read on"])
def test_body_that_ends_early_says_so_in_the_log(length: int, caplog: pytest.LogCaptureFixture) -> None:
    """The app is only told of a disconnect: who sees no client leave finds here what else may have read the body."""
    caplog.set_level(logging.DEBUG, "a2wsgi")
    rest_of(RequestBody(environ_of("POST", body=b"x" * length, wsgi__input=BodyStream(b"x" * length, gone_after=4))))
    read = io.BytesIO(b"x" * length)
    read.read()
    rest_of(RequestBody(environ_of("POST", body=b"x" * length, wsgi__input=read)))
    why = "bytes: the client left, or something in front of the bridge has read wsgi.input"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", f"The request's body ended after 4 of {length} {why}"),
        ("DEBUG", f"The request's body ended after 0 of {length} {why}"),
    ]


def test_body_of_no_known_length_that_cannot_be_read_has_broken_off() -> None:
    """An error is no end, though nothing says how much is to come."""
    stream = BodyStream(b"abc", error=OSError("gone"), ends=True)
    body = RequestBody({**environ_of("POST"), "wsgi.input": stream, "wsgi.input_terminated": True})
    assert rest_of(body) == [request(b"abc", more=True), DISCONNECT]
    assert body.broke_off


class OddStream:
    """``wsgi.input`` that gives whatever a test wants."""

    def __init__(self, *gives: Any) -> None:
        self._gives = list(gives)

    def read(self, size: int) -> Any:
        return self._gives.pop(0)


@pytest.mark.parametrize("part", [bytearray(b"abc"), memoryview(b"abc")])
def test_buffer_is_taken_for_bytes(part: Any) -> None:
    """A server that gives its own buffer, which it may fill again."""
    body = RequestBody(environ_of("POST", body=b"abc", wsgi__input=OddStream(part)))
    assert body.first() == [request(b"abc")]


def test_stream_that_has_nothing_yet_is_at_its_end() -> None:
    """``io.RawIOBase.read`` gives None for that; there is nothing by which to wait for more."""
    body = RequestBody({**environ_of("POST"), "wsgi.input": OddStream(None), "wsgi.input_terminated": True})
    assert rest_of(body) == [request(b"")]


@pytest.mark.parametrize("length", [3, READ_BYTES + 1], ids=["read before", "read on"])
def test_stream_that_gives_more_than_it_was_asked_for_is_cut(length: int) -> None:
    """RFC 9112 §6.3: the body ends where its Content-Length says. What follows may be the next request."""
    environ = environ_of("POST", CONTENT_LENGTH=str(length), wsgi__input=OddStream(b"x" * length + b"GET / HTTP/1.1"))
    assert rest_of(RequestBody(environ)) == [request(b"x" * length)]


@pytest.mark.parametrize("part", ["text", 3])
def test_stream_that_gives_no_bytes_is_the_servers_fault(part: Any) -> None:
    """The error names the type."""
    body = RequestBody(environ_of("POST", body=b"abc", wsgi__input=OddStream(part)))
    with pytest.raises(ServerProtocolError, match=type(part).__name__):
        body.first()


def test_stream_without_read_is_the_servers_fault() -> None:
    """PEP 3333, "Input and Error Streams"."""
    with pytest.raises(ServerProtocolError, match="of type object, which has no read"):
        RequestBody(environ_of("POST", body=b"abc", wsgi__input=object()))


def test_malformed_length_is_a_bad_request() -> None:
    """RFC 9112 §6.3: the framing is not known, so nothing is read."""
    stream = BodyStream(b"abc")
    with pytest.raises(BadRequest):
        RequestBody(environ_of("POST", CONTENT_LENGTH="3x", wsgi__input=stream))
    assert stream.reads == []


def test_buffered_reader_gives_what_there_is() -> None:
    """``read(n)`` of one waits for n bytes: a client that sends slowly would be seen late."""
    reader, writer = socket.socketpair()
    with reader, writer, reader.makefile("rb") as stream:
        writer.sendall(b"first")
        length = str(READ_BYTES + 1)
        body = RequestBody(environ_of("POST", CONTENT_LENGTH=length, wsgi__input=stream))
        assert body.next() == [request(b"first", more=True)]


def test_body_in_memory_is_read_before_the_app_starts() -> None:
    """Though nobody has said how long it is: reading costs nothing."""
    body = RequestBody({**environ_of("POST"), "wsgi.input": io.BytesIO(b"abc")})
    assert body.first() == [request(b"abc", more=True)]
    assert body.next() == [request(b"")]


def test_nothing_is_read_of_a_stream_whose_end_nobody_knows() -> None:
    """RFC 9112 §6.3: neither a length nor an end is no body; a read could block for ever."""
    stream = BodyStream(b"abc")
    body = RequestBody({**environ_of("POST"), "wsgi.input": stream})
    assert rest_of(body) == [request(b"")]
    assert stream.reads == []


# -- What the app gets of it, through a bridge ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1_000_000])
def test_body_with_a_length_arrives_whole(bridge: Bridge, size: int) -> None:
    """DESIGN 5.2: a body is read by the server thread, at most 65,536 bytes at a time, and never past its length."""
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    environ = environ_of("POST", body=data)
    parts = max(1, -(-size // 65_536))
    assert call(bridge(echo), environ).body == b"r" * parts + b":" + data
    assert len(environ["wsgi.input"].reads) == (parts if size else 0)
    assert environ["wsgi.input"].threads <= {threading.get_ident()}


def test_stream_that_gives_less_than_asked_is_read_on(bridge: Bridge) -> None:
    """PEP 3333, "Input and Error Streams": a read may give less than it was asked for, and that is not the end."""
    environ = environ_of("POST", body=b"abcdefg", wsgi__input=BodyStream(b"abcdefg", most=2))
    assert call(bridge(echo), environ).body == b"r:abcdefg"


@alone("a body that is shorter than its length was cut off, for a bridge further in")
@pytest.mark.parametrize("missing", ["absent", "none"])
def test_missing_input_is_an_empty_body(bridge: Bridge, missing: str) -> None:
    """PAINS A4: wsgi.input may be None or absent."""
    environ = environ_of("POST", CONTENT_LENGTH="5", wsgi__input=None)
    if missing == "absent":
        del environ["wsgi.input"]
    assert call(bridge(echo), environ).body == b"r:"


def spooled(body: bytes) -> Any:
    """A body as servers have it that take all of it before they call the app."""
    file = tempfile.SpooledTemporaryFile[bytes](len(body) + 1)
    file.write(body)
    file.seek(0)
    return file


@pytest.mark.parametrize(
    ("stream", "others", "wanted"),
    [
        (BodyStream(b"chunks", ends=True), {"wsgi.input_terminated": True}, b"chunks"),
        (BodyStream(b"chunks"), {}, b""),
        (BodyStream(b"chunks"), {"wsgi.input_terminated": False}, b""),
        (io.BytesIO(b"chunks"), {}, b"chunks"),
        (spooled(b"chunks"), {}, b"chunks"),
    ],
    ids=["terminated", "unsaid", "not terminated", "BytesIO", "spooled"],
)
def test_body_without_a_length_is_read_where_it_has_an_end(
    bridge: Bridge, stream: Any, others: dict[str, Any], wanted: bytes
) -> None:
    """PAINS G3: a chunked body is read to the end of the stream where there is one, else not at all."""
    environ = {**environ_of("POST", HTTP_TRANSFER_ENCODING="chunked"), "wsgi.input": stream, **others}
    assert call(bridge(echo), environ).body.partition(b":")[2] == wanted
    if hasattr(stream, "_stream"):
        stream._stream.seek(0)  # the same object serves the next kind of bridge
        stream._left = 6
    else:
        stream.seek(0)


@alone("a bridge in between takes no response for a client that left")
@pytest.mark.parametrize("length", [100, 100_000], ids=["read before", "read on"])
@pytest.mark.parametrize("error", [None, OSError("reset")], ids=["eof", "raises"])
def test_body_that_ends_early_is_a_disconnect(bridge: Bridge, length: int, error: Exception | None) -> None:
    """PAINS E3: a client that hangs up in its body is http.disconnect after what came, and nothing spins."""
    stream = BodyStream(b"x" * length, gone_after=10, error=error)
    response = call(bridge(echo), environ_of("POST", body=b"x" * length, wsgi__input=stream))
    assert response.body == b"rd:" + b"x" * 10
    assert len(stream.reads) == 2


def test_expect_100_continue_is_left_to_the_app(bridge: Bridge) -> None:
    """RFC 9110 §10.1.1: a body that the client sends on demand is not read unless the app reads."""
    environ = environ_of("POST", body=b"abc", HTTP_EXPECT="100-continue")
    assert call(bridge(hello), environ) == HELLO
    assert environ["wsgi.input"].reads == []
    assert call(bridge(echo), environ).body == b"r:abc"


def test_malformed_content_length_is_answered_400(bridge: Bridge) -> None:
    """PAINS I12: CONTENT_LENGTH "abc" is the client's fault, and never reaches the app."""
    response = call(bridge(hello), environ_of("POST", CONTENT_LENGTH="abc"))
    assert response.status == "400 Bad Request"
