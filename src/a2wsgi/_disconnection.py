"""Whether a request's client has left: what an app may look at, or wait for, between two reads or writes.

Strategy
    It has no lock: hardly any request is watched, and each has one of these. A watcher first leaves its gate, then
    looks; `Disconnection.finish` first says that it is over, then opens the gates: one of them always sees the other.

Guarantees
    - Nobody waits on once the request is over.
    - What `Disconnection.tell` was given is called once, and not after the request.

Assumes
    ``append``, ``pop`` and ``remove`` of a list are atomic.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._types import Message

__all__ = ["Disconnection"]


class Disconnection:
    """Whether the client has left: ``environ["a2wsgi.disconnected"]``, for an app between two reads or writes.

    A bridge further in is told as well, by `tell`: it waits elsewhere. And it tells us what PEP 3333 has no word for:
    that an app has failed after its response, and what goes to an ASGI server by extensions.

    Threading: any thread may call `is_set`, `wait` and `tell`.
    """

    __slots__ = ("_error", "_gates", "_happened", "_over", "_told", "from_asgi", "late_failure", "messages", "trailers")

    def __init__(self) -> None:
        #: The response is an ASGI app's, further in: its head need not wait for a chunk. Written by the worker thread.
        self.from_asgi = False
        #: What an ASGI app further in has raised after its response was complete. Written by the worker thread.
        self.late_failure: BaseException | None = None
        #: What it sends by extensions of ASGI, for the server: taken out and sent with the next part of the response.
        #: Appended by its loop thread.
        self.messages: list[Message] = []
        #: The same, after its body; None if it has not said that there will be trailers.
        self.trailers: list[Message] | None = None
        self._happened = False
        self._over = False
        self._gates: list[threading.Lock] = []  # of the threads that wait; its append, pop and remove are atomic
        self._error: Callable[[], BaseException] | None = None  # what `give_up` was given
        self._told: list[Callable[[BaseException], object]] = []  # as the gates

    def is_set(self) -> bool:
        """Whether the client has left, or the request was given up for another reason."""
        return self._happened

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the client has left, the request is over, or ``timeout`` seconds have passed.

        Returns:
            Whether the client has left.
        """
        gate = threading.Lock()
        gate.acquire()
        self._gates.append(gate)
        if not self._over:
            gate.acquire(timeout=-1 if timeout is None else max(timeout, 0))
        with contextlib.suppress(ValueError):  # finish() has taken it
            self._gates.remove(gate)
        return self._happened

    def tell(self, callback: Callable[[BaseException], object]) -> None:
        """Have ``callback`` called once, with an error for the app, if the request is given up. It must not wait."""
        self._told.append(callback)
        if self._error is not None:
            self._call_told(self._error)

    def set(self) -> None:
        """Say that the client has left. Any thread."""
        self._happened = self._over = True
        self._open_gates()

    def note(self) -> None:
        """Say that the client has left, to who looks. Whoever waits is woken by what follows: `give_up`. Any thread."""
        self._happened = True

    def give_up(self, error: Callable[[], BaseException]) -> None:
        """Say that the request is given up, with what its app gets. Any thread."""
        self._error = error
        self.set()
        self._call_told(error)

    def finish(self) -> None:
        """Say that the request is over: nobody waits any more, nor is told. Any thread."""
        self._over = True
        if self._gates:
            self._open_gates()
        if self._told:
            self._told.clear()  # they know of the environ, which knows of this

    def _call_told(self, error: Callable[[], BaseException]) -> None:
        while self._told:
            with contextlib.suppress(IndexError):  # as below
                self._told.pop()(error())

    def _open_gates(self) -> None:
        while self._gates:
            with contextlib.suppress(IndexError):  # its thread, or another finish(), was quicker
                self._gates.pop().release()

    def __repr__(self) -> str:
        """Say whether it is set."""
        return f"<Disconnection {'set' if self._happened else 'unset'}>"
