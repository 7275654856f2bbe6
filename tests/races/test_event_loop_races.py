"""Every way in which the loop can be about to wait, against a ring at each moment of it: no wake-up is lost.

The loop's own steps are told by its bell: a test puts a bell there that calls, once, what is to happen at that very
moment, and which another thread may do.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from a2wsgi._asgi_on_wsgi.loops.fast_loop import FastLoop
from support.lockstep import Signal
from support.threads import in_thread

#: A way to have the loop set a signal, from any thread.
Ring = Callable[[FastLoop, Signal], None]


class Bell:
    """A lock that calls what a test has left in it, once, before or after the loop's thread does a thing with it.

    Attributes:
        hooks: What is called, by when: ``"before acquire"``, ``"after locked"``, and so on.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._thread: int | None = None
        self.hooks: dict[str, Callable[[], object]] = {}

    def of_this_thread(self) -> None:
        """Have the thread that calls this be the one whose steps count."""
        self._thread = threading.get_ident()

    def _call(self, moment: str) -> None:
        if threading.get_ident() == self._thread:
            self.hooks.pop(moment, int)()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        kind = "acquire" if blocking else "drain"
        self._call(f"before {kind}")
        taken = self._lock.acquire(blocking, timeout)
        self._call(f"after {kind}")
        return taken

    def locked(self) -> bool:
        self._call("before locked")
        locked = self._lock.locked()
        self._call("after locked")
        return locked

    def release(self) -> None:
        self._call("before release")
        self._lock.release()
        self._call("after release")


class Running:
    """A loop in a thread, with a bell that a test can listen to.

    Attributes:
        loop: The loop.
        bell: Its bell.
        others: A pair of sockets, of which the loop may watch the first.
    """

    def __init__(self) -> None:
        self.loop = FastLoop()
        self.bell = Bell(self.loop._our_selector.bell)
        self.loop._our_selector.bell = self.bell  # type: ignore[assignment]  # has what is used of it
        self.others = socket.socketpair()
        for each in self.others:
            each.setblocking(False)
        self.readable = Signal("the socket is readable")
        self._thread = in_thread(self._main)

    def _main(self) -> None:
        self.bell.of_this_thread()
        self.loop.run_forever()

    def watch(self, *_: object) -> None:
        """Add a descriptor, so that the loop waits for descriptors. Loop thread."""
        self.loop.add_reader(self.others[0], self._read)

    def watch_no_more(self, *_: object) -> None:
        """Remove it, so that the loop waits for its bell. Loop thread."""
        self.loop.remove_reader(self.others[0])

    def _read(self) -> None:
        self.others[0].recv(1)
        self.readable.set()

    def call(self, function: Callable[[], object]) -> None:
        """Have the loop call a function, and wait for that."""
        called = Signal("the call")

        def calls() -> None:
            function()
            called.set()

        self.loop.call_soon_threadsafe(calls)
        called.wait()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.watch_no_more)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.result()
        self.loop.close()
        for each in self.others:
            each.close()


@pytest.fixture
def running() -> Iterator[Running]:
    """A loop that runs."""
    one = Running()
    yield one
    one.close()


def by_ring(loop: FastLoop, heard: Signal) -> None:
    """Wake the loop as a bridge does."""
    assert loop.ring(heard.set, None) is True


def by_call(loop: FastLoop, heard: Signal) -> None:
    """Wake the loop as asyncio does."""
    loop.call_soon_threadsafe(heard.set)


WAYS = pytest.mark.parametrize("ring", [by_ring, by_call])


@contextmanager
def rings_in_a_step(running: Running, ring: Ring, before: Any, after: Any) -> Iterator[Signal]:
    """Within one step of the loop: ``before``, then a ring of another thread, then ``after``."""
    heard = Signal("the ring")

    def step() -> None:
        before()
        in_thread(ring, running.loop, heard).result()
        after()

    running.call(step)
    yield heard


@WAYS
@pytest.mark.parametrize(("before", "after"), [("watch", "watch_no_more"), ("watch_no_more", "watch")])
def test_ring_is_heard_though_the_loop_then_changes_how_it_waits(
    running: Running, ring: Ring, before: str, after: str
) -> None:
    """1. The loop waits in one way. 2. A thread rings. 3. A step has it wait in the other way: it does not wait."""
    with rings_in_a_step(running, ring, getattr(running, before), getattr(running, after)) as heard:
        heard.wait()


@WAYS
@pytest.mark.parametrize("moment", ["before acquire", "after acquire"])
def test_ring_is_heard_at_each_step_of_a_wait_for_the_bell(running: Running, ring: Ring, moment: str) -> None:
    """1. The loop is about to wait for its bell, or has just closed it. 2. A thread rings: the loop calls."""
    heard = Signal("the ring")
    running.call(lambda: running.bell.hooks.update({moment: lambda: in_thread(ring, running.loop, heard).result()}))
    if moment == "after acquire":
        running.call(int)  # ends the wait
    heard.wait()


@WAYS
@pytest.mark.parametrize("moment", ["before locked", "after locked", "before drain", "after drain"])
def test_ring_is_heard_at_each_step_of_a_wait_for_descriptors(running: Running, ring: Ring, moment: str) -> None:
    """1. The loop is about to wait for descriptors, or has just done so. 2. A thread rings: the loop calls."""
    heard = Signal("the ring")

    def step() -> None:
        running.watch()
        running.bell.hooks[moment] = lambda: in_thread(ring, running.loop, heard).result()

    running.call(step)
    if "drain" in moment:
        running.others[1].send(b"x")  # ends the wait, by another descriptor than the pipe
    heard.wait()


@WAYS
def test_ring_that_finds_the_bell_open_is_heard(running: Running, ring: Ring) -> None:
    """1. One thread rings. 2. Another rings, before the loop hears the first: the loop calls both."""
    first, second = Signal("the first ring"), Signal("the second ring")

    def step() -> None:
        for heard in (first, second):
            in_thread(ring, running.loop, heard).result()

    running.call(step)
    first.wait()
    second.wait()


@WAYS
def test_ring_is_heard_that_stops_between_its_steps(running: Running, ring: Ring) -> None:
    """1. A ring opens the bell. 2. The loop hears it, and waits for descriptors. 3. The ring goes on: no harm."""
    first, second = Signal("the first ring"), Signal("the second ring")

    def rings() -> None:
        running.bell.of_this_thread()
        running.bell.hooks["after release"] = functools.partial(meanwhile, first)
        ring(running.loop, first)
        ring(running.loop, second)

    def meanwhile(heard: Signal) -> None:
        heard.wait()
        running.loop.call_soon_threadsafe(running.watch)

    in_thread(rings).result()
    second.wait()


def test_descriptor_that_comes_as_the_loop_begins_to_wait_is_watched(running: Running) -> None:
    """1. The loop has settled to wait for its bell. 2. A finalizer adds a descriptor: the loop waits for that, too."""
    running.call(lambda: running.bell.hooks.update({"before acquire": running.watch}))
    running.others[1].send(b"x")
    running.readable.wait()


@WAYS
def test_ring_is_heard_as_the_first_descriptor_comes(running: Running, ring: Ring) -> None:
    """1. The loop has settled to wait for its bell. 2. A thread rings. 3. A finalizer adds a descriptor: both count."""
    heard = Signal("the ring")

    def comes() -> None:
        in_thread(ring, running.loop, heard).result()
        running.watch()

    running.call(lambda: running.bell.hooks.update({"before acquire": comes}))
    heard.wait()
    running.others[1].send(b"x")
    running.readable.wait()


@WAYS
def test_ring_is_heard_as_the_last_descriptor_goes(running: Running, ring: Ring) -> None:
    """1. The loop is about to wait for descriptors. 2. A finalizer removes the last. 3. A thread rings: it is heard."""
    heard = Signal("the ring")

    def gone() -> None:
        running.watch_no_more()
        in_thread(ring, running.loop, heard).result()

    def step() -> None:
        running.watch()
        running.bell.hooks["after locked"] = gone

    running.call(step)
    heard.wait()


def test_ring_is_heard_after_a_step_that_was_cut_short() -> None:
    """1. Two threads ring. 2. What the first rang ends the run of the loop. 3. The next run calls the other."""
    loop, heard = FastLoop(), Signal("the second ring")

    def ends(_: object) -> None:
        raise SystemExit

    def rung(_: object) -> None:
        heard.set()
        loop.stop()

    loop.ring(ends, None)
    loop.ring(rung, None)
    with pytest.raises(SystemExit):
        loop.run_forever()
    in_thread(loop.run_forever).result()
    loop.close()
    assert heard.is_set()


def test_stop_by_what_is_due_ends_the_wait() -> None:
    """1. The loop is about to wait. 2. What is due stops it: it does not wait."""
    loop = FastLoop()
    loop.call_soon(loop.before_wait, loop.stop)
    in_thread(loop.run_forever).result()
    loop.close()


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs signals")
def test_signal_is_heard_as_the_loop_begins_to_wait() -> None:
    """1. The loop is about to wait. 2. A signal comes, which writes to the pipe and rings no bell: it is handled."""
    loop = FastLoop()
    seen: list[str] = []

    async def story() -> None:
        heard = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, heard.set)
        loop.before_wait(lambda: os.kill(os.getpid(), signal.SIGUSR1))
        await asyncio.wait_for(heard.wait(), 5)
        seen.append("the signal")
        assert loop.remove_signal_handler(signal.SIGUSR1) is True
        assert loop.remove_signal_handler(signal.SIGUSR1) is False

    loop.run_until_complete(story())
    assert loop._our_selector.alone  # and waits for its bell again
    loop.close()
    assert seen == ["the signal"]


def test_two_server_threads_and_an_app_that_waits_for_sockets() -> None:
    """By the public API: an app waits for a socket as database drivers do, and no request of 2 threads hangs."""
    from a2wsgi import ASGIMiddleware
    from support.wsgi_driver import call

    async def app(scope: Any, receive: Any, send: Any) -> None:
        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            asyncio.get_running_loop().call_soon(right.send, b"x")
            await asyncio.get_running_loop().sock_recv(left, 1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    with ASGIMiddleware(app, lifespan=False) as bridge:
        threads = [in_thread(lambda: [call(bridge).body for _ in range(300)]) for _ in range(2)]
        for thread in threads:
            assert thread.result(60) == [b"hello"] * 300
