"""`run`: what ``a2wsgi serve`` does, from Python.

A server runs in this process, as on the command line, or in a thread of it, from which it is stopped again: a notebook
runs an event loop already, and has more cells to run. An app that is an object cannot be imported by other processes,
so a server that starts such gets it by a fork, or not at all.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from a2wsgi._interface import name_of

from . import handed_over
from .background import BackgroundServer, check_can_run_in_thread, loop_runs, run_in_thread
from .command import Start
from .configuration import options_from
from .errors import UsageError
from .loading import Target, importing, made_by
from .main import announced, checked_server, prepared
from .options import OPTIONS, Options
from .servers import SERVERS
from .starting import run_here, runs_here

#: These fork their processes from the one that has the app; hypercorn runs it in that one, if it is to have no others.
_INHERIT = {"gunicorn", "gunicorn-asgi", "hypercorn"}


def run(
    app: Any,  # noqa: ANN401 - any app, or the name of one
    *,
    server: str | None = None,
    host: str | None = None,
    port: int | None = None,
    background: bool | None = None,
    bridge: Mapping[str, object] | None = None,
    server_options: Sequence[str] = (),
    **options: object,
) -> BackgroundServer | None:
    """Serve an app of either kind, as ``a2wsgi serve`` does, until Ctrl-C.

    Args:
        app: The app, or its name, such as ``"package.module:app"``. granian, uWSGI and gevent need the name, as does
            any server that reloads or has several processes. gunicorn takes both, unless it reloads.
        server: The server's name, as on the command line. The default is uvicorn if it is installed, else waitress.
        host: The address to listen on. The default is 127.0.0.1.
        port: The port to listen on. The default is 8000; 0 picks a free one.
        background: Whether to serve in a thread and return at once. uvicorn, waitress, cheroot and Werkzeug can do
            that. None means: only if an event loop is running in this thread, as in a notebook.
        bridge: Options of the bridge.
        server_options: The server's own options, as on its command line.
        options: The other options of ``a2wsgi serve``, with underscores: ``log_level="debug"``. Options that you do not
            pass are taken from the environment (``A2WSGI_*``) and from pyproject.toml, as on the command line.

    Returns:
        The server in the background, which you can stop; None once a server in the foreground has ended.

    Raises:
        ValueError: An option has a wrong value, or this server does not support it.
        TypeError: An option is unknown, or ``server_options`` or ``bridge`` is of the wrong type.
        ImportError: The app cannot be loaded.
        RuntimeError: The server is not installed, or cannot listen at that address. Or the import of the app's module
            called ``run`` in the foreground: put that call under ``if __name__ == "__main__":``.
        AppInterfaceError: It is not an app, or its interface cannot be detected.
        SystemExit: The server ended with an error.

    Threading: the main thread, since servers set signal handlers; with ``background``, any thread.
    """
    given = {**options, "server": server, "host": host, "port": port}
    wanted = _options(app, {name: value for name, value in given.items() if value is not None}, bridge, server_options)
    in_thread = background if background is not None else loop_runs()
    if not in_thread and (module := importing.get()) is not None:  # else two servers would run, one after the other
        raise RuntimeError(
            f"The import of the app's module, {module}, called run(). Put that call under "
            'if __name__ == "__main__":, so that only the script itself runs a server.'
        )
    if in_thread:
        check_can_run_in_thread(checked_server(wanted), wanted)
    if isinstance(app, str):
        start, loaded = prepared(wanted)
    else:
        name, wanted.app = checked_server(wanted), name_of(app).removesuffix(" object")
        is_factory = wanted.factory and "factory" in wanted.given  # elsewhere, it is for the app of the command line
        loaded = made_by(app, name_of(app)) if is_factory else app
        start = Start.of(name, loaded, Target("", "", str(Path.cwd())), wanted)
        if not in_thread:
            _check_needs_no_name(start)
        announced(wanted, loaded, start)
    if in_thread:
        return run_in_thread(start, loaded, wanted)
    _run(start, loaded, is_object=not isinstance(app, str))
    return None


def _options(app: object, given: dict[str, Any], bridge: Mapping[str, object] | None, extra: Sequence[str]) -> Options:
    """All options, as from a command line."""
    _check_types(bridge, extra)
    readers = {option.name: option for option in OPTIONS if option.name not in {"app", "bridge", "traceback"}}
    for name, value in given.items():
        if name not in readers:
            raise TypeError(f"run() has no option {name}. It has these: {', '.join(readers)}, bridge, server_options.")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if isinstance(value, (list, tuple)):  # as in pyproject.toml
            text = ",".join(map(str, cast("Sequence[object]", value)))
        try:
            given[name] = readers[name].value_of(text)
        except ValueError as error:
            raise UsageError(f"run({name}={value!r}): {text!r} {error}.") from None
    if isinstance(app, str):
        given["app"] = app
    options = options_from(given, [*extra])
    options.bridge.update(bridge or {})
    return options


def _check_types(bridge: object, extra: Sequence[object]) -> None:
    """Raise an error for what is easily passed as it is written on the command line."""
    if isinstance(extra, str) or not all(isinstance(word, str) for word in extra):
        words = extra.split() if isinstance(extra, str) else [str(word) for word in extra]
        raise TypeError(f"run(server_options={extra!r}): pass a list of strings, such as {words}.")
    if not isinstance(bridge, Mapping | None):
        raise TypeError(f"run(bridge={bridge!r}): pass a dict, such as {{'workers': 3}}.")


def _check_needs_no_name(start: Start) -> None:
    """Raise an error if other processes would have to import an app that has no name."""
    reloads = "--reload" in start.words
    starts_several = any(word.startswith(("--workers", "-w")) for word in start.words)
    inherits = start.name in _INHERIT and not (start.name == "hypercorn" and starts_several)
    if runs_here(start) or (inherits and not reloads):
        return
    if not _takes_object(start.name):
        way_out = f"pass another server: {', '.join(filter(_takes_object, SERVERS))}"
    elif reloads or starts_several:
        way_out = "leave out workers and reload"
    else:
        way_out = "unset WEB_CONCURRENCY, which asks for several processes"
    raise UsageError(
        f"{start.name} loads the app in other processes, by its name. Pass the name, as in run('module:app'), or "
        f"{way_out}."
    )


def _takes_object(name: str) -> bool:
    """Whether a server can run an app that has no name, if it is told nothing else."""
    return SERVERS[name].in_place or name in _INHERIT


def _run(start: Start, app: Any, *, is_object: bool) -> None:  # noqa: ANN401 - any app
    """Run a server to its end, and leave no trace of it."""
    if is_object or runs_here(start):
        if start.name == "hypercorn":  # without this, it starts a process that imports the app
            start.words.insert(0, "--workers=0")
        caller, arguments, environment = os.getpid(), [*sys.argv], {**os.environ}
        handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        try:
            run_here(start, app, as_main=False)
        except SystemExit as error:
            # gunicorn's workers are forks of this process, and end by this, too: they must not return to the program.
            if error.code not in {0, None} or os.getpid() != caller:
                raise
        finally:
            if os.getpid() == caller:  # a worker's signals are its server's until it is gone
                _restore(start, arguments, environment, handlers)
        return
    code = _run_beside(start)
    if code > 0:
        raise SystemExit(code)


def _run_beside(start: Start) -> int:
    """Run a server in a process of its own. Its exit code; negative if a signal has ended it."""
    process: subprocess.Popen[bytes] | None = None
    terminated = False

    def terminate(*_: object) -> None:
        nonlocal terminated
        terminated = True
        if process is not None:
            process.terminate()

    handler = signal.getsignal(signal.SIGTERM)
    if handler is not signal.SIG_IGN:
        with contextlib.suppress(ValueError):  # in another thread than the main one
            signal.signal(signal.SIGTERM, terminate)
    try:
        with subprocess.Popen(start.command, env={**os.environ, **start.environment}) as process:  # noqa: S603 - our words
            if terminated:
                process.terminate()
            try:
                process.wait()
            except KeyboardInterrupt:  # the terminal has sent it to the server as well, which ends in its own time
                process.wait()
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, signal.SIG_DFL if handler is None else handler)
    if terminated:
        signal.raise_signal(signal.SIGTERM)  # as it would have ended this program without a server
    return process.returncode


def _restore(
    start: Start, arguments: list[str], environment: Mapping[str, str], handlers: Mapping[signal.Signals, Any]
) -> None:
    """Put back what a server has changed in this process."""
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) != handler:  # None: it was not set from Python
            with contextlib.suppress(ValueError):  # in another thread than the main one, where no server sets any
                signal.signal(number, handler)
    sys.argv[:] = arguments
    sys.modules.pop("a2wsgi._cli.served", None)
    handed_over.app = None
    for name in start.environment:
        os.environ.pop(name, None)
        if name in environment:
            os.environ[name] = environment[name]
