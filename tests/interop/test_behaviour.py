"""What every server does with the app of `interop.behaviour`, under the bridge that it needs.

The same tests for servers of ASGI apps and of WSGI apps. What a server cannot do is said in `interop.servers`, with the
reason, and has to fail here; ``docs/compatibility.md`` is made of the results. The names of the tests are its rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from interop.behaviour import HINT, PIECE, PIECES, RESPONSE_FIELDS
from interop.client import BrokenError, Client, Fields
from interop.servers import PREFIX, SERVERS, Served, serving
from support.servers import until

pytestmark = pytest.mark.interop

APPLICATIONS = {"asgi": "interop.behaviour:for_asgi", "wsgi": "interop.behaviour:for_wsgi"}

LARGE = random.Random(6).randbytes(1_000_000) * 20
BODIES = {"empty": b"", "small": b"fourteen bytes", "large": LARGE}
HELLO = b"Hello, world!"

#: Each a request of another kind: its method, path and body.
KINDS: dict[str, tuple[str, str, bytes | list[bytes] | None]] = {
    "hello": ("GET", "/hello", None),
    "streamed": ("GET", "/streamed", None),
    "head": ("HEAD", "/hello", None),
    "head-streamed": ("HEAD", "/streamed", None),
    "204": ("GET", "/status/204/never", None),
    "304": ("GET", "/status/304/never", None),
    "404": ("GET", "/missing", None),
    "upload": ("POST", "/upload", b"a body"),
    "chunked-upload": ("POST", "/upload", [b"a ", b"body"]),
    "unread": ("POST", "/unread", b"a body"),
}

REQUEST_FIELDS: dict[str, tuple[Fields, str, str]] = {
    "repeated": ([("X-Sent", "one"), ("X-Sent", "two")], "x-sent", "one, two"),
    "cookies": ([("Cookie", "a=1"), ("Cookie", "b=2; c=3")], "cookie", "a=1; b=2; c=3"),
    "non-ascii": ([("X-Sent", "é")], "x-sent", "é"),
    "empty": ([("X-Sent", "")], "x-sent", ""),
    "long": ([("X-Sent", "long " * 1_000 + "long")], "x-sent", "long " * 1_000 + "long"),
}

PATHS = {
    "utf-8": "/%C3%A9/%E2%82%AC",
    "not-utf-8": "/%E9t%E9",
    "quoted-slash": "/a%2Fb",
    "two-slashes": "/a//b/",
    "nul": "/a%00b",
    "others": "/a%20b+c%3Fd%25e",
}


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    """A connection to the server."""
    with served.client() as client:
        yield client


@pytest.fixture
def name(served: Served) -> Iterator[str]:
    """A name that no other test uses. At the end whatever waits for the test under it may go."""
    name = uuid.uuid4().hex
    yield name
    for what in ("go", "enough", "1", "2", "3"):
        served.tell(f"{name}-{what}")


def application(server_name: str) -> str:
    """The app that a server can call."""
    return APPLICATIONS[SERVERS[server_name].calls]


def echo(client: Client, target: str | bytes = "/echo", fields: Fields = ()) -> dict[str, Any]:
    """What the app was told."""
    told: dict[str, Any] = client.get(target, fields).json()
    return told


# -- What a request says ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "QUERY", "!ODD~"]
)
def test_method_reaches_the_app(client: Client, method: str) -> None:
    """RFC 9110 §9.1: a method is any token; what it means is the app's business."""
    body = None if method in {"GET", "DELETE", "OPTIONS"} else b""
    assert client.request(method, "/echo", body=body).json()["method"] == method


@pytest.mark.parametrize("kind", list(REQUEST_FIELDS))
def test_request_headers_reach_the_app(client: Client, kind: str) -> None:
    """RFC 9110 §5.3: lines of one name are one list. Bytes beyond ASCII stay what they are."""
    fields, key, value = REQUEST_FIELDS[kind]
    got = echo(client, fields=fields)["headers"][key]
    joint = ";" if key == "cookie" else ","
    assert [part.strip() for part in got.split(joint)] == [part.strip() for part in value.split(joint)]


@pytest.mark.parametrize("path", list(PATHS))
def test_path_reaches_the_app(client: Client, path: str) -> None:
    """An app gets the bytes that were quoted in a path, UTF-8 or not, and shows them as text."""
    told = echo(client, f"/echo{PATHS[path]}")
    sent = b"/echo" + unquote_to_bytes(PATHS[path])
    assert told["path"].encode("latin-1") == sent
    assert told["text"] == sent.decode("utf-8", "replace")


@pytest.mark.parametrize("query", ["quoted", "raw"])
def test_query_reaches_the_app(client: Client, query: str) -> None:
    """A query is the app's to unquote, and one that is not quoted is not lost."""
    sent = b"q=%C3%A9&r=%FF&s=+a&t" if query == "quoted" else "q=é".encode()
    assert echo(client, b"/echo?" + sent)["query"].encode("latin-1") == sent


def test_client_address_and_scheme_reach_the_app(client: Client) -> None:
    """An app knows who asks, and how."""
    told = echo(client)
    assert (told["client"], told["scheme"]) == ("127.0.0.1", "http")


def test_prefix_is_told_apart_from_the_path(server_name: str, tmp_path: Path) -> None:
    """Where the server mounts the app is its SCRIPT_NAME or root_path, and no part of its path."""
    with serving(server_name, application(server_name), tmp_path, PREFIX) as served, served.client() as client:
        told = echo(client, ("" if served.kind.prefix_is_cut else PREFIX) + "/echo/a%20b")
    assert (told["root"], told["path"], told["text"]) == (PREFIX, "/echo/a b", f"{PREFIX}/echo/a b")


# -- Uploads ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", list(BODIES))
def test_upload_arrives_whole(client: Client, size: str) -> None:
    """A body of a known length reaches the app byte for byte."""
    body = BODIES[size]
    response = client.request("POST", "/upload", body=body)
    assert response.json() == {"sha256": hashlib.sha256(body).hexdigest(), "length": len(body)}


@pytest.mark.parametrize("size", list(BODIES))
def test_chunked_upload_arrives_whole(client: Client, size: str) -> None:
    """As above, with a body whose length nobody tells."""
    body = BODIES[size]
    response = client.request("POST", "/upload", body=[body[at : at + 65_536] for at in range(0, len(body), 65_536)])
    assert response.json() == {"sha256": hashlib.sha256(body).hexdigest(), "length": len(body)}


def test_client_that_waits_for_100_continue_is_told_to_go_on(client: Client) -> None:
    """RFC 9110 §10.1.1: the client sends its body when it is told to."""
    client.send_head("POST", "/upload", [("Content-Length", "7"), ("Expect", "100-continue")])
    assert client.head().status == 100
    client.send(b"content")
    while (head := client.head()).status == 100:  # RFC 9110 §15.2: there may be several
        pass
    body = json.loads(b"".join(client.pieces(head)))
    assert body == {"sha256": hashlib.sha256(b"content").hexdigest(), "length": 7}


def test_refused_client_is_not_told_100_continue(client: Client) -> None:
    """An app that does not read a body never has it sent for."""
    client.send_head("POST", "/unread", [("Content-Length", str(len(LARGE))), ("Expect", "100-continue")])
    assert client.response().status == 403


def test_long_upload_is_refused_before_it_was_sent(client: Client) -> None:
    """An app that answers without reading need not wait for what it does not read."""
    client.send_head("POST", "/unread", [("Content-Length", str(len(LARGE)))])
    client.send(LARGE[:100_000])
    assert client.response().status == 403


# -- Responses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 299, 400, 404, 418, 500, 503, 599])
def test_status_reaches_the_client(client: Client, status: int) -> None:
    """RFC 9110 §15: also one that nobody has registered."""
    response = client.get(f"/status/{status}/so")
    assert (response.status, response.body) == (status, b"so")


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_a_body_has_none(client: Client, status: int) -> None:
    """RFC 9110 §6.4.1: whatever the app gives, these have no body, and nothing of it stands on the wire."""
    client.send_head("GET", f"/status/{status}/never", [("Connection", "close")])
    head = client.head()
    assert head.status == status
    assert [length for length in head.all("content-length") if length != "0"] == []
    assert client.is_over()


def test_head_has_the_head_of_get_and_no_body(served: Served) -> None:
    """RFC 9110 §9.3.2: the length is that of the body that is not sent."""
    with served.client() as client:
        client.send_head("HEAD", "/hello", [("Connection", "close")])
        head = client.head()
        assert (head.status, head["content-length"], client.is_over()) == (200, str(len(HELLO)), True)


@pytest.mark.parametrize("kind", list(dict(RESPONSE_FIELDS)))
def test_response_headers_reach_the_client(client: Client, kind: str) -> None:
    """Each stays a header of its own, with its bytes."""
    response = client.get("/fields")
    assert response.all(kind.lower()) == [value for key, value in RESPONSE_FIELDS if key == kind]


def test_large_download_arrives_whole(client: Client) -> None:
    """A body of many pieces, of no length that was said."""
    assert hashlib.sha256(client.get("/download").body).digest() == hashlib.sha256(PIECE * PIECES).digest()


def test_file_arrives_whole(served: Served, client: Client, name: str) -> None:
    """A file that the app hands over as one, and not as its bytes."""
    (served.directory / name).write_bytes(LARGE)
    response = client.get(f"/file/{name}")
    assert response["content-length"] == str(len(LARGE))
    assert hashlib.sha256(response.body).digest() == hashlib.sha256(LARGE).digest()


def test_file_is_sent_by_the_server_itself(served: Served, client: Client, name: str) -> None:
    """No byte of it is read in Python."""
    (served.directory / name).write_bytes(LARGE)
    assert len(client.get(f"/file/{name}").body) == len(LARGE)
    assert not (served.directory / f"{name}-read").exists()


def test_event_arrives_before_the_next_is_made(served: Served, client: Client, name: str) -> None:
    """Each event is on the wire while the app waits for what the client does on having it."""
    client.send_head("GET", f"/steps/{name}")
    head = client.head()
    assert head["content-type"].startswith("text/event-stream")
    pieces = client.pieces(head)
    for number in range(4):
        assert b"data: %d\n\n" % number in read_until(pieces, b"\n\n")
        served.tell(f"{name}-{number + 1}")
    assert b"".join(pieces) == b""


def test_head_arrives_before_there_is_a_body(served: Served, client: Client, name: str) -> None:
    """A client sees the head of a stream that has nothing to say yet."""
    client.send_head("GET", f"/headed/{name}")
    served.told(f"{name}-begun")
    head = client.head()
    served.tell(f"{name}-enough")
    assert b"".join(client.pieces(head)) == b"headed"


def test_early_hint_arrives_before_the_response(served: Served, client: Client, name: str) -> None:
    """The client has it while the app still works (RFC 8297 §2)."""
    client.send_head("GET", f"/hinted/{name}")
    hint = client.head()
    assert (hint.status, hint.all("link")) == (103, [HINT])
    served.tell(f"{name}-go")
    assert client.response().body == b"held"


@pytest.mark.parametrize("kind", list(KINDS))
def test_connection_is_kept(client: Client, kind: str) -> None:
    """What a response leaves on the wire is nothing: the next one on the same connection begins with its head."""
    method, path, body = KINDS[kind]
    client.request(method, path, body=body)
    assert client.get("/hello").body == HELLO


def test_connection_ends_where_the_client_wants_it(served: Served) -> None:
    """RFC 9112 §9.6: the response that a client wants to be the last one is."""
    for path, body in (("/hello", HELLO), ("/streamed", b"one two three")):
        with served.client() as client:
            assert client.get(path, [("Connection", "close")]).body == body
            assert client.is_over()


def test_fifty_at_once_are_all_answered(served: Served) -> None:
    """Each client gets its own answer, however many the server runs at a time."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(served.client()) for _ in range(50)]
        for number, client in enumerate(clients):
            client.send_head("GET", f"/status/200/{number}", [("Connection", "close")])
        for number, client in enumerate(clients):
            assert client.response().body == b"%d" % number
            client.close()  # gunicorn waits for it, before it goes on to the next


# -- Errors -------------------------------------------------------------------------------------------------------


def test_error_before_the_head_is_answered_500_and_logged(served: Served, client: Client) -> None:
    """What the app raises is the server's to answer, and to log."""
    printed = served.server.output_length()
    assert client.get("/fails").status == 500
    until(
        lambda: "ValueError: before the head" in served.server.output(printed), "the error is logged", served.patience
    )


def test_error_after_the_head_breaks_the_response(served: Served, client: Client, name: str) -> None:
    """A response that the app did not finish never looks complete."""
    client.send_head("GET", f"/breaks/{name}")
    pieces = client.pieces(client.head())
    assert read_until(pieces, b"half") == b"half"
    served.tell(f"{name}-go")
    with pytest.raises(BrokenError):
        list(pieces)


# Behind the others: daphne answers no error any more once a response has broken.
def test_file_that_becomes_shorter_breaks_the_response(served: Served, client: Client, name: str) -> None:
    """Its client is not left waiting, and takes nothing else for the rest."""
    path = served.directory / name
    path.touch()
    os.truncate(path, 64 << 20)  # more than is under way
    client.send_head("GET", f"/file/{name}")
    pieces = client.pieces(client.head())
    next(pieces)
    os.truncate(path, 1000)
    with pytest.raises(BrokenError):
        list(pieces)


# -- Clients that hang up: the app is told --------------------------------------------------------------------------


def test_hang_up_within_the_upload_is_told(served: Served, name: str) -> None:
    """An app that reads is not kept waiting for the rest."""
    with served.client() as client:
        client.send_head("POST", f"/reading/{name}", [("Content-Length", "1000000")])
        client.send(LARGE[:200_000])
        served.told(f"{name}-begun")
    served.told(f"{name}-gone")


def test_hang_up_before_the_answer_is_told(served: Served, name: str) -> None:
    """An app that has its request, and works on it, need not finish."""
    with served.client() as client:
        client.send_head("GET", f"/thinking/{name}")
        served.told(f"{name}-begun")
    served.told(f"{name}-gone")


def test_hang_up_after_the_head_is_told(served: Served, name: str) -> None:
    """An app that has sent a head, and nothing else yet."""
    with served.client() as client:
        client.send_head("GET", f"/headed/{name}")
        served.told(f"{name}-begun")
    served.told(f"{name}-gone")


def test_hang_up_within_the_response_is_told(served: Served, name: str) -> None:
    """An app that sends does not go on."""
    with served.client() as client:
        client.send_head("GET", f"/flooding/{name}")
        read_until(client.pieces(client.head()), PIECE)
    served.told(f"{name}-gone")


def test_hang_up_on_an_idle_stream_is_told(served: Served, name: str) -> None:
    """An app whose events are rare does not hold a thread for who is gone."""
    with served.client() as client:
        client.send_head("GET", f"/idle/{name}")
        read_until(client.pieces(client.head()), b"begun")
    served.told(f"{name}-gone")


def test_hang_up_is_no_error_in_the_log(served: Served, name: str) -> None:
    """People leave: the log does not complain."""
    printed = served.server.output_length()
    with served.client() as client:
        client.send_head("GET", f"/flooding/{name}")
        read_until(client.pieces(client.head()), PIECE)
    served.told(f"{name}-gone")
    with served.client() as client:  # whatever was to be logged is
        assert client.get("/hello").body == HELLO
    assert "Traceback" not in served.server.output(printed)


# -- The end ------------------------------------------------------------------------------------------------------


def test_running_requests_end_when_the_server_is_told_to_stop(server_name: str, tmp_path: Path) -> None:
    """It answers what runs, and exits without a word of complaint."""
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(serving(server_name, application(server_name), tmp_path))
        clients = [stack.enter_context(served.client()) for _ in range(served.kind.at_once)]
        for number, client in enumerate(clients):
            client.send_head("GET", f"/held/{number}")
            served.told(f"{number}-begun")
        served.server.signal(served.kind.ends_by)
        with contextlib.suppress(TimeoutError):  # where it goes on to listen, it has the signal by then all the same
            until(lambda: not served.server.listens(), "the server takes no more connections", 1.0)
        for number in range(len(clients)):
            served.tell(f"{number}-go")
        assert [client.response().body for client in clients] == [b"held"] * len(clients)
        assert served.server.wait() in {0, -served.kind.ends_by}
        # On SIGINT servers may show their own KeyboardInterrupt.
        assert "Traceback" not in served.server.output() or served.kind.ends_by is signal.SIGINT


def read_until(pieces: Iterator[bytes], wanted: bytes) -> bytes:
    """What comes until it holds ``wanted``."""
    data = b""
    for piece in pieces:
        data += piece
        if wanted in data:
            return data
    raise BrokenError(f"no {wanted!r} in {data!r}")
