"""An MCP server, mounted in FastAPI, under a bridge."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import fastapi
from mcp.server.mcpserver import Context, MCPServer

from a2wsgi._front.asgi_middleware import ASGIMiddleware

server = MCPServer("calculator")


@server.tool()
async def add(a: int, b: int, context: Context) -> int:
    """Add two numbers, and say so before."""
    await context.report_progress(1, 2)
    return a + b


tools = server.streamable_http_app(streamable_http_path="/")


@contextlib.asynccontextmanager
async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
    """Run the mounted app's: Starlette does not."""
    async with server.session_manager.run():
        yield


app = fastapi.FastAPI(lifespan=lifespan)
app.mount("/mcp", tools)
application = ASGIMiddleware(app)
