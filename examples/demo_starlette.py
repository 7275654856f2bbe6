"""The demo's Starlette app, which has the Flask app of ``demo_flask.py`` mounted, through the bridge.

Nothing here knows of WSGI but the one line that mounts it.
"""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import demo_flask
import demo_stopping
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.templating import Jinja2Templates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

templates = Jinja2Templates(Path(__file__).with_name("demo_templates"))


async def index(request: Request) -> Response:
    """Link to everything."""
    return templates.TemplateResponse(request, "index.html")


async def native(_: Request) -> Response:
    """Say hello without the bridge."""
    return JSONResponse({"hello": "from Starlette", "thread": threading.current_thread().name})


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Begin when uvicorn has set up its handlers of signals, and runs this in the main thread."""
    demo_stopping.watch()
    yield


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", index),
        Route("/native", native),
        Mount("/flask", demo_flask.application),  # the one line that it takes
    ],
)
