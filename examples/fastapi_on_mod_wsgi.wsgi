"""A FastAPI app on Apache with mod_wsgi.

mod_wsgi-express start-server fastapi_on_mod_wsgi.wsgi
"""

from fastapi import FastAPI

from a2wsgi import ASGIMiddleware

app = FastAPI()


@app.get("/")
async def hello() -> dict[str, str]:
    """FastAPI's own."""
    return {"hello": "from FastAPI"}


application = ASGIMiddleware(app)
