"""Base models made by hand for tests: two layers of random weights, the default base's tokenizer and chat template."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from intern.learning.adapters.shapes import BaseShape

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS = 64, 96, 2, 4, 2
WORDS = 49_152
LOUD = 64  # words that are ever said: among more of them, the likeliest two would lie too close
SPREAD = 0.05  # of the weights: small, so that an adapter decides what is said

TEMPLATE = "tokenizer.chat_template"
CUTS = "tokenizer.ggml.pre"

_SIZES = {
    "embedding_length": HIDDEN,
    "feed_forward_length": INNER,
    "block_count": LAYERS,
    "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS,
    "rope.dimension_count": HIDDEN // HEADS,
    "context_length": 1024,
}


def write_tiny_base(
    like: Path,
    target: Path,
    *,
    kind: str = "F32",
    seed: int = 0,
    spread: float = SPREAD,
    template: str | None = None,
    cuts: str | None = None,
) -> Path:
    """A GGUF file that llama.cpp and transformers read; `kind` is gguf's word for what its matrices are stored in.
    `template` replaces the chat template, `cuts` the name of how texts are cut before they are tokenized."""
    writer = gguf.GGUFWriter(target, "llama")
    sizes = {f"llama.{key}": value for key, value in _SIZES.items()}
    for key, value, value_type, inner in metadata(like):
        if key == TEMPLATE:
            value = template or value
        if key == CUTS:
            value = cuts or value
        if key not in sizes:
            writer.add_key_value(key, value, value_type, sub_type=inner)
    for key, size in sizes.items():
        writer.add_uint32(key, size)
    random = np.random.default_rng(seed)
    stored = gguf.GGMLQuantizationType[kind]

    def add(name: str, rows: int, columns: int, spread: float) -> None:
        values = random.normal(scale=spread, size=(rows, columns)).astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, stored), raw_dtype=stored)

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(HIDDEN, dtype=np.float32))

    embeddings = random.normal(size=(WORDS, HIDDEN)).astype(np.float32)
    embeddings *= np.where(np.arange(WORDS) % (WORDS // LOUD) == 0, 0.5, 0.05)[:, None].astype(np.float32)
    writer.add_tensor("token_embd.weight", embeddings)
    narrow = HIDDEN * KV_HEADS // HEADS
    for layer in range(LAYERS):
        ones(f"blk.{layer}.attn_norm.weight")
        ones(f"blk.{layer}.ffn_norm.weight")
        for name, rows, columns in (
            ("attn_q", HIDDEN, HIDDEN),
            ("attn_k", narrow, HIDDEN),
            ("attn_v", narrow, HIDDEN),
            ("attn_output", HIDDEN, HIDDEN),
            ("ffn_gate", INNER, HIDDEN),
            ("ffn_up", INNER, HIDDEN),
            ("ffn_down", HIDDEN, INNER),
        ):
            add(f"blk.{layer}.{name}.weight", rows, columns, spread)
    ones("output_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@functools.cache
def metadata(like: Path) -> list[tuple[str, Any, Any, Any]]:
    """Keys with values and types, of a vocabulary too, which takes seconds."""
    found = []
    for key, field in gguf.GGUFReader(like).fields.items():
        if not key.startswith(("GGUF.", "general.architecture", "general.file_type")):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            found.append((key, field.contents(), field.types[0], inner))
    return found


def loud_tensors(shape: BaseShape, *, rank: int = 2, seed: int = 1) -> dict[str, np.ndarray]:
    """A LoRA for a tiny base that changes what it says, clearly enough for 8 bits and not for 4."""
    random = np.random.default_rng(seed)
    found = {}
    for module, (rows, columns) in shape.modules.items():
        spread = 0.2 if module.endswith(("q_proj", "k_proj")) else 0.28
        for side, size in (("A", (rank, columns)), ("B", (rows, rank))):
            values = random.normal(scale=spread, size=size).astype(np.float32)
            found[f"base_model.model.{module}.lora_{side}.weight"] = values
    return found
