"""What /metrics says, in Prometheus' text format."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128)
TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The counts of one server."""

    def __init__(self):
        """Start at zero, in a registry that no other server of this process writes to."""
        self.registry = CollectorRegistry()
        self.requests = self._make(Counter, "requests", "Requests by path and status", ["path", "status"])
        self.seconds = self._make(
            Histogram, "request_seconds", "Seconds from a request's headers to its answer", ["path"], buckets=SECONDS
        )
        self.in_flight = self._make(Gauge, "requests_in_flight", "Requests that are read, wait or are scored")
        self.passages = self._make(Counter, "passages", "Passages scored; in a cascade, some by both models")
        self.tokens = self._make(Counter, "tokens", "Tokens that models read, special tokens included")
        self.sharing = self._make(Histogram, "batch_requests", "Requests that share a batch", buckets=REQUESTS)
        self.ready = self._make(Gauge, "ready", "1 once the model is loaded")

    def _make(self, kind, name: str, what: str, labels=(), **options):
        return kind(f"distill_{name}", what, labels, registry=self.registry, **options)

    def note_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def note_batch(self, requests: int, passages: int, tokens: int) -> None:
        """Count a batch."""
        self.sharing.observe(requests)
        self.passages.inc(passages)
        self.tokens.inc(tokens)

    def text(self) -> bytes:
        """Return all counts as Prometheus reads them."""
        return generate_latest(self.registry)
