"""Races between a server thread and the loop thread, each forced by holding the loop still at a known point."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest

from a2wsgi import AppProtocolError, BridgeClosed, ClientDisconnected
from a2wsgi._asgi_on_wsgi import lifetime as _lifetime
from a2wsgi._asgi_on_wsgi import request as _request
from a2wsgi._asgi_on_wsgi.to_server import ToServer
from a2wsgi._front.asgi_middleware import ASGIMiddleware
from support.lockstep import Signal
from support.threads import HookedLock
from support.wsgi_driver import Exchange, InThread, call, environ_of


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer in one go."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def bridge_of(app: Any, **options: Any) -> ASGIMiddleware:
    """A bridge with a thread, without lifespan, that has served."""
    options = {"lifespan": False, **options}
    bridge: ASGIMiddleware = ASGIMiddleware(app, **options)
    return bridge


class Held:
    """Holds a bridge's loop thread still within the block, so that what is rung waits."""

    def __init__(self, bridge: ASGIMiddleware) -> None:
        host = bridge._lifetime.start(bridge._shared.app)
        self._loop = host.loop
        self._held, self._go = Signal("the loop is held"), threading.Event()

    def __enter__(self) -> None:
        self._loop.call_soon_threadsafe(self._hold)
        self._held.wait()

    def _hold(self) -> None:
        self._held.set()
        self._go.wait(10)

    def __exit__(self, *_: object) -> None:
        self._go.set()


class Interrupted(BaseException):
    """What a signal handler raises, as that of a time limit does."""


class Requests(set[Any]):
    """A bridge's. A signal comes in the middle of taking one out."""

    def discard(self, element: object) -> None:
        super().discard(element)
        raise Interrupted


def test_signal_handler_that_raises_as_an_app_has_ended_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """1. The app has ended. 2. A signal handler raises before the server thread is told. 3. It is told all the same.

    With ``inline=True`` the loop runs on the main thread, where signal handlers do.
    """

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError

    copies: list[object] = []

    def copy_context() -> contextvars.Context:
        copies.append(None)
        if len(copies) == 2:  # the first is made as the request begins
            raise Interrupted
        return contextvars.copy_context()

    with bridge_of(hello, inline=True) as bridge:
        bridge._lifetime.requests = Requests()
        assert call(bridge).body == b"hello"
        bridge._lifetime.requests = set()

    with bridge_of(fails, inline=True) as bridge:
        monkeypatch.setattr(_request, "contextvars", types.SimpleNamespace(copy_context=copy_context))
        with pytest.raises(Interrupted):
            Exchange(bridge, environ_of()).begin()
    gc.collect()  # the task's end is told there
    assert all(record.getMessage().startswith("Task exception was never") for record in caplog.records)


def test_request_that_rings_as_the_bridge_closes_is_refused() -> None:
    """1. A server thread sees the host. 2. The bridge is closed. 3. The thread rings: it gets BridgeClosed, no hang."""
    keeper, one = bridge_of(hello), bridge_of(hello)
    call(keeper)  # keeps the loop thread
    host = one._lifetime.start(one._shared.app)
    rung, closed = Signal("about to ring"), Signal("closed")
    bell = host.doorbell
    ring = bell.ring

    class Slow:
        def ring(self, function: Any, argument: Any) -> bool:
            rung.set()
            closed.wait()
            return ring(function, argument)

    host.doorbell = Slow()  # type: ignore[assignment]  # has what is used of it
    calling = InThread(lambda: call(one, fails=BridgeClosed))
    rung.wait()
    host.doorbell = bell
    one.close()
    closed.set()
    assert isinstance(calling.result().raised, BridgeClosed)


def test_close_and_the_last_message_at_once() -> None:
    """1. The server closes a response that has no end yet. 2. Its end is sent before the loop hears of the closing."""
    sent, closing, done = Signal("sent"), Signal("closing"), Signal("done")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0)
        sent.set()
        closing.wait()  # in the loop's own thread: the bell that the server rings is not heard yet
        await send({"type": "http.response.body", "body": b"end"})
        done.set()

    with bridge_of(app) as one:
        exchange = Exchange(one).begin()
        sent.wait()
        exchange.close()
        closing.set()
        done.wait()


def test_rest_of_the_body_and_the_loss_of_the_client_at_once() -> None:
    """1. A task listens. 2. The rest of the body wakes it. 3. The client is lost. 4. First, another task sends.

    It has the time to stop the one that sends, as if it had been told of the loss itself. Litestar leaves out its last
    hook, else; and with gunicorn's input even a GET has a rest of its body.
    """
    stuck, ended = Signal("the read goes on"), Signal("ended")
    seen: list[str] = []

    class Input:
        def read(self, _: int) -> bytes:
            stuck.wait()
            return b""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = send.__self__

        async def respond() -> None:
            await send({"type": "http.response.start", "status": 200})
            # In one answer to the bell.
            request._arrive([{"type": "http.request", "body": b"", "more_body": False}])
            request._server_left("the server closed the response before its end")
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

        responding = asyncio.ensure_future(respond())
        while (await receive())["type"] != "http.disconnect":
            pass
        await asyncio.sleep(0)  # what sends may go on a step before it is stopped
        responding.cancel()
        (ending,) = await asyncio.gather(responding, return_exceptions=True)
        seen.append(type(ending).__name__)
        ended.set()

    environ = environ_of(wsgi__input=Input(), wsgi__input_terminated=True)
    with bridge_of(app) as one:
        calling = InThread(lambda: call(one, environ, fails=ClientDisconnected))
        ended.wait()
        stuck.set()
        calling.result()
    assert seen == ["CancelledError"]


def test_failure_as_the_server_gives_up_waiting_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """1. close() waits wait_time in vain. 2. The app fails. 3. The loop hears that nobody waits: it is logged."""
    late, go, failed = Signal("late"), Signal("go"), Signal("failed")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        await asyncio.sleep(0)
        late.set()
        go.wait()  # in the loop's own thread: the bell that the server rings is not heard yet
        asyncio.get_running_loop().call_soon(failed.set)
        raise ValueError("late")

    with bridge_of(app, wait_time=0.05) as one:
        exchange = Exchange(one).begin()
        late.wait()
        exchange.close()
        go.set()
        failed.wait()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_response_and_request_body_at_once() -> None:
    """1. The app asks for its body. 2. It sends. 3. The server thread looks: it delivers first, and then reads."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reading = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first ", "more_body": True})
        message = await reading
        await send({"type": "http.response.body", "body": b"%d" % len(message["body"])})

    with bridge_of(app) as one:
        environ = environ_of("POST", body=b"x" * 100_000)
        exchange = Exchange(one, environ)
        with Held(one):
            beginning = InThread(exchange.begin)
        beginning.result()
        assert environ["wsgi.input"].reads == []
        assert b"".join(exchange.iterator) == b"first 65536"
        exchange.close()


def test_hundred_senders_and_closers() -> None:
    """Responses that are closed at any moment leave nothing: no task, no request, no hang."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(20):
            await send({"type": "http.response.body", "body": b"x" * 30_000, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body"})

    def serve(chunks: int) -> None:
        for _ in range(25):
            exchange = Exchange(one).begin()
            for _, _chunk in zip(range(chunks), exchange.iterator, strict=False):
                pass
            exchange.close()

    with bridge_of(app) as one:
        servers = [InThread(functools.partial(serve, chunks)) for chunks in range(4)]
        for server in servers:
            server.result()
        assert call(one).status == "200 OK"


def test_wake_up_is_not_lost_as_the_loop_changes_how_it_waits() -> None:
    """A descriptor that comes and goes makes the loop wait by the pipe, and by the lock again: no request hangs."""
    import socket

    async def app(scope: Any, receive: Any, send: Any) -> None:
        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            asyncio.get_running_loop().call_soon(right.send, b"x")  # once somebody waits for it
            assert await asyncio.get_running_loop().sock_recv(left, 1) == b"x"
            await asyncio.to_thread(int)
            await hello(scope, receive, send)

    with bridge_of(app) as one:
        servers = [InThread(lambda: [call(one).body for _ in range(50)]) for _ in range(4)]
        for server in servers:
            assert server.result() == [b"hello"] * 50


def test_request_that_an_outer_bridge_aborts_before_it_begins_never_enters_the_app() -> None:
    """Defends `_begin`: it looks whether somebody still takes the response.

    1. The inner bridge joins the outer request. 2. That is aborted, and the loop hears of it. 3. The loop is rung to
    start the app, before the server thread goes on: it does not.
    """
    entered: list[Any] = []

    def go_round() -> None:
        """Wait until the loop has done what it has to do."""
        done = Signal("the loop has gone round")
        host.loop.call_soon_threadsafe(host.loop.call_soon, done.set)
        done.wait()

    class Thorough:
        def ring(self, function: Any, argument: Any) -> bool:
            rung = bell.ring(function, argument)
            go_round()
            return rung

    async def app(scope: Any, receive: Any, send: Any) -> None:
        entered.append(scope)
        await hello(scope, receive, send)

    class OuterRequest:
        """What a bridge further out leaves in the environ."""

        def _join(self, link: Any, on_abort: Callable[[BaseException], object]) -> None:
            on_abort(ClientDisconnected("the outer client left"))
            go_round()

    with bridge_of(app) as one:
        host = one._lifetime.start(app)
        bell, host.doorbell = host.doorbell, Thorough()  # type: ignore[assignment]  # has what is used of it
        response = call(one, {**environ_of(), "a2wsgi.disconnected": OuterRequest()}, fails=ClientDisconnected)
        host.doorbell = bell
        assert response.status is None
        statistics = one.statistics()
        assert (statistics.in_flight, statistics.disconnected) == (0, 1)
        assert call(one).status == "200 OK"
    assert len(entered) == 1


def test_request_whose_server_leaves_as_its_task_is_made_ends_with_the_bridge() -> None:
    """1. The loop makes the app's task. 2. The server thread gives up. 3. The task is there: close() cancels it."""
    making, left, ended = Signal("the task is being made"), Signal("the server thread has left"), Signal("ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.get_running_loop().create_future()  # hears of no disconnect
        finally:
            ended.set()

    def make(loop: asyncio.AbstractEventLoop, running: Any, **options: Any) -> asyncio.Task[Any]:
        if not making.is_set():
            making.set()
            left.wait()
        return asyncio.Task(running, loop=loop, **options)

    keeper, one = bridge_of(hello), bridge_of(app, grace_timeout=1000, shutdown_timeout=0.05)
    call(keeper)  # else the loop would end with the bridge, and the task with the loop
    loop = one._lifetime.start(one._shared.app).loop
    loop.set_task_factory(make)
    try:
        leaving = environ_of() | {"waitress.client_disconnected": making.is_set}
        with pytest.raises(ClientDisconnected):
            one(leaving, lambda *_: bytes)
        left.set()
        one.close()
        ended.wait()
    finally:
        loop.set_task_factory(None)


def test_client_that_is_found_gone_as_the_app_answers_gets_no_empty_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defends `ToServer.take`, which raises.

    1. The server thread finds that the client has hung up. 2. The app answers in one go. 3. The server thread looks:
    what it has is nothing, and the response is complete.
    """
    found, answered, take = Signal("the client was found gone"), Signal("the app has answered"), ToServer.take

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await found.wait_in_task()
        await hello(scope, receive, send)
        answered.set()

    def take_and_have_it_answered(self: Any, *args: Any) -> Any:
        try:
            return take(self, *args)
        finally:
            found.set()
            answered.wait()

    monkeypatch.setattr(ToServer, "take", take_and_have_it_answered)
    exchange = Exchange(bridge_of(app), {**environ_of(), "waitress.client_disconnected": lambda: True})
    with pytest.raises(ClientDisconnected, match="the client hung up"):
        exchange.begin()
    assert exchange.status is None


# -- What is raised into a server thread ------------------------------------------------------------------------------


def test_server_thread_that_is_interrupted_as_it_has_rung_has_its_app_end() -> None:
    """Defends `Request.answer`: nobody else tells the app that nobody takes its response."""
    begun, ended = Signal("the app has begun"), Signal("the app was told")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await receive()
        assert await receive() == {"type": "http.disconnect"}
        ended.set()

    class Interrupting:
        def ring(self, function: Any, argument: Any) -> bool:
            host.doorbell = bell
            bell.ring(function, argument)
            begun.wait()
            raise Interrupted

    with bridge_of(app) as one:
        host = one._lifetime.start(app)
        bell, host.doorbell = host.doorbell, Interrupting()  # type: ignore[assignment]  # has what is used of it
        with pytest.raises(Interrupted):
            one(environ_of(), lambda *_: bytes)
        ended.wait()


def test_server_thread_that_is_interrupted_before_it_rings_leaves_no_request() -> None:
    """Defends `ASGIMiddleware.__call__`: a request that never came to the loop is in flight no more."""

    class Interrupting(set[Any]):
        def add(self, element: Any) -> None:
            super().add(element)
            raise Interrupted

    with bridge_of(hello) as one:
        one._lifetime.requests = Interrupting()
        with pytest.raises(Interrupted):
            one(environ_of(), lambda *_: bytes)
        assert one.statistics().in_flight == 0


def test_server_thread_that_is_interrupted_as_it_begins_a_startup_leaves_that_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Defends `Lifetime.start`: nobody waits for a startup that nobody is at."""

    def interrupted(*_: Any) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(_lifetime.Lifetime, "_start_up", interrupted)
        bridge = bridge_of(hello, startup_timeout=0.01)
        with pytest.raises(Interrupted):
            bridge.start()
    assert call(bridge).body == b"hello"


@pytest.mark.parametrize("options", [{}, {"inline": True}], ids=["thread", "inline"])
def test_thread_that_is_interrupted_as_it_begins_a_stop_leaves_none(options: dict[str, Any]) -> None:
    """Defends `Lifetime.stop_started`: nobody waits for a stop that nobody is at, and the loop ends."""

    def interrupted() -> None:
        assert bridge._lifetime._change is not None
        raise Interrupted

    lock = HookedLock()
    with bridge_of(hello, **options) as bridge:
        assert call(bridge).body == b"hello"
        host = bridge._lifetime.host
        assert host is not None
        bridge._lifetime._lock = lock  # type: ignore[assignment]  # a lock but for its type
        lock.after = interrupted
        with pytest.raises(Interrupted):
            bridge._lifetime.stop_started()
        assert bridge._lifetime._change is None
        assert host.loop.is_closed()
        assert call(bridge).body == b"hello"


@pytest.mark.parametrize("options", [{}, {"inline": True}], ids=["thread", "inline"])
def test_app_that_is_cancelled_before_its_first_step_fails_its_request(options: dict[str, Any]) -> None:
    """Other code on the loop cancels all tasks. The server thread, which nobody tells, finds that the task is over."""

    def cancelled(loop: asyncio.AbstractEventLoop, running: Any, **others: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(running, loop=loop, **others)
        task.cancel()
        return task

    with bridge_of(hello, **options) as one:
        loop = one._lifetime.start(one._shared.app).loop
        loop.set_task_factory(cancelled)
        raised = InThread(lambda: call(one, fails=AppProtocolError)).result().raised
        loop.set_task_factory(None)
        assert "CancelledError" in str(raised)
        assert one.statistics().in_flight == 0
        assert call(one).body == b"hello"


def test_response_that_is_closed_while_another_thread_waits_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """1. The app sends the last message. 2. A thread closes the response, and leaves its gate. 3. The step ends."""
    sent, closing = Signal("the last message is sent, in a step that goes on"), Signal("the closing thread waits")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        await may_send.wait()
        await send({"type": "http.response.body"})
        sent.set()
        closing.wait()
        await may_end.wait()

    with bridge_of(app) as one:
        host = one._lifetime.start(app)
        may_send, may_end = asyncio.Event(), asyncio.Event()
        exchange = Exchange(one).begin()
        assert exchange.next() == b"hello"
        make = type(host).gate

        def gate(self: Any) -> Any:
            """Called with the lock of the stream held, which the end of the step needs."""
            made.append(make(self))
            if len(made) == 1:
                host.loop.call_soon_threadsafe(may_send.set)
            else:
                closing.set()
            return made[-1]

        made: list[Any] = []
        monkeypatch.setattr(type(host), "gate", gate)
        waiting = InThread(lambda: list(exchange.iterator))
        sent.wait()
        closer = InThread(exchange.close)
        assert waiting.result() == []
        host.loop.call_soon_threadsafe(may_end.set)
        closer.result()
