"""How the interface of an app is told: one section for each rule of `a2wsgi._interface`, then real frameworks.

No app here can be called: an app is looked at and never run.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import re
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any, NoReturn
from unittest import mock

import pytest

from a2wsgi import AppInterfaceError
from a2wsgi._interface import MARK, Interface, Verdict, detect, interface_of

App = Callable[..., object]


def made(parameters: str, kind: str = "def", body: str = "raise AssertionError('called')") -> App:
    """A function of these parameters, in a module called ``shop``."""
    names: dict[str, Any] = {"__name__": "shop"}
    exec(f"{kind} app({parameters}): {body}", names)  # noqa: S102  a table of signatures is read best as signatures
    app: App = names["app"]
    return app


WSGI = made("environ, start_response")
ASGI3 = made("scope, receive, send", "async def")
ASGI2 = made("scope")
SILENT = made("*args, **kwargs")


def silent_around(wrapped: object) -> App:
    """A decorator's function of ``*args``, with what `functools.wraps` leaves on it."""
    inner = made("*args, **kwargs")
    inner.__dict__["__wrapped__"] = wrapped
    return inner


def refused(app: object) -> str:
    """The message of the error with which ``app`` is refused, the same from both functions."""
    with pytest.raises(AppInterfaceError) as told:
        detect(app)
    with pytest.raises(AppInterfaceError, match=re.escape(str(told.value))):
        interface_of(app)
    return str(told.value)


class Foreign(Exception):  # noqa: N818  what it is matters, not that it is an error
    """Raised by the code of an app while it is looked at."""


def raising(*args: object) -> NoReturn:
    """Fail as no library of ours does."""
    raise Foreign


# -- Rule 1: our own bridges, and what cannot be an app ----------------------------------------------------------------


@pytest.mark.parametrize("interface", ["wsgi", "asgi3", "asgi2"])
def test_the_mark_of_a_bridge_is_stronger_than_its_signature(interface: Interface) -> None:
    """What a bridge says of itself is not looked into, and holds for subclasses with any ``__call__``."""
    bridge = type("Bridge", (), {MARK: interface, "__call__": SILENT, "__module__": "shop"})
    subclass = type("Subclass", (bridge,), {"__call__": made("self"), "__module__": "shop"})
    assert detect(bridge()) == (interface, "shop.Bridge object is a bridge of a2wsgi")
    assert detect(subclass()) == (interface, "shop.Subclass object is a bridge of a2wsgi")


def test_a_mark_counts_only_in_the_class_and_only_with_a_known_value() -> None:
    """An instance's attribute, an unknown value and a ``__getattr__`` that answers everything are no mark."""

    class Anything:
        def __getattr__(self, name: str) -> str:
            return "wsgi"

        async def __call__(self, scope: object, receive: object, send: object) -> None: ...

    instance = Anything()
    instance.__dict__[MARK] = "wsgi"
    unknown = type("Unknown", (), {MARK: "rsgi", "__call__": made("self, environ, start_response")})
    assert interface_of(instance) == "asgi3"
    assert interface_of(unknown()) == "wsgi"


def test_the_class_of_a_bridge_is_no_bridge() -> None:
    """The mark speaks of instances."""
    bridge = type("Bridge", (), {MARK: "wsgi", "__call__": made("self, environ, start_response")})
    assert refused(bridge).endswith("Bridge is a class, not an app. Pass an instance of it.")


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (None, "None is not an app. Pass the app. If a factory returned this, its return statement is missing."),
        ("shop:app", "'shop:app' is a string, not an app. Import the app that it names, and pass that object."),
        (b"shop:app", "b'shop:app' is a string, not an app. Import the app that it names, and pass that object."),
        ("s" * 500, f"'{'s' * 79} is a string, not an app. Import the app that it names, and pass that object."),
        (types.ModuleType("shop"), "shop is a module, not an app. Pass the app in it, as in module.app."),
        (3, "int object is not callable, so it is not an app. Pass the app object itself."),
        ([WSGI], "list object is not callable, so it is not an app. Pass the app object itself."),
    ],
    ids=["None", "str", "bytes", "long str", "module", "int", "list"],
)
def test_what_cannot_be_an_app_is_refused(thing: object, message: str) -> None:
    """The error names the thing, says what is wrong with it, and how to mend it."""
    assert refused(thing) == message


def test_an_object_whose_call_was_taken_away_is_refused() -> None:
    """Python takes ``__call__ = None`` for callable, and fails at the call."""
    uncallable = type("Uncallable", (), {"__call__": None, "__module__": "shop"})
    assert refused(uncallable()).startswith("shop.Uncallable object is not callable")


@pytest.mark.parametrize("kind", ["coroutine", "generator", "async_generator"])
def test_a_call_that_has_begun_is_refused(kind: str) -> None:
    """An app followed by parentheses is a frequent slip."""
    bodies = {"coroutine": "pass", "generator": "yield", "async_generator": "yield"}
    begun: Any = made("", "def" if kind == "generator" else "async def", bodies[kind])()
    try:
        assert refused(begun) == (
            f"{kind} object is the result of calling an async function or a generator, not an app. "
            "Pass the function itself, without parentheses. If it creates the app, await it and pass the result."
        )
    finally:
        if kind != "async_generator":  # one that has not begun needs no closing
            begun.close()


@pytest.mark.parametrize("name", ["app", "application", "asgi", "wsgi", "asgi_app", "wsgi_app", "server"])
def test_the_error_names_the_app_that_something_holds(name: str) -> None:
    """A module or an object is often passed in place of the app that is in it."""
    module, holder = types.ModuleType("shop"), types.SimpleNamespace()
    vars(module)[name] = vars(holder)[name] = WSGI
    assert refused(module) == f"shop is a module, not an app. Its .{name} is an app: pass that if you meant it."
    assert refused(holder).endswith(f"Its .{name} is an app: pass that if you meant it.")


def test_the_error_names_no_attribute_that_is_no_app() -> None:
    """A module within a module, an object that holds itself and the methods of a class are not offered."""
    module, selfish = types.ModuleType("shop"), types.SimpleNamespace()
    vars(module)["app"], vars(selfish)["app"] = types.ModuleType("shop.app"), selfish
    cls = type("Shop", (), {"wsgi_app": made("self, environ, start_response")})
    assert "if you meant it" not in refused(module) + refused(selfish) + refused(cls)


# -- Rule 2: classes ---------------------------------------------------------------------------------------------------


class WSGIClass:
    """The class of PEP 3333, "The Application/Framework Side"."""

    def __init__(self, environ: object, start_response: object) -> None: ...
    def __iter__(self) -> NoReturn:
        raise NotImplementedError


class ASGI3Class:
    """An endpoint as Starlette has it: awaited as soon as it is made."""

    def __init__(self, scope: object, receive: object, send: object) -> None: ...
    def __await__(self) -> NoReturn:
        raise NotImplementedError


class ASGI2Class:
    """The class of ASGI's "Legacy Applications"."""

    def __init__(self, scope: object) -> None: ...
    async def __call__(self, receive: object, send: object) -> None: ...


class Response:
    """As in Bottle and Django: it can be iterated, and takes two arguments where one likes."""

    def __init__(self, body: object = b"", status: object = None) -> None: ...
    def __iter__(self) -> NoReturn:
        raise NotImplementedError


class Framework:
    """Its arguments are those of a WSGI app; its instances are ASGI 3 apps."""

    def __init__(self, import_name: object, static_url_path: object) -> None: ...
    async def __call__(self, scope: object, receive: object, send: object) -> None: ...


class Routes:
    """Its arguments are those of an ASGI 3 app; its instances are WSGI apps."""

    def __init__(self, debug: object, routes: object, middleware: object) -> None: ...
    def __call__(self, environ: object, start_response: object) -> object: ...


class Middleware:
    """Its single argument is that of an ASGI 2 app; its instances may take anything."""

    def __init__(self, app: object) -> None: ...
    async def __call__(self, *args: object) -> None: ...


class Singleton(type):
    """A metaclass whose ``__call__`` hides the constructor's arguments."""

    def __call__(cls, *args: object, **kwargs: object) -> Any: ...


class SingletonWSGIClass(WSGIClass, metaclass=Singleton): ...


class SingletonFramework(Framework, metaclass=Singleton): ...


class AsyncMeta(type):
    """A metaclass whose ``__call__`` is an app."""

    async def __call__(cls, scope: object, receive: object, send: object) -> None: ...


class CalledByItsMeta(metaclass=AsyncMeta): ...


def subclass(base: type, **attributes: object) -> Any:
    """A class like ``base`` but for these attributes."""
    return type("Subclass", (base,), attributes)


@pytest.mark.parametrize(
    ("cls", "interface"),
    [
        (WSGIClass, "wsgi"),
        (ASGI3Class, "asgi3"),
        (ASGI2Class, "asgi2"),
        (subclass(WSGIClass, __init__=made("self, *args")), "wsgi"),
        (SingletonWSGIClass, "wsgi"),
        (CalledByItsMeta, "asgi3"),
        (functools.partial(subclass(WSGIClass, __init__=made("self, config, environ, start_response")), 1), "wsgi"),
        (functools.partial(subclass(WSGIClass, __init__=made("self, e, s, config")), config=1), "wsgi"),
        (functools.partial(subclass(ASGI2Class, __init__=made("self, config, scope")), 1), "asgi2"),
    ],
)
def test_a_class_is_an_app_when_its_instances_agree_with_its_arguments(cls: object, interface: Interface) -> None:
    """The trait of the instances is the evidence; partials and metaclasses change the arguments alone."""
    assert interface_of(cls) == interface


@pytest.mark.parametrize(
    "cls",
    [
        Framework,
        Routes,
        Middleware,
        Response,
        SingletonFramework,
        functools.partial(Framework, "shop"),
        functools.partial(WSGIClass, "one of two"),
        subclass(ASGI2Class, __call__=made("self, receive, send")),
        subclass(WSGIClass, __iter__=None),
        subclass(ASGI3Class, __init__=made("self, scope, receive")),
        subclass(ASGI2Class, __init__=made("self, scope, config")),
        subclass(ASGI2Class, __call__=property(raising)),
        subclass(WSGIClass, __init__=made("self, environ, start_response, *, config")),
        dict,
        type,
    ],
)
def test_a_class_is_never_judged_by_its_arguments_alone(cls: object) -> None:
    """Arguments that would pass for those of an app are refused when the instances say otherwise."""
    assert refused(cls).endswith("is a class, not an app. Pass an instance of it.")


# -- Rule 3: an object by its __call__ ---------------------------------------------------------------------------------


def with_call(call: object, **attributes: object) -> App:
    """An object whose class has this ``__call__``."""
    cls: Any = type("Shop", (), {"__call__": call, "__module__": "shop", **attributes})
    app: App = cls()
    return app


class Slotted:
    """As Sentry's ASGI middleware: ``__call__`` is a slot, so that each instance has its own."""

    __slots__ = ("__call__",)

    def __init__(self, call: object) -> None:
        self.__call__ = call


@pytest.mark.parametrize(
    ("app", "interface"),
    [
        (with_call(made("self, environ, start_response")), "wsgi"),
        (with_call(made("self, scope, receive, send", "async def")), "asgi3"),
        (with_call(made("self, scope")), "asgi2"),
        (with_call(staticmethod(WSGI)), "wsgi"),
        (with_call(staticmethod(functools.partial(made("config, environ, start_response"), 1))), "wsgi"),
        (with_call(classmethod(made("cls, environ, start_response"))), "wsgi"),
        (with_call(functools.partialmethod(made("self, config, e, s"), 1)), "wsgi"),
        (with_call(functools.partialmethod(made("self, config, scope, receive, send", "async def"), 1)), "asgi3"),
        (with_call(property(lambda _: ASGI3)), "asgi3"),
        (with_call(with_call(made("self, environ, start_response"))), "wsgi"),
        (with_call(WSGIClass), "wsgi"),
        (Slotted(ASGI3), "asgi3"),
        (Slotted(WSGI), "wsgi"),
        (types.MethodType(made("self, environ, start_response"), object()), "wsgi"),
        (types.MethodType(with_call(made("self, shop, e, s")), object()), "wsgi"),
        (functools.partial(with_call(made("self, config, environ, start_response")), 1), "wsgi"),
        (functools.partial(with_call(made("self, scope, receive, send, config", "async def")), config=1), "asgi3"),
    ],
)
def test_an_object_is_judged_by_what_python_runs_when_it_is_called(app: object, interface: Interface) -> None:
    """Whatever binds the call or hands it on, what arrives in the end decides."""
    assert interface_of(app) == interface


def test_a_call_in_the_instance_is_ignored() -> None:
    """Python looks for ``__call__`` in the class."""
    app = with_call(made("self, environ, start_response"))
    vars(app)["__call__"] = ASGI3
    assert interface_of(app) == "wsgi"


@pytest.mark.parametrize("copied", [{"__wrapped__": ASGI3}, {"__signature__": inspect.signature(ASGI3)}])
def test_the_signature_that_an_object_shows_of_another_is_ignored(copied: dict[str, object]) -> None:
    """`functools.update_wrapper` on an object makes `inspect.signature` tell of what it wraps."""
    assert interface_of(with_call(made("self, environ, start_response"), **copied)) == "wsgi"


# -- Rule 4: a signature of its own first, __wrapped__ where that is silent --------------------------------------------


def test_a_signature_of_its_own_is_stronger_than_that_of_what_it_wraps() -> None:
    """A decorator may make a WSGI app out of something else, and the other way around."""
    to_wsgi, to_asgi = made("environ, start_response"), made("scope, receive, send", "async def")
    to_wsgi.__dict__["__wrapped__"], to_asgi.__dict__["__wrapped__"] = ASGI3, WSGI
    assert interface_of(to_wsgi) == "wsgi"
    assert interface_of(to_asgi) == "asgi3"


@pytest.mark.parametrize(
    ("app", "interface"),
    [
        (silent_around(WSGI), "wsgi"),
        (silent_around(ASGI3), "asgi3"),
        (silent_around(ASGI2), "asgi2"),
        (silent_around(WSGIClass), "wsgi"),
        (silent_around(silent_around(silent_around(ASGI3))), "asgi3"),
        (functools.partial(silent_around(made("config, environ, start_response")), 1), "wsgi"),
        (functools.partial(silent_around(made("e, s, config")), config=1), "wsgi"),
        (types.MethodType(silent_around(made("self, environ, start_response")), object()), "wsgi"),
        (with_call(silent_around(made("self, scope, receive, send", "async def"))), "asgi3"),
        (with_call(staticmethod(silent_around(WSGI))), "wsgi"),
        (functools.update_wrapper(with_call(SILENT), ASGI3), "asgi3"),
        (functools.partial(functools.update_wrapper(with_call(SILENT), made("config, e, s")), 1), "wsgi"),
        (functools.lru_cache(WSGI), "wsgi"),
        (functools.singledispatch(WSGI), "wsgi"),
    ],
)
def test_what_a_silent_app_wraps_tells(app: object, interface: Interface) -> None:
    """It is looked at with the arguments that partials and methods have bound."""
    assert interface_of(app) == interface


def test_the_evidence_tells_of_both_layers() -> None:
    """A user sees why the outer one was not enough."""
    assert detect(silent_around(WSGI)) == Verdict(
        "wsgi",
        "shop.app is not async and takes (*args), but beneath it shop.app is not async and takes "
        "(environ, start_response)",
    )


@pytest.mark.parametrize(
    "wrapped", [made("request"), made("request", "async def"), Framework, 3, silent_around(made("request"))]
)
def test_what_a_silent_app_wraps_refuses_nothing(wrapped: object) -> None:
    """Werkzeug's ``Request.application`` is a WSGI app around a function of a request."""
    assert detect(silent_around(wrapped)) == (None, "shop.app is not async and takes (*args)")


def test_only_the_first_layer_that_is_not_silent_tells() -> None:
    """A function of a request tells nothing about the app, and neither does what that wraps."""
    view = made("request")
    view.__dict__["__wrapped__"] = WSGI
    assert detect(silent_around(view)).interface is None


def test_layers_without_end_are_left() -> None:
    """A function may wrap itself, and an object may make a new layer at each look."""

    class Endless:
        def __call__(self, *args: object) -> None: ...
        def __getattr__(self, name: str) -> Endless:
            return Endless()

    ring = silent_around(None)
    ring.__dict__["__wrapped__"] = ring
    assert detect(ring).interface is None
    assert detect(Endless()).interface is None


def test_a_proxy_is_judged_by_the_class_that_it_claims() -> None:
    """A proxy or a fake takes ``*args``, and answers for another object's ``__class__``."""
    proxy = with_call(SILENT, __class__=property(lambda _: Framework))
    assert interface_of(proxy) == "asgi3"
    assert interface_of(mock.Mock(spec=Routes("", "", ""))) == "wsgi"


# -- Rule 5: async -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        "scope, receive, send",
        "scope, receive, send, extra=None",
        "scope, receive=None, send=None",
        "scope, *channels",
        "*args",
        "*args, **kwargs",
        "scope, receive, send, /",
        "scope, receive, send, *, extra=None",
    ],
)
def test_an_async_callable_of_three_arguments_is_asgi3(parameters: str) -> None:
    """Also where they are hidden in ``*args``: WSGI knows nothing async."""
    assert detect(made(parameters, "async def")).interface == "asgi3"


WHY = "but servers pass (environ, start_response) (PEP 3333) or (scope, receive, send) (ASGI)."
MAKES = "If it creates the app, await it and pass the result."


@pytest.mark.parametrize(
    ("parameters", "mend"),
    [
        ("", MAKES),
        ("settings=None", MAKES),
        ("request", "If it is a view, pass the app that routes to it. If it creates the app, await it and pass"),
        (
            "environ, start_response",
            "A WSGI app is not async: write def instead of async def. For an ASGI 2 app, pass the class,",
        ),
        ("scope, receive, send, extra", "Bind the other arguments with functools.partial."),
    ],
)
def test_an_async_callable_of_another_arity_is_refused(parameters: str, mend: str) -> None:
    """No server awaits it; the error guesses what it may be."""
    message = refused(made(parameters, "async def"))
    assert message.startswith(f"shop.app is async and takes ({parameters.replace('=None', '')}), {WHY} {mend}")


def test_an_instance_of_an_asgi2_class_is_refused() -> None:
    """It is what a server awaits, and only the class makes one for each request."""
    assert "For an ASGI 2 app, pass the class, not an instance." in refused(ASGI2Class({}))


@pytest.mark.parametrize("parameters", ["scope, receive, send", "environ, start_response", "*args"])
def test_an_async_generator_is_refused(parameters: str) -> None:
    """What it returns cannot be awaited, whatever it takes."""
    assert refused(made(parameters, "async def", "yield")) == (
        "shop.app is an async generator, which is not an app. Use send() instead of yield."
    )


@pytest.mark.parametrize("bind", [functools.partial, functools.partial(functools.partial, config=1)])
def test_async_is_seen_through_bindings(bind: Callable[[object], object]) -> None:
    """Partials of methods of objects are async when the function at their end is."""

    class Shop:
        async def app(self, *args: object, config: object = None) -> None: ...

    assert detect(bind(Shop().app)).interface == "asgi3"
    assert detect(bind(types.MethodType(functools.partial(Shop.app), Shop()))).interface == "asgi3"


# -- Rule 6: not async -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "interface"),
    [
        ("environ, start_response", "wsgi"),
        ("a, b", "wsgi"),
        ("environ, start_response, /", "wsgi"),
        ("environ, start_response, extra=None", "wsgi"),
        ("environ, start_response, *args, **kwargs", "wsgi"),
        ("environ, start_response=None", "wsgi"),
        ("environ=None, start_response=None", "wsgi"),
        ("environ, start_response, *, extra=None", "wsgi"),
        ("scope, receive", "wsgi"),
        ("scope, receive, send", "asgi3"),
        ("a, b, c", "asgi3"),
        ("scope, receive, send, extra=None", "asgi3"),
        ("scope, receive, send, *args", "asgi3"),
        ("scope", "asgi2"),
        ("scope, /", "asgi2"),
        ("scope=None", "asgi2"),
        ("scope, config=None", "asgi2"),
    ],
)
def test_a_callable_that_is_not_async_is_told_by_the_number_of_its_arguments(
    parameters: str, interface: Interface
) -> None:
    """Names do not matter but for ``scope``; where defaults allow more, what is required decides."""
    assert detect(made(parameters)).interface == interface


@pytest.mark.parametrize(
    ("parameters", "mend"),
    [
        ("", "If it creates the app, call it and pass the result."),
        ("**kwargs", "If it creates the app, call it and pass the result."),
        (
            "request",
            "If it is a view, pass the app that routes to it. If it is an ASGI 2 app, call its argument scope.",
        ),
        ("a, b, c, d", "Bind the other arguments with functools.partial."),
        ("a, b, c, d, *args", "Bind the other arguments with functools.partial."),
    ],
)
def test_a_callable_of_another_arity_is_refused(parameters: str, mend: str) -> None:
    """The error shows what it takes, what servers give, and guesses what it may be."""
    names = parameters.replace("**kwargs", "")
    assert refused(made(parameters)) == f"shop.app is not async and takes ({names}), {WHY} {mend}"


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("before", ["environ, start_response, *, ", "scope, receive, send, *, ", "*args, "])
def test_a_required_keyword_is_refused(kind: str, before: str) -> None:
    """A server passes positional arguments alone."""
    message = "shop.app requires config=, which no server passes. Bind it with functools.partial."
    assert refused(made(f"{before}config", kind)) == message


@pytest.mark.parametrize(
    ("app", "interface"),
    [
        (functools.partial(WSGI), "wsgi"),
        (functools.partial(made("config, environ, start_response"), 1), "wsgi"),
        (functools.partial(functools.partial(made("a, b, environ, start_response"), 1), 2), "wsgi"),
        (functools.partial(made("environ, start_response, config"), config=1), "wsgi"),
        (functools.partial(made("environ, start_response, *, config"), config=1), "wsgi"),
        (functools.partial(made("config, scope"), 1), "asgi2"),
        (functools.partial(made("config, scope, receive, send", "async def"), 1), "asgi3"),
        (functools.update_wrapper(functools.partial(made("config, e, s"), 1), ASGI3), "wsgi"),
    ],
)
def test_a_partial_takes_what_it_does_not_bind(app: object, interface: Interface) -> None:
    """Bound arguments are counted off, positional and keyword ones, and nothing else about the partial counts."""
    assert interface_of(app) == interface


def test_a_partial_that_binds_an_argument_of_the_server_is_refused() -> None:
    """Binding ``receive`` by name makes ``send`` a keyword that no server gives."""
    assert refused(functools.partial(ASGI3, receive=None)) == (
        "functools.partial of shop.app requires send=, which no server passes. Bind it with functools.partial."
    )


def test_the_evidence_is_a_sentence_that_names_the_app() -> None:
    """It can be printed as it is."""
    assert detect(WSGI) == ("wsgi", "shop.app is not async and takes (environ, start_response)")
    assert detect(ASGI3) == ("asgi3", "shop.app is async and takes (scope, receive, send)")
    assert detect(with_call(made("self, scope"))) == ("asgi2", "shop.Shop object is not async and takes (scope)")


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated late from Python 3.14 on (PEP 649)")
def test_annotations_that_cannot_be_evaluated_do_not_matter() -> None:
    """Names that are imported for type checkers alone are not there when an app is looked at."""
    assert interface_of(made("environ: Missing, start_response: Missing")) == "wsgi"


# -- Rule 7: silent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "app",
    [
        SILENT,
        made("environ, *args"),
        made("scope, *args"),
        made("a=None, b=None, c=None"),
        with_call(SILENT),
        functools.partial(SILENT, 1),
        functools.partial(contextvars.Context().run, WSGI),
        print,
        mock.Mock(),
        mock.AsyncMock(),
    ],
)
def test_a_silent_app_leaves_the_decision_to_the_caller(app: object) -> None:
    """``detect`` has no interface to give, so that a constructor can go by the name of its class."""
    assert detect(app).interface is None
    with pytest.raises(AppInterfaceError, match=r"or in ASGIMiddleware if it is an ASGI app\.$"):
        interface_of(app)


def test_the_error_for_a_silent_app_tells_why_it_is_silent() -> None:
    """It shows the evidence, and names both classes."""
    with pytest.raises(AppInterfaceError) as raised:
        interface_of(SILENT)
    assert str(raised.value) == (
        "shop.app is not async and takes (*args), which could be WSGI or ASGI. "
        "Wrap it in WSGIMiddleware if it is a WSGI app, or in ASGIMiddleware if it is an ASGI app."
    )


def test_the_app_that_a_silent_middleware_holds_is_not_offered() -> None:
    """To pass it would leave the middleware out."""
    middleware = with_call(SILENT)
    vars(middleware)["app"] = WSGI
    with pytest.raises(AppInterfaceError, match="Wrap it in WSGIMiddleware if"):
        interface_of(middleware)


# -- Foreign code ------------------------------------------------------------------------------------------------------


class RaisingDescriptor:
    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise Foreign


@pytest.mark.parametrize(
    "hostile",
    [
        {"__getattr__": raising},
        {"__getattribute__": raising},
        {"__class__": property(raising)},
        {"__wrapped__": property(raising)},
        {"__signature__": property(raising)},
        {"__repr__": raising, "__str__": raising, "__format__": raising},
        {"__bool__": raising},
        {"__len__": raising},
        {"__eq__": raising, "__hash__": None},
        {"__dict__": property(raising)},
    ],
    ids=", ".join,
)
def test_no_exception_of_the_app_gets_out(hostile: dict[str, object]) -> None:
    """An object that fails at every look is told, found silent or refused as any other."""
    assert interface_of(with_call(made("self, environ, start_response"), **hostile)) == "wsgi"
    assert detect(with_call(SILENT, **hostile)).interface is None
    assert detect(silent_around(with_call(SILENT, **hostile))).interface is None
    assert "Shop object is not async and takes ()" in refused(with_call(made("self"), **hostile))
    assert "Shop object is not callable" in refused(type("Shop", (), hostile)())


def test_no_exception_of_a_callable_written_in_c_gets_out() -> None:
    """There is no ``__call__`` to look at then, so that `inspect` sees the object itself."""
    hostile: Any = type("Shop", (staticmethod,), {"__class__": property(raising), "__getattr__": raising})
    assert interface_of(hostile(WSGI)) == "wsgi"


@pytest.mark.parametrize("call", [RaisingDescriptor(), property(raising)])
def test_a_call_that_cannot_be_looked_at_is_silent(call: object) -> None:
    """A proxy to nothing yet, outside of a request for instance, may be any app later."""
    assert detect(with_call(call)) == (None, "shop.Shop object raises an error when it is examined")


def test_a_call_that_calls_itself_is_silent() -> None:
    """Python finds no function there either."""
    ring = with_call(property(lambda itself: itself))
    assert detect(ring) == (None, "shop.Shop object raises an error when it is examined")


def test_a_function_whose_signature_is_none_is_silent() -> None:
    """A function may carry anything in ``__signature__``."""
    app = made("environ, start_response")
    app.__dict__["__signature__"] = 3
    assert detect(app) == (None, "shop.app has no signature that Python can read")


# -- Real frameworks ---------------------------------------------------------------------------------------------------


def real(name: str) -> Any:
    """A module of a framework, or the end of the test where that is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a framework's import warns of is not ours to mend
        return pytest.importorskip(name, exc_type=ImportError)


def unmade(module: str, name: str) -> object:
    """An object of a class whose constructor would want Django's settings, or would leave descriptors open."""
    cls = getattr(real(module), name)
    return cls.__new__(cls)


APPS: dict[str, tuple[Interface, Callable[[], object]]] = {
    "blacksheep": ("asgi3", lambda: real("blacksheep").Application()),
    "bottle": ("wsgi", lambda: real("bottle").Bottle()),
    "cherrypy": ("wsgi", lambda: real("cherrypy").Application(None)),
    "cherrypy tree": ("wsgi", lambda: real("cherrypy").tree),
    "connexion": ("asgi3", lambda: real("connexion").AsyncApp("shop")),
    "connexion flask": ("asgi3", lambda: real("connexion.apps.flask").FlaskApp("shop")),
    "dash": ("wsgi", lambda: real("dash").Dash("shop").server),
    "django wsgi": ("wsgi", lambda: unmade("django.core.handlers.wsgi", "WSGIHandler")),
    "django asgi": ("asgi3", lambda: unmade("django.core.handlers.asgi", "ASGIHandler")),
    "falcon": ("wsgi", lambda: real("falcon").App()),
    "falcon asgi": ("asgi3", lambda: real("falcon.asgi").App()),
    "fastapi": ("asgi3", lambda: real("fastapi").FastAPI()),
    "fastapi router": ("asgi3", lambda: real("fastapi").APIRouter()),
    "flask": ("wsgi", lambda: real("flask").Flask("shop")),
    "flask wsgi_app": ("wsgi", lambda: real("flask").Flask("shop").wsgi_app),
    "litestar": ("asgi3", lambda: real("litestar").Litestar(logging_config=None)),
    "pyramid": ("wsgi", lambda: real("pyramid.config").Configurator().make_wsgi_app()),
    "quart": ("asgi3", lambda: real("quart").Quart("shop")),
    "quart asgi_app": ("asgi3", lambda: real("quart").Quart("shop").asgi_app),
    "sanic": ("asgi3", lambda: real("sanic").Sanic("shop")),
    "starlette": ("asgi3", lambda: real("starlette.applications").Starlette()),
    "starlette endpoint": ("asgi3", lambda: real("starlette.endpoints").HTTPEndpoint),
    "starlette websocket endpoint": ("asgi3", lambda: real("starlette.endpoints").WebSocketEndpoint),
    "starlette mount": ("asgi3", lambda: real("starlette.routing").Mount("/", ASGI3)),
    "starlette route": ("asgi3", lambda: real("starlette.routing").Route("/", made("request"))),
    "starlette response": ("asgi3", lambda: real("starlette.responses").Response()),
    "web.py": ("wsgi", lambda: real("web").application(("/", "shop"), {}).wsgifunc()),
    "werkzeug response": ("wsgi", lambda: real("werkzeug").Response()),
    "werkzeug responder": ("wsgi", lambda: real("werkzeug.wsgi").responder(WSGI)),
    "werkzeug exception": ("wsgi", lambda: real("werkzeug.exceptions").NotFound()),
    "wsgiref": ("wsgi", lambda: real("wsgiref.simple_server").demo_app),
}

MIDDLEWARE: dict[str, tuple[Interface, Callable[[], object]]] = {
    "asgiref bridge": ("asgi3", lambda: real("asgiref.wsgi").WsgiToAsgi(WSGI)),
    "asgiref single": ("asgi3", lambda: real("asgiref.compatibility").guarantee_single_callable(ASGI2)),
    "django static": ("wsgi", lambda: unmade("django.contrib.staticfiles.handlers", "StaticFilesHandler")),
    "django asgi static": ("asgi3", lambda: unmade("django.contrib.staticfiles.handlers", "ASGIStaticFilesHandler")),
    "opentelemetry asgi": ("asgi3", lambda: real("opentelemetry.instrumentation.asgi").OpenTelemetryMiddleware(ASGI3)),
    "opentelemetry wsgi": ("wsgi", lambda: real("opentelemetry.instrumentation.wsgi").OpenTelemetryMiddleware(WSGI)),
    "sentry asgi": ("asgi3", lambda: real("sentry_sdk.integrations.asgi").SentryAsgiMiddleware(ASGI3)),
    "sentry asgi2": ("asgi2", lambda: real("sentry_sdk.integrations.asgi").SentryAsgiMiddleware(ASGI2)),
    "sentry wsgi": ("wsgi", lambda: real("sentry_sdk.integrations.wsgi").SentryWsgiMiddleware(WSGI)),
    "starlette base": ("asgi3", lambda: real("starlette.middleware.base").BaseHTTPMiddleware(ASGI3)),
    "starlette cors": ("asgi3", lambda: real("starlette.middleware.cors").CORSMiddleware(ASGI3)),
    "starlette gzip": ("asgi3", lambda: real("starlette.middleware.gzip").GZipMiddleware(ASGI3)),
    "werkzeug debugger": ("wsgi", lambda: unmade("werkzeug.debug", "DebuggedApplication")),
    "werkzeug dispatcher": ("wsgi", lambda: real("werkzeug.middleware.dispatcher").DispatcherMiddleware(WSGI)),
    "werkzeug local": ("wsgi", lambda: real("werkzeug.local").LocalManager().make_middleware(WSGI)),
    "werkzeug profiler": ("wsgi", lambda: real("werkzeug.middleware.profiler").ProfilerMiddleware(WSGI)),
    "werkzeug proxy fix": ("wsgi", lambda: real("werkzeug.middleware.proxy_fix").ProxyFix(WSGI)),
    "whitenoise": ("wsgi", lambda: real("whitenoise").WhiteNoise(WSGI)),
}


@pytest.mark.parametrize(("interface", "make"), [*APPS.values(), *MIDDLEWARE.values()], ids=[*APPS, *MIDDLEWARE])
def test_real_apps_and_middleware_are_told_from_their_classes(interface: Interface, make: Callable[[], object]) -> None:
    """An app is told without help, and its class refused: constructors take anything, and some would pass for apps."""
    app = make()
    assert interface_of(app) == interface
    assert "is a class, not an app" in refused(type(app))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: real("aiohttp.web").Application(), "aiohttp speaks neither WSGI nor ASGI"),
        (lambda: real("tornado.web").Application(), "Tornado speaks neither WSGI nor ASGI"),
        (lambda: real("pyramid.config").Configurator(), r"Pass config\.make_wsgi_app\(\)"),
        (lambda: real("web").application(("/", "shop"), {}), r"Pass app\.wsgifunc\(\)"),
        (lambda: real("dash").Dash("shop"), r"Pass app\.server\."),
        (lambda: real("flask"), "flask is a module"),
        (lambda: real("flask").Blueprint("shop", "shop"), "Blueprint object is not callable"),
        (lambda: real("litestar").Router("/", route_handlers=[]), "Router object is not callable"),
        (lambda: real("django.core.wsgi").get_wsgi_application, "If it creates the app, call it"),
        (lambda: real("django.http").HttpResponse, "is a class, not an app"),
        (lambda: real("bottle").Response, "is a class, not an app"),
        (lambda: real("bottle").app, "If it creates the app, call it"),
        (lambda: real("starlette.middleware").Middleware(Middleware), "Middleware object is not callable"),
        (lambda: real("django.utils.functional").SimpleLazyObject(raising), "SimpleLazyObject object is not callable"),
    ],
)
def test_real_objects_that_are_no_apps_are_refused_with_advice(make: Callable[[], object], message: str) -> None:
    """What is frequently passed in place of the app."""
    with pytest.raises(AppInterfaceError, match=message):
        interface_of(make())


@pytest.mark.parametrize(
    "make",
    [
        lambda: real("dash").Dash("shop"),
        lambda: real("webob.dec").wsgify(SILENT),
        lambda: real("werkzeug").Request.application(made("request")),
        lambda: real("werkzeug.middleware.lint").LintMiddleware(WSGI),
        lambda: real("werkzeug.local").LocalProxy(raising),
        lambda: real("asgiref.sync").async_to_sync(ASGI3),
        lambda: real("wsgiref.validate").validator(WSGI),
        lambda: real("flask").current_app,
    ],
)
def test_real_apps_that_are_silent_leave_the_decision_to_the_caller(make: Callable[[], object]) -> None:
    """Each is a WSGI app, or one at times, and takes ``*args`` or nothing that can be read."""
    assert detect(make()).interface is None


def test_a_bound_proxy_of_werkzeug_is_told() -> None:
    """It claims the class of what it stands for."""
    app = real("flask").Flask("shop")
    assert interface_of(real("werkzeug.local").LocalProxy(lambda: app)) == "wsgi"
    with app.app_context():
        assert interface_of(real("flask").current_app) == "wsgi"


def test_apps_that_are_patched_with_wrapt_are_told() -> None:
    """Instrumentation replaces methods and functions by such proxies."""
    wrapt = real("wrapt")

    def call(wrapped: App, instance: object, args: Any, kwargs: Any) -> object:
        return wrapped(*args, **kwargs)

    assert interface_of(wrapt.FunctionWrapper(WSGI, call)) == "wsgi"
    assert interface_of(wrapt.FunctionWrapper(ASGI3, call)) == "asgi3"
    assert interface_of(wrapt.CallableObjectProxy(Framework("", ""))) == "asgi3"
    method = wrapt.FunctionWrapper(made("self, scope, receive, send", "async def"), call)
    assert interface_of(with_call(method)) == "asgi3"
