"""Programs written for a2wsgi 1.x that override or call the steps of its responders, as real ones do."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import a2wsgi
from support.asgi_driver import Client, call, http_scope
from support.lockstep import BOUND_SECONDS
from support.wsgi_driver import environ_of


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Answers ``hello``."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    """The same, of the other kind."""
    start_response("200 OK", [])
    return [b"hello"]


async def never(*_: Any) -> Any:
    """What is not to be called."""
    raise AssertionError


@pytest.mark.filterwarnings("ignore:WSGI.*:DeprecationWarning")
def test_program_takes_the_steps_of_wsgi_responder_itself() -> None:
    """One that feeds a Body of its own from the one task that calls receive(), as programs do to see a disconnect."""
    from a2wsgi.wsgi import Body, WSGIResponder, build_environ

    class Fed(Body):
        def __init__(self, loop: Any, queue: asyncio.Queue[Any]) -> None:
            super().__init__(loop, never)
            self.queue = queue

        def _receive_more_data(self) -> bytes:
            future = asyncio.run_coroutine_threadsafe(self.queue.get(), self.loop)
            chunk: bytes
            chunk, self._has_more = future.result()
            return chunk

    class Pumping(WSGIResponder):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            queue: asyncio.Queue[Any] = asyncio.Queue(1)

            async def pump() -> None:
                while (message := await receive())["type"] == "http.request":
                    await queue.put((message["body"], message["more_body"]))

            environ = build_environ(scope, Fed(self.loop, queue))
            tasks = [self.loop.create_task(pump()), self.loop.create_task(self.sender(send))]
            try:
                run: Any = functools.partial(contextvars.copy_context().run, self.wsgi)  # type: ignore[call-arg]
                await self.loop.run_in_executor(self.executor, run, environ, self.start_response)
                await self.send_queue.put(None)
                await tasks[1]
                assert self.exc_info is None
            finally:
                for task in tasks:
                    task.cancel()

    class Bridge(a2wsgi.WSGIMiddleware):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await Pumping(self.app, self.executor, self.send_queue_size)(scope, receive, send)

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"]
        assert body.has_more
        start_response("200 OK", [("x-first", body.readline().decode().strip())])(b"written, ")
        yield body.read()
        assert not body.has_more

    bridge = Bridge(app)
    scope = http_scope("POST", headers=[(b"content-length", b"12")])
    response = call(bridge, Client(b"one\nt", b"wo\n", b"last", strict=False), scope)
    assert (response.status, response.headers, response.body) == (200, [(b"x-first", b"one")], b"written, two\nlast")
    bridge.executor.shutdown()


@pytest.mark.filterwarnings("ignore:WSGI.*:DeprecationWarning")
def test_program_ends_the_app_from_the_steps_of_wsgi_responder() -> None:
    """One whose ``send`` raises once a watcher, which ``start_response`` has started, has seen the client leave."""
    from a2wsgi.wsgi import WSGIResponder

    said: list[str] = []

    class Watching(WSGIResponder):
        gone: Any = None

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            self._receive = receive
            await super().__call__(scope, receive, send)

        async def _watch(self) -> None:
            assert (await self._receive())["type"] == "http.disconnect"

        def start_response(self, status: str, response_headers: Any, exc_info: Any = None) -> Any:
            self.gone = asyncio.run_coroutine_threadsafe(self._watch(), self.loop)
            return super().start_response(status, response_headers, exc_info)

        def send(self, message: Any) -> None:
            if message["type"] == "http.response.body":
                self.gone.result(BOUND_SECONDS)
                raise ConnectionError
            super().send(message)

        def wsgi(self, environ: Any, start_response: Any) -> None:
            try:
                super().wsgi(environ, start_response)
            except ConnectionError:
                said.append("ended")

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        try:
            while True:
                yield b"more"
        finally:
            said.append("closed")

    with ThreadPoolExecutor(1) as executor:
        client = Client(messages=[{"type": "http.request", "body": b"all"}, {"type": "http.disconnect"}])
        call(lambda *asgi: Watching(app, executor, 10)(*asgi), client, http_scope("POST"))  # noqa: PLW0108 - on the loop
    assert said == ["closed", "ended"]


@pytest.mark.filterwarnings("ignore:WSGIResponder:DeprecationWarning")
def test_thread_of_a_wsgi_responder_ends_with_its_request() -> None:
    """Its ``send()`` fails in 1.10.10 for good: the thread waited for room in a queue that nobody took from."""
    from a2wsgi.wsgi import WSGIResponder

    ended: list[type[BaseException]] = []

    class Own(WSGIResponder):
        def start_response(self, status: str, response_headers: Any, exc_info: Any = None) -> Any:
            return super().start_response(status, response_headers, exc_info)

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        try:
            for _ in range(100):
                yield b"more"
        except BaseException as error:
            ended.append(type(error))
            raise

    async def broken(_: Any) -> None:
        raise ConnectionResetError

    async def story() -> None:
        with pytest.raises((ConnectionResetError, a2wsgi.ClientDisconnected)):
            await Own(app, executor, 1)(http_scope(), never, broken)

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(asyncio.wait_for(story(), BOUND_SECONDS))
    assert ended == [GeneratorExit]


@pytest.mark.filterwarnings("ignore:.*SGI.*:DeprecationWarning")
def test_subclass_that_makes_everything_by_itself() -> None:
    """Its constructor calls no other, and each of its requests has a loop of its own, as for Passenger's forks."""
    from a2wsgi.asgi import ASGIResponder

    class Own(a2wsgi.ASGIMiddleware):
        def __init__(self, app: Any, wait_time: float | None = None) -> None:
            self.app = app
            self.wait_time = wait_time
            self.loop = asyncio.new_event_loop()

        def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
            loop = self.loop
            thread = threading.Thread(target=loop.run_forever)
            thread.start()
            try:
                responder: Any = ASGIResponder
                yield from responder(self.app, loop, self.wait_time)(environ, start_response)
            finally:
                loop.call_soon_threadsafe(loop.stop)
                thread.join()

    bridge = Own(asgi_app, 5)
    for _ in range(3):
        assert b"".join(bridge(environ_of("POST", body=b"1.x"), lambda *_: lambda _: None)) == b"hello"
    bridge.loop.close()

    class OwnWSGI(a2wsgi.WSGIMiddleware):
        def __init__(self, app: Any) -> None:
            self.app = app
            self.send_queue_size = 10

    assert OwnWSGI(wsgi_app).send_queue_size == 10


def test_loop_of_a_bridge_cannot_be_set() -> None:
    """It would change nothing."""
    with a2wsgi.ASGIMiddleware(asgi_app) as bridge, pytest.raises(AttributeError, match=r"Pass loop= to the constr"):
        bridge.loop = None  # type: ignore[assignment]


@pytest.mark.filterwarnings("ignore:WSGI.*:DeprecationWarning")
def test_responder_without_an_executor_answers() -> None:
    """In 1.x None was the executor of the loop."""
    import a2wsgi.wsgi as module
    from a2wsgi.wsgi import WSGIResponder

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await WSGIResponder(wsgi_app, None, 10)(scope, receive, send)

    try:
        assert call(app).body == b"hello"
    finally:
        module._bridges_of_executors.clear()  # that one lasts as long as the process, and so do its threads
