"""Runs a WSGI app on a server without a command line: ``… serve_websockets server module:app port [certificate key]``.

Each is as its documentation has it, with a keep-alive of a second where it can be told.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(name: str) -> Any:
    """What ``module:name`` stands for."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def serve_wsgiref(name: str, port: int, *_: str) -> None:
    """The standard library's: one request at a time."""
    from wsgiref.simple_server import WSGIServer, make_server

    class Backlog(WSGIServer):
        request_queue_size = 128

    with make_server("127.0.0.1", port, load(name), Backlog) as server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


def serve_werkzeug(name: str, port: int, *files: str) -> None:
    """Werkzeug's, for development."""
    from werkzeug.serving import run_simple

    run_simple("127.0.0.1", port, load(name), threaded=True, ssl_context=files or None)  # type: ignore[arg-type]


def serve_pywsgi(name: str, port: int, *files: str) -> None:
    """Gevent's, monkey-patched."""
    from gevent import monkey

    monkey.patch_all()
    serve_pywsgi_unpatched(name, port, *files)


def serve_pywsgi_unpatched(name: str, port: int, *files: str) -> None:
    """Gevent's, where nothing is patched: while an app's response is waited for, nothing else is served."""
    import gevent
    from gevent.pywsgi import WSGIServer

    tls = dict(zip(("certfile", "keyfile"), files, strict=False))
    server = WSGIServer(("127.0.0.1", port), load(name), **tls)
    gevent.signal_handler(signal.SIGTERM, server.stop)
    server.serve_forever()


def serve_cheroot(name: str, port: int, *files: str) -> None:
    """CherryPy's."""
    from cheroot.ssl.builtin import BuiltinSSLAdapter
    from cheroot.wsgi import Server

    server = Server(("127.0.0.1", port), load(name), numthreads=4, timeout=1)
    if files:
        server.ssl_adapter = BuiltinSSLAdapter(*files)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server.start()
    finally:
        server.stop()


def serve_tornado(name: str, port: int, *_: str) -> None:
    """Tornado's, which does not show its sockets."""
    from tornado.httpserver import HTTPServer
    from tornado.ioloop import IOLoop
    from tornado.wsgi import WSGIContainer

    HTTPServer(WSGIContainer(load(name))).listen(port, "127.0.0.1")
    IOLoop.current().start()


def serve_eventlet(name: str, port: int, *_: str) -> None:
    """Eventlet's, monkey-patched."""
    os.environ["EVENTLET_NO_GREENDNS"] = "yes"  # else it patches its dnspython, and by it trio, which it is not fit for
    import eventlet  # pyright: ignore[reportMissingImports]  # has an environment of its own

    eventlet.monkey_patch()
    serve_eventlet_unpatched(name, port)


def serve_eventlet_unpatched(name: str, port: int, *_: str) -> None:
    """Eventlet's, where nothing is patched."""
    os.environ["EVENTLET_NO_GREENDNS"] = "yes"
    import eventlet  # pyright: ignore[reportMissingImports]  # the same
    from eventlet import wsgi  # pyright: ignore[reportMissingImports]  # the same

    app = load(name)
    wsgi.server(eventlet.listen(("127.0.0.1", port)), app, keepalive=True)


def serve_behind_nginx(name: str, port: int, directory: str, *command: str) -> None:
    """Run nginx, as ``docs/websockets.md`` has it, in front of a server that listens on a Unix socket."""
    at = f"{directory}/server.sock"
    server = subprocess.Popen([part.format(socket=at, app=name) for part in command])
    speaks_uwsgi = "pyuwsgi" in command[0]
    page = Path(__file__).resolve().parents[2] / "docs" / "websockets.md"
    shown = re.search(r"^```nginx\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert shown is not None
    assert "listen 80;" in shown[1]
    text = shown[1].replace("listen 80;", f"listen 127.0.0.1:{port};")
    if speaks_uwsgi:
        proxied = re.search(r"proxy_pass .*proxy_read_timeout", text, re.DOTALL)
        assert proxied is not None
        own = f"include /etc/nginx/uwsgi_params; uwsgi_pass unix:{at}; uwsgi_read_timeout"
        text = text.replace(proxied[0], own)
    else:
        text = text.replace("http://127.0.0.1:8000", f"http://unix:{at}")
    configuration = Path(directory, "nginx.conf")
    temporary = "".join(
        f"{what}_temp_path {directory}/{what};\n" for what in ("client_body", "proxy", "uwsgi", "fastcgi", "scgi")
    )
    configuration.write_text(
        f"daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off;\n{temporary}{text}}}\n"
    )
    while server.poll() is None and not _listens(at):  # else nginx answers in its place: who started us waits no longer
        time.sleep(0.05)
    nginx = subprocess.Popen(["nginx", "-p", directory, "-c", str(configuration), "-e", "stderr"])

    def stop(*_: object) -> None:
        nginx.terminate()
        server.terminate()

    signal.signal(signal.SIGTERM, stop)
    server.wait()
    nginx.wait()


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


if __name__ == "__main__":
    SERVE: dict[str, Callable[..., None]] = {
        "wsgiref": serve_wsgiref,
        "werkzeug": serve_werkzeug,
        "pywsgi": serve_pywsgi,
        "pywsgi-unpatched": serve_pywsgi_unpatched,
        "cheroot": serve_cheroot,
        "tornado": serve_tornado,
        "nginx": serve_behind_nginx,
        "eventlet": serve_eventlet,
        "eventlet-unpatched": serve_eventlet_unpatched,
    }
    SERVE[sys.argv[1]](sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
