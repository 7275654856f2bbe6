"""WebSockets in a real browser: FastAPI's on gunicorn, and Flask-Sock's on uvicorn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("websockets")
pytest.importorskip("flask_sock")

from interop.websocket_servers import gunicorn
from support.servers import Server, module, running

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

SERVERS: dict[str, Callable[[int, Path], Sequence[str]]] = {
    "fastapi-on-gunicorn": gunicorn("--threads=4", app="interop.websocket_browser_apps:on_wsgi"),
    "flask-on-uvicorn": lambda port, _: module("uvicorn", f"--port={port}", "interop.websocket_browser_apps:on_asgi"),
}

#: What the page does, and what it finds. Selenium calls ``done``.
SCRIPT = """
const done = arguments[arguments.length - 1];
const url = location.origin.replace("http", "ws");

function opened(path, protocols) {
    return new Promise((resolve) => {
        const ws = new WebSocket(url + path, protocols || []), found = {messages: []};
        ws.binaryType = "arraybuffer";
        ws.onmessage = (event) => {
            found.messages.push(event.data);
            if (ws.waits) ws.waits(event.data);
        };
        ws.onerror = () => { found.failed = true; };
        ws.onclose = (event) => {
            Object.assign(found, {code: event.code, reason: event.reason, clean: event.wasClean});
            ws.found = found;
            if (ws.closes) ws.closes(found);
            resolve(ws);  // where it was never open
        };
        ws.onopen = () => resolve(ws);
    });
}
const next = (ws) => new Promise((resolve) => { ws.waits = resolve; });
const closed = (ws) => ws.found || new Promise((resolve) => { ws.closes = resolve; });

async function run() {
    const report = {};
    const ws = await opened("/echo", ["a", "b"]);
    report.protocol = ws.protocol;
    report.extensions = ws.extensions;
    const text = "grüße ".repeat(17_000);
    let answer = next(ws);
    ws.send(text);
    report.text = (await answer) === text;
    const bytes = new Uint8Array(300_000).map((_, at) => at * 7);
    answer = next(ws);
    ws.send(bytes);
    const came = new Uint8Array(await answer);
    report.bytes = came.length === bytes.length && came.every((value, at) => value === bytes[at]);
    ws.close(4000, "mine");
    report.mine = await closed(ws);
    report.theirs = await closed(await opened("/close"));
    report.denied = await closed(await opened("/deny"));
    for (const found of [report.mine, report.theirs, report.denied]) delete found.messages;
    return report;
}
run().then(done, (error) => done({error: String(error)}));
"""


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Each server in turn."""
    directory: Path = tmp_path_factory.mktemp("server")
    command = SERVERS[request.param]
    with running(lambda port: command(port, directory), directory) as server:
        yield server


def test_page_talks_over_websockets(server: Server, chromium: Any) -> None:
    """Long messages, compression, a subprotocol, each side's close, and a denial."""
    chromium.set_script_timeout(60)
    chromium.get(f"http://127.0.0.1:{server.port}/")
    report: dict[str, Any] = chromium.execute_async_script(SCRIPT)
    assert report.pop("extensions", "").startswith("permessage-deflate"), report
    assert report == {
        "protocol": "b",
        "text": True,
        "bytes": True,
        "mine": {"code": 4000, "reason": "mine", "clean": True},
        "theirs": {"code": 4001, "reason": "bye", "clean": True},
        "denied": {"failed": True, "code": 1006, "reason": "", "clean": False},
    }, json.dumps(report)
