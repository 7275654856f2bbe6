"""The examples: short, and each makes an app that answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SHORT = sorted(path.stem for path in EXAMPLES.glob("*.py") if not path.stem.startswith("demo"))

pytestmark = pytest.mark.interop

#: What each makes, where that can be asked in this process, and what answers there: the name, the kind, a path.
ANSWERS = {
    "dash_in_starlette": ("app", "asgi", "/dash/"),
    "django_in_fastapi": ("app", "asgi", "/django/"),
    "fastapi_on_gunicorn": ("application", "wsgi", "/"),
    "fastapi_on_uwsgi": ("application", "wsgi", "/"),
    "flask_in_fastapi": ("app", "asgi", "/flask/hello"),
    "passenger_wsgi": ("application", "wsgi", "/"),
    "upload_to_flask": ("application", "asgi", "/"),
}

SCRIPT = """
import contextlib, importlib, io, sys
from wsgiref.util import setup_testing_defaults
module, name, kind, path = sys.argv[1:]
app = getattr(importlib.import_module(module), name)
if kind == "asgi":
    from starlette.testclient import TestClient
    with TestClient(app) as client:
        print(client.get(path).status_code)
else:
    environ = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    said = []
    body = app(environ, lambda status, headers, exc_info=None: said.append(status))
    b"".join(body)
    if hasattr(body, "close"):
        body.close()
    print(said[0].split()[0])
"""


def test_every_example_is_short() -> None:
    """At most 40 lines."""
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.iterdir() if path.stem in SHORT}
    assert {name: length for name, length in lengths.items() if length > 40} == {}
    assert len(lengths) >= 12


@pytest.mark.parametrize("example", sorted(ANSWERS))
def test_example_answers(example: str) -> None:
    """It is imported, and one request has an answer: a page, or that there is none at this path."""
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, example, *ANSWERS[example]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] in {"200", "404", "405"}
