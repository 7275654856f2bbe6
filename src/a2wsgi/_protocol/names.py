"""Header names: what may be one, how each interface spells it, and which belong to the server.

*Facts*

- A header name is a token, in any letter case (RFC 9110 §5.1, §5.6.2). ASGI has it as bytes in lower case; an environ
  has it as ``HTTP_X_NAME`` (RFC 3875 §4.1.18; PEP 3333, "environ Variables").
- The environ's spelling cannot tell ``X-Name`` from ``X_Name``. A client could use the second to forge the first behind
  a proxy that only filters names with hyphens, so names with underscores are dropped.
- ``Proxy`` would become ``HTTP_PROXY``, which HTTP clients read as their own setting (httpoxy, CVE-2016-5385). It is
  always dropped.
- Hop-by-hop headers belong to the server's connection. A WSGI app must not send them (PEP 3333, "Other HTTP Features"),
  and ASGI servers frame the body themselves.

The tables are caches: a name is examined once and looked up from then on. They are bounded, since clients choose names.
Any thread may use them: each step is a single operation on a dict whose keys are bytes or text, and needs no lock, with
a GIL or without one (Python's docs, "Thread Safety Guarantees", "dict objects"). A thread that loses a race examines
the name again.

Specs: RFC 9110 (HTTP Semantics); RFC 3875 (CGI); PEP 3333; ASGI HTTP 2.5.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_K = TypeVar("_K", bound="str | bytes")
_V = TypeVar("_V")

#: RFC 9110 §5.6.2
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

# RFC 9110 §7.6.1, and RFC 2616 §13.5.1, which PEP 3333 refers to. "trailers" is an error of the latter that wsgiref has
# kept.
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

#: Arbitrary: several times as many names as one site sees, and a few hundred kilobytes at worst.
MAX_CACHED = 1024
MAX_CACHED_LENGTH = 64


class Cache(dict[_K, _V]):
    """Maps each key to ``make(key)``, which is called once a key.

    A full cache is emptied, so that a flood of odd names slows nobody down for long. Long keys are not kept, nor are
    those of a subclass, which may have attributes of any size.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[_K], _V]) -> None:
        self._make = make

    def __missing__(self, key: _K) -> _V:
        value = self._make(key)
        if (type(key) is str or type(key) is bytes) and len(key) <= MAX_CACHED_LENGTH:
            if len(self) >= MAX_CACHED:
                self.clear()
            self[key] = value
        return value


# -- Names of request headers -----------------------------------------------------------------------------------------


def _environ_key(name: bytes) -> str:
    return "" if b"_" in name else _environ_key_with_underscores(name)


def _environ_key_with_underscores(name: bytes) -> str:
    text = name.decode("latin-1")
    if not TOKEN.fullmatch(text):  # RFC 9110 §5.1: no header has such a name; the server should have refused it
        return ""
    key = text.upper().replace("-", "_")
    if key in {"CONTENT_TYPE", "CONTENT_LENGTH"}:  # RFC 3875 §4.1.2, §4.1.3: these two have no HTTP_
        return "" if "_" in text else key  # Content_Length must not forge Content-Length
    return "" if key == "PROXY" else f"HTTP_{key}"  # CVE-2016-5385 (httpoxy)


#: The environ key of a request header, by its name in any letter case; "" for a name that must be dropped.
ENVIRON_KEYS: Cache[bytes, str] = Cache(_environ_key)
ENVIRON_KEYS_WITH_UNDERSCORES: Cache[bytes, str] = Cache(_environ_key_with_underscores)


def _request_name(key: str) -> bytes:
    if key in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
        return key.lower().replace("_", "-").encode()
    # RFC 3875 §4.1.18: all others begin with HTTP_. Some servers copy the two above to HTTP_ keys as well, and
    # HTTP_PROXY is not a header (httpoxy).
    if not key.startswith("HTTP_") or key in {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_PROXY"}:
        return b""
    name = key[5:]
    return name.lower().replace("_", "-").encode() if TOKEN.fullmatch(name) else b""


#: The name, in lower case, of the request header that an environ key holds; b"" for a key that holds none.
REQUEST_NAMES: Cache[str, bytes] = Cache(_request_name)
