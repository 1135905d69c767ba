"""The third stage of a run: every rival on the same held-out examples, and what the gate makes of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path

from sqlalchemy.engine import Connection

from intern.engines.base import Engine, EngineRequest
from intern.errors import AdapterRefused, InvalidInput
from intern.learning.adapters.adapter import verify
from intern.learning.adapters.shapes import read_shape
from intern.learning.judging.against import against
from intern.learning.judging.evaluate import Evaluation, Remembered, generate, rivals, score_outside
from intern.learning.judging.gate import GateSettings, decide
from intern.learning.judging.growth import Growth
from intern.learning.judging.outcomes import CANDIDATE, Against, Outcome, Ruling, Summary
from intern.learning.judging.parity import Parity, parity, prompts_for, same_prompts
from intern.learning.judging.probes import Probed, probe
from intern.learning.judging.repetition import Phrase, overused
from intern.learning.judging.statistics import confidence_for
from intern.learning.judging.summary import summarise
from intern.learning.loop.brought import by_example, trained_on, unlike
from intern.learning.loop.collecting import gathered
from intern.learning.loop.contracts import BaseModel, EvaluationEngine, Work
from intern.learning.loop.folder import Owner, RunFolder
from intern.learning.settled import settled, stored
from intern.learning.train import job as jobs
from intern.learning.train import process as training
from intern.learning.train.job import Agreement, Answer, Event, Prompt, Row
from intern.store import learning as store
from intern.types import Adapter, Example, Json, Model, Sampling

HELDOUT_MOST = 200  # examples that rivals answer: the first ones by hash of the frozen set


class Verdict(Model):
    """What an evaluation came to: every rival summed up, what the gate decided, how trainer and engine agree.

    Without a candidate of its own there is no ruling. `other` is then the adapter that answered as one, SKILL@vN.
    """

    rivals: Mapping[str, Summary]
    ruling: Ruling | None = None
    parity: Parity | None = None
    looks: int = 1  # candidates judged on these held-out examples, this one included
    judged: int | None = None  # candidates of the skill judged at all, this one included
    growth: Growth | None = None  # what more examples would bring, where that was asked
    phrases: Mapping[str, tuple[Phrase, ...]] = {}  # overused against the training outputs, by rival
    probes: Mapping[str, Probed] | None = None  # what the skill has measured beside the score, by rival
    against: Against | None = None  # without a ruling: everybody against what serves
    trained_on: int = 0  # of the examples given to measure on, those that an adapter of these was trained on
    other: str | None = None


class Judging:
    """The verdict of one run."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def judge(
        self,
        base: BaseModel,
        adapter: Adapter,
        serving: Adapter | None,
        train: Sequence[Example],
        heldout: Sequence[Example],
    ) -> Verdict:
        """The verdict on a stored adapter that this run has trained, `serving` is the one in service.

        Raises AdapterRefused when trainer and engine do not agree, EngineFailure, StoreFailure.
        """
        await self._work.stage("evaluate", "comparing trainer and engine")
        loaded = await self._files(base, [adapter, *([serving] if serving else [])])
        engine = self._work.parts.open_engine(loaded)
        await engine.start()
        try:
            same = await self._parity(engine, adapter)
            if same.problem is not None:
                raise AdapterRefused(same.problem, adapter=adapter.name)
            outcomes = await self._outcomes(engine, adapter, serving, train, judged_by(heldout))
            probes = await self._probes(engine, adapter, serving, train, heldout, outcomes)
        finally:
            await engine.close()
        looks, judged = await stored(self._looks, adapter, len(heldout))
        known = {name: probed.identity for name, probed in (probes or {}).items() if probed.identity}
        ruling = decide(outcomes, settings=self._gate(), confidence=confidence_for(looks), identities=known)
        summaries = {name: summarise(rows) for name, rows in outcomes.items()}
        await self._keep_outcomes(outcomes)
        phrases = await asyncio.to_thread(_overused, outcomes, train)
        return Verdict(
            rivals=summaries,
            ruling=ruling,
            parity=same,
            looks=looks,
            judged=judged,
            probes=probes,
            phrases=phrases,
        )

    async def compare(
        self,
        *,
        serving: Adapter | None,
        other: Adapter | None = None,
        examples: Sequence[Example] = (),
        outside: Mapping[str, Mapping[str, Json]] | None = None,
    ) -> Verdict:
        """Every rival on `examples`, or on the skill's held-out ones, and no ruling. `other`, an adapter that does not
        serve, answers as the candidate.

        `outside` are the answers of other systems, by system and example id; by the input's key on the held-out ones.
        Nothing near to the `examples` is in a rival's prompt; how many an adapter was trained on is told.

        Raises InvalidInput when there is nothing to compare on, TrainingUnavailable, EngineFailure.
        """
        base = self._work.base
        work, spec = self._work, self._work.skill.spec
        built, _ = await stored(gathered, work.parts, work.run.team, work.skill, work.run.variant)
        heldout = list(examples) or judged_by([row.example for row in built.heldout])
        if not heldout:
            raise InvalidInput("The skill has no held-out examples; give a file of them.", param="skill")
        answered = dict(outside or {})
        if not examples:
            keys = {row.example.id: row.key for row in built.heldout}
            answered = {name: by_example(name, given, heldout, keys) for name, given in answered.items()}
            judged = {example.id for example in heldout}
            owners = {
                row.example.id: Owner(person=row.person, record=row.example.record)
                for row in built.heldout
                if row.example.id in judged
            }
            await settled(RunFolder(work.folder).own, owners)  # those of given examples were noted when they came
        if other is not None and serving is not None and other.name == serving.name:
            other = None
        adapters = [adapter for adapter in (serving, other) if adapter is not None]
        train, seen = [row.example for row in built.train], 0
        if examples:
            train = await unlike(work, built.train, heldout)
            seen = max([await trained_on(work, heldout, adapter) for adapter in adapters], default=0)
        await self._work.stage("evaluate", f"asking every rival {len(heldout)} times")
        engine = self._work.parts.open_engine(await self._files(base, adapters))
        await engine.start()
        try:
            outcomes = await self._outcomes(engine, other, serving, train, heldout)
            probes = await self._probes(engine, other, serving, train, heldout, outcomes)
        finally:
            await engine.close()
        for system, answers in answered.items():
            outcomes[system] = score_outside(self._work.skill, heldout, answers)
        await self._keep_outcomes(outcomes)
        return Verdict(
            rivals={name: summarise(rows) for name, rows in outcomes.items() if rows},
            probes=probes,
            phrases=await asyncio.to_thread(_overused, outcomes, train),
            against=against(outcomes, field=spec.learning.primary, examples=spec.prompting.examples),
            trained_on=seen,
            other=other.name if other is not None else None,
        )

    def _gate(self) -> GateSettings:
        spec = self._work.skill.spec
        learning = spec.learning
        return GateSettings(
            field=learning.primary,
            examples=spec.prompting.examples,
            most_judged=HELDOUT_MOST,
            refusal=next(iter(learning.refusal.items())) if learning.refusal else None,
        )

    async def _files(self, base: BaseModel, adapters: Sequence[Adapter]) -> dict[str, str]:
        """The verified files of adapters for llama.cpp, by name."""
        found = {}
        shape = await asyncio.to_thread(read_shape, Path(base.path)) if adapters else None
        for adapter in adapters:
            folder = self._work.parts.adapters_folder / adapter.digest
            files = await asyncio.to_thread(verify, folder, base=base.sha256, shape=shape)
            found[adapter.name] = str(files.gguf)
        return found

    async def _parity(self, engine: EvaluationEngine, adapter: Adapter) -> Parity:
        watched = {row.id: row for row in jobs.read_lines(self._work.folder / jobs.HELDOUT, Row)}
        prompts = {
            prompt.id: (watched[prompt.id].messages, prompt.ids)
            for prompt in jobs.read_lines(self._work.folder / jobs.PROMPTS, Prompt)
        }
        compared = await same_prompts(engine, prompts)
        asked = list(watched.values())[: prompts_for(len(self._work.skill.metrics))]
        answers = await self._answers(engine, adapter, asked)
        await settled(jobs.write_lines, self._work.folder / jobs.ANSWERS, answers)
        await self._agree()
        agreements = list(jobs.read_lines(self._work.folder / jobs.AGREEMENT, Agreement))
        found = parity(compared, answers, agreements, self._work.skill.metrics)
        text = f"trainer and engine agree on {found.tokens:.1%} of the tokens"
        if found.fields is not None:
            text += f" and {found.fields:.1%} of the fields"
        numbers = found.model_dump(mode="json")
        await self._work.tell(
            Event(kind="parity", stage="evaluate", text=f"{text} of {found.answers} answers", numbers=numbers)
        )
        if found.few is not None and found.problem is None:
            await self._work.tell(Event(kind="warning", stage="evaluate", text=found.few))
        return found

    async def _agree(self) -> None:
        """Let the trainer read the engine's answers, in a process of its own. Raises TrainingFailed."""
        async with aclosing(training.train(self._work.folder, task="agree")) as events:
            async for event in events:
                if event.kind in jobs.TURNS:
                    await self._work.tell(event.model_copy(update={"stage": "evaluate"}))

    async def _answers(self, engine: Engine, adapter: Adapter, rows: Sequence[Row]) -> list[Answer]:
        limit = self._work.skill.spec.generation.max_tokens

        async def one(row: Row) -> Answer:
            schema = self._work.skill.schema
            request = EngineRequest(
                messages=row.messages,
                sampling=Sampling(temperature=0.0, max_tokens=limit),
                schema_=None if schema is None else schema.schema,
                adapter=adapter.name,
            )
            found = await generate(engine, request)
            grammar = None if schema is None else schema.grammar
            return Answer(
                id=row.id,
                messages=row.messages,
                text=found.text,
                grammar=grammar,
                finished=found.finish_reason != "length",
            )

        return list(await asyncio.gather(*(one(row) for row in rows)))

    async def _outcomes(
        self,
        engine: EvaluationEngine,
        adapter: Adapter | None,
        serving: Adapter | None,
        train: Sequence[Example],
        heldout: Sequence[Example],
    ) -> dict[str, list[Outcome]]:
        remembered = await self._remembered(engine, adapter, serving)
        evaluation = self.evaluation(engine, train, heldout, remembered)
        outcomes: dict[str, list[Outcome]] = {}
        for rival in rivals(candidate=adapter.name if adapter else None, serving=serving.name if serving else None):
            total = len(evaluation.heldout)

            async def tell(done: int, name: str = rival.name, total: int = total) -> None:
                await self._work.tell(Event(kind="answers", stage="evaluate", text=name, step=done, steps=total))

            outcomes[rival.name] = await evaluation.answer(rival, tell=tell)
            found = summarise(outcomes[rival.name])
            text = f"{rival.name}: {found.score.mean:.2f}"
            if found.failed:
                text += f"; the engine gave no answer to {found.failed} of {found.n}, which count as wrong"
            await self._work.tell(
                Event(
                    kind="rival",
                    stage="evaluate",
                    text=text,
                    numbers={"rival": rival.name, **found.model_dump(mode="json")},
                )
            )
        return outcomes

    async def _probes(
        self,
        engine: EvaluationEngine,
        adapter: Adapter | None,
        serving: Adapter | None,
        train: Sequence[Example],
        heldout: Sequence[Example],
        outcomes: Mapping[str, Sequence[Outcome]],
    ) -> dict[str, Probed] | None:
        remembered = await self._remembered(engine, adapter, serving)
        answering = rivals(candidate=adapter.name if adapter else None, serving=serving.name if serving else None)

        def ask(examples: Sequence[Example]) -> Evaluation:
            return self.evaluation(engine, train, examples, remembered)

        async def tell(text: str, done: int, of: int) -> None:
            await self._work.tell(Event(kind="answers", stage="evaluate", text=text, step=done, steps=of))

        return await probe(self._work.skill, answering, outcomes, heldout, ask, tell) or None

    async def _remembered(self, engine: Engine, *adapters: Adapter | None) -> Remembered:
        """What the rivals answered before on such an engine, under the contents of base model and adapters: a name may
        stand for another file tomorrow, or a version be given again by a database that was restored."""
        memory = await asyncio.to_thread(self._work.parts.memory, self._work.run.team, self._work.skill.name)
        digests = {adapter.name: adapter.digest for adapter in adapters if adapter is not None}
        return Remembered(memory, base=self._work.base.sha256, adapters=digests, engine=engine.info)

    def evaluation(
        self,
        engine: EvaluationEngine,
        train: Sequence[Example],
        heldout: Sequence[Example],
        remembered: Remembered | None,
    ) -> Evaluation:
        """Rivals answering `heldout`; without `remembered` they are asked whatever they have answered before."""
        return Evaluation(
            self._work.skill,
            engine,
            heldout=heldout,
            train=train,
            retrieve=self._work.parts.retriever(self._work.run.team),
            embed=self._work.parts.embed,
            passage_tokens=self._work.parts.passage_tokens,
            remembered=remembered,
        )

    def _looks(self, adapter: Adapter, heldout: int) -> tuple[int, int]:
        """Candidates judged on much the same held-out examples, and all of the skill, this one included in both.

        Held-out examples only ever come in addition, so that a set which was a fifth smaller counts as another one;
        `confidence_for` says what that leaves open. A run that was ended after its candidate's score was told has
        judged it: whoever does not like a score and begins anew has looked.
        """
        team = self._work.run.team
        with self._work.parts.database.connect() as connection:
            known = store.list_adapters(connection, team, skill=self._work.skill.name)
            others = [a for a in known if a.version != adapter.version]
            judged = [a for a in others if a.decision or (a.run and _scored(connection, team, a.run))]
            sizes = [store.get_dataset(connection, team, a.dataset).heldout for a in judged if a.dataset]
        return 1 + sum(size >= 0.8 * heldout for size in sizes), 1 + len(judged)

    async def _keep_outcomes(self, outcomes: Mapping[str, Sequence[Outcome]]) -> None:
        """Write what every rival answered, for the report. The verdict stands without it."""
        try:
            await settled(self._write_outcomes, outcomes)
        except OSError as error:
            text = f"the report has no examples: the answers cannot be written ({error.strerror})"
            await self._work.tell(Event(kind="warning", stage="evaluate", text=text))

    def _write_outcomes(self, outcomes: Mapping[str, Sequence[Outcome]]) -> None:
        files = {self._work.folder / f"outcomes-{name}.jsonl": rows for name, rows in outcomes.items()}
        try:
            for file, rows in files.items():
                jobs.write_lines(file, rows)
        except OSError:
            for file in files:  # a file that breaks off in the middle could not be read
                with suppress(OSError):
                    file.unlink(missing_ok=True)
            raise


def _overused(outcomes: Mapping[str, Sequence[Outcome]], train: Sequence[Example]) -> dict[str, tuple[Phrase, ...]]:
    """What each rival says far more often than the training outputs do; rivals that overuse nothing are left out."""
    outputs = [example.output for example in train]
    found = {name: tuple(overused([o.output for o in rows], outputs)) for name, rows in outcomes.items()}
    return {name: phrases for name, phrases in found.items() if phrases} if outputs else {}


def judged_by(heldout: Sequence[Example]) -> list[Example]:
    """The held-out examples that rivals answer: by hash, so that old and new ones are among them alike."""
    order = sorted(heldout, key=lambda example: hashlib.sha256(example.id.encode("utf-8", "replace")).digest())
    return order[:HELDOUT_MOST]


def _scored(connection: Connection, team: str, run: str) -> bool:
    """Whether the run told its candidate's score."""
    events = (body for _, body in store.list_events(connection, team, run))
    return any(body["kind"] == "rival" and body.get("numbers", {}).get("rival") == CANDIDATE for body in events)
