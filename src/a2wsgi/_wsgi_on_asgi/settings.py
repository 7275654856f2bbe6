"""The options of `WSGIMiddleware`: each is written here once, with its type, default, check and description.

To add one, add it below and to `WSGIMiddlewareOptions` in ``_types``, which a type checker reads.
"""

from __future__ import annotations

from a2wsgi._options import FLAG, SECONDS, TEXT, Settings, option, whole

__all__ = ["WSGISettings"]


class WSGISettings(Settings, bridge="WSGIMiddleware"):
    """The options of `WSGIMiddleware`."""

    workers: int | None = option(
        default=None,
        check=whole(1),
        doc="How many threads may run the app at the same time. None uses the environment variable ``A2WSGI_WORKERS``,"
        " or 40. Threads start on demand and end after 10 s without work. With 1 it is always the same thread, and"
        " ``wsgi.multithread`` is false.",
    )
    send_queue_size: int | None = option(
        default=None,
        check=whole(1),
        doc="How many chunks of a response may be queued, besides the limit in bytes. None sets no limit.",
    )
    request_buffer_bytes: int = option(
        default=65_536,
        check=whole(0),
        doc="Bytes of a request's body to read before a worker is taken, and to hold while the app does not read. 0 "
        "starts the app at once.",
    )
    response_buffer_bytes: int = option(
        default=65_536,
        check=whole(0),
        doc="Bytes of a response to queue before the app waits for the client. If the consumer is faster than the "
        "producer, either buffer may grow to seven times its limit.",
    )
    spool_request: bool = option(
        default=False,
        check=FLAG,
        doc="Read the whole body before the app starts, so that a slow upload never holds a worker. What exceeds the "
        "buffer goes to a temporary file.",
    )
    max_request_bytes: int | None = option(
        default=None,
        check=whole(0),
        doc="The longest body of a request, in bytes; a longer one gets a 413. None sets no limit.",
    )
    max_queue: int | None = option(
        default=None,
        check=whole(0),
        doc="How many requests may wait for a worker; any further one gets a 503. None sets no limit; with 0 no "
        "request ever waits.",
    )
    max_websockets: int | None = option(
        default=None,
        check=whole(0),
        doc="How many WebSockets may be open at the same time; any further one is refused with a 503. Each has a "
        "thread of its own, besides ``workers``. 0 refuses every one with a 403. None means 100, or 0 with "
        "``workers=1``, since an app that is made for one thread would run on several.",
    )
    app_timeout: float | None = option(
        default=None,
        check=SECONDS,
        doc="Seconds an app may take to begin its response. After that its client gets a 504, the app's next read or "
        "write raises `AppTimeout`, and the log has the stack of its thread. Until that thread comes back, another"
        " one takes its place, up to ``workers`` of them. None waits for ever.",
    )
    send_timeout: float | None = option(
        default=300.0,
        check=SECONDS,
        doc="Seconds a client may go without reading before its request is aborted. None waits for ever.",
    )
    receive_timeout: float | None = option(
        default=60.0,
        check=SECONDS,
        doc="Seconds a client may send nothing of its body, while the app waits for it, before its request is aborted:"
        " the app's read then raises `ClientDisconnected`, and the client gets a 408 if no response has begun. "
        "None waits for ever.",
    )
    shutdown_timeout: float = option(
        default=30.0,
        check=SECONDS,
        doc="Seconds that the server's shutdown waits for running requests.",
    )
    script_name: str | None = option(
        default=None,
        check=TEXT,
        doc="The prefix under which the app is mounted, as a decoded path. None uses the server's ``root_path`` or, "
        "if that is empty, the process's environment variable ``SCRIPT_NAME``.",
    )
    multiprocess: bool | None = option(
        default=None,
        check=FLAG,
        doc="What ``wsgi.multiprocess`` says: whether other processes run the app too. None asks the server if it is "
        "gunicorn, hypercorn or uvicorn, and says True on any other.",
    )
    ignore_disconnect: bool = option(
        default=False,
        check=FLAG,
        doc="Run the app to its end even if the client has left. Some servers report a client that only closed its "
        "sending side as gone.",
    )
    allow_underscores: bool = option(
        default=False,
        check=FLAG,
        doc="Keep request headers whose name has an underscore. Unless your proxy drops them, a client can then forge "
        "the header that has a hyphen in its place.",
    )
