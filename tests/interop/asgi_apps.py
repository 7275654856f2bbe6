"""What the WSGI servers serve: a FastAPI app and others, under a bridge.

What happens in the server's processes is told by files in the directory ``A2WSGI_TEST_DIR``: they are seen by a test
whatever the server's processes and threads, while a server with one thread is busy.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import fastapi
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from sse_starlette import EventSourceResponse
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware

from a2wsgi._front.asgi_middleware import ASGIMiddleware

DIRECTORY = Path(os.environ["A2WSGI_TEST_DIR"])
SECONDS = 10.0


def tell(name: str, text: str = "") -> None:
    """Write a line into a file of the test's."""
    with (DIRECTORY / name).open("a") as file:
        file.write(f"{text}\n")


async def told(name: str) -> bool:
    """Wait until the test has made a file; False if it never does."""
    for _ in range(int(SECONDS / 0.01)):
        if (DIRECTORY / name).exists():
            return True
        await anyio.sleep(0.01)  # a poll: the test is another process
    return False


@contextlib.asynccontextmanager
async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[dict[str, int]]:
    """Tell of start and stop, and give each request the process that was started."""
    tell("lifespan", f"startup {os.getpid()}")
    yield {"started_in": os.getpid()}
    await anyio.to_thread.run_sync(tell, "lifespan", f"shutdown {os.getpid()}")


app = fastapi.FastAPI(lifespan=lifespan)


@app.get("/json")
async def plain(request: fastapi.Request) -> dict[str, Any]:
    """Say whether the process that serves is the one that was started up."""
    return {"hello": "world", "started_here": request.state.started_in == os.getpid()}


@app.get("/sync")
def sync() -> dict[str, str]:
    """Answer from a thread of FastAPI's."""
    return {"hello": "from a thread"}


@app.get("/background/{name}")
async def background(name: str, tasks: fastapi.BackgroundTasks) -> dict[str, str]:
    """Work that goes on until the test has had the response."""

    async def work() -> None:
        if await told(f"{name}-received"):
            tell(f"{name}-done")

    tasks.add_task(work)
    return {"accepted": name}


@app.get("/nothing/{name}")
async def nothing(name: str, tasks: fastapi.BackgroundTasks) -> fastapi.Response:
    """The same with a response that has no body."""
    await background(name, tasks)
    return fastapi.Response(status_code=204, background=tasks)


@app.get("/error")
async def error() -> None:
    """Fail before the head."""
    raise ValueError("an error of the app's")


# -- The matrix: every kind of response under every kind of middleware ------------------------------------------------

PAYLOAD = b"0123456789" * 10_000
(DIRECTORY / "payload").write_bytes(PAYLOAD)


async def respond(request: fastapi.Request) -> fastapi.Response:
    """Answer with the length of what came, in the way that the path says."""
    length = 0
    async for piece in request.stream():
        length += len(piece)
    kind = request.path_params["kind"]
    headers = {"x-length": str(length)}
    if kind == "json":
        return JSONResponse({"payload": PAYLOAD.decode()}, headers=headers)
    if kind == "file":
        return FileResponse(DIRECTORY / "payload", headers=headers)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(PAYLOAD), 30_000):
            yield PAYLOAD[at : at + 30_000]

    async def sent_events() -> AsyncIterator[dict[str, str]]:
        async for piece in pieces():
            yield {"data": piece.decode()}

    if kind == "events":
        return EventSourceResponse(sent_events(), headers=headers)
    return StreamingResponse(pieces(), headers=headers, media_type="text/plain")


class Passing(BaseHTTPMiddleware):
    """Does nothing, in the way that has broken bridges most often."""

    async def dispatch(
        self, request: fastapi.Request, call_next: Callable[[fastapi.Request], Awaitable[fastapi.Response]]
    ) -> fastapi.Response:
        return await call_next(request)


def stacked(kind: str) -> fastapi.FastAPI:
    """The matrix's app under some middleware."""
    inner = fastapi.FastAPI()
    inner.add_api_route("/{kind}", respond, methods=["GET", "POST"], response_model=None)
    if kind == "gzip":
        inner.add_middleware(GZipMiddleware)
    else:
        for _ in range(int(kind)):
            inner.add_middleware(Passing)
    return inner


for name in ("0", "1", "3", "gzip"):
    app.mount(f"/matrix/{name}", stacked(name))

application = ASGIMiddleware(app, **json.loads(os.environ.get("A2WSGI_TEST_OPTIONS", "{}")))
