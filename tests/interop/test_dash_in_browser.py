"""A Dash app under a bridge does in a real browser what it does elsewhere, at the root and where it is mounted."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.servers import Server, module, running

pytestmark = pytest.mark.interop

pytest.importorskip("dash")
pytest.importorskip("fastapi")
pytest.importorskip("httptools")
webdriver = pytest.importorskip("selenium.webdriver")
exceptions = pytest.importorskip("selenium.common.exceptions")
wait = pytest.importorskip("selenium.webdriver.support.wait")

SECONDS = 15.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A uvicorn with the app in three places."""

    def command(port: int) -> list[str]:
        return module("uvicorn", "--http=httptools", f"--port={port}", "interop.frameworks.wsgi_dash:application")

    with running(command, tmp_path_factory.mktemp("server")) as server:
        yield server


class Page:
    """The app's page in the browser."""

    def __init__(self, chromium: Any, url: str) -> None:
        self.chromium = chromium
        self.url = url
        chromium.get(url)

    def __getitem__(self, id_: str) -> Any:
        """The element of this id, once it is there."""
        return self._once(lambda: self.chromium.find_element("id", id_), f"there is no {id_!r}")

    def press(self, id_: str) -> None:
        """Press a button or a link, by key: under the mouse it would have to stand still."""
        self[id_].send_keys(webdriver.Keys.ENTER)

    def shows(self, id_: str, text: str) -> None:
        """Wait until an element has this text."""
        try:
            self._once(lambda: self[id_].text == text, "")
        except exceptions.TimeoutException as error:
            shown, complaints = self[id_].text, self.complaints()
            raise AssertionError(f"{id_!r} shows {shown!r}, not {text!r}; complaints: {complaints}") from error

    def complaints(self) -> list[str]:
        """What went wrong, as the browser's console tells it, since this was asked last."""
        return [entry["message"] for entry in self.chromium.get_log("browser") if entry["level"] == "SEVERE"]

    def complains(self, *texts: str) -> None:
        """Wait until the console has told of each of these, and of nothing else. It may be late with that."""
        told: list[str] = []

        def all_told() -> bool:
            told.extend(self.complaints())
            return all(any(text in complaint for complaint in told) for text in texts)

        self._once(all_told, f"the console has not told of {texts}")
        assert len(told) == len(texts), told

    def _once(self, condition: Callable[[], Any], message: str) -> Any:
        ignored = [exceptions.NoSuchElementException, exceptions.StaleElementReferenceException]
        waiting = wait.WebDriverWait(self.chromium, SECONDS, 0.02, ignored)
        return waiting.until(lambda _: condition(), message)


@pytest.fixture(params=["/", "/base/", "/api/v1/"], ids=["root", "starlette", "fastapi"])
def page(request: pytest.FixtureRequest, server: Server, chromium: Any) -> Iterator[Page]:
    """The app where it is mounted. At the end the browser's console has no complaints but those that were asked for."""
    chromium.get("about:blank")
    chromium.delete_all_cookies()
    page = Page(chromium, f"http://127.0.0.1:{server.port}{request.param}")
    yield page
    assert page.complaints() == []


def test_callback_answers_what_is_typed(page: Page) -> None:
    """Each change of a value is one request, and its answer ten more at once."""
    page.shows("greeting", "Hello, nobody!")
    for number in range(10):
        page.shows(f"fan-{number}", f"{number}: Hello, nobody!")
    page["name"].send_keys(*[webdriver.Keys.BACKSPACE] * len("nobody"), "Zoë")
    page.shows("greeting", "Hello, Zoë!")
    for number in range(10):
        page.shows(f"fan-{number}", f"{number}: Hello, Zoë!")


def test_link_leads_to_a_page_under_the_prefix(page: Page) -> None:
    """So it does when that page is loaded by itself. The session is kept."""
    page.shows("greeting", "Hello, nobody!")
    page.press("about")
    page.shows("page", "page 'about' for nobody")
    assert page.chromium.current_url == f"{page.url}about"
    page.chromium.refresh()
    page.shows("page", "page 'about' for nobody")


def test_upload_arrives(page: Page, tmp_path: Path) -> None:
    """A file of 1.5 MB, in a callback."""
    file = tmp_path / "file.bin"
    file.write_bytes(random.Random(8).randbytes(1_500_000))
    page["upload"].find_element("css selector", "input[type=file]").send_keys(str(file))
    page.shows("uploaded", hashlib.sha256(file.read_bytes()).hexdigest())


def test_callback_that_fails_is_answered_500(page: Page) -> None:
    """The browser hears of it, and the next callback is answered."""
    page.shows("failed", "clicked 0 times")
    page.press("fail")
    page.complains("500 (Internal Server Error)", "dash_renderer")  # the browser and Dash, each of the same answer
    page.press("fail")
    page.shows("failed", "clicked 2 times")
