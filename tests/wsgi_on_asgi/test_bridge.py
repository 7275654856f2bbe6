"""The bridge around a WSGI app: its class and options, lifespan, loops and processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import logging
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from a2wsgi import (
    ASGIMiddleware,
    ClientDisconnected,
    ServerProtocolError,
    Statistics,
    WSGIMiddleware,
)
from a2wsgi._wsgi_on_asgi import workers as _workers
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import hello
from apps.counting import Counting, endless
from apps.recording import Recording
from apps.waiting import Waiting
from support.asgi_driver import DISCONNECT, Client, Message, answer, call, http_scope, run, until
from support.bridges import Bridged
from support.forks import forks_with_threads, in_child, needs_fork
from support.lockstep import BOUND_SECONDS, Signal
from support.runtimes import gather, on, rest, start, within
from support.threads import in_thread
from support.wsgi_requests import HELLO, LIFESPAN, our_log

pytestmark = pytest.mark.usefixtures("runtime")

# -- The class --------------------------------------------------------------------------------------------------------


def test_bridge_is_an_asgi3_app_to_servers() -> None:
    """Servers look whether ``app.__call__`` is a coroutine function."""
    assert inspect.iscoroutinefunction(WSGIMiddleware(hello.app).__call__)


def test_bridge_shows_the_return_type_of_a_coroutine_function() -> None:
    """It passes for one, and those are annotated with what they return when awaited. Litestar asks."""
    call = WSGIMiddleware(hello.app).__call__
    assert call.__annotations__["return"] == inspect.signature(call).return_annotation == "None"


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
        "disconnected=0, stalled=0, websockets=0, timed_out=0, overdue=0)>"
    )


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
    pytest.importorskip("websockets")
    caplog.set_level(logging.INFO, "a2wsgi")
    client = Client(messages=[{"type": "websocket.connect"}])
    response = call(bridged(hello.app), client, {"type": "websocket", "path": "/ws"})
    assert response.messages == [{"type": "websocket.close", "code": 1008, "reason": ""}]
    assert our_log(caplog) == [("INFO", "403 to a WebSocket at '/ws': the app's answer is 200")]


# -- The app runs -----------------------------------------------------------------------------------------------------


def test_workers_start_on_demand(bridged: Bridged) -> None:
    """There are as many threads as were needed at a time, and the idle one is taken again."""

    async def main() -> None:
        app = Waiting()
        bridge = bridged(app)
        first = start(answer(bridge))
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
        tasks = [start(answer(bridge)) for _ in range(41)]
        await until(lambda: len(app.threads) == 40)
        assert bridge.statistics() == Statistics(40, 40, 1, 41, 0, 0, 0)
        app.let.set()
        await gather(*tasks)
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


# -- Lifespan, loops, processes ---------------------------------------------------------------------------------------


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
        lifespan = start(answer(bridge, server, dict(LIFESPAN)))
        request = start(answer(bridge))
        await app.entered.wait_in_task()
        server.say({"type": "lifespan.shutdown"})
        await until(lambda: server.receives == 2 and not server.hungry.is_set())
        for _ in range(20):
            await rest()
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
        request = start(answer(bridge, Client()))
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
        request = start(answer(bridge))
        await started.wait_in_task()
        server = Client(messages=[{"type": "lifespan.shutdown"}])
        await answer(bridge, server, dict(LIFESPAN))
        assert (await request).messages == []

    run(main())
    assert errors == ["the server is shutting down"]


def app_inside(entered: Signal, let: Signal) -> tuple[Any, list[str]]:
    """An ASGI app that says when it is called, and waits to be let; and which phases of its lifespan have come."""
    said: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                said.append(phase)
                await send({"type": f"lifespan.{phase}.complete"})
            return
        await receive()
        entered.set()
        await within(BOUND_SECONDS, let.wait_in_task())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    return inner, said


def test_shutdown_of_one_of_two_servers_ends_no_request_of_the_other() -> None:
    """They have one loop, as for http and https. The last to shut down ends what still runs, and an app inside."""
    entered, let = Signal("the app was called"), Signal("the app may answer")
    inner, said = app_inside(entered, let)

    async def main() -> None:
        bridge: Any = WSGIMiddleware(ASGIMiddleware(inner), shutdown_timeout=0)
        servers = [Client(messages=[{"type": "lifespan.startup"}]) for _ in range(2)]
        lifespans = [start(answer(bridge, server, dict(LIFESPAN))) for server in servers]
        await until(lambda: all(server.sent for server in servers))
        request = start(answer(bridge))
        await entered.wait_in_task()
        servers[0].say({"type": "lifespan.shutdown"})
        await lifespans[0]
        let.set()
        assert (await request).body == b"done"
        assert said == ["startup"]
        servers[1].say({"type": "lifespan.shutdown"})
        await lifespans[1]
        ends = [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]
        assert [server.sent for server in servers] == [ends, ends]

    run(main())
    assert said == ["startup", "shutdown"]


def test_two_servers_that_shut_down_at_once_end_an_app_inside() -> None:
    """The lifespans of both are still open when the second one looks; the app inside is shut down, once."""
    said: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        for phase in ("startup", "shutdown"):
            await receive()
            said.append(phase)
            await send({"type": f"lifespan.{phase}.complete"})

    async def main() -> None:
        bridge: Any = WSGIMiddleware(ASGIMiddleware(inner))
        complete: list[object] = []
        both = asyncio.Event()

        async def serve() -> None:
            messages = iter(("lifespan.startup", "lifespan.shutdown"))

            async def receive() -> dict[str, Any]:
                return {"type": next(messages)}

            async def send(message: Any) -> None:
                if message["type"] == "lifespan.shutdown.complete":
                    complete.append(message)
                    if len(complete) == 2:
                        both.set()
                    await both.wait()

            await bridge(dict(LIFESPAN), receive, send)

        await asyncio.wait_for(asyncio.gather(serve(), serve()), BOUND_SECONDS)
        assert said == ["startup", "shutdown"]

    asyncio.run(main())


def test_shutdown_of_one_of_two_loops_leaves_an_app_inside_to_the_requests_of_the_other() -> None:
    """Their servers shut down at once, and one still waits for a request, which the app inside answers."""
    entered, let, started = Signal("the app was called"), Signal("the app may answer"), Signal("the other has started")
    inner, said = app_inside(entered, let)
    bridge: Any = WSGIMiddleware(ASGIMiddleware(inner))

    async def main() -> None:
        server = Client(messages=[{"type": "lifespan.startup"}])
        lifespan = start(answer(bridge, server, dict(LIFESPAN)))
        await until(lambda: bool(server.sent))
        other = in_thread(run, serve())
        await started.wait_in_task()
        request = start(answer(bridge))
        await entered.wait_in_task()
        server.say({"type": "lifespan.shutdown"})
        await until(lambda: bridge._shared.loops.here().draining)
        stop.set()
        await other.result_in_task()
        let.set()
        assert (await request).body == b"done"
        assert said == ["startup"]
        await lifespan

    async def serve() -> None:
        server = Client(messages=[{"type": "lifespan.startup"}])
        lifespan = start(answer(bridge, server, dict(LIFESPAN)))
        await until(lambda: bool(server.sent))
        started.set()
        await stop.wait_in_task()
        server.say({"type": "lifespan.shutdown"})
        await lifespan

    stop = Signal("the other is to shut down")
    run(main())
    assert said == ["startup", "shutdown"]


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
def test_child_forked_during_a_request_does_not_wait_for_its_body() -> None:
    """What the client sends comes to the parent. The child's read ends within a second, by an error."""
    told: list[bytes] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def in_the_child() -> bytes:
            with pytest.raises(ClientDisconnected, match="loop was closed"):
                environ["wsgi.input"].read()
            return b"raised"

        first = environ["wsgi.input"].read(9)
        told.append(in_child(in_the_child))
        client.say({"type": "http.request", "body": b"rest"})
        start_response("200 OK", [])
        return [first + environ["wsgi.input"].read()]

    client = Client(messages=[{"type": "http.request", "body": b"body and ", "more_body": True}])
    response = call(WSGIMiddleware(app, request_buffer_bytes=0), client, http_scope("POST"))
    assert told == [b"raised"]
    assert response.body == b"body and rest"


@needs_fork
@forks_with_threads
@pytest.mark.parametrize("held_at_the_fork", ["response", "body", "doorbell"])
def test_child_forked_during_a_request_waits_for_no_lock_of_its_parent(held_at_the_fork: str) -> None:
    """The child goes on in the app. Nobody would release there what the loop thread holds as the process is forked."""
    told: list[bytes] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        (request,) = bridge._shared.loops.known()[0].in_flight
        locks = {
            "response": request._output,
            "body": request._receiver.stream,
            "doorbell": request._loop.runtime.doorbell,
        }
        held, taken, forked = locks[held_at_the_fork]._lock, Signal("a thread holds the lock"), Signal("forked")

        def hold() -> None:
            with held:
                taken.set()
                forked.wait()

        write = start_response("200 OK", [])
        environ["wsgi.input"].read(1)

        def in_the_child() -> bytes:
            with contextlib.suppress(ClientDisconnected):
                environ["wsgi.input"].read()
            write(b"from the child")
            return b"went on"

        holder = in_thread(hold)
        taken.wait()
        told.append(in_child(in_the_child))
        forked.set()
        holder.result()
        yield b"from the parent"

    client = Client(messages=[{"type": "http.request", "body": b"b", "more_body": True}, DISCONNECT])
    bridge: Any = WSGIMiddleware(app, request_buffer_bytes=0, ignore_disconnect=True)
    assert call(bridge, client, http_scope("POST")).body == b"from the parent"
    assert told == [b"went on"]


@needs_fork
@forks_with_threads
def test_bridge_serves_in_a_child_forked_during_a_request(bridged: Bridged) -> None:
    """A child that is forked while the parent serves begins from nothing."""
    app = Waiting()
    bridge = bridged(app, workers=1)

    def in_the_child() -> bytes:
        app.let = Signal("in the child")
        app.let.set()
        with on("asyncio"):  # trio runs no other run within a run, not even in a child
            body = call(bridge).body
        return body + repr(bridge.statistics()).encode()

    async def main() -> bytes:
        request = start(answer(bridge))
        await app.entered.wait_in_task()
        told = in_child(in_the_child)
        app.let.set()
        assert (await request).body == b"done"
        return told

    assert run(main()) == b"done" + repr(Statistics(1, 0, 0, 0, 0, 0, 0)).encode()
