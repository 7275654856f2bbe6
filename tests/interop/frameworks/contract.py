"""What the app of every framework does in the tests, and how a client sees it: the same for all of them.

Each framework has a small app with these routes, made in its own way: its links, its sessions, its forms, its hooks.

==========================  ============================================================================================
``GET /``                   ``index``, as text
``GET /hello``              ``Hello, world!``, as text; it notes ``view``
``GET /items/<name>``       ``{"item": name}``
``GET /links``              ``{"path": …, "url": …}``: the link to the item `ITEM`, without and with scheme and host
``GET /redirect``           a redirect to ``/hello``
``GET /folder/``            ``folder``, as text; ``/folder`` is redirected there by the framework itself
``POST /login``             keeps the form's ``name`` in the session, and redirects with 303 to ``/whoami``
``GET /whoami``             ``{"name": …}`` from the session, null without one
``GET /cookies``            the cookies that came, as an object; sets ``first=1`` and ``second=2``
``GET /query``              the query's parameters, as an object of lists
``POST /upload``            takes a form of two parts, ``title`` and ``file``:
                            ``{"title": …, "filename": …, "length": …, "sha256": …}``
``POST /body``              reads the body piece by piece: ``{"length": …, "sha256": …}``
``GET /steps/<name>``       sends ``one ``, waits until somebody does the next, sends ``two``
``POST /steps/<name>/go``   lets it
``GET /endless/<name>``     sends pieces for as long as somebody takes them; then it notes ``ended`` for `name`
``GET /fails``              ``ValueError``, from a view
``GET /breaks``             sends ``one``, then ``ValueError``
``GET /isolated/<name>``    keeps `name` in what belongs to a request, or to its thread or task, waits until as many
                            have come as the query's ``party`` says, and tells what was there before and is there after:
                            ``{"before": {what: …}, "after": {what: …}}``
``GET /events/<name>``      what was noted for `name`, as a list
==========================  ============================================================================================

Handlers of the app's own make the error pages: ``our 404``, ``our 405``, ``our 500: ValueError``, as text.

The framework's hooks note what they are (``before``, ``after``, ``teardown``, …) for the request whose query has an
``id``, under that name, in `interop.frameworks.notes`; those without one they pass by.

A test file that imports this has pytest rewrite its assertions first, or they would fail without a word.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import random
import ssl
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from interop.client import BrokenError, Client, closing_all
from support.servers import Server, until

SECONDS = 15.0

ITEM = "blåbær tea"
LARGE = random.Random(7).randbytes(1_500_000)

#: Made once, as it takes longer than most of the checks; nothing here speaks TLS.
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

#: How many requests are made at once where it is shown that they do not mix.
CROWD = 100


@dataclass(frozen=True)
class Framework:
    """A framework, and what may be asked of its app.

    Attributes:
        packages: What must be importable.
        hooks: What its hooks note for a request that is answered, in their order.
        hooks_of_failure: The same for a request whose view fails.
        hooks_of_stream: The same for a stream; the end of the stream is noted as ``ended``, in no order that is said.
        leaves_streams: Whether it leaves the generator of a stream that nobody takes any more to the garbage collector.
        cannot: The checks that it cannot pass, each with the reason. They are run, and have to fail.
        cannot_be_moved: Why its app does not find its pages where a request tells it that it is mounted, if that is so.
    """

    packages: Sequence[str]
    hooks: Sequence[str] = ("before", "view", "after", "teardown")
    hooks_of_failure: Sequence[str] = ("before", "after", "teardown")
    hooks_of_stream: Sequence[str] = ("before", "after", "ended", "teardown")
    leaves_streams: bool = False
    cannot: Mapping[str, str] = field(default_factory=dict[str, str])
    cannot_be_moved: str = ""

    def missing(self) -> str | None:
        """What must be installed before it can run."""
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                return f"{package} is not installed"
        return None


@dataclass(frozen=True)
class Site:
    """An app of a framework on a server that runs.

    Attributes:
        prefix: Where it is mounted; empty at the root.
        at_once: How many requests the server runs at a time, if fewer than ten.
        patience: For how many seconds it is waited for what the app notes, at most.
    """

    framework: Framework
    server: Server
    prefix: str = ""
    at_once: int = 10
    patience: float = 5.0

    def browser(self) -> httpx.Client:
        """A client that keeps cookies. Its paths are those past the prefix."""
        url = f"http://127.0.0.1:{self.server.port}{self.prefix}"
        return httpx.Client(base_url=url, timeout=SECONDS, verify=TLS, trust_env=False)

    def client(self) -> Client:
        """A connection. Its paths are whole ones."""
        return Client(self.server.port)

    def until_events(self, name: str, expected: Sequence[str], *, ordered: bool = True) -> None:
        """Wait until exactly this was noted for ``name``; teardown may come after the client has its response."""
        seen: list[str] = []

        def same() -> bool:
            if self.framework.leaves_streams:
                browser.get(browser.base_url.join("/collect"))
            seen[:] = browser.get(f"/events/{name}").json()
            return seen == list(expected) if ordered else Counter(seen) == Counter(expected)

        with self.browser() as browser:
            try:
                until(same, f"noted is {list(expected)}", self.patience)
            except TimeoutError as error:
                raise AssertionError(f"noted was {seen}") from error


Check = Callable[[Site], None]

#: All of them, by name.
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    """Have it be one of `CHECKS`."""
    CHECKS[function.__name__] = function
    return function


def new_name() -> str:
    """A name that nobody else uses."""
    return uuid.uuid4().hex


def summary(data: bytes) -> dict[str, object]:
    """What an app tells of data that it got."""
    return {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}


# -- Paths and links ----------------------------------------------------------------------------------------------


@check
def pages_are_found(site: Site) -> None:
    """Where the app is mounted, its routes begin."""
    with site.browser() as browser:
        index, hello = browser.get("/"), browser.get("/hello")
    assert (index.status_code, index.text) == (200, "index")
    assert (hello.status_code, hello.text) == (200, "Hello, world!")
    assert hello.headers["content-type"].startswith("text/plain")


@check
def head_is_get_without_a_body(site: Site) -> None:
    """RFC 9110 §9.3.2: the fields are those of GET; one that depends on the body may be left away."""
    with site.client() as client:
        head, get = client.request("HEAD", f"{site.prefix}/hello"), client.get(f"{site.prefix}/hello")
    assert (head.status, head.body) == (200, b"")
    assert head["content-type"] == get["content-type"]
    assert head.all("content-length") in ([], get.all("content-length"))


@check
def links_lead_back(site: Site) -> None:
    """What the framework makes of a route's name is under the prefix, and is found when it is followed."""
    with site.browser() as browser:
        links = browser.get("/links").json()
        assert httpx.URL(links["path"]).path == f"{site.prefix}/items/{ITEM}"
        assert httpx.URL(links["url"]) == browser.base_url.join(links["path"])
        for link in links.values():
            assert browser.get(browser.base_url.join(link)).json() == {"item": ITEM}


@check
def redirect_stays_under_the_prefix(site: Site) -> None:
    """So does what the framework redirects to."""
    with site.browser() as browser:
        redirect = browser.get("/redirect")
        assert redirect.status_code in {302, 303, 307}
        assert redirect.next_request is not None
        assert redirect.next_request.url == browser.base_url.join(f"{site.prefix}/hello")
        assert browser.send(redirect.next_request).text == "Hello, world!"


@check
def missing_slash_is_added(site: Site) -> None:
    """A framework that redirects to the path with a slash at its end keeps the prefix."""
    with site.browser() as browser:
        redirect = browser.get("/folder")
        assert redirect.is_redirect
        assert urlsplit(str(redirect.next_request and redirect.next_request.url)).path == f"{site.prefix}/folder/"
        assert browser.get("/folder", follow_redirects=True).text == "folder"


@check
def query_arrives(site: Site) -> None:
    """Repeated parameters are kept, in UTF-8."""
    with site.browser() as browser:
        assert browser.get("/query?a=1&a=2&b=%C3%A6+%26").json() == {"a": ["1", "2"], "b": ["æ &"]}


# -- Sessions and cookies -----------------------------------------------------------------------------------------


@check
def session_is_kept(site: Site) -> None:
    """A browser that has logged in is known, and another is not."""
    with site.browser() as browser, site.browser() as other:
        assert browser.get("/whoami").json() == {"name": None}
        response = browser.post("/login", data={"name": "Zoë"})
        assert response.status_code == 303
        assert response.next_request is not None
        assert response.next_request.url == browser.base_url.join(f"{site.prefix}/whoami")
        assert browser.send(response.next_request).json() == {"name": "Zoë"}
        assert browser.get("/whoami").json() == {"name": "Zoë"}
        assert other.get("/whoami").json() == {"name": None}


@check
def cookies_go_both_ways(site: Site) -> None:
    """Two are set, each in a field of its own, and come back in one."""
    with site.browser() as browser:
        first = browser.get("/cookies")
        assert not {"first", "second"} & set(first.json())
        assert {"first", "second"} <= {line.split("=")[0] for line in first.headers.get_list("set-cookie")}
        assert browser.get("/cookies").json().items() >= {("first", "1"), ("second", "2")}


# -- Bodies -------------------------------------------------------------------------------------------------------


@check
def form_with_a_file_arrives(site: Site) -> None:
    """A file of 1.5 MB, and a field besides."""
    with site.browser() as browser:
        response = browser.post("/upload", data={"title": "tëst"}, files={"file": ("large.bin", LARGE)})
    assert response.json() == {"title": "tëst", "filename": "large.bin", **summary(LARGE)}


@check
def body_arrives(site: Site) -> None:
    """1.5 MB of a length that is said."""
    with site.client() as client:
        assert client.request("POST", f"{site.prefix}/body", body=LARGE).json() == summary(LARGE)


@check
def small_chunked_body_arrives(site: Site) -> None:
    """1,000 bytes of no length that is said."""
    with site.client() as client:
        body = [LARGE[:400], LARGE[400:1_000]]
        assert client.request("POST", f"{site.prefix}/body", body=body).json() == summary(LARGE[:1_000])


@check
def large_chunked_body_arrives(site: Site) -> None:
    """1.5 MB of no length that is said."""
    with site.client() as client:
        body = [LARGE[start : start + 50_000] for start in range(0, len(LARGE), 50_000)]
        assert client.request("POST", f"{site.prefix}/body", body=body).json() == summary(LARGE)


@check
def stream_arrives_as_it_is_made(site: Site) -> None:
    """The client has a piece before the next one is there."""
    path = f"{site.prefix}/steps/{new_name()}"
    with site.client() as client, site.client() as other:
        client.send_head("GET", path)
        head = client.head()
        assert head.status == 200
        pieces = client.pieces(head)
        assert next(pieces) == b"one "
        assert other.request("POST", f"{path}/go", body=b"").status == 200
        assert b"".join(pieces) == b"two"


@check
def stream_ends_when_the_client_leaves(site: Site) -> None:
    """The generator of a response that nobody takes any more is closed."""
    name = new_name()
    with site.client() as client:
        client.send_head("GET", f"{site.prefix}/endless/{name}")
        assert next(client.pieces(client.head()))
    site.until_events(name, ["ended"])


# -- Errors -------------------------------------------------------------------------------------------------------


@check
def missing_page_is_the_apps(site: Site) -> None:
    """404, by the app's handler."""
    with site.browser() as browser:
        response = browser.get("/missing/page")
    assert (response.status_code, response.text.strip()) == (404, "our 404")


@check
def wrong_method_is_the_apps(site: Site) -> None:
    """405, by the app's handler, with what would be allowed."""
    with site.browser() as browser:
        response = browser.post("/hello")
    assert (response.status_code, response.text.strip()) == (405, "our 405")
    assert "GET" in response.headers["allow"].replace(" ", "").split(",")


@check
def failure_is_the_apps(site: Site) -> None:
    """500, by the app's handler, which knows what was raised."""
    with site.browser() as browser:
        response = browser.get("/fails")
    assert (response.status_code, response.text.strip()) == (500, "our 500: ValueError")


@check
def connection_outlives_a_failure(site: Site) -> None:
    """The response to a request that failed is whole, and the next request on the connection is answered."""
    with site.client() as client:
        assert client.get(f"{site.prefix}/fails").status == 500
        assert client.get(f"{site.prefix}/hello").body == b"Hello, world!"


@check
def failure_within_a_stream_breaks_it(site: Site) -> None:
    """The client is never given a response that looks whole; if nothing is out by then, it is told of an error."""
    with site.client() as client:
        client.send_head("GET", f"{site.prefix}/breaks")
        head = client.head()
        if head.status == 500:
            return
        assert head.status == 200
        got = b""
        with contextlib.suppress(BrokenError):
            for piece in client.pieces(head):
                got += piece
            raise AssertionError(f"The response has an end, after {got!r}.")
        assert got == b"one"


# -- Hooks --------------------------------------------------------------------------------------------------------


@check
def hooks_run(site: Site) -> None:
    """Once each, in their order."""
    name = new_name()
    with site.browser() as browser:
        assert browser.get(f"/hello?id={name}").status_code == 200
    site.until_events(name, site.framework.hooks)


@check
def hooks_run_when_the_view_fails(site: Site) -> None:
    """Those that are for it."""
    name = new_name()
    with site.browser() as browser:
        assert browser.get(f"/fails?id={name}").status_code == 500
    site.until_events(name, site.framework.hooks_of_failure)


@check
def hooks_run_when_the_client_leaves(site: Site) -> None:
    """None is left out because nobody takes the rest of a stream."""
    name = new_name()
    with site.client() as client:
        client.send_head("GET", f"{site.prefix}/endless/{name}?id={name}")
        assert next(client.pieces(client.head()))
    site.until_events(name, site.framework.hooks_of_stream, ordered=False)


@check
def requests_do_not_mix(site: Site) -> None:
    """Of many requests at once each finds what it has put down itself, and nothing of those before it."""
    names = [new_name() for _ in range(CROWD)]
    party = min(site.at_once, 10)
    clients = [site.client() for _ in names]
    with closing_all(clients):
        for client, name in zip(clients, names, strict=True):
            client.send_head("GET", f"{site.prefix}/isolated/{name}?party={party}")
        for client, name in zip(clients, names, strict=True):
            response = client.response()
            assert response.status == 200, response
            told = json.loads(response.body)
            assert told["after"]
            assert set(told["after"].values()) == {name}
            assert set(told["before"].values()) == {None}


#: Those whose answers have the prefix in them.
PREFIX_CHECKS = [
    check.__name__
    for check in (
        pages_are_found,
        links_lead_back,
        redirect_stays_under_the_prefix,
        missing_slash_is_added,
        session_is_kept,
    )
]
