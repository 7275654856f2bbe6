"""An iterable that counts what is done to it, and in which threads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator

from a2wsgi.wsgi_typing import Environ, StartResponse
from support.lockstep import Signal


class Counting:
    """An app that answers each request with the same chunks.

    Args:
        chunks: What the iterable gives; an exception is raised in its place, a callable called for its chunk.
        status: The status line.
        headers: The response's.
        close_error: What ``close()`` raises.

    Attributes:
        started: Set when the app is first called.
        closed: Set when ``close()`` has run.
        given: How many chunks were asked for and given, in all.
        closes: How often ``close()`` was called.
        threads: Those that called the app, the iterable or ``close()``.
    """

    def __init__(
        self,
        chunks: Iterable[bytes | BaseException | Callable[[], bytes]],
        status: str = "200 OK",
        headers: Iterable[tuple[str, str]] = (),
        close_error: BaseException | None = None,
    ) -> None:
        self.chunks = chunks
        self.status = status
        self.headers = list(headers)
        self.close_error = close_error
        self.started = Signal("the app was called")
        self.closed = Signal("close() was called")
        self.calls = 0
        self.given = 0
        self.closes = 0
        self.threads: set[threading.Thread] = set()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.calls += 1
        self.threads.add(threading.current_thread())
        start_response(self.status, self.headers)
        self.started.set()
        return _Iterable(self)


class _Iterable:
    def __init__(self, app: Counting) -> None:
        self.app = app
        self.chunks = iter(app.chunks)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.app.threads.add(threading.current_thread())
        chunk = next(self.chunks)
        if isinstance(chunk, BaseException):
            raise chunk
        self.app.given += 1
        return chunk if isinstance(chunk, bytes) else chunk()

    def close(self) -> None:
        self.app.threads.add(threading.current_thread())
        self.app.closes += 1
        self.app.closed.set()
        if self.app.close_error is not None:
            raise self.app.close_error


def endless(chunk: bytes = b"x" * 1024) -> Counting:
    """An app whose response never ends by itself."""
    return Counting(itertools.repeat(chunk))
