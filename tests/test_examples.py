"""The demo, run as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import START_SECONDS, Server, free_port, start, until

pytestmark = pytest.mark.interop

pytest.importorskip("flask")
pytest.importorskip("fastapi")
pytest.importorskip("jinja2")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("waitress")

DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo.py"
SECONDS = 10.0


@pytest.fixture
def demo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """The demo, on ports of its own, once it has said what to try. A parameter is run before it in its process."""
    port = free_port()
    command = [*getattr(request, "param", ()), sys.executable, str(DEMO)]
    server = start(command, tmp_path / "output", port=port, environment={"PORT": str(port)})
    until(lambda: "Ctrl-C stops both." in server.output(), "the demo says what to try", START_SECONDS)
    yield server
    server.stop()


def get(server: Server, path: str, body: bytes | None = None, content_type: str = "") -> bytes:
    """The body of the answer to a request, which is to be 200."""
    headers = {"Content-Type": content_type} if body else {}
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", body, headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as response:  # noqa: S310 - it is http
        answer: bytes = response.read()
        return answer


def test_demo_answers_on_both_sides_of_the_bridge(demo: Server) -> None:
    """What Starlette answers and what Flask answers come from one server."""
    assert json.loads(get(demo, "/native")) == {"hello": "from Starlette", "thread": "MainThread"}
    assert json.loads(get(demo, "/flask/hello")) == {"hello": "from Flask", "thread": "a2wsgi-worker-1"}


@pytest.mark.parametrize("path", ["/", "/compare", "/live", "/flask/", "/flask/upload", "/flask/events", "/flask/chat"])
def test_demo_shows_a_page(demo: Server, path: str) -> None:
    """Each page that the menu names is there, and is marked in it."""
    assert f'href="{path}" aria-current="page"' in get(demo, path).decode()


def test_demo_serves_fastapi_on_the_next_port(demo: Server) -> None:
    """The FastAPI app is there beside it, started up by its lifespan."""
    with urllib.request.urlopen(f"http://127.0.0.1:{demo.port + 1}/hello", timeout=SECONDS) as response:
        answer = json.load(response)
    assert (answer["hello"], answer["thread"]) == ("from FastAPI", "a2wsgi-loop")


def test_demo_links_both_directions(demo: Server, tmp_path: Path) -> None:
    """In a browser each direction has a link to the other, on the other's port, under the same look."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium")
    for port, other in ((demo.port, demo.port + 1), (demo.port + 1, demo.port)):
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / str(port)}"]
        page = subprocess.run(
            [browser, *options, "--timeout=3000", "--dump-dom", f"http://127.0.0.1:{port}/"],
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=True,
        ).stdout
        assert f'href="http://127.0.0.1:{other}/"' in page
        assert "color-scheme: light dark" in page


def test_demo_takes_the_checksum_of_an_upload(demo: Server) -> None:
    """A file of some megabytes is hashed as it comes in."""
    content = b"0123456789" * 500_000
    result = json.loads(get(demo, "/flask/upload", content, "application/octet-stream"))
    assert result == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_demo_ends_on_ctrl_c(demo: Server) -> None:
    """An open stream ends as well; the exit code is that of an interrupted program, and there is no traceback."""
    with urllib.request.urlopen(f"http://127.0.0.1:{demo.port}/flask/ticks", timeout=SECONDS) as ticks:
        assert ticks.readline().startswith(b"data: tick 0")
        demo.signal_group(signal.SIGINT)
        ticks.read()
    assert demo.wait() == 130
    output = demo.output()
    assert f"http://127.0.0.1:{demo.port}/" in output
    assert "Traceback" not in output
    assert output.endswith("Stopped.\n")


@pytest.mark.parametrize("demo", [["sh", "-c", 'trap "" INT; exec "$@"', "sh"]], indirect=True, ids=["ignoring"])
def test_demo_ends_when_it_was_started_in_the_background(demo: Server) -> None:
    """A shell has such a program ignore SIGINT, with which the demo ends its servers."""
    demo.signal(signal.SIGTERM)
    assert demo.wait() == 128 + signal.SIGTERM
    assert not demo.listens()


def test_demo_says_that_its_port_is_taken(demo: Server) -> None:
    """A second demo on the same port says so in one line."""
    second = subprocess.run(
        [sys.executable, str(DEMO)],
        env={**os.environ, "PORT": str(demo.port)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr.splitlines() == [
        f"Port {demo.port} of 127.0.0.1 is taken by another program. Choose another: PORT={demo.port + 10} make demo"
    ]


@pytest.mark.parametrize("port", ["abc", "0", "65535", "-1", ""])
def test_demo_refuses_an_impossible_port(port: str) -> None:
    """A port that does not exist, or leaves none for the second server, is one line and no traceback."""
    run = subprocess.run(
        [sys.executable, str(DEMO)],
        env={**os.environ, "PORT": port},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == f"PORT={port} is not a port. Choose a number from 1 to 65534: PORT=8010 make demo\n"
