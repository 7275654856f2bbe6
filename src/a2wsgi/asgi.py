"""The import path of a2wsgi 1.x; use ``from a2wsgi import ASGIMiddleware``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from a2wsgi import _type_hints as hints

from ._deprecated import deprecated, missing
from ._front.asgi_middleware import ASGIMiddleware
from ._protocol.scope import scope_from_environ

__all__ = ["ASGIMiddleware", "ASGIResponder", "build_scope"]


def build_scope(environ: hints.Environ) -> hints.HTTPScope:
    """The scope of an environ."""
    return cast("hints.HTTPScope", scope_from_environ(environ))


class ASGIResponder:
    """Deprecated: answers one request on a loop that runs elsewhere, as in a2wsgi 1.x."""

    def __init__(self, app: hints.AnyASGIApp, loop: Any, wait_time: float | None = None) -> None:  # noqa: ANN401 - asyncio's
        deprecated("ASGIResponder is deprecated. Call an ASGIMiddleware that was given loop= and lifespan=False.")
        self.app, self.loop, self.wait_time = app, loop, wait_time
        self._bridge = ASGIMiddleware(app, wait_time, loop, lifespan=False)

    def __call__(self, environ: hints.Environ, start_response: hints.StartResponse) -> Iterable[bytes]:
        """Answer the request."""
        return self._bridge(environ, start_response)


_GONE = ("AsyncEvent", "SyncEvent", "StatusStringMapping", "defaultdict")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - it gives nothing
    missing(__name__, name, _GONE)
