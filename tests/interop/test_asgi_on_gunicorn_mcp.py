"""A real MCP server in FastAPI, answered through gunicorn's threads (PAINS B1, E5)."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.mcp_client import use
from support.servers import module, running

pytestmark = pytest.mark.interop


def test_mcp_tool_is_called_and_reports_progress(tmp_path: Path) -> None:
    """PAINS B1, E5: its session manager lives in the lifespan, and one request's events are another's answer."""
    pytest.importorskip("mcp")
    pytest.importorskip("gunicorn")

    def command(port: int) -> list[str]:
        return module(
            "gunicorn",
            "--no-control-socket",
            "--worker-class=gthread",
            "--threads=4",
            f"--bind=127.0.0.1:{port}",
            "interop.mcp_app:application",
        )

    with running(command, tmp_path) as server:
        assert use(f"http://127.0.0.1:{server.port}/mcp/") == [(["add"], {"result": 5}, [(1.0, 2.0)])] * 2
