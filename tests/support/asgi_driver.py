"""The smallest server side of ASGI: calls an app as servers do, and holds what the app does against the protocol.

A `Client` is one connection: what it sends is a script, and goes on at a test's command from any thread. `call` has an
app answer one request on a loop of its own; `answer` does so on a loop that runs, under `run`. Each of them fails a
test whose app breaks ASGI: so no test need ask for that.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar
from urllib.parse import unquote

from support import runtimes
from support.lockstep import BOUND_SECONDS, Signal
from support.runtimes import Waiter, pause, within

T = TypeVar("T")
Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[Any]]
OnSend: TypeAlias = Callable[[int, Message], Awaitable[None]]

DISCONNECT = {"type": "http.disconnect"}


# -- What a server says -----------------------------------------------------------------------------------------------


def http_scope(
    method: str = "GET", target: str = "/", headers: Iterable[tuple[bytes, bytes]] = (), **others: object
) -> dict[str, Any]:
    """The scope of a request, as uvicorn makes it.

    Args:
        method: The request's.
        target: The request's, as on the wire: quoted, with its query.
        headers: Besides ``Host``, unless that is among them.
        others: Keys that replace what stands here.
    """
    raw_path, _, query = target.partition("?")
    headers = list(headers)
    host = [] if any(name.lower() == b"host" for name, _ in headers) else [(b"host", b"testserver")]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 54321),
        "scheme": "http",
        "method": method,
        "root_path": "",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query.encode("latin-1"),
        "headers": [*host, *headers],
        "state": {},
        **others,
    }


def body_message(body: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    """One ``http.request``, with all keys."""
    return {"type": "http.request", "body": body, "more_body": more}


# -- A connection -----------------------------------------------------------------------------------------------------


class Client:
    """One client's connection: gives a server's ``receive()`` and ``send()`` for one request.

    Args:
        body: The parts of the request's body, a message each. One empty message for none.
        complete: Whether the last of them is the end; else more comes by `say`.
        messages: What `receive` gives instead, as it stands.
        on_send: Awaited by `send` with the number of the call, from 1, and the message, before that counts as taken.
        repeats_end: After the body give its empty end again and again, without waiting (aiohttp-asgi).
        disconnects_when_complete: Give ``http.disconnect`` from the moment that `send` has the last message, and has
            not returned yet (uvicorn).
        strict: Hold the messages against what the strictest servers take; frameworks send what most take.

    Attributes:
        sent: What `send` took, whole.
        sends: How often `send` was called.
        receives: How often `receive` was called.
        hungry: Set while a call of `receive` waits for something to be said.
        faults: What the app did against ASGI.
    """

    def __init__(
        self,
        *body: bytes,
        complete: bool = True,
        messages: Iterable[Message] | None = None,
        on_send: OnSend | None = None,
        repeats_end: bool = False,
        disconnects_when_complete: bool = False,
        strict: bool = True,
    ) -> None:
        parts = body or ((b"",) if complete else ())
        self.sent: list[Message] = []
        self.receives = 0
        self.sends = 0
        self.hungry = Signal("receive() waits")
        self.faults: list[str] = []
        self._on_send = on_send
        self._repeats_end = repeats_end
        self._disconnects_when_complete = disconnects_when_complete
        self._strict = strict
        self._lock = threading.Lock()
        self._messages: deque[Message] = deque(
            (body_message(part, more=not complete or number < len(parts)) for number, part in enumerate(parts, 1))
            if messages is None
            else messages
        )
        self._waiter: Waiter | None = None
        self._receiving = False
        self._sending = False
        self._told_of_disconnect = False
        self._body_ended = False
        self._send_failed = False

    # -- the test's side ----------------------------------------------------------------------------------------------

    def say(self, message: Message) -> None:
        """Have `receive` give ``message`` next. Any thread."""
        with self._lock:
            self._messages.append(message)
            waiter, self._waiter = self._waiter, None
            self.hungry = Signal("receive() waits")
        if waiter is not None:
            waiter.wake()

    def send_body(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the request's body. Any thread."""
        self.say(body_message(body, more=more))

    def leave(self, *_: object) -> None:
        """Be gone. Any thread."""
        self.say(dict(DISCONNECT))

    # -- the app's side -----------------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """As a server's; like hypercorn's it never returns after a disconnect was told."""
        self.receives += 1
        if self._receiving:
            self.faults.append("receive() was called while another call of it waits")
        if self._told_of_disconnect:
            self.faults.append("receive() was called after it gave http.disconnect")
        self._receiving = True
        try:
            message = await self._next_message()
        finally:
            self._receiving = False
        if message["type"] == "http.disconnect":
            self._told_of_disconnect = True
        elif message["type"] == "http.request":
            self._body_ended = not message.get("more_body", False)
        return message

    async def _next_message(self) -> Message:
        while True:
            with self._lock:
                if self._messages:
                    return self._messages.popleft()
                if self._repeats_end and self._body_ended:
                    return body_message()
                waiter = self._waiter = Waiter()
                self.hungry.set()
            await waiter.wait()

    async def send(self, message: Message) -> None:
        """As a server's."""
        self.sends += 1
        if self._sending:
            self.faults.append("send() was called while another call of it waits")
        if self._send_failed:
            self.faults.append("send() was called after it raised")
        self.faults += _faults_of_message(message, self.sent) if self._strict else []
        if self._disconnects_when_complete and _is_last(message):
            self.leave()
        self._sending = True
        try:
            if self._on_send is not None:
                await self._on_send(self.sends, message)
        except BaseException:
            self._send_failed = True
            raise
        finally:
            self._sending = False
        self.sent.append(message)


def _is_last(message: Message) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body", False)


def _faults_of_message(message: Message, before: list[Message]) -> list[str]:
    """Say what is wrong with a message of a response, in the eyes of the strictest servers."""
    if not message["type"].startswith("http."):
        return []
    if any(map(_is_last, before)):
        return [f"{message['type']} was sent after the end of the response"]
    if message["type"] == "http.response.start":
        return _faults_of_head(message) + ["A second http.response.start was sent"] * bool(before)
    faults = [] if before else ["A body was sent before http.response.start"]
    if message["type"] != "http.response.body" or set(message) != {"type", "body", "more_body"}:
        faults.append(f"{message!r} is no http.response.body with all its keys")
    elif type(message["body"]) is not bytes or type(message["more_body"]) is not bool:
        faults.append(f"{message!r} has values of wrong types")
    return faults


def _faults_of_head(message: Message) -> list[str]:
    if set(message) != {"type", "status", "headers"} or type(message["status"]) is not int:
        return [f"{message!r} is no http.response.start with all its keys"]
    headers = message["headers"]
    if type(headers) is not list or any(type(pair) is not tuple for pair in headers):
        return [f"The headers {headers!r} are no list of tuples"]
    return [
        f"The header {name!r}: {value!r} is not of bytes, or its name not in lower case"
        for name, value in headers
        if type(name) is not bytes or type(value) is not bytes or name != name.lower()
    ]


# -- A response -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Response:
    """What an app answered.

    Attributes:
        messages: What it sent, whole.
        raised: What it raised, None if it returned.
    """

    messages: list[Message]
    raised: BaseException | None = None

    @property
    def status(self) -> int:
        status: int = self.messages[0]["status"]
        return status

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = self.messages[0]["headers"]
        return headers

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages[1:])

    @property
    def complete(self) -> bool:
        """Whether the last message says that it is the last."""
        return bool(self.messages) and _is_last(self.messages[-1])


def messages_of(status: int, headers: Iterable[tuple[bytes, bytes]], *bodies: bytes) -> list[Message]:
    """A whole response, a message for each of the bodies; one empty body where there is none."""
    bodies = bodies or (b"",)
    return [
        {"type": "http.response.start", "status": status, "headers": list(headers)},
        *(
            {"type": "http.response.body", "body": body, "more_body": number < len(bodies)}
            for number, body in enumerate(bodies, 1)
        ),
    ]


async def answer(
    app: ASGIApp,
    client: Client | None = None,
    scope: Scope | None = None,
    *,
    fails: type[BaseException] | None = None,
) -> Response:
    """Have ``app`` answer one request on the running loop.

    Args:
        app: An ASGI app.
        client: Whose; one without a body by default.
        scope: What of; ``GET /`` by default.
        fails: What the app is to raise; None if it is to return.
    """
    client = client or Client()
    raised: BaseException | None = None
    try:
        returned = await app(http_scope() if scope is None else scope, client.receive, client.send)
    except BaseException as error:
        if fails is None or not isinstance(error, fails):
            raise
        raised = error
    else:
        assert returned is None
        assert fails is None, f"The app returned, and did not raise {fails}"
    assert client.faults == []
    return Response(client.sent, raised)


def call(
    app: ASGIApp,
    client: Client | None = None,
    scope: Scope | None = None,
    *,
    fails: type[BaseException] | None = None,
) -> Response:
    """`answer`, on a loop of its own that is then closed."""
    return run(answer(app, client, scope, fails=fails))


def run(main: Coroutine[Any, Any, T], seconds: float = 2 * BOUND_SECONDS) -> T:
    """Run ``main`` on a loop of its own, and see that it leaves no task and no error there. See `runtimes.run`."""
    return runtimes.run(main, seconds)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop go round until ``condition`` holds, for a bounded time. For what nobody tells of."""

    async def poll() -> None:
        while not condition():
            await pause(0.001)

    await within(BOUND_SECONDS, poll())
