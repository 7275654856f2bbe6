"""The import path of a2wsgi 1.x; use ``from a2wsgi import WSGIMiddleware``."""

import os
import sys
from typing import IO

from ._input import PulledBody as Body
from ._translate import EnvironTemplate, environ_from_scope
from ._types import Environ, Scope
from .wsgi_to_asgi import WSGIMiddleware

__all__ = ["Body", "WSGIMiddleware", "build_environ"]


def build_environ(scope: Scope, body: IO[bytes]) -> Environ:
    """The environ of a scope, with ``body`` as its ``wsgi.input``."""
    template = EnvironTemplate(script_name=os.environ.get("SCRIPT_NAME", ""))
    return {**environ_from_scope(scope, template), "wsgi.input": body, "wsgi.errors": sys.stderr}
