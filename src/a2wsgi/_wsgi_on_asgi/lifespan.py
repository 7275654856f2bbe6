"""Answers a server's lifespan: bridges with ASGI apps further in start up and shut down with the server."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

from a2wsgi._errors import BridgeError, ServerProtocolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from a2wsgi._threads.runtime import Runtime
    from a2wsgi._types import Receive, Scope, Send


class Startable(Protocol):
    """A bridge whose app has a lifespan: an ASGI app on a WSGI server."""

    @property
    def state(self) -> Mapping[str, object]:
        """What its app put into the lifespan's state."""
        raise NotImplementedError

    def start(self) -> None:
        """Start its app up. Waits."""

    def stop(self) -> None:
        """Shut its app down. It may be started again. Waits."""

    def longest_stop(self) -> float:
        """How many seconds that takes at most."""
        raise NotImplementedError


async def answer_lifespan(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    runtime: Runtime,
    bridges: tuple[Startable, ...],
    shut_down: Callable[[], Awaitable[bool]],
) -> None:
    """Answer a server's lifespan, from its startup to its shutdown. Loop thread; the bridges wait in other threads.

    Between the two it waits for as long as the server serves. All else is bounded by the bridges' ``startup_timeout``
    and ``shutdown_timeout``, and by ``shut_down``.

    Args:
        scope: The server's, of the type ``lifespan``.
        receive: The server's.
        send: The server's.
        runtime: The loop.
        bridges: The bridges that start up and shut down with the server, the innermost first.
        shut_down: Ends the requests, before the bridges are stopped. False if another server goes on, with the bridges.

    Raises:
        Exception: What the app of a bridge raised. The server has been told that its lifespan failed.

    Cancellation: during a startup, the bridges that were started are stopped again.
    """
    while True:
        message = await receive()
        try:
            phase = message["type"]
        except (TypeError, LookupError):
            raise ServerProtocolError(
                "The server's receive() returned a message without a type in a lifespan scope. ASGI Lifespan 2.0 "
                'requires the "type" lifespan.startup or lifespan.shutdown. Fix the server, or the middleware that '
                "wraps receive()."
            ) from None
        try:
            if phase == "lifespan.startup":
                await _start_all(bridges, runtime)
                if "state" in scope:  # ASGI Lifespan 2.0, "Lifespan State": middleware around us may read it as well
                    for bridge in bridges:
                        scope["state"].update(bridge.state)
            elif phase == "lifespan.shutdown":
                if await shut_down():
                    await _stop_all(bridges, runtime)
            else:
                continue  # of a later version, or a server's own: nobody knows what to answer
        except BridgeError as error:  # LifespanFailed, or what else keeps a bridge from starting
            await send({"type": f"{phase}.failed", "message": str(error)})
            if isinstance(error.__cause__, Exception):
                raise error.__cause__  # noqa: B904 - the app's own error, as its own server would have got it
            return
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return


async def _start_all(bridges: Iterable[Startable], runtime: Runtime) -> None:
    """Start all of them in order, or none."""
    started: list[Startable] = []
    try:
        for bridge in bridges:
            started.append(bridge)  # before it starts: if that is cancelled, its thread still goes on
            await runtime.to_thread(bridge.start)
    except BaseException:
        with runtime.shielded(), contextlib.suppress(BridgeError):  # the first error is the one to report
            await _stop_all(started, runtime)
        raise


async def _stop_all(bridges: Sequence[Startable], runtime: Runtime) -> None:
    """Stop them, the last one first. Each is stopped, whatever another one raises."""
    errors: list[BridgeError] = []
    for bridge in reversed(bridges):
        try:
            await runtime.to_thread(bridge.stop)
        except BridgeError as error:
            errors.append(error)
    if errors:
        raise errors[0]
