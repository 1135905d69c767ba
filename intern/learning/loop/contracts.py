"""What a run needs of a workspace, and what it works on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sqlalchemy.engine import Engine as Database

from intern.engines.base import Engine
from intern.errors import TrainingUnavailable
from intern.learning.examples.items import Redacts
from intern.learning.examples.rows import Retrieves
from intern.learning.judging.evaluate import Memory
from intern.learning.judging.parity import Tokenises
from intern.learning.train.job import Event
from intern.learning.train.recipe import Recipe
from intern.models.embedder import Vectors
from intern.skill import Skill
from intern.types import Model, Passage, Run

Tell = Callable[[Event], Awaitable[None]]


class EvaluationEngine(Engine, Tokenises, Protocol):
    """An engine that loads adapters and tells how it tokenises."""


class BaseModel(Model):
    """The base model in service: its file, what the engine calls it, its content hash, how the settings name it."""

    path: str
    name: str
    sha256: str
    reference: str = ""


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

    def texts(self, team: str, skill: Skill) -> tuple[list[str], int]:
        """The skill's documents as plain text, each with its name as first line, without personal data that their
        owners do not state; and how many are left out, since they cannot be freed of it. May take minutes."""
        ...

    def passages(self, team: str, skill: str) -> list[Passage]:
        """Every passage of the skill's documents."""
        ...

    def open_teacher(self) -> Engine:
        """The engine that writes examples from documents, not started."""
        ...

    def memory(self, team: str, skill: str) -> Memory:
        """What rivals answered before; reads a file at first."""
        ...

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


@dataclass(frozen=True)
class Work:
    """One run: what it works on, with what, and whom it tells. Its stages share it."""

    parts: Parts
    skill: Skill
    run: Run
    recipe: Recipe
    tell: Tell

    @property
    def folder(self) -> Path:
        """Where the run keeps its files."""
        return self.parts.runs_folder / self.run.id

    @property
    def base(self) -> BaseModel:
        """The base model. Raises TrainingUnavailable when the engine in service has none to train on."""
        if self.parts.base is None:
            raise TrainingUnavailable(
                "The engine in use takes no adapters of this platform, so there is nothing to train. "
                "Use INTERN_ENGINE=llamacpp."
            )
        return self.parts.base

    async def stage(self, stage: str, text: str) -> None:
        """Tell that a stage begins."""
        await self.tell(Event(kind="stage", stage=stage, text=text))
