"""The profile of ``make fuzz``: more examples."""

from __future__ import annotations

import os

import hypothesis

hypothesis.settings.register_profile(
    "fuzz",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    max_examples=int(os.environ.get("FUZZ_EXAMPLES") or 100),
    print_blob=True,
    derandomize=False,
)
