"""What may come between two steps of a stream or of the doorbell, put there: nobody waits for who has been there.

Each test names the line that it fails without. The locks of the streams call what a test leaves in them, between one
side's look and its wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from a2wsgi import ClientDisconnected
from a2wsgi._threads import stream as _handoff
from a2wsgi._threads.runtime import Doorbell, Runtime, wake
from a2wsgi._wsgi_on_asgi.disconnected import Disconnected
from a2wsgi._wsgi_on_asgi.loops import BridgeLoop
from a2wsgi._wsgi_on_asgi.streams import ToLoop, ToThread
from support.lockstep import Lockstep, Signal
from support.runtimes import cancelled
from support.streams import bounded, here, in_story, others_go, waiting
from support.threads import HookedLock, in_thread


class Stopped(Exception):  # noqa: N818 - what a stop of a test has a thread get
    pass


def hook(stream: _handoff.Stream) -> HookedLock:
    """Give a stream a lock that calls what is left in it."""
    lock = HookedLock()
    stream._lock = lock  # type: ignore[assignment]  # a lock but for its type
    return lock


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for. Any thread."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError(f"{coroutine!r} waits")


# -- A thread that parks ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime")
def test_writer_that_parks_is_met_by_take() -> None:
    """A take comes between the look and the wait. Defends `put`: the gate is hung up in the look's own lock.

    1. A writer finds the queue full. 2. Before it waits, the loop takes all there is. 3. The writer waits: its gate
    must be open.
    """

    async def story() -> None:
        stream = ToLoop(here(), 1)
        stream.put(b"a")
        taken = []
        hook(stream).after = lambda: taken.append(finished(stream.take()))
        await in_thread(stream.put, b"b").result_in_task()
        assert taken == [([b"a"], False)]
        assert await stream.take() == ([b"b"], False)

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_writer_that_parks_is_met_by_stop() -> None:
    """A stop comes there. Defends `stop`: it opens the gate that it finds, under the lock."""

    async def story() -> None:
        stream = ToLoop(here(), 1)
        stream.put(b"a")
        hook(stream).after = lambda: stream.abort(Stopped)
        with pytest.raises(Stopped):
            await in_thread(stream.put, b"b").result_in_task()

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_writer_is_met_by_stop_before_it_looks() -> None:
    """A stop comes before the writer has the lock. Defends `put`: it looks for a stop with the lock held."""

    async def story() -> None:
        stream = ToLoop(here(), 100)
        hook(stream).before = lambda: stream.abort(Stopped)
        with pytest.raises(Stopped):
            await in_thread(stream.put, b"a").result_in_task()
        assert await stream.take() == ([], True)

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_writer_that_was_let_in_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop comes between its gate's opening and its next look. Defends `put`: ``while True``.

    1. A writer waits. 2. A take opens its gate. 3. The stream is stopped. 4. The writer comes: it must not add to it.
    """

    async def story() -> None:
        stream, step = ToLoop(here(), 1), Lockstep()
        original = ToLoop._wait_at

        def pass_(self: ToLoop, gate: threading.Lock) -> None:
            with step(1):
                pass
            original(self, gate)
            with step(3):
                pass

        monkeypatch.setattr(ToLoop, "_wait_at", pass_)
        stream.put(b"a")
        writer = in_thread(stream.put, b"b")
        async with step(2):
            assert await stream.take() == ([b"a"], False)
            stream.abort(Stopped)
        with pytest.raises(Stopped):
            await writer.result_in_task()
        assert await stream.take() == ([], True)

    in_story(story)


@pytest.mark.parametrize("chunks", [[b"a"], []], ids=["chunk", "end"])
@pytest.mark.usefixtures("runtime")
def test_reader_that_parks_is_met_by_flush(chunks: list[bytes]) -> None:
    """What it waits for comes between its look and its wait. Defends `get`: the gate is hung up in the look's own lock.

    1. A thread finds nothing. 2. Before it waits, the loop puts a chunk, or the end, and flushes. 3. It waits: its gate
    must be open.
    """

    async def story() -> None:
        stream = ToThread(here(), 100)

        def bring() -> None:
            for chunk in chunks:
                stream.put(chunk)
            stream.finish()
            stream.flush()

        hook(stream).after = bring
        assert await in_thread(stream.take).result_in_task() == chunks

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_reader_that_parks_is_met_by_stop() -> None:
    """A stop comes there. Defends `stop`, as above."""

    async def story() -> None:
        stream = ToThread(here(), 100)
        hook(stream).after = lambda: stream.abort(Stopped)
        with pytest.raises(Stopped):
            await in_thread(stream.take).result_in_task()

    in_story(story)


def test_gate_that_opens_as_the_loop_is_closed_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop comes between the life sign and its verdict. Defends `_wait_at`: ``self._abort_error or``.

    1. A thread waits for so long that it looks for its loop, which is closed. 2. Before it can say so, the stream is
    stopped: that came first, and is what the thread is told.
    """
    monkeypatch.setattr(_handoff, "LOOK_SECONDS", 0.001)
    loop = asyncio.new_event_loop()
    stream = ToThread(Runtime(loop), 1)
    lock = hook(stream)

    def meanwhile() -> None:
        lock.before = lambda: stream.abort(Stopped)
        loop.close()

    lock.after = meanwhile
    with pytest.raises(Stopped):
        in_thread(stream.take).result()


# -- A coroutine that parks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "taken"),
    [
        (lambda stream: stream.put(b"a"), ([b"a"], False)),
        (lambda stream: stream.finish([b"a"]), ([b"a"], True)),
        (lambda stream: stream.finish(done=True), ([], True)),
    ],
    ids=["put", "end", "leave"],
)
@pytest.mark.usefixtures("runtime")
def test_take_that_parks_is_met_by_the_thread(act: Callable[[ToLoop], None], taken: tuple[list[bytes], bool]) -> None:
    """The thread comes between the look and the wait. Defends `take`: one lock for both.

    1. A take finds nothing. 2. Before it waits, the thread puts, ends or leaves. 3. The take waits: its waiter must be
    done, or rung for.
    """

    async def story() -> None:
        stream = ToLoop(here(), 100)
        hook(stream).after = lambda: in_thread(act, stream).result()
        assert await bounded(stream.take()) == taken

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_wait_left_that_parks_is_met_by_leave() -> None:
    """The thread leaves between the look and the wait. Defends `wait_done`: as `take`."""

    async def story() -> None:
        stream = ToLoop(here(), 100)
        hook(stream).after = lambda: in_thread(lambda: stream.finish(done=True)).result()
        await bounded(stream.wait_done())

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_room_that_parks_is_met_by_get() -> None:
    """The thread takes all between the look and the wait. Defends `wait_room`: one lock for both."""

    async def story() -> None:
        stream = ToThread(here(), 1)
        stream.put(b"a")
        hook(stream).after = lambda: in_thread(stream.take).result()
        await bounded(stream.wait_room())

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_end_that_comes_after_a_chunk_was_taken_is_taken() -> None:
    """The end comes between two takes. Defends `take`: ``or self._finished``.

    1. A take has the last chunk. 2. The thread ends, and finds nobody that waits. 3. The next take must not wait.
    """

    async def story() -> None:
        stream = ToLoop(here(), 100)
        stream.put(b"a")
        hook(stream).after = lambda: in_thread(stream.finish).result()
        assert await stream.take() == ([b"a"], False)
        assert await bounded(stream.take()) == ([], True)

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_cancelled_take_loses_no_chunk_that_is_on_its_way() -> None:
    """A take is cancelled when it was rung for. Defends `wake`: ``if not waiter.done()``; and `take`: it looks last.

    1. A take waits. 2. The thread puts a chunk, takes the waiter, and rings. 3. Before the loop answers, the take is
    cancelled. 4. The ring ends nothing and raises nothing. 5. The next take has the chunk.
    """

    async def story() -> None:
        stream = ToLoop(here(), 100)
        taking = await waiting(stream.take())
        in_thread(stream.put, b"a").result()
        taking.cancel()
        await cancelled(taking)
        assert await bounded(stream.take()) == ([b"a"], False)

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_cancelled_take_does_not_keep_the_next_from_being_woken() -> None:
    """The thread rings for a take that was cancelled, and another waits by then. Defends `take`: its waiter is its own.

    1. A take waits, and is cancelled. 2. Another waits. 3. The thread puts a chunk: it must wake the second.
    """

    async def story() -> None:
        stream = ToLoop(here(), 100)
        for _ in range(3):
            taking = await waiting(stream.take())
            taking.cancel()
        taking = await waiting(stream.take())
        in_thread(stream.put, b"a").result()
        assert await bounded(taking) == ([b"a"], False)

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_take_that_was_woken_for_nothing_waits_on() -> None:
    """What woke it was taken back. Defends `take`: ``while True``.

    1. A take waits; `end(tell=False)` does not wake it. 2. A stranger's late ring does. 3. It finds nothing, and waits.
    """

    async def story() -> None:
        stream = ToLoop(here(), 100)
        taking = await waiting(stream.take())
        for _ in range(3):
            waiter = stream._waiter
            assert waiter is not None
            wake(waiter)
            await others_go()
            assert not taking.done()
        stream.put(b"a")
        assert await bounded(taking) == ([b"a"], False)

    in_story(story)


# -- stop against put -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime")
def test_chunk_that_was_put_as_the_stream_stops_is_not_given_out() -> None:
    """The stop comes between the chunk and its ring. Defends `stop`: ``self._chunks = []``.

    1. A take waits. 2. The thread has put a chunk and taken the waiter. 3. Before it rings, the stream is stopped.
    4. It rings; the take finds the end, and no chunk.
    """

    async def story() -> None:
        stream = ToLoop(here(), 100)
        taking = await waiting(stream.take())
        step, lock = Lockstep(), hook(stream)

        def between() -> None:
            with step(1):
                pass
            with step(3):
                pass

        lock.after = between
        putting = in_thread(stream.put, b"a")
        async with step(2):
            stream.abort(Stopped)
        await putting.result_in_task()
        assert await bounded(taking) == ([], True)

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_chunk_that_is_put_after_its_thread_was_stopped_is_not_kept() -> None:
    """The stop comes as the loop brings a chunk. Defends `ToThread.put`: ``if self._stopped is None``."""

    async def story() -> None:
        stream = ToThread(here(), 100)
        hook(stream).before = lambda: stream.abort(Stopped)
        stream.put(b"a" * 1000)
        assert stream._chunks == []
        await bounded(stream.wait_room())

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_stream_that_a_finalizer_stops_within_a_put_is_stopped() -> None:
    """The collector ends a request on the thread that writes. Defends the stream's ``RLock``.

    1. A thread has added a chunk, and has the lock. 2. The collector runs, finds the request's coroutine, and that
    stops the stream. 3. The chunk is dropped, and the next write raises.
    """

    async def story() -> None:
        stream = ToLoop(here(), 100)

        class Chunks(list[bytes]):
            def append(self, chunk: bytes) -> None:
                super().append(chunk)
                stream.abort(Stopped)

        stream._chunks = Chunks()
        await in_thread(stream.put, b"a").result_in_task()
        with pytest.raises(Stopped):
            stream.put(b"b")
        assert await stream.take() == ([], True)

    in_story(story)


# -- ring against answer ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime")
def test_ring_that_comes_as_the_loop_answers_is_answered() -> None:
    """A thread rings between the answer's look and its calls. Defends `_answer`: ``_answering = False`` with the look.

    1. The loop answers, and has taken what was rung. 2. Before it calls anything, a thread rings. 3. The loop must be
    called anew: this answer will not see it.
    """

    async def story() -> None:
        bell, lock = Doorbell(here().loop), HookedLock()
        calls: list[int] = []
        second = Signal("the second call")

        def called(number: int) -> None:
            calls.append(number)
            second.set()

        bell.ring(calls.append, 1)
        bell._lock = lock  # type: ignore[assignment]  # a lock but for its type
        lock.after = lambda: in_thread(bell.ring, called, 2).result()
        await second.wait_in_task()
        assert calls == [1, 2]

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_ring_that_comes_before_the_loop_looks_is_of_this_answer() -> None:
    """A thread rings as the loop is about to answer. Defends `_answer`: what was rung is taken with the look."""

    async def story() -> None:
        bell, lock = Doorbell(here().loop), HookedLock()
        calls: list[int] = []
        second = Signal("the second call")

        def called(number: int) -> None:
            calls.append(number)
            second.set()

        bell.ring(calls.append, 1)
        bell._lock = lock  # type: ignore[assignment]  # a lock but for its type
        lock.before = lambda: in_thread(bell.ring, called, 2).result()
        await second.wait_in_task()
        assert calls == [1, 2]

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_ring_lets_others_ring_while_it_wakes_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waking a loop is a system call. Defends `ring`: ``call_soon_threadsafe`` stands outside of the lock."""

    async def story() -> None:
        loop = here().loop
        bell, calls, both = Doorbell(loop), list[int](), Signal("both calls")
        original = loop.call_soon_threadsafe

        def called(number: int) -> None:
            calls.append(number)
            if number == 2:
                both.set()

        def call_soon_threadsafe(callback: Any, *args: Any, context: Any = None) -> Any:
            assert in_thread(bell.ring, called, 2).result()
            return original(callback, *args, context=context)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "call_soon_threadsafe", call_soon_threadsafe)
            assert bell.ring(called, 1)
        await both.wait_in_task()
        assert calls == [1, 2]

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_ring_by_a_finalizer_within_a_ring_is_answered() -> None:
    """The collector runs a finalizer that rings, on the thread that rings. Defends the doorbell's ``RLock``."""

    async def story() -> None:
        bell, calls, both = Doorbell(here().loop), list[int](), Signal("both calls")

        def called(number: int) -> None:
            calls.append(number)
            if len(calls) == 2:
                both.set()

        class Rung(type(bell._rung)):  # type: ignore[misc]  # a deque of whatever it is one of
            finalizers = 1

            def append(self, item: Any) -> None:
                super().append(item)
                if self.finalizers:
                    self.finalizers -= 1
                    bell.ring(called, 2)

        bell._rung = Rung()
        assert await in_thread(bell.ring, called, 1).result_in_task()
        await both.wait_in_task()
        assert calls == [1, 2]

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_ring_that_has_not_told_the_loop_yet_holds_no_other_up() -> None:
    """A finalizer of the app's runs within a ring, and waits for another thread. Defends `Doorbell.look`.

    1. A thread is about to tell the loop. 2. A finalizer runs there, and takes its time. 3. Another thread rings, and
    relies on the answer. 4. The timer of a bridge answers.
    """

    class Request:
        def tick(self, now: float) -> None:
            pass

    async def story() -> None:
        runtime = here()
        bell, tells = runtime.doorbell, runtime.doorbell.loop
        within, answered = Signal("the finalizer"), Signal("the answer")

        class Loop:
            def call_soon_threadsafe(self, *args: Any, **options: Any) -> None:
                bell.loop = tells
                within.set()
                answered.wait()
                tells.call_soon_threadsafe(*args, **options)

        bell.loop = cast("Any", Loop())
        first = in_thread(bell.ring, lambda _: None, None)
        await within.wait_in_task()
        assert bell.ring(answered.set, None)
        loop, request = BridgeLoop(runtime), cast("Any", Request())
        loop.enter(request)
        await answered.wait_in_task()
        loop.leave(request)
        assert await first.result_in_task()

    in_story(story)


# -- Disconnected ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "happened"), [(Disconnected._set, True), (Disconnected._finish, False)])
def test_watcher_that_is_about_to_wait_is_met_by_the_end(
    ending: Callable[[Disconnected], None], happened: bool
) -> None:
    """The end comes before and after a watcher leaves its gate. Defends `wait`: it leaves its gate before it looks."""
    for first in (True, False):
        disconnected = Disconnected()

        class Gates(list[threading.Lock]):
            def append(
                self, gate: threading.Lock, first: bool = first, disconnected: Disconnected = disconnected
            ) -> None:
                if first:
                    ending(disconnected)
                super().append(gate)
                if not first:
                    ending(disconnected)

        disconnected._gates = Gates()
        assert in_thread(disconnected.wait).result() is happened
        assert disconnected._gates == []


def test_two_ends_open_a_gate_once() -> None:
    """The client leaves as the request is over. Defends `_finish`: ``pop()``, and ``suppress(IndexError)``."""
    disconnected = Disconnected()

    class Gates(list[threading.Lock]):
        others = 1

        def pop(self, *args: Any) -> threading.Lock:
            if self.others:
                self.others -= 1
                disconnected._finish()
            return super().pop(*args)

        def append(self, gate: threading.Lock) -> None:
            super().append(gate)
            disconnected._set()

    disconnected._gates = Gates()
    assert in_thread(disconnected.wait).result() is True


def test_watcher_that_is_woken_finds_that_the_client_has_left() -> None:
    """It looks as soon as its gate is open. Defends `_set`: the client has left before the gates are opened."""
    disconnected, seen = Disconnected(), list[bool]()

    class Gates(list[threading.Lock]):
        def pop(self, *args: Any) -> threading.Lock:
            gate = super().pop(*args)
            seen.append(disconnected.is_set())
            return gate

        def append(self, gate: threading.Lock) -> None:
            super().append(gate)
            disconnected._set()

    disconnected._gates = Gates()
    assert in_thread(disconnected.wait).result() is True
    assert seen == [True]


@pytest.mark.parametrize("timeout", [0, 0.001])
def test_watcher_whose_time_is_up_as_the_end_comes_is_told(timeout: float) -> None:
    """The end takes its gate as it takes that back. Defends `wait`: ``suppress(ValueError)``, and the last look."""
    disconnected = Disconnected()

    class Gates(list[threading.Lock]):
        def remove(self, gate: threading.Lock) -> None:
            disconnected._set()
            super().remove(gate)

    disconnected._gates = Gates()
    assert in_thread(disconnected.wait, timeout).result() is True


def test_closed_loop_is_not_told_of_what_a_thread_brings() -> None:
    """A thread that still writes raises nothing of its closed loop's. Defends `ring` and `wake`: ``RuntimeError``."""
    loop = asyncio.new_event_loop()
    stream = ToLoop(Runtime(loop), 100)
    taking = stream.take()
    stuck = taking.send(None)
    assert stuck is not None
    loop.close()
    stream.put(b"a")
    stream.finish([b"b"])
    stream.finish(done=True)
    stream.abort(lambda: ClientDisconnected("the loop was closed"))
    taking.close()
