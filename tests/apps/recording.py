"""Keeps the environ of each request as it was when the app was called; answers 204."""

from __future__ import annotations

from collections.abc import Iterable

from a2wsgi.wsgi_typing import Environ, StartResponse


class Recording:
    def __init__(self) -> None:
        self.environs: list[Environ] = []

    @property
    def environ(self) -> Environ:
        """That of the only request."""
        (environ,) = self.environs
        return environ

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.environs.append(dict(environ))
        start_response("204 No Content", [])
        return []
