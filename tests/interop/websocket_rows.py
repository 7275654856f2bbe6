"""What ``docs/compatibility.md`` says of WebSockets: its rows, which are tests, and what servers cannot do.

A test finds a limit by what it asserts on the servers that have it, or skips there. So nothing is noted unless it ran.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from interop.websocket_servers import KINDS

#: Begins the reason of a limit that takes only a part of what the row says.
PARTLY = "partly: "


@dataclass(frozen=True)
class Suite:
    """The tests of one direction.

    Attributes:
        heading: Of its table.
        module: The file of the tests, without ``.py``.
        fixture: Whose parameter is the server.
        servers: The columns.
        sentences: What each row says, by the name of its test, in their order.
        limits: For each test why servers cannot pass it.
    """

    heading: str
    module: str
    fixture: str
    servers: Sequence[str]
    sentences: Mapping[str, str]
    limits: Mapping[str, Mapping[str, str]]

    def key(self, server: str) -> str:
        """A server's name among all results."""
        return f"{self.module} {server}"

    def limit(self, test: str, server: str) -> str:
        """Why a server cannot pass a test; nothing where it can."""
        return self.limits.get(test, {}).get(server, "")


ONLY_403 = "It answers every refusal with 403. The log has the app's status."
TAKES_ALL = "It takes whatever the app sends, without a limit."
SMALL_MESSAGES = {"daphne": f"{PARTLY}It accepts no message above 1 MiB, and drops the app's empty messages."}
NO_COMPRESSION = "It does not compress."
NO_REASON = f"{PARTLY}It tells the app the code, but not the reason."
NO_CLOSE = "It drops the connection without a Close."
HOLDS_A_THREAD = "If the server terminates TLS itself, each WebSocket holds one of its threads."
TAKES_NONE_BACK = "It has already read them, and offers no way to get at them."

WSGI_ON_ASGI = Suite(
    "WebSockets of WSGI apps on ASGI servers",
    "test_websockets_wsgi_on_asgi",
    "on",
    ["uvicorn", "uvicorn-wsproto", "hypercorn", "hypercorn-trio", "daphne", "granian", "gunicorn"],
    {
        "test_flask_sock_echoes": "Flask-Sock works: text, binary, fragments, 8 MiB",
        "test_our_own_object_echoes": '`environ["a2wsgi.websocket"]` works: text, binary, fragments, 8 MiB',
        "test_gevent_websocket_echoes": "gevent-websocket's `Resource` works, on plain threads",
        "test_bottle_websocket_echoes": "bottle-websocket works, on plain threads",
        "test_django_view_echoes": "simple-websocket in a Django view works",
        "test_flask_socketio_works": "Flask-SocketIO works: WebSocket, upgrade from polling, rooms, acknowledgements",
        "test_subprotocol_is_the_apps_choice": "The client gets the subprotocol that the app chose",
        "test_compression_is_between_client_and_server": "Messages are compressed, if the client wants it",
        "test_refusal_arrives_whole": "An app that refuses is heard: status, headers and body",
        "test_exception_before_the_answer_is_the_servers": "An error before the answer is a refusal, and is logged",
        "test_exception_after_the_answer_closes_with_1011": "An error after it closes with 1011",
        "test_code_of_the_client_reaches_the_app": "The app gets the client's close code and reason",
        "test_code_of_the_app_reaches_the_client": "The client gets the app's close code and reason",
        "test_reset_frees_an_app_that_waits": "An app that waits for a lost client learns of it",
        "test_reset_frees_an_app_that_is_blocked_in_send": "An app that sends to a lost client learns of it",
        "test_slow_client_stops_the_app_and_gets_all": "A slow client makes the app wait",
        "test_slow_app_stops_the_client": "A slow app makes the client wait",
        "test_hundred_open_sockets_leave_http_alone": "100 open WebSockets keep no HTTP request from being answered",
        "test_server_stops_with_sockets_open": "When the server stops, clients get a Close with 1012",
    },
    {
        "test_flask_sock_echoes": SMALL_MESSAGES,
        "test_our_own_object_echoes": SMALL_MESSAGES,
        "test_compression_is_between_client_and_server": dict.fromkeys(
            ("daphne", "granian", "gunicorn"), NO_COMPRESSION
        ),
        "test_refusal_arrives_whole": dict.fromkeys(("daphne", "gunicorn"), ONLY_403),
        "test_code_of_the_client_reaches_the_app": {
            **dict.fromkeys(("hypercorn", "hypercorn-trio"), "It tells the app 1006, whatever the client says."),
            **dict.fromkeys(("daphne", "granian", "gunicorn"), NO_REASON),
        },
        "test_code_of_the_app_reaches_the_client": {
            "daphne": f"{PARTLY}It tells the client the code, but not the reason."
        },
        "test_reset_frees_an_app_that_is_blocked_in_send": {"daphne": TAKES_ALL},
        "test_slow_client_stops_the_app_and_gets_all": {"daphne": TAKES_ALL},
        "test_slow_app_stops_the_client": {"daphne": "It reads whatever the client sends, without a limit."},
        "test_server_stops_with_sockets_open": {
            "hypercorn": "It waits for three seconds, then closes with 1011.",
            **dict.fromkeys(("hypercorn-trio", "daphne", "granian", "gunicorn"), NO_CLOSE),
        },
    },
)

#: Not eventlet, whose tests have an environment of their own.
_ON_WSGI = [name for name in KINDS if not name.startswith("eventlet")]
_UWSGI = ("uwsgi", "uwsgi-router", "nginx-uwsgi")

ASGI_ON_WSGI = Suite(
    "WebSockets of ASGI apps on WSGI servers",
    "test_websockets_asgi_on_wsgi",
    "served",
    _ON_WSGI,
    {
        "test_echo": "Text, binary, fragments, 8 MiB, a subprotocol, pings",
        "test_scope": "The app gets the scope that ASGI describes",
        "test_denial_response_arrives": "An app that refuses is heard: status, headers and body",
        "test_close_before_the_answer_is_403": "An app that closes before it accepts refuses with 403",
        "test_failure_before_the_answer_is_the_servers": "An error before the answer is a 500, and is logged",
        "test_app_that_fails_is_logged_once": "An error after it closes with 1011, and is logged",
        "test_malformed_handshake_is_refused": "A malformed handshake is refused, with 400 or 426",
        "test_app_is_told_the_clients_code": "The app gets the client's close code and reason",
        "test_client_is_told_the_apps_code": "The client gets the app's close code and reason",
        "test_app_is_told_of_a_client_that_is_lost": "The app learns that its client is lost",
        "test_message_that_is_too_long_is_refused_by_its_head": "A message that is too long is refused before it comes",
        "test_app_waits_for_a_slow_client": "A slow client makes the app wait",
        "test_client_waits_for_a_slow_app": "A slow app makes the client wait",
        "test_open_sockets_hold_nothing_but_a_descriptor": "An open WebSocket holds no thread, and HTTP is answered",
        "test_idle_sockets_live_and_cost_nothing": "An idle WebSocket outlives the server's timeouts",
        "test_bytes_right_behind_the_handshake_are_received": "Bytes that come right behind the handshake are received",
    },
    {
        "test_failure_before_the_answer_is_the_servers": dict.fromkeys(
            _UWSGI, f"{PARTLY}uWSGI logs it, and closes the connection without an answer."
        ),
        "test_open_sockets_hold_nothing_but_a_descriptor": dict.fromkeys(
            (name for name in _ON_WSGI if KINDS[name].tls), f"{PARTLY}{HOLDS_A_THREAD}"
        ),
        "test_bytes_right_behind_the_handshake_are_received": dict.fromkeys(
            ("waitress", "waitress-lookahead", "uwsgi", "uwsgi-router", "gunicorn-gthread-tls"), TAKES_NONE_BACK
        ),
    },
)

SUITES = (WSGI_ON_ASGI, ASGI_ON_WSGI)
