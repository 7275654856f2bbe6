"""Whether the server has begun to stop, for a thread of the server's that is held for a WebSocket.

A server that stops waits for its threads first, and for each of them as long as it gives any request. Then gunicorn's
master kills the worker, and cheroot shuts the connections. The hooks at the end of the process come too late for a
WebSocket that holds a thread. So its thread looks from time to time, and the WebSocket is closed at once.

Werkzeug's server and gevent's pywsgi do not wait for their threads: there the hooks come in time.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from a2wsgi._log import logger

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["stop_of_server"]


def stop_of_server() -> Callable[[], bool] | None:
    """Return what tells whether the calling thread's server has begun to stop; None where nothing tells that."""
    for find in (_of_gunicorn, _of_cheroot):
        try:
            found = find()
            if found is not None:
                return found
        except Exception:  # noqa: BLE001 - private parts of servers, which change: then it is as if there were none
            logger.debug("Looking for the server's state failed", exc_info=True)
    return None


def _of_gunicorn() -> Callable[[], bool] | None:
    """A worker of any class: ``alive`` is False from SIGTERM or ``max_requests`` on.

    It is found by its handler of SIGTERM. An app that has set one of its own hides it.
    """
    base: Any = sys.modules.get("gunicorn.workers.base")
    worker: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if base is None or not isinstance(worker, base.Worker):
        return None
    return lambda: not getattr(worker, "alive", True)


def _of_cheroot() -> Callable[[], bool] | None:
    """A server whose thread this is: ``ready`` is False as soon as it is told to stop."""
    pool: Any = sys.modules.get("cheroot.workers.threadpool")
    thread: Any = threading.current_thread()
    if pool is None or not isinstance(thread, pool.WorkerThread):
        return None
    server = thread.server
    return lambda: not getattr(server, "ready", True)
