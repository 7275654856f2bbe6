"""The type names of 1.10.10 are where they were, and mean what type checkers and ``get_type_hints`` expect."""

from __future__ import annotations

import typing
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import pytest

from a2wsgi import _types, asgi_typing, wsgi_typing

WSGI_NAMES = {
    "CGIOptionalDefined",
    "CGIRequiredDefined",
    "Environ",
    "ErrorStream",
    "ExceptionInfo",
    "InputStream",
    "IterableChunks",
    "StartResponse",
    "WSGIApp",
    "WSGIDefined",
    "WriteCallable",
}
ASGI_NAMES = {
    "ASGIApp",
    "ASGIVersions",
    "HTTPDisconnectEvent",
    "HTTPRequestEvent",
    "HTTPResponseBodyEvent",
    "HTTPResponseStartEvent",
    "HTTPScope",
    "LifespanScope",
    "LifespanShutdownCompleteEvent",
    "LifespanShutdownEvent",
    "LifespanShutdownFailedEvent",
    "LifespanStartupCompleteEvent",
    "LifespanStartupEvent",
    "LifespanStartupFailedEvent",
    "Receive",
    "ReceiveEvent",
    "Scope",
    "Send",
    "SendEvent",
    "WWWScope",
    "WebSocketAcceptEvent",
    "WebSocketCloseEvent",
    "WebSocketConnectEvent",
    "WebSocketDisconnectEvent",
    "WebSocketReceiveEvent",
    "WebSocketScope",
    "WebSocketSendEvent",
}


def test_wsgi_typing_has_every_name_of_1_10_10() -> None:
    """Each public name of 1.10.10's ``a2wsgi.wsgi_typing`` can be imported, and nothing else."""
    assert set(wsgi_typing.__all__) == WSGI_NAMES
    assert all(getattr(wsgi_typing, name) is getattr(_types, name) for name in WSGI_NAMES)


def test_asgi_typing_has_every_name_of_1_10_10() -> None:
    """Each public name of 1.10.10's ``a2wsgi.asgi_typing`` can be imported, and nothing else."""
    assert set(asgi_typing.__all__) == ASGI_NAMES
    made_of_any = {"ASGIApp", "Receive", "Scope", "Send"}
    assert all(getattr(asgi_typing, name) is getattr(_types, name) for name in ASGI_NAMES - made_of_any)


@pytest.mark.parametrize("name", sorted(name for name, value in vars(_types).items() if typing.is_typeddict(value)))
def test_typed_dict_has_hints_at_run_time(name: str) -> None:
    """``typing.get_type_hints`` resolves every annotation of a TypedDict."""
    definition = getattr(_types, name)
    assert typing.get_type_hints(definition).keys() == definition.__annotations__.keys()


def test_environ_is_a_plain_dict() -> None:
    """PEP 3333, "environ Variables": an environ is a builtin dict, which a TypedDict is not to a type checker."""
    assert _types.Environ == dict[str, Any]
    assert _types.WSGIApp == Callable[[dict[str, Any], _types.StartResponse], Iterable[bytes]]


def test_asgi_app_is_what_starlette_calls_one() -> None:
    """The ASGI aliases are Starlette's, so that a bridge can be mounted without a complaint."""
    message = MutableMapping[str, Any]
    assert (
        _types.ASGIApp
        == Callable[
            [message, Callable[[], Awaitable[message]], Callable[[message], Awaitable[None]]],
            Awaitable[None],
        ]
    )
