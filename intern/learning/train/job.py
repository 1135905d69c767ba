"""What passes between a training process and whoever started it: a folder with a job and rows, and events back.

The folder holds `job.json`, `rows.jsonl` (a `Row` a line), and where they apply `heldout.jsonl` (rows for the
held-out curve only), `texts.jsonl` (`{"text"}` for completion training), `pairs.jsonl` (`Pair`) and
`heldout_pairs.jsonl` (pairs for the held-out curve only). The process writes `stages/`, its checkpoints, then
`adapter/`, and one JSON object a line to standard output: events.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, Field, field_validator

from intern.learning.train.recipe import Recipe
from intern.types import Json, Message, Model

JOB = "job.json"
ROWS = "rows.jsonl"
HELDOUT = "heldout.jsonl"
TEXTS = "texts.jsonl"
PAIRS = "pairs.jsonl"
HELDOUT_PAIRS = "heldout_pairs.jsonl"
ADAPTER = "adapter"
STAGES = "stages"
PROMPTS = "prompts.jsonl"  # written by the trainer: token ids of the held-out prompts, for parity with the engine
ANSWERS = "answers.jsonl"  # the engine's greedy answers, for the trainer to compare
AGREEMENT = "agreement.jsonl"  # what came of it

LINE_BYTES = 16_000_000  # of one event on a process's pipe; asyncio's own limit is 64 KiB
_NAMED = 5  # ids in a text

T = TypeVar("T", bound=BaseModel)


class Row(Model):
    """One prompt, rendered as serving renders it, and the completion to learn."""

    id: str
    messages: tuple[Message, ...]
    completion: str


class Pair(Model):
    """One prompt with a better and a worse completion."""

    id: str
    messages: tuple[Message, ...]
    chosen: str
    rejected: str


class Prompt(Model):
    """A held-out prompt as the trainer tokenised it."""

    id: str
    ids: tuple[int, ...]


class Answer(Model):
    """A greedy answer of the engine. `grammar` is what it was constrained to; `finished`: it was not cut short."""

    id: str
    messages: tuple[Message, ...]
    text: str
    grammar: str | None = None
    finished: bool = True


class Agreement(Model):
    """Tokens of an answer that are the trained model's own choice, or nearly as likely as that (`ties` of them).

    `differs` are the other ones' places in the text; `moved` is the most that the adapter changes a log-probability
    there, in nats.
    """

    id: str
    tokens: int
    agreed: int
    ties: int = 0
    differs: tuple[tuple[int, int], ...] = ()
    moved: float = 0.0


class Job(Model):
    """`base` is a GGUF file or a folder of transformers' format. `recipe` leaves no choice: see `Recipe.fitted`.
    `context` is the longest row in tokens. `instructions` are those that the rows were made with, for who keeps what
    comes of it."""

    base: str
    recipe: Recipe
    context: int = Field(ge=64)
    threads: int = Field(ge=1)
    cache: str | None = None  # folder for the base model in transformers' format, made once from a GGUF file
    checkpoint_seconds: float = Field(default=60.0, gt=0)
    heldout_every: int = Field(default=0, ge=0)  # optimiser steps between points of the held-out curve; 0: chosen
    instructions: str = ""

    @field_validator("recipe")
    @classmethod
    def _fitted(cls, recipe: Recipe) -> Recipe:
        if recipe.epochs is None or recipe.learning_rate is None:
            raise ValueError("the recipe is not fitted to its rows and its base model")
        return recipe


TURNS = frozenset({"waiting", "waited"})  # kinds: for another training on this machine, whose time is not the run's


class Event(Model):
    """One thing that happened. `kind`: loading, device, rows, warning, phase, step, heldout, saved, done, failed; and
    TURNS while another process trains."""

    kind: str
    text: str = ""
    stage: str | None = None
    step: int | None = None
    steps: int | None = None
    epoch: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    seconds: float | None = None  # since the process started
    numbers: dict[str, Json] = Field(default_factory=dict)


def some(ids: Sequence[str]) -> str:
    """The first of many ids, for a text that people read; an event's `numbers` have them all."""
    more = len(ids) - _NAMED
    return ", ".join(ids[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def read_job(folder: Path) -> Job:
    """The job of a folder. Raises OSError."""
    return Job.model_validate_json((folder / JOB).read_text(encoding="utf-8"))


def write_lines(path: Path, rows: Iterable[BaseModel]) -> int:
    """Write models as JSON lines; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(row.model_dump_json() + "\n")
            count += 1
    return count


def read_lines(path: Path, model: type[T]) -> Iterator[T]:
    """The models of a file of JSON lines; nothing when there is no such file."""
    if path.exists():
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.strip():
                    yield model.model_validate_json(line)


def write_texts(path: Path, texts: Iterable[str]) -> None:
    """Write texts as JSON lines `{"text"}`."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def read_texts(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file if line.strip()]
