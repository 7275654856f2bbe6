"""An app that `a2wsgi.run` was given as an object, on its way to `served`, which loads all others by their name."""

from __future__ import annotations

from typing import Any

app: Any = None
