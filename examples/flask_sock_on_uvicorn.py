"""Flask-Sock on an ASGI server: a page to which the server counts.

uvicorn flask_sock_on_uvicorn:application
"""

from typing import Any

from flask import Flask
from flask_sock import Sock

from a2wsgi import WSGIMiddleware

PAGE = """<!doctype html><button id=stop>Stop</button> <output id=count></output><script>
const ws = new WebSocket(location.href.replace("http", "ws") + "count");
ws.onmessage = (event) => (count.textContent = event.data);
stop.onclick = () => ws.send("stop");
</script>"""

app = Flask(__name__)
sock = Sock(app)


@app.get("/")
def page() -> str:
    """Where the count is shown."""
    return PAGE


@sock.route("/count")
def count(ws: Any) -> None:  # noqa: ANN401 - a library without types
    """Count until the client says something or leaves."""
    number = 0
    while ws.receive(timeout=0.1) is None:
        number += 1
        ws.send(str(number))
    ws.close(message="You said so.")


application = WSGIMiddleware(app)
