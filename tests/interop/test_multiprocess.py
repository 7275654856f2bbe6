"""``wsgi.multiprocess`` on real servers, with one process and with several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from interop.client import Client
from support.servers import module, running

pytestmark = pytest.mark.interop

APP = "interop.multiprocess_app:application"


@pytest.mark.parametrize(
    ("server", "options", "several"),
    [
        ("uvicorn", [], False),
        ("uvicorn", ["--loop=uvloop"], False),
        ("uvicorn", ["--workers=1"], False),
        ("uvicorn", ["--workers=2"], True),
        ("uvicorn", ["--reload"], False),
        ("hypercorn", [], False),
        ("hypercorn", ["--workers=0"], False),
        ("hypercorn", ["--workers=2"], True),
        ("hypercorn", ["--worker-class=uvloop"], False),
        ("hypercorn", ["--worker-class=trio"], False),
        ("hypercorn", ["--worker-class=trio", "--workers=2"], True),
        ("gunicorn", [], False),
        ("gunicorn", ["--workers=2"], True),
        ("gunicorn", ["--workers=2", "--preload"], True),
        ("daphne", [], True),  # which cannot be asked
    ],
)
def test_app_is_told_whether_there_are_several(server: str, options: list[str], several: bool, tmp_path: Path) -> None:
    """By each worker alike."""
    pytest.importorskip(server)
    for library in ("uvloop", "trio"):
        if any(library in option for option in options):
            pytest.importorskip(library)

    def command(port: int) -> Sequence[str]:
        where = {
            "uvicorn": [f"--port={port}"],
            "hypercorn": [f"--bind=127.0.0.1:{port}"],
            "gunicorn": ["--no-control-socket", "--worker-class=asgi", f"--bind=127.0.0.1:{port}"],
            "daphne": [f"--port={port}"],
        }
        return module(server, *where[server], *options, APP)

    with running(command, tmp_path) as running_server:
        for _ in range(6):
            with Client(running_server.port) as client:
                assert client.get("/").body == repr(several).encode()
