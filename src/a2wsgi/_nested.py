"""All that two bridges of one request tell each other, and what the inner one takes back.

Bridges nest: `chain` makes ``WSGIMiddleware(ASGIMiddleware(app))`` and the reverse, and users mount one framework in
another. The interface between two bridges has no word for much of what the outer one knew or the inner one has to say.
It goes through this module, so that the request's own files know nothing of pairs but a few tests for None.

Strategy
    *An ASGI app inside, an ASGI server outside* (``WSGIMiddleware(ASGIMiddleware(app))``): the outer bridge puts its
    ``a2wsgi.disconnected`` into the environ. The inner one finds it there and leaves a `Pair` in it, by `join`:
    disconnects come in, extension messages, trailers and late errors go out. `take_back_scope` restores what the scope
    had and the environ cannot hold.

    *A WSGI app inside, a WSGI server outside* (``ASGIMiddleware(WSGIMiddleware(app))``): the outer bridge's scope has
    the server's environ as ``wsgi_environ``. `take_back_environ` restores what it had and the scope cannot hold, and
    `give_back` rewinds the server's stream to where the app stopped reading.

Guarantees
    - What a middleware between the bridges has changed stays changed: a value is taken back only if the environ or
      scope between them still says what the outer bridge made of it.
    - ``asgi.scope`` and ``wsgi_environ`` may be another library's, or anything that a middleware has put there. What is
      neither a scope nor an environ is left alone.
    - A request that is not nested pays one test for each of these.
"""

from __future__ import annotations

import io
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from ._protocol.names import REQUEST_NAMES
from ._protocol.paths import address, without_query, wsgi_bytes

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Mapping

    from ._protocol.environ import EnvironTemplate
    from ._types import Environ, Message, Scope


# -- An ASGI app under two bridges: what its bridge tells the one around it -------------------------------------------


class Pair:
    """What an ASGI app's bridge tells the bridge around it, for one request.

    Attributes:
        late_failure: What the app raised after its response was complete. Written by the thread that runs the inner
            bridge's ``close()``, and read on the outer loop thread once that thread is done.
        messages: Messages of ASGI extensions that the outer server takes, to be sent before the next part of the
            response. Appended on the inner loop thread, taken on the outer one.
        trailers: Messages to be sent after the body; None if the app has announced no trailers.
        under_asgi_server: The outer bridge is the outermost: its server speaks ASGI.
    """

    __slots__ = ("_has_looked", "_offered", "late_failure", "messages", "trailers", "under_asgi_server")

    def __init__(self, *, under_asgi_server: bool) -> None:
        self.late_failure: BaseException | None = None
        self._offered: list[tuple[BaseException, contextvars.Context]] = []  # one at most
        self._has_looked = False  # the outer bridge, for what was offered
        self.messages: list[Message] = []
        self.trailers: list[Message] | None = None
        self.under_asgi_server = under_asgi_server

    def take_failure(self, failure: BaseException | None) -> BaseException | None:
        """What the app failed with: ``failure``, or else what it raised after its response. Outer loop thread; once.

        The error is kept no longer, since its traceback leads to whoever holds this object.
        """
        late = self.late_failure
        if late is not None:  # else the inner bridge's thread may write it right now, and that must not be lost
            self.late_failure = None
        return late if failure is None else failure

    def offer(self, error: BaseException, context: contextvars.Context) -> bool:
        """Leave it to the outer bridge to tell what the app of a WebSocket raised. Inner loop thread; once.

        Args:
            error: What it raised.
            context: What in.

        Returns:
            Whether that tells of it. It may be through with the WebSocket, and then the caller has to.
        """
        # 1. It is there. 2. The outer bridge is asked whether it has looked. If it looks between the two, it takes it.
        self._offered.append((error, context))
        return not self._has_looked or self.take_offer() is None

    def take_offer(self) -> tuple[BaseException, contextvars.Context] | None:
        """What was offered, and not taken; nobody looks for it after this. Any thread of the outer bridge."""
        self._has_looked = True
        try:
            return self._offered.pop()
        except IndexError:
            return None


def join(environ: Environ, on_abort: Callable[[BaseException], object]) -> Pair | None:
    """Join the request of ``environ`` with that of the bridge around it; None if there is none. Worker thread.

    Args:
        environ: The environ with which the inner bridge was called.
        on_abort: Called once, from any thread, with an error for the app, if the outer request is aborted. It must
            neither wait nor raise.
    """
    join_outer: Any = getattr(environ.get("a2wsgi.disconnected"), "_join", None)
    if join_outer is None:
        return None
    pair = Pair(under_asgi_server="wsgi_environ" not in environ.get("asgi.scope", ()))
    join_outer(pair, on_abort)
    return pair


# Extensions that let the app send messages of their own, which WSGI has no way to pass on.
_MESSAGE_EXTENSIONS = ("http.response.", "websocket.")
#: The exceptions: their messages are part of neither head nor body, and go from bridge to bridge by `Pair.messages`.
#: Early hints are no exception, since WSGI has a word for them.
PASSED_ON = frozenset({f"http.response.{name}" for name in ("debug", "push", "trailers")})


def take_back_scope(scope: dict[str, Any], environ: Environ) -> None:
    """Restore what the outer bridge's scope had, wherever ``environ`` still says what was made of it.

    Args:
        scope: What `scope_from_environ` made of ``environ``. Changed in place.
        environ: The environ with the outer bridge's ``asgi.scope``.

    Raises:
        BadRequest: The outer scope's ``Content-Length`` is malformed. Answer 400.
        ServerProtocolError: A member of the outer scope has the wrong type.
    """
    # Here and below: a program with bridges of one direction is spared the import of the other's facts.
    from ._protocol import tls  # noqa: PLC0415
    from ._protocol.environ import DEFAULT_TEMPLATE, ScopeView, environ_from_scope, fault_of_scope  # noqa: PLC0415

    view: Scope | None = environ["asgi.scope"]
    if not isinstance(view, MutableMapping):
        return  # not a bridge's
    outer, template = (view.scope, view.template) if isinstance(view, ScopeView) else (view, DEFAULT_TEMPLATE)
    try:
        was = environ_from_scope(outer, template)
        if "wsgi_environ" in outer:  # three bridges or more
            take_back_environ(was, outer)
        same = {key for key in was if key in environ and environ[key] == was[key]}
        is_tls_same = {key for key in was if tls.is_key(key)} <= same

        if scope["path"] == outer.get("path") and {"SCRIPT_NAME", "PATH_INFO", "REQUEST_URI", "RAW_URI"} <= same:
            scope["raw_path"] = without_query(outer.get("raw_path")) or scope["raw_path"]
            scope["root_path"] = outer.get("root_path") or ""
        if {"SERVER_NAME", "SERVER_PORT"} <= same:
            scope["server"] = address(outer.get("server"))
        extensions: Mapping[str, object] = outer.get("extensions") or {}
        scope["extensions"] = scope["extensions"] | {
            key: extensions[key]
            for key in extensions
            if (key in PASSED_ON or not key.startswith(_MESSAGE_EXTENSIONS)) and (key != tls.EXTENSION or is_tls_same)
        }
        scope["headers"] = _headers_taken_back(scope["headers"], outer["headers"], template, same)
        for key in outer.keys() - scope.keys():  # the lifespan's state, and what middleware added: session, user
            scope[key] = outer[key]
    except (TypeError, AttributeError, LookupError) as error:
        raise fault_of_scope(outer) or error  # noqa: B904 - its own cause


def _headers_taken_back(
    headers: list[tuple[bytes, bytes]], outer: list[tuple[bytes, bytes]], template: EnvironTemplate, same: set[str]
) -> list[tuple[bytes, bytes]]:
    """Return the headers as the outer scope has them: in its order, with its repeats.

    Args:
        headers: The headers made of the environ, each name once.
        outer: The headers of the outer scope.
        template: That of the environ.
        same: The keys of the environ that nobody has changed since it was made.
    """
    left = dict(headers)
    back: list[tuple[bytes, bytes]] = []
    for name, value in outer:
        key = template.environ_keys[name]
        if key in same and not key.startswith("CONTENT_"):  # repeats of those two have been collapsed
            left.pop(REQUEST_NAMES[key], None)
            back.append((name.lower(), value.strip(b" \t")))
        elif b"_" in name and not key:  # dropped for WSGI's sake; an ASGI app can tell X_Name from X-Name
            back.append((name.lower(), value.strip(b" \t")))
        elif (now := REQUEST_NAMES[key]) in left:
            back.append((now, left.pop(now)))
    return [*back, *left.items()]


# -- A WSGI app under two bridges: what its bridge takes back of the server's environ ---------------------------------

# These describe the request. If the scope no longer has them, they are no longer true.
_REQUEST_KEYS = frozenset({"CONTENT_LENGTH", "CONTENT_TYPE", "REMOTE_ADDR", "REMOTE_PORT"})
# Headers, which the scope has, and keys that each bridge and server sets for itself.
_OTHER_KEYS = ("HTTP_", "wsgi.", "asgi.", "a2wsgi.")
# What the outer server says of itself, wherever the app runs.
_SERVER_KEYS = frozenset({"wsgi.errors", "wsgi.multiprocess", "wsgi.run_once"})


def is_of_server(environ: object) -> bool:
    """Return whether a scope's ``wsgi_environ`` is a WSGI server's own: the bridge that made the scope is outermost."""
    return isinstance(environ, dict) and "asgi.scope" not in environ


def take_back_environ(environ: Environ, scope: Scope) -> None:
    """Restore what the server's environ had and ASGI has no word for.

    Args:
        environ: What `environ_from_scope` made of ``scope``. Changed in place.
        scope: The scope with the outer bridge's ``wsgi_environ``.

    Raises:
        BadRequest: The outer environ's ``CONTENT_LENGTH`` is malformed. Answer 400.
        ServerProtocolError: A value in the outer environ has the wrong type.
    """
    from ._protocol import tls  # noqa: PLC0415
    from ._protocol.environ import ScopeView  # noqa: PLC0415
    from ._protocol.scope import scope_from_environ  # noqa: PLC0415

    outer: Environ | None = scope["wsgi_environ"]
    if not isinstance(outer, dict):
        return  # not a bridge's
    was = scope_from_environ(outer)
    if "asgi.scope" in outer:  # three bridges or more
        take_back_scope(was, outer)
    uri = outer.get("REQUEST_URI") or outer.get("RAW_URI")
    if uri and all(scope.get(key) == was[key] for key in ("raw_path", "query_string")):
        environ["REQUEST_URI"] = environ["RAW_URI"] = wsgi_bytes(uri).decode("latin-1")
    if all(scope.get(key) == was[key] for key in ("path", "root_path")):
        for key in ("SCRIPT_NAME", "PATH_INFO"):
            environ[key] = wsgi_bytes(outer.get(key) or "").decode("latin-1")
    extensions: Mapping[str, object] = scope.get("extensions") or {}
    is_tls_same = extensions.get(tls.EXTENSION) == was["extensions"].get(tls.EXTENSION)
    if is_tls_same:  # then the server's own keys are the better ones, and what was made of them goes
        for key in list(filter(tls.is_key, environ)):
            del environ[key]
    for key, value in outer.items():
        if key in environ or key in _REQUEST_KEYS or str(key).startswith(_OTHER_KEYS):
            continue
        if is_tls_same or not tls.is_key(key):
            environ[key] = value
    view: object = environ["asgi.scope"]
    said = {"wsgi.multiprocess"} if isinstance(view, ScopeView) and view.template.says_multiprocess else set[str]()
    for key in _SERVER_KEYS & outer.keys() - said:
        environ[key] = outer[key]
    if environ.get("REMOTE_ADDR") != outer.get("REMOTE_ADDR"):
        environ.pop("REMOTE_HOST", None)


def give_back(body: object, scope: Scope) -> None:
    """Rewind the server's ``wsgi.input``, if it is in memory, to where the app stopped reading. Worker thread.

    Test clients follow a redirect with the stream that the app has not read.

    Args:
        body: The app's ``wsgi.input``.
        scope: The scope with the outer bridge's ``wsgi_environ``.
    """
    outer: Environ | None = scope["wsgi_environ"]
    source = outer.get("wsgi.input") if isinstance(outer, dict) else None
    if isinstance(body, io.BytesIO) and type(source) is io.BytesIO and not (body.closed or source.closed):
        unread = len(body.getbuffer()) - body.tell()
        if 0 < unread <= source.tell():
            source.seek(-unread, io.SEEK_CUR)
