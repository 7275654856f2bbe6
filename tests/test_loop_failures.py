"""What fails while a request is on the loop, and who is told: every server thread gets an answer."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import anyio
import anyio.lowlevel
import pytest
import trio

from a2wsgi import AppError, ASGIMiddleware, BridgeError
from a2wsgi._asgi_on_wsgi import faults as _faults
from a2wsgi._asgi_on_wsgi import request as _request
from a2wsgi._asgi_on_wsgi.loops.host import LoopHost
from a2wsgi._asgi_on_wsgi.to_server import ToServer
from support.asgi_bridges import THREAD_INLINE_TRIO
from support.errors import Twofaced
from support.lockstep import BOUND_SECONDS, Signal
from support.threads import in_thread
from support.wsgi_driver import Exchange, InThread, call, environ_of


def bridge_of(app: Any, **options: Any) -> ASGIMiddleware:
    """A bridge without lifespan."""
    options.setdefault("lifespan", False)
    bridge: ASGIMiddleware = ASGIMiddleware(app, **options)
    return bridge


class Unspeakable(Exception):  # noqa: N818 - what it is
    """An error that cannot be shown."""

    def __repr__(self) -> str:
        raise ValueError("in __repr__")

    __str__ = __repr__


class UnspeakableEnd(BaseException):
    """The same, which would end a thread."""

    def __repr__(self) -> str:
        raise ValueError("in __repr__")

    __str__ = __repr__


def raising(error: Callable[[], BaseException], moment: str) -> Any:
    """An app that raises before its head, in the middle of its response, or after it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if moment != "before":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"hello", "more_body": moment == "amid"})
        await anyio.lowlevel.checkpoint()
        raise error()

    return app


def nothing(*_: object) -> Callable[[bytes], object]:
    """A server's ``start_response()``."""
    return bytes


def failure_of(bridge: ASGIMiddleware) -> BaseException | None:
    """What a request fails with, in whichever step."""
    iterable: Any = None
    try:
        iterable = bridge(environ_of(), nothing)
        list(iterable)
        iterable.close()
    except BaseException as error:  # noqa: BLE001 - it is what is asked for
        return error
    finally:
        if iterable is not None:
            iterable.close()
    return None


@pytest.mark.parametrize("moment", ["before", "amid", "after"])
@pytest.mark.parametrize(
    ("error", "raised"), [(Unspeakable, Unspeakable), (UnspeakableEnd, AppError), (Twofaced, Twofaced)]
)
@THREAD_INLINE_TRIO
def test_error_that_cannot_be_looked_at_reaches_the_server(
    options: dict[str, Any],
    error: type[BaseException],
    raised: type[BaseException],
    moment: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server thread gets it, or an AppError with the name of its type: it never waits for ever.

    The task of the app ends without an error, so that asyncio has nothing to say of it when it is collected.
    """
    with bridge_of(raising(error, moment), **options) as bridge:
        got = InThread(functools.partial(failure_of, bridge)).result()
        kind = error if "inline" in options else raised
        assert type(got) is kind
        if kind is AppError:
            assert error.__name__ in str(got)
            assert got.__cause__ is not None
    if error is Twofaced:
        gc.collect()
        assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_no_error_is_shown_on_the_loop() -> None:
    """The ``repr`` of a decoding error over a large body takes seconds, in which the loop serves nobody."""
    shown: list[str] = []

    class Showy(BaseException):
        def __repr__(self) -> str:
            shown.append(threading.current_thread().name)
            return "showy"

        __str__ = __repr__

    for moment in ("before", "amid", "after"):
        with bridge_of(raising(Showy, moment)) as bridge:
            InThread(functools.partial(failure_of, bridge)).result()
    assert shown == []


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer in one go."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@contextmanager
def factory_on(bridge: ASGIMiddleware, factory: Any) -> Iterator[None]:
    """Have the loop of a bridge make its tasks by ``factory``."""
    bridge.start()
    host = bridge._lifetime.host
    assert host is not None
    host.loop.set_task_factory(factory)
    yield
    host.loop.set_task_factory(None)


def failure_at(bridge: ASGIMiddleware, path: str) -> BaseException | None:
    """What the call of a bridge raises."""
    try:
        bridge(environ_of(path=path), nothing)
    except BaseException as error:  # noqa: BLE001 - it is what is asked for
        return error
    return None


@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
@pytest.mark.parametrize("error", [ValueError, UnspeakableEnd])
@pytest.mark.parametrize("begun", [False, True], ids=["before", "after"])
def test_task_factory_that_raises_fails_the_request(inline: bool, error: type[BaseException], begun: bool) -> None:
    """The request gets its error, others are served, and no coroutine is left that was never awaited."""

    def factory(loop: Any, coroutine: Any, **_: Any) -> Any:
        if begun and not inline:  # where the loop does not run yet, an eager factory begins nothing either
            coroutine.send(None)
        raise error

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/fails":
            await asyncio.get_running_loop().create_future()
        await hello(scope, receive, send)

    with bridge_of(app, inline=inline) as bridge:
        with factory_on(bridge, factory):
            got = InThread(functools.partial(failure_at, bridge, "/fails")).result()
        assert type(got) is (error if inline or issubclass(error, Exception) else AppError)
        assert bridge._lifetime.requests == set()
        assert InThread(functools.partial(call, bridge)).result().body == b"hello"


class RaisingHandler(logging.Handler):
    """A log handler of a user's that is broken."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ValueError("in a log handler")


@pytest.fixture
def broken_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The root logger has a handler that raises, at every level."""
    caplog.set_level(logging.DEBUG, "a2wsgi")
    handler, root = RaisingHandler(), logging.getLogger()
    root.handlers.insert(0, handler)
    yield
    root.removeHandler(handler)


@pytest.mark.usefixtures("broken_log")
@THREAD_INLINE_TRIO
def test_log_handler_that_raises_changes_no_ending(options: dict[str, Any]) -> None:
    """A client has left, and its app fails after that: the request is over all the same, and others are served."""
    failed = Signal("the app failed")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await hello(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass
        failed.set()
        raise ValueError

    with bridge_of(app, **options) as bridge:
        for _ in range(3):
            exchange = Exchange(bridge, environ_of(path="/fails")).begin()
            exchange.close()
            failed.wait()
        assert call(bridge).body == b"hello"
        assert bridge._lifetime.requests == set()


@pytest.mark.usefixtures("broken_log")
def test_background_work_whose_failure_cannot_be_logged_ends_no_loop() -> None:
    """As gunicorn's gthread was stopped for good: four failures of background work, with a log handler that raises."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        if scope["path"] == "/fails":
            raise ValueError

    with bridge_of(app, detach_background=True) as bridge:
        for _ in range(8):
            call(bridge, environ_of(path="/fails"))
        assert call(bridge).body == b"hello"
        assert bridge._lifetime.requests == set()


def test_thread_is_told_though_the_hand_off_fails() -> None:
    """A hand-off that cannot count its bytes tells the thread of the end all the same."""
    loop = asyncio.new_event_loop()
    stream = ToServer(LoopHost(loop), "65536")  # type: ignore[arg-type]  # which is the point
    waiting = in_thread(functools.partial(stream.wait_done, BOUND_SECONDS))
    while stream._gate is None and not waiting.over.is_set():
        pass
    with pytest.raises(TypeError):
        stream.set_done()
    assert waiting.result() is True
    loop.close()


def test_failure_is_told_that_comes_as_the_server_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """1. The response is complete. 2. The app fails. 3. As its failure is noted, the server looks: it is told."""
    from a2wsgi._asgi_on_wsgi import request as asgi_to_wsgi

    def start_response(*_: object) -> Callable[[bytes], object]:
        failing.wait()
        return bytes

    failing, answered = Signal("the app has failed"), Signal("the server has its response")
    fit = _faults.fit_for_a_server

    def slowly(error: BaseException, *, inline: bool) -> BaseException:
        failing.set()
        answered.wait()
        return fit(error, inline=inline)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        await anyio.lowlevel.checkpoint()
        raise ValueError("late")

    monkeypatch.setattr(asgi_to_wsgi, "fit_for_a_server", slowly)
    with bridge_of(app) as bridge:
        iterable: Any = bridge(environ_of(), start_response)
        answered.set()
        with pytest.raises(ValueError, match="late"):
            iterable.close()


@THREAD_INLINE_TRIO
def test_task_that_the_app_has_left_does_not_send_for_ever(options: dict[str, Any]) -> None:
    """1. The app returns with its response not complete. 2. The server thread leaves. 3. A task of it still sends."""
    if "inline" in options:
        pytest.skip("its loop does not run between requests")
    told: list[str] = []
    over, left = Signal("the task has ended"), Signal("the server has left")

    async def pump(send: Any) -> None:
        while not left.is_set():
            await anyio.lowlevel.checkpoint()
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
        except OSError as error:
            told.append(type(error).__name__)
        over.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await hello(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if options:
            trio.lowlevel.spawn_system_task(pump, send)
        else:
            tasks.append(asyncio.create_task(pump(send)))

    tasks: list[object] = []
    with bridge_of(app, **options) as bridge:
        assert failure_at(bridge, "/fails") is not None
        left.set()
        over.wait()
    assert told == ["ClientDisconnected"]


def test_app_that_never_waits_stops_no_other_by_a_head_request() -> None:
    """Nothing of its body is sent, so ``send()`` has nothing to wait for; the loop goes round all the same."""
    begun, go_on = Signal("the endless app has begun"), Signal("another request was answered")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await hello(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        begun.set()
        while not go_on.is_set():
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with bridge_of(app) as bridge:
        endless = InThread(functools.partial(call, bridge, environ_of("HEAD", path="/endless")))
        begun.wait()
        assert InThread(functools.partial(call, bridge)).result().body == b"hello"
        go_on.set()
        assert endless.result().body == b""


def test_loop_that_ends_as_the_app_has_started_up_fails_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """1. The app has started up. 2. Its loop ends, which no bridge uses yet. 3. The next request has another."""
    bridge = bridge_of(hello)
    find_host = bridge._lifetime._find_host
    hosts: list[Any] = []

    def find() -> LoopHost:
        host = find_host()
        if not hosts:
            host.loop.call_soon_threadsafe(host.loop.stop)
            host._thread.join(BOUND_SECONDS)  # type: ignore[attr-defined]
        hosts.append(host)
        return host

    monkeypatch.setattr(bridge._lifetime, "_find_host", find)
    with pytest.raises(BridgeError, match="event loop was stopped"):
        call(bridge)
    assert call(bridge).body == b"hello"
    bridge.close()
    assert len(hosts) == 2


def test_lifespan_is_forgotten_with_its_loop() -> None:
    """The app has no lifespan on its second loop: close() does not end that of the first, which is closed."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            loops.append(asyncio.get_running_loop())
            if len(loops) == 2:
                raise ValueError("no lifespan")
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        elif scope["path"] == "/stop":
            asyncio.get_running_loop().stop()
            await asyncio.sleep(3600)
        else:
            await hello(scope, receive, send)

    bridge: ASGIMiddleware = ASGIMiddleware(app)
    assert call(bridge).body == b"hello"
    assert failure_at(bridge, "/stop") is not None
    assert call(bridge).body == b"hello"
    bridge.close()


def test_loop_that_ends_in_the_startup_is_an_error_with_a_text() -> None:
    """Not an empty CancelledError of concurrent.futures."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(3600)

    bridge: ASGIMiddleware = ASGIMiddleware(app)
    with pytest.raises(BridgeError, match="event loop was stopped"):
        bridge.start()
    bridge.close()


def test_interrupted_wait_for_background_work_does_not_forget_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception raised into the server thread ends its wait; the loop enforces ``wait_time`` from then on."""
    cancelled = Signal("the background work was cancelled")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    def interrupted(*_: object) -> bool:
        raise TimeoutError("of the server's")

    with bridge_of(app, wait_time=0.01) as bridge:
        iterable: Any = bridge(environ_of(), nothing)
        monkeypatch.setattr(ToServer, "wait_done", interrupted)
        with pytest.raises(TimeoutError):
            iterable.close()
        monkeypatch.undo()
        cancelled.wait()


@THREAD_INLINE_TRIO
def test_request_that_finds_no_memory_for_its_app_fails(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server thread waits for the app, which was never called."""

    def fail(_: object) -> NoReturn:
        raise MemoryError

    with bridge_of(hello, **options) as bridge:
        assert call(bridge).body == b"hello"
        with monkeypatch.context() as patch:
            patch.setattr(_request.Request, "_run", fail)
            assert isinstance(in_thread(failure_of, bridge).result(), MemoryError)
        assert bridge._lifetime.requests == set()
        assert call(bridge).body == b"hello"


def test_request_whose_task_is_killed_at_its_begin_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler raises before the task has begun its first line: no task tells that the app has ended."""

    async def killed(_: object) -> NoReturn:
        raise KeyboardInterrupt

    with bridge_of(hello, inline=True) as bridge:
        bridge.start()
        host = bridge._lifetime.host
        assert host is not None
        host.loop.set_exception_handler(lambda *_: None)  # asyncio tells of the task's error, and it is known
        with monkeypatch.context() as patch:
            patch.setattr(_request.Request, "_run", killed)
            assert isinstance(failure_of(bridge), KeyboardInterrupt)
        assert bridge._lifetime.requests == set()
        assert call(bridge).body == b"hello"


def test_request_that_relies_on_a_ring_which_is_held_up_is_answered() -> None:
    """A finalizer of the app's holds up the thread that was about to tell the loop: that is its own request alone."""
    loop = asyncio.new_event_loop()
    running = in_thread(loop.run_forever)
    with bridge_of(hello, loop=loop) as bridge:
        assert call(bridge).body == b"hello"
        host = bridge._lifetime.host
        assert host is not None
        host.doorbell._answering = True
        assert in_thread(call, bridge).result().body == b"hello"
    loop.call_soon_threadsafe(loop.stop)
    running.result()
    loop.close()
