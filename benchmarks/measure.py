"""What all sections share: rows, interleaved rounds, ratios of medians, and a description of the machine.

A *section* compares some *contenders* at some *works*. Each work is done by every contender once a round, in rounds
that are interleaved and rotated, so that a machine that slows down slows all of them. A round gives one value a
contender; a row holds the values of one contender at one work. What is compared is medians of rows of the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_T = TypeVar("_T")


@dataclass
class Row:
    """What one contender did at one work.

    Attributes:
        section: The name of the section, such as ``in_process``.
        work: What was done, such as ``Flask hello, uvicorn``.
        contender: Who did it.
        unit: Of the values, such as ``requests/s`` or ``MiB``.
        higher_is_better: Of the values.
        values: One a round.
        failure: Why there are none: what the contender's response was instead of what the app made.
        extra: What else was seen, such as ``p99_ms``.
    """

    section: str
    work: str
    contender: str
    unit: str
    higher_is_better: bool = True
    values: list[float] = field(default_factory=list)
    failure: str | None = None
    extra: dict[str, float | str | int] = field(default_factory=dict)

    @property
    def median(self) -> float | None:
        """The median of the rounds; None where the contender failed or was not measured."""
        return statistics.median(self.values) if self.values and self.failure is None else None


@dataclass
class Section:
    """The rows of one section, with what a reader has to know about them."""

    name: str
    title: str
    note: str
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Section:
        rows = [
            Row(data["name"], work["work"], contender, work["unit"], work["higher_is_better"], **row)
            for work in data["works"]
            for contender, row in work["rows"].items()
        ]
        return cls(data["name"], data["title"], data["note"], rows)

    def to_json(self) -> dict[str, Any]:
        """What is written: each work once, with its contenders; no empty fields, and no digits that mean nothing."""
        works: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            of_work = {"work": row.work, "unit": row.unit, "higher_is_better": row.higher_is_better, "rows": {}}
            work = works.setdefault(row.work, of_work)
            told = {
                "values": [float(f"{value:.8g}") for value in row.values],
                "failure": row.failure,
                "extra": row.extra,
            }
            work["rows"][row.contender] = {name: value for name, value in told.items() if value or name == "values"}
        return {"name": self.name, "title": self.title, "note": self.note, "works": [*works.values()]}

    @property
    def works(self) -> list[str]:
        """Each work once, in order."""
        return list(dict.fromkeys(row.work for row in self.rows))

    def row(self, work: str, contender: str) -> Row | None:
        return next((row for row in self.rows if (row.work, row.contender) == (work, contender)), None)

    def ratio(self, work: str, contender: str, other: str) -> float | None:
        """How many times as good a contender's median is as another's; None where one of the two has none."""
        mine, others = self.row(work, contender), self.row(work, other)
        if mine is None or others is None or not mine.median or not others.median:
            return None
        return mine.median / others.median if mine.higher_is_better else others.median / mine.median


def interleave(contenders: Sequence[_T], rounds: int) -> Iterator[tuple[int, _T]]:
    """Give each contender once a round, with the round's number; each round begins one further on."""
    for number in range(rounds):
        for offset in range(len(contenders)):
            yield number, contenders[(number + offset) % len(contenders)]


def machine() -> dict[str, str]:
    """Describe what this runs on."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def table(section: Section) -> str:
    """The section as lines of text, for a terminal."""
    lines = [section.title]
    for work in section.works:
        lines += ["", f"  {work}"]
        for row in section.rows:
            if row.work == work:
                figure = f"FAILS: {row.failure}" if row.median is None else f"{row.median:12.5g} {row.unit}"
                extra = "  ".join(f"{name} {value}" for name, value in row.extra.items())
                lines.append(f"    {row.contender:28} {figure}   {extra}".rstrip())
    return "\n".join(lines)


def cell(value: float) -> str:
    """A figure with as many digits as mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def progress(words: Iterable[object]) -> None:
    """Say what is done, on standard error: a run takes minutes."""
    print(*words, file=sys.stderr, flush=True)


class Run(Protocol):
    """What a section's module has as ``run``."""

    def __call__(self, *, quick: bool, rounds: int) -> Section: ...


def main(run: Run) -> None:
    """Run one section from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer rounds and fewer works")
    parser.add_argument("--rounds", type=int, help="how many rounds (5, or 3 if quick)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the section there")
    options = parser.parse_args()
    section = run(quick=options.quick, rounds=options.rounds or (3 if options.quick else 5))
    if options.json:
        options.json.write_text(json.dumps(section.to_json(), indent=1) + "\n")
    print(table(section))
