"""The response: what a WSGI app says by ``start_response()``, ``write()`` and its iterable, and how it is sent.

Strategy
    The app may replace its head until the first chunk that is not empty, or the first ``write()``. That fixes the head,
    and with it the `Framing` of the body. From then on each chunk is cut to what the body may have, and queued for the
    loop. The head itself is not queued: the loop reads it here when it gets the first chunk, or the end.

    A list or tuple is handed over in one go, so that head, body and end reach the loop together and get a
    ``Content-Length``. A file that the server can send by itself is handed over in place of a body.

    Early hints go beside the stream, since any thread may give one and none may wait for room: they are kept in a list,
    and the loop is nudged.

Guarantees
    - The body is as long as its ``Content-Length``: what goes past it is cut off, and a shorter one is an error.
    - An iterable is not asked for more once its ``Content-Length`` is reached.
    - Chunks are ``bytes``; anything else is an `AppProtocolError`.
    - A response of which the app has failed is never ended: so its client sees that it is broken.
"""

# Apps hold `Disconnected`: whatever is not for them has an underscore.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from types import GeneratorType
from typing import TYPE_CHECKING

from a2wsgi._protocol.files import PIECE_BYTES
from a2wsgi._protocol.framing import Framing
from a2wsgi._protocol.headers import response_head_from_wsgi
from a2wsgi._protocol.hints import EXTENSION, links_from_wsgi

from .endings import Ending
from .faults import as_bytes, error_of, holds_one, iterator_of, no_head, second_head, too_short
from .files import find
from .sending import send_all, send_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from a2wsgi._protocol.headers import ASGIResponseHead
    from a2wsgi._types import ExceptionInfo, Message, Scope

    from .bridge import Shared
    from .disconnected import Disconnected
    from .endings import Abortable
    from .files import FileWrapper, SentFile
    from .receiver import Receiver
    from .streams import ToLoop

#: Hints that may wait for a slow client; what comes on top is dropped, as hints are advice. Arbitrary: pages send one.
MOST_HINTS = 100


def ignore_hint(headers: Iterable[tuple[str | bytes, str | bytes]], /) -> None:
    """Do what ``environ["wsgi.early_hints"]`` does for a client of HTTP/1.0: RFC 9110 §15.2 has it get no 1xx."""


class Response:
    """The response of one request.

    Args:
        shared: What the requests of the bridge share.
        output: Where the chunks go.
        disconnected: Knows whether the app is an ASGI app in a bridge.
        adds_length: A ``Content-Length`` may be added to a head that has none.

    Attributes:
        method: The request's method. Written by the loop thread before the app runs.
        head: What ``start_response()`` said last. Written by the worker thread until the head is fixed.
        framing: What the body may be, once the head is fixed. Set by the worker thread before it queues the first chunk
            or the end. Its ``remaining`` is the worker thread's alone.
        file: What the server sends in place of a body. Set by the worker thread before it queues the end; both threads
            may close it.
        hints: The messages of early hints that are still to be sent. Any thread appends, the loop thread takes.
        last: Chunks that are to be handed over with the end. The worker thread's, or that of whoever finds it dead.
        begun: The head has been sent. The loop thread's.
    """

    __slots__ = (
        "_adds_length",
        "_disconnected",
        "_output",
        "_shared",
        "_whole_length",
        "begun",
        "file",
        "framing",
        "head",
        "hints",
        "last",
        "method",
    )

    def __init__(self, shared: Shared, output: ToLoop, disconnected: Disconnected, *, adds_length: bool) -> None:
        self._shared = shared
        self._output = output
        self._disconnected = disconnected
        self._adds_length = adds_length
        self.method = ""
        self.head: ASGIResponseHead | None = None
        self.framing: Framing | None = None
        self.file: SentFile | None = None
        self.hints: list[Message] = []
        self.last: list[bytes] | None = None
        self.begun = False
        # In bytes, if the app gave the whole body in one piece. As `framing`.
        self._whole_length: int | None = None

    # -- The head: worker thread --------------------------------------------------------------------------------------

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        /,
        exc_info: ExceptionInfo | tuple[None, None, None] | None = None,
    ) -> Callable[[bytes], object]:
        """Take the app's head.

        PEP 3333, "The start_response() Callable". WSGI servers let apps name the last argument, too.
        """
        if exc_info is not None and (error := error_of(exc_info)) is not None:
            try:
                if self.framing is not None:
                    raise error.with_traceback(exc_info[2])
            finally:
                exc_info = error = None  # PEP 3333, "Error Handling": no circular reference through the traceback
        elif self.head is not None:
            raise second_head()
        self.head = head = response_head_from_wsgi(status, headers)
        if head.dropped:
            self._shared.dropped_headers.log(head.dropped)
        return self.write

    def _fix_head(self) -> Framing:
        """From now on start_response() cannot replace the head."""
        head = self.head
        if head is None:
            raise no_head()
        self.framing = Framing(self.method, head.status, head.content_length)
        return self.framing

    def give_hint(self, headers: Iterable[tuple[str | bytes, str | bytes]], /) -> None:
        """Send an early hint: ``environ["wsgi.early_hints"]``, as gunicorn has it. Any thread; does not wait.

        Once the head is fixed it does nothing, as gunicorn's, since the hint would come too late.

        Raises:
            AppProtocolError: The headers are not pairs of strings.
            ClientDisconnected: The request is over. Stop.
            InvalidHeader: A header cannot be sent as it is.
        """
        links = links_from_wsgi(headers)
        if links and self.framing is None:
            self._output.check()
            if len(self.hints) < MOST_HINTS:
                self.hints.append({"type": EXTENSION, "links": links})
                self._output.nudge()

    # -- The body: worker thread --------------------------------------------------------------------------------------

    def take_whole(self, iterable: Iterable[bytes]) -> list[bytes] | None:
        """The whole body, to be handed over in one go; None if it must be written piece by piece."""
        if len(chunks := list(iterable)) == 1 and type(chunks[0]) is bytes:  # most responses: spares two loops
            length = len(chunks[0])
        else:
            chunks = [chunk if type(chunk) is bytes else as_bytes(chunk) for chunk in chunks]
            length = sum(map(len, chunks))
        framing = self.framing
        if framing is None:
            self._whole_length = length  # PEP 3333, "Handling the Content-Length Header"
        if length > self._shared.settings.response_buffer_bytes and len(chunks) > 1:
            return None  # joined, it would be in memory twice
        if framing is None:
            # Fast path: _fix_head() without a call (tests/test_call_counts.py, "wsgi hello").
            if self.head is None:
                raise no_head()
            self.framing = framing = Framing(self.method, self.head.status, self.head.content_length)
        remaining = framing.remaining
        if remaining is None or remaining == length:
            return chunks
        if length < remaining:
            raise too_short(remaining - length)
        return [framing.cut(b"".join(chunks))]

    def take_file(
        self, wrapper: FileWrapper, scope: Scope, close: Callable[[Callable[[], object]], None]
    ) -> tuple[Iterable[bytes], Callable[[], object] | None]:
        """Have the server send a file by itself, if it can.

        Args:
            wrapper: What the app returned.
            scope: The request's.
            close: Calls an iterable's ``close()``, and logs what that raises.

        Returns:
            What is to be written after all, and what is to be closed after that.
        """
        head, pair = self.head, self._disconnected._pair
        if self.framing is not None or head is None or (pair is not None and pair.trailers is not None):
            return wrapper, wrapper.close
        if Framing(self.method, head.status, None).bodiless:
            self._fix_head()
            return (), wrapper.close  # nothing of it is read
        length = head.content_length
        file = find(wrapper.filelike, length, scope) if length else None
        if file is None:
            return wrapper, wrapper.close
        closes: Callable[[], object] | None = wrapper.close
        if file.path is not None and pair is None:
            # The server opens the path later, and close() may delete the file. So it comes first, and then a last look.
            # Not that of a bridge further in: it waits for what its app does after the response.
            close(wrapper.close)
            closes = None
            if not file.is_there:
                return file.blocks(), file.close
        self._fix_head().remaining = 0
        self.file = file
        # 1. The request is aborted, and the loop thread closes the file that it finds. 2. This thread leaves one. Or
        # the other way round: one of the two sees what the other has done.
        if file.path is not None or self._output.aborted:
            file.close()
        return (), closes

    def write_each(self, iterable: Iterable[bytes]) -> list[bytes] | None:
        """Write what the app yields, and ask it for no more than is wanted.

        Returns:
            The last chunk, to be handed over with the end; None if nobody knew that it was the last, so it was written.

        Raises:
            ClientDisconnected: The request is over. Stop.
        """
        output = self._output
        output.check()
        if self._disconnected._pair is not None:
            self._write_all(iterable)
            return None
        # PEP 3333, "Handling the Content-Length Header": one chunk is the whole body, and its length the body's.
        single = self.framing is None and hasattr(iterable, "__len__") and holds_one(iterable)
        any_length = False  # the head is fixed, and the body may have any length: a chunk needs no second look
        kind = type(iterable)
        # Fast path: a generator is its own iterator (tests/test_call_counts.py, "wsgi 20 chunks").
        for chunk in iterable if kind is GeneratorType else iterator_of(iterable):
            if any_length and type(chunk) is bytes and chunk:
                output.put(chunk)  # Fast path: one call a chunk (tests/test_call_counts.py, "wsgi 20 chunks")
                continue
            piece = chunk if type(chunk) is bytes else as_bytes(chunk)  # an app's own class may say that it is empty
            if piece:
                single = single and self.framing is None  # write(), called by the iterable itself, has fixed the head
                framing, part = self._part_of_body(piece)
                if single:
                    self._whole_length = len(piece)
                    if framing.remaining is None:
                        framing.remaining = 0  # it gets that Content-Length, whatever else the iterable may hold
                if framing.remaining == 0:
                    return [part]  # the Content-Length is reached, or the response has no body
                output.put(part)
                any_length = framing.remaining is None
            else:
                # PEP 3333, "The start_response() Callable": headers wait for the first chunk that is not empty.
                output.check()
                if self.framing is not None and self.framing.remaining == 0:  # write() has reached it
                    return None
        framing = self.framing or self._fix_head()
        if framing.remaining:
            raise too_short(framing.remaining)
        return None

    def _write_all(self, iterable: Iterable[bytes]) -> None:
        """Write what a bridge further in yields: it sends its head with an empty chunk, and is asked until its end."""
        any_length = False
        for chunk in iterator_of(iterable):
            if any_length and type(chunk) is bytes and chunk:
                self._output.put(chunk)  # Fast path: one call a chunk, as in write_each()
            else:
                self.write(chunk)
                any_length = self.framing is not None and self.framing.remaining is None
        framing = self.framing or self._fix_head()
        if framing.remaining:
            raise too_short(framing.remaining)

    def write(self, chunk: bytes, /) -> None:
        """Take a chunk of the body.

        PEP 3333, "The write() Callable".

        Raises:
            ClientDisconnected: The request is over. Stop.
        """
        first = self.framing is None
        _, part = self._part_of_body(chunk)
        if part or first:  # an empty one tells the loop of the head
            self._output.put(part)
        else:
            self._output.check()

    def _part_of_body(self, chunk: bytes) -> tuple[Framing, bytes]:
        """The part of a chunk that the body has room for. Fixes the head."""
        if type(chunk) is not bytes:
            chunk = as_bytes(chunk)  # before the head is fixed: an app that catches the error may still replace it
        framing = self.framing or self._fix_head()
        return framing, chunk if framing.remaining is None else framing.cut(chunk)

    # -- To the server: loop thread -------------------------------------------------------------------------------

    async def send(
        self, request: Abortable, receiver: Receiver, chunks: list[bytes], *, ended: bool, failed: bool
    ) -> None:
        """Send what was queued, hints first, then the head, and the end if this is it.

        Args:
            request: What sends the messages, and may end meanwhile.
            receiver: What is told of the response.
            chunks: What was queued; is emptied. An empty list without ``ended`` means that there are only hints.
            ended: Nothing follows.
            failed: The app has raised.
        """
        begins = not self.begun
        if self.hints and begins and not await send_all(request, self.hints):
            return
        head, framing = self.head, self.framing
        if not (chunks or ended) or head is None or framing is None or (begins and failed and not chunks):
            return  # the app failed before it had anything to say: the server answers
        pair = self._disconnected._pair
        if pair is not None and not await send_all(request, pair.messages):
            return
        if begins:
            self.begun = True
            await request.send_message(self._start_message(head, framing, chunks, whole=ended and not failed))
            if request.ending is not None:
                return
            if not ended:
                receiver.response_has_begun()
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()  # a slow client is not to have its part of the response in memory twice
        if len(body) > PIECE_BYTES:
            body = await send_pieces(request, body)
            if request.ending is not None:
                return
        if ended and not failed:
            receiver.response_ends()
            if self.file is None:
                await request.send_message({"type": "http.response.body", "body": body, "more_body": False})
            else:
                for message in self.file.messages():
                    if not await request.send_message(message):
                        break
            if pair is not None and pair.trailers:
                await send_all(request, pair.trailers)
            request.ending = request.ending or Ending.FINISHED
        elif body or (begins and not failed and framing.content_length != 0 and not framing.bodiless):
            # granian and daphne keep a head until a part of the body follows, be it empty.
            await request.send_message({"type": "http.response.body", "body": body, "more_body": True})

    def _start_message(self, head: ASGIResponseHead, framing: Framing, chunks: list[bytes], *, whole: bool) -> Message:
        """The head, with a Content-Length if the app gave none and it is known.

        Args:
            head: What the app said.
            framing: What its body may be.
            chunks: The part of the body that follows.
            whole: They are all of it.
        """
        headers = head.headers
        pair = self._disconnected._pair
        # Between two bridges a Content-Length is left to the outermost server, as it is without bridges.
        if self._adds_length and pair is None:
            length = self._whole_length
            if length is None and whole:
                length = sum(map(len, chunks))
            length = framing.length_to_add(length)
            if length is not None:
                headers = [*headers, (b"content-length", b"%d" % length)]
        start: Message = {"type": "http.response.start", "status": head.status, "headers": headers}
        if pair is not None and pair.trailers is not None:
            start["trailers"] = True
        return start

    def is_told_late(self, error: BaseException) -> bool:
        """Whether an ASGI app further in raised ``error`` after its response: then its server gets it. Any thread."""
        pair = self._disconnected._pair
        return pair is not None and error is pair.late_failure
