"""One WebSocket of an ASGI app on a WSGI server, from top to bottom (`WebSocketSession`, read downwards).

1. *Server thread.* A handshake is checked, and refused if it is wrong or if there is no way to the client's socket. The
   app is then run by a `Request`, as for HTTP: the server thread waits there.
2. *Loop thread.* The app runs. ``receive()`` gives ``websocket.connect``; the app decides. If it refuses, or fails, it
   is a plain HTTP response, or a failure, of the `Request`'s.
3. *Server thread.* If the app accepts, the `Request` is asked for "a part of its body". Where that would be read, the
   socket is taken over from the server (`takeover`).
4. *Loop thread.* An `Endpoint` answers the handshake on it. The `Request` is completed, as if the app had responded.
5. *Server thread.* It is woken by that, throws that response away, and gives the server an empty 101 in its place,
   which goes into the sink. If the socket has to be held, it first carries bytes until the WebSocket is over.
6. *Loop thread.* Messages go both ways until either side ends it. The app's task is the `Request`'s, still.

What the app has done is told by `Stage`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
from typing import TYPE_CHECKING, Any, cast

from a2wsgi._asgi_on_wsgi.inbox import TOLD_TIMES, pause
from a2wsgi._asgi_on_wsgi.request import Request
from a2wsgi._errors import BridgeClosed, ClientDisconnected
from a2wsgi._log import logger
from a2wsgi._protocol.close_codes import INTERNAL_ERROR, LOST, NORMAL, code_from_asgi_app
from a2wsgi._protocol.deflate import agree_on_deflate
from a2wsgi._protocol.frames import Frames, Role
from a2wsgi._protocol.iterables import NoBody
from a2wsgi._protocol.upgrade import head_101
from a2wsgi._threads.runtime import wake_all

from .endpoint import Endpoint
from .message_queue import Ended, wait_in
from .messages import (
    DENIALS,
    KNOWN,
    data_of,
    disconnect,
    no_answer,
    not_utf8,
    says_that_it_is_over,
    websocket_scope,
    wrong_in_websocket,
    wrong_type,
)
from .our_sockets import Drain, discard
from .phase import Phase, Stage
from .takeover import HandOver

if TYPE_CHECKING:
    from collections.abc import Iterable

    from a2wsgi._asgi_on_wsgi.bridge import Shared
    from a2wsgi._asgi_on_wsgi.loops.host import LoopHost
    from a2wsgi._protocol.upgrade import Handshake
    from a2wsgi._threads.handles import Waiter
    from a2wsgi._types import Environ, Message, Receive, Scope, Send, StartResponse

    from .takeover import Found, Taken


class WebSocketSession:
    """One WebSocket, among the requests of its bridge.

    Attributes:
        task: The app's, once it runs.
        opened: Whether the app has accepted it, and it is not over. Any thread.
    """

    def __init__(  # noqa: PLR0917 - all of them different, and one caller
        self, shared: Shared, host: LoopHost, environ: Environ, scope: Scope, handshake: Handshake, found: Found
    ) -> None:
        # The bridge's own, which keeps the bridge on its loop for as long as the app may run.
        self._shared = shared
        self._host = host
        self._handshake = handshake
        self._hand_over = HandOver(environ, found)
        # Copies, for the `Request` alone: once the app has accepted, its server thread must not wait for it.
        self._settings = copy.copy(shared.settings)
        self._request_shared = copy.copy(shared)
        self._request_shared.app, self._request_shared.settings = self._run, self._settings
        self._settings.app_timeout = None  # it bounds requests: a handshake may wait for whatever it is to be let in by
        self._request = Request(self._request_shared, host, environ, scope, cast("Any", self._hand_over))
        self._hand_over.read = None
        self._scope = websocket_scope(scope, handshake)
        # All below is the loop thread's.
        self.task: asyncio.Task[None] | None = None
        self._stage = Stage.CONNECTING
        self._connect_due = True  # websocket.connect was not received
        self._http_receive: Receive
        self._http_send: Send
        self._watcher: asyncio.Task[None] | None = None
        self._receivers: list[Waiter] = []  # who waits in receive() for the stage to change
        self._endpoint: Endpoint | None = None
        self._closed_by_app = False  # once it is open
        self._grace: asyncio.TimerHandle | None = None
        self._app_runs = True  # it has not ended, though `task` has a while to go
        self._told = 0  # how many times the app was told that it is over

    @property
    def opened(self) -> bool:
        return self._stage is Stage.OPEN

    # -- The story: the server thread ---------------------------------------------------------------------------------

    def answer(self, start_response: StartResponse) -> Iterable[bytes]:
        """Run the app until it has answered the handshake, and give the server what it is to see of that."""
        requests, hand_over = self._shared.lifetime.requests, self._hand_over

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:  # noqa: ANN401 - as start_response
            return start_response(status, headers, *rest) if hand_over.taken is None else None

        requests.add(self._request)
        try:
            response = self._request.answer(start)
            if hand_over.taken is None:
                return response
            cast("Any", getattr(response, "close", lambda: None))()
            sink_end = hand_over.taken.stay(lambda: self._host.doorbell.ring(WebSocketSession._stop, self))
            start_response("101 Switching Protocols", [])
        except BaseException:
            hand_over.drop()
            if hand_over.taken is not None:
                discard(hand_over.taken.rest)
            raise
        finally:
            # It never came to its app, and does not get there any more.
            if self.task is None and (self._request.withdraw() or self._request.broken):
                requests.discard(self._request)
                self._forget()
        if sink_end is not None:
            drain = Drain(self._host.loop, sink_end, requests)
            # 1. The loop ends, and its requests with it. 2. This is added to them. 3. Nobody would come to end it.
            if not self._host.doorbell.ring(self._drain, drain) or self._host.has_ended():
                drain.end_unless_started()
        return NoBody(())

    def _drain(self, drain: Drain) -> None:
        if self._shared.lifetime.host is self._host:
            drain.start()
        else:
            drain.end()  # the loop is about to end, and nobody would come to end this

    # -- The app runs: the loop thread --------------------------------------------------------------------------------

    async def _run(self, _: Scope, receive: Receive, send: Send) -> None:
        """Run the app, in the place of the `Request`'s."""
        self._http_receive, self._http_send = receive, send
        # A task factory of the user's may start it before the `Request` gets it.
        self.task = self._request.task or asyncio.current_task()
        try:
            try:
                await self._shared.app(self._scope, self.receive, self.send)
            except BaseException as error:
                if self._endpoint is None or issubclass(type(error), GeneratorExit):
                    raise  # as of any request: the server gets it
                self._app_raised(self._endpoint, error)
            else:
                self._app_returned()
            if self._endpoint is not None:
                self._app_runs = False  # what is left has its own bound
                if self._grace is not None:
                    self._grace.cancel()
                await self._endpoint.wait_closed()
        finally:
            self._leave()

    def _app_returned(self) -> None:
        if self._endpoint is not None:
            self._endpoint.close(NORMAL)
        elif self._stage is Stage.CONNECTING:
            raise no_answer()

    def _app_raised(self, endpoint: Endpoint, error: BaseException) -> None:
        by_client = endpoint.phase is not Phase.OPEN and not self._closed_by_app
        pair = self._request.pair
        if endpoint.phase is not Phase.OPEN and says_that_it_is_over(error):
            logger.debug("The app ended after its WebSocket", exc_info=error)
        # A bridge further out raises that to its server when it has read the Close, which comes after this.
        elif by_client or pair is None or not pair.offer(error, contextvars.copy_context()):
            when = (
                ", so its WebSocket was closed with 1011"
                if endpoint.phase is Phase.OPEN
                else " after its WebSocket was over"
            )
            # In the app's context, as it is here: error reporters know by it which request it was.
            logger.error("The app failed%s", when, exc_info=error)
        endpoint.close(INTERNAL_ERROR)

    def _leave(self) -> None:
        """The app has ended. Whatever is left of the session goes."""
        self._stage = Stage.OVER
        self._forget()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._grace is not None:
            self._grace.cancel()
        if self._endpoint is not None:
            self._endpoint.abort()
        self._hand_over.drop()
        self._wake()

    def _forget(self) -> None:
        """The session is over. Either thread, once the other has no more to do with it."""
        self._shared.lifetime.requests.discard(self)
        self._request_shared.app = self._shared.app  # else the two know each other, and wait for the garbage collector

    # -- From the client: the loop thread -----------------------------------------------------------------------------

    async def receive(self) -> Message:
        """ASGI's ``receive()``. Several tasks may wait in it; each message goes to one of them.

        Cancellation: no message is lost.
        """
        if self._connect_due:
            self._connect_due = False
            return {"type": "websocket.connect"}
        while self._stage is not Stage.OPEN and self._stage is not Stage.OVER:
            if self._stage is not Stage.ACCEPTING and self._watcher is None:
                self._watcher = self._host.loop.create_task(self._watch())
                continue  # an eager task may have seen already that the client has left
            await wait_in(self._receivers, self._host.loop)
        message = Ended(LOST, "") if self._endpoint is None else await self._endpoint.take()
        if isinstance(message, Ended):
            await self._tell()
            return disconnect(message)
        if isinstance(message, str):
            return {"type": "websocket.receive", "text": message}
        return {"type": "websocket.receive", "bytes": message}

    async def _watch(self) -> None:
        """See a client leave before it has the app's answer. The request has one consumer: this, or `_accept`."""
        while (await self._http_receive())["type"] != "http.disconnect":
            pass
        self._enter(Stage.OVER)

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        self._wake()

    def _wake(self) -> None:
        receivers, self._receivers = self._receivers, []
        wake_all(receivers)

    # -- To the client: the loop thread -------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """ASGI's ``send()``. Waits while the client has too much to take.

        Raises:
            AppProtocolError: The message is wrong. Nothing of it was sent.
            InvalidHeader: A header of ``websocket.accept`` cannot be sent.
            ClientDisconnected: The WebSocket is over. Stop.
        """
        try:
            kind = message["type"]
        except (KeyError, TypeError):
            kind = None  # which is unknown, too
        endpoint = self._endpoint if self._stage is Stage.OPEN else None
        if endpoint is not None and kind == "websocket.send":
            await self._send_data(endpoint, message)
        elif endpoint is not None and kind == "websocket.close":
            await self._close(endpoint, message)
        elif self._stage is Stage.CONNECTING and kind == "websocket.accept":
            await self._accept(message)
        elif self._stage is Stage.CONNECTING and kind == "websocket.close":
            # Whatever its code: none is sent. ASGI WebSocket 2.5, "Close": the server answers with a 403.
            await self._deny({"type": "websocket.http.response.start", "status": 403})
            await self._deny({"type": "websocket.http.response.body"})
        elif self._stage in {Stage.CONNECTING, Stage.DENYING} and kind in DENIALS:
            await self._deny(message)
        elif self._stage is Stage.OVER and kind in KNOWN:
            await self._tell()
            raise ClientDisconnected("the WebSocket is over")
        else:
            raise wrong_in_websocket(kind, self._stage.name)

    async def _accept(self, message: Message) -> None:
        """Have the server thread take the socket over, and answer the handshake on it."""
        settings, offers = self._settings, self._handshake.extensions
        deflate = agree_on_deflate(offers) if offers and settings.websocket_compression else None
        head = head_101(
            self._handshake,
            subprotocol=message.get("subprotocol"),
            extensions="" if deflate is None else deflate.header,
            headers=message.get("headers"),
        )
        if head.dropped:
            self._shared.dropped_headers.log(head.dropped)
        self._enter(Stage.ACCEPTING)
        try:
            taken = await self._take_over()
            if taken is None:
                raise ClientDisconnected("the server has ended the request before the WebSocket was open")  # noqa: TRY301
            self._endpoint = Endpoint(
                self._host,
                Frames(Role.SERVER, max_message_bytes=settings.websocket_max_message_bytes, deflate=deflate),
                taken.socket,
                write_buffer_bytes=settings.response_buffer_bytes,
                # Under another bridge that is its server's: the link is silent while that sends to a slow client.
                ping_interval=settings.websocket_ping_interval if self._request.pair is None else None,
                ping_timeout=settings.websocket_ping_timeout,
            )
            await self._endpoint.open(head.data, taken.early)
            await self._let_server_go()
        except BaseException:
            endpoint, self._endpoint = self._endpoint, None
            if endpoint is not None:
                endpoint.abort()
            self._enter(Stage.OVER)
            raise
        self._shared.lifetime.requests.discard(self._request)  # it is over; the session is not
        self._enter(Stage.OPEN)

    async def _let_server_go(self) -> None:
        """Complete a response, so that the server thread goes on; it must not wait for the app then."""
        self._settings.detach_background, self._settings.wait_time = True, None
        # The client has its answer, and may have left again, as a bridge further out tells the request. It is open all
        # the same, and the app is to receive what was said.
        with contextlib.suppress(ClientDisconnected):
            await self._http_send({"type": "http.response.start", "status": 200})
            await self._http_send({"type": "http.response.body"})

    async def _take_over(self) -> Taken | None:
        """Wait until the server thread has taken the socket; None if it has not."""
        if self._watcher is not None:
            self._watcher.cancel()
            await self._host.go_round()
        self._hand_over.read = self._hand_over.next
        while not self._hand_over.ours:
            if (await self._http_receive())["type"] == "http.disconnect":
                return None
        return self._hand_over.ours.pop()

    async def _deny(self, message: Message) -> None:
        """Refuse the handshake by an HTTP response, which is the `Request`'s to check and to send."""
        await self._http_send({**message, "type": message["type"].removeprefix("websocket.")})
        complete = message["type"] == "websocket.http.response.body" and not message.get("more_body")
        self._enter(Stage.OVER if complete else Stage.DENYING)

    async def _send_data(self, endpoint: Endpoint, message: Message) -> None:
        data = data_of(message)
        try:
            sent = await endpoint.send(data)
        except UnicodeEncodeError:
            raise not_utf8() from None
        if not sent:
            await self._tell()
            raise ClientDisconnected("the WebSocket is closed")

    async def _close(self, endpoint: Endpoint, message: Message) -> None:
        code, reason = code_from_asgi_app(message.get("code")), message.get("reason")
        if reason is not None and not isinstance(reason, str):
            raise wrong_type("reason", "websocket.close", reason)
        if endpoint.phase is not Phase.OPEN:
            await self._tell()
            raise ClientDisconnected("the WebSocket is closed")
        self._closed_by_app = True
        endpoint.close(code, reason or "")

    # -- Endings: the loop thread -------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        """Before the app is told that it is over. One that goes on all the same must not hold the loop."""
        self._begin_grace()
        self._told += 1
        if self._told % TOLD_TIMES == 0:
            await pause(self._host)

    def _begin_grace(self) -> None:
        """The app has a while to end by itself."""
        if self._grace is None and self.task is not None and self._app_runs and not self._host.loop.is_closed():
            seconds = self._shared.settings.grace_timeout
            self._grace = self._host.loop.call_later(seconds, self.task.cancel, context=contextvars.Context())

    def abort(self, error: BaseException) -> None:
        """See `InFlight`: the bridge is closed, or its loop ends. Before the app has accepted, the `Request` ends."""
        if isinstance(error, BridgeClosed):
            self._stop()
        elif self._endpoint is not None:
            self._endpoint.abort()
            self._begin_grace()

    def _stop(self) -> None:
        """The bridge is closed, or the server stops and waits for a thread that is held for this WebSocket."""
        if self._endpoint is not None and self._stage is not Stage.OVER:
            self._endpoint.stop()
            self._begin_grace()
