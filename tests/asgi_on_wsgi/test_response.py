"""What a WSGI server gets of a response: whole in a list or in parts, and its head before them."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from support.asgi_bridges import HEAD_WAITS, HELLO, START, Bridge, OddError, alone, body, hello, threaded
from support.lockstep import Signal
from support.wsgi_driver import Exchange, call, environ_of


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
