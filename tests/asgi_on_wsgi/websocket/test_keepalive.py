"""When a silent client is pinged, and when it is given up, on a clock of the test's own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest

from a2wsgi._asgi_on_wsgi.websocket.keepalive import Keepalive

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="No socket can be taken over there.")


class Loop:
    """A clock, and the one timer that was set last."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: tuple[float, Callable[[], object]] | None = None

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, function: Callable[[], object], **_: Any) -> None:
        self.due = self.now + seconds, function

    def run_timer(self, *, held_up: float = 0.0) -> None:
        """Go on until the timer is due, or so many seconds longer."""
        assert self.due is not None
        (when, function), self.due = self.due, None
        self.now = when + held_up
        function()


def keepalive_on(loop: Loop, seen: list[str], **options: Any) -> Keepalive:
    """Pings after 20 s, and fails after 5."""
    options = {"taken": lambda: 0, "is_full": lambda: False, "hears": lambda: True, **options}
    made = Keepalive(
        cast("asyncio.AbstractEventLoop", loop),
        20.0,
        5.0,
        ping=lambda: seen.append("ping"),
        fail=lambda: seen.append("fail"),
        **options,
    )
    made.start()
    return made


def test_client_that_does_not_answer_is_given_up() -> None:
    """When the time for its answer is over, and a moment after that."""
    loop, seen = Loop(), list[str]()
    keepalive_on(loop, seen)
    while "fail" not in seen:
        loop.run_timer()
    assert seen == ["ping", "fail"]
    assert 25.0 < loop.now < 26.0
    assert loop.due is None


def test_answer_that_came_while_the_loop_was_held_up_counts() -> None:
    """The timer comes due before the loop has read it."""
    loop, seen = Loop(), list[str]()
    keepalive = keepalive_on(loop, seen)
    for _ in range(3):
        loop.run_timer()
        loop.run_timer(held_up=60.0)
        keepalive.heard()
        loop.run_timer()
    assert seen == ["ping"] * 3


def test_client_that_we_do_not_read_from_is_pinged_and_not_given_up() -> None:
    """There can be no answer; but a ping to a client that is gone fails, and so it is noticed."""
    loop, seen = Loop(), list[str]()
    hears = [False]
    keepalive_on(loop, seen, hears=lambda: hears[0])
    for _ in range(5):
        loop.run_timer()
    assert seen == ["ping"] * 5
    hears[0] = True
    while "fail" not in seen:
        loop.run_timer()
    assert seen == ["ping"] * 5 + ["fail"]
