"""Django's ``async def`` views on the server's event loop, where they share one HTTP client.

uvicorn django_async_views:app
"""

import asyncio
from typing import Any

import httpx
from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.utils.deprecation import MiddlewareMixin

from a2wsgi import WSGIMiddleware, async_to_sync


class ServerLoopMiddleware(MiddlewareMixin):  # type: ignore[misc]
    """Runs ``async def`` views on the server's loop. Put it last: it calls the view."""

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        """Answer in Django's place if the view is async."""
        return async_to_sync(view)(request, *args, **kwargs) if iscoroutinefunction(view) else None


client = httpx.AsyncClient()  # one for the process: it keeps connections open from request to request


async def fetch_three(request: HttpRequest) -> JsonResponse:
    """Fetch three pages at once."""
    answers = await asyncio.gather(*(client.get(request.build_absolute_uri("/page")) for _ in range(3)))
    return JsonResponse([answer.json() for answer in answers], safe=False)


urlpatterns = [path("", fetch_three), path("page", lambda _: JsonResponse("hello", safe=False))]
middleware = [f"{__name__}.ServerLoopMiddleware"]
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="none", MIDDLEWARE=middleware)  # noqa: S106
app = WSGIMiddleware(get_wsgi_application())
