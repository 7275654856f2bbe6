"""The class that runs a WSGI app on an ASGI server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from a2wsgi._interface import detect, first_argument
from a2wsgi._options import ClassSignature, described
from a2wsgi._wsgi_on_asgi.bridge import WSGIBridge
from a2wsgi._wsgi_on_asgi.settings import WSGISettings

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from typing_extensions import Self, Unpack

    from a2wsgi._types import AnyASGIApp, AnyWSGIApp, ASGI2App, ASGIMiddlewareOptions, WSGIMiddlewareOptions

    from .asgi_middleware import ASGIMiddleware

MYPY = False  # mypy takes a constant of this name to be true


@described(WSGISettings)
class WSGIMiddleware(WSGIBridge):
    """Turns a WSGI app into an ASGI 3 app, so that an ASGI server can run it.

    Args:
        app: The WSGI app. If you pass an ASGI app, you get an `ASGIMiddleware` instead.

    Threading: you may create it on any thread, fork afterwards, and call it on any event loop, or on several. It calls
    the app on its own worker threads.

    Cancellation: a cancelled request does not wait for the app. The app's next read or write raises
    `ClientDisconnected`, and its iterable is closed.

    Spec: PEP 3333; ASGI 3.0, HTTP 2.5, lifespan 2.0.
    """

    # The overloads say which bridge is made. mypy goes by them because __init__ is inherited. The last one is for
    # subclasses with a constructor of their own, since pyright checks their calls against these, too. It is hidden from
    # mypy, which would infer Any for each call with an app whose types contain an Any.
    @overload
    def __new__(
        cls,
        app: AnyWSGIApp,
        workers: int | None = None,
        send_queue_size: int | None = None,
        **options: Unpack[WSGIMiddlewareOptions],
    ) -> Self: ...
    @overload
    def __new__(  # type: ignore[misc]  # it returns the other bridge
        cls,
        app: AnyASGIApp | ASGI2App,
        wait_time: float | None = None,
        loop: AbstractEventLoop | None = None,
        **options: Unpack[ASGIMiddlewareOptions],
    ) -> ASGIMiddleware: ...

    if not MYPY:

        @overload
        def __new__(cls, *args: Any, **options: Any) -> Self: ...  # noqa: ANN401 - any arguments of a subclass

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Create the bridge that the app needs: an `ASGIMiddleware` for an ASGI app. A subclass stays what it is."""
        if cls is WSGIMiddleware and detect(first_argument(args, options)).interface not in {"wsgi", None}:
            from .asgi_middleware import ASGIMiddleware  # noqa: PLC0415 - it loads the other wing

            return ASGIMiddleware(*args, **options)
        return super().__new__(cls)

    __signature__ = ClassSignature(WSGISettings)
