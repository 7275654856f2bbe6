"""A real MCP server in FastAPI, answered through gunicorn's threads (PAINS B1, E5)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from support.servers import module, running

pytestmark = pytest.mark.interop


def test_mcp_tool_is_called_and_reports_progress(tmp_path: Path) -> None:
    """PAINS B1, E5: its session manager lives in the lifespan, and one request's events are another's answer."""
    mcp = pytest.importorskip("mcp")
    pytest.importorskip("gunicorn")

    async def use(url: str) -> tuple[list[str], Any, list[tuple[float, float | None]]]:
        reported: list[tuple[float, float | None]] = []

        async def report(progress: float, total: float | None, _: str | None) -> None:
            reported.append((progress, total))

        async with mcp.Client(url) as client:
            tools = await client.list_tools()
            result = await client.call_tool("add", {"a": 2, "b": 3}, progress_callback=report)
        return [tool.name for tool in tools.tools], result.structured_content, reported

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
        answer = asyncio.run(asyncio.wait_for(use(f"http://127.0.0.1:{server.port}/mcp/"), 20))
    assert answer == (["add"], {"result": 5}, [(1.0, 2.0)])
