"""The smallest server side of a WebSocket: `asgi_driver.Client` with a WebSocket's messages.

`talk` has an app answer one WebSocket under `asgi_driver.run` while a test, a coroutine, plays the client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from support.asgi_driver import ASGIApp, Client, Message, OnSend, run, until
from support.runtimes import start

DENIAL = "websocket.http.response"

#: All the keys that each message of ours has.
KEYS = {
    "websocket.accept": {"type", "subprotocol", "headers"},
    "websocket.close": {"type", "code", "reason"},
    f"{DENIAL}.start": {"type", "status", "headers"},
    f"{DENIAL}.body": {"type", "body", "more_body"},
}


def websocket_scope(
    path: str = "/ws",
    *,
    subprotocols: Iterable[str] = (),
    headers: Iterable[tuple[bytes, bytes]] = (),
    denial: bool = True,
    **others: object,
) -> dict[str, Any]:
    """The scope of a handshake, as uvicorn makes it.

    Args:
        path: Its path.
        subprotocols: What the client offers.
        headers: Besides those of a handshake.
        denial: Whether the server offers the denial extension.
        others: Keys that replace what stands here.
    """
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 54321),
        "scheme": "ws",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [
            (b"host", b"testserver"),
            (b"connection", b"Upgrade"),
            (b"upgrade", b"websocket"),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA=="),
            (b"sec-websocket-extensions", b"permessage-deflate"),
            *headers,
        ],
        "subprotocols": list(subprotocols),
        "state": {},
        "extensions": {DENIAL: {}} if denial else {},
        **others,
    }


class WebSocketClient(Client):
    """One client, as a server shows it to an app.

    Args:
        on_send: Awaited by `send` with the number of the call, from 1, and the message, before that counts as taken.
    """

    def __init__(self, on_send: OnSend | None = None) -> None:
        super().__init__(messages=[{"type": "websocket.connect"}], on_send=on_send)

    async def receive(self) -> Message:
        message = await super().receive()
        if message["type"] == "websocket.receive":
            await until(lambda: bool(self.sent))  # a client sends nothing before its handshake is answered
        if message["type"] == "websocket.disconnect":
            self._told_of_disconnect = True
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if set(message) != KEYS.get(kind, set(message)):
            self.faults.append(f"{message!r} lacks keys")
        if any(sent["type"] == "websocket.close" for sent in self.sent):
            self.faults.append(f"{kind} was sent after websocket.close")
        if kind == "websocket.send" and (not self.sent or self.sent[0]["type"] != "websocket.accept"):
            self.faults.append("websocket.send was sent before websocket.accept")
        await super().send(message)

    def says(self, data: str | bytes) -> None:
        """Send a message. Any thread."""
        self.say({"type": "websocket.receive", "text" if isinstance(data, str) else "bytes": data})

    def leaves(self, code: int | None = 1005, reason: str = "") -> None:
        """Close, or be lost. Any thread."""
        self.say({"type": "websocket.disconnect", "code": code, "reason": reason})

    async def gets(self, number: int) -> list[Message]:
        """Wait until ``number`` messages were sent, and return all."""
        await until(lambda: len(self.sent) >= number)
        return self.sent

    @property
    def data(self) -> list[str | bytes]:
        """The messages that the app has sent."""
        return [m.get("text", m.get("bytes")) for m in self.sent if m["type"] == "websocket.send"]


def talk(
    app: ASGIApp,
    play: Callable[[WebSocketClient], Awaitable[object]] | None = None,
    client: WebSocketClient | None = None,
    scope: dict[str, Any] | None = None,
    *,
    fails: type[BaseException] | None = None,
) -> tuple[WebSocketClient, BaseException | None]:
    """Have ``app`` answer one WebSocket on a loop of its own.

    Args:
        app: An ASGI app.
        play: What the client does meanwhile.
        client: Whose it is.
        scope: What of.
        fails: What the app is to raise; None if it is to return.

    Returns:
        The client, and what was raised.
    """
    client = client or WebSocketClient()

    async def main() -> BaseException | None:
        return await answer(app, client, play, scope, fails=fails)

    return client, run(main())


async def answer(
    app: ASGIApp,
    client: WebSocketClient,
    play: Callable[[WebSocketClient], Awaitable[object]] | None = None,
    scope: dict[str, Any] | None = None,
    *,
    fails: type[BaseException] | None = None,
) -> BaseException | None:
    """`talk`, on the running loop."""
    call = start(app(scope or websocket_scope(), client.receive, client.send))
    playing = start(play(client)) if play is not None else None
    raised: BaseException | None = None
    try:
        await call
    except BaseException as error:
        if fails is None or not isinstance(error, fails):
            if playing is not None:
                playing.cancel()
            raise
        raised = error
    else:
        assert fails is None, f"The app returned, and did not raise {fails}"
    if playing is not None:
        await playing
    assert client.faults == []
    return raised
