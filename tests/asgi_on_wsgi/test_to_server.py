"""What a step of the loop sends reaches the server thread whole, at the end of the step, for one lock and wake-up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from a2wsgi._asgi_on_wsgi.loops.host import LoopHost
from a2wsgi._asgi_on_wsgi.to_server import ToServer
from support.asgi_driver import run


class Stopped(Exception):  # noqa: N818 - what a stop of a test has a thread get
    pass


class Steps(LoopHost):
    """A host whose steps end when a test says so."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._due: list[Callable[[], object]] = []
        self.before_wait = self._due.append

    def end_step(self) -> int:
        """End the step; how much was to be done then."""
        due, self._due[:] = self._due[:], []
        for function in due:
            function()
        return len(due)


class CountingLock:
    """A lock that counts how often it was taken."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.taken = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def queued(stream: ToServer) -> list[bytes]:
    """What the server thread would find."""
    return list(stream._chunks)


@pytest.fixture
def host() -> Iterator[Steps]:
    """A host of a loop that nobody runs."""
    loop = asyncio.new_event_loop()
    yield Steps(loop)
    loop.close()


def test_to_server_hands_over_a_step_at_its_end(host: Steps) -> None:
    """The thread finds none of what a step sends before that is over, then all of it, in order."""
    stream = ToServer(host, 100)
    assert not any(stream.put(chunk) for chunk in (b"", b"a", b"b"))
    stream.finish(b"c")
    assert queued(stream) == []
    host.end_step()
    assert stream.take() == ([b"", b"a", b"b", b"c"], True)


def test_to_server_takes_its_lock_once_a_step(host: Steps) -> None:
    """A hundred chunks and the end cost the lock once: that is what makes a stream cheap."""
    stream = ToServer(host, 1000)
    lock = CountingLock()
    stream._lock = lock  # type: ignore[assignment]  # a lock but for its type
    for _ in range(100):
        stream.put(b"a")
    stream.finish(b"")
    assert host.end_step() == 1
    assert lock.taken == 1
    assert queued(stream) == [b"a"] * 100  # and no empty chunk at the end


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_to_server_says_when_it_is_full(host: Steps, limit: int) -> None:
    """As soon as as many bytes as may be are gathered, within a step and from step to step."""
    stream = ToServer(host, limit)
    assert [stream.put(b"a") for _ in range(max(limit, 1))] == [False] * (limit - 1) + [True]
    host.end_step()
    assert stream.put(b"a")


def test_to_server_room_hands_over_and_waits_for_the_thread() -> None:
    """Whoever finds the queue full has the thread get all of it at once, and goes on when that has taken it."""

    async def story() -> None:
        host = Steps(asyncio.get_running_loop())
        stream = ToServer(host, 3)
        assert stream.put(b"abc")
        waiting = asyncio.ensure_future(stream.wait_room())
        await asyncio.sleep(0)
        assert queued(stream) == [b"abc"]
        assert stream.take() == ([b"abc"], False)
        await asyncio.wait_for(waiting, 10)
        assert [stream.put(b"d") for _ in range(3)] == [False, False, True]

    run(story())


@pytest.mark.parametrize("wakes_late", [True, False])
def test_to_server_set_done_hands_over(host: Steps, *, wakes_late: bool) -> None:
    """The last of the response is there as soon as the thread may hear that the loop is through with the request."""
    host.wakes_late = wakes_late
    stream = ToServer(host, 100)
    stream.put(b"a")
    stream.set_done()
    assert (queued(stream) == []) == wakes_late == (not stream._done)
    host.end_step()
    assert stream.take() == ([b"a"], True)
    assert stream.wait_done(0)


def test_to_server_asks_for_the_body_after_what_is_queued(host: Steps) -> None:
    """A wish that comes in the same step as a chunk is met after it."""
    stream = ToServer(host, 100)
    stream.ask()
    stream.put(b"a")
    host.end_step()
    assert stream.take() == ([b"a"], False)
    assert stream.take() == ([], False)


def test_to_server_wish_outlasts_the_next_step(host: Steps) -> None:
    """What comes before the thread has heard of it is delivered first; then it is asked all the same, and once."""
    stream = ToServer(host, 100)
    stream.ask()
    host.end_step()
    stream.put(b"a")
    host.end_step()
    assert stream.take() == ([b"a"], False)
    assert stream.take() == ([], False)
    stream.put(b"b")
    host.end_step()
    assert stream.take() == ([b"b"], False)
    stream.finish(b"")
    host.end_step()
    assert stream.take() == ([], True)
    assert not stream._asked


def test_to_server_hands_over_nothing_once_stopped(host: Steps) -> None:
    """What was gathered when the request ended is dropped, and the thread gets the error."""
    stream = ToServer(host, 100)
    stream.put(b"a")
    stream.abort(Stopped)
    host.end_step()
    assert queued(stream) == []
    with pytest.raises(Stopped):
        stream.take()
