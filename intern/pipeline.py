"""The serving half, in order: route, retrieve, prompt, generate, validate, record.

In: an `Ask`. Out: an `Answer`, or a stream of pieces that ends in one. Knows nothing of HTTP, nor of how a skill, a
route, a passage or a token comes about. Every request leaves one record, also when it fails.

An answer counts only when the engine said that it is finished. One that breaks its skill's schema is tried once more
with the problems named, and then it is an error with the raw output kept in the record; it is never delivered as if it
kept the schema. A stream has no second try, since its first was already seen. An answer that the caller's own
max_tokens cut short is delivered as such: finish_reason `length`, `valid` false. What a record keeps of an answer that
was not delivered is marked invalid.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from intern import prompt as prompts
from intern.engines.base import Engine, EngineRequest, Token
from intern.engines.choices import tokens_of
from intern.engines.gathered import Gathered
from intern.errors import DeadlineExceeded, InternError, InvalidInput, OutputInvalid
from intern.inflight import AUTO, InFlight, Span, no_span
from intern.library import SkillLibrary
from intern.models.embedder import Vectors
from intern.schema import OutputSchema, check_schema, parse_json
from intern.skill import Skill
from intern.stages import Adapters, BaseOnly, NoExamples, Retrieves, Routes, Shows
from intern.store.records import Recorder
from intern.types import (
    Answer,
    Ask,
    Candidate,
    Choice,
    Json,
    Message,
    Passage,
    Route,
    Sampling,
    last_user_text,
    new_id,
)

__all__ = ["AUTO", "BaseOnly", "Closed", "Opened", "Pipeline"]

_REPAIR_QUOTE = 2_000
_MORE_ROOM = 4  # times the skill's own limit, for an answer that was cut: a model that never ends must not take minutes


@dataclass
class Opened:
    """First piece of a stream: everything that is known before the first token."""

    answer: Answer


@dataclass
class Closed:
    """Last piece of a stream: the finished answer."""

    answer: Answer


class Pipeline:
    """Joins the stages. Safe for any number of concurrent requests on one event loop."""

    def __init__(
        self,
        *,
        library: SkillLibrary,
        router: Routes,
        knowledge: Retrieves,
        engine: Engine,
        recorder: Recorder,
        adapters: Adapters | None = None,
        examples: Shows | None = None,
        passage_tokens: int = 1200,
        deadline: float = 120.0,
        seed: int | None = None,
    ) -> None:
        self.library = library
        self.router = router
        self.knowledge = knowledge
        self.engine = engine
        self.recorder = recorder
        self.adapters = adapters or BaseOnly()
        self.examples = examples or NoExamples()
        self.passage_tokens = passage_tokens
        self.deadline = deadline
        self.span: Span = no_span  # entered around each stage; replaced by whoever traces
        self._random = random.Random(seed)

    async def answer(self, ask: Ask) -> Answer:
        """The whole answer. Raises the errors of the stages, and OutputInvalid after a failed repair."""
        async with self._recorded(ask) as work:
            if not await self._prepare(work):
                return work.as_answer()
            with work.timed("generate"):
                work.choices = await self._generate(work, work.for_engine(), ask.sampling.n)
            work.choices = tuple(self._validated(work, choice) for choice in work.choices)
            if any(self._broken(work, choice) for choice in work.choices):
                with work.timed("repair"):
                    work.choices = await _all_or_none(self._repaired(work, choice) for choice in work.choices)
            self._refuse_broken(work)
            self._mark_for_review(work)
            return work.as_answer()

    async def stream(self, ask: Ask) -> AsyncGenerator[Opened | Token | Closed, None]:
        """Opened, then tokens as they come, then Closed. Raises as `answer` does, also in mid-stream."""
        async with self._recorded(ask) as work:
            prepared = await self._prepare(work)
            yield Opened(work.as_answer())
            if prepared:
                gathered = Gathered(ask.sampling.n)
                with work.timed("generate"):
                    try:
                        async with aclosing(tokens_of(self.engine, work.for_engine(), ask.sampling.n)) as tokens:
                            async for token in tokens:
                                gathered.add(token)
                                if token.usage is None:
                                    yield token
                                if work.left < 0:  # the engine's own limit does not see a reader who takes his time
                                    raise DeadlineExceeded(f"The answer was not finished in {work.seconds:g} s.")
                    finally:
                        work.usage += gathered.usage
                        work.choices = gathered.unfinished()
                work.choices = tuple(self._validated(work, choice) for choice in gathered.finished())
                self._refuse_broken(work)
                self._mark_for_review(work)
        # The record is closed first: whoever has got the whole answer leaves here.
        yield Closed(work.as_answer())

    def route(self, ask: Ask) -> Route:
        """The decision alone, whatever skill is named; blocking. Raises InvalidInput when there is nothing to go by."""
        return self._route(ask, _asked(ask))[1]

    # --- the stages --------------------------------------------------------------------------------------------

    async def _prepare(self, work: InFlight) -> bool:
        """Route, retrieve and build the prompt; False when nothing fits and `refusal` says so."""
        try:
            async with asyncio.timeout(work.left):
                return await self._prepared(work)
        except TimeoutError as error:
            raise DeadlineExceeded(f"The request was not prepared in {work.seconds:g} s.") from error

    async def _prepared(self, work: InFlight) -> bool:
        ask = work.ask
        text = _asked(ask)
        vector: Vectors | None = None
        if ask.skill is None:
            with work.timed("route"):
                await self.router.ready(ask.caller.team)
                vector, work.route = await asyncio.to_thread(self._route, ask, text)
            if work.route.skill is None:
                work.refusal = self._refusal(ask.caller.team, work.route)
                return False
            name = work.route.skill
        else:
            name = ask.skill
            work.route = Route(
                skill=name,
                confidence=1.0,
                candidates=(Candidate(skill=name, score=1.0),),
                reason="Named by the caller.",
            )
        skill = work.skill = self.library.get(ask.caller.team, name)
        work.lease = await self.adapters.acquire(ask.caller.team, name, ask.version)
        if work.lease.note is not None:
            work.notes.append(work.lease.note)
        work.schema = await self._schema(skill, ask)
        found: Sequence[Passage] = ()
        if skill.spec.retrieval.enabled:
            with work.timed("retrieve"):
                await self.knowledge.ready(ask.caller.team, name)
                found = await asyncio.to_thread(self._retrieve, ask, skill, vector)
        with work.timed("prompt"):
            shown: Sequence[Sequence[Message]] = ()
            if skill.spec.prompting.examples != "none" and work.lease.name is None:  # adapters learn without them
                room = await prompts.room(
                    skill,
                    ask.messages,
                    found,
                    self.engine,
                    passage_tokens=self.passage_tokens,
                    max_tokens=ask.sampling.max_tokens,
                )
                request = text if vector is None else vector
                shown = await self.examples.shown(ask.caller.team, skill, request, room=room)
            work.prompt = await prompts.build(
                skill,
                ask.messages,
                found,
                self.engine,
                passage_tokens=self.passage_tokens,
                max_tokens=ask.sampling.max_tokens,
                examples=shown,
            )
        work.passages = work.prompt.passages
        work.notes += work.prompt.notes
        work.decoding = prompts.decoding_schema(skill, work.schema, sorted({p.document for p in work.passages}))
        work.sampling = _sampling(skill, ask.sampling, work.prompt.max_tokens)
        if work.structured and ask.sampling.stop:
            # Cut by a stop sequence, an answer could not keep its form, and nobody could tell why.
            work.sampling = work.sampling.model_copy(update={"stop": ()})
            work.notes.append("Left out: stop, since the answer's required form says where it ends.")
        return True

    def _route(self, ask: Ask, text: str) -> tuple[Vectors, Route]:
        """Route the last turn; when it says too little by itself, the whole conversation's user turns."""
        team = ask.caller.team
        vector = self.router.embed(text)
        route = self.router.route(team, text, vector=vector)
        earlier = [m.content for m in ask.messages if m.role == "user" and m.content.strip()]
        if route.skill is None and len(earlier) > 1:
            whole = self.router.route(team, "\n".join(earlier[-4:]))
            if whole.skill is not None:
                return vector, whole
        return vector, route

    def _retrieve(self, ask: Ask, skill: Skill, vector: Vectors | None) -> list[Passage]:
        turns = [m for m in ask.messages if m.role in ("user", "assistant")]
        limit = skill.spec.retrieval.passages
        return self.knowledge.retrieve(ask.caller.team, skill.name, turns, limit=limit, vector=vector)

    async def _schema(self, skill: Skill, ask: Ask) -> OutputSchema | None:
        if skill.schema is None:
            if ask.output_schema is None:
                return None
            # Compiling the largest schema that is allowed takes 0.2 s, too long for the event loop.
            return await asyncio.to_thread(check_schema, ask.output_schema, param="response_format")
        if ask.output_schema is not None and not _same(ask.output_schema, skill.schema.schema):
            raise InvalidInput(
                f"The skill '{skill.name}' answers in its own schema, and this response_format asks for another. "
                "Leave response_format out, or send the skill's schema.",
                param="response_format",
            )
        return skill.schema

    async def _generate(self, work: InFlight, request: EngineRequest, count: int) -> tuple[Choice, ...]:
        gathered = Gathered(count)
        try:
            async with aclosing(tokens_of(self.engine, request, count)) as tokens:
                async for token in tokens:
                    gathered.add(token)
        finally:
            work.usage += gathered.usage
        return gathered.finished()

    # --- validation --------------------------------------------------------------------------------------------

    def _validated(self, work: InFlight, choice: Choice) -> Choice:
        if not work.structured or (work.ask.tools and choice.tool_calls):  # a call is no answer yet
            return choice
        with work.timed("validate"):
            value, problems = work.schema.parse(choice.text) if work.schema else parse_json(choice.text)
            if work.schema is None and not problems and not isinstance(value, dict):
                problems = ("not a JSON object",)
        return choice.model_copy(update={"parsed": value, "valid": not problems, "problems": problems})

    def _broken(self, work: InFlight, choice: Choice) -> bool:
        """Invalid, and not because the caller's own max_tokens cut it short."""
        cut = choice.finish_reason == "length" and work.ask.sampling.max_tokens is not None
        return not choice.valid and not cut

    async def _repaired(self, work: InFlight, choice: Choice) -> Choice:
        if not self._broken(work, choice):
            return choice
        assert work.prompt is not None
        work.attempts.append(choice.text)
        cut = choice.finish_reason == "length"
        extra: tuple[Message, ...] = ()
        if not cut:
            said = choice.text[:_REPAIR_QUOTE]
            demand = (
                f"This answer is not in the required form: {'; '.join(choice.problems[:3])}. Write it again, in form."
            )
            extra = (Message(role="assistant", content=said), Message(role="user", content=demand))
        wanted = _MORE_ROOM * work.prompt.max_tokens if cut else work.prompt.max_tokens
        messages = (*work.prompt.messages, *extra)
        left = self.engine.info.context - await prompts.measure(self.engine, messages, 0)
        if left < wanted and work.prompt.examples:  # which fill the context, and make way now
            messages = (*work.prompt.own, *extra)
            left = self.engine.info.context - await prompts.measure(self.engine, messages, 0)
        limit = max(min(left, wanted), work.prompt.max_tokens) if cut else None
        (again,) = await self._generate(work, work.for_engine(messages, limit), 1)
        return self._validated(work, again.model_copy(update={"index": choice.index}))

    def _refuse_broken(self, work: InFlight) -> None:
        for choice in work.choices:
            if self._broken(work, choice):
                raise OutputInvalid(
                    f"The model's answer breaks the required form: {choice.problems[0]}. "
                    f"The raw output is kept in record {work.record}.",
                    problems=list(choice.problems),
                    record=work.record,
                )

    # --- what comes out ----------------------------------------------------------------------------------------

    def _mark_for_review(self, work: InFlight) -> None:
        assert work.skill is not None
        rule = work.skill.spec.review
        if rule.mode == "always":
            work.review = "always"
        elif work.ask.skill is None and work.route.confidence < rule.below_confidence:
            work.review = "below_confidence"
        elif rule.mode == "sample" and self._random.random() < rule.rate:
            work.review = "sampled"

    def _refusal(self, team: str, route: Route) -> str:
        titles = [skill.spec.title for skill in self.library.all(team)]
        if not titles:
            return "I have no skills yet. Add one under skills/, or through POST /api/skills."
        return f"I don't have a skill for this. I can help with: {'; '.join(titles)}. {route.reason}".strip()

    @asynccontextmanager
    async def _recorded(self, ask: Ask) -> AsyncIterator[InFlight]:
        seconds = ask.deadline or self.deadline
        work = InFlight(ask=ask, record=new_id("rec"), started=time.monotonic(), seconds=seconds, span=self.span)
        try:
            yield work
        except InternError as error:
            work.error = f"{error.code}: {error.message}"
            raise
        except (asyncio.CancelledError, GeneratorExit):
            work.error = "cancelled: the caller left before the answer was finished"
            raise
        except BaseException as error:
            work.error = f"internal_error: {type(error).__name__}"
            raise
        finally:
            self.adapters.release(work.lease)
            work.timings["total"] = time.monotonic() - work.started
            self.recorder.put(work.as_record(self.engine.info.model))


def _asked(ask: Ask) -> str:
    text = last_user_text(ask.messages)
    if not text.strip() and not any(m.role == "tool" for m in ask.messages):
        raise InvalidInput("The conversation has no user message with text.", param="messages")
    return text


async def _all_or_none(works: Iterable[Coroutine[None, None, Choice]]) -> tuple[Choice, ...]:
    """Every result. When one fails, the others are stopped before its error goes on; `gather` would let them run."""
    jobs = [asyncio.ensure_future(work) for work in works]
    try:
        return tuple(await asyncio.gather(*jobs))
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


def _sampling(skill: Skill, asked: Sampling, max_tokens: int) -> Sampling:
    """The caller's wishes, then the skill's settings."""
    generation = skill.spec.generation
    return asked.model_copy(
        update={
            "temperature": generation.temperature if asked.temperature is None else asked.temperature,
            "top_p": generation.top_p if asked.top_p is None else asked.top_p,
            "max_tokens": max_tokens,
            "n": 1,
        }
    )


def _same(one: Mapping[str, Json], other: Mapping[str, Json]) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
