"""A request's body that is taken whole before the app runs, with ``spool_request=True``."""

from __future__ import annotations

import gc
import io
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from typing import Any

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
from support.lockstep import Signal
from support.runtimes import cancelled, only_on, start
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


def test_spool_cancelled_as_it_writes_does_not_hold_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """To close a file waits for a write that is under way. Not the loop does so, but a thread."""
    writing, goes_on, closed = Signal("a write has begun"), Signal("the write may end"), Signal("the file is closed")

    class Slow(io.RawIOBase):
        """A disk that takes its time."""

        def readable(self) -> bool:
            return True

        def writable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return True

        def seek(self, offset: int, whence: int = 0, /) -> int:
            return offset

        def write(self, data: Any, /) -> int:
            writing.set()
            goes_on.wait()
            return len(data)

        def close(self) -> None:
            super().close()
            closed.set()

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: io.BufferedRandom(Slow(), 2))

    async def main() -> None:
        bridge = WSGIMiddleware(hello.app, request_buffer_bytes=0, spool_request=True)
        task = start(answer(bridge, Client(b"abc", complete=False), http_scope("POST")))
        await writing.wait_in_task()
        task.cancel()
        await cancelled(task)
        assert not closed.is_set()
        goes_on.set()
        await closed.wait_in_task()

    run(main())


def test_spool_that_finds_no_thread_closes_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the loop waits for the disk, and the file is closed."""

    class Thread(threading.Thread):
        def start(self) -> None:
            if self.name == "a2wsgi-spool":
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr(threading, "Thread", Thread)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - to be closed by what is tested
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: file)
    client = Client(messages=[body_message(b"abc", more=True), {"type": "http.disconnect"}])
    call(WSGIMiddleware(hello.app, request_buffer_bytes=0, spool_request=True), client, http_scope("POST"))
    assert file.closed


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


#: The loop is stopped while an upload is spooled, and left as it is: its task is closed as the interpreter ends.
LEFT_LOOP = """
import asyncio
from a2wsgi import WSGIMiddleware

bridge = WSGIMiddleware(lambda environ, start_response: [], spool_request=True, request_buffer_bytes=0)
parts = [b"one", b"another"]

async def receive():
    if parts:
        return {"type": "http.request", "body": parts.pop(), "more_body": True}
    loop.stop()
    await asyncio.get_running_loop().create_future()

async def send(message):
    pass

scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
loop = asyncio.new_event_loop()
task = loop.create_task(bridge(scope, receive, send))
loop.run_forever()
print("stopped", task.done())
"""


@only_on("asyncio", reason="asyncio closes the task at the end of the process")
def test_process_ends_though_its_loop_was_left_while_a_body_was_spooled() -> None:
    """The file is closed at once then. Up to Python 3.11, another thread would never come to it."""
    ended = subprocess.run([sys.executable, "-c", LEFT_LOOP], capture_output=True, timeout=50, check=False, text=True)
    assert (ended.returncode, ended.stdout) == (0, "stopped False\n")
