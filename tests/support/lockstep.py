"""Numbered points that threads and tasks pass in one order: a race is told step by step, and then is none.

Nothing here sleeps, and nothing waits for ever: a point that is not reached within `BOUND_SECONDS` is an error that
names it.
"""

from __future__ import annotations

import threading
from types import TracebackType

from support.runtimes import TimeUp, Waiter, within

#: How long anything may take that is certain to happen. Arbitrary: long for a slow machine, short for a hang.
BOUND_SECONDS = 10.0


class NeverHappened(AssertionError):  # noqa: N818  # a name for what it is
    """What a test waited for did not come."""


class Signal:
    """A one-shot event for threads and tasks alike.

    Args:
        name: Said by the error when it does not come.
    """

    def __init__(self, name: str = "signal") -> None:
        self.name = name
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._waiters: list[Waiter] = []

    def __repr__(self) -> str:
        return f"<Signal {self.name!r} {'set' if self._event.is_set() else 'unset'}>"

    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self, *_: object) -> None:
        """Let all pass. Any thread; again is allowed. Takes and ignores arguments, so as to be a callback."""
        with self._lock:
            self._event.set()
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.wake()

    def wait(self, seconds: float = BOUND_SECONDS) -> None:
        """Wait in a thread."""
        if not self._event.wait(seconds):
            raise NeverHappened(f"{self.name!r} did not happen within {seconds} s")

    async def wait_in_task(self, seconds: float = BOUND_SECONDS) -> None:
        """Wait in a task."""
        with self._lock:
            if self._event.is_set():
                return
            waiter = Waiter()
            self._waiters.append(waiter)
        try:
            await within(seconds, waiter.wait())
        except TimeUp:
            raise NeverHappened(f"{self.name!r} did not happen within {seconds} s") from None


class Lockstep:
    """Points 1, 2, 3 and so on, each passed once, by whichever thread or task its number stands in.

    ``with step(2):`` in a thread and ``async with step(2):`` in a task wait until point 1 was passed; the block runs;
    then point 2 is passed. An empty block (``pass``) only keeps the order.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passed: dict[int, Signal] = {}
        self._taken: set[int] = set()
        self.passed(0).set()

    def __call__(self, number: int) -> _Step:
        with self._lock:
            if number in self._taken:
                raise AssertionError(f"Point {number} was reached twice")
            self._taken.add(number)
        return _Step(self, number)

    def passed(self, number: int) -> Signal:
        """The signal that point ``number`` was passed."""
        with self._lock:
            return self._passed.setdefault(number, Signal(f"point {number}"))


class _Step:
    def __init__(self, lockstep: Lockstep, number: int) -> None:
        self._before = lockstep.passed(number - 1)
        self._after = lockstep.passed(number)

    def __enter__(self) -> None:
        self._before.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._after.set()

    async def __aenter__(self) -> None:
        await self._before.wait_in_task()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._after.set()
