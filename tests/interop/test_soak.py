"""A short soak of one server a direction: see ``soak/README.md``."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.servers import TESTS

SOAK = TESTS.parent / "soak" / "run.py"


@pytest.mark.interop
@pytest.mark.stress
@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the soak counts what it finds in /proc")
@pytest.mark.parametrize("server", ["uvicorn-h11", "gunicorn-gthread"])
def test_soak_finds_nothing_in_a_few_thousand_requests(server: str) -> None:
    """Nothing grows, hangs or is mixed up in a random mix of good and bad requests."""
    if importlib.util.find_spec(server.partition("-")[0]) is None:
        pytest.skip(f"{server} is not installed")
    # So many requests, however long they take: the seconds bound a machine that is very slow.
    command = [sys.executable, str(SOAK), server, "--requests", "2500", "--seconds", "120"]
    # A seed that fails is printed by the soak itself.
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=280, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.interop
@pytest.mark.stress
@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the soak counts what it finds in /proc")
@pytest.mark.parametrize("server", ["uvicorn-websockets", "gunicorn-websockets"])
def test_soak_finds_nothing_in_a_thousand_websockets(server: str) -> None:
    """The same of WebSockets: 200 clients at a time, many of them rude. Long runs are for ``make soak``."""
    for package in (server.partition("-")[0], "websockets"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    command = [sys.executable, str(SOAK), server, "--requests", "800", "--seconds", "60", "--quick"]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=280, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
