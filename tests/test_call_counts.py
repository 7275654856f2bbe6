"""A request costs no more Python calls in a2wsgi than it did: the hot path is guarded by a count, not by a clock.

What is counted is every Python frame that is entered or resumed in a file of ``src/a2wsgi``, in all threads, for one
request on a bridge that has answered others before. The order of the threads is forced, so that each run counts the
same: the other side of a bridge goes on only when this side waits for it.

A lower count is good news: write it into `MOST`, or a later rise up to the old figure goes unnoticed.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import a2wsgi
from a2wsgi import ASGIMiddleware, WSGIMiddleware
from support.asgi_driver import Client, answer
from support.lockstep import BOUND_SECONDS
from support.wsgi_driver import call

SOURCE = str(Path(a2wsgi.__file__).parent)

#: Requests before those that are counted, and those. Of these the fewest calls count: on a machine that stalls for
#: long, a thread may look around while it waits, and timers may come due.
WARM, COUNTED = 2, 5

#: The calls of each kind of request, before Python 3.12 and since then: that has no frames for list comprehensions.
MOST = {
    "wsgi hello": (54, 53),
    "wsgi 20 chunks": (79, 78),
    "asgi hello": (41, 41),
    "asgi hello inline": (48, 40),
}


class Calls:
    """Counts, while it is entered, the calls of the threads that were started since then, and of this one.

    Attributes:
        found: The calls in a2wsgi since `begin`, by file and function.
    """

    def __init__(self) -> None:
        self.found: list[str] | None = None
        self._awaited: int | None = None
        self._waits = queue.SimpleQueue[None]()  # written in C: it has no calls of its own
        self._counts: list[Counter[str]] = []

    def __enter__(self) -> None:
        self._before = sys.getprofile(), threading.getprofile()
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before[0])
        threading.setprofile(self._before[1])

    def _note(self, frame: FrameType, event: str, arg: Any) -> None:
        found = self.found
        if event == "call" and found is not None and frame.f_code.co_filename.startswith(SOURCE):
            found.append(f"{Path(frame.f_code.co_filename).name}: {frame.f_code.co_name}")
        elif event == "c_call" and self._awaited == threading.get_ident() and arg.__name__ == "acquire":
            self._awaited = None
            self._waits.put(None)

    def expect_wait(self, thread: int) -> None:
        """From now on look for the next time that a thread waits for a lock."""
        self._awaited = thread

    def until_it_waits(self) -> None:
        """Wait for that."""
        self._waits.get(timeout=BOUND_SECONDS)

    def begin(self) -> None:
        """Count one request, from here on."""
        self.found = []

    def end(self) -> None:
        """The request is answered."""
        assert self.found is not None
        self._counts.append(Counter(self.found))
        self.found = None

    def fewest(self) -> Counter[str]:
        """The calls of the request that had the fewest."""
        return min(self._counts[WARM:], key=Counter.total)


def assert_at_most(kind: str, calls: Calls) -> None:
    """Fail if a request had more calls than `MOST` says, and show which."""
    fewest = calls.fewest()
    most = MOST[kind][sys.version_info >= (3, 12)]
    listed = "\n".join(f"{number:6}  {name}" for name, number in sorted(fewest.items()))
    assert fewest.total() <= most, f"{kind}: {fewest.total()} calls in a2wsgi, and {most} were enough before:\n{listed}"


# -- WSGI apps --------------------------------------------------------------------------------------------------------


class FrozenLoop(asyncio.SelectorEventLoop):
    """A loop on which no time passes: no timer of a bridge comes due, however slow the machine."""

    def time(self) -> float:
        return 0.0


def hello(environ: Any, start_response: Any) -> Iterable[bytes]:
    """A body in one piece."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def twenty_chunks(environ: Any, start_response: Any) -> Iterator[bytes]:
    """A body in pieces, of a length that nobody knows."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    for _ in range(20):
        yield b"chunk"


@pytest.mark.parametrize(("kind", "app"), [("wsgi hello", hello), ("wsgi 20 chunks", twenty_chunks)])
def test_wsgi_request_costs_no_more_calls(kind: str, app: Callable[..., Iterable[bytes]]) -> None:
    """The loop thread goes on when the worker thread is through with the whole request."""
    calls = Calls()

    def watched(environ: Any, start_response: Any) -> Iterable[bytes]:
        # It may wait for nothing before it is through: the app does not wait, and 20 chunks fit into the queue.
        calls.expect_wait(threading.get_ident())
        return app(environ, start_response)

    async def story() -> None:
        bridge = WSGIMiddleware(watched, 1)
        for _ in range(WARM + COUNTED):
            asyncio.get_running_loop().call_soon(calls.until_it_waits)  # as soon as the request's own task waits
            client = Client()
            calls.begin()
            response = await answer(bridge, client)
            calls.end()
            assert response.body in {b"hello", b"chunk" * 20}

    loop = FrozenLoop()
    with calls:
        try:
            loop.run_until_complete(story())
        finally:
            loop.close()
    assert_at_most(kind, calls)


# -- ASGI apps --------------------------------------------------------------------------------------------------------


async def asgi_hello(send: Callable[[Any], Awaitable[None]]) -> None:
    """A body in one piece, of a length that is said."""
    fields = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.mark.parametrize("inline", [False, True], ids=["threaded", "inline"])
def test_asgi_request_costs_no_more_calls(inline: bool) -> None:
    """The loop thread goes on when the server thread waits for the response."""
    calls = Calls()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not inline:
            calls.until_it_waits()
        await asgi_hello(send)

    bridge = ASGIMiddleware(app, inline=inline, lifespan=False)
    with calls, bridge:
        for _ in range(WARM + COUNTED):
            calls.expect_wait(threading.get_ident())
            calls.begin()
            response = call(bridge)
            calls.end()
            assert response.body == b"hello"
    assert_at_most("asgi hello inline" if inline else "asgi hello", calls)
