"""The ASGI app that WSGI servers serve: `app`, or `inline`. ``/control`` is answered beside the bridges."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import counters
import misbehaviour
import websocket_apps
from bodies import body_of, chunks_of, receipt
from misbehaviour import ERRORS

from a2wsgi import ASGIMiddleware

PLAIN = [(b"content-type", b"application/octet-stream")]


class Asked:
    """One request: what it asks for, and what the server gave to answer with."""

    def __init__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        query = dict(parse_qsl(scope["query_string"].decode()))
        self.scope = scope
        self.receive = receive
        self.send = send
        self.identity = query["id"]
        self.body_bytes = body_of(self.identity, int(query.get("n", "100")))
        self.size = int(query.get("k", "1000"))
        self.error = ERRORS[query.get("error", "plain")]

    async def start(self, *headers: tuple[bytes, bytes], status: int = 200) -> None:
        """Start the response."""
        await self.send({"type": "http.response.start", "status": status, "headers": [*PLAIN, *headers]})

    async def body(self, data: bytes = b"", *, more: bool = False) -> None:
        """Send a part of the body."""
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def chunks(self) -> None:
        """Send all of it, but not the end."""
        for chunk in chunks_of(self.body_bytes, self.size):
            await self.body(chunk, more=True)

    async def whole(self) -> None:
        """Send a whole response."""
        await self.start()
        await self.body(self.body_bytes)

    async def request(self) -> AsyncIterator[bytes]:
        """The request's body."""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the client left")
            yield message["body"]
            if not message["more_body"]:
                return


async def whole(asked: Asked) -> None:
    await asked.whole()


async def stream(asked: Asked) -> None:
    await asked.start()
    await asked.chunks()
    await asked.body()


async def sized(asked: Asked) -> None:
    await asked.start((b"content-length", b"%d" % len(asked.body_bytes)))
    await asked.chunks()
    await asked.body()


async def empty(asked: Asked) -> None:
    await asked.start(status=204)
    await asked.body()


async def slow(asked: Asked) -> None:
    await asyncio.sleep(random.random() * 0.03)
    await asked.start()
    for chunk in chunks_of(asked.body_bytes, asked.size):
        await asyncio.sleep(random.random() * 0.003)
        await asked.body(chunk, more=True)
    await asked.body()


async def upload(asked: Asked) -> None:
    digest = hashlib.sha256()
    async for chunk in asked.request():
        digest.update(chunk)
    await asked.start()
    await asked.body(receipt(asked.identity, digest.hexdigest()))


async def echo(asked: Asked) -> None:
    await asked.start()
    async for chunk in asked.request():
        await asked.body(chunk, more=True)
    await asked.body()


async def watched(asked: Asked) -> None:
    """Stream while another task waits for the disconnect, as Starlette's `StreamingResponse` does."""

    async def watch() -> None:
        while (await asked.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(watch())
    try:
        await stream(asked)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def patient(asked: Asked) -> None:
    async def watch() -> None:
        while (await asked.receive())["type"] != "http.disconnect":
            pass

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(watch(), 0.2)
    await asked.whole()


async def background(asked: Asked) -> None:
    await asked.whole()
    await asyncio.sleep(random.random() * 0.02)


async def background_raises(asked: Asked) -> None:
    await asked.whole()
    await asyncio.sleep(random.random() * 0.005)
    raise asked.error


async def background_stream_raises(asked: Asked) -> None:
    await stream(asked)
    await asyncio.sleep(0)
    raise asked.error


async def background_long(asked: Asked) -> None:
    """Longer than ``wait_time``: cancelled where that is given."""
    await asked.whole()
    await asyncio.sleep(0.3)


async def hop_by_hop(asked: Asked) -> None:
    await asked.start((b"connection", b"keep-alive"), (b"keep-alive", b"timeout=5"))
    await asked.body(asked.body_bytes)


async def raise_before(asked: Asked) -> None:
    raise asked.error


async def raise_before_later(asked: Asked) -> None:
    await asyncio.sleep(random.random() * 0.005)
    raise asked.error


async def raise_after(asked: Asked) -> None:
    await asked.start()
    await asked.chunks()
    raise asked.error


async def child_raises(asked: Asked) -> None:
    """A child task fails while the app sends; the other children are cancelled."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise misbehaviour.UnprintableError

    await asyncio.gather(fail(), asyncio.sleep(0.001))


async def cancel_self(asked: Asked) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


async def cancel_self_after(asked: Asked) -> None:
    await asked.start()
    await asked.chunks()
    await cancel_self(asked)


async def late_calls(asked: Asked) -> None:
    """Another task sends and receives when the request is over."""
    await asked.whole()

    async def late() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        for call in (
            lambda: asked.body(body_of("late", 5000), more=True),
            asked.start,
            lambda: asyncio.wait_for(asked.receive(), 0.5),
        ):
            with contextlib.suppress(Exception):
                await call()

    task = asyncio.ensure_future(late())
    LATE.add(task)
    task.add_done_callback(LATE.discard)


LATE: set[asyncio.Future[None]] = set()


async def nothing(asked: Asked) -> None:
    return


async def head_only(asked: Asked) -> None:
    await asked.start()


async def unfinished(asked: Asked) -> None:
    await asked.start()
    await asked.chunks()


async def too_short(asked: Asked) -> None:
    await asked.start((b"content-length", b"%d" % (len(asked.body_bytes) + 1)))
    await asked.chunks()
    await asked.body()


async def too_long(asked: Asked) -> None:
    await asked.start((b"content-length", b"%d" % len(asked.body_bytes)))
    await asked.chunks()
    await asked.body(b"more")


async def body_first(asked: Asked) -> None:
    await asked.body(asked.body_bytes)


async def second_head(asked: Asked) -> None:
    await asked.start()
    await asked.start()


async def unknown_message(asked: Asked) -> None:
    await asked.send({"type": "http.response.nonsense"})


async def no_message(asked: Asked) -> None:
    await asked.send(None)


async def text(asked: Asked) -> None:
    await asked.start()
    await asked.send({"type": "http.response.body", "body": "text"})


async def bad_header(asked: Asked) -> None:
    await asked.start((b"x-split", b"a\r\nb: c"))
    await asked.body(asked.body_bytes)


async def informational(asked: Asked) -> None:
    await asked.start(status=103)
    await asked.body(asked.body_bytes)


KINDS = {
    kind.__name__: kind
    for kind in (
        *(whole, stream, sized, empty, slow, upload, echo, watched, patient, hop_by_hop),
        *(background, background_raises, background_stream_raises, background_long),
        *(raise_before, raise_before_later, raise_after, child_raises, cancel_self, cancel_self_after, late_calls),
        *(nothing, head_only, unfinished, too_short, too_long, body_first, second_head),
        *(unknown_message, no_message, text, bad_header, informational),
    )
}

#: Those on which the app has run, for the control endpoint: their tasks are counted.
LOOPS: set[asyncio.AbstractEventLoop] = set()


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answer as the path says."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    loop = asyncio.get_running_loop()
    if loop not in LOOPS:
        LOOPS.add(loop)
    if scope["type"] == "websocket":
        await websocket_apps.asgi(scope, receive, send)
        return
    await KINDS[scope["path"].rpartition("/")[2]](Asked(scope, receive, send))


threaded = {
    "": ASGIMiddleware(asgi, grace_timeout=0.5),
    "/wait": ASGIMiddleware(asgi, wait_time=0.05, grace_timeout=0.5, response_buffer_bytes=1000),
    "/detach": ASGIMiddleware(asgi, detach_background=True, grace_timeout=0.5),
}
inlined = {
    "": ASGIMiddleware(asgi, inline=True, grace_timeout=0.5),
    "/wait": ASGIMiddleware(asgi, inline=True, wait_time=0.05, grace_timeout=0.5, response_buffer_bytes=1000),
}
counters.listen_for_signal()
misbehaviour.break_logging("a2wsgi", "asyncio")


def serve(bridges: dict[str, ASGIMiddleware]) -> Callable[..., Iterable[bytes]]:
    """A WSGI app that has one of these answer."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/control":
            return control(list(bridges.values()), start_response)
        prefix = next((prefix for prefix in bridges if prefix and path.startswith(prefix + "/")), "")
        query = dict(parse_qsl(environ["QUERY_STRING"]))
        answer = bridges[prefix](environ, start_response)
        if "close_after" in query:
            return closed_early(answer, int(query["close_after"]))
        return answer

    return app


def closed_early(answer: Iterable[bytes], chunks: int) -> Iterator[bytes]:
    """Close the response after so many chunks, as a server does whose client has left."""
    try:
        for number, chunk in enumerate(answer):
            if number >= chunks:
                break
            yield chunk
    finally:
        close = getattr(answer, "close", None)
        if close is not None:
            close()
    raise ConnectionResetError("the response is closed early")


def control(bridges: list[ASGIMiddleware], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the counters."""
    statistics = [one.statistics() for one in bridges if hasattr(one, "statistics")]
    gc.collect()
    tasks = sum(len(asyncio.all_tasks(loop)) for loop in LOOPS)
    for loop in tuple(LOOPS):
        if loop.is_closed():
            LOOPS.discard(loop)
    data = json.dumps(counters.look(tasks, statistics)).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]


app = serve(threaded)
inline = serve(inlined)
