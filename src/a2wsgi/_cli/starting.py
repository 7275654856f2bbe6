"""Runs a server's command line: in this process, if the server would load the app only here; else in its place.

*Why not always in this process.* A server of several processes forks or starts them from one that has not loaded the
app. If it had, threads that the app starts would be missing in the others, connections would be shared, and gunicorn
could not reload the app. So such a server gets a fresh process, in which the app has not been loaded. There the app is
loaded once more than by the server alone: once here, to know what it is and to say in one line what is wrong with it.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from . import handed_over

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .command import Start


def start_server(start: Start, app: Any) -> int:  # noqa: ANN401 - any app
    """Run a server to its end. Its exit code, unless it takes the place of this process."""
    if not runs_here(start):
        become(start.command, {**os.environ, **start.environment})
    return run_here(start, app)


def runs_here(start: Start) -> bool:
    """Whether the server would load the app only in the process that it is started in."""
    several = "--workers" in " ".join(start.words) or os.environ.get("WEB_CONCURRENCY", "1") != "1"
    return start.server.in_place and not several and "--reload" not in start.words


def run_here(start: Start, app: Any, *, as_main: bool = True) -> int:  # noqa: ANN401 - any app
    """Run the server in this process, with the app that has been loaded already.

    Args:
        start: The server.
        app: The app.
        as_main: Whether the server becomes ``sys.modules["__main__"]``, as with ``python -m``. A user's program must
            stay there: `pickle` and `typing.get_type_hints` look up in it what the program defines.
    """
    handed_over.app = app
    os.environ.update(start.environment)
    sys.argv[:] = [start.server.module, *start.words]  # in place: waitress keeps the list that it finds at its import
    runpy.run_module(start.server.module, run_name="__main__", alter_sys=as_main)
    return 0


def become(command: list[str], environment: Mapping[str, str]) -> None:
    """Replace this process by a command, and never return."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it was closed when Python started
            stream.flush()
    if os.name == "posix":
        os.execve(command[0], command, environment)  # noqa: S606 - it needs no shell
    sys.exit(subprocess.call(command, env=dict(environment)))  # noqa: S603 - it needs no shell
