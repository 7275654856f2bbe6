"""Each ASGI framework does under `ASGIMiddleware` what its users expect of it, at the root and where it is mounted.

What is asked of it is in `interop.frameworks.contract`, and how it does it in the file of the framework beside that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

pytest.register_assert_rewrite("interop.frameworks.contract")

# The assertions of the contract are to be rewritten as ours are, and so that comes first.
from interop.frameworks.contract import CHECKS, Framework, Site  # noqa: E402
from interop.frameworks.notes import PREFIX  # noqa: E402
from interop.frameworks.served import expecting, serving, upload_leaves_no_file  # noqa: E402
from interop.processes import needs_proc  # noqa: E402
from support.servers import module  # noqa: E402

pytestmark = pytest.mark.interop

pytest.importorskip("gunicorn")
pytest.importorskip("waitress")

BOTH_SLASHES = {"missing_slash_is_added": "It answers with and without the slash."}
WHOLE_PATH = "It does not look at `root_path`, and has to be given routes with the prefix."
RAISES = {
    "connection_outlives_a_failure": (
        "It sends its page of an error, and then raises the error; the server is told of it, and ends the connection."
    ),
}

#: Each with an app in ``asgi_<name>.py``.
FRAMEWORKS = {
    "starlette": Framework(
        ["starlette", "itsdangerous", "python_multipart"],
        hooks=("before", "view", "after", "background", "teardown"),
        hooks_of_failure=("before", "teardown"),
        leaves_streams=True,
        cannot=RAISES,
    ),
    "fastapi": Framework(
        ["fastapi", "itsdangerous", "python_multipart"],
        hooks=("called", "before", "view", "after", "answered", "background", "dependency", "teardown"),
        hooks_of_failure=("called", "before", "dependency", "teardown"),
        hooks_of_stream=("called", "before", "after", "answered", "ended", "dependency", "teardown"),
        leaves_streams=True,
        cannot={
            **RAISES,
            "head_is_get_without_a_body": "It answers HEAD where an operation says how, and else 405.",
            "failure_within_a_stream_breaks_it": (
                "The middleware that it makes of a function, Starlette's `BaseHTTPMiddleware`, ends a stream that "
                "failed as if it were whole."
            ),
        },
    ),
    "quart": Framework(["quart"]),
    "falcon": Framework(
        ["falcon"],
        hooks=("before", "view", "after", "background"),
        hooks_of_failure=("before", "after"),
        hooks_of_stream=("before", "after", "ended"),
        cannot={
            "missing_slash_is_added": "It has no such redirect.",
            "head_is_get_without_a_body": "It answers HEAD where a resource says how, and else 405.",
        },
        cannot_be_moved=WHOLE_PATH,
    ),
    "django": Framework(
        ["django"],
        hooks=("started", "before", "view", "after", "finished"),
        hooks_of_failure=("started", "before", "after", "finished"),
        hooks_of_stream=("started", "before", "after", "ended", "finished"),
        cannot={"app_starts_up_and_shuts_down_once": "It knows no lifespan."},
    ),
    "litestar": Framework(
        ["litestar"],
        hooks=("before", "view", "answered", "background", "after", "teardown"),
        hooks_of_failure=("before", "answered", "teardown"),
        hooks_of_stream=("before", "answered", "after", "ended", "teardown"),
        leaves_streams=True,
        cannot={
            **BOTH_SLASHES,
            "head_is_get_without_a_body": "It answers HEAD where a handler says how, and else 405.",
        },
    ),
    "sanic": Framework(
        ["sanic"],
        hooks=("before", "view", "after"),
        hooks_of_failure=("before", "after"),
        hooks_of_stream=("before", "after", "ended"),
        cannot={
            **BOTH_SLASHES,
            "head_is_get_without_a_body": "It answers HEAD where a handler says how, and else 405.",
        },
        cannot_be_moved=WHOLE_PATH,
    ),
    "blacksheep": Framework(
        ["blacksheep"],
        hooks_of_failure=("before", "teardown"),
        cannot={
            "wrong_method_is_the_apps": "To BlackSheep a route of another method is none: it answers 404.",
            **BOTH_SLASHES,
            "head_is_get_without_a_body": "It answers HEAD where a route says how, and else 404.",
        },
    ),
    "connexion": Framework(
        ["connexion", "itsdangerous", "python_multipart"],
        leaves_streams=True,
    ),
}

#: The same on trio, each with an app in ``asgi_<name>.py``, too.
FRAMEWORKS |= {
    f"{name}_trio": replace(FRAMEWORKS[name], packages=[*FRAMEWORKS[name].packages, "trio"])
    for name in ("starlette", "fastapi")
}
FRAMEWORKS["quart_trio"] = Framework(["quart_trio"])

#: How many requests each server runs at once.
THREADS = 12

#: Where waitress is told to have the app.
TOLD_PREFIX = "/api/v1"


def gunicorn(port: int) -> Sequence[str]:
    """With threads. It passes a body on as it comes, chunks and all."""
    options = ["--worker-class=gthread", f"--threads={THREADS}", "--no-control-socket", f"--bind=127.0.0.1:{port}"]
    return module("gunicorn", *options, "interop.frameworks.mounted_asgi:application")


def waitress(port: int) -> Sequence[str]:
    """At a prefix, which it takes off each path. It passes a body on when it has the whole of it."""
    options = [f"--threads={THREADS}", "--connection-limit=500", f"--listen=127.0.0.1:{port}"]
    return module("waitress", *options, f"--url-prefix={TOLD_PREFIX}", "interop.frameworks.mounted_asgi:application")


def app_of(name: str) -> str:
    """What `interop.frameworks.mounted_asgi` is told of a framework's app."""
    return f"interop.frameworks.asgi_{name}"


@pytest.fixture(scope="module", params=FRAMEWORKS)
def on_gunicorn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The app of a framework at the root."""
    directory = tmp_path_factory.mktemp("server")
    with serving(FRAMEWORKS[request.param], app_of(request.param), gunicorn, directory) as site:
        yield site


@pytest.fixture(scope="module", params=FRAMEWORKS)
def on_waitress(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The app of a framework where the server was told to have it."""
    directory = tmp_path_factory.mktemp("server")
    with serving(FRAMEWORKS[request.param], app_of(request.param), waitress, directory, TOLD_PREFIX) as site:
        yield site


@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["root", "mounted"])
@pytest.mark.parametrize("check", CHECKS)
def test_framework_does_what_it_does_elsewhere(
    on_gunicorn: Site, prefix: str, check: str, request: pytest.FixtureRequest
) -> None:
    """A check of the contract holds, or fails where the framework is known not to do it."""
    CHECKS[check](expecting(check, replace(on_gunicorn, prefix=prefix), request))


@pytest.mark.parametrize("check", CHECKS)
def test_framework_listens_to_the_server_for_where_it_is(
    on_waitress: Site, check: str, request: pytest.FixtureRequest
) -> None:
    """All that holds where something in the process has mounted the app does so where the server has."""
    framework = on_waitress.framework
    # There is always a page that is missing.
    cannot = dict.fromkeys(CHECKS.keys() - {"missing_page_is_the_apps"}, framework.cannot_be_moved)
    # FastAPI's app fails right behind the last message. If that comes together with the first, waitress has a whole
    # response; if a part was sent before, waitress meets the error before it has written the end of the chunks.
    strict = check != "failure_within_a_stream_breaks_it"
    known = cannot if framework.cannot_be_moved else framework.cannot
    CHECKS[check](expecting(check, on_waitress, request, known, strict=strict))


@needs_proc
def test_upload_leaves_no_file(on_gunicorn: Site, request: pytest.FixtureRequest) -> None:
    """What was stored away of an upload is gone after the response."""
    upload_leaves_no_file(expecting("upload_leaves_no_file", on_gunicorn, request))


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_app_starts_up_and_shuts_down_once(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """It is started up by the first request, in the process that serves, and shut down when that ends."""
    with serving(FRAMEWORKS[name], app_of(name), gunicorn, tmp_path) as site:
        with site.browser() as browser:
            for _ in range(2):
                assert browser.get("/hello").status_code == 200
        expecting("app_starts_up_and_shuts_down_once", site, request)
    told = [line for line in site.server.output().splitlines() if line.startswith("app: ")]
    assert told == ["app: startup", "app: shutdown"]
