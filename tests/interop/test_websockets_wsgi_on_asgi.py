"""The WebSockets of unmodified WSGI apps on each ASGI server, over real sockets, with real libraries at both ends.

Each test says what it shows for all servers; what one of them cannot do, whatever a bridge does, is in `CANNOT`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import socket
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interop.autobahn import CASES, GOOD, run_cases
from support.servers import Server, module, running, until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

connect = pytest.importorskip("websockets.sync.client").connect
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402 - as above
from websockets.typing import Subprotocol  # noqa: E402

PYTHON_SERVERS = {
    "uvicorn": ["uvicorn", "--ws=websockets-sansio", "--port={port}", "{app}"],
    "uvicorn-wsproto": ["uvicorn", "--ws=wsproto", "--loop=asyncio", "--port={port}", "{app}"],
    "hypercorn": ["hypercorn", "--workers=0", "--bind=127.0.0.1:{port}", "{app}"],
    "hypercorn-trio": ["hypercorn", "--worker-class=trio", "--workers=0", "--bind=127.0.0.1:{port}", "{app}"],
    "daphne": ["daphne", "--port={port}", "{app}"],
    "granian": ["granian", "--interface=asgi", "--port={port}", "{app}"],
    "gunicorn": [
        "gunicorn",
        "--no-control-socket",
        "--worker-class=asgi",
        "--graceful-timeout=2",
        "--bind=127.0.0.1:{port}",
        "{app}",
    ],
    # A server of WSGI, on which the apps are behind two bridges.
    "pair-gunicorn": ["gunicorn", "--no-control-socket", "--threads=4", "--bind=127.0.0.1:{port}", "{app}_on_wsgi"],
}
#: They answer each refusal with 403: they have no ``websocket.http.response``.
DENIES_BY_403 = {"daphne", "gunicorn"}
#: It accepts no message above 1 MiB, and closes with 1009.
SMALL_MESSAGES = {"daphne"}
#: It takes from the app whatever that sends.
NO_BACKPRESSURE = {"daphne"}
#: They do not compress.
NO_COMPRESSION = {"daphne", "granian", "gunicorn"}
#: It drops a message of the app that is empty.
DROPS_EMPTY = {"daphne"}
#: They drop the headers of an acceptance.
DROPS_HEADERS = {"daphne", "granian"}
#: With which code clients are closed when a server is told to end. The others drop the connection.
ENDS_WITH = {
    "uvicorn": 1012,
    "uvicorn-wsproto": 1012,
    "hypercorn": 1011,
    "pair-gunicorn": 1012,
}
#: They tell an app 1006 for any end.
NO_CODES = {"hypercorn", "hypercorn-trio"}
#: They tell an app no reason.
NO_REASONS = {"hypercorn", "hypercorn-trio", "daphne", "granian", "gunicorn"}
#: It tells a client no reason.
DROPS_REASONS = {"daphne"}


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip a test whose libraries are not installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


flask_sock = needs("flask_sock")


class Running:
    """A server, and what its app tells."""

    def __init__(self, name: str, server: Server, directory: Path) -> None:
        self.name = name
        self.server = server
        self.port = server.port
        self.directory = directory

    def connect(self, path: str, **options: Any) -> Any:
        return connect(
            f"ws://127.0.0.1:{self.port}{path}",
            **{"max_size": None, "open_timeout": 15, "close_timeout": 10, **options},
        )

    def get(self, path: str, seconds: float = 10) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while part := client.recv(65536):
                data += part
        return data.partition(b"\r\n\r\n")[2]

    def statistics(self) -> dict[str, Any]:
        figures: dict[str, Any] = json.loads(self.get("/statistics"))
        return figures

    def told(self, name: str, seconds: float = 10) -> Any:
        until((self.directory / name).exists, f"the app tells {name}", seconds)
        return json.loads((self.directory / name).read_text())


@contextlib.contextmanager
def served(name: str, directory: Path, app: str = "interop.websocket_wsgi_apps:application") -> Iterator[Running]:
    """A server that runs the apps."""
    if importlib.util.find_spec(PYTHON_SERVERS[name][0]) is None:
        pytest.skip(f"not installed: {PYTHON_SERVERS[name][0]}")

    def command(port: int) -> list[str]:
        return module(*(argument.format(port=port, app=app) for argument in PYTHON_SERVERS[name]))

    with running(command, directory, environment={"A2WSGI_TEST_DIR": str(directory)}, ready="/ready") as server:
        yield Running(name, server, directory)


@pytest.fixture(scope="module", params=PYTHON_SERVERS)
def on(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Each of the servers."""
    with served(request.param, tmp_path_factory.mktemp("websockets")) as server:
        yield server


def unique() -> str:
    """A name that no other test uses."""
    return uuid.uuid4().hex


def echoes(on: Running, ws: Any, large: bytes) -> None:
    """Send what there is to be sent, and receive the same."""
    empty = [] if on.name in DROPS_EMPTY else ["", b""]
    for message in ("h\N{LATIN SMALL LETTER E WITH ACUTE}", b"\x00\xff", *empty, large):
        ws.send(message)
        assert ws.recv(timeout=30) == message
    ws.send(["one ", "two ", "three"])
    assert ws.recv(timeout=30) == "one two three"
    ws.ping().wait(10)


# -- Libraries ----------------------------------------------------------------------------------------------------


@flask_sock
def test_flask_sock_echoes(on: Running) -> None:
    """Text, binary, fragments and 8 MiB come back byte for byte."""
    large = os.urandom(1_000_000 if on.name in SMALL_MESSAGES else 8 << 20)
    with on.connect("/sock/echo") as ws:
        echoes(on, ws, large)


def test_our_own_object_echoes(on: Running) -> None:
    """The same, without a library."""
    large = os.urandom(1_000_000 if on.name in SMALL_MESSAGES else 8 << 20)
    with on.connect("/native/echo") as ws:
        echoes(on, ws, large)


@needs("geventwebsocket")
def test_gevent_websocket_echoes(on: Running) -> None:
    """A Resource on plain threads; receive() gives None once, then raises its own error."""
    with on.connect("/gevent/echo") as ws:
        echoes(on, ws, b"x" * 100_000)
    assert on.told("gevent-ended") is True


@needs("bottle_websocket", "geventwebsocket")
def test_bottle_websocket_echoes(on: Running) -> None:
    """A bottle app with its plugin."""
    with on.connect("/bottle/echo") as ws:
        echoes(on, ws, b"x" * 100_000)


@needs("django", "simple_websocket")
def test_django_view_echoes(on: Running) -> None:
    """A view that accepts ``request.META``, and one that does not."""
    with on.connect("/django/echo") as ws:
        echoes(on, ws, b"x" * 100_000)
    with pytest.raises(InvalidStatus) as caught, on.connect("/django/echo?denied=1"):
        pass
    assert caught.value.response.status_code == (403 if on.name in DENIES_BY_403 else 401)


@needs("simple_websocket")
def test_pings_of_simple_websocket_are_answered(on: Running) -> None:
    """It closes a socket on which no pong comes."""
    with on.connect("/simple/ping") as ws:
        time.sleep(4)  # four of its intervals: it has no other sign of being content
        ws.send("still there")
        assert ws.recv(timeout=10) == "still there"


@flask_sock
def test_compression_is_between_client_and_server(on: Running) -> None:
    """The server agrees on it with its client; the app's library is offered none, and its frames are not compressed."""
    with on.connect("/sock/offered") as ws:
        extensions = ws.response.headers.get("Sec-WebSocket-Extensions")
        assert (extensions is None) == (on.name in NO_COMPRESSION)
        ws.send("x" * 10_000)
        assert (ws.recv(timeout=10), ws.recv(timeout=10)) == ("null", "x" * 10_000)


@needs("simple_websocket")
def test_subprotocol_is_the_apps_choice(on: Running) -> None:
    """The client gets what the app chose of its offer, and nothing where it offers nothing."""
    with on.connect("/simple/echo", subprotocols=[Subprotocol("a"), Subprotocol("b")]) as ws:
        assert ws.subprotocol == "b"
    with on.connect("/simple/echo") as ws:
        assert ws.subprotocol is None
        assert "Sec-WebSocket-Protocol" not in ws.response.headers


@needs("flask_socketio", "socketio", "websocket")
@pytest.mark.parametrize("transports", [["websocket"], ["polling", "websocket"]], ids=["websocket", "upgrade"])
def test_flask_socketio_works(on: Running, transports: list[str], tmp_path: Path) -> None:
    """Acks, text and binary events, a room, a refusal and a kick, from a WebSocket alone or upgraded from polling."""
    import socketio

    with served(on.name, tmp_path, "interop.websocket_wsgi_apps:roomy") as server:
        url = f"http://127.0.0.1:{server.port}"

        def client() -> Any:
            made = socketio.Client(reconnection=False)
            made.connect(url, transports=transports, wait_timeout=10)
            until(lambda: made.transport() == "websocket", "the upgrade")
            return made

        one, two, *others = (client() for _ in range(15))
        told: list[Any] = []
        refused = importlib.import_module("socketio.exceptions").ConnectionError
        for each in (one, two, *others):
            each.on("told", told.append)
        assert one.call("echo", {"a": 1}, timeout=10) == {"a": 1}
        assert one.call("echo", b"\x00\xff" * 1000, timeout=10) == b"\x00\xff" * 1000
        for each in (one, two, *others):
            assert each.call("join", "room", timeout=10) == "room"
        one.emit("tell", ("room", "hello"))
        until(lambda: told == ["hello"] * 15, "the room is told")
        with pytest.raises(refused):
            socketio.Client(reconnection=False).connect(f"{url}?refuse=1", transports=transports, wait_timeout=10)
        one.emit("kick")
        until(lambda: not one.connected, "the kick")
        for each in (two, *others):
            each.disconnect()
        until(lambda: server.statistics()["socket.io"]["websockets"] == 0, "all sockets end")
        # engineio's writer thread may close a socket that its reader has closed just before: that raises EBADF in it.
        output = server.server.output()
        assert output.count("Traceback") == output.count(", in writer"), output


# -- Refusals and errors --------------------------------------------------------------------------------------------


@flask_sock
@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_refusal_arrives_whole(on: Running, status: int) -> None:
    """Status, headers and body, where the server can say it; else 403, and the log has the status."""
    before = on.server.output_length()
    with pytest.raises(InvalidStatus) as caught, on.connect(f"/sock/{status}"):
        pass
    response = caught.value.response
    if on.name in DENIES_BY_403:
        assert response.status_code == 403
        until(lambda: f"the app's answer is {status}" in on.server.output(before), "the log has the status")
        return
    assert response.status_code == status
    if status == 401:
        assert response.headers["WWW-Authenticate"] == "Basic"
        assert response.body == b"who?"
    else:
        assert str(status) in response.body.decode() or b"<!doctype" in response.body
    assert "Traceback" not in on.server.output(before)


@flask_sock
def test_streamed_refusal_arrives_whole(on: Running) -> None:
    """A response of a generator, with 200."""
    if on.name in DENIES_BY_403:
        pytest.skip("it answers with 403")
    with pytest.raises(InvalidStatus) as caught, on.connect("/sock/streamed"):
        pass
    assert caught.value.response.status_code == 200
    assert caught.value.response.headers["X-Streamed"] == "yes"
    assert caught.value.response.body == b"".join(b"%d," % number for number in range(1000))


def test_exception_before_the_answer_is_the_servers(on: Running) -> None:
    """It answers 500 or 403, and logs the traceback of the app."""
    before = on.server.output_length()
    with pytest.raises(InvalidStatus) as caught, on.connect("/native/raises"):
        pass
    assert caught.value.response.status_code in {500, 403}
    until(lambda: "raised before the answer" in on.server.output(before), "the log of it")


@flask_sock
def test_exception_after_the_answer_closes_with_1011(on: Running) -> None:
    """Flask's page of it is never on the wire."""
    with on.connect("/sock/raises") as ws:
        assert ws.recv(timeout=10) == "last"
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv(timeout=10)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1011


def test_frame_with_a_reserved_bit_is_the_apps_fault(on: Running) -> None:
    """No extension was offered on the link: the client is closed with 1011, and the log says why."""
    before = on.server.output_length()
    with on.connect("/native/rsv1") as ws, pytest.raises(ConnectionClosed) as caught:
        ws.recv(timeout=10)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1011
    assert "The app broke the protocol" in on.server.output(before)


# -- Endings ------------------------------------------------------------------------------------------------------


@flask_sock
@pytest.mark.parametrize("kind", ["sock", "native"])
@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, ""), (4444, "mine")])
def test_code_of_the_client_reaches_the_app(on: Running, kind: str, code: int, reason: str) -> None:
    """And its reason, where the server knows it."""
    name = unique()
    with on.connect(f"/{kind}/code/{name}", subprotocols=["b"] if kind == "native" else None) as ws:
        if kind == "native":
            assert ws.subprotocol == "b"
            assert ws.response.headers.get("X-Native") == (None if on.name in DROPS_HEADERS else "yes")
        ws.close(code, reason)
    told_code, told_reason = on.told(name)
    if on.name in NO_CODES:
        assert told_code in {1005, 1006}
        return
    assert told_code == code
    assert (told_reason or "") == ("" if on.name in NO_REASONS else reason)


@flask_sock
def test_code_of_the_app_reaches_the_client(on: Running) -> None:
    """After all that it has sent."""
    with on.connect("/sock/close") as ws:
        assert ws.recv(timeout=10) == "last"
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv(timeout=10)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 4001
    assert caught.value.rcvd.reason == ("" if on.name in DROPS_REASONS else "bye")


class Raw:
    """A client that reads only when it is told to."""

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(20)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)  # else the kernel takes megabytes
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(1)
        assert head.startswith(b"HTTP/1.1 101"), head

    def reset(self) -> None:
        """Be gone as a client that crashes: by a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def read(self, number: int) -> int:
        """Read so many bytes; how many came."""
        got = 0
        while got < number and (part := self.socket.recv(min(65536, number - got))):
            got += len(part)
        return got


@flask_sock
@pytest.mark.parametrize("kind", ["sock", "native"])
def test_reset_frees_an_app_that_is_blocked_in_send(on: Running, kind: str) -> None:
    """Within a second, on every server that lets it be blocked."""
    if on.name in NO_BACKPRESSURE:
        pytest.skip("it takes whatever an app sends")
    name = unique()
    client = Raw(on.port, f"/{kind}/flood/{name}")
    on.told(f"{name}-sent")
    blocked_at = -1
    while blocked_at != (blocked_at := on.told(f"{name}-sent")):
        time.sleep(0.5)  # the app tells nobody that it is blocked
    assert blocked_at < 20_000_000
    client.reset()
    on.told(f"{name}-free", seconds=1)
    until(lambda: on.statistics()[kind]["websockets"] == 0, "the end of it", 2)


@flask_sock
def test_reset_frees_an_app_that_waits(on: Running) -> None:
    """The same while it waits for a message."""
    name = unique()
    client = Raw(on.port, f"/sock/waits/{name}")
    client.read(2 + len("waiting"))
    client.reset()
    on.told(f"{name}-free", seconds=1)


@flask_sock
def test_slow_client_stops_the_app_and_gets_all(on: Running) -> None:
    """Of 20 MB the app has sent less than 6 while nobody reads, and all of it in the end."""
    if on.name in NO_BACKPRESSURE:
        pytest.skip("it takes whatever an app sends")
    name = unique()
    client = Raw(on.port, f"/sock/flood/{name}")
    on.told(f"{name}-sent")
    time.sleep(2)  # an app that waits tells nobody
    assert on.told(f"{name}-sent") < 6_000_000
    frame = 10 + 100_000
    assert client.read(200 * frame) == 200 * frame
    on.told(f"{name}-free")
    client.socket.close()


def test_slow_app_stops_the_client(on: Running) -> None:
    """An app that reads nothing has its server stop reading, and gets all of it in the end."""
    name = unique()
    message = os.urandom(100_000)  # of zeros, compression would leave nothing
    sent = 0

    def send_all() -> None:
        nonlocal sent
        for _ in range(400):
            ws.send(message)
            sent += 1
        ws.send("end")

    with on.connect(f"/native/deaf/{name}", ping_interval=None) as ws:
        sender = threading.Thread(target=send_all, daemon=True)
        sender.start()
        before = -1
        while sent != before:
            before = sent
            time.sleep(0.5)  # the client's library tells nobody that it is blocked
        if on.name not in NO_BACKPRESSURE:
            assert sent < 250
        (on.directory / f"{name}-go").touch()
        assert ws.recv(timeout=60) == "400"
        sender.join(10)


def test_messages_of_eight_threads_are_whole(on: Running) -> None:
    """Sent by eight threads at once; and a receive() that times out does so."""
    with on.connect("/native/threads") as ws:
        messages = {ws.recv(timeout=10) for _ in range(8)}
        assert messages == {f"{number}" * 100_000 for number in range(8)}
        assert ws.recv(timeout=10) == "none came"


@flask_sock
@pytest.mark.parametrize("kind", ["sock", "native"])
def test_nothing_is_left_of_many(on: Running, kind: str) -> None:
    """Two hundred open and close; threads and descriptors are as before, but for workers that idle."""
    pid = max(_descendants(on.server.process.pid), key=_descriptors)

    def once(path: str) -> None:
        with on.connect(path) as ws:
            ws.send("x")
            ws.recv(timeout=10)

    once(f"/{kind}/echo")
    until(lambda: on.statistics()[kind]["websockets"] == 0, "the end of the first")
    before = _descriptors(pid)
    for _ in range(200):
        once(f"/{kind}/echo")
    until(lambda: on.statistics()[kind]["websockets"] == 0, "the end of all")
    until(lambda: _descriptors(pid) <= before + 3, f"descriptors are at {before} again, not {_descriptors(pid)}")
    assert on.statistics()["threads"] < 30


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _descendants(int(child)))]


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@flask_sock
def test_hundred_open_sockets_leave_http_alone(on: Running, tmp_path: Path) -> None:
    """With two workers: HTTP is answered within a second, the next WebSocket is refused, and the statistics say so."""
    with contextlib.ExitStack() as stack, served(on.name, tmp_path) as server:
        for _ in range(100):
            ws = stack.enter_context(server.connect("/native/echo", ping_interval=None))
            ws.send("x")
            assert ws.recv(timeout=10) == "x"
        seconds = []
        for _ in range(5):  # the quickest: a busy machine delays some of them, a lack of workers all
            began = time.monotonic()
            assert server.get("/sock/hello") in {b"hello", b"5\r\nhello\r\n0\r\n\r\n"}
            seconds.append(time.monotonic() - began)
        assert min(seconds) < 1.0
        with pytest.raises(InvalidStatus) as caught, server.connect("/native/echo"):
            pass
        assert caught.value.response.status_code == (403 if on.name in DENIES_BY_403 else 503)
        figures = server.statistics()["native"]
        assert (figures["websockets"], figures["shed"]) == (100, 1)


def test_one_worker_serves_no_websocket_unless_asked_to(on: Running) -> None:
    """``workers=1``: 403, and the app is not entered; with ``max_websockets=1`` besides, one is let in."""
    before = on.server.output_length()
    with pytest.raises(InvalidStatus) as caught, on.connect("/single/raises"):
        pass
    assert caught.value.response.status_code == 403
    assert "raised before the answer" not in on.server.output(before)
    with on.connect("/single-with-one/echo") as ws:
        ws.send("hello")
        assert ws.recv(timeout=10) == "hello"
        with pytest.raises(InvalidStatus) as caught, on.connect("/single-with-one/echo"):
            pass
        assert caught.value.response.status_code == (403 if on.name in DENIES_BY_403 else 503)


@flask_sock
def test_server_stops_with_sockets_open(on: Running, tmp_path: Path) -> None:
    """SIGTERM ends its process, though threads of simple-websocket that are no daemons wait for their sockets."""
    with contextlib.ExitStack() as stack, served(on.name, tmp_path) as server:
        sockets = [stack.enter_context(server.connect("/sock/echo", close_timeout=1)) for _ in range(3)]
        for ws in sockets:
            ws.send("x")
            assert ws.recv(timeout=10) == "x"
        server.server.signal(signal.SIGTERM)
        for ws in sockets:
            with pytest.raises(ConnectionClosed) as caught:
                ws.recv(timeout=12)
            assert (caught.value.rcvd and caught.value.rcvd.code) == ENDS_WITH.get(on.name)
        server.server.wait(12)


# -- HTTP/2 -------------------------------------------------------------------------------------------------------


@needs("h2", "flask_sock", "wsproto")
def test_websocket_over_http2_on_hypercorn(tmp_path: Path) -> None:
    """RFC 8441: an extended CONNECT, an echo, and a refusal with its status."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import DataReceived, ResponseReceived, StreamEnded
    from wsproto import ConnectionType
    from wsproto.connection import Connection
    from wsproto.events import CloseConnection, TextMessage

    with (
        served("hypercorn", tmp_path) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock,
    ):
        connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        connection.initiate_connection()
        sock.sendall(connection.data_to_send())
        data: dict[int, bytes] = {}
        heads: dict[int, dict[Any, Any]] = {}
        ended: set[int] = set()

        def read_until(condition: Any) -> None:
            while not condition():
                received = sock.recv(65536)
                assert received
                for event in connection.receive_data(received):
                    if isinstance(event, ResponseReceived):
                        heads[event.stream_id] = dict[Any, Any](event.headers)
                    elif isinstance(event, DataReceived):
                        data[event.stream_id] = data.get(event.stream_id, b"") + event.data
                        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, StreamEnded):
                        ended.add(event.stream_id)
                sock.sendall(connection.data_to_send())

        def ask(stream: int, path: str) -> None:
            connection.send_headers(
                stream,
                [
                    (":method", "CONNECT"),
                    (":protocol", "websocket"),
                    (":scheme", "http"),
                    (":path", path),
                    (":authority", "localhost"),
                    ("sec-websocket-version", "13"),
                ],
            )
            sock.sendall(connection.data_to_send())

        ask(1, "/sock/echo")
        read_until(lambda: 1 in heads)
        assert heads[1][":status"] == "200"
        frames = Connection(ConnectionType.CLIENT)
        connection.send_data(1, frames.send(TextMessage("hello")))
        sock.sendall(connection.data_to_send())
        read_until(lambda: 1 in data)
        frames.receive_data(data.pop(1))
        assert [event.data for event in frames.events() if isinstance(event, TextMessage)] == ["hello"]
        connection.send_data(1, frames.send(CloseConnection(1000)))
        ask(3, "/sock/401")
        read_until(lambda: 3 in ended)
        assert heads[3][":status"] == "401"
        assert data[3] == b"who?"


# -- Autobahn -------------------------------------------------------------------------------------------------------


@needs("kosoku", "flask_sock")
@pytest.mark.timeout(240)
def test_autobahn_finds_no_case_worse_than_without_us(tmp_path: Path) -> None:
    """Groups 1 to 7, 9 and 10 against Flask-Sock behind uvicorn, beside a bare ASGI app on uvicorn."""
    with served("uvicorn", tmp_path) as server:
        ours = run_cases(f"ws://127.0.0.1:{server.port}/sock/echo", [*CASES, "9.*"], 110)
        bare = run_cases(f"ws://127.0.0.1:{server.port}/bare", [*CASES, "9.*"], 110)
    assert len(ours) == len(bare) == 301
    assert {case: result for case, result in ours.items() if result[0] not in GOOD and bare[case][0] in GOOD} == {}
