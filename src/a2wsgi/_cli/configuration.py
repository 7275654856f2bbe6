"""Where options come from, the strongest first: the command line, ``A2WSGI_*`` in the environment, pyproject.toml.

The file of ``--env-file`` is read before the environment is, so it may set ``A2WSGI_*`` as well.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from .errors import UsageError
from .options import OPTIONS, Option, Options

if TYPE_CHECKING:
    from collections.abc import Mapping

_BY_NAME: Final = {option.name: option for option in OPTIONS}
_ENV_LINE: Final = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_][\w.]*)\s*=\s*
    (?:'(?P<single>[^']*)'|"(?P<double>(?:\\.|[^"\\])*)"|(?P<bare>[^\n]*?))\s*(?:(?<=\s)\#.*)?""",
    re.VERBOSE,
)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"}


def options_from(given: Mapping[str, Any], extra: list[str]) -> Options:
    """All options, each from the strongest source that has it.

    Args:
        given: What the command line has.
        extra: What follows its ``--``.

    Raises:
        UsageError: A source has an unknown option, or a wrong value.
    """
    project = _from_pyproject(Path.cwd())
    file = given.get("env_file") or os.environ.get("A2WSGI_ENV_FILE") or project.get("env_file")
    if file:
        _load_env_file(Path(file))
    values = {**project, **_from_environment(), **given}
    # Each source of bridge options adds to the weaker ones.
    bridges = (project, _from_environment(), {"bridge": _pairs(given.get("bridge", ()), "--bridge")})
    values["bridge"] = {name: value for source in bridges for name, value in source.get("bridge", {}).items()}
    known = {field.name for field in fields(Options)}
    chosen = {name: value for name, value in values.items() if name in known}
    return Options(**chosen, extra=extra, given=frozenset(given))


def _pairs(texts: Any, source: str) -> dict[str, object]:  # noqa: ANN401 - a list or a tuple
    """The options of the bridge, each written as ``name=value``."""
    pairs: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{source}: {text!r} has no value. Write NAME=VALUE.")
        pairs[name.strip().replace("-", "_")] = value.strip()
    return pairs


# -- The environment --------------------------------------------------------------------------------------------------


def _from_environment() -> dict[str, Any]:
    values: dict[str, Any] = {}
    for option in OPTIONS:
        text = os.environ.get(option.environment)
        if not text:  # as many tools do, an empty one counts as not set
            continue
        if option.name == "bridge":
            values["bridge"] = _pairs(re.split(r"[\s,]+", text.strip()), option.environment)
        else:
            values[option.name] = _read(option, text, f"The environment variable {option.environment}")
    return values


def _read(option: Option, text: str, source: str) -> Any:  # noqa: ANN401 - each option has its own type
    try:
        return option.value_of(text)
    except ValueError as error:
        raise UsageError(f"{source}: {text!r} {error}.") from None


def _load_env_file(path: Path) -> None:
    """Add a file's variables to the environment. What is set already stays."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise UsageError(f"--env-file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # no variable can hold it, and UTF-16 has it in every other byte
        raise UsageError(f"--env-file {path} is not a text file in UTF-8.")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ENV_LINE.fullmatch(line)
        if match is None:
            raise UsageError(f"--env-file {path}, line {number}: {line.strip()!r} is not of the form NAME=value.")
        value = match["single"] if match["single"] is not None else match["bare"]
        if match["double"] is not None:
            value = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), match["double"])
        os.environ.setdefault(match["name"], value)


# -- pyproject.toml ---------------------------------------------------------------------------------------------------


def _from_pyproject(directory: Path) -> dict[str, Any]:
    """The table ``[tool.a2wsgi]`` of a directory's pyproject.toml."""
    path = directory / "pyproject.toml"
    if not path.is_file():
        return {}
    return {
        name: _from_toml(name, value, f"{path}: [tool.a2wsgi] {name}")
        for name, value in _normal(_table(path), path).items()
    }


def _table(path: Path) -> Mapping[str, object]:
    text = path.read_text("utf-8", errors="replace")
    if "a2wsgi" not in text:  # the usual case, and a file that others read may be one that we cannot
        return {}
    toml: Any
    for module in ("tomllib", "tomli"):  # the former is in the standard library from Python 3.11
        try:
            toml = import_module(module)
            break
        except ModuleNotFoundError:
            continue
    else:
        if re.search(r"^\s*\[tool\.a2wsgi\b", text, re.MULTILINE):
            raise UsageError(
                f"{path} has a [tool.a2wsgi] table, and Python 3.10 needs tomli to read it: pip install tomli"
            )
        return {}
    try:
        tool = toml.loads(text).get("tool", {})
    except toml.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    if not isinstance(tool, dict):
        raise UsageError(f"{path}: tool is not a table.")
    table = cast("dict[str, object]", tool).get("a2wsgi", {})
    if not isinstance(table, dict):
        raise UsageError(f"{path}: tool.a2wsgi is not a table.")
    return cast("dict[str, object]", table)


def _normal(table: Mapping[str, object], path: Path) -> dict[str, object]:
    """The table with the names of `Options`."""
    normal = {name.replace("-", "_"): value for name, value in table.items()}
    for name in normal:
        if name not in _BY_NAME:
            close = difflib.get_close_matches(name, _BY_NAME, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"It has these: {', '.join(_BY_NAME)}."
            raise UsageError(f"{path}: [tool.a2wsgi] has no option {name}. {hint}")
    return normal


def _from_toml(name: str, value: object, source: str) -> Any:  # noqa: ANN401 - each option has its own type
    if name == "bridge":
        if not isinstance(value, dict):
            raise UsageError(f"{source}: write a table, such as bridge = {{ spool_request = true }}.")
        return {key.replace("-", "_"): each for key, each in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        value = ",".join(map(str, cast("list[object]", value)))
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, dict):
        raise UsageError(f"{source}: the value of this option must not be a table.")
    return _read(_BY_NAME[name], str(value), source)
