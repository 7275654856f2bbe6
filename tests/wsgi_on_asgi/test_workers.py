"""The worker threads of a bridge run each job once, on as many threads as it takes and no more."""

from __future__ import annotations

import contextvars
import functools
import gc
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from a2wsgi._threads import starting
from a2wsgi._wsgi_on_asgi.jobs import Job, Overloaded
from a2wsgi._wsgi_on_asgi.workers import Workers, _Worker
from support.lockstep import BOUND_SECONDS, Signal
from support.threads import threads_inherit_context


class Task:
    """A job that notes where it ran.

    Args:
        within: Called by `run`.
        at_end: Called by `done`.
    """

    def __init__(self, within: Callable[[], object] = bool, at_end: Callable[[], object] = bool) -> None:
        self.within = within
        self.at_end = at_end
        self.calls: list[str] = []
        self.thread: threading.Thread | None = None
        self.started = Signal("run() of a job")
        self.is_done = Signal("done() of a job")

    def run(self) -> None:
        self.calls.append("run")
        self.thread = threading.current_thread()
        self.started.set()
        self.within()

    def done(self) -> None:
        self.calls.append("done")
        self.at_end()
        self.is_done.set()

    def lost(self) -> None:
        raise AssertionError("No worker has died")


class Held(Task):
    """A job that runs until it is let go."""

    def __init__(self, at_end: Callable[[], object] = bool) -> None:
        self.go = Signal("a job is let go")
        super().__init__(self.go.wait, at_end)


@pytest.fixture
def make() -> Iterator[Callable[..., Workers]]:
    """Makes `Workers`, and retires them after the test."""
    made: list[Workers] = []

    def make_workers(limit: int = 40, max_queue: int | None = None) -> Workers:
        made.append(Workers(limit, max_queue))
        return made[-1]

    yield make_workers
    for workers in made:
        workers.retire()


def submit(workers: Workers, *jobs: Task) -> None:
    """Have each of the jobs run."""
    for job in jobs:
        workers.submit(job)


def occupy(workers: Workers, count: int) -> list[Held]:
    """Have ``count`` workers run a job each that does not end by itself."""
    jobs = [Held() for _ in range(count)]
    submit(workers, *jobs)
    for job in jobs:
        job.started.wait()
    return jobs


def let_go(*jobs: Held) -> None:
    """Have jobs end, and wait until they are done."""
    for job in jobs:
        job.go.set()
    for job in jobs:
        job.is_done.wait()


@pytest.fixture
def idles(monkeypatch: pytest.MonkeyPatch) -> deque[Signal]:
    """Signals that are set, one after the other, each time that a worker is about to wait for a job."""
    signals: deque[Signal] = deque()
    original = Workers.next_job

    def next_job(self: Workers, worker: _Worker, done: Job | None) -> Job | None:
        job = original(self, worker, done)
        if job is None and signals:
            signals.popleft().set()
        return job

    monkeypatch.setattr(Workers, "next_job", next_job)
    return signals


def next_idle(idles: deque[Signal]) -> Signal:
    """Set when a worker idles next."""
    signal = Signal("a worker idles")
    idles.append(signal)
    return signal


# -- A job ------------------------------------------------------------------------------------------------------------


def test_job_runs_once_and_is_then_done(make: Callable[..., Workers]) -> None:
    """`run` and `done` are called once each, in this order, on one worker thread."""
    workers = make()
    job = Task()
    workers.submit(job)
    job.is_done.wait()
    assert job.calls == ["run", "done"]
    assert job.thread is not None
    assert job.thread.name == "a2wsgi-worker-1"
    assert job.thread.daemon


def test_jobs_run_in_the_order_of_submission(make: Callable[..., Workers]) -> None:
    """Who waits longest is served first."""
    workers = make(1)
    (held,) = occupy(workers, 1)
    order: list[int] = []
    jobs = [Task(functools.partial(order.append, number)) for number in range(20)]
    submit(workers, *jobs)
    assert workers.queued == 20
    let_go(held)
    jobs[-1].is_done.wait()
    assert order == list(range(20))


def test_job_is_kept_by_no_idle_worker(make: Callable[..., Workers], idles: deque[Signal]) -> None:
    """A request is not kept in memory by the thread that ran it."""
    workers = make(1)
    idle = next_idle(idles)
    job = Task()
    workers.submit(job)
    idle.wait()
    occupied = Held()  # the worker is known to be elsewhere than in next_job()
    workers.submit(occupied)
    occupied.started.wait()
    gone = weakref.ref(job)
    del job
    gc.collect()
    assert gone() is None
    let_go(occupied)


def test_numbers_tell_what_goes_on(make: Callable[..., Workers]) -> None:
    """`alive`, `busy` and `queued` are those of the moment."""
    workers = make(2)

    def numbers() -> tuple[int, int, int]:
        return workers.alive, workers.busy, workers.queued

    assert numbers() == (0, 0, 0)
    jobs = occupy(workers, 2)
    assert numbers() == (2, 2, 0)
    waiting = [Held(), Held()]
    submit(workers, *waiting)
    assert numbers() == (2, 2, 2)
    let_go(jobs[0])
    waiting[0].started.wait()
    assert numbers() == (2, 2, 1)
    let_go(jobs[1], *waiting)
    assert numbers() == (2, 0, 0)


# -- How many workers -------------------------------------------------------------------------------------------------


def test_submit_calls_up_one_worker_at_a_time(make: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the one that was called has looked at the queue, fifty jobs are one thread."""
    all_there = Signal("all jobs are submitted")
    original = Workers.next_job

    def next_job(self: Workers, worker: _Worker, done: Job | None) -> Job | None:
        all_there.wait()
        return original(self, worker, done)

    monkeypatch.setattr(Workers, "next_job", next_job)
    workers = make()
    jobs = [Task() for _ in range(50)]
    submit(workers, *jobs)
    assert (workers.alive, workers.busy, workers.queued) == (1, 0, 50)
    all_there.set()
    for job in jobs:
        job.is_done.wait()
        assert job.calls == ["run", "done"]


def test_called_worker_calls_up_the_next_before_it_runs_its_job(make: Callable[..., Workers]) -> None:
    """Forty jobs of which none ends before all have begun are run by forty workers."""
    workers = make(40)
    together = threading.Barrier(40)
    jobs = [Task(lambda: together.wait(BOUND_SECONDS)) for _ in range(40)]
    submit(workers, *jobs)
    for job in jobs:
        job.is_done.wait()
    assert not together.broken
    assert len({job.thread for job in jobs}) == workers.alive == 40


def test_workers_are_never_more_than_the_limit(make: Callable[..., Workers]) -> None:
    """The job after the last worker waits for one to be through, and is run by it."""
    workers = make(3)
    jobs = occupy(workers, 3)
    waiting = Held()
    workers.submit(waiting)
    assert (workers.alive, workers.queued) == (3, 1)
    let_go(jobs[1])
    waiting.started.wait()
    assert waiting.thread is jobs[1].thread
    let_go(jobs[0], jobs[2], waiting)


def test_quick_jobs_are_run_by_one_worker_in_a_row(
    make: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of fifty that come in at once a worker runs one after the other while the next is still on its way."""
    there, over, original = Signal("all jobs are submitted"), Signal("all jobs have run"), Workers.next_job

    def next_job(self: Workers, worker: _Worker, done: Job | None) -> Job | None:
        (there if worker.name == "a2wsgi-worker-1" else over).wait()
        return original(self, worker, done)

    monkeypatch.setattr(Workers, "next_job", next_job)
    workers = make()
    jobs = [Task() for _ in range(50)]
    submit(workers, *jobs)
    there.set()
    for job in jobs:
        job.is_done.wait()
    assert workers.alive == 2
    assert len({job.thread for job in jobs}) == 1
    over.set()


def test_the_worker_that_idled_last_is_called_first(make: Callable[..., Workers], idles: deque[Signal]) -> None:
    """So those that are not needed come to the end of their idleness."""
    workers = make(3)
    jobs = occupy(workers, 3)
    for job in jobs:
        idle = next_idle(idles)
        job.go.set()
        idle.wait()
    for _ in range(3):
        idle = next_idle(idles)
        again = Task()
        workers.submit(again)
        idle.wait()
        assert again.thread is jobs[-1].thread


@pytest.mark.parametrize("limit", [1, 2])
def test_idle_worker_is_called_and_none_is_started(
    make: Callable[..., Workers], idles: deque[Signal], limit: int
) -> None:
    """Jobs that come one after the other are all run by one thread."""
    workers = make(limit)
    threads = set()
    for _ in range(50):
        idle = next_idle(idles)
        job = Task()
        workers.submit(job)
        idle.wait()
        threads.add(job.thread)
    assert len(threads) == workers.alive == 1


# -- max_queue --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize("max_queue", [0, 1, 4])
def test_max_queue_is_exact(make: Callable[..., Workers], limit: int, max_queue: int) -> None:
    """As many jobs wait as may, and not one more; one that was refused is never run."""
    workers = make(limit, max_queue)
    jobs = occupy(workers, limit)
    waiting = [Held() for _ in range(max_queue)]
    submit(workers, *waiting)
    refused = Task()
    for shed in range(3):
        assert workers.shed == shed
        with pytest.raises(Overloaded):
            workers.submit(refused)
    assert (workers.queued, workers.shed) == (max_queue, 3)
    let_go(jobs[0])
    jobs.append(Held())
    workers.submit(jobs[-1])
    with pytest.raises(Overloaded):
        workers.submit(refused)
    let_go(*jobs, *waiting)
    assert refused.calls == []


def test_max_queue_counts_jobs_that_no_worker_has_fetched_yet(
    make: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is on its way has a job to come to: with one worker and no queue the second job is refused."""
    arrive = Signal("the worker arrives")
    original = Workers.next_job

    def next_job(self: Workers, worker: _Worker, done: Job | None) -> Job | None:
        arrive.wait()
        return original(self, worker, done)

    monkeypatch.setattr(Workers, "next_job", next_job)
    workers = make(1, 0)
    job = Task()
    workers.submit(job)
    with pytest.raises(Overloaded):
        workers.submit(Task())
    arrive.set()
    job.is_done.wait()


@pytest.mark.parametrize("limit", [1, 2])
def test_max_queue_of_none_sets_no_limit(make: Callable[..., Workers], limit: int) -> None:
    """Any number of jobs may wait."""
    workers = make(limit)
    jobs = occupy(workers, limit)
    waiting = [Task() for _ in range(500)]
    submit(workers, *waiting)
    assert workers.queued == 500
    let_go(*jobs)
    for job in waiting:
        job.is_done.wait()


@pytest.mark.parametrize("limit", [1, 2])
def test_max_queue_of_0_never_refuses_who_comes_after_done(make: Callable[..., Workers], limit: int) -> None:
    """Its worker counts as free when `done` is called: who submits on hearing of it finds room, a thousand times."""
    workers = make(limit, 0)
    others = occupy(workers, limit - 1)
    for _ in range(1000):
        job = Task()
        workers.submit(job)
        job.is_done.wait()
    assert workers.shed == 0
    let_go(*others)


def test_done_may_submit_the_next_job(make: Callable[..., Workers]) -> None:
    """From within `done` itself there is room already, with one worker and no queue."""
    workers = make(1, 0)
    last = Task()
    first = Task(at_end=lambda: workers.submit(last))
    workers.submit(first)
    last.is_done.wait()
    assert last.thread is first.thread


# -- withdraw ---------------------------------------------------------------------------------------------------------


def test_withdrawn_job_never_runs(make: Callable[..., Workers]) -> None:
    """A job that no worker has can be taken back, once."""
    workers = make(1)
    (held,) = occupy(workers, 1)
    job, next_job = Task(), Task()
    submit(workers, job, next_job)
    assert workers.withdraw(job)
    assert not workers.withdraw(job)
    let_go(held)
    next_job.is_done.wait()
    assert job.calls == []


def test_job_that_a_worker_has_cannot_be_withdrawn(make: Callable[..., Workers]) -> None:
    """One that runs, or has run, or was never submitted, is not taken back."""
    workers = make(1)
    (job,) = occupy(workers, 1)
    assert not workers.withdraw(job)
    let_go(job)
    assert not workers.withdraw(job)
    assert not workers.withdraw(Task())


def test_withdrawing_makes_room_in_the_queue(make: Callable[..., Workers]) -> None:
    """The place of a withdrawn job can be taken."""
    workers = make(1, 1)
    (held,) = occupy(workers, 1)
    job, other = Task(), Task()
    workers.submit(job)
    with pytest.raises(Overloaded):
        workers.submit(other)
    workers.withdraw(job)
    workers.submit(other)
    let_go(held)
    other.is_done.wait()


# -- The end of workers -----------------------------------------------------------------------------------------------


def thread_of(job: Task) -> threading.Thread:
    """The thread that ran a job."""
    assert job.thread is not None
    return job.thread


def join(*threads: threading.Thread) -> None:
    """Wait for the end of threads, and see that it comes."""
    for thread in threads:
        thread.join(BOUND_SECONDS)
        assert not thread.is_alive()


def test_idle_seconds_are_ten(make: Callable[..., Workers]) -> None:
    """A thread that is not needed lasts as long as anyio's."""
    assert make(2).idle_seconds == 10.0


def test_idle_workers_end_and_others_start_when_needed(make: Callable[..., Workers]) -> None:
    """Workers end by themselves, all of them, and a later job has a new one."""
    workers = make()
    workers.idle_seconds = 0.001
    for _ in range(3):
        jobs = occupy(workers, 5)
        let_go(*jobs)
        join(*map(thread_of, jobs))
        assert (workers.alive, workers.busy) == (0, 0)


def test_limit_of_1_is_one_thread_that_lasts(make: Callable[..., Workers], idles: deque[Signal]) -> None:
    """However often its idle time was over, and though idle workers are told to end, it is there for the next job."""
    workers = make(1)
    workers.idle_seconds = 0.001
    original, time_is_up = workers.expire, Signal("the idle time is over")

    def expire(worker: _Worker) -> bool:
        ends = original(worker)
        time_is_up.set()
        return ends

    workers.expire = expire  # type: ignore[method-assign]
    threads = set()
    for _ in range(3):
        idle = next_idle(idles)
        job = Task()
        workers.submit(job)
        idle.wait()
        for end in (bool, workers.end_idle):
            end()
            time_is_up = Signal("the idle time is over")
            time_is_up.wait()
        threads.add(job.thread)
    assert len(threads) == workers.alive == 1


@pytest.mark.parametrize("end", [Workers.end_idle, Workers.retire])
def test_end_of_idle_workers_is_at_once_and_of_busy_ones_after_their_job(
    make: Callable[..., Workers], idles: deque[Signal], end: Callable[[Workers], None]
) -> None:
    """Who runs a job ends after it, and who waits for one ends now: nobody waits for the idle time."""
    workers = make(3)
    workers.idle_seconds = 3600
    idle_ones = [next_idle(idles), next_idle(idles)]
    jobs = occupy(workers, 3)
    jobs[0].go.set()
    jobs[1].go.set()
    for idle in idle_ones:
        idle.wait()
    end(workers)
    join(thread_of(jobs[0]), thread_of(jobs[1]))
    assert (workers.alive, workers.busy) == (1, 1)
    let_go(jobs[2])
    join(thread_of(jobs[2]))
    assert (workers.alive, workers.busy) == (0, 0)


def test_retired_workers_run_what_is_queued(make: Callable[..., Workers]) -> None:
    """A job that was accepted is run, whoever retires."""
    workers = make(1)
    (held,) = occupy(workers, 1)
    job = Task()
    workers.submit(job)
    workers.retire()
    let_go(held)
    job.is_done.wait()
    join(thread_of(held))
    assert workers.alive == 0


@pytest.mark.parametrize("limit", [1, 2])
def test_retired_workers_start_anew(make: Callable[..., Workers], limit: int) -> None:
    """A later job has a new worker, which lasts as the first one did."""
    workers = make(limit)
    first, second, third = Task(), Task(), Task()
    workers.submit(first)
    first.is_done.wait()
    workers.retire()
    join(thread_of(first))
    workers.submit(second)
    second.is_done.wait()
    workers.submit(third)
    third.is_done.wait()
    assert (second.thread is third.thread) or limit > 1
    assert first.thread is not second.thread


def test_retire_twice_is_once(make: Callable[..., Workers]) -> None:
    """Retiring what is retired, or what never ran, does nothing."""
    workers = make()
    workers.retire()
    let_go(*occupy(workers, 1))
    workers.retire()
    workers.retire()


def test_worker_that_died_is_found_by_whichever_clock() -> None:
    """The loops of a bridge may have clocks of their own: one that is behind looks for the dead, too."""
    workers = Workers(1)
    workers.look_after(1_000_000.0)
    workers._members.add(_Worker(workers, "never started"))  # so it is not alive
    workers.look_after(5.0)
    assert workers.alive == 0


def test_worker_that_starts_after_it_was_taken_for_dead_ends(
    make: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. A thread is late. 2. Another one takes its place. 3. It starts, and finds that nobody counts on it."""
    go, ended = Signal("the late thread starts"), Signal("it has ended")
    started: list[_Worker] = []
    bootstrap = threading.Thread._bootstrap  # type: ignore[attr-defined]

    def bootstrap_late(worker: _Worker) -> None:
        started.append(worker)
        if worker is started[0]:
            go.wait()
        bootstrap(worker)
        if worker is started[0]:
            ended.set()

    monkeypatch.setattr(starting, "START_SECONDS", 0.01)
    monkeypatch.setattr(_Worker, "_bootstrap", bootstrap_late, raising=False)
    workers, task = make(2), Task()
    submit(workers, task)
    workers.look_after(5.0)
    task.is_done.wait()
    go.set()
    ended.wait()
    assert task.thread is started[1]
    assert (workers.alive, workers.busy) == (1, 0)


def test_job_that_is_written_off_as_it_ends_frees_its_place(
    make: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. The worker sees that its job is not written off. 2. It is. 3. The worker takes the next job, and counts."""
    workers = make(1)
    job = Held()
    next_job = workers.next_job

    def slowly(worker: _Worker, done: Job | None) -> Job | None:
        if done is job:
            assert workers.write_off(job) is worker
        return next_job(worker, done)

    monkeypatch.setattr(workers, "next_job", slowly)
    submit(workers, job)
    job.started.wait()
    job.go.set()
    job.is_done.wait()
    assert workers.overdue == 0
    assert workers._written_off == 0


def test_worker_keeps_nothing_of_the_first_request(
    make: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A free-threaded Python starts a thread in a copy of its caller's context, which a thread keeps to its end."""
    threads_inherit_context(monkeypatch)
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []
    task = Task(lambda: seen.append(variable.get()))
    token = variable.set("the first request's")
    submit(make(), task)
    variable.reset(token)
    task.is_done.wait()
    assert seen == ["unset"]
