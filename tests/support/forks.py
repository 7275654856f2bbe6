"""Work in a forked child."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from support.lockstep import BOUND_SECONDS

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork()")


# Python 3.12 warns of any fork in a process with threads: a2wsgi's must be safe all the same.
forks_with_threads = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def in_child(work: Callable[[], bytes]) -> bytes:
    """Run ``work`` in a forked child, and return what it returned; the child has no more to say than that."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
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


@contextlib.contextmanager
def living_child(work: Callable[[], bytes]) -> Iterator[bytes]:
    """Run ``work`` in a forked child, which lives until the block ends: it has copies of our descriptors meanwhile.

    Yields:
        What ``work`` returned. The child has no more to say than that.
    """
    told, tell = os.pipe()
    stay, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        try:
            os.write(tell, work())
        except BaseException as error:  # noqa: BLE001  # told to the parent
            os.write(tell, repr(error).encode())
        finally:
            os.read(stay, 1)
            os._exit(0)
    try:
        yield os.read(told, 4_096)
    finally:
        for descriptor in (told, tell, stay, go):
            os.close(descriptor)  # the last of them ends the child
        os.waitpid(child, 0)
