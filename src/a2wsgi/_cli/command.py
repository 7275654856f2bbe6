"""The command line that starts a server: our options in the words of each."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2wsgi._front.asgi_middleware import ASGIMiddleware
from a2wsgi._front.wsgi_middleware import WSGIMiddleware
from a2wsgi._interface import interface_of

from .addresses import Address, addresses_of
from .certificates import check_certificate
from .errors import ServerNotStarted, UsageError
from .loading import converted
from .options import OPTIONS
from .servers import DEFAULTS, SERVED, SERVERS, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2wsgi._interface import Interface

    from .loading import Target
    from .options import Options

_BRIDGES = {"wsgi": WSGIMiddleware, "asgi3": ASGIMiddleware, "asgi2": ASGIMiddleware}
#: What daphne calls the levels.
_VERBOSITY = {"critical": 0, "error": 0, "warning": 0, "info": 1, "debug": 2}


def server_name(wanted: str | None) -> str:
    """The server that the user wants, or the first of `DEFAULTS` that is installed.

    Raises:
        ServerNotStarted: None is named, and none of the defaults is installed.
    """
    if wanted is not None:
        return wanted
    for name in DEFAULTS:
        if SERVERS[name].version() is not None:
            return name
    raise ServerNotStarted(
        f"Neither {' nor '.join(DEFAULTS)} is installed. Run pip install 'a2wsgi[serve]', or pass --server."
    )


def check_server_can(name: str, options: Options) -> None:
    """Raise an error for an option that the server does not have."""
    server = SERVERS[name]
    for option in wanted_options(server, options):
        if server.can(option):
            continue
        flag = f"--{option.replace('_', '-')}"
        why = "runs one process and has no --workers" if option == "workers" else f"has no {flag}"
        able = [other for other in SERVERS if SERVERS[other].can(option)]
        raise UsageError(f"{name} {why}. These have: {', '.join(able)}.")
    if options.ssl_keyfile is not None and options.ssl_certfile is None:
        raise UsageError("--ssl-keyfile needs --ssl-certfile.")


def wanted_options(server: Server, options: Options) -> Iterator[str]:
    """The names, as in `servers`, of what the user wants of a server besides an address."""
    if options.workers is not None and (server.can("workers") or options.workers > 1):
        yield "workers"
    for name in ("root_path", "reload", "log_level", "ssl_certfile"):
        if getattr(options, name):
            yield name
    # Always with a certificate, whose file may hold the key: without one, hypercorn speaks HTTP and granian ends.
    if options.ssl_keyfile or options.ssl_certfile:
        yield "ssl_keyfile"
    if options.access_log is not None:
        yield "access_log" if options.access_log else "no_access_log"
    if options.proxy_headers is False:
        yield "no_proxy_headers"
    elif options.proxy_headers or options.forwarded_allow_ips is not None:
        yield "proxy_headers"
        # Without a list, a server that has no list trusts everybody; and so with this one.
        if options.forwarded_allow_ips not in {None, "*"} or server.can("forwarded_allow_ips"):
            yield "forwarded_allow_ips"
    for name in ("uds", "fd"):
        if getattr(options, name) is not None:
            yield name


@dataclass(frozen=True)
class Start:
    """How a server is started.

    Attributes:
        words: Its command line, less the interpreter and ``-m module``, or less the program.
        order: What `served` is told.
        environment: Environment variables of its own.
        addresses: Where it listens.
        threads: Whether it was told a number of threads.
    """

    name: str
    words: list[str]
    order: dict[str, Any]
    environment: dict[str, str]
    addresses: list[Address]

    @property
    def server(self) -> Server:
        """What we know of the server."""
        return SERVERS[self.name]

    @property
    def command(self) -> list[str]:
        """The whole command line."""
        if not self.server.is_program:
            return [sys.executable, "-m", self.server.module, *self.words]
        beside = Path(sys.executable).with_name(self.server.module)
        program = str(beside) if beside.is_file() else shutil.which(self.server.module)
        if program is None:
            raise ServerNotStarted(f"There is no program {self.server.module} beside {sys.executable}.")
        return [program, *self.words]

    @classmethod
    def of(cls, name: str, app: Any, target: Target, options: Options) -> Start:  # noqa: ANN401 - any app
        """The start of a server with an app.

        Raises:
            UsageError: The server cannot do what is wanted.
            ServerNotStarted: It cannot listen where it is to, or has no certificate that it can use.
        """
        server, interface = SERVERS[name], interface_of(app)
        check_server_can(name, options)
        if options.ssl_certfile is not None and not any("keyfile" in word for word in options.extra):
            check_certificate(options.ssl_certfile, options.ssl_keyfile)
        bridge = bridge_options(name, app, options)
        addresses, are_ours = addresses_of(server, options)
        addresses = [address.ready() for address in addresses]
        names = [*_always(server, interface, options)]
        if are_ours:
            names.append(_address_key(options, server, addresses[0]))
        names += [each for each in wanted_options(server, options) if each not in {"uds", "fd"}]
        values = _values(server, options, addresses[0], target, called=server.called(interface))
        texts = [text for each in names for text in server.options.get(each, ())]
        environment = {
            variable: text.format_map(values) for each, (variable, text) in server.environment.items() if each in names
        }
        order = {
            "target": asdict(target),
            "server": name,
            "bridge": bridge,
            "root_path": options.root_path,
            "log_level": options.log_level,
            "trusted": values["forwarded_allow_ips"] if "proxy_headers" in names else None,
        }
        words = [text.format_map(values) for text in texts] + options.extra + [server.app_prefix + SERVED]
        return cls(name, words, order, environment | {"A2WSGI_SERVED": json.dumps(order)}, addresses)


def _always(server: Server, interface: Interface, options: Options) -> Iterator[str]:
    """The names, as in `servers`, of what depends on the app."""
    called = server.called(interface)
    yield "always"
    if called != server.interface:
        yield "wsgi"
    if options.threads is not None and called == "wsgi":
        yield "threads"


def _address_key(options: Options, server: Server, address: Address) -> str:
    """The name, as in `servers`, of the kind of address."""
    is_tls = options.ssl_certfile is not None and address.key == "tcp"
    return "tls" if is_tls and "tls" in server.options else address.key


def _values(server: Server, options: Options, address: Address, target: Target, *, called: str) -> dict[str, Any]:
    """What may be put into the texts of a server's options."""
    return {
        **{option.name: getattr(options, option.name) for option in OPTIONS},
        "host": address.host,
        "port": address.port,
        "bind": address.bind,
        "endpoint_host": address.host.replace(":", "\\:"),
        "uds": address.uds,
        "fd": address.fd,
        "ssl_keyfile": options.ssl_keyfile or options.ssl_certfile,
        "interface": called.rstrip("3"),
        "directory": target.directory,
        "verbosity": _VERBOSITY.get(options.log_level or "", 1),
        # As uvicorn and gunicorn do it, if there is a list.
        "forwarded_allow_ips": options.forwarded_allow_ips
        or ("127.0.0.1" if server.can("forwarded_allow_ips") else "*"),
    }


# -- The bridge -------------------------------------------------------------------------------------------------------


def conversion(app: object, name: str, bridge: dict[str, Any] | None = None) -> str | None:
    """How the app is converted for the server, in words; None if it is not."""
    made = converted(app, SERVERS[name].called(interface_of(app)), bridge or {})
    if made is app:
        return None
    if type(made) in {WSGIMiddleware, ASGIMiddleware}:
        return f"through {type(made).__name__}"
    if type(app) in {WSGIMiddleware, ASGIMiddleware}:
        return f"without the {type(app).__name__} around it"
    return "through an adapter for ASGI 2"


def bridge_options(name: str, app: Any, options: Options) -> dict[str, Any]:  # noqa: ANN401 - any app
    """The options of the bridge between an app and a server.

    Raises:
        UsageError: There is no bridge, or it has no such option, or there are no threads.
    """
    server, interface = SERVERS[name], interface_of(app)
    called = server.called(interface)
    wanted: dict[str, Any] = dict(options.bridge)
    made = _bridge_between(app, called)
    if options.threads is not None:
        if called == "wsgi" and not server.can("threads"):
            able = [other for other in SERVERS if SERVERS[other].can("threads")]
            raise UsageError(f"{name} has no --threads. These have: {', '.join(able)}.")
        if called != "wsgi" and made is not WSGIMiddleware:
            raise UsageError(f"--threads: {options.app} runs on the event loop of {name}, not in threads.")
        if called != "wsgi":
            wanted.setdefault("workers", options.threads)
    if not wanted:
        return {}
    if made is None:
        raise UsageError(f"{name} runs {options.app} without a bridge, so it takes no options of a bridge.")
    return _checked(made, wanted)


def _bridge_between(app: Any, called: Interface) -> Any:  # noqa: ANN401 - one of the two classes
    """The class of the bridge that is made for an app; None if none is."""
    bridge = ASGIMiddleware if called == "wsgi" else WSGIMiddleware
    return bridge if isinstance(converted(app, called, {}), bridge) and not isinstance(app, bridge) else None


def _checked(bridge: Any, wanted: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - one of the two classes
    """The options, each of its own type."""
    from a2wsgi._asgi_on_wsgi.settings import ASGISettings  # noqa: PLC0415 - only with options
    from a2wsgi._wsgi_on_asgi.settings import WSGISettings  # noqa: PLC0415 - as above

    settings = WSGISettings if bridge is WSGIMiddleware else ASGISettings
    read = {
        name: _read(value, settings.options[name].type) if name in settings.options else value
        for name, value in wanted.items()
    }
    try:
        settings(**read)
    except (TypeError, ValueError) as error:
        raise UsageError(f"Bridge option: {error}") from None
    if read.get("loop") is not None:
        raise UsageError(
            "Bridge option: a loop cannot be passed on to a server. Pass run() the app in a bridge that has it: "
            "run(ASGIMiddleware(app, loop=loop))."
        )
    return read


def _read(value: object, kind: str) -> object:
    """A value of a bridge's option, which is a text unless it comes from pyproject.toml."""
    if not isinstance(value, str):
        return value
    lower = value.lower()
    if lower == "none" and "None" in kind:
        return None
    if lower in {"true", "false"} and "bool" in kind:
        return lower == "true"
    for name, convert in (("int", int), ("float", float)):
        if name in kind:
            try:
                return convert(value)
            except ValueError:
                continue
    return value
