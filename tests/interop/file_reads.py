"""Watches the bridges read files in a process that serves: what a server sends by itself is never read in Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from a2wsgi._asgi_on_wsgi.files import SentFile
from a2wsgi._wsgi_on_asgi import files as _files
from a2wsgi._wsgi_on_asgi.files import FileWrapper


def watch(note: Callable[[str], object]) -> None:
    """Have ``note`` called with a file's name whenever a part of it is read."""
    read, next_, blocks = SentFile.read, FileWrapper.__next__, _files.SentFile.blocks

    def watched_read(self: SentFile, size: int = -1) -> bytes:
        note(Path(str(self.raw.name)).name)
        return read(self, size)

    def watched_next(self: FileWrapper) -> bytes:
        note(Path(str(getattr(self.filelike, "name", ""))).name)
        return next_(self)

    def watched_blocks(self: Any) -> Any:
        note(Path(self.path).name)
        return blocks(self)

    patched: Any = SentFile, FileWrapper, _files.SentFile
    patched[0].read, patched[1].__next__, patched[2].blocks = watched_read, watched_next, watched_blocks
