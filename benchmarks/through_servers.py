"""What a user gets: Flask, Django and FastAPI on real servers, through each bridge, under load from wrk.

All servers of a table run at once, and one is loaded at a time: an idle one costs nothing. A contender is checked
before the load (status, body, length), and after it: wrk's own count of bad statuses and socket errors must be 0, and
as many bytes must have come in as that many responses have.

    python benchmarks/through_servers.py [--quick]

Needs wrk.
"""

from __future__ import annotations

import io
import json
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import measure
import served_flask
from contenders import OLD, OURS, OURS_INLINE, THREADS, WSGI_ON_ASGI
from measure import Row, Section, interleave
from served import START_SECONDS, Contender, Served, WrongResponse, get, serving
from werkzeug.test import create_environ

if TYPE_CHECKING:
    from collections.abc import Iterator

LOAD_SECONDS = 1
AT_ONCE = (1, 50)
CALLS = 2000  # of the app itself, in `own_time_us`
HELLO = b"Hello, world!"
HELLO_JSON = b'{"message":"Hello, world!"}'

BRIDGED = tuple(Contender(name, "uvicorn", f"to asgi: {name}") for name in WSGI_ON_ASGI)
GTHREAD = Contender("gunicorn gthread", "gunicorn gthread", "none, wsgi")
GRANIAN = Contender("granian", "granian", "none, wsgi")
DJANGOS = Contender("Django's ASGI handler", "uvicorn", "none, asgi")
WSGI = (*BRIDGED, GTHREAD, Contender("waitress", "waitress", "none, wsgi"), GRANIAN)
ASGI = (
    Contender("uvicorn, no bridge", "uvicorn", "none, asgi"),
    Contender(f"{OURS} on gunicorn gthread", "gunicorn gthread", f"to wsgi: {OURS}"),
    Contender(f"{OLD} on gunicorn gthread", "gunicorn gthread", f"to wsgi: {OLD}"),
    Contender(f"{OURS_INLINE} on gunicorn sync", "gunicorn sync", f"to wsgi: {OURS_INLINE}"),
    Contender(f"{OURS} on waitress", "waitress", f"to wsgi: {OURS}"),
    Contender(f"{OLD} on waitress", "waitress", f"to wsgi: {OLD}"),
)
OURS_ON_TRIO, NATIVE_ON_TRIO = f"{OURS} on hypercorn with trio", "native ASGI app on hypercorn with trio"
TRIO = (
    Contender(OURS_ON_TRIO, "hypercorn trio", f"to asgi: {OURS}"),
    Contender(NATIVE_ON_TRIO, "hypercorn trio", "none, asgi"),
)
#: The same server with as little as can be behind it, for `added`.
NATIVE = Contender("native ASGI app", "uvicorn", "none, asgi")
QUICK = {
    OURS,
    OLD,
    "uvicorn's",
    *(contender.name for contender in (GTHREAD, GRANIAN, DJANGOS, NATIVE, *ASGI[:4], *TRIO)),
}


@dataclass(frozen=True)
class Table:
    """An app, and who serves it."""

    title: str
    module: str
    body: bytes
    contenders: tuple[Contender, ...]


TABLES = (
    Table("Flask hello", "served_flask", HELLO, WSGI),
    Table("Django hello, sync view", "served_django", HELLO, (*WSGI, DJANGOS)),
    Table("FastAPI hello", "served_fastapi", HELLO_JSON, ASGI),
    Table("hello under trio", "served_hello", HELLO, TRIO),
    Table(
        "hello on uvicorn",
        "served_hello",
        HELLO,
        (*(one for one in BRIDGED if one.name in {OURS, OLD, "uvicorn's"}), NATIVE),
    ),
)


def checked(served: Served, body: bytes) -> int:
    """Wait for the first response and check one; how many bytes it has on the wire."""
    served.wait_until_it_answers("/")
    status, headers, got, wire = get(served.port, "/", timeout=START_SECONDS)
    if (status, got, headers.get("content-length")) != (200, body, str(len(body))):
        raise WrongResponse(f"{status}, {headers.get('content-length')!r} bytes announced, {got[:40]!r}")
    return wire


def load(served: Served, at_once: int, wire: int) -> dict[str, float]:
    """Load a server for a second; what wrk found, of ``at_once`` connections."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is missing. Install it: apt-get install wrk")
    script = Path(__file__).with_name("wrk.lua")
    command = [wrk, "-t1", f"-c{at_once}", f"-d{LOAD_SECONDS}s", "-s", str(script), f"http://127.0.0.1:{served.port}/"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout  # noqa: S603 - wrk
    found: dict[str, float] = json.loads(out.strip().splitlines()[-1])
    requests = found["requests"]
    if found["status"]:
        raise WrongResponse(f"{found['status']:.0f} of {requests:.0f} responses under load were not successful")
    for kind in ("connect", "read", "write", "timeout"):
        if found[kind]:
            raise WrongResponse(f"{found[kind]:.0f} {kind} errors in {requests:.0f} requests")
    if not requests * wire <= found["bytes"] <= (requests + at_once) * wire:
        raise WrongResponse(f"{found['bytes']:.0f} bytes in {requests:.0f} responses of {wire} bytes")
    return found


def measured(table: Table, contenders: tuple[Contender, ...], at_once: tuple[int, ...], rounds: int) -> list[Row]:
    """All rows of one table."""
    rows = {
        (number, contender.name): Row(
            "through_servers", f"{table.title}, {number} at once", contender.name, "requests/s"
        )
        for number in at_once
        for contender in contenders
    }
    seen: dict[tuple[int, str], list[tuple[float, float, float]]] = {key: [] for key in rows}
    with serving(contenders, table.module, THREADS) as servers:
        wires: dict[str, int] = {}
        for name, served in servers.items():
            try:
                wires[name] = checked(served, table.body)
            except (WrongResponse, OSError) as error:
                for number in at_once:
                    rows[number, name].failure = str(error)
        for number, contender in interleave(contenders, rounds):
            for key in [(count, contender.name) for count in at_once]:
                row, served = rows[key], servers[contender.name]
                if row.failure is not None:
                    continue
                before = served.cpu_seconds()
                try:
                    found = load(served, key[0], wires[contender.name])
                except WrongResponse as error:
                    row.failure = str(error)
                    continue
                cpu_us = (served.cpu_seconds() - before) / found["requests"] * 1e6
                row.values.append(found["requests"] / found["microseconds"] * 1e6)
                seen[key].append((found["p50_us"] / 1000, found["p99_us"] / 1000, cpu_us))
            measure.progress([f"{table.title}: round {number + 1} of {rounds}, {contender.name}"])
    for key, row in rows.items():
        if row.median is not None:
            p50, p99, cpu = (statistics.median(column) for column in zip(*seen[key], strict=True))
            row.extra = {"p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "cpu_us": round(cpu), "errors": 0}
    return list(rows.values())


def added(rows: list[Row]) -> Iterator[Row]:
    """What each bridge adds to Flask on uvicorn: the processor time beyond the server's own, and beyond Flask's own."""
    of = {(row.work, row.contender): row for row in rows}
    native = of["hello on uvicorn, 50 at once", NATIVE.name]
    flask_us = own_time_us()
    for bridge in BRIDGED:
        row = of.get(("Flask hello, 50 at once", bridge.name))
        if row is not None and row.extra and native.extra:
            both = float(native.extra["cpu_us"]) + flask_us
            work = "Flask hello on uvicorn, 50 at once: what the bridge adds"
            spent = float(row.extra["cpu_us"]) - both
            yield Row(row.section, work, bridge.name, "µs", higher_is_better=False, values=[spent])


def own_time_us() -> float:
    """The processor time of the Flask app itself, called by nobody but this loop, over and over."""
    environ = create_environ("/")
    times = []
    for _ in range(CALLS):
        begin = time.process_time_ns()
        response = served_flask.wsgi({**environ, "wsgi.input": io.BytesIO()}, lambda *_: print)
        assert b"".join(response) == HELLO
        times.append((time.process_time_ns() - begin) / 1000)
    return statistics.median(times)


def run(*, quick: bool, rounds: int) -> Section:
    """Measure all tables in at most four rounds; if quick, the contenders that matter most in one."""
    section = Section(
        "through_servers",
        "Through servers",
        f"Load from wrk, {LOAD_SECONDS} s a round. One server process, {THREADS} threads for the app (asgiref's bridge "
        "has one, gunicorn sync none but its own), no access log; the ASGI server is uvicorn with httptools and "
        "uvloop, and under trio hypercorn. p50, p99 and cpu (processor time of the server a request, in µs, which a "
        "noisy machine disturbs less "
        "than it does the rate) are medians over the rounds. gunicorn sync takes a connection for each request.",
    )
    for table in TABLES:
        section.rows += measured(
            table,
            tuple(contender for contender in table.contenders if not quick or contender.name in QUICK),
            AT_ONCE[-1:] if quick else AT_ONCE,
            1 if quick else min(rounds, 4),
        )
    section.rows += added(section.rows)
    return section


if __name__ == "__main__":
    measure.main(run)
