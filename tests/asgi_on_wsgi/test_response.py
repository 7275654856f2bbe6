"""What a WSGI server gets of a response: whole in a list or in parts, and its head before them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from a2wsgi import AppProtocolError, BridgeError
from a2wsgi._asgi_on_wsgi.loops.host import LoopHost
from support.asgi_bridges import (
    HEAD_WAITS,
    HELLO,
    START,
    THREAD_INLINE_TRIO,
    Bridge,
    OddError,
    alone,
    body,
    hello,
    threaded,
)
from support.lockstep import Signal
from support.wsgi_driver import Exchange, InThread, call, environ_of


def test_response_in_one_go_is_a_list_of_one_chunk_with_its_length(bridge: Bridge) -> None:
    """DESIGN 5.3: a response that is complete when the server thread wakes is a list, with a Content-Length of ours."""
    assert call(bridge(hello)) == HELLO
    assert isinstance(Exchange(bridge(hello)).begin().iterable, list)


@pytest.mark.parametrize(
    ("environ", "chunks"),
    [
        (environ_of(), [b"hello"]),
        (environ_of("HEAD"), [b""]),
        (environ_of(CONTENT_LENGTH="many"), [b"The request's Content-Length is malformed."]),
        (environ_of("HEAD", CONTENT_LENGTH="many"), [b""]),
    ],
    ids=["complete", "to HEAD", "of ours", "of ours to HEAD"],
)
def test_every_response_has_a_close(bridge: Bridge, environ: dict[str, Any], chunks: list[bytes]) -> None:
    """DESIGN 5.3: also one whose app has ended. Some middleware calls it in any case; and again."""
    iterable: Any = Exchange(bridge(hello), environ).begin().iterable
    assert list(iterable) == chunks
    assert isinstance(iterable, list) == any(chunks)
    for _ in range(2):
        iterable.close()


def test_response_in_many_pieces_arrives_whole(bridge: Bridge) -> None:
    """DESIGN 5.3: what is queued is joined, in order, past the bound of the queue."""
    pieces = [bytes([number]) * 1000 for number in range(200)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for piece in pieces:
            await send(body(piece, more=True))
        await send(body())

    response = call(bridge(app))
    assert response.body == b"".join(pieces)
    assert len(response.chunks) < 10
    assert response.headers == [("content-type", "text/plain")]


@alone(HEAD_WAITS)
def test_head_is_given_to_the_server_before_there_is_a_body(bridge: Bridge) -> None:
    """PAINS D6: start_response is called at the app's start message, and an empty chunk lets the server flush it."""
    more = Signal("more")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await more.wait_in_task()
        await send(body(b"late"))

    exchange = Exchange(bridge(app)).begin()
    assert (exchange.status, exchange.headers) == ("200 OK", [("content-type", "text/plain")])
    assert exchange.next() == b""
    more.set()
    assert exchange.next() == b"late"
    with pytest.raises(StopIteration):
        exchange.next()
    exchange.close()


def test_chunk_is_given_to_the_server_before_the_next_is_made(bridge: Bridge) -> None:
    """PAINS D5: a streamed chunk does not wait for its successors."""
    steps = [Signal(f"step {number}") for number in range(3)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for number, step in enumerate(steps):
            await send(body(b"%d" % number, more=True))
            await step.wait_in_task()
        await send(body(b"end"))

    exchange = Exchange(bridge(app)).begin()
    for number, step in enumerate(steps):
        assert exchange.next() == b"%d" % number
        step.set()
    assert exchange.next() == b"end"
    exchange.close()


def test_response_that_is_dropped_counts_as_closed() -> None:
    """DESIGN 5.8: a server that forgets close() leaves no task behind."""
    ended = Signal("ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        assert await receive() == {"type": "http.disconnect"}
        ended.set()

    exchange: Any = Exchange(threaded()(app)).begin()
    assert exchange.next() == b""
    del exchange
    gc.collect()
    ended.wait()


@alone(HEAD_WAITS)
def test_start_response_that_raises_ends_the_app(bridge: Bridge) -> None:
    """DESIGN 5.5: a server that fails at the head is raised to, and the app gets http.disconnect."""
    ended = Signal("ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        assert await receive() == {"type": "http.disconnect"}
        ended.set()

    def start_response(*_: Any) -> Any:
        raise OddError

    one = bridge(app)
    with pytest.raises(OddError):
        one(environ_of(), start_response)
    one.close()  # inline, nothing runs until somebody waits
    ended.wait()


def test_empty_response_is_pushed_out_before_background_work() -> None:
    """DESIGN 5.6: waitress sends the head of an empty response after close(), unless write(b"") sends it before."""
    done, go = Signal("done"), Signal("go")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 303, "headers": [(b"location", b"/")]})
        await send(body())
        await go.wait_in_task()
        done.set()

    exchange = Exchange(threaded()(app)).begin()
    assert (exchange.written, exchange.headers) == ([b""], [("location", "/"), ("Content-Length", "0")])
    go.set()
    exchange.close()


def test_app_that_answers_head_as_get_sends_no_body(bridge: Bridge) -> None:
    """RFC 9110 §9.3.2 holds for the client's method, also if the app changes the scope that it was given."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["method"] = "GET"
        await hello(scope, receive, send)

    assert call(bridge(app), environ_of("HEAD")).body == b""


def test_our_own_answer_to_head_has_no_body(bridge: Bridge) -> None:
    """RFC 9110 §9.3.2 holds for the 400 that a bridge gives in the app's place, as well."""
    response = call(bridge(hello), environ_of("HEAD", CONTENT_LENGTH="many"))
    assert (response.status, response.body) == ("400 Bad Request", b"")


class OtherResponse:
    """An app whose first response is left to the second request, which does something to it on the loop's thread.

    Args:
        complete: The first response is complete, and its app goes on in the background.
        do: What the second one does.
    """

    def __init__(self, do: Callable[[Exchange], object], *, complete: bool) -> None:
        self._do = do
        self._complete = complete
        self.exchange: Exchange | None = None
        self.go = Signal("go")
        self.over = Signal("the first app is over")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.exchange is not None:
            self._do(self.exchange)
            await hello(scope, receive, send)
            return
        await send(START)
        await send(body(b"first", more=not self._complete))
        try:
            await self.go.wait_in_task()
        finally:
            self.over.set()


def in_handler(function: Callable[[], Any]) -> Any:
    """What ``function`` returns in a thread that handles an error: an inline loop then runs in yet another one."""

    def handle() -> Any:
        try:
            raise OddError  # noqa: TRY301 - it is to be handled
        except OddError:
            return function()

    return InThread(handle).result()


@THREAD_INLINE_TRIO
@pytest.mark.parametrize("complete", [False, True], ids=["streaming", "complete"])
def test_response_that_is_closed_on_its_own_loop_waits_for_nothing(complete: bool, options: dict[str, Any]) -> None:
    """By the garbage collector, say, as it ends a middleware's generator. The loop would wait for itself for ever."""
    app = OtherResponse(Exchange.close, complete=complete)
    bridge = threaded(**options)(app)
    exchange = Exchange(bridge).begin()
    assert exchange.next() == b"first"
    app.exchange = exchange
    assert in_handler(lambda: call(bridge)).body == b"hello"
    assert not app.over.is_set() or not complete
    app.go.set()
    bridge.close()
    app.over.wait()


@THREAD_INLINE_TRIO
def test_response_that_is_read_on_its_own_loop_is_an_error(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An app reads the response of another one on the loop that both run on, which would wait for itself for ever."""
    monkeypatch.setattr(LoopHost, "look_seconds", 0.01)

    def read(exchange: Exchange) -> None:
        with pytest.raises(BridgeError, match="on the thread of its own event loop"):
            exchange.next()

    app = OtherResponse(read, complete=False)
    bridge = threaded(**options)(app)
    exchange = Exchange(bridge).begin()
    assert exchange.next() == b"first"
    app.exchange = exchange
    assert in_handler(lambda: call(bridge)).body == b"hello"
    app.go.set()
    with pytest.raises(AppProtocolError):
        exchange.next()
    exchange.close()
