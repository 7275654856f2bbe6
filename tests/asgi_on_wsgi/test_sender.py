"""What an app sends: when it waits, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from a2wsgi import AppProtocolError
from a2wsgi._asgi_on_wsgi.to_server import ToServer
from support.asgi_bridges import HELLO, START, Bridge, body, hello, threaded
from support.lockstep import Signal
from support.wsgi_driver import Exchange, call

#: How many messages an app sends before a test believes that it would go on for ever.
FOR_EVER = 1_000


def test_send_waits_while_the_buffer_is_full() -> None:
    """PAINS D3: no more than response_buffer_bytes and one chunk are queued for a server that does not take them."""
    sent: list[int] = []
    full = Signal("full")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for number in range(100):
            if len(sent) >= 10:
                full.set()
            await send(body(b"x" * 100, more=True))
            sent.append(number)
        await send(body())

    exchange = Exchange(threaded(response_buffer_bytes=1000)(app)).begin()
    total = len(exchange.next())
    # The queue is refilled while the server has the first part, up to its bound.
    full.wait()
    while True:
        try:
            assert len(sent) * 100 <= total + 1000
            total += len(exchange.next())
        except StopIteration:
            break
    exchange.close()
    assert total == 10_000


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"1000000")]], ids=["open-ended", "counted"])
def test_sends_that_are_given_up_fill_no_memory(headers: list[tuple[bytes, bytes]]) -> None:
    """An app that waits for no send() queues one message more than fits, and no other."""
    go, full = Signal("go"), Signal("full")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": headers})
        await send(body(b"first", more=True))
        await go.wait_in_task()
        for _ in range(100):
            with anyio.CancelScope() as scope_of_send:
                scope_of_send.cancel()
                await send(body(b"x" * 100, more=True))
        full.set()
        await send(body(b"y", more=True))  # waits, and is sent
        raise LookupError

    exchange = Exchange(threaded(response_buffer_bytes=1000)(app)).begin()
    assert exchange.next() == b"first"
    go.set()
    full.wait()
    parts: list[bytes] = []
    with pytest.raises(LookupError):
        parts.extend(iter(exchange.next, None))
    exchange.close()
    data = b"".join(parts)
    assert data.endswith(b"xy")
    assert 1000 <= len(data) <= 1200


def test_several_tasks_may_wait_in_send(bridge: Bridge) -> None:
    """DESIGN 5.2: no sender is forgotten when several wait for room."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(send, body(b"%03d" % number * 100, more=True))
        await send(body())

    assert len(call(bridge(app, response_buffer_bytes=1000)).body) == 50 * 300


@pytest.mark.parametrize("message", [None, "x", {}])
def test_message_that_is_none_is_an_error_of_the_app(bridge: Bridge, message: Any) -> None:
    """DESIGN 5.3: it is raised inside the app's own send(), which may go on."""
    errors: list[type[BaseException]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send(message)
        except AppProtocolError as error:
            errors.append(type(error))
        await hello(scope, receive, send)

    assert call(bridge(app)) == HELLO
    assert errors == [AppProtocolError]


def test_task_that_the_app_has_left_completes_no_response() -> None:
    """The app returns in the middle of its response: what such a task sends last does not make that the whole."""
    begun, taken, sent = Signal("the response has begun"), Signal("a part was taken"), Signal("the task has sent")
    tasks = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def rest() -> None:
            await taken.wait_in_task()
            await send(body(b"the rest"))
            sent.set()

        await send(START)
        await send(body(b"one ", more=True))
        await begun.wait_in_task()
        await send(body(b"two ", more=True))
        tasks.append(asyncio.create_task(rest()))

    exchange = Exchange(threaded()(app)).begin()
    assert exchange.next() == b"one "
    begun.set()
    assert exchange.next() == b"two "
    taken.set()
    sent.wait()
    with pytest.raises(AppProtocolError, match="before the end of its response"):
        exchange.next()
    exchange.close()


THREAD_AND_INLINE = pytest.mark.parametrize("options", [{}, {"inline": True}], ids=["thread", "inline"])


class Endless:
    """Sends until the loop has let something else go first, or until it seems that it never will.

    Attributes:
        count: How many messages it has sent.
    """

    def __init__(self) -> None:
        self.count = 0
        self._others: list[str] = []

    async def send(self, send: Any) -> None:
        asyncio.get_running_loop().call_soon(self._others.append, "went")
        while not self._others and self.count < FOR_EVER:
            self.count += 1
            await send(body(b"x", more=True))


@THREAD_AND_INLINE
def test_task_that_the_app_has_left_and_that_sends_does_not_keep_the_loop(options: dict[str, Any]) -> None:
    """Nothing of it is queued, so no full queue makes it wait."""
    endless, tasks = Endless(), list[Any]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        goes_on = asyncio.get_running_loop().create_future()

        async def rest() -> None:
            goes_on.set_result(None)
            await asyncio.sleep(0)  # the app ends meanwhile
            await endless.send(send)

        await send({**START, "headers": [(b"content-length", b"1000000")]})
        tasks.append(asyncio.create_task(rest()))
        await goes_on

    with threaded(**options)(app) as bridge:
        call(bridge, fails=AppProtocolError)
    assert endless.count == 1


@THREAD_AND_INLINE
def test_app_that_sends_after_its_response_does_not_keep_the_loop(options: dict[str, Any]) -> None:
    """Nor what it sends after its last message, which is ignored."""
    endless = Endless()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        await endless.send(send)

    with threaded(**options)(app) as bridge:
        assert call(bridge).body == b"hello"
    assert endless.count == 1


def test_last_message_that_finds_no_memory_completes_no_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not sent, so the server is told of the failure, and not left with a response that it would wait for."""

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ToServer, "finish", fail)
    assert isinstance(call(threaded()(hello), fails=MemoryError).raised, MemoryError)
