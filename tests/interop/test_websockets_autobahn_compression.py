"""Autobahn's cases about compression, both directions, beside a bare ASGI app on uvicorn. They take minutes.

``make autobahn`` runs them: they are skipped unless ``A2WSGI_TEST_AUTOBAHN_ALL`` is set.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

pytest.importorskip("websockets")
pytest.importorskip("flask_sock")

from interop.autobahn import GOOD, run_cases
from interop.websocket_servers import KINDS
from support.servers import module, running

SECONDS = 3_600.0  # each; a few minutes on a machine that does nothing else
CASES = ["12.*", "13.*"]

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(2 * SECONDS + 60),
    pytest.mark.skipif("A2WSGI_TEST_AUTOBAHN_ALL" not in os.environ, reason="takes minutes: make autobahn"),
    pytest.mark.skipif(importlib.util.find_spec("kosoku") is None, reason="needs kosoku"),
]


def on_uvicorn(path: str, directory: Path) -> dict[str, tuple[str, str]]:
    """The results of an app in `websocket_wsgi_apps`."""

    def command(port: int) -> list[str]:
        return module("uvicorn", "--ws=websockets-sansio", f"--port={port}", "interop.websocket_wsgi_apps:application")

    environment = {"A2WSGI_TEST_DIR": str(directory)}
    with running(command, directory, environment=environment, ready="/ready") as server:
        return run_cases(f"ws://127.0.0.1:{server.port}{path}", CASES, SECONDS)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """What is found without us."""
    return on_uvicorn("/bare", tmp_path_factory.mktemp("bare"))


def compare(ours: dict[str, tuple[str, str]], bare: dict[str, tuple[str, str]]) -> None:
    """None is worse than without us."""
    assert len(ours) == len(bare) == 216
    worse = {case: (ours[case], bare[case]) for case in ours if ours[case][0] not in GOOD and bare[case][0] in GOOD}
    assert worse == {}


def test_fastapi_on_gunicorn_is_no_worse_than_without_us(bare: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    """We compress, and for once short messages, too.

    RFC 7692 §6 leaves that to the sender, but kosoku 0.1.0 cannot read one that is not compressed: "Strings must be
    encoded before hashing".
    """
    environment = {"A2WSGI_TEST_DIR": str(tmp_path), "A2WSGI_TEST_COMPRESS_ALL": "1"}
    command = KINDS["gunicorn-gthread"].command
    with running(lambda port: command(port, tmp_path), tmp_path, environment=environment, ready="/info") as server:
        ours = run_cases(f"ws://127.0.0.1:{server.port}/echo", CASES, SECONDS)
    compare(ours, bare)


def test_flask_sock_on_uvicorn_is_no_worse_than_without_us(bare: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    """Uvicorn compresses."""
    compare(on_uvicorn("/sock/echo", tmp_path), bare)
