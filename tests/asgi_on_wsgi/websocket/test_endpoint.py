"""The connection of an ASGI app's WebSocket, fed by hand."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("websockets")

from a2wsgi._asgi_on_wsgi.loops.host import GivenLoop
from a2wsgi._asgi_on_wsgi.websocket.endpoint import PIECE_BYTES, STOP_SECONDS, Endpoint
from a2wsgi._asgi_on_wsgi.websocket.inbox import INBOX_BYTES, Ended
from a2wsgi._asgi_on_wsgi.websocket.keepalive import TURN_SECONDS
from a2wsgi._asgi_on_wsgi.websocket.phase import Phase
from a2wsgi._protocol.frames import Close, Event, Frames, Message, Role
from support.lockstep import BOUND_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: How many messages an app sends before a test believes that it would go on for ever.
FOR_EVER = 1_000


class Transport(asyncio.Transport):
    """Takes everything, and delivers nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[str] = []
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None:
        self.states.append("paused")

    def resume_reading(self) -> None:
        self.states.append("resumed")

    def abort(self) -> None: ...

    def close(self) -> None: ...


def endpoint_on(
    sock: socket.socket, *, ping_interval: float | None = None, ping_timeout: float | None = None
) -> Endpoint:
    """Without compression."""
    frames = Frames(Role.SERVER, max_message_bytes=None)
    host = GivenLoop(asyncio.get_running_loop())
    return Endpoint(
        host, frames, sock, write_buffer_bytes=65_536, ping_interval=ping_interval, ping_timeout=ping_timeout
    )


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[Endpoint, socket.socket]]:
    """An endpoint on a real transport, and its client's socket."""
    one, other = socket.socketpair()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)  # a full transport has room before it is empty
    endpoint = endpoint_on(one)
    with other:
        other.setblocking(False)
        await endpoint.open(b"", b"")
        try:
            yield endpoint, other
        finally:
            endpoint.abort()
            await endpoint.wait_closed()


def text(data: bytes) -> bytes:
    """A client's frame, masked with zeros."""
    return b"\x81" + bytes([0x80 | len(data)]) + bytes(4) + data


#: As long as a ping may be; and so many that their pongs, which are 4 bytes shorter, have no room in a full transport.
PING = b"\x89\xfd" + bytes(4 + 125)
PINGS = PING * (PIECE_BYTES // 127 + 1)


def test_early_bytes_come_before_those_that_are_read_next() -> None:
    """Also if there is no room for all of them, and none is lost."""

    async def main() -> list[Any]:
        one, other = socket.socketpair()
        endpoint = endpoint_on(one)
        endpoint._greeting = b"", b"".join(text(b"%d" % number) for number in range(2_000))
        transport = Transport()
        with other:
            endpoint.connection_made(transport)
            assert transport.states == []
            endpoint.data_received(b"".join(text(b"%d" % number) for number in range(2_000, 2_100)))
            assert transport.states == ["paused"]
            messages = [await endpoint.take() for _ in range(2_100)]
            assert transport.states[-1] == "resumed"
            endpoint.connection_lost(None)
        return messages

    assert asyncio.run(main()) == [str(number) for number in range(2_100)]


def test_close_follows_the_head_if_the_bridge_is_closed_before_that_is_written() -> None:
    """1. The socket is connected to the loop. 2. The bridge is closed. 3. The transport is there."""

    async def main() -> bytes:
        one, other = socket.socketpair()
        endpoint, transport = endpoint_on(one), Transport()
        with other:
            opening = asyncio.ensure_future(endpoint.open(b"head", b""))
            await asyncio.sleep(0)
            assert endpoint._transport is None
            endpoint.stop()
            endpoint.connection_made(transport)
            opening.cancel()
            await asyncio.wait({opening})
            endpoint.connection_lost(None)
        return transport.written

    assert asyncio.run(main()) == b"head" + b"\x88\x02\x03\xf4"


def test_app_that_takes_all_that_comes_does_not_keep_the_loop() -> None:
    """One step of the app takes what fits into the inbox; the rest of what was read is worked on in between."""

    async def main() -> tuple[list[Any], list[int]]:
        one, other = socket.socketpair()
        endpoint, transport = endpoint_on(one), Transport()
        messages: list[Any] = []
        taken_before_others: list[int] = []
        with other:
            endpoint.connection_made(transport)
            endpoint.data_received(b"".join(text(b"%d" % number) for number in range(5_000)))
            asyncio.get_running_loop().call_soon(lambda: taken_before_others.append(len(messages)))
            while len(messages) < 5_000:
                messages.append(await endpoint.take())
            endpoint.connection_lost(None)
        return messages, taken_before_others

    messages, (taken,) = asyncio.run(main())
    assert messages == [str(number) for number in range(5_000)]
    assert taken <= INBOX_BYTES // sys.getsizeof("0")


def test_what_was_read_is_not_worked_on_after_the_end() -> None:
    """There is room again, but the connection is gone before the loop comes to use it."""

    async def main() -> tuple[list[Any], list[str]]:
        one, other = socket.socketpair()
        endpoint, transport = endpoint_on(one), Transport()
        loop = asyncio.get_running_loop()
        loop.time = itertools.repeat(loop.time()).__next__  # type: ignore[method-assign]  # the turn is never over
        with other:
            endpoint.connection_made(transport)
            endpoint.data_received(b"".join(text(b"%d" % number) for number in range(5_000)))
            assert endpoint._inbox.full
            messages: list[Any] = [await endpoint.take() for _ in range(2)]  # which make room for one
            endpoint.connection_lost(None)
            held = len(endpoint._inbox._messages)
            await endpoint._host.go_round()
            messages += [await endpoint.take() for _ in range(held + 2)]
        return messages, transport.states

    messages, states = asyncio.run(main())
    assert messages[-2:] == [Ended(1006, "")] * 2
    assert messages[:-2] == [str(number) for number in range(len(messages) - 2)]
    assert states == ["paused"]


@pytest.mark.parametrize("before", [False, True], ids=["open", "closing"])
def test_client_does_not_stretch_a_stop(before: bool) -> None:
    """It answers the Close, and takes nothing of what it was sent before: that is cut off as soon as without it."""

    async def main() -> float:
        one, other = socket.socketpair()
        endpoint, loop = endpoint_on(one), asyncio.get_running_loop()
        with other:
            endpoint.connection_made(Transport())
            if before:
                endpoint.close(1000)
            endpoint.stop()
            endpoint.data_received(b"\x88\x82" + bytes(4) + b"\x03\xf4")
            assert endpoint.phase is Phase.ENDING
            assert endpoint._deadline is not None
            left = endpoint._deadline.when() - loop.time()
            endpoint.connection_lost(None)
        return left

    assert asyncio.run(main()) <= STOP_SECONDS


def test_client_that_leaves_while_the_app_takes_nothing_is_noticed() -> None:
    """Reading is paused then, and its end is not read: a ping fails."""

    async def main() -> Any:
        one, other = socket.socketpair()
        endpoint = endpoint_on(one, ping_interval=0.01, ping_timeout=0.01)
        with other:
            other.setblocking(False)
            await endpoint.open(b"", b"")
            message = b"\x82\xfe\xff\xff" + bytes(4 + 0xFFFF)
            sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(other, message * 2))
            while not endpoint._paused:
                await endpoint._host.go_round()
            sending.cancel()
            await asyncio.wait([sending])
        await asyncio.wait_for(endpoint.wait_closed(), BOUND_SECONDS)
        return await all_of(endpoint)

    assert asyncio.run(main())[-1] == Ended(1006, "")


async def all_of(endpoint: Endpoint) -> list[str | bytes | Ended]:
    """What an app receives, up to the end."""
    taken = [await endpoint.take()]
    while not isinstance(taken[-1], Ended):
        taken.append(await asyncio.wait_for(endpoint.take(), BOUND_SECONDS))
    return taken


@pytest.mark.parametrize("size", [10, 60_000])
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_last_words_of_a_client_are_received_though_a_write_to_it_fails(kind: str, size: int) -> None:
    """The race: 1. the client says its last words, and leaves; 2. a write fails; 3. the loop would have read them."""
    messages = ["x" * 50 + str(number) for number in range(size // 60)]

    async def main() -> list[Any]:
        one, other = socket.socketpair()
        endpoint = endpoint_on(one)
        await endpoint.open(b"", b"")
        assert endpoint._transport is not None
        endpoint._transport.pause_reading()
        with other:
            other.sendall(b"".join(map(text, map(str.encode, messages))) + b"\x88\x85" + bytes(4) + b"\x11\x5cbye")
        while endpoint.phase is Phase.OPEN:
            endpoint._write(b"x")
            await endpoint._host.go_round()
        await endpoint.wait_closed()
        return await all_of(endpoint)

    loop = pytest.importorskip(kind).new_event_loop()
    try:
        assert loop.run_until_complete(main()) == [*messages, Ended(4444, "bye")]
    finally:
        loop.close()


async def sends_before_the_end(endpoint: Endpoint) -> int:
    """How many messages an app sends that goes on until it is told that the connection is gone."""
    for count in range(FOR_EVER):
        if not await endpoint.send(b"x" * 1_000):
            return count
    return FOR_EVER


def test_app_that_sends_is_told_when_a_full_client_shuts_its_side_down() -> None:
    """The transport then closes itself and throws away what is sent; its end needs a turn of the loop."""

    async def main() -> tuple[int, Any, Any]:
        async with connected() as (endpoint, client):
            transport = endpoint._transport
            assert transport is not None
            while not endpoint._full:
                transport.write(bytes(65_536))
            sender = asyncio.create_task(sends_before_the_end(endpoint))
            client.shutdown(socket.SHUT_WR)
            while not transport.is_closing():
                await endpoint._host.go_round()
            phase = endpoint.phase
            while await asyncio.get_running_loop().sock_recv(client, 4_096):
                pass
            return await sender, phase, await endpoint.take()

    assert asyncio.run(main()) == (0, Phase.ENDING, Ended(1006, ""))


def test_client_that_reads_nothing_until_it_has_sent_all_is_received() -> None:
    """It would wait for us, and we for it. Only a flood of pings waits for room, since they are to be answered."""

    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        async with connected() as (endpoint, client):
            while not endpoint._full:
                endpoint._write(bytes(65_536))
            await loop.sock_sendall(client, text(b"1") + PING + text(b"2") + PINGS + text(b"3"))
            got: list[object] = [await asyncio.wait_for(endpoint.take(), BOUND_SECONDS) for _ in range(2)]
            last = asyncio.create_task(endpoint.take())
            for _ in range(3):
                await endpoint._host.go_round()
            got.append(last.done())
            while not last.done():
                await loop.sock_recv(client, 65_536)
            return [*got, await last]

    assert asyncio.run(main()) == ["1", "2", False, "3"]


def test_sends_that_are_given_up_fill_no_memory() -> None:
    """After one that gave up, each waits before it sends, as long as the client has too much to take."""

    async def main() -> tuple[int, int, bool]:
        async with connected() as (endpoint, client):
            while not endpoint._full:
                endpoint._write(bytes(65_536))
            given_up = asyncio.create_task(endpoint.send(b"x" * 1_000))
            await endpoint._host.go_round()
            given_up.cancel()
            await asyncio.wait([given_up])
            before = endpoint._written
            senders = [asyncio.create_task(endpoint.send(b"x" * 1_000)) for _ in range(100)]
            for _ in range(3):
                await endpoint._host.go_round()
            for sender in senders[1:]:
                sender.cancel()
            await asyncio.wait(senders[1:])
            after = endpoint._written
            while not senders[0].done():
                await asyncio.get_running_loop().sock_recv(client, 65_536)
            return before, after, await senders[0]

    before, after, was_sent = asyncio.run(main())
    assert after == before
    assert was_sent


def test_send_that_is_cancelled_as_there_is_room_again_holds_nobody_up() -> None:
    """The race: 1. a sender waits; 2. there is room, and it is woken; 3. it is cancelled before it goes on."""

    async def main() -> bool:
        async with connected() as (endpoint, client):
            while not endpoint._full:
                endpoint._write(bytes(65_536))
            sender = asyncio.create_task(endpoint.send(b"x"))
            await endpoint._host.go_round()
            wake_writers = endpoint._wake_writers

            def wake_and_cancel() -> None:
                wake_writers()
                sender.cancel()

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(endpoint, "_wake_writers", wake_and_cancel)
                while not sender.done():
                    await asyncio.get_running_loop().sock_recv(client, 65_536)
            assert sender.cancelled()
            return await asyncio.wait_for(endpoint.send(b"y"), BOUND_SECONDS)

    assert asyncio.run(main())


def test_close_that_is_read_as_there_is_room_again_ends_the_connection_once() -> None:
    """A transport of asyncio's that is closed within `resume_writing` tells twice that it is lost."""
    errors: list[str] = []

    async def main() -> Phase:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context["message"]))
        async with connected() as (endpoint, client):
            assert endpoint._transport is not None
            endpoint._transport.set_write_buffer_limits(high=0)  # so that it is empty when there is room again
            while not endpoint._full:
                endpoint._write(bytes(65_536))
            await loop.sock_sendall(client, PINGS + b"\x88\x80" + bytes(4))
            while not endpoint._paused:  # pings are answered, and the Close is left for later
                await endpoint._host.go_round()
            while await loop.sock_recv(client, 65_536):
                pass
            await endpoint.wait_closed()
            await endpoint._host.go_round()
            return endpoint.phase

    assert asyncio.run(main()) is Phase.CLOSED
    assert errors == []


def test_messages_of_tasks_that_send_at_once_go_out_in_order_before_a_close() -> None:
    """Each is in the full buffer when its task waits, so none of them comes after the Close, and is lost."""

    async def main() -> list[Event]:
        async with connected() as (endpoint, client):
            while not endpoint._full:
                endpoint._write(endpoint._frames.message(bytes(65_536)))
            senders = [asyncio.create_task(endpoint.send(f"{number}")) for number in range(20)]
            await endpoint._host.go_round()
            assert not any(sender.done() for sender in senders)
            endpoint.close(1000)
            frames, events = Frames(Role.CLIENT, max_message_bytes=None), list[Event]()
            while not any(isinstance(event, Close) for event in events):
                events += frames.feed(await asyncio.get_running_loop().sock_recv(client, 65_536))
            await asyncio.wait(senders)
            return events

    *before, end = asyncio.run(main())
    assert end == Close(1000, "")
    texts = [event.data for event in before if isinstance(event, Message) and isinstance(event.data, str)]
    assert texts == [f"{number}" for number in range(20)]


def test_app_that_sends_is_told_when_its_client_is_gone() -> None:
    """A write fails before the loop has seen the end, and the loop has a turn to see it."""

    async def main() -> tuple[int, Any]:
        async with connected() as (endpoint, client):
            client.close()
            return await sends_before_the_end(endpoint), endpoint.phase

    assert asyncio.run(main()) == (0, Phase.CLOSED)


def test_app_that_sends_after_the_end_does_not_keep_the_loop() -> None:
    """An app that passes over each failure goes on, but so does the loop, which is to cancel it."""

    async def main() -> list[str]:
        others: list[str] = []
        async with connected() as (endpoint, _):
            endpoint.close(1000)
            asyncio.get_running_loop().call_soon(others.append, "went")
            assert not await endpoint.send(b"")
            return others.copy()

    assert asyncio.run(main()) == ["went"]


def test_app_that_sends_to_a_fast_client_does_not_keep_the_loop() -> None:
    """Others have their turn every few milliseconds, though the app never has to wait."""

    async def main() -> list[str]:
        one, other = socket.socketpair()
        loop, others = asyncio.get_running_loop(), list[str]()
        endpoint = endpoint_on(one)
        with other:
            endpoint.connection_made(Transport())
            loop.call_soon(others.append, "went")
            loop.time = (TURN_SECONDS / 3 * tick for tick in itertools.count(1)).__next__  # type: ignore[method-assign]
            for _ in range(3):
                assert await endpoint.send(b"")
                assert others == []
            assert await endpoint.send(b"")
            went = others.copy()
            endpoint.connection_lost(None)
        return went

    assert asyncio.run(main()) == ["went"]


def test_codec_that_fails_ends_the_app_s_wait(caplog: pytest.LogCaptureFixture) -> None:
    """A connection whose data nobody could read is lost to asyncio. What is left of it is not read again."""
    calls = list[object]()

    def fail(data: object) -> Any:
        calls.append(data)
        raise MemoryError

    async def main() -> object:
        async with connected() as (endpoint, client):
            endpoint._frames.feed = fail  # type: ignore[method-assign]
            client.send(text(b"hello"))
            return await asyncio.wait_for(endpoint.take(), BOUND_SECONDS)

    assert asyncio.run(main()) == Ended(1006, "")
    assert len(calls) == 1
    assert "Fatal error" in caplog.text


@pytest.mark.parametrize("is_lost", [False, True])
def test_codec_that_fails_later_ends_the_app_s_wait(is_lost: bool, caplog: pytest.LogCaptureFixture) -> None:
    """When there is room again for what was read, or in what is left of a client that is lost."""

    def fail(data: object) -> Any:
        raise MemoryError

    async def main() -> object:
        async with connected() as (endpoint, client):
            client.send(text(b"hello") * 2_000)
            while not endpoint._inbox.full:
                await endpoint._host.go_round()
            endpoint._frames.feed = fail  # type: ignore[method-assign]
            if is_lost:
                client.close()
                await endpoint.send("x")
            while (message := await asyncio.wait_for(endpoint.take(), BOUND_SECONDS)) == "hello":
                pass
            return message

    assert asyncio.run(main()) == Ended(1006, "")
    assert "MemoryError" in caplog.text
