"""What `ASGIMiddleware` does with one request, with a loop thread, inline, and on a given loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import gc
import io
import logging
import select
import socket
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from a2wsgi import AppError, AppProtocolError, BridgeClosed, BridgeError, ClientDisconnected
from a2wsgi.asgi_to_wsgi import ASGIMiddleware
from support.bridges import Nested, only_single
from support.lockstep import BOUND_SECONDS, Signal
from support.wsgi_driver import BodyStream, Exchange, InThread, Response, call, environ_of

Bridge = Callable[..., Any]

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def body(data: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    """A part of a response's body."""
    return {"type": "http.response.body", "body": data, "more_body": more}


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer in one go."""
    await send(START)
    await send(body(b"hello"))


HELLO = Response("200 OK", [("content-type", "text/plain"), ("Content-Length", "5")], [b"hello"], 1)


@pytest.fixture(scope="module", autouse=True)
def _uvloop_has_its_pipe() -> None:
    """Have uvloop open what it keeps open for ever, before anybody counts."""
    with contextlib.suppress(ImportError):
        import uvloop

        loop = uvloop.new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


#: The kinds of a bridge alone; besides there is "nested", one around one around one.
ALONE = ["thread", "inline", "loop", "uvloop"]
HEAD_WAITS = "PEP 3333 between two bridges has the head wait for the first chunk that is not empty"


def alone(reason: str) -> pytest.MarkDecorator:
    """Run a test through one bridge of each kind, for that reason."""
    return only_single(reason, "bridge", ALONE)


@pytest.fixture(params=[*ALONE, "nested"])
def bridge(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    """Makes a bridge of each kind, without lifespan unless it is asked for."""
    made: list[Any] = []
    kind_of_bridge: Any = Nested if request.param == "nested" else ASGIMiddleware
    loop = thread = None
    kind: dict[str, Any] = {"inline": True} if request.param == "inline" else {}
    if request.param in {"loop", "uvloop"}:
        module = asyncio if request.param == "loop" else pytest.importorskip("uvloop")
        loop = module.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        kind = {"loop": loop}

    def make(app: Any, **options: Any) -> Any:
        made.append(kind_of_bridge(app, **{"lifespan": False, **kind, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()
    if loop is not None and thread is not None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        left = asyncio.all_tasks(loop)
        loop.close()
        assert not left, f"Tasks were left behind: {left}"


def threaded(**options: Any) -> Callable[[Any], ASGIMiddleware]:
    """Make bridges with options, without lifespan."""
    return lambda app: ASGIMiddleware(app, **{"lifespan": False, **options})


# -- Response ---------------------------------------------------------------------------------------------------------


def test_response_in_one_go_is_a_list_of_one_chunk_with_its_length(bridge: Bridge) -> None:
    """DESIGN 5.3: a response that is complete when the server thread wakes is a list, with a Content-Length of ours."""
    assert call(bridge(hello)) == HELLO
    assert isinstance(Exchange(bridge(hello)).begin().iterable, list)


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


def test_several_tasks_may_wait_in_send(bridge: Bridge) -> None:
    """DESIGN 5.2: no sender is forgotten when several wait for room."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await asyncio.gather(*(send(body(b"%03d" % number * 100, more=True)) for number in range(50)))
        await send(body())

    assert len(call(bridge(app, response_buffer_bytes=1000)).body) == 50 * 300


def test_app_runs_in_a_copy_of_the_server_threads_context(bridge: Bridge) -> None:
    """PAINS K1: what a WSGI middleware sets is seen by the app; what the app sets stays its own."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(variable.get())
        variable.set("the app's")
        await hello(scope, receive, send)

    token = variable.set("the server's")
    call(bridge(app))
    assert (seen, variable.get()) == (["the server's"], "the server's")
    variable.reset(token)


@alone("a bridge further out logs what the close() of a WSGI app raises, as its client has the whole response")
@pytest.mark.parametrize(
    ("messages", "where"),
    [
        ([], "call"),
        # Each is too much to be queued: the server has begun with the first when the second is sent.
        ([START, body(b"x" * 100_000, more=True), body(b"x" * 100_000, more=True)], "iteration"),
        ([START, body(b"x")], "close"),
    ],
    ids=["before the head", "in the body", "after the end"],
)
def test_context_says_of_an_error_that_it_was_seen(bridge: Bridge, messages: list[Any], where: str) -> None:
    """A variable that the app has set to its error goes out with it, as error reporters need; no other does."""
    mark: contextvars.ContextVar[BaseException] = contextvars.ContextVar("mark")
    other: contextvars.ContextVar[str] = contextvars.ContextVar("other", default="unset")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        other.set("the app's")
        for message in messages:
            await send(message)
        error = ArithmeticError("boom")
        mark.set(error)
        raise error

    def request() -> None:
        response = call(bridge(app), fails=ArithmeticError)
        assert response.where == where
        assert mark.get() is response.raised
        assert other.get() == "unset"

    contextvars.copy_context().run(request)


def test_error_that_is_only_logged_is_logged_in_the_apps_context() -> None:
    """Where nobody waits for the app its error is logged where its variables are, as an error reporter needs."""
    mark: contextvars.ContextVar[BaseException | None] = contextvars.ContextVar("mark", default=None)
    logged: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        error = ArithmeticError("boom")
        mark.set(error)
        raise error

    def take(record: logging.LogRecord) -> bool:
        """Look at the record, and let nobody keep it: its traceback holds the bridge."""
        logged.append(record.exc_info is not None and record.exc_info[1] is mark.get())
        return False

    logging.getLogger("a2wsgi").addFilter(take)
    try:
        with ASGIMiddleware(app, lifespan=False, detach_background=True) as one:
            assert call(one) == HELLO  # by when the app has failed: it waited for nothing
    finally:
        logging.getLogger("a2wsgi").removeFilter(take)
    assert logged == [True]


def test_one_loop_serves_all_requests(bridge: Bridge) -> None:
    """PAINS K7: what the first request leaves on the loop, the second finds usable."""
    loops = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        await hello(scope, receive, send)

    one = bridge(app)
    assert [call(one), call(one)] == [HELLO, HELLO]
    assert loops[0] is loops[1]


def test_fifty_requests_at_once_share_the_loop() -> None:
    """PAINS J1: fifty requests that wait for one another are answered: none is queued behind another."""
    together = 50
    arrived: list[int] = []
    all_there: list[asyncio.Event] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not all_there:
            all_there.append(asyncio.Event())
        arrived.append(1)
        if len(arrived) == together:
            all_there[0].set()
        await all_there[0].wait()
        await hello(scope, receive, send)

    one = threaded()(app)
    calls = [InThread(lambda: call(one)) for _ in range(together)]
    assert [each.result() for each in calls] == [HELLO] * together


def test_app_of_asgi_2_is_served(bridge: Bridge) -> None:
    """ASGI, "Legacy Applications": a double callable is called twice."""

    def app(scope: Any) -> Any:
        async def instance(receive: Any, send: Any) -> None:
            await hello(scope, receive, send)

        return instance

    assert call(bridge(app)) == HELLO


# -- Request ----------------------------------------------------------------------------------------------------------


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with a letter for each message (request, disconnect), and the body."""
    messages = []
    while True:
        message = await receive()
        messages.append(message)
        if message["type"] == "http.disconnect" or not message["more_body"]:
            break
    await send(START)
    data = b"".join(message.get("body", b"") for message in messages)
    kinds = "".join("d" if message["type"] == "http.disconnect" else "r" for message in messages)
    await send(body(kinds.encode() + b":" + data))


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1_000_000])
def test_body_with_a_length_arrives_whole(bridge: Bridge, size: int) -> None:
    """DESIGN 5.2: a body is read by the server thread, at most 65,536 bytes at a time, and never past its length."""
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    environ = environ_of("POST", body=data)
    parts = max(1, -(-size // 65_536))
    assert call(bridge(echo), environ).body == b"r" * parts + b":" + data
    assert len(environ["wsgi.input"].reads) == (parts if size else 0)
    assert environ["wsgi.input"].threads <= {threading.get_ident()}


def test_stream_that_gives_less_than_asked_is_read_on(bridge: Bridge) -> None:
    """PEP 3333, "Input and Error Streams": a read may give less than it was asked for, and that is not the end."""
    environ = environ_of("POST", body=b"abcdefg", wsgi__input=BodyStream(b"abcdefg", most=2))
    assert call(bridge(echo), environ).body == b"r:abcdefg"


@alone("a body that is shorter than its length was cut off, for a bridge further in")
@pytest.mark.parametrize("missing", ["absent", "none"])
def test_missing_input_is_an_empty_body(bridge: Bridge, missing: str) -> None:
    """PAINS A4: wsgi.input may be None or absent."""
    environ = environ_of("POST", CONTENT_LENGTH="5", wsgi__input=None)
    if missing == "absent":
        del environ["wsgi.input"]
    assert call(bridge(echo), environ).body == b"r:"


@pytest.mark.parametrize(
    ("stream", "others", "wanted"),
    [
        (BodyStream(b"chunks", ends=True), {"wsgi.input_terminated": True}, b"chunks"),
        (BodyStream(b"chunks"), {}, b""),
        (BodyStream(b"chunks"), {"wsgi.input_terminated": False}, b""),
        (io.BytesIO(b"chunks"), {}, b"chunks"),
    ],
    ids=["terminated", "unsaid", "not terminated", "BytesIO"],
)
def test_body_without_a_length_is_read_where_it_has_an_end(
    bridge: Bridge, stream: Any, others: dict[str, Any], wanted: bytes
) -> None:
    """PAINS G3: a chunked body is read to the end of the stream where there is one, else not at all."""
    environ = {**environ_of("POST", HTTP_TRANSFER_ENCODING="chunked"), "wsgi.input": stream, **others}
    assert call(bridge(echo), environ).body.partition(b":")[2] == wanted
    if hasattr(stream, "_stream"):
        stream._stream.seek(0)  # the same object serves the next kind of bridge
        stream._left = 6
    else:
        stream.seek(0)


@alone("a bridge in between takes no response for a client that left")
@pytest.mark.parametrize("length", [100, 100_000], ids=["read before", "read on"])
@pytest.mark.parametrize("error", [None, OSError("reset")], ids=["eof", "raises"])
def test_body_that_ends_early_is_a_disconnect(bridge: Bridge, length: int, error: Exception | None) -> None:
    """PAINS E3: a client that hangs up in its body is http.disconnect after what came, and nothing spins."""
    stream = BodyStream(b"x" * length, gone_after=10, error=error)
    response = call(bridge(echo), environ_of("POST", body=b"x" * length, wsgi__input=stream))
    assert response.body == b"rd:" + b"x" * 10
    assert len(stream.reads) == 2


def test_expect_100_continue_is_left_to_the_app(bridge: Bridge) -> None:
    """RFC 9110 §10.1.1: a body that the client sends on demand is not read unless the app reads."""
    environ = environ_of("POST", body=b"abc", HTTP_EXPECT="100-continue")
    assert call(bridge(hello), environ) == HELLO
    assert environ["wsgi.input"].reads == []
    assert call(bridge(echo), environ).body == b"r:abc"


def test_malformed_content_length_is_answered_400(bridge: Bridge) -> None:
    """PAINS I12: CONTENT_LENGTH "abc" is the client's fault, and never reaches the app."""
    response = call(bridge(hello), environ_of("POST", CONTENT_LENGTH="abc"))
    assert response.status == "400 Bad Request"


def test_receive_waits_after_the_body_while_others_send(bridge: Bridge) -> None:
    """PAINS C6: receive() after the end of the body neither gives anything nor holds up send()."""
    given: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

        async def watch() -> None:
            given.append(await receive())

        watcher = asyncio.ensure_future(watch())
        await send(START)
        for _ in range(100):
            await send(body(b"x", more=True))
            await asyncio.sleep(0)
        assert given == []
        await send(body())
        await watcher

    assert call(bridge(app)).body == b"x" * 100
    assert given == [{"type": "http.disconnect"}]


def test_cancelled_receive_loses_nothing(bridge: Bridge) -> None:
    """DESIGN 5.2: a part of the body that arrives for a receive() that was cancelled goes to the next."""
    data = b"x" * 200_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        await echo(scope, receive, send)

    assert call(bridge(app), environ_of("POST", body=data)).body == b"rrrr:" + data


def test_several_tasks_may_wait_in_receive(bridge: Bridge) -> None:
    """DESIGN 5.2: each part goes to one of those who wait, and the disconnect to all."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def take() -> int:
            message = await receive()
            return len(message.get("body", b""))

        sizes = await asyncio.gather(*(take() for _ in range(4)))
        await send(START)
        await send(body(b"%d" % sum(sizes)))

    assert call(bridge(app), environ_of("POST", body=b"x" * 200_000)).body == b"200000"


# -- Endings: the app's -----------------------------------------------------------------------------------------------


class OddError(Exception):
    """An app's own."""


def test_error_before_the_head_is_raised_to_the_server(bridge: Bridge) -> None:
    """DESIGN 5.4: the very same exception, with the app's own frame in its traceback."""
    error = OddError("before")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    response = call(bridge(app), fails=OddError)
    assert (response.raised, response.where, response.status) == (error, "call", None)
    frames = []
    traceback = error.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert frames[-1] == "app"


def test_error_in_the_step_of_the_head_is_raised_before_anything_is_sent(bridge: Bridge) -> None:
    """DESIGN 5.4: as long as the server has nothing, an error can still become its error page."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"half", more=True))
        raise OddError

    response = call(bridge(app), fails=OddError)
    assert (response.where, response.status) == ("call", None)


def test_error_after_the_head_is_raised_by_the_iteration(bridge: Bridge) -> None:
    """PAINS H3: what was sent goes out, then the iteration raises, so that the server cuts the connection."""
    fail = Signal("fail")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"half", more=True))
        await fail.wait_in_task()
        await send(body(b"more", more=True))
        raise OddError

    exchange = Exchange(bridge(app)).begin()
    assert exchange.next() == b"half"
    fail.set()
    assert exchange.next() == b"more"
    with pytest.raises(OddError):
        exchange.next()
    exchange.close()


@alone("a bridge further out logs what the close() of a WSGI app raises, as its client has the whole response")
def test_error_after_the_whole_response_is_raised_by_close(bridge: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    """PAINS H2: Starlette sends its error page and then raises; the page goes out, and the error is not lost."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        raise OddError

    response = call(bridge(app), fails=OddError)
    assert (response.status, response.headers, response.chunks, response.length) == (
        HELLO.status,
        HELLO.headers,
        HELLO.chunks,
        HELLO.length,
    )
    assert response.where == "close"
    assert caplog.records == []


def test_error_after_a_detached_response_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """PAINS H2: where nobody waits for the app, its error is logged, once."""
    closed, ended = Signal("closed"), Signal("ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        await closed.wait_in_task()
        asyncio.get_running_loop().call_later(0, ended.set)
        raise OddError

    with ASGIMiddleware(app, lifespan=False, detach_background=True) as one:
        assert call(one) == HELLO
        closed.set()
        ended.wait()
    assert [(record.levelno, record.exc_info and record.exc_info[0]) for record in caplog.records] == [
        (logging.ERROR, OddError)
    ]


@pytest.mark.parametrize("sent", [0, 1, 2], ids=["nothing", "head", "head and half"])
def test_app_that_returns_too_early_is_an_error_at_once(bridge: Bridge, sent: int) -> None:
    """PAINS C3: an app that returns without a whole response never leaves the server waiting."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in [START, body(b"half", more=True)][:sent]:
            await send(message)

    response = call(bridge(app), fails=AppProtocolError)
    assert (response.where, response.status) == ("call", None)
    assert "returned" in str(response.raised)


@pytest.mark.parametrize("late", [False, True], ids=["before the head", "after it"])
def test_app_that_ends_in_cancellation_is_an_error_at_once(bridge: Bridge, late: bool) -> None:
    """PAINS C4: a CancelledError that nobody asked for fails the request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if late:
            await send(START)
            await asyncio.sleep(0.001)  # the head goes out meanwhile, or not: both end in the error
        raise asyncio.CancelledError

    assert isinstance(call(bridge(app), fails=AppProtocolError).raised, AppProtocolError)


def test_system_exit_in_an_app_fails_its_request_alone() -> None:
    """DESIGN 5.8: SystemExit is an AppError with that cause, and the loop serves on."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/exit":
            raise SystemExit(3)
        await hello(scope, receive, send)

    one = threaded()(app)
    error = call(one, environ_of(path="/exit"), fails=AppError).raised
    assert error is not None
    assert repr(error.__cause__) == "SystemExit(3)"
    assert call(one) == HELLO


def test_system_exit_in_the_servers_own_thread_reaches_the_server() -> None:
    """DESIGN 5.7: inline, what ends a worker from a signal handler is let through, and the bridge serves on."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/exit":
            raise SystemExit(3)
        await hello(scope, receive, send)

    one = threaded(inline=True)(app)
    call(one, environ_of(path="/exit"), fails=SystemExit)
    assert call(one) == HELLO


def test_system_exit_in_a_task_of_an_app_spares_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """DESIGN 5.8: asyncio lets SystemExit out of a task to end the loop; ours goes on."""
    reached = Signal("reached")

    async def leave() -> None:
        reached.set()
        raise SystemExit

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/exit":
            task = asyncio.ensure_future(leave())
            await reached.wait_in_task()
            with pytest.raises(SystemExit):
                await task
        await hello(scope, receive, send)

    with threaded()(app) as one:
        assert call(one, environ_of(path="/exit")) == HELLO
        assert call(one) == HELLO
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# -- Endings: the server's --------------------------------------------------------------------------------------------


def test_early_close_is_a_disconnect_to_the_app(bridge: Bridge) -> None:
    """PAINS E2: after close() receive() gives http.disconnect and send() raises ClientDisconnected."""
    seen: list[Any] = []
    ended = Signal("ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(body(b"first", more=True))
        seen.append(await receive())
        try:
            await send(body(b"second", more=True))
        except ClientDisconnected as error:
            seen.append(str(error.reason))
        ended.set()

    exchange = Exchange(bridge(app)).begin()
    assert exchange.next() == b"first"
    exchange.close()
    ended.wait()
    assert seen == [{"type": "http.disconnect"}, "the server has closed the response"]


def test_early_close_wakes_an_app_that_waits_in_send(bridge: Bridge) -> None:
    """PAINS E2: an app that waits for room in a response that was closed gets ClientDisconnected there."""
    ended = Signal("ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        try:
            while True:
                await send(body(b"x" * 1000, more=True))
        except OSError:
            ended.set()
            raise

    exchange = Exchange(bridge(app)).begin()
    exchange.next()
    exchange.close()
    ended.wait()


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
        disconnected = asyncio.Event()

        async def respond() -> None:
            await send(START)
            await send(body(b"first", more=True))
            while waits:
                await send(body(b"x" * 1000, more=True))
            await disconnected.wait()
            await send(body(b"more", more=True))

        async def listen() -> None:
            await receive()
            disconnected.set()

        tasks = [asyncio.create_task(listen()), asyncio.create_task(respond())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)  # what sends may go on a step before it is stopped
        tasks[1].cancel()
        (ending,) = await asyncio.gather(tasks[1], return_exceptions=True)
        seen.append(type(ending).__name__)
        ended.set()

    exchange = Exchange(bridge(app)).begin()
    exchange.next()
    exchange.close()
    ended.wait()
    assert seen == ["CancelledError"]


@alone(HEAD_WAITS)
def test_early_close_cancels_an_app_that_goes_on(bridge: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    """PAINS E2: an app that neither receives nor sends is cancelled after grace_timeout, and nothing is logged (H5)."""
    ended = Signal("ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    exchange = Exchange(bridge(app, grace_timeout=0.01)).begin()
    exchange.close()
    ended.wait()
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


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


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="needs Linux")
@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
@pytest.mark.parametrize("server", ["gunicorn", "werkzeug", "waitress"])
def test_client_that_hangs_up_on_a_quiet_response_is_noticed(server: str, inline: bool) -> None:
    """PAINS E2: where the server lets us see, the app is told within a second, though nothing is sent."""
    ended = Signal("ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        assert await receive() == {"type": "http.disconnect"}
        ended.set()

    ours, clients = socket.socketpair()
    with ours, clients:
        gone = Signal("gone")
        keys = {"waitress.client_disconnected": gone.is_set} if server == "waitress" else {f"{server}.socket": ours}
        exchange = Exchange(threaded(inline=inline)(app), {**environ_of(), **keys}).begin()
        assert exchange.next() == b""
        waiting = InThread(lambda: list(exchange.iterator))
        clients.close()
        gone.set()
        assert waiting.result() == []
        exchange.close()
        ended.wait()


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="needs Linux")
@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
@pytest.mark.parametrize("server", ["gunicorn", "werkzeug", "waitress", "uwsgi"])
def test_client_that_hangs_up_before_the_head_is_noticed(
    server: str, inline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PAINS E2: an app that has its request is told before it has answered; the server gets an OSError, and no page."""
    ended = Signal("ended")
    at_work = Signal("at work")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        at_work.set()
        assert await receive() == {"type": "http.disconnect"}
        ended.set()

    ours, clients = socket.socketpair()
    with ours, clients:
        gone = Signal("gone")
        keys: dict[str, Any] = {f"{server}.socket": ours}
        if server == "waitress":
            keys = {"waitress.client_disconnected": gone.is_set}
        elif server == "uwsgi":
            keys = {"uwsgi.version": b"2.0.28"}
            module = types.SimpleNamespace(opt={"enable-threads": True}, connection_fd=ours.fileno)
            monkeypatch.setitem(sys.modules, "uwsgi", cast("types.ModuleType", module))
        waiting = InThread(Exchange(threaded(inline=inline)(app), {**environ_of(), **keys}).begin)
        at_work.wait()
        clients.close()
        gone.set()
        with pytest.raises(ClientDisconnected, match="hung up before the response began"):
            waiting.result()
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


# -- Background work --------------------------------------------------------------------------------------------------


def background(done: Signal, go: Signal) -> Any:
    """An app that answers in one go, and goes on until it is told to end."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        await go.wait_in_task()
        done.set()

    return app


def test_background_work_is_waited_for_in_close() -> None:
    """PAINS E6: the client has its whole response before, and close() returns after the work."""
    done, go = Signal("done"), Signal("go")
    exchange = Exchange(threaded()(background(done, go))).begin()
    assert list(exchange.iterator) == [b"hello"]
    assert not done.is_set()
    closing = InThread(exchange.close)
    go.set()
    closing.result()
    assert done.is_set()


def test_background_work_inline_runs_in_close() -> None:
    """DESIGN 5.6: inline, close() runs it."""
    done, go = Signal("done"), Signal("go")
    exchange = Exchange(threaded(inline=True)(background(done, go))).begin()
    assert list(exchange.iterator) == [b"hello"]
    assert not done.is_set()
    go.set()
    exchange.close()
    assert done.is_set()


def test_background_work_is_cancelled_after_wait_time(bridge: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    """DESIGN 5.6: wait_time cancels, as in 1.10.10; no error is logged."""
    cancelled = Signal("cancelled")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    assert call(bridge(app, wait_time=0.01)) == HELLO
    cancelled.wait()
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_background_work_goes_on_when_detached() -> None:
    """DESIGN 5.6: detach_background lets close() return at once, and the work ends by itself."""
    done, go = Signal("done"), Signal("go")
    one = threaded(detach_background=True)(background(done, go))
    assert call(one) == HELLO
    assert not done.is_set()
    go.set()
    done.wait()


def test_detached_background_work_is_waited_for_at_close_of_the_bridge() -> None:
    """PAINS E6: the bridge's close() waits for it."""
    done, go = Signal("done"), Signal("go")
    one = threaded(detach_background=True)(background(done, go))
    assert call(one) == HELLO
    closing = InThread(one.close)
    go.set()
    closing.result()
    assert done.is_set()


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


# -- Endings: the bridge's and the loop's -----------------------------------------------------------------------------


def test_close_ends_what_runs_and_refuses_what_comes() -> None:
    """DESIGN 5.8: a running request gets BridgeClosed, its app http.disconnect; a new one is a BridgeClosed."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        seen.append(await receive())

    one = threaded()(app)
    exchange = Exchange(one).begin()
    assert exchange.next() == b""
    waiting = InThread(exchange.next)
    one.close()
    with pytest.raises(BridgeClosed):
        waiting.result()
    exchange.close()
    assert seen == [{"type": "http.disconnect"}]
    assert isinstance(call(one, fails=BridgeClosed).raised, BridgeClosed)
    one.close()


@pytest.mark.parametrize("close", [False, True], ids=["stopped", "closed"])
def test_given_loop_that_ends_fails_requests(close: bool) -> None:
    """PAINS B5: a loop that stops under a request, or before one, is an error within a second and never a hang."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    begun = Signal("begun")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await loop.create_future()

    one = ASGIMiddleware(app, None, loop, lifespan=False)
    waiting = InThread(lambda: call(one, fails=BridgeError))
    begun.wait()
    tasks = asyncio.all_tasks(loop)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    if close:
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert isinstance(waiting.result().raised, BridgeError)
    assert isinstance(call(one, fails=BridgeError).raised, BridgeError)
    if not close:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def test_app_that_stops_our_loop_fails_its_request_and_not_the_next() -> None:
    """PAINS B5: loop.stop() in an app ends what is on the loop; the next request has another."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/stop":
            asyncio.get_running_loop().stop()
            await asyncio.get_running_loop().create_future()
        await hello(scope, receive, send)

    one = threaded()(app)
    call(one, environ_of(path="/stop"), fails=BridgeError)
    assert call(one) == HELLO


def test_call_on_the_loops_own_thread_is_an_error(bridge: Bridge) -> None:
    """DESIGN 5.8: an app that calls the bridge it runs in, synchronously, gets an error and no deadlock."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/again":
            call(one, environ_of())
        await hello(scope, receive, send)

    one = bridge(app)
    response = call(one, environ_of(path="/again"), fails=BridgeError)
    assert "own event loop" in str(response.raised)
    assert call(one) == HELLO


def test_inline_is_called_where_another_loop_runs() -> None:
    """SERVERS §3: gunicorn's tornado worker calls apps on a thread whose loop is running."""
    one = threaded(inline=True)(hello)

    async def server() -> Response:
        return call(one)

    assert asyncio.run(server()) == HELLO


def test_inline_refuses_what_needs_a_thread() -> None:
    """DESIGN 5.7: inline goes with neither loop= nor detach_background."""
    with pytest.raises(TypeError, match="inline"):
        ASGIMiddleware(hello, inline=True, detach_background=True)
    loop = asyncio.new_event_loop()
    with pytest.raises(TypeError, match="inline"):
        ASGIMiddleware(hello, None, loop, inline=True)
    loop.close()


def test_inline_serves_threads_one_at_a_time() -> None:
    """DESIGN 5.7: requests of several threads all end, on one loop."""
    one = threaded(inline=True)(hello)
    calls = [InThread(lambda: [call(one) for _ in range(50)]) for _ in range(4)]
    assert [each.result() for each in calls] == [[HELLO] * 50] * 4


# -- Nothing is left --------------------------------------------------------------------------------------------------


@alone("it looks into the one bridge")
def test_request_leaves_nothing_to_the_garbage_collector(bridge: Bridge) -> None:
    """DESIGN 7: nothing of a request is a cycle: its objects go with it, not at a collection."""
    one = bridge(hello)
    call(one)
    environs: list[weakref.ref[Any]] = []

    class Environ(dict[str, Any]):
        pass

    gc.disable()
    try:
        for _ in range(3):
            environ = Environ(environ_of())
            environs.append(weakref.ref(environ))
            call(one, environ)
            del environ
        call(one)
        # The loop holds the last request until it has gone round once more.
        ended = Signal("ended")
        if not one._plan.inline:
            host = one._engine.host
            assert host is not None
            host.loop.call_soon_threadsafe(host.loop.call_soon, ended.set)
            ended.wait(BOUND_SECONDS)
        assert [ref() for ref in environs] == [None] * 3
    finally:
        gc.enable()


# -- What is refused --------------------------------------------------------------------------------------------------


def test_first_call_on_the_own_loop_is_an_error() -> None:
    """DESIGN 5.8: a bridge that has not started yet is not waited for on the very thread that would start it."""
    inner = ASGIMiddleware(hello)
    refused: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            inner(environ_of(), lambda *_: lambda _: None)
        except BridgeError as error:
            refused.append(error)
        await hello(scope, receive, send)

    outer = ASGIMiddleware(app, lifespan=False)
    assert call(outer) == HELLO
    assert len(refused) == 1
    assert call(inner) == HELLO  # and it starts for who may wait
    inner.close()
    outer.close()


def test_first_call_on_a_given_loop_that_runs_here_is_an_error() -> None:
    """DESIGN 5.8: it would wait for the loop that waits for it."""

    async def story() -> None:
        bridge = ASGIMiddleware(hello, loop=asyncio.get_running_loop())
        with pytest.raises(BridgeError, match="its own event loop"):
            bridge(environ_of(), lambda *_: lambda _: None)

    asyncio.run(story())


def test_app_that_returns_because_its_client_left_has_not_broken_asgi(bridge: Bridge) -> None:
    """DESIGN 5.2, PAINS H5: the server gets `ClientDisconnected`, with the number by which servers know it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] == "http.request":
            pass

    environ = {**environ_of("POST"), "CONTENT_LENGTH": "100", "wsgi.input": io.BytesIO(b"0123456789")}
    with pytest.raises(ClientDisconnected) as raised:
        bridge(app)(environ, lambda *_: lambda _: None)
    assert raised.value.errno == errno.ECONNRESET


def test_bridge_on_a_closed_loop_says_so() -> None:
    """DESIGN 5.1: a given loop that ended is the reason, not a close() that nobody called."""
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(BridgeError, match="given as loop= does not run"):
        ASGIMiddleware(hello, loop=loop)(environ_of(), lambda *_: lambda _: None)


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


def test_inline_requests_run_one_at_a_time() -> None:
    """DESIGN 5.7: the next begins when the last has its response."""
    log: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        log.append("in")
        for _ in range(20):
            await asyncio.sleep(0)
        log.append("out")
        await hello(scope, receive, send)

    bridge = ASGIMiddleware(app, lifespan=False, inline=True)
    gate = threading.Barrier(6)

    def request() -> None:
        gate.wait(BOUND_SECONDS)
        call(bridge)

    threads = [threading.Thread(target=request) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_SECONDS)
    bridge.close()
    assert log == ["in", "out"] * 6


# -- What outlives a request ------------------------------------------------------------------------------------------


def test_receive_that_is_cancelled_leaves_nothing_behind(bridge: Bridge) -> None:
    """Starlette's ``is_disconnected()`` cancels one at each look."""
    waiting: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for _ in range(3):
            task = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            waiting.append(len(receive.__self__._receivers))
        await hello(scope, receive, send)

    assert call(bridge(app)) == HELLO
    assert waiting == [0, 0, 0]


class _Held:
    """Something that a request has in its environ and its context."""


_held: contextvars.ContextVar[_Held] = contextvars.ContextVar("_held")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
def test_request_that_is_over_is_held_by_nothing(inline: bool, method: str) -> None:
    """DESIGN 8: neither its environ nor its context outlives it, though the bridge lives on."""
    bridge = threaded(inline=inline)(hello)
    over: list[weakref.ref[_Held]] = []

    def request() -> None:
        held = _Held()
        over.append(weakref.ref(held))
        _held.set(held)
        call(bridge, {**environ_of(method), "held": held})

    for _ in range(3):
        contextvars.copy_context().run(request)
    call(threaded()(hello))  # the loop thread has gone on since
    gc.collect()
    assert [reference() for reference in over] == [None] * 3
    bridge.close()
