"""Whether the server has begun to stop, as its thread can tell: by parts of servers that stand in for the real ones."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import types
from typing import Any

import pytest

from a2wsgi._asgi_on_wsgi.websocket.server_stop import stop_of_server


class Worker:
    """gunicorn's: its method handles SIGTERM."""

    alive = True

    def handle_exit(self, *_: object) -> None:
        self.alive = False


def module(monkeypatch: pytest.MonkeyPatch, name: str, **parts: Any) -> None:
    """Have a module been imported."""
    made = types.ModuleType(name)
    vars(made).update(parts)
    monkeypatch.setitem(sys.modules, name, made)


def test_nothing_tells_on_an_unknown_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither module is there."""
    monkeypatch.delitem(sys.modules, "gunicorn.workers.base", raising=False)
    monkeypatch.delitem(sys.modules, "cheroot.workers.threadpool", raising=False)
    assert stop_of_server() is None


def test_worker_of_gunicorn_is_found_by_its_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops as soon as it is no longer alive; another one's handler is passed over."""
    worker = Worker()
    module(monkeypatch, "gunicorn.workers.base", Worker=Worker)
    monkeypatch.setattr(signal, "getsignal", {signal.SIGTERM: worker.handle_exit}.get)
    stops = stop_of_server()
    assert stops is not None
    assert not stops()
    worker.handle_exit()
    assert stops()
    monkeypatch.setattr(signal, "getsignal", {signal.SIGTERM: signal.SIG_DFL}.get)
    assert stop_of_server() is None


def test_server_of_cheroot_is_found_by_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops as soon as it is no longer ready; on any other thread there is no server."""
    server = types.SimpleNamespace(ready=True)

    class WorkerThread(threading.Thread):
        """cheroot's."""

        found: Any = None

        def run(self) -> None:
            self.found = stop_of_server()

    thread = WorkerThread()
    vars(thread)["server"] = server
    module(monkeypatch, "cheroot.workers.threadpool", WorkerThread=WorkerThread)
    thread.start()
    thread.join()
    assert not thread.found()
    server.ready = False
    assert thread.found()
    assert stop_of_server() is None


def test_server_that_has_changed_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is private may go: that is logged at DEBUG, and the next server is looked for."""
    caplog.set_level(logging.DEBUG, "a2wsgi")
    module(monkeypatch, "gunicorn.workers.base")
    monkeypatch.setattr(signal, "getsignal", {signal.SIGTERM: Worker().handle_exit}.get)
    assert stop_of_server() is None
    assert [record.getMessage() for record in caplog.records] == ["Looking for the server's state failed"]
