"""The types in the annotations of public names, for programs that evaluate these: FastAPI, beartype, Sphinx.

``typing.get_type_hints`` looks for a type among the globals of the function's module. With `_types` and `_statistics`
there, importing a bridge would take a third longer (benchmarks/start_up.py), and few programs evaluate an annotation.
So the annotations name this module instead, as in ``hints.WSGIApp``, and it imports a type when it is first asked for.

`Scope`, `Receive` and `Send` cost next to nothing, and are here at once, for ``__call__`` to name as they are: Litestar
evaluates the annotations of a mounted app by names of its own. It has these three, and no module of ours.
"""

from __future__ import annotations

import typing
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self as Self
    from typing_extensions import Unpack as Unpack

    from ._statistics import ASGIStatistics as ASGIStatistics
    from ._statistics import Statistics as Statistics
    from ._types import AnyASGIApp as AnyASGIApp
    from ._types import AnyReceive as AnyReceive
    from ._types import AnySend as AnySend
    from ._types import ASGI2App as ASGI2App
    from ._types import ASGIApp as ASGIApp
    from ._types import ASGIMiddlewareOptions as ASGIMiddlewareOptions
    from ._types import Environ as Environ
    from ._types import HTTPScope as HTTPScope
    from ._types import Message as Message
    from ._types import Receive as Receive
    from ._types import Scope as Scope
    from ._types import Send as Send
    from ._types import StartResponse as StartResponse
    from ._types import ToASGIOptions as ToASGIOptions
    from ._types import ToWSGIOptions as ToWSGIOptions
    from ._types import WSGIApp as WSGIApp
    from ._types import WSGIMiddlewareOptions as WSGIMiddlewareOptions
else:  # a type checker would take any name that is missing for one of type Any
    Scope = Message = MutableMapping[str, typing.Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

    class _AnyOf:
        """Stands in on Python 3.10 for ``typing.Unpack``: it says nothing of the type."""

        def __class_getitem__(cls, item: object) -> object:
            return typing.Any

    def __getattr__(name: str) -> object:
        if name.startswith("_"):  # the import of a name asks for ``__path__``
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import _statistics, _types  # noqa: PLC0415 - see above

        for module in (_types, _statistics, typing):
            if name in vars(module):
                return vars(module)[name]
        if name in {"Self", "Unpack"}:
            return typing.Any if name == "Self" else _AnyOf
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
