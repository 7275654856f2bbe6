"""How far a WebSocket's connection is. Loop thread."""

from __future__ import annotations

from enum import Enum, auto

__all__ = ["Phase"]


class Phase(Enum):
    """It goes from each to a later one only.

    ============  ================================================================================================
    `Phase`       meaning
    ============  ================================================================================================
    ``OPEN``      Messages go both ways.
    ``CLOSING``   Our Close is sent. The client's is awaited, and its messages are thrown away.
    ``ENDING``    Nothing more is read or said. What is written goes out, then the connection is closed.
    ``CLOSED``    The connection is gone.
    ============  ================================================================================================
    """

    OPEN = auto()
    CLOSING = auto()
    ENDING = auto()
    CLOSED = auto()
