"""Races of an ASGI app's WebSocket on a WSGI server, each forced."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from typing import Any

import pytest

pytest.importorskip("websockets")

from a2wsgi import AppProtocolError, ASGIMiddleware, BridgeClosed, ClientDisconnected
from a2wsgi._asgi_on_wsgi.websocket import endpoint, handshake, our_sockets, takeover
from a2wsgi._asgi_on_wsgi.websocket import session as websocket
from support.lockstep import BOUND_SECONDS, Lockstep, Signal
from support.websocket_client import Client, opened
from support.wsgi_driver import InThread, call, environ_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="No socket can be taken over there.")


async def accepts(scope: Any, receive: Any, send: Any) -> None:
    """Accept, and wait for the end."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


def nothing_is_open() -> bool:
    """Of the descriptors that are ours."""
    return not our_sockets.open_sockets


def test_server_thread_that_is_interrupted_after_the_takeover_closes_the_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1. The server thread takes the socket. 2. A signal's handler raises in it, before the loop is told."""
    failed = Signal("accept has failed")
    take = takeover.HandOver.next

    def interrupted(self: takeover.HandOver) -> Any:
        take(self)
        raise KeyboardInterrupt

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await accepts(scope, receive, send)
        except ClientDisconnected:
            failed.set()
            raise

    monkeypatch.setattr(takeover.HandOver, "next", interrupted)
    with ASGIMiddleware(app, lifespan=False) as bridge, Client() as client:
        client.called(bridge, KeyboardInterrupt)
        client.server.close()
        failed.wait()
        assert client.socket.recv(1) == b""


def test_bridge_that_is_closed_between_takeover_and_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """1. The server thread has taken the socket. 2. The bridge is closed. 3. The loop would answer the handshake.

    The server gets the bridge's own error, and the client the end of the connection.
    """
    step = Lockstep()
    closed = Signal("the bridge is closed")
    take = takeover.HandOver.next

    def slow(self: takeover.HandOver) -> Any:
        messages = take(self)
        with step(1):
            pass
        closed.wait()
        return messages

    monkeypatch.setattr(takeover.HandOver, "next", slow)
    bridge = ASGIMiddleware(accepts, lifespan=False)
    with Client() as client:
        server = InThread(lambda: client.called(bridge, BridgeClosed))
        with step(2):
            bridge.close()
        closed.set()
        server.result()
        client.server.close()
        assert client.socket.recv(1) == b""
    assert nothing_is_open()


def test_client_that_is_lost_while_its_handshake_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """1. The socket is the loop's. 2. The client resets. 3. The head is written: the app is told 1006."""
    told: list[Any] = []
    ended = Signal("the app has ended")
    make = endpoint.Endpoint.connection_made

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        told.append(await receive())
        ended.set()

    with ASGIMiddleware(app, lifespan=False) as bridge, Client() as client:

        def lost(self: endpoint.Endpoint, transport: asyncio.BaseTransport) -> None:
            client.socket.close()
            make(self, transport)

        monkeypatch.setattr(endpoint.Endpoint, "connection_made", lost)
        assert client.called(bridge).status == "101 Switching Protocols"
        ended.wait()
    assert told == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


def test_accept_that_is_cancelled_while_the_server_thread_takes_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """1. The app asks. 2. The server thread is about to take it. 3. The app gives up. 4. It is taken: and closed."""
    step = Lockstep()
    take = takeover.HandOver.next

    def slow(self: takeover.HandOver) -> Any:
        with step(1):
            pass
        with step(3):
            return take(self)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        accepting = asyncio.ensure_future(send({"type": "websocket.accept"}))
        async with step(2):
            accepting.cancel()
            await asyncio.wait((accepting,))
        raise LookupError("gave up")

    monkeypatch.setattr(takeover.HandOver, "next", slow)
    with ASGIMiddleware(app, lifespan=False) as bridge, Client() as client:
        client.called(bridge, LookupError)
        client.server.close()
        assert client.socket.recv(1) == b""
    assert nothing_is_open()


def test_client_that_leaves_as_the_app_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    """1. A task listens. 2. The request ends. 3. Before the listener is woken, the app accepts: that fails."""
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        listener = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (session,) = (one for one in bridge._lifetime.requests if isinstance(one, websocket.WebSocketSession))
        session._request.abort(ClientDisconnected("it has left"))
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.accept"})
        told.append(await listener)

    with ASGIMiddleware(app, lifespan=False) as bridge, Client() as client:
        client.called(bridge, ClientDisconnected)
    assert told == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


def test_client_that_leaves_before_the_loop_has_time_for_its_handshake() -> None:
    """1. An app holds up the loop. 2. A handshake comes. 3. Its client leaves. 4. The loop goes on.

    The app is not called: least of all as for an HTTP request, with the handshake's scope.
    """
    called: list[str] = []
    held, go = Signal("the loop is held up"), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append(scope["path"])
        if scope["path"] == "/holds":
            held.set()
            go.wait(BOUND_SECONDS)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    with ASGIMiddleware(app, lifespan=False) as bridge, Client(PATH_INFO="/left") as client:
        other = InThread(lambda: call(bridge, environ_of(PATH_INFO="/holds")))
        held.wait()
        client.socket.close()
        server = InThread(lambda: client.called(bridge, ClientDisconnected))
        try:
            server.result()
        finally:
            go.set()
        other.result()
        assert call(bridge, environ_of()).status == "200 OK"  # the loop has come by all that was before it
        assert called == ["/holds", "/"]
        assert not bridge._lifetime.requests


@pytest.mark.parametrize("moment", ["before", "amid"])
def test_descriptor_that_has_become_another_clients_is_not_taken(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1. The socket was found. 2. Its client leaves. 3. The server closes it. 4. Another client gets its number.

    waitress's main thread does so, with a lookahead. The app accepts after 4, or the takeover has come half the way.
    """
    failed = Signal("accept has failed")
    make = our_sockets.socket_pair

    with Client() as client:
        number = client.server.fileno()
        other, others_server = socket.socketpair()

        def pass_on() -> None:
            client.server.close()
            os.dup2(others_server.fileno(), number)
            others_server.close()

        def pair() -> Any:
            pass_on()
            return make()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            if moment == "before":
                pass_on()
            try:
                await send({"type": "websocket.accept"})
            except ClientDisconnected:
                failed.set()
                raise

        if moment == "amid":
            monkeypatch.setattr(takeover, "socket_pair", pair)
        with other, ASGIMiddleware(app, lifespan=False) as bridge:
            client.called(bridge, ClientDisconnected)
            failed.wait()
            with socket.socket(fileno=number) as theirs:
                theirs.sendall(b"hello")
                assert other.recv(100) == b"hello"
        assert client.socket.recv(1) == b""
    assert nothing_is_open()


def test_descriptor_that_the_server_has_closed_ends_the_handshake_as_a_client_that_left() -> None:
    """Nothing says to raise the limit of descriptors."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        client.server.close()
        await accepts(scope, receive, send)

    with ASGIMiddleware(app, lifespan=False) as bridge, Client() as client:
        client.called(bridge, ClientDisconnected)


def test_two_handshakes_at_once_do_not_both_get_the_last_place() -> None:
    """The second counts when the first is counted in."""
    go = Signal("go")

    class Slow(set[Any]):
        def copy(self) -> Any:
            copied = set(self)
            if threading.current_thread() is not threading.main_thread():
                go.set()
            return copied

    with ASGIMiddleware(accepts, lifespan=False, max_websockets=1) as bridge, Client() as one, Client() as other:
        bridge._lifetime.requests = Slow()
        with handshake._admission:
            first, second = InThread(lambda: one.called(bridge)), InThread(lambda: other.called(bridge))
        statuses = {str(first.result().status)[:3], str(second.result().status)[:3]}
        assert statuses == {"101", "503"}


def test_app_that_is_cancelled_before_its_first_step_leaves_no_place_taken() -> None:
    """Other code on the loop cancels all tasks. The session, which has seen nothing of its app, is forgotten."""

    def cancelled(loop: asyncio.AbstractEventLoop, running: Any, **others: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(running, loop=loop, **others)
        task.cancel()
        return task

    with ASGIMiddleware(accepts, lifespan=False, max_websockets=1) as bridge:
        loop = bridge._lifetime.start(accepts).loop
        loop.set_task_factory(cancelled)
        with Client() as client:
            raised = InThread(lambda: client.called(bridge, AppProtocolError)).result().raised
        loop.set_task_factory(None)
        assert "CancelledError" in str(raised)
        assert bridge._lifetime.requests == set()
        assert bridge.statistics().websockets == 0
        with opened(bridge):
            assert bridge.statistics().websockets == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="No fork here.")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_that_is_forked_amid_a_handshake_serves() -> None:
    """A thread of the parent's holds the lock then."""
    with handshake._admission:
        child = os.fork()
        if child == 0:
            code = 1
            with ASGIMiddleware(accepts, lifespan=False) as bridge, opened(bridge):
                code = 0
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
