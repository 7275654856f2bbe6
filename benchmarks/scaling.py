"""How time grows with the size of a body, the number of chunks and the number of requests at once.

Prints an exponent for each contender: the slope of the logarithm of the time over that of the size.

    python benchmarks/scaling.py [--quick]
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import contenders
from drivers import ASGIServer, Driver, Work, WSGIServer, each_of, failing
from measure import Row, Section, interleave, main, progress

import apps

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "scaling"
KIB_64 = 64 * 1024
PASS_SECONDS = 0.02  # how long a pass takes at least: a small size is done several times
ENOUGH_SECONDS = 1.5  # who takes longer for one size is not asked for the next, bigger one

#: kind -> the unit of its sizes, the sizes, and the request and the number at once that a size stands for
KINDS: dict[str, tuple[str, tuple[int, ...], Callable[[int], tuple[Work, int]]]] = {
    "body up": (
        "MiB",
        (1, 4, 16, 64, 256),
        lambda size: (Work("", "/upload", body=(16 * size, KIB_64)), 1),
    ),
    "body down": (
        "MiB",
        (1, 4, 16, 64, 256),
        lambda size: (Work("", "/stream", f"{16 * size}x{KIB_64}"), 1),
    ),
    "chunks of 100 B": (
        "chunks",
        (100, 1_000, 10_000, 100_000),
        lambda size: (Work("", "/stream", f"{size}x100"), 1),
    ),
    "requests at once": (
        "at once",
        (1, 10, 100, 1_000),
        lambda size: (Work("", "/hello"), size),
    ),
}


def exponent(points: list[tuple[float, float]]) -> float:
    """The slope of log y over log x."""
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    return covariance / sum((x - x_mean) ** 2 for x in xs)


def run(*, quick: bool, rounds: int) -> Section:
    section = Section(
        NAME,
        "Scaling",
        "Seconds for all of it: less is better. The exponent is the slope of the logarithm of the time over that of "
        "the size, by least squares: 1 is linear, 2 quadratic, less than 1 means that a part does not grow. Its value "
        f"is the median over the rounds. Who takes more than {ENOUGH_SECONDS:g} s is not asked for the next size.",
    )
    for kind, (unit, sizes, work_of) in KINDS.items():
        for direction, driver, makers in (
            ("WSGI on ASGI", ASGIServer(asyncio.new_event_loop()), contenders.WSGI_ON_ASGI),
            ("ASGI on WSGI", WSGIServer(), contenders.ASGI_ON_WSGI),
        ):
            title = f"{direction}, {kind}"
            progress([title])
            asked = [size for size in sizes if not quick or size <= {"MiB": 16, "chunks": 1_000, "at once": 100}[unit]]
            app = apps.wsgi if direction == "WSGI on ASGI" else apps.asgi
            native = apps.asgi if direction == "WSGI on ASGI" else apps.wsgi
            candidates = {name: make(app, contenders.THREADS) for name, make in makers.items()}
            candidates["native app"] = native
            if isinstance(driver, ASGIServer):
                driver.run(_prepare())
            section.rows += _grow(title, driver, candidates, sizes=asked, unit=unit, work_of=work_of, rounds=rounds)
            driver.close()
    return section


async def _prepare() -> None:
    contenders.same_threads(contenders.THREADS)


def _grow(
    title: str,
    driver: Driver,
    candidates: dict[str, Any],
    *,
    sizes: list[int],
    unit: str,
    work_of: Callable[[int], tuple[Work, int]],
    rounds: int,
) -> list[Row]:
    """A row for each contender and size, and one for each contender's exponent. All sizes are done in each round."""
    rows: dict[tuple[str, int], Row] = {}
    each: dict[tuple[str, int], int] = {}
    for name, app in candidates.items():
        for size in sizes:
            work, at_once = work_of(size)
            row = Row(NAME, f"{title}, {size:,} {unit}", name, "s", higher_is_better=False, extra={"size": size})
            rows[name, size] = row
            seconds = math.inf
            with failing(row):
                if size == sizes[0]:
                    driver.check(app, work)
                each[name, size], seconds = each_of(driver, app, work, at_once, PASS_SECONDS)
            if seconds > ENOUGH_SECONDS:
                if row.failure is None:
                    row.values.append(seconds)
                break
    exponents = {name: Row(NAME, f"{title}, exponent", name, "", higher_is_better=False) for name in candidates}
    for _, name in interleave(list(candidates), rounds):
        points = []
        for size in sizes:
            row = rows.get((name, size))
            if row is None or row.failure is not None:
                break
            if sum(row.values) < ENOUGH_SECONDS:
                work, at_once = work_of(size)
                with failing(row):
                    count = each[name, size]
                    row.values.append(driver.seconds(candidates[name], work, count, at_once) / count)
            if row.median is not None:
                points.append((size, row.values[-1]))
        if len(points) > 1:
            exponents[name].values.append(exponent(points))
    return [*(rows[key] for key in sorted(rows, key=lambda key: key[1])), *exponents.values()]


if __name__ == "__main__":
    main(run)
