"""Early hints, translated in each direction.

*Facts*

- A hint is a response of its own, with the status 103, before the final one (RFC 8297 §2). A client of HTTP/1.0 must
  not be sent any (RFC 9110 §15.2).
- ASGI's hint is a message with the values of ``Link`` headers, and has no other header (ASGI, "Early Hints"). WSGI's is
  gunicorn's: ``environ["wsgi.early_hints"]``, called with pairs of a name and a value, each ``str`` or ``bytes``. So of
  a WSGI app's hint only the ``Link`` headers go on. The others are checked, and left out.
- A name is a token, and a value holds no CR, LF or NUL, as in the head of a response (RFC 9110 §5.1, §5.5).
- Hints are advice. A hint without a ``Link`` says nothing, and is not sent.

Specs: RFC 8297 (Early Hints); RFC 9110 (HTTP Semantics); ASGI, "Extensions".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from a2wsgi._errors import AppProtocolError, BridgeError, InvalidHeader

from .names import TOKEN
from .status import FORBIDDEN

if TYPE_CHECKING:
    from collections.abc import Iterable

#: By this name an ASGI server offers hints, and an app sends one.
EXTENSION = "http.response.early_hint"
#: By this key a WSGI server offers its callable.
KEY = "wsgi.early_hints"


def links_from_wsgi(headers: Iterable[tuple[str | bytes, str | bytes]]) -> list[bytes]:
    """Translate what a WSGI app gave to ``environ["wsgi.early_hints"]``: the values of its ``Link`` headers.

    Raises:
        AppProtocolError: Something is not a pair, or is neither ``str`` nor ``bytes``.
        InvalidHeader: A name is not a token, or a value cannot be sent as it is.
    """
    links: list[bytes] = []
    try:
        for name, value in headers:
            text = _text(name)
            if not TOKEN.fullmatch(text):
                raise InvalidHeader(f"The early hint's header name {text[:80]!r} is not a token", "RFC 9110 §5.1")
            sent = _value(text, value)
            if sent and text.lower() == "link":
                links.append(sent)
    except (TypeError, ValueError) as error:
        if isinstance(error, BridgeError):
            raise
        raise AppProtocolError(
            'environ["wsgi.early_hints"] was called with something that is not a list of pairs of strings, as '
            'start_response() takes it. Call it like [("Link", "</style.css>; rel=preload; as=style")].'
        ) from error
    return links


def hint_from_asgi(links: Iterable[bytes]) -> list[tuple[str, str]]:
    """Translate the ``links`` of an ASGI app's hint: what to call a WSGI server's ``wsgi.early_hints`` with.

    Raises:
        AppProtocolError: ``links`` is not an iterable of ``bytes``.
        InvalidHeader: A value cannot be sent as it is.
    """
    try:
        if isinstance(cast("object", links), (str, bytes)):
            raise TypeError  # noqa: TRY301 - as of whatever else is no list
        values = [_value("Link", bytes(memoryview(link))).decode("latin-1") for link in links]
    except TypeError as error:
        raise AppProtocolError(
            f'The ASGI app sent {EXTENSION} with "links" that are not a list of bytes (ASGI, "Early Hints"). Send them '
            'like [b"</style.css>; rel=preload; as=style"].'
        ) from error
    return [("Link", value) for value in values if value]


def _text(part: object) -> str:
    return part if isinstance(part, str) else bytes(memoryview(cast("bytes", part))).decode("latin-1")


def _value(name: str, value: object) -> bytes:
    text = _text(value)
    if FORBIDDEN.search(text):
        raise InvalidHeader(f"The value of the early hint's header {name[:80]!r} contains CR, LF or NUL")
    try:
        return text.strip(" \t").encode("latin-1")  # RFC 9110 §5.5: no OWS
    except UnicodeEncodeError:
        what = f"The value of the early hint's header {name[:80]!r} is not latin-1"
        raise InvalidHeader(what, 'PEP 3333, "Unicode Issues"') from None  # the codec's error would show the value
