"""``app_timeout`` of `ASGIMiddleware`: what becomes of an app that does not begin its response in time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from a2wsgi import ASGIMiddleware, BridgeClosed, ClientDisconnected, WSGIMiddleware
from support.asgi_driver import answer, run
from support.bridges import Bridged, bridges_to_wsgi
from support.lockstep import Signal
from support.servers import until
from support.wsgi_driver import call, environ_of

LATE = ("504 Gateway Timeout", b"The app did not respond in time.")


@pytest.fixture(params=["single", "nested"])
def bridged(request: pytest.FixtureRequest) -> Iterator[Bridged]:
    """Makes a WSGI app of an ASGI app, by one bridge or by three around one another."""
    with bridges_to_wsgi(request.param, lifespan=False) as make:
        yield make


class Late:
    """An app that waits for ever before it does anything, and tells how it ends.

    Args:
        stubborn: It goes on after its cancellation.
    """

    def __init__(self, *, stubborn: bool = False) -> None:
        self.stubborn = stubborn
        self.over = Signal("the app is over")
        self.ends: list[object] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.wait_for_ever()
        except BaseException as error:
            self.ends.append(type(error))
            if not self.stubborn:
                raise
            self.ends.append((await receive())["type"])
            try:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            except ClientDisconnected as late:
                self.ends.append(type(late))
        finally:
            self.over.set()

    async def wait_for_ever(self) -> None:
        await asyncio.sleep(1000)


def of_timeouts(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of apps that were late."""
    return [record.getMessage() for record in caplog.records if "app_timeout" in record.getMessage()]


def test_late_app_is_cancelled_and_answered_504(bridged: Bridged, caplog: pytest.LogCaptureFixture) -> None:
    """A record says so. Of three bridges the outermost may be late before the innermost has called the app."""
    app = Late()
    response = call(bridged(app, app_timeout=0.5), environ_of("GET", "/late", QUERY_STRING="secret=1"))
    assert (response.status, response.body) == LATE
    until(lambda: bool(of_timeouts(caplog)), "the log, which comes last")
    record, *_ = of_timeouts(caplog)
    assert record.startswith("504 to a request: GET '/late' has not begun its response within app_timeout=0.5 s.")
    assert "secret" not in record


def test_record_has_the_stack_of_the_coroutines(caplog: pytest.LogCaptureFixture) -> None:
    """From the app's own frame to where it waits."""
    app = Late()
    with ASGIMiddleware(app, app_timeout=0.01, lifespan=False) as bridge:
        call(bridge)
        app.over.wait()
    assert app.ends == [asyncio.CancelledError]
    (record,) = of_timeouts(caplog)
    lines = [line for line in record.splitlines() if line.startswith('  File "')]
    assert lines[0].endswith("in __call__")
    assert any(line.endswith("in wait_for_ever") for line in lines)


class Odd:
    """An awaitable that is a class of its own, as of a library that wraps coroutines. None of its frames is known."""

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> None:
        return None  # as `asyncio.sleep(0)`, again and again


class Raising(Odd):
    def __getattr__(self, name: str) -> object:
        raise (RuntimeError if name.endswith("_frame") else AttributeError)(name)


class AnythingGoes(Odd):
    def __getattr__(self, name: str) -> object:
        return self


@pytest.mark.parametrize("kind", [Odd, Raising, AnythingGoes])
def test_app_that_awaits_an_odd_object_is_late_too(kind: type[Odd], caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the object does when the log asks it where it waits. What can be read is in the log."""

    class OddlyLate(Late):
        async def wait_for_ever(self) -> None:
            await kind()

    app = OddlyLate()
    with ASGIMiddleware(app, app_timeout=0.01, lifespan=False) as bridge:
        assert call(bridge).status == LATE[0]
        app.over.wait()
        until(lambda: bool(of_timeouts(caplog)), "the log, which comes last")
    (record,) = of_timeouts(caplog)
    assert "in wait_for_ever" in record


@pytest.mark.parametrize("inline", [False, True])
def test_late_app_is_counted(inline: bool) -> None:
    """As one that timed out, and neither as disconnected nor as in flight."""
    with ASGIMiddleware(Late(), app_timeout=0.01, inline=inline, lifespan=False) as bridge:
        assert call(bridge).status == LATE[0]
    statistics = bridge.statistics()
    assert (statistics.timed_out, statistics.disconnected, statistics.in_flight) == (1, 0, 0)


@pytest.mark.parametrize("inline", [False, True])
def test_app_that_ignores_its_cancellation_is_told(inline: bool) -> None:
    """Its client has left, as far as it can see; its ``send()`` raises."""
    app = Late(stubborn=True)
    with ASGIMiddleware(app, app_timeout=0.01, inline=inline, lifespan=False) as bridge:
        assert call(bridge).status == LATE[0]
        app.over.wait()
    assert app.ends == [asyncio.CancelledError, "http.disconnect", ClientDisconnected]


class OuterRequest:
    """Stands for the request of a bridge around another one, in the environ under ``a2wsgi.disconnected``."""

    def _join(self, pair: object, on_abort: Any) -> None:
        self._inner = on_abort.__self__

    def abort(self) -> None:
        """Abort the inner request, in its loop thread and at once."""
        self._inner._abort_with_grace(ClientDisconnected("the client of the outer bridge left"))


class Left(Late):
    """An app whose client is lost in its first step, which comes before any timer, even one that is due by then.

    Args:
        lose: Loses it.
    """

    def __init__(self, lose: Callable[[], object]) -> None:
        super().__init__()
        self.lose = lose

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.lose()
        await super().__call__(scope, receive, send)


@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
@pytest.mark.parametrize("how", ["leaves", "is cut off by its bridge"])
def test_app_whose_client_is_gone_is_late_as_well(how: str, inline: bool, caplog: pytest.LogCaptureFixture) -> None:
    """It waits for something else, and does not hear of that: it is cancelled at its time, and not after its grace."""
    outer = OuterRequest()
    app = Left(outer.abort)
    options: dict[str, Any] = {"grace_timeout": 20, "shutdown_timeout": 0, "inline": inline, "lifespan": False}
    with ASGIMiddleware(app, app_timeout=0.01, **options) as bridge:
        if how != "leaves":
            app.lose = bridge._shared.lifetime._abort_all
        environ = environ_of("GET", "/late") | {"a2wsgi.disconnected": outer}
        call(bridge, environ, fails=ClientDisconnected if how == "leaves" else BridgeClosed)
        app.over.wait()
        until(lambda: bool(of_timeouts(caplog)), "the log, which comes last")
        assert bridge.statistics().timed_out == 1
    assert app.ends == [asyncio.CancelledError]
    (record,) = of_timeouts(caplog)
    assert record.startswith("A request is over, but its app has not come back: GET '/late' has not begun its response")


def test_app_that_was_told_of_its_client_has_its_grace(caplog: pytest.LogCaptureFixture) -> None:
    """It cleans up, and begins no response: to cancel it at the time for that would cut this short."""

    class Tidy(Left):
        async def wait_for_ever(self) -> None:
            await asyncio.sleep(0.05)  # more than the timeout

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            self.lose()
            self.ends.append((await receive())["type"])
            await self.wait_for_ever()
            self.ends.append("tidy")
            self.over.set()

    outer = OuterRequest()
    app = Tidy(outer.abort)
    with ASGIMiddleware(app, app_timeout=0.01, lifespan=False) as bridge:
        call(bridge, environ_of() | {"a2wsgi.disconnected": outer}, fails=ClientDisconnected)
        app.over.wait()
        assert bridge.statistics().timed_out == 0
    assert app.ends == ["http.disconnect", "tidy"]
    assert of_timeouts(caplog) == []


@pytest.mark.parametrize(("app_timeout", "grace_timeout"), [(0.02, 0), (0, 0.02)])
def test_app_whose_client_is_gone_is_cancelled_once(app_timeout: float, grace_timeout: float) -> None:
    """Of its two times the first one counts: the second may end while it cleans up."""

    class CleaningUp(Left):
        async def wait_for_ever(self) -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(0.05)  # more than the second time
                self.ends.append("tidy")

    outer = OuterRequest()
    app = CleaningUp(outer.abort)
    with ASGIMiddleware(app, app_timeout=app_timeout, grace_timeout=grace_timeout, lifespan=False) as bridge:
        call(bridge, environ_of() | {"a2wsgi.disconnected": outer}, fails=ClientDisconnected)
        app.over.wait()
    assert app.ends == ["tidy", asyncio.CancelledError]


def test_head_of_the_request_has_no_body() -> None:
    """RFC 9110 §9.3.2: the answer to HEAD is the head alone."""
    with ASGIMiddleware(Late(), app_timeout=0.01, lifespan=False) as bridge:
        response = call(bridge, environ_of("HEAD"))
    assert (response.status, response.body) == (LATE[0], b"")


def test_app_that_has_sent_its_head_may_take_its_time(bridged: Bridged) -> None:
    """The time ends with the head: also of a response without a body, and of one that streams."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(1.25 * timeout)
        await send({"type": "http.response.body", "body": b"slow"})

    for timeout in (0.04, 0.4, 4.0):
        bridge = bridged(app, app_timeout=timeout)
        answers = [call(bridge), call(bridge, environ_of("HEAD"))]
        if all(
            answer.status != LATE[0] for answer in answers
        ):  # else the machine was too slow to send the head in time
            assert [(answer.status, answer.body) for answer in answers] == [("200 OK", b"slow"), ("200 OK", b"")]
            return
    raise AssertionError("the app was always too late")


def test_quick_app_leaves_no_timer() -> None:
    """A request that is over before its time has nothing left on the loop."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()
        timers.append([handle for handle in loop._scheduled if not handle.cancelled()])  # type: ignore[attr-defined]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"quick"})

    timers: list[list[Any]] = []
    with ASGIMiddleware(app, app_timeout=3600, lifespan=False) as bridge:
        for _ in range(3):
            assert call(bridge).body == b"quick"
    assert [len(of_one) for of_one in timers] == [len(timers[0])] * 3


def test_lifespan_and_failures_are_not_bound() -> None:
    """An app that fails in time fails as ever."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await asyncio.sleep(0.02)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        raise ValueError("in time")

    with ASGIMiddleware(app, app_timeout=0.01) as bridge:
        response = call(bridge, fails=ValueError)
        assert str(response.raised) == "in time"


def test_pair_answers_504(caplog: pytest.LogCaptureFixture) -> None:
    """Under an ASGI server, the inner bridge's option holds as well."""
    app = Late()
    inner = ASGIMiddleware(app, app_timeout=0.01, lifespan=False)

    async def main() -> None:
        bridge = WSGIMiddleware(inner)  # type: ignore[arg-type, unused-ignore]
        assert (await answer(bridge)).status == 504

    with inner:
        run(main())
        app.over.wait()
    assert app.ends == [asyncio.CancelledError]
    assert [record.levelno for record in caplog.records if "app_timeout" in record.getMessage()] == [logging.ERROR]


def test_outer_bridge_ends_an_inner_app() -> None:
    """The option of the outer bridge of a pair ends the app in the inner one, after its grace."""
    app = Late()
    inner = ASGIMiddleware(app, grace_timeout=0, lifespan=False)

    async def main() -> None:
        bridge = WSGIMiddleware(inner, app_timeout=0.01)  # type: ignore[arg-type, unused-ignore]
        assert (await answer(bridge)).status == 504
        with contextlib.suppress(TimeoutError):
            await app.over.wait_in_task()

    with inner:
        run(main())
    assert app.ends == [asyncio.CancelledError]
