"""Runs a WSGI app on an ASGI server, and an ASGI app on a WSGI server.

=========================  =============================================================================================
`WSGIMiddleware`           turns a WSGI app into an ASGI app
`ASGIMiddleware`           turns an ASGI app into a WSGI app; either class creates the other for the other kind
`to_asgi`, `to_wsgi`       take any app and return an ASGI 3 or a WSGI app, with a bridge only if one is needed
`chain`                    wraps an app in WSGI and ASGI middleware, in any order
`interface_of`             tells which interface an app speaks
`run`                      serves an app of either kind on any server, from Python
`run_in_loop`              runs a coroutine on the server's event loop, from the sync code of a WSGI app
`async_to_sync`            turns an async function into a sync one, which runs on that loop
`WebSocket`                is a client's WebSocket, in the environ of a WSGI app
`BackgroundServer`         is what `run` returns if it serves in a thread
`Statistics`               is what `WSGIMiddleware.statistics` returns
`ASGIStatistics`           is what `ASGIMiddleware.statistics` returns
`BridgeError`              is the base of all errors; ``a2wsgi._errors`` draws the tree
=========================  =============================================================================================

The source is laid out by direction: ``_wsgi_on_asgi`` runs WSGI apps on ASGI servers, ``_asgi_on_wsgi`` ASGI apps on
WSGI servers, and ``_front`` is what makes one or the other. Each of the two has a map in its ``__init__``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._deprecated import deprecated as _warn_deprecated
from ._deprecated import missing as _missing
from ._errors import (
    AppError,
    AppInterfaceError,
    AppProtocolError,
    AppTimeout,
    BridgeClosed,
    BridgeError,
    ClientDisconnected,
    InvalidHeader,
    LifespanFailed,
    MissingCapability,
    RequestTooLarge,
    ServerError,
    ServerProtocolError,
    WebSocketClosed,
)
from ._interface import Interface, interface_of

__version__ = "2.0.0.dev0"

__all__ = [
    "ASGIMiddleware",
    "ASGIStatistics",
    "AppError",
    "AppInterfaceError",
    "AppProtocolError",
    "AppTimeout",
    "BackgroundServer",
    "BridgeClosed",
    "BridgeError",
    "ClientDisconnected",
    "Interface",
    "InvalidHeader",
    "LifespanFailed",
    "MissingCapability",
    "RequestTooLarge",
    "ServerError",
    "ServerProtocolError",
    "Statistics",
    "WSGIMiddleware",
    "WebSocket",
    "WebSocketClosed",
    "__version__",
    "async_to_sync",
    "chain",
    "interface_of",
    "run",
    "run_in_loop",
    "to_asgi",
    "to_wsgi",
]


if TYPE_CHECKING:
    from . import asgi as asgi
    from . import asgi_typing as asgi_typing
    from . import wsgi as wsgi
    from . import wsgi_typing as wsgi_typing
    from ._cli.background import BackgroundServer
    from ._cli.running import run
    from ._front.asgi_middleware import ASGIMiddleware
    from ._front.chain import chain
    from ._front.convert import to_asgi, to_wsgi
    from ._front.wsgi_middleware import WSGIMiddleware
    from ._statistics import ASGIStatistics, Statistics
    from ._wsgi_on_asgi.in_loop import async_to_sync, run_in_loop
    from ._wsgi_on_asgi.websocket.app_socket import WebSocket

#: Where each name is that is loaded when it is first asked for: a program imports what it uses, mostly one direction.
_LOADED_LATER = {
    "ASGIMiddleware": "_front.asgi_middleware",
    "ASGIStatistics": "_statistics",
    "BackgroundServer": "_cli.background",
    "Statistics": "_statistics",
    "WSGIMiddleware": "_front.wsgi_middleware",
    "WebSocket": "_wsgi_on_asgi.websocket.app_socket",
    "async_to_sync": "_wsgi_on_asgi.in_loop",
    "chain": "_front.chain",
    "run": "_cli.running",
    "run_in_loop": "_wsgi_on_asgi.in_loop",
    "to_asgi": "_front.convert",
    "to_wsgi": "_front.convert",
}


#: ``import a2wsgi`` has loaded these in a2wsgi 1.x.
_SUBMODULES = {"asgi", "asgi_typing", "wsgi", "wsgi_typing"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class, a function, a module or a tuple
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name in _LOADED_LATER:
        value = globals()[name] = getattr(import_module(f"{__name__}.{_LOADED_LATER[name]}"), name)
        return value
    if name != "VERSION":
        _missing(__name__, name, ())
    _warn_deprecated("a2wsgi.VERSION is deprecated. Use a2wsgi.__version__.")
    version = tuple(map(int, __version__.split(".")[:3]))
    globals()["VERSION"] = version  # ``from a2wsgi import VERSION`` asks twice
    return version


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
