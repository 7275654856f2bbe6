"""The demo's Flask app, and the bridge that makes an ASGI app of it.

Nothing here knows of ASGI but the last line. The same file is served under a2wsgi 1.10.10, to compare.
"""

from __future__ import annotations

import hashlib
import inspect
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from demo_stopping import stopping
from flask import Flask, Response, jsonify, render_template, request

from a2wsgi import WSGIMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The streams that are open, and the WebSockets of whoever is in the chat.
streams: set[object] = set()
room: set[Any] = set()

app = Flask(__name__, template_folder="demo_templates")


def page(name: str, *functions: Callable[..., Any], **facts: object) -> str:
    """A page, with the source of what it shows."""
    source = "\n\n".join(inspect.getsource(function).rstrip() for function in functions)
    return render_template(name, source=source, **facts)


@app.get("/")
def home() -> str:
    """Show what Flask knows of this request."""
    keys = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL", "HTTP_HOST", "REMOTE_ADDR")
    facts = {key: request.environ[key] for key in keys}
    return page("home.html", home, facts=facts, thread=threading.current_thread().name)


@app.get("/hello")
def hello() -> Response:
    """Say hello through the bridge."""
    return jsonify(hello="from Flask", thread=threading.current_thread().name)


@app.get("/slow")
def slow() -> Response:
    """Hold a worker for two seconds."""
    begin = time.monotonic()
    stopping.wait(2)
    return jsonify(slow=round(time.monotonic() - begin, 1), thread=threading.current_thread().name)


@app.get("/upload")
def upload_page() -> str:
    """Let the browser send a file."""
    return page("upload.html", upload)


@app.post("/upload")
def upload() -> Response:
    """Take a body of any size, and give its checksum. It is hashed while it arrives, and kept nowhere."""
    digest, length = hashlib.sha256(), 0
    while chunk := request.stream.read(65_536):
        digest.update(chunk)
        length += len(chunk)
    return jsonify(bytes=length, sha256=digest.hexdigest())


@app.get("/events")
def events() -> str:
    """Show the ticks as they come."""
    return page("events.html", ticks)


@app.get("/ticks")
def ticks() -> Response:
    """Send an event a second, until the client leaves."""
    count = request.args.get("count", 3600, int)

    def make() -> Iterator[str]:
        me = object()
        streams.add(me)
        try:
            for number in range(count):
                yield f"data: tick {number} at {time.strftime('%H:%M:%S')} from {threading.current_thread().name}\n\n"
                if stopping.wait(1):
                    return
        finally:  # the bridge closes the generator within a second of the client's leaving
            streams.discard(me)

    return Response(make(), mimetype="text/event-stream", headers={"Cache-Control": "no-store"})


@app.get("/streams")
def open_streams() -> Response:
    """Tell how many streams are open."""
    return jsonify(streams=len(streams))


@app.get("/chat")
def chat() -> str:
    """Let the browser talk."""
    return page("chat.html", talk, socket="/flask/talk", who="Flask, on a worker thread of its own")


@app.get("/talk", websocket=True)
def talk() -> Response:
    """Pass each message on to everybody in the room."""
    me = request.environ["a2wsgi.websocket"]
    me.accept()
    room.add(me)
    try:
        for message in me:
            for other in tuple(room):
                with suppress(OSError):  # it is about to leave the room
                    other.send(message)
    finally:
        room.discard(me)
    return Response()


application = WSGIMiddleware(app)
