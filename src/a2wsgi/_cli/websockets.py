"""Which WebSockets an app has, as far as its framework tells, and what stands in their way on a server.

No framework is imported here: an app of one has brought it.
"""

from __future__ import annotations

import contextlib
import importlib.util
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from a2wsgi._interface import Interface

_NO_EXTRA: Final = "need `pip install 'a2wsgi[websocket]'`"


def paths_of(app: Any) -> list[str]:  # noqa: ANN401 - any app
    """The paths of an app's WebSockets: Starlette's and FastAPI's, Flask-Sock's and Quart's, Flask-SocketIO's.

    Empty where the framework tells of none, or is another.
    """
    found: list[str] = []
    for look in (_of_starlette, _of_werkzeug, _of_socketio):
        with contextlib.suppress(Exception):  # an object of any kind may have attributes of the same name
            found += look(app)
    return sorted(set(found))


def why_missing(app: Any, interface: Interface, server_interface: Interface) -> str | None:  # noqa: ANN401 - any app
    """Why an app's WebSockets do not work on a server; None if they do, or if there is no bridge to carry them."""
    if (interface == "wsgi") == (server_interface == "wsgi"):
        return None
    if importlib.util.find_spec("websockets") is None:
        return _NO_EXTRA
    mode = None if interface != "wsgi" else _mode_of_socketio(app)
    if mode not in {None, "threading"}:
        return f"Flask-SocketIO chose async_mode={mode!r}, which does not work here: pass async_mode='threading'"
    return None


def _of_starlette(app: Any) -> Iterator[str]:  # noqa: ANN401 - any app
    return _of_routes(app.routes, "")


def _of_routes(routes: Iterable[Any], prefix: str) -> Iterator[str]:
    for route in routes:
        names = {kind.__name__ for kind in type(route).__mro__}
        if "WebSocketRoute" in names:
            yield prefix + route.path
        elif "Mount" in names:
            yield from _of_routes(route.routes or (), prefix + route.path)


def _of_werkzeug(app: Any) -> Iterator[str]:  # noqa: ANN401 - any app
    return (rule.rule for rule in app.url_map.iter_rules() if rule.websocket)


def _of_socketio(app: Any) -> Iterator[str]:  # noqa: ANN401 - any app
    if _mode_of_socketio(app) is not None:
        yield "/socket.io"


def _mode_of_socketio(app: Any) -> str | None:  # noqa: ANN401 - any app
    """The ``async_mode`` of an app's Flask-SocketIO; None if it has none."""
    try:
        return str(app.extensions["socketio"].async_mode)
    except Exception:  # noqa: BLE001 - as in paths_of()
        return None
