"""What only gunicorn does: it loads the app, with its bridge, before it forks."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.client import Client
from support.servers import module, running

pytestmark = pytest.mark.interop

pytest.importorskip("django")
pytest.importorskip("flask")
pytest.importorskip("gunicorn.asgi")


def test_bridge_that_is_loaded_before_the_fork_serves_in_each_worker(tmp_path: Path) -> None:
    """Nothing of a bridge is started before its first request, so forked processes have all of it."""

    def command(port: int) -> list[str]:
        options = ["--worker-class=asgi", "--no-control-socket", "--preload", "--workers=2"]
        return module("gunicorn", *options, f"--bind=127.0.0.1:{port}", "interop.wsgi_apps:application")

    with running(command, tmp_path) as server:
        for _ in range(20):
            with Client(server.port) as client:
                assert client.get("/hello").body == b"Hello, world!"
                assert client.request("POST", "/data", body=[b"x" * 100_000]).json()["length"] == 100_000
