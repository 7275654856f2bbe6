"""What follows a request follows it through a bridge: OpenTelemetry, Sentry and structlog, each the real one.

The kind of server that calls is said: under ``asgi`` the app is of WSGI, under ``wsgi`` it is of ASGI.
"""

# ruff: noqa: E402 - what may not be installed is imported once that is known
from __future__ import annotations

import asyncio
import functools
import http.client
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from a2wsgi import ASGIMiddleware, WSGIMiddleware
from support import asgi_driver, wsgi_driver
from support.lockstep import BOUND_SECONDS
from support.servers import module, running
from support.threads import in_thread

for package in ("fastapi", "flask", "gunicorn", "opentelemetry.sdk", "sentry_sdk", "structlog", "uvicorn"):
    pytest.importorskip(package)

import structlog
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as AsgiOpenTelemetry
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as WsgiOpenTelemetry
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import LogCapture

pytestmark = pytest.mark.interop

SERVERS = ("asgi", "wsgi")

#: The side of the bridge that the server is on, and that of the app.
SIDES = {"asgi": ("asgi", "wsgi"), "wsgi": ("wsgi", "asgi")}

#: Where the app runs.
THREAD = {"asgi": "a2wsgi-worker-", "wsgi": "a2wsgi-loop"}

AT_ONCE = 6

Layer: TypeAlias = Callable[[Any], Any]


# -- An app of either kind, and what has it answer ----------------------------------------------------------------


@dataclass
class Steps:
    """What an app does at each moment of a request.

    Attributes:
        view: Called when the request has come, with the value of its header ``X-Name``.
        body: Makes the chunks of the body, as a generator that is resumed after each was given.
        end: Called after the response: by the iterable's close(), or as background work.
        meet: Whether each request waits in the view for `AT_ONCE` of them to be there.
    """

    view: Callable[[str], object] = lambda _: None
    body: Callable[[], Iterable[bytes]] = lambda: (b"hello",)
    end: Callable[[], object] = lambda: None
    meet: bool = False
    _barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(AT_ONCE))
    _arrived: list[asyncio.Future[None]] = field(default_factory=list)

    def wsgi(self, environ: Any, start_response: Any) -> Any:
        self.view(environ.get("HTTP_X_NAME", ""))
        if self.meet:
            self._barrier.wait(BOUND_SECONDS)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return _Iterable(self.body(), self.end)

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        self.view(dict(scope["headers"]).get(b"x-name", b"").decode())
        if self.meet:
            await self._meet()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for chunk in self.body():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self.end()

    async def _meet(self) -> None:
        here = asyncio.get_running_loop().create_future()
        self._arrived.append(here)
        if len(self._arrived) == AT_ONCE:
            for other in self._arrived:
                other.set_result(None)
        await asyncio.wait_for(here, BOUND_SECONDS)


@dataclass
class _Iterable:
    chunks: Iterable[bytes]
    end: Callable[[], object]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.chunks)

    def close(self) -> None:
        self.end()


def as_it_is(app: Any) -> Any:
    """Stand for no middleware."""
    return app


def ask(
    server: str,
    steps: Steps,
    *requests: Mapping[str, str],
    asgi: Layer = as_it_is,
    wsgi: Layer = as_it_is,
    at_once: bool = False,
) -> list[bytes]:
    """Have an app under a bridge answer requests; the bodies.

    Args:
        server: The kind of server that calls the bridge.
        steps: What the app does. It is of the other kind.
        requests: The headers of each.
        asgi: What stands on the bridge's ASGI side.
        wsgi: What stands on its WSGI side.
        at_once: Whether they come all together. One after the other the same thread answers all of them.
    """
    if server == "asgi":
        app = asgi(WSGIMiddleware(wsgi(steps.wsgi), workers=AT_ONCE if at_once else 1))
        return answers_on_asgi(app, requests, at_once=at_once)
    with closing(ASGIMiddleware(asgi(steps.asgi), lifespan=False)) as bridge:
        return answers_on_wsgi(wsgi(bridge), requests, at_once=at_once)


def answers_on_asgi(app: Any, requests: Sequence[Mapping[str, str]], *, at_once: bool = False) -> list[bytes]:
    """Call an app as ASGI servers do: each request in a task, and so in a context of its own."""

    async def answer(headers: Mapping[str, str]) -> bytes:
        scope = asgi_driver.http_scope(headers=[(name.encode(), value.encode()) for name, value in headers.items()])
        return (await asgi_driver.answer(app, scope=scope)).body

    async def answer_each() -> list[bytes]:
        if at_once:
            return list(await asyncio.gather(*map(answer, requests)))
        return [await asyncio.create_task(answer(headers)) for headers in requests]

    return asgi_driver.run(answer_each())


def answers_on_wsgi(app: Any, requests: Sequence[Mapping[str, str]], *, at_once: bool = False) -> list[bytes]:
    """Call an app as WSGI servers do: in a thread, whose context all of its requests share."""

    def answer(headers: Mapping[str, str]) -> bytes:
        environ = wsgi_driver.environ_of()
        environ.update({f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()})
        return wsgi_driver.call(app, environ).body

    if at_once:
        return [call.result() for call in [in_thread(answer, headers) for headers in requests]]
    return in_thread(lambda: list(map(answer, requests))).result()


# -- OpenTelemetry ------------------------------------------------------------------------------------------------


class Spans:
    """Its middleware, and the spans that are made there and in the app."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._tracer = self.provider.get_tracer("app")

    def asgi(self, app: Any) -> Any:
        return AsgiOpenTelemetry(app, tracer_provider=self.provider)

    def wsgi(self, app: Any) -> Any:
        return WsgiOpenTelemetry(app, tracer_provider=self.provider)

    def view(self, name: str) -> None:
        with self._tracer.start_as_current_span("view") as span:
            span.set_attributes({"name": name, "thread": threading.current_thread().name})

    def body(self) -> Iterator[bytes]:
        """Keep a span open while chunks are given, with others in it."""
        with self._tracer.start_as_current_span("body"):
            for number in range(3):
                with self._tracer.start_as_current_span("chunk"):
                    yield b"%d" % number

    def end(self) -> None:
        self._tracer.start_span("end").end()

    def finished(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def trees(self) -> dict[int, dict[str, set[str]]]:
        """Of each trace, by its number: of each kind of span, the kinds that it was made in."""
        spans = {self._context(span).span_id: span for span in self.finished()}
        trees: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for span in spans.values():
            parent = spans.get(span.parent.span_id) if span.parent is not None else None
            made_in = "client" if span.parent is not None and span.parent.is_remote else "nothing"
            trees[self._context(span).trace_id][kind_of(span)].add(kind_of(parent) if parent else made_in)
        return {number: dict(tree) for number, tree in trees.items()}

    @staticmethod
    def _context(span: ReadableSpan) -> trace.SpanContext:
        context = span.get_span_context()
        assert context is not None
        return context


def kind_of(span: ReadableSpan) -> str:
    """``asgi``, ``wsgi``, or the name of one of the app's; of each message of ASGI there is one, too."""
    assert span.instrumentation_scope is not None
    maker = span.instrumentation_scope.name.rpartition(".")[2]
    message = span.name.rpartition(" ")[2]
    return span.name if maker == "app" else f"{maker} {message}" if message in {"receive", "send"} else maker


@pytest.fixture
def spans() -> Iterator[Spans]:
    """Those of one test."""
    spans = Spans()
    yield spans
    spans.provider.shutdown()


def tree(server: str, *, streamed: bool = True, root: str = "client") -> dict[str, set[str]]:
    """What each span is to be made in. The middleware for WSGI calls the iterable's close() outside its own span."""
    outer, inner = SIDES[server]
    messages = {"asgi receive": {"asgi"}, "asgi send": {"asgi", *(["chunk"] if streamed and inner == "asgi" else [])}}
    parts = {"body": {inner}, "chunk": {"body"}} if streamed else {}
    return {outer: {root}, inner: {outer}, **messages, "view": {inner}, **parts, "end": {"asgi"}}


def of_trace(number: int) -> dict[str, str]:
    """W3C Trace Context, "Traceparent Header": what a client sends that has begun this trace."""
    return {"traceparent": f"00-{number:032x}-{1:016x}-01", "x-name": str(number)}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("server", SERVERS)
def test_spans_nest_in_the_trace_of_the_client(server: str, streamed: bool, spans: Spans) -> None:
    """The span of the server's side has that of the app's side in it, and that what the app does in its own thread."""
    steps = Steps(spans.view, spans.body, spans.end) if streamed else Steps(spans.view, end=spans.end)
    bodies = ask(server, steps, of_trace(7), asgi=spans.asgi, wsgi=spans.wsgi)
    assert bodies == [b"012" if streamed else b"hello"]
    assert spans.trees() == {7: tree(server, streamed=streamed)}
    (view,) = [span for span in spans.finished() if span.name == "view"]
    assert str((view.attributes or {})["thread"]).startswith(THREAD[server])
    # There is one span for the server's work; what is further in is a part of that.
    assert [kind_of(span) for span in spans.finished() if span.kind is trace.SpanKind.SERVER] == [SIDES[server][0]]


@pytest.mark.parametrize("server", SERVERS)
def test_spans_of_requests_at_once_keep_to_their_traces(server: str, spans: Spans) -> None:
    """Requests that are under way together, in the threads of one bridge, have each a trace that is whole."""
    steps = Steps(spans.view, spans.body, spans.end, meet=True)
    requests = [of_trace(number) for number in range(1, AT_ONCE + 1)]
    ask(server, steps, *requests, asgi=spans.asgi, wsgi=spans.wsgi, at_once=True)
    assert spans.trees() == {number: tree(server) for number in range(1, AT_ONCE + 1)}
    views = [span for span in spans.finished() if span.name == "view"]
    assert all(str(Spans._context(view).trace_id) == (view.attributes or {})["name"] for view in views)


@pytest.mark.parametrize("server", SERVERS)
def test_trace_ends_with_its_request(server: str, spans: Spans) -> None:
    """The next request on the same thread, of a client that traces nothing, begins a trace of its own."""
    steps = Steps(spans.view, spans.body, spans.end)
    ask(server, steps, of_trace(7), {}, asgi=spans.asgi, wsgi=spans.wsgi)
    trees = spans.trees()
    assert trees.pop(7) == tree(server)
    assert list(trees.values()) == [tree(server, root="nothing")]


@pytest.mark.parametrize("server", SERVERS)
def test_spans_nest_through_two_bridges(server: str, spans: Spans) -> None:
    """An app behind its own kind of server and both bridges, with the middleware at all three places."""
    steps = Steps(spans.view, spans.body, spans.end)
    outer, inner = SIDES[server]
    if server == "asgi":
        with closing(ASGIMiddleware(spans.asgi(steps.asgi), lifespan=False)) as bridge:
            answers_on_asgi(spans.asgi(WSGIMiddleware(spans.wsgi(bridge))), [of_trace(7)])
    else:
        app: Any = WSGIMiddleware(spans.wsgi(steps.wsgi))
        with closing(ASGIMiddleware(spans.asgi(app), lifespan=False)) as bridge:
            answers_on_wsgi(spans.wsgi(bridge), [of_trace(7)])
    (found,) = spans.trees().values()
    # The outermost and the innermost are of one kind: the view is in the innermost, by being a step further in.
    assert found[outer] == {"client", inner}
    assert found[inner] == {outer}
    assert (found["view"], found["body"], found["chunk"], found["end"]) == ({outer}, {outer}, {"body"}, {"asgi"})


# -- Sentry -------------------------------------------------------------------------------------------------------

#: For each kind of server the stacks of `interop.sentry_apps`: where Sentry is.
STACKS = {
    "asgi": ("outside", "inside", "both", "three", "flask", "around_flask", "flask_in_fastapi"),
    "wsgi": (
        *("outside", "inside", "both", "three", "inline", "outside_detached", "both_detached"),
        *("fastapi", "around_fastapi"),
    ),
}

#: When the app fails, and what its client sees of that.
MOMENTS = {"before": "500", "middle": "200, broken", "after": "200, whole"}

COMMANDS = {
    "asgi": lambda port: module("uvicorn", f"--port={port}", "interop.sentry_apps:asgi"),
    "wsgi": lambda port: module(
        "gunicorn", f"--bind=127.0.0.1:{port}", "--threads=4", "--no-control-socket", "interop.sentry_apps:wsgi"
    ),
}


@dataclass(frozen=True)
class Reported:
    """What became of the requests to one server, each at the path ``<stack>/<moment>``.

    Attributes:
        origin: The server's address.
        seen: What the client saw of each.
        events: What Sentry has of each.
        others: What Sentry has besides.
    """

    origin: str
    seen: dict[str, str]
    events: dict[str, list[Any]]
    others: list[Any]


def outcome(port: int, path: str) -> str:
    """What a client sees of a request: the status and, of a 200, whether its body came to its end."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND_SECONDS)) as connection:
        connection.request("GET", f"/{path}?of=sentry", headers={"X-Path": path})
        with connection.getresponse() as response:
            if response.status != 200:
                return str(response.status)
            try:
                body = response.read()
            except (http.client.IncompleteRead, ConnectionError):
                return "200, broken"
            return "200, whole" if body.endswith(b"xlast\n") else f"200, {len(body)} bytes"


def report(server: str, directory: Path) -> Reported:
    """Have each stack fail at each moment; what was reported once the server had ended, so that nothing comes after."""
    written = directory / "events"
    written.touch()
    paths = [f"{stack}/{moment}" for stack in STACKS[server] for moment in MOMENTS]
    with running(COMMANDS[server], directory, environment={"A2WSGI_TEST_EVENTS": str(written)}) as process:
        origin = f"http://127.0.0.1:{process.port}"
        with ThreadPoolExecutor(4) as pool:  # several at once: an error is to have its own request
            seen = dict(zip(paths, pool.map(functools.partial(outcome, process.port), paths), strict=True))
    events: dict[str, list[Any]] = {path: [] for path in paths}
    others: list[Any] = []
    for event in map(json.loads, written.read_text().splitlines()):
        errors = [error["value"] for error in event.get("exception", {}).get("values", [])]
        (events[errors[-1]] if errors and errors[-1] in events else others).append(event)
    return Reported(origin, seen, events, others)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reported]:
    """Give what each kind of server has reported, from one run of it."""
    return functools.cache(lambda server: report(server, tmp_path_factory.mktemp("sentry")))


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("server", "stack"), [(server, stack) for server in SERVERS for stack in STACKS[server]])
def test_sentry_has_an_error_once_and_with_its_request(
    reported: Callable[[str], Reported], server: str, stack: str, moment: str
) -> None:
    """Though each side and the server's own log come by it: before the head, in mid-stream, and after the response."""
    path = f"{stack}/{moment}"
    run = reported(server)
    assert run.seen[path] == MOMENTS[moment]
    (event,) = run.events[path]
    errors = [(error["type"], error["value"]) for error in event["exception"]["values"]]
    assert errors == [("ArithmeticError", path)]
    request = event["request"]
    said = {key: request[key] for key in ("method", "url", "query_string")}
    assert said == {"method": "GET", "url": f"{run.origin}/{path}", "query_string": "of=sentry"}
    assert {name.lower(): value for name, value in request["headers"].items()}["x-path"] == path


@pytest.mark.parametrize("server", SERVERS)
def test_sentry_has_nothing_besides(reported: Callable[[str], Reported], server: str) -> None:
    """No error of ours, and nothing that was logged."""
    assert [event.get("logentry") or event.get("exception") for event in reported(server).others] == []


# -- structlog ----------------------------------------------------------------------------------------------------


class Log:
    """A logger that says what is bound, middleware that binds, and an app that logs and binds more."""

    def __init__(self) -> None:
        self._capture = LogCapture()
        self._logger = structlog.wrap_logger(None, processors=[structlog.contextvars.merge_contextvars, self._capture])
        self.steps = Steps(self.view, self.body, self.end)

    def layer(self, kind: str, where: str) -> Layer:
        """Bind the name of the request while the app is called, if this is the kind of layer where to."""
        if kind != where:
            return as_it_is
        return self._asgi if kind == "asgi" else self._wsgi

    def _asgi(self, app: Any) -> Any:
        async def bind(scope: Any, receive: Any, send: Any) -> None:
            with structlog.contextvars.bound_contextvars(request=dict(scope["headers"])[b"x-name"].decode()):
                await app(scope, receive, send)
                self._logger.info("outside")

        return bind

    def _wsgi(self, app: Any) -> Any:
        def bind(environ: Any, start_response: Any) -> Any:
            with structlog.contextvars.bound_contextvars(request=environ["HTTP_X_NAME"]):
                iterable = app(environ, start_response)
                self._logger.info("outside")
            return iterable

        return bind

    def view(self, name: str) -> None:
        self._logger.info("view")
        structlog.contextvars.bind_contextvars(user=f"user of {name}")

    def body(self) -> Iterator[bytes]:
        for number in range(2):
            self._logger.info("chunk")
            yield b"%d" % number

    def end(self) -> None:
        self._logger.info("end")

    def entries(self) -> list[tuple[str, dict[str, Any]]]:
        """Each event, with what was bound when it was logged."""
        entries = [dict(entry) for entry in self._capture.entries]
        return [(entry.pop("event"), entry) for entry in entries if entry.pop("log_level")]


def logged(name: str) -> list[tuple[str, dict[str, Any]]]:
    """What is to be logged for a request: in the app with what is bound outside, and with what it has bound itself."""
    outside = {"request": name}
    inside = {**outside, "user": f"user of {name}"}
    return [("view", outside), ("chunk", inside), ("chunk", inside), ("end", inside), ("outside", outside)]


def in_order(entries: Iterable[tuple[str, dict[str, Any]]]) -> list[tuple[str, list[tuple[str, Any]]]]:
    """The same for entries of requests that were under way together."""
    return sorted((event, sorted(values.items())) for event, values in entries)


@pytest.mark.parametrize("server", SERVERS)
def test_structlog_has_in_the_app_what_is_bound_outside(server: str) -> None:
    """From the view to the end of the request, of each of several requests at once; and what the app binds stays in."""
    log = Log()
    log.steps.meet = True
    names = [f"request {number}" for number in range(AT_ONCE)]
    outer = SIDES[server][0]
    ask(
        server,
        log.steps,
        *({"x-name": name} for name in names),
        asgi=log.layer("asgi", outer),
        wsgi=log.layer("wsgi", outer),
        at_once=True,
    )
    assert in_order(log.entries()) == in_order(entry for name in names for entry in logged(name))


@pytest.mark.parametrize("side", ["nowhere", "outside", "inside"])
@pytest.mark.parametrize("server", SERVERS)
def test_structlog_keeps_nothing_for_the_next_request(server: str, side: str) -> None:
    """The same thread answers the next request, and has nothing of the one before: of neither side of the bridge."""
    log = Log()
    kind = {"outside": SIDES[server][0], "inside": SIDES[server][1]}.get(side, "")
    requests = [{"x-name": "first"}, {"x-name": "second"}]
    ask(server, log.steps, *requests, asgi=log.layer("asgi", kind), wsgi=log.layer("wsgi", kind))
    names = ["first", "second"]
    assert [entry for entry in log.entries() if entry[0] == "view"] == [
        ("view", {"request": name} if kind else {}) for name in names
    ]
    # Outside nothing is known of what the app has bound; inside, it and its middleware share a context.
    if side != "inside":
        outside = [entry for entry in log.entries() if entry[0] == "outside"]
        assert outside == [("outside", {"request": name}) for name in names if kind]
