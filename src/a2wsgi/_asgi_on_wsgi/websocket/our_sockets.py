"""The descriptors that WebSockets have: made, counted, and let go, in this process and in its forked children."""

from __future__ import annotations

import _socket as _socket_in_c  # neither gevent nor eventlet replaces this one
import contextlib
import contextvars
import os
import socket
import sys
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    import asyncio

#: How long a server may take to close what it has in place of its client. Arbitrary: it does so when it has answered.
DRAIN_SECONDS: Final = 10.0

#: How much is read of a client that is lost. Arbitrary: more than a socket pair holds by default.
REST_BYTES: Final = 1 << 20

#: Those that are ours, of all loops. A forked child has copies of them, which are its to close. ``add``, ``discard``
#: and ``copy`` are one step each, as of `Lifetime.requests`.
open_sockets: set[socket.socket] = set()


class Drain:
    """The other end of what a server has in place of its client: what the server still writes is thrown away.

    It is among the requests of its bridge until the server closes its side, or has had the time. The server thread adds
    it before the loop hears of it: if the loop ends first, it is ended with the others.

    Args:
        loop: The loop.
        sock: Our end.
        requests: Those of the bridge.
    """

    task = None
    opened = False  # it was a WebSocket

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, requests: set[Any]) -> None:
        self._loop = loop
        self._socket = sock
        self._requests = requests
        self._timer: asyncio.TimerHandle | None = None
        self._not_started = [True]  # taken out in one step, by the loop or by the server thread in its place
        requests.add(self)
        open_sockets.add(sock)

    def start(self) -> None:
        """Read until the server closes its side. Loop thread."""
        if not self._take():
            return
        try:
            self._socket.setblocking(False)  # noqa: FBT003 - the standard library's
            empty = contextvars.Context()
            self._timer = self._loop.call_later(DRAIN_SECONDS, self.end, context=empty)
            empty.run(self._loop.add_reader, self._socket, self._read)
        except BaseException:  # of a given loop, or no memory
            self.end()
            raise

    def end_unless_started(self) -> None:
        """End it if the loop has not come to `start`, and may never do so. Server thread."""
        if self._take():
            self.end()

    def _take(self) -> bool:
        try:
            return self._not_started.pop()
        except IndexError:
            return False

    def _read(self) -> None:
        try:
            if self._socket.recv(65_536):
                return
        except BlockingIOError:
            return
        except OSError:  # it was reset: the server has closed it without reading
            pass
        self.end()

    def end(self) -> None:
        """Close it. Loop thread, or whoever acts in its place; again is allowed."""
        self._take()
        self._requests.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.remove_reader(self._socket)
        discard(self._socket)

    def abort(self, error: BaseException) -> None:  # noqa: ARG002 - as the others'
        """See `InFlight`."""
        self.end()


def discard(sock: socket.socket) -> None:
    """Shut a socket of ours down and close it. Any thread; again is allowed."""
    open_sockets.discard(sock)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def rest_of(sock: socket.socket) -> bytes:
    """What is still to be read of a socket that does not block, since only a write has failed; `REST_BYTES` at most."""
    rest = bytearray()
    with contextlib.suppress(OSError):
        while len(rest) < REST_BYTES and (data := sock.recv(65_536)):
            rest += data
    return bytes(rest)


def _after_fork_in_child() -> None:
    # Not shut down: that would end the parent's connection. Nor would the socket's close() do: uvloop counts as a user
    # of the socket, and close() waits for the last one.
    for sock in open_sockets.copy():
        with contextlib.suppress(OSError):
            os.close(sock.detach())
    open_sockets.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# -- Plain sockets ----------------------------------------------------------------------------------------------------


def _class_of_sockets() -> type[socket.socket]:
    """The standard library's, also where gevent or eventlet has put another there.

    Theirs wait in the hub of the thread that made them, and ours are used by the loop thread.
    """
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_module_patched("socket"):
        return cast("type[socket.socket]", gevent.get_original("socket", "socket"))
    if eventlet is not None and eventlet.is_monkey_patched("socket"):
        return cast("type[socket.socket]", eventlet.original("socket").socket)
    return socket.socket


def plain_socket(descriptor: int) -> socket.socket:
    """A plain socket for a descriptor, which is closed if that fails."""
    try:
        return _class_of_sockets()(fileno=descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two plain sockets: what goes into the one comes out of the other."""
    one, other = _socket_in_c.socketpair()
    with contextlib.ExitStack() as undo:
        undo.callback(one.close)
        undo.callback(other.close)
        first = plain_socket(one.detach())
        undo.callback(first.close)
        second = plain_socket(other.detach())
        undo.pop_all()
    return first, second


def half_closed(drain: socket.socket) -> socket.socket:
    """The other end of a sink, at which a server finds the end of the stream when it looks for a next request."""
    with contextlib.suppress(OSError):
        drain.shutdown(socket.SHUT_WR)
    return drain
