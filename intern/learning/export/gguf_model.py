"""A model with the adapter in its weights, for llama.cpp: the base's GGUF file and a checked LoRA go in, one file out.

A weight that the LoRA changes is dequantised, gains `scale * B A` in float32, and is written in the wanted numbers, one
in memory at a time. Everything else is the base file's own, byte for byte: tokenizer, chat template, hyperparameters,
norms, and each other tensor that is quantised already. Embeddings and output layer of a base in floating point become
q8_0 where four bits are wanted: llama.cpp's own quantiser spares them too. Knows nothing of skills or engines.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import numpy.typing as npt

from intern.errors import AdapterRefused, ModelUnavailable
from intern.learning.adapters.gguf_head import BrokenHead, Cursor, Head, Tensor, read_head
from intern.learning.adapters.gguf_lora import reordered
from intern.learning.adapters.lora import Floats, Lora, Pair
from intern.learning.adapters.shapes import BaseShape, gguf_name
from intern.learning.export.merge import check_sound

Numbers = Literal["f16", "q8_0", "q4_0"]

NUMBERS: Mapping[str, Numbers] = {f"gguf-{numbers}": numbers for numbers in get_args(Numbers)}

# ggml's numbers of these types, and llama.cpp's of a file that is mostly of one.
_TYPES: Mapping[Numbers, int] = {"f16": 1, "q8_0": 8, "q4_0": 2}
_FILE_TYPES: Mapping[Numbers, int] = {"f16": 1, "q8_0": 7, "q4_0": 2}
_F16, _Q8_0 = 1, 8
_FLOATS = {0, 1, 30}  # float32, float16, bfloat16
_LARGEST = 65_504.0  # of float16, in which blocks of quantised values keep their scale too
_MORE_METADATA = 1_000_000  # bytes, generously
_STALE = ("general.alignment", "general.size_label", "general.finetune", "general.version", "quantize.")
_QUANTISATION = 2  # the version of ggml's quantised types
_ALIGNMENT = 32
_UINT32, _STRING = 4, 8  # GGUF's types of values

_Plan = list[tuple[str, Tensor, int]]  # name, the tensor in the base, the type to write it in


def file_name(stem: str, format: str) -> str:
    """What the file of a format of `NUMBERS` is called."""
    return f"{stem}.{NUMBERS[format]}.gguf"


def merged_bytes(base: Path, lora: Lora, numbers: Numbers) -> int:
    """How many bytes the merged file takes, at most. Raises ModelUnavailable when the base cannot be read."""
    head = _head(base)
    copied, merged = _plan(head, lora, numbers)
    weights = sum(_bytes(tensor.shape, kind) + 32 for _, tensor, kind in (*copied, *merged))
    return weights + min((t.offset for t in head.tensors.values()), default=0) + _MORE_METADATA


def write_merged(
    base: Path, lora: Lora, shape: BaseShape, target: Path, *, numbers: Numbers, metadata: Mapping[str, str]
) -> None:
    """Write the merged model to `target`. `lora` was read with `shape`, which is the base's.

    `metadata` are texts to set besides the base's own, such as `general.name`. Raises AdapterRefused when a weight is
    no longer sound (`check_sound`), ModelUnavailable when the base cannot be read, OSError when the disk refuses.
    """
    head = _head(base)
    copied, merged = _plan(head, lora, numbers)
    texts = {key: struct.pack("<I", _STRING) + _text(text) for key, text in metadata.items()}
    counts = {"general.file_type": _FILE_TYPES[numbers], "general.quantization_version": _QUANTISATION}
    kept = {key: raw for key, raw in _metadata(base).items() if not key.startswith(_STALE)}
    values = {**kept, **texts, **{key: struct.pack("<II", _UINT32, count) for key, count in counts.items()}}
    with target.open("xb") as file:
        _write_head(file, values, (*copied, *merged))
        for name, tensor, kind in copied:
            raw = _raw(head, tensor)
            _write(file, raw if kind == tensor.kind else _encoded(name, _values(raw, tensor), kind, lora))
        for (name, tensor, kind), (module, pair) in zip(merged, lora.pairs(), strict=True):
            before = _values(_raw(head, tensor), tensor)
            with np.errstate(over="ignore", invalid="ignore"):
                after = before + change(module, pair, shape)
            check_sound(name, before, after, lora)
            _write(file, _encoded(name, after, kind, lora))
        file.flush()
        os.fsync(file.fileno())


def chat_template(base: Path) -> str:
    """The chat template that a GGUF file carries. Raises ModelUnavailable when it has none."""
    template = _head(base).metadata.get("tokenizer.chat_template")
    if not isinstance(template, str):
        raise ModelUnavailable(f"'{base.name}' has no chat template; choose an instruction-tuned model.")
    return template


def change(module: str, pair: Pair, shape: BaseShape) -> Floats:
    """What a weight of the GGUF file gains, float32 of the weight's shape, rows in llama.cpp's order."""
    return np.float32(pair.scale) * (reordered(pair.b, module, shape) @ pair.a)


# --- inside ------------------------------------------------------------------------------------------------------


def _head(base: Path) -> Head:
    try:
        return read_head(base)
    except (OSError, BrokenHead) as error:
        raise ModelUnavailable(f"The base model '{base}' is no GGUF file that can be read: {error}.") from error


def _plan(head: Head, lora: Lora, numbers: Numbers) -> tuple[_Plan, _Plan]:
    """What is copied, in the base's order, and what is merged, in the order of `lora.pairs()`."""
    changed = [gguf_name(module) for module in lora.ranks]
    copied = []
    for name, tensor in head.tensors.items():
        if name not in changed:
            kind = tensor.kind
            if kind in _FLOATS and len(tensor.shape) == 2:
                spared = numbers == "q4_0" and not name.startswith("blk.")
                kind = _fitting(tensor, _Q8_0 if spared else _TYPES[numbers])
            copied.append((name, tensor, kind))
    return copied, [(name, head.tensors[name], _fitting(head.tensors[name], _TYPES[numbers])) for name in changed]


def _fitting(tensor: Tensor, kind: int) -> int:
    """`kind`, or float16 where rows are no whole number of its blocks."""
    return kind if tensor.shape[-1] % _block(kind)[0] == 0 else _F16


def _block(kind: int) -> tuple[int, int]:
    """(values, bytes) of one block of a type."""
    import gguf

    values, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
    return values, size


def _bytes(shape: tuple[int, ...], kind: int) -> int:
    values, size = _block(kind)
    return math.prod(shape) // values * size


def _raw(head: Head, tensor: Tensor) -> npt.NDArray[np.uint8]:
    """A tensor's bytes, mapped from the file, row by row."""
    shape = (*tensor.shape[:-1], _bytes(tensor.shape[-1:], tensor.kind))
    return np.memmap(head.path, dtype=np.uint8, mode="r", offset=tensor.offset, shape=shape)


def _values(raw: npt.NDArray[np.uint8], tensor: Tensor) -> Floats:
    import gguf

    values = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(tensor.kind))
    return np.asarray(values, dtype=np.float32).reshape(tensor.shape)


def _encoded(name: str, values: Floats, kind: int, lora: Lora) -> npt.NDArray[Any]:
    import gguf

    if np.abs(values).max(initial=0.0) > _LARGEST:
        raise AdapterRefused(f"merged, {name} has values beyond float16. Export it unmerged.", adapter=lora.folder.name)
    encoded: npt.NDArray[Any] = gguf.quants.quantize(values, gguf.GGMLQuantizationType(kind))
    return encoded


# --- the format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md -------------------------------------------


def _metadata(base: Path) -> dict[str, bytes]:
    """Each key of the base's metadata with the bytes of its type and value. A vocabulary is never taken apart."""
    with base.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = Cursor(data)
        cursor.place = 16  # behind the magic number, the version and the number of tensors
        found = {}
        for _ in range(cursor.number("Q")):
            key = cursor.text()
            start = cursor.place
            cursor.value(cursor.number("I"))
            found[key] = data[start : cursor.place]
        return found


def _write_head(file: BinaryIO, metadata: Mapping[str, bytes], plan: Sequence[tuple[str, Tensor, int]]) -> None:
    file.write(b"GGUF" + struct.pack("<IQQ", 3, len(plan), len(metadata)))
    for key, raw in metadata.items():
        file.write(_text(key) + raw)
    offset = 0
    for name, tensor, kind in plan:
        sizes = tensor.shape[::-1]
        file.write(_text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset))
        offset += -(-_bytes(tensor.shape, kind) // _ALIGNMENT) * _ALIGNMENT
    _align(file)


def _write(file: BinaryIO, values: npt.NDArray[Any]) -> None:
    file.write(np.ascontiguousarray(values).data)
    _align(file)


def _align(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % _ALIGNMENT))


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw
