"""The demo: both directions, to look at in a browser. ``make demo`` runs it; Ctrl-C ends it.

It runs ``a2wsgi serve`` twice: for the Starlette app of ``demo_starlette.py`` on uvicorn, which has a Flask app mounted
through the bridge; and for the FastAPI app of ``demo_fastapi.py`` on waitress, through the other bridge. The
environment variable ``PORT`` chooses other ports.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HOST = "127.0.0.1"
PORT = int(os.environ.get("PORT", "8000"))
SERVE = [
    f"demo_starlette.py:app --server uvicorn --port {PORT} -- --log-level warning",
    f"demo_fastapi.py:app --server waitress --port {PORT + 1}",
]

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


def answers(port: int) -> bool:
    """Tell whether anybody listens on a port."""
    with socket.socket() as client:
        return client.connect_ex((HOST, port)) == 0


def start(words: str) -> subprocess.Popen[bytes]:
    """Run ``a2wsgi serve``."""
    command = [sys.executable, "-m", "a2wsgi", "serve", *words.split()]
    return subprocess.Popen(command, cwd=Path(__file__).parent)  # noqa: S603 - our own words


def run(servers: list[subprocess.Popen[bytes]]) -> int:
    """Say what to try once both serve, and wait until one ends. It has said why."""
    told = False
    while all(server.poll() is None for server in servers):
        if not told and answers(PORT) and answers(PORT + 1):
            print(WHAT_TO_TRY.format(address=f"{HOST}:{PORT}", wsgi_address=f"{HOST}:{PORT + 1}"), flush=True)
            told = True
        time.sleep(0.2)
    return 1


def main() -> int | str:
    """Run the demo; what to exit with."""
    for port in (PORT, PORT + 1):
        if answers(port):
            return f"Port {port} of {HOST} is taken by another program. Choose another: PORT={port + 10} make demo"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that it ends them, too
    servers = [start(words) for words in SERVE]
    try:
        return run(servers)
    except KeyboardInterrupt:  # a terminal sends Ctrl-C to them as well
        for server in servers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(3)
        print("\nStopped.")
        return 128 + signal.SIGINT
    finally:
        for server in servers:
            server.send_signal(signal.SIGINT)
        for server in servers:
            server.wait()


if __name__ == "__main__":
    sys.exit(main())
