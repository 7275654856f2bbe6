"""The types of WSGI and ASGI, and the options of the bridges.

*Facts*

- PEP 3333, "environ Variables": an environ is a builtin ``dict`` and may hold anything besides what the PEP names. So
  `Environ` is ``dict[str, Any]``; `CGIRequiredDefined`, `CGIOptionalDefined` and `WSGIDefined` document its members.
- ASGI, "Applications": scopes and events are dicts. Frameworks type them as ``MutableMapping[str, Any]`` (Starlette),
  and so do `Scope` and `Message`, so that ``app.mount("/x", WSGIMiddleware(flask_app))`` type-checks. To a type checker
  a ``TypedDict`` is not a ``MutableMapping``: those below are documentation, and types for what is made here.
- `AnyASGIApp` and `AnyWSGIApp` are what a bridge accepts: apps with annotations from anywhere (asgiref, hypercorn,
  ``_typeshed.wsgi``). `ASGIApp` and `WSGIApp` are what a bridge is.

There is no ``from __future__ import annotations`` here, so that ``typing.get_type_hints`` works on every class.
"""

import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict

if sys.version_info >= (3, 11):
    from typing import NotRequired
elif TYPE_CHECKING:
    from typing_extensions import NotRequired
else:  # Python 3.10; nothing asks at run time which keys are required

    class NotRequired:
        """Stands in for ``typing.NotRequired``."""

        def __class_getitem__(cls, item: object) -> object:
            return item


# -- WSGI (PEP 3333) --------------------------------------------------------------------------------------------------

Environ: TypeAlias = dict[str, Any]
# These two are exactly as in ``_typeshed.wsgi``: servers are given our apps, and apps are given servers'
# start_response().
ExceptionInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType]
WriteCallable: TypeAlias = Callable[[bytes], object]
IterableChunks: TypeAlias = Iterable[bytes]


class StartResponse(Protocol):
    """PEP 3333, "The start_response() Callable"."""

    def __call__(
        self,
        status: str,
        response_headers: list[tuple[str, str]],
        exc_info: ExceptionInfo | tuple[None, None, None] | None = None,
        /,
    ) -> WriteCallable: ...


WSGIApp: TypeAlias = Callable[[Environ, StartResponse], IterableChunks]
AnyWSGIApp: TypeAlias = Callable[[Any, Any], Iterable[bytes]]


class InputStream(Protocol):
    """PEP 3333, "Input and Error Streams": ``wsgi.input``."""

    def read(self, size: int = -1, /) -> bytes: ...

    def readline(self, limit: int = -1, /) -> bytes: ...

    def readlines(self, hint: int = -1, /) -> list[bytes]: ...


class ErrorStream(Protocol):
    """PEP 3333, "Input and Error Streams": ``wsgi.errors``."""

    def flush(self) -> object: ...

    def write(self, s: str, /) -> object: ...

    def writelines(self, seq: list[str], /) -> object: ...


class CGIRequiredDefined(TypedDict):
    """PEP 3333, "environ Variables": the keys that are always present and never empty."""

    REQUEST_METHOD: str
    SERVER_NAME: str
    SERVER_PORT: str
    SERVER_PROTOCOL: str


class CGIOptionalDefined(TypedDict, total=False):
    """PEP 3333, "environ Variables": the keys that may be empty or absent, and those that servers add."""

    SCRIPT_NAME: str
    PATH_INFO: str
    QUERY_STRING: str
    CONTENT_TYPE: str
    CONTENT_LENGTH: str
    REQUEST_URI: str
    RAW_URI: str
    REMOTE_ADDR: str
    REMOTE_PORT: str


WSGIDefined = TypedDict(
    "WSGIDefined",
    {
        "wsgi.version": tuple[int, int],
        "wsgi.url_scheme": str,
        "wsgi.input": InputStream,
        "wsgi.errors": ErrorStream,
        "wsgi.multithread": bool,
        "wsgi.multiprocess": bool,
        "wsgi.run_once": bool,
    },
)

# -- ASGI: scopes (ASGI HTTP 2.5, WebSocket 2.5, Lifespan 2.0) --------------------------------------------------------

HeaderPairs: TypeAlias = Iterable[tuple[bytes, bytes]]


class ASGIVersions(TypedDict):
    """ASGI, "Applications": ``scope["asgi"]``."""

    spec_version: str
    version: Literal["3.0"]


class HTTPScope(TypedDict):
    """ASGI HTTP 2.5, "HTTP Connection Scope"."""

    type: Literal["http"]
    asgi: ASGIVersions
    http_version: str
    method: str
    scheme: str
    path: str
    raw_path: NotRequired[bytes]
    query_string: bytes
    root_path: str
    headers: HeaderPairs
    client: NotRequired[tuple[str, int]]
    server: NotRequired[tuple[str, int | None]]
    state: NotRequired[dict[str, Any]]
    extensions: NotRequired[dict[str, dict[object, object]]]


class WebSocketScope(TypedDict):
    """ASGI WebSocket 2.5, "Websocket Connection Scope"."""

    type: Literal["websocket"]
    asgi: ASGIVersions
    http_version: str
    scheme: str
    path: str
    raw_path: bytes
    query_string: bytes
    root_path: str
    headers: HeaderPairs
    client: NotRequired[tuple[str, int]]
    server: NotRequired[tuple[str, int | None]]
    subprotocols: Iterable[str]
    state: NotRequired[dict[str, Any]]
    extensions: NotRequired[dict[str, dict[object, object]]]


class LifespanScope(TypedDict):
    """ASGI Lifespan 2.0, "Scope"."""

    type: Literal["lifespan"]
    asgi: ASGIVersions
    state: NotRequired[dict[str, Any]]


WWWScope: TypeAlias = HTTPScope | WebSocketScope

# -- ASGI: events -----------------------------------------------------------------------------------------------------


class HTTPRequestEvent(TypedDict):
    """ASGI HTTP 2.5, "Request": a part of the request's body."""

    type: Literal["http.request"]
    body: bytes
    more_body: NotRequired[bool]


class HTTPResponseStartEvent(TypedDict):
    """ASGI HTTP 2.5, "Response Start"."""

    type: Literal["http.response.start"]
    status: int
    headers: NotRequired[HeaderPairs]
    trailers: NotRequired[bool]


class HTTPResponseBodyEvent(TypedDict):
    """ASGI HTTP 2.5, "Response Body": a part of the response's body."""

    type: Literal["http.response.body"]
    body: NotRequired[bytes]
    more_body: NotRequired[bool]


class HTTPDisconnectEvent(TypedDict):
    """ASGI HTTP 2.5, "Disconnect"."""

    type: Literal["http.disconnect"]


class WebSocketConnectEvent(TypedDict):
    """ASGI WebSocket 2.5, "Connect"."""

    type: Literal["websocket.connect"]


class WebSocketAcceptEvent(TypedDict):
    """ASGI WebSocket 2.5, "Accept"."""

    type: Literal["websocket.accept"]
    subprotocol: NotRequired[str | None]
    headers: NotRequired[HeaderPairs]


class WebSocketReceiveEvent(TypedDict):
    """ASGI WebSocket 2.5, "Receive"."""

    type: Literal["websocket.receive"]
    bytes: NotRequired[bytes | None]
    text: NotRequired[str | None]


class WebSocketSendEvent(TypedDict):
    """ASGI WebSocket 2.5, "Send"."""

    type: Literal["websocket.send"]
    bytes: NotRequired[bytes | None]
    text: NotRequired[str | None]


class WebSocketDisconnectEvent(TypedDict):
    """ASGI WebSocket 2.5, "Disconnect"."""

    type: Literal["websocket.disconnect"]
    code: int
    reason: NotRequired[str | None]


class WebSocketCloseEvent(TypedDict):
    """ASGI WebSocket 2.5, "Close"."""

    type: Literal["websocket.close"]
    code: NotRequired[int]
    reason: NotRequired[str | None]


class LifespanStartupEvent(TypedDict):
    """ASGI Lifespan 2.0, "Startup"."""

    type: Literal["lifespan.startup"]


class LifespanShutdownEvent(TypedDict):
    """ASGI Lifespan 2.0, "Shutdown"."""

    type: Literal["lifespan.shutdown"]


class LifespanStartupCompleteEvent(TypedDict):
    """ASGI Lifespan 2.0, "Startup Complete"."""

    type: Literal["lifespan.startup.complete"]


class LifespanStartupFailedEvent(TypedDict):
    """ASGI Lifespan 2.0, "Startup Failed"."""

    type: Literal["lifespan.startup.failed"]
    message: NotRequired[str]


class LifespanShutdownCompleteEvent(TypedDict):
    """ASGI Lifespan 2.0, "Shutdown Complete"."""

    type: Literal["lifespan.shutdown.complete"]


class LifespanShutdownFailedEvent(TypedDict):
    """ASGI Lifespan 2.0, "Shutdown Failed"."""

    type: Literal["lifespan.shutdown.failed"]
    message: NotRequired[str]


ReceiveEvent: TypeAlias = (
    HTTPRequestEvent
    | HTTPDisconnectEvent
    | WebSocketConnectEvent
    | WebSocketReceiveEvent
    | WebSocketDisconnectEvent
    | LifespanStartupEvent
    | LifespanShutdownEvent
)
SendEvent: TypeAlias = (
    HTTPResponseStartEvent
    | HTTPResponseBodyEvent
    | WebSocketAcceptEvent
    | WebSocketSendEvent
    | WebSocketCloseEvent
    | LifespanStartupCompleteEvent
    | LifespanStartupFailedEvent
    | LifespanShutdownCompleteEvent
    | LifespanShutdownFailedEvent
)

# -- ASGI: callables --------------------------------------------------------------------------------------------------

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
# The options of the bridges, by name.


class WSGIMiddlewareOptions(TypedDict, total=False):
    """The keyword-only options of `WSGIMiddleware`."""

    request_buffer_bytes: int
    response_buffer_bytes: int
    spool_request: bool
    max_request_bytes: int | None
    max_queue: int | None
    max_websockets: int | None
    app_timeout: float | None
    send_timeout: float | None
    receive_timeout: float | None
    shutdown_timeout: float
    script_name: str | None
    multiprocess: bool | None
    ignore_disconnect: bool
    allow_underscores: bool


class ToASGIOptions(WSGIMiddlewareOptions, total=False):
    """All options of `WSGIMiddleware`."""

    workers: int | None
    send_queue_size: int | None


class ASGIMiddlewareOptions(TypedDict, total=False):
    """The keyword-only options of `ASGIMiddleware`."""

    detach_background: bool
    inline: bool
    backend: Literal["asyncio", "trio"]
    lifespan: bool | None
    response_buffer_bytes: int
    app_timeout: float | None
    receive_timeout: float | None
    grace_timeout: float
    startup_timeout: float
    shutdown_timeout: float
    max_websockets: int | None
    websocket_max_message_bytes: int | None
    websocket_ping_interval: float | None
    websocket_ping_timeout: float | None
    websocket_compression: bool


class ToWSGIOptions(ASGIMiddlewareOptions, total=False):
    """All options of `ASGIMiddleware`."""

    wait_time: float | None
    loop: Any  # asyncio.AbstractEventLoop | None, which is not imported for type hints alone


ASGI2Instance: TypeAlias = Callable[[Receive, Send], Awaitable[None]]
# ASGI, "Legacy Applications": the double callable of ASGI 2.
ASGI2App: TypeAlias = Callable[[Scope], ASGI2Instance]
AnyASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[Any]]
# What servers pass to a bridge: asgiref and hypercorn describe messages by TypedDicts of their own.
AnyReceive: TypeAlias = Callable[[], Awaitable[Any]]
AnySend: TypeAlias = Callable[[Any], Awaitable[None]]
