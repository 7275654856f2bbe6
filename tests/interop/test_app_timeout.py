"""``app_timeout`` on real servers: apps that hang for ever cost their clients a 504, and nobody else anything."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from interop.client import Client
from support.servers import Server, module, running

pytestmark = pytest.mark.interop

#: By name: the app, how many requests hang, and the command line.
SERVERS: dict[str, tuple[str, int, Callable[[int], list[str]]]] = {
    "uvicorn": ("wsgi_on_asgi", 40, lambda port: [f"--port={port}"]),
    "hypercorn": ("wsgi_on_asgi", 40, lambda port: ["--workers=0", f"--bind=127.0.0.1:{port}"]),
    "gunicorn": ("asgi_on_wsgi", 8, lambda port: [f"--bind=127.0.0.1:{port}", "--threads=8", "--no-control-socket"]),
    "waitress": ("asgi_on_wsgi", 4, lambda port: [f"--listen=127.0.0.1:{port}"]),
}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    """Each server, and how many requests it has hang at once."""
    pytest.importorskip(request.param)
    app, hanging, arguments = SERVERS[request.param]

    def command(port: int) -> list[str]:
        return module(request.param, *arguments(port), f"interop.hanging_apps:{app}")

    with running(command, tmp_path_factory.mktemp("server")) as started:
        yield started, hanging


def status_of(server: Server, path: str) -> int:
    """The status of the answer to ``GET path``."""
    with Client(server.port, seconds=60) as client:
        return client.get(path).status


def test_apps_that_hang_hold_nobody_back(server: tuple[Server, int]) -> None:
    """With as many of them as there are threads, the health check answers; each has one record with where it hangs."""
    served, hanging = server
    with ThreadPoolExecutor(hanging) as pool:
        assert set(pool.map(lambda _: status_of(served, "/hang"), range(hanging))) == {504}
    with Client(served.port, seconds=60) as client:
        answers = [client.get("/health") for _ in range(3)]
    assert [one.status for one in answers] == [200] * 3
    assert {number for one in answers for number in one.body.split()} == {str(hanging).encode()}
    output = served.output()
    assert output.count("has not begun its response within app_timeout=0.5 s.") == hanging
    assert output.count("hanging_apps.py") == hanging
    served.signal(signal.SIGTERM)
    served.wait()  # what hangs does not keep the server from its end
