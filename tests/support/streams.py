"""What the tests of streams share: who rings, who parks, and how a coroutine comes to wait."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from a2wsgi._threads.runtime import Runtime
from a2wsgi._threads.stream import Stream
from support.lockstep import BOUND_SECONDS, Signal
from support.runtimes import Job, rest, run, start, verbs, within


class Bell:
    """Rings a runtime's doorbell, and counts."""

    def __init__(self, runtime: Runtime) -> None:
        self._doorbell = runtime.doorbell
        self.rings = 0
        runtime.doorbell = self  # type: ignore[assignment]  # it is asked for nothing else

    def ring(self, function: Callable[[Any], object], argument: object) -> bool:
        self.rings += 1
        return self._doorbell.ring(function, argument)


class Parked:
    """Knows how often a thread has found nothing to do in a stream, has left its gate there and was about to wait."""

    def __init__(self) -> None:
        # A defaultdict without a lock would give two threads that ask at a time a signal each.
        self._lock = threading.Lock()
        self._count = 0
        self._signals: defaultdict[int, Signal] = defaultdict(lambda: Signal("a thread parks"))

    def times(self, count: int) -> Signal:
        with self._lock:
            return self._signals[count]

    def note(self) -> None:
        with self._lock:
            self._count += 1
            signal = self._signals[self._count]
        signal.set()

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have every stream tell this one."""
        original = Stream._leave_gate

        def leave_gate(stream: Stream) -> threading.Lock:
            gate = original(stream)
            self.note()  # whoever looks at the stream now has to wait until its lock is released
            return gate

        monkeypatch.setattr(Stream, "_leave_gate", leave_gate)


def here() -> Runtime:
    """The verbs of the running loop, which a test may change: no other has them."""
    return verbs()


def in_story(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function on a loop that tolerates no leftover."""
    run(story())


async def waiting(coroutine: Coroutine[Any, Any, Any]) -> Job[Any]:
    """``coroutine``, which has come to its first wait."""
    job = start(coroutine)
    await others_go()
    assert not job.done()
    return job


async def others_go() -> None:
    """Let each that is ready go, and each that it has made ready. trio runs those that are ready in any order."""
    for _ in range(3):
        await rest()


async def bounded(awaitable: Any) -> Any:
    """The result of ``awaitable``, which is certain to come."""
    return await within(BOUND_SECONDS, awaitable)
