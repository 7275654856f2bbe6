"""The lifespan of an ASGI app, driven as a server drives it.

Strategy
    The app is called once with a ``lifespan`` scope, in a task that lasts as long as the app serves. Its ``receive()``
    gives ``lifespan.startup`` at once, and ``lifespan.shutdown`` when the bridge shuts down.

Guarantees
    - `Lifespan.startup` and `Lifespan.shutdown` end within the given time, or `CANCEL_SECONDS` later, whatever the app
      does.
    - An app is served without lifespan unless it sends ``lifespan.startup.complete``, and is refused only if it sends
      ``lifespan.startup.failed`` or exits. ASGI Lifespan 2.0, "Scope": "If an exception is raised when calling the
      application callable with a lifespan.startup message or a scope of type lifespan, the server must continue but not
      send any lifespan events." An app that raises after it has received ``lifespan.startup`` is warned of: most often
      there is a mistake in its startup.
    - The task does not outlast the lifespan, unless the app ignores its cancellation.

Assumes
    Everything but `run_lifespan` is called on the loop thread.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
from typing import TYPE_CHECKING, Any

from a2wsgi._errors import AppProtocolError, LifespanFailed
from a2wsgi._log import logger
from a2wsgi._threads.runtime import wake, wake_all

from .faults import is_cancellation, type_of_message
from .loops.host import CANCEL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from a2wsgi._threads.handles import Waiter
    from a2wsgi._types import ASGIApp, Message

    from .loops.host import LoopHost


class _Answer:
    """The app's answer to one of the two messages, which one coroutine waits for.

    Attributes:
        waiter: Done when it is given.
        given: The app has answered, or cannot answer any more. Only the first word counts.
        error: What the answer is to raise.
    """

    __slots__ = ("error", "given", "waiter")

    def __init__(self, host: LoopHost) -> None:
        self.waiter = host.create_waiter()
        self.given = False
        self.error: LifespanFailed | None = None

    def give(self, error: LifespanFailed | None = None) -> None:
        if not self.given:
            self.given, self.error = True, error
            wake(self.waiter)


class Lifespan:
    """Drives the lifespan of one app.

    Args:
        app: The ASGI 3 app.
        host: Where it runs.

    Attributes:
        state: What the app has put into ``scope["state"]``; each request gets a shallow copy.
        supported: Whether the app has said that its startup is complete.
    """

    def __init__(self, app: ASGIApp, host: LoopHost) -> None:
        self.state: dict[str, Any] = {}
        self.supported = False
        self._app = app
        self._host = host
        self._started = _Answer(host)
        self._stopped = _Answer(host)
        self._shutdown_due = False
        self._receivers: list[Waiter] = []  # who waits for that
        self._received = False  # the app has received lifespan.startup
        self._told = False  # it has received lifespan.shutdown
        self._raised: BaseException | None = None  # what the app raised
        # In an empty context: the app's background tasks are not to see the variables of the first request.
        self._task = contextvars.Context().run(host.loop.create_task, self._run())

    async def startup(self, seconds: float) -> None:
        """Wait until the app has started up, or turns out not to know lifespan.

        Raises:
            LifespanFailed: The startup failed, in the app's own words, or took longer than ``seconds``.

        Cancellation: the app's task is cancelled, too.
        """
        try:
            await self._host.wait(self._started.waiter, seconds)
        except BaseException:  # cancelled, as the thread that waits for us was: the next try has its own task
            await self._end()
            raise
        if self._started.given:
            error = self._started.error
            if error is None:
                return
            await self._add_cause(error)
        else:
            error = LifespanFailed(
                f"The app's lifespan startup did not end within startup_timeout={seconds} s, and was cancelled. "
                "Nothing is served before it has ended. Make it faster, or raise startup_timeout."
            )
        await self._end()
        raise error

    async def shutdown(self, seconds: float, inside: float = 0.0) -> None:
        """Have the app shut down, if it knows lifespan, and wait until it has.

        Args:
            seconds: How long the app may take.
            inside: How long bridges inside it may take on top of that. They have timeouts of their own.

        Raises:
            LifespanFailed: The shutdown failed, in the app's own words, or took longer.
        """
        if not self.supported:
            await self._end()
            return
        self._shutdown_due = True
        receivers, self._receivers = self._receivers, []
        wake_all(receivers)
        await self._host.wait(self._stopped.waiter, seconds + inside)
        late, error = not self._stopped.given, self._stopped.error
        if not late:
            await self._add_cause(error)
        await self._end()
        if late:
            raise LifespanFailed(
                f"The app's lifespan shutdown did not end within shutdown_timeout={seconds} s, and was cancelled. It "
                "may have left something open. Make it faster, or raise shutdown_timeout."
            )
        if error is not None:
            raise error

    async def _add_cause(self, error: BaseException | None) -> None:
        """Wait for the app to end after its answer. What it raises is the cause of ``error``, if that has none."""
        await self._host.late_of((self._task,), CANCEL_SECONDS)
        if error is not None and error.__cause__ is None:
            error.__cause__ = self._raised

    async def _end(self) -> None:
        """Cancel the task, unless it has ended."""
        for answer in (self._started, self._stopped):
            answer.give()  # first: what the task ends in now is our doing, and not to be reported
        await self._host.end_task(self._task, CANCEL_SECONDS)

    # -- The app's side -------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        error: BaseException | None = None
        try:
            await self._app(scope, self._receive, self._send)
        except BaseException as exc:  # noqa: BLE001 - SystemExit too, which must fail the startup and not end the loop
            error = self._raised = exc
        if not self._started.given:
            if error is not None and issubclass(type(error), SystemExit | KeyboardInterrupt):
                # Not "an exception" in the specification's sense: an app that calls sys.exit() does not want to serve.
                self._started.give(_failed("startup", error))
            else:
                self._started.give()
                if error is not None and self._received:
                    logger.warning(
                        "The app raised during its lifespan startup without sending lifespan.startup.failed. It is "
                        "served without lifespan (ASGI Lifespan 2.0, Scope). Send lifespan.startup.failed to make "
                        "requests fail, or pass lifespan=False if the app does not support lifespan.",
                        exc_info=error,
                    )
        elif not self._stopped.given:
            self._ended_early(error)

    def _ended_early(self, error: BaseException | None) -> None:
        """The app's task has ended after startup and before its answer to shutdown."""
        if error is None or is_cancellation(error):
            self._stopped.give()
        elif self._shutdown_due:
            self._stopped.give(_failed("shutdown", error))
        else:
            self._stopped.give()
            if self.supported:
                logger.error("The app's lifespan failed while the app was being served", exc_info=error)

    async def _receive(self) -> Message:
        if not self._received:
            self._received = True
            return {"type": "lifespan.startup"}
        while not self._shutdown_due:
            waiter = self._host.create_waiter()
            self._receivers.append(waiter)
            try:
                await waiter
            except BaseException:  # cancelled, as by an app that does something else now and then
                with contextlib.suppress(ValueError):  # it was woken at the same moment
                    self._receivers.remove(waiter)
                raise
        if self._told or self._stopped.given:
            # ASGI Lifespan 2.0 has no third message, so this waits until the task is cancelled. An app that was told
            # and forgets to answer would otherwise ask for ever, and the loop would do nothing else.
            await self._host.create_waiter()
        self._told = True
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        try:
            kind = message["type"]
        except (TypeError, LookupError):
            kind = None  # an unknown type
        if kind == "lifespan.startup.complete" and not self._started.given:
            self.supported = True
            self._started.give()
        elif kind == "lifespan.startup.failed" and not self._started.given:
            self._started.give(_refused("startup", message))
        elif kind == "lifespan.shutdown.complete" and not self._stopped.given:
            self._stopped.give()
        elif kind == "lifespan.shutdown.failed" and not self._stopped.given:
            self._stopped.give(_refused("shutdown", message))
        elif not str(kind).startswith("lifespan."):
            if not self._started.given:
                self._started.give()  # it answers as if this were a request: it does not know lifespan
            raise AppProtocolError(
                f"The app sent {type_of_message(kind)} in a lifespan scope. ASGI Lifespan 2.0 only allows "
                'lifespan.startup.complete and the like. Check scope["type"] first, and raise an error for types that '
                "the app does not support."
            )


def _refused(what: str, message: Message) -> LifespanFailed:
    start = f"The app's lifespan {what} failed: "
    text = str(message.get("message") or "(no message)")
    return LifespanFailed(start + text.removeprefix(start))  # said once, also if the app is a bridge itself


def _failed(what: str, error: BaseException) -> LifespanFailed:
    try:
        text = f"{error}"
    except Exception:  # noqa: BLE001 - the text is made by the app's own method
        text = "(its str() raises)"
    failed = LifespanFailed(f"The app's lifespan {what} raised {type(error).__name__}: {text}")
    failed.__cause__ = error
    return failed


def run_lifespan(host: LoopHost, make: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> None:
    """`LoopHost.run` of a startup or a shutdown. Any thread but the loop's.

    Raises:
        LifespanFailed: The app has cancelled it.
        BaseException: As `LoopHost.run`.
    """
    try:
        host.run(make, seconds)
    except BaseException as error:
        if not isinstance(error, concurrent.futures.CancelledError) and not is_cancellation(error):
            raise
        raise LifespanFailed(
            "The app's startup or shutdown was cancelled: the app cancels all tasks of its event loop, even those "
            "that it did not start. It may have left something open. Cancel only the app's own tasks."
        ) from error
