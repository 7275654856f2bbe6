"""Finds the app that is named on the command line."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._convert import to_asgi, to_wsgi

if TYPE_CHECKING:
    from ._interface import Interface

__all__ = ["LoadError", "Target", "converted", "load"]


class LoadError(Exception):
    """The app cannot be had, and why. What the app raised is the cause."""


@dataclass(frozen=True)
class Target:
    """Where an app is.

    Attributes:
        module: The module that has it.
        attribute: Its name there; may have dots.
        directory: Where the module is looked for first.
    """

    module: str
    attribute: str
    directory: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``package.module:app`` or ``path/to/file.py:app``.

        Raises:
            ValueError: It is neither.
        """
        place, _, attribute = text.rpartition(":")
        if not place or not all(part.isidentifier() for part in attribute.split(".")):
            called = attribute.endswith("()") and place
            hint = f" Write {text[:-2]} --factory." if called else " Write module:app or path/to/file.py:app."
            raise ValueError(f"{text!r} does not name an app.{hint}")
        if not place.endswith(".py") and not {"/", os.sep} & set(place):
            return cls(place, attribute, str(Path.cwd()))
        file = Path(place).resolve()
        names, directory = [] if file.name == "__init__.py" else [file.stem], file.parent
        while (directory / "__init__.py").is_file():  # the file is of a package, and may import from it by dots
            names.insert(0, directory.name)
            directory = directory.parent
        return cls(".".join(names), attribute, str(directory))


def load(target: Target, *, factory: bool = False) -> Any:  # noqa: ANN401 - whatever it is
    """The app at ``target``, or what that returns if it is a ``factory``.

    Raises:
        LoadError: There is none, or what it is in fails.
    """
    place, app = target.module, _module(target)
    file = getattr(
        app, "__file__", None
    )  # said, since it may be another than was meant: site.py is one of Python's own
    for name in target.attribute.split("."):
        if not hasattr(app, name):
            close = difflib.get_close_matches(name, [known for known in dir(app) if not known.startswith("_")], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise LoadError(f"{place} has no attribute {name!r}, in {file}.{hint}")
        place, app = f"{place}{'.' if ':' in place else ':'}{name}", getattr(app, name)
    if not factory:
        return app
    if not callable(app):
        raise LoadError(f"{place} is no factory: it cannot be called. Leave out --factory.")
    try:
        return app()
    except (Exception, SystemExit) as error:
        raise LoadError(f"The factory {place}() failed: {_told(error)}") from error


def _module(target: Target) -> Any:  # noqa: ANN401 - a module, and then what is in it
    if sys.path[:1] != [target.directory]:
        sys.path.insert(0, target.directory)
    try:
        return importlib.import_module(target.module)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{target.module}.".startswith(f"{error.name}."):
            raise LoadError(
                f"There is no module {error.name!r} in {target.directory}, nor where Python looks for modules. Go to "
                "the directory that has it, or write path/to/file.py:app."
            ) from error
        raise LoadError(f"The module {target.module} cannot be imported: {_told(error)}") from error


def _told(error: BaseException) -> str:
    """What ``error`` is and where it was raised, in a line."""
    text = f"{type(error).__name__}: {error}"
    # Without the frames of the import system, whose code is "<frozen>".
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    if isinstance(error, SyntaxError) or not places:  # the former says itself where it is
        return text
    return f"{text} ({places[-1].filename}, line {places[-1].lineno})"


def converted(app: Any, interface: Interface) -> Any:  # noqa: ANN401 - any app
    """The app by the interface that a server calls.

    Raises:
        AppInterfaceError: It is no app, or its interface cannot be told.
    """
    return to_wsgi(app) if interface == "wsgi" else to_asgi(app)
