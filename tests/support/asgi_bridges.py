"""Bridges around ASGI apps of each kind, and the smallest app and its messages."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from a2wsgi._front.asgi_middleware import ASGIMiddleware
from support.bridges import Nested, only_single
from support.wsgi_driver import Response

Bridge = Callable[..., Any]

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def body(data: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    """A part of a response's body."""
    return {"type": "http.response.body", "body": data, "more_body": more}


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer in one go."""
    await send(START)
    await send(body(b"hello"))


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with a letter for each message (request, disconnect), and the body."""
    messages = []
    while True:
        message = await receive()
        messages.append(message)
        if message["type"] == "http.disconnect" or not message["more_body"]:
            break
    await send(START)
    data = b"".join(message.get("body", b"") for message in messages)
    kinds = "".join("d" if message["type"] == "http.disconnect" else "r" for message in messages)
    await send(body(kinds.encode() + b":" + data))


class OddError(Exception):
    """An app's own."""


HELLO = Response("200 OK", [("content-type", "text/plain"), ("Content-Length", "5")], [b"hello"], 1)


@pytest.fixture(scope="module", autouse=True)
def _uvloop_has_its_pipe() -> None:
    """Have uvloop open what it keeps open for ever, before anybody counts."""
    with contextlib.suppress(ImportError):
        import uvloop

        loop = uvloop.new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


#: The kinds of a bridge alone; besides there is "nested", one around one around one.
ALONE = ["thread", "inline", "loop", "uvloop", "trio"]

#: Runs a test through a bridge with each of these options.
THREAD_INLINE_TRIO = pytest.mark.parametrize(
    "options", [{}, {"inline": True}, {"backend": "trio"}], ids=["thread", "inline", "trio"]
)
THREAD_AND_TRIO = pytest.mark.parametrize("options", [{}, {"backend": "trio"}], ids=["thread", "trio"])

HEAD_WAITS = "PEP 3333 between two bridges has the head wait for the first chunk that is not empty"


def alone(reason: str) -> pytest.MarkDecorator:
    """Run a test through one bridge of each kind, for that reason."""
    return only_single(reason, "bridge", ALONE)


@pytest.fixture(params=[*ALONE, "nested", "nested trio"])
def bridge(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    """Makes a bridge of each kind, without lifespan unless it is asked for."""
    made: list[Any] = []
    kind_of_bridge: Any = Nested if request.param.startswith("nested") else ASGIMiddleware
    loop = thread = None
    kind: dict[str, Any] = {"inline": True} if request.param == "inline" else {}
    if request.param in {"trio", "nested trio"}:
        pytest.importorskip("trio")
        kind = {"backend": "trio"}
    if request.param in {"loop", "uvloop"}:
        module = asyncio if request.param == "loop" else pytest.importorskip("uvloop")
        loop = module.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        kind = {"loop": loop}

    def make(app: Any, **options: Any) -> Any:
        made.append(kind_of_bridge(app, **{"lifespan": False, **kind, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()
    if loop is not None and thread is not None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        left = asyncio.all_tasks(loop)
        loop.close()
        assert not left, f"Tasks were left behind: {left}"


def threaded(**options: Any) -> Callable[[Any], ASGIMiddleware]:
    """Make bridges with options, without lifespan."""
    options = {"lifespan": False, **options}
    return lambda app: ASGIMiddleware(app, **options)
