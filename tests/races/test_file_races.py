"""Files, and requests that end while somebody opens one: nothing stays open, and whoever waits is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import anyio
import pytest

from a2wsgi import BridgeClosed, ClientDisconnected, WSGIMiddleware
from a2wsgi._asgi_on_wsgi.files import SentFile
from a2wsgi._asgi_on_wsgi.request import Request
from a2wsgi._wsgi_on_asgi import files as _files
from a2wsgi._wsgi_on_asgi import response as _response
from a2wsgi.wsgi_typing import Environ, StartResponse
from support.asgi_bridges import threaded
from support.asgi_driver import Client, http_scope, run, until
from support.lockstep import Signal
from support.threads import in_thread
from support.wsgi_driver import call, environ_of

DATA = bytes(100_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


def test_descriptor_is_closed_though_its_request_is_over_by_then(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1. The worker looks at the file. 2. The server cancels the request, and does not wait. 3. The file is left."""
    looks, cancelled = Signal("the worker looks at the file"), Signal("the request is over")
    found: list[Any] = []
    find = _files.find

    def late(*arguments: Any) -> Any:
        found.append(find(*arguments))
        looks.set()
        cancelled.wait()
        return found[0]

    monkeypatch.setattr(_response, "find", late)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(len(DATA)))])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](path.open("rb"))
        return wrapped

    async def main() -> None:
        bridge = WSGIMiddleware(app)
        client = Client(strict=False)
        scope = http_scope(extensions={"http.response.zerocopysend": {}})
        task = asyncio.ensure_future(bridge(scope, client.receive, client.send))
        await looks.wait_in_task()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled.set()
        await until(lambda: bridge.statistics().busy == 0)
        assert client.sent == []
        assert found[0]._file.closed

    run(main())


def held_open(monkeypatch: pytest.MonkeyPatch) -> tuple[Signal, Signal]:
    """Have the server thread say that it opens a file, and wait until it may."""
    opens, may_open = Signal("the file is being opened"), Signal("it may be opened")
    opened = SentFile.open

    def wait_and_open(self: SentFile) -> None:
        opens.set()
        may_open.wait()
        opened(self)

    monkeypatch.setattr(SentFile, "open", wait_and_open)
    return opens, may_open


@pytest.mark.parametrize("options", [{}, {"backend": "trio"}], ids=["thread", "trio"])
def test_app_that_fails_while_its_file_is_opened_is_the_servers_error(
    options: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. The server thread opens the file. 2. The app ends. 3. The file is open: it belongs to no response."""
    if options:
        pytest.importorskip("trio")
    opens, may_open = held_open(monkeypatch)
    app_ended = Request._app_ended

    def ended(self: Request, *arguments: Any) -> None:
        app_ended(self, *arguments)
        may_open.set()

    monkeypatch.setattr(Request, "_app_ended", ended)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100000")]})
        async with anyio.create_task_group() as group:
            group.start_soon(send, {"type": "http.response.pathsend", "path": str(path)})
            await opens.wait_in_task()
            group.cancel_scope.cancel()
        raise ZeroDivisionError

    with threaded(**options)(app) as bridge:
        response = call(bridge, environ_of(wsgi__file_wrapper=FileWrapper), fails=ZeroDivisionError)
    assert response.status is None


def test_bridge_that_is_closed_while_a_file_is_opened_tells_both(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1. The server thread opens the file. 2. The bridge is closed. 3. The app's ``send()`` fails, and the request."""
    opens, may_open = held_open(monkeypatch)
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100000")]})
        try:
            await send({"type": "http.response.pathsend", "path": str(path)})
        except ClientDisconnected as error:
            raised.append(error)
            raise
        finally:
            may_open.set()

    bridge = threaded(shutdown_timeout=0.05)(app)
    answered = in_thread(lambda: call(bridge, environ_of(wsgi__file_wrapper=FileWrapper), fails=BridgeClosed))
    opens.wait()
    bridge.close()
    assert answered.result().status is None
    assert len(raised) == 1
