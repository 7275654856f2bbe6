"""Flask's ``async def`` views on the server's event loop, where they share one HTTP client.

uvicorn flask_async_views:app
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
from flask import Flask, request

import a2wsgi


class App(Flask):
    """Flask's own runs each ``async def`` view on a new event loop."""

    def async_to_sync(self, func: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:  # noqa: D102
        return a2wsgi.async_to_sync(func)


flask_app = App(__name__)
client = httpx.AsyncClient()  # one for the process: it keeps connections open


@flask_app.get("/")
async def fetch_three() -> list[int]:
    """Fetch three pages at once."""
    answers = await asyncio.gather(*(client.get(f"{request.host_url}page/{number}") for number in range(3)))
    return [len(answer.text) for answer in answers]


@flask_app.get("/page/<int:number>")
def page(number: int) -> str:
    """Answer from a sync view, which may wait for a coroutine as well."""
    return "x" * a2wsgi.run_in_loop(asyncio.sleep(0.01, number), timeout=5)


app = a2wsgi.WSGIMiddleware(flask_app)
