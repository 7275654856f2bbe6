"""How much memory a WSGI app under uvicorn takes to receive and to send 256 MiB: ours, others, and a native ASGI app.

Each contender serves each kind of work in a process of its own, which has answered a small request before. What is
printed is by how much the peak of its resident memory (``VmHWM``) grew, and how long the work took; what was received
is checked for its length. Needs Linux, for ``/proc``.

    python benchmarks/memory.py --peer DIRECTORY

DIRECTORY holds the package of 1.10.10, as ``pip install --target DIRECTORY a2wsgi==1.10.10`` leaves it.

A slow reader is one that takes nothing of a response for two seconds, and a slow app one that reads nothing of a body
for as long: whoever then has the 256 MiB in memory was not told to wait.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

LENGTH = 256 * 1024 * 1024
PIECE = bytes(64 * 1024)
PAUSE_SECONDS = 2.0
LIMIT_MIB = 16  # what ours may grow by
SECONDS = 120.0  # what anything may take


# -- The server's process -----------------------------------------------------------------------------------------


def new_piece() -> bytes:
    """Make a piece that takes memory of its own: a queue of one and the same object would look small."""
    return PIECE[1:] + b"\n"


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Send 256 MiB for a GET, and say how much was received for a POST."""
    if environ["REQUEST_METHOD"] == "GET":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return (new_piece() for _ in range(int(environ["QUERY_STRING"]) // len(PIECE)))
    if environ["QUERY_STRING"] == "slow":
        time.sleep(PAUSE_SECONDS)
    received = 0
    while piece := environ["wsgi.input"].read(len(PIECE)):
        received += len(piece)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(received).encode()]


async def native_app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Do the same as an ASGI app."""
    if scope["method"] == "GET":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(int(scope["query_string"]) // len(PIECE)):
            await send({"type": "http.response.body", "body": new_piece(), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    if scope["query_string"] == b"slow":
        await asyncio.sleep(PAUSE_SECONDS)
    received, more = 0, True
    while more:
        message = await receive()
        received += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(received).encode(), "more_body": False})


def serve(kind: str, port: int) -> None:
    """Serve until killed."""
    wsgi_app: Any = app  # each bridge has types of its own
    if kind == "native":
        asgi_app: Any = native_app
    elif kind == "uvicorn":
        from uvicorn.middleware.wsgi import _WSGIMiddleware

        asgi_app = _WSGIMiddleware(wsgi_app)
    else:
        from a2wsgi import WSGIMiddleware

        asgi_app = WSGIMiddleware(wsgi_app)
    uvicorn.run(asgi_app, port=port, lifespan="off", log_level="error")


# -- The client's process -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(kind: str, directory: str | None) -> Iterator[tuple[int, int]]:
    """A contender that has answered a small request: its process id and its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    environment = {**os.environ, **({"PYTHONPATH": directory} if directory else {})}
    command = [sys.executable, __file__, "--serve", kind, "--port", str(port)]
    process = subprocess.Popen(command, env=environment)  # noqa: S603 - this very program
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                download(port, len(PIECE), 0)
                upload(port, len(PIECE), "")
                break
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"The server of {kind} does not run.")
            time.sleep(0.05)
        yield process.pid, port
    finally:
        process.kill()
        process.wait()


def forget_peak(pid: int) -> None:
    """Begin anew: the peak is what the process has now. See proc(5), "clear_refs"."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pid: int) -> float:
    """The most memory that a process has had, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def download(port: int, length: int, pause: float) -> int:
    """Receive a response of this length; how long it was."""
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", f"/?{length}")
        time.sleep(pause)
        response = connection.getresponse()
        received = 0
        while piece := response.read(1024 * 1024):
            received += len(piece)
        return received


def upload(port: int, length: int, query: str) -> int:
    """Send a body of this length; how much of it the app says that it received."""
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    with contextlib.closing(connection):
        pieces = (PIECE for _ in range(length // len(PIECE)))
        connection.request("POST", f"/?{query}", pieces, {"Content-Length": str(length)})
        return int(connection.getresponse().read())


WORKS: dict[str, Callable[[int], int]] = {
    "256 MiB up": lambda port: upload(port, LENGTH, ""),
    "256 MiB up, slow app": lambda port: upload(port, LENGTH, "slow"),
    "256 MiB down": lambda port: download(port, LENGTH, 0),
    "256 MiB down, slow reader": lambda port: download(port, LENGTH, PAUSE_SECONDS),
}


def main() -> None:
    """Run everything, and fail if ours grew by more than it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", metavar="DIRECTORY", help="where 1.10.10 is")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.port)
        return
    contenders: dict[str, tuple[str, str | None]] = {"a2wsgi": ("a2wsgi", None)}
    if options.peer:
        contenders["a2wsgi 1.10.10"] = ("a2wsgi", str(Path(options.peer).resolve()))
    contenders["uvicorn's own"] = ("uvicorn", None)
    contenders["native ASGI app"] = ("native", None)
    too_much = False
    for title, work in WORKS.items():
        print(f"\n{title}")
        for name, (kind, directory) in contenders.items():
            with serving(kind, directory) as (pid, port):
                forget_peak(pid)
                before, begin = peak_mib(pid), time.monotonic()
                length = work(port)
                seconds, grown = time.monotonic() - begin, peak_mib(pid) - before
            wrong = "" if length == LENGTH else f"   FAILS: {length} bytes arrived"
            print(f"  {name:18} peak grew by {grown:6.1f} MiB   in {seconds:5.2f} s{wrong}", flush=True)
            too_much = too_much or (name == "a2wsgi" and (grown >= LIMIT_MIB or length != LENGTH))
    if too_much:
        sys.exit(f"a2wsgi grew by {LIMIT_MIB} MiB or more, or lost something.")


if __name__ == "__main__":
    main()
