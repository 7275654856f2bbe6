"""Tries the certificate for TLS before the server starts, which would show a traceback, or fail each connection."""

from __future__ import annotations

from pathlib import Path

from .errors import ServerNotStarted


class _KeyIsEncrypted(Exception):  # noqa: N818 - not an error
    """The key has a password. The server asks for it, or has an option of its own."""


def check_certificate(certificate: str, key: str | None) -> None:
    """Raise an error if no server can use a certificate.

    Args:
        certificate: The path of ``--ssl-certfile``.
        key: The path of ``--ssl-keyfile``; None if the certificate's file holds the key.

    Raises:
        ServerNotStarted: A file cannot be read, or does not hold what it should.
    """
    import ssl  # noqa: PLC0415 - few need it

    if any(Path(path).is_fifo() for path in (certificate, key or certificate)):
        return  # what comes through a pipe can be read once, by the server
    for option, path in (("--ssl-certfile", certificate), ("--ssl-keyfile", key or certificate)):
        try:
            Path(path).open("rb").close()  # since `ssl` does not tell which of the two it cannot read
        except OSError as error:
            raise ServerNotStarted(f"{option} {path} cannot be read: {error.strerror}.") from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, _asked)
    except _KeyIsEncrypted:
        return
    except ssl.SSLError as error:
        if key is None:
            what = f"{certificate} does not hold a certificate with its key, in PEM. Pass the key with --ssl-keyfile."
        else:
            what = f"{certificate} and --ssl-keyfile {key} do not hold a certificate and its key, in PEM."
        raise ServerNotStarted(f"--ssl-certfile {what}") from error


def _asked() -> str:
    raise _KeyIsEncrypted
