"""A request's body that is taken whole before the app runs, with ``spool_request=True``."""

from __future__ import annotations

import gc
import io
import tempfile
from collections.abc import Iterable

import pytest

from a2wsgi import (
    ClientDisconnected,
    WSGIMiddleware,
)
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import echo, hello
from apps.recording import Recording
from apps.waiting import Waiting
from support.asgi_driver import Client, answer, body_message, call, http_scope, run
from support.bridges import Bridged
from support.runtimes import cancelled, start
from support.wsgi_requests import echoed

pytestmark = pytest.mark.usefixtures("runtime")


def test_spool_takes_the_whole_body_first() -> None:
    """``spool_request=True`` takes no worker before the end of the body; past the buffer it is in a file."""
    kinds: list[type] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        kinds.append(type(environ["wsgi.input"]))
        assert environ["CONTENT_LENGTH"] == "12"
        return echo.app(environ, start_response)

    async def main() -> None:
        bridge = WSGIMiddleware(app, request_buffer_bytes=4, spool_request=True)
        client = Client(b"abcd", b"efgh", complete=False)
        task = start(answer(bridge, client, http_scope("POST")))
        await client.hungry.wait_in_task()
        assert bridge.statistics().workers == 0
        client.send_body(b"ijkl", more=False)
        assert (await task).messages == echoed(b"abcdefghijkl")

    run(main())
    assert kinds == [io.BufferedRandom]


def test_spool_within_the_buffer_is_no_file(bridged: Bridged) -> None:
    """A small body stays in memory."""
    app = Recording()
    call(bridged(app, spool_request=True), Client(b"abc"), http_scope("POST"))
    assert isinstance(app.environ["wsgi.input"], io.BytesIO)


def test_spool_closes_its_file_after_the_request(bridged: Bridged) -> None:
    """The temporary file is closed as soon as the app is through."""
    app = Recording()
    call(bridged(app, request_buffer_bytes=0, spool_request=True), Client(b"abc"), http_scope("POST"))
    assert app.environ["wsgi.input"].closed


def test_spool_closes_its_file_when_the_client_left() -> None:
    """A client that leaves in the middle of an upload leaves no file, and the app's first read tells it."""
    errors: list[BaseException] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with pytest.raises(ClientDisconnected) as caught:
            environ["wsgi.input"].read()
        errors.append(caught.value)
        raise caught.value

    client = Client(messages=[body_message(b"abc", more=True), {"type": "http.disconnect"}])
    response = call(WSGIMiddleware(app, request_buffer_bytes=0, spool_request=True), client, http_scope("POST"))
    assert response.messages == []
    assert len(errors) == 1


def test_spool_closes_its_file_when_the_request_is_shed(bridged: Bridged) -> None:
    """A spooled request that finds no place in the queue leaves no file open."""

    async def main() -> None:
        app = Waiting()
        bridge = bridged(app, workers=1, max_queue=0, request_buffer_bytes=0, spool_request=True)
        first = start(answer(bridge, Client(b"abc"), http_scope("POST")))
        await app.entered.wait_in_task()
        assert (await answer(bridge, Client(b"def"), http_scope("POST"))).status == 503
        gc.collect()
        app.let.set()
        await first

    run(main())


def test_spool_closes_its_file_when_the_request_is_cancelled(bridged: Bridged) -> None:
    """A request that is cancelled in the middle of an upload leaves no file open."""

    async def main() -> None:
        client = Client(b"abc", complete=False)
        bridge = bridged(hello.app, request_buffer_bytes=0, spool_request=True)
        task = start(answer(bridge, client, http_scope("POST")))
        await client.hungry.wait_in_task()
        task.cancel()
        await cancelled(task)
        assert client.sent == []

    run(main())


def test_spool_file_that_cannot_be_closed_harms_nobody(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full says so again when the file is closed: the worker lives, and the response is whole."""

    class Full(io.BytesIO):
        def close(self) -> None:
            super().close()
            raise OSError("No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    bridge = bridged(echo.app, workers=1, request_buffer_bytes=0, spool_request=True)
    for _ in range(2):
        assert call(bridge, Client(b"abc"), http_scope("POST")).messages == echoed(b"abc")
