"""What the apps of the frameworks have in common: what they note, count and wait for, as their contract says."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import defaultdict
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import anyio

#: How long an app waits for what a test does, at most.
SECONDS = 10.0

#: Where an app is mounted that has to be told beforehand.
PREFIX = "/base"

SECRET = "a secret that signs the cookies of a test"

_events: defaultdict[str, list[str]] = defaultdict(list)
_gates: defaultdict[str, threading.Event] = defaultdict(threading.Event)
_parties: dict[int, threading.Barrier] = {}
_local = threading.local()


def note(name: str | None, event: str) -> None:
    """Note that something has happened, for a request that has a name."""
    if name:
        _events[name].append(event)


def noted(name: str) -> list[str]:
    """What has happened, in its order."""
    return list(_events[name])


class _Sum:
    """What is told of data."""

    def __init__(self) -> None:
        self._digest, self._length = hashlib.sha256(), 0

    def add(self, data: bytes) -> None:
        self._digest.update(data)
        self._length += len(data)

    def told(self) -> dict[str, Any]:
        return {"length": self._length, "sha256": self._digest.hexdigest()}


def summary(stream: Any) -> dict[str, Any]:
    """What a stream holds, read to its end piece by piece."""
    total = _Sum()
    while piece := stream.read(64 * 1024):
        total.add(piece)
    return total.told()


def summary_of_bytes(data: bytes) -> dict[str, Any]:
    """What they hold."""
    return summary(io.BytesIO(data))


async def summary_of(pieces: AsyncIterable[bytes]) -> dict[str, Any]:
    """What pieces hold that come one after the other."""
    total = _Sum()
    async for piece in pieces:
        total.add(piece)
    return total.told()


# -- For apps that wait in threads --------------------------------------------------------------------------------


def steps(name: str) -> Iterator[bytes]:
    """Two pieces; between them somebody must `go`."""
    yield b"one "
    if _gates[name].wait(SECONDS):
        yield b"two"


def go(name: str) -> None:
    """Let the steps of this name go on."""
    _gates[name].set()


def endless(name: str) -> Iterator[bytes]:
    """Pieces for as long as somebody takes them."""
    try:
        while True:
            yield b"x" * 16_384
    finally:
        note(name, "ended")


def breaks() -> Iterator[bytes]:
    """A piece, and an error."""
    yield b"one"
    raise ValueError("after the head")


_looking_up = threading.Lock()


def meet(size: int) -> None:
    """Wait until so many threads are here. The next as many make the next party."""
    with _looking_up:
        party = _parties.setdefault(size, threading.Barrier(size))
    party.wait(SECONDS)


def enter(name: str) -> str | None:
    """Keep a name in what belongs to this thread. Returns what another request has left there."""
    before: str | None = getattr(_local, "name", None)
    _local.name = name
    return before


def here() -> str | None:
    """The name that this thread keeps."""
    return getattr(_local, "name", None)


def leave() -> None:
    """Have this thread keep none: for the end of a request."""
    _local.__dict__.clear()


# -- For apps that wait in an event loop --------------------------------------------------------------------------

_async_gates: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)
_comers: dict[int, list[anyio.Event]] = {}
_context: ContextVar[str | None] = ContextVar("_context", default=None)


def tell(event: str) -> None:
    """Print what has happened to the app as a whole: startup or shutdown."""
    print(f"app: {event}", flush=True)  # noqa: T201 - into what the server prints, which a test reads


async def async_steps(name: str) -> AsyncIterator[bytes]:
    """As `steps`; `async_go` lets them go on."""
    yield b"one "
    with anyio.fail_after(SECONDS):
        await _async_gates[name].wait()
    yield b"two"


def async_go(name: str) -> None:
    """Let the steps of this name go on."""
    _async_gates[name].set()


async def async_endless(name: str) -> AsyncIterator[bytes]:
    """As `endless`."""
    try:
        while True:
            yield b"x" * 16_384
    finally:
        note(name, "ended")


async def async_breaks() -> AsyncIterator[bytes]:
    """As `breaks`."""
    yield b"one"
    raise ValueError("after the head")


async def async_meet(size: int) -> None:
    """As `meet`."""
    here = anyio.Event()
    comers = _comers.setdefault(size, [])
    comers.append(here)
    if len(comers) == size:
        del _comers[size]
        for comer in comers:
            comer.set()
    with anyio.fail_after(SECONDS):
        await here.wait()


def enter_context(name: str) -> str | None:
    """Keep a name in what belongs to this task. Returns what another request has left there."""
    before = _context.get()
    _context.set(name)
    return before


def in_context() -> str | None:
    """The name that this task keeps."""
    return _context.get()
