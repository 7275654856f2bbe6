"""Runs Autobahn's cases, which kosoku has, against a server.

kosoku keeps threads and sockets until the end of its process, so it has one of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

#: Those of ordinary size: framing, control frames, reserved bits, UTF-8, closing, and one that is cut into pieces.
CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]

#: What is no fault of a server.
GOOD = {"OK", "INFORMATIONAL", "NON-STRICT"}

#: Most cases drop the connection after a second, and one after half of one, whether or not the answer is on its way. On
#: a busy machine that is short. So whatever failed that late is run again, twice at most; a fault fails each time.
_RUN_CASES = """
import asyncio, json, os, sys
import kosoku

async def run(address, cases):
    try:
        return await kosoku.run_fuzzingclient(address, cases, concurrency=2)
    except kosoku.FailureError as exc:
        return exc.results

async def main(address, cases):
    results = {r.case_id: r for r in await run(address, cases)}
    for _ in range(2):
        late = [r.case_id for r in results.values() if not r.passed and r.duration >= 500]
        if late:
            print("once more:", *late, file=sys.stderr)
            results.update((r.case_id, r) for r in await run(address, late))
    return [(r.case_id, r.behavior.value, r.behavior_close.value) for r in results.values()]

print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2:]))), flush=True)
# kosoku's threads still run. An interpreter that finalizes would end them in the middle of Rust code: SIGABRT.
os._exit(0)
"""


def run_cases(address: str, cases: Sequence[str], seconds: float) -> dict[str, tuple[str, str]]:
    """Run cases against a server that echoes: for each what is said of it, and of how the connection was closed.

    Args:
        address: The server's, with ``ws://``.
        cases: Their names, with ``*``.
        seconds: How long they may take.
    """
    found = subprocess.run(
        [sys.executable, "-c", _RUN_CASES, address, *cases],
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert found.returncode == 0, f"it ended with {found.returncode}\n{found.stderr}\n{found.stdout}"
    return {case: (said, closed) for case, said, closed in json.loads(found.stdout)}
