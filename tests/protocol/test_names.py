"""Header names in each spelling, and the caches of them."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2wsgi._protocol.names import (
    ENVIRON_KEYS,
    ENVIRON_KEYS_WITH_UNDERSCORES,
    MAX_CACHED,
    MAX_CACHED_LENGTH,
    REQUEST_NAMES,
    Cache,
)

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters
SECRET = "hunter2"


# -- Names of request headers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (b"host", "HTTP_HOST"),
        (b"X-Forwarded-For", "HTTP_X_FORWARDED_FOR"),
        (b"USER-AGENT", "HTTP_USER_AGENT"),
        (b"x.y~z", "HTTP_X.Y~Z"),
        (b"content-type", "CONTENT_TYPE"),
        (b"Content-Length", "CONTENT_LENGTH"),
        (b"content-encoding", "HTTP_CONTENT_ENCODING"),
    ],
)
def test_environ_keys_are_those_of_cgi(name: bytes, key: str) -> None:
    """RFC 3875 §4.1.18: a header in any letter case has a key in upper case, two of them without ``HTTP_``."""
    assert ENVIRON_KEYS[name] == ENVIRON_KEYS_WITH_UNDERSCORES[name] == key


@pytest.mark.parametrize("name", [b"x_user", b"X_User", b"_", b"content_length", b"Content_Type"])
def test_environ_keys_have_none_for_a_name_with_an_underscore(name: bytes) -> None:
    """PEP 3333, "environ Variables": ``X_User`` would be taken for ``X-User``, so it is dropped."""
    assert ENVIRON_KEYS[name] == ""


def test_environ_keys_have_one_for_an_underscore_when_that_is_allowed() -> None:
    """With ``allow_underscores`` a name with an underscore has the key of its twin with a hyphen."""
    assert ENVIRON_KEYS_WITH_UNDERSCORES[b"x_user"] == "HTTP_X_USER"


@pytest.mark.parametrize("name", [b"content_length", b"Content_Type", b"CONTENT_LENGTH"])
def test_environ_keys_never_have_one_for_a_forged_length_or_type(name: bytes) -> None:
    """RFC 3875 §4.1.2: no other header can make ``CONTENT_LENGTH``, even where underscores are allowed."""
    assert ENVIRON_KEYS_WITH_UNDERSCORES[name] == ""


@pytest.mark.parametrize("name", [b"proxy", b"Proxy", b"PROXY"])
def test_environ_keys_have_none_for_proxy(name: bytes) -> None:
    """CVE-2016-5385 (httpoxy): a client cannot set ``HTTP_PROXY``."""
    assert ENVIRON_KEYS[name] == ENVIRON_KEYS_WITH_UNDERSCORES[name] == ""


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b":path", b"a\r\n", b"a\0", "ä".encode(), b"\xe4", b"a,b", b'"'])
def test_environ_keys_have_none_for_what_is_no_token(name: bytes) -> None:
    """RFC 9110 §5.1: what is no token is no header's name, whatever the server let through."""
    assert ENVIRON_KEYS[name] == ENVIRON_KEYS_WITH_UNDERSCORES[name] == ""


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("HTTP_HOST", b"host"),
        ("HTTP_X_FORWARDED_FOR", b"x-forwarded-for"),
        ("CONTENT_TYPE", b"content-type"),
        ("CONTENT_LENGTH", b"content-length"),
        ("HTTP_CONTENT_TYPE", b""),
        ("HTTP_CONTENT_LENGTH", b""),
        ("HTTP_PROXY", b""),
        ("HTTP_", b""),
        ("HTTP_A B", b""),
        ("HTTP_\xe4", b""),
        ("HTTPS", b""),
        ("PATH", b""),
        ("wsgi.input", b""),
    ],
)
def test_request_names_are_those_of_the_headers_in_an_environ(key: str, name: bytes) -> None:
    """RFC 3875 §4.1.18: only ``HTTP_*`` is a header, besides the length and the type; none is there twice."""
    assert REQUEST_NAMES[key] == name


@given(st.text(TOKEN_CHARACTERS, min_size=1).filter(lambda name: "_" not in name and name.lower() != "proxy"))
def test_names_come_back_from_the_environ_in_lower_case(name: str) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": a name that went through an environ is the same, in lower case."""
    assert REQUEST_NAMES[ENVIRON_KEYS[name.encode()]] == name.lower().encode()


def test_caches_stay_bounded_when_clients_invent_names() -> None:
    """A flood of odd names neither fills the memory nor drives out what comes after it; long names are not kept."""
    for number in range(3 * MAX_CACHED):
        assert ENVIRON_KEYS[b"x-flood-%d" % number] == f"HTTP_X_FLOOD_{number}"
        assert len(ENVIRON_KEYS) <= MAX_CACHED
    long = b"x-" + b"a" * MAX_CACHED_LENGTH
    assert ENVIRON_KEYS[long] == "HTTP_X_" + "A" * MAX_CACHED_LENGTH
    assert long not in ENVIRON_KEYS
    assert ENVIRON_KEYS[b"host"] == "HTTP_HOST"
    assert b"host" in ENVIRON_KEYS


def test_caches_keep_no_object_of_a_subclass() -> None:
    """A string of the app's own class may know of a whole request, and is gone with it."""

    class Text(str):  # noqa: SLOT000 - it may have attributes
        """Has attributes."""

    class Data(bytes):
        """As `Text`."""

    names: Cache[str, str] = Cache(str.upper)
    for number in range(3):
        assert names[Text(f"x-{number}")] == f"X-{number}"
    assert names["x-0"] == names[Text("x-0")] == "X-0"
    assert [type(key) for key in names] == [str]
    data: Cache[bytes, bytes] = Cache(bytes.upper)
    assert data[Data(b"x")] == b"X"
    assert not data
