"""Paths and addresses, as each interface has them.

*Facts*

- ``SCRIPT_NAME + PATH_INFO`` is the decoded path (PEP 3333, "URL Reconstruction"), its bytes as latin-1 ("Unicode
  Issues"). ``path`` is the same path as text, and begins with ``root_path`` (ASGI HTTP 2.5, "HTTP Connection Scope").
- Text cannot hold bytes that are not UTF-8: ``path`` has U+FFFD in their place, and only ``raw_path`` has the bytes.
- Servers differ. ``raw_path`` may contain the query (aiohttp-asgi). ``path`` may be undecoded (h2corn, gunicorn's
  HTTP/2), decoded except for ``%2F`` (cheroot), or begin with ``http://`` (gevent, hypercorn).
- A port may be an ``int``, a ``str``, ``""``, ``None`` or the path of a Unix socket.

Specs: PEP 3333; ASGI HTTP 2.5; RFC 3986 (URI); RFC 9110; RFC 9112.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A path that is the same in every form: nothing in it is quoted, or would have to be.
PLAIN_PATH = re.compile(r"/[A-Za-z0-9_.\-~/:@!$&'()*+,;=]*")
# RFC 3986 §3.3: what a path may hold unquoted, besides letters, digits and "_.-~".
_PATH_SAFE = "/:@!$&'()*+,;="
# RFC 3986 §2: what a request target may hold at all: no controls, no space, nothing above 126.
_TARGET_SAFE = "".join(map(chr, range(0x21, 0x7F)))
# RFC 9112 §3.2.2: what precedes the path of a request target in absolute form.
_ABSOLUTE_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?]*")
# RFC 9110 §7.2: Host = uri-host [ ":" port ]
_HOST = re.compile(r"([^:\s/@,]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?")
# The name of a Unix socket begins like this, and that of a host never does: a path, an abstract name, and the usual
# spelling of the latter.
_SOCKET = ("/", "\0", "@")

MAX_PORT_DIGITS = len("65535")
_PORTS = {"http": "80", "https": "443"}


# -- Bytes and text ---------------------------------------------------------------------------------------------------


def text_of(data: bytes) -> str:
    """Return the bytes of a path as text, with U+FFFD for what is not UTF-8."""
    return data.decode("utf-8", "replace")


def text_bytes(text: str) -> bytes:
    """Return the bytes of a path that is text. Surrogates stand for bytes that are not UTF-8 (peregrine)."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def wsgi_bytes(text: str) -> bytes:
    """Return the bytes of a WSGI string. Some servers hand over real text (aiohttp-wsgi, tsuno, apig-wsgi)."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text_bytes(text)


def _quoted(data: bytes, safe: str) -> str:
    """Return bytes of a path as a URI has them; ``safe`` characters stay as they are."""
    from urllib.parse import quote_from_bytes  # noqa: PLC0415 - plain paths need none of it, and it takes 2 ms

    return quote_from_bytes(data, safe)


def _unquoted(data: bytes) -> bytes:
    """Return the bytes that a part of a URI stands for."""
    from urllib.parse import unquote_to_bytes  # noqa: PLC0415 - as for quoting

    return unquote_to_bytes(data)


# -- Request targets --------------------------------------------------------------------------------------------------


def without_query(target: str | bytes | None) -> bytes | None:
    """Return a request target without its query, as bytes; ``None`` if there is no target."""
    if not target:
        return None
    data = wsgi_bytes(target) if isinstance(target, str) else bytes(memoryview(target))  # bytes(5) would be 5 bytes
    return data.partition(b"?")[0]


def _origin_form(target: str) -> str:
    """Return the path of a request target. RFC 9112 §3.2.2: a server must accept the absolute form, too."""
    match = None if target.startswith("/") else _ABSOLUTE_FORM.match(target)
    return (target[match.end() :] or "/") if match else target


def _agreed(path: bytes, raw: bytes) -> bytes | None:
    """Return the bytes of a path, decoded from its raw form; ``None`` if the raw form is that of another path.

    The path may have lost what is not UTF-8, or be undecoded, or be decoded in part (cheroot, aiohttp), or as latin-1
    (m0serve).
    """
    decoded = _unquoted(raw)
    agree = (
        decoded == path
        or text_of(decoded).encode() == path
        or (b"%" in path and _unquoted(path) == decoded)
        or raw.decode("latin-1").encode() == path
    )
    return decoded if agree else None


# -- Paths of an environ ----------------------------------------------------------------------------------------------


def wsgi_path(path: str, raw_path: str | bytes | None) -> tuple[str, str]:
    """Return the whole path, ``SCRIPT_NAME + PATH_INFO``, and the path as it was requested."""
    data, raw = text_bytes(path), without_query(raw_path)
    if raw is None:
        uri = _quoted(data, _PATH_SAFE)
    else:
        uri = _quoted(raw, _TARGET_SAFE)  # uvicorn puts its --root-path there unquoted
        data = _agreed(data, raw) or data
    return _origin_form(data.decode("latin-1")), uri


def split_root(path: str, root_path: str, script_name: str, *, fixed: bool) -> tuple[str, str]:
    """Split the whole path into ``SCRIPT_NAME`` and ``PATH_INFO``.

    Args:
        path: As `wsgi_path` returned it.
        root_path: That of the scope.
        script_name: That of the bridge's options.
        fixed: Whether ``script_name`` holds even if there is a ``root_path``.

    Returns:
        ``SCRIPT_NAME`` and ``PATH_INFO``. A path that does not begin with its root is left whole.
    """
    if fixed:
        _, info = _cut(path, script_name) or _cut(path, root_path) or ("", path)
        return text_bytes(script_name).decode("latin-1"), info
    root = root_path or script_name
    return _cut(path, root) or (text_bytes(root.rstrip("/")).decode("latin-1"), path)


def _cut(path: str, root: str) -> tuple[str, str] | None:
    """Cut a root off a path, between two segments only: ``/api`` is not the root of ``/apiary``.

    A slash at the end of the root goes to what follows, unless that begins with one. Otherwise ``/api/`` and ``/x``
    would make ``/api//x``.
    """
    if root == "/":  # PEP 3333: the SCRIPT_NAME of an app at the root is empty
        return "", path
    script = root if root.isascii() else _wsgi_root(path, root)
    for prefix in (script, script.rstrip("/")):
        rest = path[len(prefix) :]
        if path.startswith(prefix) and (not rest or rest[0] == "/"):
            return prefix, rest
    return None


def _wsgi_root(path: str, root: str) -> str:
    """Return a root as a WSGI string. If its text has lost bytes, the path still has them."""
    prefix = "/".join(path.split("/")[: root.count("/") + 1])
    return prefix if text_of(prefix.encode("latin-1")) == root else text_bytes(root).decode("latin-1")


# -- Paths of a scope -------------------------------------------------------------------------------------------------


def asgi_paths(script: str, info: str, target: str | None) -> tuple[str, bytes, str]:
    """Return ``path``, ``raw_path`` and ``root_path``.

    Args:
        script: ``SCRIPT_NAME``.
        info: ``PATH_INFO``.
        target: The request target, ``REQUEST_URI``, if the server gives one.
    """
    root, rest = wsgi_bytes(script), wsgi_bytes(_origin_form(info))
    raw = without_query(target and _origin_form(target))
    if raw is not None:
        if (decoded := _agreed(root + rest, raw)) is not None:
            return text_of(decoded), raw, text_of(root)
        if (decoded := _agreed(rest, raw)) is not None:  # a proxy removed the prefix, and a middleware restored it
            return text_of(root + decoded), _quoted(root, _PATH_SAFE).encode() + raw, text_of(root)
    return text_of(root + rest), _quoted(root + rest, _PATH_SAFE).encode(), text_of(root)


# -- Addresses --------------------------------------------------------------------------------------------------------


def port_number(port: object) -> int:
    """Return a port as a number; 0 for what is not a port: ``""``, ``None``, a path, waitress's ``"None"``."""
    if isinstance(port, str):
        return int(port) if len(port) <= MAX_PORT_DIGITS and port.isdecimal() else 0
    return port if isinstance(port, int) else 0


def address(pair: Sequence[object] | None) -> tuple[str, int | None] | None:
    """Return the ``server`` of a scope as ASGI specifies it: a host and a port, a socket and ``None``, or ``None``."""
    if not pair or not pair[0]:
        return None
    return str(pair[0]), port_number(pair[1]) or None


def server_name(server: Sequence[object] | None, scheme: str, host: str) -> tuple[str, str]:
    """Return ``SERVER_NAME`` and ``SERVER_PORT``. PEP 3333 wants both non-empty, even on a Unix socket.

    Args:
        server: That of the scope.
        scheme: ``wsgi.url_scheme``.
        host: The ``Host`` header, or ``""``.
    """
    name, port = address(server) or ("", None)
    default = _PORTS.get(scheme, "80")
    if name and not name.startswith(_SOCKET):
        return name, str(port or default)
    match = _HOST.fullmatch(host)
    return (match[1], match[2] or default) if match else ("localhost", default)
