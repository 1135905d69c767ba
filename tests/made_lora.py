"""LoRA folders made by hand for tests, without torch, on a base model of two small layers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

from intern.learning.adapters.shapes import BaseShape, read_shape

CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def base_folder(folder: Path) -> Path:
    """A base model in transformers' format, as far as its shape goes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def base_shape(folder: Path) -> BaseShape:
    return read_shape(base_folder(folder))


def tensors(shape: BaseShape, *, rank: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """Random A and B for every module."""
    random = np.random.default_rng(seed)
    found = {}
    for module, (rows, columns) in shape.modules.items():
        found[f"base_model.model.{module}.lora_A.weight"] = random.normal(size=(rank, columns)).astype(np.float32)
        found[f"base_model.model.{module}.lora_B.weight"] = random.normal(size=(rows, rank)).astype(np.float32)
    return found


def write_lora(folder: Path, weights: Mapping[str, np.ndarray], **config: object) -> Path:
    """A PEFT folder of rank 2 and alpha 4 with these weights; `config` replaces keys of its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": TARGETS, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**plain, **config}))
    safetensors.numpy.save_file(dict(weights), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder
