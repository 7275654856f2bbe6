"""The app's end of a link: as an object of ours, and with the verbs of gevent-websocket.

Strategy
    Both are thin. They answer the handshake on the app's end of the link, as a library of the app's own would on
    ``environ["werkzeug.socket"]``, which is that very end. From then on messages go by `ByObject`.

Guarantees
    - Messages that several threads send are whole, and so is the order of those of each.
    - Whoever waits in `WebSocket.receive` or `WebSocket.send` is woken when the WebSocket ends, by `WebSocket.close` in
      another thread too.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from a2wsgi._errors import ClientDisconnected, WebSocketClosed
from a2wsgi._protocol.close_codes import LOST, NORMAL, cut_reason, refuse_code
from a2wsgi._protocol.upgrade import Handshake, accept_token, head_101

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from a2wsgi._types import Environ

    from .passages import ByObject

__all__ = ["GeventWebSocket", "WebSocket"]

_FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


class WebSocket:
    """A client's WebSocket, as ``environ["a2wsgi.websocket"]`` of its handshake.

    Call `accept`, or just begin to send or receive. To refuse instead, return a response as for any request, or call
    `close`. When the app returns, the WebSocket is closed: with 1011 if it raises, else with 1000.

    Threading: `send` and `close` may be called by several threads at a time, `receive` by one. The thread that runs the
    app must not return before the others are through.

    Cancellation: when the client leaves or the server stops, whoever waits in a call gets `WebSocketClosed`.

    Spec: RFC 6455.
    """

    def __init__(self, sock: socket.socket, passage: ByObject, environ: Environ, subprotocols: Iterable[str]) -> None:
        self._sock = sock
        self._passage = passage
        self._key: str = environ["HTTP_SEC_WEBSOCKET_KEY"]
        self._subprotocols = tuple(subprotocols)
        self._lock = threading.RLock()  # held while it is accepted or closed, and never to wait for the client
        self._sending = threading.RLock()  # held while a message is sent; taken before _lock
        self._receiving = threading.Lock()  # held while anything is awaited
        self._accepted = False  # written under _lock, once
        self._end: tuple[int, str] | None = None  # code and reason, once it is closed; written under _lock, once

    def __repr__(self) -> str:
        state = "new" if not self._accepted else "open"
        return f"<WebSocket {state if self._end is None else f'closed code={self._end[0]}'}>"

    # -- What it is

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """What the client offers, the best first."""
        return self._subprotocols

    @property
    def closed(self) -> bool:
        """Whether it is known to be closed. A client that left is noticed by the next call that sends or receives."""
        return self._end is not None

    @property
    def close_code(self) -> int | None:
        """The code with which it was closed: the client's, or that of `close`; None while it is open.

        1005 stands for a Close without a code, and 1006 for a connection that was lost.
        """
        return None if self._end is None else self._end[0]

    @property
    def close_reason(self) -> str | None:
        """The reason that came with the code, often ``""``; None while it is open."""
        return None if self._end is None else self._end[1]

    # -- What it does

    def accept(self, subprotocol: str | None = None, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Open the WebSocket. Once; a second call does nothing.

        Args:
            subprotocol: One of `subprotocols`, or none.
            headers: More headers for the answer to the handshake, as for ``start_response``.

        Raises:
            WebSocketClosed: The client has left.
            AppProtocolError: The client does not offer the subprotocol, or a header is not the app's to set.
            InvalidHeader: A header cannot be sent as it is.
        """
        with self._lock:
            if self._accepted:
                return
            self._raise_if_closed()
            handshake = Handshake(accept_token(self._key), self._subprotocols, "")
            pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            head = head_101(handshake, subprotocol=subprotocol, headers=pairs)
            self._answer(head.data)

    def send(self, message: str | bytes) -> None:
        """Send a message: a text as ``str``, a binary one as ``bytes``. Waits while the client does not read.

        Raises:
            WebSocketClosed: It is closed. The message may not have been sent.
            TypeError: It is neither.
            UnicodeEncodeError: The text has a lone surrogate.
        """
        if not isinstance(message, str):
            message = bytes(memoryview(message))
        elif not message.isascii():
            message.encode()
        if not self._accepted:
            self.accept()
        with self._sending:
            with self._lock:  # not further: close() is not to wait for the client
                self._raise_if_closed()
            try:
                self._passage.send(message)
            except ClientDisconnected as error:
                raise self._ended(error) from None

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next message: a text as ``str``, a binary one as ``bytes``. Waits for it.

        Args:
            timeout: How many seconds; None for ever.

        Raises:
            TimeoutError: No message has come. Nothing is lost; call again.
            WebSocketClosed: It is closed, and there is none left.
        """
        if not self._accepted:
            self.accept()
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            with self._receiving:
                return self._passage.receive(deadline)
        except ClientDisconnected as error:
            raise self._ended(error) from None

    def __iter__(self) -> Iterator[str | bytes]:
        """Receive messages until it is closed, whoever closes it and why."""
        while True:
            try:
                message = self.receive()
            except WebSocketClosed:
                return
            yield message

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close it; before it was accepted: refuse it with 403. Does nothing if it is closed.

        Does not wait. A `send` that waits in another thread raises `WebSocketClosed`.

        Args:
            code: 1000, or another that may be sent (RFC 6455 §7.4); 4000 to 4999 are free for apps.
            reason: For the client; cut at 123 bytes of UTF-8.

        Raises:
            ValueError: The code may not be sent.
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

    def __init__(self, websocket: WebSocket, environ: Environ) -> None:
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
