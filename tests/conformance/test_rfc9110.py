"""RFC 9110 (HTTP Semantics) and RFC 9112 (HTTP/1.1), as far as a bridge answers for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from a2wsgi import AppProtocolError, ClientDisconnected, InvalidHeader
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import echo, hello
from apps.counting import Counting
from apps.recording import Recording
from apps.waiting import Waiting
from support.asgi_driver import Client, answer, call, http_scope, messages_of, run
from support.bridges import Bridged
from support.runtimes import start

pytestmark = pytest.mark.usefixtures("runtime")


def headers_of(environ: Environ) -> dict[str, str]:
    """What of an environ is a header, but ``Host``."""
    names = [key for key in environ if key.startswith(("HTTP_", "CONTENT_")) and key != "HTTP_HOST"]
    return {name: environ[name] for name in names}


def received(bridged: Bridged, *headers: tuple[bytes, bytes], **options: Any) -> dict[str, str]:
    """The headers of an environ, for those of a request."""
    app = Recording()
    call(bridged(app, **options), None, http_scope(headers=headers))
    return headers_of(app.environ)


# -- Fields -----------------------------------------------------------------------------------------------------------


def test_field_names_are_matched_in_any_case(bridged: Bridged) -> None:
    """RFC 9110 §5.1: field names are case-insensitive."""
    assert received(bridged, (b"X-One", b"1"), (b"CONTENT-TYPE", b"text/plain")) == {
        "HTTP_X_ONE": "1",
        "CONTENT_TYPE": "text/plain",
    }


def test_field_name_with_an_underscore_forges_nothing(bridged: Bridged) -> None:
    """RFC 9110 §5.1: ``X_One`` is another field than ``X-One``, which an environ cannot tell apart: it is dropped."""
    headers = (b"x_one", b"forged"), (b"x-one", b"1"), (b"content_length", b"9"), (b"x_two", b"2")
    assert received(bridged, *headers) == {"HTTP_X_ONE": "1"}
    assert received(bridged, *headers, allow_underscores=True) == {"HTTP_X_ONE": "forged,1", "HTTP_X_TWO": "2"}


def test_field_proxy_is_dropped(bridged: Bridged) -> None:
    """CVE-2016-5385: ``Proxy`` would be HTTP_PROXY, which clients take for their own setting."""
    assert received(bridged, (b"proxy", b"http://evil")) == {}


def test_field_lines_are_combined_in_order(bridged: Bridged) -> None:
    """RFC 9110 §5.2 and §5.3: lines of one name are one value, joined by a comma."""
    assert received(bridged, (b"x-one", b"1"), (b"X-Two", b"2"), (b"X-One", b"3")) == {
        "HTTP_X_ONE": "1,3",
        "HTTP_X_TWO": "2",
    }


def test_cookie_lines_are_combined_by_semicolon(bridged: Bridged) -> None:
    """RFC 9113 §8.2.3: a cookie that HTTP/2 split is put together with ``"; "``."""
    assert received(bridged, (b"cookie", b"a=1"), (b"cookie", b"b=2")) == {"HTTP_COOKIE": "a=1; b=2"}


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b"])
def test_field_value_cannot_hold_a_line_break(bridged: Bridged, value: str) -> None:
    """RFC 9110 §5.5: CR, LF and NUL in a response's value are an error; nothing is sent, and the value not shown."""
    response = call(bridged(Counting([b"x"], headers=[("X-One", value)])), fails=InvalidHeader)
    assert response.messages == []
    assert value not in str(response.raised)


# -- Length -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[b"abc"], [b"-1"], [b"+3"], [b"3.0"], [b""], [b"3", b"4"], [b"3,4"], [b"0x3"]])
def test_content_length_that_is_malformed_is_400(bridged: Bridged, values: list[bytes]) -> None:
    """RFC 9110 §8.6 and RFC 9112 §6.3: such a request is refused, and the app not run."""
    app = Recording()
    scope = http_scope("POST", headers=[(b"content-length", value) for value in values])
    assert call(bridged(app), Client(b"abc"), scope).messages == messages_of(
        400,
        [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"16")],
        b"400 Bad Request\n",
    )
    assert app.environs == []


@pytest.mark.parametrize("values", [[b"3", b"3"], [b"3,3"], [b"3, 3"], [b"03"]])
def test_content_length_that_is_repeated_counts_once(bridged: Bridged, values: list[bytes]) -> None:
    """RFC 9110 §8.6: equal repeats are one."""
    app = Recording()
    call(bridged(app), Client(b"abc"), http_scope("POST", headers=[(b"content-length", v) for v in values]))
    assert int(app.environ["CONTENT_LENGTH"]) == 3


def test_transfer_encoding_overrides_content_length(bridged: Bridged) -> None:
    """RFC 9112 §6.3: with both, the length says nothing."""
    scope = http_scope("POST", headers=[(b"content-length", b"2"), (b"transfer-encoding", b"chunked")])
    assert call(bridged(echo.app), Client(b"abc"), scope).body == b"abc"


def test_body_that_is_longer_than_its_length_is_cut(bridged: Bridged) -> None:
    """RFC 9112 §6.3: what follows the length is none of this request."""
    scope = http_scope("POST", headers=[(b"content-length", b"3")])
    for buffer_bytes in (65_536, 0):
        assert (
            call(bridged(echo.app, request_buffer_bytes=buffer_bytes), Client(b"ab", b"cdef", b"g"), scope).body
            == b"abc"
        )


def test_body_that_is_shorter_than_its_length_is_incomplete(bridged: Bridged) -> None:
    """RFC 9112 §8: a message cut off is never taken for a whole one."""
    scope = http_scope("POST", headers=[(b"content-length", b"5")])
    response = call(bridged(echo.app), Client(b"abc"), scope, fails=ClientDisconnected)
    assert response.messages == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_content_length_is_not_sent_without_content(bridged: Bridged, status: str, method: str) -> None:
    """RFC 9110 §8.6: no Content-Length in a 204; and none in a 304, whose body uvicorn would wait for."""
    app = Counting([], status, [("Content-Length", "0"), ("X-One", "1")])
    assert call(bridged(app), None, http_scope(method)).headers == [(b"x-one", b"1")]


def test_content_length_of_an_app_that_differs_is_an_error(bridged: Bridged) -> None:
    """RFC 9110 §8.6: two lengths that differ are an error of the app, two that are equal are one."""
    headers = [("Content-Length", "1"), ("Content-Length", "2")]
    assert call(bridged(Counting([b"x"], headers=headers)), fails=AppProtocolError).messages == []
    headers = [("Content-Length", "1"), ("Content-Length", "1")]
    assert call(bridged(Counting([b"x"], headers=headers))).headers == [(b"content-length", b"1")]


# -- Content ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize(
    ("method", "status", "length"),
    [
        ("HEAD", "200 OK", "3"),
        ("GET", "304 Not Modified", None),
        ("GET", "204 No Content", None),
        ("HEAD", "404 Not Found", "3"),
    ],
)
def test_response_without_content_has_none(
    bridged: Bridged, kind: Callable[[list[bytes]], Iterable[bytes]], method: str, status: str, length: str | None
) -> None:
    """RFC 9110 §6.4.1: HEAD, 204 and 304 have no content, whatever the app gives; the rest of the head stays."""
    app = Counting(kind([b"ab", b"c"]), status, [("Content-Length", length or "3"), ("ETag", '"x"')])
    response = call(bridged(app), None, http_scope(method))
    sent = [(b"content-length", b"3")] * bool(length) + [(b"etag", b'"x"')]
    assert response.messages == messages_of(int(status[:3]), sent)
    assert app.closes == 1


def test_head_has_the_length_of_get(bridged: Bridged) -> None:
    """RFC 9110 §9.3.2: HEAD has the headers of GET, as far as they are known."""
    get, head = (call(bridged(hello.app), None, http_scope(method)) for method in ("GET", "HEAD"))
    assert head.messages == messages_of(get.status, get.headers)


# -- Status -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"),
    [("204", 204), ("299 ", 299), ("600 Odd", 600), ("200 OK", 200), ("418 I'm a teapot", 418), ("999 \xe9", 999)],
)
def test_status_needs_no_reason_and_no_registration(bridged: Bridged, status: str, code: int) -> None:
    """RFC 9110 §15 and RFC 9112 §4: a reason may be empty, and a code unknown."""
    assert call(bridged(Counting([], status))).status == code


@pytest.mark.parametrize("status", ["100 Continue", "101 Switching Protocols", "103 Early Hints", "199"])
def test_interim_status_is_no_response(bridged: Bridged, status: str) -> None:
    """RFC 9110 §15.2: a 1xx as the final status is an error of the app, and nothing is sent."""
    response = call(bridged(Counting([b"x"], status)), fails=AppProtocolError)
    assert response.messages == []
    assert "RFC 9110 §15.2" in str(response.raised)


def test_503_says_when_to_come_back(bridged: Bridged) -> None:
    """RFC 9110 §10.2.3 and §15.6.4: ``Retry-After`` goes with it."""

    async def main() -> None:
        app = Waiting()
        bridge = bridged(app, workers=1, max_queue=0)
        first = start(answer(bridge))
        await app.entered.wait_in_task()
        response = await answer(bridge)
        app.let.set()
        await first
        assert (response.status, dict(response.headers)[b"retry-after"]) == (503, b"1")

    run(main())


def test_413_is_for_content_that_is_too_large(bridged: Bridged) -> None:
    """RFC 9110 §15.5.14: the client is told, with a fixed text."""
    bridge = bridged(echo.app, max_request_bytes=2)
    response = call(bridge, Client(b"abc"), http_scope("POST"))
    assert (response.status, response.body) == (413, b"413 Content Too Large\n")


# -- Expect -----------------------------------------------------------------------------------------------------------


def test_expect_of_an_app_that_reads_nothing_costs_nothing(bridged: Bridged) -> None:
    """RFC 9110 §10.1.1: a final status without 100 tells the client not to send its content."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("417 Expectation Failed", [])
        return []

    client = Client(complete=False)
    scope = http_scope("PUT", headers=[(b"expect", b"100-continue"), (b"content-length", b"1000000")])
    assert call(bridged(app), client, scope).messages == messages_of(417, [(b"content-length", b"0")])
    assert client.receives == 0


def test_connection_fields_are_the_servers(bridged: Bridged) -> None:
    """RFC 9110 §7.6.1: fields of one connection go no further."""
    headers = [("Connection", "close, X-One"), ("Transfer-Encoding", "chunked"), ("Content-Length", "1")]
    app = Counting([b"x"], headers=headers)
    assert call(bridged(app)).headers == [(b"content-length", b"1")]


@pytest.mark.parametrize(
    ("server", "host", "scheme", "wanted"),
    [
        (("127.0.0.1", 8000), b"example.org", "http", ("127.0.0.1", "8000")),
        (("127.0.0.1", "8000"), b"example.org", "http", ("127.0.0.1", "8000")),
        (["127.0.0.1", 8000], b"example.org", "http", ("127.0.0.1", "8000")),
        (("/run/x.sock", None), b"example.org:81", "http", ("example.org", "81")),
        (("/run/x.sock", None), b"example.org", "https", ("example.org", "443")),
        (("/run/x.sock", None), b"[::1]:81", "http", ("[::1]", "81")),
        (None, b"", "http", ("localhost", "80")),
        (None, b"", "https", ("localhost", "443")),
    ],
)
def test_server_comes_from_host_on_a_unix_socket(
    bridged: Bridged, server: Any, host: bytes, scheme: str, wanted: tuple[str, str]
) -> None:
    """RFC 9110 §7.2 and RFC 3875 §4.1.14: where the socket has no name and port, the request's host has."""
    app = Recording()
    call(bridged(app), None, http_scope(server=server, scheme=scheme, headers=[(b"host", host)]))
    assert (app.environ["SERVER_NAME"], app.environ["SERVER_PORT"]) == wanted
