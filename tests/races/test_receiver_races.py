"""What may come between two steps of a request's incoming side, put there: one consumer, and no reader left waiting.

Each test names the line of ``receiver`` that it fails without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from a2wsgi import ClientDisconnected, WSGIMiddleware
from a2wsgi._wsgi_on_asgi import loops as _loops
from a2wsgi._wsgi_on_asgi import receiver as module
from a2wsgi._wsgi_on_asgi.receiver import Receiver
from support.asgi_driver import DISCONNECT, Client, Message, answer, body_message, http_scope
from support.lockstep import Signal
from support.runtimes import CANCELLATIONS, Waiter, rest, run, start, verbs
from support.threads import in_thread

pytestmark = pytest.mark.usefixtures("runtime")


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def client_left(self, reason: str) -> None:
        self.told.append(reason)

    def body_too_large(self, limit: int) -> None:
        self.told.append(limit)

    def receive_raised(self, error: Exception) -> None:
        self.told.append(error)


async def closed(incoming: Receiver, *, wait: bool) -> None:
    """Close it, as a request does."""
    if incoming.close():
        await incoming.end_task(wait=wait)


def incoming_of(receive: Callable[[], Awaitable[Message]], buffer_bytes: int) -> tuple[Receiver, Listener]:
    """The incoming side of a request of a client."""
    listener = Listener()
    return Receiver(listener, verbs(), receive, buffer_bytes, None, spool=False), listener


async def opened(incoming: Receiver, **environ: str) -> Any:
    """The body of a request whose app runs."""
    file = await incoming.open(environ)
    incoming.go_on()
    return file


async def rounds(count: int = 10) -> None:
    """Let the loop go round, which is as good as for ever to a task that waits for nothing else."""
    for _ in range(count):
        await rest()


class Stubborn:
    """A server's receive() that swallows its first cancellation, and gives what it is told when it is told.

    Attributes:
        calls: How often it was called.
        hungry: Set when it waits.
        swallowed: Set when it was cancelled.
    """

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)
        self.calls = 0
        self.hungry = Signal("receive() waits")
        self.swallowed = Signal("receive() is cancelled")
        self._told: list[Message] = []
        self._waiter: Waiter | None = None

    async def receive(self) -> Message:
        self.calls += 1
        if self.messages:
            return self.messages.pop(0)
        self.hungry.set()
        try:
            return await self._next()
        except CANCELLATIONS:
            if self.swallowed.is_set():
                raise
            self.swallowed.set()
        with verbs().shielded():  # on trio, each further wait is cancelled as well
            return await self._next()

    async def _next(self) -> Message:
        while not self._told:
            self._waiter = Waiter()
            await self._waiter.wait()
        return self._told.pop()

    def tell(self, message: Message) -> None:
        """Have it give this message."""
        self._told.append(message)
        assert self._waiter is not None
        self._waiter.wake()


@pytest.mark.parametrize("message", [body_message(b"cd", more=True), body_message(), DISCONNECT])
def test_receive_that_swallows_its_cancellation_is_the_last(monkeypatch: pytest.MonkeyPatch, message: Message) -> None:
    """The request is over though its task is not. Defends `close`: its bound; `_bring` and `_run`: ``_state``.

    1. The task waits in receive(), for more of the body. 2. The request ends, and cancels it: receive() swallows that.
    3. The request waits for it no longer than it may. 4. receive() returns: nothing is made of that, it is not called
    again, and the task is over.
    """
    monkeypatch.setattr(module, "RECEIVE_END_SECONDS", 0.001)

    async def story() -> None:
        server = Stubborn(body_message(b"ab", more=True))
        incoming, listener = incoming_of(server.receive, 1)
        file = await opened(incoming)
        assert await in_thread(file.read, 2).result_in_task() == b"ab"
        await server.hungry.wait_in_task()
        task = incoming._task
        assert task is not None
        await closed(incoming, wait=True)
        await server.swallowed.wait_in_task()
        assert not task.done()
        server.tell(message)
        await rounds()
        assert task.done()
        assert (server.calls, listener.told) == (2, [])

    run(story())


def test_task_that_waits_for_room_ends_with_its_request() -> None:
    """Nobody will make any. Defends `_bring`: it looks after `room`, and receives nothing more.

    1. The task waits for the app to read. 2. The response is complete. 3. It goes on, and must not call receive().
    """

    async def story() -> None:
        client = Client(b"ab", b"cd")
        incoming, listener = incoming_of(client.receive, 1)
        file = await opened(incoming)
        await rounds()
        incoming.response_ends()
        await rounds()
        assert client.receives == 1
        with pytest.raises(ClientDisconnected, match="its response is complete"):
            await in_thread(file.read).result_in_task()
        await closed(incoming, wait=True)
        assert listener.told == []

    run(story())


def test_read_that_asks_after_the_response_does_not_wait() -> None:
    """The app reads in its iterable's close(). Defends `response_ends`: ``_end_input``.

    1. A body is to be asked for, and the app answers without. 2. The response is complete. 3. close() of the iterable
    reads: nobody will receive that body any more, and the worker is told so.
    """
    reads: list[BaseException] = []

    class Iterable:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"refused"])

        def close(self) -> None:
            ended.wait()
            try:
                self.file.read()
            except ClientDisconnected as error:
                reads.append(error)

    def app(environ: Any, start_response: Any) -> Iterable:
        start_response("417 Expectation Failed", [("Content-Length", "7")])
        return Iterable(environ["wsgi.input"])

    ended = Signal("the response is complete")

    async def on_send(_number: int, message: Message) -> None:
        if message.get("more_body") is False:
            ended.set()

    async def story() -> None:
        scope = http_scope("POST", headers=[(b"expect", b"100-continue"), (b"content-length", b"5")])
        client = Client(complete=False, on_send=on_send)
        response = await answer(WSGIMiddleware(app), client, scope)
        assert response.body == b"refused"
        assert client.receives == 0

    run(story())
    assert len(reads) == 1


def test_read_that_asked_before_the_response_ended_is_told() -> None:
    """The ring comes late. Defends `_asked`: ``_state``; and `response_ends`: it ends the stream.

    1. A thread's read asks for the body. 2. Before the loop hears of it, the response is complete. 3. The loop hears of
    it, and must not call receive(). 4. The read raises.
    """

    async def story() -> None:
        client = Client(complete=False)
        incoming, _ = incoming_of(client.receive, 100)
        file = await opened(incoming, HTTP_EXPECT="100-continue")
        incoming._ask()
        incoming.response_has_begun()
        incoming.response_ends()
        await rounds()
        assert client.receives == 0
        with pytest.raises(ClientDisconnected):
            await in_thread(file.read).result_in_task()
        await closed(incoming, wait=True)

    run(story())


def test_client_that_seems_to_leave_as_its_response_ends_has_not_left() -> None:
    """The disconnect of uvicorn comes before its last send() returns. Defends `response_ends`: before that send.

    1. A watch waits in receive(). 2. The last message is handed to send(), which has the server give http.disconnect to
    receive(). 3. The task hears of it before send() returns: no client left, and the request is counted as answered.
    """
    go = Signal("the client is watched")

    def app(environ: Any, start_response: Any) -> list[bytes]:
        go.wait()
        start_response("200 OK", [])
        return [b"hello"]

    async def story() -> None:
        async def on_send(_number: int, message: Message) -> None:
            if message.get("more_body") is False:
                await rounds()

        bridge = WSGIMiddleware(app)
        client = Client(on_send=on_send, disconnects_when_complete=True)
        answering = start(answer(bridge, client))
        while client.receives < 2:
            for runtime in bridge._shared.loops.live():
                runtime._tick()
            await rest()
        go.set()
        assert (await answering).complete
        assert bridge.statistics().disconnected == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_loops, "TICK_SECONDS", 3600.0)
        run(story())


def test_watch_that_was_cancelled_with_its_request_ends_a_reader() -> None:
    """The server cancels all tasks as its loop ends. Defends `_run`: ``except BaseException``.

    1. A thread waits in a read, the task in receive(). 2. The server cancels every task that it finds. 3. The read
    raises, though nobody but the task itself has learned of that.
    """

    async def story() -> None:
        client = Client(b"ab", complete=False)
        incoming, listener = incoming_of(client.receive, 1)
        file = await opened(incoming)
        reading = in_thread(file.read)
        await client.hungry.wait_in_task()
        task = incoming._task
        assert task is not None
        task.cancel()
        with pytest.raises(ClientDisconnected):
            await reading.result_in_task()
        await rounds()
        assert task.done()
        assert not isinstance(task, asyncio.Task) or task.cancelled()
        assert len(listener.told) == 1
        await closed(incoming, wait=True)
        assert client.receives == 2

    run(story())
