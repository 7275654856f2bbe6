"""The house rules: which file may import which, and how large files, functions and classes may grow.

::

    edge         import paths, command line
    front        the only files that know both wings
    wings        one for each direction; they never import each other
    pairs        what two bridges around one request tell each other
    threads      where threads meet
    protocol     facts: no threads, no I/O, no clock
    vocabulary   errors, types, options, and which interface an app speaks

A file may import from its own layer and from those below it. That goes for imports in functions and for imports of
types, too. Only circles are looked for among the imports that run when a module is imported.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import takewhile
from pathlib import Path, PurePosixPath

import pytest

SOURCES = Path(__file__).parent.parent / "src" / "a2wsgi"

#: What does not hold yet: a rule, and how the paths begin that may still break it. An entry that is no longer needed
#: fails a test, so that it is taken off.
NOT_YET = {
    ("one_direction_is_read_in_an_afternoon", "_asgi_on_wsgi/"),
    ("one_direction_is_read_in_an_afternoon", "_wsgi_on_asgi/"),
    ("objects_change_in_few_places", "_wsgi_on_asgi/request.py"),
}

#: From the top down. A file's layer is that of the first part of its path, without the ".py".
LAYERS = {
    "edge": {"__init__", "__main__", "_cli", "wsgi", "asgi", "wsgi_typing", "asgi_typing"},
    "front": {"_front"},
    "wings": {"_wsgi_on_asgi", "_asgi_on_wsgi"},
    "pairs": {"_nested"},
    "threads": {"_threads"},
    "protocol": {"_protocol"},
    "vocabulary": {
        "_deprecated",
        "_errors",
        "_interface",
        "_log",
        "_options",
        "_statistics",
        "_type_hints",
        "_types",
        "_wrong_server",
    },
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}
HEIGHTS = {layer: height for height, layer in enumerate(reversed(LAYERS))}

#: What runs threads and loops. The wings and ``_threads`` are written with it; the front needs its types.
CONCURRENCY = {"_thread", "asyncio", "concurrent", "queue", "threading", "trio"}
MAY_RUN_THREADS = {"wings", "threads"}
#: `a2wsgi.run` in a notebook: the thread is the server's, and no request knows of it.
RUNS_A_SERVER = "_cli/background.py"
#: What else a file of facts may not know. ``_log`` is ours.
IMPURE = {"_log", "logging", "random", "select", "selectors", "socket", "time"}

MOST_HOOKS = 8
MOST_LINES = 400
MAY_BE_LONGER = {"_interface.py", "_types.py"}
MOST_LINES_OF_FUNCTION = 40
MOST_CHANGING_ATTRIBUTES = 12
MOST_LINES_OF_DIRECTION = 3_500

#: The path of each file, below ``src/a2wsgi`` and with slashes, and its text.
Sources = Mapping[str, str]


@dataclass(frozen=True)
class Complaint:
    """What breaks a rule, and where.

    Attributes:
        path: The file, as in `Sources`.
        line: Its line; 0 for the whole file.
        text: What is wrong.
    """

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


Rule = Callable[[Sources], Iterator[Complaint]]
RULES: dict[str, Rule] = {}


def rule(check: Rule) -> Rule:
    """Have a rule checked, under its own name."""
    RULES[check.__name__] = check
    return check


# -- Imports ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    """One imported module.

    Attributes:
        path: The file, if it is ours, as in `Sources`; None if not.
        top: The top-level package, as in ``"asyncio"``.
        line: Where.
        type_only: Whether it stands under ``if TYPE_CHECKING``.
        lazy: Whether it stands in a function.
    """

    path: str | None
    top: str
    line: int
    type_only: bool
    lazy: bool


def imports_of(path: str, sources: Sources) -> Iterator[Import]:
    """Each import of a file."""
    return _imports(ast.parse(sources[path]), path, sources, type_only=False, lazy=False)


def _imports(node: ast.AST, path: str, sources: Sources, *, type_only: bool, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        types, later = type_only, lazy
        match child:
            case ast.Import() | ast.ImportFrom():
                for name in _names(child, path):
                    top, _, rest = name.partition(".")
                    file = _file(rest, sources) if top == "a2wsgi" else None
                    yield Import(file, top, child.lineno, type_only, lazy)
                continue
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                body, types = ast.Module(child.body, []), True
                yield from _imports(ast.Module(child.orelse, []), path, sources, type_only=type_only, lazy=lazy)
                child = body  # noqa: PLW2901 - its other half is done
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                later = True
            case _:
                pass
        yield from _imports(child, path, sources, type_only=types, lazy=later)


def _names(node: ast.Import | ast.ImportFrom, path: str) -> Iterator[str]:
    """What one statement imports, by absolute names: those of modules, or of what is in one."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    package = ["a2wsgi", *PurePosixPath(path).parent.parts]
    parts = package[: len(package) - node.level + 1] if node.level else []
    base = ".".join([*parts, *filter(None, [node.module])])
    yield from (f"{base}.{alias.name}" for alias in node.names)


def _file(name: str, sources: Sources) -> str:
    """The file of a module of ours, or of a name in it. ``name`` goes without the ``a2wsgi``."""
    parts = name.split(".") if name else []
    while parts:
        for file in (f"{'/'.join(parts)}.py", f"{'/'.join(parts)}/__init__.py"):
            if file in sources:
                return file
        parts.pop()
    return "__init__.py"


def room_of(path: str) -> str:
    """The first part of a path: what `LAYERS` knows."""
    return path.partition("/")[0].removesuffix(".py")


@rule
def every_file_is_in_a_layer(sources: Sources) -> Iterator[Complaint]:
    """A new file stands where one of the layers is, or is entered there."""
    for path in sources:
        if room_of(path) not in LAYER_OF:
            yield Complaint(path, 0, "is in no layer: move it, or enter it in tests/test_layers.py")


@rule
def imports_run_downwards(sources: Sources) -> Iterator[Complaint]:
    """A file imports nothing that is above it."""
    for path, layer, found in _own_imports(sources):
        other = LAYER_OF[room_of(found)]
        if HEIGHTS[other] > HEIGHTS[layer]:
            yield Complaint(path, _line(path, found, sources), f"is of the {layer}, imports {found} of the {other}")


@rule
def wings_do_not_know_each_other(sources: Sources) -> Iterator[Complaint]:
    """There is no import from one wing to the other. What both need stands below them."""
    for path, layer, found in _own_imports(sources):
        if layer == "wings" == LAYER_OF[room_of(found)] and room_of(path) != room_of(found):
            yield Complaint(path, _line(path, found, sources), f"imports {found}, of the other wing")


def _own_imports(sources: Sources) -> Iterator[tuple[str, str, str]]:
    """Each file that has a layer, the layer, and another such file that it imports."""
    for path in sources:
        for found in dict.fromkeys(found.path for found in imports_of(path, sources)):
            if found is not None and {room_of(path), room_of(found)} <= LAYER_OF.keys():
                yield path, LAYER_OF[room_of(path)], found


def _line(path: str, imported: str, sources: Sources) -> int:
    """The first line on which a file imports another."""
    return next(found.line for found in imports_of(path, sources) if found.path == imported)


@rule
def only_wings_and_threads_run_threads(sources: Sources) -> Iterator[Complaint]:
    """Nobody else imports threading, asyncio and their like; the front and the edge may, for types."""
    for path in sources:
        layer = LAYER_OF.get(room_of(path))
        for found in imports_of(path, sources):
            if layer in MAY_RUN_THREADS or path == RUNS_A_SERVER or found.top not in CONCURRENCY:
                continue
            if not (found.type_only and layer in {"front", "edge"}):
                yield Complaint(path, found.line, f"is of the {layer}, imports {found.top}")


@rule
def facts_are_pure(sources: Sources) -> Iterator[Complaint]:
    """A file of facts knows no clock, no socket, no log; of threads it knows nothing either, by the rule above."""
    for path in sources:
        if LAYER_OF.get(room_of(path)) == "protocol":
            for found in imports_of(path, sources):
                name = found.top if found.path is None else room_of(found.path)
                if name in IMPURE:
                    yield Complaint(path, found.line, f"is of the protocol, imports {name}")


@rule
def imports_form_no_circle(sources: Sources) -> Iterator[Complaint]:
    """Of two files that know each other, the second to be loaded does not need the first."""
    graph = {
        path: {i.path for i in imports_of(path, sources) if i.path not in {None, path} and not i.type_only | i.lazy}
        for path in sources
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = [str(path) for path in error.args[1]]
        yield Complaint(circle[0], 0, f"is in a circle: {' <- '.join(circle)}")


# -- Pairs of bridges -------------------------------------------------------------------------------------------------


@rule
def hooks_for_pairs_are_few_and_short(sources: Sources) -> Iterator[Complaint]:
    """What the wings do for pairs of bridges is at most eight hooks, each of one statement.

    A hook is an ``if`` in a ``request.py`` whose condition names a ``pair`` or ``nested``, as in ``if pair is not
    None:``, with what is under it; and each other statement of a wing that uses ``_nested`` or a name imported from it.
    """
    hooks = [
        (path, hook) for path in sources if path.partition("/")[0] in LAYERS["wings"] for hook in _hooks(path, sources)
    ]
    for path, hook in hooks:
        if isinstance(hook, ast.If) and (len(hook.body) > 1 or hook.orelse or hasattr(hook.body[0], "body")):
            yield Complaint(path, hook.lineno, "is a hook for pairs of bridges with more than one statement")
    for path, hook in hooks[MOST_HOOKS:]:
        yield Complaint(path, hook.lineno, f"is a hook for pairs of bridges, and {MOST_HOOKS} others are before it")


def _hooks(path: str, sources: Sources) -> Iterator[ast.stmt]:
    tree = ast.parse(sources[path])
    room = {"_nested"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("_nested"):
            room |= {alias.asname or alias.name for alias in node.names}
    conditions = {"pair", "_pair", "nested", "_nested"} if PurePosixPath(path).name == "request.py" else set[str]()
    return _hooks_under(tree, room, conditions | room)


def _hooks_under(node: ast.AST, room: set[str], conditions: set[str]) -> Iterator[ast.stmt]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If):
            is_hook = bool(names_in(child.test) & conditions)
        else:
            is_hook = not hasattr(child, "body") and bool(names_in(child) & room)
        if is_hook and isinstance(child, ast.stmt):
            yield child
        else:
            yield from _hooks_under(child, room, conditions)


def names_in(node: ast.AST) -> set[str]:
    """The names in a node, and the attributes."""
    found = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return found | {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}


# -- Sizes ------------------------------------------------------------------------------------------------------------


@rule
def files_are_short(sources: Sources) -> Iterator[Complaint]:
    """All lines count."""
    for path, text in sources.items():
        if (lines := len(text.splitlines())) > MOST_LINES and path not in MAY_BE_LONGER:
            yield Complaint(path, 0, f"has {lines} lines; at most {MOST_LINES} may be")


@rule
def functions_are_short(sources: Sources) -> Iterator[Complaint]:
    """From the ``def`` to the last line, all lines count but those of the docstring.

    A function of any length is let through if a comment ``# Fast path:`` stands in it, or directly above it: it says
    that a split would cost each request a call, and names the benchmark that shows it.
    """
    for path, text in sources.items():
        lines = text.splitlines()
        for name, function in _functions(ast.parse(text)):
            length = _length(function)
            if length > MOST_LINES_OF_FUNCTION and not _has_fast_path(function, lines):
                yield Complaint(
                    path, function.lineno, f"{name} has {length} lines; at most {MOST_LINES_OF_FUNCTION} may be"
                )


Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Each function under a node, with its dotted name."""
    for child in ast.iter_child_nodes(node):
        name = prefix
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            name = f"{prefix}{child.name}"
            if not isinstance(child, ast.ClassDef):
                yield name, child
            name += "."
        yield from _functions(child, name)


def _length(function: Function) -> int:
    assert function.end_lineno is not None
    length = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        docstring = function.body[0]
        assert docstring.end_lineno is not None
        length -= docstring.end_lineno - docstring.lineno + 1
    return length


def _has_fast_path(function: Function, lines: list[str]) -> bool:
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    above = takewhile(lambda line: line.lstrip().startswith("#"), reversed(lines[: first - 1]))
    within = lines[first - 1 : function.end_lineno]
    return any("# Fast path:" in line for line in [*above, *within])


@rule
def objects_change_in_few_places(sources: Sources) -> Iterator[Complaint]:
    """A class has at most twelve attributes that change after construction.

    Counted are the names that stand to the left of an assignment to ``self.name``, of any form, or in ``del
    self.name``, in a method that is not ``__init__``: those of the class and of all its bases in the package. Not
    counted is what others assign to an object, and what changes inside an attribute, such as a list that grows.
    """
    classes = [
        (path, node)
        for path, text in sources.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
    ]
    for path, node in classes:
        changing = {attribute for base in _with_bases(path, node, classes) for attribute in _changing(base)}
        if len(changing) > MOST_CHANGING_ATTRIBUTES:
            yield Complaint(
                path,
                node.lineno,
                f"{node.name} has {len(changing)} attributes that change; at most {MOST_CHANGING_ATTRIBUTES} may be: "
                f"{', '.join(sorted(changing))}",
            )


def _with_bases(path: str, node: ast.ClassDef, classes: Sequence[tuple[str, ast.ClassDef]]) -> Iterator[ast.ClassDef]:
    yield node
    for base in node.bases:
        name = ast.unparse(base).partition("[")[0].rpartition(".")[2]
        found = [one for one in classes if one[1].name == name != node.name]
        if found:  # several wings may have one of a name
            yield from _with_bases(*min(found, key=lambda one: room_of(one[0]) != room_of(path)), classes)


def _changing(node: ast.ClassDef) -> set[str]:
    return {
        part.attr
        for method in node.body
        if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)) and method.name != "__init__"
        for part in ast.walk(method)
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, (ast.Store, ast.Del))
        if isinstance(part.value, ast.Name) and part.value.id == "self"
    }


@rule
def one_direction_is_read_in_an_afternoon(sources: Sources) -> Iterator[Complaint]:
    """The files that ``bridge.py`` of a wing reaches by imports are at most 3,500 lines together.

    Neither the vocabulary counts, nor ``_nested`` with what it imports, nor what an import in a function loads.
    """
    for wing in sorted(LAYERS["wings"]):
        if (start := f"{wing}/bridge.py") in sources:
            reached = _reached(start, sources)
            lines = sum(len(sources[path].splitlines()) for path in reached)
            if lines > MOST_LINES_OF_DIRECTION:
                yield Complaint(
                    start,
                    0,
                    f"reaches {len(reached)} files with {lines} lines; at most {MOST_LINES_OF_DIRECTION} may be",
                )


def _reached(start: str, sources: Sources) -> set[str]:
    reached, left = set[str](), [start]
    while left:
        if (path := left.pop()) not in reached:
            reached.add(path)
            for found in imports_of(path, sources):
                if found.path is None or found.type_only or found.lazy:
                    continue
                if LAYER_OF.get(room_of(found.path)) in {"wings", "threads", "protocol"}:
                    left.append(found.path)
    return reached


# -- The package ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package() -> Sources:
    """The package as it stands."""
    sources = {path.relative_to(SOURCES).as_posix(): path.read_text("utf-8") for path in SOURCES.rglob("*.py")}
    assert sources.keys() > {"__init__.py", "_front/convert.py", "_wsgi_on_asgi/request.py", "_asgi_on_wsgi/request.py"}
    return sources


@pytest.mark.parametrize("name", RULES)
def test_package_keeps_the_rule(name: str, package: Sources) -> None:
    """Nothing breaks a rule but what `NOT_YET` lists."""
    excused = tuple(start for broken, start in NOT_YET if broken == name)
    complaints = [complaint for complaint in RULES[name](package) if not complaint.path.startswith(excused)]
    assert [str(complaint) for complaint in complaints] == []


@pytest.mark.parametrize(("name", "start"), sorted(NOT_YET))
def test_not_yet_lists_only_what_still_breaks_a_rule(name: str, start: str, package: Sources) -> None:
    """An entry that excuses nothing has to go."""
    assert [complaint for complaint in RULES[name](package) if complaint.path.startswith(start)], "take it off"


# -- The rules, on made-up sources ------------------------------------------------------------------------------------

#: A file of each layer, for the made-up sources to import.
EMPTY = dict.fromkeys(
    [
        "__init__.py",
        "_front.py",
        "_wsgi_on_asgi/__init__.py",
        "_wsgi_on_asgi/workers.py",
        "_asgi_on_wsgi/loops.py",
        "_nested.py",
        "_threads/stream.py",
        "_protocol/paths.py",
        "_errors.py",
        "_log.py",
    ],
    "",
)
HOOK = "if self._pair is not None:\n    self._pair.x()\n"
LONG = "    x = 1\n" * 40


def many(number: int) -> str:
    """A method that changes so many attributes."""
    return "".join(f"  self.a{n} = 1\n" for n in range(number))


@pytest.mark.parametrize(
    ("name", "sources", "complaint"),
    [
        ("every_file_is_in_a_layer", {"_stray.py": ""}, "_stray.py:0: is in no layer: "),
        ("every_file_is_in_a_layer", {"_stray/x.py": ""}, "_stray/x.py:0: is in no layer: "),
        (
            "imports_run_downwards",
            {"_protocol/x.py": "from a2wsgi._threads.stream import ToLoop"},
            "_protocol/x.py:1: is of the protocol, imports _threads/stream.py of the threads",
        ),
        (
            "imports_run_downwards",
            {"_protocol/x.py": "\nimport a2wsgi._threads.stream"},
            "_protocol/x.py:2: is of the protocol, imports _threads/stream.py of the threads",
        ),
        (
            "imports_run_downwards",
            {"_protocol/x.py": "def f():\n from .._nested import join"},
            "_protocol/x.py:2: is of the protocol, imports _nested.py of the pairs",
        ),
        (
            "imports_run_downwards",
            {"_threads/x.py": "from .. import _nested"},
            "_threads/x.py:1: is of the threads, imports _nested.py of the pairs",
        ),
        (
            "imports_run_downwards",
            {"_errors.py": "from ._protocol import paths"},
            "_errors.py:1: is of the vocabulary, imports _protocol/paths.py of the protocol",
        ),
        (
            "imports_run_downwards",
            {"_nested.py": "if TYPE_CHECKING:\n from ._wsgi_on_asgi.workers import Workers"},
            "_nested.py:2: is of the pairs, imports _wsgi_on_asgi/workers.py of the wings",
        ),
        (
            "imports_run_downwards",
            {"_asgi_on_wsgi/x.py": "from a2wsgi._front import to_asgi"},
            "_asgi_on_wsgi/x.py:1: is of the wings, imports _front.py of the front",
        ),
        (
            "imports_run_downwards",
            {"_front.py": "from . import WSGIMiddleware"},
            "_front.py:1: is of the front, imports __init__.py of the edge",
        ),
        (
            "wings_do_not_know_each_other",
            {"_asgi_on_wsgi/x.py": "from a2wsgi._wsgi_on_asgi.workers import Workers"},
            "_asgi_on_wsgi/x.py:1: imports _wsgi_on_asgi/workers.py, of the other wing",
        ),
        (
            "wings_do_not_know_each_other",
            {"_wsgi_on_asgi/x.py": "def f():\n from .._asgi_on_wsgi import loops"},
            "_wsgi_on_asgi/x.py:2: imports _asgi_on_wsgi/loops.py, of the other wing",
        ),
        (
            "only_wings_and_threads_run_threads",
            {"_errors.py": "if TYPE_CHECKING:\n import asyncio.events"},
            "_errors.py:2: is of the vocabulary, imports asyncio",
        ),
        (
            "only_wings_and_threads_run_threads",
            {"_protocol/x.py": "def f():\n from concurrent import futures"},
            "_protocol/x.py:2: is of the protocol, imports concurrent",
        ),
        (
            "only_wings_and_threads_run_threads",
            {"_front.py": "if TYPE_CHECKING: pass\nelse:\n import queue"},
            "_front.py:3: is of the front, imports queue",
        ),
        ("facts_are_pure", {"_protocol/x.py": "import time"}, "_protocol/x.py:1: is of the protocol, imports time"),
        (
            "facts_are_pure",
            {"_protocol/x.py": "from a2wsgi._log import logger"},
            "_protocol/x.py:1: is of the protocol, imports _log",
        ),
        (
            "imports_form_no_circle",
            {"_threads/x.py": "from .y import b", "_threads/y.py": "from .x import a"},
            "_threads/x.py:0: is in a circle: _threads/x.py <- _threads/y.py <- _threads/x.py",
        ),
        (
            "hooks_for_pairs_are_few_and_short",
            {"_wsgi_on_asgi/request.py": HOOK * 8, "_asgi_on_wsgi/body.py": "from a2wsgi import _nested\n_nested.f()"},
            "_asgi_on_wsgi/body.py:2: is a hook for pairs of bridges, and 8 others are before it",
        ),
        (
            "hooks_for_pairs_are_few_and_short",
            {"_wsgi_on_asgi/request.py": HOOK * 8, "_asgi_on_wsgi/body.py": "from .._nested import join\nx = join()"},
            "_asgi_on_wsgi/body.py:2: is a hook for pairs of bridges, and 8 others are before it",
        ),
        (
            "hooks_for_pairs_are_few_and_short",
            {"_asgi_on_wsgi/request.py": "def f():\n if nested:\n  a()\n  b()"},
            "_asgi_on_wsgi/request.py:2: is a hook for pairs of bridges with more than one statement",
        ),
        (
            "hooks_for_pairs_are_few_and_short",
            {"_asgi_on_wsgi/request.py": "if nested:\n for x in y: a()"},
            "_asgi_on_wsgi/request.py:1: is a hook for pairs of bridges with more than one statement",
        ),
        (
            "hooks_for_pairs_are_few_and_short",
            {"_asgi_on_wsgi/request.py": HOOK + "else:\n    b()"},
            "_asgi_on_wsgi/request.py:1: is a hook for pairs of bridges with more than one statement",
        ),
        ("files_are_short", {"_front.py": "\n" * 401}, "_front.py:0: has 401 lines; at most 400 may be"),
        (
            "functions_are_short",
            {"_front.py": f"class A:\n async def f():\n{LONG}"},
            "_front.py:2: A.f has 41 lines; at most 40 may be",
        ),
        (
            "functions_are_short",
            {"_front.py": f"# Fast path: of another.\n\ndef f():\n{LONG}"},
            "_front.py:3: f has 41 lines; at most 40 may be",
        ),
        (
            "objects_change_in_few_places",
            {"_front.py": f"class A:\n def f(self):\n{many(11)}  self.x += 1\n  del self.y"},
            "_front.py:1: A has 13 attributes that change; at most 12 may be: ",
        ),
        (
            "objects_change_in_few_places",
            {
                "_front.py": "class A(_nested.B[int]):\n def f(self):\n  self.x, [self.y] = 1, [2]",
                "_nested.py": f"class B:\n def f(self):\n{many(11)}",
            },
            "_front.py:1: A has 13 attributes that change; at most 12 may be: ",
        ),
        (
            "objects_change_in_few_places",
            {
                "_wsgi_on_asgi/x.py": f"class A:\n def f(self):\n{many(13)}",
                "_asgi_on_wsgi/x.py": "class A:\n pass",
            },
            "_wsgi_on_asgi/x.py:1: A has 13 attributes that change; at most 12 may be: ",
        ),
        (
            "one_direction_is_read_in_an_afternoon",
            {
                "_wsgi_on_asgi/bridge.py": "from .x import f",
                "_wsgi_on_asgi/x.py": "from a2wsgi._protocol.paths import f\n" + "\n" * 3000,
                "_protocol/paths.py": "\n" * 500,
            },
            "_wsgi_on_asgi/bridge.py:0: reaches 3 files with 3502 lines; at most 3500 may be",
        ),
    ],
)
def test_rule_names_what_breaks_it(name: str, sources: Sources, complaint: str) -> None:
    """Each rule is broken on purpose, and one complaint has the file, the line and the reason."""
    (found,) = RULES[name]({**EMPTY, **sources})
    assert str(found).startswith(complaint)


@pytest.mark.parametrize(
    "sources",
    [
        {"_cli/main.py": "import socket, time\nfrom a2wsgi import WSGIMiddleware\nfrom .loading import load"},
        {"wsgi.py": "from ._wsgi_on_asgi.workers import Workers\nfrom ._asgi_on_wsgi import loops"},
        {"_front.py": "from ._asgi_on_wsgi import loops\nif typing.TYPE_CHECKING:\n import asyncio"},
        {"_wsgi_on_asgi/x.py": "import asyncio, threading, time\nfrom . import workers\nfrom a2wsgi import _nested"},
        {"_threads/x.py": "import _thread, queue\nfrom .stream import ToLoop\nfrom a2wsgi._log import logger"},
        {"_protocol/x.py": "import re\nfrom .paths import quote\nfrom a2wsgi._errors import InvalidHeader"},
        {"_threads/x.py": "from .y import b", "_threads/y.py": "def f():\n from .x import a"},
        {"_threads/x.py": "from .y import b", "_threads/y.py": "if TYPE_CHECKING:\n from .x import a"},
        {"_wsgi_on_asgi/request.py": HOOK * 8},
        {"_wsgi_on_asgi/websocket/session.py": HOOK * 9},  # a WebSocket is not read for plain requests
        {"_interface.py": "\n" * 401, "_front.py": "\n" * 400},
        {"_front.py": f'def f():\n    """\n{"d" * 9}\n    """\n{LONG[10:]}'},
        {"_front.py": f"def f():\n    # Fast path: a split costs a call (benchmarks/x.py).\n{LONG}"},
        {"_front.py": f"# Fast path: a split costs a call\n# (benchmarks/x.py).\n@cached\ndef f():\n{LONG}"},
        {"_front.py": f"class A:\n def __init__(self):\n{many(13)}\n def f(self):\n{many(12)}"},
        {"_wsgi_on_asgi/bridge.py": "from a2wsgi._errors import X", "_errors.py": "\n" * 399 + "\n" * 3200},
    ],
)
def test_rules_are_kept_by_what_they_allow(sources: Sources) -> None:
    """What stands at the edge of a rule is let through by all of them but the one about long files."""
    others = [check for name, check in RULES.items() if name != "files_are_short" or "_errors.py" not in sources]
    assert [str(complaint) for check in others for complaint in check({**EMPTY, **sources})] == []
