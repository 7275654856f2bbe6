"""A WSGI server with one client, in one process: what an ASGI app's WebSocket looks like from both of these sides."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from typing_extensions import Self

from a2wsgi._protocol.frames import Close, Event, Frames, Message, Role
from support.lockstep import BOUND_SECONDS
from support.wsgi_driver import Response, call, environ_of


class Client:
    """One end of a connection, whose other end a server has.

    Attributes:
        socket: Ours.
        server: The server's.
        environ: What the server makes of the request.
        response: What the app answered the server, once it was `called`.
    """

    def __init__(self, *, family: str = "unix", key: str = "werkzeug__socket", **others: Any) -> None:
        self.socket, self.server = socket.socketpair() if family == "unix" else _tcp_pair()
        self.socket.settimeout(BOUND_SECONDS)
        self.frames = Frames(Role.CLIENT, max_message_bytes=None)
        self.response: Response | None = None
        self.head = b""
        self._events: deque[Event] = deque()
        self.environ = environ_of(
            "GET",
            "/",
            **{
                "HTTP_CONNECTION": "Upgrade",
                "HTTP_UPGRADE": "websocket",
                "HTTP_SEC_WEBSOCKET_VERSION": "13",
                "HTTP_SEC_WEBSOCKET_KEY": base64.b64encode(os.urandom(16)).decode(),
                key: self.server,
                **others,
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.server.close()

    # -- The server's side

    def called(self, app: Callable[..., Any], fails: type[BaseException] | None = None) -> Response:
        """Have the app answer the handshake, in this thread."""
        self.response = call(app, self.environ, fails=fails)
        if fails is None:
            self.server.close()  # as servers do that find nothing more in it
        return self.response

    def opened(self, app: Callable[..., Any]) -> Client:
        """Have the app accept it."""
        response = self.called(app)
        assert (response.status, response.headers, response.chunks) == ("101 Switching Protocols", [], [])
        self.read_head()
        return self

    # -- The client's side

    def read_head(self) -> bytes:
        """Read the answer to the handshake."""
        while not self.head.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            assert byte, self.head
            self.head += byte
        return self.head

    def send(self, data: str | bytes) -> None:
        self.socket.sendall(self.frames.message(data))

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.socket.sendall(self.frames.close(code, reason))

    def event(self) -> Event | None:
        """The next event; None at the end of the stream."""
        while not self._events:
            data = self.socket.recv(65_536)
            if not data:
                return None
            self._events.extend(self.frames.feed(data))
        return self._events.popleft()

    def receive(self) -> str | bytes:
        """The next message."""
        event = self.event()
        assert isinstance(event, Message), event
        return event.data

    def closed(self) -> tuple[int, str]:
        """The server's Close, which is answered; the stream has ended after it."""
        event = self.event()
        assert isinstance(event, Close), event
        with contextlib.suppress(OSError):
            self.socket.sendall(self.frames.close(event.code))
        assert self.event() is None
        return event.code, event.reason

    def reset(self) -> None:
        """End the connection as a client does that crashes."""
        self.socket.close()


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
        return one, other


@contextlib.contextmanager
def opened(app: Callable[..., Any], **options: Any) -> Iterator[Client]:
    """A client whose WebSocket is open."""
    with Client(**options) as client:
        yield client.opened(app)
