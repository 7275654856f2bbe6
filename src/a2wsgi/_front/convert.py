"""The functions that put a bridge around an app only if it needs one.

An app that has the wanted interface already is returned as it is, and a bridge is taken off if the app inside it has
the wanted interface. A request crosses between threads at each bridge, so none is put directly around another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from a2wsgi import _type_hints as hints
from a2wsgi._asgi_on_wsgi.settings import ASGISettings
from a2wsgi._interface import detect, interface_of
from a2wsgi._wsgi_on_asgi.settings import WSGISettings

from .asgi_middleware import ASGIMiddleware
from .wsgi_middleware import WSGIMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from a2wsgi._interface import Interface

_NO_OPTIONS: Mapping[str, Any] = {}


def to_asgi(app: Any, /, **options: hints.Unpack[hints.ToASGIOptions]) -> hints.ASGIApp:  # noqa: ANN401 - any app
    """Return ``app`` as an ASGI 3 app, with a `WSGIMiddleware` around it only if it needs one.

    Args:
        app: A WSGI, ASGI 3 or ASGI 2 app.
        options: Options of `WSGIMiddleware`, used if one is created.

    Returns:
        ``app`` itself if it is an ASGI 3 app; the app inside if it is an `ASGIMiddleware` around one.

    Raises:
        AppInterfaceError: It is not an app, or its interface cannot be detected. Wrap it in one of the two classes.
        TypeError: `WSGIMiddleware` has no such option, or its value is of the wrong type.
        ValueError: The value of an option is out of range.

    Threading: any thread.
    """
    WSGISettings(**options)  # checks them even if no bridge is made
    inside, interface = without_bridge(app, "asgi3")
    return as_asgi(inside, interface, options)


def to_wsgi(app: Any, /, **options: hints.Unpack[hints.ToWSGIOptions]) -> hints.WSGIApp:  # noqa: ANN401 - any app
    """Return ``app`` as a WSGI app, with an `ASGIMiddleware` around it only if it needs one.

    Args:
        app: A WSGI, ASGI 3 or ASGI 2 app.
        options: Options of `ASGIMiddleware`, used if one is created.

    Returns:
        ``app`` itself if it is a WSGI app; the app inside if it is a `WSGIMiddleware` around one.

    Raises:
        AppInterfaceError: It is not an app, or its interface cannot be detected. Wrap it in one of the two classes.
        TypeError: `ASGIMiddleware` has no such option, or its value is of the wrong type.
        ValueError: The value of an option is out of range.

    Threading: any thread.
    """
    ASGISettings(**options)  # checks them even if no bridge is made
    inside, interface = without_bridge(app, "wsgi")
    return as_wsgi(inside, interface, options)


def as_asgi(app: Any, interface: Interface, options: Mapping[str, Any] = _NO_OPTIONS) -> hints.ASGIApp:  # noqa: ANN401
    if interface == "wsgi":
        bridge: hints.ASGIApp = WSGIMiddleware(app, **options)
        return bridge
    return ASGI3FromASGI2(app) if interface == "asgi2" else app


def as_wsgi(app: Any, interface: Interface, options: Mapping[str, Any] = _NO_OPTIONS) -> hints.WSGIApp:  # noqa: ANN401
    served: hints.WSGIApp = app if interface == "wsgi" else ASGIMiddleware(app, **options)
    return served


def without_bridge(app: Any, wanted: Interface, known: Interface | None = None) -> tuple[Any, Interface]:  # noqa: ANN401
    """The app, less a bridge around one that has the ``wanted`` interface; and the interface of what is returned."""
    # Only these very classes: a user's own subclass may do more than bridge.
    if wanted == "wsgi" and type(app) is WSGIMiddleware:
        return app.app, detect(app.app).interface or "wsgi"
    if wanted != "wsgi" and type(app) is ASGIMiddleware:
        return app.app, detect(app.app).interface or "asgi3"
    return app, known or interface_of(app)


class ASGI3FromASGI2:
    """An ASGI 2 app as an ASGI 3 app (ASGI, "Legacy Applications")."""

    def __init__(self, app: Callable[[hints.Scope], Callable[[hints.Receive, hints.Send], Any]]) -> None:
        self.app = app

    async def __call__(self, scope: hints.Scope, receive: hints.Receive, send: hints.Send) -> None:
        await self.app(scope)(receive, send)
