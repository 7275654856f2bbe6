"""Apps of frameworks with WebSockets, each under a bridge: ``quart``, ``channels`` and ``socketio``, unmodified."""

from __future__ import annotations

import os
from typing import Any

from a2wsgi import ASGIMiddleware


def quart() -> Any:
    """Quart: an echo, and a refusal."""
    from quart import Quart, websocket

    app = Quart(__name__)

    @app.websocket("/echo")
    async def echo() -> None:
        await websocket.accept(headers={"X-Accepted": "yes"})
        while True:
            await websocket.send(await websocket.receive())

    @app.websocket("/deny")
    async def deny() -> Any:
        return "who are you?", 401, {"WWW-Authenticate": "Basic"}

    return app


def channels() -> Any:
    """Django Channels: an asynchronous and a synchronous consumer."""
    from django.conf import settings

    settings.configure(SECRET_KEY="test", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
    import django

    django.setup()
    from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.core.asgi import get_asgi_application
    from django.urls import path

    class Asynchronous(AsyncWebsocketConsumer):  # type: ignore[misc]  # it has no types
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    class Synchronous(WebsocketConsumer):  # type: ignore[misc]  # it has no types
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data=text_data, bytes_data=bytes_data)

    routes: list[Any] = [path("echo", Asynchronous.as_asgi()), path("sync", Synchronous.as_asgi())]
    return ProtocolTypeRouter({"http": get_asgi_application(), "websocket": URLRouter(routes)})


urlpatterns: list[Any] = []


def socketio() -> Any:
    """python-socketio: acknowledgements, rooms, bytes, a refusal, a kick."""
    import socketio

    server: Any = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")

    async def connect(sid: str, environ: Any, auth: Any) -> bool:
        return bool(auth != {"token": "wrong"})

    async def echo(sid: str, data: Any) -> Any:
        return data

    async def join(sid: str, room: str) -> None:
        await server.enter_room(sid, room)

    async def say(sid: str, room: str, data: Any) -> None:
        await server.emit("said", data, room=room)

    async def leave(sid: str) -> None:
        await server.disconnect(sid)

    for handler in (connect, echo, join, say, leave):
        server.on(handler.__name__, handler)
    return socketio.ASGIApp(server)


application = ASGIMiddleware({"quart": quart, "channels": channels, "socketio": socketio}[os.environ["WS_APP"]]())
