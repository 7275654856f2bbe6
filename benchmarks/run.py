"""All benchmarks: each section in a process of its own, one after another.

A full run writes ``results/latest.json``, the tables of the README and the charts of the documentation. A quick one
takes less than two minutes, prints the same tables, and writes nothing but ``results/quick.json``.

    python benchmarks/run.py [--quick] [--only SECTION ...] [--rounds N] [--runs N]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import contenders
import report
from measure import Section, machine, progress

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SECTIONS = ("crossing", "in_process", "through_servers", "memory", "responsiveness", "scaling")
LIMIT_SECONDS = 1800  # what one section may take


def measured(name: str, *, quick: bool, rounds: int) -> Section | None:
    """Run one section in a process of its own; None if that fails."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        results = Path(directory) / "section.json"
        command = [sys.executable, str(HERE / f"{name}.py"), "--rounds", str(rounds), "--json", str(results)]
        try:
            subprocess.run(  # noqa: S603 - a file of this directory
                [*command, *(["--quick"] if quick else [])],
                check=True,
                stdout=subprocess.DEVNULL,
                timeout=LIMIT_SECONDS,
            )
        except subprocess.SubprocessError as error:
            progress([f"{name} failed: {error}"])
            return None
        progress([f"{name} took {time.monotonic() - begin:.0f} s"])
        return Section.from_json(json.loads(results.read_text()))


def main() -> None:
    """Run what is asked for; fail if a section does."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer works and rounds, in less than two minutes")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--rounds", type=int, help="how many rounds (5, or 3 if quick)")
    parser.add_argument("--runs", type=int, default=1, help="how often all of it; the tables take all of them")
    options = parser.parse_args()
    rounds = options.rounds or (3 if options.quick else 5)
    chosen = [name for name in SECTIONS if not options.only or name in options.only]

    found: dict[str, list[Section]] = {}
    failed = False
    for _ in range(options.runs):
        for name in chosen:
            section = measured(name, quick=options.quick, rounds=rounds)
            if section is None:
                failed = True
            else:
                found.setdefault(name, []).append(section)

    about: dict[str, Any] = {"machine": machine(), "releases": contenders.releases(), "rounds": rounds}
    path = RESULTS / ("quick.json" if options.quick else "latest.json")
    runs = dict(found)
    if options.only and path.exists():  # the other sections stay as they are
        _, before = report.load(path)
        runs = {name: found.get(name) or before[name] for name in SECTIONS if name in found or name in before}
        about["older"] = [name for name in runs if name not in found]
    RESULTS.mkdir(exist_ok=True)
    sections = {name: [section.to_json() for section in of_name] for name, of_name in runs.items()}
    path.write_text(json.dumps({**about, "sections": sections}, indent=1) + "\n")
    if not options.quick:
        report.write_readme(about, runs)
        report.write_charts(runs)
    for of_name in found.values():
        print(report.tables(report.pooled(of_name)), end="\n\n")
    print(report.targets_table(found))
    if failed:
        sys.exit("A section failed.")


if __name__ == "__main__":
    main()
