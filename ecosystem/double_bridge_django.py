"""Django's test clients, with the handlers that they call behind two bridges; and the runner that puts them there.

Django's ``Client`` does not call an app: its handler takes an environ and returns the ``HttpResponse`` itself, on which
tests look up the templates, the context and the request. So the handler is made an app, which sends the response; and
what has come over the bridges - status, headers, cookies, body - replaces on that very object what was sent. The same
for ``AsyncClient`` and ASGI, and the apps of ``ApplicationCommunicator`` are called as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any

from asgiref import testing
from django.db import connections
from django.http.response import ResponseHeaders
from django.test import client
from django.test.client import FakePayload
from django.utils.translation import get_language, override
from double_bridge import bridged_asgi, bridged_wsgi
from xmlrunner.extra.djangotestrunner import XMLTestRunner

if TYPE_CHECKING:
    from collections.abc import Iterator

call_handler = client.ClientHandler.__call__
call_async_handler = client.AsyncClientHandler.__call__


@contextlib.contextmanager
def lent(lender: dict[str, Any]) -> Iterator[None]:
    """Use the connections to the databases of the test's thread, which waits: they are in a transaction, in memory."""
    for alias, connection in lender.items():
        connection.inc_thread_sharing()
        connections[alias] = connection
    try:
        yield
    finally:
        for alias, connection in lender.items():
            connection.dec_thread_sharing()
            del connections[alias]  # a worker thread has none of its own


def lender() -> dict[str, Any]:
    """The connections of this thread."""
    return {alias: connections[alias] for alias in connections}


def headers_of(response: Any) -> list[tuple[str, str]]:
    """As Django's WSGI handler sends them."""
    return [*response.items(), *(("Set-Cookie", cookie.output(header="")) for cookie in response.cookies.values())]


def put_head(response: Any, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
    """Replace the head of a response by what has come over the bridges."""
    response.status_code = status
    response.reason_phrase = reason or None
    response.headers = ResponseHeaders({})
    cookies = SimpleCookie()
    for name, value in headers:
        if name.lower() == "set-cookie":
            cookies.load(value)
        else:
            response.headers[name] = value
    if cookies.output() != response.cookies.output():  # some tests look for a number where a header has text
        response.cookies = cookies


def call_bridged_handler(self: Any, environ: Any) -> Any:
    """``ClientHandler.__call__``, behind the bridges."""
    responses: list[Any] = []
    mine, language = lender(), get_language()

    def app(environ: Any, start_response: Any) -> Any:
        with lent(mine), override(language):
            response = call_handler(self, environ)
            body = iter(response)
            responses.append(response)
            start_response(f"{response.status_code} {response.reason_phrase}", headers_of(response))
            yield from body

    head: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        head[:] = status, headers
        return lambda chunk: None

    body = bridged_wsgi(app)(environ, start_response)
    [response], (status, headers) = responses, head
    put_head(response, int(status[:3]), status[4:], headers)
    if response.streaming:
        response.streaming_content = body
    else:
        response.content = b"".join(body)
        if hasattr(body, "close"):
            body.close()
    return response


async def call_bridged_async_handler(self: Any, scope: Any) -> Any:
    """``AsyncClientHandler.__call__``, behind the bridges."""
    responses: list[Any] = []
    payload = scope.pop("_body_file", FakePayload(""))
    request = payload.read()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError("Django has no lifespan")
        body = FakePayload()
        more = True
        while more:
            message = await receive()
            body.write(message["body"])
            more = message["more_body"]
        scope["_body_file"] = body
        response = await call_async_handler(self, scope)
        responses.append(response)
        headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers_of(response)]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        if not response.streaming:
            await send({"type": "http.response.body", "body": response.content})
            return
        if response.is_async:
            async for chunk in response.streaming_content:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        else:
            for chunk in response.streaming_content:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})

    body: list[bytes] = []
    head: dict[str, Any] = {}
    messages = [{"type": "http.request", "body": request, "more_body": False}]

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        head.update(message)
        body.append(message.get("body", b""))

    await bridged_asgi(app)(as_asgi(scope), receive, send)
    [response] = responses
    headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in head["headers"]]
    put_head(response, head["status"], "", headers)
    if not response.streaming:
        response.content = b"".join(body)
    elif response.is_async:
        response.streaming_content = each(body)
    else:
        response.streaming_content = body
    return response


def as_asgi(scope: dict[str, Any]) -> dict[str, Any]:
    """The scope, with bytes for the query: ``AsyncRequestFactory`` may have text there, which no server has."""
    query = scope.get("query_string", b"")
    scope["query_string"] = query.encode() if isinstance(query, str) else query
    return scope


async def each(chunks: list[bytes]) -> Any:
    """These, for ``async for``."""
    for chunk in chunks:
        yield chunk


class Runner(XMLTestRunner):
    """Django's runner, with a report that is JUnit's."""

    def setup_test_environment(self, **options: Any) -> None:
        """Put the bridges in, if they are wanted."""
        super().setup_test_environment(**options)
        if os.environ.get("DOUBLE_BRIDGE"):
            init = testing.ApplicationCommunicator.__init__

            def init_bridged(self: Any, application: Any, scope: Any) -> None:
                init(self, bridged_asgi(application), as_asgi(scope))

            client.ClientHandler.__call__ = call_bridged_handler
            client.AsyncClientHandler.__call__ = call_bridged_async_handler
            testing.ApplicationCommunicator.__init__ = init_bridged
