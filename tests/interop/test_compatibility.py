"""What is said of the servers is said of tests that there are, and a page that says something else is found out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from interop import compatibility
from interop.servers import SERVERS


def test_what_servers_cannot_do_are_tests() -> None:
    """A reason that belongs to no test would never be found untrue."""
    text = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    tests = set(re.findall(r"^def (test_\w+)\(", text, re.MULTILINE))
    assert {test.partition("[")[0] for kind in SERVERS.values() for test in kind.cannot} - tests == set()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of a run on two servers, in which wsgiref fails all and uvicorn passes all; and a page of it."""
    monkeypatch.setattr(compatibility, "PAGE", tmp_path / "page.md")
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
    assert "Path reaches the app on wsgiref" in capsys.readouterr().err


def test_page_is_not_written_of_half_a_run(run: Path) -> None:
    """A server that was not run would be missing."""
    (run / "wsgiref.json").unlink()
    assert compatibility.main(str(run)) == 1
