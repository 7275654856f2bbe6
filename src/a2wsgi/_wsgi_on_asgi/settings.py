"""The options of `WSGIMiddleware`: each is written here once, with its type, default, check and description.

To add one, add it below and to `WSGIMiddlewareOptions` in ``_types``, which a type checker reads.
"""

from __future__ import annotations

from a2wsgi._options import FLAG, SECONDS, TEXT, Settings, option, whole


class WSGISettings(Settings, bridge="WSGIMiddleware"):
    """The options of `WSGIMiddleware`."""

    workers: int | None = option(
        default=None,
        check=whole(1),
        doc="How many threads may run the app at the same time. None means the value of the environment variable "
        "``A2WSGI_WORKERS``, or 40 if it is not set. Threads start on demand and end after 10 s without work. With 1, "
        "the app always runs on the same thread, and ``wsgi.multithread`` is false.",
    )
    send_queue_size: int | None = option(
        default=None,
        check=whole(1),
        doc="How many chunks of a response may be queued, in addition to the limit in bytes. None means no limit.",
    )
    request_buffer_bytes: int = option(
        default=65_536,
        check=whole(0),
        doc="How many bytes of a request's body to read before the app starts, and to hold while the app does not read."
        " 0 starts the app at once.",
    )
    response_buffer_bytes: int = option(
        default=65_536,
        check=whole(0),
        doc="How many bytes of a response to queue before the app has to wait for the client. If the consumer is "
        "faster than the producer, this buffer and that of the request may each grow to seven times their limit.",
    )
    spool_request: bool = option(
        default=False,
        check=FLAG,
        doc="Read the whole body before the app starts, so that a slow upload never holds a worker. A body that "
        "exceeds the buffer goes to a temporary file.",
    )
    max_request_bytes: int | None = option(
        default=None,
        check=whole(0),
        doc="Maximum size of a request's body in bytes. A longer one gets a 413. None means no limit.",
    )
    max_queue: int | None = option(
        default=None,
        check=whole(0),
        doc="How many requests may wait for a worker. Any further one gets a 503. None means no limit; 0 means that no "
        "request ever waits.",
    )
    max_websockets: int | None = option(
        default=None,
        check=whole(0),
        doc="How many WebSockets may be open at the same time. Any further one is refused with a 503. Each has a "
        "thread of its own, in addition to ``workers``. 0 refuses all of them with a 403. None means 100, or 0 with "
        "``workers=1``, because an app written for one thread would run on several.",
    )
    app_timeout: float | None = option(
        default=None,
        check=SECONDS,
        doc="Seconds the app may take to begin its response. After that the client gets a 504, the app's next read or "
        "write raises `AppTimeout`, and the stack of its thread is logged. Until the app returns, another thread takes "
        "the place of that one, for up to ``workers`` threads. None waits forever.",
    )
    send_timeout: float | None = option(
        default=300.0,
        check=SECONDS,
        doc="Seconds a client may go without reading before its request is aborted. None waits forever.",
    )
    receive_timeout: float | None = option(
        default=60.0,
        check=SECONDS,
        doc="Seconds to wait for the client to send more of its body before the request is aborted. The app's read "
        "then raises `ClientDisconnected`, and the client gets a 408 if no response has begun. None waits forever.",
    )
    shutdown_timeout: float = option(
        default=30.0,
        check=SECONDS,
        doc="Seconds to wait for running requests when the server shuts down.",
    )
    script_name: str | None = option(
        default=None,
        check=TEXT,
        doc="The prefix under which the app is mounted, as a decoded path. None means the server's ``root_path`` or, "
        "if that is empty, the environment variable ``SCRIPT_NAME`` of the process.",
    )
    multiprocess: bool | None = option(
        default=None,
        check=FLAG,
        doc="The value of ``wsgi.multiprocess``: whether other processes run the app too. None asks the server on "
        "gunicorn, hypercorn and uvicorn, and means True on any other.",
    )
    ignore_disconnect: bool = option(
        default=False,
        check=FLAG,
        doc="Run the app to its end even if the client has left. Some servers report a client as gone when it has only "
        "closed its sending side.",
    )
    allow_underscores: bool = option(
        default=False,
        check=FLAG,
        doc="Keep request headers with an underscore in their name. Unless your proxy drops them, a client can then "
        "forge the header of the same name with a hyphen.",
    )
