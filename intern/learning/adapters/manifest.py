"""An adapter's manifest: where it comes from and which files it is made of.

Data and its canonical bytes, whose SHA-256 is the adapter's identity. Knows nothing of disks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from intern import __version__
from intern.errors import InvalidInput
from intern.learning.adapters.gguf_lora import GGUF
from intern.learning.adapters.lora import CONFIG, WEIGHTS
from intern.types import DEFAULT_TEAM, Json, Model

MANIFEST = "manifest.json"
FILES = frozenset({CONFIG, WEIGHTS, GGUF})
MAX_BYTES = 4_000_000


class Base(Model):
    """The base model that an adapter belongs to. `sha256` is `intern.models.source.content_hash` of its file or folder;
    `dtype` says in what numbers its weights stood in training."""

    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    dtype: str = ""


@cache
def code_version() -> str:
    """What trains adapters here: the version, and a digest of the trainer's sources, which tells two commits apart."""
    digest = hashlib.sha256()
    sources = sorted((Path(__file__).parents[1] / "train").glob("*.py"))
    for source in sources:
        digest.update(f"{source.name}\0".encode() + source.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:12]}" if sources else __version__


class Provenance(Model):
    """Where an adapter comes from. `created` is when training ended, `instructions` the skill's when its rows were made
    (empty in adapters of earlier versions).

    `curves` are small: `step_at` with `step_loss`, and `heldout_at` with `heldout_loss`, some hundred points each; in
    `step_stage` and `heldout_stage` each point's place among `stages`, the names of what was trained on one after the
    other. Adapters of earlier versions have neither; there, a stage begins where the steps begin again.
    """

    team: str = DEFAULT_TEAM
    skill: str
    name: str = Field(pattern=r"^[a-z0-9-]+@v[1-9][0-9]*$")  # skill@vN
    base: Base
    dataset: str  # content hash
    run: str
    recipe: Mapping[str, Json]
    created: datetime
    code: str = Field(default_factory=code_version)
    stages: tuple[str, ...] = ()
    curves: Mapping[str, tuple[float, ...]] = Field(default_factory=dict)
    instructions: str = ""
    scores: Mapping[str, Json] = Field(default_factory=dict, exclude=True)  # nothing; manifests once had it

    @model_validator(mode="after")
    def _consistent(self) -> Provenance:
        if self.name.partition("@")[0] != self.skill:
            raise ValueError(f"the name {self.name} is not one of the skill {self.skill}")
        if self.created.tzinfo is None:
            raise ValueError("created needs a time zone")
        return self


class File(Model):
    sha256: str
    size: int


class Manifest(Provenance):
    """The provenance together with the files: what the digest is of."""

    format: Literal[1] = 1
    files: Mapping[str, File]

    @model_validator(mode="after")
    def _complete(self) -> Manifest:
        if not FILES - {GGUF} <= self.files.keys() <= FILES:
            raise ValueError(f"the files must be {CONFIG}, {WEIGHTS} and, where there is one, {GGUF}")
        return self


def render(manifest: Manifest) -> bytes:
    """The manifest as it is written. Raises InvalidInput when it is no JSON, or larger than MAX_BYTES."""
    text = as_json(manifest.model_dump(mode="json"))
    if len(text) > MAX_BYTES:
        raise InvalidInput(f"The provenance is larger than {MAX_BYTES // 1_000_000} MB. Thin out its curves.")
    return text


def digest_of(manifest: bytes) -> str:
    """The name of the adapter's folder: 32 hex digits."""
    return hashlib.sha256(manifest).hexdigest()[:32]


def as_json(value: Json) -> bytes:
    """JSON for people and for hashing. Raises InvalidInput for what is no JSON, and for numbers that are not finite."""
    try:
        return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"What is kept beside an adapter must be JSON with finite numbers: {error}.") from error
