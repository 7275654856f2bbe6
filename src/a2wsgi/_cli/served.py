"""The app that ``a2wsgi serve`` has a server load, in each of the server's processes.

It is made when this module is imported, and not by a module's ``__getattr__``: hypercorn looks only into the module's
namespace. An environment variable says what to load, since every process of a server inherits those. `a2wsgi.run` may
have loaded it already.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
from typing import Any

from . import handed_over
from .loading import Target, converted, load
from .servers import SERVERS

_order = json.loads(os.environ["A2WSGI_SERVED"])
_server = SERVERS[_order["server"]]


def _made() -> Any:  # noqa: ANN401 - any app
    loaded = handed_over.app if handed_over.app is not None else load(Target(**_order["target"]))
    # Converted for "asgi3" or "wsgi": which of the two may depend on the app.
    from a2wsgi._interface import interface_of  # noqa: PLC0415 - after the app, which may patch what this imports

    made = converted(loaded, _server.called(interface_of(loaded)), _order["bridge"])
    if _order["trusted"] is not None or _order["root_path"]:
        from .around import behind_proxy, mounted  # noqa: PLC0415 - few need it

        made = behind_proxy(made, _order["server"], _order["trusted"]) if _order["trusted"] is not None else made
        if _server.options.get("root_path") == ():
            made = mounted(made, _order["root_path"])
    return made


app = _made()

if not _server.exits_on_sigterm:
    # Process managers send SIGTERM. Treated like Ctrl-C, it lets the server close and the app's lifespan end.
    with contextlib.suppress(ValueError):  # a reloader runs this in a thread, and handles signals itself
        signal.signal(signal.SIGTERM, signal.default_int_handler)
if _server.logger is not None and _order["log_level"] is not None:
    logging.getLogger(_server.logger).setLevel(_order["log_level"].upper())
