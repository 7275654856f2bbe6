"""Fuzz the bridges: the properties of ``tests/fuzz``, over and over with new seeds, until the time is up.

    python fuzz/run.py                     2 minutes (FUZZ_SECONDS)
    python fuzz/run.py -k translators      arguments go to pytest

Each round is a run of pytest with more examples than ``make test`` has, and a seed of its own, which is printed. The
first that fails ends the run, with the smallest example that hypothesis has found; it is kept in ``.hypothesis``, and
the next run begins with it. ``FUZZ_WITHOUT=Unprintable,types`` leaves out what is known to fail: errors by their names
in ``tests/support/scripts.py``, and ``types``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: How many examples each property has in a round. The rounds of a short run are short enough to be several.
EXAMPLES = 300


def main(arguments: list[str]) -> int:
    """Run rounds; the exit code of the first that fails, or 0."""
    seconds = float(os.environ.get("FUZZ_SECONDS") or 120)
    end = time.monotonic() + seconds
    environment = {**os.environ, "FUZZ_EXAMPLES": os.environ.get("FUZZ_EXAMPLES") or str(EXAMPLES)}
    rounds, longest = 0, 0.0
    while rounds == 0 or time.monotonic() + longest < end:
        seed = random.SystemRandom().randrange(1 << 32)
        command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "--no-header", "--show-capture=no", "--tb=short"]
        own = ["--hypothesis-profile=fuzz", f"--hypothesis-seed={seed}", "tests/fuzz"]
        began = time.monotonic()
        print(f"== round {rounds + 1}, --hypothesis-seed={seed}", flush=True)
        # A round that does not end is a finding, too; pytest-timeout prints the stacks long before.
        ended = subprocess.run([*command, *own, *arguments], cwd=ROOT, env=environment, check=False, timeout=3600)
        if ended.returncode:
            print(f"Failed in round {rounds + 1}, --hypothesis-seed={seed}")
            return ended.returncode
        rounds += 1
        longest = max(longest, time.monotonic() - began)
    print(f"{rounds} rounds of {environment['FUZZ_EXAMPLES']} examples a property, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
