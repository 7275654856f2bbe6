"""Files of real frameworks on real servers: they arrive whole, and where the server can, Python reads none of them."""

from __future__ import annotations

import functools
import os
import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.client import Response
from interop.servers import Served
from support.servers import until

pytestmark = pytest.mark.interop

APPLICATIONS = {"asgi": "interop.file_apps:for_asgi", "wsgi": "interop.file_apps:for_wsgi"}

#: Those that send files by themselves, and others.
BY_THEMSELVES = ["granian", "gunicorn-sync", "gunicorn-gthread", "uwsgi-lazy"]
ON = [*BY_THEMSELVES, "uvicorn-h11", "hypercorn", "waitress", "wsgiref"]

WSGI_APPS = ["flask", "django", "stored", "whitenoise"]
ASGI_APPS = ["fastapi", "static"]

DATA = random.Random(7).randbytes(3_000_000)

#: As large as is worth its time in each run; the benchmarks take four times as much.
LARGE_BYTES = 256 << 20
MOST_KIB = 4 << 10


@pytest.fixture
def file(served: Served) -> Iterator[Path]:
    """A file of its own."""
    path = served.directory / uuid.uuid4().hex
    path.write_bytes(DATA)
    yield path
    path.unlink(missing_ok=True)


def ways(served: Served, others: str = "") -> list[str]:
    """How the apps of a server serve a file."""
    apps = (WSGI_APPS, ASGI_APPS) if served.kind.calls == "asgi" else (ASGI_APPS, WSGI_APPS)
    return [*(f"/{how}" for how in (*apps[0], others) if how), *(f"/pair/{how}" for how in (*apps[1], others) if how)]


def get(served: Served, target: str, *fields: tuple[str, str], method: str = "GET") -> Response:
    """An answer on a connection of its own."""
    with served.client() as client:
        return client.request(method, target, fields)


def was_read(path: Path) -> bool:
    """Whether Python has read any of it. Tells it once."""
    mark = path.with_name(f"{path.name}-read")
    read = mark.exists()
    mark.unlink(missing_ok=True)
    return read


def test_file_arrives_whole(served: Served, file: Path) -> None:
    """By each framework, under one bridge and under two; and a server that can sends it by itself."""
    for way in ways(served):
        response = get(served, f"{way}/{file.name}")
        assert response.body == DATA, way
        assert response["content-length"] == str(len(DATA))
        assert was_read(file) == (served.name not in BY_THEMSELVES), way


def test_range_is_that_part_of_the_file(served: Served, file: Path) -> None:
    """RFC 9110 §14: frameworks cut ranges out themselves."""
    for way in ways(served):
        if way.endswith(("django", "stored")):
            continue  # it knows no ranges
        response = get(served, f"{way}/{file.name}", ("Range", "bytes=1000000-1000009"))
        assert (response.status, response.body) == (206, DATA[1_000_000:1_000_010]), way
        assert response["content-range"] == f"bytes 1000000-1000009/{len(DATA)}"


def test_head_reads_nothing(served: Served, file: Path) -> None:
    """RFC 9110 §9.3.2."""
    for way in ways(served):
        response = get(served, f"{way}/{file.name}", method="HEAD")
        assert (response.status, response["content-length"], response.body) == (200, str(len(DATA)), b""), way
        assert not was_read(file), way


def test_unchanged_file_is_not_sent(served: Served, file: Path) -> None:
    """RFC 9110 §15.4.5."""
    for way in ways(served):
        if way.endswith(("django", "stored", "fastapi")):
            continue  # they leave that to others
        changed = get(served, f"{way}/{file.name}", method="HEAD")["last-modified"]
        response = get(served, f"{way}/{file.name}", ("If-Modified-Since", changed))
        assert (response.status, response.body) == (304, b""), way
        assert not was_read(file), way


def test_file_that_is_deleted_after_it_was_sent_arrives_whole(served: Served) -> None:
    """Django's and Starlette's ways to delete a file when the response is over."""
    for way in ways(served, "deleting"):
        if not way.endswith("deleting"):
            continue
        path = served.directory / uuid.uuid4().hex
        path.write_bytes(DATA)
        if way == "/pair/deleting" and served.name == "granian":
            path.unlink()
            continue  # the app inside deletes it before granian opens it, as it would without bridges
        assert get(served, f"{way}/{path.name}").body == DATA, way
        until(functools.partial(_is_gone, path), "the app deletes its file")


def _is_gone(path: Path) -> bool:
    return not path.exists()


def test_large_file_takes_no_memory(served: Served) -> None:
    """A sparse file, whose bytes cost nothing but their way."""
    if served.name == "waitress":
        pytest.skip("waitress takes 13 MiB for it, whoever reads it")
    path = served.directory / uuid.uuid4().hex
    path.write_bytes(DATA)
    for way in ways(served):
        get(served, f"{way}/{path.name}")
    before = int(get(served, "/memory").body)
    was_read(path)
    os.truncate(path, LARGE_BYTES)
    for way in ways(served):
        with served.client() as client:
            client.send_head("GET", f"{way}/{path.name}")
            assert sum(map(len, client.pieces(client.head()))) == LARGE_BYTES
    assert int(get(served, "/memory").body) - before < MOST_KIB
    assert was_read(path) == (served.name not in BY_THEMSELVES)
