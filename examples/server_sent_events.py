"""Server-sent events from a Flask app on uvicorn: what one client posts, all the others see.

uvicorn server_sent_events:application
curl -N http://127.0.0.1:8000/ & curl -d 'Hello, all' http://127.0.0.1:8000/
"""

import threading
from collections.abc import Iterator

from flask import Flask, Response, request

from a2wsgi import WSGIMiddleware

app = Flask(__name__)
messages: list[str] = []
news = threading.Condition()


@app.post("/")
def publish() -> str:
    """Tell everybody."""
    with news:
        messages.append(request.get_data(as_text=True))
        news.notify_all()
    return ""


def stream(seen: int) -> Iterator[str]:
    """Tell one client until it leaves. Then the bridge closes the generator."""
    yield ": welcome\n\n"  # the headers go out with the first chunk
    while True:
        with news:
            if len(messages) == seen:
                news.wait(timeout=1)
            fresh, seen = messages[seen:], len(messages)
        yield "".join(f"data: {message}\n\n" for message in fresh) or ": nothing new\n\n"


app.add_url_rule("/", view_func=lambda: Response(stream(len(messages)), mimetype="text/event-stream"))
application = WSGIMiddleware(app, workers=200)  # each open stream holds a thread
