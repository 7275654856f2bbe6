"""What is put around an app where a server has no option for it: a prefix, and the headers of a proxy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def mounted(app: Callable[..., Iterable[bytes]], prefix: str) -> Callable[..., Iterable[bytes]]:
    """A WSGI app under a prefix, whether the proxy in front takes that off or leaves it on."""
    prefix = prefix.rstrip("/")

    def mounted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401 - PEP 3333 has its type
        path = environ.get("PATH_INFO", "")
        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME") or prefix
        if path == prefix or path.startswith(f"{prefix}/"):
            environ["PATH_INFO"] = path[len(prefix) :]
        return app(environ, start_response)

    return mounted


def behind_proxy(app: Any, server: str, trusted: str) -> Any:  # noqa: ANN401 - any app
    """An app that is told the client's address and the scheme by the server's own middleware, if it needs one."""
    if server == "werkzeug":
        fix = import_module("werkzeug.middleware.proxy_fix").ProxyFix
        return fix(app, x_for=1, x_proto=1, x_host=1)
    if server == "granian":
        from a2wsgi._interface import interface_of  # noqa: PLC0415 - few need it

        proxies = import_module("granian.utils.proxies")
        kind = "wsgi" if interface_of(app) == "wsgi" else "asgi"
        hosts = [host.strip() for host in trusted.split(",")]
        return getattr(proxies, f"wrap_{kind}_with_proxy_headers")(app, trusted_hosts=hosts)
    return app
