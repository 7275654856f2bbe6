"""The messages of our own object, which go past the link: their bounds, their order, and who is woken at the end."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from a2wsgi import WebSocket, WebSocketClosed, WSGIMiddleware, run_in_loop
from a2wsgi._protocol.codec import available
from a2wsgi._wsgi_on_asgi.websocket import link as _link
from a2wsgi._wsgi_on_asgi.websocket import passages as _passages
from a2wsgi._wsgi_on_asgi.websocket.passages import MOST_MESSAGES, ObjectPassage, _ToApp
from support.asgi_driver import Message, run, until
from support.lockstep import BOUND_SECONDS, Signal
from support.runtimes import for_ever, gather, rest, start, verbs
from support.threads import in_thread
from support.websocket_driver import WebSocketClient, talk

pytestmark = [
    pytest.mark.skipif(not available(), reason="needs websockets"),
    pytest.mark.usefixtures("runtime"),
]

ACCEPT: Message = {"type": "websocket.accept", "subprotocol": None, "headers": []}
CLOSE: Message = {"type": "websocket.close", "code": 1000, "reason": ""}


def native(function: Any, **options: Any) -> WSGIMiddleware:
    """A bridge around an app of our object."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        function(environ["a2wsgi.websocket"], environ)
        return []

    return WSGIMiddleware(app, **options)


def send_for_ever(ws: WebSocket) -> None:
    """Send until it raises."""
    while True:
        ws.send(bytes(10_000))


def test_messages_before_the_clients_close_are_received_before_it() -> None:
    """Also by an app that is late, and has noticed the end when it sent."""
    seen: list[Any] = []

    def app(ws: WebSocket, environ: dict[str, Any]) -> None:
        ws.accept()
        assert environ["a2wsgi.disconnected"].wait(10)
        with pytest.raises(WebSocketClosed) as caught:
            ws.send("too late")
        assert (caught.value.code, caught.value.reason) == (4000, "why")
        seen.extend(ws)
        seen.append((ws.close_code, ws.close_reason))

    async def play(client: WebSocketClient) -> None:
        await client.gets(1)
        for data in ("one", b"two", ""):
            client.says(data)
        client.leaves(4000, "why")

    client, _ = talk(native(app), play)
    assert client.sent == [ACCEPT]
    assert seen == ["one", b"two", "", (4000, "why")]


@pytest.mark.parametrize("data", [bytes(10_000), b""], ids=["long", "empty"])
def test_messages_for_a_slow_app_wait_with_the_server(data: bytes) -> None:
    """As many bytes as the buffer holds, and an empty one counts."""
    go = Signal("go")
    seen: list[int] = []

    def app(ws: WebSocket, _: Any) -> None:
        ws.accept()
        go.wait()
        seen.append(sum(1 for message in ws if message == data))

    async def play(client: WebSocketClient) -> None:
        await client.gets(1)
        for _ in range(300):
            client.says(data)
        client.leaves()
        before = -1
        while before != (before := client.receives):
            for _ in range(20):
                await rest()
        assert client.receives < 200
        go.set()

    talk(native(app, response_buffer_bytes=4_096), play)
    assert seen == [300]


def test_client_that_vanishes_is_noticed_though_the_app_left_its_messages_unread() -> None:
    """The server cannot say the last word, and what the client still sends is thrown away."""
    go = Signal("go")
    ended: list[WebSocket] = []

    async def on_send(number: int, message: Message) -> None:
        if message["type"] == "websocket.close":
            await for_ever()

    def app(ws: WebSocket, _: Any) -> None:
        ws.accept()
        go.wait()
        ended.append(ws)

    async def play(client: WebSocketClient) -> None:
        await client.gets(1)
        for _ in range(300):
            client.says(bytes(10_000))
        await until(lambda: client.receives == 2)  # the handshake, and the message that has filled the buffer
        go.set()
        await until(lambda: client.sends == 2)
        await until(lambda: client.receives == 302)
        assert ended[0]._passage._to_app._size < 20_000
        client.leaves(1006)

    bridge = native(app, response_buffer_bytes=4_096, send_timeout=None)
    client, _ = talk(bridge, play, WebSocketClient(on_send))
    assert client.sent == [ACCEPT]
    assert bridge.statistics().websockets == 0


@pytest.mark.parametrize("size", [10_000, 0], ids=["long", "empty"])
def test_app_waits_for_a_slow_server(size: int) -> None:
    """With what a stream holds, or so many messages; and goes on when the client is gone."""
    sent: list[int] = []
    failed: list[int] = []
    sockets: list[WebSocket] = []

    async def on_send(number: int, message: Message) -> None:
        if number == 2:
            await for_ever()

    def app(ws: WebSocket, _: Any) -> None:
        sockets.append(ws)
        try:
            while True:
                ws.send(bytes(size))
                sent.append(size)
        except WebSocketClosed as error:
            failed.append(error.code)

    async def play(client: WebSocketClient) -> None:
        await until(lambda: client.sends == 2 and sockets[0]._passage._from_app._gate is not None)
        client.leaves(1001)

    talk(native(app), play, WebSocketClient(on_send))
    assert failed == [1001]
    # One batch is with the server.
    assert 5 <= len(sent) <= (2 * MOST_MESSAGES if not size else 60)


def test_app_that_sends_without_end_leaves_the_loop_to_others() -> None:
    """Though there is always something to take, and a server may take it without waiting."""

    async def main() -> None:
        passage = ObjectPassage(verbs(), 65_536)
        went: list[int] = []

        async def other(number: int) -> None:
            went.append(number)

        jobs = []
        for number in range(5):
            passage.send("x")
            jobs.append(start(other(number)))
            events = await passage.take()
            assert list(events or ()) == ["x"]
            assert len(went) >= number  # on trio, what was just started may come next
        await gather(*jobs)

    run(main())


def test_receive_may_be_tried_again_after_its_time() -> None:
    """Nothing is lost."""
    seen: list[Any] = []

    def app(ws: WebSocket, _: Any) -> None:
        for seconds in (0, 0.01):
            with pytest.raises(TimeoutError):
                ws.receive(seconds)
        ws.send("timed out")
        seen.append(ws.receive(10))

    async def play(client: WebSocketClient) -> None:
        await client.gets(2)
        client.says("here")

    client, _ = talk(native(app), play)
    assert seen == ["here"]
    assert client.sent == [ACCEPT, {"type": "websocket.send", "text": "timed out"}, CLOSE]


def test_coroutine_on_the_loops_thread_waits_for_no_thread_that_receives() -> None:
    """It gets its time, or an error: the loop would wait for a message that only it can bring."""

    async def poll(ws: WebSocket) -> None:
        with pytest.raises(TimeoutError):
            ws.receive(timeout=0)
        with pytest.raises(RuntimeError, match="thread that runs the server's event loop"):
            ws.receive()

    def app(ws: WebSocket, _: Any) -> None:
        ws.accept()
        receiver = in_thread(lambda: list(ws))
        run_in_loop(until(lambda: ws._passage._to_app.is_awaited))
        run_in_loop(poll(ws))
        ws.close()
        assert receiver.result() == []

    client, _ = talk(native(app))
    assert client.sent == [ACCEPT, CLOSE]


def test_coroutine_on_the_loops_thread_waits_for_no_thread_that_sends() -> None:
    """It gets an error: the loop would wait for room that only it can make."""
    tried = Signal("the coroutine has tried")

    async def on_send(number: int, message: Message) -> None:
        if number == 2:
            await tried.wait_in_task()

    async def say(ws: WebSocket) -> None:
        try:
            with pytest.raises(RuntimeError, match="thread that runs the server's event loop"):
                ws.send("a word")
        finally:
            tried.set()

    def send(ws: WebSocket) -> None:
        with pytest.raises(WebSocketClosed):
            send_for_ever(ws)

    def app(ws: WebSocket, _: Any) -> None:
        ws.accept()
        sender = in_thread(send, ws)
        run_in_loop(until(lambda: client.sends == 2 and ws._passage._from_app._gate is not None))
        run_in_loop(say(ws))
        ws.close()
        sender.result()

    client = WebSocketClient(on_send)
    talk(native(app), client=client)
    assert "a word" not in client.data
    assert client.sent[-1] == CLOSE


def test_threads_that_receive_at_once_get_a_message_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first to be woken wakes the next, and does not keep it from what else has come."""
    monkeypatch.setattr(_passages, "LOOK_SECONDS", 10 * BOUND_SECONDS)
    waiting: list[object] = []

    def wait(stream: _ToApp, gate: threading.Lock, deadline: float | None) -> None:
        waiting.append(gate)
        wait_until(stream, gate, deadline)

    wait_until = _ToApp._wait_until
    monkeypatch.setattr(_ToApp, "_wait_until", wait)

    async def main() -> None:
        passage = ObjectPassage(verbs(), 1_000)
        receivers = [in_thread(passage.receive, time.monotonic() + BOUND_SECONDS) for _ in range(2)]
        await until(lambda: len(waiting) == 2)
        passage._to_app.put("one")
        passage._to_app.put("two")
        passage._to_app.flush()
        assert {await receiver.result_in_task() for receiver in receivers} == {"one", "two"}

    run(main())


def test_receive_looks_again_whether_it_was_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may have ended the one that had taken its gate out, and was to open it."""
    monkeypatch.setattr(_passages, "LOOK_SECONDS", 0.001)

    async def main() -> None:
        stream = _ToApp(verbs(), 1_000)
        receiver = in_thread(stream.take_one, time.monotonic() + BOUND_SECONDS)
        await until(lambda: stream.is_awaited)
        stream.put("here")
        stream._gate = None
        assert await receiver.result_in_task() == "here"

    run(main())


def test_finalizer_that_receives_within_our_own_code_gets_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread may hold the lock of a stream, which the loop needs to bring a message."""
    monkeypatch.setattr(_passages, "LOOK_SECONDS", 0.001)

    async def main() -> None:
        busy, empty = ObjectPassage(verbs(), 1_000), ObjectPassage(verbs(), 1_000)

        class Chunks(list[Any]):
            def append(self, chunk: Any) -> None:
                with pytest.raises(RuntimeError, match="was called by a finalizer"):
                    empty.receive(time.monotonic() + BOUND_SECONDS)
                super().append(chunk)

        busy._from_app._chunks = Chunks()
        await in_thread(busy.send, "goes on").result_in_task()
        assert busy._from_app._chunks == ["goes on"]

    run(main())


def test_close_wakes_a_thread_that_receives() -> None:
    """It gets the code of that close()."""

    def app(ws: WebSocket, _: Any) -> None:
        ws.accept()

        def receive() -> int:
            with pytest.raises(WebSocketClosed) as caught:
                ws.receive()
            return caught.value.code

        receiver = in_thread(receive)
        ws.close(4001, "bye")
        assert receiver.result() == 4001

    client, _ = talk(native(app))
    assert client.sent == [ACCEPT, {"type": "websocket.close", "code": 4001, "reason": "bye"}]


def test_close_ends_a_send_that_waits_for_the_client() -> None:
    """It does not wait itself, and the client gets its code once it reads."""
    full, closed = Signal("send() waits"), Signal("close() has returned")

    async def on_send(number: int, message: Message) -> None:
        if number == 2:
            await closed.wait_in_task()

    sockets: list[WebSocket] = []

    def app(ws: WebSocket, _: Any) -> None:
        ws.accept()
        sockets.append(ws)

        def send() -> int:
            with pytest.raises(WebSocketClosed) as caught:
                send_for_ever(ws)
            return caught.value.code

        sender = in_thread(send)
        full.wait()
        ws.close(4001, "slow")
        assert sender.result() == 4001
        closed.set()

    async def play(client: WebSocketClient) -> None:
        await until(lambda: client.sends == 2 and sockets[0]._passage._from_app._gate is not None)
        full.set()

    client, _ = talk(native(app), play, WebSocketClient(on_send))
    assert client.sent[-1] == {"type": "websocket.close", "code": 4001, "reason": "slow"}
    assert client.faults == []


def test_thread_that_outlives_the_app_is_told_that_it_is_over() -> None:
    """It must not wait, nor be taken for the fault of another response."""
    returned, told = Signal("returned"), Signal("told")

    def send_on(ws: WebSocket) -> None:
        returned.wait()
        with pytest.raises(WebSocketClosed):
            send_for_ever(ws)
        told.set()

    threads: list[threading.Thread] = []

    def app(ws: WebSocket, _: Any) -> None:
        ws.accept()
        threads.append(threading.Thread(target=send_on, args=[ws]))
        threads[0].start()

    talk(native(app))
    returned.set()
    told.wait()
    threads[0].join()


@pytest.mark.parametrize("does", ["receives", "sends"])
def test_end_of_the_process_wakes_the_threads_of_the_app(does: str) -> None:
    """They may be no daemons, which `threading` waits for; the loop may be gone."""
    seen: list[int] = []

    async def on_send(number: int, message: Message) -> None:
        if number == 2:
            await until(lambda: bool(seen))

    def app(ws: WebSocket, _: Any) -> None:
        ws.accept()

        def block() -> None:
            with pytest.raises(WebSocketClosed) as caught:
                send_for_ever(ws) if does == "sends" else ws.receive()
            seen.append(caught.value.code)

        in_thread(block).result()

    async def play(client: WebSocketClient) -> None:
        await client.gets(1)
        if does == "sends":
            await until(lambda: client.sends == 2)
        _link._shut_all_down()

    client, _ = talk(native(app), play, WebSocketClient(on_send))
    assert seen[0] in {1006, 1012}  # as far as the loop has come: here it is still there
    assert client.sent[-1] == {"type": "websocket.close", "code": 1012, "reason": ""}


def test_socket_is_dead_once_the_object_was_used() -> None:
    """What the app writes there is thrown away, and does not hide its end."""

    def app(ws: WebSocket, environ: dict[str, Any]) -> None:
        ws.send("before")
        environ["werkzeug.socket"].sendall(bytes(1_000_000))
        ws.send("after")

    client, _ = talk(native(app))
    assert client.data == ["before", "after"]
    assert client.sent[-1] == CLOSE
