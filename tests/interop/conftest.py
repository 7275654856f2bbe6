"""Starts each ASGI server once for all tests of a module, and skips what cannot be tested here.

A test that wants `asgi_server` runs on each server, or on those in its module's ``SERVERS``; one that wants
`asgi_server_name` starts its own. A module's ``CANNOT`` has the tests that a server cannot pass whatever a bridge does,
with the reason.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping

import pytest

from interop.asgi_servers import ASGI_SERVERS
from support.servers import Server, running


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each server."""
    if "asgi_server_name" in metafunc.fixturenames:
        names = getattr(metafunc.module, "SERVERS", list(ASGI_SERVERS))
        metafunc.parametrize("asgi_server_name", names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def asgi_server_name(request: pytest.FixtureRequest) -> str:
    """The name of a server that is installed."""
    name: str = request.param
    for package in (*ASGI_SERVERS[name].packages, "django", "flask", "starlette"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return name


@pytest.fixture(scope="module")
def asgi_server(asgi_server_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that runs `interop.wsgi_apps`."""
    with running(ASGI_SERVERS[asgi_server_name].command, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(autouse=True)
def _only_what_the_server_can(request: pytest.FixtureRequest) -> None:
    """Skip a test that the server cannot pass."""
    if "asgi_server_name" in request.fixturenames:
        cannot: Mapping[tuple[str, str], str] = getattr(request.module, "CANNOT", {})
        name = request.getfixturevalue("asgi_server_name")
        reason = cannot.get((name, request.function.__name__))
        if reason is not None:
            pytest.skip(f"{name} {reason}")
