"""What is asked of a server, and what has to come: the kinds of requests, of which each thread draws at random."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bodies import body_of, receipt
from client import BrokenError, Connection, HangError, Response, WrongError

Direction = Literal["wsgi", "asgi"]
Traffic = Literal["http", "websocket"]


@dataclass(frozen=True)
class Kind:
    """A kind of request.

    Attributes:
        name: As the table has it.
        direction: Which app it is for; both if None.
        weight: How often it is drawn, next to the others of its speed.
        slow: Whether it waits on purpose; such are drawn by threads of their own.
        does: What sends it and checks the answer. True if the connection may be used again.
        traffic: What it is a part of.
    """

    name: str
    direction: Direction | None
    weight: int
    slow: bool
    does: Callable[[Client], bool]
    traffic: Traffic


KINDS: list[Kind] = []


def kind(
    weight: int, direction: Direction | None = None, *, slow: bool = False, traffic: Traffic = "http"
) -> Callable[[Callable[[Client], bool]], Callable[[Client], bool]]:
    """Note a kind of request."""

    def note(does: Callable[[Client], bool]) -> Callable[[Client], bool]:
        KINDS.append(Kind(does.__name__.strip("_"), direction, weight, slow, does, traffic))
        return does

    return note


@dataclass
class Target:
    """The server, as clients see it, and what they have seen so far.

    Attributes:
        port: Where it listens.
        direction: Which app it serves.
        prefixes: Of its bridges.
        seed: Of all that is drawn.
        without: Kinds, and errors of apps, that are left out.
        budget: How many requests are sent at most.
        rest: For how many seconds a slow client rests after each request.
        traffic: What is sent.
        stop: Set when no more is to be sent.
    """

    port: int
    direction: Direction
    prefixes: Sequence[str]
    seed: int
    without: frozenset[str]
    budget: int
    rest: float
    traffic: Traffic = "http"
    stop: threading.Event = field(default_factory=threading.Event)
    done: Counter[str] = field(default_factory=Counter)
    took: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    failures: list[str] = field(default_factory=list)
    hangs: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, text: str) -> None:
        """Note a failure; after a dozen nothing more is to be learned."""
        with self.lock:
            self.failures.append(text)
            if len(self.failures) >= 12:
                self.stop.set()

    def total(self) -> int:
        """How many requests are done."""
        return sum(self.done.values())


class Client(threading.Thread):
    """Sends requests, one after the other, on connections that it keeps as long as it can.

    Args:
        target: Whom to send them to.
        number: Of this client.
        slow: Whether it draws the kinds that wait.
    """

    def __init__(self, target: Target, number: int, *, slow: bool) -> None:
        super().__init__(name=f"soak-client-{number}", daemon=True)
        self.target = target
        self.number = number
        self.chance = random.Random(f"{target.seed}-{number}")
        self.count = 0
        self._slow = slow
        self.identity = self.asked = ""
        self.connection: Connection | None = None
        self._kinds = [
            kind
            for kind in KINDS
            if kind.direction in {None, target.direction}
            and (kind.slow, kind.traffic) == (slow, target.traffic)
            and kind.name not in target.without
        ]
        self._weights = [kind.weight for kind in self._kinds]

    def run(self) -> None:
        """Send requests until told to stop."""
        while not self.target.stop.is_set():
            self.one(self.chance.choices(self._kinds, self._weights)[0])
            if self._slow:
                self.target.stop.wait(self.target.rest)
        self.hang_up()

    def one(self, kind: Kind) -> None:
        """Send one, and note what was wrong with its answer."""
        target = self.target
        self.count += 1
        self.identity = f"{target.seed}-{self.number}-{self.count}"
        keep = False
        began = time.monotonic()
        try:
            keep = kind.does(self)
        except (BrokenError, WrongError, HangError) as error:
            target.fail(f"{kind.name} {self.asked} {self.identity}: {type(error).__name__}: {error}")
            target.hangs += isinstance(error, HangError)
        except Exception:
            target.fail(f"{kind.name} {self.asked} {self.identity}: the client failed\n{traceback.format_exc()}")
        if not keep:
            self.hang_up()
        with target.lock:
            target.done[kind.name] += 1
            target.took[kind.name] += time.monotonic() - began
            if target.total() >= target.budget:
                target.stop.set()

    # -- what the kinds are made of -----------------------------------------------------------------------------------

    def connect(self, *, fresh: bool = False, receive_buffer: int | None = None) -> Connection:
        """The connection that there is, or another."""
        if fresh or receive_buffer is not None:
            self.hang_up()
        if self.connection is None:
            self.connection = Connection(self.target.port, receive_buffer=receive_buffer)
        self.connection.begin()
        return self.connection

    def hang_up(self, *, reset: bool = False) -> None:
        """Close the connection."""
        if self.connection is not None:
            self.connection.close(reset=reset)
            self.connection = None

    def head(self, method: str, path: str, *headers: str, **query: object) -> bytes:
        """What a request begins with."""
        prefix = self.chance.choice(self.target.prefixes)
        parts = "&".join(f"{name}={value}" for name, value in {"id": self.identity, **query}.items())
        self.asked = f"{method} {prefix}/{path}?{parts}"
        lines = [f"{method} {prefix}/{path}?{parts} HTTP/1.1", "Host: localhost", *headers, "", ""]
        return "\r\n".join(lines).encode()

    def exchange(self, method: str, data: bytes, *, fresh: bool = False, pause: float = 0.0) -> Response:
        """Send a request whole and take its response.

        A connection that was kept may have been closed by the server meanwhile, with our request on its way (RFC 9112
        §9.3.1): then, and only then, the request is sent once more.
        """
        connection = self.connect(fresh=fresh)
        used, connection.used = connection.used, connection.used + 1
        try:
            connection.send(data)
            return connection.response(method, pause=pause)
        except BrokenError as error:
            if not used or error.response is not None or fresh:
                raise
        self.target.retried += 1
        self.hang_up()
        return self.exchange(method, data)

    def length(self) -> int:
        """How long a body is to be: mostly short, at times longer than any buffer on the way."""
        chance = self.chance
        return chance.choice(
            (0, 1, 100, 1000, 5000, 70_000 if chance.random() < 0.3 else 300, chance.randrange(20_000))
        )

    def check(self, response: Response, body: bytes, status: int = 200) -> bool:
        """Hold a whole response against what it has to be."""
        if response.status != status:
            raise WrongError(f"status {response.status}, not {status}: {response.body[:200]!r}")
        if response.body != body:
            raise WrongError(
                f"a body of {len(response.body)} bytes, not of {len(body)}: {_difference(response.body, body)}"
            )
        # What follows on a connection that is to be closed is nobody's: gunicorn's sync worker writes a 500 where
        # ``close()`` raises what is no `Exception`.
        if response.keeps and self.connection is not None and self.connection.has_leftovers():
            raise WrongError("more comes than the response")
        return response.keeps

    def get(self, path: str, **query: object) -> bool:
        """A good GET, answered with the request's own body."""
        length = self.length()
        # Few chunks are enough: a server spends more on each than a bridge does.
        size = max(1, length // self.chance.randrange(1, 12))
        data = self.head("GET", path, n=length, k=size, **query)
        return self.check(self.exchange("GET", data), body_of(self.identity, length))

    def fails_before(self, path: str, **query: object) -> bool:
        """A request whose app fails before its head: 500, and no byte of the app's."""
        try:
            response = self.exchange("GET", self.head("GET", path, **query), fresh=True)
        except BrokenError as error:
            if error.response is not None:
                raise
            return False  # a server may hang up instead (uvicorn does so at what is no Exception)
        if response.status != 500:
            raise WrongError(f"status {response.status}, not 500: {response.body[:200]!r}")
        return False

    def fails_after(self, path: str, **query: object) -> bool:
        """A request whose app fails after its head: the beginning of its body comes, and shows that it broke."""
        length = self.chance.choice((1, 1000, 30_000))
        data = self.head("GET", path, n=length, k=max(1, length // 3), **query)
        try:
            response = self.exchange("GET", data, fresh=True)
        except BrokenError as error:
            if error.response is not None and not body_of(self.identity, length).startswith(error.response.body):
                raise WrongError("what came before the end is of another body") from None
            return False
        if response.status == 500 or ("content-length" not in response.headers and not response.keeps):
            return False  # the head had not left; or the end of the connection is all that shows
        raise WrongError(
            f"a response that failed looks whole: {response.status}, {len(response.body)} bytes of {length}"
        )

    def error(self) -> str:
        """An error for the app to raise."""
        return self.chance.choice([name for name in ERRORS if name not in self.target.without])


#: `SystemExit` and `KeyboardInterrupt` are not among them: WSGI servers end at those, as they should.
ERRORS = ("plain", "unprintable", "unprintable-base", "base", "os", "stop", "stop-async", "generator-exit", "cancelled")


def _difference(got: bytes, wanted: bytes) -> str:
    at = next((at for at, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted)))
    return f"they differ at {at}: {got[at : at + 40]!r}, not {wanted[at : at + 40]!r}"


# -- Good ones --------------------------------------------------------------------------------------------------------


@kind(30)
def whole(client: Client) -> bool:
    return client.get("whole")


@kind(12)
def stream(client: Client) -> bool:
    return client.get("stream")


@kind(6)
def sized(client: Client) -> bool:
    return client.get("sized")


@kind(6, "wsgi")
def write(client: Client) -> bool:
    return client.get("write")


@kind(3, "wsgi")
def replaced_head(client: Client) -> bool:
    return client.get("replaced_head")


@kind(1)
def hop_by_hop(client: Client) -> bool:
    client.get("hop_by_hop")
    return False


@kind(4)
def empty(client: Client) -> bool:
    return client.check(client.exchange("GET", client.head("GET", "empty")), b"", 204)


@kind(6)
def head(client: Client) -> bool:
    path = client.chance.choice(("whole", "stream", "sized"))
    response = client.exchange("HEAD", client.head("HEAD", path, n=client.length()))
    return client.check(response, b"")


@kind(4)
def slow(client: Client) -> bool:
    return client.get("slow")


@kind(12)
def upload(client: Client) -> bool:
    data = body_of(client.identity + "-up", client.length())
    request = client.head(
        "POST", "upload", f"Content-Length: {len(data)}", k=client.chance.choice((100, 5000, 100_000))
    )
    return client.check(
        client.exchange("POST", request + data), receipt(client.identity, hashlib.sha256(data).hexdigest())
    )


@kind(2, "wsgi")
def upload_by_lines(client: Client) -> bool:
    data = body_of(client.identity + "-up", client.length())
    request = client.head("POST", "upload_by_lines", f"Content-Length: {len(data)}")
    return client.check(
        client.exchange("POST", request + data), receipt(client.identity, hashlib.sha256(data).hexdigest())
    )


@kind(6)
def upload_chunked(client: Client) -> bool:
    data = body_of(client.identity + "-up", client.length())
    request = [client.head("POST", "upload", "Transfer-Encoding: chunked", k=5000)]
    step = max(1, len(data) // client.chance.randrange(1, 8))
    for start in range(0, len(data), step):
        chunk = data[start : start + step]
        request.append(b"%x\r\n%b\r\n" % (len(chunk), chunk))
    request.append(b"0\r\n\r\n")
    response = client.exchange("POST", b"".join(request))
    return client.check(response, receipt(client.identity, hashlib.sha256(data).hexdigest()))


@kind(4)
def echo(client: Client) -> bool:
    data = body_of(client.identity + "-up", client.chance.randrange(20_000))
    request = client.head("POST", "echo", f"Content-Length: {len(data)}", k=3000)
    return client.check(client.exchange("POST", request + data), data)


@kind(2)
def upload_unread(client: Client) -> bool:
    """An app that reads nothing of a body; a server may then close the connection, at any point."""
    data = body_of(client.identity + "-up", client.chance.choice((10, 3000, 100_000)))
    request = client.head("POST", "whole", f"Content-Length: {len(data)}", n=500)
    with contextlib.suppress(BrokenError):
        client.check(client.exchange("POST", request + data, fresh=True), body_of(client.identity, 500))
    return False


def _complete(client: Client, path: str, **query: object) -> bool:
    """An app that fails when its response is complete: all of the body comes.

    Of the end of a chunked one no more is asked: a server that closes the response before it ends it (waitress,
    cheroot) leaves that out where ``close()`` raises; and the head too, if there is no body.
    """
    length = client.length() + 1
    data = client.head("GET", path, n=length, k=max(1, length // 3), **query)
    body = body_of(client.identity, length)
    try:
        client.check(client.exchange("GET", data, fresh=True), body)
    except BrokenError as error:
        if error.response is None or error.response.body != body:
            raise
    return False


@kind(2, "asgi")
def watched(client: Client) -> bool:
    return client.get("watched")


@kind(3, "asgi")
def background(client: Client) -> bool:
    return client.get("background")


@kind(1, "asgi")
def background_long(client: Client) -> bool:
    client.get("background_long")
    return False


@kind(2, "asgi")
def background_raises(client: Client) -> bool:
    path = client.chance.choice(("background_raises", "background_stream_raises"))
    return _complete(client, path, error=client.error())


@kind(3)
def late_calls(client: Client) -> bool:
    return client.get("late_calls")


@kind(2, "wsgi")
def raise_close(client: Client) -> bool:
    """The client has its whole response by then; but an error of `close` may reach the server, which hangs up."""
    return _complete(client, "raise_close", error=client.error())


# -- Bad apps ---------------------------------------------------------------------------------------------------------


@kind(4, "wsgi")
def raise_before(client: Client) -> bool:
    path = client.chance.choice(("raise_before", "raise_before_after_start"))
    return client.fails_before(path, error=client.error())


@kind(4, "asgi")
def raise_before_(client: Client) -> bool:
    return client.fails_before(client.chance.choice(("raise_before", "raise_before_later")), error=client.error())


@kind(4, "wsgi")
def raise_after(client: Client) -> bool:
    path = client.chance.choice(("raise_after", "raise_replaced"))
    return client.fails_after(path, error=client.error())


@kind(4, "asgi")
def raise_after_(client: Client) -> bool:
    return client.fails_after("raise_after", error=client.error())


@kind(2, "asgi")
def child_raises(client: Client) -> bool:
    return client.fails_before("child_raises")


@kind(2, "asgi")
def cancel_self(client: Client) -> bool:
    return client.fails_before("cancel_self")


@kind(2, "asgi")
def cancel_self_after(client: Client) -> bool:
    return client.fails_after("cancel_self_after")


@kind(3, "wsgi")
def breaks_wsgi(client: Client) -> bool:
    faults = ("no_head", "no_iterable", "text", "second_head", "bad_header")
    return client.fails_before(client.chance.choice(faults))


@kind(3, "asgi")
def breaks_asgi(client: Client) -> bool:
    faults = (
        "nothing",
        "head_only",
        "body_first",
        "second_head",
        "unknown_message",
        "no_message",
        "text",
        "bad_header",
    )
    path = client.chance.choice(faults)
    if path in {"head_only", "text", "second_head"}:
        return client.fails_after(path)
    return client.fails_before(path)


@kind(1)
def informational(client: Client) -> bool:
    """A status below 200 as the final one. The next response would be taken for this request's."""
    return client.fails_before("informational")


@kind(2, "asgi")
def unfinished(client: Client) -> bool:
    return client.fails_after("unfinished")


@kind(2)
def too_short(client: Client) -> bool:
    return client.fails_after("too_short")


@kind(2)
def too_long(client: Client) -> bool:
    client.get("too_long")
    return False


# -- Servers that give up ---------------------------------------------------------------------------------------------


def _whatever(client: Client, data: bytes, length: int) -> bool:
    """The server ends it anywhere: what came is the beginning of the request's own body, or an error page."""
    try:
        response: Response | None = client.exchange("GET", data, fresh=True)
    except BrokenError as error:
        response = error.response
    if (
        response is not None
        and response.status == 200
        and not body_of(client.identity, length).startswith(response.body)
    ):
        raise WrongError("what came before the end is of another body")
    return False


@kind(4, "wsgi")
def cancelled(client: Client) -> bool:
    path = client.chance.choice(("slow", "stream", "whole", "patient", "raise_after"))
    after = client.chance.choice((0, 0.0001, 0.001, 0.01))
    return _whatever(client, client.head("GET", path, n=30_000, k=2000, cancel=after), 30_000)


@kind(3, "wsgi")
def send_raises(client: Client) -> bool:
    path = client.chance.choice(("slow", "stream", "whole", "write", "raise_after"))
    number = client.chance.randrange(1, 5)
    return _whatever(client, client.head("GET", path, n=200_000, k=20_000, send_raises=number), 200_000)


@kind(2, "wsgi")
def receive_raises(client: Client) -> bool:
    data = body_of(client.identity, 3000)
    number = client.chance.randrange(1, 3)
    length = f"Content-Length: {len(data)}"
    request = client.head("POST", "upload", length, receive_raises=number, raised=client.error())
    with contextlib.suppress(BrokenError):
        client.exchange("POST", request + data, fresh=True)
    return False


@kind(3, "asgi")
def closed_early(client: Client) -> bool:
    path = client.chance.choice(("slow", "stream", "whole", "watched", "patient", "background", "raise_after"))
    number = client.chance.randrange(4)
    return _whatever(client, client.head("GET", path, n=200_000, k=20_000, close_after=number), 200_000)


# -- Rude clients -----------------------------------------------------------------------------------------------------


def _leave(client: Client) -> bool:
    """Close or reset, at random."""
    client.hang_up(reset=client.chance.random() < 0.5)
    return False


@kind(3)
def abort_in_head(client: Client) -> bool:
    data = client.head("GET", "whole")
    client.connect(fresh=True).send(data[: client.chance.randrange(1, len(data))])
    return _leave(client)


@kind(5)
def abort_in_upload(client: Client) -> bool:
    data = body_of(client.identity, client.chance.choice((1000, 100_000)))
    path = client.chance.choice(("upload", "echo"))
    if client.chance.random() < 0.3:
        request = client.head("POST", path, "Transfer-Encoding: chunked") + b"%x\r\n" % len(data)
    else:
        request = client.head("POST", path, f"Content-Length: {len(data)}")
    connection = client.connect(fresh=True)
    with contextlib.suppress(BrokenError):
        connection.send(request + data[: client.chance.randrange(len(data))])
    return _leave(client)


@kind(5)
def abort_in_download(client: Client) -> bool:
    path = client.chance.choice(("stream", "sized", "slow", "whole"))
    connection = client.connect(fresh=True)
    with contextlib.suppress(BrokenError):
        connection.send(client.head("GET", path, n=400_000, k=40_000))
        connection.read_some(client.chance.choice((1, 5000, 100_000)))
    return _leave(client)


@kind(5)
def abort_before_answer(client: Client) -> bool:
    path = client.chance.choice(("slow", "patient", "whole", "raise_before"))
    client.connect(fresh=True).send(client.head("GET", path, n=1000))
    return _leave(client)


@kind(5, slow=True)
def slow_sender(client: Client) -> bool:
    data = body_of(client.identity + "-up", client.chance.choice((100, 90_000)))
    connection = client.connect(fresh=True)
    request = client.head("POST", "upload", f"Content-Length: {len(data)}") + data
    cuts = sorted(client.chance.randrange(len(request)) for _ in range(4))
    for start, end in zip([0, *cuts], [*cuts, len(request)], strict=True):
        connection.send(request[start:end])
        time.sleep(client.chance.random() * 0.1)
    return client.check(connection.response("POST"), receipt(client.identity, hashlib.sha256(data).hexdigest()))


@kind(5, slow=True)
def slow_reader(client: Client) -> bool:
    length = 300_000
    path = client.chance.choice(("stream", "sized"))
    connection = client.connect(receive_buffer=4096)
    connection.send(client.head("GET", path, n=length, k=client.chance.choice((3000, 100_000))))
    client.check(connection.response("GET", pause=0.003), body_of(client.identity, length))
    return False


@kind(3, slow=True)
def stalled_upload(client: Client) -> bool:
    data = body_of(client.identity, 90_000)
    connection = client.connect(fresh=True)
    connection.send(
        client.head("POST", "upload", f"Content-Length: {len(data)}") + data[: client.chance.choice((0, 10, 80_000))]
    )
    time.sleep(client.chance.random() * 0.5)
    return _leave(client)


@kind(3, slow=True)
def stalled_download(client: Client) -> bool:
    connection = client.connect(receive_buffer=4096)
    path = client.chance.choice(("stream", "whole", "slow"))
    connection.send(client.head("GET", path, n=2_000_000, k=100_000))
    time.sleep(client.chance.random() * 0.5)
    return _leave(client)


@kind(2, slow=True)
def waits_for_100(client: Client) -> bool:
    """A client that says ``Expect: 100-continue`` and goes on a moment later in any case (RFC 9110 §10.1.1)."""
    data = body_of(client.identity + "-up", 2000)
    connection = client.connect(fresh=True)
    connection.send(client.head("POST", "upload", f"Content-Length: {len(data)}", "Expect: 100-continue"))
    time.sleep(client.chance.random() * 0.05)
    if client.chance.random() < 0.2:
        return _leave(client)
    connection.send(data)
    client.check(connection.response("POST"), receipt(client.identity, hashlib.sha256(data).hexdigest()))
    return False
