"""What a base model is made of, as far as a LoRA must fit it: its linear modules and their shapes.

In: the base model's file or folder (GGUF, or transformers' `config.json`). Out: a `BaseShape`. Weights are never read.
Knows nothing of adapters. Both kinds of base give the same modules under transformers' names, so that one adapter is
checked alike for every engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from intern.errors import ModelUnavailable
from intern.learning.adapters.gguf_head import BrokenHead, Head, read_head
from intern.types import Json

# The linear modules of one layer, transformers' name to GGUF's.
MODULES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
# transformers' model type to GGUF's architecture. Mistral's models are Llamas to llama.cpp.
_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}


@dataclass(frozen=True)
class BaseShape:
    """`architecture` is GGUF's word for it. `modules` maps `model.layers.N.self_attn.q_proj` and its like to the shape
    of its weight, (features out, features in)."""

    architecture: str
    layers: int
    heads: int
    kv_heads: int
    modules: Mapping[str, tuple[int, int]]

    @property
    def width(self) -> int:
        """Dimensions of a hidden state."""
        return self.modules["model.layers.0.self_attn.q_proj"][1]


def gguf_name(module: str) -> str:
    """GGUF's name of a module's weight: `model.layers.3.mlp.up_proj` is `blk.3.ffn_up.weight`."""
    _, _, layer, name = module.split(".", 3)
    return f"blk.{layer}.{MODULES[name]}.weight"


def read_shape(base: Path) -> BaseShape:
    """The shape of a GGUF file or of a folder in transformers' format.

    Raises ModelUnavailable when it cannot be read, or is of an architecture that adapters are not made for.
    """
    try:
        return _of_folder(base) if base.is_dir() else _of_gguf(read_head(base))
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError, RecursionError) as error:
        reason = error if isinstance(error, OSError | BrokenHead) else "its metadata are not those of a language model"
        raise ModelUnavailable(f"The base model '{base}' cannot be read: {reason}.") from error


def _of_gguf(head: Head) -> BaseShape:
    architecture = str(head.metadata.get("general.architecture"))
    if architecture not in _ARCHITECTURES.values():
        raise _unknown(head.path, architecture)
    if _count(head, "split.count", 1) > 1:
        raise ModelUnavailable(
            f"The base model '{head.path}' is split over several files. Join them with 'llama-gguf-split --merge'."
        )
    layers = _count(head, f"{architecture}.block_count")
    heads = _count(head, f"{architecture}.attention.head_count")
    kv_heads = _count(head, f"{architecture}.attention.head_count_kv", heads)
    modules: dict[str, tuple[int, int]] = {}
    for layer in range(layers):
        for name, short in MODULES.items():
            tensor = head.tensors.get(f"blk.{layer}.{short}.weight")
            if tensor is not None and len(tensor.shape) == 2:
                modules[f"model.layers.{layer}.{name}"] = (tensor.shape[0], tensor.shape[1])
    return BaseShape(architecture, layers, heads, kv_heads, modules)


def _count(head: Head, key: str, otherwise: int | None = None) -> int:
    value = head.metadata.get(key, otherwise)
    if type(value) is not int:
        raise ValueError(f"{key} is no whole number")
    return value


def _of_folder(folder: Path) -> BaseShape:
    config: dict[str, Json] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = str(config.get("model_type"))
    if kind not in _ARCHITECTURES:
        raise _unknown(folder, kind)
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_size = config.get("head_dim") or hidden // heads
    queries, keys = heads * head_size, kv_heads * head_size
    shapes = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    modules = {f"model.layers.{layer}.{name}": shape for layer in range(layers) for name, shape in shapes.items()}
    return BaseShape(_ARCHITECTURES[kind], layers, heads, kv_heads, modules)


def _unknown(path: Path, architecture: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"The base model '{path}' is of the architecture '{architecture}'. Adapters are made for "
        f"{', '.join(_ARCHITECTURES)}."
    )
