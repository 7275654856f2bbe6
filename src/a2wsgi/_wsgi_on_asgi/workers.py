"""The worker threads of one bridge: started on demand, called up one by one, ended when idle.

Strategy
    Jobs wait in one queue. A worker that is done with a job takes the next one at once. Idle workers are a stack: the
    one that became idle last is called first, so that the others reach their idle time and end.

    **One worker is called up at a time.** Whoever submits a job calls up a worker only if none is on its way already. A
    worker that arrives, takes a job and sees more of them calls up the next worker before it runs its own job. So fifty
    quick requests that come in at once are run by one or two workers in a row: the interpreter's lock changes hands
    once and not fifty times. Fifty that block have fifty workers a few milliseconds later: each lets go of that lock.

Guarantees
    - A job runs exactly once, or was withdrawn, or was refused by `submit`; never two of these.
    - While jobs wait and fewer than ``limit`` workers run one, a worker is on its way.
    - With ``limit=1`` all jobs run on one and the same thread, which lasts until `retire`.
    - After a fork the child has no workers and no jobs, and may submit.
    - When ``Job.done`` is called, the worker counts as free: whoever submits another job in response is not refused.
    - Up to ``limit`` workers whose jobs are written off do not count towards it until they come back.
    - A worker thread may die at any point, also within `next_job`: libraries like ``stopit`` and ``func_timeout`` raise
      exceptions into threads, and may do so a moment late. Its jobs get ``Job.lost``, another worker takes its place,
      and the counts are right again: at once if the thread itself can see to it, otherwise within `LOOK_SECONDS`.

What makes a death harmless
    Each worker has its own record: whether it was ``called``, whether it is ``busy``, and the jobs that it ``holds``.
    These records are the truth. The pool's counts only sum them up, so `_replace_dead` can count again. A job moves
    from the queue to a worker in one call of C code, which no exception from another thread can cut in two. And a gate
    only wakes: a worker that finds itself still idle goes back to its gate, so opening one too often does no harm.

Assumes
    ``Job.run``, ``Job.done`` and ``Job.lost`` raise nothing of their own, and jobs have no ``__eq__``. Somebody calls
    `look_after` while jobs are not done. `a2wsgi._threads` says what is safe without the lock.
"""

from __future__ import annotations

import contextlib
import operator
import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING

from a2wsgi._log import logger
from a2wsgi._threads.starting import start_thread

from .jobs import Job, Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Seconds that a worker waits for a job before it ends: anyio's figure.
IDLE_SECONDS = 10.0

#: Seconds between two looks of `Workers.look_after`. Arbitrary: a thread that dies is an accident.
LOOK_SECONDS = 1.0

_take_first = operator.methodcaller("popleft")

_all_workers: weakref.WeakSet[Workers] = weakref.WeakSet()


class Workers:
    """The worker threads of one bridge.

    Args:
        limit: How many there may be.
        max_queue: How many jobs may wait for a worker when all are busy; None is unbounded.
        name: What the names of the threads begin with.

    Threading: any thread may call anything.
    """

    def __init__(self, limit: int, max_queue: int | None = None, name: str = "a2wsgi-worker") -> None:
        self.limit = limit
        self.name = name
        self.max_queue = max_queue
        self.idle_seconds = IDLE_SECONDS
        self.reset()
        _all_workers.add(self)

    def reset(self) -> None:
        """Start from nothing: in the constructor, and in the child after a fork, which has none of the threads."""
        self._lock = threading.Lock()
        # All below is guarded by _lock.
        self._jobs: deque[Job] = deque()
        self._idle: list[_Worker] = []
        self._members: set[_Worker] = set()  # all that were started and have not ended
        self._busy = 0  # how many of them are
        self._called_up = False  # one of them is called
        self._look_at = 0.0  # when look_after() looks next
        self._started = 0  # numbers the threads' names
        self._written_off = 0  # how many of the members do not count towards the limit: see `write_off`
        self.retired = False
        self.shed = 0

    def submit(self, job: Job) -> None:
        """Have a worker run ``job``.

        Raises:
            Overloaded: ``max_queue`` jobs wait already. Nothing was queued.
            RuntimeError: No thread could be started, and none is there. Nothing was queued.
        """
        with self._lock:
            taken = len(self._jobs) + self._busy - self._written_off
            if self.max_queue is not None and taken >= self.limit + self.max_queue:
                self.shed += 1
                raise Overloaded
            self.retired = False
            self._jobs.append(job)
            worker = None
            if not self._called_up:
                try:
                    worker = self._call_up()
                except BaseException as error:
                    # If only no thread could be started, the workers that exist come to the job.
                    if not (isinstance(error, RuntimeError) and self._members):
                        self._jobs.pop()
                        raise
        if worker is not None:
            try:  # noqa: SIM105 - suppress() is three calls, and this is run for each request
                worker.gate.release()
            except RuntimeError:  # _replace_dead() has opened the gate
                pass

    def withdraw(self, job: Job) -> bool:
        """Take back a job. False if a worker has taken it: it runs, or has run."""
        # Without the lock: the garbage collector may end a request, and so call this, on a thread that holds it.
        try:
            self._jobs.remove(job)
        except ValueError:
            return False
        return True

    def end_idle(self) -> None:
        """End at once the workers that wait for a job. With ``limit=1`` the one worker stays."""
        if self.limit > 1:
            with self._lock:
                self.retired = True
                idle, self._idle = self._idle, []
            _open_gates(idle)

    def retire(self) -> None:
        """End each worker as soon as it has nothing to do, without waiting for it. A later `submit` starts anew.

        A finalizer calls this, and the garbage collector may run it on a thread that holds the lock. So it takes the
        lock only if that is free. If not, the next worker that sees ``retired`` ends the others.
        """
        self.retired = True
        if self._lock.acquire(blocking=False):
            idle, self._idle = self._idle, []
            self._lock.release()
            _open_gates(idle)

    @property
    def alive(self) -> int:
        """The number of worker threads."""
        return len(self._members)

    @property
    def busy(self) -> int:
        """The number of workers that run a job."""
        return self._busy

    @property
    def overdue(self) -> int:
        """The number of workers that run a job which was written off."""
        return sum(worker.overdue for worker in self._members.copy())

    @property
    def queued(self) -> int:
        """The number of jobs that no worker has taken yet."""
        return len(self._jobs)

    # -- Calling up -----------------------------------------------------------------------------------------------

    def _call_up(self) -> _Worker | None:
        """Have one more worker come to the queue, if there may be one. None is on its way. The lock is held.

        Returns:
            An idle worker. The caller must open its gate once it has let go of the lock.

        Raises:
            RuntimeError: The system has no thread to give.
        """
        assert self._lock.locked()
        if self._idle:
            worker = self._idle.pop()
            self._called_up = worker.called = True
            return worker
        if len(self._members) < self.limit + self._written_off:
            # Started with the lock held, so that nobody relies on a thread that then cannot be started.
            worker = _Worker(self, f"{self.name}-{self._started + 1}")
            worker.called = True
            self._members.add(worker)
            try:
                start_thread(worker)  # if it dies as it starts, or is late, _replace_dead() finds it
            except RuntimeError:
                self._members.discard(worker)
                raise
            self._called_up = True
            self._started += 1
        return None  # if all are busy, the first to be done takes the job

    def next_job(self, worker: _Worker, done: Job | None) -> Job | None:
        """The next job for ``worker``. If there is none, it is idle from now on, or ended. Worker thread.

        Args:
            worker: The worker that asks.
            done: The job that it has run; None if it was called up.
        """
        others: list[_Worker] = []
        job = None
        with self._lock:
            if done is not None:
                worker.busy = False
                self._busy -= 1
                if worker.overdue:  # its job was written off at the very moment at which it came back
                    worker.overdue = False
                    self._count_written_off()
            elif worker not in self._members:  # it started so late that _replace_dead() took it for dead
                worker.ended = True
                return None
            elif worker.called:
                worker.called = self._called_up = False
            elif worker in self._idle:
                return None  # its gate was opened too often: see "What makes a death harmless"
            try:
                worker.holds.extend(map(_take_first, (self._jobs,)))  # one call: see "What makes a death harmless"
            except IndexError:  # looking first would prove nothing, since withdraw() takes no lock
                if self.retired:
                    worker.ended = True
                    self._members.discard(worker)
                    others, self._idle = self._idle, []
                else:
                    self._idle.append(worker)
            else:
                job = worker.holds[-1]
                worker.busy = True
                self._busy += 1
                if self._jobs and not self._called_up:
                    with contextlib.suppress(RuntimeError):  # no thread can be started: this worker comes to them later
                        another = self._call_up()
                        others = [] if another is None else [another]
        if done is not None:
            done.done()
            del worker.holds[0]
        if others:
            _open_gates(others)
        return job

    def expire(self, worker: _Worker) -> bool:
        """End ``worker``, since its idle time is over. False if it must go on waiting. Worker thread."""
        # The race: 1. The worker's wait times out. 2. _call_up() takes it off the stack. 3. The worker comes here. Then
        # its gate is open, or about to be opened, and it must wait for that: a job relies on it.
        with self._lock:
            if worker not in self._idle or (self.limit == 1 and not self.retired):
                return False
            self._idle.remove(worker)
            self._members.discard(worker)
            others: list[_Worker] = []
            if self.retired:
                others, self._idle = self._idle, []
        _open_gates(others)
        return True

    # -- Jobs that are written off --------------------------------------------------------------------------------

    def write_off(self, job: Job) -> threading.Thread | None:
        """Have others do the work of the worker that runs ``job``, until it comes back. Any thread but that one.

        Returns:
            The worker. None if none runs the job, or it is done.
        """
        another = None
        with self._lock:
            worker = next((one for one in self._members if one.busy and one.holds[-1:] == [job]), None)
            if worker is not None:
                worker.overdue = True
                self._count_written_off()
                if self._jobs and not self._called_up:
                    with contextlib.suppress(RuntimeError):  # no thread can be started: the next to be free comes to it
                        another = self._call_up()
        _open_gates(() if another is None else (another,))
        return worker

    def dismiss(self, worker: _Worker, job: Job) -> bool:
        """Count a worker again whose job was written off. True if it is one too many, and ends. Worker thread."""
        with self._lock:
            worker.overdue = False
            self._count_written_off()
            if len(self._members) <= self.limit + self._written_off:
                return False
        job.done()  # nobody waits for it, so it can be told first: a death after this leaves nothing undone
        with self._lock:
            self._members.discard(worker)
            self._busy -= 1
        return True

    def _count_written_off(self) -> None:
        self._written_off = min(self.limit, sum(worker.overdue for worker in self._members))

    # -- Workers that died ----------------------------------------------------------------------------------------

    def look_after(self, now: float) -> None:
        """Look for workers that have died unnoticed, and for jobs that no worker will come to. Any thread, often.

        Args:
            now: The time in seconds, by the clock of the caller's loop, which may differ from that of another loop.
        """
        if not self._look_at - LOOK_SECONDS <= now < self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._replace_dead()

    def clean_up_after(self, worker: _Worker) -> None:
        """Repair what ``worker`` leaves behind if its thread dies of an exception. Worker thread, as it ends."""
        if worker in self._members:
            self._replace_dead(worker)

    def _replace_dead(self, dying: _Worker | None = None) -> None:
        """Count no dead worker, nor the ``dying`` one; have others take their places; say that their jobs are lost."""
        with self._lock:
            # With the lock held, none of them is just being started.
            dead = [worker for worker in self._members if worker is dying or not worker.is_alive()]
            self._members.difference_update(dead)
            self._idle = [worker for worker in self._idle if worker in self._members]
            self._busy = sum(worker.busy for worker in self._members)
            self._count_written_off()
            self._called_up = any(worker.called for worker in self._members)
            if self._jobs and not self._called_up:
                with contextlib.suppress(RuntimeError):  # no thread can be started: look_after() tries again
                    self._call_up()
            # Whoever called these, or ended them, may have died before it opened their gates.
            strays = [worker for worker in self._members if not worker.busy and worker not in self._idle]
        _open_gates(strays)
        for worker in dead:
            for job in worker.holds:
                job.lost()
            worker.holds.clear()
        if dead:
            logger.error("A worker thread was killed by an exception from another thread; a new one starts if needed")


def _open_gates(workers: Iterable[_Worker]) -> None:
    for worker in workers:
        with contextlib.suppress(RuntimeError):  # it is open
            worker.gate.release()


class _Worker(threading.Thread):
    """One worker thread.

    It is a daemon: a request that never ends must not keep the process from ending, whose server has waited for it.
    """

    def __init__(self, workers: Workers, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._workers = workers
        self.gate = threading.Lock()  # opened for each time that the worker is taken off the stack
        self.gate.acquire()
        self.ended = False
        # The worker's record, guarded by the lock of Workers:
        self.called = False  # off the stack or started, and has not looked at the queue yet
        self.busy = False  # counts as one that runs a job
        self.overdue = False  # its job was written off
        self.holds: list[Job] = []  # taken from the queue; their done() has not been called yet

    def run(self) -> None:
        """Run jobs until the idle time is over. An exception from another thread ends it, and `threading` shows it."""
        try:
            self._run_jobs()
        finally:
            self._workers.clean_up_after(self)

    def _run_jobs(self) -> None:
        workers = self._workers
        job = workers.next_job(self, None)
        while not self.ended:
            if job is not None:
                job.run()
                if self not in workers._members:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]  # of this module: a call costs a request
                    # 1. The job forks. 2. In the child, the pool starts from nothing. 3. The job returns there, too.
                    job.done()
                    return
                if self.overdue and workers.dismiss(self, job):
                    return
                job = workers.next_job(self, job)
            elif self.gate.acquire(timeout=0 if workers.retired else workers.idle_seconds):
                job = workers.next_job(self, None)
            elif workers.expire(self):
                return


def _after_fork_in_child() -> None:
    for workers in tuple(_all_workers):
        workers.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
