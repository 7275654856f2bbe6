"""Uploads of any size to a Flask app on uvicorn, read while they arrive.

uvicorn upload_to_flask:application
curl -T README.md http://127.0.0.1:8000/
"""

import hashlib

from flask import Flask, request

from a2wsgi import WSGIMiddleware

app = Flask(__name__)


@app.put("/<name>")
def upload(name: str) -> dict[str, str | int]:
    """Compute a checksum. If the client leaves early the read raises, so this upload is complete."""
    digest, length = hashlib.sha256(), 0
    while chunk := request.stream.read(65_536):
        digest.update(chunk)
        length += len(chunk)
    return {"name": name, "bytes": length, "sha256": digest.hexdigest()}


application = WSGIMiddleware(app, max_request_bytes=10 * 1024**3)  # more than 10 GiB is answered 413
