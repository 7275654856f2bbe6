"""The options of ``a2wsgi serve``: each is written here once, for the command line, ``A2WSGI_*`` and pyproject.toml.

What a server calls each of them is in ``servers``. To add one, add it to both tables and to `Options`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .servers import DEFAULTS, SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LOG_LEVELS: Final = ("critical", "error", "warning", "info", "debug")

_TRUE: Final = {"true", "1", "yes", "on"}
_FALSE: Final = {"false", "0", "no", "off"}


@dataclass
class Options:
    """What the user wants.

    None: the user did not say, so the server's own default holds. ``given`` has the names of what the command line
    itself said; ``extra`` is what follows the ``--``.
    """

    app: str = ""
    server: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    fd: int | None = None
    workers: int | None = None
    threads: int | None = None
    root_path: str = ""
    reload: bool = False
    log_level: str | None = None
    access_log: bool | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    forwarded_allow_ips: str | None = None
    proxy_headers: bool | None = None
    env_file: str | None = None
    bridge: dict[str, object] = field(default_factory=dict[str, object])
    factory: bool = False
    traceback: bool = False
    extra: list[str] = field(default_factory=list[str])
    given: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: Its attribute of `Options`.
        help: What it means, for the command line and the documentation.
        read: Makes its value of a text. Raises ValueError with a text that follows the value, as in "is not a port".
        metavar: What stands for its value; None for a flag.
        choices: The values that there are; None if there are many.
        has_no: Whether a flag has an opposite that begins with ``--no-``.
        both: Whether ``inspect`` has it, too.
        variable: Its environment variable, if that is not ``A2WSGI_`` and its name.
    """

    name: str
    help: str
    read: Callable[[str], Any] = str
    metavar: str | None = None
    choices: Sequence[str] | None = None
    has_no: bool = False
    both: bool = False
    variable: str | None = None

    @property
    def flag(self) -> str:
        """How it is written on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def environment(self) -> str:
        """Its environment variable."""
        return self.variable or f"A2WSGI_{self.name.upper()}"

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Let a parser know it. What is not given is not in the result, so that other sources are asked."""
        if self.name == "app":
            parser.add_argument("app", nargs="?", metavar=self.metavar, default=argparse.SUPPRESS, help=self.help)
        elif self.name == "bridge":
            parser.add_argument(
                self.flag, action="append", metavar=self.metavar, default=argparse.SUPPRESS, help=self.help
            )
        elif self.metavar is None:
            action = argparse.BooleanOptionalAction if self.has_no else "store_true"
            parser.add_argument(self.flag, action=action, default=argparse.SUPPRESS, help=self.help)
        else:
            parser.add_argument(
                self.flag,
                type=self._argument,
                choices=self.choices,  # argparse checks them with words of its own, and completion offers them
                metavar=self.metavar,
                default=argparse.SUPPRESS,
                help=self.help,
            )

    def value_of(self, text: str) -> Any:  # noqa: ANN401 - each option has its own type
        """Its value, from a text of any source.

        Raises:
            ValueError: It is not a value of this option. Its text follows the value.
        """
        if self.choices is not None and text not in self.choices:
            raise ValueError(f"is not one of {', '.join(self.choices)}")
        return self.read(text)

    def _argument(self, text: str) -> Any:  # noqa: ANN401 - each option has its own type
        try:
            return self.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} {error}") from None


# -- Their values -----------------------------------------------------------------------------------------------------


def _flag(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError("is neither true nor false")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()  # of Arabic digits as well, which are more likely a mistake


def _port(text: str) -> int:
    if not _is_number(text) or int(text) > 65535:
        raise ValueError("is not a port: pass a number from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not _is_number(text) or int(text) < 1:
        raise ValueError("is not a valid number: pass 1 or more")
    return int(text)


def _descriptor(text: str) -> int:
    if not _is_number(text):
        raise ValueError("is not a file descriptor: pass a number, such as 3")
    return int(text)


def _prefix(text: str) -> str:
    """With a slash in front and none at the end, as servers want it."""
    return f"/{text.strip('/')}" if text.strip("/") else ""


_DEFAULT_SERVER: Final = f"the first of {', '.join(DEFAULTS)} that is installed"

OPTIONS: Final = (
    Option(
        "app",
        "package.module:app or path/to/file.py:app. Without :app, a2wsgi looks for app, application or create_app",
        metavar="APP",
        both=True,
    ),
    Option(
        "server",
        f"{', '.join(SERVERS)} (default: {_DEFAULT_SERVER})",
        metavar="NAME",
        choices=tuple(SERVERS),
        both=True,
    ),
    Option("host", "address to listen on (default: 127.0.0.1, which only this machine can reach)", metavar="HOST"),
    Option("port", "port to listen on; 0 picks a free one (default: 8000)", _port, metavar="PORT"),
    Option("uds", "path of a Unix domain socket to listen on, instead of a host and a port", metavar="PATH"),
    Option("fd", "file descriptor of a socket to listen on, as a service manager passes it", _descriptor, metavar="N"),
    Option("workers", "number of server processes", _count, metavar="N", variable="A2WSGI_PROCESSES"),
    Option(
        "threads",
        "number of threads that run the app: the bridge's for a WSGI app on an ASGI server, else the WSGI server's",
        _count,
        metavar="N",
    ),
    Option("root_path", "prefix under which a proxy mounts the app", _prefix, metavar="PATH"),
    Option("reload", "restart when code changes", _flag, has_no=True),
    Option("log_level", f"how much the server logs: {', '.join(LOG_LEVELS)}", metavar="LEVEL", choices=LOG_LEVELS),
    Option("access_log", "log every request, or no requests", _flag, has_no=True),
    Option("ssl_certfile", "certificate for TLS, a PEM file", metavar="FILE"),
    Option("ssl_keyfile", "private key of the certificate, if it is in another file", metavar="FILE"),
    Option(
        "proxy_headers",
        "whether to take the client's address and the scheme from X-Forwarded-For and X-Forwarded-Proto",
        _flag,
        has_no=True,
    ),
    Option(
        "forwarded_allow_ips",
        "comma-separated addresses of the proxies whose headers are trusted; * trusts all",
        metavar="IPS",
    ),
    Option(
        "env_file",
        "file of NAME=value lines to add to the environment; variables that are already set stay as they are",
        metavar="FILE",
    ),
    Option("bridge", "option of the bridge, such as spool_request=true; may be repeated", metavar="NAME=VALUE"),
    Option("factory", "APP is a function that takes no arguments and returns the app", _flag, both=True),
    Option("traceback", "show the whole traceback of an error", _flag, both=True),
)
