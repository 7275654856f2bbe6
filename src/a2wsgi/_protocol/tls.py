"""What a server tells of TLS, in each direction: ASGI's extension ``tls``, and the variables of Apache's mod_ssl.

*Facts*

- PEP 3333, "environ Variables": a server should provide the variables of Apache's mod_ssl. Most of these have one word
  in ASGI:

  ==========================  ===================================================================================
  ``SSL_PROTOCOL``            ``tls_version``: ``TLSv1.3`` and 0x0304 (RFC 8446 §4.2.1)
  ``SSL_CIPHER``              ``cipher_suite``: OpenSSL's name, and the number (`cipher_suites`)
  ``SSL_SERVER_CERT``         ``server_cert``: PEM
  ``SSL_CLIENT_CERT``         the first of ``client_cert_chain``: PEM
  ``SSL_CLIENT_CERT_CHAIN_n`` the others of it, from 0 up
  ``SSL_CLIENT_S_DN``         ``client_cert_name``: the subject of the first, as RFC 4514 has it
  ``SSL_CLIENT_VERIFY``       ``client_cert_error``: ``NONE``, ``SUCCESS``, ``GENEROUS`` or ``FAILED:reason``
  ==========================  ===================================================================================

- ``GENEROUS`` is said of a certificate that Apache has not verified at all. ASGI's only word for that is an error.
- mod_ssl says the certificates if it has the option ``ExportCertData``, and empty strings for those that are not there.
  uWSGI's own router has the client's as DER in ``HTTPS_CLIENT_CERTIFICATE``. nginx begins each line but the first with
  a tab in ``$ssl_client_cert``, and quotes ``$ssl_client_escaped_cert`` as a URL.
- The name is a text in ASGI. In an environ it is UTF-8, in a native string (PEP 3333, "Unicode Issues").
- ASGI TLS 0.2: the extension is there if, and only if, the server can tell something of a TLS connection.
- None of this comes from a header: all that a client can send begins with ``HTTP_`` in an environ.

Specs: ASGI TLS 0.2; PEP 3333; Apache HTTP Server 2.4, mod_ssl; RFC 4514; RFC 8446.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from a2wsgi._errors import ServerProtocolError

from .paths import wsgi_bytes

if TYPE_CHECKING:
    from typing import TypedDict

    from a2wsgi._types import Environ, Scope

    class TLS(TypedDict):
        """ASGI TLS 0.2, "TLS Connection Scope"."""

        server_cert: str | None
        client_cert_chain: list[str]
        client_cert_name: str | None
        client_cert_error: str | None
        tls_version: int | None
        cipher_suite: int | None


#: By this name an ASGI server tells it.
EXTENSION = "tls"
#: One of these is in the environ of a server that can tell anything.
KEYS = (
    "SSL_PROTOCOL",
    "SSL_CIPHER",
    "SSL_SERVER_CERT",
    "SSL_CLIENT_CERT",
    "SSL_CLIENT_S_DN",
    "HTTPS_CLIENT_CERTIFICATE",
)

#: The keys that are read, besides those of the chain.
READ = frozenset({*KEYS, "SSL_CLIENT_VERIFY"})

_CHAIN = "SSL_CLIENT_CERT_CHAIN_"
_VERSIONS = {0x0300: "SSLv3", 0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
_NUMBERS = {name: number for number, name in _VERSIONS.items()} | {"TLSv1.0": 0x0301}


def is_key(key: object) -> bool:
    """Return whether a key of an environ tells something of TLS: a variable of mod_ssl's, or of uWSGI's router."""
    return isinstance(key, str) and key.startswith(("SSL_", "HTTPS"))


# -- From an environ --------------------------------------------------------------------------------------------------


def tls_from_environ(environ: Environ, process: Mapping[str, tuple[str, ...]]) -> TLS | None:
    """Translate what an environ says of TLS.

    Args:
        environ: Of a WSGI server.
        process: The variables of the process that a server may have mixed in, which say nothing of the connection.

    Returns:
        ASGI's extension, with all of its keys; ``None`` if there is nothing to tell.
    """

    def said(key: str) -> str:
        value = environ.get(key)
        return value if isinstance(value, str) and value not in process.get(key, ()) else ""

    if not any(map(said, KEYS)):
        return None
    from .cipher_suites import suite_number  # noqa: PLC0415 - few servers tell of TLS
    from .distinguished_names import is_rfc4514, pem_of, subject_of  # noqa: PLC0415

    client = _pem(said("SSL_CLIENT_CERT")) or pem_of(wsgi_bytes(said("HTTPS_CLIENT_CERTIFICATE")))
    name = said("SSL_CLIENT_S_DN")
    chain = [client] if client else []
    while chain and (part := said(f"{_CHAIN}{len(chain) - 1}")):
        chain.append(_pem(part))
    return {
        "server_cert": _pem(said("SSL_SERVER_CERT")) or None,
        "client_cert_chain": list(dict.fromkeys(chain)),  # some servers repeat the first
        "client_cert_name": subject_of(client) or (_text_of(name) if is_rfc4514(name) else None),
        "client_cert_error": _error(said("SSL_CLIENT_VERIFY")),
        "tls_version": _NUMBERS.get(said("SSL_PROTOCOL")),
        "cipher_suite": suite_number(said("SSL_CIPHER")),
    }


def _pem(value: str) -> str:
    if value.startswith("-----BEGIN%20"):
        from urllib.parse import unquote  # noqa: PLC0415 - it takes 2 ms to import, and nginx alone quotes

        value = unquote(value)
    return value.replace("\n\t", "\n")


def _text_of(value: str) -> str:
    return wsgi_bytes(value).decode("utf-8", "replace")


def _error(verify: str) -> str | None:
    if verify in {"", "NONE", "SUCCESS"}:
        return None
    reason = verify.removeprefix("FAILED").removeprefix(":") if verify.startswith("FAILED") else verify
    return reason or verify


# -- From a scope -----------------------------------------------------------------------------------------------------


def environ_from_tls(scope: Scope) -> dict[str, str]:
    """Translate the extension of a scope that has it. A chain that can be read only once is replaced in the scope.

    Raises:
        ServerProtocolError: A member has the wrong type.
    """
    from .cipher_suites import suite_name  # noqa: PLC0415 - as in tls_from_environ()

    tls: Any = scope["extensions"][EXTENSION]
    if not isinstance(tls, Mapping):
        raise _wrong("the extension", tls, "a dict")
    members = cast("Mapping[str, object]", tls)
    chain = _chain(members)
    if not isinstance(members.get("client_cert_chain"), list | tuple | None):
        scope["extensions"] = {**scope["extensions"], EXTENSION: {**members, "client_cert_chain": chain}}
    name, error = _text(members, "client_cert_name"), _text(members, "client_cert_error")
    said = {
        "HTTPS": "on",
        "SSL_PROTOCOL": _VERSIONS.get(_number(members, "tls_version"), ""),
        "SSL_CIPHER": suite_name(_number(members, "cipher_suite")) or "",
        "SSL_SERVER_CERT": _text(members, "server_cert"),
        "SSL_CLIENT_CERT": chain[0] if chain else "",
        "SSL_CLIENT_S_DN": name.encode("utf-8", "replace").decode("latin-1"),
        "SSL_CLIENT_VERIFY": f"FAILED:{error}" if error else "SUCCESS" if chain or name else "NONE",
    }
    said |= {f"{_CHAIN}{number}": pem for number, pem in enumerate(chain[1:])}
    return {key: value for key, value in said.items() if value}


def _chain(members: Mapping[str, object]) -> list[str]:
    chain = members.get("client_cert_chain")
    if isinstance(chain, (str, bytes)) or not isinstance(chain, Iterable | None):
        raise _wrong("'client_cert_chain'", chain, "an iterable of strings")
    found = list(cast("Iterable[object]", chain or ()))
    for pem in found:
        if not isinstance(pem, str):
            raise _wrong("a certificate in 'client_cert_chain'", pem, "a str")
    return cast("list[str]", found)


def _text(members: Mapping[str, object], key: str) -> str:
    value = members.get(key)
    if not isinstance(value, str | None):
        raise _wrong(repr(key), value, "a str or None")
    return value or ""


def _number(members: Mapping[str, object], key: str) -> int:
    value = members.get(key)
    if not isinstance(value, int | None):
        raise _wrong(repr(key), value, "an int or None")
    return -1 if value is None else value


def _wrong(what: str, value: object, wanted: str) -> ServerProtocolError:
    return ServerProtocolError(
        f"The server's scope has the extension 'tls', and in it {what} of type {type(value).__name__}. ASGI TLS 0.2, "
        f'"TLS Connection Scope", requires {wanted}. Fix the server, or the middleware that set it.'
    )
