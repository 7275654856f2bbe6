"""Statistics of a bridge for Prometheus, which asks for /metrics.

uvicorn prometheus_statistics:app
"""

from collections.abc import Iterator
from dataclasses import asdict

from flask import Flask, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from a2wsgi import WSGIMiddleware

COUNTERS = {"shed", "disconnected", "stalled", "timed_out"}

flask_app = Flask(__name__)
bridge = WSGIMiddleware(flask_app)
registry = CollectorRegistry()
waited = Histogram("a2wsgi_queued_seconds", "Waited for a worker thread", registry=registry)
flask_app.before_request(lambda: waited.observe(request.environ["a2wsgi.queued_seconds"]))


class Statistics:
    """Reads the bridge's statistics when Prometheus asks."""

    def collect(self) -> Iterator[Metric]:
        """The documentation of a2wsgi.Statistics explains each of them."""
        for name, value in asdict(bridge.statistics()).items():
            family = CounterMetricFamily if name in COUNTERS else GaugeMetricFamily
            yield family(f"a2wsgi_{name}", f"a2wsgi.Statistics.{name}", value=value)


registry.register(Statistics())
metrics = Route("/metrics", lambda _: Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST))
app = Starlette(routes=[metrics, Mount("/", bridge)])
