"""What a bridge asks of its event loop: a doorbell, a timer, and tasks that end."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from a2wsgi import MissingCapability, _runtime
from a2wsgi._runtime import Doorbell, Host, Interruption, Runtime, Runtimes, take_marks, wake, wake_all
from support.asgi_driver import run
from support.lockstep import BOUND_SECONDS, Lockstep, Signal
from support.threads import in_thread

variable = contextvars.ContextVar("variable", default="none")


def here() -> Runtime:
    """A runtime of the running loop."""
    return Runtime(asyncio.get_running_loop())


async def rounds(count: int = 5) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


# -- Doorbell ---------------------------------------------------------------------------------------------------------


def test_ring_calls_on_the_loop_thread_in_the_order_of_the_rings() -> None:
    """Threads ring in turn: what they rang is called in that order, on the loop's thread, with what was passed."""

    async def story() -> None:
        bell, step, calls, last = here().doorbell, Lockstep(), list[tuple[int, int]](), Signal("the last call")

        def called(number: int) -> None:
            calls.append((number, threading.get_ident()))
            if number == 30:
                last.set()

        def ring(first: int) -> None:
            for number in range(first, 31, 3):
                with step(number):
                    assert bell.ring(called, number) is True

        threads = [in_thread(ring, first) for first in (1, 2, 3)]
        await last.wait_in_task()
        assert calls == [(number, threading.get_ident()) for number in range(1, 31)]
        for thread in threads:
            thread.result()

    run(story())


def test_rings_before_the_answer_are_one_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ring, the loop is called once until it answers, and once more after it."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        wake_ups, original = [], loop.call_soon_threadsafe

        def call_soon_threadsafe(callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
            wake_ups.append(callback)
            return original(callback, *args, context=context)

        monkeypatch.setattr(loop, "call_soon_threadsafe", call_soon_threadsafe)
        bell, calls = Doorbell(loop), list[int]()
        for expected in (1, 2):
            for number in range(10):
                in_thread(bell.ring, calls.append, number).result()
            assert len(wake_ups) == expected
            await rounds()
        assert calls == [*range(10), *range(10)]

    run(story())


def test_ring_within_an_answer_is_answered() -> None:
    """What is called may ring itself."""

    async def story() -> None:
        bell, calls, end = here().doorbell, list[int](), Signal("the last call")

        def called(number: int) -> None:
            calls.append(number)
            if number:
                bell.ring(called, number - 1)
            else:
                end.set()

        bell.ring(called, 5)
        await end.wait_in_task()
        assert calls == [5, 4, 3, 2, 1, 0]

    run(story())


def test_ring_calls_in_an_empty_context() -> None:
    """The loop gets nothing of the context of whoever rings."""

    async def story() -> None:
        bell, seen, called = here().doorbell, list[str](), Signal("the call")

        def ring() -> None:
            variable.set("the thread's")
            bell.ring(look, None)

        def look(_: None) -> None:
            seen.append(variable.get())
            called.set()

        variable.set("the loop's")
        in_thread(ring).result()
        await called.wait_in_task()
        assert seen == ["none"]

    run(story())


def test_ring_says_that_the_loop_is_closed_each_time() -> None:
    """It never raises because a loop ended; it says that nobody will call, and keeps nothing of it."""

    class Argument:
        pass

    loop = asyncio.new_event_loop()
    bell, argument = Doorbell(loop), Argument()
    loop.close()
    gone = weakref.ref(argument)
    assert [bell.ring(print, argument) for _ in range(3)] == [False, False, False]
    del argument
    gc.collect()
    assert gone() is None


def test_ring_says_that_the_loop_was_closed_before_it_answered() -> None:
    """A loop that was closed with an answer under way never gives it."""
    loop = asyncio.new_event_loop()
    bell = Doorbell(loop)
    assert bell.ring(print, 1) is True
    loop.close()
    assert bell.ring(print, 2) is False


def test_ring_wakes_a_loop_that_sleeps() -> None:
    """A loop that waits in its selector is woken."""

    async def story() -> None:
        bell = here().doorbell
        waiter = asyncio.get_running_loop().create_future()
        thread = in_thread(bell.ring, wake, waiter)
        await asyncio.wait_for(waiter, BOUND_SECONDS)
        assert await thread.result_in_task() is True

    run(story())


def test_wake_ends_a_wait_once_and_minds_no_cancellation() -> None:
    """A waiter may have been woken or cancelled meanwhile."""

    async def story() -> None:
        runtime = here()
        waiters = [runtime.create_future() for _ in range(3)]
        waiters[1].cancel()
        wake_all(waiters)
        wake_all(waiters)
        assert [waiter.cancelled() for waiter in waiters] == [False, True, False]
        assert all(waiter.done() for waiter in waiters)

    run(story())


def test_wake_minds_no_closed_loop() -> None:
    """Nobody waits on a loop that was closed: to wake it is no error."""
    loop = asyncio.new_event_loop()
    waiter = loop.create_future()
    waiter.add_done_callback(print)
    loop.close()
    wake(waiter)


# -- The timer --------------------------------------------------------------------------------------------------------


class Clock:
    """Stands for a loop's timers: what is to be called later is called by `advance`.

    Attributes:
        calls: What is set, with its delay and its context.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[float, Callable[[], object], contextvars.Context | None]] = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_later", self._call_later)
        monkeypatch.setattr(loop, "time", lambda: 42.0)

    def _call_later(
        self, delay: float, callback: Callable[..., object], *args: object, context: contextvars.Context | None = None
    ) -> None:
        self.calls.append((delay, lambda: callback(*args), context))

    def advance(self) -> None:
        calls, self.calls = self.calls, []
        for _, callback, context in calls:
            (contextvars.copy_context() if context is None else context).run(callback)


class Request:
    """A request as the timer sees it."""

    def __init__(self, at_tick: Callable[[], object] = bool) -> None:
        self.ticks: list[float] = []
        self.at_tick = at_tick

    def tick(self, now: float) -> None:
        self.ticks.append(now)
        self.at_tick()

    def give_up(self, reason: str) -> None:
        raise NotImplementedError


def test_timer_is_set_only_while_requests_are_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """One timer for all of them, ten times a second; none when the last has left, and one again for the next."""

    async def story() -> None:
        runtime = here()
        with monkeypatch.context() as patch:
            clock = Clock(patch)
            first, second = Request(), Request()
            runtime.enter(first)
            runtime.enter(second)
            assert [delay for delay, _, _ in clock.calls] == [0.1]
            clock.advance()
            assert (first.ticks, second.ticks) == ([42.0], [42.0])
            assert len(clock.calls) == 1
            runtime.leave(first)
            clock.advance()
            assert (first.ticks, second.ticks) == ([42.0], [42.0, 42.0])
            runtime.leave(second)
            clock.advance()
            assert clock.calls == []
            runtime.enter(first)
            clock.advance()
            assert len(first.ticks) == 2
            runtime.leave(first)

    run(story())


def test_timer_never_meets_a_request_between_two_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short requests that come and go set the timer once, and are not visited."""

    async def story() -> None:
        runtime = here()
        with monkeypatch.context() as patch:
            clock = Clock(patch)
            requests = [Request() for _ in range(5)]
            for request in requests:
                runtime.enter(request)
                runtime.leave(request)
            assert len(clock.calls) == 1
            clock.advance()
            assert clock.calls == []
            assert [request.ticks for request in requests] == [[]] * 5

    run(story())


def test_timer_holds_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor what its context holds: a request that has left is gone though the timer is still set."""

    class Payload:
        pass

    payload_variable: contextvars.ContextVar[Payload] = contextvars.ContextVar("payload_variable")

    async def short(runtime: Runtime) -> list[weakref.ref[Any]]:
        request, payload = Request(), Payload()
        payload_variable.set(payload)
        runtime.enter(request)
        runtime.leave(request)
        return [weakref.ref(request), weakref.ref(payload)]

    async def story() -> None:
        runtime = here()
        monkeypatch.setattr(_runtime, "TICK_SECONDS", 3600.0)
        gone = await asyncio.create_task(short(runtime))
        await rounds(1)
        gc.collect()
        assert [reference() for reference in gone] == [None, None]

    run(story())


def test_timer_ticks_in_the_context_of_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a request is asked by the timer, it does not do as the request that came first."""

    async def story() -> None:
        runtime, seen = here(), list[str]()
        variable.set("the first request's")
        with monkeypatch.context() as patch:
            clock = Clock(patch)
            request = Request(lambda: seen.append(variable.get()))
            runtime.enter(request)
            clock.advance()
            clock.advance()
            runtime.leave(request)
        assert seen == ["none", "none"]

    run(story())


def test_timer_lets_requests_leave_and_enter_within_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A visit may end this request, another, or bring a new one."""

    async def story() -> None:
        runtime = here()
        with monkeypatch.context() as patch:
            clock = Clock(patch)
            late, later = Request(), Request()

            def change(old: Request, new: Request) -> None:
                runtime.leave(old)
                runtime.enter(new)

            first = Request(lambda: change(first, late))
            second = Request(lambda: change(second, later))
            runtime.enter(first)
            runtime.enter(second)
            clock.advance()
            assert runtime.in_flight == {late, later}
            assert (late.ticks, later.ticks) == ([], [])
            clock.advance()
            assert (late.ticks, later.ticks) == ([42.0], [42.0])
            runtime.leave(late)
            runtime.leave(later)

    run(story())


def test_timer_runs_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a loop's own timers it ticks again and again."""

    async def story() -> None:
        monkeypatch.setattr(_runtime, "TICK_SECONDS", 0.001)
        runtime, thrice = here(), Signal("three ticks")
        request = Request(lambda: thrice.set() if len(request.ticks) == 3 else None)
        runtime.enter(request)
        await thrice.wait_in_task()
        runtime.leave(request)
        assert request.ticks == sorted(request.ticks)

    run(story())


# -- drain ------------------------------------------------------------------------------------------------------------


def test_drain_waits_for_the_last_request() -> None:
    """It is over when nothing is in flight, and at once where nothing is; two may wait."""

    async def story() -> None:
        runtime = here()
        await runtime.drain(BOUND_SECONDS)
        requests = [Request(), Request()]
        for request in requests:
            runtime.enter(request)
        drains = [asyncio.create_task(runtime.drain(3600)) for _ in range(2)]
        await rounds()
        runtime.leave(requests[0])
        await rounds()
        assert not any(drain.done() for drain in drains)
        runtime.leave(requests[1])
        await asyncio.wait_for(asyncio.gather(*drains), BOUND_SECONDS)

    run(story())


def test_drain_ends_when_its_time_is_over() -> None:
    """A request that does not end is waited for no longer than that; the next drain waits anew."""

    async def story() -> None:
        runtime, request = here(), Request()
        runtime.enter(request)
        await asyncio.wait_for(runtime.drain(0.001), BOUND_SECONDS)
        assert runtime.in_flight == {request}
        drain = asyncio.create_task(runtime.drain(3600))
        await rounds()
        drain.cancel()
        await rounds()
        drain = asyncio.create_task(runtime.drain(3600))
        await rounds()
        assert not drain.done()
        runtime.leave(request)
        await asyncio.wait_for(drain, BOUND_SECONDS)

    run(story())


# -- Tasks and threads ------------------------------------------------------------------------------------------------


def test_end_task_cancels_and_waits() -> None:
    """A task is over, its clean-up too, when `end_task` returns; one that is over already is no trouble."""

    async def story() -> None:
        runtime, cleaned = here(), list[str]()

        async def work() -> None:
            try:
                await runtime.create_future()
            finally:
                await rounds(3)
                cleaned.append("up")

        task = runtime.start_task(work())
        await rounds(1)
        await asyncio.wait_for(runtime.end_task(task, 3600), BOUND_SECONDS)
        assert task.cancelled()
        assert cleaned == ["up"]
        await asyncio.wait_for(runtime.end_task(task, 3600), BOUND_SECONDS)

    run(story())


def test_end_task_waits_no_longer_than_it_may() -> None:
    """A task that swallows its cancellation is left to itself."""

    async def story() -> None:
        runtime = here()
        go = runtime.create_future()

        async def stubborn() -> None:
            while not go.done():
                try:
                    await asyncio.shield(go)
                except asyncio.CancelledError:
                    continue

        task = runtime.start_task(stubborn())
        await rounds(1)
        await asyncio.wait_for(runtime.end_task(task, 0.001), BOUND_SECONDS)
        assert not task.done()
        go.set_result(None)
        await task

    run(story())


def test_in_thread_calls_elsewhere_and_raises_here() -> None:
    """A function that blocks runs in a thread of the loop's executor, and its error is raised to the caller."""

    async def story() -> None:
        runtime, threads = here(), list[int]()
        await runtime.in_thread(lambda number: threads.append(number + threading.get_ident()), 0)
        assert threads != [threading.get_ident()]
        with pytest.raises(ZeroDivisionError):
            await runtime.in_thread(divmod, 1, 0)

    run(story())


def test_here_is_the_loop_that_runs() -> None:
    """Outside of a loop there is none."""

    async def story() -> None:
        assert Runtimes().here().loop is asyncio.get_running_loop()

    run(story())
    with pytest.raises(MissingCapability, match="asyncio"):
        Runtimes().here()


def test_host_gives_closed_gates_and_calls_soon() -> None:
    """A gate is closed until somebody opens it; what is called soon is called after this step."""

    async def story() -> None:
        host = Host(asyncio.get_running_loop())
        gate, other = host.gate(), host.gate()
        assert gate is not other
        assert not gate.acquire(blocking=False)
        calls: list[int] = []
        host.soon(lambda: calls.append(1))
        assert calls == []
        await rounds()
        assert calls == [1]
        with pytest.raises(NotImplementedError):
            host.trouble()

    run(story())


# -- Interruption -----------------------------------------------------------------------------------------------------


async def interrupted(*cancel: str) -> tuple[bool, bool, int]:
    """Interrupt a task, and cancel it besides ``before`` and ``after``.

    Returns:
        What `is_ours` says, whether the task was cancelled in the end, and how many cancellations are left to it.
    """
    made: list[Interruption] = []
    verdicts: list[bool] = []
    left: list[int] = []

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        if "stale" in cancel:  # cancelled once, and carried on, as a server's task may have before it calls us
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(0)
        made.append(Interruption(asyncio.get_running_loop()))
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            verdicts.append(made[0].is_ours())
            if sys.version_info >= (3, 11):
                left.append(task.cancelling())
            if not verdicts[0]:
                raise

    task = asyncio.ensure_future(work())
    await rounds()
    if "before" in cancel:
        task.cancel()
    made[0].fire()
    made[0].fire()
    if "after" in cancel:
        task.cancel()
    await asyncio.wait((task,), timeout=BOUND_SECONDS)
    return verdicts[0], task.cancelled(), left[0] if left else 0


def test_interruption_ends_a_wait_and_leaves_no_trace() -> None:
    """Its CancelledError is told to be ours, and is not counted by the task any more."""
    assert run(interrupted()) == (True, False, 0)


def test_interruption_is_told_from_a_cancellation_long_ago() -> None:
    """A task that was cancelled once, and went on, is interrupted as any."""
    assert run(interrupted("stale")) == (True, False, 1 if sys.version_info >= (3, 11) else 0)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task of 3.10 does not count its cancellations")
@pytest.mark.parametrize("when", ["before", "after"])
def test_interruption_swallows_no_cancellation_by_others(when: str) -> None:
    """A server that cancels in the same round of the loop, before us or after, has its task cancelled."""
    assert run(interrupted(when)) == (False, True, 1)


def test_interruption_that_was_not_fired_is_not_ours() -> None:
    """A cancellation by the server is the server's."""

    async def story() -> None:
        interruption = Interruption(asyncio.get_running_loop())
        assert not interruption.is_ours()

    run(story())


# -- Marks of an error ------------------------------------------------------------------------------------------------


def test_take_marks_takes_what_is_set_to_the_error_and_nothing_else() -> None:
    """The error itself and a weak reference to it come over; another error, and anything else, stay."""

    class OddError(Exception):
        pass

    error, another = OddError(), OddError()
    values = {"strong": error, "weak": weakref.ref(error), "other": another, "other weak": weakref.ref(another), "x": 1}
    variables = {name: contextvars.ContextVar[object](name, default="unset") for name in values}

    def inside() -> contextvars.Context:
        for name, value in values.items():
            variables[name].set(value)
        return contextvars.copy_context()

    context = contextvars.copy_context().run(inside)

    def outside() -> None:
        take_marks(error, context)
        taken = {name: variables[name].get() for name in values if variables[name].get() != "unset"}
        assert taken == {"strong": error, "weak": values["weak"]}

    contextvars.copy_context().run(outside)
