"""The scope of a WSGI environ.

*Facts*

- Only ``HTTP_*``, ``CONTENT_TYPE`` and ``CONTENT_LENGTH`` are headers (RFC 3875 §4.1), and the latter two may be empty
  instead of absent (PEP 3333, "environ Variables").
- wsgiref and granian merge ``os.environ`` into each environ: what looks like a header there may be a variable of the
  process.
- ``Transfer-Encoding`` and ``Content-Length`` are never both there (RFC 9112 §6.2). Which of them is true depends on
  whether the server has removed the chunks (`request_length`).
- Servers differ. Values may be real text instead of latin-1, bytes (uWSGI), or lists; ``SERVER_PROTOCOL`` may lack a
  version; waitress puts the path of a Unix socket where the port belongs.
- A value of the wrong type is the server's error. Checking types beforehand would cost every request something; so when
  the translation fails, `_fault_of_environ` looks for the value at fault and names it.

Paths and addresses are in `paths`, names of headers in `names`, what is told of TLS in `tls`.

Specs: PEP 3333; RFC 3875 (CGI); ASGI HTTP 2.5; RFC 9110; RFC 9112.

Any thread may call. Each function but `process_headers` runs once a request, on the server thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from a2wsgi._errors import ServerProtocolError

from . import hints, tls
from .framing import BadRequest, content_length, leaves_a_coding
from .names import REQUEST_NAMES
from .paths import MAX_PORT_DIGITS, PLAIN_PATH, asgi_paths, port_number, wsgi_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from a2wsgi._types import Environ

_HTTP_VERSIONS = {
    "HTTP/1": "1.0",  # as granian calls HTTP/1.0
    "HTTP/1.0": "1.0",
    "HTTP/1.1": "1.1",
    "HTTP/2": "2",
    "HTTP/2.0": "2",
    "HTTP/3": "3",
    "HTTP/3.0": "3",
}


def process_headers(os_environ: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the variables of the process that look like a request's, each with the values it may have in an environ.

    wsgiref and granian merge ``os.environ`` into each environ.
    """
    if "REQUEST_METHOD" in os_environ:  # RFC 3875 §4.1.12: a CGI process, whose variables are the request
        return {}
    return {
        key: (value, value.encode("utf-8", "surrogateescape").decode("latin-1"))  # granian's spelling, and wsgiref's
        for key, value in os_environ.items()
        if REQUEST_NAMES[key] or key in tls.READ
    }


_NOTHING: dict[str, tuple[str, ...]] = {}


def scope_from_environ(environ: Environ, process: Mapping[str, tuple[str, ...]] = _NOTHING) -> dict[str, Any]:
    """Translate a WSGI environ. The caller adds ``state``.

    Args:
        environ: The environ, as a server or a middleware made it. It becomes ``scope["wsgi_environ"]``.
        process: What `process_headers` returned. Keys with these values say nothing of the request.

    Raises:
        BadRequest: ``CONTENT_LENGTH`` is malformed. Answer 400.
        ServerProtocolError: A value in the environ has the wrong type.
    """
    # Fast path: an ordinary port is read here, without a call (tests/test_call_counts.py; benchmarks/in_process.py).
    try:
        get = environ.get
        root_path, target, query = get("SCRIPT_NAME") or "", get("REQUEST_URI") or get("RAW_URI"), get("QUERY_STRING")
        if root_path == "/":  # PEP 3333: the SCRIPT_NAME of an app at the root is empty
            root_path = ""
        info = get("PATH_INFO") or ("" if root_path else "/")  # RFC 9112 §3.2.1: an empty path is "/"
        path = root_path + info
        if (not target or target.partition("?")[0] == path) and PLAIN_PATH.fullmatch(path):
            raw_path = path.encode()
        else:
            path, raw_path, root_path = asgi_paths(root_path, info, target)
        client, client_port = get("REMOTE_ADDR"), get("REMOTE_PORT")
        if type(client_port) is not str or not client_port.isdecimal() or len(client_port) > MAX_PORT_DIGITS:
            client_port = port_number(client_port)
        server, server_port = get("SERVER_NAME"), get("SERVER_PORT")
        if type(server_port) is not str or not server_port.isdecimal() or len(server_port) > MAX_PORT_DIGITS:
            server, server_port = _odd_server(server, server_port)
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": _HTTP_VERSIONS.get(get("SERVER_PROTOCOL", ""), "1.1"),
            "method": str.upper(get("REQUEST_METHOD") or "GET"),
            "scheme": get("wsgi.url_scheme") or "http",
            "path": path,
            "raw_path": raw_path,
            "query_string": wsgi_bytes(query) if query else b"",
            "root_path": root_path,
            "headers": _asgi_headers(environ, process),
            # Apps want the client's address even without a port.
            "client": (client, int(client_port)) if client else None,
            "server": (server, int(server_port) or None) if server else None,
            "extensions": {} if environ.keys().isdisjoint(_TELLING) else _extensions(environ, process),
            "wsgi_environ": environ,
        }
    except (TypeError, AttributeError, LookupError) as error:
        raise _fault_of_environ(environ) or error  # noqa: B904 - its own cause


# An environ with one of these tells of an extension. Few have any.
_TELLING = (hints.KEY, *tls.KEYS)


def _extensions(environ: Environ, process: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return what the server can do besides, by ASGI's names."""
    extensions: dict[str, Any] = {hints.EXTENSION: {}} if callable(environ.get(hints.KEY)) else {}
    told = tls.tls_from_environ(environ, process)
    if told is not None:
        extensions[tls.EXTENSION] = told
    return extensions


def _asgi_headers(environ: Environ, process: Mapping[str, tuple[str, ...]]) -> list[tuple[bytes, bytes]]:
    if process:
        environ = {key: value for key, value in environ.items() if value not in process.get(key, ())}
    names = REQUEST_NAMES
    try:
        # Fast path: most keys are not headers, and filter() skips those without running a line of Python.
        headers = [
            (names[key], environ[key].strip(" \t").encode("latin-1")) for key in filter(names.__getitem__, environ)
        ]
    except (TypeError, AttributeError, UnicodeEncodeError):
        native = _native_strings(environ.items())
        headers = [(name, wsgi_bytes(value.strip(" \t"))) for key, value in native if (name := names[key])]
    if "CONTENT_LENGTH" in environ or "HTTP_VERSION" in environ or environ.get("CONTENT_TYPE") == "":
        return _settled(headers, environ)
    return headers


def _native_strings(items: Iterable[tuple[object, object]]) -> Iterator[tuple[str, str]]:
    for key, value in items:
        if isinstance(key, str) and isinstance(value, str):
            yield key, value


def _settled(headers: list[tuple[bytes, bytes]], environ: Environ) -> list[tuple[bytes, bytes]]:
    """Return the headers without those that are empty or contradict another one."""
    length, dropped = request_length(environ), {b"content-length"}
    if length is not None:  # RFC 9112 §6.2: never both
        if leaves_a_coding(environ.get("HTTP_TRANSFER_ENCODING")):
            length = None
        else:
            dropped.add(b"transfer-encoding")
    if not environ.get("CONTENT_TYPE"):  # PEP 3333, "environ Variables": may be empty or absent
        dropped.add(b"content-type")
    if environ.get("HTTP_VERSION") == "2" and str(environ.get("SERVER_PROTOCOL")).startswith("HTTP/2"):
        dropped.add(b"version")  # gunicorn adds it on HTTP/2
    kept = [pair for pair in headers if pair[0] not in dropped]
    return kept if length is None else [*kept, (b"content-length", b"%d" % length)]


def _odd_server(name: str | None, port: object) -> tuple[str | None, int]:
    """Return the name and the port of a server, 0 for none, if the port is not a plain number."""
    if isinstance(port, str) and port.startswith("/"):  # waitress puts the path of a Unix socket there
        return port, 0
    return name, port_number(port)


def request_length(environ: Environ) -> int | None:
    """Return the length of the body in ``wsgi.input``; ``None`` if the environ does not say it.

    Raises:
        BadRequest: ``CONTENT_LENGTH`` is malformed. Answer 400.
    """
    value = environ.get("CONTENT_LENGTH")
    if value is None or value == "":  # PEP 3333, "environ Variables": may be empty or absent
        return None
    try:
        length = content_length((str(value),))
    except BadRequest:
        if not isinstance(value, str):
            raise _wrong_in_environ("CONTENT_LENGTH", value) from None  # no client can cause that
        raise
    # RFC 9112 §6.3: Transfer-Encoding overrides it. But if the stream does not end by itself, the server must have
    # counted the chunks, and this is what they came to.
    return None if "HTTP_TRANSFER_ENCODING" in environ and environ.get("wsgi.input_terminated") else length


# -- The fault finder -------------------------------------------------------------------------------------------------


def _fault_of_environ(environ: object) -> ServerProtocolError | None:
    """Return what to raise for an environ that could not be translated; ``None`` if all its types are right."""
    if not isinstance(environ, dict):
        return ServerProtocolError(
            f'The server called the app with an environ of type {type(environ).__name__}. PEP 3333, "Specification '
            'Details", requires a dict. Fix the server, or the middleware that made it.'
        )
    values = cast("Environ", environ)
    for key in _ENVIRON_STRINGS:
        value = values.get(key)
        if value is not None and not isinstance(value, str) and value != b"":
            return _wrong_in_environ(key, value)
    return None


# The keys whose values are native strings.
_ENVIRON_STRINGS = (
    "REQUEST_METHOD",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "REQUEST_URI",
    "RAW_URI",
    "SERVER_PROTOCOL",
    "wsgi.url_scheme",
)


def _wrong_in_environ(key: str, value: object) -> ServerProtocolError:
    return ServerProtocolError(
        f'The server\'s environ has {key} of type {type(value).__name__}. PEP 3333, "environ Variables", requires a '
        "str. Fix the server, or the middleware that set it."
    )
