"""When the demo's streams end, which have no end of their own: as soon as their server is told to stop.

Servers wait for the responses that run, and have nothing but the signal to tell an app that it is time.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

#: Set when the server begins to stop.
stopping = threading.Event()


def watch() -> None:
    """Set ``stopping`` on the signals that stop a server, besides what that does. Called in the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)

        def stop(*arguments: Any, before: Any = before) -> None:  # noqa: ANN401 - what the server's handler takes
            stopping.set()
            before(*arguments)

        if callable(before):
            signal.signal(number, stop)
