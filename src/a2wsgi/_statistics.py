"""What each bridge counts. Loaded when a program asks for it: making a dataclass takes a millisecond."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ASGIStatistics", "Statistics"]


@dataclass(frozen=True)
class Statistics:
    """What a bridge is doing, and what has happened since it was made."""

    workers: int
    """Worker threads."""
    busy: int
    """Worker threads that run a request."""
    queued: int
    """Requests that wait for a worker."""
    in_flight: int
    """Requests that the server has handed over and that are not yet answered in full, and open WebSockets."""
    shed: int
    """Requests answered 503 because ``max_queue`` others were waiting, and WebSockets refused because
    ``max_websockets`` were open, since the bridge was made."""
    disconnected: int
    """Requests whose client left before its answer was complete, since the bridge was made."""
    stalled: int
    """Requests aborted because the client took nothing for ``send_timeout``, or sent nothing for ``receive_timeout``,
    since the bridge was made."""
    websockets: int = 0
    """WebSockets that are open."""
    timed_out: int = 0
    """Requests whose app had not begun its response within ``app_timeout``, since the bridge was made."""
    overdue: int = 0
    """Worker threads that still run such a request. Up to as many as ``workers`` allows do not count towards it."""


@dataclass(frozen=True)
class ASGIStatistics:
    """What an `ASGIMiddleware` is doing at the moment, and what it has met so far in this process."""

    in_flight: int
    """Requests that a server thread has handed over, and whose app has not sent its whole response yet."""
    queued: int
    """Those of them whose app has not started: they wait for the event loop."""
    background: int
    """Requests whose app has sent its whole response and is still running: background tasks."""
    disconnected: int
    """Requests whose client left before the response was complete, or in the middle of the request's body."""
    stalled: int
    """Requests that were aborted because the client sent nothing of its body for ``receive_timeout``."""
    started: bool
    """Whether the app is started up on an event loop."""
    websockets: int = 0
    """WebSockets that are open; they are in flight, too."""
    timed_out: int = 0
    """Requests whose app was cancelled because it had not begun its response within ``app_timeout``."""
