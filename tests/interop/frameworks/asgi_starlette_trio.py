"""The contract in Starlette, on trio."""

from interop.frameworks.asgi_starlette import app

__all__ = ["OPTIONS", "app"]

OPTIONS = {"backend": "trio"}
