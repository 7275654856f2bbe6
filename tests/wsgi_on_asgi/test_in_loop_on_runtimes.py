"""`run_in_loop` on asyncio, uvloop and trio: the coroutine runs on the loop of the server, in that library's words."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest

from a2wsgi import ClientDisconnected, WSGIMiddleware, async_to_sync, run_in_loop
from a2wsgi.wsgi_typing import Environ, StartResponse
from support.asgi_driver import Client, answer, run
from support.lockstep import Signal
from support.runtimes import CANCELLATIONS, for_ever, rest, start

pytestmark = pytest.mark.usefixtures("runtime", "quick_timer")


async def where() -> threading.Thread:
    """The thread that runs it."""
    await rest()
    return threading.current_thread()


async def wait_for_ever(begun: Signal, ends: list[object]) -> None:
    """Wait until it is cancelled, and tell."""
    begun.set()
    try:
        await for_ever()
    except CANCELLATIONS as error:
        ends.append(type(error))
        raise


def test_coroutine_runs_on_the_servers_loop() -> None:
    """Its thread is the server's; what it raises comes back, whatever it is."""
    threads: list[threading.Thread] = []
    kinds: list[object] = []

    async def fail(error: BaseException) -> None:
        await rest()
        raise error

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        threads.extend([run_in_loop(where()), async_to_sync(where)()])
        for error in (ValueError(), SystemExit(), KeyboardInterrupt()):
            with pytest.raises(type(error)) as raised:
                run_in_loop(fail(error))
            kinds.append(raised.value is error)
        start_response("200 OK", [])
        return [b"done"]

    async def main() -> None:
        assert (await answer(WSGIMiddleware(app))).body == b"done"
        assert threads == [threading.current_thread()] * 2

    run(main())
    assert kinds == [True] * 3


def test_timeout_and_leaving_cancel_the_coroutine() -> None:
    """By the library's own cancellation; the caller gets the reason."""
    begun = Signal("the second coroutine begins")
    ends: list[object] = []
    seen: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with pytest.raises(TimeoutError):
            run_in_loop(wait_for_ever(Signal(), ends), timeout=0.05)
        with pytest.raises(ClientDisconnected):
            run_in_loop(wait_for_ever(begun, ends))
        seen.append(run_in_loop(where()))
        start_response("200 OK", [])
        return [b"to nobody"]

    async def main() -> None:
        client = Client()
        job = start(answer(WSGIMiddleware(app), client))
        await begun.wait_in_task()
        client.leave()
        await job
        assert seen == [threading.current_thread()]

    run(main())
    assert len(ends) in {1, 2}  # the first may have been cancelled before its first step
