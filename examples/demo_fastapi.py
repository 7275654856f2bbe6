"""The demo's FastAPI app.

Nothing here knows of WSGI: ``a2wsgi serve`` puts the bridge between it and its server.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from demo_stopping import stopping, watch
from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import HTMLResponse, StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>FastAPI on waitress</title>
<style>body { font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem }</style>
<h1>A FastAPI app on waitress</h1>
<p>waitress knows only WSGI. This page, and all below, is FastAPI's, through a2wsgi.</p>
<ul><li><a href="/hello">/hello</a>: what the app's lifespan has set up
<li><a href="/ticks">/ticks</a>: server-sent events, one a second
<li><a href="/later">/later</a>: a background task, after the response; what it did, the next time</ul>
<h2>Ticks</h2><pre id="ticks"></pre>
<script>
  new EventSource("/ticks").onmessage = event => { document.getElementById("ticks").textContent += event.data + "\\n" }
</script></html>"""

watch()  # now, in the main thread: on a WSGI server the lifespan runs in the loop's


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Start up once, before the first request."""
    yield {"started": time.strftime("%H:%M:%S"), "done": []}


app = FastAPI(lifespan=lifespan)


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """Link to the rest."""
    return PAGE


@app.get("/hello")
async def hello(request: Request) -> dict[str, str]:
    """Say what the lifespan has set up, and where this runs."""
    thread = threading.current_thread().name
    return {"hello": "from FastAPI", "thread": thread, "started": request.state.started}


@app.post("/upload")
async def upload(request: Request) -> dict[str, str | int]:
    """Take the checksum of the body while it comes in."""
    digest, length = hashlib.sha256(), 0
    async for chunk in request.stream():
        digest.update(chunk)
        length += len(chunk)
    return {"bytes": length, "sha256": digest.hexdigest()}


@app.get("/ticks")
async def ticks() -> StreamingResponse:
    """Send an event a second, until the client leaves."""

    async def events() -> AsyncIterator[str]:
        count = 0
        while not stopping.is_set():
            yield f"data: tick {count}\n\n"
            count += 1
            await asyncio.sleep(1)

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/later")
async def later(request: Request, tasks: BackgroundTasks) -> dict[str, list[str]]:
    """Answer, and work on: the client has its whole answer by then."""

    async def work() -> None:
        await asyncio.sleep(0.5)
        request.state.done.append(time.strftime("%H:%M:%S"))

    tasks.add_task(work)
    return {"done so far": list(request.state.done)}
