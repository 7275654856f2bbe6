"""Clients that send a part of their body and nothing more, on WSGI servers that do not give them up by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.servers import SERVERS, serving

pytestmark = pytest.mark.interop

BOUNDED = ["gunicorn-sync", "gunicorn-sync-inline", "gunicorn-gthread", "gunicorn-gevent", "werkzeug"]


@pytest.mark.parametrize("name", BOUNDED)
def test_client_that_stops_sending_is_answered_408(name: str, tmp_path: Path) -> None:
    """RFC 9110 §15.5.9; and the server thread serves the next client, on a connection of its own."""
    reason = SERVERS[name].missing()
    if reason:
        pytest.skip(reason)
    with serving(name, "interop.slow_body_app:application", tmp_path) as served:
        for length in (1000, 100_000):  # read before the app begins, and as it asks
            with served.client() as client:
                client.send_head("POST", "/", [("Content-Length", str(length))])
                client.send(b"x" * 10)
                assert client.response("POST").status == 408
                assert client.is_over()
        with served.client() as client:
            client.send_head("POST", "/", [("Content-Length", "100000")])
            client.send(b"x" * 100_000)
            assert client.response("POST").body == b"100000"
