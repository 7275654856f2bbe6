"""The guard that stands after every test notices each kind of leak."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from conftest import Belongings, leaks


def test_guard_finds_nothing_when_nothing_is_left() -> None:
    """Whatever was there before, and still is, is no leak."""
    assert leaks(Belongings.now(), 0) == []


def test_guard_names_a_thread_and_where_it_stands() -> None:
    """The message has the thread's name and the line that it waits in."""
    before, gate = Belongings.now(), threading.Event()
    thread = threading.Thread(target=gate.wait, name="a2wsgi-worker-7", daemon=True)
    thread.start()
    try:
        (leak,) = leaks(before, 0)
    finally:
        gate.set()
        thread.join()
    assert leak.startswith("thread 'a2wsgi-worker-7', which is at\n")
    assert "in wait" in leak


def test_guard_waits_for_a_thread_to_end() -> None:
    """A thread that ends within the grace is no leak."""
    before = Belongings.now()
    timer = threading.Timer(0.05, lambda: None)
    timer.start()
    assert leaks(before, 30) == []


def test_guard_finds_a_thread_that_threading_does_not_know() -> None:
    """A thread of `_thread` is found by its frame."""
    before = Belongings.now()
    started, gate = _thread.allocate_lock(), _thread.allocate_lock()
    started.acquire()
    gate.acquire()

    def wait() -> None:
        started.release()
        gate.acquire()

    _thread.start_new_thread(wait, ())
    started.acquire()
    try:
        (leak,) = leaks(before, 0)
    finally:
        gate.release()
    assert "not from `threading`" in leak
    assert leaks(before, 30) == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are read from /proc")
def test_guard_names_a_descriptor() -> None:
    """The message says what the descriptor stands for."""
    before = Belongings.now()
    reader, writer = os.pipe()
    try:
        found = leaks(before, 0)
    finally:
        os.close(reader)
        os.close(writer)
    assert [leak.split(" pipe:")[0] for leak in found] == [f"descriptor {reader}:", f"descriptor {writer}:"]


def test_guard_names_a_temporary_file() -> None:
    """A file that `tempfile` made, and nobody removed, is found in the session's own directory."""
    before = Belongings.now()
    with tempfile.NamedTemporaryFile(prefix="left-") as file:
        found = leaks(before, 0)
    assert f"temporary file {file.name}" in found


def run_pytest(directory: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run one test module under this very ``conftest``, in a process of its own."""
    (directory / "test_child.py").write_text(test)
    always = ["-q", f"--rootdir={directory}", "--import-mode=importlib", "-p", "no:cacheprovider", "-p", "conftest"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *always, *options, "test_child.py"],
        cwd=directory,
        env={
            **os.environ,
            "TMPDIR": str(directory),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(os.name != "posix", reason="a shell ignores a signal for what it starts only there")
def test_children_of_tests_take_sigint_though_we_ignore_it(tmp_path: Path) -> None:
    """A run in the background, or one under ``trap '' INT``, ignores SIGINT; the servers that it starts do not."""
    test = """
import signal, subprocess, sys

def test_it():
    signal.raise_signal(signal.SIGINT)
    show = "import signal; print(signal.getsignal(signal.SIGINT))"
    shown = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout
    assert "default_int_handler" in shown
"""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run = run_pytest(tmp_path, test)
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.returncode == 0, run.stdout + run.stderr


def test_run_fails_in_which_every_test_was_skipped(tmp_path: Path) -> None:
    """As one does in which none was found; but a look at what there is does not."""
    test = """
import pytest

def test_it():
    pytest.skip("what it needs is not installed")
"""
    assert run_pytest(tmp_path, test).returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert run_pytest(tmp_path, test, "--collect-only").returncode == 0
    assert run_pytest(tmp_path, test + "def test_other(): pass").returncode == 0
