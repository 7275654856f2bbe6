"""Runs the app of a framework on a server, and asks it what the contract says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from interop.frameworks.contract import Framework, Site, form_with_a_file_arrives
from interop.processes import open_files
from support.servers import Server, running, until


@contextmanager
def serving(
    framework: Framework, app: str, command: Callable[[int], Sequence[str]], directory: Path, prefix: str = ""
) -> Iterator[Site]:
    """A server with the app of a framework, from its first answer to the end of the block.

    Args:
        framework: What must be there.
        app: ``module:name``, or what else the served module makes of ``A2WSGI_TEST_APP``.
        command: The server's command line, given the port.
        directory: For files of the server's own.
        prefix: Where the server itself was told to have it.
    """
    if missing := framework.missing():
        pytest.skip(missing)
    _temporary_files(directory).mkdir()
    environment = {"A2WSGI_TEST_APP": app, "TMPDIR": str(_temporary_files(directory))}
    with running(command, directory, environment=environment) as server:
        yield Site(framework, server, prefix)


def expecting(
    what: str,
    site: Site,
    request: pytest.FixtureRequest,
    cannot: Mapping[str, str] | None = None,
    *,
    strict: bool = True,
) -> Site:
    """The site, for a test of ``what``. If that cannot be, the test has to fail, and need not wait for long.

    Args:
        what: The name of the check.
        site: The app.
        request: The test.
        cannot: What cannot be in this place, if that is not what the framework cannot do anywhere.
        strict: Whether it must fail then. Else it may, as the server's and the app's threads happen to run.
    """
    reason = (site.framework.cannot if cannot is None else cannot).get(what)
    if reason is None:
        return site
    request.applymarker(pytest.mark.xfail(strict=strict, reason=reason))
    return replace(site, patience=0.5)


def upload_leaves_no_file(site: Site) -> None:
    """What was stored away of an upload, by the framework or by the bridge, is gone after the response."""
    before = _stored_files(site.server)  # a server has such of its own: gunicorn's workers show with one that they live
    form_with_a_file_arrives(site)
    with site.browser() as browser:

        def none_is_left() -> bool:
            browser.get(browser.base_url.join("/collect"))  # again and again: the client is done before the app
            return _stored_files(site.server) <= before

        until(none_is_left, "the files are gone", site.patience)


def _temporary_files(directory: Path) -> Path:
    """Where a server with this directory has them."""
    return directory / "temporary"


def _stored_files(server: Server) -> set[str]:
    """The temporary files that a server has open, with or without a name, and those that it has left."""
    directory = _temporary_files(server.output_path.parent)
    opened = {file for file in open_files(server.process.pid) if file.startswith(str(directory))}
    return opened | {*map(str, directory.iterdir())}
