"""One bridge and its loop: shared by its requests, closed, lost under them, or run inline."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
import weakref
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from a2wsgi import BridgeClosed, BridgeError
from a2wsgi._asgi_on_wsgi.loops.host import LoopHost
from a2wsgi._front.asgi_middleware import ASGIMiddleware
from support.asgi_bridges import HELLO, START, Bridge, hello, threaded
from support.lockstep import BOUND_SECONDS, Signal
from support.wsgi_driver import Exchange, InThread, Response, call, environ_of


def whats_running() -> object:
    """The loop, or what stands for the run of trio, that the caller is in."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        import trio

        return trio.lowlevel.current_trio_token()


def test_one_loop_serves_all_requests(bridge: Bridge) -> None:
    """PAINS K7: what the first request leaves on the loop, the second finds usable."""
    loops = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loops.append(whats_running())
        await anyio.lowlevel.checkpoint()
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
        bridge = ASGIMiddleware(hello, loop=asyncio.get_running_loop(), lifespan=True)
        with pytest.raises(BridgeError, match="its own event loop"):
            bridge(environ_of(), lambda *_: lambda _: None)

    asyncio.run(story())


def test_bridge_on_a_closed_loop_says_so() -> None:
    """DESIGN 5.1: a given loop that ended is the reason, not a close() that nobody called."""
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(BridgeError, match="passed as loop= is not running"):
        ASGIMiddleware(hello, loop=loop, lifespan=True)(environ_of(), lambda *_: lambda _: None)


def test_requests_that_fail_on_a_stopped_loop_do_not_stay_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may run again, and is asked to. But what nobody waits for any more would pile up."""
    monkeypatch.setattr(LoopHost, "look_seconds", 0.01)
    loop = asyncio.new_event_loop()
    one = ASGIMiddleware(hello, loop=loop, lifespan=False)
    failed = [weakref.ref(call_failing(one)) for _ in range(3)]
    gc.collect()
    assert [reference() for reference in failed] == [None, None, None]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    assert call(one).body == b"hello"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class Body(io.BytesIO):
    """A body that can be looked for."""


def call_failing(bridge: ASGIMiddleware) -> Body:
    """Call a bridge whose loop stands still; the body of the request, which nobody else is to hold."""
    body = Body(b"x")
    call(bridge, environ_of("POST", CONTENT_LENGTH="1", wsgi__input=body), fails=BridgeError)
    return body


def test_loop_whose_text_raises_is_named_by_its_type() -> None:
    """A given loop is somebody else's class: the error that says that it does not run asks it for no text."""

    class UnspeakableLoop(asyncio.SelectorEventLoop):
        def __repr__(self) -> str:
            raise ZeroDivisionError

    loop = UnspeakableLoop()
    loop.close()
    with pytest.raises(BridgeError, match="of type UnspeakableLoop"):
        ASGIMiddleware(hello, loop=loop, lifespan=True)(environ_of(), lambda *_: lambda _: None)


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
