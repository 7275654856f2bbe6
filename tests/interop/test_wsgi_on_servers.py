"""Flask and Django under a bridge on each ASGI server, over real sockets.

Whatever a test waits for is told by the app, by the server's answers or by the end of a connection; nothing sleeps.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.asgi_servers import ASGI_SERVERS
from interop.client import BrokenError, Client, Fields, Response, closing_all
from support.servers import Server, running, until

pytestmark = pytest.mark.interop

#: What a server cannot do, whatever a bridge does: the server, the test, and why.
CANNOT: dict[tuple[str, str], str] = {
    **{
        (server, "test_raw_query_arrives_as_it_was_sent"): "answers 400 to a target that is not ASCII"
        for server in ("uvicorn-h11", "uvicorn-httptools", "hypercorn", "daphne", "gunicorn")
    },
    **{
        ("daphne", test): "calls the app when it has the whole body, and not before"
        for test in (
            "test_slow_small_upload_takes_no_worker",
            "test_slow_long_upload_holds_a_worker_of_ten",
            "test_continue_is_not_sent_to_a_client_that_the_app_refuses",
            "test_upload_of_a_client_that_hangs_up_ends",
            "test_upload_of_a_client_that_hangs_up_is_no_error_in_the_log",
            "test_sigterm_lets_running_requests_end",
        )
    },
    ("daphne", "test_long_upload_is_refused_before_it_was_sent"): "calls the app when it has the whole body",
    ("hypercorn", "test_continue_is_not_sent_to_a_client_that_the_app_refuses"): (
        "sends 100 Continue before it calls the app"
    ),
    **{
        ("daphne", test): "answers such an error with a second head, fails at that, and leaves the connection open"
        for test in (
            "test_error_after_the_head_breaks_the_response",
            "test_response_that_is_shorter_than_it_says_is_broken",
        )
    },
    ("daphne", "test_client_that_stops_reading_is_given_up"): "takes a response as fast as it comes, without a bound",
}

MEGABYTE = 1_000_000
UPLOAD = random.Random(20).randbytes(MEGABYTE) * 20
SHA256 = hashlib.sha256(UPLOAD).hexdigest()
PIECES = [UPLOAD[at : at + 65_536] for at in range(0, len(UPLOAD), 65_536)]


def to(bridge: str) -> Fields:
    """The header that sends a request to a bridge."""
    return [("X-Bridge", bridge)]


def statistics(server: Server, bridge: str) -> dict[str, int]:
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
def client(asgi_server: Server) -> Iterator[Client]:
    """A connection to the server."""
    with Client(asgi_server.port) as client:
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


def test_slow_small_upload_takes_no_worker(asgi_server: Server, client: Client) -> None:
    """While a body of less than the buffer comes in, the only worker answers others."""
    one_worker = to("one-worker")
    client.send_head("POST", "/read", [*one_worker, ("Content-Length", "1000")])
    client.send(b"x" * 500)
    until(lambda: statistics(asgi_server, "one-worker")["in_flight"] == 1, "the upload has begun")
    assert statistics(asgi_server, "one-worker")["busy"] == 0
    with Client(asgi_server.port) as other:
        assert other.get("/hello", one_worker).body == b"Hello, world!"
    client.send(b"x" * 500)
    assert client.response().json()["length"] == 1000


def test_slow_long_upload_holds_a_worker_of_ten(asgi_server: Server, client: Client) -> None:
    """A body of more than the buffer is read by the app as it comes in, and the others are answered meanwhile."""
    client.send_head("POST", "/read", [*to("ten-workers"), ("Content-Length", "200000")])
    client.send(b"x" * 100_000)
    until(lambda: statistics(asgi_server, "ten-workers")["busy"] == 1, "the app reads")
    with Client(asgi_server.port) as other:
        assert other.get("/hello", to("ten-workers")).body == b"Hello, world!"
    client.send(b"x" * 100_000)
    assert client.response().json()["length"] == 200_000


def test_continue_is_sent_to_a_client_whose_body_the_app_reads(client: Client) -> None:
    """RFC 9110 §10.1.1: the client is told to go on before it sends its body."""
    client.send_head("POST", "/read", [("Content-Length", "7"), ("Expect", "100-continue")])
    assert client.head().status == 100
    client.send(b"content")
    assert client.response().json() == {"sha256": hashlib.sha256(b"content").hexdigest(), "length": 7}


def test_continue_is_not_sent_to_a_client_that_the_app_refuses(client: Client) -> None:
    """An app that does not read the body never has it sent for."""
    client.send_head("POST", "/unread", [("Content-Length", str(len(UPLOAD))), ("Expect", "100-continue")])
    assert client.response().status == 403


def test_long_upload_is_refused_before_it_was_sent(client: Client) -> None:
    """An app that answers without reading need not wait for what it does not read."""
    client.send_head("POST", "/unread", [("Content-Length", str(len(UPLOAD)))])
    client.send(PIECES[0] + PIECES[1])
    assert client.response().status == 403


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


def test_connection_ends_where_the_client_wants_it(asgi_server: Server) -> None:
    """RFC 9112 §9.6: the response that a client wants to be the last one is."""
    for path, body in (("/hello", b"Hello, world!"), ("/streamed", b"one two three")):
        with Client(asgi_server.port) as client:
            assert client.get(path, [("Connection", "close")]).body == body
            assert client.is_over()


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


def test_event_arrives_before_the_next_is_made(asgi_server: Server, client: Client) -> None:
    """Each event is on the wire while its generator waits for what the client does on having it."""
    name = unique()
    client.send_head("GET", f"/events/{name}")
    assert client.head()["content-type"].startswith("text/event-stream")
    chunks = client.chunks()
    with Client(asgi_server.port) as other:
        for number in range(20):
            assert next(chunks) == f"data: {number}\n\n".encode()
            assert other.request("POST", f"/events/{name}/step", body=b"").status == 200
        other.request("POST", f"/events/{name}/end", body=b"")
    assert list(chunks) == [b"data: 20\n\n"]


def test_fifty_at_once_are_all_answered(asgi_server: Server) -> None:
    """Requests run side by side: each waits for nine others."""
    clients = [Client(asgi_server.port) for _ in range(50)]
    with closing_all(clients):
        for client in clients:
            client.send_head("GET", "/together")
        assert [client.response().body for client in clients] == [b"together"] * 50


# -- What a request says ------------------------------------------------------------------------------------------


def environ(response: Response) -> dict[str, str]:
    """The strings of the environ that the app was given."""
    strings: dict[str, str] = response.json()
    return strings


def test_raw_query_arrives_as_it_was_sent(client: Client) -> None:
    """PEP 3333 has strings stand for bytes: so a query that the client did not quote is not lost."""
    sent = "q=é".encode()
    assert environ(client.get(b"/environ?" + sent))["QUERY_STRING"].encode("latin-1") == sent


def test_quoted_query_stays_quoted(client: Client) -> None:
    """The query string is the app's to unquote."""
    assert environ(client.get("/environ?q=%C3%A9&r=%FF&s=+a"))["QUERY_STRING"] == "q=%C3%A9&r=%FF&s=+a"


def test_path_keeps_bytes_that_are_not_utf8(client: Client) -> None:
    """A path in another encoding reaches the app as the bytes that it was."""
    path = environ(client.get("/environ/%E9t%E9/%C3%A9"))["PATH_INFO"]
    assert path.encode("latin-1") == b"/environ/\xe9t\xe9/\xc3\xa9"


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


def test_error_before_the_head_is_answered_500(asgi_server: Server, client: Client) -> None:
    """What the app raises is the server's to answer, and to log."""
    printed = asgi_server.output_length()
    assert client.get("/fails-before", to("plain")).status == 500
    until(lambda: "ValueError: before the head" in asgi_server.output(since=printed), "the error is logged")


def test_error_after_the_head_breaks_the_response(client: Client) -> None:
    """A response that the app did not finish never looks complete."""
    client.send_head("GET", "/fails-after", to("plain"))
    head = client.head()
    assert head.status == 200
    chunks = client.chunks()
    assert next(chunks) == b"one"
    with pytest.raises(BrokenError):
        next(chunks)
    assert client.is_over()


def test_response_that_is_shorter_than_it_says_is_broken(client: Client) -> None:
    """A response that has not the length that it said never looks complete."""
    with pytest.raises(BrokenError, match="7 bytes before the end"):
        client.get("/too-short", to("plain"))


@pytest.mark.parametrize("kind", ["endless", "quiet"])
def test_client_that_hangs_up_ends_its_response(asgi_server: Server, kind: str) -> None:
    """The iterable is closed, also one that has nothing to say."""
    name = unique()
    with Client(asgi_server.port) as client:
        client.send_head("GET", f"/{kind}/{name}")
        assert next_bytes(client)
    with Client(asgi_server.port) as other:
        assert other.get(f"/closed/{name}").status == 200


def test_client_that_hangs_up_is_no_error_in_the_log(asgi_server: Server) -> None:
    """People leave: the log does not complain."""
    printed = asgi_server.output_length()
    name = unique()
    with Client(asgi_server.port) as client:
        client.send_head("GET", f"/endless/{name}")
        assert next_bytes(client)
    with Client(asgi_server.port) as other:
        assert other.get(f"/closed/{name}").status == 200
    until(lambda: statistics(asgi_server, "flask")["in_flight"] == 0, "the request is over")
    assert "Traceback" not in asgi_server.output(since=printed)


@pytest.mark.parametrize("length", [1000, 200_000], ids=["short", "long"])
def test_upload_of_a_client_that_hangs_up_is_no_error_in_the_log(asgi_server: Server, length: int) -> None:
    """Neither is one that leaves within a body, before the app has begun or while it reads: Flask does not complain."""
    printed = asgi_server.output_length()
    with Client(asgi_server.port) as client:
        client.send_head("POST", "/read", [*to("ten-workers"), ("Content-Length", str(length))])
        client.send(b"x" * (length // 2))
        until(lambda: statistics(asgi_server, "ten-workers")["in_flight"] == 1, "the upload has begun")
    until(lambda: statistics(asgi_server, "ten-workers")["in_flight"] == 0, "the request is over")
    assert "Traceback" not in asgi_server.output(since=printed)


def test_clients_that_hang_up_keep_no_worker(asgi_server: Server) -> None:
    """Ten clients take all workers and leave; the next is answered."""
    ten_workers = to("ten-workers")
    names = [unique() for _ in range(10)]
    clients = [Client(asgi_server.port) for _ in names]
    with closing_all(clients):
        for client, name in zip(clients, names, strict=True):
            client.send_head("GET", f"/endless/{name}", ten_workers)
        for client in clients:
            assert next_bytes(client)
    with Client(asgi_server.port) as other:
        assert other.get("/hello", ten_workers).body == b"Hello, world!"
        assert [other.get(f"/closed/{name}").status for name in names] == [200] * 10


def test_request_of_a_client_that_hangs_up_in_the_queue_never_reaches_the_app(asgi_server: Server) -> None:
    """While the only worker streams, another request waits for it, and its client leaves."""
    one_worker = to("one-worker")
    name = unique()
    with Client(asgi_server.port) as client:
        client.send_head("GET", f"/events/{name}", one_worker)
        assert client.head().status == 200
        chunks = client.chunks()
        assert next(chunks) == b"data: 0\n\n"
        with Client(asgi_server.port) as waiting:
            waiting.send_head("POST", f"/events/{name}/step", [*one_worker, ("Content-Length", "0")])
            until(lambda: statistics(asgi_server, "one-worker")["queued"] == 1, "the request waits")
        until(lambda: statistics(asgi_server, "one-worker")["queued"] == 0, "it does not wait any more")
        with Client(asgi_server.port) as other:
            assert other.request("POST", f"/events/{name}/end", body=b"").status == 200
            assert list(chunks) == []
            assert other.get("/hello", one_worker).body == b"Hello, world!"


def test_upload_of_a_client_that_hangs_up_ends(asgi_server: Server) -> None:
    """An app that waits for the rest of a body whose client left is not kept waiting."""
    with Client(asgi_server.port) as client:
        client.send_head("POST", "/read", [*to("ten-workers"), ("Content-Length", "200000")])
        client.send(b"x" * 100_000)
        until(lambda: statistics(asgi_server, "ten-workers")["busy"] == 1, "the app reads")
    until(lambda: statistics(asgi_server, "ten-workers")["busy"] == 0, "the app has ended")


def test_client_that_stops_reading_is_given_up(asgi_server: Server) -> None:
    """After ``send_timeout`` its worker is free, though it never left."""
    stalled = statistics(asgi_server, "impatient")["stalled"]
    name = unique()
    client = Client(asgi_server.port, receive_buffer=4096)
    with client:
        client.send_head("GET", f"/endless/{name}", to("impatient"))
        until(lambda: statistics(asgi_server, "impatient")["stalled"] == stalled + 1, "it is given up")
        with Client(asgi_server.port) as other:
            assert other.get(f"/closed/{name}").status == 200
            assert other.get("/hello", to("impatient")).body == b"Hello, world!"
        assert client.head().status == 200
        with pytest.raises(BrokenError):
            for _ in client.chunks():
                pass


def test_sigterm_lets_running_requests_end(asgi_server_name: str, tmp_path: Path) -> None:
    """A server that is told to stop takes no more connections, and the requests that run are answered to their end."""
    count = 5
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running(ASGI_SERVERS[asgi_server_name].command, tmp_path))
        clients = [stack.enter_context(Client(server.port)) for _ in range(count)]
        for client in clients:
            client.send_head("POST", "/read", [("Content-Length", "200000")])
            client.send(b"x" * 100_000)
        until(lambda: statistics(server, "flask")["busy"] == count, "the app reads")
        server.signal(signal.SIGTERM)
        until(lambda: not server.listens(), "the server takes no more connections")
        for client in clients:
            client.send(b"x" * 100_000)
        assert [client.response().json()["length"] for client in clients] == [200_000] * count
        assert server.wait() in {0, -signal.SIGTERM}
        assert "Traceback" not in server.output()


def next_bytes(client: Client) -> bytes:
    """The first bytes of the body of a response that has none of a known length."""
    assert client.head().status == 200
    return next(client.chunks())
