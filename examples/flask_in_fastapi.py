"""A Flask app inside a FastAPI app: one server, one port, FastAPI's routes first.

uvicorn flask_in_fastapi:app
"""

from fastapi import FastAPI
from flask import Flask, url_for

from a2wsgi import WSGIMiddleware

flask_app = Flask(__name__)


@flask_app.get("/hello")
def hello() -> dict[str, str]:
    """Flask knows the prefix under which it is mounted."""
    return {"hello": "from Flask", "url": url_for("hello")}


app = FastAPI()


@app.get("/hello")
async def hello_fastapi() -> dict[str, str]:
    """Answer from FastAPI."""
    return {"hello": "from FastAPI"}


app.mount("/flask", WSGIMiddleware(flask_app))
