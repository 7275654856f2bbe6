"""A coroutine that a loop runs for a thread, where a user's task factory raises, or the loop ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from a2wsgi import ClientDisconnected
from a2wsgi._threads.call import Call
from a2wsgi._threads.runtime import Runtime


class Bell:
    """Calls what is rung at once, or says that the loop is closed."""

    def __init__(self, *, closed: bool = False) -> None:
        self.closed = closed

    def ring(self, function: Callable[[Any], object], argument: Any) -> bool:
        if not self.closed:
            function(argument)
        return not self.closed


class Loop:
    """A runtime, as far as a call uses it."""

    def __init__(self, start_task: Callable[[Any], Any], *, closed: bool = False) -> None:
        self.start_task = start_task
        self.doorbell = Bell(closed=closed)

    def is_cancellation(self, error: BaseException) -> bool:
        return isinstance(error, asyncio.CancelledError)

    was_cancelled = is_cancellation


async def never() -> None:
    """Must not begin."""
    raise AssertionError


def test_task_factory_that_raises_does_so_where_the_thread_waits() -> None:
    """The coroutine is closed, so Python does not warn that nobody awaited it."""
    coroutine: Any = never()

    def start_task(run: Any) -> Any:
        run.close()
        raise LookupError("of the task factory")

    with pytest.raises(LookupError, match="of the task factory"):
        Call(cast("Runtime", Loop(start_task)), coroutine).wait(None)
    assert coroutine.cr_frame is None


def test_loop_that_is_closed_already_runs_nothing() -> None:
    """The coroutine is closed, and the thread does not wait."""
    coroutine: Any = never()
    runtime = cast("Runtime", Loop(lambda _: None, closed=True))
    with pytest.raises(ClientDisconnected, match="the server's event loop was closed"):
        Call(runtime, coroutine).wait(None)
    assert coroutine.cr_frame is None


def test_coroutine_that_fails_when_nobody_waits_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """1. The thread is interrupted. 2. The coroutine is told to end. 3. It fails instead."""

    async def fails() -> None:
        raise LookupError("too late")

    call = Call(cast("Runtime", Loop(lambda _: None)), fails())
    call._abandoned = True
    asyncio.run(call._run())
    (record,) = caplog.records
    assert record.getMessage() == "A coroutine failed after its caller had stopped waiting for it"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "too late"
