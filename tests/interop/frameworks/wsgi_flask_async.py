"""The contract in Flask, with ``async def`` views, which Flask runs in an event loop of the worker thread."""

from __future__ import annotations

import asyncio
from typing import Any

from interop.frameworks.wsgi_flask import View, make


def asynchronous(view: View) -> View:
    """The same view, which waits for something before it begins."""

    async def run(**arguments: Any) -> Any:
        await asyncio.sleep(0)
        return view(**arguments)

    return run


app = make(asynchronous)
