"""The model card of an adapter or an export: what it is, where it comes from, how good it is, how to load it.

In: what is known of the adapter, its skill, its base and its verdict. Out: Markdown with the front matter that the
Hugging Face hub reads. A card quotes no example, held out or other: it goes where the model goes, and examples are the
team's own. Knows nothing of disks.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jinja2

from intern.learning.adapters.manifest import Manifest
from intern.learning.export.formats import ABOUT, FLOORS, Agreement, Format
from intern.learning.judging.outcomes import CANDIDATE, SERVING, Interval, Summary
from intern.skill import Skill
from intern.types import Dataset

_NAMES = {
    CANDIDATE: "**this adapter**",
    "base": "base model alone",
    "few-shot": "base model, fixed examples in the prompt",
    "retrieval": "base model, nearest examples in the prompt",
    SERVING: "the adapter that served before",
}
_LIBRARIES: Mapping[str, str] = {"peft": "peft", "merged": "transformers"}
_RECIPE = ("name", "rank", "alpha", "learning_rate", "epochs", "batch")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{1,40}")  # the hub's words for licences


@dataclass(frozen=True)
class Subject:
    """What a card is about. `file` is the GGUF file's name, where there is one; `base_repo` is where the base lies on
    the hub and `base_file` its GGUF file, where they are known; `licence` is what the base's file says of itself."""

    skill: Skill
    manifest: Manifest
    format: Format = "peft"
    agreement: Agreement | None = None  # of an export with the adapter
    rivals: Mapping[str, Summary] = field(default_factory=dict)
    decision: str = ""
    reason: str = ""
    dataset: Dataset | None = None
    file: str | None = None
    base_repo: str | None = None
    base_file: str | None = None
    base_title: str | None = None
    licence: str | None = None
    max_lora_rank: int = 16


def render(subject: Subject) -> str:
    """The card as Markdown."""
    rivals = {name: subject.rivals[name] for name in _NAMES if name in subject.rivals}
    instructions = subject.manifest.instructions or subject.skill.spec.instructions.strip()
    return _template().render(
        vars(subject)
        | {
            "about": ABOUT[subject.format],
            "before": rivals["base"].metrics if "base" in rivals else {},
            "candidate": CANDIDATE,
            "fence": _fence(instructions),
            "instructions": instructions,
            "floor": FLOORS[subject.format],
            "front_matter": _front_matter(subject),
            "names": _NAMES,
            "recipe": {key: subject.manifest.recipe[key] for key in _RECIPE if key in subject.manifest.recipe},
            "rivals": rivals if CANDIDATE in rivals else {},
        }
    )


def _front_matter(subject: Subject) -> dict[str, Any]:
    licence = (subject.licence or "").lower()
    relation = "adapter" if subject.format == "peft" else "finetune"
    return {
        "license": licence if _LICENCE.fullmatch(licence) else "other",
        "base_model": subject.base_repo,
        "base_model_relation": relation if subject.base_repo else None,
        "library_name": _LIBRARIES.get(subject.format, "gguf"),
        "pipeline_tag": "text-generation",
        "tags": ["llama-intern", "lora", *(["gguf"] if subject.file else [])],
    }


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("intern.learning.export"),
        autoescape=False,  # it is no HTML; `line` and the fence keep texts in their place
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    environment.filters |= {"interval": _interval, "line": _line, "percent": "{:.1%}".format}
    return environment.get_template("card.txt")


def _interval(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _line(text: str) -> str:
    """A text as one line that is no table, link or tag of Markdown."""
    return re.sub(r"([\\|<>\[\]`*_])", r"\\\1", " ".join(text.split()))


def _fence(text: str) -> str:
    """More backticks than stand in a row anywhere in the text."""
    return "`" * (1 + max((len(run) for run in re.findall(r"`+", text)), default=2))
