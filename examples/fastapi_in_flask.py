"""A FastAPI app inside a Flask app, by path: what is below /api is FastAPI's, everything else Flask's.

gunicorn --threads 8 fastapi_in_flask:app
"""

from fastapi import FastAPI, Request
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from a2wsgi import ASGIMiddleware

api = FastAPI()


@api.get("/hello")
async def hello(request: Request) -> dict[str, str]:
    """FastAPI knows the prefix under which it is mounted: its own docs are at /api/docs."""
    return {"hello": "from FastAPI", "url": request.url_for("hello").path}


app = Flask(__name__)


@app.get("/hello")
def hello_flask() -> dict[str, str]:
    """Answer from Flask."""
    return {"hello": "from Flask"}


app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/api": ASGIMiddleware(api)})
