"""The server's side, in process: it calls an app as a server does, counts what comes back, and takes the time.

A *pass* is so many requests by so many clients at once, all of it inside one timer; a request by itself would be too
short to time. Each contender's answer is first checked for its status, length and checksum; in the passes themselves
for status and length.
"""

from __future__ import annotations

import asyncio
import gc
import io
import math
import statistics
import sys
import threading
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from measure import Row, interleave

import apps

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

LIMIT_SECONDS = 120.0  # what a pass may take before the contender counts as hanging
ENOUGH_SECONDS = 2.0  # who needs longer than a pass for one request is not asked again once it has spent so long

BROWSER = {
    "Host": "127.0.0.1:8000",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br",
    "Cookie": "session=0123456789abcdef",
}

REPEATED = "0123456789"


@dataclass(frozen=True)
class Work:
    """A request, and what its response has to be.

    Attributes:
        name: What it is called in the tables.
        path: See `apps`.
        query: See `apps`.
        body: The number of messages in which the request's body comes, and their size.
        repeats: How often the request has the header ``X-Repeated``, on top of what a browser sends.
        unit: What is counted.
        units: How many of them a request is.
    """

    name: str
    path: str
    query: str = ""
    body: tuple[int, int] = (0, 0)
    repeats: int = 0
    unit: str = "requests/s"
    units: float = 1

    @property
    def body_length(self) -> int:
        return self.body[0] * self.body[1]

    def answer(self, *, check: bool) -> Iterable[bytes]:
        if self.path == "/stream":
            count, size = self.query.split("x")
            return apps.chunks(int(count), int(size))
        if self.path == "/echo":
            return apps.chunks(*self.body)
        if self.path == "/upload":
            checksum = zlib.crc32(b"".join(apps.chunks(*self.body))) if check else 0
            return [b"%d %d" % (self.body_length, checksum)]
        return [apps.HELLO]


class WrongAnswer(Exception):  # noqa: N818 - a verdict
    """A contender's response is not what the app made."""


class Driver(Protocol):
    """One kind of server."""

    def check(self, app: Any, work: Work) -> None:
        """Raise a `WrongAnswer` if the response is not, byte for byte, what it has to be."""

    def seconds(self, app: Any, work: Work, each: int, at_once: int) -> float:
        """How long a pass takes, in which ``at_once`` clients make ``each`` requests one after another."""

    def close(self) -> None: ...


def _compare(got: tuple[int, int], length: int) -> None:
    if got != (200, length):
        raise WrongAnswer(f"status {got[0]} and {got[1]:,} bytes instead of 200 and {length:,}")


def _compare_bodies(got: bytes, expected: bytes) -> None:
    if zlib.crc32(got) != zlib.crc32(expected):
        raise WrongAnswer("the body has the right length and the wrong bytes")


# -- An ASGI server -----------------------------------------------------------------------------------------------


class ASGIServer:
    """Calls ASGI apps, all on one event loop, which runs during a pass only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(coroutine, LIMIT_SECONDS))

    def close(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def check(self, app: Any, work: Work) -> None:
        expected = b"".join(work.answer(check=True))
        body: list[bytes] = []
        _compare(self.run(_ask_asgi(app, work, _scope(work, check=True), body)), len(expected))
        _compare_bodies(b"".join(body), expected)

    def seconds(self, app: Any, work: Work, each: int, at_once: int) -> float:
        return float(self.run(self._pass(app, work, each, at_once)))

    async def _pass(self, app: Any, work: Work, each: int, at_once: int) -> float:
        template = _scope(work)
        length = sum(map(len, work.answer(check=False)))

        async def client() -> None:
            for _ in range(each):
                scope = {**template, "headers": list(template["headers"]), "state": {}}
                got = await _ask_asgi(app, work, scope)
                if not isinstance(app, Hop):
                    _compare(got, length)

        begin = time.perf_counter()
        if at_once == 1:
            await client()
        else:
            await asyncio.gather(*(client() for _ in range(at_once)))
        return time.perf_counter() - begin


def _scope(work: Work, *, check: bool = False) -> dict[str, Any]:
    headers = [(name.lower().encode(), value.encode()) for name, value in BROWSER.items()]
    headers += [(b"x-repeated", REPEATED.encode())] * work.repeats
    if work.body_length:
        headers.append((b"content-length", b"%d" % work.body_length))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST" if work.body_length else "GET",
        "scheme": "http",
        "path": work.path,
        "raw_path": work.path.encode(),
        "query_string": b"check" if check and work.path == "/upload" else work.query.encode(),
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


async def _ask_asgi(app: Any, work: Work, scope: dict[str, Any], body: list[bytes] | None = None) -> tuple[int, int]:
    status = length = 0
    left = work.body[0]
    pieces = iter(apps.chunks(*work.body))

    async def receive() -> dict[str, Any]:
        nonlocal left
        if left < 0:
            await asyncio.get_running_loop().create_future()  # the client stays
        left -= 1
        more = left > 0
        if not more:
            left = -1
        return {"type": "http.request", "body": next(pieces, b""), "more_body": more}

    async def send(message: Any) -> None:
        nonlocal status, length
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            chunk = message.get("body", b"")
            length += len(chunk)
            if body is not None:
                body.append(bytes(chunk))

    await app(scope, receive, send)
    return status, length


# -- A WSGI server ------------------------------------------------------------------------------------------------


class WSGIServer:
    """Calls WSGI apps, in a thread for each client."""

    def close(self) -> None:
        """Nothing to close."""

    def check(self, app: Any, work: Work) -> None:
        expected = b"".join(work.answer(check=True))
        sent = b"".join(apps.chunks(*work.body))
        body: list[bytes] = []
        _compare(_ask_wsgi(app, _environ(work, check=True), sent, body), len(expected))
        _compare_bodies(b"".join(body), expected)

    def seconds(self, app: Any, work: Work, each: int, at_once: int) -> float:
        template = _environ(work)
        length = sum(map(len, work.answer(check=False)))
        sent = b"".join(apps.chunks(*work.body))
        errors: list[BaseException] = []

        def client() -> None:
            for _ in range(each):
                got = _ask_wsgi(app, dict(template), sent)
                if not isinstance(app, Hop):
                    _compare(got, length)

        start = threading.Barrier(at_once)
        begins: list[float] = []
        ends: list[float] = []

        def thread() -> None:
            try:
                start.wait()
                begins.append(time.perf_counter())
                client()
                ends.append(time.perf_counter())
            except BaseException as error:  # noqa: BLE001 - it is raised below
                errors.append(error)

        threads = [threading.Thread(target=thread, daemon=True) for _ in range(at_once)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(LIMIT_SECONDS)
            if one.is_alive():
                raise TimeoutError
        if errors:
            raise errors[0]
        return max(ends) - min(begins)


def _environ(work: Work, *, check: bool = False) -> dict[str, Any]:
    query = "check" if check and work.path == "/upload" else work.query
    return {
        "REQUEST_METHOD": "POST" if work.body_length else "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": work.path,
        "QUERY_STRING": query,
        "RAW_URI": work.path + ("?" + query if query else ""),
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        **{"HTTP_" + name.upper().replace("-", "_"): value for name, value in BROWSER.items()},
        **({"CONTENT_LENGTH": str(work.body_length)} if work.body_length else {}),
        **({"HTTP_X_REPEATED": ",".join([REPEATED] * work.repeats)} if work.repeats else {}),  # servers join them
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def _ask_wsgi(app: Any, environ: dict[str, Any], sent: bytes, body: list[bytes] | None = None) -> tuple[int, int]:
    status = length = 0
    environ["wsgi.input"] = io.BytesIO(sent)

    def start_response(line: str, _headers: object, _exc_info: object = None) -> None:
        nonlocal status
        status = int(line[:3])

    iterable = app(environ, start_response)
    try:
        for chunk in iterable:
            length += len(chunk)
            if body is not None:
                body.append(chunk)
    finally:
        close = getattr(iterable, "close", None)
        if close is not None:
            close()
    return status, length


# -- The floor ----------------------------------------------------------------------------------------------------


class Hop:
    """Something that answers no request, and only wakes a thread or a loop and waits for it: no bridge can do less."""

    def close(self) -> None:
        """Let the other side end."""


class HopToThread(Hop):
    """From a loop to a thread that waits, and back. Stands where an ASGI app stands."""

    def __init__(self) -> None:
        import queue

        self._calls: queue.SimpleQueue[asyncio.Future[None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while (waiter := self._calls.get()) is not None:
            waiter.get_loop().call_soon_threadsafe(waiter.set_result, None)

    def close(self) -> None:
        self._calls.put(None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._calls.put(waiter)
        await waiter


class HopToLoop(Hop):
    """From a thread to a loop in another thread, and back. Stands where a WSGI app stands.

    Args:
        task: Whether the loop answers from a task, as every bridge must, or from a callback.
    """

    def __init__(self, *, task: bool) -> None:
        self._task = task
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    @staticmethod
    async def _open(gate: threading.Lock) -> None:
        gate.release()

    def _start(self, gate: threading.Lock) -> None:
        self._last = self._loop.create_task(self._open(gate))

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        gate = threading.Lock()
        gate.acquire()
        if self._task:
            self._loop.call_soon_threadsafe(self._start, gate)
        else:
            self._loop.call_soon_threadsafe(gate.release)
        gate.acquire()
        return ()


# -- A comparison -------------------------------------------------------------------------------------------------


def each_of(driver: Driver, app: Any, work: Work, at_once: int, pass_seconds: float) -> int:
    """How many requests each client has to make so that a pass takes about so long. Warms up, too."""
    each = 1
    while True:
        seconds = driver.seconds(app, work, each, at_once)
        if seconds >= pass_seconds / 2:
            return each
        each = math.ceil(each * min(10, pass_seconds / seconds))


def compare(
    driver: Driver,
    contenders: dict[str, Any],
    work: Work,
    row: Callable[[str], Row],
    *,
    at_once: int,
    rounds: int,
    pass_seconds: float,
) -> list[Row]:
    """Have every contender do ``work``, in interleaved rounds; a row each, of units a second.

    A row's ``cpu_us`` is the processor time of a request, in all threads, the benchmark's own side included: the median
    of the rounds. A busy machine disturbs it less than it does the rate.
    """
    rows = {name: row(name) for name in contenders}
    cpu_us: dict[str, list[float]] = {name: [] for name in contenders}
    each: dict[str, int] = {}
    spent = dict.fromkeys(contenders, 0.0)
    for name, app in contenders.items():
        with failing(rows[name]):
            begin = time.perf_counter()
            if not isinstance(app, Hop):
                driver.check(app, work)
            slow = time.perf_counter() - begin > pass_seconds
            each[name] = 1 if slow else each_of(driver, app, work, at_once, pass_seconds)
    for _, name in interleave(list(each), rounds):
        if rows[name].failure is None and (each[name] > 1 or spent[name] < ENOUGH_SECONDS):
            gc.collect()
            with failing(rows[name]):
                cpu_before = time.process_time()
                seconds = driver.seconds(contenders[name], work, each[name], at_once)
                cpu_us[name].append((time.process_time() - cpu_before) / (each[name] * at_once) * 1e6)
                spent[name] += seconds
                rows[name].values.append(each[name] * at_once * work.units / seconds)
    for name, made in rows.items():
        if made.median is not None:
            made.extra["cpu_us"] = round(statistics.median(cpu_us[name]), 1)
    return list(rows.values())


class failing:  # noqa: N801 - reads as contextlib's
    """Note in the row what a contender raised."""

    def __init__(self, row: Row) -> None:
        self._row = row

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
            self._row.failure = f"no answer within {LIMIT_SECONDS:g} s"
        elif isinstance(error, Exception):
            self._row.failure = str(error) if isinstance(error, WrongAnswer) else f"{type(error).__name__}: {error}"
        return isinstance(error, Exception)
