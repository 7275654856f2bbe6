"""A PostgreSQL server of a test's own, on a Unix socket and on nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from support.servers import START_SECONDS, STOP_SECONDS, until

#: Who it is for PostgreSQL, and for the system where root runs the tests: it serves nothing as root.
USER = "postgres"


def missing() -> str | None:
    """What must be installed before it can run."""
    if _programs() is None:
        return "postgresql is not installed"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "postgresql serves nothing as root, and setpriv is not installed"
    return None


@contextmanager
def running(directory: Path) -> Iterator[Path]:
    """A server with an empty database, from its first answer to the end of the block. Gives its socket's directory."""
    data = directory / "data"
    data.mkdir(mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(data, USER)
    programs = _programs()
    assert programs is not None
    options = ["--auth=trust", f"--username={USER}", "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"]
    subprocess.run(
        _as_user([str(programs / "initdb"), *options, str(data)]),
        check=True,
        capture_output=True,
        timeout=START_SECONDS,
        cwd=directory,
    )
    settings = {"listen_addresses": "", "unix_socket_directories": data, "fsync": "off"}
    with (directory / "postgresql.log").open("wb") as log:
        process = subprocess.Popen(
            _as_user([str(programs / "postgres"), "-D", str(data), *(f"-c{k}={v}" for k, v in settings.items())]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=directory,
            start_new_session=True,
        )
    try:
        until(lambda: _answers(process, directory), "PostgreSQL answers", START_SECONDS)
        yield data
    finally:
        process.send_signal(signal.SIGINT)  # its "fast shutdown": it ends its clients' connections
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_SECONDS)


def _programs() -> Path | None:
    """Where they are: Debian has them on no path."""
    if found := shutil.which("postgres"):
        return Path(found).parent
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return candidates[-1].parent if candidates else None


def _as_user(command: Sequence[str]) -> Sequence[str]:
    """The command, as somebody else where we are root, who may pass through all the directories that root may."""
    rights = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    user = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    return command if os.geteuid() != 0 else ["setpriv", *user, *rights, *command]


def _answers(process: subprocess.Popen[bytes], directory: Path) -> bool:
    import psycopg

    if process.poll() is not None:
        raise RuntimeError(f"PostgreSQL has ended:\n{(directory / 'postgresql.log').read_text()}")
    with suppress(psycopg.OperationalError), psycopg.connect(host=str(directory / "data"), user=USER):
        return True
    return False
