"""The lifespan protocol, from either side: `Lifespan` drives an app's, `answer_lifespan` answers a server's.

Strategy
    To drive it, the app is called once with a ``lifespan`` scope, in a task of its own that lasts as long as the app
    serves. Its ``receive()`` gives ``lifespan.startup`` at once and ``lifespan.shutdown`` when the time has come.

Guarantees
    - `Lifespan.startup` and `Lifespan.shutdown` end within the given time, whatever the app does.
    - An app that does not know lifespan is told from one whose startup fails: the former raises at the scope, returns,
      or sends what is no lifespan message (ASGI Lifespan 2.0, "Scope": "the server must continue").
    - No task is left behind.
    - Bridges to ASGI that a bridge to WSGI carries are all started with its server, or none; and all are stopped with
      it, whatever one of them raises.

Assumes
    All is called on the loop thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from typing import TYPE_CHECKING, Any, Protocol

from ._errors import AppProtocolError, BridgeError, LifespanFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from ._runtime import Runtime
    from ._types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Lifespan", "Startable", "answer_lifespan"]

logger = logging.getLogger("a2wsgi")

#: How long a cancelled lifespan task may take to end, in seconds. Arbitrary; one that swallows cancellation is left.
CANCEL_SECONDS = 1.0


# -- An app's lifespan, driven ----------------------------------------------------------------------------------------


class Lifespan:
    """Drives the lifespan of one app, on the loop that runs when it is made.

    Args:
        app: The ASGI 3 app.

    Attributes:
        state: What the app has put into ``scope["state"]``; each request gets a shallow copy.
        supported: Whether the app has said that its startup is complete.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, Any] = {}
        self.supported = False
        self._app = app
        loop = asyncio.get_running_loop()
        # Each is done when the app has answered, or can answer no more.
        self._started: asyncio.Future[None] = loop.create_future()
        self._stopped: asyncio.Future[None] = loop.create_future()
        self._shutdown_due = asyncio.Event()
        self._received = False  # the app has taken lifespan.startup
        self._raised: BaseException | None = None  # what it ended in
        # An empty context: what the first request has in its own is no business of the app's background tasks.
        self._task = contextvars.Context().run(loop.create_task, self._run())

    async def startup(self, seconds: float) -> None:
        """Wait until the app has started up, or does not know lifespan.

        Raises:
            LifespanFailed: The startup failed, with the app's own words, or took longer than ``seconds``.
        """
        await asyncio.wait((self._started,), timeout=seconds)
        if self._started.done():
            error = self._started.exception()
            if error is None:
                return
            await self._add_cause(error)
        else:
            error = LifespanFailed(
                f"The app's lifespan startup did not end within startup_timeout={seconds} s, and was cancelled. "
                "Nothing is served before it has. Make it quicker, or raise startup_timeout."
            )
        await self._end()
        raise error

    async def shutdown(self, seconds: float) -> None:
        """Have the app shut down, if it knows lifespan, and wait until it has.

        Raises:
            LifespanFailed: The shutdown failed, with the app's own words, or took longer than ``seconds``.
        """
        if not self.supported:
            await self._end()
            return
        self._shutdown_due.set()
        await asyncio.wait((self._stopped,), timeout=seconds)
        late = not self._stopped.done()
        if not late:
            await self._add_cause(self._stopped.exception())
        await self._end()
        if late:
            raise LifespanFailed(
                f"The app's lifespan shutdown did not end within shutdown_timeout={seconds} s, and was cancelled. What "
                "it was to release may not be. Make it quicker, or raise shutdown_timeout."
            )
        self._stopped.result()

    async def _add_cause(self, error: BaseException | None) -> None:
        """Wait for what follows the app's answer: usually nothing, or what it has just told of in its own words."""
        await asyncio.wait((self._task,), timeout=CANCEL_SECONDS)
        if error is not None and error.__cause__ is None:
            error.__cause__ = self._raised

    async def _end(self) -> None:
        """Cancel the task, unless it has ended."""
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=CANCEL_SECONDS)
        for answer in (self._started, self._stopped):
            if answer.done():
                answer.exception()  # seen: else asyncio would log that nobody has
            else:
                answer.cancel()

    # -- The app's side -------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        error: BaseException | None = None
        try:
            await self._app(scope, self._receive, self._send)
        except BaseException as exc:  # noqa: BLE001 - SystemExit too: it must fail the startup, not end the loop
            error = self._raised = exc
        if not self._started.done():
            if error is None or not self._received:
                self._started.set_result(None)  # does not know lifespan
            else:
                self._started.set_exception(_failed("startup", error))
        elif not self._stopped.done():
            self._ended_early(error)

    def _ended_early(self, error: BaseException | None) -> None:
        """The app's task has ended after startup and before its answer to shutdown."""
        if error is None or isinstance(error, asyncio.CancelledError):
            self._stopped.set_result(None)
        elif self._shutdown_due.is_set():
            self._stopped.set_exception(_failed("shutdown", error))
        else:
            if self.supported:
                logger.error("The app's lifespan ended while the app served", exc_info=error)
            self._stopped.set_result(None)

    async def _receive(self) -> Message:
        if not self._received:
            self._received = True
            return {"type": "lifespan.startup"}
        await self._shutdown_due.wait()
        if self._stopped.done():
            # ASGI Lifespan 2.0 has no third message: there is nothing to wait for but the end of the task.
            await asyncio.get_running_loop().create_future()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete" and not self._started.done():
            self.supported = True
            self._started.set_result(None)
        elif kind == "lifespan.startup.failed" and not self._started.done():
            self._started.set_exception(_refused("startup", message))
        elif kind == "lifespan.shutdown.complete" and not self._stopped.done():
            self._stopped.set_result(None)
        elif kind == "lifespan.shutdown.failed" and not self._stopped.done():
            self._stopped.set_exception(_refused("shutdown", message))
        elif not str(kind).startswith("lifespan."):
            if not self._started.done():
                self._started.set_result(None)  # answers it as it does a request: it does not know lifespan
            raise AppProtocolError(
                f"The app sent {kind!r} for a lifespan scope. ASGI Lifespan 2.0 knows lifespan.startup.complete and "
                'the like. Look at scope["type"] first, and raise if it is of a type that the app does not know.'
            )


def _refused(what: str, message: Message) -> LifespanFailed:
    said = f"The app's lifespan {what} failed: "  # once, where the app is a bridge as well
    text = str(message.get("message") or "(it gave no message)")
    return LifespanFailed(said + text.removeprefix(said))


def _failed(what: str, error: BaseException) -> LifespanFailed:
    failed = LifespanFailed(
        f"The app's lifespan {what} raised {type(error).__name__}: {error}. If the app does not know "
        "lifespan, pass lifespan=False."
    )
    failed.__cause__ = error
    return failed


# -- A server's lifespan, answered ------------------------------------------------------------------------------------


class Startable(Protocol):
    """A bridge with a lifespan to drive: an ASGI app on a WSGI server."""

    @property
    def state(self) -> Mapping[str, object]:
        """What its app has put into the lifespan's state."""
        raise NotImplementedError

    def start(self) -> None:
        """Start its app up. Waits."""

    def stop(self) -> None:
        """Shut its app down; it may be started again. Waits."""


async def answer_lifespan(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    runtime: Runtime,
    bridges: tuple[Startable, ...],
    wind_up: Callable[[], Awaitable[None]],
) -> None:
    """Answer a server's lifespan, from its startup to its shutdown. Loop thread; the bridges wait in other threads.

    Between the two it waits for the server, for as long as that serves. All else has the bounds of the bridges'
    ``startup_timeout`` and ``shutdown_timeout``, and of ``wind_up``.

    Args:
        scope: The server's, of the type ``lifespan``.
        receive: The server's.
        send: The server's.
        runtime: The loop.
        bridges: What starts up and shuts down with the server, the innermost first.
        wind_up: Lets the requests end, before the bridges are stopped.

    Raises:
        Exception: What the app of one of them raised; the server has been told that it failed.

    Cancellation: during a startup, what was started is stopped again.
    """
    while True:
        message = await receive()
        phase = message["type"]
        try:
            if phase == "lifespan.startup":
                await _start_all(bridges, runtime)
                if "state" in scope:  # ASGI Lifespan 2.0, "Lifespan State": what stands above us has it, too
                    for bridge in bridges:
                        scope["state"].update(bridge.state)
            elif phase == "lifespan.shutdown":
                await wind_up()
                await _stop_all(bridges, runtime)
            else:
                continue  # a later version's, or a server's own: no answer to it is known
        except BridgeError as error:  # LifespanFailed, and what else a bridge says when it cannot start
            await send({"type": f"{phase}.failed", "message": str(error)})
            if isinstance(error.__cause__, Exception):
                raise error.__cause__  # noqa: B904 - the app's own, which a server of its own would have had
            return
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return


async def _start_all(bridges: Iterable[Startable], runtime: Runtime) -> None:
    """Start them in order; all or none."""
    started: list[Startable] = []
    try:
        for bridge in bridges:
            started.append(bridge)  # before: where its start is cancelled, its thread goes on with it
            await runtime.in_thread(bridge.start)
    except BaseException:
        with contextlib.suppress(BridgeError):  # the first error is the one to tell
            await _stop_all(started, runtime)
        raise


async def _stop_all(bridges: Sequence[Startable], runtime: Runtime) -> None:
    """Stop them, the last first; each, whatever another raises."""
    errors: list[BridgeError] = []
    for bridge in reversed(bridges):
        try:
            await runtime.in_thread(bridge.stop)
        except BridgeError as error:
            errors.append(error)
    if errors:
        raise errors[0]
