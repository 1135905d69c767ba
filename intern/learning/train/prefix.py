"""Shared-prefix training: the rows of a batch are laid out behind their longest common prefix, which is encoded once.

In: tokenised rows `{"input_ids", "labels"}`, labels -100 on the prompt. Out: a batch, the logits of its completion
tokens from a causal model of transformers, and the trainer that computes TRL's loss from them. The prompts of one skill
begin with the same instructions, so that most of a plain batch is the same text again.

The sequence is `prefix, suffix 1, suffix 2, ...`. A suffix attends to the prefix and to itself, and its positions go on
from the prefix, so that every hidden state equals the one of the row alone; logits are made only where a completion
token is predicted. Loss and gradients equal the plain computation up to rounding (tests/learning/train/test_prefix.py).
The idea for inference: Juravsky et al., "Hydragen" (arXiv 2402.05099); here it serves training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from trl import SFTTrainer

from intern.errors import TrainingUnavailable

IGNORED = -100
ATTENTION = "intern_shared_prefix"  # its name among transformers' attention functions
SMALL = 1_500_000  # scores of one layer, all heads together, up to which they are kept for the way back
MEDIUM = 8_000_000  # up to which they are computed again for it


@dataclass(frozen=True)
class PrefixCollator:
    """Rows to one packed batch.

    Gives `input_ids` and `position_ids` of shape (1, T), `targets` of shape (N,): every completion token of the batch,
    and `logits_to_keep` of shape (N,): the positions that predict them. T is the length of the prefix and of all
    suffixes together, rounded up: what pads the end is seen by no row, and has no target. For attention: `shared`, the
    prefix's length, as a tensor without dimensions; `grid` of shape (rows, longest suffix, rounded up): where in the
    sequence each token of each suffix is, padded with its first one's place; and `places` of shape (T - shared,): where
    in the flattened grid each token behind the prefix is.

    `everywhere`: tokens that all rows of the dataset begin with. What a batch has in common beyond them counts in whole
    steps of 32, so that shapes do not change with each chance agreement.
    """

    everywhere: int | None = None

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        shared = common_prefix(rows)
        if self.everywhere is not None:
            shared -= (shared - self.everywhere) % 32
        suffixes = [row["input_ids"][shared:] for row in rows]
        longest = rounded_up(max(map(len, suffixes)))
        ids = list(rows[0]["input_ids"][:shared])
        positions = list(range(shared))
        grid: list[list[int]] = []
        places: list[int] = []
        kept: list[int] = []
        targets: list[int] = []
        for number, (row, suffix) in enumerate(zip(rows, suffixes, strict=True)):
            start, length = len(ids), len(suffix)
            grid.append([*range(start, start + length), *[start] * (longest - length)])
            places.extend(range(number * longest, number * longest + length))
            for offset, label in enumerate(row["labels"][shared:]):
                if label != IGNORED:  # never the first of a suffix: common_prefix leaves it a token of the prompt
                    kept.append(start + offset - 1)
                    targets.append(label)
            ids.extend(suffix)
            positions.extend(range(shared, shared + length))
        padding = [0] * (rounded_up(len(ids)) - len(ids))
        ids, positions, places = ids + padding, positions + padding, places + padding
        return {
            "input_ids": torch.tensor([ids]),
            "position_ids": torch.tensor([positions]),
            "logits_to_keep": torch.tensor(kept),
            "targets": torch.tensor(targets),
            "shared": torch.tensor(shared),
            "grid": torch.tensor(grid),
            "places": torch.tensor(places),
        }


def rounded_up(length: int) -> int:
    """To the next of sixteen steps between powers of two: a padding of three in a hundred in the mean.

    On a CPU, PyTorch compiles code for each shape that it meets and keeps it (oneDNN), which costs time and memory.
    """
    step = 1 << max(0, length.bit_length() - 5)
    return -(-length // step) * step


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


def completion_logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits that predict `batch["targets"]`, in float32, shape (N, vocabulary). `batch` is on the model's device.

    Replaces the model's attention function by one that knows packed batches, and computes as before with others.
    Raises TrainingUnavailable for an architecture that has attention of its own kind.
    """
    if model.config._attn_implementation != ATTENTION:
        model.set_attn_implementation(ATTENTION)
    layout = _Layout(int(batch["shared"]), batch["grid"], batch["places"])
    given = {name: batch[name] for name in ("input_ids", "position_ids", "logits_to_keep")}
    logits: torch.Tensor = model(**given, use_cache=False, layout=layout).logits[0].float()
    if not layout.used:
        raise TrainingUnavailable(
            f"The architecture {model.config.model_type} does not let its attention be replaced, which training needs; "
            "choose a base model of another one, such as Llama, Qwen, Mistral or SmolLM."
        )
    return logits


@dataclass
class _Layout:
    """How a sequence is made of a prefix and suffixes; travels through the model to its attention layers."""

    shared: int
    grid: torch.Tensor
    places: torch.Tensor
    used: bool = False


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    layout: _Layout | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of a packed batch. `query` has the shape (1, heads, T, d), the result (1, T, heads, d).

    The prefix attends to itself; the suffixes, as a batch of rows padded at their ends, each to the prefix and itself.
    One mask serves all rows, and the part of a (T, T) matrix that no row sees is never computed.
    """
    if layout is None:
        if sliding_window is not None:
            options["sliding_window"] = sliding_window
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return plain
    layout.used = True
    shared, (rows, longest) = layout.shared, layout.grid.shape
    if sliding_window is not None and shared + longest > sliding_window:
        raise TrainingUnavailable(
            f"Rows of {shared + longest} tokens are longer than the {sliding_window} that this base model attends to."
        )
    scores = query.shape[1] * (rows * longest * (shared + longest) + shared * shared)
    if query.device.type == "cpu" and scores <= MEDIUM and not dropout:
        given = query, key, value, layout, query.shape[-1] ** -0.5 if scaling is None else scaling
        if scores <= SMALL:
            return _attend_in_full(*given), None
        return checkpoint(_attend_in_full, *given, use_reentrant=False, preserve_rng_state=False), None
    repeats = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(repeats, dim=1) if repeats > 1 else part for part in (key, value))
    index = layout.grid.reshape(-1)

    def suffixes(part: torch.Tensor) -> torch.Tensor:
        """(1, heads, T, d) to (rows, heads, longest, d)."""
        return part[0].index_select(1, index).reshape(part.shape[1], rows, longest, -1).transpose(0, 1)

    def behind_prefix(part: torch.Tensor) -> torch.Tensor:
        """(1, heads, T, d) to (rows, heads, shared + longest, d)."""
        return torch.cat([part[:, :, :shared].expand(rows, -1, -1, -1), suffixes(part)], dim=2)

    mask = torch.ones((longest, shared + longest), dtype=torch.bool, device=query.device).tril_(shared)
    found = F.scaled_dot_product_attention(
        suffixes(query), behind_prefix(key), behind_prefix(value), attn_mask=mask, dropout_p=dropout, scale=scaling
    )
    behind = found.transpose(1, 2).flatten(0, 1).index_select(0, layout.places)
    if shared == 0:
        return behind[None], None
    ahead = F.scaled_dot_product_attention(
        query[:, :, :shared],
        key[:, :, :shared],
        value[:, :, :shared],
        dropout_p=dropout,
        scale=scaling,
        is_causal=True,
    )
    return torch.cat([ahead.transpose(1, 2), behind[None]], dim=1), None


def _attend_in_full(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: _Layout, scaling: float
) -> torch.Tensor:
    """The same with every score written out: for short sequences on a CPU, whose fused attention is slow on the way
    back. There and back, a layer, bfloat16, two cores: 2.7 against 8.5 ms with 8 rows of 29 tokens behind 92; 15, and
    20 where the scores are computed again, against 38 ms with 8 rows of 100 behind 250.

    Keys and values are never repeated: the heads that share them, and the suffixes that share the prefix, are further
    rows of one matrix product.
    """
    shared, (rows, longest) = layout.shared, layout.grid.shape
    (_, heads, length, size), groups = query.shape, key.shape[1]
    repeats = heads // groups
    query = (query[0] * scaling).view(groups, repeats, length, size)
    key, value = key[0], value[0]
    index = layout.grid.reshape(-1)
    later = torch.ones((longest, longest), dtype=torch.bool, device=query.device).triu_(1)

    own = query.index_select(2, index).view(groups, repeats, rows, longest, size)
    by_row = own.transpose(1, 2).reshape(groups * rows, repeats * longest, size)
    own_key, own_value = (part.index_select(1, index).view(groups * rows, longest, size) for part in (key, value))
    to_own = torch.bmm(by_row, own_key.transpose(1, 2)).view(groups, rows, repeats, longest, longest).transpose(1, 2)
    to_prefix = torch.bmm(own.reshape(groups, repeats * rows * longest, size), key[:, :shared].transpose(1, 2))
    to_prefix = to_prefix.view(groups, repeats, rows, longest, shared)
    weights = _softmax(torch.cat([to_prefix, to_own.masked_fill(later, -torch.inf)], dim=-1))
    by_head = weights[..., :shared].reshape(groups, repeats * rows * longest, shared)
    from_prefix = torch.bmm(by_head, value[:, :shared])
    by_row = weights[..., shared:].transpose(1, 2).reshape(groups * rows, repeats * longest, longest)
    from_own = torch.bmm(by_row, own_value).view(groups, rows, repeats, longest, size).transpose(1, 2)
    behind = (from_prefix.view_as(own) + from_own).reshape(heads, rows * longest, size)
    behind = behind.index_select(1, layout.places)

    later = torch.ones((shared, shared), dtype=torch.bool, device=query.device).triu_(1)
    scores = torch.bmm(query[:, :, :shared].reshape(groups, repeats * shared, size), key[:, :shared].transpose(1, 2))
    weights = _softmax(scores.view(groups, repeats, shared, shared).masked_fill(later, -torch.inf))
    ahead = torch.bmm(weights.view(groups, repeats * shared, shared), value[:, :shared]).view(heads, shared, size)
    return torch.cat([ahead, behind], dim=1).transpose(0, 1)[None]


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    """In float32, as fused attention has it."""
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)  # for plain batches


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
        logits = completion_logits(model, inputs)
        loss = F.cross_entropy(logits, inputs["targets"], reduction="sum")
        loss = loss / (len(logits) if num_items_in_batch is None else num_items_in_batch)
        return (loss, logits) if return_outputs else loss

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
