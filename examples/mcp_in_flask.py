"""An MCP server inside a Flask app, at /mcp/, with `chain`: one expression says what is around what.

gunicorn --threads 20 mcp_in_flask:application
"""

from flask import Flask
from mcp.server.mcpserver import Context, MCPServer
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from a2wsgi import ASGIMiddleware, chain

app = Flask(__name__)
server = MCPServer("calculator")


@app.get("/")
def hello() -> dict[str, str]:
    """Answer from Flask."""
    return {"hello": "from Flask"}


@server.tool()
async def add(a: int, b: int, context: Context) -> int:
    """Add two numbers, and say how far we are: that comes to the client at once."""
    await context.report_progress(1, 2)
    return a + b


tools = ASGIMiddleware(server.streamable_http_app(streamable_http_path="/"))
application = chain(
    app,
    (ProxyFix, (), {"x_for": 1, "x_proto": 1}),  # outermost: it serves both
    (DispatcherMiddleware, ({"/mcp": tools},), {}),
)
