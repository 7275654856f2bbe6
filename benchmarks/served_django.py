"""The Django site that `through_servers` loads: one sync view, 13 bytes, as a WSGI app and as Django's own ASGI app."""

from __future__ import annotations

from typing import TYPE_CHECKING

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

if TYPE_CHECKING:
    from django.http import HttpRequest


def hello(request: HttpRequest) -> HttpResponse:
    """Answer with 13 bytes."""
    return HttpResponse("Hello, world!", content_type="text/plain")


urlpatterns = [path("", hello)]

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    LOGGING_CONFIG=None,
    # The two of `startproject` that need no database. The second gives every contender a Content-Length.
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a benchmark",  # noqa: S106 - it signs nothing
)
django.setup()

wsgi = get_wsgi_application()
asgi = get_asgi_application()
