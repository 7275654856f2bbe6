"""WebSockets: round trips a second, and what a socket costs, of FastAPI on gunicorn and of Flask-Sock on uvicorn.

The client is one thread that answers each echo with the next message, on so many sockets at a time. It takes a few
microseconds a round trip itself, the same for all. The processor time is that of the server alone.

    python benchmarks/websocket_echo.py [--quick]

Needs Linux, for ``/proc``.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import measure
from contenders import OURS
from measure import Row, Section, interleave
from served import START_SECONDS, Contender, Served, WrongResponse, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

LOAD_SECONDS = 1.0
WARM_UP = 200  # round trips
AT_ONCE = (1, 20, 500)
MANY = 500
TEXT = b"x" * 50
THREADS = MANY + 20  # of servers that need one for each socket

#: A frame of a client's, masked with zeros (RFC 6455 §5.2), and its echo.
FRAME = b"\x81" + bytes([0x80 | len(TEXT)]) + bytes(4) + TEXT
ECHO = b"\x81" + bytes([len(TEXT)]) + TEXT

FASTAPI = (
    Contender("uvicorn, no bridge", "uvicorn", "none, asgi"),
    Contender(f"{OURS} on gunicorn gthread", "gunicorn gthread, 4 threads", f"to wsgi: {OURS}, with WebSockets"),
)
FLASK = (
    Contender("Flask-Sock on gunicorn gthread", "gunicorn gthread", "none, wsgi"),
    Contender(f"{OURS}, Flask-Sock on uvicorn", "uvicorn", f"to asgi: {OURS}, with WebSockets"),
    Contender(f"{OURS}, its own object on uvicorn", "uvicorn", f"to asgi: {OURS}, its own WebSocket"),
)
TABLES = (("FastAPI echo", FASTAPI), ("Flask echo", FLASK))


# -- What a server's processes have -------------------------------------------------------------------------------


def processes(served: Served) -> Iterator[Path]:
    """The directories of a server's processes, in ``/proc``."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int((path / "stat").read_text().rpartition(")")[2].split()[2]) == served.process.pid:
                yield path


def total(served: Served, field: str) -> int:
    """A field of the processes' status, added up: ``VmRSS`` in KiB, ``Threads``."""
    lines = [line for path in processes(served) for line in (path / "status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def cpu_seconds(served: Served) -> float:
    """The processor time of the processes, to the nanosecond."""
    return (
        sum(int(path.read_text().split()[0]) for one in processes(served) for path in one.glob("task/*/schedstat"))
        / 1e9
    )


# -- Sockets ------------------------------------------------------------------------------------------------------


def opened(port: int) -> socket.socket:
    """A WebSocket that has echoed once."""
    client = socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(
        f"GET /echo HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = client.recv(1)
        if not part:
            raise WrongResponse(f"no WebSocket: {head!r}")
        head += part
    if not head.startswith(b"HTTP/1.1 101"):
        raise WrongResponse(head.decode("latin-1").splitlines()[0])
    client.sendall(FRAME)
    if client.recv(len(ECHO), socket.MSG_WAITALL) != ECHO:
        raise WrongResponse("another echo")
    return client


def round_trips(clients: list[socket.socket], seconds: float) -> tuple[int, float]:
    """Send on all, and again on each whose echo has come; how many have come, and in which time."""
    poll = select.epoll()
    sockets = {client.fileno(): (client.recv, client.send) for client in clients}
    for client in clients:
        poll.register(client.fileno(), select.EPOLLIN)
    size, came = len(ECHO), 0
    begin = time.perf_counter()
    end = begin + seconds
    for client in clients:
        client.send(FRAME)
    while (now := time.perf_counter()) < end:
        events = poll.poll(START_SECONDS)
        if not events:
            raise WrongResponse("no echo comes")
        for descriptor, _ in events:
            recv, send = sockets[descriptor]
            if recv(size) != ECHO:
                raise WrongResponse("another echo")
            send(FRAME)
        came += len(events)
    poll.close()
    for client in clients:  # the last of each
        if client.recv(size, socket.MSG_WAITALL) != ECHO:
            raise WrongResponse("another echo")
    return came, now - begin


# -- The works ----------------------------------------------------------------------------------------------------


@dataclass
class Rows:
    """What is measured of one contender at one number of sockets."""

    rate: Row
    cpu: Row


def measured(title: str, contenders: tuple[Contender, ...], at_once: int, rounds: int) -> list[Row]:
    """Rate and processor time of each contender with so many sockets; with many of them also the memory of one."""
    work = f"{title}, {at_once} at once"
    rows = {
        contender.name: Rows(
            Row("websocket_echo", work, contender.name, "round trips/s"),
            Row("websocket_echo", f"{work}: processor", contender.name, "µs a round trip", higher_is_better=False),
        )
        for contender in contenders
    }
    memory = [
        Row("websocket_echo", f"{title}: memory", contender.name, "KiB a socket", higher_is_better=False)
        for contender in contenders
    ]
    with serving(contenders, "served_websockets", THREADS) as servers, contextlib.ExitStack() as stack:
        clients: dict[str, list[socket.socket]] = {}
        for row, (name, served) in zip(memory, servers.items(), strict=True):
            served.wait_until_it_answers("/")
            for client in [opened(served.port) for _ in range(10)]:  # the process has loaded what it needs
                client.close()
            threads, before = total(served, "Threads"), total(served, "VmRSS")
            clients[name] = [stack.enter_context(opened(served.port)) for _ in range(at_once)]
            row.values.append((total(served, "VmRSS") - before) / at_once)
            row.extra["threads_before"], row.extra["threads"] = threads, total(served, "Threads")
            round_trips(clients[name], 0.1)
        for number, place in interleave(range(len(contenders)), rounds):
            name = contenders[place].name
            begin = cpu_seconds(servers[name])
            came, seconds = round_trips(clients[name], LOAD_SECONDS)
            rows[name].rate.values.append(came / seconds)
            rows[name].cpu.values.append((cpu_seconds(servers[name]) - begin) / came * 1e6)
            measure.progress([f"{work}: round {number + 1} of {rounds}, {name}"])
    return [row for pair in rows.values() for row in (pair.rate, pair.cpu)] + (memory if at_once == MANY else [])


def run(*, quick: bool, rounds: int) -> Section:
    """Measure all."""
    section = Section(
        "websocket_echo",
        "WebSockets",
        f"An echo of {len(TEXT)} bytes. *Processor* is the processor time of the server's processes. gunicorn has 4 "
        f"threads for FastAPI, and {THREADS} for Flask-Sock, which needs one for each socket and starts another. "
        "uvicorn runs with uvloop and websockets. *Threads* are those of the server's processes, before and with "
        f"{MANY} sockets.",
    )
    for title, contenders in TABLES:
        for at_once in AT_ONCE[:2] if quick else AT_ONCE:
            section.rows += measured(title, contenders, at_once, rounds)
    return section


if __name__ == "__main__":
    measure.main(run)
