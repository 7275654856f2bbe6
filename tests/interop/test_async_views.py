"""Flask's and Django's async views on the server's loop, where they share one client; on real servers of both kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from interop.client import Client
from support.servers import Server, module, running, until

pytestmark = pytest.mark.interop

pytest.importorskip("django")
pytest.importorskip("flask")
pytest.importorskip("httpx")

#: By name: what is needed, the app, and the command line of each.
SERVERS: dict[str, tuple[str, str, Callable[[int], list[str]]]] = {
    "uvicorn": ("uvicorn", "app", lambda port: [f"--port={port}", "--loop=asyncio"]),
    "uvicorn-uvloop": ("uvicorn", "app", lambda port: [f"--port={port}", "--loop=uvloop"]),
    "hypercorn": ("hypercorn", "app", lambda port: ["--workers=0", f"--bind=127.0.0.1:{port}"]),
    "gunicorn-threads": (
        "gunicorn",
        "pair",
        lambda port: [f"--bind=127.0.0.1:{port}", "--threads=60", "--no-control-socket"],
    ),
    "waitress": ("waitress", "pair", lambda port: [f"--listen=127.0.0.1:{port}", "--threads=60"]),
}


@dataclass
class Served:
    """A server, and the directory through which its app tells of itself."""

    server: Server
    directory: Path
    waitress: bool
    django: bool

    def get(self, path: str) -> Any:
        """The JSON that a framework answers with."""
        with Client(self.server.port, seconds=60) as client:
            return client.get(path, self.fields).json()

    @property
    def fields(self) -> list[tuple[str, str]]:
        return [("X-Bridge", "django")] if self.django else []


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Path, bool]]:
    """A server of each kind. waitress is not asked whether its client has left: it does not know while an app runs."""
    package, app, arguments = SERVERS[request.param]
    pytest.importorskip(package)
    if "uvloop" in request.param:
        pytest.importorskip("uvloop")
    directory = tmp_path_factory.mktemp("async-views")

    def command(port: int) -> list[str]:
        return module(package, *arguments(port), f"interop.async_views:{app}")

    environment = {"A2WSGI_TEST_DIR": str(directory)}
    with running(command, directory, environment=environment, ready="/hello") as started:
        yield started, directory, package == "waitress"


@pytest.fixture(params=["flask", "django"])
def served(request: pytest.FixtureRequest, server: tuple[Server, Path, bool]) -> Served:
    """Each framework on it."""
    for name in ("begun", "cancelled", "cleaned-up"):
        (server[1] / name).unlink(missing_ok=True)
    return Served(*server, django=request.param == "django")


def test_hundreds_of_calls_share_one_client_and_one_loop(served: Served) -> None:
    """40 requests at a time, by async views and sync ones: neither a thread nor a task is left of them."""
    paths = ["/ask/5", "/run/5", *(["/class/5", "/wrapped/5"] if served.django else [])]
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(served.get, [paths[number % len(paths)] for number in range(80)]))
    assert [answer["answers"] for answer in answers] == [5] * 80
    if not served.django:
        assert {answer["bound"] for answer in answers} == {"of /ask/5", "of /run/5"}
    left = served.get("/left")
    assert left["loops"] == 1
    assert left["tasks"] == ["Call._run"]  # the one that looks
    own = {"MainThread", "a2wsgi-loop", "a2wsgi-worker"}
    of_the_server = {"ThreadPoolExecutor-0_", "waitress"}  # gunicorn's, and waitress's
    assert {name for name in left["threads"] if name not in own | of_the_server} == set()


def test_client_that_leaves_ends_the_view(served: Served) -> None:
    """The coroutine is cancelled where it waits, and Flask's async teardown still runs on the loop."""
    if served.waitress:
        pytest.skip("waitress does not tell its app that the client has left")
    with Client(served.server.port) as client:
        client.send_head("GET", "/wait", served.fields)
        until((served.directory / "begun").exists, "the view begins")
    until((served.directory / "cancelled").exists, "the view is cancelled", 30)
    if not served.django:
        until((served.directory / "cleaned-up").exists, "Flask's teardown runs")


def test_error_of_an_async_view_reaches_its_framework(served: Served) -> None:
    """Flask's async error handler gets it; Django answers 500."""
    if not served.django:
        assert served.get("/fail") == {"error": "of an async view"}
        return
    with Client(served.server.port) as client:
        assert client.get("/fail", served.fields).status == 500
