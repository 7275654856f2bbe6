"""A certificate as PEM, and the name of its subject, read from the certificate itself.

*Facts*

- A certificate is DER, and PEM is that in base64 between two lines (RFC 7468 §5). The subject is the sixth member of
  what is signed, or the fifth in version 1 (RFC 5280 §4.1), and a list of sets of pairs of a type and a value.
- RFC 4514 writes the list from its end to its beginning, with "," between the sets and "+" within one. A type that has
  no short name there is written by its number, and its value as the DER in hexadecimal.
- Servers say the name in ways of their own. "/O=x/CN=admin", as OpenSSL once wrote it, is either of two names, since it
  escapes nothing. So what the certificate says comes before what a server says of it.

Short names are those of OpenSSL, which mod_ssl and ``openssl x509 -nameopt RFC2253`` write, so that all say the same.

Specs: RFC 4514 (distinguished names); RFC 5280 (certificates); RFC 7468 (PEM); X.690 (DER).
"""

from __future__ import annotations

import base64
import functools
import re

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_BEGINS_LIKE_RFC4514 = re.compile(r"(?:[A-Za-z][A-Za-z0-9-]*|\d+\.[\d.]*)=")
_SPECIAL = re.compile(r'[\\"+,;<>]')  # RFC 4514 §2.4
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_SHORT_NAMES = {
    "2.5.4.3": "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "street",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.13": "description",
    "2.5.4.15": "businessCategory",
    "2.5.4.17": "postalCode",
    "2.5.4.41": "name",
    "2.5.4.42": "GN",
    "2.5.4.43": "initials",
    "2.5.4.44": "generationQualifier",
    "2.5.4.46": "dnQualifier",
    "2.5.4.65": "pseudonym",
    "2.5.4.97": "organizationIdentifier",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}
# X.690 §8.23, by tag. T61String is read as latin-1, as OpenSSL does.
_ENCODINGS = {
    0x0C: "utf-8",  # UTF8String
    0x12: "ascii",  # NumericString
    0x13: "ascii",  # PrintableString
    0x14: "latin-1",  # T61String
    0x16: "ascii",  # IA5String
    0x1A: "ascii",  # VisibleString
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}
_SEQUENCE, _VERSION = 0x30, 0xA0
#: The longest arc of an object identifier that anybody has: ITU-T X.667 makes one of a UUID. RFC 5280, Appendix B, asks
#: for 28.
_ARC_BITS = 128


def pem_of(der: bytes) -> str:
    """Return a certificate as PEM, in lines of 64 characters (RFC 7468 §2); "" for nothing."""
    text = base64.b64encode(der).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""]) if der else ""


def is_rfc4514(name: str) -> bool:
    """Return whether a name begins as RFC 4514 has it, and not as ``"/C=…/CN=…"``."""
    return _BEGINS_LIKE_RFC4514.match(name) is not None


@functools.lru_cache(maxsize=128)  # the requests of a connection have the same certificate
def subject_of(pem: str) -> str | None:
    """Return the name of a certificate's subject as RFC 4514 writes it; ``None`` if this is no certificate."""
    match = _PEM.search(pem)
    if match is None:
        return None
    try:
        certificate = _only(base64.b64decode(match[1]), _SEQUENCE)
        members = _parts(_parts(certificate)[0][1])
        if members[0][0] == _VERSION:
            del members[0]
        # serial number, algorithm, issuer, validity, subject
        sets = [_parts(members) for _, members in _parts(members[4][1])]
        return ",".join("+".join(_pair(pair) for _, pair in members) for members in reversed(sets))
    except (ValueError, IndexError):  # binascii.Error and UnicodeError are ValueErrors
        return None


def _parts(data: bytes) -> list[tuple[int, bytes]]:
    """Split DER into its members: of each the tag and the content (X.690 §8.1)."""
    members: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        tag, length, start = data[at], data[at + 1], at + 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[at + 2 : start], "big")
        at = start + length
        if at > len(data):
            raise ValueError("a member is longer than what holds it")
        members.append((tag, data[start:at]))
    return members


def _only(data: bytes, tag: int) -> bytes:
    (found, content), *rest = _parts(data)
    if found != tag or rest:
        raise ValueError("this is not a single member of that tag")
    return content


def _pair(data: bytes) -> str:
    """Write a type and its value (RFC 4514 §2.3, §2.4)."""
    (_, oid), (tag, value) = _parts(data)
    dotted = _dotted(oid)
    name, encoding = _SHORT_NAMES.get(dotted), _ENCODINGS.get(tag)
    if name is None or encoding is None:
        return f"{name or dotted}=#{_encoded(tag, value).hex()}"
    return f"{name}={_escaped(value.decode(encoding))}"


def _dotted(oid: bytes) -> str:
    """Write an object identifier with dots (X.690 §8.19)."""
    numbers, number = list[int](), 0
    for byte in oid:
        number = number << 7 | byte & 0x7F
        if number.bit_length() > _ARC_BITS:  # one of megabytes would take a time that grows with the square of that
            raise ValueError("an arc is too long")
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    if number or not numbers:
        raise ValueError("it ends within an arc")
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))


def _encoded(tag: int, value: bytes) -> bytes:
    size = len(value)
    length = bytes([size])
    if size > 0x7F:
        digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
        length = bytes([0x80 | len(digits)]) + digits
    return bytes([tag]) + length + value


def _escaped(value: str) -> str:
    """Escape what RFC 4514 §2.4 wants escaped, and control characters, which would end a line in a log."""
    text = _SPECIAL.sub(r"\\\g<0>", value)
    if text[:1] in {" ", "#"} and text:
        text = "\\" + text
    if text.endswith(" ") and text != "\\ ":
        text = text[:-1] + "\\ "
    return _CONTROL.sub(lambda match: f"\\{ord(match[0]):02X}", text)
