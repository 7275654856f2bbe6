"""Soak both bridges: real servers, a random mix of good and bad requests, and nothing may grow, hang or be mixed up.

    python soak/run.py                              every server, 5 minutes in all (SOAK_SECONDS)
    python soak/run.py uvicorn-h11 waitress         some
    python soak/run.py --seed 7                     the same draws again; the seed of a run is printed
    python soak/run.py --requests 30000             no more than so many for each server
    python soak/run.py --without cancelled,logging  leave kinds out

The exit code is 1 if anything grew, hung or was wrong.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
import websocket_traffic  # noqa: F401 - the kinds of it
from client import BrokenError, Connection, HangError, WrongError
from counters import STACKS_SIGNAL
from traffic import KINDS, Client, Direction, Target, Traffic

HERE = Path(__file__).resolve().parent

#: What is too long to print: stacks, and what a server printed last.
LOGS = HERE.parent / ".soak"

START_SECONDS = 30.0

#: How long a server may take to end when it is told to, with requests running: its own grace, and the bridge's.
STOP_SECONDS = 25.0

#: How long what was begun may take to end when no more is asked: an idle worker of the bridge ends after 10 s, an app
#: is cancelled after 0.5 s, a server drops a silent client after 5 s.
QUIET_SECONDS = 60.0

#: What may be more at the end than after the warm-up. A thread, descriptor or task that is lost for each request of one
#: kind is lost hundreds of times in a run: so none need be allowed for. Objects and memory have caches: of header
#: names, regular expressions, code that specialises. They do not grow with the number of requests; one object lost for
#: each request of the rarest kind (one in 200) is 5 in 1,000 requests.
MORE_THREADS = 0
MORE_DESCRIPTORS = 0
MORE_TASKS = 0
MORE_OBJECTS = 400
MORE_OF_A_TYPE = 150
MORE_MEMORY = 8 << 20
#: In a quick run. A process keeps what it took at its peak, which the warm-up of a busy machine does not reach: one of
#: 45 MB had 66 after 1,000 WebSockets, one that had 58 after its warm-up had 61, and both had the same objects.
MORE_MEMORY_IF_QUICK = 24 << 20
#: And for each 1,000 requests: below one object in 200 requests, and below 60 bytes a request.
MORE_OBJECTS_A_THOUSAND = 2
MORE_MEMORY_A_THOUSAND = 60_000

#: Which types are never cached: each is bounded by itself.
TELLING = ("a2wsgi.", "_asyncio.", "asyncio.", "builtins.coroutine", "builtins.generator", "builtins.frame", "socket.")
MORE_OF_A_TELLING_TYPE = 25

WSGI_PREFIXES = ("", "", "", "/unbuffered", "/spooled", "/heedless")


@dataclass(frozen=True)
class Kind:
    """A server.

    Attributes:
        direction: Of the app that the bridge gets: ``"wsgi"`` on servers of ASGI, and the other way round.
        command: What runs it, as arguments of this interpreter.
        ends_by: The signal on which it ends in good order.
        fast: How many clients send at a time.
        slow: How many do, besides, that wait in between.
        rest: For how many seconds such a one rests after each request.
        prefixes: Of its bridges.
        cannot: Kinds that it cannot pass, each for a reason of its own.
        traffic: What is sent.
    """

    direction: Direction
    command: Sequence[str]
    ends_by: signal.Signals = signal.SIGTERM
    fast: int = 12
    slow: int = 8
    rest: float = 0.0
    prefixes: Sequence[str] = ("",)
    cannot: frozenset[str] = field(default_factory=frozenset)
    traffic: Traffic = "http"


def uvicorn(*arguments: str) -> tuple[str, ...]:
    """uvicorn, without a log of requests."""
    common = ("--no-access-log", "--timeout-graceful-shutdown=3", "--port={port}", "wsgi_app:app")
    return ("-m", "uvicorn", *arguments, *common)


def gunicorn(*arguments: str) -> tuple[str, ...]:
    """Gunicorn, with one worker process."""
    common = ("--no-control-socket", "--graceful-timeout=3", "--timeout=120", "--bind=127.0.0.1:{port}")
    return ("-m", "gunicorn", *common, *arguments)


ASGI_PREFIXES = ("", "", "/wait", "/detach")

SERVERS: dict[str, Kind] = {
    "uvicorn-h11": Kind("wsgi", uvicorn("--http=h11", "--loop=asyncio"), prefixes=WSGI_PREFIXES),
    "uvicorn-httptools": Kind("wsgi", uvicorn("--http=httptools", "--loop=uvloop"), prefixes=WSGI_PREFIXES),
    "uvicorn-httptools-asyncio": Kind("wsgi", uvicorn("--http=httptools", "--loop=asyncio"), prefixes=WSGI_PREFIXES),
    "hypercorn": Kind(
        "wsgi",
        ("-m", "hypercorn", "--workers=0", "--bind=127.0.0.1:{port}", "wsgi_app:app"),
        prefixes=WSGI_PREFIXES,
    ),
    "gunicorn-gthread": Kind(
        "asgi", gunicorn("--worker-class=gthread", "--threads=24", "asgi_app:app"), prefixes=ASGI_PREFIXES
    ),
    # One request at a time: a client that dawdles holds up all others.
    "gunicorn-sync-inline": Kind(
        "asgi", gunicorn("--worker-class=sync", "asgi_app:inline"), fast=4, slow=1, rest=3.0, prefixes=("", "", "/wait")
    ),
    "waitress": Kind(
        "asgi",
        ("-m", "waitress", "--threads=24", "--listen=127.0.0.1:{port}", "asgi_app:app"),
        ends_by=signal.SIGINT,
        prefixes=ASGI_PREFIXES,
    ),
    "cheroot": Kind(
        "asgi",
        ("-m", "cheroot", "--threads=24", "--request-queue-size=128", "--bind=127.0.0.1:{port}", "asgi_app:app"),
        ends_by=signal.SIGINT,
        prefixes=ASGI_PREFIXES,
    ),
    # 200 clients, each with a WebSocket most of the time.
    "uvicorn-websockets": Kind(
        "wsgi", uvicorn("--ws=websockets-sansio", "--loop=uvloop"), fast=200, slow=0, traffic="websocket"
    ),
    "gunicorn-websockets": Kind(
        "asgi",
        gunicorn("--worker-class=gthread", "--threads=24", "asgi_app:app"),
        fast=200,
        slow=0,
        traffic="websocket",
    ),
}


class Server:
    """A server process, and the end of what it has printed."""

    def __init__(self, name: str, kind: Kind, without: frozenset[str]) -> None:
        self.name = name
        self.kind = kind
        self.last_stacks = ""
        self.port = _free_port()
        self.printed: collections.deque[bytes] = collections.deque(maxlen=2000)
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
            "MALLOC_ARENA_MAX": "2",  # with one for each thread, what is free in them looks like growth
            "SOAK_WITHOUT": ",".join(without),
        }
        command = [sys.executable, *(part.format(port=self.port) for part in kind.command)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=HERE,
            start_new_session=True,
            preexec_fn=_hear_interrupts,  # a soak that runs in the background ignores SIGINT, and so would the server
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.pid = self.process.pid

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line)

    def wait_until_it_answers(self) -> None:
        """Wait for its first answer."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.pid = int(self.look()["pid"])
            except (BrokenError, OSError):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def look(self) -> dict[str, Any]:
        """What the control endpoint says."""
        # With inline=True a loop runs only while a request does: so what was left to it gets its chance here.
        for prefix in dict.fromkeys(self.kind.prefixes):
            self._get(f"{prefix}/whole?id=look&n=10")
        seen: dict[str, Any] = json.loads(self._get("/control"))
        return seen

    def _get(self, target: str) -> bytes:
        connection = Connection(self.port)
        try:
            connection.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            response = connection.response("GET")
        finally:
            connection.close()
        if response.status != 200:
            raise WrongError(f"{target}: {response.status} {response.body[:200]!r}")
        return response.body

    def stacks(self) -> str:
        """Where its threads are."""
        self.printed.clear()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, STACKS_SIGNAL)
        time.sleep(1.0)
        return _grouped(self.tail(2000))

    def tail(self, lines: int = 40) -> str:
        """What it has printed last."""
        return b"".join(tuple(self.printed)[-lines:]).decode(errors="replace")

    def end(self) -> float:
        """Tell it to end; how long it takes, in seconds."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(self.kind.ends_by)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.last_stacks = self.stacks()
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # what is left of it
            self.process.wait()
            self._reader.join(5)
        return time.monotonic() - began


def _grouped(stacks: str) -> str:
    """The stacks that differ, each with how many threads are there."""
    stacks = re.sub(r"(?m)^(Current )?[Tt]hread 0x[0-9a-f]+.*$", "--", stacks)
    count = Counter(stack.strip() for stack in stacks.split("--"))
    return "\n".join(f"{number} x\n{stack}" for stack, number in count.items() if stack)


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _free_port() -> int:
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                listener.bind(("127.0.0.1", port))
                return port


class Load:
    """The clients of one server."""

    def __init__(self, server: Server, seed: int, without: frozenset[str], budget: int) -> None:
        kind = server.kind
        self.target = Target(
            server.port, kind.direction, kind.prefixes, seed, without | kind.cannot, budget, kind.rest, kind.traffic
        )
        self.clients = [
            Client(self.target, number, slow=number >= kind.fast) for number in range(kind.fast + kind.slow)
        ]

    def run(self, seconds: float) -> float:
        """Send for so long, or until the budget is spent; how long it took."""
        began = time.monotonic()
        for client in self.clients:
            client.start()
        self.target.stop.wait(seconds)
        self.target.stop.set()
        for client in self.clients:
            client.join(60)
            if client.is_alive():
                self.target.fail(f"{client.name} does not end")
        return time.monotonic() - began


def settle(server: Server, allowed: dict[str, int] | None) -> dict[str, Any]:
    """Look until what was begun has ended, or long enough.

    Args:
        server: The server.
        allowed: What there may be in the end. None: until nothing changes.
    """
    deadline = time.monotonic() + QUIET_SECONDS
    earliest = time.monotonic() + (12.0 if allowed is None else 0.0)  # idle workers take 10 s
    before: dict[str, Any] = {}
    while True:
        seen = server.look()
        now = time.monotonic()
        if allowed is None:
            same = all(seen[key] == before.get(key) for key in ("threads", "descriptors", "tasks"))
            if same and not _busy(seen) and now > earliest:
                return seen
        elif not _busy(seen) and not growth(seen, allowed):
            return seen
        if now > deadline:
            return seen
        before = seen
        time.sleep(1.0)


def _busy(seen: dict[str, Any]) -> list[str]:
    """What the bridges say is still going on."""
    return [
        f"statistics() of bridge {number}: {key}={one[key]}"
        for number, one in enumerate(seen["statistics"])
        for key in ("busy", "queued", "in_flight")
        if one.get(key)
    ]


def growth(seen: dict[str, Any], allowed: dict[str, int]) -> list[str]:
    """What there is more of than is allowed."""
    return [
        f"{key}: {have}, and {most} are allowed"
        for key, most in allowed.items()
        if (have := seen["types"].get(key[6:], 0) if key.startswith("type: ") else seen[key]) > most
    ]


def allowed_after(seen: dict[str, Any], requests: int, *, quick: bool) -> dict[str, int]:
    """What there may be after so many more requests."""
    thousands = requests // 1000
    allowed = {
        "threads": seen["threads"] + MORE_THREADS,
        "descriptors": seen["descriptors"] + MORE_DESCRIPTORS,
        "tasks": seen["tasks"] + MORE_TASKS,
        "objects": seen["objects"] + MORE_OBJECTS + thousands * MORE_OBJECTS_A_THOUSAND,
        "rss": seen["rss"] + (MORE_MEMORY_IF_QUICK if quick else MORE_MEMORY) + thousands * MORE_MEMORY_A_THOUSAND,
    }
    for name, count in seen["types"].items():
        more = MORE_OF_A_TELLING_TYPE if name.startswith(TELLING) else MORE_OF_A_TYPE
        allowed[f"type: {name}"] = count + more + thousands * MORE_OBJECTS_A_THOUSAND
    return allowed


class Outcome(NamedTuple):
    """Of one server."""

    name: str
    direction: Direction
    done: Counter[str]
    took: Counter[str]
    seconds: float
    failures: list[str]


def soak(name: str, seconds: float, requests: int, seed: int, without: frozenset[str], *, quick: bool) -> Outcome:
    """Soak one server for so long."""
    kind = SERVERS[name]
    done: Counter[str] = Counter()
    waited: Counter[str] = Counter()
    failures: list[str] = []
    took = 0.0
    print(f"== {name}: a {kind.direction.upper()} app, seed {seed}", flush=True)
    server = Server(name, kind, without)
    try:
        server.wait_until_it_answers()
        server.look()  # what the first look makes counts for nothing
        rounds = [("warm-up", min(seconds * 0.2, 60.0), requests // 5), ("soak", seconds * 0.8, requests)]
        allowed: dict[str, int] | None = None
        first: dict[str, Any] = {}
        for number, (title, length, budget) in enumerate(rounds):
            load = Load(server, seed * 10 + number, without, max(budget, 1))
            spent = load.run(length)
            took += spent
            done += load.target.done
            waited += load.target.took
            failures += load.target.failures
            if load.target.failures:
                failures.append(f"What the server printed last:\n{server.tail(150)}")
            if load.target.hangs:
                failures.append("The stacks after a hang:\n" + server.stacks())
            if server.process.poll() is not None:
                failures.append(f"The server ended with {server.process.returncode}:\n{server.tail()}")
                return Outcome(name, kind.direction, done, waited, took, failures)
            if number:
                allowed = allowed_after(first, load.target.total(), quick=quick)
            seen = settle(server, allowed)
            figures = "  ".join(f"{key} {seen[key]}" for key in ("threads", "descriptors", "tasks", "objects"))
            rate = load.target.total() / spent
            print(
                f"   {title}: {load.target.total()} requests, {rate:.0f}/s, {load.target.retried} sent again;"
                f" {figures}  rss {seen['rss'] / 1e6:.1f} MB",
                flush=True,
            )
            if _busy(seen) or (allowed is not None and growth(seen, allowed)):
                failures += [f"Still going on: {line}" for line in _busy(seen)]
                failures += [f"Grown: {line}" for line in growth(seen, allowed or {})]
                more = Counter(seen["types"])
                more.subtract(first.get("types", {}))
                failures.append(f"More of: {more.most_common(12)}")
                failures.append(f"Its threads: {seen['thread_names']}\n" + server.stacks())
            first = seen
            if failures:
                break
        if not quick:
            failures += stop_under_load(server, seed, without)
    except (BrokenError, HangError, WrongError, OSError):
        failures.append(f"The server does not answer:\n{traceback.format_exc()}\n{server.stacks()}")
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.end()
    return Outcome(name, kind.direction, done, waited, took, failures)


def stop_under_load(server: Server, seed: int, without: frozenset[str]) -> list[str]:
    """Have it end while requests run; it has to, and in time."""
    load = Load(server, seed * 10 + 9, without, 1 << 60)
    load.target.failures = _Unheard()  # what is under way may break
    for client in load.clients:
        client.start()
    time.sleep(1.0)
    try:
        print(f"   ended under load within {server.end():.1f} s", flush=True)
    except subprocess.TimeoutExpired:
        return [f"The server did not end within {STOP_SECONDS} s:\n{server.last_stacks}"]
    finally:
        load.target.stop.set()
        for client in load.clients:
            client.join(60)
    return []


class _Unheard(list[str]):
    def append(self, _: str) -> None:
        pass


def table(outcomes: list[Outcome]) -> str:
    """Requests by kind, each with the milliseconds that one takes, and rates."""
    names = [outcome.name for outcome in outcomes]
    kinds = [kind.name for kind in KINDS if any(outcome.done[kind.name] for outcome in outcomes)]
    kinds = list(dict.fromkeys(kinds))
    width = max(map(len, [*kinds, "requests a second"]))
    lines = [" " * width + "".join(f"{name:>27}" for name in names)]
    for kind in kinds:
        cells = [
            f"{outcome.done[kind]:>18} {1000 * outcome.took[kind] / outcome.done[kind]:>5.0f} ms"
            if outcome.done[kind]
            else " " * 27
            for outcome in outcomes
        ]
        lines.append(f"{kind:<{width}}" + "".join(cells))
    lines.append(f"{'all':<{width}}" + "".join(f"{sum(outcome.done.values()):>27}" for outcome in outcomes))
    rates = [sum(outcome.done.values()) / max(outcome.seconds, 0.001) for outcome in outcomes]
    lines.append(f"{'requests a second':<{width}}" + "".join(f"{rate:>27.0f}" for rate in rates))
    return "\n".join(lines)


def main() -> int:
    """Soak, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("servers", nargs="*", metavar="server", help=", ".join(SERVERS))
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SOAK_SECONDS") or 300))
    parser.add_argument("--requests", type=int, default=10**9, help="for each server, at most")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--without", default="", help="kinds to leave out, and 'logging'")
    parser.add_argument("--quick", action="store_true", help="do not end the servers under load")
    options = parser.parse_args()
    names = options.servers or list(SERVERS)
    if unknown := set(names) - SERVERS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if shutil.which("true") is None or not Path("/proc/self/statm").exists():
        parser.error("the soak needs /proc")
    without = frozenset(filter(None, options.without.split(",")))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of the `finally` that ends the server
    outcomes: list[Outcome] = []
    LOGS.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        share = options.seconds / len(names)
        outcome = soak(name, share, options.requests, options.seed + number, without, quick=options.quick)
        for failure in outcome.failures[:20]:
            first, _, rest = failure.partition("\n")
            print(f"   FAILED {first[:300]}", flush=True)
            if rest:
                with (LOGS / f"{name}.txt").open("a") as log:
                    log.write(f"== {time.ctime()}, seed {options.seed + number}: {failure}\n\n")
                print(f"          more in {LOGS / name}.txt", flush=True)
        outcomes.append(outcome)
    print()
    print(table(outcomes))
    for direction, title in (("wsgi", "WSGI on ASGI"), ("asgi", "ASGI on WSGI")):
        print(f"{title}: {sum(sum(one.done.values()) for one in outcomes if one.direction == direction)} requests")
    failed = [outcome.name for outcome in outcomes if outcome.failures]
    print(f"Failed: {', '.join(failed)} (seed {options.seed})" if failed else f"All passed (seed {options.seed})")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
