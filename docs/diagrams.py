"""Draws the two sequence diagrams of ``docs/concepts.md``: ``python docs/diagrams.py``.

Each is an SVG that stands inside the page, so that its colours are those of the theme, light or dark. It is narrow, so
that it can be read on a phone.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

HERE = Path(__file__).parent / "diagrams"

WIDTH = 480
LANES = (52, 222, 412)  # where the three lifelines stand
LINE = 15  # from one line of text to the next
STYLE = """\
.a2d text { font: 12px var(--font-stack, sans-serif); fill: var(--color-foreground-primary, #222); }
.a2d .who { font-weight: 600; text-anchor: middle; }
.a2d .whose { fill: var(--color-foreground-secondary, #555); text-anchor: middle; }
.a2d .first { text-anchor: start; font-style: italic; }
.a2d .rule { stroke: var(--color-foreground-border, #999); }
.a2d .said { text-anchor: middle; }
.a2d .life { stroke: var(--color-foreground-border, #999); stroke-dasharray: 3 4; }
.a2d .arrow { stroke: var(--color-brand-primary, #0a4bff); stroke-width: 1.5; }
.a2d .left { stroke-dasharray: 5 3; }
.a2d .head { fill: var(--color-brand-primary, #0a4bff); }
.a2d .does { fill: var(--color-background-secondary, #f4f4f4); stroke: var(--color-foreground-border, #999); }"""


@dataclass(frozen=True)
class Arrow:
    """Something goes from one lane to another."""

    start: int
    end: int
    text: tuple[str, ...]
    dashed: bool = False


@dataclass(frozen=True)
class Box:
    """Something happens in a lane."""

    lane: int
    text: tuple[str, ...]


@dataclass(frozen=True)
class Break:
    """What follows may happen instead, at any moment."""

    text: str


@dataclass(frozen=True)
class Diagram:
    """One request.

    Attributes:
        name: The file's.
        title: Read out in place of the picture.
        lanes: Who has each lane, and whose thread that is.
        steps: In the order of time.
    """

    name: str
    title: str
    lanes: tuple[tuple[str, str], ...]
    steps: tuple[Arrow | Box | Break, ...]


WSGI_ON_ASGI = Diagram(
    "wsgi_on_asgi",
    "A request to a WSGI app on an ASGI server, step by step, with a lane for each thread",
    (("Client", ""), ("Loop thread", "the server's"), ("Worker thread", "a2wsgi's")),
    (
        Arrow(0, 1, ("headers, body",)),
        Box(1, ("scope → environ,", "holds up to 64 KiB of body")),
        Arrow(1, 2, ("environ",)),
        Box(2, ("app(environ, …)",)),
        Arrow(0, 1, ("rest of the body",)),
        Arrow(1, 2, ("read() gets it",)),
        Arrow(2, 1, ("status, headers, chunks",)),
        Arrow(1, 0, ("response",)),
        Box(2, ("waits while 64 KiB", "of chunks are queued")),
        Arrow(2, 1, ("last chunk",)),
        Arrow(1, 0, ("end of response",)),
        Box(2, ("close(), then free",)),
        Break("or, at any time:"),
        Arrow(0, 1, ("client leaves",), dashed=True),
        Arrow(1, 2, ("read and write raise", "ClientDisconnected"), dashed=True),
    ),
)

ASGI_ON_WSGI = Diagram(
    "asgi_on_wsgi",
    "A request to an ASGI app on a WSGI server, step by step, with a lane for each thread",
    (("Client", ""), ("Server thread", "the server's"), ("Loop thread", "a2wsgi's")),
    (
        Arrow(0, 1, ("headers, body",)),
        Box(1, ("environ → scope,", "reads up to 64 KiB of body")),
        Arrow(1, 2, ("scope",)),
        Box(2, ("await app(scope, …)",)),
        Arrow(2, 1, ("receive() asks for more",)),
        Arrow(0, 1, ("rest of the body",)),
        Arrow(1, 2, ("up to 64 KiB at a time",)),
        Arrow(2, 1, ("http.response.start",)),
        Box(1, ("start_response(),", "returns the iterable")),
        Arrow(2, 1, ("http.response.body",)),
        Arrow(1, 0, ("response",)),
        Box(2, ("send() waits while", "64 KiB are queued")),
        Arrow(1, 0, ("end of response",)),
        Box(1, ("close() waits for", "background tasks")),
        Break("or, at any time:"),
        Arrow(0, 1, ("client leaves",), dashed=True),
        Arrow(1, 2, ("http.disconnect,", "send() raises"), dashed=True),
    ),
)


def text(x: float, y: float, content: str, kind: str) -> str:
    """One line of text, centred."""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(content)}</text>'


def arrow(step: Arrow, top: float) -> tuple[list[str], float]:
    """An arrow with its text above it, and where the next step may begin."""
    start, end = LANES[step.start], LANES[step.end]
    y = top + LINE * len(step.text) + 5
    back = 7 if end > start else -7
    parts = [text((start + end) / 2, top + LINE * (at + 1) - 2, line, "said") for at, line in enumerate(step.text)]
    dashed = " left" if step.dashed else ""
    parts.append(f'<line class="arrow{dashed}" x1="{start}" y1="{y:g}" x2="{end - back}" y2="{y:g}"/>')
    parts.append(f'<path class="head" d="M{end},{y:g} l{-back},-4 v8 z"/>')
    return parts, y + 8


def box(step: Box, top: float) -> tuple[list[str], float]:
    """A box on a lifeline, and where the next step may begin."""
    x, high = LANES[step.lane], LINE * len(step.text) + 8
    wide = max(len(line) for line in step.text) * 6.3 + 12
    left = min(x - wide / 2, WIDTH - wide - 1)
    parts = [f'<rect class="does" x="{left:g}" y="{top + 4:g}" width="{wide:g}" height="{high}" rx="4"/>']
    parts += [text(left + wide / 2, top + LINE * (at + 1) + 4, line, "said") for at, line in enumerate(step.text)]
    return parts, top + high + 8


def rule(step: Break, top: float) -> tuple[list[str], float]:
    """A line across all lanes, with its text below it, and where the next step may begin."""
    line = f'<line class="rule" x1="8" y1="{top + 4:g}" x2="{WIDTH - 8}" y2="{top + 4:g}"/>'
    return [line, f'<text class="whose first" x="8" y="{top + 4 + LINE:g}">{escape(step.text)}</text>'], top + LINE + 8


def drawn(step: Arrow | Box | Break, top: float) -> tuple[list[str], float]:
    """A step, and where the next one may begin."""
    if isinstance(step, Arrow):
        return arrow(step, top)
    return box(step, top) if isinstance(step, Box) else rule(step, top)


def draw(diagram: Diagram) -> str:
    """The diagram as an SVG."""
    y = 44.0
    parts: list[str] = []
    for step in diagram.steps:
        more, y = drawn(step, y)
        parts += more
    heads = [
        line
        for x, (who, whose) in zip(LANES, diagram.lanes, strict=True)
        for line in (text(x, 14, who, "who"), text(x, 30, whose, "whose"))
    ]
    lives = [f'<line class="life" x1="{x}" y1="38" x2="{x}" y2="{y:g}"/>' for x in LANES]
    size = f'viewBox="0 0 {WIDTH} {y + 4:g}" width="{WIDTH}"'
    opening = f'<svg class="a2d" xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{diagram.title}">'
    return "\n".join([opening, f"<style>{STYLE}</style>", *heads, *lives, *parts, "</svg>", ""])


def main() -> None:
    """Write both."""
    HERE.mkdir(exist_ok=True)
    for diagram in (WSGI_ON_ASGI, ASGI_ON_WSGI):
        (HERE / f"{diagram.name}.svg").write_text(draw(diagram), "utf-8")


if __name__ == "__main__":
    main()
