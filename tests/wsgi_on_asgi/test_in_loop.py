"""`run_in_loop` and `async_to_sync`: async code on the server's loop, from the sync code of a WSGI app.

A test that has its bridge from `bridged` holds for a bridge around a bridge around a bridge as well. There the server's
loop is that of the bridge in the middle.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import inspect
import sys
import threading
import traceback
import warnings
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import Any

import pytest

from a2wsgi import (
    ASGIMiddleware,
    BridgeError,
    ClientDisconnected,
    MissingCapability,
    WSGIMiddleware,
    async_to_sync,
    run_in_loop,
)
from a2wsgi._threads import call as _call
from a2wsgi._threads.call import Call
from a2wsgi._wsgi_on_asgi import loops as _loops
from a2wsgi.wsgi_typing import Environ, StartResponse
from support.asgi_driver import Client, answer, call, http_scope, run, until
from support.bridges import Bridged
from support.errors import Twofaced
from support.forks import forks_with_threads, in_child, needs_fork
from support.lockstep import BOUND_SECONDS, Signal
from support.runtimes import (
    CANCELLATIONS,
    JobCancelled,
    for_ever,
    gather,
    in_worker,
    only_on,
    pause,
    rest,
    semaphore,
    soon,
    start,
    verbs,
)
from support.threads import in_thread
from support.wsgi_driver import call as call_wsgi

pytestmark = pytest.mark.usefixtures("runtime")

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


class View:
    """An app that runs a function and answers with what it returns; what it raises is kept, too.

    Attributes:
        result: What the function returned.
        error: What it raised, and the app with it.
        over: Set when both are known.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self.result: Any = None
        self.error: BaseException | None = None
        self.over = Signal("the view is over")

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            self.result = self._function()
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.over.set()
        start_response("200 OK", [])
        return [b"done"]


def in_request(bridged: Callable[..., Any], function: Callable[[], Any]) -> Any:
    """What a function returns or raises in the app of one request."""
    view = View(lambda: (True, function()))
    with contextlib.suppress(BaseException):
        call(bridged(view))
    if view.error is not None:
        error, view.error = view.error, None
        try:
            raise error
        finally:
            del error
    assert view.result is not None, "the app was not entered"
    return view.result[1]


async def loop_here() -> Any:
    """The loop that runs it, or the run of trio."""
    await rest()
    return verbs().loop


async def runs() -> bool:
    """True: it has run."""
    await rest()
    return True


# -- In a forked child ------------------------------------------------------------------------------------------------


@needs_fork
@forks_with_threads
def test_child_that_the_app_forks_does_not_wait_for_its_parents_loop() -> None:
    """It has a copy of the loop, and nobody who runs it. What is made sync runs by itself there."""

    def in_the_child() -> bytes:
        with pytest.raises(MissingCapability, match="in a process that was forked"):
            run_in_loop(runs())
        return f"{async_to_sync(asyncio.sleep)(0, 'alone')}".encode()

    assert in_request(WSGIMiddleware, lambda: in_child(in_the_child)) == b"alone"


# -- What comes of it -------------------------------------------------------------------------------------------------


def test_coroutine_runs_on_the_servers_loop() -> None:
    """Of one bridge it is the loop that the server calls it on, and the thread is that loop's."""
    loops: list[object] = []

    async def where() -> tuple[object, threading.Thread]:
        return await loop_here(), threading.current_thread()

    async def main() -> None:
        loops.append(await loop_here())
        view = View(lambda: (run_in_loop(where()), run_in_loop(where())))
        await answer(WSGIMiddleware(view))
        assert view.result == (((loops[0], threading.current_thread()),) * 2)

    run(main())


def test_result_is_the_very_object(bridged: Bridged) -> None:
    """What the coroutine returns comes back as it is, None included."""
    sent = object()

    async def give(value: object) -> object:
        await rest()
        return value

    assert in_request(bridged, lambda: run_in_loop(give(sent))) is sent
    assert in_request(bridged, lambda: run_in_loop(give(None))) is None


def test_error_is_the_very_object_with_its_whole_traceback(bridged: Bridged) -> None:
    """The traceback leads from the caller to the line that raised."""
    error = ValueError("of the coroutine")

    async def innermost() -> None:
        await rest()
        raise error

    async def outer() -> None:
        await innermost()

    def view() -> list[str]:
        with pytest.raises(ValueError, match="of the coroutine") as raised:
            run_in_loop(outer())
        assert raised.value is error
        assert raised.value.__context__ is None
        return [frame.name for frame in traceback.extract_tb(error.__traceback__)]

    names = in_request(bridged, view)
    assert names[0] == "view"
    assert names[-2:] == ["outer", "innermost"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_error_that_would_end_the_loop_spares_it(bridged: Bridged, kind: type[BaseException]) -> None:
    """The caller gets it, and the loop goes on."""
    error = kind("of the coroutine")

    async def fail() -> None:
        await rest()
        raise error

    def view() -> object:
        # GeneratorExit is what Python throws into a coroutine of a loop that has ended: it is told as that.
        with pytest.raises(ClientDisconnected if kind is GeneratorExit else kind) as raised:
            run_in_loop(fail())
        assert raised.value is error or raised.value.__cause__ is error
        return run_in_loop(runs())

    assert in_request(bridged, view) is True


def test_stop_iteration_comes_as_python_has_it(bridged: Bridged) -> None:
    """PEP 479: a coroutine that lets a StopIteration out raises a RuntimeError."""

    async def stop() -> None:
        await rest()
        raise StopIteration("of the coroutine")

    def view() -> object:
        with pytest.raises(RuntimeError, match="coroutine raised StopIteration") as raised:
            run_in_loop(stop())
        return type(raised.value.__cause__)

    assert in_request(bridged, view) is StopIteration


def test_error_that_cannot_be_looked_at_comes_through(bridged: Bridged) -> None:
    """Nothing asks it for its class, its cause or its members."""

    async def fail() -> None:
        await rest()
        raise Twofaced

    def view() -> str:
        try:
            run_in_loop(fail())
        except BaseException as error:  # noqa: BLE001 - it is what is asked for
            return type(error).__name__
        return "nothing"

    assert in_request(bridged, view) == "Twofaced"


def test_error_whose_repr_raises_comes_through(bridged: Bridged) -> None:
    """Nothing asks an error how it looks."""

    class RudeError(Exception):
        def __repr__(self) -> str:
            raise AssertionError("asked for its repr()")

        __str__ = __repr__

        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        def __bool__(self) -> bool:
            raise AssertionError("asked for its truth")

        __hash__ = None  # type: ignore[assignment]

    async def fail() -> None:
        raise RudeError

    def view() -> bool:
        try:
            run_in_loop(fail())
        except RudeError:
            return True
        return False

    assert in_request(bridged, view) is True


def test_error_leaves_no_cycle(bridged: Bridged) -> None:
    """Once the caller has handled an error, its frames go without the garbage collector."""

    class Kept:
        pass

    refs: list[weakref.ref[Kept]] = []

    async def fail() -> None:
        kept = Kept()
        refs.append(weakref.ref(kept))
        await rest()
        raise ValueError

    def view() -> bool:
        gc.disable()
        try:
            with contextlib.suppress(ValueError):
                run_in_loop(fail())
            # The task is freed by its loop, which may still hold it: one more turn of it.
            run_in_loop(rest())
            run_in_loop(rest())
            return refs[0]() is None
        finally:
            gc.enable()

    assert in_request(bridged, view) is True


# -- What is accepted -------------------------------------------------------------------------------------------------


class Awaitable:
    """Anything with an ``__await__``, and a ``close`` that is not to be called."""

    def __await__(self) -> Generator[Any, None, str]:
        yield from rest().__await__()
        return "awaited"

    def close(self) -> None:
        raise AssertionError("it is no coroutine: its close() may be anything")


def test_any_awaitable_is_awaited(bridged: Bridged) -> None:
    """Objects with ``__await__`` work."""
    assert in_request(bridged, lambda: run_in_loop(Awaitable())) == "awaited"


@only_on("asyncio", "uvloop", reason="trio has no futures")
def test_future_of_the_servers_loop_is_awaited(bridged: Bridged) -> None:
    """It may be made by one call and awaited by another."""

    async def make_future() -> asyncio.Future[str]:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, "future")
        return future

    assert in_request(bridged, lambda: run_in_loop(run_in_loop(make_future()))) == "future"


async def _generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (loop_here, r"Call it: run_in_loop\(loop_here\(\.\.\.\)\)"),
        (functools.partial(loop_here), "Call it"),
        (_generator(), "async for"),
        (_generator, "async for"),
        ([1], "asyncio.gather"),
        (None, "calling an async function"),
    ],
)
def test_what_cannot_be_awaited_is_refused_with_a_hint(given: Any, hint: str) -> None:
    """The error says what to write, inside a request and outside."""
    with pytest.raises(TypeError, match=hint):
        run_in_loop(given)
    with pytest.raises(TypeError, match=hint):
        in_request(WSGIMiddleware, lambda: run_in_loop(given))


def test_async_to_sync_of_what_is_no_function_is_refused_with_a_hint() -> None:
    """A coroutine is closed, so Python does not warn that nobody awaited it."""
    given: Any = runs()
    with pytest.raises(
        TypeError, match=r"requires an async function, not .*\. Pass the function itself, or use run_in_loop"
    ):
        async_to_sync(given)
    assert given.cr_frame is None
    number: Any = 5
    with pytest.raises(TypeError, match=r"^async_to_sync\(\) requires an async function, not .*\.$"):
        async_to_sync(number)


def test_async_to_sync_of_a_sync_function_fails_at_its_call(bridged: Bridged) -> None:
    """Only then is it known."""
    given: Any = lambda: 5  # noqa: E731
    sync: Any = async_to_sync(given)
    with pytest.raises(TypeError, match="cannot be awaited"):
        in_request(bridged, sync)
    with pytest.raises(TypeError, match="cannot be awaited"):
        sync()


@pytest.mark.parametrize("timeout", ["1", True, b"1", [1]])
def test_timeout_of_another_type_is_refused(timeout: Any) -> None:
    """It is a number or None; the coroutine is closed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError, match="a number of seconds or None"):
            run_in_loop(loop_here(), timeout=timeout)
        gc.collect()


# -- Outside a request ------------------------------------------------------------------------------------------------


def test_run_in_loop_outside_a_request_is_refused() -> None:
    """There is no server's loop; the coroutine is closed, so that Python warns of nothing."""
    coroutine = loop_here()
    with pytest.raises(MissingCapability, match="outside a request"):
        run_in_loop(coroutine)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    with pytest.raises(MissingCapability):
        run_in_loop(Awaitable())


def test_async_to_sync_outside_a_request_runs_on_a_new_loop() -> None:
    """Each call is one of ``asyncio.run``: its loop is closed when it returns."""
    first, second = async_to_sync(loop_here)(), async_to_sync(loop_here)()
    assert first is not second
    assert first.is_closed()


@pytest.mark.parametrize("function", [lambda: run_in_loop(loop_here()), async_to_sync(loop_here)])
def test_on_a_loops_thread_it_is_an_error(bridged: Bridged, function: Callable[[], Any]) -> None:
    """The server's loop would wait for itself; another one would stand still. Neither in a request nor outside."""

    async def on_loop() -> None:
        with pytest.raises(RuntimeError, match="on a thread that runs an event loop") as raised:
            function()
        assert isinstance(raised.value, BridgeError)

    asyncio.run(on_loop())
    in_request(bridged, lambda: run_in_loop(on_loop()))
    in_request(bridged, lambda: asyncio.run(on_loop()))


@only_on("asyncio", reason="it runs trio itself")
def test_under_trio_it_is_an_error() -> None:
    """A thread that runs trio is told the same."""
    trio = pytest.importorskip("trio")

    async def main() -> None:
        with pytest.raises(RuntimeError, match="on a thread that runs an event loop"):
            async_to_sync(loop_here)()

    trio.run(main)


@pytest.mark.parametrize("where", ["put", "ring"])
@pytest.mark.parametrize(
    "function", [lambda: run_in_loop(loop_here()), async_to_sync(loop_here)], ids=["run_in_loop", "async_to_sync"]
)
def test_finalizer_within_our_own_code_gets_an_error(function: Callable[[], Any], where: str) -> None:
    """Python runs finalizers wherever it likes, so also while the thread has the lock of the stream or the doorbell.

    There the loop would wait for the thread, and the thread for the loop. Whatever the app calls itself is served.
    """
    errors: list[BaseException] = []

    def finalizer() -> None:
        if not errors:
            with pytest.raises(RuntimeError, match="was called by a finalizer") as raised:
                function()
            assert isinstance(raised.value, BridgeError)
            errors.append(raised.value)

    class Chunks(list[bytes]):
        def append(self, chunk: bytes) -> None:
            finalizer()
            super().append(chunk)

    class Rung(deque[Any]):
        def append(self, item: Any) -> None:
            super().append(item)
            finalizer()

    def app(_environ: Environ, start_response: Any) -> Iterator[bytes]:
        assert function() is not None
        start_response("200 OK", [])
        output = start_response.__self__._output
        if where == "put":
            output._chunks = Chunks()
        else:
            output._runtime.doorbell._rung = Rung()
        yield b"one"
        yield b"two"

    assert call(WSGIMiddleware(app)).body == b"onetwo"
    assert len(errors) == 1


@only_on("asyncio", reason="no other loop runs a task in the midst of our own code")
@pytest.mark.parametrize(
    "function", [lambda: run_in_loop(loop_here()), async_to_sync(loop_here)], ids=["run_in_loop", "async_to_sync"]
)
@pytest.mark.parametrize("run_by", ["a ring", "an eager task factory"])
def test_task_that_our_own_code_runs_is_no_finalizer(function: Callable[[], Any], run_by: str) -> None:
    """The doorbell resumes the request's task, and an eager one begins in it. The error is that of a loop's thread."""
    if run_by != "a ring" and sys.version_info < (3, 12):
        pytest.skip("no eager tasks")
    told: list[str] = []

    async def on_loop(*_: object) -> None:
        assert "_answer" in [frame.name for frame in traceback.extract_stack()]
        with pytest.raises(RuntimeError) as raised:
            function()
        told.append(str(raised.value))

    def app(_environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        if run_by == "a ring":
            output = start_response.__self__._output
            run_in_loop(until(lambda: output._waiter is not None))  # the request's task waits for a chunk
        else:
            run_in_loop(on_loop())
        yield b"done"

    async def main() -> None:
        if run_by == "a ring":
            client = Client(on_send=lambda number, _: on_loop() if number == 1 else rest())
        else:
            client = Client()
            factory: Any = vars(asyncio)["eager_task_factory"]
            asyncio.get_running_loop().set_task_factory(factory)
        assert (await answer(WSGIMiddleware(app), client)).body == b"done"

    run(main())
    assert len(told) == 1
    assert "on a thread that runs an event loop" in told[0]


def test_wait_for_what_the_loop_brings_is_an_error_on_its_thread() -> None:
    """An async view that reads a body which is yet to come would stop the server. No later read skips a part of it."""
    refused: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"1")
        read, wait = environ["wsgi.input"].read, environ["a2wsgi.disconnected"].wait

        def write_on() -> None:
            for _ in range(3):  # the first may have been taken, and the second has room then
                write(b"2")

        waits: list[Callable[[], object]] = [wait, lambda: wait(BOUND_SECONDS), write_on, read, read]

        async def view() -> None:
            for each in waits:
                with pytest.raises(RuntimeError, match="thread that runs the server's event loop") as raised:
                    each()
                refused.append(type(raised.value).__name__)
            assert wait(0) is False
            client.send_body(b"the rest", more=False)

        run_in_loop(view())
        with pytest.raises(RuntimeError, match="thread that runs the server's event loop"):
            read()
        return []

    async def on_send(number: int, message: object) -> None:
        await until(lambda: len(refused) == 5)

    client = Client(b"the body", complete=False, on_send=on_send)
    bridge = WSGIMiddleware(app, request_buffer_bytes=1, response_buffer_bytes=1)
    assert call(bridge, client, http_scope("POST")).body.strip(b"2") == b"1"


def test_async_view_may_have_a_thread_read_the_body() -> None:
    """The thread may wait."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        async def view() -> bytes:
            soon(lambda: client.send_body(b" and the rest", more=False))
            body: bytes = await in_worker(environ["wsgi.input"].read)
            return body

        body = run_in_loop(view())
        start_response("200 OK", [])
        return [body]

    client = Client(b"the body", complete=False)
    bridge = WSGIMiddleware(app, request_buffer_bytes=1)
    assert call(bridge, client, http_scope("POST")).body == b"the body and the rest"


# -- Context ----------------------------------------------------------------------------------------------------------


def test_coroutine_runs_in_a_copy_of_the_callers_context(bridged: Bridged) -> None:
    """It sees what the caller has set, and what it sets is not set for the caller."""

    async def work() -> str:
        await rest()
        seen = variable.get()
        variable.set("the coroutine's")
        return seen

    def view() -> tuple[str, str]:
        variable.set("the view's")
        return run_in_loop(work()), variable.get()

    assert in_request(bridged, view) == ("the view's", "the view's")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("where", ["in a request", "outside"])
def test_async_to_sync_sets_what_the_function_sets(where: str, fails: bool) -> None:
    """As with a sync function and as asgiref does it, also if it raises."""

    @async_to_sync
    async def bind(value: str) -> None:
        await rest()
        assert variable.get() == "the view's"
        variable.set(value)
        if fails:
            raise ValueError

    def view() -> str:
        variable.set("the view's")
        with contextlib.suppress(ValueError):
            bind("the function's")
        return variable.get()

    seen = in_request(WSGIMiddleware, view) if where == "in a request" else contextvars.copy_context().run(view)
    assert seen == "the function's"


def test_call_of_a_call_works(bridged: Bridged) -> None:
    """A coroutine on the loop may have a thread do sync work, which may run a coroutine on the loop."""

    def sync() -> object:
        return run_in_loop(loop_here())

    async def outer() -> tuple[object, object]:
        return await loop_here(), await in_worker(sync)

    outer_loop, inner_loop = in_request(bridged, lambda: run_in_loop(outer()))
    assert outer_loop is inner_loop


def test_thread_with_the_context_works_and_one_without_does_not(bridged: Bridged) -> None:
    """A thread works for the request whose context it carries."""

    def view() -> tuple[object, object]:
        context = contextvars.copy_context()
        with_it = in_thread(context.run, lambda: run_in_loop(loop_here()))
        without = in_thread(contextvars.Context().run, lambda: run_in_loop(loop_here()))
        with pytest.raises(MissingCapability):
            without.result()
        return with_it.result(), run_in_loop(loop_here())

    first, second = in_request(bridged, view)
    assert first is second


def test_each_phase_of_the_app_may_call(bridged: Bridged) -> None:
    """The call of the app, its iterable and its ``close()``, even when the response is complete."""
    loops: list[asyncio.AbstractEventLoop] = []
    closed = Signal("close() of the iterable")

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            loops.append(run_in_loop(loop_here()))
            yield b"done"

        def close(self) -> None:
            loops.append(run_in_loop(loop_here()))
            closed.set()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        loops.append(run_in_loop(loop_here()))
        start_response("200 OK", [])
        return Body()

    assert call(bridged(app)).body == b"done"
    closed.wait()
    assert len(loops) == 3
    assert len(set(loops)) == 1


# -- Endings ----------------------------------------------------------------------------------------------------------


#: A timeout of a coroutine that does not end before it. See `count_time_from`.
SHORT_SECONDS = 0.01


def count_time_from(begun: Signal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a timeout count from when the coroutine has begun: a busy machine may be late with that."""
    wait_at_gate = Call._wait_at_gate

    def wait(call: Call[Any], timeout: float | None) -> None:
        begun.wait()
        wait_at_gate(call, timeout)

    monkeypatch.setattr(Call, "_wait_at_gate", wait)


class Endless:
    """A coroutine that waits for ever, and tells what happens to it.

    Args:
        stubborn: How many cancellations it ignores.
    """

    def __init__(self, stubborn: int = 0) -> None:
        self.stubborn = stubborn
        self.begun = Signal("the coroutine begins")
        self.cancelled = Signal("the coroutine is cancelled")
        self.let = Signal("the coroutine may end")

    async def wait(self) -> str:
        self.begun.set()
        while True:
            try:
                await pause(1000)
            except CANCELLATIONS:
                self.cancelled.set()
                if not self.stubborn:
                    raise
                self.stubborn -= 1
                with contextlib.suppress(*CANCELLATIONS), verbs().shielded():
                    await self.let.wait_in_task()
                return "ended all the same"


@pytest.mark.usefixtures("quick_timer")
def test_client_that_leaves_ends_the_coroutine(bridged: Bridged) -> None:
    """It is cancelled, and the caller gets the `ClientDisconnected` of the abort, caused by the cancellation."""
    endless = Endless()
    view = View(lambda: run_in_loop(endless.wait()))

    async def main() -> None:
        client = Client()
        task = start(answer(bridged(view), client))
        await endless.begun.wait_in_task()
        client.leave()
        await task
        await view.over.wait_in_task()  # of three bridges, the outermost does not wait for the app

    run(main())
    assert endless.cancelled.is_set()
    assert isinstance(view.error, ClientDisconnected)
    assert isinstance(view.error.__cause__, CANCELLATIONS)


def test_cancelled_request_ends_the_coroutine(bridged: Bridged) -> None:
    """As does a server that cancels the request, which does not wait for the app."""
    endless = Endless()
    view = View(lambda: run_in_loop(endless.wait()))

    async def main() -> None:
        task = start(answer(bridged(view)))
        await endless.begun.wait_in_task()
        task.cancel()
        with contextlib.suppress(JobCancelled):
            await task
        await view.over.wait_in_task()

    run(main())
    assert endless.cancelled.is_set()
    assert isinstance(view.error, ClientDisconnected)


@pytest.mark.usefixtures("quick_timer")
@pytest.mark.parametrize("told_by", ["the coroutine", "a write", "a look"])
def test_abort_is_raised_once_and_clean_up_runs(told_by: str) -> None:
    """An app that knows that its client has left may still run coroutines: its clean-up."""
    endless, through = Endless(), Signal("the app is through")
    seen: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        try:
            if told_by == "the coroutine":
                run_in_loop(endless.wait())
            else:
                endless.begun.set()
                environ["a2wsgi.disconnected"].wait()
                if told_by == "a write":
                    write(b"to nobody")
                else:
                    run_in_loop(loop_here())
        except ClientDisconnected as error:
            seen.append(type(error))
        finally:
            seen.append(run_in_loop(runs()))
            seen.append(async_to_sync(runs)())
            through.set()
        return []

    async def main() -> None:
        client = Client()
        task = start(answer(WSGIMiddleware(app), client))
        await endless.begun.wait_in_task()
        client.leave()
        await task
        await through.wait_in_task()  # the request does not wait for the app, whose coroutines need the loop

    run(main())
    assert seen == [ClientDisconnected, True, True]


@pytest.mark.parametrize("made_sync", [True, False])
def test_abort_that_comes_as_a_coroutine_ends_is_raised_by_the_next(
    monkeypatch: pytest.MonkeyPatch, made_sync: bool
) -> None:
    """1. The coroutine ends. 2. The client leaves, and the call is told to end. 3. The thread has the result."""
    waits, seen = Call.wait, list[object]()

    def wait(call: Call[Any], timeout: float | None) -> Any:
        result = waits(call, timeout)
        if not seen:
            client.leave()
            assert disconnected[0].wait(BOUND_SECONDS)
        return result

    def app(environ: Environ, _start_response: StartResponse) -> Iterable[bytes]:
        disconnected.append(environ["a2wsgi.disconnected"])
        try:
            while len(seen) < 3:
                seen.append(async_to_sync(runs)() if made_sync else run_in_loop(runs()))
        finally:
            through.set()
        raise AssertionError("the app did not hear of the abort")

    async def main() -> None:
        await answer(WSGIMiddleware(app), client)
        await through.wait_in_task()

    disconnected, through = list[Any](), Signal("the app is through")
    client = Client()
    monkeypatch.setattr(Call, "wait", wait)
    run(main())
    assert seen == [True]


@pytest.mark.usefixtures("quick_timer")
def test_read_of_half_a_body_tells_of_the_abort() -> None:
    """What an app learns by a read, the next coroutine need not tell it again."""
    reads, through = Signal("the app reads"), Signal("the app is through")
    seen: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        reads.set()
        try:
            environ["wsgi.input"].read()
        except ClientDisconnected:
            seen.append(run_in_loop(runs()))
        through.set()
        start_response("200 OK", [])
        return []

    async def main() -> None:
        client = Client(b"x" * 70_000, complete=False)
        task = start(answer(WSGIMiddleware(app), client, http_scope("POST")))
        await client.hungry.wait_in_task()
        await reads.wait_in_task()  # an app whose client leaves before is not called at all
        client.leave()
        await task
        await through.wait_in_task()

    run(main())
    assert seen == [True]


def test_clean_up_of_a_cancelled_request_runs_until_its_worker_is_done() -> None:
    """The server has its answer by then; the app still has the loop."""
    endless = Endless()
    seen: list[object] = []
    over = Signal("the app ends")

    def function() -> None:
        try:
            run_in_loop(endless.wait())
        finally:
            left.wait()
            seen.append(run_in_loop(runs()))
            context.append(contextvars.copy_context())
            over.set()

    context: list[contextvars.Context] = []
    left = Signal("the server has left")

    async def main() -> None:
        bridge = WSGIMiddleware(View(function))
        task = start(answer(bridge))
        await endless.begun.wait_in_task()
        task.cancel()
        with contextlib.suppress(JobCancelled):
            await task
        left.set()
        await over.wait_in_task()
        while bridge.statistics().busy:
            await pause(0.001)

    run(main())
    assert seen == [True]
    with pytest.raises(MissingCapability, match="over"):
        context[0].run(lambda: run_in_loop(loop_here()))


def test_coroutine_of_a_thread_ends_with_the_request(bridged: Bridged) -> None:
    """A thread that the app leaves behind: its coroutine is cancelled, and later ones are refused."""
    endless = Endless()
    threads: list[Any] = []

    def work() -> list[object]:
        with pytest.raises(ClientDisconnected, match="its response is complete"):
            run_in_loop(endless.wait())
        with pytest.raises(MissingCapability, match="after its request was over"):
            run_in_loop(loop_here())
        return [async_to_sync(loop_here)().is_closed()]

    def view() -> None:
        threads.append(in_thread(contextvars.copy_context().run, work))
        endless.begun.wait()

    in_request(bridged, view)
    assert threads[0].result() == [True]
    assert endless.cancelled.is_set()


@pytest.mark.parametrize("seconds", [0, 0.001, -1])
def test_timeout_cancels_the_coroutine(bridged: Bridged, seconds: float) -> None:
    """The caller gets a TimeoutError when the coroutine has ended; the request goes on."""
    endless = Endless()

    def view() -> object:
        with pytest.raises(TimeoutError, match="timeout="):
            run_in_loop(endless.wait(), timeout=seconds)
        assert not endless.begun.is_set() or endless.cancelled.is_set()
        return run_in_loop(runs())

    assert in_request(bridged, view) is True


def test_coroutine_that_ends_in_time_is_not_cancelled(bridged: Bridged) -> None:
    """A timeout costs nothing that is not used up, however long it is."""
    for seconds in (BOUND_SECONDS, 1e12, float("inf")):
        assert in_request(bridged, lambda: run_in_loop(runs(), timeout=seconds))  # noqa: B023


def test_coroutine_may_clean_up_and_even_return(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it makes of its cancellation counts, as with ``asyncio.wait_for``."""
    endless, begun = Endless(stubborn=1), Signal("the coroutine that fails begins")
    endless.let.set()

    async def fail() -> None:
        try:
            begun.set()
            await pause(1000)
        finally:
            raise ValueError("in the clean-up")

    with monkeypatch.context() as patch:
        count_time_from(endless.begun, patch)
        result = in_request(WSGIMiddleware, lambda: run_in_loop(endless.wait(), timeout=SHORT_SECONDS))
    assert result == "ended all the same"
    count_time_from(begun, monkeypatch)
    with pytest.raises(ValueError, match="in the clean-up"):
        in_request(WSGIMiddleware, lambda: run_in_loop(fail(), timeout=SHORT_SECONDS))


def test_coroutine_that_ignores_its_cancellation_holds_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After the time for its clean-up the caller goes on, and the log tells of the coroutine."""
    monkeypatch.setattr(_call, "GRACE_SECONDS", 0.01)
    monkeypatch.setattr(_call, "LOOK_SECONDS", 0.005)
    endless = Endless(stubborn=1)
    count_time_from(endless.begun, monkeypatch)

    async def main() -> None:
        view = View(lambda: run_in_loop(endless.wait(), timeout=SHORT_SECONDS))
        await answer(WSGIMiddleware(view), fails=TimeoutError)
        endless.let.set()
        await rest()

    run(main())
    (record,) = (record for record in caplog.records if record.name == "a2wsgi")  # asyncio's may say that it is slow
    assert record.levelname == "WARNING"
    assert "is still running on the server's loop" in record.getMessage()


@pytest.mark.usefixtures("quick_timer")
def test_coroutine_that_ignores_the_end_of_its_request_holds_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It has as long for its clean-up after a client that leaves: no timeout of the caller's is needed."""
    monkeypatch.setattr(_call, "GRACE_SECONDS", 0.01)
    monkeypatch.setattr(_call, "LOOK_SECONDS", 0.005)
    endless = Endless(stubborn=1)
    view = View(lambda: run_in_loop(endless.wait()))

    async def main() -> None:
        client = Client()
        task = start(answer(WSGIMiddleware(view), client))
        await endless.begun.wait_in_task()
        client.leave()
        await view.over.wait_in_task()  # though the coroutine is not let go
        endless.let.set()
        await task
        await rest()

    run(main())
    assert isinstance(view.error, ClientDisconnected)
    assert "is still running on the server's loop" in caplog.text


@only_on("asyncio", reason="trio cancels again at each wait")
def test_clean_up_that_takes_long_is_not_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback goes on when nobody waits for it any more."""
    monkeypatch.setattr(_call, "GRACE_SECONDS", 0.01)
    monkeypatch.setattr(_call, "LOOK_SECONDS", 0.005)
    begun = Signal("the coroutine begins")
    count_time_from(begun, monkeypatch)
    told: list[str] = []

    async def main() -> None:
        go, over = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            try:
                begun.set()
                await asyncio.Event().wait()
            finally:
                try:
                    await go.wait()
                    told.append("cleaned up")
                except asyncio.CancelledError:
                    told.append("cancelled again")
                over.set()

        view = View(lambda: run_in_loop(work(), timeout=SHORT_SECONDS))
        await answer(WSGIMiddleware(view), fails=TimeoutError)
        await rest()
        go.set()
        await over.wait()

    run(main())
    assert told == ["cleaned up"]


def test_shutdown_ends_the_coroutine() -> None:
    """The server's shutdown waits for requests, and then aborts them with what they run."""
    endless = Endless()
    view = View(lambda: run_in_loop(endless.wait()))

    async def main() -> None:
        bridge = WSGIMiddleware(view, shutdown_timeout=0)
        task = start(answer(bridge))
        await endless.begun.wait_in_task()
        lifespan = Client(messages=[{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        await bridge({"type": "lifespan", "asgi": {"version": "3.0"}}, lifespan.receive, lifespan.send)
        assert (await task).messages == []  # the app has seen the request, so the client is not told to try again

    run(main())
    assert isinstance(view.error, ClientDisconnected)
    assert endless.cancelled.is_set()


@only_on("asyncio", reason="a run of trio ends with its tasks, and test_trio has one that crashes")
def test_loop_that_is_closed_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that is thrown away with all that is on it: the caller learns of it at its next look."""
    monkeypatch.setattr(_call, "LOOK_SECONDS", 0.01)
    begun = Signal("the coroutine begins")

    async def work() -> None:
        begun.set()
        await for_ever()

    view = View(lambda: run_in_loop(work()))
    loop = asyncio.new_event_loop()
    client = Client()
    bridge = WSGIMiddleware(view)
    task = loop.create_task(bridge(http_scope(), client.receive, client.send))
    loop.run_until_complete(begun.wait_in_task())
    tasks = asyncio.all_tasks(loop)
    loop.close()
    view.over.wait()
    assert isinstance(view.error, ClientDisconnected)
    assert "loop was closed" in str(view.error)
    while tasks:  # asyncio would complain of tasks that were thrown away
        tasks.pop()._log_destroy_pending = False  # type: ignore[attr-defined]
    del task


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task does not know whether it was cancelled")
@only_on("asyncio", reason="it ends the loop itself, and test_trio has what a run's end does")
def test_loop_that_ends_is_a_client_that_left() -> None:
    """`asyncio.run` cancels all tasks at its end, the coroutine's among them. The app gets one error for all."""
    endless, tasks = Endless(), list[Any]()
    view = View(lambda: run_in_loop(endless.wait()))

    async def main() -> None:
        client = Client()
        tasks.append(start(WSGIMiddleware(view)(http_scope(), client.receive, client.send)))
        await endless.begun.wait_in_task()

    asyncio.run(main())
    view.over.wait()
    assert isinstance(view.error, ClientDisconnected)


@only_on("asyncio", "uvloop", reason="nothing that is awaited raises trio.Cancelled")
def test_cancellation_of_what_it_awaits_is_the_coroutines_own(bridged: Bridged) -> None:
    """The coroutine is not cancelled itself, so the app gets what it raised."""

    async def work() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    with pytest.raises(asyncio.CancelledError):
        in_request(bridged, lambda: run_in_loop(work()))


class Late(BaseException):
    """What another thread raises into the waiting one."""


def test_exception_from_another_thread_ends_the_coroutine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is torn away; nobody waits for the coroutine any more, so it is cancelled."""
    ctypes = pytest.importorskip("ctypes")
    monkeypatch.setattr(_call, "LOOK_SECONDS", 0.01)
    endless = Endless()
    threads: list[int] = []

    def function() -> None:
        threads.append(threading.get_ident())
        run_in_loop(endless.wait())

    view = View(function)

    async def main() -> None:
        task = start(answer(WSGIMiddleware(view), fails=BridgeError))
        await endless.begun.wait_in_task()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threads[0]), ctypes.py_object(Late))
        await endless.cancelled.wait_in_task()
        await task

    run(main())
    assert isinstance(view.error, Late)


# -- Many -------------------------------------------------------------------------------------------------------------


class Shared:
    """Something that belongs to one loop, as a client or a pool does."""

    def __init__(self) -> None:
        self.loops: set[object] = set()
        self.turn: Any = None

    async def ask(self, number: int) -> int:
        self.loops.add(verbs().loop)
        self.turn = self.turn or semaphore(3)
        async with self.turn:
            await rest()
        return number


def test_a_thousand_calls_of_forty_workers_share_one_loop(bridged: Bridged) -> None:
    """Neither a thread nor a task is left of them."""
    shared = Shared()
    calls, at_once = 25, 40
    all_here = threading.Barrier(at_once)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        all_here.wait(BOUND_SECONDS)
        start_response("200 OK", [])
        return [b"%d" % sum(run_in_loop(shared.ask(number)) for number in range(calls))]

    async def main() -> None:
        bridge = bridged(app)
        answers = await gather(*(answer(bridge) for _ in range(at_once)))
        assert {one.body for one in answers} == {b"%d" % sum(range(calls))}

    run(main())
    assert len(shared.loops) == 1


# -- Pairs: under a WSGI server ---------------------------------------------------------------------------------------


@pytest.fixture(params=["thread", "inline", "given"])
def pair(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], Any]]:
    """Makes a WSGI app of a WSGI app, by two bridges."""
    made: list[ASGIMiddleware] = []
    loops: list[asyncio.AbstractEventLoop] = []
    options: dict[str, Any] = {}
    running = None
    if request.param == "inline":
        options["inline"] = True
    elif request.param == "given":
        loops.append(asyncio.new_event_loop())
        running = in_thread(loops[0].run_forever)
        options.update(loop=loops[0], lifespan=False)

    def make(app: Any, **others: Any) -> Any:
        made.append(ASGIMiddleware(WSGIMiddleware(app), **options, **others))
        return made[-1]

    yield make
    while made:
        made.pop().close()
    if loops and running is not None:
        loops[0].call_soon_threadsafe(loops[0].stop)
        running.result()
        loops[0].close()


def test_pair_runs_it_on_the_loop_of_the_bridge(pair: Callable[[Any], Any]) -> None:
    """The loop is that of the `ASGIMiddleware`, whoever runs it, from one request to the next."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        loops.append(run_in_loop(loop_here()))
        start_response("200 OK", [])
        yield b"do"
        loops.append(run_in_loop(loop_here()))
        yield b"ne"
        loops.append(run_in_loop(loop_here()))

    loops: list[object] = []
    bridge = pair(app)
    for _ in range(2):
        assert call_wsgi(bridge).body == b"done"
    assert len(loops) == 6
    assert len(set(loops)) == 1


def test_pair_runs_it_in_close_too(pair: Callable[[Any], Any]) -> None:
    """When the response is complete, the server's thread still waits for the app: also one that runs the loop."""
    loops: list[object] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"done"

        def close(self) -> None:
            loops.append(run_in_loop(loop_here()))

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "4")])
        return Body()

    assert call_wsgi(pair(app)).body == b"done"
    assert len(loops) == 1


def test_pair_cancels_it_when_the_server_closes_early(
    pair: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coroutine of an app whose client has left ends, also where nobody runs the loop after that."""
    from support.wsgi_driver import Exchange

    monkeypatch.setattr(_loops, "TICK_SECONDS", 0.005)
    endless = Endless()
    seen: list[object] = []
    over = Signal("the app ends")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"first"
        try:
            run_in_loop(endless.wait())
        except ClientDisconnected as error:
            seen.append(type(error))
            raise
        finally:
            over.set()

    exchange = Exchange(pair(app)).begin()
    assert exchange.next() == b"first"
    closing = in_thread(exchange.close)
    closing.result(2 * BOUND_SECONDS)
    over.wait()
    assert seen == [ClientDisconnected]
