"""A bridge's loops: the timer of the requests in flight, their end, and the interruption of a task."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from a2wsgi import MissingCapability, WSGIMiddleware
from a2wsgi._threads.runtime import Interruption, Runtime
from a2wsgi._wsgi_on_asgi import loops as _loops
from a2wsgi._wsgi_on_asgi.loops import BridgeLoop, BridgeLoops
from apps import hello
from support.asgi_driver import answer, run
from support.lockstep import BOUND_SECONDS, Signal

variable = contextvars.ContextVar("variable", default="none")


def here() -> BridgeLoop:
    """The running loop, as a bridge's."""
    return BridgeLoop(Runtime(asyncio.get_running_loop()))


async def rounds(count: int = 5) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


# -- The timer --------------------------------------------------------------------------------------------------------


class Clock:
    """Stands for a loop's timers: what is to be called later is called by `advance`.

    Attributes:
        calls: What is set, with its delay and its context.
        now: The time.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[float, Callable[[], object], contextvars.Context | None]] = []
        loop = asyncio.get_running_loop()
        self.now = 42.0
        monkeypatch.setattr(loop, "call_later", self._call_later)
        monkeypatch.setattr(loop, "time", lambda: self.now)

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

    def abort(self, ending: object, error: object, detail: object = "") -> None:
        raise NotImplementedError

    def renew_locks(self) -> None:
        raise NotImplementedError


def test_timer_is_set_only_while_requests_are_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """One timer for all of them, ten times a second; none when the last has left, and one again for the next."""

    async def story() -> None:
        loop = here()
        with monkeypatch.context() as patch:
            clock = Clock(patch)
            first, second = Request(), Request()
            loop.enter(first)
            loop.enter(second)
            assert [delay for delay, _, _ in clock.calls] == [0.1]
            clock.advance()
            assert (first.ticks, second.ticks) == ([42.0], [42.0])
            assert len(clock.calls) == 1
            loop.leave(first)
            clock.advance()
            assert (first.ticks, second.ticks) == ([42.0], [42.0, 42.0])
            loop.leave(second)
            clock.advance()
            assert clock.calls == []
            loop.enter(first)
            clock.advance()
            assert len(first.ticks) == 2
            loop.leave(first)

    run(story())


def test_timer_never_meets_a_request_between_two_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short requests that come and go set the timer once, and are not visited."""

    async def story() -> None:
        loop = here()
        with monkeypatch.context() as patch:
            clock = Clock(patch)
            requests = [Request() for _ in range(5)]
            for request in requests:
                loop.enter(request)
                loop.leave(request)
            assert len(clock.calls) == 1
            clock.advance()
            assert clock.calls == []
            assert [request.ticks for request in requests] == [[]] * 5

    run(story())


def test_timer_is_set_though_ctrl_c_was_in_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some programs go on with their loop after it. The request that it ended is not waited for."""

    def call_later(*_: object) -> None:
        raise KeyboardInterrupt

    loop = asyncio.new_event_loop()
    bridge: Any = WSGIMiddleware(hello.app)
    with monkeypatch.context() as patch:
        patch.setattr(Runtime, "call_later", call_later)
        request = loop.create_task(answer(bridge))
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(request)
        with pytest.raises(KeyboardInterrupt):
            request.result()
    (here,) = bridge._shared.loops.known()
    assert not here.in_flight
    set_again: list[float] = []
    monkeypatch.setattr(Runtime, "call_later", lambda _, seconds, __: set_again.append(seconds))
    assert loop.run_until_complete(answer(bridge)).body == b"hello"
    assert set_again == [0.1]
    loop.close()


def test_timer_is_set_though_its_tick_could_not_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """For want of memory, say. The next request sets it."""

    async def story() -> None:
        loop = here()
        with monkeypatch.context() as patch:
            clock = Clock(patch)
            first, second = Request(), Request()
            loop.enter(first)
            with monkeypatch.context() as worse:
                worse.setattr(asyncio.get_running_loop(), "call_later", _no_memory)
                with pytest.raises(MemoryError):
                    clock.advance()
            loop.enter(second)
            clock.advance()
            assert (first.ticks, second.ticks) == ([42.0], [42.0])
            loop.leave(first)
            loop.leave(second)

    run(story())


def _no_memory(*_: object, **__: object) -> None:
    raise MemoryError


def test_timer_holds_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor what its context holds: a request that has left is gone though the timer is still set."""

    class Payload:
        pass

    payload_variable: contextvars.ContextVar[Payload] = contextvars.ContextVar("payload_variable")

    async def short(loop: BridgeLoop) -> list[weakref.ref[Any]]:
        request, payload = Request(), Payload()
        payload_variable.set(payload)
        loop.enter(request)
        loop.leave(request)
        return [weakref.ref(request), weakref.ref(payload)]

    async def story() -> None:
        loop = here()
        monkeypatch.setattr(_loops, "TICK_SECONDS", 3600.0)
        gone = await asyncio.create_task(short(loop))
        await rounds(1)
        gc.collect()
        assert [reference() for reference in gone] == [None, None]

    run(story())


def test_timer_ticks_in_the_context_of_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a request is asked by the timer, it does not do as the request that came first."""

    async def story() -> None:
        loop, seen = here(), list[str]()
        variable.set("the first request's")
        with monkeypatch.context() as patch:
            clock = Clock(patch)
            request = Request(lambda: seen.append(variable.get()))
            loop.enter(request)
            clock.advance()
            clock.advance()
            loop.leave(request)
        assert seen == ["none", "none"]

    run(story())


def test_timer_lets_requests_leave_and_enter_within_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A visit may end this request, another, or bring a new one."""

    async def story() -> None:
        loop = here()
        with monkeypatch.context() as patch:
            clock = Clock(patch)
            late, later = Request(), Request()

            def change(old: Request, new: Request) -> None:
                loop.leave(old)
                loop.enter(new)

            first = Request(lambda: change(first, late))
            second = Request(lambda: change(second, later))
            loop.enter(first)
            loop.enter(second)
            clock.advance()
            assert loop.in_flight == {late, later}
            assert (late.ticks, later.ticks) == ([], [])
            clock.advance()
            assert (late.ticks, later.ticks) == ([42.0], [42.0])
            loop.leave(late)
            loop.leave(later)

    run(story())


def test_time_in_which_the_loop_stood_still_counts_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of it does. What has come meanwhile is taken after the tick: no client was silent so long."""

    async def story() -> None:
        loop = here()
        with monkeypatch.context() as patch:
            clock = Clock(patch)
            request = Request()
            loop.enter(request)
            for later in (0.0, 0.125, 0.5, 100.0, 0.125, 0.625):
                clock.now += later
                clock.advance()
            assert request.ticks == [42.0, 42.125, 42.625, 43.125, 43.25, 43.75]
            loop.leave(request)

    run(story())


def test_timer_runs_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a loop's own timers it ticks again and again."""

    async def story() -> None:
        monkeypatch.setattr(_loops, "TICK_SECONDS", 0.001)
        loop, thrice = here(), Signal("three ticks")
        request = Request(lambda: thrice.set() if len(request.ticks) == 3 else None)
        loop.enter(request)
        await thrice.wait_in_task()
        loop.leave(request)
        assert request.ticks == sorted(request.ticks)

    run(story())


# -- drain ------------------------------------------------------------------------------------------------------------


def test_drain_waits_for_the_last_request() -> None:
    """It is over when nothing is in flight, and at once where nothing is; two may wait."""

    async def story() -> None:
        loop = here()
        await loop.drain(BOUND_SECONDS)
        requests = [Request(), Request()]
        for request in requests:
            loop.enter(request)
        drains = [asyncio.create_task(loop.drain(3600)) for _ in range(2)]
        await rounds()
        loop.leave(requests[0])
        await rounds()
        assert not any(drain.done() for drain in drains)
        loop.leave(requests[1])
        await asyncio.wait_for(asyncio.gather(*drains), BOUND_SECONDS)

    run(story())


def test_drain_ends_when_its_time_is_over() -> None:
    """A request that does not end is waited for no longer than that; the next drain waits anew."""

    async def story() -> None:
        loop, request = here(), Request()
        loop.enter(request)
        await asyncio.wait_for(loop.drain(0.001), BOUND_SECONDS)
        assert loop.in_flight == {request}
        drain = asyncio.create_task(loop.drain(3600))
        await rounds()
        drain.cancel()
        await rounds()
        drain = asyncio.create_task(loop.drain(3600))
        await rounds()
        assert not drain.done()
        loop.leave(request)
        await asyncio.wait_for(drain, BOUND_SECONDS)

    run(story())


# -- The loops of a bridge -------------------------------------------------------------------------------------------


def test_here_is_the_loop_that_runs() -> None:
    """Outside of a loop there is none."""

    async def story() -> None:
        assert BridgeLoops(list).here().runtime.loop is asyncio.get_running_loop()

    run(story())
    with pytest.raises(MissingCapability, match="asyncio"):
        BridgeLoops(list).here()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_child_waits_for_no_lock_of_its_parent() -> None:
    """Another thread looks a loop up as the process is forked: nobody would ever release its lock in the child."""
    loops = BridgeLoops(list)
    with loops._lock:
        child = os.fork()
        if child == 0:
            locked = loops._lock.acquire(blocking=False)
            os._exit(0 if locked else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_child_that_goes_on_with_its_parents_loop_has_one_of_its_own() -> None:
    """The loop as the parent used it counts as closed in the child: responses would end after a second."""
    loops = BridgeLoops(list)

    async def is_live() -> bool:
        return loops.here().is_live()

    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(is_live())
        child = os.fork()
        if child == 0:
            os._exit(0 if loop.run_until_complete(is_live()) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        loop.close()


# -- Interruption -----------------------------------------------------------------------------------------------------


async def interrupted(*cancel: str) -> tuple[bool, bool, int]:
    """Interrupt a task, and cancel it besides ``before`` and ``after``.

    Returns:
        What `settle` says, whether the task was cancelled in the end, and how many cancellations are left to it.
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
            verdicts.append(made[0].settle())
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
        assert not interruption.settle()

    run(story())


def test_interruption_of_a_task_whose_loop_is_closed_raises_nothing() -> None:
    """A loop that was thrown away leaves its tasks where they wait, and the ending that interrupts one goes on."""
    made: list[Interruption] = []

    async def wait() -> None:
        made.append(Interruption(asyncio.get_running_loop()))
        with contextlib.suppress(GeneratorExit):
            await asyncio.get_running_loop().create_future()

    loop = asyncio.new_event_loop()
    coroutine = wait()
    task = loop.create_task(coroutine)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    made[0].fire()
    assert made[0].fired
    coroutine.close()
    left: Any = task
    left._log_destroy_pending = False  # else asyncio complains of it
