"""One request in the other interface's words: `environ_from_scope` and `scope_from_environ`, which are inverses.

*Facts*

- ``SCRIPT_NAME + PATH_INFO`` is the decoded path (PEP 3333, "URL Reconstruction"), its bytes as latin-1 ("Unicode
  Issues"). ``path`` is the same as text, and begins with ``root_path`` (ASGI HTTP 2.5, "HTTP Connection Scope").
- Text cannot hold what is not UTF-8: ``path`` has U+FFFD there, only ``raw_path`` has the bytes.
- Servers differ. Ports are ``int``, ``str``, ``""``, ``None`` or a path; pairs are lists; iterables can be read once;
  keys are absent; ``raw_path`` holds the query (aiohttp-asgi); ``path`` is not decoded (h2corn, gunicorn's HTTP/2), or
  is but for ``%2F`` (cheroot), or begins with ``http://`` (gevent, hypercorn). All of it is made one here.
- Bridges nest. What the outer bridge knew, and the interface between has no word for, is taken back from
  ``scope["wsgi_environ"]`` or ``environ["asgi.scope"]``, where what lies between has not changed it.

Specs: PEP 3333; RFC 3875 (CGI); ASGI HTTP 2.5; RFC 9110; RFC 9112. What a header may be is in ``_headers.py``.

Any thread may call. Each function runs once a request, on the loop thread or on the server thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from ._errors import ServerProtocolError
from ._headers import ENVIRON_KEYS, ENVIRON_KEYS_WITH_UNDERSCORES, REQUEST_NAMES, content_length

if TYPE_CHECKING:
    from ._types import Environ, Scope

# RFC 3986 §3.3: what a path may hold unquoted, besides letters, digits and "_.-~".
_PATH_SAFE = "/:@!$&'()*+,;="
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_.\-~/:@!$&'()*+,;=]*")
# RFC 3986 §2: what a request target may hold at all: no controls, no space, nothing above 126.
_TARGET_SAFE = "".join(map(chr, range(0x21, 0x7F)))
# RFC 9112 §3.2.2: what comes before the path of a request target in absolute form.
_ABSOLUTE_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?]*")
# RFC 9110 §7.2: Host = uri-host [ ":" port ]
_HOST = re.compile(r"([^:\s/@,]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?")
# How a Unix socket's name begins, and a host's never: a path, an abstract name, the usual spelling of the latter.
_SOCKET = ("/", "\0", "@")

_PORT_DIGITS = len("65535")
_PORTS = {"http": "80", "https": "443"}
# PEP 3333, "environ Variables": wsgi.url_scheme is http or https, also of a WebSocket's handshake.
_URL_SCHEMES = {"ws": "http", "wss": "https"}
_PROTOCOLS = {"1.0": "HTTP/1.0", "1.1": "HTTP/1.1", "2": "HTTP/2", "2.0": "HTTP/2", "3": "HTTP/3", "3.0": "HTTP/3"}
_HTTP_VERSIONS = {
    "HTTP/1": "1.0",  # granian's word for HTTP/1.0
    "HTTP/1.0": "1.0",
    "HTTP/1.1": "1.1",
    "HTTP/2": "2",
    "HTTP/2.0": "2",
    "HTTP/3": "3",
    "HTTP/3.0": "3",
}


class ScopeView(MutableMapping[str, Any]):
    """``environ["asgi.scope"]``: the scope itself, but for a ``repr`` that shows no headers, query, cookies or state.

    Debug pages print the environ. They know to hide ``HTTP_COOKIE``; they would print the scope whole.

    Attributes:
        scope: The scope. What is written to the view is written to it.
        template: How the environ was made of it, for a bridge further in that compares.
    """

    __slots__ = ("scope", "template")

    def __init__(self, scope: Scope, template: EnvironTemplate) -> None:
        self.scope = scope
        self.template = template

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401  # as the scope's
        return self.scope[key]

    def __setitem__(self, key: str, value: object) -> None:
        self.scope[key] = value

    def __delitem__(self, key: str) -> None:
        del self.scope[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scope)

    def __len__(self) -> int:
        return len(self.scope)

    def __repr__(self) -> str:
        shown = [f"{key}={self.scope[key]!r}" for key in ("type", "method", "path") if key in self.scope]
        return f"<{type(self).__name__} {' '.join(shown)} keys={list(self.scope)}>"


class EnvironTemplate:
    """What is the same in every environ of one bridge.

    Args:
        script_name: ``SCRIPT_NAME``, as text. Cut from a path that begins with it.
        fixed: It holds whatever the scope's ``root_path`` is. Else it is used where ``root_path`` is empty.
        allow_underscores: Keep request headers with an underscore in their name.
        multithread: ``wsgi.multithread``.
        multiprocess: ``wsgi.multiprocess``.
    """

    __slots__ = ("constants", "environ_keys", "fixed", "script_name")

    def __init__(
        self,
        *,
        script_name: str = "",
        fixed: bool = False,
        allow_underscores: bool = False,
        multithread: bool = True,
        multiprocess: bool = True,
    ) -> None:
        self.script_name = "/" + script_name.strip("/") if script_name.strip("/") else ""
        self.fixed = fixed
        self.environ_keys = ENVIRON_KEYS_WITH_UNDERSCORES if allow_underscores else ENVIRON_KEYS
        # PEP 3333, "environ Variables". The last is not in it; Werkzeug reads a body of unknown length only with it.
        self.constants: Environ = {
            "wsgi.version": (1, 0),
            "wsgi.multithread": multithread,
            "wsgi.multiprocess": multiprocess,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
        }


_DEFAULT_TEMPLATE = EnvironTemplate()


# -- An environ from a scope ------------------------------------------------------------------------------------------


def environ_from_scope(scope: Scope, template: EnvironTemplate = _DEFAULT_TEMPLATE) -> Environ:
    """Translate an ASGI scope; the caller adds ``wsgi.input``, ``wsgi.errors`` and keys of its own.

    Args:
        scope: Of an HTTP request or a WebSocket. Headers that can be read only once become a list in it.
        template: The bridge's options.

    Raises:
        BadRequest: ``Content-Length`` is malformed. Answer 400.
        ServerProtocolError: The headers are not pairs of bytes.
    """
    # One long function: it runs for each request, and a call costs as much as four lines of it.
    get = scope.get
    environ = template.constants.copy()
    environ["asgi.scope"] = ScopeView(scope, template)
    environ["REQUEST_METHOD"] = get("method") or "GET"
    environ["SERVER_PROTOCOL"] = _PROTOCOLS.get(get("http_version", "1.1"), "HTTP/1.1")
    scheme = get("scheme") or "http"
    environ["wsgi.url_scheme"] = scheme = _URL_SCHEMES.get(scheme, scheme)

    raw_path, root_path = get("raw_path"), get("root_path") or ""
    path = get("path") or ("" if root_path else "/")  # RFC 9112 §3.2.1: an empty path is "/"
    if raw_path == path.encode("utf-8", "replace") and _PLAIN_PATH.fullmatch(path):
        uri = path
    else:
        path, uri = _wsgi_path(path, raw_path)
    if root_path or template.script_name:
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = _script_and_path(path, root_path, template)
    else:
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = "", path
    query = get("query_string")
    if query:
        environ["QUERY_STRING"] = query = query.decode("latin-1")  # PEP 3333, "Unicode Issues": any byte may be in it
        environ["REQUEST_URI"] = environ["RAW_URI"] = f"{uri}?{query}"  # Apache's word, and gunicorn's
    else:
        environ["QUERY_STRING"] = ""
        environ["REQUEST_URI"] = environ["RAW_URI"] = uri

    environ_keys = template.environ_keys
    headers: list[tuple[bytes, bytes]] | None = get("headers")
    if headers is None or type(headers) is not list:
        scope["headers"] = headers = _pairs_of_bytes(headers or ())  # pairs, too, may be there once only (Falcon)
    try:
        for name, value in headers:
            key = environ_keys[name]
            if key in environ:
                environ[key] = _joined(key, environ[key], value.decode("latin-1"))
            else:
                environ[key] = value.decode("latin-1")
    except (TypeError, ValueError, AttributeError):
        scope["headers"] = _pairs_of_bytes(headers)  # or raise: there is no third time
        return environ_from_scope(scope, template)
    environ.pop("", None)  # the key of all names that are to be dropped
    if "CONTENT_LENGTH" in environ:
        _settle_length(environ)

    server: Any = get("server")
    client: Any = get("client")
    if server.__class__ is not tuple:
        server = _settle_pair(scope, "server")
    if client.__class__ is not tuple:
        client = _settle_pair(scope, "client")
    if server and type(server[1]) is int and server[1] > 0 and server[0]:
        environ["SERVER_NAME"], environ["SERVER_PORT"] = server[0], str(server[1])
    else:
        environ["SERVER_NAME"], environ["SERVER_PORT"] = _server_name(server, scheme, environ.get("HTTP_HOST", ""))
    if client and client[0]:
        environ["REMOTE_ADDR"] = client[0]
        if client[1] and client[1] != "0":  # 0 is how servers say that they do not know
            environ["REMOTE_PORT"] = str(client[1])
    if "wsgi_environ" in scope:
        _take_back_environ(environ, scope)
    return environ


def _settle_pair(scope: Scope, key: str) -> Any:  # noqa: ANN401  # as the scope's
    """Return an address of the scope; one that can be read only once becomes a tuple in it."""
    pair: Any = scope.get(key)
    if pair is not None and not issubclass(type(pair), tuple | list):
        scope[key] = pair = tuple(pair)
    return pair


def _wsgi_path(path: str, raw_path: str | bytes | None) -> tuple[str, str]:
    """Return the whole path as WSGI has it, and as it was requested."""
    data, raw = _text_bytes(path), _without_query(raw_path)
    if raw is None:
        uri = quote_from_bytes(data, _PATH_SAFE)
    else:
        uri = quote_from_bytes(raw, _TARGET_SAFE)  # uvicorn puts its --root-path there unquoted
        data = _agreed(data, raw) or data
    return _origin_form(data.decode("latin-1")), uri


def _script_and_path(path: str, root_path: str, template: EnvironTemplate) -> tuple[str, str]:
    """Return ``SCRIPT_NAME`` and ``PATH_INFO``. A path that does not begin with its root is left whole."""
    if template.fixed:
        _, info = _cut(path, template.script_name) or _cut(path, root_path) or ("", path)
        return _text_bytes(template.script_name).decode("latin-1"), info
    root = root_path or template.script_name
    return _cut(path, root) or (_text_bytes(root.rstrip("/")).decode("latin-1"), path)


def _cut(path: str, root: str) -> tuple[str, str] | None:
    """Cut a prefix from a path, between two segments only: ``/api`` is no prefix of ``/apiary``.

    A slash at its end goes to what follows, unless that begins with one: ``/api/`` and ``/x`` had made ``/api//x``.
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
    """Return a prefix as WSGI has it; where its text has lost bytes, the path has them."""
    prefix = "/".join(path.split("/")[: root.count("/") + 1])
    return prefix if _text(prefix.encode("latin-1")) == root else _text_bytes(root).decode("latin-1")


def _joined(key: str, value: str, repeat: str) -> str:
    if key == "CONTENT_TYPE":  # RFC 9110 §8.3: it is no list; the first stands
        return value
    # RFC 9113 §8.2.3: HTTP/2 splits a cookie header at its "; ". RFC 9110 §5.3: all others are lists.
    return f"{value}; {repeat}" if key == "HTTP_COOKIE" else f"{value},{repeat}"


def _settle_length(environ: Environ) -> None:
    environ["CONTENT_LENGTH"] = str(content_length((environ["CONTENT_LENGTH"],)))
    if "HTTP_TRANSFER_ENCODING" in environ:  # RFC 9112 §6.3: it overrides Content-Length
        del environ["CONTENT_LENGTH"]


def _server_name(server: Sequence[object] | None, scheme: str, host: str) -> tuple[str, str]:
    """Return ``SERVER_NAME`` and ``SERVER_PORT``. PEP 3333 wants neither empty, also on a Unix socket."""
    name, port = _address(server) or ("", None)
    default = _PORTS.get(scheme, "80")
    if name and not name.startswith(_SOCKET):
        return name, str(port or default)
    match = _HOST.fullmatch(host)
    return (match[1], match[2] or default) if match else ("localhost", default)


def _pairs_of_bytes(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers as they should be, made of memoryviews (no ``decode()``) or of bytearrays (no hash)."""
    try:
        return [(bytes(memoryview(name)), bytes(memoryview(value))) for name, value in headers]
    except (TypeError, ValueError):
        raise ServerProtocolError(
            'The headers in the scope are no pairs of bytes. ASGI HTTP 2.5, "HTTP Connection Scope", wants an iterable '
            "of such. Mend the server, or the middleware that made them."
        ) from None


# -- A scope from an environ ------------------------------------------------------------------------------------------


def process_headers(os_environ: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return what looks like a header in the environment of the process, for `scope_from_environ`.

    wsgiref and granian merge ``os.environ`` into each environ. In a CGI process it is the request itself.
    """
    if "REQUEST_METHOD" in os_environ:  # RFC 3875 §4.1.12
        return {}
    return {
        key: (value, value.encode("utf-8", "surrogateescape").decode("latin-1"))  # as granian and as wsgiref have it
        for key, value in os_environ.items()
        if REQUEST_NAMES[key]
    }


_NOTHING: dict[str, tuple[str, ...]] = {}


def scope_from_environ(environ: Environ, process: Mapping[str, tuple[str, ...]] = _NOTHING) -> dict[str, Any]:
    """Translate a WSGI environ; the caller adds ``state`` where there is none.

    Args:
        environ: As a server or a middleware made it. It becomes ``scope["wsgi_environ"]``.
        process: What `process_headers` returned: keys with these values are no headers.

    Raises:
        BadRequest: ``CONTENT_LENGTH`` is malformed. Answer 400.
    """
    get = environ.get
    root_path, target, query = get("SCRIPT_NAME") or "", get("REQUEST_URI") or get("RAW_URI"), get("QUERY_STRING")
    if root_path == "/":  # PEP 3333: the SCRIPT_NAME of an app at the root is empty
        root_path = ""
    info = get("PATH_INFO") or ("" if root_path else "/")  # RFC 9112 §3.2.1: an empty path is "/"
    path = root_path + info
    if (not target or target.partition("?")[0] == path) and _PLAIN_PATH.fullmatch(path):
        raw_path = path.encode()
    else:
        path, raw_path, root_path = _asgi_paths(root_path, info, target)
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": _HTTP_VERSIONS.get(get("SERVER_PROTOCOL", ""), "1.1"),
        "method": (get("REQUEST_METHOD") or "GET").upper(),
        "scheme": get("wsgi.url_scheme") or "http",
        "path": path,
        "raw_path": raw_path,
        "query_string": _wsgi_bytes(query) if query else b"",
        "root_path": root_path,
        "headers": _asgi_headers(environ, process),
        "client": _asgi_client(get("REMOTE_ADDR"), get("REMOTE_PORT")),
        "server": _asgi_server(get("SERVER_NAME"), get("SERVER_PORT")),
        "extensions": {},
        "wsgi_environ": environ,
    }
    if "asgi.scope" in environ:
        _take_back_scope(scope, environ)
    return scope


def request_length(environ: Environ) -> int | None:
    """Return how long the body in ``wsgi.input`` is; ``None`` if the environ does not say.

    Raises:
        BadRequest: ``CONTENT_LENGTH`` is malformed. Answer 400.
    """
    value = environ.get("CONTENT_LENGTH")
    if value is None or value == "":  # PEP 3333, "environ Variables": may be empty or absent
        return None
    length = content_length((str(value),))
    # RFC 9112 §6.3: Transfer-Encoding overrides it, unless the server counted the chunks, and has no other end to show.
    return None if "HTTP_TRANSFER_ENCODING" in environ and environ.get("wsgi.input_terminated") else length


def _asgi_paths(script: str, info: str, target: str | None) -> tuple[str, bytes, str]:
    """Return ``path``, ``raw_path`` and ``root_path``."""
    root, rest = _wsgi_bytes(script), _wsgi_bytes(_origin_form(info))
    raw = _without_query(target and _origin_form(target))
    if raw is not None:
        if (decoded := _agreed(root + rest, raw)) is not None:
            return _text(decoded), raw, _text(root)
        if (decoded := _agreed(rest, raw)) is not None:  # a proxy took the prefix off, a middleware put it back on
            return _text(root + decoded), quote_from_bytes(root, _PATH_SAFE).encode() + raw, _text(root)
    return _text(root + rest), quote_from_bytes(root + rest, _PATH_SAFE).encode(), _text(root)


def _asgi_headers(environ: Environ, process: Mapping[str, tuple[str, ...]]) -> list[tuple[bytes, bytes]]:
    if process:
        environ = {key: value for key, value in environ.items() if value not in process.get(key, ())}
    names = REQUEST_NAMES
    try:
        # Most keys are no headers: filter() passes over those without a line of Python.
        headers = [(names[key], environ[key].encode("latin-1")) for key in filter(names.__getitem__, environ)]
    except (TypeError, AttributeError, UnicodeEncodeError):
        native = _native_strings(environ.items())
        headers = [(name, _wsgi_bytes(value)) for key, value in native if (name := names[key])]
    if "CONTENT_LENGTH" in environ or "HTTP_VERSION" in environ or environ.get("CONTENT_TYPE") == "":
        return _settled(headers, environ)
    return headers


def _native_strings(items: Iterable[tuple[object, object]]) -> Iterator[tuple[str, str]]:
    for key, value in items:
        if isinstance(key, str) and isinstance(value, str):
            yield key, value


def _settled(headers: list[tuple[bytes, bytes]], environ: Environ) -> list[tuple[bytes, bytes]]:
    """Return the headers, less those that say nothing or contradict another."""
    length = request_length(environ)
    dropped = {b"content-length"}
    if length is not None:  # RFC 9112 §6.2: never both
        dropped.add(b"transfer-encoding")
    if not environ.get("CONTENT_TYPE"):  # PEP 3333, "environ Variables": may be empty or absent
        dropped.add(b"content-type")
    if environ.get("HTTP_VERSION") == "2" and str(environ.get("SERVER_PROTOCOL")).startswith("HTTP/2"):
        dropped.add(b"version")  # gunicorn's own, on HTTP/2
    kept = [pair for pair in headers if pair[0] not in dropped]
    return kept if length is None else [*kept, (b"content-length", b"%d" % length)]


def _asgi_client(name: str | None, port: object) -> tuple[str, int] | None:
    return (name, _port(port)) if name else None  # apps look for the address: it stands without a port, too


def _asgi_server(name: str | None, port: object) -> tuple[str, int | None] | None:
    if isinstance(port, str) and port.startswith("/"):  # where waitress has the path of a Unix socket
        return port, None
    return (name, _port(port) or None) if name else None


# -- What both need ---------------------------------------------------------------------------------------------------


def _port(port: object) -> int:
    """Return a port as a number; 0 for what is none: ``""``, ``None``, a path, waitress's ``"None"``."""
    if isinstance(port, str):
        return int(port) if len(port) <= _PORT_DIGITS and port.isdecimal() else 0
    return port if isinstance(port, int) else 0


def _address(pair: Sequence[object] | None) -> tuple[str, int | None] | None:
    """Return the ``server`` of a scope as the spec has it."""
    if not pair or not pair[0]:
        return None
    return str(pair[0]), _port(pair[1]) or None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _text_bytes(text: str) -> bytes:
    """Return the bytes of a decoded path. Surrogates are those that were no UTF-8 (peregrine)."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _wsgi_bytes(text: str) -> bytes:
    """Return the bytes of a WSGI string. Some servers hand over real text (aiohttp-wsgi, tsuno, apig-wsgi)."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return _text_bytes(text)


def _without_query(target: str | bytes | None) -> bytes | None:
    """Return a request target, less its query, as bytes; ``None`` where there is none."""
    if not target:
        return None
    data = _wsgi_bytes(target) if isinstance(target, str) else bytes(target)
    return data.partition(b"?")[0]


def _origin_form(target: str) -> str:
    """Return the path of a request target. RFC 9112 §3.2.2: a server must take the absolute form, too."""
    match = None if target.startswith("/") else _ABSOLUTE_FORM.match(target)
    return (target[match.end() :] or "/") if match else target


def _agreed(path: bytes, raw: bytes) -> bytes | None:
    """Return the bytes of a path from its raw form; ``None`` if that is of another path.

    The path may have lost what is not UTF-8, or not be decoded, or in part (cheroot, aiohttp), or as latin-1 (m0serve).
    """
    decoded = unquote_to_bytes(raw)
    agree = (
        decoded == path
        or _text(decoded).encode() == path
        or (b"%" in path and unquote_to_bytes(path) == decoded)
        or raw.decode("latin-1").encode() == path
    )
    return decoded if agree else None


# -- What the outer of two bridges knew -------------------------------------------------------------------------------

# These say what the request is: the scope has said so, and where it has not, it is no longer so.
_REQUEST_KEYS = frozenset({"CONTENT_LENGTH", "CONTENT_TYPE", "REMOTE_ADDR", "REMOTE_PORT"})
# Headers, what belongs to the server's side of the outer bridge, and what belongs to bridges.
_OTHER_KEYS = ("HTTP_", "wsgi.", "asgi.", "a2wsgi.")
# What the outer server says of itself, wherever the app runs.
_SERVER_KEYS = frozenset({"wsgi.errors", "wsgi.multiprocess", "wsgi.run_once"})
# Extensions that let the app send another message: WSGI, in between, could not pass it on.
_MESSAGE_EXTENSIONS = ("http.response.", "websocket.")
#: But these go past it, from bridge to bridge: they are no part of the response's head or body.
PASSED_ON = frozenset({f"http.response.{name}" for name in ("debug", "early_hint", "push", "trailers")})


def is_of_server(environ: object) -> bool:
    """Whether this, in a scope, is the environ of a WSGI server: the bridge that translated it is the outermost."""
    return isinstance(environ, dict) and "asgi.scope" not in environ


def _take_back_environ(environ: Environ, scope: Scope) -> None:
    """Add what the outer environ has, and ASGI has no word for."""
    outer: Environ | None = scope["wsgi_environ"]
    if not isinstance(outer, dict):
        return  # not of a bridge
    was = scope_from_environ(outer)
    uri = outer.get("REQUEST_URI") or outer.get("RAW_URI")
    if uri and all(scope.get(key) == was[key] for key in ("raw_path", "query_string")):
        environ["REQUEST_URI"] = environ["RAW_URI"] = _wsgi_bytes(uri).decode("latin-1")
    if all(scope.get(key) == was[key] for key in ("path", "root_path")):
        for key in ("SCRIPT_NAME", "PATH_INFO"):
            environ[key] = _wsgi_bytes(outer.get(key) or "").decode("latin-1")
    for key, value in outer.items():
        if key not in environ and key not in _REQUEST_KEYS and not key.startswith(_OTHER_KEYS):
            environ[key] = value
    for key in _SERVER_KEYS & outer.keys():
        environ[key] = outer[key]
    if environ.get("REMOTE_ADDR") != outer.get("REMOTE_ADDR"):
        environ.pop("REMOTE_HOST", None)


def _take_back_scope(scope: dict[str, Any], environ: Environ) -> None:
    """Put in what the outer scope has, wherever the environ still says what was made of it."""
    view: Scope | None = environ["asgi.scope"]
    if not isinstance(view, MutableMapping):
        return  # not of a bridge
    outer, template = (view.scope, view.template) if isinstance(view, ScopeView) else (view, _DEFAULT_TEMPLATE)
    was = environ_from_scope(outer, template)
    same = {key for key in was if key in environ and environ[key] == was[key]}

    if scope["path"] == outer.get("path") and {"SCRIPT_NAME", "PATH_INFO", "REQUEST_URI", "RAW_URI"} <= same:
        scope["raw_path"] = _without_query(outer.get("raw_path")) or scope["raw_path"]
        scope["root_path"] = outer.get("root_path") or ""
    if {"SERVER_NAME", "SERVER_PORT"} <= same:
        scope["server"] = _address(outer.get("server"))
    extensions: Mapping[str, object] = outer.get("extensions") or {}
    scope["extensions"] = {
        key: extensions[key] for key in extensions if key in PASSED_ON or not key.startswith(_MESSAGE_EXTENSIONS)
    }
    scope["headers"] = _headers_taken_back(scope["headers"], outer["headers"], template, same)
    for key in outer.keys() - scope.keys():  # the lifespan's state, and what middleware has put there: session, user
        scope[key] = outer[key]


def _headers_taken_back(
    headers: list[tuple[bytes, bytes]], outer: list[tuple[bytes, bytes]], template: EnvironTemplate, same: set[str]
) -> list[tuple[bytes, bytes]]:
    """Return the headers in the order, with the names and as often as they came, where they are what they were."""
    left = dict(headers)
    back: list[tuple[bytes, bytes]] = []
    for name, value in outer:
        key = template.environ_keys[name]
        if key in same and not key.startswith("CONTENT_"):  # these were made one already
            left.pop(REQUEST_NAMES[key], None)
            back.append((name.lower(), value))
        elif b"_" in name and not key:  # dropped for the sake of WSGI: an ASGI app knows X_Name from X-Name
            back.append((name.lower(), value))
        elif (now := REQUEST_NAMES[key]) in left:
            back.append((now, left.pop(now)))
    return [*back, *left.items()]
