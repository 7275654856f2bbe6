"""The loops that server threads wait for: one thread for all bridges, loops that fail, and systems without threads."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import importlib
import sys
import textwrap
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from a2wsgi import ASGIMiddleware, BridgeError, MissingCapability
from a2wsgi._asgi_on_wsgi.loops import host as _all_loops
from a2wsgi._asgi_on_wsgi.loops import shared_loop as _loops
from a2wsgi._asgi_on_wsgi.loops.fast_loop import FastLoop
from a2wsgi._asgi_on_wsgi.loops.host import LoopHost, close_loop
from support.asgi_bridges import THREAD_AND_TRIO
from support.asgi_driver import run
from support.lockstep import BOUND_SECONDS, Signal
from support.threads import threads_inherit_context
from support.wsgi_driver import InThread, call, environ_of


async def thread_name(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the name of the thread."""
    if scope["type"] != "http":
        raise ValueError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": threading.current_thread().name.encode()})


def loop_threads() -> list[threading.Thread]:
    """Those of ours that run."""
    return [thread for thread in threading.enumerate() if thread.name == "a2wsgi-loop"]


def test_bridges_share_one_thread() -> None:
    """PAINS B4: a hundred live bridges have one loop thread, which is there when the first is called."""
    bridges = [ASGIMiddleware(thread_name) for _ in range(100)]
    assert loop_threads() == []
    assert {call(bridge).body for bridge in bridges} == {b"a2wsgi-loop"}
    assert len(loop_threads()) == 1


def test_dropped_bridges_leave_no_thread() -> None:
    """PAINS B4: a hundred bridges, built, called and dropped, leave no thread (as the guard of every test sees)."""
    for _ in range(100):
        call(ASGIMiddleware(thread_name))


def test_thread_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a descriptor for a loop fails the request, and serves the next."""

    def fail() -> Any:
        raise OSError("Too many open files")

    one = ASGIMiddleware(thread_name)
    with monkeypatch.context() as patch:
        patch.setattr(_loops, "new_event_loop", fail)
        call(one, fails=OSError)
    assert call(one).body == b"a2wsgi-loop"


def test_host_gives_closed_gates_and_calls_soon() -> None:
    """A gate is closed until somebody opens it; what is called soon is called after this step."""

    async def story() -> None:
        host = LoopHost(asyncio.get_running_loop())
        gate, other = host.gate(), host.gate()
        assert gate is not other
        assert not gate.acquire(blocking=False)
        calls: list[int] = []
        host.before_wait(lambda: calls.append(1))
        assert calls == []
        await asyncio.sleep(0)
        assert calls == [1]
        with pytest.raises(NotImplementedError):
            host.trouble()

    run(story())


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer in one go."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def bridge_of(app: Any, **options: Any) -> ASGIMiddleware:
    """A bridge without lifespan."""
    options.setdefault("lifespan", False)
    bridge: ASGIMiddleware = ASGIMiddleware(app, **options)
    return bridge


def test_loop_that_fails_is_replaced(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Its requests get an error that says what it failed with; the next request of any bridge gets another loop."""
    waits = Signal("the app waits")

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        waits.set()
        await asyncio.sleep(BOUND_SECONDS)

    class BrokenError(OSError):
        pass

    def breaks(timeout: float | None = None) -> Any:
        raise BrokenError("the selector is closed")

    one, other = bridge_of(waiting), bridge_of(hello)
    assert call(other).body == b"hello"
    host = other._lifetime.host
    assert host is not None
    assert isinstance(host.loop, FastLoop)
    lost = InThread(functools.partial(call, one, fails=BridgeError))
    waits.wait()
    monkeypatch.setattr(host.loop._our_selector, "select", breaks)
    host.loop.call_soon_threadsafe(int)
    error = lost.result().raised
    assert "failed with BrokenError" in str(error)
    host.join(BOUND_SECONDS)  # what comes before the other bridge is told of the failure fails with it
    assert [call(other).body, call(bridge_of(hello)).body] == [b"hello"] * 2
    assert other._lifetime.host is not host
    assert "The event loop failed" in caplog.records[0].getMessage()


def test_requests_on_a_loop_that_ends_get_an_error_each() -> None:
    """Two threads that raised one error would join their stacks in it."""
    waiting: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        waiting.append(1)
        if len(waiting) == 2:
            asyncio.get_running_loop().stop()
        await asyncio.sleep(BOUND_SECONDS)

    one = bridge_of(app)
    host = one._lifetime.start(app)
    lost = [InThread(functools.partial(call, one, fails=BridgeError)) for _ in range(2)]
    first, second = (each.result().raised for each in lost)
    host.join(BOUND_SECONDS)
    assert first is not second
    assert str(first) == str(second)


def test_other_bridges_are_told_though_one_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant of the loop that fails to take the news does not keep it from the others."""

    async def stops(scope: Any, receive: Any, send: Any) -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(BOUND_SECONDS)

    def fails(*_: object) -> None:
        raise ValueError

    bridges = [bridge_of(stops) for _ in range(5)]
    for bridge in bridges:
        bridge.start()
    for bridge in bridges[1:]:
        monkeypatch.setattr(bridge._lifetime, "loop_ended", fails)
    host = bridges[0]._lifetime.host
    assert host is not None
    call(bridges[0], fails=BridgeError)
    host.join(BOUND_SECONDS)


def nothing(*_: object) -> Callable[[bytes], object]:
    """A server's ``start_response()``."""
    return bytes


def test_thread_that_cannot_be_started_leaves_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no more threads fails the request, and the next one, and hangs none."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    one = bridge_of(hello)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                one(environ_of(), nothing)
    assert call(one).body == b"hello"


TESTS_ON = pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])


def run_in_one(interpreters: Any, program: str) -> object:
    """Run a program in a new subinterpreter; what it failed with, if the module says so."""
    made = interpreters.create()
    try:
        return interpreters.run_string(made, textwrap.dedent(program))
    finally:
        interpreters.destroy(made)


def subinterpreter() -> Callable[[str], object]:
    """What runs a program in a subinterpreter that has no daemon threads; skips where none can be made."""
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            interpreters: Any = importlib.import_module(name)
        except ImportError:
            continue
        return functools.partial(run_in_one, interpreters)
    pytest.skip("needs subinterpreters")


@TESTS_ON
def test_subinterpreter_without_daemon_threads(inline: bool, tmp_path: Any) -> None:
    """A bridge says what it lacks there and names inline=True, which works."""
    said = tmp_path / "said"
    execute = subinterpreter()
    failed = execute(
        f"""
        import sys
        sys.path[:] = {sys.path!r}
        from a2wsgi import ASGIMiddleware, MissingCapability

        async def app(scope, receive, send):
            await send({{"type": "http.response.start", "status": 200, "headers": []}})
            await send({{"type": "http.response.body", "body": b"hello"}})

        environ = {{"REQUEST_METHOD": "GET", "SERVER_NAME": "", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}}
        bridge = ASGIMiddleware(app, inline={inline}, lifespan=False)
        said = []
        for _ in range(2):
            try:
                said += bridge(dict(environ), lambda *_: None)
            except MissingCapability as error:
                said.append(str(error).encode())
        bridge.close()
        open({str(said)!r}, "wb").write(b"\\n".join(said))
        """
    )
    assert failed is None
    lines = said.read_text().splitlines()
    assert len(lines) == 2
    assert all(line == "hello" if inline else "inline=True" in line for line in lines)


def test_lack_of_daemon_threads_is_told_from_a_lack_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a subinterpreter of any Python says names inline=True; what a full machine says is passed on."""
    texts = {
        "thread is not supported for isolated subinterpreters": MissingCapability,
        "daemon threads are disabled in this (sub)interpreter": MissingCapability,
        "can't create new thread at interpreter shutdown": RuntimeError,
    }
    for text, kind in texts.items():

        def start(self: threading.Thread, text: str = text) -> None:
            raise RuntimeError(text)

        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(kind):
            bridge_of(hello)(environ_of(), nothing)


def test_shared_loop_is_that_of_the_module() -> None:
    """A loop that was stopped is not shared any more."""
    one = bridge_of(hello)
    call(one)
    shared = _loops._shared.get(_loops.AsyncioHost)
    one.close()
    assert shared is not None
    assert _loops._shared == {}


def test_task_that_another_thread_gives_to_a_loop_as_it_ends_is_cancelled() -> None:
    """Asgiref gives its coroutines to the last loop that it knows, and waits for them as long as that takes."""
    loop, said = asyncio.new_event_loop(), list[str]()

    async def given() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            said.append("cancelled")
            raise

    executor_is_due = threading.Event()

    class Executor(ThreadPoolExecutor):
        def shutdown(self, *args: Any, **options: Any) -> None:
            executor_is_due.set()
            super().shutdown(*args, **options)

    def give() -> None:  # in a thread that the loop waits for, as the last of its steps
        assert executor_is_due.wait(BOUND_SECONDS)
        loop.call_soon_threadsafe(loop.create_task, given())

    loop.set_default_executor(Executor())
    loop.run_in_executor(None, give)
    loop.run_until_complete(asyncio.sleep(0))
    close_loop(loop)
    assert said == ["cancelled"]
    coroutine = given()
    with pytest.raises(RuntimeError):
        loop.call_soon_threadsafe(loop.create_task, coroutine)
    coroutine.close()


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Little patience with what an app has left on its loop; set at the end of the test."""
    monkeypatch.setattr(_all_loops, "CANCEL_SECONDS", 0.01)
    ended = threading.Event()
    yield ended
    ended.set()


OWN_LOOPS = pytest.mark.parametrize("options", [{}, {"inline": True}], ids=["thread", "inline"])


def close_within_its_time(bridge: ASGIMiddleware) -> None:
    """Close a bridge, whose loop must be closed then."""
    host = bridge._lifetime.host
    assert host is not None
    InThread(bridge.close).result()
    assert host.loop.is_closed()


@OWN_LOOPS
@pytest.mark.usefixtures("ended")
def test_generator_that_waits_as_it_is_closed_holds_up_no_loop(options: dict[str, Any]) -> None:
    """An app has left it unfinished: it is given some time, then cancelled."""
    left, outcomes = [], []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            try:
                await asyncio.get_running_loop().create_future()
            except BaseException as error:
                outcomes.append(type(error))
                raise

    async def app(scope: Any, receive: Any, send: Any) -> None:
        left.append(numbers())
        await left[0].__anext__()
        await hello(scope, receive, send)

    bridge = bridge_of(app, **options)
    assert call(bridge).body == b"hello"
    close_within_its_time(bridge)
    assert outcomes == [asyncio.CancelledError]


@OWN_LOOPS
def test_thread_of_the_executor_that_blocks_holds_up_no_loop(
    options: dict[str, Any], ended: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can end what an app has run there. The loop is closed without it, and the log says so."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asyncio.get_running_loop().run_in_executor(None, ended.wait)
        await hello(scope, receive, send)

    bridge = bridge_of(app, **options)
    assert call(bridge).body == b"hello"
    close_within_its_time(bridge)
    assert "A thread of asyncio.to_thread() is still running, though its event loop has ended" in caplog.messages


def test_stop_may_take_as_long_as_the_end_of_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a stop waits for all that `close_loop` does for what an app has left."""
    waits, wait, seconds = [], asyncio.wait, _all_loops.CANCEL_SECONDS

    def noting(futures: Any, *, timeout: float) -> Any:
        waits.append(timeout)
        return wait(futures, timeout=timeout)

    async def stubborn() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.get_running_loop().create_future()

    async def leave() -> list[Any]:
        left = asyncio.create_task(stubborn())
        await asyncio.to_thread(int)
        return [left]

    loop = asyncio.new_event_loop()
    left = loop.run_until_complete(leave())
    monkeypatch.setattr(asyncio, "wait", noting)
    monkeypatch.setattr(_all_loops, "CANCEL_SECONDS", 0.01)
    close_loop(loop)
    assert left[0].cancelled()
    assert waits == [0.01] * 4
    lifetime = bridge_of(hello, shutdown_timeout=0.01)._lifetime
    assert lifetime.longest_stop() >= lifetime._longest_shutdown() + len(waits) * seconds


def test_thread_of_the_loop_keeps_nothing_of_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A free-threaded Python starts a thread in a copy of its caller's context, which a thread keeps to its end."""
    threads_inherit_context(monkeypatch)
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen = Signal("the context of the loop's thread"), list[str]()

    def look() -> None:
        seen[1].append(variable.get())
        seen[0].set()

    bridge = bridge_of(hello)
    token = variable.set("the first request's")
    assert call(bridge).body == b"hello"
    variable.reset(token)
    host = bridge._lifetime.host
    assert host is not None
    # The loop calls it in the context that it is given; what is called next after the loop's step, in the thread's own.
    host.loop.call_soon_threadsafe(host.before_wait, look)
    seen[0].wait()
    assert seen[1] == ["unset"]


@OWN_LOOPS
def test_generator_that_cancels_all_tasks_as_it_is_closed_ends_no_clean_up(options: dict[str, Any]) -> None:
    """One of those tasks waits for it. What comes after it, such as the app's threads, ends all the same."""
    left, threads = [], []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            for task in asyncio.all_tasks():
                task.cancel()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        left.append(numbers())
        await left[0].__anext__()
        threads.append(await asyncio.to_thread(threading.current_thread))
        await hello(scope, receive, send)

    bridge = bridge_of(app, **options)
    assert call(bridge).body == b"hello"
    close_within_its_time(bridge)
    assert not threads[0].is_alive()


def test_stop_that_is_still_due_does_not_cut_the_end_of_a_loop_short(caplog: pytest.LogCaptureFixture) -> None:
    """1. A loop is to be stopped. 2. A signal handler raises in the thread that runs it. 3. It is closed."""
    loop = asyncio.new_event_loop()
    ended = []

    async def generate() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            ended.append("generator")

    async def begin() -> None:
        await generator.__anext__()

    generator = generate()
    loop.run_until_complete(begin())
    loop.call_soon(loop.stop)
    close_loop(loop)
    assert ended == ["generator"]
    assert loop.is_closed()
    assert caplog.records == []


@THREAD_AND_TRIO
@pytest.mark.parametrize("is_ready", [False, True], ids=["not ready", "ready"])
def test_loop_whose_first_user_was_interrupted_ends(
    is_ready: bool, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler ends the wait for the loop of the first request, say, and the bridge is dropped."""
    go, threads = Signal("the thread may be ready"), list[threading.Thread]()
    make, wait = LoopHost.__init__, _loops.SharedHost.wait_ready

    def make_later(self: Any, loop: Any) -> None:
        go.wait()
        make(self, loop)

    def wait_ready(self: _loops.SharedHost) -> None:
        assert self._thread is not None
        threads.append(self._thread)
        if is_ready:
            go.set()
            wait(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LoopHost, "__init__", make_later)
        patch.setattr(_loops.SharedHost, "wait_ready", wait_ready)
        with pytest.raises(KeyboardInterrupt):
            ASGIMiddleware(hello, lifespan=False, **options).start()
        go.set()
        (thread,) = threads
        thread.join(BOUND_SECONDS)
    assert not thread.is_alive()
    assert call(ASGIMiddleware(hello, lifespan=False, **options)).body == b"hello"


@THREAD_AND_TRIO
@pytest.mark.parametrize("is_ready", [False, True], ids=["not ready", "ready"])
def test_loop_whose_thread_was_started_as_an_interruption_came_ends(
    is_ready: bool, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler raises in ``Thread.start()``, which waits for the thread to begin."""
    go, threads = Signal("the thread may be ready"), list[threading.Thread]()
    make, start = LoopHost.__init__, threading.Thread.start

    def make_later(self: Any, loop: Any) -> None:
        go.wait()
        make(self, loop)

    def interrupted(self: threading.Thread) -> None:
        host = self._target.__self__  # type: ignore[attr-defined]
        threads.append(self)
        start(self)
        if is_ready:
            go.set()
            assert host._ready.wait(BOUND_SECONDS)
        raise KeyboardInterrupt

    bridge = ASGIMiddleware(hello, lifespan=False, **options)
    with monkeypatch.context() as patch:
        patch.setattr(LoopHost, "__init__", make_later)
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bridge.start()
        go.set()
        (thread,) = threads
        thread.join(BOUND_SECONDS)
    assert not thread.is_alive()
    assert call(bridge).body == b"hello"


@THREAD_AND_TRIO
@pytest.mark.parametrize("what", ["start", "close"])
def test_bridge_whose_loop_ends_as_it_starts_or_closes_raises_an_error_of_ours(
    what: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. The loop runs. 2. The app of another bridge stops it. 3. This one asks it to run the app's lifespan."""
    other, bridge = (bridge_of(hello, lifespan=True, **options) for _ in range(2))
    other.start()
    host: Any = other._lifetime.host
    if what == "close":
        bridge.start()
    submit = type(host)._submit

    def submit_late(self: Any, make: Any) -> Any:
        monkeypatch.undo()
        self.loop.call_soon_threadsafe(self.loop.stop)
        assert self._ended.wait(BOUND_SECONDS)
        return submit(self, make)

    monkeypatch.setattr(type(host), "_submit", submit_late)
    with pytest.raises(BridgeError):
        getattr(bridge, what)()
    if what == "start":
        assert call(bridge).body == b"hello"
