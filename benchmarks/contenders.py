"""Who is compared: every bridge, in both directions, how it is made, and which release it is.

A maker takes the app and the number of threads, and gives an app of the other kind. The threads of two of them are
those of the loop, which `same_threads` limits; asgiref's has one thread for all requests, whatever one asks for.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import a2wsgi

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    Make = Callable[[Any, int], Any]

OURS = "a2wsgi"
OURS_INLINE = "a2wsgi, inline"
OLD = "a2wsgi 1.10.10"
NATIVE_ASGI = "native ASGI app"
NATIVE_WSGI = "native WSGI app"

THREADS = 10  # 1.10.10's default and uvicorn's
BIGGEST_BODY = 2 * 1024**3  # hypercorn's bridge answers 400 to a longer one

#: What the figures depend on.
RELEASES = (
    "asgiref",
    "culsans",
    "django",
    "fastapi",
    "flask",
    "flask-sock",
    "granian",
    "gunicorn",
    "hypercorn",
    "janus",
    "starlette",
    "trio",
    "uvicorn",
    "uvloop",
    "waitress",
    "websockets",
)


def releases() -> dict[str, str]:
    """Each package that a figure depends on, with its release."""
    found = {"a2wsgi": importlib.metadata.version("a2wsgi")}
    for name in RELEASES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not there"
    return found


# -- 1.10.10, which has our name ----------------------------------------------------------------------------------


def peer_directory() -> Path:
    """Where 1.10.10 is, to be put in front of ``sys.path``; pip puts it there at the first call."""
    directory = Path(sys.prefix) / "a2wsgi-1.10.10"
    if not directory.is_dir():
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        arguments = ["--no-deps", "--target", str(directory), "a2wsgi==1.10.10"]
        subprocess.run([*pip, *arguments], check=True)  # noqa: S603 - pip
    return directory


def old() -> ModuleType:
    """Import 1.10.10 beside ours."""
    directory = str(peer_directory())
    ours = _forget_a2wsgi()
    sys.path.insert(0, directory)
    try:
        module = importlib.import_module("a2wsgi")
        assert Path(module.__file__ or "").is_relative_to(directory), module.__file__
        assert module.__version__ == "1.10.10", module.__version__
        return module
    finally:
        sys.path.remove(directory)
        _forget_a2wsgi()
        sys.modules.update(ours)


def _forget_a2wsgi() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == "a2wsgi"]
    return {name: sys.modules.pop(name) for name in names}


# -- WSGI on ASGI -------------------------------------------------------------------------------------------------


def _ours(app: Any, threads: int) -> Any:
    return a2wsgi.WSGIMiddleware(app, workers=threads)


def ours_with_websockets(app: Any, threads: int) -> Any:
    """Ours with a thread for each of many WebSockets, and few for requests."""
    return a2wsgi.WSGIMiddleware(app, workers=THREADS, max_websockets=threads)


def _old(app: Any, threads: int) -> Any:
    return old().WSGIMiddleware(app, workers=threads)


def _asgiref(app: Any, threads: int) -> Any:
    from asgiref.wsgi import WsgiToAsgi

    return WsgiToAsgi(app)


def _starlettes(app: Any, threads: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        from starlette.middleware.wsgi import WSGIMiddleware

    return WSGIMiddleware(app)


def _uvicorns(app: Any, threads: int) -> Any:
    from uvicorn.middleware.wsgi import _WSGIMiddleware  # the public name is ours where a2wsgi is installed

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        return _WSGIMiddleware(app, workers=threads)


def _hypercorns(app: Any, threads: int) -> Any:
    from hypercorn.middleware.wsgi import AsyncioWSGIMiddleware

    return AsyncioWSGIMiddleware(app, max_body_size=BIGGEST_BODY)


#: Every bridge that runs a WSGI app on an ASGI server.
WSGI_ON_ASGI: dict[str, Make] = {
    OURS: _ours,
    OLD: _old,
    "asgiref": _asgiref,
    "Starlette's": _starlettes,
    "uvicorn's": _uvicorns,
    "hypercorn's": _hypercorns,
}


def same_threads(threads: int) -> None:
    """Give the bridges that use the running loop's own threads so many of them."""
    import anyio.to_thread

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads))
    anyio.to_thread.current_default_thread_limiter().total_tokens = threads


# -- ASGI on WSGI: the server brings the threads ------------------------------------------------------------------


def _ours_to_wsgi(app: Any, threads: int) -> Any:
    return a2wsgi.ASGIMiddleware(app)


def ours_to_wsgi_with_websockets(app: Any, threads: int) -> Any:
    """Ours without pings, as uvicorn here: the clients expect echoes alone."""
    return a2wsgi.ASGIMiddleware(app, websocket_ping_interval=None)


def _ours_inline(app: Any, threads: int) -> Any:
    return a2wsgi.ASGIMiddleware(app, inline=True)


def _old_to_wsgi(app: Any, threads: int) -> Any:
    return old().ASGIMiddleware(app)


#: Every bridge that runs an ASGI app on a WSGI server.
ASGI_ON_WSGI: dict[str, Make] = {OURS: _ours_to_wsgi, OURS_INLINE: _ours_inline, OLD: _old_to_wsgi}
