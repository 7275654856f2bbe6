"""Whether the server has begun to stop, as its thread can tell: by parts of servers that stand in for the real ones."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import types
from typing import Any

import pytest

from a2wsgi._asgi_on_wsgi.websocket.server_stop import has_one_thread, stop_of_server


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


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["gthread", "sync"])
def test_gunicorns_pool_of_one_thread_is_one_thread(kind: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gthread worker says ``wsgi.multithread`` all the same; others mean what they say of it."""

    class ThreadWorker(Worker):
        """Of gthread."""

    worker = ThreadWorker() if kind == "gthread" else Worker()
    vars(worker)["cfg"] = types.SimpleNamespace(threads=threads)
    module(monkeypatch, "gunicorn.workers.base", Worker=Worker)
    module(monkeypatch, "gunicorn.workers.gthread", ThreadWorker=ThreadWorker)
    monkeypatch.setattr(signal, "getsignal", {signal.SIGTERM: worker.handle_exit}.get)
    assert has_one_thread() is (kind == "gthread" and threads == 1)


@pytest.mark.parametrize(("least", "running", "is_one"), [(1, 1, True), (1, 3, False), (10, 0, False)])
def test_cheroots_pool_of_one_thread_is_one_thread(
    least: int, running: int, is_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while it starts: it knows of the threads that it has begun with only when all of them are there."""

    class WorkerThread(threading.Thread):
        """cheroot's."""

        found: Any = None

        def run(self) -> None:
            self.found = has_one_thread()

    pool = types.SimpleNamespace(min=least, _threads=[None] * running)
    thread = WorkerThread()
    vars(thread)["server"] = types.SimpleNamespace(requests=pool)
    module(monkeypatch, "cheroot.workers.threadpool", WorkerThread=WorkerThread)
    monkeypatch.delitem(sys.modules, "gunicorn.workers.base", raising=False)
    thread.start()
    thread.join()
    assert thread.found is is_one


def test_threads_of_a_server_that_has_changed_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it says itself, in its environ."""
    module(monkeypatch, "gunicorn.workers.base")
    monkeypatch.setattr(signal, "getsignal", {signal.SIGTERM: Worker().handle_exit}.get)
    assert not has_one_thread()
