"""Answers only when it is let: it holds a worker for as long as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from a2wsgi.wsgi_typing import Environ, StartResponse
from support.lockstep import Signal


class Waiting:
    """An app that waits in its call.

    Attributes:
        entered: Set when it is first called.
        let: To be set to let it answer, and all later calls.
        threads: Those that called it.
    """

    def __init__(self) -> None:
        self.entered = Signal("the app was entered")
        self.let = Signal("the app was let go")
        self.threads: list[threading.Thread] = []

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.threads.append(threading.current_thread())
        self.entered.set()
        self.let.wait()
        start_response("200 OK", [])
        return [b"done"]
