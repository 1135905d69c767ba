"""One run of the learning loop, from examples to a verdict: gather, train, convert, evaluate, decide.

In: a skill and the parts of a workspace that it needs. Out: events as they come, and a `Finished` with the adapter and
what the gate decided. Knows nothing of HTTP, of queues, or of how an adapter goes live: `learner.py` does the rest.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

from sqlalchemy.engine import Engine as Database

from intern.engines.base import Engine, EngineRequest
from intern.errors import AdapterRefused, InternError, InvalidInput, TrainingUnavailable
from intern.learning import training
from intern.learning.adapter import store_adapter, verify
from intern.learning.dataset import Built, Readiness, Redacts, build, key_of, readiness
from intern.learning.evaluate import Evaluation, Memory, Rival, generate, rivals, score_outside
from intern.learning.gate import GateSettings, decide
from intern.learning.gather import corrected, gather
from intern.learning.gguf_lora import GGUF, convert
from intern.learning.growth import Growth, forecast, parts
from intern.learning.lora import read_lora
from intern.learning.manifest import Base, Provenance
from intern.learning.outcomes import CANDIDATE, Interval, Outcome, Ruling, Summary
from intern.learning.parity import Parity, Tokenises, parity, prompts_for, same_prompts
from intern.learning.probes import Probed, probe
from intern.learning.recipe import Recipe
from intern.learning.rows import Retrieves, make_pairs, make_rows
from intern.learning.settled import settled
from intern.learning.shapes import read_shape
from intern.learning.statistics import confidence_for
from intern.learning.summary import summarise
from intern.learning.synthesis import Synthesis, Synthesized
from intern.learning.train import job as jobs
from intern.learning.train.job import Agreement, Answer, Event, Job, Prompt, Row
from intern.models.embedder import Vectors
from intern.skill import Skill
from intern.store import learning as store
from intern.types import Adapter, Dataset, Example, Json, Model, Passage, Run, Sampling, new_id, now

WATCHED = 40  # held-out examples whose loss is measured during training
HELDOUT_MOST = 200  # examples that rivals answer: the first ones by hash of the frozen set


class EvaluationEngine(Engine, Tokenises, Protocol):
    """An engine that loads adapters and tells how it tokenises."""


class BaseModel(Model):
    """The base model in service: its file, what the engine calls it, its content hash."""

    path: str
    name: str
    sha256: str


class Parts(Protocol):
    """What a run needs of a workspace."""

    @property
    def database(self) -> Database: ...

    @property
    def base(self) -> BaseModel | None: ...

    def open_engine(self, adapters: Mapping[str, str]) -> EvaluationEngine:
        """A second engine on the base model, not started, that serves nobody else."""
        ...

    def redacts(self, team: str, skill: Skill) -> Redacts:
        """Takes personal data out of the skill's examples; may take seconds to be ready."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors: ...

    def retriever(self, team: str) -> Retrieves: ...

    def texts(self, team: str, skill: str) -> list[str]:
        """The skill's documents as plain text, each with its title as first line."""
        ...

    def passages(self, team: str, skill: str) -> list[Passage]:
        """Every passage of the skill's documents."""
        ...

    def open_teacher(self) -> Engine:
        """The engine that writes examples from documents, not started."""
        ...

    def memory(self, team: str, skill: str) -> Memory: ...

    @property
    def adapters_folder(self) -> Path: ...

    @property
    def runs_folder(self) -> Path: ...

    @property
    def cache(self) -> Path: ...

    @property
    def context(self) -> int: ...

    @property
    def threads(self) -> int: ...

    @property
    def passage_tokens(self) -> int: ...

    @property
    def contributor_cap(self) -> int: ...


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


class Finished(Model):
    """The end of a training."""

    dataset: Dataset
    adapter: Adapter
    verdict: Verdict
    ruling: Ruling
    train_seconds: float
    approve: bool = False  # a person has to promote


class NotReady(InvalidInput):
    """The dataset is not worth training on; `readiness` says what is missing."""

    def __init__(self, found: Readiness) -> None:
        super().__init__(" ".join(found.missing))
        self.readiness = found


Tell = Callable[[Event], Awaitable[None]]


class Loop:
    """One run."""

    def __init__(self, parts: Parts, skill: Skill, run: Run, recipe: Recipe, tell: Tell) -> None:
        self.parts = parts
        self.skill = skill
        self.run = run
        self.recipe = recipe
        self._tell = tell
        self._collected: list[store.Collected] = []
        self.folder = parts.runs_folder / run.id

    async def learn(self, *, serving: Adapter | None, force: bool = False, growth: bool = False) -> Finished:
        """The whole run. `serving` is the adapter in service, if any. `growth`: also train on parts of the examples, to
        say what more of them would bring.

        Raises NotReady, ModelUnavailable, TrainingUnavailable, TrainingFailed, AdapterRefused, EngineFailure,
        StoreFailure.
        """
        training.check_installed(("bitsandbytes",) if self.recipe.bits else ())
        base = self._base()
        await asyncio.to_thread(read_shape, Path(base.path))  # an architecture without adapters is refused at once
        dataset, train, heldout = await self._taken_up() if self.run.dataset else await self.collect(force=force)
        seconds = self.run.train_seconds or 0.0
        if self.run.adapter is None:
            seconds, curves = await self._train(base, train, heldout)
            adapter = await self._keep(base, dataset, curves)
        else:
            adapter = await asyncio.to_thread(self._kept)
        verdict = await self._evaluate(base, adapter, serving, train, heldout)
        assert verdict.ruling is not None
        if growth:
            try:
                grown = await self._grow(base, train, heldout, verdict.rivals[CANDIDATE].score)
                verdict = verdict.model_copy(update={"growth": grown})
            except InternError as error:  # the verdict stands without it
                text = f"what more examples would bring is not known: {error.message}"
                await self._tell(Event(kind="warning", stage="growth", text=text))
        return Finished(
            dataset=dataset,
            adapter=adapter,
            verdict=verdict,
            ruling=verdict.ruling,
            train_seconds=seconds,
            approve=self.skill.spec.learning.approve,
        )

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
        base = self._base()
        built, _ = await asyncio.to_thread(self.build)
        heldout = list(examples) or [row.example for row in built.heldout]
        if not heldout:
            raise InvalidInput("The skill has no held-out examples; give a file of them.", param="skill")
        heldout = heldout if examples else judged_by(heldout)
        asked = {key_of(example) for example in heldout}
        train = [row.example for row in built.train if row.key not in asked]  # no rival may be shown the answer
        await self._stage("evaluate", f"asking every rival {len(heldout)} times")
        engine = self.parts.open_engine(await self._files(base, [serving] if serving else []))
        await engine.start()
        try:
            outcomes = await self._outcomes(engine, None, serving, train, heldout)
            probes = await self._probes(engine, None, serving, heldout, outcomes)
        finally:
            await engine.close()
        for system, answers in (outside or {}).items():
            outcomes[system] = score_outside(self.skill, heldout, answers)
        await settled(self._write_outcomes, outcomes)
        return Verdict(rivals={name: summarise(rows) for name, rows in outcomes.items() if rows}, probes=probes)

    async def synthesize(self, count: int) -> Synthesized:
        """Examples from the skill's documents, at most `count` (0: as many as they give); stores nothing.

        Raises InvalidInput for a skill without documents, EngineFailure when the teacher does not answer.
        """
        team, name = self.run.team, self.skill.name
        passages = await asyncio.to_thread(self.parts.passages, team, name)
        if not passages:
            raise InvalidInput(f"The skill '{name}' has no documents to write examples from.", param="skill")
        await self._stage("synthesize", f"reading {len(passages)} passages")
        with self.parts.database.connect() as connection:
            self._collected = store.collected(connection, team, name)
        existing = [row.example for row in gather(self.skill, self._collected, augmented=True)]
        teacher = self.parts.open_teacher()
        await teacher.start()

        async def tell(read: int, of: int, found: int) -> None:
            await self._tell(Event(kind="answers", stage="synthesize", text=f"{found} examples", step=read, steps=of))

        try:
            synthesis = Synthesis(self.skill, teacher, self.parts.retriever(team), existing=existing)
            return await synthesis.write(passages, most=count, tell=tell)
        finally:
            await teacher.close()

    async def _taken_up(self) -> tuple[Dataset, list[Example], list[Example]]:
        """What a run that was interrupted had frozen."""

        def load() -> tuple[Dataset, list[Example], list[Example]]:
            team, name = self.run.team, str(self.run.dataset)
            with self.parts.database.connect() as connection:
                self._collected = store.collected(connection, team, self.skill.name)
                train, heldout = (store.dataset_examples(connection, team, name, s) for s in ("train", "heldout"))
                return store.get_dataset(connection, team, name), train, heldout

        return await asyncio.to_thread(load)

    def _kept(self) -> Adapter:
        version = int(str(self.run.adapter).rpartition("@v")[2])
        with self.parts.database.connect() as connection:
            return store.get_adapter(connection, self.run.team, self.skill.name, version)

    async def collect(self, *, force: bool = False) -> tuple[Dataset, list[Example], list[Example]]:
        """Gather, clean, split and freeze; returns the dataset with its train and held-out examples."""
        await self._stage("gather", "collecting the examples")
        built, ready = await asyncio.to_thread(self.build)
        for note in ready.notes:
            await self._tell(Event(kind="note", stage="gather", text=note))
        if not ready.ready and not force:
            raise NotReady(ready)
        if not built.train or not built.heldout:
            raise InvalidInput("There must be examples to train on and held-out ones to judge by.", param="skill")
        dataset = await settled(self._freeze, built)
        text = f"{dataset.train} examples to train on, {dataset.heldout} held out, {len(dataset.dropped)} left out"
        numbers = {"dataset": dataset.id, "dropped": dict(ready.dropped)}
        await self._tell(Event(kind="dataset", stage="gather", text=text, numbers=numbers))
        return dataset, [row.example for row in built.train], [row.example for row in built.heldout]

    def build(self) -> tuple[Built, Readiness]:
        """The dataset as it would be now; stores nothing."""
        team, name = self.run.team, self.skill.name
        with self.parts.database.connect() as connection:
            self._collected = store.collected(connection, team, name)
            frozen = store.heldout_keys(connection, team, name)
            trained = store.trained_keys(connection, team, name)
        built = build(
            name,
            gather(self.skill, self._collected, augmented=self.run.variant == "augmented"),
            schema=self.skill.schema,
            redact=self.parts.redacts(team, self.skill),
            frozen=frozen,
            trained=trained,
            contributor_cap=self.parts.contributor_cap,
        )
        return built, readiness(built, self.skill.schema, min_examples=self.skill.spec.learning.min_examples)

    # --- the stages ----------------------------------------------------------------------------------------------

    def _base(self) -> BaseModel:
        if self.parts.base is None:
            raise TrainingUnavailable(
                "The engine in use takes no adapters of this platform, so there is nothing to train. "
                "Use INTERN_ENGINE=llamacpp."
            )
        return self.parts.base

    def _freeze(self, built: Built) -> Dataset:
        dataset = Dataset(
            id=new_id("ds"),
            team=self.run.team,
            skill=self.skill.name,
            digest=built.digest,
            variant=self.run.variant,
            created=now(),
            train=len(built.train),
            heldout=len(built.heldout),
            dropped=built.dropped,
        )
        items = [
            store.Item(example=row.example, key=row.key, split=split, person=row.person)
            for split, rows in (("train", built.train), ("heldout", built.heldout))
            for row in rows
        ]
        with self.parts.database.begin() as connection:
            store.hold_out(connection, dataset.team, dataset.skill, (row.key for row in built.heldout))
            return store.add_dataset(connection, dataset, items)

    async def _train(
        self, base: BaseModel, train: Sequence[Example], heldout: Sequence[Example]
    ) -> tuple[float, dict[str, tuple[float, ...]]]:
        """Train in a process of its own; returns its seconds and its curves."""
        await self._stage("train", "rendering the examples as serving would")
        if not (self.folder / jobs.JOB).exists():
            await self._write_job(self.folder, base, train, heldout)
        seconds = 0.0
        curves: dict[str, list[float]] = {}
        async with aclosing(training.train(self.folder)) as events:
            async for event in events:
                if event.kind in ("step", "heldout") and event.loss is not None and event.step is not None:
                    curves.setdefault(f"{event.kind}_at", []).append(event.step)
                    curves.setdefault(f"{event.kind}_loss", []).append(round(event.loss, 5))
                if event.kind == "done":
                    seconds = float(event.numbers.get("train_seconds", 0.0))
                await self._tell(event.model_copy(update={"stage": event.stage or "train"}))
        return seconds, {name: tuple(values) for name, values in curves.items()}

    async def _write_job(
        self, folder: Path, base: BaseModel, train: Sequence[Example], heldout: Sequence[Example]
    ) -> None:
        engine = self.parts.open_engine({})
        await engine.start()
        try:
            retrieve = self.parts.retriever(self.run.team)
            budget = self.parts.passage_tokens
            rows, left_out = await make_rows(self.skill, train, retrieve, engine, passage_tokens=budget)
            if left_out:
                reasons = ", ".join(sorted({row.detail for row in left_out}))
                text = f"{len(left_out)} examples make no training row: {reasons}"
                await self._tell(Event(kind="warning", stage="train", text=text))
            watched, _ = await make_rows(self.skill, heldout[:WATCHED], retrieve, engine, passage_tokens=budget)
            pairs = []
            texts: list[str] = []
            if self.recipe.name == "dpo":
                redact = self.parts.redacts(self.run.team, self.skill)
                wrong = await asyncio.to_thread(corrected, self._collected, train, redact)
                pairs = await make_pairs(self.skill, wrong, retrieve, engine, passage_tokens=budget)
            if self.recipe.name == "completion-then-sft":
                texts = await asyncio.to_thread(self.parts.texts, self.run.team, self.skill.name)
        finally:
            await engine.close()
        if not rows:
            raise InvalidInput("No example makes a training row.", param="skill")
        job = Job(
            base=base.path,
            recipe=self.recipe,
            context=self.parts.context,
            threads=self.parts.threads,
            cache=str(self.parts.cache),
        )
        await settled(training.prepare, folder, job, rows, heldout=watched, texts=texts, pairs=pairs)

    async def _keep(self, base: BaseModel, dataset: Dataset, curves: Mapping[str, tuple[float, ...]]) -> Adapter:
        await self._stage("convert", "checking the adapter and converting it for llama.cpp")
        adapter = await settled(self._store, base, dataset, curves)
        numbers = {"adapter": adapter.name, "digest": adapter.digest}
        await self._tell(Event(kind="adapter", stage="convert", text=f"{adapter.name} is stored", numbers=numbers))
        return adapter

    def _store(self, base: BaseModel, dataset: Dataset, curves: Mapping[str, tuple[float, ...]]) -> Adapter:
        source = self.folder / jobs.ADAPTER
        _convert(Path(base.path), source)
        with self.parts.database.begin() as connection:
            adapter = store.add_adapter(
                connection,
                Adapter(
                    team=self.run.team,
                    skill=self.skill.name,
                    version=0,
                    digest="",
                    base=base.sha256,
                    dataset=dataset.id,
                    run=self.run.id,
                    recipe=self.recipe.name,
                    created=now(),
                ),
            )
        files = store_adapter(
            self.parts.adapters_folder,
            source,
            Provenance(
                team=adapter.team,
                skill=adapter.skill,
                name=adapter.name,
                base=Base(name=base.name, sha256=base.sha256, dtype="float32, dequantised"),
                dataset=dataset.digest,
                run=self.run.id,
                recipe=self.recipe.model_dump(mode="json"),
                created=adapter.created,
                curves=curves,
            ),
        )
        kept = adapter.model_copy(update={"digest": files.digest})
        with self.parts.database.begin() as connection:
            store.update_adapter(connection, kept)
        return kept

    async def _evaluate(
        self,
        base: BaseModel,
        adapter: Adapter,
        serving: Adapter | None,
        train: Sequence[Example],
        heldout: Sequence[Example],
    ) -> Verdict:
        await self._stage("evaluate", "comparing trainer and engine")
        loaded = await self._files(base, [adapter, *([serving] if serving else [])])
        engine = self.parts.open_engine(loaded)
        await engine.start()
        try:
            same = await self._parity(engine, adapter)
            if same.problem is not None:
                raise AdapterRefused(same.problem, adapter=adapter.name)
            outcomes = await self._outcomes(engine, adapter, serving, train, judged_by(heldout))
            probes = await self._probes(engine, adapter, serving, heldout, outcomes)
        finally:
            await engine.close()
        looks = await asyncio.to_thread(self._looks, adapter, len(heldout))
        known = {name: probed.identity for name, probed in (probes or {}).items() if probed.identity}
        ruling = decide(outcomes, settings=self._gate(), confidence=confidence_for(looks), identities=known)
        summaries = {name: summarise(rows) for name, rows in outcomes.items()}
        await settled(self._write_outcomes, outcomes)
        return Verdict(rivals=summaries, ruling=ruling, parity=same, looks=looks, probes=probes)

    def _gate(self) -> GateSettings:
        refusal = self.skill.spec.learning.refusal
        return GateSettings(refusal=next(iter(refusal.items())) if refusal else None)

    async def _files(self, base: BaseModel, adapters: Sequence[Adapter]) -> dict[str, str]:
        """The verified files of adapters for llama.cpp, by name."""
        found = {}
        for adapter in adapters:
            files = await asyncio.to_thread(verify, self.parts.adapters_folder / adapter.digest, base=base.sha256)
            found[adapter.name] = str(files.gguf)
        return found

    async def _parity(self, engine: EvaluationEngine, adapter: Adapter) -> Parity:
        watched = {row.id: row for row in jobs.read_lines(self.folder / jobs.HELDOUT, Row)}
        prompts = {
            prompt.id: (watched[prompt.id].messages, prompt.ids)
            for prompt in jobs.read_lines(self.folder / jobs.PROMPTS, Prompt)
        }
        compared = await same_prompts(engine, prompts)
        asked = list(watched.values())[: prompts_for(len(self.skill.metrics))]
        answers = await self._answers(engine, adapter, asked)
        await settled(jobs.write_lines, self.folder / jobs.ANSWERS, answers)
        async with aclosing(training.train(self.folder, task="agree")) as events:
            async for _ in events:
                pass
        agreements = list(jobs.read_lines(self.folder / jobs.AGREEMENT, Agreement))
        found = parity(compared, answers, agreements, self.skill.metrics)
        text = f"trainer and engine agree on {found.tokens:.1%} of the tokens"
        if found.fields is not None:
            text += f" and {found.fields:.1%} of the fields"
        numbers = found.model_dump(mode="json")
        await self._tell(
            Event(kind="parity", stage="evaluate", text=f"{text} of {found.answers} answers", numbers=numbers)
        )
        return found

    async def _answers(self, engine: Engine, adapter: Adapter, rows: Sequence[Row]) -> list[Answer]:
        limit = self.skill.spec.generation.max_tokens

        async def one(row: Row) -> Answer:
            schema = self.skill.schema
            request = EngineRequest(
                messages=row.messages,
                sampling=Sampling(temperature=0.0, max_tokens=limit),
                schema_=None if schema is None else schema.schema,
                adapter=adapter.name,
            )
            found = await generate(engine, request)
            grammar = None if schema is None else schema.grammar
            return Answer(
                id=row.id, messages=row.messages, text=found.text, grammar=grammar, finished=found.tokens < limit
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
        memory = self.parts.memory(self.run.team, self.skill.name)
        evaluation = self._evaluation(engine, train, heldout, memory=memory)
        outcomes: dict[str, list[Outcome]] = {}
        for rival in rivals(candidate=adapter.name if adapter else None, serving=serving.name if serving else None):
            total = len(evaluation.heldout)

            async def tell(done: int, name: str = rival.name, total: int = total) -> None:
                await self._tell(Event(kind="answers", stage="evaluate", text=name, step=done, steps=total))

            outcomes[rival.name] = await evaluation.answer(rival, tell=tell)
            found = summarise(outcomes[rival.name])
            text = f"{rival.name}: {found.score.mean:.2f}"
            await self._tell(
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
        memory = self.parts.memory(self.run.team, self.skill.name)
        answering = rivals(candidate=adapter.name if adapter else None, serving=serving.name if serving else None)

        def ask(examples: Sequence[Example]) -> Evaluation:
            return self._evaluation(engine, (), examples, memory=memory)

        async def tell(text: str, done: int, of: int) -> None:
            await self._tell(Event(kind="answers", stage="evaluate", text=text, step=done, steps=of))

        return await probe(self.skill, answering, outcomes, heldout, ask, tell) or None

    def _evaluation(
        self, engine: EvaluationEngine, train: Sequence[Example], heldout: Sequence[Example], *, memory: Memory | None
    ) -> Evaluation:
        return Evaluation(
            self.skill,
            engine,
            heldout=heldout,
            train=train,
            retrieve=self.parts.retriever(self.run.team),
            embed=self.parts.embed,
            passage_tokens=self.parts.passage_tokens,
            memory=memory,
        )

    async def _grow(
        self, base: BaseModel, train: Sequence[Example], heldout: Sequence[Example], whole: Interval
    ) -> Growth | None:
        """Train on parts of the examples, score them on the same held-out ones, and say what more would bring."""
        files: dict[int, str] = {}
        for part in parts(train):
            await self._stage("growth", f"training on {len(part)} of {len(train)} examples")
            files[len(part)] = str(await self._train_part(base, part))
        if not files:
            text = f"{len(train)} examples are too few to train on parts of them"
            await self._tell(Event(kind="note", stage="growth", text=text))
            return None
        engine = self.parts.open_engine({f"part-{size}": file for size, file in files.items()})
        await engine.start()
        scores = {len(train): whole}
        try:
            # Without memory: "part-75" is another adapter in every run.
            evaluation = self._evaluation(engine, train, judged_by(heldout), memory=None)
            for size in files:
                outcomes = await evaluation.answer(Rival(name=CANDIDATE, adapter=f"part-{size}"))
                scores[size] = summarise(outcomes).score
        finally:
            await engine.close()
        found = forecast(scores)
        await self._tell(Event(kind="growth", stage="growth", text=found.words, numbers=found.model_dump(mode="json")))
        return found

    async def _train_part(self, base: BaseModel, part: Sequence[Example]) -> Path:
        """The adapter of a part, converted; made once, also when the run is interrupted in between."""
        folder = self.folder / f"part-{len(part)}"
        target = folder / jobs.ADAPTER / GGUF
        if not (folder / jobs.JOB).exists():
            await self._write_job(folder, base, part, ())
        if not target.exists():
            async with aclosing(training.train(folder)) as events:
                async for event in events:
                    if event.kind == "step":
                        text = f"training on {len(part)}"
                        told = Event(kind="answers", stage="growth", text=text, step=event.step, steps=event.steps)
                        await self._tell(told)
            await asyncio.to_thread(_convert, Path(base.path), folder / jobs.ADAPTER)
        return target

    def _looks(self, adapter: Adapter, heldout: int) -> int:
        """Candidates judged on much the same held-out examples, this one included.

        Held-out examples only ever come in addition, so that a set which was a fifth smaller counts as another one.
        """
        team = self.run.team
        with self.parts.database.connect() as connection:
            known = store.list_adapters(connection, team, skill=self.skill.name)
            judged = [a for a in known if a.decision and a.version != adapter.version]
            sizes = [store.get_dataset(connection, team, a.dataset).heldout for a in judged if a.dataset]
        return 1 + sum(size >= 0.8 * heldout for size in sizes)

    def _write_outcomes(self, outcomes: Mapping[str, Sequence[Outcome]]) -> None:
        for name, rows in outcomes.items():
            jobs.write_lines(self.folder / f"outcomes-{name}.jsonl", rows)

    def clear(self) -> None:
        """Remove what only training needed: checkpoints, rows, the adapter that is stored by now."""
        for name in (jobs.STAGES, jobs.ADAPTER):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for part in self.folder.glob("part-*"):
            shutil.rmtree(part, ignore_errors=True)
        for name in (jobs.ROWS, jobs.HELDOUT, jobs.TEXTS, jobs.PAIRS, jobs.PROMPTS, jobs.ANSWERS):
            (self.folder / name).unlink(missing_ok=True)

    async def _stage(self, stage: str, text: str) -> None:
        await self._tell(Event(kind="stage", stage=stage, text=text))


def judged_by(heldout: Sequence[Example]) -> list[Example]:
    """The held-out examples that rivals answer: by hash, so that old and new ones are among them alike."""
    order = sorted(heldout, key=lambda example: hashlib.sha256(example.id.encode("utf-8", "replace")).digest())
    return order[:HELDOUT_MOST]


def _convert(base: Path, adapter: Path) -> None:
    """Write the adapter in `adapter` for llama.cpp beside it; whole or not at all."""
    shape = read_shape(base)
    convert(read_lora(adapter, shape), shape, adapter / GGUF)
