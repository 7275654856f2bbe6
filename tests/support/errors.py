"""Errors that no code of ours may trust."""

from __future__ import annotations

__all__ = ["Twofaced"]


def looked_at(_: object) -> None:
    """What a property does that nobody must look at."""
    raise ValueError


#: An error that raises when it is looked at more closely.
Twofaced: type[Exception] = type(
    "Twofaced", (Exception,), {name: property(looked_at) for name in ("__cause__", "__class__", "exceptions")}
)
