"""No ending of a request depends on what a user's exceptions, log handlers or clients make of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from a2wsgi import AppError, ASGIMiddleware, ClientDisconnected, WSGIMiddleware
from a2wsgi._threads.runtime import Runtime
from a2wsgi._wsgi_on_asgi import loops as _loops
from a2wsgi._wsgi_on_asgi.faults import is_of_an_ending
from a2wsgi._wsgi_on_asgi.loops import BridgeLoop
from a2wsgi._wsgi_on_asgi.receiver import Receiver
from a2wsgi._wsgi_on_asgi.streams import ToThread
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import echo, hello
from apps.counting import Counting, endless
from apps.waiting import Waiting
from support.asgi_driver import Client, Message, answer, body_message, call, http_scope, run, until
from support.lockstep import BOUND_SECONDS, Signal
from support.threads import in_thread

pytestmark = pytest.mark.usefixtures("quick_timer")


# -- Exceptions that raise --------------------------------------------------------------------------------------------


class Rude(Exception):  # noqa: N818  # it is no error of ours
    """Raises where it is shown or compared."""

    looks = 0

    def _raise(self, *_: object) -> Any:
        type(self).looks += 1
        raise LookupError("nobody looks at me")

    __repr__ = __str__ = __eq__ = _raise
    __hash__ = Exception.__hash__


class RudeEnd(BaseException):
    """The same, of those that a coroutine must not raise."""

    looks = 0

    __repr__ = __str__ = __eq__ = Rude._raise
    __hash__ = BaseException.__hash__


def raising(error: BaseException, *before: bytes) -> Any:
    """An app that raises after these chunks."""
    return Counting([*before, error])


@pytest.mark.parametrize("before", [(), (b"x",)], ids=["before the head", "after the head"])
def test_error_that_cannot_be_shown_reaches_the_server(before: tuple[bytes, ...]) -> None:
    """The very same object, and none of its methods is called."""
    Rude.looks, error = 0, Rude()
    bridge = WSGIMiddleware(raising(error, *before))

    async def main() -> None:
        client = Client()
        try:
            await bridge(http_scope(), client.receive, client.send)
        except Exception as raised:  # noqa: BLE001 - pytest.raises would look at it
            assert raised is error  # noqa: PT017
            return
        raise AssertionError("nothing was raised")

    run(main())
    assert Rude.looks == 0
    assert bridge.statistics().busy == 0


def test_end_that_cannot_be_shown_reaches_the_server_in_an_app_error() -> None:
    """Its type is named; what it would say of itself is not asked."""
    error = RudeEnd()
    raised = call(WSGIMiddleware(raising(error)), fails=AppError).raised
    assert raised is not None
    assert raised.__cause__ is error
    assert str(raised).startswith("The WSGI app raised RudeEnd, ")
    assert RudeEnd.looks == 0


def test_send_that_raises_what_cannot_be_shown_frees_the_worker() -> None:
    """The worker waits for room at that moment; its next write raises, and its iterable is closed."""
    Rude.looks, error = 0, Rude()
    app = Counting(itertools.repeat(b"x" * 10))
    bridge = WSGIMiddleware(app, workers=1, response_buffer_bytes=0)

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 2:
                raise error

        client = Client(on_send=on_send)
        try:
            await bridge(http_scope(), client.receive, client.send)
        except Exception as raised:  # noqa: BLE001 - as above
            assert raised is error  # noqa: PT017
        await app.closed.wait_in_task()
        bridge.app = hello.app
        assert (await answer(bridge)).body == b"hello"

    run(main())
    assert Rude.looks == 0


def test_receive_that_raises_what_cannot_be_shown_ends_the_body() -> None:
    """The app's read raises `ClientDisconnected`, which names the type alone; the server has the error back."""
    Rude.looks, error = 0, Rude()
    reasons: list[str] = []
    messages = iter([body_message(b"part", more=True)])

    async def receive() -> Message:
        for message in messages:
            return message
        raise error

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except ClientDisconnected as error:
            reasons.append(error.reason)
        return hello.app(environ, start_response)

    async def main() -> None:
        client = Client()
        try:
            await WSGIMiddleware(app, request_buffer_bytes=4)(http_scope("POST"), receive, client.send)
        except Exception as raised:  # noqa: BLE001 - as above
            assert raised is error  # noqa: PT017
            return
        raise AssertionError("nothing was raised")

    run(main())
    assert reasons == ["receive() raised Rude"]
    assert Rude.looks == 0


@pytest.mark.parametrize("kind", [OSError, ValueError])
@pytest.mark.parametrize("buffer_bytes", [4, 100], ids=["streamed", "ahead"])
def test_client_disconnected_quotes_nothing_of_what_receive_raised(kind: type[Exception], buffer_bytes: int) -> None:
    """A middleware's error may hold a part of the body."""
    told: list[str] = []
    messages = iter([body_message(b"part", more=True)])

    async def receive() -> Message:
        for message in messages:
            return message
        raise kind("SECRET")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with pytest.raises(ClientDisconnected) as caught:
            environ["wsgi.input"].read()
        told.append(str(caught.value))
        return []

    async def main() -> None:
        with contextlib.suppress(kind):
            await WSGIMiddleware(app, request_buffer_bytes=buffer_bytes)(http_scope("POST"), receive, Client().send)

    run(main())
    assert all(f"receive() raised {kind.__name__}" in text and "SECRET" not in text for text in told)
    assert bool(told) or (kind is ValueError and buffer_bytes == 100)  # then the app is not run at all


def test_error_with_a_length_of_0_is_no_less_an_error() -> None:
    """An error may be falsy: what it was raised from still tells that the request was over."""

    class Empty(Exception):  # noqa: N818  # a collection of errors, as validators have it
        def __len__(self) -> int:
            return 0

    gone, empty = ClientDisconnected("it left"), Empty()
    outer = ValueError()
    empty.__cause__ = gone
    outer.__cause__ = empty
    assert is_of_an_ending(outer)


# -- Logging that raises ----------------------------------------------------------------------------------------------


class Broken(logging.Filter):
    """A user's filter that fails."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        self.records.append(record.getMessage())
        raise LookupError("the filter")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broken]:
    """A filter that raises for each record of ours, at every level."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log, level, broken = logging.getLogger("a2wsgi"), logging.getLogger("a2wsgi").level, Broken()
    log.setLevel(logging.DEBUG)
    log.addFilter(broken)
    yield broken
    log.removeFilter(broken)
    log.setLevel(level)


def test_client_that_left_is_noticed_though_the_log_fails(broken: Broken) -> None:
    """The request ends, and its iterable is closed."""

    def wait() -> bytes:
        assert environs[0]["a2wsgi.disconnected"].wait(BOUND_SECONDS)
        return b"second"

    app = Counting([b"first", wait, b"third"])
    environs: list[Environ] = []

    def noting(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environs.append(environ)
        return app(environ, start_response)

    async def on_send(number: int, _: Message) -> None:
        if number == 2:
            client.leave()

    bridge = WSGIMiddleware(noting)
    client = Client(on_send=on_send)
    assert call(bridge, client).body == b"first"
    app.closed.wait()
    assert app.given == 2
    assert bridge.statistics().disconnected == 1
    assert broken.records == ["The client left: the server sent http.disconnect"]


def test_iterable_is_closed_and_body_discarded_though_the_log_fails(broken: Broken) -> None:
    """The app fails when its client has left, which is logged, and then its close() fails, too."""
    files: list[Any] = []

    def fail() -> bytes:
        assert environs[0]["a2wsgi.disconnected"].wait(BOUND_SECONDS)
        raise ValueError("in the iterable")

    app = Counting([b"first", fail], close_error=ValueError("in close"))
    environs: list[Environ] = []

    def noting(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environs.append(environ)
        files.append(environ["wsgi.input"])
        return app(environ, start_response)

    async def on_send(number: int, _: Message) -> None:
        if number == 2:
            client.leave()

    bridge = WSGIMiddleware(noting, workers=1, spool_request=True, request_buffer_bytes=1)
    client = Client(b"part", b"whole", on_send=on_send)
    call(bridge, client, http_scope("POST"))
    assert app.closes == 1
    assert files[0].closed
    assert "The WSGI app failed after its request was over" in broken.records
    assert "close() of the WSGI app's iterable raised" in broken.records
    bridge.app = hello.app
    assert call(bridge).body == b"hello"


def test_refusal_is_sent_though_the_log_fails(broken: Broken) -> None:
    """A 400 and a 413 are logged, and sent."""
    scope = http_scope("POST", headers=[(b"content-length", b"9")])
    assert call(WSGIMiddleware(hello.app, max_request_bytes=1), Client(b"x" * 9), scope).status == 413
    scope = http_scope("POST", headers=[(b"content-length", b"nine")])
    assert call(WSGIMiddleware(hello.app), None, scope).status == 400
    assert len(broken.records) == 2


# -- Clients that are silent ------------------------------------------------------------------------------------------

EXPECTS = (b"expect", b"100-continue")


def our_log(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a2wsgi has logged as a warning or worse."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "a2wsgi" and record.levelno >= logging.WARNING
    ]


@pytest.mark.parametrize("how", ["expects 100", "sends a buffer", "sends nothing"])
def test_silent_client_loses_its_worker(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """The app's read raises, the client is answered 408, and the one worker serves the next request."""
    reasons: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except ClientDisconnected as error:
            reasons.append(error.reason)
            raise
        return hello.app(environ, start_response)

    bridge = WSGIMiddleware(
        app, workers=1, receive_timeout=0.05, request_buffer_bytes=0 if how == "sends nothing" else 4
    )

    async def main() -> None:
        client = Client(*([b"part"] if how == "sends a buffer" else []), complete=False)
        headers = [EXPECTS, (b"content-length", b"100")] if how == "expects 100" else []
        response = await answer(bridge, client, http_scope("POST", headers=headers))
        assert (response.status, response.complete) == (408, True)
        assert (b"connection", b"close") in response.headers  # RFC 9110 §15.5.9
        assert (await answer(bridge)).body == b"hello"

    run(main())
    assert reasons == ["it sent nothing of its body for 0.05 s"]
    assert our_log(caplog) == ["Request aborted: the client sent nothing of its body for 0.05 s"]
    statistics = bridge.statistics()
    assert (statistics.stalled, statistics.busy, statistics.disconnected) == (1, 0, 0)


@pytest.mark.parametrize("spool", [False, True], ids=["ahead", "spooled"])
@pytest.mark.parametrize("swallows", [False, True], ids=["", "receive() swallows"])
def test_client_that_is_silent_before_the_app_starts_is_answered_408(spool: bool, swallows: bool) -> None:
    """It has no worker yet, and gets none; a server's receive() may make what it likes of the cancellation."""
    app = Counting([b"never"])
    bridge = WSGIMiddleware(app, receive_timeout=0.05, spool_request=spool, request_buffer_bytes=4 if spool else 100)

    async def main() -> None:
        client = Client(b"part", complete=False)

        async def receive() -> Message:
            try:
                return await client.receive()
            except asyncio.CancelledError:
                if not swallows:
                    raise
                return body_message(b"", more=False)

        await bridge(http_scope("POST"), receive, client.send)
        assert client.sent[0]["status"] == 408
        task = asyncio.current_task()
        assert task is not None
        if sys.version_info >= (3, 11):
            assert task.cancelling() == 0
        await asyncio.sleep(0)  # a cancellation that was left behind would be raised here

    run(main())
    assert app.calls == 0
    assert bridge.statistics().stalled == 1


@pytest.mark.parametrize("buffer_bytes", [0, 100], ids=["read by the app", "ahead"])
def test_client_is_silent_though_its_server_repeats_empty_messages(buffer_bytes: int) -> None:
    """They bring nothing, so they count as nothing."""
    bridge = WSGIMiddleware(echo.app, receive_timeout=0.05, request_buffer_bytes=buffer_bytes)

    async def main() -> None:
        client = Client()

        async def receive() -> Message:
            return body_message(b"", more=True)

        await bridge(http_scope("POST"), receive, client.send)
        assert client.sent[0]["status"] == 408

    run(main())
    assert bridge.statistics().stalled == 1


def test_client_that_falls_silent_after_the_head_has_its_response_broken_off() -> None:
    """Nothing can be said to it any more: no 408, and no end of the response."""
    app_is_over = Signal("the iterable was closed")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        try:
            yield b"first"
            yield environ["wsgi.input"].read()
        finally:
            app_is_over.set()

    bridge = WSGIMiddleware(app, receive_timeout=0.05, request_buffer_bytes=4)
    response = call(bridge, Client(b"part", complete=False), http_scope("POST"))
    app_is_over.wait()
    assert (response.status, response.body, response.complete) == (200, b"first", False)
    assert bridge.statistics().stalled == 1


def test_silence_is_answered_without_connection_close_on_http_2() -> None:
    """RFC 9113 §8.2.2: such a header would make the response malformed."""
    scope = http_scope("POST", http_version="2")
    response = call(WSGIMiddleware(hello.app, receive_timeout=0.02), Client(b"part", complete=False), scope)
    assert response.status == 408
    assert b"connection" not in dict(response.headers)


def test_silent_client_is_waited_for_without_a_timeout() -> None:
    """``receive_timeout=None`` waits for as long as it takes: here twenty ticks."""

    async def main() -> None:
        client = Client(b"part", complete=False)
        bridge = WSGIMiddleware(echo.app, receive_timeout=None, request_buffer_bytes=4)
        task = asyncio.ensure_future(answer(bridge, client, http_scope("POST")))
        for _ in range(20):
            await asyncio.sleep(_loops.TICK_SECONDS)
        client.send_body(b"end", more=False)
        assert (await task).body == b"partend"

    run(main())


class Listens:
    """Is told of nothing here."""

    def client_left(self, reason: str) -> None: ...

    def body_too_large(self, limit: int) -> None: ...

    def receive_raised(self, error: Exception) -> None: ...


def incoming_of(client: Client, buffer_bytes: int) -> Receiver:
    """The incoming side of a request of this client."""
    runtime = Runtime(asyncio.get_running_loop())
    return Receiver(Listens(), runtime, client.receive, buffer_bytes, None, spool=False)


def test_silence_counts_only_while_the_app_waits() -> None:
    """An app that is slow to read is not the client's fault, however long it takes."""

    async def main() -> None:
        client = Client(b"part", complete=False)
        incoming = incoming_of(client, 4)
        file = await incoming.open({})
        incoming.go_on()
        assert not any(incoming.is_silent(now, 60) for now in range(0, 600, 50))
        reading = in_thread(file.read)
        await client.hungry.wait_in_task()
        await until(lambda: incoming.stream is not None and incoming.stream.is_awaited)
        assert [incoming.is_silent(now, 60) for now in (1000, 1059, 1060)] == [False, False, True]
        client.send_body(b"end", more=False)
        assert await reading.result_in_task() == b"partend"
        assert not any(incoming.is_silent(now, 60) for now in range(2000, 3000, 50))
        assert incoming.close()
        await incoming.end_task(wait=True)

    run(main())


def test_silence_ends_with_each_byte() -> None:
    """A client may take as long as it likes, if it sends something within the time: that is said in the docs."""

    async def main() -> None:
        client = Client(complete=False)
        incoming = incoming_of(client, 100)
        opening = asyncio.ensure_future(incoming.open({}))
        for now in range(0, 1000, 50):
            await client.hungry.wait_in_task()
            assert not incoming.is_silent(now, 60)
            client.send_body(b"x")
        client.send_body(b"", more=False)
        assert (await opening).read() == b"x" * 20
        incoming.close()

    run(main())


def test_answer_to_a_request_that_is_over_is_given_up_with_a_client_that_takes_nothing() -> None:
    """Its 413 is bound by ``send_timeout`` like any response, though the ending is decided already."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        return hello.app(environ, start_response)

    async def main() -> None:
        async def on_send(_: int, __: Message) -> None:
            await asyncio.get_running_loop().create_future()

        bridge = WSGIMiddleware(app, send_timeout=0.05, max_request_bytes=6, request_buffer_bytes=4)
        client = Client(b"part", b"part", b"part", on_send=on_send)
        response = await answer(bridge, client, http_scope("POST"))
        assert response.messages == []

    run(main())


# -- Shutdown ---------------------------------------------------------------------------------------------------------


def test_request_that_is_read_ahead_at_shutdown_never_enters_the_app() -> None:
    """After ``lifespan.shutdown.complete`` no app runs, though the body comes whole then. The client gets a 503."""
    app = Counting([b"never"])
    bridge = WSGIMiddleware(app, shutdown_timeout=0.01)

    async def main() -> None:
        client = Client(b"part", complete=False)
        task = asyncio.ensure_future(answer(bridge, client, http_scope("POST")))
        await client.hungry.wait_in_task()
        told: list[str] = []
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Message:
            return next(messages)

        async def send(message: Message) -> None:
            told.append(message["type"])

        await bridge({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
        assert told[-1] == "lifespan.shutdown.complete"
        client.send_body(b"rest", more=False)
        response = await task
        assert (response.status, response.complete) == (503, True)
        assert (b"retry-after", b"1") in response.headers

    run(main())
    assert app.calls == 0


def test_request_that_is_queued_at_shutdown_is_answered_503() -> None:
    """The app has not seen it, so its client may send it again."""
    app = Waiting()

    async def main() -> None:
        bridge = WSGIMiddleware(app, workers=1, shutdown_timeout=0.01)
        running = asyncio.ensure_future(answer(bridge))
        await app.entered.wait_in_task()
        queued = asyncio.ensure_future(answer(bridge))
        await until(lambda: bridge.statistics().queued == 1)
        server = Client(messages=[{"type": "lifespan.shutdown"}])
        await bridge({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, server.receive, server.send)
        response = await queued
        assert (response.status, response.complete) == (503, True)
        assert (b"retry-after", b"1") in response.headers
        app.let.set()
        assert (await running).messages == []

    run(main())
    assert len(app.threads) == 1


# -- Threads that wait for the disconnect -----------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_wait_for_the_disconnect_ends_with_the_response(fails: bool) -> None:
    """A ``close()`` that joins a thread which waits for the disconnect does not wait for ever."""
    waits: list[bool] = []

    class Watched:
        def __init__(self, environ: Environ, start_response: StartResponse) -> None:
            self.watcher = in_thread(environ["a2wsgi.disconnected"].wait)
            start_response("200 OK", [])

        def __iter__(self) -> Iterator[bytes]:
            yield b"body"
            if fails:
                raise ValueError("of the app")

        def close(self) -> None:
            waits.append(self.watcher.result())

    call(WSGIMiddleware(Watched), fails=ValueError if fails else None)
    assert waits == [False]


# -- An app and a server that both fail -------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["send() raises", "the request is cancelled"])
def test_app_that_failed_is_logged_if_the_server_ends_its_request(
    ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The server has an error of its own and gets no second one, so the app's would be lost."""

    async def main() -> None:
        sending = Signal("send() was called")
        app = raising(ValueError("of the app"), b"first", b"second")

        async def on_send(_number: int, _message: Message) -> None:
            await app.closed.wait_in_task()  # so it has failed
            sending.set()
            if ending == "send() raises":
                raise ConnectionResetError("by the server")
            await asyncio.get_running_loop().create_future()

        client = Client(on_send=on_send)
        task = asyncio.ensure_future(answer(WSGIMiddleware(app), client, fails=ConnectionResetError))
        await sending.wait_in_task()
        if ending != "send() raises":
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    run(main())
    errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info is not None]
    caplog.clear()  # the error's traceback leads to the bridge
    assert errors == ["of the app"]


def test_last_part_of_a_body_for_which_there_is_no_memory_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's read raises instead of waiting for ever, and the server has the error."""

    def put(stream: ToThread, chunk: bytes) -> None:
        if chunk == b"last":
            raise MemoryError
        original(stream, chunk)

    original = ToThread.put
    monkeypatch.setattr(ToThread, "put", put)
    bridge = WSGIMiddleware(echo.app, request_buffer_bytes=0)

    async def main() -> None:
        client = Client(b"first", b"last")
        response = await answer(bridge, client, http_scope("POST"), fails=MemoryError)
        assert response.messages == []
        assert bridge.statistics().busy == 0

    run(main())


# -- Task factories ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [[], [EXPECTS]], ids=["streamed", "asked for"])
def test_task_factory_that_raises_fails_a_request_whose_body_it_would_bring(headers: list[Any]) -> None:
    """The app's read raises instead of waiting for ever, and the server has the error."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        client = Client(b"part", complete=False)
        bridge = WSGIMiddleware(echo.app, request_buffer_bytes=4)
        scope = http_scope("POST", headers=headers)
        task = asyncio.ensure_future(answer(bridge, client, scope, fails=LookupError))

        def factory(_loop: object, _coroutine: object, **_: object) -> Any:
            loop.set_task_factory(None)
            raise LookupError("the factory")

        loop.set_task_factory(factory)
        assert type((await task).raised) is LookupError
        assert bridge.statistics().busy == 0

    run(main())


def test_request_whose_tick_fails_keeps_the_timer_from_nobody() -> None:
    """The others are looked after in the same tick."""

    class Request:
        def __init__(self, error: Exception | None) -> None:
            self.error, self.ticks = error, 0

        def tick(self, now: float) -> None:
            self.ticks += 1
            if self.error is not None:
                raise self.error

        def abort(self, ending: object, error: object, detail: object = "") -> None: ...

        def renew_locks(self) -> None: ...

    async def main() -> None:
        loop = BridgeLoop(Runtime(asyncio.get_running_loop()))
        requests = [Request(LookupError("in a tick")), Request(None), Request(LookupError("in a tick"))]
        for request in requests:
            loop.enter(request)
        await until(lambda: all(request.ticks > 1 for request in requests))
        for request in requests:
            loop.leave(request)
        await until(lambda: not loop._ticking)

    run(main())


# -- Statistics -------------------------------------------------------------------------------------------------------


def test_each_loop_counts_by_itself_and_is_not_forgotten() -> None:
    """No count is lost where two loops count at a time, since none is shared; nor with a loop that was closed."""
    bridge = WSGIMiddleware(endless())

    def lose_one() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 2:
                raise ConnectionResetError

        call(bridge, Client(on_send=on_send), fails=ConnectionResetError)

    in_thread(lose_one).result()
    first = bridge._shared.loops.known()[0]
    assert (first.disconnected, bridge.statistics().disconnected) == (1, 1)
    in_thread(lose_one).result()
    assert (first.disconnected, bridge.statistics().disconnected) == (1, 2)
    assert len(bridge._shared.loops.known()) == 1


# -- Reference cycles -------------------------------------------------------------------------------------------------


async def _answer_quietly(bridge: Any, client: Client, scope: Any) -> None:
    with contextlib.suppress(Exception, asyncio.CancelledError):  # what it is does not matter here
        await bridge(scope, client.receive, client.send)


async def _leave_at(number: int, client: Client) -> None:
    if number == 2:
        client.leave()


async def _fail_at(number: int, _: Client) -> None:
    if number == 2:
        raise ConnectionResetError


async def _cancel_at(number: int, _: Client) -> None:
    task = asyncio.current_task()
    assert task is not None
    if number == 2:
        task.cancel()


async def _stall_at(number: int, _: Client) -> None:
    if number == 2:
        await asyncio.get_running_loop().create_future()


def _slow(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    environ["a2wsgi.disconnected"].wait(0.03)  # some ticks
    return hello.app(environ, start_response)


def _fails(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    environ["a2wsgi.disconnected"].wait(0.03)
    raise ValueError("before the head")


async def _late_asgi(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": False})
    raise ValueError("after the response")


BIG = [b"x" * 65_536] * 3

KINDS: dict[str, tuple[Callable[[], Any], tuple[list[bytes], bool], Any, dict[str, Any]]] = {
    "quick": (lambda: hello.app, ([], True), None, {}),
    "takes some ticks": (lambda: _slow, ([], True), None, {}),
    "big body": (lambda: echo.app, (BIG, True), None, {}),
    "big body, spooled": (lambda: echo.app, (BIG, True), None, {"spool_request": True}),
    "client left": (lambda: Counting([b"x"] * 9), ([], True), _leave_at, {"response_buffer_bytes": 0}),
    "client left, watched": (endless, ([], True), _leave_at, {}),
    "send failed": (endless, ([], True), _fail_at, {}),
    "cancelled": (endless, ([], True), _cancel_at, {}),
    "stalled": (endless, ([], True), _stall_at, {"send_timeout": 0.02}),
    "silent": (lambda: echo.app, (BIG, False), None, {"receive_timeout": 0.02}),
    "silent ahead": (lambda: echo.app, ([b"x"], False), None, {"receive_timeout": 0.02}),
    "too large": (lambda: echo.app, (BIG, True), None, {"max_request_bytes": 65_537}),
    "failed": (lambda: _fails, ([], True), None, {}),
    "failed, big body": (lambda: _fails, (BIG, False), None, {}),
    "failed in the response": (lambda: Counting([b"x", ValueError("later")]), ([], True), None, {}),
    "failed in close": (lambda: Counting([b"x"], close_error=ValueError("late")), ([], True), None, {}),
    "no head": (lambda: lambda *_: [b"x"], ([], True), None, {}),
    "nested": (lambda: ASGIMiddleware(WSGIMiddleware(hello.app)), ([], True), None, {}),
    "nested, fails late": (lambda: ASGIMiddleware(_late_asgi), ([], True), None, {}),
}


@pytest.mark.skipif(not hasattr(gc, "set_debug"), reason="on PyPy all that dies is left to the collector")
@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason='PEP 703, "Biased" and "Deferred Reference Counting": more of what dies is left to the collector',
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_request_leaves_nothing_to_the_garbage_collector(kind: str) -> None:
    """Whatever its ending, all of it is gone when it is over: with the collector off, too."""
    make, (parts, complete), at, options = KINDS[kind]
    bridge = WSGIMiddleware(make(), **options)
    logging.getLogger("a2wsgi").disabled = True  # caplog would keep errors, and with them requests

    async def one() -> None:
        client = Client(*parts, complete=complete)
        if at is not None:
            client._on_send = lambda number, _: at(number, client)
        await asyncio.gather(_answer_quietly(bridge, client, http_scope("POST" if parts else "GET")))

    async def main() -> list[object]:
        for _ in range(2):
            await one()
        await until(lambda: bridge.statistics().busy == 0)
        gc.collect()
        gc.disable()
        try:
            await one()
            await until(lambda: bridge.statistics().busy == 0)
            for _ in range(3):
                await asyncio.sleep(0)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            return [thing for thing in gc.garbage if _is_ours(thing)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    try:
        assert asyncio.run(main()) == []
    finally:
        logging.getLogger("a2wsgi").disabled = False
        if isinstance(bridge.app, ASGIMiddleware):
            bridge.app.close()


def _is_ours(thing: object) -> bool:
    kind = type(thing)
    if isinstance(thing, types.FrameType):
        return "/a2wsgi/" in thing.f_code.co_filename
    return kind.__module__.startswith("a2wsgi") or issubclass(kind, BaseException | asyncio.Task)
