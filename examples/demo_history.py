"""What the demo's servers did in the last minute: how fast they answered, how busy they were, and their memory."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from pathlib import Path

from demo_clients import get

EVERY = 0.25  # seconds
LENGTH = 240  # samples: one minute
LIMIT = 3.0  # seconds after which a request counts as unanswered


def memory() -> int:
    """How many MiB of memory this process has."""
    if sys.platform == "linux":
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4096 >> 20
    if sys.platform == "win32":
        return 0
    import resource  # noqa: PLC0415 - Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20


class Watch:
    """Asks for a path again and again, and knows how long the last answer took."""

    def __init__(self, port: int, path: str) -> None:
        self.port, self.path = port, path
        self.body = b""
        self._took = 0.0
        self._began: float | None = None

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            self._began = time.monotonic()
            try:
                answer = await asyncio.wait_for(get(self.port, self.path), LIMIT)
                self._took, self.body = time.monotonic() - self._began, answer.partition(b"\r\n\r\n")[2]
            except (asyncio.TimeoutError, OSError):
                self._took = LIMIT
            self._began = None
            await asyncio.sleep(EVERY)

    @property
    def milliseconds(self) -> float:
        """How long the last answer took; or, if it is overdue, how long the next one has taken so far."""
        waited = time.monotonic() - self._began if self._began is not None else 0.0
        return round(1000 * max(self._took, waited), 1)


class History:
    """The last minute of this server, and of the one with a2wsgi 1.10.10 if there is one."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.samples: deque[dict[str, float]] = deque(maxlen=LENGTH)
        self._watched = {
            f"{which} {name}": Watch(port, path)
            for which, port in ports.items()
            for name, path in (("native", "/native"), ("flask", "/flask/hello"), ("figures", "/memory"))
        }

    async def run(self) -> None:
        """Take samples for ever."""
        tasks = [asyncio.create_task(watch.run()) for watch in self._watched.values()]
        try:
            while True:
                await asyncio.sleep(EVERY)
                # Not before this server has started: it does not yet answer itself.
                if all(watch.body for name, watch in self._watched.items() if name.startswith("now")):
                    self.samples.append(self._sample())
        finally:
            for task in tasks:
                task.cancel()

    def _sample(self) -> dict[str, float]:
        sample: dict[str, float] = {}
        for name, watch in self._watched.items():
            if name.endswith("figures"):
                figures = json.loads(watch.body or b"{}")
                sample |= {f"{name.split()[0]} {key}": value for key, value in figures.items()}
            else:
                sample[name] = watch.milliseconds
        return sample
