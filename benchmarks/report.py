"""From the results to what people read: the targets, the tables of the README, the charts of the documentation.

python benchmarks/report.py benchmarks/results/latest.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import charts
from contenders import OLD, OURS, OURS_INLINE, WSGI_ON_ASGI
from measure import Row, Section, cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HERE = Path(__file__).parent
README = HERE / "README.md"
BEGIN, END = "<!-- {}: written by report.py -->", "<!-- end of {} -->"

Runs = dict[str, list[Section]]  # the runs of each section


def load(path: Path) -> tuple[dict[str, Any], Runs]:
    """What `run` wrote: the description of the machine and so on, and the sections."""
    data = json.loads(path.read_text())
    runs = {name: [Section.from_json(one) for one in sections] for name, sections in data.pop("sections").items()}
    return data, runs


def pooled(sections: list[Section]) -> Section:
    """The runs of one section as one: the values of all rounds; what failed once fails."""
    rows: dict[tuple[str, str], Row] = {}
    extras: dict[tuple[str, str], dict[str, list[Any]]] = {}
    for row in (row for section in sections for row in section.rows):
        key = (row.work, row.contender)
        pool = rows.setdefault(key, dataclasses.replace(row, values=[], failure=None, extra={}))
        pool.values += row.values
        pool.failure = pool.failure or row.failure
        for name, value in row.extra.items():
            extras.setdefault(key, {}).setdefault(name, []).append(value)
    for key, found in extras.items():
        rows[key].extra = {name: statistics.median(values) for name, values in found.items()}
    return dataclasses.replace(sections[-1], rows=list(rows.values()))


# -- Targets ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """How far ahead ours has to be: of the best of some others, at one work.

    Attributes:
        section: The section that measures it.
        work: The work there.
        ours: Which of ours.
        others: Whom to be ahead of; none for a figure of ours alone.
        bound: How many times as good as the best of them; for a figure of ours alone, what it must stay below.
        says: What it is called, where that is not "ahead of" the others.
    """

    section: str
    work: str
    ours: str
    others: tuple[str, ...]
    bound: float
    says: str = ""

    def measured(self, runs: Runs) -> tuple[float, str] | None:
        """The median over the runs, and the best of the others; None where something was not measured, or failed."""
        found: list[float] = []
        best = ""
        for section in runs.get(self.section, []):
            if self.others:
                ratios = {other: section.ratio(self.work, self.ours, other) for other in self.others}
                known = {ratio: other for other, ratio in ratios.items() if ratio is not None}
                if known:
                    found.append(min(known))
                    best = known[min(known)]
            else:
                row = section.row(self.work, self.ours)
                if row is not None and row.median is not None:
                    found.append(row.median)
        return (statistics.median(found), best) if found else None

    def part(self, figure: float) -> float:
        """How much of it is reached: 1 is all."""
        return figure / self.bound if self.others else self.bound / figure if figure > 0 else math.inf

    def unmeasured(self, runs: Runs) -> tuple[str, str]:
        """The last two cells of a line without a figure: a failure of ours is no lack of a measurement."""
        rows = [section.row(self.work, self.ours) for section in runs.get(self.section, [])]
        failed = any(row is not None and row.failure for row in rows)
        return ("fails", _verdict(met=False)) if failed else ("not measured", "-")

    def line(self, runs: Runs) -> tuple[str, str, str, str]:
        """The cells of its line: work, what is wanted, what was measured, whether it is met."""
        work = f"{self.work}, {self.ours}" if self.ours == OURS_INLINE else self.work
        says = self.says or f"ahead of {self.others[0] if len(self.others) == 1 else 'every other bridge'}"
        measured = self.measured(runs)
        wanted = f"{says}: {self.bound:g}x" if self.others else f"{says}: less than {self.bound:g}"
        if measured is None:
            return work, wanted, *self.unmeasured(runs)
        value, best = measured
        if not self.others:
            return work, wanted, f"{value:.2f}" if self.bound < 10 else f"{value:.1f}", _verdict(met=value < self.bound)
        figure = f"{value:.2f}x" if value < 10 else f"{value:.1f}x"
        if len(self.others) > 1:
            figure += f" ({best})"
        return work, wanted, figure, _verdict(met=value >= self.bound)


@dataclass(frozen=True)
class Floor(Target):
    """How much longer ours may take than the others, which are the floor."""

    def part(self, figure: float) -> float:
        return figure * self.bound

    def line(self, runs: Runs) -> tuple[str, str, str, str]:
        measured = self.measured(runs)
        work = f"{self.work}, {self.ours}" if self.ours == OURS_INLINE else self.work
        wanted = f"the time of a {self.others[0]}: at most {self.bound:g}x"
        if measured is None:
            return work, wanted, *self.unmeasured(runs)
        times = 1 / measured[0]
        return work, wanted, f"{times:.2f}x", _verdict(met=times <= self.bound)


def _verdict(*, met: bool) -> str:
    return "met" if met else "**missed**"


OTHER_BRIDGES = tuple(name for name in WSGI_ON_ASGI if name != OURS)
LINEAR = 1.1  # an exponent of 1, and what the noise of a few rounds adds to it


def targets() -> Iterator[Target]:
    """Every target, in the order of the table."""
    yield from in_process_targets()
    flask = "Flask hello on uvicorn, 50 at once: what the bridge adds"
    yield Target("through_servers", flask, OURS, (), 12, "µs of processor time a request")
    for cls in ("WSGIMiddleware", "ASGIMiddleware"):
        yield Target("start_up", f"import of {cls} after asyncio", OURS, (), 10, "ms of processor time")
    for at_once in (1, 50):
        others = ("native ASGI app on hypercorn with trio",)
        trio = f"hello under trio, {at_once} at once"
        yield Target("through_servers", trio, f"{OURS} on hypercorn with trio", others, 0.6, "of a native app's rate")
    for work in ("1 GiB up, slow app", "1 GiB down, slow reader"):
        yield Target("memory", work, OURS, (), 16, "MiB more of resident memory")
    for work in ("1 GiB up, slow app: rate", "1 GiB down, slow reader: rate", "1 GiB down: rate"):
        yield Target("memory", work, OURS, ("native ASGI app",), 0.9, "of a native app's rate")
    for work in ("1 GiB on granian: memory", "1 GiB on gunicorn: memory"):
        yield Target("files", work, OURS, (), 4, "MiB more of resident memory")
    for kind in ("body up", "body down", "chunks of 100 B", "header repeated", "requests at once"):
        for work, ours in (
            (f"WSGI on ASGI, {kind}, exponent", OURS),
            (f"ASGI on WSGI, {kind}, exponent", OURS),
            (f"ASGI on WSGI, {kind}, exponent", OURS_INLINE),
        ):
            yield Target("scaling", work, ours, (), LINEAR, "linear or better")
    yield from websocket_targets()
    yield from free_threads_targets()


def free_threads_targets() -> Iterator[Target]:
    """Those of `free_threads`."""
    process, server = "1 ms of Python: gain of 2 workers over 1", "template: gain of 2 threads over 1"
    yield Target("free_threads", process, OURS, ("threads, no bridge",), 0.9, "of what bare threads gain")
    yield Target("free_threads", server, f"{OURS} on uvicorn", ("gunicorn gthread",), 1, "of gunicorn gthread's gain")


def in_process_targets() -> Iterator[Target]:
    """Those of `in_process`: no other bridge is faster, and what has to stay in memory does."""
    for loop in ("asyncio", "uvloop"):
        alone, many = (f"WSGI on ASGI, {loop}, {{}}, {at_once} at once".format for at_once in (1, 50))
        for work in ("hello", "1 KiB echo"):
            yield Target("in_process", alone(work), OURS, OTHER_BRIDGES, 1.05)
        yield Floor("in_process", alone("hello"), OURS, ("bare hop",), 1.6)
        yield Target("in_process", many("hello"), OURS, (OLD,), 10)
        yield Target("in_process", many("hello"), OURS, OTHER_BRIDGES, 2)
        for stream in (alone("100 x 1 KiB"), many("100 x 1 KiB")):
            yield Target("in_process", stream, OURS, (OLD,), 30)
            yield Target("in_process", stream, OURS, OTHER_BRIDGES, 1.5)
        yield Target("in_process", alone("64 MiB down"), OURS, ("uvicorn's",), 0.95, "of uvicorn's rate, unbounded")
    alone, many = (f"ASGI on WSGI, {{}}, {at_once} at once".format for at_once in (1, 50))
    yield Floor("in_process", alone("hello"), OURS, ("bare hop to a task",), 1.5)
    yield Target("in_process", alone("hello"), OURS_INLINE, (OLD,), 8)
    yield Target("in_process", many("hello"), OURS, (OLD,), 5)
    for stream in (alone("100 x 1 KiB"), many("100 x 1 KiB")):
        yield Target("in_process", stream, OURS, (OLD,), 20)
    yield Target("in_process", alone("100 x 1 KiB"), OURS_INLINE, (OLD,), 30)


def websocket_targets() -> Iterator[Target]:
    """Those of `websocket_echo`."""
    section, uvicorn, gunicorn = "websocket_echo", ("uvicorn, no bridge",), ("Flask-Sock on gunicorn gthread",)
    fastapi, sock, own = (
        f"{OURS}{what}" for what in (" on gunicorn gthread", ", Flask-Sock on uvicorn", ", its own object on uvicorn")
    )
    for at_once in (1, 20, 500):
        yield Target(section, f"FastAPI echo, {at_once} at once", fastapi, uvicorn, 0.9, "of FastAPI's on uvicorn")
        yield Target(section, f"Flask echo, {at_once} at once", sock, gunicorn, 0.7, "Flask-Sock, of that on gunicorn")
        yield Target(section, f"Flask echo, {at_once} at once", own, gunicorn, 1, "our own object, of Flask-Sock's")
    yield Target(section, "FastAPI echo: memory", fastapi, uvicorn, 1, "as little as FastAPI on uvicorn")


def targets_table(runs: Runs) -> str:
    """The targets whose section was run, each with what was measured."""
    lines = [target.line(runs) for target in targets() if target.section in runs]
    return _table(("work", "target", "measured", ""), lines)


# -- Tables -------------------------------------------------------------------------------------------------------


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    rows = [head, tuple("---" for _ in head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def tables(section: Section) -> str:
    """The tables of one section: works with the same contenders share one."""
    works = [work for work in section.works if section.name != "scaling" or work.endswith("exponent")]
    groups: dict[tuple[Any, ...], list[str]] = {}
    for work in works:
        rows = [row for row in section.rows if row.work == work]
        extra = dict.fromkeys(name for row in rows for name in row.extra if name not in {"size", "rounds"})
        names = tuple(row.contender for row in rows if not row.contender.startswith("bare hop"))
        groups.setdefault((names, tuple(extra), work if extra else ""), []).append(work)
    parts = [f"### {section.title}", section.note]
    failures: list[str] = []
    for (_, extra, _), of_group in groups.items():
        if extra:
            parts += [f"**{of_group[0]}**", _list(section, of_group[0], extra, failures)]
        else:
            parts.append(_matrix(section, of_group, failures))
    if failures:
        parts.append("\n".join(f"- [{number}] {text}" for number, text in enumerate(failures, 1)))
    return "\n\n".join(parts)


def _reference(section: Section, work: str) -> str:
    names = [row.contender for row in section.rows if row.work == work]
    return OURS if OURS in names else next((name for name in names if name.startswith(OURS)), "")


def _figure(section: Section, row: Row, failures: list[str]) -> str:
    """A figure, and how many times as good ours is."""
    if row.median is None:
        failure = f"{row.contender}, {row.work}: {row.failure or 'not measured'}"
        if failure not in failures:
            failures.append(failure)
        return f"fails [{failures.index(failure) + 1}]"
    ours = _reference(section, row.work)
    ratio = section.ratio(row.work, ours, row.contender) if row.unit and row.contender != ours else None
    return cell(row.median) + ("" if ratio is None else f" ({cell(ratio)}x)")


def _matrix(section: Section, works: list[str], failures: list[str]) -> str:
    names = dict.fromkeys(row.contender for row in section.rows if row.work in works)
    lines = []
    for work in works:
        rows = {name: section.row(work, name) for name in names}
        unit = next(row.unit for row in rows.values() if row is not None)
        figures = ("" if row is None else _figure(section, row, failures) for row in rows.values())
        lines.append((work + (f", {unit}" if unit else ""), *figures))
    return _table(("work", *names), lines)


def _list(section: Section, work: str, extra: tuple[str, ...], failures: list[str]) -> str:
    rows = [row for row in section.rows if row.work == work]
    lines = [
        (row.contender, _figure(section, row, failures), *(cell_of(row.extra.get(name)) for name in extra))
        for row in rows
    ]
    return _table(("", rows[0].unit, *(name.replace("_us", ", µs").replace("_ms", ", ms") for name in extra)), lines)


def cell_of(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else cell(value)


def described(about: dict[str, Any], runs: Runs) -> str:
    """The machine, the releases and how often."""
    counts = sorted({len(sections) for sections in runs.values()})
    times = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    times += " run" if counts[-1] == 1 else " runs"
    older: dict[str, list[str]] = {}
    for name, machine in about.get("older", {}).items():
        older.setdefault(_on(machine), []).append(f"*{runs[name][0].title}*")
    return (
        f"Median of {times}, {about['rounds']} rounds each, on {_on(about['machine'])}; "
        + ", ".join(f"{name} {release}" for name, release in about["releases"].items())
        + "."
        + "".join(f" Of an earlier commit, on {machine}: {', '.join(titles)}." for machine, titles in older.items())
    )


def _on(machine: dict[str, str]) -> str:
    return f"{machine['cores']} cores of {machine['cpu']}, {machine['system']}, {machine['python']}"


def write_readme(about: dict[str, Any], runs: Runs) -> None:
    """Put the targets and the tables between their markers."""
    text = README.read_text()
    sections = [tables(pooled(sections)) for sections in runs.values()]
    for name, content in (
        ("targets", f"{described(about, runs)}\n\n{targets_table(runs)}"),
        ("tables", "\n\n".join(sections)),
    ):
        begin, end = BEGIN.format(name), END.format(name)
        head, _, rest = text.partition(begin)
        text = f"{head}{begin}\n\n{content}\n\n{end}{rest.partition(end)[2]}"
    README.write_text(text)


def main() -> None:
    """Write README and charts anew from what is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", default=HERE / "results" / "latest.json")
    about, runs = load(parser.parse_args().results)
    write_readme(about, runs)
    charts.write(pooled(sections) for sections in runs.values())
    print(targets_table(runs))


if __name__ == "__main__":
    main()
