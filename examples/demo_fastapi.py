"""The demo's FastAPI app.

Nothing here knows of WSGI: ``a2wsgi serve`` puts the bridge between it and its server.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo_history import memory
from demo_stopping import stopping, watch
from fastapi import BackgroundTasks, FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import Response, StreamingResponse
from fastapi.templating import Jinja2Templates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

templates = Jinja2Templates(Path(__file__).with_name("demo_templates"))
streams: set[object] = set()
room: set[WebSocket] = set()

watch()  # now, in the main thread: on a WSGI server the lifespan runs in the loop's


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Start up once, before the first request."""
    yield {"started": time.strftime("%H:%M:%S"), "done": []}


app = FastAPI(lifespan=lifespan)


def page(request: Request, name: str, *functions: Callable[..., Any], **facts: object) -> Response:
    """A page, with the source of what it shows."""
    source = "\n\n".join(inspect.getsource(function).rstrip() for function in functions)
    return templates.TemplateResponse(request, name, {"source": source, "fastapi": True, **facts})


@app.get("/")
async def home(request: Request) -> Response:
    """Link to the rest."""
    return page(request, "fastapi.html", lifespan, hello, later)


@app.get("/hello")
async def hello(request: Request) -> dict[str, str]:
    """Show what the lifespan has set up, and which thread this runs on."""
    thread = threading.current_thread().name
    return {"hello": "from FastAPI", "thread": thread, "started": request.state.started}


@app.get("/later")
async def later(request: Request, tasks: BackgroundTasks) -> dict[str, list[str]]:
    """Answer first and work afterwards: the client has its whole answer by then."""

    async def work() -> None:
        await asyncio.sleep(0.5)
        request.state.done.append(time.strftime("%H:%M:%S"))

    tasks.add_task(work)
    return {"done so far": list(request.state.done)}


@app.get("/events")
async def events(request: Request) -> Response:
    """Show the ticks as they come."""
    return page(request, "events.html", ticks)


@app.get("/ticks")
async def ticks() -> StreamingResponse:
    """Send an event a second, until the client leaves."""

    async def make() -> AsyncIterator[str]:
        me = object()
        streams.add(me)
        try:
            number = 0
            while not stopping.is_set():
                yield f"data: tick {number} at {time.strftime('%H:%M:%S')} from {threading.current_thread().name}\n\n"
                number += 1
                await asyncio.sleep(1)
        finally:
            streams.discard(me)

    return StreamingResponse(make(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@app.get("/streams")
async def open_streams() -> dict[str, int]:
    """Tell how many streams are open."""
    return {"streams": len(streams)}


@app.get("/memory")
async def figures() -> dict[str, int]:
    """Give this process's memory."""
    return {"memory": memory()}


@app.get("/upload")
async def upload_page(request: Request) -> Response:
    """Let the browser send a file."""
    return page(request, "upload.html", upload)


@app.post("/upload")
async def upload(request: Request) -> dict[str, str | int]:
    """Compute the checksum of the body while it arrives."""
    digest, length = hashlib.sha256(), 0
    async for chunk in request.stream():
        digest.update(chunk)
        length += len(chunk)
    return {"bytes": length, "sha256": digest.hexdigest()}


@app.get("/chat")
async def chat(request: Request) -> Response:
    """Let the browser talk."""
    return page(request, "chat.html", talk, socket="/talk", who="FastAPI, on the bridge's event loop")


@app.websocket("/talk")
async def talk(me: WebSocket) -> None:
    """Pass each message on to everybody in the room."""
    await me.accept()
    room.add(me)
    try:
        while True:
            message = await me.receive_text()
            for other in tuple(room):
                await other.send_text(message)
    except WebSocketDisconnect:
        pass
    finally:
        room.discard(me)
