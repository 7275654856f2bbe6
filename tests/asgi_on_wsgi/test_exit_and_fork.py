"""The end of the process, and its forks: every app is shut down, and every child starts anew."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from a2wsgi import ASGIMiddleware, BridgeError, LifespanFailed
from a2wsgi._asgi_on_wsgi import exit_and_fork as _exit_and_fork
from a2wsgi._asgi_on_wsgi.loops.host import LoopHost
from support.asgi_bridges import START, THREAD_AND_TRIO, THREAD_INLINE_TRIO, body
from support.lockstep import Signal
from support.threads import in_thread
from support.wsgi_driver import Exchange, call


async def thread_name(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the name of the thread."""
    if scope["type"] != "http":
        raise ValueError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": threading.current_thread().name.encode()})


def in_child(function: Callable[[], object]) -> None:
    """Run ``function`` in a forked child, which must return from it within ten seconds."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    watchdog = threading.Timer(10, os.kill, (child, 9))
    watchdog.start()
    _, status = os.waitpid(child, 0)
    watchdog.cancel()
    watchdog.join()
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@THREAD_INLINE_TRIO
@pytest.mark.parametrize("served", [False, True], ids=["unused", "served"])
def test_bridge_serves_after_a_fork(served: bool, options: dict[str, Any]) -> None:
    """PAINS A1: built at import, forked before or after its first request: serves in child, grandchild and parent."""
    started: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            started.append(os.getpid())
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await thread_name(scope, receive, send)

    one = ASGIMiddleware(app, **options)
    wanted = {"inline": b"MainThread", "backend": b"a2wsgi-trio"}.get("".join(options), b"a2wsgi-loop")
    if served:
        assert call(one).body == wanted

    def serve() -> None:
        assert call(one).body == wanted
        assert call(one).body == wanted
        assert started.count(os.getpid()) == 1

    def serve_and_fork() -> None:
        serve()
        in_child(serve)

    in_child(serve_and_fork)
    serve()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("served", [False, True], ids=["unused", "served"])
def test_given_loop_of_the_parent_is_an_error_in_the_child(served: bool) -> None:
    """DESIGN 5.1: a loop= whose thread did not survive the fork fails requests and hangs none."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    one = ASGIMiddleware(thread_name, None, loop, lifespan=True)
    if served:
        assert call(one).status == "200 OK"
    in_child(lambda: call(one, fails=BridgeError))
    assert call(one).status == "200 OK"
    one.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@THREAD_AND_TRIO
@pytest.mark.parametrize("complete", [False, True], ids=["streaming", "complete"])
def test_child_that_is_forked_in_a_request_does_not_wait_for_its_app(
    complete: bool, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A middleware forks, say, and its child leaves by an exception, which closes the response. The parent goes on."""
    monkeypatch.setattr(LoopHost, "look_seconds", 0.01)
    go = Signal("go")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"begin", more=not complete))
        await go.wait_in_task()
        await send(body(b"end"))

    one = ASGIMiddleware(app, lifespan=False, **options)
    exchange = Exchange(one).begin()
    assert exchange.next() == b"begin"

    def leave() -> None:
        if not complete:
            with pytest.raises(BridgeError, match="was forked"):
                exchange.next()
        exchange.close()

    (request,) = one._lifetime.requests
    held, forked = Signal("the lock is held"), Signal("the child is gone")

    def hold() -> None:
        """As the loop thread holds it now and then."""
        with request._stream._lock:  # type: ignore[attr-defined]
            held.set()
            forked.wait()

    holder = in_thread(hold)
    held.wait()
    in_child(leave)
    forked.set()
    holder.result()
    go.set()
    assert list(exchange.iterator) == ([] if complete else [b"end"])
    exchange.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_that_is_forked_while_another_thread_runs_an_inline_loop_waits_for_no_lock() -> None:
    """As above; the other thread has a request of its own. The parent goes on."""
    held, forked, go = Signal("the lock is held"), Signal("the child is gone"), Signal("go")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"begin", more=True))
        await go.wait_in_task()
        await send(body(b"end"))

    one = ASGIMiddleware(app, lifespan=False, inline=True)
    exchange = Exchange(one).begin()

    def hold() -> None:
        """As a thread does that waits for its app."""
        lock = one._lifetime.host.one_at_a_time  # type: ignore[union-attr]
        assert lock is not None
        with lock:
            held.set()
            forked.wait()

    def leave() -> None:
        with pytest.raises(BridgeError, match="was forked"):
            list(exchange.iterator)
        exchange.close()
        go.set()
        assert call(one).body == b"beginend"

    holder = in_thread(hold)
    held.wait()
    in_child(leave)
    forked.set()
    holder.result()
    go.set()
    assert b"".join(exchange.iterator) == b"beginend"
    exchange.close()


TESTS = Path(__file__).parent.parent


def python(code: str, *arguments: str) -> str:
    """Run a program that ends by itself, in good order and silently; what it prints."""
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", *arguments, "-c", textwrap.dedent(code)],
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))},
        capture_output=True,
        timeout=50,
        check=False,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


PROGRAM = """
    import asyncio, logging, sys
    from support.wsgi_driver import call
    from a2wsgi._front.asgi_middleware import ASGIMiddleware

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({{"type": "lifespan.startup.complete"}})
            await receive()
            if (3, 12, 0) <= sys.version_info < (3, 12, 3):
                print("shut down")  # these start no thread once the main thread has ended (gh-113964)
            else:
                await asyncio.to_thread(print, "shut down")
            await send({{"type": "lifespan.shutdown.complete"}})
            return
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": b"hello"}})

    logging.getLogger("asyncio").setLevel(logging.ERROR)  # its debug mode warns of a machine that is slow
    one = ASGIMiddleware(app, {options})
    print(call(one).body.decode())
"""


@pytest.mark.parametrize("options", ["", "inline=True", "detach_background=True"])
def test_process_ends_quietly_and_shuts_the_app_down(options: str) -> None:
    """PAINS A3: exit code 0, nothing on stderr, lifespan.shutdown seen, and threads still usable in it."""
    assert python(PROGRAM.format(options=options)) == "hello\nshut down\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_process_ends_quietly_and_shuts_the_app_down() -> None:
    """PAINS A3, A1: each process shuts down what it started up."""
    program = textwrap.dedent(PROGRAM.format(options="")) + textwrap.dedent("""
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        sys.stdout.flush()
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
        else:
            print("child", call(one).body.decode())
    """)
    assert python(program) == "hello\nchild hello\nshut down\nshut down\n"


def test_server_in_a_thread_serves_on_after_the_main_thread() -> None:
    """A server in a thread that is no daemon outlives the main thread, and so do its bridges."""
    program = textwrap.dedent(PROGRAM.format(options="")) + textwrap.dedent("""
        import threading
        main = threading.main_thread()
        def serve():
            main.join()
            print(call(one).body.decode())
        threading.Thread(target=serve).start()
        app_shutdown = asyncio.to_thread
        async def plainly(function, *args):
            function(*args)
        asyncio.to_thread = plainly  # at that time no executor takes anything any more
    """)
    assert python(program) == "hello\nhello\nshut down\n"


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer in one go."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def bridge_of(app: Any, **options: Any) -> ASGIMiddleware:
    """A bridge without lifespan."""
    options.setdefault("lifespan", False)
    bridge: ASGIMiddleware = ASGIMiddleware(app, **options)
    return bridge


def test_end_of_the_process_while_bridges_are_built() -> None:
    """The end of the process goes through the bridges there are, whoever builds another at any step of it."""
    built: list[ASGIMiddleware] = []
    was = sys.gettrace()

    def trace(frame: Any, event: str, _: Any) -> Any:
        if len(built) < 200 and frame.f_code.co_name in {"_stop_all", "_all_lifetimes", "__iter__", "<listcomp>"}:
            sys.settrace(None)
            built.append(bridge_of(hello))
            sys.settrace(trace)
            return trace
        return None

    first = bridge_of(hello)
    assert call(first).body == b"hello"
    sys.settrace(trace)
    try:
        _exit_and_fork._stop_all()
    finally:
        sys.settrace(was)
    assert built
    assert repr(first._lifetime) == "not started"


def test_app_that_does_not_shut_down_keeps_no_other_from_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At the end of the process its error is logged, and the next app is shut down."""

    class Failing:
        """A lifetime."""

        def stop_started(self) -> None:
            raise LifespanFailed("of one app")

    class Counting:
        """Another one."""

        stopped = 0

        def stop_started(self) -> None:
            self.stopped += 1

    counting = Counting()
    monkeypatch.setattr(_exit_and_fork, "_all_lifetimes", lambda: [Failing(), counting])
    _exit_and_fork._stop_all()
    assert counting.stopped == 1
    (record,) = caplog.records
    assert record.getMessage() == "The app of a bridge did not shut down at the end of the process"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "of one app"


def test_end_of_the_process_waits_for_a_bridge_that_was_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until nothing of it is left, and then for its loop's thread."""

    class Host:
        """A loop that goes on."""

        joined: float | None = None

        def trouble(self) -> None:
            departure.end()  # as the loop thread does, amid the first look

        def join(self, seconds: float) -> None:
            self.joined = seconds

    host = Host()
    departure = _exit_and_fork.Departure(host, 10.0)  # type: ignore[arg-type]
    departure.begin()
    monkeypatch.setattr(_exit_and_fork, "_all_lifetimes", list)
    _exit_and_fork._stop_all()
    assert host.joined is not None
    assert departure not in _exit_and_fork._departures
