"""Whether the server runs the app in several processes: what ``wsgi.multiprocess`` says.

*Facts*

- PEP 3333, "environ Variables": ``wsgi.multiprocess`` is true "if an equivalent application object may be
  simultaneously invoked by another process". Werkzeug's debugger has its console only where it is false.
- ASGI has no word for that, and an environment variable or a command line says only what somebody wanted. But a server
  calls its app out of a function that has its settings: it stands further down on the same stack.
- gunicorn forks its workers in ``Arbiter.spawn_worker``, whatever their class. So what it says comes before what a
  server says that runs inside of such a worker.
- uvicorn with ``--reload`` runs one worker, whatever ``--workers`` says.

Where none of them is found, nobody knows: a server may have its loop run by other means, or be another one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType


def _uvicorn(names: Mapping[str, Any]) -> bool:
    config = names["self"].config
    return bool(config.workers > 1 and not config.should_reload)


def _gunicorn(names: Mapping[str, Any]) -> bool:
    return bool(names["self"].cfg.workers > 1)


def _hypercorn(names: Mapping[str, Any]) -> bool:
    return bool(names["config"].workers > 1)


# By the module and the name of the function: how to ask, given its local variables.
_ASK: Mapping[tuple[object, str], Callable[[Mapping[str, Any]], bool]] = {
    ("uvicorn.server", "run"): _uvicorn,
    ("gunicorn.arbiter", "spawn_worker"): _gunicorn,
    ("hypercorn.asyncio.run", "asyncio_worker"): _hypercorn,
    ("hypercorn.asyncio.run", "uvloop_worker"): _hypercorn,
    ("hypercorn.trio.run", "trio_worker"): _hypercorn,
}


def server_is_multiprocess() -> bool | None:
    """Ask the server that has called, through whatever lies between. ``None`` if it cannot be asked.

    Threading: the loop thread, within a call of the server's.
    """
    answer = None
    # It is documented, and inspect's own way costs an import.
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        ask = _ASK.get((frame.f_globals.get("__name__"), frame.f_code.co_name))
        if ask is not None:
            try:
                answer = ask(frame.f_locals)
            except Exception:  # noqa: BLE001 - another version of the server has other names
                answer = None
        frame = frame.f_back
    return answer
