"""What users of WSGI-on-ASGI bridges have hit, each as a test that it is gone; most of them with the real framework."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import io
import itertools
import logging
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flask
import hypothesis
import pytest
import starlette.applications
import starlette.requests
import starlette.responses
import starlette.routing
import werkzeug
from hypothesis import strategies

from a2wsgi import ClientDisconnected, Statistics, WSGIMiddleware
from a2wsgi._threads import stream as _handoff
from a2wsgi._threads.stream import GROWTH
from a2wsgi._wsgi_on_asgi import loops as _loops
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import echo, hello
from apps.counting import Counting, endless
from apps.recording import Recording
from apps.waiting import Waiting
from support import runtimes
from support.asgi_driver import (
    Client,
    Message,
    Response,
    answer,
    body_message,
    call,
    http_scope,
    messages_of,
    run,
    until,
)
from support.lockstep import BOUND_SECONDS, Lockstep, Signal
from support.runtimes import JobCancelled, gather, only_on, rest, start

pytestmark = pytest.mark.usefixtures("runtime")


@pytest.fixture(autouse=True)
def _quick_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the timer tick every 5 ms."""
    monkeypatch.setattr(_loops, "TICK_SECONDS", 0.005)


def environ_of(scope: Any, *body: bytes, **options: Any) -> Environ:
    """The environ that an app gets for a request."""
    app = Recording()
    call(WSGIMiddleware(app, **options), Client(*body), scope)
    return app.environ


def our_log(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What was logged by anybody but asyncio's debug mode: the level and the text of each record."""
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name != "asyncio"]


# -- C: hangs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails_at", [1, 2, 4])
def test_send_that_fails_frees_the_worker(fails_at: int) -> None:
    """C1: a middleware that raises from ``send()`` ends the request with its error, and the bridge serves on."""

    async def main() -> None:
        app = Counting([b"x" * 1024] * 1000)
        bridge = WSGIMiddleware(app, workers=1)
        for closes in range(1, 51):
            error = OSError("of a middleware")

            async def on_send(number: int, _: Message, error: OSError = error) -> None:
                if number == fails_at:
                    raise error

            response = await answer(bridge, Client(on_send=on_send), fails=OSError)
            assert response.raised is error
            assert app.closes == closes
            assert bridge.statistics() == Statistics(1, 0, 0, 0, 0, closes, 0)
        assert (await answer(bridge)).body == b"x" * 1024 * 1000

    run(main())


def test_cancelled_request_frees_the_worker() -> None:
    """C2: a timeout around the bridge closes the iterable, and the thread serves the next request."""
    app = endless()

    async def main() -> None:
        bridge = WSGIMiddleware(app, workers=1)
        for closes in range(1, 6):
            client = Client()
            task = start(bridge(http_scope(), client.receive, client.send))
            await until(lambda client=client: len(client.sent) > 1)  # type: ignore[misc]
            task.cancel()
            with pytest.raises(JobCancelled):
                await task
            await until(lambda closes=closes: app.closes == closes)  # type: ignore[misc]
        await until(lambda: bridge.statistics().busy == 0)

    run(main())


# -- D: memory and streaming ------------------------------------------------------------------------------------------


def test_upload_is_never_held_whole() -> None:
    """D1: what was received and not yet read stays within a bound, whatever the size of the body."""
    message_bytes, messages = 64 * 1024, 512
    read = 0
    held: list[int] = []

    class Upload(Client):
        async def receive(self) -> Message:
            self.receives += 1
            held.append(self.receives * message_bytes - read)
            return body_message(b"x" * message_bytes, more=self.receives < messages)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        nonlocal read
        while chunk := environ["wsgi.input"].read(64 * 1024):
            read += len(chunk)
        return hello.app(environ, start_response)

    client = Upload()
    assert call(WSGIMiddleware(app), client, http_scope("POST")).body == b"hello"
    assert read == messages * message_bytes
    # The message in hand, the stream and a message past it, what was taken of it, and what the app is given of that.
    assert max(held) <= (2 * GROWTH + 4) * message_bytes


def test_upload_is_read_before_it_is_complete() -> None:
    """D1: the app has the first byte before the last message was made."""
    first_read = Signal("the first byte was read")

    class Upload(Client):
        async def receive(self) -> Message:
            self.receives += 1
            if self.receives == 3:
                await first_read.wait_in_task()
            return body_message(b"x" * 65_536, more=self.receives < 3)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert environ["wsgi.input"].read(1) == b"x"
        first_read.set()
        assert len(environ["wsgi.input"].read()) == 3 * 65_536 - 1
        return hello.app(environ, start_response)

    assert call(WSGIMiddleware(app), Upload(), http_scope("POST")).body == b"hello"


@pytest.mark.parametrize("options", [{}, {"request_buffer_bytes": 2**25}, {"spool_request": True}])
def test_upload_of_small_parts_is_read_in_small_parts(options: dict[str, Any]) -> None:
    """D2: many messages and many reads cost no more than their number (a square of it would take minutes)."""
    part, parts = b"x" * 1024, 16 * 1024

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        read = sum(map(len, iter(lambda: environ["wsgi.input"].read(512), b"")))
        assert read == len(part) * parts
        return hello.app(environ, start_response)

    async def main() -> None:
        client = Client(*[part] * parts)
        await WSGIMiddleware(app, **options)(http_scope("POST"), client.receive, client.send)
        assert client.sent[-1]["body"] == b"hello"

    runtimes.run(main(), debug=False)  # asyncio's debug mode is slow


def test_download_waits_for_a_slow_client() -> None:
    """D3: what the app has made and the client has not taken stays below a megabyte."""
    chunk = b"x" * 65_536
    made = 0

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        nonlocal made
        start_response("200 OK", [])
        for _ in range(320):
            made += len(chunk)
            yield chunk

    async def main() -> None:
        taken = 0
        peak = 0

        async def on_send(_: int, message: Message) -> None:
            nonlocal peak, taken
            for _ in range(5):
                await rest()
            peak = max(peak, made - taken)
            taken += len(message.get("body", b""))

        client = Client(on_send=on_send)
        await WSGIMiddleware(app)(http_scope(), client.receive, client.send)
        assert taken == made == 320 * 65_536
        assert peak <= 2**20

    run(main())


def test_upload_has_no_limit_by_default() -> None:
    """D4: more than hypercorn's 16 MiB pass; the 413 of a limit is in wsgi_on_asgi/test_messages.py."""
    received = 0

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        nonlocal received
        received = sum(map(len, iter(lambda: environ["wsgi.input"].read(2**20), b"")))
        return hello.app(environ, start_response)

    client = Client(*[b"x" * 2**20] * 17)
    assert call(WSGIMiddleware(app), client, http_scope("POST")).body == b"hello"
    assert received == 17 * 2**20


def test_stream_leaves_as_it_is_made() -> None:
    """D5: a chunk is on its way before the app makes the next one."""
    step = Lockstep()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        yield b"a"
        with step(2):
            pass
        yield b"b"

    async def main() -> None:
        async def on_send(number: int, message: Message) -> None:
            if number == 2:
                assert message["body"] == b"a"
                async with step(1):
                    pass

        assert (await answer(WSGIMiddleware(app), Client(on_send=on_send))).body == b"ab"

    run(main())


def test_quiet_stream_has_its_head_sent_by_an_empty_write() -> None:
    """D6: ``write(b"")`` pushes the head of a stream that has nothing to say, also where a body has to follow it."""
    head_sent = Signal("the head was sent, and an empty body after it")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/event-stream")])
        write(b"")
        head_sent.wait()
        yield b"data: 1\n\n"

    async def main() -> None:
        async def on_send(_: int, message: Message) -> None:
            if message == {"type": "http.response.body", "body": b"", "more_body": True}:
                head_sent.set()

        response = await answer(WSGIMiddleware(app), Client(on_send=on_send))
        assert (response.headers, response.body) == ([(b"content-type", b"text/event-stream")], b"data: 1\n\n")

    run(main())


# -- E: clients that leave --------------------------------------------------------------------------------------------


def test_stream_stops_when_its_client_leaves(caplog: pytest.LogCaptureFixture) -> None:
    """E1: ``send()`` is a no-op after the disconnect, as uvicorn's: the iteration ends all the same, and is closed."""
    caplog.set_level(logging.INFO)

    async def main() -> None:
        app = endless()
        bridge = WSGIMiddleware(app, workers=10)
        clients = [Client() for _ in range(10)]
        tasks = [start(answer(bridge, client)) for client in clients]
        await until(lambda: all(len(client.sent) > 2 for client in clients))
        for client in clients:
            client.leave()
        for response in await gather(*tasks):
            assert not response.complete
        assert app.closes == 10
        assert bridge.statistics() == Statistics(bridge.statistics().workers, 0, 0, 0, 0, 10, 0)

    run(main())
    assert our_log(caplog) == []


def test_idle_stream_stops_when_its_client_leaves() -> None:
    """E1: an app that waits for its next event notices by the event that it is given, and by its next chunk."""
    app_closed = Signal("the generator was closed")
    asked: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        try:
            yield b"first"
            environ["a2wsgi.disconnected"].wait(BOUND_SECONDS)
            yield b"second"
            asked.append("third")
        finally:
            app_closed.set()

    async def main() -> None:
        client = Client()
        task = start(answer(WSGIMiddleware(app), client))
        await until(lambda: len(client.sent) == 2)
        client.leave()
        assert (await task).body == b"first"

    run(main())
    assert app_closed.is_set()
    assert asked == []


def truncated() -> Client:
    """An upload of 100 bytes, of which 10 came."""
    return Client(messages=[body_message(b"x" * 10, more=True), {"type": "http.disconnect"}])


UPLOAD = http_scope("POST", headers=[(b"content-length", b"100"), (b"content-type", b"application/octet-stream")])


@pytest.mark.parametrize("buffer_bytes", [65_536, 10, 0])
def test_truncated_upload_never_looks_complete(buffer_bytes: int) -> None:
    """E4: ``read()`` raises, and gives no short body."""
    caught: list[type[BaseException]] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            while environ["wsgi.input"].read(50):
                pass
        except OSError as error:
            caught.append(type(error))
            raise
        return hello.app(environ, start_response)

    bridge = WSGIMiddleware(app, request_buffer_bytes=buffer_bytes)
    assert call(bridge, truncated(), dict(UPLOAD)).messages == []
    assert caught == [ClientDisconnected]


def uploads() -> tuple[flask.Flask, list[int], list[int]]:
    """A Flask app that takes an upload; the lengths that it handled; the statuses that it answered."""
    app = flask.Flask(__name__)
    handled: list[int] = []
    answered: list[int] = []

    @app.post("/")
    def upload() -> str:
        handled.append(len(flask.request.get_data()))
        return "ok"

    @app.after_request
    def note(response: flask.Response) -> flask.Response:
        answered.append(response.status_code)
        return response

    return app, handled, answered


@pytest.mark.parametrize("chunked", [False, True])
def test_truncated_upload_is_not_handled_by_flask(chunked: bool) -> None:
    """E4: what comes after ``get_data()`` does not run."""
    app, handled, answered = uploads()
    scope = http_scope("POST", headers=[(b"transfer-encoding", b"chunked")]) if chunked else dict(UPLOAD)
    call(WSGIMiddleware(app), truncated(), scope)
    assert handled == []
    assert answered in ([400], [500])


def test_truncated_upload_is_a_400_of_flask(caplog: pytest.LogCaptureFixture) -> None:
    """E4 and H5: Werkzeug makes a 400 of a body that is shorter than its length, and Flask logs no error."""
    caplog.set_level(logging.INFO)
    app, _, answered = uploads()
    call(WSGIMiddleware(app), truncated(), dict(UPLOAD))
    assert answered == [400]
    assert our_log(caplog) == []


# -- F: responses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["normal", "error", "length", "left", "cancelled", "send failed"])
def test_close_is_called_once_on_the_thread_of_the_app(how: str) -> None:
    """F1: in every way a response can end."""
    finite: dict[str, list[Any]] = {
        "normal": [b"x"] * 3,
        "error": [b"x", ValueError("in the middle")],
        "length": [b"x"] * 3,
    }
    chunks: Iterable[Any] = finite.get(how) or itertools.repeat(b"x" * 1000)
    app = Counting(chunks, headers=[("Content-Length", "2")] if how == "length" else [])
    fails = {"error": ValueError, "send failed": OSError}.get(how)

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 2 and how == "left":
                client.leave()
            elif number == 2 and how == "cancelled":
                task.cancel()
            elif number == 2 and how == "send failed":
                raise OSError

        client = Client(on_send=on_send)
        task = start(answer(WSGIMiddleware(app), client, fails=fails))
        with pytest.raises(JobCancelled) if how == "cancelled" else contextlib.nullcontext():
            await task
        await app.closed.wait_in_task()

    run(main())
    assert (app.calls, app.closes, len(app.threads)) == (1, 1, 1)


def test_call_on_close_of_flask_is_called() -> None:
    """F1: Flask's ``call_on_close`` and its teardown functions run."""
    app = flask.Flask(__name__)
    log: list[str] = []

    @app.get("/")
    def index() -> flask.Response:
        response = flask.Response("ok")
        response.call_on_close(lambda: log.append("call_on_close"))
        return response

    @app.teardown_request
    def teardown(_: BaseException | None) -> None:
        log.append("teardown")

    assert call(WSGIMiddleware(app)).body == b"ok"
    assert sorted(log) == ["call_on_close", "teardown"]


def test_error_page_has_the_status_of_the_error() -> None:
    """F2: an error before the first chunk replaces the 200 that was said before."""

    def failing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("X-First", "1")])
        raise ValueError("x")

    def catching(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        import sys

        try:
            return failing(environ, start_response)
        except ValueError:
            start_response("500 Internal Server Error", [("X-Second", "2")], sys.exc_info())
            return [b"error page"]

    response = call(WSGIMiddleware(catching))
    assert response.messages == messages_of(500, [(b"x-second", b"2"), (b"content-length", b"10")], b"error page")


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")]
)
def test_empty_iterable_is_a_response(method: str, status: str) -> None:
    """F3: ``[]`` has its head sent, with its headers, and an end."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [("ETag", '"x"')])
        return []

    response = call(WSGIMiddleware(app), None, http_scope(method))
    assert response.messages == messages_of(int(status[:3]), [(b"etag", b'"x"')])


def test_lazy_start_response_is_waited_for() -> None:
    """F4: a generator that calls ``start_response`` in its first ``next()``; empty chunks before it send nothing."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        yield b""
        yield b""
        start_response("201 Created", [("Content-Length", "1")])
        yield b"x"

    response = call(WSGIMiddleware(app))
    assert (response.status, response.body) == (201, b"x")


def test_write_is_there_and_waits_for_the_client() -> None:
    """F5: ``start_response`` returns ``write()``, whose data goes first, and which is held back as chunks are."""
    written = 0

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        nonlocal written
        write = start_response("200 OK", [])
        for _ in range(100):
            written += 1000
            write(b"w" * 1000)
        return [b"end"]

    async def main() -> None:
        begun = 0

        async def on_send(_: int, message: Message) -> None:
            nonlocal begun
            begun += len(message.get("body", b""))
            await until(lambda: written - begun >= 4000 or written == 100_000)
            assert written - begun <= 4000 + 4000 + 1000

        response = await answer(WSGIMiddleware(app, response_buffer_bytes=4000), Client(on_send=on_send))
        assert response.body == b"w" * 100_000 + b"end"

    run(main())


def test_length_bounds_the_body() -> None:
    """F6: a longer body is cut and its iterable stopped; a shorter one is no complete response; HEAD has none."""
    longer = Counting([b"abc", b"def"], headers=[("Content-Length", "3")])
    assert call(WSGIMiddleware(longer)).body == b"abc"
    assert (longer.given, longer.closes) == (1, 1)
    shorter = Counting([b"abc"], headers=[("Content-Length", "10")])
    response = call(WSGIMiddleware(shorter), fails=Exception)
    assert (response.complete, shorter.closes) == (False, 1)
    head = Counting([b"abc"], headers=[("Content-Length", "3")])
    response = call(WSGIMiddleware(head), None, http_scope("HEAD"))
    assert response.messages == messages_of(200, [(b"content-length", b"3")])


@pytest.mark.parametrize("status", ["204", "299 ", "600 Odd", "418"])
def test_status_may_be_odd(status: str) -> None:
    """F7: no reason phrase, or a code that nobody knows, is no error."""
    assert call(WSGIMiddleware(Counting([], status))).status == int(status[:3])


# -- G: the request's body --------------------------------------------------------------------------------------------

OPERATIONS = strategies.lists(
    strategies.one_of(
        strategies.tuples(strategies.just("read"), strategies.sampled_from([None, -1, 0, 1, 2, 5, 100])),
        strategies.tuples(strategies.just("readline"), strategies.sampled_from([None, -1, 0, 1, 2, 5, 100])),
        strategies.tuples(strategies.just("readlines"), strategies.sampled_from([None, -1, 0, 1, 4, 1000])),
        strategies.tuples(strategies.just("next"), strategies.none()),
        strategies.tuples(strategies.just("read1"), strategies.just(0)),
    ),
    max_size=12,
)


@hypothesis.given(
    parts=strategies.lists(
        strategies.binary(max_size=8) | strategies.sampled_from([b"a\n", b"\n", b"\r\n"]), min_size=1
    ),
    operations=OPERATIONS,
    buffer_bytes=strategies.sampled_from([0, 1, 3, 65_536]),
)
@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_body_reads_as_any_file(parts: list[bytes], operations: list[tuple[str, Any]], buffer_bytes: int) -> None:
    """G1: whatever is called, and however the body was cut into messages, it is what a file of the body gives."""

    def perform(stream: Any) -> list[object]:
        return [
            next(stream, None) if name == "next" else getattr(stream, name)(argument) for name, argument in operations
        ]

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        results.append(perform(environ["wsgi.input"]))
        return hello.app(environ, start_response)

    results: list[list[object]] = []

    async def main() -> None:
        client = Client(*parts)
        await WSGIMiddleware(app, request_buffer_bytes=buffer_bytes)(http_scope("POST"), client.receive, client.send)

    runtimes.run(main(), debug=False)
    assert results == [perform(io.BufferedReader(io.BytesIO(b"".join(parts))))]


MULTIPART = (
    b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    b'--x\r\nContent-Disposition: form-data; name="f"; filename="f.bin"\r\n\r\n'
    + b"0123456789" * 20_000
    + b"\r\n--x--\r\n"
)


@pytest.mark.parametrize("buffer_bytes", [2**20, 65_536, 0])
@pytest.mark.parametrize("header", [(b"transfer-encoding", b"chunked"), None], ids=["HTTP/1.1", "HTTP/2"])
def test_body_without_a_length_is_read_by_flask(buffer_bytes: int, header: tuple[bytes, bytes] | None) -> None:
    """G2: a form with a file, chunked or over HTTP/2 without a length, is there in full."""
    app = flask.Flask(__name__)

    @app.post("/")
    def upload() -> str:
        return f"{flask.request.form['a']} {len(flask.request.files['f'].read())}"

    @app.post("/raw")
    def raw() -> str:
        return str(len(flask.request.get_data()))

    headers = [(b"content-type", b"multipart/form-data; boundary=x"), *([header] if header else [])]
    parts = [MULTIPART[i : i + 7777] for i in range(0, len(MULTIPART), 7777)]
    bridge = WSGIMiddleware(app, request_buffer_bytes=buffer_bytes)
    assert call(bridge, Client(*parts), http_scope("POST", "/", headers)).body == b"1 200000"
    assert call(bridge, Client(*parts), http_scope("POST", "/raw", headers)).body == b"%d" % len(MULTIPART)


@pytest.mark.parametrize("options", [{}, {"request_buffer_bytes": 4, "spool_request": True}])
def test_slow_uploads_hold_no_worker(options: dict[str, Any]) -> None:
    """G4: fifty clients that trickle their bodies leave the one worker to others."""

    async def main() -> None:
        bridge = WSGIMiddleware(echo.app, workers=1, **options)
        clients = [Client(b"slow", complete=False) for _ in range(50)]
        tasks = [start(answer(bridge, client, http_scope("POST"))) for client in clients]
        for client in clients:
            await client.hungry.wait_in_task()
        assert (await answer(bridge, Client(b"quick"), http_scope("POST"))).body == b"quick"
        for client in clients:
            client.send_body(b"ly", more=False)
        assert {response.body for response in await gather(*tasks)} == {b"slowly"}

    run(main())


# -- H: errors and logs -----------------------------------------------------------------------------------------------


def test_errors_of_the_environ_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """H4: ``wsgi.errors`` takes text, and is no stdout: Flask's and Django's logs go there."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        print("a line", file=environ["wsgi.errors"], flush=True)
        return hello.app(environ, start_response)

    call(WSGIMiddleware(app))
    assert capsys.readouterr() == ("", "a line\n")


def test_client_that_leaves_is_no_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """H5: nothing above DEBUG, also where the framework raises out of its own generator."""
    caplog.set_level(logging.INFO)
    flask_app = flask.Flask(__name__)

    @flask_app.get("/")
    def stream() -> flask.Response:
        return flask.Response(itertools.repeat(b"x" * 1000))

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return (flask_app if environ["REQUEST_METHOD"] == "GET" else echo.app)(environ, start_response)

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 3:
                client.leave()

        client = Client(on_send=on_send)
        bridge = WSGIMiddleware(app)
        await answer(bridge, client)
        await answer(bridge, truncated(), dict(UPLOAD))
        assert bridge.statistics().disconnected == 2

    run(main())
    assert our_log(caplog) == []


class OfTheApp(Exception):  # noqa: N818  # a name for what it is
    """Raised by an inner app."""


def test_error_of_flask_reaches_a_handler_of_starlette() -> None:
    """H6: with ``PROPAGATE_EXCEPTIONS`` the outer framework handles the very same exception object."""
    inner = flask.Flask(__name__)
    inner.config["PROPAGATE_EXCEPTIONS"] = True
    error = OfTheApp("x")
    seen: list[BaseException] = []

    @inner.get("/x")
    def failing() -> str:
        raise error

    async def handle(_: starlette.requests.Request, exc: Exception) -> starlette.responses.Response:
        seen.append(exc)
        return starlette.responses.PlainTextResponse("handled", 418)

    outer = starlette.applications.Starlette(
        routes=[starlette.routing.Mount("/flask", WSGIMiddleware(inner))], exception_handlers={OfTheApp: handle}
    )
    response = call(outer, Client(strict=False), http_scope(target="/flask/x"))
    assert (response.status, response.body) == (418, b"handled")
    assert seen[0] is error


# -- I: paths, encodings, headers -------------------------------------------------------------------------------------


def flask_site() -> flask.Flask:
    """A Flask app that shows where it thinks it is."""
    app = flask.Flask(__name__)

    @app.get("/")
    def index() -> str:
        return "index " + flask.url_for("page", name="a b")

    @app.get("/page/<name>")
    def page(name: str) -> str:
        return f"{name} {flask.request.script_root} {flask.request.path} {flask.request.base_url}"

    return app


def mounts() -> list[tuple[str, Callable[[Any], Any]]]:
    """The ways in which a bridge is mounted under ``/flask``."""
    ways: list[tuple[str, Callable[[Any], Any]]] = [
        (
            "starlette",
            lambda bridge: starlette.applications.Starlette(routes=[starlette.routing.Mount("/flask", bridge)]),
        ),
    ]
    try:
        import fastapi
    except ImportError:
        return ways

    def fast(bridge: Any) -> Any:
        app = fastapi.FastAPI()
        app.mount("/flask", bridge)
        return app

    return [*ways, ("fastapi", fast)]


@pytest.mark.parametrize("mount", [way for _, way in mounts()], ids=[name for name, _ in mounts()])
def test_mounted_flask_knows_where_it_is(mount: Callable[[Any], Any]) -> None:
    """I1: routes answer, and URLs that are made have the prefix."""
    app = mount(WSGIMiddleware(flask_site()))
    assert call(app, None, http_scope(target="/flask/")).body == b"index /flask/page/a%20b"
    page = call(app, None, http_scope(target="/flask/page/x"))
    assert page.body == b"x /flask /page/x http://testserver/flask/page/x"


def test_mounted_path_without_a_slash_is_answered() -> None:
    """I1: the mount itself, without a slash, has an empty PATH_INFO."""
    environ = environ_of(http_scope(target="/flask", root_path="/flask"))
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/flask", "")


def test_nested_mounts_add_up() -> None:
    """I1: a mount in a mount has both prefixes, quoted where it must be."""
    inner = starlette.applications.Starlette(routes=[starlette.routing.Mount("/in ner", WSGIMiddleware(flask_site()))])
    outer = starlette.applications.Starlette(routes=[starlette.routing.Mount("/outer", inner)])
    page = call(outer, None, http_scope(target="/outer/in%20ner/page/x"))
    assert page.body == b"x /outer/in ner /page/x http://testserver/outer/in%20ner/page/x"


def test_dispatcher_of_werkzeug_works_inside() -> None:
    """I1: a WSGI mount inside the bridge goes on cutting the path."""
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    app = DispatcherMiddleware(hello.app, {"/inner": flask_site()})
    scope = http_scope(target="/outer/inner/page/x", root_path="/outer")
    assert call(WSGIMiddleware(app), None, scope).body == (
        b"x /outer/inner /page/x http://testserver/outer/inner/page/x"
    )


@pytest.mark.parametrize(
    ("root", "path", "script", "info"),
    [
        ("/api", "/apiary", "/api", "/apiary"),
        ("/api", "/api/x", "/api", "/x"),
        ("/api/", "/api/x", "/api", "/x"),
        ("/api", "/other", "/api", "/other"),
        ("/api", "/api", "/api", ""),
        ("/", "/x", "", "/x"),
    ],
)
def test_prefix_is_cut_between_segments(root: str, path: str, script: str, info: str) -> None:
    """I2: ``/api`` is no prefix of ``/apiary``; a path without the prefix is left whole."""
    environ = environ_of(http_scope(target=path, root_path=root))
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script, info)


def test_script_name_of_the_process_is_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """I3: it is read once, and used only where the server says no ``root_path`` and nobody said ``script_name``."""
    monkeypatch.setenv("SCRIPT_NAME", "/process")
    app = Recording()
    bridge, fixed = WSGIMiddleware(app), WSGIMiddleware(app, script_name="/fixed")
    unfixed = WSGIMiddleware(app, script_name="")
    monkeypatch.setenv("SCRIPT_NAME", "/later")
    for each, scope in (
        (bridge, http_scope(target="/process/x")),
        (bridge, http_scope(target="/root/x", root_path="/root")),
        (fixed, http_scope(target="/root/x", root_path="/root")),
        (fixed, http_scope(target="/fixed/x")),
        (unfixed, http_scope(target="/process/x")),
    ):
        call(each, None, scope)
    assert [(environ["SCRIPT_NAME"], environ["PATH_INFO"]) for environ in app.environs] == [
        ("/process", "/x"),
        ("/root", "/x"),
        ("/fixed", "/x"),
        ("/fixed", "/x"),
        ("", "/process/x"),
    ]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/%C3%A5", "å".encode()),
        ("/%E5", b"\xe5"),
        ("/a%2Fb", b"a/b"),
        ("/a%252Fb", b"a%2Fb"),
        ("/%00", b"\0"),
        ("/e%CC%81", "e\u0301".encode()),
        ("/%C3%A9", "\u00e9".encode()),
        ("/%F0%9F%98%80", "\U0001f600".encode()),
        ("/caf%E9/%C3%A9", b"caf\xe9/\xc3\xa9"),
    ],
)
def test_path_of_any_bytes_is_no_error(target: str, path: bytes) -> None:
    """I4 and I5: what was requested reaches the app byte for byte, UTF-8 or not."""
    environ = environ_of(http_scope(target=target))
    assert environ["PATH_INFO"].encode("latin-1") == b"/" + path
    assert environ["REQUEST_URI"] == target


def test_query_of_any_bytes_is_no_error() -> None:
    """I6: raw UTF-8 in a query is latin-1 in the environ, and text in Flask."""
    app = flask.Flask(__name__)

    @app.get("/")
    def index() -> str:
        return flask.request.args["q"]

    scope = http_scope(query_string="q=åé€".encode())
    assert environ_of(scope)["QUERY_STRING"].encode("latin-1") == "q=åé€".encode()
    assert call(WSGIMiddleware(app), None, scope).body == "åé€".encode()


def test_quoted_slash_is_in_the_uri() -> None:
    """I7: REQUEST_URI and RAW_URI are what was requested, before it was unquoted."""
    environ = environ_of(http_scope(target="/a%2Fb/c%20d?x=%2F", root_path=""))
    assert (environ["PATH_INFO"], environ["REQUEST_URI"], environ["RAW_URI"]) == (
        "/a/b/c d",
        "/a%2Fb/c%20d?x=%2F",
        "/a%2Fb/c%20d?x=%2F",
    )


def test_cookies_of_http2_are_all_read_by_flask() -> None:
    """I8: cookie headers that HTTP/2 split are joined as cookies are."""
    app = flask.Flask(__name__)

    @app.get("/")
    def index() -> dict[str, str]:
        return dict(flask.request.cookies)

    headers = [(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"accept", b"text/html"), (b"accept", b"*/*")]
    assert environ_of(http_scope(headers=headers))["HTTP_ACCEPT"] == "text/html,*/*"
    assert call(WSGIMiddleware(app), None, http_scope(headers=headers)).body == b'{"a":"1","b":"2"}\n'


def test_repeated_type_and_length_are_one_value() -> None:
    """I9: test clients send them twice; neither is a list."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"3")] * 2
    environ = environ_of(http_scope("POST", headers=headers), b"abc")
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/plain", "3")
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & set(environ)


@pytest.mark.parametrize("server", [("h", 80), ("h", "80"), ["h", 80], ("/x.sock", None), ("", "0"), ("h", None), None])
def test_server_port_is_text(server: Any) -> None:
    """I10: whatever the server says, SERVER_PORT is a `str` that is a number."""
    environ = environ_of(http_scope(server=server))
    assert (type(environ["SERVER_PORT"]), environ["SERVER_PORT"]) == (str, "80")


@pytest.mark.parametrize(
    ("others", "status"),
    [
        ({"http_version": "odd"}, 204),
        ({"http_version": ""}, 204),
        ({"client": ("127.0.0.1", None)}, 204),
        ({"client": None, "server": None}, 204),
        ({"raw_path": b""}, 204),
        ({"headers": [(b"content-length", b"abc")]}, 400),
        ({"headers": [(b"content-length", b"1, 2")]}, 400),
    ],
)
def test_odd_scope_kills_no_request(others: dict[str, Any], status: int) -> None:
    """I12: what is odd is tolerated; a malformed length is the client's fault, and 400."""
    assert call(WSGIMiddleware(Recording()), None, http_scope(**others)).status == status


# -- J: concurrency ---------------------------------------------------------------------------------------------------


def test_forty_blocking_requests_run_at_once() -> None:
    """J1: by default forty requests that block do not wait for each other."""
    barrier = threading.Barrier(40, timeout=BOUND_SECONDS)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        barrier.wait()
        return hello.app(environ, start_response)

    async def main() -> list[Response]:
        bridge = WSGIMiddleware(app)
        return await gather(*(answer(bridge) for _ in range(40)))

    assert {response.body for response in run(main())} == {b"hello"}


def test_single_worker_is_one_thread_for_all() -> None:
    """J2: libraries that know one thread only have it, in every part of every request."""
    app = Counting([b"x", b"y"])

    async def main() -> None:
        bridge = WSGIMiddleware(app, workers=1)
        await gather(*(answer(bridge) for _ in range(20)))

    run(main())
    assert len(app.threads) == 1
    assert environ_of(http_scope(), workers=1)["wsgi.multithread"] is False


def test_open_streams_leave_room_for_others() -> None:
    """J4: ten event streams that say nothing do not starve a health check."""

    async def main() -> None:
        app = Waiting()

        def site(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            return (app if environ["PATH_INFO"] == "/stream" else hello.app)(environ, start_response)

        bridge = WSGIMiddleware(site)
        streams = [start(answer(bridge, None, http_scope(target="/stream"))) for _ in range(10)]
        await until(lambda: len(app.threads) == 10)
        assert (await answer(bridge)).body == b"hello"
        app.let.set()
        await gather(*streams)

    run(main())


# -- K: contexts and loops --------------------------------------------------------------------------------------------

trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace")


class Traced:
    """An ASGI middleware that sets a context variable, as tracing does."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        trace.set(scope["path"])
        await self.app(scope, receive, send)


def test_context_of_a_middleware_reaches_every_step_of_the_app() -> None:
    """K1: the call, each ``next()`` and ``close()`` see what the ASGI middleware has set, each of its own request."""
    seen: dict[str, list[str]] = {}

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return chunks(seen.setdefault(environ["PATH_INFO"], []))

    def chunks(mine: list[str]) -> Iterator[bytes]:
        try:
            for _ in range(3):
                mine.append(trace.get())
                yield b"x"
        finally:
            mine.append(trace.get())

    async def main() -> None:
        bridge = Traced(WSGIMiddleware(app, workers=2))
        await gather(*(answer(bridge, None, http_scope(target=f"/{n}")) for n in range(20)))

    run(main())
    assert seen == {f"/{n}": [f"/{n}"] * 4 for n in range(20)}


@pytest.mark.parametrize("leaves", [False, True])
def test_token_of_the_app_is_good_until_close(leaves: bool) -> None:
    """K2: no "Token was created in a different Context", also after a disconnect."""
    reset = Signal("the variable was reset")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        token = trace.set("of the app")
        start_response("200 OK", [])

        def chunks() -> Iterator[bytes]:
            try:
                yield b"x"
                if leaves:
                    client.leave()
                    environ["a2wsgi.disconnected"].wait(BOUND_SECONDS)
                yield b"y"
            finally:
                trace.reset(token)
                reset.set()

        return chunks()

    client = Client()
    call(WSGIMiddleware(app), client)
    assert reset.is_set()


def test_requests_of_flask_do_not_mix() -> None:
    """K3: ``flask.g``, context variables and thread locals of a hundred requests at a time stay apart."""
    app = flask.Flask(__name__)
    barrier = threading.Barrier(20, timeout=BOUND_SECONDS)

    @app.get("/<name>")
    def index(name: str) -> str:
        assert not hasattr(flask.g, "name")
        flask.g.name = name
        barrier.wait()
        return f"{flask.g.name} {flask.request.path}"

    async def main() -> None:
        bridge = WSGIMiddleware(app, workers=20)
        responses = await gather(*(answer(bridge, None, http_scope(target=f"/{n}")) for n in range(100)))
        assert [response.body.decode() for response in responses] == [f"{n} /{n}" for n in range(100)]

    run(main())


def test_bridge_serves_two_loops_in_a_row() -> None:
    """K7: a bridge made at import is bound to no loop."""
    bridge = WSGIMiddleware(endless())

    async def main() -> None:
        client = Client()
        task = start(answer(bridge, client))
        await until(lambda: len(client.sent) > 1)
        client.leave()
        await task

    for _ in range(2):
        run(main())
    assert bridge.statistics() == Statistics(bridge.statistics().workers, 0, 0, 0, 0, 2, 0)


@only_on("asyncio", reason="trio.run is not left before its tasks have ended")
def test_bridge_serves_after_a_loop_that_was_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """K7: a loop that was closed under a running request strands neither its worker nor the bridge."""
    monkeypatch.setattr(_handoff, "LOOK_SECONDS", 0.01)
    app = endless()
    bridge = WSGIMiddleware(app, workers=1)
    loop = asyncio.new_event_loop()
    client = Client()
    task = loop.create_task(bridge(http_scope(), client.receive, client.send))
    with monkeypatch.context() as patch:
        patch.setattr(_loops, "TICK_SECONDS", 3600.0)  # or the task that watches may be thrown away, too
        loop.run_until_complete(app.started.wait_in_task())
    loop.close()
    app.closed.wait()
    assert call(WSGIMiddleware(hello.app)).body == b"hello"

    async def main() -> None:
        client = Client()
        second = start(answer(bridge, client))
        await until(lambda: len(client.sent) > 1)
        client.leave()
        await second

    run(main())
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


# -- Real frameworks --------------------------------------------------------------------------------------------------


def test_werkzeug_streams_and_reads() -> None:
    """Werkzeug's own request and response objects work, with a generator and a form."""

    @werkzeug.Request.application
    def app(request: werkzeug.Request) -> werkzeug.Response:
        values = sorted(request.form.items())
        return werkzeug.Response((f"{key}={value};" for key, value in values), mimetype="text/plain")

    headers = [(b"content-type", b"application/x-www-form-urlencoded"), (b"content-length", b"7")]
    response = call(WSGIMiddleware(app), Client(b"b=2", b"&a=1"), http_scope("POST", headers=headers))
    assert (response.headers[0], response.body) == ((b"content-type", b"text/plain; charset=utf-8"), b"a=1;b=2;")


def test_async_view_of_flask_works() -> None:
    """A view that is a coroutine function runs its own loop in the worker thread."""
    pytest.importorskip("asgiref")
    app = flask.Flask(__name__)

    @app.get("/")
    async def index() -> str:
        await asyncio.sleep(0)
        return "async"

    assert call(WSGIMiddleware(app)).body == b"async"


@pytest.fixture(scope="module")
def django_set_up() -> None:
    """Have Django imported and configured, and out of the sight of the collections after each test."""
    pytest.importorskip("django")
    import django.core.handlers.wsgi
    import django.test
    from django.conf import settings

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="not one", ROOT_URLCONF=())
        django.setup()
    gc.collect()
    gc.freeze()


@pytest.fixture
def django_site(django_set_up: None) -> Iterator[Any]:
    """A Django WSGI app."""
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
    from django.test import override_settings
    from django.urls import path, reverse

    def index(request: HttpRequest) -> HttpResponse:
        return HttpResponse(f"{request.path} {request.path_info} {reverse('echo')}".encode())

    def echoing(request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.body)

    def stream(_: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(b"%d" % number for number in range(5))

    def failing(_: HttpRequest) -> HttpResponse:
        raise OfTheApp("x")

    urlconf = types.ModuleType("django_site_urls")
    urlconf.urlpatterns = [  # type: ignore[attr-defined]
        path("", index),
        path("echo", echoing, name="echo"),
        path("stream", stream),
        path("failing", failing),
    ]
    with override_settings(
        ROOT_URLCONF=urlconf,
        ALLOWED_HOSTS=["*"],
        DEBUG=False,
        DEBUG_PROPAGATE_EXCEPTIONS=True,
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        FORCE_SCRIPT_NAME=None,
    ):
        yield WSGIHandler()


def test_django_answers(django_site: Any) -> None:
    """Paths, reversed URLs, bodies without a length, streams and signals of Django work under a mount."""
    from django.core.signals import request_finished

    finished: list[object] = []

    def note(**_: object) -> None:
        finished.append(threading.current_thread().name)

    request_finished.connect(note)
    try:
        app = starlette.applications.Starlette(routes=[starlette.routing.Mount("/dj", WSGIMiddleware(django_site))])
        assert call(app, None, http_scope(target="/dj/")).body == b"/dj/ / /dj/echo"
        chunked = [(b"transfer-encoding", b"chunked")]
        scope = http_scope("POST", "/dj/echo", chunked)
        assert call(app, Client(b"ab", b"cd"), scope).body == b"abcd"
        assert call(app, None, http_scope(target="/dj/stream")).body == b"01234"
    finally:
        request_finished.disconnect(note)
    assert len(finished) == 3
    assert all(str(name).startswith("a2wsgi-worker-") for name in finished)


def test_django_debug_page_shows_no_cookie(django_site: Any) -> None:
    """§6: what a debug page prints of the environ has no header in ``asgi.scope``."""
    scope = http_scope(headers=[(b"cookie", b"session=secret"), (b"authorization", b"Basic secret")])
    environ = environ_of(scope)
    assert "secret" not in repr(environ["asgi.scope"])
    assert environ["asgi.scope"]["headers"] == scope["headers"]


def test_django_error_reaches_the_server(django_site: Any) -> None:
    """An error that Django lets through is the server's."""
    response = call(WSGIMiddleware(django_site), None, http_scope(target="/failing"), fails=OfTheApp)
    assert response.messages == []


def test_starlette_testclient_calls_the_bridge() -> None:
    """K7: Starlette's client runs a loop of its own in a thread."""
    pytest.importorskip("httpx")
    testclient = pytest.importorskip("starlette.testclient")
    with testclient.TestClient(WSGIMiddleware(echo.app)) as client:
        for body in (b"one", b"two"):
            assert client.post("/x", content=body).content == body


def test_litestar_mounts_the_bridge() -> None:
    """Litestar refuses a handler that is a coroutine function and is not annotated to return None."""
    litestar = pytest.importorskip("litestar")
    mount = litestar.asgi("/x", is_mount=True, copy_scope=True)
    app = litestar.Litestar([mount(WSGIMiddleware(echo.app))], openapi_config=None, logging_config=None)

    async def main() -> None:
        client = Client(b"ab", b"cd", strict=False)
        await app(http_scope("POST", "/x/y"), client.receive, client.send)
        assert b"".join(message["body"] for message in client.sent[1:]) == b"abcd"

    run(main())


def test_base_http_middleware_of_starlette_wraps_the_bridge() -> None:
    """Starlette's ``BaseHTTPMiddleware`` has its own ``receive()`` and ``send()``, and a task group."""
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware

    async def dispatch(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-outer"] = "1"
        return response

    app = starlette.applications.Starlette(
        routes=[starlette.routing.Mount("/", WSGIMiddleware(echo.app))],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=dispatch)] * 2,
    )

    async def main() -> None:
        client = Client(b"ab", b"cd")
        await app(http_scope("POST", "/x"), client.receive, client.send)
        assert b"".join(message["body"] for message in client.sent[1:]) == b"abcd"
        assert (b"x-outer", b"1") in client.sent[0]["headers"]

    run(main())
