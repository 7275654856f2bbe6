"""The servers that the tests know, of both kinds: how each is started, and what it cannot do."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from interop.client import Client, HTTP2Client
from support.servers import TESTS, Server, module, running, until

#: Begins what is noted of a test that a server passes or fails, as it happens.
SOMETIMES = "sometimes: "

#: Where a server is told to serve its app, by the tests that tell it.
PREFIX = "/base"


class Start(NamedTuple):
    """What a command line is made of."""

    app: str
    """``module:name``."""
    port: int
    directory: Path
    """For files of the server's own."""
    prefix: str
    """Where the app is mounted, or nothing."""


@dataclass(frozen=True)
class Kind:
    """A server, and how it is used.

    Attributes:
        calls: What it calls: ASGI apps or WSGI apps.
        packages: What must be importable.
        command: Its command line.
        options: Those of the bridge that it serves.
        at_once: How many requests it runs at a time, if fewer than many.
        ends_by: The signal on which it ends in good order.
        http2: Whether it is spoken to in HTTP/2, without TLS.
        prefix_is_cut: Whether it is for a proxy that takes the prefix off a path, rather than for one that leaves it.
        cannot: The tests that it cannot pass, each with the reason. One parameter's is under ``test[parameter]``.
            They are run, and have to fail.
        may: The tests that it passes or fails as its threads happen to run, each with the reason, named alike. They are
            run, and either is right.
    """

    calls: Literal["asgi", "wsgi"]
    packages: Sequence[str]
    command: Callable[[Start], Sequence[str]]
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    at_once: int = 4
    ends_by: signal.Signals = signal.SIGTERM
    http2: bool = False
    prefix_is_cut: bool = False
    cannot: Mapping[str, str] = field(default_factory=dict[str, str])
    may: Mapping[str, str] = field(default_factory=dict[str, str])

    def missing(self) -> str | None:
        """What must be installed before it can run."""
        for package in self.packages:
            if package == "apache2":
                if reason := _apache_is_missing():
                    return reason
            elif importlib.util.find_spec(package) is None:
                return f"{package} is not installed"
        return None

    def version(self) -> str:
        """What it is, with its version."""
        if "apache2" not in self.packages:
            name = {"pyuwsgi": "uWSGI"}.get(self.packages[0], self.packages[0])
            return name if name == "wsgiref" else f"{name} {metadata.version(self.packages[0])}"
        shown = subprocess.run([str(_apache()), "-v"], capture_output=True, text=True, check=True).stdout
        return f"apache {shown.split('Apache/')[1].split()[0]}"


@dataclass(frozen=True)
class Served:
    """A server that runs, and the directory through which its app and a test tell each other things.

    Attributes:
        patience: For how many seconds a test waits for the app or the server, at most.
    """

    name: str
    kind: Kind
    server: Server
    directory: Path
    patience: float = 10.0

    @property
    def port(self) -> int:
        return self.server.port

    def with_patience(self, seconds: float) -> Served:
        """The same, for a test that waits for less."""
        return replace(self, patience=seconds)

    def client(self) -> Client:
        """A connection, in the protocol that the server speaks."""
        return (HTTP2Client if self.kind.http2 else Client)(self.port, seconds=self.patience)

    def tell(self, name: str) -> None:
        """Have the app know."""
        (self.directory / name).touch()

    def told(self, name: str) -> None:
        """Wait until the app tells it."""
        until((self.directory / name).exists, f"the app tells {name}", self.patience)

    def lines(self, name: str) -> list[str]:
        """What the app has told in so many words."""
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []


@contextmanager
def serving(name: str, app: str, directory: Path, prefix: str = "", ready: str = "/hello") -> Iterator[Served]:
    """A server, from its first answer to the end of the block."""
    kind = SERVERS[name]
    environment = {"A2WSGI_TEST_DIR": str(directory), "A2WSGI_TEST_OPTIONS": json.dumps(kind.options)}

    def command(port: int) -> Sequence[str]:
        return kind.command(Start(app, port, directory, prefix))

    ready = ready if kind.prefix_is_cut else prefix + ready
    with running(command, directory, environment=environment, ready=ready) as server:
        yield Served(name, kind, server, directory)


# -- How they are started -----------------------------------------------------------------------------------------


def python(name: str, *arguments: str, prefix: Sequence[str] = ()) -> Callable[[Start], Sequence[str]]:
    """``python -m name arguments``, with those of ``prefix`` if there is one; ``{port}`` and such are filled in."""

    def command(start: Start) -> Sequence[str]:
        chosen = (*(prefix if start.prefix else ()), *arguments)
        return module(name, *(argument.format(**start._asdict()) for argument in chosen))

    return command


def uvicorn(*arguments: str) -> Callable[[Start], Sequence[str]]:
    """uvicorn, which puts the prefix in front of each path."""
    return python("uvicorn", *arguments, "--port={port}", "{app}", prefix=["--root-path={prefix}"])


def hypercorn(*arguments: str) -> Callable[[Start], Sequence[str]]:
    """hypercorn, without a worker process: with one, its parent goes on listening until the worker has ended."""
    own = ["--workers=0", "--bind=127.0.0.1:{port}", *arguments, "{app}"]
    return python("hypercorn", *own, prefix=["--root-path={prefix}"])


def gunicorn(*arguments: str, prefix: str = "--env=SCRIPT_NAME={prefix}") -> Callable[[Start], Sequence[str]]:
    """Gunicorn. Its workers for WSGI know the prefix from the environment."""
    own = ["--no-control-socket", "--bind=127.0.0.1:{port}", "--graceful-timeout=10"]
    return python("gunicorn", *own, *arguments, "{app}", prefix=[prefix])


def granian(interface: str) -> Callable[[Start], Sequence[str]]:
    """granian, which serves either kind."""
    own = [f"--interface={interface}", "--port={port}", "--no-ws", "{app}"]
    return python("granian", *own, prefix=["--url-path-prefix={prefix}"])


def uwsgi(*arguments: str) -> Callable[[Start], Sequence[str]]:
    """uWSGI, which speaks HTTP itself.

    The hook has it stop in good order: by default SIGTERM restarts it, and with --die-on-term it breaks off what runs.
    """

    def command(start: Start) -> Sequence[str]:
        app = f"--mount={start.prefix}={start.app}" if start.prefix else f"--module={start.app}"
        return [
            str(Path(sys.executable).parent / "pyuwsgi"),
            f"--http-socket=127.0.0.1:{start.port}",
            "--need-app",
            "--hook-master-start=unix_signal:15 gracefully_kill_them_all",
            "--buffer-size=16384",
            "--manage-script-name",
            *arguments,
            app,
        ]

    return command


MODULES = Path("/usr/lib/apache2/modules")

APACHE = """
ServerRoot {directory}
ServerName localhost
PidFile {directory}/apache.pid
Listen 127.0.0.1:{port}
ErrorLog /dev/stderr
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
AllowEncodedSlashes On
MergeSlashes Off
WSGIChunkedRequest On
WSGISocketPrefix {directory}/wsgi
WSGIDaemonProcess a2wsgi processes=1 threads=15 python-path={python_path}
WSGIProcessGroup a2wsgi
WSGIApplicationGroup %{{GLOBAL}}
WSGIScriptAlias {prefix} {directory}/app.wsgi
<Directory {directory}>
    Require all granted
</Directory>
"""


def mod_wsgi(start: Start) -> Sequence[str]:
    """Debian's apache2, with Debian's Python and the packages of this one.

    It serves no app as root. Where root runs the tests, it is another user who may read all that root may, and write
    what it tells into the directory: nothing need be open to all for it.
    """
    name, _, app = start.app.partition(":")
    (start.directory / "app.wsgi").write_text(
        # Before the packages, in which a2wsgi may stand as well, as another checkout of it.
        f"import sys\nsys.path.insert(0, {str(TESTS.parent / 'src')!r})\nfrom {name} import {app} as application\n"
    )
    configuration = start.directory / "apache.conf"
    configuration.write_text(
        APACHE.format(
            **{**start._asdict(), "prefix": start.prefix or "/"},
            modules=MODULES,
            python_path=f"{TESTS}:{TESTS.parent / 'src'}:{sysconfig.get_path('purelib')}",
        )
    )
    user = ["--reuid=www-data", "--regid=www-data", "--clear-groups"]
    rights = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    as_another = [] if os.geteuid() != 0 else ["setpriv", *user, *rights]
    return [*as_another, str(_apache()), "-D", "FOREGROUND", "-f", str(configuration)]


def _apache() -> str | None:
    return shutil.which("apache2") or shutil.which("apache2", path="/usr/sbin")


def _apache_is_missing() -> str | None:
    """What keeps Debian's apache2 from serving with what is installed here."""
    if _apache() is None or not (MODULES / "mod_wsgi.so").exists():
        return "apache2 with libapache2-mod-wsgi-py3 is not installed"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not (MODULES / "mod_wsgi.so").resolve().name.endswith(version):
        return f"this is Python {version}, and mod_wsgi is of another"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "apache2 serves nothing as root, and setpriv is not installed"
    return None


def script(name: str) -> Callable[[Start], Sequence[str]]:
    """A server that has no command line of its own: `interop.serve` has one for it."""
    return python("interop.serve", name, "{app}", "{port}")


# -- What they cannot do, whatever a bridge does ----------------------------------------------------------------

NO_RAW_QUERY = {"test_query_reaches_the_app[raw]": "It answers 400 if the query string has raw non-ASCII bytes."}
NO_PREFIX = {"test_prefix_is_told_apart_from_the_path": "It has no option to set a prefix."}
COMMA_IN_COOKIES = {
    "test_request_headers_reach_the_app[cookies]": (
        "It joins repeated `Cookie` headers with a comma, which may also occur in a value."
    ),
}
LAST_LINE_ONLY = {
    f"test_request_headers_reach_the_app[{kind}]": "If a header is repeated, it passes on only the last one."
    for kind in ("repeated", "cookies")
}
CONTINUE_TOO_EARLY = {
    "test_refused_client_is_not_told_100_continue": "It sends `100 Continue` before it calls the app.",
}
CONTINUE_NEVER = {"test_client_that_waits_for_100_continue_is_told_to_go_on": "It never sends `100 Continue`."}
WHOLE_BODY_FIRST = dict.fromkeys(
    (
        "test_refused_client_is_not_told_100_continue",
        "test_long_upload_is_refused_before_it_was_sent",
        "test_hang_up_within_the_upload_is_told",
    ),
    "It receives the whole body before it calls the app.",
)
HEAD_WITH_BODY = {
    "test_head_arrives_before_there_is_a_body": "It holds the headers back until there is some body.",
}
CLOSES = {"test_connection_is_kept": "It closes the connection after each response."}
END_IS_CLOSE = {
    "test_error_after_the_head_breaks_the_response": (
        "It sends responses of unknown length unchunked: the client cannot tell a cut-off one from a complete one."
    ),
}
LOOKS_COMPLETE = {
    "test_error_after_the_head_breaks_the_response": "It ends a cut-off response as if it were complete.",
}
QUIET_HANG_UPS = (
    "test_hang_up_before_the_answer_is_told",
    "test_hang_up_after_the_head_is_told",
    "test_hang_up_on_an_idle_stream_is_told",
)
HIDES_THE_CLIENT = dict.fromkeys(QUIET_HANG_UPS, "It shows that the client has left only when something is sent to it.")
LATE_HEAD = {
    "test_hang_up_after_the_head_is_told": (
        "It notices a client that leaves before the headers are sent, but not one that leaves later."
    ),
}
BREAKS_OFF = {
    "test_running_requests_end_when_the_server_is_told_to_stop": "It cuts running requests off.",
}
NO_FILES = {"test_file_is_sent_by_the_server_itself": "It has no way to send a file by itself."}
READS_FILES = {"test_file_is_sent_by_the_server_itself": "It reads files in Python."}
NO_HINTS = {"test_early_hint_arrives_before_the_response": "It has no early hints for apps."}
HINTS_ON_HTTP2 = {"test_early_hint_arrives_before_the_response": "It has early hints on HTTP/2 only."}
HINTS_ON_HTTP2_AND_3 = {"test_early_hint_arrives_before_the_response": "It has early hints on HTTP/2 and HTTP/3 only."}
#: All others have none.
HAVE_HINTS = {"gunicorn-sync", "gunicorn-sync-inline", "gunicorn-gthread", "gunicorn-preload", "gunicorn-gevent"} | {
    "gunicorn-gthread-trio",
    "hypercorn-http2",
}
GUNICORN = {**NO_RAW_QUERY, **COMMA_IN_COOKIES, **CONTINUE_TOO_EARLY}
UWSGI = {
    **COMMA_IN_COOKIES,
    **CONTINUE_NEVER,
    **CLOSES,
    **END_IS_CLOSE,
    "test_error_before_the_head_is_answered_500_and_logged": "It closes the connection without an answer.",
}

KINDS: dict[str, Kind] = {
    # -- of ASGI apps --
    "uvicorn-h11": Kind(
        "asgi",
        ["uvicorn"],
        uvicorn("--http=h11", "--loop=asyncio"),
        prefix_is_cut=True,
        cannot={**NO_RAW_QUERY, **NO_FILES, **HINTS_ON_HTTP2},
    ),
    "uvicorn-httptools": Kind(
        "asgi",
        ["uvicorn", "httptools", "uvloop"],
        uvicorn("--http=httptools", "--loop=uvloop"),
        prefix_is_cut=True,
        cannot={
            **NO_FILES,
            **NO_RAW_QUERY,
            **HINTS_ON_HTTP2,
            "test_method_reaches_the_app[!ODD~]": "It answers 400 to a method that httptools does not know.",
        },
    ),
    "hypercorn": Kind(
        "asgi",
        ["hypercorn"],
        hypercorn(),
        cannot={**NO_FILES, **NO_RAW_QUERY, **CONTINUE_TOO_EARLY, **HINTS_ON_HTTP2_AND_3},
    ),
    "hypercorn-http2": Kind(
        "asgi", ["hypercorn", "h2"], hypercorn(), http2=True, cannot={**NO_FILES, **CONTINUE_NEVER}
    ),
    "hypercorn-trio": Kind(
        "asgi",
        ["hypercorn", "trio"],
        hypercorn("--worker-class=trio"),
        ends_by=signal.SIGINT,  # under trio it listens for no other signal without a worker process
        cannot={**NO_FILES, **NO_RAW_QUERY, **CONTINUE_TOO_EARLY, **HINTS_ON_HTTP2_AND_3},
    ),
    "granian": Kind("asgi", ["granian"], granian("asgi")),
    "daphne": Kind(
        "asgi",
        ["daphne"],
        python("daphne", "--port={port}", "{app}", prefix=["--root-path={prefix}"]),
        cannot={
            **NO_FILES,
            **NO_RAW_QUERY,
            **WHOLE_BODY_FIRST,
            **BREAKS_OFF,
            **dict.fromkeys(
                (
                    "test_error_after_the_head_breaks_the_response",
                    "test_response_that_is_shorter_than_it_says_is_broken",
                    "test_file_that_becomes_shorter_breaks_the_response",
                ),
                "It tries to send a second set of headers, fails at that, and leaves the connection open.",
            ),
            **dict.fromkeys(
                (
                    "test_slow_small_upload_takes_no_worker",
                    "test_slow_long_upload_holds_a_worker_of_ten",
                    "test_upload_of_a_client_that_hangs_up_is_no_error_in_the_log",
                ),
                "It receives the whole body before it calls the app.",
            ),
            "test_client_that_stops_reading_is_given_up": "It takes a response as fast as it comes, without a bound.",
        },
    ),
    # The worker for ASGI came with gunicorn 24.
    "gunicorn-asgi": Kind(
        "asgi",
        ["gunicorn", "gunicorn.asgi"],
        gunicorn("--worker-class=asgi", prefix="--root-path={prefix}"),
        cannot={**NO_FILES, **NO_RAW_QUERY, **HEAD_WITH_BODY},
    ),
    # -- of WSGI apps --
    "gunicorn-sync": Kind(
        "wsgi", ["gunicorn"], gunicorn("--worker-class=sync"), at_once=1, cannot={**GUNICORN, **CLOSES}
    ),
    "gunicorn-sync-inline": Kind(
        "wsgi",
        ["gunicorn"],
        gunicorn("--worker-class=sync"),
        options={"inline": True},
        at_once=1,
        cannot={**GUNICORN, **CLOSES},
    ),
    "gunicorn-gthread": Kind("wsgi", ["gunicorn"], gunicorn("--worker-class=gthread", "--threads=4"), cannot=GUNICORN),
    "gunicorn-gthread-trio": Kind(
        "wsgi",
        ["gunicorn", "trio"],
        gunicorn("--worker-class=gthread", "--threads=4"),
        options={"backend": "trio"},
        cannot=GUNICORN,
    ),
    "gunicorn-preload": Kind(
        "wsgi",
        ["gunicorn"],
        gunicorn("--preload", "--workers=2", "--worker-class=gthread", "--threads=4"),
        cannot=GUNICORN,
    ),
    "gunicorn-gevent": Kind(
        "wsgi", ["gunicorn", "gevent"], gunicorn("--worker-class=gevent"), cannot={**GUNICORN, **READS_FILES}
    ),
    # It looks at its clients while the app runs only where it may take in a request beforehand.
    "waitress": Kind(
        "wsgi",
        ["waitress"],
        python(
            "waitress",
            "--channel-request-lookahead=1",
            "--listen=127.0.0.1:{port}",
            "{app}",
            prefix=["--url-prefix={prefix}"],
        ),
        ends_by=signal.SIGINT,
        cannot={
            **READS_FILES,
            **NO_RAW_QUERY,
            **COMMA_IN_COOKIES,
            **WHOLE_BODY_FIRST,
            **HEAD_WITH_BODY,
            **dict.fromkeys(
                ("test_connection_is_kept[204]", "test_connection_is_kept[304]"),
                "It closes the connection after a 204 or 304.",
            ),
        },
    ),
    "cheroot": Kind(
        "wsgi",
        ["cheroot"],
        python("cheroot", "--bind=127.0.0.1:{port}", "{app}"),
        ends_by=signal.SIGINT,
        cannot={
            **NO_FILES,
            **NO_RAW_QUERY,
            **NO_PREFIX,
            **LAST_LINE_ONLY,
            **CONTINUE_TOO_EARLY,
            **HEAD_WITH_BODY,
            **HIDES_THE_CLIENT,
            "test_long_upload_is_refused_before_it_was_sent": (
                "It resets the connection if the body was not read, and the response is lost."
            ),
        },
    ),
    "uwsgi-threads": Kind(
        "wsgi", ["pyuwsgi"], uwsgi("--master", "--processes=2", "--enable-threads"), at_once=2, cannot=UWSGI
    ),
    "uwsgi-lazy": Kind("wsgi", ["pyuwsgi"], uwsgi("--master", "--lazy-apps"), at_once=1, cannot=UWSGI),
    "uwsgi-inline": Kind("wsgi", ["pyuwsgi"], uwsgi("--master"), options={"inline": True}, at_once=1, cannot=UWSGI),
    "mod_wsgi": Kind(
        "wsgi",
        ["apache2"],
        mod_wsgi,
        ends_by=signal.SIGWINCH,
        cannot={
            **COMMA_IN_COOKIES,
            **HEAD_WITH_BODY,
            **LOOKS_COMPLETE,
            **HIDES_THE_CLIENT,
            **dict.fromkeys(
                ("test_refused_client_is_not_told_100_continue", "test_long_upload_is_refused_before_it_was_sent"),
                "In daemon mode it passes the whole body on before it looks at the response.",
            ),
            "test_background_work_goes_on_after_the_response[nothing]": (
                "It keeps the head of a response without a body until the app has ended."
            ),
            "test_path_reaches_the_app[nul]": "Apache answers 404 if the path has a NUL.",
            "test_path_reaches_the_app[two-slashes]": "It merges repeated slashes into one.",
            "test_response_headers_reach_the_client[X-Repeated]": (
                "It joins repeated response headers with a comma, except `Set-Cookie`."
            ),
        },
    ),
    "werkzeug": Kind(
        "wsgi",
        ["werkzeug"],
        script("werkzeug"),
        cannot={
            **NO_FILES,
            **NO_PREFIX,
            **COMMA_IN_COOKIES,
            **CONTINUE_TOO_EARLY,
            **CLOSES,
            **BREAKS_OFF,
            "test_query_reaches_the_app[raw]": "It encodes non-ASCII bytes as UTF-8 a second time.",
        },
    ),
    "gevent": Kind(
        "wsgi", ["gevent"], script("gevent"), cannot={**NO_FILES, **NO_PREFIX, **HEAD_WITH_BODY, **HIDES_THE_CLIENT}
    ),
    "wsgiref": Kind(
        "wsgi",
        ["wsgiref"],
        script("wsgiref"),
        ends_by=signal.SIGINT,
        at_once=1,
        cannot={
            **READS_FILES,
            **NO_PREFIX,
            **COMMA_IN_COOKIES,
            **CONTINUE_NEVER,
            **CLOSES,
            **END_IS_CLOSE,
            **HIDES_THE_CLIENT,
            **BREAKS_OFF,
            **dict.fromkeys(
                (
                    "test_chunked_upload_arrives_whole[small]",
                    "test_chunked_upload_arrives_whole[large]",
                ),
                "It cannot read chunked bodies.",
            ),
        },
        may=LATE_HEAD,
    ),
    "granian-wsgi": Kind(
        "wsgi",
        ["granian"],
        granian("wsgi"),
        cannot={
            **NO_FILES,
            **HIDES_THE_CLIENT,
            "test_request_headers_reach_the_app[non-ascii]": "It drops header values that are not ASCII.",
            "test_response_headers_reach_the_client[X-Non-Ascii]": "It encodes non-ASCII bytes as UTF-8 a second time.",
        },
        may=LATE_HEAD,
    ),
}

SERVERS = {
    name: kind if name in HAVE_HINTS else replace(kind, cannot={**NO_HINTS, **kind.cannot})
    for name, kind in KINDS.items()
}
