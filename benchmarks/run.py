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

import charts
import contenders
import history
import report
from measure import Section, machine, progress

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SECTIONS = (
    "start_up",
    "crossing",
    "in_process",
    "through_servers",
    "memory",
    "files",
    "responsiveness",
    "scaling",
    "system_calls",
    "websocket_echo",
    "free_threads",
)
FREE_THREADS = "free_threads"  # the section that runs on an interpreter of its own
LIMIT_SECONDS = 1800  # what one section may take


def python_of(name: str) -> str | None:
    """The interpreter that a section runs on; None if there is none."""
    if name != FREE_THREADS:
        return sys.executable
    python = Path(f"{sys.prefix}-freethreaded") / "bin" / "python"  # from `make bench-freethreaded`
    return str(python) if python.exists() else None


def measured(name: str, python: str, *, quick: bool, rounds: int) -> Section | None:
    """Run one section in a process of its own; None if that fails."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        results = Path(directory) / "section.json"
        command = [python, str(HERE / f"{name}.py"), "--rounds", str(rounds), "--json", str(results)]
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


def written(about: dict[str, Any], sections: dict[str, list[dict[str, Any]]]) -> str:
    """The results as JSON, with a line for each work: small, and a difference shows what changed."""
    lines = [json.dumps({**about, "sections": {}}, indent=1)[: -len("{}\n}")] + "{"]
    for number, (name, runs) in enumerate(sections.items()):
        lines.append(f"{',' if number else ''}{json.dumps(name)}: [")
        for index, run in enumerate(runs):
            works = ",\n".join(json.dumps(work, separators=(",", ":")) for work in run["works"])
            head = json.dumps({**run, "works": []})[: -len("[]}")]
            lines.append(f"{',' if index else ''}{head}[\n{works}]}}")
        lines.append("]")
    return "\n".join([*lines, "}}"]) + "\n"


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
            python = python_of(name)
            if python is None:
                progress([f"{name} is skipped: there is no Python without a GIL. `make bench-freethreaded` builds one"])
                continue
            section = measured(name, python, quick=options.quick, rounds=rounds)
            if section is None:
                failed = True
            else:
                found.setdefault(name, []).append(section)

    about: dict[str, Any] = {"machine": machine(), "releases": contenders.releases(), "rounds": rounds}
    path = RESULTS / ("quick.json" if options.quick else "latest.json")
    runs = dict(found)
    if options.only and path.exists():  # the other sections stay as they are
        last, before = report.load(path)
        runs = {name: found.get(name) or before[name] for name in SECTIONS if name in found or name in before}
        machines = last.get("older", {})  # of sections that were older then
        about["older"] = {name: machines.get(name, last["machine"]) for name in runs if name not in found}
    RESULTS.mkdir(exist_ok=True)
    sections = {name: [section.to_json() for section in of_name] for name, of_name in runs.items()}
    path.write_text(written(about, sections))
    if not options.quick:
        report.write_readme(about, runs)
        charts.write(report.pooled(of_name) for of_name in runs.values())
        history.record(about, found, report.targets())
        history.draw(report.targets())
    for of_name in found.values():
        print(report.tables(report.pooled(of_name)), end="\n\n")
    print(report.targets_table(found))
    if failed:
        sys.exit("A section failed.")


if __name__ == "__main__":
    main()
