"""What an app receives, by any number of tasks, and when it is told of a disconnect."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from a2wsgi import ClientDisconnected
from support.asgi_bridges import HEAD_WAITS, HELLO, START, Bridge, alone, body, echo, hello
from support.lockstep import Signal
from support.wsgi_driver import Exchange, call, environ_of

#: How many times an app goes on after the disconnect before a test believes that it always would.
FOR_EVER = 100_000


def test_receive_waits_after_the_body_while_others_send(bridge: Bridge) -> None:
    """PAINS C6: receive() after the end of the body neither gives anything nor holds up send()."""
    given: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

        async def watch() -> None:
            given.append(await receive())

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await send(START)
            for _ in range(100):
                await send(body(b"x", more=True))
                await anyio.lowlevel.checkpoint()
            assert given == []
            await send(body())

    assert call(bridge(app)).body == b"x" * 100
    assert given == [{"type": "http.disconnect"}]


def test_cancelled_receive_loses_nothing(bridge: Bridge) -> None:
    """DESIGN 5.2: a part of the body that arrives for a receive() that was cancelled goes to the next."""
    data = b"x" * 200_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await echo(scope, receive, send)

    assert call(bridge(app), environ_of("POST", body=data)).body == b"rrrr:" + data


def test_several_tasks_may_wait_in_receive(bridge: Bridge) -> None:
    """DESIGN 5.2: each part goes to one of those who wait, and the disconnect to all."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sizes: list[int] = []

        async def take() -> None:
            message = await receive()
            sizes.append(len(message.get("body", b"")))

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(take)
        await send(START)
        await send(body(b"%d" % sum(sizes)))

    assert call(bridge(app), environ_of("POST", body=b"x" * 200_000)).body == b"200000"


@alone(HEAD_WAITS)
@pytest.mark.parametrize("waits", [True, False], ids=["waits", "sends"])
def test_early_close_lets_who_receives_stop_who_sends(bridge: Bridge, waits: bool) -> None:
    """An app that has a task listen for the client, and cancels the one that sends, is not failed by that before.

    Django does, and closes its response, and sends ``request_finished``, only where it could cancel.
    """
    seen: list[str] = []
    ended = Signal("ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        disconnected = anyio.Event()

        async def respond() -> None:
            try:
                await send(START)
                await send(body(b"first", more=True))
                while waits:
                    await send(body(b"x" * 1000, more=True))
                await disconnected.wait()
                await send(body(b"more", more=True))
            except BaseException as error:
                seen.append("stopped" if isinstance(error, anyio.get_cancelled_exc_class()) else repr(error))
                raise

        async def listen() -> None:
            await receive()
            disconnected.set()
            await anyio.lowlevel.checkpoint()  # what sends may go on a step before it is stopped
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            group.start_soon(respond)
        ended.set()

    exchange = Exchange(bridge(app)).begin()
    exchange.next()
    exchange.close()
    ended.wait()
    assert seen == ["stopped"]


@alone(HEAD_WAITS)
@pytest.mark.parametrize("does", ["receives", "sends"])
def test_app_that_goes_on_after_the_disconnect_is_cancelled(bridge: Bridge, does: str) -> None:
    """One that asks again and again, or passes over each failure, does not keep the loop, which is to cancel it."""
    seen: list[str] = []
    ended = Signal("ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"first", more=True))
        try:
            for _ in range(FOR_EVER):
                if does == "receives":
                    await receive()
                    continue
                try:
                    await send(body(b"x" * 1000, more=True))
                except ClientDisconnected:
                    continue
            seen.append("gave up")
        except BaseException as error:
            seen.append("cancelled" if isinstance(error, anyio.get_cancelled_exc_class()) else repr(error))
            raise
        finally:
            ended.set()

    exchange = Exchange(bridge(app, grace_timeout=0)).begin()
    exchange.next()
    exchange.close()
    ended.wait()
    assert seen == ["cancelled"]


def test_disconnect_is_told_at_once_to_who_asks_a_few_times(bridge: Bridge) -> None:
    """Some look whether the client is gone by a receive() that they cancel as soon as it waits."""
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        for _ in range(50):
            with anyio.CancelScope() as scope_of_look:
                scope_of_look.cancel()
                told.append(await receive())

    assert call(bridge(app)) == HELLO
    assert told == [{"type": "http.disconnect"}] * 50


def test_receive_that_is_cancelled_leaves_nothing_behind(bridge: Bridge) -> None:
    """Starlette's ``is_disconnected()`` cancels one at each look."""
    waiting: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for _ in range(3):
            async with anyio.create_task_group() as group:
                group.start_soon(receive)
                await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            waiting.append(len(receive.__self__.receivers))
        await hello(scope, receive, send)

    assert call(bridge(app)) == HELLO
    assert waiting == [0, 0, 0]
