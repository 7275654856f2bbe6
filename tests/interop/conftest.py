"""Runs tests on each server that the tests know, and notes what came out.

A test that wants `served` runs on each server of a kind that its module has an app for, in ``APPLICATIONS``, or on
those in its ``ON``; all tests of a module share the server. One that wants `server_name` starts its own. What a server
cannot pass is said in `interop.servers`: the test has to fail there. What it passes only sometimes is said there, too:
neither outcome fails the run.

Where the environment variable ``A2WSGI_TEST_RESULTS`` names a directory, what `test_behaviour` found is written there,
by each process of pytest's into a file of its own. `interop.compatibility` makes a page of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from interop.servers import SERVERS, SOMETIMES, Served, serving
from interop.websocket_rows import SUITES

PATIENCE_FOR_WHAT_FAILS = 1.0

Results = dict[str, dict[str, dict[str, str]]]
RESULTS = pytest.StashKey[Results]()
CANNOT = pytest.StashKey[str]()
MAY = pytest.StashKey[str]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each server."""
    if "server_name" in metafunc.fixturenames:
        module: Any = metafunc.module
        kinds = module.APPLICATIONS
        names = getattr(module, "ON", [name for name, kind in SERVERS.items() if kind.calls in kinds])
        metafunc.parametrize("server_name", names, indirect=True, scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect to fail what a server cannot do, and nothing of what it may do or not."""
    for item in items:
        if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
            continue
        parameters: dict[str, Any] = dict(item.callspec.params)
        kind = SERVERS.get(parameters.pop("server_name", ""))
        if kind is None:
            continue
        test = item.originalname
        one = f"{test}[{'-'.join(map(str, parameters.values()))}]"
        if reason := kind.may.get(one) or kind.may.get(test):
            item.stash[MAY] = reason
            item.add_marker(pytest.mark.xfail(strict=False, reason=reason))
        elif reason := kind.cannot.get(one) or kind.cannot.get(test):
            item.stash[CANNOT] = reason
            item.add_marker(pytest.mark.xfail(strict=True, reason=reason))


@pytest.fixture(scope="module")
def server_name(request: pytest.FixtureRequest) -> str:
    """The name of a server that is installed."""
    name: str = request.param
    missing = SERVERS[name].missing()
    if missing:
        pytest.skip(missing)
    return name


@pytest.fixture(scope="module")
def _served(
    server_name: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    app = request.module.APPLICATIONS[SERVERS[server_name].calls]
    with serving(server_name, app, tmp_path_factory.mktemp("server")) as served:
        yield served


@pytest.fixture
def served(_served: Served, request: pytest.FixtureRequest) -> Served:
    """A server that runs the module's app. One that is expected to fail, or may, is not waited for long."""
    unsure = CANNOT in request.node.stash or MAY in request.node.stash
    return _served.with_patience(PATIENCE_FOR_WHAT_FAILS) if unsure else _served


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser without a window."""
    from interop.browser import browsing

    with browsing(tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


# -- What came out ------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what a test found: nothing if it passed, or why the server could not, or why it may or may not."""
    report = yield
    if item.path.stem == "test_behaviour" and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        may = item.stash.get(MAY, "")
        reason = may or item.stash.get(CANNOT, "")
        expected = report.skipped and hasattr(report, "wasxfail")  # else its server is not installed
        if report.failed or expected or (report.when == "call" and report.passed):
            # The same for either outcome of what may be: the page does not change from run to run.
            found = "failed" if report.failed else f"{SOMETIMES}{may}" if may else reason if expected else ""
            results = item.config.stash.setdefault(RESULTS, {})
            server = str(item.callspec.params["server_name"])
            results.setdefault(server, {}).setdefault(item.originalname, {})[item.name] = found
    elif isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        _note_of_websockets(item, report)
    return report


def _note_of_websockets(item: pytest.Function, report: pytest.TestReport) -> None:
    """The same for the rows in `websocket_rows`. A test that skips has found nothing but a limit that is known."""
    for suite in SUITES:
        server = str(item.callspec.params.get(suite.fixture))
        if item.path.stem != suite.module or item.originalname not in suite.sentences or server not in suite.servers:
            continue
        limit = suite.limit(item.originalname, server)
        if report.failed or (report.when == "call" and (report.passed or limit)):
            found = "failed" if report.failed else limit
            results = item.config.stash.setdefault(RESULTS, {})
            results.setdefault(suite.key(server), {}).setdefault(item.originalname, {})[item.name] = found


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write down what this process has noted."""
    directory = os.environ.get("A2WSGI_TEST_RESULTS")
    results = session.config.stash.get(RESULTS, None)
    if directory and results:
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.json").write_text(json.dumps(results))
