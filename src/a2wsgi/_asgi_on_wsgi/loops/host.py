"""The event loops that server threads wait for: what they have in common, and the user's.

Strategy
    `GivenHost` is a loop that the user runs. Those of ours, which all bridges share, are in `shared_loop`, and the one
    that the server threads run themselves is in `inline_loop`.

    A server thread waits at a *gate*, which it gets from its `LoopHost` and the loop opens. Here a gate is a lock. To
    the code above, all kinds of loops are the same.

Guarantees
    - A loop that has ended, for whatever reason, tells by `LoopHost.trouble`, and the requests on it fail. The next
      request starts another.

Assumes
    `forget_given` is called in a forked child before anything else here.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, cast

from a2wsgi._asgi_on_wsgi import faults
from a2wsgi._asgi_on_wsgi.server_socket import uwsgi_has_threads
from a2wsgi._log import logger
from a2wsgi._threads.runtime import Doorbell, Runtime, renew_lock, wake

from .greenlets import runs_here

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from a2wsgi._asgi_on_wsgi.to_server import ToServer


_T = TypeVar("_T")

#: How often a thread that waits looks whether the loop still runs. Arbitrary, but the error of a loop that has ended
#: is to be there within a second.
LOOK_SECONDS = 0.5

#: How long cancelled tasks may take to end when their loop does. Arbitrary.
CANCEL_SECONDS = 1.0

#: The loops that users have given us. Those that ran in a thread when the process was forked do not run in the child,
#: whatever they say: a fork copies no other thread.
_given: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_lost_in_fork: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

_uwsgi_is_checked = False


class LoopUser(Protocol):
    """Who relies on a loop: the `Lifetime` of a bridge."""

    def loop_ended(self, host: LoopHost, error: Callable[[], BaseException]) -> None:
        """Hear that the loop has ended though it has users. Loop thread. Its tasks are cancelled next.

        Args:
            host: The loop.
            error: Makes the error that says why. Each request needs one of its own.
        """


# -- What all kinds share ---------------------------------------------------------------------------------------------


class LoopHost(Runtime):
    """An event loop that server threads call and wait for. Its kinds differ in who runs it.

    Attributes:
        before_wait: Calls a function after the current step of the app, before the loop waits. Loop thread.
        create_task: Starts a request's task. Loop thread.
        look_seconds: How often a thread that waits asks for `trouble`.
        wakes_late: Whether even the last wake-up of a thread is best left to `before_wait`.
    """

    __slots__ = ("before_wait", "create_task")

    wakes_late = False
    look_seconds = LOOK_SECONDS

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.before_wait: Callable[[Callable[[], object]], object] = loop.call_soon
        self.create_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = loop.create_task

    def has_ended(self) -> bool:
        """Whether a shared loop has ended under its users. Any thread."""
        return False

    @property
    def one_at_a_time(self) -> threading.RLock | None:
        """A lock that a request holds until its response begins, if requests run one at a time. A server thread."""
        return None

    def gate(self) -> threading.Lock:
        """A closed gate, for the calling thread to wait at until the loop opens it. Any thread."""
        gate = threading.Lock()
        gate.acquire()
        return gate

    def trouble(self) -> BaseException | None:
        """Why the loop will do nothing any more; None while it runs. Any thread."""
        raise NotImplementedError

    def refuse_own_thread(self) -> None:
        """Raise if the calling thread runs this very loop: it would wait for itself for ever."""
        # Fast path: is_here() would be one more call a request (tests/test_call_counts.py).
        if asyncio._get_running_loop() is self.loop and runs_here(self.loop):  # noqa: SLF001 - public to authors of event loops
            raise faults.own_thread()

    def is_here(self) -> bool:
        return asyncio._get_running_loop() is self.loop and runs_here(self.loop)  # noqa: SLF001 - public to them, too

    def run(self, make: Callable[[], Coroutine[Any, Any, _T]], seconds: float | None = None) -> _T:
        """Run the coroutine that ``make`` makes on the loop, and wait for it. Any thread but the loop's.

        Raises:
            BridgeError: The loop has ended, or did not do it in ``seconds``: an app may hold up its thread.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        trouble = self.trouble() if self.loop.is_closed() else None  # one that does not run yet may do so soon
        if trouble is not None:
            raise trouble

        try:
            future = self._submit(make)
        except RuntimeError:  # it is being closed, or was a moment ago
            raise self.trouble() or faults.loop_stopped() from None
        try:
            while not concurrent.futures.wait((future,), LOOK_SECONDS).done:
                trouble = self.trouble()
                if trouble is None and deadline is not None and time.monotonic() > deadline:
                    trouble = faults.loop_held_up()
                if trouble is not None:
                    raise trouble  # noqa: TRY301 - cancels the future, as does an exception from outside
        except BaseException:
            future.cancel()
            raise
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            if self.has_ended():
                raise self.trouble() or faults.loop_stopped() from None
            raise

    def _submit(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> concurrent.futures.Future[_T]:
        """Begin `run`. To cancel the future cancels the coroutine.

        Raises:
            RuntimeError: The loop takes no more calls.
        """

        async def call() -> _T:
            return await make()  # made on the loop: one that is closed first leaves no coroutine that nobody awaits

        coroutine = call()
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError:
            coroutine.close()
            raise

    @staticmethod
    async def late_of(tasks: Iterable[asyncio.Task[None]], seconds: float) -> Iterable[asyncio.Task[None]]:
        """Wait at most ``seconds`` for ``tasks``, of which there is one at least; return those that have not ended."""
        return (await asyncio.wait(tasks, timeout=seconds))[1]

    async def end_tasks(self, tasks: Iterable[asyncio.Task[None]], seconds: float) -> None:
        """Wait until all ``tasks``, of which there is one at least, have ended. Cancel those that take too long."""
        late = await self.late_of(tasks, seconds)
        for task in late:
            task.cancel()
        if late:
            await self.late_of(late, CANCEL_SECONDS)

    def let_finish(self, stream: ToServer, seconds: float) -> None:
        """Let an aborted request end, which will be cancelled after ``seconds``. A server thread.

        A loop that has a thread goes on by itself, so there is nothing to do.
        """

    def take_back(self, request: object) -> None:
        """Forget a request that nobody waits for, and whose app was not started. A server thread.

        A loop of ours that does not run any more is thrown away, with all that was asked of it.
        """

    def renew_locks(self) -> None:
        """Make anew what another thread may have held as the process was forked. In the child."""
        if isinstance(cast("object", self.doorbell), Doorbell):  # that of a `FastLoop` is the loop itself, without one
            renew_lock(self.doorbell)

    def release(self, user: LoopUser) -> None:
        """Let ``user`` go. A loop of ours ends with its last user. Any thread."""

    def join(self, seconds: float) -> None:
        """Wait until a loop without users has ended, at most ``seconds``. Any thread but the loop's."""


# -- The user's loop --------------------------------------------------------------------------------------------------


class GivenHost(LoopHost):
    """A loop that the user runs in a thread of their own."""

    __slots__ = ()

    def trouble(self) -> BaseException | None:
        if self.loop.is_running() and self.loop not in _lost_in_fork:
            return None
        return faults.loop_stands_still(self.loop)

    def take_back(self, request: object) -> None:
        # 1. The user's loop is stopped, but not closed. 2. Each request that comes fails, and would stay with it.
        self.doorbell.take_back(request)


# -- A server without threads ------------------------------------------------------------------------------------------


def warn_of_uwsgi_without_threads() -> None:
    """Warn, once a process, of a uWSGI that runs no thread but its own between requests."""
    global _uwsgi_is_checked  # noqa: PLW0603 - once a process
    if _uwsgi_is_checked or "uwsgi" not in sys.modules:
        return
    _uwsgi_is_checked = True
    if not uwsgi_has_threads():
        logger.warning(
            "uWSGI runs without threads, so the event loop and its background tasks stand still between requests. "
            "Start uWSGI with --enable-threads, or create the bridge with inline=True."
        )


# -- The end of a loop ------------------------------------------------------------------------------------------------


def close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left on a loop that does not run, and close it, as ``asyncio.run`` does. Raises nothing."""
    if loop.is_closed():
        return  # somebody else has done it
    for step in (_let_stop, _cancel_tasks, _end_generators, _end_executor, _end_calls):
        try:
            step(loop)
        except BaseException as error:  # noqa: BLE001 - of an app, which may also cancel the task that waits here
            logger.exception("Something that an app left on the event loop did not end cleanly")
            if isinstance(error, Exception):
                break  # the loop is broken
    try:
        loop.close()
    except Exception:  # noqa: BLE001 - of a selector that an app has broken; there is nothing left to do
        logger.debug("The event loop could not be closed", exc_info=True)


def _let_stop(loop: asyncio.AbstractEventLoop) -> None:
    """Let a stop that is still due take effect, of a run that an exception has cut short. It would end a later one."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def _end_calls(loop: asyncio.AbstractEventLoop) -> None:
    """End what other threads have had the loop begin meanwhile, and may wait for, as asgiref does."""
    # 1. It takes no more. 2. What it took begins. 3. That is cancelled.
    with contextlib.suppress(AttributeError):  # uvloop's
        loop.call_soon_threadsafe = _refuse  # type: ignore[method-assign]
    _run(loop, asyncio.sleep(0))
    _cancel_tasks(loop)


def _run(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, object]) -> None:
    try:
        loop.run_until_complete(coroutine)
    finally:
        coroutine.close()  # a broken loop has not begun it


def _refuse(*_: object, **__: object) -> NoReturn:
    """Stand in for ``call_soon_threadsafe()``, as if the loop were closed already."""
    raise RuntimeError("Event loop is closed")


def _end_generators(loop: asyncio.AbstractEventLoop) -> None:
    """Close asynchronous generators. One may wait for ever as it is closed; what is late is cancelled with the rest."""
    _run(loop, asyncio.wait({loop.create_task(loop.shutdown_asyncgens())}, timeout=CANCEL_SECONDS))


def _end_executor(loop: asyncio.AbstractEventLoop) -> None:
    # It needs a thread, and Python 3.12.0 to 3.12.2 start none while the process ends.
    with contextlib.suppress(RuntimeError):
        _run(loop, _shut_executor_down(loop))


async def _shut_executor_down(loop: asyncio.AbstractEventLoop) -> None:
    """Call ``shutdown_default_executor()``, with a bound. Its own ``timeout`` is new in Python 3.12."""
    executor = getattr(loop, "_default_executor", None)
    if executor is None:
        await loop.shutdown_default_executor()
        return
    ended = loop.create_future()

    def end() -> None:
        executor.shutdown()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(wake, ended)

    thread = threading.Thread(target=end, name="a2wsgi-executor-end", daemon=True)
    thread.start()
    if (await asyncio.wait((ended,), timeout=CANCEL_SECONDS))[0]:
        thread.join()
    else:
        logger.warning("A thread of asyncio.to_thread() is still running, though its event loop has ended")


def _cancel_tasks(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        _run(loop, asyncio.wait(tasks, timeout=CANCEL_SECONDS))


# -- Forks: called by exit_and_fork -----------------------------------------------------------------------------------


def expect_given(loop: asyncio.AbstractEventLoop) -> None:
    """Know of a loop that was given as ``loop=``, in case the process is forked."""
    _given.add(loop)


def forget_given() -> None:
    """Know, in a forked child, that the loops which users had given run in the parent alone."""
    _lost_in_fork.update(loop for loop in _given if loop.is_running())
