"""ASGI Lifespan 2.0, the app's side, as a server sees `WSGIMiddleware`."""

from __future__ import annotations

from typing import Any

import pytest

from apps import hello
from support.asgi_driver import Client, answer, call, run
from support.bridges import Bridged
from support.runtimes import JobCancelled, start

pytestmark = pytest.mark.usefixtures("runtime")

SCOPE: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}


@pytest.mark.parametrize("scope", [SCOPE, {"type": "lifespan"}, {"type": "lifespan", "asgi": {"version": "3.0"}}])
def test_scope_may_lack_all_but_its_type(bridged: Bridged, scope: dict[str, Any]) -> None:
    """ASGI Lifespan 2.0, "Scope": state and versions are optional."""
    response = call(bridged(hello.app), Client(messages=[STARTUP, SHUTDOWN]), dict(scope))
    assert response.messages == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


def test_state_is_left_alone(bridged: Bridged) -> None:
    """ASGI Lifespan 2.0, "Lifespan State": what the server or a middleware put there stays as it is."""
    state = {"x": object()}
    before = dict(state)
    call(bridged(hello.app), Client(messages=[STARTUP, SHUTDOWN]), {**SCOPE, "state": state})
    assert state == before


def test_startup_is_complete_at_once_and_the_app_stays(bridged: Bridged) -> None:
    """ASGI Lifespan 2.0, "Startup Complete": it is sent once, and the call lasts until the shutdown."""

    async def main() -> None:
        server = Client(messages=[STARTUP])
        task = start(answer(bridged(hello.app), server, dict(SCOPE)))
        await server.hungry.wait_in_task()
        assert server.sent == [{"type": "lifespan.startup.complete"}]
        assert not task.done()
        server.say(SHUTDOWN)
        assert (await task).messages[1:] == [{"type": "lifespan.shutdown.complete"}]

    run(main())


def test_shutdown_is_complete_and_the_app_returns(bridged: Bridged) -> None:
    """ASGI Lifespan 2.0, "Shutdown Complete": nothing is received after it."""
    server = Client(messages=[STARTUP, SHUTDOWN])
    call(bridged(hello.app), server, dict(SCOPE))
    assert (server.receives, server.sends) == (2, 2)


def test_requests_are_served_without_a_lifespan(bridged: Bridged) -> None:
    """ASGI Lifespan 2.0, "Scope": a server that does not know it sends none."""
    assert call(bridged(hello.app)).body == b"hello"


def test_cancelled_lifespan_ends(bridged: Bridged) -> None:
    """ASGI, "Error Handling": a server may cancel the task in place of a shutdown."""

    async def main() -> None:
        server = Client(messages=[STARTUP])
        task = start(answer(bridged(hello.app), server, dict(SCOPE)))
        await server.hungry.wait_in_task()
        task.cancel()
        with pytest.raises(JobCancelled):
            await task

    run(main())
