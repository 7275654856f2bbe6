"""The verbs of `Runtime` on trio. Imported only where trio runs.

Strategy
    ``trio.run`` has no object that outlives a call of it, so a `TrioRun` stands for one: it has what a `Doorbell` needs
    of a loop, and knows when the run is over. Tasks beside the caller, and timers, are system tasks: a nursery for each
    request would cost more than most requests.

    trio cancels by scopes and not by tasks. So `TrioInterruption` has a scope around each wait that may be ended from
    outside, and a task has one around all that it does.

Guarantees
    - Those of `Doorbell`: a ring that finds the run over says so, and raises nothing.
    - ``trio.Cancelled`` is never caught, but that of a scope of our own, which trio itself catches.
    - No system task of ours ends in an exception of the server's or of the app's, which trio would take for a fault of
      its own and end the run.

Assumes
    Everything but `TrioRun`'s methods is called in a task of its run.
    trio, "Low-level operations in Trio": a call of ``run_sync_soon()`` that raises nothing is answered before the run
    ends, system tasks are cancelled when the main task has ended, and KeyboardInterrupt is not raised in them.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
import os
import time
from typing import TYPE_CHECKING, Any, Protocol, cast

import trio

from a2wsgi._errors import members_of
from a2wsgi._log import logger

from .runtime import Doorbell, Interruption, Runtime, wake
from .transport_trio import TrioTransport

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable, Coroutine, Generator

    from .handles import Task, Timer, Transport, Waiter

#: How often a run is asked whether it is still there. When trio finds a fault in itself, it leaves its tasks where they
#: wait, and so nothing of ours tells. Half of what threads take to look, so that each look may ask.
PROBE_SECONDS = 0.5


class TrioRun:
    """One call of ``trio.run``, with what a `Doorbell` needs of a loop. Make it in a task of that run.

    Attributes:
        token: trio's own name for the run.
        pid: The process that it is in: a child that was forked in it cannot go on with it.
    """

    def __init__(self) -> None:
        self.token = trio.lowlevel.current_trio_token()
        self.pid = os.getpid()
        self._ended = False  # written by the run's thread, or by one that finds it out
        self._probed_at = time.monotonic()
        trio.lowlevel.spawn_system_task(self._note_end, name="a2wsgi: the end of the run")

    async def _note_end(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._ended = True

    def is_closed(self) -> bool:
        """Whether the run's main task has ended, or the run has crashed or is another process's. Any thread."""
        if self.pid != os.getpid():
            return True
        now = time.monotonic()
        if not self._ended and now - self._probed_at >= PROBE_SECONDS:
            self._probed_at = now
            try:
                self.token.run_sync_soon(_nothing, idempotent=True)
            except (trio.RunFinishedError, OSError):  # after a crash trio says that its socket is closed
                self._ended = True
        return self._ended

    def call_soon_threadsafe(self, callback: Callable[[], object], *, context: contextvars.Context) -> None:
        """Have the run call ``callback`` in ``context``. Any thread.

        Raises:
            RuntimeError: The run has ended. trio says RunFinishedError, which is one.
        """
        self.token.run_sync_soon(context.run, callback)

    call_soon = call_soon_threadsafe

    def is_here(self) -> bool:
        """Whether the caller is in this run, and not in another or in none. Any thread."""
        try:
            return trio.lowlevel.current_trio_token() is self.token
        except RuntimeError:
            return False


def _nothing() -> None:
    pass


#: One for all bridges that are called in a run.
_run: trio.lowlevel.RunVar[TrioRun] = trio.lowlevel.RunVar("a2wsgi")


def running() -> TrioRun | None:
    """The run that the current task belongs to; None if that is no task of trio's. Any thread."""
    try:
        trio.lowlevel.current_task()  # in guest mode other code of the thread has a run as well, and no task
        run = _run.get()
    except RuntimeError:
        return None
    except LookupError:
        run = TrioRun()
        _run.set(run)
    return run if run.pid == os.getpid() else None


class Run(Protocol):
    """What a waiter asks of a run."""

    def is_here(self) -> bool:
        """Whether the caller is in it."""
        raise NotImplementedError


class TrioWaiter:
    """What tasks await until it is set. See `Waiter`."""

    __slots__ = ("_done", "_run", "_tasks")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._done = False
        self._tasks: list[trio.lowlevel.Task] = []  # that wait

    def done(self) -> bool:
        return self._done

    def set_result(self, _result: None, /) -> None:
        self._done = True
        tasks, self._tasks = self._tasks, []
        # What a run leaves when it crashes is closed anywhere, perhaps in another run, which must not go on with it.
        if tasks and self._run.is_here():
            for task in tasks:
                trio.lowlevel.reschedule(task)

    async def wait(self) -> None:
        """Wait until it is set. A cancelled wait leaves it as it is."""
        if not self._done:
            task = trio.lowlevel.current_task()
            self._tasks.append(task)
            # 1. It is set, which schedules the task. 2. The task is cancelled before it goes on. trio does not ask
            # to abort then: that wait is over.
            await trio.lowlevel.wait_task_rescheduled(functools.partial(self._abort, task))

    def _abort(self, task: trio.lowlevel.Task, _raise_cancel: object) -> trio.lowlevel.Abort:
        if task in self._tasks:  # else its run has crashed, and trio is being taken apart
            self._tasks.remove(task)
        return trio.lowlevel.Abort.SUCCEEDED

    async def _await(self) -> None:
        try:
            await self.wait()
        finally:
            self._done = True  # also if it was cancelled, as a future is

    def __await__(self) -> Generator[Any, None, None]:
        return self._await().__await__()


class TrioInterruption(Interruption):
    """Ends what a task awaits within `guard`, from outside. See `Interruption`."""

    __slots__ = ("_scope",)

    def __init__(self, _run: object) -> None:
        self.fired = False
        self._scope: trio.CancelScope | None = None  # of the wait that may be ended

    def fire(self) -> None:
        """Cancel what the task awaits within `guard`. In the run; once."""
        if not self.fired:
            self.fired = True
            if self._scope is not None:
                self._scope.cancel()

    @property
    def guard(self) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """See `Interruption`. What is made returns None if `fire` has ended its wait."""
        return self._guard

    def _guard(self, function: Callable[..., Any]) -> Callable[..., Any]:

        async def guarded(*args: object) -> Any:  # noqa: ANN401 - what the function returns
            try:
                with trio.CancelScope() as self._scope:
                    if self.fired:
                        self._scope.cancel()
                    return await function(*args)
            except Exception:
                raise
            except BaseException:
                # The scope catches Cancelled if it alone was cancelled. What comes here is somebody else's: the server
                # has cancelled the request as well, or Python has interrupted it. So it must be raised.
                self.fired = False
                raise

        return guarded

    def settle(self) -> bool:
        """Whether what came of the wait comes from `fire`. Once."""
        fired, self.fired = self.fired, False
        return fired


class _Task:
    """A coroutine in a system task. See `Task`."""

    def __init__(self, run: TrioRun, coroutine: Coroutine[Any, Any, None]) -> None:
        self._run = run
        self._coroutine = coroutine
        self._scope = trio.CancelScope()
        self.over = trio.Event()

    async def run(self) -> None:
        try:
            with self._scope:
                if self._scope.cancel_called:
                    self._coroutine.close()  # it was cancelled before it began, and must not call receive() any more
                else:
                    await self._coroutine
        except Exception:  # noqa: BLE001 - trio would end the run
            logger.exception("A task of a request has failed")
        finally:
            self.over.set()

    def done(self) -> bool:
        return self.over.is_set()

    def cancel(self) -> None:
        if self._run.is_here():
            self._scope.cancel()
        else:  # a request that nobody awaits any more is closed by the garbage collector, in any thread
            with contextlib.suppress(trio.RunFinishedError):
                self._run.token.run_sync_soon(self._scope.cancel)


class TrioTimer:
    """A function that is called later. See `Timer`."""

    def __init__(self, seconds: float, function: Callable[[], object]) -> None:
        self._seconds = seconds
        self._function = function
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        with self._scope:
            await trio.sleep(max(self._seconds, 0))  # it takes no negative number, as asyncio's call_later() does
            try:
                self._function()
            except Exception:  # noqa: BLE001 - trio would end the run
                logger.exception("A function that was scheduled for later has failed")

    def cancel(self) -> None:
        self._scope.cancel()


class TrioRuntime(Runtime):
    """One run of trio, with the verbs that bridges use."""

    __slots__ = ("_run",)

    interruption = TrioInterruption

    def __init__(self, run: TrioRun) -> None:
        self._run = run
        # It is compared, and given to the doorbell. Nothing else of a loop's is asked of it.
        self.loop = cast("asyncio.AbstractEventLoop", run)
        self.doorbell = Doorbell(self.loop)
        self.create_waiter = self.create_prompt_waiter = functools.partial(TrioWaiter, run)
        self.resume = wake

    def is_inherited(self) -> bool:
        """See `Runtime.is_inherited`."""
        return self._run.pid != os.getpid()

    def is_here(self) -> bool:
        """See `Runtime.is_here`."""
        return self._run.is_here()

    def time(self) -> float:
        """See `Runtime.time`."""
        return trio.current_time()

    def call_later(self, seconds: float, function: Callable[[], object]) -> Timer:
        """See `Runtime.call_later`."""
        timer = TrioTimer(seconds, function)
        trio.lowlevel.spawn_system_task(timer.run, context=contextvars.Context())
        return timer

    @staticmethod
    async def wait(waiter: Waiter, seconds: float | None) -> None:
        """See `Runtime.wait`."""
        with trio.move_on_after(math.inf if seconds is None else seconds):
            await cast("TrioWaiter", waiter).wait()

    def start_task(self, coroutine: Coroutine[Any, Any, None]) -> Task:
        """See `Runtime.start_task`.

        Raises:
            RuntimeError: The run is about to end. The coroutine is closed.
        """
        task = _Task(self._run, coroutine)
        try:
            trio.lowlevel.spawn_system_task(
                task.run, name=f"a2wsgi: a task, {coroutine!r}", context=contextvars.copy_context()
            )
        except BaseException:
            coroutine.close()
            raise
        return task

    @staticmethod
    async def end_task(task: Task, seconds: float) -> None:
        """See `Runtime.end_task`."""
        if not task.done():
            task.cancel()
            with trio.move_on_after(seconds):
                await cast("_Task", task).over.wait()

    @staticmethod
    def is_cancellation(error: BaseException) -> bool:
        """See `Runtime.is_cancellation`. A nursery whose tasks were all cancelled raises a group."""
        if issubclass(type(error), trio.Cancelled):
            return True
        members = members_of(error)
        return bool(members) and all(map(TrioRuntime.is_cancellation, members))

    @classmethod
    def was_cancelled(cls, error: BaseException) -> bool:
        """See `Runtime.was_cancelled`. Nothing else raises ``trio.Cancelled``, and a scope within keeps its own."""
        return cls.is_cancellation(error)

    @staticmethod
    async def go_round() -> None:
        """See `Runtime.go_round`."""
        await trio.lowlevel.checkpoint()

    async def to_thread(self, function: Callable[..., object], *args: object) -> None:
        """See `Runtime.to_thread`. Cancelled, it leaves the thread to itself, as asyncio does."""
        await trio.to_thread.run_sync(functools.partial(function, *args), abandon_on_cancel=True)

    async def connect(self, protocol: asyncio.Protocol, sock: socket.socket, high_water: int) -> Transport:
        """See `Runtime.connect`."""
        return TrioTransport(self, protocol, sock, high_water)

    @staticmethod
    def shielded() -> contextlib.AbstractContextManager[object]:
        """See `Runtime.shielded`. trio cancels each wait of a task from then on."""
        return trio.CancelScope(shield=True)
