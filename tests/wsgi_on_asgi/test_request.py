"""What happens to a request of an ASGI server on its way to a WSGI app, and while the app runs.

A test that has its bridge from `bridged` holds for a bridge around a bridge around a bridge as well. One that makes a
`WSGIMiddleware` holds for that alone: it counts what one bridge does, threads, messages and bytes held, asks when it
does it, or for the reason by which it names an ending; of several each has its own.
"""

from __future__ import annotations

import contextvars
import io
import itertools
import logging
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from a2wsgi import (
    Statistics,
    WSGIMiddleware,
)
from a2wsgi._wsgi_on_asgi import loops as _loops
from a2wsgi._wsgi_on_asgi.files import FileWrapper
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import echo, hello
from apps.counting import endless
from apps.recording import Recording
from apps.waiting import Waiting
from support.asgi_driver import Client, Message, answer, body_message, call, http_scope, run, until
from support.bridges import Bridged
from support.lockstep import Lockstep, Signal
from support.runtimes import pause, start
from support.wsgi_requests import HELLO, echoed

pytestmark = pytest.mark.usefixtures("runtime")

# -- Request in -------------------------------------------------------------------------------------------------------


def test_body_is_read_ahead_before_a_worker_is_taken(bridged: Bridged) -> None:
    """A client that is slow with a small body holds no worker."""

    async def main() -> None:
        bridge = bridged(echo.app, workers=1)
        slow = Client(b"ab", complete=False)
        task = start(answer(bridge, slow, http_scope("POST")))
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
        task = start(answer(bridge, slow, http_scope("POST")))
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
        task = start(answer(bridge, client, http_scope("POST")))
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
        task = start(answer(bridge, client, http_scope("POST")))
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
        task = start(answer(WSGIMiddleware(app, request_buffer_bytes=0), client, http_scope("POST")))
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
        task = start(answer(bridged(app), client, scope))
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
                    await pause(0.005)  # the timer ticks meanwhile, and must not receive
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


@pytest.mark.parametrize(
    ("parts", "headers", "options", "length", "encoding"),
    [
        ((b"",), [], {}, None, None),
        ((b"abc",), [], {}, "3", None),
        ((b"abc",), [(b"content-length", b"3")], {}, "3", None),
        ((b"abc", b"de"), [(b"transfer-encoding", b"chunked")], {}, "5", None),
        ((b"",), [(b"transfer-encoding", b"chunked")], {}, "0", None),
        ((b"abc",), [(b"transfer-encoding", b"identity")], {}, "3", None),
        ((b"abc",), [(b"transfer-encoding", b" Chunked ")], {}, "3", None),
        ((b"abc",), [(b"transfer-encoding", b"gzip, chunked")], {}, None, "gzip, chunked"),
        ((b"abc",), [(b"transfer-encoding", b"gzip"), (b"transfer-encoding", b"chunked")], {}, None, "gzip,chunked"),
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
        task = start(answer(bridge, client, http_scope("POST")))
        for number in range(rounds):
            await pause(0.005)  # a tick of the timer, at the most inconvenient time: while receive() waits
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
    tick = _loops.BridgeLoop._tick

    def counted(runtime: _loops.BridgeLoop) -> None:
        nonlocal ticks
        ticks += 1
        tick(runtime)

    monkeypatch.setattr(_loops.BridgeLoop, "_tick", counted)

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
        task = start(answer(bridge, client, http_scope("POST")))
        await app.entered.wait_in_task()
        app.let.set()
        assert (await task).body == b"done"
        assert client.receives <= 6

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
        "wsgi.file_wrapper": FileWrapper,
    }


def test_errors_is_the_stderr_of_the_request(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """``wsgi.errors`` is what ``sys.stderr`` is when the request comes, not what it was when the bridge was made."""
    app = Recording()
    bridge = bridged(app)
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    call(bridge)
    assert app.environ["wsgi.errors"] is stderr


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
        if record.levelno >= logging.ERROR:
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


# -- What apps and middleware do that they need not -------------------------------------------------------------------


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
