"""Any app in, an app of the wanted interface out; and an app under a stack of middleware of either kind.

A bridge costs a crossing between threads, so the fewest are made: an app that has the wanted interface stays as it is,
and a bridge around an app that has it is taken off. Two bridges never stand one around the other.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, cast

from ._errors import AppInterfaceError
from ._interface import MARK, interface_of, tell
from .asgi_to_wsgi import ASGIMiddleware
from .wsgi_to_asgi import WSGIMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Unpack

    from ._interface import Interface
    from ._types import ASGIApp, Receive, Scope, Send, ToASGIOptions, ToWSGIOptions, WSGIApp

    Spelt = tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]
    #: A callable that takes an app and gives one, alone or with more arguments for it.
    Middleware = Callable[..., Any] | Spelt

__all__ = ["chain", "to_asgi", "to_wsgi"]

_BRIDGES = (WSGIMiddleware, ASGIMiddleware)
_NO_OPTIONS: Mapping[str, Any] = {}


def to_asgi(app: Any, /, **options: Unpack[ToASGIOptions]) -> ASGIApp:  # noqa: ANN401 - any app; see interface_of
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
    inside, interface = _taken_off(app, "asgi3")
    return _as_asgi(inside, interface, options)


def to_wsgi(app: Any, /, **options: Unpack[ToWSGIOptions]) -> WSGIApp:  # noqa: ANN401 - as above
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
    inside, interface = _taken_off(app, "wsgi")
    return _as_wsgi(inside, interface, options)


def chain(app: Any, *middleware: Middleware) -> Any:  # noqa: ANN401 - as above
    """An app under a stack of middleware, each of which may be of either kind.

    Each is given the app beneath it by the interface that it wants, so it does not matter how WSGI and ASGI middleware
    are mixed. The fewest bridges are made: none between neighbours of one kind.

    Args:
        app: A WSGI, ASGI 3 or ASGI 2 app.
        middleware: Callables that take an app and return one, the outermost first; or tuples of such a callable, a
            sequence of arguments to follow the app, and a mapping of keyword arguments. What a class wants is told by
            its ``__call__``; what a function wants by the app that it returns, so it may be called twice. An app of
            ``*args`` counts as one of the kind of what is beneath it.

    Returns:
        The app that the outermost gave, whose interface `interface_of` tells.

    Raises:
        AppInterfaceError: The app is none, or a middleware is no callable, or returns what is no app.

    Threading: any thread.
    """
    stack = _Stack(app)
    for item in reversed(middleware):
        stack.cover(item)
    return stack.app


class _Stack:
    """An app under the middleware so far."""

    def __init__(self, app: Any) -> None:  # noqa: ANN401 - as above
        self.app = app
        # Kept besides: what is around the app may be silent.
        self._interface: Interface | None = tell(app).interface
        # Middleware hides what it wraps. So the bridges to ASGI are kept in sight, for those further out to pass their
        # server's lifespan on to them.
        self._beneath: list[ASGIMiddleware] = []
        self._note(app)

    def cover(self, item: Middleware) -> None:
        """Put one middleware around it."""
        make, arguments, options = _spelt(item)

        def cover(app: Any) -> Any:  # noqa: ANN401 - as above
            return make(app, *arguments, **options)

        wanted = _wanted(make)
        made = self._cover_by_result(make, cover) if wanted is None else cover(self._converted(wanted))
        self._interface = _told(make, made) or self._interface
        self._note(made)
        self.app = made

    def _cover_by_result(self, make: Callable[..., Any], cover: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - as above
        """What ``cover`` gives for the app as it is, or else for the app by the interface that the result has."""
        try:
            made = cover(self.app)
        except AppInterfaceError:  # of a bridge that it makes, of a user's own class: those take one kind
            return cover(self._converted("asgi3" if self._interface == "wsgi" else "wsgi"))
        if isinstance(made, _BRIDGES):
            return made
        wanted = _told(make, made)
        return made if wanted is None or wanted == self._interface else cover(self._converted(wanted))

    def _converted(self, wanted: Interface) -> Any:  # noqa: ANN401 - as above
        """The app by an interface."""
        inside, has = _taken_off(self.app, wanted, self._interface)
        if inside is not self.app and self.app in self._beneath:
            self._beneath.remove(self.app)
        if has == wanted:
            converted = inside
        elif wanted == "wsgi":
            converted = _as_wsgi(inside, has)
        else:
            converted = _as_asgi(inside, has)
            if wanted == "asgi2":
                converted = functools.partial(functools.partial, converted)  # scope, then receive and send
        self._note(converted)
        return converted

    def _note(self, app: object) -> None:
        if isinstance(app, ASGIMiddleware) and app not in self._beneath:
            self._beneath.append(app)
        elif isinstance(app, WSGIMiddleware):
            app.carry_lifespan(self._beneath)


def _spelt(item: object) -> Spelt:
    """A middleware with its arguments."""
    name = _name(item)
    if isinstance(item, tuple):
        parts = cast("Sequence[Any]", item)
        if len(parts) == 3 and callable(parts[0]):
            return cast("Spelt", item)
    elif callable(item):
        return item, (), {}
    raise AppInterfaceError(
        f"{name} is no middleware. Pass a callable that takes an app, or a tuple of such a callable, a sequence "
        "of further arguments and a mapping of keyword arguments."
    )


def _name(thing: object) -> str:
    """For messages; never the ``repr``, which may raise or be long."""
    named = thing if isinstance(thing, type) or inspect.isroutine(thing) else type(thing)
    return f"{named.__module__}.{named.__qualname__}"


def _told(make: Callable[..., Any], made: object) -> Interface | None:
    """The interface of what a middleware returned; None if it is silent."""
    try:
        return tell(made).interface
    except AppInterfaceError as error:
        raise AppInterfaceError(f"The middleware {_name(make)} returned what is no app. {error}") from None


def _wanted(make: Callable[..., Any]) -> Interface | None:
    """The interface that a middleware wants of the app beneath it; None if only its result can tell."""
    while isinstance(make, functools.partial):
        make = make.func
    if not inspect.isclass(make) or make in _BRIDGES:
        return None
    if issubclass(make, _BRIDGES):
        return "wsgi" if getattr(make, MARK) == "asgi3" else "asgi3"  # a bridge wants what it is not
    # A bound method stands for an instance: the same arguments, and no instance made of a class that is not known.
    call = next((vars(base)["__call__"] for base in make.__mro__ if "__call__" in vars(base)), None)
    return tell(call.__get__(object())).interface if inspect.isfunction(call) else None


def _as_asgi(app: Any, interface: Interface, options: Mapping[str, Any] = _NO_OPTIONS) -> ASGIApp:  # noqa: ANN401
    if interface == "wsgi":
        bridge: ASGIApp = WSGIMiddleware(app, **options)
        return bridge
    return _ASGI2(app) if interface == "asgi2" else app


def _as_wsgi(app: Any, interface: Interface, options: Mapping[str, Any] = _NO_OPTIONS) -> WSGIApp:  # noqa: ANN401
    served: WSGIApp = app if interface == "wsgi" else ASGIMiddleware(app, **options)
    return served


def _taken_off(app: Any, wanted: Interface, known: Interface | None = None) -> tuple[Any, Interface]:  # noqa: ANN401
    """The app, without a bridge around one of the ``wanted`` kind; and its interface, if it is not ``known``."""
    # Of exactly this class: one of a user's own may do more than bridge.
    if wanted == "wsgi" and type(app) is WSGIMiddleware:
        return app.app, tell(app.app).interface or "wsgi"
    if wanted != "wsgi" and type(app) is ASGIMiddleware:
        return app.app, tell(app.app).interface or "asgi3"
    return app, known or interface_of(app)


def _check_options(bridge: type[WSGIMiddleware | ASGIMiddleware], options: Mapping[str, Any]) -> None:
    """Raise the `TypeError` for an option that ``bridge`` does not have, whether one is made or not."""
    inspect.signature(bridge.__init__).bind(None, None, **options)


class _ASGI2:
    """An ASGI 2 app as an ASGI 3 app (ASGI, "Legacy Applications")."""

    def __init__(self, app: Callable[[Scope], Callable[[Receive, Send], Any]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope)(receive, send)
