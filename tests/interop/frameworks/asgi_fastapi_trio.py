"""The contract in FastAPI, on trio."""

from interop.frameworks.asgi_fastapi import app

__all__ = ["OPTIONS", "app"]

OPTIONS = {"backend": "trio"}
