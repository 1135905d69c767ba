"""Recipes: how an adapter is trained. Names and numbers only; `train/` carries them out.

The defaults follow Schulman et al., "LoRA Without Regret" (2025): adapters on every linear layer, a learning rate ten
times that of full fine-tuning, fifteen for runs as short as these, small batches, and a rank that hardly matters.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from intern.errors import InvalidInput
from intern.types import Model

RecipeName = Literal["lora", "qlora-4bit", "lora-8bit", "completion-then-sft", "dpo"]

Precision = Literal["auto", "float32", "bfloat16"]

EPOCHS = 3.0
STEPS = 112  # optimiser steps that few examples get: 64 of them gain up to there in score, though not in loss
MOST_EPOCHS = 15.0  # and what they may get at most
MOST_LEARNING_RATE = 0.1
LEAST_PAIRS = 10  # of a corrected answer and the rejected one, for dpo

ABOUT: dict[RecipeName, str] = {
    "lora": "LoRA on the unquantised base model; the default",
    "qlora-4bit": "LoRA on the base model in 4-bit NF4 (bitsandbytes): a third of the memory; for CUDA",
    "lora-8bit": "LoRA on the base model in 8 bits (bitsandbytes); for CUDA",
    "completion-then-sft": "first the skill's documents as plain text, then its examples on top, in one run",
    "dpo": "first the examples, then pairs of a corrected answer and the rejected one (direct preference optimisation)",
}


class Recipe(Model):
    """One recipe with its numbers. `batch` is in rows per optimiser step, whatever fits the memory at once.

    `epochs` None: chosen from the number of rows; `learning_rate` None: from the base model's width. See `fitted`.
    """

    name: RecipeName = Field(default="lora", description="; ".join(f"{name}: {what}" for name, what in ABOUT.items()))
    rank: int = Field(default=16, ge=1, le=256)
    alpha: int = Field(default=32, ge=1, le=1024)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    learning_rate: float | None = Field(default=None, gt=0, le=MOST_LEARNING_RATE)  # the peak
    epochs: float | None = Field(default=None, gt=0, le=100)
    batch: int = Field(default=8, ge=1, le=1024)
    warmup: float = Field(default=0.1, ge=0, le=1)  # share of the steps
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    seed: int = 0
    precision: Precision = "auto"  # in which matrices are multiplied; auto: bfloat16 where the hardware does it faster
    chunk_tokens: int = Field(default=512, ge=64, le=32_768)  # completion-then-sft: tokens of one piece of a document
    completion_epochs: float = Field(default=1.0, gt=0, le=100)
    beta: float = Field(default=0.1, gt=0, le=10)  # dpo: how far the policy may move from its reference
    preference_learning_rate: float = Field(default=5e-5, gt=0, le=MOST_LEARNING_RATE)
    preference_epochs: float = Field(default=1.0, gt=0, le=100)

    @property
    def bits(self) -> int | None:
        """Bits of the quantised base model, or None for an unquantised one."""
        return {"qlora-4bit": 4, "lora-8bit": 8}.get(self.name)

    def fitted(self, rows: int, width: int) -> Recipe:
        """The recipe for so many rows and a base model whose hidden states have `width` dimensions, where it leaves a
        choice: 3 epochs, more where they would end before 112 steps, at most 15; the learning rate of the width."""
        steps = max(1, -(-rows // self.batch))
        epochs = self.epochs or min(MOST_EPOCHS, max(EPOCHS, -(-STEPS // steps)))
        return self.model_copy(update={"epochs": epochs, "learning_rate": self.learning_rate or _learning_rate(width)})


def check_pairs(pairs: int) -> None:
    """Raises InvalidInput where there are too few pairs for the recipe dpo."""
    if pairs < LEAST_PAIRS:
        raise InvalidInput(
            f"The recipe dpo needs at least {LEAST_PAIRS} corrected answers, and there are {pairs}. "
            "Use the recipe lora until people have corrected more.",
            param="recipe",
        )


def check_texts(texts: int) -> None:
    """Raises InvalidInput where there is no text for the recipe completion-then-sft."""
    if not texts:
        raise InvalidInput("The recipe completion-then-sft needs documents, and the skill has none.", param="recipe")


def _learning_rate(width: int) -> float:
    """For adapters of alpha 32 on every linear layer: the wider the base model, the smaller, whatever the rank.

    Source: J. Schulman and Thinking Machines Lab, "LoRA Without Regret" (2025), with the constants that they fitted for
    Llama models, 5e-4 (2000 / width)^0.781, half as much again for runs of about a hundred steps. For widths of 576 and
    4096: 0.002 and 0.00043. What was measured: docs/learning.md.
    """
    return float(f"{min(MOST_LEARNING_RATE, 7.5e-4 * (2000 / width) ** 0.781):.2g}")
