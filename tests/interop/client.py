"""An HTTP/1.1 client that does what no other would: it sends bytes as they are, and shows each thing that comes.

Nothing waits longer than `SECONDS`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
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

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(SECONDS)
        self._socket.connect(("127.0.0.1", port))
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
        """Take the chunks of a body that has no length, one at a time."""
        while True:
            length = int(self._line().split(b";")[0], 16)
            data = self._exactly(length)
            self._exactly(2)
            if not length:
                return
            yield data

    def response(self, method: str = "GET") -> Response:
        """Take a response to the end of its body.

        Raises:
            BrokenError: The server ended the connection within it.
        """
        head = self.head()
        if method == "HEAD" or head.status in {204, 304}:
            body = b""
        elif "chunked" in head.all("transfer-encoding"):
            body = b"".join(self.chunks())
        elif head.all("content-length"):
            body = self._exactly(int(head["content-length"]))
        else:
            body = self._file.read()
        return Response(head.status, head.fields, body)

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


@contextlib.contextmanager
def closing_all(clients: Sequence[Client]) -> Iterator[None]:
    """Hang up on all of them at the end of the block."""
    try:
        yield
    finally:
        for client in clients:
            client.close()
