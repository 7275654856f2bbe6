"""What the tests of WSGI apps under ASGI servers have in common."""

from __future__ import annotations

import pytest

from support.asgi_driver import Message, messages_of

HELLO = messages_of(200, [(b"content-type", b"text/plain"), (b"content-length", b"5")], b"hello")


ECHO_TYPE = (b"content-type", b"application/octet-stream")


def echoed(body: bytes) -> list[Message]:
    """What `apps.echo` answers to ``body``."""
    return messages_of(200, [ECHO_TYPE, (b"content-length", b"%d" % len(body))], body)


def our_log(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What a2wsgi has logged: the level and the text of each record."""
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "a2wsgi"]


LIFESPAN = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
