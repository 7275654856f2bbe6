"""Async code on the server's loop, for the sync code of a WSGI app: `run_in_loop` and `async_to_sync`.

Strategy
    `current` says for which request the calling thread works, and so which loop is the server's. A `Call` runs the
    coroutine there. It enters the request first, so that whatever ends the request ends the coroutine.

Guarantees
    - A coroutine that is refused is closed: Python does not warn that it was never awaited.
    - Nobody waits in a thread that runs an event loop, which would stand still meanwhile: that is an error. So is a
      call by a finalizer in the middle of our own code (`a2wsgi._threads.finalizers`).
    - An abort is raised once, as a cancellation is in asyncio: by the call that it ends, or by the next one if the app
      has not heard of it. What the app calls after that is its clean-up, and runs.
    - No coroutine outlives its request: what other threads still wait for when it is over is cancelled.
"""

# Apps hold `Disconnected`: whatever is not for them has an underscore.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from a2wsgi._errors import MissingCapability
from a2wsgi._options import SECONDS
from a2wsgi._threads.call import Call, close_unawaited
from a2wsgi._threads.finalizers import refuse_within_finalizer
from a2wsgi._threads.runtime import LoopThreadError, carry_reporter_marks, runs_a_loop

from .disconnected import current

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

__all__ = ["async_to_sync", "run_in_loop"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_MISSING = object()

#: By these attributes a function says that it is async: `inspect`'s, since Python 3.12, and asyncio's before.
_ASYNC_MARKS = ("_is_coroutine_mark", "_is_coroutine")


def run_in_loop(coroutine: Awaitable[_T], *, timeout: float | None = None) -> _T:
    """Run a coroutine on the server's event loop, and wait for what it returns.

    For the sync code of a WSGI app under a `WSGIMiddleware`. So one ``httpx.AsyncClient``, or one pool of database
    connections, serves the whole process. The coroutine runs in a task of its own, in a copy of the caller's context;
    context variables that it sets are not set for the caller.

    Args:
        coroutine: The coroutine, or anything else that can be awaited on that loop.
        timeout: Seconds that it may take before it is cancelled. None sets no bound.

    Returns:
        What the coroutine returned.

    Raises:
        BaseException: What the coroutine raised: the very same object, with its whole traceback.
        ClientDisconnected: The client has left or the request was aborted, and the coroutine was cancelled. It is
            raised once a request: later calls are taken for clean-up, and run.
        TimeoutError: The timeout has passed, and the coroutine was cancelled.
        MissingCapability: The calling thread works for no request, or for one that is over or another process's.
        RuntimeError: The calling thread runs an event loop, which would stand still. Await the coroutine instead. Or
            a ``__del__`` method was called in the middle of the bridge's own code, and the loop would stand still, too.
        TypeError: It cannot be awaited.

    Threading: the thread that the app runs on, and any other that runs in a copy of its context, as
    ``contextvars.copy_context().run`` and ``asyncio.to_thread`` have it.

    Cancellation: a coroutine that is cancelled has 10 s to clean up. If it takes longer it goes on, and nobody waits.
    """
    try:
        if not inspect.isawaitable(coroutine):
            raise TypeError(_not_awaitable(coroutine))  # noqa: TRY301 - one end for all refusals
        if timeout is not None and not SECONDS.is_of_type(timeout):
            raise TypeError(f"run_in_loop(timeout=...) is a number of seconds or None, not {_a(timeout)}.")  # noqa: TRY301
        _refuse_loop_thread("run_in_loop()", "the coroutine")
        entered = _enter(coroutine)
        if entered is None:
            raise _no_request()  # noqa: TRY301
    except BaseException:
        close_unawaited(coroutine)
        raise
    call, leave = entered
    try:
        result = call.wait(timeout)
    except BaseException as error:
        carry_reporter_marks(error, call.context)
        leave(error)
        raise
    leave(None)
    return result


def async_to_sync(function: Callable[_P, Awaitable[_T]]) -> Callable[_P, _T]:
    """Make a sync function of an async one. In a request it runs on the server's event loop, elsewhere on a new one.

    It takes the place of asgiref's function of that name, in Flask's documented hook for example::

        class App(Flask):
            def async_to_sync(self, func):
                return a2wsgi.async_to_sync(func)

    In a request, each call is one of `run_in_loop`; outside of any, and in a process that the app has forked, it is one
    of ``asyncio.run``. Context variables that the function sets are set for the caller, as by a sync function.

    Args:
        function: The async function. What it is called with is passed on.

    Returns:
        The sync function.

    Raises:
        TypeError: It cannot be called, or returns nothing that can be awaited.
    """
    _require_callable(function)

    @functools.wraps(function)
    def sync(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        _refuse_loop_thread("An async function made sync by async_to_sync()", "the function itself")
        coroutine = _called(function, args, kwargs)
        try:
            entered = _enter(coroutine)
        except BaseException:
            coroutine.close()
            raise
        if entered is None:
            return _run_alone(coroutine)
        call, leave = entered
        try:
            result = call.wait(None)
        except BaseException as error:
            leave(error)
            _take_over(call.context)
            raise
        leave(None)
        _take_over(call.context)
        return result

    for mark in _ASYNC_MARKS:  # wraps() copies them, and Django asks for them
        vars(sync).pop(mark, None)
    return sync


# -- In a request, or not ---------------------------------------------------------------------------------------------


def _enter(awaitable: Awaitable[_T]) -> tuple[Call[_T], Callable[[BaseException | None], None]] | None:
    """A call that ends with the request of this thread, and what to call when it is through; None if there is none.

    Raises:
        BaseException: The error of an abort that the app has not heard of yet.
    """
    request = current.get(None)
    if request is None:
        return None
    runtime = request._runtime
    if runtime is None:
        request._check()
        return None
    if runtime.is_inherited():  # the app has forked: nobody runs the loop here, and the request is the parent's
        return None
    call = Call(runtime, awaitable)
    leave = request._enter(call.end)
    return None if leave is None else (call, leave)


def _run_alone(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine by ``asyncio.run``."""
    contexts: list[contextvars.Context] = []

    async def run() -> _T:
        try:
            return await coroutine
        finally:
            contexts.append(contextvars.copy_context())

    try:
        return asyncio.run(run())
    finally:
        for context in contexts:
            _take_over(context)


def _take_over(context: contextvars.Context) -> None:
    """Set here what was set in ``context``, a copy of the caller's."""
    for variable, value in context.items():
        if variable.get(_MISSING) is not value:
            variable.set(value)


async def _called(function: Callable[..., Awaitable[_T]], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _T:
    """Call ``function`` on the loop: it may make a future, and the coroutine of one that is refused is never made."""
    awaitable = function(*args, **kwargs)
    if not inspect.isawaitable(awaitable):
        raise TypeError(
            f"The function given to async_to_sync() returned {_a(awaitable)}, which cannot be awaited. Give it an "
            "async function, and call a sync one directly."
        )
    return await awaitable


# -- Refusals ---------------------------------------------------------------------------------------------------------


def _refuse_loop_thread(what: str, instead: str) -> None:
    """Raise if the calling thread runs an event loop, or would hold one up."""
    if runs_a_loop():
        raise LoopThreadError(
            f"{what} was called on a thread that runs an event loop. It would wait there, and hold up all that runs on "
            f"that loop, perhaps the very coroutine that it waits for. Await {instead}, or call it by "
            "asyncio.to_thread()."
        )
    refuse_within_finalizer(what)  # after that: a loop runs its tasks within frames of ours


def _no_request() -> MissingCapability:
    if current.get(None) is None:
        return MissingCapability(
            "run_in_loop() was called outside a request, where there is no server's loop to run on. It works in a WSGI "
            "app under a WSGIMiddleware: on the thread of the request, and on threads that run in a copy of its "
            "context (contextvars.copy_context().run). Elsewhere use asyncio.run()."
        )
    return MissingCapability(
        "run_in_loop() was called for a request that is over, and its coroutines end with it; or in a process that was "
        "forked during the request, which has a copy of the server's loop that nobody runs. For work that is to go on, "
        "have a coroutine start a task while the request runs: asyncio.create_task(), and keep the task. In a forked "
        "process, use asyncio.run()."
    )


def _require_callable(given: object) -> None:
    if not callable(given):
        close_unawaited(given)
        hint = " Pass the function itself, or use run_in_loop()." if inspect.isawaitable(given) else ""
        raise TypeError(f"async_to_sync() takes an async function, not {_a(given)}.{hint}")


def _not_awaitable(given: object) -> str:
    what = _a(given)
    hint = "Make a coroutine by calling an async function."
    if inspect.isasyncgen(given) or inspect.isasyncgenfunction(given):
        hint = "Go through the async generator in a coroutine: async for item in ..."
    elif callable(given):
        name = getattr(given, "__name__", "function")
        hint = f"Call it: run_in_loop({name}(...)). Or make it sync: async_to_sync({name})."
    elif isinstance(given, (list, tuple, set, frozenset)):
        hint = "Await several in one coroutine, by asyncio.gather() for example."
    return f"run_in_loop() takes a coroutine, not {what}. {hint}"


def _a(given: object) -> str:
    """What something is, without its repr(), which may raise or be long."""
    kind = type(given)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"an object of type {name}"
