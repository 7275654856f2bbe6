"""Runs a WSGI app on a server that has no command line: ``python -m interop.serve server module:app port``."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
from typing import Any


def load(name: str) -> Any:
    """What ``module:name`` stands for."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def serve_wsgiref(name: str, port: int) -> None:
    """The standard library's, one request at a time, with its validator on."""
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
    from wsgiref.validate import validator

    class Backlog(WSGIServer):
        request_queue_size = 128  # of 5, connections that come at once are dropped

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as its parent calls it
            pass

    server = make_server("127.0.0.1", port, validator(load(name)), Backlog, Quiet)
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


def serve_werkzeug(name: str, port: int) -> None:
    """Werkzeug's, for development, with a thread for each connection."""
    from werkzeug.serving import make_server

    make_server("127.0.0.1", port, load(name), threaded=True).serve_forever()


def serve_gevent(name: str, port: int) -> None:
    """Gevent's pywsgi, monkey-patched and ended as its documentation does it."""
    from gevent import monkey

    monkey.patch_all()
    import gevent
    from gevent.pool import Pool
    from gevent.pywsgi import WSGIServer

    server = WSGIServer(("127.0.0.1", port), load(name), log=None, spawn=Pool())  # without one, stop() waits for nobody
    server.stop_timeout = 10
    gevent.signal_handler(signal.SIGTERM, server.stop)
    server.serve_forever()


if __name__ == "__main__":
    SERVE = {"wsgiref": serve_wsgiref, "werkzeug": serve_werkzeug, "gevent": serve_gevent}
    SERVE[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
