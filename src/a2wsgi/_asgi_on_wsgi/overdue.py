"""What the log says of an app that has not begun its response within ``app_timeout``."""

from __future__ import annotations

import traceback
from types import FrameType
from typing import TYPE_CHECKING, Any

from a2wsgi._log import logger

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from a2wsgi._types import Scope

#: What a coroutine, a generator and an asynchronous generator call their frame, and what they wait for.
_NAMES = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))

#: How many frames are shown: as many as Python shows of a recursion that has no end.
MOST_FRAMES = 1000


def describe(scope: Scope, running: Coroutine[Any, Any, Any], seconds: float) -> str:
    """Which request it is, and where its app waits at this moment. The query may hold secrets, and is left out.

    Args:
        scope: The request's.
        running: What awaits the app.
        seconds: The timeout.
    """
    return (
        f"{scope.get('method')} {scope.get('path')!r} has not begun its response within app_timeout={seconds:g} s. "
        f"It is cancelled where it waits:\n{_stack(running)}"
    )


def _stack(awaited: object) -> str:
    """Where a coroutine waits, through all that it awaits, but for its own frame, which is ours."""
    frames: list[tuple[FrameType, int]] = []
    try:
        while len(frames) < MOST_FRAMES and (found := _frame_of(awaited)) is not None:
            frame, awaited = found
            frames.append((frame, frame.f_lineno))
    except Exception:  # noqa: BLE001 - what an app awaits may be an object of its own
        logger.debug("The coroutines of an app could not be examined", exc_info=True)
    try:
        return "".join(traceback.StackSummary.extract(iter(frames[1:])).format()).rstrip("\n")
    except Exception:  # noqa: BLE001 - a module's loader, which finds the lines, may be the user's
        logger.debug("The stack of an app could not be read", exc_info=True)
        return "  (unknown)"


def _frame_of(awaited: object) -> tuple[FrameType, object] | None:
    """The frame of what is awaited, and what that awaits; None of a future: what it waits for is not known."""
    for frame_name, awaits_name in _NAMES:
        frame = getattr(awaited, frame_name, None)
        if isinstance(frame, FrameType):  # a mock has any attribute
            return frame, getattr(awaited, awaits_name, None)
    return None
