"""Starts a thread, and does not wait for ever for one that dies as it starts.

*Facts*

- ``Thread.start()`` returns when the new thread says that it runs. If that dies first, for want of memory say, the
  caller waits for ever, with the locks that it holds (python/cpython#140746).
- Up to Python 3.11 a new thread has the number of the one that starts it, for a moment. An exception that somebody
  raises into that one by its number (``stopit``) may come out in the new one.
"""

from __future__ import annotations

import contextvars
import threading
from typing import Any, cast

#: Seconds that a thread may take to say that it runs. Arbitrary: long for a busy machine, short for a loop that waits.
START_SECONDS = 5.0


class _Running(threading.Event):
    """What a new thread sets, and ``Thread.start()`` waits for."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(START_SECONDS if timeout is None else timeout)


def start_thread(thread: threading.Thread) -> None:
    """Start a thread, in an empty context: free-threaded Pythons would copy the caller's, a request's.

    When this returns, it may be dead without having run, or be so late that it runs afterwards: ``is_alive()`` is false
    in either case.

    Raises:
        RuntimeError: The system has no thread to give.
    """
    cast("Any", thread)._started = _Running()  # noqa: SLF001 - start() takes no timeout
    contextvars.Context().run(thread.start)
