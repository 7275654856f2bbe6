"""A FastAPI app on Passenger, as hosting providers offer it (cPanel: "Setup Python App").

Passenger looks for this file, by this name, in the app's directory: passenger start
"""

from fastapi import FastAPI

from a2wsgi import ASGIMiddleware

app = FastAPI()


@app.get("/")
async def hello() -> dict[str, str]:
    """Answer from FastAPI."""
    return {"hello": "from FastAPI"}


application = ASGIMiddleware(app)
