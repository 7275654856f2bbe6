"""A Flask app as a Ray Serve deployment: as many replicas as you want, on one machine or a cluster.

serve run flask_on_ray:deployment
"""

import os

from flask import Flask
from ray import serve

from a2wsgi import WSGIMiddleware


def build() -> WSGIMiddleware:
    """Create the app in each replica: a Flask app cannot be pickled."""
    app = Flask(__name__)  # or, where all machines have your package: from shop import app

    @app.get("/")
    def hello() -> dict[str, str | int]:
        return {"hello": "from Flask", "pid": os.getpid()}

    return WSGIMiddleware(app)


deployment = serve.deployment(serve.ingress(build)(), num_replicas=2).bind()
