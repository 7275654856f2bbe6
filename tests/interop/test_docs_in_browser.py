"""The built documentation in a real browser: it fits a phone, and its search finds what readers look for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interop.browser import browsing
from support.servers import module, running, until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

for needed in ("furo", "myst_parser", "sphinx_copybutton"):
    pytest.importorskip(needed)

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(page.stem for page in DOCS.glob("*.md"))
SECONDS = 20.0

#: What scrolls sideways, code and tables aside: those may.
SCROLLING = """
return [...document.querySelectorAll("article *")].filter(element =>
    element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0
    && ["auto", "scroll"].includes(getComputedStyle(element).overflowX)
    && !element.matches("pre, .table-wrapper")).map(element => element.outerHTML.slice(0, 80))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the documentation is served."""
    directory = tmp_path_factory.mktemp("docs")
    built, doctrees = directory / "html", directory / "doctrees"
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-d", str(doctrees), str(DOCS), str(built)],
        check=True,
        timeout=200,
    )
    command = ("http.server", "--bind", "127.0.0.1", "--directory", str(built))
    with running(lambda port: module(*command, str(port)), directory) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser as wide as a phone."""
    with browsing(tmp_path_factory.mktemp("chromium")) as browser:
        phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        yield browser


def test_pages_fit_a_phone(chromium: Any, site: str) -> None:
    """No page is wider than 390 px, and nothing on it scrolls sideways but code and tables."""
    wide: dict[str, Any] = {}
    for page in PAGES:
        chromium.get(f"{site}/{page}.html")
        width = chromium.execute_script("return document.documentElement.scrollWidth")
        scrolling = chromium.execute_script(SCROLLING)
        if width > 390 or scrolling:
            wide[page] = (width, scrolling)
    assert wide == {}


def test_charts_are_panels_in_the_colours_of_the_theme(chromium: Any, site: str) -> None:
    """Every chart is there, no wider than the page, and its text is as light as the page's when it is dark."""
    chromium.get(f"{site}/benchmarks.html")
    colours = []
    for theme in ("light", "dark"):
        chromium.execute_script("document.body.dataset.theme = arguments[0]", theme)
        colours.append(
            chromium.execute_script(
                "return ['article p', 'figure.a2c svg .title'].map(selector =>"
                " { const style = getComputedStyle(document.querySelector(selector));"
                " return selector.includes('svg') ? style.fill : style.color })"
            )
        )
    assert [text == title for text, title in colours] == [True, True]
    assert colours[0] != colours[1]
    panels = chromium.execute_script(
        "return [...document.querySelectorAll('figure.a2c')].map(figure =>"
        " Math.max(...[...figure.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect().right)))"
    )
    assert len(panels) == DOCS.joinpath("benchmarks.md").read_text("utf-8").count("![") > 0
    assert max(panels) <= 390


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("spool", "reference.html"),
        ("nginx", "deploying.html"),
        ("QueuePool", "troubleshooting.html"),
        ("ClientDisconnected", "errors.html"),
    ],
)
def test_search_finds(chromium: Any, site: str, words: str, page: str) -> None:
    """A page that a reader of these words wants is among the first ten."""
    chromium.get(f"{site}/search.html?q={words}")

    def found() -> list[str]:
        links = chromium.execute_script("return [...document.querySelectorAll('#search-results a')].map(a => a.href)")
        return [str(link) for link in links]

    until(lambda: "Search finished" in chromium.find_element("id", "search-results").text, "the search ends", SECONDS)
    assert any(f"/{page}" in link for link in found()[:10]), found()
