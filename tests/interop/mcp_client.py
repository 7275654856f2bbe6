"""The real client of MCP, which uses a calculator."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import pytest

SECONDS = 20.0

#: With a session and a stream of events that stays open, and without.
MODES = ["legacy", "auto"]


class Used(NamedTuple):
    """What a client got of a server."""

    tools: list[str]
    result: Any
    progress: list[tuple[float, float | None]]


async def _use(url: str, mode: str) -> Used:
    mcp = pytest.importorskip("mcp")
    progress: list[tuple[float, float | None]] = []

    async def report(done: float, total: float | None, _: str | None) -> None:
        progress.append((done, total))

    async with mcp.Client(url, mode=mode) as client:
        tools = await client.list_tools()
        result = await client.call_tool("add", {"a": 2, "b": 3}, progress_callback=report)
    return Used([tool.name for tool in tools.tools], result.structured_content, progress)


async def _use_in_all_ways(url: str, clients: int) -> list[Used]:
    return await asyncio.gather(*(_use(url, mode) for mode in MODES for _ in range(clients)))


def use(url: str, clients: int = 1) -> list[Used]:
    """List its tools, call one, and hear of its progress: in all modes at once, each by so many clients."""
    return asyncio.run(asyncio.wait_for(_use_in_all_ways(url, clients), SECONDS))
