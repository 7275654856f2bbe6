"""Flask and Django under a bridge on each ASGI server, over real sockets: what `test_behaviour` has not.

Whatever a test waits for is told by the app, by the server's answers or by the end of a connection; nothing sleeps.
"""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import Iterator

import pytest

from interop.client import BrokenError, Client, Fields, Response, closing_all
from interop.servers import SERVERS, Served
from support.servers import until

pytestmark = pytest.mark.interop

APPLICATIONS = {"asgi": "interop.wsgi_apps:application"}
ON = [name for name, kind in SERVERS.items() if kind.calls == "asgi" and not kind.http2]

MEGABYTE = 1_000_000
UPLOAD = random.Random(20).randbytes(MEGABYTE) * 20
SHA256 = hashlib.sha256(UPLOAD).hexdigest()
PIECES = [UPLOAD[at : at + 65_536] for at in range(0, len(UPLOAD), 65_536)]


def to(bridge: str) -> Fields:
    """The header that sends a request to a bridge."""
    return [("X-Bridge", bridge)]


def statistics(server: Served, bridge: str) -> dict[str, int]:
    """What a bridge does at the moment, which the server tells without a worker."""
    with Client(server.port) as client:
        figures: dict[str, int] = client.get("/statistics").json()[bridge]
        return figures


def unique() -> str:
    """A name that no other test uses."""
    return uuid.uuid4().hex


def multipart(content: bytes) -> tuple[Fields, list[bytes]]:
    """A form with a title and a file, as a header and in pieces."""
    boundary = unique()
    begin = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="title"\r\n\r\nA file\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    pieces = [content[at : at + 65_536] for at in range(0, len(content), 65_536)]
    fields = [("Content-Type", f"multipart/form-data; boundary={boundary}")]
    return fields, [begin.encode(), *pieces, f"\r\n--{boundary}--\r\n".encode()]


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    """A connection to the server."""
    with Client(served.port) as client:
        yield client


# -- Uploads ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("path", ["/data", "/read"])
def test_flask_reads_a_body_of_20_mb(client: Client, path: str, chunked: bool) -> None:
    """A long body reaches the app byte for byte, with a length and without."""
    response = client.request("POST", path, body=PIECES if chunked else UPLOAD)
    assert response.json() == {"sha256": SHA256, "length": len(UPLOAD)}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_flask_takes_a_file_of_20_mb(client: Client, chunked: bool) -> None:
    """A long multipart form is parsed, with a length and without."""
    fields, pieces = multipart(UPLOAD)
    response = client.request("POST", "/files", fields, pieces if chunked else b"".join(pieces))
    assert response.json() == {"title": "A file", "sha256": SHA256, "length": len(UPLOAD)}


def test_django_takes_a_file_of_20_mb(client: Client) -> None:
    """A long multipart form is parsed by Django too."""
    fields, pieces = multipart(UPLOAD)
    response = client.request("POST", "/files", [*fields, *to("django")], b"".join(pieces))
    assert response.json() == {"title": "A file", "sha256": SHA256, "length": len(UPLOAD)}


def test_django_sees_a_small_chunked_body(client: Client) -> None:
    """Django reads no body without a length; so a small one is given its length."""
    response = client.request("POST", "/read", to("django"), [b"four", b"teen bytes"])
    assert response.json() == {"sha256": hashlib.sha256(b"fourteen bytes").hexdigest(), "length": 14}


def test_django_takes_a_small_chunked_form(client: Client) -> None:
    """As above, for a form with a file."""
    fields, pieces = multipart(b"content")
    response = client.request("POST", "/files", [*fields, *to("django")], pieces)
    assert response.json() == {"title": "A file", "sha256": hashlib.sha256(b"content").hexdigest(), "length": 7}


def test_slow_small_upload_takes_no_worker(served: Served, client: Client) -> None:
    """While a body of less than the buffer comes in, the only worker answers others."""
    one_worker = to("one-worker")
    client.send_head("POST", "/read", [*one_worker, ("Content-Length", "1000")])
    client.send(b"x" * 500)
    until(lambda: statistics(served, "one-worker")["in_flight"] == 1, "the upload has begun")
    assert statistics(served, "one-worker")["busy"] == 0
    with Client(served.port) as other:
        assert other.get("/hello", one_worker).body == b"Hello, world!"
    client.send(b"x" * 500)
    assert client.response().json()["length"] == 1000


def test_slow_long_upload_holds_a_worker_of_ten(served: Served, client: Client) -> None:
    """A body of more than the buffer is read by the app as it comes in, and the others are answered meanwhile."""
    client.send_head("POST", "/read", [*to("ten-workers"), ("Content-Length", "200000")])
    client.send(b"x" * 100_000)
    until(lambda: statistics(served, "ten-workers")["busy"] == 1, "the app reads")
    with Client(served.port) as other:
        assert other.get("/hello", to("ten-workers")).body == b"Hello, world!"
    client.send(b"x" * 100_000)
    assert client.response().json()["length"] == 200_000


# -- Responses ----------------------------------------------------------------------------------------------------


def test_connection_is_kept_after_each_kind_of_response(client: Client) -> None:
    """What a response leaves on the wire is nothing: the next one on the same connection begins with its head."""
    whole = b"Hello, world!"
    assert client.get("/hello").body == whole
    assert client.get("/streamed").body == b"one two three"
    assert client.request("HEAD", "/hello")["content-length"] == "13"
    assert client.request("HEAD", "/streamed").status == 200
    assert client.get("/empty").status == 204
    assert client.get("/unchanged")["etag"] == '"same"'
    assert client.get("/missing").status == 404
    assert client.get("/error").status == 500
    assert client.request("POST", "/data", body=b"content").json()["length"] == 7
    assert client.request("POST", "/data", body=[b"con", b"tent"]).json()["length"] == 7
    assert client.request("POST", "/unread", body=b"a short body").status == 403
    assert client.get("/streamed", to("django")).body == b"one two three"
    assert client.get("/hello").body == whole


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    """RFC 9112 §9.3.2: a client may send the next request before it has the response to the last."""
    for path in ("/hello", "/streamed", "/environ/third"):
        client.send_head("GET", path)
    assert client.response().body == b"Hello, world!"
    assert client.response().body == b"one two three"
    assert environ(client.response())["PATH_INFO"] == "/environ/third"


def test_response_is_cut_at_its_length(client: Client) -> None:
    """What an app gives past its Content-Length never reaches the next response."""
    assert client.get("/too-long", to("plain")).body == b"one"
    assert client.get("/written", to("plain")).body == b"written, returned"


def test_response_without_a_body_has_no_length_but_that_of_get(client: Client) -> None:
    """RFC 9110 §8.6: a 204 says no length, and a HEAD that of its GET."""
    assert client.get("/empty").all("content-length") == []
    assert client.request("HEAD", "/hello").all("content-length") == client.get("/hello").all("content-length")


def test_fifty_at_once_run_ten_at_a_time(served: Served) -> None:
    """Requests run side by side: each waits for nine others."""
    clients = [Client(served.port) for _ in range(50)]
    with closing_all(clients):
        for client in clients:
            client.send_head("GET", "/together")
        assert [client.response().body for client in clients] == [b"together"] * 50


# -- What a request says ------------------------------------------------------------------------------------------


def environ(response: Response) -> dict[str, str]:
    """The strings of the environ that the app was given."""
    strings: dict[str, str] = response.json()
    return strings


def test_cookies_arrive_and_are_set_each_on_its_own(client: Client) -> None:
    """Two Cookie headers are one list, and two that the app sets are two headers."""
    response = client.get("/cookies", [("Cookie", "a=1"), ("Cookie", "b=2; c=3")])
    assert response.json() == {"a": ["1"], "b": ["2"], "c": ["3"]}
    assert response.all("set-cookie") == ["first=1; Path=/", "second=2; Path=/"]


def test_mount_is_the_script_name(client: Client) -> None:
    """What Starlette mounts an app under is its SCRIPT_NAME, and no part of its path."""
    strings = environ(client.get("/mounted/environ/a%20b", to("mounted")))
    assert (strings["SCRIPT_NAME"], strings["PATH_INFO"]) == ("/mounted", "/environ/a b")


def test_django_knows_its_mount(client: Client) -> None:
    """Django's paths begin with the prefix."""
    assert client.get("/django/prefix?a=1&a=2", to("mounted")).json() == {
        "path": "/django/prefix",
        "path_info": "/prefix",
        "query": {"a": ["1", "2"]},
    }


# -- Endings ------------------------------------------------------------------------------------------------------


def test_response_that_is_shorter_than_it_says_is_broken(client: Client) -> None:
    """A response that has not the length that it said never looks complete."""
    with pytest.raises(BrokenError, match="7 bytes before the end"):
        client.get("/too-short", to("plain"))


@pytest.mark.parametrize("length", [1000, 200_000], ids=["short", "long"])
def test_upload_of_a_client_that_hangs_up_is_no_error_in_the_log(served: Served, length: int) -> None:
    """Neither is one that leaves within a body, before the app has begun or while it reads: Flask does not complain."""
    printed = served.server.output_length()
    with Client(served.port) as client:
        client.send_head("POST", "/read", [*to("ten-workers"), ("Content-Length", str(length))])
        client.send(b"x" * (length // 2))
        until(lambda: statistics(served, "ten-workers")["in_flight"] == 1, "the upload has begun")
    until(lambda: statistics(served, "ten-workers")["in_flight"] == 0, "the request is over")
    assert "Traceback" not in served.server.output(since=printed)


def test_clients_that_hang_up_keep_no_worker(served: Served) -> None:
    """Ten clients take all workers and leave; the next is answered."""
    ten_workers = to("ten-workers")
    names = [unique() for _ in range(10)]
    clients = [Client(served.port) for _ in names]
    with closing_all(clients):
        for client, name in zip(clients, names, strict=True):
            client.send_head("GET", f"/endless/{name}", ten_workers)
        for client in clients:
            assert next_bytes(client)
    with Client(served.port) as other:
        assert other.get("/hello", ten_workers).body == b"Hello, world!"
        assert [other.get(f"/closed/{name}").status for name in names] == [200] * 10


def test_request_of_a_client_that_hangs_up_in_the_queue_never_reaches_the_app(served: Served) -> None:
    """While the only worker streams, another request waits for it, and its client leaves."""
    one_worker = to("one-worker")
    name = unique()
    with Client(served.port) as client:
        client.send_head("GET", f"/events/{name}", one_worker)
        assert client.head().status == 200
        chunks = client.chunks()
        assert next(chunks) == b"data: 0\n\n"
        with Client(served.port) as waiting:
            waiting.send_head("POST", f"/events/{name}/step", [*one_worker, ("Content-Length", "0")])
            until(lambda: statistics(served, "one-worker")["queued"] == 1, "the request waits")
        until(lambda: statistics(served, "one-worker")["queued"] == 0, "it does not wait any more")
        with Client(served.port) as other:
            assert other.request("POST", f"/events/{name}/end", body=b"").status == 200
            assert list(chunks) == []
            assert other.get("/hello", one_worker).body == b"Hello, world!"


def test_client_that_stops_reading_is_given_up(served: Served) -> None:
    """After ``send_timeout`` its worker is free, though it never left."""
    stalled = statistics(served, "impatient")["stalled"]
    name = unique()
    client = Client(served.port, receive_buffer=4096)
    with client:
        client.send_head("GET", f"/endless/{name}", to("impatient"))
        until(lambda: statistics(served, "impatient")["stalled"] == stalled + 1, "it is given up")
        with Client(served.port) as other:
            assert other.get(f"/closed/{name}").status == 200
            assert other.get("/hello", to("impatient")).body == b"Hello, world!"
        assert client.head().status == 200
        with pytest.raises(BrokenError):
            for _ in client.chunks():
                pass


def next_bytes(client: Client) -> bytes:
    """The first bytes of the body of a response that has none of a known length."""
    assert client.head().status == 200
    return next(client.chunks())
