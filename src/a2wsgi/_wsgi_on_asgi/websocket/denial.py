"""How the handshake of a WebSocket is refused: by the app's response, by what it wrote on its socket, or by us.

*Facts*

- Servers with the extension ``websocket.http.response`` pass on a whole response. Others answer 403 if they get
  ``websocket.close`` before the acceptance (ASGI WebSocket 2.5, "Close", "WebSocket Denial Response").
- granian takes one message for the whole body of a refusal, and no second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2wsgi._errors import AppProtocolError, ClientDisconnected
from a2wsgi._log import logger
from a2wsgi._protocol.framing import Framing
from a2wsgi._wsgi_on_asgi.endings import Abortable, Ending
from a2wsgi._wsgi_on_asgi.faults import no_head, too_short
from a2wsgi._wsgi_on_asgi.refusals import refusal
from a2wsgi._wsgi_on_asgi.streams import MESSAGE_BYTES

if TYPE_CHECKING:
    from a2wsgi._protocol.answer import BodyParser, Denied
    from a2wsgi._types import Scope, Send
    from a2wsgi._wsgi_on_asgi.bridge import Shared
    from a2wsgi._wsgi_on_asgi.streams import ToLoop

    from .app import AppRun
    from .link import Link

DENIAL = "websocket.http.response"

#: After so much of what the app writes on its socket the loop goes round once: it may come in chunks of one byte, which
#: take 2 ms to read then, and a whole read of the link nearly a second. Arbitrary.
BYTES_A_TURN = 4_096


class DenialMixin(Abortable):
    """The part of a `WebSocketSession` that refuses its handshake. Loop thread."""

    def __init__(self, shared: Shared, scope: Scope, send: Send) -> None:
        super().__init__(shared.loops.here(), send, shared.settings.send_timeout)
        self._scope = scope

    async def close(self, code: int, reason: str) -> None:
        """ASGI WebSocket 2.5, "Close": sent before the handshake is accepted, it has the server answer 403."""
        await self.send_message({"type": "websocket.close", "code": code, "reason": reason})

    async def deny(self, status: int, headers: list[tuple[bytes, bytes]]) -> bool:
        """Begin to refuse the handshake. False if the server knows no refusal but its own."""
        if DENIAL in (self._scope.get("extensions") or ()):
            return await self.send_message({"type": f"{DENIAL}.start", "status": status, "headers": headers})
        logger.info("403 to a WebSocket at %r: the app's answer is %s", self._scope.get("path"), status)
        await self.close(1008, "")
        return False

    async def deny_body(self, body: bytes, *, more: bool) -> None:
        await self.send_message({"type": f"{DENIAL}.body", "body": body, "more_body": more})

    async def refuse(self, status: int) -> None:
        """Refuse the handshake without the app, with a fixed text."""
        start, body = refusal(status, self._scope)
        if await self.deny(status, start["headers"]):
            await self.deny_body(body["body"], more=False)

    def is_over(self) -> bool:
        """Whether it has ended, which may be news after each wait."""
        return self.ending is not None

    async def refuse_by_response(self, run: AppRun) -> None:
        """Pass on the app's response, which it gave while its socket was silent."""
        framing: Framing | None = None  # once it has begun
        ended = False
        while not ended and self.ending is None:
            chunks, ended = await _gather(run.output)
            if self.is_over():
                if framing is None:
                    await self.refuse_if_stopped()
                return
            if run.failure is not None and (ended or framing is None):
                break  # what has begun is broken off: it must not look complete
            if framing is None:
                head = run.head
                if head is None or not run.committed:
                    run.failure = _no_answer() if run.took_over else no_head()
                    break
                framing = Framing("GET", head.status, head.content_length)
                headers = head.headers
                if head.content_length is None and ended and not framing.bodiless:
                    headers = [*headers, (b"content-length", b"%d" % sum(map(len, chunks)))]
                if not await self.deny(head.status, headers):
                    break  # the server can say no more than 403
            body = framing.cut(b"".join(chunks))
            if ended and framing.remaining:
                run.failure = too_short(framing.remaining)
                break
            if body or ended:
                await self.deny_body(body, more=not ended)
        if self.ending is None:
            run.raised = run.failure is not None
            self.abort(Ending.FAILED if run.raised else Ending.FINISHED, _refused)

    async def refuse_by_socket(self, link: Link, answer: Denied, data: bytes) -> None:
        """Pass on a response that the app writes on its socket."""
        if await self.deny(answer.status, answer.headers):
            body = bytearray()
            await self._feed(answer.body, data, body)
            while self.ending is None and not answer.body.complete:
                if len(body) >= MESSAGE_BYTES:
                    await self.deny_body(bytes(body), more=True)
                    body.clear()
                data = await link.read()
                if self.ending is None:
                    if not data:
                        answer.body.end_of_stream()
                    await self._feed(answer.body, data, body)
            if self.ending is None:
                await self.deny_body(bytes(body), more=False)
        self.abort(Ending.FINISHED, _refused)

    async def _feed(self, parser: BodyParser, data: bytes, body: bytearray) -> None:
        """Add the part of ``data`` that belongs to the body, as long as the WebSocket has not ended."""
        for start in range(0, len(data), BYTES_A_TURN):
            if start:
                await self._loop.runtime.go_round()
                if self.is_over():
                    return
            body += parser.feed(data[start : start + BYTES_A_TURN])

    async def refuse_if_stopped(self) -> None:
        """Answer a client whose handshake the app had not answered when the server shut down."""
        if self.ending is Ending.SHUT_DOWN:
            await self.refuse(503)


async def _gather(output: ToLoop) -> tuple[list[bytes], bool]:
    """As much of the app's response as makes one message, and whether that was the end."""
    gathered: list[bytes] = []
    ended = False
    while not ended and sum(map(len, gathered)) < MESSAGE_BYTES:
        chunks, ended = await output.take()
        gathered += chunks
    return gathered, ended


def _refused() -> ClientDisconnected:
    return ClientDisconnected("its handshake was refused")


def _no_answer() -> AppProtocolError:
    return AppProtocolError(
        "The WSGI app returned the status 101 but wrote nothing to its socket, so the handshake has no response (RFC "
        "6455 §4.2.2). Let a WebSocket library write to the socket, or return another status."
    )
