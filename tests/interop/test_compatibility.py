"""What is said of the servers is said of tests that there are, and a page that says something else is found out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from interop import compatibility, websocket_rows
from interop.servers import SERVERS, SOMETIMES


def test_what_servers_cannot_do_are_tests() -> None:
    """A reason that belongs to no test would never be found untrue."""
    text = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    tests = set(re.findall(r"^def (test_\w+)\(", text, re.MULTILINE))
    said = [test for kind in SERVERS.values() for test in (*kind.cannot, *kind.may)]
    assert {test.partition("[")[0] for test in said} - tests == set()


def test_every_row_is_a_sentence() -> None:
    """A test without one would be missing from the page, and a sentence without a test would be no promise."""
    assert list(compatibility.SENTENCES) == compatibility.rows()


@pytest.mark.parametrize("suite", websocket_rows.SUITES, ids=lambda suite: suite.module)
def test_rows_of_websockets_are_tests(suite: websocket_rows.Suite) -> None:
    """The same for those of WebSockets: and what servers cannot do is said of rows, and of servers that are run."""
    text = (Path(__file__).parent / f"{suite.module}.py").read_text("utf-8")
    assert set(suite.sentences) - set(re.findall(r"^def (test_\w+)\(", text, re.MULTILINE)) == set()
    assert set(suite.limits) - set(suite.sentences) == set()
    assert {server for limits in suite.limits.values() for server in limits} - set(suite.servers) == set()


def test_page_has_the_websockets() -> None:
    """A limit of a part is told from one of all."""
    suite = websocket_rows.Suite(
        "WebSockets",
        "websockets",
        "served",
        ["one", "two"],
        {"test_echo": "Echo"},
        {"test_echo": {"two": "partly: No."}},
    )
    results = {suite.key(name): {"test_echo": {"test_echo": suite.limit("test_echo", name)}} for name in suite.servers}
    assert "| Echo | ✓ | partly 1 |\n\n1. No.\n" in compatibility.websocket_table(suite, results)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of a run on two servers, in which wsgiref fails all and uvicorn passes all; and a page of it."""
    monkeypatch.setattr(compatibility, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(compatibility, "SUITES", ())
    monkeypatch.setattr(compatibility, "SERVERS", {name: SERVERS[name] for name in ("uvicorn-h11", "wsgiref")})
    results = tmp_path / "results"
    results.mkdir()
    for name, reason in (("uvicorn-h11", ""), ("wsgiref", "It is wsgiref.")):
        found = {test: {f"{test}[{name}]": reason} for test in compatibility.rows()}
        (results / f"{name}.json").write_text(json.dumps({name: found}))
    assert compatibility.main(str(results)) == 0
    return results


def test_page_agrees_with_the_run_that_it_is_of(run: Path) -> None:
    """Also where the reasons have other numbers, or a server is not installed."""
    assert compatibility.main(str(run), "--check") == 0
    (run / "uvicorn-h11.json").unlink()
    assert compatibility.main(str(run), "--check") == 0


@pytest.mark.parametrize("reason", ["", "It is something else.", None])
def test_page_that_says_something_else_is_told(
    run: Path, reason: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A test that passed, that failed for another reason, or that was not run."""
    path = run / "wsgiref.json"
    results = json.loads(path.read_text())
    del results["wsgiref"]["test_path_reaches_the_app"]
    if reason is not None:
        results["wsgiref"]["test_path_reaches_the_app"] = {"test_path_reaches_the_app[wsgiref]": reason}
    path.write_text(json.dumps(results))
    assert compatibility.main(str(run), "--check") == 1
    assert "The app gets the path, byte for byte on wsgiref" in capsys.readouterr().err


def test_page_marks_what_a_server_passes_sometimes(run: Path) -> None:
    """The cell says that it varies, and has the number of the note that says why."""
    path = run / "wsgiref.json"
    results = json.loads(path.read_text())
    found = results["wsgiref"]["test_path_reaches_the_app"]
    results["wsgiref"]["test_path_reaches_the_app"] = dict.fromkeys(found, f"{SOMETIMES}It is late.")
    path.write_text(json.dumps(results))
    assert compatibility.main(str(run)) == 0
    page = compatibility.PAGE.read_text("utf-8")
    assert "| The app gets the path, byte for byte | varies 2 |" in page
    assert "2. It is late.\n" in page
    assert compatibility.main(str(run), "--check") == 0


@pytest.mark.parametrize("outcome", ["assert True", "assert False", "pytest.skip()"])
def test_test_that_a_server_passes_sometimes_never_fails_the_run(tmp_path: Path, outcome: str) -> None:
    """Both outcomes are noted alike; nothing is noted of a server that is not installed."""
    server, (test, reason) = "wsgiref", next(iter(SERVERS["wsgiref"].may.items()))
    (tmp_path / "test_behaviour.py").write_text(f"""
import pytest

APPLICATIONS, ON = {{}}, ["{server}"]

def test_that_passes():
    pass

def {test}(server_name):
    {outcome}
""")
    options = ["-q", f"--rootdir={tmp_path}", "-p", "no:cacheprovider", "-p", "interop.conftest"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_behaviour.py"],
        env={
            **os.environ,
            "TMPDIR": str(tmp_path),
            "PYTHONPATH": os.pathsep.join([str(compatibility.TESTS), *sys.path]),
            "A2WSGI_TEST_RESULTS": str(tmp_path / "results"),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    noted = {server: {test: {f"{test}[{server}]": f"{SOMETIMES}{reason}"}}}
    assert compatibility.read(tmp_path / "results") == ({} if "skip" in outcome else noted)


def test_page_is_not_written_of_half_a_run(run: Path) -> None:
    """A server that was not run would be missing."""
    (run / "wsgiref.json").unlink()
    assert compatibility.main(str(run)) == 1
