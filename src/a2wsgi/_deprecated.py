"""What we tell programs written for a2wsgi 1.x: deprecation warnings, and errors for names that no longer exist."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Where the documentation says what to write instead.
GUIDE = "https://github.com/abersheeran/a2wsgi/blob/HEAD/docs/migrating.md"


def deprecated(message: str) -> None:
    """Warn about something that still works, at the line of the caller outside this package. Any thread."""
    level = 2
    # warnings.warn() can skip files by prefix only from Python 3.12 on.
    frame = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package == "a2wsgi":
            level += 1
        elif package != "importlib":  # warnings.warn() does not count its frames
            break
        frame = frame.f_back
    warnings.warn(f"{message} See {GUIDE}", DeprecationWarning, stacklevel=level)


def missing(module: str, name: str, gone: Iterable[str]) -> NoReturn:
    """Raise for a name that ``module`` does not have.

    Raises:
        ImportError: 1.x had it. This is not an `AttributeError`, since ``from module import name`` would replace that
            by an error of its own. pydantic 2 does the same for the names of pydantic 1.
        AttributeError: It never existed.
    """
    if name in gone:
        raise ImportError(
            f"{module}.{name} was in a2wsgi 1.x and is not in 2.0, because it was internal. See {GUIDE}",
            name=module,
        )
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def takes_three(error: TypeError) -> bool:
    """Return whether a call with two arguments failed before it began, so that it can be repeated with a third."""
    # The traceback ends in the caller: nothing of the called function has run.
    return error.__traceback__ is not None and error.__traceback__.tb_next is None
