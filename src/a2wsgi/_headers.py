"""What a header, a status and a length may be, in each direction.

*Facts*

- A field name is a token, in any letter case (RFC 9110 §5.1, §5.6.2). ASGI names are bytes in lower case; an environ
  spells them ``HTTP_X_NAME``, after RFC 3875 §4.1.18 (PEP 3333, "environ Variables").
- That spelling loses the difference between ``X-Name`` and ``X_Name``: the second could forge the first behind a proxy
  that only knows hyphens. And ``Proxy`` would become ``HTTP_PROXY``, which clients read as their own setting (httpoxy,
  CVE-2016-5385). Both are dropped.
- A value holds no CR, LF or NUL: they would end the header, and start one of an attacker's (RFC 9110 §5.5). Other bytes
  are opaque: they travel as latin-1 (PEP 3333, "Unicode Issues").
- Hop-by-hop headers belong to the server's connection. A WSGI app must not send them (PEP 3333, "Other HTTP
  Features"), ASGI servers frame the body themselves: they are dropped, and named so that the caller can log them.
- ``Content-Length`` is digits. Repeats that say the same count as one; any other are an error (RFC 9110 §8.6).
- A response to HEAD, and one with 1xx, 204 or 304, has no body (RFC 9110 §6.4.1); 1xx and 204 no ``Content-Length``.

Specs: PEP 3333; ASGI HTTP 2.5; RFC 9110 (HTTP Semantics); RFC 9112 (HTTP/1.1); RFC 3875 (CGI).

The tables of names are caches: a name is looked at once, and found ever after. They are bounded, since clients choose
names. Any thread may use them: each step is one atomic operation on a dict, and a lost race costs a second look.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from ._errors import AppProtocolError, BridgeError, InvalidHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_K = TypeVar("_K", bound="str | bytes")
_V = TypeVar("_V")

# RFC 9110 §5.6.2
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110 §5.5: what must never be in a value.
_FORBIDDEN = re.compile(r"[\r\n\0]")
# RFC 9110 §8.6: 1*DIGIT. The bound is h11's: enough for any body, and no work for int().
_LENGTH = re.compile(r"[0-9]{1,20}")
# RFC 9112 §4: 3DIGIT, and a reason phrase that may be empty. PEP 3333 wants the space; apps leave it out.
_STATUS = re.compile(r"([1-9][0-9]{2})(?: .*)?", re.DOTALL)

# RFC 9110 §7.6.1 and RFC 2616 §13.5.1, which PEP 3333 refers to. "trailers" is a slip of the latter that wsgiref keeps.
HOP_BY_HOP = frozenset({
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
})  # fmt: skip
HOP_BY_HOP_BYTES = frozenset(name.encode() for name in HOP_BY_HOP)

# The names of http.HTTPStatus, frozen: they differ between versions of Python (RFC 9110 renamed 413, 414, 416 and 422).
_PHRASES = {
    100: "Continue",
    101: "Switching Protocols",
    102: "Processing",
    103: "Early Hints",
    200: "OK",
    201: "Created",
    202: "Accepted",
    203: "Non-Authoritative Information",
    204: "No Content",
    205: "Reset Content",
    206: "Partial Content",
    207: "Multi-Status",
    208: "Already Reported",
    226: "IM Used",
    300: "Multiple Choices",
    301: "Moved Permanently",
    302: "Found",
    303: "See Other",
    304: "Not Modified",
    305: "Use Proxy",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    411: "Length Required",
    412: "Precondition Failed",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    416: "Range Not Satisfiable",
    417: "Expectation Failed",
    418: "I'm a Teapot",
    421: "Misdirected Request",
    422: "Unprocessable Content",
    423: "Locked",
    424: "Failed Dependency",
    425: "Too Early",
    426: "Upgrade Required",
    428: "Precondition Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    451: "Unavailable For Legal Reasons",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
    506: "Variant Also Negotiates",
    507: "Insufficient Storage",
    508: "Loop Detected",
    510: "Not Extended",
    511: "Network Authentication Required",
}
_STATUS_LINES = {code: f"{code} {phrase}" for code, phrase in _PHRASES.items()}


class BadRequest(ValueError):  # noqa: N818  # never leaves a bridge; named for the answer
    """The client's request is malformed: whoever catches this answers 400 (RFC 9110 §15.5.1)."""


class ASGIResponseHead(NamedTuple):
    """The head of a WSGI app's response, in ASGI's terms.

    Attributes:
        status: The status code.
        headers: Names in lower case, and values, both bytes.
        content_length: What ``Content-Length`` says; ``None`` without one.
        dropped: The names of the hop-by-hop headers that were left out, in lower case.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    content_length: int | None
    dropped: tuple[str, ...]


class WSGIResponseHead(NamedTuple):
    """The head of an ASGI app's response, in WSGI's terms.

    Attributes:
        status: The status line, with a reason phrase: ``"200 OK"``.
        code: The status code.
        headers: Names as the app spelt them, and values, both latin-1 strings.
        content_length: What ``Content-Length`` says; ``None`` without one.
        dropped: The names of the hop-by-hop headers that were left out, in lower case.
    """

    status: str
    code: int
    headers: list[tuple[str, str]]
    content_length: int | None
    dropped: tuple[str, ...]


# -- Caches of names --------------------------------------------------------------------------------------------------

# Arbitrary: several times what one site sees, and a few hundred kilobytes at the worst.
_CACHED_NAMES = 1024
_CACHED_NAME_LENGTH = 64


class _Cache(dict[_K, _V]):
    """What ``make`` says of a key. Emptied when full, so that a flood of odd names slows nobody for long."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[_K], _V]) -> None:
        self._make = make

    def __missing__(self, key: _K) -> _V:
        value = self._make(key)
        if len(key) <= _CACHED_NAME_LENGTH:
            if len(self) >= _CACHED_NAMES:
                self.clear()
            self[key] = value
        return value


# -- Request headers --------------------------------------------------------------------------------------------------


def _environ_key(name: bytes) -> str:
    return "" if b"_" in name else _environ_key_with_underscores(name)


def _environ_key_with_underscores(name: bytes) -> str:
    text = name.decode("latin-1")
    if not _TOKEN.fullmatch(text):  # RFC 9110 §5.1: no field has such a name; the server should have refused it
        return ""
    key = text.upper().replace("-", "_")
    if key in {"CONTENT_TYPE", "CONTENT_LENGTH"}:  # RFC 3875 §4.1.2, §4.1.3: without HTTP_. And no twin may forge them.
        return "" if "_" in text else key
    return "" if key == "PROXY" else f"HTTP_{key}"  # CVE-2016-5385 (httpoxy)


# The environ key of a request header's name, in any letter case; "" for a name that is to be dropped.
ENVIRON_KEYS: _Cache[bytes, str] = _Cache(_environ_key)
ENVIRON_KEYS_WITH_UNDERSCORES: _Cache[bytes, str] = _Cache(_environ_key_with_underscores)


def _request_name(key: str) -> bytes:
    if key in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
        return key.lower().replace("_", "-").encode()
    # RFC 3875 §4.1.18: only HTTP_*. The two are servers' copies of the keys above, HTTP_PROXY is no header (httpoxy).
    if not key.startswith("HTTP_") or key in {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_PROXY"}:
        return b""
    name = key[5:]
    return name.lower().replace("_", "-").encode() if _TOKEN.fullmatch(name) else b""


# The name, in lower case, of the request header that an environ key holds; b"" for a key that holds none.
REQUEST_NAMES: _Cache[str, bytes] = _Cache(_request_name)


def content_length(values: Iterable[bytes | str]) -> int | None:
    """Return what the ``Content-Length`` headers of a request say; ``None`` if there are none.

    Args:
        values: The header's values, in any number; each may be a list (``5, 5``).

    Raises:
        BadRequest: One is not a number, or they differ (RFC 9110 §8.6, RFC 9112 §6.3). Answer 400: whoever reads such
            a request in another way than the server did sees another request (smuggling).
    """
    lengths: set[int] = set()
    for value in values:
        text = value if isinstance(value, str) else value.decode("latin-1")
        for member in text.split(","):
            digits = member.strip(" \t")
            if not _LENGTH.fullmatch(digits):
                raise BadRequest(f"Content-Length is not a number: {text[:40]!r} (RFC 9110 §8.6)")
            lengths.add(int(digits))
    if len(lengths) > 1:
        raise BadRequest(f"Content-Length is said to be each of {sorted(lengths)} (RFC 9112 §6.3)")
    return lengths.pop() if lengths else None


# -- Status -----------------------------------------------------------------------------------------------------------


def _parse_status(status: object) -> int:
    if not isinstance(status, str):
        raise AppProtocolError(
            f'start_response() was given a status of type {type(status).__name__}. PEP 3333, "The start_response() '
            'Callable", wants a str. Give it one like "200 OK".'
        )
    if _FORBIDDEN.search(status):
        raise InvalidHeader("The status contains CR, LF or NUL", "RFC 9112 §4")
    match = _STATUS.fullmatch(status)
    if match is None:
        raise AppProtocolError(
            f'start_response() was given the status {status[:80]!r}. PEP 3333, "The start_response() Callable", wants '
            'three digits, a space and a reason. Give it one like "200 OK".'
        )
    return int(match[1])


_STATUS_CODES: _Cache[str, int] = _Cache(_parse_status)


def parse_status(status: str) -> int:
    """Return the code of a WSGI app's status. The reason phrase may be missing (``"204"``), the code unregistered.

    Raises:
        AppProtocolError: It is no ``str``, or does not begin with three digits and then end or go on with a space.
        InvalidHeader: It contains CR, LF or NUL.
    """
    try:
        return _STATUS_CODES[status]
    except TypeError:  # a list, say, which has no hash
        return _parse_status(status)


def _odd_status_line(code: object) -> str:
    if not isinstance(code, int) or isinstance(code, bool) or not 100 <= code <= 999:
        raise AppProtocolError(
            f"The app sent http.response.start with the status {str(code)[:80]!r} of type {type(code).__name__}. ASGI "
            'HTTP 2.5, "Response Start", wants an int, and RFC 9112 §4 three digits. Send one like 200.'
        )
    # PEP 3333, "The start_response() Callable", wants a reason phrase; wsgiref, tornado and twisted fail without one.
    return _STATUS_LINES.get(code) or f"{int(code)} Unknown Status Code"


def status_line(code: int) -> str:
    """Return the WSGI status of an ASGI status code, the same in every version of Python.

    Raises:
        AppProtocolError: It is no ``int`` (a ``bool`` is none here), or not of three digits.
    """
    return _STATUS_LINES[code] if type(code) is int and code in _STATUS_LINES else _odd_status_line(code)


# -- Which responses have a body --------------------------------------------------------------------------------------


def no_body(method: str, status: int) -> bool:
    """Tell whether a response has no body, whatever its headers say."""
    # RFC 9110 §9.3.2, §15.2, §15.3.5, §15.4.5
    return method == "HEAD" or status < 200 or status in {204, 304}


def _no_length(status: int) -> bool:
    # RFC 9110 §8.6: not even a Content-Length of 0. A 304 may say how long the body would have been.
    return status < 200 or status == 204


# -- Response heads ---------------------------------------------------------------------------------------------------


def _sent_name(name: str) -> bytes:
    lower = _token(name).lower()
    return b"" if lower == "content-length" or lower in HOP_BY_HOP else lower.encode()


def _spelt_name(name: bytes) -> str:
    text = _token(name.decode("latin-1"))
    return "" if text.lower() == "content-length" or text.lower() in HOP_BY_HOP else text


def _token(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise InvalidHeader(f"The response header name {name[:80]!r} is not a token", "RFC 9110 §5.1")
    return name


# The name as ASGI servers want it, and as the app spelt it; empty for one that needs a closer look or is dropped.
_SENT_NAMES: _Cache[str, bytes] = _Cache(_sent_name)
_SPELT_NAMES: _Cache[bytes, str] = _Cache(_spelt_name)


def response_head_from_wsgi(status: str, headers: Iterable[tuple[str, str]]) -> ASGIResponseHead:
    """Translate what a WSGI app gave to ``start_response()``.

    Args:
        status: ``"200 OK"``; the reason may be missing.
        headers: Pairs of native strings: a ``list`` in PEP 3333, but any iterable will do.

    Raises:
        AppProtocolError: Something is of a wrong type, or the status or ``Content-Length`` is malformed.
        InvalidHeader: A name is no token, or a value or the status cannot be sent as it is.
    """
    code = parse_status(status)
    sent: list[tuple[bytes, bytes]] = []
    length: int | None = None
    dropped: tuple[str, ...] = ()
    item: object = headers
    name = ""
    try:
        for item in headers:
            name, value = item
            lower = _SENT_NAMES[name]
            if not value.isprintable():  # one call, where CR, LF and NUL would take three
                _check_value(name, value)
            if lower:
                sent.append((lower, value.strip(" \t").encode("latin-1")))  # RFC 9110 §5.5: OWS is not of the value
            elif name.lower() in HOP_BY_HOP:
                dropped += (name.lower(),)
            elif length is None:
                length = _response_length(value)
                sent.append((b"content-length", b"%d" % length))
            else:
                _check_repeat(length, value)
    except UnicodeEncodeError:
        what = f"The value of the response header {name!r} is not latin-1"
        raise InvalidHeader(what, 'PEP 3333, "Unicode Issues"') from None  # the codec's own error shows the value
    except BridgeError:
        raise
    except (TypeError, ValueError, AttributeError) as exc:
        raise _fault_of_pair(item, str) from exc
    if length is not None and _no_length(code):
        length, sent = None, [pair for pair in sent if pair[0] != b"content-length"]
    return ASGIResponseHead(code, sent, length, dropped)


def response_head_from_asgi(status: int, headers: Iterable[tuple[bytes, bytes]] | None) -> WSGIResponseHead:
    """Translate what an ASGI app sent as ``http.response.start``.

    Args:
        status: The code, of three digits.
        headers: Pairs of bytes; any iterable, also one that can be read only once. ``None`` is none.

    Raises:
        AppProtocolError: Something is of a wrong type, or the status or ``Content-Length`` is malformed.
        InvalidHeader: A name is no token, or a value cannot be sent as it is.
    """
    line = status_line(status)
    sent: list[tuple[str, str]] = []
    length: int | None = None
    dropped: tuple[str, ...] = ()
    item: object = headers
    try:
        for item in headers or ():
            name, value = item
            try:
                spelt, text = _SPELT_NAMES[name], value.decode("latin-1")
            except (TypeError, ValueError, AttributeError):  # a bytearray has no hash, a memoryview no decode()
                name, value = _bytes_of_pair(name, value)
                spelt, text = _SPELT_NAMES[name], value.decode("latin-1")
            if not text.isprintable():
                _check_value(name.decode(), text)
            if spelt:
                sent.append((spelt, text.strip(" \t")))
            elif name.lower() in HOP_BY_HOP_BYTES:
                dropped += (name.lower().decode(),)
            elif length is None:
                length = _response_length(text)
                sent.append((name.decode(), str(length)))
            else:
                _check_repeat(length, text)
    except BridgeError:
        raise
    except (TypeError, ValueError, AttributeError) as exc:
        raise _fault_of_pair(item, bytes) from exc
    if length is not None and _no_length(status):
        length, sent = None, [pair for pair in sent if pair[0].lower() != "content-length"]
    return WSGIResponseHead(line, int(status), sent, length, dropped)


def head_taken_back(head: WSGIResponseHead, status: str, names: Iterable[str]) -> WSGIResponseHead:
    """Return the head with what a WSGI app further in gave to ``start_response()``, and ASGI has no word for.

    Args:
        head: As ASGI has it.
        status: The app's, with its reason. Something in between may have answered with another.
        names: The app's headers, as it spelt them.
    """
    spelt = {name.lower(): name for name in names}
    headers = [(spelt.get(name, name), value) for name, value in head.headers]
    return head._replace(status=status if status.startswith(f"{head.code} ") else head.status, headers=headers)


def _check_value(name: str, value: str) -> None:
    if _FORBIDDEN.search(value):
        raise InvalidHeader(f"The value of the response header {name!r} contains CR, LF or NUL")


def _response_length(value: str) -> int:
    if _LENGTH.fullmatch(value):
        return int(value)
    try:
        return content_length((value,)) or 0
    except BadRequest as exc:
        raise AppProtocolError(f"In the app's response, {exc}. Send the number of bytes of the body.") from None


def _check_repeat(length: int, value: str) -> None:
    repeat = _response_length(value)
    if repeat != length:
        raise AppProtocolError(
            f"The app's response says Content-Length: {length} and {repeat}. RFC 9110 §8.6 allows one. Send one."
        )


def _bytes_of_pair(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return bytes(memoryview(name)), bytes(memoryview(value))  # a TypeError for a str or an int


def _fault_of_pair(item: object, wanted: type) -> AppProtocolError:
    """Return what to raise for headers that could not be translated. It never shows a value."""
    what, kind = "headers that hold something", type(item).__name__
    if isinstance(item, (tuple, list)) and len(pair := cast("Sequence[object]", item)) == 2:
        name, value = pair
        what, kind = "a header name", type(name).__name__
        if isinstance(name, wanted):
            what, kind = f"the header {name!r} with a value", type(value).__name__
    spec, mend = 'ASGI HTTP 2.5, "Response Start",', 'Make each bytes: value.encode("latin-1").'
    if wanted is str:
        spec, mend = 'PEP 3333, "The start_response() Callable",', 'Make each a str: value.decode("latin-1"), str(5).'
    return AppProtocolError(
        f"The app's response has {what} of type {kind}. {spec} wants pairs of {wanted.__name__}. {mend}"
    )
