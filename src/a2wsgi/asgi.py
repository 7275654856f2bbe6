"""The import path of a2wsgi 1.x; use ``from a2wsgi import ASGIMiddleware``."""

from ._translate import scope_from_environ as build_scope
from .asgi_to_wsgi import ASGIMiddleware

__all__ = ["ASGIMiddleware", "build_scope"]
