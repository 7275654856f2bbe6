"""``environ["a2wsgi.disconnected"]``, by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from a2wsgi import ClientDisconnected
from a2wsgi._threads.call import GRACE_SECONDS
from a2wsgi._threads.runtime import runtime_of
from a2wsgi._wsgi_on_asgi import disconnected as _disconnected
from a2wsgi._wsgi_on_asgi.disconnected import AbortReason, Disconnected
from support.lockstep import BOUND_SECONDS, Signal
from support.threads import in_thread


def test_disconnected_shows_an_app_two_methods() -> None:
    """What the bridges say to it is not for the app, which could end its own request by it."""
    assert [name for name in dir(Disconnected()) if not name.startswith("_")] == ["is_set", "wait"]


def test_disconnected_is_set_and_shows_it() -> None:
    """It says whether the client has left, to `is_set`, to `wait` and to whoever prints it."""
    disconnected = Disconnected()
    assert not disconnected.is_set()
    assert repr(disconnected) == "<Disconnected unset>"
    assert disconnected.wait(0) is False
    assert disconnected.wait(-1) is False
    disconnected._set()
    assert disconnected.is_set()
    assert disconnected.wait() is True
    assert repr(disconnected) == "<Disconnected set>"


@pytest.mark.parametrize(("ending", "happened"), [(Disconnected._set, True), (Disconnected._finish, False)])
@pytest.mark.parametrize("timeout", [None, 10 * BOUND_SECONDS])
def test_disconnected_wakes_every_waiting_thread(
    ending: Callable[[Disconnected], None], happened: bool, timeout: float | None
) -> None:
    """Several threads wait; a client that leaves, or the end of the request, ends each wait with the truth."""
    all_wait = Signal("three threads wait")

    class Gates(list[threading.Lock]):
        def append(self, gate: threading.Lock) -> None:
            super().append(gate)
            if len(self) == 3:
                all_wait.set()

    disconnected = Disconnected()
    disconnected._gates = Gates()
    threads = [in_thread(disconnected.wait, timeout) for _ in range(3)]
    all_wait.wait()
    ending(disconnected)
    assert [thread.result() for thread in threads] == [happened] * 3
    assert disconnected.wait() is happened


def test_disconnected_after_the_request_waits_for_nothing() -> None:
    """A thread that outlives its request is not held; a client that leaves then has still left."""
    disconnected = Disconnected()
    disconnected._finish()
    disconnected._finish()
    assert disconnected.wait() is False
    disconnected._set()
    assert disconnected.wait() is True


def test_wait_ends_with_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that is closed, or that a fork has left behind, opens no gate."""
    monkeypatch.setattr(_disconnected, "LOOK_SECONDS", 0.001)
    loop = asyncio.new_event_loop()
    disconnected = Disconnected(runtime_of(loop))
    waiting = in_thread(disconnected.wait)
    while not disconnected._gates:
        pass
    loop.close()
    assert waiting.result() is True
    assert disconnected.is_set()


def test_disconnected_keeps_nothing_of_waits_that_timed_out() -> None:
    """An app that polls for the whole of a long request grows no list."""
    disconnected = Disconnected()
    for _ in range(100):
        assert disconnected.wait(0) is False
    assert disconnected._gates == []


# -- Whoever is to be told of an abort --------------------------------------------------------------------------------


def gone() -> AbortReason:
    """An abort."""
    return AbortReason(lambda: ClientDisconnected("it left"))


def known() -> AbortReason:
    """An abort that the app knows of: it has closed its WebSocket."""
    return AbortReason(lambda: ClientDisconnected("it was closed"), told=True)


def entered(end: Callable[[BaseException], object]) -> Disconnected:
    """A request in which ``end`` has been entered."""
    disconnected = Disconnected()
    disconnected._runtime = cast("Any", object())
    assert disconnected._enter(end) is not None
    return disconnected


def test_nothing_can_be_entered_into_a_request_that_is_over() -> None:
    """It would never be told, and would keep the request."""
    disconnected = Disconnected()
    disconnected._finish()
    assert disconnected._enter(print) is None
    assert disconnected._on_abort == []


@pytest.mark.parametrize("raises", [True, False])
def test_abort_counts_as_heard_when_a_call_raises_it(raises: bool) -> None:
    """A call that has its result already raises no abort; so the next one does. What comes then is a clean-up."""
    disconnected = Disconnected()
    disconnected._runtime = cast("Any", object())
    given: list[BaseException] = []
    leave = disconnected._enter(given.append)
    assert leave is not None
    disconnected._end_calls(gone())
    (error,) = given
    leave(error if raises else ValueError("the coroutine's own"))
    if not raises:
        with pytest.raises(ClientDisconnected):
            disconnected._enter(print)
    assert disconnected._enter(print) is not None


def test_callback_that_fails_keeps_no_other_from_the_abort(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; each gets an error of its own."""

    def fails(error: BaseException) -> None:
        raise LookupError("of a callback")

    told: list[BaseException] = []
    disconnected = entered(told.append)
    disconnected._enter(fails)
    disconnected._enter(told.append)
    disconnected._end_calls(gone())
    assert [str(error) for error in told] == [str(ClientDisconnected("it left"))] * 2
    assert told[0] is not told[1]
    (record,) = caplog.records
    assert record.getMessage() == "A callback for an aborted request failed"


def test_abort_ends_no_call_that_began_after_its_first_step() -> None:
    """A thread that was told may begin a call, to clean up. It is not among those that the abort ends."""
    told: list[BaseException] = []
    error = gone()
    disconnected = entered(told.append)
    disconnected._end_calls(error)
    assert len(told) == 1
    error.told = True  # by a read that fails
    assert disconnected._enter(told.append) is not None
    disconnected._abort(error)
    assert len(told) == 1
    disconnected._finish()
    assert len(told) == 2
    assert disconnected._on_abort == []


class Later:
    """A runtime that leaves to the test what it is to call later."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], object]]] = []

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        self.due.append((seconds, function))


def test_calls_of_an_app_that_knows_end_after_a_while() -> None:
    """The app may wait for one of them. Those that have left until then, or that began later, are left alone."""
    stays, leaves, comes = list[BaseException](), list[BaseException](), list[BaseException]()
    runtime, disconnected = Later(), entered(stays.append)
    disconnected._runtime = cast("Any", runtime)
    leave = disconnected._enter(leaves.append)
    assert leave is not None
    disconnected._end_calls(known())
    assert disconnected._enter(comes.append) is not None
    leave(None)
    assert stays == []
    ((seconds, end),) = runtime.due
    assert seconds == GRACE_SECONDS
    end()
    assert [type(error) for error in stays] == [ClientDisconnected]
    assert leaves == comes == []
    disconnected._finish()
    assert len(stays) == len(comes) == 1


def test_abort_that_the_app_knows_sets_no_timer_if_there_is_no_call() -> None:
    """It would keep what a bridge further in has left here, and with that the request."""
    runtime, disconnected = Later(), Disconnected()
    disconnected._runtime = cast("Any", runtime)
    disconnected._join(cast("Any", object()), print)
    disconnected._end_calls(known())
    assert runtime.due == []


def test_abort_that_the_app_knows_is_none_of_a_closed_loop() -> None:
    """A call finds out by itself that its loop was closed, and the abort has more to end."""
    loop = asyncio.new_event_loop()
    disconnected = entered(print)
    disconnected._runtime = runtime_of(loop)
    loop.close()
    disconnected._end_calls(known())


def test_callback_that_another_thread_has_taken_is_called_once() -> None:
    """1. There is one. 2. Another thread takes it. 3. So there is none to take."""

    class Raced(list[Any]):
        def copy(self) -> Any:
            found = super().copy()
            self.clear()
            return found

    told: list[BaseException] = []
    disconnected = entered(told.append)
    disconnected._on_abort = Raced(disconnected._on_abort)
    disconnected._end_calls(gone())
    assert told == []
    assert disconnected._on_abort == []
