"""``environ["wsgi.early_hints"]``: what a WSGI app gives is sent before its response, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import pytest

from a2wsgi import ClientDisconnected, InvalidHeader, WSGIMiddleware
from a2wsgi._wsgi_on_asgi.response import MOST_HINTS
from a2wsgi.wsgi_typing import Environ, StartResponse
from support.asgi_driver import Client, Message, answer, call, http_scope, messages_of, run
from support.bridges import Bridged
from support.lockstep import Signal
from support.runtimes import in_worker, start
from support.threads import in_thread

pytestmark = pytest.mark.usefixtures("runtime")

OFFERED: dict[str, Any] = {"http.response.early_hint": {}}
STYLE = "</style.css>; rel=preload; as=style"
HINT = {"type": "http.response.early_hint", "links": [STYLE.encode()]}


def scope(**others: Any) -> dict[str, Any]:
    """The scope of a server that offers hints."""
    return http_scope(**{"extensions": OFFERED, **others})


def hinting(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Gives a hint, then answers."""
    environ["wsgi.early_hints"]([("Link", STYLE)])
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


HELLO = messages_of(200, [(b"content-length", b"5")], b"hello")


def test_hint_is_sent_before_the_response(bridged: Bridged) -> None:
    """RFC 8297 §2."""
    assert call(bridged(hinting), Client(strict=False), scope()).messages == [HINT, *HELLO]


def test_hint_is_sent_while_the_app_goes_on(bridged: Bridged) -> None:
    """It is there to have the client load something meanwhile."""
    sent = Signal("the hint is sent")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.early_hints"]([("Link", STYLE)])
        sent.wait()
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    async def on_send(_: int, message: Message) -> None:
        if message == HINT:
            sent.set()

    assert call(bridged(app), Client(strict=False, on_send=on_send), scope()).messages == [HINT, *HELLO]


def test_hints_keep_their_order(bridged: Bridged) -> None:
    """Each is a response of its own."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        for number in range(10):
            environ["wsgi.early_hints"]([("Link", f"</{number}>"), ("Link", f"</{number}b>")])
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    hints = [{**HINT, "links": [b"</%d>" % number, b"</%db>" % number]} for number in range(10)]
    assert call(bridged(app), Client(strict=False), scope()).messages == [*hints, *HELLO]


@pytest.mark.parametrize("extensions", [None, {}, {"http.response.push": {}}])
def test_callable_is_there_only_if_the_server_offers_hints(extensions: Any, bridged: Bridged) -> None:
    """An app that finds it can rely on it."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"there" if "wsgi.early_hints" in environ else b"hello"]

    assert call(bridged(app), scope=http_scope(extensions=extensions)).messages == HELLO


def test_client_of_http_1_0_gets_no_hint() -> None:
    """RFC 9110 §15.2. As under gunicorn, the callable is there and does nothing."""
    assert call(WSGIMiddleware(hinting), scope=scope(http_version="1.0")).messages == HELLO


def test_hint_goes_out_until_the_head_is_fixed(bridged: Bridged) -> None:
    """After ``start_response()``, but not after the first chunk: then it does nothing, as under gunicorn."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        environ["wsgi.early_hints"]([("Link", STYLE)])
        yield b"he"
        environ["wsgi.early_hints"]([("Link", "</late>")])
        yield b"llo"
        environ["wsgi.early_hints"]([("Link", "</later>")])

    messages = call(bridged(app), Client(strict=False), scope()).messages
    assert messages[:2] == [HINT, HELLO[0]]
    assert b"".join(message["body"] for message in messages[2:]) == b"hello"


def test_hint_of_a_response_that_fails_has_gone_out(bridged: Bridged) -> None:
    """The server answers all the same."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.early_hints"]([("Link", STYLE)])
        raise LookupError

    client = Client(strict=False)
    call(bridged(app), client, scope(), fails=LookupError)
    assert client.sent == [HINT]


def test_hint_that_cannot_be_sent_is_raised_to_the_app(bridged: Bridged) -> None:
    """It may catch that, and answer."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with pytest.raises(InvalidHeader):
            environ["wsgi.early_hints"]([("Link", "</a>\r\nSet-Cookie: a=b")])
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    assert call(bridged(app), scope=scope()).messages == HELLO


def test_hint_may_come_from_another_thread(bridged: Bridged) -> None:
    """As under gunicorn. It waits for nobody."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        in_thread(lambda: environ["wsgi.early_hints"]([("Link", STYLE)]))
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    assert call(bridged(app), Client(strict=False), scope()).messages == [HINT, *HELLO]


def test_hint_from_another_thread_after_the_response_does_nothing() -> None:
    """Whoever kept the callable harms nobody with it."""
    kept: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        kept.append(environ["wsgi.early_hints"])
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    async def main() -> list[Message]:
        client = Client()
        await answer(WSGIMiddleware(app), client, scope())
        await in_worker(lambda: kept[0]([("Link", STYLE)]))
        return client.sent

    assert run(main()) == HELLO


def test_hints_that_nobody_takes_are_bounded() -> None:
    """A client that takes none holds no thread, and no memory."""
    given = Signal("all are given")
    many = 3 * MOST_HINTS

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        for number in range(many):
            environ["wsgi.early_hints"]([("Link", f"</{number}>")])
        given.set()
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    async def on_send(number: int, _: Message) -> None:
        if number == 1:
            await given.wait_in_task()

    messages = call(WSGIMiddleware(app), Client(strict=False, on_send=on_send), scope()).messages
    hints = [message for message in messages if message["type"] == HINT["type"]]
    assert 1 < len(hints) <= MOST_HINTS + 1
    assert messages[len(hints) :] == HELLO


def test_hint_for_a_client_that_has_left_is_raised_to_the_app() -> None:
    """As whatever else the app sends it."""
    left, told = Signal("the client has left"), threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        left.set()
        environ["a2wsgi.disconnected"].wait(10)
        try:
            environ["wsgi.early_hints"]([("Link", STYLE)])
        except ClientDisconnected:
            told.set()
            raise
        return []

    async def main() -> None:
        client = Client(complete=True)
        task = start(answer(WSGIMiddleware(app), client, scope()))
        await left.wait_in_task()
        client.leave()
        assert (await task).messages == []

    run(main())
    assert told.is_set()


def test_server_that_raises_at_a_hint_has_its_error_back() -> None:
    """As at any message."""
    error = ConnectionResetError("gone")

    async def on_send(_: int, message: Message) -> None:
        raise error

    bridge = WSGIMiddleware(hinting)
    response = call(bridge, Client(strict=False, on_send=on_send), scope(), fails=ConnectionResetError)
    assert response.raised is error
    assert bridge.statistics().disconnected == 1
