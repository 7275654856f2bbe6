"""FastAPI's WebSockets under a bridge on each WSGI server whose sockets can be taken over, by real clients.

The numbers in the docstrings are the clauses of RFC 6455.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("websockets")

from websockets.exceptions import ConnectionClosed

from interop.servers import SERVERS
from interop.servers import serving as serving_http
from interop.websocket_served import SECONDS, Served, frame, handshake, refused, rest_of, serving, unique
from interop.websocket_servers import KINDS, PAIRS, WITHOUT
from support.servers import until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]


@pytest.fixture(scope="module", params=[*KINDS, *PAIRS])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Each server in turn. At its end its log is without an error that no test has made."""
    with serving(request.param, tmp_path_factory.mktemp("server")) as served:
        yield served


@pytest.fixture
def log(served: Served) -> Iterator[None]:
    """The server has nothing to complain of."""
    before = served.server.output_length()
    yield
    output = served.server.output(before)
    assert not [line for line in output.splitlines() if "Traceback" in line or "rror" in line], output


# -- Messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("log")
def test_echo(served: Served) -> None:
    """Text, bytes, a message in three fragments and 8 MiB come back as they were; so does a ping."""
    large = bytes(range(256)) * 32_768
    with served.connect("/echo", subprotocols=["a", "b"]) as ws:
        assert ws.response is not None
        assert ws.subprotocol == "b"
        assert ws.response.headers["X-Accepted"] == "yes"
        for message in ("hello", "", "grüße €", b"\x00\xff", large):
            ws.send(message)
            assert ws.recv(SECONDS) == message
        ws.send(["one", "two", "three"])
        assert ws.recv(SECONDS) == "onetwothree"
        assert ws.ping().wait(SECONDS)


@pytest.mark.usefixtures("log")
def test_scope(served: Served) -> None:
    """ASGI WebSocket 2.5, "WebSocket Connection Scope". A client that offers no subprotocol gets none."""
    with served.connect("/scope") as ws:
        assert ws.subprotocol is None
        shown = json.loads(ws.recv(SECONDS))
    assert shown.pop("http_version") in {"1.0", "1.1"}
    tls = shown["extensions"].pop("tls", None)
    assert tls is None or served.kind.tls  # few servers tell it
    assert shown == {
        "type": "websocket",
        "scheme": "wss" if served.kind.tls else "ws",
        "path": "/scope",
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
        "has_method": False,
        "client": None if served.name == "nginx-gunicorn" else "127.0.0.1",  # a Unix socket has no addresses
    }


def test_access_log_has_one_line(served: Served) -> None:
    """The server answers the handshake, as far as it knows."""
    if not served.kind.logs:
        pytest.skip("It has no access log.")
    before, name = served.server.output_length(), unique()
    with served.connect(f"/echo?name={name}"):
        pass
    served.told(name)
    until(lambda: name in served.server.output(before), "the access log has it", SECONDS)
    (line,) = [line for line in served.server.output(before).splitlines() if name in line]
    assert re.search(r"\b101\b", line)


@pytest.mark.usefixtures("log")
def test_second_request_of_a_connection_may_be_a_handshake(served: Served) -> None:
    """What was answered before on the connection is of no account."""
    with served.raw() as client:
        client.sendall(b"GET /gc HTTP/1.1\r\nHost: testserver\r\n\r\n")
        answer = client.recv(65_536)
        assert answer.startswith(b"HTTP/1.")
        until_closed = b"close" in answer.lower() or b"HTTP/1.0" in answer
        if until_closed or (b"keep-alive" not in answer.lower() and not answer.startswith(b"HTTP/1.1")):
            pytest.skip("It closes the connection after each response.")
        while not answer.endswith((b"null", b"null\r\n0\r\n\r\n")):
            part = client.recv(65_536)
            assert part
            answer += part
        head = b""
        with contextlib.suppress(ConnectionError):
            client.sendall(handshake("/echo"))
            while not head.endswith(b"\r\n\r\n") and (part := client.recv(1)):
                head += part
        if not head:
            pytest.skip("It closes the connection after each response.")
        assert b" 101 " in head
        client.sendall(frame(0x1, b"hello"))
        assert client.recv(7) == b"\x81\x05hello"


# -- Refusals ---------------------------------------------------------------------------------------------------------


def test_denial_response_arrives(served: Served) -> None:
    """ASGI WebSocket 2.5, "Websocket Denial Response": its status, headers and body."""
    response, body = refused(served, "/deny")
    assert (response.status, response.headers["WWW-Authenticate"], response.headers["X-More"]) == (401, "Basic", "1")
    assert body == b"who are you?"


def test_close_before_the_answer_is_403(served: Served) -> None:
    """ASGI WebSocket 2.5, "Close": "the server must close the connection with a HTTP 403 error"."""
    response, body = refused(served, "/refuse")
    assert (response.status, body) == (403, b"")


def test_failure_before_the_answer_is_the_servers(served: Served) -> None:
    """The server answers 500, where it answers that at all, and logs the traceback."""
    before = served.server.output_length()
    with contextlib.suppress(http.client.BadStatusLine, ConnectionResetError):
        response, _ = refused(served, "/raise")
        assert response.status == (502 if served.name == "nginx-uwsgi" else 500)  # uWSGI answers nothing
    until(lambda: "the app failed on purpose" in served.server.output(before), "it is logged", SECONDS)
    if served.name != "waitress":
        assert 'raise LookupError("the app failed on purpose")' in served.server.output(before)


@pytest.mark.parametrize(
    ("request_bytes", "status", "header"),
    [
        (handshake("/echo", key="c2hvcnQ="), 400, None),
        (handshake("/echo", version="12"), 426, ("Sec-WebSocket-Version", "13")),
    ],
    ids=["key", "version"],
)
def test_malformed_handshake_is_refused(
    served: Served, request_bytes: bytes, status: int, header: tuple[str, str] | None
) -> None:
    """§4.2.1, §4.4: before the app."""
    if served.name in PAIRS:
        pytest.skip("A server of ASGI checks handshakes itself.")
    with served.raw() as client:
        client.sendall(request_bytes)
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.status == status
        assert response.read()
        assert header is None or response.headers[header[0]] == header[1]


@pytest.mark.parametrize("kind", ["post", "other protocol"])
def test_what_is_no_handshake_is_http(served: Served, kind: str) -> None:
    """RFC 9110 §7.8: a server may ignore an upgrade."""
    if served.name in PAIRS:
        pytest.skip("A server of ASGI tells them apart itself.")
    if kind == "post":
        data = handshake("/info", more="Content-Length: 2\r\n").replace(b"GET", b"POST") + b"{}"
    else:
        data = handshake("/info").replace(b"WebSocket\r\n", b"h2c\r\n")
    with served.raw() as client:
        client.sendall(data)
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.status == (405 if kind == "post" else 200)


# -- Endings ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("log")
def test_app_is_told_the_clients_code(served: Served) -> None:
    """§7.1.5, §7.1.6: its code and reason."""
    name = unique()
    with served.connect(f"/echo?name={name}") as ws:
        ws.close(4444, "so long")
    assert json.loads(served.told(name)[0]) == [4444, "so long"]


@pytest.mark.usefixtures("log")
def test_app_is_told_of_a_close_without_a_code(served: Served) -> None:
    """§7.1.5: 1005. It is answered in kind, and the connection closed by the server (§7.1.1)."""
    name = unique()
    with served.opened(f"/echo?name={name}") as client:
        client.sendall(frame(0x8))
        assert rest_of(client) == b"\x88\x00"
    assert json.loads(served.told(name)[0]) == [1005, ""]


@pytest.mark.usefixtures("log")
def test_app_is_told_of_a_client_that_is_lost(served: Served) -> None:
    """§7.1.5: 1006, after a reset."""
    name = unique()
    client = served.opened(f"/echo?name={name}")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    lost = 1005 if served.name in PAIRS else 1006  # uvicorn's word for it
    assert json.loads(served.told(name)[0]) == [lost, ""]


def closed(served: Served, path: str) -> tuple[int | None, str | None]:
    """How the server closes."""
    with served.connect(path) as ws:
        with pytest.raises(ConnectionClosed):
            ws.recv(SECONDS)
        return ws.close_code, ws.close_reason


@pytest.mark.usefixtures("log")
def test_client_is_told_the_apps_code(served: Served) -> None:
    """And the app is told it as well, when it asks."""
    name = unique()
    assert closed(served, f"/close?name={name}") == (4001, "bye")
    assert json.loads(served.told(name)[0]) == {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}


@pytest.mark.usefixtures("log")
def test_app_that_returns_closes(served: Served) -> None:
    """§7.4.1: 1000."""
    assert closed(served, "/return") == (1000, "")


def test_app_that_fails_is_logged_once(served: Served) -> None:
    """§7.4.1: 1011."""
    before = served.server.output_length()
    assert closed(served, "/crash") == (1011, "")
    until(lambda: "the app crashed on purpose" in served.server.output(before), "it is logged", SECONDS)
    assert served.server.output(before).count("LookupError: the app crashed on purpose") == 1


@pytest.mark.usefixtures("log")
def test_message_that_is_too_long_is_refused_by_its_head(served: Served) -> None:
    """§7.4.1: 1009, when 1 TiB is announced and nothing of it was sent."""
    with served.opened("/echo") as client:
        client.sendall(b"\x82\xff" + struct.pack("!Q", 1 << 40) + bytes(4))
        data = rest_of(client)
    assert data[0] == 0x88
    assert data[2:4] == struct.pack("!H", 1009)


# -- The server's threads, descriptors and timeouts -------------------------------------------------------------------


def have_all_threads(served: Served, number: int) -> None:
    """Have a server start its own threads, which come as they are needed."""
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(served.connect("/echo"))
    if "gthread" in served.name or "preload" in served.name:
        name = unique()
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(served.get, f"/slow?name={name}") for _ in range(4)]
            until(lambda: len(served.told(f"{name}-waits")) == 4, "all four are at work", SECONDS)
            (served.directory / name).touch()
            assert [answer.result(SECONDS) for answer in answers] == [(200, b'"done"')] * 4
    until(lambda: served.info()["websockets"] == 0, "the others are over", SECONDS)


def quickest(function: Callable[[], object]) -> float:
    """How many seconds the quickest of five calls takes. A busy machine delays some of them; a lack of threads, all."""
    seconds = []
    for _ in range(5):
        began = time.monotonic()
        function()
        seconds.append(time.monotonic() - began)
    return min(seconds)


@pytest.mark.usefixtures("log")
def test_open_sockets_hold_nothing_but_a_descriptor(served: Served) -> None:
    """60 of them: HTTP is answered in a second, no thread is added, all are counted. Afterwards all is as before."""
    number = 3 if served.kind.tls else 60
    have_all_threads(served, number)
    with contextlib.closing(served.http()) as client:
        client.request("GET", "/info")
        before = json.loads(client.getresponse().read())
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(served.connect("/echo")) for _ in range(number)]
        for ws in sockets:
            ws.send("hello")
        assert quickest(served.info) < 1.0
        info = served.info()
        assert (info["websockets"], info["in_flight"]) == (number, number + 1)
        # A few may be the server's own, which it starts as it needs them.
        assert info["threads"] <= before["threads"] + (number if served.kind.tls else 5)
        for ws in sockets:
            assert ws.recv(SECONDS) == "hello"
    until(lambda: served.info()["websockets"] == 0, "all are over", SECONDS)
    until(lambda: served.info()["descriptors"] <= before["descriptors"] + 1, "all are closed", 2 * SECONDS)


def cpu_seconds(pid: int) -> float:
    """How long a process has run, in all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.usefixtures("log")
def test_idle_sockets_live_and_cost_nothing(served: Served) -> None:
    """They outlive the server's timeouts, and no selector spins on them: less than 0.05 s of processor time in 3 s."""
    pid = served.info()["pid"]
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(served.connect("/echo")) for _ in range(2 if served.kind.tls else 20)]
        spent = []
        for _ in range(2):
            began = cpu_seconds(pid)
            time.sleep(3.25)  # twice this is twice gunicorn's --timeout, and the keep-alive of all several times
            spent.append(cpu_seconds(pid) - began)
        assert min(spent) < 0.05
        for ws in sockets:
            ws.send("still there?")
        for ws in sockets:
            assert ws.recv(SECONDS) == "still there?"


# -- Bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("log")
def test_app_waits_for_a_slow_client(served: Served) -> None:
    """Of 20 MB it has sent less than 6 when the client has taken nothing for 2 s; then all of it arrives."""
    name = unique()
    with served.opened(f"/send?count=200&size=100000&name={name}", receives=65_536) as client:
        time.sleep(2)  # an app that waits tells nobody
        sent = len(served.told(name)) * 100_000
        # What the kernels of both sides hold is in it: 4 MiB (tcp_wmem). uWSGI's router has another connection before.
        assert 0 < sent < (12_000_000 if served.name == "uwsgi-router" else 6_000_000)
        left = 200 * (10 + 100_000)
        while left and (part := client.recv(min(left, 65_536))):
            left -= len(part)
        assert left == 0


@pytest.mark.usefixtures("log")
def test_client_waits_for_a_slow_app(served: Served) -> None:
    """Nothing is read that the app does not take."""
    name = unique()
    with served.opened(f"/late?name={name}") as client:
        client.settimeout(1.0)
        sent, data = 0, frame(0x2, bytes(100_000))
        with pytest.raises(TimeoutError):  # noqa: PT012 - at whichever message it is
            while sent < 400:
                client.sendall(data)
                sent += 1
        assert sent < 200
        (served.directory / f"{name}-go").touch()
        served.told(name)


def test_bytes_right_behind_the_handshake_are_received(served: Served) -> None:
    """Of a client that breaks §4.1, where the server lets them be had."""
    if served.name.startswith(("waitress", "uwsgi", "pair")) or served.name == "gunicorn-gthread-tls":
        pytest.skip("It has read them, and offers no way to get at them.")
    with served.raw() as client:
        client.sendall(handshake("/echo") + frame(0x1, b"early"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        assert client.recv(7) == b"\x81\x05early"


def memory_kib(pid: int) -> int:
    """How much of a process is in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


#: What is sent, how often, and how many KiB the process may grow by.
FLOODS = {
    "pings that are not read": (frame(0x9, bytes(100)) * 800, 1_000, 2_048),
    "fragments": (frame(0x0, b"xy", fin=False) * 10_000, 50, 4_096),
    "empty fragments": (frame(0x0, fin=False) * 10_000, 50, 2_048),
}


@pytest.mark.parametrize("kind", FLOODS)
@pytest.mark.parametrize("name", ["gunicorn-gthread", "gunicorn-gthread-tls"])
def test_flood_takes_no_memory(name: str, kind: str, tmp_path: Path) -> None:
    """800,000 pings, or 500,000 fragments of a message that never ends: and HTTP is answered meanwhile."""
    data, times, most_kib = FLOODS[kind]
    with serving(name, tmp_path) as served:
        pid = served.info()["pid"]
        with served.opened("/echo") as client:
            client.sendall(frame(0x1, b"hello"))
            assert client.recv(7) == b"\x81\x05hello"
            before = memory_kib(pid)
            if kind == "pings that are not read":
                client.settimeout(2.0)
                with pytest.raises(TimeoutError):  # noqa: PT012 - at whichever ping it is that is read no more
                    for _ in range(times):
                        client.sendall(data)
            else:
                client.settimeout(60.0)
                client.sendall(frame(0x2, b"x", fin=False))
                for _ in range(times):
                    client.sendall(data)
                client.sendall(frame(0x9, b"all"))
                assert client.recv(5) == b"\x8a\x03all"
            assert served.info()["websockets"] == 1
            assert memory_kib(pid) - before < most_kib


# -- Greenlets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eventlet", "pywsgi"])
def test_http_under_monkey_patching(name: str, tmp_path: Path) -> None:
    """Threads are greenlets there: a request that takes long keeps none from being answered, in a thread neither."""
    with serving(name, tmp_path) as served:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(served.get, "/slow?name=go")
            served.told("go-waits")
            for _ in range(5):
                assert served.info()["in_flight"] == 2
            (tmp_path / "go").touch()
            assert answer.result(SECONDS) == (200, b'"done"')
        assert "Traceback" not in served.server.output()


# -- Where it cannot be done ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITHOUT)
def test_server_that_keeps_its_sockets_refuses(name: str, tmp_path: Path) -> None:
    """501 and a text that says why, and one warning."""
    with serving(f"without-{name}", tmp_path) as served:
        for _ in range(2):
            response, body = refused(served, "/echo")
            assert response.status == 501
            assert body
        assert served.info()["websockets"] == 0
        assert served.server.output().count("A WebSocket was refused with 501") == 1


def test_mod_wsgi_refuses(tmp_path_factory: pytest.TempPathFactory) -> None:
    """501: it has no socket, and would send a 101 with chunks behind it."""
    missing = SERVERS["mod_wsgi"].missing()
    if missing:
        pytest.skip(missing)
    directory = tmp_path_factory.mktemp("server")
    with (
        serving_http("mod_wsgi", "interop.asgi_apps:application", directory, ready="/json") as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=SECONDS) as client,
    ):
        client.sendall(handshake("/json"))
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.status == 501


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.tls])
def test_limit_keeps_threads_for_http_under_tls(name: str, tmp_path: Path) -> None:
    """Each socket holds one of four threads: the fourth is answered 503."""
    with serving(name, tmp_path, max_websockets=3) as served:
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(served.connect("/echo")) for _ in range(3)]
            response, _ = refused(served, "/echo")
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert served.info()["websockets"] == 3
            for ws in sockets:
                ws.send("hello")
                assert ws.recv(SECONDS) == "hello"
        until(lambda: served.info()["websockets"] == 0, "all are over", SECONDS)
        assert "Traceback" not in served.server.output()


# -- The end of the process -------------------------------------------------------------------------------------------


ENDS = {
    "gunicorn-sync": [signal.SIGTERM, signal.SIGHUP, signal.SIGINT],
    "gunicorn-gthread": [signal.SIGTERM, signal.SIGHUP, signal.SIGINT],
    "gunicorn-preload": [signal.SIGTERM],
    "gunicorn-gevent": [signal.SIGTERM, signal.SIGHUP],
    "gunicorn-gthread-tls": [signal.SIGTERM, signal.SIGHUP],
    "gunicorn-gevent-tls": [signal.SIGTERM],
    "werkzeug": [signal.SIGINT],
    "werkzeug-tls": [signal.SIGINT],
    "waitress": [signal.SIGINT],
    "wsgiref": [signal.SIGINT],
    "uwsgi": [signal.SIGTERM],
    "cheroot": [signal.SIGTERM],
    "cheroot-tls": [signal.SIGTERM],
    "pywsgi-tls": [signal.SIGTERM],
}


@pytest.mark.parametrize(("name", "number"), [(name, number) for name, numbers in ENDS.items() for number in numbers])
def test_end_of_the_process_closes_with_1012(name: str, number: signal.Signals, tmp_path: Path) -> None:
    """§7.4.1 and IANA: "service restart", in a second; the app is told, and the process ends without a word.

    On SIGINT gunicorn ends a request in the middle, with a traceback, or waits for a lock of its own for 30 s. The
    request may be the one which it has just answered here, so there is another try. So there is if it takes too long:
    if the signal comes as gunicorn is about to wait, it is seen a second later.
    """
    again = tmp_path / "again"
    again.mkdir()
    most = 2.0 if "gevent" in name else 1.0  # gunicorn's gevent worker looks once a second whether it is to stop
    try:
        seconds = end(name, number, tmp_path)
    except (AssertionError, subprocess.TimeoutExpired):
        if number is not signal.SIGINT or not name.startswith("gunicorn"):
            raise
        seconds = most
    if seconds >= most and name.startswith("gunicorn"):
        seconds = end(name, number, again)
    assert seconds < most


def end(name: str, number: signal.Signals, tmp_path: Path) -> float:
    """Have a server with three WebSockets end. Return after how many seconds they were closed."""
    with serving(name, tmp_path) as served:
        with contextlib.ExitStack() as stack:
            names = [unique() for _ in range(3)]
            sockets = [stack.enter_context(served.connect(f"/echo?name={name}")) for name in names]
            # A server of one thread has ended the handshakes then. wsgiref takes a Ctrl-C in the middle for an app's.
            assert served.info()["websockets"] == 3
            before = served.server.output_length()
            began = time.monotonic()
            served.server.signal(number)
            for ws in sockets:
                with pytest.raises((ConnectionClosed, TimeoutError)) as end:
                    ws.recv(SECONDS)
                if end.type is TimeoutError and name == "wsgiref":  # it took that for an error of what it had answered
                    before = served.server.output_length()
                    served.server.signal(number)
                    began = time.monotonic()
                    with pytest.raises(ConnectionClosed):
                        ws.recv(SECONDS)
                assert ws.close_code == 1012
            seconds = time.monotonic() - began
        for told in names:
            assert json.loads(served.told(told)[0]) == [1012, ""]
        if number is not signal.SIGHUP:
            served.server.wait(SECONDS)
        output = served.server.output(before)
        is_cut_off = number is signal.SIGINT and name.startswith("gunicorn")
        assert output.count("Traceback") == (output.count("Error handling request") if is_cut_off else 0), output
    return seconds
