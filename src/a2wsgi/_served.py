"""The app that ``a2wsgi serve`` has a server load, in each of the server's processes.

It is made when this module is imported: hypercorn looks into the namespace of a module and does not ask it. What to
load stands in the environment, which every process of a server inherits.
"""

from __future__ import annotations

import json
import os
import signal

from ._loading import Target, converted, load
from ._servers import SERVERS

__all__ = ["app"]

_order = json.loads(os.environ["A2WSGI_SERVED"])
_server = SERVERS[_order["server"]]

app = converted(load(Target(**_order["target"]), factory=_order["factory"]), _server.interface)

if not _server.exits_on_sigterm:
    # Process managers send it. As Ctrl-C it lets the server close, and the app's lifespan end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
