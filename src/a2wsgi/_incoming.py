"""What the client sends: the one consumer of a request's ``receive()``.

Strategy
    First the request's own task reads the body ahead. Whatever is left then, the rest of the body or only the client's
    leaving, is received by one task of its own: started at once for the rest of a body, else by the timer, for a
    request that takes longer than a tick. `_Turn` says whose turn it is.

Guarantees
    - ``receive()`` is never called twice at a time, nor after ``http.disconnect``: hypercorn would block for ever.
    - It is not called while the client waits for "100 Continue", which it would have the server send, unless the app
      reads, the response has begun (RFC 9110 §10.1.1), or the body is to be spooled.
    - A server that repeats the end of the body for ever without waiting (aiohttp-asgi, tsuno) is asked once a tick.
    - A body that is not as long as its ``Content-Length``, or that ends in a disconnect, never looks complete.
    - What is received and not yet read by the app is bounded: ``buffer_bytes`` (`_handoff.PACE` times as many where the
      app is the quicker one) and one message wait in the hand-off, as much may have been taken from it at a time, and
      ``io.BufferedReader`` has a buffer of ``buffer_bytes``.

Assumes
    All is called on the loop thread but ``ask`` of the stream, and `discard`, which the last to use the body calls.
"""

from __future__ import annotations

import contextlib
import contextvars
import enum
import functools
import logging
import tempfile
from typing import IO, TYPE_CHECKING, BinaryIO, Protocol

from ._errors import ClientDisconnected, RequestTooLarge
from ._handoff import ToThread
from ._input import WholeBody, streamed_input

if TYPE_CHECKING:
    import asyncio
    import io
    from collections.abc import Callable

    from ._runtime import Runtime
    from ._types import Environ, Message, Receive

__all__ = ["Incoming", "Listener"]

logger = logging.getLogger("a2wsgi")

#: How long a server's ``receive()`` may take to end once it is cancelled. Arbitrary; none of those known waits at all.
RECEIVE_END_SECONDS = 1.0


class Listener(Protocol):
    """The request, as it is told what came in."""

    def client_left(self, reason: str) -> None:
        """The client is gone, which ``reason`` says how we know."""

    def body_too_large(self, limit: int) -> None:
        """The body has grown past ``limit`` while the app runs."""

    def receive_raised(self, error: Exception) -> None:
        """The server's ``receive()`` raised, or that of a middleware, which is to hear of it."""


class _Nobody:
    """Listens when the request is over."""

    def client_left(self, reason: str) -> None: ...

    def body_too_large(self, limit: int) -> None: ...

    def receive_raised(self, error: Exception) -> None: ...


_nobody = _Nobody()


class _Turn(enum.Enum):
    """Whose turn it is to call ``receive()``."""

    AHEAD = enum.auto()  # the request's own task, before the app starts
    HELD = enum.auto()  # nobody: the client waits for "100 Continue"
    NOBODY = enum.auto()  # the timer may start the task
    TASK = enum.auto()  # the task
    OVER = enum.auto()  # nobody, any more: http.disconnect came
    DONE = enum.auto()  # nobody, any more: the response is complete, or the server has no more to say than the body


class Incoming:
    """What the client of one request sends.

    Args:
        listener: Told of the endings that are met here.
        runtime: The loop.
        receive: The server's.
        buffer_bytes: How much is read ahead, and held while the app does not read.
        limit: How long the body may be, in bytes; None is unlimited.
        spool: Read it whole before the app starts, past the buffer into a temporary file.
    """

    __slots__ = (
        "_buffer_bytes",
        "_context",
        "_declared",
        "_left",
        "_limit",
        "_listener",
        "_receive",
        "_received",
        "_runtime",
        "_spool",
        "_spooled",
        "_stream",
        "_task",
        "_turn",
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
        self._listener: Listener = listener
        self._runtime = runtime
        self._receive = receive
        self._buffer_bytes = buffer_bytes
        self._limit = limit
        self._spool = spool
        self._turn = _Turn.AHEAD
        self._context = contextvars.copy_context()
        self._declared: int | None = None  # the Content-Length
        self._received = 0  # bytes of the body
        self._left = True  # more of the body is to come
        self._spooled: BinaryIO | None = None
        self._stream: ToThread | None = None  # what was not read ahead
        self._task: asyncio.Task[None] | None = None

    # -- Before the app starts ------------------------------------------------------------------------------------

    async def open(self, environ: Environ) -> IO[bytes]:
        """Read the body ahead, and make a file of it; complete what ``environ`` says of its length.

        Raises:
            RequestTooLarge: It is longer than may be. The app is not to be run.
        """
        declared = environ.get("CONTENT_LENGTH")
        if declared is not None:
            self._declared = int(declared)
            if self._limit is not None and self._declared > self._limit:
                raise RequestTooLarge(self._limit)
        if "HTTP_EXPECT" in environ and environ["HTTP_EXPECT"].lower() == "100-continue" and not self._spool:
            # The app may well refuse the body by the head alone; so its first read asks for it. Whoever spools wants it
            # whole: curl says Expect with each long or chunked upload, and would hold a worker with it.
            self._turn = _Turn.HELD
            return self._open_stream(environ, [], self._ask)
        chunks: list[bytes] = []
        try:
            while self._left and self._received < self._buffer_bytes:
                chunk = await self._next_chunk()
                if chunk:
                    chunks.append(chunk)
            if self._left and self._spool:
                self._spooled = await self._spool_rest(chunks)
        except ClientDisconnected as error:
            # The app is run all the same: it is the one to know what half an upload means. Its first read tells it.
            stream = self._open_stream(environ, [])
            self._cut_off(error.reason)
            return stream
        self._turn = _Turn.NOBODY
        if self._left:
            return self._open_stream(environ, chunks)
        if self._declared is None:
            self._declare_length(environ)
        return self._spooled or WholeBody(b"".join(chunks))

    async def _next_chunk(self) -> bytes:
        """The next piece of the body, as `_accept` has it."""
        try:
            message = await self._receive()
        except OSError as error:
            raise self._lost(error)  # noqa: B904 - its own cause
        chunk = self._accept(message)
        if not chunk and self._left:
            await self._runtime.go_round()  # a server that says nothing, again and again, must not hold the loop
        return chunk

    def _lost(self, error: OSError) -> OSError:
        """What to raise for what ``receive()`` raised: aiohttp-asgi tells so that it lost the client."""
        if isinstance(error, TimeoutError):
            return error  # a middleware's, which bounds the upload and is to have it back
        self._hear_no_more()
        lost = ClientDisconnected(f"receive() raised {error!r}")
        lost.__cause__ = error
        return lost

    def _accept(self, message: Message) -> bytes:
        """The piece of the body in ``message``. Notes whether more is to come.

        Raises:
            ClientDisconnected: The body ends here, and is not complete.
            RequestTooLarge: It is longer than may be.
        """
        if message["type"] == "http.disconnect":
            self._hear_no_more()
            raise ClientDisconnected("the server sent http.disconnect before the body was complete")
        chunk = message.get("body") or b""  # ASGI HTTP, "Request": both keys are optional
        more = bool(message.get("more_body"))
        self._received += len(chunk)
        if self._limit is not None and self._received > self._limit:
            raise RequestTooLarge(self._limit)
        if self._declared is not None and self._received != self._declared:
            if self._received > self._declared:
                # RFC 9112 §6.3: the body is as long as its Content-Length; what follows is none of it.
                chunk = chunk[: max(0, len(chunk) - (self._received - self._declared))]
                self._received = self._declared
            elif not more:
                # RFC 9112 §8: such a message is incomplete, whatever the server says.
                raise ClientDisconnected(f"its body ended after {self._received} of {self._declared} bytes")
        self._left = more
        return bytes(chunk)

    @property
    def has_begun(self) -> bool:
        """Whether any of the body has come."""
        return self._received > 0

    async def _spool_rest(self, chunks: list[bytes]) -> BinaryIO:
        """Move what was read to a temporary file, and the rest of the body after it."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by discard()
        try:
            await self._runtime.in_thread(file.writelines, chunks)
            while self._left:
                chunk = await self._next_chunk()
                if chunk:
                    await self._runtime.in_thread(file.write, chunk)
            await self._runtime.in_thread(file.seek, 0)
        except BaseException:
            file.close()
            raise
        return file

    def _declare_length(self, environ: Environ) -> None:
        """Give a complete body a length, which came without.

        Django sees no body without a CONTENT_LENGTH; and one that is complete is not chunked any more. A request
        without a body has none (RFC 9110 §8.6).
        """
        chunked = environ.pop("HTTP_TRANSFER_ENCODING", None)
        if self._received or chunked is not None:
            environ["CONTENT_LENGTH"] = str(self._received)

    def _open_stream(
        self, environ: Environ, chunks: list[bytes], ask: Callable[[], object] | None = None
    ) -> io.BufferedReader:
        """A file over a body of which these chunks are here and the rest is to come."""
        if self._declared is not None:
            # Werkzeug then puts a stream of its own above ours, by which Flask answers a quiet 400 where ours raises,
            # instead of logging an error for each client that leaves. It looks for the key, not for what is in it.
            environ.pop("wsgi.input_terminated", None)
        self._stream = ToThread(self._runtime, self._buffer_bytes)
        for chunk in chunks:
            self._stream.put(chunk)
        return streamed_input(self._stream, ask, self._buffer_bytes)

    # -- While the app runs ---------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """The app is to run: receive what is left of the body."""
        if self._left and self._turn is _Turn.NOBODY:
            self._start()

    def watch(self) -> None:
        """The app has been running for a while: watch for the client's leaving."""
        if self._turn is _Turn.NOBODY:
            self._start()

    def response_has_begun(self) -> None:
        """The client was answered: receive() sends no "100 Continue" any more."""
        if self._turn is _Turn.HELD:
            self._turn = _Turn.NOBODY

    def response_ends(self) -> None:
        """The last message goes out: uvicorn says http.disconnect now, to everybody, and nobody left."""
        self._turn = _Turn.DONE
        if self._left:
            self._cut_off("its response is complete")

    def _ask(self) -> None:
        """Have the loop receive the body now. Worker thread."""
        self._runtime.doorbell.ring(Incoming._asked, self)

    def _asked(self) -> None:
        if self._turn is _Turn.HELD or self._turn is _Turn.NOBODY:
            self._start()

    def _start(self) -> None:
        self._turn = _Turn.TASK
        # In the request's context, whoever calls: the timer and the doorbell have none.
        self._task = self._context.run(self._runtime.start_task, self._run())

    async def _run(self) -> None:
        """Bring the rest of the body, then watch."""
        try:
            if self._left and self._stream is not None:
                await self._bring(self._stream)
            if self._turn is not _Turn.TASK:
                return
            try:
                message = await self._receive()
            except OSError as error:
                raise self._lost(error)  # noqa: B904 - its own cause
        except ClientDisconnected as error:
            self._cut_off(error.reason)
        except RequestTooLarge as error:
            self._stop_stream(functools.partial(RequestTooLarge, error.limit))
            self._listener.body_too_large(error.limit)
            self._cut_off("its body was too large")
        except Exception as error:  # noqa: BLE001 - a middleware that refuses the body, say: raised again by the request
            if self._left:
                self._listener.receive_raised(error)
                self._cut_off(f"receive() raised {error!r}")
            else:
                # All of the request is here. What cannot be asked for more, is not: a script of messages that is used
                # up, or Starlette's BaseHTTPMiddleware, which takes the end of the body once more for an error.
                self._turn = _Turn.DONE
                logger.debug("The client is not watched: receive() raised %r", error)
        except BaseException:  # this task was cancelled, by close() or by a server that ends
            self._hear_no_more()
            self._cut_off("receive() was cancelled")
            raise
        else:
            self._watched(message)

    def _watched(self, message: Message) -> None:
        """What came after the body."""
        if message["type"] == "http.disconnect":
            self._hear_no_more()
            self._cut_off("the server sent http.disconnect")
        elif self._turn is _Turn.TASK:
            self._turn = _Turn.NOBODY  # the end of the body once more: the timer asks again

    def _hear_no_more(self) -> None:
        """The client is gone, unless the response is complete: then that is all that the server means."""
        if self._turn is not _Turn.DONE:
            self._turn = _Turn.OVER

    async def _bring(self, stream: ToThread) -> None:
        while self._turn is _Turn.TASK:
            await stream.room()  # a body that the app does not read is not read here, nor is what comes after it
            if stream.stopped:
                return
            chunk = await self._next_chunk()
            if chunk:
                stream.put(chunk)
            if not self._left:
                stream.end()
                stream.flush()
                return
            stream.flush()

    def _cut_off(self, reason: str) -> None:
        """Nothing follows. What the app reads of a body that is not complete raises."""
        if self._left:
            self._left = False
            self._stop_stream(functools.partial(ClientDisconnected, reason))
        if self._turn is _Turn.OVER:
            self._listener.client_left(reason)
        elif self._turn is not _Turn.DONE:
            self._turn = _Turn.NOBODY  # too short a body, of a client that may be there: the timer watches

    def _stop_stream(self, error: Callable[[], BaseException]) -> None:
        if self._stream is not None:
            self._stream.stop(error)

    # -- Endings --------------------------------------------------------------------------------------------------

    def stop(self, error: Callable[[], BaseException]) -> None:
        """The request is over before its response: the app's reads raise ``error()``."""
        self._stop_stream(error)

    def discard(self) -> None:
        """Close the temporary file. The thread that used the body last."""
        if self._spooled is not None:
            # The disk is full: what is not written is not wanted any more. Or the app has detached the file.
            with contextlib.suppress(OSError, ValueError):
                self._spooled.close()

    def close(self) -> bool:
        """Hear nothing more. Whether there is a task, which `end_task` is then to end."""
        self._turn = _Turn.DONE
        if self._left:
            self._cut_off("its response is complete")
        self._listener = _nobody  # the request holds us: a cycle would leave each request to the garbage collector
        return self._task is not None

    async def end_task(self, *, wait: bool) -> None:
        """End the task. Without a wait in a cancelled request: there may be no loop to wait on."""
        assert self._task is not None
        if wait:
            await self._runtime.end_task(self._task, RECEIVE_END_SECONDS)
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._task.cancel()
