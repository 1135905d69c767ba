"""Direct preference optimisation (Rafailov et al., arXiv 2305.18290) on top of the adapter that the examples made.

In: pairs of a corrected and a rejected answer to one prompt, tokenised as rows are: the prompt as the engine will see
it, each answer up to and with the token that ends it. Out: the adapter in the model, moved towards the former; events.
The reference is the adapter as it was when this stage began. A stage that was interrupted goes on from its last
checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers.trainer_utils import get_last_checkpoint
from trl import DPOConfig, DPOTrainer

from intern.learning.train import job as jobs
from intern.learning.train.job import Event, Job, Pair, some
from intern.learning.train.memory import micro_batch
from intern.learning.train.recipe import check_pairs
from intern.learning.train.stages import Curves, Tell, every_stage
from intern.learning.train.tokens import IGNORED, completion_ids, prompt_ids


@dataclass
class TokenisedPairs:
    """`rows` are `{"prompt_ids", "chosen_ids", "rejected_ids"}`; `too_long` are ids of pairs that do not fit."""

    rows: list[dict[str, list[int]]] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)


def tokenise_pairs(tokenizer: Any, pairs: Iterable[Pair], context: int) -> TokenisedPairs:
    """Every pair both of whose answers fit `context` tokens with the prompt."""
    found = TokenisedPairs()
    for pair in pairs:
        prompt = prompt_ids(tokenizer, pair.messages)
        chosen, rejected = (
            completion_ids(tokenizer, pair.messages, prompt, text) for text in (pair.chosen, pair.rejected)
        )
        if len(prompt) + max(len(chosen), len(rejected)) > context:
            found.too_long.append(pair.id)
            continue
        found.rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return found


class PairTrainer(DPOTrainer):
    """TRL's DPOTrainer on pairs that are tokenised already."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


def read_pairs(folder: Path, tokenizer: Any, job: Job, tell: Tell) -> TokenisedPairs:
    """The job's pairs. Raises InvalidInput when too few fit the context, OSError."""
    pairs = tokenise_pairs(tokenizer, jobs.read_lines(folder / jobs.PAIRS, Pair), job.context)
    if pairs.too_long:
        text = f"{len(pairs.too_long)} pairs are longer than {job.context} tokens: {some(pairs.too_long)}"
        tell(Event(kind="warning", text=text, numbers={"too_long": pairs.too_long}))
    check_pairs(len(pairs.rows))
    return pairs


def prefer(
    folder: Path, model: Any, tokenizer: Any, job: Job, pairs: TokenisedPairs, tell: Tell, *, bf16: bool
) -> None:
    """Fit the adapter in `model` to the pairs. Raises OSError."""
    recipe = job.recipe
    heldout = tokenise_pairs(tokenizer, jobs.read_lines(folder / jobs.HELDOUT_PAIRS, Pair), job.context).rows
    place = folder / jobs.STAGES / "preferences"
    micro = pairs_at_once(pairs.rows, recipe.batch, model.device.type)
    steps = -(-len(pairs.rows) // recipe.batch) * recipe.preference_epochs
    config = DPOConfig(
        **every_stage(place, model, recipe, micro, bf16=bf16),
        num_train_epochs=recipe.preference_epochs,
        learning_rate=recipe.preference_learning_rate,
        beta=recipe.beta,
    )
    measured = (lambda: mean_loss(trainer, heldout, micro)) if heldout else None
    trainer: Any = PairTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(pairs.rows),
        processing_class=tokenizer,
        callbacks=[
            Curves("preferences", tell, job.checkpoint_seconds, job.heldout_every or max(1, round(steps / 8)), measured)
        ],
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(place)) if place.exists() else None)


def pairs_at_once(rows: Sequence[dict[str, list[int]]], batch: int, device: str) -> int:
    """Pairs of one forward pass: as `micro_batch`, a pair going through the model as two whole rows."""
    padded = []
    for row in rows:
        completion = max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        labels = [IGNORED] * len(row["prompt_ids"]) + [0] * completion
        padded.append({"input_ids": labels + labels, "labels": labels + labels})
    return micro_batch(padded, batch, device, shared=0)


def mean_loss(trainer: Any, rows: Sequence[dict[str, list[int]]], batch: int) -> float:
    """Mean loss of the pairs in `rows`: log 2 where the policy is its reference, less where it is further towards the
    corrected answers."""
    model = trainer.model
    training = model.training
    model.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(rows), batch):
            part = list(rows[start : start + batch])
            loss, _, _ = trainer.prediction_step(model, trainer.data_collator(part), prediction_loss_only=True)
            total += float(loss) * len(part)
    model.train(training)
    return total / len(rows)
