"""A server's thread that carries a WebSocket's bytes, without a bridge: how it ends."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from a2wsgi._asgi_on_wsgi.websocket import carrier, our_sockets
from interop.certificates import write
from support.lockstep import BOUND_SECONDS, Signal
from support.wsgi_driver import InThread

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="No socket can be taken over there.")


class Watched:
    """A server's socket that says when its client takes no more."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.is_full = Signal("the client takes no more")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, data: bytes, /) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            self.is_full.set()
            raise


class Held:
    """A client that has read nothing yet, and a thread that carries.

    Attributes:
        client: The client's socket.
        ours: Our end of the pair.
        filled: How many bytes the client was sent before the thread began. There is room for no more.
        watched: The server's object.
        thread: The thread.
    """

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.client, server = socket.socketpair()
        self.ours, theirs = our_sockets.socket_pair()
        for sock in (self.client, server, self.ours, theirs):
            stack.enter_context(sock)
        self.client.settimeout(BOUND_SECONDS)
        server.settimeout(0)
        self.filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self.filled += server.send(bytes(65_536))
        self.watched = Watched(server)
        self.thread = InThread(lambda: carrier.hold(cast("Any", self.watched), theirs, lambda: None, has_tls=False))

    def rest(self) -> int:
        """Read to the end: how many bytes came from our side."""
        count = 0
        while data := self.client.recv(65_536):
            count += len(data)
        return count - self.filled


@pytest.fixture
def held() -> Iterator[Held]:
    """One whose thread ends with the test."""
    with contextlib.ExitStack() as stack:
        one = Held(stack)
        yield one
        one.client.shutdown(socket.SHUT_RDWR)
        one.thread.result()


class Lost:
    """A server's socket whose client has left: writes fail. What it sent is read in small parts, as TLS gives it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def recv(self, _size: int, /) -> bytes:
        return self._sock.recv(1_000)

    def send(self, _data: bytes, /) -> int:
        raise ConnectionResetError


LEAVES: dict[str, Callable[[socket.socket], None]] = {
    "closed": lambda ours: ours.close(),
    "shut": lambda ours: ours.shutdown(socket.SHUT_RDWR),  # there is a copy in a forked child
}
ENDS: dict[str, Callable[[socket.socket], None]] = {**LEAVES, "half-closed": lambda ours: ours.shutdown(socket.SHUT_WR)}


@pytest.mark.parametrize("how", LEAVES)
@pytest.mark.parametrize("size", [1, 100_000])
def test_thread_ends_after_our_side_if_the_client_reads_nothing(
    held: Held, size: int, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if more than the thread holds waits in the pair, so that it does not come to the end of the stream."""
    monkeypatch.setattr(carrier, "_LAST_SECONDS", 0.01)
    held.ours.sendall(bytes(size))
    held.watched.is_full.wait()
    LEAVES[how](held.ours)
    held.thread.result()


def test_server_that_stops_does_not_wait_for_a_client_that_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for its thread, as long as for any request."""
    monkeypatch.setattr(carrier, "_LAST_SECONDS", 2 * BOUND_SECONDS)
    monkeypatch.setattr(carrier, "_STOP_SECONDS", 0.01)
    monkeypatch.setattr(carrier, "stop_of_server", lambda: lambda: True)
    with contextlib.ExitStack() as stack:
        held = Held(stack)
        held.ours.sendall(b"x")
        held.watched.is_full.wait()
        held.ours.close()
        held.thread.result()


@pytest.mark.parametrize("how", ENDS)
def test_client_gets_all_that_was_sent_before_our_side_has_left(held: Held, how: str) -> None:
    """It begins to read when that is over."""
    held.ours.sendall(bytes(100_000))
    held.watched.is_full.wait()
    ENDS[how](held.ours)
    assert held.rest() == 100_000
    held.client.shutdown(socket.SHUT_WR)
    held.thread.result()


def carry_lost(stack: contextlib.ExitStack) -> tuple[socket.socket, InThread]:
    """Our end of the pair, and a thread that carries for a client which has sent 10,000 bytes and left."""
    client, server = socket.socketpair()
    ours, theirs = our_sockets.socket_pair()
    for sock in (client, server, ours, theirs):
        sock.settimeout(BOUND_SECONDS)
        stack.enter_context(sock)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # so it holds less than that
    client.sendall(bytes(10_000))
    ours.sendall(b"x")  # which fails
    thread = InThread(lambda: carrier.hold(cast("Any", Lost(server)), theirs, lambda: None, has_tls=False))
    client.close()
    return ours, thread


def test_last_words_of_a_client_that_takes_nothing_more_are_carried() -> None:
    """Its Close may be among them, and the app is to get what it has sent before."""
    with contextlib.ExitStack() as stack:
        ours, thread = carry_lost(stack)
        got = 0
        while data := ours.recv(65_536):
            got += len(data)
        assert got == 10_000
        thread.result()


def test_thread_ends_after_a_lost_client_if_our_side_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that takes no messages would never learn that it is lost."""
    monkeypatch.setattr(carrier, "_LINGER_SECONDS", 0.01)
    monkeypatch.setattr(carrier, "_LOOK_SECONDS", 0.01)
    with contextlib.ExitStack() as stack:
        carry_lost(stack)[1].result()


def test_end_is_said_in_tls(tmp_path: Path) -> None:
    """RFC 8446 §6.1: without a close_notify the client could not tell the end from an attacker's."""
    pytest.importorskip("cryptography")
    made = write(tmp_path)
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    serving.load_cert_chain(made.server, made.server_key)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with contextlib.ExitStack() as stack:
        plain, server = (stack.enter_context(sock) for sock in socket.socketpair())
        ours, theirs = (stack.enter_context(sock) for sock in our_sockets.socket_pair())
        for sock in (plain, server):
            sock.settimeout(BOUND_SECONDS)
        shaking = InThread(lambda: serving.wrap_socket(server, server_side=True))
        client = stack.enter_context(trusting.wrap_socket(plain, suppress_ragged_eofs=False))
        held = stack.enter_context(shaking.result())
        thread = InThread(lambda: carrier.hold(held, theirs, lambda: None, has_tls=True))
        ours.sendall(b"last")
        ours.close()
        assert client.recv(10) == b"last"
        assert client.recv(10) == b""
        client.close()
        drain = thread.result()
        assert drain is not None
        drain.close()
