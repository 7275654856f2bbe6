"""What holds for every test: it leaves no thread, no descriptor and no temporary file behind.

A bridge that is dropped ends its idle threads by itself. So no thread of ours is excused here: after each test the
garbage is collected, and what then does not end within `GRACE_SECONDS` is a leak. A test that keeps a bridge beyond its
own end, in a module's variable for instance, leaks the bridge's threads.

Leftover asyncio tasks are noticed by the drivers in ``support``, which own the loops.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import hypothesis
import pytest

from support.runtimes import _uvloop_has_its_pipe, runtime

__all__ = ["_uvloop_has_its_pipe", "runtime"]

#: How long threads may take to end after a test, in seconds. Long for a busy machine, but less than the 10 s after
#: which an idle worker ends though nobody has told it to.
GRACE_SECONDS = 8.0

#: How long to wait for what a test has left, at first and at last, before the garbage is collected, in seconds.
FIRST_PAUSE_SECONDS = 0.001
LAST_PAUSE_SECONDS = 0.01

#: trio keeps idle threads in a cache of the process's for 10 s; one at work bears the name of its work instead.
IDLE_IN_TRIO = re.compile(r"Trio thread \d+")

_RAISED = pytest.StashKey[bool]()

# No test has a deadline by the clock, nor has the making of its input: a slow machine is no bug of ours. What hangs is
# ended by pytest-timeout. The examples are the same in every run: new ones are for `make fuzz` to find.
hypothesis.settings.register_profile(
    "a2wsgi", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], derandomize=True
)
hypothesis.settings.load_profile("a2wsgi")


@dataclass(frozen=True)
class Belongings:
    """What the process has at one moment.

    Attributes:
        threads: Those that `threading` knows.
        raw_threads: The idents of those that run Python code and that `threading` does not know.
        descriptors: Each open descriptor with what it stands for; empty where there is no ``/proc``.
        files: What lies in the directory for temporary files.
    """

    threads: frozenset[threading.Thread]
    raw_threads: frozenset[int]
    descriptors: frozenset[tuple[int, str]]
    files: frozenset[str]

    @classmethod
    def now(cls) -> Belongings:
        """Look around."""
        threads = frozenset(threading.enumerate())
        return cls(
            threads=threads,
            raw_threads=frozenset(sys._current_frames()) - {thread.ident for thread in threads},
            descriptors=frozenset(_open_descriptors()),
            files=frozenset(os.listdir(tempfile.gettempdir())),
        )

    def leaked_since(self, before: Belongings) -> list[str]:
        """Say what is here and was not there ``before``, a line or more for each."""
        return [
            *(
                f"thread {thread.name!r}, which is at\n{_stack(thread.ident)}"
                for thread in sorted(self.threads - before.threads, key=lambda thread: thread.name)
                # A thread that `threading` has first heard of during the test may be older than the test.
                if thread.ident not in before.raw_threads and not IDLE_IN_TRIO.fullmatch(thread.name)
            ),
            *(
                f"thread {ident}, which is not from `threading`, and is at\n{_stack(ident)}"
                for ident in self.raw_threads - before.raw_threads
            ),
            *(f"descriptor {number}: {target}" for number, target in sorted(self.descriptors - before.descriptors)),
            *(f"temporary file {tempfile.gettempdir()}/{name}" for name in sorted(self.files - before.files)),
        ]


def leaks(before: Belongings, grace_seconds: float) -> list[str]:
    """Say what is left since ``before`` though the garbage is collected, waiting for it to go.

    Args:
        before: What may stay.
        grace_seconds: How long to wait at most.
    """
    left = Belongings.now().leaked_since(before)
    if left:
        gc.collect(1)  # what the test has made is young, as a rule: this takes a millisecond
        left = Belongings.now().leaked_since(before)
    deadline = time.monotonic() + grace_seconds
    pause = FIRST_PAUSE_SECONDS
    while left and time.monotonic() < deadline:
        # A poll: nobody tells of a closed descriptor or of the end of a thread not from `threading`.
        time.sleep(pause)
        pause *= 2
        left = Belongings.now().leaked_since(before)
        if left and pause > LAST_PAUSE_SECONDS:
            gc.collect()  # only now: it takes longer than most tests, and few leave anything for it
            pause = FIRST_PAUSE_SECONDS
            left = Belongings.now().leaked_since(before)
    return left


def _open_descriptors() -> Iterator[tuple[int, str]]:
    # ruff: noqa: PTH112, PTH115, PTH208 - pathlib takes several times as long, twice a test
    directory = "/proc/self/fd"
    if not os.path.isdir(directory):
        return
    for number in os.listdir(directory):
        try:
            yield int(number), os.readlink(f"{directory}/{number}")
        except FileNotFoundError:  # the one that the listing itself had open
            continue


def _stack(ident: int | None) -> str:
    """The innermost frames of a thread, innermost last."""
    frame = None if ident is None else sys._current_frames().get(ident)
    return "".join(traceback.format_stack(frame)[-4:]).rstrip() if frame else "    (no Python code)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember that a test raised: its traceback keeps alive whatever the test had."""
    if call.excinfo is not None:
        item.stash[_RAISED] = True
    return (yield)


#: With `--reruns`, so many tests of a run may fail once and then pass: a busy machine is late now and then. More than
#: that is a fault of ours.
MOST_RERUNS = 8


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run in which every test was skipped, or in which too many passed at the second attempt only."""
    config = session.config
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus != pytest.ExitCode.OK or reporter is None or hasattr(config, "workerinput"):
        return
    if not config.option.collectonly and not {"passed", "xfailed", "xpassed"} & set(reporter.stats):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
        reporter.write_line("\nNo test ran: all were skipped.", red=True)
    if len(reporter.stats.get("rerun", ())) > MOST_RERUNS:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"\nMore than {MOST_RERUNS} tests failed before they passed.", red=True)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show why a test failed that then passed. The plugin tells its name alone."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"failed, and ran once more: {report.nodeid}", red=True)
        report.toterminal(terminalreporter._tw)


@pytest.fixture(scope="session", autouse=True)
def _session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the session a directory of its own for temporary files, and child processes the same and a fault handler.

    pytest's ``tmp_path`` is elsewhere: it outlives its test on purpose. What is imported by now is taken out of the
    garbage collector's sight, so that a collection after each test is cheap.

    A shell has what it runs in the background ignore SIGINT, and a process hands that on to its children: servers that
    are to end on SIGINT would not. A signal that has a handler gets its default action in them.
    """
    ignores_sigint = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignores_sigint:
        signal.signal(signal.SIGINT, _ignore)
    directory = tmp_path_factory.mktemp("tmpdir")
    gc.collect()
    if hasattr(gc, "freeze"):  # PyPy's collector has none
        gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(directory))
        patch.setenv("TMPDIR", str(directory))
        patch.setenv("PYTHONFAULTHANDLER", "1")  # in this process pytest's own plugin turns it on
        yield
    if hasattr(gc, "unfreeze"):
        gc.unfreeze()
    if ignores_sigint:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _ignore(*_: object) -> None:
    """Handle a signal as ``SIG_IGN`` does; children that run another program do not inherit it."""


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(request: pytest.FixtureRequest, _session: None) -> Iterator[None]:
    """Fail a test that leaves a thread, a descriptor or a temporary file behind, unless it has failed already."""
    before = Belongings.now()
    yield
    if _RAISED in request.node.stash:
        return
    left = leaks(before, GRACE_SECONDS)
    if left:
        pytest.fail(f"The test left behind, {GRACE_SECONDS} s after its end:\n- " + "\n- ".join(left), pytrace=False)
