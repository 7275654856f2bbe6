"""The Autobahn cases against FastAPI under a bridge on gunicorn's gthread worker, but for those about compression."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from interop.autobahn import CASES, run_cases
from interop.websocket_servers import KINDS
from support.servers import running

pytest.importorskip("websockets")

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(importlib.util.find_spec("kosoku") is None, reason="needs kosoku"),
]

SECONDS = 240.0

#: 3, 4, 5: a good message, and then a bad frame, come in one read. The connection is failed before the app has had the
#: time to answer the good one (RFC 6455 §7.1.7). 6.4: that a message is not UTF-8 is seen when it is complete (§8.1
#: says no more). A bare ASGI app on uvicorn has the same 14.
NON_STRICT = {f"3.{n}" for n in (2, 3, 4)} | {f"4.{m}.{n}" for m in (1, 2) for n in (3, 4, 5)} | {"5.15"}
NON_STRICT |= {f"6.4.{n}" for n in (1, 2, 3, 4)}


@pytest.mark.timeout(SECONDS + 30)
@pytest.mark.parametrize(
    ("cases", "number"),
    [(CASES, 247), (["9.*"], 54)],
    ids=["cases", "limits"],
)
def test_autobahn_finds_nothing_wrong(cases: list[str], number: int, tmp_path: Path) -> None:
    """Fragments, control frames, reserved bits, UTF-8, closing, large messages."""
    environment = {"A2WSGI_TEST_DIR": str(tmp_path)}
    command = KINDS["gunicorn-gthread"].command
    with running(lambda port: command(port, tmp_path), tmp_path, environment=environment, ready="/info") as server:
        results = run_cases(f"ws://127.0.0.1:{server.port}/echo", cases, SECONDS)
    assert len(results) == number
    assert not [
        (case, said, closed)
        for case, (said, closed) in results.items()
        if said not in {"OK", "INFORMATIONAL", *(["NON-STRICT"] if case in NON_STRICT else [])}
        or closed not in {"OK", "INFORMATIONAL"}
    ]
