"""How long bodies are, and what of them is sent."""

from __future__ import annotations

import pytest

from a2wsgi._protocol.framing import BadRequest, Framing, content_length

# -- Content-Length of requests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "length"),
    [
        ([], None),
        ([b"0"], 0),
        ([b"5"], 5),
        (["5"], 5),
        ([b" 5\t"], 5),
        ([b"005"], 5),
        ([b"5", b"5"], 5),
        ([b"5, 5"], 5),
        ([b"5,5", "5"], 5),
        ([b"9" * 20], 10**20 - 1),
    ],
)
def test_content_length_is_read(values: list[bytes | str], length: int | None) -> None:
    """RFC 9110 §8.6: digits, and repeats that say the same count as one."""
    assert content_length(values) == length


@pytest.mark.parametrize(
    "value",
    [
        *[
            "",
            " ",
            "+5",
            "-5",
            "5_0",
            "0x5",
            "5.0",
            "5 0",
            "5,",
            ",5",
            "5,,5",
            "abc",
            "5\n",
            "5\0",
            "\xb2",
            "\u0665",
            "\xbd",
        ],
        "9" * 21,
        "5" * 5000,
    ],
)
def test_content_length_is_refused_when_it_is_no_number(value: str) -> None:
    """RFC 9110 §8.6: signs, underscores, other digits than ASCII's and more than any body needs are malformed."""
    with pytest.raises(BadRequest, match="Content-Length is not a number"):
        content_length([value])


def test_content_length_is_refused_when_repeats_differ() -> None:
    """RFC 9112 §6.3: a request whose lengths differ is a 400, and never one of the two."""
    with pytest.raises(BadRequest, match="both 5 and 6"):
        content_length([b"5", b"6"])
    with pytest.raises(BadRequest, match="both 6 and 5"):
        content_length([b"6, 6, 5, 4"])


# -- Bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "status", "none"),
    [
        ("GET", 200, False),
        ("HEAD", 200, True),
        ("HEAD", 404, True),
        ("GET", 204, True),
        ("POST", 304, True),
        ("GET", 205, False),
        ("GET", 404, False),
        ("GET", 599, False),
    ],
)
def test_response_is_bodiless_where_the_spec_says_so(method: str, status: int, none: bool) -> None:
    """RFC 9110 §6.4.1: no body in a response to HEAD, nor with 204 or 304."""
    assert Framing(method, status, None).bodiless is none


# -- Framing of responses ---------------------------------------------------------------------------------------------

#: Of a response: its method, status and Content-Length, the chunks that the app gives, and what is sent of each;
#: whether it has no body, how many bytes are missing at the end, and the length that is added to its head.
RESPONSES = [
    # A body of any length is sent whole, and gets its length.
    ("GET", 200, None, [b"abc", b"", b"de"], [b"abc", b"", b"de"], False, None, 5),
    ("GET", 200, None, [], [], False, None, 0),
    ("POST", 500, None, [b"x"], [b"x"], False, None, 1),
    # One with a Content-Length is cut there, in the middle of a chunk or between two; a second length is not added.
    ("GET", 200, 5, [b"abc", b"de"], [b"abc", b"de"], False, 0, None),
    ("GET", 200, 4, [b"abc", b"de", b"f"], [b"abc", b"d", b""], False, 0, None),
    ("GET", 200, 3, [b"abc", b"de"], [b"abc", b""], False, 0, None),
    ("GET", 200, 0, [b"abc"], [b""], False, 0, None),
    # What a shorter body lacks is left over.
    ("GET", 200, 5, [b"abc"], [b"abc"], False, 2, None),
    ("GET", 200, 5, [], [], False, 5, None),
    # HEAD hides the body. Its length is that of GET, unless the app left the body out, which says nothing about it.
    ("HEAD", 200, None, [b"abc"], [b""], True, 0, 3),
    ("HEAD", 200, None, [], [], True, 0, None),
    ("HEAD", 200, 5, [b"abc"], [b""], True, 0, None),
    ("HEAD", 404, 5, [], [], True, 0, None),
    # 204 and 304 have no body, and get no length.
    ("GET", 204, None, [b"abc"], [b""], True, 0, None),
    ("GET", 204, None, [], [], True, 0, None),
    ("GET", 304, None, [b"abc"], [b""], True, 0, None),
    ("GET", 304, 5, [b"abc"], [b""], True, 0, None),
    ("HEAD", 304, None, [], [], True, 0, None),
    # 205 and 1xx are not special here: 205 may have a body of no bytes, and 1xx is no final status.
    ("GET", 205, None, [], [], False, None, 0),
]


@pytest.mark.parametrize(
    ("method", "status", "length", "chunks", "sent", "bodiless", "remaining", "added"),
    RESPONSES,
)
def test_framing_of_a_response(  # noqa: PLR0917  # the columns of the table
    method: str,
    status: int,
    length: int | None,
    chunks: list[bytes],
    sent: list[bytes],
    bodiless: bool,
    remaining: int | None,
    added: int | None,
) -> None:
    """RFC 9110 §6.4.1, §8.6, RFC 9112 §6.3: what is sent of a body, what is missing of it, and what its head says."""
    framing = Framing(method, status, length)
    assert framing.bodiless is bodiless
    assert [framing.cut(chunk) for chunk in chunks] == sent
    assert framing.remaining == remaining
    assert framing.length_to_add(sum(map(len, chunks))) == added


def test_framing_adds_no_length_to_a_body_of_unknown_length() -> None:
    """RFC 9110 §8.6: a Content-Length is sent only if it is known."""
    assert [Framing(method, 200, None).length_to_add(None) for method in ("GET", "HEAD")] == [None, None]
