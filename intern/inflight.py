"""One request on its way through the pipeline: what is known of it so far.

In: what the stages find out, put here as they go. Out: what that makes as request to the engine, as `Answer` to the
caller and as `Record` to keep. Knows neither the stages nor their order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from intern.engines.base import EngineRequest
from intern.prompt import Prompt
from intern.schema import OutputSchema
from intern.skill import Skill
from intern.types import Answer, Ask, Choice, Json, Lease, Message, Passage, Record, Route, Sampling, Usage, now

AUTO = "intern-auto"  # the model's name where no skill is named, and of an answer that no skill gave

Span = Callable[[str], AbstractContextManager[object]]


def no_span(stage: str) -> AbstractContextManager[object]:
    """No tracing."""
    return nullcontext()


@dataclass
class InFlight:
    """One request. The stages fill it in."""

    ask: Ask
    record: str
    started: float
    seconds: float  # that it may take
    route: Route = field(default_factory=lambda: Route(skill=None, confidence=0.0))
    skill: Skill | None = None
    lease: Lease = field(default_factory=Lease)
    schema: OutputSchema | None = None  # what the answer must keep
    decoding: Mapping[str, Json] | None = None  # what decoding is constrained to: the same or narrower
    prompt: Prompt | None = None
    sampling: Sampling = field(default_factory=Sampling)
    passages: tuple[Passage, ...] = ()
    notes: list[str] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)
    choices: tuple[Choice, ...] = ()
    usage: Usage = field(default_factory=Usage)
    refusal: str | None = None
    review: str | None = None
    error: str | None = None
    timings: dict[str, float] = field(default_factory=dict)
    span: Span = field(default=no_span)

    @property
    def left(self) -> float:
        """Seconds until the request's deadline."""
        return self.seconds - (time.monotonic() - self.started)

    @property
    def structured(self) -> bool:
        """The answer has a required form."""
        return self.schema is not None or self.ask.json_object

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            with self.span(stage):
                yield
        finally:
            self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - start

    def for_engine(self, messages: Sequence[Message] | None = None, max_tokens: int | None = None) -> EngineRequest:
        """What the engine is asked for: with the prompt's own messages and limit, or with others."""
        assert self.prompt is not None
        sampling = self.sampling
        if max_tokens is not None:
            sampling = sampling.model_copy(update={"max_tokens": max_tokens})
        return EngineRequest(
            messages=tuple(self.prompt.messages if messages is None else messages),
            sampling=sampling,
            schema_=self.decoding,
            json_object=self.ask.json_object and self.schema is None,
            tools=self.ask.tools,
            tool_choice=self.ask.tool_choice,
            deadline=max(self.left, 0.0),
            adapter=self.lease.engine_name,
        )

    def as_answer(self) -> Answer:
        """What the caller gets: after each stage, what is known by then."""
        name = self.skill.name if self.skill else None
        return Answer(
            record=self.record,
            model=f"intern/{self.lease.name or f'{name}@base'}" if name else AUTO,
            skill=name,
            adapter=self.lease.name,
            route=self.route,
            choices=self.choices,
            refusal=self.refusal,
            passages=self.passages,
            citations=self._citations(),
            usage=self.usage,
            review=self.review,
            timings=dict(self.timings),
            notes=tuple(self.notes),
        )

    def as_record(self, model: str) -> Record:
        """What is kept of it. `model` is the engine's."""
        ask = self.ask
        return Record(
            id=self.record,
            team=ask.caller.team,
            created=now(),
            channel=ask.caller.channel,
            key=ask.caller.key,
            person=ask.caller.person,
            skill=self.skill.name if self.skill else None,
            adapter=self.lease.name,
            model=model,
            config=self.skill.digest if self.skill else "",
            asked=ask.messages,
            prompt=self.prompt.own if self.prompt else (),
            sampling=self.sampling.model_copy(update={"n": ask.sampling.n}),
            schema_used=self.schema is not None,
            route=self.route,
            passages=self.passages,
            choices=self.choices,
            attempts=tuple(self.attempts),
            refusal=self.refusal,
            error=self.error,
            review=self.review,
            usage=self.usage,
            timings=self.timings,
            metadata=ask.metadata,
        )

    def _citations(self) -> tuple[Passage, ...]:
        """The shown passages whose document the answer names: in its citations field, or anywhere in a text."""
        if not self.choices or not self.passages or self.skill is None:
            return ()
        first = self.choices[0]
        name = self.skill.spec.retrieval.citations
        if name is not None:
            listed = first.parsed.get(name) if isinstance(first.parsed, dict) else None
            cited = {str(v) for v in listed} if isinstance(listed, list) else set()
        else:
            cited = {p.document for p in self.passages if p.document in first.text}
        return tuple(p for p in self.passages if p.document in cited)
