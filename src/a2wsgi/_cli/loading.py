"""Finds the app that the command line names."""

from __future__ import annotations

import contextvars
import difflib
import importlib
import inspect
import os
import sys
import traceback
from dataclasses import dataclass, replace
from importlib.machinery import all_suffixes
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from a2wsgi._front.convert import to_asgi, to_wsgi
from a2wsgi._interface import signature_of

from .errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from a2wsgi._interface import Interface

#: The module of an app that this thread is importing, so that `a2wsgi.run` knows if that calls it.
importing: contextvars.ContextVar[str | None] = contextvars.ContextVar("a2wsgi_importing", default=None)

_OURS = f"{Path(__file__).parent.parent}{os.sep}"

#: What an app is called in a module, if the user does not say. The last is of a factory.
NAMES: Final = ("app", "application", "create_app")


@dataclass(frozen=True)
class Target:
    """Where an app is.

    Attributes:
        module: The module that has it.
        attribute: Its name in the module; may contain dots. Empty: one of `NAMES`.
        directory: The first place to look for the module.
        factory: Whether it returns the app.
    """

    module: str
    attribute: str
    directory: str
    factory: bool = False

    @classmethod
    def parse(cls, text: str, *, factory: bool = False) -> Target:
        """Read ``package.module:app`` or ``path/to/file.py:app``, each with or without ``:app``.

        Raises:
            ValueError: It is neither of the two.
            LoadError: There is no such file.
        """
        place, colon, attribute = text.rpartition(":")
        if not colon or (os.name == "nt" and set(attribute) & {"/", "\\"}):  # C:\\shop.py
            place, colon, attribute = text, "", ""
        named = all(part.isidentifier() for part in attribute.split(".")) if colon else True
        is_file = place.endswith(".py") or bool({"/", os.sep} & set(place))
        if not named or not (is_file or all(part.isidentifier() for part in place.split("."))):
            called = attribute.endswith("()") and place
            hint = f" Write {text[:-2]} --factory." if called else " Write module:app or path/to/file.py:app."
            raise ValueError(f"{text!r} does not name an app.{hint}")
        if not is_file:
            return cls(place, attribute, str(Path.cwd()), factory)
        file = Path(place).resolve()
        if not file.with_name(f"{file.name}.py").is_file():
            if not file.exists():
                raise LoadError(f"There is no file {file}.")
            if file.is_file() and ("." in file.stem or file.suffix not in all_suffixes()):
                raise LoadError(f"{file} cannot be imported: its name must end in .py and have no other dot.")
        names, directory = [] if file.name == "__init__.py" else [file.stem], file.parent
        while (directory / "__init__.py").is_file():  # the file belongs to a package, and may have relative imports
            names.insert(0, directory.name)
            directory = directory.parent
        return cls(".".join(names), attribute, str(directory), factory)


def found(target: Target) -> Target:
    """The target with the app's name, if the user left it to us.

    Raises:
        LoadError: The module cannot be imported, or has no app under one of `NAMES`.
    """
    if target.attribute:
        return target
    module = _module(target)
    names = NAMES if not target.factory else reversed(NAMES)
    for name in names:
        try:
            value = _attribute(module, name, target.module)
        except AttributeError:
            continue
        if not callable(value) or isinstance(value, ModuleType):
            continue
        is_factory = name == NAMES[-1] and takes_nothing(value)
        return replace(target, attribute=name, factory=target.factory or is_factory)
    raise LoadError(
        f"{target.module} has no {', '.join(NAMES[:-1])} or {NAMES[-1]}, in {_file_of(module)}. Name the app: "
        f"{target.module}:NAME."
    )


def takes_nothing(function: object) -> bool:
    """Whether a function can be called without arguments."""
    try:
        parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]  # or else a TypeError
    except (TypeError, ValueError):
        return False
    return all(each.default is not each.empty or each.kind is each.VAR_KEYWORD for each in parameters)


def _needs_arguments(function: Any) -> bool:  # noqa: ANN401 - anything that can be called
    """Whether a call without arguments would fail. A decorator may pass some, so what it wraps does not count."""
    try:
        signature = signature_of(function)
    except (TypeError, ValueError):
        return False
    try:
        signature.bind()
    except TypeError:
        return True
    return False


def load(target: Target) -> Any:  # noqa: ANN401 - it may be anything
    """Return the app at ``target``, or what the factory there returns.

    Raises:
        LoadError: There is no such app, or its module or factory raises an error.
    """
    place, app = target.module, _module(target)
    file = _file_of(app)
    for name in target.attribute.split("."):
        try:
            inside = _attribute(app, name, place)
        except AttributeError as error:
            close = difflib.get_close_matches(name, [known for known in dir(app) if not known.startswith("_")], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise LoadError(f"{place} has no attribute {name!r}, in {file}.{hint}") from error
        place, app = f"{place}{'.' if ':' in place else ':'}{name}", inside
    return made_by(app, place) if target.factory else app


def made_by(factory: Any, name: str) -> Any:  # noqa: ANN401 - as above
    """Return the app that a factory makes.

    Args:
        factory: The factory.
        name: Its name, for messages.

    Raises:
        LoadError: It is not a factory, or raises an error.
    """
    if not callable(factory):
        raise LoadError(f"{name} is not a factory, because it cannot be called. Leave out --factory.")
    if _needs_arguments(factory):
        raise LoadError(
            f"{name} is not a factory, because it requires arguments. Leave out --factory, or name a "
            "function that takes none."
        )
    try:
        app = factory()
    except (Exception, SystemExit) as error:
        raise LoadError(f"The factory {name}() failed: {_told(error)}") from error
    if inspect.iscoroutine(app):
        app.close()  # or else Python warns that nobody has awaited it
        raise LoadError(
            f"The factory {name}() is async, so it returned a coroutine instead of an app. Write def instead of "
            "async def. An ASGI app can await what it needs in the startup of its lifespan."
        )
    return app


def _attribute(holder: Any, name: str, place: str) -> Any:  # noqa: ANN401 - as above
    """Return an attribute, which code of the app's may compute.

    Raises:
        AttributeError: There is none.
        LoadError: That code raises another error, as Flask's ``current_app`` does without a request.
    """
    try:
        return getattr(holder, name)
    except AttributeError:
        raise
    except Exception as error:
        raise LoadError(f"The attribute {name!r} of {place} cannot be read: {_told(error)}") from error


def _module(target: Target) -> Any:  # noqa: ANN401 - modules have attributes of any type
    if sys.path[:1] != [target.directory]:
        sys.path.insert(0, target.directory)
    token = importing.set(target.module)
    try:
        return importlib.import_module(target.module)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{target.module}.".startswith(f"{error.name}."):
            parent, _, name = target.module.rpartition(".")
            # With a parent, that is imported already.
            is_attribute = error.name == target.module and hasattr(sys.modules.get(parent), name)
            hint = (
                f"Did you mean {parent}:{name}?"
                if is_attribute and not target.attribute
                else "Change to its directory, or write path/to/file.py:app."
            )
            raise LoadError(
                f"There is no module {error.name!r} in {target.directory} or on Python's module path. {hint}"
            ) from error
        raise LoadError(f"The module {target.module} cannot be imported: {_told(error)}") from error
    finally:
        importing.reset(token)


def _file_of(module: Any) -> str | None:  # noqa: ANN401 - as above
    """Where a module is, for messages: it may not be the one that the user means, as Python has a site.py as well."""
    # A folder without an __init__.py is a module without a file.
    return getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)


def _told(error: BaseException) -> str:
    """What ``error`` is and where it was raised, in one line."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the text is made by the app's own method
        text = f"{type(error).__name__}: (its str() raises)"
    # Skips the frames of the import system, whose files are called "<frozen ...>", and our own: what calls us is wrong.
    places = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(("<", _OURS))
    ]
    if isinstance(error, SyntaxError) or not places:  # a SyntaxError itself says where it is
        return text
    return f"{text} ({places[-1].filename}, line {places[-1].lineno})"


def converted(app: Any, interface: Interface, bridge: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any app
    """Return the app with the interface that a server calls.

    Args:
        app: The app.
        interface: What the server calls.
        bridge: Options for the bridge, if one is needed.

    Raises:
        AppInterfaceError: It is not an app, or its interface cannot be detected.
        LoadError: The environment variable ``A2WSGI_WORKERS`` is not a number.
    """
    try:
        return to_wsgi(app, **bridge) if interface == "wsgi" else to_asgi(app, **bridge)
    except ValueError as error:  # the options themselves were checked before
        raise LoadError(str(error)) from error
