"""What the learning loop uses of a workspace, put together from its parts (`loop.Parts`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import Engine as Database

from intern.engines.base import Engine
from intern.engines.llamacpp import LlamaCppEngine
from intern.engines.openai import OpenAIEngine
from intern.errors import InvalidInput, TrainingUnavailable
from intern.learning.examples.items import Redacts
from intern.learning.examples.rows import Retrieves
from intern.learning.judging.remembered import AnswerMemory
from intern.learning.loop.contracts import BaseModel, EvaluationEngine
from intern.models.embedder import Embedder, Vectors
from intern.settings import Settings
from intern.skill import Skill
from intern.types import Example, Message, Passage

if TYPE_CHECKING:
    from intern.learning.privacy.documents import Documents, Source
    from intern.learning.privacy.recognition import Recognition
    from intern.learning.privacy.redact import Redactor

Retrieve = Callable[[str, str, Sequence[Message], int], Sequence[Passage]]
Sources = Callable[[str, str], "Sequence[Source]"]
Passages = Callable[[str, str], list[Passage]]


class WorkspaceParts:
    """`retrieve` takes team, skill, conversation and limit and blocks; `sources` gives a skill's documents,
    `passages` their passages."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        base: BaseModel | None,
        threads: int,
        embedder: Callable[[], Embedder],
        retrieve: Retrieve,
        sources: Sources,
        passages: Passages,
    ) -> None:
        self._settings = settings
        self._database = database
        self._base = base
        self._threads = threads
        self._embedder = embedder
        self._retrieve = retrieve
        self._sources = sources
        self._passages = passages
        self._recognition: Recognition | None = None
        self._documents: dict[tuple[str, str], Documents] = {}
        self._memories: dict[tuple[str, str], AnswerMemory] = {}
        self._guard = threading.Lock()

    @property
    def database(self) -> Database:
        return self._database

    @property
    def base(self) -> BaseModel | None:
        return self._base

    def open_engine(self, adapters: Mapping[str, str]) -> EvaluationEngine:
        base = self._base
        if base is None:
            raise TrainingUnavailable("Only the embedded engine can try adapters out here; use INTERN_ENGINE=llamacpp.")
        settings = self._settings
        return LlamaCppEngine(
            Path(base.path),
            model=base.name,
            context=settings.context,
            slots=settings.slots,
            queue=1_000,
            threads=self._threads,
            gpu_layers=settings.gpu_layers,
            adapters=adapters,
        )

    def redacts(self, team: str, skill: Skill) -> Redacts:
        keep = self._keep(team, skill, self._sources(team, skill.name))
        redact = self._redactor().for_schema(skill.schema, keep)
        invented = skill.spec.learning.redact == "collected"

        def without(example: Example) -> tuple[Example, str | None]:
            return (example, None) if invented and example.provenance == "folder" else redact(example)

        return without

    def _keep(self, team: str, skill: Skill, sources: Sequence[Source]) -> frozenset[str]:
        """What instructions and the owners' documents state is nobody's secret: a hotline stays what it is."""
        redactor = self._redactor()
        return redactor.stated([skill.spec.instructions]) | self._documents_of(team, skill).stated(sources)

    def _documents_of(self, team: str, skill: Skill) -> Documents:
        from intern.learning.privacy.documents import Documents

        redactor = self._redactor()
        with self._guard:
            return self._documents.setdefault((team, skill.name), Documents(redactor))

    def _redactor(self) -> Redactor:
        from intern.learning.privacy.recognition import Recognition
        from intern.learning.privacy.redact import Redactor

        with self._guard:
            if self._recognition is None:
                self._recognition = Recognition(model=self._settings.redaction_model)
        return Redactor(self._recognition)

    def close(self) -> None:
        """End the process that looks for personal data."""
        if self._recognition is not None:
            self._recognition.close()

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self._embedder().embed(texts)

    def retriever(self, team: str) -> Retrieves:
        import asyncio

        async def retrieve(skill: Skill, conversation: Sequence[Message]) -> Sequence[Passage]:
            turns = [m for m in conversation if m.role in ("user", "assistant")]
            limit = skill.spec.retrieval.passages
            return await asyncio.to_thread(self._retrieve, team, skill.name, turns, limit)

        return retrieve

    def texts(self, team: str, skill: Skill) -> tuple[list[str], int]:
        sources = self._sources(team, skill.name)
        return self._documents_of(team, skill).freed(sources, self._keep(team, skill, sources))

    def passages(self, team: str, skill: str) -> list[Passage]:
        return self._passages(team, skill)

    def open_teacher(self) -> Engine:
        settings = self._settings
        if settings.teacher_url is None:
            return self.open_engine({})
        if settings.teacher_model is None:
            raise InvalidInput("INTERN_TEACHER_URL needs INTERN_TEACHER_MODEL.")
        key = settings.teacher_key.get_secret_value() if settings.teacher_key else "none"
        return OpenAIEngine(
            settings.teacher_url,
            model=settings.teacher_model,
            key=key,
            context=settings.context,
            slots=settings.slots,
            queue=1_000,
        )

    def memory(self, team: str, skill: str) -> AnswerMemory:
        with self._guard:  # there is one of each: what one forgot, another must not know
            if (team, skill) not in self._memories:
                self._memories[team, skill] = AnswerMemory(self.cache / "answers" / team / f"{skill}.jsonl")
            return self._memories[team, skill]

    @property
    def adapters_folder(self) -> Path:
        return self._settings.home / "adapters"

    @property
    def runs_folder(self) -> Path:
        return self._settings.data / "runs"

    @property
    def cache(self) -> Path:
        return self._settings.data / "cache"

    @property
    def context(self) -> int:
        return self._settings.context

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def passage_tokens(self) -> int:
        return self._settings.passage_tokens

    @property
    def contributor_cap(self) -> int:
        return self._settings.contributor_cap
