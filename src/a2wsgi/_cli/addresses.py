"""Where a server listens: as our options or its own say it, checked before it starts, and in words."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ServerNotStarted, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .options import Options
    from .servers import Server


@dataclass(frozen=True)
class Address:
    """One place to listen on: a path or a descriptor if it has one, else a host and a port.

    Attributes:
        text: The address in the words of a server's own option, if we cannot read it.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    fd: int | None = None
    text: str | None = None
    tls: bool = False

    @property
    def bind(self) -> str:
        """Host and port in one."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def key(self) -> str:
        """The option that tells a server this address, by its name in `servers`."""
        return "uds" if self.uds is not None else "fd" if self.fd is not None else "tcp"

    def __str__(self) -> str:
        if self.text is not None:
            return self.text
        if self.uds is not None:
            return f"unix:{self.uds}"
        if self.fd is not None:
            return f"file descriptor {self.fd}"
        return f"{'https' if self.tls else 'http'}://{self.bind}"

    def ready(self) -> Address:
        """The same, once we know that a server can listen there; with a free port instead of 0.

        Raises:
            ServerNotStarted: It cannot.
        """
        if self.text is not None:
            return self
        if self.uds is not None:
            _check_path(self.uds)
            return self
        if self.fd is not None:
            _check_descriptor(self.fd)
            return self
        return replace(self, port=_free_port(self.host, self.port))


def addresses_of(server: Server, options: Options) -> tuple[list[Address], bool]:
    """Where the server will listen, and whether we have to tell it so.

    What follows the ``--`` wins: servers take the last of several options, or add them up. Then ours are left out.

    Raises:
        UsageError: Two options exclude each other.
    """
    ours = Address(options.host, options.port, options.uds, options.fd, tls=options.ssl_certfile is not None)
    if ours.uds is not None and ours.fd is not None:
        raise UsageError("--uds cannot be combined with --fd. Leave out one.")
    if ours.key != "tcp" and (extra := options.given & {"host", "port"}):
        raise UsageError(f"--{ours.key} cannot be combined with --{min(extra)}. Leave out one.")
    theirs: list[Address] = []
    for part, value in _parts(server, options.extra):
        if part == "tls":
            ours = replace(ours, tls=True)
        elif part == "host":
            ours = replace(ours, host=value)
        elif part == "port" and value.isdecimal():
            ours = replace(ours, port=int(value))
        elif part == "uds":
            theirs.append(Address(uds=value))
        elif part == "fd" and value.isdecimal():
            theirs.append(Address(fd=int(value)))
        else:
            theirs.append(_bound(value) if part == "bind" else Address(text=value))
    if not theirs:
        return [ours], True
    return [replace(each, tls=ours.tls) for each in theirs], False


def _parts(server: Server, extra: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Which parts of an address the server's own options have."""
    words = iter(extra)
    for word in words:
        name, equals, value = word.partition("=")
        if name in server.address:
            yield server.address[name], value if equals else next(words, "")
        elif word[:2] in server.address and not word.startswith("--"):  # -b127.0.0.1:8000
            yield server.address[word[:2]], word[2:].removeprefix("=")


def _bound(text: str) -> Address:
    """The address of ``host:port``, ``:port``, ``unix:path`` or ``fd://number``."""
    if text.startswith("unix:"):
        return Address(uds=text.removeprefix("unix:").removeprefix("//"))
    if text.startswith("fd://") and text[5:].isdecimal():
        return Address(fd=int(text[5:]))
    host, _, port = text.rpartition(":")
    if port.isdecimal() and "/" not in host:
        return Address(host.strip("[]").replace("*", "") or "0.0.0.0", int(port))  # noqa: S104 - what it means to servers
    return Address(text=text)


def _free_port(host: str, port: int) -> int:
    """Return ``port``, or a free one instead of 0."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            if os.name == "posix":  # on Windows this would let us take a port that is in use
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            return int(listener.getsockname()[1])
    except UnicodeError as error:  # an empty label, or one that is too long
        raise ServerNotStarted(f"Cannot listen on {host}: this is not a valid host name or address.") from error
    except OSError as error:
        raise ServerNotStarted(
            f"Cannot listen on port {port} of {host}: {error}. Pass another --port or --host."
        ) from error


def _check_path(path: str) -> None:
    """Raise an error if no socket can be made at a path."""
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise ServerNotStarted(f"Cannot listen on {path}: there is no directory {folder}.")
    if not os.access(folder, os.W_OK):
        raise ServerNotStarted(f"Cannot listen on {path}: you have no permission to write to {folder}.")
    if Path(path).exists() and not Path(path).is_socket():
        raise ServerNotStarted(f"Cannot listen on {path}: it exists but is not a socket.")
    if not hasattr(socket, "AF_UNIX"):
        raise ServerNotStarted("This system has no Unix domain sockets. Pass a --host and a --port.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)  # a local socket connects at once; a full backlog may keep us waiting
        try:
            client.connect(path)
        except OSError as error:
            if error.errno is None:  # the path is too long for an address
                raise ServerNotStarted(f"Cannot listen on {path}: {error}.") from error
            return  # nobody listens: there is no such file, or one that a dead server left
    raise ServerNotStarted(f"Cannot listen on {path}: another program is listening there.")


def _check_descriptor(number: int) -> None:
    """Raise an error if a descriptor is not of a socket. Let it be inherited."""
    try:
        with socket.socket(fileno=os.dup(number)):
            os.set_inheritable(number, True)  # noqa: FBT003 - as os calls it
    except OverflowError as error:
        raise ServerNotStarted(f"Cannot listen on file descriptor {number}: the number is too large.") from error
    except OSError as error:
        raise ServerNotStarted(f"Cannot listen on file descriptor {number}: {error}.") from error
