"""What became of each target: one line a commit that was measured, and a chart of them.

python benchmarks/history.py

``results/history.json`` has an entry for each such commit, with the figure of every target that the run measured. `run`
adds one; a commit that is measured again has its entry renewed.
"""

from __future__ import annotations

import json
import math
import subprocess
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import charts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from report import Runs, Target

HERE = Path(__file__).parent
PATH = HERE / "results" / "history.json"
CHART = HERE.parent / "docs" / "benchmarks" / "history.svg"
TITLE = "How much of each target is reached: 1 is met, more is better"


def key_of(target: Target) -> str:
    """What a figure is called in the file."""
    others = " or ".join(target.others) or target.says
    return f"{target.work} | {target.ours} | {others} | {target.bound:g}"


def record(about: dict[str, Any], runs: Runs, targets: Iterable[Target]) -> None:
    """Write down what was measured of this commit, beside what is known of others."""
    figures = {}
    for target in targets:
        measured = target.measured(runs)
        if measured is not None:
            figures[key_of(target)] = float(f"{measured[0]:.3g}")
    entry = {
        "commit": _git("rev-parse", "--short", "HEAD"),
        "date": _git("log", "-1", "--format=%cs"),
        "release": about["releases"]["a2wsgi"],
        "python": about["machine"]["python"],
        "cpu": about["machine"]["cpu"],
        "figures": figures,
    }
    others = [one for one in entries() if one["commit"] != entry["commit"]]
    lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in [*others, entry])
    PATH.write_text(f"[\n{lines}\n]\n")


def entries() -> list[dict[str, Any]]:
    """What was written down, oldest first."""
    found: list[dict[str, Any]] = json.loads(PATH.read_text()) if PATH.exists() else []
    return found


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(HERE), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()  # noqa: S603 - git


def drawn(targets: Iterable[Target]) -> str:
    """A row for each target, and in it a dot for each commit: on the right of the line at 1 the target is met."""
    known = entries()
    rows: dict[str, list[tuple[int, float]]] = {}
    for target in targets:
        figures = [one["figures"].get(key_of(target)) for one in known]
        parts = [(place, target.part(figure)) for place, figure in enumerate(figures) if figure is not None]
        parts = [(place, part) for place, part in parts if 0 < part < math.inf]  # those that the axis has
        if parts:
            rows[", ".join(target.line({})[:2])] = parts
    left, right, top = math.ceil(6.2 * max(map(len, rows))), 400, 50
    bottom = top + 16 * len(rows)
    every = [part for parts in rows.values() for _, part in parts]
    across = charts.scale([*every, 1], left + 20, left + right)
    lines = [f'<text class="title" x="10" y="20">{TITLE}</text>']
    tick = '<text class="tick" text-anchor="middle" x="{:.1f}" y="{}">{:g}</text>'
    lines += [tick.format(across(part), top - 10, part) for part in charts.decades([*every, 1])]
    lines.append(f'<line class="one" x1="{across(1):.1f}" x2="{across(1):.1f}" y1="{top - 5}" y2="{bottom}"/>')
    for number, (name, parts) in enumerate(rows.items()):
        y = top + 16 * number + 8
        lines.append(f'<line class="grid" x1="{left + 10}" x2="{left + right + 10}" y1="{y}" y2="{y}"/>')
        lines.append(f'<text class="name small" x="{left}" y="{y + 4}">{escape(name, quote=False)}</text>')
        lines += [f'<circle cx="{across(part):.1f}" cy="{y}" r="4" fill="{colour(at, known)}"/>' for at, part in parts]
    for at, one in enumerate(known):
        y = bottom + 20 + 16 * at
        lines.append(f'<circle cx="{left + 20}" cy="{y}" r="4" fill="{colour(at, known)}"/>')
        text = escape(f"{one['commit']}, {one['date']}, {one['cpu']}", quote=False)
        lines.append(f'<text class="small" x="{left + 32}" y="{y + 4}">{text}</text>')
    wide, high = left + right + 30, bottom + 30 + 16 * len(known)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="a2c" viewBox="0 0 {wide} {high}" width="{wide}" role="img">'
    style = f"<style>{charts.STYLE}\n.a2c .small {{ font-size: 11px; }}\n.a2c .one {{ stroke: #666; }}</style>"
    ground = f'<rect width="{wide}" height="{high}" rx="8" fill="#fff"/>'
    return "\n".join([head, f"<title>{TITLE}</title>", style, ground, *lines, "</svg>", ""])


def colour(place: int, known: list[dict[str, Any]]) -> str:
    """The later a commit, the darker."""
    return f"hsl(200 65% {75 - 50 * (place + 1) // len(known)}%)"


def draw(targets: Iterable[Target]) -> None:
    """Draw it anew."""
    CHART.write_text(drawn(targets), "utf-8")


if __name__ == "__main__":
    from report import targets as every

    draw(every())
