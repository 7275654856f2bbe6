"""The waiter that runs its task in the step that ends its wait, on asyncio's loop and on uvloop's."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from a2wsgi._threads.prompt_waiter import PromptWaiter
from a2wsgi._threads.runtime import wake

Make = Callable[[], asyncio.AbstractEventLoop]
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


def _uvloop() -> asyncio.AbstractEventLoop:
    return pytest.importorskip("uvloop").new_event_loop()  # type: ignore[no-any-return]


def _tasks_in_python() -> asyncio.AbstractEventLoop:
    """A loop whose tasks are those that asyncio has where it has no C."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(lambda loop, coro, **options: asyncio.tasks._PyTask(coro, loop=loop, **options))  # type: ignore[attr-defined]
    return loop


@pytest.fixture(params=[asyncio.new_event_loop, _uvloop, _tasks_in_python], ids=["asyncio", "uvloop", "python"])
def loop(request: pytest.FixtureRequest) -> Any:
    """A loop that does not run."""
    made = request.param()
    made.set_debug(enabled=True)
    yield made
    made.close()


def turns(loop: asyncio.AbstractEventLoop, count: int = 1) -> None:
    """Let the loop go round."""
    for _ in range(count):
        loop.run_until_complete(asyncio.sleep(0))


def waiting(loop: asyncio.AbstractEventLoop, said: list[str]) -> tuple[PromptWaiter, asyncio.Task[None]]:
    """A waiter, and a task that awaits it."""
    waiter = PromptWaiter(loop)

    async def story() -> None:
        variable.set("the task's")
        try:
            await waiter
            said.append(f"woken in {variable.get()}")
        except asyncio.CancelledError as error:
            said.append(f"cancelled {error}")
            raise

    task = loop.create_task(story())
    turns(loop)
    assert not said
    return waiter, task


def test_task_goes_on_within_the_call_and_in_its_own_context(loop: asyncio.AbstractEventLoop) -> None:
    """A future's would go on one turn later."""
    said: list[str] = []
    waiter, task = waiting(loop, said)

    def callback() -> None:
        waiter.resume()
        said.append(f"resumed in {variable.get()}")
        waiter.resume()  # its wait is over: this does nothing

    loop.call_soon(callback)
    loop.run_until_complete(task)
    assert said == ["woken in the task's", "resumed in none"]


def test_wake_has_the_task_go_on_in_the_next_turn(loop: asyncio.AbstractEventLoop) -> None:
    """So that a task may end another's wait."""
    said: list[str] = []
    waiter, task = waiting(loop, said)

    async def other() -> None:
        wake(waiter)
        said.append("after the call")

    loop.run_until_complete(other())
    loop.run_until_complete(task)
    assert said == ["after the call", "woken in the task's"]


@pytest.mark.parametrize("resumed_after", [False, True])
def test_cancelled_wait_ends_with_the_message(loop: asyncio.AbstractEventLoop, *, resumed_after: bool) -> None:
    """As a future's does; a wake-up that comes too late does nothing."""
    said: list[str] = []
    waiter, task = waiting(loop, said)
    assert task.cancel("by the test")
    if resumed_after:
        waiter.resume()
        wake(waiter)
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    assert said == ["cancelled by the test"]
    assert waiter.cancel() is False


def test_task_that_was_cancelled_before_it_waits_does_not_wait(loop: asyncio.AbstractEventLoop) -> None:
    """Asyncio then cancels what the task is about to await."""
    waiter = PromptWaiter(loop)

    async def story() -> None:
        task.cancel()
        await waiter

    task = loop.create_task(story())
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    assert waiter.done()


def test_error_of_the_task_is_the_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Whoever resumes it does not get it."""
    waiter = PromptWaiter(loop)

    async def story() -> None:
        await waiter
        raise ValueError("the task's")

    task = loop.create_task(story())
    turns(loop)
    loop.call_soon(waiter.resume)
    turns(loop, 2)
    assert isinstance(task.exception(), ValueError)


def test_nothing_is_left_for_the_garbage_collector(loop: asyncio.AbstractEventLoop) -> None:
    """The task holds the waiter, and the waiter the task, while it waits and no longer."""
    said: list[str] = []
    gc.collect()
    gc.disable()
    try:
        waiter, task = waiting(loop, said)
        gone = weakref.ref(task)
        loop.call_soon(waiter.resume)
        loop.run_until_complete(task)
        del task
        turns(loop)
        assert gone() is None
    finally:
        gc.enable()


def test_wake_after_the_loop_was_closed_raises_nothing() -> None:
    """Nobody waits any more."""
    loop = asyncio.new_event_loop()
    waiter = PromptWaiter(loop)

    async def story() -> None:
        await waiter

    coroutine = story()
    waiting_for = coroutine.send(None)
    assert waiting_for is waiter
    waiter.add_done_callback(print, context=contextvars.copy_context())
    loop.close()
    wake(waiter)
    coroutine.close()
