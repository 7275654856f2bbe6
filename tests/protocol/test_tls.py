"""What is told of TLS, in each direction: one test a rule."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from a2wsgi._errors import ServerProtocolError
from a2wsgi._protocol.cipher_suites import suite_name, suite_number
from a2wsgi._protocol.environ import environ_from_scope
from a2wsgi._protocol.scope import process_headers, scope_from_environ
from support.asgi_driver import http_scope
from support.wsgi_driver import environ_of

CLIENT, INTERMEDIATE, SERVER = ("client's", "intermediate", "server's")

#: What Apache says with +StdEnvVars +ExportCertData, in part, and the same in ASGI's words.
SAID = {
    "HTTPS": "on",
    "SSL_PROTOCOL": "TLSv1.3",
    "SSL_CIPHER": "TLS_AES_256_GCM_SHA384",
    "SSL_SERVER_CERT": SERVER,
    "SSL_CLIENT_CERT": CLIENT,
    "SSL_CLIENT_CERT_CHAIN_0": INTERMEDIATE,
    "SSL_CLIENT_S_DN": "CN=client,O=Example\\, Inc.,C=DE",
    "SSL_CLIENT_VERIFY": "SUCCESS",
}
TOLD = {
    "server_cert": SERVER,
    "client_cert_chain": [CLIENT, INTERMEDIATE],
    "client_cert_name": "CN=client,O=Example\\, Inc.,C=DE",
    "client_cert_error": None,
    "tls_version": 0x0304,
    "cipher_suite": 0x1302,
}
NOTHING = dict.fromkeys(TOLD) | {"client_cert_chain": []}


def told(**said: Any) -> Any:
    """ASGI's extension, of an environ with these; None without one."""
    return scope_from_environ({**environ_of(), **said})["extensions"].get("tls")


def said(**told: Any) -> dict[str, str]:
    """What an environ says of TLS, of a scope whose extension has these besides what it must have."""
    environ = environ_from_scope(http_scope(extensions={"tls": {**NOTHING, **told}}))
    return {key: value for key, value in environ.items() if key.startswith(("SSL", "HTTPS"))}


# -- From a WSGI server -----------------------------------------------------------------------------------------------


def test_everything_that_a_server_tells_is_told() -> None:
    """ASGI TLS 0.2, "TLS Connection Scope"."""
    assert told(**SAID) == TOLD


def test_plain_connection_has_no_extension() -> None:
    """ASGI TLS 0.2: "the ASGI server is forbidden from providing this extension"."""
    assert told() is None


def test_server_that_tells_nothing_but_https_has_no_extension() -> None:
    """An app would take it for one that can tell of certificates."""
    assert told(HTTPS="on", wsgi__url_scheme="https") is None
    assert told(**dict.fromkeys(SAID, "")) is None


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SSLv3", 0x0300),
        ("TLSv1", 0x0301),
        ("TLSv1.0", 0x0301),
        ("TLSv1.1", 0x0302),
        ("TLSv1.2", 0x0303),
        ("TLSv1.3", 0x0304),
        ("TLSv9", None),
    ],
)
def test_version_is_its_number(name: str, number: int | None) -> None:
    """RFC 8446 §4.2.1."""
    assert told(SSL_PROTOCOL=name) == {**NOTHING, "tls_version": number}


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("ECDHE-RSA-AES128-GCM-SHA256", 0xC02F),
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0xC02F),
        ("TLS_AES_128_GCM_SHA256", 0x1301),
        ("DES-CBC3-SHA", 0x000A),
        ("NO-SUCH-SUITE", None),
    ],
)
def test_cipher_suite_is_its_number_by_either_name(name: str, number: int | None) -> None:
    """RFC 8446 §B.4; OpenSSL, ciphers(1)."""
    assert told(SSL_CIPHER=name) == {**NOTHING, "cipher_suite": number}


def test_cipher_suites_are_those_of_this_openssl() -> None:
    """Each that Python's ``ssl`` can use has its number."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    suites = {suite["name"]: suite["id"] & 0xFFFF for suite in context.get_ciphers()}
    assert len(suites) > 50
    assert {name: suite_number(name) for name in suites} == suites
    assert {number: suite_name(number) for number in suites.values()} == {
        number: name for name, number in suites.items()
    }


@pytest.mark.parametrize(
    ("verify", "error"),
    [
        ("SUCCESS", None),
        ("NONE", None),
        ("FAILED:certificate has expired", "certificate has expired"),
        ("FAILED:", "FAILED:"),
        ("FAILED", "FAILED"),
        ("GENEROUS", "GENEROUS"),
    ],
)
def test_certificate_that_was_not_verified_is_an_error(verify: str, error: str | None) -> None:
    """mod_ssl, ``optional_no_ca``: an app that looks at the error alone must not trust such a client."""
    assert told(SSL_CLIENT_CERT=CLIENT, SSL_CLIENT_VERIFY=verify)["client_cert_error"] == error


@pytest.mark.parametrize("dn", ["/C=DE/O=Example, Inc./CN=client", "client", ""])
def test_name_that_is_not_of_rfc_4514_is_not_told(dn: str) -> None:
    """The older "/O=x/CN=admin" may be the name of either: OpenSSL once escaped nothing."""
    assert told(SSL_PROTOCOL="TLSv1.3", SSL_CLIENT_S_DN=dn)["client_cert_name"] is None


def test_name_is_a_text() -> None:
    """In an environ it is UTF-8, in a native string (PEP 3333, "Unicode Issues")."""
    assert told(SSL_CLIENT_S_DN="CN=cli\xc3\xa9nt")["client_cert_name"] == "CN=cliént"


def test_certificate_of_nginx_is_pem() -> None:
    """``$ssl_client_cert`` has a tab at each line but the first; ``$ssl_client_escaped_cert`` is quoted."""
    pem = "-----BEGIN CERTIFICATE-----\nMIIB+w==\n-----END CERTIFICATE-----\n"
    quoted = "-----BEGIN%20CERTIFICATE-----%0AMIIB%2Bw%3D%3D%0A-----END%20CERTIFICATE-----%0A"
    tabbed = pem.strip().replace("\n", "\n\t")
    assert told(SSL_CLIENT_CERT=tabbed)["client_cert_chain"] == [pem.strip()]
    assert told(SSL_CLIENT_CERT=quoted)["client_cert_chain"] == [pem]


def test_certificate_of_uwsgi_is_pem() -> None:
    """Its router gives DER, in a native string."""
    (pem,) = told(HTTPS="on", HTTPS_CLIENT_CERTIFICATE="0\x82\xff" * 30)["client_cert_chain"]
    assert ssl.PEM_cert_to_DER_cert(pem) == b"0\x82\xff" * 30
    assert max(map(len, pem.splitlines())) == 64


def test_certificate_that_stands_in_its_own_chain_is_there_once() -> None:
    """Servers differ in whether they repeat it."""
    chain = {"SSL_CLIENT_CERT_CHAIN_0": CLIENT, "SSL_CLIENT_CERT_CHAIN_1": INTERMEDIATE}
    assert told(SSL_CLIENT_CERT=CLIENT, **chain)["client_cert_chain"] == [CLIENT, INTERMEDIATE]


def test_chain_without_a_certificate_is_none() -> None:
    """Its first member would be taken for the client's."""
    assert told(SSL_PROTOCOL="TLSv1.3", SSL_CLIENT_CERT_CHAIN_0=INTERMEDIATE)["client_cert_chain"] == []


@pytest.mark.parametrize("key", SAID)
def test_header_is_never_taken_for_it(key: str) -> None:
    """A client sends what it likes; all of it begins with HTTP_ in an environ (RFC 3875 §4.1.18)."""
    assert told(**{f"HTTP_{key}": SAID[key]}) is None
    for name in (key, key.replace("_", "-"), key.lower()):
        scope = http_scope(headers=[(name.encode(), b"forged")])
        assert not {each for each in environ_from_scope(scope) if each.startswith(("SSL", "HTTPS"))}


def test_variable_of_the_process_says_nothing_of_the_connection() -> None:
    """Wsgiref and granian mix them in."""
    process = {"SSL_PROTOCOL": "TLSv1.3", "SSL_CLIENT_S_DN": "CN=root", "HOME": "/"}
    found = process_headers(process)
    assert scope_from_environ({**environ_of(), **process}, found)["extensions"] == {}
    scope = scope_from_environ({**environ_of(), **process, "SSL_PROTOCOL": "TLSv1.2"}, found)
    assert scope["extensions"]["tls"] == {**NOTHING, "tls_version": 0x0303}


@pytest.mark.parametrize("value", [None, 5, b"TLSv1.3"])
def test_value_of_another_type_is_none(value: Any) -> None:
    """What a middleware has put there is no reason to fail."""
    assert told(SSL_PROTOCOL=value) is None


# -- From an ASGI server ----------------------------------------------------------------------------------------------


def test_environ_says_all_that_a_server_tells() -> None:
    """PEP 3333, "environ Variables": as Apache says it."""
    assert said(**TOLD) == SAID


def test_environ_of_a_client_without_a_certificate_says_so() -> None:
    """As Apache does."""
    told = {"tls_version": 0x0303, "cipher_suite": 0xC02F}
    cipher = "ECDHE-RSA-AES128-GCM-SHA256"
    assert said(**told) == {
        "HTTPS": "on",
        "SSL_PROTOCOL": "TLSv1.2",
        "SSL_CIPHER": cipher,
        "SSL_CLIENT_VERIFY": "NONE",
    }


def test_environ_says_nothing_of_what_is_not_known() -> None:
    """Neither of members that are None or absent, nor of numbers that nobody has registered."""
    unknown = {"tls_version": 0x9999, "cipher_suite": 0xFFFF}
    nothing = {"HTTPS": "on", "SSL_CLIENT_VERIFY": "NONE"}
    assert said() == said(**unknown) == nothing
    environ = environ_from_scope(http_scope(extensions={"tls": {}}))
    assert {key for key in environ if key.startswith(("SSL", "HTTPS"))} == nothing.keys()


def test_environ_of_a_plain_connection_has_no_such_key() -> None:
    """Whatever other extensions there are."""
    cases: list[dict[str, Any] | None] = [None, {}, {"http.response.push": {}}]
    for extensions in cases:
        environ = environ_from_scope(http_scope(extensions=extensions))
        assert not {key for key in environ if key.startswith(("SSL", "HTTPS"))}


def test_certificate_that_failed_is_said_to_have() -> None:
    """With the reason."""
    failed = said(client_cert_chain=[CLIENT], client_cert_error="certificate has expired")
    assert failed["SSL_CLIENT_VERIFY"] == "FAILED:certificate has expired"


def test_name_is_a_native_string() -> None:
    """PEP 3333, "Unicode Issues"."""
    assert said(client_cert_name="CN=cliént")["SSL_CLIENT_S_DN"] == "CN=cli\xc3\xa9nt"


def test_chain_that_can_be_read_once_is_kept() -> None:
    """An app that looks into ``asgi.scope`` has it, too."""
    extensions = {"tls": {**TOLD, "client_cert_chain": iter([CLIENT, INTERMEDIATE])}}
    scope = http_scope(extensions=extensions)
    environ = environ_from_scope(scope)
    assert (environ["SSL_CLIENT_CERT"], environ["SSL_CLIENT_CERT_CHAIN_0"]) == (CLIENT, INTERMEDIATE)
    assert scope["extensions"]["tls"] == TOLD


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("server_cert", b"x"),
        ("client_cert_chain", "x"),
        ("client_cert_chain", b"x"),
        ("client_cert_chain", 5),
        ("client_cert_chain", [b"x"]),
        ("client_cert_name", 5),
        ("client_cert_error", True),
        ("tls_version", "TLSv1.3"),
        ("cipher_suite", "x"),
    ],
)
def test_member_of_the_wrong_type_is_the_servers_fault(member: str, value: Any) -> None:
    """The error says which, and not what it holds."""
    with pytest.raises(ServerProtocolError, match=r"'tls'.*ASGI TLS 0\.2") as raised:
        said(**{member: value})
    assert member in str(raised.value)


def test_extension_that_is_no_dict_is_the_servers_fault() -> None:
    """As above."""
    with pytest.raises(ServerProtocolError, match="the extension of type list"):
        environ_from_scope(http_scope(extensions={"tls": []}))


def test_translations_are_inverses() -> None:
    """What goes there and back is what it was."""
    assert told(**said(**TOLD)) == TOLD
    assert said(**told(**SAID)) == SAID
