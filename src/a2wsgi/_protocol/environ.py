"""The environ of an ASGI scope.

*Facts*

- An environ has the keys of CGI (RFC 3875 §4.1) and of PEP 3333, "environ Variables"; all its values from the request
  are ``str``, with bytes as latin-1 ("Unicode Issues").
- Repeats of a header are joined: ``Cookie`` with ``"; "`` (RFC 9113 §8.2.3), all others with ``","`` (RFC 9110 §5.3),
  except for ``Content-Type``, which is not a list (RFC 9110 §8.3).
- Spaces and tabs around a value are not part of it (RFC 9110 §5.5). uvicorn with httptools leaves those at the end.
- Servers differ. Pairs may be lists; iterables may be readable only once; keys may be absent or ``None``. All of that
  is accepted.
- A value of the wrong type is the server's error. Checking types beforehand would cost every request something; so when
  the translation fails, `fault_of_scope` looks for the value at fault and names it.

Paths and addresses are in `paths`, names of headers in `names`, what is told of TLS in `tls`.

Specs: PEP 3333; RFC 3875 (CGI); ASGI HTTP 2.5; RFC 9110; RFC 9112; RFC 9113.

Any thread may call. Each function runs once a request, on the loop thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from a2wsgi._errors import ServerProtocolError

from .framing import content_length
from .names import ENVIRON_KEYS, ENVIRON_KEYS_WITH_UNDERSCORES
from .paths import PLAIN_PATH, server_name, split_root, wsgi_path

if TYPE_CHECKING:
    from typing_extensions import Self

    from a2wsgi._types import Environ, Scope

# PEP 3333, "environ Variables": wsgi.url_scheme is http or https, even of a WebSocket's handshake.
_URL_SCHEMES = {"ws": "http", "wss": "https"}
_PROTOCOLS = {"1.0": "HTTP/1.0", "1.1": "HTTP/1.1", "2": "HTTP/2", "2.0": "HTTP/2", "3": "HTTP/3", "3.0": "HTTP/3"}


class ScopeView(MutableMapping[str, Any]):
    """``environ["asgi.scope"]``: the scope, with a ``repr`` that shows no headers, query, cookies or state.

    Debug pages print the environ. They know to hide ``HTTP_COOKIE``, but would print all of the scope.

    Attributes:
        scope: The scope. Whatever is written to the view is written to it.
        template: The template of the environ, so that a nested bridge can make the same environ again and compare.
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

    def copy(self) -> dict[str, Any]:
        """A copy of the scope, as a plain dict."""
        return dict(self.scope)

    def __or__(self, other: object) -> dict[str, Any]:
        """A plain dict, in which the other's values count."""
        if not isinstance(other, Mapping):
            return NotImplemented
        return {**self.scope, **other}

    def __ror__(self, other: object) -> dict[str, Any]:
        """A plain dict, in which the scope's values count."""
        if not isinstance(other, Mapping):
            return NotImplemented
        return {**other, **self.scope}

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]  # noqa: ANN401  # other than |, it takes pairs, as a dict's
        """Write to the scope."""
        self.update(other)
        return self

    def __repr__(self) -> str:
        shown = [f"{key}={self.scope[key]!r}" for key in ("type", "method", "path") if key in self.scope]
        return f"<{type(self).__name__} {' '.join(shown)} keys={list(self.scope)}>"


class EnvironTemplate:
    """What is the same in every environ of one bridge.

    Args:
        script_name: ``SCRIPT_NAME``, as text. It is cut off a path that begins with it.
        fixed: Use ``script_name`` whatever the scope's ``root_path`` is, and not only if that is empty.
        allow_underscores: Keep request headers that have an underscore in their name.
        multithread: ``wsgi.multithread``.
        multiprocess: ``wsgi.multiprocess``; None if the user does not say it: then it is true until somebody knows.
        file_wrapper: ``wsgi.file_wrapper``; None for an environ that has none.
    """

    __slots__ = ("constants", "environ_keys", "fixed", "says_multiprocess", "script_name")

    def __init__(
        self,
        *,
        script_name: str = "",
        fixed: bool = False,
        allow_underscores: bool = False,
        multithread: bool = True,
        multiprocess: bool | None = None,
        file_wrapper: object = None,
    ) -> None:
        self.script_name = "/" + script_name.strip("/") if script_name.strip("/") else ""
        self.fixed = fixed
        self.says_multiprocess = multiprocess is not None
        self.environ_keys = ENVIRON_KEYS_WITH_UNDERSCORES if allow_underscores else ENVIRON_KEYS
        # PEP 3333, "environ Variables". The last is not part of it, but Werkzeug reads a body of unknown length only if
        # it is set.
        self.constants: Environ = {
            "wsgi.version": (1, 0),
            "wsgi.multithread": multithread,
            "wsgi.multiprocess": multiprocess is not False,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
        }
        if file_wrapper is not None:
            self.constants["wsgi.file_wrapper"] = file_wrapper


DEFAULT_TEMPLATE = EnvironTemplate()


# -- The translation -------------------------------------------------------------------------------------------------


def environ_from_scope(scope: Scope, template: EnvironTemplate = DEFAULT_TEMPLATE) -> Environ:
    """Translate an ASGI scope. The caller adds ``wsgi.input``, ``wsgi.errors`` and any keys of its own.

    Args:
        scope: The scope of an HTTP request or a WebSocket. Members that can be read only once are replaced in it.
        template: The bridge's options.

    Raises:
        BadRequest: ``Content-Length`` is malformed. Answer 400.
        ServerProtocolError: A member of the scope has the wrong type.
    """
    # Fast path: one long function, since it runs once a request and each part that became a function would cost a call
    # (tests/test_call_counts.py; benchmarks/in_process.py).
    try:
        get = scope.get
        environ = template.constants.copy()
        environ["asgi.scope"] = ScopeView(scope, template)
        environ["REQUEST_METHOD"] = get("method") or "GET"
        environ["SERVER_PROTOCOL"] = _PROTOCOLS.get(get("http_version", "1.1"), "HTTP/1.1")
        scheme = get("scheme") or "http"
        environ["wsgi.url_scheme"] = scheme = _URL_SCHEMES.get(scheme, scheme)

        raw_path, root_path = get("raw_path"), get("root_path") or ""
        path = get("path") or ("" if root_path else "/")  # RFC 9112 §3.2.1: an empty path is "/"
        if raw_path == path.encode("utf-8", "replace") and PLAIN_PATH.fullmatch(path):
            uri = path
        else:
            path, uri = wsgi_path(path, raw_path)
        if root_path or template.script_name:
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = split_root(
                path, root_path, template.script_name, fixed=template.fixed
            )
        else:
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = "", path
        query = get("query_string")
        if query:
            # PEP 3333, "Unicode Issues": it may hold any byte
            environ["QUERY_STRING"] = query = query.decode("latin-1")
            environ["REQUEST_URI"] = environ["RAW_URI"] = f"{uri}?{query}"  # Apache's word, and gunicorn's
        else:
            environ["QUERY_STRING"] = ""
            environ["REQUEST_URI"] = environ["RAW_URI"] = uri

        environ_keys = template.environ_keys
        repeats: dict[str, list[str]] = {}
        headers: list[tuple[bytes, bytes]] | None = get("headers")
        if headers is None or type(headers) is not list:
            # Falcon: each pair, too, can be read only once.
            scope["headers"] = headers = _pairs_of_bytes(headers or ())
        try:
            for name, value in headers:
                key = environ_keys[name]
                if key in environ:  # joined once, at the end: one by one, each repeat would copy all those before it
                    repeats.setdefault(key, []).append(value.decode("latin-1").strip(" \t"))
                else:
                    environ[key] = value.decode("latin-1").strip(" \t")  # RFC 9110 §5.5: no OWS
        except (TypeError, ValueError, AttributeError):
            scope["headers"] = _pairs_of_bytes(headers)  # it raises if that is impossible, so this happens once
            return environ_from_scope(scope, template)
        environ.pop("", None)  # the key of all names that must be dropped
        if repeats:
            repeats.pop("", None)
            _join(environ, repeats)
        if "CONTENT_LENGTH" in environ:
            _settle_length(environ)
        if (extensions := get("extensions")) and "tls" in extensions:
            from .tls import environ_from_tls  # noqa: PLC0415 - few servers tell

            environ.update(environ_from_tls(scope))

        server: Any = get("server")
        client: Any = get("client")
        if server.__class__ is not tuple:
            server = _settle_pair(scope, "server")
        if client.__class__ is not tuple:
            client = _settle_pair(scope, "client")
        if server and type(server[1]) is int and server[1] > 0 and server[0]:
            environ["SERVER_NAME"], environ["SERVER_PORT"] = server[0], str(server[1])
        else:
            environ["SERVER_NAME"], environ["SERVER_PORT"] = server_name(server, scheme, environ.get("HTTP_HOST", ""))
        if client and client[0]:
            environ["REMOTE_ADDR"] = client[0]
            if client[1] and client[1] != "0":  # servers give 0 for an unknown port
                environ["REMOTE_PORT"] = str(client[1])
        return environ
    except (TypeError, AttributeError, LookupError) as error:
        raise fault_of_scope(scope) or error  # noqa: B904 - its own cause


def _settle_pair(scope: Scope, key: str) -> Any:  # noqa: ANN401  # as the scope's
    """Return an address of the scope, after replacing one that can be read only once by a tuple."""
    pair: Any = scope.get(key)
    if pair is not None and not issubclass(type(pair), tuple | list):
        if isinstance(pair, str | bytes):  # as a tuple, "::1" would be the host ":" and the port ":"
            raise _wrong_in_scope(key, pair, "a host and a port")
        scope[key] = pair = tuple(pair)
    return pair


def _join(environ: Environ, repeats: dict[str, list[str]]) -> None:
    """Add the values of repeated headers to the first value of each."""
    repeats.pop("CONTENT_TYPE", None)  # RFC 9110 §8.3: it is not a list, so the first value stands
    for key, values in repeats.items():
        # RFC 9113 §8.2.3: HTTP/2 splits a cookie header at its "; ". RFC 9110 §5.3: all others are lists.
        environ[key] = ("; " if key == "HTTP_COOKIE" else ",").join((environ[key], *values))


def _settle_length(environ: Environ) -> None:
    """Collapse equal repeats of ``Content-Length``, and remove it next to ``Transfer-Encoding``."""
    environ["CONTENT_LENGTH"] = str(content_length((environ["CONTENT_LENGTH"],)))
    if "HTTP_TRANSFER_ENCODING" in environ:  # RFC 9112 §6.3: it overrides Content-Length
        del environ["CONTENT_LENGTH"]


def _pairs_of_bytes(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return headers as pairs of ``bytes``, even if they are memoryviews (no ``decode()``) or bytearrays (no hash)."""
    try:
        return [(bytes(memoryview(name)), bytes(memoryview(value))) for name, value in headers]
    except (TypeError, ValueError):
        raise ServerProtocolError(
            'The headers in the scope are not pairs of bytes, which ASGI HTTP 2.5, "HTTP Connection Scope", requires. '
            "Fix the server, or the middleware that made them."
        ) from None


# -- The fault finder -------------------------------------------------------------------------------------------------

# The types of what a scope holds, and how an error names them.
_SCOPE_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "method": ((str,), "a str"),
    "http_version": ((str,), "a str"),
    "scheme": ((str,), "a str"),
    "path": ((str,), "a str"),
    "raw_path": ((bytes, str), "bytes"),
    "root_path": ((str,), "a str"),
    "query_string": ((bytes,), "bytes"),
    "extensions": ((Mapping,), "a dict"),
}


def fault_of_scope(scope: object) -> ServerProtocolError | None:
    """Return what to raise for a scope that could not be translated; ``None`` if all its types are right."""
    if not isinstance(scope, Mapping):
        return ServerProtocolError(
            f'The server called the app with a scope of type {type(scope).__name__}. ASGI HTTP 2.5, "HTTP Connection '
            'Scope", requires a dict. Fix the server, or the middleware that made it.'
        )
    members = cast("Mapping[str, object]", scope)
    for key, (types, wanted) in _SCOPE_TYPES.items():
        value = members.get(key)
        if value is not None and not isinstance(value, types) and not _is_empty(value):
            return _wrong_in_scope(key, value, wanted)
    for key in ("server", "client"):
        pair = members.get(key)
        if pair is not None and not _is_pair(pair):
            return _wrong_in_scope(key, pair, "a host and a port")
    return None


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(cast("Sequence[object]", value)) > 1


def _is_empty(value: object) -> bool:
    return isinstance(value, str | bytes) and not value  # as good as an absent key


def _wrong_in_scope(key: str, value: object, wanted: str) -> ServerProtocolError:
    kind = type(value).__name__
    held = f" and length {len(cast('Sequence[object]', value))}" if isinstance(value, tuple | list) else ""
    return ServerProtocolError(
        f"The server's scope has {key!r} of type {kind}{held}. ASGI HTTP 2.5, \"HTTP Connection "
        f'Scope", requires {wanted}. Fix the server, or the middleware that set it.'
    )
