"""The verbs of the runtime on trio: what threads ask of a run, and how waits, tasks and timers end."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from a2wsgi._threads.runtime import Runtime, running_trio, runtime_of, wake
from support.asgi_driver import until
from support.lockstep import BOUND_SECONDS, Lockstep, Signal
from support.threads import in_thread
from support.trio_runs import breaking_clock

trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")

variable = contextvars.ContextVar("variable", default="none")


def here() -> Runtime:
    """A runtime of the run that the caller is in."""
    run = running_trio()
    assert run is not None
    return runtime_of(run)


def run(story: Callable[[], Awaitable[None]]) -> None:
    """Run a story on trio, for a bounded time."""

    async def bounded() -> None:
        with trio.fail_after(2 * BOUND_SECONDS):
            await story()

    trio.run(bounded)


async def rounds(count: int = 5) -> None:
    """Let the others go."""
    for _ in range(count):
        await trio.lowlevel.checkpoint()


# -- Which run it is --------------------------------------------------------------------------------------------------


def test_runtime_is_that_of_the_run() -> None:
    """There is one name for each run; there is none where no task of trio's runs, be trio imported or not."""
    seen: list[Any] = []

    async def story() -> None:
        seen.append(running_trio())
        assert running_trio() is seen[-1]
        assert in_thread(running_trio).result() is None

    assert running_trio() is None
    run(story)
    run(story)
    assert seen[0] is not seen[1]
    assert [one.is_closed() for one in seen] == [True, True]
    assert running_trio() is None


def test_trio_is_not_imported_by_a_request_on_asyncio() -> None:
    """A process that does not use it does not pay for it."""
    code = (
        "import asyncio, sys\n"
        "from a2wsgi import WSGIMiddleware\n"
        "from a2wsgi._errors import MissingCapability\n"
        "from a2wsgi._threads.runtime import running_trio\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'hello']\n"
        "async def receive(): return {'type': 'http.request'}\n"
        "async def send(message): pass\n"
        "scope = {'type': 'http', 'method': 'GET', 'path': '/', 'headers': [], 'query_string': b''}\n"
        "asyncio.run(WSGIMiddleware(app)(scope, receive, send))\n"
        "assert running_trio() is None\n"
        "try:\n"
        "    WSGIMiddleware(app)(scope, receive, send).send(None)\n"
        "except MissingCapability as error:\n"
        "    assert 'trio' in str(error)\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'trio']\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- Doorbell ---------------------------------------------------------------------------------------------------------


def test_ring_calls_in_the_run_in_the_order_of_the_rings() -> None:
    """Threads ring in turn: what they rang is called in that order, on the run's thread, in an empty context."""

    async def story() -> None:
        variable.set("the run's")
        bell, step, calls, last = here().doorbell, Lockstep(), list[Any](), Signal("the last call")

        def called(number: int) -> None:
            calls.append((number, threading.get_ident(), variable.get()))
            if number == 30:
                last.set()

        def ring(first: int) -> None:
            for number in range(first, 31, 3):
                with step(number):
                    assert bell.ring(called, number) is True

        threads = [in_thread(ring, first) for first in (1, 2, 3)]
        await last.wait_in_task()
        assert calls == [(number, threading.get_ident(), "none") for number in range(1, 31)]
        for thread in threads:
            thread.result()

    run(story)


def test_rings_before_the_answer_are_one_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ring, the run is told once until it answers: trio alone would write to its socket for each."""

    async def story() -> None:
        bell, calls, told = here().doorbell, list[int](), list[object]()
        kind: Any = type(bell.loop)
        original = kind.call_soon_threadsafe

        def call_soon_threadsafe(run: Any, callback: Any, *, context: contextvars.Context) -> None:
            told.append(callback)
            original(run, callback, context=context)

        monkeypatch.setattr(kind, "call_soon_threadsafe", call_soon_threadsafe)
        for expected in (1, 2):
            for number in range(10):
                in_thread(bell.ring, calls.append, number).result()
            assert len(told) == expected
            await rounds()
        assert calls == [*range(10), *range(10)]

    run(story)


def test_ring_that_fails_ends_neither_the_run_nor_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """Trio would take it for a fault of its own, and end the run with all its tasks."""

    async def story() -> None:
        bell, calls, end = here().doorbell, list[int](), Signal("the last call")

        def fails(_: object) -> None:
            raise ValueError("of one call")

        for function, argument in ((calls.append, 1), (fails, 2), (calls.append, 3), (end.set, 4)):
            bell.ring(function, argument)
        await end.wait_in_task()
        assert calls == [1, 3]

    run(story)
    assert [record.exc_info and str(record.exc_info[1]) for record in caplog.records] == ["of one call"]


def test_ring_says_that_the_run_is_over_each_time() -> None:
    """RunFinishedError is no error of the thread that rings; and nothing is kept of what nobody will call."""

    class Argument:
        pass

    bells: list[Any] = []

    async def story() -> None:
        bells.append(here().doorbell)

    run(story)
    argument = Argument()
    gone = weakref.ref(argument)
    assert [bells[0].ring(print, argument) for _ in range(3)] == [False, False, False]
    del argument
    gc.collect()
    assert gone() is None


def test_ring_after_the_main_task_is_answered_before_the_run_ends() -> None:
    """1. The main task ends. 2. A thread rings. trio promises to answer whatever it has not refused."""
    calls: list[int] = []

    async def story() -> None:
        bell = here().doorbell

        async def last() -> None:
            try:
                await trio.sleep_forever()
            finally:
                bell.ring(calls.append, 1)

        trio.lowlevel.spawn_system_task(last)
        await rounds(2)

    run(story)
    assert calls == [1]


# -- Waiters ----------------------------------------------------------------------------------------------------------


def test_wake_ends_the_wait_of_all_that_wait() -> None:
    """Once; also of a waiter that was set before anybody waits."""

    async def story() -> None:
        runtime, over = here(), list[int]()
        waiter = runtime.create_waiter()

        async def wait(number: int) -> None:
            await runtime.wait(waiter, None)
            over.append(number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, 1)
            nursery.start_soon(wait, 2)
            await rounds()
            assert (over, waiter.done()) == ([], False)
            wake(waiter)
            wake(waiter)
        assert (sorted(over), waiter.done()) == ([1, 2], True)
        await waiter

    run(story)


def test_wake_minds_no_wait_that_was_cancelled() -> None:
    """A waiter that was awaited and cancelled is done, as a future is; one that was only waited for stays as it is."""

    async def story() -> None:
        runtime = here()
        awaited, kept = runtime.create_waiter(), runtime.create_waiter()
        with trio.move_on_after(0):
            await awaited
        await runtime.wait(kept, 0)
        assert (awaited.done(), kept.done()) == (True, False)
        for waiter in (awaited, kept):
            wake(waiter)
            assert waiter.done()

    run(story)


@pytest.mark.parametrize("first", ["wake", "cancel"])
def test_wake_and_cancellation_may_come_in_one_step(first: str) -> None:
    """Whichever comes first decides the wait; the other finds nothing to do."""

    async def story() -> None:
        runtime, ended = here(), list[str]()
        waiter = runtime.create_waiter()

        async def wait() -> None:
            try:
                await waiter
                ended.append("wake")
            except trio.Cancelled:
                ended.append("cancel")
                raise

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await rounds()
            actions = [lambda: wake(waiter), nursery.cancel_scope.cancel]
            for action in actions if first == "wake" else reversed(actions):
                action()
        assert ended == [first]

    run(story)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # trio's own objects, as they go
def test_wake_minds_no_run_that_has_crashed() -> None:
    """What waited there waits no more: another run, which comes across its waiter, cannot go on with its task."""
    clock, waiters, tasks = breaking_clock(), list[Any](), list[Any]()

    async def crashes() -> None:
        runtime = here()
        waiters.append(runtime.create_waiter())

        async def wait() -> None:
            task = trio.lowlevel.current_task()
            tasks.extend([task, task.coro])  # held, or it is closed and waits no more
            await waiters[0]

        trio.lowlevel.spawn_system_task(wait)
        await rounds()
        clock.broken = True
        await trio.sleep_forever()

    async def goes_on() -> None:
        wake(waiters[0])
        assert waiters[0].done()
        assert here().is_closed() is False

    with pytest.raises(trio.TrioInternalError):
        trio.run(crashes, clock=clock)
    run(goes_on)
    tasks.clear()
    gc.collect()


# -- Tasks, timers and threads ----------------------------------------------------------------------------------------


def test_end_task_cancels_and_waits() -> None:
    """A task is over, its clean-up too, when `end_task` returns; one that is over already is no trouble."""

    async def story() -> None:
        runtime, cleaned = here(), list[str]()
        variable.set("the caller's")

        async def work() -> None:
            try:
                await runtime.create_waiter()
            finally:
                with trio.CancelScope(shield=True):
                    await rounds(3)
                cleaned.append(variable.get())

        task = runtime.start_task(work())
        await rounds(2)
        await runtime.end_task(task, 3600)
        assert task.done()
        assert cleaned == ["the caller's"]
        await runtime.end_task(task, 3600)

    run(story)


def test_end_task_waits_no_longer_than_it_may() -> None:
    """A task that swallows its cancellation is left to itself."""

    async def story() -> None:
        runtime = here()
        go = trio.Event()

        async def stubborn() -> None:
            with trio.CancelScope(shield=True):
                await go.wait()

        task = runtime.start_task(stubborn())
        await rounds(2)
        await runtime.end_task(task, 0.001)
        assert not task.done()
        go.set()
        await runtime.end_task(task, 3600)
        assert task.done()

    run(story)


def test_task_that_is_cancelled_first_never_begins() -> None:
    """It would call receive() once more, which does not wait if something is there."""

    async def story() -> None:
        runtime, begun = here(), list[int]()

        async def work() -> None:
            begun.append(1)

        task = runtime.start_task(work())
        await runtime.end_task(task, 3600)
        assert (task.done(), begun) == (True, [])

    run(story)


def test_task_may_be_cancelled_from_anywhere() -> None:
    """The garbage collector closes a request that nobody awaits, in any thread, and after the run as well."""
    tasks: list[Any] = []

    async def story() -> None:
        runtime = here()
        tasks.append(runtime.start_task(trio.sleep_forever()))
        await rounds(2)
        in_thread(tasks[-1].cancel).result()
        with trio.fail_after(BOUND_SECONDS):
            await tasks[-1].over.wait()
        tasks.append(runtime.start_task(trio.sleep_forever()))

    run(story)
    for task in tasks:
        assert task.done()
        task.cancel()


def test_task_and_timer_that_fail_do_not_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """Trio would end the run. It is logged."""

    async def story() -> None:
        runtime, called = here(), Signal("the timer after")

        async def fails() -> None:
            raise ValueError("of a task")

        def fails_later() -> None:
            raise ValueError("of a timer")

        task = runtime.start_task(fails())
        runtime.call_later(0, fails_later)
        runtime.call_later(0.001, called.set)
        runtime.call_later(0.0005, pytest.fail).cancel()
        await called.wait_in_task()
        assert task.done()

    run(story)
    assert sorted(str(record.exc_info[1]) for record in caplog.records if record.exc_info) == [
        "of a task",
        "of a timer",
    ]


def test_call_later_calls_in_an_empty_context_by_the_runs_clock() -> None:
    """A timer outlives the request that happens to start it."""

    async def story() -> None:
        variable.set("the caller's")
        runtime, seen, called = here(), list[object](), Signal("the timer")
        at = runtime.time()

        def later() -> None:
            seen.append((variable.get(), runtime.time() - at))
            called.set()

        runtime.call_later(600, later)
        await trio.sleep(599)
        assert seen == []
        await trio.sleep(1)
        await rounds()
        assert seen == [("none", 600.0)]

    trio.run(story, clock=trio.testing.MockClock(autojump_threshold=0))


def test_to_thread_calls_elsewhere_and_raises_here() -> None:
    """A function that blocks runs in a thread, and its error is raised to the caller."""

    async def story() -> None:
        runtime, threads = here(), list[int]()
        await runtime.to_thread(lambda number: threads.append(number + threading.get_ident()), 0)
        assert threads != [threading.get_ident()]
        with pytest.raises(ZeroDivisionError):
            await runtime.to_thread(divmod, 1, 0)

    run(story)


def test_shielded_clean_up_may_wait() -> None:
    """Trio cancels each wait of a task from then on, and asyncio one."""

    async def story() -> None:
        runtime, cleaned = here(), list[bool]()
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            finally:
                with runtime.shielded():
                    await runtime.to_thread(cleaned.append, True)
        assert cleaned == [True]

    run(story)


# -- Interruption -----------------------------------------------------------------------------------------------------


async def interrupted(function: Callable[[Any], Awaitable[object]]) -> tuple[object, bool]:
    """What comes of a wait that is interrupted, and whether it is ours."""
    runtime = here()
    interruption = runtime.interruption(runtime.loop)
    assert interruption.guard is not None
    result = await interruption.guard(function)(interruption)
    fired = interruption.fired
    assert interruption.settle() is fired
    assert interruption.settle() is False
    return result, fired


def test_interruption_ends_one_wait_and_no_more() -> None:
    """The task goes on, and may wait for something else."""

    async def story() -> None:
        async def waits(interruption: Any) -> None:
            here().call_later(0, interruption.fire)
            await trio.sleep_forever()

        assert await interrupted(waits) == (None, True)
        await trio.lowlevel.checkpoint()

    run(story)


def test_interruption_is_known_whatever_the_server_makes_of_it() -> None:
    """It may swallow Cancelled, or raise another error. What did not come of an interruption is none."""

    async def story() -> None:
        async def swallows(interruption: Any) -> int:
            interruption.fire()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                return 1
            return 2

        async def raises(interruption: Any) -> int:
            interruption.fire()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                raise ConnectionResetError from None
            return 2

        async def returns(_: Any) -> int:
            return 3

        assert await interrupted(swallows) == (1, True)
        assert await interrupted(returns) == (3, False)
        runtime = here()
        interruption = runtime.interruption(runtime.loop)
        assert interruption.guard is not None
        with pytest.raises(ConnectionResetError):
            await interruption.guard(raises)(interruption)
        assert interruption.settle() is True

    run(story)


@pytest.mark.parametrize("first", ["ours", "the server's"])
def test_cancellation_is_not_taken_for_an_interruption(first: str) -> None:
    """A server that cancels at the moment in which a request is interrupted has its Cancelled."""

    async def story() -> None:
        runtime = here()
        interruption = runtime.interruption(runtime.loop)
        assert interruption.guard is not None
        guarded = interruption.guard(trio.sleep_forever)
        scope = trio.CancelScope()
        actions = [interruption.fire, scope.cancel]

        def both() -> None:
            for action in actions if first == "ours" else reversed(actions):
                action()

        runtime.call_later(0, both)
        with scope:
            try:
                await guarded()
            except trio.Cancelled:
                assert interruption.settle() is False
                raise
        assert scope.cancelled_caught

    run(story)


def test_guest_of_asyncio_is_a_run_of_trio() -> None:
    """In trio's guest mode its tasks run within callbacks of asyncio's loop, which is not the one to ask."""
    seen: list[object] = []

    async def guest() -> None:
        assert asyncio.get_running_loop() is not None
        seen.append(running_trio())

    async def host() -> None:
        over = asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=over.set_result,
        )
        while not over.done():
            assert running_trio() is None  # this is no task of trio's, though the thread has a run
            await asyncio.sleep(0.001)
        over.result().unwrap()

    asyncio.run(host())
    assert len(seen) == 1
    assert seen[0] is not None


# -- A transport ------------------------------------------------------------------------------------------------------


class Recording(asyncio.Protocol):
    """A protocol that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.lost = Signal("the connection is lost")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.told.append(data)

    def eof_received(self) -> bool:
        self.told.append("eof")
        return True

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(None if exc is None else type(exc))
        self.lost.set()


async def connected(high_water: int = 1000) -> tuple[Any, Recording, socket.socket]:
    """A transport, its protocol, and the other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    protocol = Recording()
    return await here().connect(protocol, ours, high_water), protocol, theirs


def test_transport_carries_both_ways_and_closes_when_all_is_sent() -> None:
    """What was written before `close` arrives; what comes after it is not told."""

    async def story() -> None:
        transport, protocol, theirs = await connected()
        theirs.sendall(b"to us")
        await until(lambda: len(protocol.told) == 2)
        transport.write(bytes(3_000_000))
        transport.close()
        transport.write(b"too late")
        assert transport.is_closing()
        assert await in_thread(lambda: sum(iter(lambda: len(theirs.recv(65_536)), 0))).result_in_task() == 3_000_000
        await protocol.lost.wait_in_task()
        assert protocol.told == ["made", b"to us", "pause", "resume", None]
        theirs.close()

    run(story)


def test_transport_is_told_of_the_end_and_of_a_reset() -> None:
    """The other end may close for writing and read on; a write to one that is gone loses the connection."""

    async def story() -> None:
        transport, protocol, theirs = await connected()
        theirs.shutdown(socket.SHUT_WR)
        await until(lambda: protocol.told[-1] == "eof")
        transport.write(b"still read")
        assert await in_thread(theirs.recv, 100).result_in_task() == b"still read"
        theirs.close()
        transport.write(b"to nobody")
        await protocol.lost.wait_in_task()
        assert protocol.told in (["made", "eof", BrokenPipeError], ["made", "eof", ConnectionResetError])

    run(story)


class Moody(socket.socket):
    """A socket that does what it is asked for at the second time only, or fails.

    Attributes:
        fails: What it raises, by the name of the method; once each.
    """

    fails: dict[str, OSError]

    def _do(self, name: str) -> None:
        error = self.fails.pop(name, None)
        if error is not None:
            raise error

    def recv(self, *args: Any) -> bytes:
        self._do("recv")
        return super().recv(*args)

    def send(self, data: Any, *args: Any) -> int:
        self._do("send" if len(data) == 3 else "send the rest")
        return super().send(data, *args)

    def shutdown(self, how: int) -> None:
        self._do("shutdown")
        super().shutdown(how)


async def moody(fails: dict[str, OSError]) -> tuple[Any, Recording, socket.socket]:
    """As `connected`, with a socket that fails."""
    ours, theirs = socket.socketpair()
    sock = Moody(fileno=ours.detach())
    sock.fails = fails
    for each in (sock, theirs):
        each.setblocking(False)
    protocol = Recording()
    return await here().connect(protocol, sock, 1000), protocol, theirs


def test_transport_tries_again_when_the_system_took_a_socket_for_ready() -> None:
    """Linux, select(2), "BUGS": what was reported as ready may block nevertheless."""

    async def story() -> None:
        fails: dict[str, OSError] = {
            "recv": BlockingIOError(),
            "send": BlockingIOError(),
            "send the rest": BlockingIOError(),
        }
        transport, protocol, theirs = await moody(fails)
        theirs.send(b"up")
        await until(lambda: protocol.told == ["made", b"up"])
        transport.write(b"one")
        transport.write(b", two")
        transport.close()
        await protocol.lost.wait_in_task()
        assert protocol.told == ["made", b"up", None]
        assert theirs.recv(100) == b"one, two"
        assert fails == {}
        theirs.close()

    run(story)


def test_transport_whose_end_cannot_be_said_is_lost() -> None:
    """The client was quicker, and is gone: the protocol gets the system's error."""

    async def story() -> None:
        transport, protocol, theirs = await moody({"shutdown": BrokenPipeError()})
        transport.write_eof()
        await protocol.lost.wait_in_task()
        assert protocol.told == ["made", BrokenPipeError]
        theirs.close()

    run(story)


def test_transport_gives_nothing_while_it_is_paused() -> None:
    """From `pause_reading` on, also if it waits for the socket already."""

    async def story() -> None:
        transport, protocol, theirs = await connected()
        await rounds()
        transport.pause_reading()
        theirs.sendall(b"data")
        await trio.sleep(0.01)
        assert protocol.told == ["made"]
        transport.resume_reading()
        await until(lambda: protocol.told == ["made", b"data"])
        transport.abort()
        await protocol.lost.wait_in_task()
        theirs.close()

    run(story)


def test_transport_is_closed_with_its_run() -> None:
    """Even if it has only just been made."""
    kept: list[Any] = []

    async def story() -> None:
        kept.append(await connected())

    run(story)
    (_, protocol, theirs) = kept.pop()
    assert protocol.told == ["made", None]
    assert theirs.recv(1) == b""
    theirs.close()
