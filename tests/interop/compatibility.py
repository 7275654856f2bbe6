"""Makes ``docs/compatibility.md`` of what `test_behaviour` and the suites of WebSockets found, or checks it.

    A2WSGI_TEST_RESULTS=.results python -m pytest tests/interop/test_behaviour.py tests/interop/test_websockets_*.py
    python tests/interop/compatibility.py .results [--check]

To write the page all servers are needed. To check it, those that were run are held against it: a server that is not
installed is left out.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
PAGE = TESTS.parent / "docs" / "compatibility.md"
SUITE = TESTS / "interop" / "test_behaviour.py"

sys.path.insert(0, str(TESTS))

from interop.servers import SERVERS, SOMETIMES  # noqa: E402 - it is on the path only now
from interop.websocket_rows import PARTLY, SUITES, Suite  # noqa: E402 - as above

#: Of a test on a server: for each of its parameters, why the server cannot pass it; nothing where it can. A reason why
#: it passes it only sometimes begins with `SOMETIMES`.
Found = dict[str, str]
Results = dict[str, dict[str, Found]]

HEADINGS = {
    "asgi": "WSGI apps on ASGI servers",
    "wsgi": "ASGI apps on WSGI servers",
}

INTRODUCTION = """\
# What works on which server

<!-- Written by tests/interop/compatibility.py from a run of the tests in tests/interop: do not edit. -->

Every row is a test. It runs against every server, each in a process of its own, with the same app behind a bridge.

| | means |
|---|---|
| ✓ | It works. |
| partly 1 | It works in some cases. Note 1 below the table says which ones do not. |
| ✗ 1 | It cannot work on this server, whatever a bridge does. Note 1 says why. |
| varies 1 | It depends on timing inside the server. Note 1 says how. |

The limits are tested too: if a server learns to do what the page says it cannot, that test fails and the page changes.
[Servers](servers.md) has advice for each server.
"""

#: What each row says, by the name of its test.
SENTENCES = {
    "test_method_reaches_the_app": "The app gets the method, even an unusual one",
    "test_request_headers_reach_the_app": "The app gets the request headers, repeated and non-ASCII ones too",
    "test_path_reaches_the_app": "The app gets the path, byte for byte",
    "test_query_reaches_the_app": "The app gets the query string, byte for byte",
    "test_client_address_and_scheme_reach_the_app": "The app knows the client's address and the scheme",
    "test_prefix_is_told_apart_from_the_path": "The app knows the prefix it is mounted under",
    "test_upload_arrives_whole": "An upload arrives complete",
    "test_chunked_upload_arrives_whole": "An upload without a `Content-Length` arrives complete",
    "test_client_that_waits_for_100_continue_is_told_to_go_on": "A client that waits for `100 Continue` gets it",
    "test_refused_client_is_not_told_100_continue": "A client whose upload is refused gets no `100 Continue`",
    "test_long_upload_is_refused_before_it_was_sent": "The app can refuse an upload before all of it was sent",
    "test_status_reaches_the_client": "The client gets the status, even an unregistered one",
    "test_status_without_a_body_has_none": "A 204 or 304 has no body",
    "test_head_has_the_head_of_get_and_no_body": "HEAD gets the headers of GET and no body",
    "test_response_headers_reach_the_client": "The client gets the response headers, each on its own line",
    "test_large_download_arrives_whole": "A large download arrives complete",
    "test_file_arrives_whole": "A file that the app hands over arrives complete",
    "test_file_is_sent_by_the_server_itself": "The server sends a file by itself: no byte is read in Python",
    "test_event_arrives_before_the_next_is_made": "A streamed event arrives before the app makes the next one",
    "test_head_arrives_before_there_is_a_body": "The headers arrive before there is any body",
    "test_early_hint_arrives_before_the_response": "An early hint (103) arrives before the response",
    "test_connection_is_kept": "The connection stays open for the next request",
    "test_connection_ends_where_the_client_wants_it": "The connection closes when the client asks for it",
    "test_fifty_at_once_are_all_answered": "Fifty clients at once all get their answers",
    "test_error_before_the_head_is_answered_500_and_logged": "An error before the response is a 500, and is logged",
    "test_error_after_the_head_breaks_the_response": "After an error mid-response, the client sees that it is cut off",
    "test_file_that_becomes_shorter_breaks_the_response": "If a file shrinks as it is sent, the client sees it cut off",
    "test_hang_up_within_the_upload_is_told": "The app learns that the client left during its upload",
    "test_hang_up_before_the_answer_is_told": "The app learns that the client left before the response",
    "test_hang_up_after_the_head_is_told": "The app learns that the client left right after the headers",
    "test_hang_up_within_the_response_is_told": "The app learns that the client left during the response",
    "test_hang_up_on_an_idle_stream_is_told": "The app learns that the client left a silent stream",
    "test_hang_up_is_no_error_in_the_log": "A client that leaves is not logged as an error",
    "test_running_requests_end_when_the_server_is_told_to_stop": "Running requests finish when the server is stopped",
}


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


def table(heading: str, sentences: Mapping[str, str], columns: Mapping[str, dict[str, Found]]) -> str:
    """What servers can do, and below it the reasons why they cannot.

    Args:
        heading: Of the table.
        sentences: What each row says, by the name of its test.
        columns: What was found, by the name of the server and that of the test.
    """
    numbers: dict[str, int] = {}

    def number(reason: str) -> str:
        return str(numbers.setdefault(reason.removeprefix(SOMETIMES).removeprefix(PARTLY), len(numbers) + 1))

    def cell(found: Found) -> str:
        reasons = list(dict.fromkeys(filter(None, found.values())))
        if not reasons:
            return "✓" if found else "not run"
        varies = any(reason.startswith(SOMETIMES) for reason in reasons)
        partly = not all(found.values()) or any(reason.startswith(PARTLY) for reason in reasons)
        mark = "varies" if varies else "partly" if partly else "✗"
        return f"{mark} {', '.join(map(number, reasons))}"

    lines = [
        "| " + " | ".join(["", *columns]) + " |",
        "|---" + "|:-:" * len(columns) + "|",
    ]
    for test, sentence in sentences.items():
        cells = [cell(found.get(test, {})) for found in columns.values()]
        lines.append("| " + " | ".join([sentence, *cells]) + " |")
    reasons = [f"{index}. {reason}" for reason, index in numbers.items()]
    return "\n".join([f"## {heading}", "", *lines, "", *reasons, ""])


def behaviour_table(kind: str, results: Results) -> str:
    """The table of `test_behaviour` for the servers of a kind."""
    names = [name for name in SERVERS if SERVERS[name].calls == kind and name in results]
    sentences = {test: SENTENCES[test] for test in rows()}
    return table(HEADINGS[kind], sentences, {name: results[name] for name in names})


def websocket_table(suite: Suite, results: Results) -> str:
    """The table of a suite of WebSockets."""
    columns = {name: results[suite.key(name)] for name in suite.servers if suite.key(name) in results}
    return table(suite.heading, suite.sentences, columns)


def versions(results: Results) -> str:
    """What ran."""
    return (
        "Run with "
        + ", ".join(sorted({SERVERS[name].version() for name in SERVERS if name in results}, key=str.lower))
        + "."
    )


def page(results: Results) -> str:
    """The whole page."""
    behaviour = [behaviour_table(kind, results) for kind in HEADINGS]
    websockets = [websocket_table(suite, results) for suite in SUITES]
    return "\n".join([INTRODUCTION, *behaviour, *websockets, versions(results), ""])


def cells(text: str) -> dict[tuple[str, str, str], str]:
    """What a page says under each heading of each test on each server, with the reasons in full."""
    said: dict[tuple[str, str, str], str] = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        reasons = dict(re.findall(r"^(\d+)\. (.*)$", part, re.MULTILINE))
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line.startswith("|")]
        heading = part.partition("\n")[0]
        for line in lines[2:]:
            for name, cell in zip(lines[0][1:], line[1:], strict=True):
                said[heading, line[0], name] = " ".join(
                    reasons.get(word, word) for word in re.findall(r"\d+|\w+|\W", cell)
                )
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
    wanted = [(name, test) for name in SERVERS for test in rows()]
    wanted += [(suite.key(name), test) for suite in SUITES for name in suite.servers for test in suite.sentences]
    missing = [f"{name}: {test}" for name, test in wanted if test not in results.get(name, {})]
    if "--check" not in options:
        if missing:
            return say("Was not run:", missing)
        PAGE.write_text(page(results), "utf-8")
        return 0
    said, found = cells(PAGE.read_text("utf-8")), cells(page(results))
    ran = {(heading, name) for heading, _, name in found}
    wrong = [
        f"{test} on {name}: {found.get((heading, test, name))!r} was found, the page says "
        f"{said.get((heading, test, name))!r}"
        for heading, test, name in sorted(found.keys() | {key for key in said if (key[0], key[2]) in ran})
        if found.get((heading, test, name)) != said.get((heading, test, name))
    ]
    if wrong or not found:
        return say(f"{PAGE.name} is not what was found; make compatibility writes it anew:", wrong)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
