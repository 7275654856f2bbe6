"""Django's database connections under a bridge: what a request opened is closed or kept as Django's settings say.

Django does so when ``request_finished`` is sent, which is when the response is closed, and by thread. So this holds
only where the bridge closes each response, and on the thread that made it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from interop import postgresql
from interop.client import Client
from interop.processes import needs_proc, open_files
from support.servers import module, running, until

pytestmark = pytest.mark.interop

pytest.importorskip("django")
pytest.importorskip("httptools")
pytest.importorskip("uvicorn")

REQUESTS = 200
AT_ONCE = 20
WORKERS = 4


@dataclass(frozen=True)
class Database:
    """A Django with two databases of one kind: ``closed`` keeps no connection, and ``kept`` each for ten minutes.

    Attributes:
        connections: How many are open to one of them.
    """

    port: int
    connections: Callable[[str], int]


AGES = {"closed": 0, "kept": 600}


@pytest.fixture(scope="module", params=[pytest.param("sqlite", marks=needs_proc), "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A Django that runs, on either database."""
    yield from (on_sqlite if request.param == "sqlite" else on_postgresql)(tmp_path_factory.mktemp("database"))


def on_sqlite(directory: Path) -> Iterator[Database]:
    """On SQLite, in files; a connection is a file that the server has open."""
    engine = {"ENGINE": "django.db.backends.sqlite3", "OPTIONS": {"timeout": 20}}
    with django(directory, {name: {**engine, "NAME": str(directory / name)} for name in AGES}) as server:

        def connections(name: str) -> int:
            return [*open_files(server.process.pid)].count(str(directory / name))

        yield Database(server.port, connections)


def on_postgresql(directory: Path) -> Iterator[Database]:
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

        options = {name: {"application_name": name, "options": f"-csearch_path={name}"} for name in AGES}
        with psycopg.connect(host=str(socket), user=postgresql.USER) as connection:
            for name in AGES:
                connection.execute(f"CREATE SCHEMA {name}")
        with django(directory, {name: {**engine, "OPTIONS": options[name]} for name in AGES}) as server:
            yield Database(server.port, connections)


def django(directory: Path, databases: dict[str, dict[str, Any]]) -> Any:
    """A uvicorn with the app, on these databases."""
    settings = {name: {**database, "CONN_MAX_AGE": AGES[name]} for name, database in databases.items()}
    return running(
        lambda port: module(
            "uvicorn",
            "--http=httptools",
            "--no-access-log",
            f"--port={port}",
            "interop.frameworks.mounted_wsgi:application",
        ),
        directory,
        environment={
            "A2WSGI_TEST_APP": "interop.frameworks.wsgi_django_database:app",
            "A2WSGI_TEST_DATABASES": json.dumps(settings),
            "A2WSGI_WORKERS": str(WORKERS),
        },
    )


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


def test_no_connection_is_left_open(database: Database) -> None:
    """With ``CONN_MAX_AGE=0`` none outlives its request, whether that ended well, failed, or lost its client."""
    added = make_requests(database.port, "closed")
    until(lambda: database.connections("closed") == 0, "all connections are closed")
    with Client(database.port) as client:
        assert client.get("/closed/count").json() == {"count": added}


def test_connections_are_as_few_as_workers(database: Database) -> None:
    """With ``CONN_MAX_AGE=600`` each worker thread has one, and uses it again."""
    added = make_requests(database.port, "kept")
    assert 1 <= database.connections("kept") <= WORKERS
    with Client(database.port) as client:
        assert client.get("/kept/count").json() == {"count": added}
