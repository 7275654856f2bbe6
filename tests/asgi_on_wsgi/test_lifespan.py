"""Driving an app's lifespan: once a process, before its first request."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import pytest

from a2wsgi import BridgeClosed, LifespanFailed
from a2wsgi._asgi_on_wsgi import exit_and_fork as _exit_and_fork
from a2wsgi._asgi_on_wsgi.lifespan import Lifespan
from a2wsgi._asgi_on_wsgi.loops.host import LoopHost
from a2wsgi._front.asgi_middleware import ASGIMiddleware
from support.asgi_bridges import THREAD_INLINE_TRIO
from support.errors import Twofaced
from support.lockstep import Signal
from support.wsgi_driver import InThread, call, environ_of

STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer, whatever the scope."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


class App:
    """Knows lifespan, and writes down what happens; each part of it can be replaced."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.state: dict[str, Any] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.seen.append("request")
            await self.request(scope)
            await hello(scope, receive, send)
            return
        assert scope == {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        scope["state"].update(self.state)
        self.seen.append(await receive())
        await self.startup(send)
        self.seen.append(await receive())
        await self.shutdown(send)

    async def request(self, scope: Any) -> None:
        pass

    async def startup(self, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})

    async def shutdown(self, send: Any) -> None:
        await send({"type": "lifespan.shutdown.complete"})


@THREAD_INLINE_TRIO
def test_lifespan_surrounds_all_requests(options: dict[str, Any]) -> None:
    """ASGI Lifespan 2.0: startup before the first request, shutdown after the last, each once."""
    app = App()
    one = ASGIMiddleware(app, **options)
    assert app.seen == []
    for _ in range(2):
        assert call(one).body == b"hello"
    one.close()
    one.close()
    assert app.seen == [STARTUP, "request", "request", SHUTDOWN]


@THREAD_INLINE_TRIO
def test_with_block_starts_and_closes(options: dict[str, Any]) -> None:
    """DESIGN 5.1: `with` does explicitly what the first request and the end of the process do."""
    app = App()
    with ASGIMiddleware(app, **options) as one:
        one.start()
        assert app.seen == [STARTUP]
    assert app.seen == [STARTUP, SHUTDOWN]
    with pytest.raises(BridgeClosed):
        one.start()


def test_requests_wait_for_one_startup() -> None:
    """PAINS B1: startup runs once under fifty first requests at once, and all of them wait for it."""
    entered, go = Signal("entered"), Signal("go")

    class Slow(App):
        async def startup(self, send: Any) -> None:
            entered.set()
            await go.wait_in_task()
            await super().startup(send)

    app = Slow()
    one = ASGIMiddleware(app)
    calls = [InThread(lambda: call(one)) for _ in range(50)]
    entered.wait()
    assert app.seen == [STARTUP]
    go.set()
    assert [each.result().body for each in calls] == [b"hello"] * 50
    assert app.seen == [STARTUP, *["request"] * 50]


@THREAD_INLINE_TRIO
def test_state_is_copied_for_each_request(options: dict[str, Any]) -> None:
    """ASGI Lifespan 2.0, "Lifespan State": a request sees the state, and what it changes is its own."""

    class Stateful(App):
        async def request(self, scope: Any) -> None:
            self.seen.append(dict(scope["state"]))
            scope["state"]["x"] = "changed"

    app = Stateful()
    shared: list[Any] = []
    app.state = {"x": 1, "shared": shared}
    one = ASGIMiddleware(app, **options)
    call(one)
    call(one)
    assert app.seen[1:] == ["request", {"x": 1, "shared": shared}] * 2
    assert app.seen[2]["shared"] is shared


# -- Apps that do not know lifespan -----------------------------------------------------------------------------------


@THREAD_INLINE_TRIO
def test_state_of_an_earlier_startup_is_not_kept(options: dict[str, Any]) -> None:
    """What is in it was closed by the shutdown since then. An app whose second startup raises is served without."""

    class FailsLater(App):
        async def startup(self, send: Any) -> None:
            if self.seen.count(STARTUP) > 1:
                raise ValueError
            await super().startup(send)

    app = FailsLater()
    app.state = {"pool": "open"}
    one = ASGIMiddleware(app, **options)
    one.start()
    assert one.state == {"pool": "open"}
    one.stop()
    app.state = {}
    one.start()
    assert one.state == {}
    one.close()


async def refuses(scope: Any, receive: Any, send: Any) -> None:
    """Raise at once, as Django does."""
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    await hello(scope, receive, send)


async def ignores_the_type(scope: Any, receive: Any, send: Any) -> None:
    """Answer as if it were a request."""
    await hello(scope, receive, send)


async def ignores_the_type_and_receives(scope: Any, receive: Any, send: Any) -> None:
    """Take the first message, then answer as if it were a request."""
    await receive()
    await hello(scope, receive, send)


async def returns(scope: Any, receive: Any, send: Any) -> None:
    """Say nothing."""
    if scope["type"] == "http":
        await hello(scope, receive, send)


@THREAD_INLINE_TRIO
@pytest.mark.parametrize("app", [refuses, ignores_the_type, ignores_the_type_and_receives, returns])
def test_app_that_does_not_know_lifespan_is_served(
    app: Any, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """ASGI Lifespan 2.0, "Scope": the server must continue; and nothing is logged (PAINS B2)."""
    with ASGIMiddleware(app, **options) as one:
        assert call(one).body == b"hello"
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_lifespan_can_be_left_out() -> None:
    """The option lifespan=False sends no lifespan scope."""
    app = App()
    with ASGIMiddleware(app, lifespan=False) as one:
        call(one)
    assert app.seen == ["request"]


# -- Failures ---------------------------------------------------------------------------------------------------------


class BrokenError(Exception):
    """Raised by a startup."""


@THREAD_INLINE_TRIO
@pytest.mark.parametrize("said", [True, False])
def test_startup_that_raises_is_served_without_lifespan_unless_it_says_failed(
    said: bool, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """ASGI Lifespan 2.0, "Scope": after an exception the server must continue but not send any lifespan events."""

    class Raising(App):
        async def startup(self, send: Any) -> None:
            if said and self.seen.count(STARTUP) == 1:
                await send({"type": "lifespan.startup.failed", "message": "no database"})
            elif said:
                await super().startup(send)
                return
            raise BrokenError("Starlette raises as well")

    app = Raising()
    one = ASGIMiddleware(app, **options)
    if said:
        assert "no database" in str(call(one, fails=LifespanFailed).raised)
    assert call(one).body == call(one).body == b"hello"
    one.close()
    assert app.seen == [STARTUP, *([STARTUP] if said else []), "request", "request", *([SHUTDOWN] if said else [])]
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [type(record.exc_info[1]) for record in warned if record.exc_info] == ([] if said else [BrokenError])


@THREAD_INLINE_TRIO
def test_startup_that_exits_fails_the_request(options: dict[str, Any]) -> None:
    """An app that calls ``sys.exit()`` in its startup does not want to serve: no request reaches it."""

    class Exiting(App):
        async def startup(self, send: Any) -> None:
            raise SystemExit("no database")

    app = Exiting()
    assert "no database" in str(call(ASGIMiddleware(app, **options), fails=LifespanFailed).raised)
    assert "request" not in app.seen


class UnspeakableError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


def raise_in_logging(record: logging.LogRecord) -> bool:
    """A user's filter that fails."""
    raise RuntimeError("logging fails")


@THREAD_INLINE_TRIO
@pytest.mark.parametrize("error", [UnspeakableError, Twofaced])
@pytest.mark.parametrize("when", ["startup", "serving", "shutdown"])
def test_lifespan_ends_whatever_the_error_and_the_logging_do(
    when: str, error: type[Exception], options: dict[str, Any]
) -> None:
    """An error whose text raises, told to a logger whose filter raises, holds up neither requests nor `close`."""

    class Raising(App):
        async def startup(self, send: Any) -> None:
            if when == "startup":
                raise error
            await super().startup(send)
            if when == "serving":
                raise error

        async def shutdown(self, send: Any) -> None:
            raise error

    logger = logging.getLogger("a2wsgi")
    logger.addFilter(raise_in_logging)
    try:
        one = ASGIMiddleware(Raising(), **options)
        assert call(one).body == b"hello"
        if when == "shutdown":
            with pytest.raises(LifespanFailed, match=f"shutdown raised {error.__name__}"):
                one.close()
        one.close()
    finally:
        logger.removeFilter(raise_in_logging)


@THREAD_INLINE_TRIO
def test_startup_that_takes_too_long_fails_the_request(options: dict[str, Any]) -> None:
    """DESIGN 5.8: startup_timeout ends it, and it is cancelled."""
    cancelled = Signal("cancelled")

    class Hanging(App):
        async def startup(self, send: Any) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                cancelled.set()

    one = ASGIMiddleware(Hanging(), **options, startup_timeout=0.05)
    assert "startup_timeout=0.05" in str(call(one, fails=LifespanFailed).raised)
    cancelled.wait()


def test_requests_that_wait_for_a_startup_share_its_failure() -> None:
    """DESIGN 5.1: who waits for a startup that fails, fails as well."""
    entered, go = Signal("entered"), Signal("go")

    class Failing(App):
        async def startup(self, send: Any) -> None:
            entered.set()
            await go.wait_in_task()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

    one = ASGIMiddleware(Failing())
    first = InThread(lambda: call(one, fails=LifespanFailed))
    entered.wait()
    startup = one._lifetime._change
    assert startup is not None
    waiting = Signal("waiting")
    wait = startup.over.wait

    def wait_and_say(timeout: float | None = None) -> bool:
        waiting.set()
        return wait(timeout)

    startup.over.wait = wait_and_say  # type: ignore[method-assign]  # says that the second has come
    second = InThread(lambda: call(one, environ_of(), fails=LifespanFailed))
    waiting.wait()
    go.set()
    assert "no database" in str(first.result().raised)
    assert "no database" in str(second.result().raised)
    assert first.result().raised is not second.result().raised  # each raise would add to the one's traceback


@THREAD_INLINE_TRIO
@pytest.mark.parametrize("how", ["says so", "raises", "hangs"])
def test_failed_shutdown_is_raised_by_close(how: str, options: dict[str, Any]) -> None:
    """DESIGN 5.1: close() says that the shutdown failed, and has released everything all the same."""

    class Failing(App):
        async def shutdown(self, send: Any) -> None:
            if how == "says so":
                await send({"type": "lifespan.shutdown.failed", "message": "still busy"})
            elif how == "raises":
                raise ValueError("still busy")
            else:
                await anyio.sleep_forever()

    one = ASGIMiddleware(Failing(), **options, shutdown_timeout=0.05)
    call(one)
    with pytest.raises(LifespanFailed, match="shutdown_timeout=0.05" if how == "hangs" else "still busy"):
        one.close()


@THREAD_INLINE_TRIO
def test_app_that_does_not_answer_its_shutdown_is_told_of_it_once(options: dict[str, Any]) -> None:
    """It asks for the next message. The loop is everybody's, and goes on until the app is cancelled."""
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        while len(told) < 1000:  # in place of "while True"
            told.append(await receive())

    one = ASGIMiddleware(app, **options, shutdown_timeout=0.05)
    one.start()
    with pytest.raises(LifespanFailed, match=r"shutdown_timeout=0\.05"):
        one.close()
    assert told == [SHUTDOWN]


@THREAD_INLINE_TRIO
def test_app_that_stops_waiting_for_its_shutdown_leaves_nothing_behind(options: dict[str, Any]) -> None:
    """An app may do something else now and then, for as long as the process runs."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for _ in range(5):
            with anyio.move_on_after(0):
                await receive()
        await send({"type": "lifespan.startup.complete"})
        assert await receive() == SHUTDOWN
        await send({"type": "lifespan.shutdown.complete"})

    with ASGIMiddleware(app, **options) as one:
        lifespan = one._lifetime._lifespan
        assert lifespan is not None
        assert len(lifespan._receivers) <= 1


def test_dropped_bridge_shuts_its_app_down() -> None:
    """DESIGN 5.1: a bridge that is dropped leaves nothing behind, and its app is told."""
    down = Signal("down")

    class Telling(App):
        async def shutdown(self, send: Any) -> None:
            await super().shutdown(send)
            down.set()

    call(ASGIMiddleware(Telling()))
    down.wait()


def test_dropped_inline_bridge_shuts_its_app_down() -> None:
    """DESIGN 5.7: as above, in the thread that drops it."""
    app = App()
    call(ASGIMiddleware(app, inline=True))
    assert app.seen[-1] == SHUTDOWN


def test_startup_that_is_interrupted_leaves_no_task() -> None:
    """The thread that waits may be interrupted. The next request starts the app up anew: then it must not run twice."""

    async def story() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            try:
                await receive()
                begun.set()
                await anyio.sleep_forever()
            finally:
                ended.set()

        starting = asyncio.ensure_future(Lifespan(app, LoopHost(asyncio.get_running_loop())).startup(60))
        await begun.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert ended.is_set()

    asyncio.run(story())


def cancels_all(kind: str) -> Any:
    """An app that cancels all other tasks of its loop when it is started up, or shut down."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for each in ("startup", "shutdown"):
            await receive()
            if each == kind:
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()
                await asyncio.sleep(0)
            await send({"type": f"lifespan.{each}.complete"})

    return app


@pytest.mark.parametrize("options", [{}, {"inline": True}], ids=["thread", "inline"])
def test_app_that_cancels_all_tasks_fails_its_lifespan(options: dict[str, Any]) -> None:
    """Among them is what waits for its startup or shutdown. The caller gets no CancelledError, which is for tasks."""
    one = ASGIMiddleware(cancels_all("startup"), **options)
    with pytest.raises(LifespanFailed, match="cancels all tasks"):
        one.start()
    other = ASGIMiddleware(cancels_all("shutdown"), **options)
    other.start()
    with pytest.raises(LifespanFailed, match="cancels all tasks"):
        other.close()
    other.close()


def test_app_that_cancels_all_tasks_keeps_no_other_from_its_shutdown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At the end of the process."""
    app = App()
    bridges = [ASGIMiddleware(each, inline=True) for each in (cancels_all("shutdown"), app)]
    for bridge in bridges:
        bridge.start()
    monkeypatch.setattr(_exit_and_fork, "_all_lifetimes", lambda: [bridge._lifetime for bridge in bridges])
    _exit_and_fork._stop_all()
    assert not any(bridge.statistics().started for bridge in bridges)
    assert "did not shut down at the end of the process" in caplog.text
