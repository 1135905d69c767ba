"""What an adapter can leave as, and what passes between an export's process and whoever started it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import Field

from intern.types import Json, Message, Model

Format = Literal["peft", "merged", "gguf-f16", "gguf-q8_0", "gguf-q4_0"]
FORMATS: tuple[Format, ...] = get_args(Format)

ABOUT: Mapping[Format, str] = {
    "peft": "the LoRA adapter itself, for PEFT and vLLM, to be loaded onto its base model",
    "merged": "the base model with the adapter in its weights, for transformers and vLLM, in bfloat16",
    "gguf-f16": "the base model with the adapter in its weights, for llama.cpp, in 16 bits",
    "gguf-q8_0": "the base model with the adapter in its weights, for llama.cpp, in 8 bits",
    "gguf-q4_0": "the base model with the adapter in its weights, for llama.cpp, in 4 bits",
}


class Floor(Model):
    """The least that an export must keep; each is a share, as in `Agreement`."""

    tokens: float
    learned: float
    fields: float


# docs/export.md has what was measured, on a base of 135M parameters, as sensitive as models get. Down to 8 bits
# a trained adapter keeps 0.99 of the tokens, all that it learned and 0.95 of the fields; a faint one of random values,
# whose choices hang by a hair, 0.95 of the tokens and 0.63 of what it changed. In 4 bits the trained one keeps 0.99,
# 0.98 and 0.90. Where an adapter is lost on the way, 0.46 to 0.93 of the tokens are kept, 0.05 of the fields, and of
# what was learned at most 0.42 (the export wavers between the same few tokens).
_FAITHFUL, _FOUR_BITS = Floor(tokens=0.90, learned=0.50, fields=0.85), Floor(tokens=0.80, learned=0.50, fields=0.70)
FLOORS: Mapping[Format, Floor] = {
    **dict.fromkeys(FORMATS, _FAITHFUL),
    "gguf-q4_0": _FOUR_BITS,
}
LEAST_CHANGED = 20  # places where the adapter says another token than its base: fewer tell nothing

JOB = "job.json"
PROMPTS = "prompts.jsonl"
FOLDER = "export"  # what leaves


class Prompt(Model):
    """A held-out example, rendered as serving renders it. Its right answer is not needed here."""

    id: str
    messages: tuple[Message, ...]


class ExportJob(Model):
    """What to make, and how to try it. `adapter` is a verified folder; `fields` are those whose values must stay the
    same to a letter; `answer_tokens` is how long an answer may get; `generation` are settings for transformers,
    `metadata` texts for GGUF, `stem` is what files are named after."""

    format: Format
    name: str  # skill@vN
    adapter: str
    base: str
    cache: str
    context: int = Field(ge=1)
    threads: int = Field(ge=1)
    gpu_layers: int = -1
    grammar: str | None = None
    fields: tuple[str, ...] = ()
    answer_tokens: int = Field(ge=1)
    generation: Mapping[str, Json] = Field(default_factory=dict)
    metadata: Mapping[str, str] = Field(default_factory=dict)
    stem: str


class Agreement(Model):
    """How an export compares with the original, along the original's own answers to held-out examples.

    At each token of an answer both name the token that they find most likely (teacher forcing; llama.cpp's perplexity
    tool calls the share "same top p"). `tokens` is the share of places where it is the same one, `exact` that of
    answers where it always is, `fields` that of the fields where it is (those that must stay the same to a letter), and
    `learned` the share among the `changed` places only, where the adapter names another token than its base does.
    """

    format: Format
    examples: int
    same_prompts: int
    tokens: float
    exact: float
    changed: int
    learned: float | None = None
    fields: float | None = None

    @property
    def problem(self) -> str | None:
        """Why the export must not leave, or None."""
        if self.same_prompts < self.examples:
            return (
                f"{self.examples - self.same_prompts} of {self.examples} prompts have other tokens in it than in the "
                "engine, so its tokenizer or chat template is another one"
            )
        floor = FLOORS[self.format]
        rules = [("of the next tokens", self.tokens, floor.tokens), ("of the fields", self.fields, floor.fields)]
        if self.changed >= LEAST_CHANGED:
            rules.append(("of what the adapter learned", self.learned, floor.learned))
        for what, share, least in rules:
            if share is not None and share < least:
                advice = ". Take gguf-q8_0: 4 bits are too few here" if self.format == "gguf-q4_0" else ""
                return f"it keeps {share:.1%} {what}, and {self.format} must keep {least:.0%}{advice}"
        return None
