"""The options of `ASGIMiddleware`: each is written here once, with its type, default, check and description.

To add one, add it below and to `ASGIMiddlewareOptions` in ``_types``, which a type checker reads.
"""

from __future__ import annotations

from typing import Any, Literal

from a2wsgi._options import FLAG, SECONDS, Check, Choice, Settings, option, whole

__all__ = ["ASGISettings"]


class _LoopCheck(Check):
    """Knows an event loop by the method that we call: it may be uvloop's, or one that somebody wrote."""

    __slots__ = ()

    def is_of_type(self, value: object) -> bool:
        """Whether it is a loop, or False: a2wsgi 1.10.10 took that for None, and programs pass it."""
        return value is False or callable(getattr(value, "call_soon_threadsafe", None))


_LOOP = _LoopCheck("an event loop", ())
_PING_SECONDS = Check(f"a number of seconds from 0.1 to {SECONDS.most:,}", (int, float), 0.1, SECONDS.most)


class ASGISettings(Settings, bridge="ASGIMiddleware"):
    """The options of `ASGIMiddleware`."""

    wait_time: float | None = option(
        default=None,
        check=SECONDS,
        doc="Seconds that ``close()`` of the response waits for the app's background tasks before it cancels them. The"
        " client has its whole response by then. None waits until they end.",
    )
    loop: Any | None = option(  # an asyncio.AbstractEventLoop: any object may have these methods
        default=None,
        check=_LOOP,
        doc="The event loop to run the app on. It must run in another thread for as long as requests come. None uses "
        "the loop that all bridges of the process share, in a thread of its own.",
    )
    detach_background: bool = option(
        default=False,
        check=FLAG,
        doc="Do not wait for background tasks in ``close()``. They go on in the loop, for at most ``wait_time``.",
    )
    inline: bool = option(
        default=False,
        check=FLAG,
        doc="Run the event loop in the server's own thread while it waits for the response. That needs no other thread"
        " and is faster, but requests run one at a time, and nothing runs between them. Meant for servers that "
        "handle one request at a time: gunicorn's sync worker, uWSGI without threads.",
    )
    backend: Literal["asyncio", "trio"] = option(
        default="asyncio",
        check=Choice("asyncio", "trio"),
        doc='The library to run the app on: "asyncio" or "trio". All bridges of a process that run their apps on trio '
        "share one thread for it.",
    )
    lifespan: bool | None = option(
        default=None,
        check=FLAG,
        doc="Run the app's lifespan: startup before its first request in each process, shutdown when the process ends "
        "or you call `close`. None runs it unless you pass ``loop``.",
    )
    response_buffer_bytes: int = option(
        default=65_536,
        check=whole(0),
        doc="Bytes of a response to queue before the app's ``send()`` waits for the server. If the server is faster "
        "than the app, the buffer may grow to seven times its limit.",
    )
    app_timeout: float | None = option(
        default=None,
        check=SECONDS,
        doc="Seconds an app may take to begin its response. After that it is cancelled, and its client gets a 504. An "
        "app that blocks the loop is not noticed. None waits for ever.",
    )
    receive_timeout: float | None = option(
        default=60.0,
        check=SECONDS,
        doc="Seconds a client may send nothing of its body, while the app waits for it, before its request is aborted:"
        " the app's ``receive()`` then gives ``http.disconnect``. None waits for ever.",
    )
    grace_timeout: float = option(
        default=10.0,
        check=SECONDS,
        doc="Seconds an app may go on after the server has closed its response early, before it is cancelled.",
    )
    startup_timeout: float = option(
        default=60.0,
        check=SECONDS,
        doc="Seconds that the lifespan's startup may keep requests waiting.",
    )
    shutdown_timeout: float = option(
        default=10.0,
        check=SECONDS,
        doc="Seconds that `close` waits for running requests and background tasks, and then for the lifespan's "
        "shutdown.",
    )
    max_websockets: int | None = option(
        default=None,
        check=whole(0),
        doc="How many WebSockets may be open; any further one gets a 503. None sets no limit: a WebSocket only costs "
        "memory, unless the server ends TLS itself, when it holds a server thread. 0 refuses every one with a 403.",
    )
    websocket_max_message_bytes: int | None = option(
        default=16_777_216,
        check=whole(0),
        doc="The longest message that a client may send, in bytes; a longer one closes its WebSocket with 1009. None "
        "sets no limit.",
    )
    websocket_ping_interval: float | None = option(
        default=20.0,
        check=_PING_SECONDS,
        doc="Seconds of silence before a WebSocket's client is sent a ping. None sends no pings.",
    )
    websocket_ping_timeout: float | None = option(
        default=20.0,
        check=_PING_SECONDS,
        doc="Seconds the client may stay silent after a ping before its WebSocket is closed. None waits for ever.",
    )
    websocket_compression: bool = option(
        default=True,
        check=FLAG,
        doc="Compress messages (permessage-deflate) for clients that offer it.",
    )

    def __init__(self, /, **given: object) -> None:
        super().__init__(**given)
        self.loop = self.loop or None
        if self.inline and (self.loop is not None or self.detach_background):
            raise TypeError(
                "inline=True runs the loop only while a request waits for it: it can neither be a loop= that runs "
                "elsewhere, nor go on with detach_background. Leave out inline, or the other."
            )
        if self.backend == "trio" and self.inline:
            raise TypeError(
                'backend="trio" needs a thread of its own: trio can be run by steps, as inline=True runs a loop, only '
                "with another thread for each wait (its guest mode). Leave out inline, or backend."
            )
        if self.backend == "trio" and self.loop is not None:
            raise TypeError(
                'backend="trio" starts trio in a thread of its own: loop= is a loop of asyncio\'s, on which trio does '
                "not run. Leave out loop, or backend."
            )
