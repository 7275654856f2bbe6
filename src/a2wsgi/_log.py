"""The logger of a2wsgi. Its methods never raise.

Handlers and filters are the user's code. `logging` does not catch what a filter raises, nor a handler that overrides
``emit``. A request must not end differently because its log record could not be written.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    Cause = (
        bool
        | BaseException
        | tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None]
        | None
    )


class SafeLogger:
    """The methods of `logging.Logger` that we use, safe to call anywhere.

    Args:
        name: The logger's name.

    Threading: any thread.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def log(self, level: int, message: str, *args: object) -> None:
        """Log at ``level``."""
        self._log(level, message, args, None)

    def debug(self, message: str, *args: object, exc_info: Cause = None) -> None:
        """Log at ``DEBUG``."""
        self._log(logging.DEBUG, message, args, exc_info)

    def info(self, message: str, *args: object, exc_info: Cause = None) -> None:
        """Log at ``INFO``."""
        self._log(logging.INFO, message, args, exc_info)

    def warning(self, message: str, *args: object, exc_info: Cause = None) -> None:
        """Log at ``WARNING``."""
        self._log(logging.WARNING, message, args, exc_info)

    def error(self, message: str, *args: object, exc_info: Cause = None) -> None:
        """Log at ``ERROR``."""
        self._log(logging.ERROR, message, args, exc_info)

    def exception(self, message: str, *args: object) -> None:
        """Log at ``ERROR``, with the exception that is being handled."""
        self._log(logging.ERROR, message, args, exc_info=True)

    def _log(self, level: int, message: str, args: tuple[object, ...], exc_info: Cause) -> None:
        try:
            # 3: the record names the function that logs, not this one and its caller.
            self._logger.log(level, message, *args, exc_info=exc_info, stacklevel=3)
        except Exception:  # noqa: BLE001 - whatever a user's handler or filter raises
            _complain()


def _complain() -> None:
    """Report on stderr that a log call failed, as `logging.Handler.handleError` does."""
    try:
        if logging.raiseExceptions and sys.stderr is not None:
            traceback.print_exc(file=sys.stderr)
    except Exception:  # noqa: BLE001, S110 - stderr is closed, or is user code, too: nowhere is left to report it
        pass


logger = SafeLogger("a2wsgi")


class DroppedHeaders:
    """The hop-by-hop headers that a bridge's app sets. Each is logged once (see `a2wsgi._threads`). Any thread."""

    __slots__ = ("_logged",)

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def log(self, names: Iterable[str]) -> None:
        """Log that these were dropped."""
        for name in names:
            if name not in self._logged:
                self._logged.add(name)
                logger.warning(
                    "The app set the header %s, which only the server may set; it was dropped (PEP 3333, RFC 9110 "
                    "§7.6.1)",
                    name,
                )
