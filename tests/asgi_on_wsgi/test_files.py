"""``http.response.pathsend``: an app's file is given to the server as a file, or read on the server's thread."""

from __future__ import annotations

import errno
import gc
import io
import os
import threading
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import anyio
import pytest

from a2wsgi import AppProtocolError
from a2wsgi._asgi_on_wsgi import files as _files
from a2wsgi._asgi_on_wsgi.files import SentFile, WrappedFile
from a2wsgi._protocol.files import plain_file
from support.asgi_bridges import Bridge, alone, body, threaded
from support.bridges import only_single
from support.lockstep import Signal
from support.threads import in_thread
from support.wsgi_driver import Exchange, call, environ_of

DATA = bytes(range(256)) * 1000
LENGTH = [(b"content-length", b"256000")]

ONE_BRIDGE = "it looks at what the server gets of one bridge"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of 256,000 bytes."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


def start(headers: Any = LENGTH, status: int = 200) -> dict[str, Any]:
    """A head."""
    return {"type": "http.response.start", "status": status, "headers": headers}


def pathsend(path: object) -> dict[str, Any]:
    """A file."""
    return {"type": "http.response.pathsend", "path": path if not isinstance(path, Path) else str(path)}


class Named:
    """Something that has a path."""

    def __init__(self, name: Any) -> None:
        self.name = name

    def __fspath__(self) -> Any:
        if isinstance(self.name, Exception):
            raise self.name
        return self.name


def app_of(path: object, headers: Any = LENGTH, status: int = 200, after: Callable[[], Any] | None = None) -> Any:
    """An app that sends a file, and then does something."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["extensions"]["http.response.pathsend"] == {}
        await send(start(headers, status))
        await send(pathsend(path))
        if after is not None:
            await after()

    return app


def environ_with(wrapper: Any = FileWrapper, method: str = "GET") -> dict[str, Any]:
    """The environ of a server that has a ``wsgi.file_wrapper``."""
    return environ_of(method, wsgi__file_wrapper=wrapper)


# -- The server's own wrapper -----------------------------------------------------------------------------------------


@alone(ONE_BRIDGE)
def test_server_gets_what_its_own_wrapper_makes_of_the_file(bridge: Bridge, path: Path) -> None:
    """PEP 3333, "Optional Platform-Specific File Handling": returned itself, with a file that has a descriptor."""
    exchange = Exchange(bridge(app_of(path)), environ_with()).begin()
    wrapped = exchange.iterable
    assert type(wrapped) is FileWrapper
    assert (exchange.status, exchange.headers) == ("200 OK", [("content-length", "256000")])
    assert os.pread(wrapped.filelike.fileno(), 300_000, 0) == DATA
    assert wrapped.filelike.tell() == 0
    exchange.close()
    exchange.close()
    for ask in (wrapped.filelike.read, wrapped.filelike.fileno, wrapped.filelike.tell):
        with pytest.raises(ValueError, match="is closed"):  # as of any file
            ask()
    assert plain_file(wrapped.filelike) is None


@pytest.mark.parametrize("wrapper", [None, FileWrapper], ids=["read", "wrapper"])
def test_file_arrives_whole(bridge: Bridge, wrapper: Any, path: Path) -> None:
    """By the server's wrapper, or by our reading."""
    response = call(bridge(app_of(path)), environ_with(wrapper))
    assert (response.status, response.body) == ("200 OK", DATA)
    assert response.fields == [("content-length", "256000")]


@alone(ONE_BRIDGE)
def test_wrapper_that_gives_the_file_itself_can_be_iterated(bridge: Bridge, path: Path) -> None:
    """That of uWSGI does; middleware that iterates over it gets blocks, and not lines."""
    exchange = Exchange(bridge(app_of(path)), environ_with(lambda file, _: file)).begin()
    assert type(exchange.iterable) is WrappedFile
    chunks = list(exchange.iterator)
    assert b"".join(chunks) == DATA
    assert max(map(len, chunks)) == 65_536
    exchange.close()


@alone(ONE_BRIDGE)
def test_wrapped_file_can_be_looked_through_as_waitress_does(bridge: Bridge, path: Path) -> None:
    """It seeks to the end and back, and reads a block twice."""
    exchange = Exchange(bridge(app_of(path)), environ_with(lambda file, _: file)).begin()
    file: Any = exchange.iterable
    assert file.seekable()
    assert file.seek(0, os.SEEK_END) == file.tell() == len(DATA)
    assert file.read(10) == b""
    file.seek(0)
    assert file.read() == DATA
    exchange.close()


@alone(ONE_BRIDGE)
def test_wrapper_that_fails_is_done_without(bridge: Bridge, path: Path) -> None:
    """It may be anybody's, and have read a part of the file."""

    def wrapper(file: Any, size: int) -> Any:
        file.read(10)
        raise TypeError("odd")

    assert call(bridge(app_of(path)), environ_with(wrapper)).body == DATA


class FailingClose(io.FileIO):
    """A file on a network's file system that is out of reach by then."""

    def close(self) -> None:
        failing = not self.closed
        super().close()
        if failing:
            raise OSError(errno.EIO, "out of reach")


@alone(ONE_BRIDGE)
def test_file_that_cannot_be_closed_ends_its_request_all_the_same(
    bridge: Bridge, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app goes on, and its failure is told."""

    async def after() -> None:
        raise LookupError("after the response")

    monkeypatch.setattr(_files, "io", types.SimpleNamespace(FileIO=FailingClose))
    exchange = Exchange(bridge(app_of(path, after=after)), environ_with()).begin()
    assert b"".join(exchange.iterator) == DATA
    with pytest.raises(LookupError):
        exchange.close()


@alone(ONE_BRIDGE)
def test_file_that_comes_turns_after_its_head_is_given_to_the_wrapper(bridge: Bridge, path: Path) -> None:
    """Starlette's BaseHTTPMiddleware passes messages on between two tasks."""
    base = pytest.importorskip("starlette.middleware.base")

    class Middleware(base.BaseHTTPMiddleware):  # type: ignore[misc, name-defined, unused-ignore]
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            return await call_next(request)

    app = Middleware(Middleware(app_of(path)))
    exchange = Exchange(bridge(app), environ_with()).begin()
    assert type(exchange.iterable) is FileWrapper
    assert b"".join(exchange.iterator) == DATA
    exchange.close()


# -- Read by us -------------------------------------------------------------------------------------------------------


def test_file_is_read_in_blocks_on_the_servers_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never on the loop, which is everybody's."""
    threads: set[int] = set()
    read, opened = SentFile.read, SentFile.open

    def seen_read(self: SentFile, size: int = -1) -> bytes:
        threads.add(threading.get_ident())
        assert size == 65_536
        return read(self, size)

    def seen_open(self: SentFile) -> None:
        threads.add(threading.get_ident())
        opened(self)

    monkeypatch.setattr(SentFile, "read", seen_read)
    monkeypatch.setattr(SentFile, "open", seen_open)
    with threaded()(app_of(path)) as bridge:
        assert call(bridge).body == DATA
    assert threads == {threading.get_ident()}


@alone("PEP 3333 between two bridges has the head wait for the first chunk that is not empty")
def test_file_that_comes_after_the_head_was_given_is_read(bridge: Bridge, path: Path) -> None:
    """It is too late for the server's wrapper then."""
    given = Signal("the head was given")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await given.wait_in_task()
        await send(pathsend(path))

    exchange = Exchange(bridge(app), environ_with()).begin()
    assert exchange.status == "200 OK"
    given.set()
    assert b"".join(exchange.iterator) == DATA
    exchange.close()


@pytest.mark.parametrize("wrapper", [None, FileWrapper], ids=["read", "wrapper"])
def test_file_that_is_longer_than_it_says_is_cut(bridge: Bridge, wrapper: Any, path: Path) -> None:
    """The wrapper of uWSGI would send all of it, for the client to take as the next response."""
    response = call(bridge(app_of(path, [(b"content-length", b"1000")])), environ_with(wrapper))
    assert response.body == DATA[:1000]


@alone("between two bridges the server adds a length or not, as it would without us")
def test_file_without_a_length_gets_one(bridge: Bridge, path: Path) -> None:
    """As a response in one piece does. A file of ``/proc``, which says that it is empty, is read to its end."""
    response = call(bridge(app_of(path, [])), environ_with())
    assert (response.fields, response.body) == ([("content-length", "256000")], DATA)
    if Path("/proc/self/status").exists():
        response = call(bridge(app_of("/proc/self/status", [])), environ_with())
        assert response.fields == []
        assert response.body.startswith(b"Name:")


def test_empty_file_is_an_empty_body(bridge: Bridge, path: Path) -> None:
    """There is nothing to be sent."""
    path.write_bytes(b"")
    assert call(bridge(app_of(path, [(b"content-length", b"0")])), environ_with()).body == b""


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304)])
def test_response_without_a_body_opens_no_file(bridge: Bridge, method: str, status: int) -> None:
    """RFC 9110 §9.3.2, §15.4.5. Native servers look for none, either."""
    response = call(bridge(app_of("/missing", status=status)), environ_with(method=method))
    assert response.status is not None
    assert response.status.startswith(str(status))
    assert response.body == b""


# -- What goes wrong --------------------------------------------------------------------------------------------------


def _fifo(directory: Path) -> Path:
    os.mkfifo(directory / "fifo")
    return directory / "fifo"


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda directory: directory / "missing", FileNotFoundError),
        (lambda directory: directory, IsADirectoryError),
        (_fifo, AppProtocolError),
        (lambda directory: f"{directory}/\0", ValueError),
        (lambda directory: None, AppProtocolError),
        (lambda directory: b"/file", AppProtocolError),
        (lambda directory: Named(b"/file"), AppProtocolError),
        (lambda directory: Named(1), AppProtocolError),
        (lambda directory: Named(LookupError("no name")), AppProtocolError),
    ],
    ids=["missing", "directory", "fifo", "NUL", "none", "bytes", "of bytes", "of an int", "of none"],
)
def test_what_cannot_be_sent_raises_in_the_apps_send(
    bridge: Bridge, make: Callable[[Path], Any], kind: type[Exception], tmp_path: Path
) -> None:
    """ASGI, "Error Handling". Nothing was given to the server, so the error becomes its error page."""
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        try:
            await send(pathsend(make(tmp_path)))
        except BaseException as error:
            raised.append(error)
            raise

    response = call(bridge(app), environ_with(), fails=kind)
    assert response.status is None
    assert response.raised is raised[0]


def test_path_may_be_a_path(bridge: Bridge, path: Path) -> None:
    """ASGI wants a str, and freezeyt sends a ``pathlib.Path``."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send({"type": "http.response.pathsend", "path": path})

    assert call(bridge(app), environ_with()).body == DATA


def test_app_that_catches_the_error_may_send_a_body(bridge: Bridge, path: Path) -> None:
    """Or another file."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start([]))
        for missing in ("/missing", "/missing too"):
            with pytest.raises(FileNotFoundError):
                await send(pathsend(missing))
        if scope["path"] == "/file":
            await send(pathsend(path))
        else:
            await send(body(b"none "))
            await send(body(b"ignored"))

    served = bridge(app)
    assert call(served, environ_with()).body == b"none "
    assert call(served, environ_of(path="/file")).body == DATA


def test_file_that_is_shorter_than_it_says_raises_in_the_apps_send(bridge: Bridge, path: Path) -> None:
    """RFC 9112 §8, before the head is given."""
    app = bridge(app_of(path, [(b"content-length", b"256001")]))
    response = call(app, environ_with(), fails=AppProtocolError)
    assert response.status is None
    assert "1 bytes shorter" in str(response.raised)


def test_file_that_shrinks_while_it_is_read_breaks_the_response(bridge: Bridge, path: Path) -> None:
    """RFC 9112 §8: nothing is filled in."""
    exchange = Exchange(bridge(app_of(path)), environ_of()).begin()
    chunks: list[bytes] = []

    def take() -> None:
        for chunk in exchange.iterator:
            chunks.append(chunk)
            os.truncate(path, 100)

    with pytest.raises(AppProtocolError):
        take()
    exchange.close()
    assert len(b"".join(chunks)) < len(DATA)


@alone(ONE_BRIDGE)
def test_file_that_shrinks_while_the_server_sends_it_breaks_the_connection(bridge: Bridge, path: Path) -> None:
    """A server that sends it unread does not notice. gunicorn keeps the connection, unless ``close()`` raises."""
    exchange = Exchange(bridge(app_of(path)), environ_with()).begin()
    os.truncate(path, 100)
    with pytest.raises(AppProtocolError, match="shorter"):
        exchange.close()


@pytest.mark.parametrize(
    "messages",
    [[pathsend("/file")], [start(), body(b"x", more=True), start()]],
    ids=["file before the head", "two heads"],
)
def test_messages_out_of_turn_are_the_apps_error(bridge: Bridge, messages: list[Any]) -> None:
    """ASGI HTTP 2.5, "Response Start"."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    call(bridge(app), environ_with(), fails=AppProtocolError)


@only_single("an inline loop stands still while the file is opened", "bridge", ["thread", "loop", "uvloop", "trio"])
def test_another_body_beside_a_file_is_the_apps_error(
    bridge: Bridge, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ASGI, "Path Send": it "cannot be mixed with http.response.body". The file is sent all the same."""
    opens, refused = Signal("the file is being opened"), Signal("both were refused")
    opened = SentFile.open

    def wait_and_open(self: SentFile) -> None:
        opens.set()
        refused.wait()
        opened(self)

    monkeypatch.setattr(SentFile, "open", wait_and_open)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        async with anyio.create_task_group() as group:
            group.start_soon(send, pathsend(path))
            await opens.wait_in_task()
            for message in (body(b"x"), pathsend(path)):
                with pytest.raises(AppProtocolError, match="pathsend"):
                    await send(message)
            refused.set()

    assert call(bridge(app), environ_with()).body == DATA


# -- After the file ---------------------------------------------------------------------------------------------------


def test_app_goes_on_after_its_file(bridge: Bridge, path: Path) -> None:
    """``close()`` waits for what the app does then."""
    done: list[bool] = []

    async def after() -> None:
        done.append(True)

    response = call(bridge(app_of(path, after=after)), environ_with())
    assert response.body == DATA
    assert done == [True]


@alone("a bridge between two others opens the path later, as granian does")
@pytest.mark.parametrize("wrapper", [None, FileWrapper], ids=["read", "wrapper"])
def test_app_may_delete_its_file_when_send_has_returned(bridge: Bridge, wrapper: Any, path: Path) -> None:
    """It is open by then. Starlette's background tasks do that."""

    async def after() -> None:
        os.unlink(path)  # noqa: PTH108 - ASYNC240 would have none of Path's

    response = call(bridge(app_of(path, after=after)), environ_with(wrapper))
    assert response.body == DATA
    assert not path.exists()


def test_error_after_the_file_is_raised_by_close(bridge: Bridge, path: Path) -> None:
    """As after any complete response."""

    async def after() -> None:
        raise ZeroDivisionError

    response = call(bridge(app_of(path, after=after)), environ_with(), fails=ZeroDivisionError)
    assert (response.body, response.where) == (DATA, "close")


@pytest.mark.parametrize("wrapper", [None, FileWrapper], ids=["read", "wrapper"])
def test_close_waits_for_nothing_if_background_work_is_detached(wrapper: Any, path: Path) -> None:
    """The app goes on."""
    going_on, over = Signal("may go on"), Signal("is over")

    async def after() -> None:
        await going_on.wait_in_task()
        over.set()

    with threaded(detach_background=True)(app_of(path, after=after)) as bridge:
        assert call(bridge, environ_with(wrapper)).body == DATA
        going_on.set()
        over.wait()


def test_close_on_another_thread_waits_for_nothing(path: Path) -> None:
    """That is how waitress closes a file: on the thread of all its connections. The app goes on."""
    going_on, over = Signal("may go on"), Signal("is over")

    async def after() -> None:
        await going_on.wait_in_task()
        over.set()

    with threaded()(app_of(path, after=after)) as bridge:
        exchange = Exchange(bridge, environ_with()).begin()
        in_thread(exchange.close).result()
        going_on.set()
        over.wait()


def test_waitress_reads_for_an_inline_bridge_what_nobody_else_could_end(path: Path) -> None:
    """Between requests nobody runs an inline loop, so ``close()`` must come from the thread of the request."""
    buffers = pytest.importorskip("waitress.buffers")
    with threaded(inline=True)(app_of(path)) as bridge:
        exchange = Exchange(bridge, environ_with(buffers.ReadOnlyFileBasedBuffer)).begin()
        assert not isinstance(exchange.iterable, buffers.ReadOnlyFileBasedBuffer)
        assert b"".join(exchange.iterator) == DATA
        exchange.close()


@alone(ONE_BRIDGE)
def test_file_that_is_dropped_is_closed(bridge: Bridge, path: Path) -> None:
    """Some servers forget ``close()``, and so does some middleware."""
    for wrapper in (None, FileWrapper):
        exchange = Exchange(bridge(app_of(path)), environ_with(wrapper)).begin()
        del exchange
    gc.collect()


def test_file_is_closed_if_the_server_takes_no_head(bridge: Bridge, path: Path) -> None:
    """Its ``start_response()`` raised."""

    def start_response(*_: object) -> Any:
        raise ZeroDivisionError

    for wrapper in (None, FileWrapper):
        with pytest.raises(ZeroDivisionError):
            bridge(app_of(path))(environ_with(wrapper), start_response)


# -- Frameworks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def starlette(path: Path) -> Any:
    """An app of Starlette's, with files."""
    applications = pytest.importorskip("starlette.applications")
    from starlette.responses import FileResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    async def file(request: Any) -> Any:
        return FileResponse(path)

    routes = [Route("/file", file), Mount("/static", StaticFiles(directory=path.parent))]
    return applications.Starlette(routes=routes)


@alone(ONE_BRIDGE)
@pytest.mark.parametrize("target", ["/file", "/static/file"])
def test_starlettes_files_are_given_to_the_servers_wrapper(bridge: Bridge, starlette: Any, target: str) -> None:
    """``FileResponse`` and ``StaticFiles`` send a path where they may."""

    def get(**others: Any) -> tuple[type, Any, bytes]:
        environ = environ_of(path=target, wsgi__file_wrapper=FileWrapper, **others)
        exchange = Exchange(served, environ).begin()
        iterable: Iterable[bytes] = exchange.iterable
        data = b"".join(iterable)
        exchange.close()
        return type(iterable), exchange.status, data

    served = bridge(starlette)
    assert get() == (FileWrapper, "200 OK", DATA)
    assert get(HTTP_RANGE="bytes=10-19")[1:] == ("206 Partial Content", DATA[10:20])
    assert get(REQUEST_METHOD="HEAD")[1:] == ("200 OK", b"")
    if target == "/static/file":
        etag = dict(call(served, environ_of(path=target)).fields)["etag"]
        assert get(HTTP_IF_NONE_MATCH=etag)[1:] == ("304 Not Modified", b"")
