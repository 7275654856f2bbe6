"""What other threads do between two steps that are one under the GIL: to walk a collection, to take something out.

Without a GIL, a thread that adds a member meanwhile makes ``tuple(a_set)`` raise RuntimeError. Each test names the line
that it fails without.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread as executors
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

import pytest

from a2wsgi import ASGIMiddleware, WSGIMiddleware
from a2wsgi._asgi_on_wsgi import exit_and_fork
from a2wsgi._nested import Pair
from a2wsgi._threads.runtime import Runtime
from a2wsgi._wsgi_on_asgi import bridge as _bridge
from a2wsgi._wsgi_on_asgi import overdue
from a2wsgi._wsgi_on_asgi import request as _request
from a2wsgi._wsgi_on_asgi.disconnected import Disconnected
from a2wsgi._wsgi_on_asgi.failures import FailureMixin
from a2wsgi._wsgi_on_asgi.loops import BridgeLoop
from a2wsgi._wsgi_on_asgi.request import Request
from a2wsgi._wsgi_on_asgi.streams import ToLoop
from a2wsgi._wsgi_on_asgi.websocket import link as _link
from a2wsgi._wsgi_on_asgi.workers import Workers
from apps import hello
from support.asgi_driver import answer, http_scope, run
from support.lockstep import Signal
from support.threads import HookedLock, Running, in_thread

T = TypeVar("T")


class Walked(set[T]):
    """A set to which another thread adds a member whenever somebody walks it. Only a copy is one step.

    Args:
        members: What is in it.
        added: What the other thread adds.
    """

    def __init__(self, members: list[T], added: T) -> None:
        super().__init__(members)
        self._added = added

    def __iter__(self) -> Iterator[T]:
        for member in super().__iter__():
            self.add(self._added)
            yield member

    def copy(self) -> set[T]:
        return set[T]().union(self)  # which does not ask for the iterator of a set


class Counted:
    """A request, a worker, a WebSocket or what else is told something, or asked."""

    overdue = False

    def __init__(self) -> None:
        self.told: list[object] = []

    def is_on(self, _loop: object) -> bool:
        return True

    def is_live(self) -> bool:
        return True

    def tick(self, _now: float) -> None:
        self.told.append("visited")

    def wait(self) -> None:
        self.told.append("waited for")

    def abort(self, *reasons: object) -> None:
        self.told.append(reasons)

    def shut_down(self) -> None:
        self.told.append("shut down")


async def never(scope: Any, receive: Any, send: Any) -> None:
    """Is not to be called."""
    raise AssertionError("the app was called")


def test_walked_set_changes_under_a_walk() -> None:
    """The fake fails a walk as a real set does."""
    with pytest.raises(RuntimeError, match="changed size during iteration"):
        tuple(Walked([1], 2))
    assert Walked([1], 2).copy() == {1}


def test_statistics_are_told_while_a_worker_is_started() -> None:
    """Any thread may ask. Defends `Workers.overdue`: ``copy()``."""
    workers = Workers(2)
    workers._members = Walked([Counted()], Counted())  # type: ignore[arg-type, list-item]  # as much of a worker as is asked for
    assert workers.overdue == 0


def test_websockets_end_while_another_loop_has_one_more() -> None:
    """A bridge may be called on several loops, one of which shuts down. Defends `WebSockets.stop`: ``copy()``."""
    bridge, session = WSGIMiddleware(hello.app), Counted()
    bridge._websockets.open = Walked([session], Counted())  # type: ignore[arg-type, list-item]  # as above
    bridge._websockets.stop(bridge)  # type: ignore[arg-type]  # is only passed on
    assert len(session.told) == 1


def test_websockets_are_counted_while_another_loop_has_one_more() -> None:
    """Any thread may ask. Defends `WebSockets.count`: ``copy()``."""
    bridge = WSGIMiddleware(hello.app)
    bridge._websockets.admitted = Walked([Counted()], Counted())  # type: ignore[arg-type, list-item]  # as above
    assert bridge.statistics().websockets == 1


def test_requests_are_visited_while_the_collector_ends_one() -> None:
    """It may run in any thread. Defends `BridgeLoop._tick`: both ``copy()``."""

    async def main() -> None:
        loop = BridgeLoop(Runtime(asyncio.get_running_loop()))
        first, second = Counted(), Counted()
        loop.in_flight = cast("Any", Walked([first], Counted()))
        loop.abandoned = cast("Any", Walked([second], Counted()))
        loop._tick()
        loop.in_flight.clear()
        loop.abandoned.clear()
        assert (first.told, second.told) == (["visited"], ["visited"])

    asyncio.run(main())


def test_requests_are_aborted_while_a_server_thread_brings_one() -> None:
    """The bridge is closed, or its loop has ended. Defends `Lifetime._abort_all` and `loop_ended`: ``copy()``."""
    bridge: ASGIMiddleware = ASGIMiddleware(never)
    lifetime = bridge._lifetime
    for end in (lifetime._abort_all, lambda: lifetime.loop_ended(None, ValueError)):  # type: ignore[arg-type]
        request = Counted()
        lifetime.requests = Walked([request], Counted())  # type: ignore[arg-type, list-item]  # as above
        end()
        assert len(request.told) == 1


def test_end_of_the_process_waits_while_another_bridge_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bridges may be dropped in any thread. Defends `_stop_all`: ``_departures.copy()``."""
    departure = Counted()
    monkeypatch.setattr(exit_and_fork, "_all_lifetimes", list)
    monkeypatch.setattr(exit_and_fork, "_departures", Walked([departure], Counted()))
    exit_and_fork._stop_all()
    assert departure.told == ["waited for"]


def test_socket_pairs_are_shut_down_while_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main thread ends, and a loop's thread goes on. Defends `_shut_all_down`: ``copy()``."""
    pair = Counted()
    monkeypatch.setattr(_link, "_open_links", Walked([pair], Counted()))
    _link._shut_all_down()
    assert pair.told == ["shut down"]


def test_bridges_stop_early_while_an_executor_starts_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main thread ends, and an executor goes on. Defends `_stop_all_early`: ``keyrefs()``, which is one step."""

    class Threads(weakref.WeakKeyDictionary[threading.Thread, Any]):
        def __iter__(self) -> Iterator[threading.Thread]:
            raise RuntimeError("dictionary changed size during iteration")

    go = Signal("the thread of the executor ends")
    thread = threading.Thread(target=go.wait)
    thread.start()
    threads = Threads()
    threads[thread] = None
    stopped: list[None] = []
    monkeypatch.setattr(executors, "_threads_queues", threads)
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.current_thread(), thread])
    monkeypatch.setattr(exit_and_fork, "_stop_all", lambda: stopped.append(None))
    try:
        exit_and_fork._stop_all_early()
    finally:
        go.set()
        thread.join()
    assert stopped == [None]  # its own threads do not hold that up


def test_stack_of_a_running_thread_is_left_alone_where_that_may_crash(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Python 3.13 without a GIL cannot look at the frames of a thread that runs. Defends `_stack`: ``_is_safe()``."""
    go = Signal("the app may end")

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        go.wait()
        return hello.app(environ, start_response)

    def never() -> dict[int, object]:
        raise AssertionError("looked at the frames")

    monkeypatch.setattr(overdue, "_is_safe", lambda: False)
    monkeypatch.setattr(sys, "_current_frames", never)
    caplog.set_level(logging.ERROR, "a2wsgi")

    try:
        assert run(answer(WSGIMiddleware(app, app_timeout=0.01), scope=http_scope())).status == 504
    finally:
        go.set()
    assert "It is at:\n  (unknown: this Python may crash" in caplog.records[0].getMessage()


# -- Two steps that are one under the GIL -----------------------------------------------------------------------------


#: The slots of two attributes, which the tests put a property over.
FAILURE: Any = vars(FailureMixin)["_failure"]
LATE_FAILURE: Any = vars(Pair)["late_failure"]


class Failed(Request):
    """A request that calls what a test has left in it when its failure was looked at next, once."""

    looked: Callable[[], object] | None = None
    failed: Callable[[], object] | None = None

    @property
    def _failure(self) -> BaseException | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        failure: BaseException | None = FAILURE.__get__(self)
        looked, self.looked = self.looked, None
        if looked is not None:
            looked()
        return failure

    @_failure.setter
    def _failure(self, failure: BaseException | None) -> None:
        FAILURE.__set__(self, failure)
        if failure is not None and self.failed is not None:
            self.failed()


def test_failure_is_not_lost_that_comes_as_it_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Defends `FailureMixin._log_failure`: ``is not None``.

    1. The app fails, and its request is not aborted. 2. The server cancels the request, and there is no failure yet.
    3. The worker thread keeps it. 4. What was looked at is written back.
    """
    fails, looked, failed = Signal("the app fails"), Signal("its failure is looked for"), Signal("it has failed")
    over = Signal("the worker thread is done")

    class Noticed(Failed):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.failed = failed.set

        def _log_failure(self) -> None:
            if not looked.is_set():
                self.looked = look
            super()._log_failure()

        def done(self) -> None:
            super().done()
            over.set()

    def look() -> None:
        looked.set()
        failed.wait()

    class Output(ToLoop):
        @property
        def aborted(self) -> bool:
            aborted = super().aborted
            fails.set()
            looked.wait()
            return aborted

    def app(_environ: Any, _start_response: Any) -> Iterable[bytes]:
        raise ValueError("of the app")

    async def story() -> None:
        request = asyncio.ensure_future(answer(WSGIMiddleware(app), scope=http_scope()))
        await fails.wait_in_task()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    monkeypatch.setattr(_request, "ToLoop", Output)
    monkeypatch.setattr(_bridge, "Request", Noticed)
    run(story())
    over.wait()
    assert [str(error) for error in errors_logged(caplog)] == ["of the app"]


def test_failure_that_two_threads_look_for_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Both the loop and the worker thread may clean up after a request.

    Defends `FailureMixin._log_failure`: ``locked()``.
    """
    came, lock, others = Signal("another thread looks, too"), HookedLock(), list[Running[None]]()

    def look() -> None:
        lock.before = request.looked = came.set  # whichever of the two comes first
        others.append(in_thread(request._log_failure))
        came.wait()

    request = Failed.__new__(Failed)
    request._disconnected = Disconnected()
    request._output = output = ToLoop(None, 1)  # type: ignore[arg-type]  # it is not waited on
    output._lock = lock  # type: ignore[assignment]  # a lock but for its type
    request._failure = ValueError("of the app")
    request.looked = look
    request._log_failure()
    others.pop().result()
    assert [str(error) for error in errors_logged(caplog)] == ["of the app"]


def test_late_failure_is_not_lost_that_comes_as_it_is_looked_for() -> None:
    """The same of what a bridge further in has told. Defends `Pair.take_failure`: ``is not None``."""

    class Late(Pair):
        written = False

        @property
        def late_failure(self) -> BaseException | None:  # pyright: ignore[reportIncompatibleVariableOverride]
            failure: BaseException | None = LATE_FAILURE.__get__(self)
            if not self.written:
                self.written = True
                LATE_FAILURE.__set__(self, error)  # by another thread
            return failure

        @late_failure.setter
        def late_failure(  # pyright: ignore[reportIncompatibleVariableOverride]
            self, failure: BaseException | None
        ) -> None:
            LATE_FAILURE.__set__(self, failure)

    error = ValueError("late")
    pair = Late(under_asgi_server=True)
    assert pair.take_failure(None) is None
    assert pair.take_failure(None) is error


def errors_logged(caplog: pytest.LogCaptureFixture) -> list[BaseException]:
    """What is logged as an error. Their tracebacks lead to the bridge, and the log is to keep none."""
    found = [record.exc_info[1] for record in caplog.records if record.levelno >= logging.ERROR and record.exc_info]
    caplog.clear()
    return [error.with_traceback(None) for error in found if error is not None]


@pytest.mark.parametrize("line", range(1, 6))
def test_exit_hooks_are_set_once_by_two_bridges_that_start_at_once(monkeypatch: pytest.MonkeyPatch, line: int) -> None:
    """Whoever comes right before any line of `set_exit_hooks`. Defends its ``pop()``."""
    registered: list[object] = []
    monkeypatch.setattr(exit_and_fork, "_exit_hooks_due", [None])
    monkeypatch.setattr(atexit, "register", registered.append)
    monkeypatch.setattr(threading, "_register_atexit", lambda _: None)
    lines = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code is not exit_and_fork.set_exit_hooks.__code__:
            return None
        lines += event == "line"
        if lines == line:
            sys.settrace(None)
            exit_and_fork.set_exit_hooks()  # as another thread does
        return trace

    was = sys.gettrace()
    sys.settrace(trace)
    try:
        exit_and_fork.set_exit_hooks()
    finally:
        sys.settrace(was)
    assert len(registered) == 1
