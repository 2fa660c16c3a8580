"""What the server counts, as `/metrics` shows it in Prometheus' text format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from latentwire.serve.work import Working

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Meters:
    """The counters of one server."""

    def __init__(self, engine: Working) -> None:
        self.registry = CollectorRegistry()
        kept = self.registry
        self.requests = Counter("latentwire_requests", "Requests answered.", ["route", "status"], registry=kept)
        self.refused = Counter(
            "latentwire_refused", "Requests and latents refused, by error.", ["error"], registry=kept
        )
        self.positions = Counter("latentwire_prompt_positions", "Positions of prompts.", ["reader"], registry=kept)
        self.tokens = Counter("latentwire_completion_tokens", "Tokens answered.", ["reader"], registry=kept)
        self.latent_bytes = Counter("latentwire_latent_bytes", "Payload bytes of latents received.", registry=kept)
        self.cancelled = Counter("latentwire_cancelled", "Requests whose client left.", registry=kept)
        self.first = Histogram(
            "latentwire_first_token_seconds", "Time to the first token.", buckets=SECONDS, registry=kept
        )
        self.whole = Histogram("latentwire_answer_seconds", "Time to the last token.", buckets=SECONDS, registry=kept)
        self.encode = Histogram(
            "latentwire_encode_seconds", "Time to a latent, waiting included.", buckets=SECONDS, registry=kept
        )
        Gauge("latentwire_running", "Rows being answered.", registry=kept).set_function(lambda: engine.running)
        Gauge("latentwire_waiting", "Requests and jobs in line.", registry=kept).set_function(lambda: engine.waiting)

    def page(self) -> bytes:
        """All of them as text."""
        return generate_latest(self.registry)
