"""What the client sends: the one caller of a request's ``receive()``.

Strategy
    First the request's own task reads the body ahead. What is left then, be it the rest of the body or only the
    disconnect, is received by a task of its own. For the rest of a body it is started at once; otherwise the
    timer starts it, in a request that takes longer than a tick. `Receiving` says who may call ``receive()``.

Guarantees
    - ``receive()`` is never called by two at a time, nor after ``http.disconnect``: hypercorn would block for ever.
    - While the client waits for "100 Continue" it is called only if the app reads, the response has begun (RFC 9110
      §10.1.1) or the body is to be spooled, since the call makes the server send "100 Continue".
    - A server that repeats the end of the body for ever without waiting (aiohttp-asgi, tsuno) is asked once a tick.
    - A server that returns empty parts of the body for ever without waiting is asked less and less often, down to ten
      times a second, and its client counts as silent.
    - While the app waits for the body, `Receiver.is_silent` tells for how long the client has sent nothing.
    - A body that is not as long as its ``Content-Length``, or that ends in a disconnect, never looks complete.
    - What the app has not read is bounded: the stream holds ``buffer_bytes`` (`GROWTH` times that if the app is faster
      than the client) and one message, its reader as much, and ``io.BufferedReader`` 8 KiB to 128 KiB.

Assumes
    Everything runs on the loop thread, except `_ask` (worker thread) and `discard` (the last thread to use the body).
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from typing import IO, TYPE_CHECKING, BinaryIO

from a2wsgi._errors import ClientDisconnected, RequestTooLarge
from a2wsgi._log import logger

from .input import WholeBody, declare_length, streamed_input
from .messages import body_part, is_disconnect
from .receiving import Receiving
from .spool import close_file_elsewhere, spool
from .streams import ToThread

if TYPE_CHECKING:
    import io
    from collections.abc import Callable

    from a2wsgi._threads.handles import Task
    from a2wsgi._threads.runtime import Runtime
    from a2wsgi._types import Environ, Receive

    from .receiving import Listener

#: Seconds to wait after the second empty part of the body in a row, and the most that the doubled wait after each
#: further one grows to. After the first, the loop goes round once. Arbitrary; no known server gives two in a row.
PAUSE_SECONDS, MOST_PAUSE_SECONDS = 0.001, 0.1

#: Seconds that a server's ``receive()`` may take to end once it is cancelled. Arbitrary; no known one waits at all.
RECEIVE_END_SECONDS = 1.0


class Receiver:
    """Receives what the client of one request sends.

    Args:
        listener: Told of the endings that are met here.
        runtime: The loop.
        receive: The server's.
        buffer_bytes: How much is read ahead, and held while the app does not read.
        limit: How long the body may be, in bytes; None is unlimited.
        spool: Read all of it before the app starts, past the buffer into a temporary file.

    Attributes:
        received: How many bytes of the body have come. Loop thread.
        spooled: The temporary file that has the body, if any. Written before the app starts.
        stream: What carries the rest of the body to the app, if it was not all read ahead. Written before
            the app starts.
    """

    __slots__ = (
        "_buffer_bytes",
        "_context",
        "_declared",
        "_in_receive",
        "_limit",
        "_listener",
        "_more",
        "_pause_seconds",
        "_receive",
        "_runtime",
        "_seen_received",
        "_silent_since",
        "_spool",
        "_state",
        "_task",
        "received",
        "spooled",
        "stream",
    )

    def __init__(
        self,
        listener: Listener,
        runtime: Runtime,
        receive: Receive,
        buffer_bytes: int,
        limit: int | None,
        *,
        spool: bool,
    ) -> None:
        self._listener: Listener | None = listener  # None when the request is over
        self._runtime = runtime
        self._receive = receive
        self._buffer_bytes = buffer_bytes
        self._limit = limit
        self._spool = spool
        self._context = contextvars.copy_context()
        # All below is written on the loop thread; the worker thread reads spooled.
        self._state = Receiving.AHEAD
        self._declared: int | None = None  # the Content-Length
        self.received = 0
        self._more = True  # more of the body is to come
        self._in_receive = False  # waiting for more of the body, in receive() or until it is called again
        self._pause_seconds = 0.0  # how long to wait after an empty part of the body
        self._seen_received = 0  # what was received when the silence began
        self._silent_since: float | None = None  # None while nobody waits for the client
        self.spooled: BinaryIO | None = None
        self.stream: ToThread | None = None
        self._task: Task | None = None

    # -- Before the app starts ------------------------------------------------------------------------------------

    async def open(self, environ: Environ) -> IO[bytes]:
        """Read the body ahead, and make a file of it; complete what ``environ`` says of its length.

        Raises:
            RequestTooLarge: It is longer than ``limit``. Do not run the app.
        """
        declared = environ.get("CONTENT_LENGTH")
        if declared is not None:
            self._declared = int(declared)
            if self._limit is not None and self._declared > self._limit:
                raise RequestTooLarge(self._limit)
        if "HTTP_EXPECT" in environ and environ["HTTP_EXPECT"].lower() == "100-continue" and not self._spool:
            # The app may well refuse the body by the head alone, so its first read asks for it. If the body is to be
            # spooled it is wanted whole: curl expects "100 Continue" for each long upload, and would hold a worker.
            self._state = Receiving.ON_DEMAND
            return self._open_stream(environ, [], self._ask)
        chunks: list[bytes] = []
        try:
            while self._more and self.received < self._buffer_bytes:
                chunk = await self._next_chunk()
                if chunk:
                    chunks.append(chunk)
            if self._more and self._spool:
                self.spooled = await spool(self._runtime, chunks, self._next_or_end)
        except ClientDisconnected as error:
            # The app runs even so: only it knows what half an upload means to it. Its first read raises.
            stream = self._open_stream(environ, [])
            self._end_input(error.reason)
            return stream
        self._state = Receiving.IDLE
        if self._more:
            return self._open_stream(environ, chunks)
        if self._declared is None and (self.received or "HTTP_TRANSFER_ENCODING" in environ):
            declare_length(environ, self.received)
        return self.spooled or WholeBody(b"".join(chunks))

    async def _next_or_end(self) -> bytes | None:
        """The next piece of the body; None at its end."""
        return await self._next_chunk() if self._more else None

    async def _next_chunk(self) -> bytes:
        """The next piece of the body, perhaps empty. Notes whether more is to come.

        Raises:
            ClientDisconnected: The body ends here, and is not complete.
            RequestTooLarge: It is longer than ``limit``.
            ServerProtocolError: The server broke ASGI.
        """
        self._in_receive = True
        try:
            message = await self._receive()
        except OSError as error:
            raise self._lost(error)  # noqa: B904 - its own cause
        finally:
            self._in_receive = False
        part = body_part(message, self.received, self._declared, self._limit)
        if part is None:
            self._note_disconnect()
            raise ClientDisconnected("the server sent http.disconnect before the body was complete")
        chunk, self._more = part
        self.received += len(chunk)
        if chunk:
            self._pause_seconds = 0.0
        elif self._more:
            await self._pause()
        return chunk

    async def _pause(self) -> None:
        """Wait after an empty part: a server that says nothing, again and again, must not keep the loop busy."""
        seconds = self._pause_seconds
        self._pause_seconds = min(2 * seconds or PAUSE_SECONDS, MOST_PAUSE_SECONDS)
        self._in_receive = True  # its client counts as silent, as it does while receive() waits
        try:
            if seconds:
                await self._runtime.wait(self._runtime.create_waiter(), seconds)
            else:
                await self._runtime.go_round()
        finally:
            self._in_receive = False

    def _lost(self, error: OSError) -> OSError:
        """What to raise for an OSError of ``receive()``, by which aiohttp-asgi tells that it lost the client."""
        if isinstance(error, TimeoutError):
            return error  # of a middleware that bounds the upload, and is to get it back
        self._note_disconnect()
        # Its type alone: what a middleware says of a body may quote it.
        lost = ClientDisconnected(f"receive() raised {type(error).__name__}")
        lost.__cause__ = error
        return lost

    def _open_stream(
        self, environ: Environ, chunks: list[bytes], ask: Callable[[], object] | None = None
    ) -> io.BufferedReader:
        """A file over a body of which these chunks are here and the rest is to come."""
        if self._declared is not None:
            # Werkzeug then puts a stream of its own above ours, by which Flask answers a quiet 400 where ours raises,
            # instead of logging an error for each client that leaves. It looks for the key and ignores its value.
            environ.pop("wsgi.input_terminated", None)
        self.stream = ToThread(self._runtime, self._buffer_bytes)
        for chunk in chunks:
            self.stream.put(chunk)
        return streamed_input(self.stream, ask, self._buffer_bytes)

    # -- While the app runs ---------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """The app is to run: receive what is left of the body."""
        if self._more and self._state is Receiving.IDLE:
            self._start()

    def watch(self) -> None:
        """The app has been running for a while: watch whether the client leaves."""
        if self._state is Receiving.IDLE:
            self._start()
        elif self.stream is not None:
            self.stream.revive()

    def is_silent(self, now: float, seconds: float) -> bool:
        """Whether somebody has waited that long for the body, and its client has sent nothing. Once a tick.

        The app waits in a read; or there is no app yet, and the body is read ahead. A body that the app leaves unread
        is not the client's fault.
        """
        if not self._in_receive or (self.stream is not None and not self.stream.is_awaited):
            self._silent_since = None
        elif self._silent_since is None or self.received != self._seen_received:
            self._seen_received, self._silent_since = self.received, now
        else:
            return now - self._silent_since >= seconds
        return False

    def response_has_begun(self) -> None:
        """The client has an answer, so receive() makes the server send no "100 Continue" any more."""
        if self._state is Receiving.ON_DEMAND:
            self._state = Receiving.IDLE

    def response_ends(self) -> None:
        """The last message of the response is about to be sent."""
        # The race: 1. The last message is given to the server's send(). 2. As soon as uvicorn has that message, its
        # receive() gives everybody http.disconnect. 3. The receiver's task takes this for a client that left, before
        # that send() has returned. So the state is CLOSED before the message is sent.
        self._state = Receiving.CLOSED
        if self._more:  # nobody brings more of the body, and the app may still read it, in its iterable's close()
            self._end_input("its response is complete")

    def _ask(self) -> None:
        """Have the loop receive the body now. Worker thread."""
        self._runtime.doorbell.ring(Receiver._asked, self)

    def _asked(self) -> None:
        # The race: 1. The app's first read asks. 2. Meanwhile its response is completed. 3. The loop comes to the ring.
        # Then there is nothing to receive: the state is CLOSED, and the read has its error.
        if self._state is Receiving.ON_DEMAND or self._state is Receiving.IDLE:
            self._start()

    def _start(self) -> None:
        self._state = Receiving.TASK
        try:
            # In the request's context, whoever calls: the timer and the doorbell have none.
            self._task = self._context.run(self._runtime.start_task, self._run())
        except Exception as error:  # noqa: BLE001 - the user's task factory: raised again by the request
            self._receive_failed(error)

    async def _run(self) -> None:
        """Bring the rest of the body, then watch whether the client leaves."""
        try:
            if self._more and self.stream is not None:
                await self._bring(self.stream)
            if self._state is not Receiving.TASK:
                return
            try:
                message = await self._receive()
            except OSError as error:
                raise self._lost(error)  # noqa: B904 - its own cause
            gone = is_disconnect(message)
        except ClientDisconnected as error:
            self._end_input(error.reason)
        except RequestTooLarge as error:
            self.abort(functools.partial(RequestTooLarge, error.limit))
            if self._listener is not None:
                self._listener.body_too_large(error.limit)
            self._end_input("its body was too large")
        except Exception as error:  # noqa: BLE001 - a middleware that refuses the body, say: raised again by the request
            self._receive_failed(error)
        except BaseException:
            # This task was cancelled: by end_task(), or by a server that cancels all tasks as it ends.
            self._note_disconnect()
            self._end_input("receive() was cancelled")
            raise
        else:
            if gone:
                self._note_disconnect()
                self._end_input("the server sent http.disconnect")
            elif self._state is Receiving.TASK:
                self._state = Receiving.IDLE  # the body is said to end once more: the timer asks again

    async def _bring(self, stream: ToThread) -> None:
        while self._state is Receiving.TASK:
            await stream.wait_room()  # while the app does not read its body, neither that nor what follows is read here
            # The race: 1. The task waits for room. 2. The request is aborted, which wakes it. 3. Nobody would take what
            # it receives, nor ever make room for more.
            if stream.aborted:
                return
            chunk = await self._next_chunk()
            if chunk:
                stream.put(chunk)
            if not self._more:
                stream.finish()
                stream.flush()
                return
            stream.flush()

    # -- Endings --------------------------------------------------------------------------------------------------

    def _receive_failed(self, error: Exception) -> None:
        """Nothing more can be received."""
        kind = type(error).__name__  # not its repr(): see _lost()
        if self._more or (self.stream is not None and self.stream.is_open):  # no memory was left to hand on its end
            self._more = True
            if self._listener is not None:
                self._listener.receive_raised(error)
            self._end_input(f"receive() raised {kind}")
        else:
            # All of the request is here. Some cannot be asked for what follows: a script of messages that is used up,
            # or Starlette's BaseHTTPMiddleware, which takes a second end of the body for an error.
            self._state = Receiving.CLOSED
            logger.debug("The client is not watched: receive() raised %s", kind)

    def _note_disconnect(self) -> None:
        """The client is gone, unless the response is complete: then the server means only that."""
        if self._state is not Receiving.CLOSED:
            self._state = Receiving.DISCONNECTED

    def _end_input(self, reason: str) -> None:
        """Nothing follows. Whatever the app reads of a body that is not complete raises."""
        more, self._more = self._more, False
        if self._state is Receiving.DISCONNECTED:
            if self._listener is not None:
                self._listener.client_left(reason)
        elif self._state is not Receiving.CLOSED:
            self._state = Receiving.IDLE  # the body is too short, but its client may be there: the timer watches
        if more:  # unless that has ended the request, whose error is the one to raise
            self.abort(functools.partial(ClientDisconnected, reason))

    def abort(self, error: Callable[[], BaseException]) -> None:
        """The app's reads of a body that is not complete raise ``error()``."""
        if self.stream is not None:
            self.stream.abort(error)

    def discard(self, close: Callable[[BinaryIO], None] = close_file_elsewhere) -> None:
        """Have ``close`` close the temporary file, if there is one. The thread that used the body last."""
        if self.spooled is not None:
            close(self.spooled)

    def close(self) -> bool:
        """Listen no more. Whether there is a task, which `end_task` must end then."""
        self._state = Receiving.CLOSED
        if self._more:
            self._end_input("its response is complete")
        self._listener = None  # the request holds us: a cycle would leave each request to the garbage collector
        return self._task is not None

    async def end_task(self, *, wait: bool) -> None:
        """End the task. A cancelled request does not wait for it: there may be no loop to wait on."""
        task, self._task = self._task, None  # its CancelledError holds this: a cycle would wait for the collector
        assert task is not None
        if wait:
            await self._runtime.end_task(task, RECEIVE_END_SECONDS)
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                task.cancel()
