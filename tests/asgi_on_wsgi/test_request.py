"""What one request to an ASGI app comes to, with a loop thread, inline, and on a given loop."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import io
import logging
import weakref
from typing import Any

import anyio
import pytest

from a2wsgi import AppError, AppProtocolError, ClientDisconnected
from a2wsgi._front.asgi_middleware import ASGIMiddleware
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
from support.lockstep import BOUND_SECONDS, Signal
from support.servers import until
from support.wsgi_driver import Exchange, InThread, call, environ_of


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
            await anyio.sleep(0.001)  # the head goes out meanwhile, or not: both end in the error
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
def test_early_close_cancels_an_app_that_goes_on(bridge: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    """PAINS E2: an app that neither receives nor sends is cancelled after grace_timeout, and nothing is logged (H5)."""
    ended = Signal("ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    exchange = Exchange(bridge(app, grace_timeout=0.01)).begin()
    exchange.close()
    ended.wait()
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


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
            await anyio.sleep_forever()
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
        if not one._shared.settings.inline:
            host = one._lifetime.host
            assert host is not None
            host.loop.call_soon_threadsafe(host.loop.call_soon, ended.set)
            ended.wait(BOUND_SECONDS)
        assert [ref() for ref in environs] == [None] * 3
    finally:
        gc.enable()


def test_app_that_returns_because_its_client_left_has_not_broken_asgi(bridge: Bridge) -> None:
    """DESIGN 5.2, PAINS H5: the server gets `ClientDisconnected`, with the number by which servers know it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] == "http.request":
            pass

    environ = {**environ_of("POST"), "CONTENT_LENGTH": "100", "wsgi.input": io.BytesIO(b"0123456789")}
    with pytest.raises(ClientDisconnected) as raised:
        bridge(app)(environ, lambda *_: lambda _: None)
    assert raised.value.errno == errno.ECONNRESET


class _Held:
    """Something that a request has in its environ and its context."""


_held: contextvars.ContextVar[_Held] = contextvars.ContextVar("_held")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@THREAD_INLINE_TRIO
def test_request_that_is_over_is_held_by_nothing(options: dict[str, Any], method: str) -> None:
    """DESIGN 8: neither its environ nor its context outlives it, though the bridge lives on."""
    bridge = threaded(**options)(hello)
    over: list[weakref.ref[_Held]] = []

    def request() -> None:
        held = _Held()
        over.append(weakref.ref(held))
        _held.set(held)
        call(bridge, {**environ_of(method), "held": held})

    for _ in range(3):
        contextvars.copy_context().run(request)
    until(lambda: gc.collect() >= 0 and not any(reference() for reference in over), "nothing holds what is over")
    bridge.close()


class RaisingFilter(logging.Filter):
    """A user's, that fails."""

    def filter(self, record: logging.LogRecord) -> bool:
        raise RuntimeError("logging fails")


@THREAD_INLINE_TRIO
@pytest.mark.parametrize("what", ["a dropped header", "a late failure"])
def test_logging_that_raises_changes_no_response(what: str, options: dict[str, Any]) -> None:
    """What a user's filter raises is neither the app's error nor the server's."""
    over: list[BaseException | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            headers = [(b"connection", b"close")] if what == "a dropped header" else []
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"hello"})
        except BaseException as error:
            over.append(error)
            raise
        over.append(None)
        if what == "a late failure":
            await anyio.sleep_forever()

    logger = logging.getLogger("a2wsgi")
    raising = RaisingFilter()
    logger.addFilter(raising)
    try:
        with ASGIMiddleware(app, lifespan=False, **options, wait_time=0.01) as one:
            assert call(one).body == b"hello"
            assert call(one).body == b"hello"
    finally:
        logger.removeFilter(raising)
    assert over == [None, None]


def test_failure_that_the_server_does_not_wait_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """1. The app fails amid its response. 2. The server closes that, and asks for no more. The error is not lost."""
    caplog.set_level(logging.DEBUG, "a2wsgi")
    go, failed = Signal("go"), Signal("failed")
    error = ArithmeticError("amid")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await go.wait_in_task()
        asyncio.get_running_loop().call_soon(failed.set)
        raise error

    with threaded()(app) as one:
        exchange = Exchange(one).begin()
        go.set()
        failed.wait()
        exchange.close()
    assert [(record.levelno, record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        (logging.DEBUG, error)
    ]
