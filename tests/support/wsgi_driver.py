"""The smallest server side of WSGI: calls an app as servers do, and holds what the app does against PEP 3333.

`call` has an app answer one request to its end. `Exchange` does the same in steps, for a test that stops in between.
Both fail a test whose app breaks the protocol: so no test need ask for that.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from typing import Any, TypeVar
from wsgiref.util import is_hop_by_hop

from support.lockstep import BOUND_SECONDS, NeverHappened

T = TypeVar("T")


def environ_of(method: str = "GET", path: str = "/", *, body: bytes | None = None, **others: object) -> dict[str, Any]:
    """The environ of a request, as a server makes it.

    Args:
        method: The request's.
        path: Its decoded path, as latin-1.
        body: Its body; ``CONTENT_LENGTH`` goes with it. None for none.
        others: Keys that replace what stands here, or are added; a dot in a name is written as two underscores.
    """
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "54321",
        "HTTP_HOST": "testserver",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BodyStream(body or b""),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if body is not None:
        environ["CONTENT_LENGTH"] = str(len(body))
    environ.update({name.replace("__", ".", 1): value for name, value in others.items()})
    return environ


class BodyStream:
    """``wsgi.input`` of a server that keeps to PEP 3333 and to nothing more: a read past the end is a fault.

    Args:
        data: What the client sends.
        gone_after: How many bytes come before the client is gone, and `read` gives nothing; None for all.
        error: What `read` raises then instead.
        most: How many bytes `read` gives at most, whatever it is asked for.
        ends: Whether a read at the end is allowed, and says so.
    """

    def __init__(
        self,
        data: bytes,
        *,
        gone_after: int | None = None,
        error: Exception | None = None,
        most: int | None = None,
        ends: bool = False,
    ) -> None:
        self._stream = io.BytesIO(data if gone_after is None else data[:gone_after])
        self._left = len(data)
        self._error = error
        self._most = most
        self._ends = ends
        self.reads: list[int] = []
        self.threads: set[int] = set()

    def read(self, size: int) -> bytes:
        self.reads.append(size)
        self.threads.add(threading.get_ident())
        assert size > 0, f"read({size}): uWSGI gives everything for 0, eventlet blocks for -1"
        assert self._ends or size <= self._left, (
            f"read({size}) with {self._left} bytes to come blocks for ever on wsgiref"
        )
        data = self._stream.read(size if self._most is None else min(size, self._most))
        if not data and self._error is not None:
            raise self._error
        self._left -= len(data)
        return data


@dataclass(frozen=True, eq=False)
class Response:
    """What an app answered. Two are equal though their headers' names differ in letter case (RFC 9110 §5.1).

    Attributes:
        status: What `start_response` was given; None if it was not called.
        headers: The same.
        chunks: What the iterable gave, each as it stood.
        length: The ``len()`` of the iterable; None if it has none.
        raised: What was raised, None if nothing was.
        where: In which step: ``"call"``, ``"iteration"`` or ``"close"``.
    """

    status: str | None
    headers: list[tuple[str, str]] | None
    chunks: list[bytes]
    length: int | None = None
    raised: BaseException | None = None
    where: str | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The headers, with names in lower case."""
        return [(name.lower(), value) for name, value in self.headers or []]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Response) and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash((self.status, self.body))

    def _compared(self) -> tuple[object, ...]:
        return self.status, self.fields, self.chunks, self.length, self.raised, self.where


@dataclass
class Exchange:
    """One request, step by step. The server thread is the one that calls."""

    app: Callable[[Any, Any], Iterable[bytes]]
    environ: dict[str, Any] = field(default_factory=environ_of)
    status: str | None = None
    headers: list[tuple[str, str]] | None = None
    written: list[bytes] = field(default_factory=list)

    def begin(self) -> Exchange:
        """Call the app."""
        self.iterable = self.app(self.environ, self._start_response)
        self.iterator: Iterator[bytes] = iter(self.iterable)
        assert self.status is not None, "start_response() was not called before the iterable was returned"
        return self

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Any:
        assert self.status is None, "start_response() was called a second time"
        assert type(status) is str
        assert type(headers) is list
        assert len(status) > 4, f"{status!r} lacks a reason phrase"
        for pair in headers:
            assert type(pair) is tuple, f"{pair!r} is no tuple: uWSGI drops it"
            assert [type(part) for part in pair] == [str, str]
            assert not is_hop_by_hop(pair[0]), f"{pair[0]!r} is the server's"
        self.status, self.headers = status, headers
        return self.written.append

    def next(self) -> bytes:
        """Take a chunk."""
        chunk = next(self.iterator)
        assert type(chunk) is bytes
        return chunk

    def close(self) -> None:
        """Close the iterable, if it can be."""
        close = getattr(self.iterable, "close", None)
        if close is not None:
            close()


def call(
    app: Callable[[Any, Any], Iterable[bytes]],
    environ: dict[str, Any] | None = None,
    *,
    fails: type[BaseException] | None = None,
) -> Response:
    """Have ``app`` answer one request in this thread, to its end, and close it.

    Args:
        app: A WSGI app.
        environ: ``GET /`` by default.
        fails: What is to be raised; None for nothing.
    """
    exchange = Exchange(app, environ_of() if environ is None else environ)
    chunks: list[bytes] = []
    length, raised, where = None, None, "call"
    try:
        exchange.begin()
        length = len(exchange.iterable) if isinstance(exchange.iterable, Sized) else None
        where = "iteration"
        try:
            while True:
                try:
                    chunks.append(exchange.next())
                except StopIteration:
                    break
        except BaseException as error:  # noqa: BLE001 - raised again below
            raised = error
        if raised is None:
            where = "close"
        exchange.close()
    except BaseException as error:  # noqa: BLE001 - as above
        raised = raised or error
    if raised is not None and (fails is None or not isinstance(raised, fails)):
        raise raised
    assert fails is None or raised is not None, f"Nothing was raised, though {fails} was to be"
    return Response(exchange.status, exchange.headers, chunks, length, raised, None if raised is None else where)


class InThread:
    """Calls a function in another thread: a server that answers a second request beside the test's own."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(function,), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[[], Any]) -> None:
        try:
            self._result = function()
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            self._error = error

    def result(self, seconds: float = BOUND_SECONDS) -> Any:
        """What it returned; what it raised is raised."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise NeverHappened(f"The call did not end within {seconds} s")
        if self._error is not None:
            raise self._error
        return self._result
