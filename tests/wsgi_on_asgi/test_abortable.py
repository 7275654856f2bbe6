"""A request whose waits can be ended, without HTTP: as a WebSocket would use it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from a2wsgi import ClientDisconnected
from a2wsgi._threads.runtime import Runtime
from a2wsgi._wsgi_on_asgi.endings import Abortable, Ending
from a2wsgi._wsgi_on_asgi.loops import BridgeLoop
from support.asgi_driver import Message, run
from support.lockstep import Signal
from support.wsgi_requests import our_log

MESSAGE: Message = {"type": "websocket.send", "text": "hello"}


class Talk(Abortable):
    """Notes what it is told, in order.

    Attributes:
        told: The endings that `_end_waits` was called with, and whether the disconnect could be seen then.
    """

    def __init__(self, send: Callable[[Message], Awaitable[None]], send_timeout: float | None = None) -> None:
        self.counts = BridgeLoop(Runtime(asyncio.get_running_loop()))
        super().__init__(self.counts, send, send_timeout)
        self.told: list[tuple[Ending, bool]] = []

    def _end_waits(self, ending: Ending, error: Callable[[], BaseException]) -> None:
        assert isinstance(error(), ClientDisconnected)
        self.told.append((ending, self._disconnected.is_set()))


def gone() -> ClientDisconnected:
    """What the app gets."""
    return ClientDisconnected("a test ended it")


class Stuck:
    """A server's ``send()`` that waits until it is cancelled.

    Attributes:
        entered: Set when it was called.
    """

    def __init__(self, *, swallows: bool = False) -> None:
        self.entered = Signal("send() was called")
        self._swallows = swallows

    async def __call__(self, message: Message) -> None:
        self.entered.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if not self._swallows:
                raise


async def nothing(message: Message) -> None:
    """A ``send()`` that takes everything."""


def test_endings_differ() -> None:
    """Members with equal data would be one and the same to an Enum."""
    assert list(Ending.__members__.values()) == list(Ending)


@pytest.mark.parametrize("ending", Ending)
def test_ending_that_is_logged_has_a_place_for_its_detail(ending: Ending) -> None:
    """A new ending is one member, whose data fit together."""
    assert (ending.level is not None) == ("%s" in ending.text)
    assert ending.counter is None or hasattr(BridgeLoop, ending.counter)


def test_first_ending_decides(caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, told to whoever waits, and logged, once; each later one does nothing."""
    caplog.set_level(logging.DEBUG, "a2wsgi")

    async def main() -> None:
        talk = Talk(nothing)
        assert talk.abort(Ending.CLIENT_LEFT, gone, "it hung up")
        assert not talk.abort(Ending.STALLED, gone, "took nothing")
        assert talk.ending is Ending.CLIENT_LEFT
        assert talk.told == [(Ending.CLIENT_LEFT, True)]
        assert (talk.counts.disconnected, talk.counts.stalled) == (1, 0)

    run(main())
    assert our_log(caplog) == [("DEBUG", "The client left: it hung up")]


@pytest.mark.parametrize("swallows", [False, True])
def test_abort_interrupts_a_send_and_leaves_no_cancellation_behind(swallows: bool) -> None:
    """The sender learns that nothing more is to be sent, and its task goes on, also if ``send()`` just returned."""

    async def main() -> None:
        stuck = Stuck(swallows=swallows)

        async def talking() -> tuple[bool, Any]:
            talk = Talk(stuck)
            talks.append(talk)
            sent = await talk.send_message(MESSAGE)
            await asyncio.sleep(0)  # a cancellation that was left behind would end this
            return sent, talk.ending

        talks: list[Talk] = []
        task = asyncio.ensure_future(talking())
        await stuck.entered.wait_in_task()
        talks[0].abort(Ending.SHUT_DOWN, gone, "a test")
        assert await task == (False, Ending.SHUT_DOWN)

    run(main())


def test_cancellation_by_the_server_is_none_of_ours() -> None:
    """It goes through ``send_message()``, since nobody has aborted anything."""

    async def main() -> None:
        stuck = Stuck()

        async def talking() -> None:
            await Talk(stuck).send_message(MESSAGE)

        task = asyncio.ensure_future(talking())
        await stuck.entered.wait_in_task()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_send_that_fails_for_a_lost_connection_is_counted_once() -> None:
    """ASGI HTTP 2.4, "Disconnected Client - send() exception"; a client that is known to have left was counted."""

    async def broken(message: Message) -> None:
        raise OSError("the connection is lost")

    async def main() -> None:
        talk = Talk(broken)
        with pytest.raises(OSError, match="connection is lost"):
            await talk.send_message(MESSAGE)
        talk._disconnected._set()
        with pytest.raises(OSError, match="connection is lost"):
            await talk.send_message(MESSAGE)
        assert talk.counts.disconnected == 1

    run(main())


def test_send_that_takes_too_long_is_aborted_by_the_clock_of_the_ticks(caplog: pytest.LogCaptureFixture) -> None:
    """The time runs from the tick that saw the send first, and only while that very send lasts."""

    async def main() -> None:
        stuck = Stuck()

        async def talking() -> bool:
            talks.append(Talk(stuck, 5))
            talks[0].tick(0)
            return await talks[0].send_message(MESSAGE)

        talks: list[Talk] = []
        task = asyncio.ensure_future(talking())
        await stuck.entered.wait_in_task()
        for now in (100, 104.9):
            talks[0].tick(now)
            assert talks[0].ending is None
        talks[0].tick(105)
        assert await task is False
        assert talks[0].ending is Ending.STALLED
        assert talks[0].counts.stalled == 1

    run(main())
    assert our_log(caplog) == [("WARNING", "Request aborted: the client read nothing of its response for 5 s")]
