"""The class that runs an ASGI app on a WSGI server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from a2wsgi._asgi_on_wsgi.bridge import ASGIBridge
from a2wsgi._asgi_on_wsgi.settings import ASGISettings
from a2wsgi._interface import detect, first_argument
from a2wsgi._options import ClassSignature, described

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from typing_extensions import Self, Unpack

    from a2wsgi._types import AnyASGIApp, AnyWSGIApp, ASGI2App, ASGIMiddlewareOptions, WSGIMiddlewareOptions

    from .wsgi_middleware import WSGIMiddleware

MYPY = False  # mypy takes a constant of this name to be true


@described(ASGISettings)
class ASGIMiddleware(ASGIBridge):
    """Turns an ASGI app into a WSGI app, so that a WSGI server can run it.

    Args:
        app: The ASGI 3 or ASGI 2 app. If you pass a WSGI app, you get a `WSGIMiddleware` instead.

    Threading: you may create it on any thread, fork afterwards, and call it on many threads at once, but not on the
    thread of its own loop.

    Spec: PEP 3333; ASGI 3.0, HTTP 2.5, lifespan 2.0.
    """

    # The overloads say which bridge is made. mypy goes by them because __init__ is inherited. The last one is for
    # subclasses with a constructor of their own, since pyright checks their calls against these, too. It is hidden from
    # mypy, which would infer Any for each call with an app whose types contain an Any.
    @overload
    def __new__(  # type: ignore[misc]  # it returns the other bridge
        cls,
        app: AnyWSGIApp,
        workers: int | None = None,
        send_queue_size: int | None = None,
        **options: Unpack[WSGIMiddlewareOptions],
    ) -> WSGIMiddleware: ...
    @overload
    def __new__(
        cls,
        app: AnyASGIApp | ASGI2App,
        wait_time: float | None = None,
        loop: AbstractEventLoop | None = None,
        **options: Unpack[ASGIMiddlewareOptions],
    ) -> Self: ...

    if not MYPY:

        @overload
        def __new__(cls, *args: Any, **options: Any) -> Self: ...  # noqa: ANN401 - any arguments of a subclass

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Create the bridge that the app needs: a `WSGIMiddleware` for a WSGI app. A subclass stays what it is."""
        if cls is ASGIMiddleware and detect(first_argument(args, options)).interface == "wsgi":
            from .wsgi_middleware import WSGIMiddleware  # noqa: PLC0415 - it loads the other wing

            return WSGIMiddleware(*args, **options)
        return super().__new__(cls)

    __signature__ = ClassSignature(ASGISettings)
