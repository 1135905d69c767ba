"""The platform's vocabulary on one page: small frozen models that every stage speaks.

Data only: no I/O, no behaviour beyond trivial derivations. A stage takes some of these and returns others;
docs/architecture.md draws the order. Times are seconds (float) or aware UTC datetimes; offsets are character
offsets into a document's parsed text, end exclusive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import uuid_utils
from pydantic import BaseModel, ConfigDict, Field

DEFAULT_TEAM = "default"

Json = Any  # a JSON value; the recursion is not worth its weight in the type checker
Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
Verdict = Literal["accept", "correct", "reject", "wrong_skill"]
Split = Literal["train", "heldout"]
Metric = Literal["exact", "text", "set", "number", "ignore"]
Variant = Literal["original", "augmented"]
RunKind = Literal["learn", "evaluate", "synthesize"]
RunState = Literal["queued", "running", "done", "failed", "cancelled"]


def new_id(prefix: str) -> str:
    """A time-ordered id, `<prefix>_<uuid7 hex>` (RFC 9562, version 7)."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def now() -> datetime:
    return datetime.now(UTC)


class Model(BaseModel):
    """Base of the vocabulary: frozen, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- what is asked -------------------------------------------------------------------------------------------


class Message(Model):
    """One turn of a conversation, text only. `tool_calls` and `tool_call_id` are OpenAI's, passed through."""

    role: Role
    content: str = ""
    tool_calls: tuple[Mapping[str, Json], ...] = ()
    tool_call_id: str | None = None


class Sampling(Model):
    """How to decode. None means: the skill's setting, then the engine's default."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = Field(default=1, ge=1, le=8)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)


class Caller(Model):
    """Who asks: the team every query filters by, the key, and the end user whose data it is (if known)."""

    team: str = DEFAULT_TEAM
    key: str | None = None
    person: str | None = None
    channel: str = "api"


class Ask(Model):
    """One request to the pipeline. `skill` None means: route it. `version` is 'base', 'vN' or None (in service)."""

    messages: tuple[Message, ...]
    skill: str | None = None
    version: str | None = None
    sampling: Sampling = Sampling()
    output_schema: Mapping[str, Json] | None = None  # the caller's response_format json_schema
    json_object: bool = False  # the caller's response_format json_object
    tools: tuple[Mapping[str, Json], ...] = ()
    tool_choice: Json = None
    caller: Caller = Caller()
    metadata: Mapping[str, str] = Field(default_factory=dict)
    deadline: float | None = None  # seconds from now


# --- what the stages produce -----------------------------------------------------------------------------------


class Candidate(Model):
    skill: str
    score: float  # 0 to 1, comparable between candidates of one route


class Route(Model):
    """The decision which skill serves a request. `skill` None is *abstain*.

    `confidence` is the calibrated probability, 0 to 1, that the route is right: that `candidates[0]` is the skill for
    this request. `reason` is one sentence for people that names the nearest example.
    """

    skill: str | None
    confidence: float
    runner_up: str | None = None
    candidates: tuple[Candidate, ...] = ()
    reason: str = ""
    nearest: str | None = None  # the text of the nearest example


class Passage(Model):
    """A retrieved piece of a document; `start` and `end` are offsets into the document's text."""

    id: str
    document: str
    heading: str
    start: int
    end: int
    score: float
    text: str


class Usage(Model):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
        )


class Choice(Model):
    """One finished answer. `parsed` is the JSON value where a schema or json_object was asked; `valid`: it kept it."""

    index: int = 0
    text: str = ""
    parsed: Json = None
    valid: bool = True
    problems: tuple[str, ...] = ()
    finish_reason: FinishReason = "stop"
    tool_calls: tuple[Mapping[str, Json], ...] = ()
    logprobs: tuple[Mapping[str, Json], ...] = ()


class Answer(Model):
    """What one request came to. `refusal` is set, and `skill` None, when nothing fits."""

    record: str
    model: str  # what really served: intern/<skill>@<version>, or intern-auto when it abstained
    skill: str | None
    adapter: str | None  # skill@vN, or None for the base model
    route: Route
    choices: tuple[Choice, ...]
    refusal: str | None = None
    passages: tuple[Passage, ...] = ()  # shown to the model
    citations: tuple[Passage, ...] = ()  # those that the answer names
    usage: Usage = Usage()
    review: str | None = None  # None, or why a person should look at it: 'sampled', 'below_confidence', ...
    timings: Mapping[str, float] = Field(default_factory=dict)  # stage -> seconds
    notes: tuple[str, ...] = ()  # what a reader should know, e.g. passages left out for lack of room


# --- what is kept ----------------------------------------------------------------------------------------------


class Record(Model):
    """What happened in one generation; enough to replay it."""

    id: str
    team: str
    created: datetime
    channel: str = "api"
    key: str | None = None
    person: str | None = None
    skill: str | None
    adapter: str | None
    model: str  # base model's identity: name and content hash
    config: str  # hash of the skill's configuration that made the prompt
    asked: tuple[Message, ...]
    prompt: tuple[Message, ...]
    sampling: Sampling
    schema_used: bool = False
    route: Route
    passages: tuple[Passage, ...] = ()
    choices: tuple[Choice, ...] = ()
    attempts: tuple[str, ...] = ()  # raw outputs that failed validation before the delivered one
    refusal: str | None = None
    error: str | None = None
    review: str | None = None
    usage: Usage = Usage()
    timings: Mapping[str, float] = Field(default_factory=dict)
    metadata: Mapping[str, str] = Field(default_factory=dict)


class Review(Model):
    """A person's verdict on a record."""

    id: str
    team: str
    record: str
    verdict: Verdict
    correction: Json = None
    right_skill: str | None = None
    reason: str | None = None
    reviewer: str
    created: datetime


class Example(Model):
    """An input and its right output, with where it came from."""

    id: str
    input: str | tuple[Message, ...]
    output: Json
    group: str | None = None
    split: Split | None = None
    provenance: str = "folder"  # folder | api | review | import | synthesis
    contributor: str | None = None
    record: str | None = None
    passage: str | None = None  # the passage that a synthetic example was written from
    # Whose words the input are, where that is known: kept in columns of its own, and never written with an example.
    person: str | None = Field(default=None, exclude=True)

    @property
    def text(self) -> str:
        """The input as one text: the last user turn of a conversation."""
        return self.input if isinstance(self.input, str) else last_user_text(self.input)


class Dropped(Model):
    """An example that a dataset left out, and why: one word for machines, one sentence for people."""

    example: str
    reason: str
    detail: str


class Dataset(Model):
    """A frozen snapshot of a skill's examples. `digest` is the SHA-256 of what it holds; it never changes.

    `erased` counts examples that were deleted from it later because a person's data had to go; the digest still names
    what was trained on.
    """

    id: str
    team: str
    skill: str
    digest: str
    variant: Variant = "original"
    created: datetime
    train: int
    heldout: int
    dropped: tuple[Dropped, ...] = ()
    erased: int = 0


class Run(Model):
    """One piece of long work of the learning half. `learn`: dataset, training, evaluation, verdict. `evaluate`: every
    rival on the held-out or on given examples. `synthesize`: examples written from the skill's documents."""

    id: str
    team: str
    skill: str
    kind: RunKind = "learn"
    state: RunState
    stage: str = ""  # gather, train, convert, evaluate, promote
    recipe: Mapping[str, Json] = Field(default_factory=dict)
    variant: Variant = "original"
    started_by: str = ""
    dataset: str | None = None
    adapter: str | None = None  # skill@vN
    decision: str | None = None
    reason: str | None = None  # of the decision, or of the failure
    train_seconds: float | None = None  # of the adapter's training, in all the processes that it took
    spent_seconds: float = 0.0  # of all its trainings: also one that did not come to its end, and those of parts
    wall_seconds: float = 0.0  # that it was carried out in all, evaluation included
    passing: bool = False  # it failed for a reason that may be gone by now: a full disk, too little memory
    created: datetime
    ended: datetime | None = None
    retired: bool = False  # its skill was deleted; another one may have the name


class Adapter(Model):
    """One immutable LoRA version of one skill. `digest` addresses its files below adapters/. `retired`: its skill was
    deleted, and nothing is left of it but its number."""

    team: str
    skill: str
    version: int
    digest: str
    base: str  # content hash of the base model it was trained on
    dataset: str | None = None
    run: str | None = None
    recipe: str = ""
    decision: str | None = None
    created: datetime
    retired: bool = False

    @property
    def name(self) -> str:
        return f"{self.skill}@v{self.version}"


class Deployment(Model):
    """Which adapter serves a skill now; None is the base model. One row; promoting and rolling back change it."""

    team: str
    skill: str
    version: int | None
    previous: int | None = None
    changed: datetime
    by: str = ""
    reason: str = ""


class Lease(Model):
    """What answers one request: an adapter by its public name (skill@vN) and the engine's, or the base model (both
    None). `note` says why an adapter that should serve does not."""

    name: str | None = None
    engine_name: str | None = None
    note: str | None = None


class Document(Model):
    """One ingested document. `name` is its path below the folder that was given; `source` names that folder."""

    id: str
    team: str
    skill: str
    name: str
    source: str
    sha256: str
    media_type: str
    characters: int
    passages: int
    created: datetime


def last_user_text(messages: Sequence[Message]) -> str:
    """The newest user turn, or an empty string."""
    return next((m.content for m in reversed(messages) if m.role == "user"), "")
