"""Django's ORM, on the databases that ``A2WSGI_TEST_DATABASES`` has as JSON, each with a table of its own.

The path's first part names the database. A connection that a request opens is Django's to close, or to keep for the
next request of the same thread: by its ``CONN_MAX_AGE``.
"""
# ruff: noqa: D103 - the names of the views say what they do
# mypy: disable-error-code="misc"
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# Django comes without types.

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connections, models, transaction
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {}, **json.loads(os.environ["A2WSGI_TEST_DATABASES"])},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    ROOT_URLCONF=__name__,
    SECRET_KEY="none",
    USE_TZ=True,
)
django.setup(set_prefix=False)


class Entry(models.Model):
    text = models.TextField()

    class Meta:
        """It belongs to no app that is installed."""

        app_label = "entries"

    def __str__(self) -> str:
        return str(self.text)


def add(_: HttpRequest, database: str) -> HttpResponseBase:
    with transaction.atomic(using=database):
        entry = Entry.objects.using(database).create(text="added")
    return JsonResponse({"id": entry.pk})


def fail(_: HttpRequest, database: str) -> HttpResponseBase:
    with transaction.atomic(using=database):
        Entry.objects.using(database).create(text="never")
        raise ValueError("in a transaction")


def count(_: HttpRequest, database: str) -> HttpResponseBase:
    return JsonResponse({"count": Entry.objects.using(database).count()})


def stream(_: HttpRequest, database: str) -> HttpResponseBase:
    return StreamingHttpResponse(f"{text}\n" for text in entries(database))


def endless(_: HttpRequest, database: str) -> HttpResponseBase:
    def pieces() -> Iterator[str]:
        while True:
            yield from entries(database)
            yield "." * 16_384

    return StreamingHttpResponse(pieces())


def entries(database: str) -> Iterator[Any]:
    """What is there, asked for when somebody wants it."""
    yield from Entry.objects.using(database).values_list("text", flat=True)[:10].iterator()


urlpatterns = [path(f"<database>/{view.__name__}", view) for view in (add, fail, count, stream, endless)]

for name in connections.settings:
    if name != "default":
        with connections[name].schema_editor() as editor:
            editor.create_model(Entry)
        connections[name].close()

app: Any = get_wsgi_application()
