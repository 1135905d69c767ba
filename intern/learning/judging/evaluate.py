"""Every rival answers the same held-out examples; each answer is scored by field.

In: a skill, held-out examples, rivals (an adapter or none, examples in the prompt or none), an engine. Out: outcomes by
rival. Prompts are rendered as serving renders them and decoding is constrained as serving constrains it; what is scored
is decoded greedily, without a second try. Knows nothing of which rival is wanted.
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
from intern.engines.base import Engine, EngineRequest
from intern.errors import ContextOverflow
from intern.learning.examples.rows import Retrieves, conversation_of
from intern.learning.examples.shots import Embeds, Mode, Shots
from intern.learning.judging.metrics import mean_score, score_fields
from intern.learning.judging.outcomes import CANDIDATE, SERVING, Outcome
from intern.learning.settled import settled
from intern.skill import Skill
from intern.types import Example, FinishReason, Json, Model, Passage, Sampling


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
    """One answer as the engine gave it. `finish_reason` length: it was cut where its tokens ran out."""

    text: str
    finish_reason: FinishReason | None = None
    tokens: int = 0
    prompt_tokens: int = 0
    seconds: float = 0.0


class Memory(Protocol):
    """Keeps answers by request, so that a rival which did not change need not answer again."""

    def get(self, key: str) -> Generated | None: ...

    def put(self, key: str, generated: Generated) -> None:
        """May write to disk."""
        ...


class Remembered:
    """Answers to requests, by the content of the base model and of the adapter that gave them. `adapters` are content
    hashes by the engine's names; what an adapter without one answers is not kept."""

    def __init__(self, memory: Memory, *, base: str, adapters: Mapping[str, str]) -> None:
        self._memory = memory
        self._base = base
        self._adapters = adapters

    async def answer(self, request: EngineRequest, ask: Callable[[], Awaitable[Generated]]) -> Generated:
        """What was answered before, or else what `ask` gives."""
        if request.adapter is not None and request.adapter not in self._adapters:
            return await ask()
        key = self._key(request)
        found = self._memory.get(key)
        if found is None:
            found = await ask()
            await settled(self._memory.put, key, found)
        return found

    def _key(self, request: EngineRequest) -> str:
        adapter = None if request.adapter is None else self._adapters[request.adapter]
        body = request.model_dump(mode="json", include={"messages", "sampling", "schema_"})
        text = json.dumps([self._base, adapter, body], sort_keys=True)
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
        """The rival's outcomes in the order of the examples. `tell` gets how many are done."""
        replies = await self.replies(rival, tell=tell)
        return [
            self._outcome(example, generated, passages)
            for example, (generated, passages) in zip(self.heldout, replies, strict=True)
        ]

    async def replies(
        self,
        rival: Rival,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        tell: Callable[[int], Awaitable[None]] | None = None,
    ) -> list[tuple[Generated, Sequence[Passage]]]:
        """The rival's answers as they are, with the passages that were shown, in the order of the examples.

        `temperature` 0 is greedy; above it, each `seed` is another sample.
        """
        gate = asyncio.Semaphore(self.engine.info.slots)
        done = 0

        async def one(place: int) -> tuple[Generated, Sequence[Passage]]:
            nonlocal done
            async with gate:
                reply = await self._reply(rival, place, temperature, seed)
            done += 1
            if tell is not None:
                await tell(done)
            return reply

        return list(await asyncio.gather(*(one(place) for place in range(len(self.heldout)))))

    async def _reply(
        self, rival: Rival, place: int, temperature: float, seed: int
    ) -> tuple[Generated, Sequence[Passage]]:
        passages = await self._shown(self.heldout[place])
        prompt = await self._prompt(rival, place, passages)
        if prompt is None:
            return Generated(text=""), passages
        schema = prompts.decoding_schema(self.skill, self.skill.schema, sorted({p.document for p in prompt.passages}))
        request = EngineRequest(
            messages=prompt.messages,
            sampling=Sampling(temperature=temperature, max_tokens=prompt.max_tokens, seed=seed),
            schema_=schema,
            adapter=rival.adapter,
        )
        return await self._generated(request), prompt.passages

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
        shown = await self._shots.shown(rival.shots, example.text, self.engine)
        try:
            return await prompts.build(
                self.skill,
                conversation_of(example),
                passages,
                self.engine,
                passage_tokens=self._passage_tokens,
                examples=shown,
            )
        except ContextOverflow:
            return None

    def _outcome(self, example: Example, generated: Generated, passages: Sequence[Passage]) -> Outcome:
        return score(
            self.skill,
            example,
            generated.text,
            shown={p.document for p in passages},
            generated=generated,
        )


def score(
    skill: Skill,
    example: Example,
    text: str,
    *,
    shown: set[str] | None = None,
    generated: Generated | None = None,
) -> Outcome:
    """An answer's scores by field. One that breaks the schema scores 0 everywhere."""
    output, valid = parsed(skill, text)
    fields = score_fields(example.output, output, skill.metrics)
    if not valid:
        fields = dict.fromkeys(fields, 0.0)
    generated = generated or Generated(text=text)
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
        cited=_cited(skill, output, shown),
    )


def parsed(skill: Skill, text: str) -> tuple[Json, bool]:
    """(output, whether it keeps the schema) of an answer's text; the text itself where it cannot be parsed."""
    if skill.schema is None:
        return text, bool(text.strip())
    value, problems = skill.schema.parse(text)
    return text if value is None else value, not problems


def score_outside(skill: Skill, heldout: Sequence[Example], answers: Mapping[str, Json]) -> list[Outcome]:
    """An outside system's outcomes; `answers` are its outputs by example id. Examples without one are left out."""
    found = []
    for example in heldout:
        if example.id in answers:
            output = answers[example.id]
            found.append(score(skill, example, output if isinstance(output, str) else json.dumps(output)))
    return found


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


def _cited(skill: Skill, output: Json, shown: set[str] | None) -> bool | None:
    field = skill.spec.retrieval.citations
    if field is None or shown is None or not isinstance(output, dict) or not output.get(field):
        return None
    return all(str(name) in shown for name in output[field])
