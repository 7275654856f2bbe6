"""Each WSGI framework does under `WSGIMiddleware` what its users expect of it, at the root and where it is mounted.

What is asked of it is in `interop.frameworks.contract`, and how it does it in the file of the framework beside that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

pytest.register_assert_rewrite("interop.frameworks.contract")

# The assertions of the contract are to be rewritten as ours are, and so that comes first.
from interop.frameworks.contract import CHECKS, PREFIX_CHECKS, Framework, Site, large_chunked_body_arrives  # noqa: E402
from interop.frameworks.served import expecting, serving, upload_leaves_no_file  # noqa: E402
from interop.processes import needs_proc  # noqa: E402
from support.servers import module  # noqa: E402

pytestmark = pytest.mark.interop

pytest.importorskip("fastapi")
pytest.importorskip("httptools")
pytest.importorskip("uvicorn")
pytest.importorskip("uvloop")

FLASK = Framework(
    ["flask", "asgiref"],
    hooks=("before", "view", "after", "teardown", "closed"),
    hooks_of_failure=("before", "after", "teardown", "closed"),
    hooks_of_stream=("before", "after", "teardown", "ended", "closed"),
)

#: Each with an app in ``wsgi_<name>.py``.
FRAMEWORKS = {
    "flask": FLASK,
    "flask_async": FLASK,
    "django": Framework(
        ["django"],
        hooks=("started", "before", "view", "after", "finished"),
        hooks_of_failure=("started", "before", "after", "finished"),
        hooks_of_stream=("started", "before", "after", "ended", "finished"),
        cannot={
            "large_chunked_body_arrives": (
                "Without a Content-Length it reads nothing. `WSGIMiddleware(…, spool_request=True)` finds the length."
            ),
        },
    ),
    "pyramid": Framework(
        ["pyramid"],
        cannot={"wrong_method_is_the_apps": "To Pyramid a route of another method is none: it answers 404."},
    ),
    "bottle": Framework(
        ["bottle"],
        hooks=("before", "view", "after"),
        hooks_of_failure=("before", "after"),
        hooks_of_stream=("before", "after", "ended"),
        cannot={
            "missing_slash_is_added": "It has no such redirect.",
            "large_chunked_body_arrives": (
                "It looks for chunks in a body that the server has taken out of them, and answers 400. "
                "`WSGIMiddleware(…, spool_request=True)` leaves no sign of them."
            ),
            "upload_leaves_no_file": (
                "It keeps the last request of each thread, with its files, until the thread has another request."
            ),
        },
    ),
    "falcon": Framework(
        ["falcon"],
        hooks=("before", "view", "after"),
        hooks_of_failure=("before", "after"),
        hooks_of_stream=("before", "after", "ended"),
        cannot={
            "head_is_get_without_a_body": "It answers HEAD where a resource says how, and else 405.",
            "missing_slash_is_added": "It has no such redirect.",
        },
    ),
    "cherrypy": Framework(["cherrypy"], hooks_of_failure=("before", "error", "teardown")),
    "webpy": Framework(
        ["web"],
        hooks=("before", "view", "after"),
        hooks_of_failure=("before", "after"),
        cannot={
            "missing_slash_is_added": "It has no such redirect.",
            "wrong_method_is_the_apps": "It has no handler of one's own for 405.",
            "hooks_run_when_the_client_leaves": (
                "Its unload hooks wait for the end of a stream, and do not run where that is closed before."
            ),
        },
    ),
}

#: Where `interop.frameworks.mounted_wsgi` has an app, and what is asked of it there.
PLACES = {"root": CHECKS, "fastapi": CHECKS, "starlette": PREFIX_CHECKS}
PREFIXES = {"root": "", "fastapi": "/api/v1", "starlette": "/base"}
#: And with ``spool_request=True``.
SPOOLED = "/spooled"


@pytest.fixture(scope="module", params=FRAMEWORKS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The app of a framework at the root of a uvicorn."""
    loop = "asyncio" if request.param == "flask" else "uvloop"

    def command(port: int) -> list[str]:
        options = ["--http=httptools", f"--loop={loop}", "--no-access-log", f"--port={port}"]
        return module("uvicorn", *options, "interop.frameworks.mounted_wsgi:application")

    app = f"interop.frameworks.wsgi_{request.param}:app"
    with serving(FRAMEWORKS[request.param], app, command, tmp_path_factory.mktemp("server")) as site:
        yield site


@pytest.mark.parametrize(("place", "check"), [(place, check) for place, checks in PLACES.items() for check in checks])
def test_framework_does_what_it_does_elsewhere(
    whole: Site, place: str, check: str, request: pytest.FixtureRequest
) -> None:
    """A check of the contract holds, or fails where the framework is known not to do it."""
    CHECKS[check](expecting(check, replace(whole, prefix=PREFIXES[place]), request))


def test_large_chunked_body_arrives_where_it_is_spooled(whole: Site) -> None:
    """With ``spool_request=True`` there is no body without a length."""
    large_chunked_body_arrives(replace(whole, prefix=SPOOLED))


@needs_proc
@pytest.mark.parametrize("prefix", ["", SPOOLED], ids=["streamed", "spooled"])
def test_upload_leaves_no_file(whole: Site, prefix: str, request: pytest.FixtureRequest) -> None:
    """What was stored away of an upload, by the framework or by the bridge, is gone after the response."""
    upload_leaves_no_file(expecting("upload_leaves_no_file", replace(whole, prefix=prefix), request))
