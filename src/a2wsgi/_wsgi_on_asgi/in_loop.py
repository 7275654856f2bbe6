"""Async code on the server's loop, for the sync code of a WSGI app: `run_in_loop` and `async_to_sync`.

Strategy
    `current_request` says for which request the calling thread works, and so which loop is the server's. A `Call` runs
    the coroutine there. It enters the request first, so that whatever ends the request ends the coroutine.

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
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from a2wsgi._errors import MissingCapability
from a2wsgi._options import SECONDS
from a2wsgi._threads.call import Call, close_unawaited
from a2wsgi._threads.finalizers import refuse_within_finalizer
from a2wsgi._threads.runtime import LoopThreadError, carry_reporter_marks, runs_a_loop

from .disconnected import current_request

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

_P = ParamSpec("_P")
_T = TypeVar("_T")

_MISSING = object()

#: By these attributes a function says that it is async: `inspect`'s, since Python 3.12, and asyncio's before.
_ASYNC_MARKS = ("_is_coroutine_mark", "_is_coroutine")


def run_in_loop(coroutine: Awaitable[_T], *, timeout: float | None = None) -> _T:
    """Run a coroutine on the server's event loop, wait for it, and return its result.

    Call it from the sync code of a WSGI app under a `WSGIMiddleware`. All calls use the same loop, so one
    ``httpx.AsyncClient`` or one pool of database connections serves the whole process. The coroutine runs in its own
    task, in a copy of the caller's context; context variables that it sets are not set for the caller.

    Args:
        coroutine: The coroutine, or any other awaitable for that loop.
        timeout: Seconds after which the coroutine is cancelled. None means no limit.

    Returns:
        What the coroutine returned.

    Raises:
        BaseException: What the coroutine raised: the very same object, with its whole traceback.
        ClientDisconnected: The client left or the request was aborted, and the coroutine was cancelled. Raised once per
            request: later calls count as clean-up, and run.
        TimeoutError: The timeout passed, and the coroutine was cancelled.
        MissingCapability: The calling thread does not handle a request, or the request is over or belongs to another
            process.
        RuntimeError: The calling thread runs an event loop, which must not wait. Await the coroutine instead. Or the
            caller is a ``__del__`` method that runs in the middle of the bridge's own code.
        TypeError: ``coroutine`` cannot be awaited.

    Threading: the thread that runs the app, and any other thread that runs in a copy of its context, as with
    ``contextvars.copy_context().run`` and ``asyncio.to_thread``.

    Cancellation: a cancelled coroutine has 10 s to clean up. If it takes longer, it keeps running, but the caller stops
    waiting.
    """
    try:
        if not inspect.isawaitable(coroutine):
            raise TypeError(_not_awaitable(coroutine))  # noqa: TRY301 - one end for all refusals
        if timeout is not None and not SECONDS.is_of_type(timeout):
            raise TypeError(f"run_in_loop(timeout=...) must be a number of seconds or None, not {_a(timeout)}.")  # noqa: TRY301
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
    """Turn an async function into a sync one. In a request it runs on the server's event loop, elsewhere on a new one.

    It replaces asgiref's function of the same name, for example in Flask's documented hook::

        class App(Flask):
            def async_to_sync(self, func):
                return a2wsgi.async_to_sync(func)

    In a request, each call uses `run_in_loop`. Outside a request, and in a process that the app has forked, it uses
    ``asyncio.run``. Context variables that the function sets are set for the caller, as with a sync function.

    Args:
        function: The async function. Arguments are passed on to it.

    Returns:
        The sync function.

    Raises:
        TypeError: ``function`` cannot be called, or what it returns cannot be awaited.
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
    request = current_request.get(None)
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
            f"The function passed to async_to_sync() returned {_a(awaitable)}, which cannot be awaited. Pass an async "
            "function. Call a sync one directly."
        )
    return await awaitable


# -- Refusals ---------------------------------------------------------------------------------------------------------


def _refuse_loop_thread(what: str, instead: str) -> None:
    """Raise if the calling thread runs an event loop, or would hold one up."""
    if runs_a_loop():
        raise LoopThreadError(
            f"{what} was called on a thread that runs an event loop. It would block that loop, and perhaps wait "
            f"forever for a coroutine on it. Await {instead}, or call it with asyncio.to_thread()."
        )
    refuse_within_finalizer(what)  # after that: a loop runs its tasks within frames of ours


def _no_request() -> MissingCapability:
    if current_request.get(None) is None:
        return MissingCapability(
            "run_in_loop() was called outside a request, where it has no server's loop to use. It works in a WSGI app "
            "under a WSGIMiddleware: on the thread of the request, and on threads that run in a copy of its context "
            "(contextvars.copy_context().run). Elsewhere, use asyncio.run()."
        )
    return MissingCapability(
        "run_in_loop() was called after its request was over, or in a process that was forked during the request, "
        "where the server's loop does not run. For work that outlives the request, have a coroutine start a task "
        "during the request with asyncio.create_task(), and keep a reference to it. In a forked process, use "
        "asyncio.run()."
    )


def _require_callable(given: object) -> None:
    if not callable(given):
        close_unawaited(given)
        hint = " Pass the function itself, or use run_in_loop()." if inspect.isawaitable(given) else ""
        raise TypeError(f"async_to_sync() requires an async function, not {_a(given)}.{hint}")


def _not_awaitable(given: object) -> str:
    what = _a(given)
    hint = "Make a coroutine by calling an async function."
    if inspect.isasyncgen(given) or inspect.isasyncgenfunction(given):
        hint = "Iterate over the async generator in a coroutine: async for item in ..."
    elif callable(given):
        name = getattr(given, "__name__", "function")
        hint = f"Call it: run_in_loop({name}(...)). Or make it sync: async_to_sync({name})."
    elif isinstance(given, (list, tuple, set, frozenset)):
        hint = "Await several in one coroutine, for example with asyncio.gather()."
    return f"run_in_loop() requires a coroutine, not {what}. {hint}"


def _a(given: object) -> str:
    """What something is, without its repr(), which may raise or be long."""
    kind = type(given)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"an object of type {name}"
