"""What happens to a request of an ASGI server that a WSGI app answers, in the order of time.

A test that has its bridge from `bridged` holds for a bridge around a bridge around a bridge as well. One that makes a
`WSGIMiddleware` holds for that alone: it counts what one bridge does, threads, messages and bytes held, asks when it
does it, or for the reason by which it names an ending; of several each has its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import io
import itertools
import logging
import os
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from a2wsgi import (
    AppError,
    AppProtocolError,
    ClientDisconnected,
    RequestTooLarge,
    ServerProtocolError,
    Statistics,
    WSGIMiddleware,
    _handoff,
    _incoming,
    _runtime,
    _workers,
)
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import echo, hello
from apps.counting import Counting, endless
from apps.raising import Place, Raising
from apps.recording import Recording
from apps.waiting import Waiting
from support.asgi_driver import Client, Message, answer, body_message, call, http_scope, messages_of, run, until
from support.bridges import Bridged, bridges_to_asgi
from support.lockstep import BOUND_SECONDS, Lockstep, Signal
from support.threads import in_thread

HELLO = messages_of(200, [(b"content-type", b"text/plain"), (b"content-length", b"5")], b"hello")
ECHO_TYPE = (b"content-type", b"application/octet-stream")


def echoed(body: bytes) -> list[Message]:
    """What `apps.echo` answers to ``body``."""
    return messages_of(200, [ECHO_TYPE, (b"content-length", b"%d" % len(body))], body)


@pytest.fixture
def quick_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the timer tick every 5 ms."""
    monkeypatch.setattr(_runtime, "TICK_SECONDS", 0.005)


@pytest.fixture
def no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the timer tick never within a test, however slow the machine."""
    monkeypatch.setattr(_runtime, "TICK_SECONDS", 3600.0)


@pytest.fixture(params=["single", "nested"])
def bridged(request: pytest.FixtureRequest) -> Iterator[Bridged]:
    """Makes an ASGI app of a WSGI app, by one bridge or by three around one another."""
    with bridges_to_asgi(request.param) as make:
        yield make


def our_log(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What a2wsgi has logged: the level and the text of each record."""
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "a2wsgi"]


# -- The class --------------------------------------------------------------------------------------------------------


def test_bridge_is_an_asgi3_app_to_servers() -> None:
    """Servers look whether ``app.__call__`` is a coroutine function."""
    assert inspect.iscoroutinefunction(WSGIMiddleware(hello.app).__call__)


def test_bridge_answers_what_the_app_says(bridged: Bridged) -> None:
    """A response that is complete at once is two messages, with the length that the app did not say."""
    assert call(bridged(hello.app)).messages == HELLO


def test_subclass_calls_super() -> None:
    """A subclass may wrap the constructor and the call, as users of 1.10.10 do."""

    class Traced(WSGIMiddleware):
        def __init__(self, app: Any) -> None:
            super().__init__(app, workers=2)
            self.paths: list[str] = []

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            self.paths.append(scope["path"])
            await super().__call__(scope, receive, send)

    bridge = Traced(hello.app)
    assert call(bridge, None, http_scope(target="/x")).messages == HELLO
    assert bridge.paths == ["/x"]


def test_repr_names_the_app_and_what_goes_on() -> None:
    """A bridge in a debugger says what it wraps."""
    bridge = WSGIMiddleware(hello.app)
    assert repr(bridge) == (
        f"<WSGIMiddleware of {hello.app!r}: Statistics(workers=0, busy=0, queued=0, in_flight=0, shed=0, "
        "disconnected=0, stalled=0)>"
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("workers", 0),
        ("send_queue_size", 0),
        ("request_buffer_bytes", -1),
        ("response_buffer_bytes", -1),
        ("max_request_bytes", -1),
        ("max_queue", -1),
        ("send_timeout", -0.1),
        ("shutdown_timeout", -0.1),
    ],
)
def test_bridge_refuses_an_option_below_its_minimum(option: str, value: float) -> None:
    """The error names the option, its value and the minimum."""
    options: dict[str, Any] = {option: value}
    with pytest.raises(ValueError, match=rf"^{option} is {value}\. It must be [01] or more\.$"):
        WSGIMiddleware(hello.app, **options)


def test_positional_options_are_those_of_1_10_10(bridged: Bridged) -> None:
    """``workers`` and ``send_queue_size`` may be positional, what is new may not."""
    assert call(bridged(hello.app, 3, 5)).messages == HELLO
    with pytest.raises(TypeError):
        WSGIMiddleware(hello.app, 3, 5, 7)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def test_constructor_starts_nothing() -> None:
    """A bridge that is not called has no thread and no loop."""
    before = set(threading.enumerate())
    bridge = WSGIMiddleware(hello.app)
    assert set(threading.enumerate()) == before
    assert bridge.statistics().workers == 0


def test_dropped_bridge_ends_its_threads() -> None:
    """No thread keeps a bridge alive, and its end ends the threads."""
    bridge = WSGIMiddleware(hello.app, workers=1)
    call(bridge)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("a2wsgi-worker-")]
    assert len(threads) == 1
    reference = weakref.ref(bridge)
    del bridge
    gc.collect()
    assert reference() is None
    threads[0].join(BOUND_SECONDS)
    assert not threads[0].is_alive()


def test_unknown_scope_is_a_server_error(bridged: Bridged) -> None:
    """A scope of a type that ASGI does not have is answered by an error that names the type."""
    with pytest.raises(ServerProtocolError, match=r"of type 'carrier\.pigeon'"):
        call(bridged(hello.app), None, {"type": "carrier.pigeon"})


def test_websocket_is_refused_before_its_handshake(bridged: Bridged, caplog: pytest.LogCaptureFixture) -> None:
    """A close before the acceptance has the server answer 403; the log says so."""
    caplog.set_level(logging.INFO, "a2wsgi")
    client = Client(messages=[{"type": "websocket.connect"}])
    response = call(bridged(hello.app), client, {"type": "websocket", "path": "/ws"})
    assert response.messages == [{"type": "websocket.close", "code": 1008, "reason": ""}]
    assert our_log(caplog) == [("INFO", "403 to a WebSocket at '/ws': a WSGI app cannot take it")]


# -- Request in -------------------------------------------------------------------------------------------------------


def test_body_is_read_ahead_before_a_worker_is_taken(bridged: Bridged) -> None:
    """A client that is slow with a small body holds no worker."""

    async def main() -> None:
        bridge = bridged(echo.app, workers=1)
        slow = Client(b"ab", complete=False)
        task = asyncio.ensure_future(answer(bridge, slow, http_scope("POST")))
        await slow.hungry.wait_in_task()
        assert bridge.statistics() == Statistics(0, 0, 0, 1, 0, 0, 0)
        slow.send_body(b"cd", more=False)
        assert (await task).messages == echoed(b"abcd")

    run(main())


def test_slow_upload_holds_no_client_back(bridged: Bridged) -> None:
    """With one worker, a request that comes after a slow upload is answered before it."""

    async def main() -> None:
        bridge = bridged(echo.app, workers=1)
        slow = Client(b"ab", complete=False)
        task = asyncio.ensure_future(answer(bridge, slow, http_scope("POST")))
        await slow.hungry.wait_in_task()
        assert (await answer(bridge, Client(b"quick"), http_scope("POST"))).messages == echoed(b"quick")
        slow.send_body(b"", more=False)
        assert (await task).messages == echoed(b"ab")

    run(main())


@pytest.mark.parametrize("buffer_bytes", [65_536, 10])
def test_worker_is_taken_when_the_buffer_is_full(bridged: Bridged, buffer_bytes: int) -> None:
    """The app starts before the end of a body that fills the buffer, and not one byte earlier."""

    async def main() -> None:
        app = Waiting()
        options: dict[str, Any] = {} if buffer_bytes == 65_536 else {"request_buffer_bytes": buffer_bytes}
        bridge = bridged(app, **options)
        client = Client(b"x" * (buffer_bytes - 1), complete=False)
        task = asyncio.ensure_future(answer(bridge, client, http_scope("POST")))
        await client.hungry.wait_in_task()
        assert bridge.statistics().workers == 0
        client.send_body(b"x")
        await app.entered.wait_in_task()
        app.let.set()
        assert (await task).body == b"done"

    run(main())


def test_app_reads_the_body_as_it_arrives(bridged: Bridged) -> None:
    """The app has the first byte before the last one is sent (a body past the buffer is streamed)."""
    step = Lockstep()
    parts: list[bytes] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with step(1):
            parts.append(environ["wsgi.input"].read(2))
        with step(3):
            parts.append(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return []

    async def main() -> None:
        client = Client(b"ab", complete=False)
        bridge = bridged(app, request_buffer_bytes=2)
        task = asyncio.ensure_future(answer(bridge, client, http_scope("POST")))
        async with step(2):
            client.send_body(b"cd")
            client.send_body(b"ef", more=False)
        await task

    run(main())
    assert parts == [b"ab", b"cdef"]


@pytest.mark.usefixtures("no_timer")
def test_app_starts_at_once_without_a_buffer() -> None:
    """``request_buffer_bytes=0`` takes a worker before anything is received."""

    async def main() -> None:
        app = Waiting()
        client = Client(complete=False)
        task = asyncio.ensure_future(answer(WSGIMiddleware(app, request_buffer_bytes=0), client, http_scope("POST")))
        await app.entered.wait_in_task()
        app.let.set()
        assert (await task).body == b"done"

    run(main())


@pytest.mark.parametrize("parts", [(b"abc", b"def"), (b"a" * 70_000, b"b" * 70_000)])
def test_body_is_the_same_without_a_buffer(bridged: Bridged, parts: tuple[bytes, ...]) -> None:
    """``request_buffer_bytes=0`` loses nothing."""
    bridge = bridged(echo.app, request_buffer_bytes=0)
    assert call(bridge, Client(*parts), http_scope("POST")).body == b"".join(parts)


@pytest.mark.usefixtures("no_timer")
def test_expect_100_is_asked_for_by_the_first_read(bridged: Bridged) -> None:
    """RFC 9110 §10.1.1: nothing is received for a request that expects 100-continue until the app reads."""
    step = Lockstep()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with step(1):
            pass
        with step(3):
            pass
        body: bytes = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return [body]

    async def main() -> None:
        client = Client(b"body")
        scope = http_scope("POST", headers=[(b"expect", b"100-Continue"), (b"content-length", b"4")])
        task = asyncio.ensure_future(answer(bridged(app), client, scope))
        async with step(2):
            assert client.receives == 0
        assert (await task).messages == echoed(b"body")
        assert client.receives >= 1

    run(main())


@pytest.mark.usefixtures("quick_timer")
def test_expect_100_is_not_asked_for_before_the_head_is_sent(bridged: Bridged) -> None:
    """An app that answers by the head alone has nothing received before ``send()`` of the start has returned."""
    received_at_start: list[int] = []

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 1:
                for _round in range(10):
                    await asyncio.sleep(0.005)  # the timer ticks meanwhile, and must not receive
                received_at_start.append(client.receives)

        client = Client(on_send=on_send, complete=False)
        scope = http_scope("POST", headers=[(b"expect", b"100-continue"), (b"content-length", b"4")])
        assert (await answer(bridged(hello.app), client, scope)).messages == HELLO

    run(main())
    assert received_at_start == [0]


@pytest.mark.usefixtures("quick_timer")
def test_expect_100_client_is_watched_once_it_is_answered(bridged: Bridged) -> None:
    """After the head the client sends its body or leaves, and is heard."""
    app = endless()

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 2:
                client.leave()

        client = Client(on_send=on_send, complete=False)
        scope = http_scope("POST", headers=[(b"expect", b"100-continue"), (b"content-length", b"4")])
        await answer(bridged(app), client, scope)

    run(main())
    app.closed.wait()
    assert app.closes == 1


def test_spool_takes_the_whole_body_first() -> None:
    """``spool_request=True`` takes no worker before the end of the body; past the buffer it is in a file."""
    kinds: list[type] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        kinds.append(type(environ["wsgi.input"]))
        assert environ["CONTENT_LENGTH"] == "12"
        return echo.app(environ, start_response)

    async def main() -> None:
        bridge = WSGIMiddleware(app, request_buffer_bytes=4, spool_request=True)
        client = Client(b"abcd", b"efgh", complete=False)
        task = asyncio.ensure_future(answer(bridge, client, http_scope("POST")))
        await client.hungry.wait_in_task()
        assert bridge.statistics().workers == 0
        client.send_body(b"ijkl", more=False)
        assert (await task).messages == echoed(b"abcdefghijkl")

    run(main())
    assert kinds == [io.BufferedRandom]


def test_spool_within_the_buffer_is_no_file(bridged: Bridged) -> None:
    """A small body stays in memory."""
    app = Recording()
    call(bridged(app, spool_request=True), Client(b"abc"), http_scope("POST"))
    assert isinstance(app.environ["wsgi.input"], io.BytesIO)


def test_spool_closes_its_file_after_the_request(bridged: Bridged) -> None:
    """The temporary file is closed as soon as the app is through."""
    app = Recording()
    call(bridged(app, request_buffer_bytes=0, spool_request=True), Client(b"abc"), http_scope("POST"))
    assert app.environ["wsgi.input"].closed


def test_spool_closes_its_file_when_the_client_left() -> None:
    """A client that leaves in the middle of an upload leaves no file, and the app's first read tells it."""
    errors: list[BaseException] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with pytest.raises(ClientDisconnected) as caught:
            environ["wsgi.input"].read()
        errors.append(caught.value)
        raise caught.value

    client = Client(messages=[body_message(b"abc", more=True), {"type": "http.disconnect"}])
    response = call(WSGIMiddleware(app, request_buffer_bytes=0, spool_request=True), client, http_scope("POST"))
    assert response.messages == []
    assert len(errors) == 1


def test_spool_closes_its_file_when_the_request_is_shed(bridged: Bridged) -> None:
    """A spooled request that finds no place in the queue leaves no file open."""

    async def main() -> None:
        app = Waiting()
        bridge = bridged(app, workers=1, max_queue=0, request_buffer_bytes=0, spool_request=True)
        first = asyncio.ensure_future(answer(bridge, Client(b"abc"), http_scope("POST")))
        await app.entered.wait_in_task()
        assert (await answer(bridge, Client(b"def"), http_scope("POST"))).status == 503
        gc.collect()
        app.let.set()
        await first

    run(main())


def test_spool_closes_its_file_when_the_request_is_cancelled(bridged: Bridged) -> None:
    """A request that is cancelled in the middle of an upload leaves no file open."""

    async def main() -> None:
        client = Client(b"abc", complete=False)
        bridge = bridged(hello.app, request_buffer_bytes=0, spool_request=True)
        task = asyncio.ensure_future(answer(bridge, client, http_scope("POST"), fails=asyncio.CancelledError))
        await client.hungry.wait_in_task()
        task.cancel()
        assert (await task).messages == []

    run(main())


def test_spool_file_that_cannot_be_closed_harms_nobody(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full says so again when the file is closed: the worker lives, and the response is whole."""

    class Full(io.BytesIO):
        def close(self) -> None:
            super().close()
            raise OSError("No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    bridge = bridged(echo.app, workers=1, request_buffer_bytes=0, spool_request=True)
    for _ in range(2):
        assert call(bridge, Client(b"abc"), http_scope("POST")).messages == echoed(b"abc")


@pytest.mark.parametrize(
    ("parts", "headers", "options", "length", "encoding"),
    [
        ((b"",), [], {}, None, None),
        ((b"abc",), [], {}, "3", None),
        ((b"abc",), [(b"content-length", b"3")], {}, "3", None),
        ((b"abc", b"de"), [(b"transfer-encoding", b"chunked")], {}, "5", None),
        ((b"",), [(b"transfer-encoding", b"chunked")], {}, "0", None),
        ((b"abc", b"de"), [(b"transfer-encoding", b"chunked")], {"request_buffer_bytes": 0}, None, "chunked"),
        (
            (b"abc", b"de"),
            [(b"transfer-encoding", b"chunked")],
            {"request_buffer_bytes": 0, "spool_request": True},
            "5",
            None,
        ),
    ],
)
def test_complete_body_gets_a_length(  # noqa: PLR0917  # a fixture, and the columns of the table
    bridged: Bridged,
    parts: tuple[bytes, ...],
    headers: list[tuple[bytes, bytes]],
    options: dict[str, Any],
    length: str | None,
    encoding: str | None,
) -> None:
    """Django sees no chunked body without ``CONTENT_LENGTH``; a request without a body gets none."""
    app = Recording()
    call(bridged(app, **options), Client(*parts), http_scope("POST", "/", headers))
    assert app.environ.get("CONTENT_LENGTH") == length
    assert app.environ.get("HTTP_TRANSFER_ENCODING") == encoding


@pytest.mark.usefixtures("no_timer")
def test_short_request_receives_its_body_only(bridged: Bridged) -> None:
    """A request that is over before the timer ticks never asks for what comes after its body."""
    client = Client()
    call(bridged(hello.app), client)
    assert client.receives == 1


@pytest.mark.usefixtures("quick_timer")
def test_receive_has_one_consumer_while_the_app_reads(bridged: Bridged) -> None:
    """The timer starts no second consumer beside the one that brings the body (the driver looks for overlaps)."""
    rounds = 20

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        data = b""
        for _ in range(rounds):
            wanted.set()
            data += environ["wsgi.input"].read(1)
        start_response("200 OK", [])
        return [data]

    wanted = Signal("the app reads")

    async def main() -> None:
        client = Client(complete=False)
        bridge = bridged(app, request_buffer_bytes=0)
        task = asyncio.ensure_future(answer(bridge, client, http_scope("POST")))
        for number in range(rounds):
            await asyncio.sleep(0.005)  # a tick of the timer, at the most inconvenient time: while receive() waits
            client.send_body(b"x", more=number < rounds - 1)
        assert (await task).body == b"x" * rounds
        assert client.receives <= rounds + 1

    run(main())


@pytest.mark.usefixtures("quick_timer")
def test_server_that_repeats_the_end_is_asked_once_a_tick(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp-asgi repeats an empty body for ever without waiting: nothing spins."""
    ticks = 0
    ticks_at_receive: list[int] = []
    enough = Signal("receive() was called often enough")
    tick = _runtime.Runtime._tick

    def counted(runtime: _runtime.Runtime) -> None:
        nonlocal ticks
        ticks += 1
        tick(runtime)

    monkeypatch.setattr(_runtime.Runtime, "_tick", counted)

    class Repeating(Client):
        async def receive(self) -> Message:
            ticks_at_receive.append(ticks)
            if len(ticks_at_receive) == 6:
                enough.set()
            return await super().receive()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        enough.wait()
        return hello.app(environ, start_response)

    assert call(bridged(app), Repeating(repeats_end=True)).messages == HELLO
    assert all(earlier < later for earlier, later in itertools.pairwise(ticks_at_receive))


def test_unread_body_is_bounded() -> None:
    """A body that the app does not read is received up to the buffer and one message, and no further."""

    async def main() -> None:
        app = Waiting()
        client = Client(*[b"x" * 1000] * 100)
        bridge = WSGIMiddleware(app, request_buffer_bytes=5000)
        task = asyncio.ensure_future(answer(bridge, client, http_scope("POST")))
        await app.entered.wait_in_task()
        app.let.set()
        assert (await task).body == b"done"
        assert client.receives <= 6

    run(main())


@pytest.mark.usefixtures("no_timer")
def test_body_that_ends_in_a_disconnect_never_looks_complete() -> None:
    """What came is read, then ``read()`` raises, and each time again."""
    read: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        read.append(stream.read(4))
        client.leave()
        for _ in range(2):
            try:
                read.append(stream.read())
            except ClientDisconnected as error:
                read.append((type(error), error.reason))
        raise ClientDisconnected("as an app does that does not catch it")

    client = Client(b"abcd", complete=False)
    scope = http_scope("POST", headers=[(b"content-length", b"10")])
    response = call(WSGIMiddleware(app, request_buffer_bytes=4), client, scope)
    assert response.messages == []
    gone = (ClientDisconnected, "the server sent http.disconnect before the body was complete")
    assert read == [b"abcd", gone, gone]


def test_body_shorter_than_its_length_never_looks_complete() -> None:
    """Some servers (tsuno) say that a truncated body is complete: its ``Content-Length`` knows better."""
    errors: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except ClientDisconnected as error:
            errors.append(error.reason)
        start_response("400 Bad Request", [])
        return []

    scope = http_scope("POST", headers=[(b"content-length", b"10")])
    response = call(WSGIMiddleware(app), Client(b"abc"), scope)
    assert response.messages == messages_of(400, [(b"content-length", b"0")])
    assert errors == ["its body ended after 3 of 10 bytes"]


def test_receive_that_raises_ends_the_body() -> None:
    """A server that tells of a lost client by an exception is understood."""
    errors: list[str] = []

    class Broken(Client):
        async def receive(self) -> Message:
            if self.receives:
                self.receives += 1
                raise ConnectionResetError("by peer")
            return await super().receive()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except ClientDisconnected as error:
            errors.append(error.reason)
        raise ClientDisconnected("so it is")

    client = Broken(b"abcd", complete=False)
    bridge = WSGIMiddleware(app, request_buffer_bytes=4)
    assert call(bridge, client, http_scope("POST")).messages == []
    assert errors == ["receive() raised ConnectionResetError('by peer')"]
    assert bridge.statistics().disconnected == 1


def test_max_request_bytes_lets_the_limit_pass(bridged: Bridged) -> None:
    """A body of exactly the limit is no error."""
    bridge = bridged(echo.app, max_request_bytes=4)
    assert call(bridge, Client(b"ab", b"cd"), http_scope("POST")).messages == echoed(b"abcd")


TOO_LARGE = messages_of(
    413,
    [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"22")],
    b"413 Content Too Large\n",
)


@pytest.mark.usefixtures("no_timer")
def test_max_request_bytes_refuses_a_length_unread(bridged: Bridged, caplog: pytest.LogCaptureFixture) -> None:
    """A ``Content-Length`` past the limit is answered 413 before anything is received; the app is not run."""
    caplog.set_level(logging.INFO, "a2wsgi")
    app = Recording()
    client = Client(complete=False)
    scope = http_scope("POST", headers=[(b"content-length", b"5")])
    assert call(bridged(app, max_request_bytes=4), client, scope).messages == TOO_LARGE
    assert (client.receives, app.environs) == (0, [])
    assert our_log(caplog) == [("INFO", f"413 to a request: {RequestTooLarge(4)}")]


def test_max_request_bytes_refuses_a_body_that_is_read_ahead(bridged: Bridged) -> None:
    """A body without a length that grows past the limit is answered 413; the app is not run."""
    app = Recording()
    assert call(bridged(app, max_request_bytes=4), Client(b"abc", b"de"), http_scope("POST")).messages == TOO_LARGE
    assert app.environs == []


def test_max_request_bytes_refuses_a_body_that_is_spooled(bridged: Bridged) -> None:
    """The limit holds for what goes into the file, which is closed."""
    bridge = bridged(echo.app, max_request_bytes=4, request_buffer_bytes=2, spool_request=True)
    assert call(bridge, Client(b"abc", b"de"), http_scope("POST")).messages == TOO_LARGE


def test_max_request_bytes_refuses_a_body_that_the_app_reads() -> None:
    """The app's read raises `RequestTooLarge`, and the client gets a 413 since it got no head."""
    errors: list[BaseException] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except RequestTooLarge as error:
            errors.append(error)
            raise
        return []

    bridge = WSGIMiddleware(app, max_request_bytes=4, request_buffer_bytes=2)
    assert call(bridge, Client(b"abc", b"de"), http_scope("POST")).messages == TOO_LARGE
    assert [(type(error), str(error)) for error in errors] == [(RequestTooLarge, str(RequestTooLarge(4)))]


def test_max_request_bytes_fails_the_app_after_its_head() -> None:
    """Once the head is sent there is no 413: the error reaches the server, and the response stays unfinished."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"first"
        head_sent.wait()
        clients[0].send_body(b"cde", more=False)
        yield environ["wsgi.input"].read()

    head_sent = Signal("the head was sent")
    clients: list[Client] = []

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 2:
                head_sent.set()

        client = Client(b"ab", complete=False, on_send=on_send)
        clients.append(client)
        bridge = WSGIMiddleware(app, max_request_bytes=4, request_buffer_bytes=2)
        response = await answer(bridge, client, http_scope("POST"), fails=RequestTooLarge)
        assert response.messages == messages_of(200, [], b"first", b"")[:-1]

    run(main())


# -- The app runs -----------------------------------------------------------------------------------------------------


def test_environ_is_whole() -> None:
    """An environ has what PEP 3333 wants, what frameworks read, and what a2wsgi adds, and nothing else."""
    app = Recording()
    scope = http_scope("POST", "/a%20b/%E2%82%AC?q=1&r=%20", [(b"x-one", b"1"), (b"content-type", b"text/plain")])
    call(WSGIMiddleware(app), Client(b"abc"), scope)
    environ = app.environ
    assert dict(environ.pop("asgi.scope")) == scope
    assert environ.pop("a2wsgi.queued_seconds") >= 0
    assert environ.pop("wsgi.errors") is sys.stderr
    disconnected, stream = environ.pop("a2wsgi.disconnected"), environ.pop("wsgi.input")
    assert (disconnected.is_set(), disconnected.wait(0)) == (False, False)
    assert stream.read() == b"abc"
    assert environ == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/\xe2\x82\xac",
        "QUERY_STRING": "q=1&r=%20",
        "REQUEST_URI": "/a%20b/%E2%82%AC?q=1&r=%20",
        "RAW_URI": "/a%20b/%E2%82%AC?q=1&r=%20",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "54321",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "3",
        "HTTP_HOST": "testserver",
        "HTTP_X_ONE": "1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }


def test_errors_is_the_stderr_of_the_request(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """``wsgi.errors`` is what ``sys.stderr`` is when the request comes, not what it was when the bridge was made."""
    app = Recording()
    bridge = bridged(app)
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    call(bridge)
    assert app.environ["wsgi.errors"] is stderr


def test_workers_start_on_demand(bridged: Bridged) -> None:
    """There are as many threads as were needed at a time, and the idle one is taken again."""

    async def main() -> None:
        app = Waiting()
        bridge = bridged(app)
        first = asyncio.ensure_future(answer(bridge))
        await app.entered.wait_in_task()
        assert bridge.statistics() == Statistics(1, 1, 0, 1, 0, 0, 0)
        app.let.set()
        await first
        for _ in range(5):
            await answer(bridge)
        assert bridge.statistics() == Statistics(1, 0, 0, 0, 0, 0, 0)

    run(main())


class Barrier:
    """An app that answers only when ``parties`` requests are in it at the same time."""

    def __init__(self, parties: int) -> None:
        self.barrier = threading.Barrier(parties, timeout=BOUND_SECONDS)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.barrier.wait()
        return hello.app(environ, start_response)


def test_workers_are_forty_by_default(bridged: Bridged) -> None:
    """Forty requests that block are in the app at the same time; the forty-first waits."""

    async def main() -> None:
        app = Waiting()
        bridge = bridged(app)
        tasks = [asyncio.ensure_future(answer(bridge)) for _ in range(41)]
        await until(lambda: len(app.threads) == 40)
        assert bridge.statistics() == Statistics(40, 40, 1, 41, 0, 0, 0)
        app.let.set()
        await asyncio.gather(*tasks)
        assert len(app.threads) == 41
        assert len(set(app.threads)) == 40

    run(main())


def test_workers_default_is_taken_from_the_environment(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """``A2WSGI_WORKERS`` serves those whose framework makes the bridge."""
    monkeypatch.setenv("A2WSGI_WORKERS", "1")
    app = Recording()
    call(bridged(app))
    assert app.environ["wsgi.multithread"] is False


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "²"])
def test_workers_default_of_the_environment_is_checked(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """What is no number of workers is an error that says so."""
    monkeypatch.setenv("A2WSGI_WORKERS", text)
    with pytest.raises(ValueError, match=r"^The environment variable A2WSGI_WORKERS is '"):
        WSGIMiddleware(hello.app)


def test_workers_argument_wins_over_the_environment(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says a number means it."""
    monkeypatch.setenv("A2WSGI_WORKERS", "many")
    assert call(bridged(hello.app, workers=2)).messages == HELLO


def test_idle_workers_end(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without work ends after 10 s, which are fewer here."""
    assert _workers.IDLE_SECONDS == 10
    monkeypatch.setattr(_workers, "IDLE_SECONDS", 0.01)

    async def main() -> None:
        bridge = bridged(hello.app)
        await answer(bridge)
        await until(lambda: bridge.statistics().workers == 0)
        assert (await answer(bridge)).messages == HELLO

    run(main())


def test_single_worker_is_one_thread_that_never_ends(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``workers=1`` every request runs on the same OS thread, also after idleness and after a shutdown."""
    monkeypatch.setattr(_workers, "IDLE_SECONDS", 0.0)
    app = Counting([b"x"])
    bridge = bridged(app, workers=1)
    for _ in range(3):
        call(bridge)
        lifespan = Client(messages=[{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        call(bridge, lifespan, {"type": "lifespan"})
    assert len(app.threads) == 1
    assert app.closes == 3


@pytest.mark.parametrize(("workers", "multithread"), [(1, False), (2, True)])
def test_multithread_tells_whether_there_are_several_workers(
    bridged: Bridged, workers: int, *, multithread: bool
) -> None:
    """``wsgi.multithread`` is false for one worker."""
    app = Recording()
    call(bridged(app, workers=workers))
    assert app.environ["wsgi.multithread"] is multithread


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


def test_context_of_the_request_is_one_from_call_to_close(bridged: Bridged) -> None:
    """What the ASGI side set is seen by the app, its iterable and ``close()``; what they set stays among them."""
    seen: list[str] = []

    class Chunks:
        def __init__(self) -> None:
            seen.append(variable.get())
            self.token = variable.set("of the app")
            self.chunks = iter([b"x", b"y"])

        def __iter__(self) -> Iterator[bytes]:
            return self

        def __next__(self) -> bytes:
            seen.append(variable.get())
            return next(self.chunks)

        def close(self) -> None:
            seen.append(variable.get())
            variable.reset(self.token)
            seen.append(variable.get())

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Chunks()

    async def main() -> None:
        variable.set("of the server")
        await answer(bridged(app))
        assert variable.get() == "of the server"

    run(main())
    inside = "of the app"
    assert seen == ["of the server", inside, inside, inside, inside, "of the server"]


@pytest.mark.parametrize("started", [False, True])
def test_context_says_of_an_error_that_it_was_seen(bridged: Bridged, *, started: bool) -> None:
    """A variable that the app's side has set to the error goes out with it, as error reporters need; no other does."""
    mark: contextvars.ContextVar[BaseException] = contextvars.ContextVar("mark")

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        if started:
            start_response("200 OK", [])
            yield b"x"
        error = ArithmeticError("boom")
        mark.set(error)
        variable.set("of the app")
        raise error

    async def main() -> None:
        variable.set("of the server")
        response = await answer(bridged(app), fails=ArithmeticError)
        assert mark.get() is response.raised
        assert variable.get() == "of the server"

    run(main())


def test_error_that_is_only_logged_is_logged_where_it_was_seen() -> None:
    """An error that nobody is there to raise to, as its client has left, is logged where a variable says of it so."""
    mark: contextvars.ContextVar[BaseException | None] = contextvars.ContextVar("mark", default=None)
    logged: list[bool] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"x"
        error = ArithmeticError("boom")
        mark.set(error)
        raise error

    def take(record: logging.LogRecord) -> bool:
        """Look at the record, and let nobody keep it: its traceback holds the bridge."""
        logged.append(record.exc_info is not None and record.exc_info[1] is mark.get())
        return False

    async def on_send(count: int, message: Message) -> None:
        if count == 1:  # the app fails, and then its client leaves, while the head is on its way
            await until(lambda: bridge.statistics().busy == 0)
            client.leave()
            await until(lambda: bridge.statistics().disconnected == 1)

    bridge = WSGIMiddleware(app)
    client = Client(on_send=on_send)
    logging.getLogger("a2wsgi").addFilter(take)
    try:
        call(bridge, client)
    finally:
        logging.getLogger("a2wsgi").removeFilter(take)
    assert logged == [True]


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


def test_queued_chunks_are_joined_into_one_message(bridged: Bridged) -> None:
    """What has gathered while the server was busy is one message."""
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

        response = await answer(bridged(app), Client(on_send=on_send))
        assert [message["body"] for message in response.messages[1:4]] == [b"first", b"secondthirdfourth", b"fifth"]
        assert response.complete

    run(main())


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

    monkeypatch.delattr(_handoff.ToLoop, "put")  # one by one they would be sent so, and may be two messages
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
    original = _handoff.ToLoop.put

    def noting(stream: _handoff.ToLoop, chunk: bytes) -> None:
        put.append(chunk)
        original(stream, chunk)

    monkeypatch.setattr(_handoff.ToLoop, "put", noting)
    app = Counting(chunks, headers=[("Content-Length", length)])
    assert call(WSGIMiddleware(app)).body == b"hello"[: int(length)]
    assert put == written
    assert app.closes == 1


def test_finished_app_wakes_the_loop_once(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Head, body and end of a complete response travel together, with the news that the worker is through."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wakes = 0
        call_soon_threadsafe = loop.call_soon_threadsafe
        sent = threading.Event()

        def counting(*args: Any, **kwargs: Any) -> Any:
            nonlocal wakes
            wakes += 1
            return call_soon_threadsafe(*args, **kwargs)

        def discard(_: _incoming.Incoming) -> None:
            # The last that the worker does before it is through. Had it woken the loop already, this would be seen.
            assert not sent.wait(0.05)

        async def on_send(_: int, __: Message) -> None:
            sent.set()

        monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
        monkeypatch.setattr(_incoming.Incoming, "discard", discard)
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
        task = asyncio.ensure_future(answer(bridge, client))
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
    assert f"gave a chunk of type {type(chunk).__name__}. PEP 3333 wants bytes." in str(response.raised)


# -- Endings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ValueError, OSError, Exception])
@pytest.mark.parametrize("place", ["call", "after the head", "first chunk"])
def test_failed_app_raises_the_very_same_error(bridged: Bridged, kind: type[Exception], place: Place) -> None:
    """Before anything is sent the server gets the exception object itself, and answers as it likes."""
    error = kind("of the app")
    response = call(bridged(Raising(error, place)), fails=kind)
    assert response.raised is error
    assert response.messages == []


def test_failed_app_leaves_its_response_unfinished() -> None:
    """After the head there is no final message: the client sees a broken response, not a short one."""
    error = ValueError("in the middle")
    response = call(WSGIMiddleware(Raising(error, "second chunk")), fails=ValueError)
    assert response.raised is error
    assert response.messages == messages_of(200, [], b"first", b"")[:-1]


@pytest.mark.parametrize("kind", [StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
@pytest.mark.parametrize("place", ["call", "after the head"])
def test_failed_app_spares_the_loop(bridged: Bridged, kind: type[BaseException], place: Place) -> None:
    """What a coroutine cannot raise, or what would end the server, is wrapped; its cause is the error itself."""
    error = kind("of the app")
    response = call(bridged(Raising(error, place)), fails=AppError)
    assert type(response.raised) is AppError
    assert response.raised.__cause__ is error
    assert response.messages == []


class Ends:
    """A request that ends in one of four ways while its app is at work, and the same bridge afterwards.

    The app of `path` "/" sends ``first`` and runs `then` when the request is over.
    """

    def __init__(self, how: str, then: Callable[[Environ, Callable[[bytes], object]], Iterable[bytes]]) -> None:
        self.how = how
        self.then = then
        self.closed = Signal("the iterable was closed")
        timeout = 0.05 if how == "stalled" else 300
        self.bridge = WSGIMiddleware(self.app, workers=1, request_buffer_bytes=4, send_timeout=timeout)
        self.response: Any = None

    def app(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/hello":
            return hello.app(environ, start_response)
        write = start_response("200 OK", [])
        return self.chunks(environ, write)

    def chunks(self, environ: Environ, write: Callable[[bytes], object]) -> Iterator[bytes]:
        assert environ["wsgi.input"].read(4) == b"part"  # unread, it would fill the buffer and hide the disconnect
        try:
            yield b"first"
            assert environ["a2wsgi.disconnected"].wait(BOUND_SECONDS)
            assert environ["a2wsgi.disconnected"].is_set()
            yield from self.then(environ, write)
        finally:
            self.closed.set()

    async def on_send(self, number: int, _: Message) -> None:
        if number != 2:
            return
        if self.how == "left":
            self.client.leave()
        elif self.how == "send failed":
            raise ConnectionResetError("by peer")
        elif self.how == "cancelled":
            self.task.cancel()
        elif self.how == "stalled":
            await asyncio.get_running_loop().create_future()

    async def happen(self) -> None:
        fails = {"send failed": ConnectionResetError, "cancelled": asyncio.CancelledError}.get(self.how)
        self.client = Client(b"part", complete=False, on_send=self.on_send)
        self.task = asyncio.ensure_future(answer(self.bridge, self.client, http_scope("POST"), fails=fails))
        self.response = await self.task
        await self.closed.wait_in_task()
        assert (await answer(self.bridge, None, http_scope(target="/hello"))).messages == HELLO


ENDINGS = pytest.mark.parametrize("how", ["left", "send failed", "cancelled", "stalled"])


@ENDINGS
@pytest.mark.usefixtures("quick_timer")
def test_ending_closes_the_iterable_before_its_next_chunk(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """The chunk in hand is the last that the app was asked for; the worker is free again."""
    caplog.set_level(logging.INFO, "a2wsgi")
    asked: list[str] = []

    def then(_: Environ, __: object) -> Iterable[bytes]:
        yield b"second"
        asked.append("third")
        yield b"third"

    ends = Ends(how, then)
    run(ends.happen())
    assert asked == []
    assert not ends.response.complete
    left = int(how in {"left", "send failed"})  # ASGI HTTP 2.4: an OSError of send() says that the client has left
    assert ends.bridge.statistics() == Statistics(1, 0, 0, 0, 0, left, int(how == "stalled"))
    stalled = ("WARNING", "Request given up: the client took nothing of its response for 0.05 s")
    assert our_log(caplog) == ([stalled] if how == "stalled" else [])


@pytest.mark.usefixtures("quick_timer")
def test_ending_stops_an_app_that_only_yields_nothing(bridged: Bridged) -> None:
    """An empty chunk is a sign of life, and no way to run on without a client."""
    app = Counting(itertools.chain([b"first"], itertools.repeat(b"")))

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 2:
                client.leave()

        client = Client(on_send=on_send)
        assert (await answer(bridged(app), client)).body == b"first"

    run(main())
    app.closed.wait()
    assert app.closes == 1


@ENDINGS
@pytest.mark.usefixtures("quick_timer")
@pytest.mark.parametrize("verb", ["write", "read"])
def test_ending_is_told_by_the_next_write_and_read(how: str, verb: str) -> None:
    """Both raise `ClientDisconnected`, an `OSError`, now and each time again."""
    errors: list[ClientDisconnected] = []

    def then(environ: Environ, write: Callable[[bytes], object]) -> Iterable[bytes]:
        for _ in range(2):
            try:
                write(b"x") if verb == "write" else environ["wsgi.input"].read(1)
            except OSError as error:
                assert isinstance(error, ClientDisconnected)  # noqa: PT017  # as an app would
                errors.append(error)
        return []

    ends = Ends(how, then)
    run(ends.happen())
    reason = {
        "left": "the server sent http.disconnect before the body was complete",
        "send failed": "the server raised ConnectionResetError('by peer')",
        "cancelled": "the server cancelled the request",
        "stalled": "it took nothing of its response for 0.05 s",
    }[how]
    assert [error.reason for error in errors] == [reason, reason]


@pytest.mark.usefixtures("quick_timer")
def test_call_waits_for_an_app_whose_client_left() -> None:
    """A worker that is still in app code is waited for; the server is told when it is out."""

    async def main() -> None:
        app = Waiting()
        bridge = WSGIMiddleware(app)
        client = Client()
        task = asyncio.ensure_future(answer(bridge, client))
        await app.entered.wait_in_task()
        client.leave()
        await until(lambda: bridge.statistics().disconnected == 1)
        assert not task.done()
        app.let.set()
        assert (await task).messages == []

    run(main())


@pytest.mark.usefixtures("quick_timer")
@pytest.mark.parametrize("when", ["at work", "client left", "send failed", "in close"])
def test_cancelled_call_does_not_wait_for_the_app(when: str) -> None:
    """A server that cancels a request has its task back at once, whatever the request was waiting for."""
    let = Signal("the app was let go")
    inside = Signal("the app waits")
    over = Signal("the app is out")

    class Chunks:
        def __init__(self) -> None:
            self.left = [b"first"]

        def __iter__(self) -> Iterator[bytes]:
            return self

        def __next__(self) -> bytes:
            if self.left:
                return self.left.pop()
            if when != "in close":
                self.wait()
            raise StopIteration

        def wait(self) -> None:
            inside.set()
            let.wait()

        def close(self) -> None:
            if when == "in close":
                self.wait()
            over.set()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Chunks()

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if when == "send failed" and number == 2:
                raise OSError

        bridge = WSGIMiddleware(app)
        client = Client(on_send=on_send)
        task = asyncio.ensure_future(answer(bridge, client, fails=asyncio.CancelledError))
        await inside.wait_in_task()
        if when == "client left":
            client.leave()
            await until(lambda: bridge.statistics().disconnected == 1)
        elif when == "in close":
            await until(lambda: len(client.sent) > 1 and not client.sent[-1]["more_body"])
        else:
            await until(lambda: client.sends == 2)
        task.cancel()
        await asyncio.wait_for(asyncio.wait((task,)), BOUND_SECONDS)
        assert task.done()
        assert not over.is_set()
        let.set()
        await over.wait_in_task()
        await task

    run(main())


def test_disconnect_is_noticed_within_a_second(caplog: pytest.LogCaptureFixture) -> None:
    """An app that says nothing learns of it from ``a2wsgi.disconnected``; the log has it at DEBUG."""
    assert _runtime.TICK_SECONDS < 1
    caplog.set_level(logging.DEBUG, "a2wsgi")
    seen: list[bool] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ["a2wsgi.disconnected"].is_set())
        seen.append(environ["a2wsgi.disconnected"].wait(0))
        client.leave()
        seen.append(environ["a2wsgi.disconnected"].wait(BOUND_SECONDS))
        seen.append(environ["a2wsgi.disconnected"].is_set())
        return hello.app(environ, start_response)

    client = Client()
    assert call(WSGIMiddleware(app), client).messages == []
    assert seen == [False, False, True, True]
    assert our_log(caplog) == [("DEBUG", "The client left: the server sent http.disconnect")]


def test_disconnected_ends_the_wait_when_the_request_is_over(bridged: Bridged) -> None:
    """A thread of the app that waits for the client to leave is let go, and told that it did not."""
    told: list[bool] = []
    threads: list[threading.Thread] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        threads.append(threading.Thread(target=lambda: told.append(environ["a2wsgi.disconnected"].wait())))
        threads[0].start()
        return hello.app(environ, start_response)

    call(bridged(app))
    threads[0].join(BOUND_SECONDS)
    assert told == [False]


@pytest.mark.usefixtures("quick_timer")
def test_ignored_disconnect_sets_the_event_and_stops_nothing() -> None:
    """``ignore_disconnect=True`` goes on regardless, since many servers report a half-closed connection so."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        client.leave()
        assert environ["a2wsgi.disconnected"].wait(BOUND_SECONDS)
        return [b"all ", b"the ", b"same"]

    client = Client()
    bridge = WSGIMiddleware(app, ignore_disconnect=True)
    response = call(bridge, client)
    assert response.messages == messages_of(200, [(b"content-length", b"12")], b"all the same")


@pytest.mark.usefixtures("quick_timer")
def test_ignored_disconnect_is_counted_once() -> None:
    """Though ``send()``, too, says that the client has left."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        client.leave()
        assert environ["a2wsgi.disconnected"].wait(BOUND_SECONDS)
        return [b"all the same"]

    async def on_send(_: int, __: Message) -> None:
        raise ConnectionResetError("by peer")

    client = Client(on_send=on_send)
    bridge = WSGIMiddleware(app, ignore_disconnect=True)
    call(bridge, client, fails=ConnectionResetError)
    assert bridge.statistics().disconnected == 1


@pytest.mark.parametrize("buffer_bytes", [65_536, 1])
def test_ignored_disconnect_still_cuts_the_body(bridged: Bridged, buffer_bytes: int) -> None:
    """A truncated body raises, whatever is ignored."""
    errors: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except ClientDisconnected as error:
            errors.append(error.reason)
        start_response("400 Bad Request", [])
        return []

    client = Client(messages=[body_message(b"abc", more=True), {"type": "http.disconnect"}])
    bridge = bridged(app, ignore_disconnect=True, request_buffer_bytes=buffer_bytes)
    assert call(bridge, client, http_scope("POST")).messages == messages_of(400, [(b"content-length", b"0")])
    assert errors == ["the server sent http.disconnect before the body was complete"]


@pytest.mark.usefixtures("quick_timer")
@pytest.mark.parametrize("how", ["left", "cancelled"])
def test_request_that_ends_in_the_queue_never_enters_the_app(bridged: Bridged, how: str) -> None:
    """A worker that becomes free has nothing to do with it."""

    async def main() -> None:
        app = Waiting()
        bridge = bridged(app, workers=1)
        first = asyncio.ensure_future(answer(bridge))
        await app.entered.wait_in_task()
        client = Client()
        queued = asyncio.ensure_future(
            answer(bridge, client, fails=asyncio.CancelledError if how == "cancelled" else None)
        )
        await until(lambda: bridge.statistics().queued == 1)
        if how == "left":
            client.leave()
        else:
            queued.cancel()
        assert (await queued).messages == []
        assert bridge.statistics() == Statistics(1, 1, 0, 1, 0, int(how == "left"), 0)
        app.let.set()
        await first
        await answer(bridge)
        assert len(app.threads) == 2

    run(main())


OVERLOADED = messages_of(
    503,
    [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"24"), (b"retry-after", b"1")],
    b"503 Service Unavailable\n",
)


@pytest.mark.parametrize("max_queue", [0, 2])
def test_queue_that_is_full_sheds_the_next(bridged: Bridged, max_queue: int, caplog: pytest.LogCaptureFixture) -> None:
    """With ``max_queue`` waiting the next is answered 503 at once; 0 never queues."""
    caplog.set_level(logging.INFO, "a2wsgi")

    async def main() -> None:
        app = Waiting()
        bridge = bridged(app, workers=2, max_queue=max_queue)
        tasks = [asyncio.ensure_future(answer(bridge)) for _ in range(2 + max_queue)]
        await until(lambda: len(app.threads) == 2)
        assert (await answer(bridge)).messages == OVERLOADED
        assert bridge.statistics() == Statistics(2, 2, max_queue, 2 + max_queue, 1, 0, 0)
        app.let.set()
        assert [response.body for response in await asyncio.gather(*tasks)] == [b"done"] * (2 + max_queue)
        assert bridge.statistics() == Statistics(2, 0, 0, 0, 1, 0, 0)

    run(main())
    assert our_log(caplog) == [("INFO", f"503 to a request: {max_queue} others wait for a worker")]


def test_queue_is_unbounded_by_default(bridged: Bridged) -> None:
    """Nobody is shed who did not ask for it."""

    async def main() -> None:
        app = Waiting()
        bridge = bridged(app, workers=1)
        tasks = [asyncio.ensure_future(answer(bridge)) for _ in range(200)]
        await until(lambda: bridge.statistics().queued == 199)
        app.let.set()
        assert {response.body for response in await asyncio.gather(*tasks)} == {b"done"}
        assert bridge.statistics().shed == 0

    run(main())


def test_refusal_of_head_has_the_headers_of_get(bridged: Bridged) -> None:
    """RFC 9110 §9.3.2: HEAD has the headers of GET, here the length of the text that it does not get."""

    async def main() -> None:
        app = Waiting()
        bridge = bridged(app, workers=1, max_queue=0)
        first = asyncio.ensure_future(answer(bridge))
        await app.entered.wait_in_task()
        assert (await answer(bridge, None, http_scope("HEAD"))).messages == messages_of(503, OVERLOADED[0]["headers"])
        app.let.set()
        await first

    run(main())


def test_queued_seconds_say_how_long_a_request_waited() -> None:
    """``a2wsgi.queued_seconds`` counts from the submission to the worker."""
    waited: list[float] = []
    let = Signal("the first was let go")
    entered = Signal("the first was entered")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        waited.append(environ["a2wsgi.queued_seconds"])
        entered.set()
        let.wait()
        return hello.app(environ, start_response)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        bridge = WSGIMiddleware(app, workers=1)
        first = asyncio.ensure_future(answer(bridge))
        await entered.wait_in_task()
        second = asyncio.ensure_future(answer(bridge))
        await until(lambda: bridge.statistics().queued == 1)
        queued_at = loop.time()
        await until(lambda: loop.time() >= queued_at + 0.02)
        let.set()
        await asyncio.gather(first, second)
        return loop.time() - queued_at

    elapsed = run(main())
    assert waited[0] >= 0
    assert 0.02 <= waited[1] <= elapsed + 0.02 + BOUND_SECONDS


def test_thread_that_cannot_be_started_fails_its_request(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that gives no thread is an error of this request at once, never a hang; the next may fare better."""

    async def main() -> None:
        bridge = bridged(hello.app)
        with monkeypatch.context() as patch:
            patch.setattr(_workers._Worker, "start", _no_thread)
            response = await asyncio.wait_for(answer(bridge, fails=RuntimeError), 2)
        assert str(response.raised) == "can't start new thread"
        assert bridge.statistics() == Statistics(0, 0, 0, 0, 0, 0, 0)
        assert (await answer(bridge)).messages == HELLO

    run(main())


def _no_thread(_: object) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.usefixtures("quick_timer")
@pytest.mark.parametrize("app", [hello.app, endless()], ids=["whole", "endless"])
@pytest.mark.parametrize("blocks_at", [1, 2])
def test_stalled_client_is_given_up_wherever_it_stalls(bridged: Bridged, app: Any, blocks_at: int) -> None:
    """A ``send()`` of the head or of the body that takes nothing for ``send_timeout`` ends the request."""

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number >= blocks_at:
                await asyncio.get_running_loop().create_future()

        bridge = bridged(app, send_timeout=0.05)
        response = await answer(bridge, Client(on_send=on_send))
        assert len(response.messages) == blocks_at - 1
        assert bridge.statistics().stalled == 1

    run(main())


@pytest.mark.usefixtures("quick_timer")
def test_slow_client_is_not_given_up_while_it_takes(bridged: Bridged) -> None:
    """The timeout is for one ``send()``, not for all of them."""

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            await asyncio.sleep(0.03)  # a client that takes its time, by less than the timeout

        app = Counting([b"x"] * 10)
        bridge = bridged(app, send_timeout=0.2, send_queue_size=1)
        response = await answer(bridge, Client(on_send=on_send))
        assert response.body == b"x" * 10
        assert bridge.statistics().stalled == 0

    run(main())


@pytest.mark.usefixtures("quick_timer")
def test_slow_client_has_no_more_queued_than_is_said() -> None:
    """What a stream has gained while its client was quick ends with the first message that takes long."""
    limits: list[int] = []

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 2:
                (request,) = bridge._shared.runtimes.here().in_flight
                output = request._output  # type: ignore[attr-defined]  # a _Request
                output._limit *= 7
                for _tick in range(3):
                    await asyncio.sleep(_runtime.TICK_SECONDS)
                limits.append(output._limit)

        bridge = WSGIMiddleware(hello.app, response_buffer_bytes=10)
        client = Client(on_send=on_send)
        await bridge(http_scope(), client.receive, client.send)

    run(main())
    assert limits == [10]


def test_stalled_client_is_waited_for_without_a_timeout(bridged: Bridged) -> None:
    """``send_timeout=None`` waits for as long as it takes: here twenty ticks."""

    async def main() -> None:
        async def on_send(_: int, __: Message) -> None:
            for _ in range(20):
                await asyncio.sleep(_runtime.TICK_SECONDS)  # as many ticks as would find it stalled

        bridge = bridged(hello.app, send_timeout=None)
        assert (await answer(bridge, Client(on_send=on_send))).messages == HELLO

    run(main())


@pytest.mark.usefixtures("quick_timer")
@pytest.mark.parametrize("how", ["swallows", "raises another"])
def test_interrupted_send_leaves_no_cancellation_behind(bridged: Bridged, how: str) -> None:
    """A server's ``send()`` may make what it likes of the cancellation that gives a stalled client up."""

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                if how == "raises another":
                    raise ConnectionResetError from None

        bridge = bridged(hello.app, send_timeout=0.05)
        await answer(bridge, Client(on_send=on_send))
        task = asyncio.current_task()
        assert task is not None
        if sys.version_info >= (3, 11):
            assert task.cancelling() == 0
        await asyncio.sleep(0)  # a cancellation that was left behind would be raised here
        assert bridge.statistics().stalled == 1

    run(main())


@pytest.mark.usefixtures("quick_timer")
def test_interruption_is_known_in_a_task_that_survived_a_cancellation(bridged: Bridged) -> None:
    """A task that was cancelled once and went on all the same has its stalled request end quietly."""

    async def survivor(bridge: WSGIMiddleware, client: Client) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await answer(bridge, client)

    async def main() -> None:
        async def on_send(_: int, __: Message) -> None:
            await asyncio.get_running_loop().create_future()

        bridge = bridged(hello.app, send_timeout=0.05)
        task = asyncio.ensure_future(survivor(bridge, Client(on_send=on_send)))
        await asyncio.sleep(0)
        task.cancel()
        await task
        assert bridge.statistics().stalled == 1

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 does not count cancellations")
@pytest.mark.usefixtures("quick_timer")
def test_cancellation_is_not_taken_for_an_interruption(bridged: Bridged) -> None:
    """A server that cancels a request at the moment in which it is given up has its cancellation."""

    async def main() -> None:
        async def on_send(_: int, __: Message) -> None:
            forever = asyncio.get_running_loop().create_future()
            # 1. The bridge interrupts send(). 2. The server cancels, too. 3. The task gets one CancelledError for both.
            forever.add_done_callback(lambda _: task.cancel())
            await forever

        bridge = bridged(hello.app, send_timeout=0.05)
        task = asyncio.ensure_future(answer(bridge, Client(on_send=on_send), fails=asyncio.CancelledError))
        await asyncio.wait((task,))
        assert task.cancelled() or type(task.result().raised) is asyncio.CancelledError
        assert bridge.statistics().stalled == 1

    run(main())


@pytest.mark.parametrize("app", [hello.app, Counting([b"he", b"llo"])], ids=["whole", "chunks"])
def test_disconnect_after_the_last_message_is_none(
    bridged: Bridged, app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The ``receive()`` of uvicorn says ``http.disconnect`` as soon as ``send()`` has the last message: nobody left."""
    caplog.set_level(logging.DEBUG, "a2wsgi")

    async def main() -> None:
        async def on_send(_: int, __: Message) -> None:
            await until(lambda: client.hungry.is_set() or client.receives > 1)

        client = Client(on_send=on_send, disconnects_when_complete=True)
        bridge = bridged(app)
        response = await answer(bridge, client)
        assert response.body == b"hello"
        assert response.complete
        assert bridge.statistics() == Statistics(1, 0, 0, 0, 0, 0, 0)

    run(main())
    assert our_log(caplog) == []


# -- Lifespan, loops, processes ---------------------------------------------------------------------------------------

LIFESPAN = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}


def test_lifespan_is_answered(bridged: Bridged) -> None:
    """Startup and shutdown are both said to be complete."""
    client = Client(messages=[{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    assert call(bridged(hello.app), client, dict(LIFESPAN)).messages == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]


def test_lifespan_message_of_another_type_is_not_answered(bridged: Bridged) -> None:
    """ASGI, "Extensions": a server may have events of its own (Falcon's test client sends one); the rest goes on."""
    types = ["startup", "_nonstandard_event", "shutdown"]
    client = Client(messages=[{"type": f"lifespan.{name}"} for name in types])
    assert call(bridged(hello.app), client, dict(LIFESPAN)).messages == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]


def test_shutdown_waits_for_running_requests(bridged: Bridged) -> None:
    """A request that runs at the shutdown is answered, and then the shutdown is complete."""

    async def main() -> None:
        app = Waiting()
        bridge = bridged(app)
        server = Client(messages=[{"type": "lifespan.startup"}])
        lifespan = asyncio.ensure_future(answer(bridge, server, dict(LIFESPAN)))
        request = asyncio.ensure_future(answer(bridge))
        await app.entered.wait_in_task()
        server.say({"type": "lifespan.shutdown"})
        await until(lambda: server.receives == 2 and not server.hungry.is_set())
        for _ in range(20):
            await asyncio.sleep(0)
        assert server.sent == [{"type": "lifespan.startup.complete"}]
        app.let.set()
        assert (await request).body == b"done"
        await lifespan
        assert server.sent[1:] == [{"type": "lifespan.shutdown.complete"}]

    run(main())


def test_shutdown_gives_up_what_takes_too_long(bridged: Bridged) -> None:
    """After ``shutdown_timeout`` what still runs gets `ClientDisconnected`; the shutdown does not wait for it."""
    app = endless()

    async def main() -> None:
        bridge = bridged(app, shutdown_timeout=0.02)
        request = asyncio.ensure_future(answer(bridge, Client()))
        await app.started.wait_in_task()
        server = Client(messages=[{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        await answer(bridge, server, dict(LIFESPAN))
        await app.closed.wait_in_task()
        assert not (await request).complete
        assert bridge.statistics().in_flight == 0

    run(main())
    assert app.closes == 1


def test_shutdown_tells_a_blocked_app() -> None:
    """What a request that still runs after the timeout reads or writes raises."""
    errors: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        started.set()
        assert environ["a2wsgi.disconnected"].wait(BOUND_SECONDS)
        try:
            start_response("200 OK", [])(b"x")
        except ClientDisconnected as error:
            errors.append(error.reason)
        return []

    started = Signal("the app was called")

    async def main() -> None:
        bridge = WSGIMiddleware(app, shutdown_timeout=0)
        request = asyncio.ensure_future(answer(bridge))
        await started.wait_in_task()
        server = Client(messages=[{"type": "lifespan.shutdown"}])
        await answer(bridge, server, dict(LIFESPAN))
        assert (await request).messages == []

    run(main())
    assert errors == ["the server shuts down"]


def test_shutdown_ends_idle_workers(bridged: Bridged) -> None:
    """Nothing of ours keeps the process after the shutdown; a later request starts anew."""

    async def main() -> None:
        bridge = bridged(hello.app)
        await answer(bridge)
        server = Client(messages=[{"type": "lifespan.shutdown"}])
        await answer(bridge, server, dict(LIFESPAN))
        await until(lambda: bridge.statistics().workers == 0)
        assert (await answer(bridge)).messages == HELLO

    run(main())


def test_bridge_serves_again_in_another_loop(bridged: Bridged) -> None:
    """A bridge made once serves one ``asyncio.run()`` after the other, with and without a shutdown between."""
    bridge = bridged(hello.app)
    for messages in ([], [{"type": "lifespan.shutdown"}], []):
        assert call(bridge).messages == HELLO
        if messages:
            call(bridge, Client(messages=messages), dict(LIFESPAN))


def test_bridge_serves_several_loops_at_a_time(bridged: Bridged) -> None:
    """Loops of several threads share the bridge, its workers and its statistics."""
    app = Barrier(3)
    bridge = bridged(app)
    answers: list[list[Message]] = []
    threads = [threading.Thread(target=lambda: answers.append(call(bridge).messages)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_SECONDS)
    assert answers == [HELLO] * 3
    assert bridge.statistics().in_flight == 0


def in_child(work: Callable[[], bytes]) -> bytes:
    """Run ``work`` in a forked child, and return what it returned; the child has no more to say than that."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - coverage does not see the child
        try:
            os.write(writer, work())
        except BaseException as error:  # noqa: BLE001  # told to the parent
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        with open(reader, "rb") as told:  # noqa: PTH123  # a descriptor, not a path
            timer = threading.Timer(BOUND_SECONDS, os.kill, (child, 9))
            timer.start()
            try:
                return told.read()
            finally:
                timer.cancel()
                timer.join()
    finally:
        os.waitpid(child, 0)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork()")
# Python 3.12 warns of any fork in a process with threads: a2wsgi's must be safe all the same.
forks_with_threads = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


@needs_fork
@forks_with_threads
@pytest.mark.parametrize("workers", [1, 40])
@pytest.mark.parametrize("used", [False, True])
def test_bridge_serves_in_a_forked_child(bridged: Bridged, workers: int, *, used: bool) -> None:
    """A bridge made before a fork serves in the child and in the parent, also if the parent had used it."""
    bridge = bridged(hello.app, workers=workers)
    if used:
        call(bridge)
    assert in_child(lambda: call(bridge).body) == b"hello"
    assert call(bridge).messages == HELLO


@needs_fork
@forks_with_threads
def test_bridge_serves_in_a_child_forked_during_a_request(bridged: Bridged) -> None:
    """A child that is forked while the parent serves begins from nothing."""
    app = Waiting()
    bridge = bridged(app, workers=1)

    def in_the_child() -> bytes:
        app.let = Signal("in the child")
        app.let.set()
        body = call(bridge).body
        return body + repr(bridge.statistics()).encode()

    async def main() -> bytes:
        request = asyncio.ensure_future(answer(bridge))
        await app.entered.wait_in_task()
        told = in_child(in_the_child)
        app.let.set()
        assert (await request).body == b"done"
        return told

    assert run(main()) == b"done" + repr(Statistics(1, 0, 0, 0, 0, 0, 0)).encode()


# -- What apps and middleware do that they need not --------------------------------------------------------------------


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
    assert "write() when its response was complete" in errors[0]


def _ring(kind: str) -> Exception:
    """An error whose chain of causes leads back to itself."""
    error, cause = ValueError("in a ring"), ValueError("its cause")
    error.__cause__ = error if kind == "itself" else cause
    cause.__cause__ = error
    return error


@pytest.mark.parametrize("kind", ["itself", "two"])
def test_error_that_is_its_own_cause_harms_nobody(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """``raise error from error`` is logged as any other, and the worker is free again."""
    app = Counting([b"x"], close_error=_ring(kind))
    bridge = WSGIMiddleware(app)
    assert call(bridge).body == b"x"
    assert our_log(caplog) == [("ERROR", "close() of the WSGI app's iterable raised")]
    assert bridge.statistics().busy == 0


def test_log_that_fails_keeps_nobody_waiting() -> None:
    """What a logging filter of the user's raises reaches the server, and the worker lives on."""

    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise LookupError("the filter")

    broken = Broken()
    bridge = WSGIMiddleware(Counting([b"x"], close_error=ValueError("in close")), workers=1)
    logging.getLogger("a2wsgi").addFilter(broken)
    try:
        for _ in range(2):
            call(bridge, fails=LookupError)
    finally:
        logging.getLogger("a2wsgi").removeFilter(broken)
    assert bridge.statistics() == Statistics(1, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("value", [None, "text", []])
def test_wsgi_environ_of_somebody_else_is_none_of_ours(value: object) -> None:
    """A key of the scope that looks like a bridge's, and is not, fails no request."""
    assert call(WSGIMiddleware(hello.app), scope=http_scope(wsgi_environ=value)).messages == HELLO


@pytest.mark.usefixtures("quick_timer")
def test_server_whose_script_is_used_up_is_answered() -> None:
    """A receive() that raises once the request is whole fails no request that takes longer than a tick."""
    messages = [body_message(b"ab")]
    raised = Signal("receive() raised")
    sent: list[Message] = []

    async def receive() -> Message:
        if not messages:
            raised.set()
        return messages.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raised.wait()
        return echo.app(environ, start_response)

    run(WSGIMiddleware(app)(http_scope("POST"), receive, send))
    assert sent == echoed(b"ab")


def test_os_error_of_the_app_is_no_client_that_left(bridged: Bridged) -> None:
    """A file that is missing, say."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"first"
        raise FileNotFoundError("no such file")

    bridge = bridged(app)
    call(bridge, fails=FileNotFoundError)
    assert bridge.statistics().disconnected == 0


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


@pytest.mark.parametrize("error", [TypeError("no"), AttributeError("no"), NotImplementedError()])
def test_iterable_whose_len_fails_is_answered(bridged: Bridged, error: Exception) -> None:
    """It says nothing of its length, as one that has none."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return _Sized(error, b"one", b"another")

    assert call(bridged(app)).body == b"oneanother"
