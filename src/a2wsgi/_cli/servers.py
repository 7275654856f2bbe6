"""The servers that the command line knows: how each is started, and what it lacks.

*Facts*

- Each is started by a command line of its own, ``python -m module``, which its worker processes can repeat. Its app is
  `SERVED`. cheroot, gevent and Werkzeug have none that does, so ``small_servers`` is theirs.
- We know what each lacks from running it: uvicorn 0.54, hypercorn 0.18, granian 2.8, daphne 4.2, gunicorn 27,
  waitress 3.0, cheroot 11.1, uWSGI 2.0.30, gevent 26.9, Werkzeug 3.1.
- uvicorn's ``--root-path`` is for a proxy that removes the prefix, gunicorn's ``SCRIPT_NAME`` for one that leaves it in
  place. The others work with both.
- granian calls WSGI apps as well as ASGI apps.
- uWSGI restarts on SIGTERM. With ``--die-on-term`` it cuts running requests off, and if one was running, it runs no
  ``atexit`` handler, so the app's shutdown is left out. ``gracefully_kill_them_all`` waits for them.
- uWSGI, as pip installs it, runs itself anew to reload, with an interpreter that does not know the environment.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from a2wsgi._interface import Interface

#: The app that servers are told to load. It loads the user's app and converts it.
SERVED: Final = "a2wsgi._cli.served:app"

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class Server:
    """A server.

    In the texts of ``options``, ``{host}``, ``{port}``, ``{bind}`` (both, as in ``127.0.0.1:8000``), ``{interface}``
    (``asgi`` or ``wsgi``), ``{directory}`` (of the app's module), ``{verbosity}`` (the log level as a number from 0 to
    3) and every option of ours by its name are replaced.

    Attributes:
        module: What ``python -m`` runs, or the program if ``is_program``.
        interface: What the server calls.
        package: What pip installs.
        options: What each option of ours becomes, by its name. No name: the server has no such option. An empty tuple:
            it does so without being told. Besides ours, ``tcp`` is an address, ``tls`` one with a certificate,
            ``always`` is always passed, and ``wsgi`` if a server of both kinds calls a WSGI app. ``no_`` begins the
            opposite of an option.
        environment: Environment variables that an option becomes, by its name.
        address: The server's own options that say where it listens, and which part of an address each of them is.
        app_prefix: Stands before the name of the app.
        needs: The module that shows that it is installed, if not ``module``.
        distribution: The package whose version is shown, if not ``module``.
        in_place: Whether it runs the app in the process that it is started in, if it is told nothing else.
        takes_wsgi: Whether it calls WSGI apps, too.
        is_program: Whether it is a program beside the interpreter, and not a module.
        exits_on_sigterm: Whether it shuts down cleanly on SIGTERM.
        logger: The logger that ``--log-level`` is for, if the server has no option for it.
        lacks: What an app has to do without, and why.
    """

    module: str
    interface: Literal["asgi3", "wsgi"]
    package: str
    options: Mapping[str, tuple[str, ...]]
    environment: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, "tuple[str, str]"])
    address: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    app_prefix: str = ""
    needs: str | None = None
    distribution: str | None = None
    in_place: bool = False
    takes_wsgi: bool = False
    is_program: bool = False
    exits_on_sigterm: bool = True
    logger: str | None = None
    lacks: Mapping[str, str] = field(default_factory=lambda: _NOTHING)

    def version(self) -> str | None:
        """The installed version; None if the server is not installed."""
        try:
            found = importlib.util.find_spec(self.needs or self.module)
            if found is None or found.origin is None:  # a folder of the project that has its name
                return None
            return importlib.metadata.version(self.distribution or self.module)
        except ModuleNotFoundError:  # the package of ``needs``, or the metadata: a package of the project has its name
            return None

    def called(self, interface: Interface) -> Literal["asgi3", "wsgi"]:
        """The interface in which the server calls an app of this one."""
        return "wsgi" if self.takes_wsgi and interface == "wsgi" else self.interface

    def can(self, option: str) -> bool:
        """Whether the server has this option of ours, or can be made to have it."""
        return option in self.options or option in self.environment

    def missing(self, interface: Interface) -> dict[str, str]:
        """What an app of this interface has to do without on this server, but for WebSockets, and why."""
        missing = dict(self.lacks)
        if interface != "wsgi":
            return missing
        missing.pop("lifespan", None)
        if self.called(interface) == "wsgi":
            missing = {**_OF_WSGI, **missing}
        return missing


_OF_WSGI: Final = {
    "early disconnects": "the app learns that its client has left only when the server fails to write to it",
}
_WHOLE_BODY: Final = "the server receives the whole body before it calls the app"
_ONLY_HTTP_1: Final = {"HTTP/2": "the server speaks HTTP/1.1 only"}

_HOST_AND_PORT: Final = {"--host": "host", "--port": "port"}
_CERTIFICATE: Final = {"ssl_certfile": ("--certfile={ssl_certfile}",), "ssl_keyfile": ("--keyfile={ssl_keyfile}",)}
_GUNICORN: Final = {
    "tcp": ("--bind={bind}",),
    "uds": ("--bind=unix:{uds}",),
    "fd": ("--bind=fd://{fd}",),
    "workers": ("--workers={workers}",),
    "reload": ("--reload",),
    "log_level": ("--log-level={log_level}",),
    "access_log": ("--access-logfile=-",),
    "no_access_log": (),
    **_CERTIFICATE,
    "forwarded_allow_ips": ("--forwarded-allow-ips={forwarded_allow_ips}",),
    "proxy_headers": (),
    "no_proxy_headers": ("--forwarded-allow-ips=",),
}
_GUNICORN_ADDRESS: Final = {"--bind": "bind", "-b": "bind", "--certfile": "tls"}

#: What ``small_servers`` understands, for all of its servers.
_SMALL: Final = {
    "tcp": ("--host={host}", "--port={port}"),
    "uds": ("--uds={uds}",),
    "root_path": (),  # done in ``served``, as is no_proxy_headers where there are none
    "no_proxy_headers": (),
    **_CERTIFICATE,
}
_SMALL_ADDRESS: Final = {**_HOST_AND_PORT, "--uds": "uds", "--fd": "fd", "--certfile": "tls"}
_SMALL_MODULE: Final = "a2wsgi._cli.small_servers"

SERVERS: Final[Mapping[str, Server]] = MappingProxyType(
    {
        "uvicorn": Server(
            "uvicorn",
            "asgi3",
            "uvicorn",
            {
                "always": ("--interface=asgi3",),
                "tcp": ("--host={host}", "--port={port}"),
                "uds": ("--uds={uds}",),
                "fd": ("--fd={fd}",),
                "workers": ("--workers={workers}",),
                "root_path": ("--root-path={root_path}",),
                "reload": ("--reload", "--reload-dir={directory}"),
                "log_level": ("--log-level={log_level}",),
                "access_log": ("--access-log",),
                "no_access_log": ("--no-access-log",),
                "ssl_certfile": ("--ssl-certfile={ssl_certfile}",),
                "ssl_keyfile": ("--ssl-keyfile={ssl_keyfile}",),
                "forwarded_allow_ips": ("--forwarded-allow-ips={forwarded_allow_ips}",),
                "proxy_headers": ("--proxy-headers",),
                "no_proxy_headers": ("--no-proxy-headers",),
            },
            address={**_HOST_AND_PORT, "--uds": "uds", "--fd": "fd", "--ssl-certfile": "tls"},
            in_place=True,
            lacks={"HTTP/2": "needs `pip install zttp` and `-- --http zttp --http2`"},
        ),
        "hypercorn": Server(
            "hypercorn",
            "asgi3",
            "hypercorn",
            {
                "tcp": ("--bind={bind}",),
                "uds": ("--bind=unix:{uds}",),
                "fd": ("--bind=fd://{fd}",),
                "workers": ("--workers={workers}",),
                "root_path": ("--root-path={root_path}",),
                "reload": ("--reload",),
                "log_level": ("--log-level={log_level}",),
                "access_log": ("--access-logfile=-",),
                "no_access_log": (),
                **_CERTIFICATE,
                "no_proxy_headers": (),
            },
            address={"--bind": "bind", "-b": "bind", "--keyfile": "tls"},  # with a certificate alone it speaks HTTP
            app_prefix="asgi:",
        ),
        "granian": Server(
            "granian",
            "asgi3",
            "granian",
            {
                "always": ("--interface={interface}",),
                # A terminal's Ctrl-C reaches the worker, too. With the signal that the main process then sends, it has
                # two, and a worker for WSGI never ends (granian 2.8.9).
                "wsgi": ("--workers-kill-timeout=10",),
                "tcp": ("--host={host}", "--port={port}"),
                "uds": ("--uds={uds}",),
                "workers": ("--workers={workers}",),
                "threads": ("--blocking-threads={threads}",),
                "root_path": ("--url-path-prefix={root_path}",),
                "reload": ("--reload", "--reload-paths={directory}"),
                "log_level": ("--log-level={log_level}",),
                "access_log": ("--access-log",),
                "no_access_log": ("--no-access-log",),
                "ssl_certfile": ("--ssl-certificate={ssl_certfile}",),
                "ssl_keyfile": ("--ssl-keyfile={ssl_keyfile}",),
                "forwarded_allow_ips": (),  # by its own middleware, in ``served``
                "proxy_headers": (),
                "no_proxy_headers": (),
            },
            address={**_HOST_AND_PORT, "--uds": "uds", "--ssl-certificate": "tls"},
            takes_wsgi=True,
        ),
        "daphne": Server(
            "daphne",
            "asgi3",
            "daphne",
            {
                "tcp": ("--bind={host}", "--port={port}"),
                "tls": (
                    "--endpoint=ssl:{port}:interface={endpoint_host}:privateKey={ssl_keyfile}:certKey={ssl_certfile}",
                ),
                "uds": ("--unix-socket={uds}",),
                "fd": ("--fd={fd}",),
                "root_path": ("--root-path={root_path}",),
                "log_level": ("--verbosity={verbosity}",),
                "access_log": ("--access-log=-",),
                "no_access_log": ("--access-log=/dev/null",),
                "ssl_certfile": (),
                "ssl_keyfile": (),
                "proxy_headers": ("--proxy-headers",),
                "no_proxy_headers": (),
            },
            address={
                "--bind": "host",
                "-b": "host",
                "--port": "port",
                "-p": "port",
                "--fd": "fd",
                "--unix-socket": "uds",
                "-u": "uds",
                "--endpoint": "endpoint",
                "-e": "endpoint",
            },
            in_place=True,
            lacks={
                "lifespan": "the server sends no lifespan events: startup and shutdown code does not run",
                "streaming uploads": _WHOLE_BODY,
                "backpressure": "the server holds in memory whatever a slow client does not take",
                "HTTP/2": "needs `pip install 'twisted[tls,http2]'`",
            },
        ),
        "gunicorn": Server(
            "gunicorn",
            "wsgi",
            "gunicorn",
            {**_GUNICORN, "threads": ("--threads={threads}",)},
            environment={"root_path": ("SCRIPT_NAME", "{root_path}")},
            address=_GUNICORN_ADDRESS,
        ),
        "gunicorn-asgi": Server(
            "gunicorn",
            "asgi3",
            "'gunicorn>=24'",
            {**_GUNICORN, "always": ("--worker-class=asgi",), "root_path": ("--root-path={root_path}",)},
            address=_GUNICORN_ADDRESS,
            needs="gunicorn.asgi",
        ),
        "waitress": Server(
            "waitress",
            "wsgi",
            "waitress",
            {
                # With it, waitress notices that a client has left while its request runs.
                "always": ("--channel-request-lookahead=1",),
                "tcp": ("--host={host}", "--port={port}"),
                "uds": ("--unix-socket={uds}",),
                "threads": ("--threads={threads}",),
                "root_path": ("--url-prefix={root_path}",),
                "log_level": (),
                "no_access_log": (),
                "forwarded_allow_ips": ("--trusted-proxy={forwarded_allow_ips}",),
                "proxy_headers": (
                    "--trusted-proxy-headers=x-forwarded-for x-forwarded-proto x-forwarded-host",
                    "--clear-untrusted-proxy-headers",
                ),
                "no_proxy_headers": (),
            },
            address={**_HOST_AND_PORT, "--listen": "bind", "--unix-socket": "uds"},
            in_place=True,
            exits_on_sigterm=False,
            logger="waitress",
            lacks={"streaming uploads": _WHOLE_BODY, **_ONLY_HTTP_1},
        ),
        "cheroot": Server(
            _SMALL_MODULE,
            "wsgi",
            "cheroot",
            {**_SMALL, "always": ("--server=cheroot",), "threads": ("--threads={threads}",), "no_access_log": ()},
            address=_SMALL_ADDRESS,
            needs="cheroot",
            distribution="cheroot",
            in_place=True,
            exits_on_sigterm=False,
            lacks={**_OF_WSGI, **_ONLY_HTTP_1},
        ),
        "uwsgi": Server(
            "pyuwsgi",
            "wsgi",
            "pyuwsgi",
            {
                "always": (
                    "--master",
                    "--enable-threads",
                    "--lazy-apps",
                    "--need-app",
                    "--hook-master-start=unix_signal:15 gracefully_kill_them_all",
                ),
                "tcp": ("--http-socket={bind}",),
                "uds": ("--http-socket={uds}",),
                "fd": ("--http-socket=fd://{fd}",),
                "workers": ("--processes={workers}",),
                "threads": ("--threads={threads}",),
                "root_path": (),
                "access_log": (),
                "no_access_log": ("--disable-logging",),
            },
            address={"--http-socket": "bind", "--http": "bind", "--http11-socket": "bind"},
            app_prefix="--module=",
            is_program=True,
            lacks=_ONLY_HTTP_1,
        ),
        "gevent": Server(
            _SMALL_MODULE,
            "wsgi",
            "gevent",
            {
                **_SMALL,
                "always": ("--server=gevent",),
                "fd": ("--fd={fd}",),
                "access_log": ("--access-log",),
                "no_access_log": (),
            },
            address=_SMALL_ADDRESS,
            needs="gevent",
            distribution="gevent",
            exits_on_sigterm=False,
            lacks={**_OF_WSGI, **_ONLY_HTTP_1},
        ),
        "werkzeug": Server(
            _SMALL_MODULE,
            "wsgi",
            "werkzeug",
            {
                **_SMALL,
                "always": ("--server=werkzeug",),
                "fd": ("--fd={fd}",),
                "reload": ("--reload",),
                "log_level": (),
                "access_log": ("--access-log",),
                "no_access_log": (),
                "proxy_headers": (),  # by its own middleware, in ``served``
            },
            address=_SMALL_ADDRESS,
            needs="werkzeug",
            distribution="werkzeug",
            in_place=True,
            exits_on_sigterm=False,
            logger="werkzeug",
            lacks={**_ONLY_HTTP_1, "production use": "it is a server for development"},
        ),
    }
)

#: If the user names no server, the first of these that is installed is used.
DEFAULTS: Final = ("uvicorn", "waitress")
