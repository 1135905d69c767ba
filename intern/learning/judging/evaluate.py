"""Every rival answers the same held-out examples; each answer is scored by field.

In: a skill, held-out examples, rivals (an adapter or none, examples in the prompt or none), an engine. Out: outcomes by
rival. Prompts are rendered as serving renders them and decoding is constrained as serving constrains it; what is scored
is decoded greedily, without a second try. An answer that the engine fails to give is a broken one; where many fail, it
is the engine that is judged, and the evaluation ends. Knows nothing of which rival is wanted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Protocol

from intern import prompt as prompts
from intern.engines.base import Engine, EngineInfo, EngineRequest
from intern.errors import ContextOverflow, DeadlineExceeded, EngineFailure
from intern.learning.examples.rows import Retrieves, conversation_of
from intern.learning.examples.shots import Embeds, Mode, Shots, Turns
from intern.learning.judging.metrics import mean_score, score_fields, text_fields
from intern.learning.judging.outcomes import CANDIDATE, SERVING, Outcome, TextScores
from intern.learning.judging.support import grounding
from intern.learning.settled import settled
from intern.skill import Skill
from intern.types import Example, FinishReason, Json, Model, Passage, Sampling

FAILURES = 0.05  # of a rival's answers; more than that, and more than one, end the evaluation


class Rival(Model):
    """Who answers. `adapter` is the engine's name for it; `shots` are examples put into the prompt."""

    name: str
    adapter: str | None = None
    shots: Mode = "none"


def rivals(*, candidate: str | None, serving: str | None) -> list[Rival]:
    """The usual ones: base, examples in the prompt (fixed, nearest), the adapter in service, the candidate."""
    found = [
        Rival(name="base"),
        Rival(name="few-shot", shots="fixed"),
        Rival(name="retrieval", shots="nearest"),
    ]
    if serving is not None:
        found.append(Rival(name=SERVING, adapter=serving))
    if candidate is not None:
        found.append(Rival(name=CANDIDATE, adapter=candidate))
    return found


class Generated(Model):
    """One answer as the engine gave it. `finish_reason` length: it was cut where its tokens ran out. `seconds` is 0 for
    one that was remembered: how long it took at another time, on a machine with other work, says nothing about now.
    `failed`: the engine gave none."""

    text: str
    finish_reason: FinishReason | None = None
    tokens: int = 0
    prompt_tokens: int = 0
    seconds: float = 0.0
    failed: bool = False


class Reply(Model):
    """An answer with the passages that its prompt showed, and how many worked examples."""

    generated: Generated
    passages: tuple[Passage, ...]
    examples: int = 0


class Memory(Protocol):
    """Keeps answers by request, so that a rival which did not change need not answer again."""

    def get(self, key: str) -> Generated | None: ...

    def put(self, key: str, generated: Generated) -> None:
        """May write to disk."""
        ...


class Remembered:
    """Answers to requests, by the content of the base model and of the adapter that gave them, and by the kind, version
    and context of the engine. `adapters` are content hashes by the engine's names; what an adapter without one answers
    is not kept."""

    def __init__(self, memory: Memory, *, base: str, adapters: Mapping[str, str], engine: EngineInfo) -> None:
        self._memory = memory
        self._base = base
        self._adapters = adapters
        self._engine = [engine.kind, engine.version, engine.context]

    async def answer(self, request: EngineRequest, ask: Callable[[], Awaitable[Generated]]) -> Generated:
        """What was answered before, without its seconds, or else what `ask` gives."""
        if request.adapter is not None and request.adapter not in self._adapters:
            return await ask()
        key = self._key(request)
        found = self._memory.get(key)
        if found is not None:
            return found.model_copy(update={"seconds": 0.0})
        found = await ask()
        await settled(self._memory.put, key, found)
        return found

    def _key(self, request: EngineRequest) -> str:
        adapter = None if request.adapter is None else self._adapters[request.adapter]
        body = request.model_dump(mode="json", include={"messages", "sampling", "schema_"})
        text = json.dumps([self._base, self._engine, adapter, body], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


class Evaluation:
    """One skill's held-out examples before an engine. `train` are what examples in the prompt are taken from."""

    def __init__(
        self,
        skill: Skill,
        engine: Engine,
        *,
        heldout: Sequence[Example],
        train: Sequence[Example],
        retrieve: Retrieves,
        embed: Embeds,
        passage_tokens: int,
        remembered: Remembered | None = None,
    ) -> None:
        self.skill = skill
        self.engine = engine
        self.heldout = heldout
        self._retrieve = retrieve
        self._passage_tokens = passage_tokens
        self._remembered = remembered
        self._passages: dict[str, Sequence[Passage]] = {}
        self._shots = Shots(skill, train, embed)

    async def answer(self, rival: Rival, *, tell: Callable[[int], Awaitable[None]] | None = None) -> list[Outcome]:
        """The rival's outcomes in the order of the examples. `tell` gets how many are done. Raises as `replies`."""
        replies = await self.replies(rival, tell=tell)
        return await asyncio.to_thread(self._scored, replies)

    def _scored(self, replies: Sequence[Reply]) -> list[Outcome]:
        """Words and characters of every answer are compared, which would keep requests waiting on the event loop."""
        return [
            score(self.skill, example, reply.generated.text, reply=reply)
            for example, reply in zip(self.heldout, replies, strict=True)
        ]

    async def replies(
        self,
        rival: Rival,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        tell: Callable[[int], Awaitable[None]] | None = None,
    ) -> list[Reply]:
        """The rival's answers as they are, with the passages that were shown, in the order of the examples.

        `temperature` 0 is greedy; above it, each `seed` is another sample. Raises EngineFailure when more than FAILURES
        of the answers fail, and more than one, or all; EngineUnavailable, SchemaRefused, Overloaded.
        """
        gate = asyncio.Semaphore(self.engine.info.slots)
        most = max(1, int(FAILURES * len(self.heldout)))
        done = failed = 0

        async def one(place: int) -> Reply:
            nonlocal done, failed
            async with gate:
                try:
                    reply = await self._reply(rival, place, temperature, seed)
                except (EngineFailure, DeadlineExceeded) as error:
                    failed += 1
                    if failed > most or failed == len(self.heldout):
                        raise EngineFailure(
                            f"{failed} of {len(self.heldout)} answers of '{rival.name}' failed, the last one so: "
                            f"{error.message}"
                        ) from error
                    passages = await self._shown(self.heldout[place])
                    reply = Reply(generated=Generated(text="", failed=True), passages=tuple(passages))
            done += 1
            if tell is not None:
                await tell(done)
            return reply

        answers = [asyncio.ensure_future(one(place)) for place in range(len(self.heldout))]
        try:
            return list(await asyncio.gather(*answers))
        finally:  # whoever still waits, waits for nothing
            for answer in answers:
                answer.cancel()
            await asyncio.gather(*answers, return_exceptions=True)

    async def _reply(self, rival: Rival, place: int, temperature: float, seed: int) -> Reply:
        passages = await self._shown(self.heldout[place])
        prompt = await self._prompt(rival, place, passages)
        if prompt is None:
            return Reply(generated=Generated(text=""), passages=tuple(passages))
        schema = prompts.decoding_schema(self.skill, self.skill.schema, sorted({p.document for p in prompt.passages}))
        request = EngineRequest(
            messages=prompt.messages,
            sampling=Sampling(temperature=temperature, max_tokens=prompt.max_tokens, seed=seed),
            schema_=schema,
            adapter=rival.adapter,
        )
        try:
            generated = await self._generated(request)
        except ContextOverflow:  # the engine counts more tokens than were counted here
            generated = Generated(text="")
        return Reply(generated=generated, passages=prompt.passages, examples=prompt.examples)

    async def _generated(self, request: EngineRequest) -> Generated:
        if self._remembered is None:
            return await generate(self.engine, request)
        return await self._remembered.answer(request, lambda: generate(self.engine, request))

    async def _shown(self, example: Example) -> Sequence[Passage]:
        if not self.skill.spec.retrieval.enabled:
            return ()
        if example.id not in self._passages:
            self._passages[example.id] = await self._retrieve(self.skill, conversation_of(example))
        return self._passages[example.id]

    async def _prompt(self, rival: Rival, place: int, passages: Sequence[Passage]) -> prompts.Prompt | None:
        """With as many examples as fit; None when not even the request fits."""
        example = self.heldout[place]
        asked = conversation_of(example)
        shown: Sequence[Turns] = ()
        if rival.shots != "none":
            room = await prompts.room(self.skill, asked, passages, self.engine, passage_tokens=self._passage_tokens)
            shown = await self._shots.shown(rival.shots, example.text, self.engine, room=room)
        try:
            return await prompts.build(
                self.skill,
                asked,
                passages,
                self.engine,
                passage_tokens=self._passage_tokens,
                examples=shown,
            )
        except ContextOverflow:
            return None


def score(skill: Skill, example: Example, text: str, *, reply: Reply | None = None) -> Outcome:
    """An answer's scores by field. One that breaks the schema scores 0 everywhere. `reply` is what it comes from; None
    where nobody knows what was shown."""
    output, valid = parsed(skill, text)
    fields = score_fields(example.output, output, skill.metrics)
    texts = text_fields(example.output, output, skill.metrics)
    if not valid:
        fields = dict.fromkeys(fields, 0.0)
        texts = dict.fromkeys(texts, TextScores(chrf=0.0, token_f1=0.0))
    generated = Generated(text=text) if reply is None else reply.generated
    found = grounding(skill, example, output if valid else None, None if reply is None else reply.passages)
    return Outcome(
        example=example.id,
        group=example.group or example.id,
        valid=valid,
        fields=fields,
        score=mean_score(fields),
        expected=example.output,
        output=output,
        request=example.text,
        tokens=generated.tokens,
        prompt_tokens=generated.prompt_tokens,
        seconds=generated.seconds,
        failed=generated.failed,
        examples=None if reply is None else reply.examples,
        texts=texts,
        support=found.support,
        support_expected=found.expected,
        sources=found.sources,
    )


def parsed(skill: Skill, text: str) -> tuple[Json, bool]:
    """(output, whether it keeps the schema) of an answer's text; the text itself where it cannot be parsed."""
    if skill.schema is None:
        return text, bool(text.strip())
    value, problems = skill.schema.parse(text)
    return text if value is None else value, not problems


def score_outside(skill: Skill, heldout: Sequence[Example], answers: Mapping[str, Json]) -> list[Outcome]:
    """An outside system's outcomes; `answers` are its outputs by example id. Examples without one are left out."""
    return [score(skill, one, _as_text(skill, answers[one.id])) for one in heldout if one.id in answers]


def _as_text(skill: Skill, output: Json) -> str:
    """An outside output as the text of an answer: itself where it is one, as a model would write it where it is the
    value, also where that is a bare string."""
    if not isinstance(output, str):
        return json.dumps(output)
    if skill.schema is None or parsed(skill, output)[1] or skill.schema.problems(output):
        return output
    return json.dumps(output)


async def generate(engine: Engine, request: EngineRequest) -> Generated:
    """The whole answer to one request. Raises the engine's errors."""
    started = time.perf_counter()
    pieces: list[str] = []
    tokens = prompt_tokens = 0
    finish: FinishReason | None = None
    async with aclosing(engine.generate(request)) as stream:
        async for token in stream:
            pieces.append(token.text)
            finish = token.finish_reason or finish
            if token.usage is not None:
                tokens, prompt_tokens = token.usage.completion_tokens, token.usage.prompt_tokens
    return Generated(
        text="".join(pieces),
        finish_reason=finish,
        tokens=tokens,
        prompt_tokens=prompt_tokens,
        seconds=time.perf_counter() - started,
    )
