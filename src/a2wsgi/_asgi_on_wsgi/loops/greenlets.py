"""asyncio's loop among gevent's greenlets, and a real thread where gevent has replaced threads by greenlets.

Strategy
    Under gevent's or eventlet's monkey-patching an app's synchronous code may run in other greenlets of the loop's
    thread. While the loop waits, it lets them run, and puts aside what asyncio keeps for a thread, so that none of them
    sees it running.

Guarantees
    - A greenlet that runs in the middle of a step waits for the loop, as a thread does: `runs_here`.
    - Other greenlets may run loops of their own: ``asyncio.run()`` works in them, and closes none of the loop's
      asynchronous generators.

Assumes
    Greenlets switch only where `GreenletLoop` waits, starts a thread, or where the app's code makes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    #: What is kept for a thread: its running loop, the task that this runs (since Python 3.14; before that, it is kept
    #: for the loop), and the hooks of asynchronous generators.
    _OfThread = tuple[asyncio.AbstractEventLoop | None, asyncio.Task[Any] | None, tuple[Any, Any]]

_T = TypeVar("_T")


class GreenletLoop(asyncio.SelectorEventLoop):
    """A loop with gevent's selector, which lets the thread's other greenlets run; and to them it does not run.

    They may be an app's synchronous code, which gevent runs in place of a thread. What asyncio keeps for a
    thread is kept for this greenlet: the running loop and task, and who is told of asynchronous generators. Otherwise
    asyncio.run() in another greenlet would refuse to start, or close the app's generators at its end.

    Attributes:
        greenlet: The one that runs it, or was the last to, as ``threading.get_ident()`` names it.
    """

    def __init__(self) -> None:
        self._theirs: _OfThread = None, None, (None, None)  # what the other greenlets had when this one came back
        self.greenlet: int | None = None
        apart = self._apart

        class Selector(selectors.DefaultSelector):  # made here, of the class that gevent has put in place
            def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
                with apart():
                    return super().select(timeout)

        super().__init__(Selector())

    @contextlib.contextmanager
    def _apart(self) -> Generator[None, None, None]:
        """Put aside what asyncio keeps for this greenlet, around what may let others run."""
        ours = _swap(self._theirs)
        try:
            yield
        finally:
            self._theirs = _swap(ours)

    def run_in_executor(self, executor: Any, func: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:  # type: ignore[override]  # noqa: ANN401 - asyncio's has a type that Python 3.10 cannot spell
        # A new thread is a greenlet here, which runs at once.
        with self._apart():
            return super().run_in_executor(executor, func, *args)

    def run_forever(self) -> None:
        self.greenlet = threading.get_ident()
        # Other greenlets may have come and gone since it last ran.
        self._theirs = _swap((None, None, (None, None)))
        try:
            super().run_forever()
        finally:
            _swap(self._theirs)


def runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the caller itself runs ``loop``, which runs in its thread.

    1. The app waits in the middle of a step, for a database say. 2. gevent lets another request's greenlet run. 3. That
    finds the loop running in its thread, and may wait for it all the same.
    """
    return not isinstance(loop, GreenletLoop) or loop.greenlet == threading.get_ident()


def _swap(new: _OfThread) -> _OfThread:
    """Set the thread's running loop and task, and its hooks of asynchronous generators; return what they were."""
    loop = asyncio._get_running_loop()  # noqa: SLF001 - public to authors of event loops
    task = None if loop is None else asyncio.current_task(loop)
    if loop is not None and task is not None:
        asyncio.tasks._leave_task(loop, task)  # noqa: SLF001 - public to them, too: Python's "Extending asyncio"
    old = loop, task, sys.get_asyncgen_hooks()
    loop, task, hooks = new
    asyncio._set_running_loop(loop)  # noqa: SLF001 - public to them, too
    if loop is not None and task is not None:
        asyncio.tasks._enter_task(loop, task)  # noqa: SLF001 - public to them, too
    sys.set_asyncgen_hooks(*hooks)
    return old


def gevent_start_thread() -> Callable[[Callable[[], object], tuple[()]], object] | None:
    """The function that starts a real thread, if gevent has replaced threads by greenlets; else None."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return None
    return cast("Callable[..., object]", monkey.get_original("_thread", "start_new_thread"))


def threads_are_greenlets() -> bool:
    """Whether gevent or eventlet has replaced threads by greenlets.

    Under eventlet the shared loop is a greenlet itself, among the server's: eventlet's locks and events, unlike
    gevent's, do not wake a greenlet of another thread.
    """
    eventlet = sys.modules.get("eventlet.patcher")
    return gevent_start_thread() is not None or (eventlet is not None and eventlet.is_monkey_patched("thread"))
