"""Everything that we use of `websockets`. No other file imports it, so that another codec could take its place.

The extra ``a2wsgi[websocket]`` installs it, and it is imported at first use. These names are the same in every release
since 13; 16.1.1 is the last that runs on Python 3.10. We use plain numbers for opcodes, since it has renamed its own
(``OP_TEXT``, ``Opcode.TEXT``).
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from a2wsgi._errors import MissingCapability

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

Offer: TypeAlias = "Sequence[tuple[str, str | None]]"


class Frame(Protocol):
    @property
    def opcode(self) -> int: ...
    @property
    def data(self) -> bytes | bytearray: ...
    @property
    def fin(self) -> bool: ...
    @property
    def rsv1(self) -> bool: ...
    def serialize(self, *, mask: bool, extensions: Sequence[Extension]) -> bytes: ...


class FrameClass(Protocol):
    def __call__(self, opcode: int, data: bytes, /) -> Frame: ...
    def parse(
        self,
        read_exact: Callable[[int], Generator[None, None, bytearray]],
        *,
        mask: bool,
        max_size: int | None,
        extensions: Sequence[Extension],
    ) -> Generator[None, None, Frame]: ...


class Extension(Protocol):
    def encode(self, frame: Frame) -> Frame: ...
    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame: ...


class PerMessageDeflate(Extension, Protocol):
    decoder: object  # zlib's; where no window is kept, one is made for each message
    local_no_context_takeover: bool
    remote_no_context_takeover: bool
    local_max_window_bits: int
    remote_max_window_bits: int


class PerMessageDeflateFactory(Protocol):
    def process_request_params(
        self, params: Offer, accepted_extensions: Sequence[Extension]
    ) -> tuple[Offer, PerMessageDeflate]: ...


@dataclass(frozen=True)
class Websockets:
    """The names that we use, as `websockets` calls them."""

    Frame: FrameClass
    apply_mask: Callable[[bytes | bytearray, bytes | bytearray], bytes]
    ProtocolError: type[Exception]
    PayloadTooBig: type[Exception]
    InvalidHandshake: type[Exception]
    parse_extension: Callable[[str], Sequence[tuple[str, Offer]]]
    build_extension: Callable[[Sequence[tuple[str, Offer]]], str]
    PerMessageDeflate: Callable[..., PerMessageDeflate]
    ServerPerMessageDeflateFactory: Callable[..., PerMessageDeflateFactory]


@functools.cache
def websockets() -> Websockets:
    """Import what we use of `websockets`.

    Raises:
        MissingCapability: It is not installed, or too old.
    """
    # By name, so that type checks have the same result whether it is installed or not.
    try:
        exceptions = importlib.import_module("websockets.exceptions")
        deflate = importlib.import_module("websockets.extensions.permessage_deflate")
        frames = importlib.import_module("websockets.frames")
        headers = importlib.import_module("websockets.headers")
        return Websockets(
            Frame=frames.Frame,
            apply_mask=frames.apply_mask,
            ProtocolError=exceptions.ProtocolError,
            PayloadTooBig=exceptions.PayloadTooBig,
            InvalidHandshake=exceptions.InvalidHandshake,
            parse_extension=headers.parse_extension,
            build_extension=headers.build_extension,
            PerMessageDeflate=deflate.PerMessageDeflate,
            ServerPerMessageDeflateFactory=deflate.ServerPerMessageDeflateFactory,
        )
    except (ImportError, AttributeError) as exc:
        raise MissingCapability(
            "WebSockets need the package websockets, 13 or later, to parse their frames. It is not installed. "
            'Install it with: pip install "a2wsgi[websocket]".'
        ) from exc


def available() -> bool:
    """Return whether `websockets` is installed, so that `Frames` can be made."""
    try:
        websockets()
    except MissingCapability:
        return False
    return True
