"""What a WSGI server gets of an ASGI app's response: an iterable, or a list with the whole of it.

*Facts*

- PEP 3333, "Handling the Content-Length Header": a server may take the length of a body from a list of one chunk.
- PEP 3333, "The start_response() Callable": the third argument is optional. Some servers and middleware require it.
- PEP 3333, "Specification Details": the server calls ``close()`` of the iterable in any case. Some forget it.

Threading: the server thread; ``__del__`` runs on any thread, in the middle of anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from a2wsgi._deprecated import takes_three
from a2wsgi._log import logger
from a2wsgi._protocol.files import BLOCK_BYTES
from a2wsgi._protocol.iterables import CompleteBody, NoBody

from .files import WrappedFile, closes_on_another_thread
from .server_socket import HungUpError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from a2wsgi._protocol.framing import Framing
    from a2wsgi._protocol.headers import WSGIResponseHead
    from a2wsgi._types import Environ, StartResponse, WriteCallable

    from .files import SentFile
    from .request import Request


class Response:
    """The iterable that the server gets: at each step, all that is queued, joined.

    The request does not hold it. So one that the server drops without ``close()`` is collected, and closes itself.
    """

    __slots__ = ("_chunks", "_closed", "_ended", "_request")

    def __init__(self, request: Request, chunks: list[bytes], *, ended: bool) -> None:
        self._closed = True  # for __del__, should an exception from outside end this method
        self._request = request
        self._chunks: list[bytes] | None = chunks  # the next to be given
        self._ended = ended  # nothing follows them
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._chunks is None and not self._ended:
            try:
                self._chunks, self._ended = self._request.next_chunks()
            except HungUpError:
                if not self._request.ends_quietly:
                    raise
                self._ended = True
        chunks, self._chunks = self._chunks, None
        if chunks:
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if self._request.broken:
            self._request.raise_failure()
        raise StopIteration

    def close(self) -> None:
        """PEP 3333, "Specification Details": "the server or gateway must call that method upon completion"."""
        if not self._closed:
            self._closed = True
            self._request.close()

    def __del__(self) -> None:
        if not self._closed:
            self._request.drop()


class WholeResponse(list[bytes]):
    """A response that is complete while its app still runs: a list, as servers ask a list for its length."""

    __slots__ = ("_closed", "_request")

    def __init__(self, request: Request, body: bytes) -> None:
        self._closed = True  # as in Response
        super().__init__((body,))
        self._request = request
        self._closed = False

    def close(self) -> None:
        """Wait for what the app still does, or tell it to stop."""
        if not self._closed:
            self._closed = True
            self._request.close()

    def __del__(self) -> None:
        if not self._closed:
            self._request.drop()


def give_whole(
    request: Request,
    start_response: StartResponse,
    head: WSGIResponseHead,
    framing: Framing,
    body: bytes,
    *,
    ended: bool,
    closes: bool,
) -> Iterable[bytes]:
    """Give the server a response that is complete.

    Args:
        request: The request.
        start_response: The server's.
        head: What to call it with.
        framing: How the response is framed.
        body: The whole body.
        ended: The app has ended.
        closes: ``close()`` still has something to do: to wait for the app, or to raise what it failed with.
    """
    try:
        write = start_response(head.status, head.headers)
    except TypeError as error:
        write = start_with_three(start_response, head.status, head.headers, error)
    if not ended and not body and callable(write):
        # PEP 3333 has servers send the head with the first chunk that is not empty, or at the end: that would be after
        # close(), and so after the app's background work. Some servers have no write(), against the PEP.
        write(b"")
    if framing.bodiless:
        # No list: a server would take the length from it, and say "Content-Length: 0" (wsgiref does).
        return Response(request, [b""], ended=True) if closes else NoBody((b"",))
    return WholeResponse(request, body) if closes else CompleteBody((body,))


def give_file(
    request: Request,
    start_response: StartResponse,
    head: WSGIResponseHead,
    file: SentFile,
    file_wrapper: object,
    *,
    inline: bool,
) -> Iterable[bytes]:
    """Give the server a response that is a file.

    Args:
        request: The request.
        start_response: The server's.
        head: What to call it with.
        file: The file, which is open.
        file_wrapper: The server's ``wsgi.file_wrapper``; None if it has none.
        inline: Nobody but the server thread runs the app.
    """
    if head.content_length is None and (length := request.length_to_add(file.length)) is not None:
        head.headers.append(("Content-Length", str(length)))
    try:
        start_response(head.status, head.headers)
    except TypeError as error:
        start_with_three(start_response, head.status, head.headers, error)
    if file.is_whole and callable(file_wrapper) and not (inline and closes_on_another_thread(file_wrapper)):
        wrapped = WrappedFile(request, file)
        try:
            # PEP 3333, "Optional Platform-Specific File Handling": to be returned itself, or the server reads it.
            return cast("Iterable[bytes]", file_wrapper(wrapped, BLOCK_BYTES))
        except Exception:  # noqa: BLE001 - the server's fault, and we can do without
            wrapped.closed = True  # it is not the end of the request
            logger.debug("The server's wsgi.file_wrapper raised; the file is read", exc_info=True)
    return Response(request, [b""], ended=False)


def start_with_three(
    start_response: StartResponse, status: str, headers: list[tuple[str, str]], error: TypeError
) -> WriteCallable:
    """Call a ``start_response`` that did not take two arguments with three, as a2wsgi 1.10.10 always did.

    Args:
        start_response: The server's.
        status: The first argument.
        headers: The second one.
        error: What the call with two arguments raised.

    Raises:
        TypeError: The call with two arguments failed for another reason.
    """
    if not takes_three(error):
        raise error
    return start_response(status, headers, None)


def answer_with(environ: Environ, start_response: StartResponse, status: str, text: bytes) -> Iterable[bytes]:
    """Answer in the app's place."""
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))]
    try:
        start_response(status, headers)
    except TypeError as error:
        start_with_three(start_response, status, headers, error)
    # RFC 9110 §9.3.2. No list, as in give_whole().
    return NoBody((b"",)) if environ.get("REQUEST_METHOD") == "HEAD" else CompleteBody((text,))


def gateway_timeout(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """RFC 9110 §15.6.5: the app did not begin its response in time."""
    return answer_with(environ, start_response, "504 Gateway Timeout", b"The app did not respond in time.")


def request_timeout(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """RFC 9110 §15.5.9: the client did not send its whole request in time."""
    return answer_with(environ, start_response, "408 Request Timeout", b"The request's body did not arrive in time.")
