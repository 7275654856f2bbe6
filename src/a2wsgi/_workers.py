"""The worker threads of one bridge: started on demand, called up one by one, ended when idle.

Strategy
    Jobs wait in one queue. A worker takes the next as soon as it is through with the last. Idle workers are a stack:
    the one that idled last is called first, so the others reach the end of their idleness.

    **One worker is called up at a time.** Whoever submits a job calls up a worker only if none is on its way already;
    a worker that arrives, takes a job and sees more of them calls up the next before it runs its own. So fifty
    requests that come in at once and are quick are run by one or two workers in a row, with the interpreter's lock
    handed over once and not fifty times; and fifty that block have fifty workers a few milliseconds later, since a
    worker that blocks lets go of that lock and the next, already called, starts at once.

Guarantees
    - A job runs exactly once, or was withdrawn, or was refused by `submit`; never two of these.
    - While jobs wait and fewer than ``limit`` workers run one, a worker is on its way.
    - With ``limit=1`` all jobs run on one and the same thread, which lasts until `retire`.
    - After a fork the child has no workers, no jobs, and may submit.

    - When ``Job.done`` is called its worker counts as free again: who submits on hearing of it is not refused.

Assumes
    ``Job.run`` and ``Job.done`` raise nothing.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import deque
from typing import Protocol

__all__ = ["Job", "Overloaded", "Workers"]

#: How long a worker waits for a job before it ends, in seconds: anyio's figure.
IDLE_SECONDS = 10.0

_all_workers: weakref.WeakSet[Workers] = weakref.WeakSet()


class Job(Protocol):
    """Something for a worker to do."""

    def run(self) -> None:
        """Do it. Worker thread. Must not raise."""

    def done(self) -> None:
        """Tell whoever waits for it. Worker thread, after `run`. Must neither raise nor wait."""


class Overloaded(Exception):  # noqa: N818 - a verdict of ours on the way to a 503, not an error that anybody sees
    """As many jobs wait as may."""


class Workers:
    """The worker threads of one bridge.

    Args:
        limit: How many there may be.
        max_queue: How many jobs may wait for a worker when all are busy; None is unbounded.

    Threading: any thread may call anything.
    """

    def __init__(self, limit: int, max_queue: int | None = None) -> None:
        self.limit = limit
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
        self._alive = 0
        self._busy = 0
        self._called_up = False  # one worker was called up or started, and has not looked at the queue yet
        self._started = 0  # numbers the threads' names
        self.retired = False
        self.shed = 0

    def submit(self, job: Job) -> None:
        """Have a worker run ``job``.

        Raises:
            Overloaded: ``max_queue`` jobs wait already. Nothing was queued.
            RuntimeError: No thread could be started, and none is there. Nothing was queued.
        """
        with self._lock:
            if self.max_queue is not None and len(self._jobs) + self._busy >= self.limit + self.max_queue:
                self.shed += 1
                raise Overloaded
            self.retired = False
            self._jobs.append(job)
            worker = None
            if not self._called_up:
                try:
                    worker = self._call_up()
                except RuntimeError:
                    if self._alive == 0:
                        self._jobs.pop()
                        raise  # else who is there comes to it
        if worker is not None:
            worker.gate.release()

    def withdraw(self, job: Job) -> bool:
        """Take back a job. False if a worker has it already: it runs, or has run."""
        # Without the lock, for the same reason as in retire(): the collector may end a request wherever it runs.
        try:
            self._jobs.remove(job)
        except ValueError:
            return False
        return True

    def end_idle(self) -> None:
        """End the workers that wait for a job, at once. With ``limit=1`` the one worker stays."""
        if self.limit > 1:
            with self._lock:
                self.retired = True
                idle, self._idle = self._idle, []
            _open_gates(idle)

    def retire(self) -> None:
        """End each worker as soon as it has nothing to do, without waiting for it. A later `submit` starts anew.

        For a finalizer, which the garbage collector may run on a thread that holds the lock, so this takes it only if
        it is free. If it is not, the next worker to see ``retired`` sends the others home.
        """
        self.retired = True
        if self._lock.acquire(blocking=False):
            idle, self._idle = self._idle, []
            self._lock.release()
            _open_gates(idle)

    @property
    def alive(self) -> int:
        """How many threads there are."""
        return self._alive

    @property
    def busy(self) -> int:
        """How many of them run a job."""
        return self._busy

    @property
    def queued(self) -> int:
        """How many jobs no worker has taken yet."""
        return len(self._jobs)

    # -- calling up -----------------------------------------------------------------------------------------------

    def _call_up(self) -> _Worker | None:
        """Have one more worker come to the queue, if one can. None is on its way. The lock is held.

        Returns:
            An idle worker, whose gate the caller is to open once it has let go of the lock.

        Raises:
            RuntimeError: The system has no thread to give.
        """
        if self._idle:
            self._called_up = True
            return self._idle.pop()
        if self._alive < self.limit:
            # Started with the lock held, which it waits for: so nobody relies on a thread that then cannot be had.
            _Worker(self, f"a2wsgi-worker-{self._started + 1}").start()
            self._called_up = True
            self._alive += 1
            self._started += 1
        return None  # or all are busy: the next to be through takes the job

    def next_job(self, worker: _Worker, through_with: Job | None) -> Job | None:
        """The next job for ``worker``, which else is idle from now on, or ended. Worker thread.

        Args:
            worker: Who asks.
            through_with: The job that it has run; None if it was called up.
        """
        others: list[_Worker] = []
        with self._lock:
            if through_with is None:
                self._called_up = False
            else:
                self._busy -= 1
            try:
                job = self._jobs.popleft()
            except IndexError:  # no look before: withdraw() takes no lock
                job = None
            if job is not None:
                self._busy += 1
                if self._jobs and not self._called_up:
                    with contextlib.suppress(RuntimeError):  # no thread to be had: we come to them ourselves
                        another = self._call_up()
                        others = [] if another is None else [another]
            elif self.retired:
                worker.ended = True
                self._alive -= 1
                others, self._idle = self._idle, []
            else:
                self._idle.append(worker)
        if through_with is not None:
            through_with.done()
        if others:
            _open_gates(others)
        return job

    def give_up(self, worker: _Worker) -> bool:
        """End ``worker``, which nobody called for long. False if it is to wait on. Worker thread."""
        # The race: 1. its wait times out; 2. _call_up() takes it off the stack; 3. it comes here. It is on the stack no
        # more, so its gate is open or about to be, and it must wait for that: a job relies on it.
        with self._lock:
            if worker not in self._idle or (self.limit == 1 and not self.retired):
                return False
            self._idle.remove(worker)
            self._alive -= 1
            others: list[_Worker] = []
            if self.retired:
                others, self._idle = self._idle, []
        _open_gates(others)
        return True


def _open_gates(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.gate.release()


class _Worker(threading.Thread):
    """One worker thread.

    A daemon: a request that never ends must not keep the process from ending; the server's shutdown has waited for
    requests by then.
    """

    def __init__(self, workers: Workers, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._workers = workers
        self.gate = threading.Lock()  # opened once for each time that the worker is taken off the stack
        self.gate.acquire()
        self.ended = False

    def run(self) -> None:
        """Run jobs until there were none for long."""
        workers = self._workers
        job = workers.next_job(self, None)
        while not self.ended:
            if job is not None:
                job.run()
                job = workers.next_job(self, job)
            elif self.gate.acquire(timeout=0 if workers.retired else workers.idle_seconds):
                job = workers.next_job(self, None)
            elif workers.give_up(self):
                return


def _after_fork_in_child() -> None:
    for workers in tuple(_all_workers):
        workers.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
