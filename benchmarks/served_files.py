"""The apps that `files` loads: the file that the environment variable ``BENCH_FILE`` names, from Flask and FastAPI.

granian imports what it serves, in a process of its own: ``bridged`` is Flask under the bridge that ``BENCH_BRIDGE``
names.
"""

from __future__ import annotations

import os
from typing import Any

import fastapi
import fastapi.responses
import flask

PATH = os.environ["BENCH_FILE"]

wsgi = flask.Flask(__name__)
asgi = fastapi.FastAPI()


@wsgi.get("/")
def flask_file() -> flask.Response:
    """Answer with the file."""
    return flask.send_file(PATH)


@asgi.get("/")
async def fastapi_file() -> fastapi.responses.FileResponse:
    """Answer with the file."""
    return fastapi.responses.FileResponse(PATH)


def __getattr__(name: str) -> Any:
    if name != "bridged":
        raise AttributeError(name)
    from contenders import THREADS, WSGI_ON_ASGI

    return WSGI_ON_ASGI[os.environ["BENCH_BRIDGE"]](wsgi, THREADS)
