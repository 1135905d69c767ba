"""Shared-prefix training computes what plain training computes, on a CPU and on CUDA."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from intern.learning.train import prefix
from intern.learning.train.prefix import IGNORED, PrefixCollator, common_prefix, completion_logits, rounded_up

Rows = list[dict[str, list[int]]]


@pytest.fixture
def device() -> str:
    return "cpu"


@pytest.fixture
def model(device: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    adapted = get_peft_model(
        LlamaForCausalLM(config), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:  # zero at first, where half of the gradients would be zero too
            torch.nn.init.normal_(weight, std=0.1)
    model: torch.nn.Module = adapted.to(device)
    return model


def batch_on(model: torch.nn.Module, batch: Rows) -> dict[str, torch.Tensor]:
    """What the trainer gives to the model: a packed batch on its device."""
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in PrefixCollator()(batch).items()}


def rows(shared: int, lengths: Sequence[tuple[int, int]], seed: int = 0) -> Rows:
    """Rows with `shared` tokens in common, then (prompt, completion) tokens of their own."""
    draw = random.Random(seed)
    prefix = [draw.randrange(97) for _ in range(shared)]
    made = []
    for prompt, completion in lengths:
        own = [draw.randrange(97) for _ in range(prompt + completion)]
        ids = prefix + own
        made.append({"input_ids": ids, "labels": [IGNORED] * (shared + prompt) + ids[shared + prompt :]})
    return made


def plain(model: torch.nn.Module, batch: Rows) -> torch.Tensor:
    """Mean negative log-likelihood of the completion tokens, one row at a time."""
    device = next(model.parameters()).device
    total, count = torch.zeros((), device=device), 0
    for row in batch:
        logits = model(input_ids=torch.tensor([row["input_ids"]], device=device)).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:], device=device)
        total = total + F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        count += int((labels != IGNORED).sum())
    return total / count


def packed(model: torch.nn.Module, batch: Rows) -> torch.Tensor:
    inputs = batch_on(model, batch)
    return F.cross_entropy(completion_logits(model, inputs), inputs["targets"])


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.autograd.backward(loss)
    return {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize(
    "batch",
    [
        rows(20, [(5, 3), (9, 1), (1, 7), (30, 12)]),
        rows(0, [(5, 3), (9, 4)]),
        rows(12, [(6, 5)]),
        [*rows(15, [(4, 2), (4, 2)]), *rows(15, [(4, 2)])],
        rows(40, [(0, 3), (0, 5)]),
        rows(40, [(30, 5), (3, 2)]),
    ],
    ids=["shared", "nothing shared", "one row", "one row twice", "prompts equal to the end", "padded"],
)
@pytest.mark.parametrize(
    ("small", "medium", "ahead", "back"),
    [(0, 0, 0, 0), (prefix.SMALL, prefix.MEDIUM, 3, 0), (0, prefix.MEDIUM, 3, 3)],
    ids=["fused", "in full", "again for the way back"],
)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.needs_gpu)])
def test_loss_and_gradients_equal_those_of_rows_alone(
    model: torch.nn.Module,
    device: str,
    batch: Rows,
    small: int,
    medium: int,
    ahead: int,
    back: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_full, attend = [], prefix._attend_in_full

    def counted(*args: Any) -> torch.Tensor:
        in_full.append(args)
        return attend(*args)

    if device == "cuda":  # fused attention, whatever the size
        ahead = back = 0
    tolerance = 1e-5 if device == "cpu" else 1e-4
    monkeypatch.setattr(prefix, "SMALL", small)
    monkeypatch.setattr(prefix, "MEDIUM", medium)
    monkeypatch.setattr(prefix, "_attend_in_full", counted)
    expected = plain(model, batch)
    wanted = gradients(model, expected)
    found = packed(model, batch)
    assert len(in_full) == ahead, "once a layer"
    assert found.item() == pytest.approx(expected.item(), abs=tolerance)
    got = gradients(model, found)
    assert len(in_full) == ahead + back
    assert wanted.keys() == got.keys()
    assert len(wanted) == 3 * 7 * 2
    for name, gradient in wanted.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(got[name], gradient, atol=tolerance, rtol=1e-4, msg=name)


def test_the_prefix_is_encoded_once() -> None:
    batch = rows(50, [(5, 3), (9, 4), (2, 3)])
    assert PrefixCollator()(batch)["input_ids"].shape == (1, 50 + 8 + 13 + 5)


def test_what_a_batch_shares_beyond_the_dataset_counts_in_steps() -> None:
    batch = rows(70, [(5, 3), (9, 4)])
    shared = [int(PrefixCollator(everywhere)(batch)["shared"]) for everywhere in (None, 70, 50, 38, 6)]
    assert shared == [70, 70, 50, 70, 70]


def test_lengths_are_rounded_up_so_that_few_shapes_occur() -> None:
    batch = PrefixCollator()(rows(40, [(30, 5), (3, 2)]))
    assert batch["input_ids"].shape == batch["position_ids"].shape == (1, 80)
    assert batch["grid"].shape == (2, 36)
    assert batch["places"].shape == (40,)
    assert [rounded_up(n) for n in (1, 31, 32, 33, 324, 1025)] == [1, 31, 32, 34, 336, 1088]
    lengths = {rounded_up(n) for n in range(1, 4097)}
    assert len(lengths) < 160
    assert all(n <= rounded_up(n) < 1.07 * n for n in range(1, 4097))


def test_each_row_keeps_a_prompt_token_that_predicts_its_completion() -> None:
    assert common_prefix(rows(40, [(0, 3), (0, 5)])) == 39
    assert common_prefix(rows(10, [(3, 3)])) == 12


def test_no_row_sees_another(model: torch.nn.Module) -> None:
    first = rows(10, [(4, 4), (4, 4)], seed=1)
    second = [first[0], rows(10, [(9, 9)], seed=1)[0]]
    second[1]["input_ids"][12] = (second[1]["input_ids"][12] + 1) % 97

    def of_the_first(batch: Rows) -> torch.Tensor:
        return completion_logits(model, PrefixCollator()(batch))[:4]

    torch.testing.assert_close(of_the_first(first), of_the_first(second), atol=1e-5, rtol=1e-5)
