"""The verbs of trio's loop that requests of HTTP do not use, and a run that cannot begin."""

from __future__ import annotations

from typing import Any, cast

import pytest

from a2wsgi import ASGIMiddleware, MissingCapability
from support.wsgi_driver import call

trio = pytest.importorskip("trio")

from a2wsgi._asgi_on_wsgi.loops import trio_host  # noqa: E402
from a2wsgi._asgi_on_wsgi.loops.trio_host import TrioHost  # noqa: E402
from a2wsgi._asgi_on_wsgi.loops.trio_loop import TrioLoop, TrioTask  # noqa: E402


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Is never called here."""
    raise AssertionError(scope)


def test_run_that_cannot_begin_fails_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the error that kept it from that; the next request tries again."""

    def fails() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(trio_host, "TrioLoop", fails)
    bridge = ASGIMiddleware(app, backend="trio", lifespan=False)
    for _ in range(2):
        with pytest.raises(OSError, match="Too many open files"):
            call(bridge)
    bridge.close()


def test_trio_is_refused_among_greenlets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started."""
    monkeypatch.setattr(trio_host, "threads_are_greenlets", lambda: True)
    bridge = ASGIMiddleware(app, backend="trio", lifespan=False)
    with pytest.raises(MissingCapability, match="gevent or eventlet"):
        call(bridge)
    bridge.close()


def test_turn_of_the_loop_is_not_cancelled() -> None:
    """A task that is cancelled meanwhile hears of it where it waits next."""
    done: list[str] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await TrioHost.go_round()
            done.append("outlasted")
            await trio.lowlevel.checkpoint()
            done.append("never")

    trio.run(main)
    assert done == ["outlasted"]


@pytest.mark.parametrize("error", [ValueError("of a task"), KeyboardInterrupt()])
def test_task_that_fails_keeps_its_error_and_ends_no_run(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody asks for it: what is an Exception is logged."""

    async def fails() -> None:
        raise error

    async def main() -> None:
        await task.run(fails())

    task = TrioTask(cast("TrioLoop", None))
    trio.run(main)
    assert task.done()
    assert not task.cancelled()
    assert task.exception() is error
    logged = [record.exc_info and record.exc_info[1] for record in caplog.records]
    assert logged == ([error] if isinstance(error, Exception) else [])


def test_run_that_was_given_up_takes_no_more_calls() -> None:
    """Its pipe is closed, which trio says by an OSError."""

    class Token:
        """trio's, of such a run."""

        def run_sync_soon(self, function: object) -> None:
            raise OSError(9, "Bad file descriptor")

    loop = TrioLoop()
    with pytest.raises(RuntimeError, match="has ended"):
        loop.call_soon_threadsafe(print)
    loop._token = cast("Any", Token())
    with pytest.raises(RuntimeError, match="was abandoned"):
        loop.call_soon_threadsafe(print)


class Loop:
    """trio's, which calls nothing by itself."""

    def __init__(self) -> None:
        self.soon: list[Any] = []
        self.tasks: list[Any] = []

    def call_soon_threadsafe(self, function: Any) -> None:
        self.soon.append(function)

    def create_task(self, coroutine: Any) -> Any:
        coroutine.close()
        self.tasks.append(TrioTask(cast("TrioLoop", self)))
        return self.tasks[-1]


def test_call_that_is_cancelled_in_time_does_not_begin() -> None:
    """1. A thread asks for it. 2. It waits no more. 3. The loop comes to it. After that, its task is cancelled."""
    host = TrioHost.__new__(TrioHost)
    loop = Loop()
    host.loop = cast("Any", loop)

    async def make() -> None:
        raise AssertionError

    host._submit(make).cancel()
    loop.soon.pop()()
    assert loop.tasks == []
    future = host._submit(make)
    loop.soon.pop()()
    (task,) = loop.tasks
    future.cancel()
    assert loop.soon == [task.cancel]
