"""The command line, up to where a server takes over; `tests/interop/test_cli_serve.py` goes on from there."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

from a2wsgi import __version__
from a2wsgi._cli import starting
from a2wsgi._cli.loading import Target
from a2wsgi._cli.main import main
from a2wsgi._cli.servers import SERVERS, Server

APPS = """\
import functools

def wsgi(environ, start_response): ...

async def asgi(scope, receive, send): ...

class Two:
    def __init__(self, scope): ...
    async def __call__(self, receive, send): ...

class Site:
    app = staticmethod(wsgi)

def silent(*args): ...

def make_app():
    return wsgi

def make_nothing(debug=False): ...

def make_failure():
    raise RuntimeError("no database")

def make_exit():
    raise SystemExit("no configuration")

number = 5

class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError

def make_unspeakable():
    raise Unspeakable

def make_for(settings):
    return wsgi

@functools.wraps(make_for)
def make_of_any(*settings):
    return make_for(*settings, {})

class Failing:
    @property
    def app(self):
        raise RuntimeError("no request")

failing = Failing()

async def make_later():
    return wsgi
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with a module of apps; what is imported from it is forgotten afterwards."""
    (tmp_path / "shop.py").write_text(APPS)
    (tmp_path / "bridged.py").write_text(
        "from a2wsgi import WSGIMiddleware\nfrom shop import wsgi\napp = WSGIMiddleware(wsgi)"
    )
    (tmp_path / "broken.py").write_text("import json\n\njson.loads('{')\n")
    (tmp_path / "needy.py").write_text("import a_module_that_is_not_there\n")
    (tmp_path / "wrong.py").write_text("def app(:\n")
    (tmp_path / "misspelt.py").write_text("import a2wsgi, shop\napp = a2wsgi.WSGIMiddleware(shop.wsgi, worker=3)\n")
    (tmp_path / "unguarded.py").write_text("import a2wsgi, shop\na2wsgi.run(shop.wsgi)\n")
    (tmp_path / "failing.py").write_text("def __getattr__(name):\n    raise RuntimeError('no request')\n")
    for name in ("my-shop.py", "my.shop.py", "shop.wsgi"):
        (tmp_path / name).write_text(APPS)
    package = tmp_path / "site-one" / "web"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .views import app\n")
    (package / "views.py").write_text(APPS + "app = wsgi\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every server installed, of version 1.2."""
    monkeypatch.setattr(Server, "version", lambda _: "1.2")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, _installed: None) -> list[tuple[list[str], dict[str, str]]]:
    """The servers that are started: here they are noted only."""
    noted: list[tuple[list[str], dict[str, str]]] = []

    def note(command: list[str], environment: Mapping[str, str]) -> NoReturn:
        noted.append((command, dict(environment)))
        raise SystemExit(0)

    monkeypatch.setattr(starting, "become", note)
    monkeypatch.setattr(starting, "runs_here", lambda start: False)
    return noted


def serve(*arguments: str) -> int:
    """What ``a2wsgi serve`` exits with, up to where a server would take over."""
    try:
        return main(["serve", *arguments])
    except SystemExit as error:
        return int(error.code or 0)


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said of a command line that cannot be meant, less the usage."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    return capsys.readouterr().err.partition("error: ")[2].strip()


# -- Where an app is --------------------------------------------------------------------------------------------------


def test_target_is_a_module_in_the_current_directory(directory: Path) -> None:
    """A module is looked for where the command is run."""
    assert Target.parse("web.views:api.app") == Target("web.views", "api.app", str(directory))


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("site-one/web/views.py:app", "web.views"),
        ("./site-one/web/views.py:app", "web.views"),
        ("site-one/web/__init__.py:app", "web"),
        ("site-one/web:app", "web"),
    ],
)
def test_target_is_a_file_of_a_package(directory: Path, text: str, module: str) -> None:
    """A file is imported as the module that it is, so that it may import from its package."""
    assert Target.parse(text) == Target(module, "app", str(directory / "site-one"))


def test_target_is_a_file_of_no_package(directory: Path) -> None:
    """A file by an absolute path is found from anywhere."""
    assert Target.parse(f"{directory}/shop.py:wsgi") == Target("shop", "wsgi", str(directory))


# -- inspect ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_installed")
def test_inspect_tells_people_what_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """The interface and how it is known, the conversion, what is missing, and what to write."""
    pytest.importorskip("websockets", reason="without it, the extra is missing, too")
    assert main(["inspect", "shop:asgi", "--server", "waitress"]) == 0
    assert (
        capsys.readouterr().out
        == """\
app         shop:asgi
interface   ASGI: shop.asgi is async and takes (scope, receive, send)
server      waitress (1.2) calls WSGI apps
conversion  through ASGIMiddleware
missing     streaming uploads: the server receives the whole body before it calls the app
            HTTP/2: the server speaks HTTP/1.1 only

    from a2wsgi import ASGIMiddleware
    from shop import asgi

    application = ASGIMiddleware(asgi)
"""
    )


@pytest.mark.usefixtures("_installed")
def test_inspect_tells_people_that_nothing_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """An app on a server of its own kind needs no line of Python."""
    assert main(["inspect", "shop:asgi", "--server=hypercorn"]) == 0
    assert (
        capsys.readouterr().out
        == """\
app         shop:asgi
interface   ASGI: shop.asgi is async and takes (scope, receive, send)
server      hypercorn (1.2) calls ASGI apps
conversion  none is needed
missing     nothing
"""
    )


def report_of(capsys: pytest.CaptureFixture[str], app: str, server: str) -> dict[str, Any]:
    """What ``inspect`` tells machines."""
    assert main(["inspect", app, "--server", server, "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


@pytest.mark.parametrize(
    ("package", "code", "paths"),
    [
        (
            "starlette",
            """
from starlette.applications import Starlette
from starlette.routing import Mount, Route, WebSocketRoute

async def endpoint(*_): ...

inner = [WebSocketRoute("/chat", endpoint), Route("/page", endpoint)]
app = Starlette(routes=[WebSocketRoute("/echo", endpoint), Mount("/inner", routes=inner)])
""",
            ["/echo", "/inner/chat"],
        ),
        (
            "flask_sock",
            """
from flask import Flask
from flask_sock import Sock

app = Flask(__name__)

@Sock(app).route("/echo/<name>")
def echo(ws, name): ...
""",
            ["/echo/<name>"],
        ),
        (
            "flask_socketio",
            """
from flask import Flask
from flask_socketio import SocketIO

app = Flask(__name__)
SocketIO(app, async_mode="threading")
""",
            ["/socket.io"],
        ),
    ],
)
def test_inspect_tells_of_websockets(
    directory: Path, capsys: pytest.CaptureFixture[str], package: str, code: str, paths: list[str]
) -> None:
    """Those that a framework knows of."""
    pytest.importorskip(package)
    (directory / f"sockets_in_{package}.py").write_text(code)
    assert report_of(capsys, f"sockets_in_{package}:app", "uvicorn")["websockets"] == paths
    assert main(["inspect", f"sockets_in_{package}:app"]) == 0
    assert f"websockets  {', '.join(paths)}\n" in capsys.readouterr().out


def test_inspect_tells_what_stands_in_the_way_of_websockets(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra, on a server of the other kind; and a Socket.IO that has chosen what is merely installed."""
    pytest.importorskip("websockets")
    (directory / "choosy.py").write_text("""
from types import SimpleNamespace

def app(environ, start_response): ...

app.extensions = {"socketio": SimpleNamespace(async_mode="gevent")}
""")
    assert "async_mode='threading'" in report_of(capsys, "choosy:app", "uvicorn")["missing"]["WebSockets"]
    assert "WebSockets" not in report_of(capsys, "choosy:app", "waitress")["missing"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    for app, server in (("shop:wsgi", "uvicorn"), ("shop:asgi", "waitress")):
        assert "a2wsgi[websocket]" in report_of(capsys, app, server)["missing"]["WebSockets"]
    assert "WebSockets" not in report_of(capsys, "shop:asgi", "uvicorn")["missing"]


@pytest.mark.usefixtures("_installed")
def test_inspect_tells_machines_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """``--json`` has every key, always."""
    pytest.importorskip("websockets")  # else that is missing, too
    assert main(["inspect", "shop:make_app", "--factory", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "app": "shop:make_app",
        "interface": "wsgi",
        "evidence": "shop.wsgi is not async and takes (environ, start_response)",
        "server": "uvicorn",
        "server_interface": "asgi3",
        "server_version": "1.2",
        "conversion": "through WSGIMiddleware",
        "websockets": [],
        "missing": {"HTTP/2": "needs `pip install zttp` and `-- --http zttp --http2`"},
        "python": (
            "from a2wsgi import WSGIMiddleware\nfrom shop import make_app\n\napplication = WSGIMiddleware(make_app())\n"
        ),
    }


@pytest.mark.parametrize(
    ("app", "server", "conversion", "last_line"),
    [
        ("shop:wsgi", "waitress", None, None),
        ("shop:asgi", "uvicorn", None, None),
        ("shop:Two", "uvicorn", "through an adapter for ASGI 2", "application = to_asgi(Two)"),
        ("shop:Two", "gunicorn", "through ASGIMiddleware", "application = ASGIMiddleware(Two)"),
        ("shop:Site.app", "uvicorn", "through WSGIMiddleware", "application = WSGIMiddleware(Site.app)"),
        (
            "my-shop.py:asgi",
            "waitress",
            "through ASGIMiddleware",
            'application = ASGIMiddleware(import_module("my-shop").asgi)',
        ),
        ("bridged:app", "uvicorn", None, None),
        ("bridged:app", "gunicorn", "without the WSGIMiddleware around it", "application = to_wsgi(app)"),
    ],
)
def test_inspect_tells_the_least_conversion(
    capsys: pytest.CaptureFixture[str], app: str, server: str, conversion: str | None, last_line: str | None
) -> None:
    """No bridge is made that is not needed, and none around another."""
    assert main(["inspect", app, "--server", server, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["conversion"] == conversion
    assert (report["python"] or "").splitlines()[-1:] == ([last_line] if last_line else [])


def test_inspect_needs_no_server(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server would need can be told where none is installed."""
    monkeypatch.setattr(Server, "version", lambda _: None)
    assert main(["inspect", "shop:asgi", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["server"], report["server_version"]) == ("uvicorn", None)
    assert main(["inspect", "shop:asgi"]) == 0
    assert "uvicorn (not installed) calls ASGI apps" in capsys.readouterr().out


# -- serve ------------------------------------------------------------------------------------------------------------

Started = list[tuple[list[str], dict[str, str]]]

ALL_OPTIONS = ["--host=::1", "--port=0", "--workers=3", "--root-path=/x", "--reload"]


@pytest.mark.parametrize(
    ("server", "options", "command"),
    [
        (
            "uvicorn",
            ALL_OPTIONS,
            "uvicorn --interface=asgi3 --host=::1 --port=P --workers=3 --root-path=/x --reload --reload-dir=D",
        ),
        ("hypercorn", ALL_OPTIONS, "hypercorn --bind=[::1]:P --workers=3 --root-path=/x --reload"),
        (
            "granian",
            ALL_OPTIONS,
            (
                "granian --interface=wsgi --workers-kill-timeout=10 --host=::1 --port=P --workers=3 "
                "--url-path-prefix=/x --reload --reload-paths=D"
            ),
        ),
        ("gunicorn", ALL_OPTIONS, "gunicorn --bind=[::1]:P --workers=3 --reload"),
        (
            "gunicorn-asgi",
            ALL_OPTIONS,
            "gunicorn --worker-class=asgi --bind=[::1]:P --workers=3 --root-path=/x --reload",
        ),
        ("daphne", ["--port=0", "--root-path=/x"], "daphne --bind=127.0.0.1 --port=P --root-path=/x"),
        (
            "waitress",
            ["--port=0", "--workers=1", "--root-path=/x"],
            "waitress --channel-request-lookahead=1 --host=127.0.0.1 --port=P --url-prefix=/x",
        ),
    ],
)
def test_serve_gives_a_server_its_own_options(
    directory: Path, started: Started, server: str, options: list[str], command: str
) -> None:
    """Each option becomes what the server calls it, and what follows the ``--`` is passed on as it is."""
    if "--host=::1" in options and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    assert serve("shop:wsgi", "--server", server, *options, "--", "--option", "value") == 0
    [((python, dash_m, *arguments, app), environment)] = started
    port = next(
        text.rpartition("=")[2].rpartition(":")[2]
        for text in arguments
        if text.startswith(("--port", "--bind=[", "--listen"))
    )
    assert int(port) > 0
    expected = command.replace("=P", f"={port}").replace(":P", f":{port}").replace("=D", f"={directory}").split()
    assert [python, dash_m, *arguments] == [sys.executable, "-m", *expected, "--option", "value"]
    assert app == ("asgi:" if server == "hypercorn" else "") + "a2wsgi._cli.served:app"
    assert json.loads(environment["A2WSGI_SERVED"]) == {
        "target": {"module": "shop", "attribute": "wsgi", "directory": str(directory), "factory": False},
        "server": server,
        "bridge": {},
        "root_path": "/x",
        "log_level": None,
        "trusted": None,
    }
    assert environment.get("SCRIPT_NAME") == ("/x" if server == "gunicorn" else os.environ.get("SCRIPT_NAME"))


@pytest.mark.parametrize(
    ("app", "server", "statement"),
    [
        ("shop:wsgi", "uvicorn", "serving the WSGI app shop:wsgi on http://{} by uvicorn 1.2, through WSGIMiddleware"),
        ("shop:asgi", "uvicorn", "serving the ASGI app shop:asgi on http://{} by uvicorn 1.2, without a bridge"),
        (
            "shop:asgi",
            "waitress",
            "serving the ASGI app shop:asgi on http://{} by waitress 1.2, through ASGIMiddleware",
        ),
    ],
)
def test_serve_says_what_it_serves_in_one_line(
    capsys: pytest.CaptureFixture[str], started: Started, app: str, server: str, statement: str
) -> None:
    """What, on what, and through which bridge or none."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    assert serve(app, "--server", server, "--port", str(port)) == 0
    assert len(started) == 1
    assert capsys.readouterr() == ("", f"a2wsgi: {statement.format(f'127.0.0.1:{port}')}\n")


@pytest.mark.parametrize(("installed", "chosen"), [({"uvicorn", "waitress"}, "uvicorn"), ({"waitress"}, "waitress")])
def test_serve_takes_the_first_server_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, started: Started, installed: set[str], chosen: str
) -> None:
    """It is uvicorn where it is there, else waitress."""
    monkeypatch.setattr(Server, "version", lambda server: "1.2" if server.module in installed else None)
    assert serve("shop:wsgi", "--port=0") == 0
    assert started[0][0][2] == chosen


def test_served_app_is_made_of_what_the_environment_says(directory: Path) -> None:
    """A process of a server loads the app from anywhere, and converts it for that server."""
    target = vars(Target("shop", "make_app", str(directory), factory=True))
    order = {
        "target": target,
        "server": "waitress",
        "bridge": {},
        "root_path": "",
        "log_level": None,
        "trusted": None,
    }
    script = """if True:
        import signal
        from a2wsgi._cli.served import app
        print(app.__name__, signal.getsignal(signal.SIGTERM).__name__)
    """
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "A2WSGI_SERVED": json.dumps(order)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("wsgi default_int_handler\n", "")


# -- What goes wrong --------------------------------------------------------------------------------------------------

NO_MODULE = "or on Python's module path. Change to its directory, or write path/to/file.py:app."
CALLS = "servers pass (environ, start_response) (PEP 3333) or (scope, receive, send) (ASGI)"
WRAP = "Wrap it in WSGIMiddleware if it is a WSGI app, or in ASGIMiddleware if it is an ASGI app."

FAULTS = {
    "nothing:app": f"There is no module 'nothing' in {{0}} {NO_MODULE}",
    "elsewhere/shop.py:app": "There is no file {0}/elsewhere/shop.py.",
    "elsewhere/shop.py": "There is no file {0}/elsewhere/shop.py.",
    "shop": "shop has no app, application or create_app, in {0}/shop.py. Name the app: shop:NAME.",
    "needy:app": (
        "The module needy cannot be imported: ModuleNotFoundError: No module named 'a_module_that_is_not_there' "
        "({0}/needy.py, line 1)"
    ),
    "misspelt:app": (
        "The module misspelt cannot be imported: TypeError: WSGIMiddleware has no option worker. Did you mean workers? "
        "({0}/misspelt.py, line 2)"
    ),
    "unguarded:app": (
        "The module unguarded cannot be imported: RuntimeError: The import of the app's module, unguarded, called "
        'run(). Put that call under if __name__ == "__main__":, so that only the script itself runs a server. '
        "({0}/unguarded.py, line 2)"
    ),
    "wrong:app": "The module wrong cannot be imported: SyntaxError: invalid syntax (wrong.py, line 1)",
    "shop:wsgj": "shop has no attribute 'wsgj', in {0}/shop.py. Did you mean 'wsgi'?",
    "shop:Site.ap": "shop:Site has no attribute 'ap', in {0}/shop.py. Did you mean 'app'?",
    "shop:Site.app.x": "shop:Site.app has no attribute 'x', in {0}/shop.py.",
    "shop:number": (
        "shop:number cannot be served. int object is not callable, so it is not an app. Pass the app object itself."
    ),
    "shop:make_app": (
        f"shop:make_app cannot be served. shop.make_app is not async and takes (), but {CALLS}. "
        "If it creates the app, call it and pass the result. That is what --factory does."
    ),
    "shop:silent": (
        f"shop:silent cannot be served. shop.silent is not async and takes (*args), which could be WSGI or ASGI. {WRAP}"
    ),
    "shop:make_nothing --factory": (
        "shop:make_nothing cannot be served. None is not an app. "
        "Pass the app. If a factory returned this, its return statement is missing."
    ),
    "shop:make_failure --factory": (
        "The factory shop:make_failure() failed: RuntimeError: no database ({0}/shop.py, line 22)"
    ),
    "shop:make_exit --factory": (
        "The factory shop:make_exit() failed: SystemExit: no configuration ({0}/shop.py, line 25)"
    ),
    "shop:make_unspeakable --factory": (
        "The factory shop:make_unspeakable() failed: Unspeakable: (its str() raises) ({0}/shop.py, line 34)"
    ),
    "shop:failing.app": (
        "The attribute 'app' of shop:failing cannot be read: RuntimeError: no request ({0}/shop.py, line 46)"
    ),
    "failing": "The attribute 'app' of failing cannot be read: RuntimeError: no request ({0}/failing.py, line 2)",
    "./my.shop.py:app": "{0}/my.shop.py cannot be imported: its name must end in .py and have no other dot.",
    "./shop.wsgi:app": "{0}/shop.wsgi cannot be imported: its name must end in .py and have no other dot.",
    "shop:number --factory": "shop:number is not a factory, because it cannot be called. Leave out --factory.",
    "shop:make_for --factory": (
        "shop:make_for is not a factory, because it requires arguments. Leave out --factory, or name a "
        "function that takes none."
    ),
    "shop:make_later": (
        f"shop:make_later cannot be served. shop.make_later is async and takes (), but {CALLS}. "
        "If it creates the app, await it and pass the result."
    ),
    "shop:make_later --factory": (
        "The factory shop:make_later() is async, so it returned a coroutine instead of an app. Write def instead of "
        "async def. An ASGI app can await what it needs in the startup of its lifespan."
    ),
    "./site-one": "site-one has no app, application or create_app, in {0}/site-one. Name the app: site-one:NAME.",
    "./site-one:app": "site-one has no attribute 'app', in {0}/site-one.",
    "shop.wsgi": ("There is no module 'shop.wsgi' in {0} or on Python's module path. Did you mean shop:wsgi?"),
    "shop.nothing": f"There is no module 'shop.nothing' in {{0}} {NO_MODULE}",
    "shop.wsgi:app": f"There is no module 'shop.wsgi' in {{0}} {NO_MODULE}",
}


@pytest.mark.parametrize("command", ["serve", "inspect"])
@pytest.mark.parametrize("arguments", FAULTS)
def test_app_at_fault_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], directory: Path, started: Started, command: str, arguments: str
) -> None:
    """What is wrong with the app is said with how to mend it, and no traceback."""
    assert main([command, *arguments.split()]) == 1
    assert capsys.readouterr() == ("", f"a2wsgi: {FAULTS[arguments].format(directory)}\n")
    assert started == []


@pytest.mark.usefixtures("started")
def test_factory_may_take_any_number_of_arguments() -> None:
    """None is one of them; and a decorator may pass what it hides."""
    assert serve("shop:make_of_any", "--factory", "--port=0") == 0


def test_module_that_raises_is_at_fault(capsys: pytest.CaptureFixture[str]) -> None:
    """The error is shown with the place where it was raised."""
    assert main(["inspect", "broken:app"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("a2wsgi: The module broken cannot be imported: JSONDecodeError: Expecting property name")
    assert error.count("\n") == 1


def test_traceback_is_shown_when_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """``--traceback`` has the app's own error in full, and the line after it."""
    assert main(["inspect", "broken:app", "--traceback"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last):\n")
    assert "json.loads('{')" in error
    assert error.splitlines()[-1].startswith("a2wsgi: The module broken cannot be imported: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Neither uvicorn nor waitress is installed. Run pip install 'a2wsgi[serve]', or pass --server."),
        (["--server=hypercorn"], "hypercorn is not installed: pip install hypercorn"),
        (["--server=gunicorn-asgi"], "gunicorn-asgi is not installed: pip install 'gunicorn>=24'"),
    ],
)
def test_serve_names_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    """A server that is not there is the server's fault."""
    monkeypatch.setattr(Server, "version", lambda _: None)
    assert serve("shop:wsgi", *options) == 1
    assert capsys.readouterr().err == f"a2wsgi: {message}\n"


def test_serve_says_that_a_port_is_taken(capsys: pytest.CaptureFixture[str], started: Started) -> None:
    """It is said before the server is started, by the system's own word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert serve("shop:wsgi", f"--port={port}") == 1
    error = capsys.readouterr().err
    assert error.startswith(f"a2wsgi: Cannot listen on port {port} of 127.0.0.1: ")
    assert error.endswith("Pass another --port or --host.\n")
    assert started == []


def test_server_is_not_installed_when_its_package_is_not() -> None:
    """The package that a module is in may be missing too."""
    server = Server("no_such_server", "asgi3", "nothing", {}, needs="no_such_server.asgi")
    assert server.version() is None


def test_server_is_not_installed_when_a_folder_has_its_name(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project may keep a server's configuration there, or a package of its own."""
    monkeypatch.syspath_prepend(directory)
    (directory / "a_server_of_mine").mkdir()
    assert Server("a_server_of_mine", "asgi3", "nothing", {}).version() is None
    (directory / "a_server_of_mine" / "__init__.py").write_text("")
    assert Server("a_server_of_mine", "asgi3", "nothing", {}).version() is None


THESE_HAVE = "These have: uvicorn, hypercorn, granian, gunicorn, gunicorn-asgi"


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("serve", "the following arguments are required: APP"),
        ("serve shop:", "'shop:' does not name an app. Write module:app or path/to/file.py:app."),
        ("serve :app", "':app' does not name an app. Write module:app or path/to/file.py:app."),
        ("serve shop:make_app()", "'shop:make_app()' does not name an app. Write shop:make_app --factory."),
        ("serve shop:wsgi --port=70000", "argument --port: '70000' is not a port: pass a number from 0 to 65535"),
        ("serve shop:wsgi --port=٣", "argument --port: '٣' is not a port: pass a number from 0 to 65535"),
        ("serve shop:wsgi --workers=0", "argument --workers: '0' is not a valid number: pass 1 or more"),
        (
            "serve shop:wsgi --server=daphne --workers=2",
            f"daphne runs one process and has no --workers. {THESE_HAVE}, uwsgi.",
        ),
        (
            "serve shop:wsgi --server=waitress --reload",
            f"waitress has no --reload. {THESE_HAVE}, werkzeug.",
        ),
        (
            "serve shop:wsgi --keep-alive 5",
            "unrecognized arguments: --keep-alive 5. Put the server's own options after --",
        ),
        ("inspect shop:wsgi -- --log-level", "inspect starts no server, so leave out the -- and what follows it"),
    ],
)
def test_command_line_at_fault_is_exit_code_2(capsys: pytest.CaptureFixture[str], arguments: str, message: str) -> None:
    """The usage and what is wrong, as argparse says it."""
    assert usage_error(capsys, *arguments.split()) == message


def test_server_that_is_not_known_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """All that are known are named."""
    error = usage_error(capsys, "serve", "shop:wsgi", "--server=apache")
    assert error.startswith("argument --server: invalid choice: 'apache'")
    assert all(name in error for name in SERVERS)


def test_interrupt_while_the_app_is_loaded_is_exit_code_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a slow import shows no traceback, and a shell knows it from an error."""

    def interrupted(name: str) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupted)
    assert main(["inspect", "shop:wsgi"]) == 130
    assert capsys.readouterr() == ("", "")


# -- Besides ----------------------------------------------------------------------------------------------------------


def test_completion_is_printed_where_shtab_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    """A script for the shell, with all options."""
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as exit_:
        main(["--print-completion", "bash"])
    assert exit_.value.code == 0
    assert "--root-path" in capsys.readouterr().out


def test_completion_names_shtab_where_it_is_not_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no dependency."""
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert usage_error(capsys, "--print-completion", "bash") == "--print-completion needs shtab: pip install shtab"


def test_package_can_be_run() -> None:
    """``python -m a2wsgi`` is the command."""
    done = subprocess.run(
        [sys.executable, "-m", "a2wsgi", "--version"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"a2wsgi {__version__}\n", "")
