"""Who may open a WebSocket at all. None of this needs the extra."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from a2wsgi import WSGIMiddleware
from a2wsgi._protocol import codec
from support.websocket_driver import talk

CLOSE = {"type": "websocket.close", "code": 1008, "reason": ""}


def our_log(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What a2wsgi has logged."""
    records = [record for record in caplog.records if record.name == "a2wsgi" and record.levelno > logging.DEBUG]
    return [(record.levelname, record.getMessage()) for record in records]


@pytest.mark.parametrize("options", [{"workers": 1}, {"max_websockets": 0}])
def test_no_room_at_all_is_403(options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """An app for one thread is not run on several, unless that is asked for. It is not entered."""
    caplog.set_level(logging.INFO, "a2wsgi")
    client, _ = talk(WSGIMiddleware(never, **options))
    assert client.sent == [CLOSE]
    ((level, said),) = our_log(caplog)
    assert level == "INFO"
    assert "max_websockets is 0" in said


def never(environ: dict[str, Any], start_response: Any) -> Any:
    """Is not to be entered."""
    raise AssertionError("the app was entered")


def test_missing_extra_is_named_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Without the package that parses frames a handshake is refused as before, and one warning says how to mend it."""
    monkeypatch.setattr(codec, "available", lambda: False)
    caplog.set_level(logging.WARNING, "a2wsgi")
    bridge = WSGIMiddleware(never)
    for _ in range(2):
        client, _ = talk(bridge)
        assert client.sent == [CLOSE]
    ((level, said),) = our_log(caplog)
    assert level == "WARNING"
    assert 'pip install "a2wsgi[websocket]"' in said
