"""What one request to an ASGI app has come to: three small machines, and the table of what the app's end means.

Threading: only the loop thread changes the state of a request. What the server thread may conclude from a look at it,
`Request` says.

*What the app has sent* (`Sent`)

==============  =============================================================  ==============
now             the app sends, or what happens                                 next
==============  =============================================================  ==============
``WAITING``     ``http.response.start``, and nothing limits the body           ``OPEN_ENDED``
``WAITING``     the same with a ``Content-Length``, or without a body          ``COUNTED``
``OPEN_ENDED``  the last ``http.response.body``; no trailers were announced    ``COMPLETE``
``COUNTED``     the same                                                       ``COMPLETE``
either          the last ``http.response.body``; trailers were announced       ``TRAILERS``
either          ``http.response.pathsend``                                     ``OPENING``
``OPENING``     the server thread has opened the file                          ``COMPLETE``
``OPENING``     it could not, or the app has ended by then                     as before
``TRAILERS``    the last ``http.response.trailers``                            ``COMPLETE``
``COUNTED``     no end of a bodiless response within ``grace_timeout``         ``COMPLETE``
``TRAILERS``    the same                                                       ``COMPLETE``
==============  =============================================================  ==============

Once the app has ended, nothing makes its response complete: the last message of a task that it has left behind is
ignored.

*Who still takes it* (`Taker`)

============  ==========================================================================  ============
now           what happens                                                                next
============  ==========================================================================  ============
``READING``   the server closes a response that is not complete, the client is lost, the  ``GONE``
              bridge is closed, an outer bridge aborts, or a bodiless response is cut
``READING``   the server leaves a complete response and waits for its app no longer, or   ``DETACHED``
              leaves any response whose app has ended
``DETACHED``  that response was not complete: a task that the app has left may still send  ``GONE``
============  ==========================================================================  ============

*Whether the app runs* (`AppState`)

===========  ========================================================  ===========
now          what happens                                              next
===========  ========================================================  ===========
``NEW``      the loop starts the app's task                            ``RUNNING``
``NEW``      the bridge is closed by then, or nobody waits any longer  ``ENDED``
``RUNNING``  the app returns or raises, or its task cannot be made     ``ENDED``
===========  ========================================================  ===========

*What the app's end means* (`outcome`): the first row that fits

============  ============  ==============================  ======================================================
sent          taker         the app                         outcome
============  ============  ==============================  ======================================================
any           ``GONE``      returned                        ``FINE``
any           ``GONE``      raised, or was cancelled        ``UNHEARD``: logged at DEBUG
``COMPLETE``  any           returned, or was cancelled      ``FINE``
``COMPLETE``  ``READING``   raised                          ``RAISED``: raised by ``close()`` of the response
``COMPLETE``  ``DETACHED``  raised                          ``DETACHED``: logged at ERROR
other         any           raised, or was cancelled        ``RAISED``: raised to the server
other         any           returned; the body broke off    ``BROKE_OFF``: a `ClientDisconnected` to the server
``WAITING``   any           returned                        ``NO_RESPONSE``: an `AppProtocolError` to the server
other         any           returned                        ``UNFINISHED``: an `AppProtocolError` to the server
============  ============  ==============================  ======================================================
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from . import faults

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable


class Sent(enum.Enum):
    """What the app has sent of its response. See the table above."""

    WAITING = enum.auto()
    OPEN_ENDED = enum.auto()
    COUNTED = enum.auto()
    TRAILERS = enum.auto()
    OPENING = enum.auto()
    COMPLETE = enum.auto()


class Taker(enum.Enum):
    """Who still takes the response, and hears of a failure. See the table above."""

    READING = enum.auto()
    GONE = enum.auto()
    DETACHED = enum.auto()


class AppState(enum.Enum):
    """Whether the app runs. See the table above."""

    NEW = enum.auto()
    RUNNING = enum.auto()
    ENDED = enum.auto()


# Fast path: up to Python 3.11, looking a member up in its class runs a descriptor written in Python.
WAITING: Final = Sent.WAITING
OPEN_ENDED: Final = Sent.OPEN_ENDED
COUNTED: Final = Sent.COUNTED
TRAILERS: Final = Sent.TRAILERS
OPENING: Final = Sent.OPENING
COMPLETE: Final = Sent.COMPLETE
READING: Final = Taker.READING
GONE: Final = Taker.GONE
DETACHED: Final = Taker.DETACHED
NEW: Final = AppState.NEW
RUNNING: Final = AppState.RUNNING
ENDED: Final = AppState.ENDED


class Outcome(enum.Enum):
    """What the app's end means. See the table above.

    Attributes:
        is_failure: Somebody has to be told of an error: the server thread raises it, or it is logged at ERROR.
        fault: Makes that error; None if it is the app's own.
    """

    FINE = ("fine", False)
    UNHEARD = ("unheard", False)
    RAISED = ("raised", True)
    DETACHED = ("detached", True)
    BROKE_OFF = ("broke off", True, faults.body_broke_off)
    NO_RESPONSE = ("no response", True, faults.no_response)
    UNFINISHED = ("unfinished", True, faults.unfinished)

    def __init__(self, _: str, is_failure: bool, fault: Callable[[], BaseException] | None = None) -> None:  # noqa: FBT001 - a column of the members above
        self.is_failure = is_failure
        self.fault = fault


class Failure(NamedTuple):
    """What the server thread is to raise, or the log to tell."""

    error: BaseException
    context: contextvars.Context
    """Where the app raised it: an error reporter remembers there what it has reported."""


def outcome(sent: Sent, taker: Taker, error: BaseException | None, *, body_broke_off: bool) -> Outcome:
    """The table of the module's docstring.

    Args:
        sent: What the app has sent by its end.
        taker: Who takes it then.
        error: What the app raised; None if it returned.
        body_broke_off: The app has received that the request's body ended early, or would receive it next.
    """
    returned = error is None
    if taker is GONE:
        return Outcome.FINE if returned else Outcome.UNHEARD
    if sent is COMPLETE:
        if error is None or faults.is_cancellation(error):
            return Outcome.FINE
        return Outcome.DETACHED if taker is DETACHED else Outcome.RAISED
    if not returned:
        return Outcome.RAISED
    if body_broke_off:
        return Outcome.BROKE_OFF  # an app that was told may just return
    return Outcome.NO_RESPONSE if sent is WAITING else Outcome.UNFINISHED
