"""Runs a WSGI app on an ASGI server, and an ASGI app on a WSGI server.

=========================  =============================================================================================
`WSGIMiddleware`           wraps a WSGI app, is an ASGI app
`ASGIMiddleware`           wraps an ASGI app, is a WSGI app; each becomes the other, if the app is of the other kind
`to_asgi`, `to_wsgi`       any app in, an ASGI 3 or a WSGI app out, with a bridge only where one is needed
`chain`                    an app under a list of middleware of either kind
`interface_of`             which interface an app speaks
`Statistics`               what `WSGIMiddleware.statistics` returns
`BridgeError` and others   the tree of errors, drawn in ``a2wsgi._errors``
=========================  =============================================================================================
"""

from ._convert import chain, to_asgi, to_wsgi
from ._errors import (
    AppError,
    AppInterfaceError,
    AppProtocolError,
    BridgeClosed,
    BridgeError,
    ClientDisconnected,
    InvalidHeader,
    LifespanFailed,
    MissingCapability,
    RequestTooLarge,
    ServerError,
    ServerProtocolError,
)
from ._interface import Interface, interface_of
from .asgi_to_wsgi import ASGIMiddleware
from .wsgi_to_asgi import Statistics, WSGIMiddleware

__version__ = "2.0.0.dev0"

__all__ = [
    "ASGIMiddleware",
    "AppError",
    "AppInterfaceError",
    "AppProtocolError",
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
    "__version__",
    "chain",
    "interface_of",
    "to_asgi",
    "to_wsgi",
]
