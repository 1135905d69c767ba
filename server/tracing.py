"""OpenTelemetry spans: one a request, one a stage below it. Loaded only when a collector is set.

Spans carry route templates, status codes, ids and times, never what a request says. A caller's `traceparent` header
(W3C Trace Context) is followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from intern import __version__
from intern.errors import InvalidInput


class Tracing:
    """Makes spans with a tracer provider, which it shuts down on `close`."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("llama-intern", __version__)

    @contextmanager
    def request(self, headers: Mapping[str, str]) -> Iterator[Any]:
        """The span of a request; stages that begin in its context become its children."""
        from opentelemetry import propagate, trace

        parent = propagate.extract(headers)
        kind = trace.SpanKind.SERVER
        with self._tracer.start_as_current_span("request", context=parent, kind=kind) as span:
            yield span

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The span of a stage. It is not made the current one: a stage of a stream ends in another context than its
        first token's, and stages have no children."""
        span = self._tracer.start_span(name)
        try:
            yield
        finally:
            span.end()

    def close(self) -> None:
        """Send what is left; blocks for some seconds at most."""
        self._provider.shutdown()


def open_tracing(endpoint: str) -> Tracing:
    """Tracing to a collector that speaks OTLP over HTTP. Raises InvalidInput when the exporter is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidInput(
            "INTERN_OTLP_ENDPOINT is set, and the exporter is not installed: pip install 'llama-intern[tracing]'."
        ) from error
    provider = TracerProvider(
        resource=Resource.create({"service.name": "llama-intern", "service.version": __version__})
    )
    url = f"{endpoint.rstrip('/').removesuffix('/v1/traces')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    return Tracing(provider)
