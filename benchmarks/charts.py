"""The charts of the documentation, drawn from the results: no library, small files, text that stays text.

GitHub shows each file as a picture. Its panels are SVGs of their own: ``docs/conf.py`` takes them out and puts them on
the page one by one, in as many columns as there is room for, and in the colours of the page's theme.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from contenders import OLD, OURS, OURS_INLINE, WSGI_ON_ASGI
from measure import cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from measure import Row, Section

CHARTS = Path(__file__).parent.parent / "docs" / "benchmarks"

WIDTH = 350  # of a panel: what a phone has room for, and half of what a page of the documentation has
GAP = 24
CHARACTER = 7.5  # the width of a bold one, about: there is nobody to ask
BARS = 36  # where the bars begin, below the title and the unit
PLOT = 190  # the height of a plot of curves

STYLE = """
.a2c text { font: 12px var(--font-stack, system-ui, sans-serif); fill: var(--color-foreground-primary, #222); }
.a2c.panel { overflow: visible; }
.a2c .title { font-weight: 600; font-size: 13px; }
.a2c .unit { fill: var(--color-foreground-secondary, #555); font-size: 11px; }
.a2c .name { text-anchor: end; }
.a2c .our { font-weight: 600; }
.a2c .ours { fill: #2a8caf; } .a2c .other { fill: #a3abb2; } .a2c .none { fill: #d9c48f; }
.a2c .inside { text-anchor: end; fill: #222; }
.a2c .grid { stroke: var(--color-background-border, #ddd); }
.a2c .tick { font-size: 10px; fill: var(--color-foreground-secondary, #555); }
.a2c .curve { fill: none; stroke-width: 1.5; }
.a2c .wide { stroke-width: 3; } .a2c .dashed { stroke-dasharray: 6 3; } .a2c .dotted { stroke-dasharray: 2 3; }
""".strip()

COLOURS = {
    OURS: "#2a8caf",
    OURS_INLINE: "#2a8caf",
    OLD: "#e07b39",
    "asgiref": "#8a63c9",
    "Starlette's": "#3da35d",
    "uvicorn's": "#c2528b",
    "hypercorn's": "#8f8f3a",
    "native app": "#9a9a9a",
}
CLASSES = {OURS: "curve wide", OURS_INLINE: "curve wide dashed", "native app": "curve dotted"}
SIZES = {"body": "MiB", "chun": "chunks", "head": "headers", "requ": "requests at once"}


@dataclass(frozen=True)
class Panel:
    """One part of a chart."""

    title: str
    unit: str
    lines: Sequence[str]
    height: int

    def svg(self, x: int = 0, y: int = 0) -> str:
        """It, at a place."""
        head = (
            f'<svg class="a2c panel" x="{x}" y="{y}" width="{WIDTH}" height="{self.height}" '
            f'viewBox="0 0 {WIDTH} {self.height}">'
        )
        title = f'<text class="title" x="0" y="13">{escape(self.title, quote=False)}</text>'
        unit = f'<text class="unit" x="0" y="28">{escape(self.unit, quote=False)}</text>'
        return "\n".join([head, title, unit, *self.lines, "</svg>"])


def kind(name: str) -> str:
    """Whether a contender is ours, another bridge, or none."""
    if name.startswith(OURS) and not name.startswith(OLD):
        return "ours"
    return "other" if name in WSGI_ON_ASGI or name.startswith(OLD) else "none"


# -- Bars ---------------------------------------------------------------------------------------------------------


def bars(section: Section, work: str, title: str) -> Panel:
    """A bar for each contender, from zero, with its figure."""
    rows = [row for row in section.rows if row.work == work]
    names = [row.contender.replace(" on ", "\non ", 1).split("\n") for row in rows]
    high = 32 if any(len(name) > 1 for name in names) else 19
    left = math.ceil(CHARACTER * max(len(line) for name in names for line in name)) + 8
    values = [row.median or 0 for row in rows]
    # A native app may be a hundred times as fast as any bridge: its bar is cut, which its figure says.
    bridged = [value for row, value in zip(rows, values, strict=True) if kind(row.contender) != "none"]
    limit = min(max(values), 3.5 * max(bridged))
    lines: list[str] = []
    for place, (row, name, value) in enumerate(zip(rows, names, values, strict=True)):
        y = BARS + high * place
        our = " our" if kind(row.contender) == "ours" else ""
        for number, line in enumerate(name):
            base = y + (13 if len(name) == 1 and high < 30 else 19 if len(name) == 1 else 12 + 14 * number)
            lines.append(f'<text class="name{our}" x="{left - 8}" y="{base}">{escape(line, quote=False)}</text>')
        lines += bar(row, value, limit, left, y + (high - 19) / 2)
    unit = f"{rows[0].unit}, {'more' if rows[0].higher_is_better else 'less'} is better"
    return Panel(title, unit, lines, BARS + high * len(rows) + 4)


def bar(row: Row, value: float, limit: float, left: int, y: float) -> Iterator[str]:
    """One bar and its figure: beside it, or inside where there is no room."""
    figure = "fails" if row.median is None else cell(value)
    cut = value > limit
    room = WIDTH - left
    beside = 10 + CHARACTER * len(cell(limit))
    wide = room if cut else max(value / limit * (room - beside), 1)
    yield f'<rect class="{kind(row.contender)}" x="{left}" y="{y + 2:g}" width="{wide:.0f}" height="15" rx="2"/>'
    if cut:
        yield f'<text class="inside" x="{WIDTH - 5}" y="{y + 13:g}">{figure} →</text>'
    else:
        yield f'<text x="{left + wide + 5:.0f}" y="{y + 13:g}">{figure}</text>'


# -- Curves -------------------------------------------------------------------------------------------------------


def curves(section: Section, work: str) -> Panel:
    """Time over size, both logarithmic: only there is a slope an exponent."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in section.rows:
        if row.work.startswith(f"{work}, ") and "size" in row.extra and row.median:
            points.setdefault(row.contender, []).append((float(row.extra["size"]), row.median))
    every = [point for found in points.values() for point in found]
    left, top, bottom = 42, BARS, BARS + PLOT
    across = scale([size for size, _ in every], left + 6, WIDTH - 14)
    up = scale([seconds for _, seconds in every], bottom, top)
    lines: list[str] = []
    for seconds in decades([seconds for _, seconds in every]):
        y = up(seconds)
        lines.append(f'<line class="grid" x1="{left}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text class="tick name" x="{left - 5}" y="{y + 3:.1f}">{seconds_of(seconds)}</text>')
    sizes = sorted({size for size, _ in every})
    tick = '<text class="tick" text-anchor="middle" x="{:.1f}" y="{}">{}</text>'
    lines += [tick.format(across(size), bottom + 14, cell(size)) for size in sizes]
    y = bottom + 34
    for number, (name, found) in enumerate(points.items()):
        style = f'class="{CLASSES.get(name, "curve")}" stroke="{COLOURS[name]}"'
        path = " ".join(f"{across(size):.1f},{up(seconds):.1f}" for size, seconds in found)
        lines.append(f'<polyline {style} points="{path}"/>')
        x, line = WIDTH // 2 * (number % 2), y + 17 * (number // 2)
        exponent = section.row(f"{work}, exponent", name)
        figure = "" if exponent is None or exponent.median is None else f" {exponent.median:.2f}"
        lines.append(f'<polyline {style} points="{x},{line - 4} {x + 20},{line - 4}"/>')
        lines.append(f'<text x="{x + 26}" y="{line}">{escape(name, quote=False)}{figure}</text>')
    unit = f"time by {SIZES[work.partition(', ')[2][:4]]}; the figures below are exponents"
    return Panel(work, unit, lines, y + 17 * -(-len(points) // 2))


def scale(values: Iterable[float], first: float, last: float) -> Scale:
    """A logarithmic axis from the least of the values to the greatest."""
    values = [math.log(value) for value in values]
    return Scale(min(values), max(values), first, last)


@dataclass(frozen=True)
class Scale:
    """From a value to its place."""

    least: float
    most: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        return self.first + (math.log(value) - self.least) / (self.most - self.least) * (self.last - self.first)


def decades(values: Sequence[float]) -> list[float]:
    """The powers of ten between the least and the greatest."""
    exponents = range(math.ceil(math.log10(min(values))), math.floor(math.log10(max(values))) + 1)
    return [float(f"1e{exponent}") for exponent in exponents]


def seconds_of(value: float) -> str:
    """A time, in its unit."""
    return f"{value:g} s" if value >= 1 else f"{value * 1e3:g} ms" if value >= 1e-3 else f"{value * 1e6:g} µs"


# -- Files --------------------------------------------------------------------------------------------------------


def picture(title: str, panels: Sequence[Panel]) -> str:
    """A file: the panels in two columns, on a ground of their own."""
    parts: list[str] = []
    y = 40
    for number in range(0, len(panels), 2):
        pair = panels[number : number + 2]
        parts += [panel.svg(GAP + place * (WIDTH + GAP), y) for place, panel in enumerate(pair)]
        y += max(panel.height for panel in pair) + GAP
    wide = 2 * WIDTH + 3 * GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="a2c" viewBox="0 0 {wide} {y}" width="{wide}" role="img">',
            f"<title>{escape(title, quote=False)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{wide}" height="{y}" rx="8" fill="#fff"/>',
            f'<text class="title" x="{GAP}" y="26">{escape(title, quote=False)}</text>',
            *parts,
            "</svg>",
            "",
        ]
    )


def of_section(section: Section) -> Iterator[tuple[str, str]]:
    """The charts of a section: the name of each file, and what it has."""

    def of(works: Iterable[str], prefix: str = "") -> list[Panel]:
        known = {row.work for row in section.rows if row.median}
        return [bars(section, work, work.removeprefix(prefix)) for work in works if work in known]

    if section.name == "in_process":
        for prefix, name in (("WSGI on ASGI, uvloop, ", "wsgi_on_asgi"), ("ASGI on WSGI, ", "asgi_on_wsgi")):
            works = [work for work in section.works if work.startswith(prefix)]
            alone = [work for work in works if work.endswith(", 1 at once")]
            many = [work for work in works if work not in alone]
            order = [work for pair in zip(alone, many, strict=False) for work in pair]
            yield name, picture(f"{prefix.removesuffix(', ')}, in process", of(order, prefix))
    elif section.name == "through_servers":
        works = [work for work in section.works if work.endswith("50 at once")]
        yield "servers", picture("Through servers, load from wrk", of(works))
    elif section.name == "memory":
        works = [work for work in section.works if not work.endswith("rate")]
        yield "memory", picture("Growth of the server's memory, at its peak", of(works))
    elif section.name == "scaling":
        kinds = dict.fromkeys(work.rpartition(", ")[0] for work in section.works if work.endswith("exponent"))
        yield (
            "scaling",
            picture("Time over size: an exponent of 1 is linear", [curves(section, each) for each in kinds]),
        )


def write(sections: Iterable[Section]) -> None:
    """Draw what was measured."""
    CHARTS.mkdir(exist_ok=True)
    for section in sections:
        for name, text in of_section(section):
            (CHARTS / f"{name}.svg").write_text(text, "utf-8")
