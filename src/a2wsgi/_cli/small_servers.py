"""A command line for servers that have none of their own, or one that lacks TLS: cheroot, gevent and Werkzeug.

``python -m a2wsgi._cli.small_servers --server=NAME [options] module:app``. `servers` writes it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pkgutil
import signal
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGINT, or SIGTERM, which `served` makes the same."""
    parser = argparse.ArgumentParser("a2wsgi._cli.small_servers")
    parser.add_argument("--server", choices=_RUN, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--uds")
    parser.add_argument("--fd", type=int)
    parser.add_argument("--threads", type=int, default=10)
    parser.add_argument("--certfile")
    parser.add_argument("--keyfile")
    parser.add_argument("--access-log", action="store_true")
    parser.add_argument("--reload", action="store_true")
    parser.add_argument("app")
    options = parser.parse_args(arguments)
    if options.server == "gevent":  # before anything imports what it patches
        import_monkey().patch_all()
    with contextlib.suppress(KeyboardInterrupt):
        _RUN[options.server](pkgutil.resolve_name(options.app), options)


def import_monkey() -> Any:  # noqa: ANN401 - gevent has no types
    """Gevent's patches of the standard library."""
    from gevent import monkey  # noqa: PLC0415 - needed here only

    return monkey


def _cheroot(app: Any, options: argparse.Namespace) -> None:  # noqa: ANN401 - as the server takes it
    from cheroot import wsgi  # noqa: PLC0415 - it may not be installed
    from cheroot.ssl.builtin import BuiltinSSLAdapter  # noqa: PLC0415 - as above

    server: Any = wsgi.Server(options.uds or (options.host, options.port), app, numthreads=options.threads)
    if options.certfile:
        server.ssl_adapter = BuiltinSSLAdapter(options.certfile, options.keyfile)
    server.safe_start()


def _gevent(app: Any, options: argparse.Namespace) -> None:  # noqa: ANN401 - as the server takes it
    import gevent  # noqa: PLC0415 - it may not be installed
    from gevent.pool import Pool  # noqa: PLC0415 - as above
    from gevent.pywsgi import WSGIServer  # noqa: PLC0415 - as above

    keys = {"certfile": options.certfile, "keyfile": options.keyfile or options.certfile} if options.certfile else {}
    # Without a pool, stop() waits for no request.
    server: Any = WSGIServer(
        _listener(options), app, log="default" if options.access_log else None, spawn=Pool(), **keys
    )
    server.stop_timeout = 10
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, server.stop)
    server.serve_forever()


def _werkzeug(app: Any, options: argparse.Namespace) -> None:  # noqa: ANN401 - as the server takes it
    from werkzeug import serving  # noqa: PLC0415 - it may not be installed

    class Handler(serving.WSGIRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            if options.access_log:
                super().log_request(code, size)

    context = (options.certfile, options.keyfile or options.certfile) if options.certfile else None
    host = f"unix://{options.uds}" if options.uds else options.host
    if options.reload:
        serving.run_simple(
            host, options.port, app, threaded=True, use_reloader=True, request_handler=Handler, ssl_context=context
        )
        return
    server = serving.make_server(
        host, options.port, app, threaded=True, request_handler=Handler, ssl_context=context, fd=options.fd
    )
    server.log_startup()
    try:
        server.serve_forever()
    finally:
        if options.uds:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(options.uds)  # noqa: PTH108 - as the server made it


def _listener(options: argparse.Namespace) -> socket.socket:
    """A socket that listens."""
    if options.fd is not None:
        return socket.socket(fileno=options.fd)
    if options.uds is None:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        return socket.create_server((options.host, options.port), family=family, backlog=256)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(options.uds)  # noqa: PTH108 - what a dead server left
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(options.uds)
    listener.listen(256)
    return listener


_RUN = {"cheroot": _cheroot, "gevent": _gevent, "werkzeug": _werkzeug}

if __name__ == "__main__":
    main()
