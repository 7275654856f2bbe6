"""Whether a client has hung up, and which socket bounds a read: as far as each server lets us ask."""

from __future__ import annotations

import errno
import select
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from typing import Any, cast

import pytest

from a2wsgi import ClientDisconnected
from a2wsgi._asgi_on_wsgi.server_socket import has_hung_up, hung_up_error, socket_to_time
from support.asgi_bridges import START, THREAD_INLINE_TRIO, threaded
from support.lockstep import Signal
from support.wsgi_driver import Exchange, InThread, environ_of

needs_poll = pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="Linux's poll alone tells of a hang-up")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A server's end of a connection, and the client's."""
    server, client = socket.socketpair()
    with server, client:
        yield server, client


@needs_poll
@pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket"])
def test_socket_in_the_environ_tells(ends: tuple[socket.socket, socket.socket], key: str) -> None:
    """The client's data is left unread."""
    server, client = ends
    environ = {**environ_of(), key: server}
    assert not has_hung_up(environ)
    client.sendall(b"unread")
    assert not has_hung_up(environ)
    client.close()
    assert has_hung_up(environ)
    assert server.recv(100) == b"unread"


@needs_poll
def test_descriptor_of_uwsgi_tells(ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    """The function that uWSGI has for it."""
    server, client = ends
    uwsgi: Any = types.ModuleType("uwsgi")
    uwsgi.connection_fd = server.fileno
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    environ = {**environ_of(), "uwsgi.version": b"2.0"}
    assert not has_hung_up(environ)
    client.close()
    assert has_hung_up(environ)


@pytest.mark.parametrize("gone", [False, True])
def test_waitress_tells(gone: bool) -> None:
    """By a function of its own."""
    assert has_hung_up({**environ_of(), "waitress.client_disconnected": lambda: gone}) is gone


def test_server_that_shows_nothing_tells_nothing() -> None:
    """A client is there until something says otherwise."""
    assert not has_hung_up(environ_of())


@pytest.mark.parametrize(
    "socket_",
    [
        object(),
        types.SimpleNamespace(fileno=lambda: -1),
        types.SimpleNamespace(fileno=lambda: None),
        types.SimpleNamespace(fileno=lambda: 1 << 40),
    ],
)
def test_socket_that_is_none_tells_nothing(socket_: object) -> None:
    """Middleware may have put anything there; a closed socket has the descriptor -1."""
    assert not has_hung_up({**environ_of(), "gunicorn.socket": socket_})


def test_socket_of_one_request_may_be_timed(ends: tuple[socket.socket, socket.socket]) -> None:
    """One of HTTP/2 carries other requests as well, and something without a timeout is no socket."""
    server, _ = ends
    environ = {**environ_of(), "gunicorn.socket": server}
    assert socket_to_time(environ) is server
    assert socket_to_time({**environ, "SERVER_PROTOCOL": "HTTP/2"}) is None
    assert socket_to_time({**environ_of(), "gunicorn.socket": object()}) is None
    assert socket_to_time(environ_of()) is None


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="needs Linux")
@THREAD_INLINE_TRIO
@pytest.mark.parametrize("server", ["gunicorn", "werkzeug", "waitress", "uwsgi"])
def test_client_that_hangs_up_on_a_quiet_response_is_noticed(
    server: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PAINS E2: where the server lets us see, the app is told within a second, though nothing is sent.

    A client that has closed only its sending side must not take what it has got for the whole: the server gets an error
    that it logs at DEBUG or INFO. uWSGI, which knows none, gets an end.
    """
    ended = Signal("ended")
    quiet = {
        "gunicorn": ConnectionResetError,
        "werkzeug": ConnectionResetError,
        "waitress": pytest.importorskip("waitress.channel").ClientDisconnected,
    }

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        assert await receive() == {"type": "http.disconnect"}
        ended.set()

    ours, clients = socket.socketpair()
    with ours, clients:
        gone = Signal("gone")
        keys = keys_of(server, ours, gone, monkeypatch)
        exchange = Exchange(threaded(**options)(app), {**environ_of(), **keys}).begin()
        assert exchange.next() == b""
        waiting = InThread(lambda: list(exchange.iterator))
        clients.close()
        gone.set()
        if server == "uwsgi":
            assert waiting.result() == []
        else:
            with pytest.raises(ClientDisconnected, match="the client hung up") as raised:
                waiting.result()
            assert isinstance(raised.value, quiet[server])
            assert raised.value.errno == errno.ECONNRESET
        exchange.close()
        ended.wait()


def keys_of(server: str, ours: socket.socket, gone: Signal, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What lets us see, in the environ of a server."""
    if server == "waitress":
        return {"waitress.client_disconnected": gone.is_set}
    if server != "uwsgi":
        return {f"{server}.socket": ours}
    module = types.SimpleNamespace(opt={"enable-threads": True}, connection_fd=ours.fileno)
    monkeypatch.setitem(sys.modules, "uwsgi", cast("types.ModuleType", module))
    return {"uwsgi.version": b"2.0.28"}


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="needs Linux")
@THREAD_INLINE_TRIO
@pytest.mark.parametrize("server", ["gunicorn", "werkzeug", "waitress", "uwsgi"])
def test_client_that_hangs_up_before_the_head_is_noticed(
    server: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PAINS E2: an app that has its request is told before it has answered; the server gets an OSError, and no page."""
    ended = Signal("ended")
    at_work = Signal("at work")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        at_work.set()
        assert await receive() == {"type": "http.disconnect"}
        ended.set()

    ours, clients = socket.socketpair()
    with ours, clients:
        gone = Signal("gone")
        keys = keys_of(server, ours, gone, monkeypatch)
        waiting = InThread(Exchange(threaded(**options)(app), {**environ_of(), **keys}).begin)
        at_work.wait()
        clients.close()
        gone.set()
        with pytest.raises(ClientDisconnected, match="the client hung up"):
            waiting.result()
        ended.wait()


def test_error_of_a_client_that_has_hung_up_tells_by_its_first_argument() -> None:
    """Servers (cheroot, pywsgi) log any other OSError as the app's failure. What a log shows says what it is."""
    environ = {**environ_of(), "waitress.client_disconnected": lambda: True}
    for error in (hung_up_error(environ_of()), hung_up_error(environ)):
        assert error.args[0] == error.errno == errno.ECONNRESET
        assert "the client hung up" in str(error)
        assert "the client hung up" in repr(error)
        assert error.reason == "the client hung up"


def test_cheroot_ignores_the_error_of_a_client_that_has_hung_up() -> None:
    """As its ``HTTPConnection.communicate`` looks at it."""
    errors = pytest.importorskip("cheroot.errors")
    assert hung_up_error(environ_of()).args[0] in errors.socket_errors_to_ignore


def test_pywsgi_ignores_the_error_of_a_client_that_has_hung_up() -> None:
    """As its ``WSGIHandler.handle_one_response`` looks at it; in a process of its own, since gevent stays in one."""
    pytest.importorskip("gevent")
    program = """if True:
        from gevent.pywsgi import WSGIHandler
        from a2wsgi._asgi_on_wsgi.server_socket import hung_up_error
        assert hung_up_error({}).args[0] in WSGIHandler.ignored_socket_errors
    """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
