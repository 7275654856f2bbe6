"""The demo: both directions, to look at in a browser. ``make demo`` runs it; Ctrl-C ends it.

uvicorn serves a Starlette app, and a Flask app through the bridge; on the next port waitress serves a FastAPI app
through the other. The Flask app is in ``demo_flask.py``, with its pages in ``demo_templates``, the FastAPI app in
``demo_fastapi.py``. The environment variable ``PORT`` chooses other ports.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import demo_fastapi
import demo_flask
import uvicorn
import waitress
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.templating import Jinja2Templates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

HOST = "127.0.0.1"
PORT = int(os.environ.get("PORT", "8000"))

WHAT_TO_TRY = """
  A Flask app on uvicorn, through the bridge:   http://{address}/

    curl http://{address}/flask/hello                      Flask, on a worker thread
    curl http://{address}/native                           Starlette, on the event loop's thread
    curl -N http://{address}/flask/ticks                   server-sent events, one a second
    curl -F file=@README.md http://{address}/flask/upload  a checksum, taken while the file comes in
    curl http://{address}/flask/figures                    what the bridge is doing

  A FastAPI app on waitress, through the other:  http://{wsgi_address}/

    curl http://{wsgi_address}/hello                            FastAPI, with what its lifespan has set up
    curl -N http://{wsgi_address}/ticks                         server-sent events, one a second
    curl -T README.md -X POST http://{wsgi_address}/upload      a checksum, taken while the file comes in
    curl http://{wsgi_address}/later                            a background task, after the response

  Ctrl-C stops both.
"""


# -- A WSGI app on an ASGI server ---------------------------------------------------------------------------------

templates = Jinja2Templates(Path(__file__).with_name("demo_templates"))


async def index(request: Request) -> Response:
    """Link to everything."""
    return templates.TemplateResponse(request, "index.html")


async def native(_: Request) -> Response:
    """Say hello without the bridge."""
    return JSONResponse({"hello": "from Starlette", "thread": threading.current_thread().name})


asgi_app = Starlette(
    routes=[
        Route("/", index),
        Route("/native", native),
        Mount("/flask", demo_flask.application),  # the one line that it takes
    ]
)


class Server(uvicorn.Server):
    """uvicorn, which says when it is ready, and ends streams that have no end before it waits for them."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        print(WHAT_TO_TRY.format(address=f"{HOST}:{PORT}", wsgi_address=f"{HOST}:{PORT + 1}"), flush=True)

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ANN401 - as in uvicorn
        """Begin to stop, on Ctrl-C."""
        demo_flask.stopping.set()
        demo_fastapi.stopping.set()
        super().handle_exit(sig, frame)


def no_cancellation(record: logging.LogRecord) -> bool:
    """Tell whether a record is of anything but a request that Ctrl-C cut short, which is no error."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def serve_asgi(listener: socket.socket) -> None:
    """Serve until Ctrl-C."""
    config = uvicorn.Config(asgi_app, log_level="warning", timeout_graceful_shutdown=3)
    logging.getLogger("uvicorn.error").addFilter(no_cancellation)
    Server(config).run(sockets=[listener])


# -- An ASGI app on a WSGI server ---------------------------------------------------------------------------------


@contextlib.contextmanager
def serving_wsgi(listener: socket.socket) -> Iterator[None]:
    """Serve beside the caller."""
    server = waitress.create_server(demo_fastapi.application, sockets=[listener])
    threading.Thread(target=server.run, name="waitress", daemon=True).start()
    try:
        yield
    finally:
        server.task_dispatcher.shutdown()  # what runs may end
        demo_fastapi.application.close()  # the lifespan shuts down


# -- Both ---------------------------------------------------------------------------------------------------------


def listen(port: int) -> socket.socket:
    """Take a port, or end with one line that says why not."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        reason = (
            "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        )
        sys.exit(f"Port {port} of {HOST} {reason}. Choose another: PORT={port + 10} make demo")
    return listener


def main() -> None:
    """Run the demo."""
    with listen(PORT) as asgi_listener, listen(PORT + 1) as wsgi_listener, serving_wsgi(wsgi_listener):
        serve_asgi(asgi_listener)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # uvicorn has stopped in good order, and passes Ctrl-C on
        print("\nStopped.")
        sys.exit(128 + signal.SIGINT)
