"""The name of a certificate's subject, held against those of another library and of OpenSSL."""

from __future__ import annotations

import datetime as dt
import ssl
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2wsgi._protocol.distinguished_names import is_rfc4514, pem_of, subject_of
from interop.certificates import certificate, openssl

x509 = pytest.importorskip("cryptography.x509")
oid = pytest.importorskip("cryptography.x509.oid")

NAMES: dict[str, Any] = {
    "usual": [("COUNTRY_NAME", "DE"), ("ORGANIZATION_NAME", "Example"), ("COMMON_NAME", "client")],
    "spaces": [("COMMON_NAME", "  a  "), ("ORGANIZATION_NAME", " "), ("LOCALITY_NAME", "b ")],
    "marks": [("COMMON_NAME", '#a"+,;<>\\=/b')],
    "forged": [("ORGANIZATION_NAME", "x/CN=admin,CN=root"), ("COMMON_NAME", "client")],
    "unicode": [("ORGANIZATION_NAME", "Exämple €"), ("COMMON_NAME", "客户")],
    "ldap": [("DOMAIN_COMPONENT", "org"), ("DOMAIN_COMPONENT", "example"), ("USER_ID", "jo")],
    "people": [("SURNAME", "Doe"), ("GIVEN_NAME", "Jo"), ("TITLE", "Dr"), ("SERIAL_NUMBER", "5")],
    "email": [("EMAIL_ADDRESS", "jo@example.org"), ("COMMON_NAME", "jo")],
    "none": [],
}


def name_of(pairs: Any) -> Any:
    """A name of these, in the order of a certificate."""
    return x509.Name([x509.NameAttribute(getattr(oid.NameOID, kind), value) for kind, value in pairs])


@pytest.mark.parametrize("pairs", NAMES.values(), ids=NAMES)
def test_subject_is_written_as_rfc_4514_has_it(pairs: Any) -> None:
    """As ``cryptography`` writes it, but for types that it knows by number only."""
    name = name_of(pairs)
    numbers = {oid.NameOID.EMAIL_ADDRESS: "emailAddress", oid.NameOID.SURNAME: "SN", oid.NameOID.GIVEN_NAME: "GN"}
    numbers |= {oid.NameOID.TITLE: "title", oid.NameOID.SERIAL_NUMBER: "serialNumber"}
    assert subject_of(certificate(name)) == name.rfc4514_string(numbers)


@pytest.mark.parametrize("pairs", NAMES.values(), ids=NAMES)
def test_subject_is_written_as_mod_ssl_writes_it(pairs: Any) -> None:
    """mod_ssl, SSL_CLIENT_S_DN: OpenSSL's RFC2253 without an escape for what is not ASCII."""
    pem = certificate(name_of(pairs))
    options = ["-noout", "-subject", "-nameopt", "RFC2253,-esc_msb"]
    shown = subprocess.run([openssl(), "x509", *options], input=pem.encode(), capture_output=True, check=True).stdout
    assert subject_of(pem) == shown.decode().removeprefix("subject=").rstrip("\n")


def test_set_of_several_is_joined_by_plus() -> None:
    """RFC 4514 §2.2."""
    pairs = [("COMMON_NAME", "a"), ("USER_ID", "b")]
    name = x509.Name([x509.RelativeDistinguishedName([*name_of(pairs)]), *name_of([("COUNTRY_NAME", "DE")]).rdns])
    assert subject_of(certificate(name)) in {"C=DE,CN=a+UID=b", "C=DE,UID=b+CN=a"}


def test_type_without_a_name_is_a_number() -> None:
    """RFC 4514 §2.4: its value is the DER in hexadecimal."""
    number = x509.ObjectIdentifier("1.2.3.4444.5")
    name = x509.Name([x509.NameAttribute(number, "é" * 100)])
    assert subject_of(certificate(name)) == f"1.2.3.4444.5=#0c81c8{'c3a9' * 100}"


def test_number_may_have_an_arc_as_long_as_a_uuid() -> None:
    """ITU-T X.667 §6.3 has such below 2.25. A longer one, or one without an end, is no number that anybody has."""
    number = x509.ObjectIdentifier(f"2.25.{2**128 - 1}")
    made = certificate(x509.Name([x509.NameAttribute(number, "x")]))
    assert subject_of(made) == f"2.25.{2**128 - 1}=#0c0178"
    der = ssl.PEM_cert_to_DER_cert(made)
    arc = b"\x83" + b"\xff" * 17 + b"\x7f"
    assert arc in der
    assert subject_of(pem_of(der.replace(arc, b"\x87" + arc[1:]))) is None
    assert subject_of(pem_of(der.replace(arc, arc[:-1] + b"\xff"))) is None


def test_control_character_cannot_end_a_line_in_a_log() -> None:
    """RFC 4514 §2.4 allows any character to be written by its number."""
    assert subject_of(certificate(name_of([("COMMON_NAME", "a\r\nb\0")]))) == "CN=a\\0D\\0Ab\\00"


@pytest.mark.parametrize("pem", ["", "client's", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"])
def test_what_is_no_certificate_has_no_subject(pem: str) -> None:
    """Whatever a middleware has put there."""
    assert subject_of(pem) is None


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda data: b"\x30\x3c\x30\x3a" + data))
def test_no_bytes_are_too_odd(data: bytes) -> None:
    """They have a subject or none."""
    assert isinstance(subject_of(pem_of(data)), str | None)


def test_certificate_that_is_cut_off_has_no_subject() -> None:
    """At any place."""
    pem = certificate(name_of(NAMES["usual"]))
    der = ssl.PEM_cert_to_DER_cert(pem)
    assert pem_of(der) == pem
    assert {subject_of(pem_of(der[:length])) for length in range(len(der))} == {None}


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("CN=a,O=b", True), ("1.2.840=#0401", True), ("/C=DE/CN=a", False), ("", False), ("a", False), ("=a", False)],
)
def test_name_of_another_kind_is_told_by_its_beginning(name: str, is_one: bool) -> None:
    """OpenSSL's older one begins with a slash."""
    assert is_rfc4514(name) is is_one


def test_certificates_of_the_tests_hold_today() -> None:
    """They are made when they are asked for."""
    made = x509.load_pem_x509_certificate(certificate(name_of(NAMES["usual"])).encode())
    assert made.not_valid_before_utc < dt.datetime.now(dt.timezone.utc) < made.not_valid_after_utc
