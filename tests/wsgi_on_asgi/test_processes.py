"""``wsgi.multiprocess``: what the user says, else what the server knows, else true."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

import pytest

from a2wsgi import ASGIMiddleware, WSGIMiddleware
from a2wsgi._wsgi_on_asgi.processes import server_is_multiprocess
from a2wsgi.wsgi_typing import Environ, StartResponse
from support import asgi_driver, wsgi_driver


def said(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Answer with what the environ says."""
    start_response("200 OK", [])
    return [repr(environ["wsgi.multiprocess"]).encode()]


def answer_of(app: Any) -> bytes:
    """What that is, of an ASGI app, asked twice."""
    first, second = (asgi_driver.call(app).body for _ in range(2))
    assert first == second
    return first


def as_function_of(module: str, name: str) -> Callable[..., Any]:
    """A function that calls ``call()``, and looks as if it stood in a server: its first argument is its settings'."""

    def uvicorn_run(self: Any, call: Any) -> Any:
        return call()

    def hypercorn_worker(config: Any, call: Any) -> Any:
        return call()

    function: Any = hypercorn_worker if module.startswith("hypercorn") else uvicorn_run
    return FunctionType(function.__code__.replace(co_name=name), {"__name__": module})


def uvicorn(workers: int, call: Any, *, reload: bool = False) -> Any:
    """Call as uvicorn does."""
    server = SimpleNamespace(config=SimpleNamespace(workers=workers, should_reload=reload))
    return as_function_of("uvicorn.server", "run")(server, call)


def gunicorn(workers: int, call: Any) -> Any:
    """Call as gunicorn does."""
    arbiter = SimpleNamespace(cfg=SimpleNamespace(workers=workers))
    return as_function_of("gunicorn.arbiter", "spawn_worker")(arbiter, call)


def hypercorn(workers: int, call: Any) -> Any:
    """Call as hypercorn does."""
    worker = as_function_of("hypercorn.asyncio.run", "asyncio_worker")
    return worker(SimpleNamespace(workers=workers), call)


@pytest.mark.parametrize("server", [uvicorn, gunicorn, hypercorn])
@pytest.mark.parametrize(("workers", "several"), [(1, False), (2, True)])
def test_server_that_can_tell_is_asked(server: Any, workers: int, several: bool) -> None:
    """PEP 3333, "environ Variables"."""
    assert server(workers, lambda: answer_of(WSGIMiddleware(said))) == repr(several).encode()


def test_hypercorn_without_a_worker_is_one_process() -> None:
    """Its own process serves."""
    assert hypercorn(0, server_is_multiprocess) is False


def test_uvicorn_that_reloads_is_one_process() -> None:
    """It takes no notice of the number of workers."""
    assert uvicorn(4, lambda: uvicorn(4, server_is_multiprocess, reload=True), reload=True) is False


def test_gunicorn_is_believed_before_what_runs_in_its_worker() -> None:
    """A worker of uvicorn's knows of itself only."""
    assert gunicorn(2, lambda: uvicorn(1, server_is_multiprocess)) is True


def test_server_of_another_shape_is_not_known() -> None:
    """A later version may have other names."""
    run = as_function_of("uvicorn.server", "run")
    assert run(SimpleNamespace(), server_is_multiprocess) is None
    assert run(SimpleNamespace(), lambda: answer_of(WSGIMiddleware(said))) == b"True"


def test_unknown_server_may_have_several_processes() -> None:
    """An app that takes that for granted errs on the safe side."""
    assert server_is_multiprocess() is None
    assert answer_of(WSGIMiddleware(said)) == b"True"


@pytest.mark.parametrize("says", [True, False])
def test_user_has_the_last_word(says: bool) -> None:
    """Whatever the server is."""
    assert answer_of(WSGIMiddleware(said, multiprocess=says)) == repr(says).encode()
    for workers in (1, 2):
        assert uvicorn(workers, lambda: answer_of(WSGIMiddleware(said, multiprocess=says))) == repr(says).encode()


@pytest.mark.parametrize("says", [None, True, False])
@pytest.mark.parametrize("server", [True, False])
def test_wsgi_server_outside_is_believed_unless_the_user_says_it(says: bool | None, server: bool) -> None:
    """Between two bridges, too."""
    with contextlib.closing(ASGIMiddleware(WSGIMiddleware(said, multiprocess=says))) as bridge:
        response = wsgi_driver.call(bridge, wsgi_driver.environ_of(wsgi__multiprocess=server))
    assert response.body == repr(server if says is None else says).encode()
