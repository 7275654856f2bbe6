"""No page shows a block that no test runs.

Each fenced block of each page is in one of the lists here: with the test that runs it, or with a reason why none does.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("", "docs", "benchmarks", "changelog.d", "ecosystem", "fuzz", "soak", ".github")
PAGES = [page for folder in FOLDERS for page in sorted((ROOT / folder).glob("*.md"))]

#: The blocks, by page and language. A test is named by its file, below ``tests/``, and its function.
BLOCKS = {
    ("README.md", "python"): "test_docs.py::test_python_of_a_page_runs",
    ("docs/*.md", "python"): "test_docs.py::test_python_of_a_page_runs",
    ("docs/migrating.md", "py"): "test_docs_migrating.py::test_every_block_is_run",
    ("docs/command-line.md", "text"): "test_docs.py::test_line_of_the_command_is_what_the_page_shows",
    ("docs/command-line.md", "toml"): "test_docs.py::test_configuration_of_the_page_is_understood",
    ("docs/databases.md", "text"): "test_docs.py::test_error_of_a_full_pool_is_what_sqlalchemy_says",
    ("docs/deploying.md", "nginx"): "interop/test_behind_proxies.py::test_events_are_not_held_back",
    ("docs/deploying.md", "text"): "interop/test_behind_proxies.py::test_events_are_not_held_back",  # Caddy's
    # Of Docker only the command: where the tests run there is no Docker.
    ("docs/deploying.md", "dockerfile"): "interop/test_shown_commands.py::test_shown_command_serves",
    ("docs/deploying.md", "ini"): "interop/test_shown_commands.py::test_shown_unit_is_one_that_systemd_takes",
    ("docs/errors.md", "text (tree)"): "test_docs.py::test_tree_of_errors_is_that_of_the_package",
    ("docs/errors.md", "text"): "test_docs.py::test_error_on_the_wrong_server_is_what_the_page_shows",
    ("docs/websockets.md", "nginx"): "interop/test_websockets_asgi_on_wsgi.py::test_echo",
}

#: What Sphinx runs, whose warnings are errors: `make docs`.
DIRECTIVES = {"{eval-rst}", "{toctree}", "{raw} html", "{note}"}

#: The lines of consoles, by how they begin.
COMMANDS = {
    "a2wsgi serve ": "interop/test_shown_commands.py::test_shown_command_serves",
    "uvicorn ": "interop/test_shown_commands.py::test_shown_command_serves",
    "gunicorn ": "interop/test_shown_commands.py::test_shown_command_serves",
    "hypercorn ": "interop/test_shown_commands.py::test_shown_command_serves",
    "uwsgi ": "interop/test_shown_commands.py::test_shown_command_serves",
    "a2wsgi inspect ": "test_docs.py::test_inspection_is_what_the_page_shows",
    "mkdir ": "interop/test_shown_commands.py::test_completion_is_installed_by_the_shown_commands",
    "a2wsgi --print-completion ": "interop/test_shown_commands.py::test_completion_is_installed_by_the_shown_commands",
    # Run by .ci/check-wheel, which installs a wheel; here what is named is looked up.
    "pip install ": "test_blocks.py::test_packages_to_install_are_ours_or_in_our_environment",
    # Run by CI; here make says what it would do.
    "make ": "test_blocks.py::test_targets_of_make_are_there",
}


class Block(NamedTuple):
    """A fenced block."""

    page: str
    line: int
    language: str
    text: str


def blocks() -> Iterator[Block]:
    """Each block of each page, in order."""
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        lines = iter(enumerate(page.read_text("utf-8").splitlines(), 1))
        for number, line in lines:
            if (opening := re.fullmatch(r"\s*(`{3,}|~{3,}|:{3,})(.*)", line)) is None:
                continue
            inside: list[str] = []
            for _, other in lines:
                if other.strip() == opening[1]:
                    break
                inside.append(other)
            else:
                raise AssertionError(f"{name}:{number} opens a block that has no end")
            yield Block(name, number, opening[2].strip(), "\n".join(inside))


ALL = list(blocks())


def key_of(block: Block) -> tuple[str, str] | None:
    """Under which key a block is listed."""
    language = "text (tree)" if block.language == "text" and "├──" in block.text else block.language
    return next((key for key in BLOCKS if key[1] == language and fnmatch(block.page, key[0])), None)


def command_of(line: str) -> str | None:
    """Under which key a line of a console is listed."""
    return next((start for start in COMMANDS if line.startswith(start)), None)


def lines(start: str) -> list[str]:
    """The lines of consoles that begin so."""
    consoles = "\n".join(block.text for block in ALL if block.language == "console")
    return [line for line in re.findall(r"^\$ (.*)$", consoles, re.MULTILINE) if line.startswith(start)]


def test_every_block_is_listed() -> None:
    """With a test, as an example (which has its test), or as a directive; a console by each of its lines."""
    missing = [
        f"{block.page}:{block.line} {block.language or '(no language)'}"
        for block in ALL
        if block.language not in DIRECTIVES | {"console"}
        and not block.language.startswith("{literalinclude} ../examples/")
        and key_of(block) is None
    ]
    assert missing == []
    assert [line for line in lines("") if command_of(line) is None] == []


def test_every_console_has_a_command() -> None:
    """A line without a ``$`` is what the command above it prints, and only one page shows that."""
    consoles = [block for block in ALL if block.language == "console"]
    assert [f"{block.page}:{block.line}" for block in consoles if not block.text.startswith("$ ")] == []
    printing = {block.page for block in consoles if re.search(r"^[^$\n]", block.text, re.MULTILINE)}
    assert printing == {"docs/command-line.md"}  # of `a2wsgi inspect`


def test_lists_have_no_more_than_the_pages() -> None:
    """What is shown no longer is not listed."""
    assert {key_of(block) for block in ALL} - {None} == BLOCKS.keys()
    assert {command_of(line) for line in lines("")} == COMMANDS.keys()


@pytest.mark.parametrize("test", sorted({*BLOCKS.values(), *COMMANDS.values()}))
def test_listed_test_is_there(test: str) -> None:
    """In its file, by its name."""
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / "tests" / path).read_text("utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_packages_to_install_are_ours_or_in_our_environment() -> None:
    """An extra of ours (of ``.``, in a clone) is one that there is; any other package is one that the tests install."""
    pyproject = (ROOT / "pyproject.toml").read_text("utf-8")
    extras = pyproject.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    for line in lines("pip install "):
        for word in shlex.split(line)[2:]:
            name, _, extra = word.rstrip("]").partition("[")
            if name in {"a2wsgi", "."}:
                assert not extra or re.search(rf"^{extra} = ", extras, re.MULTILINE), line
            else:
                assert re.search(rf'^    "{name}\b', pyproject, re.MULTILINE), line


@pytest.mark.skipif(sys.platform == "win32", reason="make is not on Windows")
@pytest.mark.parametrize("line", dict.fromkeys(lines("make ")))
def test_targets_of_make_are_there(line: str) -> None:
    """Make knows what it would do."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    words = [make, "--dry-run", *shlex.split(line, comments=True)[1:]]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout
