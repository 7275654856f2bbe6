"""Real servers, each a process of its own on a free port of 127.0.0.1.

Nothing here waits longer than it says. A server that was started is ended by its process id, and what it printed can be
read at any time. It has ``tests/`` on its path: its app is named as ``interop.module:app``.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent

#: How long a server may take to answer its first request, and to end. Long for a machine that does much besides.
START_SECONDS = 30.0
STOP_SECONDS = 15.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on.

    It is below those that the system gives to outgoing connections, so that none of them takes it meanwhile; and in a
    range of this process of pytest's own. The next port is given to nobody: the demo takes two.
    """
    first = 15_000 + 2_000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8)
    while True:
        port = random.randrange(first, first + 2_000, 2)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                listener.bind(("127.0.0.1", port))
                return port


def until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Wait until ``condition()`` holds, asking again and again: another process tells nobody of its changes."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.01)


@dataclass
class Server:
    """A server that runs.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        process: Its (first) process, which leads a process group of its own.
        output_path: The file that its standard output and error go to.
    """

    port: int
    process: subprocess.Popen[bytes]
    output_path: Path

    def output(self, since: int = 0) -> str:
        """What it has printed, past the first ``since`` bytes."""
        return self.output_path.read_bytes()[since:].decode(errors="replace")

    def output_length(self) -> int:
        """How much it has printed, in bytes."""
        return self.output_path.stat().st_size

    def listens(self) -> bool:
        """Whether it takes connections."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        except ConnectionError:  # refused; or reset, by a server that closes its socket at this moment
            return False
        return True

    def answers(self, path: str) -> bool:
        """Whether it answers ``GET path`` at all."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as client:
            client.settimeout(START_SECONDS)
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return client.recv(5) == b"HTTP/"
        return False

    def signal(self, number: int) -> None:
        """Send a signal to its first process, as ``kill`` and process managers do."""
        self.process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Send a signal to all of its processes, as a terminal does on Ctrl-C."""
        os.killpg(self.process.pid, number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        return self.process.wait(seconds)

    def stop(self) -> None:
        """End it, in good order if it lets us."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            self.signal_group(signal.SIGKILL)  # what is left of it; nearly always nothing
        self.process.wait(STOP_SECONDS)


def start(
    command: Sequence[str],
    output_path: Path,
    *,
    port: int,
    environment: Mapping[str, str] | None = None,
    ready: str = "/",
    answers: Callable[[Server, str], bool] | None = None,
) -> Server:
    """Start a server and wait until it answers.

    Args:
        command: Its command line, with the port in it.
        output_path: The file for what it prints.
        port: Where it is to listen.
        environment: What its environment has besides ours.
        ready: The path of the request that it is to answer; with any status.
        answers: Tells whether it answers that; needed where it takes no plain HTTP.
    """
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    with output_path.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=TESTS,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(environment or {})},
            start_new_session=True,
        )
    server = Server(port, process, output_path)

    def has_begun() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{command} ended with {process.returncode}:\n{server.output()}")
        return (answers or Server.answers)(server, ready)

    try:
        until(has_begun, f"{command} answers", START_SECONDS)
    except BaseException:
        server.stop()
        raise
    return server


@contextlib.contextmanager
def running(
    command: Callable[[int], Sequence[str]],
    directory: Path,
    *,
    environment: Mapping[str, str] | None = None,
    ready: str = "/",
    answers: Callable[[Server, str], bool] | None = None,
) -> Iterator[Server]:
    """A server, from its first answer to the end of the block.

    Args:
        command: Its command line, given the port.
        directory: Where the file for what it prints is made.
        environment: What its environment has besides ours.
        ready: The path of the first request.
        answers: Tells whether it is answered; needed where the server takes no plain HTTP.
    """
    port, output = free_port(), directory / "server.log"
    server = start(command(port), output, port=port, environment=environment, ready=ready, answers=answers)
    try:
        yield server
    finally:
        server.stop()


def module(name: str, *arguments: str) -> list[str]:
    """A command line that runs a module with this interpreter: ``python -m name arguments``."""
    return [sys.executable, "-m", name, *arguments]
