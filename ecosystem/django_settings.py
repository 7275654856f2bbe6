"""Settings for Django's own tests: its own, with a report, and with the bridges where `double_bridge` puts them."""

import os
from pathlib import Path

from test_sqlite import *  # noqa: F403 - which is in Django's tests

_report = Path(os.environ["DJANGO_REPORT"])

TEST_RUNNER = "double_bridge_django.Runner"
TEST_OUTPUT_DIR = str(_report.parent)
TEST_OUTPUT_FILE_NAME = _report.name
