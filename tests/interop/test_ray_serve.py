"""A WSGI app as a Ray Serve deployment: several replicas, each a process of its own, behind one proxy.

Ray is large: `make ray` installs it into an environment of its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from a2wsgi import WSGIMiddleware
from support.servers import free_port, until

ray: Any = pytest.importorskip("ray")
serve: Any = pytest.importorskip("ray.serve")
httpx = pytest.importorskip("httpx")

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("default"),  # Ray leaves files and sockets to the collector, and warns of its future
]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
REPLICAS = 2


def build() -> Any:
    """Give the function that builds the app: a nested one, which goes to the replicas by its value."""

    def build_app() -> Any:
        import hashlib
        import os
        from pathlib import Path

        import flask

        from a2wsgi import WSGIMiddleware

        app = flask.Flask("own")

        def chunks(path: Path, gone: Any) -> Any:
            try:
                yield "first\n"
                while not path.exists():
                    gone.wait(0.01)
                    yield "more\n"
                yield "last\n"
            except GeneratorExit:
                path.with_name("left").touch()
                raise

        @app.get("/pid")
        def pid() -> str:
            return str(os.getpid())

        @app.put("/upload")
        def upload() -> dict[str, Any]:
            digest = hashlib.sha256()
            while chunk := flask.request.stream.read(65_536):
                digest.update(chunk)
            return {"sha256": digest.hexdigest(), "root": flask.request.script_root, "path": flask.request.path}

        @app.get("/stream")
        def stream() -> Any:
            path = Path(flask.request.args["until"])
            return app.response_class(chunks(path, flask.request.environ["a2wsgi.disconnected"]), mimetype="text/plain")

        @app.get("/fail")
        def fail() -> str:
            raise ArithmeticError("boom")

        return WSGIMiddleware(app)

    return build_app


@pytest.fixture(scope="session", autouse=True)
def url(_session: None) -> Iterator[str]:
    """Where Ray Serve listens, with the example at ``/`` and an app of ours at ``/own``."""
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        patch.setenv("PYTHONPATH", str(EXAMPLES))  # for the replicas
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("TMPDIR")  # Ray's Unix sockets want a short path
        ray.init(
            num_cpus=2 * REPLICAS,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",  # or it listens where others can reach it
        )
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            import flask_on_ray  # type: ignore[import-not-found]

            serve.run(flask_on_ray.deployment, name="example", route_prefix="/")
            own = serve.deployment(serve.ingress(build())(), num_replicas=REPLICAS).bind()
            serve.run(own, name="own", route_prefix="/own")
            yield f"http://127.0.0.1:{port}"
        finally:
            serve.shutdown()
            ray.shutdown()


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(url: str) -> None:
    """Nothing is compared here: Ray's threads, files and sockets in this process come and go as they like."""


def pids(url: str) -> set[int]:
    """The processes that answer, of a hundred requests."""
    with httpx.Client() as client, ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda _: client.get(url, timeout=30).json(), range(100))
        return {answer["pid"] if isinstance(answer, dict) else answer for answer in answers}


@pytest.mark.parametrize("path", ["/", "/own/pid"], ids=["the example", "an app of ours"])
def test_replicas_are_processes_that_share_the_requests(url: str, path: str) -> None:
    """Each replica answers, and is another process."""
    found = pids(url + path)
    assert len(found) == REPLICAS
    assert os.getpid() not in found


def test_upload_arrives_whole_below_the_prefix(url: str) -> None:
    """20 MB have the same checksum there, and the app knows where it is mounted."""
    content = os.urandom(20_000_000)
    answer = httpx.put(f"{url}/own/upload", content=content, timeout=60)
    assert answer.json() == {"sha256": hashlib.sha256(content).hexdigest(), "root": "/own", "path": "/upload"}


def test_response_is_streamed(url: str, tmp_path: Path) -> None:
    """The first chunk is here before the app has made the last."""
    last = tmp_path / "last"
    with httpx.stream("GET", f"{url}/own/stream", params={"until": str(last)}, timeout=30) as response:
        lines = response.iter_lines()
        assert next(lines) == "first"
        last.touch()
        assert list(lines)[-1] == "last"


def test_app_is_told_that_the_client_left(url: str, tmp_path: Path) -> None:
    """A generator whose client has left is closed."""
    with httpx.stream("GET", f"{url}/own/stream", params={"until": str(tmp_path / "never")}, timeout=30) as response:
        assert next(response.iter_lines()) == "first"
    until((tmp_path / "left").exists, "the generator is closed")


def test_error_is_a_500_and_the_replicas_go_on(url: str) -> None:
    """An app that raises is answered for by Flask, one that is not there too; no replica is lost."""
    before = pids(f"{url}/own/pid")
    assert [httpx.get(f"{url}/own/{path}", timeout=30).status_code for path in ("fail", "nowhere")] == [500, 404]
    assert pids(f"{url}/own/pid") == before


def test_flask_app_is_not_sent_to_a_replica() -> None:
    """Which is why the example gives a function: Ray cannot pickle what Flask's app holds, in a bridge or without."""
    import flask

    with pytest.raises(TypeError, match="Failed to serialize the ASGI app"):
        serve.ingress(WSGIMiddleware(flask.Flask("shop")))()
