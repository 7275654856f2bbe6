"""Whether the server still answers while the app is busy: the loop's ticks, and a health check among slow clients.

*Ticks*: in the process of a bridge, a task of its loop sleeps for 5 ms again and again, while as many requests as there
are worker threads block or compute, again and again. What counts is how late the task wakes.

*Health check*: on a server, while 10 clients have an event stream open and 30 send their uploads a few bytes at a time,
another client asks for the health of the app, again and again. What counts is how long it waits.

    python benchmarks/responsiveness.py [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import contenders as peers
import measure
from contenders import NATIVE_ASGI, OLD, OURS, THREADS, WSGI_ON_ASGI
from measure import Row, Section, interleave
from served import Contender, Served, WrongResponse, get, serving
from served_streams import HEALTH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

NO_BRIDGE = "threads, no bridge"
TICK_SECONDS = 0.005
BUSY_SECONDS = 0.05  # of one request

STREAMS = 10
UPLOADS = 30
HEALTH_THREADS = 40  # as many as there are such clients: who keeps a thread for each has none left
HEALTH_BOUND_SECONDS = 3.0
DRIP_SECONDS = 0.2
UPLOAD_BYTES = 1024 * 1024  # which takes minutes

SERVERS = (
    Contender(NATIVE_ASGI, "uvicorn", "none, asgi"),
    *(Contender(name, "uvicorn", f"to asgi: {name}") for name in WSGI_ON_ASGI),
    Contender("gunicorn gthread", "gunicorn gthread", "none, wsgi"),
    Contender("waitress", "waitress", "none, wsgi"),
    Contender("granian", "granian", "none, wsgi"),
)
QUICK = {NO_BRIDGE, NATIVE_ASGI, OURS, OLD, "uvicorn's"}


# -- Ticks, in the contender's process ----------------------------------------------------------------------------


def block() -> None:
    time.sleep(BUSY_SECONDS)


def compute() -> None:
    """Keep the interpreter busy for so long of this thread's own time, whatever the others do."""
    end = time.thread_time() + BUSY_SECONDS
    while time.thread_time() < end:
        sum(range(1000))


BUSY: dict[str, Callable[[], None]] = {"block": block, "compute": compute}


def busy_app(busy: Callable[[], None]) -> Callable[..., Iterable[bytes]]:
    """Make a WSGI app that is busy and then answers."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        busy()
        start_response("200 OK", [("Content-Length", "5")])
        return [b"done\n"]

    return app


async def ticks(ask: Callable[[], Awaitable[None]], seconds: float) -> list[float]:
    """How late each tick was, in ms, while `THREADS` requests at a time are answered."""
    end = time.perf_counter() + seconds

    async def ask_on() -> None:
        while time.perf_counter() < end:
            await ask()

    tasks = [asyncio.create_task(ask_on()) for _ in range(THREADS)]
    late: list[float] = []
    while (begin := time.perf_counter()) < end:
        await asyncio.sleep(TICK_SECONDS)
        late.append((time.perf_counter() - begin - TICK_SECONDS) * 1000)
    await asyncio.gather(*tasks)
    return late


async def tick(name: str, kind: str, seconds: float) -> list[float]:
    """The delays of one contender's loop."""
    peers.same_threads(THREADS)
    if name == NO_BRIDGE:
        loop = asyncio.get_running_loop()

        async def ask() -> None:
            await loop.run_in_executor(None, BUSY[kind])
    else:
        app = WSGI_ON_ASGI[name](busy_app(BUSY[kind]), THREADS)

        async def ask() -> None:
            await answered(app)

    await ask()
    return await ticks(ask, seconds)


async def answered(app: Any) -> None:
    """Have ``app`` answer one GET, as a server does; its client stays."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }
    messages = [{"type": "http.request", "body": b"", "more_body": False}]
    body = b""
    status = 0

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        nonlocal body, status
        status = message.get("status", status)
        body += message.get("body", b"")

    await app(scope, receive, send)
    if (status, body) != (200, b"done\n"):
        raise WrongResponse(f"{status} {body!r}")


def tick_rows(kind: str, names: tuple[str, ...], rounds: int, seconds: float) -> list[Row]:
    """Each contender's delays while all its workers are busy, in a process of its own a round."""
    rows = {
        name: Row("responsiveness", f"all workers {kind}: tick delay, p99", name, "ms", higher_is_better=False)
        for name in names
    }
    medians: dict[str, list[float]] = {name: [] for name in names}
    for number, name in interleave(names, rounds):
        row = rows[name]
        command = [sys.executable, __file__, "--tick", name, kind, str(seconds)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 20, check=False)  # noqa: S603 - this file
        except subprocess.TimeoutExpired:
            row.failure = f"not done within {seconds + 20:g} s"
            continue
        if done.returncode:
            row.failure = done.stderr.strip().rpartition("\n")[2]
            continue
        late = json.loads(done.stdout)
        row.values.append(round(percentile(late, 99), 2))
        medians[name].append(statistics.median(late))
        measure.progress([f"all workers {kind}: round {number + 1} of {rounds}, {name}"])
    for name, row in rows.items():
        if row.median is not None:
            row.extra["p50_ms"] = round(statistics.median(medians[name]), 2)
    return list(rows.values())


def percentile(values: list[float], percent: int) -> float:
    """The value that so many percent are not above."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


# -- Health check, against a server -------------------------------------------------------------------------------


@contextlib.contextmanager
def slow_clients(port: int) -> Iterator[None]:
    """Keep the streams and the uploads open."""
    stop = threading.Event()
    with contextlib.ExitStack() as stack:

        def ask(head: str) -> socket.socket:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            connection.sendall(f"{head}\r\n\r\n".encode())
            connection.setblocking(False)  # noqa: FBT003 - its name says it
            return connection

        streams = [ask("GET /events HTTP/1.1\r\nHost: a") for _ in range(STREAMS)]
        head = f"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {UPLOAD_BYTES}"
        uploads = [ask(head) for _ in range(UPLOADS)]

        def go_on() -> None:
            while not stop.wait(DRIP_SECONDS):
                for upload in uploads:
                    with contextlib.suppress(OSError):
                        upload.send(bytes(100))
                for stream in streams:
                    with contextlib.suppress(OSError):
                        stream.recv(65536)

        dripping = threading.Thread(target=go_on)
        dripping.start()
        try:
            stop.wait(2 * DRIP_SECONDS)  # all have been let in, and given a thread by whoever gives them one
            yield
        finally:
            stop.set()
            dripping.join()


def health_check(served: Served, seconds: float) -> list[float]:
    """How long each health check took, in ms.

    Raises:
        WrongResponse: One was not answered within its bound, or not as the app says.
    """
    took: list[float] = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        try:
            status, _, body, _ = get(served.port, "/health", timeout=HEALTH_BOUND_SECONDS)
        except TimeoutError:
            raise WrongResponse(f"no answer within {HEALTH_BOUND_SECONDS:g} s") from None
        except OSError as error:
            raise WrongResponse(str(error)) from None
        if (status, body) != (200, HEALTH):
            raise WrongResponse(f"{status} {body!r}")
        took.append((time.perf_counter() - begin) * 1000)
        time.sleep(0.01)
    return took


def health_rows(contenders: tuple[Contender, ...], rounds: int, seconds: float) -> list[Row]:
    """Each contender's health among slow clients."""
    work = f"{STREAMS} event streams and {UPLOADS} slow uploads are open: health check, p99"
    rows = {
        contender.name: Row("responsiveness", work, contender.name, "ms", higher_is_better=False)
        for contender in contenders
    }
    medians: dict[str, list[float]] = {name: [] for name in rows}
    with serving(contenders, "served_streams", HEALTH_THREADS) as servers:
        for name, served in servers.items():
            try:
                served.wait_until_it_answers("/health")
            except WrongResponse as error:
                rows[name].failure = str(error)
        for number, contender in interleave(contenders, rounds):
            row = rows[contender.name]
            if row.failure is None:
                served = servers[contender.name]
                try:
                    with slow_clients(served.port):
                        took = health_check(served, seconds)
                except (WrongResponse, OSError) as error:
                    row.failure = str(error)
                    served.process.kill()
                    continue
                row.values.append(round(percentile(took, 99), 2))
                medians[row.contender].append(statistics.median(took))
                measure.progress([f"health check: round {number + 1} of {rounds}, {row.contender}"])
    for name, row in rows.items():
        if row.median is not None:
            row.extra["p50_ms"] = round(statistics.median(medians[name]), 2)
    return list(rows.values())


def run(*, quick: bool, rounds: int) -> Section:
    """Measure both."""
    section = Section(
        "responsiveness",
        "Responsiveness",
        f"Ticks: a task of the loop (uvloop) sleeps for {TICK_SECONDS * 1000:g} ms again and again, and wakes late by "
        f"the time shown, while {THREADS} requests at once keep {THREADS} threads busy for {BUSY_SECONDS * 1000:g} ms "
        "each (asgiref's bridge has one). Health check: on a new connection each time, at most "
        f"{HEALTH_BOUND_SECONDS:g} s, {HEALTH_THREADS} threads.",
    )
    rounds = 1 if quick else min(rounds, 2)
    names = tuple(name for name in (NO_BRIDGE, *WSGI_ON_ASGI) if not quick or name in QUICK)
    for kind, seconds in ("block", 1.0), ("compute", 3.0):  # the latter has few ticks a second
        section.rows += tick_rows(kind, names, rounds, 1.0 if quick else seconds)
    servers = tuple(contender for contender in SERVERS if not quick or contender.name in QUICK)
    section.rows += health_rows(servers, rounds, 1.0 if quick else 2.0)
    return section


def main() -> None:
    """Run all, or one contender's ticks, which are written as JSON."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--tick", nargs=3)
    options, _ = parser.parse_known_args()
    if not options.tick:
        measure.main(run)
        return
    import uvloop

    name, kind, seconds = options.tick
    print(json.dumps(uvloop.run(tick(name, kind, float(seconds)))))


if __name__ == "__main__":
    main()
