"""An MCP server inside a Django site, as a view at /mcp/: Django's middleware decides who may use it.

gunicorn --threads 20 mcp_in_django:application
"""

from typing import Any
from wsgiref.util import shift_path_info

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import re_path
from django.views.decorators.csrf import csrf_exempt
from mcp.server.mcpserver import MCPServer

from a2wsgi import ASGIMiddleware

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="for this example")  # noqa: S106
server = MCPServer("calculator")


@server.tool()
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


tools = ASGIMiddleware(server.streamable_http_app(streamable_http_path="/"))


@csrf_exempt
def mcp(request: HttpRequest, _: str) -> StreamingHttpResponse:
    """Pass the request on, and the response back as it comes."""
    shift_path_info(request.environ)  # from the path to the prefix: "/mcp"
    head: list[Any] = []
    body = tools(request.environ, lambda status, headers: head.extend((status, headers)))
    return StreamingHttpResponse(body, status=int(head[0][:3]), headers=dict(head[1]))


urlpatterns, application = [re_path("^mcp(/|$)", mcp)], get_wsgi_application()
