"""Races of a WSGI app's WebSocket: between the loop, the worker thread, and the ends of the link."""

from __future__ import annotations

import atexit
import os
import socket
import threading
from typing import Any

import pytest

from a2wsgi import WebSocketClosed, WSGIMiddleware
from a2wsgi._protocol.codec import available
from a2wsgi._protocol.upgrade import Handshake, accept_token, head_101
from a2wsgi._wsgi_on_asgi.websocket import link as _link
from a2wsgi._wsgi_on_asgi.websocket.app_socket import WebSocket
from a2wsgi._wsgi_on_asgi.websocket.link import Link
from a2wsgi._wsgi_on_asgi.websocket.passages import ObjectPassage
from support.asgi_driver import Message, run, until
from support.forks import forks_with_threads, in_child, living_child, needs_fork
from support.lockstep import BOUND_SECONDS, Lockstep, Signal
from support.runtimes import for_ever, rest, start, verbs
from support.threads import HookedLock, in_thread
from support.websocket_driver import WebSocketClient, answer, talk

pytestmark = [
    pytest.mark.skipif(not available(), reason="needs websockets"),
    pytest.mark.usefixtures("runtime"),
]


KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3


async def opened(high_water: int = 65_536) -> tuple[Link, socket.socket]:
    """A link on the running loop."""
    return await Link.open(verbs(), high_water)


def test_link_is_aborted_after_its_last_word_was_read() -> None:
    """The race: 1. `finish` leaves something unwritten; 2. the app reads it, and asyncio closes; 3. `abort` comes."""

    async def main() -> None:
        link, theirs = await opened()
        link.finish(bytes(3_000_000))
        reader = in_thread(lambda: sum(iter(lambda: len(theirs.recv(65_536)), 0)))
        assert await reader.result_in_task() == 3_000_000
        await link.wait_lost()
        link.abort()
        theirs.close()

    run(main())


@pytest.mark.parametrize("high_water", [65_536, 10_000_000])
def test_app_may_write_until_it_has_read_what_was_left_for_it(high_water: int) -> None:
    """The race: 1. `finish` leaves something unwritten; 2. the app writes; 3. it reads.

    It may be another bridge's loop, which takes a write that fails for the end, and reads only what is there.
    """

    async def main() -> None:
        link, theirs = await opened(high_water)
        theirs.settimeout(BOUND_SECONDS)
        with theirs:
            writer = in_thread(lambda: theirs.sendall(bytes(3_000_000)))
            link.write(bytes(3_000_000))
            await rest()
            link.finish(b"last")
            await writer.result_in_task()
            reader = in_thread(lambda: b"".join(iter(lambda: theirs.recv(65_536), b"")))
            assert await reader.result_in_task() == bytes(3_000_000) + b"last"
            await link.wait_lost()
            with pytest.raises(BrokenPipeError):
                theirs.send(b"x")

    run(main())


def test_link_reads_what_was_written_before_a_write_to_it_failed() -> None:
    """The race: 1. the app writes and closes; 2. a write fails before the loop has read that; 3. it is read anyway."""

    async def main() -> None:
        link, theirs = await opened()
        theirs.sendall(b"last words")
        theirs.close()
        link.write(b"crossing")  # at once, before the loop looks at what can be read
        data = b""
        while part := await link.read():
            data += part
        assert data == b"last words"
        link.abort()
        await link.wait_lost()

    run(main())


def test_writes_to_a_link_that_has_failed_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """The race: 1. the app closes its end; 2. a write fails; 3. more come in the same turn; asyncio warns of each."""

    async def main() -> None:
        link, theirs = await opened()
        theirs.close()
        for _ in range(20):
            link.write(b"crossing")
        await link.wait_lost()

    run(main())
    assert caplog.records == []


def test_last_word_is_there_before_the_apps_writes_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The race: 1. `finish` begins; 2. a write of the app's fails; 3. it reads what there is, as if that were all."""
    shutdown = socket.socket.shutdown
    failed: list[bool] = []
    read: list[bytes] = []

    async def main() -> None:
        link, theirs = await opened()

        def shut(sock: socket.socket, how: int) -> None:
            shutdown(sock, how)
            if not failed:
                failed.append(True)
                with pytest.raises(BrokenPipeError):
                    theirs.send(b"x")
                read.append(theirs.recv(100, socket.MSG_DONTWAIT))

        monkeypatch.setattr(socket.socket, "shutdown", shut)
        link.finish(b"last word")
        await link.wait_lost()
        theirs.close()

    run(main())
    assert read == [b"last word"]


def test_blocked_writer_and_reader_wake_when_the_link_is_finished() -> None:
    """The race: 1. one thread of the app is blocked in sendall(), another in recv(); 2. `finish`. Both go on."""

    async def main() -> None:
        link, theirs = await opened()
        blocked = Signal("a write")

        def write() -> None:
            blocked.set()
            theirs.sendall(bytes(10_000_000))

        writer, reader = in_thread(write), in_thread(lambda: (theirs.recv(10), theirs.recv(10)))
        await blocked.wait_in_task()
        await until(lambda: len(link._unread) >= _link.READ_BYTES)
        link.finish(b"why")
        with pytest.raises(OSError, match=r".+"):
            await writer.result_in_task()
        assert (await reader.result_in_task())[0] == b"why"
        await link.wait_lost()
        theirs.close()

    run(main())


@pytest.mark.parametrize("ended_by", ["a read", "finish"])
def test_drain_waits_for_the_app_to_read_or_for_the_end(ended_by: str) -> None:
    """The race: 1. more is written than fits; 2. `drain` waits; 3. the app reads, or the link is finished: it returns.

    Defends `resume_writing` and `_end`: they wake whoever waits there.
    """

    async def main() -> None:
        link, theirs = await opened(high_water=1_000)
        link.write(bytes(3_000_000))
        await until(lambda: link._drained is not None)
        draining = start(link.drain())
        await rest()
        assert not draining.done()
        if ended_by == "finish":
            link.finish()
        reader = in_thread(lambda: sum(iter(lambda: len(theirs.recv(65_536)), 0)))
        await draining
        link.write(b"more")
        link.finish()
        assert await reader.result_in_task() == 3_000_000 + (0 if ended_by == "finish" else 4)
        await link.wait_lost()
        theirs.close()

    run(main())


def test_link_that_is_left_to_an_object_blocks_no_writer() -> None:
    """The race: 1. the app writes so much on its socket that the loop reads no more; 2. its object takes over.

    Defends `bypass_by`: it resumes reading. What was written on the socket is thrown away, and its end is heard.
    """

    async def main() -> None:
        link, theirs = await opened()
        writer = in_thread(theirs.sendall, bytes(3_000_000))
        await until(lambda: link._paused)
        passage = ObjectPassage(verbs(), 65_536)
        link.bypass_by(passage)
        await writer.result_in_task()
        theirs.close()
        assert await passage.take() is None  # the app's side is finished
        link.abort()
        await link.wait_lost()

    run(main())


def test_link_is_not_kept_by_an_app_that_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The race: 1. the last word does not fit; 2. nobody reads; 3. the timer ends it."""
    monkeypatch.setattr(_link, "CLOSE_SECONDS", 0.01)

    async def main() -> None:
        link, theirs = await opened()
        link.finish(bytes(3_000_000))
        await link.wait_lost()
        assert link not in _link._open_links
        theirs.close()

    run(main())


def test_client_that_leaves_while_the_acceptance_is_sent() -> None:
    """The race: 1. send() of the acceptance waits; 2. the disconnect comes; 3. send() never returns."""
    steps = Lockstep()

    async def on_send(number: int, message: Message) -> None:
        async with steps(1):
            pass
        await for_ever()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        ws = environ["a2wsgi.websocket"]
        ws.accept()
        with pytest.raises(WebSocketClosed) as caught:
            ws.receive()
        assert caught.value.code == 4000
        return []

    async def play(client: WebSocketClient) -> None:
        async with steps(2):
            client.leaves(4000)

    client, _ = talk(WSGIMiddleware(app), play, WebSocketClient(on_send))
    assert client.sent == []


def test_app_and_client_close_at_once() -> None:
    """The race: 1. the app's Close is sent; 2. the client's disconnect comes while that send() waits for ever."""
    steps = Lockstep()

    async def on_send(number: int, message: Message) -> None:
        if message["type"] == "websocket.close":
            async with steps(1):
                pass
            await for_ever()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["a2wsgi.websocket"].send("x")
        environ["a2wsgi.websocket"].close(4001)
        return []

    async def play(client: WebSocketClient) -> None:
        async with steps(2):
            client.leaves(1000)

    bridge = WSGIMiddleware(app)
    client, _ = talk(bridge, play, WebSocketClient(on_send))
    assert client.data == ["x"]
    assert bridge.statistics().websockets == 0


def test_message_that_crosses_the_close_of_the_app_hides_no_disconnect() -> None:
    """The race: 1. the app's Close is sent, as a frame; 2. a message comes; 3. so does the disconnect, and is heard."""
    steps = Lockstep()

    async def on_send(number: int, message: Message) -> None:
        if message["type"] == "websocket.close":
            async with steps(1):
                pass
            await for_ever()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        handshake = Handshake(accept_token(environ["HTTP_SEC_WEBSOCKET_KEY"]), (), "")
        environ["werkzeug.socket"].sendall(head_101(handshake).data + b"\x88\x02\x0f\xa1")
        return []

    async def play(client: WebSocketClient) -> None:
        async with steps(2):
            client.says("crossing")
            client.leaves(1006)

    client, _ = talk(WSGIMiddleware(app), play, WebSocketClient(on_send))
    assert client.data == []


def full_websocket(passage: ObjectPassage, sock: socket.socket) -> WebSocket:
    """An open one, whose buffer has no room for a second message."""
    ws = WebSocket(sock, passage, {"HTTP_SEC_WEBSOCKET_KEY": KEY}, ())
    ws.send("fills it")
    return ws


@pytest.mark.parametrize("when", ["before", "after"])
def test_close_that_comes_as_send_looks_for_room(when: str) -> None:
    """The race: 1. send() looks for room; 2. before it looks, or before it waits, another thread closes; 3. it raises.

    Defends `ToLoop.finish`: it opens the gate.
    """

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            passage = ObjectPassage(verbs(), 1)
            ws = full_websocket(passage, ours)
            lock = passage._from_app._lock = HookedLock()
            setattr(lock, when, lambda: in_thread(ws.close, 4001, "now").result())
            with pytest.raises(WebSocketClosed) as caught:
                await in_thread(ws.send, "too late").result_in_task()
            assert caught.value.code == ws.close_code == 4001

    run(main())


def test_send_that_is_ended_by_close_knows_its_code() -> None:
    """The race: 1. close() ends the passage; 2. send() hears of it; 3. close() notes its code. Defends `_ended`."""
    raised, settled = Signal("the passage has raised"), Signal("send() waits for close(), or has ended")

    class Passage(ObjectPassage):
        def send(self, message: str | bytes) -> None:
            try:
                super().send(message)
            except WebSocketClosed:
                raised.set()
                lock.before = settled.set
                raise

        def close(self, code: int, reason: str) -> None:
            super().close(code, reason)
            raised.wait()
            settled.wait()

    lock = HookedLock()

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            passage = Passage(verbs(), 1)
            ws = full_websocket(passage, ours)
            ws._lock = lock  # type: ignore[assignment]  # a lock but for its type

            def send() -> None:
                try:
                    ws.send("too late")
                finally:
                    settled.set()

            sender = in_thread(send)
            await until(lambda: passage._from_app._gate is not None)
            await in_thread(ws.close, 4001).result_in_task()
            with pytest.raises(WebSocketClosed) as caught:
                await sender.result_in_task()
            assert caught.value.code == ws.close_code == 4001

    run(main())


def test_send_that_meets_a_refusal_raises() -> None:
    """The race: 1. close() begins to refuse the handshake; 2. send() takes it for accepted; 3. it is refused.

    Defends `send`: it looks with the lock held.
    """
    settled = Signal("send() waits for close(), or has ended")
    lock = HookedLock()

    async def main() -> None:
        ours, theirs = socket.socketpair()

        class Socket(socket.socket):
            def sendall(self, data: Any, flags: int = 0) -> None:
                lock.before = settled.set
                senders.append(in_thread(send))
                settled.wait()
                super().sendall(data, flags)

        def send() -> None:
            try:
                ws.send("too late")
            finally:
                settled.set()

        senders: list[Any] = []
        with Socket(fileno=ours.detach()) as sock, theirs:
            ws = WebSocket(sock, ObjectPassage(verbs(), 1), {"HTTP_SEC_WEBSOCKET_KEY": KEY}, ())
            ws._lock = lock  # type: ignore[assignment]  # a lock but for its type
            await in_thread(ws.close, 4001).result_in_task()
            with pytest.raises(WebSocketClosed) as caught:
                await senders[0].result_in_task()
            assert caught.value.code == ws.close_code == 4001

    run(main())


@needs_fork
@forks_with_threads
def test_child_of_a_fork_leaves_the_links_of_its_parent_alone() -> None:
    """The race: 1. an app with an open WebSocket forks; 2. the child ends, with its hooks; 3. the parent's goes on."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        ws = environ["a2wsgi.websocket"]
        ws.accept()
        child = os.fork()
        if not child:
            _link._shut_all_down()
            os._exit(0)
        os.waitpid(child, 0)
        ws.send(ws.receive())
        return []

    async def main() -> None:
        client = WebSocketClient()
        client.says("still here")
        await answer(WSGIMiddleware(app), client)
        assert client.data == ["still here"]

    run(main())


@needs_fork
@forks_with_threads
def test_child_of_a_fork_that_returns_from_the_app_leaves_its_parents_socket_alone() -> None:
    """The race: 1. an app with an open WebSocket forks; 2. the child returns a response; 3. the parent's goes on."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        ws = environ["a2wsgi.websocket"]
        ws.accept()
        said = ws.receive()  # by then the loop has noted which run it is
        (session,) = bridge._websockets.open
        app_run = session._run
        assert app_run is not None

        def returns() -> bytes:
            app_run._start_response("200 OK", [])
            app_run._commit()
            app_run.end_of_socket()
            return b"returned"

        assert in_child(returns) == b"returned"
        ws.send(said)
        return []

    bridge = WSGIMiddleware(app)
    client = WebSocketClient()
    client.says("still here")
    talk(bridge, None, client)
    assert client.data == ["still here"]


@needs_fork
@forks_with_threads
def test_child_of_a_fork_has_no_copy_of_a_link() -> None:
    """It closes its own, and the parent's goes on in both directions."""

    async def main() -> None:
        link, theirs = await opened()
        number = link._sock.fileno()

        def look() -> bytes:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)
            return b"closed"

        with living_child(look) as told:
            link.write(b"down")
            assert await in_thread(theirs.recv, 10).result_in_task() == b"down"
            theirs.sendall(b"up")
            assert await link.read() == b"up"
        link.abort()
        await link.wait_lost()
        theirs.close()
        assert told == b"closed"

    run(main())


@pytest.mark.parametrize("how", ["finish", "abort"])
def test_copy_of_a_links_end_keeps_no_reader_waiting(how: str) -> None:
    """The race: 1. a process is forked, by C code for instance, that has a copy of our end; 2. the link ends."""

    async def main() -> None:
        link, theirs = await opened()
        theirs.settimeout(BOUND_SECONDS)
        copy = os.dup(link._sock.fileno())
        reader = in_thread(lambda: b"".join(iter(lambda: theirs.recv(65_536), b"")))
        if how == "abort":
            link.abort()
        else:
            link.finish(bytes(300_000) + b"why")
        assert await reader.result_in_task() == (b"" if how == "abort" else bytes(300_000) + b"why")
        await link.wait_lost()
        os.close(copy)
        theirs.close()

    run(main())


def test_link_that_cannot_be_connected_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends are closed, and whoever wanted it gets the error."""
    made: list[socket.socket] = []
    pair = socket.socketpair

    def socketpair() -> tuple[socket.socket, socket.socket]:
        made.extend(pair())
        return made[0], made[1]

    async def main() -> None:
        runtime = verbs()

        async def connect(*_: object) -> Any:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(type(runtime), "connect", connect)
        monkeypatch.setattr(socket, "socketpair", socketpair)  # now: a loop makes one of its own
        with pytest.raises(OSError, match="Too many open files"):
            await Link.open(runtime, 65_536)

    run(main())
    assert [end.fileno() for end in made] == [-1, -1]


@pytest.mark.parametrize("threading_has_a_hook", [True, False])
def test_links_are_shut_down_by_the_earliest_hook_there_is(
    monkeypatch: pytest.MonkeyPatch, *, threading_has_a_hook: bool
) -> None:
    """One of `threading`'s is called before threads are joined, and is private; `atexit` is always there. Once each."""
    hooks: list[tuple[str, Any]] = []
    monkeypatch.setattr(_link, "_hooks_are_set", False)
    monkeypatch.setattr(atexit, "register", lambda function: hooks.append(("atexit", function)))
    if threading_has_a_hook:
        register: Any = lambda function: hooks.append(("threading", function))  # noqa: E731 - it has no name
        monkeypatch.setattr(threading, "_register_atexit", register, raising=False)
    else:
        monkeypatch.delattr(threading, "_register_atexit", raising=False)

    async def main() -> None:
        ends = [await opened(), await opened()]
        expected = ["atexit", "threading"] if threading_has_a_hook else ["atexit"]
        assert hooks == [(name, _link._shut_all_down) for name in expected]
        hooks[-1][1]()
        for link, theirs in ends:
            assert await in_thread(theirs.recv, 1).result_in_task() == b""
            link.abort()
            await link.wait_lost()
            theirs.close()

    run(main())


def test_link_shows_its_state_and_takes_nothing_after_its_end() -> None:
    """What the app still writes is dropped."""

    async def main() -> None:
        link, theirs = await opened()
        link.data_received(b"one")
        assert repr(link) == "<Link unread=3 ended=False finished=False>"
        link.finish()
        link.data_received(b"two")
        assert repr(link) == "<Link unread=0 ended=True finished=True>"
        theirs.close()

    run(main())
