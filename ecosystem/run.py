"""Run the frameworks' own tests, with the apps that their test clients call behind a double bridge.

    python ecosystem/run.py                      all of them
    python ecosystem/run.py starlette flask      some
    python ecosystem/run.py --write flask        note what is lost in expected/, to be given its reasons by hand

Each suite is the source distribution of one release, from PyPI, run in an environment of its own: once as it is, and
once with the plugin ``double_bridge``. What passes without and not with it is *lost*, and must be listed with the
reason in ``expected/<suite>.txt``. The exit code is 0 if what is lost is just what is listed, and calls have come
through the bridges at all; else 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / ".ecosystem"

#: How long one run of one suite may take, in seconds.
SUITE_SECONDS = 1200

#: How often a suite is run until all is as expected: what is not so once only is chance.
ATTEMPTS = 2


@dataclass(frozen=True)
class Suite:
    """One framework's own tests, run by pytest.

    Attributes:
        release: What is fetched from PyPI, and installed.
        needs: What its tests import besides.
        arguments: The runner's, in the folder of the release.
        websockets: Whether WebSockets go over the bridges, too.
        repository: Where the tests are, if they are not in the source distribution: a git repository with a tag that is
            named as the release.
    """

    release: str
    needs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ("tests",)
    websockets: bool = False
    repository: str = ""

    @property
    def folder(self) -> Path:
        """Where the release is unpacked."""
        return BUILD / self.release.replace("==", "-")

    def command(self, report: Path, environment: dict[str, str]) -> list[str]:
        """What runs the tests, in that environment, and writes the report."""
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE), str(self.folder)])
        environment["DOUBLE_BRIDGE_WEBSOCKETS"] = "yes" if self.websockets else ""
        options = ["-q", "-p", "double_bridge", "-p", "no:cacheprovider", "-n", "2", "--tb=line", "--timeout=120"]
        return ["-m", "pytest", *options, f"--junitxml={report}", *self.arguments]


class DjangoSuite(Suite):
    """Those of Django, which has a runner of its own."""

    def command(self, report: Path, environment: dict[str, str]) -> list[str]:
        """See `Suite.command`."""
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE), str(self.folder / "tests")])
        environment["DJANGO_REPORT"] = str(report)
        return ["tests/runtests.py", "--settings=django_settings", "--parallel=1", *self.arguments]


#: What Starlette's tests import besides.
STARLETTE = (
    "starlette[full]",
    "anyio[trio]",
    "blockbuster>=1.5.23",
    "httpx2[zstd]>=2",
    "importlib-metadata>=9.0.1",
    "opentelemetry-sdk>=1.44",
    "pytest>=9.1",
)

SUITES = {
    # Each of its tests runs on asyncio and on trio.
    "starlette": Suite("starlette==1.10.0", STARLETTE, ("tests", "-k", "not trio"), websockets=True),
    "starlette-trio": Suite("starlette==1.10.0", STARLETTE, ("tests", "-k", "trio"), websockets=True),
    "fastapi": Suite(
        "fastapi==0.165.0",
        (
            "fastapi[all]",
            "anyio[trio]",
            "dirty-equals>=0.9",
            "flask",
            "httpx<1",
            "httpx2>=2",
            "inline-snapshot>=0.21.1",
            "logfire>=5.1",
            "opentelemetry-exporter-otlp-proto-http>=1.44",
            "opentelemetry-instrumentation-fastapi>=0.65b0",
            "opentelemetry-sdk>=1.44",
            "pwdlib[argon2]>=0.2.1",
            "pyjwt>=2.9",
            "python-slugify>=8",
            "sentry-sdk>=2.70",
            "sqlmodel>=0.0.31",
            "strawberry-graphql",
            "typer>=0.26.1",
        ),
        ("tests", "-k", "not trio"),  # those on trio would tell nothing that Starlette's do not
        websockets=True,
    ),
    # Its conftest.py looks into pytest.
    "flask": Suite("flask==3.1.3", ("asgiref", "greenlet", "python-dotenv", "pytest<9", "werkzeug==3.1.9")),
    # Without the tests that start Werkzeug's own server, which nobody bridges.
    "werkzeug": Suite(
        "werkzeug==3.1.9",
        ("cffi", "cryptography", "ephemeral-port-reserve", "watchdog"),
        ("tests", "--ignore=tests/test_serving.py", "--ignore=tests/live_apps"),
    ),
    # Without those that start servers, and without a look at the files that the tests themselves leave open.
    "bottle": Suite(
        "bottle==0.13.4",
        ("jinja2", "mako"),
        ("test", "--ignore=test/test_server.py", "-p", "no:unraisableexception"),
    ),
    # Without those that start servers.
    "falcon": Suite(
        "falcon==4.4.0",
        (
            "aiofiles",
            "cbor2",
            "httpx",
            "msgpack",
            "msgspec",
            "mujson",
            "orjson",
            "python-rapidjson",
            "pyyaml",
            "requests",
            "ujson",
            "uvicorn",
            "websockets",
        ),
        ("tests", "--ignore=tests/test_wsgi_servers.py", "--ignore=tests/asgi/test_asgi_servers.py"),
        websockets=True,
    ),
    # Without those of its sample project, which start a server and a browser.
    "channels": Suite(
        "channels==4.3.2",
        ("async-timeout", "daphne", "django==5.2.19", "pytest-asyncio", "pytest-django"),
        ("tests", "--ignore=tests/sample_project"),
        websockets=True,
        repository="https://github.com/django/channels",
    ),
    "django": DjangoSuite(
        "django==5.2.19",
        ("jinja2", "pillow", "unittest-xml-reporting"),
        (
            "asgi",
            "conditional_processing",
            "csrf_tests",
            "file_uploads",
            "handlers",
            "messages_tests",
            "middleware",
            "requests_tests",
            "sessions_tests",
            "test_client",
            "test_client_regress",
            "view_tests",
            "wsgi",
        ),
    ),
}


def python_of(name: str) -> Path:
    """The interpreter of a suite's environment."""
    return BUILD / f"venv-{name}" / "bin" / "python"


def prepare(name: str, suite: Suite) -> None:
    """Fetch and unpack the release, and install what its tests need. Once."""
    BUILD.mkdir(exist_ok=True)
    (BUILD / "pytest.ini").touch()  # a suite without a configuration would take the one of this project
    ready = BUILD / f"{name}.ready"
    if ready.exists() and ready.read_text() == repr(suite):
        return
    venv.create(BUILD / f"venv-{name}", with_pip=True, clear=True)
    pip = [str(python_of(name)), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    fetch(suite, pip)
    subprocess.run(
        [
            *pip,
            "install",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            suite.release,
            *suite.needs,
            f"--editable={ROOT}[websocket]",
        ],
        check=True,
    )
    ready.write_text(repr(suite))


def fetch(suite: Suite, pip: list[str]) -> None:
    """Fetch and unpack the release, with its tests."""
    name, _, version = suite.release.partition("==")
    if suite.repository:
        shutil.rmtree(suite.folder, ignore_errors=True)
        options = ["--quiet", "--depth=1", f"--branch={version}"]
        command = ["git", "-c", "advice.detachedHead=false", "clone", *options, suite.repository, str(suite.folder)]
        subprocess.run(command, check=True)
        return
    # Its own source only: with :all:, what builds it (Cython, for Falcon) would be compiled first.
    subprocess.run([*pip, "download", "--no-deps", f"--no-binary={name}", f"--dest={BUILD}", suite.release], check=True)
    archive = next(path for path in BUILD.glob("*.tar.gz") if path.name.lower().startswith(suite.folder.name))
    with tarfile.open(archive) as file:
        file.extractall(BUILD, filter="data")


def outcomes(name: str, suite: Suite, calls: Path | None) -> dict[str, str]:
    """Run the tests of a suite. Each test, and ``""`` or the first line of what it failed with.

    Args:
        name: The suite's.
        suite: The suite.
        calls: The file that grows with each call through the bridges; None for no bridges.
    """
    report = BUILD / f"{name}-{'with' if calls else 'without'}.xml"
    report.unlink(missing_ok=True)
    environment = {**os.environ, "DOUBLE_BRIDGE": str(calls or "")}
    with report.with_suffix(".log").open("w") as log:
        subprocess.run(
            [str(python_of(name)), *suite.command(report, environment)],
            cwd=suite.folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=SUITE_SECONDS,
            check=False,
        )
    found: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):
        bad = [child for child in case if child.tag in {"failure", "error"}]
        if bad:
            found[f"{case.get('classname')}::{case.get('name')}"] = (bad[0].get("message") or "fails").splitlines()[0]
        elif not any(child.tag == "skipped" for child in case):
            found.setdefault(f"{case.get('classname')}::{case.get('name')}", "")
    return found


def expected(name: str) -> dict[str, str]:
    """The losses that are listed, and why. A line is ``test  # reason``; a ``*`` at a test's end stands for any.

    A reason that begins with ``at times`` is that of a test which is lost or not as the threads happen to run.
    """
    path = HERE / "expected" / f"{name}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.split("  # ", 1) for line in lines if line and not line.startswith("#"))
    return {pair[0]: pair[1] if len(pair) > 1 else "" for pair in pairs}


def is_listed(test: str, listed: dict[str, str]) -> bool:
    """Whether a loss is in the list."""
    return any(test == entry or (entry.endswith("*") and test.startswith(entry[:-1])) for entry in listed)


def compare(name: str, suite: Suite, *, write: bool) -> bool:
    """Run a suite both ways, and print what came of it. Whether that is as expected."""
    prepare(name, suite)
    listed = expected(name)
    passed, calls, lost, news, gone = set[str](), 0, dict[str, str](), set[str](), set[str]()
    for attempt in range(ATTEMPTS):
        passed, calls, lost = measure(name, suite)
        news_now = {test for test in lost if not is_listed(test, listed)}
        sure = {entry for entry, reason in listed.items() if not reason.startswith("at times")}
        gone_now = {entry for entry in sure if not any(is_listed(test, {entry: ""}) for test in lost)}
        news, gone = (news & news_now, gone & gone_now) if attempt else (news_now, gone_now)
        if not news and not gone:
            break
    kept = len(passed) - len(lost)
    print(f"{name:10} {suite.release:18} passed without {len(passed)}, with {kept}, lost {len(lost)}; {calls} calls")
    for test in sorted(news):
        print(f"  not listed: {test}\n      {lost[test][:200]}")
    for entry in sorted(gone):
        print(f"  listed, and not lost: {entry}")
    for entry, reason in listed.items():
        if not reason:
            print(f"  without a reason: {entry}")
    if not calls:
        print("  no call has come through the bridges")
    if write:
        text = "".join(f"{test}  # {listed.get(test, '')}\n" for test in lost)
        (HERE / "expected" / f"{name}.txt").write_text(text)
    return bool(passed and calls) and not news and not gone and all(listed.values())


def measure(name: str, suite: Suite) -> tuple[set[str], int, dict[str, str]]:
    """Run a suite both ways. What passed without, how many calls came through the bridges, and what is lost and why."""
    passed = {test for test, failure in outcomes(name, suite, None).items() if not failure}
    calls = BUILD / f"{name}.calls"
    calls.write_bytes(b"")
    bridged = outcomes(name, suite, calls)
    lost = {test: bridged.get(test, "did not run") for test in sorted(passed)}
    return passed, calls.stat().st_size, {test: failure for test, failure in lost.items() if failure}


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description="Run the frameworks' own tests behind a double bridge.")
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--write", action="store_true", help="write the list of what is lost")
    arguments = parser.parse_args()
    names = arguments.suites or list(SUITES)
    as_listed = [compare(name, SUITES[name], write=arguments.write) for name in names]  # all of them, whatever one says
    return 0 if all(as_listed) else 1


if __name__ == "__main__":
    sys.exit(main())
