"""What this wing uses of an event loop, over one run of trio's.

Strategy
    The methods of `TrioLoop` are those of asyncio's loop that `LoopHost`, `Request` and the others call, and do the
    same. So the wing reads the same for both libraries:

    ==========================  =======================================================================================
    ``call_soon_threadsafe``    ``TrioToken.run_sync_soon``
    ``create_task``             a system task with a cancel scope of its own
    ``call_later``              a system task that sleeps
    ``create_future``           ``wait_task_rescheduled`` and ``reschedule``: a `TrioWaiter`
    ``add_reader``              a system task and ``wait_readable``
    ``before_wait``             an instrument's ``before_io_wait``
    ``stop``                    the main task ends, and trio cancels the system tasks
    ==========================  =======================================================================================

Guarantees
    - Nothing that a function or a task raises ends the run. trio's own system tasks would end it.
    - The run ends within `CANCEL_SECONDS` of its main task, also if a task swallows its cancellation or shields itself
      from it. A task that does is left where it is. Only code that blocks the thread holds up the end.
    - ``ended`` is called before any task sees that the run is cancelled, whoever has cancelled it.

Assumes
    - trio asks its clock on each turn, and ends the run if that raises: `trio.abc.Clock` is public, and trio's
      documentation has whatever escapes there be a ``TrioInternalError``.
    - ``TrioToken.run_sync_soon`` may be called from any thread, and by a finalizer or a signal handler in the middle of
      anything: it holds a re-entrant lock, and no code but trio's runs meanwhile.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import trio

from a2wsgi._log import logger
from a2wsgi._threads.runtime import wake_all
from a2wsgi._threads.runtime_trio import TrioTimer, TrioWaiter

from .host import CANCEL_SECONDS

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Generator

#: The roots of runs that were given up, with all their tasks. Kept: the coroutine of a task that is collected is ended
#: where it stands, and trio's cancel scopes and nurseries fail outside a run.
_given_up: list[trio.lowlevel.Task] = []


class TrioTask:
    """A task, with what is used of asyncio's. Loop thread."""

    __slots__ = ("_callbacks", "_done", "_error", "_loop", "_scope", "_waiters")

    def __init__(self, loop: TrioLoop) -> None:
        self._loop = loop
        self._scope = trio.CancelScope()
        self._done = False
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Any], object]] = []
        self._waiters: list[TrioWaiter] = []

    async def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Await ``coroutine``, and tell whoever waits for its end. Raises nothing: trio would end the run."""
        try:
            with self._scope:
                await coroutine
        except BaseException as error:  # noqa: BLE001 - told by exception(), or by the log
            self._error = error
            if isinstance(error, Exception) and not self._callbacks:
                logger.exception("A task of a bridge has failed")
        finally:
            self._done = True
            waiters, self._waiters = self._waiters, []
            wake_all(waiters)
            for callback in self._callbacks:
                _call(callback, self)

    def done(self) -> bool:
        return self._done

    def cancel(self) -> None:
        self._scope.cancel()

    def cancelled(self) -> bool:
        """Whether it has ended because it, or the whole run, was cancelled."""
        return self._done and (issubclass(type(self._error), trio.Cancelled) or self._scope.cancelled_caught)

    def exception(self) -> BaseException | None:
        return self._error

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self._callbacks.append(callback)

    def __await__(self) -> Generator[Any, None, None]:
        return self.wait().__await__()

    async def wait(self) -> None:
        """Wait for its end, whatever that is. Any number of tasks may."""
        if not self._done:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter


class TrioLoop:
    """One run of trio's, with the methods of an event loop. Its thread makes it, and calls `run`."""

    def __init__(self) -> None:
        self._token: trio.lowlevel.TrioToken | None = None
        self._main_task: trio.lowlevel.Task | None = None  # while it waits for `stop`
        self._closed = False
        self._readers: dict[socket.socket, TrioTask] = {}
        self._turns = _Turns()
        self._thread = threading.get_ident()
        #: Calls a function before the loop waits for anything. Loop thread.
        self.before_wait: Callable[[Callable[[], object]], object] = self._turns.due.append

    # -- Any thread ---------------------------------------------------------------------------------------------------

    def is_closed(self) -> bool:
        return self._closed

    def is_running(self) -> bool:
        return self._token is not None and not self._closed

    def is_here(self) -> bool:
        """Whether the calling thread is the loop's."""
        return threading.get_ident() == self._thread

    def call_soon_threadsafe(
        self,
        function: Callable[..., object],
        *args: Any,  # noqa: ANN401 - passed on as they are
        context: contextvars.Context | None = None,
    ) -> None:
        """As asyncio's.

        Raises:
            RuntimeError: The run has ended.
        """
        if self._token is None or self._closed:
            raise trio.RunFinishedError("the trio run has ended")
        context = contextvars.copy_context() if context is None else context
        try:
            self._token.run_sync_soon(functools.partial(context.run, _call, function, *args))
        except OSError as error:  # of its pipe, which is closed: a run that was given up does not say that it has ended
            raise trio.RunFinishedError("the trio run was abandoned") from error

    # -- The loop thread ----------------------------------------------------------------------------------------------

    call_soon = call_soon_threadsafe

    def time(self) -> float:
        return self._turns.current_time()

    def create_future(self) -> TrioWaiter:
        return TrioWaiter(self)

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> TrioTask:
        task = TrioTask(self)
        trio.lowlevel.spawn_system_task(
            task.run, coroutine, name=getattr(coroutine, "__qualname__", None), context=contextvars.copy_context()
        )
        return task

    @staticmethod
    def call_later(
        seconds: float,
        function: Callable[..., object],
        *args: Any,  # noqa: ANN401 - passed on as they are
        context: contextvars.Context | None = None,
    ) -> TrioTimer:
        timer = TrioTimer(seconds, functools.partial(_call, function, *args))
        context = contextvars.copy_context() if context is None else context.copy()
        trio.lowlevel.spawn_system_task(timer.run, context=context)
        return timer

    def add_reader(self, sock: socket.socket, function: Callable[[], object]) -> None:
        """As asyncio's, of a socket."""

        async def read() -> None:
            while self._readers.get(sock) is task:  # the function may have removed it, and closed the socket
                await trio.lowlevel.wait_readable(sock)
                _call(function)

        task = self._readers[sock] = self.create_task(read())

    def remove_reader(self, sock: socket.socket) -> None:
        reader = self._readers.pop(sock, None)
        if reader is not None:
            reader.cancel()

    def stop(self) -> None:
        """End the run. What is left on it is cancelled."""
        task, self._main_task = self._main_task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def run(self, started: Callable[[], object], ended: Callable[[], object]) -> None:
        """Run until `stop`. Raises what breaks the run.

        Args:
            started: Called once the other methods can be. It must not raise.
            ended: Called if the run is cancelled otherwise: by an app that cancels the system tasks, or by a system
                task of an app's that fails. It must not raise.
        """
        # In an empty context, of which trio gives a copy to each task that asks for no other.
        main = functools.partial(self._main, started, ended)
        run = functools.partial(trio.run, main, clock=self._turns, instruments=[self._turns])
        try:
            contextvars.Context().run(run)
        except trio.TrioInternalError as error:
            if not isinstance(error.__cause__, _GivenUp):
                raise
            logger.error(
                "A task that an app left in the trio run did not end when it was cancelled, and was abandoned. Let "
                "trio.Cancelled pass, and do not shield anything from it without a timeout."
            )
        finally:
            self._closed = True
            self._turns.call_due()  # threads may wait for that

    async def _main(self, started: Callable[[], object], ended: Callable[[], object]) -> None:
        # 1. Whoever cancels the run has trio abort the wait of each task. 2. This wait's abort calls `ended`, by which
        # the requests learn why. 3. Only then does trio run the tasks, the requests' among them, which see Cancelled.
        def abort(_: object) -> trio.lowlevel.Abort:
            self._main_task = None
            _call(ended)
            return trio.lowlevel.Abort.SUCCEEDED

        self._token = trio.lowlevel.current_trio_token()
        self._main_task = trio.lowlevel.current_task()
        started()
        with contextlib.suppress(trio.Cancelled):  # that has been told by `ended`
            await trio.lowlevel.wait_task_rescheduled(abort)
        self._turns.give_up_after(CANCEL_SECONDS)


class _GivenUp(BaseException):
    """Ends a run whose tasks do not end."""


class _Turns(trio.abc.Clock, trio.abc.Instrument):
    """What is done on each turn of a run: trio's clock, which can end it, and what is called before a wait."""

    def __init__(self) -> None:
        self.due: deque[Callable[[], object]] = deque()
        self._last = math.inf  # when the run is given up
        self._is_over = False

    def give_up_after(self, seconds: float) -> None:
        """End the run after so many seconds, unless it ends by itself."""
        self._last = self.current_time() + seconds

    def call_due(self) -> None:
        """Call what `TrioLoop.before_wait` was given, and what it is given meanwhile."""
        while self.due:
            _call(self.due.popleft())

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - as the instrument's
        if self.due:
            self.call_due()
        # 1. This is called. 2. trio looks for events. 3. trio asks for the time, outside any task, and gets _GivenUp.
        if self._last is not math.inf and time.monotonic() >= self._last:
            self._is_over = True
            _given_up.append(cast("trio.lowlevel.Task", trio.lowlevel.current_root_task()))

    def start_clock(self) -> None:
        """There is nothing to start."""

    def current_time(self) -> float:
        if self._is_over:
            self._is_over = False  # whoever asks later, outside the run, asks for the time
            raise _GivenUp
        return time.monotonic()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return min(deadline, self._last) - time.monotonic()


def _call(function: Callable[..., object], *args: object) -> None:
    """Call a function, for which nobody waits here, and log what it raises: it would end the run."""
    try:
        function(*args)
    except BaseException:  # noqa: BLE001 - SystemExit too: the loop is everybody's
        logger.exception("A function scheduled on trio's loop has failed")
