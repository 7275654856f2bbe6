"""PEP 3333, the server's side, as a WSGI app sees it under `WSGIMiddleware`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote
from wsgiref.validate import validator

import pytest

from a2wsgi import AppProtocolError, InvalidHeader
from a2wsgi._wsgi_on_asgi.files import FileWrapper
from a2wsgi.wsgi_typing import Environ, StartResponse
from apps import echo, hello
from apps.counting import Counting
from apps.recording import Recording
from support.asgi_driver import Client, Message, answer, call, http_scope, messages_of, run
from support.bridges import Bridged, only_single
from support.lockstep import Lockstep, Signal
from support.runtimes import rest, start

pytestmark = pytest.mark.usefixtures("runtime")


def environ_of(bridged: Bridged, scope: dict[str, Any], *body: bytes) -> Environ:
    """The environ that an app gets for a request."""
    app = Recording()
    call(bridged(app), Client(*body), scope)
    return app.environ


# -- The app ----------------------------------------------------------------------------------------------------------


def test_app_is_called_with_two_positional_arguments(bridged: Bridged) -> None:
    """PEP 3333, "The Application/Framework Side": two positional arguments, whatever their names."""

    def app(*args: Any, **kwargs: Any) -> Iterable[bytes]:
        assert (len(args), kwargs) == (2, {})
        return hello.app(*args)

    assert call(bridged(app)).body == b"hello"


def test_app_may_be_a_class(bridged: Bridged) -> None:
    """PEP 3333, "The Application/Framework Side": a class whose instances are the iterables will do."""

    class App:
        def __init__(self, environ: Environ, start_response: StartResponse) -> None:
            self.start_response = start_response

        def __iter__(self) -> Iterator[bytes]:
            self.start_response("200 OK", [])
            yield b"of a class"

    assert call(bridged(App)).body == b"of a class"


def test_app_is_called_once_a_request(bridged: Bridged) -> None:
    """PEP 3333, "The Server/Gateway Side": the server invokes the app once for each request."""
    app = Counting([b"x"])
    bridge = bridged(app)
    for _ in range(3):
        call(bridge)
    assert (app.calls, app.closes) == (3, 3)


# -- environ ----------------------------------------------------------------------------------------------------------


def test_environ_is_a_builtin_dict_of_the_apps_own(bridged: Bridged) -> None:
    """PEP 3333, "Specification Details": a builtin dict, no subclass, which the app may modify as it likes."""
    scope = http_scope("POST", "/x?y", [(b"x-name", b"1")])
    before = {**scope, "headers": list(scope["headers"])}

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert type(environ) is dict
        environ.clear()
        start_response("200 OK", [])
        return [b"x"]

    assert call(bridged(app), None, scope).body == b"x"
    assert scope == before


@pytest.mark.parametrize(("method", "other", "body"), [("HEAD", "GET", b""), ("POST", "HEAD", b"hello")])
@pytest.mark.parametrize("kind", [list, iter])
def test_environ_method_of_the_app_changes_nothing(
    bridged: Bridged, method: str, other: str, body: bytes, kind: Callable[[list[bytes]], Iterable[bytes]]
) -> None:
    """PEP 3333, "Specification Details": a method that a middleware overrides is still the request's to the client."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["REQUEST_METHOD"] = other
        start_response("200 OK", [("Content-Length", "5")])
        return kind([b"hello"])

    response = call(bridged(app), None, http_scope(method))
    assert (response.headers, response.body) == ([(b"content-length", b"5")], body)
    assert response.complete


@pytest.mark.parametrize("server", [("127.0.0.1", 8000), ("/run/app.sock", None), None, ("", 0)])
def test_environ_has_what_must_never_be_empty(bridged: Bridged, server: object) -> None:
    """PEP 3333, "environ Variables": SERVER_NAME, SERVER_PORT, REQUEST_METHOD and SERVER_PROTOCOL are never empty."""
    for headers in ([], [(b"host", b"example.org")]):
        environ = environ_of(bridged, http_scope(headers=headers, server=server))
        for key in ("SERVER_NAME", "SERVER_PORT", "REQUEST_METHOD", "SERVER_PROTOCOL"):
            assert type(environ[key]) is str
            assert environ[key]


@pytest.mark.parametrize(
    ("method", "headers"), [("GET", []), ("POST", [(b"content-type", b"text/plain"), (b"content-length", b"0")])]
)
def test_environ_has_the_wsgi_variables(bridged: Bridged, method: str, headers: list[tuple[bytes, bytes]]) -> None:
    """PEP 3333, "environ Variables": each of the wsgi.* is there, with its type."""
    environ = environ_of(bridged, http_scope(method, headers=headers))
    assert {key: value for key, value in environ.items() if key.startswith("wsgi.")} == {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": environ["wsgi.input"],
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
    }


def test_environ_strings_are_native_and_latin_1(bridged: Bridged) -> None:
    """PEP 3333, "Unicode Issues": strings are native, and hold bytes as code points below 256."""
    scope = http_scope(
        target="/%E2%82%AC/%FF",
        headers=[(b"x-raw", b"\xe2\x82\xac")],
        query_string="q=€".encode(),
        root_path="/é",
    )
    scope["path"], scope["raw_path"] = "/é/€/\ufffd", b"/%C3%A9/%E2%82%AC/%FF"
    environ = environ_of(bridged, scope)
    names = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "HTTP_X_RAW")
    assert {name: environ[name].encode("latin-1") for name in names} == {
        "SCRIPT_NAME": "/é".encode(),
        "PATH_INFO": "/€/".encode() + b"\xff",
        "QUERY_STRING": "q=€".encode(),
        "HTTP_X_RAW": "€".encode(),
    }
    assert all(type(value) is str for key, value in environ.items() if "." not in key)


@pytest.mark.parametrize(
    "url", ["http://testserver/", "http://testserver/a/b?c=d", "https://testserver/%E2%82%AC/x%20y?z=%20"]
)
def test_environ_reconstructs_the_url(bridged: Bridged, url: str) -> None:
    """PEP 3333, "URL Reconstruction": the recipe of the PEP gives the URL of the request."""
    scheme, _, rest = url.partition("://")
    environ = environ_of(bridged, http_scope(target=rest.removeprefix("testserver"), scheme=scheme, root_path=""))
    again = environ["wsgi.url_scheme"] + "://" + environ["HTTP_HOST"]
    again += quote(environ["SCRIPT_NAME"], encoding="latin-1") + quote(environ["PATH_INFO"], encoding="latin-1")
    assert again + ("?" + environ["QUERY_STRING"] if environ["QUERY_STRING"] else "") == url


# -- Input and error streams ------------------------------------------------------------------------------------------

BODY = b"one\ntwo\n\nthree"
CUTS = pytest.mark.parametrize(
    "parts", [(BODY,), (BODY[:5], BODY[5:]), tuple(BODY[i : i + 1] for i in range(len(BODY)))], ids=len
)
STREAMED = pytest.mark.parametrize("buffer_bytes", [65_536, 3, 0])


READS: list[Callable[[Any], object]] = [
    lambda stream: [stream.read(4), stream.read(0), stream.read(100), stream.read(1), stream.read()],
    lambda stream: [stream.read(-1), stream.read(-1)],
    lambda stream: [stream.readline(), stream.readline(2), stream.readline(), stream.readline(), stream.readline()],
    lambda stream: [stream.readlines(), stream.readlines()],
    lambda stream: [stream.readlines(4), stream.readlines(1)],
    list,
    lambda stream: [stream.readline(), next(iter(stream)), stream.read(2), list(stream)],
]


@CUTS
@STREAMED
def test_input_reads_as_a_file(bridged: Bridged, parts: tuple[bytes, ...], buffer_bytes: int) -> None:
    """PEP 3333, "Input and Error Streams": read, readline, readlines and iteration have the semantics of files."""

    async def main() -> None:
        for read in READS:
            results: list[object] = []

            def app(
                environ: Environ,
                start_response: StartResponse,
                read: Callable[[Any], object] = read,
                results: list[object] = results,
            ) -> Iterable[bytes]:
                results.append(read(environ["wsgi.input"]))
                return hello.app(environ, start_response)

            await answer(bridged(app, request_buffer_bytes=buffer_bytes), Client(*parts), http_scope("POST"))
            assert results == [read(io.BufferedReader(io.BytesIO(BODY)))]

    run(main())


def test_input_simulates_the_end(bridged: Bridged) -> None:
    """PEP 3333, "Input and Error Streams": past the content length there is an end of file, never a wait."""
    reads: list[bytes] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        reads.extend([environ["wsgi.input"].read(100), environ["wsgi.input"].read(100)])
        return hello.app(environ, start_response)

    scope = http_scope("POST", headers=[(b"content-length", b"3")])
    call(bridged(app), Client(b"abc"), scope)
    assert reads == [b"abc", b""]


def test_errors_is_a_text_stream(bridged: Bridged, capsys: pytest.CaptureFixture[str]) -> None:
    """PEP 3333, "Input and Error Streams": flush, write and writelines of text; it goes to the server's log."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.errors"].write("one\n")
        environ["wsgi.errors"].writelines(["two\n", "three\n"])
        environ["wsgi.errors"].flush()
        return hello.app(environ, start_response)

    call(bridged(app))
    assert capsys.readouterr() == ("", "one\ntwo\nthree\n")


# -- start_response ---------------------------------------------------------------------------------------------------


def test_start_response_is_not_sent_before_the_body(bridged: Bridged) -> None:
    """PEP 3333, "The start_response() Callable": headers wait for the first chunk that is not empty."""
    step = Lockstep()
    client = Client()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b""
        with step(1):
            pass
        yield b""
        with step(3):
            pass
        yield b"x"
        sent.wait()

    sent = Signal("the chunk was sent")

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if number == 2:
                sent.set()

        nonlocal client
        client = Client(on_send=on_send)
        task = start(answer(bridged(app), client))
        async with step(2):
            for _ in range(20):
                await rest()
            assert client.sent == []
        assert (await task).messages == messages_of(200, [], b"x", b"")

    run(main())


def test_start_response_is_sent_with_an_empty_iterable(bridged: Bridged) -> None:
    """PEP 3333, "The start_response() Callable": if the iterable is empty the headers are sent at its end."""
    for chunks in ([], [b""], iter([]), iter([b"", b""])):
        app = Counting(chunks, "404 Not Found", [("X-One", "1")])
        response = call(bridged(app))
        assert (response.status, response.headers[0], response.body) == (404, (b"x-one", b"1"), b"")
        assert response.complete


def test_start_response_may_be_called_by_the_first_iteration(bridged: Bridged) -> None:
    """PEP 3333, "Specification Details": the server must not assume that it is called before the iteration."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        yield b""
        start_response("201 Created", [])
        yield b"x"

    response = call(bridged(app))
    assert (response.status, response.body) == (201, b"x")


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize("chunks", [[b"x"], []], ids=["chunk", "empty"])
def test_start_response_that_is_never_called_is_an_error(
    bridged: Bridged, kind: Callable[[list[bytes]], Iterable[bytes]], chunks: list[bytes]
) -> None:
    """PEP 3333, "Specification Details": the app must call it before its first body bytestring."""
    response = call(bridged(lambda environ, start_response: kind(chunks)), fails=AppProtocolError)
    assert response.messages == []
    assert "before it called start_response()" in str(response.raised)


def test_start_response_twice_is_an_error(bridged: Bridged) -> None:
    """PEP 3333, "The start_response() Callable": a second call without exc_info is a fatal error."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        start_response("200 OK", [])
        return [b"x"]

    response = call(bridged(app), fails=AppProtocolError)
    assert response.messages == []
    assert "called start_response() a second time without exc_info" in str(response.raised)


def test_start_response_with_exc_info_replaces_the_head(bridged: Bridged) -> None:
    """PEP 3333, "Error Handling": before anything is sent the error's head takes the place of the first."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("X-First", "1"), ("Content-Length", "100")])
        try:
            raise ValueError("x")  # noqa: TRY301  # as an app does
        except ValueError:
            start_response("500 Oops", [("X-Second", "2")], sys.exc_info())
        return [b"error page"]

    response = call(bridged(app))
    assert response.messages == messages_of(500, [(b"x-second", b"2"), (b"content-length", b"10")], b"error page")


def test_start_response_with_exc_info_may_be_the_first(bridged: Bridged) -> None:
    """PEP 3333, "The start_response() Callable": exc_info with no head before it is a plain head."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            raise ValueError("x")  # noqa: TRY301  # as an app does
        except ValueError:
            start_response("500 Oops", [], sys.exc_info())
        return [b"error page"]

    assert call(bridged(app)).status == 500


@only_single("where nothing of the response has left the outer bridge yet, an error takes its place")
@pytest.mark.parametrize("how", ["yield", "write", "write nothing"])
def test_start_response_with_exc_info_raises_once_headers_are_sent(bridged: Bridged, how: str) -> None:
    """PEP 3333, "Error Handling": after the headers it raises what it was given, with its traceback."""
    error = ValueError("in the middle")
    seen: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        if how == "yield":
            yield b"first"
        else:
            write(b"first" if how == "write" else b"")
        try:
            raise error
        except ValueError as caught:
            traceback = caught.__traceback__
            try:
                start_response("500 Oops", [], sys.exc_info())
            except ValueError as again:
                seen.append((again is error, traceback in _tracebacks(again)))
                raise
        yield b"never"

    response = call(bridged(app), fails=ValueError)
    assert response.raised is error
    assert seen == [(True, True)]
    assert (response.status, response.complete) == (200, False)
    assert response.body == (b"" if how == "write nothing" else b"first")


def test_start_response_with_exc_info_raises_once_the_client_has_a_part(bridged: Bridged) -> None:
    """PEP 3333, "Error Handling": a response that has begun is cut off, and the error raised to the server."""
    error = ValueError("in the middle")
    sent = Signal("the first chunk was sent")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"first"
        sent.wait()
        try:
            raise error
        except ValueError:
            start_response("500 Oops", [], sys.exc_info())
        yield b"never"

    async def on_send(_: int, message: Message) -> None:
        if message.get("body"):
            sent.set()

    response = call(bridged(app), Client(on_send=on_send), fails=ValueError)
    assert response.raised is error
    assert response.messages == messages_of(200, [], b"first", b"")[:-1]


def _tracebacks(error: BaseException) -> list[object]:
    found: list[object] = []
    traceback = error.__traceback__
    while traceback is not None:
        found.append(traceback)
        traceback = traceback.tb_next
    return found


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        ("200 OK", [("X\r\nEvil", "1")], InvalidHeader),
        ("200 OK", [("X-One", "1\r\nX-Evil: 1")], InvalidHeader),
        ("200 OK\r\nX-Evil: 1", [], InvalidHeader),
        ("200 OK", [("X-One", "1\0")], InvalidHeader),
        ("200 OK", [("X-One", "€")], InvalidHeader),
        ("200 OK", [("X-One", 1)], AppProtocolError),
        ("200 OK", [(b"X-One", b"1")], AppProtocolError),
        (200, [], AppProtocolError),
        (b"200 OK", [], AppProtocolError),
        ("OK", [], AppProtocolError),
        ("2000", [], AppProtocolError),
    ],
)
def test_start_response_checks_its_arguments_at_once(
    bridged: Bridged, status: Any, headers: Any, kind: type[Exception]
) -> None:
    """PEP 3333, "The start_response() Callable": an error is raised while the app is still running, nothing is sent."""
    caught: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            start_response(status, headers)
        except kind as error:
            caught.append(type(error).__name__)
        start_response("500 Oops", [])
        return [b"error page"]

    assert call(bridged(app)).body == b"error page"
    assert caught == [kind.__name__]


# -- write() ----------------------------------------------------------------------------------------------------------


def test_write_comes_before_the_iterable(bridged: Bridged) -> None:
    """PEP 3333, "The write() Callable": what is written is sent before what the iterable gives, and both in order."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"a")
        write(b"b")
        return [b"c", b"d"]

    assert call(bridged(app)).body == b"abcd"


def test_write_does_not_spare_the_iterable(bridged: Bridged) -> None:
    """PEP 3333, "The write() Callable": an iterable is returned and iterated over even where write() did all."""
    app = Counting([])

    def writing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]]) -> Callable[[bytes], object]:
            write = start_response(status, headers)
            write(b"all of it")
            return write

        return app(environ, start)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    assert call(bridged(writing)).body == b"all of it"
    assert app.closes == 1


# Through more than one bridge an empty write() is an empty chunk between them, and for that the head waits.
@pytest.mark.parametrize(
    ("bridged", "data"), [("single", b""), ("single", b"x"), ("nested", b"x")], indirect=["bridged"]
)
def test_write_sends_the_headers_at_once(bridged: Bridged, data: bytes) -> None:
    """PEP 3333, "The write() Callable": the first call sends the headers, also with nothing to write."""
    sent = Signal("the head was sent")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])(data)
        sent.wait()
        return [b"y"]

    async def main() -> None:
        async def on_send(_: int, __: Message) -> None:
            sent.set()

        response = await answer(bridged(app), Client(on_send=on_send))
        assert response.body == data + b"y"

    run(main())


def test_write_refuses_what_is_not_bytes(bridged: Bridged) -> None:
    """PEP 3333, "The write() Callable": it accepts bytestrings."""
    caught: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        try:
            write("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        except AppProtocolError as error:
            caught.append(str(error))
        return [b"x"]

    assert call(bridged(app)).body == b"x"
    assert "a chunk of type str" in caught[0]


# -- The iterable -----------------------------------------------------------------------------------------------------


def test_iterable_of_one_chunk_says_its_length_first(bridged: Bridged) -> None:
    """PEP 3333, "Handling the Content-Length Header": of an iterable whose len() is 1 the chunk's is the length."""

    class One:
        def __len__(self) -> int:
            return 1

        def __iter__(self) -> Iterator[bytes]:
            yield b"hello"

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return One()

    assert call(bridged(app)).headers == [(b"content-length", b"5")]


def test_iterable_whose_own_iter_raises_fails_with_that(bridged: Bridged) -> None:
    """PEP 3333, "Error Handling": a TypeError of the app's own is not taken for a missing ``__iter__``."""

    class Broken:
        def __iter__(self) -> Iterator[bytes]:
            raise TypeError("mine")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Broken()

    with pytest.raises(TypeError, match=r"^mine$"):
        call(bridged(app))


@pytest.mark.parametrize("returned", [None, 5, object()], ids=["none", "number", "object"])
def test_iterable_that_is_none_is_an_error(bridged: Bridged, returned: Any) -> None:
    """PEP 3333, "The Application/Framework Side": the app returns an iterable."""

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return returned

    response = call(bridged(app), fails=AppProtocolError)
    assert f"returned {type(returned).__name__}, which is not iterable" in str(response.raised)


@pytest.mark.parametrize("returned", [b"bytes", "text"])
def test_iterable_that_is_a_string_is_an_error(bridged: Bridged, returned: Any) -> None:
    """PEP 3333, "The Application/Framework Side": an iterable of bytestrings, which no string is."""

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return returned

    response = call(bridged(app), fails=AppProtocolError)
    assert response.messages == []


@pytest.mark.parametrize(
    "chunks",
    [[b"x", b"y"], [], [b"x", ValueError("in the middle"), b"y"], [ValueError("at once")], [b"", b"x"]],
    ids=["complete", "empty", "failing", "failing at once", "empty first"],
)
def test_close_is_called_once_in_the_thread_of_the_app(bridged: Bridged, chunks: list[bytes | BaseException]) -> None:
    """PEP 3333, "Specification Details": close() is called however the request ends."""
    app = Counting([chunk if isinstance(chunk, bytes) else ValueError("x") for chunk in chunks])
    call(bridged(app), fails=ValueError if any(isinstance(chunk, ValueError) for chunk in chunks) else None)
    assert (app.calls, app.closes, len(app.threads)) == (1, 1, 1)


def test_close_is_called_when_the_head_was_wrong(bridged: Bridged) -> None:
    """PEP 3333, "Specification Details": also where the server itself refuses the response."""
    app = Counting([b"x" * 10], headers=[("Content-Length", "20")])
    call(bridged(app), fails=AppProtocolError)
    assert app.closes == 1


def test_close_of_a_generator_runs_its_finally(bridged: Bridged) -> None:
    """PEP 3333, "Specification Details": a generator that is not used up is closed at once, by no collector."""
    log: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "1")])
        try:
            yield b"xy"
            log.append("asked for more")
        finally:
            log.append("closed")

    async def main() -> None:
        assert (await answer(bridged(app))).body == b"x"
        assert log == ["closed"]

    run(main())


def test_chunk_is_sent_before_the_next_is_asked_for(bridged: Bridged) -> None:
    """PEP 3333, "Buffering and Streaming": no block is delayed until the app makes the next."""
    sent = [Signal(f"chunk {number} was sent") for number in range(5)]

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        for signal in sent:
            yield b"x"
            signal.wait()

    async def main() -> None:
        async def on_send(number: int, _: Message) -> None:
            if 2 <= number <= 6:
                sent[number - 2].set()

        assert (await answer(bridged(app), Client(on_send=on_send))).messages == messages_of(200, [], *[b"x"] * 5, b"")

    run(main())


# -- Content-Length ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple])
def test_length_cuts_a_whole_body(bridged: Bridged, kind: Callable[[list[bytes]], Iterable[bytes]]) -> None:
    """PEP 3333, "Handling the Content-Length Header": no more is sent than it says."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "3")])
        return kind([b"ab", b"cdef", b"gh"])

    assert call(bridged(app)).messages == messages_of(200, [(b"content-length", b"3")], b"abc")


def test_length_stops_the_body(bridged: Bridged) -> None:
    """PEP 3333, "Handling the Content-Length Header": no more is sent than it says, and no more asked for."""
    app = Counting([b"ab", b"cdef", b"gh"], headers=[("Content-Length", "3")])
    response = call(bridged(app))
    assert (response.headers, response.body) == ([(b"content-length", b"3")], b"abc")
    assert response.complete
    assert (app.given, app.closes) == (2, 1)


@pytest.mark.parametrize("kind", [list, tuple, iter])
@pytest.mark.parametrize("chunks", [[b"ab", b"c"], [b"abc"]])
def test_length_that_is_not_reached_is_an_error(
    bridged: Bridged, kind: Callable[[list[bytes]], Iterable[bytes]], chunks: list[bytes]
) -> None:
    """PEP 3333, "Handling the Content-Length Header": a body that is too short is reported."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return kind(chunks)

    response = call(bridged(app), fails=AppProtocolError)
    assert not response.complete
    assert "ended 2 bytes before its Content-Length" in str(response.raised)


@pytest.mark.parametrize("kind", [list, iter])
def test_length_without_a_body_leaves_the_answer_to_the_server(
    bridged: Bridged,
    kind: Callable[[list[bytes]], Iterable[bytes]],
) -> None:
    """PEP 3333, "Handling the Content-Length Header": where nothing of the body came, no head is sent either."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return kind([])

    assert call(bridged(app), fails=AppProtocolError).messages == []


def test_length_counts_what_is_written(bridged: Bridged) -> None:
    """PEP 3333, "Handling the Content-Length Header": write() and the iterable share it."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [("Content-Length", "5")])
        write(b"abcd")
        write(b"")
        return [b"efg", b"h"]

    response = call(bridged(app))
    assert response.body == b"abcde"
    assert response.complete


# -- Other HTTP features ----------------------------------------------------------------------------------------------


def test_hop_by_hop_headers_are_the_servers(bridged: Bridged, caplog: pytest.LogCaptureFixture) -> None:
    """PEP 3333, "Other HTTP Features": an app may not set them; they are dropped, and logged once."""
    names = ["Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "TE", "Trailer", "Proxy-Authenticate"]
    app = Counting([b"x"], headers=[*((name, "1") for name in names), ("X-One", "1")])
    bridge = bridged(app)
    for _ in range(2):
        assert call(bridge).headers[0] == (b"x-one", b"1")
    assert [record.getMessage() for record in caplog.records if record.name == "a2wsgi"] == [
        f"The app set the header {name.lower()}, which only the server may set; it was dropped (PEP 3333, RFC 9110 "
        "§7.6.1)"
        for name in names
    ]


def test_expect_continue_is_transparent(bridged: Bridged) -> None:
    """PEP 3333, "HTTP 1.1 Expect/Continue": the app reads the body as any other."""
    scope = http_scope("POST", headers=[(b"expect", b"100-continue"), (b"content-length", b"4")])
    assert call(bridged(echo.app), Client(b"body"), scope).body == b"body"


# -- The standard library's own judge ---------------------------------------------------------------------------------


def reading(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """An app that uses each part of the interface, as the validator wants it used."""
    stream = environ["wsgi.input"]
    body = stream.read(2) + stream.readline() + b"".join(stream.readlines()) + b"".join(stream) + stream.read(1)
    environ["wsgi.errors"].write("a line\n")
    environ["wsgi.errors"].flush()
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written ")
    return [body]


#: Without it a GET has no body (RFC 9112 §6.3).
CHUNKED = (b"transfer-encoding", b"chunked")


def no_content(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """An app without a body."""
    start_response("204 No Content", [])
    return []


@pytest.mark.parametrize("options", [{}, {"request_buffer_bytes": 0}, {"spool_request": True}, {"script_name": "/app"}])
@pytest.mark.parametrize(
    "scope",
    [
        http_scope(headers=[CHUNKED]),
        http_scope("POST", "/a%20b/%E2%82%AC?q=%20"),
        http_scope("PUT", "/%FF", [(b"content-type", b"text/plain"), (b"content-length", b"7")]),
        http_scope("DELETE", "", root_path="/mounted", path="/mounted", raw_path=b"/mounted"),
        http_scope("PATCH", "/mounted/x", root_path="/mounted"),
        http_scope("OPTIONS", "/"),
        http_scope("POST", headers=[CHUNKED, (b"expect", b"100-continue")]),
        http_scope(server=("/run/x.sock", None), client=None, http_version="2", headers=[]),
        http_scope(server=None, client=None, scheme="https", query_string="q=€".encode(), headers=[CHUNKED]),
        http_scope(headers=[CHUNKED, (b"x-same", b"1"), (b"x-same", b"2"), (b"cookie", b"a=1"), (b"cookie", b"b=2")]),
    ],
    ids=lambda scope: f"{scope['method']} {scope['path']}",
)
@pytest.mark.filterwarnings("error")
def test_validator_is_silent(
    bridged: Bridged, scope: dict[str, Any], options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """wsgiref.validate has nothing to say about what an app under the bridge is given, and how it is used."""
    for app, body, errors in ((reading, b"written one\ntwo", "a line\n"), (no_content, b"", "")):
        response = call(bridged(validator(app), **options), Client(b"one\n", b"two"), dict(scope))
        assert response.body == body
        assert capsys.readouterr() == ("", errors)
