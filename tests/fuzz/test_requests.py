"""Whole requests through each bridge and through pairs of them: any app, any server, any cut, and the same few laws.

Whatever either side does: the request ends; what is raised is the app's or the server's own error, or a `BridgeError`;
the head is sent once at most, and nothing after the end; the body is what the app gave, from its beginning; an iterable
is closed once; nothing is left running.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from a2wsgi import ASGIMiddleware, BridgeError, WSGIMiddleware
from support.scripts import (
    ASGIScript,
    Body,
    Log,
    Outcome,
    Request,
    Start,
    WSGIScript,
    asgi_app,
    asgi_scripts,
    on_asgi_server,
    on_wsgi_server,
    requests,
    wsgi_app,
    wsgi_scripts,
)

# A hang is bounded by the driver, again and again while a smaller example is looked for.
pytestmark = [
    pytest.mark.timeout(600),
]
patient = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

sizes = st.sampled_from([0, 1, 100, 65_536])


@pytest.fixture(autouse=True)
def _unheard() -> Iterator[None]:
    """Log into nothing: pytest keeps records to a test's end, and their tracebacks would keep every bridge."""
    loggers = [logging.getLogger(name) for name in ("a2wsgi", "asyncio")]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.propagate = False
    nothing = logging.NullHandler()
    for logger in loggers:
        logger.addHandler(nothing)
    yield
    for logger, propagate in zip(loggers, before, strict=True):
        logger.removeHandler(nothing)
        logger.propagate = propagate


def bridge_to_asgi(app: Any, size: int) -> tuple[Callable[..., Awaitable[Any]], Callable[[], list[str]]]:
    """A WSGI app on ASGI; and what it says is still going on."""
    bridge = WSGIMiddleware(app, workers=2, request_buffer_bytes=size, response_buffer_bytes=size)

    def leftovers() -> list[str]:
        now = bridge.statistics()
        return [repr(now)] if now.busy or now.queued or now.in_flight else []

    return bridge, leftovers


def bridge_to_wsgi(
    app: Any, size: int, log: Log, *, inline: bool, lifespan: bool = False
) -> tuple[ASGIMiddleware, Callable[[], list[str]]]:
    """An ASGI app on WSGI; and the tasks of its loop."""
    bridge = ASGIMiddleware(
        app, wait_time=0.02, inline=inline, lifespan=lifespan, response_buffer_bytes=size, grace_timeout=0.02
    )

    def leftovers() -> list[str]:
        if inline or log.loop is None:  # the loop runs only in requests
            return []
        try:
            return [repr(task) for task in asyncio.all_tasks(log.loop)]
        except RuntimeError:  # the set changed while it was read
            return ["asyncio.all_tasks() changes"]

    return bridge, leftovers


def hold(outcome: Outcome, log: Log, request: Request) -> None:
    """Hold what came out against the laws. Then take the errors' tracebacks off: each holds its bridge."""
    errors = [outcome.error, *outcome.errors, *log.raised]
    try:
        _hold(outcome, log, request)
    finally:
        for error in errors:
            if error is not None:
                error.__traceback__ = error.__context__ = error.__cause__ = None
        outcome.error = None
        log.raised.clear()
        outcome.errors.clear()


def _hold(outcome: Outcome, log: Log, request: Request) -> None:
    assert not outcome.faults
    error = outcome.error
    own = [*log.raised, *outcome.errors]
    assert (
        error is None
        or isinstance(error, BridgeError)
        or any(error is one for one in own)
        # PEP 479: Python itself makes it of a StopIteration that leaves a coroutine.
        or (isinstance(error, RuntimeError) and any(error.__cause__ is one for one in own))
        or (isinstance(error, asyncio.CancelledError) and request.cancel_at is not None)
    ), f"raised: {type(error)}"
    given_by_app = b"".join(part for part in log.emitted if isinstance(part, bytes | bytearray))
    assert given_by_app.startswith(outcome.body), "bytes came out that the app did not give"
    assert log.closes == log.closable, "not closed once"
    assert log.calls <= 1
    assert request.body.startswith(b"".join(log.read)), "bytes came in that the client did not send"
    if request.method == "HEAD" or outcome.status in {204, 304}:
        assert outcome.body == b""
    elif outcome.complete and error is None and request.is_calm():
        lengths = [int(value) for name, value in outcome.headers if name.lower() == "content-length"]
        whole = given_by_app[: lengths[0]] if lengths else given_by_app
        assert outcome.body == whole
    if request.is_calm() and error is None:
        assert outcome.complete, "the response neither ended nor failed"


@given(wsgi_scripts, requests, sizes)
@patient
def test_wsgi_app_on_asgi_keeps_the_laws(script: WSGIScript, request: Request, size: int) -> None:
    """A WSGI app on an ASGI server."""
    log = Log()
    outcome = on_asgi_server(lambda: bridge_to_asgi(wsgi_app(script, log), size), request)
    hold(outcome, log, request)


@pytest.mark.parametrize("inline", [False, True], ids=["threaded", "inline"])
@given(script=asgi_scripts, request_=requests, size=sizes)
@patient
def test_asgi_app_on_wsgi_keeps_the_laws(script: ASGIScript, request_: Request, size: int, inline: bool) -> None:
    """An ASGI app on a WSGI server."""
    log = Log()
    bridges: list[ASGIMiddleware] = []

    def make() -> tuple[Callable[..., Iterable[bytes]], Callable[[], list[str]]]:
        bridge, leftovers = bridge_to_wsgi(asgi_app(script, log), size, log, inline=inline)
        bridges.append(bridge)
        return bridge, leftovers

    outcome = on_wsgi_server(make, request_)
    bridges[0].close()
    hold(outcome, log, request_)


@given(asgi_scripts, requests, sizes, st.booleans())
@patient
def test_asgi_app_in_a_pair_keeps_the_laws(script: ASGIScript, request: Request, size: int, inline: bool) -> None:
    """An ASGI app on WSGI, on an ASGI server."""
    log = Log()

    bridges: list[ASGIMiddleware] = []

    def make() -> tuple[Callable[..., Awaitable[Any]], Callable[[], list[str]]]:
        inner, left_inside = bridge_to_wsgi(asgi_app(script, log), size, log, inline=inline)
        bridges.append(inner)
        outer, left_outside = bridge_to_asgi(inner, size)
        return outer, lambda: left_inside() + left_outside()

    outcome = on_asgi_server(make, request)
    bridges[0].close()
    hold(outcome, log, request)


@given(wsgi_scripts, requests, sizes)
@patient
def test_wsgi_app_in_a_pair_keeps_the_laws(script: WSGIScript, request: Request, size: int) -> None:
    """A WSGI app on ASGI, on a WSGI server."""
    log = Log()
    bridges: list[ASGIMiddleware] = []

    def make() -> tuple[Callable[..., Iterable[bytes]], Callable[[], list[str]]]:
        inner, left_inside = bridge_to_asgi(wsgi_app(script, log), size)
        outer, left_outside = bridge_to_wsgi(inner, size, log, inline=False, lifespan=True)
        bridges.append(outer)
        return outer, lambda: left_inside() + left_outside()

    outcome = on_wsgi_server(make, request)
    bridges[0].close()
    hold(outcome, log, request)


def test_laws_find_a_lost_byte() -> None:
    """A body with a byte too few, one too many, or another is found out."""
    log = Log(emitted=[b"ab"])
    for body in (b"a", b"abc", b"ax"):
        outcome = Outcome(200, [], [body], complete=True)
        with pytest.raises(AssertionError):
            hold(outcome, log, Request())
    hold(Outcome(200, [], [b"ab"], complete=True), log, Request())


def test_good_scripts_come_out_whole() -> None:
    """What is drawn includes responses that arrive: the laws are not held against failures alone."""
    log = Log()
    script = WSGIScript((Start(),), "iterator", (Body(b"a"), Body(b"b")))
    outcome = on_asgi_server(lambda: bridge_to_asgi(wsgi_app(script, log), 0), Request())
    hold(outcome, log, Request())
    assert (outcome.status, outcome.body, outcome.complete) == (200, b"ab", True)
