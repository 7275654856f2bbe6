"""The head of a response, translated in each direction.

*Facts*

- A value holds no CR, LF or NUL: they would end the header and begin one of an attacker's choice (RFC 9110 §5.5). Other
  bytes are opaque: they travel as latin-1 (PEP 3333, "Unicode Issues").
- Spaces and tabs around a value are not part of it (RFC 9110 §5.5). Not every server strips them, so they are stripped
  here.
- Hop-by-hop headers are the server's to set. They are dropped, and named so that the caller can log them.
- A response has at most one ``Content-Length``. Repeats that are equal collapse into one; any other is an error of the
  app (RFC 9110 §8.6).

What a name may be stands in `names`, a status in `status`, a length in `framing`.

Specs: PEP 3333, "The start_response() Callable"; ASGI HTTP 2.5, "Response Start"; RFC 9110 (HTTP Semantics).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from a2wsgi._errors import AppProtocolError, BridgeError, InvalidHeader

from .framing import LENGTH, NO_LENGTH_FOR_ASGI, NO_LENGTH_FOR_WSGI, BadRequest, content_length
from .names import HOP_BY_HOP, HOP_BY_HOP_BYTES, TOKEN, Cache
from .status import FORBIDDEN, STATUS_LINES, parse_status, status_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class ASGIResponseHead(NamedTuple):
    """The head of a WSGI app's response, in ASGI's terms.

    Attributes:
        status: The status code.
        headers: Names in lower case, and values, both bytes.
        content_length: What ``Content-Length`` says; ``None`` without one.
        dropped: The names of the hop-by-hop headers that were left out, in lower case, each once.
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
        headers: Names as the app spelled them, and values, both latin-1 strings.
        content_length: What ``Content-Length`` says; ``None`` without one.
        dropped: The names of the hop-by-hop headers that were left out, in lower case, each once.
    """

    status: str
    code: int
    headers: list[tuple[str, str]]
    content_length: int | None
    dropped: tuple[str, ...]


def _sent_name(name: str) -> bytes:
    lower = _token(name).lower()
    return b"" if lower == "content-length" or lower in HOP_BY_HOP else lower.encode()


def _spelled_name(name: bytes) -> str:
    text = _token(name.decode("latin-1"))
    return "" if text.lower() == "content-length" or text.lower() in HOP_BY_HOP else text


def _token(name: str) -> str:
    if not TOKEN.fullmatch(name):
        raise InvalidHeader(f"The response header name {name[:80]!r} is not a token", "RFC 9110 §5.1")
    return name


# The name as ASGI servers want it, and as the app spelled it; empty if it is Content-Length or hop-by-hop.
_SENT_NAMES: Cache[str, bytes] = Cache(_sent_name)
_SPELLED_NAMES: Cache[bytes, str] = Cache(_spelled_name)


def response_head_from_wsgi(status: str, headers: Iterable[tuple[str, str]]) -> ASGIResponseHead:
    """Translate what a WSGI app gave to ``start_response()``.

    Args:
        status: ``"200 OK"``; the reason may be missing.
        headers: Pairs of native strings. PEP 3333 wants a ``list``; any iterable is accepted.

    Raises:
        AppProtocolError: Something has the wrong type, or the status or ``Content-Length`` is malformed.
        InvalidHeader: A name is not a token, or a value or the status cannot be sent as it is.
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
            if not value.isprintable():  # Fast path: one call instead of three for CR, LF and NUL
                _check_value(name, value)
            if lower:
                sent.append((lower, value.strip(" \t").encode("latin-1")))  # RFC 9110 §5.5: no OWS
            elif (low := name.lower()) in HOP_BY_HOP:
                if low not in dropped:  # so `dropped` is never longer than HOP_BY_HOP
                    dropped += (low,)
            elif length is None:
                length = int(value) if LENGTH.fullmatch(value) else _response_length(value)
                sent.append((b"content-length", b"%d" % length))
            else:
                _check_repeat(length, value)
    except UnicodeEncodeError:
        what = f"The value of the response header {name[:80]!r} is not latin-1"
        raise InvalidHeader(what, 'PEP 3333, "Unicode Issues"') from None  # the codec's error would show the value
    except BridgeError:
        raise
    except (TypeError, ValueError, AttributeError) as exc:
        raise _fault_of_pair(item, str) from exc
    if length is not None and code in NO_LENGTH_FOR_ASGI:
        length, sent = None, [pair for pair in sent if pair[0] != b"content-length"]
    return ASGIResponseHead(code, sent, length, dropped)


def response_head_from_asgi(status: int, headers: Iterable[tuple[bytes, bytes]] | None) -> WSGIResponseHead:
    """Translate what an ASGI app sent as ``http.response.start``.

    Args:
        status: The code, of three digits.
        headers: Pairs of bytes, in any iterable, even one that can be read only once. ``None`` means none.

    Raises:
        AppProtocolError: Something has the wrong type, or the status or ``Content-Length`` is malformed.
        InvalidHeader: A name is not a token, or a value cannot be sent as it is.
    """
    # Fast path: `status_line` without a call (benchmarks/in_process.py, "hello").
    line = STATUS_LINES[status] if type(status) is int and status in STATUS_LINES else status_line(status)
    sent, length, dropped = response_headers_from_asgi(headers)
    if length is not None and status in NO_LENGTH_FOR_WSGI:
        length, sent = None, [pair for pair in sent if pair[0].lower() != "content-length"]
    return WSGIResponseHead(line, int(status), sent, length, dropped)


def response_headers_from_asgi(
    headers: Iterable[tuple[bytes, bytes]] | None,
) -> tuple[list[tuple[str, str]], int | None, tuple[str, ...]]:
    """Translate the headers of a response, whatever its status.

    Args:
        headers: Pairs of bytes, in any iterable, even one that can be read only once. ``None`` means none.

    Returns:
        The headers, their ``Content-Length`` and the names that were dropped, as `WSGIResponseHead` has them.

    Raises:
        AppProtocolError: Something has the wrong type, or ``Content-Length`` is malformed.
        InvalidHeader: A name is not a token, or a value cannot be sent as it is.
    """
    sent: list[tuple[str, str]] = []
    length: int | None = None
    dropped: tuple[str, ...] = ()
    item: object = headers
    try:
        for item in headers or ():
            name, value = item
            try:
                spelled, text = _SPELLED_NAMES[name], value.decode("latin-1")
            except (TypeError, ValueError, AttributeError):  # a bytearray cannot be hashed, a memoryview not be decoded
                name, value = _bytes_of_pair(name, value)
                spelled, text = _SPELLED_NAMES[name], value.decode("latin-1")
            if not text.isprintable():
                _check_value(name.decode(), text)
            if spelled:
                sent.append((spelled, text.strip(" \t")))
            elif name.lower() in HOP_BY_HOP_BYTES:
                if (low := name.lower().decode()) not in dropped:  # so `dropped` is never longer than HOP_BY_HOP
                    dropped += (low,)
            elif length is None:
                length = int(text) if LENGTH.fullmatch(text) else _response_length(text)
                sent.append((name.decode(), str(length)))
            else:
                _check_repeat(length, text)
    except BridgeError:
        raise
    except (TypeError, ValueError, AttributeError) as exc:
        raise _fault_of_pair(item, bytes) from exc
    return sent, length, dropped


def _check_value(name: str, value: str) -> None:
    if FORBIDDEN.search(value):
        raise InvalidHeader(f"The value of the response header {name[:80]!r} contains CR, LF or NUL")


def _response_length(value: str) -> int:
    if LENGTH.fullmatch(value):
        return int(value)
    try:
        return content_length((value,)) or 0
    except BadRequest as exc:
        raise AppProtocolError(f"In the app's response, {exc}. Send the body's length in bytes.") from None


def _check_repeat(length: int, value: str) -> None:
    repeat = _response_length(value)
    if repeat != length:
        raise AppProtocolError(
            f"The app's response says Content-Length: {length} and {repeat}. RFC 9110 §8.6 allows one. Send one."
        )


def _bytes_of_pair(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return bytes(memoryview(name)), bytes(memoryview(value))  # raises TypeError for a str or an int


def _fault_of_pair(item: object, wanted: type) -> AppProtocolError:
    """Return what to raise for headers that could not be translated. The message never shows a value."""
    what, kind = "headers that hold something", type(item).__name__
    if isinstance(item, (tuple, list)) and len(pair := cast("Sequence[object]", item)) == 2:
        name, value = pair
        what, kind = "a header name", type(name).__name__
        if isinstance(name, wanted):
            what, kind = f"the header {name!r:.80} with a value", type(value).__name__
    spec, fix = 'ASGI HTTP 2.5, "Response Start",', 'Make each bytes: value.encode("latin-1").'
    if wanted is str:
        spec, fix = 'PEP 3333, "The start_response() Callable",', 'Make each a str: value.decode("latin-1"), str(5).'
    return AppProtocolError(
        f"The app's response has {what} of type {kind}. {spec} requires pairs of {wanted.__name__}. {fix}"
    )
