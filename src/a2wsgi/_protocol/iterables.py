"""What a bridge returns to its WSGI server for a response that is complete, and whose app has ended.

*Facts*

- PEP 3333, "Specification Details": an iterable that has a ``close()`` gets it called. Some middleware calls it without
  asking, so these have one, which does nothing. A bridge around another knows them, and need not call it.
- PEP 3333, "Handling the Content-Length Header": a server may take the length of a body from an iterable that has a
  ``len()`` of 1. For a response without a body some would make a ``Content-Length: 0`` of it (wsgiref does).
"""

from __future__ import annotations

import itertools


class CompleteBody(list[bytes]):
    """A whole body, in one chunk."""

    __slots__ = ()

    close = object.__init__  # Fast path: it does nothing, in C (tests/test_call_counts.py)


class NoBody(itertools.chain[bytes]):
    """One empty chunk, without a length."""

    __slots__ = ()

    close = object.__init__  # as `CompleteBody.close`
