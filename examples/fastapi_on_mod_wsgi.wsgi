"""A FastAPI app on Apache with mod_wsgi, whose configuration names this file.

WSGIScriptAlias / /srv/app/fastapi_on_mod_wsgi.wsgi
"""

from fastapi import FastAPI

from a2wsgi import ASGIMiddleware

app = FastAPI()


@app.get("/")
async def hello() -> dict[str, str]:
    """Answer from FastAPI."""
    return {"hello": "from FastAPI"}


application = ASGIMiddleware(app)
