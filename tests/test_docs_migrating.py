"""What ``docs/migrating.md`` shows as "before" and "after" runs: the former with a warning, the latter without one.

The blocks are parts of a reader's program. Each test has what stands around them there.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from a2wsgi import ASGIMiddleware, WSGIMiddleware
from support import asgi_driver
from support.wsgi_driver import call, environ_of

applications = pytest.importorskip("starlette.applications")
responses = pytest.importorskip("starlette.responses")
routing = pytest.importorskip("starlette.routing")

PAGE = Path(__file__).parent.parent / "docs" / "migrating.md"
BLOCKS = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def block(*words: str) -> str:
    """The only block with all of these words."""
    (found,) = [text for text in BLOCKS if all(word in text for word in words)]
    return str(found)


def run(text: str, names: dict[str, Any]) -> None:
    """Run a block, which may await at its top level."""
    code = compile(text, str(PAGE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if (waiting := eval(code, names)) is not None:  # noqa: S307
        asyncio.run(waiting)


class Site:
    """A Starlette app, and how often its lifespan began and ended."""

    def __init__(self) -> None:
        self.told: list[str] = []

        @contextlib.asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[None]:
            self.told.append("begins")
            yield
            self.told.append("ends")

        async def hello(_: Any) -> Any:
            return responses.PlainTextResponse("hello")

        self.app = applications.Starlette(routes=[routing.Route("/", hello)], lifespan=lifespan)


@pytest.fixture
def site() -> Site:
    """One for each test."""
    return Site()


@contextlib.contextmanager
def ending(loop: asyncio.AbstractEventLoop, threads: Iterable[threading.Thread]) -> Iterator[None]:
    """End a loop that a program runs in threads of its own, after the block."""
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        for thread in threads:
            thread.join(10)
        loop.close()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One that runs in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    with ending(loop, [thread]):
        yield loop


def test_every_block_is_run() -> None:
    """Each is named by a test here."""
    tested = [
        block("# before", "lifespan_context"),
        block("# after", "bridge.start()"),
        block("lifespan=False)  # you"),
        block("# before", "bridge.loop"),
        block("# before", "ASGIResponder"),
        block("# after", "bridges[loop]"),
        block("# before", "WSGIResponder"),
        block("# after", "keep"),
    ]
    assert sorted(tested) == sorted(BLOCKS)


def test_loop_and_lifespan_by_hand_still_work(site: Site) -> None:
    """The program runs the lifespan; the bridge, which warns, does not run it again."""
    before = set(threading.enumerate())
    names = {"asyncio": asyncio, "threading": threading, "ASGIMiddleware": ASGIMiddleware, "app": site.app}
    with pytest.warns(DeprecationWarning, match="lifespan="):
        run(block("# before", "lifespan_context"), names)
    with ending(names["loop"], set(threading.enumerate()) - before):
        assert call(names["bridge"]).body == b"hello"
        assert site.told == ["begins"]
        leaving = names["lifespan"].__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(leaving, names["loop"]).result(10)
    assert site.told == ["begins", "ends"]


def test_bridge_runs_the_lifespan_instead(site: Site) -> None:
    """From ``start()`` to ``close()``."""
    names: dict[str, Any] = {"ASGIMiddleware": ASGIMiddleware, "app": site.app}
    run(block("# after", "bridge.start()"), names)
    assert site.told == ["begins"]
    assert call(names["bridge"]).body == b"hello"
    names["bridge"].close()
    assert site.told == ["begins", "ends"]


def test_who_runs_the_lifespan_can_be_chosen(site: Site, loop: asyncio.AbstractEventLoop) -> None:
    """The first line leaves it to the program, and the second to the bridge."""
    made: list[ASGIMiddleware] = []

    def make(*args: Any, **options: Any) -> ASGIMiddleware:
        made.append(ASGIMiddleware(*args, **options))
        return made[-1]

    run(block("lifespan=False)  # you"), {"ASGIMiddleware": make, "app": site.app, "loop": loop})
    yours, ours = made
    assert call(yours).body == b"hello"
    assert site.told == []
    with ours:
        assert call(ours).body == b"hello"
        assert site.told == ["begins"]
    assert site.told == ["begins", "ends"]


def test_loop_of_the_bridge_still_runs_what_it_is_given(site: Site) -> None:
    """With a warning; and the lifespan is the program's."""
    started = threading.Event()

    async def start_up(_: Any) -> None:
        started.set()

    names = {"ASGIMiddleware": ASGIMiddleware, "app": site.app, "asyncio": asyncio, "start_up": start_up}
    with pytest.warns(DeprecationWarning, match="loop"):
        run(block("# before", "bridge.loop"), names)
    with names["bridge"] as bridge:
        assert started.wait(10)
        assert call(bridge).body == b"hello"
        assert site.told == []


@pytest.mark.filterwarnings("ignore:ASGIResponder:DeprecationWarning")
@pytest.mark.parametrize(
    "which", [("# before", "ASGIResponder"), ("# after", "bridges[loop]")], ids=["before", "after"]
)
def test_asgi_responder_and_its_successor_answer(
    site: Site, loop: asyncio.AbstractEventLoop, which: tuple[str, str]
) -> None:
    """The same."""
    from a2wsgi.asgi import ASGIResponder

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        names = {
            "ASGIMiddleware": ASGIMiddleware,
            "ASGIResponder": ASGIResponder,
            "app": site.app,
            "loop": loop,
            "environ": environ,
            "start_response": start_response,
        }
        run(block(*which), names)
        return names["response"]

    assert call(wsgi_app, environ_of()).body == b"hello"


@pytest.mark.filterwarnings("ignore:WSGIResponder:DeprecationWarning")
@pytest.mark.parametrize("which", [("# before", "WSGIResponder"), ("# after", "keep")], ids=["before", "after"])
def test_wsgi_responder_and_its_successor_keep_messages(which: tuple[str, str]) -> None:
    """All that would have been sent."""
    from a2wsgi.wsgi import WSGIResponder, _bridges_of_executors

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b"hello"]

    client = asgi_driver.Client()
    messages: list[Any] = []
    with ThreadPoolExecutor(2) as executor:
        names = {
            "WSGIMiddleware": WSGIMiddleware,
            "WSGIResponder": WSGIResponder,
            "app": app,
            "executor": executor,
            "scope": asgi_driver.http_scope(),
            "receive": client.receive,
            "send": client.send,
            "messages": messages,
        }
        run(block(*which), names)
        _bridges_of_executors.pop(executor, None)  # as when the executor is dropped
        names.clear()  # Python 3.13 without a GIL frees no function of the block's, which has them
    assert messages[0]["type"] == "http.response.start"
    assert b"".join(message["body"] for message in messages[1:]) == b"hello"
    assert not messages[-1].get("more_body")
