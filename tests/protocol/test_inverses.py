"""The two translators are inverses, and no input of the right types is too odd for them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from support.translators import (
    VALUES,
    environ_from_scope,
    environ_of,
    in_any_order,
    scope_from_environ,
    scopes,
    to_environ,
    to_scope,
    without_uri,
)


@given(scopes())
def test_scope_is_the_same_after_an_environ(scope: dict[str, Any]) -> None:
    """ASGI HTTP 2.5 and PEP 3333 tell the same request."""
    assert in_any_order(to_scope(to_environ(scope))) == in_any_order(scope)


@given(scopes(), st.booleans())
def test_environ_is_the_same_after_a_scope(scope: dict[str, Any], told: bool) -> None:
    """PEP 3333 and ASGI HTTP 2.5 tell the same request."""
    environ = to_environ(scope)
    told_environ = environ if told else without_uri(environ)
    again = to_environ(to_scope(told_environ))
    assert without_uri(again) == without_uri(environ)
    if told:
        assert again == environ


ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(["/", "//", "*", "/%", "http://", "\udcff", "\ud800", "\0", "0", "HTTP/1.1"])
)
ODD_TEXTS = st.text(st.sampled_from("/%?:*.a1 \xe9\u20ac\ud800\udcff\0\r\n"), max_size=8)
ENVIRON_TEXTS = [key for key in environ_of(CONTENT_TYPE="", HTTP_X_A="") if key.isupper() and key != "REQUEST_METHOD"]


@given(st.dictionaries(st.sampled_from(ENVIRON_TEXTS), ODD_TEXTS | st.none()))
def test_no_environ_of_strings_is_too_odd_for_a_scope(changes: dict[str, Any]) -> None:
    """PEP 3333, "environ Variables": whatever strings a server hands over, the request has a scope, and an environ."""
    scope = scope_from_environ({**environ_of(), **changes})
    assert isinstance(scope["path"], str)
    assert isinstance(scope["raw_path"], bytes)
    check_native(environ_from_scope(scope))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "path": ODD_TEXTS | st.none(),
            "raw_path": VALUES | st.none(),
            "root_path": ODD_TEXTS | st.none(),
            "query_string": VALUES | st.none(),
            "server": st.none() | st.tuples(ODD_TEXTS | st.none(), ANYTHING),
            "headers": st.lists(st.tuples(VALUES.filter(lambda name: name.lower() != b"content-length"), VALUES)),
            "http_version": ODD_TEXTS | st.none(),
        },
    )
)
def test_no_scope_of_the_right_types_is_too_odd_for_an_environ(scope: dict[str, Any]) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": whatever a server hands over, the request has an environ, and a scope."""
    environ = environ_from_scope(scope)
    check_native(environ)
    scope_from_environ(environ)


def check_native(environ: dict[str, Any]) -> None:
    """PEP 3333, "Unicode Issues": every CGI value is a str of latin-1, and what must not be empty is not."""
    for key, value in environ.items():
        if key.isupper() and key not in {"SERVER_NAME", "REMOTE_ADDR"}:
            value.encode("latin-1")
    assert environ["SERVER_NAME"]
    assert environ["SERVER_PORT"]
