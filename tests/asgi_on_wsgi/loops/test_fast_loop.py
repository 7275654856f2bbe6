"""asyncio's loop with our selector: what it calls before it waits and for other threads, and which loop is chosen."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from a2wsgi import ASGIMiddleware, MissingCapability
from a2wsgi._asgi_on_wsgi.loops.fast_loop import FastLoop, new_event_loop
from support.lockstep import BOUND_SECONDS
from support.wsgi_driver import call


@pytest.fixture
def loop() -> Iterator[FastLoop]:
    """A loop that does not run."""
    one = FastLoop()
    yield one
    one.close()


def soon(loop: FastLoop, function: Callable[[], object]) -> None:
    """Have the loop call a function before it waits."""
    loop.before_wait(function)


def ring(loop: FastLoop, function: Callable[[], object]) -> None:
    """Have the loop call a function for another thread."""
    loop.ring(lambda _: function(), None)


WAYS = pytest.mark.parametrize("have_called", [soon, ring])


@WAYS
def test_function_that_raises_ends_neither_the_loop_nor_the_others(
    loop: FastLoop, have_called: Callable[[FastLoop, Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The exception is logged, and what comes after it is called."""

    def fails() -> None:
        raise ValueError("of one function")

    called: list[int] = []
    for function in (fails, lambda: called.append(1), fails, lambda: called.append(2), loop.stop):
        have_called(loop, function)
    loop.run_forever()
    assert called == [1, 2]
    assert [record.exc_info and str(record.exc_info[1]) for record in caplog.records] == ["of one function"] * 2


@WAYS
def test_log_handler_that_raises_does_not_end_the_loop(
    loop: FastLoop, have_called: Callable[[FastLoop, Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function has failed, and so does the log: what comes after it is called all the same."""

    def fails(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(logging.getLogger("a2wsgi"), "handle", fails)
    called: list[int] = []
    for function in (fails, lambda: called.append(1), loop.stop):
        have_called(loop, function)
    loop.run_forever()
    assert called == [1]


@WAYS
def test_function_that_ends_the_process_leaves_the_others_for_the_next_run(
    loop: FastLoop, have_called: Callable[[FastLoop, Any], None]
) -> None:
    """``SystemExit`` leaves the loop, as it does everywhere in asyncio. The next run calls the others."""

    def ends() -> None:
        raise SystemExit

    called: list[int] = []
    for function in (ends, lambda: called.append(1), loop.stop):
        have_called(loop, function)
    with pytest.raises(SystemExit):
        loop.run_forever()
    loop.run_forever()
    assert called == [1]


def test_what_becomes_due_while_the_loop_does_what_is_due_is_done_before_it_waits(loop: FastLoop) -> None:
    """A function that is called before the wait may want another one called before it."""
    called: list[int] = []

    def first() -> None:
        loop.before_wait(second)
        called.append(1)

    def second() -> None:
        called.append(2)
        loop.stop()

    loop.before_wait(first)
    loop.run_forever()
    assert called == [1, 2]


# -- Which loop -------------------------------------------------------------------------------------------------------


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the class of the loop."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": type(asyncio.get_running_loop()).__name__.encode()})


@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
def test_python_that_wakes_its_loop_otherwise_gets_its_own_loop(monkeypatch: pytest.MonkeyPatch, inline: bool) -> None:
    """A later Python may not call ``_write_to_self``: then a bridge runs on asyncio's loop, and no request hangs."""

    def call_soon_threadsafe(self: Any, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle: asyncio.Handle = self.call_soon(callback, *args, context=context)
        self._csock.send(b"\0")
        return handle

    loop = new_event_loop()
    assert isinstance(loop, FastLoop)
    loop.close()
    monkeypatch.setattr(asyncio.SelectorEventLoop, "call_soon_threadsafe", call_soon_threadsafe)
    with ASGIMiddleware(hello, inline=inline, lifespan=False) as bridge:
        assert b"FastLoop" not in [call(bridge).body for _ in range(3)]


def test_windows_has_its_own_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """There only asyncio's own choice has subprocesses."""
    monkeypatch.setattr(sys, "platform", "win32")
    loops = [new_event_loop(), asyncio.new_event_loop()]
    for loop in loops:
        loop.close()
    assert [type(loop) for loop in loops] == [type(loops[1])] * 2
    assert not isinstance(loops[0], FastLoop)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs signals")
def test_web_assembly_has_a_loop_that_nobody_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pyodide has no thread and no socket pair, which asyncio's loop is woken by; timers and tasks need none."""

    def none(*_: object) -> Any:
        raise OSError(22, "Invalid argument")  # as Pyodide says

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.gather(asyncio.sleep(0.001), asyncio.create_task(asyncio.sleep(0.002)))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    monkeypatch.setattr(sys, "platform", "emscripten")
    monkeypatch.setattr(socket, "socketpair", none)
    with ASGIMiddleware(app, inline=True, lifespan=False) as bridge:
        assert [call(bridge).body for _ in range(2)] == [b"hello", b"hello"]


def test_web_assembly_has_no_thread_for_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which option needs none."""

    def none(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")  # as Pyodide says

    monkeypatch.setattr(sys, "platform", "emscripten")
    monkeypatch.setattr(threading.Thread, "start", none)
    with pytest.raises(MissingCapability, match="inline=True"):
        call(ASGIMiddleware(hello_asgi))


async def hello_asgi(_scope: Any, _receive: Any, _send: Any) -> None:
    """Is not called."""


def test_app_handles_signals_on_an_inline_loop() -> None:
    """``loop.add_signal_handler`` works in the main thread with inline=True, as often as it is used."""
    heard: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        event = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, event.set)
        try:
            loop.call_soon(signal.raise_signal, signal.SIGUSR1)  # once somebody waits for it
            await asyncio.wait_for(event.wait(), BOUND_SECONDS)
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)
        heard.append(1)
        await hello(scope, receive, send)

    with ASGIMiddleware(app, inline=True, lifespan=False) as bridge:
        for _ in range(3):
            assert call(bridge).body == b"FastLoop"
    assert heard == [1, 1, 1]


def test_signal_handlers_end_with_the_loop() -> None:
    """A closed loop leaves the process neither a handler nor a descriptor that signals are written to."""
    signals = (signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in signals]
    loop = FastLoop()
    for number in signals:
        loop.add_signal_handler(number, bytes)
    try:
        loop.close()
        assert [signal.getsignal(number) for number in signals] == [signal.SIG_DFL, signal.SIG_DFL]
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


# -- The bell ---------------------------------------------------------------------------------------------------------


class Raced:
    """A bell that another thread opens right after it was seen locked."""

    def __init__(self) -> None:
        self.opened = 0

    def locked(self) -> bool:
        return True

    def release(self) -> None:
        self.opened += 1
        raise RuntimeError("release unlocked lock")


def test_bell_that_another_thread_has_opened_is_no_error(loop: FastLoop) -> None:
    """1. It is locked. 2. Another thread opens it. 3. So need we not."""
    selector: Any = loop._our_selector
    bell, selector.bell = selector.bell, Raced()
    loop.call_soon_threadsafe(lambda: None)
    selector.open_bell()
    assert selector.bell.opened == 2
    selector.bell = bell


@pytest.mark.parametrize("is_own", [False, True], ids=["asyncio's", "the app's own"])
def test_app_that_shuts_the_default_executor_down_leaves_others_theirs(is_own: bool) -> None:
    """Bridges share the loop. An app may end its threads as it shuts down, as is right for one that is alone."""

    async def ends_threads(scope: Any, receive: Any, send: Any) -> None:
        pool = ThreadPoolExecutor(1)
        await receive()
        if is_own:
            asyncio.get_running_loop().set_default_executor(pool)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.get_running_loop().shutdown_default_executor()
        pool.shutdown()
        await send({"type": "lifespan.shutdown.complete"})

    async def in_thread(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.to_thread(threading.get_ident)
        await hello(scope, receive, send)

    one, other = ASGIMiddleware(ends_threads), ASGIMiddleware(in_thread, lifespan=False)
    other.start()
    with one:
        assert call(other).body == b"FastLoop"
    for _ in range(2):
        assert call(other).body == b"FastLoop"
    other.close()
