"""A startup or a stop of a bridge that is under way, and the threads that wait for it.

Guarantees
    - Each wait has a bound. No thread waits for itself: neither the one that runs the loop, nor a signal handler in the
      one that is at it.
    - Whoever waits for a startup that fails gets an error of its own.

Assumes
    Whoever begins one ends it by setting ``over``, whatever is raised. `Lifetime` sees to that, and holds no lock while
    anything here waits.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Literal

from a2wsgi._errors import BridgeError, LifespanFailed

from .faults import one_more

if TYPE_CHECKING:
    from .loops.host import LoopHost


class Change:
    """One attempt to start an app up or to stop it, for which several threads may wait.

    Args:
        kind: Which of the two.

    Attributes:
        over: Set at its end.
        host: The loop on which it goes on, whose thread must not wait for it. None as long as there is none.
        thread: The thread that is at it, whose signal handlers must not wait for it, either.
        error: What a startup failed with. Written before ``over`` is set.
        is_given_up: `Lifetime.stop` has waited for this startup in vain. Guarded by the lock of the `Lifetime`.
    """

    def __init__(self, kind: Literal["startup", "stop"]) -> None:
        self.is_startup = kind == "startup"
        self.over = threading.Event()
        self.host: LoopHost | None = None
        self.thread = threading.get_ident()
        self.error: Exception | None = None
        self.is_given_up = False

    def is_here(self) -> bool:
        """Whether the calling thread is at it: a signal handler of it asks, or the app with ``inline=True``."""
        return self.thread == threading.get_ident()

    def refuse_own_thread(self) -> None:
        """Raise if the calling thread runs the loop on which the app is started up, and is not the one that waits.

        Raises:
            BridgeError: It does. It may be the app itself.
        """
        if self.is_startup and self.host is not None and not self.is_here():
            self.host.refuse_own_thread()

    def wait(self, seconds: float) -> bool:
        """Wait until it is over, at most ``seconds``. False if it is not, at once if the calling thread is at it.

        Raises:
            BridgeError: The calling thread runs the loop on which it goes on.
        """
        if self.is_here():
            return self.over.is_set()
        if self.host is not None:
            self.host.refuse_own_thread()
        return self.over.wait(seconds)

    def let_end(self, seconds: float) -> None:
        """Wait for a stop, at most ``seconds``, unless the calling thread must not. A startup is not waited for."""
        if not self.is_startup:
            with contextlib.suppress(BridgeError):  # it runs the loop
                self.wait(seconds)

    def fail(self, error: BaseException) -> None:
        """Say what those who wait are to get. An interruption was meant for the thread that started the app alone."""
        if isinstance(error, Exception):
            self.error = error
        else:
            self.error = BridgeError(
                "The app's startup, which several requests were waiting for, was interrupted by "
                f"{type(error).__name__}. The next request tries it again."
            )

    def await_startup(self, seconds: float, startup_timeout: float) -> None:
        """Wait for another request's startup, at most ``seconds``. Raises an error of its own if that fails."""
        if self.host is not None:
            self.host.refuse_own_thread()  # with inline=True the app itself may call the bridge as it starts up
        if not self.wait(seconds):
            raise LifespanFailed(
                "The app's startup, which another request had begun, took longer than "
                f"startup_timeout={startup_timeout} s. Make it faster, or raise startup_timeout."
            )
        if self.error is not None:
            raise one_more(self.error)

    def await_stop(self, seconds: float) -> None:
        """Wait for a stop that another thread is at, at most ``seconds``."""
        if self.host is not None:
            self.host.refuse_own_thread()  # with inline=True the app itself may call it as it is shut down
        if not self.wait(seconds):
            raise BridgeError(
                f"The bridge is still stopping after {seconds:g} s: blocking code holds up the thread of its event "
                "loop. Run such code in another thread (asyncio.to_thread)."
            )
