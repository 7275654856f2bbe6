"""How the bridges look to servers, and what they say to a server of the wrong kind.

*Facts*

- Servers know an ASGI 3 app by ``inspect.iscoroutinefunction(app.__call__)``, which must be true of one bridge and
  false of the other.
- An ASGI server calls an app with three arguments, a WSGI server with two. Python itself would refuse the wrong number
  with a ``TypeError`` that helps nobody. So each ``__call__`` accepts both, shows the signature of its own interface,
  and raises an error that says what to write instead.

Specs: ASGI main specification, "Applications"; PEP 3333, "The Application/Framework Side"; PEP 362 (``__signature__``).
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ._errors import AppInterfaceError
from ._interface import MARK, an, is_bridge, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What the ``__call__`` of a bridge has in place of an argument that its caller did not give.
NOT_GIVEN: Any = object()

_Named = TypeVar("_Named", bound=Callable[..., object])


def named_as(name: str) -> Callable[[_Named], _Named]:
    """Give a function, or the methods of a class, a public name in tracebacks, warnings and ``repr``."""

    def rename(thing: _Named) -> _Named:
        _rename(thing, name)
        return thing

    return rename


def _rename(thing: object, name: str) -> None:
    if inspect.isfunction(thing):
        thing.__qualname__ = name
        return
    for attribute in vars(thing).values():
        for method in (attribute, getattr(attribute, "__wrapped__", None)):
            if callable(method) and hasattr(method, "__qualname__"):
                method.__qualname__ = f"{name}.{method.__name__}"


def asgi_call(call: _Named) -> _Named:
    """Make a ``__call__`` that returns a coroutine pass for a coroutine function.

    It cannot be one, because a coroutine function could not tell a WSGI server that it called the wrong app: Python
    refuses a call with two arguments, and if the third has a default, nothing runs before the coroutine is awaited.

    ``receive`` and ``send`` are `NOT_GIVEN` if the caller did not give them. The signature does not show it.
    """
    function = cast("types.FunctionType", call)
    function.__annotations__["return"] = "None"  # of a coroutine function: Litestar refuses any other to mount
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # PEP 362
    function.__defaults__ = (NOT_GIVEN, NOT_GIVEN)
    function.__name__ = "__call__"
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
        return call
    return cast("_Named", _marked(function))


def wsgi_call(call: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Make a ``__call__`` that an ASGI server can call as well, so that it can say what is wrong.

    ``start_response`` is `NOT_GIVEN` if the caller did not give it, and ``*rest`` holds whatever else was given. The
    signature shows neither.
    """
    function = cast("types.FunctionType", call)
    shown = inspect.signature(function)
    function.__signature__ = shown.replace(parameters=list(shown.parameters.values())[:-1])  # type: ignore[attr-defined]  # PEP 362
    function.__defaults__ = (NOT_GIVEN,)
    function.__name__ = "__call__"
    return call


def _marked(function: types.FunctionType) -> object:
    """Return a callable that runs ``function`` and passes for a coroutine function before Python 3.12.

    Those versions have no way to mark a function, but `inspect` takes a partial for the function that it wraps.
    """

    async def looked_at(*_: object) -> None: ...

    def bound(self: Callable[..., object], instance: object, _: type | None = None) -> object:
        return self if instance is None else types.MethodType(self, instance)

    kind = type("coroutine_function", (functools.partial,), {"__call__": staticmethod(function), "__get__": bound})
    return functools.update_wrapper(kind(looked_at), function)


def called_by_wrong_server(bridge: object, app: object, *args: object) -> AppInterfaceError:
    """Return the error for a bridge that was called as no server of its kind would call it.

    Args:
        bridge: The bridge.
        app: The app that it wraps.
        args: What it was called with.
    """
    makes = "ASGI" if getattr(type(bridge), MARK) == "asgi3" else "WSGI"
    wraps = "WSGI" if makes == "ASGI" else "ASGI"
    name, first = type(bridge).__name__, args[0]
    is_environ = isinstance(first, dict) and "wsgi.version" in first
    is_scope = isinstance(first, Mapping) and "type" in first and "wsgi.version" not in first
    if (makes == "ASGI" and not is_environ) or (makes == "WSGI" and not is_scope):
        given = sum(arg is not NOT_GIVEN for arg in args)
        wanted = "(scope, receive, send)" if makes == "ASGI" else "(environ, start_response)"
        return AppInterfaceError(
            f"This {name} is {an(makes)} app, but was called with {given} argument{'' if given == 1 else 's'}. "
            f"Servers call it with {wanted}."
        )
    convert = "to_wsgi" if makes == "ASGI" else "to_asgi"
    what = f"it turns the {wraps} app {name_of(app)} into {an(makes)} app"
    if is_bridge(app):
        what = f"it wraps another bridge, {name_of(app)}, but one bridge is enough"
    return AppInterfaceError(
        f"This {name} is {an(makes)} app, but was called by {an(wraps)} server or framework: {what}. Write "
        f"application = a2wsgi.{convert}(app) instead, where app is what the {name} wraps."
    )
