"""Which file can be sent without being read: by its descriptor, or by its path.

*Facts*

- PEP 3333, "Optional Platform-Specific File Handling": a server may send a file by whatever means it has if the app
  returns what ``wsgi.file_wrapper`` made. The file may be anything that has a ``read()``.
- ASGI, "Path Send": a response is its head and one path. The server opens that path itself, after ``send()`` has
  returned (granian), and sends the file from its first byte to its last.
- ASGI, "Zero Copy Send": a response may have any number of pieces of open files, each with an offset and a length. The
  server is through with the file when ``send()`` returns; it does not close it.
- A descriptor does not say what ``read()`` gives: that of a ``gzip.GzipFile`` is the compressed file's, that of a
  buffer may be anything's. So only what ``open()`` returns is sent unread, and Django's own wrappers around that.
- A name does not say which file is open: it may have been replaced or deleted, or be relative to another directory.
  Device and inode say it.
- A file of ``/proc`` has a size of 0, whatever is in it. A name like ``/proc/self/fd/3`` is whatever is open there at
  the moment, so no path is sent before all its symbolic links are resolved.

Specs: PEP 3333; ASGI, "Extensions".
"""

from __future__ import annotations

import io
import os
import stat
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

PATHSEND: Final = "http.response.pathsend"
ZEROCOPYSEND: Final = "http.response.zerocopysend"

#: How much of a file is read at a time. asyncio's figure for a read buffer, and that of a pipe in Linux.
BLOCK_BYTES: Final = 65_536

#: How much of a file one ``http.response.zerocopysend`` has. A client must take that much within ``send_timeout``, so
#: it is as little as costs next to nothing: a gibibyte makes a thousand messages.
PIECE_BYTES: Final = 1 << 20

#: Django's wrappers around what ``open()`` returned, which they have as ``file``. They pass ``read()`` on to it;
#: subclasses may do otherwise. Their types go by name, since Django need not be installed.
_TRANSPARENT: Final = {
    "django.core.files.base.File",
    "django.core.files.images.ImageFile",
    "django.db.models.fields.files.FieldFile",
    "django.db.models.fields.files.ImageFieldFile",
}


class OpenFile(io.FileIO):
    """A descriptor of ours for a server. Some ask for its ``fileno()`` (h2corn), others take it for it (nonecorn)."""

    def __index__(self) -> int:
        return self.fileno()


#: What a wrapper of ours around a file calls that file, for `plain_file`.
PLAIN_FILE: Final = "_a2wsgi_plain_file_"


def plain_file(file: object) -> io.BufferedReader | io.FileIO | None:
    """Return the file whose bytes are exactly those that ``file.read()`` gives; None if that is not known.

    Raises nothing. Whether it is still open, and a regular file, is another question.
    """
    kind = type(file)
    if kind is io.FileIO:
        return cast("io.FileIO", file)
    if kind is io.BufferedReader:
        return cast("io.BufferedReader", file) if type(cast("io.BufferedReader", file).raw) is io.FileIO else None
    try:
        if hasattr(kind, PLAIN_FILE):
            return cast("io.FileIO", getattr(file, PLAIN_FILE))
        if f"{kind.__module__}.{kind.__qualname__}" in _TRANSPARENT:
            return plain_file(cast("Any", file).file)
    except Exception:  # noqa: BLE001 - it is closed, or of a storage that opens it only now: reading it will tell
        return None
    return None


def is_whole(status: os.stat_result, position: int, length: int) -> bool:
    """Return whether a body of ``length`` bytes is a regular file, from its first byte to its last."""
    return stat.S_ISREG(status.st_mode) and position == 0 and status.st_size == length


def is_same_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Return whether two looks were at the same file, and it has the same size still."""
    # An inode of 0 is no inode: some file systems have none.
    return (
        one.st_ino != 0
        and (one.st_dev, one.st_ino, one.st_size) == (other.st_dev, other.st_ino, other.st_size)
        and stat.S_ISREG(other.st_mode)
    )


def absolute_name(name: object, directory: str) -> str | None:
    """Return the path that a file was opened by; None if it was opened by descriptor, or the path is not Unicode.

    Args:
        name: The ``name`` of what ``open()`` returned: whatever that was given.
        directory: The working directory.
    """
    if not isinstance(name, str | bytes | os.PathLike):
        return None
    path = os.path.join(directory, os.fsdecode(cast("str | bytes | os.PathLike[str]", name)))  # noqa: PTH118 - not a Path: a ".." after a symbolic link must stay
    try:
        path.encode()  # ASGI, "Path Send": a Unicode string, which has no lone surrogates
    except UnicodeEncodeError:
        return None
    return path


def offers(scope: Mapping[str, Any], extension: str) -> bool:
    """Return whether the server offers an extension."""
    return extension in (scope.get("extensions") or ())
