"""`a2wsgi.run`: the command from Python, in the foreground as a process, in the background as in a notebook."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import a2wsgi
from a2wsgi._cli import running as running_module
from a2wsgi._cli.background import BackgroundServer
from a2wsgi._cli.servers import SERVERS
from support.lockstep import Signal
from support.servers import START_SECONDS, Server, free_port, until
from support.threads import in_thread

with contextlib.suppress(ImportError):
    import uvloop

    uvloop.new_event_loop().close()  # the first one of a process opens a pipe for signals, which stays

IN_BACKGROUND = ["uvicorn", "waitress", "cheroot", "werkzeug"]


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Tells its prefix and whether it may run on several threads."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"wsgi at {environ['SCRIPT_NAME']}, {environ['wsgi.multithread']}".encode()]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Tells its prefix."""
    if scope["type"] == "lifespan":
        raise ValueError(scope["type"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"asgi at " + scope["root_path"].encode()})


def get(url: str) -> str:
    """The body of the answer."""
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - our own server
        return str(response.read().decode())


def installed(server: str) -> str:
    """The server, or a skip."""
    if SERVERS[server].version() is None:
        pytest.skip(f"{server} is not installed")
    return server


def run(app: Any, **options: Any) -> Any:
    """A server in the background, on a free port."""
    running = a2wsgi.run(app, port=free_port(), background=True, **options)
    assert running is not None
    return running


@pytest.mark.parametrize("server", IN_BACKGROUND)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # uvicorn imports what `websockets` has deprecated
def test_run_serves_any_app_in_the_background(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It answers when `run` has returned, and is gone after the block."""
    for app, kind in ((wsgi_app, "wsgi"), (asgi_app, "asgi")):
        with run(app, server=installed(server), log_level="error" if server == "uvicorn" else None) as running:
            assert get(running.url).startswith(f"{kind} at ")
            assert f"<a2wsgi server at {running.url}, running>" == repr(running)
        assert f"<a2wsgi server at {running.url}, stopped>" == repr(running)
        assert f"serving the {kind.upper()} app {app.__module__}.{kind}_app on " in capsys.readouterr().err
        with pytest.raises(OSError, match="refused"):
            get(running.url)


def test_module_of_an_app_may_run_another_server_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import goes on, as it does not if that server runs in the foreground."""
    (tmp_path / "with_helper.py").write_text(
        "import a2wsgi\n"
        "from test_run import free_port, wsgi_app as app\n"
        "helper = a2wsgi.run(app, server='waitress', port=free_port(), background=True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "test_run", sys.modules[__name__])
    with run("with_helper:app", server=installed("waitress")) as running, sys.modules["with_helper"].helper as helper:
        assert get(running.url) == get(helper.url) == get(running.url)


@pytest.mark.parametrize("server", IN_BACKGROUND)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
def test_server_in_the_background_waits_for_requests_and_for_nothing_else(server: str) -> None:
    """One that runs is answered in full; a client that just keeps its connection, as browsers do, is not waited for."""
    runs, go = Signal("the request runs"), Signal("go")

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/late":
            runs.set()
            go.wait()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return [b"hello"]

    running = run(app, server=installed(server), log_level="error" if server == "uvicorn" else None)
    address = running.url.removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(address, timeout=30)) as idle:
        idle.request("GET", "/")
        assert idle.getresponse().read() == b"hello"
        late = in_thread(lambda: get(f"{running.url}/late"))
        runs.wait()
        stopping = in_thread(running.stop)
        until(lambda: is_refused(running.url), "the server takes no more connections")
        go.set()
        assert late.result() == "hello"
        stopping.result()
        assert "stopped" in repr(running)


def test_stop_closes_the_bridge_of_a_server_that_has_ended_by_itself() -> None:
    """Else its app would shut down at the end of the process only."""
    closed = Signal("the bridge is closed")
    running = BackgroundServer("http://127.0.0.1:1", lambda: None, lambda: None, closed.set)
    until(lambda: "stopped" in repr(running), "the server has ended")
    running.stop()
    assert closed.is_set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # uvicorn ends by SystemExit
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
def test_server_whose_app_cannot_start_refuses_connections(capfd: pytest.CaptureFixture[str]) -> None:
    """A client would wait without end in the backlog of the socket that nobody takes connections from."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    running = run(app, server=installed("uvicorn"), log_level="error")
    until(lambda: "stopped" in repr(running), "the server has ended")
    with pytest.raises(OSError, match="refused"):
        get(running.url)
    assert "no database" in capfd.readouterr().err
    running.stop()


@pytest.mark.parametrize("name", ["uds", "fd", "ssl_certfile"])
def test_server_in_the_background_does_not_listen_elsewhere_than_it_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the environment says what only the command line can do, too."""
    monkeypatch.setenv(f"A2WSGI_{name.upper()}", "3")
    with pytest.raises(ValueError, match=f"does not take {name}. It takes: "):
        run(wsgi_app, server=installed("uvicorn"))


def test_server_in_the_background_logs_as_much_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server has no option for it, too."""
    logger = logging.getLogger("waitress")
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    with run(wsgi_app, server=installed("waitress"), log_level="critical"):
        assert logger.level == logging.CRITICAL


def is_refused(url: str) -> bool:
    """Whether nobody listens there."""
    try:
        get(url)
    except OSError:
        return True
    return False


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
def test_run_passes_options_to_the_bridge() -> None:
    """Those of the command line, with underscores."""
    with run(
        wsgi_app, server=installed("uvicorn"), bridge={"workers": 1}, root_path="/x", log_level="error"
    ) as running:
        assert get(running.url) == "wsgi at /x, False"


def test_run_calls_a_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it is told that it has one: what else says so is said of the app of the command line."""

    def make() -> Any:
        return wsgi_app

    with run(make, server=installed("waitress"), factory=True) as running:
        assert get(running.url) == "wsgi at , True"
    monkeypatch.setenv("A2WSGI_FACTORY", "true")
    with run(wsgi_app, server=installed("waitress")) as running:
        assert get(running.url) == "wsgi at , True"


def test_run_may_be_called_again_with_a_server_that_keeps_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """As waitress does: it reads those in the list that was ``sys.argv`` when it was imported."""
    arguments, before, seen = sys.argv, [*sys.argv], list[list[str]]()
    monkeypatch.setattr("runpy.run_module", lambda *_, **__: seen.append([*arguments]))
    ports = [free_port(), free_port()]
    for port in ports:
        a2wsgi.run(wsgi_app, server=installed("waitress"), port=port)
    assert [[word for word in words if "--port" in word] for words in seen] == [[f"--port={port}"] for port in ports]
    assert sys.argv is arguments
    assert arguments == before


def test_run_takes_a_list_of_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pyproject.toml does. On the command line there are commas between them."""
    words: list[str] = []
    monkeypatch.setattr(running_module, "run_here", lambda start, *_, **__: words.extend(start.words))
    a2wsgi.run(wsgi_app, server=installed("uvicorn"), port=0, forwarded_allow_ips=["10.0.0.1", "10.0.0.2"])
    assert "--forwarded-allow-ips=10.0.0.1,10.0.0.2" in words


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
def test_run_returns_at_once_where_a_loop_runs() -> None:
    """As in a notebook, whose cells run on one."""

    async def cell() -> Any:
        return a2wsgi.run(asgi_app, server=installed("uvicorn"), port=free_port(), log_level="error")

    with asyncio.run(cell()) as running:
        assert get(running.url) == "asgi at "


class LoopLike:
    """Passes for an event loop."""

    def call_soon_threadsafe(self) -> None:
        """By this a bridge knows one."""


@pytest.mark.parametrize(
    ("app", "options", "error", "message"),
    [
        (
            wsgi_app,
            {"port": 70_000},
            ValueError,
            "run(port=70000): '70000' is not a port: pass a number from 0 to 65535.",
        ),
        (wsgi_app, {"prot": 1}, TypeError, "run() has no option prot. It has these: server, host, port, "),
        (wsgi_app, {"server": "apache"}, ValueError, "run(server='apache'): 'apache' is not one of uvicorn, "),
        (wsgi_app, {"server": "waitress", "workers": 2}, ValueError, "waitress runs one process and has no --workers."),
        (
            wsgi_app,
            {"server": "uvicorn", "workers": 2},
            ValueError,
            "uvicorn loads the app in other processes, by its ",
        ),
        *(
            (wsgi_app, {"server": "hypercorn", **workers}, ValueError, "or leave out workers and reload.")
            for workers in ({"workers": 2}, {"server_options": ["-w", "2"]})
        ),
        (wsgi_app, {"server": "gunicorn", "reload": True}, ValueError, "or leave out workers and reload."),
        (
            wsgi_app,
            {"server": "uwsgi"},
            ValueError,
            "or pass another server: uvicorn, hypercorn, daphne, gunicorn, gunicorn-asgi, waitress, cheroot, werkzeug.",
        ),
        (
            wsgi_app,
            {"server_options": "--log-level debug"},
            TypeError,
            "run(server_options='--log-level debug'): pass a list of strings, such as ['--log-level', 'debug'].",
        ),
        (wsgi_app, {"server_options": ["--backlog", 5]}, TypeError, "pass a list of strings, such as"),
        (wsgi_app, {"bridge": "workers=3"}, TypeError, "run(bridge='workers=3'): pass a dict, such as {'workers': 3}."),
        (
            wsgi_app,
            {"bridge": {"worker": 1}},
            ValueError,
            "Bridge option: WSGIMiddleware has no option worker. Did you",
        ),
        (wsgi_app, {"server": "gunicorn", "background": True}, ValueError, "gunicorn cannot run in the background. "),
        (
            wsgi_app,
            {"access_log": True, "background": True},
            ValueError,
            "A server in the background does not take ",
        ),
        (
            asgi_app,
            {"server": "waitress", "bridge": {"loop": LoopLike(), "lifespan": False}},
            ValueError,
            "Pass run() the app in a bridge that has it: run(ASGIMiddleware(app, loop=loop)).",
        ),
        (
            wsgi_app,
            {"factory": True},
            ImportError,
            "test_run.wsgi_app is not a factory, because it requires arguments.",
        ),
        (5, {}, a2wsgi.AppInterfaceError, "is not callable, so it is not an app."),
        ("nothing_here:app", {}, ImportError, "There is no module 'nothing_here' in "),
    ],
)
def test_run_refuses_what_it_cannot_do(
    app: Any,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    *,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By an error of Python's, with the text of the command line, and before it says that it serves."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for server in {options.get("server", "uvicorn")} & set(SERVERS):
        installed(server)
    with pytest.raises(error) as raised:
        a2wsgi.run(app, **{"port": 0, **options})
    assert message in str(raised.value)
    assert capsys.readouterr().err == ""


def test_run_says_what_in_the_environment_asks_for_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then neither option was passed."""
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    with pytest.raises(ValueError, match="or unset WEB_CONCURRENCY"):
        a2wsgi.run(wsgi_app, server=installed("uvicorn"), port=0)


SCRIPT = """\
import pickle, signal, sys
import a2wsgi

def app(environ, start_response):
    pickle.dumps(app)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]

def handlers():
    return {{number: signal.getsignal(number) for number in signal.valid_signals()}}

if __name__ == "__main__":
    before = handlers()
    a2wsgi.run({app}, server=sys.argv[1], port=int(sys.argv[2]), server_options=sys.argv[3:])
    print("ended", sys.argv[1], "as before" if handlers() == before else handlers(), flush=True)
"""


@contextlib.contextmanager
def script(app: str, server: str, directory: Path) -> Iterator[Server]:
    """A script that serves an app by `run`, once it answers."""
    installed(server)
    (directory / "script.py").write_text(SCRIPT.format(app=app))
    port, output_path = free_port(), directory / "output"
    extra = ["--no-control-socket"] if server == "gunicorn" else []
    with output_path.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "script.py", server, str(port), *extra],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    running = Server(port, process, output_path)
    try:
        until(running.listens, f"{server} listens", START_SECONDS)
        assert get(f"http://127.0.0.1:{port}/") == "hello"
        yield running
    finally:
        running.stop()


@pytest.mark.interop
@pytest.mark.parametrize(
    ("server", "app"),
    [
        *((name, "app") for name in ("uvicorn", "hypercorn", "waitress", "gunicorn", "cheroot", "werkzeug", "daphne")),
        *((name, "'script:app'") for name in ("uvicorn", "granian", "gunicorn", "uwsgi", "gevent")),
    ],
)
def test_run_serves_until_ctrl_c(server: str, app: str, tmp_path: Path) -> None:
    """Then it returns, once, and the script goes on, whose signals are handled as before.

    Meanwhile, what the script defines can be pickled, as a pool of processes does it.
    """
    with script(app, server, tmp_path) as running:
        running.signal_group(signal.SIGINT)
        status = running.wait(30)
        if server == "granian" and "Unexpected exit from worker" in running.output():
            pytest.xfail("granian may learn of its worker's end before its own Ctrl-C, and takes it for a crash")
        assert status == 0, running.output()
        # If the signal comes while gunicorn's worker closes the response, it logs a traceback, whatever the app is.
        told = running.output()
        assert told.count("Traceback") == (told.count("Error handling request") if server == "gunicorn" else 0), told
        # Not in gunicorn's workers, which are forks of the script.
        assert [line for line in told.splitlines() if line.startswith("ended")] == [f"ended {server} as before"]


@pytest.mark.interop
@pytest.mark.parametrize("server", ["granian", "gunicorn", "uwsgi", "gevent"])
def test_server_ends_with_the_script_that_is_terminated(server: str, tmp_path: Path) -> None:
    """Process managers send SIGTERM to the script alone; a server beside it would go on and keep its port."""
    with script("'script:app'", server, tmp_path) as running:
        running.process.terminate()
        assert running.wait(30) == -signal.SIGTERM, running.output()
        assert not running.listens()
        assert "ended" not in running.output()
