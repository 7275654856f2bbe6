"""The few verbs that a bridge needs of the event loop that it runs on: asyncio's, uvloop's included.

Strategy
    All that crosses from a thread to a loop goes through a `Runtime`, and nothing in it belongs to a request or a
    bridge. Another library's loop is served by another class with the same methods, as trio's by ``runtime_trio``.

Guarantees
    - `Doorbell.ring` may be called from any thread, and by a finalizer in the middle of another ring. It holds its lock
      only to append, and raises nothing if the loop has ended. An exception that another thread raises into the middle
      of it loses no ring.
    - The loop calls what was rung in the order of the rings, in an empty context. A function that raises does not keep
      the others from being called.

Assumes
    Everything but ``ring``, ``is_closed``, ``is_inherited`` and ``is_here`` is called on the loop thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import socket
import sys
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, cast

from a2wsgi._errors import AppError
from a2wsgi._log import logger

from .prompt_waiter import PromptWaiter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from .handles import Task, Timer, Transport, Waiter
    from .runtime_trio import TrioRun
    from .stream import Stream


class Doorbell:
    """Calls functions on one loop, on behalf of any thread, with one wake-up for all that ring before it answers."""

    __slots__ = ("_answering", "_lock", "_rung", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # Re-entrant: the garbage collector may run a finalizer that rings while this thread holds the lock.
        self._lock = threading.RLock()
        self._rung: deque[tuple[Callable[[Any], object], Any]] = deque()  # guarded by _lock
        self._answering = False  # guarded by _lock: the loop has been told to call _answer

    def ring(self, function: Callable[[Any], object], argument: Any) -> bool:  # noqa: ANN401 - passed on as it is
        """Have the loop call ``function(argument)`` soon. Any thread. False if the loop is closed: nobody will."""
        try:
            with self._lock:
                self._rung.append((function, argument))
                if self._answering:
                    return not self.loop.is_closed()
                self._answering = True
            # An empty context, and a new one: a loop that runs within the answer (nest_asyncio) may answer, too.
            self.loop.call_soon_threadsafe(self._answer, context=contextvars.Context())
        except RuntimeError:  # the loop was closed
            with self._lock:
                self._answering = False
                self._rung.clear()
            return False
        except BaseException:
            # Another thread has raised it into this one, perhaps before the loop was told. Then each later ring would
            # rely on an answer that never comes. To tell the loop twice does no harm.
            self._answering = False
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._answer, context=contextvars.Context())
            raise
        return True

    def take_back(self, owner: object) -> None:
        """Forget what was rung with ``owner`` or a method of it, if the loop has not heard of it yet. Any thread."""
        with self._lock:
            rung = list(self._rung)  # a copy: a finalizer may ring while it is walked
            for ring in [one for one in rung if one[1] is owner or getattr(one[0], "__self__", None) is owner]:
                self._rung.remove(ring)

    def look(self) -> None:
        """Answer those who rang a while ago, if there are any. Loop thread, now and then.

        1. A thread is about to tell the loop. 2. A finalizer of the app's runs there, and takes its time. 3. Others
        ring meanwhile, and rely on an answer.
        """
        if self._rung:
            self._answer()

    def look_soon(self) -> None:
        """Have the loop `look`, if anybody has rung and was not answered yet. Any thread, now and then."""
        if self._rung:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self.loop.call_soon_threadsafe(self.look, context=contextvars.Context())

    def _answer(self) -> None:
        # A ring comes before this step or after it, since both hold the lock:
        # 1. Before: its function is among those that are taken here.
        # 2. After: it finds _answering cleared, and has the loop call _answer again.
        with self._lock:
            self._answering = False
            rung, self._rung = self._rung, deque()
        try:
            while rung:
                function, argument = rung.popleft()
                try:
                    function(argument)
                except Exception:  # noqa: BLE001 - nobody waits for it here, and others have rung as well
                    logger.exception("A function that another thread scheduled on the event loop has failed")
        finally:
            if rung:  # a function raised SystemExit or the like; if the loop runs on, it calls the rest
                self._put_back(rung)

    def _put_back(self, rung: deque[tuple[Callable[[Any], object], Any]]) -> None:
        with self._lock:
            self._rung.extendleft(reversed(rung))
            if self._answering:
                return
            self._answering = True
        self.loop.call_soon(self._answer, context=contextvars.Context())


def renew_lock(owner: Doorbell | Stream) -> None:
    """Give ``owner`` a new lock: in a forked child, where nobody would release one that another thread held."""
    owner._lock = threading.RLock()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]  # of this package: it changes here alone


def wake(waiter: Waiter) -> None:
    """End the wait for ``waiter``, unless it was cancelled meanwhile. Loop thread."""
    if not waiter.done():
        # Fast path: suppress() would be three more calls a request (tests/test_call_counts.py).
        try:  # noqa: SIM105
            waiter.set_result(None)
        except RuntimeError:  # the loop was closed, and nobody waits any more
            pass


def wake_all(waiters: Iterable[Waiter]) -> None:
    """End the wait for each of ``waiters``. Loop thread."""
    for waiter in waiters:
        wake(waiter)


def carry_reporter_marks(error: BaseException, context: contextvars.Context) -> None:
    """Copy from ``context`` the variables that refer to ``error``, which is about to be raised here.

    Error reporters such as Sentry mark an error that they have reported: they set a context variable to it, or to a
    weak reference. Without its marks, an error that crosses a bridge would be reported on both sides.

    Nothing else is copied. What the app had set would stay with the server's thread and show in its next request.

    Args:
        error: What is about to be raised in the current context.
        context: What it was raised in. No thread runs in it any more.
    """
    for variable, value in context.items():
        if value is error or (type(value) is weakref.ref and value() is error):
            variable.set(value)


def runs_a_loop() -> bool:
    """Whether the calling thread runs an event loop: whoever waits in it holds that loop up. Any thread."""
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - public to authors of event loops
        return True
    lowlevel = sys.modules.get("trio.lowlevel")  # whoever runs trio has imported it
    if lowlevel is None:
        return False
    try:
        lowlevel.current_trio_token()
    except RuntimeError:
        return False
    return True


class LoopThreadError(AppError, RuntimeError):
    """An app would wait on the thread that runs the loop. Also a RuntimeError, as asyncio and asgiref raise here."""


class Interruption:
    """Ends the wait of the current task from outside, and tells that apart from a cancellation by others.

    It is what ``asyncio.timeout`` does, which Python 3.10 lacks, and which would cost a timer for each message.

    Attributes:
        fired: `fire` was called, and `settle` was not called since.
        guard: Makes of a coroutine function one whose waits `fire` can end. None if it can end any wait of the task.
    """

    __slots__ = ("_before", "_task", "fired")

    if TYPE_CHECKING:

        @property
        def guard(self) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None: ...
    else:
        guard = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        task = asyncio.current_task(loop)
        assert task is not None  # asyncio runs each coroutine in a task
        self._task = task
        self.fired = False
        self._before = 0  # cancellations that the task has counted already: it may have caught one and gone on
        if sys.version_info >= (3, 11):
            self._before = task.cancelling()

    def fire(self) -> None:
        """Raise ``CancelledError`` where the task waits. Loop thread; once."""
        if not self.fired:
            self.fired = True
            with contextlib.suppress(RuntimeError):  # the loop was closed: the task will never go on
                self._task.cancel()

    def settle(self) -> bool:
        """Uncancel the task. Whether `fire` alone has cancelled it, so that the ``CancelledError`` ends here. Once."""
        if not self.fired:
            return False
        self.fired = False
        if sys.version_info >= (3, 11):
            return self._task.uncancel() <= self._before
        return True  # Python 3.10 does not count, so we cannot tell whether others have cancelled too


class Runtime:
    """One loop of asyncio's, with the verbs that bridges use.

    Attributes:
        loop: The loop.
        doorbell: Has the loop call functions, from any thread.
        create_waiter: Makes a `Waiter`. Loop thread.
        create_prompt_waiter: Makes one that ``resume`` may end at once. Loop thread; ``resume`` in no task.
        interruption: Makes an `Interruption` of the current task, given ``loop``.
    """

    __slots__ = ("_pid", "create_prompt_waiter", "create_waiter", "doorbell", "loop", "resume")

    interruption: ClassVar[type[Interruption]] = Interruption

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._pid = os.getpid()
        self.doorbell = Doorbell(loop)
        self.create_waiter: Callable[[], Waiter] = loop.create_future
        prompt = isinstance(loop, asyncio.BaseEventLoop)  # a turn of uvloop's costs less than what is written in Python
        self.create_prompt_waiter = cast("Any", functools.partial(PromptWaiter, loop) if prompt else loop.create_future)
        self.resume: Callable[[Any], None] = PromptWaiter.resume if prompt else wake

    def is_closed(self) -> bool:
        """Whether the loop will never run again, or not in this process. Any thread."""
        return self.loop.is_closed() or self.is_inherited()

    def is_inherited(self) -> bool:
        """Whether a fork has copied it, but not the thread that runs it. Any thread."""
        return self._pid != os.getpid()

    def is_here(self) -> bool:
        """Whether the calling thread runs it now, and would hold it up by waiting. Any thread."""
        return asyncio._get_running_loop() is self.loop  # noqa: SLF001 - public to authors of event loops

    def refuse_loop_thread(self) -> None:
        """Raise if the calling thread runs the loop: an app is about to wait for what only the loop can bring."""
        if self.is_here():
            raise LoopThreadError(
                "The app would have to wait here, on the thread that runs the server's event loop: for its request's "
                "body, for a message, or for the client to take one. The loop would stand still, and what is waited "
                "for would never come. An async view runs on that thread under async_to_sync() or run_in_loop(). Read "
                "the body in sync code before it, or call this by asyncio.to_thread()."
            )

    def time(self) -> float:
        """The loop's clock, in seconds."""
        return self.loop.time()

    def call_later(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Have the loop call ``function`` after ``seconds``, in an empty context, unless the timer is cancelled."""
        return self.loop.call_later(seconds, function, context=contextvars.Context())

    @staticmethod
    async def wait(waiter: Waiter, seconds: float | None) -> None:
        """Wait for ``waiter``, at most ``seconds``. It stays as it is when the time is over, or the wait cancelled."""
        await asyncio.wait((cast("asyncio.Future[None]", waiter),), timeout=seconds)

    def start_task(self, coroutine: Coroutine[Any, Any, None]) -> Task:
        """Run ``coroutine`` beside the caller, who must end it with `end_task`.

        Raises:
            Exception: What the loop's task factory raised, which users may set. The coroutine is closed.
        """
        try:
            return self.loop.create_task(coroutine)
        except BaseException:
            coroutine.close()
            raise

    @staticmethod
    async def end_task(task: Task, seconds: float) -> None:
        """Cancel ``task`` and wait for its end, at most ``seconds``: the server's code may ignore a cancellation."""
        if not task.done():
            task.cancel()
            await asyncio.wait((cast("asyncio.Task[None]", task),), timeout=seconds)

    @staticmethod
    def is_cancellation(error: BaseException) -> bool:
        """Whether ``error`` is what is raised in a task that is cancelled. Any thread."""
        return issubclass(type(error), asyncio.CancelledError)  # isinstance() would ask the error's own __class__

    @classmethod
    def was_cancelled(cls, error: BaseException) -> bool:
        """Whether ``error`` says that the current task is cancelled itself, and not what it awaits.

        Python 3.10 cannot tell, and says no.
        """
        if sys.version_info >= (3, 11) and cls.is_cancellation(error):
            task = asyncio.current_task()
            return task is not None and task.cancelling() > 0
        return False

    @staticmethod
    async def go_round() -> None:
        """Let everything else that is ready go first, once."""
        await asyncio.sleep(0)

    async def to_thread(self, function: Callable[..., object], *args: object) -> None:
        """Call a function that may block, as on a disk, in a thread of the loop's own executor."""
        await self.loop.run_in_executor(None, function, *args)

    async def connect(self, protocol: asyncio.Protocol, sock: socket.socket, high_water: int) -> Transport:
        """Have ``protocol`` read and write a connected socket.

        Args:
            protocol: Called on the loop thread.
            sock: The socket, which does not block. The transport closes it.
            high_water: How many bytes may wait to be written before ``pause_writing()`` is called.
        """
        is_unix = sock.family == getattr(socket, "AF_UNIX", None)  # there is none on Windows
        connect: Any = self.loop.create_unix_connection if is_unix else self.loop.create_connection
        transport: asyncio.Transport = (await connect(lambda: protocol, sock=sock))[0]
        transport.set_write_buffer_limits(high=high_water)
        return transport

    @staticmethod
    def shielded() -> contextlib.AbstractContextManager[object]:
        """Within it a clean-up may wait, though its task was cancelled. asyncio cancels but one wait of a task."""
        return contextlib.nullcontext()


def running_trio() -> TrioRun | None:
    """The run of trio that the current task belongs to; None if that is no task of trio's. Any thread.

    trio is not imported for it: who runs it has imported it.
    """
    if sys.modules.get("trio") is None:
        return None
    from . import runtime_trio  # noqa: PLC0415 - it imports trio

    return runtime_trio.running()


def runtime_of(loop: asyncio.AbstractEventLoop | TrioRun) -> Runtime:
    """The verbs of one loop of asyncio's, or of one run of trio. Loop thread."""
    if sys.modules.get("trio") is not None:
        from .runtime_trio import TrioRun, TrioRuntime  # noqa: PLC0415 - it imports trio

        if isinstance(loop, TrioRun):
            return TrioRuntime(loop)
    return Runtime(cast("asyncio.AbstractEventLoop", loop))
