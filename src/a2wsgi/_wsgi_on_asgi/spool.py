"""A request's body in a temporary file, for ``spool_request=True``. The loop thread waits for no disk."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, BinaryIO

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
        Exception: What ``next_chunk`` or the disk raised. The file is closed.
    """
    import tempfile  # noqa: PLC0415 - it takes 4 ms, and few bridges spool

    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the caller
    try:
        await runtime.in_thread(file.writelines, chunks)
        while (chunk := await next_chunk()) is not None:
            if chunk:
                await runtime.in_thread(file.write, chunk)
        await runtime.in_thread(file.seek, 0)
    except BaseException:
        with contextlib.suppress(OSError, ValueError):  # of a full disk: it must not hide a cancellation
            file.close()
        raise
    return file
