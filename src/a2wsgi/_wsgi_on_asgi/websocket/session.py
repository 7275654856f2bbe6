"""One WebSocket of a WSGI app on an ASGI server, told in the order of time.

1. *Loop thread.* ``websocket.connect`` comes. If there is room, the scope becomes the environ of a handshake, and a
   `Link` is made: the app has one end of it, as a socket and as two objects over it, we have the other.
2. *Worker thread.* The app runs, on a thread of the WebSockets' own pool. It answers the handshake on its socket, or
   returns a response and leaves the socket alone.
3. *Loop thread.* What comes first decides: a head on the link accepts or refuses, and so does a response while the link
   is silent. The worker ends the app's side of the link before it hands a response over, so what it wrote comes first.
4. *Loop thread.* Two tasks carry messages: this one from the app to the server, another one from the server to the
   app, as `passages` says. Each waits for its reader before it takes more.
5. *Endings.* The first `Ending` decides. It closes the link in both directions, so that an app which is blocked in
   any call on it goes on. ``__call__`` returns when the worker is done and nothing is left of the link. If the app
   has given its socket away (a bridge further in does), the worker is free before that.

A response after the socket was used is thrown away. Libraries return one since WSGI wants one: an empty 200, or an
error page. Only whether it is an error counts: that closes with 1011.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import functools
import io
import sys
from typing import TYPE_CHECKING

from a2wsgi._errors import AppProtocolError, ClientDisconnected
from a2wsgi._log import logger
from a2wsgi._protocol import close_codes
from a2wsgi._protocol.answer import Accepted, Denied, HeadParser
from a2wsgi._protocol.environ import environ_from_scope
from a2wsgi._protocol.frames import Close, Frames, Role, Violation
from a2wsgi._protocol.framing import BadRequest
from a2wsgi._protocol.upgrade import environ_of_handshake, offered_to
from a2wsgi._threads.runtime import renew_lock
from a2wsgi._wrong_server import named_as
from a2wsgi._wsgi_on_asgi.endings import Ending
from a2wsgi._wsgi_on_asgi.jobs import Overloaded

from .app import AppRun
from .app_socket import GeventWebSocket, WebSocket
from .failures import WebSocketFailureMixin, closed
from .link import Link
from .messages import data_of, too_early, type_of
from .passages import FramePassage, ObjectPassage

if TYPE_CHECKING:
    import socket

    from a2wsgi._threads.handles import Task
    from a2wsgi._types import Environ, Receive, Scope, Send
    from a2wsgi._types import Message as ASGIMessage
    from a2wsgi._wsgi_on_asgi.bridge import WSGIBridge
    from a2wsgi._wsgi_on_asgi.disconnected import AbortReason
    from a2wsgi._wsgi_on_asgi.loops import BridgeLoop

    from .passages import Passage
    from .pool import WebSockets

#: How long the task that receives may take to end once it is cancelled. Arbitrary: servers' receive() ends at once.
_END_TASK_SECONDS = 10.0

#: Keys of an outer WSGI server's environ that would lead a library past the link to the server's own socket.
_OTHER_SOCKETS = ("gunicorn.socket", "eventlet.input", "waitress.client_disconnected")


class WebSocketSession(WebSocketFailureMixin):
    """One WebSocket. Each method says in whose thread it runs."""

    SENT = "its messages"
    STALLED = Ending.SOCKET_STALLED

    def __init__(self, websockets: WebSockets, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(websockets.shared, scope, send)
        self._websockets = websockets
        self._receive = receive
        # All below is the loop thread's.
        self._link: Link | None = None
        self._run: AppRun | None = None  # once the app is to run
        self._object_passage = ObjectPassage(self._loop.runtime, websockets.shared.settings.response_buffer_bytes)
        self._passage: Passage | None = None  # from the app's acceptance on, as this:
        self._frames: Frames | None = None
        self._last_frame = b""  # what the app reads last
        self._receiving: Task | None = None
        self._receive_error: Exception | None = None  # for the server

    def is_on(self, loop: BridgeLoop) -> bool:
        """Whether it was called on this loop."""
        return self._loop is loop

    def is_live(self) -> bool:
        """Whether its loop may run, here. Any thread."""
        return self._loop.is_live()

    def lose(self) -> None:
        """Wake whoever of the app waits for it: its loop will not run again, or not in this process. Any thread."""
        if self._link is not None and not self._loop.runtime.is_inherited():
            self._link.lose()

    # -- The story: loop thread -----------------------------------------------------------------------------------

    @classmethod
    @named_as("WSGIMiddleware.__call__")
    async def answer(
        cls, _bridge: WSGIBridge, websockets: WebSockets, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a WebSocket, from its handshake to its end. Raises what the server is to know of.

        Holds the bridge meanwhile: when that is dropped, its workers end.
        """
        self = cls(websockets, scope, receive, send)
        websockets.open.add(self)
        settled = False  # true once nothing of it runs any more, so that the loop may be waited on
        try:
            self._loop.enter(self)
            run = await self._handshake_in()
            if run is not None:
                await self._answer_out(run)
                await self._finish(run)
            settled = True
        except Exception as error:
            reason = f"the server raised {type(error).__name__}"  # not its repr(), which may raise or be long
            self.abort(Ending.SEND_FAILED, functools.partial(ClientDisconnected, reason))
            if self._run is not None:
                await self._run.output.wait_done()
                self._log_failure(self._run)
            settled = True
            raise
        except BaseException:  # a cancellation, or the end of a coroutine that nobody awaits any more
            self.abort(Ending.CANCELLED, functools.partial(ClientDisconnected, "the server cancelled the request"))
            raise
        finally:
            if self._link is not None:
                self._link.abort()
            if self._run is None or settled:
                self._disconnected._finish()
            else:
                self._run.add_done_callback(functools.partial(self._abandoned_app_ended, self._run))
            websockets.open.discard(self)
            websockets.admitted.discard(self)
            self._loop.leave(self)
            task, self._receiving = self._receiving, None
            if task is not None:
                if settled:
                    await self._loop.runtime.end_task(task, _END_TASK_SECONDS)
                else:
                    task.cancel()

    # -- Handshake in: loop thread --------------------------------------------------------------------------------

    async def _handshake_in(self) -> AppRun | None:
        """Have a worker run the app. None if the handshake is refused, or its client has left."""
        if type_of(await self._receive()) == "websocket.disconnect" or await self._turn_away():
            return None
        websockets = self._websockets
        try:
            environ = environ_from_scope(self._scope, websockets.shared.template)
        except BadRequest as error:
            logger.info("400 to a WebSocket: %s", error)
            await self.refuse(400)
            return None
        runtime, settings = self._loop.runtime, websockets.shared.settings
        self._link, app_socket = await Link.open(runtime, settings.response_buffer_bytes)
        try:
            # The server has begun to shut down meanwhile, and abort() found neither a link nor a run.
            if self.ending is not None:
                app_socket.close()
                await self.refuse_if_stopped()
                return None
            parser = self._fill_in(environ, app_socket)
            run = AppRun(websockets.app, websockets.shared, runtime, environ, app_socket, parser)
            websockets.workers.submit(run)
        except BaseException as error:
            app_socket.close()
            if isinstance(error, Overloaded):
                await self._refuse_overload()
                return None
            raise
        self._run = run
        self._receiving = runtime.start_task(self._from_server())
        return run

    async def _turn_away(self) -> bool:
        """Refuse a handshake that cannot come in, whatever it says. Whether it was refused."""
        websockets = self._websockets
        why_not = websockets.why_not()
        if self.ending is not None:
            await self.refuse_if_stopped()
        elif self._loop.draining:  # unlike a request, it would not end by itself
            logger.info("503 to a WebSocket: the server is shutting down")
            await self.refuse(503)
        elif why_not is not None:
            logger.info("403 to a WebSocket at %r: %s", self._scope.get("path"), why_not)
            await self.close(1008, "")
        elif websockets.count() >= websockets.limit:
            await self._refuse_overload()
        else:
            websockets.admitted.add(self)
            return False
        return True

    def _fill_in(self, environ: Environ, app_socket: socket.socket) -> HeadParser:
        """Make an environ that of a handshake, with what the app may answer it by. What reads that on its socket."""
        subprotocols = tuple(self._scope.get("subprotocols") or ())
        environ_of_handshake(environ, subprotocols)
        for key in _OTHER_SOCKETS:
            environ.pop(key, None)
        environ["wsgi.input"] = io.BytesIO()
        environ.setdefault("wsgi.errors", sys.stderr)  # a bridge further out may have the server's
        environ["a2wsgi.disconnected"] = self._disconnected
        environ["a2wsgi.websocket"] = websocket = WebSocket(app_socket, self._object_passage, environ, subprotocols)
        environ["wsgi.websocket"] = GeventWebSocket(websocket, environ)
        # Only this one of the keys that libraries look for: where they find another, they raise at the end, or expect
        # a server of their own.
        environ["werkzeug.socket"] = app_socket
        # From here on the environ is the app's to change.
        return HeadParser(environ["HTTP_SEC_WEBSOCKET_KEY"], {*subprotocols, *offered_to(environ)})

    async def _refuse_overload(self) -> None:
        self._loop.refused += 1
        self._websockets.admitted.discard(self)  # the client may take its time to read that
        logger.info("503 to a WebSocket: max_websockets=%s are open", self._websockets.limit)
        await self.refuse(503)

    # -- The answer: loop thread ----------------------------------------------------------------------------------

    async def _answer_out(self, run: AppRun) -> None:
        """Find out what the app answers, and pass it on."""
        link, parser = self._link, run.parser
        assert link is not None
        try:
            answer = await self._answer_on_socket(link, parser)
            run.used_socket = answer is not None
            if self.ending is not None:
                await self.refuse_if_stopped()
            elif answer is None:
                await self.refuse_by_response(run)
            elif isinstance(answer, Denied):
                await self.refuse_by_socket(link, answer, parser.rest)
            else:
                self._frames = frames = Frames(Role.CLIENT, max_message_bytes=None)
                if self._object_passage.in_use:
                    link.bypass_by(self._object_passage)
                    self._passage = self._object_passage
                else:
                    self._passage = FramePassage(link, frames, parser.rest)
                await self._accept(answer)
                await self._from_app(run, link, self._passage)
        except OSError:  # the server's send() says that the client has left
            await self._await_disconnect()
            raise
        except AppProtocolError as error:
            run.failure = run.failure or error
            run.raised = self.abort(Ending.FAILED, functools.partial(ClientDisconnected, "the app broke the handshake"))

    async def _answer_on_socket(self, link: Link, parser: HeadParser) -> Accepted | Denied | None:
        """What the app writes on its socket first; None if the socket ends and was silent.

        Raises:
            AppProtocolError: It is no head of a response.
        """
        while data := await link.read():
            answer = parser.feed(data)
            if answer is not None:
                return answer
        if parser.begun and self.ending is None:
            raise AppProtocolError(
                "The app closed its socket in the middle of the response to the handshake (RFC 9112 §4). Send a "
                "complete response, as WebSocket libraries do."
            )
        return None

    async def _accept(self, answer: Accepted) -> None:
        await self.send_message(
            {"type": "websocket.accept", "subprotocol": answer.subprotocol, "headers": answer.headers}
        )

    # -- Messages: loop thread ------------------------------------------------------------------------------------

    async def _from_app(self, run: AppRun, link: Link, passage: Passage) -> None:
        """Carry what the app sends to the server, until it ends."""
        while self.ending is None:
            events = await passage.take()
            if events is None:
                if self.ending is None:  # else the link has ended by that, and the app may have raised of it already
                    await self._app_ended(run, link)
                return
            for event in events:
                if isinstance(event, str):
                    await self.send_message({"type": "websocket.send", "text": event})
                elif isinstance(event, bytes):
                    await self.send_message({"type": "websocket.send", "bytes": event})
                elif isinstance(event, Violation):
                    await self._app_broke_frames(event)
                else:
                    await self._app_closed(event)
                if self.is_over():
                    return

    async def _app_closed(self, close: Close) -> None:
        if self._frames is not None:
            self._last_frame = self._frames.close(close.code)
        if self.abort(Ending.FINISHED, closed):
            await self.close(close_codes.code_from_wsgi_app(close.code), close.reason)

    async def _app_broke_frames(self, violation: Violation) -> None:
        detail = (
            f"The app broke the protocol on its WebSocket's socket: {violation.reason} (RFC 6455 §5). Its client is "
            "closed with 1011. Use a WebSocket library, and let one thread write at a time."
        )
        if self.abort(Ending.APP_BROKE_FRAMES, closed, detail):
            await self.close(close_codes.WebSocketEnding.APP_BROKE_FRAMES.client, "")

    async def _from_server(self) -> None:
        """Carry what the server receives to the app, until there is no more. A task of its own."""
        try:
            while self in self._websockets.open:  # asyncio.wait_for() of Python 3.11 may swallow a cancellation
                message = await self._receive()
                self._heard += 1
                kind = type_of(message)
                if kind == "websocket.disconnect":
                    self._client_closed(message)
                    return
                if kind == "websocket.receive":
                    passage = self._to_app(message)
                    del message  # it is not to be held while the next one is waited for
                    await passage.drain()
                # else: a later version's, or a server's own. It says nothing that the app could be told.
        except Exception as error:  # noqa: BLE001 - it goes to the server
            reason = f"receive() raised {type(error).__name__}"  # not its repr(): see Request.receive_raised
            if self.abort(Ending.RECEIVE_FAILED, functools.partial(ClientDisconnected, reason)):
                self._receive_error = error
        except BaseException:  # receive() was cancelled, by the server or a middleware, if nothing has ended it before
            self.abort(Ending.CLIENT_CLOSED, closed, close_codes.LOST)
            raise

    def _to_app(self, message: ASGIMessage) -> Passage:
        passage = self._passage
        if passage is None:
            raise too_early()
        passage.put(data_of(message))
        return passage

    def _client_closed(self, message: ASGIMessage) -> None:
        code, reason = message.get("code"), message.get("reason")
        told = close_codes.code_for_wsgi_app(code if isinstance(code, int) else None)
        if self.ending is None and self._frames is not None and told != close_codes.LOST:
            why = reason if isinstance(reason, str) and told != close_codes.NO_CODE else ""
            self._last_frame, self._object_passage.ended = self._frames.close(told, why), (told, why)
        if not self.abort(Ending.CLIENT_CLOSED, closed, told) and self._sends & 1:
            self._interruption.fire()  # of a last word: hypercorn's send() may wait for this client for ever

    # -- Endings: loop thread -------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look after one that is there for a while: does its worker live, and does its client read?"""
        self._websockets.workers.look_after(now)
        if self._run is not None:
            self._run.output.revive()
        self._object_passage.revive()
        super().tick(now)

    def renew_locks(self) -> None:
        """Those of the streams: the app may go on in a child, as with a request."""
        self._object_passage.renew_locks()
        if self._run is not None:
            renew_lock(self._run.output)

    def _app_knows(self, ending: Ending) -> bool:
        if ending is Ending.FINISHED:  # it has closed, returned or refused
            return True
        return self._frames is not None and (ending is Ending.FAILED or self._object_passage.is_closed)

    def _end_waits(self, ending: Ending, error: AbortReason) -> None:
        if ending is Ending.SHUT_DOWN and self._frames is not None:
            self._last_frame = self._frames.close(close_codes.SERVICE_RESTART)
            self._object_passage.ended = (close_codes.SERVICE_RESTART, "")
        # A library reads it from the link, unseen: what the app runs on the loop from now on is taken for its clean-up.
        if self._frames is not None and not self._object_passage.in_use:
            error.told = True
        self._object_passage.end(error)
        if self._link is not None:
            self._link.finish(self._last_frame)
        run = self._run
        if run is not None:
            run.output.abort(error)
            if self._websockets.workers.withdraw(run):
                run.end_of_socket()
                run.output.finish(done=True)  # in the worker's place: it never enters the app

    async def _finish(self, run: AppRun) -> None:
        """Say the last word, wait for the worker and the link, and raise what the server is to know of."""
        assert self._link is not None
        if self.ending is Ending.SHUT_DOWN and self._frames is not None:
            await self.close(close_codes.WebSocketEnding.STOPPED.client, close_codes.WebSocketEnding.STOPPED.reason)
        if not run.output.done:
            await run.output.wait_done()
        await self._link.wait_lost()
        self._raise_failure(run)
