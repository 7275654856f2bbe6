"""The command line: ``a2wsgi serve`` and ``a2wsgi inspect``.

``serve`` loads the app first, so that an error takes one line. Then it runs the server's own command line, in this
process or in its place, and the server loads ``a2wsgi._cli.served:app``. So signals, worker processes, reloading and
the exit code are the server's own.

Exit codes before that: 0 for success; 1 if the app or the server is at fault; 2 if the command line is; 130 on Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from importlib import import_module
from inspect import iscoroutinefunction, isfunction
from typing import TYPE_CHECKING, Any, NoReturn

from a2wsgi import __version__
from a2wsgi._errors import AppInterfaceError
from a2wsgi._interface import interface_of

from .command import Start, check_server_can, conversion, server_name
from .configuration import options_from
from .errors import LoadError, ServerNotStarted, UsageError
from .inspecting import WORDS, as_json, as_text, report_of
from .loading import Target, found, load, takes_nothing
from .options import OPTIONS, Options
from .servers import SERVERS
from .starting import start_server

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What programs that die of SIGPIPE exit with, as a shell tells it.
_NOBODY_READS = 141
#: The same of SIGINT.
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Those after the program's name; None takes them from the process.

    Returns:
        The exit code.

    Raises:
        SystemExit: As argparse raises it, with 0 or 2; or as the server does.
    """
    try:
        try:
            return _main(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            if sys.stdout is not None:  # it was closed when Python started
                sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough; Python would complain once more when it closes stdout
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS


def _main(given: list[str]) -> int:
    # Split by hand: argparse would take what follows the "--" for the first positional argument that is missing.
    own, extra = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    known, unknown = parser().parse_known_args(own)
    if unknown:
        known.parser.error(f"unrecognized arguments: {' '.join(unknown)}. Put the server's own options after --")
    if extra and known.run is not _serve:
        known.parser.error("inspect starts no server, so leave out the -- and what follows it")
    names = {option.name for option in OPTIONS}
    shows_traceback = False
    try:
        options = options_from({name: value for name, value in vars(known).items() if name in names}, extra)
        shows_traceback = options.traceback
        return known.run(options, known) or 0
    except UsageError as error:
        known.parser.error(str(error))  # exits
    except (LoadError, AppInterfaceError, ServerNotStarted) as error:
        if shows_traceback:
            traceback.print_exc()
        print(f"a2wsgi: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 1


# -- The arguments ----------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        "a2wsgi",
        description="Run WSGI apps on ASGI servers, and ASGI apps on WSGI servers.",
        epilog="Exit codes: 0, success; 1, an error in the app or the server; 2, an error in the command; 130, Ctrl-C.",
    )
    parser.add_argument("--version", action="version", version=f"a2wsgi {__version__}")
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        choices=("bash", "zsh", "tcsh"),
        help="print the shell's completion script and exit",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    serve = _add_command(commands, "serve", _serve, "run an app of either kind on a server of either kind")
    serve.usage = "a2wsgi serve [options] APP [-- options of the server]"
    inspect = _add_command(
        commands, "inspect", _inspect, "show what kind of app it is, and what a server needs to run it"
    )
    inspect.usage = "a2wsgi inspect [options] APP"
    inspect.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_command(commands: Any, name: str, run: object, text: str) -> argparse.ArgumentParser:  # noqa: ANN401 - argparse has no public type for it
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog="An option that you do not pass is taken from its A2WSGI_* environment variable, or else from "
        "[tool.a2wsgi] in pyproject.toml.",
    )
    parser.set_defaults(run=run, parser=parser)
    for option in OPTIONS:
        if option.both or name == "serve":
            option.add_to(parser)
    return parser


class _Completion(argparse.Action):
    """Prints the completion script of a shell."""

    def __call__(
        self, parser: argparse.ArgumentParser, _namespace: object, shell: object, _: object = None
    ) -> NoReturn:
        try:
            shtab = import_module("shtab")
        except ModuleNotFoundError:
            parser.error("--print-completion needs shtab: pip install shtab")
        print(shtab.complete(parser, shell=shell))
        parser.exit()


# -- The commands -----------------------------------------------------------------------------------------------------


def _serve(options: Options, _: argparse.Namespace) -> int:
    start, app = prepared(options)
    return start_server(start, app)


def prepared(options: Options) -> tuple[Start, Any]:
    """What starts the server, and the app. The user is told in one line what will be served, and where.

    Raises:
        UsageError: The options contradict each other, or the server does not have one of them.
        LoadError: The app cannot be loaded.
        ServerNotStarted: The server is not installed, or cannot listen.
    """
    name = checked_server(options)
    target, app = _app(options)
    start = Start.of(name, app, target, options)
    announced(options, app, start)
    return start, app


def checked_server(options: Options) -> str:
    """The server's name, once we know that it is there and has what is wanted.

    Raises:
        UsageError: It does not have one of the options.
        ServerNotStarted: It is not installed.
    """
    name = server_name(options.server)
    check_server_can(name, options)
    if SERVERS[name].version() is None:
        raise ServerNotStarted(f"{name} is not installed: pip install {SERVERS[name].package}")
    return name


def announced(options: Options, app: object, start: Start) -> None:
    """Say in one line what will be served, and where."""
    name, version = start.name, start.server.version()
    kind, how = WORDS[interface_of(app)], conversion(app, name, start.order["bridge"]) or "without a bridge"
    where = f"on {' and '.join(map(str, start.addresses))} by {name} {version}"
    print(f"a2wsgi: serving the {kind} app {options.app} {where}, {how}", file=sys.stderr)
    if (hint := _hint(name, kind, start)) is not None:
        print(f"a2wsgi: {hint}", file=sys.stderr)


def _hint(name: str, kind: str, start: Start) -> str | None:
    """What to know of a server that would run an ASGI app one request at a time."""
    if name not in {"gunicorn", "uwsgi"} or kind == "WSGI":
        return None
    words = " ".join([*start.words, os.environ.get("GUNICORN_CMD_ARGS", "") if name == "gunicorn" else ""])
    said = ("--threads", "--worker-class", "-k ", "--config", "-c ", "--ini", "--gevent", "--async")
    if any(word in words for word in said) or (name == "gunicorn" and os.path.exists("gunicorn.conf.py")):  # noqa: PTH110 - one look
        return None
    other = ", or --server gunicorn-asgi, which needs no bridge" if name == "gunicorn" else ""
    return f"each process of {name} runs one request at a time. Pass --threads 8{other}."


def _inspect(options: Options, known: argparse.Namespace) -> None:
    target, app = _app(options)
    report = report_of(options.app, target, app, options.server)
    if (reconfigure := getattr(sys.stdout, "reconfigure", None)) is not None:
        reconfigure(errors="backslashreplace")  # its encoding may lack the letters of a name
    print(as_json(report) if known.json else as_text(report))


def _app(options: Options) -> tuple[Target, Any]:
    """The app that the user names, and where it is."""
    if not options.app:
        raise UsageError("the following arguments are required: APP")
    try:
        target = Target.parse(options.app, factory=options.factory)
    except ValueError as error:
        raise UsageError(str(error)) from None
    target = found(target)
    if ":" not in options.app:
        options.app = f"{options.app}:{target.attribute}"
    app = load(target)
    try:
        interface_of(app)
    except AppInterfaceError as error:
        may_be_factory = isfunction(app) and takes_nothing(app) and not iscoroutinefunction(app)
        hint = " That is what --factory does." if not target.factory and may_be_factory else ""
        raise LoadError(f"{options.app} cannot be served. {error}{hint}") from error
    return target, app
