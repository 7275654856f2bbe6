"""The handshake of a WebSocket: the client's, as a WSGI server shows it, and the one that we show to a WSGI app.

*Facts*

- A handshake is an HTTP/1.1 GET without a body and with ``Upgrade: websocket`` and ``Connection: Upgrade``, in any
  letter case and possibly among other tokens (RFC 6455 §4.1, RFC 9110 §7.8). On HTTP/2 and HTTP/3 these headers mean
  nothing; a WebSocket begins with another method there (RFC 8441, RFC 9220). A request that merely looks similar is an
  ordinary HTTP request, since a server may ignore an upgrade (RFC 9110 §7.8).
- Its key is base64 of 16 bytes, and the answer proves that it was read (RFC 6455 §4.2.2 item 5.4). A version other than
  13 gets a 426 that names 13 (RFC 6455 §4.4), and anything malformed a 400 (RFC 6455 §4.2.1).
- The subprotocol must be one that the client offered; without an offer there is none (RFC 6455 §4.2.2 item 5.5).
- The 101 has no body and no ``Content-Length`` (RFC 9110 §8.6). Its ``Sec-WebSocket-*`` headers are ours to set.
- WSGI libraries rebuild the request from the environ, and answer on the socket that is in it. So the environ must look
  like an HTTP/1.1 handshake whatever the server speaks. It offers no extension, since the server compresses.

Specs: RFC 6455; RFC 8441; RFC 9110; ASGI WebSocket 2.5.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from a2wsgi._errors import AppProtocolError

from .headers import response_headers_from_asgi
from .names import TOKEN
from .status import status_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from a2wsgi._types import Environ

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
# The key of the example in RFC 6455 §1.3. A key only protects against caches, and there are none on a link.
_LINK_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


# -- A client's handshake ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Handshake:
    """A client's handshake that may be answered with 101.

    Attributes:
        accept: The value of ``Sec-WebSocket-Accept``.
        subprotocols: Those that the client offers, the preferred one first.
        extensions: The extensions that it offers, as the header has them; ``""`` for none.
    """

    accept: str
    subprotocols: tuple[str, ...]
    extensions: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer other than 101, in WSGI's terms.

    Attributes:
        status: The status line.
        headers: All of them, ``Content-Length`` too.
        text: The body, ASCII.
    """

    status: str
    headers: list[tuple[str, str]]
    text: str


def refusal(code: int, text: str, headers: Iterable[tuple[str, str]] = ()) -> Refusal:
    """Return an answer with a text that says why; ``headers`` are added to those that the text needs."""
    framing = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))]
    return Refusal(status_line(code), [*framing, *headers], text)


def is_handshake(environ: Environ) -> bool:
    """Return whether a request asks for a WebSocket. If not, it is an HTTP request, whatever else it says."""
    get = environ.get
    return (
        "websocket" in _lower_tokens(get("HTTP_UPGRADE"))
        and "upgrade" in _lower_tokens(get("HTTP_CONNECTION"))
        and get("REQUEST_METHOD") == "GET"
        and not (get("CONTENT_LENGTH") or "").strip("0")  # a length of 0 is no body
        and not get("HTTP_TRANSFER_ENCODING")
        # Not a test for HTTP/1.1: eventlet calls every request HTTP/1.0. gunicorn sets HTTP_VERSION on HTTP/2.
        and not get("SERVER_PROTOCOL", "").startswith(("HTTP/2", "HTTP/3"))
        and get("HTTP_VERSION") not in {"2", "3"}
    )


def check_handshake(environ: Environ) -> Handshake | Refusal:
    """Read a handshake, or return the answer that refuses it. The app decides whether to accept its ``Origin``."""
    get = environ.get
    if get("HTTP_SEC_WEBSOCKET_VERSION", "").strip(" \t") != "13":
        text = "WebSockets of version 13 only (RFC 6455 section 4.4)."
        return refusal(426, text, [("Sec-WebSocket-Version", "13")])
    key = get("HTTP_SEC_WEBSOCKET_KEY", "").strip(" \t")
    if not _is_key(key):
        return refusal(400, "Sec-WebSocket-Key is not base64 of 16 bytes (RFC 6455 section 4.2.1).")
    subprotocols = get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")
    if subprotocols and not _is_list_of(_is_token, subprotocols):
        return refusal(400, "Sec-WebSocket-Protocol is not a list of tokens (RFC 6455 section 4.1).")
    extensions = get("HTTP_SEC_WEBSOCKET_EXTENSIONS", "")
    if extensions and not _is_list_of(_is_extension, extensions):
        return refusal(400, "Sec-WebSocket-Extensions is malformed (RFC 6455 section 9.1).")
    return Handshake(accept_token(key), tuple(_members(subprotocols)), extensions)


def accept_token(key: str) -> str:
    """Return the value of ``Sec-WebSocket-Accept`` that answers a key (RFC 6455 §4.2.2 item 5.4)."""
    digest = hashlib.sha1(f"{key}{_GUID}".encode(), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def _is_key(key: str) -> bool:
    try:
        return len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):  # not base64; not ASCII
        return False


def _members(value: str) -> list[str]:
    """Return the members of a list (RFC 9110 §5.6.1)."""
    return [member for part in value.split(",") if (member := part.strip(" \t"))]


def _is_list_of(is_member: Callable[[str], bool], value: str) -> bool:
    """Return whether a value is a list of one member or more, each as it should be (RFC 9110 §5.6.1)."""
    members = _members(value)
    return bool(members) and all(map(is_member, members))


def _is_token(text: str) -> bool:
    return TOKEN.fullmatch(text) is not None


def _is_extension(text: str) -> bool:
    """Return whether this is the name of an extension with its parameters (RFC 6455 §9.1)."""
    name, *parameters = (part.strip(" \t") for part in text.split(";"))
    return _is_token(name) and all(map(_is_parameter, parameters))


def _is_parameter(text: str) -> bool:
    name, equals, value = (part.strip(" \t") for part in text.partition("="))
    if len(value) > 1 and value[0] == value[-1] == '"':  # RFC 6455 §9.1: a token, even in quotes
        value = value[1:-1]
    return _is_token(name) and (not equals or _is_token(value))


def _lower_tokens(value: str | None) -> list[str]:
    return _members(value.lower()) if value else []


# -- The answer to it -------------------------------------------------------------------------------------------------


class Head101(NamedTuple):
    """The head that opens a WebSocket.

    Attributes:
        data: The bytes to write.
        dropped: The names of the app's headers that belong to the connection and were left out, in lower case.
    """

    data: bytes
    dropped: tuple[str, ...]


def head_101(
    handshake: Handshake,
    *,
    subprotocol: str | None = None,
    extensions: str = "",
    headers: Iterable[tuple[bytes, bytes]] | None = None,
) -> Head101:
    """Return the head that answers a handshake as the app's ``websocket.accept`` says.

    Args:
        handshake: The client's.
        subprotocol: The app's choice.
        extensions: What was agreed on; ``""`` for nothing.
        headers: The app's.

    Raises:
        AppProtocolError: The client did not offer the subprotocol, or a header has the wrong type or is ours to set.
        InvalidHeader: A header cannot be sent as it is.
    """
    if subprotocol is not None and subprotocol not in handshake.subprotocols:
        raise AppProtocolError(
            f"The app accepted the subprotocol {str(subprotocol)[:80]!r}, but the client offers "
            f"{', '.join(map(repr, handshake.subprotocols))[:200] or 'none'}. RFC 6455 §4.2.2 requires one of those, "
            'or none: otherwise the client closes the connection. Choose one of scope["subprotocols"].'
        )
    sent, _, dropped = response_headers_from_asgi(headers)
    lines = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {handshake.accept}"]
    if subprotocol is not None:
        # As it was offered: that of an app may be a member of an Enum, of which an f-string makes something else.
        offered = handshake.subprotocols[handshake.subprotocols.index(subprotocol)]
        lines.append(f"Sec-WebSocket-Protocol: {offered}")
    if extensions:
        lines.append(f"Sec-WebSocket-Extensions: {extensions}")
    for name, value in sent:
        if name.lower() == "content-length":  # RFC 9110 §8.6: a 1xx has none
            continue
        if name.lower().startswith("sec-websocket-"):
            raise AppProtocolError(
                f"The app sent the header {name} in websocket.accept. The handshake sets it (RFC 6455 §4.2.2). Leave "
                'it out; choose a subprotocol with "subprotocol".'
            )
        lines.append(f"{name}: {value}")
    return Head101("\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode("latin-1"), dropped)


# -- The handshake that a WSGI app is shown ---------------------------------------------------------------------------


def environ_of_handshake(environ: Environ, subprotocols: Sequence[str]) -> None:
    """Make the environ of a WebSocket's scope look like an HTTP/1.1 handshake that the app itself can answer.

    What the server says stays, as long as a library can work with it. A server that speaks HTTP/2 shows neither a key
    nor ``Connection`` (RFC 8441 §5), and need not show ``Host``.

    Args:
        environ: What `environ_from_scope` made of the scope; changed in place.
        subprotocols: Those of the scope.
    """
    environ["REQUEST_METHOD"] = "GET"
    if environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        environ["SERVER_PROTOCOL"] = "HTTP/1.1"  # that is what the link speaks
    if "websocket" not in _lower_tokens(environ.get("HTTP_UPGRADE")):
        environ["HTTP_UPGRADE"] = "websocket"
    if "upgrade" not in _lower_tokens(environ.get("HTTP_CONNECTION")):
        environ["HTTP_CONNECTION"] = "Upgrade"
    environ["HTTP_SEC_WEBSOCKET_VERSION"] = "13"
    if not _is_key(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")):
        environ["HTTP_SEC_WEBSOCKET_KEY"] = _LINK_KEY
    if "HTTP_HOST" not in environ:
        name = environ["SERVER_NAME"]
        host = f"[{name}]" if ":" in name and name[0] != "[" else name  # RFC 3986 §3.2.2: an IPv6 address
        environ["HTTP_HOST"] = f"{host}:{environ['SERVER_PORT']}"
    if subprotocols and "HTTP_SEC_WEBSOCKET_PROTOCOL" not in environ:
        environ["HTTP_SEC_WEBSOCKET_PROTOCOL"] = ", ".join(subprotocols)
    # wsproto, on which simple-websocket is built, would compress what goes over the link.
    environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)


def offered_to(environ: Environ) -> list[str]:
    """Return the subprotocols that a library finds in the environ of a handshake."""
    return _members(environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", ""))
