"""Whether the server has begun to stop, for a thread of the server's that is held for a WebSocket; or has no other one.

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


def has_one_thread() -> bool:
    """Whether no other thread of the calling thread's server answers requests, though its environ says so."""
    try:
        return _has_one_thread()
    except Exception:  # noqa: BLE001 - as above
        logger.debug("Looking for the server's threads failed", exc_info=True)
        return False


def _has_one_thread() -> bool:
    """Both gunicorn's gthread worker and cheroot say ``wsgi.multithread`` with a pool of one thread, too."""
    worker, server = _worker_of_gunicorn(), _server_of_cheroot()
    if worker is not None:
        gthread: Any = sys.modules.get("gunicorn.workers.gthread")
        return gthread is not None and isinstance(worker, gthread.ThreadWorker) and worker.cfg.threads == 1
    return server is not None and max(server.requests.min, len(server.requests._threads)) == 1  # noqa: SLF001 - no other way


def _of_gunicorn() -> Callable[[], bool] | None:
    """``alive`` is False from SIGTERM or ``max_requests`` on."""
    worker = _worker_of_gunicorn()
    return None if worker is None else lambda: not getattr(worker, "alive", True)


def _of_cheroot() -> Callable[[], bool] | None:
    """``ready`` is False as soon as it is told to stop."""
    server = _server_of_cheroot()
    return None if server is None else lambda: not getattr(server, "ready", True)


def _worker_of_gunicorn() -> Any:  # noqa: ANN401 - of a package without types
    """A worker of any class. It is found by its handler of SIGTERM. An app that has set one of its own hides it."""
    base: Any = sys.modules.get("gunicorn.workers.base")
    worker: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return worker if base is not None and isinstance(worker, base.Worker) else None


def _server_of_cheroot() -> Any:  # noqa: ANN401 - as above
    """The server whose thread this is."""
    pool: Any = sys.modules.get("cheroot.workers.threadpool")
    thread: Any = threading.current_thread()
    return thread.server if pool is not None and isinstance(thread, pool.WorkerThread) else None
