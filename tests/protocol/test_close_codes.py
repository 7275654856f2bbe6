"""Close codes: which of them travel, and who is told which."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2wsgi._errors import AppProtocolError
from a2wsgi._protocol.close_codes import (
    WebSocketEnding,
    code_for_wsgi_app,
    code_from_asgi_app,
    code_from_wsgi_app,
    cut_reason,
    may_travel,
    refuse_code,
)


def test_may_travel_agrees_with_the_registry() -> None:
    """RFC 6455 §7.4, and IANA's registry for 1012 to 1014."""
    travelling = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
    assert {code for code in range(65536) if may_travel(code)} == travelling


def test_may_travel_agrees_with_websockets() -> None:
    """What `close` lets through, `websockets` would, too."""
    frames = pytest.importorskip("websockets.frames")
    external = set(map(int, frames.EXTERNAL_CLOSE_CODES))
    assert {code for code in range(3000) if may_travel(code)} == external


@pytest.mark.parametrize(
    ("code", "told"),
    [(1000, 1000), (4444, 4444), (1005, 1005), (None, 1005), (1006, 1006), (1015, 1006), (0, 1006), (-1, 1006)],
)
def test_code_for_wsgi_app_is_what_can_be_said_on_a_link(code: int | None, told: int) -> None:
    """A code that may not travel is a connection that was lost; none at all is 1005."""
    assert code_for_wsgi_app(code) == told


def test_code_for_wsgi_app_makes_an_int_of_an_enum() -> None:
    """On uvicorn with wsproto the code is an ``IntEnum``, which an app's log should not show."""
    code = IntEnum("Code", {"GOING_AWAY": 1001}).GOING_AWAY  # type: ignore[attr-defined]  # made on the spot
    assert type(code_for_wsgi_app(code)) is int


@pytest.mark.parametrize(
    ("code", "kind"), [(1005.0, TypeError), ("1000", TypeError), (999, ValueError), (True, ValueError)]
)
def test_refuse_code_raises_for_what_no_close_may_carry(code: Any, kind: type[Exception]) -> None:
    """A float that is equal to a code could not be written."""
    refuse_code(1000)
    refuse_code(1005)
    with pytest.raises(kind):
        refuse_code(code)


def test_code_from_wsgi_app_is_1000_without_a_code() -> None:
    """ASGI's ``websocket.close`` cannot say that there is none."""
    assert [code_from_wsgi_app(code) for code in (1005, 1000, 4001)] == [1000, 1000, 4001]


@pytest.mark.parametrize("code", [999, 1004, 1005, 1006, 1015, 2000, 5000, -1, True, "1000", 1000.0])
def test_code_from_asgi_app_refuses_what_may_not_travel(code: object) -> None:
    """RFC 6455 §7.4: the app is told, in its own ``send()``."""
    with pytest.raises(AppProtocolError, match=r"Send 1000, or one of your own from 4000 to 4999\.$"):
        code_from_asgi_app(code)


def test_code_from_asgi_app_defaults_to_1000() -> None:
    """ASGI WebSocket 2.5, "Close": the default is 1000."""
    assert [code_from_asgi_app(code) for code in (None, 1000, 4001)] == [1000, 1000, 4001]


@given(st.text(st.characters(), max_size=200))
def test_cut_reason_fits_and_is_a_beginning(reason: str) -> None:
    """RFC 6455 §5.5: 123 bytes of UTF-8 at most, which is lost only from its end."""
    cut = cut_reason(reason)
    whole = reason.encode("utf-8", "replace")
    assert whole.startswith(cut)
    assert cut.decode()[:1] == whole.decode()[:1]
    assert cut == whole or 119 < len(cut) <= 123


def test_cut_reason_takes_none() -> None:
    """ASGI WebSocket 2.5: ``reason`` may be ``None``."""
    assert cut_reason(None) == b""


def test_endings_have_the_codes_of_their_table() -> None:
    """Each member says what its row of the docstring says."""
    assert {ending.name: (ending.client, ending.app) for ending in WebSocketEnding} == {
        "NO_PONG": (1011, 1006),
        "APP_RETURNED": (1000, None),
        "APP_RAISED": (1011, None),
        "APP_BROKE_FRAMES": (1011, 1006),
        "STOPPED": (1012, 1012),
    }
    assert all(may_travel(ending.client) for ending in WebSocketEnding)
