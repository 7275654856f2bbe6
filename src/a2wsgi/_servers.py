"""The servers that the command line knows: how each is started, and what it lacks.

*Facts*

- Each is started by its own command line, ``python -m module``, which any of its worker processes can repeat. It is
  given `SERVED` as its app.
- What a server lacks was seen by running it: uvicorn 0.54, hypercorn 0.18, granian 2.8, daphne 4.2, gunicorn 27,
  waitress 3.0.
- uvicorn's ``--root-path`` is for a proxy that takes the prefix off, gunicorn's ``SCRIPT_NAME`` for one that leaves it
  on. The others take both.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._interface import Interface

__all__ = ["DEFAULTS", "SERVED", "SERVERS", "Server"]

#: The app that servers are given: it loads the user's, and converts it.
SERVED: Final = "a2wsgi._served:app"

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class Server:
    """A server.

    The texts of options have ``{host}``, ``{port}``, ``{bind}`` (both, as in ``127.0.0.1:8000``), ``{workers}``,
    ``{root_path}`` and ``{directory}`` (of the app's module) filled in.

    Attributes:
        module: What ``python -m`` runs.
        interface: What the server calls.
        package: What pip installs.
        options: What is always passed.
        workers: How it is told its number of processes; empty for a server that has one.
        root_path: How it is told the prefix that its apps are mounted under.
        root_path_environment: The same, by the environment.
        reload: How it is told to restart when code changes; empty for a server that cannot.
        app_prefix: Stands before the name of the app.
        needs: The module by which it is known to be installed, if not ``module``.
        exits_on_sigterm: Whether SIGTERM ends it in good order.
        lacks: What an app has to do without, and why.
    """

    module: str
    interface: Literal["asgi3", "wsgi"]
    package: str
    options: Sequence[str]
    workers: Sequence[str] = ()
    root_path: Sequence[str] = ()
    root_path_environment: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    reload: Sequence[str] = ()
    app_prefix: str = ""
    needs: str | None = None
    exits_on_sigterm: bool = True
    lacks: Mapping[str, str] = field(default_factory=lambda: _NOTHING)

    def version(self) -> str | None:
        """The version that is installed; None if it is not."""
        needs = self.needs or self.module
        try:
            found = importlib.util.find_spec(needs)
        except ModuleNotFoundError:  # of the package that `needs` is in
            return None
        return importlib.metadata.version(self.module) if found else None

    def missing(self, interface: Interface) -> dict[str, str]:
        """What an app of this interface has to do without on this server, and why."""
        if interface != "wsgi":
            return dict(self.lacks)
        missing = {feature: why for feature, why in self.lacks.items() if feature not in {"lifespan", "WebSockets"}}
        if self.interface != "wsgi":
            missing["WebSockets"] = "a WSGI app cannot take them: the handshake is answered 403"
        return missing


_OF_WSGI: Final = {
    "WebSockets": "WSGI has none; the server refuses or ignores the handshake",
    "early disconnects": "the app learns that its client has left when a write of the server fails",
}
_WHOLE_BODY: Final = "the server takes the whole body before it calls the app"

SERVERS: Final[Mapping[str, Server]] = MappingProxyType(
    {
        "uvicorn": Server(
            "uvicorn",
            "asgi3",
            "uvicorn",
            options=("--host={host}", "--port={port}", "--interface=asgi3"),
            workers=("--workers={workers}",),
            root_path=("--root-path={root_path}",),
            reload=("--reload", "--reload-dir={directory}"),
            lacks={"HTTP/2": "needs `pip install zttp` and `-- --http zttp --http2`"},
        ),
        "hypercorn": Server(
            "hypercorn",
            "asgi3",
            "hypercorn",
            options=("--bind={bind}",),
            workers=("--workers={workers}",),
            root_path=("--root-path={root_path}",),
            reload=("--reload",),
            app_prefix="asgi:",
        ),
        "granian": Server(
            "granian",
            "asgi3",
            "granian",
            options=("--interface=asgi", "--host={host}", "--port={port}"),
            workers=("--workers={workers}",),
            root_path=("--url-path-prefix={root_path}",),
            reload=("--reload", "--reload-paths={directory}"),
        ),
        "daphne": Server(
            "daphne",
            "asgi3",
            "daphne",
            options=("--bind={host}", "--port={port}"),
            root_path=("--root-path={root_path}",),
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
            options=("--bind={bind}",),
            workers=("--workers={workers}",),
            root_path_environment={"SCRIPT_NAME": "{root_path}"},
            reload=("--reload",),
            lacks=_OF_WSGI,
        ),
        "gunicorn-asgi": Server(
            "gunicorn",
            "asgi3",
            "'gunicorn>=24'",
            options=("--worker-class=asgi", "--bind={bind}"),
            workers=("--workers={workers}",),
            root_path=("--root-path={root_path}",),
            reload=("--reload",),
            needs="gunicorn.asgi",
        ),
        "waitress": Server(
            "waitress",
            "wsgi",
            "waitress",
            options=("--listen={bind}",),
            root_path=("--url-prefix={root_path}",),
            exits_on_sigterm=False,
            lacks={**_OF_WSGI, "streaming uploads": _WHOLE_BODY, "HTTP/2": "the server speaks HTTP/1.1 only"},
        ),
    }
)

#: Which of them is taken where none is named: the first that is installed.
DEFAULTS: Final = ("uvicorn", "waitress")
