"""The table of what an app's end means: each row, without a thread or a loop."""

from __future__ import annotations

import asyncio
import itertools
import re

import pytest

from a2wsgi import AppProtocolError, ClientDisconnected
from a2wsgi._asgi_on_wsgi import outcome as module
from a2wsgi._asgi_on_wsgi.outcome import AppState, Outcome, Sent, Taker, outcome

ENDS = {"returned": None, "raised": ValueError("the app's"), "was cancelled": asyncio.CancelledError()}

#: From the top down, the first that fits counts: what the app has sent, who takes it, how it ended, whether its body
#: broke off. None fits anything.
TABLE: list[tuple[set[Sent] | None, set[Taker] | None, set[str] | None, bool | None, Outcome]] = [
    (None, {Taker.GONE}, {"returned"}, None, Outcome.FINE),
    (None, {Taker.GONE}, None, None, Outcome.UNHEARD),
    ({Sent.COMPLETE}, None, {"returned", "was cancelled"}, None, Outcome.FINE),
    ({Sent.COMPLETE}, {Taker.READING}, {"raised"}, None, Outcome.RAISED),
    ({Sent.COMPLETE}, {Taker.DETACHED}, {"raised"}, None, Outcome.DETACHED),
    (None, None, {"raised", "was cancelled"}, None, Outcome.RAISED),
    (None, None, {"returned"}, True, Outcome.BROKE_OFF),
    ({Sent.WAITING}, None, {"returned"}, None, Outcome.NO_RESPONSE),
    (None, None, {"returned"}, None, Outcome.UNFINISHED),
]


def fits(cell: object, fact: object) -> bool:
    """Whether a cell of the table fits."""
    return cell is None or (fact in cell if isinstance(cell, set) else fact == cell)


@pytest.mark.parametrize(
    ("sent", "taker", "end", "broke_off"), list(itertools.product(Sent, Taker, ENDS, [False, True]))
)
def test_outcome_is_that_of_the_first_row_that_fits(sent: Sent, taker: Taker, end: str, broke_off: bool) -> None:
    """Every combination, also those that no request comes to, has the outcome that the table says."""
    facts = sent, taker, end, broke_off
    wanted = next(row[-1] for row in TABLE if all(map(fits, row, facts)))
    assert outcome(sent, taker, ENDS[end], body_broke_off=broke_off) is wanted


def test_each_row_of_the_table_is_reached() -> None:
    """No outcome is dead, and none is missing from the table."""
    assert {wanted for *_, wanted in TABLE} == set(Outcome)


@pytest.mark.parametrize(
    ("member", "is_failure", "error"),
    [
        (Outcome.FINE, False, None),
        (Outcome.UNHEARD, False, None),
        (Outcome.RAISED, True, None),
        (Outcome.DETACHED, True, None),
        (Outcome.BROKE_OFF, True, ClientDisconnected),
        (Outcome.NO_RESPONSE, True, AppProtocolError),
        (Outcome.UNFINISHED, True, AppProtocolError),
    ],
)
def test_outcome_carries_its_fault(member: Outcome, is_failure: bool, error: type[BaseException] | None) -> None:
    """What is told, and whether it is the app's own error, is data of the outcome."""
    assert member.is_failure is is_failure
    assert (None if member.fault is None else type(member.fault())) is error


@pytest.mark.parametrize("machine", [Sent, Taker, AppState])
def test_tables_of_the_docstring_name_each_state(machine: type[Sent | Taker | AppState]) -> None:
    """A state that is added has its row, and a row has its state."""
    assert module.__doc__ is not None
    text = module.__doc__.partition(f"(`{machine.__name__}`)")[2].partition("\n*")[0]
    words = set(re.findall(r"``([A-Z_]+)``", text))
    assert words == {state.name for state in machine}
