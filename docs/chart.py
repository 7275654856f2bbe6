"""Draws the chart of the README from a table of ``benchmarks/README.md``: ``python docs/chart.py``."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE.parent / "benchmarks" / "README.md"
CHART = HERE / "diagrams" / "requests.svg"

TITLE = "Flask “hello”, 50 clients at once: requests per second"
#: What the chart calls each row, in the order of the table.
NAMES = {
    "a2wsgi": "a2wsgi 2.0 on uvicorn",
    "a2wsgi 1.10.10": "a2wsgi 1.10.10 on uvicorn",
    "Starlette's": "Starlette's bridge on uvicorn",
    "uvicorn's": "uvicorn's bridge (unbounded memory)",
    "hypercorn's": "hypercorn's bridge on uvicorn",
    "gunicorn gthread": "no bridge: gunicorn, threads",
    "waitress": "no bridge: waitress",
    "granian": "no bridge: granian",
}
WIDTH, LEFT, ROW, TOP = 640, 250, 26, 40
STYLE = (
    "text { font: 13px system-ui, sans-serif; fill: #222; } .title { font-weight: 600; } "
    ".name { text-anchor: end; } .ours { font-weight: 600; }"
)


def figures() -> dict[str, int]:
    """The requests a second of each, from the table."""
    part = TABLE.read_text("utf-8").partition("**Flask hello, 50 at once**")[2].partition("**")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([\d,]+)", part, re.MULTILINE)
    return {name: int(figure.replace(",", "")) for name, figure in rows}


def draw() -> str:
    """The chart as an SVG, on a ground of its own, so that it can be read in the dark as well."""
    found = figures()
    most = max(found.values())
    high = TOP + ROW * len(NAMES) + 12
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high}" width="{WIDTH}" role="img">',
        f"<title>{escape(TITLE)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{high}" rx="8" fill="#fff"/>',
        f'<text class="title" x="16" y="24">{escape(TITLE)}</text>',
    ]
    for at, (row, name) in enumerate(sorted(NAMES.items(), key=lambda item: -found[item[0]])):
        y, wide = TOP + ROW * at, (WIDTH - LEFT - 70) * found[row] / most
        ours = row == "a2wsgi"
        lines.append(f'<text class="name{" ours" if ours else ""}" x="{LEFT - 8}" y="{y + 15}">{escape(name)}</text>')
        color = "#1f6f8b" if ours else "#c9ced3"
        lines.append(f'<rect x="{LEFT}" y="{y + 2}" width="{wide:.0f}" height="18" rx="2" fill="{color}"/>')
        lines.append(f'<text x="{LEFT + wide + 6:.0f}" y="{y + 15}">{found[row]:,}</text>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    CHART.write_text(draw(), "utf-8")
