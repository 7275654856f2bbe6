"""The WebSockets of one bridge: their threads, their number, and who may come in.

This file is imported with the bridge, and the story of a WebSocket at the first of them: few processes have any.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from a2wsgi._errors import ClientDisconnected
from a2wsgi._log import logger
from a2wsgi._wsgi_on_asgi.endings import Ending
from a2wsgi._wsgi_on_asgi.workers import Workers

if TYPE_CHECKING:
    from a2wsgi._types import WSGIApp
    from a2wsgi._wsgi_on_asgi.bridge import Shared
    from a2wsgi._wsgi_on_asgi.loops import BridgeLoop

    from .session import WebSocketSession

#: Arbitrary: more threads than that are a question of memory.
DEFAULT_MAX_WEBSOCKETS: Final = 100


class WebSockets:
    """The WebSockets of one bridge: their threads, their number, and who may come in.

    Args:
        app: The WSGI app.
        shared: What the requests of the bridge share.
    """

    def __init__(self, app: WSGIApp, shared: Shared) -> None:
        self.app = app
        self.shared = shared
        limit = shared.settings.max_websockets
        if limit is None:
            limit = DEFAULT_MAX_WEBSOCKETS if shared.workers.limit > 1 else 0
        self.limit = limit
        #: None waits: a WebSocket that waits for another to end would wait for hours.
        self.workers = Workers(max(limit, 1), 0, "a2wsgi-websocket")
        #: Any loop thread's, without a lock: see `a2wsgi._threads`. Walk a copy.
        self.open: set[WebSocketSession] = set()
        #: Those that count towards the limit: from when their handshake is let in until they are over, or refused for
        #: want of room. Used as `open` is.
        self.admitted: set[WebSocketSession] = set()
        self._told_of_extra = False  # any loop thread's: at worst it is told twice

    def why_not(self) -> str | None:
        """Say why no WebSocket at all can come in; None if one can."""
        if self.limit == 0:
            return "max_websockets is 0, as it is by default with workers=1"
        from a2wsgi._protocol.codec import available  # noqa: PLC0415 - see above

        if not available():
            if not self._told_of_extra:
                self._told_of_extra = True
                logger.warning(
                    "WebSockets are refused: the package websockets, which parses their frames, is not installed. "
                    'Install it with: pip install "a2wsgi[websocket]"'
                )
            return "the extra a2wsgi[websocket] is not installed"
        return None

    def count(self) -> int:
        """How many are open. Any thread.

        Those whose loop was closed without a word, or is another process's, are forgotten here, and their apps are
        told: nobody else would.
        """
        for session in self.admitted.copy():
            if not session.is_live():
                self.admitted.discard(session)
                self.open.discard(session)
                session.lose()
        return len(self.admitted)

    def stop(self, loop: BridgeLoop) -> None:
        """End the WebSockets on one loop: the server shuts down. Loop thread."""
        reason = "the server is shutting down"
        for session in self.open.copy():
            if session.is_on(loop):
                session.abort(Ending.SHUT_DOWN, functools.partial(ClientDisconnected, reason), reason)
