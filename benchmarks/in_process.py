"""Both directions in process: no socket, no server, only what a bridge itself costs.

python benchmarks/in_process.py [--quick]
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import contenders
import uvloop
from drivers import ASGIServer, HopToLoop, HopToThread, Work, WSGIServer, compare
from measure import Row, Section, main, progress

import apps

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "in_process"
WSGI_ON_ASGI = "WSGI on ASGI"
ASGI_ON_WSGI = "ASGI on WSGI"
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

HELLO = Work("hello", "/hello")
ECHO = Work("1 KiB echo", "/echo", body=(1, 1024))
STREAM = Work("100 x 1 KiB", "/stream", "100x1024")
KIB_64 = 64 * 1024
ALONE = (
    HELLO,
    ECHO,
    STREAM,
    Work("20,000 x 100 B", "/stream", "20000x100", unit="chunks/s", units=20_000),
    Work("64 MiB up", "/upload", body=(1024, KIB_64), unit="MiB/s", units=64),
    Work("64 MiB down", "/stream", f"1024x{KIB_64}", unit="MiB/s", units=64),
)
#: Fifty times as much would take minutes and gigabytes: so each of the fifty sends and receives less.
MANY = (
    HELLO,
    ECHO,
    STREAM,
    Work("200 x 100 B", "/stream", "200x100", unit="chunks/s", units=200),
    Work("1 MiB up", "/upload", body=(16, KIB_64), unit="MiB/s", units=1),
    Work("1 MiB down", "/stream", f"16x{KIB_64}", unit="MiB/s", units=1),
)
QUICK = {"hello", "100 x 1 KiB"}


def run(*, quick: bool, rounds: int) -> Section:
    section = Section(
        NAME,
        "In process",
        f"A benchmark's own server side calls the bridge; the same app object for all; {contenders.THREADS} threads "
        "for each bridge that has any of its own (asgiref's has one). Uploads come in messages of 64 KiB and are read "
        "8 KiB at a time by the WSGI app. `bare hop` answers no request: it wakes a waiting thread (or loop) and is "
        "woken, which no bridge can do without. The native app is called with no bridge at all.",
    )
    # Short passes and many: what else the machine does then falls on all contenders alike.
    once = functools.partial(compare, rounds=rounds if quick else 3 * rounds, pass_seconds=0.04)
    for loop, new_loop in LOOPS.items():
        for at_once, work in _works(quick=quick and loop == "asyncio"):
            if quick and loop == "uvloop" and work is not HELLO:
                continue
            title = f"{WSGI_ON_ASGI}, {loop}, {work.name}, {at_once} at once"
            progress([title])
            server = ASGIServer(new_loop())
            server.run(_prepare())
            hop = HopToThread()
            apps_by_name = {name: make(apps.wsgi, contenders.THREADS) for name, make in contenders.WSGI_ON_ASGI.items()}
            apps_by_name[contenders.NATIVE_ASGI] = apps.asgi
            if work is HELLO:
                apps_by_name["bare hop"] = hop
            section.rows += once(server, apps_by_name, work, _row(title, work), at_once=at_once)
            hop.close()
            server.close()
    for at_once, work in _works(quick=quick):
        title = f"{ASGI_ON_WSGI}, {work.name}, {at_once} at once"
        progress([title])
        apps_by_name = {name: make(apps.asgi, 0) for name, make in contenders.ASGI_ON_WSGI.items()}
        apps_by_name[contenders.NATIVE_WSGI] = apps.wsgi
        hops = []
        if work is HELLO:
            hops = [HopToLoop(task=False), HopToLoop(task=True)]
            apps_by_name |= {"bare hop": hops[0], "bare hop to a task": hops[1]}
        section.rows += once(WSGIServer(), apps_by_name, work, _row(title, work), at_once=at_once)
        for hop_to_loop in hops:
            hop_to_loop.close()
    return section


def _works(*, quick: bool) -> list[tuple[int, Work]]:
    works = [*((1, work) for work in ALONE), *((50, work) for work in MANY)]
    return [(at_once, work) for at_once, work in works if not quick or work.name in QUICK]


async def _prepare() -> None:
    contenders.same_threads(contenders.THREADS)


def _row(title: str, work: Work) -> Any:
    return lambda contender: Row(NAME, title, contender, work.unit)


if __name__ == "__main__":
    main(run)
