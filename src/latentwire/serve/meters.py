"""What the server counts, as `/metrics` shows it in Prometheus' text format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from latentwire.serve.work import Working

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Meters:
    """The counters of one server."""

    def __init__(self, engine: Working) -> None:
        self.registry = CollectorRegistry()
        given = {"registry": self.registry}
        self.requests = Counter("latentwire_requests", "Requests answered.", ["route", "status"], **given)
        self.refused = Counter("latentwire_refused", "Requests and latents refused, by error.", ["error"], **given)
        self.positions = Counter("latentwire_prompt_positions", "Positions of prompts.", ["reader"], **given)
        self.tokens = Counter("latentwire_completion_tokens", "Tokens answered.", ["reader"], **given)
        self.latent_bytes = Counter("latentwire_latent_bytes", "Payload bytes of latents received.", **given)
        self.cancelled = Counter("latentwire_cancelled", "Requests whose client left.", **given)
        self.first = Histogram("latentwire_first_token_seconds", "Time to the first token.", buckets=SECONDS, **given)
        self.whole = Histogram("latentwire_answer_seconds", "Time to the last token.", buckets=SECONDS, **given)
        self.encode = Histogram(
            "latentwire_encode_seconds", "Time to a latent, waiting included.", buckets=SECONDS, **given
        )
        Gauge("latentwire_running", "Rows being answered.", **given).set_function(lambda: engine.running)
        Gauge("latentwire_waiting", "Requests and jobs in line.", **given).set_function(lambda: engine.waiting)

    def page(self) -> bytes:
        """All of them as text."""
        return generate_latest(self.registry)
