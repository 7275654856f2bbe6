"""A waiter whose task goes on in the step of the loop that ends its wait, and not one turn later.

Strategy
    A thread that hands something over rings the doorbell. With a future the loop would need two turns for it: one in
    which the doorbell calls ``set_result()``, and one in which the task goes on. `PromptWaiter.resume` runs the task
    itself. (Benchmarks: WSGI on ASGI, asyncio, 1 at once: 10 % more requests of hello, 8 % more of 100 x 1 KiB, 32 %
    more of 64 MiB down. On uvloop, whose turns cost next to nothing, the first two were 11 % and 19 % fewer, so it is
    not used there.)

Guarantees
    - A cancelled wait ends as a future's does: in the next turn, with the message that ``Task.cancel()`` was given.
    - The task runs in its own context.

Assumes
    A task awaits whatever has ``_asyncio_future_blocking``, and of that uses ``_loop``, ``add_done_callback()``,
    ``cancel()`` and ``result()`` (`asyncio.isfuture`, and the source of ``asyncio.Task`` in Python 3.10 to 3.15).
    `resume` is called outside of every task, as the doorbell does: one task cannot run within another's step.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Generator


class PromptWaiter:
    """What one task awaits, once. See `Waiter`. Loop thread."""

    __slots__ = ("_asyncio_future_blocking", "_callback", "_cancelled", "_context", "_done", "_loop", "_message")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asyncio_future_blocking = True
        self._callback: Callable[[Any], object] | None = None  # has the task go on; there while it waits
        self._done = False
        self._cancelled = False

    def done(self) -> bool:
        return self._done

    def resume(self) -> None:
        """End the wait, and run the task until it waits again. In no task."""
        if not self._done:
            self._done = True
            if (callback := self._callback) is not None:
                self._callback = None  # it holds the task, which holds this
                self._context.run(callback, self)

    def set_result(self, _result: None, /) -> None:
        """End the wait: the task goes on in the next turn.

        Raises:
            RuntimeError: The loop is closed.
        """
        self._done = True
        if (callback := self._callback) is not None:
            self._callback = None
            self._loop.call_soon(callback, self, context=self._context)

    def __await__(self) -> Generator[Any, None, None]:
        # Fast path: an iterator will do, and a generator would be called twice (tests/test_call_counts.py).
        return iter((self,))  # type: ignore[return-value]

    # -- What asyncio's task calls ------------------------------------------------------------------------------------

    def add_done_callback(self, callback: Callable[[Any], object], *, context: contextvars.Context) -> None:
        self._callback = callback
        self._context = context

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ANN401 - any object, as asyncio's
        if self._done:
            return False
        self._cancelled = True
        self._message = msg
        self.set_result(None)
        return True

    def result(self) -> None:
        if self._cancelled:
            raise asyncio.CancelledError(*(() if self._message is None else (self._message,)))
