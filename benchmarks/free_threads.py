"""What a second core is worth without a GIL: an app that computes, through the bridge, beside threads without one.

*In process*: 1 ms of pure Python a request, with 1, 2 and 4 workers, and as many bare threads that do the same.
*Through servers*: a page of a template, with 1, 2 and 4 threads for the app. *Default workers*: what 40 workers cost
where two cores compute, and what fewer cost where the app waits.

    .venv-bench-freethreaded/bin/python benchmarks/free_threads.py [--quick]

Needs a Python without a GIL, which ``make bench-freethreaded`` builds, and wrk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import threading
import time
from typing import TYPE_CHECKING, Any

import measure
from contenders import OURS
from measure import Row, Section, interleave
from responsiveness import answered, busy_app
from served import Contender, WrongResponse, serving
from through_servers import checked, load

import a2wsgi

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "free_threads"
BARE = "threads, no bridge"
COUNTS = (1, 2, 4)
CLIENTS = 50  # of a server, and of the default number of workers
WAIT_SECONDS = 0.02  # as a view waits for a database
CORES_AND_FOUR = min(32, (os.cpu_count() or 1) + 4)  # as many as ThreadPoolExecutor has by default
GILS = ("0", "1")
SAID = {"0": "", "1": ", with the GIL"}

SERVERS = (
    Contender(f"{OURS} on uvicorn", "uvicorn, plain", f"to asgi: {OURS}"),
    Contender("gunicorn gthread", "gunicorn gthread", "none, wsgi"),
    Contender("granian", "granian", "none, wsgi"),
    Contender("waitress", "waitress", "none, wsgi"),
)


def compute(turns: int) -> int:
    """Keep one core busy. Touches nothing that another thread has."""
    total = 0
    for turn in range(turns):
        total += turn * turn % 7
    return total


def turns_of_a_millisecond() -> int:
    """How many turns take a millisecond of this machine's."""
    turns = 20_000
    compute(turns)
    took = []
    for _ in range(20):
        begin = time.thread_time()
        compute(turns)
        took.append(time.thread_time() - begin)
    return max(1, round(turns * 0.001 / statistics.median(took)))


class Watch:
    """Takes the time, and the processor time of the process and of the calling thread, from here on."""

    def __init__(self) -> None:
        self._begin = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), time.thread_time()

    def found(self, count: int) -> dict[str, float]:
        """How many were done a second, and the processor time of one in µs: of all threads, and of this one."""
        seconds, cpu, loop = (now - then for now, then in zip(self._now(), self._begin, strict=True))
        return {"rate": count / seconds, "cpu_us": cpu / count * 1e6, "loop_us": loop / count * 1e6}


# -- In a process of its own ----------------------------------------------------------------------------------------


def bare(function: Callable[[], None], threads: int, seconds: float) -> dict[str, float]:
    """How often so many threads do that in so many seconds, and what it takes."""
    counts = [0] * threads
    watch = Watch()
    end = time.perf_counter() + seconds

    def work(place: int) -> None:
        count = 0
        while time.perf_counter() < end:
            function()
            count += 1
        counts[place] = count

    running = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return watch.found(sum(counts))


async def bridged(function: Callable[[], None], workers: int, at_once: int, seconds: float) -> dict[str, float]:
    """How many requests that do it a bridge answers meanwhile, and what they take."""
    app = a2wsgi.WSGIMiddleware(busy_app(function), workers=workers)
    await asyncio.gather(*(answered(app) for _ in range(at_once)))  # all is imported, and the workers are there
    watch = Watch()
    end = time.perf_counter() + seconds
    count = 0

    async def ask() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await answered(app)
            count += 1

    await asyncio.gather(*(ask() for _ in range(at_once)))
    return watch.found(count)


def child(kind: str, contender: str, workers: int, seconds: float, turns: int) -> dict[str, float]:
    """One value: see `Watch.found`."""

    def function() -> None:
        compute(turns)
        if kind == "wait":
            time.sleep(WAIT_SECONDS)

    if contender == BARE:
        return bare(function, workers, seconds)
    at_once = CLIENTS if kind in {"wait", "crowd"} else 4 * workers
    return asyncio.run(bridged(function, workers, at_once, seconds))


def done(kind: str, contender: str, workers: int, seconds: float, *, turns: int, gil: str) -> dict[str, float]:
    """What `child` found."""
    command = [sys.executable, __file__, "--child", kind, contender, str(workers), str(seconds), str(turns)]
    environment = {**os.environ, "PYTHON_GIL": gil}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False, env=environment)  # noqa: S603 - this file
    if ended.returncode:
        raise WrongResponse(ended.stderr.strip().rpartition("\n")[2])
    found: dict[str, float] = json.loads(ended.stdout)
    return found


# -- The works ------------------------------------------------------------------------------------------------------


def in_process(turns: int, rounds: int, seconds: float) -> list[Row]:
    """The rates of ours and of bare threads, and what each gains by more of them."""
    keys = [(name, count, gil) for gil in GILS for count in COUNTS for name in (OURS, BARE) if gil == "0" or count == 2]
    rows = {
        (name, count, gil): Row(NAME, f"1 ms of Python, {count} workers{SAID[gil]}", name, "requests/s")
        for name, count, gil in keys
    }
    gains = {
        (name, count): Row(NAME, f"1 ms of Python: gain of {count} workers over 1", name, "times")
        for count in COUNTS[1:]
        for name in (OURS, BARE)
    }
    seen: dict[Any, list[dict[str, float]]] = {key: [] for key in keys}
    for number in range(rounds):
        rates: dict[Any, float] = {}
        for _, key in interleave(keys[number % len(keys) :] + keys[: number % len(keys)], 1):
            name, count, gil = key
            try:
                found = done("compute", name, count, seconds, turns=turns, gil=gil)
            except WrongResponse as error:
                rows[key].failure = str(error)
                continue
            rates[key] = found["rate"]
            rows[key].values.append(found["rate"])
            seen[key].append(found)
            measure.progress([f"round {number + 1} of {rounds}, {rows[key].work}, {name}"])
        for (name, count), row in gains.items():
            if (name, count, "0") in rates and (name, 1, "0") in rates:
                row.values.append(rates[name, count, "0"] / rates[name, 1, "0"])
    for key, row in rows.items():
        _tell_processor_time(row, seen[key])
    return [*rows.values(), *gains.values()]


def _tell_processor_time(row: Row, seen: list[dict[str, float]]) -> None:
    if row.median is not None:
        row.extra["cpu_us"] = round(statistics.median(found["cpu_us"] for found in seen))
        row.extra["loop_us"] = "" if row.contender == BARE else round(statistics.median(f["loop_us"] for f in seen))


def default_workers(turns: int, rounds: int, seconds: float) -> list[Row]:
    """40 workers, as by default, beside few and beside one a core: with an app that computes, and one that waits."""
    counts = dict.fromkeys((40, CORES_AND_FOUR, os.cpu_count() or 1))
    works = {
        "crowd": f"default workers, 1 ms of Python, {CLIENTS} at once",
        "wait": f"default workers, 1 ms of Python and {WAIT_SECONDS * 1000:g} ms of waiting, {CLIENTS} at once",
    }
    keys = [(kind, count) for kind in works for count in counts]
    rows = {(kind, count): Row(NAME, works[kind], f"{count} workers", "requests/s") for kind, count in keys}
    seen: dict[Any, list[dict[str, float]]] = {key: [] for key in keys}
    for number, key in interleave(keys, rounds):
        kind, count = key
        try:
            found = done(kind, OURS, count, seconds, turns=turns, gil="0")
        except WrongResponse as error:
            rows[key].failure = str(error)
            continue
        rows[key].values.append(found["rate"])
        seen[key].append(found)
        measure.progress([f"round {number + 1} of {rounds}, {works[kind]}, {count} workers"])
    for key, row in rows.items():
        _tell_processor_time(row, seen[key])
    return [*rows.values()]


def through_servers(rounds: int) -> list[Row]:
    """The rates of the servers, and what each gains by more threads."""
    import served_template

    names = [contender.name for contender in SERVERS]
    settings = [("0", count) for count in COUNTS] + [("1", 2)]
    rows = {
        (name, setting): Row(NAME, f"template, {setting[1]} threads{SAID[setting[0]]}", name, "requests/s")
        for setting in settings
        for name in names
    }
    gains = {
        (name, count): Row(NAME, f"template: gain of {count} threads over 1", name, "times")
        for count in COUNTS[1:]
        for name in names
    }
    cpu: dict[Any, list[float]] = {key: [] for key in rows}
    for number in range(rounds):
        rates: dict[Any, float] = {}
        for setting in settings:
            gil, count = setting
            before, os.environ["PYTHON_GIL"] = os.environ.get("PYTHON_GIL"), gil
            try:
                rates |= _loaded(setting, rows, cpu, served_template.PAGE, number)
            finally:
                os.environ.pop("PYTHON_GIL")
                if before is not None:
                    os.environ["PYTHON_GIL"] = before
            measure.progress([f"template: round {number + 1} of {rounds}, {count} threads{SAID[gil]}"])
        for (name, count), row in gains.items():
            row.failure = rows[name, ("0", count)].failure or rows[name, ("0", 1)].failure
            if row.failure is None:
                row.values.append(rates[name, ("0", count)] / rates[name, ("0", 1)])
    for key, row in rows.items():
        if row.median is not None:
            row.extra["cpu_us"] = round(statistics.median(cpu[key]))
    return [*rows.values(), *gains.values()]


def _loaded(setting: Any, rows: Any, cpu: Any, page: bytes, number: int) -> dict[Any, float]:
    """The rates of all servers, with so many threads, in one round."""
    rates: dict[Any, float] = {}
    with serving(SERVERS, "served_template", setting[1]) as servers:
        for _, name in interleave([*servers][number % len(servers) :] + [*servers][: number % len(servers)], 1):
            served, row = servers[name], rows[name, setting]
            if row.failure is not None:
                continue
            try:
                wire = checked(served, page)
                before = served.cpu_seconds()
                found = load(served, CLIENTS, wire)
            except (WrongResponse, OSError) as error:
                row.failure = str(error)
                continue
            rates[name, setting] = found["requests"] / found["microseconds"] * 1e6
            row.values.append(rates[name, setting])
            cpu[name, setting].append((served.cpu_seconds() - before) / found["requests"] * 1e6)
    return rates


def run(*, quick: bool, rounds: int) -> Section:
    """Measure all of it."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise SystemExit("free_threads needs a Python without a GIL: make bench-freethreaded")
    section = Section(
        NAME,
        "Without a GIL",
        f"{measure.machine()['python']}, built to run without a GIL. *With the GIL* is the same build with "
        "PYTHON_GIL=1. A gain is the rate with so many workers by that with one, in the same round; it means little "
        "where other work keeps the cores busy. cpu is the processor time a request, in µs, and loop what the loop's "
        "thread takes of it, clients included: workers cannot share that. "
        f"Servers: one process, {CLIENTS} connections; uvicorn with asyncio and h11.",
    )
    rounds, seconds = (1, 0.5) if quick else (rounds, 1.0)
    turns = turns_of_a_millisecond()
    section.rows += in_process(turns, rounds, seconds)
    section.rows += default_workers(turns, rounds, seconds)
    section.rows += through_servers(1 if quick else min(rounds, 4))
    return section


def main() -> None:
    """Run all, or one value of a contender's, which is written as JSON."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--child", nargs=5)
    options, _ = parser.parse_known_args()
    if not options.child:
        measure.main(run)
        return
    kind, contender, workers, seconds, turns = options.child
    print(json.dumps(child(kind, contender, int(workers), float(seconds), int(turns))))


if __name__ == "__main__":
    main()
