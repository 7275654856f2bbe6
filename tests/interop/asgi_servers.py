"""The ASGI servers that the tests know, and how each is started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from support.servers import module

APPLICATION = "interop.wsgi_apps:application"


class ASGIServer(NamedTuple):
    """An ASGI server."""

    packages: Sequence[str]
    """What must be installed."""
    command: Callable[[int], Sequence[str]]
    """Its command line, given the port."""


def uvicorn(*arguments: str) -> Callable[[int], Sequence[str]]:
    """The command line of uvicorn with these arguments."""
    return lambda port: module("uvicorn", APPLICATION, f"--port={port}", *arguments)


ASGI_SERVERS = {
    "uvicorn-h11": ASGIServer(["uvicorn"], uvicorn("--http=h11", "--loop=asyncio")),
    "uvicorn-httptools": ASGIServer(["uvicorn", "httptools", "uvloop"], uvicorn("--http=httptools", "--loop=uvloop")),
    # Without a worker process: with one, its parent goes on listening until the worker has ended.
    "hypercorn": ASGIServer(
        ["hypercorn"], lambda port: module("hypercorn", "--workers=0", f"--bind=127.0.0.1:{port}", APPLICATION)
    ),
    "granian": ASGIServer(
        ["granian"], lambda port: module("granian", "--interface=asgi", f"--port={port}", APPLICATION)
    ),
    "daphne": ASGIServer(["daphne"], lambda port: module("daphne", f"--port={port}", APPLICATION)),
    # The worker for ASGI came with gunicorn 24.
    "gunicorn": ASGIServer(
        ["gunicorn", "gunicorn.asgi"],
        lambda port: module(
            "gunicorn", "--worker-class=asgi", "--no-control-socket", f"--bind=127.0.0.1:{port}", APPLICATION
        ),
    ),
}
