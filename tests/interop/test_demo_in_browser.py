"""What the demo claims is seen in a real browser: each button of each page, in both directions."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.servers import START_SECONDS, Server, free_port, start, until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(150)]

for needed in ("fastapi", "flask", "jinja2", "starlette", "uvicorn", "waitress", "websockets"):
    pytest.importorskip(needed)
webdriver = pytest.importorskip("selenium.webdriver")
exceptions = pytest.importorskip("selenium.common.exceptions")
wait = pytest.importorskip("selenium.webdriver.support.wait")

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo.py"
#: Some buttons run for eight seconds by themselves.
SECONDS = 40.0
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync"]
PAGES = ["/", "/compare", "/live", "/flask/", "/flask/events", "/flask/upload", "/flask/chat"]
OTHER_PAGES = ["/", "/events", "/upload", "/chat"]
ALL_PAGES = [*((path, False) for path in PAGES), *((path, True) for path in OTHER_PAGES)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo, once it has said what to try."""
    port, output = free_port(), tmp_path_factory.mktemp("demo") / "output"
    server = start([sys.executable, str(DEMO)], output, port=port, environment={"PORT": str(port)})
    until(lambda: "Ctrl-C stops both." in server.output(), "the demo says what to try", START_SECONDS)
    yield server
    server.stop()
    assert "Traceback" not in server.output()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser without a window, with a profile of its own."""
    browser, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    directory = tmp_path_factory.mktemp("chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in [*FLAGS, f"--user-data-dir={directory / 'profile'}"]:
        options.add_argument(flag)
    own = {"HOME": str(directory), "TMPDIR": str(directory)}
    service = webdriver.ChromeService(executable_path=driver, env={**os.environ, **own})
    chromium = webdriver.Chrome(options=options, service=service)
    try:
        yield chromium
    finally:
        chromium.quit()


class Page:
    """A page of the demo."""

    def __init__(self, chromium: Any, port: int, path: str) -> None:
        self.chromium = chromium
        chromium.get(f"http://127.0.0.1:{port}{path}")

    def text(self, id_: str) -> str:
        """The text of an element."""
        return str(self.chromium.find_element("id", id_).text)

    def press(self, id_: str) -> None:
        """Press a button, by key: under the mouse it would have to stand still."""
        self.chromium.find_element("id", id_).send_keys(webdriver.Keys.ENTER)

    def once(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until something is seen."""
        waiting = wait.WebDriverWait(self.chromium, SECONDS, 0.05, [exceptions.StaleElementReferenceException])
        waiting.until(lambda _: condition(), what)

    def run(self, script: str) -> Any:
        """What a script returns."""
        return self.chromium.execute_script(script)

    def complaints(self) -> list[str]:
        """What went wrong, as the browser's console tells it."""
        return [entry["message"] for entry in self.chromium.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture
def visit(chromium: Any, demo: Server) -> Iterator[Callable[..., Page]]:
    """Opens a page of one direction or, with ``other``, of the other. The console has no complaints at the end."""
    pages: list[Page] = []

    def visit(path: str, *, other: bool = False) -> Page:
        pages.append(Page(chromium, demo.port + other, path))
        return pages[-1]

    yield visit
    assert [complaint for page in pages for complaint in page.complaints()] == []
    chromium.get("about:blank")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize(
    ("path", "other"), [*((path, False) for path in PAGES), *((path, True) for path in OTHER_PAGES)]
)
def test_page_fits_its_window_and_shows_its_source(visit: Any, path: str, other: bool, width: int) -> None:
    """On a phone, too; and it is marked in the menu, and links to the other direction."""
    page = visit(path, other=other)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == 390}
    page.chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert page.run("return document.documentElement.scrollWidth") <= width
    finally:
        page.chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert page.run("return document.querySelector('nav [aria-current]').pathname") == path
    port = page.run("return document.querySelector('.switch [data-port]').port")
    assert int(port) == int(page.run("return location.port")) + (-1 if other else 1)
    assert "def " in page.run("return document.querySelector('.source pre').textContent")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_follows_the_system_s_colours(visit: Any, scheme: str) -> None:
    """By one style sheet."""
    page = visit("/")
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    colour = page.run("return getComputedStyle(document.body).backgroundColor")
    page.chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert colour == {"light": "rgb(245, 246, 249)", "dark": "rgb(16, 18, 23)"}[scheme]


@pytest.mark.parametrize("other", [False, True], ids=["flask", "fastapi"])
def test_start_shows_what_the_servers_answer(visit: Any, other: bool) -> None:
    """As soon as the page is there."""
    page = visit("/", other=other)
    asked = "return [...document.querySelectorAll('[data-ask]')].map(place => place.className).join(' ')"
    page.once(lambda: page.run(asked) == "good good", "both have answered")


@pytest.mark.parametrize(("path", "other"), [("/flask/events", False), ("/events", True)], ids=["flask", "fastapi"])
def test_stream_is_closed_when_the_client_leaves(visit: Any, path: str, other: bool) -> None:
    """The page says after how many milliseconds, and one can come back."""
    page = visit(path, other=other)
    page.once(lambda: "tick 0" in page.text("ticks"), "the first event")
    page.once(lambda: "open" in page.text("told"), "the stream is counted")
    page.press("leave")
    page.once(lambda: " ms later." in page.text("told"), "the worker is free")
    assert int(page.text("told").split()[-3]) < 10_000
    page.press("leave")
    page.once(lambda: page.text("ticks").count("tick 0") == 2, "it has come back")


@pytest.mark.parametrize(("path", "other"), [("/flask/chat", False), ("/chat", True)], ids=["flask", "fastapi"])
def test_chat_comes_back(visit: Any, path: str, other: bool) -> None:
    """What is said is heard, over a WebSocket of the bridge."""
    page = visit(path, other=other)
    page.once(lambda: "Connected" in page.text("told"), "it is connected")
    assert "&" not in page.text("told")
    page.chromium.find_element("name", "text").send_keys("hello there", webdriver.Keys.ENTER)
    page.once(lambda: "hello there  (" in page.text("log"), "the message has come back")


@pytest.mark.parametrize(("path", "other"), [("/flask/upload", False), ("/upload", True)], ids=["flask", "fastapi"])
def test_upload_has_its_checksum(visit: Any, path: str, other: bool, tmp_path: Path) -> None:
    """A file of some megabytes, sent by the browser."""
    content = b"0123456789" * 300_000
    (tmp_path / "file.txt").write_bytes(content)
    page = visit(path, other=other)
    page.chromium.find_element("name", "file").send_keys(str(tmp_path / "file.txt"))
    page.chromium.find_element("css selector", "form button").send_keys(webdriver.Keys.ENTER)
    page.once(lambda: hashlib.sha256(content).hexdigest() in page.text("result"), "the checksum")
    assert str(len(content)) in page.text("result")


def test_large_upload_takes_no_memory_and_a_slow_one_no_worker(visit: Any) -> None:
    """A quarter of a gigabyte grows the process by a few megabytes; forty that trickle leave all workers free."""
    page = visit("/flask/upload")
    page.press("large")
    page.once(lambda: " after." in page.text("told-large"), "it was sent")
    before, after = map(int, re.findall(r"(\d+) MiB", page.text("told-large")))
    assert after - before < 32
    page.press("small")
    page.once(lambda: page.run("return document.querySelectorAll('.legend').length") >= 2, "the lines are drawn")
    page.once(lambda: "gave up" in page.text("told-small"), "they have given up")
    samples = page.run("return fetch('/last-minute').then(answer => answer.json())")
    arriving = [sample for sample in samples if sample["now in_flight"] >= 40]
    assert arriving
    assert max(sample["now busy"] for sample in arriving) < 10


def test_queue_is_seen_while_more_views_run_than_workers(visit: Any) -> None:
    """Of sixty, forty run and some wait; the last minute has them."""
    page = visit("/live")
    page.press("ask")
    page.once(lambda: "had answered" in page.text("told"), "all have answered")
    samples = page.run("return fetch('/last-minute').then(answer => answer.json())")
    assert max(sample["now busy"] for sample in samples) == 40
    assert max(sample["now queued"] for sample in samples) > 0
    assert {"now memory", "now workers", "now native", "now flask"} <= set(samples[-1])
    page.once(lambda: page.run("return document.querySelectorAll('polyline').length") == 6, "the lines are drawn")


def test_versions_are_compared(visit: Any) -> None:
    """Under 1.10.10 thirty slow views run ten at a time, and streams whose clients left keep their workers."""
    page = visit("/compare")
    if "Nothing to compare with" in page.run("return document.body.textContent"):
        pytest.skip("a2wsgi 1.10.10 is not beside this environment: `make demo` puts it there")
    page.press("slow")
    page.once(lambda: "All 30 had answered" in page.text("told"), "both have answered")
    before, now = (
        float(page.run(f"return document.querySelector('#told .{kind}').textContent").split()[0])
        for kind in ("bad", "good")
    )
    assert before > now
    assert before >= 6.0
    page.press("leave")
    page.once(lambda: "The next quick view" in page.text("told"), "the quick view has answered, or not")
    assert "had not answered after 10 s" in page.run("return document.querySelector('#told .bad').textContent")
    assert "answered after" in page.run("return document.querySelector('#told .good').textContent")
