"""What a served process has at one moment; the control endpoint gives it as JSON.

Everything that can be given back is given back before it is counted: garbage is collected, and the allocator returns
free pages to the system. So what is left is held by somebody.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import faulthandler
import gc
import os
import signal
import sys
import threading
from collections import Counter
from dataclasses import asdict, is_dataclass
from pathlib import Path

#: By this a server prints the stacks of its threads. gunicorn and uWSGI have uses of their own for SIGUSR1 and SIGUSR2.
STACKS_SIGNAL = signal.SIGRTMIN + 3

_libc = ctypes.CDLL(ctypes.util.find_library("c") or "libc.so.6")


def listen_for_signal() -> None:
    """Print the stacks of all threads when the soak asks for them."""
    faulthandler.register(STACKS_SIGNAL, all_threads=True)


def _is_of_an_executor(thread: threading.Thread) -> bool:
    """Whether it is of a loop's default executor or of gunicorn's: each starts more until it has as many as it may."""
    return thread.name.startswith(("asyncio_", "uvloop_", "ThreadPoolExecutor-"))


def look(tasks: int, statistics: object) -> dict[str, object]:
    """Count.

    Args:
        tasks: How many asyncio tasks there are.
        statistics: Of the bridges.
    """
    for _ in range(3):  # what a finalizer frees is garbage of the next time
        gc.collect()
    with contextlib.suppress(AttributeError):  # glibc's
        _libc.malloc_trim(0)
    types = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "pid": os.getpid(),
        "threads": len(sys._current_frames()) - sum(map(_is_of_an_executor, threading.enumerate())),
        "thread_names": sorted(thread.name for thread in threading.enumerate()),
        "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "tasks": tasks,
        "objects": sum(types.values()),
        "types": types,
        "rss": pages * os.sysconf("SC_PAGE_SIZE"),
        "statistics": [
            asdict(one) for one in (statistics if isinstance(statistics, list) else []) if is_dataclass(one)
        ],
    }
