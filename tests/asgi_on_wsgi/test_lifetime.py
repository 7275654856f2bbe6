"""The loop and the startup of one bridge: who waits, who is told, and what a dropped bridge leaves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest

from a2wsgi import ASGIMiddleware, BridgeClosed, BridgeError, LifespanFailed, WSGIMiddleware
from a2wsgi._asgi_on_wsgi import changes as _changes
from a2wsgi._asgi_on_wsgi import exit_and_fork as _exit_and_fork
from a2wsgi._asgi_on_wsgi import lifetime as _lifetime
from a2wsgi._asgi_on_wsgi.loops import host as _loops
from a2wsgi._asgi_on_wsgi.loops import shared_loop as _shared_loop
from support.lockstep import BOUND_SECONDS, Signal
from support.threads import HookedLock, in_thread
from support.wsgi_driver import Exchange, InThread, call, environ_of


async def thread_name(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the name of the thread."""
    if scope["type"] != "http":
        raise ValueError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": threading.current_thread().name.encode()})


def test_bridge_in_a_cycle_is_collected() -> None:
    """PAINS B4: a finalizer that runs in the garbage collector ends the thread too."""

    class App:
        bridge: ASGIMiddleware

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await thread_name(scope, receive, send)

    app = App()
    app.bridge = ASGIMiddleware(app)
    call(app.bridge)
    del app
    gc.collect()


def test_finalizer_takes_no_lock() -> None:
    """The garbage collector may run in a thread that holds any lock of ours: dropping a bridge waits for none."""
    keeper, dropped = ASGIMiddleware(thread_name), ASGIMiddleware(thread_name)
    call(keeper)
    call(dropped)
    lifetime, host = dropped._lifetime, dropped._lifetime.host
    assert host is not None

    held, go = Signal("the locks are held"), Signal("go")

    def hold() -> None:  # in another thread: a thread may take each of them twice
        bell = getattr(host.doorbell, "_lock", contextlib.nullcontext())  # our own loop's has no lock
        with _shared_loop._lock, lifetime._lock, bell:
            held.set()
            go.wait()

    holding = in_thread(hold)
    held.wait()
    in_thread(dropped.__dict__.clear).result()  # all that holds what is finalized
    go.set()
    holding.result()
    assert call(keeper).body == b"a2wsgi-loop"
    del keeper


def test_response_keeps_its_loop() -> None:
    """PAINS B5: a bridge that is dropped while a response is read goes on until its end."""
    go = Signal("go")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await go.wait_in_task()
        await send({"type": "http.response.body", "body": b"end"})

    exchange = Exchange(ASGIMiddleware(app)).begin()
    del exchange.app
    gc.collect()
    assert exchange.next() == b""
    go.set()
    assert exchange.next() == b"end"
    exchange.close()


def test_uwsgi_without_threads_is_warned_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """PAINS A2: one warning, which names both ways out."""
    import types

    uwsgi = types.ModuleType("uwsgi")
    uwsgi.opt = {"http-socket": b":8000"}  # type: ignore[attr-defined]  # as in uWSGI's process
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    monkeypatch.setattr(_loops, "_uwsgi_is_checked", False)
    for _ in range(2):
        call(ASGIMiddleware(thread_name))
    (record,) = caplog.records
    assert "enable-threads" in record.getMessage()
    assert "inline=True" in record.getMessage()


def test_bridge_that_is_dropped_after_its_loop_leaves_nothing_behind() -> None:
    """A ``loop=`` that has ended before: nobody runs it, and the end of the process waits for nothing."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    bridge = ASGIMiddleware(thread_name, loop=loop, lifespan=False)
    assert call(bridge).status == "200 OK"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    before = len(_exit_and_fork._departures)
    del bridge
    gc.collect()
    assert len(_exit_and_fork._departures) == before


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer in one go."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def bridge_of(app: Any, **options: Any) -> ASGIMiddleware:
    """A bridge without lifespan."""
    options.setdefault("lifespan", False)
    bridge: ASGIMiddleware = ASGIMiddleware(app, **options)
    return bridge


class UnspeakableEnd(BaseException):
    """The same, which would end a thread."""

    def __repr__(self) -> str:
        raise ValueError("in __repr__")

    __str__ = __repr__


def test_startup_that_is_interrupted_names_the_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for another request's startup is told what that ended in, by its type."""
    waits = Signal("the other request waits")
    wait = _changes.Change.wait

    def waiting(self: Any, seconds: float) -> bool:
        waits.set()
        return wait(self, seconds)

    def find_place(self: Any) -> Any:
        waits.wait()
        raise UnspeakableEnd

    monkeypatch.setattr(_changes.Change, "wait", waiting)
    bridge = bridge_of(hello)
    with monkeypatch.context() as patch:
        patch.setattr(_lifetime.Lifetime, "_find_host", find_place)
        first = in_thread(bridge.start)
        while bridge._lifetime._change is None:  # which it sets before it looks for a place
            pass
        with pytest.raises(BridgeError, match="interrupted by UnspeakableEnd") as told:
            bridge.start()
        assert not isinstance(told.value, LifespanFailed)
        with pytest.raises(UnspeakableEnd):
            first.result()
    assert call(bridge).body == b"hello"


class PickyError(Exception):
    """An error that cannot be copied."""

    def __init__(self, number: int, *, text: str) -> None:
        super().__init__(f"{text} {number}")


def test_startup_error_that_cannot_be_copied_is_told_by_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for another request's startup gets an error all the same, and not the other request's."""
    waits = Signal("the other request waits")
    wait = _changes.Change.wait

    def waiting(self: Any, seconds: float) -> bool:
        waits.set()
        return wait(self, seconds)

    def find_host(self: Any) -> Any:
        waits.wait()
        raise PickyError(1, text="number")

    monkeypatch.setattr(_changes.Change, "wait", waiting)
    monkeypatch.setattr(_lifetime.Lifetime, "_find_host", find_host)
    bridge = bridge_of(hello)
    first = in_thread(bridge.start)
    while bridge._lifetime._change is None:  # which it sets before it looks for a loop
        pass
    with pytest.raises(BridgeError, match="failed with PickyError"):
        bridge.start()
    with pytest.raises(PickyError):
        first.result()


def test_dropped_bridge_whose_loop_makes_no_task_keeps_nobody_waiting() -> None:
    """The end of the process waits for bridges that were dropped: this one is gone at once."""
    asked = Signal("the task was asked for")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await hello(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()

    def factory(loop: Any, coroutine: Any, **options: Any) -> Any:
        loop.set_task_factory(None)
        loop.call_soon(asked.set)
        raise ValueError

    keeper = bridge_of(hello)
    assert call(keeper).body == b"hello"
    host = keeper._lifetime.host
    assert host is not None
    dropped = ASGIMiddleware(app)
    assert call(dropped).body == b"hello"
    host.loop.set_task_factory(factory)
    del dropped
    gc.collect()
    asked.wait()
    assert not _exit_and_fork._departures


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
def test_warning_of_uwsgi_that_cannot_be_logged_fails_no_startup(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app starts up although the log handler raises, and no request waits for a startup that nobody is at."""
    uwsgi = types.ModuleType("uwsgi")
    uwsgi.opt = {}  # type: ignore[attr-defined]  # as in uWSGI's process
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    monkeypatch.setattr(_loops, "_uwsgi_is_checked", False)
    bridge = bridge_of(hello)
    assert call(bridge).body == b"hello"


def test_app_that_blocks_its_loop_keeps_close_waiting_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blocking call in an app holds up the loop for good; close(), and with it the end of the process, goes on."""
    monkeypatch.setattr(_lifetime, "CANCEL_SECONDS", 0.01)
    blocks, go = Signal("the app blocks"), Signal("go")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        blocks.set()
        go.wait()
        await hello(scope, receive, send)

    bridge = bridge_of(app, shutdown_timeout=0.01)
    calling = InThread(lambda: call(bridge))
    blocks.wait()
    with pytest.raises(BridgeError, match="blocking code holds up the thread"):
        bridge.close()
    go.set()
    assert calling.result().body == b"hello"


def test_app_that_blocks_its_loop_keeps_another_startup_waiting_for_a_limited_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bridges share a loop: the first request of one does not wait for ever for what holds up the other."""
    monkeypatch.setattr(_lifetime, "CANCEL_SECONDS", 0.01)
    blocks, go = Signal("the app blocks"), Signal("go")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        blocks.set()
        go.wait()
        await hello(scope, receive, send)

    calling = InThread(lambda: call(bridge_of(app)))
    blocks.wait()
    other = bridge_of(hello, lifespan=True, startup_timeout=0.01)
    starting = InThread(lambda: call(other, fails=BridgeError))
    assert "blocking code holds up the thread" in str(starting.result().raised)
    go.set()
    assert calling.result().body == b"hello"
    assert call(other).body == b"hello"


def test_app_that_ignores_the_end_fails_no_shutdown_around_it() -> None:
    """The bridge inside gives its requests as long as the one around it gives its whole app."""
    runs, over = Signal("the app runs"), Signal("the app is over")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        runs.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            over.set()

    options = {"lifespan": True, "shutdown_timeout": 0.1}
    inner = bridge_of(app, **options)
    outer = bridge_of(WSGIMiddleware(inner), **options)  # type: ignore[arg-type, unused-ignore]
    calling = InThread(lambda: call(outer, fails=BridgeClosed))
    runs.wait()
    outer.close()
    assert over.is_set()
    assert isinstance(calling.result().raised, BridgeClosed)


def test_departure_of_a_bridge_whose_loop_is_held_up_ends() -> None:
    """The end of the process waits for a dropped bridge as long as for another, and no longer."""
    host: Any = types.SimpleNamespace(trouble=lambda: None, join=lambda _: None)
    waiting = in_thread(_exit_and_fork.Departure(host, 0.01).wait)
    waiting.result()


@pytest.mark.parametrize("end", ["close", "stop"])
def test_inline_bridge_is_closed_while_another_thread_waits_for_its_app(end: str) -> None:
    """That thread runs the loop, and holds its lock until the response begins. The request is aborted first."""
    waits = Signal("the app waits")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        asyncio.get_running_loop().call_later(0, waits.set)
        assert await receive() == {"type": "http.disconnect"}

    bridge = bridge_of(app, inline=True)
    calling = InThread(lambda: call(bridge, environ_of(), fails=BridgeClosed))
    waits.wait()
    InThread(getattr(bridge, end)).result()
    assert isinstance(calling.result().raised, BridgeClosed)


def test_inline_bridge_that_is_dropped_and_fails_to_shut_down_closes_its_loop() -> None:
    """An error of the app's shutdown does not leave a loop open, which would keep three descriptors."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed"})

    bridge = ASGIMiddleware(app, inline=True)
    bridge.start()
    host = bridge._lifetime.host
    assert host is not None
    del bridge
    gc.collect()
    assert host.loop.is_closed()


class LifespanApp:
    """An app that notes its startups and shutdowns, each of which waits until it may end.

    Attributes:
        notes: What it was asked for, and its end: ``"startup 1"``, ``"started 1"``, ``"shutdown 1"``, ``"ended 1"``.
        begun: Set as its first one begins, by ``"startup"`` and ``"shutdown"``.
        may_end: What each of them waits for.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.begun = {kind: Signal(f"the {kind}") for kind in ("startup", "shutdown")}
        self.may_end = {kind: Signal(f"the {kind} may end") for kind in ("startup", "shutdown")}
        self._number = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await hello(scope, receive, send)
            return
        self._number += 1
        number = self._number
        for kind, over in (("startup", "started"), ("shutdown", "ended")):
            await receive()
            self.notes.append(f"{kind} {number}")
            self.begun[kind].set()
            await self.may_end[kind].wait_in_task()
            self.notes.append(f"{over} {number}")
            await send({"type": f"lifespan.{kind}.complete"})


@pytest.fixture
def waited() -> list[float]:
    """How many seconds each of those threads would wait at most."""
    return []


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch, waited: list[float]) -> Signal:
    """Set when a thread waits for a startup or a stop of another."""
    waits, wait = Signal("a thread waits for another"), _changes.Change.wait

    def waiting(self: Any, seconds: float) -> bool:
        waited.append(seconds)
        waits.set()
        return wait(self, seconds)

    monkeypatch.setattr(_changes.Change, "wait", waiting)
    return waits


@pytest.mark.parametrize("options", [{}, {"inline": True}], ids=["thread", "inline"])
def test_request_that_comes_while_the_bridge_stops_waits_for_that(options: dict[str, Any], waits: Signal) -> None:
    """The app is started up again after its shutdown, not beside it: it would lose its loop to the end of the first."""
    app = LifespanApp()
    app.may_end["startup"].set()
    bridge = bridge_of(app, lifespan=True, **options)
    assert call(bridge).body == b"hello"
    stopping = in_thread(bridge.stop)
    app.begun["shutdown"].wait()
    calling = in_thread(call, bridge)
    waits.wait()
    app.may_end["shutdown"].set()
    stopping.result()
    assert calling.result().body == b"hello"
    assert call(bridge).body == b"hello"
    bridge.close()
    expected = ["startup", "started", "shutdown", "ended"]
    assert app.notes == [f"{note} {number}" for number in (1, 2) for note in expected]


def test_request_waits_for_a_stop_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that does not end fails the requests that wait for it, one by one."""
    app = LifespanApp()
    app.may_end["startup"].set()
    bridge = bridge_of(app, lifespan=True)
    bridge.start()
    stopping = in_thread(bridge.stop)
    app.begun["shutdown"].wait()
    monkeypatch.setattr(_lifetime.Lifetime, "longest_stop", lambda _: 0.01)
    assert "still stopping after 0.01 s" in str(call(bridge, fails=BridgeError).raised)
    app.may_end["shutdown"].set()
    stopping.result()
    assert call(bridge).body == b"hello"


def test_stop_waits_for_a_startup_that_is_under_way(waits: Signal, waited: list[float]) -> None:
    """Else it would return, and the bridge be started right after. Whoever waits for the stop counts that in."""
    app = LifespanApp()
    bridge = bridge_of(app, lifespan=True)
    starting = in_thread(bridge.start)
    app.begun["startup"].wait()
    app.may_end["shutdown"].set()
    longest = bridge.longest_stop()
    assert longest > 60  # the startup may take that long
    stopping = in_thread(bridge.stop)
    waits.wait()
    app.may_end["startup"].set()
    starting.result()
    stopping.result()
    assert longest - bridge.longest_stop() >= max(waited)
    assert app.notes == ["startup 1", "started 1", "shutdown 1", "ended 1"]


def test_end_of_the_process_waits_for_no_startup(waits: Signal) -> None:
    """A database that does not answer as the app starts up does not hold up Ctrl-C."""
    app = LifespanApp()
    bridge = bridge_of(app, lifespan=True)
    starting = in_thread(bridge.start)
    app.begun["startup"].wait()
    bridge._lifetime.stop_started()
    assert not waits.is_set()
    for may_end in app.may_end.values():
        may_end.set()
    starting.result()


def test_loop_that_somebody_else_has_closed_fails_one_request() -> None:
    """The next one starts another."""
    bridge = bridge_of(hello, inline=True)
    bridge.start()
    host = bridge._lifetime.host
    assert host is not None
    host.loop.close()
    call(bridge, fails=BridgeError)
    assert call(bridge).body == b"hello"


def test_startup_that_close_has_waited_for_in_vain_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that blocks holds up an inline startup longer than it may take. The closed bridge does not serve."""
    monkeypatch.setattr(_lifetime, "CANCEL_SECONDS", 0.01)
    blocks, go = Signal("the startup blocks"), Signal("go")
    notes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for kind in ("startup", "shutdown"):
            notes.append((await receive())["type"])
            blocks.set()
            go.wait()
            await send({"type": f"lifespan.{kind}.complete"})

    bridge = bridge_of(app, lifespan=True, inline=True, startup_timeout=0.01)
    calling = InThread(lambda: call(bridge, fails=BridgeClosed))
    blocks.wait()
    with pytest.raises(BridgeError, match="did not start up or shut down in time"):
        bridge.close()
    go.set()
    assert isinstance(calling.result().raised, BridgeClosed)
    assert notes == ["lifespan.startup", "lifespan.shutdown"]
    assert repr(bridge).endswith("closed>")
    assert not bridge.statistics().started


def test_request_on_the_next_loop_does_not_end_with_the_last() -> None:
    """1. A loop has ended, and the bridge forgets it. 2. A request starts another. 3. Those of the last are aborted."""
    begun, go = Signal("the second app runs"), Signal("go")
    lock, second = HookedLock(), list[InThread]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/stop":
            lock.after = begin_second
            asyncio.get_running_loop().stop()
            await asyncio.get_running_loop().create_future()
        begun.set()
        await go.wait_in_task()
        await hello(scope, receive, send)

    def begin_second() -> None:
        second.append(InThread(lambda: call(bridge)))
        begun.wait()

    bridge = bridge_of(app)
    bridge.start()
    bridge._lifetime._lock = lock  # type: ignore[assignment]  # a lock but for its type
    call(bridge, environ_of(path="/stop"), fails=BridgeError)
    begun.wait()
    go.set()
    assert second.pop().result().body == b"hello"


def test_stop_waits_for_another_one_that_is_under_way(waits: Signal) -> None:
    """Whoever closes the bridge last knows that the app has shut down, as does the end of the process."""
    app = LifespanApp()
    app.may_end["startup"].set()
    bridge = bridge_of(app, lifespan=True)
    bridge.start()
    stopping = in_thread(bridge.close)
    app.begun["shutdown"].wait()
    again = in_thread(bridge.close)
    waits.wait()
    assert not again.over.is_set()
    app.may_end["shutdown"].set()
    again.result()
    assert app.notes[-1] == "ended 1"
    stopping.result()


def test_stop_that_comes_within_a_stop_waits_for_nothing() -> None:
    """A signal handler calls it in the thread that is at it, or the app on the loop: neither can wait for itself."""
    here = _changes.Change("stop")
    here.let_end(BOUND_SECONDS)
    closed = list[str]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        bridge.close()
        closed.append("by the app, too")
        await send({"type": "lifespan.shutdown.complete"})

    bridge = bridge_of(app, lifespan=True)
    bridge.start()
    InThread(bridge.close).result()
    assert closed == ["by the app, too"]


@pytest.mark.parametrize("options", [{}, {"inline": True}], ids=["thread", "inline"])
def test_signal_handler_closes_the_bridge_that_its_thread_starts(options: dict[str, Any]) -> None:
    """The startup goes on once the handler has returned, so the handler must not wait for it. Then it is undone."""
    main, closed, notes = threading.get_ident(), Signal("the handler has closed the bridge"), list[str]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        notes.append((await receive())["type"])
        signal.pthread_kill(main, signal.SIGUSR1)
        await closed.wait_in_task()
        await send({"type": "lifespan.startup.complete"})
        notes.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    def handle(*_: object) -> None:
        bridge.close()
        closed.set()

    bridge = bridge_of(app, lifespan=True, **options)
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        call(bridge, fails=BridgeClosed)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert notes == ["lifespan.startup", "lifespan.shutdown"]
    assert not bridge.statistics().started


def test_bridge_is_closed_in_a_thread_that_holds_its_locks() -> None:
    """By a signal handler that comes at that moment, or by a finalizer."""
    bridge, keeper = bridge_of(hello), bridge_of(hello)
    bridge.start()
    keeper.start()  # or the end of the loop would be waited for, which needs one of them

    def close() -> None:
        with _shared_loop._lock, bridge._lifetime._lock:
            bridge.close()

    in_thread(close).result()
    call(bridge, fails=BridgeClosed)
    keeper.close()


@pytest.mark.parametrize("options", [{}, {"inline": True}], ids=["thread", "inline"])
def test_bridge_that_cannot_be_closed_on_its_own_loop_stays_open(options: dict[str, Any]) -> None:
    """It says so by an error; it is not closed by half, to refuse requests at some later time."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(BridgeError, match="on the thread of its own event loop"):
            bridge.close()
        await hello(scope, receive, send)

    bridge = bridge_of(app, **options)
    assert call(bridge).body == b"hello"
    bridge.stop()
    assert call(bridge).body == b"hello"
    bridge.close()


@pytest.mark.parametrize("options", [{}, {"inline": True}], ids=["thread", "inline"])
def test_app_that_calls_its_own_bridge_in_its_lifespan_is_told_so(options: dict[str, Any]) -> None:
    """Neither its startup nor its stop has taken too long: nobody can wait for it there."""
    told = list[str]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for phase in ("startup", "shutdown"):
            await receive()
            with pytest.raises(BridgeError, match="on the thread of its own event loop"):
                bridge(environ_of(), lambda *_: None)  # type: ignore[arg-type]
            told.append(phase)
            await send({"type": f"lifespan.{phase}.complete"})

    bridge = bridge_of(app, lifespan=True, **options)
    bridge.start()
    bridge.stop()
    assert told == ["startup", "shutdown"]


def test_signal_handler_closes_the_bridge_at_the_very_end_of_its_startup(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes between two lines that hold the lock, and finds the startup or the loop: so the app is shut down."""
    notes = list[str]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for phase in ("startup", "shutdown"):
            notes.append((await receive())["type"])
            await send({"type": f"lifespan.{phase}.complete"})

    has_ended = _shared_loop.SharedHost.has_ended

    def close_and_look(host: _shared_loop.SharedHost) -> bool:
        monkeypatch.undo()
        bridge.close()
        return has_ended(host)

    monkeypatch.setattr(_shared_loop.SharedHost, "has_ended", close_and_look)
    bridge = bridge_of(app, lifespan=True)
    call(bridge, fails=BridgeClosed)
    assert notes == ["lifespan.startup", "lifespan.shutdown"]
    assert not bridge.statistics().started


@pytest.mark.parametrize("end", ["bridge", "inline bridge", "loop"])
def test_app_that_ignores_its_cancellation_fails_no_later_stop(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left on the loop that has ended. The bridge's next loop has nothing to do with it."""
    monkeypatch.setattr(_loops, "CANCEL_SECONDS", 0.05)
    notes = list[str]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                notes.append((await receive())["type"])
                await send({"type": f"lifespan.{phase}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello", "more_body": scope["path"] == "/stay"})
        while scope["path"] == "/stay":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()

    options = {"lifespan": True, "shutdown_timeout": 0.1, "grace_timeout": 0.1, "inline": end == "inline bridge"}
    bridge = bridge_of(app, **options)
    exchange = Exchange(bridge, environ_of(path="/stay")).begin()
    assert exchange.next() == b"hello"
    host: Any = bridge._lifetime.host
    (request,) = bridge._lifetime.requests
    request.task._log_destroy_pending = False  # type: ignore[union-attr]  # asyncio would tell a later test of it
    if end == "loop":
        host.loop.call_soon_threadsafe(host.loop.stop)
        assert host._ended.wait(BOUND_SECONDS)
    else:
        bridge.stop()
        assert notes == ["lifespan.startup", "lifespan.shutdown"]
    exchange.close()
    assert bridge.statistics().in_flight == 0
    notes.clear()
    assert call(bridge).body == b"hello"
    bridge.close()
    assert notes == ["lifespan.startup", "lifespan.shutdown"]
