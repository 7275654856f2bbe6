"""A loop without a thread: the server thread that waits for it runs it.

Strategy
    Waiting at a gate of an `InlineHost` runs the loop, and opening the gate stops it. One thread at a time runs it:
    others that come meanwhile wait for a lock.

Guarantees
    - What is rung is called by the ringing thread, since the loop may run nowhere.
    - No error of a request gets an error of another request as its ``__context__``. Servers close a broken response in
      a ``finally``: a thread that handles an error while it waits has another thread run the loop for it, if several
      threads run it.
    - A loop that runs in the thread already, and its current task, are put aside meanwhile.

Assumes
    Nothing of an app's must go on between requests: nobody runs the loop then.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from a2wsgi._asgi_on_wsgi import faults
from a2wsgi._threads.runtime import Doorbell

from .fast_loop import FastLoop, new_event_loop
from .greenlets import GreenletLoop, runs_here
from .host import CANCEL_SECONDS, LoopHost, close_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from a2wsgi._asgi_on_wsgi.to_server import ToServer
    from a2wsgi._threads.handles import Timer

    from .host import LoopUser

_T = TypeVar("_T")

#: How often an inline loop goes round after an aborted request, so that what its app has left can end: tasks of their
#: own close asynchronous generators. Arbitrary.
ROUNDS = 10


class InlineHost(LoopHost):
    """A loop that whoever waits for it runs, one thread at a time."""

    __slots__ = (
        "_closed",
        "_first_thread",
        "_hides_itself",
        "_look_timer",
        "_running",
        "awaited_gate",
        "has_many_threads",
    )

    def __init__(self) -> None:
        # In an empty context: the handle of the loop's self-pipe would keep that of the first request for ever.
        super().__init__(contextvars.Context().run(new_event_loop))
        if isinstance(self.loop, FastLoop):
            self.before_wait = self.loop.before_wait
            if sys.version_info >= (3, 12):
                self.create_task = self._create_task
        # Held by the thread that runs the loop or touches what is on it, and by a request until its response begins.
        self._running = threading.RLock()
        self.doorbell = _DirectDoorbell(self.loop, self._running)
        self._hides_itself = isinstance(self.loop, GreenletLoop)  # puts other loops of the thread aside by itself
        self._first_thread = threading.get_ident()
        #: Threads other than the first have come. Only grows true; any server thread.
        self.has_many_threads = False
        #: Only grows true; read by any thread. Under _running, unless an app that blocks has that.
        self._closed = False
        # Guarded by _running:
        #: The gate that the thread which runs the loop waits at.
        self.awaited_gate: _InlineGate | None = None
        self._look_timer: Timer | None = None

    @property
    def one_at_a_time(self) -> threading.RLock | None:
        if threading.get_ident() != self._first_thread:
            self.has_many_threads = True
        return self._running

    def gate(self) -> threading.Lock:
        return _InlineGate(self, self._running)  # type: ignore[return-value]  # no cast(), which is a call

    def trouble(self) -> BaseException | None:
        return faults.loop_stopped() if self._closed else None

    def run(self, make: Callable[[], Coroutine[Any, Any, _T]], seconds: float | None = None) -> _T:
        if not self._running.acquire(timeout=-1 if seconds is None else seconds):
            raise faults.loop_held_up()
        try:
            if self._closed:
                raise faults.loop_stopped()
            # A gate that opens right after the loop has stopped tells it to stop once more. Let it do so now.
            self._run_apart(self._go_around)
            results: list[_T] = []
            self._run_apart(lambda: results.append(self.loop.run_until_complete(make())))
            return results[0]
        finally:
            if self._closed:
                self._close_late()
            self._running.release()

    def let_finish(self, stream: ToServer, seconds: float) -> None:
        """Run the loop until an aborted request ends: between requests nobody runs it. A server thread."""
        if self.is_here():  # it runs, and goes on
            return
        stream.wait_done(seconds + CANCEL_SECONDS)
        with self._running:
            if not self._closed:
                self._run_apart(self._go_around)

    def _go_around(self) -> None:
        for _ in range(ROUNDS):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def release(self, user: LoopUser) -> None:  # noqa: ARG002 - it has no other
        if not self._running.acquire(timeout=CANCEL_SECONDS):
            self._closed = True  # whoever runs it finds this at the next look, and closes it; if the app ever lets it
            return
        try:
            if not self._closed:
                self._closed = True
                self._run_apart(lambda: close_loop(self.loop))
        finally:
            self._running.release()

    def renew_locks(self) -> None:
        super().renew_locks()
        if self._running.acquire(blocking=False):  # nobody held it, or the thread that has forked
            self._running.release()
            return
        self._closed = True  # the thread that ran the loop is not here
        self._running = threading.RLock()
        self.doorbell = _DirectDoorbell(self.loop, self._running)

    def _close_late(self) -> None:
        """Close the loop if nobody runs it: `release` has waited for its thread in vain. The lock is held."""
        if not (self.loop.is_running() or self.is_inherited()):
            self._run_apart(lambda: close_loop(self.loop))

    def _create_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a request's task: the app takes its first step now, and most apps end in it. The lock is held.

        Fast path: such a request costs no turn of the loop (benchmarks: ASGI on WSGI, hello, inline).
        """
        loop: FastLoop = self.loop  # type: ignore[assignment]  # no cast(), which is a call
        if (
            asyncio._get_running_loop() is not None  # noqa: SLF001 - as in _no_loop_running()
            or loop.get_task_factory() is not None
            or loop.get_debug()
            or (self.has_many_threads and sys.exc_info()[1] is not None)
        ):
            return loop.create_task(coroutine)
        return loop.create_eager_task(coroutine)

    # -- Running it: the lock is held by the calling thread, or by one that waits for this one ----------------------

    def run_until_open(self, gate: _InlineGate, seconds: float) -> None:
        """Run the loop until ``gate`` is open, for ``seconds``, or until it is time to look around."""
        closed = self._closed
        if closed:  # in the app's first step, perhaps, which needs no loop (see _create_task)
            self._close_late()
            return  # whoever waits asks for the trouble next
        loop = self.loop
        timer = None
        if 0 <= seconds < self.look_seconds:
            timer = self.call_later(seconds, gate.expire)
        if self._look_timer is None:  # one for many waits: most take less time than to set one
            self._look_timer = self.call_later(self.look_seconds, self._look)
        outer_gate, self.awaited_gate = self.awaited_gate, gate
        gate.expired = False
        # gunicorn's tornado worker calls us on a thread whose loop is running.
        outer = None if self._hides_itself else asyncio._get_running_loop()  # noqa: SLF001 - as in _no_loop_running()
        try:
            if outer is None:
                while gate.closed and not gate.expired:
                    loop.run_forever()
            else:
                with _no_loop_running():
                    while gate.closed and not gate.expired:
                        loop.run_forever()
        finally:
            self.awaited_gate = outer_gate
            if timer is not None:
                timer.cancel()
            if self._closed:
                self._close_late()

    def _look(self) -> None:
        self._look_timer = None
        self._expire_gate()

    def _expire_gate(self) -> None:
        if self.awaited_gate is not None:
            self.awaited_gate.expire()

    def _run_apart(self, function: Callable[[], object]) -> None:
        """Call ``function``, which runs the loop, outside any other loop and any error."""
        with _no_loop_running():
            if (self.has_many_threads or threading.get_ident() != self._first_thread) and sys.exc_info()[1] is not None:
                self.run_without_error(function)
            else:
                function()

    def run_without_error(self, function: Callable[[], object]) -> None:
        """Call ``function``, which runs the loop, in a thread that handles no error.

        Python chains whatever is raised to the error that the thread handles, however far up the stack, and that cannot
        be put aside. The error of the calling thread is no business of the other requests on the loop.
        """
        raised: list[BaseException] = []

        def run() -> None:
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - raised below
                raised.append(error)

        thread = threading.Thread(target=run, name="a2wsgi-inline")
        try:
            thread.start()
        except RuntimeError:  # there are no more threads: better a strange context than a request that never ends
            function()
            return
        try:
            thread.join()
        except BaseException:  # of a signal handler: our wait is over, but the thread still runs the loop for us
            self.loop.call_soon_threadsafe(self._expire_gate)
            thread.join()
            raise
        if raised:
            raise raised.pop()


class _InlineGate:
    """What a server thread waits at. It has what is used of ``threading.Lock``."""

    __slots__ = ("_host", "_running", "closed", "expired")

    def __init__(self, host: InlineHost, running: threading.RLock) -> None:
        self._host = host
        self._running = running
        self.closed = True
        self.expired = False  # the wait is over although nobody has opened the gate

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002 - as Lock's
        host = self._host
        if self.closed and blocking:
            if asyncio._get_running_loop() is host.loop and runs_here(host.loop):  # noqa: SLF001 - as in _no_loop_running()
                raise faults.own_thread()
            with self._running:
                # Fast path: what InlineHost._run_apart() does, with fewer calls (tests/test_call_counts.py).
                if host.has_many_threads and sys.exc_info()[1] is not None:
                    host.run_without_error(lambda: host.run_until_open(self, timeout))
                else:
                    host.run_until_open(self, timeout)
        return not self.closed

    def release(self) -> None:
        self.closed = False
        # If another gate is awaited, the loop runs for that. Whoever waits at this one will find it open: a thread that
        # waits for the lock, or nobody, if a signal handler has ended the wait.
        if self._host.awaited_gate is self:
            self._host.loop.stop()

    def expire(self) -> None:
        """End the wait without opening the gate."""
        self.expired = True
        # Also if it is open: 1. It is opened in the middle of the app's send(). 2. A signal handler raises before the
        # loop is told to stop. 3. The app ends, and so does what is due on the loop.
        self._host.loop.stop()


class _DirectDoorbell(Doorbell):
    """A doorbell for a loop that nobody runs just now: what is rung is called at once."""

    __slots__ = ("_running",)

    def __init__(self, loop: asyncio.AbstractEventLoop, running: threading.RLock) -> None:
        super().__init__(loop)
        self._running = running

    def ring(self, function: Callable[[Any], object], argument: Any) -> bool:  # noqa: ANN401 - as Doorbell's
        if self.loop.is_closed():
            return False
        if asyncio._get_running_loop() is self.loop and runs_here(self.loop):  # noqa: SLF001 - as in _no_loop_running()
            # 1. A thread that handles an error holds the lock, has this one run the loop, and waits. 2. The garbage
            # collector closes a response here.
            function(argument)
            return True
        with self._running:
            function(argument)
        return True


@contextlib.contextmanager
def _no_loop_running() -> Generator[None, None, None]:
    """Put the loop that runs in this thread aside, if one does, and its current task, so that another can be run."""
    outer = asyncio._get_running_loop()  # noqa: SLF001 - public to authors of event loops, says its docstring
    # Since Python 3.14 a thread, not a loop, has a current task, and a second one is refused.
    task = None if outer is None else asyncio.current_task(outer)
    if outer is not None and task is not None:
        asyncio.tasks._leave_task(outer, task)  # noqa: SLF001 - public to them, too: Python's "Extending asyncio"
    asyncio._set_running_loop(None)  # noqa: SLF001 - public to them, too
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)  # noqa: SLF001 - public to them, too
        if outer is not None and task is not None:
            asyncio.tasks._enter_task(outer, task)  # noqa: SLF001 - public to them, too
