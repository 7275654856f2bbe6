"""The demo: both directions, to look at in a browser. ``make demo`` runs it; Ctrl-C ends it.

It runs ``a2wsgi serve`` twice. On uvicorn it serves the Starlette app of ``demo_starlette.py``, which mounts a Flask
app through one bridge. On waitress it serves the FastAPI app of ``demo_fastapi.py`` through the other. Set the
environment variable ``PORT`` to use other ports.

To compare, the first app also runs under a2wsgi 1.10.10, if ``make demo`` has put that beside the environment.
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
SERVE = [
    "demo_starlette.py:app --server uvicorn --port {port} -- --log-level warning",
    "demo_fastapi.py:app --server waitress --port {wsgi_port} --threads 12",
]
#: Where pip has put a2wsgi 1.10.10, which has our name.
BEFORE = Path(sys.prefix) / "a2wsgi-1.10.10"

WHAT_TO_TRY = """
  A Flask app on uvicorn, through the bridge:   http://{address}/

    curl http://{address}/flask/hello                       Flask, on a worker thread
    curl http://{address}/native                            Starlette, on the event loop's thread
    curl -N http://{address}/flask/ticks                    server-sent events, one a second
    curl -T README.md -X POST http://{address}/flask/upload  its checksum, computed while it arrives
    curl http://{address}/memory                            what the bridge is doing now

  A FastAPI app on waitress, through the other:  http://{wsgi_address}/

    curl http://{wsgi_address}/hello                            FastAPI, with state from its lifespan
    curl -N http://{wsgi_address}/ticks                         server-sent events, one a second
    curl -T README.md -X POST http://{wsgi_address}/upload      its checksum, computed while it arrives
    curl http://{wsgi_address}/later                            a background task, after the response

  Ctrl-C stops both.
"""


def answers(port: int) -> bool:
    """Tell whether anybody listens on a port."""
    with socket.socket() as client:
        return client.connect_ex((HOST, port)) == 0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def start(port: int) -> list[subprocess.Popen[bytes]]:
    """Run ``a2wsgi serve`` twice, and uvicorn with a2wsgi 1.10.10 if that is there."""
    environment = {**os.environ, "DEMO_PORT": str(port)}
    commands = [[sys.executable, "-m", "a2wsgi", "serve", *words.split()] for words in SERVE]
    commands = [[word.format(port=port, wsgi_port=port + 1) for word in command] for command in commands]
    before: list[subprocess.Popen[bytes]] = []
    if BEFORE.is_dir():
        environment["DEMO_BEFORE_PORT"] = str(free_port())
        options = ["--port", environment["DEMO_BEFORE_PORT"], "--log-level=critical", "--timeout-graceful-shutdown=1"]
        command = [sys.executable, "-m", "uvicorn", "demo_starlette:app", *options]
        old = {**os.environ, "PYTHONPATH": os.pathsep.join([str(BEFORE), os.environ.get("PYTHONPATH", "")])}
        before = [subprocess.Popen(command, cwd=Path(__file__).parent, env=old)]  # noqa: S603 - our own words
    servers = [
        subprocess.Popen(command, cwd=Path(__file__).parent, env=environment)  # noqa: S603 - our own words
        for command in commands
    ]
    return servers + before


def run(port: int, servers: list[subprocess.Popen[bytes]]) -> int:
    """Say what to try once both serve, and wait until one ends. It has said why."""
    told = False
    while all(server.poll() is None for server in servers[: len(SERVE)]):
        if not told and answers(port) and answers(port + 1):
            print(WHAT_TO_TRY.format(address=f"{HOST}:{port}", wsgi_address=f"{HOST}:{port + 1}"), flush=True)
            told = True
        time.sleep(0.2)
    return 1


def end(server: subprocess.Popen[bytes]) -> None:
    """Wait for a server's end, and see to it: 1.10.10 would wait for streams whose clients left long ago."""
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def main() -> int | str:
    """Run the demo; what to exit with."""
    text = os.environ.get("PORT", "8000")
    if not (text.isdecimal() and 0 < int(text) < 65535):
        return f"PORT={text} is not a port. Choose a number from 1 to 65534: PORT=8010 make demo"
    port = int(text)
    for each in (port, port + 1):
        if answers(each):
            return f"Port {each} of {HOST} is taken by another program. Choose another: PORT={each + 10} make demo"
    # A shell has what it starts in the background ignore SIGINT, and the servers, which end by it, would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that it ends them, too
    servers = start(port)
    try:
        return run(port, servers)
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
            end(server)


if __name__ == "__main__":
    sys.exit(main())
