"""Work in a forked child."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from support.lockstep import BOUND_SECONDS

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork()")


# Python 3.12 warns of any fork in a process with threads: a2wsgi's must be safe all the same.
forks_with_threads = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def in_child(work: Callable[[], bytes]) -> bytes:
    """Run ``work`` in a forked child, and return what it returned; the child has no more to say than that."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - coverage does not see the child
        try:
            os.write(writer, work())
        except BaseException as error:  # noqa: BLE001  # told to the parent
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        with open(reader, "rb") as told:  # noqa: PTH123  # a descriptor, not a path
            timer = threading.Timer(BOUND_SECONDS, os.kill, (child, 9))
            timer.start()
            try:
                return told.read()
            finally:
                timer.cancel()
                timer.join()
    finally:
        os.waitpid(child, 0)
