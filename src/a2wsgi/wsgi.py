"""The import path of a2wsgi 1.x; use ``from a2wsgi import WSGIMiddleware``."""

from __future__ import annotations

import contextvars
import os
import sys
import weakref
from collections.abc import Iterable
from typing import IO, Any, cast

from a2wsgi import _type_hints as hints

from ._deprecated import deprecated, missing
from ._front.wsgi_middleware import WSGIMiddleware
from ._protocol.environ import EnvironTemplate, environ_from_scope
from ._wsgi_on_asgi.deprecated import PulledBody as Body
from ._wsgi_on_asgi.deprecated import ResponderSteps

__all__ = ["Body", "WSGIMiddleware", "WSGIResponder", "build_environ"]


def build_environ(scope: hints.Scope | hints.HTTPScope, body: IO[bytes]) -> hints.Environ:
    """The environ of a scope, with ``body`` as its ``wsgi.input``."""
    template = EnvironTemplate(script_name=os.environ.get("SCRIPT_NAME", ""))
    return {
        **environ_from_scope(cast("hints.Scope", scope), template),
        "wsgi.input": body,
        "wsgi.errors": sys.stderr,
    }


_app_of_responder: contextvars.ContextVar[hints.WSGIApp] = contextvars.ContextVar("a2wsgi.app_of_responder")
_bridges_of_executors: weakref.WeakKeyDictionary[Any, WSGIMiddleware] = weakref.WeakKeyDictionary()


class _LoopsExecutor:
    """Stands for None, which in 1.x meant the executor of the loop."""


_LOOPS_EXECUTOR = _LoopsExecutor()


def _call_app_of_responder(environ: hints.Environ, start_response: hints.StartResponse) -> Iterable[bytes]:
    return _app_of_responder.get()(environ, start_response)


class WSGIResponder(ResponderSteps):
    """Deprecated: answers one request as in a2wsgi 1.x, for programs that override its steps.

    As long as none is overridden, a `WSGIMiddleware` answers, with as many threads as ``executor`` may have.
    """

    def __init__(self, app: hints.WSGIApp, executor: Any, send_queue_size: int | None = 10) -> None:  # noqa: ANN401 - as in 1.x
        deprecated(
            "WSGIResponder is deprecated. A WSGIMiddleware tells the app of clients that leave, and bounds its memory; "
            "call it with a receive and a send of your own to see or to change the messages."
        )
        super().__init__(app, executor, send_queue_size)

    async def __call__(self, scope: Any, receive: hints.Receive, send: hints.Send) -> None:  # noqa: ANN401 - 1.x: an HTTPScope
        """Answer the request."""
        if any(getattr(type(self), step) is not getattr(ResponderSteps, step) for step in _STEPS):
            await self.answer(build_environ(scope, Body(self.loop, receive)), send)
            return
        token = _app_of_responder.set(self.app)
        try:
            await _bridge_of(self.executor)(scope, receive, send)
        finally:
            _app_of_responder.reset(token)


_STEPS = ("send", "sender", "start_response", "wsgi")


def _bridge_of(executor: Any) -> WSGIMiddleware:  # noqa: ANN401 - as in 1.x
    executor = _LOOPS_EXECUTOR if executor is None else executor
    bridge = _bridges_of_executors.get(executor)
    if bridge is None:
        workers = getattr(executor, "_max_workers", None)
        bridge = _bridges_of_executors[executor] = WSGIMiddleware(_call_app_of_responder, workers)
    return bridge


_GONE = ("unicode_to_wsgi", "ENC", "ESC")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - it gives nothing
    missing(__name__, name, _GONE)
