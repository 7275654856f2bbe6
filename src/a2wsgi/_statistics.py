"""What each bridge counts. Loaded when a program asks for it: making a dataclass takes a millisecond."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Statistics:
    """What a `WSGIMiddleware` is doing, and what it has counted since it was created."""

    workers: int
    """Worker threads that exist."""
    busy: int
    """Worker threads that are running a request."""
    queued: int
    """Requests that are waiting for a worker."""
    in_flight: int
    """Requests that are not completely answered yet, and open WebSockets."""
    shed: int
    """Requests answered 503 because ``max_queue`` others were waiting, and WebSockets refused because
    ``max_websockets`` were open. Counted since the bridge was created."""
    disconnected: int
    """Requests whose client left before the response was complete. Counted since the bridge was created."""
    stalled: int
    """Requests aborted because the client read nothing for ``send_timeout``, or sent nothing for ``receive_timeout``.
    Counted since the bridge was created."""
    websockets: int = 0
    """WebSockets that are open."""
    timed_out: int = 0
    """Requests whose app did not begin its response within ``app_timeout``. Counted since the bridge was created."""
    overdue: int = 0
    """Worker threads that still run such a request. Up to ``workers`` of them do not count towards that limit."""


@dataclass(frozen=True)
class ASGIStatistics:
    """What an `ASGIMiddleware` is doing, and what it has counted so far in this process."""

    in_flight: int
    """Requests whose app has not sent its whole response yet."""
    queued: int
    """Those among them whose app has not started, because they are waiting for the event loop."""
    background: int
    """Requests whose app has sent its whole response and is still running (background tasks)."""
    disconnected: int
    """Requests whose client left before the response was complete, or in the middle of the request's body."""
    stalled: int
    """Requests aborted because the client sent nothing of its body for ``receive_timeout``."""
    started: bool
    """Whether the app has started up on an event loop."""
    websockets: int = 0
    """WebSockets that are open. ``in_flight`` includes them."""
    timed_out: int = 0
    """Requests whose app was cancelled because it did not begin its response within ``app_timeout``."""
