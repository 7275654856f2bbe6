"""What is trio's own: cancelled nurseries, Cancelled that must get through, interrupts, and runs that end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from a2wsgi import AppError, ASGIMiddleware, ClientDisconnected, WSGIMiddleware
from a2wsgi._threads import runtime_trio
from a2wsgi._threads import stream as _stream
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import hello
from apps.counting import Counting, endless
from apps.waiting import Waiting
from support import runtimes
from support.asgi_driver import Client, Message, answer, body_message, http_scope, messages_of, run, until
from support.lockstep import BOUND_SECONDS, Signal
from support.runtimes import cancelled, only_on, start
from support.threads import in_thread
from support.trio_runs import breaking_clock

trio = pytest.importorskip("trio")

pytestmark = [pytest.mark.usefixtures("runtime"), only_on("trio", reason="it is about trio")]

HELLO = messages_of(200, [(b"content-type", b"text/plain"), (b"content-length", b"5")], b"hello")


def settled(bridge: WSGIMiddleware) -> Callable[[], bool]:
    """Whether nothing of a bridge runs any more."""
    return lambda: (bridge.statistics().busy, bridge.statistics().in_flight, bridge.statistics().queued) == (0, 0, 0)


# -- Cancellation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["read ahead", "spooled", "queued", "at work", "in send", "reading", "watched"])
def test_nursery_that_is_cancelled_has_its_requests_back(where: str) -> None:
    """A server that stops cancels its nursery: each request ends at once, wherever it waits, and so does its app."""
    let = Signal("the app was let go")
    raised: list[BaseException] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        try:
            if where in {"at work", "watched"}:
                assert environ["a2wsgi.disconnected"].wait(BOUND_SECONDS)
            elif where == "reading":
                environ["wsgi.input"].read()
            elif where == "queued":
                let.wait()
            while True:
                yield b"x"
        except ClientDisconnected as error:
            raised.append(error)
            raise

    async def main() -> None:
        stuck = Signal("send() waits")

        async def on_send(number: int, _: Message) -> None:
            if where == "in send" and number == 2:
                stuck.set()
                await trio.sleep_forever()

        bridge = WSGIMiddleware(app, workers=1, spool_request=where == "spooled", request_buffer_bytes=2)
        complete = where not in {"read ahead", "spooled", "reading"}
        clients = [Client(b"x" if where == "read ahead" else b"xyz", complete=complete, on_send=on_send)]
        if where == "queued":
            clients.append(Client())
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(bridge, http_scope("POST"), client.receive, client.send)
            if where == "in send":
                await stuck.wait_in_task()
            elif where in {"read ahead", "spooled", "reading", "watched"}:
                await clients[0].hungry.wait_in_task()
            elif where == "queued":
                await until(lambda: bridge.statistics().queued == 1)
            else:
                await until(lambda: bridge.statistics().busy == 1)
            nursery.cancel_scope.cancel()
        assert bridge.statistics().in_flight == 0
        let.set()
        await until(settled(bridge))
        assert (bridge.statistics().disconnected, bridge.statistics().stalled) == (0, 0)
        assert all(client.faults == [] for client in clients)

    run(main())
    assert [str(error.args) for error in raised if "cancelled" not in str(error)] == []


def test_cancellation_is_not_taken_for_an_interruption() -> None:
    """The race: 1. The bridge interrupts send(). 2. The server cancels, too. 3. The task gets one Cancelled."""

    async def main() -> None:
        async def on_send(_: int, __: Message) -> None:
            try:
                await trio.sleep_forever()
            finally:
                job.cancel()

        bridge = WSGIMiddleware(hello.app, send_timeout=0.05)
        job = start(answer(bridge, Client(on_send=on_send)))
        await cancelled(job)
        assert bridge.statistics().stalled == 1

    run(main())


def test_server_that_gives_a_request_a_time_has_its_error() -> None:
    """``fail_after`` around the app raises TooSlowError, and the worker is free again."""

    async def main() -> None:
        app = endless()
        bridge = WSGIMiddleware(app, workers=1)
        client = Client()
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.02):
            await bridge(http_scope(), client.receive, client.send)
        await until(settled(bridge))
        assert app.closes == app.calls

    run(main())


def test_error_beside_a_cancellation_reaches_the_server() -> None:
    """``send()`` of a server may have tasks of its own: what they raise together comes as a group, and gets through."""
    app = endless()

    async def fails() -> None:
        raise LookupError("of a task")

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 2:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fails)
                    nursery.start_soon(trio.sleep_forever)

        bridge = WSGIMiddleware(app)
        client = Client(on_send=on_send)
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - ExceptionGroup, which 3.10 does not have
            await bridge(http_scope(), client.receive, client.send)
        assert [type(error) for error in caught.value.exceptions] == [LookupError]  # type: ignore[attr-defined]
        await until(settled(bridge))

    run(main())
    assert app.closes == 1


@pytest.mark.parametrize("kind", [LookupError, OSError, trio.EndOfChannel])
def test_receive_that_raises_in_a_task_beside_does_not_end_the_run(kind: type[Exception]) -> None:
    """The rest of a body is received by a system task, whose errors would be fatal to the run."""
    error = kind("of receive")
    reads: list[BaseException] = []

    class Broken(Client):
        async def receive(self) -> Message:
            await trio.lowlevel.checkpoint()
            if self.receives:
                raise error
            self.receives += 1
            return body_message(b"part", more=True)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError as raised:
            reads.append(raised)
        return hello.app(environ, start_response)

    async def main() -> None:
        bridge = WSGIMiddleware(app, request_buffer_bytes=1)
        client = Broken()
        try:
            await bridge(http_scope("POST"), client.receive, client.send)
        except Exception as raised:  # noqa: BLE001 - an OSError is a client that left, any other is given back
            assert raised is error  # noqa: PT017
        await until(settled(bridge))
        assert (await answer(bridge, Client(messages=[body_message()]))).status == 200

    run(main())
    error.with_traceback(None)  # Python 3.13 without a GIL never frees the class, which has it
    assert len(reads) == 1
    assert isinstance(reads[0], ClientDisconnected)


def test_cancelled_of_the_app_is_an_error_of_the_app() -> None:
    """In the server's run nobody was cancelled, and trio would end the run because of it."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        caught: list[BaseException] = []

        async def gives_up() -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                try:
                    await trio.lowlevel.checkpoint()
                except trio.Cancelled as error:
                    caught.append(error)
                    raise

        trio.run(gives_up)  # a view that is async has a run of its own in the worker thread
        raise caught.pop()

    async def main() -> None:
        bridge = WSGIMiddleware(app)
        response = await answer(bridge, fails=AppError)
        assert isinstance(response.raised, AppError)
        assert isinstance(response.raised.__cause__, trio.Cancelled)
        del response
        await trio.lowlevel.checkpoint()

    run(main())


# -- Lifespan ---------------------------------------------------------------------------------------------------------


def test_startup_that_is_cancelled_stops_what_it_has_started() -> None:
    """Trio cancels each wait of a clean-up, too: it is shielded, and bounded by the bridges' own timeouts."""
    events: list[str] = []
    begun = Signal("the second starts")

    async def first(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        events.append("first up")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        events.append("first down")
        await send({"type": "lifespan.shutdown.complete"})

    async def second(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        begun.set()
        await asyncio.sleep(0.05)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    inner = [ASGIMiddleware(first), ASGIMiddleware(second)]

    async def main() -> None:
        bridge = WSGIMiddleware(hello.app)
        bridge.carry_lifespan(inner)
        server = Client(messages=[{"type": "lifespan.startup"}])
        job = start(answer(bridge, server, {"type": "lifespan", "asgi": {"version": "3.0"}}))
        await begun.wait_in_task()
        job.cancel()
        await cancelled(job)
        assert events == ["first up", "first down"]
        assert server.sent == []

    try:
        run(main())
    finally:
        for bridge in inner:
            bridge.close()


def test_shutdown_waits_for_running_requests_and_no_longer_than_it_may() -> None:
    """Those that still run then get ClientDisconnected from their next write, and the client 503."""

    async def main() -> None:
        app = Waiting()
        bridge = WSGIMiddleware(app, shutdown_timeout=0.05)
        server = Client(messages=[{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        request = start(answer(bridge))
        await app.entered.wait_in_task()
        await answer(bridge, server, {"type": "lifespan", "asgi": {"version": "3.0"}})
        assert [message["type"] for message in server.sent] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]
        app.let.set()
        assert not (await request).complete

    run(main())


# -- Runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="A process sends itself no interrupt there.")
@pytest.mark.parametrize("where", ["at work", "in send", "read ahead"])
def test_interrupt_ends_the_run_and_frees_the_worker(where: str) -> None:
    """Ctrl-C is raised in the main task or in whichever runs. Nothing of a request holds it up or swallows it."""
    app = Waiting() if where == "at work" else endless()
    bridge = WSGIMiddleware(app, workers=1)
    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as a program in a terminal has it
    try:

        async def main() -> None:
            stuck = Signal("send() waits")

            async def on_send(_: int, __: Message) -> None:
                stuck.set()
                await trio.sleep_forever()

            client = Client(complete=where != "read ahead", on_send=on_send)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bridge, http_scope("POST"), client.receive, client.send)
                if where == "in send":
                    await stuck.wait_in_task()
                elif where == "at work":
                    await until(lambda: bridge.statistics().busy == 1)
                else:
                    await client.hungry.wait_in_task()
                os.kill(os.getpid(), signal.SIGINT)
                await trio.sleep(BOUND_SECONDS)

        with pytest.raises(BaseException) as caught:  # noqa: PT011 - a group, which 3.10 does not have
            trio.run(main)
        error: Any = caught.value
        while not isinstance(error, KeyboardInterrupt):
            (error,) = error.exceptions  # of the nurseries around it
        del error, caught
    finally:
        signal.signal(signal.SIGINT, handler)
    if isinstance(app, Waiting):
        app.let.set()
    assert bridge.statistics().in_flight == 0
    with runtimes.on("asyncio"):  # and the worker is free again
        run(until(settled(bridge)))


def test_bridge_serves_one_run_after_the_other() -> None:
    """Also when a run has ended with an app at work, which is told so by its next write."""
    app = endless()
    bridge = WSGIMiddleware(app, workers=1)

    async def leaves_a_request() -> None:
        async with trio.open_nursery() as nursery:
            client = Client()
            nursery.start_soon(bridge, http_scope(), client.receive, client.send)
            await until(lambda: len(client.sent) > 2)
            nursery.cancel_scope.cancel()

    async def another() -> None:
        client = Client()
        job = start(answer(bridge, client))
        await until(lambda: len(client.sent) > 2)
        client.leave()
        await job

    for _ in range(3):
        run(leaves_a_request())
        run(another())
    assert (app.calls, app.closes) == (6, 6)
    assert bridge.statistics().disconnected == 3  # of the runs that have ended, too


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # trio's own objects, as they go
def test_run_that_crashes_strands_neither_a_worker_nor_the_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trio then closes nothing: the worker finds out by itself, and the next run finds the bridge as it was."""
    monkeypatch.setattr(_stream, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(runtime_trio, "PROBE_SECONDS", 0.0)
    app = endless()
    bridge = WSGIMiddleware(app, workers=1)
    clock = breaking_clock()

    async def crashes() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 2:
                clock.broken = True
                await trio.sleep_forever()

        client = Client(on_send=on_send)
        await bridge(http_scope(), client.receive, client.send)

    with pytest.raises(trio.TrioInternalError):
        trio.run(crashes, clock=clock)
    app.closed.wait()
    assert bridge.statistics().in_flight == 0

    async def main() -> None:
        client = Client()
        job = start(answer(bridge, client))
        await until(lambda: len(client.sent) > 2)
        client.leave()
        await job

    run(main())
    gc.collect()


def test_one_bridge_serves_trio_and_asyncio_at_a_time() -> None:
    """Each in a thread of its own; the statistics are those of all."""
    rounds = 50
    barrier = threading.Barrier(3, timeout=BOUND_SECONDS)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/together":
            barrier.wait()
        return hello.app(environ, start_response)

    bridge = WSGIMiddleware(app)

    async def story() -> None:
        assert (await answer(bridge, None, http_scope(target="/together"))).messages == HELLO
        for _ in range(rounds):
            assert (await answer(bridge)).messages == HELLO

    threads = [in_thread(trio.run, story), in_thread(trio.run, story), in_thread(lambda: asyncio.run(story()))]
    for thread in threads:
        thread.result(2 * BOUND_SECONDS)
    assert settled(bridge)()


def test_bridge_serves_a_guest_of_asyncio() -> None:
    """In trio's guest mode: a stream whose client stalls is given up by trio's means."""
    app = endless()
    bridge = WSGIMiddleware(app, send_timeout=0.05)

    async def guest() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 2:
                await trio.sleep_forever()

        assert not (await answer(bridge, Client(on_send=on_send))).complete

    async def host() -> None:
        over = asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=over.set_result,
        )
        (await over).unwrap()

    asyncio.run(host())
    assert bridge.statistics().stalled == 1
    assert app.closes == 1


def test_bridges_of_a_run_leave_nothing_in_it() -> None:
    """A hundred that are made, called and dropped have one task in the run among them."""

    async def main() -> None:
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(100):
            await answer(WSGIMiddleware(Counting([b"x"])))
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= before + 1)

    run(main())
