"""Runs a WSGI app on an ASGI server, and an ASGI app on a WSGI server.

=========================  =============================================================================================
`WSGIMiddleware`           wraps a WSGI app, is an ASGI app
`Statistics`               what `WSGIMiddleware.statistics` returns
`BridgeError` and others   the tree of errors, drawn in ``a2wsgi._errors``
=========================  =============================================================================================
"""

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
from .wsgi_to_asgi import Statistics, WSGIMiddleware

__version__ = "2.0.0.dev0"

__all__ = [
    "AppError",
    "AppInterfaceError",
    "AppProtocolError",
    "BridgeClosed",
    "BridgeError",
    "ClientDisconnected",
    "InvalidHeader",
    "LifespanFailed",
    "MissingCapability",
    "RequestTooLarge",
    "ServerError",
    "ServerProtocolError",
    "Statistics",
    "WSGIMiddleware",
    "__version__",
]
