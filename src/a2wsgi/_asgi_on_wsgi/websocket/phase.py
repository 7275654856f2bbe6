"""How far a WebSocket is: its handshake (`Stage`), and its connection (`Phase`). Loop thread."""

from __future__ import annotations

from enum import Enum, auto


class Stage(Enum):
    """What the app has done.

    ==============  ================================================================================================
    `Stage`         meaning
    ==============  ================================================================================================
    ``CONNECTING``  It has not answered.
    ``ACCEPTING``   It has accepted, and waits until an endpoint has answered the handshake.
    ``OPEN``        The endpoint is there, and knows how far the connection is.
    ``DENYING``     It answers with an HTTP response.
    ``OVER``        It has refused, or the client left before its answer.
    ==============  ================================================================================================
    """

    CONNECTING = auto()
    ACCEPTING = auto()
    OPEN = auto()
    DENYING = auto()
    OVER = auto()


class Phase(Enum):
    """It goes from each to a later one only.

    ============  ================================================================================================
    `Phase`       meaning
    ============  ================================================================================================
    ``OPEN``      Messages go both ways.
    ``CLOSING``   Our Close is sent. The client's is awaited, and its messages are thrown away.
    ``ENDING``    Nothing more is read or said. What is written goes out, then the connection is closed.
    ``CLOSED``    The connection is gone. What the client sent before that may still be received.
    ============  ================================================================================================
    """

    OPEN = auto()
    CLOSING = auto()
    ENDING = auto()
    CLOSED = auto()
