"""What the README and the documentation show is run here: each snippet of Python, and what is said of the command.

A page's snippets are run in their order, as one program. In it ``wsgi_app`` and ``asgi_app`` stand for the reader's
app, and the modules ``shop``, ``api`` and ``mysite.wsgi`` have one of Flask, FastAPI and Django. Whatever a snippet
calls ``application`` or ``app`` has to answer a request. What it prints has to be what a comment beside ``print()``
says.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from a2wsgi import _cli
from a2wsgi._interface import interface_of
from a2wsgi._servers import SERVERS, Server
from support.asgi_driver import Client, call

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: What the tests of the oldest Pythons do without.
FRAMEWORKS = {"django", "fastapi", "flask", "starlette", "werkzeug"}


def snippets(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """The blocks of a language in a page, each with the number of its first line."""
    text = page.read_text("utf-8")
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, match.start(1)) + 1, match[1]


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The reader's WSGI app."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """The reader's ASGI app."""
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def _shop() -> Any:
    import flask

    app = flask.Flask("shop")
    app.add_url_rule("/", view_func=lambda: "hello")
    return app


def _api() -> Any:
    import fastapi

    app = fastapi.FastAPI()
    app.add_api_route("/", lambda: "hello")
    return app


def _site() -> Any:
    import django.conf
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import clear_url_caches, path

    urls: Any = types.ModuleType("mysite.urls")
    urls.urlpatterns = [path("", lambda request: HttpResponse(b"hello"))]
    if not django.conf.settings.configured:  # by a test of another file: there is one Django a process
        django.conf.settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="none", DEBUG=True)
    django.conf.settings.ROOT_URLCONF = urls
    clear_url_caches()
    return get_wsgi_application()


class Module(types.ModuleType):
    """A module of the reader's, whose app is made when it is first asked for."""

    def __init__(self, name: str, attribute: str, make: Callable[[], Any]) -> None:
        super().__init__(name)
        self._attribute, self._make = attribute, make

    def __getattr__(self, name: str) -> Any:
        if name != self._attribute:
            raise AttributeError(name)
        app = self._make()
        setattr(self, name, app)
        return app


@pytest.fixture(autouse=True)
def _readers_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shop", Module("shop", "app", _shop))
    monkeypatch.setitem(sys.modules, "api", Module("api", "app", _api))
    monkeypatch.setitem(sys.modules, "mysite", types.ModuleType("mysite"))
    monkeypatch.setitem(sys.modules, "mysite.wsgi", Module("mysite.wsgi", "application", _site))


def status_of(app: Any) -> int:
    """The status of the answer to ``GET /``, by the interface that the app has."""
    if interface_of(app) == "asgi3":
        return call(app, Client(strict=False)).status
    environ: dict[str, Any] = {"REMOTE_ADDR": "127.0.0.1"}
    setup_testing_defaults(environ)
    statuses: list[str] = []
    iterable = app(environ, lambda status, headers, exc_info=None: statuses.append(status))
    try:
        for _ in iterable:
            pass
    finally:
        getattr(iterable, "close", lambda: None)()
    return int(statuses[-1].split()[0])


def run(page: Path, line: int, text: str, namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Run one snippet, and hold it against what it says."""
    try:
        exec(compile("\n" * (line - 1) + text, str(page), "exec", dont_inherit=True), namespace)  # noqa: S102
    except ModuleNotFoundError as error:
        if error.name in FRAMEWORKS:
            pytest.skip(f"{error.name} is not installed")
        raise
    printed = capsys.readouterr().out
    said = re.findall(r"print\(.*\)  # (.*)", text)
    assert not said or printed.splitlines() == said, f"{page}:{line} prints what it does not say"
    for name in ("application", "app"):
        if re.search(rf"^(?:async )?(?:def )?{name}\b", text, re.MULTILINE):
            assert status_of(namespace[name]) == 200, f"{page}:{line}: {name} does not answer"


@pytest.mark.parametrize("page", [page for page in PAGES if any(snippets(page, "python"))], ids=lambda page: page.name)
def test_python_of_a_page_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each snippet runs after those above it, and its app answers."""
    namespace: dict[str, Any] = {"__name__": "__docs__", "wsgi_app": wsgi_app, "asgi_app": asgi_app}
    for line, text in snippets(page, "python"):
        run(page, line, text, namespace, capsys)


def commands(page: Path) -> Iterator[list[str]]:
    """What a page calls ``a2wsgi`` with."""
    for _, text in snippets(page, "console"):
        for line in text.splitlines():
            if line.startswith("$ a2wsgi "):
                yield line.partition(" > ")[0].split()[2:]


@pytest.mark.parametrize(
    "arguments",
    [words for page in PAGES for words in commands(page) if "--print-completion" not in words],
    ids=" ".join,
)
def test_commands_of_the_pages_are_understood(arguments: list[str]) -> None:
    """What is shown can be typed."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    assert _cli._parser().parse_args(own).app.startswith(("shop:", "path/to/shop.py:"))


def test_inspection_is_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page shows what the command prints."""
    (tmp_path / "shop.py").write_text("async def asgi(scope, receive, send): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "shop")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(Server, "version", lambda _: "3.0.2")
    (shown,) = [text for _, text in snippets(ROOT / "docs" / "command-line.md", "console") if " inspect " in text]
    command, _, output = shown.partition("\n")
    assert _cli.main(command.split()[2:]) == 0
    assert capsys.readouterr().out == output
    monkeypatch.delitem(sys.modules, "shop")


def test_table_of_servers_is_that_of_the_command() -> None:
    """The page names every server, what it calls, and which options it has."""
    text = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (\w+) \| (\w+)", text, re.MULTILINE)
    words = {"asgi3": "ASGI", "wsgi": "WSGI"}
    assert [(name, calls, workers, reload != "no") for name, calls, workers, reload in rows] == [
        (name, words[server.interface], "yes" if server.workers else "no", bool(server.reload))
        for name, server in SERVERS.items()
    ]


def test_tree_of_errors_is_that_of_the_package() -> None:
    """The page draws each error that can be imported under the one that it is of."""
    import a2wsgi

    text = next(text for _, text in snippets(ROOT / "docs" / "errors.md", "text"))
    stack: list[tuple[int, str]] = []
    drawn: dict[str, str] = {}
    for match in re.finditer(r"^([ │├└─]*)(\w+)", text, re.MULTILINE):
        stack = [(depth, name) for depth, name in stack if depth < len(match[1])]
        drawn[match[2]] = stack[-1][1] if stack else "Exception"
        stack.append((len(match[1]), match[2]))
    public = {name: getattr(a2wsgi, name) for name in a2wsgi.__all__}
    assert drawn == {
        name: thing.__mro__[1].__name__
        for name, thing in public.items()
        if isinstance(thing, type) and issubclass(thing, Exception)
    }
