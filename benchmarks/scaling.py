"""How time grows with the size of a body, the number of chunks, of headers and of requests at once.

Prints an exponent for each contender: the slope of the logarithm of the time over that of the size.

    python benchmarks/scaling.py [--quick]
"""

from __future__ import annotations

import asyncio
import gc
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import contenders
from drivers import ASGIServer, Driver, Work, WSGIServer, failing
from measure import Row, Section, interleave, main, progress

import apps

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "scaling"
KIB_64 = 64 * 1024
SAMPLE_SECONDS = 0.02  # a value is the median of as many passes as go into this,
LEAST_PASSES = 3  # of at least so many,
LONG_SECONDS = 0.5  # unless they take longer than this,
MOST_PASSES = 100  # and of at most so many
ENOUGH_SECONDS = 1.5  # who takes longer for one size is not asked for the next, bigger one


@dataclass(frozen=True)
class Kind:
    """Something that grows.

    Attributes:
        name: What it is called.
        unit: Of the sizes.
        sizes: From small to big.
        quick: How many of them a quick run takes.
        work: The request that a size stands for.
        clients: Whether the size is the number of clients.
        each: How many requests each client makes.
    """

    name: str
    unit: str
    sizes: tuple[int, ...]
    quick: int
    work: Callable[[int], Work]
    clients: bool = False
    each: int = 1


KINDS = (
    Kind("body up", "MiB", (1, 4, 16, 64, 256), 3, lambda size: Work("", "/upload", body=(16 * size, KIB_64))),
    Kind("body down", "MiB", (1, 4, 16, 64, 256), 3, lambda size: Work("", "/stream", f"{16 * size}x{KIB_64}")),
    Kind(
        "chunks of 100 B", "chunks", (100, 1_000, 10_000, 100_000), 2, lambda size: Work("", "/stream", f"{size}x100")
    ),
    # A client may repeat a header as often as its server lets it (uvicorn with httptools has no limit). From here on,
    # the values take fresh pages of memory for each request, whose cost would else look like an exponent.
    Kind("header repeated", "headers", (16_000, 64_000, 256_000), 2, lambda size: Work("", "/hello", repeats=size)),
    # Ten requests by each: with one, to wake the clients' threads would be much of what is timed.
    Kind("requests at once", "at once", (1, 10, 100, 1_000), 2, lambda _: Work("", "/hello"), clients=True, each=10),
)


def exponent(points: list[tuple[float, float]]) -> float:
    """The slope of log y over log x, by least squares."""
    return statistics.linear_regression([math.log(x) for x, _ in points], [math.log(y) for _, y in points]).slope


def sample(driver: Driver, app: Any, kind: Kind, size: int) -> float:
    """How long one size takes: the median of some passes, since a short one alone says little."""
    work, at_once = kind.work(size), size if kind.clients else 1
    gc.collect()
    passes: list[float] = []
    while len(passes) < MOST_PASSES and sum(passes) < (SAMPLE_SECONDS if len(passes) >= LEAST_PASSES else LONG_SECONDS):
        passes.append(driver.seconds(app, work, kind.each, at_once))
    return statistics.median(passes)


def grow(
    title: str, driver: Driver, candidates: dict[str, Any], kind: Kind, *, sizes: list[int], rounds: int
) -> list[Row]:
    """A row for each size and contender, and one for each contender's exponent: that of all its sizes in one round."""
    rows = {
        (size, name): Row(
            NAME, f"{title}, {size:,} {kind.unit}", name, "s", higher_is_better=False, extra={"size": size}
        )
        for size in sizes
        for name in candidates
    }
    exponents = {name: Row(NAME, f"{title}, exponent", name, "", higher_is_better=False) for name in candidates}
    last = dict.fromkeys(candidates, sizes[-1])  # the biggest size that each is asked for
    for name, app in candidates.items():
        with failing(exponents[name]):
            driver.check(app, kind.work(sizes[0]))
            sample(driver, app, kind, sizes[0])  # warms up
    for _, name in interleave(list(candidates), rounds):
        points: list[tuple[float, float]] = []
        for size in sizes:
            if size > last[name] or exponents[name].failure:
                break
            row = rows[size, name]
            with failing(row):
                if not row.values or row.values[-1] <= ENOUGH_SECONDS:
                    row.values.append(sample(driver, candidates[name], kind, size))
                points.append((size, row.values[-1]))
            if row.failure or row.values[-1] > ENOUGH_SECONDS:
                last[name] = size
        if len(points) > 1:
            exponents[name].values.append(exponent(points))
    return [*(row for row in rows.values() if row.values or row.failure), *exponents.values()]


def run(*, quick: bool, rounds: int) -> Section:
    section = Section(
        NAME,
        "Scaling",
        "Seconds for all of it: less is better. The exponent is the slope of the logarithm of the time over that of "
        "the size, by least squares: 1 is linear, 2 quadratic, less than 1 means that a part does not grow. Its value "
        f"is the median over the rounds. A contender that takes more than {ENOUGH_SECONDS:g} s for one size skips the "
        "larger ones.",
    )
    for kind in KINDS:
        for direction, driver, makers, app, native in (
            ("WSGI on ASGI", ASGIServer(asyncio.new_event_loop()), contenders.WSGI_ON_ASGI, apps.wsgi, apps.asgi),
            ("ASGI on WSGI", WSGIServer(), contenders.ASGI_ON_WSGI, apps.asgi, apps.wsgi),
        ):
            title = f"{direction}, {kind.name}"
            progress([title])
            if isinstance(driver, ASGIServer):
                driver.run(_prepare())
            candidates = {name: make(app, contenders.THREADS) for name, make in makers.items()}
            candidates["native app"] = native
            sizes = list(kind.sizes[: kind.quick] if quick else kind.sizes)
            section.rows += grow(title, driver, candidates, kind, sizes=sizes, rounds=rounds)
            driver.close()
    return section


async def _prepare() -> None:
    contenders.same_threads(contenders.THREADS)


if __name__ == "__main__":
    main(run)
