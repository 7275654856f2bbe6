"""asyncio's event loop, made to hand over to other threads with fewer switches between them.

Strategy
    Two threads of Python that work for each other spend most of their time in waking one another and in handing over
    the interpreter's lock. Three things save most of that, all in the place where a loop waits, its selector:

    - *Wake others last.* A thread that is woken wants the interpreter's lock, which a loop gives up when it waits. So
      what wakes a thread is put off until right before that (`Loop.soon`). Woken earlier, the thread finds the lock
      taken, and has to be woken a second time.
    - *Be woken by a lock.* As long as nothing but the loop's own self-pipe is registered, the loop waits for a lock
      instead. To open it takes one system call, and none to find that out; the pipe takes five, and gives the
      interpreter's lock away at each.
    - *Begin at once.* What another thread asks for is called where the loop waited, not a turn later (`Loop.ring`).

    ``benchmarks/in_process.py`` shows what that is worth.

Guarantees
    - Everything that asyncio's loop does, this does: it is that loop, with a selector of its own.
    - No wake-up is lost. 1. A thread appends to the loop's queue. 2. It looks how the loop waits. 3. It opens the lock,
      or writes to the pipe. The loop looks at its queue, then waits; how it waits changes only in between, on its own
      thread. So if it did not see what was appended, 2. sees how it waits now. A wake-up too many costs one turn.

Assumes
    ``call_soon_threadsafe`` wakes the loop by ``_write_to_self``, as it has since asyncio is there. Where there is no
    such method, asyncio's own choice is used (`new_event_loop`).
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from _typeshed import FileDescriptorLike

    #: What is kept for a thread: its running loop, and its hooks of asynchronous generators.
    _Kept = tuple[asyncio.AbstractEventLoop | None, tuple[Any, Any]]

__all__ = ["AmongGreenlets", "Loop", "gevent_start_thread", "new_event_loop"]


_T = TypeVar("_T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A `Loop` where one can be, else asyncio's own choice."""
    # On Windows only that has subprocesses.
    if sys.platform == "win32" or not hasattr(asyncio.SelectorEventLoop, "_write_to_self"):
        return asyncio.new_event_loop()
    return AmongGreenlets() if gevent_start_thread() else Loop()


class AmongGreenlets(asyncio.SelectorEventLoop):
    """A loop with gevent's selector, which lets the thread's other greenlets run; and to them it does not run.

    They may be an app's synchronous code, which gevent has put there in place of a thread. What asyncio keeps for a
    thread is kept for this greenlet: the running loop, and who is told of asynchronous generators. asyncio.run() in
    another greenlet would refuse to start else, or close the app's generators at its end.
    """

    def __init__(self) -> None:
        self._theirs: _Kept = None, (None, None)  # what the others had when this one came back
        apart = self._apart

        class Selector(selectors.DefaultSelector):  # made now, of what gevent has put there
            def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
                with apart():
                    return super().select(timeout)

        super().__init__(Selector())

    @contextlib.contextmanager
    def _apart(self) -> Generator[None, None, None]:
        """What may let others run."""
        ours = _swapped(self._theirs)
        try:
            yield
        finally:
            self._theirs = _swapped(ours)

    def run_in_executor(self, executor: Any, func: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:  # type: ignore[override]  # noqa: ANN401 - asyncio's has a type that Python 3.10 cannot spell
        """See ``asyncio``. A new thread is a greenlet, which runs at once."""
        with self._apart():
            return super().run_in_executor(executor, func, *args)

    def run_forever(self) -> None:
        """See ``asyncio``. Others may have come and gone since it last ran."""
        self._theirs = _swapped((None, (None, None)))
        try:
            super().run_forever()
        finally:
            _swapped(self._theirs)


def _swapped(new: _Kept) -> _Kept:
    """Set the thread's running loop and its hooks of asynchronous generators, and return what they were."""
    old = asyncio._get_running_loop(), sys.get_asyncgen_hooks()  # noqa: SLF001 - public to authors of event loops
    asyncio._set_running_loop(new[0])  # noqa: SLF001 - as above
    sys.set_asyncgen_hooks(*new[1])
    return old


def gevent_start_thread() -> Callable[[Callable[[], object], tuple[()]], object] | None:
    """What starts a real thread where gevent has replaced ``threading.Thread`` by greenlets; None elsewhere."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return None
    return cast("Callable[..., object]", monkey.get_original("_thread", "start_new_thread"))


class _Selector(selectors.DefaultSelector):  # which class that is depends on the system
    """A selector that does what is due before it waits, and then waits for a lock if it has no descriptors."""

    def __init__(self) -> None:
        super().__init__()
        self.due: list[Callable[[], object]] = []
        self.rung: deque[tuple[Callable[[Any], object], Any]] = deque()
        self.by_bell = False  # how the loop waits: for `bell`, or for descriptors. Written by the loop's thread
        self.bell = threading.Lock()
        self.bell.acquire()

    def register(self, fileobj: FileDescriptorLike, events: int, data: object = None) -> selectors.SelectorKey:
        """See ``selectors``. The first is the loop's self-pipe."""
        key: selectors.SelectorKey = super().register(fileobj, events, data)
        self.by_bell = len(self.get_map()) == 1
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        """See ``selectors``."""
        key: selectors.SelectorKey = super().unregister(fileobj)
        self.by_bell = len(self.get_map()) == 1
        return key

    def run_due(self) -> None:
        """Do what is due."""
        due, self.due = self.due, []
        for function in due:
            function()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See ``selectors``."""
        if self.due:
            self.run_due()
        events: list[tuple[selectors.SelectorKey, int]] = []
        if not self.by_bell:
            events = super().select(timeout)
        elif timeout is None:
            self.bell.acquire()
        elif timeout > 0:
            self.bell.acquire(timeout=timeout)
        while self.rung:
            function, argument = self.rung.popleft()
            function(argument)
        return events


class Loop(asyncio.SelectorEventLoop):
    """asyncio's loop with a `_Selector`."""

    def __init__(self) -> None:
        self._our_selector = _Selector()
        super().__init__(self._our_selector)

    def soon(self, function: Callable[[], object]) -> None:
        """Call ``function`` before the loop waits for anything. Loop thread. It must not need the loop to go on."""
        self._our_selector.due.append(function)

    def ring(self, function: Callable[[Any], object], argument: Any) -> bool:  # noqa: ANN401 - passed on as it is
        """Call ``function(argument)`` soon, which must not raise. Any thread. False if the loop is closed.

        Does what ``call_soon_threadsafe`` does, without a turn of the loop of its own. Takes no lock.
        """
        if self.is_closed():
            return False
        self._our_selector.rung.append((function, argument))
        self._write_to_self()
        return True

    def run_forever(self) -> None:
        """See ``asyncio``. What is due when it stops is done: it would keep its request until the loop runs again."""
        super().run_forever()
        if self._our_selector.due:
            self._our_selector.run_due()

    def stop(self) -> None:
        """See ``asyncio``. May also be called by what `soon` calls."""
        super().stop()
        self._write_to_self()  # or the wait that follows would be endless

    def close(self) -> None:
        """See ``asyncio``. What is still due is done: threads may wait for it."""
        self._our_selector.run_due()
        super().close()

    def _write_to_self(self) -> None:
        selector = self._our_selector
        if not selector.by_bell:
            super()._write_to_self()  # type: ignore[misc]  # private, but see new_event_loop()
        elif selector.bell.locked():
            try:  # noqa: SIM105 - contextlib.suppress() would cost as much as the rest of the method
                selector.bell.release()
            except RuntimeError:  # another thread was quicker
                pass
