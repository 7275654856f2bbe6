"""What is trio's own in ``ASGIMiddleware(app, backend="trio")``; the other suites tell the rest by a parameter."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

trio = pytest.importorskip("trio")
# ruff: noqa: E402 - as all of this needs it

from a2wsgi import ASGIMiddleware, BridgeError, MissingCapability
from a2wsgi._asgi_on_wsgi.loops import trio_loop
from a2wsgi._threads.runtime import Doorbell
from support.asgi_bridges import HELLO, START, body, hello
from support.lockstep import Lockstep, Signal
from support.wsgi_driver import Exchange, InThread, call, environ_of

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup


def on_trio(app: Any, **options: Any) -> ASGIMiddleware:
    """A bridge that runs its app on trio, without lifespan."""
    options = {"lifespan": False, "backend": "trio", **options}
    bridge: ASGIMiddleware = ASGIMiddleware(app, **options)
    return bridge


def loop_of(bridge: ASGIMiddleware) -> trio_loop.TrioLoop:
    """The loop of a bridge that is started."""
    host = bridge._lifetime.host
    assert host is not None
    loop: Any = host.loop
    return loop  # type: ignore[no-any-return]


def cancel_the_run() -> None:
    """Cancel all system tasks, as only an app in error does."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    (run_sync_soon,) = root.child_nurseries[:1]
    system = root.child_nurseries[1] if len(root.child_nurseries) > 1 else run_sync_soon
    system.cancel_scope.cancel()


def run_program(text: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    tests = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        timeout=40,
        check=False,
        text=True,
    )


# -- What is asked for ------------------------------------------------------------------------------------------------


def test_missing_trio_is_named_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the bridge is built, not with the first request."""
    monkeypatch.delitem(sys.modules, "a2wsgi._asgi_on_wsgi.loops.trio_host", raising=False)
    monkeypatch.setitem(sys.modules, "trio", None)
    with pytest.raises(MissingCapability, match="pip install trio") as raised:
        ASGIMiddleware(hello, backend="trio")
    assert isinstance(raised.value.__cause__, ImportError)


@pytest.mark.parametrize(
    ("other", "why"), [({"inline": True}, "guest mode"), ({"loop": object()}, "asyncio event loop")]
)
def test_options_that_trio_cannot_have_are_refused(other: dict[str, Any], why: str) -> None:
    """With the reason."""
    if "loop" in other:
        import asyncio

        other = {"loop": asyncio.new_event_loop()}
        other["loop"].close()
    with pytest.raises(TypeError, match=why):
        on_trio(hello, **other)


def test_trio_is_imported_for_who_asks_for_it() -> None:
    """And for nobody else."""
    ended = run_program(
        """
        import sys
        from wsgiref.util import setup_testing_defaults
        from a2wsgi import ASGIMiddleware

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"hello"})

        environ = {}
        setup_testing_defaults(environ)
        for options in {}, {"backend": "asyncio"}, {"backend": "trio"}:
            with ASGIMiddleware(app, lifespan=False, **options) as bridge:
                print(*bridge(environ, lambda status, headers: None), "trio" in sys.modules)
        """
    )
    assert (ended.stdout, ended.stderr) == ("b'hello' False\nb'hello' False\nb'hello' True\n", "")


def test_greenlets_are_refused() -> None:
    """Trio asserts that its locks are real ones, and gevent takes its epoll away."""
    pytest.importorskip("gevent")
    ended = run_program(
        """
        import gevent.monkey
        gevent.monkey.patch_all()
        import warnings
        from a2wsgi import ASGIMiddleware, MissingCapability

        async def app(scope, receive, send): ...

        bridge = ASGIMiddleware(app, backend="trio")
        for _ in range(2):
            try:
                bridge.start()
            except MissingCapability as error:
                print(error)
        """
    )
    assert ended.stdout.count("gthread worker") == 2, ended


def test_there_is_no_loop_of_1_x() -> None:
    """``loop`` is asyncio's."""
    with pytest.deprecated_call(), pytest.raises(AttributeError, match="start"):
        _ = on_trio(hello).loop


def test_trio_has_one_thread_of_its_own() -> None:
    """All bridges on trio share it, and none on asyncio does."""

    async def name(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(threading.current_thread().name.encode()))

    with on_trio(name) as one, on_trio(name) as two, ASGIMiddleware(name, lifespan=False) as three:
        assert [call(each).body for each in (one, two, three)] == [b"a2wsgi-trio", b"a2wsgi-trio", b"a2wsgi-loop"]
        assert loop_of(one) is loop_of(two)
    assert not [thread for thread in threading.enumerate() if thread.name == "a2wsgi-trio"]


def test_libraries_see_trio() -> None:
    """Those that ask sniffio, and anyio, also where the server's thread had another in its context."""
    sniffio = pytest.importorskip("sniffio")
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(sniffio.current_async_library())
        async with anyio.create_task_group() as group:
            seen.append(type(group).__module__)
        await hello(scope, receive, send)

    with on_trio(app) as bridge:
        sniffio.current_async_library_cvar.set("asyncio")
        try:
            assert call(bridge) == HELLO
        finally:
            sniffio.current_async_library_cvar.set(None)
    assert seen == ["trio", "anyio._backends._trio"]


# -- Errors -----------------------------------------------------------------------------------------------------------


async def fail(error: BaseException) -> None:
    """A task of an app's."""
    raise error


def test_exception_group_of_one_is_raised_as_its_exception() -> None:
    """The very same object, without the group as its context; a group in a group too."""
    error = ValueError("one")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            outer.start_soon(trio.sleep_forever)  # which ends in a Cancelled
            inner.start_soon(fail, error)

    with on_trio(app) as bridge:
        raised = call(bridge, fails=ValueError).raised
    assert raised is error
    assert (error.__context__, error.__cause__) == (None, None)


def test_exception_group_of_two_stays_one() -> None:
    """Nobody can say which of the two is the error."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise BaseExceptionGroup("", [ExceptionGroup("two", [ValueError(), TypeError()])])

    with on_trio(app) as bridge:
        raised = call(bridge, fails=ExceptionGroup).raised
    assert isinstance(raised, ExceptionGroup)
    assert raised.message == "two"


def test_failed_startup_is_told_without_its_group() -> None:
    """The lifespan's error is the app's own, too."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, SystemExit("no database"))

    error = call(on_trio(app, lifespan=True), fails=BridgeError).raised
    assert "no database" in str(error)


def test_send_notices_a_cancellation_though_it_need_not_wait() -> None:
    """As every function of trio's does."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await send(START)
        assert cancelled.cancelled_caught
        await hello(scope, receive, send)

    with on_trio(app) as bridge:
        assert call(bridge) == HELLO


def test_receive_that_is_cancelled_beforehand_gives_what_is_there() -> None:
    """Starlette's ``is_disconnected()`` looks in this way. Where nothing is there, it is cancelled; nothing is lost."""
    seen: list[str] = []

    async def look(receive: Any) -> None:
        seen.append("nothing")
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            seen[-1] = (await receive())["type"]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await look(receive)
        await look(receive)
        await hello(scope, receive, send)
        await look(receive)

    with on_trio(app) as bridge:
        assert call(bridge) == HELLO
    assert seen == ["http.request", "nothing", "http.disconnect"]


# -- The life of a run ------------------------------------------------------------------------------------------------


def test_lifespans_nursery_runs_between_requests() -> None:
    """A task that the startup began works while nobody asks for anything, and ends with the bridge."""
    works, ended = Signal("works"), Signal("ended")
    requested = Signal("requested")

    async def work() -> None:
        await requested.wait_in_task()
        works.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await hello(scope, receive, send)
            return
        await receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            nursery.cancel_scope.cancel()
        await send({"type": "lifespan.shutdown.complete"})

    with on_trio(app, lifespan=True) as bridge:
        assert call(bridge) == HELLO
        requested.set()
        works.wait()
    assert ended.is_set()


async def swallow(go_on: Signal) -> None:
    """Ignore each cancellation, and try again at once."""
    while not go_on.is_set():
        with contextlib.suppress(trio.Cancelled):
            await trio.sleep_forever()


async def shield(go_on: Signal) -> None:
    """Wait where no cancellation comes through."""
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


@pytest.mark.parametrize("task", [swallow, shield])
@pytest.mark.parametrize("whose", ["system", "app"])
def test_task_that_ignores_its_cancellation_holds_no_close_up(
    task: Any, whose: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The run is given up, which is logged; its thread ends, and the next bridge has another run."""
    go_on = Signal("never")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if whose == "system":
            trio.lowlevel.spawn_system_task(task, go_on)
        await hello(scope, receive, send)
        if whose == "app":
            await task(go_on)

    bridge = on_trio(app, wait_time=0, shutdown_timeout=0.05)
    assert call(bridge) == HELLO
    loop = loop_of(bridge)
    InThread(bridge.close).result()
    for thread in threading.enumerate():
        if thread.name == "a2wsgi-trio":
            thread.join(10)
    assert loop.is_closed()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    with pytest.raises(RuntimeError):
        loop.call_soon_threadsafe(print)
    with on_trio(hello) as other:
        assert call(other) == HELLO


def test_run_that_an_app_cancels_fails_its_requests_and_no_others() -> None:
    """1. A request waits on the run. 2. Another's app cancels the run. 3. Both get why; the next has another run.

    Each learns it before its task does: an app that ends in Cancelled would be said to have cancelled itself.
    """
    step, ended = Lockstep(), Signal("the waiting app ends")
    host_was_gone: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/waits":
            host = bridge._lifetime.host
            async with step(1):
                pass
            try:
                await trio.sleep_forever()
            finally:  # by now there may be that of the next request
                host_was_gone.append(bridge._lifetime.host is not host)
                ended.set()
        elif scope["path"] == "/cancels":
            async with step(2):
                cancel_the_run()
            await trio.sleep_forever()
        await hello(scope, receive, send)

    with on_trio(app) as bridge:
        waiting = InThread(lambda: call(bridge, environ_of(path="/waits"), fails=BridgeError))
        cancelling = call(bridge, environ_of(path="/cancels"), fails=BridgeError)
        for response in (cancelling, waiting.result()):
            assert "trio run was cancelled" in str(response.raised)
        assert call(bridge) == HELLO
        ended.wait()  # its task learns it last, in a thread that nothing waits for any more
    assert host_was_gone == [True]


def test_system_task_that_fails_breaks_its_run_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Trio ends the run; the log has the error, the request why, and the next has another run."""
    threads: list[threading.Thread] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        threads.append(threading.current_thread())
        if scope["path"] == "/fails":
            trio.lowlevel.spawn_system_task(fail, ArithmeticError("in a system task"))
            await trio.sleep_forever()
        await hello(scope, receive, send)

    with on_trio(app) as bridge:
        call(bridge, environ_of(path="/fails"), fails=BridgeError)
        assert call(bridge) == HELLO
    threads[0].join(10)  # it logs last
    assert "in a system task" in caplog.text
    assert threads[1] is not threads[0]


def test_request_that_rings_as_the_run_ends_is_told() -> None:
    """1. The app holds the loop up. 2. Another request rings. 3. The app cancels the run, before the ring is answered.

    The ring was accepted, and nobody answers it by starting the app: its thread must not wait for ever.
    """
    held, rung = Signal("held"), Signal("rung")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/holds":
            held.set()
            rung.wait()  # on the loop's thread: nothing else runs there
            cancel_the_run()
            await trio.sleep_forever()
        await hello(scope, receive, send)

    with on_trio(app) as bridge:
        holding = InThread(lambda: call(bridge, environ_of(path="/holds"), fails=BridgeError))
        held.wait()
        host = bridge._lifetime.host
        assert host is not None

        class Telling(Doorbell):
            def ring(self, function: Any, argument: Any) -> bool:
                accepted = super().ring(function, argument)
                rung.set()
                return accepted

        host.doorbell = Telling(host.loop)
        call(bridge, fails=BridgeError)
        holding.result()
        assert call(bridge) == HELLO


def test_timer_that_is_cancelled_when_it_is_due_calls_nothing() -> None:
    """1. Its time is over, and its task is to run next. 2. It is cancelled. 3. Its task runs."""
    calls: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        timers = [loop_of(bridge).call_later(-1, calls.append, number) for number in range(20)]
        # trio runs its tasks in any order: of so many that are due, some have run by now, and some have not.
        await trio.lowlevel.checkpoint()
        before = calls.copy()
        for timer in timers:
            timer.cancel()
        await trio.sleep(0.001)
        assert calls == before
        await hello(scope, receive, send)

    with on_trio(app) as bridge:
        assert call(bridge) == HELLO


def test_function_that_raises_ends_no_run(caplog: pytest.LogCaptureFixture) -> None:
    """What the loop is to call, soon, later or before it waits, is logged: trio would end the run."""

    def raising() -> None:
        raise SystemExit("of a function")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loop = loop_of(bridge)
        loop.call_soon_threadsafe(raising)
        loop.call_later(0, raising)
        loop.before_wait(raising)
        await trio.sleep(0.001)
        await hello(scope, receive, send)

    with on_trio(app) as bridge:
        assert call(bridge) == HELLO
        assert call(bridge) == HELLO
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3 * 2


@pytest.mark.skipif((3, 12, 0) <= sys.version_info < (3, 12, 3), reason="These start no thread while the process ends.")
def test_process_ends_with_a_shutdown_that_uses_threads() -> None:
    """The lifespan's shutdown runs in time for them, and no noise is made."""
    ended = run_program(
        """
        import trio
        from support.wsgi_driver import call
        from a2wsgi import ASGIMiddleware

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    await send({"type": "lifespan.startup.complete"})
                    await receive()
                    await trio.to_thread.run_sync(print, "shut down")
                    nursery.cancel_scope.cancel()
                await send({"type": "lifespan.shutdown.complete"})
                return
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"hello"})

        bridge = ASGIMiddleware(app, backend="trio")
        print(call(bridge).body)
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "b'hello'\nshut down\n", "")


def test_bridge_that_is_dropped_ends_its_run() -> None:
    """Nobody has closed it; the guard of each test sees that the thread is gone."""
    exchange = Exchange(on_trio(hello)).begin()
    assert list(exchange.iterator) == [b"hello"]
    exchange.close()
