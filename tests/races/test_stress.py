"""What is rare happens often: thousands of rounds, both sides ending anywhere, and nothing lost, doubled or stuck.

Nothing sleeps. Threads change places as often as the interpreter lets them, and each side dawdles for a random number
of steps. A failure names its seed.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from a2wsgi import WSGIMiddleware
from a2wsgi._threads.runtime import Runtime
from a2wsgi._wsgi_on_asgi.jobs import Overloaded
from a2wsgi._wsgi_on_asgi.streams import ToLoop, ToThread
from a2wsgi._wsgi_on_asgi.workers import Workers
from apps import hello
from support.asgi_driver import Client, answer, http_scope
from support.lockstep import BOUND_SECONDS, Signal
from support.runtimes import JobCancelled, gather, only_on, rest, run, start, verbs, within
from support.threads import in_thread

pytestmark = [pytest.mark.stress, pytest.mark.usefixtures("runtime")]

#: How often each of these is done: about a second's worth on a machine that does nothing else. They are counted, and
#: not timed, since a busy machine would do none of them in a second.
ROUNDS = 400


class Stopped(Exception):  # noqa: N818 - what a stop of a test has a thread get
    pass


@pytest.fixture(autouse=True)
def _restless() -> Iterator[None]:
    """Have the interpreter change threads all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def dawdle(chance: random.Random) -> None:
    """Let others go first, now and then."""
    for _ in range(chance.choice((0, 0, 0, 1, 5, 50))):
        time.monotonic()


async def stroll(chance: random.Random) -> None:
    """Let the loop go round, now and then."""
    for _ in range(chance.choice((0, 0, 1, 3))):
        await rest()


async def impatient(make: Callable[[], Any], chance: random.Random) -> Any:
    """Await what ``make`` makes, cancelled at any point and begun anew, until it comes to its end."""
    while True:
        task = start(make())
        if chance.random() < 0.5:
            await stroll(chance)
            task.cancel()
        with contextlib.suppress(JobCancelled):
            return await within(BOUND_SECONDS, task)


# -- Streams ----------------------------------------------------------------------------------------------------------


def test_to_loop_keeps_every_chunk_whoever_ends_where() -> None:
    """A writer ends or leaves anywhere; takes are cancelled anywhere; the stream is stopped anywhere, or not."""

    async def one(runtime: Runtime, seed: int) -> None:
        chance, other = random.Random(seed), random.Random(-seed)
        chunks = [b"%d," % number for number in range(chance.choice((0, 1, 3, 30)))]
        last = [b"last"] if chance.random() < 0.5 else None
        stop_at = chance.choice((None, None, 0, 1, 5))
        stream = ToLoop(runtime, chance.choice((0, 1, 5, 1000)), chance.choice((None, 1, 3)))

        def write() -> bool:
            try:
                for chunk in chunks:
                    dawdle(other)
                    stream.put(chunk)
                stream.finish(last, done=other.random() < 0.5)
            except Stopped:
                return False
            finally:
                stream.finish(done=True)
            return True

        writer = in_thread(write)
        got, ended, turns = list[bytes](), False, 0
        while not ended:
            if turns == stop_at:
                stream.abort(Stopped)
            turns += 1
            some, ended = await impatient(stream.take, chance)
            got += some
        await impatient(stream.wait_done, chance)
        wrote = await writer.result_in_task()
        everything = chunks + (last or [])
        if stream.aborted:
            assert got == everything[: len(got)], seed
        else:
            assert wrote, seed
            assert got == everything, seed

    run_many(one)


def test_to_thread_keeps_every_chunk_whoever_ends_where() -> None:
    """The loop ends or stops anywhere; waits for room are cancelled anywhere; the reader leaves anywhere."""

    async def one(runtime: Runtime, seed: int) -> None:
        chance, other = random.Random(seed), random.Random(-seed)
        chunks = [b"%d," % number for number in range(chance.choice((0, 1, 3, 30)))]
        stop_at = chance.choice((None, None, 0, 1, 5, 30))
        leave_after = chance.choice((None, None, 0, 1, 3))
        stream = ToThread(runtime, chance.choice((0, 1, 5, 1000)))

        def read() -> tuple[list[bytes], bool]:
            got: list[bytes] = []
            turns = 0
            try:
                while turns != leave_after:
                    dawdle(other)
                    some = stream.take()
                    if not some:
                        return got, True
                    got += some
                    turns += 1
            except Stopped:
                pass
            runtime.doorbell.ring(lambda _: stream.abort(Stopped), None)
            return got, False

        reader = in_thread(read)
        for number, chunk in enumerate(chunks):
            if number == stop_at:
                stream.abort(Stopped)
            await impatient(stream.wait_room, chance)
            stream.put(chunk)
            stream.flush()
        if stop_at == len(chunks):
            stream.abort(Stopped)
        stream.finish()
        stream.flush()
        got, ended = await reader.result_in_task()
        assert got == chunks[: len(got)], seed
        if ended:
            assert got == chunks, seed
        else:
            assert stop_at is not None or leave_after is not None, seed

    run_many(one)


def run_many(one: Callable[[Runtime, int], Any], rounds: int = ROUNDS) -> None:
    """Run several stories at a time on one loop and one runtime, as requests of one bridge are."""

    async def story() -> None:
        runtime = verbs()
        numbers = iter(range(rounds))

        async def again() -> None:
            for seed in numbers:
                await within(2 * BOUND_SECONDS, one(runtime, seed))

        await gather(*(again() for _ in range(4)))
        assert next(numbers, None) is None

    run(story(), debug=False)


def test_doorbell_loses_no_ring() -> None:
    """Threads ring as fast as they can: each ring is a call, in the order of each thread."""

    async def story() -> None:
        bell = verbs().doorbell
        calls: list[tuple[int, int]] = []
        rings = range(50 * ROUNDS)

        def ring(thread: int) -> None:
            for number in rings:
                assert bell.ring(calls.append, (thread, number))

        for running in [in_thread(ring, thread) for thread in range(4)]:
            await running.result_in_task()
        last = Signal("the last ring")
        bell.ring(last.set, None)
        await last.wait_in_task()
        for thread in range(4):
            assert [number for who, number in calls if who == thread] == list(rings)

    run(story(), debug=False)


# -- Workers ----------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Task:
    """A job that counts what is done to it."""

    chance: random.Random
    one_is_over: threading.Event  # of all jobs
    runs: int = 0
    dones: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        self.runs += 1
        dawdle(self.chance)

    def done(self) -> None:
        self.dones += 1
        self.over.set()
        self.one_is_over.set()

    def lost(self) -> None:
        raise AssertionError("No worker has died")


@dataclass
class Count:
    """What became of the jobs of one thread."""

    submitted: int = 0
    withdrawn: int = 0
    refused: int = 0


@only_on("asyncio", reason="no loop has a part in it")
@pytest.mark.parametrize("limit", [1, 2, 8])
@pytest.mark.parametrize("idle_seconds", [0.0, 0.0001, 0.01])
def test_workers_run_every_job_once(limit: int, idle_seconds: float) -> None:
    """Several threads submit, withdraw and retire while idle workers end: each job is run, withdrawn or refused."""
    workers = Workers(limit, 5)
    # The one worker of a pool stays when its idle time is over. With none, it would keep the others from the lock.
    workers.idle_seconds = idle_seconds if limit > 1 else max(idle_seconds, 0.0001)
    one_is_over = threading.Event()

    def drive(seed: int) -> tuple[Count, list[Task]]:
        chance, count, bad = random.Random(seed), Count(), list[Task]()
        # Rounds are not counted: how many jobs are refused depends on the speed of the other drivers. Each driver gets
        # there, since those that are ahead of it stop.
        while count.submitted < ROUNDS:
            jobs = [Task(chance, one_is_over) for _ in range(chance.choice((1, 1, 2, 7)))]
            kept = []
            for job in jobs:
                try:
                    workers.submit(job)
                    count.submitted += 1
                except Overloaded:
                    count.refused += 1
                    bad += [job] * job.runs
                    # Who tries again at once, a hundred thousand times, keeps the workers from their lock.
                    one_is_over.clear()
                    one_is_over.wait(0.001)
                    continue
                dawdle(chance)
                if chance.random() < 0.1 and workers.withdraw(job):
                    count.withdrawn += 1
                    bad += [job] * job.runs
                else:
                    kept.append(job)
            what = chance.random()
            if what < 0.1:
                workers.retire()
            elif what < 0.2:
                workers.end_idle()
            for job in kept:
                assert job.over.wait(BOUND_SECONDS), f"seed {seed}: a job waits for nobody: {vars(workers)}"
                bad += [job] * ((job.runs, job.dones) != (1, 1))
        return count, bad

    drivers = [in_thread(drive, seed) for seed in range(3)]
    results = [driver.result(2 * BOUND_SECONDS) for driver in drivers]
    assert [bad for _, bad in results] == [[], [], []]
    assert workers.shed == sum(count.refused for count, _ in results)
    assert all(count.submitted >= ROUNDS for count, _ in results)
    workers.retire()
    for thread in threading.enumerate():
        if thread.name.startswith("a2wsgi-worker"):
            thread.join(BOUND_SECONDS)
    assert (workers.alive, workers.busy, workers.queued) == (0, 0, 0)


def test_one_worker_and_no_queue_never_refuse_one_request_at_a_time() -> None:
    """Thousands of requests, each sent when the one before was answered."""
    bridge = WSGIMiddleware(hello.app, 1, max_queue=0)

    async def story() -> None:
        for _ in range(5 * ROUNDS):
            assert (await answer(bridge)).body == b"hello"

    run(story(), debug=False)
    assert bridge.statistics().shed == 0


# -- Whole requests ---------------------------------------------------------------------------------------------------


def test_requests_end_anywhere_and_leave_nothing() -> None:
    """Clients leave, servers cancel and send() raises at any point of a request: every worker is free again."""

    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        with contextlib.suppress(OSError):
            write(environ["wsgi.input"].read(3))
        yield b"a" * 10
        yield environ["wsgi.input"].read()
        yield b"b" * 10

    bridge = WSGIMiddleware(app, 3, request_buffer_bytes=4, response_buffer_bytes=5)

    async def one(_runtime: Runtime, seed: int) -> None:
        chance = random.Random(seed)
        fails_at, complete = chance.choice((None, None, 1, 2, 3)), chance.random() < 0.7

        async def on_send(number: int, _message: object) -> None:
            await stroll(chance)
            if number == fails_at:
                raise ConnectionResetError

        client = Client(*[b"xyz"] * chance.choice((0, 1, 5)), complete=complete, on_send=on_send)
        task = start(bridge(http_scope("POST"), client.receive, client.send))
        await stroll(chance)
        if chance.random() < 0.3:
            task.cancel()
        elif not complete or chance.random() < 0.3:
            client.leave()
        with contextlib.suppress(JobCancelled, OSError):
            await within(BOUND_SECONDS, task)
        assert client.faults == [], seed

    run_many(one, 5 * ROUNDS)
    end = time.monotonic() + BOUND_SECONDS
    while bridge.statistics().busy and time.monotonic() < end:
        pass  # a cancelled request does not wait for its worker
    numbers = bridge.statistics()
    assert (numbers.busy, numbers.queued, numbers.in_flight) == (0, 0, 0)
