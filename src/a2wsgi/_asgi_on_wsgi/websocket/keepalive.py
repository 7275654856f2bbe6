"""Pings for a client that is silent, and a turn's end for one that is loud. Loop thread."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

#: How long one socket may keep the loop from others at a time; arbitrary. One read may hold 43,690 frames.
TURN_SECONDS: Final = 0.005
#: How long the loop has to read an answer that came in time, if it was held up until after that; arbitrary.
LATE_SECONDS: Final = 0.05


class Turn:
    """How long one socket has kept the loop from others. Most turns end before anybody looks at the clock."""

    __slots__ = ("_loop", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._until = 0.0  # unknown before the first look

    def begin(self) -> None:
        """Begin a turn."""
        self._until = 0.0

    def is_over(self) -> bool:
        """Whether it has lasted long enough. The time counts from the first look on."""
        now = self._loop.time()
        self._until = self._until or now + TURN_SECONDS
        return now >= self._until


class Keepalive:
    """Pings a client that is silent, and says so if it stays silent. One timer.

    Args:
        loop: The loop.
        interval: Seconds of silence before a ping; None for no pings.
        timeout: Seconds for an answer; None waits for ever.
        ping: Sends a ping.
        fail: Is called if nothing came.
        taken: Tells how many bytes the client has taken so far.
        is_full: Tells whether it has too much to take. Then to take some is as good as an answer.
        hears: Tells whether silence is the client's: not while the app takes no messages, so that we do not read. No
            answer can be seen then, but a ping to a client that is gone fails.
    """

    __slots__ = (
        "_asked_at",
        "_fail",
        "_heard_at",
        "_hears",
        "_interval",
        "_is_full",
        "_is_late",
        "_loop",
        "_ping",
        "_taken",
        "_taken_before",
        "_timeout",
        "_timer",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interval: float | None,
        timeout: float | None,
        *,
        ping: Callable[[], object],
        fail: Callable[[], object],
        taken: Callable[[], int],
        is_full: Callable[[], bool],
        hears: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._interval = interval
        self._timeout = timeout
        self._ping = ping
        self._fail = fail
        self._taken = taken
        self._taken_before = 0  # when it looked last
        self._is_full = is_full
        self._hears = hears
        self._heard_at = 0.0
        self._asked_at: float | None = None  # since when an answer is awaited
        self._is_late = False  # it was found to be missing, once
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to listen."""
        self.heard()
        if self._interval is not None:
            self._set(self._interval)

    def heard(self) -> None:
        """Something has come."""
        self._heard_at = self._loop.time()
        self._asked_at = None
        self._is_late = False

    def stop(self) -> None:
        """Send no more pings."""
        self._interval = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look, context=contextvars.Context())

    def _look(self) -> None:
        interval, now = self._interval, self._loop.time()
        if interval is None:
            return
        taken, before = self._taken(), self._taken_before
        self._taken_before = taken
        if taken > before and self._is_full():
            self.heard()
        if self._asked_at is not None and self._timeout is not None:
            if now < self._asked_at + self._timeout:
                self._set(self._asked_at + self._timeout - now)
            elif not self._hears():
                self._ask(now)
            elif self._is_late:
                self._fail()
            else:
                # 1. A ping is sent. 2. The loop is held up for longer than the answer may take, which comes meanwhile.
                # 3. This timer comes due before the loop has read it.
                self._is_late = True
                self._set(LATE_SECONDS)
        elif now >= self._heard_at + interval:
            self._ask(now)
        else:
            self._set(self._heard_at + interval - now)

    def _ask(self, now: float) -> None:
        self._asked_at = now
        self._ping()  # which may end the connection
        if self._interval is not None:
            self._set(self._interval if self._timeout is None else min(self._interval, self._timeout))
