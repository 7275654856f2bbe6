"""The verbs of the runtime: a doorbell, waiters, and tasks that end."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from typing import Any

import pytest

from a2wsgi._threads.runtime import (
    Doorbell,
    Runtime,
    carry_reporter_marks,
    wake,
    wake_all,
)
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


class FromOutside(BaseException):
    """Raised into a thread by another one, as ``stopit`` does."""


@pytest.mark.parametrize("told", [False, True])
def test_ring_that_is_cut_short_loses_no_ring(told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception from outside that hits a ring, before or after the loop was told, leaves the doorbell working."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        original = loop.call_soon_threadsafe

        def cut_short(*args: Any, **options: Any) -> None:
            monkeypatch.setattr(loop, "call_soon_threadsafe", original)
            if told:
                original(*args, **options)
            raise FromOutside

        monkeypatch.setattr(loop, "call_soon_threadsafe", cut_short)
        bell, calls = Doorbell(loop), list[int]()
        with pytest.raises(FromOutside):
            bell.ring(calls.append, 1)
        await rounds()
        assert calls == [1]
        bell.ring(calls.append, 2)
        await rounds()
        assert calls == [1, 2]

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


def test_ring_that_fails_does_not_drop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever rang besides is answered, in order, and the exception is logged."""

    async def story() -> None:
        bell, calls, end = here().doorbell, list[int](), Signal("the last call")

        def fails(_: object) -> None:
            raise ValueError("of one call")

        for function, argument in ((calls.append, 1), (fails, 2), (calls.append, 3), (fails, 4), (end.set, 5)):
            bell.ring(function, argument)
        await end.wait_in_task()
        assert calls == [1, 3]

    run(story())
    assert [record.exc_info and str(record.exc_info[1]) for record in caplog.records] == ["of one call"] * 2


def test_ring_that_ends_the_loop_leaves_the_others_for_its_next_run() -> None:
    """``SystemExit`` leaves a loop, whose owner may run it again: what else was rung is called then, in order."""
    loop, calls = asyncio.new_event_loop(), list[int]()
    bell = Doorbell(loop)

    def ends(_: object) -> None:
        bell.ring(calls.append, 2)
        raise SystemExit

    bell.ring(ends, None)
    bell.ring(calls.append, 1)
    with pytest.raises(SystemExit):
        loop.run_forever()
    bell.ring(lambda _: loop.stop(), None)
    loop.run_forever()
    loop.close()
    assert calls == [1, 2]


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
        waiters = [asyncio.get_running_loop().create_future() for _ in range(3)]
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


# -- Tasks and threads ------------------------------------------------------------------------------------------------


def test_end_task_cancels_and_waits() -> None:
    """A task is over, its clean-up too, when `end_task` returns; one that is over already is no trouble."""

    async def story() -> None:
        runtime, cleaned = here(), list[str]()

        async def work() -> None:
            try:
                await runtime.create_waiter()
            finally:
                await rounds(3)
                cleaned.append("up")

        task = runtime.start_task(work())
        assert isinstance(task, asyncio.Task)
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
        go = runtime.create_waiter()

        async def stubborn() -> None:
            while not go.done():
                try:
                    await asyncio.shield(go)
                except asyncio.CancelledError:
                    continue

        task = runtime.start_task(stubborn())
        assert isinstance(task, asyncio.Task)
        await rounds(1)
        await asyncio.wait_for(runtime.end_task(task, 0.001), BOUND_SECONDS)
        assert not task.done()
        go.set_result(None)
        await task

    run(story())


def test_to_thread_calls_elsewhere_and_raises_here() -> None:
    """A function that blocks runs in a thread of the loop's executor, and its error is raised to the caller."""

    async def story() -> None:
        runtime, threads = here(), list[int]()
        await runtime.to_thread(lambda number: threads.append(number + threading.get_ident()), 0)
        assert threads != [threading.get_ident()]
        with pytest.raises(ZeroDivisionError):
            await runtime.to_thread(divmod, 1, 0)

    run(story())


# -- Marks of an error ------------------------------------------------------------------------------------------------


def test_reporter_marks_take_what_is_set_to_the_error_and_nothing_else() -> None:
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
        carry_reporter_marks(error, context)
        taken = {name: variables[name].get() for name in values if variables[name].get() != "unset"}
        assert taken == {"strong": error, "weak": values["weak"]}

    contextvars.copy_context().run(outside)


def test_ring_that_is_not_answered_is_found_by_a_look() -> None:
    """1. A thread is about to tell the loop, and is held up. 2. Another rings. 3. It looks after that."""

    async def story() -> None:
        bell, calls = Doorbell(asyncio.get_running_loop()), list[int]()
        in_thread(bell.look_soon).result()  # nobody has rung
        bell._answering = True
        in_thread(bell.ring, calls.append, 1).result()
        await rounds()
        assert calls == []
        in_thread(bell.look_soon).result()
        await rounds()
        assert calls == [1]

    run(story())


def test_look_minds_no_closed_loop() -> None:
    """Nobody answers any more."""
    loop = asyncio.new_event_loop()
    bell = Doorbell(loop)
    bell._answering = True
    bell.ring(print, 1)
    loop.close()
    bell.look_soon()
