"""Threads, loops and bodies for the deprecated names of a2wsgi 1.x."""

# `_Pull` calls what subclasses of 1.x's ``Body`` override.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextvars
import io
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from a2wsgi import _type_hints as hints
from a2wsgi._errors import ClientDisconnected
from a2wsgi._protocol.headers import response_head_from_wsgi

if TYPE_CHECKING:
    from typing_extensions import Buffer


def unused_executor(workers: int) -> Executor:
    """Return an executor like that of 1.10.10. It starts no thread until something is submitted to it."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - few need it, and its import is slow

    return ThreadPoolExecutor(max_workers=workers, thread_name_prefix="WSGI")


class ResponderSteps:
    """The steps of 1.10.10's ``WSGIResponder``, which programs override and call: all but ``__call__``.

    The app runs in ``executor``, and what it says goes through ``send_queue`` to a task that runs `sender`.
    """

    def __init__(self, app: hints.WSGIApp, executor: Executor, send_queue_size: int | None = 10) -> None:
        self.app = app
        self.executor = executor
        self.loop = asyncio.get_running_loop()
        self.send_queue: asyncio.Queue[hints.Message | None] = asyncio.Queue(
            10 if send_queue_size is None else send_queue_size
        )
        self.response_started = False
        self.exc_info: Any = None
        self._is_over = False  # nobody takes from the queue any more

    async def answer(self, environ: hints.Environ, send: hints.Send) -> None:
        """Run the app, and send what it says. Loop thread."""
        sender = self.loop.create_task(self.sender(send))
        try:
            run: Any = contextvars.copy_context().run
            await self.loop.run_in_executor(self.executor, run, self.wsgi, environ, self.start_response)
            if not sender.done():
                await self.send_queue.put(None)
            await sender
            if self.exc_info is not None:
                raise self.exc_info[1].with_traceback(self.exc_info[2])
        finally:
            sender.cancel()

    def send(self, message: hints.Message | None) -> None:
        """Queue a message, and wait for room. The executor's thread.

        Raises:
            ClientDisconnected: The response is over. Stop.
        """
        if self._is_over:
            raise ClientDisconnected("the response is over")
        asyncio.run_coroutine_threadsafe(self.send_queue.put(message), self.loop).result()

    async def sender(self, send: hints.Send) -> None:
        """Send what is queued, until a None. Loop thread."""
        try:
            while (message := await self.send_queue.get()) is not None:
                await send(message)
                self.send_queue.task_done()
        finally:
            self._is_over = True
            while not self.send_queue.empty():  # a thread may wait for room
                self.send_queue.get_nowait()

    def start_response(
        self,
        status: str,
        response_headers: list[tuple[str, str]],
        exc_info: Any = None,  # noqa: ANN401 - as PEP 3333 has it
    ) -> Callable[[bytes], None]:
        """Send the head, the first time. The executor's thread."""
        self.exc_info = exc_info
        if not self.response_started:
            self.response_started = True
            head = response_head_from_wsgi(status, response_headers)
            self.send({"type": "http.response.start", "status": head.status, "headers": head.headers})
        return self._write

    def _write(self, chunk: bytes) -> None:
        self.send({"type": "http.response.body", "body": chunk, "more_body": True})

    def wsgi(self, environ: hints.Environ, start_response: hints.StartResponse) -> None:
        """Run the app. The executor's thread."""
        iterable = self.app(environ, start_response)
        try:
            for chunk in iterable:
                self._write(chunk)
            self.send({"type": "http.response.body", "body": b""})
        finally:
            getattr(iterable, "close", int)()


class PulledBody(io.BufferedReader):
    """A body that is received message by message as it is read: the ``Body`` of a2wsgi 1.x.

    Subclasses override ``_receive_more_data()``, which returns the next part, and set ``_has_more``.

    Args:
        loop: The loop of the request, which must run in another thread.
        receive: The request's ``receive()``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: hints.Receive) -> None:
        self.loop = loop
        self.receive = receive
        self._has_more = True
        super().__init__(_Pull(weakref.ref(self)))

    @property
    def has_more(self) -> bool:
        """Whether more may be read."""
        return self._has_more or bool(self.peek(1))

    def _receive_more_data(self) -> bytes:
        if not self._has_more:
            return b""
        message = asyncio.run_coroutine_threadsafe(self._next(), self.loop).result()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected("the server sent http.disconnect before the body was complete")
        self._has_more = bool(message.get("more_body"))
        return message.get("body") or b""

    async def _next(self) -> hints.Message:
        return await self.receive()


class _Pull(io.RawIOBase):
    def __init__(self, body: weakref.ref[PulledBody]) -> None:
        self._body = body  # weak: it holds this
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        while not self._rest and (body := self._body()) is not None and body._has_more:  # noqa: SLF001 - 1.x's names
            self._rest = memoryview(body._receive_more_data())  # noqa: SLF001
        # The views are released at once: see BodyReader.readinto().
        with memoryview(buffer) as given, given.cast("B") as view:
            part = self._rest[: len(view)]
            view[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)
