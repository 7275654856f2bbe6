"""What Linux tells of other processes, in ``/proc``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="Linux's /proc is not here")


def open_files(process_id: int) -> Iterator[str]:
    """What a process has open, by path; one that is deleted says so at its end."""
    for link in Path(f"/proc/{process_id}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            yield str(link.readlink())
