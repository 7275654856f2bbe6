"""The loop among gevent's greenlets."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent.parent


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


def test_under_gevent_other_greenlets_run_and_see_no_loop() -> None:
    """PAINS K5: while a greenlet waits for an app, others go on, and may run a loop of their own."""
    pytest.importorskip("gevent")
    program = """
        import gevent.monkey
        gevent.monkey.patch_all()
        import asyncio, logging, time, gevent
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # its debug mode warns of a machine that is slow
        from support.wsgi_driver import call, environ_of
        from a2wsgi._front.asgi_middleware import ASGIMiddleware

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


def test_under_gevent_a_request_waits_for_an_app_that_waits_in_the_middle_of_a_step() -> None:
    """As a database driver does, while gevent lets others run: those do not run the loop, though their thread does."""
    pytest.importorskip("gevent")
    program = """
        import gevent.monkey
        gevent.monkey.patch_all()
        import asyncio, logging, gevent.event
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # as above
        from support.wsgi_driver import Exchange, call, environ_of
        from a2wsgi._front.asgi_middleware import ASGIMiddleware

        started, go = gevent.event.Event(), gevent.event.Event()

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": scope["path"].encode(), "more_body": True})
            await asyncio.sleep(0.01)
            if scope["path"] == "/wait":
                started.set()
                go.wait()
            await send({"type": "http.response.body"})

        with ASGIMiddleware(app, inline=True, lifespan=False) as one:
            begun = Exchange(one, environ_of(path="/begun")).begin()
            waiting = gevent.spawn(call, one, environ_of(path="/wait"))
            started.wait()
            others = [gevent.spawn(list, begun.iterator), gevent.spawn(call, one, environ_of(path="/other"))]
            gevent.sleep(0)
            go.set()
            gevent.joinall([waiting, *others], raise_error=True)
            begun.close()
        print(waiting.value.body, b"".join(others[0].value), others[1].value.body)
    """
    assert python(program) == "b'/wait' b'/begun' b'/other'\n"
