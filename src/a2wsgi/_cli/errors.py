"""What ends the command before a server runs. From Python, `a2wsgi.run` raises the same."""

from __future__ import annotations


class UsageError(ValueError):
    """The command contradicts itself, or asks for something that does not exist."""


class LoadError(ImportError):
    """The app cannot be loaded. The cause of the error is what the app raised."""


class ServerNotStarted(RuntimeError):  # noqa: N818 - named as what happened
    """The server cannot be started."""
