"""Apps and servers that do what a script says, in any order, sensible or not: what the fuzzer draws.

An app's script is a tuple of steps; its log says what it did and what was raised. A server's script says how a request
comes, in which parts, and where the server or the client gives up. `on_asgi_server` and `on_wsgi_server` play a request
of the one against the other and tell what came out. Everything has a bound: what takes longer is a `HangError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from support.asgi_driver import http_scope
from support.lockstep import BOUND_SECONDS
from support.wsgi_driver import environ_of

#: What is left out, by name: an error of `ERRORS`, or ``types`` (wrong ones). For a search past what is known.
WITHOUT = frozenset(filter(None, os.environ.get("FUZZ_WITHOUT", "").split(",")))


class HangError(AssertionError):
    """A request did not end, or left something running."""


# -- Errors -----------------------------------------------------------------------------------------------------------


class Plain(Exception):  # noqa: N818 - named as in a script
    pass


class Base(BaseException):
    pass


class Unprintable(Exception):  # noqa: N818 - named as in a script
    """Neither its ``repr`` nor its ``str`` can be had."""

    def __repr__(self) -> str:
        raise RuntimeError("repr() raises")

    __str__ = __repr__


class UnprintableBase(BaseException):
    """As `Unprintable`, and caught by few."""

    def __repr__(self) -> str:
        raise RuntimeError("repr() raises")

    __str__ = __repr__


ERRORS: dict[str, type[BaseException]] = {
    kind.__name__: kind
    for kind in (
        Plain,
        Base,
        Unprintable,
        UnprintableBase,
        OSError,
        StopIteration,
        StopAsyncIteration,
        GeneratorExit,
        SystemExit,
        KeyboardInterrupt,
        asyncio.CancelledError,
    )
    if kind.__name__ not in WITHOUT
}
#: What a server's ``send()`` or a stream's ``read()`` raises.
SERVER_ERRORS = [name for name in ("OSError", "Plain", "Unprintable") if name in ERRORS]

errors = st.sampled_from(sorted(ERRORS))


# -- Steps ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """Of either interface: ``start_response()``, or ``http.response.start``."""

    status: Any = 200
    headers: Any = ()
    exc_info: bool = False


@dataclass(frozen=True)
class Body:
    """A part of the body: written, given by the iterable, or sent."""

    data: Any = b""
    more: bool = True
    write: bool = False


@dataclass(frozen=True)
class Read:
    """``read(size)``, or ``receive()``."""

    size: int = -1


@dataclass(frozen=True)
class Raise:
    """Raise an error of `ERRORS`."""

    error: str


@dataclass(frozen=True)
class Other:
    """A message as it stands; nothing for a WSGI app."""

    message: Any


@dataclass(frozen=True)
class Do:
    """``"rest"``: let others run. ``"cancel"``: cancel oneself. ``"watch"``: have a task of its own receive."""

    what: str


Step = Start | Body | Read | Raise | Other | Do


@dataclass(frozen=True)
class WSGIScript:
    """What a WSGI app does when it is called, while it is iterated, and when it is closed.

    Attributes:
        shape: ``"list"``, ``"iterator"``, ``"bare"`` (an iterator that cannot be closed), ``"none"``.
        closes: An error that `close` raises, or nothing.
    """

    call: tuple[Step, ...]
    shape: str = "list"
    iterate: tuple[Step, ...] = ()
    closes: str = ""


@dataclass(frozen=True)
class ASGIScript:
    """What an ASGI app does."""

    steps: tuple[Step, ...]


@dataclass
class Log:
    """What an app did.

    Attributes:
        emitted: The parts of the body that it gave, as far as anybody was to take them.
        raised: Its own errors.
        closable: How many iterables with a `close` it gave.
        closes: How often that was called.
        read: What it read of the request's body.
        complete: An ASGI app's: whether it sent its last part.
        loop: Where it ran.
    """

    emitted: list[Any] = field(default_factory=list[Any])
    raised: list[BaseException] = field(default_factory=list[BaseException])
    closable: int = 0
    closes: int = 0
    calls: int = 0
    read: list[bytes] = field(default_factory=list[bytes])
    complete: bool = False
    loop: asyncio.AbstractEventLoop | None = None

    def error(self, name: str) -> BaseException:
        """Make an error that is the app's own."""
        error = ERRORS[name]()
        self.raised.append(error)
        return error


def wsgi_app(script: WSGIScript, log: Log) -> Callable[[Any, Any], Any]:
    """A WSGI app that does what the script says."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        log.calls += 1
        write: list[Callable[[bytes], object]] = []

        def do(step: Step) -> None:
            if isinstance(step, Start):
                info: Any = None
                if step.exc_info:
                    error = log.error("Plain")
                    info = (type(error), error, None)
                status = f"{step.status} Said" if isinstance(step.status, int) else step.status
                headers = (
                    [_text_pair(pair) for pair in step.headers] if isinstance(step.headers, tuple) else step.headers
                )
                write.append(start_response(status, headers, *([info] if info else [])))
            elif isinstance(step, Body):
                if write:
                    log.emitted.append(step.data)
                    write[-1](step.data)
            elif isinstance(step, Read):
                log.read.append(environ["wsgi.input"].read(step.size))
            elif isinstance(step, Raise):
                raise log.error(step.error)

        for step in script.call:
            do(step)
        if script.shape == "none":
            return None
        if script.shape == "list":
            chunks = [step.data for step in script.iterate if isinstance(step, Body)]
            log.emitted += chunks
            return chunks
        steps = iter(script.iterate)

        class Bare:
            def __iter__(self) -> Iterator[bytes]:
                return self

            def __next__(self) -> Any:
                for step in steps:
                    if isinstance(step, Body) and not step.write:
                        log.emitted.append(step.data)
                        return step.data
                    do(step)
                raise StopIteration

        class Closable(Bare):
            def close(self) -> None:
                log.closes += 1
                if script.closes:
                    raise log.error(script.closes)

        if script.shape == "bare":
            return Bare()
        log.closable += 1
        return Closable()

    return app


def _text_pair(pair: Any) -> Any:
    """A header as WSGI has it, if it is one at all."""
    try:
        name, value = pair
        return name.decode("latin-1"), value.decode("latin-1")
    except (TypeError, ValueError, AttributeError):
        return pair


def asgi_app(script: ASGIScript, log: Log) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """An ASGI app that does what the script says. It awaits no message that need not come."""

    async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        log.calls += 1
        log.loop = asyncio.get_running_loop()
        body_over = False
        watchers: list[asyncio.Task[None]] = []

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def do(step: Step) -> None:
            nonlocal body_over
            if isinstance(step, Start):
                headers = list(step.headers) if isinstance(step.headers, tuple) else step.headers
                await send({"type": "http.response.start", "status": step.status, "headers": headers})
            elif isinstance(step, Body):
                if not log.complete:
                    log.emitted.append(step.data)
                    log.complete = not step.more
                await send({"type": "http.response.body", "body": step.data, "more_body": step.more})
            elif isinstance(step, Read):
                if not watchers and (not body_over or log.complete):
                    message = await receive()
                    if message["type"] == "http.request":
                        log.read.append(message["body"])
                    body_over = message["type"] != "http.request" or not message["more_body"]
            elif isinstance(step, Raise):
                raise log.error(step.error)
            elif isinstance(step, Other):
                await send(step.message)
                # It was taken. Without "more_body" it was the last one, and what the script says next is not sent.
                log.complete = log.complete or step.message == {"type": "http.response.body"}
            elif step.what == "rest":
                await asyncio.sleep(0)
            elif step.what == "watch":
                watchers.append(asyncio.ensure_future(watch()))
            else:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()

        try:
            for step in script.steps:
                await do(step)
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    return app


# -- Servers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """How a request comes, and where its server or client gives up.

    Attributes:
        parts: Its body, as it is cut.
        chunked: Whether no length is said.
        breaks_after: After so many parts the client is gone; or `receive_error` is raised.
        after: What comes after the body: ``"silence"``, ``"disconnect"``, ``"empties"`` (without end, as aiohttp-asgi).
        disconnect_at: With the call of `send` of this number the client is gone.
        fail_at: That call of `send` raises, or that call of `start_response` and then of `read`.
        cancel_at: In that call of `send` the server cancels the request.
        take: How many chunks a WSGI server takes before it closes the response; all if None.
        rests: How often `send` lets others run.
    """

    method: str = "GET"
    parts: tuple[bytes, ...] = ()
    chunked: bool = False
    breaks_after: int | None = None
    receive_error: str = ""
    after: str = "silence"
    disconnect_at: int | None = None
    fail_at: int | None = None
    send_error: str = "OSError"
    cancel_at: int | None = None
    take: int | None = None
    rests: int = 0

    def is_calm(self) -> bool:
        """Whether neither the server nor the client gives up."""
        points = (self.breaks_after, self.disconnect_at, self.fail_at, self.cancel_at, self.take)
        return all(point is None for point in points) and self.after != "disconnect"

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


@dataclass
class Outcome:
    """What came out of a bridge.

    Attributes:
        faults: What it did against the protocol.
        errors: The server's own, raised into the bridge.
    """

    status: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    chunks: list[bytes] = field(default_factory=list[bytes])
    complete: bool = False
    error: BaseException | None = None
    faults: list[str] = field(default_factory=list[str])
    errors: list[BaseException] = field(default_factory=list[BaseException])

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


class _Bound:
    """How long a request may take. Once one has hung, the search for a smaller example need not be as patient."""

    seconds = BOUND_SECONDS

    def hang(self, what: str) -> HangError:
        self.seconds = 1.0
        return HangError(what)


BOUND = _Bound()


def on_asgi_server(
    make: Callable[[], tuple[Callable[..., Awaitable[Any]], Callable[[], list[str]]]], request: Request
) -> Outcome:
    """Have an ASGI app answer the request on a loop of its own.

    Args:
        make: Makes the app, and what tells what still runs of it.
        request: The request.
    """
    return asyncio.run(_on_asgi_server(make, request))


async def _on_asgi_server(
    make: Callable[[], tuple[Callable[..., Awaitable[Any]], Callable[[], list[str]]]], request: Request
) -> Outcome:
    outcome = Outcome()
    gone = asyncio.Event()
    received = sends = 0

    async def receive() -> Any:
        nonlocal received
        received += 1
        number = received - 1
        if gone.is_set():
            return {"type": "http.disconnect"}
        if request.breaks_after is not None and number >= request.breaks_after:
            if request.receive_error:
                outcome.errors.append(ERRORS[request.receive_error]())
                raise outcome.errors[-1]
            gone.set()
            return {"type": "http.disconnect"}
        if number < max(1, len(request.parts)):
            data = request.parts[number] if request.parts else b""
            return {"type": "http.request", "body": data, "more_body": number + 1 < len(request.parts)}
        if request.after == "empties":
            return {"type": "http.request", "body": b"", "more_body": False}
        if request.after == "silence":
            await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal sends
        sends += 1
        for _ in range(request.rests):
            await asyncio.sleep(0)
        if sends == request.disconnect_at:
            gone.set()
        if sends == request.cancel_at:
            task.cancel()
            await asyncio.sleep(0)
        if request.fail_at is not None and sends >= request.fail_at:
            outcome.errors.append(ERRORS[request.send_error]())
            raise outcome.errors[-1]
        if outcome.complete:
            outcome.faults.append(f"{message['type']} after the end")
        if message["type"] == "http.response.start":
            if outcome.status is not None:
                outcome.faults.append("a second head")
            outcome.status = message["status"]
            outcome.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
        elif message["type"] == "http.response.body":
            if outcome.status is None:
                outcome.faults.append("a body before the head")
            outcome.chunks.append(message["body"])
            outcome.complete = not message["more_body"]
        else:
            outcome.faults.append(f"sent {message!r}")

    app, leftovers = make()
    scope = http_scope(request.method, headers=_request_headers(request))
    task = asyncio.ensure_future(app(scope, receive, send))
    done, _ = await asyncio.wait({task}, timeout=BOUND.seconds)
    if not done:
        raise BOUND.hang("The request does not end")
    outcome.error = asyncio.CancelledError() if task.cancelled() else task.exception()
    gone.set()
    deadline = time.monotonic() + BOUND.seconds
    while True:
        here = asyncio.current_task()
        left = [f"{other!r}" for other in asyncio.all_tasks() if other is not here] + leftovers()
        if not left:
            break
        if time.monotonic() > deadline:
            raise BOUND.hang(f"Left behind: {left}")
        await asyncio.sleep(0.0005)  # a poll: threads of the app's end when they like
    await _shut_down(app)
    return outcome


async def _shut_down(app: Callable[..., Awaitable[Any]]) -> None:
    """The server's end: the bridge's idle workers end with it."""
    coming = iter(("lifespan.startup", "lifespan.shutdown"))

    async def receive() -> Any:
        return {"type": next(coming)}

    async def send(_: Any) -> None:
        pass

    await asyncio.wait_for(app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send), BOUND.seconds)


def _request_headers(request: Request) -> list[tuple[bytes, bytes]]:
    if request.chunked:
        return [(b"transfer-encoding", b"chunked")]
    return [(b"content-length", b"%d" % len(request.body))] if request.parts else []


class _Stream:
    """``wsgi.input``: gives the parts as they are cut."""

    def __init__(self, request: Request, outcome: Outcome) -> None:
        self._parts = list(request.parts)
        self._request = request
        self._outcome = outcome
        self._reads = 0

    def read(self, size: int) -> bytes:
        self._reads += 1
        request = self._request
        if request.breaks_after is not None and self._reads > request.breaks_after:
            if request.receive_error:
                self._outcome.errors.append(ERRORS[request.receive_error]())
                raise self._outcome.errors[-1]
            return b""
        while self._parts and not self._parts[0]:
            self._parts.pop(0)
        if not self._parts:
            return b""
        data = self._parts[0][:size]
        self._parts[0] = self._parts[0][size:]
        return data


def on_wsgi_server(
    make: Callable[[], tuple[Callable[..., Iterable[bytes]], Callable[[], list[str]]]], request: Request
) -> Outcome:
    """Have a WSGI app answer the request, in a thread of its own, so that it may hang."""
    outcome = Outcome()
    app, leftovers = make()
    thread = threading.Thread(target=_serve, args=(app, request, outcome), name="fuzz-server", daemon=True)
    thread.start()
    thread.join(BOUND.seconds)
    if thread.is_alive():
        raise BOUND.hang("The request does not end")
    deadline = time.monotonic() + BOUND.seconds
    while left := leftovers():
        if time.monotonic() > deadline:
            raise BOUND.hang(f"Left behind: {left}")
        time.sleep(0.0005)  # a poll: nobody tells of a task's end
    return outcome


def _serve(app: Callable[..., Iterable[bytes]], request: Request, outcome: Outcome) -> None:
    starts = 0

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        nonlocal starts
        starts += 1
        if request.fail_at is not None and starts >= request.fail_at:
            outcome.errors.append(ERRORS[request.send_error]())
            raise outcome.errors[-1]
        if outcome.status is not None:
            outcome.faults.append("start_response() was called a second time")
        outcome.status, outcome.headers = int(status[:3]), headers
        return outcome.chunks.append

    environ = environ_of(request.method, wsgi__input=_Stream(request, outcome))
    if request.chunked:
        environ |= {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    elif request.parts:
        environ["CONTENT_LENGTH"] = str(len(request.body))
    iterable: Any = None
    try:
        try:
            iterable = app(environ, start_response)
            if outcome.status is None:
                outcome.faults.append("start_response() was not called")
            for number, chunk in enumerate(iterable):
                if type(chunk) is not bytes:
                    outcome.faults.append(f"a chunk of {type(chunk)}")
                outcome.chunks.append(chunk)
                if number + 1 == request.take:
                    break
            else:
                outcome.complete = True
        finally:
            with contextlib.suppress(AttributeError):
                close = iterable.close
                close()
    except BaseException as error:  # noqa: BLE001 - it is what the server gets
        outcome.error = error
    finally:
        iterable = None


# -- What is drawn ----------------------------------------------------------------------------------------------------

data = st.one_of(st.binary(max_size=20), st.sampled_from([b"", b"x" * 5000, b"y" * 70_000]))
statuses = st.one_of(
    st.sampled_from([200, 204, 304, 404, 500]), st.sampled_from([103, 0, 1000, "200 OK", "", None, 2.5])
)
header = st.one_of(
    st.sampled_from(
        [
            (b"content-type", b"text/plain"),
            (b"content-length", b"0"),
            (b"content-length", b"5"),
            (b"content-length", b"x"),
            (b"connection", b"close"),
            (b"transfer-encoding", b"chunked"),
            (b"x-split", b"a\r\nb"),
            (b"", b""),
            (b"x", "text"),
            None,
        ]
    ),
    st.tuples(st.binary(max_size=5), st.binary(max_size=5)),
)
good_start = st.builds(Start, status=st.sampled_from([200, 200, 204, 304, 404]))
any_start = st.builds(
    Start,
    statuses,
    st.one_of(st.lists(header, max_size=3).map(tuple), *([] if "types" in WITHOUT else [st.none()])),
    st.booleans(),
)
starts = st.one_of(good_start, good_start, any_start)
bodies = st.builds(Body, data, st.booleans(), st.booleans())
odd_bodies = st.builds(Body, st.sampled_from(["text", None, 5, bytearray(b"x")]))
common = st.one_of(bodies, bodies, st.builds(Read, st.sampled_from([-1, 0, 1, 10, 100_000])), st.builds(Raise, errors))


def _scripted(steps: st.SearchStrategy[Step]) -> st.SearchStrategy[tuple[Step, ...]]:
    """Steps in any order; more often than not, with a head before all else."""
    anything = st.lists(steps, max_size=6).map(tuple)
    return st.one_of(anything, st.tuples(starts, st.lists(steps, max_size=6)).map(lambda pair: (pair[0], *pair[1])))


wsgi_scripts = st.builds(
    WSGIScript,
    call=_scripted(st.one_of(common, starts)),
    shape=st.sampled_from(["list", "iterator", "iterator", "bare", "none"]),
    iterate=st.lists(st.one_of(common, bodies, starts, odd_bodies), max_size=6).map(tuple),
    closes=st.one_of(st.just(""), st.just(""), errors),
)
messages: st.SearchStrategy[Any] = st.sampled_from(
    [None, {}, {"type": "nonsense"}, {"type": 5}, {"type": "http.response.body"}, [], "text"]
)
asgi_scripts = st.builds(
    ASGIScript,
    _scripted(
        st.one_of(
            common,
            common,
            starts,
            odd_bodies,
            messages.map(Other),
            st.sampled_from(["rest", "cancel", "watch"]).map(Do),
        )
    ),
)
_point = st.one_of(st.none(), st.none(), st.integers(0, 4))
requests = st.builds(
    Request,
    method=st.sampled_from(["GET", "POST", "HEAD"]),
    parts=st.lists(data, max_size=5).map(tuple),
    chunked=st.booleans(),
    breaks_after=_point,
    receive_error=st.sampled_from(["", *SERVER_ERRORS]),
    after=st.sampled_from(["silence", "silence", "disconnect", "empties"]),
    disconnect_at=_point,
    fail_at=_point,
    send_error=st.sampled_from(SERVER_ERRORS),
    cancel_at=_point,
    take=_point,
    rests=st.integers(0, 2),
)
