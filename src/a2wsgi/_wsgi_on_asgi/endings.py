"""How a request ends, and what a request needs so that it can be ended at any time.

Strategy
    An `Ending` is decided once, on the loop thread, by `Abortable.abort`. It ends every wait of the request, on both
    sides: that of the worker thread in a read, in a write or for the disconnect, and that of the request's own task in
    ``send()``. What an ending means is data of its member, so a new ending is one more member.

Guarantees
    - The first ending decides. Each later `abort` does nothing and says so.
    - A ``send()`` that an ending interrupts never surfaces as a cancellation of the task, and a cancellation by the
      server is never taken for an interruption of ours.
    - A ``send()`` that takes longer than ``send_timeout`` is interrupted, also in a request that has ended. (A file
      that is sent by its path has that time for each of its pieces.)

Assumes
    Everything is called on the loop thread.
"""

# Apps hold `Disconnected`: whatever is not for them has an underscore.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import enum
import functools
import logging
from typing import TYPE_CHECKING, ClassVar

from a2wsgi._errors import ClientDisconnected
from a2wsgi._log import logger

from .disconnected import AbortReason, Disconnected

if TYPE_CHECKING:
    from collections.abc import Callable

    from a2wsgi._types import Message, Send

    from .loops import BridgeLoop


#: After so many messages the loop goes round once. A server's ``send()`` does not wait for a quick client, and an app
#: can be quicker than its server: one download would have the loop to itself. Arbitrary: two mebibytes, as a rule.
MESSAGES_A_TURN = 32


class Ending(enum.Enum):
    """How a request ends.

    Each member has, in this order:

    Attributes:
        status: What the client is answered if it was sent nothing yet; None if it gets no answer from us.
        counter: Which of the bridge's statistics counts it; None if none does.
        level: At which level it is logged; None if it is not logged here.
        text: What is logged, with a place for the detail. It also tells the members apart.
    """

    # The server has taken the last message, or is about to get the app's error.
    FINISHED = None, None, None, "The response is complete"
    FAILED = None, None, None, "The app failed"
    # The client, or what stands between it and us. The app gets ClientDisconnected.
    CLIENT_LEFT = None, "disconnected", logging.DEBUG, "The client left: %s"
    STALLED = None, "stalled", logging.WARNING, "Request aborted: the client %s"
    SILENT = 408, "stalled", logging.WARNING, "Request aborted: the client %s"
    SEND_FAILED = None, None, None, "send() raised"  # the server gets its error back
    RECEIVE_FAILED = None, None, None, "receive() raised"  # so does whoever wraps receive()
    CANCELLED = None, None, None, "The server cancelled the request"
    # The app gets AppTimeout.
    TIMED_OUT = 504, "timed_out", logging.ERROR, "504 to a request: %s"
    # Of a WebSocket.
    CLIENT_CLOSED = None, None, logging.DEBUG, "The client of a WebSocket left, with the code %s"
    SOCKET_STALLED = None, "stalled", logging.WARNING, "WebSocket aborted: the client %s"
    APP_BROKE_FRAMES = None, None, logging.ERROR, "%s"
    # We refuse it.
    BAD_REQUEST = 400, None, logging.INFO, "400 to a request: %s"
    TOO_LARGE = 413, None, logging.INFO, "413 to a request: %s"
    OVERLOADED = 503, None, logging.INFO, "503 to a request: %s others wait for a worker"  # `Workers` counts these
    SHUT_DOWN = 503, None, logging.INFO, "Request aborted: %s"

    def __init__(self, status: int | None, counter: str | None, level: int | None, text: str) -> None:
        self.status = status
        self.counter = counter
        self.level = level
        self.text = text

    def log(self, detail: object) -> None:
        """Log it, if it is to be logged. Any thread."""
        if self.level is not None:
            logger.log(self.level, self.text, detail)


class Abortable:
    """A request whose waits can be ended from outside: `Request` and `WebSocketSession`.

    Make it in the task that answers the request. Send each message by `send_message`, one at a time.

    Args:
        loop: The loop that the request runs on.
        send: The server's ``send()``.
        send_timeout: Seconds that one call of it may take; None sets no bound.

    Attributes:
        SENT: What the client has not taken if it stalls, for the log.
        STALLED: How it ends then.
    """

    __slots__ = (
        "_disconnected",
        "_interruption",
        "_loop",
        "_seen_sends",
        "_seen_since",
        "_send",
        "_send_timeout",
        "_sends",
        "ending",
    )

    SENT: ClassVar = "its response"
    STALLED: ClassVar = Ending.STALLED

    def __init__(self, loop: BridgeLoop, send: Send, send_timeout: float | None) -> None:
        self._loop = loop
        self._send_timeout = send_timeout
        self._disconnected = Disconnected(loop.runtime)
        self._interruption = loop.runtime.interruption(loop.runtime.loop)  # of the task that answers the request
        guard = self._interruption.guard  # trio's: asyncio can interrupt any wait of the task
        self._send = send if guard is None else guard(send)
        # All below is written and read on the loop thread alone.
        self.ending: Ending | None = None
        # The number of times that send() was entered or left, so odd while it runs. By this the timer sees a send()
        # that takes long, and no message needs a clock.
        self._sends = 0
        self._seen_sends = 0  # as the timer saw it last
        self._seen_since = 0.0  # when the timer saw it first

    async def send_message(self, message: Message) -> bool:
        """Call the server's ``send()``, in a way that an ending can interrupt.

        Returns:
            Whether the server has taken the message. If not, send nothing more.

        Raises:
            Exception: What ``send()`` raised.

        Cancellation: passed on; whether the server has taken the message is not known.
        """
        if self._sends and not self._sends % (2 * MESSAGES_A_TURN):
            ending = self.ending
            await self._loop.runtime.go_round()
            if self.ending is not ending:  # it found no send() to interrupt
                return False
        self._sends += 1
        try:
            await self._send(message)
        except BaseException as error:
            if self._interruption.settle():
                return False
            if isinstance(error, OSError) and not self._disconnected.is_set():
                # ASGI HTTP 2.4, "Disconnected Client - send() exception". If the client is known to have left, it was
                # counted then.
                self._count(Ending.CLIENT_LEFT)
            raise
        finally:
            self._sends += 1
        if self._interruption.fired:  # send() has caught the cancellation, and returned all the same
            self._interruption.settle()
            return False
        return True

    def tick(self, now: float) -> None:
        """Abort the request if one ``send()`` takes too long. Ten times a second.

        Args:
            now: The loop's own clock, in seconds, less the time in which the loop stood still.
        """
        if not self._sends & 1:
            return
        if self._sends != self._seen_sends:
            self._seen_sends, self._seen_since = self._sends, now
            return
        self._client_is_slow()
        if self._send_timeout is None:
            return
        timeout = self._send_timeout * self._pieces()
        if now - self._seen_since >= timeout:
            self._stall(self.STALLED, f"read nothing of {self.SENT} for {timeout:g} s")
            self._interruption.fire()  # the request may have ended before, and be sending an answer of ours

    def renew_locks(self) -> None:
        """Replace the locks that another thread may have held at the fork. Called in the child."""

    def _pieces(self) -> int:
        """How many times ``send_timeout`` the message that is being sent may take."""
        return 1

    def _client_is_slow(self) -> None:
        """One ``send()`` has lasted since the last tick. Each tick."""

    def _stall(self, ending: Ending, what: str) -> None:
        """The client keeps us waiting for too long: ``what`` says with what."""
        self.abort(ending, functools.partial(ClientDisconnected, f"it {what}"), what)

    def abort(self, ending: Ending, error: Callable[[], BaseException], detail: object = "") -> bool:
        """End the request, unless it has ended.

        Args:
            ending: How.
            error: Makes the error that the app gets from whatever it waits for, and from whatever it tries next. It is
                called once for each: threads that raised the same error would mix their tracebacks.
            detail: What the log says beyond the ending's text.

        Returns:
            Whether it has ended by this.
        """
        if self.ending is not None:
            return False
        self.ending = ending
        error = AbortReason(error, told=self._app_knows(ending))
        self._count(ending)
        # A thread that waits for the disconnect is woken last, since its next write must fail. One that only looks may
        # see it at once.
        self._disconnected._note()
        self._disconnected._end_calls(error)
        self._end_waits(ending, error)
        if self._sends & 1:
            self._interruption.fire()
        self._disconnected._abort(error)
        ending.log(detail)  # at the very end: a log handler is the user's code, and may take its time
        return True

    def _app_knows(self, ending: Ending) -> bool:  # noqa: ARG002 - a WebSocket asks
        """Whether the app itself has ended it. Then what it runs on the loop is its clean-up, and is left alone."""
        return False

    def _end_waits(self, ending: Ending, error: AbortReason) -> None:
        """Wake everybody who waits for something of the request, but in ``send()`` and for the disconnect. Once.

        Args:
            ending: How the request ends.
            error: Makes the error that the app gets.
        """
        raise NotImplementedError

    def _count(self, ending: Ending) -> None:
        """Count an ending in the bridge's statistics."""
        if ending.counter is not None:
            setattr(self._loop, ending.counter, getattr(self._loop, ending.counter) + 1)
