"""Raises what it is given, at one of the places where an app can."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from a2wsgi.wsgi_typing import Environ, StartResponse

Place = Literal["call", "after the head", "first chunk", "second chunk"]


class Raising:
    def __init__(self, error: BaseException, place: Place = "call") -> None:
        self.error = error
        self.place = place

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self.place == "call":
            raise self.error
        start_response("200 OK", [])
        if self.place == "after the head":
            raise self.error
        return _Chunks(self)


class _Chunks:
    """No generator: that would turn a StopIteration into a RuntimeError by itself."""

    def __init__(self, app: Raising) -> None:
        self.app = app
        self.first = app.place == "second chunk"

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.first:
            self.first = False
            return b"first"
        raise self.app.error
