"""What each server serves in `test_behaviour`: the same app twice, as a WSGI app and as an ASGI app, under a bridge.

The path's first part is what a request is for, the second a name by which the app and a test tell each other of it,
through files in the directory ``A2WSGI_TEST_DIR``: a server may have several processes, or be busy with this request.

==========================  =================================================================
``/hello``                  a body in one piece
``/echo/…``                 what the app was told of the request
``/status/<code>/<body>``   that status, and that body, whether or not there may be one
``/fields``                 `RESPONSE_FIELDS`
``/upload``                 what came, read in pieces
``/unread``                 403; the body is left alone
``/streamed`` ``/download`` pieces, of no length that is said: three, many
``/file/<name>``            the file ``<name>``; tells ``<name>-read`` if Python reads any of it
``/steps/<name>``           an event at once, another whenever the test tells ``<name>-1``, …
``/held/<name>``            tells ``-begun``, answers when the test tells ``-go``
``/hinted/<name>``          an early hint, then the same
``/fails``                  an error before the head
``/breaks/<name>``          an error after it, when the test tells ``-go``
==========================  =================================================================

These tell ``<name>-begun``, and ``<name>-gone`` once they know that the client has left; ``<name>-enough`` ends them:
``/reading`` reads the body, ``/thinking`` has read it, ``/headed`` has sent a head, ``/flooding`` sends a body without
end, ``/idle`` has sent an event.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import anyio

from a2wsgi import ASGIMiddleware, ClientDisconnected, WSGIMiddleware
from interop import file_reads

DIRECTORY = Path(os.environ.get("A2WSGI_TEST_DIR", "."))

#: For how long an app waits for anything, at most.
SECONDS = 12.0

PIECE = bytes(range(256)) * 256
PIECES = 320

HINT = "</style.css>; rel=preload; as=style"

#: As latin-1 strings, which stand for bytes.
RESPONSE_FIELDS = [
    ("X-Repeated", "one"),
    ("X-Repeated", "two"),
    ("Set-Cookie", "first=1; Path=/; Expires=Wed, 21 Oct 2037 07:28:00 GMT"),
    ("Set-Cookie", "second=2"),
    ("X-Non-Ascii", "é"),
    ("X-Empty", ""),
    ("X-Long", "long " * 1_000 + "long"),
    ("X-Colon", 'a: b, c; d="e"'),
]


# -- What both tell -----------------------------------------------------------------------------------------------


class Request(NamedTuple):
    """What an app was told. Strings stand for bytes, as latin-1."""

    method: str
    root: str
    path: str
    """Past the root."""
    text: str
    """The path, root and all, as the app would show it: what is not UTF-8 replaced."""
    query: str
    headers: dict[str, str]
    client: str
    scheme: str


class Answer(NamedTuple):
    """A response that can be told beforehand."""

    status: str
    fields: list[tuple[str, str]]
    body: bytes


def answer_to(request: Request) -> Answer:
    """What both apps say to what needs neither the body nor time."""
    what, _, rest = request.path[1:].partition("/")
    status, fields, body = "200 OK", [("Content-Type", "text/plain")], b"Hello, world!"
    if what == "echo":
        body = json.dumps(request._asdict()).encode()
    elif what == "status":
        code, _, text = rest.partition("/")
        status, body = f"{code} So", text.encode()
    elif what == "fields":
        fields = fields + RESPONSE_FIELDS
    elif what == "unread":
        status, body = "403 Forbidden", b"not by its head already"
    elif what != "hello":
        status, body = "404 Not Found", request.path.encode("latin-1")
    if status[:3] in {"204", "304"}:
        return Answer(status, [], body)
    return Answer(status, [*fields, ("Content-Length", str(len(body)))], body)


def tell(name: str) -> None:
    """Have the test know."""
    (DIRECTORY / name).touch()


def told(name: str) -> bool:
    """Whether the test has told it."""
    return (DIRECTORY / name).exists()


if "A2WSGI_TEST_DIR" in os.environ:  # a server's process, and not that of the tests, which takes constants from here
    file_reads.watch(lambda name: tell(f"{name}-read"))


def polls() -> Iterator[None]:
    """As many turns as there are in `SECONDS`, at least: for a loop that waits a hundredth of a second in each."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        yield


class Sum:
    """A checksum."""

    def __init__(self) -> None:
        self._digest, self._length = hashlib.sha256(), 0

    def add(self, data: bytes) -> None:
        self._digest.update(data)
        self._length += len(data)

    def json(self) -> bytes:
        return json.dumps({"sha256": self._digest.hexdigest(), "length": self._length}).encode()


# -- The WSGI app -------------------------------------------------------------------------------------------------


def wsgi(environ: dict[str, Any], start_response: Callable[..., Callable[[bytes], object]]) -> Iterable[bytes]:
    """The contract, as a WSGI app."""
    what, _, name = environ["PATH_INFO"][1:].partition("/")
    special = WSGI.get(what)
    if special is None:
        status, fields, body = answer_to(_request_from_environ(environ))
        start_response(status, fields)
        return [body]
    return special(environ, start_response, name)


def _request_from_environ(environ: dict[str, Any]) -> Request:
    path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
    return Request(
        method=environ["REQUEST_METHOD"],
        root=environ["SCRIPT_NAME"],
        path=environ["PATH_INFO"],
        text=path.encode("latin-1").decode("utf-8", "replace"),
        query=environ["QUERY_STRING"],
        headers={key[5:].lower().replace("_", "-"): value for key, value in environ.items() if key[:5] == "HTTP_"},
        client=environ["REMOTE_ADDR"],
        scheme=environ["wsgi.url_scheme"],
    )


def _text(start_response: Any) -> Callable[[bytes], object]:
    """Begin an ordinary response."""
    write: Callable[[bytes], object] = start_response("200 OK", [("Content-Type", "text/plain")])
    return write


def _wsgi_upload(environ: Any, start_response: Any, _: str) -> Iterable[bytes]:
    sum_ = Sum()
    while piece := environ["wsgi.input"].read(65_536):
        sum_.add(piece)
    _text(start_response)
    return [sum_.json()]


def _wsgi_streamed(_: Any, start_response: Any, __: str) -> Iterable[bytes]:
    _text(start_response)
    return iter([b"one ", b"two ", b"three"])


def _wsgi_download(_: Any, start_response: Any, __: str) -> Iterable[bytes]:
    _text(start_response)
    return (PIECE for _ in range(PIECES))


def _wsgi_file(environ: Any, start_response: Any, name: str) -> Iterable[bytes]:
    path = DIRECTORY / name
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(path.stat().st_size))])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](path.open("rb"))
    return wrapped


def _wsgi_steps(_: Any, start_response: Any, name: str) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    for number in range(4):
        if number:
            _wait_until(f"{name}-{number}")
        yield b"data: %d\n\n" % number


def _wsgi_held(_: Any, start_response: Any, name: str) -> Iterable[bytes]:
    tell(f"{name}-begun")
    _wait_until(f"{name}-go")
    _text(start_response)
    return [b"held"]


def _wsgi_hinted(environ: Any, start_response: Any, name: str) -> Iterable[bytes]:
    environ["wsgi.early_hints"]([("Link", HINT)])
    return _wsgi_held(environ, start_response, name)


def _wsgi_fails(_: Any, __: Any, ___: str) -> Iterable[bytes]:
    raise ValueError("before the head")


def _wsgi_breaks(_: Any, start_response: Any, name: str) -> Iterator[bytes]:
    _text(start_response)
    yield b"half"
    _wait_until(f"{name}-go")
    raise ValueError("after the head")


def _wsgi_reading(environ: Any, start_response: Any, name: str) -> Iterable[bytes]:
    tell(f"{name}-begun")
    try:
        while environ["wsgi.input"].read(65_536):
            pass
    except ClientDisconnected:
        tell(f"{name}-gone")
        raise
    _text(start_response)
    return [b"read"]


def _wsgi_thinking(environ: Any, start_response: Any, name: str) -> Iterable[bytes]:
    while environ["wsgi.input"].read(65_536):
        pass
    tell(f"{name}-begun")
    _watch(environ, name)
    _text(start_response)
    return [b"thought"]


def _wsgi_headed(environ: Any, start_response: Any, name: str) -> Iterable[bytes]:
    _text(start_response)(b"")
    tell(f"{name}-begun")
    _watch(environ, name)
    return [b"headed"]


def _wsgi_flooding(_: Any, start_response: Any, name: str) -> Iterator[bytes]:
    _text(start_response)
    tell(f"{name}-begun")
    try:
        for _ in polls():
            yield PIECE
            if told(f"{name}-enough"):
                return
    except GeneratorExit:
        tell(f"{name}-gone")
        raise


def _wsgi_idle(environ: Any, start_response: Any, name: str) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    yield b"data: begun\n\n"
    tell(f"{name}-begun")
    _watch(environ, name)


def _wait_until(name: str) -> None:
    for _ in polls():
        if told(name):
            return
        time.sleep(0.01)  # a poll: the test is another process


def _watch(environ: Any, name: str) -> None:
    """Wait until the client has left, and tell."""
    for _ in polls():
        if environ["a2wsgi.disconnected"].wait(0.01):
            tell(f"{name}-gone")
            return
        if told(f"{name}-enough"):
            return


WSGI: dict[str, Callable[[Any, Any, str], Iterable[bytes]]] = {
    "upload": _wsgi_upload,
    "streamed": _wsgi_streamed,
    "download": _wsgi_download,
    "file": _wsgi_file,
    "steps": _wsgi_steps,
    "held": _wsgi_held,
    "hinted": _wsgi_hinted,
    "fails": _wsgi_fails,
    "breaks": _wsgi_breaks,
    "reading": _wsgi_reading,
    "thinking": _wsgi_thinking,
    "headed": _wsgi_headed,
    "flooding": _wsgi_flooding,
    "idle": _wsgi_idle,
}


# -- The ASGI app -------------------------------------------------------------------------------------------------


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """The contract, as an ASGI app. It knows no lifespan."""
    if scope["type"] != "http":
        raise ValueError(f"no {scope['type']} here")
    request = _request_from_scope(scope)
    what, _, name = request.path[1:].partition("/")
    special = ASGI.get(what)
    if special is None:
        status, fields, body = answer_to(request)
        headers = [(key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in fields]
        await send({"type": "http.response.start", "status": int(status[:3]), "headers": headers})
        await send({"type": "http.response.body", "body": body})
    else:
        await special(receive, send, name)


def _request_from_scope(scope: Any) -> Request:
    headers: dict[str, str] = {}
    for key, value in scope["headers"]:
        name, text = key.decode("latin-1"), value.decode("latin-1")
        joint = "; " if name == "cookie" else ", "
        headers[name] = f"{headers[name]}{joint}{text}" if name in headers else text
    root = scope["root_path"].encode().decode("latin-1")
    return Request(
        method=scope["method"],
        root=root,
        path=unquote_to_bytes(scope["raw_path"]).decode("latin-1")[len(root) :],
        text=scope["path"],
        query=scope["query_string"].decode("latin-1"),
        headers=headers,
        client=scope["client"][0],
        scheme=scope["scheme"],
    )


async def _begin(send: Any, kind: bytes = b"text/plain") -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})


async def _end(send: Any, *pieces: bytes) -> None:
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _body_of(receive: Any) -> AsyncIterator[bytes]:
    """The parts of the body; one that breaks off raises."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("within the body")
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


async def _asgi_upload(receive: Any, send: Any, _: str) -> None:
    sum_ = Sum()
    async for piece in _body_of(receive):
        sum_.add(piece)
    await _begin(send)
    await send({"type": "http.response.body", "body": sum_.json(), "more_body": False})


async def _asgi_streamed(_: Any, send: Any, __: str) -> None:
    await _begin(send)
    await _end(send, b"one ", b"two ", b"three")


async def _asgi_download(_: Any, send: Any, __: str) -> None:
    await _begin(send)
    await _end(send, *(PIECE for _ in range(PIECES)))


async def _asgi_file(_: Any, send: Any, name: str) -> None:
    path = DIRECTORY / name
    size = (await anyio.Path(path).stat()).st_size
    fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.pathsend", "path": str(path)})


async def _asgi_steps(_: Any, send: Any, name: str) -> None:
    await _begin(send, b"text/event-stream")
    for number in range(4):
        if number:
            await _asgi_wait_until(f"{name}-{number}")
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
    await _end(send)


async def _asgi_held(_: Any, send: Any, name: str) -> None:
    tell(f"{name}-begun")
    await _asgi_wait_until(f"{name}-go")
    await _begin(send)
    await send({"type": "http.response.body", "body": b"held"})


async def _asgi_hinted(receive: Any, send: Any, name: str) -> None:
    await send({"type": "http.response.early_hint", "links": [HINT.encode()]})
    await _asgi_held(receive, send, name)


async def _asgi_fails(_: Any, __: Any, ___: str) -> None:
    raise ValueError("before the head")


async def _asgi_breaks(_: Any, send: Any, name: str) -> None:
    await _begin(send)
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    await _asgi_wait_until(f"{name}-go")
    raise ValueError("after the head")


async def _asgi_reading(receive: Any, send: Any, name: str) -> None:
    tell(f"{name}-begun")
    try:
        async for _ in _body_of(receive):
            pass
    except ConnectionResetError:
        tell(f"{name}-gone")
        raise
    await _begin(send)
    await _end(send, b"read")


async def _asgi_thinking(receive: Any, send: Any, name: str) -> None:
    async for _ in _body_of(receive):
        pass
    tell(f"{name}-begun")
    await _asgi_watch(receive, name)
    await _begin(send)
    await _end(send, b"thought")


async def _asgi_headed(receive: Any, send: Any, name: str) -> None:
    await _begin(send)
    tell(f"{name}-begun")
    await _asgi_watch(receive, name)
    await _end(send, b"headed")


async def _asgi_flooding(_: Any, send: Any, name: str) -> None:
    await _begin(send)
    tell(f"{name}-begun")
    try:
        for _ in polls():
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            if told(f"{name}-enough"):
                break
    except (OSError, anyio.get_cancelled_exc_class()):
        tell(f"{name}-gone")
        raise
    await _end(send)


async def _asgi_idle(receive: Any, send: Any, name: str) -> None:
    await _begin(send, b"text/event-stream")
    await send({"type": "http.response.body", "body": b"data: begun\n\n", "more_body": True})
    tell(f"{name}-begun")
    await _asgi_watch(receive, name)
    await _end(send)


async def _asgi_wait_until(name: str) -> None:
    for _ in polls():
        if told(name):
            return
        await anyio.sleep(0.01)  # a poll: the test is another process


async def _asgi_watch(receive: Any, name: str) -> None:
    """Wait until the client has left, and tell."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        tell(f"{name}-gone")
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        for _ in polls():
            await anyio.sleep(0.01)  # a poll: the test is another process
            if told(f"{name}-enough"):
                break
        group.cancel_scope.cancel()


ASGI: dict[str, Callable[[Any, Any, str], Any]] = {
    "upload": _asgi_upload,
    "streamed": _asgi_streamed,
    "download": _asgi_download,
    "file": _asgi_file,
    "steps": _asgi_steps,
    "held": _asgi_held,
    "hinted": _asgi_hinted,
    "fails": _asgi_fails,
    "breaks": _asgi_breaks,
    "reading": _asgi_reading,
    "thinking": _asgi_thinking,
    "headed": _asgi_headed,
    "flooding": _asgi_flooding,
    "idle": _asgi_idle,
}

# -- Under the bridges --------------------------------------------------------------------------------------------

for_asgi = WSGIMiddleware(wsgi)
for_wsgi = ASGIMiddleware(asgi, **json.loads(os.environ.get("A2WSGI_TEST_OPTIONS", "{}")))
