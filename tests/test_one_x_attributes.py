"""What programs for a2wsgi 1.x ask the package and its bridges for, or set."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest

from a2wsgi import ASGIMiddleware, WSGIMiddleware
from support.asgi_driver import call as call_asgi
from support.wsgi_driver import call as call_wsgi


@pytest.mark.parametrize("name", ["asgi", "asgi_typing", "wsgi", "wsgi_typing"])
def test_submodule_is_there_when_the_package_is_imported(name: str) -> None:
    """``import a2wsgi`` loaded them all; in a process of its own, since ours has imported them."""
    program = f"import a2wsgi; print(a2wsgi.{name}.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"a2wsgi.{name}\n"


def asgi_of(body: bytes) -> Any:
    """An ASGI app that answers ``body``."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

    return app


def wsgi_of(body: bytes) -> Any:
    """A WSGI app that does."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [body]

    return app


def test_app_that_is_put_in_the_place_of_another_answers() -> None:
    """1.x looked at ``.app`` at each call: programs wrap it after the bridge is made, and tests swap it."""
    bridge: Any = WSGIMiddleware(wsgi_of(b"one"))
    assert call_asgi(bridge).body == b"one"
    bridge.app = wsgi_of(b"two")
    assert call_asgi(bridge).body == b"two"
    with ASGIMiddleware(asgi_of(b"one")) as other:
        assert call_wsgi(other).body == b"one"
        other.app = app = asgi_of(b"two")
        assert other.app is app
        assert call_wsgi(other).body == b"two"


class OneXBridge(WSGIMiddleware):
    """Makes everything by itself, as it could in 1.x."""

    def __init__(self, app: Any) -> None:
        self.wrapped = app


class OneXASGIBridge(ASGIMiddleware):
    """The same."""

    def __init__(self, app: Any) -> None:
        self.wrapped = app


@pytest.mark.parametrize("kind", [OneXBridge, OneXASGIBridge])
def test_subclass_that_calls_no_constructor_can_be_looked_at(kind: Any) -> None:
    """Frameworks show the apps that are mounted in them, and look for an app within an app."""
    bridge = kind(wsgi_of(b"one") if kind is OneXBridge else asgi_of(b"one"))
    assert repr(bridge) == object.__repr__(bridge)
    assert not hasattr(bridge, "app")
