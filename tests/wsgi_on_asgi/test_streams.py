"""The two streams between a thread and a loop keep their guarantees."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import pytest

from a2wsgi import AppProtocolError
from a2wsgi._threads.stream import GROWTH
from a2wsgi._wsgi_on_asgi.streams import MESSAGE_BYTES, ToLoop, ToThread
from support.runtimes import cancelled
from support.streams import Bell, Parked, bounded, here, in_story, others_go, waiting
from support.threads import in_thread

pytestmark = pytest.mark.usefixtures("runtime")


class Stopped(Exception):  # noqa: N818 - what a stop of a test has a thread get
    pass


@pytest.fixture
def parked(monkeypatch: pytest.MonkeyPatch) -> Parked:
    """Tells when a thread parks."""
    parked = Parked()
    parked.watch(monkeypatch)
    return parked


# -- ToLoop: chunks ---------------------------------------------------------------------------------------------------


def test_to_loop_gives_all_that_is_queued_in_order() -> None:
    """One take gets every chunk that has gathered, each once; the next gets what came since."""

    async def story() -> None:
        stream = ToLoop(here(), 100)
        stream.put(b"a")
        stream.put(b"b")
        assert await stream.take() == ([b"a", b"b"], False)
        stream.put(b"c")
        stream.finish()
        assert await stream.take() == ([b"c"], True)
        assert await stream.take() == ([], True)

    in_story(story)


@pytest.mark.parametrize(
    ("act", "taken"),
    [
        (lambda stream: stream.put(b"a"), ([b"a"], False)),
        (lambda stream: stream.finish(), ([], True)),
        (lambda stream: stream.finish([b"a", b"b"]), ([b"a", b"b"], True)),
        (lambda stream: stream.finish(done=True), ([], True)),
    ],
    ids=["put", "end", "end with chunks", "leave"],
)
def test_to_loop_wakes_a_waiting_take(act: Callable[[ToLoop], None], taken: tuple[list[bytes], bool]) -> None:
    """Whatever the thread does, a coroutine that waits for it learns of it."""

    async def story() -> None:
        stream = ToLoop(here(), 100)
        taking = await waiting(stream.take())
        await in_thread(act, stream).result_in_task()
        assert await bounded(taking) == taken

    in_story(story)


def test_to_loop_end_queues_its_chunks_whatever_room_there_is() -> None:
    """The last chunks never wait, though the queue is full."""

    async def story() -> None:
        stream = ToLoop(here(), 1)
        stream.put(b"a")
        await in_thread(stream.finish, [b"b" * 100]).result_in_task()
        assert await stream.take() == ([b"a", b"b" * 100], True)

    in_story(story)


def test_to_loop_end_and_leaving_are_one_wake_up() -> None:
    """A thread that leaves with its last chunks wakes the loop once."""

    async def story() -> None:
        runtime = here()
        bell, stream = Bell(runtime), ToLoop(runtime, 100)
        taking = await waiting(stream.take())
        stream.finish([b"a"], done=True)
        assert bell.rings == 1
        assert await bounded(taking) == ([b"a"], True)
        assert stream.done

    in_story(story)


def test_to_loop_rings_once_for_each_wait() -> None:
    """A chunk that finds the loop at work costs no wake-up; many for one that waits cost one."""

    async def story() -> None:
        runtime = here()
        bell, stream = Bell(runtime), ToLoop(runtime, 100)
        for _ in range(3):
            stream.put(b"a")
        assert bell.rings == 0
        await stream.take()
        taking = await waiting(stream.take())
        for _ in range(3):
            stream.put(b"b")
        stream.finish()
        stream.finish(done=True)
        assert bell.rings == 1
        assert await bounded(taking) == ([b"b", b"b", b"b"], True)

    in_story(story)


# -- ToLoop: bounds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "limit_chunks", "held"),
    [(10, None, 4), (9, None, 3), (1, None, 1), (0, None, 1), (10, 2, 2), (10, 9, 4)],
)
def test_to_loop_holds_the_limit_and_one_chunk(parked: Parked, limit: int, limit_chunks: int | None, held: int) -> None:
    """A thread writes chunks of 3 bytes till the limit is reached; only then does it wait, before it adds the next."""

    async def story() -> None:
        stream = ToLoop(here(), limit, limit_chunks)
        put = [b"%03d" % number for number in range(held + 1)]

        def write() -> None:
            for chunk in put:
                stream.put(chunk)

        writer = in_thread(write)
        await parked.times(1).wait_in_task()
        assert await stream.take() == (put[:-1], False)
        await writer.result_in_task()
        assert await stream.take() == (put[-1:], False)

    in_story(story)


def test_to_loop_take_opens_the_gate_for_a_full_writer(parked: Parked) -> None:
    """A writer that waits goes on as soon as its chunks are taken, any number of times."""

    async def story() -> None:
        stream = ToLoop(here(), 1)
        chunks = [b"%d" % number for number in range(200)]

        def write() -> None:
            for chunk in chunks:
                stream.put(chunk)
            stream.finish()

        writer, got, ended = in_thread(write), list[bytes](), False
        while not ended:
            some, ended = await bounded(stream.take())
            assert len(some) <= GROWTH
            got += some
        assert got == chunks
        await writer.result_in_task()

    in_story(story)
    assert parked.times(1).is_set()


def test_to_loop_lets_all_writers_go_on(parked: Parked) -> None:
    """An app may write in two threads. Both wait for room, and one take wakes both."""

    async def story() -> None:
        stream = ToLoop(here(), 1)
        stream.put(b"a")
        writers = []
        for number in range(1, 3):
            writers.append(in_thread(stream.put, b"b"))
            await parked.times(number).wait_in_task()
        got = list[bytes]()
        while len(got) < 3:
            chunks, _ = await bounded(stream.take())
            got += chunks
        assert got == [b"a", b"b", b"b"]
        for writer in writers:
            await writer.result_in_task()

    in_story(story)


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [
        ([MESSAGE_BYTES, 1], [[MESSAGE_BYTES], [1]]),
        ([1, MESSAGE_BYTES], [[1], [MESSAGE_BYTES]]),
        ([MESSAGE_BYTES - 1, 1, 1], [[MESSAGE_BYTES - 1, 1], [1]]),
        ([3 * MESSAGE_BYTES, 2, 3], [[3 * MESSAGE_BYTES], [2, 3]]),
    ],
)
def test_to_loop_gives_a_message_at_a_time(sizes: list[int], taken: list[list[int]]) -> None:
    """Chunks that fit one message together, or one that is longer; the end comes with the last of them."""

    async def story() -> None:
        stream = ToLoop(here(), 10 * MESSAGE_BYTES)
        for size in sizes:
            stream.put(bytes(size))
        stream.finish()
        for number, some in enumerate(taken):
            chunks, ended = await bounded(stream.take())
            assert (list(map(len, chunks)), ended) == (some, number == len(taken) - 1)

    in_story(story)


def test_to_loop_gives_last_chunks_a_message_at_a_time() -> None:
    """Those that come with the end, too: or a large one would be joined with what is queued."""

    async def story() -> None:
        stream = ToLoop(here(), MESSAGE_BYTES)
        stream.put(b"queued")
        stream.finish([bytes(MESSAGE_BYTES), b"last"])
        assert await bounded(stream.take()) == ([b"queued"], False)
        assert await bounded(stream.take()) == ([bytes(MESSAGE_BYTES)], False)
        assert await bounded(stream.take()) == ([b"last"], True)

    in_story(story)


def test_to_loop_lets_a_writer_go_on_though_there_was_no_memory_for_a_chunk(parked: Parked) -> None:
    """One that could not be queued takes no room for good, however long it was."""

    class Full(list[bytes]):
        def append(self, _chunk: bytes, /) -> None:
            raise MemoryError

    async def story() -> None:
        stream = ToLoop(here(), 10)
        stream._chunks = Full()
        with pytest.raises(MemoryError):
            stream.put(bytes(MESSAGE_BYTES + 1))
        stream._chunks = []
        stream.put(b"a")
        writer = in_thread(stream.put, b"b")
        await parked.times(1).wait_in_task()
        assert await stream.take() == ([b"a"], False)
        await writer.result_in_task()
        assert await stream.take() == ([b"b"], False)

    in_story(story)


@pytest.mark.parametrize("limit_chunks", [None, 4])
def test_to_loop_has_a_full_writer_go_on_when_half_is_taken(parked: Parked, limit_chunks: int | None) -> None:
    """Not earlier, so that it does not wait for each message; nor later, so that the next are made meanwhile."""

    async def story() -> None:
        stream = ToLoop(here(), 4 * MESSAGE_BYTES, limit_chunks)
        chunks = [bytes(MESSAGE_BYTES)] * 5
        writer = in_thread(lambda: deque(map(stream.put, chunks), 0))
        await parked.times(1).wait_in_task()
        waiting_for_room = []
        for _ in range(2):
            await bounded(stream.take())
            waiting_for_room.append(stream._gate is not None)
        assert waiting_for_room == [True, False]
        await writer.result_in_task()

    in_story(story)


# -- The pace ---------------------------------------------------------------------------------------------------------


async def starve(stream: ToLoop) -> None:
    """Read from a stream that a writer waits for, and find nothing the next time: the writer has not gone on yet."""
    stream.put(b"x")
    gate = stream._gate = threading.Lock()
    gate.acquire()
    await bounded(stream.take())
    assert not gate.locked()
    await starve_again(stream)


async def starve_again(stream: ToLoop) -> None:
    """Read from a stream that has nothing, but a moment later."""
    starving = await waiting(stream.take())
    stream.put(b"y")
    assert await bounded(starving) == ([b"y"], False)


async def room_of(stream: ToLoop) -> int:
    """How many bytes may be queued."""
    room = 0
    while stream._has_room():
        stream.put(b"x")
        room += 1
    await bounded(stream.take())
    return room


def test_to_loop_holds_more_while_its_reader_starves() -> None:
    """A reader that finds nothing, right after it let a writer go on, doubles what may be queued, up to a bound."""

    async def story() -> None:
        stream = ToLoop(here(), 10)
        rooms = [await room_of(stream)]
        for _ in range(4):
            await starve(stream)
            rooms.append(await room_of(stream))
        assert rooms == [10, 20, 40, 70, 70]

    in_story(story)


def test_to_loop_holds_no_more_for_a_slow_writer() -> None:
    """A reader that finds nothing, while no writer had to wait for it, changes nothing."""

    async def story() -> None:
        stream = ToLoop(here(), 10)
        await starve_again(stream)
        await starve_again(stream)
        assert await room_of(stream) == 10

    in_story(story)


def test_to_loop_holds_no_more_for_a_slow_reader(parked: Parked) -> None:
    """A reader that always finds the stream full has the limit as it is."""

    async def story() -> None:
        stream = ToLoop(here(), 10)
        writer = in_thread(lambda: deque(map(stream.put, [b"x"] * 100), 0))
        for turn in range(1, 10):
            await parked.times(turn).wait_in_task()
            assert await bounded(stream.take()) == ([b"x"] * 10, False)
        await writer.result_in_task()

    in_story(story)


def test_to_loop_that_is_calmed_holds_its_limit() -> None:
    """What a quick reader has gained is lost to a slow one."""

    async def story() -> None:
        stream = ToLoop(here(), 10)
        await starve(stream)
        stream.reset_limit()
        assert await room_of(stream) == 10

    in_story(story)


# -- ToLoop: endings --------------------------------------------------------------------------------------------------


def test_to_loop_gives_nothing_after_stop() -> None:
    """What was queued is dropped, what comes is refused, and the stream is at its end."""

    async def story() -> None:
        stream = ToLoop(here(), 100)
        stream.put(b"a")
        stream.abort(Stopped)
        assert await stream.take() == ([], True)
        for _ in range(2):
            with pytest.raises(Stopped):
                stream.put(b"b")
            with pytest.raises(Stopped):
                stream.check()
        stream.finish([b"c"])
        assert await stream.take() == ([], True)

    in_story(story)


def test_to_loop_stop_wakes_a_full_writer(parked: Parked) -> None:
    """A thread that waits for room gets the error of the stop."""

    async def story() -> None:
        stream = ToLoop(here(), 0)
        stream.put(b"a")
        writer = in_thread(stream.put, b"b")
        await parked.times(1).wait_in_task()
        stream.abort(Stopped)
        with pytest.raises(Stopped):
            await writer.result_in_task()

    in_story(story)


def test_to_loop_stop_wakes_a_waiting_take() -> None:
    """A coroutine that waits learns of a stop by another task."""

    async def story() -> None:
        stream = ToLoop(here(), 100)
        taking = await waiting(stream.take())
        stream.abort(Stopped)
        assert await bounded(taking) == ([], True)

    in_story(story)


def test_to_loop_first_stop_decides() -> None:
    """A second stop changes neither the error nor the state."""

    async def story() -> None:
        stream = ToLoop(here(), 100)
        states = [stream.aborted]
        stream.check()
        stream.abort(Stopped)
        stream.abort(ValueError)
        states.append(stream.aborted)
        assert states == [False, True]
        with pytest.raises(Stopped):
            stream.check()

    in_story(story)


def test_to_loop_error_is_made_anew_each_time() -> None:
    """The errors are different objects: one traceback does not grow with each write."""

    async def story() -> None:
        stream = ToLoop(here(), 100)
        stream.abort(Stopped)
        with pytest.raises(Stopped) as first:
            stream.put(b"")
        with pytest.raises(Stopped) as second:
            stream.put(b"")
        assert first.value is not second.value

    in_story(story)


def test_to_loop_wait_done_waits_for_the_thread_and_not_for_the_end() -> None:
    """The thread may have handed over everything and still be in the app's code."""

    async def story() -> None:
        stream = ToLoop(here(), 100)
        stream.finish()
        waiter = await waiting(stream.wait_done())
        stream.finish()
        stream.abort(Stopped)
        await others_go()
        assert not waiter.done()
        states = [stream.done]
        await in_thread(lambda: stream.finish(done=True)).result_in_task()
        await bounded(waiter)
        states.append(stream.done)
        assert states == [False, True]
        await bounded(stream.wait_done())

    in_story(story)


def test_to_loop_cancelled_take_loses_nothing() -> None:
    """What was queued when a take was cancelled is there for the next, which is woken as any."""

    async def story() -> None:
        stream = ToLoop(here(), 100)
        for _ in range(2):
            taking = await waiting(stream.take())
            taking.cancel()
            await cancelled(taking)
        stream.put(b"a")
        assert await bounded(stream.take()) == ([b"a"], False)
        taking = await waiting(stream.take())
        stream.put(b"b")
        assert await bounded(taking) == ([b"b"], False)

    in_story(story)


def test_to_loop_cancelled_wait_done_may_wait_again() -> None:
    """A wait for the thread that was cancelled changes nothing."""

    async def story() -> None:
        stream = ToLoop(here(), 100)
        waiter = await waiting(stream.wait_done())
        waiter.cancel()
        await cancelled(waiter)
        waiter = await waiting(stream.wait_done())
        stream.finish(done=True)
        await bounded(waiter)

    in_story(story)


# -- ToThread ---------------------------------------------------------------------------------------------------------


def test_to_thread_gives_all_that_is_queued_in_order() -> None:
    """One get has every chunk that has gathered; at the end there is nothing, however often it is asked for."""

    async def story() -> None:
        stream = ToThread(here(), 100)
        stream.put(b"a")
        stream.put(b"b")
        assert stream.take() == [b"a", b"b"]
        stream.put(b"c")
        stream.finish()
        assert [stream.take() for _ in range(3)] == [[b"c"], [], []]

    in_story(story)


@pytest.mark.parametrize("chunks", [[b"a", b"b"], []])
def test_to_thread_flush_wakes_a_waiting_get(parked: Parked, chunks: list[bytes]) -> None:
    """A thread that waits learns of chunks and of the end at `flush`, and not before: one wake-up serves them all."""

    async def story() -> None:
        stream = ToThread(here(), 100)
        taking = in_thread(stream.take)
        await parked.times(1).wait_in_task()
        gate = stream._gate
        assert gate is not None
        for chunk in chunks:
            stream.put(chunk)
        stream.finish()
        assert gate.locked()
        stream.flush()
        assert await taking.result_in_task() == chunks

    in_story(story)


def test_to_thread_flush_for_nothing_lets_get_wait_on(parked: Parked) -> None:
    """A wake-up without a chunk or an end is none."""

    async def story() -> None:
        stream = ToThread(here(), 100)
        taking = in_thread(stream.take)
        for times in range(1, 4):
            await parked.times(times).wait_in_task()
            assert not taking.over.is_set()
            stream.flush()
        await parked.times(4).wait_in_task()
        stream.put(b"a")
        stream.flush()
        assert await taking.result_in_task() == [b"a"]

    in_story(story)


@pytest.mark.parametrize(("limit", "held"), [(10, 4), (9, 3), (1, 1), (0, 1)])
def test_to_thread_room_waits_at_the_limit(limit: int, held: int) -> None:
    """Chunks of 3 bytes find room till the limit is reached, and again when the thread has taken them."""

    async def story() -> None:
        stream = ToThread(here(), limit)
        for _ in range(held):
            await bounded(stream.wait_room())
            stream.put(b"abc")
        waiter = await waiting(stream.wait_room())
        assert await in_thread(stream.take).result_in_task() == [b"abc"] * held
        await bounded(waiter)

    in_story(story)


def test_to_thread_rings_only_for_a_coroutine_that_waits() -> None:
    """A get that nobody waits for costs the loop nothing."""

    async def story() -> None:
        runtime = here()
        bell, stream = Bell(runtime), ToThread(runtime, 1)
        stream.put(b"a")
        stream.take()
        assert bell.rings == 0
        stream.put(b"b")
        waiter = await waiting(stream.wait_room())
        stream.take()
        assert bell.rings == 1
        await bounded(waiter)

    in_story(story)


def test_to_thread_stop_wakes_a_waiting_get(parked: Parked) -> None:
    """A thread that waits for a chunk gets the error of the stop, and so does each get from then on."""

    async def story() -> None:
        stream = ToThread(here(), 100)
        taking = in_thread(stream.take)
        await parked.times(1).wait_in_task()
        stream.abort(Stopped)
        with pytest.raises(Stopped):
            await taking.result_in_task()
        with pytest.raises(Stopped):
            stream.take()

    in_story(story)


def test_to_thread_is_awaited_no_more_if_its_thread_was_torn_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception from another thread ends the wait: an app that goes on does not count as waiting for its client."""

    async def story() -> None:
        stream = ToThread(here(), 100)
        seen: list[bool] = []

        def torn_away(_gate: threading.Lock) -> None:
            seen.append(stream.is_awaited)
            raise Stopped

        monkeypatch.setattr(ToThread, "_wait_at", lambda _stream, gate: torn_away(gate))
        with pytest.raises(Stopped):
            await in_thread(stream.take).result_in_task()
        assert [*seen, stream.is_awaited] == [True, False]

    in_story(story)


def test_to_thread_stop_wakes_a_waiting_room() -> None:
    """A coroutine that waits for room goes on: the thread will never make any."""

    async def story() -> None:
        stream = ToThread(here(), 1)
        stream.put(b"a")
        waiter = await waiting(stream.wait_room())
        stream.abort(Stopped)
        await bounded(waiter)
        stream.put(b"b" * 100)
        await bounded(stream.wait_room())

    in_story(story)


def test_to_thread_end_wakes_a_waiting_room() -> None:
    """A coroutine that waits for room goes on: there is nothing more to make room for."""

    async def story() -> None:
        stream = ToThread(here(), 1)
        stream.put(b"a")
        waiter = await waiting(stream.wait_room())
        stream.finish()
        await bounded(waiter)
        await bounded(stream.wait_room())
        assert await in_thread(stream.take).result_in_task() == [b"a"]

    in_story(story)


def test_to_thread_gives_nothing_after_stop() -> None:
    """What was queued is dropped and what is put is not kept; the first stop decides."""

    async def story() -> None:
        stream = ToThread(here(), 100)
        stream.put(b"a")
        stream.abort(Stopped)
        stream.abort(ValueError)
        stream.put(b"b")
        stream.finish()
        for _ in range(2):
            with pytest.raises(Stopped):
                stream.take()
        assert stream._chunks == []

    in_story(story)


def test_to_thread_keeps_what_is_whole_when_it_is_stopped() -> None:
    """A stop after the end has nothing to cut short: what is queued may be taken, and then there is no more."""

    async def story() -> None:
        stream = ToThread(here(), 100)
        stream.put(b"a")
        stream.finish()
        stream.abort(Stopped)
        assert stream.take() == [b"a"]
        assert stream.take() == []

    in_story(story)


def test_to_thread_cancelled_room_may_wait_again() -> None:
    """A cancelled wait for room changes nothing, and the next one is woken as any."""

    async def story() -> None:
        stream = ToThread(here(), 1)
        stream.put(b"a")
        waiter = await waiting(stream.wait_room())
        waiter.cancel()
        await cancelled(waiter)
        waiter = await waiting(stream.wait_room())
        assert await in_thread(stream.take).result_in_task() == [b"a"]
        await bounded(waiter)

    in_story(story)


def test_to_loop_takes_no_chunk_after_the_end() -> None:
    """Nobody would take it, nor make room for the next: who writes on is told, and does not wait for ever."""

    async def story() -> None:
        stream = ToLoop(here(), 1)
        stream.put(b"a")
        stream.finish()
        for _ in range(2):
            with pytest.raises(AppProtocolError, match="response was complete"):
                stream.put(b"b")
        assert await stream.take() == ([b"a"], True)

    in_story(story)
