"""The command line: ``a2wsgi serve`` and ``a2wsgi inspect``.

``serve`` looks at the app here, so that what is wrong is said in a line. Then this process becomes the server's: it
runs the server's own command line, and the server loads ``a2wsgi._served:app``. So signals, worker processes and
reloading are what they are with the server alone, and so is the exit code from then on.

Exit codes before that: 0; 1, the app or the server is at fault; 2, the command line is.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import textwrap
import traceback
from dataclasses import asdict
from importlib import import_module
from inspect import isfunction, signature
from typing import TYPE_CHECKING, Any, Final, NoReturn

from . import __version__
from ._errors import AppInterfaceError
from ._interface import interface_of, tell
from ._loading import LoadError, Target, converted, load
from ._servers import DEFAULTS, SERVED, SERVERS, Server
from .asgi_to_wsgi import ASGIMiddleware
from .wsgi_to_asgi import WSGIMiddleware

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._interface import Interface

__all__ = ["main"]

_WORDS: Final[Mapping[Interface, str]] = {"wsgi": "WSGI", "asgi3": "ASGI", "asgi2": "ASGI 2"}


class _UsageError(Exception):
    """The command line cannot be meant."""


class _ServerError(Exception):
    """The server cannot be started."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Those after the program's name; None takes them from the process.

    Returns:
        The exit code.

    Raises:
        SystemExit: As argparse raises it, with 0 or 2.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # By hand: argparse would give what follows the "--" to the first argument that is still open.
    own, extra = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    options, unknown = _parser().parse_known_args(own)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}. The server's own options go after a --")
    if extra and options.run is not _serve:
        options.parser.error("nothing goes after the --: no server is started")
    options.extra = extra
    try:
        options.run(options)
    except _UsageError as error:
        options.parser.error(str(error))
    except (LoadError, AppInterfaceError, _ServerError) as error:
        if options.traceback:
            traceback.print_exc()
        print(f"a2wsgi: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    return 0


# -- The arguments ----------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "a2wsgi",
        description="Run WSGI apps on ASGI servers, and ASGI apps on WSGI servers.",
        epilog="Exit codes: 0; 1, the app or the server is at fault; 2, the command line is.",
    )
    parser.add_argument("--version", action="version", version=f"a2wsgi {__version__}")
    parser.add_argument("--print-completion", action=_Completion, choices=("bash", "zsh", "tcsh"))
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    serve = _add_command(commands, "serve", _serve, "run an app of either kind on a server of either kind")
    serve.usage = "a2wsgi serve [options] APP [-- options of the server]"
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=_port, default=8000, help="0 takes one that is free (default: 8000)")
    serve.add_argument("--workers", type=_count, metavar="N", help="processes of the server")
    serve.add_argument("--root-path", default="", metavar="PATH", help="the prefix under which the app is mounted")
    serve.add_argument("--reload", action="store_true", help="restart when code changes")
    inspect = _add_command(commands, "inspect", _inspect, "tell what an app is, and what a server needs to run it")
    inspect.add_argument("--json", action="store_true", help="print it for machines")
    return parser


def _add_command(commands: Any, name: str, run: object, text: str) -> argparse.ArgumentParser:  # noqa: ANN401 - argparse has no public type for it
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("app", metavar="APP", help="as in package.module:app or path/to/file.py:app")
    parser.add_argument("--factory", action="store_true", help="call APP, without arguments: it returns the app")
    default = f"the first that is installed of {', '.join(DEFAULTS)}"
    parser.add_argument("--server", choices=SERVERS, metavar="NAME", help=f"{', '.join(SERVERS)} (default: {default})")
    parser.add_argument("--traceback", action="store_true", help="show the whole traceback of an error")
    return parser


class _Completion(argparse.Action):
    """Prints what a shell needs for completion."""

    def __call__(
        self, parser: argparse.ArgumentParser, _namespace: object, shell: object, _: object = None
    ) -> NoReturn:
        try:
            shtab = import_module("shtab")
        except ModuleNotFoundError:
            parser.error("--print-completion needs shtab: pip install shtab")
        print(shtab.complete(parser, shell=shell))
        parser.exit()


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: pass a number from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes: pass 1 or more")
    return int(text)


# -- serve ------------------------------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace) -> None:
    name = _server_name(options.server)
    server, version = SERVERS[name], SERVERS[name].version()
    _check_can(name, server, options)
    if version is None:
        raise _ServerError(f"{name} is not installed: pip install {server.package}")
    target, app = _app(options)
    options.port = _free_port(options.host, options.port)
    command, environment = _command(name, target, options)
    kind, how = _WORDS[interface_of(app)], _conversion(app, server) or "without a bridge"
    where = f"on http://{_bind(options)} by {name} {version}"
    print(f"a2wsgi: serving the {kind} app {options.app} {where}, {how}", file=sys.stderr)
    _become(command, {**os.environ, **environment})


def _server_name(wanted: str | None) -> str:
    """The server that is asked for, or the first of our own choice that is there."""
    if wanted is not None:
        return wanted
    for name in DEFAULTS:
        if SERVERS[name].version() is not None:
            return name
    raise _ServerError(
        f"Neither {' nor '.join(DEFAULTS)} is installed: pip install 'a2wsgi[serve]', or name a --server."
    )


def _command(name: str, target: Target, options: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """The command line that starts a server, and what its environment has besides ours."""
    server = SERVERS[name]
    texts = [*server.options]
    if options.workers is not None:
        texts += server.workers
    if options.root_path:
        texts += server.root_path
    if options.reload:
        texts += server.reload
    values = {
        "host": options.host,
        "port": options.port,
        "bind": _bind(options),
        "workers": options.workers,
        "root_path": options.root_path,
        "directory": target.directory,
    }
    order = {"target": asdict(target), "factory": options.factory, "server": name}
    environment = {"A2WSGI_SERVED": json.dumps(order)}
    if options.root_path:
        environment |= {key: text.format_map(values) for key, text in server.root_path_environment.items()}
    own = [text.format_map(values) for text in texts]
    return [sys.executable, "-m", server.module, *own, *options.extra, server.app_prefix + SERVED], environment


def _check_can(name: str, server: Server, options: argparse.Namespace) -> None:
    """Raise for an option that the server does not have."""
    if options.workers not in {None, 1} and not server.workers:
        able = [other for other in SERVERS if SERVERS[other].workers]
        raise _UsageError(f"{name} runs one process and has no --workers. These have: {', '.join(able)}.")
    if options.reload and not server.reload:
        able = [other for other in SERVERS if SERVERS[other].reload]
        raise _UsageError(f"{name} has no --reload. These have: {', '.join(able)}.")


def _free_port(host: str, port: int) -> int:
    """``port``, or one that is free in the place of 0.

    Raises:
        _ServerError: It is taken, or the host is not of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            if os.name == "posix":  # elsewhere it would let us take a port that is in use
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            return int(listener.getsockname()[1])
    except OSError as error:
        raise _ServerError(
            f"Nothing can listen on port {port} of {host}: {error}. Pass another --port or --host."
        ) from error


def _bind(options: argparse.Namespace) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"{host}:{options.port}"


def _become(command: list[str], environment: Mapping[str, str]) -> None:
    """Run a command in the place of this process, and never return."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted
    sys.exit(subprocess.call(command, env=dict(environment)))  # noqa: S603 - as above


# -- inspect ----------------------------------------------------------------------------------------------------------


def _inspect(options: argparse.Namespace) -> None:
    target, app = _app(options)
    try:
        name = _server_name(options.server)
    except _ServerError:  # what it would need can be told all the same
        name = DEFAULTS[0]
    server = SERVERS[name]
    interface, evidence = interface_of(app), tell(app).evidence
    report = {
        "app": options.app,
        "interface": interface,
        "evidence": evidence,
        "server": name,
        "server_interface": server.interface,
        "server_version": server.version(),
        "conversion": _conversion(app, server),
        "missing": server.missing(interface),
        "python": _python(target, app, server, factory=options.factory),
    }
    print(json.dumps(report, indent=2) if options.json else _text(report))


def _text(report: Mapping[str, Any]) -> str:
    """The report for people."""
    version = report["server_version"] or "not installed"
    calls = f"{report['server']} ({version}) calls {_WORDS[report['server_interface']]} apps"
    lines = [
        f"app         {report['app']}",
        f"interface   {_WORDS[report['interface']]}: {report['evidence']}",
        f"server      {calls}",
        f"conversion  {report['conversion'] or 'none is needed'}",
    ]
    missing = [f"{feature}: {why}" for feature, why in report["missing"].items()] or ["nothing"]
    lines += [f"{'' if number else 'missing':12}{text}" for number, text in enumerate(missing)]
    if report["python"]:
        lines += ["", textwrap.indent(report["python"].rstrip(), "    ")]
    return "\n".join(lines)


def _python(target: Target, app: object, server: Server, *, factory: bool) -> str | None:
    """What to write in Python in the place of ``a2wsgi serve``; None if nothing."""
    made = converted(app, server.interface)
    if made is app:
        return None
    name = type(made).__name__ if type(made) in _BRIDGES else _CONVERTERS[server.interface]
    first = target.attribute.partition(".")[0]
    call = f"{target.attribute}()" if factory else target.attribute
    return f"from a2wsgi import {name}\nfrom {target.module} import {first}\n\napplication = {name}({call})\n"


# -- Both -------------------------------------------------------------------------------------------------------------

_BRIDGES: Final = (WSGIMiddleware, ASGIMiddleware)
_CONVERTERS: Final = {"asgi3": "to_asgi", "wsgi": "to_wsgi"}


def _app(options: argparse.Namespace) -> tuple[Target, Any]:
    """The app that is named, and where it is."""
    try:
        target = Target.parse(options.app)
    except ValueError as error:
        raise _UsageError(str(error)) from None
    app = load(target, factory=options.factory)
    try:
        interface_of(app)
    except AppInterfaceError as error:
        hint = " That is what --factory does." if not options.factory and _may_be_factory(app) else ""
        raise LoadError(f"{options.app} cannot be served. {error}{hint}") from error
    return target, app


def _may_be_factory(app: object) -> bool:
    """Whether it can be called without arguments."""
    return isfunction(app) and all(p.default is not p.empty for p in signature(app).parameters.values())


def _conversion(app: object, server: Server) -> str | None:
    """What is done to the app for the server, in words; None if nothing."""
    made = converted(app, server.interface)
    if made is app:
        return None
    if type(made) in _BRIDGES:
        return f"through {type(made).__name__}"
    if type(app) in _BRIDGES:
        return f"with the {type(app).__name__} around it taken off"
    return "through an adapter for ASGI 2"
