"""The worker thread's side of a WebSocket: the app runs, with its end of the link, and may return a response.

Guarantees
    - The app, its iterable and its ``close()`` run in one copy of the handshake's context.
    - When the head of a response is fixed, and when the app has ended, its side of the link ends. So the loop reads
      whatever the app wrote before, then the end, and only then looks at the response or the failure.
    - Whoever of the app still waits for the socket is woken when it has ended. A bridge further in has put another
      socket in its place by then, and lives on with the link.
    - A child that the app forks, and that returns from the app, leaves its parent's WebSocket as it is.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import socket
from typing import TYPE_CHECKING

from a2wsgi._log import logger
from a2wsgi._protocol.headers import response_head_from_wsgi
from a2wsgi._wsgi_on_asgi.disconnected import current_request
from a2wsgi._wsgi_on_asgi.faults import (
    as_bytes,
    error_of,
    is_of_an_ending,
    iterator_of,
    no_head,
    second_head,
    worker_lost,
)
from a2wsgi._wsgi_on_asgi.streams import ToLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from a2wsgi._nested import Pair
    from a2wsgi._protocol.answer import HeadParser
    from a2wsgi._protocol.headers import ASGIResponseHead
    from a2wsgi._threads.runtime import Runtime
    from a2wsgi._types import Environ, ExceptionInfo, WSGIApp
    from a2wsgi._wsgi_on_asgi.bridge import Shared


class AppRun:
    """One run of the app for one WebSocket: a job for the workers.

    Args:
        app: The app.
        shared: What the requests of the bridge share.
        runtime: The loop's.
        environ: The app's.
        app_socket: The app's end of the link. It is closed here.
        parser: Of what the app answers on it. The loop thread's.

    Attributes:
        output: The response's body, for the loop; and whether the worker is done.
        context: That of the handshake, for the app.
        head: What ``start_response()`` said last. This and the following are the worker thread's until it has ended
            the app's side of the link, and the loop thread's from then on.
        took_over: It said 101: the app has given its socket away.
        committed: The head is fixed: it is the answer, unless the socket was used.
        failure: What the app raised.
        used_socket: It has answered the handshake on its socket. The loop thread's, until the worker is through.
        raised: The app raised before anything had ended its WebSocket, so this is a failure whatever kind of error it
            is. The loop thread's, and then that of the one thread that calls `take_failure`.
    """

    def __init__(  # noqa: PLR0917 - all of them different, and one caller
        self,
        app: WSGIApp,
        shared: Shared,
        runtime: Runtime,
        environ: Environ,
        app_socket: socket.socket,
        parser: HeadParser,
    ) -> None:
        self._app = app
        self._shared = shared
        self._environ = environ
        self._app_socket = app_socket
        self.parser = parser
        self._pid = os.getpid()
        settings = shared.settings
        self.output = ToLoop(runtime, settings.response_buffer_bytes, settings.send_queue_size)
        self.context = contextvars.copy_context()
        self.head: ASGIResponseHead | None = None
        self.took_over = False
        self.committed = False
        self.failure: BaseException | None = None
        self.used_socket = False
        self.raised = False
        self._ran = False  # run() has come to its end
        self._done_callbacks: list[Callable[[], object]] = []  # one at most; any thread's

    def run(self) -> None:
        """Run the app, in one copy of the handshake's context from its call to its close()."""
        try:
            self.context.run(self._run_app)
        except BaseException as error:  # noqa: BLE001 - raised into this thread by another, say. Nobody is to wait for ever
            if self.failure is None:
                self.failure = error
            self.end_of_socket()  # it may have come just before that, or into the middle of it
        self._ran = True

    def take_failure(self, pair: Pair | None) -> tuple[BaseException | None, contextvars.Context]:
        """What the app failed with, and the context that it was raised in. Any thread, once the worker is done.

        Args:
            pair: What a bridge further in has told, whose app runs on when the worker is done.
        """
        failure, self.failure = self.failure, None
        late = None if pair is None else pair.take_offer()
        if late is not None:
            self.raised = True  # the bridge further in keeps what is an ending's to itself
            return late[0] if failure is None else failure, late[1]
        return failure, self.context

    def done(self) -> None:
        """Tell the loop thread that this thread is done with it."""
        self.output.finish(done=True)
        self._call_back()

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called once the worker is done, in any thread. Loop thread; once."""
        # 1. The worker thread says that it is done. 2. It finds no callback. 3. One is added. So this looks again after
        # it has added one.
        self._done_callbacks.append(callback)
        if self.output.done:
            self._call_back()

    def _call_back(self) -> None:
        with contextlib.suppress(IndexError):  # there is none, or another thread calls it
            self._done_callbacks.pop()()

    def lost(self) -> None:
        """Do what the worker thread, which died, has not done. Any thread."""
        if self.output.done:
            return
        if not self._ran and self.failure is None:
            self.failure = worker_lost()
        self.end_of_socket()
        self.done()

    def _run_app(self) -> None:
        current_request.set(self._environ["a2wsgi.disconnected"])
        close = None
        try:
            iterable = self._app(self._environ, self._start_response)
            close = getattr(iterable, "close", None)
            for chunk in iterator_of(iterable):
                if chunk or self.took_over:
                    self._write(chunk)
                self.output.check()
            if self.head is not None and not self.committed:
                self._commit()
        except BaseException as error:  # noqa: BLE001 - raised again on the loop thread, or logged
            if self.failure is not None and error.__context__ is None:
                error.__context__ = self.failure  # the loop thread's, of how the app answered; this comes of it
            self.failure = error
        finally:
            try:
                self.end_of_socket()
            finally:
                if close is not None:
                    self.output.finish()  # now, so that a slow close() holds no client back
                    try:
                        close()
                    except BaseException as error:  # noqa: BLE001 - whatever it is, the response is over
                        if not is_of_an_ending(error):
                            logger.exception("close() of the WSGI app's iterable raised")

    def _start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        /,
        exc_info: ExceptionInfo | tuple[None, None, None] | None = None,
    ) -> Callable[[bytes], object]:
        """PEP 3333, "The start_response() Callable"."""
        if exc_info is not None and (error := error_of(exc_info)) is not None:
            try:
                if self.committed:
                    raise error.with_traceback(exc_info[2])
            finally:
                exc_info = error = None  # PEP 3333, "Error Handling": no circular reference through the traceback
        elif self.head is not None:
            raise second_head()
        if status[:3] == "101":  # of a bridge further in, which has the socket by now and tells a server so
            self.took_over = True
            return self._write
        self.head = head = response_head_from_wsgi(status, headers)
        if head.dropped:
            self._shared.dropped_headers.log(head.dropped)
        return self._write

    def _write(self, chunk: bytes, /) -> None:
        """PEP 3333, "The write() Callable"."""
        if type(chunk) is not bytes:
            chunk = as_bytes(chunk)
        if self.took_over:
            return
        if not self.committed:
            self._commit()
        self.output.put(chunk)

    def _commit(self) -> None:
        """Fix the head. From now on the app answers by its response, and no more on its socket."""
        if self.head is None:
            raise no_head()
        self.committed = True
        # The loop reads what was written before, then the end, and then looks at the response.
        self._shut(socket.SHUT_WR)

    def end_of_socket(self) -> None:
        """Let go of the app's end of the link, and wake whoever of the app still waits for it. Any thread.

        A bridge further in has put another socket in its place, and lives on with the link.
        """
        self._shut(socket.SHUT_RDWR)  # close() alone wakes nobody
        with contextlib.suppress(OSError):
            self._app_socket.close()

    def _shut(self, how: int) -> None:
        if self._pid == os.getpid():  # else the app has forked, and its parent would lose the link
            with contextlib.suppress(OSError):
                self._app_socket.shutdown(how)
