"""The body of a request, as the WSGI server has it, turned into ASGI messages.

*Facts*

- PEP 3333, "Input and Error Streams": "A server is not required to read past the client's specified Content-Length". On
  wsgiref and Werkzeug such a read blocks for ever. So we only call ``read(n)``, with n > 0 and never past the end.
- Without ``CONTENT_LENGTH``, the end of the stream is the end of the body only if the server says so by
  ``wsgi.input_terminated``, or if the stream is of a type that has an end. uWSGI gives chunks by a function.
- RFC 9112 §6.3: a request with neither Content-Length nor Transfer-Encoding has no body. But HTTP/2 needs neither, and
  some servers remove the latter. So we ask the stream; that costs nothing unless the app reads.
- RFC 9110 §10.1.1: the first read may make the server say "100 Continue". So the app's first read is ours, and no
  earlier one.
- How long a read may wait for a silent client is the server's business: see `server_socket`.

Threading: the server thread calls everything here, and waits in ``read()`` alone. The loop thread only looks at
`RequestBody.read` and, when it has been rung, at `RequestBody.stalled`.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from a2wsgi._errors import ServerProtocolError
from a2wsgi._log import logger
from a2wsgi._protocol.scope import request_length

from .server_socket import socket_to_time, uwsgi_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from a2wsgi._types import Environ, Message

#: Bytes that are read at a time. A body of at most as many is read before the app starts. asyncio's figure for a read
#: buffer, and that of a pipe in Linux.
READ_BYTES = 65_536

#: Streams that end where the body does, though their servers do not set wsgi.input_terminated. They go by name, as
#: importing tempfile takes 4 ms.
_BOUNDED_NAMES = {"eventlet.wsgi.Input", "tempfile.SpooledTemporaryFile", "twisted.web.wsgi._InputStream"}


class RequestBody:
    """The body of one request.

    Args:
        environ: The request's.
        timeout: Seconds that a read may wait for the client to send anything, if the server lets us bound that; None
            waits for ever.

    Attributes:
        timeout: As given.
        broke_off: The body has ended early. The loop thread does not look at this: it is rung.
        read: Reads at most n bytes; None if there is nothing more to read. The loop thread looks whether it is there,
            and may find one that is None by now.
        stalled: It has ended early because nothing came for ``timeout`` seconds. Set before the loop is rung.

    Raises:
        BadRequest: ``CONTENT_LENGTH`` is malformed. Answer 400.
        ServerProtocolError: ``wsgi.input`` cannot be read.
    """

    #: The client's, where it is known by other ways than by the environ: a `HandOver` has it.
    client_socket: Any = None

    __slots__ = ("_at_once", "_length", "_remaining", "_socket", "broke_off", "read", "stalled", "timeout")

    def __init__(self, environ: Environ, timeout: float | None = None) -> None:
        self.timeout = timeout
        self.broke_off = False
        self.stalled = False
        self._socket: Any = None  # whose timeout bounds a read
        self._length = request_length(environ)  # None if nothing says it
        self._remaining = self._length  # bytes still to be read; None reads to the end of the stream
        # A body that is small or in memory is read before the app starts, unless the client waits to be asked for it.
        self._at_once = "HTTP_EXPECT" not in environ and (
            self._remaining <= READ_BYTES
            if self._remaining is not None
            else type(environ.get("wsgi.input")) is io.BytesIO
        )
        self.read: Callable[[int], bytes] | None = None
        if self._remaining != 0:
            self.read = _reader(environ, bounded=self._remaining is not None)
            if timeout is not None and self.read is not None:
                self._socket = socket_to_time(environ)

    def first(self) -> list[Message]:
        """What is known before the app starts: a small body, that there is none, or a part of one in memory."""
        if self.read is None:
            return [{"type": "http.request", "body": b"", "more_body": False}]
        if not self._at_once:
            return []
        messages = self.next()
        while self._remaining is not None and messages[-1].get("more_body"):  # a stream may give less than it was asked
            messages += self.next()
        if len(messages) > 1:  # they become one, and http.disconnect may follow it
            last = messages[-1]
            body = b"".join(message.get("body", b"") for message in messages)
            more = last["type"] != "http.request"
            messages = [{"type": "http.request", "body": body, "more_body": more}, *([last] if more else [])]
        return messages

    def next(self) -> list[Message]:
        """The next part of the body; ``http.disconnect`` if it ends early. Waits for the client.

        Raises:
            ServerProtocolError: ``wsgi.input`` gives something other than bytes.
        """
        if self.read is None:
            return []
        try:
            size = READ_BYTES if self._remaining is None else min(self._remaining, READ_BYTES)
            data = self.read(size) if self._socket is None else self._read_in_time(self.read, size)
        except Exception as error:  # noqa: BLE001 - servers raise what they like when the client is gone
            logger.debug("The request's body could not be read to its end", exc_info=error)
            return self._break_off()
        if type(data) is not bytes:
            data = _as_bytes(data)
        more = bool(data)
        if self._length is not None and self._remaining is not None:
            if not data:
                logger.debug(
                    "The request's body ended after %d of %d bytes: the client left, or something in front of the "
                    "bridge has read wsgi.input",
                    self._length - self._remaining,
                    self._length,
                )
                return self._break_off()
            data = data[: self._remaining]  # of a stream that gives more than it was asked for: the rest is no body
            self._remaining -= len(data)
            more = self._remaining > 0
        if not more:
            self.read = None
        return [{"type": "http.request", "body": data, "more_body": more}]

    def _break_off(self) -> list[Message]:
        """Nothing follows, though the body is not complete."""
        self.read = None
        self.broke_off = True
        return [{"type": "http.disconnect"}]

    def _read_in_time(self, read: Callable[[int], bytes], size: int) -> bytes:
        """Read with the socket's timeout set to ours. It holds anew for each ``recv`` of the server within one read."""
        before: float | None = self._socket.gettimeout()
        if before is not None and before <= self.timeout:  # type: ignore[operator]  # no socket without a timeout
            return read(size)
        self._socket.settimeout(self.timeout)
        try:
            return read(size)
        except TimeoutError:
            self.stalled = True
            raise
        finally:
            self._socket.settimeout(before)


def _reader(environ: Environ, *, bounded: bool) -> Callable[[int], bytes] | None:
    """The function that reads at most n bytes of the body; None if there is no body."""
    stream = environ.get("wsgi.input")
    if stream is None:
        return None
    # io.BufferedReader.read(n) waits for all n bytes. wsgiref's input is one, and so is that of an outer bridge.
    try:
        read: Callable[[int], bytes] = stream.read1 if type(stream) is io.BufferedReader else stream.read
    except AttributeError:
        raise ServerProtocolError(
            f"The server's environ has a wsgi.input of type {type(stream).__name__}, which has no read(). PEP 3333, "
            '"Input and Error Streams", requires it. Fix the server, or the middleware that set it.'
        ) from None
    if bounded:
        return read
    encoding = environ.get("HTTP_TRANSFER_ENCODING")
    if "uwsgi.version" in environ and encoding:
        uwsgi = uwsgi_module()
        return lambda _: bytes(uwsgi.chunked_read())
    if environ.get("wsgi.input_terminated") or isinstance(stream, io.BytesIO):
        return read
    for kind in type(stream).__mro__:
        if f"{kind.__module__}.{kind.__qualname__}" in _BOUNDED_NAMES:
            return read
    return None


def _as_bytes(data: object) -> bytes:
    if data is None:  # io.RawIOBase: a stream that does not block has nothing yet
        return b""
    try:
        return bytes(memoryview(data))  # type: ignore[arg-type]  # a buffer, or a TypeError
    except TypeError:
        raise ServerProtocolError(
            f"read() of wsgi.input returned something of type {type(data).__name__}. PEP 3333, "
            '"Input and Error Streams", requires bytes. Fix the server, or the middleware that set it.'
        ) from None
