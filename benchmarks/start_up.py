"""What the import costs, each in a process of its own that has imported asyncio, as every server does.

python benchmarks/start_up.py [--quick]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import measure
from contenders import OLD, OURS, peer_directory
from measure import Row, Section, interleave

NAME = "start_up"
#: What a process runs, as it starts: it prints the processor time of the import alone, in milliseconds.
PROGRAM = """
import asyncio, sys, time
sys.path[:0] = sys.argv[2:]
begin = time.process_time()
exec(f"from a2wsgi import {sys.argv[1]}")
print(1000 * (time.process_time() - begin))
"""
CLASSES = ("WSGIMiddleware", "ASGIMiddleware")
PROCESSES = 7  # in a round, of which the median counts


def run(*, quick: bool, rounds: int) -> Section:
    """Import each, again and again, in a process of its own; the byte code is compiled before."""
    section = Section(
        NAME,
        "Start-up",
        "Processor time of `from a2wsgi import WSGIMiddleware`, or of the other class, in a process that has imported "
        "asyncio. Less is better.",
    )
    rows = {
        (cls, name): Row(NAME, f"import of {cls} after asyncio", name, "ms", higher_is_better=False)
        for cls in CLASSES
        for name in (OURS, OLD)
    }
    for number, (cls, name) in interleave(tuple(rows), 1 if quick else rounds):
        paths = [str(peer_directory())] if name == OLD else []
        measured = [imported(cls, paths) for _ in range(PROCESSES + 1)][1:]
        rows[cls, name].values.append(statistics.median(measured))
        measure.progress([f"Start-up: round {number + 1}, {cls}, {name}"])
    section.rows += rows.values()
    return section


def imported(cls: str, paths: list[str]) -> float:
    """Import a class in a process of its own; the milliseconds of processor time that it took."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", PROGRAM, cls, *paths]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=60)  # noqa: S603 - ourselves
    return float(done.stdout)


if __name__ == "__main__":
    measure.main(run)
