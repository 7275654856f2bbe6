"""A connected socket on trio for a protocol that was written for asyncio's transports.

Guarantees
    - The protocol's methods are called as asyncio calls them: ``connection_made`` first, ``connection_lost`` last and
      once, none of them in the middle of a call of the transport's own, but ``pause_writing`` within ``write``.
    - Whatever ends the run closes the socket, too.

Assumes
    Everything is called in a task of the run.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import trio

from .runtime import wake

if TYPE_CHECKING:
    from .handles import Waiter
    from .runtime import Runtime

#: asyncio's own figure.
READ_BYTES = 256 * 1024


class TrioTransport(asyncio.Transport):
    """One connected socket.

    Args:
        runtime: The run.
        protocol: Called with what is read, and with what becomes of the socket.
        sock: It does not block, and is the transport's from here on.
        high_water: How many bytes may wait to be written before ``pause_writing()``. A quarter of it, and
            ``resume_writing()`` is called.
    """

    def __init__(self, runtime: Runtime, protocol: asyncio.Protocol, sock: socket.socket, high_water: int) -> None:
        super().__init__()
        self._runtime = runtime
        self._protocol = protocol
        self._sock = sock
        self._high_water = high_water
        self._unsent = bytearray()
        self._closing = False  # nothing is read any more, and it ends when all is sent
        self._says_end = False  # the client is to be told that nothing follows what is written
        self._error: OSError | None = None
        self._writing_is_paused = False
        self._reading_is_paused = False
        self._resumed: Waiter | None = None  # of the reader, while it is paused
        self._written: Waiter | None = None  # of the writer, while it has nothing to send
        self._scope = trio.CancelScope()  # of all that waits
        protocol.connection_made(self)
        runtime.start_task(self._run())

    # -- The protocol's side ------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See `asyncio.WriteTransport`."""
        if self._closing:
            return
        try:
            sent = 0 if self._unsent else self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._fail(error)
            return
        self._unsent += memoryview(data)[sent:]
        if self._written is not None:
            wake(self._written)
        self._pause_writing()

    def _pause_writing(self) -> None:
        if len(self._unsent) > self._high_water and not self._writing_is_paused:
            self._writing_is_paused = True
            self._protocol.pause_writing()

    def pause_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._reading_is_paused = True

    def resume_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._reading_is_paused = False
        if self._resumed is not None:
            wake(self._resumed)

    def close(self) -> None:
        """See `asyncio.BaseTransport`."""
        self._closing = True
        if self._written is not None:
            wake(self._written)

    def abort(self) -> None:
        """See `asyncio.WriteTransport`."""
        self._closing = True
        self._scope.cancel()

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport`."""
        return self._closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:  # noqa: ARG002 - a quarter
        """See `asyncio.WriteTransport`."""
        if high is not None:
            self._high_water = high
            self._pause_writing()

    def get_write_buffer_size(self) -> int:
        """See `asyncio.WriteTransport`."""
        return len(self._unsent)

    def can_write_eof(self) -> bool:
        """See `asyncio.WriteTransport`."""
        return True

    def write_eof(self) -> None:
        """See `asyncio.WriteTransport`: nothing is written after this, but it is read on."""
        self._says_end = True
        if self._written is not None:
            wake(self._written)

    # -- The socket's side --------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read)
                    await self._send()
                    self._scope.cancel()
        finally:
            try:
                self._protocol.connection_lost(self._error)
            finally:
                self._sock.close()

    async def _read(self) -> None:
        while not self.is_closing():
            if self._reading_is_paused:
                self._resumed = self._runtime.create_waiter()
                await self._resumed
                continue
            await trio.lowlevel.wait_readable(self._sock)
            if not self._may_read():  # any more
                continue
            try:
                data = self._sock.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                self._fail(error)
                return
            if data:
                self._protocol.data_received(data)
            elif self._protocol.eof_received():
                return
            else:
                self.close()

    def _may_read(self) -> bool:
        return not (self._closing or self._reading_is_paused)

    async def _send(self) -> None:
        """Send what waits, until all is sent and nothing more comes."""
        while self._unsent or not self._closing:
            if not self._unsent and self._says_end:
                self._says_end = False
                try:
                    self._sock.shutdown(socket.SHUT_WR)
                except OSError as error:
                    self._fail(error)
                    return
            if not self._unsent:
                self._written = self._runtime.create_waiter()
                await self._written
                continue
            await trio.lowlevel.wait_writable(self._sock)
            try:
                del self._unsent[: self._sock.send(self._unsent)]
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                self._fail(error)
                return
            if self._writing_is_paused and 4 * len(self._unsent) <= self._high_water:
                self._writing_is_paused = False
                self._protocol.resume_writing()

    def _fail(self, error: OSError) -> None:
        self._error = self._error or error
        self.abort()
