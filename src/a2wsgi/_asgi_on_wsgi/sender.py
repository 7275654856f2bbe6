"""What an ASGI app sends: each message is checked, framed and queued for the server thread.

The messages move the machine `Sent`, whose table is in `outcome`.

Threading: the loop thread, but for `SenderMixin._join`.
"""

from __future__ import annotations

import contextvars
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from a2wsgi import _nested
from a2wsgi._errors import ClientDisconnected
from a2wsgi._protocol.files import PATHSEND
from a2wsgi._protocol.framing import Framing
from a2wsgi._protocol.headers import WSGIResponseHead, response_head_from_asgi
from a2wsgi._protocol.hints import EXTENSION, KEY, hint_from_asgi
from a2wsgi._threads.runtime import wake

from . import faults
from .files import SentFile
from .outcome import COMPLETE, COUNTED, ENDED, GONE, OPEN_ENDED, OPENING, READING, TRAILERS, WAITING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from a2wsgi._threads.handles import Timer
    from a2wsgi._types import Environ, Message, Scope

    from .bridge import Shared
    from .inbox import Inbox
    from .loops.host import LoopHost
    from .outcome import AppState, Sent, Taker
    from .to_server import ToServer

#: Turns of the loop for which the head of a body of known length is held back, so that a file that follows it can be
#: given to the server. Under two of Starlette's BaseHTTPMiddleware the file comes two turns after the head.
HEAD_TURNS = 8


class SenderMixin:
    """The part of a `Request` that its app sends by. `Request` sets the attributes.

    Fast path: it is a mixin, since an object of its own would cost each request a call and a reference cycle.
    """

    __slots__ = (
        "_app_state",
        "_environ",
        "_file",
        "_framing",
        "_gone_error",
        "_head",
        "_hidden_bytes",
        "_host",
        "_inbox",
        "_method",
        "_pair",
        "_scope",
        "_sent",
        "_shared",
        "_stream",
        "_taker",
        "_timer",
        "task",
    )

    # These are set once, by the server thread before it rings the loop.
    _shared: Shared
    _host: LoopHost
    _environ: Environ
    _scope: Scope
    #: The server's. An app may answer HEAD by changing the method in the scope that it got.
    _method: str
    _stream: ToServer
    _inbox: Inbox
    # The loop thread writes these. The server thread looks at most of them, as `Request` says.
    task: asyncio.Task[None] | None
    _app_state: AppState
    _sent: Sent
    _taker: Taker
    #: Why nobody takes the response any more. Set with ``GONE``.
    _gone_error: BaseException | None
    _head: WSGIResponseHead | None
    #: Set with the head.
    _framing: Framing | None
    #: What the app has sent in place of a body. The server thread opens it and closes it.
    _file: SentFile | None
    #: How much the app has sent of a body that the client must not get.
    _hidden_bytes: int
    _timer: Timer | None

    def _join(self, environ: Environ, on_abort: Callable[[BaseException], object]) -> None:
        """Find out who takes what WSGI has no word for. Server thread, before it rings the loop."""
        self._pair = _nested.join(environ, on_abort)

    @property
    def pair(self) -> _nested.Pair | None:
        """What tells the bridge around this one what WSGI has no word for; None if there is none."""
        return self._pair

    async def send(self, message: Message) -> None:
        """ASGI's ``send()``. Waits while ``response_buffer_bytes`` are queued.

        Cancellation: the message is sent all the same, unless the wait for the one before was cancelled as well.

        Raises:
            AppProtocolError: The message is wrong. Nothing of it was sent; the app may catch this and send another.
            InvalidHeader: A header cannot be sent. Nothing of the message was sent; the app may send another.
            ClientDisconnected: Nobody takes the response any more. Stop.
        """
        try:
            kind = message["type"]
        except (KeyError, TypeError):
            kind = None  # which is unknown, too
        # Fast path: nearly all messages of a stream (benchmarks/in_process.py, "100 chunks of 1 KiB").
        if (
            self._sent is OPEN_ENDED
            and self._taker is READING
            and kind == "http.response.body"
            and message.get("more_body")
            and not self._stream.given_up
        ):
            body = message.get("body", b"")
            if type(body) is not bytes:
                body = faults.as_bytes(body)
            full = self._stream.put(body) if body else False
        elif self._taker is GONE:
            await self._fail_send()
        elif self._sent is COMPLETE:
            await self._host.go_round()  # or an app that sends for ever would hold the loop
            return  # ASGI HTTP 2.5, "Response Body": "any further messages on the channel will be ignored"
        elif kind == "http.response.body" and self._stream.given_up and message.get("more_body"):
            await self._stream.wait_room()
            await self.send(message)
            return
        elif kind == "http.response.body":
            full = self._take_body(message)
            if (
                self._app_state is ENDED
                or self._sent is TRAILERS
                or (self._hidden_bytes and self._hidden_bytes > self._shared.settings.response_buffer_bytes)
            ):
                await self._host.go_round()  # nothing is sent, so nothing else would make an endless app wait
        elif kind == "http.response.start":
            self._take_head(message)
            return
        elif kind == PATHSEND:
            await self._send_file(message)
            return
        elif kind == EXTENSION and callable(self._environ.get(KEY)):
            await self._give_hint(message)
            return
        else:
            self._take_extension(kind, message)
            return
        if full:
            await self._stream.wait_room()
            if self._gone_error is not None:  # GONE, by now
                await self._fail_send()

    async def _fail_send(self) -> NoReturn:
        await self._inbox.let_listener_act()
        raise ClientDisconnected("the server has closed the response") from self._gone_error

    async def _give_hint(self, message: Message) -> None:
        """Have the server thread give the server an early hint. Waits until it has: a hint that comes late is none.

        Raises:
            Exception: What the server's callable raised.
        """
        if self._sent is not WAITING:
            raise faults.late_hint()
        hint = hint_from_asgi(message.get("links", ()))
        if hint:
            await self._stream.run(partial(self._environ[KEY], hint))
            if self._gone_error is not None:  # GONE, by now
                await self._fail_send()

    def _take_head(self, message: Message) -> None:
        if self._sent is not WAITING:
            raise faults.second_head()
        if "status" not in message:
            raise faults.no_status()
        head = response_head_from_asgi(message["status"], message.get("headers"))
        if head.dropped:
            self._shared.dropped_headers.log(head.dropped)
        framing = Framing(self._method, head.code, head.content_length)
        if self._timer is not None:
            self._timer.cancel()  # of app_timeout
            self._timer = None
        if framing.bodiless:
            # A stream without end does not notice that nobody reads it, and would hold the server thread for ever.
            self._set_timer(self._shared.settings.grace_timeout, self._cut)
        if self._pair is not None and message.get("trailers") and "http.response.trailers" in self._scope["extensions"]:
            self._pair.trailers = []
        self._head, self._framing = head, framing
        self._sent = OPEN_ENDED if framing.remaining is None else COUNTED
        # Wakes the server thread, which gives it to the server, to flush the head with.
        self._stream.put_head(HEAD_TURNS if framing.remaining else 0)

    async def _send_file(self, message: Message) -> None:
        """Have the server thread open a file, and wait for that. The response is complete then."""
        framing, path = self._framing, message.get("path")
        if framing is None:
            raise faults.body_before_head(PATHSEND)
        with_trailers = self._pair is not None and self._pair.trailers is not None
        if with_trailers or self._sent is OPENING:
            raise faults.file_and_more()
        if not isinstance(path, str):
            path = faults.as_path(path)
        if framing.bodiless:
            self._complete(b"")
            return
        self._file = file = SentFile(path, framing.remaining, self._host.create_waiter(), self._sent)
        self._sent = OPENING
        self._stream.put(b"")  # wakes the server thread
        await file.waiter
        if self._taker is GONE:
            await self._fail_send()
        if file.error is not None:
            raise file.error

    def _file_was_opened(self, file: SentFile) -> None:
        """The server thread has opened a file, or could not."""
        if file.error is not None:
            self._file = None
        if self._sent is OPENING and file.error is None:
            self._complete(b"")
        elif self._sent is OPENING:
            self._sent = file.sent_before
        wake(file.waiter)

    def _take_body(self, message: Message) -> bool:
        """Queue a part of the body. Whether that fills the queue."""
        framing = self._framing
        if framing is None:
            raise faults.body_before_head()
        if self._sent is OPENING:
            raise faults.file_and_more()
        if self._sent is TRAILERS:
            return False  # the body is over: ignored, as any message after the last
        if self._app_state is ENDED:
            return False  # from a task that the app has left: the server is told that the response is not complete
        body = message.get("body", b"")
        if type(body) is not bytes:
            body = faults.as_bytes(body)
        last = not message.get("more_body")
        if framing.remaining is not None:
            if last and len(body) < framing.remaining:
                raise faults.too_short(framing.remaining - len(body))
            if framing.remaining == 0:
                self._hidden_bytes += len(body)
            body = framing.cut(body)
        if not last:
            return bool(body) and self._stream.put(body)
        if self._pair is not None and self._pair.trailers is not None:
            self._sent = TRAILERS
            return bool(body) and self._stream.put(body)
        # Fast path: `_complete`, inlined, as nearly every request comes here (tests/test_call_counts.py).
        self._stream.finish(body)  # first, as it needs memory: what is complete is no longer told of a failure
        self._sent = COMPLETE
        inbox = self._inbox
        inbox.is_closed = True
        if inbox.receivers:
            inbox.wake()
        return False

    def _take_extension(self, kind: str | None, message: Message) -> None:
        """Give an outer bridge a message that WSGI has no word for, if its ASGI server offers to take it."""
        if not isinstance(kind, str):
            raise faults.unknown(kind)
        pair = self._pair
        # Of the extensions that bring messages, `_nested` has left in the scope only those the outer bridge can take.
        if pair is None or not kind.startswith("http.response.") or kind not in self._scope["extensions"]:
            raise faults.unknown(kind)
        if kind != "http.response.trailers":
            pair.messages.append({**message})  # a copy: the app may reuse it
            return
        if self._sent is not TRAILERS or pair.trailers is None:  # the body is not over, or its head announced none
            raise faults.unknown(kind)
        pair.trailers.append({**message})
        if not message.get("more_trailers", False):
            self._complete(b"")

    def _complete(self, chunk: bytes) -> None:
        """The app has sent its last message, with this last chunk."""
        if self._app_state is ENDED:
            return  # as in _take_body()
        self._stream.finish(chunk)
        self._sent = COMPLETE
        inbox = self._inbox
        inbox.is_closed = True
        if inbox.receivers:
            inbox.wake()

    def _cut(self) -> None:
        """End a response that has no body, though its app still sends one."""
        if self._sent is not COMPLETE:
            self._taker, self._gone_error = GONE, ClientDisconnected("a response without a body was sent")
            self._complete(b"")
            self._set_timer(self._shared.settings.grace_timeout, self._cancel)

    def _set_timer(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Call ``function`` unless the app ends before. One at a time. Returns the timer."""
        if self._timer is not None:
            self._timer.cancel()
        # In an empty context: a timer that is cancelled would keep the request's until its time.
        self._timer = timer = self._host.loop.call_later(seconds, function, context=contextvars.Context())
        return timer

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()
