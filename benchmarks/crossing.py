"""What it costs to get from an event loop to a thread and back, and bytes from the one to the other.

python benchmarks/crossing.py [--quick]
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import asgiref.sync
import culsans
import janus
from drivers import HopToThread
from in_process import LOOPS
from measure import Row, Section, interleave, main, progress

import a2wsgi
from a2wsgi import WSGIMiddleware
from a2wsgi._threads.runtime import Runtime
from a2wsgi._wsgi_on_asgi.streams import ToLoop, ToThread
from a2wsgi._wsgi_on_asgi.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    #: Does its work so many times; how often it really did.
    Contender = Callable[[int], Awaitable[int]]

NAME = "crossing"
COROUTINE = "a coroutine for a view"
#: By the clock, and by the time of the processor, which holds on a busy machine.
CLOCKS = {time.perf_counter: "", time.process_time: ", processor time"}
CHUNK = bytes(1024)
HELD = 64  # how many chunks a bounded queue holds: as much as our stream's 64 KiB
THREADS = 10

EXECUTOR = ThreadPoolExecutor(THREADS)


# -- There and back: a thread that waits is called, and answers -------------------------------------------------------


class BareHop:
    """What no bridge can do without."""

    def __init__(self) -> None:
        self._hop = HopToThread()

    async def __call__(self, count: int) -> int:
        for _ in range(count):
            await self._hop(None, None, None)
        return count


class _Job:
    """A request of which nothing is left but its way to a worker and back."""

    def __init__(self, stream: ToLoop) -> None:
        self._stream = stream

    def run(self) -> None:
        """Nothing."""

    def done(self) -> None:
        self._stream.finish([CHUNK], done=True)

    def lost(self) -> None:
        """Nothing: no worker dies here."""


class OurHop:
    """A worker is called up, and its answer is taken from a stream."""

    def __init__(self) -> None:
        self._workers = Workers(THREADS)

    async def __call__(self, count: int) -> int:
        runtime = Runtime(asyncio.get_running_loop())
        done = 0
        for _ in range(count):
            stream = ToLoop(runtime, 65_536)
            self._workers.submit(_Job(stream))
            chunks, _ = await stream.take()
            done += len(chunks)
        return done


async def executor_hop(count: int) -> int:
    """Asyncio's way, as in uvicorn's and hypercorn's bridges."""
    loop = asyncio.get_running_loop()
    done = 0
    for _ in range(count):
        done += len(await loop.run_in_executor(EXECUTOR, lambda: CHUNK)) // len(CHUNK)
    return done


async def anyio_hop(count: int) -> int:
    """Anyio's way, as in Starlette's bridge."""
    import anyio.to_thread

    done = 0
    for _ in range(count):
        done += len(await anyio.to_thread.run_sync(lambda: CHUNK)) // len(CHUNK)
    return done


def queue_hop(new_queue: Callable[[], Any]) -> Contender:
    """Two queues that have a side for threads and one for coroutines: janus, culsans."""

    async def hop(count: int) -> int:
        there, back = new_queue(), new_queue()

        def answer() -> None:
            while (call := there.sync_q.get()) is not None:
                back.sync_q.put(call)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        done = 0
        for _ in range(count):
            await there.async_q.put(CHUNK)
            done += len(await back.async_q.get()) // len(CHUNK)
        await there.async_q.put(None)
        await asyncio.to_thread(thread.join)
        return done

    return hop


# -- A stream from a thread to the loop --------------------------------------------------------------------------------


async def our_stream_to_loop(count: int) -> int:
    stream = ToLoop(Runtime(asyncio.get_running_loop()), HELD * len(CHUNK))

    def write() -> None:
        for _ in range(count):
            stream.put(CHUNK)
        stream.finish(done=True)

    threading.Thread(target=write, daemon=True).start()
    done = 0
    ended = False
    while not ended:
        chunks, ended = await stream.take()
        done += len(chunks)
    return done


async def future_a_chunk_to_loop(count: int) -> int:
    """A coroutine and a future a chunk, as in 1.10.10, hypercorn's and Starlette's bridges."""
    loop = asyncio.get_running_loop()
    done = 0

    async def send(chunk: bytes) -> None:
        nonlocal done
        done += len(chunk) // len(CHUNK)

    def write() -> None:
        for _ in range(count):
            asyncio.run_coroutine_threadsafe(send(CHUNK), loop).result()

    await loop.run_in_executor(EXECUTOR, write)
    return done


def queue_to_loop(new_queue: Callable[[], Any]) -> Contender:
    async def stream(count: int) -> int:
        queue = new_queue()

        def write() -> None:
            for _ in range(count):
                queue.sync_q.put(CHUNK)
            queue.sync_q.put(None)

        threading.Thread(target=write, daemon=True).start()
        done = 0
        while await queue.async_q.get() is not None:
            done += 1
        return done

    return stream


# -- A stream from the loop to a thread --------------------------------------------------------------------------------


async def our_stream_to_thread(count: int) -> int:
    stream = ToThread(Runtime(asyncio.get_running_loop()), HELD * len(CHUNK))

    def read() -> int:
        done = 0
        while chunks := stream.take():
            done += len(chunks)
        return done

    reader = asyncio.get_running_loop().run_in_executor(EXECUTOR, read)
    for _ in range(count):
        await stream.wait_room()
        stream.put(CHUNK)
        stream.flush()
    stream.finish()
    stream.flush()
    return await reader


def queue_to_thread(new_queue: Callable[[], Any]) -> Contender:
    async def stream(count: int) -> int:
        queue = new_queue()

        def read() -> int:
            done = 0
            while queue.sync_q.get() is not None:
                done += 1
            return done

        reader = asyncio.get_running_loop().run_in_executor(EXECUTOR, read)
        for _ in range(count):
            await queue.async_q.put(CHUNK)
        await queue.async_q.put(None)
        return await reader

    return stream


# -- A coroutine on the loop, for a thread that waits -----------------------------------------------------------------


async def nothing() -> int:
    """What a client does that has its answer at hand."""
    return 1


def in_a_view(call: Callable[[asyncio.AbstractEventLoop], int]) -> Contender:
    """Have ``call`` made by the app of one request, on its worker thread, as views do."""
    loops: list[asyncio.AbstractEventLoop] = []
    counts: list[int] = []

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        done = sum(call(loops[-1]) for _ in range(counts[-1]))
        start_response("200 OK", [])
        return [b"%d" % done]

    bridge = WSGIMiddleware(app)

    async def contender(count: int) -> int:
        loops.append(asyncio.get_running_loop())
        counts.append(count)
        answers: list[Any] = []

        async def send(message: Any) -> None:
            answers.append(message.get("body"))

        async def receive() -> Any:
            return await asyncio.get_running_loop().create_future()

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "headers": [(b"content-length", b"0")],
            "query_string": b"",
        }
        await bridge(scope, iter_then(receive), send)
        return int(answers[-1])

    return contender


def iter_then(wait: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """A ``receive()`` that gives an empty body, and then waits for ever."""
    given: list[bool] = []

    async def receive() -> Any:
        if not given:
            given.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}
        return await wait()

    return receive


# -- All of it ---------------------------------------------------------------------------------------------------------


def works() -> dict[str, dict[str, Contender]]:
    """Each work, and who does it. A bare hop is no stream, so that has no floor."""

    def new_janus() -> Any:
        return janus.Queue(HELD)

    def new_culsans() -> Any:
        return culsans.Queue(HELD)

    return {
        "to a thread and back": {
            "bare hop": BareHop(),
            "a2wsgi": OurHop(),
            "run_in_executor": executor_hop,
            "anyio.to_thread": anyio_hop,
            "janus": queue_hop(new_janus),
            "culsans": queue_hop(new_culsans),
        },
        "1 KiB from a thread to the loop": {
            "a2wsgi": our_stream_to_loop,
            "run_coroutine_threadsafe": future_a_chunk_to_loop,
            "janus": queue_to_loop(new_janus),
            "culsans": queue_to_loop(new_culsans),
        },
        "1 KiB from the loop to a thread": {
            "a2wsgi": our_stream_to_thread,
            "janus": queue_to_thread(new_janus),
            "culsans": queue_to_thread(new_culsans),
        },
        COROUTINE: {
            "a2wsgi.run_in_loop": in_a_view(lambda _: a2wsgi.run_in_loop(nothing())),
            "a2wsgi.async_to_sync": in_a_view(lambda _: a2wsgi.async_to_sync(nothing)()),
            "run_coroutine_threadsafe": in_a_view(
                lambda loop: asyncio.run_coroutine_threadsafe(nothing(), loop).result()
            ),
            "asgiref.async_to_sync": in_a_view(lambda _: asgiref.sync.async_to_sync(nothing)()),
            "asyncio.run": in_a_view(lambda _: asyncio.run(nothing())),
        },
    }


async def microseconds(contender: Contender, count: int, clock: Callable[[], float]) -> float:
    begin = clock()
    done = await asyncio.wait_for(contender(count), 60)
    seconds = clock() - begin
    assert done == count, f"{done} of {count} came back"
    return seconds / count * 1e6


def run(*, quick: bool, rounds: int) -> Section:
    section = Section(
        NAME,
        "Crossing between a loop and a thread",
        "Microseconds each: less is better. `a2wsgi` is the hand-off that the bridges use: a worker that is woken, "
        "and a stream between it and the loop. Queues and streams hold 64 KiB. A coroutine for a view is one that does "
        "nothing, which a view has run and waits for.",
    )
    for loop_name, new_loop in LOOPS.items():
        loop = new_loop()
        for work, contenders in works().items():
            for clock, what in CLOCKS.items() if work == COROUTINE else [(time.perf_counter, "")]:
                title = f"{work}{what}, {loop_name}"
                progress([title])
                rows = {name: Row(NAME, title, name, "µs", higher_is_better=False) for name in contenders}
                count = 300 if quick else 3000
                for name in contenders:
                    loop.run_until_complete(microseconds(contenders[name], count // 10, clock))  # warms up
                for _, name in interleave(list(contenders), rounds):
                    rows[name].values.append(loop.run_until_complete(microseconds(contenders[name], count, clock)))
                section.rows += rows.values()
        with contextlib.suppress(RuntimeError):
            loop.close()
    return section


if __name__ == "__main__":
    main(run)
