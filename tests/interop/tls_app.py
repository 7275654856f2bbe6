"""What servers with TLS serve: apps that answer with what they are told of it.

``python -m interop.tls_app server app port directory`` serves one on a server that has no command line for TLS.
"""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from a2wsgi import ASGIMiddleware, WSGIMiddleware


async def told(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the extension."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    tls = scope["extensions"].get("tls")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(tls).encode()})


def said(environ: Any, start_response: Any) -> Iterable[bytes]:
    """Answer with the variables."""
    start_response("200 OK", [("Content-Type", "application/json")])
    keys = {key: str(value) for key, value in environ.items() if key.startswith(("SSL", "HTTPS"))}
    return [json.dumps(keys).encode()]


bridge = ASGIMiddleware(told)
pair = ASGIMiddleware(WSGIMiddleware(said))


def application(environ: Any, start_response: Any) -> Iterable[bytes]:
    """A bridge, a pair of bridges, or no bridge at all, by the path."""
    apps: dict[str, Any] = {"/bridge": bridge, "/pair": pair}
    return apps.get(environ["PATH_INFO"], said)(environ, start_response)  # type: ignore[no-any-return]


def _cheroot(port: int, directory: Path) -> None:
    from cheroot.ssl.builtin import BuiltinSSLAdapter
    from cheroot.wsgi import Server

    server = Server(("127.0.0.1", port), application)
    paths = [str(directory / name) for name in ("server.pem", "server.key", "authority.pem")]
    server.ssl_adapter = adapter = BuiltinSSLAdapter(*paths)
    adapter.context.load_verify_locations(directory / "authority.pem")
    adapter.context.verify_mode = ssl.CERT_OPTIONAL
    server.start()


def _werkzeug(port: int, directory: Path) -> None:
    from werkzeug.serving import make_server

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=directory / "authority.pem")
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    make_server("127.0.0.1", port, application, threaded=True, ssl_context=context).serve_forever()


if __name__ == "__main__":
    {"cheroot": _cheroot, "werkzeug": _werkzeug}[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))
