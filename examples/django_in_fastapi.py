"""A Django site inside a FastAPI app. Its views and its ORM stay synchronous.

uvicorn django_in_fastapi:app
"""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path, reverse
from fastapi import FastAPI

from a2wsgi import WSGIMiddleware

# A project of yours has its own: from mysite.wsgi import application
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="for this example")  # noqa: S106


def hello(_: HttpRequest) -> JsonResponse:
    """Django knows the prefix under which it is mounted."""
    return JsonResponse({"hello": "from Django", "url": reverse("hello")})


urlpatterns = [path("hello", hello, name="hello")]
application = get_wsgi_application()

app = FastAPI()


@app.get("/hello")
async def hello_fastapi() -> dict[str, str]:
    """Answer from FastAPI."""
    return {"hello": "from FastAPI"}


app.mount("/django", WSGIMiddleware(application))
