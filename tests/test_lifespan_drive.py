"""Driving an app's lifespan: once a process, before its first request."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from a2wsgi import BridgeClosed, LifespanFailed
from a2wsgi.asgi_to_wsgi import ASGIMiddleware
from support.lockstep import Signal
from support.wsgi_driver import InThread, call, environ_of

STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
KINDS = pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])


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


@KINDS
def test_lifespan_surrounds_all_requests(inline: bool) -> None:
    """ASGI Lifespan 2.0: startup before the first request, shutdown after the last, each once."""
    app = App()
    one = ASGIMiddleware(app, inline=inline)
    assert app.seen == []
    for _ in range(2):
        assert call(one).body == b"hello"
    one.close()
    one.close()
    assert app.seen == [STARTUP, "request", "request", SHUTDOWN]


@KINDS
def test_with_block_starts_and_closes(inline: bool) -> None:
    """DESIGN 5.1: `with` does explicitly what the first request and the end of the process do."""
    app = App()
    with ASGIMiddleware(app, inline=inline) as one:
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


@KINDS
def test_state_is_copied_for_each_request(inline: bool) -> None:
    """ASGI Lifespan 2.0, "Lifespan State": a request sees the state, and what it changes is its own."""

    class Stateful(App):
        async def request(self, scope: Any) -> None:
            self.seen.append(dict(scope["state"]))
            scope["state"]["x"] = "changed"

    app = Stateful()
    shared: list[Any] = []
    app.state = {"x": 1, "shared": shared}
    one = ASGIMiddleware(app, inline=inline)
    call(one)
    call(one)
    assert app.seen[1:] == ["request", {"x": 1, "shared": shared}] * 2
    assert app.seen[2]["shared"] is shared


# -- Apps that do not know lifespan -----------------------------------------------------------------------------------


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


@KINDS
@pytest.mark.parametrize("app", [refuses, ignores_the_type, ignores_the_type_and_receives, returns])
def test_app_that_does_not_know_lifespan_is_served(app: Any, inline: bool, caplog: pytest.LogCaptureFixture) -> None:
    """ASGI Lifespan 2.0, "Scope": the server must continue; and nothing is logged (PAINS B2)."""
    with ASGIMiddleware(app, inline=inline) as one:
        assert call(one).body == b"hello"
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_lifespan_can_be_left_out() -> None:
    """The option lifespan=False sends no lifespan scope."""
    app = App()
    with ASGIMiddleware(app, lifespan=False) as one:
        call(one)
    assert app.seen == ["request"]


# -- Failures ---------------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("how", ["says so", "raises"])
def test_failed_startup_fails_the_request_and_is_tried_again(how: str, inline: bool) -> None:
    """PAINS B2: the request fails with the app's own words; the next tries again."""

    class Failing(App):
        async def startup(self, send: Any) -> None:
            if self.seen.count(STARTUP) > 1:
                await super().startup(send)
            elif how == "says so":
                await send({"type": "lifespan.startup.failed", "message": "no database"})
                raise ValueError("Starlette raises as well")
            else:
                raise ValueError("no database")

    app = Failing()
    one = ASGIMiddleware(app, inline=inline)
    assert "no database" in str(call(one, fails=LifespanFailed).raised)
    assert call(one).body == b"hello"
    assert app.seen == [STARTUP, STARTUP, "request"]


@KINDS
def test_startup_that_takes_too_long_fails_the_request(inline: bool) -> None:
    """DESIGN 5.8: startup_timeout ends it, and it is cancelled."""
    cancelled = Signal("cancelled")

    class Hanging(App):
        async def startup(self, send: Any) -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                cancelled.set()

    one = ASGIMiddleware(Hanging(), inline=inline, startup_timeout=0.05)
    assert "startup_timeout=0.05" in str(call(one, fails=LifespanFailed).raised)
    cancelled.wait()


def test_requests_that_wait_for_a_startup_share_its_failure() -> None:
    """DESIGN 5.1: who waits for a startup that fails, fails as well."""
    entered, go = Signal("entered"), Signal("go")

    class Failing(App):
        async def startup(self, send: Any) -> None:
            entered.set()
            await go.wait_in_task()
            raise ValueError("no database")

    one = ASGIMiddleware(Failing())
    first = InThread(lambda: call(one, fails=LifespanFailed))
    entered.wait()
    startup = one._engine._startup
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


@KINDS
@pytest.mark.parametrize("how", ["says so", "raises", "hangs"])
def test_failed_shutdown_is_raised_by_close(how: str, inline: bool) -> None:
    """DESIGN 5.1: close() says that the shutdown failed, and has released everything all the same."""

    class Failing(App):
        async def shutdown(self, send: Any) -> None:
            if how == "says so":
                await send({"type": "lifespan.shutdown.failed", "message": "still busy"})
            elif how == "raises":
                raise ValueError("still busy")
            else:
                await asyncio.get_running_loop().create_future()

    one = ASGIMiddleware(Failing(), inline=inline, shutdown_timeout=0.05)
    call(one)
    with pytest.raises(LifespanFailed, match="shutdown_timeout=0.05" if how == "hangs" else "still busy"):
        one.close()


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
