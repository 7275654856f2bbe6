"""An app under a stack of middleware of either kind, with as few bridges as possible between them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from a2wsgi._errors import AppInterfaceError
from a2wsgi._interface import MARK, detect, name_of

from .asgi_middleware import ASGIMiddleware
from .convert import as_asgi, as_wsgi, without_bridge
from .wsgi_middleware import WSGIMiddleware

if TYPE_CHECKING:
    from a2wsgi._interface import Interface

Unpacked: TypeAlias = tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]
#: A callable that takes an app and gives one, alone or with more arguments for it.
Middleware: TypeAlias = Callable[..., Any] | Unpacked

_BRIDGES = (WSGIMiddleware, ASGIMiddleware)


def chain(app: Any, *middleware: Middleware) -> Any:  # noqa: ANN401 - any app
    """Wrap an app in a stack of WSGI and ASGI middleware, in any order.

    Each middleware gets the app below it as the kind of app that it needs. `chain` adds a bridge only where the kind
    changes, never between neighbours of the same kind.

    Args:
        app: A WSGI, ASGI 3 or ASGI 2 app.
        middleware: The middleware, outermost first. Each is a callable that takes an app and returns one, or a tuple of
            such a callable, a sequence of further arguments, and a mapping of keyword arguments. The ``__call__`` of a
            class shows which kind it needs. If it does not, a class gets an ASGI 3 app and a function gets the app as
            it is; the kind of app that they return decides. They may be called up to three times to find out. If they
            return an app that takes ``*args``, it counts as the same kind as the app below it.

    Returns:
        The app that the outermost middleware returned. `interface_of` tells its interface.

    Raises:
        AppInterfaceError: ``app`` is not an app, a middleware is not callable, or one did not return an app.

    Threading: any thread.
    """
    stack = _Stack(app)
    for item in reversed(middleware):
        stack.cover(item)
    return stack.app


class _Stack:
    """An app under the middleware that has been put around it so far."""

    def __init__(self, app: Any) -> None:  # noqa: ANN401 - any app
        self.app = app
        # Kept, because the interface of what a middleware returned may not be detectable.
        self._interface: Interface | None = detect(app).interface
        # Middleware hides what it wraps. These bridges are remembered, so that bridges further out can pass the
        # lifespan of their server on to them.
        self._beneath: list[ASGIMiddleware] = []
        self._remember(app)

    def cover(self, item: Middleware) -> None:
        """Put one middleware around the app."""
        make, arguments, options = _unpacked(item)

        def cover(app: Any) -> Any:  # noqa: ANN401 - any app
            return make(app, *arguments, **options)

        wanted = _wanted_interface(make)
        made = self._cover_by_result(make, cover) if wanted is None else cover(self._converted(wanted))
        self._interface = _interface_of_result(make, made) or self._interface
        self._remember(made)
        self.app = made

    def _cover_by_result(self, make: Callable[..., Any], cover: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - any app
        """What ``cover`` returns for the app, once the app has the interface that the result has."""
        # A class always makes the same kind of app, so it is given an ASGI 3 app, which all new ones take. A function
        # may make either kind, depending on what it is given, so it is given the app as it is.
        given = self._interface
        if given is not None and _class_of(make) is not None:
            given = "asgi3"
        try:
            made = cover(self.app if given is None else self._converted(given))
        except AppInterfaceError:  # it makes a bridge of a user's own class, and those take only one kind
            return cover(self._converted("wsgi" if given == "asgi3" else "asgi3"))
        if isinstance(made, _BRIDGES):
            return made
        wanted = _interface_of_result(make, made)
        if wanted is None:  # it passes its arguments on, whatever they are
            return made if given == self._interface else cover(self.app)
        if wanted == "asgi2" and given != "asgi3":
            # Sentry's middleware takes every app that is not ASGI 3 to be ASGI 2.
            made = cover(self._converted("asgi3"))
            given, wanted = "asgi3", _interface_of_result(make, made)
        return made if wanted is None or wanted == given else cover(self._converted(wanted))

    def _converted(self, wanted: Interface) -> Any:  # noqa: ANN401 - any app
        """The app, made to speak an interface."""
        inside, has = without_bridge(self.app, wanted, self._interface)
        if inside is not self.app and self.app in self._beneath:
            self._beneath.remove(self.app)
        if has == wanted:
            converted = inside
        elif wanted == "wsgi":
            converted = as_wsgi(inside, has)
        else:
            converted = as_asgi(inside, has)
            if wanted == "asgi2":
                converted = functools.partial(functools.partial, converted)  # scope, then receive and send
        self._remember(converted)
        return converted

    def _remember(self, app: object) -> None:
        """Remember a bridge to ASGI, and tell a bridge to WSGI of those beneath it."""
        if isinstance(app, ASGIMiddleware) and app not in self._beneath:
            self._beneath.append(app)
        elif isinstance(app, WSGIMiddleware):
            app.carry_lifespan(self._beneath)


def _unpacked(item: object) -> Unpacked:
    """A middleware, the arguments that follow the app, and its keyword arguments."""
    name = name_of(item)
    if isinstance(item, tuple):
        parts = cast("Sequence[Any]", item)
        if len(parts) == 3 and callable(parts[0]):
            return cast("Unpacked", item)
    elif callable(item):
        return item, (), {}
    raise AppInterfaceError(
        f"{name} is not middleware. Pass a callable that takes an app, or a tuple of such a callable, a sequence "
        "of further arguments and a mapping of keyword arguments."
    )


def _interface_of_result(make: Callable[..., Any], made: object) -> Interface | None:
    """The interface of what a middleware returned; None if it cannot be detected."""
    try:
        return detect(made).interface
    except AppInterfaceError as error:
        raise AppInterfaceError(
            f"The middleware {name_of(make)} returned something that is not an app. {error}"
        ) from None


def _wanted_interface(make: Callable[..., Any]) -> Interface | None:
    """The interface that a middleware wants the app beneath it to have; None if only its result can tell."""
    cls = _class_of(make)
    if cls is None:
        return None
    if issubclass(cls, _BRIDGES):
        return "wsgi" if getattr(cls, MARK) == "asgi3" else "asgi3"  # a bridge wants the opposite of what it is
    # A bound method takes the same arguments as an instance, and nobody knows how to make an instance of this class.
    call = next((vars(base)["__call__"] for base in cls.__mro__ if "__call__" in vars(base)), None)
    return detect(call.__get__(object())).interface if inspect.isfunction(call) else None


def _class_of(make: Callable[..., Any]) -> type | None:
    """The class of a middleware; None for a function, and for our own two classes, since each may make the other."""
    while isinstance(make, functools.partial):
        make = make.func
    return make if inspect.isclass(make) and make not in _BRIDGES else None
