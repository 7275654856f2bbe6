"""What a WSGI server shows of the client: the request's body, as ASGI messages, and whether the client is still there.

*Facts*

- PEP 3333, "Input and Error Streams": "A server is not required to read past the client's specified Content-Length". On
  wsgiref and Werkzeug such a read blocks for ever. So ``read(n)`` is all that is called, n > 0 and never past the end.
- Without ``CONTENT_LENGTH`` the end of the stream is the end of the body only where the server says so, by
  ``wsgi.input_terminated``, or where the stream is of a type that has an end. uWSGI gives chunks by a function.
- RFC 9112 §6.3: a request with neither Content-Length nor Transfer-Encoding has no body. But HTTP/2 needs neither, and
  some servers take the latter away. So the stream is asked: it costs nothing unless the app does.
- RFC 9110 §10.1.1: the first read may have the server say "100 Continue", so the app asks for it, not we.
- PEP 3333 has no word for a client that hangs up: a server learns of it when it writes. A response that says nothing
  for an hour (server-sent events) would hold its thread for an hour. But waitress has ``waitress.client_disconnected``
  (which tells only where ``channel_request_lookahead`` is set), gunicorn and Werkzeug put the socket into the environ,
  uWSGI has a function for its descriptor: ``poll`` tells of a peer that has closed without reading (``POLLRDHUP`` in
  Linux's poll(2)), also under TLS. A client that has closed only its sending side looks the same;
  uvicorn, granian and gunicorn's own ASGI worker take that for gone as well.

The server thread is the only one to call anything here. It waits in ``read()`` alone.
"""

from __future__ import annotations

import io
import logging
import select
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from ._translate import request_length

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._types import Environ, Message

__all__ = ["RequestBody", "has_hung_up"]

logger = logging.getLogger("a2wsgi")

#: How much is read at a time, and how long a body may be to be read before the app starts. asyncio's figure for a read
#: buffer, and that of a pipe in Linux.
READ_BYTES = 65_536

# Streams that end where the body does, though their servers do not say so by wsgi.input_terminated.
_BOUNDED_TYPES = (io.BytesIO, tempfile.SpooledTemporaryFile)
_BOUNDED_NAMES = {"eventlet.wsgi.Input", "twisted.web.wsgi._InputStream"}


class RequestBody:
    """The body of one request.

    Args:
        environ: The request's.

    Raises:
        BadRequest: ``CONTENT_LENGTH`` is malformed. Answer 400.
    """

    __slots__ = ("_at_once", "_left", "_read")

    def __init__(self, environ: Environ) -> None:
        self._left = request_length(environ)  # how many bytes are still to be read; None: up to the end of the stream
        #: What is small or in memory is read before the app starts, unless the client waits to be asked for it.
        self._at_once = "HTTP_EXPECT" not in environ and (
            self._left <= READ_BYTES if self._left is not None else type(environ.get("wsgi.input")) is io.BytesIO
        )
        self._read: Callable[[int], bytes] | None = None  # None once there is nothing more to read
        if self._left != 0:
            self._read = _reader(environ, bounded=self._left is not None)

    @property
    def unread(self) -> bool:
        """Whether there may be more to read. Any thread; on the loop's, True may be late news."""
        return self._read is not None

    def first(self) -> list[Message]:
        """What can be told before the app starts: a small body whole, or that there is none; else what is in memory."""
        if self._read is None:
            return [{"type": "http.request", "body": b"", "more_body": False}]
        if not self._at_once:
            return []
        if self._left is None:
            return self.next()
        messages: list[Message] = []
        while self.unread:  # a stream may give less than it is asked for
            messages += self.next()
        if len(messages) > 1 and messages[-1]["type"] == "http.request":
            body = b"".join(message["body"] for message in messages)
            return [{"type": "http.request", "body": body, "more_body": False}]
        return messages

    def next(self) -> list[Message]:
        """The next part of the body; ``http.disconnect`` if it ends early. Waits for the client."""
        if self._read is None:
            return []
        try:
            data = self._read(READ_BYTES if self._left is None else min(self._left, READ_BYTES))
        except Exception:  # servers raise what they like when the client is gone
            logger.debug("The request's body could not be read to its end", exc_info=True)
            data = b""
            self._left = self._left or 1
        more = bool(data)
        if self._left is not None:
            if not data:  # the client left before its Content-Length was reached
                self._read = None
                return [{"type": "http.disconnect"}]
            self._left -= len(data)
            more = self._left > 0
        if not more:
            self._read = None
        return [{"type": "http.request", "body": data, "more_body": more}]


def _reader(environ: Environ, *, bounded: bool) -> Callable[[int], bytes] | None:
    """What reads at most n bytes of the body; None if there is none."""
    stream = environ.get("wsgi.input")
    if stream is None:
        return None
    # Python's own gives with read(n) nothing before n bytes are there: a bridge further out has it, and wsgiref.
    read: Callable[[int], bytes] = stream.read1 if type(stream) is io.BufferedReader else stream.read
    if bounded:
        return read
    encoding = environ.get("HTTP_TRANSFER_ENCODING")
    if "uwsgi.version" in environ and encoding:
        uwsgi = _uwsgi()
        return lambda _: bytes(uwsgi.chunked_read())
    if environ.get("wsgi.input_terminated") or isinstance(stream, _BOUNDED_TYPES):
        return read
    return read if f"{type(stream).__module__}.{type(stream).__qualname__}" in _BOUNDED_NAMES else None


def has_hung_up(environ: Environ) -> bool:
    """Whether the client of this request has hung up; False where that cannot be told."""
    told = environ.get("waitress.client_disconnected")
    if callable(told):
        return bool(told())
    if not hasattr(select, "POLLRDHUP"):
        return False
    socket = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    try:
        if socket is not None:
            descriptor = socket.fileno()
        elif "uwsgi.version" in environ:
            descriptor = _uwsgi().connection_fd()
        else:
            return False
        poll = _poll()
        poll.register(descriptor, select.POLLRDHUP)
        return bool(poll.poll(0))
    except (OSError, ValueError, AttributeError):  # the socket was closed, or is none
        return False


def _uwsgi() -> Any:  # noqa: ANN401 - a module without types
    """What uWSGI has besides the environ, for the request of the calling thread."""
    import uwsgi  # noqa: PLC0415 - exists only in uWSGI's own process

    return uwsgi


def _poll() -> select.poll:
    """A ``poll`` of the operating system's: gevent's knows no ``POLLRDHUP``, and this one does not wait."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("select"):
        poll: select.poll = monkey.get_original("select", "poll")()
        return poll
    return select.poll()
