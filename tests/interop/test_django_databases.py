"""Django's database connections under a bridge: what a request opened is closed or kept as Django's settings say.

Django does so when ``request_finished`` is sent, which is when the response is closed, and by thread. So this holds
only where the bridge closes each response, and on the thread that made it. Django's handler for ASGI has a thread for
each request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from interop import postgresql
from interop.client import Client
from interop.processes import needs_proc, open_files
from support.servers import Server, module, running, until

pytestmark = pytest.mark.interop

pytest.importorskip("django")
pytest.importorskip("gunicorn")
pytest.importorskip("httptools")
pytest.importorskip("uvicorn")

REQUESTS = 200
AT_ONCE = 20
WORKERS = 4


#: What there is of each kind, each on a Django of its kind: for how many seconds a connection is kept.
ON_UVICORN = {"closed": 0, "kept": 600}
ON_GUNICORN = {"async": 0}
NAMES = [*ON_UVICORN, *ON_GUNICORN]


@dataclass(frozen=True)
class Databases:
    """Those of one kind, and who serves them: under `WSGIMiddleware`, and for ``async`` under `ASGIMiddleware`.

    Attributes:
        servers: By the name of the database.
        connections: How many are open to one of them.
    """

    servers: dict[str, Server]
    connections: Callable[[str], int]


@pytest.fixture(scope="module", params=[pytest.param("sqlite", marks=needs_proc), "postgresql"])
def databases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Those of one kind, served."""
    yield from (on_sqlite if request.param == "sqlite" else on_postgresql)(tmp_path_factory.mktemp("database"))


def on_sqlite(directory: Path) -> Iterator[Databases]:
    """On SQLite, in files; a connection is a file that the server has open."""
    engine = {"ENGINE": "django.db.backends.sqlite3", "OPTIONS": {"timeout": 20}}
    with django(directory, {name: {**engine, "NAME": str(directory / name)} for name in NAMES}) as servers:

        def connections(name: str) -> int:
            return [*open_files(servers[name].process.pid)].count(str(directory / name))

        yield Databases(servers, connections)


def on_postgresql(directory: Path) -> Iterator[Databases]:
    """On a PostgreSQL of our own, which knows its connections; each database is a schema there."""
    psycopg = pytest.importorskip("psycopg")
    if reason := postgresql.missing():
        pytest.skip(reason)
    with postgresql.running(directory) as socket:
        engine = {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": str(socket),
            "NAME": "postgres",
            "USER": postgresql.USER,
        }

        def connections(name: str) -> int:
            asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            with psycopg.connect(host=str(socket), user=postgresql.USER) as connection:
                (count,) = connection.execute(asked, [name]).fetchone()
            return int(count)

        options = {name: {"application_name": name, "options": f"-csearch_path={name}"} for name in NAMES}
        with psycopg.connect(host=str(socket), user=postgresql.USER) as connection:
            for name in NAMES:
                connection.execute(f"CREATE SCHEMA {name}")
        with django(directory, {name: {**engine, "OPTIONS": options[name]} for name in NAMES}) as servers:
            yield Databases(servers, connections)


@contextmanager
def django(directory: Path, databases: dict[str, dict[str, Any]]) -> Iterator[dict[str, Server]]:
    """The app on these databases: on a uvicorn, and by Django's handler for ASGI on a gunicorn. Gives who has which."""

    def environment(app: str, ages: dict[str, int]) -> dict[str, str]:
        settings = {name: {**databases[name], "CONN_MAX_AGE": age} for name, age in ages.items()}
        return {
            "A2WSGI_TEST_APP": app,
            "A2WSGI_TEST_DATABASES": json.dumps(settings),
            "A2WSGI_WORKERS": str(WORKERS),
        }

    def uvicorn(port: int) -> list[str]:
        options = ["--http=httptools", "--no-access-log", f"--port={port}"]
        return module("uvicorn", *options, "interop.frameworks.mounted_wsgi:application")

    def gunicorn(port: int) -> list[str]:
        options = ["--worker-class=gthread", f"--threads={WORKERS}", "--no-control-socket", f"--bind=127.0.0.1:{port}"]
        return module("gunicorn", *options, "interop.frameworks.mounted_asgi:application")

    for_wsgi = environment("interop.frameworks.wsgi_django_database:app", ON_UVICORN)
    for_asgi = environment("interop.frameworks.asgi_django_database", ON_GUNICORN)
    with (
        running(uvicorn, directory, environment=for_wsgi) as wsgi,
        running(gunicorn, directory, environment=for_asgi) as asgi,
    ):
        yield {**dict.fromkeys(ON_UVICORN, wsgi), **dict.fromkeys(ON_GUNICORN, asgi)}


def make_requests(port: int, name: str) -> int:
    """Make many requests of all kinds, some at a time. Returns how many have added an entry."""

    def some(_: int) -> int:
        added = 0
        for number in range(REQUESTS // AT_ONCE):
            with Client(port) as client:
                if number % 5 == 0:
                    client.send_head("GET", f"/{name}/endless")
                    assert next(client.pieces(client.head()))
                elif number % 5 == 1:
                    assert client.get(f"/{name}/fail").status == 500
                elif number % 5 == 2:
                    assert set(client.get(f"/{name}/stream").body.split()) <= {b"added"}
                else:
                    assert client.get(f"/{name}/add").status == 200
                    added += 1
        return added

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sum(pool.map(some, range(AT_ONCE)))


@pytest.mark.parametrize("name", ["closed", "async"])
def test_no_connection_is_left_open(databases: Databases, name: str) -> None:
    """With ``CONN_MAX_AGE=0`` none outlives its request, whether that ended well, failed, or lost its client."""
    added = make_requests(databases.servers[name].port, name)
    until(lambda: databases.connections(name) == 0, "all connections are closed")
    with Client(databases.servers[name].port) as client:
        assert client.get(f"/{name}/count").json() == {"count": added}


def test_connections_are_as_few_as_workers(databases: Databases) -> None:
    """With ``CONN_MAX_AGE=600`` each worker thread has one, and uses it again."""
    added = make_requests(databases.servers["kept"].port, "kept")
    assert 1 <= databases.connections("kept") <= WORKERS
    with Client(databases.servers["kept"].port) as client:
        assert client.get("/kept/count").json() == {"count": added}
