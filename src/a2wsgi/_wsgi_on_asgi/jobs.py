"""What worker threads are given to do."""

from __future__ import annotations

from typing import Protocol


class Job(Protocol):
    """Something for a worker to do."""

    def run(self) -> None:
        """Do it. Worker thread. Must not raise."""

    def done(self) -> None:
        """Tell whoever waits for it. Worker thread, after `run`. Must neither raise nor wait."""

    def lost(self) -> None:
        """Tell whoever waits for it that its worker died. Any thread.

        It may have run, and `done` may have been called.
        """


class Overloaded(Exception):  # noqa: N818 - nobody sees it: the bridge answers 503
    """As many jobs wait already as may wait."""
