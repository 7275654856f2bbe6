"""Imports run one way, and only the crossing files know threads.

::

    edge        import paths, command line
    spine       a request, told top to bottom
    crossing    where threads meet: nobody else imports threading, asyncio or trio
    facts       pure functions and tables: no threads, no I/O, no clock
    vocabulary  errors and types

A module imports from its own layer and from those below it. Type-only imports and imports inside functions obey this as
well. Cycles are looked for among the imports that run when a module is imported: two files of one layer may know each
other, but the second to be loaded must not need the first.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent.parent / "src" / "a2wsgi"

#: From the top down.
LAYERS = {
    "edge": {
        "__init__",
        "__main__",
        "_cli",
        "_loading",
        "_served",
        "_servers",
        "wsgi",
        "asgi",
        "wsgi_typing",
        "asgi_typing",
    },
    "spine": {"wsgi_to_asgi", "asgi_to_wsgi", "_wsgi_to_asgi_websocket", "_asgi_to_wsgi_websocket", "_convert"},
    "crossing": {
        "_handoff",
        "_to_server",
        "_disconnection",
        "_workers",
        "_loop_thread",
        "_engine",
        "_event_loop",
        "_lifespan",
        "_incoming",
        "_request_body",
        "_input",
        "_runtime",
        "_runtime_trio",
    },
    "facts": {"_translate", "_headers", "_interface", "_asgi_faults", "_wsgi_faults", "_extensions"},
    "vocabulary": {"_errors", "_types"},
}
HEIGHTS = {name: height for height, names in enumerate(reversed(LAYERS.values())) for name in names}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}

CONCURRENCY = {"threading", "_thread", "asyncio", "trio", "queue", "concurrent"}
IMPURE = {"time", "random", "socket", "logging"}


@dataclass(frozen=True)
class Import:
    """One imported module.

    Attributes:
        module: The module of ours by its bare name, as in ``"_errors"``; None if it is not ours.
        top: The top-level package, as in ``"asyncio"``; ``"a2wsgi"`` for ours.
        line: Where.
        type_only: Whether it stands under ``if TYPE_CHECKING``.
        lazy: Whether it stands in a function.
    """

    module: str | None
    top: str
    line: int
    type_only: bool
    lazy: bool


def complaints(sources: Mapping[str, str]) -> list[str]:
    """Say what is wrong with the imports of a package, a line for each.

    Args:
        sources: The text of each module, by its bare name.
    """
    imports = {name: list(_imports(ast.parse(text), set(sources))) for name, text in sources.items()}
    found = [f"{name}: is in no layer; put it into one in tests/test_layers.py" for name in imports.keys() - LAYER_OF]
    for name in imports.keys() & LAYER_OF:
        found += [f"{name}:{found.line}: {why}" for found in imports[name] if (why := _complaint(name, found))]
    return sorted(found) + _cycles(imports)


def _complaint(name: str, found: Import) -> str | None:
    """Say why a module of a layer may not import this, or None."""
    layer = LAYER_OF[name]
    if found.module is not None:
        if HEIGHTS.get(found.module, -1) > HEIGHTS[name]:
            return f"{layer} imports {found.module}, which is of the {LAYER_OF[found.module]}"
        return None
    if found.top in CONCURRENCY and layer != "crossing" and not (layer == "spine" and found.type_only):
        return f"{layer} imports {found.top}; only crossing files may"
    if found.top in IMPURE and layer == "facts":
        return f"facts import {found.top}; they are pure"
    return None


def _cycles(imports: Mapping[str, list[Import]]) -> list[str]:
    graph = {
        name: {i.module for i in found if i.module not in (None, name) and not i.type_only and not i.lazy}
        for name, found in imports.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"a cycle: {' <- '.join(map(str, error.args[1]))}"]
    return []


def _imports(tree: ast.AST, ours: set[str], *, type_only: bool = False, lazy: bool = False) -> Iterator[Import]:
    """Each import under a node."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                for module, top in _targets(node, ours):
                    yield Import(module, top, node.lineno, type_only=type_only, lazy=lazy)
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                yield from _imports(ast.Module(node.body, []), ours, type_only=True, lazy=lazy)
                yield from _imports(ast.Module(node.orelse, []), ours, type_only=type_only, lazy=lazy)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from _imports(node, ours, type_only=type_only, lazy=True)
            case _:
                yield from _imports(node, ours, type_only=type_only, lazy=lazy)


def _targets(node: ast.Import | ast.ImportFrom, ours: set[str]) -> Iterator[tuple[str | None, str]]:
    """The modules that one statement imports, each as `Import.module` and `Import.top`."""
    if isinstance(node, ast.Import):
        paths = [alias.name for alias in node.names]
    else:
        path = ".".join(filter(None, ["a2wsgi" if node.level else "", node.module]))
        # `from . import _errors` is of a module; `from . import WSGIMiddleware` is of the package itself.
        paths = [f"a2wsgi.{alias.name}" if path == "a2wsgi" and alias.name in ours else path for alias in node.names]
    for path in paths:
        top, _, rest = path.partition(".")
        yield (rest or "__init__") if top == "a2wsgi" else None, top


def test_package_has_its_imports_in_order() -> None:
    """The package as it stands has nothing to complain about."""
    sources = {
        ".".join(path.relative_to(SOURCES).with_suffix("").parts): path.read_text("utf-8")
        for path in SOURCES.rglob("*.py")
    }
    assert sources
    assert complaints(sources) == []


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("_stray", "", "_stray: is in no layer; put it into one in tests/test_layers.py"),
        ("_headers", "from ._handoff import x", "_headers:1: facts imports _handoff, which is of the crossing"),
        ("_headers", "from a2wsgi._handoff import x", "_headers:1: facts imports _handoff, which is of the crossing"),
        ("_headers", "import a2wsgi._handoff", "_headers:1: facts imports _handoff, which is of the crossing"),
        ("_headers", "from . import _handoff", "_headers:1: facts imports _handoff, which is of the crossing"),
        ("_headers", "from . import x", "_headers:1: facts imports __init__, which is of the edge"),
        ("_headers", "import socket", "_headers:1: facts import socket; they are pure"),
        ("_headers", "def f():\n import time", "_headers:2: facts import time; they are pure"),
        ("_errors", "import threading", "_errors:1: vocabulary imports threading; only crossing files may"),
        ("_convert", "import asyncio.events", "_convert:1: spine imports asyncio; only crossing files may"),
        ("_convert", "from concurrent import x", "_convert:1: spine imports concurrent; only crossing files may"),
        (
            "_headers",
            "if TYPE_CHECKING:\n import asyncio",
            "_headers:2: facts imports asyncio; only crossing files may",
        ),
        (
            "_convert",
            "if TYPE_CHECKING: pass\nelse:\n import queue",
            "_convert:3: spine imports queue; only crossing files may",
        ),
        (
            "_handoff",
            "from ._types import x\nfrom .wsgi_to_asgi import y",
            "_handoff:2: crossing imports wsgi_to_asgi, which is of the spine",
        ),
    ],
)
def test_complaints_name_the_import_that_is_wrong(name: str, text: str, complaint: str) -> None:
    """Each rule is broken once, and the complaint has the module, the line and the reason."""
    others = dict.fromkeys(("__init__", "_handoff", "_types", "wsgi_to_asgi"), "")
    assert complaints({**others, name: text}) == [complaint]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("_handoff", "import asyncio, threading, _thread, queue\nfrom ._runtime import x\nfrom ._errors import y"),
        ("wsgi_to_asgi", "import contextvars, logging, time\nif typing.TYPE_CHECKING:\n import asyncio, threading"),
        ("wsgi_to_asgi", "from ._workers import x\nfrom ._headers import y\nfrom . import _errors"),
        ("__init__", "from .wsgi_to_asgi import WSGIMiddleware\nfrom . import _errors"),
        ("_headers", "import re\nfrom ._types import x"),
    ],
)
def test_complaints_are_none_when_the_order_is_kept(name: str, text: str) -> None:
    """What the layers allow is let through."""
    assert complaints({"_errors": "", name: text}) == []


def test_complaints_name_a_cycle() -> None:
    """Two modules of one layer that need each other at import are a cycle."""
    sources = {"_handoff": "from ._runtime import x", "_runtime": "from ._handoff import y"}
    (complaint,) = complaints(sources)
    assert complaint.startswith("a cycle: ")
    assert {"_handoff", "_runtime"} <= set(complaint.split(" "))


@pytest.mark.parametrize(
    "text", ["def f():\n from .asgi_to_wsgi import x", "if TYPE_CHECKING:\n from .asgi_to_wsgi import x"]
)
def test_complaints_are_none_when_a_cycle_is_cut(text: str) -> None:
    """An import in a function or for types only does not run when its module is imported."""
    assert complaints({"wsgi_to_asgi": text, "asgi_to_wsgi": "from .wsgi_to_asgi import y"}) == []
