"""From the results to what people read: the targets, the tables of the README, the charts of the documentation.

python benchmarks/report.py benchmarks/results/latest.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contenders import OLD, OURS, OURS_INLINE, WSGI_ON_ASGI
from measure import Row, Section, cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HERE = Path(__file__).parent
README = HERE / "README.md"
CHARTS = HERE.parent / "docs" / "benchmarks"
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
    for loop in ("asyncio", "uvloop"):
        for at_once in (1, 50):
            hello = f"WSGI on ASGI, {loop}, hello, {at_once} at once"
            yield Target("in_process", hello, OURS, (OLD,), 10)
            yield Target("in_process", hello, OURS, OTHER_BRIDGES, 2)
            if at_once == 1:
                yield Floor("in_process", hello, OURS, ("bare hop",), 1.6)
            stream = f"WSGI on ASGI, {loop}, 100 x 1 KiB, {at_once} at once"
            yield Target("in_process", stream, OURS, (OLD,), 30)
            yield Target("in_process", stream, OURS, OTHER_BRIDGES, 1.5)
    for at_once in (1, 50):
        hello, stream = (f"ASGI on WSGI, {work}, {at_once} at once" for work in ("hello", "100 x 1 KiB"))
        yield Target("in_process", hello, OURS, (OLD,), 5)
        if at_once == 1:
            yield Floor("in_process", hello, OURS, ("bare hop",), 2)
            yield Target("in_process", hello, OURS_INLINE, (OLD,), 10)
        yield Target("in_process", stream, OURS, (OLD,), 20)
        if at_once == 1:
            yield Target("in_process", stream, OURS_INLINE, (OLD,), 50)
    flask, django = "Flask hello, 50 at once", "Django hello, sync view, 50 at once"
    yield Target("through_servers", flask, OURS, (OLD,), 4)
    yield Target("through_servers", flask, OURS, OTHER_BRIDGES, 1.5)
    yield Target("through_servers", flask, OURS, ("granian",), 1)
    yield Target("through_servers", flask, OURS, ("gunicorn gthread",), 4)
    yield Target("through_servers", django, OURS, (OLD,), 3)
    yield Target("through_servers", django, OURS, ("Django's ASGI handler",), 10)
    for work in ("1 GiB up, slow app", "1 GiB down, slow reader"):
        yield Target("memory", work, OURS, (), 16, "MiB more of resident memory")
    for work in ("1 GiB up, slow app: rate", "1 GiB down, slow reader: rate", "1 GiB down: rate"):
        yield Target("memory", work, OURS, ("native ASGI app",), 0.9, "of a native app's rate")
    for kind in ("body up", "body down", "chunks of 100 B", "requests at once"):
        for work, ours in (
            (f"WSGI on ASGI, {kind}, exponent", OURS),
            (f"ASGI on WSGI, {kind}, exponent", OURS),
            (f"ASGI on WSGI, {kind}, exponent", OURS_INLINE),
        ):
            yield Target("scaling", work, ours, (), LINEAR, "linear or better")


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
    machine, releases = about["machine"], about["releases"]
    counts = sorted({len(sections) for sections in runs.values()})
    times = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    times += " run" if counts[-1] == 1 else " runs"
    return (
        f"Median of {times}, {about['rounds']} rounds each, on {machine['cores']} cores of {machine['cpu']}, "
        f"{machine['system']}, {machine['python']}; "
        + ", ".join(f"{name} {release}" for name, release in releases.items())
        + "."
        + "".join(f" *{runs[name][0].title}* is of an earlier commit." for name in about.get("older", ()))
    )


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


# -- Charts -------------------------------------------------------------------------------------------------------


OUR_COLOUR, OTHER_COLOUR, NO_BRIDGE_COLOUR = "#1f6f8b", "#b8b8b8", "#e3d5b8"


def _colour(name: str) -> str:
    if name.startswith(OURS) and not name.startswith(OLD):
        return OUR_COLOUR
    bridged = name in WSGI_ON_ASGI or name.startswith(OLD)
    return OTHER_COLOUR if bridged else NO_BRIDGE_COLOUR


def _bars(axes: Any, section: Section, work: str, title: str) -> None:
    """One panel: a bar for each contender, from zero, with its figure."""
    rows = [row for row in section.rows if row.work == work]
    values = [row.median or 0 for row in rows]
    # The native app may be a hundred times as fast as any bridge: its bar is cut, which its figure says.
    bridged = [value for row, value in zip(rows, values, strict=True) if _colour(row.contender) != NO_BRIDGE_COLOUR]
    limit = min(max(values), 3.5 * max(bridged)) * 1.25
    places = range(len(rows))
    axes.barh(places, [min(value, limit) for value in values], color=[_colour(row.contender) for row in rows])
    for place, row, value in zip(places, rows, values, strict=True):
        text = "fails" if row.median is None else cell(value)
        if value > 0.85 * limit:
            arrow = " →" if value > limit else ""
            axes.text(min(value, limit) - 0.01 * limit, place, text + arrow, va="center", ha="right", fontsize=7)
        else:
            axes.text(value + limit * 0.01, place, text, va="center", fontsize=7)
    axes.set_yticks(places, [row.contender for row in rows], fontsize=7.5)
    axes.invert_yaxis()
    axes.set_xlim(0, limit)
    better = "more" if rows[0].higher_is_better else "less"
    axes.set_xlabel(f"{rows[0].unit} ({better} is better)", fontsize=7.5)
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(axis="x", labelsize=7)
    axes.xaxis.set_major_locator(_ticker().MaxNLocator(4))
    axes.xaxis.set_major_formatter(_ticker().StrMethodFormatter("{x:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)


def _ticker() -> Any:
    import matplotlib.ticker

    return matplotlib.ticker


def _panels(name: str, title: str, section: Section, works: list[tuple[str, str]], columns: int) -> None:
    """A chart of bars: a panel for each work that was measured, with its title."""
    import matplotlib.pyplot as plt

    works = [(work, panel) for work, panel in works if any(row.median for row in section.rows if row.work == work)]
    if not works:
        return
    most = max(sum(row.work == work for row in section.rows) for work, _ in works)
    lines = -(-len(works) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(4.6 * columns, (0.9 + 0.2 * most) * lines + 0.4), squeeze=False, layout="constrained"
    )
    for axes in grid.flat[len(works) :]:
        axes.set_visible(False)
    for axes, (work, panel) in zip(grid.flat, works, strict=False):
        _bars(axes, section, work, panel)
    figure.suptitle(title, fontsize=11)
    _save(figure, name)


def _save(figure: Any, name: str) -> None:
    import matplotlib.pyplot as plt

    CHARTS.mkdir(exist_ok=True)
    # No date, no random ids: the same results make the same file.
    figure.savefig(CHARTS / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def _curves(section: Section) -> None:
    """The chart of scaling: time over size, both logarithmic, as a slope is an exponent only there."""
    import matplotlib.pyplot as plt

    kinds = dict.fromkeys(work.rpartition(", ")[0] for work in section.works if work.endswith("exponent"))
    figure, grid = plt.subplots(-(-len(kinds) // 2), 2, figsize=(12, 11), squeeze=False, layout="constrained")
    styles = {name: {"color": f"C{place}", "marker": ".", "linewidth": 1} for place, name in enumerate(WSGI_ON_ASGI)}
    styles |= {
        OURS: {"color": OUR_COLOUR, "marker": "o", "linewidth": 2.5, "markersize": 4},
        OURS_INLINE: {"color": OUR_COLOUR, "marker": "o", "linewidth": 1.5, "markersize": 4, "linestyle": "--"},
        "native app": {"color": "#c9b37e", "marker": ".", "linewidth": 1, "linestyle": ":"},
    }
    for axes, kind in zip(grid.flat, kinds, strict=False):
        points: dict[str, list[tuple[float, float]]] = {}
        for row in section.rows:
            if row.work.startswith(f"{kind}, ") and "size" in row.extra and row.median:
                points.setdefault(row.contender, []).append((float(row.extra["size"]), row.median))
        for name, found in points.items():
            exponent = section.row(f"{kind}, exponent", name)
            label = name if exponent is None or exponent.median is None else f"{name}, exponent {exponent.median:.2f}"
            axes.loglog(*zip(*found, strict=True), label=label, **styles[name])
        axes.set_title(kind, fontsize=9, loc="left")
        axes.set_xlabel(_size_unit(kind), fontsize=7.5)
        axes.set_ylabel("seconds (less is better)", fontsize=7.5)
        axes.tick_params(labelsize=7)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle("Scaling: time over size, both axes logarithmic; a straight line of slope 1 is linear", fontsize=11)
    _save(figure, "scaling")


def _size_unit(kind: str) -> str:
    return {"body": "MiB", "chun": "chunks", "requ": "requests at once"}[kind.partition(", ")[2][:4]]


def write_charts(runs: Runs) -> None:
    """Draw what was measured."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "a2wsgi"
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    for name, sections in runs.items():
        section = pooled(sections)
        if name == "in_process":
            for prefix, file in (("WSGI on ASGI, uvloop, ", "wsgi_on_asgi"), ("ASGI on WSGI, ", "asgi_on_wsgi")):
                works = [work for work in section.works if work.startswith(prefix)]
                alone = [work for work in works if work.endswith(", 1 at once")]
                many = [work for work in works if work not in alone]
                order = [work for pair in zip(alone, many, strict=False) for work in pair]
                titled = [(work, work.removeprefix(prefix)) for work in order]
                _panels(file, prefix.removesuffix(", ") + ", in process", section, titled, 2)
        elif name == "through_servers":
            works = [work for work in section.works if work.endswith("50 at once")]
            _panels("servers", "Through servers, load from wrk", section, [(work, work) for work in works], 1)
        elif name == "memory":
            works = [work for work in section.works if not work.endswith("rate")]
            title = "Memory: growth of the server's peak"
            _panels("memory", title, section, [(work, work) for work in works], 2)
        elif name == "scaling":
            _curves(section)


def main() -> None:
    """Write README and charts anew from what is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", default=HERE / "results" / "latest.json")
    about, runs = load(parser.parse_args().results)
    write_readme(about, runs)
    write_charts(runs)
    print(targets_table(runs))


if __name__ == "__main__":
    main()
