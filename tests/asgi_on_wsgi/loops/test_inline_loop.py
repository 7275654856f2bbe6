"""A loop that server threads run themselves: beside somebody else's loop, and amid somebody else's error."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import sys
import threading
import warnings
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from a2wsgi import ASGIMiddleware, BridgeError
from a2wsgi._asgi_on_wsgi.loops import inline_loop
from a2wsgi._asgi_on_wsgi.loops.fast_loop import FastLoop
from a2wsgi._asgi_on_wsgi.loops.inline_loop import InlineHost
from support.lockstep import BOUND_SECONDS, Signal
from support.threads import in_thread
from support.wsgi_driver import Exchange, call, environ_of


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer in one go."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def test_inline_in_the_task_of_another_loop() -> None:
    """The server calls from a task of its own loop: the app has a loop and a task of its own, and so has the server."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        tasks.append(asyncio.current_task())
        await asyncio.create_task(asyncio.sleep(0))
        await hello(scope, receive, send)

    async def server() -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert call(bridge).body == b"hello"
        assert asyncio.current_task() is task
        assert asyncio.get_running_loop() is loop
        await asyncio.sleep(0)
        tasks.append(task)

    tasks: list[Any] = []
    bridge = ASGIMiddleware(app, inline=True)
    asyncio.run(server())
    bridge.close()
    assert len(tasks) == len({*tasks}) == 3  # the lifespan's, the request's and the server's


# -- The app's first step ---------------------------------------------------------------------------------------------


def test_first_step_runs_as_on_a_running_loop() -> None:
    """The app has a task, a loop that says it runs, and asyncio's hooks for asynchronous generators."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        found.append((asyncio.current_task() is not None, loop.is_running(), None not in hooks, bridge.statistics()))
        marker.set("the app's")
        with pytest.raises(RuntimeError, match=r"running event loop|already running"):
            asyncio.run(asyncio.sleep(0))
        await hello(scope, receive, send)

    found: list[Any] = []
    marker = contextvars.ContextVar("marker", default="the server's")
    hooks = sys.get_asyncgen_hooks()
    with bridge_of(app, inline=True) as bridge, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # asyncio.run() does not close what it refuses
        assert [call(bridge).body for _ in range(3)] == [b"hello"] * 3
        statistics = bridge.statistics()
    assert marker.get() == "the server's"
    assert sys.get_asyncgen_hooks() == hooks
    assert asyncio._get_running_loop() is None
    assert [entry[:3] for entry in found] == [(True, True, True)] * 3
    assert [(entry[3].in_flight, entry[3].queued) for entry in found] == [(1, 0)] * 3
    assert (statistics.in_flight, statistics.queued) == (0, 0)


def test_generator_of_the_first_step_is_closed_by_the_loop() -> None:
    """An asynchronous generator that an app drops is run to its end, wherever it was begun."""

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(asyncio.get_running_loop())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async for _ in numbers():
            break
        gc.collect()
        await hello(scope, receive, send)
        await asyncio.sleep(0.001)
        loops.append(asyncio.get_running_loop())

    closed: list[Any] = []
    loops: list[Any] = []
    with bridge_of(app, inline=True) as bridge:
        assert call(bridge).body == b"hello"
    assert closed == loops


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
def test_app_that_ends_in_its_first_step_runs_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12's eager tasks: there is nothing left for a loop to do."""
    runs: list[None] = []
    with bridge_of(hello, inline=True) as bridge:
        call(bridge)
        monkeypatch.setattr(FastLoop, "run_forever", lambda _: runs.append(None))
        assert call(bridge).body == b"hello"
        assert runs == []
        monkeypatch.undo()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
def test_signal_handler_that_raises_after_a_first_step_leaves_no_loop_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread serves other requests after it, if its server goes on."""
    set_hooks = sys.set_asyncgen_hooks

    def interrupted(*hooks: Any) -> None:
        set_hooks(*hooks)
        if hooks == outer_hooks:
            monkeypatch.undo()
            raise KeyboardInterrupt

    with bridge_of(hello, inline=True) as bridge:
        call(bridge)
        outer_hooks = tuple(sys.get_asyncgen_hooks())
        monkeypatch.setattr(sys, "set_asyncgen_hooks", interrupted)
        call(bridge, fails=KeyboardInterrupt)
        assert asyncio._get_running_loop() is None
        assert call(bridge).body == b"hello"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
def test_signal_handler_that_raises_after_a_first_step_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the server, though the app has answered already."""
    create = FastLoop.create_eager_task

    def interrupted(loop: FastLoop, coroutine: Any) -> Any:
        create(loop, coroutine)
        monkeypatch.undo()
        raise KeyboardInterrupt

    with bridge_of(hello, inline=True) as bridge:
        monkeypatch.setattr(FastLoop, "create_eager_task", interrupted)
        call(bridge, fails=KeyboardInterrupt)
        assert bridge.statistics().in_flight == 0
        assert call(bridge).body == b"hello"


def test_signal_handler_that_raises_as_asyncio_cleans_up_leaves_no_loop_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes before the first line of asyncio's own method, or amid what Python 3.12 and older have in its place."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await hello(scope, receive, send)

    set_loop = asyncio.events._set_running_loop

    def interrupted(what: object) -> None:
        if isinstance(what, asyncio.AbstractEventLoop) and sys.version_info < (3, 13):  # it begins
            set_loop(what)
            return
        monkeypatch.undo()
        raise KeyboardInterrupt

    with bridge_of(app, inline=True) as bridge:
        if sys.version_info >= (3, 13):
            monkeypatch.setattr(asyncio.BaseEventLoop, "_run_forever_cleanup", interrupted)
        else:
            monkeypatch.setattr(asyncio.events, "_set_running_loop", interrupted)
        call(bridge, fails=KeyboardInterrupt)
        assert asyncio._get_running_loop() is None
        assert call(bridge).body == b"hello"


def test_task_factory_of_an_app_is_asked() -> None:
    """An app may set one on its loop: each request's task then comes from it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await hello(scope, receive, send)

    def factory(loop: Any, coroutine: Any, **options: Any) -> Any:
        made.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **options)

    made: list[Any] = []
    with bridge_of(app, inline=True) as bridge:
        assert call(bridge).body == call(bridge).body == b"hello"
    assert made.count("Request._run") == 1


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, asyncio.CancelledError, StopIteration, RecursionError])
def test_error_of_the_first_step_is_its_own_request_s(kind: type[BaseException]) -> None:
    """Whatever the app raises, the next request is served."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/bad":
            raise kind
        await hello(scope, receive, send)

    with bridge_of(app, inline=True) as bridge:
        with pytest.raises(BaseException):  # noqa: B017, PT011 - which one is test_faults' matter
            call(bridge, environ_of(path="/bad"))
        assert call(bridge).body == b"hello"
        assert bridge.statistics().in_flight == 0


def chain(error: BaseException | None) -> list[BaseException]:
    """An error, and all that it is chained to."""
    found: list[BaseException] = []
    while error is not None:
        found.append(error)
        error = error.__context__
    return found


def bridge_of(app: Any, **options: Any) -> ASGIMiddleware:
    """A bridge without lifespan."""
    options.setdefault("lifespan", False)
    bridge: ASGIMiddleware = ASGIMiddleware(app, **options)
    return bridge


def closed_amid_an_error(closes: Exchange | ASGIMiddleware) -> None:
    """Close a response as servers do that fail to send it."""
    try:
        raise BrokenPipeError("the first's")
    finally:
        closes.close()


class TwoRequests:
    """Two requests on an inline bridge, in two threads, of which the first fails in the server.

    The second's app goes on as soon as the first's is told that its client has left, and fails then: the first's server
    thread runs the loop for it.
    """

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.raised: list[BaseException] = []
        self.bridge = bridge_of(self._app, inline=True)
        self.second = Exchange(self.bridge, environ_of(path="/second"))
        in_thread(self.second.begin).result()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        if scope["path"] == "/second":
            await self.go.wait()
            try:
                int("the second's")
            except ValueError as error:
                self.raised.append(error)
                raise
        while (await receive())["type"] != "http.disconnect":
            pass
        self.go.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        try:
            await send({"type": "http.response.body", "body": b"more", "more_body": True})
        except OSError as error:
            self.raised.append(error)
            raise

    def fail(self) -> None:
        """The first request's client leaves, and the server closes the response in a ``finally``."""
        first = Exchange(self.bridge).begin()
        with pytest.raises(BrokenPipeError):
            closed_amid_an_error(first)

    def end(self) -> BaseException | None:
        """What the second request fails with, in its own server thread."""
        got = in_thread(functools.partial(self._rest_of_second)).result()
        self.bridge.close()
        return got

    def _rest_of_second(self) -> BaseException | None:
        try:
            list(self.second.iterator)
        except ValueError as error:
            return error
        finally:
            self.second.close()
        return None


def test_error_has_no_other_requests_error_as_context() -> None:
    """1. The first request fails in the server. 2. Its thread runs the loop as it closes. 3. The second fails there."""
    two = TwoRequests()
    two.fail()
    error = two.end()
    assert chain(error) == [two.raised[0]]
    assert isinstance(two.raised[1], OSError)  # the first's own


def test_close_of_a_bridge_amid_an_error_spares_the_requests_on_it() -> None:
    """What ends the block of a ``with bridge`` is no context of what the requests then fail with."""
    two = TwoRequests()
    in_thread(Exchange(two.bridge).begin).result()
    with pytest.raises(BrokenPipeError):
        closed_amid_an_error(two.bridge)
    assert [chain(error)[-1] for error in two.raised] == two.raised
    two.second.close()


def test_loop_is_run_with_an_error_at_hand_if_there_are_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Better a strange context than a request that is not ended."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    two = TwoRequests()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        two.fail()
    assert len(two.raised) == 2
    assert isinstance(two.end(), ValueError)


def test_signal_handler_that_raises_while_another_thread_runs_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's thread gets that error, once nobody runs its loop any more."""
    join = threading.Thread.join

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        if self.name == "a2wsgi-inline" and not interruptions:
            interruptions.append(1)
            raise KeyboardInterrupt
        join(self, timeout)

    interruptions: list[int] = []
    two = TwoRequests()
    first = Exchange(two.bridge).begin()
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        closed_amid_an_error(first)
    assert not [thread for thread in threading.enumerate() if thread.name == "a2wsgi-inline"]
    assert interruptions == [1]
    assert isinstance(two.end(), ValueError)


def test_one_server_thread_runs_its_loop_itself() -> None:
    """A server with one thread, which may have no others, gets no other for an error at hand."""
    threads: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass
        threads.append(threading.current_thread().name)

    with bridge_of(app, inline=True) as bridge:
        for _ in range(2):
            with pytest.raises(BrokenPipeError):
                closed_amid_an_error(Exchange(bridge).begin())
    assert threads == [threading.current_thread().name] * 2


def test_stop_that_came_after_the_loop_had_stopped_ends_no_shutdown() -> None:
    """A gate may open right after the loop has stopped, and tells it again. That must not cut the next run short."""

    async def shut_down() -> str:
        await asyncio.sleep(0)
        return "shut down"

    host = InlineHost()
    try:
        host.loop.stop()
        assert host.run(shut_down) == "shut down"
    finally:
        host.release(cast("Any", None))


# -- A loop that another thread holds ---------------------------------------------------------------------------------


def test_end_of_a_held_loop_is_left_to_whoever_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that does not come back keeps it: nobody waits longer than the bound, and later requests are told."""
    monkeypatch.setattr(inline_loop, "CANCEL_SECONDS", 0.01)
    host = InlineHost()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with host._running:
            held.set()
            done.wait(BOUND_SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(BOUND_SECONDS)
        with pytest.raises(BridgeError, match="holds up"):
            host.run(lambda: asyncio.sleep(0), 0.01)
        assert host.trouble() is None
        host.release(cast("Any", None))
        assert isinstance(host.trouble(), BridgeError)
    finally:
        done.set()
        thread.join()
    with pytest.raises(BridgeError, match="was stopped"):
        host.run(lambda: asyncio.sleep(0))
    gate = host.gate()
    assert not gate.acquire(timeout=10)  # at once: nobody will open it
    host.loop.close()


def test_end_waits_for_a_thread_of_the_app() -> None:
    """The loop runs meanwhile, so that a thread may use it."""
    done: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()

        async def on_the_loop() -> str:
            return "on the loop"

        def use() -> None:
            may_use.wait(BOUND_SECONDS)
            done.append(asyncio.run_coroutine_threadsafe(on_the_loop(), loop).result(BOUND_SECONDS))

        loop.run_in_executor(None, use)
        loop.call_soon(may_use.set)
        await hello(scope, receive, send)

    may_use = threading.Event()
    with ASGIMiddleware(app, inline=True, lifespan=False) as bridge:
        assert call(bridge).body == b"hello"
    assert done == ["on the loop"]


def test_error_of_a_loop_that_runs_in_a_thread_of_its_own_is_raised() -> None:
    """Another thread runs it for a server thread that handles an error; the latter gets what that raises."""

    def fails() -> None:
        threads.append(threading.current_thread().name)
        raise LookupError("of the loop")

    threads: list[str] = []
    host = InlineHost()
    with pytest.raises(LookupError, match="of the loop") as caught:
        host.run_without_error(fails)
    assert threads == ["a2wsgi-inline"]
    assert caught.value.__context__ is None
    host.release(cast("Any", None))


def test_loop_of_a_stuck_thread_is_closed_when_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could wait so long. Its request fails, and what the app has begun is cancelled and cleaned up."""
    monkeypatch.setattr(inline_loop, "CANCEL_SECONDS", 0.01)
    stuck, free, notes = Signal("the app blocks"), Signal("it goes on"), list[str]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stuck.set()
        free.wait()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            notes.append("cleaned up")

    bridge = ASGIMiddleware(app, inline=True, lifespan=False, shutdown_timeout=0.01)
    calling = in_thread(call, bridge, fails=BridgeError)
    stuck.wait()
    host = bridge._lifetime.host
    assert host is not None
    with pytest.raises(BridgeError, match="holds up"):
        bridge.close()
    assert not host.loop.is_closed()
    free.set()
    assert isinstance(calling.result().raised, BridgeError)
    assert host.loop.is_closed()
    assert notes == ["cleaned up"]
    assert bridge._lifetime.requests == set()


@pytest.mark.parametrize("is_open", [False, True], ids=["before it is open", "before the loop is stopped"])
def test_signal_handler_that_raises_as_a_gate_is_opened_keeps_no_thread_waiting(
    is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises in the app's ``send()``, which has filled the buffer. So the app ends, and the loop goes on."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"0123456789", "more_body": True})

    def release(gate: Any) -> None:
        monkeypatch.undo()
        gate.closed = not is_open
        raise KeyboardInterrupt

    with ASGIMiddleware(app, inline=True, lifespan=False, response_buffer_bytes=1) as bridge:
        monkeypatch.setattr(inline_loop._InlineGate, "release", release)
        call(bridge, fails=KeyboardInterrupt)
