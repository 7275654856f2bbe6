"""Which file can be sent without being read."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from a2wsgi._protocol.files import (
    PATHSEND,
    OpenFile,
    absolute_name,
    is_same_file,
    is_whole,
    offers,
    plain_file,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of ten bytes."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


class Lying(io.FileIO):
    """Gives something other than its descriptor does."""

    def read(self, size: int | None = -1, /) -> bytes:
        return b"something else"


def test_what_open_returns_is_plain(path: Path) -> None:
    """Buffered or not, its descriptor has the bytes that it gives."""
    with path.open("rb") as buffered, path.open("rb", buffering=0) as raw:
        assert plain_file(buffered) is buffered
        assert plain_file(raw) is raw


@pytest.mark.parametrize(
    "make",
    [
        lambda path: io.BytesIO(b"0123456789"),
        gzip.open,
        bz2.open,
        Lying,
        lambda path: io.BufferedReader(Lying(path)),
        lambda path: io.BufferedReader(gzip.GzipFile(path)),
        lambda path: path.open("r+b"),
        lambda path: tempfile.NamedTemporaryFile(dir=path.parent),  # noqa: SIM115 - the test closes it
        lambda path: types.SimpleNamespace(fileno=lambda: 0, read=lambda size: b""),
        lambda path: types.SimpleNamespace(file=io.BytesIO()),
    ],
    ids=["memory", "gzip", "bzip2", "subclass", "buffer of a subclass", "buffer of gzip", "written to", "temporary",
         "has a fileno", "has a file"],
)  # fmt: skip
def test_what_may_give_other_bytes_is_not_plain(make: Callable[[Any], Any], path: Path) -> None:
    """A descriptor says nothing about what ``read()`` gives; and data that is written may still be in a buffer."""
    file = make(path)
    assert plain_file(file) is None
    if hasattr(file, "close"):
        file.close()


def test_django_wrappers_are_looked_through(path: Path) -> None:
    """Those of its storages only pass ``read()`` on; a subclass may do otherwise."""
    django = pytest.importorskip("django.core.files")

    class Decrypting(django.File):  # type: ignore[misc, name-defined, unused-ignore]
        """Reads differently."""

    with path.open("rb") as file:
        assert plain_file(django.File(django.File(file))) is file
        assert plain_file(Decrypting(file)) is None
    assert plain_file(django.File(io.BytesIO())) is None


def test_whole_file_is_a_regular_one_from_its_start_to_its_end(path: Path, tmp_path: Path) -> None:
    """Nothing is left out, and nothing beyond is sent."""
    status = path.stat()
    assert is_whole(status, 0, 10)
    assert not is_whole(status, 1, 9)
    assert not is_whole(status, 0, 9)
    assert not is_whole(tmp_path.stat(), 0, tmp_path.stat().st_size)


def test_same_file_is_told_by_its_inode_and_size(path: Path) -> None:
    """A file that was replaced is another one, and so is one that has grown: its length is not what was promised."""
    before = path.stat()
    assert is_same_file(before, path.stat())
    other = path.with_name("other")
    other.write_bytes(b"9876543210")
    assert not is_same_file(before, other.stat())
    path.write_bytes(b"0123456789a")
    assert not is_same_file(before, path.stat())
    none = os.stat_result((0o100644, 0, 1, 1, 0, 0, 10, 0, 0, 0))
    assert not is_same_file(none, none)


@pytest.mark.parametrize(
    ("name", "absolute"),
    [
        ("/a/b", "/a/b"),
        (Path("/a/b"), "/a/b"),
        (b"/a/\xc3\xa9", "/a/é"),
        ("b/../c", "/here/b/../c"),
        (3, None),
        (None, None),
        (b"/a/\xff", None),
    ],
)
def test_name_is_made_absolute(name: object, absolute: str | None) -> None:
    """ASGI, "Path Send": an absolute path, as a Unicode string. What was opened by its descriptor has none."""
    assert absolute_name(name, "/here") == absolute


@pytest.mark.parametrize("extensions", [{}, {"extensions": None}, {"extensions": {}}])
def test_server_offers_what_it_says(extensions: dict[str, Any]) -> None:
    """ASGI, "Extensions": the key may be absent."""
    assert not offers(extensions, PATHSEND)
    assert offers({"extensions": {PATHSEND: {}}}, PATHSEND)


def test_open_file_is_a_number_and_has_a_fileno(path: Path) -> None:
    """Servers take the file of ``http.response.zerocopysend`` for the one (nonecorn) or for the other (h2corn)."""
    with OpenFile(path, "rb") as file:
        assert os.fstat(file.fileno()).st_size == os.stat(file).st_size == 10  # type: ignore[arg-type, unused-ignore]  # noqa: PTH116 - it takes no path
        with os.fdopen(os.dup(file)) as duplicate:  # type: ignore[arg-type, unused-ignore]
            assert duplicate.read() == "0123456789"
