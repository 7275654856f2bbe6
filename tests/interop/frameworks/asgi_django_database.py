"""The app of `interop.frameworks.wsgi_django_database` by Django's handler for ASGI.

Its streams are asynchronous; its other views remain plain functions, in the thread that Django has for the request.
"""
# ruff: noqa: D103 - the names of the views say what they do
# pyright: reportAttributeAccessIssue=false
# Django comes without types.

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.urls import path

from interop.frameworks.wsgi_django_database import Entry, urlpatterns


async def stream(_: HttpRequest, database: str) -> HttpResponseBase:
    async def pieces() -> AsyncIterator[str]:
        async for text in entries(database):
            yield f"{text}\n"

    return StreamingHttpResponse(pieces())


async def endless(_: HttpRequest, database: str) -> HttpResponseBase:
    async def pieces() -> AsyncIterator[str]:
        while True:
            async for text in entries(database):
                yield text
            yield "." * 16_384

    return StreamingHttpResponse(pieces())


def entries(database: str) -> AsyncIterator[Any]:
    """What is there, asked for when somebody wants it."""
    texts: AsyncIterator[Any] = Entry.objects.using(database).values_list("text", flat=True)[:10].aiterator()
    return texts


urlpatterns[:0] = [path("<database>/stream", stream), path("<database>/endless", endless)]
app: Any = get_asgi_application()
