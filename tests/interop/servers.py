"""The servers that the tests know, of both kinds: how each is started, and what it cannot do, whatever a bridge does."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from interop.client import Client, HTTP2Client
from support.servers import TESTS, Server, module, running, until

#: Where a server is told to serve its app, by the tests that tell it.
PREFIX = "/base"


class Start(NamedTuple):
    """What a command line is made of."""

    app: str
    """``module:name``."""
    port: int
    directory: Path
    """For files of the server's own."""
    prefix: str
    """Where the app is mounted, or nothing."""


@dataclass(frozen=True)
class Kind:
    """A server, and how it is used.

    Attributes:
        calls: What it calls: ASGI apps or WSGI apps.
        packages: What must be importable.
        command: Its command line.
        options: Those of the bridge that it serves.
        at_once: How many requests it runs at a time, if fewer than many.
        ends_by: The signal on which it ends in good order.
        http2: Whether it is spoken to in HTTP/2, without TLS.
        prefix_is_cut: Whether it is for a proxy that takes the prefix off a path, rather than for one that leaves it.
        cannot: The tests that it cannot pass, each with the reason. One parameter's is under ``test[parameter]``.
            They are expected to fail; those in `hangs` are not run.
        hangs: The tests among them that would never end.
    """

    calls: Literal["asgi", "wsgi"]
    packages: Sequence[str]
    command: Callable[[Start], Sequence[str]]
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    at_once: int = 4
    ends_by: signal.Signals = signal.SIGTERM
    http2: bool = False
    prefix_is_cut: bool = False
    cannot: Mapping[str, str] = field(default_factory=dict[str, str])
    hangs: frozenset[str] = frozenset()

    def missing(self) -> str | None:
        """What must be installed before it can run."""
        for package in self.packages:
            if package == "apache2":
                if reason := _apache_is_missing():
                    return reason
            elif importlib.util.find_spec(package) is None:
                return f"{package} is not installed"
        return None


@dataclass(frozen=True)
class Served:
    """A server that runs, and the directory through which its app and a test tell each other things.

    Attributes:
        patience: For how many seconds a test waits for the app or the server, at most.
    """

    name: str
    kind: Kind
    server: Server
    directory: Path
    patience: float = 10.0

    @property
    def port(self) -> int:
        return self.server.port

    def with_patience(self, seconds: float) -> Served:
        """The same, for a test that waits for less."""
        return replace(self, patience=seconds)

    def client(self) -> Client:
        """A connection, in the protocol that the server speaks."""
        return (HTTP2Client if self.kind.http2 else Client)(self.port, seconds=self.patience)

    def tell(self, name: str) -> None:
        """Have the app know."""
        (self.directory / name).touch()

    def told(self, name: str) -> None:
        """Wait until the app tells it."""
        until((self.directory / name).exists, f"the app tells {name}", self.patience)

    def lines(self, name: str) -> list[str]:
        """What the app has told in so many words."""
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []


@contextmanager
def serving(name: str, app: str, directory: Path, prefix: str = "", ready: str = "/hello") -> Iterator[Served]:
    """A server, from its first answer to the end of the block."""
    kind = SERVERS[name]
    environment = {"A2WSGI_TEST_DIR": str(directory), "A2WSGI_TEST_OPTIONS": json.dumps(kind.options)}

    def command(port: int) -> Sequence[str]:
        return kind.command(Start(app, port, directory, prefix))

    ready = ready if kind.prefix_is_cut else prefix + ready
    with running(command, directory, environment=environment, ready=ready) as server:
        yield Served(name, kind, server, directory)


# -- How they are started -----------------------------------------------------------------------------------------


def python(name: str, *arguments: str, prefix: Sequence[str] = ()) -> Callable[[Start], Sequence[str]]:
    """``python -m name arguments``, with those of ``prefix`` if there is one; ``{port}`` and such are filled in."""

    def command(start: Start) -> Sequence[str]:
        chosen = (*(prefix if start.prefix else ()), *arguments)
        return module(name, *(argument.format(**start._asdict()) for argument in chosen))

    return command


def uvicorn(*arguments: str) -> Callable[[Start], Sequence[str]]:
    return python("uvicorn", *arguments, "--port={port}", "{app}", prefix=["--root-path={prefix}"])


def hypercorn(start: Start) -> Sequence[str]:
    # Without a worker process: with one, its parent goes on listening until the worker has ended.
    return python("hypercorn", "--workers=0", "--bind=127.0.0.1:{port}", "{app}", prefix=["--root-path={prefix}"])(start)


def gunicorn(*arguments: str, prefix: str = "--env=SCRIPT_NAME={prefix}") -> Callable[[Start], Sequence[str]]:
    own = ["--no-control-socket", "--bind=127.0.0.1:{port}", "--graceful-timeout=10"]
    return python("gunicorn", *own, *arguments, "{app}", prefix=[prefix])


def granian(interface: str) -> Callable[[Start], Sequence[str]]:
    own = [f"--interface={interface}", "--port={port}", "--no-ws", "{app}"]
    return python("granian", *own, prefix=["--url-path-prefix={prefix}"])


def uwsgi(*arguments: str) -> Callable[[Start], Sequence[str]]:
    def command(start: Start) -> Sequence[str]:
        app = f"--mount={start.prefix}={start.app}" if start.prefix else f"--module={start.app}"
        return [
            str(Path(sys.executable).parent / "pyuwsgi"),
            f"--http-socket=127.0.0.1:{start.port}",
            "--need-app",
            "--die-on-term",
            "--buffer-size=16384",
            "--manage-script-name",
            *arguments,
            app,
        ]

    return command


MODULES = Path("/usr/lib/apache2/modules")

APACHE = """
ServerRoot {directory}
ServerName localhost
PidFile {directory}/apache.pid
Listen 127.0.0.1:{port}
ErrorLog /dev/stderr
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
AllowEncodedSlashes On
MergeSlashes Off
WSGIChunkedRequest On
WSGISocketPrefix {directory}/wsgi
WSGIDaemonProcess a2wsgi processes=1 threads=15 python-path={python_path}
WSGIProcessGroup a2wsgi
WSGIApplicationGroup %{{GLOBAL}}
WSGIScriptAlias {prefix} {directory}/app.wsgi
<Directory {directory}>
    Require all granted
</Directory>
"""


def mod_wsgi(start: Start) -> Sequence[str]:
    """Debian's apache2, with Debian's Python and the packages of this one.

    It serves no app as root. Where root runs the tests, it is another user who may read all that root may, and write
    what it tells into the directory: nothing need be open to all for it.
    """
    name, _, app = start.app.partition(":")
    (start.directory / "app.wsgi").write_text(f"from {name} import {app} as application\n")
    configuration = start.directory / "apache.conf"
    configuration.write_text(
        APACHE.format(
            **{**start._asdict(), "prefix": start.prefix or "/"},
            modules=MODULES,
            python_path=f"{TESTS}:{TESTS.parent / 'src'}:{sysconfig.get_path('purelib')}",
        )
    )
    user = ["--reuid=www-data", "--regid=www-data", "--clear-groups"]
    rights = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    as_another = [] if os.geteuid() != 0 else ["setpriv", *user, *rights]
    return [*as_another, str(_apache()), "-D", "FOREGROUND", "-f", str(configuration)]


def _apache() -> str | None:
    return shutil.which("apache2") or shutil.which("apache2", path="/usr/sbin")


def _apache_is_missing() -> str | None:
    """What keeps Debian's apache2 from serving with what is installed here."""
    if _apache() is None or not (MODULES / "mod_wsgi.so").exists():
        return "apache2 with libapache2-mod-wsgi-py3 is not installed"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not (MODULES / "mod_wsgi.so").resolve().name.endswith(version):
        return f"this is Python {version}, and mod_wsgi is of another"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "apache2 serves nothing as root, and setpriv is not installed"
    return None


def script(name: str) -> Callable[[Start], Sequence[str]]:
    """A server that has no command line of its own: `interop.serve` has one for it."""
    return python("interop.serve", name, "{app}", "{port}")


# -- What they cannot do ------------------------------------------------------------------------------------------

SERVERS: dict[str, Kind] = {
    # -- of ASGI apps --
    "uvicorn-h11": Kind("asgi", ["uvicorn"], uvicorn("--http=h11", "--loop=asyncio"), prefix_is_cut=True),
    "uvicorn-httptools": Kind(
        "asgi",
        ["uvicorn", "httptools", "uvloop"],
        uvicorn("--http=httptools", "--loop=uvloop"),
        prefix_is_cut=True,
    ),
    "hypercorn": Kind("asgi", ["hypercorn"], hypercorn),
    "hypercorn-http2": Kind("asgi", ["hypercorn", "h2"], hypercorn, http2=True),
    "granian": Kind("asgi", ["granian"], granian("asgi")),
    "daphne": Kind(
        "asgi", ["daphne"], python("daphne", "--port={port}", "{app}", prefix=["--root-path={prefix}"])
    ),
    # The worker for ASGI came with gunicorn 24.
    "gunicorn-asgi": Kind(
        "asgi", ["gunicorn", "gunicorn.asgi"], gunicorn("--worker-class=asgi", prefix="--root-path={prefix}")
    ),
    # -- of WSGI apps --
    "gunicorn-sync": Kind("wsgi", ["gunicorn"], gunicorn("--worker-class=sync"), at_once=1),
    "gunicorn-sync-inline": Kind(
        "wsgi", ["gunicorn"], gunicorn("--worker-class=sync"), options={"inline": True}, at_once=1
    ),
    "gunicorn-gthread": Kind("wsgi", ["gunicorn"], gunicorn("--worker-class=gthread", "--threads=4")),
    "gunicorn-preload": Kind(
        "wsgi", ["gunicorn"], gunicorn("--preload", "--workers=2", "--worker-class=gthread", "--threads=4")
    ),
    "gunicorn-gevent": Kind("wsgi", ["gunicorn", "gevent"], gunicorn("--worker-class=gevent")),
    "waitress": Kind(
        "wsgi",
        ["waitress"],
        python("waitress", "--listen=127.0.0.1:{port}", "{app}", prefix=["--url-prefix={prefix}"]),
        ends_by=signal.SIGINT,
    ),
    "cheroot": Kind("wsgi", ["cheroot"], python("cheroot", "--bind=127.0.0.1:{port}", "{app}")),
    "uwsgi-threads": Kind(
        "wsgi", ["pyuwsgi"], uwsgi("--master", "--processes=2", "--enable-threads"), at_once=2
    ),
    "uwsgi-lazy": Kind("wsgi", ["pyuwsgi"], uwsgi("--master", "--lazy-apps"), at_once=1),
    "uwsgi-inline": Kind("wsgi", ["pyuwsgi"], uwsgi("--master"), options={"inline": True}, at_once=1),
    "mod_wsgi": Kind("wsgi", ["apache2"], mod_wsgi, ends_by=signal.SIGWINCH),
    "werkzeug": Kind("wsgi", ["werkzeug"], script("werkzeug")),
    "gevent": Kind("wsgi", ["gevent"], script("gevent")),
    "wsgiref": Kind("wsgi", ["wsgiref"], script("wsgiref"), ends_by=signal.SIGINT, at_once=1),
    "granian-wsgi": Kind("wsgi", ["granian"], granian("wsgi")),
}
