"""What the design says of an ASGI app on a WSGI server, where no other test would notice that it is no longer so."""

from __future__ import annotations

import asyncio
import copy
import inspect
import io
import os
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from a2wsgi import ASGIMiddleware, BridgeClosed, LifespanFailed
from support.asgi_bridges import THREAD_INLINE_TRIO
from support.lockstep import Signal
from support.wsgi_driver import BodyStream, Exchange, InThread, call, environ_of

START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}


def body(data: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    """A part of a response's body."""
    return {"type": "http.response.body", "body": data, "more_body": more}


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer in one go."""
    if scope["type"] != "http":
        raise ValueError
    await send(START)
    await send(body(b"hello"))


# -- The loop and the lifespan ----------------------------------------------------------------------------------------


def test_given_loop_is_the_apps_loop() -> None:
    """DESIGN 5.1: with ``loop=`` there is no loop thread of ours, and the app runs on that loop."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loops.append(asyncio.get_running_loop())
        await hello(scope, receive, send)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        with ASGIMiddleware(app, None, loop, lifespan=False) as bridge:
            assert call(bridge).body == b"hello"
            assert "a2wsgi-loop" not in {each.name for each in threading.enumerate()}
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert loops == [loop]


@THREAD_INLINE_TRIO
def test_start_and_close_may_be_repeated(options: dict[str, Any]) -> None:
    """DESIGN 5.1: both are idempotent, and ``with`` around a bridge that was started does not start it again."""
    events: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for kind in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{kind}"
            events.append(kind)
            await send({"type": f"lifespan.{kind}.complete"})

    bridge = ASGIMiddleware(app, **options)
    bridge.start()
    bridge.start()
    with bridge:
        assert events == ["startup"]
    bridge.close()
    assert events == ["startup", "shutdown"]
    with pytest.raises(BridgeClosed):
        bridge.start()


@THREAD_INLINE_TRIO
def test_close_while_the_app_starts_up_shuts_it_down(options: dict[str, Any]) -> None:
    """DESIGN 5.1, 5.8: what a startup has opened is released, and the request that it was for is refused."""
    events: list[str] = []
    closing: list[InThread] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for kind in ("startup", "shutdown"):
            events.append((await receive())["type"])
            if kind == "startup":
                closing.append(InThread(bridge.close))
                while ": closed" not in repr(bridge):  # a thread says so, and tells nobody
                    await anyio.lowlevel.checkpoint()
            await send({"type": f"lifespan.{kind}.complete"})

    bridge = ASGIMiddleware(app, **options)
    call(bridge, fails=BridgeClosed)
    closing.pop().result()
    assert events == ["lifespan.startup", "lifespan.shutdown"]


def test_startup_that_fails_is_not_tried_again_by_who_waited_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """DESIGN 5.1: its failure is that of all the requests that waited; the next request tries again."""
    entered, waiting = Signal("entered"), Signal("waiting")
    startups: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            startups.append((await receive())["type"])
            entered.set()
            await waiting.wait_in_task()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

    bridge = ASGIMiddleware(app)
    first = InThread(lambda: call(bridge, fails=LifespanFailed).raised)
    entered.wait()
    startup = bridge._lifetime._change
    assert startup is not None
    wait = startup.wait

    def wait_and_say(seconds: float) -> bool:
        waiting.set()
        return wait(seconds)

    monkeypatch.setattr(startup, "wait", wait_and_say)
    second = call(bridge, fails=LifespanFailed).raised
    assert str(first.result()) == str(second)
    assert first.result() is not second  # each raise would add to the traceback of the one
    assert startups == ["lifespan.startup"]
    call(bridge, fails=LifespanFailed)
    assert len(startups) == 2


def test_startup_that_blocks_the_loop_holds_other_requests_no_longer_than_it_may() -> None:
    """DESIGN 5.1: they wait at most ``startup_timeout``, and a second in which a startup that is late may be undone."""
    entered, go = Signal("entered"), Signal("go")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            entered.set()
            go.wait()  # of the loop thread
            raise ValueError
        await hello(scope, receive, send)

    bridge = ASGIMiddleware(app, startup_timeout=0.01)
    first = InThread(lambda: call(bridge).body)
    entered.wait()
    assert "startup_timeout=0.01" in str(call(bridge, fails=LifespanFailed).raised)
    go.set()
    assert first.result() == b"hello"


def test_close_gives_an_app_up_that_does_not_end() -> None:
    """DESIGN 5.8: ``close()`` waits for what runs at most ``shutdown_timeout``, then cancels it."""
    cancelled = Signal("the app was cancelled")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    bridge = ASGIMiddleware(app, lifespan=False, shutdown_timeout=0.01)
    exchange = Exchange(bridge).begin()
    assert exchange.next() == b""
    bridge.close()
    cancelled.wait()
    with pytest.raises(BridgeClosed):
        exchange.next()
    exchange.close()


def test_timeouts_are_those_that_are_documented() -> None:
    """DESIGN 5.8: 10 s of grace, 60 s for a startup, 10 s for a shutdown; work after a response has no limit."""
    parameters = inspect.signature(ASGIMiddleware).parameters
    names = ("grace_timeout", "startup_timeout", "shutdown_timeout", "wait_time", "response_buffer_bytes")
    assert [parameters[name].default for name in names] == [10.0, 60.0, 10.0, None, 65_536]


def test_bridge_that_is_dropped_as_the_process_ends_shuts_its_app_down() -> None:
    """DESIGN 5.1: a program whose bridge is a local name of its last function ends as one that keeps it."""
    program = """
        import asyncio, logging
        from support.wsgi_driver import call
        from a2wsgi import ASGIMiddleware
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # its debug mode warns of a machine that is slow

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                for _ in range(1000):
                    await asyncio.sleep(0)
                print("shut down", flush=True)
                await send({"type": "lifespan.shutdown.complete"})
                return
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"hello"})

        def main():
            print(call(ASGIMiddleware(app)).body.decode(), flush=True)

        main()
    """
    here = str(Path(__file__).parent)
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))},
        capture_output=True,
        timeout=50,
        check=False,
        text=True,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "hello\nshut down\n", "")


# -- The request's body -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "before"), [(65_536, [65_536]), (65_537, [])])
def test_small_body_is_read_before_the_app_starts(size: int, before: list[int]) -> None:
    """DESIGN 5.2: one of up to 65,536 bytes; of a longer one nothing, unless the app asks."""
    stream = BodyStream(b"x" * size)
    reads: list[list[int]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reads.append(list(stream.reads))
        await hello(scope, receive, send)

    with ASGIMiddleware(app, lifespan=False) as bridge:
        call(bridge, environ_of("POST", body=b"x" * size, wsgi__input=stream))
    assert reads == [before]
    assert stream.reads == before


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize(
    ("stream", "terminated"),
    [(BodyStream(b"x" * 100_000, ends=True), True), (io.BytesIO(b"x" * 100_000), False)],
    ids=["terminated", "in memory"],
)
def test_body_without_a_length_is_one_of_any_method(method: str, stream: Any, terminated: bool) -> None:
    """DESIGN 5.2: the end of the stream says how long a body is, where it has one; the method says nothing."""
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not received or received[-1]["more_body"]:
            received.append(await receive())
        await hello(scope, receive, send)

    stream = copy.deepcopy(stream)
    with ASGIMiddleware(app, lifespan=False) as bridge:
        call(bridge, environ_of(method, wsgi__input=stream, wsgi__input_terminated=terminated))
    assert b"".join(message["body"] for message in received) == b"x" * 100_000


def test_body_in_chunks_is_read_by_the_function_of_uwsgi(monkeypatch: pytest.MonkeyPatch) -> None:
    """DESIGN 5.2: uWSGI gives the chunks of a body without a length by ``uwsgi.chunked_read()``, an empty one last."""
    chunks = [b"one ", b"two", b""]
    uwsgi = types.ModuleType("uwsgi")
    uwsgi.opt = {"enable-threads": True}  # type: ignore[attr-defined]  # as in uWSGI's process
    uwsgi.chunked_read = lambda: chunks.pop(0)  # type: ignore[attr-defined]  # as above
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not received or received[-1]["more_body"]:
            received.append(await receive())
        await hello(scope, receive, send)

    environ = {**environ_of("POST", HTTP_TRANSFER_ENCODING="chunked"), "uwsgi.version": b"2.0.28"}
    with ASGIMiddleware(app, lifespan=False) as bridge:
        call(bridge, environ)
    assert b"".join(message["body"] for message in received) == b"one two"
    assert chunks == []
    assert environ["wsgi.input"].reads == []


# -- Endings ----------------------------------------------------------------------------------------------------------


def test_close_of_a_response_does_not_wait_for_its_app() -> None:
    """DESIGN 5.8: the grace of an app whose response was closed early is not the server thread's to wait."""
    let, ended = Signal("the app may end"), Signal("the app has ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await let.wait_in_task()
        ended.set()

    with ASGIMiddleware(app, lifespan=False) as bridge:
        exchange = Exchange(bridge).begin()
        exchange.close()
        assert not ended.is_set()
        let.set()
        ended.wait()


def test_detached_background_work_is_cancelled_after_wait_time() -> None:
    """DESIGN 5.6: ``detach_background`` leaves it on the loop for ``wait_time`` at most."""
    cancelled = Signal("the work was cancelled")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    with ASGIMiddleware(app, 0.01, lifespan=False, detach_background=True) as bridge:
        assert call(bridge).body == b"hello"
        cancelled.wait()


# -- Inline -----------------------------------------------------------------------------------------------------------


def test_inline_starts_no_thread() -> None:
    """DESIGN 5.7: the app, its lifespan and its background work all run in the server's own thread."""
    threads: set[threading.Thread] = set()
    before = threading.active_count()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        threads.add(threading.current_thread())
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            threads.add(threading.current_thread())
            await send({"type": "lifespan.shutdown.complete"})
            return
        await hello(scope, receive, send)
        await anyio.lowlevel.checkpoint()
        threads.add(threading.current_thread())

    with ASGIMiddleware(app, inline=True) as bridge:
        assert call(bridge).body == b"hello"
        assert threading.active_count() == before
    assert threads == {threading.current_thread()}


# -- Headers ----------------------------------------------------------------------------------------------------------


def test_environment_of_the_process_is_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """DESIGN 6: wsgiref and granian merge ``os.environ`` into each environ; a request's own header is kept."""
    monkeypatch.setenv("HTTP_X_OF_THE_PROCESS", "1")
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await hello(scope, receive, send)

    with ASGIMiddleware(app, lifespan=False) as bridge:
        call(bridge, environ_of(HTTP_X_OF_THE_PROCESS="1", HTTP_X_OF_THE_REQUEST="1"))
        call(bridge, environ_of(HTTP_X_OF_THE_PROCESS="2"))
    assert [dict(scope["headers"]) for scope in scopes] == [
        {b"host": b"testserver", b"x-of-the-request": b"1"},
        {b"host": b"testserver", b"x-of-the-process": b"2"},
    ]
