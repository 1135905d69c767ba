"""The third stage of a run: every rival on the same held-out examples, and what the gate makes of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress

from intern.engines.base import Engine, EngineRequest
from intern.errors import AdapterRefused, InvalidInput
from intern.learning.adapters.adapter import verify
from intern.learning.examples.items import key_of
from intern.learning.judging.evaluate import Evaluation, Remembered, generate, rivals, score_outside
from intern.learning.judging.gate import GateSettings, decide
from intern.learning.judging.growth import Growth
from intern.learning.judging.outcomes import Outcome, Ruling, Summary
from intern.learning.judging.parity import Parity, parity, prompts_for, same_prompts
from intern.learning.judging.probes import Probed, probe
from intern.learning.judging.statistics import confidence_for
from intern.learning.judging.summary import summarise
from intern.learning.loop.collecting import gathered
from intern.learning.loop.contracts import BaseModel, EvaluationEngine, Work
from intern.learning.settled import settled, stored
from intern.learning.train import job as jobs
from intern.learning.train import process as training
from intern.learning.train.job import Agreement, Answer, Event, Prompt, Row
from intern.store import learning as store
from intern.types import Adapter, Example, Json, Model, Sampling

HELDOUT_MOST = 200  # examples that rivals answer: the first ones by hash of the frozen set


class Verdict(Model):
    """What an evaluation came to: every rival summed up, what the gate decided, how trainer and engine agree.

    Without a candidate there is no ruling.
    """

    rivals: Mapping[str, Summary]
    ruling: Ruling | None = None
    parity: Parity | None = None
    looks: int = 1  # candidates judged on these held-out examples, this one included
    growth: Growth | None = None  # what more examples would bring, where that was asked
    probes: Mapping[str, Probed] | None = None  # what the skill has measured beside the score, by rival


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
            probes = await self._probes(engine, adapter, serving, heldout, outcomes)
        finally:
            await engine.close()
        looks = await stored(self._looks, adapter, len(heldout))
        known = {name: probed.identity for name, probed in (probes or {}).items() if probed.identity}
        ruling = decide(outcomes, settings=self._gate(), confidence=confidence_for(looks), identities=known)
        summaries = {name: summarise(rows) for name, rows in outcomes.items()}
        await self._keep_outcomes(outcomes)
        return Verdict(rivals=summaries, ruling=ruling, parity=same, looks=looks, probes=probes)

    async def compare(
        self,
        *,
        serving: Adapter | None,
        examples: Sequence[Example] = (),
        outside: Mapping[str, Mapping[str, Json]] | None = None,
    ) -> Verdict:
        """Every rival but a candidate on `examples`, or on the skill's held-out ones.

        `outside` are the answers of other systems, by system and example id.

        Raises InvalidInput when there is nothing to compare on, TrainingUnavailable, EngineFailure.
        """
        base = self._work.base
        work = self._work
        built, _ = await stored(gathered, work.parts, work.run.team, work.skill, work.run.variant)
        heldout = list(examples) or [row.example for row in built.heldout]
        if not heldout:
            raise InvalidInput("The skill has no held-out examples; give a file of them.", param="skill")
        heldout = heldout if examples else judged_by(heldout)
        asked = {key_of(example) for example in heldout}
        train = [row.example for row in built.train if row.key not in asked]  # no rival may be shown the answer
        await self._work.stage("evaluate", f"asking every rival {len(heldout)} times")
        engine = self._work.parts.open_engine(await self._files(base, [serving] if serving else []))
        await engine.start()
        try:
            outcomes = await self._outcomes(engine, None, serving, train, heldout)
            probes = await self._probes(engine, None, serving, heldout, outcomes)
        finally:
            await engine.close()
        for system, answers in (outside or {}).items():
            outcomes[system] = score_outside(self._work.skill, heldout, answers)
        await self._keep_outcomes(outcomes)
        return Verdict(rivals={name: summarise(rows) for name, rows in outcomes.items() if rows}, probes=probes)

    def _gate(self) -> GateSettings:
        learning = self._work.skill.spec.learning
        return GateSettings(
            field=learning.primary,
            most_judged=HELDOUT_MOST,
            refusal=next(iter(learning.refusal.items())) if learning.refusal else None,
        )

    async def _files(self, base: BaseModel, adapters: Sequence[Adapter]) -> dict[str, str]:
        """The verified files of adapters for llama.cpp, by name."""
        found = {}
        for adapter in adapters:
            files = await asyncio.to_thread(verify, self._work.parts.adapters_folder / adapter.digest, base=base.sha256)
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
        async with aclosing(training.train(self._work.folder, task="agree")) as events:
            async for _ in events:
                pass
        agreements = list(jobs.read_lines(self._work.folder / jobs.AGREEMENT, Agreement))
        found = parity(compared, answers, agreements, self._work.skill.metrics)
        text = f"trainer and engine agree on {found.tokens:.1%} of the tokens"
        if found.fields is not None:
            text += f" and {found.fields:.1%} of the fields"
        numbers = found.model_dump(mode="json")
        await self._work.tell(
            Event(kind="parity", stage="evaluate", text=f"{text} of {found.answers} answers", numbers=numbers)
        )
        return found

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
        remembered = await self._remembered(adapter, serving)
        evaluation = self.evaluation(engine, train, heldout, remembered)
        outcomes: dict[str, list[Outcome]] = {}
        for rival in rivals(candidate=adapter.name if adapter else None, serving=serving.name if serving else None):
            total = len(evaluation.heldout)

            async def tell(done: int, name: str = rival.name, total: int = total) -> None:
                await self._work.tell(Event(kind="answers", stage="evaluate", text=name, step=done, steps=total))

            outcomes[rival.name] = await evaluation.answer(rival, tell=tell)
            found = summarise(outcomes[rival.name])
            text = f"{rival.name}: {found.score.mean:.2f}"
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
        heldout: Sequence[Example],
        outcomes: Mapping[str, Sequence[Outcome]],
    ) -> dict[str, Probed] | None:
        remembered = await self._remembered(adapter, serving)
        answering = rivals(candidate=adapter.name if adapter else None, serving=serving.name if serving else None)

        def ask(examples: Sequence[Example]) -> Evaluation:
            return self.evaluation(engine, (), examples, remembered)

        async def tell(text: str, done: int, of: int) -> None:
            await self._work.tell(Event(kind="answers", stage="evaluate", text=text, step=done, steps=of))

        return await probe(self._work.skill, answering, outcomes, heldout, ask, tell) or None

    async def _remembered(self, *adapters: Adapter | None) -> Remembered:
        """What the rivals answered before, under the contents of base model and adapters: a name may stand for another
        file tomorrow, or a version be given again by a database that was restored."""
        memory = await asyncio.to_thread(self._work.parts.memory, self._work.run.team, self._work.skill.name)
        digests = {adapter.name: adapter.digest for adapter in adapters if adapter is not None}
        return Remembered(memory, base=self._work.base.sha256, adapters=digests)

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

    def _looks(self, adapter: Adapter, heldout: int) -> int:
        """Candidates judged on much the same held-out examples, this one included.

        Held-out examples only ever come in addition, so that a set which was a fifth smaller counts as another one.
        """
        team = self._work.run.team
        with self._work.parts.database.connect() as connection:
            known = store.list_adapters(connection, team, skill=self._work.skill.name)
            judged = [a for a in known if a.decision and a.version != adapter.version]
            sizes = [store.get_dataset(connection, team, a.dataset).heldout for a in judged if a.dataset]
        return 1 + sum(size >= 0.8 * heldout for size in sizes)

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


def judged_by(heldout: Sequence[Example]) -> list[Example]:
    """The held-out examples that rivals answer: by hash, so that old and new ones are among them alike."""
    order = sorted(heldout, key=lambda example: hashlib.sha256(example.id.encode("utf-8", "replace")).digest())
    return order[:HELDOUT_MOST]
