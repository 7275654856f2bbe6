"""What may come between two steps of the workers, put there: no job is lost, doubled, or waits for nobody.

Each test names the line of ``_workers`` that it fails without.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from a2wsgi import WSGIMiddleware
from a2wsgi._wsgi_on_asgi import bridge as _bridge
from a2wsgi._wsgi_on_asgi import loops as _loops
from a2wsgi._wsgi_on_asgi import request as _request
from a2wsgi._wsgi_on_asgi import workers as _workers
from a2wsgi._wsgi_on_asgi.jobs import Job, Overloaded
from a2wsgi._wsgi_on_asgi.request import Request
from a2wsgi._wsgi_on_asgi.streams import ToLoop
from a2wsgi._wsgi_on_asgi.workers import Workers, _Worker
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import hello
from support.asgi_driver import Client, answer, call, run
from support.lockstep import BOUND_SECONDS, Lockstep, Signal
from support.threads import LyingGate, in_thread

NO_THREAD = "can't start new thread"


class Task:
    """A job that counts its runs.

    Args:
        within: Called by `run`.
    """

    def __init__(self, within: Callable[[], object] = bool) -> None:
        self.within = within
        self.runs = 0
        self.thread: threading.Thread | None = None
        self.started = Signal("run() of a job")
        self.is_done = Signal("done() of a job")

    def run(self) -> None:
        self.runs += 1
        self.thread = threading.current_thread()
        self.started.set()
        self.within()

    def done(self) -> None:
        self.is_done.set()

    def lost(self) -> None:
        raise AssertionError("No worker has died")


class Visits:
    """What `Workers.next_job` is called with and gives, with a word of a test's before and after.

    Attributes:
        before: Called with the number of the call, from 1, before it does anything.
        after: Called with the number of the call, and what it gives, before it gives it.
    """

    def __init__(self) -> None:
        self.count = 0
        self.before: Callable[[int], object] = bool
        self.after: Callable[[int, Job | None], object] = lambda _number, _job: None


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> Visits:
    """The calls of `Workers.next_job`."""
    visits, original, lock = Visits(), Workers.next_job, threading.Lock()

    def next_job(self: Workers, worker: _Worker, done: Job | None) -> Job | None:
        with lock:
            visits.count += 1
            number = visits.count
        visits.before(number)
        job = original(self, worker, done)
        visits.after(number, job)
        return job

    monkeypatch.setattr(Workers, "next_job", next_job)
    return visits


@pytest.fixture
def make() -> Iterator[Callable[..., Workers]]:
    """Makes `Workers`, and retires them after the test."""
    made: list[Workers] = []

    def make_workers(limit: int, max_queue: int | None = None) -> Workers:
        made.append(Workers(limit, max_queue))
        return made[-1]

    yield make_workers
    for workers in made:
        workers.retire()


# -- Idle time against call-up ----------------------------------------------------------------------------------------


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> list[LyingGate]:
    """The gates of all workers, which do not lie yet."""
    gates: list[LyingGate] = []

    class Worker(_Worker):
        def __init__(self, workers: Workers, name: str) -> None:
            super().__init__(workers, name)
            gates.append(LyingGate())
            gates[-1].acquire()
            self.gate = gates[-1]  # type: ignore[assignment]  # a lock but for its type

    monkeypatch.setattr(_workers, "_Worker", Worker)
    return gates


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("lies", [1, 3])
def test_worker_that_is_called_as_its_time_is_up_comes(
    make: Callable[..., Workers], gates: list[LyingGate], visits: Visits, limit: int, lies: int
) -> None:
    """The time is up when somebody has called already. Defends `expire`: ``if worker not in self._idle``.

    1. A worker idles. 2. `submit` takes it off the stack and opens its gate. 3. The worker's wait says that the time
    was up. 4. It gives up, and must not: the job relies on it. It goes through its gate once, and idles again behind a
    closed one.
    """
    workers = make(limit)
    idles = [Signal("the worker idles"), Signal("the worker idles again")]
    visits.after = lambda number, _job: {2: idles[0].set, 4: idles[1].set}.get(number, bool)()
    first, second = Task(), Task()
    workers.submit(first)
    idles[0].wait()
    gates[0].lies = lies
    workers.submit(second)
    second.is_done.wait()
    idles[1].wait()
    assert gates[0].lies == (lies if limit == 1 and workers.idle_seconds == -1 else 0)
    assert first.thread is second.thread
    assert gates[0].locked()
    assert (workers.alive, workers.busy, visits.count) == (1, 0, 4)


def test_worker_whose_time_is_up_is_not_called(make: Callable[..., Workers], visits: Visits) -> None:
    """Somebody submits just after a worker gave up. Defends `expire`: ``self._idle.remove(worker)``.

    1. A worker idles, its time is up. 2. It gives up. 3. Before its thread has ended, `submit` needs a worker: that one
    cannot be it.
    """
    workers = make(2)
    workers.idle_seconds = 0.001
    given_up, submitted = Signal("the worker has given up"), Signal("the job is submitted")
    original = workers.expire

    def expire(worker: _Worker) -> bool:
        ends = original(worker)
        if ends and not given_up.is_set():
            given_up.set()
            submitted.wait()
        return ends

    workers.expire = expire  # type: ignore[method-assign]
    first, second = Task(), Task()
    workers.submit(first)
    given_up.wait()
    workers.submit(second)
    second.is_done.wait()
    assert second.thread is not first.thread
    submitted.set()


# -- retire against submit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2])
def test_job_is_run_though_its_worker_was_sent_home(make: Callable[..., Workers], visits: Visits, limit: int) -> None:
    """Submitted after a worker was told to end. Defends `next_job`: the queue is looked at before ``_retired`` is.

    1. A worker idles. 2. `retire` takes it off the stack. 3. Before it has come to look, a job is submitted. 4. It
    comes. With one worker allowed nobody else will run the job.
    """
    workers = make(limit)
    step, idle = Lockstep(), Signal("the worker idles")
    visits.after = lambda number, _job: idle.set() if number == 2 else None

    def before(number: int) -> None:
        if number == 3:
            with step(3):
                pass

    visits.before = before
    first, second = Task(), Task()
    workers.submit(first)
    idle.wait()
    with step(1):
        workers.retire()
    with step(2):
        workers.submit(second)
    second.is_done.wait()
    assert second.runs == 1


def test_submit_takes_back_a_retirement(make: Callable[..., Workers], visits: Visits) -> None:
    """The worker that was sent home stays. Defends `submit`: ``self._retired = False``.

    As above, and then it idles as if nobody had retired: with one worker allowed it is the same thread for all jobs.
    """
    workers = make(1)
    idles = [Signal("the worker idles"), Signal("the worker idles again")]
    submitted = Signal("the job is submitted")
    visits.after = lambda number, _job: {2: idles[0].set, 4: idles[1].set}.get(number, bool)()
    visits.before = lambda number: submitted.wait() if number == 3 else None
    jobs = [Task(), Task(), Task()]
    workers.submit(jobs[0])
    idles[0].wait()
    workers.retire()
    workers.submit(jobs[1])
    submitted.set()
    idles[1].wait()
    workers.submit(jobs[2])
    jobs[2].is_done.wait()
    assert len({job.thread for job in jobs}) == 1


def test_retired_worker_that_is_late_calls_for_no_job(make: Callable[..., Workers], visits: Visits) -> None:
    """Two are sent home, and come when two jobs are there: each takes one. Defends `_call_up`: its limit."""
    workers = make(2)
    idle, go = [Signal("a worker idles"), Signal("both idle")], Signal("the jobs are submitted")
    both = threading.Barrier(2)
    visits.after = lambda _number, job: None if job else (idle[0].set() if not idle[0].is_set() else idle[1].set())
    first = [Task(lambda: both.wait(BOUND_SECONDS)) for _ in range(2)]
    for job in first:
        workers.submit(job)
    idle[0].wait()
    idle[1].wait()
    visits.before = lambda number: go.wait() if number in {5, 6} else None
    workers.retire()
    second = [Task(lambda: both.wait(BOUND_SECONDS)) for _ in range(2)]
    for job in second:
        workers.submit(job)
    assert (workers.alive, workers.queued) == (2, 2)
    go.set()
    for job in second:
        job.is_done.wait()
    assert {job.thread for job in second} == {job.thread for job in first}


# -- The one that is called up ----------------------------------------------------------------------------------------


def test_called_worker_that_finds_nothing_lets_another_be_called(make: Callable[..., Workers], visits: Visits) -> None:
    """Its job was withdrawn meanwhile. Defends `next_job`: ``self._called_up = False``, job or not.

    1. `submit` starts a worker. 2. The job is withdrawn. 3. The worker comes, and idles. 4. The next job must call it.
    """
    workers = make(2)
    withdrawn, idle = Signal("the job is withdrawn"), Signal("the worker idles")
    visits.before = lambda number: withdrawn.wait() if number == 1 else None
    visits.after = lambda number, _job: idle.set() if number == 1 else None
    first, second = Task(), Task()
    workers.submit(first)
    assert workers.withdraw(first)
    withdrawn.set()
    idle.wait()
    workers.submit(second)
    second.is_done.wait()
    assert first.runs == 0


def test_called_worker_calls_the_next_when_others_are_idle(make: Callable[..., Workers], visits: Visits) -> None:
    """Jobs that wait and workers that idle come together. Defends `next_job`: ``_open_gates(others)``.

    1. Two workers idle. 2. Two jobs that need each other are submitted: the second calls nobody, one is on its way.
    3. That one sees the second job and has to open the other worker's gate.
    """
    workers = make(2)
    both = threading.Barrier(2)
    jobs = [Task(lambda: both.wait(BOUND_SECONDS)) for _ in range(4)]
    idle = [Signal("a worker idles"), Signal("both idle")]
    visits.after = lambda _number, job: None if job else (idle[0].set() if not idle[0].is_set() else idle[1].set())
    workers.submit(jobs[0])
    workers.submit(jobs[1])
    idle[0].wait()
    idle[1].wait()
    go = Signal("both jobs are there")
    visits.before = lambda number: go.wait() if number == 5 else None
    workers.submit(jobs[2])
    workers.submit(jobs[3])
    go.set()
    for job in jobs:
        job.is_done.wait()
    assert workers.alive == 2


def test_worker_counts_as_free_before_done_is_called(make: Callable[..., Workers]) -> None:
    """Who hears of `done` and submits finds room. Defends `next_job`: ``self._busy -= 1`` before ``done()``.

    1. A worker is through with the only job. 2. `done` tells another thread. 3. That one submits, while `done` has not
    returned yet.
    """
    workers = make(1, 0)
    second = Task()

    class First(Task):
        def done(self) -> None:
            in_thread(workers.submit, second).result()
            super().done()

    first = First()
    workers.submit(first)
    first.is_done.wait()
    second.is_done.wait()
    assert workers.shed == 0


def test_job_cannot_be_withdrawn_between_the_queue_and_its_worker(make: Callable[..., Workers], visits: Visits) -> None:
    """A job that a worker has taken and not begun is its. Defends `next_job`: it is taken off the queue there.

    1. The worker has taken the job. 2. Before it runs, somebody withdraws it: too late. 3. It runs.
    """
    workers = make(1)
    step = Lockstep()

    def after(number: int, _job: Job | None) -> None:
        if number == 1:
            with step(1):
                pass
            with step(3):
                pass

    visits.after = after
    job = Task()
    workers.submit(job)
    with step(2):
        assert not workers.withdraw(job)
    job.is_done.wait()
    assert job.runs == 1


def test_queue_that_a_withdrawal_empties_under_a_worker_is_empty(make: Callable[..., Workers], visits: Visits) -> None:
    """A withdrawal comes as a worker reaches for the job. Defends `next_job`: ``except IndexError``.

    1. A worker comes for a job. 2. It is withdrawn, without the lock, as the worker reaches for it. 3. The worker finds
    nothing, and idles; the next job has it.
    """
    withdrawn: list[bool] = []
    job, last = Task(), Task()

    class Jobs(deque[Job]):
        def popleft(self) -> Job:
            withdrawn.append(in_thread(workers.withdraw, job).result())
            return super().popleft()

    workers = make(1)
    workers._jobs = Jobs()
    idle = Signal("the worker idles")
    visits.after = lambda number, _job: idle.set() if number == 1 else None
    workers.submit(job)
    idle.wait()
    assert withdrawn == [True]
    assert (workers.alive, workers.busy, workers.queued) == (1, 0, 0)
    workers.submit(last)
    last.is_done.wait()
    assert (job.runs, last.runs) == (0, 1)


# -- No thread to be had ----------------------------------------------------------------------------------------------


class Starts:
    """What happens when a worker's thread is started: it fails, as often as is said, after a word of a test's.

    Attributes:
        failures: How many more are to fail.
        meanwhile: Called before one fails.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.meanwhile: Callable[[], object] = bool


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    """Has the system run out of threads when told to."""
    starts = Starts()

    class Worker(_Worker):
        def start(self) -> None:
            if starts.failures > 0:
                starts.failures -= 1
                starts.meanwhile()
                raise RuntimeError(NO_THREAD)
            super().start()

    monkeypatch.setattr(_workers, "_Worker", Worker)
    return starts


def test_submit_raises_when_there_is_no_thread_at_all(make: Callable[..., Workers], starts: Starts) -> None:
    """Nothing is queued, nothing is counted, and the next job is served. Defends `submit`: ``self._jobs.pop()``."""
    workers = make(1, 0)
    starts.failures = 2
    refused, job = Task(), Task()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=NO_THREAD):
            workers.submit(refused)
        assert (workers.alive, workers.busy, workers.queued) == (0, 0, 0)
    assert not workers.withdraw(refused)
    workers.submit(job)
    job.is_done.wait()
    assert refused.runs == 0


def test_job_waits_for_a_busy_worker_when_there_is_no_thread(make: Callable[..., Workers], starts: Starts) -> None:
    """Who is there comes to it. Defends `submit`: ``if not self._members``."""
    workers = make(2)
    go = Signal("the first job ends")
    first, second = Task(go.wait), Task()
    workers.submit(first)
    first.started.wait()
    starts.failures = 1
    workers.submit(second)
    assert (workers.alive, workers.queued) == (1, 1)
    go.set()
    second.is_done.wait()
    assert second.thread is first.thread


def test_later_job_is_served_when_a_thread_could_not_be_started(make: Callable[..., Workers], starts: Starts) -> None:
    """A failed start leaves nobody called up. Defends `_call_up`: ``_called_up`` is set after the start.

    1. A worker is busy. 2. The start of a second fails. 3. The next job starts one all the same, and both jobs run.
    """
    workers = make(3)
    go = Signal("the first job ends")
    first, second, third = Task(go.wait), Task(), Task()
    workers.submit(first)
    first.started.wait()
    starts.failures = 1
    workers.submit(second)
    workers.submit(third)
    third.is_done.wait()
    second.is_done.wait()
    assert not first.is_done.is_set()
    go.set()
    first.is_done.wait()


def test_worker_that_cannot_call_up_another_comes_to_the_jobs_itself(
    make: Callable[..., Workers], starts: Starts, visits: Visits
) -> None:
    """A start that fails in a worker fails nothing. Defends `next_job`: ``suppress(RuntimeError)``."""
    workers = make(2)
    go = Signal("both jobs are there")
    visits.before = lambda number: go.wait() if number == 1 else None
    first, second = Task(), Task()
    workers.submit(first)
    workers.submit(second)
    starts.failures = 1
    go.set()
    second.is_done.wait()
    assert (first.runs, second.runs) == (1, 1)
    assert first.thread is second.thread


def test_job_behind_one_that_is_written_off_is_run_at_once(make: Callable[..., Workers]) -> None:
    """Nobody else would come to it. Defends `write_off`: ``self._call_up()``.

    1. The only worker hangs, and a job waits. 2. The job that hangs is written off. 3. The one that waits has a worker.
    """
    workers = make(1)
    go = Signal("the first job ends")
    first, second = Task(go.wait), Task()
    workers.submit(first)
    first.started.wait()
    workers.submit(second)
    assert workers.write_off(first) is first.thread
    second.is_done.wait()
    assert (workers.overdue, first.is_done.is_set()) == (1, False)
    go.set()
    first.is_done.wait()


def test_job_is_written_off_though_no_thread_can_be_started(make: Callable[..., Workers], starts: Starts) -> None:
    """The next worker to be free comes to the job that waits. Defends `write_off`: ``suppress(RuntimeError)``."""
    workers = make(1)
    go = Signal("the first job ends")
    first, second = Task(go.wait), Task()
    workers.submit(first)
    first.started.wait()
    workers.submit(second)
    starts.failures = 1
    assert workers.write_off(first) is first.thread
    assert (workers.alive, workers.overdue, workers.queued) == (1, 1, 1)
    go.set()
    second.is_done.wait()
    assert second.thread is first.thread
    assert (workers.alive, workers.overdue) == (1, 0)


def test_job_that_is_done_or_waits_is_not_written_off(make: Callable[..., Workers]) -> None:
    """1. A job is found to be late. 2. It ends. 3. It is written off: no worker is excused for it."""
    workers = make(1)
    go = Signal("the second job ends")
    first, second, third = Task(), Task(go.wait), Task()
    workers.submit(first)
    first.is_done.wait()
    workers.submit(second)
    second.started.wait()
    workers.submit(third)
    assert workers.write_off(first) is None
    assert workers.write_off(third) is None
    assert (workers.alive, workers.overdue, workers.queued) == (1, 0, 1)
    go.set()
    third.is_done.wait()


def test_nobody_strands_behind_a_thread_that_could_not_be_started(make: Callable[..., Workers], starts: Starts) -> None:
    """What others do while a start fails. Defends `_call_up`: it starts the thread with the lock held.

    1. `submit` has a worker started. 2. Another thread submits a job, and has to wait. 3. The start fails, and the
    first job is refused. 4. The second job is served: it did not rely on the thread that was not to be.
    """
    workers = make(2)
    starts.failures = 1
    first, second = Task(), Task()
    others = []
    starts.meanwhile = lambda: others.append(in_thread(workers.submit, second))
    with pytest.raises(RuntimeError, match=NO_THREAD):
        workers.submit(first)
    others[0].result()
    second.is_done.wait()
    assert (first.runs, second.runs) == (0, 1)


def test_nobody_strands_when_a_worker_idles_as_a_start_fails(
    make: Callable[..., Workers], starts: Starts, visits: Visits
) -> None:
    """A worker that is through meanwhile is called. Defends the same line.

    1. A is busy; a job has B started. 2. A is through, takes that job, and idles. 3. Another job comes. 4. The start of
    B fails: the job of 3. has A.
    """
    workers = make(2)
    go, idle = Signal("the first job ends"), Signal("the first worker idles")
    first, second, third = Task(go.wait), Task(), Task()
    visits.after = lambda _number, job: None if job else idle.set()
    workers.submit(first)
    first.started.wait()
    starts.failures = 1

    def go_on() -> None:
        idle.wait()
        workers.submit(third)

    others = []

    def meanwhile() -> None:
        go.set()
        others.append(in_thread(go_on))

    starts.meanwhile = meanwhile
    workers.submit(second)
    others[0].result()
    third.is_done.wait()
    assert [job.runs for job in (first, second, third)] == [1, 1, 1]


def test_request_fails_when_there_is_no_thread_to_run_it(starts: Starts) -> None:
    """Nobody waits for a worker that will not be. Defends `_request_in`: ``self._submitted_at = 0.0``."""
    starts.failures = 1
    app = WSGIMiddleware(hello.app)
    assert call(app, fails=RuntimeError).messages == []
    assert call(app).body == b"hello"


# -- The garbage collector --------------------------------------------------------------------------------------------


class Collecting(list[Any]):
    """A list of which each append has the collector run, as any allocation may."""

    def append(self, item: object) -> None:
        gc.collect()
        super().append(item)
        gc.collect()


@pytest.mark.parametrize("workers", [1, 2])
def test_bridge_that_is_collected_within_its_workers_lock_ends_them(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector runs where it likes. Defends `retire`: ``acquire(blocking=False)``, and `expire`: ``_retired``.

    1. A bridge is dropped that is part of a cycle. 2. Its worker is through, and goes idle under the lock. 3. The
    collector finds the bridge there, and its finalizer retires the workers: on the thread that has the lock. 4. The
    worker ends all the same, when its idle time is over.
    """
    monkeypatch.setattr(_workers, "IDLE_SECONDS", 0.001)
    bridge = WSGIMiddleware(hello.app, workers)
    bridge.app = _App(bridge)
    pool = bridge._shared.workers
    pool._idle = Collecting()
    job = Task()
    gc.disable()
    try:
        del bridge
        pool.submit(job)
        job.is_done.wait()
    finally:
        gc.enable()
    assert job.thread is not None
    job.thread.join(BOUND_SECONDS)
    assert not job.thread.is_alive()
    assert pool.alive == 0


def test_request_that_is_collected_within_its_workers_lock_ends() -> None:
    """A request without a loop ends wherever the collector finds it. Defends `withdraw`, or its call in `_end`.

    1. A request waits in ``send()``, and its worker is through. 2. Its loop is closed and dropped. 3. The bridge
    answers on another loop. 4. As its worker goes idle under the lock, the collector finds the request, whose coroutine
    then ends as any that nobody awaits: on the thread that has the lock.
    """
    bridge = WSGIMiddleware(hello.app, 2)
    pool = bridge._shared.workers
    log, level = logging.getLogger("asyncio"), logging.CRITICAL  # it says that a pending task was destroyed: so it was
    before, log.level = log.level, level
    gc.disable()
    try:
        lost = _lose_a_request(bridge)
        pool._idle = Collecting(pool._idle)
        for _ in range(100):  # the request's worker, which is through, may hold it for a moment yet
            assert in_thread(call, bridge).result().body == b"hello"
            if lost() is None:
                break
        assert lost() is None
        assert in_thread(pool.withdraw, Task()).result() is False
    finally:
        gc.enable()
        log.setLevel(before)


def _lose_a_request(bridge: WSGIMiddleware) -> weakref.ref[object]:
    """Leave a request in ``send()`` on a loop that is closed; give what tells whether it is still there."""
    loop = asyncio.new_event_loop()
    stuck = loop.create_future()
    sending = loop.create_future()

    async def on_send(_number: int, _message: object) -> None:
        sending.set_result(None)
        await stuck

    task = loop.create_task(answer(bridge, Client(on_send=on_send)))
    loop.run_until_complete(sending)
    while bridge.statistics().busy:
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    return weakref.ref(task)


@pytest.mark.parametrize("limit", [1, 2])
def test_worker_that_goes_idle_as_the_others_are_retired_ends(make: Callable[..., Workers], limit: int) -> None:
    """The retirement finds the lock taken. Defends `run`: it looks at ``retired`` before it waits.

    1. A worker is through, and has seen that nobody retires. 2. Before it is on the stack, `retire` comes, and cannot
    have the lock. 3. The worker is on the stack: it must not wait there for its idle time to be over.
    """
    workers = make(limit)
    workers.idle_seconds = 3600

    class Idle(list[Any]):
        def append(self, worker: object) -> None:
            in_thread(workers.retire).result()
            super().append(worker)

    workers._idle = Idle()
    job = Task()
    workers.submit(job)
    job.is_done.wait()
    assert job.thread is not None
    job.thread.join(BOUND_SECONDS)
    assert not job.thread.is_alive()
    assert workers.alive == 0


@pytest.mark.parametrize("meets", ["an idle worker", "a busy worker"])
def test_workers_that_are_parked_as_a_retirement_finds_the_lock_taken_end(
    make: Callable[..., Workers], visits: Visits, meets: str
) -> None:
    """Nobody opens their gates then. Defends `next_job` and `expire`: who ends on retirement sees the others off.

    1. One worker is parked; another comes for a job, or goes idle, and has the lock. 2. `retire` cannot have it. 3. The
    worker sees ``retired``, at once or when its job is over, and ends: the one that is parked must end too.
    """
    workers = make(2)
    workers.idle_seconds = 3600
    both, idle = threading.Barrier(2), Signal("one worker idles")
    go = Signal("the second worker's job ends")

    def work() -> None:
        both.wait(BOUND_SECONDS)
        go.wait()

    jobs = [Task(lambda: both.wait(BOUND_SECONDS)), Task(work)]
    visits.after = lambda _number, job: None if job else idle.set()
    for job in jobs:
        workers.submit(job)
    idle.wait()

    class Idle(list[Any]):
        def append(self, worker: object) -> None:
            in_thread(workers.retire).result()
            super().append(worker)

    class Jobs(deque[Job]):
        def popleft(self) -> Job:
            if self:
                in_thread(workers.retire).result()
            return super().popleft()

    if meets == "an idle worker":
        workers._idle = Idle(workers._idle)
    else:
        workers._jobs = Jobs()
        jobs.append(Task())
        with workers._lock:  # submitted as by one who calls nobody: the worker that is busy comes to it
            workers._jobs.append(jobs[-1])
    go.set()
    for job in jobs[:2]:
        job.is_done.wait()
        assert job.thread is not None
        job.thread.join(BOUND_SECONDS)
        assert not job.thread.is_alive()
    assert workers.alive == 0


class _App:
    def __init__(self, bridge: WSGIMiddleware) -> None:
        self.bridge = bridge

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        return hello.app(environ, start_response)


# -- fork -------------------------------------------------------------------------------------------------------------

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")


def in_fork(function: Callable[[], object]) -> int:
    """Run ``function`` in a forked child; give the child's status: 0 if it returned, 1 if it raised, -14 if it hung."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks: this is what we test
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(BOUND_SECONDS))
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@needs_fork
@pytest.mark.parametrize("limit", [1, 2])
def test_child_of_a_fork_has_workers_of_its_own(make: Callable[..., Workers], visits: Visits, limit: int) -> None:
    """It has no workers, no jobs, and may submit. Defends ``register_at_fork``, and each line of `reset`.

    1. The parent has workers: idle, busy, or one that is on its way, and jobs in the queue. 2. It forks. 3. The child
    submits: it can rely on none of these threads. 4. The parent goes on as if nothing had been.
    """
    workers = make(limit, 1)
    go = Signal("the first job ends")
    busy = [Task(go.wait) for _ in range(limit)]
    for job in busy:
        workers.submit(job)
        job.started.wait()
    queued = Task()
    workers.submit(queued)
    with pytest.raises(Overloaded):
        workers.submit(Task())
    workers.retire()

    def child() -> None:
        numbers = workers.alive, workers.busy, workers.queued, workers.shed
        assert numbers == (0, 0, 0, 0)
        assert not workers.withdraw(queued)
        jobs = [Task(), Task()]
        for job in jobs:
            workers.submit(job)
            job.is_done.wait()
        assert workers.alive == 1

    assert in_fork(child) == 0
    assert (workers.alive, workers.busy, workers.queued, workers.shed) == (limit, limit, 1, 1)
    go.set()
    queued.is_done.wait()
    assert queued.runs == 1


@needs_fork
def test_child_of_a_fork_does_not_wait_for_an_idle_worker(make: Callable[..., Workers], visits: Visits) -> None:
    """The parent's idle worker is not in the child. Defends `reset`: ``self._idle = []``."""
    workers = make(2)
    idle = Signal("the worker idles")
    visits.after = lambda number, _job: idle.set() if number == 2 else None
    workers.submit(Task())
    idle.wait()

    def child() -> None:
        job = Task()
        workers.submit(job)
        job.is_done.wait()

    assert in_fork(child) == 0


@needs_fork
def test_child_of_a_fork_does_not_wait_for_one_that_was_called(make: Callable[..., Workers], visits: Visits) -> None:
    """A worker that is on its way in the parent comes there only. Defends `reset`: ``self._called_up = False``."""
    workers = make(2)
    go = Signal("the child has ended")
    visits.before = lambda number: go.wait() if number == 1 else None
    first = Task()
    workers.submit(first)

    def child() -> None:
        visits.before = bool
        job = Task()
        workers.submit(job)
        job.is_done.wait()

    assert in_fork(child) == 0
    go.set()
    first.is_done.wait()


@needs_fork
def test_child_of_a_fork_does_not_wait_for_a_lock_of_the_parent(make: Callable[..., Workers]) -> None:
    """The fork comes while another thread has the lock. Defends `reset`: ``self._lock = threading.Lock()``."""
    workers = make(2)
    step = Lockstep()

    def hold() -> None:
        with workers._lock:
            with step(1):
                pass
            with step(3):
                pass

    def child() -> None:
        job = Task()
        workers.submit(job)
        job.is_done.wait()

    holder = in_thread(hold)
    with step(2):
        status = in_fork(child)
    assert status == 0
    holder.result()


@needs_fork
def test_bridge_answers_in_a_child_of_a_fork_too() -> None:
    """A bridge that has served, and serves, is forked: the child's requests are answered, and then the parent's."""
    app = WSGIMiddleware(hello.app, workers=1)
    assert call(app).body == b"hello"

    def child() -> None:
        assert call(app).body == b"hello"
        assert app.statistics().in_flight == 0

    assert in_fork(child) == 0
    assert call(app).body == b"hello"


def test_client_that_left_while_its_request_was_queued_never_meets_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queued request ends with its client, and its worker's place is not missed. Defends `_end`: ``withdraw``."""
    monkeypatch.setattr(_loops, "TICK_SECONDS", 0.001)
    go, called, calls = Signal("the first request ends"), Signal("the first request has its worker"), []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        calls.append(environ["PATH_INFO"])
        called.set()
        go.wait()
        return hello.app(environ, start_response)

    bridge = WSGIMiddleware(app, workers=1)

    async def story() -> None:
        first = asyncio.ensure_future(answer(bridge))
        await called.wait_in_task()
        client = Client()
        second = asyncio.ensure_future(answer(bridge, client))
        await client.hungry.wait_in_task()
        assert bridge.statistics().queued == 1
        client.leave()
        assert (await second).messages == []
        go.set()
        assert (await first).body == b"hello"

    run(story())
    assert calls == ["/"]


@needs_fork
def test_worker_that_forks_is_no_worker_of_the_child(make: Callable[..., Workers]) -> None:
    """Its job ends twice, here and in the child, which counts no such job. Defends `_run_jobs`: ``_members``."""
    workers = make(2)

    class Forks(Task):
        child = -1

        def run(self) -> None:
            super().run()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks
                self.child = os.fork()
            if self.child == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(int(BOUND_SECONDS))

        def done(self) -> None:
            if self.child == 0:
                os._exit(0 if (workers.alive, workers.busy) == (0, 0) else 1)
            super().done()

    job = Forks()
    workers.submit(job)
    job.is_done.wait()
    assert os.waitstatus_to_exitcode(os.waitpid(job.child, 0)[1]) == 0
    assert (workers.alive, workers.busy) == (1, 0)


def test_failure_at_the_moment_of_a_cancellation_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Defends `AppTimeoutMixin._abandon_worker`: ``self._log_failure()``.

    1. The app fails, and its request is not aborted. 2. The server cancels the request, and finds no failure to log.
    3. The worker thread keeps the failure, and is done; nobody has left it yet. 4. It is left.
    """
    step = Lockstep()

    def app(_environ: Environ, _start_response: StartResponse) -> Iterable[bytes]:
        raise ValueError("of the app")

    class Output(ToLoop):
        @property
        def aborted(self) -> bool:
            with step(1):
                aborted = super().aborted
            with step(3):
                return aborted

    class Late(Request):
        def done(self) -> None:
            super().done()
            with step(4):
                pass

    class Loop(_loops.BridgeLoop):
        def leave(self, request: _loops.InFlight) -> None:
            with step(2):
                super().leave(request)
            with step(5):
                pass

    monkeypatch.setattr(_request, "ToLoop", Output)
    monkeypatch.setattr(_loops, "BridgeLoop", Loop)
    monkeypatch.setattr(_bridge, "Request", Late)

    async def story() -> None:
        request = asyncio.ensure_future(answer(WSGIMiddleware(app)))
        await step.passed(1).wait_in_task()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    run(story())
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "The WSGI app failed, and meanwhile the server ended its request"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "of the app"
    caplog.clear()  # the traceback of a record leads to the bridge
