"""What an ASGI app is told of TLS by real servers, of clients with a certificate, with a strange one and with none."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from interop.certificates import CLIENT_NAME, Certificates, write
from interop.servers import APACHE, MODULES, SERVERS, Start, mod_wsgi
from support.servers import Server, module, running

pytest.importorskip("cryptography")

pytestmark = pytest.mark.interop

SECONDS = 15.0

#: What a client may come to with a server here, and the numbers of the RFCs: old versions of nginx leave TLS 1.3 off.
CONNECTIONS = {
    ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"): (0x0303, 0xC02C),
    ("TLSv1.3", "TLS_AES_256_GCM_SHA384"): (0x0304, 0x1302),
}

APACHE_WITH_TLS = """
LoadModule ssl_module {modules}/mod_ssl.so
SSLEngine on
SSLSessionCache none
SSLCertificateFile {directory}/server.pem
SSLCertificateKeyFile {directory}/server.key
SSLCACertificateFile {directory}/authority.pem
SSLVerifyClient optional_no_ca
SSLVerifyDepth 3
SSLOptions +StdEnvVars +ExportCertData
"""

NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    {paths}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {directory}/server.pem;
        ssl_certificate_key {directory}/server.key;
        ssl_client_certificate {directory}/authority.pem;
        ssl_verify_client optional_no_ca;
        ssl_verify_depth 3;
        location / {{
            include uwsgi_params;
            uwsgi_pass 127.0.0.1:{app};
            uwsgi_param SSL_PROTOCOL $ssl_protocol;
            uwsgi_param SSL_CIPHER $ssl_cipher;
            uwsgi_param SSL_CLIENT_CERT $ssl_client_cert;
            uwsgi_param SSL_CLIENT_S_DN $ssl_client_s_dn;
            uwsgi_param SSL_CLIENT_VERIFY $ssl_client_verify;
        }}
    }}
}}
"""

UWSGI_PARAMS = """
uwsgi_param QUERY_STRING $query_string; uwsgi_param REQUEST_METHOD $request_method;
uwsgi_param CONTENT_TYPE $content_type; uwsgi_param CONTENT_LENGTH $content_length;
uwsgi_param REQUEST_URI $request_uri; uwsgi_param PATH_INFO $document_uri;
uwsgi_param SERVER_PROTOCOL $server_protocol; uwsgi_param REMOTE_ADDR $remote_addr;
uwsgi_param REMOTE_PORT $remote_port; uwsgi_param SERVER_PORT $server_port;
uwsgi_param SERVER_NAME $server_name; uwsgi_param REQUEST_SCHEME $scheme; uwsgi_param HTTPS $https;
"""


def answers(server: Server, _: str) -> bool:
    """Whether it does TLS."""
    with contextlib.suppress(OSError):
        return ask(server, "/", None).status == 200
    return False


class Answer(NamedTuple):
    """What an app answered, and what the client knows of the connection."""

    status: int
    body: bytes
    version: str | None
    cipher: str

    def json(self) -> Any:
        assert self.status == 200
        return json.loads(self.body)


def ask(server: Server, path: str, certificate: tuple[Path, Path] | None, **headers: str) -> Answer:
    """Send a request, with a certificate and its key or without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is the server that verifies here
    if certificate is not None:
        context.load_cert_chain(*certificate)
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=SECONDS, context=context)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        sock: Any = connection.sock
        version, (cipher, _, _) = sock.version(), sock.cipher()
        with connection.getresponse() as response:
            return Answer(response.status, response.read(), version, cipher)


# -- Servers ------------------------------------------------------------------------------------------------------


@contextmanager
def on_mod_wsgi(directory: Path) -> Iterator[Server]:
    """Apache, which tells all of it."""
    if missing := SERVERS["mod_wsgi"].missing():
        pytest.skip(missing)

    def command(port: int) -> Sequence[str]:
        made = mod_wsgi(Start("interop.tls_app:application", port, directory, ""))
        path = directory / "apache.conf"
        path.write_text(path.read_text() + APACHE_WITH_TLS.format(modules=MODULES, directory=directory))
        return made

    assert "SSL" not in APACHE
    with running(command, directory, answers=answers) as server:
        yield server


@contextmanager
def on_uwsgi(directory: Path) -> Iterator[Server]:
    """uWSGI behind nginx, which is told to tell it."""  # noqa: D403 - that is its name
    pytest.importorskip("pyuwsgi")
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")

    def uwsgi(port: int) -> Sequence[str]:
        program = str(Path(sys.executable).parent / "pyuwsgi")
        return [program, f"--socket=127.0.0.1:{port}", "--enable-threads", "--need-app", "--buffer-size=32768",
                "--master", "--hook-master-start=unix_signal:15 gracefully_kill_them_all",
                "--module=interop.tls_app:application"]  # fmt: skip

    with running(uwsgi, directory, answers=lambda server, _: server.listens()) as app:

        def nginx(port: int) -> Sequence[str]:
            kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            paths = "\n".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)
            configuration = directory / "nginx.conf"
            configuration.write_text(NGINX.format(directory=directory, port=port, app=app.port, paths=paths))
            (directory / "uwsgi_params").write_text(UWSGI_PARAMS)
            return ["nginx", "-p", str(directory), "-c", str(configuration), "-e", str(directory / "error.log")]

        (directory / "front").mkdir()
        with running(nginx, directory / "front", answers=answers) as server:
            yield server


def on_script(name: str) -> Callable[[Path], contextlib.AbstractContextManager[Server]]:
    """A server that does TLS itself."""

    @contextmanager
    def on_it(directory: Path) -> Iterator[Server]:
        pytest.importorskip(name)

        def command(port: int) -> Sequence[str]:
            return module("interop.tls_app", name, str(port), str(directory))

        with running(command, directory, answers=answers) as server:
            yield server

    return on_it


SERVED = {
    "mod_wsgi": on_mod_wsgi,
    "uwsgi": on_uwsgi,
    "cheroot": on_script("cheroot"),
    "werkzeug": on_script("werkzeug"),
}


class With(NamedTuple):
    """A server, by its name, and the certificates."""

    name: str
    server: Server
    files: Certificates

    @property
    def client(self) -> tuple[Path, Path]:
        return self.files.client, self.files.client_key

    @property
    def stranger(self) -> tuple[Path, Path]:
        return self.files.stranger, self.files.stranger_key


@pytest.fixture(scope="module", params=SERVED)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[With]:
    """Each server in turn, with certificates of its own."""
    directory = tmp_path_factory.mktemp("tls")
    files = write(directory)
    with SERVED[request.param](directory) as server:
        yield With(request.param, server, files)


# -- What comes of it ---------------------------------------------------------------------------------------------


def same(pem: str | None) -> bytes:
    """A certificate, however it is written."""
    return ssl.PEM_cert_to_DER_cert(pem or "")


def test_app_is_told_of_a_clients_certificate(served: With) -> None:
    """Each server tells what it knows, in its own way; the app sees one."""
    answer = ask(served.server, "/bridge", served.client)
    told = answer.json()
    sent = list(map(same, served.files.chain))
    assert list(map(same, told["client_cert_chain"])) == (sent if served.name == "mod_wsgi" else sent[:1])
    assert told["client_cert_name"] == CLIENT_NAME
    assert told["client_cert_error"] is None
    knows_suite = served.name != "werkzeug"
    assert (told["tls_version"] is not None, told["cipher_suite"] is not None) == (knows_suite, knows_suite)
    if knows_suite:
        assert (told["tls_version"], told["cipher_suite"]) == CONNECTIONS[str(answer.version), answer.cipher]
    if served.name in {"mod_wsgi", "cheroot"}:
        assert same(told["server_cert"]) == same(served.files.server.read_text())
    else:
        assert told["server_cert"] is None


def test_app_is_told_that_there_is_no_certificate(served: With) -> None:
    """Where the server can tell nothing at all, there is no extension."""
    told = ask(served.server, "/bridge", None).json()
    if served.name == "werkzeug":
        assert told is None
    else:
        assert told["tls_version"] in {0x0303, 0x0304}
        assert (told["client_cert_chain"], told["client_cert_name"], told["client_cert_error"]) == ([], None, None)


def test_app_is_told_that_a_certificate_was_not_verified(served: With) -> None:
    """A server may let such a client in. It is one that must not be believed."""
    if served.name in {"cheroot", "werkzeug"}:
        with pytest.raises(OSError, match=r"(?i)unknown.?ca|reset|broken pipe|EOF"):
            ask(served.server, "/bridge", served.stranger)
        return
    told = ask(served.server, "/bridge", served.stranger).json()
    assert told["client_cert_name"] == "CN=stranger"
    assert told["client_cert_error"]


def test_client_cannot_tell_it_by_headers(served: With) -> None:
    """Whatever it calls them, and whether or not it has a certificate."""
    forged = {"SSL_CLIENT_S_DN": "CN=root", "SSL-Client-S-DN": "CN=root", "SSL-Protocol": "x", "SSL-Client-Cert": "x"}
    forged |= {f"X-{name}": value for name, value in forged.items()}
    for path in ("/bridge", "/pair"):
        for certificate in (None, served.client):
            honest = ask(served.server, path, certificate).json()
            with_headers = ask(served.server, path, certificate, **forged).json()
            for answer in filter(None, (honest, with_headers)):
                answer.pop("SSL_SESSION_ID", None)  # of each connection another
            assert with_headers == honest


def test_wsgi_app_behind_a_pair_has_what_the_server_says(served: With) -> None:
    """All of it, as without bridges."""
    varies = {"SSL_SESSION_ID", "SSL_CLIENT_V_REMAIN"}
    plain, paired = (ask(served.server, path, served.client).json() for path in ("/", "/pair"))
    assert {key: value for key, value in paired.items() if key not in varies} == {
        key: value for key, value in plain.items() if key not in varies
    }
    assert "SSL_CLIENT_CERT" in plain
