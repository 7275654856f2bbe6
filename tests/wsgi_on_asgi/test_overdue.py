"""``app_timeout`` of `WSGIMiddleware`: what becomes of an app that does not begin its response in time.

The timeout is tiny, and nothing is expected to happen within a time: what must not happen before is kept from it by a
signal.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from a2wsgi import AppTimeout, ASGIMiddleware, ClientDisconnected, WSGIMiddleware, run_in_loop
from a2wsgi._wsgi_on_asgi import overdue
from a2wsgi._wsgi_on_asgi.jobs import Job
from a2wsgi._wsgi_on_asgi.request import Request
from a2wsgi._wsgi_on_asgi.workers import Workers
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import hello
from apps.waiting import Waiting
from support.asgi_driver import Client, answer, http_scope, messages_of, run, until
from support.bridges import Bridged, only_single
from support.lockstep import Signal
from support.wsgi_driver import call as call_wsgi

pytestmark = pytest.mark.usefixtures("quick_timer")

TIMED_OUT = messages_of(
    504, [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"20")], b"504 Gateway Timeout\n"
)


class Dispatch:
    """An app that waits under ``/wait``, and answers everywhere else."""

    def __init__(self) -> None:
        self.waiting = Waiting()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return (self.waiting if environ["PATH_INFO"] == "/wait" else hello.app)(environ, start_response)


@contextlib.contextmanager
def waiting(**options: Any) -> Iterator[tuple[WSGIMiddleware, Waiting]]:
    """A bridge with an app that waits under ``/wait`` until the end of the block."""
    app = Dispatch()
    try:
        yield WSGIMiddleware(app, app_timeout=0.01, **options), app.waiting
    finally:
        app.waiting.let.set()


def of_timeouts(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of apps that were late."""
    return [record.getMessage() for record in caplog.records if "app_timeout" in record.getMessage()]


def test_late_app_is_answered_504(bridged: Bridged, caplog: pytest.LogCaptureFixture) -> None:
    """The client has its answer though the app never ends; one record has the stack of its thread."""
    app = Waiting()

    async def main() -> None:
        bridge = bridged(app, app_timeout=0.01)
        assert (await answer(bridge, scope=http_scope("GET", "/late?secret=1"))).messages == TIMED_OUT
        timed_out.append(bridge.statistics().timed_out)
        assert bridge.statistics().in_flight == 0
        app.let.set()
        await until(lambda: bridge.statistics().overdue == 0)

    timed_out: list[int] = []
    run(main())
    first, *_ = records = of_timeouts(caplog)
    assert len(records) <= 2  # of three bridges, two have the option
    assert timed_out == [1] or len(records) == timed_out[0] + 1  # the innermost was the first, or the only one
    assert first.startswith("504 to a request: GET '/late' has not begun its response within app_timeout=0.01 s.")
    assert "secret" not in first
    assert "a2wsgi-worker-" in first
    assert {record.levelno for record in caplog.records if "app_timeout" in record.getMessage()} == {logging.ERROR}


@pytest.mark.skipif(not overdue._is_safe(), reason="this Python may crash if it looks at the stack of another thread")
def test_record_has_the_stack_from_the_call_of_the_app(caplog: pytest.LogCaptureFixture) -> None:
    """It begins with the app's own frame and ends where the thread waits."""
    with waiting() as (bridge, _):
        run(answer(bridge, scope=http_scope("GET", "/wait")))
    (text,) = of_timeouts(caplog)
    lines = [line for line in text.splitlines() if line.startswith('  File "')]
    assert lines[0].endswith("in __call__")
    assert "test_overdue.py" in lines[0]
    assert any("lockstep.py" in line and line.endswith("in wait") for line in lines)


@pytest.mark.parametrize("how", ["write", "yield", "read"])
def test_late_app_gets_app_timeout(how: str) -> None:
    """Its next read or write raises it, and what waits for a disconnect is told."""
    seen: list[object] = []
    over = Signal("the app is over")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if how == "yield":
            return chunks(environ, start_response)
        seen.append(environ["a2wsgi.disconnected"].wait())
        try:
            if how == "write":
                start_response("200 OK", [])(b"late")
            environ["wsgi.input"].read()
        except AppTimeout as error:
            seen.append(isinstance(error, ClientDisconnected))
            raise
        finally:
            over.set()
        return []

    def chunks(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        seen.append(environ["a2wsgi.disconnected"].wait())
        try:
            yield b"late"
        except GeneratorExit:  # it is closed before it is asked for another chunk
            seen.append(True)
            raise
        finally:
            over.set()

    async def main() -> None:
        bridge = WSGIMiddleware(app, app_timeout=0.01)
        client = Client(b"x" * 70_000, complete=False)
        assert (await answer(bridge, client, http_scope("POST"))).messages == TIMED_OUT
        await over.wait_in_task()
        await until(lambda: bridge.statistics().busy == 0)

    run(main())
    assert seen == [True, True]


def test_head_is_what_counts(caplog: pytest.LogCaptureFixture) -> None:
    """An app that has begun its response may take its time; one that only called start_response() has not begun."""
    let = Signal("the stream may end")

    def streaming(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"begun"
        let.wait()
        yield b", ended"

    def silent(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        let.wait()
        return [b""]

    async def main() -> None:
        late = WSGIMiddleware(silent, app_timeout=0.01)
        stream = WSGIMiddleware(streaming, app_timeout=0.01)
        task = asyncio.ensure_future(answer(stream))
        assert (await answer(late)).messages == TIMED_OUT  # many ticks have passed for the other one, too
        let.set()
        assert (await task).body == b"begun, ended"
        assert stream.statistics().timed_out == 0
        await until(lambda: late.statistics().busy == 0)

    run(main())
    assert len(of_timeouts(caplog)) == 1


def test_time_in_the_queue_does_not_count() -> None:
    """It runs from the app's start: a request that waits for a worker is not late."""

    async def main() -> None:
        app = Waiting()
        bridge = WSGIMiddleware(app, workers=1)
        inner = WSGIMiddleware(hello.app, app_timeout=0)
        inner._shared.workers = bridge._shared.workers  # whose one worker is busy with another request
        first = asyncio.ensure_future(answer(bridge))
        await app.entered.wait_in_task()
        second = asyncio.ensure_future(answer(inner))
        await until(lambda: inner.statistics().queued == 1)
        for _ in range(5):
            await asyncio.sleep(0.005)  # ticks
        assert inner.statistics().timed_out == 0
        app.let.set()
        assert (await first).status == 200
        assert (await second).status in {200, 504}  # it may be late once it runs

    run(main())


def test_forty_apps_that_hang_hold_nobody_back(caplog: pytest.LogCaptureFixture) -> None:
    """Each costs a thread and a record; with all 40 workers gone for ever, the health check answers as before."""

    async def main() -> None:
        with waiting() as (bridge, app):
            late = [answer(bridge, scope=http_scope("GET", "/wait")) for _ in range(40)]
            assert {one.status for one in await asyncio.gather(*late)} == {504}
            assert [(await answer(bridge, scope=http_scope("GET", "/health"))).body for _ in range(3)] == [b"hello"] * 3
            statistics = bridge.statistics()
            assert (statistics.timed_out, statistics.overdue, statistics.in_flight) == (40, 40, 0)
            assert len(set(app.threads)) == 40
            app.let.set()
            await until(lambda: bridge.statistics().busy == 0)
            assert bridge.statistics().overdue == 0
            await until(lambda: bridge.statistics().workers <= 40)

    run(main())
    assert len(of_timeouts(caplog)) == 40


def test_as_many_again_and_no_more() -> None:
    """Where it ends: with twice as many threads hanging as there are workers, requests wait."""

    async def main() -> None:
        with waiting(workers=2) as (bridge, app):
            for _ in range(4):
                assert (await answer(bridge, scope=http_scope("GET", "/wait"))).status == 504
            assert bridge.statistics().overdue == 4
            queued = asyncio.ensure_future(answer(bridge))
            await until(lambda: bridge.statistics().queued == 1)
            app.let.set()
            assert (await queued).body == b"hello"
            await until(lambda: bridge.statistics().workers <= 2)

    run(main())


def test_one_worker_is_replaced_and_then_there_is_one() -> None:
    """With ``workers=1`` the app goes on on another thread, which is the only one once the first has come back."""

    async def main() -> None:
        with waiting(workers=1) as (bridge, app):
            assert (await answer(bridge, scope=http_scope("GET", "/wait"))).status == 504
            assert (await answer(bridge)).body == b"hello"
            assert (bridge.statistics().workers, bridge.statistics().overdue) == (2, 1)
            app.let.set()
            await until(lambda: bridge.statistics().workers == 1)
            assert (await answer(bridge, scope=http_scope("GET", "/wait"))).body == b"done"
            assert app.threads[0].name != app.threads[1].name

    run(main())


def test_max_queue_does_not_count_what_hangs() -> None:
    """With ``max_queue=0`` a request is taken as long as a worker may be started for it."""

    async def main() -> None:
        with waiting(workers=1, max_queue=0) as (bridge, app):
            assert (await answer(bridge, scope=http_scope("GET", "/wait"))).status == 504
            assert (await answer(bridge)).body == b"hello"
            assert (await answer(bridge, scope=http_scope("GET", "/wait"))).status == 504
            assert (await answer(bridge)).status == 503
            app.let.set()
            await until(lambda: bridge.statistics().busy == 0)

    run(main())


@pytest.mark.parametrize("how", ["leaves", "is cancelled"])
def test_app_whose_client_is_gone_is_late_as_well(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """Clients give up before apps do. The thread is as lost, so others take its place, and the log has its stack."""

    async def main() -> None:
        with waiting(workers=1) as (bridge, app):
            client = Client()
            task = asyncio.ensure_future(answer(bridge, client, http_scope("GET", "/wait")))
            await app.entered.wait_in_task()
            if how == "leaves":
                client.leave()
                await task
            else:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await until(lambda: bridge.statistics().overdue == 1)
            assert (await answer(bridge)).body == b"hello"
            assert bridge.statistics().timed_out == 1
            app.let.set()
            await until(lambda: bridge.statistics().workers == 1)

    run(main())
    assert len(of_timeouts(caplog)) == 1


def test_app_that_a_cancelled_request_leaves_is_watched_until_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    """1. The server cancels a request whose app is not late yet. 2. The app answers in time: it is none that was late.

    Defends `_abandon_worker`: ``abandoned.add()``; and `_look_at_app`: ``abandoned.discard()``.
    """

    async def main() -> None:
        app = Waiting()
        bridge = WSGIMiddleware(app, app_timeout=1000)
        task = asyncio.ensure_future(answer(bridge))
        await app.entered.wait_in_task()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        loop = bridge._shared.loops.here()
        assert (len(loop.in_flight), len(loop.abandoned)) == (0, 1)
        app.let.set()
        await until(lambda: not loop.abandoned)
        assert (bridge.statistics().timed_out, bridge.statistics().overdue) == (0, 0)

    run(main())
    assert of_timeouts(caplog) == []


def test_app_that_ends_as_it_is_found_late_is_not_late(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """1. The timer finds that the time is over. 2. The app ends. 3. Its job cannot be written off: it is answered.

    Defends `_look_at_app`: ``return``.
    """
    original, written_off = Workers.write_off, list[object]()
    app, tell = Waiting(), Request.done
    counted, may_tell = Signal("the worker counts as free"), Signal("its job may say that it is done")

    def write_off(workers: Workers, job: Job) -> threading.Thread | None:
        app.let.set()
        counted.wait()
        worker = original(workers, job)
        written_off.append(worker)
        may_tell.set()
        return worker

    def done(request: Request) -> None:
        counted.set()
        may_tell.wait()
        tell(request)

    monkeypatch.setattr(Workers, "write_off", write_off)
    monkeypatch.setattr(Request, "done", done)

    async def main() -> None:
        bridge = WSGIMiddleware(app, app_timeout=0.01)
        assert (await answer(bridge)).body == b"done"
        assert bridge.statistics().timed_out == 0

    run(main())
    assert written_off[0] is None
    assert [record.getMessage() for record in caplog.records if record.name == "a2wsgi"] == []


def test_coroutine_of_a_late_app_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """`run_in_loop` raises it, once; the app's clean-up has the loop until its thread is done."""
    begun: list[object] = []
    cancelled: list[object] = []
    seen: list[object] = []
    look = Request._look_at_app

    def look_once_begun(request: Request, timeout: float) -> None:
        if begun:  # a task that is cancelled before its first step does not know
            look(request, timeout)

    monkeypatch.setattr(Request, "_look_at_app", look_once_begun)

    async def for_ever() -> None:
        begun.append(True)
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def clean_up() -> bool:
        return asyncio.get_running_loop().is_running()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            run_in_loop(for_ever())
        except AppTimeout as error:
            seen.append(type(error))
            seen.append(run_in_loop(clean_up()))
        start_response("200 OK", [])
        return [b""]

    async def main() -> None:
        bridge = WSGIMiddleware(app, app_timeout=0.01)
        assert (await answer(bridge)).messages == TIMED_OUT
        await until(lambda: bridge.statistics().busy == 0)

    run(main())
    assert cancelled == [True]
    assert seen == [AppTimeout, True]


@only_single("The log of one bridge.")
def test_handler_that_raises_changes_nothing(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a log handler of the user's nor a scope that cannot be shown keeps the client from its answer."""

    class RudeHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("of a handler")

    handler = RudeHandler()
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logging.getLogger("a2wsgi").addHandler(handler)
    app = Waiting()

    async def main() -> None:
        bridge = bridged(app, app_timeout=0.01)
        assert (await answer(bridge)).messages == TIMED_OUT
        app.let.set()
        await until(lambda: bridge.statistics().busy == 0)

    try:
        run(main())
    finally:
        logging.getLogger("a2wsgi").removeHandler(handler)


@pytest.mark.parametrize("inline", [False, True])
def test_pair_answers_504(inline: bool) -> None:
    """Under a WSGI server the inner bridge's option holds as well, whoever runs the loop."""
    app = Waiting()
    bridge = ASGIMiddleware(WSGIMiddleware(app, app_timeout=0.01), inline=inline)  # type: ignore[arg-type, unused-ignore]
    with bridge:
        response = call_wsgi(bridge)
        assert response.status == "504 Gateway Timeout"
        assert response.body == b"504 Gateway Timeout\n"
        app.let.set()


def test_shutdown_does_not_wait_for_what_hangs() -> None:
    """The request has its answer: nothing is left to wait for."""

    async def main() -> None:
        with waiting(shutdown_timeout=1000) as (bridge, _):
            assert (await answer(bridge, scope=http_scope("GET", "/wait"))).status == 504
            lifespan = Client(messages=[{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
            await bridge({"type": "lifespan", "asgi": {"version": "3.0"}}, lifespan.receive, lifespan.send)
            assert lifespan.sent[-1]["type"] == "lifespan.shutdown.complete"

    run(main())


def test_stack_that_cannot_be_read_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A module's loader, which finds the lines, may raise anything."""

    def fails(_: object) -> Any:
        raise LookupError("of a loader")

    caplog.set_level("DEBUG", "a2wsgi")
    # Of this thread alone, so that it is safe on any Python.
    monkeypatch.setattr(overdue, "_is_safe", lambda: True)
    monkeypatch.setattr(sys, "_current_frames", lambda: {threading.get_ident(): sys._getframe()})
    monkeypatch.setattr(traceback, "extract_stack", fails)
    assert overdue._stack(threading.get_ident()) == "  (unknown)"
    assert [record.getMessage() for record in caplog.records] == ["The stack of a thread could not be read"]
