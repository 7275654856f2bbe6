"""One WebSocket of a WSGI app, from its handshake to its end, as an ASGI server sees it and as the app does."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from a2wsgi import (
    AppProtocolError,
    ClientDisconnected,
    InvalidHeader,
    WebSocket,
    WebSocketClosed,
    WSGIMiddleware,
    run_in_loop,
)
from a2wsgi._protocol.codec import available
from a2wsgi._protocol.frames import Close, Frames, Role
from a2wsgi._protocol.frames import Message as FromClient
from a2wsgi._protocol.upgrade import Handshake, accept_token, head_101
from a2wsgi._threads import call as _call
from a2wsgi._threads.runtime import Runtime
from a2wsgi._wsgi_on_asgi import loops as _loops
from a2wsgi._wsgi_on_asgi.websocket import failures
from support.asgi_driver import Message, run, until
from support.forks import forks_with_threads, in_child, living_child, needs_fork
from support.lockstep import BOUND_SECONDS, Signal
from support.runtimes import CANCELLATIONS, JobCancelled, for_ever, gather, only_on, pause, rest, start
from support.threads import in_thread
from support.websocket_driver import DENIAL, WebSocketClient, answer, talk, websocket_scope

pytestmark = [
    pytest.mark.skipif(not available(), reason="needs websockets"),
    pytest.mark.usefixtures("runtime"),
]

ACCEPT: Message = {"type": "websocket.accept", "subprotocol": None, "headers": []}


def text(data: str) -> Message:
    """A text of the app's."""
    return {"type": "websocket.send", "text": data}


def close(code: int, reason: str = "") -> Message:
    """A Close of the app's, or a refusal."""
    return {"type": "websocket.close", "code": code, "reason": reason}


def denial(status: int, headers: list[tuple[bytes, bytes]], *bodies: bytes) -> list[Message]:
    """A refusal by the denial extension."""
    return [
        {"type": f"{DENIAL}.start", "status": status, "headers": headers},
        *(
            {"type": f"{DENIAL}.body", "body": body, "more_body": number < len(bodies)}
            for number, body in enumerate(bodies, 1)
        ),
    ]


OVERLOAD = denial(
    503,
    [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"24"), (b"retry-after", b"1")],
    b"503 Service Unavailable\n",
)


def native(function: Callable[[WebSocket], object], *, max_websockets: int | None = None) -> WSGIMiddleware:
    """A bridge around an app of our own object."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        function(environ["a2wsgi.websocket"])
        return []

    return WSGIMiddleware(app, max_websockets=max_websockets)


def our_log(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What a2wsgi has logged."""
    records = [record for record in caplog.records if record.name == "a2wsgi" and record.levelno > logging.DEBUG]
    return [(record.levelname, record.getMessage()) for record in records]


@pytest.fixture
def quick_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the timer tick every 5 ms."""
    monkeypatch.setattr(_loops, "TICK_SECONDS", 0.005)


def accepted(environ: dict[str, Any]) -> socket.socket:
    """The app's socket, on which it has accepted as a library does."""
    sock: socket.socket = environ["werkzeug.socket"]
    handshake = Handshake(accept_token(environ["HTTP_SEC_WEBSOCKET_KEY"]), (), "")
    sock.sendall(head_101(handshake).data)
    return sock


def echo(ws: WebSocket) -> None:
    """Send back what comes."""
    for message in ws:
        ws.send(message)


# -- Messages ---------------------------------------------------------------------------------------------------------


def test_messages_go_both_ways_and_the_client_closes() -> None:
    """Text stays text and bytes stay bytes, in order; a client's Close ends the iteration."""

    async def play(client: WebSocketClient) -> None:
        for data in ("one", b"\x00two", "", "drei \N{SNOWMAN}", bytes(300_000)):
            client.says(data)
        await client.gets(6)
        client.leaves(1000)

    client, _ = talk(native(echo), play)
    assert client.sent[0] == ACCEPT
    assert client.data == ["one", b"\x00two", "", "drei \N{SNOWMAN}", bytes(300_000)]


def test_handler_runs_coroutines_on_the_servers_loop() -> None:
    """As a view does: one that waits when the client leaves is cancelled."""
    seen: list[object] = []

    async def where() -> threading.Thread:
        return threading.current_thread()

    def app(ws: WebSocket) -> None:
        seen.append(run_in_loop(where()))
        ws.send("waiting")
        try:
            run_in_loop(for_ever())
        except ClientDisconnected as error:
            seen.append(isinstance(error, ClientDisconnected))

    async def play(client: WebSocketClient) -> None:
        await client.gets(2)
        client.leaves(1001)

    talk(native(app), play)
    assert seen == [threading.current_thread(), True]


def test_handler_that_would_wait_on_the_loops_thread_gets_an_error() -> None:
    """A receive() there would stop the server; one that finds a message does not wait."""
    seen: list[object] = []

    async def handler(ws: WebSocket) -> None:
        for timeout in (None, BOUND_SECONDS):
            with pytest.raises(RuntimeError, match="thread that runs the server's event loop"):
                ws.receive(timeout)
        with pytest.raises(TimeoutError):
            ws.receive(timeout=0)
        ws.send("say it")
        while not seen:
            with contextlib.suppress(TimeoutError):
                seen.append(ws.receive(timeout=0))
            await rest()

    async def play(client: WebSocketClient) -> None:
        await client.gets(2)
        client.says("it")

    client, _ = talk(native(lambda ws: run_in_loop(handler(ws))), play)
    assert client.sent == [ACCEPT, text("say it"), close(1000)]
    assert seen == ["it"]


def test_acceptance_has_the_choices_of_the_app() -> None:
    """The subprotocol and the headers that the app chooses are in the message; what belongs to the link is not."""
    seen: list[tuple[str, ...]] = []

    def app(ws: WebSocket) -> None:
        seen.append(ws.subprotocols)
        ws.accept("b", [("Set-Cookie", "a=1"), ("X-Two", "2")])
        ws.accept()

    client, _ = talk(native(app), scope=websocket_scope(subprotocols=["a", "b"]))
    headers = [(b"set-cookie", b"a=1"), (b"x-two", b"2")]
    assert client.sent == [{"type": "websocket.accept", "subprotocol": "b", "headers": headers}, close(1000)]
    assert seen == [("a", "b")]


def test_subprotocol_that_was_not_offered_is_an_error() -> None:
    """The app's own call raises, and nothing was sent: RFC 6455 §4.2.2."""
    client, raised = talk(native(lambda ws: ws.accept("c")), fails=AppProtocolError)
    assert "'c'" in str(raised)
    assert client.sent == []


@pytest.mark.parametrize("by", ["scope", "header", "both"])
def test_subprotocol_that_a_library_chooses_was_offered(by: str) -> None:
    """By the server's list or by the client's header, as some servers give one of them."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        assert environ.pop("HTTP_SEC_WEBSOCKET_PROTOCOL") == "a, b"  # the environ is the app's to change
        handshake = Handshake(accept_token(environ["HTTP_SEC_WEBSOCKET_KEY"]), ("a", "b", "c"), "")
        environ["werkzeug.socket"].sendall(head_101(handshake, subprotocol=environ["HTTP_X_TAKE"]).data)
        return []

    def scope(take: bytes) -> dict[str, Any]:
        header = [(b"sec-websocket-protocol", b"a, b")] if by != "scope" else []
        return websocket_scope(subprotocols=["a", "b"] if by != "header" else [], headers=[(b"x-take", take), *header])

    bridge = WSGIMiddleware(app)
    client, _ = talk(bridge, scope=scope(b"b"))
    assert client.sent == [{**ACCEPT, "subprotocol": "b"}, close(1000)]
    client, raised = talk(bridge, scope=scope(b"c"), fails=AppProtocolError)
    assert "does not offer the subprotocol 'c'" in str(raised)
    assert client.sent == []


@pytest.mark.parametrize(
    ("header", "kind", "says"),
    [
        (("X-Price", "5 \N{EURO SIGN}"), InvalidHeader, "'X-Price' is not latin-1"),
        (("X \N{EURO SIGN}", "5"), InvalidHeader, "is not a token"),
        (("X-Price", 5), AppProtocolError, "'X-Price' with a value of type int"),
        (("X-Long", "x" * 1_000_000), AppProtocolError, "our limit"),
    ],
)
def test_headers_that_cannot_be_sent_are_an_error(header: Any, kind: type[Exception], says: str) -> None:
    """The app's own call raises, on the loop's thread too, and nothing was sent."""

    async def accept(ws: WebSocket) -> None:
        ws.accept(headers=[header])

    client, raised = talk(native(lambda ws: run_in_loop(accept(ws))), fails=kind)
    assert says in str(raised)
    assert client.sent == []


def test_headers_may_wait_for_another_call() -> None:
    """An iterable of them is the app's code: no lock is held while it runs, and who accepts first decides."""

    def app(ws: WebSocket) -> None:
        def headers() -> Iterator[tuple[str, str]]:
            in_thread(ws.send, "first").result()
            yield "X-Late", "1"

        ws.accept(headers=headers())

    client, _ = talk(native(app))
    assert client.sent == [ACCEPT, text("first"), close(1000)]


def test_receive_gives_up_after_its_timeout_and_loses_nothing() -> None:
    """What comes later is there for the next call."""
    timed_out = Signal("timeout")

    def app(ws: WebSocket) -> None:
        with pytest.raises(TimeoutError):
            ws.receive(timeout=0)
        with pytest.raises(TimeoutError):
            ws.receive(timeout=0.001)
        timed_out.set()
        ws.send(ws.receive(timeout=None))
        ws.send(ws.receive(timeout=10))

    async def play(client: WebSocketClient) -> None:
        await timed_out.wait_in_task()
        client.says("late")
        client.says("later")

    client, _ = talk(native(app), play)
    assert client.sent == [ACCEPT, text("late"), text("later"), close(1000)]


def test_messages_of_eight_threads_are_whole() -> None:
    """Several threads may send at a time."""
    messages = [f"{number}" * 10_000 for number in range(8)]

    def app(ws: WebSocket) -> None:
        def send_twenty(message: str) -> None:
            for _ in range(20):
                ws.send(message)

        senders = [in_thread(send_twenty, message) for message in messages]
        for sender in senders:
            sender.result()

    client, _ = talk(native(app))
    assert sorted(client.data) == sorted(messages * 20)


def test_text_of_a_subclass_is_its_own() -> None:
    """None of its methods runs on the loop, under a lock; the server gets a plain string."""

    class Text(str):
        __slots__ = ()

        def __len__(self) -> int:
            raise AssertionError("called")

        def __str__(self) -> str:
            raise AssertionError("called")

    client, _ = talk(native(lambda ws: ws.send(Text("caf\N{LATIN SMALL LETTER E WITH ACUTE}"))))
    assert client.sent == [ACCEPT, text("caf\N{LATIN SMALL LETTER E WITH ACUTE}"), close(1000)]
    assert type(client.data[0]) is str


def test_empty_and_missing_members_of_a_message_are_told_apart() -> None:
    """A server may give both members, one of them None; an empty text is a message."""

    async def play(client: WebSocketClient) -> None:
        client.say({"type": "websocket.receive", "text": None, "bytes": b"b"})
        client.say({"type": "websocket.receive", "text": "", "bytes": None})
        await client.gets(3)
        client.leaves()

    client, _ = talk(native(echo), play)
    assert client.data == [b"b", ""]


def test_slow_app_stops_the_server() -> None:
    """An app that reads nothing has its server read no further than the link's buffers."""
    opened, go_on = Signal("opened"), Signal("go on")

    def app(ws: WebSocket) -> None:
        ws.accept()
        opened.set()
        go_on.wait()
        assert sum(len(message) for message in ws) == 100 * 50_000

    async def play(client: WebSocketClient) -> None:
        for _ in range(100):
            client.says(bytes(50_000))
        client.leaves()
        await opened.wait_in_task()
        await until(lambda: client.receives > 2)  # the acceptance has come through
        before = -1
        while client.receives != before:  # it stands still when the buffers are full
            before = client.receives
            for _ in range(50):
                await rest()
        assert 2 < client.receives < 40
        go_on.set()

    client, _ = talk(native(app), play)
    assert client.receives == 102


def test_slow_client_stops_the_app() -> None:
    """An app whose server takes nothing is stopped by the link's buffers."""
    sent: list[int] = []
    release = Signal("release")

    async def on_send(number: int, message: Message) -> None:
        if number == 2:
            await release.wait_in_task()

    def app(ws: WebSocket) -> None:
        for number in range(100):
            ws.send(bytes(50_000))
            sent.append(number)

    async def play(client: WebSocketClient) -> None:
        await until(lambda: client.sends == 2)
        before = -1
        while len(sent) != before:
            before = len(sent)
            await pause(0.05)  # the app's thread tells nobody that it is stopped
        assert len(sent) < 40
        release.set()

    client, _ = talk(native(app), play, WebSocketClient(on_send))
    assert client.data == [bytes(50_000)] * 100


# -- The environ ------------------------------------------------------------------------------------------------------


def test_environ_is_that_of_a_handshake_on_any_server() -> None:
    """HTTP/2 has neither key nor Upgrade; libraries need both. No extension is offered: the server compresses."""
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.update(environ)
        start_response("403 Forbidden", [])
        return [environ["wsgi.input"].read()]

    headers = [(b"host", b"testserver"), (b"sec-websocket-extensions", b"permessage-deflate")]
    scope = websocket_scope(subprotocols=["a", "b"], http_version="2")
    scope["headers"] = headers
    talk(WSGIMiddleware(app), scope=scope)
    assert {key: seen.get(key) for key in seen if key.startswith("HTTP_")} == {
        "HTTP_HOST": "testserver",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
        "HTTP_SEC_WEBSOCKET_PROTOCOL": "a, b",
    }
    assert (seen["REQUEST_METHOD"], seen["SERVER_PROTOCOL"], seen["wsgi.url_scheme"]) == ("GET", "HTTP/1.1", "http")
    assert isinstance(seen["werkzeug.socket"], socket.socket)


def test_http_requests_have_no_websocket_in_their_environ() -> None:
    """The keys are there for a handshake only, so that an app may ask for them."""
    from support.asgi_driver import call

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [repr([key for key in environ if "websocket" in key or "socket" in key]).encode()]

    assert call(WSGIMiddleware(app)).body == b"[]"


# -- Refusals ---------------------------------------------------------------------------------------------------------


def refusing(status: str, headers: list[tuple[str, str]], *chunks: bytes) -> WSGIMiddleware:
    """A bridge around an app that answers as to any request."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response(status, headers)
        return iter(chunks)

    return WSGIMiddleware(app)


def test_refusal_arrives_whole_where_the_server_can_say_it() -> None:
    """Status, headers and body of the app's response go out by the denial extension."""
    client, _ = talk(refusing("401 Unauthorized", [("WWW-Authenticate", "Basic"), ("Content-Length", "3")], b"no!"))
    headers = [(b"www-authenticate", b"Basic"), (b"content-length", b"3")]
    assert client.sent[0] == denial(401, headers)[0]
    assert b"".join(message["body"] for message in client.sent[1:]) == b"no!"
    assert client.sent[-1]["more_body"] is False


@pytest.mark.parametrize("chunks", [(b"hello world",), (b"hel", b"lo", b" world"), (b"hello",)])
def test_refusal_ends_where_its_length_says(chunks: tuple[bytes, ...]) -> None:
    """What follows would be the next response on the connection."""
    client, _ = talk(refusing("401 Unauthorized", [("Content-Length", "5")], *chunks))
    assert b"".join(message["body"] for message in client.sent[1:]) == b"hello"
    assert client.sent[-1]["more_body"] is False


def test_refusal_that_is_shorter_than_its_length_is_an_error() -> None:
    """As of any response: it is broken off, and does not look complete."""
    client, raised = talk(refusing("401 Unauthorized", [("Content-Length", "50")], b"hello"), fails=AppProtocolError)
    assert "45 bytes before its Content-Length" in str(raised)
    assert all(message.get("more_body", True) for message in client.sent)


def test_refusal_in_one_piece_gets_a_length() -> None:
    """As any response of one piece."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("404 Not Found", [])
        return [b"not here"]

    client, _ = talk(WSGIMiddleware(app))
    assert client.sent[0]["status"] == 404
    assert b"".join(message["body"] for message in client.sent[1:]) == b"not here"


def test_long_refusal_is_streamed() -> None:
    """A body of a megabyte comes in parts, whole and in order."""
    parts = [bytes([number]) * 10_000 for number in range(100)]
    client, _ = talk(refusing("200 OK", [], *parts))
    assert client.sent[0]["status"] == 200
    assert b"".join(message["body"] for message in client.sent[1:]) == b"".join(parts)
    assert len(client.sent) > 3


def test_refusal_is_403_where_the_server_knows_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the status that the client does not see; the rest of the response is not asked for."""
    caplog.set_level(logging.INFO, "a2wsgi")
    client, _ = talk(refusing("401 Unauthorized", [], *[b"x" * 100_000] * 100), scope=websocket_scope(denial=False))
    assert client.sent == [close(1008)]
    assert our_log(caplog) == [("INFO", "403 to a WebSocket at '/ws': the app's answer is 401")]


def test_client_that_leaves_during_a_refusal_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """1. A part is being sent. 2. The client leaves. 3. The app's next part fails. 4. The loop looks at the failure."""
    over = Signal("the app's iterable is closed")

    class Body:
        def __init__(self, environ: dict[str, Any]) -> None:
            self.disconnected = environ["a2wsgi.disconnected"]

        def __iter__(self) -> Iterator[bytes]:
            yield bytes(100_000)
            self.disconnected.wait()
            yield b"to nobody"

        def close(self) -> None:
            over.set()

    def app(environ: dict[str, Any], start_response: Any) -> Body:
        start_response("401 Unauthorized", [])
        return Body(environ)

    async def on_send(number: int, message: Message) -> None:
        if number == 2:
            client.leaves(1006)
            try:
                await for_ever()
            except CANCELLATIONS:
                over.wait()
                raise

    client = WebSocketClient(on_send)
    talk(WSGIMiddleware(app), None, client)
    assert [message["type"] for message in client.sent] == [f"{DENIAL}.start"]
    assert our_log(caplog) == []


def test_refusal_on_the_socket_is_passed_on() -> None:
    """A library may write a response on its socket; the one that it returns besides is thrown away."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["werkzeug.socket"].sendall(b"HTTP/1.1 418 Teapot\r\nContent-Length: 4\r\nX-A: b\r\n\r\ntea!")
        start_response("200 OK", [])
        return [b"garbage"]

    client, _ = talk(WSGIMiddleware(app))
    assert client.sent == denial(418, [(b"content-length", b"4"), (b"x-a", b"b")], b"tea!")


def test_refusal_on_the_socket_in_tiny_chunks_does_not_hold_the_loop() -> None:
    """They take long to read, and are here already: the loop goes round meanwhile."""
    written = Signal("the app has written all")
    seen: list[int] = []  # how often the loop had gone round as each message was sent
    rounds = 0

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        sock = environ["werkzeug.socket"]
        sock.sendall(b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 5_000 + b"0\r\n\r\n")
        written.set()
        return []

    async def on_send(number: int, message: Message) -> None:
        written.wait()
        seen.append(rounds)

    async def count(client: WebSocketClient) -> None:
        nonlocal rounds
        while len(seen) < 2:
            await rest()
            rounds += 1

    client, _ = talk(WSGIMiddleware(app), count, WebSocketClient(on_send))
    assert client.sent == denial(401, [], b"x" * 5_000)
    assert seen[1] - seen[0] >= 30_000 // 4_096 - 1


def test_close_before_the_acceptance_refuses() -> None:
    """As in ASGI, and in our own object's documentation."""
    client, _ = talk(native(lambda ws: ws.close()))
    assert client.sent[0]["status"] == 403


def test_exception_before_the_acceptance_reaches_the_server() -> None:
    """The very same object, and nothing was sent: the server answers."""
    error = ValueError("boom")

    def app(ws: WebSocket) -> None:
        raise error

    client, raised = talk(native(app), fails=ValueError)
    assert raised is error
    assert client.sent == []


def test_app_without_an_answer_is_an_error() -> None:
    """An app that returns, and has neither used the socket nor said a head."""
    client, _ = talk(native(lambda ws: None), fails=AppProtocolError)
    assert client.sent == []


def test_socket_that_says_no_http_is_an_error() -> None:
    """What comes on the socket first must be a head."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["werkzeug.socket"].sendall(b"hello")
        return []

    client, raised = talk(WSGIMiddleware(app), fails=AppProtocolError)
    assert "HTTP/1.1" in str(raised)
    assert client.sent == []


def test_error_that_comes_of_a_broken_answer_says_so() -> None:
    """A library fails when its socket ends. Its own error reaches the server, and shows what was wrong before."""
    error = ConnectionError("the socket has ended")

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["werkzeug.socket"].sendall(b"hello")
        assert environ["werkzeug.socket"].recv(100) == b""
        raise error

    _, raised = talk(WSGIMiddleware(app), fails=ConnectionError)
    assert raised is error
    assert isinstance(error.__context__, AppProtocolError)
    assert "HTTP/1.1" in str(error.__context__)


def test_malformed_length_is_refused_with_400() -> None:
    """As in a request."""
    client, _ = talk(native(echo), scope=websocket_scope(headers=[(b"content-length", b"x")]))
    assert client.sent[0]["status"] == 400


# -- Endings: the table -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [
        (1005, "", (1005, "")),
        (None, None, (1005, "")),
        (1000, "", (1000, "")),
        (1001, "away", (1001, "away")),
        (4444, "mine", (4444, "mine")),
        (1006, "", (1006, "")),
        (1015, "tls", (1006, "")),
        (999, "", (1006, "")),
    ],
)
def test_code_of_the_client_reaches_the_app(code: int, reason: str, told: tuple[int, str]) -> None:
    """A code that may travel does; whatever else the server says means that the connection was lost."""
    seen: list[object] = []

    def app(ws: WebSocket) -> None:
        ws.accept()
        with pytest.raises(WebSocketClosed) as caught:
            ws.receive()
        seen.extend([(caught.value.code, caught.value.reason), (ws.close_code, ws.close_reason), ws.closed])
        with pytest.raises(WebSocketClosed) as caught:
            ws.send("too late")
        seen.append((caught.value.code, caught.value.reason))

    async def play(client: WebSocketClient) -> None:
        await client.gets(1)
        client.leaves(code, reason)

    client, _ = talk(native(app), play)
    assert seen == [told, told, True, told]
    assert client.sent == [ACCEPT]


def test_send_that_fails_knows_the_code_of_the_client() -> None:
    """An app that only sends learns why it cannot, and what came before is still there to be received."""
    left = Signal("left")
    seen: list[object] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        ws = environ["a2wsgi.websocket"]
        ws.accept()
        environ["a2wsgi.disconnected"].wait(10)
        with pytest.raises(WebSocketClosed) as caught:
            ws.send("too late")
        seen.extend([caught.value.code, ws.receive()])
        return []

    async def play(client: WebSocketClient) -> None:
        await client.gets(1)
        client.says("first")
        client.leaves(4000)
        left.set()

    talk(WSGIMiddleware(app), play)
    assert seen == [4000, "first"]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("raw", [False, True])
def test_send_that_raises_hides_no_last_words_of_the_client(raw: bool, number: int) -> None:
    """The race: 1. the client says its last words, and leaves; 2. send() raises; 3. receive() would have told them."""
    error = OSError("gone")
    seen: list[object] = []
    frames = Frames(Role.SERVER, max_message_bytes=None)

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if raw:
            sock = accepted(environ)
            if number == 2:
                sock.sendall(frames.message("x"))
            while data := sock.recv(1_000):
                seen.extend(frames.feed(data))
            return []
        ws = environ["a2wsgi.websocket"]
        ws.accept()
        if number == 2:
            ws.send("x")
        seen.extend(map(FromClient, ws))
        seen.append(Close(ws.close_code, ws.close_reason))
        return []

    async def on_send(count: int, message: Message) -> None:
        if count == number:
            client.sent.append(message)  # a client says nothing before that
            for word in ("last", "words"):
                client.says(word)
            client.leaves(4444, "mine")
            raise error

    client = WebSocketClient(on_send)
    _, raised = talk(WSGIMiddleware(app), None, client, fails=OSError)
    assert raised is error
    assert seen == [FromClient("last"), FromClient("words"), Close(4444, "mine")]


def test_send_that_raises_ends_it_though_its_client_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wraps send() may raise an OSError of another kind, and the client has not left."""
    monkeypatch.setattr(failures, "MOST_DISCONNECT_SECONDS", 0.2)
    error = FileNotFoundError("a log of somebody's")

    def app(ws: WebSocket) -> None:
        ws.send("x")
        for _ in ws:
            client.says("more")

    async def on_send(count: int, message: Message) -> None:
        if count == 2:
            client.says("first")
            raise error

    client = WebSocketClient(on_send)
    _, raised = talk(native(app), None, client, fails=OSError)
    assert raised is error


def test_code_of_the_app_reaches_the_server() -> None:
    """What was sent before comes first; nothing comes after."""

    def app(ws: WebSocket) -> None:
        ws.send("last")
        ws.close(4001, "bye")
        ws.close(4002)
        assert (ws.closed, ws.close_code, ws.close_reason) == (True, 4001, "bye")
        with pytest.raises(WebSocketClosed):
            ws.receive()

    client, _ = talk(native(app))
    assert client.sent == [ACCEPT, text("last"), close(4001, "bye")]


def test_code_that_is_no_int_is_an_error_of_the_apps_call() -> None:
    """It would fail on the loop otherwise, where the frame is made; the app may close by another."""

    def app(ws: WebSocket) -> None:
        ws.accept()
        with pytest.raises(TypeError, match="of type float"):
            ws.close(1000.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # that is the mistake
        ws.close(4001)

    client, _ = talk(native(app))
    assert client.sent == [ACCEPT, close(4001)]


def test_last_words_survive_a_message_that_crosses_them() -> None:
    """A write to an app that has closed its end loses the link, but not what the app wrote before that."""
    closed = Signal("closed")

    def app(ws: WebSocket) -> None:
        ws.send("hello")
        ws.receive()
        for _ in range(20):
            ws.send("x" * 1000)
        ws.close(4001)
        closed.set()

    async def on_send(number: int, message: Message) -> None:
        if number == 2:
            client.says("go on")
        if number == 3:
            closed.wait()  # the loop stands still, and then finds all of it at once
            for _ in range(10):
                client.says("crossing")

    client = WebSocketClient(on_send)
    talk(native(app), None, client)
    assert client.data == ["hello", *["x" * 1000] * 20]
    assert client.sent[-1] == close(4001)


def test_app_that_returns_closes_with_1000() -> None:
    """Its socket ends without a Close."""
    client, _ = talk(native(lambda ws: ws.accept()))
    assert client.sent == [ACCEPT, close(1000)]


def test_app_that_raises_closes_with_1011() -> None:
    """The client is told that it failed, and the server has the very same object."""
    error = ValueError("boom")

    def app(ws: WebSocket) -> None:
        ws.send("x")
        raise error

    client, raised = talk(native(app), fails=ValueError)
    assert raised is error
    assert client.sent == [ACCEPT, text("x"), close(1011)]


class _OfNoModuleError(Exception):
    __module__ = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # as some that are generated


class _NotHashable(type):
    __hash__ = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


class _OfNoHashError(Exception, metaclass=_NotHashable):
    pass


@pytest.mark.parametrize("number", [0, 1])
def test_error_of_an_odd_class_is_a_failure_like_any_other(number: int) -> None:
    """What its class lacks is not asked for."""
    error = (_OfNoModuleError, _OfNoHashError)[number]()  # pytest would hash the class

    def app(ws: WebSocket) -> None:
        ws.accept()
        raise error

    client, raised = talk(native(app), fails=Exception)
    assert raised is error
    assert client.sent == [ACCEPT, close(1011)]


@pytest.mark.parametrize(("status", "code"), [("200 OK", 1000), ("404 Not Found", 1000), ("500 Oh", 1011)])
def test_response_after_the_socket_was_used_is_thrown_away(status: str, code: int) -> None:
    """Frameworks make a page of an exception in a view; nothing of it is sent, and only its status counts."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        environ["a2wsgi.websocket"].send("x")
        start_response(status, [])
        for _ in range(1000):
            yield b"page" * 1000

    client, _ = talk(WSGIMiddleware(app))
    assert client.sent == [ACCEPT, text("x"), close(code)]


@pytest.mark.parametrize("error", [ConnectionError(), StopIteration()])
def test_exception_by_which_libraries_end_is_none(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """What engineio and Flask-Sock raise to tell their server that the socket was used is no error."""
    caplog.set_level(logging.INFO, "a2wsgi")

    def app(ws: WebSocket) -> None:
        ws.send("x")
        ws.close()
        raise error

    client, _ = talk(native(app))
    assert client.sent == [ACCEPT, text("x"), close(1000)]
    assert our_log(caplog) == []


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("error", [ConnectionError(), StopIteration()])
def test_exception_by_which_libraries_end_is_none_after_a_refusal(
    error: Exception, raw: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The socket was used for that."""
    caplog.set_level(logging.INFO, "a2wsgi")

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if raw:
            environ["werkzeug.socket"].sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        else:
            environ["a2wsgi.websocket"].close()
        raise error

    client, _ = talk(WSGIMiddleware(app))
    assert client.sent == denial(403, [(b"content-length", b"0")], b"")
    assert our_log(caplog) == []


@pytest.mark.parametrize("answer", [b"HTTP/1.1 403 For", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nN"])
def test_exception_by_which_libraries_end_is_a_failure_in_the_middle_of_an_answer(answer: bytes) -> None:
    """What is cut off is no answer."""
    error = ConnectionError()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["werkzeug.socket"].sendall(answer)
        raise error

    client, raised = talk(WSGIMiddleware(app), fails=ConnectionError)
    assert raised is error
    assert all(message.get("more_body", True) for message in client.sent)


@pytest.mark.parametrize("kind", [ConnectionRefusedError, ConnectionResetError, BrokenPipeError])
def test_failed_connection_of_the_app_is_a_failure(kind: type[Exception]) -> None:
    """A database that is not there is an error of the app's, while its WebSocket is open."""
    error = kind()

    def app(ws: WebSocket) -> None:
        ws.accept()
        raise error

    client, raised = talk(native(app), fails=kind)
    assert raised is error
    assert client.sent == [ACCEPT, close(1011)]


@pytest.mark.parametrize("accepts", [True, False])
def test_closed_websocket_of_another_client_is_a_failure(accepts: bool) -> None:
    """An app that passes a message on to a peer who has left, and does not expect that, has failed."""
    peers: list[WebSocket] = []

    def app(ws: WebSocket) -> None:
        if not peers:
            peers.append(ws)
            ws.close()
            return
        if accepts:
            ws.accept()
        peers[0].send("news")

    bridge = native(app)
    talk(bridge)
    client, raised = talk(bridge, fails=WebSocketClosed)
    assert isinstance(raised, WebSocketClosed)
    assert client.sent == ([ACCEPT, close(1011)] if accepts else [])


def test_write_to_a_socket_that_has_ended_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A library may raise what its socket does, once the client has left."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        sock = accepted(environ)
        while sock.recv(100):
            pass
        raise BrokenPipeError

    async def play(client: WebSocketClient) -> None:
        await client.gets(1)
        client.leaves(1001)

    talk(WSGIMiddleware(app), play)
    assert our_log(caplog) == []


def test_answer_to_a_client_that_has_left_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """Nor is what the socket raises when a library answers the handshake after that."""
    caplog.set_level(logging.INFO, "a2wsgi")
    entered = Signal("entered")
    seen: list[BaseException] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        entered.set()
        assert environ["a2wsgi.disconnected"].wait(BOUND_SECONDS)
        try:
            while True:
                accepted(environ)
        except OSError as error:
            seen.append(error)
            raise

    async def play(client: WebSocketClient) -> None:
        await entered.wait_in_task()
        client.leaves(1006)

    client, _ = talk(WSGIMiddleware(app), play)
    assert client.sent == []
    assert len(seen) == 1
    assert our_log(caplog) == []


def test_frames_that_break_the_protocol_close_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    """The app's library is at fault; RSV1 would need an extension, and none was offered."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        sock = accepted(environ)
        sock.sendall(b"\xc1\x01x")
        assert sock.recv(100) == b""
        return []

    client, _ = talk(WSGIMiddleware(app))
    assert client.sent == [ACCEPT, close(1011)]
    ((level, said),) = our_log(caplog)
    assert level == "ERROR"
    assert "RFC 6455" in said


def test_ping_on_the_link_is_answered_there() -> None:
    """Libraries ping their client; ASGI knows no pings."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        sock = accepted(environ)
        sock.sendall(b"\x89\x02hi")
        pong = sock.recv(100)
        assert pong[:2] == b"\x8a\x82"
        sock.sendall(b"\x81\x06ponged")
        return []

    client, _ = talk(WSGIMiddleware(app))
    assert client.sent == [ACCEPT, text("ponged"), close(1000)]


def test_pings_of_an_app_that_reads_no_pong_take_no_memory() -> None:
    """RFC 6455 §5.5.3: a pong for the latest may do. So the app can still send, and gets the latest when it reads."""
    from a2wsgi._wsgi_on_asgi.websocket import link

    pings = [b"\x89\x7d" + b"%0125d" % number for number in range(10_000)]
    read: list[bytes] = []
    go = Signal("go")

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        sock = accepted(environ)
        sock.sendall(b"".join([*pings, b"\x81\x04sent"]))
        go.wait()
        sock.settimeout(10)
        data = b""
        while not data.endswith(b"%0125d" % 9_999):
            data += sock.recv(65_536)
        read.append(data)
        return []

    async def play(client: WebSocketClient) -> None:
        await client.gets(2)
        (one,) = link._open_links
        assert one._transport.get_write_buffer_size() < 100_000
        go.set()

    client, _ = talk(WSGIMiddleware(app), play)
    assert client.sent == [ACCEPT, text("sent"), close(1000)]
    assert len(read[0]) < 1_000_000


def test_client_that_leaves_wakes_an_app_that_is_blocked_in_send() -> None:
    """Also where the server's send() never returns, as hypercorn's may."""
    seen: list[BaseException] = []

    async def on_send(number: int, message: Message) -> None:
        if number == 2:
            await for_ever()

    def app(ws: WebSocket) -> None:
        try:
            while True:
                ws.send(bytes(100_000))
        except WebSocketClosed as error:
            seen.append(error)

    async def play(client: WebSocketClient) -> None:
        await until(lambda: client.sends == 2)
        client.leaves(1006)

    client, _ = talk(native(app), play, WebSocketClient(on_send))
    assert client.sent == [ACCEPT]
    assert [error.code for error in seen if isinstance(error, WebSocketClosed)] == [1006]


def test_client_that_leaves_before_the_answer_ends_the_app() -> None:
    """The app's next call on the WebSocket says so, and nothing is sent."""
    seen: list[object] = []
    entered = Signal("entered")

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        entered.set()
        assert environ["a2wsgi.disconnected"].wait(10)
        with pytest.raises(WebSocketClosed) as caught:
            environ["a2wsgi.websocket"].accept()
        seen.append(caught.value.code)
        return []

    async def play(client: WebSocketClient) -> None:
        await entered.wait_in_task()
        client.leaves(1006)

    client, _ = talk(WSGIMiddleware(app), play)
    assert client.sent == []
    assert seen == [1006]


def test_send_that_raises_reaches_the_server_again() -> None:
    """Whatever the server raises in send() is its own to see; the app's calls end."""
    error = OSError("gone")

    async def on_send(number: int, message: Message) -> None:
        if number == 2:
            raise error

    client, raised = talk(native(echo_of_itself), None, WebSocketClient(on_send), fails=OSError)
    assert raised is error
    assert client.sent == [ACCEPT]


def echo_of_itself(ws: WebSocket) -> None:
    """Sends until it is told that nobody is there."""

    def send_on() -> None:
        while True:
            ws.send("x")

    with pytest.raises(WebSocketClosed):
        send_on()


def test_app_that_floods_its_client_does_not_hold_the_loop() -> None:
    """Whatever it has sent is here already, and the server's ``send()`` never waits."""
    flooded = Signal("the app has sent all")
    seen: list[int] = []  # how often the loop had gone round as each message was sent
    rounds = 0

    def app(ws: WebSocket) -> None:
        ws.accept()
        for _ in range(1_000):
            ws.send("x")
        flooded.set()

    async def on_send(number: int, message: Message) -> None:
        if number == 2:
            flooded.wait()
        if message["type"] == "websocket.send":
            seen.append(rounds)

    async def count(client: WebSocketClient) -> None:
        nonlocal rounds
        while len(seen) < 1_000:
            await rest()
            rounds += 1

    talk(native(app), count, WebSocketClient(on_send))
    assert seen[-1] - seen[1] >= 1_000 // 64 - 1


@only_on("asyncio", reason="the ending is forced by the hands of its runtime")
def test_nothing_is_sent_after_an_end_that_comes_as_the_loop_goes_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app has sent more, but its client has left."""
    flooded = Signal("the app has sent all")

    def app(ws: WebSocket) -> None:
        ws.accept()
        for _ in range(100):
            ws.send("x")
        flooded.set()

    async def on_send(number: int, message: Message) -> None:
        if number == 2:
            flooded.wait()

    async def go_round() -> None:
        if len(client.data) == 63:  # and an acceptance: a multiple of 32 messages
            (session,) = bridge._websockets.open
            session._client_closed({"type": "websocket.disconnect", "code": 1001})

    bridge, client = native(app), WebSocketClient(on_send)
    monkeypatch.setattr(Runtime, "go_round", staticmethod(go_round))
    talk(bridge, None, client)
    assert client.data == ["x"] * 63


def test_receive_that_raises_reaches_the_server_again() -> None:
    """As in send()."""
    error = RuntimeError("broken")

    class Broken(WebSocketClient):
        async def receive(self) -> Message:
            if self.receives:
                await until(lambda: len(self.sent) > 1)
                raise error
            return await super().receive()

    client, raised = talk(native(echo_of_itself), None, Broken(), fails=RuntimeError)
    assert raised is error
    assert client.sent[0] == ACCEPT
    error.with_traceback(None)  # Python 3.13 without a GIL never frees the class, which has it


def test_message_without_a_type_is_the_servers_fault() -> None:
    """It says so by an error, and the app's calls end."""
    from a2wsgi import ServerProtocolError

    async def play(client: WebSocketClient) -> None:
        await client.gets(2)
        client.say({})

    class Odd(WebSocketClient):
        async def receive(self) -> Message:
            message = await self._next_message()
            self.receives += 1
            return message

    talk(native(echo_of_itself), play, Odd(), fails=ServerProtocolError)


def test_message_without_data_is_the_servers_fault() -> None:
    """It says which keys are missing."""
    from a2wsgi import ServerProtocolError

    async def play(client: WebSocketClient) -> None:
        await client.gets(2)
        client.say({"type": "websocket.receive"})

    _, raised = talk(native(echo_of_itself), play, fails=ServerProtocolError)
    assert "neither text nor bytes" in str(raised)


@only_on("asyncio", "uvloop", reason="Nobody may raise trio's")
def test_receive_that_is_cancelled_by_itself_ends_the_websocket() -> None:
    """A middleware may do so. The app is told that its client is lost."""

    class Cancels(WebSocketClient):
        async def receive(self) -> Message:
            if self.receives:
                await until(lambda: len(self.sent) > 1)
                raise asyncio.CancelledError
            return await super().receive()

    client, _ = talk(native(echo_of_itself), None, Cancels())
    assert client.sent[0] == ACCEPT


def test_cancelled_call_ends_the_app() -> None:
    """It does not wait for the app, which finds its WebSocket closed."""
    over = Signal("the app is over")

    def app(ws: WebSocket) -> None:
        ws.accept()
        with pytest.raises(WebSocketClosed):
            ws.receive()
        over.set()

    async def main() -> None:
        client = WebSocketClient()
        task = start(bridge(websocket_scope(), client.receive, client.send))
        await client.gets(1)
        task.cancel()
        with pytest.raises(JobCancelled):
            await task
        await over.wait_in_task()
        assert client.sent == [ACCEPT]

    bridge = native(app)
    run(main())
    assert bridge.statistics().websockets == 0


def test_client_that_takes_nothing_is_given_up(quick_timer: None, caplog: pytest.LogCaptureFixture) -> None:
    """After send_timeout its app is told, and the statistics count it."""

    async def on_send(number: int, message: Message) -> None:
        if number == 2:
            await for_ever()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        echo_of_itself(environ["a2wsgi.websocket"])
        return []

    bridge = WSGIMiddleware(app, send_timeout=0.05)
    client, _ = talk(bridge, None, WebSocketClient(on_send))
    assert client.sent == [ACCEPT]
    assert bridge.statistics().stalled == 1
    assert our_log(caplog) == [("WARNING", "WebSocket aborted: the client read nothing of its messages for 0.05 s")]


def test_failure_after_the_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is there to raise it to."""

    def app(ws: WebSocket) -> None:
        ws.accept()
        list(ws)
        raise ValueError("boom")

    async def play(client: WebSocketClient) -> None:
        await client.gets(1)
        client.leaves()

    talk(native(app), play)
    assert our_log(caplog) == [("ERROR", "The WSGI app failed after its WebSocket was over")]


@pytest.mark.parametrize("how", ["send", "receive", "cancelled"])
def test_failure_after_the_server_has_ended_it_is_logged(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """The server gets its own error, or its cancellation, and the log has the app's."""
    go_on = Signal("the server has ended it")

    class Broken(WebSocketClient):
        async def receive(self) -> Message:
            if self.receives and how == "receive":
                await until(lambda: bool(self.sent))
                go_on.set()
                raise LookupError("the server's")
            return await super().receive()

    async def on_send(number: int, message: Message) -> None:
        if number == 2:
            go_on.set()
            raise LookupError("the server's")

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        ws = environ["a2wsgi.websocket"]
        ws.accept()
        if how == "send":
            ws.send("x")
        go_on.wait()
        environ["a2wsgi.disconnected"].wait()
        raise ValueError("boom")

    async def main() -> None:
        bridge, client = WSGIMiddleware(app), Broken(on_send)
        call = start(bridge(websocket_scope(), client.receive, client.send))
        await client.gets(1)
        if how == "cancelled":
            call.cancel()
        with pytest.raises(JobCancelled if how == "cancelled" else LookupError):
            await call
        go_on.set()
        await until(lambda: bool(our_log(caplog)))

    run(main())
    assert our_log(caplog) == [("ERROR", "The WSGI app failed after its WebSocket was over")]
    caplog.clear()


# -- Clean-up on the loop ---------------------------------------------------------------------------------------------


async def here() -> threading.Thread:
    """The loop's thread, after a while."""
    for _ in range(10):
        await rest()
    return threading.current_thread()


def iterates(environ: dict[str, Any]) -> None:
    """Receive until the end."""
    assert list(environ["a2wsgi.websocket"]) == []


def receives(environ: dict[str, Any]) -> None:
    """Be told by an exception."""
    with pytest.raises(WebSocketClosed):
        environ["a2wsgi.websocket"].receive()


def sends(environ: dict[str, Any]) -> None:
    """Be told by a message that cannot be sent."""
    ws = environ["a2wsgi.websocket"]
    ws.accept()
    environ["a2wsgi.disconnected"].wait()
    with pytest.raises(WebSocketClosed):
        ws.send("too late")


def reads_frames(environ: dict[str, Any]) -> None:
    """As a library does."""
    sock = accepted(environ)
    while sock.recv(100):
        pass


@pytest.mark.parametrize("listen", [iterates, receives, sends, reads_frames])
@pytest.mark.parametrize("ending", ["leaves", "cancelled", "shut down"])
def test_app_that_was_told_of_the_end_cleans_up_on_the_loop(
    listen: Callable[[dict[str, Any]], None], ending: str
) -> None:
    """Each of its calls runs, until it is through: the end was told, and is not told again."""
    seen: list[object] = []
    cleaned_up = Signal("the app has cleaned up")
    call_is_over = Signal("the server's call is over")

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            listen(environ)
            if ending == "cancelled":
                call_is_over.wait()
            seen.extend(run_in_loop(here()) for _ in range(2))
        except BaseException as error:
            seen.append(error)
            raise
        finally:
            cleaned_up.set()
        return []

    bridge = WSGIMiddleware(app)

    async def main() -> None:
        client = WebSocketClient()
        call = start(bridge(websocket_scope(), client.receive, client.send))
        await client.gets(1)
        if ending == "leaves":
            client.leaves(1001)
        elif ending == "shut down":
            await shut_down(bridge)
        else:
            call.cancel()
            with pytest.raises(JobCancelled):
                await call
            call_is_over.set()
        await cleaned_up.wait_in_task()
        if ending != "cancelled":
            await call

    run(main())
    assert seen == [threading.current_thread()] * 2


@pytest.mark.parametrize("raw", [False, True])
def test_app_that_has_closed_cleans_up_on_the_loop(raw: bool) -> None:
    """Its own Close ends no call that is under way when the loop comes to it, nor one that follows."""
    seen: list[object] = []

    async def until_closed() -> threading.Thread:
        await until(lambda: client.sent[-1:] == [close(4001)])
        return await here()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if raw:
            accepted(environ).sendall(b"\x88\x02\x0f\xa1")
        else:
            environ["a2wsgi.websocket"].accept()
            environ["a2wsgi.websocket"].close(4001)
        seen.extend(run_in_loop(until_closed()) for _ in range(2))
        return []

    client = WebSocketClient()
    talk(WSGIMiddleware(app), None, client)
    assert seen == [threading.current_thread()] * 2


def test_app_that_has_closed_waits_for_no_endless_call_of_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no clean-up: the app has closed, and joins a thread that waits for another message to pass on."""
    monkeypatch.setattr(_call, "GRACE_SECONDS", 0.01)
    begun = Signal("the coroutine begins")
    joined: list[bool] = []

    async def next_news() -> None:
        begun.set()
        await for_ever()

    def app(ws: WebSocket) -> None:
        ws.accept()
        thread = in_thread(contextvars.copy_context().run, lambda: run_in_loop(next_news()))
        begun.wait()
        ws.close(4001)
        with pytest.raises(ClientDisconnected):
            thread.result()
        joined.append(True)

    client, _ = talk(native(app))
    assert client.sent == [ACCEPT, close(4001)]
    assert joined == [True]


def test_app_that_has_refused_cleans_up_on_the_loop() -> None:
    """The end of the refusal ends no call of the iterable's close(), nor one that follows."""
    seen: list[object] = []
    begun = Signal("the first call begins")

    async def until_refused() -> threading.Thread:
        begun.set()
        await until(lambda: len(client.sent) == 2)
        return await here()

    class Body(list[bytes]):
        def close(self) -> None:
            seen.extend(run_in_loop(until_refused()) for _ in range(2))

    def app(environ: dict[str, Any], start_response: Any) -> Body:
        start_response("403 Forbidden", [("Content-Length", "3")])
        return Body([b"no!"])

    async def on_send(number: int, message: Message) -> None:
        if number == 2:
            await begun.wait_in_task()

    client = WebSocketClient(on_send)
    talk(WSGIMiddleware(app), None, client)
    assert client.sent == denial(403, [(b"content-length", b"3")], b"no!")
    assert seen == [threading.current_thread()] * 2


def test_call_of_an_app_that_was_told_nothing_ends_with_its_client() -> None:
    """One that is under way is ended, and one that follows the end raises."""
    seen: list[object] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["a2wsgi.websocket"].accept()
        environ["a2wsgi.disconnected"].wait()
        for _ in range(2):
            try:
                seen.append(run_in_loop(here()))
            except ClientDisconnected as error:
                seen.append(type(error))
        return []

    async def play(client: WebSocketClient) -> None:
        await client.gets(1)
        client.leaves(1001)

    talk(WSGIMiddleware(app), play)
    assert seen == [ClientDisconnected, threading.current_thread()]


def test_exception_that_is_raised_into_the_worker_at_the_end_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Libraries that limit a function's time may do so a moment late, as the socket is about to be let go."""
    from a2wsgi._wsgi_on_asgi.websocket.app import AppRun

    end, ends = AppRun.end_of_socket, iter([True])

    def end_of_socket(self: AppRun) -> None:
        if next(ends, False):
            raise TimeoutError("late")
        end(self)

    monkeypatch.setattr(AppRun, "end_of_socket", end_of_socket)
    client, _ = talk(native(lambda ws: ws.send("x")), fails=TimeoutError)
    assert client.sent == [ACCEPT, text("x"), close(1011)]


# -- Shutdown ---------------------------------------------------------------------------------------------------------


async def shut_down(bridge: WSGIMiddleware) -> None:
    """Have a server's lifespan end, from its startup on."""
    from support.asgi_driver import Client

    lifespan = Client(messages=[{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    await bridge({"type": "lifespan", "asgi": {"version": "3.0"}}, lifespan.receive, lifespan.send)
    assert lifespan.sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


def test_shutdown_closes_with_1012() -> None:
    """The client and the app are told; the server's shutdown goes on when both are through."""
    seen: list[object] = []

    def app(ws: WebSocket) -> None:
        ws.accept()
        list(ws)
        seen.append(ws.close_code)

    bridge = native(app)

    async def play(client: WebSocketClient) -> None:
        await client.gets(1)
        assert bridge.statistics().websockets == bridge.statistics().in_flight == 1
        await shut_down(bridge)
        assert bridge.statistics().websockets == 0

    client, _ = talk(bridge, play)
    assert client.sent == [ACCEPT, close(1012)]
    assert seen == [1012]


def test_shutdown_refuses_a_handshake_that_is_not_answered() -> None:
    """503: the client may try another server."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        entered.set()
        assert environ["a2wsgi.disconnected"].wait(10)
        return []

    entered = Signal("entered")
    bridge = WSGIMiddleware(app)

    async def play(client: WebSocketClient) -> None:
        await entered.wait_in_task()
        await shut_down(bridge)

    client, _ = talk(bridge, play)
    assert client.sent == OVERLOAD


def test_shutdown_breaks_a_refusal_off_that_has_begun() -> None:
    """There is one response to a handshake, and what is broken off must not look complete."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("401 Unauthorized", [])
        yield bytes(100_000)
        assert environ["a2wsgi.disconnected"].wait(BOUND_SECONDS)
        yield b"too late"

    bridge = WSGIMiddleware(app)

    async def play(client: WebSocketClient) -> None:
        await client.gets(2)
        await shut_down(bridge)

    client, _ = talk(bridge, play)
    assert [(message["type"], message.get("more_body")) for message in client.sent] == [
        (f"{DENIAL}.start", None),
        (f"{DENIAL}.body", True),
    ]


@pytest.mark.parametrize("moment", ["receive", "open"])
def test_shutdown_refuses_a_handshake_that_comes_in(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its app is not entered: the shutdown came before there was anything to end."""
    from a2wsgi._wsgi_on_asgi.websocket.link import Link

    entered: list[object] = []
    bridge = native(entered.append)
    client = WebSocketClient()
    make, receive = Link.open, client.receive

    async def open_late(*args: Any) -> Any:
        opened = await make(*args)
        await shut_down(bridge)
        return opened

    async def receive_late() -> Message:
        message = await receive()
        await shut_down(bridge)
        return message

    async def on_loop() -> None:
        bridge._shared.settings.shutdown_timeout = 0  # it is the very task that would have to go on
        await answer(bridge, client)

    if moment == "open":
        monkeypatch.setattr(Link, "open", open_late)
    else:
        monkeypatch.setattr(client, "receive", receive_late)
    run(on_loop())
    assert client.sent == OVERLOAD
    assert entered == []
    assert bridge.statistics().websockets == 0


def test_shutdown_that_waits_for_a_request_lets_no_websocket_in() -> None:
    """It would wait for that, too, and end it only when its time is over. Afterwards the bridge serves again."""
    from support import asgi_driver

    begun, finish = Signal("the request has begun"), Signal("the request may end")

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if "a2wsgi.websocket" in environ:
            echo(environ["a2wsgi.websocket"])
            return []
        begun.set()
        finish.wait()
        start_response("200 OK", [])
        return []

    async def leave(client: WebSocketClient) -> None:
        client.says("again")
        await client.gets(2)
        client.leaves()

    async def main() -> None:
        request = start(asgi_driver.answer(bridge))
        await begun.wait_in_task()
        stopping = start(shut_down(bridge))
        await until(lambda: bridge._shared.loops.here().draining)
        await answer(bridge, clients[0])
        finish.set()
        await request
        await stopping
        await answer(bridge, clients[1], leave)

    bridge, clients = WSGIMiddleware(app), [WebSocketClient(), WebSocketClient()]
    run(main())
    assert clients[0].sent == OVERLOAD
    assert clients[1].data == ["again"]


# -- Room -------------------------------------------------------------------------------------------------------------


def test_one_too_many_is_refused_with_503() -> None:
    """At once, and counted; the next gets the room of one that has ended. HTTP has threads of its own."""
    from support.asgi_driver import answer as answer_http

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if "a2wsgi.websocket" in environ:
            echo(environ["a2wsgi.websocket"])
        else:
            start_response("200 OK", [])
        return [threading.current_thread().name.encode()]

    bridge = WSGIMiddleware(app, workers=2, max_websockets=2)

    async def main() -> None:
        first, second, third = WebSocketClient(), WebSocketClient(), WebSocketClient()
        tasks = [start(answer(bridge, client)) for client in (first, second)]
        for client in (first, second):
            client.says("hi")
            await client.gets(2)
        await answer(bridge, third)
        assert third.sent == OVERLOAD
        assert (bridge.statistics().websockets, bridge.statistics().shed) == (2, 1)
        assert (await answer_http(bridge)).body.startswith(b"a2wsgi-worker-")
        assert {t.name for t in threading.enumerate()} >= {"a2wsgi-websocket-1", "a2wsgi-websocket-2"}
        first.leaves()
        await tasks[0]
        fourth = WebSocketClient()
        tasks[0] = start(answer(bridge, fourth))
        fourth.says("hi")
        await fourth.gets(2)
        second.leaves()
        fourth.leaves()
        await gather(*tasks)

    run(main())


def test_one_of_two_handshakes_at_once_gets_the_last_place() -> None:
    """The first whose handshake has come."""
    bridge = native(echo, max_websockets=1)

    async def main() -> None:
        go = Signal("the handshakes come")

        class Late(WebSocketClient):
            async def receive(self) -> Message:
                await go.wait_in_task()
                return await super().receive()

        clients = [Late(), Late()]
        tasks = [start(answer(bridge, client)) for client in clients]
        await until(lambda: bridge.statistics().in_flight == 2)
        assert bridge.statistics().websockets == 0
        go.set()
        for client in clients:
            client.says("hi")
            await until(lambda client=client: len(client.sent) == 2)  # type: ignore[misc]  # a default, as in a loop
        assert sorted(str(client.sent[0]["type"]) for client in clients) == ["websocket.accept", f"{DENIAL}.start"]
        for client in clients:
            client.leaves()
        await gather(*tasks)

    run(main())


def test_refused_client_that_reads_nothing_takes_no_place() -> None:
    """Its refusal lasts, and the next client gets in meanwhile."""
    bridge = native(echo, max_websockets=1)
    read = Signal("the refused client reads")

    async def on_send(number: int, message: Message) -> None:
        await read.wait_in_task()

    async def main() -> None:
        first, slow, next_one = WebSocketClient(), WebSocketClient(on_send), WebSocketClient()
        call = start(answer(bridge, first))
        first.says("hi")
        await first.gets(2)
        refusing = start(answer(bridge, slow))
        await until(lambda: slow.sends == 1)
        first.leaves()
        await call
        call = start(answer(bridge, next_one))
        next_one.says("hi")
        await next_one.gets(2)
        assert next_one.sent == [ACCEPT, text("hi")]
        next_one.leaves()
        read.set()
        await gather(call, refusing)

    run(main())


def test_each_loop_counts_what_it_refuses_by_itself() -> None:
    """No count is lost where two loops refuse a handshake at a time, since none is shared."""

    class Open:
        """A WebSocket that takes the only place."""

        def is_live(self) -> bool:
            return True

    bridge = native(echo, max_websockets=1)
    bridge._websockets.admitted.add(Open())  # type: ignore[arg-type]  # as much of one as is asked for
    loops = []
    for count in (1, 2):
        client, _ = talk(bridge)
        assert client.sent[0]["status"] == 503
        loops += bridge._shared.loops.known()
        assert bridge.statistics().shed == count
    assert [loop.refused for loop in loops] == [1, 2]  # the second has taken over what the first had counted


@needs_fork
@forks_with_threads
def test_forked_child_has_no_open_websocket() -> None:
    """Those of its parent are none of its own."""
    bridge = native(echo)

    async def play(client: WebSocketClient) -> None:
        client.says("hi")
        await client.gets(2)
        assert in_child(lambda: str(bridge.statistics().websockets).encode()) == b"0"
        assert bridge.statistics().websockets == 1
        client.says("still here")
        await client.gets(3)
        client.leaves()

    talk(bridge, play)


@only_on("asyncio", reason="Ctrl-C ends the run of another loop")
def test_nothing_is_left_of_a_websocket_that_ctrl_c_ends_as_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some programs go on with their loop after it. The server's shutdown does not wait for it."""

    def call_later(*_: object) -> None:
        raise KeyboardInterrupt

    loop = asyncio.new_event_loop()
    bridge: Any = native(echo)
    client = WebSocketClient()
    monkeypatch.setattr(Runtime, "call_later", call_later)
    task = loop.create_task(bridge(websocket_scope(), client.receive, client.send))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    with pytest.raises(KeyboardInterrupt):
        task.result()
    (here,) = bridge._shared.loops.known()
    assert not here.in_flight
    assert not bridge._websockets.open
    loop.close()


@needs_fork
@forks_with_threads
@pytest.mark.parametrize("held_at_the_fork", ["_from_app", "_to_app", "output"])
def test_child_forked_by_the_app_waits_for_no_lock_of_its_parent(held_at_the_fork: str) -> None:
    """It goes on in the app, and returns. Nobody would release there what the loop thread holds at the fork."""
    told: list[bytes] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        websocket = environ["a2wsgi.websocket"]
        websocket.accept()
        (session,) = bridge._websockets.open
        streams = {**vars(session._object_passage), "output": session._run.output}
        held, taken, forked = streams[held_at_the_fork]._lock, Signal("a thread holds the lock"), Signal("forked")

        def hold() -> None:
            with held:
                taken.set()
                forked.wait()

        def in_the_child() -> bytes:
            websocket.send("from the child")
            with pytest.raises(WebSocketClosed):
                websocket.receive(0)
            session._run.done()
            return b"went on"

        holder = in_thread(hold)
        taken.wait()
        told.append(in_child(in_the_child))
        forked.set()
        holder.result()
        return []

    bridge: Any = WSGIMiddleware(app)
    client, _ = talk(bridge)
    assert client.sent == [ACCEPT, close(1000)]
    assert told == [b"went on"]


def test_max_websockets_admits_one_beside_one_worker() -> None:
    """It is asked for."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["a2wsgi.websocket"].accept()
        return []

    client, _ = talk(WSGIMiddleware(app, workers=1, max_websockets=1))
    assert client.sent == [ACCEPT, close(1000)]


# -- gevent-websocket's face ------------------------------------------------------------------------------------------


def test_gevent_face_has_its_verbs() -> None:
    """receive() gives None once at the end, and an error from then on."""
    seen: list[object] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        ws = environ["wsgi.websocket"]
        seen.extend([ws.path, ws.origin, ws.version, ws.protocol, ws.closed])
        ws.send(ws.receive())
        ws.send("text", binary=True)
        ws.send(b"bytes", binary=False)
        ws.send(5)
        seen.append(ws.receive())
        with pytest.raises(OSError, match="closed"):
            ws.receive()
        with pytest.raises(OSError, match="closed"):
            ws.send("x")
        seen.append(ws.closed)
        return []

    async def play(client: WebSocketClient) -> None:
        client.says("hi")
        await client.gets(5)
        client.leaves()

    client, _ = talk(WSGIMiddleware(app), play, scope=websocket_scope(headers=[(b"origin", b"http://a")]))
    assert client.data == ["hi", b"text", "bytes", "5"]
    assert seen == ["/ws", "http://a", "13", None, False, None, True]


def test_gevent_face_closes_what_counts_as_open() -> None:
    """There the handshake is over before the app is called: a close() is a Close, not a refusal."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.websocket"].close(4001, b"bye")
        return []

    client, _ = talk(WSGIMiddleware(app))
    assert client.sent == [ACCEPT, close(4001, "bye")]


# -- The socket -------------------------------------------------------------------------------------------------------


def test_socket_that_is_taken_over_outlives_the_app() -> None:
    """A bridge further in takes a duplicate, and puts another socket in its place: the worker is free, the link on."""
    taken: list[socket.socket] = []

    def app(environ: dict[str, Any], start_response: Any) -> tuple[()]:
        sock = environ["werkzeug.socket"]
        taken.append(sock.dup())
        sink, drain = socket.socketpair()
        os.dup2(sink.fileno(), sock.fileno(), inheritable=False)
        sink.close()
        start_response("101 Switching Protocols", [])
        drain.close()
        return ()

    bridge = WSGIMiddleware(app)

    async def play(client: WebSocketClient) -> None:
        await until(lambda: bool(taken) and bridge._websockets.workers.busy == 0)
        assert bridge.statistics().websockets == 1
        accept = "ICX+Yqv66kxgM0FcWaLWlFLwTAI="  # RFC 6455 §4.2.2, of the key of 16 zeros
        head = f"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        taken[0].sendall(head.encode() + b"\x81\x02hi")
        await client.gets(2)
        client.leaves(1000)
        taken[0].setblocking(True)
        assert (await in_thread(lambda: taken[0].recv(100)).result_in_task())[:2] == b"\x88\x82"
        taken[0].close()

    client, _ = talk(bridge, play)
    assert client.sent == [ACCEPT, text("hi")]


def test_nothing_is_left_of_many() -> None:
    """No link, task or descriptor; conftest looks at threads and descriptors, the driver at tasks."""
    from a2wsgi._wsgi_on_asgi.websocket import link

    async def play(client: WebSocketClient) -> None:
        client.says("hi")
        await client.gets(2)
        client.leaves()

    bridge = native(echo)

    async def main() -> None:
        for _ in range(50):
            client = WebSocketClient()
            await answer(bridge, client, play)
            assert client.data == ["hi"]

    run(main())
    assert link._open_links == set()
    assert bridge.statistics().in_flight == bridge.statistics().websockets == 0


@only_on("asyncio", reason="trio ends its tasks")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("raw", [True, False])
def test_loop_that_is_closed_without_a_word_strands_no_app(raw: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our object finds it out by itself. One that waits for its socket is told when the bridge next looks."""
    from a2wsgi._threads import stream
    from a2wsgi._wsgi_on_asgi.websocket import link, passages

    monkeypatch.setattr(stream, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(passages, "LOOK_SECONDS", 0.001)
    seen: list[object] = []
    over = Signal("the app is over")

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if raw:
            sock = accepted(environ)
            seen.append(sock.recv(10))
        else:
            ws = environ["a2wsgi.websocket"]
            ws.accept()
            with pytest.raises(WebSocketClosed):
                ws.receive()
            with pytest.raises(WebSocketClosed):
                ws.send("too late")
            seen.append((list(ws), ws.closed, ws.close_code))
        over.set()
        return []

    bridge = WSGIMiddleware(app)
    client = WebSocketClient()
    loop = asyncio.new_event_loop()
    call = loop.create_task(bridge(websocket_scope(), client.receive, client.send))
    loop.run_until_complete(client.gets(1))
    loop.close()
    if not raw:
        over.wait()
    assert bridge.statistics().websockets == 0
    over.wait()
    assert seen == [b"" if raw else ([], True, 1006)]
    assert link._open_links == set()
    with contextlib.suppress(RuntimeError):
        call.get_coro().close()


def test_end_of_the_process_shuts_links_down() -> None:
    """A thread that is no daemon waits for a socket, the loop is gone: the hook wakes it."""
    from a2wsgi._wsgi_on_asgi.websocket import link

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        sock = accepted(environ)
        reader = in_thread(lambda: sock.recv(1))
        assert reader.result() == b""
        return []

    async def play(client: WebSocketClient) -> None:
        await client.gets(1)
        link._shut_all_down()

    client, _ = talk(WSGIMiddleware(app), play)
    assert client.sent == [ACCEPT, close(1012)]  # where the loop is still there


@needs_fork
@forks_with_threads
def test_child_that_was_forked_meanwhile_keeps_no_app_waiting() -> None:
    """An app that reads its socket sees the end when its client is lost, though there is no Close to read."""
    seen: list[bytes] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        sock = accepted(environ)
        sock.settimeout(BOUND_SECONDS)
        seen.append(sock.recv(10))
        return []

    async def play(client: WebSocketClient) -> None:
        await client.gets(1)
        with living_child(lambda: b"forked") as told:
            assert told == b"forked"
            client.leaves(1006)
            await until(lambda: bool(seen))

    bridge = WSGIMiddleware(app)
    talk(bridge, play)
    assert seen == [b""]
    assert bridge.statistics().websockets == 0


def test_client_disconnected_is_what_closed_is() -> None:
    """Who catches the one catches the other."""
    error = WebSocketClosed(4000, "why")
    assert isinstance(error, ClientDisconnected)
    assert isinstance(error, OSError)
    assert (error.code, error.reason) == (4000, "why")
