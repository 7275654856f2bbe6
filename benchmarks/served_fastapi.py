"""The FastAPI app that `through_servers` loads: one async endpoint, 27 bytes of JSON."""

from __future__ import annotations

import fastapi

asgi = fastapi.FastAPI()


@asgi.get("/")
async def hello() -> dict[str, str]:
    """Answer with 27 bytes and a length."""
    return {"message": "Hello, world!"}
