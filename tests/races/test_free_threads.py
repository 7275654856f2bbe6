"""What other threads do to a collection while one walks it: without a GIL, no walk is one step.

``tuple(a_set)`` is one under the GIL. Without it, a thread that adds a member meanwhile makes it raise RuntimeError.
Each test names the line that it fails without.
"""

from __future__ import annotations

import concurrent.futures.thread as executors
import logging
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import pytest

from a2wsgi import WSGIMiddleware
from a2wsgi._asgi_on_wsgi import exit_and_fork
from a2wsgi._wsgi_on_asgi import overdue
from a2wsgi._wsgi_on_asgi.websocket import link as _link
from a2wsgi._wsgi_on_asgi.workers import Workers
from apps import hello
from support.asgi_driver import answer, http_scope, run
from support.lockstep import Signal

T = TypeVar("T")


class Walked(set[T]):
    """A set to which another thread adds a member whenever somebody walks it. Only a copy is one step.

    Args:
        members: What is in it.
        added: What the other thread adds.
    """

    def __init__(self, members: list[T], added: T) -> None:
        super().__init__(members)
        self._added = added

    def __iter__(self) -> Iterator[T]:
        for member in super().__iter__():
            self.add(self._added)
            yield member

    def copy(self) -> set[T]:
        return set[T]().union(self)  # which does not ask for the iterator of a set


class Counted:
    """A worker, a WebSocket or a socket pair that is told to end."""

    overdue = False

    def __init__(self) -> None:
        self.told: list[object] = []

    def is_on(self, _loop: object) -> bool:
        return True

    def abort(self, *reasons: object) -> None:
        self.told.append(reasons)

    def shut_down(self) -> None:
        self.told.append("shut down")


def test_walked_set_changes_under_a_walk() -> None:
    """The fake fails a walk as a real set does."""
    with pytest.raises(RuntimeError, match="changed size during iteration"):
        tuple(Walked([1], 2))
    assert Walked([1], 2).copy() == {1}


def test_statistics_are_told_while_a_worker_is_started() -> None:
    """Any thread may ask. Defends `Workers.overdue`: ``copy()``."""
    workers = Workers(2)
    workers._members = Walked([Counted()], Counted())  # type: ignore[arg-type, list-item]  # as much of a worker as is asked for
    assert workers.overdue == 0


def test_websockets_end_while_another_loop_has_one_more() -> None:
    """A bridge may be called on several loops, one of which shuts down. Defends `WebSockets.stop`: ``copy()``."""
    bridge, session = WSGIMiddleware(hello.app), Counted()
    bridge._websockets.open = Walked([session], Counted())  # type: ignore[arg-type, list-item]  # as above
    bridge._websockets.stop(bridge)  # type: ignore[arg-type]  # is only passed on
    assert len(session.told) == 1


def test_socket_pairs_are_shut_down_while_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main thread ends, and a loop's thread goes on. Defends `_shut_all_down`: ``copy()``."""
    pair = Counted()
    monkeypatch.setattr(_link, "_open_links", Walked([pair], Counted()))
    _link._shut_all_down()
    assert pair.told == ["shut down"]


def test_bridges_stop_early_while_an_executor_starts_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main thread ends, and an executor goes on. Defends `_stop_all_early`: ``keyrefs()``, which is one step."""

    class Threads(weakref.WeakKeyDictionary[threading.Thread, Any]):
        def __iter__(self) -> Iterator[threading.Thread]:
            raise RuntimeError("dictionary changed size during iteration")

    go = Signal("the thread of the executor ends")
    thread = threading.Thread(target=go.wait)
    thread.start()
    threads = Threads()
    threads[thread] = None
    stopped: list[None] = []
    monkeypatch.setattr(executors, "_threads_queues", threads)
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.current_thread(), thread])
    monkeypatch.setattr(exit_and_fork, "_stop_all", lambda: stopped.append(None))
    try:
        exit_and_fork._stop_all_early()
    finally:
        go.set()
        thread.join()
    assert stopped == [None]  # its own threads do not hold that up


def test_stack_of_a_running_thread_is_left_alone_where_that_may_crash(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Python 3.13 without a GIL cannot look at the frames of a thread that runs. Defends `_stack`: ``_is_safe()``."""
    go = Signal("the app may end")

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        go.wait()
        return hello.app(environ, start_response)

    def never() -> dict[int, object]:
        raise AssertionError("looked at the frames")

    monkeypatch.setattr(overdue, "_is_safe", lambda: False)
    monkeypatch.setattr(sys, "_current_frames", never)
    caplog.set_level(logging.ERROR, "a2wsgi")

    try:
        assert run(answer(WSGIMiddleware(app, app_timeout=0.01), scope=http_scope())).status == 504
    finally:
        go.set()
    assert "It is at:\n  (unknown: this Python may crash" in caplog.records[0].getMessage()
