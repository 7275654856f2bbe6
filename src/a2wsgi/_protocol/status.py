"""Status codes and status lines.

*Facts*

- A WSGI status is three digits, a space and a reason phrase (PEP 3333, "The start_response() Callable"). Apps leave out
  the reason, or the space as well; RFC 9112 §4 lets the reason be empty. An ASGI status is an ``int``.
- Some WSGI servers fail if there is no reason phrase (wsgiref, Tornado, Twisted). ``http.HTTPStatus`` has other phrases
  in other versions of Python, so the table is here.
- A code need not be registered: any of three digits is valid (RFC 9110 §15).
- A final status is 200 or above. A 1xx is interim: the client goes on waiting, and would take the next response on the
  connection for the answer to this request (RFC 9110 §15.2). So a 1xx as the final status is an error of the app.
- A status line holds no CR, LF or NUL: they would end it and begin a header of an attacker's choice (RFC 9112 §4).

Specs: RFC 9110 (HTTP Semantics); RFC 9112 (HTTP/1.1); PEP 3333; ASGI HTTP 2.5.
"""

from __future__ import annotations

import re

from a2wsgi._errors import AppProtocolError, InvalidHeader

from .names import Cache

#: RFC 9110 §5.5, RFC 9112 §4: what neither a status nor a header's value may contain.
FORBIDDEN = re.compile(r"[\r\n\0]")
# RFC 9112 §4: 3DIGIT, and a reason phrase that may be empty. PEP 3333 wants the space; apps leave it out.
_STATUS = re.compile(r"([1-9][0-9]{2})(?: .*)?", re.DOTALL)

# The phrases of RFC 9110, which renamed 413, 414, 416 and 422; before Python 3.13 http.HTTPStatus has the old ones.
_PHRASES = {
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
#: The status line of each registered code from 200 up.
STATUS_LINES = {code: f"{code} {phrase}" for code, phrase in _PHRASES.items()}

_FINAL = 200
_INTERIM = (
    "RFC 9110 §15.2: a status below 200 is not the final one. The client would go on waiting, and take the next "
    "response on its connection for the answer to this request."
)


def _parse_status(status: object) -> int:
    if not isinstance(status, str):
        raise AppProtocolError(
            f'start_response() was given a status of type {type(status).__name__}. PEP 3333, "The start_response() '
            'Callable", requires a str. Pass one like "200 OK".'
        )
    if FORBIDDEN.search(status):
        raise InvalidHeader("The status contains CR, LF or NUL", "RFC 9112 §4")
    match = _STATUS.fullmatch(status)
    if match is None:
        raise AppProtocolError(
            f'start_response() was given the status {status[:80]!r}. PEP 3333, "The start_response() Callable", '
            'requires three digits, a space and a reason. Pass one like "200 OK".'
        )
    code = int(match[1])
    if code < _FINAL:
        raise AppProtocolError(
            f"start_response() was given the status {status[:80]!r}. {_INTERIM} Pass a final status, 200 or above."
        )
    return code


_STATUS_CODES: Cache[str, int] = Cache(_parse_status)


def parse_status(status: str) -> int:
    """Return the code of a WSGI app's status. The reason may be missing (``"204"``), and any code will do from 200 up.

    Raises:
        AppProtocolError: The status is not a ``str``, or is not three digits, alone or followed by a space, or is below
            200.
        InvalidHeader: The status contains CR, LF or NUL.
    """
    try:
        return _STATUS_CODES[status]
    except TypeError:  # it cannot be hashed: a list, say
        return _parse_status(status)


def _odd_status_line(code: object) -> str:
    if not isinstance(code, int) or isinstance(code, bool) or not 100 <= code <= 999:
        raise AppProtocolError(
            f"The app sent http.response.start with the status {str(code)[:80]!r} of type {type(code).__name__}. ASGI "
            'HTTP 2.5, "Response Start", requires an int, and RFC 9112 §4 three digits. Send one like 200.'
        )
    if code < _FINAL:
        raise AppProtocolError(
            f"The app sent http.response.start with the status {int(code)}. {_INTERIM} Send a final status, 200 or "
            'above. Early hints go in http.response.early_hint, where scope["extensions"] has it.'
        )
    # An http.HTTPStatus is an int, too. PEP 3333, "The start_response() Callable", wants a reason phrase.
    return STATUS_LINES.get(code) or f"{int(code)} Unknown Status Code"


def status_line(code: int) -> str:
    """Return the WSGI status of an ASGI status code.

    Raises:
        AppProtocolError: The code is not an ``int`` (a ``bool`` does not count as one), does not have three digits, or
            is below 200.
    """
    return STATUS_LINES[code] if type(code) is int and code in STATUS_LINES else _odd_status_line(code)
