"""Where the command line's options come from, and what each becomes for each server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from a2wsgi._cli import command, starting
from a2wsgi._cli.main import main
from a2wsgi._cli.options import OPTIONS
from a2wsgi._cli.servers import SERVERS, Server

APPS = """\
def wsgi(environ, start_response): ...

async def asgi(scope, receive, send): ...

number = 5
"""

#: What a server was told, less what is the same for all: the interpreter, the app, and where it listens.
Told = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with a module of apps, and an environment without ours."""
    (tmp_path / "shop.py").write_text(APPS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(Server, "version", lambda _: "1.2")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("A2WSGI_")}
    monkeypatch.setattr(os, "environ", environment)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `served` would be told by the last server that was started, and its command line as ``words``."""
    noted: dict[str, Any] = {}

    def note(command: list[str], environment: Mapping[str, str]) -> NoReturn:
        noted.update(json.loads(environment["A2WSGI_SERVED"]), words=command[1:-1])
        raise SystemExit(0)

    monkeypatch.setattr(starting, "become", note)
    monkeypatch.setattr(starting, "runs_here", lambda start: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")  # uWSGI's program may be missing
    monkeypatch.setattr(command, "check_certificate", lambda *_: None)  # `test_cli_certificates` has real ones
    return noted


def serve(*arguments: str) -> int:
    """What ``a2wsgi serve`` exits with, up to where a server would take over."""
    try:
        return main(["serve", *arguments])
    except SystemExit as error:
        return int(error.code or 0)


def words(order: Mapping[str, Any]) -> list[str]:
    """The server's options, less where it listens."""
    listens = (
        "-m",
        "--host",
        "--port",
        "--bind=1",
        "--http-socket",
        "--interface",
        "--server",
        "--worker-class",
        "--workers-kill",
    )
    modules = {server.module for server in SERVERS.values()}
    always = {
        "--channel-request-lookahead=1",
        "--master",
        "--enable-threads",
        "--lazy-apps",
        "--need-app",
        "--hook-master-start=unix_signal:15 gracefully_kill_them_all",
    }
    return [word for word in order["words"] if not word.startswith(listens) and word not in modules | always]


# -- What each option becomes -----------------------------------------------------------------------------------------

TLS = ["--ssl-certfile=c.pem", "--ssl-keyfile=k.pem"]
ONE_FILE = ["--ssl-certfile=both.pem"]

BECOMES: list[tuple[str, list[str], list[str]]] = [
    ("uvicorn", ["--log-level=debug"], ["--log-level=debug"]),
    ("uvicorn", ["--access-log"], ["--access-log"]),
    ("uvicorn", ["--no-access-log"], ["--no-access-log"]),
    ("uvicorn", ["--no-proxy-headers"], ["--no-proxy-headers"]),
    ("uvicorn", ["--forwarded-allow-ips=10.0.0.1"], ["--proxy-headers", "--forwarded-allow-ips=10.0.0.1"]),
    ("uvicorn", TLS, ["--ssl-certfile=c.pem", "--ssl-keyfile=k.pem"]),
    ("hypercorn", ["--log-level=debug"], ["--log-level=debug"]),
    ("hypercorn", ["--access-log"], ["--access-logfile=-"]),
    ("hypercorn", ["--no-access-log"], []),
    ("hypercorn", TLS, ["--certfile=c.pem", "--keyfile=k.pem"]),
    ("hypercorn", ONE_FILE, ["--certfile=both.pem", "--keyfile=both.pem"]),
    ("granian", ["--access-log"], ["--access-log"]),
    ("granian", TLS, ["--ssl-certificate=c.pem", "--ssl-keyfile=k.pem"]),
    ("granian", ONE_FILE, ["--ssl-certificate=both.pem", "--ssl-keyfile=both.pem"]),
    ("granian", ["--threads=3"], ["--blocking-threads=3"]),
    ("daphne", ["--log-level=debug"], ["--verbosity=2"]),
    ("daphne", ["--no-access-log"], ["--access-log=/dev/null"]),
    ("daphne", ["--proxy-headers"], ["--proxy-headers"]),
    ("gunicorn", ["--log-level=debug"], ["--log-level=debug"]),
    ("gunicorn", ["--access-log"], ["--access-logfile=-"]),
    ("gunicorn", ["--threads=3"], ["--threads=3"]),
    ("gunicorn", ["--forwarded-allow-ips=*"], ["--forwarded-allow-ips=*"]),
    ("gunicorn", ["--no-proxy-headers"], ["--forwarded-allow-ips="]),
    ("gunicorn", TLS, ["--certfile=c.pem", "--keyfile=k.pem"]),
    ("gunicorn-asgi", ["--access-log"], ["--access-logfile=-"]),
    ("waitress", ["--threads=3"], ["--threads=3"]),
    (
        "waitress",
        ["--proxy-headers"],
        [
            "--trusted-proxy-headers=x-forwarded-for x-forwarded-proto x-forwarded-host",
            "--clear-untrusted-proxy-headers",
            "--trusted-proxy=127.0.0.1",
        ],
    ),
    ("cheroot", ["--threads=3"], ["--threads=3"]),
    ("cheroot", TLS, ["--certfile=c.pem", "--keyfile=k.pem"]),
    ("uwsgi", ["--no-access-log"], ["--disable-logging"]),
    ("uwsgi", ["--workers=2", "--threads=3"], ["--threads=3", "--processes=2"]),
    ("gevent", ["--access-log"], ["--access-log"]),
    ("werkzeug", ["--reload"], ["--reload"]),
]


@pytest.mark.parametrize(("server", "options", "becomes"), BECOMES)
def test_option_becomes_what_the_server_calls_it(
    order: dict[str, Any], server: str, options: list[str], becomes: list[str]
) -> None:
    """Whichever server it is, the user's option is the same."""
    assert serve("shop:wsgi", "--port=0", f"--server={server}", *options) == 0
    assert words(order) == becomes


@pytest.mark.parametrize(
    ("options", "keys"), [(TLS, "privateKey=k.pem:certKey=c.pem"), (ONE_FILE, "privateKey=both.pem:certKey=both.pem")]
)
def test_daphne_gets_a_certificate_as_an_endpoint(
    order: dict[str, Any], capsys: pytest.CaptureFixture[str], options: list[str], keys: str
) -> None:
    """It has no other way to be told."""
    assert serve("shop:wsgi", "--port=0", "--server=daphne", *options) == 0
    [endpoint] = [word for word in order["words"] if word.startswith("--endpoint")]
    port = endpoint.split(":")[1]
    assert endpoint == f"--endpoint=ssl:{port}:interface=127.0.0.1:{keys}"
    assert f"on https://127.0.0.1:{port} by daphne" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "prefix"),
    [("/shop", "/shop"), ("shop", "/shop"), ("/shop/", "/shop"), ("//a/b//", "/a/b"), ("/", ""), ("", "")],
)
def test_prefix_is_the_same_however_it_is_written(
    order: dict[str, Any], monkeypatch: pytest.MonkeyPatch, written: str, prefix: str
) -> None:
    """It begins with a slash and ends with none, since servers cut it off the path as it is."""
    assert serve("shop:wsgi", "--port=0", f"--root-path={written}") == 0
    assert (order["root_path"], words(order)) == (prefix, [f"--root-path={prefix}"] if prefix else [])
    monkeypatch.setitem(os.environ, "A2WSGI_ROOT_PATH", written)
    assert serve("shop:wsgi", "--port=0") == 0
    assert order["root_path"] == prefix


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--server=granian --fd=3", "granian has no --fd. These have: uvicorn, hypercorn, daphne, gunicorn, "),
        ("--server=waitress --access-log", "waitress has no --access-log. These have: "),
        ("--server=waitress --ssl-certfile=c.pem", "waitress has no --ssl-certfile. These have: "),
        ("--server=hypercorn --proxy-headers", "hypercorn has no --proxy-headers. These have: "),
        ("--server=daphne --forwarded-allow-ips=::1", "daphne has no --forwarded-allow-ips. These have: uvicorn, "),
        ("--server=gevent --threads=2", "gevent has no --threads. These have: granian, gunicorn, waitress, "),
        ("--server=uvicorn --ssl-keyfile=k.pem", "--ssl-keyfile needs --ssl-certfile."),
        ("--uds=x.sock --fd=3", "--uds cannot be combined with --fd. Leave out one."),
        ("--uds=x.sock --port=80", "--uds cannot be combined with --port. Leave out one."),
        ("--bridge=spool_request", "--bridge: 'spool_request' has no value. Write NAME=VALUE."),
        ("--bridge=spool_requests=true", "Bridge option: WSGIMiddleware has no option spool_requests. Did you mean "),
        (
            "--bridge=spool_request=maybe",
            "Bridge option: WSGIMiddleware(spool_request='maybe'): spool_request must be ",
        ),
        ("--bridge=max_queue=-1", "Bridge option: WSGIMiddleware(max_queue=-1): max_queue must be a whole number"),
        ("--server=gunicorn --bridge=workers=2", "gunicorn runs shop:wsgi without a bridge, so it takes no "),
        ("--env-file=missing.env", "--env-file missing.env cannot be read: No such file or directory."),
    ],
)
def test_option_that_a_server_does_not_have_is_exit_code_2(
    order: dict[str, Any], capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    """What would have no effect is an error, which says where it has one."""
    assert serve("shop:wsgi", *arguments.split()) == 2
    assert message in capsys.readouterr().err.partition("error: ")[2]
    assert order == {}


def test_threads_of_an_async_app_are_refused(order: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """There are none."""
    assert serve("shop:asgi", "--server=uvicorn", "--threads=2") == 2
    assert "--threads: shop:asgi runs on the event loop of uvicorn" in capsys.readouterr().err


# -- The bridge -------------------------------------------------------------------------------------------------------


def test_bridge_gets_its_options(order: dict[str, Any]) -> None:
    """Each of its own type, whatever it was written as."""
    given = ["spool_request=true", "max-queue=none", "send_timeout=1.5", "script_name=/x", "max_websockets=7"]
    assert serve("shop:wsgi", "--port=0", *(f"--bridge={text}" for text in given)) == 0
    assert order["bridge"] == {
        "spool_request": True,
        "max_queue": None,
        "send_timeout": 1.5,
        "script_name": "/x",
        "max_websockets": 7,
    }


def test_threads_are_the_bridge_s_workers_on_an_asgi_server(order: dict[str, Any]) -> None:
    """There the bridge has the threads; a WSGI server has its own."""
    assert serve("shop:wsgi", "--port=0", "--threads=3") == 0
    assert order["bridge"] == {"workers": 3}
    assert serve("shop:asgi", "--port=0", "--server=gunicorn", "--threads=3") == 0
    assert (order["bridge"], words(order)) == ({}, ["--threads=3"])


def test_granian_calls_a_wsgi_app_as_one(order: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """It needs no bridge for that."""
    assert serve("shop:wsgi", "--port=0", "--server=granian") == 0
    assert "--interface=wsgi" in order["words"]
    assert capsys.readouterr().err.endswith("by granian 1.2, without a bridge\n")
    assert serve("shop:asgi", "--port=0", "--server=granian") == 0
    assert "--interface=asgi" in order["words"]


def test_workers_that_are_no_number_are_one_line(
    order: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``A2WSGI_WORKERS`` is read by the bridge, which is made here."""
    monkeypatch.setitem(os.environ, "A2WSGI_WORKERS", "abc")
    assert serve("shop:wsgi", "--port=0") == 1
    assert capsys.readouterr().err == (
        "a2wsgi: The environment variable A2WSGI_WORKERS is 'abc'. It must be a whole number, 1 or more.\n"
    )


# -- Where options come from ------------------------------------------------------------------------------------------


def test_environment_has_every_option(order: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a variable, and the command line wins."""
    for name, text in {
        "A2WSGI_APP": "shop:wsgi",
        "A2WSGI_SERVER": "uvicorn",
        "A2WSGI_PORT": "0",
        "A2WSGI_PROCESSES": "2",
        "A2WSGI_THREADS": "5",
        "A2WSGI_LOG_LEVEL": "error",
        "A2WSGI_ACCESS_LOG": "off",
        "A2WSGI_RELOAD": "",
        "A2WSGI_BRIDGE": "spool_request=true, max_queue=3",
    }.items():
        monkeypatch.setitem(os.environ, name, text)
    assert serve("--log-level=debug", "--bridge=max_queue=4") == 0
    assert words(order) == ["--workers=2", "--log-level=debug", "--no-access-log"]
    assert order["bridge"] == {"spool_request": True, "max_queue": 4, "workers": 5}


def test_pyproject_has_every_option(order: dict[str, Any], directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of the current directory; the environment wins."""
    if sys.version_info < (3, 11):
        pytest.importorskip("tomli")
    (directory / "pyproject.toml").write_text(
        '[tool.a2wsgi]\napp = "shop:wsgi"\nserver = "uvicorn"\nport = 0\naccess-log = false\nlog-level = "error"\n'
        'forwarded-allow-ips = ["10.0.0.1", "10.0.0.2"]\nbridge = { spool-request = true, max_queue = 3 }\n'
    )
    monkeypatch.setitem(os.environ, "A2WSGI_LOG_LEVEL", "info")
    assert serve() == 0
    assert words(order) == [
        "--log-level=info",
        "--no-access-log",
        "--proxy-headers",
        "--forwarded-allow-ips=10.0.0.1,10.0.0.2",
    ]
    assert order["bridge"] == {"spool_request": True, "max_queue": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.a2wsgi]\nports = 1\n", "[tool.a2wsgi] has no option ports. Did you mean port?"),
        ("[tool.a2wsgi]\nport = 'abc'\n", "[tool.a2wsgi] port: 'abc' is not a port: pass a number from 0 to 65535."),
        ("[tool.a2wsgi]\nserver = 'apache'\n", "[tool.a2wsgi] server: 'apache' is not one of uvicorn, "),
        ("[tool.a2wsgi]\nbridge = 'x'\n", "[tool.a2wsgi] bridge: write a table, such as"),
        ("[tool.a2wsgi\n", "pyproject.toml is not valid TOML: "),
        ("[tool]\na2wsgi = 1\n", "tool.a2wsgi is not a table."),
        ("tool = 'a2wsgi'\n", "tool is not a table."),
    ],
)
def test_wrong_pyproject_is_exit_code_2(
    order: dict[str, Any], capsys: pytest.CaptureFixture[str], directory: Path, text: str, message: str
) -> None:
    """The file and the option are named."""
    if sys.version_info < (3, 11):
        pytest.importorskip("tomli")
    (directory / "pyproject.toml").write_text(text)
    assert serve("shop:wsgi") == 2
    assert message in capsys.readouterr().err
    assert order == {}


@pytest.mark.parametrize("text", ["[tool.ruff]\nline-length = 5\n", "[tool.other\n"])
def test_pyproject_of_others_is_left_alone(order: dict[str, Any], directory: Path, text: str) -> None:
    """It need not even be valid."""
    (directory / "pyproject.toml").write_text(text)
    assert serve("shop:wsgi", "--port=0") == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "A2WSGI_PORT",
            "abc",
            "The environment variable A2WSGI_PORT: 'abc' is not a port: pass ",
        ),
        ("A2WSGI_RELOAD", "perhaps", "variable A2WSGI_RELOAD: 'perhaps' is neither true nor false."),
        ("A2WSGI_BRIDGE", "x", "A2WSGI_BRIDGE: 'x' has no value. Write NAME=VALUE."),
    ],
)
def test_wrong_environment_is_exit_code_2(
    order: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    name: str,
    text: str,
    message: str,
) -> None:
    """The variable is named, and there is no traceback."""
    monkeypatch.setitem(os.environ, name, text)
    assert serve("shop:wsgi") == 2
    assert message in capsys.readouterr().err


def test_env_file_sets_what_is_not_set(order: dict[str, Any], directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments, quotes and ``export`` are understood, and our own variables count."""
    monkeypatch.setitem(os.environ, "SET", "before")
    (directory / "the.env").write_text(
        '# a comment\n\nA2WSGI_PORT=0\nexport PLAIN=a b # comment\nSINGLE=\'# \\n\'\nDOUBLE="a\\n\\"b"\nSET=after\n'
        "EMPTY=\nURL=https://x/#y\n"
    )
    assert serve("shop:wsgi", "--env-file=the.env") == 0
    names = ("PLAIN", "SINGLE", "DOUBLE", "SET", "EMPTY", "URL")
    assert [os.environ[name] for name in names] == ["a b", "# \\n", 'a\n"b', "before", "", "https://x/#y"]
    assert "--port=8000" not in order["words"]


def test_env_file_may_begin_with_a_byte_order_mark(order: dict[str, Any], directory: Path) -> None:
    """As some editors write it."""
    (directory / "the.env").write_text("MARKED=1\nA2WSGI_PORT=0\n", "utf-8-sig")
    assert serve("shop:wsgi", "--env-file=the.env") == 0
    assert os.environ["MARKED"] == "1"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_env_file_that_is_no_utf_8_is_exit_code_2(
    order: dict[str, Any], capsys: pytest.CaptureFixture[str], directory: Path, encoding: str
) -> None:
    """Of UTF-16 without a mark only the NUL in every character tells, and no variable can hold one."""
    (directory / "the.env").write_text("A=1\n", encoding)
    assert serve("shop:wsgi", "--env-file=the.env") == 2
    assert "--env-file the.env is not a text file in UTF-8." in capsys.readouterr().err
    assert order == {}


def test_env_file_that_is_wrong_names_the_line(
    order: dict[str, Any], capsys: pytest.CaptureFixture[str], directory: Path
) -> None:
    """Line and text."""
    (directory / "the.env").write_text("A=1\nno value\n")
    assert serve("shop:wsgi", "--env-file=the.env") == 2
    assert "--env-file the.env, line 2: 'no value' is not of the form NAME=value." in capsys.readouterr().err


# -- Which app --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "name", "factory"),
    [
        ("from shop import wsgi as app, asgi as application\n", "app", False),
        ("from shop import asgi as application\n", "application", False),
        ("import shop as app\nfrom shop import asgi as application\n", "application", False),
        ("from shop import asgi\ndef create_app():\n    return asgi\n", "create_app", True),
        ("from shop import asgi\ndef create_app(debug=False, **more):\n    return asgi\n", "create_app", True),
        ("from shop import asgi as create_app\n", "create_app", False),
    ],
)
def test_module_alone_finds_its_app(
    order: dict[str, Any], capsys: pytest.CaptureFixture[str], directory: Path, *, source: str, name: str, factory: bool
) -> None:
    """By the names that frameworks' documentation gives it; what can be called with nothing makes it."""
    (directory / "site_.py").write_text(source)
    for app in ("site_", "site_.py", "./site_.py"):
        assert serve(app, "--port=0") == 0
        assert (order["target"]["attribute"], order["target"]["factory"]) == (name, factory)
        assert f" app {app}:{name} on " in capsys.readouterr().err


# -- Where it listens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "own", "extra", "where"),
    [
        ("uvicorn", ["--port=7"], ["--port", "0"], "http://127.0.0.1:0"),
        ("uvicorn", ["--uds=a.sock"], [], "unix:a.sock"),
        ("uvicorn", TLS, [], "https://127.0.0.1:{port}"),
        ("uvicorn", [], ["--ssl-certfile=c.pem"], "https://127.0.0.1:{port}"),
        ("uvicorn", [], ["--uds", "a.sock"], "unix:a.sock"),
        ("gunicorn", [], ["-b", "127.0.0.1:{port}"], "http://127.0.0.1:{port}"),
        ("gunicorn", [], ["-b127.0.0.1:{port}"], "http://127.0.0.1:{port}"),
        ("gunicorn", [], ["--bind=unix:a.sock", "--bind", ":{port}"], "unix:a.sock and http://0.0.0.0:{port}"),
        ("hypercorn", [], ["--certfile=c.pem", "--keyfile=k.pem"], "https://127.0.0.1:{port}"),
        ("hypercorn", [], ["--certfile=both.pem"], "http://127.0.0.1:{port}"),  # it was given no key
        ("daphne", [], ["-e", "tcp:{port}"], "tcp:{port}"),
        ("waitress", [], ["--listen=127.0.0.1:{port}"], "http://127.0.0.1:{port}"),
        ("uwsgi", [], ["--http-socket", "127.0.0.1:{port}"], "http://127.0.0.1:{port}"),
    ],
)
def test_banner_says_where_the_server_listens(
    order: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    *,
    server: str,
    own: Sequence[str],
    extra: Sequence[str],
    where: str,
) -> None:
    """Also if it is told by an option of its own, which then is the only one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    own = own if any(text.startswith(("--port", "--uds")) for text in own) else [*own, f"--port={port}"]
    words = [text.format(port=port) for text in extra]
    result = serve("shop:wsgi", f"--server={server}", *own, "--", *words)
    told = capsys.readouterr().err
    if where.endswith(":0"):  # of a free one we do not know the number; we check with another
        assert "on http://127.0.0.1:" in told
        return
    assert result == 0, told
    assert f" on {where.format(port=port)} by {server}" in told
    if extra and not any("cert" in text for text in words):
        listens = [text for text in order["words"] if text.startswith(("--host", "--port", "--bind", "--http-socket"))]
        assert listens == [text for text in words if text.startswith(("--bind", "--http-socket"))]


def test_descriptor_is_told(order: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """It must be of a socket, and is inherited."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        assert serve("shop:wsgi", f"--fd={number}") == 0
        assert os.get_inheritable(number)
    assert f"on file descriptor {number} by uvicorn" in capsys.readouterr().err
    assert f"--fd={number}" in order["words"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--uds=nowhere/a.sock", "Cannot listen on nowhere/a.sock: there is no directory {0}/nowhere."),
        ("--uds=shop.py", "Cannot listen on shop.py: it exists but is not a socket."),
        (f"--uds={'x' * 200}", f"Cannot listen on {'x' * 200}: AF_UNIX path too long."),
        ("--fd=99", "Cannot listen on file descriptor 99: [Errno 9] Bad file descriptor."),
        ("--fd=99999999999", "Cannot listen on file descriptor 99999999999: the number is too large."),
        ("--host=127.0..1", "Cannot listen on 127.0..1: this is not a valid host name or address."),
        ("--uds=taken.sock", "Cannot listen on taken.sock: another program is listening there."),
    ],
)
def test_place_is_checked_before_the_server_starts(
    order: dict[str, Any], capsys: pytest.CaptureFixture[str], directory: Path, option: str, message: str
) -> None:
    """One line says why nothing can listen there."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("taken.sock")
        listener.listen()
        assert serve("shop:wsgi", option) == 1
    assert capsys.readouterr().err == f"a2wsgi: {message.format(directory)}\n"
    assert order == {}


# -- Hints and pipes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "hinted"),
    [
        (["shop:asgi", "--server=gunicorn"], True),
        (["shop:asgi", "--server=uwsgi"], True),
        (["shop:asgi", "--server=gunicorn", "--threads=8"], False),
        (["shop:asgi", "--server=gunicorn", "--", "-k", "gevent"], False),
        (["shop:wsgi", "--server=gunicorn"], False),
        (["shop:asgi", "--server=waitress"], False),
    ],
)
def test_hint_is_given_where_requests_would_wait_for_each_other(
    order: dict[str, Any], capsys: pytest.CaptureFixture[str], arguments: list[str], hinted: bool
) -> None:
    """An async app on a server with one request at a time serves one client at a time."""
    assert serve(arguments[0], "--port=0", *arguments[1:]) == 0
    assert ("runs one request at a time. Pass --threads 8" in capsys.readouterr().err) == hinted


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["inspect", "shop:wsgi"], ["--version"]])
def test_pipe_that_is_closed_is_no_traceback(arguments: list[str], directory: Path) -> None:
    """``| head`` may end before we have said all."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "a2wsgi", *arguments],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=50,
        )
    finally:
        os.close(writing)
    assert done.stderr == ""
    assert done.returncode in {0, 141}  # 0: argparse has ignored the error of its own print


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_stream_that_is_closed_is_no_traceback(redirection: str, directory: Path) -> None:
    """Then Python has none, and whatever starts the command does not want to hear of it."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m a2wsgi inspect shop:wsgi {redirection}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_name_that_the_terminal_cannot_show_is_no_traceback(directory: Path) -> None:
    """A module may have any letters in its name, and the encoding of a terminal or a pipe lacks most of them."""
    (directory / "läden.py").write_text("def app(environ, start_response): ...\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "a2wsgi", "inspect", "läden:app"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("app         l\\xe4den:app\n")


def test_server_takes_the_place_of_the_command_without_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to write before it."""

    def execve(*_: object) -> NoReturn:
        raise SystemExit(5)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as exit_:
        starting.become([sys.executable, "-c", "raise SystemExit(5)"], os.environ)
    assert exit_.value.code == 5


def test_every_option_has_a_place_in_the_result() -> None:
    """The table and the dataclass have the same names."""
    from dataclasses import fields

    from a2wsgi._cli.options import Options

    assert {field.name for field in fields(Options)} - {"extra", "given"} == {option.name for option in OPTIONS}
