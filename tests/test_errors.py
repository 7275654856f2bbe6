"""The errors as objects: they can be copied, and sent to another process."""

from __future__ import annotations

import copy
import errno
import pickle
from collections.abc import Callable

import pytest

from a2wsgi import (
    AppProtocolError,
    AppTimeout,
    BridgeError,
    ClientDisconnected,
    InvalidHeader,
    RequestTooLarge,
    WebSocketClosed,
)

ERRORS = [
    AppProtocolError("it broke ASGI"),
    AppTimeout(2.5),
    ClientDisconnected("the server sent http.disconnect"),
    InvalidHeader("The header is wrong", "RFC 9110 §5.5"),
    RequestTooLarge(5),
    WebSocketClosed(4000, "bye"),
]


def pickled(error: BridgeError) -> BridgeError:
    """What another process gets."""
    other: BridgeError = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    return other


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickled])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_copy_of_an_error_is_like_it(error: BridgeError, again: Callable[[BridgeError], BridgeError]) -> None:
    """With its text and all of its attributes, as task queues and pools of processes pass it on."""
    other = again(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)
    assert getattr(other, "errno", None) == (errno.ECONNRESET if isinstance(error, OSError) else None)
