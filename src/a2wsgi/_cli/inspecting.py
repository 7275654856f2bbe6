"""What ``a2wsgi inspect`` tells: what an app is, and what a server needs to run it."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any, Final

from a2wsgi._front.asgi_middleware import ASGIMiddleware
from a2wsgi._front.wsgi_middleware import WSGIMiddleware
from a2wsgi._interface import detect, interface_of

from .command import conversion, server_name
from .errors import ServerNotStarted
from .loading import converted
from .servers import DEFAULTS, SERVERS
from .websockets import paths_of, why_missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from a2wsgi._interface import Interface

    from .loading import Target

WORDS: Final[Mapping[Interface, str]] = {"wsgi": "WSGI", "asgi3": "ASGI", "asgi2": "ASGI 2"}
_CONVERTERS: Final = {"asgi3": "to_asgi", "wsgi": "to_wsgi"}


def report_of(name: str, target: Target, app: Any, wanted: str | None) -> dict[str, Any]:  # noqa: ANN401 - any app
    """All that there is to tell of an app on a server, which need not be installed."""
    try:
        server_named = server_name(wanted)
    except ServerNotStarted:  # we can still say what it would take
        server_named = DEFAULTS[0]
    server = SERVERS[server_named]
    interface, evidence = interface_of(app), detect(app).evidence
    no_websockets = why_missing(app, interface, server.called(interface))
    return {
        "app": name,
        "interface": interface,
        "evidence": evidence,
        "server": server_named,
        "server_interface": server.called(interface),
        "server_version": server.version(),
        "conversion": conversion(app, server_named),
        "websockets": paths_of(app),
        "missing": {**({"WebSockets": no_websockets} if no_websockets else {}), **server.missing(interface)},
        "python": _python(target, app, server.called(interface)),
    }


def as_json(report: Mapping[str, Any]) -> str:
    """The report, for machines."""
    return json.dumps(report, indent=2)


def as_text(report: Mapping[str, Any]) -> str:
    """The report, for people."""
    version = report["server_version"] or "not installed"
    calls = f"{report['server']} ({version}) calls {WORDS[report['server_interface']]} apps"
    lines = [
        f"app         {report['app']}",
        f"interface   {WORDS[report['interface']]}: {report['evidence']}",
        f"server      {calls}",
        f"conversion  {report['conversion'] or 'none is needed'}",
    ]
    if report["websockets"]:
        lines.append(f"websockets  {', '.join(report['websockets'])}")
    missing = [f"{feature}: {why}" for feature, why in report["missing"].items()] or ["nothing"]
    lines += [f"{'' if number else 'missing':12}{text}" for number, text in enumerate(missing)]
    if report["python"]:
        lines += ["", textwrap.indent(report["python"].rstrip(), "    ")]
    return "\n".join(lines)


def _python(target: Target, app: object, called: Interface) -> str | None:
    """The Python code that does what ``a2wsgi serve`` does; None if the app needs none."""
    made = converted(app, called, {})
    if made is app:
        return None
    name = type(made).__name__ if type(made) in {WSGIMiddleware, ASGIMiddleware} else _CONVERTERS[called]
    first = target.attribute.partition(".")[0]
    call = f"{target.attribute}()" if target.factory else target.attribute
    imports = f"from a2wsgi import {name}\nfrom {target.module} import {first}\n"
    if not all(part.isidentifier() for part in target.module.split(".")):  # such as my-shop.py
        imports = f"from importlib import import_module\n\nfrom a2wsgi import {name}\n"
        call = f'import_module("{target.module}").{call}'
    return f"{imports}\napplication = {name}({call})\n"
