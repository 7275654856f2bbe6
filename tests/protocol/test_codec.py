"""The one import of `websockets`: there, not there, and too old."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from a2wsgi._errors import MissingCapability
from a2wsgi._protocol import codec
from a2wsgi._protocol.codec import available
from a2wsgi._protocol.deflate import agree_on_deflate
from a2wsgi._protocol.frames import Frames, Role


@pytest.fixture(autouse=True)
def _looked_up_anew() -> Iterator[None]:
    codec.websockets.cache_clear()
    yield
    codec.websockets.cache_clear()


def test_frames_are_refused_without_websockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra, and nothing else fails for lack of it."""
    monkeypatch.setitem(sys.modules, "websockets.frames", None)
    monkeypatch.setitem(sys.modules, "websockets.exceptions", None)
    assert not available()
    with pytest.raises(MissingCapability, match=r'pip install "a2wsgi\[websocket\]"'):
        Frames(Role.SERVER, max_message_bytes=None)
    with pytest.raises(MissingCapability, match=r"a2wsgi\[websocket\]"):
        agree_on_deflate("permessage-deflate")


def test_frames_are_refused_with_a_websockets_that_lacks_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release without one of the names counts as none."""
    for name in ("exceptions", "extensions.permessage_deflate", "frames", "headers"):
        monkeypatch.setitem(sys.modules, f"websockets.{name}", ModuleType(name))
    assert not available()


def test_websockets_is_imported_at_first_use() -> None:
    """`import a2wsgi` does not pay for it."""
    import subprocess

    code = "import sys, a2wsgi._protocol.frames; sys.exit('websockets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=50, check=False).returncode == 0
