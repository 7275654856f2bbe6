"""How a request of a WSGI app ends, and who is told."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from a2wsgi import (
    AppError,
    ClientDisconnected,
    Statistics,
    WSGIMiddleware,
)
from a2wsgi._wsgi_on_asgi import loops as _loops
from a2wsgi._wsgi_on_asgi import workers as _workers
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import hello
from apps.counting import Counting, endless
from apps.raising import Place, Raising
from apps.waiting import Waiting
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
from support.bridges import Bridged
from support.lockstep import BOUND_SECONDS, Signal
from support.runtimes import CANCELLATIONS, cancelled, for_ever, gather, only_on, pause, rest, start, within
from support.wsgi_requests import HELLO, our_log

pytestmark = pytest.mark.usefixtures("runtime")

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
            await for_ever()

    async def happen(self) -> None:
        fails = {"send failed": ConnectionResetError}.get(self.how)
        self.client = Client(b"part", complete=False, on_send=self.on_send)
        self.task = start(answer(self.bridge, self.client, http_scope("POST"), fails=fails))
        if self.how == "cancelled":
            await cancelled(self.task)
            self.response = Response(self.client.sent)
        else:
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
    stalled = ("WARNING", "Request aborted: the client read nothing of its response for 0.05 s")
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
        "send failed": "the server raised ConnectionResetError",
        "cancelled": "the server cancelled the request",
        "stalled": "it read nothing of its response for 0.05 s",
    }[how]
    assert [error.reason for error in errors] == [reason, reason]


@pytest.mark.usefixtures("quick_timer")
def test_call_waits_for_an_app_whose_client_left() -> None:
    """A worker that is still in app code is waited for; the server is told when it is out."""

    async def main() -> None:
        app = Waiting()
        bridge = WSGIMiddleware(app)
        client = Client()
        task = start(answer(bridge, client))
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
        task = start(answer(bridge, client))
        await inside.wait_in_task()
        if when == "client left":
            client.leave()
            await until(lambda: bridge.statistics().disconnected == 1)
        elif when == "in close":
            await until(lambda: len(client.sent) > 1 and not client.sent[-1]["more_body"])
        else:
            await until(lambda: client.sends == 2)
        task.cancel()
        await within(BOUND_SECONDS, cancelled(task))
        assert not over.is_set()
        let.set()
        await over.wait_in_task()

    run(main())


def test_disconnect_is_noticed_within_a_second(caplog: pytest.LogCaptureFixture) -> None:
    """An app that says nothing learns of it from ``a2wsgi.disconnected``; the log has it at DEBUG."""
    assert _loops.TICK_SECONDS < 1
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


@pytest.mark.usefixtures("quick_timer")
def test_ignored_disconnect_lets_the_app_run_to_its_end_though_send_raises() -> None:
    """Some servers tell by ``send()`` alone that the client left. The server gets its error when the app is done."""
    app = Counting([b"chunk"] * 5)
    client = Client(on_send=_raise_reset)
    bridge = WSGIMiddleware(app, ignore_disconnect=True, response_buffer_bytes=0)
    call(bridge, client, fails=ConnectionResetError)
    assert (app.given, app.closes, client.sends) == (5, 1, 1)
    assert bridge.statistics().disconnected == 1


async def _raise_reset(_number: int, _message: Message) -> None:
    raise ConnectionResetError("by peer")


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
        first = start(answer(bridge))
        await app.entered.wait_in_task()
        client = Client()
        queued = start(answer(bridge, client))
        await until(lambda: bridge.statistics().queued == 1)
        if how == "left":
            client.leave()
            await queued
        else:
            queued.cancel()
            await cancelled(queued)
        assert client.sent == []
        assert bridge.statistics() == Statistics(1, 1, 0, 1, 0, int(how == "left"), 0)
        app.let.set()
        await first
        await answer(bridge)
        assert len(app.threads) == 2

    run(main())


def test_queue_is_unbounded_by_default(bridged: Bridged) -> None:
    """Nobody is shed who did not ask for it."""

    async def main() -> None:
        app = Waiting()
        bridge = bridged(app, workers=1)
        # More than the workers that there are by default. They come one by one, and each has a bounded time.
        tasks = [start(answer(bridge)) for _ in range(50)]
        await until(lambda: bridge.statistics().queued == 49)
        app.let.set()
        assert {response.body for response in await gather(*tasks)} == {b"done"}
        assert bridge.statistics().shed == 0

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
        bridge = WSGIMiddleware(app, workers=1)
        first = start(answer(bridge))
        await entered.wait_in_task()
        second = start(answer(bridge))
        await until(lambda: bridge.statistics().queued == 1)
        queued_at = time.monotonic()
        await until(lambda: time.monotonic() >= queued_at + 0.02)
        let.set()
        await gather(first, second)
        return time.monotonic() - queued_at

    elapsed = run(main())
    assert waited[0] >= 0
    assert 0.02 <= waited[1] <= elapsed + 0.02 + BOUND_SECONDS


def test_thread_that_cannot_be_started_fails_its_request(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that gives no thread is an error of this request at once, never a hang; the next may fare better."""

    async def main() -> None:
        bridge = bridged(hello.app)
        with monkeypatch.context() as patch:
            patch.setattr(_workers._Worker, "start", _no_thread)
            response = await within(2, answer(bridge, fails=RuntimeError))
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
                await for_ever()

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
            await pause(0.03)  # a client that takes its time, by less than the timeout

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
                (request,) = bridge._shared.loops.here().in_flight
                output = request._output  # type: ignore[attr-defined]  # a _Request
                output._limit *= 7
                for _tick in range(3):
                    await pause(_loops.TICK_SECONDS)
                limits.append(output._limit)

        bridge = WSGIMiddleware(hello.app, response_buffer_bytes=10)
        client = Client(on_send=on_send)
        await bridge(http_scope(), client.receive, client.send)

    run(main())
    assert limits == [10]


@pytest.mark.usefixtures("quick_timer")
def test_stalled_client_is_waited_for_without_a_timeout(bridged: Bridged) -> None:
    """``send_timeout=None`` waits for as long as it takes: here twenty ticks."""

    async def main() -> None:
        async def on_send(_: int, __: Message) -> None:
            for _ in range(20):
                await pause(_loops.TICK_SECONDS)  # as many ticks as would find it stalled

        bridge = bridged(hello.app, send_timeout=None)
        assert (await answer(bridge, Client(on_send=on_send))).messages == HELLO

    run(main())


@pytest.mark.usefixtures("quick_timer")
@pytest.mark.parametrize("how", ["swallows", "raises another"])
def test_interrupted_send_leaves_no_cancellation_behind(bridged: Bridged, how: str, runtime: str) -> None:
    """A server's ``send()`` may make what it likes of the cancellation that gives a stalled client up."""

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            try:
                await for_ever()
            except CANCELLATIONS:
                if how == "raises another":
                    raise ConnectionResetError from None

        bridge = bridged(hello.app, send_timeout=0.05)
        await answer(bridge, Client(on_send=on_send))
        if sys.version_info >= (3, 11) and runtime != "trio":
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
        await rest()  # a cancellation that was left behind would be raised here
        assert bridge.statistics().stalled == 1

    run(main())


@only_on("asyncio", "uvloop", reason="trio raises Cancelled anew wherever such a task waits")
@pytest.mark.usefixtures("quick_timer", "runtime")
def test_interruption_is_known_in_a_task_that_survived_a_cancellation(bridged: Bridged) -> None:
    """A task that was cancelled once and went on all the same has its stalled request end quietly."""

    async def survivor(bridge: WSGIMiddleware, client: Client) -> None:
        try:
            await for_ever()
        except CANCELLATIONS:
            await answer(bridge, client)

    async def main() -> None:
        async def on_send(_: int, __: Message) -> None:
            await for_ever()

        bridge = bridged(hello.app, send_timeout=0.05)
        task = start(survivor(bridge, Client(on_send=on_send)))
        await rest()
        task.cancel()
        await task
        assert bridge.statistics().stalled == 1

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 does not count cancellations")
@only_on("asyncio", "uvloop", reason="it says so in asyncio's words; test_trio has trio's")
@pytest.mark.usefixtures("quick_timer", "runtime")
def test_cancellation_is_not_taken_for_an_interruption(bridged: Bridged) -> None:
    """A server that cancels a request at the moment in which it is given up has its cancellation."""

    async def main() -> None:
        async def on_send(_: int, __: Message) -> None:
            forever = asyncio.get_running_loop().create_future()
            # 1. The bridge interrupts send(). 2. The server cancels, too. 3. The task gets one CancelledError for both.
            forever.add_done_callback(lambda _: task.cancel())
            await forever

        bridge = bridged(hello.app, send_timeout=0.05)
        task = start(answer(bridge, Client(on_send=on_send)))
        await cancelled(task)
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


# -- What apps and middleware do that they need not -------------------------------------------------------------------


def test_log_that_fails_keeps_nobody_waiting() -> None:
    """What a logging filter of the user's raises changes nothing, and the worker lives on."""

    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise LookupError("the filter")

    broken = Broken()
    bridge = WSGIMiddleware(Counting([b"x"], close_error=ValueError("in close")), workers=1)
    logging.getLogger("a2wsgi").addFilter(broken)
    try:
        for _ in range(2):
            assert call(bridge).body == b"x"
    finally:
        logging.getLogger("a2wsgi").removeFilter(broken)
    assert bridge.statistics() == Statistics(1, 0, 0, 0, 0, 0, 0)


def test_os_error_of_the_app_is_no_client_that_left(bridged: Bridged) -> None:
    """A file that is missing, say."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"first"
        raise FileNotFoundError("no such file")

    bridge = bridged(app)
    call(bridge, fails=FileNotFoundError)
    assert bridge.statistics().disconnected == 0
