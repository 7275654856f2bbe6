"""A file of 1 GiB from Flask on granian and from FastAPI on gunicorn: how fast, and what it costs the server.

Beside the bridges stands the native way: FastAPI on granian, Flask on gunicorn. The file is sparse, so that no disk is
measured. Each contender serves it in a process of its own, which has answered once before; the length of each body is
checked. Processor time is that of all of a server's processes, and memory by how much the peak of the one grew that
grew the most.

    python benchmarks/files.py [--quick]

Needs Linux, for ``/proc``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from pathlib import Path

import measure
from contenders import NATIVE_ASGI, NATIVE_WSGI, OLD, OURS, OURS_INLINE, THREADS
from measure import Row, Section, interleave
from served import Contender, Served, WrongResponse, serving

MIB = 1024 * 1024
BOUND_SECONDS = 120.0  # for one file
SLOW_SECONDS = 20.0  # what takes longer is done once

WORKS = {
    "on granian": (
        Contender(NATIVE_ASGI, "granian asgi", "none, asgi"),
        Contender(OURS, "granian asgi", f"to asgi: {OURS}"),
        Contender(OLD, "granian asgi", f"to asgi: {OLD}"),
        Contender("asgiref", "granian asgi", "to asgi: asgiref"),
    ),
    "on gunicorn": (
        Contender(NATIVE_WSGI, "gunicorn sync", "none, wsgi"),
        Contender(OURS, "gunicorn sync", f"to wsgi: {OURS}"),
        Contender(OURS_INLINE, "gunicorn sync", f"to wsgi: {OURS_INLINE}"),
        Contender(OLD, "gunicorn sync", f"to wsgi: {OLD}"),
    ),
}


def download(port: int, length: int) -> float:
    """Receive the file; how many seconds it took."""
    begin = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=BOUND_SECONDS) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        buffer = bytearray(MIB)
        got = bytearray()
        while (end := got.find(b"\r\n\r\n")) < 0:
            size = connection.recv_into(buffer)
            if not size:
                raise WrongResponse("the connection ended before the response")
            got += memoryview(buffer)[:size]
        if not got.startswith(b"HTTP/1.1 200"):
            raise WrongResponse(bytes(got[:end]).decode("latin-1"))
        have = len(got) - end - 4
        while have < length and (size := connection.recv_into(buffer)):
            have += size
            if time.perf_counter() - begin > BOUND_SECONDS:
                raise TimeoutError
    if have != length:
        raise WrongResponse(f"a body of {have} bytes instead of {length}")
    return time.perf_counter() - begin


def memory_of(served: Served, field: str) -> dict[str, float]:
    """A field of the status of each of a server's processes, in MiB, by the process."""
    found: dict[str, float] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int((path / "stat").read_text().rpartition(")")[2].split()[2]) == served.process.pid:
                lines = (path / "status").read_text().splitlines()
                found[path.name] = next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))
    return found


def measured(work: str, contenders: tuple[Contender, ...], path: Path, mib: int, rounds: int) -> list[Row]:
    """The rate of each contender, its processor time, and what its memory grew by."""
    rates = {one.name: Row("files", f"{work}: rate", one.name, "MiB/s") for one in contenders}
    times = {
        one.name: Row("files", f"{work}: processor time", one.name, "s", higher_is_better=False) for one in contenders
    }
    grown = {one.name: Row("files", f"{work}: memory", one.name, "MiB", higher_is_better=False) for one in contenders}
    os.truncate(path, MIB)
    with serving(contenders, "served_files", THREADS) as servers:
        before = {}
        for name, served in servers.items():
            served.wait_until_it_answers("/")
            download(served.port, MIB)
            before[name] = memory_of(served, "VmHWM")
        os.truncate(path, mib * MIB)
        for number, contender in interleave(contenders, rounds):
            name = contender.name
            if rates[name].failure is not None or rates[name].extra:
                continue
            served, cpu = servers[name], servers[name].cpu_seconds()
            try:
                seconds = download(served.port, mib * MIB)
            except (WrongResponse, OSError) as error:
                what = f"not done within {BOUND_SECONDS:g} s" if isinstance(error, TimeoutError) else str(error)
                rates[name].failure = times[name].failure = grown[name].failure = what
                continue
            rates[name].values.append(mib / seconds)
            if seconds > SLOW_SECONDS:
                rates[name].extra["rounds"] = 1
            times[name].values.append(served.cpu_seconds() - cpu)
            peaks = memory_of(served, "VmHWM")
            grown[name].values.append(max(peaks[one] - before[name].get(one, peaks[one]) for one in peaks))
            measure.progress([f"{work}: round {number + 1} of {rounds}, {name}"])
    return [*rates.values(), *times.values(), *grown.values()]


def run(*, quick: bool, rounds: int) -> Section:
    """Measure both ways."""
    mib = 128 if quick else 1024
    size = f"{mib} MiB" if quick else "1 GiB"
    section = Section(
        "files",
        "Files",
        f"A sparse file of {size}: Flask's `send_file` on granian with its ASGI interface, and FastAPI's "
        "`FileResponse` on gunicorn with its sync worker, each under a bridge; native is the other of the two, without "
        "one. Rate, processor time of the server for one such file, and by how much the peak of its memory grew. What "
        f"takes more than {SLOW_SECONDS:g} s is done once.",
    )
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "file.bin"
        path.touch()
        os.environ["BENCH_FILE"] = str(path)
        for work, contenders in WORKS.items():
            section.rows += measured(f"{size} {work}", contenders, path, mib, rounds)
    return section


if __name__ == "__main__":
    measure.main(run)
