"""Programs that evaluate the annotations of public names (FastAPI, beartype, Sphinx) can do so."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import a2wsgi
from a2wsgi import _type_hints, _types
from apps import hello

MODULES = ("a2wsgi", "a2wsgi.wsgi", "a2wsgi.asgi", "a2wsgi.wsgi_typing", "a2wsgi.asgi_typing")


def public() -> Iterator[tuple[str, Any]]:
    """Each public class and function of ours, and each method and property of these classes."""
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            thing = getattr(module, name)
            if not isinstance(thing, type | Callable) or not thing.__module__.startswith("a2wsgi"):
                continue
            yield f"{module.__name__}.{name}", thing
            for member in dir(thing) if isinstance(thing, type) else ():
                static = inspect.getattr_static(thing, member)
                accessors = (static.fget, static.fset) if isinstance(static, property) else (static,)
                for function in accessors:
                    if str(getattr(function, "__module__", None)).startswith("a2wsgi") and callable(function):
                        yield f"{module.__name__}.{name}.{member}", function


PUBLIC = dict(public())


def test_the_public_names_are_found() -> None:
    """Functions, classes, their methods, and what they inherit."""
    assert {"a2wsgi.run", "a2wsgi.WSGIMiddleware.statistics", "a2wsgi.wsgi.Body.__init__"} <= PUBLIC.keys()


@pytest.mark.parametrize("name", PUBLIC)
def test_type_hints_of_a_public_name_can_be_evaluated(name: str) -> None:
    """No annotation names what is imported for type checkers only."""
    typing.get_type_hints(PUBLIC[name])


#: `inspect` has no signature for a class whose constructor is C's: a TypedDict, or most exceptions.
SIGNED = [
    name
    for name, thing in PUBLIC.items()
    if not isinstance(thing, type) or inspect.isfunction(inspect.getattr_static(thing, "__init__"))
]


@pytest.mark.parametrize("name", SIGNED)
def test_signature_of_a_public_name_can_be_evaluated(name: str) -> None:
    """As with the type hints."""
    inspect.signature(PUBLIC[name], eval_str=True)


def test_type_hints_are_the_types() -> None:
    """What is evaluated is what the annotation says, also for a bound method."""
    assert typing.get_type_hints(a2wsgi.WSGIMiddleware(hello.app).statistics) == {"return": a2wsgi.Statistics}
    assert typing.get_type_hints(a2wsgi.to_asgi)["return"] == _types.ASGIApp


def test_statistics_are_an_endpoint_of_fastapi() -> None:
    """FastAPI evaluates the annotations of a function, and makes a schema of what it returns."""
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()
    bridge = a2wsgi.WSGIMiddleware(hello.app)
    app.get("/statistics")(bridge.statistics)
    assert "workers" in app.openapi()["components"]["schemas"]["Statistics"]["properties"]


def test_types_of_litestar_are_those_of_asgi() -> None:
    """Litestar has these names, too, and no other of ours: they are defined apart, without the import of the rest."""
    for name in ("Scope", "Message", "Receive", "Send"):
        assert vars(_type_hints)[name] == getattr(_types, name)
    annotations = inspect.getattr_static(a2wsgi.WSGIMiddleware, "__call__").__annotations__
    assert annotations == {"scope": "Scope", "receive": "Receive", "send": "Send", "return": "None"}


def test_a_type_that_does_not_exist_is_an_attribute_error() -> None:
    """As with any module."""
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _type_hints.Nothing  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
