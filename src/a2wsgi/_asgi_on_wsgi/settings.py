"""The options of `ASGIMiddleware`: each is written here once, with its type, default, check and description.

To add one, add it below and to `ASGIMiddlewareOptions` in ``_types``, which a type checker reads.
"""

from __future__ import annotations

from typing import Any, Literal

from a2wsgi._options import FLAG, SECONDS, Check, Choice, Settings, option, whole


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
        doc="Seconds to wait for the app's background tasks before they are cancelled. ``close()`` of the response "
        "waits for them; the client has its whole response by then. None waits until they end.",
    )
    loop: Any | None = option(  # an asyncio.AbstractEventLoop: any object may have these methods
        default=None,
        check=_LOOP,
        doc="The event loop to run the app on. It must run in another thread for as long as requests come. None means "
        "the loop that all bridges of the process share, which has a thread of its own.",
    )
    detach_background: bool = option(
        default=False,
        check=FLAG,
        doc="Do not wait for background tasks in ``close()``. They continue on the loop, for at most ``wait_time``.",
    )
    inline: bool = option(
        default=False,
        check=FLAG,
        doc="Run the event loop in the server's own thread while it waits for the response. This needs no other thread"
        " and is faster, but requests run one at a time, and nothing runs between them. Use it with servers that "
        "handle one request at a time: gunicorn's sync worker, uWSGI without threads.",
    )
    backend: Literal["asyncio", "trio"] = option(
        default="asyncio",
        check=Choice("asyncio", "trio"),
        doc='The async library to run the app on: "asyncio" or "trio". All bridges of a process that use trio share '
        "one thread.",
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
        doc="How many bytes of a response to queue before the app's ``send()`` has to wait for the server. If the "
        "server is faster than the app, the buffer may grow to seven times its limit.",
    )
    app_timeout: float | None = option(
        default=None,
        check=SECONDS,
        doc="Seconds the app may take to begin its response. After that it is cancelled, and the client gets a 504. An "
        "app that blocks the loop is not noticed. None waits forever.",
    )
    receive_timeout: float | None = option(
        default=60.0,
        check=SECONDS,
        doc="Seconds to wait for the client to send more of its body before the request is aborted. The app's "
        "``receive()`` then returns ``http.disconnect``. None waits forever.",
    )
    grace_timeout: float = option(
        default=10.0,
        check=SECONDS,
        doc="Seconds the app may go on after the server has closed the response early, before it is cancelled.",
    )
    startup_timeout: float = option(
        default=60.0,
        check=SECONDS,
        doc="Seconds the app's startup may take. Requests wait for it.",
    )
    shutdown_timeout: float = option(
        default=10.0,
        check=SECONDS,
        doc="Seconds that `close` waits for running requests and background tasks, and then again for the app's "
        "shutdown.",
    )
    max_websockets: int | None = option(
        default=None,
        check=whole(0),
        doc="How many WebSockets may be open at the same time. Any further one gets a 503. 0 refuses all of them with "
        "a 403. None means no limit: a WebSocket only costs memory, except that it holds a server thread if the server "
        "terminates TLS itself.",
    )
    websocket_max_message_bytes: int | None = option(
        default=16_777_216,
        check=whole(0),
        doc="Maximum size of a message from a client in bytes. A longer one closes the WebSocket with 1009. None means "
        "no limit.",
    )
    websocket_ping_interval: float | None = option(
        default=20.0,
        check=_PING_SECONDS,
        doc="Seconds of silence from a WebSocket's client before it is sent a ping. None sends no pings.",
    )
    websocket_ping_timeout: float | None = option(
        default=20.0,
        check=_PING_SECONDS,
        doc="Seconds to wait for anything from the client after a ping before the WebSocket is closed. None waits "
        "forever.",
    )
    websocket_compression: bool = option(
        default=True,
        check=FLAG,
        doc="Compress messages if the client offers it (permessage-deflate).",
    )

    def __init__(self, /, **given: object) -> None:
        super().__init__(**given)
        self.loop = self.loop or None
        if self.inline and (self.loop is not None or self.detach_background):
            raise TypeError(
                "inline=True cannot be combined with loop= or detach_background: it runs its own event loop, and only "
                "while a request waits for it. Leave out inline, or the other option."
            )
        if self.backend == "trio" and self.inline:
            raise TypeError(
                'backend="trio" cannot be combined with inline=True: without a thread of its own, trio would need '
                "another thread for each wait (its guest mode). Leave out inline, or backend."
            )
        if self.backend == "trio" and self.loop is not None:
            raise TypeError(
                'backend="trio" cannot be combined with loop=: that is an asyncio event loop, and trio does not run on '
                "one. Leave out loop, or backend."
            )
