"""Apps with WebSockets, with Sentry's middleware around the bridge and in it, and with middleware of other kinds.

What Sentry would send goes to the file that the environment variable ``A2WSGI_TEST_EVENTS`` names, an event a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware

import interop.sentry_apps  # noqa: F401 - sets Sentry up
from a2wsgi import ASGIMiddleware
from interop import websocket_app

__all__ = ["application"]

bridge: Any = ASGIMiddleware


class Counting:
    """Middleware that adds a header, wraps the iterable, and counts what goes through."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        counted = 0

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, ("X-Counted", str(counted))], *rest)

        body = self._app(environ, start)
        try:
            for chunk in body:
                counted += len(chunk)
                yield chunk
        finally:
            getattr(body, "close", lambda: None)()


#: As an app of its own, Sentry is around it; but for lifespan, of which it says nothing.
inner = bridge(SentryAsgiMiddleware(websocket_app.app), lifespan=False)
websocket_app.application = inner
application = SentryWsgiMiddleware(Counting(inner))
