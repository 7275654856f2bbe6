"""The loop's end of a link: a socket pair whose other end a WSGI app has as the socket of its WebSocket.

Strategy
    WebSocket libraries for WSGI want the client's socket. On an ASGI server there is none, so the app gets one end of a
    `socket.socketpair`, a real one that can be selected, shut down and duplicated. The other end becomes a transport of
    the event loop. `Link.read` and `Link.write` are all that the story of a WebSocket needs of it.

Guarantees
    - What the app writes is read in order and to its end, also if the app closes its end while we write to it.
    - At most `READ_BYTES`, and one read of the loop, wait for `Link.read`; at most ``high_water`` bytes, one message
      and one pong wait for the app.
    - After `Link.finish` no thread stays blocked in a call on the app's end: it reads what was left for it and then the
      end of the stream, and its writes fail. As long as something is not written to it yet, they are thrown away.
      Nothing is left of the link `CLOSE_SECONDS` later. All this holds even if a forked child still has a copy of our
      end; the copies that it knows of, it closes.
    - When the process ends, every open link is shut down before `threading` joins the threads that are no daemons. A
      library may have such a thread wait for its socket (simple-websocket does), and the process would never end.

Assumes
    All methods but `shut_down` are called on the loop thread, and `read` by one coroutine at a time.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, cast

from a2wsgi._threads.runtime import wake

if TYPE_CHECKING:
    from a2wsgi._threads.handles import Timer, Waiter
    from a2wsgi._threads.runtime import Runtime

    from .passages import ObjectPassage

#: How long the other end may leave unread what was last written to it. RFC 6455 names no figure; websockets' own.
CLOSE_SECONDS = 10.0

#: How much of what the app writes is read ahead. The figure of the other buffers.
READ_BYTES = 65_536

#: What the kernel may hold in either direction.
KERNEL_BYTES = 65_536


class Link(asyncio.Protocol):
    """The loop's end of one link. Make it with `open`."""

    def __init__(self, runtime: Runtime, sock: socket.socket) -> None:
        self._runtime = runtime
        self._sock = sock
        self._transport: asyncio.Transport
        self._unread = bytearray()
        self._reader: Waiter | None = None  # of read(), while it waits
        self._drained: Waiter | None = None  # of drain(), while writing is paused
        self._latest = b""  # to be written once writing is not paused any more
        self._lost: Waiter = runtime.create_waiter()
        self._abort_timer: Timer | None = None
        self._paused = False  # reading
        self._ended = False  # the app's end is closed, or ours: nothing is to be read but what is in _unread
        self._finished = False  # finish() was called
        self._object: ObjectPassage | None = None  # by which messages go, instead of the link
        self.was_shut_down = False  # by shut_down(), in any thread

    @classmethod
    async def open(cls, runtime: Runtime, high_water: int) -> tuple[Link, socket.socket]:
        """Make a link.

        Args:
            runtime: The loop's.
            high_water: How many bytes may wait for the app before `drain` waits.

        Returns:
            Our end, and the app's, which is the caller's to close.

        Raises:
            OSError: The system has no socket to give. Nothing is left.
        """
        ours, theirs = socket.socketpair()
        try:
            for sock in (ours, theirs):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
            ours.setblocking(False)  # noqa: FBT003 - it takes it by position only
            link = cls(runtime, ours)
            await runtime.connect(link, ours, high_water)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        _remember(link)
        return link, theirs

    def __repr__(self) -> str:
        return f"<Link unread={len(self._unread)} ended={self._ended} finished={self._finished}>"

    # -- from the app

    async def read(self) -> bytes:
        """Return what the app has written since the last call, waiting for it; ``b""`` at the end.

        Cancellation: nothing is lost.
        """
        while not self._unread and not self._ended:
            self._reader = self._runtime.create_waiter()
            await self._reader
        data = bytes(self._unread)
        self._unread.clear()
        if self._paused and not self._ended:
            self._paused = False
            self._transport.resume_reading()
        return data

    # -- to the app

    def write(self, data: bytes) -> None:
        """Write to the app. Never waits: see `drain`. What is written to a link that has ended is lost."""
        if not self._finished and not self._transport.is_closing():  # which asyncio would warn of, if it goes on
            self._transport.write(data)

    def write_latest(self, data: bytes) -> None:
        """Write to the app as soon as there is room. Until then, the next such thing takes the place of this one."""
        if self._drained is None:
            self.write(data)
        else:
            self._latest = data

    async def drain(self) -> None:
        """Wait until the app has read so much that there is room for more, or the link has ended."""
        while self._drained is not None and not self._finished:
            await self._drained

    def finish(self, last: bytes = b"") -> None:
        """End the link in both directions, after one last thing to read for the app. What it wrote is thrown away."""
        if self._finished:
            return
        self._finished = True
        self._unread.clear()
        if last and not self._transport.is_closing():
            self._transport.write(last)
        if not self._lost.done():
            self._abort_timer = self._runtime.call_later(CLOSE_SECONDS, self._transport.abort)
        if self._transport.is_closing() or not self._transport.get_write_buffer_size():
            self._close()
        else:
            # Another bridge's loop may be at the app's end. When a write of its own fails, it reads only what is there.
            # So that fails only once all is written.
            if self._paused and not self._ended:
                self._transport.resume_reading()
            self._transport.set_write_buffer_limits(high=0)  # resume_writing() is called when nothing is left
        self._end()

    def _close(self) -> None:
        # An app that is blocked in send() wakes. It would not, if we only stopped reading.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)
        # A socket that is closed with something unread resets its peer, and that might lose it the last thing.
        with contextlib.suppress(OSError):
            while self._sock.recv(READ_BYTES):
                pass
        if not self._lost.done():
            self._transport.close()

    def abort(self) -> None:
        """End the link at once, whatever the app has not read."""
        self.finish()
        if not self._lost.done():  # asyncio's abort() may fail after that
            self._transport.abort()

    async def wait_lost(self) -> None:
        """Wait until nothing is left of the link. After `finish`, it is `CLOSE_SECONDS` at most."""
        if not self._lost.done():
            await self._runtime.wait(self._lost, None)

    def bypass_by(self, passage: ObjectPassage) -> None:
        """Carry no messages: they go by ``passage``, which is told when the app's side ends or the process does."""
        self._object = passage
        if self._paused and not self._ended:
            self._transport.resume_reading()  # what the app writes is thrown away from now on, up to its end
        if self._ended:
            passage.finish_app()

    def shut_down(self) -> None:
        """Shut both ends down while the process ends, for the threads of others. Any thread; the loop may be gone."""
        self.was_shut_down = True
        passage = self._object
        if passage is not None:
            passage.shut_down()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def lose(self) -> None:
        """Shut both ends down, as the loop was closed without a word. Any thread."""
        self.shut_down()
        _forget(self)

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._finished or self._object is not None:
            return
        self._unread += data
        if len(self._unread) >= READ_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake_reader()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`: the link is ours to close."""
        self._end()
        return True

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._drained = self._runtime.create_waiter()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._let_write()
        if self._finished:  # not now: see `Endpoint.resume_writing`
            self._runtime.call_later(0, self._close)

    def _let_write(self) -> None:
        if self._drained is not None:
            wake(self._drained)
            self._drained = None
            latest, self._latest = self._latest, b""
            if latest:
                self.write(latest)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        # A write to an app that has closed its end loses the connection, though what it wrote last may be unread.
        if exc is not None and not self._finished:
            with contextlib.suppress(OSError):
                while data := self._sock.recv(READ_BYTES):
                    self._unread += data
        self._end()
        # The transport only closes it. If a child that was forked meanwhile has a copy, the app would never read the
        # end. What was written stays readable.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        _forget(self)
        if self._abort_timer is not None:
            self._abort_timer.cancel()
            self._abort_timer = None
        wake(self._lost)

    def _end(self) -> None:
        self._ended = True
        self._wake_reader()
        self._let_write()
        if self._object is not None:
            self._object.finish_app()

    def _wake_reader(self) -> None:
        if self._reader is not None:
            wake(self._reader)
            self._reader = None


# -- The end of the process -------------------------------------------------------------------------------------------

#: Any loop thread's, without a lock: see `a2wsgi._threads`. Walk a copy.
_open_links: set[Link] = set()
_hooks = threading.Lock()
_hooks_are_set = False


def _remember(link: Link) -> None:
    global _hooks_are_set  # noqa: PLW0603 - once a process, and inherited by its forks as the hooks are
    with _hooks:
        if not _hooks_are_set:
            _hooks_are_set = True
            atexit.register(_shut_all_down)
            # The former comes too late, when threads have been joined. This is private, but concurrent.futures' own.
            register = getattr(threading, "_register_atexit", None)
            if register is not None:
                with contextlib.suppress(RuntimeError):  # the process is ending already
                    register(_shut_all_down)
    _open_links.add(link)


def _forget(link: Link) -> None:
    _open_links.discard(link)


def _shut_all_down() -> None:
    for link in _open_links.copy():
        link.shut_down()


def _after_fork_in_child() -> None:
    global _hooks  # noqa: PLW0603 - another thread of the parent may have held it
    _hooks = threading.Lock()
    # The parent's: to shut one down here would end it there. So close only the copy of its descriptor, and leave the
    # transport alone: its loop shares an epoll with the parent's. Nor would the socket's close() do: uvloop counts as
    # a user of the socket, and close() waits for the last one.
    for link in _open_links:
        with contextlib.suppress(OSError):
            os.close(link._sock.detach())  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]  # of this module
    _open_links.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
