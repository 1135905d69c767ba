"""PEFT's LoRA to llama.cpp's: a checked folder and its base model's shape go in, one GGUF file comes out.

llama.cpp adds `alpha / rank * B (A x)` to a module's output, with one alpha for the file and the rank of each pair. So
plain and rank-stabilised LoRA and ranks by module are written as they are; where alphas differ by module, the
difference is multiplied into B. For the Llama architecture llama.cpp keeps the rows of queries and keys in another
order than transformers (rotary pairs beside each other, not half a head apart), so the rows of their B are put in that
order too. Knows nothing of manifests or engines.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from intern.errors import AdapterRefused, StoreFailure
from intern.learning.adapters.gguf_head import BrokenHead, Head, read_head
from intern.learning.adapters.lora import WEIGHTS, Floats, Lora, Pair
from intern.learning.adapters.shapes import BaseShape, gguf_name

GGUF = "adapter.gguf"

_KEYS = {"general.architecture", "general.type", "adapter.type", "adapter.lora.alpha"}
_PERMUTED = {"llama"}  # architectures whose queries and keys llama.cpp reorders
# How far a value may be from `lora`'s: twice what rounding to float16 takes away, relative, and below its range.
_ROUNDING, _TINY = 1e-3, 1e-7


def convert(lora: Lora, shape: BaseShape, target: Path, *, dtype: Literal["f32", "f16"] = "f32") -> None:
    """Write `lora` to `target` for llama.cpp; there is the whole file afterwards, or no file.

    `f16` halves the file and the memory and rounds every value to 11 bits; beside the noise of a base model in 4 bits
    that cannot be measured, nor is it faster. `lora` must have been read with the same `shape`.
    Raises AdapterRefused when a value does not fit float16, StoreFailure when the disk refuses.
    """
    import gguf

    kind = np.float16 if dtype == "f16" else np.float32
    alpha = _alpha(lora)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    writer = gguf.GGUFWriter(temporary, shape.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for name, values in _tensors(lora, shape, alpha):
        with np.errstate(over="ignore"):
            written = values.astype(kind)
        if not np.isfinite(written).all():
            raise AdapterRefused(f"{name} has values beyond float16. Convert it as f32.", adapter=lora.folder.name)
        writer.add_tensor(name, written)
    try:
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise StoreFailure(f"The adapter cannot be written to '{target}': {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_gguf(file: Path, lora: Lora, shape: BaseShape | None = None) -> None:
    """Check that a GGUF file has the shapes of `lora` for each of its modules, and finite values; with `shape`, which
    `lora` must have been read with, that they are the values of `lora`. Raises AdapterRefused.
    """
    try:
        head = read_head(file)
        if head.metadata.get("general.type") != "adapter" or head.metadata.get("adapter.type") != "lora":
            raise BrokenHead("it is no LoRA adapter")
        if head.metadata.keys() != _KEYS:  # one of them could say that it acts behind certain words only
            raise BrokenHead(f"it has other metadata than {', '.join(sorted(_KEYS))}")
        alpha = head.metadata["adapter.lora.alpha"]
        if not isinstance(alpha, float) or not 0 < alpha < 1e9:
            raise BrokenHead("its alpha is not a positive number")
        sizes = dict(_sizes(lora))
        if other := sizes.keys() ^ head.tensors.keys():
            raise BrokenHead(f"it and {WEIGHTS} differ in their tensors, in {min(other)[:120]} for one")
        for name, expected in sizes.items():
            if head.tensors[name].shape != expected:
                raise BrokenHead(f"{name} has the shape {head.tensors[name].shape}, not {expected}")
            if shape is None and not np.isfinite(head.values(name)).all():
                raise BrokenHead(f"{name} has values that are not finite")
        if shape is not None:
            _check_values(head, lora, shape, alpha)
    except (OSError, ValueError) as error:
        reason = error if isinstance(error, BrokenHead) else "it cannot be read"
        raise AdapterRefused(f"{file.name} cannot be used: {reason}.", adapter=lora.folder.name) from error


def _sizes(lora: Lora) -> Iterator[tuple[str, tuple[int, int]]]:
    """Every tensor of the GGUF file with its shape, rows first."""
    for module, (rows, columns) in lora.modules.items():
        yield f"{gguf_name(module)}.lora_a", (lora.ranks[module], columns)
        yield f"{gguf_name(module)}.lora_b", (rows, lora.ranks[module])


def _check_values(head: Head, lora: Lora, shape: BaseShape, alpha: float) -> None:
    """Raises BrokenHead for a value that `convert` would not have written, but for rounding."""
    own = _alpha(lora)
    for name, expected in _tensors(lora, shape, own if np.float32(own) == np.float32(alpha) else alpha):
        values = head.values(name)
        with np.errstate(over="ignore"):
            if not np.isfinite(np.abs(expected).max().astype(values.dtype)):
                raise BrokenHead(f"{name} has values that are not finite")
            same = np.array_equal(values, expected.astype(values.dtype))
        # Almost always they are the same to the bit, which is faster to see.
        if not same and not np.allclose(values, expected, rtol=_ROUNDING, atol=_TINY):
            raise BrokenHead(f"{name} has other values than {WEIGHTS}")


def _alpha(lora: Lora) -> float:
    """The largest alpha of all modules as llama.cpp counts it, so that values are only ever made smaller."""
    return max(lora.scales[module] * rank for module, rank in lora.ranks.items())


def _tensors(lora: Lora, shape: BaseShape, alpha: float) -> Iterator[tuple[str, Floats]]:
    for module, pair in lora.pairs():
        name = gguf_name(module)
        yield f"{name}.lora_a", pair.a
        yield f"{name}.lora_b", _b(module, pair, shape, alpha)


def _b(module: str, pair: Pair, shape: BaseShape, alpha: float) -> Floats:
    rows = reordered(pair.b, module, shape)
    factor = pair.scale * pair.rank / alpha
    return rows if factor == 1 else rows * np.float32(factor)


def reordered(rows: Floats, module: str, shape: BaseShape) -> Floats:
    """The rows of a module's weight, or of its B, in the order in which llama.cpp has them."""
    if shape.architecture in _PERMUTED and module.endswith(("q_proj", "k_proj")):
        return interleaved(rows, shape.heads if module.endswith("q_proj") else shape.kv_heads)
    return rows


def interleaved(rows: Floats, heads: int) -> Floats:
    """Rows of a query or key weight, (heads * size, any), from transformers' order to llama.cpp's: in each head, the
    two coordinates that rotary embedding turns together go from half a head apart to beside each other."""
    halves: npt.NDArray[np.float32] = rows.reshape(heads, 2, -1, rows.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)
