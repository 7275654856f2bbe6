"""What a WSGI app says, as the messages that the server gets."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from a2wsgi import (
    AppProtocolError,
    ClientDisconnected,
    Statistics,
    WSGIMiddleware,
)
from a2wsgi._wsgi_on_asgi import receiver as _incoming
from a2wsgi._wsgi_on_asgi import streams as _streams
from a2wsgi._wsgi_on_asgi.endings import Ending
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import hello
from apps.counting import Counting
from support.asgi_driver import Client, Message, answer, call, http_scope, messages_of, run, until
from support.bridges import Bridged, only_single
from support.lockstep import Lockstep, Signal
from support.runtimes import start, verbs
from support.threads import in_thread
from support.wsgi_requests import HELLO, our_log

pytestmark = pytest.mark.usefixtures("runtime")

# -- Response out -----------------------------------------------------------------------------------------------------


def test_app_runs_ahead_up_to_the_buffer() -> None:
    """The app does not wait for the client until ``response_buffer_bytes`` are queued, and then it does."""
    made = 0

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        nonlocal made
        start_response("200 OK", [])
        for _ in range(100):
            made += 1000
            yield b"x" * 1000

    async def main() -> None:
        begun = 0

        async def on_send(_: int, message: Message) -> None:
            nonlocal begun
            begun += len(message.get("body", b""))
            # One message is on its way, the buffer is full behind it, and the app has one chunk in hand: or it is done.
            await until(lambda: made - begun >= 5000 or made == 100_000)
            assert made - begun <= 5000 + 5000 + 1000

        response = await answer(WSGIMiddleware(app, response_buffer_bytes=5000), Client(on_send=on_send))
        assert response.body == b"x" * 100_000

    run(main())


def test_queued_chunks_are_joined_into_one_message() -> None:
    """What has gathered while the server was busy is one message. Of several bridges each may pass on a part of it."""
    step = Lockstep()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"first"
        with step(2):
            yield b"second"
            yield b"third"
            yield b"fourth"
        with step(5):
            pass
        yield b"fifth"

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 2:
                async with step(1):
                    pass
                async with step(3):
                    pass
            if number == 3:
                async with step(4):
                    pass

        response = await answer(WSGIMiddleware(app), Client(on_send=on_send))
        assert [message["body"] for message in response.messages[1:4]] == [b"first", b"secondthirdfourth", b"fifth"]
        assert response.complete

    run(main())


@pytest.mark.parametrize("kind", [list, iter])
def test_large_chunk_is_sent_in_pieces(bridged: Bridged, kind: Callable[[list[bytes]], Iterable[bytes]]) -> None:
    """``send_timeout`` limits a client's silence, and a server's ``send()`` may last until the client has taken all."""
    body = bytes(range(256)) * 4096 * 2 + b"rest"

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return kind([body])

    response = call(bridged(app))
    assert response.body == body
    bodies = [message["body"] for message in response.messages if message["type"] == "http.response.body"]
    assert max(map(len, bodies)) <= 1 << 20


def test_length_counts_what_the_iterable_writes() -> None:
    """An iterable that says to have one item, and calls write() as it makes it."""

    class Writing:
        def __init__(self, write: Callable[[bytes], object]) -> None:
            self.write = write

        def __len__(self) -> int:
            return 1

        def __iter__(self) -> Iterator[bytes]:
            self.write(b"abc")
            yield b"def"

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return Writing(start_response("200 OK", []))

    response = call(WSGIMiddleware(app))
    assert response.body == b"abcdef"
    assert dict(response.headers).get(b"content-length") in {None, b"6"}  # it is known if both are handed over at once


@pytest.mark.parametrize("queue_size", [1, 3])
def test_send_queue_size_bounds_the_chunks(queue_size: int) -> None:
    """``send_queue_size`` chunks are queued at most, however small they are."""
    made = 0

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        nonlocal made
        start_response("200 OK", [])
        for _ in range(50):
            made += 1
            yield b"x"

    async def main() -> None:
        begun = 0

        async def on_send(_: int, message: Message) -> None:
            nonlocal begun
            begun += len(message.get("body", b""))
            await until(lambda: made - begun >= queue_size or made == 50)
            # Before the body come the chunks that the head found queued.
            assert made - begun <= queue_size + queue_size + 1

        response = await answer(WSGIMiddleware(app, send_queue_size=queue_size), Client(on_send=on_send))
        assert response.body == b"x" * 50

    run(main())


def test_buffer_of_nothing_is_lockstep(bridged: Bridged) -> None:
    """``response_buffer_bytes=0`` means one chunk at a time, and not none ever."""
    app = Counting([b"x"] * 10)
    assert call(bridged(app, response_buffer_bytes=0)).body == b"x" * 10


def test_list_that_can_be_closed_is_handed_over_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a bridge further in gives for a complete response needs no message of its own for its end."""
    closed: list[bool] = []

    class Closing(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Closing([b"he", b"llo"])

    monkeypatch.delattr(_streams.ToLoop, "put")  # one by one they would be sent so, and may be two messages
    assert call(WSGIMiddleware(app)).messages == messages_of(200, [(b"content-length", b"5")], b"hello")
    assert closed == [True]


@pytest.mark.parametrize(
    ("chunks", "length", "written"),
    [([b"hello"], "5", []), ([b"he", b"llo"], "5", [b"he"]), ([b"hello", b"more"], "5", []), ([b"hello"], "3", [])],
)
def test_chunk_that_completes_the_length_is_handed_over_with_the_end(
    chunks: list[bytes], length: str, written: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a framework's response, which has a length and a ``close()``, wakes the loop once."""
    put: list[bytes] = []
    original = _streams.ToLoop.put

    def noting(stream: _streams.ToLoop, chunk: bytes) -> None:
        put.append(chunk)
        original(stream, chunk)

    monkeypatch.setattr(_streams.ToLoop, "put", noting)
    app = Counting(chunks, headers=[("Content-Length", length)])
    assert call(WSGIMiddleware(app)).body == b"hello"[: int(length)]
    assert put == written
    assert app.closes == 1


@only_single("Between two bridges the head may come before the rest: two threads are at it there.")
def test_finished_app_wakes_the_loop_once(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Head, body and end of a complete response travel together, with the news that the worker is through."""

    async def main() -> None:
        loop = verbs().loop
        wakes = 0
        call_soon_threadsafe = loop.call_soon_threadsafe
        sent = threading.Event()

        def counting(*args: Any, **kwargs: Any) -> Any:
            nonlocal wakes
            wakes += 1
            return call_soon_threadsafe(*args, **kwargs)

        def discard(_: _incoming.Receiver) -> None:
            # The last that the worker does before it is through. Had it woken the loop already, this would be seen.
            assert not sent.wait(0.05)

        async def on_send(_: int, __: Message) -> None:
            sent.set()

        monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
        monkeypatch.setattr(_incoming.Receiver, "discard", discard)
        assert (await answer(bridged(hello.app), Client(on_send=on_send))).messages == HELLO
        assert wakes == 1

    run(main())


@pytest.mark.parametrize(
    ("method", "status", "chunks", "length"),
    [
        ("GET", "200 OK", [b"hello"], b"5"),
        ("GET", "200 OK", (b"hello",), b"5"),
        ("GET", "200 OK", [b"he", b"llo"], b"5"),
        ("GET", "200 OK", [], b"0"),
        ("GET", "200 OK", [b"x" * 70_000], b"70000"),
        ("HEAD", "200 OK", [b"hello"], b"5"),
        ("HEAD", "200 OK", [], None),
        ("GET", "204 No Content", [], None),
        ("GET", "304 Not Modified", [], None),
    ],
)
def test_complete_response_gets_a_length(
    bridged: Bridged, method: str, status: str, chunks: Iterable[bytes], length: bytes | None
) -> None:
    """A body that is known whole before its head is sent has its length said."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [])
        return chunks

    response = call(bridged(app), None, http_scope(method))
    body = b"" if method == "HEAD" else b"".join(chunks)
    headers = [] if length is None else [(b"content-length", length)]
    assert (response.status, response.headers, response.body) == (int(status[:3]), headers, body)
    assert response.complete


def test_length_of_the_app_stays(bridged: Bridged) -> None:
    """What the app says of its length is not said twice."""
    app = Counting([b"hel", b"lo"], headers=[("Content-Length", "5")])
    assert call(bridged(app)).headers == [(b"content-length", b"5")]


def test_stream_gets_no_length(bridged: Bridged) -> None:
    """A body whose head was sent before its end has no length."""
    sent = Signal("the first chunk was sent")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"first"
        sent.wait()

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 2:
                sent.set()

        response = await answer(bridged(app), Client(on_send=on_send))
        assert response.messages == messages_of(200, [], b"first", b"")

    run(main())


def test_end_of_the_response_does_not_wait_for_close(bridged: Bridged) -> None:
    """A slow ``close()`` holds no client back, but the server is told only after it."""
    step = Lockstep()

    class Chunks:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"hello"])

        def close(self) -> None:
            with step(2):
                pass

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return Chunks()

    async def main() -> None:
        client = Client()
        bridge = bridged(app)
        task = start(answer(bridge, client))
        await until(lambda: len(client.sent) >= 2 and not client.sent[-1]["more_body"])
        assert not task.done()
        assert bridge.statistics() == Statistics(1, 1, 0, 1, 0, 0, 0)
        async with step(1):
            pass
        assert (await task).body == b"hello"
        assert bridge.statistics() == Statistics(1, 0, 0, 0, 0, 0, 0)

    run(main())


def test_close_that_raises_is_logged(bridged: Bridged, caplog: pytest.LogCaptureFixture) -> None:
    """The response is out by then: the error is logged with its traceback, and harms nobody."""
    error = ValueError("in close")
    app = Counting([b"x"], close_error=error)
    assert call(bridged(app)).body == b"x"
    assert app.closes == 1
    assert our_log(caplog) == [("ERROR", "close() of the WSGI app's iterable raised")]
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error


@pytest.mark.parametrize("chunk", ["text", bytearray(b"x"), memoryview(b"x"), 120, None], ids=type)
@pytest.mark.parametrize("kind", [list, iter])
def test_chunk_that_is_not_bytes_is_an_error(bridged: Bridged, chunk: Any, kind: Callable[[list[Any]], Any]) -> None:
    """Chunks are ``bytes``, nothing else."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        iterable: Iterable[bytes] = kind([chunk])
        return iterable

    response = call(bridged(app), fails=AppProtocolError)
    assert response.messages == []
    assert f"sent a chunk of type {type(chunk).__name__}. PEP 3333 requires bytes." in str(response.raised)


# -- What apps and middleware do that they need not -------------------------------------------------------------------


def test_exc_info_may_be_named(bridged: Bridged) -> None:
    """PEP 3333 wants it positional; WSGI servers take it by its name as well, and middleware passes it so."""

    def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        try:
            int("in the app")
        except ValueError:
            start_response("500 Oops", [], exc_info=sys.exc_info())
        return [b"oops"]

    assert call(bridged(app)).messages == messages_of(500, [(b"content-length", b"4")], b"oops")


def test_write_after_the_response_is_an_error() -> None:
    """It never waits, and adds nothing: neither in ``close()`` nor in a thread that has kept ``write``."""
    errors: list[str] = []
    writes: list[Callable[[bytes], object]] = []

    def write_on() -> None:
        for _ in range(2):
            try:
                writes[0](b"x" * 70_000)
            except AppProtocolError as error:
                errors.append(str(error))

    class Chunks:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"hello"])

        def close(self) -> None:
            write_on()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        writes.append(start_response("200 OK", [("Content-Type", "text/plain")]))
        return Chunks()

    async def main() -> None:
        response = await answer(WSGIMiddleware(app))
        assert response.body == b"hello"
        await in_thread(write_on).result_in_task()

    run(main())
    assert len(errors) == 4
    assert len(set(errors)) == 1
    assert "write() after its response was complete" in errors[0]


class _Sized:
    """An iterable of chunks that says how many they are."""

    def __init__(self, says: int | Exception, *chunks: bytes) -> None:
        self._says = says
        self._chunks = chunks

    def __len__(self) -> int:
        if isinstance(self._says, Exception):
            raise self._says
        return self._says

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)


@pytest.mark.usefixtures("no_timer")
def test_iterable_of_one_chunk_ends_there() -> None:
    """Its chunk gave the response its ``Content-Length``: what else it holds would pass for the next response."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return _Sized(1, b"", b"one", b"another")

    assert call(WSGIMiddleware(app)).messages == messages_of(200, [(b"content-length", b"3")], b"one")


def test_body_is_not_kept_while_it_is_sent() -> None:
    """A slow client does not have its response in memory twice: as the app's chunks, and as one message."""
    kept: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b"one", b"two"]

    async def on_send(number: int, _: Message) -> None:
        if number == 2:
            (request,) = bridge._shared.loops.here().in_flight
            await until(lambda: request._response.last is None)
            kept.extend(request._output._chunks)

    bridge: Any = WSGIMiddleware(app)
    assert call(bridge, Client(on_send=on_send)).body == b"onetwo"
    assert kept == []


class _Short(bytes):
    """Bytes that say that they are fewer."""

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(("method", "body"), [("GET", b"one"), ("HEAD", b"")])
def test_one_chunk_is_measured_and_not_asked(method: str, body: bytes) -> None:
    """A subclass of bytes may have any ``__len__``; the ``Content-Length`` is that of what is sent."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return _Sized(1, _Short(b"one"))

    response = call(WSGIMiddleware(app), None, http_scope(method))
    assert response.messages == messages_of(200, [(b"content-length", b"3")], body)


class _Empty(bytes):
    """Bytes that say that they are none."""

    def __bool__(self) -> bool:
        return False


def test_chunk_is_not_asked_whether_it_is_empty() -> None:
    """A subclass of bytes may have any ``__bool__``; what it holds is sent, from a list and from any other iterable."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return chunks if environ["PATH_INFO"] == "/list" else iter(chunks)

    chunks = [_Empty(b"one"), b"", b"two", _Empty(b"three")]
    bridge = WSGIMiddleware(app)
    for path in ("/list", "/iterator"):
        assert call(bridge, None, http_scope(target=path)).body == b"onetwothree"


@pytest.mark.parametrize("error", [TypeError("no"), AttributeError("no"), NotImplementedError()])
def test_iterable_whose_len_fails_is_answered(bridged: Bridged, error: Exception) -> None:
    """It says nothing of its length, as one that has none."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return _Sized(error, b"one", b"another")

    assert call(bridged(app)).body == b"oneanother"


@pytest.mark.parametrize("chunks", [[bytes(65_536)] * 200, [bytes(200 << 20)]], ids=["many", "large"])
def test_download_that_never_waits_lets_the_loop_go_on(chunks: list[bytes]) -> None:
    """A quick client's server takes each message at once, and a quick app has the next one ready. Others are served."""
    written = Signal("the response is queued")
    served_after: list[int] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        for chunk in chunks:
            write(chunk)
        written.set()
        return []

    async def on_send(number: int, _: Message) -> None:
        if number == 1:
            written.wait()  # on the loop thread, which takes nothing meanwhile
            start(other_request())

    async def other_request() -> None:
        served_after.append(client.sends)

    client = Client(on_send=on_send)
    response = call(WSGIMiddleware(app, response_buffer_bytes=200 << 20), client)
    assert len(response.messages) > 200
    assert served_after[0] <= 64  # trio may run this task twice before the other


def test_ending_that_comes_as_the_loop_goes_round_ends_the_sending() -> None:
    """It finds no ``send()`` to interrupt then: a large chunk is not sent to its end."""
    ended_after: list[int] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [bytes(200 << 20)]

    async def on_send(number: int, _: Message) -> None:
        if number == 1:
            start(end())

    async def end() -> None:
        (request,) = bridge._shared.loops.known()[0].in_flight
        ended_after.append(client.sends)
        request.abort(Ending.SHUT_DOWN, ClientDisconnected)

    client = Client(on_send=on_send)
    bridge: Any = WSGIMiddleware(app, response_buffer_bytes=200 << 20)
    call(bridge, client)
    assert ended_after[0] > 1
    assert client.sends == ended_after[0]
