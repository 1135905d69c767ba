"""The base model is unpacked where there is room for it, and held in bfloat16 it gives the very numbers that autocast
makes of it in float32."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from intern.errors import InvalidInput
from intern.learning.train.base import choose_device, hold_in_bfloat16, quantisation_warning, unpacked, weights_in


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found: torch.Tensor = model(input_ids=torch.arange(40)[None]).logits
    return found


def gradients(model: torch.nn.Module) -> torch.Tensor:
    model.zero_grad()
    ids = torch.arange(40)[None]
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def test_only_frozen_matrices_below_the_adapter_are_held_in_bfloat16_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
    )
    adapter = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(LlamaForCausalLM(config), adapter)
    before, led_back = logits(model), gradients(model)
    hold_in_bfloat16(model)
    held = {name for name, weight in model.named_parameters() if weight.dtype == torch.bfloat16}
    assert held == {name for name, _ in model.named_parameters() if name.endswith("base_layer.weight")}
    assert len(held) == 2 * 7
    assert torch.equal(logits(model), before)
    apart = torch.linalg.vector_norm(gradients(model) - led_back) / torch.linalg.vector_norm(led_back)
    assert 0 < apart < 0.01, "what leads back is added up in bfloat16 too, and no further off"


@pytest.mark.parametrize(
    ("cuda", "mps", "device", "why"),
    [
        (True, True, "cuda", "CUDA: a GPU"),
        (True, False, "cuda", "CUDA: a GPU"),
        (False, True, "mps", "Apple's GPU (MPS); there is no CUDA here"),
        (False, False, "cpu", "there is no CUDA or MPS here"),
    ],
)
def test_the_fastest_device_is_taken_and_the_choice_explained(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, device: str, why: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    chosen, explained = choose_device()
    assert chosen.type == device
    assert explained.endswith(why)


def test_a_quantised_base_is_for_cuda() -> None:
    devices = {name: torch.device(name) for name in ("cuda", "cpu", "mps")}
    assert [quantisation_warning(None, device) for device in devices.values()] == [None, None, None]
    assert quantisation_warning(4, devices["cuda"]) is None
    assert "4-bit weights without CUDA is several times slower" in str(quantisation_warning(4, devices["cpu"]))
    with pytest.raises(InvalidInput, match="does not train on MPS; use the recipe lora"):
        quantisation_warning(8, devices["mps"])


def test_the_weights_of_a_comparison_in_float32_are_float32_on_every_device() -> None:
    for name in ("cuda", "cpu", "mps"):
        assert weights_in(torch.device(name), "float32") == torch.float32
    assert weights_in(torch.device("cuda"), "auto") == torch.bfloat16


def test_a_base_model_is_read_packed_where_the_disk_has_no_room_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base.gguf"
    base.write_bytes(bytes(1_000_000))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=506_000_000))
    assert unpacked(base, tmp_path / "cache") == base
    assert list((tmp_path / "cache").iterdir()) == []
