"""The commands in the README and the documentation start a server, and the app that stands above them answers.

`test_blocks` says which test runs what else the pages show.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.servers import module, running

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("flask")

pytestmark = pytest.mark.interop

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Those whose app has to answer. `a2wsgi` has other commands, which start nothing.
SERVERS = ("uvicorn", "gunicorn", "hypercorn", "uwsgi", "a2wsgi serve")

#: What ``main.py`` has where a page shows none: what the server needs a bridge for.
MAIN_OF_ASGI_SERVERS = 'application = __import__("a2wsgi").WSGIMiddleware(__import__("shop").app)\n'
MAIN_OF_WSGI_SERVERS = 'application = __import__("a2wsgi").ASGIMiddleware(__import__("api").app)\n'
SHOP = """
import flask
app = flask.Flask("shop")
app.add_url_rule("/", view_func=lambda: "hello")
create_app = lambda: app
"""
API = 'import fastapi\napp = fastapi.FastAPI()\napp.add_api_route("/", lambda: "hello")\n'


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and the text of each block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def shown() -> Iterator[tuple[str, dict[str, str], tuple[str, ...]]]:
    """Each command that serves: its page, the files that the page has shown by then, and its words."""
    for page in PAGES:
        files: dict[str, str] = {}
        for language, text in blocks(page):
            if language == "python" and (name := re.match(r"# (\w+\.py)\n", text)):
                files = {**files, name[1]: text}
            lines = {
                "console": re.findall(r"^\$ (.*)", text, re.MULTILINE),
                "dockerfile": [shlex.join(json.loads(words)) for words in re.findall(r"^CMD (.*)", text, re.MULTILINE)],
                "ini": re.findall(r"^ExecStart=\S*/(.*)", text, re.MULTILINE),
            }.get(language, [])
            for line in lines:
                if line.startswith(SERVERS):
                    yield page.name, files, tuple(shlex.split(line))


def command_of(words: Sequence[str], port: int, directory: Path) -> list[str]:
    """The command of this interpreter's server, on a port of ours."""
    program, *arguments = words
    at = f"127.0.0.1:{port}"
    if program == "uwsgi":
        pytest.importorskip("pyuwsgi")
        here = [argument.replace(":8000", at) for argument in arguments]
        assert here != arguments
        return [str(Path(sys.executable).parent / "pyuwsgi"), *here]
    for needed in {program, *arguments} & {"uvicorn", "gunicorn", "gevent", "hypercorn", "trio"}:
        pytest.importorskip(needed)
    arguments = ["127.0.0.1" if word == "0.0.0.0" else word for word in arguments]
    if program == "a2wsgi":
        arguments = [str(directory / word) if word == "path/to/shop.py" else word for word in arguments]
        rest = arguments.index("--") if "--" in arguments else len(arguments)
        return module(program, *arguments[:rest], "--port", str(port), *arguments[rest:])
    where = {
        "uvicorn": ["--port", str(port)],
        "hypercorn": ["--bind", at],
        "gunicorn": ["--bind", at, "--no-control-socket"],
    }
    return module(program, *arguments, *where[program])


@pytest.mark.parametrize(
    ("files", "words"),
    [pytest.param(files, words, id=f"{page}: {' '.join(words)}") for page, files, words in shown()],
)
def test_shown_command_serves(tmp_path: Path, files: dict[str, str], words: tuple[str, ...]) -> None:
    """Whoever types it into a shell, beside the files that the page shows, gets an answer."""
    main = MAIN_OF_WSGI_SERVERS if words[0] in {"gunicorn", "uwsgi"} else MAIN_OF_ASGI_SERVERS
    (tmp_path / "path" / "to").mkdir(parents=True)
    for name, text in {"main.py": main, "shop.py": SHOP, "path/to/shop.py": SHOP, "api.py": API, **files}.items():
        (tmp_path / name).write_text(text)
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))}
    with running(lambda port: command_of(words, port, tmp_path), tmp_path, environment=environment) as server:
        response = httpx.get(f"http://127.0.0.1:{server.port}/", timeout=10)
        assert response.status_code == 200
        assert "hello" in response.text.lower()


def test_completion_is_installed_by_the_shown_commands(tmp_path: Path) -> None:
    """The shell makes the file, and bash reads it."""
    pytest.importorskip("shtab")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    page = ROOT / "docs" / "command-line.md"
    (text,) = [text for _, text in blocks(page) if "--print-completion" in text]
    lines = "\n".join(re.findall(r"^\$ (.*)", text, re.MULTILINE))
    function = f'a2wsgi() {{ {shlex.quote(sys.executable)} -m a2wsgi "$@"; }}\n'
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([bash, "-euc", function + lines], env=environment, check=True, timeout=30)
    (completions,) = tmp_path.rglob("completions/a2wsgi")
    listed = subprocess.run(
        [bash, "-euc", f"source {shlex.quote(str(completions))}; complete -p a2wsgi"],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert listed.stdout.endswith(" a2wsgi\n")


def test_shown_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    """No key of it is unknown, and its command is there, for a user and a folder of ours."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    ((_, text),) = [block for block in blocks(ROOT / "docs" / "deploying.md") if block[0] == "ini"]
    program = Path(sys.executable).parent / "uvicorn"
    if not program.exists():
        pytest.skip("uvicorn is not installed")
    for old, new in (
        ("User=shop", f"User={getpass.getuser()}"),
        ("=/srv/shop/.venv/bin/uvicorn", f"={program}"),
        ("=/srv/shop\n", f"={tmp_path}\n"),
    ):
        assert old in text
        text = text.replace(old, new)
    unit = tmp_path / "shop.service"
    unit.write_text(text)
    verified = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False, timeout=30
    )
    assert (verified.returncode, [line for line in verified.stderr.splitlines() if "shop.service" in line]) == (0, [])
