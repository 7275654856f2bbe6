"""Bridges as the behaviour suites want them: one alone, and one around another and that around a third.

Through three the app and the driver are of the same interfaces as through one, and neither can tell the difference. A
test that by its nature holds for one bridge alone says so, and why, with `only_single`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest

from a2wsgi import ASGIMiddleware, WSGIMiddleware

#: Makes a bridge of an app; what else it is given are options of `WSGIMiddleware`, or of `ASGIMiddleware`.
Bridged: TypeAlias = Callable[..., Any]


def only_single(reason: str, fixture: str = "bridged", kinds: Sequence[str] = ("single",)) -> pytest.MarkDecorator:
    """Run a test through one bridge only.

    Args:
        reason: Why it cannot hold through more.
        fixture: The name of the fixture that makes bridges.
        kinds: Those of its parameters that make one alone.
    """
    assert reason
    return pytest.mark.parametrize(fixture, kinds, indirect=True)


@contextmanager
def bridges_to_asgi(kind: str) -> Iterator[Bridged]:
    """Give what makes an ASGI app of a WSGI app.

    Args:
        kind: ``"single"``; or ``"nested"`` for a bridge around a bridge around a bridge, whose outermost and innermost
            have the options.
    """
    made: list[ASGIMiddleware] = []

    def make(app: Any, *args: Any, **options: Any) -> Any:
        bridge = WSGIMiddleware(app, *args, **options)
        if kind == "single":
            return bridge
        made.append(ASGIMiddleware(bridge))  # type: ignore[arg-type, unused-ignore]
        return WSGIMiddleware(made[-1], *args, **options)

    yield make
    while made:
        made.pop().close()


class Nested:
    """A WSGI app of an ASGI app under three bridges; to be closed, as one is."""

    def __init__(self, app: Any, **options: Any) -> None:
        self.inner = ASGIMiddleware(app, **options)
        self.outer: Any = ASGIMiddleware(WSGIMiddleware(self.inner), **{**options, "lifespan": True})  # type: ignore[arg-type, unused-ignore]

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.outer(environ, start_response)

    def close(self) -> None:
        self.outer.close()
        self.inner.close()


@contextmanager
def bridges_to_wsgi(kind: str, **always: Any) -> Iterator[Bridged]:
    """Give what makes a WSGI app of an ASGI app.

    Args:
        kind: ``"single"``; or ``"nested"`` for a bridge around a bridge around a bridge, as above; each of them with
            ``" inline"`` or ``" trio"`` behind it for one that runs its app there.
        always: Options that all have, unless a test says another.
    """
    made: list[Any] = []
    shape, _, where = kind.partition(" ")
    if where == "trio":
        pytest.importorskip("trio")
    where_it_runs: dict[str, dict[str, Any]] = {"": {}, "inline": {"inline": True}, "trio": {"backend": "trio"}}
    always = {**where_it_runs[where], **always}

    def make(app: Any, **options: Any) -> Any:
        made.append((ASGIMiddleware if shape == "single" else Nested)(app, **{**always, **options}))
        return made[-1]

    yield make
    while made:
        made.pop().close()
