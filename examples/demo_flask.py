"""The demo's Flask app, and the bridge that makes an ASGI app of it.

Nothing here knows of ASGI but the last line.
"""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

from demo_stopping import stopping
from flask import Flask, Request, Response, jsonify, render_template, request

from a2wsgi import WSGIMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How many streams of ticks are open.
streams: set[object] = set()


class Checksum:
    """What an uploaded file is written to: kept is its checksum and its length, not the file."""

    def __init__(self) -> None:
        self.digest, self.length = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        """Take a piece of the file as it comes in."""
        self.digest.update(data)
        self.length += len(data)
        return len(data)

    def seek(self, offset: int) -> None:
        """Do nothing: there is nothing to go back to."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class ChecksumRequest(Request):
    """A request whose files become checksums while they come in: a large one takes no memory and no disk."""

    def _get_file_stream(self, *_: object, **__: object) -> IO[bytes]:
        return Checksum()  # type: ignore[return-value] # all of it that is used


app = Flask(__name__, template_folder="demo_templates")
app.request_class = ChecksumRequest


@app.get("/")
def home() -> str:
    """Show what Flask knows of this request."""
    keys = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL", "HTTP_HOST", "REMOTE_ADDR")
    facts = {key: request.environ[key] for key in keys}
    return render_template("home.html", facts=facts, thread=threading.current_thread().name)


@app.get("/hello")
def hello() -> Response:
    """Say hello through the bridge."""
    return jsonify(hello="from Flask", thread=threading.current_thread().name)


@app.route("/upload", methods=["GET", "POST"])
def upload() -> str | Response:
    """Take a file of any size, and show its checksum."""
    begin = time.monotonic()
    file = request.files.get("file")
    if file is None:
        return render_template("upload.html")
    checksum: Any = file.stream
    result = {
        "name": file.filename,
        "bytes": checksum.length,
        "sha256": checksum.digest.hexdigest(),
        "seconds": round(time.monotonic() - begin, 3),
    }
    as_page = request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
    return render_template("upload.html", result=result) if as_page else jsonify(result)


@app.get("/events")
def events() -> str:
    """Show the ticks as they come."""
    return render_template("events.html")


@app.get("/ticks")
def ticks() -> Response:
    """Send an event a second, until the client leaves."""

    def make() -> Iterator[str]:
        me = object()
        streams.add(me)
        try:
            number = 0
            while not stopping.is_set():
                yield f"data: tick {number} at {time.strftime('%H:%M:%S')} from {threading.current_thread().name}\n\n"
                number += 1
                stopping.wait(1)
        finally:  # the bridge closes the generator within a second of the client's leaving
            streams.discard(me)

    return Response(make(), mimetype="text/event-stream", headers={"Cache-Control": "no-store"})


@app.get("/slow")
def slow() -> Response:
    """Hold a worker for two seconds."""
    begin = time.monotonic()
    stopping.wait(2)
    return jsonify(slow=round(time.monotonic() - begin, 1), thread=threading.current_thread().name)


@app.get("/statistics")
def statistics() -> str:
    """Show the figures as they change."""
    return render_template("statistics.html", figures=read_figures())


@app.get("/figures")
def figures() -> Response:
    """Give the figures of the moment; this very request is among them."""
    return jsonify(read_figures())


def read_figures() -> dict[str, int]:
    """What the bridge does, and has met so far."""
    return {**asdict(application.statistics()), "open streams": len(streams)}


application = WSGIMiddleware(app)
