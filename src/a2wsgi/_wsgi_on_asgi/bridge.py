"""A WSGI app as an ASGI app: one bridge, its options, its workers and its statistics."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Coroutine, Iterable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Final, cast

from a2wsgi import _type_hints as hints
from a2wsgi._deprecated import deprecated
from a2wsgi._errors import ClientDisconnected, ServerProtocolError
from a2wsgi._interface import MARK, detect, wrong_kind
from a2wsgi._log import DroppedHeaders
from a2wsgi._protocol.environ import EnvironTemplate
from a2wsgi._type_hints import Receive, Scope, Send
from a2wsgi._wrong_server import NOT_GIVEN, asgi_call, called_by_wrong_server, named_as

from .endings import Ending
from .files import FileWrapper
from .lifespan import Startable, answer_lifespan
from .loops import BridgeLoop, BridgeLoops
from .processes import server_is_multiprocess
from .request import Request
from .settings import WSGISettings
from .websocket.pool import WebSockets
from .workers import Workers

#: anyio's figure for the threads of a process; 1.10.10 had 10. Without a GIL, too (benchmarks/free_threads.py, with two
#: cores): an app that computes takes 1.40 ms of processor time a request, and 1.35 with cores + 4 workers; but one that
#: also waits for 20 ms would answer 0.8 times as many.
DEFAULT_WORKERS: Final = 40


class Shared:
    """What the requests of one bridge share: its settings, its workers, its loops, and what has been logged."""

    def __init__(self, *, settings: WSGISettings, workers: Workers, template: EnvironTemplate) -> None:
        self.settings = settings
        self.workers = workers
        self.template = template
        self.loops = BridgeLoops(functools.partial(_ask_server, settings, template))
        self.dropped_headers = DroppedHeaders()


@named_as("WSGIMiddleware")
class WSGIBridge:
    """All of `WSGIMiddleware` except its choice of the bridge: it converts WSGI apps only."""

    _a2wsgi_interface_: Final = "asgi3"

    def __init__(
        self,
        app: hints.WSGIApp,
        workers: int | None = None,
        send_queue_size: int | None = None,
        **options: hints.Unpack[hints.WSGIMiddlewareOptions],
    ) -> None:
        settings = WSGISettings(workers=workers, send_queue_size=send_queue_size, **options)
        if detect(app).interface not in {"wsgi", None}:
            raise wrong_kind(type(self).__name__, app, "WSGI", "ASGI")
        workers = _default_workers() if settings.workers is None else settings.workers
        self.app = app
        self._executor: Executor | None = None  # see `executor`
        #: The bridges further in, whose ASGI apps start up and shut down with this one's server.
        self._inner: tuple[Startable, ...] = (cast("Startable", app),) if getattr(type(app), MARK, "") == "wsgi" else ()
        script_name = settings.script_name
        self._shared = Shared(
            settings=settings,
            workers=Workers(workers, settings.max_queue),
            template=EnvironTemplate(
                script_name=os.environ.get("SCRIPT_NAME", "") if script_name is None else script_name,
                fixed=script_name is not None,
                allow_underscores=settings.allow_underscores,
                multithread=workers > 1,
                multiprocess=settings.multiprocess,
                file_wrapper=FileWrapper,
            ),
        )
        self._websockets = WebSockets(app, self._shared)
        # Worker threads hold the pool, never the bridge: a bridge that is dropped ends them.
        weakref.finalize(self, self._shared.workers.retire).atexit = False
        weakref.finalize(self, self._websockets.workers.retire).atexit = False

    def __repr__(self) -> str:
        """Show the app and the statistics."""
        if "_shared" not in self.__dict__:  # as in send_queue_size
            return object.__repr__(self)
        return f"<{type(self).__name__} of {self.app!r}: {self.statistics()}>"

    def _call(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Handle one request, WebSocket or lifespan, as an ASGI 3 app. Await it.

        Raises:
            Exception: What the app raised before its response was complete: the very same object.
            AppError: The app broke WSGI, or raised something that a coroutine cannot raise.
            AppInterfaceError: A WSGI server called the bridge. Raised by the call itself.
            ServerProtocolError: The scope has an unknown type, or the server broke ASGI.

        Threading: the thread of the running event loop.
        """
        if send is NOT_GIVEN:
            raise called_by_wrong_server(self, self.app, scope, receive)
        try:
            kind = scope["type"]
        except (TypeError, LookupError):
            raise ServerProtocolError(
                f"The server called the app with a scope of type {type(scope).__name__} that has no 'type'. ASGI 3.0, "
                '"Connection Scope", requires a dict with that key. Fix the server, or the middleware that made it.'
            ) from None
        if kind == "http":
            return Request.answer(self, self.app, self._shared, scope, receive, send)
        return self._answer_another(scope, receive, send)

    if TYPE_CHECKING:  # What async functions return has its own type in each checker, and messages in each framework.

        async def __call__(
            self,
            scope: Any,  # noqa: ANN401 - as above
            receive: hints.AnyReceive,
            send: hints.AnySend,
        ) -> None: ...

    else:
        __call__ = asgi_call(_call)
        del _call

    async def _answer_another(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a scope that is not an HTTP request."""
        kind = scope["type"]
        if kind == "lifespan":
            here, lifespan = self._shared.loops.here(), object()
            shut_down = functools.partial(self._shut_down, here, lifespan)
            runtime = here.runtime
            here.lifespans[lifespan] = True
            try:
                await answer_lifespan(scope, receive, send, runtime=runtime, bridges=self._inner, shut_down=shut_down)
            finally:
                here.lifespans.pop(lifespan, None)
        elif kind == "websocket":
            from .websocket.session import WebSocketSession  # noqa: PLC0415 - few processes have any

            self._websockets.app = self.app  # a program may have put another one in its place
            await WebSocketSession.answer(self, self._websockets, scope, receive, send)
        else:
            raise ServerProtocolError(
                f"The server sent a scope of type {kind!r}. A WSGI app can only answer 'http' and 'websocket'."
            )

    def statistics(self) -> hints.Statistics:
        """Return what the bridge is doing, and what it has counted since it was created. Any thread."""
        from a2wsgi._statistics import Statistics  # noqa: PLC0415 - few programs ask

        shared = self._shared
        workers = shared.workers
        return Statistics(
            workers=workers.alive,
            busy=workers.busy,
            queued=workers.queued,
            in_flight=sum(len(loop.in_flight) for loop in shared.loops.live()),
            shed=workers.shed + sum(loop.refused for loop in shared.loops.known()),
            disconnected=sum(loop.disconnected for loop in shared.loops.known()),
            stalled=sum(loop.stalled for loop in shared.loops.known()),
            websockets=self._websockets.count(),
            timed_out=sum(loop.timed_out for loop in shared.loops.known()),
            overdue=workers.overdue,
        )

    @property
    def send_queue_size(self) -> int | None:
        """Deprecated: the option ``send_queue_size``, as in a2wsgi 1.x."""
        deprecated("WSGIMiddleware.send_queue_size is deprecated. Keep the value that you pass to the constructor.")
        if "_shared" not in self.__dict__:  # a subclass that makes everything by itself, as it could in 1.x
            return cast("int | None", self.__dict__["send_queue_size"])
        return self._shared.settings.send_queue_size

    @send_queue_size.setter
    def send_queue_size(self, size: int | None) -> None:
        deprecated("Setting WSGIMiddleware.send_queue_size is deprecated. Pass send_queue_size= to the constructor.")
        if "_shared" in self.__dict__:
            self._shared.settings.send_queue_size = size
        else:
            self.__dict__["send_queue_size"] = size

    @property
    def executor(self) -> Executor:
        """Deprecated: a thread pool, as in a2wsgi 1.x. The app does not run on it."""
        deprecated(
            "WSGIMiddleware.executor is deprecated, and the app does not run on it. Make an executor of your own."
        )
        if self._executor is None:
            from .deprecated import unused_executor  # noqa: PLC0415 - few programs ask

            self._executor = unused_executor(self._shared.workers.limit)
        return self._executor

    @executor.setter
    def executor(self, executor: Executor) -> None:
        deprecated("Setting WSGIMiddleware.executor is deprecated and changes nothing. Pass workers=.")
        self._executor = executor

    async def _shut_down(self, loop: BridgeLoop, lifespan: object) -> bool:
        """Wait for running requests, abort those that take too long, and end the workers.

        Programs have several servers on one loop, for http and https say. Nobody knows whose a request is, and a server
        that shuts down has waited for its own. So the last one does all this.

        Returns:
            Whether no other server has the bridge any more.
        """
        # 1. Two servers shut down at once. 2. Each finds the other's lifespan open. 3. Nobody does it. So each closes
        # its own first. For a server on another loop it is there until the requests here have ended.
        loop.lifespans[lifespan] = False
        if loop.is_kept():
            del loop.lifespans[lifespan]
            return False
        self._websockets.stop(loop)
        await loop.drain(self._shared.settings.shutdown_timeout)
        reason = "the server is shutting down"
        for request in loop.in_flight.copy() if not loop.is_kept() else ():  # no other server has come meanwhile
            request.abort(Ending.SHUT_DOWN, functools.partial(ClientDisconnected, reason), reason)
        self._shared.workers.end_idle()
        self._websockets.workers.end_idle()
        loop.lifespans.pop(lifespan, None)
        return not any(one.lifespans for one in self._shared.loops.live())

    def longest_stop_inside(self) -> float:
        """How many seconds the bridges inside take at most to stop, one after the other. For a bridge around this."""
        return sum(bridge.longest_stop() for bridge in self._inner)

    def carry_lifespan(self, bridges: Iterable[Startable]) -> None:
        """Start and stop these bridges, which are somewhere below the app, with the server. See `chain`."""
        self._inner = tuple(dict.fromkeys((*self._inner, *bridges)))


def _ask_server(settings: WSGISettings, template: EnvironTemplate) -> None:
    """Ask the server what ASGI has no word for, unless the user has said it. Each loop thread, at its first call."""
    if settings.multiprocess is None:
        template.constants["wsgi.multiprocess"] = server_is_multiprocess() is not False


def _default_workers() -> int:
    """The number in the environment variable ``A2WSGI_WORKERS``, or our own default."""
    text = os.environ.get("A2WSGI_WORKERS", "")
    if not text:
        return DEFAULT_WORKERS
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"The environment variable A2WSGI_WORKERS is {text!r}. It must be a whole number, 1 or more.")
    return int(text)
