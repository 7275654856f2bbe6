"""Makes ``docs/compatibility.md`` of what `test_behaviour` found, or checks that it says the same.

    A2WSGI_TEST_RESULTS=.results python -m pytest tests/interop/test_behaviour.py
    python tests/interop/compatibility.py .results [--check]

To write the page all servers are needed. To check it, those that were run are held against it: a server that is not
installed is left out.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
PAGE = TESTS.parent / "docs" / "compatibility.md"
SUITE = TESTS / "interop" / "test_behaviour.py"

sys.path.insert(0, str(TESTS))

from interop.servers import SERVERS  # noqa: E402 - it is on the path only now

#: Of a test on a server: for each of its parameters, why the server cannot pass it; nothing where it can.
Found = dict[str, str]
Results = dict[str, dict[str, Found]]

HEADINGS = {
    "asgi": "WSGI apps on ASGI servers",
    "wsgi": "ASGI apps on WSGI servers",
}

INTRODUCTION = """\
# What works on which server

<!-- Written by tests/interop/compatibility.py from a run of tests/interop/test_behaviour.py: do not edit. -->

The same tests run on each server, as a process of its own, with the same app under a bridge. A dot: passed. A number:
the server cannot do it, whatever a bridge does, for the reason below; in brackets, in part of the cases only. Such a
test is run as well, and has to fail. What is special about a server besides is in [](servers.md).
"""


def read(directory: Path) -> Results:
    """What all processes of a run have noted."""
    results: Results = defaultdict(lambda: defaultdict(dict))
    for path in sorted(directory.glob("*.json")):
        for server, tests in json.loads(path.read_text("utf-8")).items():
            for test, found in tests.items():
                results[server][test].update(found)
    return results


def rows() -> list[str]:
    """The tests, in their order."""
    return re.findall(r"^def (test_\w+)\(", SUITE.read_text("utf-8"), re.MULTILINE)


def table(kind: str, results: Results) -> str:
    """What the servers of a kind can do, and below it the reasons why they cannot."""
    names = [name for name in SERVERS if SERVERS[name].calls == kind and name in results]
    numbers: dict[str, int] = {}

    def cell(found: Found) -> str:
        reasons = list(dict.fromkeys(filter(None, found.values())))
        text = ", ".join(str(numbers.setdefault(reason, len(numbers) + 1)) for reason in reasons)
        return f"({text})" if text and not all(found.values()) else text or ("·" if found else "not run")

    lines = [
        "| " + " | ".join(["", *names]) + " |",
        "|---" + "|:-:" * len(names) + "|",
    ]
    for test in rows():
        title = test.removeprefix("test_").replace("_", " ").replace("100 continue", "`100 Continue`")
        cells = [cell(results[name].get(test, {})) for name in names]
        lines.append("| " + " | ".join([title[0].upper() + title[1:], *cells]) + " |")
    reasons = [f"{number}. {reason}" for reason, number in numbers.items()]
    return "\n".join([f"## {HEADINGS[kind]}", "", *lines, "", *reasons, ""])


def versions(results: Results) -> str:
    """What ran."""
    return "Run with " + ", ".join(sorted({SERVERS[name].version() for name in results}, key=str.lower)) + "."


def page(results: Results) -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *(table(kind, results) for kind in HEADINGS), versions(results), ""])


def cells(text: str) -> dict[tuple[str, str], str]:
    """What a page says of each test on each server, with the reasons in full."""
    said: dict[tuple[str, str], str] = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        reasons = dict(re.findall(r"^(\d+)\. (.*)$", part, re.MULTILINE))
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line.startswith("|")]
        for line in lines[2:]:
            for name, cell in zip(lines[0][1:], line[1:], strict=True):
                said[line[0], name] = " ".join(reasons.get(word, word) for word in re.findall(r"\d+|\W", cell))
    return said


def say(what: str, lines: list[str]) -> int:
    """Tell what is wrong; the exit code for it."""
    sys.stderr.write("\n  ".join([what, *lines]) + "\n")
    return 1


def main(directory: str, *options: str) -> int:
    """Write the page, or check it. The exit code: 0, or 1 where it cannot be written or says something else."""
    results = read(Path(directory))
    failed = [
        f"{name}: {test}" for name in results for test, found in results[name].items() if "failed" in found.values()
    ]
    if failed:
        return say("Failed:", failed)
    missing = [f"{name}: {test}" for name in SERVERS for test in rows() if test not in results.get(name, {})]
    if "--check" not in options:
        if missing:
            return say("Was not run:", missing)
        PAGE.write_text(page(results), "utf-8")
        return 0
    said, found = cells(PAGE.read_text("utf-8")), cells(page(results))
    wrong = [
        f"{test} on {name}: {found.get((test, name))!r} was found, the page says {said.get((test, name))!r}"
        for test, name in sorted(found.keys() | {key for key in said if key[1] in results})
        if found.get((test, name)) != said.get((test, name))
    ]
    if wrong or not found:
        return say(f"{PAGE.name} is not what was found; make compatibility writes it anew:", wrong)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
