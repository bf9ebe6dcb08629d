"""What a server counts and times, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)

MEDIA_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The figures of one server. Labels are tasks of the bank and names of problems: there are few."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "pbgan_requests",
            "Translation requests that were answered, by HTTP status",
            ("task", "status"),
            registry=self._registry,
        )
        self.problems = Counter(
            "pbgan_problems", "Answers that were errors", ("problem",), registry=self._registry
        )
        self.seconds = Histogram(
            "pbgan_request_seconds",
            "From a translation request's first byte to its answer",
            ("task",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.images = Counter(
            "pbgan_images", "Images that were translated", ("task",), registry=self._registry
        )
        self.queue = Gauge(
            "pbgan_queue_images",
            "Images that wait or are at work, of those that were taken in",
            registry=self._registry,
        )
        self.batch = Histogram(
            "pbgan_batch_images",
            "Images that were translated at once",
            buckets=_IMAGES,
            registry=self._registry,
        )
        self.computing = Counter(
            "pbgan_computing_seconds", "Time spent in networks", registry=self._registry
        )
        self.tasks = Gauge("pbgan_tasks", "Tasks that the bank has", registry=self._registry)
        self.tasks_in_memory = Gauge(
            "pbgan_tasks_in_memory", "Networks that are composed", registry=self._registry
        )
        self.memory_of_tasks = Gauge(
            "pbgan_tasks_in_memory_bytes",
            "What their weights take",
            registry=self._registry,
        )
        self.composed = Histogram(
            "pbgan_compose_seconds",
            "Reading and composing a task",
            buckets=_SECONDS,
            registry=self._registry,
        )

    def render(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self._registry)
