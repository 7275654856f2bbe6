"""What importing the classes loads. Most processes that import it serve no request, so it has to be cheap.

What is imported is compared, and not how long that takes: a count holds on every machine.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

import a2wsgi

#: Modules that cost more than they give at import. What needs them imports them in the function that does.
DEAR = {
    "a2wsgi._asgi_on_wsgi.websocket.session",
    "a2wsgi._protocol.frames",
    "a2wsgi._types",
    "a2wsgi._wsgi_on_asgi.websocket.session",
    "concurrent.futures.thread",
    "dataclasses",
    "difflib",
    "hashlib",
    "random",
    "shutil",
    "tempfile",
    "urllib.parse",
    "websockets",
}

PROGRAM = """
import asyncio, sys
before = set(sys.modules)
from a2wsgi import {names}
print(*sorted(set(sys.modules) - before))
"""


def loaded_with(names: str) -> set[str]:
    """The modules that ``from a2wsgi import <names>`` loads beyond asyncio's."""
    program = PROGRAM.format(names=names)
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=50)
    loaded = set(run.stdout.split())
    assert "a2wsgi" in loaded
    return loaded


def test_import_loads_nothing_dear() -> None:
    """After asyncio, the package loads its own files and few others."""
    assert sorted(DEAR & loaded_with("ASGIMiddleware, WSGIMiddleware, chain, run_in_loop")) == []


@pytest.mark.parametrize(
    ("name", "other"), [("WSGIMiddleware", "a2wsgi._asgi_on_wsgi"), ("ASGIMiddleware", "a2wsgi._wsgi_on_asgi")]
)
def test_one_direction_does_not_load_the_other(name: str, other: str) -> None:
    """Nearly every program uses one."""
    assert [module for module in loaded_with(name) if module.startswith(other)] == []


def test_every_public_name_is_there() -> None:
    """Also those that are loaded when they are first asked for, and `dir()` shows them."""
    assert set(a2wsgi.__all__) <= set(dir(a2wsgi))
    assert all(getattr(a2wsgi, name) is not None for name in a2wsgi.__all__)
