"""The contract in Quart-Trio."""

from interop.frameworks.asgi_quart import app

__all__ = ["OPTIONS", "app"]

OPTIONS = {"backend": "trio"}
