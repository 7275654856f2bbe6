"""Servers in a thread, for notebooks and tests.

*Strategy.* The socket is bound and listens before the thread starts, so a client that connects right after `run` waits
in its backlog and is never refused.

*Guarantees.* `BackgroundServer.stop` returns once the thread has ended, or after `_STOP_SECONDS`. The thread is a
daemon: a program that forgets to stop its server ends all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from a2wsgi import _type_hints as hints
from a2wsgi._front.asgi_middleware import ASGIMiddleware
from a2wsgi._interface import interface_of

from .errors import ServerNotStarted, UsageError
from .loading import converted

if TYPE_CHECKING:
    from .command import Start
    from .options import Options

#: How long a stopped server may take for the requests that run. Arbitrary; a bridge's own default is 10 s.
_STOP_SECONDS: Final = 15.0
#: What a server in the background can be told, besides where to listen.
_KNOWN: Final = {"app", "bridge", "factory", "host", "log_level", "port", "root_path", "server", "threads"}


class BackgroundServer:
    """A server that runs in a thread, as returned by `run`. As a context manager, it stops at the end of the block.

    Attributes:
        url: The address of the server, such as ``http://127.0.0.1:8000``.
    """

    def __init__(
        self, url: str, run: Callable[[], object], stop: Callable[[], object], close: Callable[[], object]
    ) -> None:
        self.url = url
        self._stop = stop
        self._close = close
        self._thread = threading.Thread(target=run, name="a2wsgi-server", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the server, and wait for running requests. A second call does nothing.

        Threading: any thread but the server's own.
        """
        if self._thread.is_alive():
            self._stop()
            self._thread.join(_STOP_SECONDS)
        self._close()  # also if the server has ended by itself: it has told the app nothing

    def __enter__(self) -> hints.Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<a2wsgi server at {self.url}, {'running' if self._thread.is_alive() else 'stopped'}>"


def loop_runs() -> bool:
    """Whether this thread runs an event loop, as that of a notebook does."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def check_can_run_in_thread(name: str, options: Options) -> None:
    """Raise an error if a server cannot run in a thread, or an option cannot be had there."""
    if name not in _MADE:
        raise UsageError(f"{name} cannot run in the background. These can: {', '.join(_MADE)}.")
    # Others are left alone in the environment and in pyproject.toml: those may be for the command line.
    elsewhere = {name for name in ("fd", "ssl_certfile", "uds") if getattr(options, name) is not None}
    unknown = sorted((options.given - _KNOWN) | elsewhere)
    if unknown or options.extra:
        named = ", ".join([*unknown, *(["server_options"] if options.extra else [])])
        raise UsageError(f"A server in the background does not take {named}. It takes: {', '.join(sorted(_KNOWN))}.")


def run_in_thread(start: Start, app: Any, options: Options) -> BackgroundServer:  # noqa: ANN401 - any app
    """Serve in a thread, once `check_can_run_in_thread` has let it.

    Raises:
        ServerNotStarted: It cannot listen.
    """
    address = start.addresses[0]
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server((address.host, address.port), family=family, backlog=128)
    except OSError as error:
        raise ServerNotStarted(f"Cannot listen on port {address.port} of {address.host}: {error}.") from error
    made = converted(app, start.server.called(interface_of(app)), start.order["bridge"])
    served = made
    if options.root_path and start.server.interface == "wsgi":
        from .around import mounted  # noqa: PLC0415 - few need it

        served = mounted(made, options.root_path)
    if start.server.logger is not None and options.log_level is not None:
        logging.getLogger(start.server.logger).setLevel(options.log_level.upper())
    run, stop = _MADE[start.name](served, listener, options)

    def serve() -> None:
        with listener:  # uvicorn leaves it open if the app's startup fails, and clients would wait in its backlog
            run()

    # A WSGI server tells nobody that it ends. Unless we do, the app's lifespan would end with the process only.
    is_ours = isinstance(made, ASGIMiddleware) and made is not app
    return BackgroundServer(str(address), serve, stop, made.close if is_ours else lambda: None)


# -- The servers ------------------------------------------------------------------------------------------------------

Made = tuple["Callable[[], object]", "Callable[[], object]"]


def _uvicorn(app: Any, listener: socket.socket, options: Options) -> Made:  # noqa: ANN401 - any app
    import uvicorn  # noqa: PLC0415 - it may not be installed

    config = uvicorn.Config(app, interface="asgi3", log_level=options.log_level, root_path=options.root_path)
    server = uvicorn.Server(config)

    def stop() -> None:
        server.should_exit = True

    return lambda: server.run([listener]), stop


def _waitress(app: Any, listener: socket.socket, options: Options) -> Made:  # noqa: ANN401 - any app
    server: Any = import_module("waitress").create_server(app, sockets=[listener], threads=options.threads or 4)
    stopping = threading.Event()

    def run() -> None:
        # As its own run(), which goes on for as long as any client keeps its connection.
        connections: Any = server._map  # noqa: SLF001 - with the listener, and what wakes this thread
        try:
            while not stopping.is_set() or server.active_channels:
                server.asyncore.loop(timeout=server.adj.asyncore_loop_timeout, map=connections, count=1)
                if stopping.is_set():
                    server.del_channel()
                    server.socket.close()
                    for channel in [*server.active_channels.values()]:
                        if not channel.requests:
                            channel.close_when_flushed = True
        finally:
            server.task_dispatcher.shutdown()
            server.close()  # last: a thread that has run a request wakes this one by a descriptor that this closes

    def stop() -> None:
        stopping.set()
        with contextlib.suppress(OSError):  # it has ended
            server.pull_trigger()

    return run, stop


def _cheroot(app: Any, listener: socket.socket, options: Options) -> Made:  # noqa: ANN401 - any app
    from cheroot import wsgi  # noqa: PLC0415 - it may not be installed

    address = listener.getsockname()[:2]
    listener.close()  # it binds its own
    server: Any = wsgi.Server(address, app, numthreads=options.threads or 10)
    server.prepare()
    return server.serve, server.stop


def _werkzeug(app: Any, listener: socket.socket, _: Options) -> Made:  # noqa: ANN401 - any app
    from werkzeug.serving import make_server  # noqa: PLC0415 - it may not be installed

    host, port = listener.getsockname()[:2]
    with listener:  # it makes a socket of its own of the descriptor
        server = make_server(host, port, app, threaded=True, fd=listener.fileno())

    def run() -> None:
        with server:
            server.serve_forever(poll_interval=0.1)

    return run, server.shutdown


_MADE: Final[dict[str, Callable[[Any, socket.socket, Options], Made]]] = {
    "uvicorn": _uvicorn,
    "waitress": _waitress,
    "cheroot": _cheroot,
    "werkzeug": _werkzeug,
}
