"""What is counted, in Prometheus' text format: requests, answers, tokens, stages, and what waits.

One `Metrics` an application, with a registry of its own, so that two applications in one process do not share counts.
Labels hold route templates and names of skills, never what a request says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from intern.types import Answer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_STAGE_SECONDS = (0.0005, 0.001, 0.0025, *_SECONDS)


class Metrics:
    """`load` gives the engine's (running, waiting) requests, `backlog` the records that wait to be written."""

    def __init__(self, *, load: Callable[[], tuple[int, int]], backlog: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "intern_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "intern_request_seconds",
            "Time from a request's first byte to its answer's last.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._answers = Counter(
            "intern_answers",
            "Answers delivered, by what they came to: valid, invalid (cut short by the caller) or refused.",
            ("team", "skill", "outcome"),
            registry=self.registry,
        )
        self._tokens = Counter(
            "intern_tokens",
            "Tokens of delivered answers: prompt, cached (of the prompt) and completion.",
            ("team", "skill", "kind"),
            registry=self.registry,
        )
        self._stages = Histogram(
            "intern_stage_seconds",
            "Time of one stage of one answer.",
            ("stage",),
            buckets=_STAGE_SECONDS,
            registry=self.registry,
        )
        running = Gauge("intern_engine_running", "Requests that the engine works on.", registry=self.registry)
        waiting = Gauge("intern_engine_waiting", "Requests that wait for the engine.", registry=self.registry)
        unwritten = Gauge("intern_records_waiting", "Records that wait for the database.", registry=self.registry)
        running.set_function(lambda: load()[0])
        waiting.set_function(lambda: load()[1])
        unwritten.set_function(backlog)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def answer(self, team: str, answer: Answer) -> None:
        """Count an answer that was delivered whole."""
        skill = answer.skill or ""
        valid = all(choice.valid for choice in answer.choices)
        outcome = "refused" if answer.refusal is not None else "valid" if valid else "invalid"
        self._answers.labels(team, skill, outcome).inc()
        usage = answer.usage
        counts = {"prompt": usage.prompt_tokens, "cached": usage.cached_tokens, "completion": usage.completion_tokens}
        for kind, count in counts.items():
            self._tokens.labels(team, skill, kind).inc(count)
        for stage, seconds in answer.timings.items():
            self._stages.labels(stage).observe(seconds)

    def text(self) -> bytes:
        """Everything, in Prometheus' text exposition format 0.0.4."""
        return generate_latest(self.registry)


async def metrics_of(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


Counted = Annotated[Metrics, Depends(metrics_of)]
