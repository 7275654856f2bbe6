"""The examples: short, and each is run as its reader would, by the command that its docstring has.

That of Ray has its test in `interop.test_ray_serve`, and the demo in `test_examples`.
"""

from __future__ import annotations

import ast
import hashlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from interop.mcp_client import use
from interop.servers import SERVERS, Start
from support.servers import Server, module, running, until

httpx = pytest.importorskip("httpx")

pytestmark = pytest.mark.interop

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SHORT = {path.name for path in EXAMPLES.iterdir() if path.is_file() and not path.stem.startswith("demo")}
SECONDS = 10.0

#: Those that a test here, or in `interop.test_ray_serve`, runs.
RUN = {
    "dash_in_starlette.py",
    "django_async_views.py",
    "django_in_fastapi.py",
    "fastapi_in_flask.py",
    "fastapi_on_gunicorn.py",
    "fastapi_on_mod_wsgi.wsgi",
    "fastapi_on_uwsgi.py",
    "fastapi_websockets_on_gunicorn.py",
    "flask_async_views.py",
    "flask_in_fastapi.py",
    "flask_on_lambda.py",
    "flask_on_ray.py",
    "flask_sock_on_uvicorn.py",
    "llm_stream.py",
    "mcp_in_django.py",
    "mcp_in_flask.py",
    "passenger_wsgi.py",
    "prometheus_statistics.py",
    "server_sent_events.py",
    "upload_to_flask.py",
    "websocket_chat.py",
}


def test_every_example_is_short_and_is_run() -> None:
    """At most 40 lines, and by a test."""
    lengths = {name: len((EXAMPLES / name).read_text("utf-8").splitlines()) for name in SHORT}
    assert {name: length for name, length in lengths.items() if length > 40} == {}
    assert SHORT == RUN


def test_every_example_is_in_the_documentation() -> None:
    """Once, as it stands."""
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text("utf-8")
    assert sorted(re.findall(r"^```\{literalinclude\} \.\./examples/(.+)$", page, re.MULTILINE)) == sorted(SHORT)


# -- How they are run ---------------------------------------------------------------------------------------------


def shown(example: str) -> str:
    """The first line that an example's docstring shows below its summary: how to run it."""
    docstring = ast.get_docstring(ast.parse((EXAMPLES / example).read_text("utf-8")))
    assert docstring is not None
    return docstring.split("\n\n")[1].splitlines()[0]


def command_of(example: str, port: int) -> Sequence[str]:
    """That command, for this interpreter's server, which listens where we want it to."""
    program, *arguments = shlex.split(shown(example))
    if program == "uwsgi":
        here = [argument.replace("127.0.0.1:8000", f"127.0.0.1:{port}") for argument in arguments]
        assert here != arguments
        return [str(Path(sys.executable).parent / "pyuwsgi"), *here]
    where = {"uvicorn": ["--port", str(port)], "gunicorn": ["--bind", f"127.0.0.1:{port}", "--no-control-socket"]}
    return module(program, *where[program], *arguments)


def python_path() -> str:
    """Where the examples are imported from, as by whoever is in their directory."""
    return os.pathsep.join(filter(None, [str(EXAMPLES), os.environ.get("PYTHONPATH")]))


@contextmanager
def served(
    example: str,
    directory: Path,
    *needs: str,
    command: Callable[[int], Sequence[str]] | None = None,
    ready: str = "/",
) -> Iterator[Server]:
    """An example, from its first answer to its end, when it must have shown no traceback.

    It ends by SIGINT, as on Ctrl-C; on gunicorn by SIGTERM. For SIGINT makes a gthread worker take the lock of its
    ThreadPoolExecutor in a signal handler, which waits for ever if the worker was submitting a request: the end of a
    client's connection is one to it.

    Args:
        example: The name of its file.
        directory: For what it prints.
        needs: What must be installed.
        command: Its command line, given the port; by default the one that its docstring has.
        ready: The path of the first request.
    """
    for package in needs:
        pytest.importorskip(package)
    environment = {"PYTHONPATH": python_path()}
    command = command or (lambda port: command_of(example, port))
    with running(command, directory, environment=environment, ready=ready) as server:
        yield server
        server.signal(signal.SIGTERM if "gunicorn" in command(server.port) else signal.SIGINT)
        server.wait()
        assert "Traceback" not in server.output()


def at(server: Server, path: str = "/") -> str:
    """The URL of a path."""
    return f"http://127.0.0.1:{server.port}{path}"


def get(server: Server, path: str = "/") -> Any:
    """What it answers ``GET path`` with, as JSON."""
    response = httpx.get(at(server, path), timeout=SECONDS)
    assert response.status_code == 200
    return response.json()


# -- WSGI apps on ASGI servers ------------------------------------------------------------------------------------


def test_flask_in_fastapi(tmp_path: Path) -> None:
    """Each framework answers what is its own, and Flask knows where it is mounted."""
    with served("flask_in_fastapi.py", tmp_path, "fastapi", "flask", "uvicorn") as server:
        assert get(server, "/hello") == {"hello": "from FastAPI"}
        assert get(server, "/flask/hello") == {"hello": "from Flask", "url": "/flask/hello"}
        assert httpx.get(at(server, "/flask/nowhere"), timeout=SECONDS).status_code == 404


def test_django_in_fastapi(tmp_path: Path) -> None:
    """Each framework answers what is its own, and Django knows where it is mounted."""
    with served("django_in_fastapi.py", tmp_path, "django", "fastapi", "uvicorn") as server:
        assert get(server, "/hello") == {"hello": "from FastAPI"}
        assert get(server, "/django/hello") == {"hello": "from Django", "url": "/django/hello"}


def test_flask_async_views(tmp_path: Path) -> None:
    """The views fetch from their own server, on its loop, from request to request."""
    with served("flask_async_views.py", tmp_path, "flask", "uvicorn", ready="/page/1") as server:
        assert [get(server) for _ in range(3)] == [[0, 1, 2]] * 3


def test_django_async_views(tmp_path: Path) -> None:
    """The same in Django."""
    with served("django_async_views.py", tmp_path, "django", "uvicorn", ready="/page") as server:
        assert [get(server) for _ in range(3)] == [["hello"] * 3] * 3


def test_dash_in_starlette(tmp_path: Path) -> None:
    """The page, what it loads, and the callback are below the prefix."""
    with served("dash_in_starlette.py", tmp_path, "dash", "starlette", "uvicorn") as server:
        page = httpx.get(at(server), timeout=SECONDS, follow_redirects=True)
        assert (page.status_code, page.url.path) == (200, "/dash/")
        scripts = re.findall(r'<script src="(/[^"]+)"', page.text)
        assert scripts
        assert {httpx.get(at(server, script), timeout=SECONDS).status_code for script in scripts} == {200}
        callback = {
            "output": "greeting.children",
            "outputs": {"id": "greeting", "property": "children"},
            "inputs": [{"id": "name", "property": "value", "value": "reader"}],
            "changedPropIds": ["name.value"],
        }
        answer = httpx.post(at(server, "/dash/_dash-update-component"), json=callback, timeout=SECONDS)
        assert answer.json()["response"] == {"greeting": {"children": "Hello from reader"}}


def test_upload_to_flask(tmp_path: Path) -> None:
    """A body of any length has its checksum, with its length said and without; one that is too long is refused."""
    content = os.urandom(20_000_000)
    expected = {"name": "file", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with served("upload_to_flask.py", tmp_path, "flask", "uvicorn") as server:
        for body in (content, iter([content[:7], content[7:]])):
            assert httpx.put(at(server, "/file"), content=body, timeout=SECONDS).json() == expected
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)) as connection:
            connection.putrequest("PUT", "/file")
            connection.putheader("Content-Length", str(10 * 1024**3 + 1))
            connection.endheaders()
            with connection.getresponse() as response:
                assert response.status == 413


def test_server_sent_events(tmp_path: Path) -> None:
    """What is posted comes to each client that listens."""
    with served("server_sent_events.py", tmp_path, "flask", "uvicorn") as server:
        with ExitStack() as stack:
            listening = [
                stack.enter_context(httpx.stream("GET", at(server), timeout=SECONDS)).iter_lines() for _ in range(3)
            ]
            assert [next(lines) for lines in listening] == [": welcome"] * 3
            for message in ("Hello, all", "And again"):
                httpx.post(at(server), content=message, timeout=SECONDS)
                heard = [next(line for line in lines if line.startswith("data")) for lines in listening]
                assert heard == [f"data: {message}"] * 3
        httpx.post(at(server), content="Nobody listens", timeout=SECONDS)


def test_llm_stream_stops_when_the_client_leaves(tmp_path: Path) -> None:
    """The model, which never comes to an end by itself, is stopped soon after the client has left, and not before."""
    stopped = re.compile(r"The model was stopped after (\d+) tokens")
    with served("llm_stream.py", tmp_path, "flask", "uvicorn") as server:
        with httpx.stream("POST", at(server, "/chat"), json={"prompt": "Hello"}, timeout=SECONDS) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            events = (line.removeprefix("data: ") for line in response.iter_lines() if line)
            assert "".join(json.loads(next(events)) for _ in range(6)) == "You said: Hello. Let me think. "
            assert not stopped.search(server.output())
        until(lambda: stopped.search(server.output()) is not None, "the model is stopped", SECONDS)
        (tokens,) = stopped.findall(server.output())
        assert int(tokens) >= 6
        # Its thread is free: the next client is answered.
        with httpx.stream("POST", at(server, "/chat"), json={"prompt": "Again"}, timeout=SECONDS) as response:
            assert next(response.iter_lines()) == 'data: "You "'
        until(lambda: len(stopped.findall(server.output())) == 2, "the model is stopped again", SECONDS)


def test_prometheus_statistics(tmp_path: Path) -> None:
    """The metrics are those of the bridge at the moment: they change with what its clients do."""
    parser: Any = pytest.importorskip("prometheus_client.parser")
    with served("prometheus_statistics.py", tmp_path, "flask", "starlette", "uvicorn", ready="/metrics") as server:

        def metrics() -> dict[str, float]:
            response = httpx.get(at(server, "/metrics"), timeout=SECONDS)
            assert response.headers["content-type"].startswith("text/plain")
            families = parser.text_string_to_metric_families(response.text)
            return {sample.name: sample.value for family in families for sample in family.samples}

        def count(name: str) -> float:
            return metrics()[f"a2wsgi_{name}"]

        statistics = {f"a2wsgi_{name}" for name in ("workers", "busy", "queued", "in_flight")}
        statistics |= {f"a2wsgi_{name}_total" for name in ("shed", "disconnected", "stalled", "timed_out")}
        assert {name: value for name, value in metrics().items() if name in statistics} == dict.fromkeys(statistics, 0)
        assert httpx.get(at(server, "/nowhere"), timeout=SECONDS).status_code == 404
        assert (count("queued_seconds_count"), count("workers")) == (1, 1)
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS)) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
            until(lambda: count("in_flight") == 1, "the upload is counted", SECONDS)
            assert count("disconnected_total") == 0
        until(lambda: count("disconnected_total") == 1, "the client that left is counted", SECONDS)
        assert count("in_flight") == 0


@pytest.fixture(scope="module")
def lambda_handler() -> Iterator[Callable[[dict[str, Any]], Any]]:
    """Give the function's handler, in a process that stays, as between two events at AWS."""
    pytest.importorskip("flask")
    pytest.importorskip("mangum")
    runtime = (
        "import json, sys, flask_on_lambda\n"
        "for line in sys.stdin: print(json.dumps(flask_on_lambda.handler(json.loads(line), None)), flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", runtime],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path()},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        read, write = process.stdout.readline, process.stdin

        def handle(event: dict[str, Any]) -> Any:
            write.write(json.dumps(event) + "\n")
            write.flush()
            return json.loads(read())

        yield handle


def of_api_gateway_2(path: str) -> dict[str, Any]:
    """An event of an HTTP API, or of a function URL: "payload format version 2.0"."""
    http_part = {"method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "test"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "api.example", "x-forwarded-proto": "https", "x-forwarded-port": "443"},
        "requestContext": {"http": http_part, "stage": "$default", "domainName": "api.example"},
        "isBase64Encoded": False,
    }


def of_api_gateway_1(path: str) -> dict[str, Any]:
    """An event of a REST API: "payload format version 1.0"."""
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": "GET",
        "headers": {"Host": "api.example", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "443"},
        "multiValueHeaders": {"Host": ["api.example"]},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "requestContext": {"httpMethod": "GET", "path": path, "stage": "prod", "identity": {"sourceIp": "192.0.2.1"}},
        "body": None,
        "isBase64Encoded": False,
    }


def of_load_balancer(path: str) -> dict[str, Any]:
    """An event of an application load balancer."""
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:region:1:targetgroup/t/1"}},
        "httpMethod": "GET",
        "path": path,
        "queryStringParameters": {},
        "headers": {"host": "api.example", "x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "https"},
        "body": "",
        "isBase64Encoded": False,
    }


@pytest.mark.parametrize(
    "event", [of_api_gateway_2, of_api_gateway_1, of_load_balancer], ids=lambda event: event.__name__
)
def test_flask_on_lambda(lambda_handler: Callable[[dict[str, Any]], Any], event: Callable[[str], Any]) -> None:
    """Event after event is answered by Flask, also one for which it has no page."""
    for name in ("you", "you again"):
        answer = lambda_handler(event(f"/hello/{name}"))
        assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"hello": name})
    assert lambda_handler(event("/nowhere"))["statusCode"] == 404


# -- ASGI apps on WSGI servers ------------------------------------------------------------------------------------


def test_fastapi_in_flask(tmp_path: Path) -> None:
    """Each framework answers what is its own, and FastAPI knows where it is mounted."""
    with served("fastapi_in_flask.py", tmp_path, "fastapi", "flask", "gunicorn", ready="/hello") as server:
        assert get(server, "/hello") == {"hello": "from Flask"}
        assert get(server, "/api/hello") == {"hello": "from FastAPI", "url": "/api/hello"}
        assert "/api/openapi.json" in httpx.get(at(server, "/api/docs"), timeout=SECONDS).text


@pytest.mark.parametrize("example", ["mcp_in_django.py", "mcp_in_flask.py"])
def test_mcp_in_a_wsgi_framework(example: str, tmp_path: Path) -> None:
    """The tool is called by the real client."""
    framework = example.removeprefix("mcp_in_").removesuffix(".py")
    with served(example, tmp_path, framework, "mcp", "gunicorn", ready="/nowhere") as server:
        assert [(used.tools, used.result) for used in use(at(server, "/mcp/"))] == [(["add"], {"result": 5})] * 2


def test_fastapi_on_gunicorn(tmp_path: Path) -> None:
    """Though the app is loaded before the fork, its lifespan began in the worker that answers."""
    with served("fastapi_on_gunicorn.py", tmp_path, "fastapi", "gunicorn") as server:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: get(server), range(40)))
        assert {answer["hello"] for answer in answers} == {"from FastAPI"}
        workers = set(map(int, re.findall(r"Booting worker with pid: (\d+)", server.output())))
        assert len(workers) == 2
        assert {answer["started in"] for answer in answers} <= workers


def test_fastapi_websockets_on_gunicorn(tmp_path: Path) -> None:
    """What one says, all are told; and more are connected than there are threads."""
    client = pytest.importorskip("websockets.sync.client")
    with served("fastapi_websockets_on_gunicorn.py", tmp_path, "fastapi", "gunicorn") as server, ExitStack() as stack:
        uri = at(server, "/chat").replace("http", "ws")
        sockets = [stack.enter_context(client.connect(uri)) for _ in range(8)]
        assert "new WebSocket" in httpx.get(at(server, "/"), timeout=SECONDS).text
        sockets[0].send("hello")
        assert [ws.recv(SECONDS) for ws in sockets] == ["hello"] * 8


def test_fastapi_on_uwsgi(tmp_path: Path) -> None:
    """It answers, also to an upload and to many at once."""
    with served("fastapi_on_uwsgi.py", tmp_path, "fastapi", "pyuwsgi") as server:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: get(server), range(40)))
        assert answers == [{"hello": "from FastAPI"}] * 40
        assert httpx.put(at(server, "/length"), content=b"x" * 5_000_000, timeout=SECONDS).json() == 5_000_000


def test_fastapi_on_mod_wsgi(tmp_path: Path) -> None:
    """Debian's Apache answers with it, by the directive that the example shows."""
    example = "fastapi_on_mod_wsgi.wsgi"
    apache = SERVERS["mod_wsgi"]
    if missing := apache.missing():
        pytest.skip(missing)
    assert shown(example).startswith("WSGIScriptAlias / ")

    def command(port: int) -> Sequence[str]:
        line = apache.command(Start("none:none", port, tmp_path, ""))
        configuration = tmp_path / "apache.conf"
        directive = shown(example).replace("/srv/app", str(tmp_path))
        text, changed = re.subn("^WSGIScriptAlias .*$", directive, configuration.read_text(), flags=re.MULTILINE)
        assert changed == 1
        configuration.write_text(text)
        shutil.copy(EXAMPLES / example, tmp_path)
        return line

    with running(command, tmp_path) as server:
        assert get(server) == {"hello": "from FastAPI"}
        assert httpx.get(at(server, "/nowhere"), timeout=SECONDS).json() == {"detail": "Not Found"}


#: Stands for Passenger's wsgi-loader.py, which takes the file of that name and answers one request at a time with it.
#: wsgiref takes a KeyboardInterrupt that comes during a request for the app's error, and serves on.
PASSENGER = """
import importlib.util, signal, sys, threading, wsgiref.simple_server
spec = importlib.util.spec_from_file_location("passenger_wsgi", sys.argv[1])
sys.modules["passenger_wsgi"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
server = wsgiref.simple_server.make_server("127.0.0.1", int(sys.argv[2]), module.application)
signal.signal(signal.SIGINT, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
"""


def test_passenger_wsgi(tmp_path: Path) -> None:
    """A server that asks the file for its ``application``, as Passenger does, is answered by FastAPI."""
    example = EXAMPLES / "passenger_wsgi.py"
    with served(
        example.name,
        tmp_path,
        "fastapi",
        command=lambda port: [sys.executable, "-c", PASSENGER, str(example), str(port)],
    ) as server:
        assert [get(server), get(server)] == [{"hello": "from FastAPI"}] * 2
        assert httpx.get(at(server, "/nowhere"), timeout=SECONDS).json() == {"detail": "Not Found"}


def test_websocket_chat_tells_everybody(tmp_path: Path) -> None:
    """What one says, both hear."""
    client = pytest.importorskip("websockets.sync.client")
    with served("websocket_chat.py", tmp_path, "uvicorn") as server:
        url = f"ws://127.0.0.1:{server.port}/"
        with client.connect(url) as one, client.connect(url) as two:
            two.send("hello")  # so it is in the room
            assert two.recv(timeout=SECONDS) == "hello"
            one.send("hi")
            assert one.recv(timeout=SECONDS) in {"hello", "hi"}
            assert two.recv(timeout=SECONDS) == "hi"


def test_flask_sock_on_uvicorn_counts(tmp_path: Path) -> None:
    """Until it is told to stop."""
    client = pytest.importorskip("websockets.sync.client")
    closed = pytest.importorskip("websockets.exceptions").ConnectionClosed
    with served("flask_sock_on_uvicorn.py", tmp_path, "flask_sock", "uvicorn") as server:
        assert "new WebSocket" in httpx.get(at(server, "/"), timeout=SECONDS).text
        with client.connect(at(server, "/count").replace("http", "ws")) as ws:
            assert [ws.recv(timeout=SECONDS) for _ in range(3)] == ["1", "2", "3"]
            ws.send("stop")
            with pytest.raises(closed) as caught:  # noqa: PT012 - after whatever it has counted meanwhile
                while True:
                    ws.recv(timeout=SECONDS)
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1000, "You said so.")
