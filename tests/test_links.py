"""Every link that stays inside the repository leads to a file that is there, and to a heading that it has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = (".", "docs", "changelog.d", "benchmarks", "ecosystem", "fuzz", "soak", ".github")
PAGES = [page for folder in FOLDERS for page in sorted((ROOT / folder).glob("*.md"))]
HERE = re.compile(
    r"https://(?:raw\.githubusercontent\.com/abersheeran/a2wsgi|github\.com/abersheeran/a2wsgi/(?:blob|tree))/HEAD/"
)


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Each link of a page that leads to a file of the repository: the file, and the heading or nothing."""
    text = re.sub(r"^```.*?^```$|`[^`\n]+`", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target = HERE.sub("/", link)
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        start = ROOT if target.startswith("/") else page.parent
        yield (start / path.lstrip("/") if path else page).resolve(), heading


def headings(page: Path) -> set[str]:
    """What can follow a ``#``: the headings as GitHub and Sphinx write them, and the marks of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = [title.lower() for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in titles} | set(
        re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    """To a file or a folder; and if a heading is named, to one."""
    found = list(links(page))
    assert [str(path) for path, _ in found if not path.exists()] == []
    named = [(path, heading) for path, heading in found if heading and path.suffix == ".md"]
    assert [(path.name, heading) for path, heading in named if heading not in headings(path)] == []
