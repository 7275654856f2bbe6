"""Exceptions that are raised into worker threads, at every point where Python lets one in: the pool goes on.

``stopit``, ``func_timeout`` and dramatiq's time limit do so by ``PyThreadState_SetAsyncExc``, and may be a moment late.
"""

from __future__ import annotations

import contextlib
import dis
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from threading import Thread
from types import FrameType, ModuleType
from typing import Any

import pytest

from a2wsgi import AppError, WSGIMiddleware
from a2wsgi._threads import starting as _starting
from a2wsgi._threads import stream as _handoff
from a2wsgi._wsgi_on_asgi import loops as _loops
from a2wsgi._wsgi_on_asgi import request as _request
from a2wsgi._wsgi_on_asgi import response as _response
from a2wsgi._wsgi_on_asgi import streams as _streams
from a2wsgi._wsgi_on_asgi import workers as _workers
from a2wsgi._wsgi_on_asgi.jobs import Job
from a2wsgi._wsgi_on_asgi.streams import ToLoop
from a2wsgi._wsgi_on_asgi.workers import Workers, _Worker
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import hello
from apps.counting import Counting
from support.asgi_driver import answer, call, run
from support.lockstep import BOUND_SECONDS, Signal


class Late(BaseException):
    """What a library raises into a thread."""


class Task:
    """A job that notes how it ended."""

    def __init__(self, within: Callable[[], object] = bool) -> None:
        self.within = within
        self.runs = 0
        self.over = Signal("done() or lost() of a job")
        self.losses = 0

    def run(self) -> None:
        self.runs += 1
        self.within()

    def done(self) -> None:
        self.over.set()

    def lost(self) -> None:
        self.losses += 1
        self.over.set()


class Death:
    """Raises `Late` in a worker thread, at the point ``at`` of those where the interpreter looks for such exceptions.

    These are the start of a function, the end of a call, and a jump backward.

    Args:
        at: Which of them, from 1, counting on all threads that are started meanwhile.
        modules: Those in which they are counted.
    """

    def __init__(self, at: int, *modules: ModuleType) -> None:
        self.left = at
        self._files = {module.__file__ for module in modules}
        self.happened = False
        self._lock = threading.Lock()

    def trace(self, frame: FrameType, event: str, _: object) -> Callable[[FrameType, str, object], Any] | None:
        if frame.f_code.co_filename not in self._files or frame.f_code.co_name in {"clean_up_after", "_replace_dead"}:
            return None
        frame.f_trace_opcodes = True
        last = [-1]

        def each(frame: FrameType, event: str, _: object) -> Any:
            if event == "opcode":
                before, last[0] = last[0], frame.f_lasti
                if before == -1 or _lets_in(dis.opname[frame.f_code.co_code[before]]):
                    self._pass()
            return each

        return each

    def _pass(self) -> None:
        with self._lock:
            self.left -= 1
            dies = self.left == 0
            self.happened = self.happened or dies
        if dies:
            raise Late

    def disarm(self) -> None:
        """Let it happen no more."""
        with self._lock:
            self.left = 0


def _lets_in(opcode: str) -> bool:
    """Whether an exception from another thread may be raised right after this instruction."""
    return opcode.startswith(("CALL", "RESUME")) or opcode in {"JUMP_BACKWARD", "JUMP_ABSOLUTE"}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody print that a thread died, and dead threads be looked for at each tick."""
    monkeypatch.setattr(threading, "excepthook", bool)
    monkeypatch.setattr(_workers, "LOOK_SECONDS", 0.0)


@pytest.fixture
def traced() -> Iterator[Callable[[Death | None], None]]:
    """Trace the threads that are started from now on, or leave that to whoever traces them else (coverage does)."""
    before = threading.gettrace()

    def trace(death: Death | None) -> None:
        threading.settrace(before if death is None else death.trace)

    yield trace
    trace(None)


def see_over(workers: Workers, jobs: Iterable[Task]) -> None:
    """Wait until jobs are over, looking after the workers as the timer of a bridge does."""
    for job in jobs:
        for _ in range(int(BOUND_SECONDS / 0.01)):
            workers.look_after(0.0)
            try:
                job.over.wait(0.01)
            except AssertionError:
                continue
            break
        job.over.wait(0)


traces_opcodes = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="since 3.12 opcodes are traced in another way: too few of them, or a crash"
)
#: A thread may still be on its way to its death when the test is over, and its hook is the real one again.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@traces_opcodes
@pytest.mark.parametrize(("limit", "idle_seconds"), [(1, 10), (2, 10), (3, 0.0)])
def test_worker_may_die_at_any_point(
    traced: Callable[[Death | None], None], monkeypatch: pytest.MonkeyPatch, limit: int, idle_seconds: float
) -> None:
    """Wherever it happens: each job is run or lost, the next ones are run, and the counts are right.

    No job is run twice, and at most two are lost: the one in hand and the next.
    """
    monkeypatch.setattr(_workers, "IDLE_SECONDS", idle_seconds)
    at = 0
    while True:
        at += 1
        death = Death(at, _workers)
        workers = Workers(limit, max_queue=10)
        traced(death)
        jobs = [Task() for _ in range(4)]
        for job in jobs:
            workers.submit(job)
        see_over(workers, jobs)
        more = [Task() for _ in range(3)]
        for job in more:
            workers.submit(job)
        see_over(workers, more)
        traced(None)
        death.disarm()
        assert all(job.runs <= 1 for job in [*jobs, *more])
        assert sum(job.runs == 0 for job in [*jobs, *more]) <= int(death.happened)
        assert sum(job.losses for job in [*jobs, *more]) <= 2
        after = [Task() for _ in range(2 * limit)]
        for job in after:
            workers.submit(job)
        see_over(workers, after)
        assert [(job.runs, job.losses) for job in after] == [(1, 0)] * len(after)
        together = threading.Barrier(limit)
        all_at_once = [Task(lambda: together.wait(BOUND_SECONDS)) for _ in range(limit)]  # noqa: B023 - run within
        for job in all_at_once:
            workers.submit(job)
        see_over(workers, all_at_once)
        assert not together.broken
        settle(workers)
        workers.retire()
        if not death.happened:
            break
    assert at > 30  # there are at least as many points: else nothing was traced


def settle(workers: Workers) -> None:
    """See that the counts come to be right: nobody is busy, nothing waits, and each that counts is there."""
    for _ in range(int(BOUND_SECONDS / 0.01)):
        workers.look_after(0.0)
        if (workers.busy, workers.queued) == (0, 0) and all(worker.is_alive() for worker in workers._members):
            break
        threading.Event().wait(0.01)
    assert (workers.busy, workers.queued, workers._called_up) == (0, 0, False)
    assert workers.alive <= workers.limit


# -- A request whose worker dies --------------------------------------------------------------------------------------


@pytest.fixture
def quick_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the timer tick every 5 ms."""
    monkeypatch.setattr(_loops, "TICK_SECONDS", 0.005)


def test_request_whose_worker_dies_before_the_app_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server gets an `AppError` that says why; the next request has another worker."""
    original, deaths = _workers._Worker._run_jobs, [Late()]

    def run_jobs(worker: _Worker) -> None:
        if deaths:
            job = worker._workers.next_job(worker, None)
            assert job is not None
            raise deaths.pop()
        original(worker)

    monkeypatch.setattr(_workers._Worker, "_run_jobs", run_jobs)
    bridge = WSGIMiddleware(hello.app, workers=1)

    async def main() -> None:
        response = await answer(bridge, fails=AppError)
        assert "that another thread raised in it" in str(response.raised)
        assert response.messages == []
        assert (await answer(bridge)).body == b"hello"

    run(main())


def test_response_that_is_made_is_sent_though_its_worker_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception comes when the app has ended: nothing of the response is lost."""
    original, deaths = Workers.next_job, [Late()]

    def next_job(workers: Workers, worker: _Worker, done: Job | None) -> Job | None:
        if done is not None and deaths:
            raise deaths.pop()
        return original(workers, worker, done)

    monkeypatch.setattr(Workers, "next_job", next_job)
    bridge = WSGIMiddleware(hello.app, workers=1)

    async def main() -> None:
        for _ in range(2):
            response = await answer(bridge)
            assert (response.body, response.complete) == (b"hello", True)

    run(main())
    assert not deaths
    assert bridge.statistics().busy == 0


@pytest.mark.usefixtures("quick_timer")
def test_worker_that_dies_before_its_first_step_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody was told: the timer finds out, and has another worker come."""
    original, deaths = _Worker.run, [Late()]

    def run_worker(worker: _Worker) -> None:
        if deaths:
            raise deaths.pop()
        original(worker)

    monkeypatch.setattr(_Worker, "run", run_worker)
    assert call(WSGIMiddleware(hello.app, workers=1)).body == b"hello"
    assert not deaths


@pytest.mark.usefixtures("quick_timer")
def test_worker_that_dies_as_it_starts_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it for ever, and the timer has another worker come. See `a2wsgi._threads.starting`."""
    original, deaths, dead = Thread._bootstrap, [Late()], list[Thread]()  # type: ignore[attr-defined]

    def bootstrap(thread: Thread) -> None:
        if deaths:
            dead.append(thread)
            raise deaths.pop()
        original(thread)

    monkeypatch.setattr(_Worker, "_bootstrap", bootstrap, raising=False)
    monkeypatch.setattr(_starting, "START_SECONDS", 0.01)
    monkeypatch.setattr(sys, "unraisablehook", bool)  # Python prints that a thread died
    bridge = WSGIMiddleware(hello.app, workers=1)
    assert call(bridge).body == b"hello"
    assert not deaths
    assert bridge.statistics().busy == 0
    threading._limbo.pop(dead.pop())  # type: ignore[attr-defined]  # Python keeps it there


@pytest.mark.usefixtures("quick_timer")
def test_iterable_is_closed_though_an_exception_comes_as_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEP 3333 has close() called whatever happens. Defends `_run_app`: its ``finally``."""
    original, deaths = ToLoop.finish, [Late()]

    def finish(output: ToLoop, chunks: list[bytes] | None = None, *, done: bool = False) -> None:
        original(output, chunks, done=done)
        if deaths:
            raise deaths.pop()

    monkeypatch.setattr(ToLoop, "finish", finish)
    app = Counting([b"x"])
    bridge = WSGIMiddleware(app, workers=1)
    with contextlib.suppress(AppError):
        call(bridge)
    app.closed.wait()
    assert app.closes == 1
    assert bridge.statistics().busy == 0


@traces_opcodes
@pytest.mark.usefixtures("quick_timer")
def test_request_whose_worker_is_interrupted_at_any_point_ends(traced: Callable[[Death | None], None]) -> None:
    """Wherever it happens, the request is answered or fails, its worker is free again, and the next one is answered."""
    at = 0
    while True:
        at += 1
        death = Death(at, _request, _response, _handoff, _streams, _workers)
        app = Counting([b"he", b"l", b"lo"])
        bridge = WSGIMiddleware(app, workers=1, response_buffer_bytes=0)
        traced(death)
        run(_interrupted(bridge))
        traced(None)
        death.disarm()
        assert app.closes <= 1
        bridge.app = hello.app
        assert call(bridge).body == b"hello"
        settle(bridge._shared.workers)
        if not death.happened:
            break
    assert app.closes == 1
    assert at > 50


async def _interrupted(bridge: WSGIMiddleware) -> None:
    try:
        response = await answer(bridge)
    except AppError:
        return
    assert response.body == b"hello"
    assert response.complete


@traces_opcodes
@pytest.mark.usefixtures("quick_timer")
def test_app_that_writes_on_after_an_exception_is_heard(traced: Callable[[Death | None], None]) -> None:
    """A chunk at which another thread raised one is queued and told of, or is not: the next one finds room."""
    at = 0
    while True:
        at += 1
        death = Death(at, _streams)
        bridge = WSGIMiddleware(_writing_on, workers=1, response_buffer_bytes=0)
        traced(death)
        run(_answered_or_failed(bridge))
        traced(None)
        death.disarm()
        settle(bridge._shared.workers)
        if not death.happened:
            break
    assert at > 20


def _writing_on(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("200 OK", [])
    for chunk in (b"h", b"e", b"l", b"l", b"o"):
        with contextlib.suppress(Late):
            write(chunk)
    return []


async def _answered_or_failed(bridge: WSGIMiddleware) -> None:
    with contextlib.suppress(AppError):  # it came outside of write()
        assert (await answer(bridge)).complete
