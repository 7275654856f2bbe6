"""Clients that leave in the middle of anything, many at once, on each ASGI server.

Each manner of theirs is a function of the client, a seeded source of choices, and the header that names the bridge.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable

import pytest

from interop.client import Client, Fields
from interop.servers import SERVERS, Served
from support.servers import until

pytestmark = pytest.mark.interop

APPLICATIONS = {"asgi": "interop.wsgi_apps:application"}
ON = [name for name, kind in SERVERS.items() if kind.calls == "asgi" and not kind.http2]

THREADS = 8
VISITS = 25  # of each thread


def _hello(client: Client, dice: random.Random, to: Fields) -> None:
    assert client.get("/hello", to).body == b"Hello, world!"


def _upload(client: Client, dice: random.Random, to: Fields) -> None:
    body = dice.randbytes(dice.randrange(500_000))
    assert client.request("POST", "/read", to, body).json()["sha256"] == hashlib.sha256(body).hexdigest()


def _leave_before_the_response(client: Client, dice: random.Random, to: Fields) -> None:
    client.send_head("GET", dice.choice(["/streamed", "/endless/rude", "/hello"]), to)


def _leave_within_the_response(client: Client, dice: random.Random, to: Fields) -> None:
    client.send_head("GET", dice.choice(["/endless/rude", "/quiet/rude"]), to)
    assert client.head().status == 200
    assert next(client.chunks())


def _leave_within_the_head(client: Client, dice: random.Random, to: Fields) -> None:
    client.send(b"GET /hello HTTP/1.1\r\nHo")


def _leave_within_the_body(client: Client, dice: random.Random, to: Fields) -> None:
    client.send_head("POST", "/read", [*to, ("Content-Length", "300000")])
    client.send(b"x" * dice.randrange(300_000))


def _leave_within_the_chunks(client: Client, dice: random.Random, to: Fields) -> None:
    client.send_head("POST", "/data", [*to, ("Transfer-Encoding", "chunked")])
    for _ in range(dice.randrange(5)):
        client.send_chunk(b"x" * dice.randrange(1, 70_000))


def _leave_without_going_on(client: Client, dice: random.Random, to: Fields) -> None:
    client.send_head("POST", "/read", [*to, ("Content-Length", "10"), ("Expect", "100-continue")])
    if dice.random() < 0.5:
        assert client.head().status == 100
        client.send(b"x" * dice.randrange(10))


def _leave_the_pipeline(client: Client, dice: random.Random, to: Fields) -> None:
    for _ in range(3):
        client.send_head("GET", "/hello", to)
    for _ in range(dice.randrange(4)):
        assert client.response().body == b"Hello, world!"


MANNERS: list[Callable[[Client, random.Random, Fields], None]] = [
    _hello,
    _upload,
    _leave_before_the_response,
    _leave_within_the_response,
    _leave_within_the_head,
    _leave_within_the_body,
    _leave_within_the_chunks,
    _leave_without_going_on,
    _leave_the_pipeline,
]


def visit(port: int, seed: int, failures: list[BaseException]) -> None:
    """Be all kinds of clients, one after the other."""
    dice = random.Random(seed)
    try:
        for _ in range(VISITS):
            bridge = dice.choice(["flask", "ten-workers", "one-worker"])
            with Client(port) as client:
                dice.choice(MANNERS)(client, dice, [("X-Bridge", bridge)])
                if dice.random() < 0.3:
                    client.reset_on_close()
    except BaseException as failure:  # noqa: BLE001 - raised in the test
        failures.append(failure)


def test_clients_that_leave_in_the_middle_leave_nothing_behind(served: Served) -> None:
    """Whoever stays is answered, and in the end no bridge has a request, and no worker is at work."""
    failures: list[BaseException] = []
    threads = [threading.Thread(target=visit, args=(served.port, seed, failures)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in failures:
        raise failure

    def is_idle() -> bool:
        with Client(served.port) as client:
            bridges = client.get("/statistics").json().values()
        return not any(bridge[figure] for bridge in bridges for figure in ("in_flight", "busy", "queued"))

    until(is_idle, "all requests are over")
