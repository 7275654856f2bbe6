"""Certificates for tests: an authority, one that it has signed, and what these sign. Made when they are asked for."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest


def openssl() -> str:
    """The command of OpenSSL's; a test that needs it is skipped without."""
    path = shutil.which("openssl")
    if path is None:
        pytest.skip("openssl is not installed")
    return path


class _Party(NamedTuple):
    certificate: Any
    key: Any


def _party(name: Any, issuer: _Party | None = None, *, signs: bool = False, host: str = "") -> _Party:
    """A certificate and its key; one without an issuer signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    day, now = dt.timedelta(days=1), dt.datetime.now(dt.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=signs, path_length=None), critical=True)
    )
    if host:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return _Party(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def _pem(certificate: Any) -> str:
    from cryptography.hazmat.primitives import serialization

    text: str = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return text


def certificate(name: Any) -> str:
    """A certificate of this subject, as PEM."""
    return _pem(_party(name).certificate)


class Certificates(NamedTuple):
    """Files for a server and for a client, whose certificate an intermediate authority has signed.

    Attributes:
        authority: That which the server trusts.
        server: The server's certificate, for localhost.
        server_key: Its key.
        client: The client's certificate, with the intermediate's.
        client_key: Its key.
        stranger: A certificate that nobody knows.
        stranger_key: Its key.
        chain: The client's certificate and the intermediate's, as PEM.
    """

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    stranger: Path
    stranger_key: Path
    chain: list[str]


#: The client's name, in the order of its certificate, and as RFC 4514 has it.
CLIENT = [("COUNTRY_NAME", "DE"), ("ORGANIZATION_NAME", "Exämple, Inc. /CN=admin"), ("COMMON_NAME", "client")]
CLIENT_NAME = "CN=client,O=Exämple\\, Inc. /CN=admin,C=DE"


def write(directory: Path) -> Certificates:
    """Make all of them, and write them into a directory that others may read."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.x509.oid import NameOID

    def name(*pairs: tuple[str, str]) -> Any:
        return x509.Name([x509.NameAttribute(getattr(NameOID, kind), value) for kind, value in pairs])

    def file(path: str, *parts: Any) -> Path:
        encoding, form, secret = serialization.Encoding.PEM, serialization.PrivateFormat, serialization.NoEncryption()
        (directory / path).write_bytes(
            b"".join(
                _pem(part).encode()
                if isinstance(part, x509.Certificate)
                else part.private_bytes(encoding, form.TraditionalOpenSSL, secret)
                for part in parts
            )
        )
        return directory / path

    root = _party(name(("COMMON_NAME", "root")), signs=True)
    intermediate = _party(name(("COMMON_NAME", "intermediate")), root, signs=True)
    server = _party(name(("COMMON_NAME", "localhost")), root, host="localhost")
    client = _party(name(*CLIENT), intermediate)
    stranger = _party(name(("COMMON_NAME", "stranger")))
    return Certificates(
        file("authority.pem", root.certificate),
        file("server.pem", server.certificate),
        file("server.key", server.key),
        file("client.pem", client.certificate, intermediate.certificate),
        file("client.key", client.key),
        file("stranger.pem", stranger.certificate),
        file("stranger.key", stranger.key),
        [_pem(client.certificate), _pem(intermediate.certificate)],
    )
