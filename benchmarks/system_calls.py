"""How often a request enters the kernel: each contender's server under strace, while it is loaded.

    python benchmarks/system_calls.py [--quick]

Needs wrk and strace. Left out are the calls of ``futex`` that fail: a thread that waits for the interpreter's lock
makes one each 5 ms, so that their number says how slow the machine is, under strace above all.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import measure
from contenders import OLD, OURS, THREADS
from measure import Row, Section
from served import Contender, Served, WrongResponse, serving
from through_servers import HELLO, checked, load

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "system_calls"
CONTENDERS = (
    Contender(OURS, "uvicorn", f"to asgi: {OURS}"),
    Contender(OLD, "uvicorn", f"to asgi: {OLD}"),
    Contender("uvicorn's", "uvicorn", "to asgi: uvicorn's"),
    Contender("gunicorn gthread", "gunicorn gthread", "none, wsgi"),
    Contender("waitress", "waitress", "none, wsgi"),
)
ATTACH_SECONDS = 30.0


def run(*, quick: bool, rounds: int) -> Section:
    """Count them, alone and at 50 at once; in one round if quick."""
    section = Section(
        NAME,
        "System calls",
        "Flask hello under load from wrk, alone and 50 at once: system calls a request of the server's process with "
        "all its threads, by strace, without the calls of futex that fail. Less is better.",
    )
    if shutil.which("strace") is None:
        measure.progress(["strace is missing, and with it this section. Install it: apt-get install strace"])
        return section
    with serving(CONTENDERS, "served_flask", THREADS) as servers:
        for at_once in (1, 50):
            for name, served in servers.items():
                row = Row(NAME, f"Flask hello, {at_once} at once", name, "calls", higher_is_better=False)
                section.rows.append(row)
                try:
                    wire = checked(served, HELLO)
                    for _ in range(1 if quick else min(rounds, 3)):
                        with _counting(served) as counted:
                            requests = load(served, at_once, wire)["requests"]
                        row.values.append(counted[0] / requests)
                except (WrongResponse, OSError, subprocess.SubprocessError) as error:
                    row.failure = str(error)
                measure.progress([f"System calls: {name}, {at_once} at once"])
    return section


@contextlib.contextmanager
def _counting(served: Served) -> Iterator[list[int]]:
    """Count the system calls of a server's processes; the number is there at the end."""
    counted: list[int] = []
    with tempfile.TemporaryDirectory() as directory:
        summary = Path(directory) / "summary"
        pids = [option for pid in served.pids() for option in ("-p", str(pid))]
        command = ["strace", "-f", "-c", "-o", str(summary), *pids]
        strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603 - found by run()
        try:
            assert strace.stderr is not None
            for _ in served.pids():
                if "attached" not in strace.stderr.readline():
                    raise WrongResponse("strace may not look at other processes here")
            yield counted
        finally:
            strace.send_signal(signal.SIGINT)
            strace.communicate(timeout=ATTACH_SECONDS)
        counted.append(_calls(summary.read_text()))


def _calls(summary: str) -> int:
    """The system calls in what ``strace -c`` writes: % time, seconds, usecs/call, calls, errors if any, name."""
    calls = 0
    for line in summary.splitlines():
        fields = line.split()
        numbers, name = fields[3:-1], fields[-1] if fields else ""
        if numbers and numbers[0].isdecimal() and name != "total":
            calls += int(numbers[0]) - (int(numbers[1]) if name == "futex" and len(numbers) > 1 else 0)
    return calls


if __name__ == "__main__":
    measure.main(run)
