"""Prometheus metrics of a server. Names and labels are documented in docs/serving.md."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)

MEDIA_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counters, gauges and histograms. Labels are task and problem names, so there are few series."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counter = partial(Counter, registry=self._registry)
        gauge = partial(Gauge, registry=self._registry)
        histogram = partial(Histogram, registry=self._registry)
        self.requests = counter(
            "pbgan_requests", "Translation requests answered, by HTTP status", ("task", "status")
        )
        self.problems = counter("pbgan_problems", "Error responses", ("problem",))
        self.seconds = histogram(
            "pbgan_request_seconds",
            "From a translation request's first byte to its response",
            ("task",),
            buckets=_SECONDS,
        )
        self.images = counter("pbgan_images", "Images translated", ("task",))
        self.queue = gauge("pbgan_queue_images", "Accepted images that wait or are being processed")
        self.batch = histogram("pbgan_batch_images", "Images per batch", buckets=_IMAGES)
        self.computing = counter("pbgan_computing_seconds", "Time spent in networks")
        self.tasks = gauge("pbgan_tasks", "Tasks in the bank")
        self.tasks_in_memory = gauge("pbgan_tasks_in_memory", "Composed networks in memory")
        self.memory_of_tasks = gauge(
            "pbgan_tasks_in_memory_bytes", "Memory of the composed networks' weights"
        )
        self.composed = histogram(
            "pbgan_compose_seconds", "Reading and composing a task", buckets=_SECONDS
        )

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)
