"""Coroutines on asyncio, uvloop and trio alike, so that one test tells its story on each of them.

A test that has the fixture `runtime` runs once on each. All that it awaits is in here or built on it; what a test says
in asyncio's own words runs on asyncio alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, Generic, TypeVar

import pytest

from a2wsgi._threads.runtime import Runtime, running_trio, runtime_of

T = TypeVar("T")

KINDS = ["asyncio", "uvloop", "trio"]

#: How often a loop goes round before a task that was cancelled but not waited for counts as left behind.
ROUNDS_TO_END = 10


class JobCancelled(Exception):  # noqa: N818  # a name for what it is
    """A job was cancelled, and has ended by that."""


class TimeUp(Exception):  # noqa: N818  # likewise
    """What was given a time has taken longer."""


#: What is raised where a task that is cancelled waits.
CANCELLATIONS: tuple[type[BaseException], ...] = (asyncio.CancelledError,)
with contextlib.suppress(ImportError):
    import trio

    CANCELLATIONS = (*CANCELLATIONS, trio.Cancelled)

_kind = "asyncio"


@contextlib.contextmanager
def on(kind: str) -> Iterator[None]:
    """Have `run` run on that one of `KINDS`."""
    global _kind  # noqa: PLW0603 - one for all threads of a test
    before, _kind = _kind, kind
    try:
        yield
    finally:
        _kind = before


@pytest.fixture(params=KINDS)
def runtime(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs on each of `KINDS`."""
    kind = str(request.param)
    if kind != "asyncio":
        pytest.importorskip(kind)
    with on(kind):
        yield kind


@pytest.fixture(scope="session", autouse=True)
def _uvloop_has_its_pipe() -> None:
    """Have uvloop open what it keeps open for the process's signals, before anybody counts."""
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.new_event_loop().close()


def only_on(*kinds: str, reason: str) -> pytest.MarkDecorator:
    """Run a test on these of `KINDS` alone, for that reason."""
    assert reason
    return pytest.mark.parametrize("runtime", kinds, indirect=True)


def in_trio() -> bool:
    """Whether the caller is in a task of trio's."""
    lowlevel = sys.modules.get("trio.lowlevel")
    with contextlib.suppress(RuntimeError):
        return lowlevel is not None and lowlevel.current_task() is not None
    return False


def verbs() -> Runtime:
    """What the bridges have of the loop or run that the caller is in."""
    return runtime_of(running_trio() or asyncio.get_running_loop())


# -- Waiting ----------------------------------------------------------------------------------------------------------


class Waiter:
    """What one task waits for, and any thread ends. Made in the task."""

    def __init__(self) -> None:
        if in_trio():
            import trio

            self._event = trio.Event()
            self._token = trio.lowlevel.current_trio_token()
            self.wait: Callable[[], Awaitable[object]] = self._event.wait
            self.wake: Callable[[], None] = self._wake_trio
        else:
            self._future = asyncio.get_running_loop().create_future()
            self.wait = self._wait_future
            self.wake = self._wake_asyncio

    def _wake_trio(self) -> None:
        self._token.run_sync_soon(self._event.set)

    def _wake_asyncio(self) -> None:
        self._future.get_loop().call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def _wait_future(self) -> None:
        await self._future


async def rest() -> None:
    """Let the others go once."""
    if in_trio():
        import trio

        await trio.lowlevel.checkpoint()
    else:
        await asyncio.sleep(0)


async def pause(seconds: float) -> None:
    """Wait for a while."""
    if in_trio():
        import trio

        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


async def for_ever() -> Any:
    """Wait until it is cancelled."""
    await Waiter().wait()


def soon(function: Callable[[], object]) -> None:
    """Call ``function`` when the current task waits next."""
    if in_trio():
        import trio

        trio.lowlevel.current_trio_token().run_sync_soon(function)
    else:
        asyncio.get_running_loop().call_soon(function)


async def in_worker(function: Callable[[], T]) -> T:
    """Call ``function`` in a thread of the loop's, in a copy of the context."""
    if in_trio():
        import trio

        return await trio.to_thread.run_sync(function)
    return await asyncio.to_thread(function)


def semaphore(number: int) -> Any:
    """A semaphore of the running loop's kind."""
    if in_trio():
        import trio

        return trio.Semaphore(number)
    return asyncio.Semaphore(number)


async def within(seconds: float, main: Awaitable[T]) -> T:
    """What ``main`` returns, if that takes no longer.

    Raises:
        TimeUp: It took longer, and was cancelled.
    """
    if in_trio():
        import trio

        with trio.move_on_after(seconds):
            return await main
        raise TimeUp
    try:
        return await asyncio.wait_for(main, seconds)
    except asyncio.TimeoutError:
        raise TimeUp from None


# -- Jobs -------------------------------------------------------------------------------------------------------------


class Job(Generic[T]):
    """A coroutine that runs beside the one that has started it. Await it for what it returns or raises.

    Raises:
        JobCancelled: It has ended by being cancelled.
    """

    def __init__(self, main: Awaitable[T]) -> None:
        self._main = main
        self._result: list[T] = []
        self._error: BaseException | None = None
        if in_trio():
            import trio

            self._over = trio.Event()
            self._scope = trio.CancelScope()
            self.cancel: Callable[[], object] = self._scope.cancel
            self.done: Callable[[], bool] = self._over.is_set
            _nursery().start_soon(self._run)
        else:
            self._task = asyncio.ensure_future(main)
            self.cancel = self._task.cancel
            self.done = self._task.done

    async def _run(self) -> None:
        import trio

        try:
            with self._scope:
                self._result.append(await self._main)
            if self._scope.cancelled_caught:
                self._error = JobCancelled()
        except trio.Cancelled:
            raise
        except BaseException as error:  # noqa: BLE001 - raised to whoever awaits it
            self._error = error
        finally:
            self._over.set()

    def __await__(self) -> Generator[Any, None, T]:
        return self._outcome().__await__()

    async def _outcome(self) -> T:
        if not hasattr(self, "_over"):
            try:
                return await self._task
            except asyncio.CancelledError:
                if self._task.cancelled():
                    raise JobCancelled from None
                raise
        await self._over.wait()
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        return self._result[0]


def start(main: Awaitable[T]) -> Job[T]:
    """Run a coroutine beside the caller, under `run`."""
    return Job(main)


async def cancelled(job: Job[Any]) -> None:
    """See that a job ends by being cancelled."""
    with pytest.raises(JobCancelled):
        await job


async def gather(*mains: Awaitable[T]) -> list[T]:
    """What they return, having run beside each other. Jobs go on."""
    return [await job for job in [main if isinstance(main, Job) else start(main) for main in mains]]


# -- Running ----------------------------------------------------------------------------------------------------------


def run(main: Coroutine[Any, Any, T], seconds: float = math.inf, *, debug: bool = True) -> T:
    """Run ``main`` on a loop of its own, and see that it leaves no task and no error there.

    Args:
        main: A coroutine.
        seconds: When it is taken to hang.
        debug: Turn asyncio's debug mode on.
    """
    if _kind == "trio":
        return _run_trio(main, seconds)
    guarded = _guarded(main, None if seconds == math.inf else seconds)
    loop = _checked_loop(_kind)()
    try:
        asyncio.set_event_loop(loop)
        loop.set_debug(debug)
        loop.slow_callback_duration = math.inf  # a busy machine holds any step up, and tests compare what is logged
        result: T = loop.run_until_complete(guarded)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        return result
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@functools.cache
def _checked_loop(kind: str) -> type[asyncio.AbstractEventLoop]:
    """A loop whose debug mode checks threads and callbacks, but does not keep where each task and call was made.

    pytest's own stack is deep: walking it for each future took a third of the tests' time.
    """
    if kind == "uvloop":
        import uvloop

        base: Any = uvloop.Loop
    else:
        base = asyncio.SelectorEventLoop

    class CheckedLoop(base):  # type: ignore[misc]
        def get_debug(self) -> bool:
            """What futures, tasks and handles ask; the loop itself knows better."""
            return False

    return CheckedLoop


async def _guarded(main: Coroutine[Any, Any, T], seconds: float | None) -> T:
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unhandled.append(context))
    result = await asyncio.wait_for(main, seconds)
    left: set[asyncio.Task[Any]] = set()
    for _ in range(ROUNDS_TO_END):
        left = asyncio.all_tasks() - {task for task in [asyncio.current_task()] if task}
        if not left:
            break
        await asyncio.sleep(0)
    assert not left, f"Tasks were left behind: {left}"
    assert unhandled == []
    return result


class _Errors(logging.Handler):
    """What the bridge tells of the tasks that it has beside the caller's: asyncio has a handler for such errors."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.message.startswith(("A task of a request has failed", "A function that was scheduled for later")):
            self.found.append(record.message)

    def filter(self, record: logging.LogRecord) -> bool:
        record.message = record.getMessage()
        return True


_nurseries = threading.local()


def _nursery() -> Any:
    return _nurseries.of_this_thread


def _run_trio(main: Coroutine[Any, Any, T], seconds: float) -> T:
    import trio

    outcomes: list[T] = []
    errors: list[BaseException] = []  # taken out of the nursery, which would raise a group of them
    left: list[str] = []

    async def guarded() -> None:
        with trio.fail_after(seconds):
            async with trio.open_nursery() as nursery:
                _nurseries.of_this_thread = nursery
                try:
                    outcomes.append(await main)
                    left.extend(await _tasks_left(nursery))
                except Exception as error:  # noqa: BLE001 - raised below
                    errors.append(error)
                nursery.cancel_scope.cancel()

    told = _Errors()
    logging.getLogger("a2wsgi").addHandler(told)
    try:
        trio.run(guarded)
        if errors:
            raise errors[0]
    finally:
        del _nurseries.of_this_thread
        errors.clear()  # they hold this frame, by their tracebacks
        logging.getLogger("a2wsgi").removeHandler(told)
    assert not left, f"Tasks were left behind: {left}"
    assert told.found == []
    return outcomes[0]


async def _tasks_left(nursery: Any) -> list[str]:
    """The tasks that nobody waits for, those of a2wsgi that trio knows as system tasks among them."""
    import trio

    left: list[str] = []
    for _ in range(ROUNDS_TO_END):
        root = trio.lowlevel.current_root_task()
        assert root is not None
        system = {task for nursery in root.child_nurseries for task in nursery.child_tasks}
        system |= {task for one in system for nursery in one.child_nurseries for task in nursery.child_tasks}
        left = [task.name for task in nursery.child_tasks]
        left += [task.name for task in system if task.name.startswith("a2wsgi: a task")]
        if not left:
            break
        await trio.lowlevel.checkpoint()
    return left
