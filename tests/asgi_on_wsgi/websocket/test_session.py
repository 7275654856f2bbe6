"""An ASGI app's WebSocket on a WSGI server, clause by clause, with a server and a client in this process.

The docstrings quote ASGI WebSocket 2.5 where they say so, and RFC 6455 by its clauses.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import io
import logging
import os
import select
import socket
import struct
import sys
import threading
import time
import types
from typing import Any

import anyio
import pytest

pytest.importorskip("websockets")

import anyio.lowlevel

from a2wsgi import AppProtocolError, ASGIMiddleware, BridgeError, ClientDisconnected, InvalidHeader
from a2wsgi._asgi_on_wsgi.loops.fast_loop import FastLoop
from a2wsgi._asgi_on_wsgi.loops.shared_loop import SharedHost
from a2wsgi._asgi_on_wsgi.websocket import carrier, endpoint, handshake, our_sockets, takeover
from a2wsgi._asgi_on_wsgi.websocket import session as websocket
from a2wsgi._protocol.frames import Ping, Pong
from support.errors import Twofaced
from support.forks import forks_with_threads, in_child, needs_fork
from support.lockstep import BOUND_SECONDS, Signal
from support.websocket_client import Client, opened
from support.wsgi_driver import Exchange, InThread, call, environ_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="No socket can be taken over there.")

Message = dict[str, Any]


#: What the app of the current test runs on.
_backend = ["asyncio"]


@pytest.fixture(autouse=True, params=["asyncio", "trio"])
def _each_backend(request: pytest.FixtureRequest) -> None:
    pytest.importorskip(request.param)
    _backend[:] = [request.param]


def bridge_of(app: Any, **options: Any) -> ASGIMiddleware:
    """A bridge that needs no lifespan."""
    if options.get("inline") and _backend[0] != "asyncio":
        pytest.skip("inline=True is asyncio's")
    options = {"lifespan": False, "backend": _backend[0], **options}
    bridge: ASGIMiddleware = ASGIMiddleware(app, **options)
    return bridge


class Told:
    """An app that accepts, answers each message with itself, and keeps what it is told of the end."""

    def __init__(self) -> None:
        self.end: Message = {}
        self.ended = Signal("the app has ended")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept"})
        try:
            while (message := await receive())["type"] == "websocket.receive":
                await send({**message, "type": "websocket.send"})
            self.end = message
        finally:
            self.ended.set()

    def told(self) -> Message:
        self.ended.wait()
        return self.end


async def accept(receive: Any, send: Any, **others: Any) -> None:
    """Open it."""
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **others})


def disconnect(code: int, reason: str = "") -> Message:
    """What the app is told."""
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


# -- The handshake ----------------------------------------------------------------------------------------------------


def test_scope_is_a_websockets() -> None:
    """ASGI, "WebSocket Connection Scope": without a method, and with what the client offers."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await send({"type": "websocket.close"})

    with bridge_of(app) as bridge, Client(HTTP_SEC_WEBSOCKET_PROTOCOL="a, b", wsgi__url_scheme="https") as client:
        assert client.called(bridge).status == "403 Forbidden"
        (scope,) = scopes
        assert "method" not in scope
        assert scope["wsgi_environ"] is client.environ
        assert {key: scope[key] for key in ("type", "scheme", "subprotocols", "extensions", "asgi", "state")} == {
            "type": "websocket",
            "scheme": "wss",
            "subprotocols": ["a", "b"],
            "extensions": {"websocket.http.response": {}},
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "state": {},
        }


@pytest.mark.parametrize("code", [1006, 3404, 99_999, None])
def test_close_before_the_acceptance_is_a_403_whatever_its_code(code: Any) -> None:
    """ASGI WebSocket 2.5, "Close": the code is not sent, so that it need not be one that a Close frame may carry."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.close", "code": code, "reason": "no"})

    with bridge_of(app) as bridge, Client() as client:
        assert client.called(bridge).status == "403 Forbidden"


def test_accept_has_the_subprotocol_and_headers_of_the_app() -> None:
    """ASGI, "Accept"."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send, subprotocol="b", headers=[(b"x-more", b"1"), (b"connection", b"close")])

    with bridge_of(app) as bridge, Client(HTTP_SEC_WEBSOCKET_PROTOCOL="a, b") as client:
        client.opened(bridge)
        first, *lines = client.head.decode().split("\r\n")
        assert first == "HTTP/1.1 101 Switching Protocols"
        assert {"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Protocol: b", "x-more: 1"} <= set(lines)
        assert client.closed() == (1000, "")


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"subprotocol": "c"}, AppProtocolError),
        ({"headers": [(b"sec-websocket-accept", b"1")]}, AppProtocolError),
        ({"headers": [(b"a", b"b\r\nc: d")]}, InvalidHeader),
        ({"headers": [(b"a", 1)]}, AppProtocolError),
    ],
    ids=["subprotocol", "ours", "injection", "type"],
)
def test_accept_that_is_wrong_fails_in_send(message: Message, error: type[BaseException]) -> None:
    """Nothing was sent: another accept opens it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(error):
            await send({"type": "websocket.accept", **message})
        await send({"type": "websocket.accept"})

    with bridge_of(app) as bridge, opened(bridge) as client:
        assert client.closed() == (1000, "")


def test_denial_response_is_an_http_response() -> None:
    """ASGI, "Websocket Denial Response"."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"www-authenticate", b"Basic")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"are you?"})

    with bridge_of(app) as bridge, Client() as client:
        response = client.called(bridge)
        assert (response.status, response.body) == ("401 Unauthorized", b"who are you?")
        assert ("www-authenticate", "Basic") in response.fields


def test_failure_before_the_answer_is_raised_to_the_server() -> None:
    """The very same object."""
    error = LookupError()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    with bridge_of(app) as bridge, Client() as client:
        assert client.called(bridge, LookupError).raised is error


def test_app_that_answers_nothing_is_at_fault() -> None:
    """ASGI wants ``websocket.accept`` or ``websocket.close``."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    with bridge_of(app) as bridge, Client() as client:
        assert "without answering" in str(client.called(bridge, AppProtocolError).raised)


@pytest.mark.parametrize("leaves", [False, True])
def test_receive_waits_while_the_refusal_is_sent(leaves: bool) -> None:
    """For the client to leave, or for the end of the refusal. Until then nothing is over."""
    told: list[Message] = []
    has_begun, goes_on = Signal("the refusal has begun"), Signal("the refusal goes on")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            told.append(await receive())

        await receive()
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
                await send({"type": "websocket.http.response.body", "body": b"x", "more_body": True})
            assert told == []
            has_begun.set()
            if not leaves:
                await goes_on.wait_in_task()
                await send({"type": "websocket.http.response.body", "body": b"y"})

    with bridge_of(app) as bridge, Client() as client:
        exchange = Exchange(bridge, client.environ).begin()
        assert exchange.status == "401 Unauthorized"
        has_begun.wait()
        goes_on.set()
        assert leaves or b"".join(exchange.iterator) == b"xxxy"
        exchange.close()
        bridge.close()
    assert told == [disconnect(1006)]


def test_client_that_leaves_before_the_answer() -> None:
    """The app is told 1006, and an accept then fails. The server is told as of any request."""
    told: list[Message] = []
    waits = Signal("the app waits")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        waits.set()
        told.append(await receive())
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.accept"})

    with bridge_of(app) as bridge, Client() as client:
        server = InThread(lambda: client.called(bridge, ClientDisconnected))
        waits.wait()
        client.socket.close()
        server.result()
    assert told == [disconnect(1006)]


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="Nothing tells there.")
@pytest.mark.parametrize("server", ["cheroot", "waitress"])
def test_client_that_leaves_before_the_answer_frees_every_servers_thread(server: str) -> None:
    """Also where the server has no word for that, but its socket was found."""
    waits = Signal("the app waits")
    told: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        waits.set()
        told.append(await receive())

    class Channel:
        """Of waitress, which tells nothing without its lookahead."""

        socket: Any = None

        def client_disconnected(self) -> bool:
            return False

    with bridge_of(app) as bridge, Client(family="tcp", werkzeug__socket=None) as client:
        stream = client.server.makefile("rb")
        if server == "waitress":
            channel = Channel()
            channel.socket = client.server
            client.environ["waitress.client_disconnected"] = channel.client_disconnected
        else:
            client.environ["wsgi.input"] = stream
        thread = InThread(lambda: client.called(bridge, ClientDisconnected))
        waits.wait()
        client.socket.close()
        thread.result()
        stream.close()
    assert told == [disconnect(1006)]


@pytest.mark.parametrize("_each_backend", ["asyncio"], indirect=True)
def test_client_that_has_left_already_if_tasks_are_eager() -> None:
    """Python 3.12's ``eager_task_factory``: what watches for the client has seen it before anybody waits."""
    told: list[Message] = []
    waits, has_left, ended = Signal("the app waits"), Signal("the client has left"), Signal("the app has ended")

    def begin_at_once(loop: Any, coroutine: Any, **_: Any) -> asyncio.Task[None]:
        with pytest.raises(StopIteration):
            coroutine.send(None)
        return asyncio.Task(anyio.lowlevel.checkpoint(), loop=loop)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        waits.set()
        await has_left.wait_in_task()
        loop: Any = asyncio.get_running_loop()
        loop.set_task_factory(begin_at_once)
        try:
            told.append(await receive())
        finally:
            loop.set_task_factory(None)
            ended.set()

    with bridge_of(app, grace_timeout=BOUND_SECONDS / 2) as bridge, Client() as client:
        server = InThread(lambda: client.called(bridge, ClientDisconnected))
        waits.wait()
        client.socket.close()
        server.result()
        has_left.set()
        ended.wait()
    assert told == [disconnect(1006)]


def test_receive_and_accept_may_wait_at_the_same_time() -> None:
    """A task that listens from the start gets the first message."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

        async def listen() -> None:
            await send({"type": "websocket.send", "text": (await receive())["text"]})

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.lowlevel.checkpoint()
            await send({"type": "websocket.accept"})

    with bridge_of(app) as bridge, opened(bridge) as client:
        client.send("hello")
        assert client.receive() == "hello"
        assert client.closed() == (1000, "")


# -- Refusals ---------------------------------------------------------------------------------------------------------


async def never(scope: Any, receive: Any, send: Any) -> None:
    """Is not called."""
    raise AssertionError("The app was called")


@pytest.mark.parametrize(
    ("others", "options", "status"),
    [
        ({"HTTP_SEC_WEBSOCKET_KEY": "c2hvcnQ="}, {}, 400),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "12"}, {}, 426),
        ({}, {"max_websockets": 0}, 403),
        ({}, {"inline": True}, 501),
        ({"werkzeug__socket": None}, {}, 501),
        ({"werkzeug__socket": object()}, {}, 501),
    ],
    ids=["key", "version", "none wanted", "inline", "no socket", "not a socket"],
)
def test_handshake_is_refused_before_the_app(others: Message, options: Message, status: int) -> None:
    """With a text that says why."""
    with bridge_of(never, **options) as bridge, Client(**others) as client:
        response = client.called(bridge)
        assert response.status is not None
        assert int(response.status[:3]) == status
        assert response.body
        if status == 426:
            assert ("sec-websocket-version", "13") in response.fields


@pytest.mark.parametrize("option", ["https-socket", "ssl-socket", "suwsgi-socket", "fastcgi-socket"])
def test_sockets_of_uwsgi_that_carry_more_than_http_are_left_alone(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its descriptor would be taken, but not its TLS: the answer would go out in clear."""
    uwsgi = types.ModuleType("uwsgi")
    uwsgi.opt = {b"enable-threads": True, option.encode(): b"127.0.0.1:8443"}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    with bridge_of(never) as bridge, Client(uwsgi__version=b"2.0") as client:
        uwsgi.connection_fd = client.server.fileno  # type: ignore[attr-defined]
        response = client.called(bridge)
        assert response.status == "501 Not Implemented"
        assert f"--{option}".encode() in response.body


def test_what_cannot_be_served_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """One warning a process, and 501 each time."""
    monkeypatch.setattr(handshake, "_warned_of", set())
    with bridge_of(never) as bridge:
        for _ in range(2):
            with Client(werkzeug__socket=None) as client:
                assert client.called(bridge).status == "501 Not Implemented"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """By the answer, and in the log."""
    monkeypatch.setattr(handshake, "_warned_of", set())
    monkeypatch.setattr(handshake, "available", lambda: False)
    with bridge_of(never) as bridge, Client() as client:
        response = client.called(bridge)
    assert response.status == "501 Not Implemented"
    assert b'pip install "a2wsgi[websocket]"' in response.body
    assert "a2wsgi[websocket]" in caplog.text


@pytest.mark.parametrize(
    "others",
    [
        {"SERVER_PROTOCOL": "HTTP/2"},
        {"HTTP_VERSION": "2"},
        {"REQUEST_METHOD": "POST"},
        {"CONTENT_LENGTH": "2"},
        {"HTTP_UPGRADE": "h2c"},
        {"HTTP_CONNECTION": "close"},
    ],
)
def test_what_is_no_handshake_is_http(others: Message, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9110 §7.8: and nobody looks for a socket, which on HTTP/2 is everybody's."""
    monkeypatch.setattr(handshake, "find_socket", never)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": scope["type"].encode()})

    with bridge_of(app) as bridge, Client(**{"wsgi.input": io.BytesIO(b"{}"), **others}) as client:
        assert call(bridge, client.environ).body == b"http"


def test_one_too_many_is_answered_503() -> None:
    """And one that ends makes room."""
    app = Told()
    with bridge_of(app, max_websockets=1) as bridge:
        with opened(bridge) as client, Client() as other:
            assert bridge.statistics().websockets == 1
            assert bridge.statistics().in_flight == 1
            response = other.called(bridge)
            assert response.status == "503 Service Unavailable"
            assert ("retry-after", "1") in response.fields
            client.close()
            assert client.closed() == (1000, "")
            app.told()
        wait_until_all_are_over(bridge)
        with opened(bridge):
            pass


def wait_until_all_are_over(bridge: ASGIMiddleware) -> None:
    """By what the loop does: each turn of it brings their tasks on."""
    host = bridge._lifetime.host
    assert host is not None
    for _ in range(100):
        if not any(isinstance(one, websocket.WebSocketSession) for one in bridge._lifetime.requests.copy()):
            return
        host.run(lambda: anyio.sleep(0.001), 10)
    raise AssertionError(bridge._lifetime.requests)


# -- Messages ---------------------------------------------------------------------------------------------------------


def test_messages_go_both_ways() -> None:
    """Text, bytes, nothing, and a ping between."""
    with bridge_of(Told()) as bridge, opened(bridge) as client:
        for message in ("hello", b"\x00", "", b"", "x" * 1_000_000):
            client.send(message)
            assert client.receive() == message
        client.socket.sendall(client.frames.ping(b"are you there?"))
        assert client.event() == Pong(b"are you there?")


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": "a", "bytes": b"b"},
        {"type": "websocket.send", "text": b"a"},
        {"type": "websocket.send", "bytes": "a"},
        {"type": "websocket.send", "text": "\ud800"},
        {"type": "websocket.close", "code": 1006},
        {"type": "websocket.close", "code": 1000, "reason": b"why"},
        {"type": "websocket.accept"},
        {"type": "http.response.start", "status": 200},
        {"type": "nonsense"},
        {},
        None,
    ],
)
def test_message_of_the_wrong_shape_fails_in_send(message: Any) -> None:
    """Nothing of it was sent, and the app may send another."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        with pytest.raises(AppProtocolError):
            await send(message)
        await send({"type": "websocket.send", "bytes": memoryview(b"fine")})

    with bridge_of(app) as bridge, opened(bridge) as client:
        assert client.receive() == b"fine"
        assert client.closed() == (1000, "")


def test_early_bytes_are_received() -> None:
    """What the server has read past the handshake, from its buffer."""
    with bridge_of(Told()) as bridge, Client(family="tcp") as client:
        client.socket.sendall(b"GET" + client.frames.message("early"))
        stream = client.server.makefile("rb")
        client.environ["wsgi.input"] = stream
        assert stream.read(3) == b"GET"
        client.opened(bridge)
        assert client.receive() == "early"
        stream.close()


# -- Endings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, ""), (4444, "so long"), (1005, "")])
def test_app_is_told_how_the_client_closes(code: int, reason: str) -> None:
    """ASGI, "Disconnect"; §7.1.5. The Close is answered in kind."""
    app = Told()
    with bridge_of(app) as bridge, opened(bridge) as client:
        client.close(code, reason)
        assert client.closed() == (code, reason)
        assert app.told() == disconnect(code, reason)


@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_app_is_told_of_a_client_that_is_lost(family: str) -> None:
    """§7.1.5: 1006."""
    app = Told()
    with bridge_of(app) as bridge, opened(bridge, family=family) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.reset()
        assert app.told() == disconnect(1006)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x81\x01a", 1002),
        (b"\x81\x81\0\0\0\0\xff", 1007),
        (b"\x82\xff" + struct.pack("!Q", 1 << 40) + bytes(4), 1009),
    ],
    ids=["opcode", "not masked", "not UTF-8", "too long"],
)
def test_client_that_breaks_the_protocol_is_told_so(data: bytes, code: int) -> None:
    """§7.1.7, §7.4.1: and nothing that it sends after that matters."""
    app = Told()
    with bridge_of(app) as bridge, opened(bridge) as client:
        client.socket.sendall(data)
        event = client.event()
        assert getattr(event, "code", None) == code
        assert client.event() is None
        assert app.told()["code"] == code


def test_client_is_told_how_the_app_closes() -> None:
    """ASGI, "Close"; and so is the app, which may send nothing after it."""
    told: list[Any] = []
    done = Signal("done")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close", "code": 4001, "reason": "é" * 100})
        told.append(await receive())
        for message in ({"type": "websocket.send", "text": "more"}, {"type": "websocket.close"}):
            with pytest.raises(ClientDisconnected):
                await send(message)
        done.set()

    with bridge_of(app) as bridge, opened(bridge) as client:
        done.wait()
        assert client.closed() == (4001, "é" * 61)  # of 123 bytes
        assert told == [disconnect(4001, "é" * 100)]


def test_app_that_fails_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    """§7.4.1; once in the log, as an error."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        raise LookupError("on purpose")

    with caplog.at_level(logging.INFO), bridge_of(app) as bridge, opened(bridge) as client:
        assert client.closed() == (1011, "")
        wait_until_all_are_over(bridge)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


@pytest.mark.parametrize("error", [LookupError, Twofaced])
@pytest.mark.parametrize("closes", ["app", "client"])
def test_app_that_fails_after_the_end_is_logged(
    closes: str, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """A fault in what cleans up is one like any other, even one that cannot be looked at. The close is what it was."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        if closes == "app":
            await send({"type": "websocket.close", "code": 4001})
        else:
            await receive()
        raise error("on purpose")

    with caplog.at_level(logging.INFO), bridge_of(app) as bridge, opened(bridge) as client:
        if closes == "client":
            client.close(4001)
        assert client.closed() == (4001, "")
        wait_until_all_are_over(bridge)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "The app failed after its WebSocket was over")


class WebSocketDisconnect(Exception):  # noqa: N818 - the name of Starlette's
    """What a framework raises into an app whose WebSocket is over."""


@pytest.mark.parametrize("error", [WebSocketDisconnect(), ClientDisconnected("it left"), asyncio.CancelledError()])
def test_app_that_says_that_it_is_over_is_not_logged(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """Most apps end like this, and each client that leaves would have its traceback."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await receive()
        raise error

    with caplog.at_level(logging.INFO), bridge_of(app) as bridge, opened(bridge) as client:
        client.close(1001)
        assert client.closed() == (1001, "")
        wait_until_all_are_over(bridge)
    assert not caplog.records


def test_app_that_exits_the_process_ends_its_own_socket() -> None:
    """Another's goes on."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await accept(receive, send)
            raise SystemExit
        await Told()(scope, receive, send)

    with bridge_of(app) as bridge, opened(bridge, PATH_INFO="/other") as other:
        with opened(bridge) as client:
            assert client.closed() == (1011, "")
        other.send("still there?")
        assert other.receive() == "still there?"


def test_close_of_the_bridge_closes_with_1012(caplog: pytest.LogCaptureFixture) -> None:
    """The app is told so, and nothing is an error."""
    app = Told()
    with caplog.at_level(logging.WARNING):
        bridge = bridge_of(app)
        with opened(bridge) as client:
            closing = InThread(bridge.close)
            assert client.closed() == (1012, "")
            assert app.told() == disconnect(1012)
            closing.result()
    assert caplog.records == []


def test_app_that_ignores_the_end_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """After ``grace_timeout``, from when it was told. Nobody needs to hear of that."""
    cancelled = Signal("cancelled")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await receive()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    with caplog.at_level(logging.INFO), bridge_of(app, grace_timeout=0) as bridge, opened(bridge) as client:
        client.close()
        cancelled.wait()
        wait_until_all_are_over(bridge)
    assert not caplog.records


@pytest.mark.parametrize("stops", [False, True], ids=["alone", "with its bridge"])
def test_client_gets_the_rest_after_the_app_has_ended(stops: bool) -> None:
    """``grace_timeout`` is the app's: it does not cut off what a client is still to take."""
    ended = Signal("ended")
    data = bytes(1_000_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", "bytes": data})
        if not stops:
            await receive()
        ended.set()

    bridge = bridge_of(app, grace_timeout=0, response_buffer_bytes=2_000_000)
    with bridge, opened(bridge) as client:
        if not stops:
            client.close()
        ended.wait()
        host = bridge._lifetime.host
        assert host is not None
        if stops:
            (session,) = (one for one in bridge._lifetime.requests if isinstance(one, websocket.WebSocketSession))
            host.doorbell.ring(websocket.WebSocketSession._stop, session)
        host.run(lambda: anyio.sleep(0.01), 10)  # a timer that was due would have come
        assert client.receive() == data
        assert client.closed() == (1000, "")


#: How many times an app goes on, though it was told of the end, before a test believes that it always would.
FOR_EVER = 100_000


@pytest.mark.parametrize("does", ["receive", "send", "close"])
@pytest.mark.parametrize("after", ["close", "denial", "leaving"])
def test_app_that_goes_on_after_the_end_is_cancelled(after: str, does: str) -> None:
    """One that asks again and again, or passes over each failure, does not keep the loop, which is to cancel it."""
    seen: list[str] = []
    connecting, ended = Signal("connecting"), Signal("ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        connecting.set()
        if after == "denial":
            await send({"type": "websocket.close"})
        if after == "close":
            await send({"type": "websocket.accept"})
        try:
            if after != "denial":
                await receive()
            for _ in range(FOR_EVER):
                if does == "receive":
                    await receive()
                else:
                    with contextlib.suppress(ClientDisconnected):
                        await send({"type": f"websocket.{does}", **({"text": "more"} if does == "send" else {})})
            seen.append("gave up")
        except anyio.get_cancelled_exc_class():
            seen.append("cancelled")
            raise
        finally:
            ended.set()

    with bridge_of(app, grace_timeout=0) as bridge, Client() as client:
        server = InThread(lambda: client.called(bridge, ClientDisconnected if after == "leaving" else None))
        connecting.wait()
        if after == "close":
            client.read_head()
            client.close()
        elif after == "leaving":
            client.socket.close()
        server.result()
        ended.wait()
    assert seen == ["cancelled"]


def test_client_that_does_not_answer_a_close_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits longer than a bound."""
    monkeypatch.setattr(endpoint, "CLOSE_SECONDS", 0.05)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)

    with bridge_of(app) as bridge, opened(bridge) as client:
        assert client.event() is not None
        assert client.event() is None
        wait_until_all_are_over(bridge)


def end_loop() -> None:
    """End what runs all tasks, as only an app in error does."""
    if _backend[0] == "asyncio":
        asyncio.get_running_loop().stop()
    else:
        import trio

        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        nursery.cancel_scope.cancel()


def test_loop_that_ends_takes_its_sockets_with_it() -> None:
    """The client sees the end of the connection."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        end_loop()
        await receive()

    with contextlib.suppress(BridgeError), bridge_of(app) as bridge, opened(bridge) as client:
        assert client.event() is None


@pytest.mark.parametrize("before", ["its requests are ended", "it is closed"])
def test_loop_that_ends_before_it_hears_of_a_drain_takes_that_with_it(
    before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server thread hands it over without waiting for it, so the loop may end in between."""
    if _backend[0] != "asyncio":
        pytest.skip("The end of a trio run wakes the server thread, which finds it closed.")
    ends, answered = Signal(), Signal()
    stay = takeover.Taken.stay
    host_or_loop: Any = SharedHost if before == "its requests are ended" else FastLoop
    step = "_fail_users" if before == "its requests are ended" else "close"
    go_on = getattr(host_or_loop, step)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        end_loop()
        await receive()

    def stay_until_it_ends(*args: Any) -> Any:
        ends.wait()
        return stay(*args)

    def end_once_answered(self: Any) -> None:
        ends.set()
        answered.wait()
        go_on(self)

    monkeypatch.setattr(takeover.Taken, "stay", stay_until_it_ends)
    monkeypatch.setattr(host_or_loop, step, end_once_answered)
    with bridge_of(app) as bridge, Client() as client:
        call(bridge, client.environ)
        answered.set()
        client.read_head()
        assert client.event() is None
        expect_drain_closed(client)


def expect_drain_closed(client: Client) -> None:
    """As the server sees it, which has the other end in place of its client."""
    client.server.settimeout(BOUND_SECONDS)
    with pytest.raises(ConnectionError):
        client.server.sendall(bytes(1 << 24))  # much more than is held for whoever might read it


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of the loop's own, since it is closed like this
def test_given_loop_that_stops_before_it_hears_of_a_drain_keeps_none_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody runs it any more, so the bridge's close() ends the drain in its place."""
    if _backend[0] != "asyncio":
        pytest.skip("A given loop is asyncio's.")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stay = takeover.Taken.stay

    def stay_until_it_stops(*args: Any) -> Any:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        return stay(*args)

    monkeypatch.setattr(takeover.Taken, "stay", stay_until_it_stops)
    bridge = bridge_of(Told(), loop=loop)
    with Client() as client:
        call(bridge, client.environ)
        bridge.close()
        expect_drain_closed(client)
        assert not our_sockets.open_sockets
    loop.close()
    gc.collect()


def test_drain_that_cannot_start_is_closed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """And the WebSocket lives on."""
    if _backend[0] != "asyncio":
        pytest.skip("What makes asyncio refuse a timer would end trio's whole run.")
    monkeypatch.setattr(our_sockets, "DRAIN_SECONDS", None)  # which no timer takes
    with bridge_of(Told()) as bridge, Client() as client:
        call(bridge, client.environ)
        client.read_head()
        expect_drain_closed(client)
        assert bridge.statistics().websockets == 1
    assert "that another thread scheduled on the event loop has failed" in caplog.text
    caplog.clear()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of the loop, since it is closed like this
@pytest.mark.parametrize("order", ["closed, next handshake", "closed, close()", "stopped, close(), closed"])
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_given_loop_that_is_closed_keeps_no_client_waiting(
    order: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As soon as the bridge is next used: nobody runs the loop, so the bridge ends the connections in its place."""
    if _backend[0] != "asyncio":
        pytest.skip("A given loop is asyncio's.")
    loop = pytest.importorskip(kind).new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    bridge = bridge_of(Told(), loop=loop, max_websockets=1)
    with opened(bridge) as client, Client() as late:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        if "stopped" not in order:
            loop.close()
        if "close()" in order:
            bridge.close()
        else:
            assert late.called(bridge, fails=BridgeError).raised is not None  # and no 503 for max_websockets
        assert client.event() is None
        assert bridge.statistics().websockets == 0
        assert not our_sockets.open_sockets
        loop.close()
        gc.collect()
    assert [record for record in caplog.records if record.name == "a2wsgi"] == []  # asyncio tells of the task


# -- Silence ----------------------------------------------------------------------------------------------------------


def test_silent_client_is_pinged() -> None:
    """And one that answers lives."""
    with (
        bridge_of(Told(), websocket_ping_interval=0.1, websocket_ping_timeout=10.0) as bridge,
        opened(bridge) as client,
    ):
        for _ in range(3):
            event = client.event()
            assert isinstance(event, Ping)
            client.socket.sendall(client.frames.pong(event.payload))
        client.send("hello")
        assert client.receive() == "hello"


def test_client_that_answers_no_ping_is_closed() -> None:
    """§7.4.1: 1011; the app is told 1006."""
    app = Told()
    with bridge_of(app, websocket_ping_interval=0.1, websocket_ping_timeout=0.1) as bridge, opened(bridge) as client:
        assert isinstance(client.event(), Ping)
        assert client.closed() == (1011, "keepalive ping timeout")
        assert app.told() == disconnect(1006)


# -- Bounds -----------------------------------------------------------------------------------------------------------


def test_client_that_floods_a_slow_app_is_stopped() -> None:
    """No more is read than the queue holds, and one read; then all of it arrives."""
    go = Signal("go")
    taken: list[int] = []
    ended = Signal("ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await go.wait_in_task()
        while (message := await receive())["type"] == "websocket.receive":
            taken.append(len(message["bytes"]))
        ended.set()

    with bridge_of(app) as bridge, opened(bridge) as client:
        client.socket.settimeout(0.2)
        sent = 0
        frame = client.frames.message(bytes(10_000))
        rest = b""
        with contextlib.suppress(TimeoutError):
            while sent < 1_000:
                rest = frame
                while rest:
                    rest = rest[client.socket.send(rest) :]
                sent += 1
        assert sent < 200
        go.set()
        client.socket.settimeout(10)
        client.socket.sendall(rest)
        client.close()
        ended.wait()
        assert taken == [10_000] * (sent + bool(rest))


def test_pings_that_are_not_read_are_not_answered_without_bound() -> None:
    """Pongs that the client does not take stop the reading of its pings."""
    with bridge_of(Told()) as bridge, opened(bridge) as client:
        client.socket.settimeout(0.2)
        pings = client.frames.ping(bytes(100)) * 100
        sent = 0
        with pytest.raises(TimeoutError):  # noqa: PT012 - at whichever ping it is
            while sent < 2_000:
                client.socket.sendall(pings)
                sent += 1
        assert sent < 200


def test_one_socket_does_not_keep_the_loop() -> None:
    """A read that holds thousands of messages is worked through in several turns."""
    counted: list[int] = []
    ended = Signal("ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        while (await receive())["type"] == "websocket.receive":
            counted.append(1)
        ended.set()

    with bridge_of(app) as bridge, opened(bridge) as client:
        data = client.frames.message(b"") * 20_000
        client.socket.sendall(data)
        client.close()
        ended.wait()
        assert len(counted) == 20_000


# -- The socket -------------------------------------------------------------------------------------------------------


class Proxy:
    """A platform's own: it is asked for bytes, and never for its descriptor's."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.seen = b""

    def fileno(self) -> int:
        return self._sock.fileno()

    def recv(self, size: int) -> bytes:
        return self._sock.recv(size)

    def send(self, data: bytes) -> int:
        sent = self._sock.send(data)
        self.seen += data[:sent]
        return sent


def test_object_that_is_no_socket_sees_every_byte() -> None:
    """It is held: the server's thread carries."""
    with bridge_of(Told()) as bridge, Client() as client:
        proxy = Proxy(client.server)
        client.environ["werkzeug.socket"] = proxy
        server = InThread(lambda: client.called(bridge))
        client.read_head()
        client.send("x" * 100_000)
        assert client.receive() == "x" * 100_000
        client.close()
        assert client.closed() == (1000, "")
        assert server.result().status == "101 Switching Protocols"
        assert proxy.seen.startswith(client.head)
        assert len(proxy.seen) > 100_000


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("says_so", [False, True])
def test_server_with_one_thread_keeps_it(says_so: bool, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would answer no request for as long as the WebSocket is open, and gunicorn would kill its worker."""
    monkeypatch.setattr(takeover, "has_one_thread", lambda: True)
    with bridge_of(never) as bridge, Client(wsgi__multithread=not says_so, wsgi__url_scheme=scheme) as client:
        client.environ["werkzeug.socket"] = Proxy(client.server)
        response = client.called(bridge)
        assert response.status == "501 Not Implemented"
        assert b"only one thread" in response.body
        assert (b"TLS" in response.body) is (scheme == "https")


def test_greenlet_that_stays_is_not_the_only_one() -> None:
    """Pywsgi says that it has one thread, and so it has."""
    for module, takes in (("gevent.ssl", False), ("ssl", True)):
        sock = type("SSLSocket", (), {"__module__": module})()
        assert takeover.Found(None, sock).takes_only_thread({"wsgi.multithread": False}) is takes


class PlatformsSocket(Proxy):
    """One with options."""

    def setsockopt(self, *option: int) -> None:
        self._sock.setsockopt(*option)


@pytest.mark.parametrize("kind", ["taken", "held"])
def test_messages_are_sent_without_delay(kind: str) -> None:
    """Nagle's algorithm is off, also where the server has left it on."""
    with bridge_of(Told()) as bridge, Client(family="tcp") as client:
        assert client.server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        copy = client.server.dup()
        if kind == "held":
            client.environ["werkzeug.socket"] = PlatformsSocket(client.server)
        server = InThread(lambda: client.called(bridge))
        with copy:
            client.read_head()
            assert copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        client.close()
        server.result()


def test_server_that_stops_does_not_wait_for_the_thread_that_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides are told 1012 as soon as the thread sees that its server stops, and then the thread is free."""
    stops = threading.Event()
    monkeypatch.setattr(carrier, "stop_of_server", lambda: stops.is_set)
    told = Told()
    with bridge_of(told) as bridge, Client() as client:
        client.environ["werkzeug.socket"] = Proxy(client.server)
        server = InThread(lambda: client.called(bridge))
        client.read_head()
        client.send("hello")
        assert client.receive() == "hello"
        stops.set()
        assert client.closed() == (1012, "")
        assert server.result().status == "101 Switching Protocols"
        assert told.told() == disconnect(1012)


@pytest.mark.parametrize("failing", ["dup", "pair", "dup2"])
def test_socket_that_cannot_be_taken_stays_the_servers(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's accept fails; the server gets an error that is no OSError, and no descriptor is lost."""

    def no_descriptors(*_: Any, **__: Any) -> Any:
        raise OSError(24, "Too many open files")

    failed = Signal("accept has failed")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "websocket.accept"})
        except ClientDisconnected:
            failed.set()
            raise

    with bridge_of(app) as bridge, Client() as client:
        where = {"dup": (os, "dup"), "pair": (takeover, "socket_pair"), "dup2": (os, "dup2")}[failing]
        with monkeypatch.context() as patch:
            patch.setattr(*where, no_descriptors)
            error = client.called(bridge, BridgeError).raised
        assert not isinstance(error, OSError)
        failed.wait()
        client.server.sendall(b"HTTP/1.1 500")
        assert client.socket.recv(12) == b"HTTP/1.1 500"
        wait_until_all_are_over(bridge)


def test_nothing_is_left_of_many() -> None:
    """No descriptor, no task, no object."""

    def alive() -> list[object]:
        gc.collect()
        return [one for one in gc.get_objects() if type(one) in {websocket.WebSocketSession, endpoint.Endpoint}]

    others = alive()  # of tests before this one, whose log records pytest still holds
    with bridge_of(Told()) as bridge:
        for number in range(50):
            with opened(bridge) as client:
                client.send("hello")
                assert client.receive() == "hello"
                if number % 2:
                    client.close()
                    assert client.closed() == (1000, "")
        wait_until_all_are_over(bridge)
        assert not bridge._lifetime.requests
        assert not [one for one in alive() if not any(one is other for other in others)]
        assert not our_sockets.open_sockets


@pytest.mark.skipif(not hasattr(os, "fork"), reason="No fork here.")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_does_not_keep_a_clients_connection() -> None:
    """The client sees its end when the parent closes it; the child closes its own copy."""
    with bridge_of(Told()) as bridge, opened(bridge, family="tcp") as client:
        here, there = os.pipe()
        go, gone = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(there, b"%d" % len(our_sockets.open_sockets))
            os.read(go, 1)
            os._exit(0)
        try:
            assert os.read(here, 8) == b"0"
            client.close()
            assert client.closed() == (1000, "")
        finally:
            os.write(gone, b"x")
            os.waitpid(child, 0)
            for descriptor in (here, there, go, gone):
                os.close(descriptor)


@needs_fork
@forks_with_threads
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_forked_child_has_no_copy_of_a_clients_descriptor_on_a_given_loop(kind: str) -> None:
    """With uvloop, the socket's close() alone would leave it open there."""
    if _backend[0] != "asyncio":
        pytest.skip("A given loop is asyncio's.")
    loop = pytest.importorskip(kind).new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        with bridge_of(Told(), loop=loop) as bridge, opened(bridge) as client:
            wait_until_only_the_client_is_left()
            (ours,) = our_sockets.open_sockets
            assert in_child(functools.partial(state_of, ours.fileno())) == b"closed"
            client.send("still there")
            assert client.receive() == "still there"
            client.close()
            assert client.closed() == (1000, "")
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def wait_until_only_the_client_is_left() -> None:
    """Wait until the server has closed what it has in the client's place."""
    deadline = time.monotonic() + BOUND_SECONDS
    while len(our_sockets.open_sockets) > 1:
        assert time.monotonic() < deadline


def state_of(descriptor: int) -> bytes:
    """Whether it is open in this process."""
    try:
        os.fstat(descriptor)
    except OSError:
        return b"closed"
    return b"open"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="No fork here.")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_does_not_keep_the_app_from_hearing_that_a_held_client_left() -> None:
    """The server's thread ends its side of the pair when the client leaves; the child has no copy of it."""
    told = Told()
    with bridge_of(told) as bridge, Client() as client:
        client.environ["werkzeug.socket"] = Proxy(client.server)
        server = InThread(lambda: client.called(bridge))
        client.read_head()
        pair = list(our_sockets.open_sockets)
        here, there = os.pipe()
        go, gone = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(there, b"%d %d" % (len(pair), sum(one.fileno() >= 0 for one in pair)))
            os.read(go, 1)
            os._exit(0)
        try:
            assert os.read(here, 8) == b"2 0"
            client.socket.shutdown(socket.SHUT_RDWR)  # the child has a copy of this one, too
            assert told.told() == disconnect(1006)
            server.result()
        finally:
            os.write(gone, b"x")
            os.waitpid(child, 0)
            for descriptor in (here, there, go, gone):
                os.close(descriptor)
        wait_until_all_are_over(bridge)
        assert not our_sockets.open_sockets


def test_middleware_around_the_bridge_sees_an_ordinary_response() -> None:
    """It may add headers, count bytes and wrap the iterable: nothing is raised through it."""
    counted: list[int] = []
    bridge = bridge_of(Told())

    def middleware(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: Any, *rest: Any) -> Any:
            return start_response(status, [*headers, ("X-Added", "1")], *rest)

        body = list(bridge(environ, start))
        counted.append(sum(map(len, body)))
        return iter(body)

    with bridge, Client() as client:
        response = client.called(middleware)
        assert (response.status, response.headers) == ("101 Switching Protocols", [("X-Added", "1")])
        client.read_head()
        client.send("hello")
        assert client.receive() == "hello"
    assert counted == [0]


def test_response_of_an_accepted_websocket_can_be_closed() -> None:
    """Some middleware calls ``close()`` without asking, as it may with any other response of the bridge."""
    with bridge_of(Told()) as bridge, Client() as client:
        exchange = Exchange(bridge, client.environ).begin()
        assert list(exchange.iterable) == []
        exchange.iterable.close()  # type: ignore[attr-defined]  # what is tested
        client.server.close()
        client.read_head()
        client.send("hello")
        assert client.receive() == "hello"


def test_http_goes_on_beside() -> None:
    """On the same loop."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await Told()(scope, receive, send)
        else:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"fine"})

    with bridge_of(app) as bridge, opened(bridge) as client:
        threads = threading.active_count()
        assert call(bridge, environ_of()).body == b"fine"
        assert threading.active_count() == threads
        client.send("hello")
        assert client.receive() == "hello"
