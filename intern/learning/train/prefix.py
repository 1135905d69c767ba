"""Shared-prefix training: the rows of a batch are laid out behind their longest common prefix, which is encoded once.

In: tokenised rows `{"input_ids", "labels"}`, labels -100 on the prompt. Out: a batch for any causal model of
transformers that takes a 4-D attention mask and `logits_to_keep`, and the trainer that computes TRL's loss from it.
The prompts of one skill begin with the same instructions, so that most of a plain batch is the same text again.

The sequence is `prefix, suffix 1, suffix 2, ...`. A suffix sees the prefix and itself, and its positions go on from
the prefix, so that every hidden state equals the one of the row alone; logits are made only where a completion token
is predicted. Loss and gradients equal the plain computation up to rounding (tests/learning/train/test_prefix.py).
The idea for inference: Juravsky et al., "Hydragen" (arXiv 2402.05099); here it serves training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from trl import SFTTrainer

IGNORED = -100


@dataclass(frozen=True)
class PrefixCollator:
    """Rows to one packed batch.

    Gives `input_ids` and `position_ids` of shape (1, T), a boolean `attention_mask` of shape (1, 1, T, T), `targets`
    of shape (N,): every completion token of the batch, and `logits_to_keep` of shape (N,): the positions that predict
    them. T is the length of the prefix and of all suffixes together.
    """

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        shared = common_prefix(rows)
        ids = list(rows[0]["input_ids"][:shared])
        positions = list(range(shared))
        starts: list[tuple[int, int]] = []
        kept: list[int] = []
        targets: list[int] = []
        for row in rows:
            suffix = row["input_ids"][shared:]
            start = len(ids)
            starts.append((start, len(suffix)))
            for offset, label in enumerate(row["labels"][shared:]):
                if label != IGNORED:  # never the first of a suffix: common_prefix leaves it a token of the prompt
                    kept.append(start + offset - 1)
                    targets.append(label)
            ids.extend(suffix)
            positions.extend(range(shared, shared + len(suffix)))
        total = len(ids)
        mask = torch.zeros((total, total), dtype=torch.bool)
        mask[:, :shared] = True
        mask[:shared, :shared].tril_()
        for start, length in starts:
            mask[start : start + length, start : start + length] = torch.ones(length, length, dtype=torch.bool).tril_()
        return {
            "input_ids": torch.tensor([ids]),
            "position_ids": torch.tensor([positions]),
            "attention_mask": mask[None, None],
            "logits_to_keep": torch.tensor(kept),
            "targets": torch.tensor(targets),
        }


def common_prefix(rows: Sequence[dict[str, list[int]]]) -> int:
    """Tokens that all rows begin with, short of each row's last prompt token, which predicts its completion."""
    first = rows[0]["input_ids"]
    shared = min(_prompt_length(row["labels"]) for row in rows) - 1
    for row in rows[1:]:
        ids = row["input_ids"]
        same = 0
        while same < shared and ids[same] == first[same]:
            same += 1
        shared = same
    return max(shared, 0)


def _prompt_length(labels: Sequence[int]) -> int:
    return next((place for place, label in enumerate(labels) if label != IGNORED), len(labels))


class PrefixTrainer(SFTTrainer):
    """TRL's SFTTrainer with the loss of packed batches: the mean negative log-likelihood of completion tokens."""

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["input_ids", "labels"]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        targets = inputs["targets"]
        outputs = model(**{name: value for name, value in inputs.items() if name != "targets"}, use_cache=False)
        logits = outputs.logits[0].float()
        loss = F.cross_entropy(logits, targets, reduction="sum")
        loss = loss / (len(targets) if num_items_in_batch is None else num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Batches of one optimiser step, and how many completion tokens they hold together."""
        samples = []
        for _ in range(num_batches):
            try:
                samples.append(next(epoch_iterator))
            except StopIteration:
                break
        items = sum(len(batch["targets"]) for batch in samples)
        return samples, torch.tensor(items, device=device) if samples else None
