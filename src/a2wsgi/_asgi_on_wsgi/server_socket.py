"""The socket behind a request, where a WSGI server lets us at it: has the client hung up, and may a read take so long?

*Facts*

- PEP 3333 has no word for a client that hangs up: a server notices when it writes. A response that says nothing for an
  hour (server-sent events) would hold its thread for an hour.
- waitress has ``waitress.client_disconnected``, which works only with ``channel_request_lookahead`` set. gunicorn and
  Werkzeug put the socket into the environ. uWSGI has a function for its descriptor.
- ``poll`` reports a peer that has closed its sending side (``POLLRDHUP``, Linux's poll(2)) without reading, under TLS
  as well. A client that has closed only that side looks the same as one that left; uvicorn, granian and gunicorn's own
  ASGI worker treat it as gone, too.
- A response that just ends looks complete to a client that has closed only its sending side, so an error is raised to
  the server. Which errors it takes for a client that has left, and does not log: gunicorn those with an ``errno`` of
  such, Werkzeug each ``ConnectionError``, waitress its own. uWSGI logs any; and it does not frame its responses in
  chunks, so that a client cannot tell.
- Some servers bound how long a read waits for a silent client: cheroot's ``timeout`` (10 s), uWSGI's
  ``socket-timeout`` (4 s), Apache's ``Timeout`` under mod_wsgi. waitress, Tornado, Twisted, hypercorn, aiohttp-wsgi and
  bjoern call the app when the body is complete. gunicorn and Werkzeug set no bound, but the socket in their environ
  can be given one; it holds for each ``recv``. wsgiref, gevent's ``pywsgi`` and granian offer neither.

Threading: the server thread of the request. Nothing here waits.
"""

from __future__ import annotations

import errno
import select
import sys
from typing import TYPE_CHECKING, Any

from a2wsgi._errors import ClientDisconnected

if TYPE_CHECKING:
    from a2wsgi._types import Environ


class HungUpError(ClientDisconnected, ConnectionResetError):
    """The client has hung up: the one error of ours that no server logs as the app's failure."""

    def __init__(self) -> None:
        super().__init__("the client hung up")
        self.strerror = str(self)
        self.args = (errno.ECONNRESET, self.strerror)  # cheroot and pywsgi look at the first of them


def has_hung_up(environ: Environ, socket: Any = None) -> bool:  # noqa: ANN401 - a server's
    """Whether the client of this request has hung up; False if the server gives no way to tell.

    Args:
        environ: The request's.
        socket: The client's, where it was found by other ways than those here.
    """
    client_disconnected = environ.get("waitress.client_disconnected")
    if callable(client_disconnected):
        left = bool(client_disconnected())
        if left or socket is None:
            return left
    if not hasattr(select, "POLLRDHUP"):
        return False
    socket = _socket(environ) if socket is None else socket
    try:
        if socket is not None:
            descriptor = socket.fileno()
        elif "uwsgi.version" in environ:
            descriptor = uwsgi_module().connection_fd()
        else:
            return False
        poll = _poll()
        poll.register(descriptor, select.POLLRDHUP)
        return bool(poll.poll(0))
    except Exception:  # noqa: BLE001 - the socket is closed, or is none: then we cannot see it
        return False


def hung_up_error(environ: Environ) -> HungUpError:
    """The error for the server of this request when its client has hung up. Only uWSGI logs it, as it logs any."""
    if "waitress.client_disconnected" not in environ:
        return HungUpError()
    theirs = getattr(sys.modules.get("waitress.channel"), "ClientDisconnected", Exception)
    error: HungUpError = type("HungUpError", (HungUpError, theirs), {})()
    return error


def socket_to_time(environ: Environ) -> Any:  # noqa: ANN401 - a socket, maybe TLS's or gevent's; None without one
    """The socket whose timeout bounds a read of the body, if nobody else uses the socket meanwhile; else None."""
    socket = _socket(environ)
    # That of HTTP/2 carries other requests as well.
    if socket is None or str(environ.get("SERVER_PROTOCOL")).startswith("HTTP/2"):
        return None
    return socket if hasattr(socket, "gettimeout") and hasattr(socket, "settimeout") else None


def _socket(environ: Environ) -> Any:  # noqa: ANN401 - whatever the server has put there
    return environ.get("gunicorn.socket") or environ.get("werkzeug.socket")


def uwsgi_module() -> Any:  # noqa: ANN401 - a module without types
    """What uWSGI offers besides the environ, for the request of the calling thread."""
    import uwsgi  # noqa: PLC0415 - exists only in uWSGI's own process

    return uwsgi


def uwsgi_options() -> set[str]:
    """The options that uWSGI was started with."""
    return {name.decode() if isinstance(name, bytes) else name for name in getattr(uwsgi_module(), "opt", ())}


def uwsgi_has_threads() -> bool:
    """Whether uWSGI lets threads run that are not its own. Without them, they stand still between requests."""
    return bool(uwsgi_options() & {"enable-threads", "threads"})


def _poll() -> select.poll:
    """The operating system's ``poll``: gevent's knows no ``POLLRDHUP``, and ours does not wait, so it blocks nobody."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("select"):
        poll: select.poll = monkey.get_original("select", "poll")()
        return poll
    return select.poll()
