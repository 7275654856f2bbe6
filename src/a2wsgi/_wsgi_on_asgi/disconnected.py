"""``environ["a2wsgi.disconnected"]``: whether the client has left. And which request a thread works for.

Strategy
    There is no lock: hardly any app looks, and each request has one of these. A thread that waits first leaves its gate
    in a list, and then looks whether the request is over. Whoever ends the request first says so, and then opens the
    gates in the list. So one of the two always sees the other.

    The context in which the app runs has the request's own one of these in `current_request`. A thread that the app
    starts with a copy of that context works for the request, too.

Guarantees
    - Nobody goes on waiting when the response has ended, the request is over, or its loop is closed.
    - A callback given to `_join` is called at most once, and not after the request.
    - A call that has entered by `_enter` is told to end at most once: when the request is aborted, or is over.
    - An abort is raised in the app by at least one read, write or call. From then on calls may enter until the request
      is over: they clean up.

Assumes
    `a2wsgi._threads` says what is one step without a lock, and why one of the two sees the other.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
import time
from typing import TYPE_CHECKING

from a2wsgi._errors import ClientDisconnected
from a2wsgi._log import logger
from a2wsgi._threads.finalizers import refuse_within_finalizer
from a2wsgi._threads.stream import LOOK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from a2wsgi._nested import Pair
    from a2wsgi._threads.runtime import Runtime

#: The request that the app's code works for. It is this small object, and not the request, since a thread may keep its
#: context for long.
current_request: contextvars.ContextVar[Disconnected] = contextvars.ContextVar("a2wsgi_request")


class AbortReason:
    """Makes the errors of one abort, a new one for each that is raised, and remembers whether the app has got one.

    Args:
        make: Makes one.
        told: Whether the app knows already.

    Attributes:
        make: Makes one for a call that may end before it gets the error, and so does not count as told.
        told: The app has got one, or knows already.
    """

    __slots__ = ("make", "told")

    def __init__(self, make: Callable[[], BaseException], *, told: bool = False) -> None:
        self.make = make
        self.told = told

    def __call__(self) -> BaseException:
        """Make one, which is about to be raised in the app."""
        self.told = True
        return self.make()


class _Entry:
    """Who is to be told of an abort.

    Attributes:
        callback: Called with an error.
        is_call: It belongs to a call, which is also told when the request is over.
        given: The error that it was called with; None once the call has left, as its traceback leads back here.
    """

    __slots__ = ("callback", "given", "is_call")

    def __init__(self, callback: Callable[[BaseException], object], *, is_call: bool) -> None:
        self.callback = callback
        self.is_call = is_call
        self.given: BaseException | None = None


class Disconnected:
    """Whether the client has left. A long-running app can check it, or wait for it.

    What is private here is for the bridges: `_join` for one further in, whose app waits elsewhere, `_enter` for
    `run_in_loop`, and the rest for the request itself.

    Threading: any thread may call anything.
    """

    __slots__ = ("_abort_error", "_gates", "_is_set", "_on_abort", "_over", "_pair", "_runtime")

    def __init__(self, runtime: Runtime | None = None) -> None:
        self._runtime = runtime  # of the request's loop; None when the request is over
        self._is_set = False
        self._over = False
        self._gates: list[threading.Lock] = []  # of the threads that wait
        self._abort_error: AbortReason | None = None  # of `_end_calls`
        self._on_abort: list[_Entry] = []
        #: What the bridge further in tells this one, if the app is an ASGI app in a bridge. Written by the worker
        #: thread within the call of the app; read by it from then on, and by the loop thread once it has a chunk or the
        #: end of the response.
        self._pair: Pair | None = None

    def is_set(self) -> bool:
        """Return whether the client has left, or the request was aborted for another reason."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the client has left, the response has ended, or ``timeout`` seconds have passed.

        Returns:
            Whether the client has left, or the request was aborted for another reason.

        Raises:
            AppError: The thread runs the server's event loop, which must not wait.
        """
        if not self._over and (timeout is None or timeout > 0) and (runtime := self._runtime) is not None:
            runtime.refuse_loop_thread()
        gate = threading.Lock()
        gate.acquire()
        # The race: 1. This thread is about to wait. 2. The request ends, and opens the gates that it finds. 3. This
        # thread waits at one that nobody will open. So the gate is left before the look, see "Strategy".
        self._gates.append(gate)
        deadline = None if timeout is None else time.monotonic() + max(timeout, 0)
        seconds = 0.0
        while not self._over and seconds >= 0:
            seconds = LOOK_SECONDS if deadline is None else min(deadline - time.monotonic(), LOOK_SECONDS)
            if gate.acquire(timeout=max(seconds, 0)):
                break
            if (runtime := self._runtime) is not None and runtime.is_closed():  # nobody is left to open the gate
                self._is_set = self._over = True
            refuse_within_finalizer("wait()")
        with contextlib.suppress(ValueError):  # whoever opened it has taken it out
            self._gates.remove(gate)
        return self._is_set

    def __repr__(self) -> str:
        """Say whether it is set."""
        return f"<Disconnected {'set' if self._is_set else 'unset'}>"

    def _join(self, pair: Pair, on_abort: Callable[[BaseException], object]) -> None:
        """Take what a bridge further in has to tell. See `a2wsgi._nested.join`. Worker thread."""
        self._pair = pair
        # The race: 1. The request is aborted, and calls the callbacks that it finds. 2. This thread adds one more. So
        # it looks after it has added it; whoever takes a callback out of the list is the one to call it.
        self._on_abort.append(_Entry(on_abort, is_call=False))
        if self._abort_error is not None:
            self._call_back(self._abort_error, calls=False)

    def _enter(self, end: Callable[[BaseException], object]) -> Callable[[BaseException | None], None] | None:
        """Have ``end`` called with an error when the request is aborted or over. Any thread that works for the request.

        Returns:
            What the caller must call when it is through, with what it raises, if anything; None if the request is over.

        Raises:
            BaseException: The error of an abort that the app has not heard of yet.
        """
        entry = _Entry(end, is_call=True)
        # The race is that of `_join`: whoever aborts or ends the request says so first, and looks for entries next.
        self._on_abort.append(entry)
        leave = functools.partial(self._leave, entry)
        try:
            self._check()
        except BaseException:
            leave(None)
            raise
        if self._runtime is None:
            leave(None)
            return None
        return leave

    def _check(self) -> None:
        """Raise the error of an abort that the app has not heard of yet. Any thread that works for the request."""
        error = self._abort_error
        if error is not None and not error.told:
            raise error()

    def _leave(self, entry: _Entry, raised: BaseException | None) -> None:
        with contextlib.suppress(ValueError):  # whoever has called it has taken it out
            self._on_abort.remove(entry)
        # 1. The coroutine ends. 2. The request is aborted, and the call is told to end. 3. The thread has a result, and
        # leaves. So the app has not heard of the abort, unless it is what the call raises.
        if raised is not None and raised is entry.given and self._abort_error is not None:
            self._abort_error.told = True
        entry.given = None

    def _note(self) -> None:
        """Say that the client has left to an app that looks, but not yet to one that waits: `_abort` follows."""
        self._is_set = True

    def _set(self) -> None:
        """Say that the client has left, though the request goes on."""
        self._is_set = self._over = True
        self._open_gates()

    def _end_calls(self, error: AbortReason) -> None:
        """End the calls that have entered, unless the app knows already. The first step of an abort; `_abort` follows.

        It comes before anybody is woken: 1. A thread is woken, by a read or a write that fails. 2. It cleans up by a
        call. 3. The calls are ended, and that one is not to be among them.

        Those of an app that knows have the time that a cancelled call has: one may be no clean-up, but that of another
        thread for which the app waits.
        """
        self._abort_error = error
        if not error.told:
            self._call_back(error, calls=True)
        elif (calls := [entry for entry in self._on_abort.copy() if entry.is_call]) and self._runtime is not None:
            from a2wsgi._threads.call import GRACE_SECONDS  # noqa: PLC0415 - loaded only if there are calls

            end = functools.partial(self._call_back, error, calls=True, entries=calls)
            with contextlib.suppress(RuntimeError):  # the loop was closed, and a call finds that out by itself
                self._runtime.call_later(GRACE_SECONDS, end)

    def _abort(self, error: AbortReason) -> None:
        """Say that the request is aborted. The app of a bridge further in gets ``error()``."""
        self._is_set = self._over = True
        self._call_back(error, calls=False)
        self._open_gates()

    def _response_ended(self) -> None:
        """Say that nobody waits any longer, though the worker thread is not done with the request."""
        self._over = True
        self._open_gates()

    def _finish(self) -> None:
        """Say that the request is over: nobody waits any longer, calls end, and no other callback is called."""
        self._over = True
        self._runtime = None
        if self._gates:
            self._open_gates()
        if self._on_abort:
            self._call_back(_request_is_over, calls=True)
            self._on_abort.clear()  # they hold the environ, which holds this

    def _call_back(
        self, error: Callable[[], BaseException], *, calls: bool, entries: Iterable[_Entry] | None = None
    ) -> None:
        """Call what `_enter` was given, or what `_join` was. Whoever takes it out of the list is the one to call it.

        Args:
            error: Makes what to call it with.
            calls: Which of the two.
            entries: Those to call, as far as they are still in the list; None for all.
        """
        for entry in self._on_abort.copy() if entries is None else entries:
            if entry.is_call is not calls:
                continue
            try:
                self._on_abort.remove(entry)
            except ValueError:  # another thread was faster
                continue
            try:
                entry.given = given = error.make() if calls and isinstance(error, AbortReason) else error()
                entry.callback(given)
            except Exception:  # noqa: BLE001 - one that fails must neither keep the others from it nor stop an ending
                logger.exception("A callback for an aborted request failed")

    def _open_gates(self) -> None:
        # Not `while self._gates`: pop() takes the list's own lock, so that whoever leaves a gate afterwards sees _over.
        with contextlib.suppress(IndexError):  # there is none, or none any more
            while True:
                self._gates.pop().release()


def _request_is_over() -> ClientDisconnected:
    return ClientDisconnected("its response is complete")
