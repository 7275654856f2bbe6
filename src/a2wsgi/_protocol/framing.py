"""Body framing: how long a request's body is, whether a response has one, how long it is and how much of it is sent.

*Facts*

- ``Content-Length`` is digits. Several that are equal count as one; anything else is an error (RFC 9110 §8.6). Whoever
  reads such a request differently from the server before it sees a different request: that is request smuggling.
- A request's body is still coded after its server has removed the chunks if its ``Transfer-Encoding`` names another
  coding, such as ``gzip, chunked`` (RFC 9112 §7). Then the header must stay, so that the app knows, and no
  ``Content-Length`` may stand beside it (RFC 9112 §6.2).
- A response to HEAD, and one with 204 or 304, has no body, whatever the app gives (RFC 9110 §9.3.2, §15.3.5, §15.4.5).
  Eight WSGI servers would put one on the wire, where the client takes it for the next response.
- HEAD has the headers that GET would have, including ``Content-Length`` where it is known (RFC 9110 §9.3.2).
- A 204 has no ``Content-Length``, not even 0 (RFC 9110 §8.6). A 304 may say how long the body would have been, but
  uvicorn with httptools then waits for that body and closes the connection; so on its way to an ASGI server a 304 loses
  it. We add one to neither.
- A body ends where its ``Content-Length`` says. Any bytes after that would be read as the next response. A body that
  ends early is an error, since the client cannot tell it from a broken connection (RFC 9112 §6.3, §8).

Specs: RFC 9110 (HTTP Semantics); RFC 9112 (HTTP/1.1); PEP 3333, "Handling the Content-Length Header".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: RFC 9110 §8.6: 1*DIGIT. The bound is h11's: enough for any body, and little work for int().
LENGTH = re.compile(r"[0-9]{1,20}")

#: The statuses whose ``Content-Length`` is not passed on: to a WSGI server, and to an ASGI server.
NO_LENGTH_FOR_WSGI = frozenset({204})
NO_LENGTH_FOR_ASGI = frozenset({204, 304})


class BadRequest(ValueError):  # noqa: N818  # never leaves a bridge; named after the answer
    """The client's request is malformed. Whoever catches this answers 400 (RFC 9110 §15.5.1)."""


# -- Requests ---------------------------------------------------------------------------------------------------------


def content_length(values: Iterable[bytes | str]) -> int | None:
    """Return what the ``Content-Length`` headers of a request say; ``None`` if there are none.

    Args:
        values: The header's values, in any number; each may be a list (``5, 5``).

    Raises:
        BadRequest: A value is not a number, or two differ (RFC 9110 §8.6, RFC 9112 §6.3). Answer 400.
    """
    length: int | None = None
    for value in values:
        text = value if isinstance(value, str) else value.decode("latin-1")
        for member in text.split(","):
            digits = member.strip(" \t")
            if not LENGTH.fullmatch(digits):
                raise BadRequest(f"Content-Length is not a number: {text[:40]!r} (RFC 9110 §8.6)")
            if length is None:
                length = int(digits)
            elif length != int(digits):
                raise BadRequest(f"Content-Length is said to be both {length} and {int(digits)} (RFC 9112 §6.3)")
    return length


def leaves_a_coding(transfer_encoding: object) -> bool:
    """Return whether a request's body is still coded once its server has removed the chunks (RFC 9112 §7.1).

    Args:
        transfer_encoding: The value of ``Transfer-Encoding``; anything but a ``str`` counts as absent.
    """
    if not isinstance(transfer_encoding, str):
        return False
    codings = {coding.strip(" \t").lower() for coding in transfer_encoding.split(",")}
    return not codings <= {"chunked", "identity", ""}  # "identity" is RFC 2616's word for no coding


# -- Responses --------------------------------------------------------------------------------------------------------


class Framing:
    """How one response is framed, from its head to the end of its body.

    Args:
        method: The request's method.
        status: The response's status code.
        content_length: What the app's ``Content-Length`` says, in bytes; None without one.

    Attributes:
        bodiless: The response has no body, whatever the app gives.
        content_length: As given.
        remaining: How many bytes the body may still have; None if no length limits it.
        status: As given.

    Threading: one thread at a time.
    """

    __slots__ = ("bodiless", "content_length", "remaining", "status")

    def __init__(self, method: str, status: int, content_length: int | None) -> None:
        self.status = status
        self.bodiless = method == "HEAD" or status in (204, 304)  # RFC 9110 §9.3.2, §15.3.5, §15.4.5
        self.content_length = content_length
        self.remaining = 0 if self.bodiless else content_length

    def cut(self, chunk: bytes) -> bytes:
        """Return the part of ``chunk`` that still belongs to the body, and count it."""
        remaining = self.remaining
        if remaining is None:
            return chunk
        chunk = chunk[:remaining]
        self.remaining = remaining - len(chunk)
        return chunk

    def length_to_add(self, body_bytes: int | None) -> int | None:
        """Return the ``Content-Length`` to add to a head that has none; None if there is nothing to add.

        Args:
            body_bytes: The length of the whole body that the app gave, hidden or not; None if it is not known.
        """
        if self.content_length is not None or body_bytes is None or self.status in (204, 304):
            return None
        # An app may leave the body out for HEAD, so 0 says nothing about the body that GET would have.
        return (body_bytes or None) if self.bodiless else body_bytes
