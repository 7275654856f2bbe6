"""What an ASGI app receives of one request: the parts of its body, and at the end ``http.disconnect``.

Strategy
    The server thread rings the loop for each part that it has read, and the loop asks for the next one through the
    stream. Any number of tasks may wait in `Inbox.receive`; each leaves a waiter, and all are woken by whatever comes.

Threading: the server thread makes it; after that, it is the loop thread's alone.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from a2wsgi._threads.runtime import wake, wake_all

if TYPE_CHECKING:
    from a2wsgi._threads.handles import Waiter
    from a2wsgi._types import Message

    from .body import RequestBody
    from .loops.host import LoopHost
    from .to_server import ToServer

#: How long an app that heard of the disconnect by receive() may take to stop its task that sends, before that one's
#: send() fails: so many waits of so many seconds. Arbitrary: long for a few steps of a loop, short for whoever waits.
#: There are several, since a loop that is held up elsewhere takes no steps meanwhile.
LISTENER_WAITS = 10
LISTENER_SECONDS = 0.01

#: An app may keep asking after it was told that its client is gone. Each time it has been told so often, it has to
#: wait for so long, and the loop goes on. Otherwise nothing could end it, and all other requests would wait. It is not
#: made to wait at once, since some apps look by a receive() that they cancel as soon as it waits. Arbitrary.
TOLD_TIMES: Final = 100
TOLD_SECONDS: Final = 0.01


async def pause(host: LoopHost, seconds: float = TOLD_SECONDS) -> None:
    """Let the loop go on for a while. It can be cancelled, on trio as well, where `LoopHost.go_round` is shielded."""
    waiter = host.create_waiter()
    host.loop.call_later(seconds, wake, waiter)
    await waiter


class Inbox:
    """The messages of one request to its app.

    Attributes:
        broke_off: The last message that comes is that the body ended early.
        is_closed: The app gets ``http.disconnect`` from now on. Whoever sets it wakes the receivers.
        receivers: The waiters of those who wait in `receive`.
    """

    __slots__ = (
        "_arrived",
        "_asked",
        "_body",
        "_heard",
        "_host",
        "_listening",
        "_stream",
        "_told",
        "broke_off",
        "is_closed",
        "receivers",
    )

    def __init__(self, host: LoopHost, stream: ToServer, body: RequestBody) -> None:
        self._host = host
        self._stream = stream
        self._body = body
        # Messages that receive() has not given yet. Fast path: most requests have no body, and no call for it.
        self._arrived: list[Message] = (
            [{"type": "http.request", "body": b"", "more_body": False}] if body.read is None else body.first()
        )
        self._asked = False  # the server thread is to bring more of the body
        self._listening = 0  # how many tasks are in receive(): they wait, or were woken and have not run yet
        self._heard = False  # there were some as the client was lost: they know, or their next receive() tells them
        self._told = 0  # how many times the app was told that its client is gone
        self.broke_off = body.broke_off
        self.is_closed = False
        self.receivers: list[Waiter] = []

    def put(self, messages: list[Message]) -> None:
        """Add what the server thread has read. The receivers are not woken yet."""
        self._asked = False
        self._arrived += messages

    async def receive(self) -> Message:
        """ASGI's ``receive()``. Several tasks may wait in it, while others send.

        Cancellation: no part of the body is lost.
        """
        while True:
            # ASGI HTTP 2.5, "Disconnect": also "if receive is called after a response has been sent".
            if self.is_closed or (self._arrived and self._arrived[0]["type"] == "http.disconnect"):
                await self._tell()
                return {"type": "http.disconnect"}  # a copy: the next call is told the same
            if self._arrived:
                return self._arrived.pop(0)
            if not self._asked and self._body.read is not None:
                self._asked = True
                self._stream.ask()
            waiter = self._host.create_waiter()
            self.receivers.append(waiter)
            self._listening += 1
            try:
                await waiter
            except BaseException:  # cancelled, as by an app that looks for the disconnect before each step
                with contextlib.suppress(ValueError):  # it was woken at the same moment
                    self.receivers.remove(waiter)
                raise
            finally:
                self._listening -= 1

    async def _tell(self) -> None:
        self._told += 1
        if self._told % TOLD_TIMES == 0:
            await pause(self._host)

    @property
    def tells_of_the_break(self) -> bool:
        """Whether the next `receive` tells the app that the body ended early, as each one after it does."""
        return bool(self._arrived) and self._arrived[0]["type"] == "http.disconnect"

    @property
    def has_told(self) -> bool:
        """Whether the app was told that its client is gone, by ``receive()`` or by a ``send()`` that fails."""
        return self._told > 0

    def wake(self) -> None:
        """Have those who wait in `receive` look again."""
        receivers, self.receivers = self.receivers, []
        wake_all(receivers)

    def lose_client(self) -> None:
        """Give the app ``http.disconnect`` from now on, as nobody takes its response any more."""
        # 1. A task waits for the body. 2. The rest comes, and wakes it. 3. The client is lost before the task has run.
        self._heard = self._listening > 0
        self.is_closed = True
        self.wake()

    async def let_listener_act(self) -> None:
        """Before a ``send()`` fails: let a task that heard of the disconnect stop the one that sends.

        Many apps have one task that listens and cancels the one that sends. If the sending one fails instead, Django
        never closes its response nor sends ``request_finished``, and Litestar leaves out its last hook.
        """
        if self._heard:
            self._heard = False  # once: an app that goes on all the same is not to be slowed down
            for _ in range(LISTENER_WAITS):
                await pause(self._host, LISTENER_SECONDS)
        await self._tell()
