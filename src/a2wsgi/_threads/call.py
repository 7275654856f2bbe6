"""One coroutine that a loop runs while a thread waits for what comes of it.

Strategy
    The thread rings the loop and waits at a gate. The loop runs the coroutine in a task of its own, in a copy of the
    thread's context, and opens the gate at its end. By then the result or the error lies in the `Call`. No future is
    made, and nothing is called back.

    Whoever wants the coroutine to end early tells the loop by `Call.end`, with the error that the thread is to get. The
    loop decides, so the first word counts.

Guarantees
    - The thread gets the very object that the coroutine returned or raised, unless the coroutine was ended early and
      its cancellation came out of it.
    - No exception of the coroutine reaches the loop, not even ``SystemExit``.
    - A coroutine that is not run is closed: Python does not warn that it was never awaited.
    - The wait ends with the coroutine, `GRACE_SECONDS` after that was told to end, or with the loop.
    - A loop that cancels its tasks as it ends is a `ClientDisconnected`, but on Python 3.10 a bare ``CancelledError``.
    - An exception that another thread raises into the waiting thread ends the coroutine.

Assumes
    A task may be cancelled before its first step, in which case none of it runs. Only a loop that ends does so: `end`
    waits for the first step.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Coroutine
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from a2wsgi._errors import ClientDisconnected
from a2wsgi._log import logger

from .stream import LOOK_SECONDS, loop_closed

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .handles import Task
    from .runtime import Runtime

_T = TypeVar("_T")

#: Seconds that a coroutine may take to end once it was told to: as long as the app of an `ASGIMiddleware`.
GRACE_SECONDS = 10.0


def close_unawaited(awaitable: object) -> None:
    """Close a coroutine that nobody will await. Any other awaitable is left alone: its ``close()`` may be anything."""
    if isinstance(awaitable, Coroutine | GeneratorType):
        with contextlib.suppress(Exception):  # whatever a coroutine that is not Python's own may raise
            awaitable.close()


class Call(Generic[_T]):
    """One coroutine, run by a loop for a thread that waits.

    Args:
        runtime: The loop.
        awaitable: The coroutine, or anything that can be awaited there.

    Attributes:
        context: What the coroutine runs in: a copy of the caller's context. Once `wait` has returned or raised, it is
            as the coroutine has left it.
    """

    __slots__ = (
        "_abandoned",
        "_awaitable",
        "_begun",
        "_failure",
        "_gate",
        "_reason",
        "_result",
        "_runtime",
        "_task",
        "context",
    )

    def __init__(self, runtime: Runtime, awaitable: Awaitable[_T]) -> None:
        self.context = contextvars.copy_context()
        self._runtime = runtime
        self._awaitable = awaitable
        self._gate = threading.Lock()
        self._gate.acquire()
        # The thread writes this, and the loop thread reads it.
        self._abandoned = False  # the thread waits no more, though the coroutine may run
        # The loop thread writes these. The thread reads them once the gate is open. Before that it looks at _task and
        # _reason once a second, for how long it waits. When it gives up, it writes a _reason of its own: from then on
        # it only keeps `_end` from cancelling the task again, for which any will do.
        self._task: Task | None = None
        self._begun = False
        self._reason: BaseException | None = None  # why it was told to end
        self._result: _T | None = None
        self._failure: BaseException | None = None

    # -- The thread -----------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None) -> _T:
        """Have the loop run the coroutine, and wait for its end.

        Args:
            timeout: Seconds that it may take; None sets no bound.

        Raises:
            BaseException: What the coroutine raised, or the error that `end` was given.
            TimeoutError: The time is over.
            ClientDisconnected: The loop was closed.
        """
        try:
            if not self._runtime.doorbell.ring(_start, self):
                raise self._loop_closed()  # noqa: TRY301 - one end for all
            self._wait_at_gate(timeout)
        except BaseException:
            self._abandoned = True
            self.end(_nobody_waits())
            raise
        failure, self._failure = self._failure, None
        if failure is None:
            return cast("_T", self._result)
        reason, self._reason = self._reason, None
        try:
            if not self._is_end(failure):
                raise failure
            if reason is None and isinstance(failure, GeneratorExit):
                reason = self._loop_closed()
            if reason is None or reason is failure:
                raise failure
            raise reason from failure
        finally:
            del failure, reason  # they hold this frame, by their tracebacks

    def _wait_at_gate(self, timeout: float | None) -> None:
        """Wait until the coroutine has ended. Raises if that takes too long."""
        deadline = None if timeout is None else time.monotonic() + timeout
        ends_at = None  # how long it is waited for once it was told to end
        seconds = LOOK_SECONDS if timeout is None else min(timeout, LOOK_SECONDS)
        while not self._gate.acquire(timeout=max(seconds, 0)):
            task = self._task
            if self._runtime.is_closed() or (task is not None and task.done() and self._gate.locked()):
                raise self._loop_closed()
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                self.end(_too_late(timeout))
                deadline, ends_at = None, now + GRACE_SECONDS
            if ends_at is None and self._reason is not None:
                ends_at = now + GRACE_SECONDS
            if ends_at is not None and now >= ends_at:
                logger.warning(
                    "A coroutine that was cancelled %g s ago is still running on the server's loop", GRACE_SECONDS
                )
                # Its traceback will lead back here. Another stays in its place, so that nobody cancels the task again.
                reason, self._reason = self._reason, _nobody_waits()
                raise reason or _too_late(timeout)
            seconds = LOOK_SECONDS if deadline is None else min(deadline - now, LOOK_SECONDS)

    def _is_end(self, error: BaseException) -> bool:
        """Whether the coroutine ended by being cancelled, or by being thrown away with its loop."""
        return issubclass(type(error), GeneratorExit) or self._runtime.is_cancellation(error)

    def _loop_closed(self) -> ClientDisconnected:
        if not self._begun:
            close_unawaited(self._awaitable)
        return loop_closed()

    # -- Any thread -----------------------------------------------------------------------------------------------

    def end(self, reason: BaseException) -> None:
        """Have the coroutine end, unless it has. The thread gets ``reason`` if its cancellation comes out of it."""
        self._runtime.doorbell.ring(self._end, reason)

    # -- The loop thread ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run the coroutine in a task of its own."""
        try:
            self._task = self.context.run(self._runtime.start_task, self._run())
        except BaseException as error:  # noqa: BLE001 - of the user's task factory: raised where the thread waits
            close_unawaited(self._awaitable)
            self._failure = error
            self._gate.release()

    def _end(self, reason: BaseException) -> None:
        task = self._task
        if self._reason is None and not (task is not None and task.done()):
            self._reason = reason
            if self._begun and task is not None:
                task.cancel()

    async def _run(self) -> None:
        self._begun = True
        try:
            if self._reason is None:
                self._result = await self._awaitable
            else:  # it was told to end before its first step
                close_unawaited(self._awaitable)
                self._failure = self._reason
        except BaseException as error:
            if self._reason is None and self._runtime.was_cancelled(error):
                self._reason = ClientDisconnected("the server cancelled everything on its event loop")
            if not self._abandoned:
                self._failure = error
            elif not self._is_end(error):
                logger.error("A coroutine failed after its caller had stopped waiting for it", exc_info=error)
            if self._runtime.is_cancellation(error):
                raise  # trio wants it back
        finally:
            self.context = contextvars.copy_context()  # on Python 3.10 a task copies the one that it is given
            self._gate.release()


def _start(call: Call[Any]) -> None:
    call.start()


def _nobody_waits() -> ClientDisconnected:
    return ClientDisconnected("nobody waits for the coroutine any more")


def _too_late(timeout: Any) -> TimeoutError:  # noqa: ANN401 - a number
    return TimeoutError(f"The coroutine did not end within timeout={timeout:g} s, and was cancelled.")
