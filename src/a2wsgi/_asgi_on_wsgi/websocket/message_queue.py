"""What has come over a WebSocket and waits for the app. Loop thread."""

from __future__ import annotations

import contextlib
import contextvars
import sys
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from a2wsgi._threads.runtime import wake_all

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from a2wsgi._threads.handles import Waiter

#: Messages that may wait for the app, in bytes; as uvicorn's and our own buffers.
QUEUE_BYTES: Final = 65_536


class Ended(NamedTuple):
    """How a WebSocket has ended, as the app is told: see `close_codes`."""

    code: int
    reason: str


class MessageQueue:
    """Messages that have come and that the app has not taken yet, and the end after them.

    Args:
        loop: The loop.
        has_room: Called by the loop when it is full no longer: not by `take`, or an app that finds a message whenever
            it takes one would take all that was read in one step.
    """

    __slots__ = ("_has_room", "_loop", "_messages", "_size", "_waiters", "ended")

    def __init__(self, loop: asyncio.AbstractEventLoop, has_room: Callable[[], object]) -> None:
        self._loop = loop
        self._has_room = has_room
        self._messages: deque[str | bytes] = deque()
        self._size = 0
        self._waiters: list[Waiter] = []
        self.ended: Ended | None = None  # nothing comes after what is here

    @property
    def full(self) -> bool:
        """Whether no more is to be put in."""
        return self._size >= QUEUE_BYTES

    def put(self, message: str | bytes) -> None:
        """Add a message. What it takes in memory is counted: an empty one is not free."""
        self._messages.append(message)
        self._size += sys.getsizeof(message)
        self._wake()

    def end(self, ended: Ended) -> None:
        """Say how it ended. The first word counts."""
        if self.ended is None:
            self.ended = ended
            self._wake()

    async def take(self) -> str | bytes | Ended:
        """Wait for the next message, or the end. Several tasks may; each message goes to one of them."""
        while not self._messages:
            if self.ended is not None:
                return self.ended
            await wait_in(self._waiters, self._loop)
        was_full = self.full
        message = self._messages.popleft()
        self._size -= sys.getsizeof(message)
        if was_full and not self.full:
            self._loop.call_soon(self._has_room, context=contextvars.Context())
        return message

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        wake_all(waiters)


async def wait_in(waiters: list[Waiter], loop: asyncio.AbstractEventLoop) -> None:
    """Wait until all of them are woken. One that is cancelled takes itself out."""
    waiter = loop.create_future()
    waiters.append(waiter)
    try:
        await waiter
    except BaseException:
        with contextlib.suppress(ValueError):  # it was woken at the same moment
            waiters.remove(waiter)
        raise
