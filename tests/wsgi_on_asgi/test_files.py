"""``wsgi.file_wrapper``: what the server sends by itself, and what is read."""

from __future__ import annotations

import errno
import functools
import gzip
import io
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from a2wsgi import AppProtocolError, WSGIMiddleware
from a2wsgi._protocol.files import OpenFile
from a2wsgi._wsgi_on_asgi import files as _files
from a2wsgi._wsgi_on_asgi.files import FileWrapper
from a2wsgi.wsgi_typing import Environ, StartResponse
from support.asgi_driver import Client, Message, Response, call, http_scope
from support.bridges import Bridged
from support.lockstep import Signal
from support.runtimes import rest
from support.wsgi_requests import our_log

pytestmark = pytest.mark.usefixtures("runtime")

DATA = bytes(range(256)) * 1000

PATHSEND: dict[str, Any] = {"http.response.pathsend": {}}
ZEROCOPYSEND: dict[str, Any] = {"http.response.zerocopysend": {}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of 256,000 bytes."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


def app_of(
    make: Callable[[], Any], length: int | None = len(DATA), status: str = "200 OK"
) -> Callable[[Environ, StartResponse], Iterable[bytes]]:
    """An app that answers with a file by the server's wrapper."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [] if length is None else [("Content-Length", str(length))])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](make(), 8192)
        return wrapped

    return app


def get(
    app: Any,
    extensions: dict[str, Any] | None = None,
    *,
    method: str = "GET",
    client: Client | None = None,
    fails: type[BaseException] | None = None,
) -> Response:
    """Have a server that offers ``extensions`` answer a request."""
    scope = http_scope(method, extensions=extensions or {})
    return call(app, client or Client(strict=not extensions), scope, fails=fails)


def read_of(messages: list[Message]) -> bytes:
    """The body that a server makes of messages."""
    body = b""
    for message in messages[1:]:
        if message["type"] == "http.response.pathsend":
            assert len(messages) == 2
            assert set(message) == {"type", "path"}
            body = Path(message["path"]).read_bytes()
        else:
            body += message["body"]
    return body


# -- What the app sees ------------------------------------------------------------------------------------------------


def test_file_is_read_in_blocks_and_closed_on_the_worker_thread(bridged: Bridged) -> None:
    """PEP 3333, "Optional Platform-Specific File Handling": a server that has no better way iterates."""
    sizes: list[int] = []
    closed: list[int] = []

    class File(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            sizes.append(size or 0)
            return super().read(size)

        def close(self) -> None:
            closed.append(threading.get_ident())
            super().close()

    ran: list[int] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        ran.append(threading.get_ident())
        return app_of(lambda: File(DATA), None)(environ, start_response)

    response = get(bridged(app))
    assert response.body == DATA
    assert set(sizes) == {65_536}
    assert closed == ran


def test_reading_waits_for_the_client() -> None:
    """A file is read ahead by as much as the buffer holds, and no further."""
    reads = 0
    sent = Signal("the first part is on its way")

    class File(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal reads
            reads += 1
            return super().read(size)

    async def on_send(number: int, message: Message) -> None:
        if number == 2:
            assert reads < 20
            sent.set()

    data = bytes(100 * 65_536)
    app = app_of(lambda: File(data), len(data))
    assert get(WSGIMiddleware(app), client=Client(on_send=on_send)).body == data
    assert sent.is_set()


def test_wrapper_passes_on_what_the_file_can() -> None:
    """Werkzeug asks whether it can seek, before it answers a range."""
    wrapper = FileWrapper(io.BytesIO(DATA))
    assert wrapper.seekable()
    assert wrapper.seek(250) == wrapper.tell() == 250
    assert next(wrapper) == DATA[250 : 250 + 65_536]
    wrapper.close()
    wrapper.close()
    assert wrapper.filelike.closed

    class Bare:
        """All that PEP 3333 asks for."""

        def read(self, size: int) -> bytes:
            return b""

    assert not FileWrapper(Bare()).seekable()
    assert list(FileWrapper(Bare())) == []
    FileWrapper(Bare()).close()


@pytest.mark.parametrize("extensions", [{}, PATHSEND, ZEROCOPYSEND], ids=["read", "path", "descriptor"])
@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "304 Not Modified")])
def test_nothing_is_read_for_a_response_without_a_body(
    extensions: dict[str, Any], method: str, status: str, path: Path
) -> None:
    """RFC 9110 §9.3.2, §15.4.5. The file is closed."""
    file = path.open("rb")
    response = get(WSGIMiddleware(app_of(lambda: file, status=status)), extensions, method=method)
    assert response.body == b""
    assert response.complete
    assert file.closed


def test_range_of_a_large_file_is_not_read_from_its_start(path: Path) -> None:
    """Werkzeug's range seeks in what the wrapper gives, and so does Flask's ``send_file``."""
    flask = pytest.importorskip("flask")
    app = flask.Flask("app")
    app.get("/")(lambda: flask.send_file(path))
    reads: list[int] = []

    class Counting(FileWrapper):
        """Counts."""

        def __next__(self) -> bytes:
            reads.append(self.tell())
            return super().__next__()

    def counted(environ: Environ, start_response: StartResponse) -> Any:
        environ["wsgi.file_wrapper"] = Counting
        return app(environ, start_response)

    scope = http_scope(headers=[(b"range", b"bytes=200000-200009")], extensions=PATHSEND)
    response = call(WSGIMiddleware(counted), scope=scope)
    assert (response.status, response.body) == (206, DATA[200_000:200_010])
    assert reads == [200_000]


# -- The path goes out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffering", [-1, 0])
def test_path_goes_out_where_the_server_offers_it(bridged: Bridged, buffering: int, path: Path) -> None:
    """ASGI, "Path Send": the head and one path. The app's file is closed, and none of ours is open."""
    file = path.open("rb", buffering=buffering)
    response = get(bridged(app_of(lambda: file)), PATHSEND)
    assert response.messages == [
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"256000")]},
        {"type": "http.response.pathsend", "path": str(path)},
    ]
    assert file.closed


@pytest.mark.parametrize(("extensions", "seconds"), [(PATHSEND, 400), (ZEROCOPYSEND, 100)])
def test_path_has_the_time_of_all_its_pieces(
    extensions: dict[str, Any], seconds: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers read the whole file within ``send()``: a slow client that goes on taking it has not stalled."""
    monkeypatch.setattr(_files, "PIECE_BYTES", 64_000)
    bridge: Any = WSGIMiddleware(app_of(lambda: path.open("rb")), send_timeout=100)
    stalled: list[int] = []

    async def on_send(number: int, _: Message) -> None:
        if number == 2:
            (request,) = bridge._shared.loops.here().in_flight
            now = request._loop.runtime.time()
            for later in (0, seconds - 1, seconds + 1):
                request.tick(now + later)
                stalled.append(bridge.statistics().stalled)
            await rest()

    get(bridge, extensions, client=Client(on_send=on_send, strict=False))
    assert stalled == [0, 0, 1]


def test_path_of_a_relative_name_is_absolute(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ASGI, "Path Send"."""
    monkeypatch.chdir(path.parent)
    response = get(WSGIMiddleware(app_of(lambda: open("file", "rb"))), PATHSEND)  # noqa: PTH123, SIM115
    assert response.messages[1]["path"] == str(path)


def test_path_has_no_symbolic_link(path: Path) -> None:
    """A link may lead elsewhere by the time the server opens it, as that of a deployment, or of ``/proc/self/fd``."""
    link = path.with_name("link")
    link.symlink_to(path)
    with path.open("rb") as file:
        for name in (link, Path(f"/proc/self/fd/{file.fileno()}")):
            if name.exists():
                response = get(WSGIMiddleware(app_of(functools.partial(name.open, "rb"))), PATHSEND)
                assert response.messages[1]["path"] == str(path)


def _at(file: Any, position: int) -> Any:
    file.read(position)
    return file


def _closed_name(path: Path) -> Any:
    file = path.open("rb")
    path.unlink()
    return file


def _replaced(path: Path) -> Any:
    file = path.open("rb")
    other = path.with_name("other")
    other.write_bytes(DATA[::-1])
    other.replace(path)
    return file


def _pipe(path: Path) -> Any:
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(DATA)

    threading.Thread(target=write).start()
    return os.fdopen(reading, "rb")


def _named_by_number(path: Path) -> Any:
    return os.fdopen(os.open(path, os.O_RDONLY), "rb")


def _not_unicode(path: Path) -> Any:
    return path.rename(path.with_name("\udcff")).open("rb")


def _temporary(path: Path) -> Any:
    file = tempfile.NamedTemporaryFile(dir=path.parent)  # noqa: SIM115 - the wrapper closes it
    file.write(DATA)
    file.seek(0)
    return file


def _compressed(path: Path) -> Any:
    with gzip.open(path, "wb") as file:
        file.write(DATA)
    return gzip.open(path)


class _Lying(io.BytesIO):
    """Has the descriptor of another file of the same size."""

    def __init__(self, path: Path) -> None:
        super().__init__(DATA)
        path.write_bytes(DATA[::-1])
        self._other = path.open("rb")
        self.name = str(path)

    def fileno(self) -> int:
        return self._other.fileno()

    def close(self) -> None:
        self._other.close()
        super().close()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: io.BytesIO(DATA),
        _compressed,
        _Lying,
        _closed_name,
        _replaced,
        _pipe,
        _named_by_number,
        _not_unicode,
        _temporary,
    ],
    ids=["memory", "compressed", "lies", "deleted", "replaced", "pipe", "by descriptor", "not Unicode", "temporary"],
)
def test_file_that_its_path_does_not_stand_for_is_read(
    bridged: Bridged, make: Callable[[Path], Any], path: Path
) -> None:
    """The client gets what the app has open, whatever is at that path by now."""
    response = get(bridged(app_of(lambda: make(path))), PATHSEND)
    assert response.body == DATA
    assert response.complete


def test_file_of_proc_is_read() -> None:
    """Its size is 0, whatever is in it."""
    proc = Path("/proc/self/status")
    if not proc.exists():
        pytest.skip("there is no /proc")
    response = get(WSGIMiddleware(app_of(lambda: proc.open("rb"), None)), PATHSEND)
    assert response.body.startswith(b"Name:")


@pytest.mark.parametrize(("length", "position"), [(None, 0), (1000, 0), (len(DATA) - 5, 5)])
def test_file_that_is_not_sent_whole_is_read(bridged: Bridged, length: int | None, position: int, path: Path) -> None:
    """ASGI, "Path Send": the server sends all of it. Another length, or a part, has to be cut out here."""
    response = get(bridged(app_of(lambda: _at(path.open("rb"), position), length)), PATHSEND)
    assert response.body == DATA[position:][:length]
    assert response.complete


def test_file_after_a_written_chunk_is_read(path: Path) -> None:
    """ASGI, "Path Send": it "cannot be mixed with http.response.body"."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(len(DATA) + 5))])(b"first")
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](path.open("rb"))
        return wrapped

    assert get(WSGIMiddleware(app), PATHSEND).body == b"first" + DATA


def test_file_that_middleware_wraps_is_read(path: Path) -> None:
    """PEP 3333: only what the app returns itself is the wrapper's. Middleware may change what it iterates over."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        with path.open("rb") as file:
            for chunk in app_of(lambda: file)(environ, start_response):
                yield chunk.swapcase()

    assert get(WSGIMiddleware(app), PATHSEND).body == DATA.swapcase()


def test_file_that_the_app_has_closed_is_the_apps_error(path: Path) -> None:
    """It is that of reading a closed file."""
    file = path.open("rb")
    file.close()
    assert "closed" in str(get(WSGIMiddleware(app_of(lambda: file)), PATHSEND, fails=ValueError).raised)


def test_wrapper_before_a_head_is_the_apps_error(path: Path) -> None:
    """PEP 3333 wants the head first."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](path.open("rb"))
        return wrapped

    get(WSGIMiddleware(app), PATHSEND, fails=AppProtocolError)


# -- close() ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["deletes", "replaces"])
def test_file_that_close_takes_away_is_sent_all_the_same(bridged: Bridged, after: str, path: Path) -> None:
    """The server would open it too late: so it is read instead, from a descriptor of ours.

    Django's ``FileResponse`` sets the file's ``close`` to its own, too.
    """
    file = path.open("rb", buffering=0)
    plain = file.close

    def close() -> None:
        plain()
        path.unlink()
        if after == "replaces":
            path.write_bytes(DATA[::-1])

    file.close = close  # type: ignore[method-assign]
    response = get(bridged(app_of(lambda: file)), PATHSEND)
    assert response.body == DATA
    assert response.headers == [(b"content-length", b"256000")]


def test_close_that_fails_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The file is sent all the same, and ``close()`` is called once."""
    file = path.open("rb", buffering=0)
    plain = file.close
    calls: list[int] = []

    def close() -> None:
        calls.append(1)
        plain()
        raise OSError("odd")

    file.close = close  # type: ignore[method-assign]
    response = get(WSGIMiddleware(app_of(lambda: file)), PATHSEND)
    assert response.messages[1]["path"] == str(path)
    assert calls == [1]
    assert our_log(caplog) == [("ERROR", "close() of the WSGI app's iterable raised")]


@pytest.mark.parametrize("extensions", [PATHSEND, ZEROCOPYSEND], ids=["path", "descriptor"])
def test_server_that_refuses_a_file_gets_its_error_back(extensions: dict[str, Any], path: Path) -> None:
    """As any that its ``send()`` raises. Everything is closed."""
    file = path.open("rb")

    async def on_send(number: int, _: Message) -> None:
        if number == 2:
            raise RuntimeError("odd")

    get(WSGIMiddleware(app_of(lambda: file)), extensions, client=Client(on_send=on_send, strict=False),
        fails=RuntimeError)  # fmt: skip
    assert file.closed


# -- The descriptor goes out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("position", "length"), [(0, len(DATA)), (5, len(DATA) - 5), (0, 1000), (7, 1000)])
def test_descriptor_goes_out_where_the_server_offers_it(
    position: int, length: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ASGI, "Zero Copy Send": in pieces, each of which a client has to take in time. It is open while it is sent."""
    monkeypatch.setattr(_files, "PIECE_BYTES", 100_000)
    pieces: list[bytes] = []
    file = path.open("rb")

    async def on_send(_: int, message: Message) -> None:
        if message["type"] == "http.response.zerocopysend":
            pieces.append(os.pread(message["file"].fileno(), message["count"], message["offset"]))

    client = Client(on_send=on_send, strict=False)
    response = get(WSGIMiddleware(app_of(lambda: _at(file, position), length)), ZEROCOPYSEND, client=client)
    assert b"".join(pieces) == DATA[position:][:length]
    more = [message["more_body"] for message in response.messages[1:]]
    assert more == [True] * (len(pieces) - 1) + [False]
    assert {message["type"] for message in response.messages[1:]} == {"http.response.zerocopysend"}
    assert file.closed
    assert response.messages[1]["file"].closed


def test_path_goes_out_where_both_are_offered(path: Path) -> None:
    """Middleware above the bridge may know that, and not the other: Starlette's does."""
    response = get(WSGIMiddleware(app_of(lambda: path.open("rb"))), ZEROCOPYSEND | PATHSEND)
    assert response.messages[1] == {"type": "http.response.pathsend", "path": str(path)}


def test_descriptor_of_a_deleted_file_goes_out(path: Path) -> None:
    """It needs no name."""
    read: list[bytes] = []

    async def on_send(_: int, message: Message) -> None:
        if "file" in message:
            read.append(os.pread(message["file"].fileno(), message["count"], message["offset"]))

    client = Client(on_send=on_send, strict=False)
    get(WSGIMiddleware(app_of(lambda: _closed_name(path))), ZEROCOPYSEND, client=client)
    assert b"".join(read) == DATA


def test_descriptor_is_closed_when_the_client_leaves(path: Path) -> None:
    """In the middle of the file."""
    held: list[Any] = []

    async def on_send(_: int, message: Message) -> None:
        if "file" in message:
            held.append(message["file"])
            raise ConnectionResetError

    client = Client(on_send=on_send, strict=False)
    get(WSGIMiddleware(app_of(lambda: path.open("rb"))), ZEROCOPYSEND, client=client, fails=ConnectionResetError)
    assert held[0].closed


def test_descriptor_that_cannot_be_closed_ends_its_request_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network's file system. The server has sent all by then."""

    class FailingClose(OpenFile):
        def close(self) -> None:
            failing = not self.closed
            super().close()
            if failing:
                raise OSError(errno.EIO, "out of reach")

    monkeypatch.setattr(_files, "OpenFile", FailingClose)
    response = get(WSGIMiddleware(app_of(lambda: path.open("rb"))), ZEROCOPYSEND)
    assert [message["type"] for message in response.messages[1:]] == ["http.response.zerocopysend"]
    assert response.messages[1]["file"].closed


def test_socket_is_read() -> None:
    """It has a descriptor, and is no regular file."""
    ours, other = socket.socketpair()
    other.sendall(b"12345")
    other.close()
    with ours:
        response = get(WSGIMiddleware(app_of(lambda: ours.makefile("rb"), 5)), ZEROCOPYSEND)
    assert response.body == b"12345"


# -- Lengths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extensions", [{}, PATHSEND, ZEROCOPYSEND], ids=["read", "path", "descriptor"])
def test_file_that_is_shorter_than_it_says_breaks_the_response(extensions: dict[str, Any], path: Path) -> None:
    """RFC 9112 §8: its client is to see that."""
    app = app_of(lambda: path.open("rb"), len(DATA) + 1)
    response = get(WSGIMiddleware(app), extensions, fails=AppProtocolError)
    assert response.body == DATA
    assert not response.complete


def test_file_that_shrinks_while_it_is_read_breaks_the_response(path: Path) -> None:
    """Nothing is filled in."""

    class Shrinking(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            os.truncate(path, 70_000)
            return data or b""

    response = get(WSGIMiddleware(app_of(lambda: Shrinking(path))), PATHSEND, fails=AppProtocolError)
    assert response.body == DATA[:70_000]
    assert not response.complete


@pytest.mark.parametrize("left", [0, 150_000, len(DATA) - 1])
def test_descriptor_of_a_file_that_shrinks_breaks_the_response(
    left: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server's ``sendfile()`` sends what there is, and the client would take the next response for the rest."""
    monkeypatch.setattr(_files, "PIECE_BYTES", 100_000)

    async def on_send(number: int, _: Message) -> None:
        if number == 2:  # the first piece is on its way
            os.truncate(path, left)

    client = Client(on_send=on_send, strict=False)
    app = WSGIMiddleware(app_of(lambda: path.open("rb")))
    response = get(app, ZEROCOPYSEND, client=client, fails=AppProtocolError)
    assert "became shorter" in str(response.raised)
    assert not any(message["more_body"] is False for message in response.messages[1:])


def test_empty_file_is_an_empty_body(bridged: Bridged, path: Path) -> None:
    """There is nothing to be sent."""
    path.write_bytes(b"")
    response = get(bridged(app_of(lambda: path.open("rb"), 0)), PATHSEND)
    assert response.body == b""
    assert response.complete


# -- Frameworks -------------------------------------------------------------------------------------------------------


def test_flask_sends_a_file_by_its_path(bridged: Bridged, path: Path) -> None:
    """``send_file`` returns the wrapper itself."""
    flask = pytest.importorskip("flask")
    app = flask.Flask("app")
    app.get("/")(lambda: flask.send_file(path))
    assert get(bridged(app), PATHSEND).messages[1] == {"type": "http.response.pathsend", "path": str(path)}
    assert read_of(get(bridged(app), PATHSEND).messages) == get(bridged(app)).body == DATA


def test_whitenoise_sends_a_file_by_its_path(path: Path) -> None:
    """And a range of it by reading."""
    whitenoise = pytest.importorskip("whitenoise")
    app = WSGIMiddleware(whitenoise.WhiteNoise(None, root=path.parent, prefix="/static"))
    scope = http_scope(target="/static/file", extensions=PATHSEND)
    response = call(app, Client(strict=False), scope)
    assert response.messages[1] == {"type": "http.response.pathsend", "path": str(path)}
    response = call(app, scope={**scope, "headers": [(b"range", b"bytes=10-19")]})
    assert (response.status, response.body) == (206, DATA[10:20])


def test_file_passes_through_the_middleware_of_starlette(path: Path) -> None:
    """An app that is mounted there sends its files by their path all the same."""
    applications = pytest.importorskip("starlette.applications")
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.routing import Mount

    async def dispatch(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    app = applications.Starlette(
        routes=[Mount("/", WSGIMiddleware(app_of(lambda: path.open("rb"))))],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=dispatch), Middleware(GZipMiddleware)],
    )
    scope = http_scope(headers=[(b"accept-encoding", b"gzip")], extensions=PATHSEND)
    messages = call(app, Client(strict=False), scope).messages
    assert [message["type"] for message in messages] == ["http.response.start", "http.response.pathsend"]
    assert (b"content-length", b"256000") in messages[0]["headers"]
    assert messages[1]["path"] == str(path)
