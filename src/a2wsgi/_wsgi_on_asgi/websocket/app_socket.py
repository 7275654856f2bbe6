"""The app's end of a link: as an object of ours, and with the verbs of gevent-websocket.

Strategy
    Both are thin. They answer the handshake on the app's end of the link, as a library of the app's own would on
    ``environ["werkzeug.socket"]``, which is that very end. From then on messages go by `ObjectPassage`.

Guarantees
    - Messages that several threads send are whole, and so is the order of those of each.
    - Whoever waits in `WebSocket.receive` or `WebSocket.send` is woken when the WebSocket ends, by `WebSocket.close` in
      another thread too.
    - No lock is held while a thread waits for the client. Another call may be made on the loop's own thread meanwhile,
      by a coroutine or by a finalizer, and the loop would wait for that lock for ever.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from a2wsgi import _type_hints as hints
from a2wsgi._errors import AppProtocolError, ClientDisconnected, WebSocketClosed
from a2wsgi._protocol.answer import MAX_HEAD_BYTES
from a2wsgi._protocol.close_codes import LOST, NORMAL, cut_reason, refuse_code
from a2wsgi._protocol.headers import response_head_from_wsgi
from a2wsgi._protocol.upgrade import Handshake, accept_token, head_101

if TYPE_CHECKING:
    from .passages import ObjectPassage

_FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


class WebSocket:
    """A client's WebSocket. The environ of its handshake has it as ``environ["a2wsgi.websocket"]``.

    Call `accept`, or just begin to send or receive. To refuse the client instead, return a response as for any request,
    or call `close`. When the app returns, the WebSocket is closed with 1000; if the app raises, with 1011.

    Threading: several threads may call `send` and `close` at the same time, but only one `receive`. The app must not
    return before the other threads are done with the WebSocket.

    Cancellation: when the client leaves or the server stops, every waiting call raises `WebSocketClosed`.

    Spec: RFC 6455.
    """

    def __init__(
        self,
        sock: socket.socket,
        passage: Any,  # noqa: ANN401 - an `ObjectPassage`, whose module needs the package websockets
        environ: hints.Environ,
        subprotocols: Iterable[str],
    ) -> None:
        self._sock = sock
        self._passage: ObjectPassage = passage
        self._key: str = environ["HTTP_SEC_WEBSOCKET_KEY"]
        self._subprotocols = tuple(subprotocols)
        self._lock = threading.RLock()  # held while it is accepted or closed, and never to wait for the client
        self._accepted = False  # written under _lock, once
        self._end: tuple[int, str] | None = None  # code and reason, once it is closed; written under _lock, once

    def __repr__(self) -> str:
        state = "new" if not self._accepted else "open"
        return f"<WebSocket {state if self._end is None else f'closed code={self._end[0]}'}>"

    # -- What it is

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """The subprotocols that the client offers, in its order of preference."""
        return self._subprotocols

    @property
    def closed(self) -> bool:
        """Whether the WebSocket is known to be closed. If the client left, the next `send` or `receive` notices it."""
        return self._end is not None

    @property
    def close_code(self) -> int | None:
        """The close code: the client's, or the one passed to `close`. None while the WebSocket is open.

        1005 means that there was no code, and 1006 that the connection was lost.
        """
        return None if self._end is None else self._end[0]

    @property
    def close_reason(self) -> str | None:
        """The reason that came with the close code, often ``""``. None while the WebSocket is open."""
        return None if self._end is None else self._end[1]

    # -- What it does

    def accept(self, subprotocol: str | None = None, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Accept the handshake. A second call does nothing.

        Args:
            subprotocol: One of `subprotocols`, or None.
            headers: Additional headers for the response to the handshake, as for ``start_response``.

        Raises:
            WebSocketClosed: The client has left.
            AppProtocolError: The client does not offer the subprotocol, only the server may set a header, or the
                headers are too long.
            InvalidHeader: A header cannot be sent as it is.
        """
        if self._accepted:
            return
        # Without the lock: an iterable of headers is the app's code, and may wait.
        pairs = response_head_from_wsgi("200 OK", headers).headers  # any final status does: it is for their checks
        handshake = Handshake(accept_token(self._key), self._subprotocols, "")
        head = head_101(handshake, subprotocol=subprotocol, headers=pairs)
        if len(head.data) > MAX_HEAD_BYTES:  # the link would have no room for it until the loop reads
            raise AppProtocolError(
                f"The app accepted its WebSocket with headers of {len(head.data)} bytes, and {MAX_HEAD_BYTES} is our "
                "limit. Send fewer of them, or shorter ones."
            )
        with self._lock:
            if not self._accepted:
                self._raise_if_closed()
                self._answer(head.data)

    def send(self, message: str | bytes) -> None:
        """Send a text message (``str``) or a binary one (``bytes``). Waits while the client does not read.

        Raises:
            WebSocketClosed: The WebSocket is closed. The message may not have been sent.
            TypeError: The message is neither ``str`` nor bytes-like.
            UnicodeEncodeError: The text contains a lone surrogate.
        """
        if not isinstance(message, str):
            message = bytes(memoryview(message))
        else:
            if type(message) is not str:  # a subclass may have any __len__, which the loop would call
                message = str.__str__(message)
            if not message.isascii():
                message.encode()
        if not self._accepted:
            self.accept()
        with self._lock:  # not further: close() is not to wait for the client
            self._raise_if_closed()
        try:
            self._passage.send(message)
        except ClientDisconnected as error:
            raise self._ended(error) from None

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Wait for the next message and return it: a text message as ``str``, a binary one as ``bytes``.

        Args:
            timeout: Seconds to wait. None waits forever.

        Raises:
            TimeoutError: No message came in time. Nothing is lost; you may call again.
            WebSocketClosed: The WebSocket is closed, and no message is left.
        """
        if not self._accepted:
            self.accept()
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            return self._passage.receive(deadline)
        except ClientDisconnected as error:
            raise self._ended(error) from None

    def __iter__(self) -> Iterator[str | bytes]:
        """Receive messages until the WebSocket is closed, by whichever side."""
        while True:
            try:
                message = self.receive()
            except WebSocketClosed:
                return
            yield message

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close the WebSocket, or refuse it with 403 if it was not accepted yet. A second call does nothing.

        Does not wait. A `send` that waits in another thread raises `WebSocketClosed`.

        Args:
            code: The close code: 1000, or another one that may be sent (RFC 6455 §7.4). Apps may use 4000 to 4999.
            reason: A text for the client, cut at 123 bytes of UTF-8.

        Raises:
            ValueError: This code may not be sent.
            TypeError: The code is not an ``int``.
        """
        with self._lock:
            if self._end is not None:
                return
            refuse_code(code)
            if not self._accepted:
                with contextlib.suppress(WebSocketClosed):
                    self._answer(_FORBIDDEN)
                with contextlib.suppress(OSError):  # the loop sees the end, and what was written before it
                    self._sock.shutdown(socket.SHUT_RDWR)
            self._passage.close(code, cut_reason(reason).decode())
            self._ended(WebSocketClosed(code, reason))

    # -- Under it

    def _answer(self, head: bytes) -> None:
        """Answer the handshake, on the link. The lock is held."""
        self._accepted = True
        self._passage.in_use = True
        try:
            self._sock.sendall(head)
        except OSError:
            raise self._ended(self._passage.closed()) from None

    def _ended(self, error: ClientDisconnected) -> WebSocketClosed:
        """Note how it has ended: by a `WebSocketClosed`, or with its loop. Any thread."""
        # The race: 1. close() ends the passage. 2. That wakes a send(), which notes 1006. 3. close() notes its own,
        # too late. close() holds the lock from 1 to 3, so 2 comes after them.
        with self._lock:
            if self._end is None:
                self._end = (error.code, error.reason) if isinstance(error, WebSocketClosed) else (LOST, "")
            return WebSocketClosed(*self._end)

    def _raise_if_closed(self) -> None:
        if self._end is not None:
            raise WebSocketClosed(*self._end)


class GeventWebSocket:
    """``environ["wsgi.websocket"]``: the verbs of gevent-websocket's ``WebSocket``, without gevent.

    There the handshake is over before the app is called. Here it is answered at the first call, so that an app which
    does not look at it may refuse.
    """

    def __init__(self, websocket: WebSocket, environ: hints.Environ) -> None:
        self._websocket = websocket
        self.environ = environ
        self._told = False  # receive() has returned None

    def __repr__(self) -> str:
        return f"<GeventWebSocket over {self._websocket!r}>"

    @property
    def closed(self) -> bool:
        return self._websocket.closed

    @property
    def origin(self) -> str | None:
        return self.environ.get("HTTP_ORIGIN")

    @property
    def protocol(self) -> str | None:
        return self.environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")

    @property
    def version(self) -> str | None:
        return self.environ.get("HTTP_SEC_WEBSOCKET_VERSION")

    @property
    def path(self) -> str | None:
        return self.environ.get("PATH_INFO")

    def receive(self) -> str | bytes | None:
        """The next message; None once when it is closed, and an error from then on."""
        try:
            return self._websocket.receive()
        except WebSocketClosed as exc:
            if self._told:
                raise _gevent_error(exc) from None
            self._told = True
            return None

    def send(self, message: Any, binary: bool | None = None) -> None:  # noqa: ANN401, FBT001 - as gevent-websocket has it
        """Send a message: ``bytes`` as binary, anything else as text, unless ``binary`` says."""
        if binary is None:
            binary = not isinstance(message, str | int)
        if not binary and not isinstance(message, str):
            message = message.decode() if isinstance(message, bytes) else str(message or "")
        elif binary and isinstance(message, str):
            message = message.encode()
        try:
            self._websocket.send(message)
        except WebSocketClosed as exc:
            raise _gevent_error(exc) from None

    def close(self, code: int = NORMAL, message: str | bytes = b"") -> None:
        """Close it."""
        with contextlib.suppress(WebSocketClosed):
            self._websocket.accept()  # it was, before the app was called
        self._websocket.close(code, message.decode("utf-8", "replace") if isinstance(message, bytes) else message)


def _gevent_error(exc: WebSocketClosed) -> Exception:
    """What an app of gevent-websocket's expects: its error if it is loaded, else ours."""
    module = sys.modules.get("geventwebsocket.exceptions")
    error: type[Exception] | None = getattr(module, "WebSocketError", None)
    return exc if error is None else error(str(exc))
