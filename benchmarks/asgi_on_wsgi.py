"""How fast ASGI on WSGI is, in process: ours with a loop thread and inline, a2wsgi 1.10.10, and bare hops to a loop.

Each contender answers the same requests from the same app object, in rounds that are interleaved, so that a machine
that slows down slows all of them. What is printed is the median of each contender's rounds, in requests a second, and
how many times as fast ours are. A contender whose response is not what the app made is shown as failing, with no
figure.

    python benchmarks/asgi_on_wsgi.py --peer DIRECTORY

DIRECTORY holds the package of 1.10.10, as ``pip install --target DIRECTORY a2wsgi==1.10.10`` leaves it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import io
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from a2wsgi.asgi_to_wsgi import ASGIMiddleware

App = Callable[[Any, Any], Iterable[bytes]]


async def hello(_scope: object, _receive: object, send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer with 13 bytes and a length."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, world!", "more_body": False})


async def stream(_scope: object, _receive: object, send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer with 100 chunks of 1 KiB."""
    headers = [(b"content-type", b"application/octet-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(100):
        await send({"type": "http.response.body", "body": b"x" * 1024, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def environ() -> dict[str, Any]:
    """Make a request as a browser sends it and a server hands it over."""
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/hello",
        "QUERY_STRING": "q=1",
        "RAW_URI": "/hello?q=1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "HTTP_HOST": "127.0.0.1:8000",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "HTTP_ACCEPT_LANGUAGE": "en-US,en;q=0.5",
        "HTTP_ACCEPT_ENCODING": "gzip, deflate, br",
        "HTTP_COOKIE": "session=0123456789abcdef",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def request(app: App) -> tuple[str, int]:
    """Call ``app`` as a server does; the status and the length of the body that it sent."""
    status = ""
    length = 0

    def start_response(line: str, _headers: object, _exc_info: object = None) -> None:
        nonlocal status
        status = line

    iterable = app(environ(), start_response)
    try:
        for chunk in iterable:
            length += len(chunk)
    finally:
        close = getattr(iterable, "close", None)
        if close is not None:
            close()
    return status, length


class Hop:
    """The floor: a loop in a thread that is called and answers, and nothing else.

    Args:
        task: Whether it answers from a task, as every bridge must, or from a callback.
    """

    def __init__(self, *, task: bool) -> None:
        self._task = task
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    @staticmethod
    async def _open(gate: threading.Lock) -> None:
        gate.release()

    def _start(self, gate: threading.Lock) -> None:
        self._last = self._loop.create_task(self._open(gate))

    def __call__(self, _environ: object, _start_response: object) -> Iterable[bytes]:
        """Wait for the loop once."""
        gate = threading.Lock()
        gate.acquire()
        if self._task:
            self._loop.call_soon_threadsafe(self._start, gate)
        else:
            self._loop.call_soon_threadsafe(gate.release)
        gate.acquire()
        return ()


def rate(app: App, requests: int, at_once: int) -> float:
    """How many requests a second ``app`` answers, to so many server threads."""

    def serve() -> None:
        for _ in range(requests // at_once):
            request(app)

    begin = time.perf_counter()
    if at_once == 1:
        serve()
    else:
        threads = [threading.Thread(target=serve) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return requests / (time.perf_counter() - begin)


def compare(
    title: str, contenders: dict[str, App], expected: tuple[str, int], *, at_once: int, requests: int, rounds: int
) -> None:
    """Run one comparison and print it."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for name, app in contenders.items():
        got = request(app)
        if got != expected and not name.startswith("bare"):
            print(f"{title}: {name} FAILS, its response is {got} and not {expected}")
            del rates[name]
    for _ in range(rounds):
        for name, values in rates.items():
            values.append(rate(contenders[name], requests, at_once))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"\n{title}, {at_once} at once, median of {rounds} rounds of {requests}")
    for name, median in medians.items():
        ratios = ", ".join(f"{ours} is {medians[ours] / median:6.2f}" for ours in ("thread", "inline"))
        print(f"  {name:22} {median:10.0f} requests/s   {ratios} times as fast")


def peer(directory: str) -> tuple[str, Callable[[Any], App]]:
    """The bridge of 1.10.10: its name, and what makes one."""
    ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "a2wsgi"}
    for name in ours:
        del sys.modules[name]
    sys.path.insert(0, directory)
    module = importlib.import_module("a2wsgi")
    if not Path(module.__file__ or "").is_relative_to(Path(directory).resolve()):
        raise SystemExit(f"{directory} holds no a2wsgi: {module.__file__} was imported")
    for name in [name for name in sys.modules if name.split(".")[0] == "a2wsgi"]:
        del sys.modules[name]
    sys.modules.update(ours)
    sys.path.remove(directory)
    return "a2wsgi " + module.__version__, module.ASGIMiddleware


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", metavar="DIRECTORY", help="where 1.10.10 is")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    for title, app, expected, requests in (
        ("hello", hello, ("200 OK", 13), 1000),
        ("100 chunks of 1 KiB", stream, ("200 OK", 102_400), 100),
    ):
        contenders: dict[str, App] = {"thread": ASGIMiddleware(app), "inline": ASGIMiddleware(app, inline=True)}
        if options.peer:
            name, make = peer(options.peer)
            contenders[name] = make(app)
        if title == "hello":
            contenders |= {"bare hop": Hop(task=False), "bare hop to a task": Hop(task=True)}
        for at_once in (1, 10):
            compare(title, contenders, expected, at_once=at_once, requests=requests, rounds=options.rounds)


if __name__ == "__main__":
    main()
