"""The head of a GGUF file: metadata and where each tensor lies, read without the weights and without the vocabulary.

In: a path. Out: scalar metadata, and each tensor's shape, type and place. Arrays are stepped over (a vocabulary is a
list of a hundred thousand words), so that a head takes milliseconds. The file may be hostile: every length is checked
against the file's size. Knows no architecture.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Scalar = int | float | bool | str

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_MOST_ENTRIES = 100_000  # keys, or tensors; the largest models have some thousands
_FLOATS: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}  # ggml's type numbers


class BrokenHead(ValueError):
    """The file is no GGUF file, or a damaged one. The message says where."""


@dataclass(frozen=True)
class Tensor:
    """`shape` counts rows first, as numpy does (GGUF writes it the other way round); `offset` in bytes of the file."""

    shape: tuple[int, ...]
    kind: int  # ggml's number: 0 is float32, 1 float16, others are quantised
    offset: int


@dataclass(frozen=True)
class Head:
    """What stands before the weights. An array in the metadata is None here."""

    path: Path
    metadata: Mapping[str, Scalar | None]
    tensors: Mapping[str, Tensor]

    def values(self, name: str) -> npt.NDArray[Any]:
        """A float32 or float16 tensor, mapped from the file. Raises BrokenHead for another type, or beyond its end."""
        tensor = self.tensors[name]
        kind = _FLOATS.get(tensor.kind)
        if kind is None:
            raise BrokenHead(f"the tensor {name} is neither float32 nor float16")
        if tensor.offset + math.prod(tensor.shape) * kind.itemsize > self.path.stat().st_size:
            raise BrokenHead(f"the tensor {name} reaches beyond the end of the file")
        return np.memmap(self.path, dtype=kind, mode="r", offset=tensor.offset, shape=tensor.shape)


def read_head(path: Path) -> Head:
    """Raises BrokenHead when it is no GGUF file of version 2 or 3, little-endian, and OSError when it is unreadable."""
    with path.open("rb") as file:
        if path.stat().st_size < 24:
            raise BrokenHead("it is too short for a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _parse(path, data)
            except (struct.error, UnicodeDecodeError, OverflowError) as error:
                raise BrokenHead("its head is damaged or cut off") from error


def _parse(path: Path, data: mmap.mmap) -> Head:
    cursor = Cursor(data)
    if data[:4] != b"GGUF":
        raise BrokenHead("it does not begin as a GGUF file does")
    cursor.place = 4
    if (version := cursor.number("I")) not in _VERSIONS:
        raise BrokenHead(f"its GGUF version is {version}; 2 and 3 can be read")
    tensor_count, key_count = cursor.number("Q"), cursor.number("Q")
    if max(tensor_count, key_count) > _MOST_ENTRIES:
        raise BrokenHead(f"it claims {max(tensor_count, key_count)} entries")
    metadata: dict[str, Scalar | None] = {}
    for _ in range(key_count):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("I"))
    found: list[tuple[str, tuple[int, ...], int, int]] = []
    for _ in range(tensor_count):
        name = cursor.text()
        dimensions = cursor.number("I")
        if dimensions > 4:
            raise BrokenHead(f"the tensor {name[:80]} has {dimensions} dimensions")
        shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
        found.append((name, shape, cursor.number("I"), cursor.number("Q")))
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment <= 0:
        raise BrokenHead("its alignment is not a positive number")
    start = -(-cursor.place // alignment) * alignment
    return Head(path, metadata, {name: Tensor(shape, kind, start + offset) for name, shape, kind, offset in found})


class Cursor:
    """Reads one thing after another. Beyond the end, struct.error."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.place = 0

    def number(self, kind: str) -> int:
        value: int = struct.unpack_from("<" + kind, self.data, self.place)[0]
        self.place += struct.calcsize("<" + kind)
        return value

    def text(self) -> str:
        length = self.number("Q")
        if length > len(self.data) - self.place:
            raise struct.error("a text reaches beyond the end")
        text = self.data[self.place : self.place + length].decode()
        self.place += length
        return text

    def value(self, kind: int) -> Scalar | None:
        """One value of metadata; None for an array, which is stepped over."""
        if kind == _STRING:
            return self.text()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise BrokenHead(f"its metadata have a value of the unknown type {kind}")
        inner, length = self.number("I"), self.number("Q")
        if inner in _SCALARS:
            self.place += length * struct.calcsize(_SCALARS[inner])
        elif inner == _STRING:
            self._skip_texts(length)
        else:
            raise BrokenHead("its metadata have an array of arrays")
        return None

    def _skip_texts(self, count: int) -> None:
        unpack, data, place = struct.Struct("<Q").unpack_from, self.data, self.place
        for _ in range(count):
            place += 8 + unpack(data, place)[0]
        self.place = place
