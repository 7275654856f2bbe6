"""What the README and the documentation show is run here: each snippet of Python, and what is said of the command.

A page's snippets are run in their order, as one program. In it ``wsgi_app`` and ``asgi_app`` stand for the reader's
app, and the modules ``shop``, ``api`` and ``mysite.wsgi`` have one of Flask, FastAPI and Django. Whatever a snippet
calls ``application`` or ``app`` has to answer a request. What it prints has to be what a comment beside ``print()``
says.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gc
import importlib
import os
import re
import runpy
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from a2wsgi import AppInterfaceError, WSGIMiddleware
from a2wsgi._cli import main as _cli
from a2wsgi._cli.configuration import options_from
from a2wsgi._cli.servers import SERVERS, Server
from a2wsgi._interface import interface_of
from support.asgi_driver import Client, call

with contextlib.suppress(ImportError):
    import uvloop

    uvloop.new_event_loop().close()  # the first one of a process opens a pipe for signals, which stays

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: What the tests of the oldest Pythons do without.
FRAMEWORKS = {
    "asgiref",
    "django",
    "fastapi",
    "flask",
    "flask_socketio",
    "httpx",
    "mangum",
    "psycopg",
    "sqlalchemy",
    "starlette",
    "werkzeug",
}


#: SQLAlchemy's, in ``docs/troubleshooting.md``. It puts the numbers in as it says it, so it has a test of its own.
FULL_POOL = "QueuePool limit of size 5 overflow 10 reached"
#: Other messages there that are not ours, by the module that says them.
MESSAGES_OF_OTHERS = {
    "ASGI callable returned without starting response.": "uvicorn.protocols.http.h11_impl",
    "Event loop is closed": "asyncio.base_events",
    "attached to a different loop": "asyncio.tasks",
    "Task group is not initialized": "mcp.server.streamable_http_manager",
}


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
    monkeypatch.setattr(sys, "path", [*sys.path])  # which a snippet extends
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


# A page shows a connection for each thread, which nobody closes but the end of the thread; Python 3.13 warns of that.
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if any(snippets(page, "python"))], ids=lambda page: page.name)
def test_python_of_a_page_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each snippet runs after those above it, and its app answers."""
    namespace: dict[str, Any] = {"__name__": "__docs__", "wsgi_app": wsgi_app, "asgi_app": asgi_app}
    try:
        for line, text in snippets(page, "python"):
            run(page, line, text, namespace, capsys)
    finally:
        if "Mangum" in namespace:  # it makes a loop for its thread, which it leaves open
            asyncio.get_event_loop().close()
            asyncio.set_event_loop(None)
        namespace.clear()  # FastAPI keeps its routes in caches, and those keep all that their module has
        gc.collect()  # now, and not in a test that says nothing of connections


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
    assert _cli.parser().parse_args(own).app.startswith(("shop", "api", "path/to/shop.py"))


def test_inspection_is_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page shows what the command prints."""
    pytest.importorskip("websockets", reason="without it, the extra is missing, too")
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
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+)[^|]* \| (\w+) \| (\w+)", text, re.MULTILINE)
    words = {"asgi3": "ASGI", "wsgi": "WSGI"}
    assert [(name, calls, workers, reload != "no") for name, calls, workers, reload in rows] == [
        (name, words[server.interface], "yes" if server.can("workers") else "no", server.can("reload"))
        for name, server in SERVERS.items()
    ]


def test_tables_of_options_are_those_of_the_command() -> None:
    """Whoever changes an option runs ``python docs/options.py``."""
    page = ROOT / "docs" / "command-line.md"
    assert runpy.run_path(str(ROOT / "docs" / "options.py"))["filled"](page.read_text("utf-8")) == page.read_text(
        "utf-8"
    )


def test_configuration_of_the_page_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands there can be written into a pyproject.toml, and is then what the user wants."""
    if sys.version_info < (3, 11):
        pytest.importorskip("tomli")
    (text,) = [text for _, text in snippets(ROOT / "docs" / "command-line.md", "toml")]
    (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {name: text for name, text in os.environ.items() if name[:7] != "A2WSGI_"})
    options = options_from({}, [])
    assert (options.app, options.server, options.threads, options.access_log) == ("shop:app", "gunicorn", 20, True)
    assert options.bridge == {"send_timeout": 60}


def test_every_option_of_the_parser_is_in_the_table() -> None:
    """The table of the page has a row for each option of `serve`, and none besides."""
    text = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    table = text[text.index("<!-- options:") : text.index("<!-- end of options")]
    shown = set(re.findall(r"`(--[a-z-]+)[ `]", "".join(line.split(" | ")[0] for line in table.splitlines())))
    subparsers: Any = _cli.parser()._subparsers
    (commands,) = [action.choices for action in subparsers._group_actions]
    options = {option for action in commands["serve"]._actions for option in action.option_strings}
    assert shown == options - {"-h", "--help"}


def test_error_of_a_full_pool_is_what_sqlalchemy_says() -> None:
    """The page shows it as it stands in a log, with SQLAlchemy's own sizes and timeout."""
    sqlalchemy = pytest.importorskip("sqlalchemy")
    (shown,) = [text for _, text in snippets(ROOT / "docs" / "databases.md", "text")]
    engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.QueuePool)
    assert (engine.pool.size(), engine.pool._max_overflow, engine.pool._timeout) == (5, 10, 30.0)
    impatient = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.QueuePool, pool_timeout=0)
    with contextlib.ExitStack() as stack:
        for _ in range(15):
            stack.enter_context(impatient.connect())
        with pytest.raises(sqlalchemy.exc.TimeoutError) as caught:
            impatient.connect()
    impatient.dispose()
    said = str(caught.value).splitlines()[0].partition(" (Background")[0]
    assert f"sqlalchemy.exc.TimeoutError: {said}" == shown.strip().replace("timeout 30.00", "timeout 0.00")


def test_error_on_the_wrong_server_is_what_the_page_shows() -> None:
    """The page breaks its line, and nothing else."""
    module = types.ModuleType("shop")
    exec("def app(environ, start_response): ...", vars(module))  # noqa: S102  # its name is in the message
    (shown,) = [text for _, text in snippets(ROOT / "docs" / "errors.md", "text") if "AppInterfaceError:" in text]
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    application: Any = WSGIMiddleware(module.app)
    with pytest.raises(AppInterfaceError) as caught:
        application(environ, lambda *_: None)
    assert f"AppInterfaceError: {caught.value}" == " ".join(shown.split())


def test_line_of_the_command_is_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the port, which has to be free here."""
    pytest.importorskip("uvicorn")
    (tmp_path / "shop.py").write_text("def app(environ, start_response): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "shop")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (shown,) = [text for _, text in snippets(ROOT / "docs" / "command-line.md", "text")]
    version = re.search(r"uvicorn ([\d.]+)", shown)
    assert version is not None
    monkeypatch.setattr(Server, "version", lambda _: version[1])
    monkeypatch.setattr(_cli, "start_server", lambda *_: 0)
    assert _cli.main(["serve", "shop:app", "--port=0"]) == 0
    said = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8000", capsys.readouterr().err)
    assert said == shown
    monkeypatch.delitem(sys.modules, "shop")


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


def messages() -> Iterator[str]:
    """Every string in the source, with an ellipsis for whatever is put into it."""
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)  # type: ignore[misc]  # its constants are str
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[a-z]", "…", node.value)


def test_messages_on_the_page_are_those_of_the_source() -> None:
    """Whoever searches the page for a message finds it, word for word, under "Messages"."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    text = text[text.index("## Messages") : text.index("## What you see")]
    shown = re.findall(r"^### `(.*)`$", text, re.MULTILINE)
    said = list(messages())
    others = {FULL_POOL, *MESSAGES_OF_OTHERS}
    assert [message for message in shown if message not in others and not any(message in one for one in said)] == []
    assert len(shown) > 20


@pytest.mark.parametrize("message", MESSAGES_OF_OTHERS)
def test_messages_of_others_are_in_their_source(message: str) -> None:
    """The page shows them as those who write them do, under "Messages"."""
    module = pytest.importorskip(MESSAGES_OF_OTHERS[message])
    assert message in Path(module.__file__).read_text("utf-8")
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    assert f"\n### `{message}`\n" in text


def test_readme_has_only_links_that_work_on_pypi() -> None:
    """PyPI has no files of the repository: each link is absolute, and names a file that is there."""
    text = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert [link for link in links if not link.startswith("https://")] == []
    inside = r"https://(?:raw\.githubusercontent\.com/abersheeran/a2wsgi|github\.com/abersheeran/a2wsgi/(?:blob|tree))/HEAD/(.+)"
    paths = [match[1] for link in links if (match := re.fullmatch(inside, link))]
    assert len(paths) == len(links)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_readme_counts_the_setups_of_the_table() -> None:
    """The columns of both directions, and the servers that the command can start."""
    readme = (ROOT / "README.md").read_text("utf-8")
    page = (ROOT / "docs" / "compatibility.md").read_text("utf-8")
    columns = [len(line.split("|")) - 3 for line in re.findall(r"^\|  \|.*$", page, re.MULTILINE)]
    assert re.findall(r"(\d+)\s+setups", readme) == [str(sum(columns[:2]))]  # below them are those of WebSockets
    assert len(SERVERS) == 11
    assert "on any of eleven servers" in readme


@pytest.mark.parametrize("script", ["diagrams", "chart"])
def test_drawings_are_those_of_their_scripts(script: str) -> None:
    """Whoever changes a script, or the figures behind the chart, draws it again."""
    drawing = runpy.run_path(str(ROOT / "docs" / f"{script}.py"))
    if script == "chart":
        drawn = {"requests": drawing["draw"]()}
    else:
        drawn = {each.name: drawing["draw"](each) for each in (drawing["WSGI_ON_ASGI"], drawing["ASGI_ON_WSGI"])}
    for name, text in drawn.items():
        assert (ROOT / "docs" / "diagrams" / f"{name}.svg").read_text("utf-8") == text


def test_charts_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever measures anew, or changes how a chart is drawn, runs ``benchmarks/report.py``."""
    results = ROOT / "benchmarks" / "results" / "latest.json"
    if not results.exists():
        pytest.skip("an sdist has no results")
    monkeypatch.syspath_prepend(str(results.parent.parent))
    try:
        report, charts, history = map(importlib.import_module, ("report", "charts", "history"))
        _, runs = report.load(results)
        drawn = {name: text for of in runs.values() for name, text in charts.of_section(report.pooled(of))}
        drawn["history"] = history.drawn(report.targets())
    finally:
        for name in ("report", "charts", "history", "contenders", "measure"):
            sys.modules.pop(name, None)
    assert drawn == {path.stem: path.read_text("utf-8") for path in (ROOT / "docs" / "benchmarks").glob("*.svg")}


def test_links_have_a_text() -> None:
    """Sphinx fills in an empty one with the page's title; GitHub, where many read these pages, shows nothing."""
    assert [page.name for page in PAGES if "[](" in page.read_text("utf-8")] == []
