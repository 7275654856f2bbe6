"""Threads that start, and one that dies as it does."""

from __future__ import annotations

import contextvars
import threading

import pytest

from a2wsgi._threads import starting as _starting
from a2wsgi._threads.starting import start_thread

variable = contextvars.ContextVar("variable", default="none")


def test_thread_starts_in_an_empty_context() -> None:
    """It works for nobody's request."""
    seen: list[str] = []
    variable.set("the caller's")
    thread = threading.Thread(target=lambda: seen.append(variable.get()))
    start_thread(thread)
    thread.join()
    assert seen == ["none"]


def test_thread_that_dies_as_it_starts_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does for want of memory: it never says that it runs."""

    class Dying(threading.Thread):
        def _bootstrap(self) -> None:
            """Raise nothing: Python would print that, maybe after the test."""

    monkeypatch.setattr(_starting, "START_SECONDS", 0.01)
    thread = Dying(daemon=True)
    start_thread(thread)
    assert not thread.is_alive()
    threading._limbo.pop(thread)  # type: ignore[attr-defined]  # Python keeps it there
