"""A Flask app on AWS Lambda, behind an API Gateway, a function URL or a load balancer.

Set the function's handler to flask_on_lambda.handler, and package flask, mangum and a2wsgi with it.
"""

from flask import Flask
from mangum import Mangum

from a2wsgi import WSGIMiddleware

app = Flask(__name__)


@app.get("/hello/<name>")
def hello(name: str) -> dict[str, str]:
    """Answer from Flask."""
    return {"hello": name}


handler = Mangum(WSGIMiddleware(app), lifespan="off")  # a WSGI app has no lifespan
