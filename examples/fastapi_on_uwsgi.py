"""A FastAPI app on uWSGI, which runs threads only if you ask for them.

uwsgi --http 127.0.0.1:8000 --master --processes 2 --threads 8 --module fastapi_on_uwsgi
"""

from fastapi import FastAPI, Request

from a2wsgi import ASGIMiddleware

app = FastAPI()


@app.get("/")
async def hello() -> dict[str, str]:
    """Answer from FastAPI."""
    return {"hello": "from FastAPI"}


@app.put("/length")
async def length(request: Request) -> int:
    """Read a body of any length while it arrives."""
    return sum([len(chunk) async for chunk in request.stream()])


application = ASGIMiddleware(app)
