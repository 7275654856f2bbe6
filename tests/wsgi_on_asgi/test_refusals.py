"""Requests that the bridge refuses."""

from __future__ import annotations

import logging

import pytest

from a2wsgi import (
    Statistics,
    WSGIMiddleware,
)
from a2wsgi._wsgi_on_asgi.receiver import Receiver
from a2wsgi._wsgi_on_asgi.refusals import refusal
from apps.waiting import Waiting
from support.asgi_driver import Client, Message, answer, http_scope, messages_of, run, until
from support.bridges import Bridged
from support.runtimes import gather, start
from support.wsgi_requests import our_log

pytestmark = pytest.mark.usefixtures("runtime")

OVERLOADED = messages_of(
    503,
    [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"24"), (b"retry-after", b"1")],
    b"503 Service Unavailable\n",
)


@pytest.mark.parametrize("max_queue", [0, 2])
def test_queue_that_is_full_sheds_the_next(bridged: Bridged, max_queue: int, caplog: pytest.LogCaptureFixture) -> None:
    """With ``max_queue`` waiting the next is answered 503 at once; 0 never queues."""
    caplog.set_level(logging.INFO, "a2wsgi")

    async def main() -> None:
        app = Waiting()
        bridge = bridged(app, workers=2, max_queue=max_queue)
        tasks = [start(answer(bridge)) for _ in range(2 + max_queue)]
        await until(lambda: len(app.threads) == 2)
        assert (await answer(bridge)).messages == OVERLOADED
        assert bridge.statistics() == Statistics(2, 2, max_queue, 2 + max_queue, 1, 0, 0)
        app.let.set()
        assert [response.body for response in await gather(*tasks)] == [b"done"] * (2 + max_queue)
        assert bridge.statistics() == Statistics(2, 0, 0, 0, 1, 0, 0)

    run(main())
    assert our_log(caplog) == [("INFO", f"503 to a request: {max_queue} others wait for a worker")]


def test_refusal_of_head_has_the_headers_of_get(bridged: Bridged) -> None:
    """RFC 9110 §9.3.2: HEAD has the headers of GET, here the length of the text that it does not get."""

    async def main() -> None:
        app = Waiting()
        bridge = bridged(app, workers=1, max_queue=0)
        first = start(answer(bridge))
        await app.entered.wait_in_task()
        assert (await answer(bridge, None, http_scope("HEAD"))).messages == messages_of(503, OVERLOADED[0]["headers"])
        app.let.set()
        await first

    run(main())


@pytest.mark.usefixtures("quick_timer")
def test_refusal_is_the_last_word_on_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is sent, the end that uvicorn reports then is no client that left, and a long body is no second one."""
    ticks, watch = [0], Receiver.watch

    def counted(receiver: Receiver) -> None:
        ticks[0] += 1
        watch(receiver)

    monkeypatch.setattr(Receiver, "watch", counted)

    async def slow_send(_number: int, _message: Message) -> None:
        end = ticks[0] + 6  # two requests are in flight
        await until(lambda: ticks[0] >= end)

    async def main() -> None:
        app = Waiting()
        bridge = WSGIMiddleware(app, workers=1, max_queue=0, request_buffer_bytes=0, max_request_bytes=5)
        first = start(answer(bridge))
        await app.entered.wait_in_task()
        for body in ((), (b"too", b"long", b"")):
            client = Client(*body, on_send=slow_send, disconnects_when_complete=True)
            assert (await answer(bridge, client)).messages == OVERLOADED
        assert bridge.statistics() == Statistics(1, 1, 0, 1, shed=2, disconnected=0, stalled=0)
        app.let.set()
        await first

    run(main())


def test_refusal_tells_when_to_come_back_and_closes_where_it_must() -> None:
    """RFC 9110 §10.2.3 and §15.5.9; HTTP/2 has no Connection header, and WSGI none of an app."""

    def extra(status: int, **scope: object) -> list[tuple[bytes, bytes]]:
        start, _ = refusal(status, {"type": "http", "method": "GET", **scope})
        headers: list[tuple[bytes, bytes]] = start["headers"]
        return headers[2:]

    assert extra(503) == [(b"retry-after", b"1")]
    assert extra(408) == extra(408, http_version="1.0") == [(b"connection", b"close")]
    assert extra(408, http_version="2") == extra(408, wsgi_environ={}) == []
    assert extra(400) == extra(413) == []
