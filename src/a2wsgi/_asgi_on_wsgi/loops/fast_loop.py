"""asyncio's event loop, made to work with other threads at fewer switches between them.

Strategy
    Two Python threads that work for each other spend most of their time on waking one another and on passing the GIL.
    Three things save most of that. All of them are in the selector, where a loop waits:

    - *Wake others last.* A thread that is woken wants the GIL, which a loop gives up only when it waits. So
      `FastLoop.before_wait` puts off what wakes a thread until right before that. A thread that is woken earlier finds
      the GIL taken, and has to be woken a second time.
    - *Be woken by a lock.* As long as only the loop's own self-pipe is registered, the loop waits for a lock, the
      *bell*. To open it takes one system call, and to find it open takes none. The pipe takes five, and each gives up
      the GIL.
    - *Begin at once.* What another thread asks for by `FastLoop.ring` is called where the loop waited, and not on the
      loop's next turn.

    ``benchmarks/in_process.py`` shows what this is worth.

Guarantees
    - The loop does everything that asyncio's loop does: it is that loop with a selector of its own.
    - If a function that `FastLoop.before_wait` or `FastLoop.ring` was given raises an ``Exception``, it is logged. The
      loop goes on, and so do the other functions.
    - No wake-up is lost. See "Why no wake-up is lost" below.

Why no wake-up is lost
    Whoever rings: 1. appends to a queue of the loop; 2. opens the bell, if it is closed; 3. writes to the pipe, if
    ``waits`` says that the loop waits for descriptors.

    The loop: 1. says in ``waits`` how it is about to wait; 2. waits; 3. looks at its queues. Only the loop closes the
    bell, and it looks at its queues after that and before its next wait. So it does not matter who has opened the bell
    that step 2 of a ring finds open: the loop looks at its queues after closing it.

    A ring may come at any moment, and the loop may be about to wait in these ways:

    - *For the bell.* The wait is itself the attempt to close the bell. A ring before it or during it ends it.
    - *For descriptors.* The loop first says so in ``waits``, and then looks at the bell. If the bell is open, the loop
      does not wait. If it is closed, it is opened after that look, and step 3 of the ring comes later still: it finds
      what ``waits`` says, and writes to the pipe. That ends the wait, or keeps it from beginning.
    - *Not at all*, because asyncio has something to do. The bell stays open, and the next wait is one of the others.
    - *For the bell, as the first descriptor or signal handler is added.* That happens on the loop's own thread, so only
      a finalizer or a signal handler can do it between steps 1 and 2. `_Selector.settle` then opens the bell. If one
      removes the last descriptor at that point, the loop waits for the pipe alone, as ``waits`` says.
    - *After a step that an exception has cut short*, such as ``SystemExit`` in an app or the exception of a signal
      handler. What was not called is still queued, and `_Selector.select` looks at that before it waits.

    One ring too many costs one turn of the loop.

Assumes
    - ``call_soon_threadsafe`` appends first, and then wakes the loop by ``_write_to_self``, as it always has.
      `new_event_loop` tries it, and falls back on asyncio's own choice of a loop.
    - What `a2wsgi._threads` says of deques, and of the order in which threads see what others write.
    - A signal that has a handler of asyncio's writes to the pipe by itself, in C (``signal.set_wakeup_fd``). While
      there is such a handler, the loop waits for descriptors.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar

from a2wsgi._log import logger

from .greenlets import GreenletLoop, threads_are_greenlets

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from _typeshed import FileDescriptorLike

_T = TypeVar("_T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A `FastLoop` if one works here, or else asyncio's own choice."""
    # On Windows only asyncio's own choice has subprocesses.
    if sys.platform == "emscripten":
        return _LoneLoop()
    if sys.platform == "win32" or not hasattr(asyncio.SelectorEventLoop, "_write_to_self"):
        return asyncio.new_event_loop()
    if threads_are_greenlets():
        return GreenletLoop()
    loop = FastLoop()
    if loop.wakes():
        return loop
    loop.close()
    return asyncio.new_event_loop()


#: How the loop waits. Compared by identity.
_AT_BELL: Final = "at the bell"
_AT_PIPE: Final = "at the pipe and other descriptors"


class _Selector(selectors.DefaultSelector):  # which class that is depends on the system
    """A selector that first calls what `FastLoop.before_wait` was given, and waits for a lock if it can.

    Only the loop thread writes its attributes and closes the bell. Any thread may append to ``from_threads`` and open
    the bell.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before_wait: deque[Callable[[], object]] = deque()
        self.from_threads: deque[tuple[Callable[[Any], object], Any]] = deque()
        self.signals: set[int] = set()  # those with a handler of asyncio's: only the pipe tells of them
        self.looked = False  # at the descriptors, in the last turn
        self.alone = False  # the self-pipe is the only descriptor, and no signal writes to it
        self.waits: str | None = None  # how it waits or is about to wait; None while it does not
        self.bell = threading.Lock()  # closed, that is, held, unless somebody has rung since the loop closed it
        self.bell.acquire()

    def register(self, fileobj: FileDescriptorLike, events: int, data: object = None) -> selectors.SelectorKey:
        key: selectors.SelectorKey = super().register(fileobj, events, data)
        self.settle()
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        key: selectors.SelectorKey = super().unregister(fileobj)
        self.settle()
        return key

    def settle(self) -> None:
        """Decide anew how to wait, after a descriptor or a signal handler has come or gone. Loop thread."""
        descriptors = self.get_map()
        if not descriptors:  # closed: asyncio closes its selector first, and removes the signal handlers after that
            return
        self.alone = len(descriptors) == 1 and not self.signals
        if self.waits is _AT_BELL and not self.alone:
            self.open_bell()

    def open_bell(self) -> None:
        """End the wait for the bell, or the next one. Any thread."""
        if self.bell.locked():
            try:  # noqa: SIM105 - contextlib.suppress() would cost as much as the rest of the method
                self.bell.release()
            except RuntimeError:  # another thread was quicker
                pass

    def call_before_wait(self) -> None:
        """Call what `FastLoop.before_wait` was given, and what it is given meanwhile. Loop thread."""
        while self.before_wait:
            function = self.before_wait.popleft()
            try:
                function()
            except Exception:  # noqa: BLE001 - nobody waits for it here, and the loop is everybody's
                logger.exception("A function that the event loop runs before it waits has failed")

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.before_wait:
            self.call_before_wait()
        events: list[tuple[selectors.SelectorKey, int]] = []
        if self.from_threads:  # an exception has cut the last step short
            timeout = 0
        if timeout is not None and timeout <= 0:
            # Fast path: what has come over a socket makes a task ready, which runs in the next turn. That one need not
            # look again; but each other one does, however long there is something to do (benchmarks/websocket_echo.py).
            self.looked = not self.looked
            if self.looked and not self.alone:
                events = super().select(timeout)
        else:
            self.waits = _AT_BELL
            try:
                if self.alone:
                    self.bell.acquire(timeout=-1 if timeout is None else timeout)
                else:
                    self.waits = _AT_PIPE
                    events = super().select(timeout if self.bell.locked() else 0)
                    self.looked = True
                    self.bell.acquire(blocking=False)  # close it: the queues are looked at next, whoever has rung
            finally:
                self.waits = None
        while self.from_threads:
            function, argument = self.from_threads.popleft()
            try:
                function(argument)
            except Exception:  # noqa: BLE001 - as in call_before_wait()
                logger.exception("A function that another thread scheduled on the event loop has failed")
        return events


class FastLoop(asyncio.SelectorEventLoop):
    """asyncio's loop with a `_Selector`."""

    def __init__(self) -> None:
        self._our_selector = _Selector()
        self._seems_to_run = False  # a task takes its first step outside run_forever()
        self._asyncgen_hooks: tuple[Any, Any] | None = None  # asyncio's
        self._default_executor: Any = None  # asyncio's, as is the next
        self._executor_shutdown_called = False
        super().__init__(self._our_selector)

    def before_wait(self, function: Callable[[], object]) -> None:
        """Call ``function`` before the loop waits for anything. It must not wait for the loop. Loop thread."""
        self._our_selector.before_wait.append(function)

    def ring(self, function: Callable[[Any], object], argument: Any) -> bool:  # noqa: ANN401 - passed on as it is
        """Call ``function(argument)`` soon. Any thread. False if the loop is closed.

        It is ``call_soon_threadsafe`` without another turn of the loop. Takes no lock.
        """
        if self.is_closed():
            return False
        self._our_selector.from_threads.append((function, argument))
        self._write_to_self()
        return True

    def look_soon(self) -> None:
        """Have the loop answer who has rung: nothing to do, since each ring wakes the loop by itself. Any thread."""

    def run_forever(self) -> None:
        try:
            super().run_forever()
        except BaseException as error:
            # Since Python 3.13, asyncio cleans up in a method: a signal handler may raise before its first line. Python
            # 3.10 lets one raise anywhere. (A RuntimeError says that the loop runs already.)
            if type(error) is not RuntimeError and asyncio._get_running_loop() is self:  # noqa: SLF001 - public to authors of event loops
                if sys.version_info >= (3, 13):
                    self._run_forever_cleanup()  # type: ignore[attr-defined, unused-ignore]  # for subclasses, says its docstring
                else:
                    self._stopping, self._thread_id = False, None
                    asyncio._set_running_loop(None)  # noqa: SLF001 - public to them, too
            raise
        finally:
            # What is queued would keep its request until the loop runs again.
            if self._our_selector.before_wait:
                self._our_selector.call_before_wait()

    def create_eager_task(  # pragma: no cover - Python 3.10 and 3.11 cannot, and the tests are measured there, too
        self, coroutine: Coroutine[Any, Any, _T]
    ) -> asyncio.Task[_T]:
        """Create a task, and take its first step at once in the calling thread, as if the loop ran there.

        If that step ends the coroutine, the loop need not run at all. No loop may run in the thread. Python 3.12 and
        later.
        """
        if self._asyncgen_hooks is None:
            self.call_soon(self._keep_asyncgen_hooks)
            self.call_soon(self.stop)
            self.run_forever()
        outer_hooks = sys.get_asyncgen_hooks()
        try:  # from here on: a signal handler may raise anywhere
            self._seems_to_run = True
            asyncio._set_running_loop(self)  # noqa: SLF001 - public to authors of event loops, says its docstring
            sys.set_asyncgen_hooks(*self._asyncgen_hooks)  # type: ignore[misc]  # set above
            return asyncio.Task(coroutine, loop=self, eager_start=True)  # type: ignore[call-arg, unused-ignore]  # 3.12
        finally:
            # These two first. A handler comes when a call returns, and the thread would never run a loop again.
            self._seems_to_run = False
            asyncio._set_running_loop(None)  # noqa: SLF001 - public to them, too
            sys.set_asyncgen_hooks(*outer_hooks)
            if self._our_selector.before_wait:
                self._our_selector.call_before_wait()

    def _keep_asyncgen_hooks(self) -> None:  # pragma: no cover - for create_eager_task()
        self._asyncgen_hooks = tuple(sys.get_asyncgen_hooks())  # type: ignore[assignment]  # a pair

    if sys.version_info >= (3, 12):  # pragma: no cover - before, it would be one more call a request

        def is_running(self) -> bool:
            return self._seems_to_run or super().is_running()

    def run_in_executor(self, executor: Any, func: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:  # type: ignore[override]  # noqa: ANN401 - asyncio's has a type that Python 3.10 cannot spell
        if executor is None and (self._executor_shutdown_called or getattr(self._default_executor, "_shutdown", False)):
            # 1. Several bridges share the loop. 2. The app of one of them shuts the default executor down as it ends,
            # as is right for an app that is alone. 3. The others need another.
            self._default_executor = None
            self._executor_shutdown_called = False
        return super().run_in_executor(executor, func, *args)

    def stop(self) -> None:
        super().stop()
        # A function that before_wait() was given may call this, right before the loop waits: end that wait.
        self._write_to_self()

    def close(self) -> None:
        self._our_selector.call_before_wait()  # threads may wait for that
        super().close()

    def wakes(self) -> bool:
        """Whether ``call_soon_threadsafe`` wakes this loop, in this release of Python. Before the loop first runs."""
        self.call_soon_threadsafe(_do_nothing).cancel()
        return self._our_selector.bell.acquire(blocking=False)

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:  # type: ignore[override]  # noqa: ANN401 - asyncio's has a type that Python 3.10 cannot spell
        super().add_signal_handler(sig, callback, *args)
        self._our_selector.signals.add(sig)
        self._our_selector.settle()

    def remove_signal_handler(self, sig: int) -> bool:
        removed = super().remove_signal_handler(sig)
        self._our_selector.signals.discard(sig)
        self._our_selector.settle()
        return removed

    def _write_to_self(self) -> None:
        selector = self._our_selector
        if selector.bell.locked():
            # Fast path: open_bell() would be one more call a request (tests/test_call_counts.py).
            try:  # noqa: SIM105
                selector.bell.release()
            except RuntimeError:  # another thread was quicker
                pass
        if selector.waits is _AT_PIPE:
            super()._write_to_self()  # type: ignore[misc]  # private; new_event_loop() tries it


class _LoneLoop(FastLoop):
    """For WebAssembly (Pyodide), where there is no other thread and no socket pair: nobody could wake the loop."""

    def _make_self_pipe(self) -> None:
        pass

    def _close_self_pipe(self) -> None:
        pass


def _do_nothing() -> None:
    """Do nothing but wake a loop."""
