"""A log call of ours writes what `logging` would, and never raises."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from a2wsgi._log import SafeLogger

NAME = "a2wsgi.test"


class Broken(logging.Handler):
    """Raises in ``emit``, where `logging` itself does not catch it."""

    def emit(self, record: logging.LogRecord) -> None:
        raise LookupError(f"the handler, for {record.getMessage()!r}")


class BrokenFilter(logging.Filter):
    """Raises for each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        raise LookupError(f"the filter, for {record.getMessage()!r}")


@pytest.fixture
def log() -> Iterator[SafeLogger]:
    """A logger of this test's own, without the handlers that it leaves there."""
    real = logging.getLogger(NAME)
    yield SafeLogger(NAME)
    real.handlers.clear()
    real.filters.clear()


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_log_writes_what_logging_does(log: SafeLogger, caplog: pytest.LogCaptureFixture, level: str) -> None:
    """A record has its level, its text, its exception, and the function that logged it."""
    caplog.set_level(logging.DEBUG, NAME)
    error = ValueError("told")
    getattr(log, level)("one %s", "argument", exc_info=error)
    (record,) = caplog.records
    assert (record.name, record.levelname, record.getMessage()) == (NAME, level.upper(), "one argument")
    assert record.funcName == "test_log_writes_what_logging_does"
    assert record.exc_info == (ValueError, error, None)


def test_log_has_the_exception_that_is_handled(log: SafeLogger, caplog: pytest.LogCaptureFixture) -> None:
    """`exception` finds it by itself."""
    try:
        int("no number")
    except ValueError:
        log.exception("failed")
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


@pytest.mark.parametrize("broken", [Broken(), BrokenFilter()], ids=["handler", "filter"])
def test_log_that_fails_raises_nothing_and_says_so(
    log: SafeLogger, broken: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a user's handler or filter raises goes to stderr, where `logging` puts such errors."""
    real = logging.getLogger(NAME)
    (real.addHandler if isinstance(broken, Broken) else real.addFilter)(broken)
    log.warning("a message")
    assert "LookupError: the " in capsys.readouterr().err


@pytest.mark.parametrize("how", ["is silent", "has no stderr", "has a stderr that raises"])
def test_log_that_fails_has_nowhere_to_say_so(
    log: SafeLogger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """`logging.raiseExceptions` is off, or there is no stderr that works: still nothing is raised."""

    class BadStream:
        def write(self, _: str) -> None:
            raise OSError("no space")

    if how == "is silent":
        monkeypatch.setattr(logging, "raiseExceptions", False)
    else:
        monkeypatch.setattr("sys.stderr", None if how == "has no stderr" else BadStream())
    logging.getLogger(NAME).addHandler(Broken())
    log.warning("a message")
    assert capsys.readouterr().err == ""
