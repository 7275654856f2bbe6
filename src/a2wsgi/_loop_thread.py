"""Where an event loop runs that server threads wait for: in a thread of ours, in one of the user's, or in theirs.

Strategy
    `ThreadHost` is the one loop thread of a process, shared by all bridges. It is started by the first that needs it,
    and ends with the last. `GivenHost` is a loop that the user runs elsewhere. `InlineHost` is a loop without a thread:
    it is run by the server thread that waits for it, until there is what that thread waits for.

    A server thread waits at a *gate* that its host gives out and that the loop opens. At a host with a thread, a gate
    is a lock. At an inline host, waiting at the gate is running the loop, and opening it is stopping the loop: so all
    above this file is the same for both.

Guarantees
    - A loop that has ended, for whatever reason, says so by `trouble`, and fails the requests on it.
    - The shared thread ends with its last tenant, with nothing left of it: no task, no descriptor, no executor.
    - ``SystemExit`` in a task of the app's does not end the shared thread.
    - Under gevent's monkey-patching the shared loop has a real thread: no greenlet of the server's sees it running, and
      they go on while one waits at a gate, which is then gevent's.

Assumes
    `adopt_orphans` is called in a forked child before anything else here.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import importlib
import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from ._errors import BridgeError
from ._event_loop import AmongGreenlets, Loop, gevent_start_thread, new_event_loop
from ._runtime import Doorbell, Host

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from ._to_server import ToServer


__all__ = ["GivenHost", "InlineHost", "Place", "Tenant", "ThreadHost", "adopt_orphans", "expect_given"]

logger = logging.getLogger("a2wsgi")

_T = TypeVar("_T")

#: How often a thread that waits for `Place.run` looks whether the loop still runs, in seconds. As in _handoff.
SIGN_SECONDS = 0.5

#: How long cancelled tasks may take to end when their loop does, in seconds. Arbitrary.
CANCEL_SECONDS = 1.0

#: How often an inline loop goes round after a request that was given up, for what its app has left: asynchronous
#: generators are closed by tasks of their own. Arbitrary.
ROUNDS = 10

#: Guards _shared and the tenants of each host. Never held while anything is waited for.
_lock = threading.Lock()
_shared: ThreadHost | None = None

#: What a forked child inherited. Kept, since to close it would reach into the parent: the two share an epoll instance.
_orphans: list[object] = []
#: The loops of the user's that ran in a thread when the process was forked: in the child that thread is not.
_lost_in_fork: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_given: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


class Tenant(Protocol):
    """Who relies on a loop."""

    def lost(self, host: Place, error: BaseException) -> None:
        """The loop was stopped under the tenant. Loop thread; tasks are cancelled next."""


# -- Where a loop runs ------------------------------------------------------------------------------------------------


class Place(Host):
    """What the three kinds of hosts share."""

    __slots__ = ()

    @property
    def turn(self) -> threading.RLock | None:
        """What a request holds until its response begins, where they run one at a time. A server thread."""
        return None

    def refuse_own_thread(self) -> None:
        """Raise if the calling thread runs this very loop: it would wait for itself for ever."""
        if asyncio._get_running_loop() is self.loop:  # noqa: SLF001 - public to authors of event loops
            raise BridgeError(
                "The bridge was called synchronously on the thread of its own event loop, which would wait for itself "
                "for ever. Call it in another thread (asyncio.to_thread), or await the ASGI app itself."
            )

    def run(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine on the loop and wait for it. Any thread but the loop's.

        Raises:
            BridgeError: The loop ended meanwhile.
        """
        trouble = self.trouble() if self.loop.is_closed() else None  # one that does not run yet may do so soon
        if trouble is not None:
            raise trouble
        future = asyncio.run_coroutine_threadsafe(_called(make), self.loop)
        try:
            while not concurrent.futures.wait((future,), SIGN_SECONDS).done:
                trouble = self.trouble()
                if trouble is not None:
                    raise trouble  # noqa: TRY301 - cancelled like any other end of the wait
        except BaseException:
            future.cancel()
            raise
        return future.result()

    def see_out(self, stream: ToServer, seconds: float) -> None:
        """Let a request end that is given up and will be cancelled after ``seconds``. A server thread.

        A loop with a thread of its own does that by itself.
        """

    def leave_host(self, tenant: Tenant) -> None:
        """Let ``tenant`` go; who has none left ends. Any thread."""

    def join(self, seconds: float) -> None:
        """Wait until a host without tenants has ended. Any thread but the loop's."""


async def _called(make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    # Made on the loop: if the loop is closed before that, there is no coroutine that was never awaited.
    return await make()


class GivenHost(Place):
    """A loop that the user runs in a thread of his own."""

    __slots__ = ()

    def trouble(self) -> BaseException | None:
        """See `Host`."""
        if self.loop.is_running() and self.loop not in _lost_in_fork:
            return None
        return BridgeError(
            f"The event loop that was given as loop= does not run: {self.loop!r}. Nobody will answer the request. "
            "Run it in a thread of this process (threads do not survive a fork) for as long as requests come, or leave "
            "loop= out."
        )


class ThreadHost(Place):
    """A loop in a daemon thread of ours, shared by all bridges that want none of their own."""

    __slots__ = ("_ended", "_failure", "_ready", "_tenants", "_thread", "stopping")

    wakes_late = True

    def __init__(self) -> None:
        # Runtime's part is set up in the thread: under gevent a loop belongs to the thread that made it.
        self._tenants: set[Tenant] = set()  # guarded by the module's _lock
        self.stopping = False  # guarded by the same
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._failure: BaseException | None = None  # why there is no loop; written before _ready is set
        self._thread: threading.Thread | None = None

    @classmethod
    def take(cls, tenant: Tenant) -> ThreadHost:
        """A place for ``tenant`` on the process's one thread, which is started if there is none. Any thread."""
        global _shared  # noqa: PLW0603 - one per process is what it is for
        with _lock:
            host = _shared
            if host is None or host.stopping:
                host = _shared = cls()
                host.launch()
            host._tenants.add(tenant)
            return host

    def launch(self) -> None:
        """Start the thread. Once."""
        start = gevent_start_thread()
        if start is None:
            self._thread = threading.Thread(target=self._main, name="a2wsgi-loop", daemon=True)
            self._thread.start()
        else:
            # gevent imports a part of itself where a thread makes its first hub. Two that do so at once, ours and this
            # one, would wait for each other's locks for ever.
            importlib.import_module("gevent").get_hub()
            start(self._main, ())

    def wait_ready(self) -> None:
        """Wait until the loop is there. Any thread.

        Raises:
            BaseException: It could not be made.
        """
        while not self._ready.wait(SIGN_SECONDS):
            pass  # without a limit, gevent would say that nobody can ever wake the only greenlet: it counts no threads
        if self._failure is not None:
            raise self._failure

    def _main(self) -> None:
        """The loop thread, from its start to its end."""
        try:
            loop = new_event_loop()
            super().__init__(loop)
            if isinstance(loop, Loop):
                self.soon = loop.soon
                self.doorbell = _OwnBell(loop)
        except BaseException as error:  # noqa: BLE001 - raised by wait_ready()
            self._failure = error
            self.stopping = True
            self._ended.set()
            return
        finally:
            self._ready.set()
        try:
            while not self.stopping:
                try:
                    loop.run_forever()
                except (SystemExit, KeyboardInterrupt):
                    # asyncio lets these two out of a task of the app's, to end the process. They end a request at most.
                    logger.exception("A task of the app raised what ends a process; the loop goes on")
                else:
                    break  # it was stopped: by us, or by an app
            self._evict()
            _dispose(loop)
        finally:
            self._ended.set()

    def _evict(self) -> None:
        """Fail what still relies on a loop that was stopped by others. Loop thread."""
        global _shared  # noqa: PLW0603 - as in take()
        with _lock:
            self.stopping = True
            if _shared is self:
                _shared = None
            tenants, self._tenants = self._tenants, set()
        for tenant in tenants:
            tenant.lost(self, _stopped_under_us())

    def trouble(self) -> BaseException | None:
        """See `Host`."""
        return _stopped_under_us() if self._ended.is_set() else None

    def leave_host(self, tenant: Tenant) -> None:
        """See `Place`. The last tenant ends the thread."""
        global _shared  # noqa: PLW0603 - as in take()
        with _lock:
            self._tenants.discard(tenant)
            if self._tenants or self.stopping:
                return
            self.stopping = True
            if _shared is self:
                _shared = None
        with contextlib.suppress(RuntimeError):  # closed: it has ended already
            self.loop.call_soon_threadsafe(self.loop.stop)

    def join(self, seconds: float) -> None:
        """See `Place`."""
        if not self.stopping:
            return  # others live here
        self._ended.wait(seconds)
        if self._thread is not None and self._ended.is_set():
            self._thread.join()


class InlineHost(Place):
    """A loop that has no thread: who waits for it runs it.

    One thread at a time does. Another that comes meanwhile waits for its turn.
    """

    __slots__ = ("_closed", "_gate", "_hides", "_sign", "_turn")

    def __init__(self) -> None:
        # In no request's context: the handle of its self-pipe would keep that for ever.
        super().__init__(contextvars.Context().run(new_event_loop))
        if isinstance(self.loop, Loop):
            self.soon = self.loop.soon
        # Held by the thread that runs the loop, or touches what is on it; and by a request until its response begins.
        self._turn = threading.RLock()
        self.doorbell = _DirectBell(self.loop, self._turn)
        self._closed = False
        self._hides = isinstance(self.loop, AmongGreenlets)  # by itself what else runs in the thread
        self._gate: _InlineGate | None = None  # at which the thread that runs the loop waits
        self._sign: asyncio.TimerHandle | None = None

    @property
    def turn(self) -> threading.RLock | None:
        """See `Place`."""
        return self._turn

    def gate(self) -> threading.Lock:
        """See `Host`. Waiting at it runs the loop."""
        return cast("threading.Lock", _InlineGate(self))

    def trouble(self) -> BaseException | None:
        """See `Host`."""
        return _stopped_under_us() if self._closed else None

    def drive(self, gate: _InlineGate, seconds: float) -> None:
        """Run the loop until ``gate`` is open, or for ``seconds``, or for a while: whoever waits is to look around."""
        with self._turn:
            loop = self.loop
            timer = None
            if 0 <= seconds < self.sign_seconds:
                timer = loop.call_later(seconds, gate.give_up, context=self._context)
            if self._sign is None:  # one for many waits: to set it for each would cost more than most take
                self._sign = loop.call_later(self.sign_seconds, self._give_sign, context=self._context)
            outer_gate, self._gate = self._gate, gate
            gate.expired = False
            # gunicorn's tornado worker calls us on a thread whose loop is running.
            outer = None if self._hides else asyncio._get_running_loop()  # noqa: SLF001 - as in _outside_any_loop()
            try:
                if outer is not None:
                    asyncio._set_running_loop(None)  # noqa: SLF001 - as above
                while gate.closed and not gate.expired:
                    loop.run_forever()
            finally:
                self._gate = outer_gate
                if outer is not None:
                    asyncio._set_running_loop(outer)  # noqa: SLF001 - as above
                if timer is not None:
                    timer.cancel()

    def _give_sign(self) -> None:
        self._sign = None
        if self._gate is not None:
            self._gate.give_up()

    def see_out(self, stream: ToServer, seconds: float) -> None:
        """See `Place`. Now or never: between requests nothing runs."""
        stream.wait_left(seconds + CANCEL_SECONDS)
        with self._turn, _outside_any_loop():
            for _ in range(ROUNDS):
                self.loop.call_soon(self.loop.stop)
                self.loop.run_forever()

    def run(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """See `Place`."""
        with self._turn:
            if self._closed:
                raise _stopped_under_us()
            with _outside_any_loop():
                return self.loop.run_until_complete(make())

    def leave_host(self, tenant: Tenant) -> None:  # noqa: ARG002 - it has no other
        """See `Place`."""
        with self._turn:
            if not self._closed:
                self._closed = True
                with _outside_any_loop():
                    _dispose(self.loop)


class _InlineGate:
    """What a server thread waits at in `InlineHost`; has what is used of ``threading.Lock``."""

    __slots__ = ("_host", "closed", "expired")

    def __init__(self, host: InlineHost) -> None:
        self._host = host
        self.closed = True
        self.expired = False  # the wait is over, though nobody has opened it

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002 - as Lock's
        if self.closed and blocking:
            self._host.drive(self, timeout)
        return not self.closed

    def release(self) -> None:
        self.closed = False
        self._host.loop.stop()

    def give_up(self) -> None:
        if self.closed:
            self.expired = True
            self._host.loop.stop()


class _OwnBell(Doorbell):
    """A doorbell of a loop that has one itself."""

    __slots__ = ("_loop",)

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self._loop = loop

    def ring(self, function: Callable[[Any], object], argument: Any) -> bool:  # noqa: ANN401 - as Doorbell's
        """See `Doorbell`."""
        return self._loop.ring(function, argument)


class _DirectBell(Doorbell):
    """A doorbell for a loop that nobody runs just now: what is rung is called at once."""

    __slots__ = ("_turn",)

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: threading.RLock) -> None:
        super().__init__(loop)
        self._turn = turn

    def ring(self, function: Callable[[Any], object], argument: Any) -> bool:  # noqa: ANN401 - as Doorbell's
        """See `Doorbell`."""
        if self.loop.is_closed():
            return False
        with self._turn:
            function(argument)
        return True


# -- Fork -------------------------------------------------------------------------------------------------------------


def expect_given(loop: asyncio.AbstractEventLoop) -> None:
    """Know of a loop that was given as ``loop=``, in case the process is forked."""
    _given.add(loop)


def adopt_orphans(inherited: object) -> None:
    """Forget, in a forked child, every loop and thread that it inherited, and keep ``inherited`` unused for ever."""
    global _lock, _shared  # noqa: PLW0603 - as in ThreadHost.take()
    _orphans.append((_shared, inherited))
    _lock = threading.Lock()  # another thread of the parent may have held it
    _shared = None
    _lost_in_fork.update(loop for loop in _given if loop.is_running())


# -- Helpers ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _outside_any_loop() -> Generator[None, None, None]:
    """Hide the loop that runs in this thread, if one does, so that another can be run."""
    outer = asyncio._get_running_loop()  # noqa: SLF001 - public to authors of event loops, says its docstring
    asyncio._set_running_loop(None)  # noqa: SLF001 - as above
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)  # noqa: SLF001 - as above


def _dispose(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left on a loop that does not run, and close it, as ``asyncio.run`` does."""
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=CANCEL_SECONDS))
        loop.run_until_complete(loop.shutdown_asyncgens())
        with contextlib.suppress(RuntimeError):  # it needs a thread, which Python 3.12.0 to 3.12.2 has none of at exit
            loop.run_until_complete(loop.shutdown_default_executor())
    except (Exception, SystemExit, KeyboardInterrupt):  # of tasks of the app's, at their last gasp
        logger.exception("What an app had left on the event loop did not end well")
    finally:
        loop.close()


def _stopped_under_us() -> BridgeError:
    return BridgeError(
        "The event loop was stopped while the request was on it: the app called loop.stop(), or the process ends. "
        "Nobody will answer the request. The next one starts another loop."
    )
