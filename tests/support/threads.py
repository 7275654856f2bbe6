"""Threads whose results are asked for, and locks that stop or lie where a test wants them to.

A race is forced without a clock: what the other side does is called by the lock itself, at the very moment between two
steps of this side.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, ParamSpec, TypeVar

import pytest

from support.lockstep import BOUND_SECONDS, Signal

T = TypeVar("T")
P = ParamSpec("P")


class Running(Generic[T]):
    """A function that runs in a thread of its own.

    Args:
        function: What runs.

    Attributes:
        thread: Where.
        over: Set when it has returned or raised.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._result: list[T] = []
        self._error: BaseException | None = None
        self.over = Signal(f"the end of {function!r}")
        self.thread = threading.Thread(target=self._run, name="test-running", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._function())
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            self._error = error
        self.over.set()

    def result(self, seconds: float = BOUND_SECONDS) -> T:
        """What it returns or raises, waiting for it in a thread."""
        self.over.wait(seconds)
        return self._outcome()

    async def result_in_task(self, seconds: float = BOUND_SECONDS) -> T:
        """What it returns or raises, waiting for it in a task."""
        await self.over.wait_in_task(seconds)
        return self._outcome()

    def _outcome(self) -> T:
        self.thread.join()
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        return self._result[0]


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Running[T]:
    """Run ``function`` in a thread of its own."""
    return Running(lambda: function(*args, **kwargs))


def threads_inherit_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each thread that is started get a copy of the context of the one that starts it.

    As on a free-threaded Python 3.14, and with ``-X thread_inherit_context=1``.
    """
    start = threading.Thread.start

    def start_with_context(thread: threading.Thread) -> None:
        run, context = thread.run, contextvars.copy_context()
        monkeypatch.setattr(thread, "run", lambda: context.run(run))
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_with_context)


class HookedLock:
    """A lock that calls what a test has left in it, once: where a thread is about to take it, or has let it go.

    Attributes:
        before: Called before the lock is taken next.
        after: Called after it was let go next.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.before: Callable[[], object] | None = None
        self.after: Callable[[], object] | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        before, self.before = self.before, None
        if before is not None:
            before()
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        # Read while the lock is held: one that waits for it takes no hook that is meant for us.
        after, self.after = self.after, None
        self._lock.release()
        if after is not None:
            after()

    def locked(self) -> bool:
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class LyingGate:
    """A lock that waits for another to open it and then says that the time was up, as often as it is told to.

    Args:
        lies: How often.

    Attributes:
        lied: Set when it has lied last.
    """

    def __init__(self, lies: int = 0) -> None:
        self._lock = threading.Lock()
        self.lies = lies
        self.lied = Signal("the gate's last lie")

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        taken = self._lock.acquire(blocking, timeout)
        if taken and timeout != -1 and self.lies > 0:
            self._lock.release()
            self.lies -= 1
            if not self.lies:
                self.lied.set()
            return False
        return taken

    def release(self) -> None:
        self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()
