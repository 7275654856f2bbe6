"""What the WSGI servers serve to `test_websockets_asgi_on_wsgi`: a FastAPI app under a bridge.

What the app is told is written into files of the directory ``A2WSGI_TEST_DIR``, as in `asgi_apps`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import threading
import time
from pathlib import Path
from typing import Any

import fastapi
from fastapi import WebSocket

from a2wsgi import ASGIMiddleware, WSGIMiddleware
from a2wsgi._protocol import deflate, frames

DIRECTORY = Path(os.environ["A2WSGI_TEST_DIR"])

logging.basicConfig(level=logging.INFO)

app = fastapi.FastAPI()


def tell(name: str, text: object = "") -> None:
    """Write a line into a file of the test's."""
    with (DIRECTORY / name).open("a") as file:
        file.write(f"{text}\n")


async def told(name: str) -> None:
    """Wait until the test has made a file."""
    while not (DIRECTORY / name).exists():  # noqa: ASYNC110 - the test is another process
        await asyncio.sleep(0.01)


@app.get("/info")
def info() -> dict[str, Any]:
    """Say what the process has."""
    statistics = application.statistics()
    return {
        "pid": os.getpid(),
        "threads": threading.active_count(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "websockets": statistics.websockets,
        "in_flight": statistics.in_flight,
    }


@app.get("/gc")
def collect() -> None:
    """Collect the garbage."""
    import gc

    gc.collect()


@app.get("/slow")
async def slow(name: str) -> str:
    """Answer when the test says so."""
    tell(f"{name}-waits")
    await told(name)
    return "done"


@app.get("/memory")
def memory() -> int:
    """How many KiB of the process are in memory, without garbage."""
    import gc

    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


@app.get("/fork")
def fork(name: str) -> int:
    """Have a child, which has copies of all descriptors, until the test says so or a minute is over."""
    child = os.fork()
    if child == 0:
        deadline = time.monotonic() + 60
        while not (DIRECTORY / name).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os._exit(0)
    return child


@app.websocket("/echo")
async def echo(ws: WebSocket, name: str = "echo") -> None:
    """Answer each message with itself, and tell of the end."""
    await ws.accept(subprotocol=(ws.scope["subprotocols"] or [None])[-1], headers=[(b"x-accepted", b"yes")])
    while True:
        message = await ws.receive()
        if message["type"] == "websocket.disconnect":
            tell(name, json.dumps([message["code"], message["reason"]]))
            return
        if message.get("text") is not None:
            await ws.send_text(message["text"])
        else:
            await ws.send_bytes(message["bytes"])


@app.websocket("/scope")
async def scope(ws: WebSocket) -> None:
    """Say what the scope has."""
    await ws.accept()
    shown = {key: ws.scope[key] for key in ("type", "scheme", "path", "subprotocols", "extensions", "http_version")}
    await ws.send_json({**shown, "has_method": "method" in ws.scope, "client": (ws.scope["client"] or [None])[0]})


@app.websocket("/close")
async def close(ws: WebSocket, name: str = "close") -> None:
    """End it."""
    await ws.accept()
    await ws.close(4001, "bye")
    tell(name, json.dumps(await ws.receive()))


@app.websocket("/return")
async def returns(ws: WebSocket) -> None:
    """Say nothing more."""
    await ws.accept()


@app.websocket("/crash")
async def crash(ws: WebSocket) -> None:
    """Fail."""
    await ws.accept()
    raise LookupError("the app crashed on purpose")


@app.websocket("/raise")
async def raises(ws: WebSocket) -> None:
    """Fail before the answer."""
    raise LookupError("the app failed on purpose")


@app.websocket("/exhausted")
async def exhausted(ws: WebSocket) -> None:
    """Accept when the process may open no more descriptors."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    # Lower than all open descriptors but the first three: another thread of the server may be about to close some.
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(lowest_free, 3), limits[1]))
    try:
        await ws.accept()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        tell("restored")


@app.websocket("/refuse")
async def refuse(ws: WebSocket) -> None:
    """Refuse."""
    await ws.close()


@app.websocket("/deny")
async def deny(ws: WebSocket) -> None:
    """Refuse with a response."""
    headers = {"WWW-Authenticate": "Basic", "X-More": "1"}
    await ws.send_denial_response(fastapi.Response("who are you?", 401, headers))


@app.websocket("/send")
async def sends(ws: WebSocket, count: int, size: int, name: str = "sent") -> None:
    """Send much, and tell how much was taken."""
    await ws.accept()
    try:
        for number in range(count):
            await ws.send_bytes(bytes(size))
            tell(name, number)
    except (OSError, fastapi.WebSocketDisconnect) as error:
        tell(f"{name}-failed", type(error).__name__)
        raise


@app.websocket("/late")
async def late(ws: WebSocket, name: str) -> None:
    """Take nothing before the test says so; then count."""
    await ws.accept()
    await told(f"{name}-go")
    while True:
        message = await ws.receive()
        if message["type"] == "websocket.disconnect":
            return
        tell(name, len(message.get("bytes") or message.get("text") or ""))


if "A2WSGI_TEST_COMPRESS_ALL" in os.environ:
    for module in (deflate, frames):
        vars(module)["MIN_DEFLATED_BYTES"] = 0

application = ASGIMiddleware(app, **json.loads(os.environ.get("A2WSGI_TEST_OPTIONS", "{}")))
#: For a server of ASGI. The inner bridge takes the outer one's socket over, so no worker is held.
on_asgi = WSGIMiddleware(application)
