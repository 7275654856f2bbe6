"""Any app in, an app of the wanted interface out; and an app under a stack of middleware of either kind.

A bridge costs a crossing between threads, so the fewest are made: an app that has the wanted interface stays as it is,
and a bridge around an app that has it is taken off. Two bridges never stand one around the other.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from ._errors import AppInterfaceError
from ._interface import MARK, interface_of, tell
from .asgi_to_wsgi import ASGIMiddleware
from .wsgi_to_asgi import WSGIMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ._interface import Interface
    from ._types import ASGIApp, Receive, Scope, Send, WSGIApp

    Spelt = tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]
    #: A callable that takes an app and gives one, alone or with more arguments for it.
    Middleware = Callable[..., Any] | Spelt

__all__ = ["chain", "to_asgi", "to_wsgi"]


def to_asgi(app: Any, /, **options: Any) -> ASGIApp:  # noqa: ANN401 - any app; see interface_of
    """An ASGI 3 app that does what ``app`` does.

    Args:
        app: A WSGI, ASGI 3 or ASGI 2 app.
        options: Those of `WSGIMiddleware`, for the bridge that is made, if one is.

    Returns:
        ``app`` itself if it is an ASGI 3 app; the app inside if it is an `ASGIMiddleware` around one.

    Raises:
        AppInterfaceError: It is no app, or its interface cannot be told. Wrap it in the class that says it.
        TypeError: An option that `WSGIMiddleware` does not have.

    Threading: any thread.
    """
    _check_options(WSGIMiddleware, options)
    app = _taken_off(app, ASGIMiddleware)
    interface = interface_of(app)
    if interface == "wsgi":
        return WSGIMiddleware(app, **options)
    return _ASGI2(app) if interface == "asgi2" else app


def to_wsgi(app: Any, /, **options: Any) -> WSGIApp:  # noqa: ANN401 - as above
    """A WSGI app that does what ``app`` does.

    Args:
        app: A WSGI, ASGI 3 or ASGI 2 app.
        options: Those of `ASGIMiddleware`, for the bridge that is made, if one is.

    Returns:
        ``app`` itself if it is a WSGI app; the app inside if it is a `WSGIMiddleware` around one.

    Raises:
        AppInterfaceError: It is no app, or its interface cannot be told. Wrap it in the class that says it.
        TypeError: An option that `ASGIMiddleware` does not have.

    Threading: any thread.
    """
    _check_options(ASGIMiddleware, options)
    app = _taken_off(app, WSGIMiddleware)
    return app if interface_of(app) == "wsgi" else ASGIMiddleware(app, **options)


def chain(app: Any, *middleware: Middleware) -> Any:  # noqa: ANN401 - as above
    """An app under a stack of middleware, each of which may be of either kind.

    Each is given the app beneath it by the interface that it wants, so it does not matter how WSGI and ASGI middleware
    are mixed. The fewest bridges are made: none between neighbours of one kind.

    Args:
        app: A WSGI, ASGI 3 or ASGI 2 app.
        middleware: Callables that take an app and return one, the outermost first; or tuples of such a callable, a
            sequence of arguments to follow the app, and a mapping of keyword arguments. What a class wants is told by
            its ``__call__``; what a function wants by that of the app which it returns, so one may be called twice.

    Returns:
        The app that the outermost gave, whose interface `interface_of` tells.

    Raises:
        AppInterfaceError: The app is none, or a middleware is no callable, or returns what is no app.

    Threading: any thread.
    """
    beneath: list[ASGIMiddleware] = []
    for item in reversed(middleware):
        # pyright: ignore below, as it takes a callable for a possible tuple of unknown members
        spelt: Spelt = item if isinstance(item, tuple) else (item, (), {})  # pyright: ignore[reportUnknownVariableType]
        make, arguments, options = spelt
        if not callable(make):
            raise AppInterfaceError(
                f"{make!r} is no middleware: it cannot be called. Pass a callable that takes an app, or a tuple of "
                "one, its further arguments and its keyword arguments."
            )
        app = _under(app, functools.partial(_given, make, arguments, options), _wanted(make), beneath)
    return app


def _given(make: Callable[..., Any], arguments: Sequence[Any], options: Mapping[str, Any], app: Any) -> Any:  # noqa: ANN401
    return make(app, *arguments, **options)


def _under(app: Any, make: Callable[[Any], Any], wanted: Interface | None, beneath: list[ASGIMiddleware]) -> Any:  # noqa: ANN401
    """What a middleware gives around ``app``, by the interface that it wants; None if only its result can tell.

    Middleware hides what it wraps. So the bridges to ASGI are noted in ``beneath``, for a bridge further out to pass
    its server's lifespan on to them.
    """
    if wanted is None:
        made = make(app)
        wanted = tell(made).interface
        if wanted is None or wanted == tell(app).interface:
            return made
    converted = to_wsgi(app) if wanted == "wsgi" else to_asgi(app)
    if isinstance(converted, ASGIMiddleware):
        beneath.append(converted)
    elif isinstance(converted, WSGIMiddleware):
        converted.carry_lifespan(beneath)
    return make(converted)


def _wanted(make: Callable[..., Any]) -> Interface | None:
    """The interface that a middleware wants of the app beneath it; None if only its result can tell."""
    if not inspect.isclass(make):
        return None
    if issubclass(make, WSGIMiddleware | ASGIMiddleware):
        return "wsgi" if getattr(make, MARK) == "asgi3" else "asgi3"  # a bridge wants what it is not
    # A bound method stands for an instance: the same arguments, and no instance made of a class that is not known.
    call = make.__dict__.get("__call__") or getattr(make, "__call__", None)  # noqa: B004 - the instances' one is meant
    return tell(call.__get__(object())).interface if inspect.isfunction(call) else None


def _taken_off(app: Any, kind: type[WSGIMiddleware | ASGIMiddleware]) -> Any:  # noqa: ANN401 - as above
    """The app inside the bridges of exactly this kind: one of a user's own class may do more than bridge."""
    while type(app) is kind:
        app = app.app
    return app


def _check_options(bridge: type[WSGIMiddleware | ASGIMiddleware], options: Mapping[str, Any]) -> None:
    """Raise the `TypeError` for an option that ``bridge`` does not have, whether one is made or not."""
    inspect.signature(bridge.__init__).bind(None, None, **options)


class _ASGI2:
    """An ASGI 2 app as an ASGI 3 app (ASGI, "Legacy Applications")."""

    def __init__(self, app: Callable[[Scope], Callable[[Receive, Send], Any]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope)(receive, send)
