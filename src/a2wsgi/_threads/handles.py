"""What a `Runtime` gives to wait with, and to end what it has begun, as types. Nothing imports this as it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator


class Waiter(Protocol):
    """What one coroutine awaits until `wake` ends its wait. Loop thread."""

    def done(self) -> bool:
        """Whether the wait is over, or was cancelled."""
        raise NotImplementedError

    def set_result(self, result: None, /) -> None:
        """End the wait."""

    def __await__(self) -> Generator[Any, None, None]: ...


class Timer(Protocol):
    """What `Runtime.call_later` gives. Loop thread."""

    def cancel(self) -> None:
        """Have the function not be called, unless it was."""


class Task(Protocol):
    """What `Runtime.start_task` gives. Loop thread."""

    def done(self) -> bool:
        """Whether it has ended."""
        raise NotImplementedError

    def cancel(self) -> object:
        """End what it waits for. `Runtime.end_task` waits for its end, too."""


class Transport(Protocol):
    """What `Runtime.connect` gives: as much of asyncio's transports as the bridges use. Loop thread."""

    def write(self, data: bytes, /) -> None:
        """Write ``data``, without waiting."""

    def pause_reading(self) -> None:
        """Have the protocol get no more until `resume_reading`."""

    def resume_reading(self) -> None:
        """Have the protocol get data again."""

    def close(self) -> None:
        """Close the socket once all is written."""

    def abort(self) -> None:
        """Close the socket at once."""
