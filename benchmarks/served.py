"""Contenders as servers: each serves one app, in a process of its own, on a port of 127.0.0.1.

`Contender` says what is served how; `serving` starts some and ends them. Run as a program, this
is the server's process.

Settings are the same for all: one process, so many threads for the app, no access log, keep-alive as the server has it.
Every ASGI server is uvicorn on httptools and uvloop.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import contenders as peers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Make = Callable[[], Any]  # the app, its bridge around it

HERE = Path(__file__).parent
START_SECONDS = 30.0


@dataclass(frozen=True)
class Contender:
    """One way to serve an app: its name in the tables, and its parts, which are keys of `SERVERS` and `BRIDGES`."""

    name: str
    server: str
    bridge: str


# -- In the server's process: bridges -----------------------------------------------------------------------------

#: name -> which app of the module it takes, and what makes it an app that the server can take
BRIDGES: dict[str, tuple[str, Callable[[Any, int], Any]]] = {
    "none, wsgi": ("wsgi", lambda app, threads: app),
    "none, asgi": ("asgi", lambda app, threads: app),
    **{f"to asgi: {name}": ("wsgi", make) for name, make in peers.WSGI_ON_ASGI.items()},
    **{f"to wsgi: {name}": ("asgi", make) for name, make in peers.ASGI_ON_WSGI.items()},
}


# -- In the server's process: servers -----------------------------------------------------------------------------


def _uvicorn(make: Make, target: str, port: int, threads: int) -> None:
    import uvicorn
    import uvloop

    config = uvicorn.Config(
        make(), host="127.0.0.1", port=port, http="httptools", interface="asgi3", lifespan="off", log_level="critical"
    )

    async def serve() -> None:
        peers.same_threads(threads)
        await uvicorn.Server(config).serve()

    uvloop.run(serve())


def _gunicorn(make: Make, port: int, options: dict[str, Any]) -> None:
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):  # type: ignore[misc] # it comes without types
        def load_config(self) -> None:
            everywhere = {"bind": f"127.0.0.1:{port}", "workers": 1, "loglevel": "critical"}
            for name, value in {**everywhere, "control_socket_disable": True, **options}.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return make()  # in the worker, as without --preload: 1.10.10 does not survive a fork

    Application().run()


def _gunicorn_gthread(make: Make, target: str, port: int, threads: int) -> None:
    _gunicorn(make, port, {"worker_class": "gthread", "threads": threads})


def _gunicorn_sync(make: Make, target: str, port: int, threads: int) -> None:
    """One thread, one request at a time, a connection each."""
    _gunicorn(make, port, {"worker_class": "sync"})


def _waitress(make: Make, target: str, port: int, threads: int) -> None:
    import waitress

    logging.getLogger("waitress.queue").setLevel(logging.CRITICAL)
    waitress.serve(make(), host="127.0.0.1", port=port, threads=threads, connection_limit=1000, _quiet=True)


def _granian(make: Make, target: str, port: int, threads: int) -> None:
    from granian import Granian

    Granian(
        target,
        port=port,
        interface="wsgi",  # type: ignore[arg-type] # it takes the text, too
        blocking_threads=threads,
        websockets=False,
        log_enabled=False,
    ).serve()


SERVERS: dict[str, Any] = {
    "uvicorn": _uvicorn,
    "gunicorn gthread": _gunicorn_gthread,
    "gunicorn sync": _gunicorn_sync,
    "waitress": _waitress,
    "granian": _granian,
}


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("server", choices=SERVERS)
    parser.add_argument("bridge", choices=BRIDGES)
    parser.add_argument("module", help="which of the served_*.py")
    parser.add_argument("port", type=int)
    parser.add_argument("threads", type=int)
    options = parser.parse_args()
    attribute, bridge = BRIDGES[options.bridge]

    def make() -> Any:
        return bridge(getattr(importlib.import_module(options.module), attribute), options.threads)

    SERVERS[options.server](make, f"{options.module}:{attribute}", options.port, options.threads)


# -- In the benchmark's process -----------------------------------------------------------------------------------


class WrongResponse(Exception):  # noqa: N818 - it says what happened
    """A contender does not answer, or not what the app made."""


@dataclass
class Served:
    """A contender whose server has been started: its process, where it listens, and what it writes to stderr."""

    process: subprocess.Popen[bytes]
    port: int
    log: IO[bytes]

    def cpu_seconds(self) -> float:
        """Processor time that the server has taken so far, with its worker processes. Needs Linux."""
        total = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.process.pid:  # its process group
                    total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def wait_until_it_answers(self, path: str) -> None:
        """Return at the first answer to a GET of ``path``.

        Raises:
            WrongResponse: There is none in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                get(self.port, path, timeout=5)
                return
            time.sleep(0.02)
        self.log.seek(0)
        last = self.log.read().decode(errors="replace").strip().rpartition("\n")[2]
        raise WrongResponse(f"the server does not come up: {last or 'no answer'}")


@contextlib.contextmanager
def serving(contenders: Iterable[Contender], module: str, threads: int) -> Iterator[dict[str, Served]]:
    """Run servers with the app of ``module``, by the contenders' names. They are just starting."""
    peers.peer_directory()  # else each would have pip fill it
    with contextlib.ExitStack() as stack:
        yield {contender.name: stack.enter_context(_started(contender, module, threads)) for contender in contenders}


@contextlib.contextmanager
def _started(contender: Contender, module: str, threads: int) -> Iterator[Served]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    command = [sys.executable, str(HERE / "served.py"), contender.server, contender.bridge, module]
    command += [str(port), str(threads)]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}  # for the worker processes of granian
    with tempfile.TemporaryFile() as log:
        # A group of its own: gunicorn and granian have worker processes.
        process = subprocess.Popen(command, env=environment, cwd=HERE, stderr=log, start_new_session=True)  # noqa: S603 - this file
        try:
            yield Served(process, port, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def get(port: int, path: str, timeout: float) -> tuple[int, dict[str, str], bytes, int]:
    """GET ``path``: the status, the headers by lower-case name, the body, and how long all of it was on the wire.

    Raises:
        OSError: There is no whole response within ``timeout`` seconds an operation.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += _some(connection)
        status_line, *lines = received[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        end += 4
        length = int(headers.get("content-length", -1))
        while len(received) < end + length or (length < 0 and not received.endswith(b"\r\n0\r\n\r\n")):
            received += _some(connection)
    return int(status_line.split()[1]), headers, received[end:], len(received)


def _some(connection: socket.socket) -> bytes:
    piece = connection.recv(65536)
    if not piece:
        raise ConnectionError("the connection ended within the response")
    return piece


if __name__ == "__main__":
    main()
