"""The door for WebSockets: a client's handshake is refused, or becomes a `WebSocketSession`. Server thread.

*Facts*: RFC 6455 §4.2. RFC 9110 §15.6.2: 501 is for what "the server does not support". Whether an ``Origin`` may come
in is for the app to judge.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, cast

from a2wsgi._log import logger
from a2wsgi._protocol.codec import available
from a2wsgi._protocol.iterables import CompleteBody
from a2wsgi._protocol.upgrade import Refusal, check_handshake, is_handshake, refusal

from .session import WebSocketSession
from .takeover import find_socket, why_impossible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from a2wsgi._asgi_on_wsgi.bridge import Shared
    from a2wsgi._asgi_on_wsgi.loops.host import LoopHost
    from a2wsgi._protocol.upgrade import Handshake
    from a2wsgi._types import Environ, Scope, StartResponse

    from .takeover import Found

_NO_SOCKET = (
    "The WSGI server does not give an app access to the client's socket. Serve WebSockets with gunicorn, uWSGI, "
    "waitress, gevent, cheroot or Werkzeug, or with an ASGI server."
)
_INLINE = "The bridge was created with inline=True, so nothing runs between requests that could serve a WebSocket."
_ONE_THREAD = (
    "The WSGI server has only one thread, which would carry this WebSocket's bytes and answer no other request: {}. "
    "Give it several threads (gunicorn --threads 4){}."
)
_NO_CODEC = 'The package websockets is not installed. Install it with: pip install "a2wsgi[websocket]".'


def answer_handshake(
    shared: Shared, host: LoopHost, environ: Environ, start_response: StartResponse, scope: Scope
) -> Iterable[bytes] | None:
    """Answer a request that asks for a WebSocket. None if it asks for none, and is for the app to answer.

    Raises:
        Exception: What the app raised before it accepted: the very same object.
        BridgeError: The socket could not be taken over. The client is still the server's.

    Threading: a server thread.
    """
    if not is_handshake(environ):
        return None
    handshake, found = _admit(shared, environ)
    if isinstance(handshake, Refusal) or found is None:
        return _refuse(cast("Refusal", handshake), start_response)
    session = WebSocketSession(shared, host, environ, scope, handshake, found)
    if host.loop.is_closed():
        shared.lifetime.forget(host)  # now: what ran on it is not to count as open
    if not _enter(session, shared):
        return _refuse(refusal(503, "Too many WebSockets are open.", [("Retry-After", "1")]), start_response)
    return session.answer(start_response)


def _admit(shared: Shared, environ: Environ) -> tuple[Handshake | Refusal, Found | None]:
    """Check everything about a handshake that takes no app."""
    settings = shared.settings
    if settings.max_websockets == 0:
        return refusal(403, "No WebSockets are served here."), None
    if not available():
        return _impossible(_NO_CODEC), None
    handshake = check_handshake(environ)
    if isinstance(handshake, Refusal):
        return handshake, None
    why = _INLINE if settings.inline else why_impossible(environ)
    found = None if why is not None else find_socket(environ)
    if found is None:
        return _impossible(why or _NO_SOCKET), None
    if found.takes_only_thread(environ):
        is_tls = environ.get("wsgi.url_scheme") == "https"
        why = "it terminates TLS" if is_tls else "it shows an object that is no socket of a known kind"
        return _impossible(
            _ONE_THREAD.format(why, ", or let a proxy such as nginx terminate TLS" if is_tls else "")
        ), None
    return handshake, found


#: What has been said of why no WebSocket can be served; once each (see `a2wsgi._threads`), and there are few of them.
_warned_of: set[str] = set()


def _impossible(why: str) -> Refusal:
    """RFC 9110 §15.6.2: "the server does not support the functionality required to fulfill the request"."""
    if why not in _warned_of:
        _warned_of.add(why)
        logger.warning("A WebSocket was refused with 501. %s Logged once.", why)
    return refusal(501, why)


def _refuse(answer: Refusal, start_response: StartResponse) -> Iterable[bytes]:
    start_response(answer.status, answer.headers)
    return CompleteBody((answer.text.encode(),))


#: Guards the step from counting a bridge's WebSockets to adding another.
_admission = threading.Lock()


def _enter(session: WebSocketSession, shared: Shared) -> bool:
    """Add a session to the requests of its bridge, unless there are too many."""
    requests, most = shared.lifetime.requests, shared.settings.max_websockets
    with _admission:
        if most is not None and sum(isinstance(one, WebSocketSession) for one in requests.copy()) >= most:
            return False
        requests.add(session)
    return True


def _after_fork_in_child() -> None:
    global _admission  # noqa: PLW0603 - a thread of the parent's may have held it
    _admission = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
