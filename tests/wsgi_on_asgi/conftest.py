"""What the tests of this wing have in common: timers, and bridges of both kinds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from a2wsgi._wsgi_on_asgi import loops as _loops
from support.bridges import Bridged, bridges_to_asgi


@pytest.fixture
def quick_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the timer tick every 5 ms."""
    monkeypatch.setattr(_loops, "TICK_SECONDS", 0.005)


@pytest.fixture
def no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the timer tick never within a test, however slow the machine."""
    monkeypatch.setattr(_loops, "TICK_SECONDS", 3600.0)


@pytest.fixture(params=["single", "nested"])
def bridged(request: pytest.FixtureRequest) -> Iterator[Bridged]:
    """Makes an ASGI app of a WSGI app, by one bridge or by three around one another."""
    with bridges_to_asgi(request.param) as make:
        yield make
