"""How much memory a WSGI app under uvicorn takes for big bodies and slow clients, and how fast it moves them.

Each contender does each work in a process of its own, which has answered small requests before. What counts is by how
much the peak of its resident memory (``VmHWM``) is above what it had then. Every body is checked for its length.

A slow reader takes nothing of its response for a second, a slow writer holds the end of its body back for as long, and
a slow app reads nothing of it: whoever then has all of it in memory did not tell the other side to wait.

    python benchmarks/memory.py [--quick]

Needs Linux, for ``/proc``.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import measure
from contenders import NATIVE_ASGI, OLD, OURS, WSGI_ON_ASGI
from measure import Row, Section, interleave
from served import Contender, Served, WrongResponse, serving
from served_bodies import PAUSE_SECONDS, PIECE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

MIB = 1024 * 1024
BOUND_SECONDS = 15.0  # for one work of one contender
SLOW_SECONDS = 5.0  # what takes longer is done once
PIECE = bytes(PIECE_BYTES)
AT_ONCE = 100

CONTENDERS = (
    Contender(NATIVE_ASGI, "uvicorn", "none, asgi"),
    *(Contender(name, "uvicorn", f"to asgi: {name}") for name in WSGI_ON_ASGI),
)
QUICK = {NATIVE_ASGI, OURS, OLD, "uvicorn's"}


# -- One client ---------------------------------------------------------------------------------------------------


class Client:
    """One connection for one request, with a bound in time."""

    def __init__(self, port: int) -> None:
        self._deadline = time.monotonic() + BOUND_SECONDS
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=BOUND_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _in_time(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def ask(self, method: str, query: str, length: int = 0) -> None:
        self._socket.sendall(f"{method} /?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode())

    def send(self, length: int) -> None:
        for _ in range(length // PIECE_BYTES):
            self._in_time()
            self._socket.sendall(PIECE)
        self._socket.sendall(PIECE[: length % PIECE_BYTES])

    def receive(self) -> tuple[int, bytes]:
        """The status, and how long the body was; the body itself if it is short."""
        buffer = bytearray(MIB)
        got = bytearray()
        while (end := got.find(b"\r\n\r\n")) < 0:
            got += self._some(buffer)
        status, *fields = bytes(got[:end]).split(b"\r\n")
        if status.split()[1] != b"200":
            raise WrongResponse(status.decode("latin-1"))
        length = next(int(field.partition(b":")[2]) for field in fields if field.lower().startswith(b"content-length"))
        body = bytes(got[end + 4 :])
        have = len(body)
        while have < length:
            piece = self._some(buffer)
            have += len(piece)
            if length < PIECE_BYTES:
                body += piece
        if have != length:
            raise WrongResponse(f"a body of {have} bytes, of which {length} were announced")
        return have, body

    def _some(self, buffer: bytearray) -> memoryview:
        self._in_time()
        received = self._socket.recv_into(buffer)
        if not received:
            raise WrongResponse("the connection ended within the response")
        return memoryview(buffer)[:received]


def upload(port: int, length: int, *, query: str = "", pause: float = 0.0) -> float:
    """Send a body, its last byte after ``pause`` seconds; how many seconds it all took."""
    with Client(port) as client:
        begin = time.perf_counter()
        client.ask("POST", query, length)
        client.send(length - 1)
        time.sleep(pause)
        client.send(1)
        _, body = client.receive()
        seconds = time.perf_counter() - begin
    if int(body) != length:
        raise WrongResponse(f"the app received {int(body)} of {length} bytes")
    return seconds


def download(port: int, length: int, *, pause: float = 0.0) -> float:
    """Receive a body, its first byte after ``pause`` seconds; how many seconds it took from then on."""
    with Client(port) as client:
        begin = time.perf_counter()
        client.ask("GET", str(length))
        if pause:
            time.sleep(pause)
            begin = time.perf_counter()
        received, _ = client.receive()
        seconds = time.perf_counter() - begin
    if received != length:
        raise WrongResponse(f"{received} of {length} bytes came")
    return seconds


def together(one: Callable[[], float]) -> None:
    """Do the same from many connections at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        start = threading.Barrier(AT_ONCE)

        def after_all_are_there() -> float:
            start.wait()
            return one()

        for future in [pool.submit(after_all_are_there) for _ in range(AT_ONCE)]:
            future.result()


# -- One server ---------------------------------------------------------------------------------------------------


def mib_of(served: Served, field: str) -> float:
    """A field of the process's status: ``VmRSS`` is what it has, ``VmHWM`` the most that it has had."""
    lines = Path(f"/proc/{served.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def forget_peak(served: Served) -> None:
    """Begin anew: the peak is what the process has now. See proc(5), "clear_refs"."""
    with contextlib.suppress(OSError):  # then it stays what it was
        Path(f"/proc/{served.process.pid}/clear_refs").write_text("5")


def warm_up(served: Served) -> float:
    """Have it answer small requests; what it has in memory then, in MiB."""
    served.wait_until_it_answers(f"/?{PIECE_BYTES}")
    for _ in range(3):
        upload(served.port, PIECE_BYTES)
        download(served.port, PIECE_BYTES)
    return mib_of(served, "VmRSS")


# -- The works ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What a server is made to do: ``do`` says how many seconds the part took whose rate counts, or 0."""

    title: str
    mib: int
    do: Callable[[int], float]


def works(*, quick: bool) -> list[Work]:
    """The bodies are long enough to stand out: from what a process takes anyway, and from what sockets hold."""
    big = 128 if quick else 1024
    name = f"{big} MiB" if quick else "1 GiB"
    every = [
        Work(f"{name} up, slow app", big, lambda port: upload(port, big * MIB, query="slow") - PAUSE_SECONDS),
        Work(f"{name} down, slow reader", big, lambda port: download(port, big * MIB, pause=PAUSE_SECONDS)),
        Work(f"{name} down", big, lambda port: download(port, big * MIB)),
        Work(f"{AT_ONCE} slow readers, 8 MiB each", 0, lambda port: many_downloads(port, 8 * MIB)),
        Work(f"{AT_ONCE} slow writers, 4 MiB each", 0, lambda port: many_uploads(port, 4 * MIB)),
    ]
    return every[:2] if quick else every


def many_downloads(port: int, length: int) -> float:
    together(lambda: download(port, length, pause=PAUSE_SECONDS))
    return 0


def many_uploads(port: int, length: int) -> float:
    together(lambda: upload(port, length, pause=PAUSE_SECONDS))
    return 0


def measured(work: Work, contenders: tuple[Contender, ...], rounds: int) -> list[Row]:
    """The growth of each contender and, where there is one, its rate."""
    rows = [Row("memory", work.title, contender.name, "MiB", higher_is_better=False) for contender in contenders]
    rates = [Row("memory", f"{work.title}: rate", contender.name, "MiB/s") for contender in contenders]
    with serving(contenders, "served_bodies", AT_ONCE) as servers:
        before = {name: warm_up(served) for name, served in servers.items()}
        for number, place in interleave(range(len(contenders)), rounds):
            row, rate = rows[place], rates[place]
            if row.failure is not None or row.extra:
                continue
            served = servers[row.contender]
            forget_peak(served)
            try:
                seconds = work.do(served.port)
            except (WrongResponse, OSError) as error:
                grown = mib_of(served, "VmHWM") - before[row.contender]
                what = f"not done within {BOUND_SECONDS:g} s" if isinstance(error, TimeoutError) else str(error)
                row.failure = rate.failure = f"{what}; it grew by {grown:,.0f} MiB"
                served.process.kill()  # it may go on, and take the others' time
                continue
            row.values.append(round(mib_of(served, "VmHWM") - before[row.contender], 1))
            if seconds:
                rate.values.append(work.mib / seconds)
            if seconds > SLOW_SECONDS:
                row.extra["rounds"] = 1
            measure.progress([f"{work.title}: round {number + 1} of {rounds}, {row.contender}"])
    return rows + [rate for rate in rates if work.mib and (rate.values or rate.failure)]


def run(*, quick: bool, rounds: int) -> Section:
    """Measure all works; of those with a rate at most three rounds, of the others one."""
    section = Section(
        "memory",
        "Memory",
        f"Under uvicorn with httptools and uvloop, {AT_ONCE} threads (asgiref's bridge has one). MiB: by how much the "
        "peak of the server's resident memory grew. A slow reader, writer or app does nothing for "
        f"{PAUSE_SECONDS:g} s, which a rate leaves out: one that holds all in memory has worked meanwhile. Nothing may "
        f"take more than {BOUND_SECONDS:g} s, and what takes more than {SLOW_SECONDS:g} s is done once.",
    )
    contenders = tuple(contender for contender in CONTENDERS if not quick or contender.name in QUICK)
    for work in works(quick=quick):
        section.rows += measured(work, contenders, 1 if quick or not work.mib else min(rounds, 3))
    return section


if __name__ == "__main__":
    measure.main(run)
