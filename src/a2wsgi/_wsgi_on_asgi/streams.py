"""The two bounded streams of a request: its response goes to the loop, its body goes to the worker thread.

Strategy
    Both are kinds of `Stream`, which says what they share. `ToLoop` is written by a thread and read by a coroutine;
    `ToThread` is written on the loop and read by a thread.

    `ToLoop.take` gives at most one message's worth, and lets a waiting writer go on once no more than half the limit is
    queued: one message travels to the client while the next ones are made. `ToThread.put` wakes nobody by itself, so
    that one `ToThread.flush` serves all that a step of the loop has queued.

Guarantees
    - Those of `Stream`. The last chunks, which `ToLoop.finish` is given, come on top of the limit.
    - A `ToThread` that is finished is not aborted: a body that has come whole may be read however its request ends.
    - A writing thread waits for room before it adds a chunk, not after it: it makes the next one meanwhile.
    - Once the thread is done with a request, it touches nothing of it.

Assumes
    What `Stream` assumes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2wsgi._errors import AppProtocolError
from a2wsgi._threads.runtime import wake
from a2wsgi._threads.stream import Stream

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from a2wsgi._threads.runtime import Runtime

#: How much of a response is joined into one message. Arbitrary: servers and sockets take as much in one go, and for
#: larger chunks a copy costs more than a message.
MESSAGE_BYTES = 65_536


def _after_end() -> AppProtocolError:
    return AppProtocolError(
        "The WSGI app called write() after its response was complete. The client would read more data as the next "
        "response. Call write() before the iterable ends, not in its close() or later in another thread."
    )


class ToLoop(Stream):
    """Chunks from one thread to one coroutine.

    Args:
        runtime: The loop that reads.
        limit: How many bytes may be queued before `put` waits.
        limit_chunks: How many chunks may be queued before `put` waits; None sets no such bound.

    Attributes:
        done: The thread is done with the request. Read by any thread.
    """

    __slots__ = ("_abandoned", "_limit_chunks", "_nudged", "done")

    def __init__(self, runtime: Runtime, limit: int, limit_chunks: int | None = None) -> None:
        super().__init__(runtime, limit)
        self._limit_chunks = limit_chunks
        # Written under _lock:
        self.done = False
        self._nudged = False  # `take` is to return, if need be with nothing
        self._abandoned = False  # nobody is to wait until the thread is done; the loop thread's

    # -- The thread -----------------------------------------------------------------------------------------------

    def put(self, chunk: bytes) -> None:
        """Queue ``chunk`` as soon as there is room.

        Raises:
            BaseException: The error of `abort`. The chunk is not queued.
            AppProtocolError: `finish` was called: nobody would take the chunk, or make room for it.
        """
        waiter = None
        while True:
            with self._lock:
                # Asked anew after each wait: 1. A writer waits. 2. A take opens its gate. 3. The stream is aborted.
                # 4. The writer comes back, and must not add to it.
                if self._abort_error is not None:
                    raise self._abort_error()
                if self._finished:
                    raise _after_end()
                # Fast path: the first condition spares most chunks the call (tests/test_call_counts.py).
                if (self._size < self._limit and self._limit_chunks is None) or self._has_room():
                    # Another thread may raise an exception in this one after each call. So nothing has changed after
                    # the first, and all has after the second, and then `revive` wakes the coroutine.
                    self._size += len(chunk)
                    waiter, self._waiter = self._waiter, None
                    self._chunks.append(chunk)
                    break
                self._released_writer = False  # the writer has filled the stream before the reader ran out
                gate = self._leave_gate()
            self._wait_at(gate)
        if waiter is not None:
            self._runtime.doorbell.ring(self._runtime.resume, waiter)

    def finish(self, chunks: list[bytes] | None = None, *, done: bool = False) -> None:
        """Say that no chunk follows these last ones, which are queued without waiting for room.

        Another thread that waits in `put` raises at once: it waits for room that it could not use.

        Args:
            chunks: The last chunks.
            done: Say, too, that the thread is done with the request. The thread says so once, in its last call.
        """
        size = sum(map(len, chunks)) if chunks else 0
        # Nothing is called under the lock. So if another thread raises an exception here, all of this was done or none.
        # Nor does anything need memory from the first change on.
        with self._lock:
            if chunks is not None and self._abort_error is None:
                size += self._size
                self._chunks += chunks
                self._size = size
            self._finished = True
            self.done = done
            gate, self._gate = self._gate, None
            waiter, self._waiter = self._waiter, None
        if gate is not None:
            gate.release()
        if waiter is not None:
            self._runtime.doorbell.ring(self._runtime.resume, waiter)

    def nudge(self) -> None:
        """Have `take` return, with nothing if nothing is queued. Never waits. Any thread, also beside the writer."""
        with self._lock:
            self._nudged = True
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._runtime.doorbell.ring(self._runtime.resume, waiter)

    def locked(self) -> contextlib.AbstractContextManager[object]:
        """Hold the stream's lock within it. Any thread; do not wait there."""
        return self._lock

    def _has_room(self) -> bool:
        """Whether a chunk may be queued. The lock is held."""
        # An empty stream always has room: a limit of 0 means one chunk at a time.
        return not self._chunks or (
            self._size < self._limit and (self._limit_chunks is None or len(self._chunks) < self._limit_chunks)
        )

    # -- The loop thread ------------------------------------------------------------------------------------------

    async def take(self) -> tuple[list[bytes], bool]:
        """Take what is queued, at most `MESSAGE_BYTES` or one chunk. Wait until there is something.

        Returns:
            The chunks, and whether the stream has ended, also by `abort`; then there are no chunks. Neither means that
            somebody has called `nudge`.

        Cancellation: nothing is lost. What is queued stays queued.
        """
        chunks: list[bytes] = []
        ended = False
        gate = None
        while True:
            with self._lock:
                if self._chunks or self._finished or self._nudged or self._abort_error is not None:
                    self._nudged = False
                    if self._size <= MESSAGE_BYTES:
                        chunks, self._chunks = self._chunks, []
                        self._size = 0
                    else:
                        chunks = self._take_message()
                    ended = not self._chunks and (self._finished or self._abort_error is not None)
                    if self._gate is not None and self._is_half_empty():
                        gate, self._gate = self._gate, None
                        self._released_writer = True
                    break
                if self._released_writer:
                    self._grow_limit()
                waiter = self._waiter = self._last_waiter = self._runtime.create_prompt_waiter()
            await waiter
        if gate is not None:
            gate.release()
        return chunks, ended

    def _take_message(self) -> list[bytes]:
        """Take a message's worth of the chunks, or only the first if that is longer. The lock is held."""
        count = size = 0
        for chunk in self._chunks:
            size += len(chunk)
            if count and size > MESSAGE_BYTES:
                size -= len(chunk)
                break
            count += 1
        message = self._chunks[:count]
        del self._chunks[:count]
        # 0 whatever was counted: put() counts a chunk before it queues it, and there may be no memory for that.
        self._size = self._size - size if self._chunks else 0
        return message

    def _is_half_empty(self) -> bool:
        """Whether a waiting writer is to go on. The lock is held."""
        return 2 * self._size <= self._limit and (
            self._limit_chunks is None or 2 * len(self._chunks) <= self._limit_chunks
        )

    def reset_limit(self) -> None:
        """Take back what the limit has grown by: the client is slow. Loop thread."""
        with self._lock:
            self._limit = self._base_limit

    @property
    def holds_some(self) -> bool:
        """Whether anything is queued. Any thread."""
        return bool(self._chunks)

    def abandon(self) -> None:
        """End the wait of `wait_done`, though the thread is not done. Loop thread."""
        self._abandoned = True
        with self._lock:
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            wake(waiter)

    async def wait_done(self) -> None:
        """Wait until the thread is done with the request, or is abandoned.

        Cancellation: nothing changes.
        """
        while True:
            with self._lock:
                if self.done or self._abandoned:
                    return
                waiter = self._waiter = self._last_waiter = self._runtime.create_prompt_waiter()
            await waiter


class ToThread(Stream):
    """Chunks from one loop to one thread.

    Args:
        runtime: The loop that writes.
        limit: How many bytes may be queued before `wait_room` waits.
    """

    __slots__ = ()

    @property
    def is_awaited(self) -> bool:
        """Whether the thread waits for a chunk. Any thread."""
        return self._gate is not None

    @property
    def is_open(self) -> bool:
        """Whether its end is still to come. Any thread."""
        return not self._finished and self._abort_error is None

    # -- The loop thread ------------------------------------------------------------------------------------------

    def abort(self, error: Callable[[], BaseException]) -> None:
        """As `Stream.abort`, unless the stream is finished: the thread may still take what is queued, and its end."""
        if not self._finished:
            super().abort(error)

    def put(self, chunk: bytes) -> None:
        """Queue ``chunk`` without waiting for room; `wait_room` does that. The thread learns of it at `flush`."""
        with self._lock:
            if self._abort_error is None:
                self._chunks.append(chunk)
                self._size += len(chunk)

    def finish(self) -> None:
        """Say that no chunk follows: nobody waits for room any more. The thread learns of it at `flush`."""
        with self._lock:
            self._finished = True
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            wake(waiter)

    def flush(self) -> None:
        """Wake the thread if it waits."""
        with self._lock:
            gate, self._gate = self._gate, None
        if gate is not None:
            gate.release()

    async def wait_room(self) -> None:
        """Wait until fewer than ``limit`` bytes are queued, or the stream is finished or aborted.

        Cancellation: nothing changes.
        """
        while True:
            with self._lock:
                if not self._chunks or self._size < self._limit or self._finished or self._abort_error is not None:
                    return
                waiter = self._waiter = self._last_waiter = self._runtime.create_waiter()
            await waiter

    # -- The thread -----------------------------------------------------------------------------------------------

    def take(self) -> list[bytes]:
        """Take all that is queued. Wait until there is something. An empty list is the end.

        Raises:
            BaseException: The error of `abort`.
        """
        chunks: list[bytes] = []
        waiter = None
        while True:
            with self._lock:
                if self._abort_error is not None:
                    raise self._abort_error()
                if self._chunks or self._finished:
                    chunks, self._chunks = self._chunks, []
                    self._size = 0
                    waiter, self._waiter = self._waiter, None
                    self._released_writer = waiter is not None
                    break
                if self._released_writer:
                    self._grow_limit()
                gate = self._leave_gate()
            try:
                self._wait_at(gate)
            finally:
                self._gate = None  # taken out, unless another thread has raised an exception into this one
        if waiter is not None:
            self._runtime.doorbell.ring(wake, waiter)
        return chunks
