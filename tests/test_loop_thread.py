"""Where loops run: one thread for all bridges of a process, forks, dropped bridges, and the end of the process."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from a2wsgi import _engine
from a2wsgi.asgi_to_wsgi import ASGIMiddleware
from support.lockstep import Signal
from support.wsgi_driver import Exchange, call

TESTS = Path(__file__).parent


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the name of the thread."""
    if scope["type"] != "http":
        raise ValueError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": threading.current_thread().name.encode()})


def loop_threads() -> list[threading.Thread]:
    """Those of ours that run."""
    return [thread for thread in threading.enumerate() if thread.name == "a2wsgi-loop"]


def python(code: str, *arguments: str) -> str:
    """Run a program that ends by itself, in good order and silently; what it prints."""
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", *arguments, "-c", textwrap.dedent(code)],
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))},
        capture_output=True,
        timeout=30,
        check=False,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


# -- One thread -------------------------------------------------------------------------------------------------------


def test_bridges_share_one_thread() -> None:
    """PAINS B4: a hundred live bridges have one loop thread, which is there when the first is called."""
    bridges = [ASGIMiddleware(hello) for _ in range(100)]
    assert loop_threads() == []
    assert {call(bridge).body for bridge in bridges} == {b"a2wsgi-loop"}
    assert len(loop_threads()) == 1


def test_dropped_bridges_leave_no_thread() -> None:
    """PAINS B4: a hundred bridges, built, called and dropped, leave no thread (as the guard of every test sees)."""
    for _ in range(100):
        call(ASGIMiddleware(hello))


def test_bridge_in_a_cycle_is_collected() -> None:
    """PAINS B4: a finalizer that runs in the garbage collector ends the thread too."""

    class App:
        bridge: ASGIMiddleware

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await hello(scope, receive, send)

    app = App()
    app.bridge = ASGIMiddleware(app)
    call(app.bridge)
    del app
    gc.collect()


def test_finalizer_takes_no_lock() -> None:
    """The garbage collector may run in a thread that holds any lock of ours: dropping a bridge waits for none."""
    keeper, dropped = ASGIMiddleware(hello), ASGIMiddleware(hello)
    call(keeper)
    call(dropped)
    engine, host = dropped._engine, dropped._engine.host
    assert host is not None
    from a2wsgi import _loop_thread

    with _loop_thread._lock, engine._lock, host.doorbell._lock:
        del dropped
    assert call(keeper).body == b"a2wsgi-loop"
    del keeper


def test_response_keeps_its_loop() -> None:
    """PAINS B5: a bridge that is dropped while a response is read goes on until its end."""
    go = Signal("go")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await go.wait_in_task()
        await send({"type": "http.response.body", "body": b"end"})

    exchange = Exchange(ASGIMiddleware(app)).begin()
    del exchange.app
    gc.collect()
    assert exchange.next() == b""
    go.set()
    assert exchange.next() == b"end"
    exchange.close()


def test_thread_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a descriptor for a loop fails the request, and serves the next."""
    from a2wsgi import _loop_thread

    def fail() -> Any:
        raise OSError("Too many open files")

    one = ASGIMiddleware(hello)
    with monkeypatch.context() as patch:
        patch.setattr(_loop_thread, "new_event_loop", fail)
        call(one, fails=OSError)
    assert call(one).body == b"a2wsgi-loop"


# -- Fork -------------------------------------------------------------------------------------------------------------


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
@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
@pytest.mark.parametrize("served", [False, True], ids=["unused", "served"])
def test_bridge_serves_after_a_fork(served: bool, inline: bool) -> None:
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
        await hello(scope, receive, send)

    one = ASGIMiddleware(app, inline=inline)
    wanted = b"MainThread" if inline else b"a2wsgi-loop"
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
    import asyncio

    from a2wsgi import BridgeError

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    one = ASGIMiddleware(hello, None, loop)
    if served:
        assert call(one).status == "200 OK"
    in_child(lambda: call(one, fails=BridgeError))
    assert call(one).status == "200 OK"
    one.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


# -- The end of the process -------------------------------------------------------------------------------------------

PROGRAM = """
    import asyncio, logging, sys
    from support.wsgi_driver import call
    from a2wsgi.asgi_to_wsgi import ASGIMiddleware

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


# -- gevent, uWSGI ----------------------------------------------------------------------------------------------------


def test_under_gevent_other_greenlets_run_and_see_no_loop() -> None:
    """PAINS K5: while a greenlet waits for an app, others go on, and may run a loop of their own."""
    pytest.importorskip("gevent")
    program = """
        import gevent.monkey
        gevent.monkey.patch_all()
        import asyncio, logging, time, gevent
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # its debug mode warns of a machine that is slow
        from support.wsgi_driver import call, environ_of
        from a2wsgi.asgi_to_wsgi import ASGIMiddleware

        async def app(scope, receive, send):
            if scope["type"] != "http":
                raise ValueError
            if scope["path"] == "/wait":
                await asyncio.sleep(0.3)
            await asyncio.to_thread(time.sleep, 0)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": scope["path"].encode()})

        one = ASGIMiddleware(app)
        waiting = [gevent.spawn(call, one, environ_of(path="/wait")) for _ in range(10)]
        gevent.sleep(0.05)
        print(asyncio.run(asyncio.sleep(0, "a loop of its own")))
        def many():
            return [call(one, environ_of(path="/quick")).body for _ in range(20)]
        quick = [gevent.spawn(many) for _ in range(10)]
        gevent.joinall(waiting + quick, raise_error=True)
        print({each.value.body for each in waiting}, {body for each in quick for body in each.value})
        one.close()
    """
    assert python(program).splitlines() == ["a loop of its own", "{b'/wait'} {b'/quick'}"]


def test_uwsgi_without_threads_is_warned_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """PAINS A2: one warning, which names both ways out."""
    import types

    from a2wsgi import _engine

    uwsgi = types.ModuleType("uwsgi")
    uwsgi.opt = {"http-socket": b":8000"}  # type: ignore[attr-defined]  # as in uWSGI's process
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    monkeypatch.setattr(_engine, "_uwsgi_is_checked", False)
    for _ in range(2):
        call(ASGIMiddleware(hello))
    (record,) = caplog.records
    assert "enable-threads" in record.getMessage()
    assert "inline=True" in record.getMessage()


def test_bridge_that_is_dropped_after_its_loop_leaves_nothing_behind() -> None:
    """A ``loop=`` that has ended before: nobody runs it, and the end of the process waits for nothing."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    bridge = ASGIMiddleware(hello, loop=loop, lifespan=False)
    assert call(bridge).status == "200 OK"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    before = len(_engine._abandoned)
    del bridge
    gc.collect()
    assert len(_engine._abandoned) == before
