"""What may come between a step of the loop and the server thread that waits for it, put there by the stream's own lock.

Each test names the line that it fails without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from a2wsgi import BridgeError
from a2wsgi._asgi_on_wsgi.loops.host import LoopHost
from a2wsgi._asgi_on_wsgi.to_server import ToServer
from support.asgi_driver import run
from support.lockstep import BOUND_SECONDS
from support.threads import HookedLock, in_thread


class Stopped(Exception):  # noqa: N818 - what a stop of a test has a thread get
    pass


class Steps(LoopHost):
    """A host whose steps end when a test says so, and whose loop fails when a test says so."""

    sign_seconds = 0.001

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._due: list[Callable[[], object]] = []
        self.before_wait = self._due.append
        self.failed: Callable[[], BaseException | None] = lambda: None

    def trouble(self) -> BaseException | None:
        return self.failed()

    def end_step(self) -> None:
        """Do what is due at the end of a step."""
        due, self._due[:] = self._due[:], []
        for function in due:
            function()


@pytest.fixture
def host() -> Iterator[Steps]:
    """A host of a loop that nobody runs."""
    loop = asyncio.new_event_loop()
    yield Steps(loop)
    loop.close()


def hook(stream: ToServer) -> HookedLock:
    """Give a stream a lock that calls what is left in it."""
    lock = HookedLock()
    stream._lock = lock  # type: ignore[assignment]  # a lock but for its type
    return lock


def finish(stream: ToServer, host: Steps) -> None:
    """Send the last chunk in a step of its own."""
    stream.finish(b"end")
    host.end_step()


def ask(stream: ToServer, host: Steps) -> None:
    """Ask for a part of the request's body in a step of its own."""
    stream.ask()
    host.end_step()


def stop(stream: ToServer, host: Steps) -> None:
    """End the stream from the loop's side."""
    stream.abort(Stopped)


# -- A server thread that parks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("act", "taken"), [(finish, ([b"end"], True)), (ask, ([], False))], ids=["chunk", "wish"])
def test_server_thread_that_parks_is_met_by_flush(
    host: Steps, act: Callable[[ToServer, Steps], None], taken: tuple[list[bytes], bool]
) -> None:
    """A step ends between the look and the wait. Defends `flush`: it takes the gate out and opens it.

    1. The thread finds nothing, and leaves its gate. 2. Before it waits, a step is handed over. 3. It waits: its gate
    must be open.
    """
    stream = ToServer(host, 100)
    hook(stream).after = lambda: act(stream, host)
    assert in_thread(stream.take).result() == taken


def test_server_thread_that_parks_is_met_by_stop(host: Steps) -> None:
    """A stop comes there. Defends `stop`: it opens the gate that it finds."""
    stream = ToServer(host, 100)
    hook(stream).after = lambda: stop(stream, host)
    with pytest.raises(Stopped):
        in_thread(stream.take).result()


def test_server_thread_that_waits_for_the_end_is_met_by_set_done(host: Steps) -> None:
    """The loop is done between the look and the wait. Defends `flush`: as `take`, of `wait_done`."""
    stream = ToServer(host, 100)
    hook(stream).after = stream.set_done
    assert in_thread(stream.wait_done, BOUND_SECONDS).result()


def test_wait_done_that_runs_out_as_the_loop_is_done_says_so(host: Steps) -> None:
    """Defends `wait_done`: it looks again, with the lock held, when its time is over.

    1. The thread finds that the loop is not done. 2. Its time is over. 3. Before it says so, the loop is done.
    """
    stream = ToServer(host, 100)
    lock = hook(stream)

    def as_the_time_is_over() -> None:
        lock.before = stream.set_done

    lock.after = as_the_time_is_over
    assert stream.wait_done(0)


# -- A step that ends as the thread takes -----------------------------------------------------------------------------


def test_step_that_ends_as_the_thread_takes_is_found_next(host: Steps) -> None:
    """Defends `flush`: it adds to what is queued, and says the end no earlier than the chunks before it.

    1. The thread takes a chunk. 2. As it lets the lock go, the last step is handed over. 3. It takes that, and the end.
    """
    stream = ToServer(host, 100)
    stream.put(b"first")
    host.end_step()
    hook(stream).after = lambda: finish(stream, host)
    assert stream.take() == ([b"first"], False)
    assert stream.take() == ([b"end"], True)


def test_wish_that_comes_as_the_thread_takes_is_kept(host: Steps) -> None:
    """Defends `take`: it forgets no wish but the one that it returns with."""
    stream = ToServer(host, 100)
    stream.put(b"first")
    host.end_step()
    hook(stream).after = lambda: ask(stream, host)
    assert stream.take() == ([b"first"], False)
    assert stream.take() == ([], False)


def test_wish_outlasts_a_step_that_asks_for_nothing(host: Steps) -> None:
    """Defends `flush`: a step takes back no wish of an earlier one.

    1. A step asks. 2. Before the thread looks, another step sends. 3. The thread gets the chunk, and then is asked.
    """
    stream = ToServer(host, 100)
    ask(stream, host)

    def before_it_looks() -> None:
        stream.put(b"a")
        host.end_step()

    hook(stream).before = before_it_looks
    assert stream.take() == ([b"a"], False)
    assert stream.take() == ([], False)


def test_chunks_of_a_step_that_is_cut_short_come_once(host: Steps) -> None:
    """Defends `flush`: what it hands over it also forgets, and what is due later finds nothing left to do.

    1. A step sends, and its end is due. 2. The loop is done and hands over at once. 3. What was due comes, and a thread
    takes in between.
    """
    stream = ToServer(host, 100)
    stream.put(b"a")
    stream.set_done()
    assert stream.take() == ([b"a"], True)
    host.end_step()
    assert stream.take() == ([], True)


def test_stop_before_the_end_of_a_step_drops_the_step(host: Steps) -> None:
    """Defends `flush`: it looks for a stop with the lock held.

    1. A step sends and ends. 2. As `flush` is about to take the lock, the stream is stopped. 3. Nothing may be queued.
    """
    stream = ToServer(host, 100)
    stream.put(b"a")
    hook(stream).before = lambda: stop(stream, host)
    host.end_step()
    assert stream._chunks == []
    with pytest.raises(Stopped):
        stream.take()


def test_step_that_cannot_be_handed_over_wakes_the_thread_all_the_same(host: Steps) -> None:
    """Defends `flush`: the thread is woken, and gets an error. Else it would look around for ever."""
    stream = ToServer(host, 100)
    woken = list[str]()

    class Gate:
        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            stream.finish(b"end")
            stream._size = "none"  # type: ignore[assignment]  # so that the step cannot be counted
            with pytest.raises(TypeError):
                host.end_step()
            assert woken == ["released"]
            return True

        def release(self) -> None:
            woken.append("released")

    gate: Any = Gate()
    host.gate = lambda: gate  # type: ignore[method-assign]  # one that fails the hand-over while it is waited at
    with pytest.raises(BridgeError):
        stream.take()


# -- Room -------------------------------------------------------------------------------------------------------------


def test_room_that_is_made_as_a_sender_looks_is_seen() -> None:
    """Defends `wait_room`: it looks with the lock held, and leaves its waiter in the same look.

    1. A sender fills the queue. 2. It hands the queue over; before it looks again, the thread takes all. 3. It goes on.
    """

    async def story() -> None:
        host = Steps(asyncio.get_running_loop())
        stream = ToServer(host, 1)
        assert stream.put(b"a")
        hook(stream).after = lambda: in_thread(stream.take).result()
        await asyncio.wait_for(stream.wait_room(), BOUND_SECONDS)

    run(story())


def test_sender_that_parks_is_met_by_the_thread() -> None:
    """Defends `take`: it takes the waiters out in its own look, and wakes them.

    1. A sender finds the queue full, and leaves its waiter. 2. Before it waits, the thread takes all. 3. It goes on.
    """

    async def story() -> None:
        host = Steps(asyncio.get_running_loop())
        stream = ToServer(host, 1)
        stream.put(b"a")
        host.end_step()
        hook(stream).after = lambda: in_thread(stream.take).result()
        await asyncio.wait_for(stream.wait_room(), BOUND_SECONDS)

    run(story())


@pytest.mark.parametrize("senders", [1, 3])
def test_senders_that_park_are_met_by_stop(senders: int) -> None:
    """Defends `stop`: it wakes all that wait for room."""

    async def story() -> None:
        host = Steps(asyncio.get_running_loop())
        stream = ToServer(host, 1)
        stream.put(b"a")
        host.end_step()
        waiting = [asyncio.ensure_future(stream.wait_room()) for _ in range(senders)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        stream.abort(Stopped)
        await asyncio.wait_for(asyncio.gather(*waiting), BOUND_SECONDS)

    run(story())


# -- A thread that looks around ---------------------------------------------------------------------------------------


class Gone:
    """What a thread looks after, and finds that the client has hung up.

    Args:
        meanwhile: Called as it is found.
    """

    def __init__(self, meanwhile: Callable[[], object] = int) -> None:
        self._meanwhile = meanwhile

    def has_hung_up(self) -> bool:
        self._meanwhile()
        return True

    def hung_up_error(self) -> BaseException:
        return ConnectionResetError()


def test_last_step_that_comes_as_the_client_hangs_up_is_delivered(host: Steps) -> None:
    """Defends `take`: what is queued comes before the news of the client.

    1. The thread waits in vain and looks around. 2. The client has hung up; as that is found, the last step is handed
    over. 3. The thread gets the step.
    """
    stream, found = ToServer(host, 100), list[bool]()

    def meanwhile() -> None:
        found.append(True)
        finish(stream, host)

    assert in_thread(stream.take, Gone(meanwhile)).result() == ([b"end"], True)
    assert found == [True]


def test_gate_that_was_given_up_is_not_opened_later(host: Steps) -> None:
    """Defends `_wait_and_look`: it takes its gate back. Else the next step would open a gate that nobody waits at."""
    stream = ToServer(host, 100)
    with pytest.raises(ConnectionResetError):
        in_thread(stream.take, Gone()).result()
    assert stream._gate is None
    finish(stream, host)
    assert stream.take() == ([b"end"], True)


def test_stop_as_the_loop_is_found_to_have_ended_is_what_the_thread_gets(host: Steps) -> None:
    """Defends `_lose_loop`: the first word counts.

    1. The thread waits in vain and finds that the loop has ended. 2. Before it says so, the stream is stopped.
    """
    stream = ToServer(host, 100)
    lock = hook(stream)

    def failed() -> BaseException:
        lock.before = lambda: stream.abort(Stopped)
        return BridgeError("the loop has ended")

    host.failed = failed
    with pytest.raises(Stopped):
        in_thread(stream.take).result()


def test_wait_done_ends_with_the_loop(host: Steps) -> None:
    """Defends `wait_done`: a loop that has ended is waited for no longer, and its gate is taken back."""
    stream = ToServer(host, 100)
    host.failed = lambda: BridgeError("the loop has ended")
    assert in_thread(stream.wait_done, None).result() is False
    assert stream._gate is None


def test_many_steps_and_a_thread_lose_nothing() -> None:
    """A thousand steps of a real loop reach a thread whole and in order, however the two meet."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        host = Steps(loop)
        host.before_wait = loop.call_soon
        stream = ToServer(host, 64)
        taken: list[bytes] = []

        def take_all() -> None:
            ended = False
            while not ended:
                chunks, ended = stream.take()
                taken.extend(chunks)

        thread = in_thread(take_all)
        for number in range(1000):
            if stream.put(b"%04d" % number):
                await stream.wait_room()
            if number % 3 == 0:
                await asyncio.sleep(0)
        stream.finish(b"")
        await thread.result_in_task()
        assert taken == [b"%04d" % number for number in range(1000)]

    run(story())


# -- A process without memory -----------------------------------------------------------------------------------------


class Full(list[bytes]):
    """A list that cannot grow."""

    def append(self, _: bytes) -> None:
        raise MemoryError

    def __iadd__(self, _: object) -> NoReturn:  # type: ignore[misc]  # that a list could, and this cannot
        raise MemoryError


def test_step_that_finds_no_memory_is_not_taken_for_the_end(host: Steps) -> None:
    """Defends `flush`: the thread is not told that the queue, to which nothing could be added, is all."""
    stream = ToServer(host, 100)
    stream.finish(b"end")
    stream._chunks = Full()
    with pytest.raises(MemoryError):
        host.end_step()
    with pytest.raises(MemoryError):
        stream.take()


class Uncountable(int):
    """A number of bytes to which nothing can be added."""

    def __add__(self, _: object) -> NoReturn:
        raise MemoryError

    __iadd__ = __radd__ = __add__


def test_step_that_cannot_be_counted_is_not_queued(host: Steps) -> None:
    """Defends `flush`: it counts before it queues. Else the next step would queue the same chunks again."""
    stream = ToServer(host, 100)
    stream.put(b"part")
    stream._size = Uncountable()
    with pytest.raises(MemoryError):
        host.end_step()
    assert stream._chunks == []
    with pytest.raises(MemoryError):
        stream.take()


def test_head_that_cannot_be_held_back_fails_its_request(host: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defends `flush`: a step that nobody will hand over any more is told to the thread."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise MemoryError

    stream = ToServer(host, 100)
    stream.put_head(8)
    monkeypatch.setattr(host.loop, "call_soon_threadsafe", fail)
    with pytest.raises(MemoryError):
        host.end_step()
    with pytest.raises(MemoryError):
        stream.take()


@pytest.mark.parametrize("first", [ToServer.put, ToServer.finish, ToServer.put_head, ToServer.ask, ToServer.set_done])
def test_step_whose_end_finds_no_memory_begins_with_the_next_message(host: Steps, first: Any) -> None:
    """Defends all that begins a step: it has begun once its end is arranged. Else no later message would arrange it."""
    host.wakes_late = True
    stream, before_wait = ToServer(host, 100), host.before_wait

    def fail(_: object) -> None:
        raise MemoryError

    host.before_wait = fail
    arguments = {ToServer.put: (b"x",), ToServer.finish: (b"x",), ToServer.put_head: (0,)}
    with pytest.raises(MemoryError):
        first(stream, *arguments.get(first, ()))
    host.before_wait = before_wait
    stream.set_done()
    host.end_step()
    assert stream.take()[1] is True


def test_sender_that_waits_for_room_on_an_aborted_stream_lets_the_loop_go_round() -> None:
    """Defends `wait_room`: the loop is to tell an endless app that its server has left."""

    async def story() -> list[str]:
        host, said = LoopHost(asyncio.get_running_loop()), list[str]()
        stream = ToServer(host, 1)
        stream._abort_error = MemoryError
        host.loop.call_soon(said.append, "the loop goes round")
        await stream.wait_room()
        return said

    assert run(story()) == ["the loop goes round"]
