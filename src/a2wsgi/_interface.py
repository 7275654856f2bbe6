"""WSGI, ASGI 3 or ASGI 2: which interface an app speaks, and how we know.

*Facts*

- ``asgi3``: ``await app(scope, receive, send)`` (ASGI main specification, "Applications").
- ``asgi2``: ``await app(scope)(receive, send)`` (ASGI main specification, "Legacy Applications").
- ``wsgi``: ``app(environ, start_response)`` returns an iterable; the app may be a class, whose instances are the
  iterables (PEP 3333, "The Application/Framework Side").

An app is examined and never called. The evidence, strongest first:

1. Our own bridges name their interface. What cannot be an app is refused: modules, strings, ``None``, coroutines.
2. A class is never judged by its arguments alone: ``Flask(import_name, static_url_path)`` would pass for WSGI and
   ``Starlette(debug, routes, middleware)`` for ASGI 3. Its instances must be able to do what the interface needs.
3. An object is judged by the ``__call__`` that Python would run. The signature of the object itself may be another's.
4. An app's own signature comes first. ``__wrapped__`` counts only if that is silent, since a decorator may change the
   arguments, and it can only confirm an interface, not refuse one.
5. Async: a callable of three arguments is ASGI 3, even of ``*args``. Any other is refused: no server awaits it.
6. Not async: two arguments mean WSGI, three mean ASGI 3 (it returns an awaitable), and one means ASGI 2 if it is called
   ``scope``. If defaults allow both two and three, the required arguments decide. A required keyword-only argument is
   refused, async or not.
7. Silent: a signature such as ``*args`` says nothing. The constructors of the bridges then go by their class's name;
   everywhere else it is an error.

The app's own code (descriptors, ``__getattr__``) may run while it is examined, and may raise. No such error gets out.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, ParamSpec, TypeGuard, TypeVar

from ._errors import AppInterfaceError

if sys.version_info >= (3, 14):
    import annotationlib

    # PEP 649: evaluating annotations would run code, and fail on names that are imported for type checkers only.
    _FORMAT = annotationlib.Format.STRING
    signature_of = functools.partial(inspect.signature, follow_wrapped=False, annotation_format=_FORMAT)
else:
    signature_of = functools.partial(inspect.signature, follow_wrapped=False)

Interface = Literal["wsgi", "asgi3", "asgi2"]
_INTERFACES: tuple[Interface, ...] = ("wsgi", "asgi3", "asgi2")

# The class attribute in which our own bridges name the interface of their instances.
MARK: Final = "_a2wsgi_interface_"


class Verdict(NamedTuple):
    """Which interface an app speaks, and how we know.

    Args:
        interface: The interface, or ``None`` if the app's signature does not tell.
        evidence: A sentence for users, without its full stop.
    """

    interface: Interface | None
    evidence: str


def interface_of(app: object) -> Interface:
    """Return which interface ``app`` speaks, without calling it.

    Args:
        app: A WSGI, ASGI 3 or ASGI 2 app.

    Returns:
        ``"wsgi"``, ``"asgi3"`` or ``"asgi2"``.

    Raises:
        AppInterfaceError: ``app`` is not an app, or its signature does not tell. The message says how to fix it.

    Threading:
        Any thread.
    """
    verdict = detect(app)
    if verdict.interface is None:
        fix = "Wrap it in WSGIMiddleware if it is a WSGI app, or in ASGIMiddleware if it is an ASGI app."
        raise AppInterfaceError(f"{verdict.evidence}, which could be WSGI or ASGI. {_quietly(_advice, app) or fix}")
    return verdict.interface


def detect(app: object) -> Verdict:
    """Return which interface ``app`` speaks, and how we know, without calling it.

    Args:
        app: A WSGI, ASGI 3 or ASGI 2 app.

    Returns:
        The verdict. Its interface is ``None`` where the app's signature is silent.

    Raises:
        AppInterfaceError: ``app`` is not an app. The message says how to fix it.

    Threading:
        Any thread.
    """
    verdict = _detect(app)
    if isinstance(verdict, _Refusal):
        raise AppInterfaceError(f"{verdict.what}. {_quietly(_advice, app, _HOLDERS) or verdict.fix}")
    return verdict


def first_argument(args: tuple[object, ...], options: dict[str, object]) -> object:
    """Return the app among a constructor's arguments; if there is none, a function whose signature is silent."""
    return args[0] if args else options.get("app", _says_nothing)


def _says_nothing(*args: object) -> None: ...


def wrong_kind(bridge: str, app: object, wanted: str, given: str) -> AppInterfaceError:
    """Return the error for a subclass of a bridge that was given an app of the other kind."""
    return AppInterfaceError(
        f"{bridge} wraps {wanted} apps, but {name_of(app)} is {an(given)} app. A subclass "
        f"cannot become the other bridge. Wrap the app in {given}Middleware, or call to_asgi or to_wsgi."
    )


def is_bridge(app: object) -> bool:
    """Return whether ``app`` is one of our own bridges."""
    return _declared(type(app), MARK) is not None


def an(interface: str) -> str:
    """Return the name of an interface with its article."""
    return f"an {interface}" if interface == "ASGI" else f"a {interface}"


# This and `_Shape` are no NamedTuples: making one takes 0.3 ms of the import's 10 (benchmarks/start_up.py).
class _Refusal:
    """Why something is not an app, and how to fix it."""

    __slots__ = ("fix", "what")

    def __init__(self, what: str, fix: str) -> None:
        self.what = what
        self.fix = fix


_App = Callable[..., object]
_Binding = functools.partial[object] | types.MethodType


def _detect(app: object) -> Verdict | _Refusal:
    mark = _declared(type(app), MARK)
    for interface in _INTERFACES:
        if mark == interface:
            return Verdict(interface, f"{name_of(app)} is a bridge of a2wsgi")
    if not callable(app) or _declared(type(app), "__call__") is None:
        return _refused(app)
    verdict = _detect_by_call(app)
    return _detect_beneath(app, verdict) if _is_silent(verdict) else verdict


def _is_silent(verdict: Verdict | _Refusal) -> TypeGuard[Verdict]:
    return isinstance(verdict, Verdict) and verdict.interface is None


# -- Rule 1: what cannot be an app -------------------------------------------------------------------------------------


def _refused(app: object) -> _Refusal:
    if app is None:
        return _Refusal(
            "None is not an app", "Pass the app. If a factory returned this, its return statement is missing."
        )
    if _is(app, str, bytes):
        text = str(_quietly(repr, app))[:80]
        return _Refusal(f"{text} is a string, not an app", "Import the app that it names, and pass that object.")
    if _is(app, types.ModuleType):
        return _Refusal(f"{name_of(app)} is a module, not an app", "Pass the app in it, as in module.app.")
    if _is(app, types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType):
        fix = "Pass the function itself, without parentheses. If it creates the app, await it and pass the result."
        return _Refusal(f"{name_of(app)} is the result of calling an async function or a generator, not an app", fix)
    return _Refusal(f"{name_of(app)} is not callable, so it is not an app", "Pass the app object itself.")


# -- Rule 2: classes ---------------------------------------------------------------------------------------------------


def _detect_by_class(cls: type, call: _App) -> Verdict | _Refusal:
    """Judge a class. ``call`` is the class, wrapped in the partials that give it arguments."""
    name = name_of(cls)
    if _takes(call, 3) and _declared(cls, "__await__") is not None:  # Starlette's endpoints: the server awaits them
        return Verdict("asgi3", f"{name} is a class of 3 arguments, and its instances can be awaited")
    if _takes(call, 1) and _makes_asgi2_instances(cls):
        return Verdict("asgi2", f"{name} is a class of 1 argument, and its instances are async and take 2")
    # PEP 3333: "calling it returns an instance of 'AppClass', which is then the iterable return value". Both arguments
    # must be required or the only ones: responses of Bottle and Django are iterable, too, and take a body and a status.
    if _takes(call, 2, by_default=False) and _declared(cls, "__iter__") is not None:
        return Verdict("wsgi", f"{name} is a class of 2 arguments, and its instances can be iterated")
    return _Refusal(f"{name} is a class, not an app", "Pass an instance of it.")


def _makes_asgi2_instances(cls: type) -> bool:
    call = _quietly(_bound, _declared(cls, "__call__"), cls, cls)  # the class stands in for self, to be counted
    return callable(call) and _is_async(call) and _takes(call, 2) and not _takes(call, 3)


# -- Rule 3: what a call runs ------------------------------------------------------------------------------------------


def _called(app: _App) -> _App:
    """Return what ``app(...)`` runs: a function, builtin or class, in the partials and methods that bind it."""
    if _is_binding(app):
        return _rebound(app, _called(_unbound(app)))
    call = _own_call(app)
    return _called(call) if callable(call) else app


def _own_call(app: object) -> object:
    """Return the bound ``__call__`` of an object; ``None`` if it is not written in Python and so hides nothing."""
    call = _declared(type(app), "__call__")
    # On PyPy, what is written in Python is of that type as well; but its code is as everywhere.
    if _is(call, types.WrapperDescriptorType) and not _is(getattr(call, "__code__", None), types.CodeType):
        return None
    # A metaclass's __call__ makes instances, unless it is async: then the class is called as any object is.
    if _is(app, type) and not inspect.iscoroutinefunction(call):
        return None
    return _bound(call, app, type(app))


def _declared(cls: type, name: str) -> object:
    """Return an attribute from a class and its bases, where Python looks for ``__call__``; ``None`` if it has none."""
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


def _bound(attribute: object, holder: object, cls: type) -> object:
    """Bind an attribute as attribute access does: a function to its object, most other objects not at all."""
    get = getattr(type(attribute), "__get__", None)
    return attribute if get is None else get(attribute, holder, cls)


def _is_binding(app: object) -> TypeGuard[_Binding]:
    return _is(app, functools.partial, types.MethodType)


def _unbound(binding: _Binding) -> _App:
    return binding.__func__ if type(binding) is types.MethodType else binding.func


def _rebound(binding: _Binding, call: _App) -> _App:
    """Return ``call`` with the arguments that ``binding`` gives."""
    if type(binding) is types.MethodType:
        return types.MethodType(call, binding.__self__)
    return functools.partial(call, *binding.args, **binding.keywords)


def _innermost(call: _App) -> _App:
    while _is_binding(call):
        call = _unbound(call)
    return call


# -- Rule 4: what a silent app wraps -----------------------------------------------------------------------------------

# Arbitrary. An object that answers for any attribute has layers without end.
_MOST_LAYERS = 32


def _detect_beneath(app: _App, own: Verdict) -> Verdict:
    """Look beneath a silent app. What is there may confirm an interface, but cannot refuse one.

    Werkzeug's ``Request.application`` is a WSGI app of ``*args`` that wraps a function of one argument.
    """
    for beneath in (_quietly(_wrapped, app), _quietly(_claimed_call, app)):
        verdict = own if beneath is None else _detect_by_call(beneath)
        if isinstance(verdict, Verdict) and verdict.interface is not None:
            return Verdict(verdict.interface, f"{own.evidence}, but beneath it {verdict.evidence}")
    return own


def _wrapped(app: _App) -> _App | None:
    """Return the first layer that is not silent, or the last one."""
    for _ in range(_MOST_LAYERS):
        layer = _layer_beneath(app)
        if layer is None or not _is_silent(_detect_by_call(layer)):
            return layer
        app = layer
    return None


def _layer_beneath(app: _App) -> _App | None:
    """Return what ``functools.wraps`` left in ``__wrapped__``, with the bindings of ``app``."""
    if _is_binding(app):
        layer = _layer_beneath(_unbound(app))
        return None if layer is None else _rebound(app, layer)
    call = _own_call(app)
    layer = _layer_beneath(call) if callable(call) else None
    layer = getattr(app, "__wrapped__", None) if layer is None else layer
    return layer if callable(layer) else None


def _claimed_call(app: _App) -> _App | None:
    """Return the ``__call__`` of the class that a proxy claims to have, as Werkzeug's ``LocalProxy`` does."""
    call = _bound(_declared(app.__class__, "__call__"), app, app.__class__)
    return call if callable(call) else None


# -- Rules 5 and 6: async, and how many arguments ----------------------------------------------------------------------

_WHY = "but servers pass (environ, start_response) (PEP 3333) or (scope, receive, send) (ASGI)"
_FIX = "Bind the other arguments with functools.partial."
_FIX_ASYNC = {
    0: "If it creates the app, await it and pass the result.",
    1: "If it is a view, pass the app that routes to it. If it creates the app, await it and pass the result.",
    2: "A WSGI app is not async: write def instead of async def. For an ASGI 2 app, pass the class, not an instance.",
}
_FIX_SYNC = {
    0: "If it creates the app, call it and pass the result.",
    1: "If it is a view, pass the app that routes to it. If it is an ASGI 2 app, call its argument scope.",
}


def _detect_by_call(app: _App) -> Verdict | _Refusal:
    """Judge one callable by its own signature."""
    name, call = name_of(app), _quietly(_called, app)
    if call is None:
        return Verdict(None, f"{name} raises an error when it is examined")
    core = _innermost(call)
    if _is_class(core):
        return _detect_by_class(core, call)
    if _quietly(inspect.isasyncgenfunction, core):
        return _Refusal(f"{name} is an async generator, which is not an app", "Use send() instead of yield.")
    shape = _shape(call)
    if shape is None:
        return Verdict(None, f"{name} has no signature that Python can read")
    if shape.keywords:
        what, fix = f"{name} requires {shape.keywords[0]}=, which no server passes", "Bind it with functools.partial."
        return _Refusal(what, fix)
    return _detect_by_shape(name, shape, is_async=_is_async(call))


def _detect_by_shape(name: str, shape: _Shape, *, is_async: bool) -> Verdict | _Refusal:
    told = f"{name} is {'async' if is_async else 'not async'} and takes {shape.text}"
    if is_async and not shape.takes(3):
        return _Refusal(f"{told}, {_WHY}", _FIX_ASYNC.get(shape.required, _FIX))
    if is_async:
        return Verdict("asgi3", told)
    if shape.takes(3) and shape.required in (0, 1):
        return Verdict(None, told)  # it takes two as well
    if shape.takes(1) and shape.names[0] == "scope":
        return Verdict("asgi2", told)
    if shape.takes(2):
        return Verdict("wsgi", told)
    if shape.takes(3):
        return Verdict("asgi3", told)
    return _Refusal(f"{told}, {_WHY}", _FIX_SYNC.get(shape.required, _FIX))


class _Shape:
    """Which arguments a callable takes.

    Args:
        names: Of the positional parameters.
        required: How many of them have no default.
        variadic: Whether there is a ``*args``.
        keywords: The keyword-only parameters that have no default.
    """

    __slots__ = ("keywords", "names", "required", "variadic")

    def __init__(self, names: tuple[str, ...], required: int, keywords: tuple[str, ...], *, variadic: bool) -> None:
        self.names = names
        self.required = required
        self.variadic = variadic
        self.keywords = keywords

    def takes(self, count: int) -> bool:
        enough = self.variadic or count <= len(self.names)
        return enough and self.required <= count and not self.keywords

    @property
    def text(self) -> str:
        return f"({', '.join((*self.names, '*args') if self.variadic else self.names)})"


def _shape(call: _App) -> _Shape | None:
    signature = _quietly(signature_of, call)
    if signature is None:
        return None
    parameters = signature.parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return _Shape(
        names=tuple(p.name for p in positional),
        required=sum(p.default is p.empty for p in positional),
        variadic=any(p.kind is p.VAR_POSITIONAL for p in parameters),
        keywords=tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty),
    )


def _takes(call: _App, count: int, *, by_default: bool = True) -> bool:
    shape = _shape(call)
    return shape is not None and shape.takes(count) and (by_default or shape.required in (count, len(shape.names)))


def _is_async(call: _App) -> bool:
    return bool(_quietly(inspect.iscoroutinefunction, _innermost(call)))


# -- Foreign code, and words for errors --------------------------------------------------------------------------------

_Seen = TypeVar("_Seen")
_P = ParamSpec("_P")


def _quietly(look: Callable[_P, _Seen], *args: _P.args, **kwargs: _P.kwargs) -> _Seen | None:
    try:
        return look(*args, **kwargs)
    except Exception:  # noqa: BLE001  the app's descriptors and __getattr__ run here, and may raise anything
        return None


def _is(thing: object, *kinds: type) -> bool:
    # isinstance() would ask thing.__class__, where a proxy answers for another object, or raises.
    return issubclass(type(thing), kinds)


def _is_class(thing: object) -> TypeGuard[type]:
    return _is(thing, type)


def name_of(thing: object) -> str:
    """Return a name for messages. Never the ``repr``, which may raise, be long, or show a secret."""
    if _is(thing, types.ModuleType):
        return str(vars(thing).get("__name__"))
    core = _innermost(thing) if callable(thing) else thing
    named = core if _is(core, type, types.FunctionType, types.BuiltinFunctionType) else type(core)
    module = str(named.__module__)
    if module.startswith("a2wsgi._"):
        module = "a2wsgi"  # where our own names are to be imported from
    path = [str(part) for part in (module, getattr(named, "__qualname__", None)) if part is not None]
    if module == "builtins":
        del path[0]
    prefix = "functools.partial of " if _is(thing, functools.partial) else ""
    return f"{prefix}{'.'.join(path)}{'' if named is core else ' object'}"


# Advice by package and class, for objects that give no hint themselves.
_KNOWN = {
    ("aiohttp", "Application"): "aiohttp speaks neither WSGI nor ASGI: serve it with aiohttp.web.run_app(app).",
    ("dash", "Dash"): "Pass app.server.",
    ("pyramid", "Configurator"): "Pass config.make_wsgi_app().",
    ("tornado", "Application"): "Tornado speaks neither WSGI nor ASGI: serve it with app.listen(port).",
    ("web", "application"): "Pass app.wsgifunc().",
}


_HOLDERS = ("app", "application", "asgi", "wsgi", "asgi_app", "wsgi_app", "server")


def _advice(app: object, holders: tuple[str, ...] = ()) -> str | None:
    """Return what to pass instead of a known object, or of one that has an app in an attribute of ``holders``."""
    for cls in type(app).__mro__:
        known = _KNOWN.get((cls.__module__.partition(".")[0], cls.__name__))
        if known is not None:
            return known
    held = {} if _is_class(app) else vars(app)  # the attributes of a class are not bound
    for name in holders:
        verdict = _detect(held.get(name))
        if isinstance(verdict, Verdict) and verdict.interface is not None:
            return f"Its .{name} is an app: pass that if you meant it."
    return None
