"""Run the frameworks' own tests, with the apps that their test clients call behind a double bridge.

    python ecosystem/run.py                      all of them
    python ecosystem/run.py starlette flask      some
    python ecosystem/run.py --write flask        note what is lost in expected/, to be given its reasons by hand

Each suite is the source distribution of one release, from PyPI, run in an environment of its own: once as it is, and
once with the plugin ``double_bridge``. What passes without and not with it is *lost*, and must be listed with the
reason in ``expected/<suite>.txt``. The exit code is 0 if what is lost is just what is listed, else 1.
"""

from __future__ import annotations

import argparse
import os
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


@dataclass(frozen=True)
class Suite:
    """One framework's own tests.

    Attributes:
        release: What is fetched from PyPI, and installed.
        needs: What its tests import besides.
        arguments: pytest's, in the folder of the release.
    """

    release: str
    needs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ("tests",)

    @property
    def folder(self) -> Path:
        """Where the release is unpacked."""
        return BUILD / self.release.replace("==", "-")


SUITES = {
    "starlette": Suite(
        "starlette==1.10.0",
        (
            "starlette[full]",
            "anyio[trio]",
            "blockbuster>=1.5.23",
            "httpx2[zstd]>=2",
            "importlib-metadata>=9.0.1",
            "opentelemetry-sdk>=1.44",
            "pytest>=9.1",
        ),
        ("tests", "-k", "not trio"),  # each test runs on asyncio and on trio, which no bridge here knows
    ),
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
            "pytest-timeout",
            "python-slugify>=8",
            "sentry-sdk>=2.70",
            "sqlmodel>=0.0.31",
            "strawberry-graphql",
            "typer>=0.26.1",
        ),
    ),
    # Its conftest.py looks into pytest.
    "flask": Suite("flask==3.1.3", ("asgiref", "greenlet", "python-dotenv", "pytest<9", "werkzeug==3.1.9")),
    # Without the tests that start Werkzeug's own server, which nobody bridges.
    "werkzeug": Suite(
        "werkzeug==3.1.9",
        ("cffi", "cryptography", "ephemeral-port-reserve", "pytest-timeout", "watchdog"),
        ("tests", "--ignore=tests/test_serving.py", "--ignore=tests/live_apps"),
    ),
    # Without those that start servers, and without a look at the files that the tests themselves leave open.
    "bottle": Suite(
        "bottle==0.13.4",
        ("jinja2", "mako", "pytest-timeout"),
        ("test", "--ignore=test/test_server.py", "-p", "no:unraisableexception"),
    ),
}


def python_of(name: str) -> Path:
    """The interpreter of a suite's environment."""
    return BUILD / f"venv-{name}" / "bin" / "python"


def prepare(name: str, suite: Suite) -> None:
    """Fetch and unpack the release, and install what its tests need. Once."""
    ready = BUILD / f"{name}.ready"
    if ready.exists() and ready.read_text() == repr(suite):
        return
    BUILD.mkdir(exist_ok=True)
    venv.create(BUILD / f"venv-{name}", with_pip=True, clear=True)
    pip = [str(python_of(name)), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "download", "--no-deps", "--no-binary=:all:", f"--dest={BUILD}", suite.release], check=True)
    archive = next(path for path in BUILD.glob("*.tar.gz") if path.name.lower().startswith(suite.folder.name))
    with tarfile.open(archive) as file:
        file.extractall(BUILD, filter="data")
    subprocess.run(
        [*pip, "install", "pytest", "pytest-xdist", suite.release, *suite.needs, f"--editable={ROOT}"], check=True
    )
    ready.write_text(repr(suite))


def outcomes(name: str, suite: Suite, *, bridged: bool) -> dict[str, str]:
    """Run the tests of a suite. Each test, and ``""`` or the first line of what it failed with."""
    report = BUILD / f"{name}-{'with' if bridged else 'without'}.xml"
    report.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(suite.folder)]),
        "DOUBLE_BRIDGE": "1" if bridged else "",
    }
    command = [str(python_of(name)), "-m", "pytest", "-q", "-p", "double_bridge", "-p", "no:cacheprovider", "-n", "2"]
    subprocess.run(
        [*command, "--tb=line", f"--junitxml={report}", *suite.arguments],
        cwd=suite.folder,
        env=environment,
        stdout=(BUILD / f"{report.stem}.log").open("w"),
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
    """The losses that are listed, and why. A line is ``test  # reason``; a ``*`` at a test's end stands for any."""
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
    without, with_ = outcomes(name, suite, bridged=False), outcomes(name, suite, bridged=True)
    passed = {test for test, failure in without.items() if not failure}
    lost = {test: with_.get(test, "did not run") for test in sorted(passed) if with_.get(test, "did not run")}
    listed = expected(name)
    news = {test: failure for test, failure in lost.items() if not is_listed(test, listed)}
    gone = [entry for entry in listed if not any(is_listed(test, {entry: ""}) for test in lost)]
    print(
        f"{name:10} {suite.release:18} passed without {len(passed)}, with {len(passed) - len(lost)}, lost {len(lost)}"
    )
    for test, failure in news.items():
        print(f"  not listed: {test}\n      {failure[:200]}")
    for entry in gone:
        print(f"  listed, and not lost: {entry}")
    for entry, reason in listed.items():
        if not reason:
            print(f"  without a reason: {entry}")
    if write:
        text = "".join(f"{test}  # {listed.get(test, '')}\n" for test in lost)
        (HERE / "expected" / f"{name}.txt").write_text(text)
    return bool(passed) and not news and not gone and all(listed.values())


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
