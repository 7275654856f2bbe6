"""``http.response.early_hint``: what an ASGI app sends goes to the server's callable, or is the app's error."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from a2wsgi import AppProtocolError, ClientDisconnected, InvalidHeader
from support.asgi_bridges import HELLO, START, Bridge, OddError, alone, body, hello
from support.lockstep import Signal
from support.wsgi_driver import call, environ_of

STYLE = b"</style.css>; rel=preload; as=style"
HINT = {"type": "http.response.early_hint", "links": [STYLE]}
LINKS = [("Link", STYLE.decode())]


class Server:
    """A server's callable, and what it was called with."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.given: list[Any] = []
        self.threads: set[int] = set()
        self._error = error

    def __call__(self, headers: Any) -> None:
        self.given.append(headers)
        self.threads.add(threading.get_ident())
        if self._error is not None:
            raise self._error

    def environ(self, **others: Any) -> dict[str, Any]:
        return environ_of(**{"wsgi__early_hints": self, **others})


async def hinting(scope: Any, receive: Any, send: Any) -> None:
    """Sends a hint, then answers."""
    assert "http.response.early_hint" in scope["extensions"]
    await send(HINT)
    await hello(scope, receive, send)


def test_hint_is_given_to_the_server_on_its_own_thread(bridge: Bridge) -> None:
    """A greenlet or a thread of the server's may be the only one that may write to its client."""
    server = Server()
    assert call(bridge(hinting), server.environ()) == HELLO
    assert (server.given, server.threads) == ([LINKS], {threading.get_ident()})


@alone("a bridge further out only queues it for its server, as it waits for nobody")
def test_hint_has_gone_out_when_the_app_goes_on(bridge: Bridge) -> None:
    """An app that blocks the loop after it does not hold it back."""
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HINT)
        assert server.given == [LINKS]
        await send({**HINT, "links": iter([b"</a>", b"</b>"])})
        assert server.given == [LINKS, [("Link", "</a>"), ("Link", "</b>")]]
        await hello(scope, receive, send)

    assert call(bridge(app), server.environ()) == HELLO


@pytest.mark.parametrize("key", [{}, {"wsgi__early_hints": None}], ids=["absent", "None"])
def test_hint_is_offered_only_if_the_server_has_the_callable(bridge: Bridge, key: dict[str, Any]) -> None:
    """ASGI, "Extensions": else it is the app's error, of which nothing is sent."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "http.response.early_hint" not in scope["extensions"]
        with pytest.raises(AppProtocolError, match=r"http\.response\.early_hint"):
            await send(HINT)
        await hello(scope, receive, send)

    assert call(bridge(app), environ_of(**key)) == HELLO


def test_hint_after_the_head_is_the_apps_error(bridge: Bridge) -> None:
    """RFC 8297 §2. ASGI servers raise, too. The app may catch it, and go on."""
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        with pytest.raises(AppProtocolError, match="Send hints first"):
            await send(HINT)
        await send(body(b"hello"))
        await send(HINT)  # ASGI HTTP 2.5, "Response Body": what follows the last message is ignored

    assert call(bridge(app), server.environ()) == HELLO
    assert server.given == []


@pytest.mark.parametrize("links", [[b"</a>\r\nX: y"], [b"</a>\n"], [b"\0"]])
def test_hint_that_cannot_be_sent_is_raised_to_the_app(bridge: Bridge, links: list[bytes]) -> None:
    """Nothing of it reaches the server."""
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(InvalidHeader):
            await send({**HINT, "links": links})
        await hello(scope, receive, send)

    assert call(bridge(app), server.environ()) == HELLO
    assert server.given == []


def test_hint_without_links_calls_nobody(bridge: Bridge) -> None:
    """A 103 that says nothing is not sent."""
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": HINT["type"], "links": []})
        await send({"type": HINT["type"]})
        await hello(scope, receive, send)

    assert call(bridge(app), server.environ()) == HELLO
    assert server.given == []


@alone("a bridge further out does not wait for its server, and so cannot tell the app of its error")
@pytest.mark.parametrize("error", [OddError("odd"), BrokenPipeError("gone")], ids=repr)
def test_error_of_the_callable_is_raised_to_the_app(bridge: Bridge, error: Exception) -> None:
    """The very same, as to a WSGI app, which may catch it."""
    server = Server(error)
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send(HINT)
        except type(error) as caught:
            raised.append(caught)
        await hello(scope, receive, send)

    assert call(bridge(app), server.environ()) == HELLO
    assert raised == [error]
    assert call(bridge(hinting), server.environ(), fails=type(error)).raised is error


@alone("as above")
def test_server_that_ends_its_thread_at_a_hint_ends_its_request(bridge: Bridge) -> None:
    """Gunicorn raises SystemExit in a signal's handler, at any moment: the app is told that its client is gone."""
    server = Server(SystemExit(3))
    told = Signal("the app is told")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send(HINT)
        except ClientDisconnected:
            told.set()
            raise

    one = bridge(app)
    call(one, server.environ(), fails=SystemExit)
    one.close()  # with inline=True nothing runs in between
    assert told.is_set()


def test_hints_of_several_tasks_all_go_out(bridge: Bridge) -> None:
    """Each waits for its own."""
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(send, {**HINT, "links": [b"</%d>" % number]})
        await hello(scope, receive, send)

    assert call(bridge(app), server.environ()) == HELLO
    assert sorted(server.given) == [[("Link", f"</{number}>")] for number in range(10)]


def test_hint_beside_a_whole_response_comes_before_it(bridge: Bridge) -> None:
    """A task that sends one just before another task answers is not left waiting."""
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(send, HINT)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            await hello(scope, receive, send)

    assert call(bridge(app), server.environ()) == HELLO
    assert server.given == [LINKS]


def test_cancelled_hint_harms_nobody(bridge: Bridge) -> None:
    """The task that sends it is cancelled in the middle of it; the request goes on."""
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(send, HINT)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await hello(scope, receive, send)

    assert call(bridge(app), server.environ()) == HELLO


def test_hint_goes_out_while_the_body_is_asked_for(bridge: Bridge) -> None:
    """The server's one thread does both."""
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received = b""

        async def read() -> None:
            nonlocal received
            while True:
                message = await receive()
                received += message["body"]
                if not message["more_body"]:
                    return

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.lowlevel.checkpoint()
            await send(HINT)
        assert received == b"x" * 200_000
        await hello(scope, receive, send)

    assert call(bridge(app), server.environ(method="POST", body=b"x" * 200_000)) == HELLO
    assert server.given == [LINKS]
