"""The answers that a bridge gives in the app's place: a status and a fixed text.

*Facts*

- 408 closes the connection: the rest of the request might still come, and would be read as the next one (RFC 9110
  §15.5.9). HTTP/2 and later have no such header (RFC 9113 §8.2.2), nor may a WSGI app set it (PEP 3333, "Other HTTP
  Features").
- 503 tells when to come back (RFC 9110 §10.2.3).
- A response to HEAD has no body, and the headers of GET (RFC 9110 §9.3.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2wsgi._protocol.status import status_line

if TYPE_CHECKING:
    from a2wsgi._types import Message, Scope

#: Seconds until a client should try again. Arbitrary: a queue that is full now may have room in a moment.
RETRY_AFTER = b"1"


def refusal(status: int, scope: Scope) -> tuple[Message, Message]:
    """The messages that answer the request of ``scope`` with ``status``, for the server's ``send()``."""
    text = status_line(status).encode() + b"\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
    if status == 503:
        headers.append((b"retry-after", RETRY_AFTER))
    elif status == 408 and str(scope.get("http_version", "1.1")).startswith("1") and "wsgi_environ" not in scope:
        headers.append((b"connection", b"close"))
    body = b"" if scope.get("method") == "HEAD" else text
    start: Message = {"type": "http.response.start", "status": status, "headers": headers}
    return start, {"type": "http.response.body", "body": body, "more_body": False}
