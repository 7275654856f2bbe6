"""A server's thread that is held for a WebSocket: it carries bytes between the client and a socket pair of ours.

Guarantees
    - Neither direction waits for the other: a loop that reads no more, since the client takes nothing, is still taken
      from.
    - The thread ends within seconds of our end of the pair, whatever the client does: also if it takes nothing, so that
      the pair is not read to its end.
    - What a client has sent before a write to it fails reaches our side, its Close, too, as long as that reads on.
    - Our side is told within `_LOOK_SECONDS` that the server has begun to stop, where the server can be asked.
"""

from __future__ import annotations

import importlib
import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, cast

from a2wsgi._log import logger

from .our_sockets import discard, half_closed, plain_socket, socket_pair
from .server_stop import stop_of_server

#: How much a held thread carries at a time; as in asyncio's streams.
_CARRIED_BYTES = 65_536
#: How much at a time where a socket cannot be told not to wait: what is writable takes as much without waiting.
_UNTIMED_BYTES = 4_096
#: How long a client may take to take the last bytes, in all. As long as for the Close handshake.
_LAST_SECONDS = 10.0
#: The same when the server stops, which is not to wait for clients.
_STOP_SECONDS = 1.0
#: How long it may take to end its side after that; arbitrary. What it still sends would make the system reset the
#: connection, and the client might lose what it was sent last. And how long it may take until our side gets more of
#: what a lost client has sent.
_LINGER_SECONDS = 1.0
#: How often to look whether the server stops, and whether our side is still there while the client takes nothing.
#: Arbitrary: short for a server that waits for the thread.
_LOOK_SECONDS = 0.25


class SocketLike(Protocol):
    """What is used of a socket that is held."""

    def fileno(self) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes, /) -> int: ...


_Select = Callable[[list[SocketLike], list[SocketLike], float | None], tuple[list[SocketLike], list[SocketLike]]]


def hold(
    client: SocketLike, pair: socket.socket, on_stop: Callable[[], object], *, has_tls: bool
) -> socket.socket | None:
    """Carry bytes between the client and our end of a pair, until either ends; then leave the server a sink.

    Args:
        client: The server's object.
        pair: Our end of the pair. It is discarded in the end.
        on_stop: Called when the server begins to stop. It has the other end of the pair ended, and does not wait.
        has_tls: Whether the object does TLS, over a descriptor of its own.
    """
    try:
        _Carrier(client, pair, has_tls=has_tls).run(on_stop)
    except Exception:  # noqa: BLE001 - a server's object: whatever it raises, the connection is over
        logger.debug("A WebSocket's connection ended in an error", exc_info=True)
    finally:
        discard(pair)
        with suppress(Exception):  # closed by the server meanwhile
            _shut(client)
    # What is no socket of a known kind may have a descriptor that others use, too.
    return _leave_sink(client) if has_tls else None


def _leave_sink(client: SocketLike) -> socket.socket | None:
    """Replace a connection that is over, so that the server's answer meets no error; the other end of the sink."""
    try:
        # TLS ends with this: what the server writes next is not encrypted, and nobody sees it.
        cast("Any", client).shutdown(socket.SHUT_RDWR)
    except Exception:  # noqa: BLE001 - it was shut before, by us or by the client
        logger.debug("A TLS connection was shut already", exc_info=True)
    try:
        sink, drain = socket_pair()
        with sink:
            os.set_blocking(sink.fileno(), os.get_blocking(client.fileno()))
            os.dup2(sink.fileno(), client.fileno(), inheritable=False)
    except Exception:  # noqa: BLE001 - no descriptor is left, or the server has closed it: then its write fails
        logger.debug("The server's socket could not be replaced", exc_info=True)
        return None
    return half_closed(drain)


def _shut(client: SocketLike, how: int = socket.SHUT_RDWR) -> None:
    """Shut the connection below whatever the object puts over it."""
    with plain_socket(os.dup(client.fileno())) as plain:
        plain.shutdown(how)


class _Carrier:
    """Carries bytes both ways between a client and a pair, neither of which may keep it from the other."""

    def __init__(self, client: SocketLike, pair: socket.socket, *, has_tls: bool) -> None:
        self._client = client
        self._has_tls = has_tls
        self._pair = pair
        self._to_client = b""
        self._to_pair = b""
        self._wants_write = False  # TLS has to write before it can read on
        self._pair_ended = False  # nothing more comes from our side, and all of it was read
        self._client_ended = False
        self._lost_at: float | None = None  # it takes nothing more; since when our side has got nothing, either
        pair.settimeout(0)
        settimeout = getattr(client, "settimeout", None)
        self._waits = settimeout is None  # wherever it is not asked for what it has ready
        self._size = _UNTIMED_BYTES if settimeout is None else _CARRIED_BYTES
        if settimeout is not None:
            settimeout(0)
        self._select = _selector_of(client)

    def run(self, on_stop: Callable[[], object]) -> None:
        """Carry until our side is through and the client has all, or the client has left."""
        stops, has_stopped = stop_of_server(), False
        while not (self._pair_ended or self._client_ended or self._we_left()):
            self._step(_LOOK_SECONDS if self._to_client or stops is not None or self._lost_at is not None else None)
            if stops is not None and stops():
                stops, has_stopped = None, True
                on_stop()
        deadline = time.monotonic() + (_STOP_SECONDS if has_stopped else _LAST_SECONDS)
        while not (self._client_ended or self._client_has_all()) and (seconds := deadline - time.monotonic()) > 0:
            self._step(seconds)
        if not self._to_client:
            self._end_tls(deadline)
        if self._client_ended or not self._client_has_all():
            return
        _shut(self._client, socket.SHUT_WR)
        deadline = time.monotonic() + _LINGER_SECONDS
        while (seconds := deadline - time.monotonic()) > 0 and not self._client_ended:
            self._to_pair = b""  # nobody reads it
            self._step(seconds)

    def _end_tls(self, deadline: float) -> None:
        """Say in TLS that nothing more comes, and do not wait for the client to say so (RFC 8446 §6.1)."""
        with suppress(OSError, ValueError):  # the client has left, or has ended TLS
            while self._has_tls:
                self._wants_write = False
                self._tried(cast("Any", self._client).unwrap)
                if not self._wants_write or (seconds := deadline - time.monotonic()) <= 0:
                    return
                self._select([], [self._client], seconds)

    def _we_left(self) -> bool:
        """Whether our side is gone: where the client takes nothing, the pair's end lies behind what is not read yet.

        POSIX, send(): EPIPE if the socket "is connection-mode and is no longer connected". That of no bytes sends none.
        """
        if not self._to_client:
            return False  # the pair is read
        try:
            self._pair.send(b"")
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    def _client_has_all(self) -> bool:
        return self._pair_ended and not self._to_client

    def _step(self, seconds: float | None) -> None:
        reads: list[SocketLike] = []
        writes: list[SocketLike] = []
        if not self._to_pair:
            reads.append(self._client)
        if not self._to_client and not self._pair_ended:
            reads.append(self._pair)
        if self._to_client or self._wants_write:
            writes.append(self._client)
        if self._to_pair and not self._pair_ended:
            writes.append(self._pair)
        pending = getattr(self._client, "pending", None)
        if not self._to_pair and pending is not None and pending():  # decrypted already: no poll tells of it
            seconds = 0
        readable, writable = self._select(reads, writes, seconds)
        self._wants_write = False
        self._from_client(may_read=not self._waits or self._client in readable)
        self._from_pair(may_write=not self._waits or self._client in writable)
        if self._lost_at is not None and time.monotonic() > self._lost_at + _LINGER_SECONDS:
            self._client_ended = True

    def _from_client(self, *, may_read: bool) -> None:
        if not self._to_pair and may_read:
            data = self._tried(lambda: self._client.recv(self._size))
            self._client_ended = data == b""
            self._to_pair = data or b""
        if self._to_pair and not self._pair_ended:
            try:
                self._to_pair = self._to_pair[self._pair.send(self._to_pair) :]
                self._lost_at = self._lost_at and time.monotonic()
            except BlockingIOError:
                pass
            except OSError:  # our side is gone
                self._to_pair = b""

    def _from_pair(self, *, may_write: bool) -> None:
        if not self._to_client and not self._pair_ended:
            try:
                self._to_client = self._pair.recv(self._size)
                self._pair_ended = not self._to_client
            except BlockingIOError:
                pass
            except OSError:
                self._pair_ended = True
        if self._to_client and self._lost_at is None and may_write:
            try:
                sent = self._tried(lambda: self._client.send(self._to_client))
                self._to_client = self._to_client[sent or 0 :]
            except OSError:  # its last words may be unread. Our side is told by their end
                self._lost_at = time.monotonic()
        if self._lost_at is not None:
            self._to_client = b""

    def _tried(self, function: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the function returns
        """Call what does not wait; None if it would have to."""
        try:
            return function()
        except BlockingIOError:
            return None
        except OSError as error:
            if type(error).__name__ == "SSLWantWriteError":
                self._wants_write = True
            elif type(error).__name__ != "SSLWantReadError":
                raise
            return None


def _selector_of(client: SocketLike) -> _Select:
    """What waits for sockets as the client's own kind does, so that other greenlets go on."""
    package = type(client).__module__.partition(".")[0]
    if package in {"gevent", "eventlet"}:
        green = importlib.import_module({"gevent": "gevent.select", "eventlet": "eventlet.green.select"}[package])
        return lambda reads, writes, seconds: green.select(reads, writes, [], seconds)[:2]
    return _select


def _select(
    reads: list[SocketLike], writes: list[SocketLike], seconds: float | None
) -> tuple[list[SocketLike], list[SocketLike]]:
    """``select.select``, also for descriptors past 1023."""
    events: dict[int, int] = {}
    for socks, mask in ((reads, select.POLLIN), (writes, select.POLLOUT)):
        for sock in socks:
            events[sock.fileno()] = events.get(sock.fileno(), 0) | mask
    poll = select.poll()
    for descriptor, mask in events.items():
        poll.register(descriptor, mask)
    found = dict(poll.poll(None if seconds is None else seconds * 1000))
    ended = select.POLLERR | select.POLLHUP | select.POLLNVAL
    return (
        [sock for sock in reads if found.get(sock.fileno(), 0) & (select.POLLIN | ended)],
        [sock for sock in writes if found.get(sock.fileno(), 0) & (select.POLLOUT | ended)],
    )
