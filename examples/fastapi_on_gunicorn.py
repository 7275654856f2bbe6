"""A FastAPI app on gunicorn's WSGI workers, with its lifespan.

gunicorn --workers 2 --threads 8 --preload fastapi_on_gunicorn:application
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request

from a2wsgi import ASGIMiddleware


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Runs once in each worker process, after the fork and before its first request."""
    yield {"pid": os.getpid()}


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def hello(request: Request) -> dict[str, Any]:
    """All threads of a worker share one event loop."""
    return {"hello": "from FastAPI", "started in": request.state.pid}


application = ASGIMiddleware(app)
