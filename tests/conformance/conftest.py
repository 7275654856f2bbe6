"""Each clause holds for one bridge, and for a bridge around a bridge around a bridge."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.bridges import Bridged, bridges_to_asgi


@pytest.fixture(params=["single", "nested"])
def bridged(request: pytest.FixtureRequest) -> Iterator[Bridged]:
    """Makes an ASGI app of a WSGI app."""
    with bridges_to_asgi(request.param) as make:
        yield make
