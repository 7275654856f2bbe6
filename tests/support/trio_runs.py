"""Runs of trio that end in an unusual way."""

from __future__ import annotations

from typing import Any


def breaking_clock() -> Any:
    """A clock that ends its run in the middle once its ``broken`` is set.

    So does whatever else trio finds wrong with itself: its tasks are left where they wait.
    """
    import trio

    class BreakingClock(trio.abc.Clock):
        broken = False

        def start_clock(self) -> None:
            pass

        def current_time(self) -> float:
            return 0.0

        def deadline_to_sleep_time(self, deadline: float) -> float:
            if self.broken:
                raise LookupError("of the clock")
            return 0.001

    return BreakingClock()
