"""What Linux tells of other processes, in ``/proc``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="Linux's /proc is not here")


def open_files(group: int) -> Iterator[str]:
    """What the processes of a group have open, by path; what is deleted says so at its end."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has ended meanwhile
            if os.getpgid(int(process.name)) == group:
                yield from _open_files(process)


def _open_files(process: Path) -> Iterator[str]:
    for link in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            yield str(link.readlink())
