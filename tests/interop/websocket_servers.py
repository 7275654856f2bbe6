"""The WSGI servers on which an ASGI app's WebSockets are tried: how each is started."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.servers import module

APP = "interop.websocket_app:application"


@dataclass(frozen=True)
class Kind:
    """A server.

    Attributes:
        packages: What must be importable.
        command: Its command line, given the port and a directory.
        tls: Whether it ends TLS, and so holds a thread for each WebSocket.
        logs: Whether it has an access log.
        idle_seconds: After how long it ends what is idle, where it was told.
        program: What must be installed besides.
    """

    packages: Sequence[str]
    command: Callable[[int, Path], Sequence[str]]
    tls: bool = False
    logs: bool = False
    idle_seconds: float = 1.0
    program: str | None = None

    def missing(self) -> str | None:
        """What must be installed before it can run."""
        if self.program is not None and shutil.which(self.program) is None:
            return f"{self.program} is not installed"
        return next((f"{name} is not installed" for name in self.packages if not importlib.util.find_spec(name)), None)


def certificate(directory: Path) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that nobody signed, and its key."""
    files = str(directory / "certificate.pem"), str(directory / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*command, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


def gunicorn(*arguments: str, tls: bool = False, app: str = APP) -> Callable[[int, Path], Sequence[str]]:
    """Gunicorn, with a timeout and a keep-alive that idle WebSockets outlive."""

    def command(port: int, directory: Path) -> Sequence[str]:
        own = ["--no-control-socket", f"--bind=127.0.0.1:{port}", "--graceful-timeout=5", "--access-logfile=-"]
        own += ["--timeout=3", "--keep-alive=1", *arguments]
        if tls:
            own += [f"--certfile={certificate(directory)[0]}", f"--keyfile={directory / 'key.pem'}"]
        return module("gunicorn", *own, app)

    return command


def uwsgi(*arguments: str) -> Callable[[int, Path], Sequence[str]]:
    """uWSGI; ``{port}`` is filled in."""

    def command(port: int, directory: Path) -> Sequence[str]:
        return [
            str(Path(sys.executable).parent / "pyuwsgi"),
            "--need-app",
            "--master",
            "--hook-master-start=unix_signal:15 gracefully_kill_them_all",
            "--buffer-size=16384",
            f"--module={APP}",
            *(argument.format(port=port) for argument in arguments),
        ]

    return command


def script(name: str, *, tls: bool = False) -> Callable[[int, Path], Sequence[str]]:
    """A server that has no command line of its own: `interop.serve_websockets` has one for it."""

    def command(port: int, directory: Path) -> Sequence[str]:
        files = certificate(directory) if tls else ()
        return module("interop.serve_websockets", name, APP, str(port), *files)

    return command


def behind_nginx(*command: str) -> Callable[[int, Path], Sequence[str]]:
    """Nginx before a server whose command line this is; ``{socket}`` and ``{app}`` are filled in there."""
    return lambda port, directory: module("interop.serve_websockets", "nginx", APP, str(port), str(directory), *command)


def simple(name: str, *arguments: str) -> Callable[[int, Path], Sequence[str]]:
    """A module that is run; ``{port}`` is filled in."""
    return lambda port, _: module(name, *(argument.format(port=port) for argument in arguments), APP)


#: Servers of ASGI, on which the app is behind two bridges.
PAIRS: dict[str, Kind] = {
    "pair-uvicorn": Kind(
        ["uvicorn"], lambda port, _: module("uvicorn", f"--port={port}", "interop.websocket_app:on_asgi")
    ),
}

#: Those on which it cannot be done.
WITHOUT: dict[str, Kind] = {
    "uwsgi-one-thread": Kind(["pyuwsgi"], uwsgi("--http-socket=127.0.0.1:{port}")),
    "uwsgi-router": Kind(["pyuwsgi"], uwsgi("--http=127.0.0.1:{port}", "--enable-threads")),
    "tornado": Kind(["tornado"], script("tornado")),
    "gunicorn-sync-tls": Kind(["gunicorn"], gunicorn("--worker-class=sync", tls=True), tls=True),
}

KINDS: dict[str, Kind] = {
    "gunicorn-sync": Kind(["gunicorn"], gunicorn("--worker-class=sync"), logs=True),
    "gunicorn-gthread": Kind(["gunicorn"], gunicorn("--worker-class=gthread", "--threads=4"), logs=True),
    "gunicorn-preload": Kind(["gunicorn"], gunicorn("--worker-class=gthread", "--threads=4", "--preload"), logs=True),
    "gunicorn-gevent": Kind(["gunicorn", "gevent"], gunicorn("--worker-class=gevent"), logs=True),
    "gunicorn-gevent_pywsgi": Kind(["gunicorn", "gevent"], gunicorn("--worker-class=gevent_pywsgi")),
    "werkzeug": Kind(["werkzeug"], script("werkzeug"), logs=True),
    "pywsgi": Kind(["gevent"], script("pywsgi"), logs=True),
    "pywsgi-unpatched": Kind(["gevent"], script("pywsgi-unpatched"), logs=True),
    "waitress": Kind(["waitress"], simple("waitress", "--listen=127.0.0.1:{port}", "--channel-timeout=1")),
    "waitress-lookahead": Kind(
        ["waitress"],
        simple("waitress", "--listen=127.0.0.1:{port}", "--channel-timeout=1", "--channel-request-lookahead=1"),
    ),
    "cheroot": Kind(["cheroot"], script("cheroot")),
    "uwsgi": Kind(["pyuwsgi"], uwsgi("--http-socket=127.0.0.1:{port}", "--enable-threads"), logs=True),
    "uwsgi-router": Kind(
        ["pyuwsgi"], uwsgi("--http=127.0.0.1:{port}", "--http-websockets", "--enable-threads"), logs=True
    ),
    "nginx-uwsgi": Kind(
        ["pyuwsgi"],
        behind_nginx(
            str(Path(sys.executable).parent / "pyuwsgi"),
            "--need-app",
            "--die-on-term",
            "--enable-threads",
            "--buffer-size=16384",
            "--socket={socket}",
            "--chmod-socket=666",
            "--module={app}",
        ),
        program="nginx",
    ),
    "nginx-gunicorn": Kind(
        ["gunicorn"],
        behind_nginx(
            *module("gunicorn", "--no-control-socket", "--threads=4", "--keep-alive=1", "--timeout=3"),
            "--bind=unix:{socket}",
            "--umask=0",
            "{app}",
        ),
        program="nginx",
    ),
    "wsgiref": Kind(["wsgiref"], script("wsgiref"), logs=True),
    "eventlet": Kind(["eventlet"], script("eventlet"), logs=True),
    "eventlet-unpatched": Kind(["eventlet"], script("eventlet-unpatched"), logs=True),
    "gunicorn-gthread-tls": Kind(
        ["gunicorn"], gunicorn("--worker-class=gthread", "--threads=4", tls=True), tls=True, logs=True
    ),
    "gunicorn-gevent-tls": Kind(
        ["gunicorn", "gevent"], gunicorn("--worker-class=gevent", tls=True), tls=True, logs=True
    ),
    "werkzeug-tls": Kind(["werkzeug"], script("werkzeug", tls=True), tls=True, logs=True),
    "pywsgi-tls": Kind(["gevent"], script("pywsgi", tls=True), tls=True, logs=True),
    "cheroot-tls": Kind(["cheroot"], script("cheroot", tls=True), tls=True),
}
