"""The certificate of ``--ssl-certfile``, which is tried before the server is started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

pytest.importorskip("cryptography")

from a2wsgi._cli import starting
from a2wsgi._cli.certificates import check_certificate
from a2wsgi._cli.errors import ServerNotStarted
from a2wsgi._cli.main import main
from a2wsgi._cli.servers import Server
from interop.certificates import write


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a certificate, its key, another key, and both of the former in one file."""
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    directory = tmp_path_factory.mktemp("pems")
    made = write(directory)
    (directory / "both.pem").write_bytes(made.server.read_bytes() + made.server_key.read_bytes())
    key = load_pem_private_key(made.server_key.read_bytes(), None)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (directory / "encrypted.key").write_bytes(secret)
    (directory / "empty.pem").write_text("")
    return directory


@pytest.mark.parametrize(
    ("certificate", "key"), [("server.pem", "server.key"), ("both.pem", None), ("server.pem", "encrypted.key")]
)
def test_certificate_with_its_key_is_taken(
    pems: Path, monkeypatch: pytest.MonkeyPatch, certificate: str, key: str | None
) -> None:
    """Also if only the server can open the key, for which it asks or has an option."""
    monkeypatch.chdir(pems)
    check_certificate(certificate, key)


NO_KEY = "does not hold a certificate with its key, in PEM. Pass the key with --ssl-keyfile."


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        ("missing.pem", None, "--ssl-certfile missing.pem cannot be read: No such file or directory."),
        (".", None, "--ssl-certfile . cannot be read: Is a directory."),
        ("server.pem", "missing.key", "--ssl-keyfile missing.key cannot be read: No such file or directory."),
        ("server.pem", None, f"--ssl-certfile server.pem {NO_KEY}"),
        ("server.key", None, f"--ssl-certfile server.key {NO_KEY}"),
        ("empty.pem", None, f"--ssl-certfile empty.pem {NO_KEY}"),
        (
            "server.pem",
            "client.key",
            "--ssl-certfile server.pem and --ssl-keyfile client.key do not hold a certificate and its key, in PEM.",
        ),
    ],
)
def test_certificate_that_no_server_can_use_is_an_error(
    pems: Path, monkeypatch: pytest.MonkeyPatch, certificate: str, key: str | None, message: str
) -> None:
    """The option and the file are named."""
    monkeypatch.chdir(pems)
    with pytest.raises(ServerNotStarted) as raised:
        check_certificate(certificate, key)
    assert str(raised.value) == message


@pytest.fixture
def _shop(pems: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of an app beside the files, and every server."""
    (pems / "shop_with_tls.py").write_text("def app(environ, start_response): ...\n")
    monkeypatch.chdir(pems)
    monkeypatch.syspath_prepend(pems)
    monkeypatch.setattr(Server, "version", lambda _: "1.2")


@pytest.mark.usefixtures("_shop")
def test_certificate_is_checked_before_the_server_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, where each server would show a traceback of its own."""
    assert main(["serve", "shop_with_tls", "--port=0", "--server=gevent", "--ssl-certfile=server.pem"]) == 1
    assert capsys.readouterr().err == f"a2wsgi: --ssl-certfile server.pem {NO_KEY}\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="There are no named pipes.")
def test_key_that_comes_through_a_pipe_is_left_to_the_server(
    pems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be read once, as that of ``--ssl-keyfile=<(…)``."""
    monkeypatch.chdir(pems)
    path, key = tmp_path / "key.fifo", Path("server.key").read_bytes()
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # to both ends: who opens it to read need not wait
    try:
        os.write(pipe, key)
        check_certificate("server.pem", str(path))
        assert os.read(pipe, len(key) + 1) == key
    finally:
        os.close(pipe)


@pytest.mark.usefixtures("_shop")
@pytest.mark.parametrize(
    ("server", "words"),
    [("hypercorn", ["--keyfile=server.key"]), ("uvicorn", ["--ssl-keyfile", "server.key"])],
)
def test_key_that_the_server_alone_is_told_of_is_left_to_it(
    server: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an option of its own, after ``--``."""
    started: list[str] = []

    def note(command: list[str], environment: object) -> NoReturn:
        started.extend(command)
        raise SystemExit(0)

    monkeypatch.setattr(starting, "become", note)
    monkeypatch.setattr(starting, "runs_here", lambda _: False)
    arguments = ["serve", "shop_with_tls", "--port=0", f"--server={server}", "--ssl-certfile=server.pem", "--", *words]
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 0
    assert started[-1 - len(words) : -1] == words
