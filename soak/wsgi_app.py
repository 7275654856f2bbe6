"""The WSGI app that ASGI servers serve: `app`. ``/control`` is answered beside the bridge, all else by it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import counters
import misbehaviour
import websocket_apps
from bodies import body_of, chunks_of, receipt
from misbehaviour import ERRORS

from a2wsgi import WSGIMiddleware

PLAIN = [("Content-Type", "application/octet-stream")]


class Asked:
    """One request: what it asks for, and what the server gave to answer with."""

    def __init__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> None:
        query = dict(parse_qsl(environ["QUERY_STRING"]))
        self.environ = environ
        self.start_response = start_response
        self.identity = query["id"]
        self.body = body_of(self.identity, int(query.get("n", "100")))
        self.size = int(query.get("k", "1000"))
        self.error = ERRORS[query.get("error", "plain")]

    def start(self, *headers: tuple[str, str], status: str = "200 OK") -> Callable[[bytes], object]:
        """Start the response."""
        write: Callable[[bytes], object] = self.start_response(status, [*PLAIN, *headers])
        return write

    def chunks(self) -> Iterator[bytes]:
        """The response's body."""
        return chunks_of(self.body, self.size)


class Closing:
    """An iterable whose `close` raises."""

    def __init__(self, chunks: Iterable[bytes], error: type[BaseException]) -> None:
        self._chunks = iter(chunks)
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        raise self._error


def whole(asked: Asked) -> Iterable[bytes]:
    asked.start()
    return [asked.body]


def stream(asked: Asked) -> Iterable[bytes]:
    asked.start()
    yield from asked.chunks()


def sized(asked: Asked) -> Iterable[bytes]:
    asked.start(("Content-Length", str(len(asked.body))))
    return asked.chunks()


def write(asked: Asked) -> Iterable[bytes]:
    written = asked.start()
    for chunk in asked.chunks():
        written(chunk)
    return ()


def empty(asked: Asked) -> Iterable[bytes]:
    asked.start(status="204 No Content")
    return ()


def slow(asked: Asked) -> Iterable[bytes]:
    time.sleep(random.random() * 0.03)
    asked.start()
    for chunk in asked.chunks():
        time.sleep(random.random() * 0.003)
        yield chunk


def upload(asked: Asked) -> Iterable[bytes]:
    stream, digest = asked.environ["wsgi.input"], hashlib.sha256()
    while chunk := stream.read(asked.size):
        digest.update(chunk)
    asked.start()
    return [receipt(asked.identity, digest.hexdigest())]


def upload_by_lines(asked: Asked) -> Iterable[bytes]:
    digest = hashlib.sha256()
    for line in asked.environ["wsgi.input"]:
        digest.update(line)
    asked.start()
    return [receipt(asked.identity, digest.hexdigest())]


def echo(asked: Asked) -> Iterable[bytes]:
    stream = asked.environ["wsgi.input"]
    asked.start()
    while chunk := stream.read(asked.size):
        yield chunk


def patient(asked: Asked) -> Iterable[bytes]:
    asked.environ["a2wsgi.disconnected"].wait(0.2)
    asked.start()
    return [asked.body]


def hop_by_hop(asked: Asked) -> Iterable[bytes]:
    asked.start(("Connection", "keep-alive"), ("Keep-Alive", "timeout=5"))
    return [asked.body]


def replaced_head(asked: Asked) -> Iterable[bytes]:
    asked.start(status="500 Oops")
    try:
        raise misbehaviour.PlainError
    except misbehaviour.PlainError as error:
        asked.start_response("200 OK", PLAIN, (type(error), error, error.__traceback__))
    return [asked.body]


def raise_before(asked: Asked) -> Iterable[bytes]:
    raise asked.error


def raise_before_after_start(asked: Asked) -> Iterable[bytes]:
    asked.start()
    raise asked.error


def raise_after(asked: Asked) -> Iterable[bytes]:
    asked.start()
    yield from asked.chunks()
    raise asked.error


class _RaisesNext:
    def __init__(self, asked: Asked) -> None:
        self._chunks = asked.chunks()
        self._error = asked.error

    def __iter__(self) -> _RaisesNext:
        return self

    def __next__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise self._error


def raise_next(asked: Asked) -> Iterable[bytes]:
    asked.start()
    return _RaisesNext(asked)  # a generator makes a RuntimeError of what is a StopIteration here


def raise_replaced(asked: Asked) -> Iterable[bytes]:
    asked.start()
    yield from asked.chunks()
    try:
        raise asked.error
    except BaseException as error:
        asked.start_response("500 Oops", PLAIN, (type(error), error, error.__traceback__))


def raise_close(asked: Asked) -> Iterable[bytes]:
    asked.start()
    return Closing(asked.chunks(), asked.error)


def too_short(asked: Asked) -> Iterable[bytes]:
    asked.start(("Content-Length", str(len(asked.body) + 1)))
    return asked.chunks()


def too_long(asked: Asked) -> Iterable[bytes]:
    asked.start(("Content-Length", str(len(asked.body))))
    yield from asked.chunks()
    yield b"more"


def no_head(asked: Asked) -> Iterable[bytes]:
    return [asked.body]


def no_iterable(asked: Asked) -> Any:
    asked.start()


def text(asked: Asked) -> Any:
    asked.start()
    return ["text"]


def second_head(asked: Asked) -> Iterable[bytes]:
    asked.start()
    asked.start()
    return [asked.body]


def bad_header(asked: Asked) -> Iterable[bytes]:
    asked.start(("X-Split", "a\r\nb: c"))
    return [asked.body]


def informational(asked: Asked) -> Iterable[bytes]:
    asked.start(status="103 Early Hints")
    return [asked.body]


def late_calls(asked: Asked) -> Iterable[bytes]:
    written = asked.start()
    start_response, stream = asked.start_response, asked.environ["wsgi.input"]
    alien = body_of("late", 5000)
    for call in (
        lambda: written(alien),
        lambda: start_response("200 OK", [("X-Late", "1")]),
        lambda: start_response("500 Late", [], (misbehaviour.PlainError, misbehaviour.PlainError(), None)),
        lambda: stream.read(10),
    ):
        asked.environ.setdefault("soak.late", []).append(call)
    return Later(asked)


class Later:
    """An iterable whose `close` has everything called when the request is over."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def __iter__(self) -> Iterator[bytes]:
        return self._asked.chunks()

    def close(self) -> None:
        for call in self._asked.environ["soak.late"]:
            misbehaviour.late(call)


KINDS = {
    kind.__name__: kind
    for kind in (
        *(whole, stream, sized, write, empty, slow, upload, upload_by_lines, echo, patient, hop_by_hop, replaced_head),
        *(raise_before, raise_before_after_start, raise_after, raise_next, raise_replaced, raise_close),
        *(too_short, too_long, no_head, no_iterable, text, second_head, bad_header, informational, late_calls),
    )
}


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer as the path says."""
    if "a2wsgi.websocket" in environ:
        return websocket_apps.wsgi(environ, start_response)
    return KINDS[environ["PATH_INFO"].strip("/")](Asked(environ, start_response))


bridges = {
    "": WSGIMiddleware(wsgi, shutdown_timeout=3.0, max_websockets=300),
    "/unbuffered": WSGIMiddleware(
        wsgi, workers=8, request_buffer_bytes=0, response_buffer_bytes=0, script_name="/unbuffered"
    ),
    "/spooled": WSGIMiddleware(wsgi, workers=8, spool_request=True, script_name="/spooled"),
    "/heedless": WSGIMiddleware(wsgi, workers=8, ignore_disconnect=True, script_name="/heedless"),
}
counters.listen_for_signal()
misbehaviour.break_logging("a2wsgi")
misbehaviour.start_late_calls()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Have the bridge answer, disturbed as the request says."""
    if scope["type"] != "http":
        await bridges[""](scope, receive, send)
        return
    if scope["path"] == "/control":
        await control(send)
        return
    query = dict(parse_qsl(scope["query_string"].decode()))
    prefix = next((prefix for prefix in bridges if prefix and scope["path"].startswith(prefix + "/")), "")
    if "send_raises" in query:
        send = failing(send, int(query["send_raises"]), ConnectionResetError("send() raises"))
    if "receive_raises" in query:
        receive = failing(receive, int(query["receive_raises"]), ERRORS[query["raised"]]())
    running = bridges[prefix](scope, receive, send)
    if "cancel" not in query:
        await running
        return
    task = asyncio.ensure_future(running)
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(task, float(query["cancel"]))


def failing(call: Callable[..., Any], number: int, error: BaseException) -> Callable[..., Any]:
    """The same, raising at this call and all later ones."""
    calls = 0

    async def fails(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls >= number:
            raise error
        return await call(*args)

    return fails


async def control(send: Any) -> None:
    """Answer with the counters."""
    seen = counters.look(len(asyncio.all_tasks()), [bridge.statistics() for bridge in bridges.values()])
    data = json.dumps(seen).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data, "more_body": False})
