"""A request's body in a temporary file, for ``spool_request=True``. The loop thread waits for no disk."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, BinaryIO

from a2wsgi._threads.starting import start_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from a2wsgi._threads.runtime import Runtime


async def spool(runtime: Runtime, chunks: list[bytes], next_chunk: Callable[[], Awaitable[bytes | None]]) -> BinaryIO:
    """Write ``chunks`` to a temporary file, and the rest of the body after them. Loop thread.

    Args:
        runtime: The loop.
        chunks: What was read so far.
        next_chunk: Gives the next piece of the body, and None at its end.

    Returns:
        The file, at its beginning. The caller closes it.

    Raises:
        Exception: What ``next_chunk`` or the disk raised. The file is closed by another thread.
    """
    import tempfile  # noqa: PLC0415 - it takes 4 ms, and few bridges spool

    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the caller
    try:
        await runtime.to_thread(file.writelines, chunks)
        while (chunk := await next_chunk()) is not None:
            if chunk:
                await runtime.to_thread(file.write, chunk)
        await runtime.to_thread(file.seek, 0)
    except BaseException:
        # 1. The request is cancelled while another thread writes. 2. To close the file now would wait for that thread.
        close_file_elsewhere(file)
        raise
    return file


def close_file_elsewhere(file: BinaryIO) -> None:
    """Close a temporary file in a thread of its own: for whoever must not wait for a disk. Any thread."""
    if sys.is_finalizing():  # up to Python 3.11, start() would wait for ever: the new thread does not run any more
        close_file(file)
        return
    thread = threading.Thread(target=close_file, args=(file,), name="a2wsgi-spool", daemon=True)
    try:
        start_thread(thread)
    except RuntimeError:  # the system has no thread to give
        close_file(file)


def close_file(file: BinaryIO) -> None:
    """Close a temporary file. Raises nothing of the disk's."""
    # The disk is full, and what is not written is not wanted any more; or the app has detached the file.
    with contextlib.suppress(OSError, ValueError):
        file.close()
