"""FastAPI's WebSockets on gunicorn's WSGI workers: a chat for all that are connected to one process.

gunicorn --threads 4 fastapi_websockets_on_gunicorn:application
"""

from fastapi import FastAPI, WebSocket
from fastapi.responses import HTMLResponse

from a2wsgi import ASGIMiddleware

PAGE = """<!doctype html><input id=say autofocus><pre id=said></pre><script>
const ws = new WebSocket(location.href.replace("http", "ws") + "chat");
ws.onmessage = (event) => (said.textContent += event.data + "\\n");
say.onchange = () => (ws.send(say.value), (say.value = ""));
</script>"""

app = FastAPI()
connected: set[WebSocket] = set()


@app.get("/")
async def page() -> HTMLResponse:
    """Where to chat."""
    return HTMLResponse(PAGE)


@app.websocket("/chat")
async def chat(ws: WebSocket) -> None:
    """Each open socket costs memory, and no thread of gunicorn's."""
    await ws.accept()
    connected.add(ws)
    try:
        async for text in ws.iter_text():
            for other in tuple(connected):
                await other.send_text(text)
    finally:
        connected.discard(ws)


application = ASGIMiddleware(app)
