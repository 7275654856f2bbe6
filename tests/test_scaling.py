"""What a request or a response costs grows with its size, and no faster: part by part, counted, not timed.

The client chooses how long a head is and how often a header comes in it, and some servers set no limit (uvicorn with
httptools). The head is translated on the loop thread: whatever costs the square of its size stops all other clients.

Counted is each line of a2wsgi's that runs, and how long each string, tuple, list, dict and large number is that a line
has made: so much it has copied. What is not seen is work inside one call of the standard library; for the regular
expressions, `test_regex_is_linear` looks at how they are built.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

import a2wsgi
from a2wsgi._asgi_on_wsgi.body import RequestBody
from a2wsgi._protocol import headers as _headers
from a2wsgi._protocol import names as _names
from a2wsgi._protocol import status as _status
from a2wsgi._protocol.distinguished_names import pem_of, subject_of
from a2wsgi._protocol.environ import EnvironTemplate
from a2wsgi._protocol.framing import BadRequest, content_length
from a2wsgi._protocol.headers import response_head_from_asgi, response_head_from_wsgi
from a2wsgi._protocol.hints import hint_from_asgi, links_from_wsgi
from a2wsgi._protocol.names import ENVIRON_KEYS, ENVIRON_KEYS_WITH_UNDERSCORES, MAX_CACHED, REQUEST_NAMES, Cache
from a2wsgi._protocol.scope import process_headers
from support.asgi_driver import http_scope
from support.translators import environ_from_scope, scope_from_environ
from support.wsgi_driver import environ_of

if TYPE_CHECKING:
    from typing_extensions import Self

#: A part of a message: given its size, the work that is counted.
Part: TypeAlias = Callable[[int], Callable[[], object]]

SOURCE = str(Path(a2wsgi.__file__).parent)
SMALL, BIG = 50, 200
#: Four times the size may cost so much more. The square would cost sixteen times as much.
MOST = 5.0

# -- Counting ---------------------------------------------------------------------------------------------------------


class Meter:
    """Counts what the functions of a2wsgi do meanwhile: the lines they run, and the lengths of what they make."""

    def __init__(self) -> None:
        self.units = 0
        self._seen: dict[int, object] = {}  # held, so that no other object gets the same id

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._enter_frame)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _enter_frame(self, frame: FrameType, event: str, arg: object) -> Any:
        return self._step if frame.f_code.co_filename.startswith(SOURCE) else None

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        self.units += 1
        for value in list(frame.f_locals.values()):
            self._look_into(value)
        if event == "return":
            self._look_into(arg)
        return self._step

    def _look_into(self, value: object) -> None:
        self._look_at(value)
        if isinstance(value, dict):
            for item in list(value.values()):
                self._look_at(item)
        elif isinstance(value, list | tuple):
            for item in value:
                self._look_at(item)

    def _look_at(self, value: object) -> None:
        if isinstance(value, str | bytes | tuple | list | dict | set) and id(value) not in self._seen:
            self._seen[id(value)] = value
            self.units += len(value)
        elif isinstance(value, int) and value.bit_length() > 64 and id(value) not in self._seen:
            self._seen[id(value)] = value
            self.units += value.bit_length() // 8


def cost(part: Part, size: int) -> int:
    """Return what a part of this size costs."""
    work = part(size)
    for cache in (ENVIRON_KEYS, ENVIRON_KEYS_WITH_UNDERSCORES, REQUEST_NAMES):
        cache.clear()
    subject_of.cache_clear()
    with Meter() as meter, contextlib.suppress(a2wsgi.BridgeError, BadRequest):  # a refusal must be cheap, too
        work()
    return meter.units


def test_meter_counts_the_copies_of_a_growing_value() -> None:
    """The meter tells the square from the line: a string, a tuple and a number that grow by an item at a time."""
    names: dict[str, Any] = {}
    for line in (
        "text += 'x'",
        "text = f'{text}x'",
        "items += ('x',)",
        "items = [*items, 'x']",
        "number = number << 40 | 1",
    ):
        source = f"def grow(size):\n    text, items, number = '', (), 1\n    for _ in range(size):\n        {line}"
        exec(compile(source, f"{SOURCE}/grow.py", "exec"), names)  # noqa: S102 - with the name of a file of a2wsgi's

        def part(size: int) -> Callable[[], object]:
            return lambda: names["grow"](size)

        assert cost(part, BIG) > 2 * MOST * cost(part, SMALL)


# -- Parts ------------------------------------------------------------------------------------------------------------


def scope(**make: Callable[[int], Any]) -> Part:
    """A scope whose members these make for a size, to be translated."""

    def part(size: int) -> Callable[[], object]:
        made = {**http_scope("POST"), **{key: of(size) for key, of in make.items()}}
        return lambda: environ_from_scope(made)

    return part


def headers(*names: bytes, value: bytes = b"0123456789") -> Part:
    """A scope with these headers, many times."""
    return scope(headers=lambda size: [(name, value) for _ in range(size // len(names)) for name in names])


def environ(make: Callable[[int], dict[str, Any]]) -> Part:
    """An environ with what this makes for a size, to be translated."""

    def part(size: int) -> Callable[[], object]:
        made = {**environ_of("POST"), **make(size)}
        return lambda: scope_from_environ(made)

    return part


def nested_scope(size: int) -> Callable[[], object]:
    """A scope that a bridge further in makes of the environ of one further out, with headers that come often."""
    pairs = [(b"x-a", b"1"), (b"X-B", b"2"), (b"x_c", b"3"), (b"cookie", b"a=1")] * (size // 4)
    inner = environ_from_scope({**http_scope("POST"), "headers": pairs})
    return lambda: scope_from_environ(inner)


def nested_environ(size: int) -> Callable[[], object]:
    """The same the other way round, with many headers."""
    made = scope_from_environ({**environ_of("POST"), **{f"HTTP_X_{n}": "1" for n in range(size)}})
    return lambda: environ_from_scope(made)


def in_root(root: str) -> Part:
    """A path of many segments that begins with a root of as many."""

    def part(size: int) -> Callable[[], object]:
        path = f"{root * size}/x" + "/y" * size
        made = {**http_scope(), "path": path, "raw_path": None, "root_path": root * size}
        template = EnvironTemplate(script_name=root * size, fixed=True)
        return lambda: (environ_from_scope(made), environ_from_scope(made, template))

    return part


def wsgi_head(status: Callable[[int], str], pairs: Callable[[int], list[tuple[str, str]]]) -> Part:
    """The head of a WSGI app."""
    return lambda size: lambda: response_head_from_wsgi(status(size), pairs(size))


def asgi_head(pairs: Callable[[int], list[tuple[bytes, bytes]]]) -> Part:
    """The head of an ASGI app."""
    return lambda size: lambda: response_head_from_asgi(200, pairs(size))


def der(tag: int, *members: bytes) -> bytes:
    """One value in DER, with its length in eight bytes, as it may be (X.690 §8.1.3.5)."""
    content = b"".join(members)
    return bytes([tag, 0x88]) + len(content).to_bytes(8, "big") + content


def certificate(subject: Callable[[int], bytes]) -> Part:
    """An environ with a client's certificate of this subject."""

    def part(size: int) -> Callable[[], object]:
        signed = der(0x30, *[der(0x30)] * 4, der(0x30, subject(size)))
        pem = pem_of(der(0x30, signed))
        return lambda: scope_from_environ({**environ_of(), "SSL_CLIENT_CERT": pem})

    return part


def name_part(type_of_it: bytes, value: bytes) -> bytes:
    """A part of a subject's name."""
    return der(0x31, der(0x30, der(0x06, type_of_it), der(0x0C, value)))


def tls_scope(size: int) -> Callable[[], object]:
    """A scope with a client's long chain of certificates."""
    scope = {**http_scope(), "extensions": {"tls": {"client_cert_chain": ["a certificate"] * size}}}
    return lambda: environ_from_scope(scope)


def process(size: int) -> Callable[[], object]:
    """An environ that the environment of the process is merged into."""
    variables = {f"HTTP_X_{number}": "1" for number in range(size)}
    return lambda: scope_from_environ({**environ_of(), **variables}, process_headers(variables))


PARTS: dict[str, Part] = {
    # A request, as ASGI servers hand it over
    "headers, all different": scope(headers=lambda size: [(b"x-%d" % n, b"0123456789") for n in range(size)]),
    "headers, all different and dropped": scope(
        headers=lambda size: [(b"x_%d" % n, b"0123456789") for n in range(size)]
    ),
    "headers, one repeated": headers(b"x-a"),
    "headers, one repeated and empty": headers(b"x-a", value=b""),
    "headers, two in turn": headers(b"x-a", b"x-b"),
    "headers, Cookie repeated": headers(b"cookie"),
    "headers, Content-Length repeated": headers(b"content-length", value=b"5"),
    "headers, Content-Length repeated, malformed": headers(b"content-length", value=b"x"),
    "headers, Content-Length, all different": scope(
        headers=lambda size: [(b"content-length", b"%d" % n) for n in range(size)]
    ),
    "headers, Content-Type repeated": headers(b"content-type"),
    "headers, Transfer-Encoding repeated": headers(b"transfer-encoding", b"content-length", value=b"5"),
    "headers, Host repeated": headers(b"host"),
    "headers, dropped, repeated": headers(b"x_a"),
    "headers, no token, repeated": headers(b"x a"),
    "headers, read once": scope(headers=lambda size: iter([(b"x-a", b"0123456789")] * size)),
    "headers, of bytearrays": scope(headers=lambda size: [(bytearray(b"x-a"), bytearray(b"0123456789"))] * size),
    "header, long name": scope(headers=lambda size: [(b"x" * 100 * size, b"1")]),
    "header, long value": scope(headers=lambda size: [(b"x-a", b"x" * 100 * size)]),
    "header, long value of spaces": scope(headers=lambda size: [(b"x-a", b"x" + b" " * 100 * size)]),
    "header, long Content-Length": scope(headers=lambda size: [(b"content-length", b"5" * 100 * size)]),
    "header, Content-Length, a long list": scope(headers=lambda size: [(b"content-length", b"5," * size + b"5")]),
    "header, long Cookie": scope(headers=lambda size: [(b"cookie", b"a=1; " * 20 * size)]),
    "header, long Host": scope(headers=lambda size: [(b"host", b"a.b" * 30 * size)], server=lambda _: None),
    "query": scope(query_string=lambda size: b"a=1&" * 20 * size),
    "method": scope(method=lambda size: "X" * 100 * size),
    "path, plain": scope(path=lambda size: "/a" * 50 * size, raw_path=lambda size: b"/a" * 50 * size),
    "path, quoted": scope(path=lambda size: "/a b" * 20 * size, raw_path=lambda size: b"/a%20b" * 20 * size),
    "path, quoted, rewritten": scope(path=lambda size: "/a b" * 20 * size, raw_path=lambda size: b"/c%20" * 20 * size),
    "path, not UTF-8": scope(path=lambda size: "/\ufffd" * 20 * size, raw_path=lambda size: b"/%FF" * 20 * size),
    "path, surrogates": scope(path=lambda size: "/\udcff" * 20 * size, raw_path=lambda _: None),
    "path, absolute": scope(path=lambda size: "http://h" + "/a" * 50 * size, raw_path=lambda _: None),
    "path, all percent": scope(
        path=lambda size: "/" + "%" * 100 * size, raw_path=lambda size: b"/" + b"%" * 100 * size
    ),
    "path, in a root": in_root("/a"),
    "path, in a root that is not ASCII": in_root("/\xe9"),
    "path, in a root of slashes": in_root("/"),
    "request, between two bridges": nested_scope,
    # A request, as WSGI servers hand it over
    "environ, headers": environ(lambda size: {f"HTTP_X_{n}": "0123456789" for n in range(size)}),
    "environ, keys that are no headers": environ(lambda size: {f"server.x_{n}": "0123456789" for n in range(size)}),
    "environ, headers that are no latin-1": environ(lambda size: {f"HTTP_X_{n}": "\u20ac" for n in range(size)}),
    "environ, header, long value": environ(lambda size: {"HTTP_X": "x" * 100 * size}),
    "environ, Content-Length, a long list": environ(lambda size: {"CONTENT_LENGTH": "5," * size + "5"}),
    "environ, Transfer-Encoding, a long list": environ(
        lambda size: {"CONTENT_LENGTH": "5", "HTTP_TRANSFER_ENCODING": "gzip," * size}
    ),
    "environ, query": environ(lambda size: {"QUERY_STRING": "a=1&" * 20 * size}),
    "environ, method": environ(lambda size: {"REQUEST_METHOD": "x" * 100 * size}),
    "environ, path": environ(lambda size: {"PATH_INFO": "/a b" * 20 * size}),
    "environ, path and target": environ(
        lambda size: {"PATH_INFO": "/a b" * 20 * size, "REQUEST_URI": "/a%20b" * 20 * size}
    ),
    "environ, path in a root": environ(
        lambda size: {"SCRIPT_NAME": "/r" * size, "PATH_INFO": "/a b" * size, "REQUEST_URI": "/a%20b" * size}
    ),
    "environ, absolute path": environ(lambda size: {"PATH_INFO": "a" * 100 * size + "://h/x"}),
    "environ, with that of the process": process,
    # What it says of TLS. The client chooses its certificate, which some servers take unverified.
    "certificate, long number": certificate(lambda size: name_part(b"\x2a" + b"\xff" * 100 * size + b"\x01", b"x")),
    "certificate, many numbers": certificate(lambda size: name_part(b"\x2a" + b"\x01" * size, b"x")),
    "certificate, long value": certificate(lambda size: name_part(b"\x55\x04\x03", b",\x01" * 50 * size)),
    "certificate, many parts": certificate(lambda size: name_part(b"\x55\x04\x03", b"x") * size),
    "certificate, many members": certificate(lambda size: b"\x30\x00" * size),
    "certificate, many beginnings": environ(
        lambda size: {"SSL_CLIENT_CERT": "-----BEGIN CERTIFICATE-----AA\n" * 10 * size}
    ),
    "certificates, a long chain": environ(
        lambda size: {
            "SSL_CLIENT_CERT": "a certificate",
            **{f"SSL_CLIENT_CERT_CHAIN_{number}": f"the issuer {number}" for number in range(size)},
        }
    ),
    "certificates, a long chain in a scope": tls_scope,
    "environ, between two bridges": nested_environ,
    # A response
    "WSGI head, all different": wsgi_head(
        lambda _: "200 OK", lambda size: [(f"X-{n}", "0123456789") for n in range(size)]
    ),
    "WSGI head, one repeated": wsgi_head(lambda _: "200 OK", lambda size: [("Set-Cookie", "a=0123456789")] * size),
    "WSGI head, hop-by-hop": wsgi_head(lambda _: "200 OK", lambda size: [("Connection", "x")] * size),
    "WSGI head, Content-Length repeated": wsgi_head(
        lambda _: "304 Same", lambda size: [("Content-Length", "5")] * size
    ),
    "WSGI head, long value": wsgi_head(lambda _: "200 OK", lambda size: [("X-A", "\xe9" * 100 * size)]),
    "WSGI head, long reason": wsgi_head(lambda size: "200 " + "O" * 100 * size, lambda _: []),
    "ASGI head, all different": asgi_head(lambda size: [(b"x-%d" % n, b"0123456789") for n in range(size)]),
    "ASGI head, one repeated": asgi_head(lambda size: [(b"set-cookie", b"a=0123456789")] * size),
    "ASGI head, hop-by-hop": asgi_head(lambda size: [(b"connection", b"x"), (b"upgrade", b"x")] * (size // 2)),
    "ASGI head, Content-Length repeated": asgi_head(lambda size: [(b"content-length", b"5")] * size),
    "ASGI head, long value": asgi_head(lambda size: [(b"x-a", b"\xe9" * 100 * size)]),
    "WSGI hint, many headers": lambda size: lambda: links_from_wsgi([("Link", "</a>"), ("X-A", "1")] * (size // 2)),
    "WSGI hint, long value": lambda size: lambda: links_from_wsgi([("Link", " " * 100 * size)]),
    "ASGI hint, many links": lambda size: lambda: hint_from_asgi([b"</a>"] * size),
    "Content-Length, many": lambda size: lambda: content_length([b"5"] * size),
}


@pytest.mark.parametrize("name", PARTS)
def test_cost_of_a_part_grows_with_its_size(name: str) -> None:
    """Four times as much of any part of a message costs four times as much, not sixteen times."""
    small, big = cost(PARTS[name], SMALL), cost(PARTS[name], BIG)
    assert big <= MOST * small, f"{name}: {small} for {SMALL}, {big} for {BIG}"


def test_body_that_comes_in_bits_is_one_message() -> None:
    """A stream may give a byte at a time, and end early: the app's ``receive()`` has them in one message, not many."""

    class Bits(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(1)

    body = RequestBody({**environ_of("POST"), "wsgi.input": Bits(b"x" * 100), "CONTENT_LENGTH": "200"})
    assert body.first() == [
        {"type": "http.request", "body": b"x" * 100, "more_body": True},
        {"type": "http.disconnect"},
    ]


# -- Caches -----------------------------------------------------------------------------------------------------------

CACHES = {
    name: value
    for module in (_headers, _names, _status)
    for name, value in vars(module).items()
    if isinstance(value, Cache)
}


@pytest.mark.parametrize("name", CACHES)
def test_cache_is_bounded(name: str) -> None:
    """Whoever chooses names or statuses cannot fill the memory: neither by many, nor by long ones."""
    cache: Any = CACHES[name]
    kind = bytes if isinstance(next(iter(cache), b"" if "ENVIRON" in name or "SPELLED" in name else ""), bytes) else str
    for number in range(2 * MAX_CACHED):
        text = f"{200 + number % 800} {number}" if "STATUS" in name else f"x-{number}"
        cache[text.encode() if kind is bytes else text]  # pyright: ignore[reportUnusedExpression]
        assert len(cache) <= MAX_CACHED
    before = len(cache)
    text = "200 " + "x" * 1000
    text = text if "STATUS" in name else text.replace(" ", "-")
    cache[text.encode() if kind is bytes else text]  # pyright: ignore[reportUnusedExpression]
    assert len(cache) == before


# -- Regular expressions ----------------------------------------------------------------------------------------------

if sys.version_info >= (3, 11):
    _constants: Any = re._constants  # type: ignore[attr-defined]
    _parser: Any = re._parser  # type: ignore[attr-defined]
else:
    import sre_constants as _constants
    import sre_parse as _parser


def modules() -> Iterator[ModuleType]:
    """Each module of a2wsgi, but for those of the command, which reads its own user's files."""
    for info in pkgutil.walk_packages(a2wsgi.__path__, "a2wsgi."):
        if info.name != "a2wsgi.__main__" and not info.name.startswith("a2wsgi._cli"):
            yield importlib.import_module(info.name)


REGEXES = {
    f"{module.__name__}.{name}": value
    for module in modules()
    for name, value in vars(module).items()
    if isinstance(value, re.Pattern)
}


def test_all_regexes_are_known() -> None:
    """Each regular expression of the package is a constant of a module: `test_regex_is_linear` sees them all."""
    paths = [path for path in Path(SOURCE).rglob("*.py") if path.parent.name != "_cli"]
    compiled = sum(path.read_text("utf-8").count("re.compile(") for path in paths)
    assert len({(regex.pattern, regex.flags) for regex in REGEXES.values()}) == compiled
    others = re.compile(r"\bre\.(?!compile\b|DOTALL\b|Pattern\b)\w+\(")
    assert [path.name for path in paths if others.search(path.read_text("utf-8"))] == []


@pytest.mark.parametrize("name", REGEXES)
def test_regex_is_linear(name: str) -> None:
    """No regular expression goes back and forth over a long input: each repeat in it can end at one character only.

    That is so where no repeat stands in another, and what follows a repeat, up to the next one, begins with a character
    that cannot be in the repeat. A pattern that is looked for anywhere has no repeat at all.
    """
    tree: Any = _parser.parse(REGEXES[name].pattern, REGEXES[name].flags)
    for sequence in sequences(list(tree)):
        repeats = [place for place, item in enumerate(sequence) if is_endless(item)]
        for place in repeats:
            (inner,) = sequence[place][1][2]
            assert not any(is_endless(item) for item in flat([inner])), "a repeat in a repeat"
        for first, second in pairwise(repeats):
            assert second > first + 1, "two repeats in a row"
            assert not characters(sequence[first]) & characters(sequence[first + 1]), "it can end in two places"
    if name in SEARCHED:
        assert not any(is_endless(item) for item in flat(list(tree)))


#: Those that are used with ``search()``.
SEARCHED = {f"a2wsgi._protocol.{name}.FORBIDDEN" for name in ("headers", "status")}


def is_endless(item: Any) -> bool:
    """Whether this part of a pattern repeats without a small bound."""
    return item[0] in {_constants.MAX_REPEAT, _constants.MIN_REPEAT} and item[1][1] > 100


def flat(items: list[Any]) -> list[Any]:
    """The parts of a pattern, with groups and optional parts taken apart; without what stands in a branch."""
    result = []
    for item in items:
        kind, value = item
        if kind is _constants.SUBPATTERN:
            result += flat(list(value[3]))
        elif kind in {_constants.MAX_REPEAT, _constants.MIN_REPEAT} and not is_endless(item):
            result += flat(list(value[2]))
        else:
            result.append(item)
    return result


def sequences(items: list[Any]) -> list[list[Any]]:
    """Each way through a pattern, in the order in which it is matched."""
    ways: list[list[Any]] = [[]]
    for item in flat(items):
        if item[0] is _constants.BRANCH:
            branches = [way for branch in item[1][1] for way in sequences(list(branch))]
            ways = [[*way, *branch] for way in ways for branch in branches]
        else:
            ways = [[*way, item] for way in ways]
    return ways


def characters(item: Any) -> set[int]:
    """Which bytes a part of a pattern can begin with."""
    kind, value = item
    if kind in {_constants.MAX_REPEAT, _constants.MIN_REPEAT}:
        return characters(value[2][0])
    if kind is _constants.LITERAL:
        return {value}
    if kind is _constants.ANY:
        return set(range(256))
    assert kind is _constants.IN
    chosen: set[int] = set()
    for what, of in value:
        if what is _constants.LITERAL:
            chosen.add(of)
        elif what is _constants.RANGE:
            chosen |= set(range(of[0], of[1] + 1))
        elif what is _constants.CATEGORY:
            chosen |= {ord(" "), *range(9, 14)}  # \s, the only one in use
    return set(range(256)) - chosen if value[0][0] is _constants.NEGATE else chosen


#: Long inputs that a regular expression of ours could stumble over, most of them just not matched.
ADVERSARIAL = [
    text * (1 << 18)
    for text in ("a", "1", " ", "\t", "/", ":", "[", "%", "\n", "-", "a:", "a/", "http:", ":1", "\xe9", "a ", "200 ")
]


@pytest.mark.parametrize("name", REGEXES)
def test_regex_ends_on_long_input(name: str) -> None:
    """Hundreds of thousands of characters, in one pass: in as many passes the test would not end."""
    regex: Any = REGEXES[name]
    for text in ADVERSARIAL:
        for given in (text, f"{text}\0", f"a{text}", f"[{text}]", f"200 {text}\n"):
            text_or_bytes = given.encode("latin-1") if isinstance(regex.pattern, bytes) else given
            regex.match(text_or_bytes)
            regex.fullmatch(text_or_bytes)
            if name in SEARCHED:
                regex.search(text_or_bytes)
