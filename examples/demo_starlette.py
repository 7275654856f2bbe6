"""The demo's Starlette app, which has the Flask app of ``demo_flask.py`` mounted, through the bridge.

Nothing here knows of WSGI but the one line that mounts it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import demo_flask
import demo_stopping
from demo_clients import get, leave, seconds_of, trickle, upload
from demo_history import History, memory
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.templating import Jinja2Templates

import a2wsgi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

templates = Jinja2Templates(Path(__file__).with_name("demo_templates"))

#: Where this server listens, and the same app under a2wsgi 1.10.10; ``demo.py`` says so. The latter may be missing.
PORT, BEFORE = int(os.environ.get("DEMO_PORT", "0")), int(os.environ.get("DEMO_BEFORE_PORT", "0"))
PORTS = {"now": PORT, **({"before": BEFORE} if BEFORE else {})}
IS_BEFORE = not hasattr(a2wsgi, "chain")  # 1.10.10 itself

history = History(PORTS)


def page(request: Request, name: str, *functions: Callable[..., Any], **facts: object) -> Response:
    """A page, with the source of what it shows."""
    source = "\n\n".join(inspect.getsource(function).rstrip() for function in functions)
    return templates.TemplateResponse(request, name, {"source": source, "before": bool(BEFORE), **facts})


async def index(request: Request) -> Response:
    """Link to everything."""
    return page(request, "index.html", native, demo_flask.hello)


async def native(_: Request) -> Response:
    """Say hello without the bridge."""
    return JSONResponse({"hello": "from Starlette", "thread": threading.current_thread().name})


async def figures(_: Request) -> Response:
    """Give this process's memory, and what its bridge is doing."""
    busy = {} if IS_BEFORE else asdict(demo_flask.application.statistics())
    return JSONResponse({"memory": memory(), **busy})


async def compare(request: Request) -> Response:
    """Show both versions side by side."""
    return page(request, "compare.html", demo_flask.slow, demo_flask.ticks)


async def live(request: Request) -> Response:
    """Show the last minute."""
    return page(request, "live.html", demo_flask.slow, figures)


async def last_minute(_: Request) -> Response:
    """Give the last minute, for the lines."""
    return JSONResponse(list(history.samples))


# -- What the buttons do ----------------------------------------------------------------------------------------------


async def many_slow(port: int) -> float:
    """Ask for thirty slow views at once; how long until all have answered."""
    begin = time.monotonic()
    await asyncio.gather(*(get(port, "/flask/slow") for _ in range(30)))
    return time.monotonic() - begin


async def many_leave(port: int) -> float:
    """Have twelve clients open a stream and leave; then, how long a quick view takes."""
    await asyncio.gather(*(leave(port, "/flask/ticks?count=15") for _ in range(12)))
    await asyncio.sleep(1)
    return await seconds_of(port, "/flask/hello", 10)


async def race(request: Request) -> Response:
    """Do the same to both versions, at the same time."""
    run = {"slow": many_slow, "leave": many_leave}[request.query_params["what"]]
    seconds = await asyncio.gather(*map(run, PORTS.values()))
    return JSONResponse({which: round(each, 2) for which, each in zip(PORTS, seconds, strict=True)})


async def ask(_: Request) -> Response:
    """Ask for more slow views at once than there are workers."""
    begin = time.monotonic()
    await asyncio.gather(*(get(PORT, "/flask/slow") for _ in range(60)))
    return JSONResponse({"seconds": round(time.monotonic() - begin, 1)})


async def send_slowly(request: Request) -> Response:
    """Send one large upload, or begin forty small ones that never end."""
    begin = time.monotonic()
    if request.query_params["what"] == "large":
        await upload(PORT, "/flask/upload", megabytes=256, seconds=8)
    else:
        await asyncio.gather(*(trickle(PORT, "/flask/upload", seconds=6) for _ in range(40)))
    return JSONResponse({"seconds": round(time.monotonic() - begin, 1)})


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Begin when uvicorn has set up its handlers of signals, and runs this in the main thread."""
    demo_stopping.watch()
    task = asyncio.create_task(history.run()) if PORT else None
    yield
    if task is not None:
        task.cancel()


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", index),
        Route("/native", native),
        Route("/memory", figures),
        Route("/compare", compare),
        Route("/live", live),
        Route("/last-minute", last_minute),
        Route("/race", race, methods=["POST"]),
        Route("/ask", ask, methods=["POST"]),
        Route("/send", send_slowly, methods=["POST"]),
        Mount("/flask", demo_flask.application),  # the one line that it takes
    ],
)
