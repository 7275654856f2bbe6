"""A bridge around a bridge: the pair is of the interface of the app inside, and the app cannot tell it from none.

`to_asgi` and `to_wsgi` never make such a pair; `chain` does, with middleware in between, and so do users.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2wsgi import AppInterfaceError, AppProtocolError, ASGIMiddleware, ClientDisconnected, WSGIMiddleware
from a2wsgi.asgi_typing import Receive, Scope, Send
from a2wsgi.wsgi_typing import Environ, StartResponse
from support import asgi_driver, wsgi_driver
from support.asgi_driver import Client
from support.lockstep import Signal
from support.runtimes import JobCancelled, for_ever, start

pytestmark = pytest.mark.usefixtures("runtime")

CHUNKS = [b"one ", b"two ", b"three"]


def asgi_pair(app: Any, outer: dict[str, Any] | None = None, inner: dict[str, Any] | None = None) -> Any:
    """An ASGI app under two bridges, which are an ASGI app; its ``app`` is to be closed."""
    return WSGIMiddleware(ASGIMiddleware(app, **(inner or {})), **(outer or {}))  # type: ignore[arg-type, unused-ignore]


def wsgi_pair(app: Any) -> Any:
    """A WSGI app under two bridges, which are a WSGI app; to be closed."""
    return ASGIMiddleware(WSGIMiddleware(app))  # type: ignore[arg-type, unused-ignore]


class Inner:
    """An ASGI app that does what a function does; it does not know lifespan."""

    def __init__(self, function: Callable[[Scope, Receive, Send], Any]) -> None:
        self.function = function

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await self.function(scope, receive, send)


@Inner
async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers in one piece, with a header twice."""
    await send({"type": "http.response.start", "status": 418, "headers": [(b"x-one", b"1"), (b"x-one", b"2")]})
    await send({"type": "http.response.body", "body": b"hello"})


@Inner
async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends each part of the body back as it comes."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


def wsgi_hello(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The same."""
    start_response("418 Short and stout", [("X-One", "1"), ("X-One", "2")])
    return [b"hello"]


def wsgi_echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Sends back each part of the body as it comes."""
    start_response("200 OK", [])
    while part := environ["wsgi.input"].read1(10):
        yield part


@pytest.fixture
def asgi() -> Iterator[Callable[..., Any]]:
    """`asgi_pair`, whose inner bridge is closed after the test."""
    made: list[Any] = []

    def make(*args: Any, **options: Any) -> Any:
        made.append(asgi_pair(*args, **options))
        return made[-1]

    yield make
    while made:
        made.pop().app.close()


@pytest.fixture
def wsgi() -> Iterator[Callable[..., Any]]:
    """`wsgi_pair`, as above."""
    made: list[Any] = []

    def make(*args: Any) -> Any:
        made.append(wsgi_pair(*args))
        return made[-1]

    yield make
    while made:
        made.pop().close()


# -- Responses --------------------------------------------------------------------------------------------------------


def test_asgi_response_is_the_same_through_a_pair(asgi: Callable[..., Any]) -> None:
    """It gets no length that the app did not say: a server does with it what it does with the app's own."""
    headers = [(b"x-one", b"1"), (b"x-one", b"2")]
    assert asgi_driver.call(asgi(hello)).messages == asgi_driver.messages_of(418, headers, b"hello")


def test_wsgi_response_is_the_same_through_a_pair(wsgi: Callable[..., Any]) -> None:
    """But for what ASGI has no word for: the reason phrase, and the letter case of names. It gets no length."""
    response = wsgi_driver.call(wsgi(wsgi_hello))
    assert (response.status, response.headers, response.chunks) == (
        "418 I'm a Teapot",
        [("x-one", "1"), ("x-one", "2")],
        [b"hello"],
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "PURGE"])
@pytest.mark.parametrize("status", [200, 204, 304, 404, 599])
def test_every_method_and_status_is_the_same_through_a_pair(
    asgi: Callable[..., Any], wsgi: Callable[..., Any], method: str, status: int
) -> None:
    """A pair answers as one bridge does, body or none."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-method", method.encode())]})
        await send({"type": "http.response.body", "body": b"body"})

    def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(f"{status} Named", [("x-method", environ["REQUEST_METHOD"])])
        return [b"body"]

    has_body = method != "HEAD" and status not in {204, 304}
    answer = asgi_driver.call(asgi(Inner(app)), scope=asgi_driver.http_scope(method))
    headers = [(b"x-method", method.encode())]
    assert answer.messages == asgi_driver.messages_of(status, headers, b"body" if has_body else b"")

    through = wsgi_driver.call(wsgi(wsgi_app), wsgi_driver.environ_of(method))
    assert ((through.status or "").partition(" ")[0], through.headers) == (str(status), [("x-method", method)])
    assert through.body == (b"body" if has_body else b"")


def test_asgi_stream_is_incremental_through_a_pair(asgi: Callable[..., Any]) -> None:
    """Each part is sent on when the app has sent it: the next is sent only when the client has the one before."""
    taken = [Signal(f"part {number}") for number in range(len(CHUNKS))]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for chunk, signal in zip(CHUNKS, taken, strict=True):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await signal.wait_in_task()
        await send({"type": "http.response.body"})

    async def on_send(_: int, message: Any) -> None:
        if message.get("body"):
            taken[CHUNKS.index(message["body"])].set()

    response = asgi_driver.call(asgi(Inner(app)), Client(on_send=on_send))
    assert response.messages == asgi_driver.messages_of(200, [], *CHUNKS, b"")


def test_wsgi_stream_is_incremental_through_a_pair(wsgi: Callable[..., Any]) -> None:
    """As above; a chunk that is empty says that nothing is there yet."""
    taken = [Signal(f"part {number}") for number in range(len(CHUNKS))]

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        for chunk, signal in zip(CHUNKS, taken, strict=True):
            yield chunk
            signal.wait()

    exchange = wsgi_driver.Exchange(wsgi(app)).begin()
    got = []
    for chunk in exchange.iterator:
        got.append(chunk)
        if chunk:
            taken[CHUNKS.index(chunk)].set()
    exchange.close()
    assert [chunk for chunk in got if chunk] == CHUNKS


def test_error_of_an_asgi_app_comes_after_what_it_has_sent_through_a_pair(asgi: Callable[..., Any]) -> None:
    """Its ASGI server has each message, as without the pair; to a WSGI server the error alone would go."""
    messages = [START, {**BODY, "more_body": True}]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        raise LookupError

    client = Client()
    with pytest.raises(LookupError):
        asgi_driver.call(asgi(Inner(app)), client)
    assert client.sent == messages


EXTENSIONS: dict[str, Any] = {
    f"http.response.{name}": {} for name in ("debug", "early_hint", "push", "trailers", "pathsend")
}
START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"body", "more_body": False}
TRAILERS = [
    {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": True},
    {"type": "http.response.trailers", "headers": [(b"x-last", b"2")]},
]


def answer_with(asgi: Callable[..., Any], messages: list[Any], extensions: dict[str, Any]) -> list[Any]:
    """What a server is sent by a pair around an app that sends these; or the error that the app had."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    client = Client(strict=False)
    asgi_driver.call(asgi(Inner(app)), client, asgi_driver.http_scope(extensions=extensions))
    return client.sent


@pytest.mark.parametrize(
    "message",
    [
        {"type": "http.response.debug", "info": {"template": "hello.html"}},
        {"type": "http.response.early_hint", "links": [b"</style.css>"]},
        {"type": "http.response.push", "path": "/style.css", "headers": []},
    ],
    ids=["debug", "early_hint", "push"],
)
def test_message_of_an_extension_passes_a_pair(asgi: Callable[..., Any], message: dict[str, Any]) -> None:
    """ASGI, "Extensions": what the server offers to take, and WSGI has no word for, goes from bridge to bridge."""
    assert answer_with(asgi, [message, START, BODY], EXTENSIONS) == [message, START, BODY]


def test_trailers_pass_a_pair(asgi: Callable[..., Any]) -> None:
    """ASGI, "HTTP Trailers": they follow the body, and the head says that they will."""
    start = {**START, "trailers": True}
    assert answer_with(asgi, [start, BODY, *TRAILERS], EXTENSIONS) == [start, BODY, *TRAILERS]


def test_message_that_the_app_uses_again_passes_a_pair_as_it_was_sent(asgi: Callable[..., Any]) -> None:
    """A server is through with a message when ``send()`` returns, so an app may change it then."""
    pushes: list[Any] = [
        {"type": "http.response.push", "path": path, "headers": []} for path in ("/style.css", "/script.js")
    ]
    messages = [*pushes, {**START, "trailers": True}, BODY, *TRAILERS]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        again: Any = {}
        for message in messages:
            again.clear()
            again.update(message)
            await send(again)

    client = Client(strict=False)
    asgi_driver.call(asgi(Inner(app)), client, asgi_driver.http_scope(extensions=EXTENSIONS))
    assert client.sent == messages


def test_app_that_sends_between_body_and_trailers_does_not_keep_the_loop(asgi: Callable[..., Any]) -> None:
    """The body is over, and what follows is ignored: the loop that is to cancel such an app goes on."""
    others, counts = list[str](), list[int]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "trailers": True})
        await send(BODY)
        start(note())
        for count in range(1_000):
            if others:
                counts.append(count)
                break
            await send(BODY)
        for message in TRAILERS:
            await send(message)

    async def note() -> None:
        others.append("went")

    client = Client(strict=False)
    asgi_driver.call(asgi(Inner(app)), client, asgi_driver.http_scope(extensions=EXTENSIONS))
    # The loop goes round: so the body may be on its way, and its end follows in another message.
    first, *body = client.sent[: -len(TRAILERS)]
    assert [first, *client.sent[-len(TRAILERS) :]] == [{**START, "trailers": True}, *TRAILERS]
    assert b"".join(message["body"] for message in body) == BODY["body"]
    assert [message["more_body"] for message in body] == [True, False][-len(body) :]
    assert len(counts) == 1


def test_trailers_that_the_server_does_not_take_are_not_announced(asgi: Callable[..., Any]) -> None:
    """ASGI, "HTTP Trailers": a server that takes none would wait for nothing."""
    assert answer_with(asgi, [{**START, "trailers": True}, BODY], {}) == [START, BODY]


@pytest.mark.parametrize(
    ("messages", "extensions"),
    [
        pytest.param([{"type": "http.response.debug", "info": {}}], {}, id="not offered"),
        pytest.param([{"type": "http.response.pathsend", "path": "/"}], EXTENSIONS, id="of the body"),
        pytest.param([START, *TRAILERS], EXTENSIONS, id="trailers, not announced"),
        pytest.param([{**START, "trailers": True}, *TRAILERS], EXTENSIONS, id="trailers before the body"),
    ],
)
def test_message_that_a_pair_cannot_pass_is_the_apps_error(
    asgi: Callable[..., Any], messages: list[Any], extensions: dict[str, Any]
) -> None:
    """ASGI, "Extensions": an app may only use what it was offered; a message out of its turn is none."""
    with pytest.raises(AppProtocolError, match=messages[-1]["type"]):
        answer_with(asgi, messages, extensions)


def test_message_of_an_extension_keeps_its_place_in_the_body(asgi: Callable[..., Any]) -> None:
    """One that comes between two parts goes out before the second."""
    push = {"type": "http.response.push", "path": "/style.css", "headers": []}
    begun = {**BODY, "body": b"begun", "more_body": True}
    taken = Signal("the first part is taken")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(begun)
        await taken.wait_in_task()
        await send(push)
        await send(BODY)

    async def on_send(_: int, message: Any) -> None:
        if message == begun:
            taken.set()

    client = Client(strict=False, on_send=on_send)
    asgi_driver.call(asgi(Inner(app)), client, asgi_driver.http_scope(extensions=EXTENSIONS))
    told = [message.get("body", message["type"]) for message in client.sent]
    assert [each for each in told if each] == [START["type"], b"begun", push["type"], b"body"]


@pytest.mark.parametrize("kind", ["http.response.early_hint", "http.response.trailers"])
def test_message_of_an_extension_that_is_not_taken_ends_the_request(asgi: Callable[..., Any], kind: str) -> None:
    """A client that takes nothing is given up, and is sent nothing more."""
    messages: list[Any] = {
        "http.response.early_hint": [{"type": kind, "links": [b"</a>"]}, START, BODY],
        "http.response.trailers": [{**START, "trailers": True}, BODY, *TRAILERS],
    }[kind]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    sent: list[str] = []

    async def on_send(_: int, message: Any) -> None:
        sent.append(message["type"])
        if message["type"] == kind:
            await for_ever()

    client = Client(strict=False, on_send=on_send)
    pair = asgi(Inner(app), outer={"send_timeout": 0.05})
    asgi_driver.call(pair, client, asgi_driver.http_scope(extensions=EXTENSIONS))
    assert sent.index(kind) == len(sent) - 1
    assert pair.statistics().stalled == 1


def test_wsgi_status_that_asgi_middleware_changes_is_its_own(wsgi: Callable[..., Any]) -> None:
    """The status line is that of the new status."""

    def under(app: Any) -> Any:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            async def other(message: Any) -> None:
                await send({**message, "status": 503} if "status" in message else message)

            await app(scope, receive, other)

        return middleware

    bridge = ASGIMiddleware(under(WSGIMiddleware(wsgi_hello)))
    assert wsgi_driver.call(bridge).status == "503 Service Unavailable"
    bridge.close()


# -- Uploads ----------------------------------------------------------------------------------------------------------

BODIES = [(), (b"",), (b"x",), (b"one ", b"two ", b"three"), (b"a" * 70_000, b"b" * 70_000), (b"c" * 200_000,)]


@pytest.mark.parametrize("told", [True, False], ids=["length", "chunked"])
@pytest.mark.parametrize("parts", BODIES, ids=[0, 1, 2, 3, 4, 5])
def test_asgi_upload_is_the_same_through_a_pair(asgi: Callable[..., Any], parts: tuple[bytes, ...], told: bool) -> None:
    """With a length and without one."""
    body = b"".join(parts)
    header = (b"content-length", b"%d" % len(body)) if told else (b"transfer-encoding", b"chunked")
    response = asgi_driver.call(asgi(echo), Client(*parts), asgi_driver.http_scope("POST", headers=[header]))
    assert (response.status, response.body, response.complete) == (200, body, True)


@pytest.mark.parametrize("parts", BODIES, ids=[0, 1, 2, 3, 4, 5])
def test_wsgi_upload_is_the_same_through_a_pair(wsgi: Callable[..., Any], parts: tuple[bytes, ...]) -> None:
    """Of a server that keeps to PEP 3333 and nothing more."""
    body = b"".join(parts)
    assert wsgi_driver.call(wsgi(wsgi_echo), wsgi_driver.environ_of("POST", body=body)).body == body


def test_upload_is_read_as_it_comes_through_a_pair(asgi: Callable[..., Any]) -> None:
    """The client sends each part when the one before has come back."""
    client = Client(CHUNKS[0], complete=False, on_send=lambda number, message: on_send(message))

    async def on_send(message: Any) -> None:
        body = message.get("body")
        if body:
            number = CHUNKS.index(body) + 1
            client.send_body(CHUNKS[number] if number < len(CHUNKS) else b"", more=number < len(CHUNKS))

    pair = asgi(echo, outer={"request_buffer_bytes": 0})
    scope = asgi_driver.http_scope("POST", headers=[(b"transfer-encoding", b"chunked")])
    response = asgi_driver.call(pair, client, scope)
    assert response.body == b"".join(CHUNKS)


# -- Disconnects ------------------------------------------------------------------------------------------------------


class Waits(Inner):
    """An app that waits for its client to leave, before or after it has begun to answer."""

    def __init__(self, *, begins: bool) -> None:
        super().__init__(self.run)
        self.begins = begins
        self.waits = Signal("the app waits")
        self.messages: list[Any] = []
        self.raised: list[BaseException] = []
        self.ended = Signal("the app has ended")

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if self.begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        self.waits.set()
        self.messages.append(await receive())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        except OSError as error:
            self.raised.append(error)
        self.ended.set()


@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
@pytest.mark.parametrize("begins", [False, True], ids=["silent", "begun"])
def test_client_that_leaves_is_noticed_by_a_quiet_asgi_app(
    asgi: Callable[..., Any], begins: bool, inline: bool
) -> None:
    """PEP 3333 in between has no word for it: the inner bridge hears of it from the outer."""
    app = Waits(begins=begins)
    pair = asgi(app, inner={"inline": inline})
    client = Client()

    async def main() -> None:
        answer = start(asgi_driver.answer(pair, client))
        await app.waits.wait_in_task()
        client.leave()
        await answer
        await app.ended.wait_in_task()

    asgi_driver.run(main())
    assert app.messages == [{"type": "http.disconnect"}]
    assert [type(error) for error in app.raised] == [ClientDisconnected]
    assert pair.statistics().disconnected == 1
    assert pair.statistics().busy == 0


def test_request_that_is_cancelled_is_noticed_by_a_quiet_asgi_app(asgi: Callable[..., Any]) -> None:
    """As above, when it is the server that gives it up."""
    app = Waits(begins=True)
    pair = asgi(app)

    async def main() -> None:
        answer = start(asgi_driver.answer(pair, Client()))
        await app.waits.wait_in_task()
        answer.cancel()
        with pytest.raises(JobCancelled):
            await answer
        await app.ended.wait_in_task()

    asgi_driver.run(main())
    assert app.messages == [{"type": "http.disconnect"}]


def test_failure_after_the_server_has_cancelled_is_logged(
    asgi: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Background work fails when the outer request is over: nobody is there to raise it to, so the log has it."""
    answered, go = Signal("the response is complete"), Signal("the background work goes on")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hello.function(scope, receive, send)
        answered.set()
        while not go.is_set():  # noqa: ASYNC110  # it is set by another loop's thread
            await asyncio.sleep(0.001)
        raise LookupError("late")

    pair = asgi(Inner(app))

    async def main() -> None:
        answer = start(asgi_driver.answer(pair, Client()))
        await answered.wait_in_task()
        answer.cancel()
        with pytest.raises(JobCancelled):
            await answer
        go.set()
        await asgi_driver.until(lambda: bool(errors()))

    def errors() -> list[type[BaseException]]:
        """What the log has errors of."""
        return [record.exc_info[0] for record in caplog.records if record.exc_info and record.exc_info[0]]

    asgi_driver.run(main())
    assert errors() == [LookupError]
    caplog.clear()  # the traceback of a record leads to the bridges


def test_client_that_leaves_is_no_matter_where_that_is_ignored(asgi: Callable[..., Any]) -> None:
    """``ignore_disconnect`` of the outer bridge holds for the inner one."""
    left = Signal("the client has left")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        while not environs[0]["a2wsgi.disconnected"].is_set():  # noqa: ASYNC110  # nobody tells an ASGI app
            await asyncio.sleep(0.001)  # a poll, as said
        await send({"type": "http.response.body", "body": b"two"})
        left.set()

    environs: list[Environ] = []
    inner = ASGIMiddleware(Inner(app))

    def between(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environs.append(environ)
        return inner(environ, start_response)

    client = Client(on_send=lambda number, message: leave(message))

    async def leave(message: Any) -> None:
        if message.get("body") == b"one":
            client.leave()

    response = asgi_driver.call(WSGIMiddleware(between, ignore_disconnect=True), client)
    left.wait()
    inner.close()
    assert (response.body, response.complete) == (b"onetwo", True)


def test_client_that_leaves_an_upload_is_noticed_through_a_pair(asgi: Callable[..., Any]) -> None:
    """A body that ends early never looks complete."""
    messages: list[Any] = []
    ended = Signal("the app has ended")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        messages.extend([await receive(), await receive()])
        ended.set()

    client = Client(b"one", messages=[asgi_driver.body_message(b"one", more=True), asgi_driver.DISCONNECT])
    scope = asgi_driver.http_scope("POST", headers=[(b"content-length", b"7")])
    pair = asgi(Inner(app), outer={"request_buffer_bytes": 0})
    asgi_driver.call(pair, client, scope)
    if messages:  # a request whose client had left before it began never enters the app
        ended.wait()
        assert messages[-1] == {"type": "http.disconnect"}


def test_response_that_the_server_closes_is_closed_by_a_wsgi_app(wsgi: Callable[..., Any]) -> None:
    """Its iterable's ``close()`` runs, and its environ says that the client has left."""
    closed = Signal("close() was called")
    environs: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        environs.append(environ)
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 1000
        finally:
            closed.set()

    exchange = wsgi_driver.Exchange(wsgi(app)).begin()
    exchange.next()
    exchange.close()
    closed.wait()
    assert environs[0]["a2wsgi.disconnected"].is_set()


# -- Errors -----------------------------------------------------------------------------------------------------------


class Oops(Exception):  # noqa: N818  # what it is matters
    """Of the app."""


@pytest.mark.parametrize("begun", [False, True], ids=["before the head", "after a part"])
def test_error_of_an_asgi_app_is_the_very_same_through_a_pair(asgi: Callable[..., Any], begun: bool) -> None:
    """With a response that never looks complete."""
    error = Oops("of the app")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
            await sent.wait_in_task()
        raise error

    sent = Signal("the part was sent")

    async def on_send(_: int, message: Any) -> None:
        if message.get("body"):
            sent.set()

    response = asgi_driver.call(asgi(Inner(app)), Client(on_send=on_send), fails=Oops)
    assert response.raised is error
    assert response.messages == (asgi_driver.messages_of(200, [], b"part", b"")[:-1] if begun else [])


@pytest.mark.parametrize("begun", [False, True], ids=["before the head", "after a part"])
def test_error_of_a_wsgi_app_is_the_very_same_through_a_pair(wsgi: Callable[..., Any], begun: bool) -> None:
    """As above."""
    error = Oops("of the app")

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        if begun:
            start_response("200 OK", [])
            yield b"part"
        raise error

    response = wsgi_driver.call(wsgi(app), fails=Oops)
    assert response.raised is error


def test_wrong_kind_in_a_pair_is_told_when_it_is_built() -> None:
    """Not at the first request: the constructor of a subclass says so."""
    subclass = type("Mine", (ASGIMiddleware,), {})
    with pytest.raises(AppInterfaceError, match="Mine wraps ASGI apps"):
        subclass(ASGIMiddleware(hello))


# -- Lifespan and state -----------------------------------------------------------------------------------------------


def test_lifespan_and_state_pass_through_a_pair() -> None:
    """Startup before the first request, with the server's; each request has a copy of both states; shutdown with it."""
    events: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            events.append(await receive())
            scope["state"]["pool"] = "open"
            await send({"type": "lifespan.startup.complete"})
            events.append(await receive())
            await send({"type": "lifespan.shutdown.complete"})
            return
        events.append(dict(scope["state"]))
        scope["state"]["mine"] = True
        await hello(scope, receive, send)

    pair = asgi_pair(app)

    async def main() -> list[Any]:
        lifespan = Client(messages=[{"type": "lifespan.startup"}])
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        task = start(pair(scope, lifespan.receive, lifespan.send))
        await asgi_driver.until(lambda: bool(lifespan.sent))
        for number in range(2):
            await asgi_driver.answer(pair, scope=asgi_driver.http_scope(state={"number": number}))
        lifespan.say({"type": "lifespan.shutdown"})
        await task
        return lifespan.sent

    sent = asgi_driver.run(main())
    assert sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]
    assert events == [
        {"type": "lifespan.startup"},
        {"number": 0, "pool": "open"},
        {"number": 1, "pool": "open"},
        {"type": "lifespan.shutdown"},
    ]


def test_pair_leaves_no_thread_behind_when_it_is_dropped() -> None:
    """Nor a loop: the guard around each test would say so; and requests go on in many at once until then."""
    pair = asgi_pair(hello)
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(asgi_driver.call(pair).body)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [b"hello"] * 4


# -- Scopes and environs, whole ---------------------------------------------------------------------------------------

#: What a bridge says of itself, and what a request has of its own in each process.
OWN = ("wsgi.", "asgi.", "a2wsgi.")

TOKENS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=8).map(
    lambda name: f"x-{name}".rstrip("-")
)
VALUES = st.binary(max_size=8).filter(lambda value: not set(value) & set(b"\r\n\0") and value == value.strip(b" \t"))
#: What a path may hold, on the wire: any byte, quoted where it must be.
RAW_PATHS = st.binary(max_size=12).map(lambda path: b"/" + quote_from_bytes(path, "/:@!$&'()*+,;=").encode())
QUERIES = st.binary(max_size=8).filter(lambda query: b"#" not in query)
ADDRESSES = st.tuples(st.sampled_from(["203.0.113.9", "::1", "proxy"]), st.integers(1, 65_535))


@st.composite
def scopes(draw: st.DrawFn) -> dict[str, Any]:
    """Those of a server that keeps to the spec, with all that a bridge promises to carry."""
    raw_path = draw(RAW_PATHS)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": draw(st.sampled_from(["1.0", "1.1", "2", "3"])),
        "method": draw(st.sampled_from(["GET", "POST", "PURGE"])),
        "scheme": draw(st.sampled_from(["http", "https"])),
        "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
        "raw_path": raw_path,
        "query_string": draw(QUERIES),
        "root_path": "",
        "headers": [(b"host", b"shop.example"), *draw(st.lists(st.tuples(TOKENS.map(str.encode), VALUES), max_size=6))],
        "client": draw(st.none() | ADDRESSES),
        "server": draw(ADDRESSES),
        "state": {"one": object()},
        "extensions": draw(st.sampled_from([{}, {"tls": {"version": 772}}])),
        "session": {"user": object()},  # of a middleware further out
    }


@st.composite
def environs(draw: st.DrawFn) -> dict[str, Any]:
    """Those of a server that keeps to PEP 3333, with the address of the request as most have it."""
    raw_path = draw(RAW_PATHS).decode()
    query = draw(QUERIES).decode("latin-1")
    target = raw_path + (f"?{query}" if query else "")
    names = draw(st.lists(TOKENS, max_size=4))
    environ = wsgi_driver.environ_of(
        draw(st.sampled_from(["GET", "PURGE"])),
        unquote_to_bytes(raw_path).decode("latin-1"),
        QUERY_STRING=query,
        REQUEST_URI=target,
        RAW_URI=target,
        SERVER_PROTOCOL=draw(st.sampled_from(["HTTP/1.0", "HTTP/1.1", "HTTP/2"])),
        REMOTE_PORT=str(draw(st.integers(1, 65_535))),
        REMOTE_USER=draw(st.sampled_from(["", "anna"])),
        shop__cart=object(),
    )
    environ["wsgi.url_scheme"] = draw(st.sampled_from(["http", "https"]))
    for name in names:
        environ["HTTP_" + name.upper().replace("-", "_")] = draw(VALUES).decode("latin-1")
    return environ


class Seen:
    """Apps of both kinds that keep what they get."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.environs: list[dict[str, Any]] = []

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(dict(scope))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    def wsgi(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.environs.append(dict(environ))
        start_response("204 No Content", [])
        return []


def test_scope_is_whole_through_a_pair() -> None:
    """A request over both bridges gives the app the scope of the server, but for what says who made it."""
    seen = Seen()
    pair = asgi_pair(seen.asgi, inner={"lifespan": False})

    @given(scopes())
    def check(scope: dict[str, Any]) -> None:
        asgi_driver.call(pair, scope=dict(scope))
        got = seen.scopes.pop()
        assert got.pop("wsgi_environ")["asgi.scope"] == scope
        offered = {**scope["extensions"], "http.response.pathsend": {}}  # of the inner bridge, whatever the server does
        assert got == {**scope, "extensions": offered}

    check()
    pair.app.close()


def test_environ_is_whole_through_a_pair() -> None:
    """A request over both bridges gives the app the environ of the server, but for what is the inner bridge's own."""
    seen = Seen()
    pair = wsgi_pair(seen.wsgi)

    @given(environs())
    def check(environ: dict[str, Any]) -> None:
        wsgi_driver.call(pair, dict(environ))
        got = seen.environs.pop()
        assert {key for key in got if key.startswith(OWN)} == {
            "wsgi.version",
            "wsgi.url_scheme",
            "wsgi.input",
            "wsgi.errors",
            "wsgi.multithread",
            "wsgi.multiprocess",
            "wsgi.run_once",
            "wsgi.input_terminated",
            "wsgi.file_wrapper",
            "asgi.scope",
            "a2wsgi.disconnected",
            "a2wsgi.queued_seconds",
        }
        assert got["wsgi.url_scheme"] == environ["wsgi.url_scheme"]
        assert {key: value for key, value in got.items() if not key.startswith(OWN)} == {
            key: value for key, value in environ.items() if not key.startswith(OWN)
        }

    check()
    pair.close()
