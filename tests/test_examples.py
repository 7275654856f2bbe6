"""The demo, run as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os
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
def demo(tmp_path: Path) -> Iterator[Server]:
    """The demo, on ports of its own, once it has said what to try."""
    port = free_port()
    server = start([sys.executable, str(DEMO)], tmp_path / "output", port=port, environment={"PORT": str(port)})
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


@pytest.mark.parametrize("path", ["/", "/flask/", "/flask/upload", "/flask/events", "/flask/statistics"])
def test_demo_shows_a_page(demo: Server, path: str) -> None:
    """Each page that the menu names is there, and is marked in it."""
    assert f'href="{path}" aria-current="page"' in get(demo, path).decode()


def test_demo_serves_fastapi_on_the_next_port(demo: Server) -> None:
    """The FastAPI app is there beside it, started up by its lifespan."""
    with urllib.request.urlopen(f"http://127.0.0.1:{demo.port + 1}/hello", timeout=SECONDS) as response:
        answer = json.load(response)
    assert (answer["hello"], answer["thread"]) == ("from FastAPI", "a2wsgi-loop")


def test_demo_takes_the_checksum_of_an_upload(demo: Server) -> None:
    """A file of some megabytes is hashed as it comes in."""
    content = b"0123456789" * 500_000
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f.txt"\r\n\r\n%b\r\n--b--\r\n' % content
    result = json.loads(get(demo, "/flask/upload", form, "multipart/form-data; boundary=b"))
    assert (result["name"], result["bytes"]) == ("f.txt", len(content))
    assert result["sha256"] == hashlib.sha256(content).hexdigest()


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
