"""Bodies that end too early, or are longer than ``max_request_bytes``."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import pytest

from a2wsgi import (
    ClientDisconnected,
    RequestTooLarge,
    ServerProtocolError,
    WSGIMiddleware,
)
from a2wsgi._wsgi_on_asgi.messages import body_part, is_disconnect
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import echo
from apps.recording import Recording
from support.asgi_driver import Client, Message, answer, call, http_scope, messages_of, run
from support.bridges import Bridged
from support.lockstep import Signal
from support.wsgi_requests import echoed, our_log


@pytest.mark.usefixtures("no_timer")
def test_body_that_ends_in_a_disconnect_never_looks_complete() -> None:
    """What came is read, then ``read()`` raises, and each time again."""
    read: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        read.append(stream.read(4))
        client.leave()
        for _ in range(2):
            try:
                read.append(stream.read())
            except ClientDisconnected as error:
                read.append((type(error), error.reason))
        raise ClientDisconnected("as an app does that does not catch it")

    client = Client(b"abcd", complete=False)
    scope = http_scope("POST", headers=[(b"content-length", b"10")])
    response = call(WSGIMiddleware(app, request_buffer_bytes=4), client, scope)
    assert response.messages == []
    gone = (ClientDisconnected, "the server sent http.disconnect before the body was complete")
    assert read == [b"abcd", gone, gone]


def test_body_shorter_than_its_length_never_looks_complete() -> None:
    """Some servers (tsuno) say that a truncated body is complete: its ``Content-Length`` knows better."""
    errors: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except ClientDisconnected as error:
            errors.append(error.reason)
        start_response("400 Bad Request", [])
        return []

    scope = http_scope("POST", headers=[(b"content-length", b"10")])
    response = call(WSGIMiddleware(app), Client(b"abc"), scope)
    assert response.messages == messages_of(400, [(b"content-length", b"0")])
    assert errors == ["its body ended after 3 of 10 bytes"]


def test_receive_that_raises_ends_the_body() -> None:
    """A server that tells of a lost client by an exception is understood."""
    errors: list[str] = []

    class Broken(Client):
        async def receive(self) -> Message:
            if self.receives:
                self.receives += 1
                raise ConnectionResetError("by peer")
            return await super().receive()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except ClientDisconnected as error:
            errors.append(error.reason)
        raise ClientDisconnected("so it is")

    client = Broken(b"abcd", complete=False)
    bridge = WSGIMiddleware(app, request_buffer_bytes=4)
    assert call(bridge, client, http_scope("POST")).messages == []
    assert errors == ["receive() raised ConnectionResetError"]
    assert bridge.statistics().disconnected == 1


def test_max_request_bytes_lets_the_limit_pass(bridged: Bridged) -> None:
    """A body of exactly the limit is no error."""
    bridge = bridged(echo.app, max_request_bytes=4)
    assert call(bridge, Client(b"ab", b"cd"), http_scope("POST")).messages == echoed(b"abcd")


TOO_LARGE = messages_of(
    413,
    [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"22")],
    b"413 Content Too Large\n",
)


@pytest.mark.usefixtures("no_timer")
def test_max_request_bytes_refuses_a_length_unread(bridged: Bridged, caplog: pytest.LogCaptureFixture) -> None:
    """A ``Content-Length`` past the limit is answered 413 before anything is received; the app is not run."""
    caplog.set_level(logging.INFO, "a2wsgi")
    app = Recording()
    client = Client(complete=False)
    scope = http_scope("POST", headers=[(b"content-length", b"5")])
    assert call(bridged(app, max_request_bytes=4), client, scope).messages == TOO_LARGE
    assert (client.receives, app.environs) == (0, [])
    assert our_log(caplog) == [("INFO", f"413 to a request: {RequestTooLarge(4)}")]


def test_max_request_bytes_refuses_a_body_that_is_read_ahead(bridged: Bridged) -> None:
    """A body without a length that grows past the limit is answered 413; the app is not run."""
    app = Recording()
    assert call(bridged(app, max_request_bytes=4), Client(b"abc", b"de"), http_scope("POST")).messages == TOO_LARGE
    assert app.environs == []


def test_max_request_bytes_refuses_a_body_that_is_spooled(bridged: Bridged) -> None:
    """The limit holds for what goes into the file, which is closed."""
    bridge = bridged(echo.app, max_request_bytes=4, request_buffer_bytes=2, spool_request=True)
    assert call(bridge, Client(b"abc", b"de"), http_scope("POST")).messages == TOO_LARGE


def test_max_request_bytes_refuses_a_body_that_the_app_reads() -> None:
    """The app's read raises `RequestTooLarge`, and the client gets a 413 since it got no head."""
    errors: list[BaseException] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except RequestTooLarge as error:
            errors.append(error)
            raise
        return []

    bridge = WSGIMiddleware(app, max_request_bytes=4, request_buffer_bytes=2)
    assert call(bridge, Client(b"abc", b"de"), http_scope("POST")).messages == TOO_LARGE
    assert [(type(error), str(error)) for error in errors] == [(RequestTooLarge, str(RequestTooLarge(4)))]


def test_max_request_bytes_fails_the_app_after_its_head() -> None:
    """Once the head is sent there is no 413: the error reaches the server, and the response stays unfinished."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"first"
        head_sent.wait()
        clients[0].send_body(b"cde", more=False)
        yield environ["wsgi.input"].read()

    head_sent = Signal("the head was sent")
    clients: list[Client] = []

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 2:
                head_sent.set()

        client = Client(b"ab", complete=False, on_send=on_send)
        clients.append(client)
        bridge = WSGIMiddleware(app, max_request_bytes=4, request_buffer_bytes=2)
        response = await answer(bridge, client, http_scope("POST"), fails=RequestTooLarge)
        assert response.messages == messages_of(200, [], b"first", b"")[:-1]

    run(main())


# -- By itself --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "received", "declared", "part"),
    [
        ({"type": "http.disconnect"}, 0, None, None),
        ({"type": "http.request"}, 0, None, (b"", False)),
        ({"type": "http.request", "body": b"abc", "more_body": True}, 0, None, (b"abc", True)),
        ({"type": "http.request", "body": bytearray(b"abc")}, 0, 3, (b"abc", False)),
        ({"type": "http.request", "body": b"abc", "more_body": True}, 2, 4, (b"ab", True)),
        ({"type": "http.request", "body": b"abc"}, 4, 4, (b"", False)),
    ],
)
def test_part_is_cut_where_the_body_ends(message: Any, received: int, declared: int | None, part: Any) -> None:
    """RFC 9112 §6.3: what follows the Content-Length is no part of the body."""
    assert body_part(message, received, declared, None) == part


def test_part_that_ends_too_early_or_too_late_is_an_error() -> None:
    """RFC 9112 §8, and ``max_request_bytes``: each error has the figures."""
    with pytest.raises(ClientDisconnected, match="its body ended after 5 of 9 bytes"):
        body_part({"type": "http.request", "body": b"abc"}, 2, 9, None)
    with pytest.raises(RequestTooLarge) as caught:
        body_part({"type": "http.request", "body": b"abc"}, 2, None, 4)
    assert caught.value.limit == 4


def test_disconnect_is_told_from_any_other_message() -> None:
    """Also from what is no message at all, which is the server's fault."""
    assert is_disconnect({"type": "http.disconnect"})
    assert not is_disconnect({"type": "http.request"})
    broken: list[Any] = [None, {}, 5]
    for message in broken:
        with pytest.raises(ServerProtocolError):
            is_disconnect(message)
