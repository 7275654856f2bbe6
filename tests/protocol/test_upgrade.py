"""The handshake: what is one, how it is answered or refused, and the one that a WSGI app is shown."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2wsgi._errors import AppProtocolError, InvalidHeader
from a2wsgi._protocol.upgrade import (
    Handshake,
    Head101,
    Refusal,
    accept_token,
    check_handshake,
    environ_of_handshake,
    head_101,
    is_handshake,
    refusal,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def environ_with(**changes: str | None) -> dict[str, Any]:
    """The environ of a browser's handshake; ``None`` takes a key out."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "80",
        "HTTP_HOST": "example.org",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": KEY,
    }
    environ.update(changes)
    return {key: value for key, value in environ.items() if value is not None}


# -- Which request is a handshake -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"HTTP_UPGRADE": "WebSocket", "HTTP_CONNECTION": "UPGRADE"},
        {"HTTP_CONNECTION": "keep-alive, Upgrade"},  # Firefox
        {"HTTP_UPGRADE": "h2c,websocket"},
        {"SERVER_PROTOCOL": "HTTP/1.0"},  # eventlet says this of everything
        {"CONTENT_LENGTH": ""},
        {"CONTENT_LENGTH": "0"},
        {"HTTP_SEC_WEBSOCKET_KEY": None, "HTTP_SEC_WEBSOCKET_VERSION": None},  # a bad one, which is refused as such
    ],
)
def test_is_handshake_knows_one(changes: dict[str, str | None]) -> None:
    """RFC 6455 §4.2.1: in any letter case, and among other tokens."""
    assert is_handshake(environ_with(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"HTTP_UPGRADE": None},
        {"HTTP_UPGRADE": "h2c"},
        {"HTTP_UPGRADE": "xwebsocket"},
        {"HTTP_CONNECTION": None},
        {"HTTP_CONNECTION": "keep-alive"},
        {"REQUEST_METHOD": "POST"},
        {"REQUEST_METHOD": "get"},  # a method is case-sensitive: RFC 9110 §9.1
        {"CONTENT_LENGTH": "1"},
        {"CONTENT_LENGTH": "10"},
        {"HTTP_TRANSFER_ENCODING": "chunked"},
        {"SERVER_PROTOCOL": "HTTP/2"},
        {"SERVER_PROTOCOL": "HTTP/2.0"},
        {"SERVER_PROTOCOL": "HTTP/3"},
        {"HTTP_VERSION": "2"},  # gunicorn, on HTTP/2
    ],
)
def test_is_handshake_leaves_the_rest_to_http(changes: dict[str, str | None]) -> None:
    """RFC 9110 §7.8: an upgrade that is not understood may be ignored."""
    assert not is_handshake(environ_with(**changes))


# -- What it says -----------------------------------------------------------------------------------------------------


def test_check_handshake_reads_what_the_client_offers() -> None:
    """The order of subprotocols is the client's; extensions stay as they are."""
    environ = environ_with(
        HTTP_SEC_WEBSOCKET_PROTOCOL="chat.v2 ,chat, ,x",
        HTTP_SEC_WEBSOCKET_EXTENSIONS='permessage-deflate; client_max_window_bits; x="1", other',
    )
    assert check_handshake(environ) == Handshake(
        ACCEPT, ("chat.v2", "chat", "x"), 'permessage-deflate; client_max_window_bits; x="1", other'
    )


def test_check_handshake_needs_no_offer() -> None:
    """A handshake without subprotocols and extensions is complete."""
    assert check_handshake(environ_with()) == Handshake(ACCEPT, (), "")


def test_check_handshake_answers_another_version_with_ours() -> None:
    """RFC 6455 §4.4: 426, and the version that there is."""
    text = "WebSockets of version 13 only (RFC 6455 section 4.4)."
    expected = Refusal(
        "426 Upgrade Required",
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(text))),
            ("Sec-WebSocket-Version", "13"),
        ],
        text,
    )
    for version in ("12", "8", "13, 8", "", None):
        assert check_handshake(environ_with(HTTP_SEC_WEBSOCKET_VERSION=version)) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("HTTP_SEC_WEBSOCKET_KEY", None),
        ("HTTP_SEC_WEBSOCKET_KEY", ""),
        ("HTTP_SEC_WEBSOCKET_KEY", "c2hvcnQ="),
        ("HTTP_SEC_WEBSOCKET_KEY", "A" * 24),  # 18 bytes
        ("HTTP_SEC_WEBSOCKET_KEY", "A" * 20 + "===="),
        ("HTTP_SEC_WEBSOCKET_KEY", f"{KEY},{KEY}"),  # sent twice
        ("HTTP_SEC_WEBSOCKET_KEY", "ä" * 22 + "=="),
        ("HTTP_SEC_WEBSOCKET_KEY", "!" * 22 + "=="),
        ("HTTP_SEC_WEBSOCKET_PROTOCOL", "a b"),
        ("HTTP_SEC_WEBSOCKET_PROTOCOL", "a;b"),
        ("HTTP_SEC_WEBSOCKET_PROTOCOL", ","),
        ("HTTP_SEC_WEBSOCKET_EXTENSIONS", "permessage-deflate;"),
        ("HTTP_SEC_WEBSOCKET_EXTENSIONS", 'x; y="a b"'),
        ("HTTP_SEC_WEBSOCKET_EXTENSIONS", "x y"),
    ],
)
def test_check_handshake_refuses_what_is_malformed(key: str, value: str | None) -> None:
    """RFC 6455 §4.2.1: 400. The text names the header and shows nothing of it."""
    refused = check_handshake(environ_with(**{key: value}))
    assert isinstance(refused, Refusal)
    assert refused.status == "400 Bad Request"
    assert refused.text.startswith(
        key.removeprefix("HTTP_").title().replace("_", "-").replace("Websocket", "WebSocket")
    )


@given(st.text(alphabet='a;,= \t"', max_size=60))
def test_check_handshake_is_quick_with_any_header(value: str) -> None:
    """Each separator means one thing: no header takes long to be refused."""
    check_handshake(environ_with(HTTP_SEC_WEBSOCKET_EXTENSIONS=value * 50, HTTP_SEC_WEBSOCKET_PROTOCOL=value * 50))


def test_accept_token_is_that_of_the_example() -> None:
    """RFC 6455 §1.3."""
    assert accept_token(KEY) == ACCEPT


def test_refusal_has_what_a_text_needs() -> None:
    """A WSGI response that is complete in itself."""
    assert refusal(503, "Too many.", [("Retry-After", "1")]) == Refusal(
        "503 Service Unavailable",
        [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "9"), ("Retry-After", "1")],
        "Too many.",
    )


# -- The answer -------------------------------------------------------------------------------------------------------

HANDSHAKE = Handshake(ACCEPT, ("a", "b"), "")
BEGINNING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
)


def test_head_101_is_written_as_it_is() -> None:
    """RFC 6455 §4.2.2, byte for byte."""
    assert head_101(HANDSHAKE) == Head101(BEGINNING + b"\r\n", ())


def test_head_101_has_what_was_agreed_on_and_the_headers_of_the_app() -> None:
    """A cookie set twice stays twice; what belongs to the connection, or frames a body, is left out."""
    headers = [
        (b"Set-Cookie", b"a=1"),
        (b"set-cookie", b"b=\xe4 "),
        (b"Connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"0"),
    ]
    assert head_101(HANDSHAKE, subprotocol="b", extensions="permessage-deflate", headers=headers) == Head101(
        BEGINNING + b"Sec-WebSocket-Protocol: b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        b"Set-Cookie: a=1\r\nset-cookie: b=\xe4\r\n\r\n",
        ("connection", "transfer-encoding"),
    )


class Subprotocol(str, Enum):
    """What an app may choose from."""

    B = "b"

    def __format__(self, _: str) -> str:
        """As Python 3.11 and later have it."""
        return f"{type(self).__name__}.{self.name}"


def test_head_101_has_a_subprotocol_as_it_was_offered() -> None:
    """Whatever a subclass of str makes of itself."""
    assert b"\r\nSec-WebSocket-Protocol: b\r\n" in head_101(HANDSHAKE, subprotocol=Subprotocol.B).data


@pytest.mark.parametrize("bad", [b"\r", b"\n", b"\0", b"x\r\nSet-Cookie: a=1"])
def test_head_101_refuses_a_value_that_would_end_its_line(bad: bytes) -> None:
    """RFC 9110 §5.5: the response would be split. The error shows no value."""
    with pytest.raises(InvalidHeader) as caught:
        head_101(HANDSHAKE, headers=[(b"x", b"secret" + bad)])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nb"])
def test_head_101_refuses_a_name_that_is_no_token(name: bytes) -> None:
    """RFC 9110 §5.1."""
    with pytest.raises(InvalidHeader):
        head_101(HANDSHAKE, headers=[(name, b"a")])


@pytest.mark.parametrize("name", [b"Sec-WebSocket-Protocol", b"sec-websocket-accept", b"SEC-WEBSOCKET-EXTENSIONS"])
def test_head_101_refuses_what_the_handshake_sets(name: bytes) -> None:
    """RFC 6455 §4.2.2: a second one would make clients fail the connection."""
    with pytest.raises(AppProtocolError, match=r"Leave it out; choose a subprotocol with"):
        head_101(HANDSHAKE, headers=[(name, b"a")])


@pytest.mark.parametrize("headers", [[("a", "b")], [(b"a",)], 5])
def test_head_101_refuses_headers_of_a_wrong_type(headers: Any) -> None:
    """The same error as for the headers of a response."""
    with pytest.raises(AppProtocolError):
        head_101(HANDSHAKE, headers=headers)


@pytest.mark.parametrize(("offered", "chosen"), [((), "a"), (("a",), "b"), (("a",), "A"), (("a",), "")])
def test_head_101_refuses_a_subprotocol_that_was_not_offered(offered: tuple[str, ...], chosen: str) -> None:
    """RFC 6455 §4.2.2: a client that gets it ends the connection; so the app is told."""
    with pytest.raises(AppProtocolError, match=r'Choose one of scope\["subprotocols"\]'):
        head_101(Handshake(ACCEPT, offered, ""), subprotocol=chosen)


# -- The handshake that a WSGI app is shown ---------------------------------------------------------------------------


def test_environ_of_handshake_leaves_a_handshake_as_it_is_but_for_extensions() -> None:
    """The server compresses: what the client offered is not the app's to take."""
    environ = environ_with(HTTP_CONNECTION="keep-alive, Upgrade", HTTP_SEC_WEBSOCKET_PROTOCOL="x,y")
    seen = dict(environ, HTTP_SEC_WEBSOCKET_EXTENSIONS="permessage-deflate")
    environ_of_handshake(seen, ["x", "y"])
    assert seen == environ


def test_environ_of_handshake_makes_one_of_http_2() -> None:
    """RFC 8441 §5: there is no key, no Connection and no Upgrade, and the method is CONNECT."""
    seen: dict[str, Any] = {
        "REQUEST_METHOD": "CONNECT",
        "SERVER_PROTOCOL": "HTTP/2",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "8000",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
    }
    environ_of_handshake(seen, ("a", "b"))
    assert seen == environ_with(SERVER_PORT="8000", HTTP_HOST="example.org:8000", HTTP_SEC_WEBSOCKET_PROTOCOL="a, b")
    assert is_handshake(seen)
    assert check_handshake(seen) == Handshake(ACCEPT, ("a", "b"), "")


@pytest.mark.parametrize("name", ["::1", "[::1]"])
def test_host_of_an_ipv6_server_has_brackets(name: str) -> None:
    """RFC 3986 §3.2.2: else nobody could tell the port from the address."""
    seen = environ_with(SERVER_NAME=name, SERVER_PORT="443", HTTP_HOST=None)
    environ_of_handshake(seen, ())
    assert seen["HTTP_HOST"] == "[::1]:443"


def test_environ_of_handshake_mends_what_a_library_would_refuse() -> None:
    """A proxy's Connection, or a key cut short, did not keep the server from taking the client."""
    seen = environ_with(HTTP_CONNECTION="close", HTTP_UPGRADE="x", HTTP_SEC_WEBSOCKET_KEY="x")
    environ_of_handshake(seen, ())
    assert seen == environ_with()
