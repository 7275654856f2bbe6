"""What all streams guarantee: no thread waits for a closed loop, and no coroutine for a thread that was ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import NoReturn

import pytest

from a2wsgi import ClientDisconnected
from a2wsgi._threads import stream as _stream
from a2wsgi._threads.finalizers import LOCKING
from a2wsgi._threads.runtime import Runtime
from a2wsgi._threads.stream import Stream
from a2wsgi._wsgi_on_asgi import disconnected as _disconnected
from a2wsgi._wsgi_on_asgi.disconnected import Disconnected
from a2wsgi._wsgi_on_asgi.streams import ToLoop, ToThread
from support.lockstep import Signal
from support.streams import Parked, here, in_story, others_go, waiting
from support.threads import Running, in_thread


@pytest.fixture
def parked(monkeypatch: pytest.MonkeyPatch) -> Parked:
    """Tells when a thread parks."""
    parked = Parked()
    parked.watch(monkeypatch)
    return parked


@pytest.fixture
def quick_life_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have threads look for their loop every millisecond."""
    monkeypatch.setattr(_stream, "LOOK_SECONDS", 0.001)


# -- A loop that was closed -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_life_sign")
@pytest.mark.parametrize("direction", ["put", "get"])
def test_stream_tells_a_parked_thread_of_a_closed_loop(parked: Parked, direction: str) -> None:
    """A loop that was closed without a word strands no thread, which learns why, now and each time again."""
    loop = asyncio.new_event_loop()
    calls: Callable[[], object]
    if direction == "put":
        to_loop = ToLoop(Runtime(loop), 0)
        to_loop.put(b"a")
        calls = lambda: to_loop.put(b"b")  # noqa: E731
    else:
        calls = ToThread(Runtime(loop), 0).take
    thread = in_thread(calls)
    parked.times(1).wait()
    loop.close()
    for again in (thread, Running(calls)):
        with pytest.raises(ClientDisconnected, match="event loop was closed"):
            again.result()


@pytest.mark.usefixtures("quick_life_sign")
def test_stream_lets_a_thread_wait_on_while_its_loop_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look for the loop that finds it open is no wake-up, and costs no chunk."""
    looked = Signal("a look for the loop")

    class Loop(asyncio.SelectorEventLoop):
        looks = 0

        def is_closed(self) -> bool:
            if threading.current_thread() is not threading.main_thread():
                self.looks += 1
                if self.looks == 3:
                    looked.set()
            return super().is_closed()

    loop = Loop()
    stream = ToThread(Runtime(loop), 1)
    taking = in_thread(stream.take)
    looked.wait()
    assert not taking.over.is_set()
    stream.put(b"a")
    stream.flush()
    assert taking.result() == [b"a"]
    loop.close()


def test_life_sign_is_once_a_second() -> None:
    """The bound that the module promises."""
    assert _stream.LOOK_SECONDS == 1.0


# -- Threads that are interrupted -------------------------------------------------------------------------------------


class _Late(BaseException):
    """What a library raises into a thread."""


@pytest.mark.usefixtures("runtime")
def test_to_loop_revives_a_take_whose_writer_was_interrupted() -> None:
    """The writer has taken the waiter out, and is raised out of `put` before it wakes it: the timer does."""

    async def story() -> None:
        runtime = here()

        class Interrupted:
            def ring(self, *_: object) -> bool:
                raise _Late

        output = ToLoop(runtime, 10)
        taking = await waiting(output.take())
        runtime.doorbell = Interrupted()  # type: ignore[assignment]  # it is asked for nothing else
        with pytest.raises(_Late):
            await in_thread(output.put, b"x").result_in_task()
        await others_go()
        assert not taking.done()
        output.revive()
        assert await taking == ([b"x"], False)

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_to_thread_revives_a_room_whose_reader_was_interrupted() -> None:
    """The same, the other way: the reader is raised out of `get`."""

    async def story() -> None:
        runtime = here()

        class Interrupted:
            def ring(self, *_: object) -> bool:
                raise _Late

        stream = ToThread(runtime, 1)
        stream.put(b"x")
        room = await waiting(stream.wait_room())
        runtime.doorbell = Interrupted()  # type: ignore[assignment]  # as above
        with pytest.raises(_Late):
            await in_thread(stream.take).result_in_task()
        await others_go()
        assert not room.done()
        stream.revive()
        await room

    in_story(story)


@pytest.mark.usefixtures("runtime")
def test_to_loop_revives_nobody_who_is_not_forgotten() -> None:
    """A coroutine whose waiter is in its place waits on."""

    async def story() -> None:
        output = ToLoop(here(), 10)
        output.revive()
        taking = await waiting(output.take())
        waiter = output._waiter
        assert waiter is not None
        output.revive()
        assert not waiter.done()
        output.put(b"x")
        assert await taking == ([b"x"], False)

    in_story(story)


@pytest.mark.usefixtures("quick_life_sign")
def test_gate_that_was_taken_out_and_not_opened_holds_nobody(parked: Parked) -> None:
    """An exception from another thread has come between. The thread finds that its gate is gone, and looks again."""
    loop = asyncio.new_event_loop()
    stream = ToThread(Runtime(loop), 1)
    taking = in_thread(stream.take)
    parked.times(1).wait()
    stream._gate = None
    stream.put(b"a")
    assert taking.result() == [b"a"]
    loop.close()


# -- A finalizer ------------------------------------------------------------------------------------------------------


def test_every_stream_has_its_module_among_those_that_no_finalizer_may_wait_in() -> None:
    """Their methods hold a lock that the loop needs. A server thread's stream has none that `run_in_loop` waits for."""
    modules = {"a2wsgi._asgi_on_wsgi.to_server"}
    kinds = [Stream]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.__module__.startswith("a2wsgi."):
            modules.add(kind.__module__)
    assert modules - LOCKING == {"a2wsgi._asgi_on_wsgi.to_server"}


@pytest.mark.usefixtures("quick_life_sign")
@pytest.mark.parametrize("waits", ["put", "take", "wait"])
def test_finalizer_that_waits_within_a_put_gets_an_error(waits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread has the stream's lock, which the loop needs to let it go on."""
    monkeypatch.setattr(_disconnected, "LOOK_SECONDS", 0.001)
    loop = asyncio.new_event_loop()
    runtime = Runtime(loop)
    outer, full, empty, request = ToLoop(runtime, 1), ToLoop(runtime, 0), ToThread(runtime, 1), Disconnected(runtime)
    full.put(b"a")
    calls: dict[str, Callable[[], object]] = {"put": lambda: full.put(b"b"), "take": empty.take, "wait": request.wait}

    class Chunks(list[bytes]):
        def append(self, chunk: bytes) -> None:
            with pytest.raises(RuntimeError, match="was called by a finalizer"):
                calls[waits]()
            super().append(chunk)

    outer._chunks = Chunks()
    in_thread(outer.put, b"c").result()
    assert outer._chunks == [b"c"]
    loop.close()


class _Uncountable(int):
    """A number of bytes to which nothing can be added."""

    def __add__(self, _: object) -> NoReturn:
        raise MemoryError

    __iadd__ = __radd__ = __add__


@pytest.mark.usefixtures("runtime")
def test_last_chunks_that_cannot_be_counted_are_queued_once() -> None:
    """Memory runs out as the thread says that it is done, and whoever does it in its place queues them again."""

    async def story() -> None:
        output = ToLoop(here(), 10)
        output._size = _Uncountable()
        with pytest.raises(MemoryError):
            output.finish([b"whole"], done=True)
        assert not output.done
        output._size = 0
        output.finish([b"whole"], done=True)
        assert await output.take() == ([b"whole"], True)

    in_story(story)
