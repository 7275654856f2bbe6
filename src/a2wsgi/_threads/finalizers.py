"""No finalizer waits for the loop in the middle of our own code, where the thread may hold a lock that the loop needs.

The race, on one thread of the app's: 1. It queues a chunk, and holds the lock of the stream. 2. The garbage collector
runs right there, and with it the ``__del__`` of an object of the app's. 3. That calls `run_in_loop`, and waits. 4. The
loop wants the lock, and waits for the thread, as do all the requests that it serves.

So whoever is about to wait looks first whether it was called from there. For a call, which costs many times as much, it
looks each time; a read, a write or a wait for the disconnect looks once it has waited for a second.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from a2wsgi._errors import AppError

if TYPE_CHECKING:
    from types import FrameType

#: The modules with a lock that both a thread of the app's and the loop take. None of them calls the app's code.
LOCKING = frozenset(
    {
        "a2wsgi._threads.runtime",
        "a2wsgi._threads.stream",
        "a2wsgi._wsgi_on_asgi.websocket.passages",
        "a2wsgi._wsgi_on_asgi.streams",
    }
)


class _FinalizerError(AppError, RuntimeError):
    """Also a RuntimeError, as is what a call on a loop's thread gets."""


def refuse_within_finalizer(what: str) -> None:
    """Raise if the caller was called in the middle of our code, as only the garbage collector does.

    Args:
        what: What was called, for the error.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    waits = True  # the frames seen so far are those of the wait itself
    while frame is not None and frame.f_code.co_name != "_run_app":  # it calls the app, and holds no lock
        if frame.f_globals.get("__name__") not in LOCKING:
            waits = False
        elif not waits:
            raise _FinalizerError(
                f"{what} was called by a finalizer that Python ran in the middle of the bridge's own code. There it "
                "would wait for the server's event loop, and the loop for the thread that it runs on. Do not wait in "
                "__del__: close what needs the loop in the app, by a with statement or in the iterable's close()."
            )
        frame = frame.f_back
