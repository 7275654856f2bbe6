"""How fast WSGI on ASGI is, in process: ours, a2wsgi 1.10.10, uvicorn's own bridge, and a bare hop to a thread.

Each contender answers the same requests from the same app object, with the same number of threads, in rounds that are
interleaved, so that a machine that slows down slows all of them. What is printed is the median of each contender's
rounds, in requests a second, and its ratio to ours. A contender whose response is not what the app made is shown as
failing, with no figure.

    python benchmarks/wsgi_on_asgi.py --peer DIRECTORY

DIRECTORY holds the package of 1.10.10, as ``pip install --target DIRECTORY a2wsgi==1.10.10`` leaves it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import queue
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from a2wsgi import WSGIMiddleware

WORKERS = 10  # 1.10.10's default, which all of them get

App = Callable[[Any, Any, Any], Awaitable[None]]


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with 13 bytes and a length."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, world!"]


def stream(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with 100 chunks of 1 KiB."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    for _ in range(100):
        yield b"x" * 1024


def scope() -> dict[str, Any]:
    """Make a request as a browser sends it and uvicorn hands it over."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/hello",
        "raw_path": b"/hello",
        "query_string": b"q=1",
        "root_path": "",
        "headers": [
            (b"host", b"127.0.0.1:8000"),
            (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
            (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            (b"accept-language", b"en-US,en;q=0.5"),
            (b"accept-encoding", b"gzip, deflate, br"),
            (b"connection", b"keep-alive"),
            (b"cookie", b"session=0123456789abcdef"),
        ],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


async def request(app: App) -> tuple[int, int]:
    """Call ``app`` as a server does; the status and the length of the body that it sent."""
    status = length = 0
    received = False

    async def receive() -> dict[str, Any]:
        nonlocal received
        if received:
            await asyncio.get_running_loop().create_future()
        received = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status, length
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            length += len(message.get("body", b""))

    await app(scope(), receive, send)
    return status, length


class Hop:
    """The floor: a thread that waits is called and answers, and nothing else."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[asyncio.Future[None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run).start()

    def _run(self) -> None:
        while (waiter := self._calls.get()) is not None:
            waiter.get_loop().call_soon_threadsafe(waiter.set_result, None)

    def close(self) -> None:
        self._calls.put(None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._calls.put(waiter)
        await waiter


async def rate(app: App, requests: int, at_once: int) -> float:
    """How many requests a second ``app`` answers."""

    async def client() -> None:
        for _ in range(requests // at_once):
            await request(app)

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(at_once)))
    return requests / (time.perf_counter() - begin)


async def compare(
    title: str, contenders: dict[str, App], expected: tuple[int, int], *, requests: int, at_once: int, rounds: int
) -> None:
    """Run one comparison and print it."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    failing = set()
    for name, app in contenders.items():
        got = await request(app)
        if got != expected and name != "bare hop":
            failing.add(name)
            print(f"{title}: {name} FAILS, its response is {got} and not {expected}")
    for _ in range(rounds):
        for name, app in contenders.items():
            if name not in failing:
                rates[name].append(await rate(app, requests, at_once))
    ours = statistics.median(rates["a2wsgi"])
    print(f"\n{title}, {at_once} at once, median of {rounds} rounds of {requests}")
    for name, values in rates.items():
        if values:
            median = statistics.median(values)
            print(f"  {name:22} {median:10.0f} requests/s   ours is {ours / median:6.2f} times as fast")


def peers(directory: str | None) -> dict[str, Callable[[Any], App]]:
    """The other bridges, by name."""
    found: dict[str, Callable[[Any], App]] = {}
    if directory:
        ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "a2wsgi"}
        for name in ours:
            del sys.modules[name]
        sys.path.insert(0, directory)
        module = importlib.import_module("a2wsgi")
        assert Path(module.__file__ or "").is_relative_to(Path(directory).resolve()), module.__file__
        found["a2wsgi " + module.__version__] = lambda app: module.WSGIMiddleware(app, workers=WORKERS)
        for name in [name for name in sys.modules if name.split(".")[0] == "a2wsgi"]:
            del sys.modules[name]
        sys.modules.update(ours)
        sys.path.remove(directory)
    from uvicorn.middleware.wsgi import _WSGIMiddleware

    found["uvicorn's own"] = lambda app: _WSGIMiddleware(app, workers=WORKERS)
    return found


async def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", metavar="DIRECTORY", help="where 1.10.10 is")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    makers = {"a2wsgi": lambda app: WSGIMiddleware(app, workers=WORKERS), **peers(options.peer)}
    for title, app, expected, requests in (
        ("hello", hello, (200, 13), 1500),
        ("100 chunks of 1 KiB", stream, (200, 102_400), 150),
    ):
        contenders = {name: make(app) for name, make in makers.items()}
        hop = Hop()
        if title == "hello":
            contenders["bare hop"] = hop
        for at_once in (1, 50):
            await compare(title, contenders, expected, requests=requests, at_once=at_once, rounds=options.rounds)
        hop.close()


if __name__ == "__main__":
    asyncio.run(main())
