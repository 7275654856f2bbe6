"""Contenders as servers: each serves one app, in a process of its own, on a port of 127.0.0.1.

`Contender` says what is served how; `serving` starts some and ends them. Run as a program, this
is the server's process.

Settings are the same for all: one process, so many threads for the app, no access log, keep-alive as the server has it.
Every ASGI server is uvicorn on httptools and uvloop, but under trio, where it is hypercorn, and without a GIL, where it
is uvicorn on h11 and asyncio.
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
    f"to wsgi: {peers.OURS}, with WebSockets": ("asgi", peers.ours_to_wsgi_with_websockets),
    f"to asgi: {peers.OURS}, with WebSockets": ("wsgi", peers.ours_with_websockets),
    f"to asgi: {peers.OURS}, its own WebSocket": ("own", peers.ours_with_websockets),
}


# -- In the server's process: servers -----------------------------------------------------------------------------


def _uvicorn(make: Make, target: str, port: int, threads: int) -> None:
    import uvicorn
    import uvloop

    config = uvicorn.Config(
        make(),
        host="127.0.0.1",
        port=port,
        http="httptools",
        interface="asgi3",
        lifespan="off",
        log_level="critical",
        ws_ping_interval=None,  # the clients of `websocket_echo` expect echoes alone
    )

    async def serve() -> None:
        peers.same_threads(threads)
        await uvicorn.Server(config).serve()

    uvloop.run(serve())


def _uvicorn_plain(make: Make, target: str, port: int, threads: int) -> None:
    """Pure Python: of httptools and uvloop not every Python has a build."""
    import uvicorn

    uvicorn.run(make(), port=port, http="h11", loop="asyncio", interface="asgi3", lifespan="off", log_level="critical")


def _hypercorn_trio(make: Make, target: str, port: int, threads: int) -> None:
    import hypercorn.config
    import hypercorn.trio
    import trio

    config = hypercorn.config.Config.from_mapping(bind=f"127.0.0.1:{port}", errorlog=None)
    config.keep_alive_max_requests = 10**9  # as the others; by default the 1,000th response has 19 bytes more
    trio.run(hypercorn.trio.serve, make(), config)


def _gunicorn(make: Make, port: int, options: dict[str, Any]) -> None:
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):  # type: ignore[misc] # it comes without types
        def load_config(self) -> None:
            everywhere = {"bind": f"127.0.0.1:{port}", "workers": 1, "timeout": 0, "loglevel": "critical"}
            everywhere["worker_connections"] = 2000
            for name, value in {**everywhere, "control_socket_disable": True, **options}.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return make()  # in the worker, as without --preload: 1.10.10 does not survive a fork

    Application().run()


def _gunicorn_gthread(make: Make, target: str, port: int, threads: int) -> None:
    _gunicorn(make, port, {"worker_class": "gthread", "threads": threads})


def _gunicorn_gthread_4(make: Make, target: str, port: int, threads: int) -> None:
    """Few threads, however many the others have."""
    _gunicorn(make, port, {"worker_class": "gthread", "threads": 4})


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


def _granian_asgi(make: Make, target: str, port: int, threads: int) -> None:
    """It imports its app by itself: `served_files` makes the bridge that is asked for."""
    from granian import Granian

    name = f"{target.partition(':')[0]}:bridged" if "BENCH_BRIDGE" in os.environ else target
    Granian(name, port=port, interface="asgi", websockets=False, log_enabled=False).serve()  # type: ignore[arg-type] # as above


SERVERS: dict[str, Any] = {
    "uvicorn": _uvicorn,
    "uvicorn, plain": _uvicorn_plain,
    "hypercorn trio": _hypercorn_trio,
    "gunicorn gthread": _gunicorn_gthread,
    "gunicorn gthread, 4 threads": _gunicorn_gthread_4,
    "gunicorn sync": _gunicorn_sync,
    "waitress": _waitress,
    "granian": _granian,
    "granian asgi": _granian_asgi,
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
        ticks = sum(int(fields[11]) + int(fields[12]) for fields in self._processes().values())
        return ticks / os.sysconf("SC_CLK_TCK")

    def pids(self) -> list[int]:
        """The server's processes. Needs Linux."""
        return sorted(self._processes())

    def _processes(self) -> dict[int, list[str]]:
        """What ``/proc/<pid>/stat`` says behind the name, for each process of the server's group."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.process.pid:
                    found[int(path.parent.name)] = fields
        return found

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
    # For the worker processes of granian, too.
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    if contender.bridge.startswith("to asgi: "):
        environment["BENCH_BRIDGE"] = contender.bridge.removeprefix("to asgi: ")
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
