"""The loop thread that runs trio, and what an app on it sees.

Guarantees
    - An app's exception group of one is raised as that one exception, without the ``Cancelled`` beside it.
    - ``send()`` notices that its task is cancelled even if it does not wait, as every function of trio's does. If a
      message is there, ``receive()`` gives it all the same: Starlette's ``is_disconnected()`` cancels its call of it
      beforehand.
    - A run that an app has broken or cancelled is known to its requests, and the next request starts another.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import sys
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio

from a2wsgi._asgi_on_wsgi import faults
from a2wsgi._log import logger
from a2wsgi._threads.runtime_trio import TrioRuntime
from a2wsgi._threads.transport_trio import TrioTransport

from .greenlets import threads_are_greenlets
from .host import LoopHost
from .shared_loop import SharedHost
from .trio_loop import TrioLoop, TrioTask

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # trio needs it, too

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable, Coroutine, Iterable

    from a2wsgi._threads.handles import Task, Transport
    from a2wsgi._types import ASGIApp, Message, Receive, Scope, Send

    _Group = BaseExceptionGroup[BaseException]
    _Split = Callable[[type[BaseException]], tuple[_Group | None, _Group | None]]

_T = TypeVar("_T")


class TrioHost(SharedHost):
    """A run of trio's in a thread of ours, shared by all bridges with ``backend="trio"``."""

    __slots__ = ()

    thread_name = "a2wsgi-trio"
    loop: TrioLoop  # type: ignore[assignment]  # it has what is used of asyncio's

    def launch(self) -> None:
        if threads_are_greenlets():
            raise faults.no_trio_among_greenlets()
        super().launch()

    def _main(self) -> None:
        try:
            loop = TrioLoop()
            LoopHost.__init__(self, cast("Any", loop))
            self.before_wait = loop.before_wait
            loop.run(self._begin, self._fail_users)
        except BaseException as error:  # noqa: BLE001 - raised by wait_ready(), or logged; requests get another for it
            if self._ready.is_set():
                self._broken = type(error.__cause__ or error).__name__
                logger.exception("The trio run failed, and its requests with it. The next request starts another run")
            else:
                self._could_not_start(error)
        finally:
            try:
                self._fail_users()
            finally:
                self._ended.set()
                self._ready.set()

    def _begin(self) -> None:
        self._ready.set()
        if self.stopping:  # as in release()
            self.loop.call_soon_threadsafe(self.loop.stop)

    def _end_error(self) -> BaseException:
        return faults.trio_ended() if self._broken is None else faults.loop_broke(self._broken)

    def is_here(self) -> bool:
        return self.loop.is_here()

    def refuse_own_thread(self) -> None:
        if self.loop.is_here():
            raise faults.own_thread()

    def _submit(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> concurrent.futures.Future[_T]:
        future: concurrent.futures.Future[_T] = concurrent.futures.Future()

        async def call() -> None:
            try:
                result = await make()
            except trio.Cancelled:
                future.cancel()
            except BaseException as error:  # noqa: BLE001 - raised by the thread that waits
                if not future.cancelled():
                    future.set_exception(error)
            else:
                if not future.cancelled():
                    future.set_result(result)

        def begin() -> None:
            if future.cancelled():
                return
            task = self.loop.create_task(call())
            future.add_done_callback(lambda _: self._cancel_soon(task) if future.cancelled() else None)

        self.loop.call_soon_threadsafe(begin)
        return future

    def _cancel_soon(self, task: TrioTask) -> None:
        with contextlib.suppress(RuntimeError):  # the run has ended
            self.loop.call_soon_threadsafe(task.cancel)

    # -- What `Runtime` does by asyncio, as far as this wing asks for it ----------------------------------------------

    wait = staticmethod(TrioRuntime.wait)

    @staticmethod
    async def end_task(task: Task, seconds: float) -> None:
        if not task.done():
            task.cancel()
            # Shielded: asyncio cancels one wait of a task, but trio each that follows.
            with trio.CancelScope(deadline=trio.current_time() + seconds, shield=True):
                await cast("TrioTask", task)

    @staticmethod
    async def late_of(tasks: Iterable[asyncio.Task[None]], seconds: float) -> Iterable[asyncio.Task[None]]:
        with trio.move_on_after(seconds):
            for task in tasks:
                await task
        return [task for task in tasks if not task.done()]

    @staticmethod
    async def go_round() -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def connect(self, protocol: asyncio.Protocol, sock: socket.socket, high_water: int) -> Transport:
        return TrioTransport(self, protocol, sock, high_water)


def on_trio(app: ASGIApp) -> ASGIApp:
    """Give an app what it may expect of trio, and what its callers may expect of it."""

    async def adapted(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_here(message: Message) -> None:
            await trio.lowlevel.checkpoint_if_cancelled()
            await send(message)

        error: BaseException | None = None
        try:
            await app(scope, receive, send_here)
        except BaseExceptionGroup as group:
            error = _sole(group)
        if error is not None:  # here, so that the group is not its context
            raise error

    return adapted


def _sole(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What to raise for a group: without the Cancelled in it, and if one exception is left, that one."""
    cancelled, others = cast("_Split", group.split)(trio.Cancelled)
    left = others or cancelled or group
    while others is None or len(left.exceptions) == 1:
        error = left.exceptions[0]
        if not issubclass(type(error), BaseExceptionGroup):  # isinstance() would ask its own __class__
            return error
        left = cast("BaseExceptionGroup[BaseException]", error)
    return left
