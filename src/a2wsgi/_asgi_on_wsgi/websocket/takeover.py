"""The client's socket, taken over from the WSGI server that has accepted it. Server thread.

Strategy
    WSGI has no word for a connection that goes on after its response. But nearly every server leaves its socket within
    reach of the app, and a descriptor can be replaced under whoever uses it. `find_socket` looks for the socket;
    `Found.take` takes it, when the ASGI app has accepted the WebSocket:

    - *Detached*, where it is a plain socket of the operating system's: ``dup()`` gives the connection a second
      descriptor, which is ours, and ``dup2()`` puts one end of a socket pair, the *sink*, in the place of the server's.
      The server goes on to answer the request, into the sink, and its thread is free. It finds the end of the stream
      there when it looks for a next request.
    - *Held*, where bytes change on their way (TLS that the server ends) or where the object is not a socket of a kind
      that we know: the server's thread stays, and carries the bytes between the object and a socket pair of ours.

Guarantees
    - A path into a server's private parts gives None on any surprise, and the handshake is then refused.
    - If `Found.take` raises, the server still has the client, and no descriptor is left.
    - Bytes that the server has read past the handshake are handed over, where they can be had.
    - A held thread ends soon after our end of its pair, whatever the client does.

Assumes
    While the app runs, no other thread of the server's writes to the client's socket. The main threads of gunicorn and
    cheroot leave it alone: a connection whose request is being answered is not in their selectors. waitress's does the
    same without ``channel_request_lookahead``. With it, it reads on, and closes the socket when the client leaves. The
    descriptor's number may be another client's after that, so `Found.take` looks as the last thing it does before
    ``dup2()``. Between these two, the server would have to close one socket and accept another.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import sys
from typing import TYPE_CHECKING, Any, cast

from a2wsgi._asgi_on_wsgi.server_socket import uwsgi_has_threads, uwsgi_module, uwsgi_options
from a2wsgi._errors import BridgeError, ClientDisconnected
from a2wsgi._log import logger

from .carrier import hold
from .our_sockets import discard, half_closed, open_sockets, plain_socket, socket_pair
from .server_stop import has_one_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from a2wsgi._types import Environ, Message

    #: `Taken.stay`.
    _Stay = Callable[[Callable[[], object]], socket.socket | None]

#: Sockets that are the operating system's and no more. Exactly these: a subclass may do what it likes with the bytes.
_PLAIN = {"socket.socket", "gevent._socket3.socket", "eventlet.greenio.base.GreenSocket"}
#: Sockets with TLS over a descriptor that they share with nobody.
_TLS = {"ssl.SSLSocket", "gevent.ssl.SSLSocket", "eventlet.green.ssl.GreenSSLSocket"}
#: Sockets of uWSGI's workers that carry more than the bytes of HTTP: its descriptor would be taken without its TLS.
_UWSGI_WRAPPED = {"https-socket", "ssl-socket", "suwsgi-socket", "fastcgi-socket", "fastcgi-nph-socket"}


# -- Where each server has it -----------------------------------------------------------------------------------------


def why_impossible(environ: Environ) -> str | None:
    """Say why no WebSocket can be served here, apart from the socket; None if nothing is known to stand against it."""
    if sys.platform == "win32":
        return "On Windows, a socket cannot be taken over from a WSGI server."
    if "uwsgi.version" in environ:
        if not uwsgi_has_threads():
            return "uWSGI runs without threads. Start it with --enable-threads."
        options = uwsgi_options()
        if environ.get("UWSGI_ROUTER") == "http" and "http-websockets" not in options:
            return "uWSGI's HTTP router does not pass on WebSockets. Start uWSGI with --http-websockets."
        if wrapped := sorted(options & _UWSGI_WRAPPED):
            return (
                f"uWSGI's worker speaks TLS or FastCGI on its --{wrapped[0]}. Use --http-socket, --socket, or --http "
                "or --https with --http-websockets."
            )
    return None


def find_socket(environ: Environ) -> Found | None:
    """Return the client's socket; None where the server does not show it."""
    for find in (_of_uwsgi, _of_environ, _of_eventlet, _of_waitress, _of_input):
        try:
            found = find(environ)
            if found is not None:
                return found
        except Exception:  # noqa: BLE001 - private parts of servers, which change: then it is as if there were none
            logger.debug("Looking for the client's socket failed", exc_info=True)
    return None


def _of_uwsgi(environ: Environ) -> Found | None:
    if "uwsgi.version" not in environ:
        return None
    descriptor = cast("int", uwsgi_module().connection_fd())
    return Found(descriptor) if descriptor >= 0 else None


def _of_environ(environ: Environ) -> Found | None:
    """What gunicorn and Werkzeug show on purpose."""
    found = _found(environ.get("gunicorn.socket") or environ.get("werkzeug.socket"))
    if found is not None:
        found.early = _early_of_gunicorn if "gunicorn.socket" in environ else _early_of_input
    return found


def _of_eventlet(environ: Environ) -> Found | None:
    stream: Any = environ.get("eventlet.input")
    return None if stream is None else _found(stream.get_socket(), _early_of_input)


def _of_waitress(environ: Environ) -> Found | None:
    told: Any = environ.get("waitress.client_disconnected")
    return None if told is None else _found(told.__self__.socket)


def _of_input(environ: Environ) -> Found | None:
    """cheroot's, gevent's pywsgi's, and that of any server that reads the body from ``socket.makefile()``."""
    stream: Any = environ.get("wsgi.input")
    for buffered in (stream, getattr(stream, "rfile", None)):
        found = _found(getattr(getattr(buffered, "raw", None), "_sock", None), _early_of_input)
        if found is not None:
            return found
    return None


def _found(sock: Any, early: Callable[[Environ, Any], bytes] | None = None) -> Found | None:  # noqa: ANN401 - a server's
    kind = f"{type(sock).__module__}.{type(sock).__qualname__}"
    if kind in _PLAIN:
        return Found(sock.fileno(), sock, early=early) if sock.fileno() >= 0 else None
    if all(callable(getattr(sock, name, None)) for name in ("fileno", "recv", "send")):
        return Found(None, sock, early=early, has_tls=kind in _TLS)
    return None


# -- What the server has read past the handshake ----------------------------------------------------------------------


def _early_of_gunicorn(environ: Environ, sock: Any) -> bytes:  # noqa: ANN401, ARG001 - as `_early_of_input`
    unreader = environ["wsgi.input"].reader.unreader
    if hasattr(unreader, "take_buffered"):
        return cast("bytes", unreader.take_buffered())
    data = cast("bytes", unreader.buf.getvalue())  # gunicorn 23 has no word for it
    unreader.buf.seek(0)
    unreader.buf.truncate()
    return data


def _early_of_input(environ: Environ, sock: Any) -> bytes:  # noqa: ANN401 - a server's
    """Empty the buffer of what the server reads requests from, without reading on."""
    stream: Any = environ["wsgi.input"]
    buffered = stream if hasattr(stream, "peek") else getattr(stream, "rfile", None)
    if buffered is None:  # another bridge's, which has none of what comes later
        return b""
    before = sock.gettimeout()
    sock.settimeout(0)  # where the buffer is empty, peek() looks into the socket, and would wait there
    try:
        data = cast("bytes", buffered.peek(1))
        return cast("bytes", buffered.read(len(data))) if data else b""
    finally:
        sock.settimeout(before)


def _set_no_delay(sock: Any) -> None:  # noqa: ANN401 - a server's
    """Send what is written at once. Nagle's algorithm would hold a message up until the client has got the one before.

    asyncio does so for its own sockets; our transport on trio does not, nor do all servers.
    """
    with contextlib.suppress(OSError, AttributeError):  # it is a Unix socket, or no socket at all
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


# -- Take it ----------------------------------------------------------------------------------------------------------


class Found:
    """A client's socket that can be taken over.

    Args:
        descriptor: That of a plain socket; None if it has to be held.
        sock: The server's object; None where it has only a descriptor.
        early: Returns what the server has read past the handshake.
        has_tls: Whether the object does TLS, over a descriptor of its own.
    """

    __slots__ = ("_descriptor", "early", "has_tls", "sock")

    def __init__(
        self,
        descriptor: int | None,
        sock: Any = None,  # noqa: ANN401 - whatever the server has
        *,
        early: Callable[[Environ, Any], bytes] | None = None,
        has_tls: bool = False,
    ) -> None:
        self._descriptor = descriptor
        self.sock = sock
        self.early = early
        self.has_tls = has_tls

    @property
    def is_held(self) -> bool:
        """Whether the server's thread has to stay."""
        return self._descriptor is None

    def takes_only_thread(self, environ: Environ) -> bool:
        """Whether the server's thread has to stay, and the server has no other one that answers requests meanwhile."""
        if not self.is_held:
            return False
        if environ.get("wsgi.multithread", True):
            return has_one_thread()
        return not type(self.sock).__module__.startswith("gevent.")  # pywsgi says so, but a greenlet is what stays

    def take(self, environ: Environ) -> Taken:
        """Take the socket over.

        Raises:
            OSError: There is no descriptor left, and the server still has the client; or EBADF: the server has closed
                its socket.
        """
        if self._descriptor is None:
            _set_no_delay(self.sock)
            ours, theirs = socket_pair()
            open_sockets.add(theirs)  # a forked child's copy would keep the loop from seeing its end
            stay = functools.partial(hold, self.sock, theirs, has_tls=self.has_tls)
            return Taken(ours, self._read_early(environ), stay, theirs)
        with contextlib.ExitStack() as undo:
            ours = plain_socket(os.dup(self._descriptor))
            undo.callback(ours.close)
            _set_no_delay(ours)
            sink, drain = socket_pair()
            undo.callback(drain.close)
            with sink:
                os.set_blocking(sink.fileno(), os.get_blocking(self._descriptor))
                self._check_descriptor()
                os.dup2(sink.fileno(), self._descriptor, inheritable=False)
            undo.pop_all()
        # Half-closed when the request is answered, not now: `has_hung_up` would take it for a client that has left.
        return Taken(ours, self._read_early(environ), lambda _: half_closed(drain), drain)

    def _check_descriptor(self) -> None:
        """See that the descriptor is still the client's, and so is the copy that was made of it.

        1. The socket is found, and the app begins. 2. The client leaves. 3. The server's main thread closes the socket.
        4. It accepts another client, who gets the same number. 5. The first app accepts.

        Python forgets the number before it closes the descriptor.
        """
        if self.sock is not None and self.sock.fileno() != self._descriptor:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def _read_early(self, environ: Environ) -> bytes:
        if self.early is None:
            return b""
        try:
            return self.early(environ, self.sock)
        except Exception:  # noqa: BLE001 - as in find_socket(); only clients that break RFC 6455 §4.1 send any
            logger.debug("What came right behind the handshake could not be read", exc_info=True)
            return b""


class Taken:
    """A socket that was taken over.

    Attributes:
        socket: Ours, which carries what the client sends and gets.
        early: What the client has sent already.
        rest: What the server thread has of it, to be discarded if it does not come to `stay`.
    """

    __slots__ = ("_stay", "early", "rest", "socket")

    def __init__(self, sock: socket.socket, early: bytes, stay: _Stay, rest: socket.socket) -> None:
        self.socket = sock
        self.early = early
        self.rest = rest
        self._stay = stay

    def stay(self, on_stop: Callable[[], object]) -> socket.socket | None:
        """Do what keeps the server's thread: nothing that takes time, or to carry bytes until the WebSocket ends.

        What the server does with its socket after this does not reach the client. Once. Raises no ``Exception``.

        Args:
            on_stop: Called if the server begins to stop while its thread is kept. The WebSocket is to end then.

        Returns:
            The other end of what the server has in its place. Read it to its end, then close it: else the server's
            last write fails.
        """
        return self._stay(on_stop)


class HandOver:
    """What the `Request` takes for the request's body: when it is asked for a part, the socket is taken over.

    Attributes:
        found: The socket.
        read: Not None while the socket is wanted, so that the `Request` asks for it: once the app has accepted. Loop
            thread; but in the constructor of the `Request`, which takes None for a body that has come.
        taken: The socket, from when it was taken. Server thread.
        ours: Holds it, until the loop or, if the loop does not come, the server thread takes it out, in one step:
            whoever does has to close it.
        broke_off: False, as a handshake has no body that could end early.
        stalled: False, for the same reason.
        client_socket: The client's.
    """

    broke_off = False
    stalled = False

    def __init__(self, environ: Environ, found: Found) -> None:
        self._environ = environ
        self.found = found
        self.client_socket = found.sock
        self.read: object = self.next
        self.taken: Taken | None = None
        self.ours: list[Taken] = []

    def first(self) -> list[Message]:
        """A handshake has no body."""
        return []

    def next(self) -> list[Message]:
        """Take the socket over.

        Raises:
            ClientDisconnected: The server has closed the socket.
            BridgeError: That failed. It is no ``OSError``: gunicorn's sync worker takes that for a client that left.
        """
        self.read = None
        try:
            self.taken = self.found.take(self._environ)
        except OSError as error:
            if error.errno == errno.EBADF:
                raise ClientDisconnected("the client left before the WebSocket was open") from error
            raise BridgeError(
                f"The client's socket could not be taken over for a WebSocket: {error}. The server answers the "
                "client. If the process runs out of descriptors, raise their limit (ulimit -n), or set max_websockets."
            ) from error
        self.ours.append(self.taken)
        return [{"type": "http.request", "body": b"", "more_body": False}]

    def drop(self) -> None:
        """Close the socket if the loop has not taken it. Either thread."""
        with contextlib.suppress(IndexError):
            discard(self.ours.pop().socket)
