"""An ASGI app as a WSGI app: one bridge, what its requests share, its statistics, and what 1.x programs ask it for.

A request starts in `ASGIBridge._call`, on a server thread: the environ becomes a scope, a small body is read, and a
`Request` tells the rest.
"""

from __future__ import annotations

import asyncio  # noqa: TC003 - for whoever evaluates an annotation (see _type_hints)
import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, cast

from a2wsgi import _nested
from a2wsgi import _type_hints as hints
from a2wsgi._deprecated import deprecated
from a2wsgi._interface import MARK, detect, wrong_kind
from a2wsgi._log import DroppedHeaders, logger
from a2wsgi._protocol.files import PATHSEND
from a2wsgi._protocol.framing import BadRequest
from a2wsgi._protocol.scope import process_headers, scope_from_environ
from a2wsgi._wrong_server import NOT_GIVEN, called_by_wrong_server, named_as, wsgi_call

from .body import RequestBody
from .faults import no_loop_on_trio, no_trio
from .lifetime import Lifetime
from .loops.shared_loop import AsyncioHost
from .request import Request
from .response import answer_with, request_timeout
from .settings import ASGISettings

if TYPE_CHECKING:
    from .loops.shared_loop import SharedHost
    from .websocket.session import WebSocketSession


class Shared:
    """What all requests of a bridge share.

    Attributes:
        app: The app, as ASGI 3.
        lifetime: Where it runs.
        settings: The bridge's options.
        dropped_headers: Those that the app set, and the log was told of.
        has_bridge_inside: The app is a `WSGIMiddleware`.
    """

    __slots__ = ("__weakref__", "app", "dropped_headers", "has_bridge_inside", "lifetime", "settings")

    def __init__(
        self, app: hints.ASGIApp, lifetime: Lifetime, settings: ASGISettings, *, has_bridge_inside: bool
    ) -> None:
        self.app = app
        self.lifetime = lifetime
        self.settings = settings
        self.has_bridge_inside = has_bridge_inside
        self.dropped_headers = DroppedHeaders()


@named_as("ASGIMiddleware")
class ASGIBridge:
    """All of `ASGIMiddleware` except its choice of the bridge: it converts ASGI apps only."""

    _a2wsgi_interface_: Final = "wsgi"

    def __init__(
        self,
        app: hints.AnyASGIApp | hints.ASGI2App,
        wait_time: float | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        **options: hints.Unpack[hints.ASGIMiddlewareOptions],
    ) -> None:
        settings = ASGISettings(wait_time=wait_time, loop=loop, **options)
        if cast("object", loop) is False:
            deprecated("loop=False is treated as None, the loop that all bridges of the process share. Leave it out.")
        if settings.loop is not None and settings.lifespan is None:
            deprecated(
                "ASGIMiddleware got a loop= without lifespan=. The bridge does not run the app's lifespan then, since "
                "programs that pass a loop usually run the lifespan themselves. Pass lifespan=False to keep it that "
                "way, or lifespan=True to have the bridge run it."
            )
            settings.lifespan = False
        if detect(app).interface == "wsgi":
            raise wrong_kind(type(self).__name__, app, "ASGI", "WSGI")
        shared_loop, adapt = _backend(settings)
        self.__dict__["app"] = app
        self._process_headers = process_headers(os.environ)
        self._lifetime = Lifetime(
            loop=settings.loop,
            shared=shared_loop,
            inline=settings.inline,
            lifespan=settings.lifespan is not False,
            startup_timeout=settings.startup_timeout,
            shutdown_timeout=settings.shutdown_timeout,
            inside=_longest_stop_inside(app),
        )
        self._shared = Shared(
            app=adapt(_as_asgi3(app)),
            lifetime=self._lifetime,
            settings=settings,
            has_bridge_inside=getattr(type(app), MARK, "") == "asgi3",
        )
        # The bridge and its requests hold what they share; the lifetime and its loop do not. When the last of them is
        # gone, the bridge leaves its loop. The end of the process has a hook of its own.
        weakref.finalize(self._shared, self._lifetime.stop_dropped).atexit = False

    def __repr__(self) -> str:
        """The app, and whether it is started up."""
        if "_shared" not in self.__dict__:  # as in the setter of app
            return object.__repr__(self)
        return f"<{type(self).__name__} of {self.app!r}: {self._lifetime}>"

    def _call(self, environ: hints.Environ, start_response: hints.StartResponse, *rest: object) -> Iterable[bytes]:
        """Handle one request, as a WSGI app. Server thread; waits until the app's response begins.

        Raises:
            Exception: What the app raised before its head was sent: the very same object.
            AppInterfaceError: An ASGI server called this WSGI app.
            AppProtocolError: The app broke ASGI, or ended without a complete response.
            LifespanFailed: The app's startup failed. The next request tries it again.
            BridgeClosed: `close` was called.
            ServerProtocolError: A value in the environ is of the wrong type.
            BridgeError: The given ``loop`` is not running, or the calling thread runs it.
        """
        if rest or start_response is NOT_GIVEN:
            raise called_by_wrong_server(self, self.app, environ, start_response, *rest)
        lifetime = self._lifetime
        host = lifetime.host or lifetime.start(self._shared.app)
        host.refuse_own_thread()
        try:
            scope = scope_from_environ(environ, self._process_headers)
            if "asgi.scope" in environ:
                _nested.take_back_scope(scope, environ)
            scope["extensions"][PATHSEND] = {}
            body = RequestBody(environ, self._shared.settings.receive_timeout)
        except BadRequest:
            text = b"The request's Content-Length is malformed."
            return answer_with(environ, start_response, "400 Bad Request", text)
        # ASGI Lifespan 2.0, "Lifespan State": a shallow copy for each request. A bridge further out may have one too.
        scope["state"] = {**(scope.get("state") or {}), **lifetime.state}
        if "HTTP_UPGRADE" in environ:
            # Not at the top: what serves WebSockets would be 40 % of the import's time, and few programs need it.
            from .websocket.handshake import answer_handshake  # noqa: PLC0415

            if (answer := answer_handshake(self._shared, host, environ, start_response, scope)) is not None:
                return answer
        request = Request(self._shared, host, environ, scope, body)
        if body.broke_off:
            lifetime.count("stalled" if body.stalled else "disconnected")
            if body.stalled:  # before the app has begun
                logger.warning("Request aborted: the client sent nothing of its body for %g s", body.timeout)
                return request_timeout(environ, start_response)
        one_at_a_time = host.one_at_a_time
        try:
            lifetime.requests.add(request)
            if one_at_a_time is None:
                return request.answer(start_response)
            with one_at_a_time:
                return request.answer(start_response)
        finally:
            # Nobody waits for it. If the loop is about to start its app, that goes on, and takes it out at its end.
            if request.task is None and request.withdraw():
                lifetime.requests.discard(request)

    def statistics(self) -> hints.ASGIStatistics:
        """Return what the bridge is doing, and what it has counted so far in this process. Any thread.

        Requests go on meanwhile, so the numbers may be from slightly different moments.
        """
        from a2wsgi._statistics import ASGIStatistics  # noqa: PLC0415 - few programs ask

        lifetime = self._lifetime
        running = lifetime.requests.copy()
        requests = [one for one in running if isinstance(one, Request)]
        # Until it is open, a WebSocket is counted as the request that asks for it.
        websockets = sum(not isinstance(one, Request) and cast("WebSocketSession", one).opened for one in running)
        complete = [request.complete for request in requests]
        return ASGIStatistics(
            in_flight=complete.count(False) + websockets,
            queued=sum(request.queued for request in requests),
            background=complete.count(True),
            disconnected=lifetime.disconnected,
            stalled=lifetime.stalled,
            started=lifetime.host is not None,
            websockets=websockets,
            timed_out=lifetime.timed_out,
        )

    @property
    def app(self) -> hints.AnyASGIApp | hints.ASGI2App:
        """The app. If you assign another one, it answers the requests that come after that."""
        if "app" not in self.__dict__:  # as in its setter, where a subclass calls it otherwise
            raise AttributeError("app")
        return cast("hints.AnyASGIApp | hints.ASGI2App", self.__dict__["app"])

    @app.setter
    def app(self, app: hints.AnyASGIApp | hints.ASGI2App) -> None:
        self.__dict__["app"] = app
        if "_shared" in self.__dict__:  # else a subclass makes everything by itself, as it could in 1.x
            self._shared.app = _backend(self._shared.settings)[1](_as_asgi3(app))
            self._shared.has_bridge_inside = getattr(type(app), MARK, "") == "asgi3"

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Deprecated: the event loop that the app runs on, as in a2wsgi 1.x. Starts it if need be.

        If it is asked for before the first request, the program is assumed to run the app's lifespan on it by hand, and
        the bridge does not run it, unless ``lifespan=True`` was given.
        """
        deprecated(
            "ASGIMiddleware.loop is deprecated. If you access it before the first request, the bridge does not run the "
            "app's lifespan, unless you pass lifespan=True. To run the lifespan, call start() and close(). To run "
            "anything else, create a loop and pass it as loop=."
        )
        if "_shared" not in self.__dict__:  # as in the setter of app
            return cast("asyncio.AbstractEventLoop", self.__dict__["loop"])
        if self._shared.settings.backend == "trio":
            raise no_loop_on_trio()
        return self._lifetime.loop_for_one_x(self._shared.app, lifespan=self._shared.settings.lifespan is True)

    @loop.setter
    def loop(self, loop: asyncio.AbstractEventLoop) -> None:
        if "_shared" in self.__dict__:
            raise AttributeError("The loop of an ASGIMiddleware cannot be changed. Pass loop= to the constructor.")
        self.__dict__["loop"] = loop

    @property
    def wait_time(self) -> float | None:
        """Deprecated: the option ``wait_time``, as in a2wsgi 1.x."""
        deprecated("ASGIMiddleware.wait_time is deprecated. Keep the value that you pass to the constructor.")
        if "_shared" not in self.__dict__:  # as in the setter of app
            return cast("float | None", self.__dict__["wait_time"])
        return self._shared.settings.wait_time

    @wait_time.setter
    def wait_time(self, seconds: float | None) -> None:
        deprecated("Setting ASGIMiddleware.wait_time is deprecated. Pass wait_time= to the constructor.")
        if "_shared" in self.__dict__:
            self._shared.settings.wait_time = seconds
        else:
            self.__dict__["wait_time"] = seconds

    if TYPE_CHECKING:  # subclasses override it as PEP 3333 has it, without the rest

        def __call__(self, environ: hints.Environ, start_response: hints.StartResponse) -> Iterable[bytes]: ...

    else:
        __call__ = wsgi_call(_call)
        del _call

    @property
    def state(self) -> Mapping[str, object]:
        """What the app put into the state during its lifespan. Each request gets a shallow copy. Any thread."""
        return self._lifetime.state

    def start(self) -> None:
        """Start the loop and run the app's startup now, instead of at the first request. Idempotent.

        Raises:
            LifespanFailed: The app's startup failed. You may call this again.
            BridgeClosed: `close` was called.

        Threading: any thread but that of its own loop.
        """
        self._lifetime.start(self._shared.app)

    def stop(self) -> None:
        """Shut down as `close` does, but stay usable: the next request, or `start`, starts the app again. Idempotent.

        For servers and outer bridges, which run a lifespan of their own around this bridge.

        Raises:
            LifespanFailed: The app's shutdown failed. Everything is released nevertheless.

        Threading: any thread but that of its own loop. Waits as long as `close`.
        """
        self._lifetime.stop()

    def longest_stop(self) -> float:
        """Return how many seconds `stop` takes at most, unless an app blocks. For outer bridges, which wait for it."""
        return self._lifetime.longest_stop()

    def close(self) -> None:
        """End running requests, run the app's shutdown, and release the loop. Idempotent.

        This also happens at the end of the process. In a running request, the server gets `BridgeClosed` and the app
        ``http.disconnect``. Later requests get `BridgeClosed`.

        Raises:
            LifespanFailed: The app's shutdown failed. Everything is released nevertheless.
            BridgeError: An app blocks the loop, so nothing could be shut down.

        Threading: any thread but that of its own loop. Waits at most ``shutdown_timeout`` for running requests and
        background tasks, and as long again for the lifespan; a few seconds more if an app blocks or ignores its
        cancellation.
        """
        self._lifetime.close()

    def __enter__(self) -> hints.Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _backend(settings: ASGISettings) -> tuple[type[SharedHost], Callable[[hints.ASGIApp], hints.ASGIApp]]:
    """The loop that bridges of a backend share, and what adapts an app to it. Imports trio only for who wants it.

    Raises:
        MissingCapability: trio is not there.
    """
    if settings.backend == "asyncio":
        return AsyncioHost, lambda app: app
    try:
        from .loops.trio_host import TrioHost, on_trio  # noqa: PLC0415 - it imports trio
    except ImportError as error:
        raise no_trio(error) from error
    return TrioHost, on_trio


def _longest_stop_inside(app: object) -> Callable[[], float]:
    """What tells how long the bridges inside ``app`` take at most to stop, if it is a bridge itself.

    It does not hold the app, which may know the bridge around it: nobody would collect the two, as the loop holds this.
    """
    if getattr(type(app), MARK, "") != "asgi3":
        return lambda: 0.0
    found = weakref.ref(cast("Any", app))  # a `WSGIMiddleware`, which this wing does not import
    return lambda: 0.0 if (bridge := found()) is None else bridge.longest_stop_inside()


def _as_asgi3(app: hints.AnyASGIApp | hints.ASGI2App) -> hints.ASGIApp:
    """The app, or an adapter around one that speaks ASGI 2 (ASGI, "Legacy Applications")."""
    if detect(app).interface != "asgi2":
        return cast("hints.ASGIApp", app)
    double = cast("hints.ASGI2App", app)

    async def asgi3(scope: hints.Scope, receive: hints.Receive, send: hints.Send) -> None:
        await double(scope)(receive, send)

    return asgi3
