"""Who may call a request's ``receive()``, and who hears of what it brings."""

from __future__ import annotations

import enum
from typing import Protocol


class Listener(Protocol):
    """The request, which is told of what ends it."""

    def client_left(self, reason: str) -> None: ...

    def body_too_large(self, limit: int) -> None: ...

    def receive_raised(self, error: Exception) -> None: ...


class Receiving(enum.Enum):
    """Who may call ``receive()``, and what comes next.

    ============  ============================================  =====================================================
    AHEAD         the request's own task                        IDLE when it has read ahead; ON_DEMAND before it began
    ON_DEMAND     nobody: the client waits for "100 Continue"   TASK when the app reads; IDLE when the response begins
    IDLE          nobody, but the timer may start the task      TASK, also for the rest of a body, or when the app reads
    TASK          the receiver's task                           IDLE if the body ends too short, or is ended once more
    DISCONNECTED  nobody: ``http.disconnect`` came              CLOSED with the last message of the response
    CLOSED        nobody: the response is complete, or the      nothing
                  server has nothing more to say
    ============  ============================================  =====================================================

    All but CLOSED become DISCONNECTED with ``http.disconnect``, and CLOSED with the last message of the response.
    """

    AHEAD = enum.auto()
    ON_DEMAND = enum.auto()
    IDLE = enum.auto()
    TASK = enum.auto()
    DISCONNECTED = enum.auto()
    CLOSED = enum.auto()
