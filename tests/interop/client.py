"""An HTTP/1.1 client that does what no other would: it sends bytes as they are, and shows each thing that comes.

Nothing waits longer than `SECONDS`. `HTTP2Client` does the same in HTTP/2, as far as it can.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

SECONDS = 15.0

Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Head:
    """What a response begins with. Names are in lower case."""

    status: int
    fields: tuple[tuple[str, str], ...]

    def __getitem__(self, name: str) -> str:
        """The value of the one field of this name."""
        (value,) = self.all(name)
        return value

    def all(self, name: str) -> list[str]:
        """The values of all fields of this name."""
        return [value for key, value in self.fields if key == name]


@dataclass(frozen=True)
class Response(Head):
    """A whole response."""

    body: bytes

    def json(self) -> Any:
        """The body, which is JSON."""
        assert self.status == 200, self
        return json.loads(self.body)


class BrokenError(Exception):
    """The server ended the connection within a response."""


class Client:
    """One connection."""

    def __init__(self, port: int, *, receive_buffer: int | None = None, seconds: float = SECONDS) -> None:
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(SECONDS)
        self._socket.connect(("127.0.0.1", port))
        self._socket.settimeout(seconds)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def reset_on_close(self) -> None:
        """Have the end of the connection be a reset, and what is under way lost."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    # -- out ------------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send ``data`` as it is."""
        self._socket.sendall(data)

    def send_head(self, method: str, target: str | bytes, fields: Fields = ()) -> None:
        """Send what a request begins with."""
        target = target.encode("ascii") if isinstance(target, str) else target
        lines = "".join(f"{name}: {value}\r\n" for name, value in (("Host", "localhost"), *fields))
        self.send(method.encode() + b" " + target + b" HTTP/1.1\r\n" + lines.encode("latin-1") + b"\r\n")

    def send_chunk(self, data: bytes) -> None:
        """Send a chunk of a body without a length; an empty one ends it."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def request(
        self, method: str, target: str | bytes, fields: Fields = (), body: bytes | Sequence[bytes] | None = None
    ) -> Response:
        """Send a request and take its response. A ``body`` in pieces goes chunked."""
        if body is None:
            self.send_head(method, target, fields)
        elif isinstance(body, bytes):
            self.send_head(method, target, [*fields, ("Content-Length", str(len(body)))])
            self.send(body)
        else:
            self.send_head(method, target, [*fields, ("Transfer-Encoding", "chunked")])
            for piece in body:
                self.send_chunk(piece)
            self.send_chunk(b"")
        return self.response(method)

    def get(self, target: str | bytes, fields: Fields = ()) -> Response:
        """Send a GET and take its response."""
        return self.request("GET", target, fields)

    # -- in -------------------------------------------------------------------------------------------------------

    def head(self) -> Head:
        """Take what a response begins with, a "100 Continue" included."""
        status = self._line().split(b" ", 2)[1]
        fields = []
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            fields.append((name.lower(), value.strip()))
        return Head(int(status), tuple(fields))

    def chunks(self) -> Iterator[bytes]:
        """Take the chunks of a chunked body, one at a time."""
        while True:
            length = int(self._line().split(b";")[0], 16)
            data = self._exactly(length)
            self._exactly(2)
            if not length:
                return
            yield data

    def pieces(self, head: Head) -> Iterator[bytes]:
        """Take a body as it comes, in whatever way its end is told.

        Raises:
            BrokenError: The server ended the connection within it.
        """
        if "chunked" in head.all("transfer-encoding"):
            yield from self.chunks()
        elif head.all("content-length"):
            left = int(head["content-length"])
            while left:
                data = self._read(lambda most=left: self._file.read1(most))
                if not data:
                    raise BrokenError(f"{left} bytes before the end")
                left -= len(data)
                yield data
        else:
            while data := self._read(lambda: self._file.read1(65_536)):
                yield data

    def response(self, method: str = "GET") -> Response:
        """Take a response to the end of its body.

        Raises:
            BrokenError: The server ended the connection within it.
        """
        head = self.head()
        has_body = method != "HEAD" and head.status not in {204, 304}
        return Response(head.status, head.fields, b"".join(self.pieces(head)) if has_body else b"")

    def is_over(self) -> bool:
        """Whether the server ends the connection, with nothing more to say. Waits for either."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True

    def _line(self) -> bytes:
        line = self._read(self._file.readline)
        if not line.endswith(b"\r\n"):
            raise BrokenError(f"within a line, at {line!r}")
        return line[:-2]

    def _exactly(self, length: int) -> bytes:
        data = self._read(lambda: self._file.read(length))
        if len(data) < length:
            raise BrokenError(f"{length - len(data)} bytes before the end")
        return data

    @staticmethod
    def _read(read: Any) -> bytes:
        try:
            data: bytes = read()
        except ConnectionError as error:
            raise BrokenError(str(error)) from error
        return data


class HTTP2Client(Client):
    """One connection of HTTP/2 without TLS, and on it one request at a time.

    What HTTP/2 does not have is left out: the body's length need not be said, and chunks are pieces of it.
    """

    def __init__(self, port: int, *, seconds: float = SECONDS) -> None:
        import h2.config
        import h2.connection

        super().__init__(port, seconds=seconds)
        # It sends what it is told, right or wrong.
        configuration = h2.config.H2Configuration(
            header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._http2 = h2.connection.H2Connection(configuration)
        self._http2.initiate_connection()
        self._http2.increment_flow_control_window(2**30)
        self._stream = 0
        self._left: int | None = 0  # of the body to be sent; None until its end is told
        self._events: deque[Any] = deque()
        self._flush()

    def close(self) -> None:
        """Give up the request, and hang up."""
        if self._stream:
            with contextlib.suppress(OSError, self._error()):
                self._http2.reset_stream(self._stream, 8)  # RFC 9113 §7: CANCEL
                self._flush()
        super().close()

    # -- out ------------------------------------------------------------------------------------------------------

    def send_head(self, method: str, target: str | bytes, fields: Fields = ()) -> None:
        self._stream = self._http2.get_next_available_stream_id()
        self._left = 0
        headers: list[tuple[bytes, bytes]] = [
            (b":method", method.encode()),
            (b":scheme", b"http"),
            (b":authority", b"localhost"),
            (b":path", target.encode("ascii") if isinstance(target, str) else target),
        ]
        for name, value in fields:
            if name == "Transfer-Encoding":
                self._left = None
            if name in {"Connection", "Transfer-Encoding"}:  # RFC 9113 §8.2.2: it has its own ways
                continue
            if name == "Content-Length":
                self._left = int(value)
            headers.append((name.lower().encode(), value.encode("latin-1")))
        self._http2.send_headers(self._stream, headers, end_stream=self._left == 0)
        self._http2.increment_flow_control_window(2**30, self._stream)
        self._flush()

    def send(self, data: bytes) -> None:
        if self._left is not None:
            self._left -= len(data)
        view = memoryview(data)
        while view:
            size = min(self._http2.local_flow_control_window(self._stream), self._http2.max_outbound_frame_size)
            if not size:
                self._receive()
                continue
            piece, view = bytes(view[:size]), view[size:]
            self._http2.send_data(self._stream, piece, end_stream=self._left == 0 and not view)
            self._flush()

    def send_chunk(self, data: bytes) -> None:
        if data:
            self.send(data)
        else:
            self._http2.end_stream(self._stream)
            self._flush()

    # -- in -------------------------------------------------------------------------------------------------------

    def head(self) -> Head:
        import h2.events

        event = self._next()
        if not isinstance(event, (h2.events.ResponseReceived, h2.events.InformationalResponseReceived)):
            raise BrokenError(f"{event!r} before the head")
        fields = [(name.decode(), value.decode("latin-1")) for name, value in event.headers or ()]
        return Head(int(fields[0][1]), tuple(fields[1:]))

    def pieces(self, head: Head) -> Iterator[bytes]:
        import h2.events

        while not isinstance(event := self._next(), h2.events.StreamEnded):
            if not isinstance(event, h2.events.DataReceived):
                raise BrokenError(f"{event!r} within the body")
            yield event.data or b""
        self._stream = 0

    def response(self, method: str = "GET") -> Response:
        head = self.head()
        return Response(head.status, head.fields, b"".join(self.pieces(head)))

    def is_over(self) -> bool:
        """Whether the server ends the stream, with nothing more to say."""
        return not self._stream or b"".join(self.pieces(Head(0, ()))) == b""

    def _next(self) -> Any:
        """The next event of the request's."""
        while not self._events:
            self._receive()
        return self._events.popleft()

    def _receive(self) -> None:
        import h2.events

        try:
            data = self._socket.recv(65_536)
        except ConnectionError as error:
            raise BrokenError(str(error)) from error
        if not data:
            raise BrokenError("the connection has ended")
        for event in self._http2.receive_data(data):
            ends = isinstance(event, h2.events.ConnectionTerminated)
            if ends or (isinstance(event, _stream_events()) and getattr(event, "stream_id", None) == self._stream):
                self._events.append(event)
        with contextlib.suppress(ConnectionError):  # the server has answered, and closed the connection
            self._flush()

    def _flush(self) -> None:
        self._socket.sendall(self._http2.data_to_send())

    @staticmethod
    def _error() -> type[Exception]:
        import h2.exceptions

        return h2.exceptions.ProtocolError


def _stream_events() -> tuple[type[Any], ...]:
    from h2 import events

    return (
        events.ResponseReceived,
        events.InformationalResponseReceived,
        events.DataReceived,
        events.StreamEnded,
        events.StreamReset,
    )


@contextlib.contextmanager
def closing_all(clients: Sequence[Client]) -> Iterator[None]:
    """Hang up on all of them at the end of the block."""
    try:
        yield
    finally:
        for client in clients:
            client.close()
