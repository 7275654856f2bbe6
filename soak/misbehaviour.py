"""Errors that are unkind to whoever handles them, logging that raises, and calls that come too late.

It is loaded by the served apps of both directions.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import random
import threading
from collections.abc import Callable


class PlainError(Exception):
    """An app's ordinary error."""


class UnprintableError(Exception):
    """Neither its ``repr`` nor its ``str`` can be had."""

    def __repr__(self) -> str:
        raise RuntimeError("repr() raises")

    __str__ = __repr__


class UnprintableBaseError(BaseException):
    """As `UnprintableError`, and caught by few."""

    def __repr__(self) -> str:
        raise RuntimeError("repr() raises")

    __str__ = __repr__


class BaseError(BaseException):
    """Not an `Exception`."""


ERRORS: dict[str, type[BaseException]] = {
    "plain": PlainError,
    "unprintable": UnprintableError,
    "unprintable-base": UnprintableBaseError,
    "base": BaseError,
    "stop": StopIteration,
    "stop-async": StopAsyncIteration,
    "generator-exit": GeneratorExit,
    "cancelled": asyncio.CancelledError,
    "os": ConnectionResetError,
}


class _RaisingHandler(logging.Handler):
    """Raises at every other record. `logging` lets what `emit` raises through."""

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - logging's name for it
        if random.random() < 0.5:
            raise RuntimeError("a log handler raises")


class _RaisingFilter(logging.Filter):
    """Raises at every fourth record."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - logging's name for it
        if random.random() < 0.25:
            raise RuntimeError("a log filter raises")
        return True


def break_logging(*names: str) -> None:
    """Have these loggers raise now and then, unless ``SOAK_WITHOUT`` names ``logging``."""
    if "logging" in os.environ.get("SOAK_WITHOUT", "").split(","):
        return
    for name in names:
        logger = logging.getLogger(name)
        if name == "a2wsgi":  # asyncio's constructor of a loop logs at this level, and nobody can mend what that raises
            logger.setLevel(logging.DEBUG)  # what is logged of a client that leaves is of this level
        logger.addHandler(_RaisingHandler())
        logger.addFilter(_RaisingFilter())
        logger.propagate = False  # servers have handlers of the root logger print every record


_LATE: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()


def _call_late() -> None:
    while True:
        call = _LATE.get()
        try:
            call()
        except BaseException:  # noqa: S110 - what is called too late may raise; that harms no other is looked for
            pass
        finally:
            del call


def late(call: Callable[[], object]) -> None:
    """Call this in another thread, a moment after now."""
    _LATE.put(call)


def start_late_calls() -> None:
    """Start the thread. At the first request: a server may fork after it has imported the app."""
    threading.Thread(target=_call_late, name="soak-late", daemon=True).start()
