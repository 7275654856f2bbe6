"""What the client sends is received by one consumer, and reaches the app whole or with an error."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from a2wsgi import ClientDisconnected, RequestTooLarge, WSGIMiddleware
from a2wsgi._wsgi_on_asgi import receiver as module
from a2wsgi._wsgi_on_asgi.input import WholeBody
from a2wsgi._wsgi_on_asgi.receiver import Receiver
from apps import hello
from support.asgi_driver import DISCONNECT, Client, Message, answer, body_message, http_scope, until
from support.lockstep import BOUND_SECONDS, Signal
from support.runtimes import cancelled, rest, soon, start, verbs
from support.streams import in_story
from support.threads import in_thread

variable = contextvars.ContextVar("variable", default="none")


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


class Story:
    """One request's incoming side.

    Args:
        client: Who sends.
        buffer_bytes: As `Receiver`'s.
        limit: As `Receiver`'s.
        spool: As `Receiver`'s.
        environ: What the server says of the request.
        receive: Instead of the client's.
    """

    def __init__(
        self,
        client: Client,
        buffer_bytes: int = 65_536,
        limit: int | None = None,
        *,
        spool: bool = False,
        environ: dict[str, Any] | None = None,
        receive: Callable[[], Awaitable[Message]] | None = None,
    ) -> None:
        self.client = client
        self.listener = Listener()
        self.environ: dict[str, Any] = {} if environ is None else environ
        self.incoming = Receiver(
            self.listener,
            verbs(),
            receive or client.receive,
            buffer_bytes,
            limit,
            spool=spool,
        )

    async def open(self) -> Any:
        """Open the body, and go on as for an app that runs."""
        file = await self.incoming.open(self.environ)
        self.incoming.go_on()
        return file

    async def read(self, file: Any, *args: Any) -> bytes:
        """Read in a thread, as an app does."""
        data: bytes = await in_thread(file.read, *args).result_in_task()
        return data

    async def fails(self, file: Any, error: type[Exception] = ClientDisconnected) -> str:
        """See that a read of all raises, and each read after it; give the first text."""
        with pytest.raises(error) as first:
            await self.read(file)
        for _ in range(2):
            with pytest.raises(error):
                await self.read(file, 1)
        return str(first.value)

    async def close(self) -> None:
        """End the request, and see that the server was asked by the rules."""
        await closed(self.incoming, wait=True)
        self.incoming.discard()
        assert self.client.faults == []


async def rounds(count: int = 10) -> None:
    """Let the loop go round, which is as good as for ever to a task that waits for nothing else."""
    for _ in range(count):
        await rest()


# -- A body that is complete ahead ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "environ", "after"),
    [
        ([], {}, {}),
        ([], {"CONTENT_LENGTH": "0"}, {"CONTENT_LENGTH": "0"}),
        ([b"abc"], {}, {"CONTENT_LENGTH": "3"}),
        ([b"abc", b"", b"d"], {"HTTP_TRANSFER_ENCODING": "chunked"}, {"CONTENT_LENGTH": "4"}),
        ([], {"HTTP_TRANSFER_ENCODING": "chunked"}, {"CONTENT_LENGTH": "0"}),
        ([b"abc"], {"CONTENT_LENGTH": "3"}, {"CONTENT_LENGTH": "3"}),
    ],
)
@pytest.mark.usefixtures("runtime")
def test_body_that_is_complete_ahead_is_a_file_with_a_length(
    parts: list[bytes], environ: dict[str, str], after: dict[str, str]
) -> None:
    """It is in memory; a length is said where there is a body and none was said (RFC 9110 §8.6)."""

    async def story() -> None:
        it = Story(Client(*parts), environ=dict(environ))
        file = await it.open()
        assert type(file) is WholeBody
        assert file.read() == b"".join(parts)
        assert it.environ == after
        assert it.client.receives == max(len(parts), 1)
        await it.close()
        assert it.listener.told == []

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_body_may_come_in_messages_without_their_optional_keys() -> None:
    """ASGI HTTP, "Request": ``body`` and ``more_body`` may be absent; other buffers than bytes are taken."""

    async def story() -> None:
        messages: list[Message] = [
            {"type": "http.request", "more_body": True},
            {"type": "http.request", "body": bytearray(b"ab"), "more_body": True},
            {"type": "http.request", "body": memoryview(b"cd")},
        ]
        it = Story(Client(messages=messages))
        assert (await it.open()).read() == b"abcd"
        await it.close()

    in_story(story)


# -- A body that still arrives ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime")
def test_body_that_still_arrives_is_streamed() -> None:
    """What was read ahead and what comes while the app runs is one body, which keeps its headers."""

    async def story() -> None:
        it = Story(Client(b"ab", b"cd", complete=False), 3, environ={"HTTP_TRANSFER_ENCODING": "chunked"})
        file = await it.open()
        assert it.environ == {"HTTP_TRANSFER_ENCODING": "chunked"}
        assert it.client.receives == 2
        reading = in_thread(file.read)
        it.client.send_body(b"ef")
        it.client.send_body(b"gh", more=False)
        assert await reading.result_in_task() == b"abcdefgh"
        await it.close()

    in_story(story)


@pytest.mark.parametrize(("buffer_bytes", "receives"), [(0, 1), (1, 1), (2, 1), (3, 2), (10, 5)])
@pytest.mark.usefixtures("runtime")
def test_body_that_nobody_reads_is_received_up_to_the_buffer_and_one_message(buffer_bytes: int, receives: int) -> None:
    """In messages of 2 bytes: the reading ahead and the task stop at the same bound."""

    async def story() -> None:
        parts = [b"%02d" % number for number in range(100)]
        it = Story(Client(*parts), buffer_bytes)
        file = await it.open()
        await rounds(50)
        assert it.client.receives == receives
        assert await it.read(file) == b"".join(parts)
        await it.close()

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_body_that_is_read_a_little_is_held_within_bounds() -> None:
    """Besides the hand-off, one part that was taken from it and the reader's own buffer hold a buffer's worth each."""

    async def story() -> None:
        parts = [b"%02d" % number for number in range(100)]
        it = Story(Client(*parts), 10)
        file = await it.open()
        assert await it.read(file, 1) == b"0"
        await rounds(50)
        assert 2 * it.client.receives <= 3 * (10 + 2)
        assert await it.read(file) == b"".join(parts)[1:]
        await it.close()

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_body_ahead_of_the_app_is_none_with_a_buffer_of_0() -> None:
    """The app starts at once; its first read has what came since."""

    async def story() -> None:
        it = Story(Client(complete=False), 0)
        file = await it.open()
        assert it.client.receives == 0
        reading = in_thread(file.read)
        it.client.send_body(b"abc", more=False)
        assert await reading.result_in_task() == b"abc"
        await it.close()

    in_story(story)


@pytest.mark.parametrize(
    ("environ", "terminated"), [({"CONTENT_LENGTH": "4"}, {}), ({}, {"wsgi.input_terminated": True})]
)
@pytest.mark.usefixtures("runtime")
def test_body_that_still_arrives_leaves_a_known_end_to_the_app(
    environ: dict[str, str], terminated: dict[str, bool]
) -> None:
    """Werkzeug then minds the length itself; without a length the input's own end is all there is."""

    async def story() -> None:
        it = Story(Client(b"ab", b"cd"), 1, environ={**environ, "wsgi.input_terminated": True})
        await it.open()
        assert it.environ == {**environ, **terminated}
        await it.close()

    in_story(story)


# -- 100 Continue -----------------------------------------------------------------------------------------------------

EXPECTS = {"HTTP_EXPECT": "100-Continue", "CONTENT_LENGTH": "3"}


@pytest.mark.usefixtures("runtime")
def test_body_that_is_to_be_asked_for_is_not_received_unasked() -> None:
    """RFC 9110 §10.1.1: no receive() before the app reads, neither ahead nor by the timer."""

    async def story() -> None:
        it = Story(Client(b"abc"), environ=dict(EXPECTS))
        file = await it.open()
        it.incoming.watch()
        await rounds()
        assert it.client.receives == 0
        assert await it.read(file) == b"abc"
        await it.close()
        assert it.environ == EXPECTS

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_body_that_was_not_asked_for_is_received_once_the_response_has_begun() -> None:
    """Then a receive() sends no "100 Continue" any more, and is how a client that leaves is noticed."""

    async def story() -> None:
        it = Story(Client(b"abc", complete=False), environ=dict(EXPECTS))
        await it.open()
        it.incoming.response_has_begun()
        await rounds()
        assert it.client.receives == 0
        it.incoming.watch()
        await rounds()
        it.client.leave()
        await rounds()
        assert it.listener.told == ["the server sent http.disconnect before the body was complete"]
        await it.close()

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_body_is_asked_for_once() -> None:
    """An app that reads as the timer watches has one receive() at a time."""

    async def story() -> None:
        it = Story(Client(complete=False), environ=dict(EXPECTS))
        file = await it.open()
        reading = in_thread(file.read)
        await it.client.hungry.wait_in_task()
        it.incoming.response_has_begun()
        it.incoming.watch()
        it.incoming.go_on()
        it.incoming._ask()
        await rounds()
        assert it.client.receives == 1
        it.client.send_body(b"abc", more=False)
        assert await reading.result_in_task() == b"abc"
        await it.close()

    in_story(story)


# -- Bodies that are not whole ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer_bytes", [65_536, 1], ids=["ahead", "streamed"])
@pytest.mark.parametrize("spool", [False, True])
@pytest.mark.usefixtures("runtime")
def test_body_whose_client_leaves_never_looks_complete(buffer_bytes: int, spool: bool) -> None:
    """Each read raises, and the request is told once."""

    async def story() -> None:
        it = Story(Client(messages=[body_message(b"ab", more=True), dict(DISCONNECT)]), buffer_bytes, spool=spool)
        file = await it.open()
        await rounds()
        assert "http.disconnect before the body was complete" in await it.fails(file)
        assert it.listener.told == ["the server sent http.disconnect before the body was complete"]
        it.incoming.watch()
        await rounds()
        await it.close()
        assert it.client.receives == 2

    in_story(story)


@pytest.mark.parametrize("buffer_bytes", [65_536, 1], ids=["ahead", "streamed"])
@pytest.mark.parametrize("spool", [False, True])
@pytest.mark.usefixtures("runtime")
def test_body_that_is_shorter_than_its_length_never_looks_complete(buffer_bytes: int, spool: bool) -> None:
    """RFC 9112 §8: each read raises, though the server says that it was all; its client is watched all the same."""

    async def story() -> None:
        it = Story(Client(b"ab", b"c"), buffer_bytes, spool=spool, environ={"CONTENT_LENGTH": "4"})
        file = await it.open()
        await rounds()
        assert "its body ended after 3 of 4 bytes" in await it.fails(file)
        assert it.listener.told == []
        it.incoming.watch()
        await it.client.hungry.wait_in_task()
        it.client.leave()
        await rounds()
        assert it.listener.told == ["the server sent http.disconnect"]
        await it.close()

    in_story(story)


@pytest.mark.parametrize("buffer_bytes", [65_536, 1], ids=["ahead", "streamed"])
@pytest.mark.parametrize("spool", [False, True])
@pytest.mark.usefixtures("runtime")
def test_body_that_is_longer_than_its_length_is_cut_there(buffer_bytes: int, spool: bool) -> None:
    """RFC 9112 §6.3: what follows is none of it."""

    async def story() -> None:
        it = Story(Client(b"ab", b"cd", b"ef"), buffer_bytes, spool=spool, environ={"CONTENT_LENGTH": "3"})
        file = await it.open()
        assert await it.read(file) == b"abc"
        await it.close()

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_body_whose_receive_raises_never_looks_complete() -> None:
    """A server tells in its own way that it lost the client."""

    async def story() -> None:
        client = Client(b"ab", complete=False)
        messages = [body_message(b"ab", more=True)]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            raise OSError("reset")

        it = Story(client, 1, receive=receive)
        file = await it.open()
        await rounds()
        assert "receive() raised OSError" in await it.fails(file)
        assert it.listener.told == ["receive() raised OSError"]
        await it.close()

    in_story(story)


def test_body_whose_receive_is_cancelled_by_the_server_never_looks_complete() -> None:
    """A server may cancel what its receive() waits for, and not the task."""

    async def story() -> None:
        inner = asyncio.get_running_loop().create_future()
        messages = [body_message(b"ab", more=True)]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            return await inner  # type: ignore[no-any-return]

        it = Story(Client(), 1, receive=receive)
        file = await it.open()
        reading = in_thread(file.read)
        await rounds()
        inner.cancel()
        with pytest.raises(ClientDisconnected):
            await reading.result_in_task()
        assert len(it.listener.told) == 1
        await it.close()

    in_story(story)


# -- Bodies that are too large ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spool", [False, True])
@pytest.mark.parametrize("environ", [{}, {"CONTENT_LENGTH": "4"}])
@pytest.mark.parametrize("buffer_bytes", [65_536, 2])
@pytest.mark.usefixtures("runtime")
def test_body_over_the_limit_is_refused_ahead(buffer_bytes: int, spool: bool, environ: dict[str, str]) -> None:
    """By its Content-Length, or as it grows; what was spooled is closed (the guard of all tests sees to that)."""

    async def story() -> None:
        it = Story(Client(b"ab", b"cd"), buffer_bytes, 3, spool=spool, environ=dict(environ))
        if buffer_bytes == 2 and not spool and not environ:
            file = await it.open()
            await it.fails(file, RequestTooLarge)
            assert it.listener.told == [3]
        else:
            with pytest.raises(RequestTooLarge) as caught:
                await it.open()
            assert caught.value.limit == 3
            assert it.client.receives == (0 if environ else 2)
        await it.close()

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_body_at_the_limit_is_let_through() -> None:
    """The limit is the longest that may be."""

    async def story() -> None:
        it = Story(Client(b"ab", b"c"), 65_536, 3)
        assert (await it.open()).read() == b"abc"
        await it.close()

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_client_is_watched_though_its_body_was_too_large() -> None:
    """A response may have begun by then, and go on: a client that leaves is noticed still."""

    async def story() -> None:
        it = Story(Client(b"ab", b"cd", complete=False), 1, 3)
        file = await it.open()
        await it.fails(file, RequestTooLarge)
        for _ in range(3):
            it.incoming.watch()
            await rounds()
        it.client.send_body(b"more")
        it.incoming.watch()
        await rounds()
        it.client.leave()
        it.incoming.watch()
        await rounds()
        assert it.listener.told == [3, "the server sent http.disconnect"]
        await it.fails(file, RequestTooLarge)
        await it.close()

    in_story(story)


# -- Spooled bodies ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime")
def test_spooled_body_is_whole_before_the_app_starts() -> None:
    """Past the buffer it is in a file that is at its start, with a length, and is closed by `discard`."""

    async def story() -> None:
        parts = [b"%d" % number * 10 for number in range(50)]
        it = Story(Client(*parts), 25, spool=True)
        file = await it.open()
        assert it.client.receives == 50
        assert file.read() == b"".join(parts)
        assert file.seek(0) == 0
        assert it.environ == {"CONTENT_LENGTH": str(len(b"".join(parts)))}
        it.incoming.discard()
        await until(lambda: file.closed)
        it.incoming.discard()
        await it.close()

    in_story(story)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The temporary files that are made."""
    files: list[Any] = []
    original = tempfile.TemporaryFile

    def temporary_file() -> Any:
        files.append(original())
        return files[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary_file)
    return files


@pytest.mark.usefixtures("runtime")
def test_spooled_body_that_fits_the_buffer_needs_no_file(files: list[Any]) -> None:
    """A short body costs no descriptor."""

    async def story() -> None:
        it = Story(Client(b"abc"), 3, spool=True)
        assert (await it.open()).read() == b"abc"
        assert files == []
        await it.close()

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_spooled_body_is_closed_when_its_request_is_cancelled(files: list[Any]) -> None:
    """A server that gives up while the body is on its way leaves no file."""

    async def story() -> None:
        it = Story(Client(b"abc", complete=False), 1, spool=True)
        opening = start(it.open())
        await it.client.hungry.wait_in_task()
        opening.cancel()
        await cancelled(opening)
        await until(lambda: [file.closed for file in files] == [True])
        await it.close()

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_spooled_body_is_closed_when_no_worker_is_free(files: list[Any]) -> None:
    """A request that is answered 503 leaves no file either."""
    go, called = Signal("the first request ends"), Signal("the first request has a worker")

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        called.set()
        go.wait()
        return hello.app(environ, start_response)

    bridge = WSGIMiddleware(app, 1, max_queue=0, spool_request=True, request_buffer_bytes=2)

    async def story() -> None:
        first = start(answer(bridge, Client(b"ab", b"cd"), http_scope("POST")))
        await called.wait_in_task()
        assert (await answer(bridge, Client(b"ab", b"cd"), http_scope("POST"))).status == 503
        await until(lambda: [file.closed for file in files] == [False, True])
        go.set()
        assert (await first).status == 200
        assert [file.closed for file in files] == [True, True]

    in_story(story)


# -- Watching for the client's leaving --------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime")
def test_client_that_leaves_is_noticed_once() -> None:
    """By the first watch that finds it gone; after that nobody asks any more: hypercorn would block."""

    async def story() -> None:
        it = Story(Client(b"abc"))
        file = await it.open()
        it.incoming.watch()
        await rounds()
        it.incoming.watch()
        await rounds()
        assert it.client.receives == 2
        it.client.leave()
        await rounds()
        for _ in range(3):
            it.incoming.watch()
            it.incoming.go_on()
            it.incoming._ask()
            await rounds()
        assert it.listener.told == ["the server sent http.disconnect"]
        assert it.client.receives == 2
        assert file.read() == b"abc"
        await it.close()

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_client_that_leaves_ahead_is_not_asked_for_again() -> None:
    """A disconnect that is met while the body is read ahead is the last that is received."""

    async def story() -> None:
        it = Story(Client(messages=[dict(DISCONNECT)]))
        await it.open()
        for _ in range(3):
            it.incoming.watch()
            it.incoming.go_on()
            await rounds()
        assert it.client.receives == 1
        await it.close()

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_server_that_repeats_the_end_is_asked_once_a_watch() -> None:
    """aiohttp-asgi gives the empty end of the body again and again without waiting: that must not spin."""

    async def story() -> None:
        it = Story(Client(b"abc", repeats_end=True))
        await it.open()
        for number in range(1, 5):
            it.incoming.watch()
            await rounds(50)
            assert it.client.receives == 1 + number
        await it.close()
        assert it.listener.told == []

    in_story(story)


@pytest.mark.parametrize("aborts", [False, True], ids=["goes on", "is aborted"])
@pytest.mark.parametrize(
    ("parts", "buffer_bytes", "first", "environ"),
    [
        ([b"ab", b"cd", b"ef"], 3, 1, {}),
        ([b"abcdef"], 0, 0, {}),
        ([b"abcdef"], 100, 1, {"HTTP_EXPECT": "100-continue"}),
    ],
    ids=["past the buffer", "nothing ahead", "asked for"],
)
@pytest.mark.usefixtures("runtime")
def test_client_that_leaves_takes_nothing_of_a_body_that_came_whole(
    parts: list[bytes], buffer_bytes: int, first: int, environ: dict[str, str], aborts: bool
) -> None:
    """A half-closed connection is reported as a disconnect: what came before it is the request's, if that goes on."""

    async def story() -> None:
        it = Story(Client(*parts), buffer_bytes, environ=environ)
        file = await it.open()
        assert await it.read(file, first) == b"a"[:first]
        await rounds()
        it.client.leave()
        await rounds()
        if not it.listener.told:  # nobody has watched it yet
            it.incoming.watch()
            await rounds()
        assert it.listener.told == ["the server sent http.disconnect"]
        if aborts:
            it.incoming.abort(ZeroDivisionError)
        assert await it.read(file) == b"abcdef"[first:]
        assert await it.read(file) == b""
        await it.close()

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_end_of_the_response_is_no_leaving() -> None:
    """With uvicorn http.disconnect is given to everybody from the last body message on."""

    async def story() -> None:
        it = Story(Client(b"abc"))
        await it.open()
        it.incoming.watch()
        await rounds()
        it.incoming.response_ends()
        it.client.leave()
        await rounds()
        it.incoming.watch()
        await rounds()
        assert it.listener.told == []
        assert it.client.receives == 2
        await it.close()

    in_story(story)


@pytest.mark.parametrize("starter", ["go_on", "watch", "ask"])
@pytest.mark.usefixtures("runtime")
def test_receive_is_called_in_the_context_of_its_request(starter: str) -> None:
    """Whoever starts the task: middleware around receive() finds its context variables."""

    async def story() -> None:
        seen: list[str] = []
        client = Client(b"ab", b"cd", complete=False)

        async def receive() -> Message:
            seen.append(variable.get())
            return await client.receive()

        variable.set("the request's")
        environ = {"HTTP_EXPECT": "100-continue"} if starter == "ask" else {}
        it = Story(client, 4 if starter == "watch" else 1, environ=environ, receive=receive)
        opened: list[Any] = []

        async def elsewhere() -> None:
            variable.set("another's")
            it.incoming.go_on()
            it.incoming.watch()
            if starter != "watch":
                await it.read(opened[0], 1)  # which makes room

        opened.append(await it.incoming.open(it.environ))
        await start(elsewhere())
        await rounds()
        assert len(seen) > 1
        assert set(seen) == {"the request's"}
        await it.close()

    in_story(story)


# -- Endings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped", [True, False])
@pytest.mark.usefixtures("runtime")
def test_stop_ends_a_read_that_waits(stopped: bool) -> None:
    """The app's read raises what the request ended in; a body that is a file is not touched."""

    async def story() -> None:
        it = Story(Client(b"ab", complete=not stopped), 1)
        file = await it.open()
        if stopped:
            reading = in_thread(file.read)
            await it.client.hungry.wait_in_task()
            it.incoming.abort(ZeroDivisionError)
            with pytest.raises(ZeroDivisionError):
                await reading.result_in_task()
        else:
            it.incoming.abort(ZeroDivisionError)
            assert file.read() == b"ab"
        await it.close()

    in_story(story)


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.usefixtures("runtime")
def test_close_ends_the_task(wait: bool) -> None:
    """Whether it waits for that or not; the listener is told of nothing any more."""

    async def story() -> None:
        it = Story(Client(b"abc"))
        await it.open()
        it.incoming.watch()
        await rounds()
        task = it.incoming._task
        assert task is not None
        await closed(it.incoming, wait=wait)
        assert task.done() is wait
        await rounds()
        assert task.done()
        assert it.listener.told == []

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_close_without_a_task_is_nothing() -> None:
    """A short request has none to end."""

    async def story() -> None:
        it = Story(Client(b"abc"))
        await it.open()
        await closed(it.incoming, wait=True)
        it.incoming.watch()
        it.incoming.go_on()
        await rounds()
        assert it.client.receives == 1

    in_story(story)


def test_close_waits_no_longer_than_a_second_for_a_receive() -> None:
    """The bound that is promised; what a server's receive() does beyond it is the server's."""
    assert module.RECEIVE_END_SECONDS == 1.0


@pytest.mark.parametrize("waits_for", ["room", "receive"])
def test_close_ends_a_task_on_a_closed_loop(waits_for: str) -> None:
    """A request that is dropped with its loop ends without an error."""
    loop = asyncio.new_event_loop()

    async def begin() -> tuple[Story, Any]:
        it = Story(Client(b"ab", complete=False), 1)
        file = await it.open()
        if waits_for == "receive":
            await it.read(file, 2)
            await it.client.hungry.wait_in_task()
        else:
            await rounds()
        return it, file

    it, file = loop.run_until_complete(begin())
    task = it.incoming._task
    assert isinstance(task, asyncio.Task)
    loop.close()
    it.incoming.abort(lambda: ClientDisconnected("the loop was closed"))
    closing = closed(it.incoming, wait=False)
    with pytest.raises(StopIteration):
        closing.send(None)
    with pytest.raises(ClientDisconnected):
        in_thread(file.read).result(BOUND_SECONDS)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it was: that is the test
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()


@pytest.mark.parametrize("buffer_bytes", [0, 1, 100])
@pytest.mark.parametrize("spool", [False, True])
@pytest.mark.usefixtures("runtime")
def test_body_of_a_server_that_says_nothing_for_long_does_not_hold_the_loop(buffer_bytes: int, spool: bool) -> None:
    """Empty messages that do not wait are asked for once a round of the loop, until there is something."""

    async def story() -> None:
        over: list[None] = []

        async def receive() -> Message:
            return body_message(b"a" if over else b"", more=not over)

        soon(lambda: over.append(None))
        it = Story(Client(), buffer_bytes, spool=spool, receive=receive)
        file = await it.open()
        assert await it.read(file) == b"a"
        await it.close()

    in_story(story)


@pytest.mark.parametrize("buffer_bytes", [0, 100])
@pytest.mark.usefixtures("runtime")
def test_server_that_says_nothing_for_long_is_asked_less_and_less_often(
    buffer_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single empty message costs a turn of the loop; those that follow it wait, in which the client is silent."""
    pauses: list[float] = []

    async def story() -> None:
        silent: list[bool] = []

        async def wait_for(_waiter: object, seconds: float) -> None:
            pauses.append(seconds)
            silent.append(it.incoming._in_receive)
            await rest()

        monkeypatch.setattr(type(verbs()), "wait", staticmethod(wait_for))
        it = Story(Client(b"a", *[b""] * 10, b"b", b"", b"c"), buffer_bytes)
        assert await it.read(await it.open()) == b"abc"
        assert all(silent)
        await it.close()

    in_story(story)
    assert pauses == [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.1, 0.1]


@pytest.mark.parametrize("spool", [False, True])
@pytest.mark.usefixtures("runtime")
def test_client_that_the_server_lost_ahead_is_noticed(spool: bool) -> None:
    """An OSError of receive() is how some servers say so, before the app starts as well as after."""

    async def story() -> None:
        client = Client()
        messages = [body_message(b"ab", more=True)]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            raise ConnectionResetError("by peer")

        it = Story(client, 2 if spool else 100, spool=spool, receive=receive)
        file = await it.open()
        await it.fails(file)
        assert it.listener.told == ["receive() raised ConnectionResetError"]
        await it.close()

    in_story(story)


@pytest.mark.parametrize("buffer_bytes", [1, 100])
@pytest.mark.usefixtures("runtime")
def test_timeout_of_receive_is_the_timeout_of_who_set_it(buffer_bytes: int) -> None:
    """A TimeoutError is an OSError, but a middleware's that bounds the upload: it is to have it back."""

    async def story() -> None:
        late = TimeoutError()
        messages = [body_message(b"ab", more=True)]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            raise late

        it = Story(Client(), buffer_bytes, receive=receive)
        if buffer_bytes > 1:
            with pytest.raises(TimeoutError) as raised:
                await it.open()
            assert raised.value is late
        else:
            await it.fails(await it.open())
            assert it.listener.told == [late]
        await it.close()

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_client_is_not_watched_where_the_server_has_no_more_to_say(caplog: pytest.LogCaptureFixture) -> None:
    """The request is here whole: what receive() raises then fails nothing, and it is not called again."""
    caplog.set_level(logging.DEBUG, "a2wsgi")

    async def story() -> None:
        calls: list[None] = []
        messages = [body_message(b"ab")]

        async def receive() -> Message:
            calls.append(None)
            return messages.pop()

        it = Story(Client(), receive=receive)
        file = await it.open()
        for _ in range(3):
            it.incoming.watch()
            await rounds()
        assert len(calls) == 2
        assert it.listener.told == []
        assert await it.read(file) == b"ab"
        await it.close()

    in_story(story)
    assert [record.getMessage() for record in caplog.records] == [
        "The client is not watched: receive() raised IndexError"
    ]


@pytest.mark.parametrize("buffer_bytes", [1, 100])
@pytest.mark.usefixtures("runtime")
def test_spooled_body_may_be_taken_apart(buffer_bytes: int) -> None:
    """What the app has detached cannot be closed any more, and that is no error."""

    async def story() -> None:
        it = Story(Client(b"ab", b"cd"), buffer_bytes, spool=True)
        file = await it.open()
        if buffer_bytes == 1:
            file.detach().close()
        await it.close()

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_spooled_body_is_whole_also_where_it_is_to_be_asked_for() -> None:
    """A client expects to be asked for each long upload: one that is spooled is, before the app starts."""

    async def story() -> None:
        environ = {"HTTP_EXPECT": "100-continue", "HTTP_TRANSFER_ENCODING": "chunked"}
        it = Story(Client(b"ab", b"cd"), 2, spool=True, environ=environ)
        file = await it.open()
        assert it.client.receives == 2
        assert it.environ == {"HTTP_EXPECT": "100-continue", "CONTENT_LENGTH": "4"}
        assert await it.read(file) == b"abcd"
        await it.close()

    in_story(story)
