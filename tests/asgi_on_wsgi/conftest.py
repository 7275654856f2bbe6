"""The fixtures of the tests here."""

from support.asgi_bridges import _uvloop_has_its_pipe, bridge

__all__ = ["_uvloop_has_its_pipe", "bridge"]
