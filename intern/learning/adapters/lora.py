"""A LoRA in PEFT's format: a folder's configuration and tensors go in, checked low-rank pairs by module come out.

What passes is plain LoRA (Hu et al., arXiv 2106.09685) on the linear modules of attention and MLP, with rank-stabilised
scaling (Kalajdzievski, arXiv 2312.03732), ranks and alphas by module where wanted: what PEFT, llama.cpp and a merge
all compute alike. Everything else is refused by name rather than half applied. Nothing is unpickled and torch is not
needed; whoever made the folder is not trusted. Knows nothing of manifests, skills or engines.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from intern.errors import AdapterRefused
from intern.learning.adapters.shapes import MODULES, BaseShape
from intern.types import Json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

# vLLM is started with one of these as max_lora_rank and loads adapters up to it.
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

_TENSOR = re.compile(
    r"base_model\.model\.(model\.layers\.(?:0|[1-9][0-9]{0,4})\."
    rf"(?:{'|'.join(map(re.escape, MODULES))}))\.lora_([AB])\.weight"
)
_DTYPES = {"F32", "F16", "BF16"}
_MAX_CONFIG = 1_000_000
_MAX_HEADER = 4_000_000  # of the safetensors file: 80 layers of 7 modules need 0.2 MB
_PATTERN = re.compile(r"[\w.^]+", re.ASCII)  # of rank_pattern's keys, which PEFT takes as regular expressions
_INITS = (True, False, "gaussian", "eva", "orthogonal")  # the others change the base model's weights as well
# Configuration that says how training went, or is checked by itself. Any other key must be empty: it names something
# that changes what is computed.
_INNOCENT = {
    *("peft_type", "task_type", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *("r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "rank_pattern", "alpha_pattern"),
    *("init_lora_weights", "auto_mapping", "megatron_core", "qalora_group_size"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config"),
}

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """What a module's weight gains: `scale * b @ a`, with a of shape (rank, in) and b of shape (out, rank)."""

    a: Floats
    b: Floats
    scale: float

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])


@dataclass(frozen=True)
class Lora:
    """A checked folder. `scales`, `ranks` and `modules`, the shapes of the weights that it is made for, (features out,
    features in), are by module; its own weights stay in the file until `pairs` reads them."""

    folder: Path
    config: Mapping[str, Json]
    modules: Mapping[str, tuple[int, int]]
    ranks: Mapping[str, int]
    scales: Mapping[str, float]

    @property
    def rank(self) -> int:
        """The largest."""
        return max(self.ranks.values())

    @property
    def uniform(self) -> bool:
        """All modules have the configuration's own rank and alpha. vLLM looks at no others."""
        return not self.config.get("rank_pattern") and not self.config.get("alpha_pattern")

    @property
    def max_lora_rank(self) -> int:
        """The smallest max_lora_rank with which vLLM loads it."""
        return next(rank for rank in VLLM_RANKS if rank >= self.rank)

    def pairs(self) -> Iterator[tuple[str, Pair]]:
        """Every module with its pair, one in memory at a time."""
        with _open(self.folder) as tensors:
            for module, scale in self.scales.items():
                a, b = (_values(tensors, _name(module, side)) for side in "AB")
                yield module, Pair(a, b, scale)


def read_lora(folder: Path, shape: BaseShape | None = None) -> Lora:
    """Check a PEFT folder's configuration and every value of its weights; with `shape`, against that base model.

    Raises AdapterRefused: unreadable, no plain LoRA, other tensors or shapes than the base model has, ranks other than
    the configuration says, values that are not finite, or nothing that would change the base model's answers.
    """
    config = _read_config(folder)
    found = _read_header(folder, shape)
    ranks: dict[str, int] = {}
    scales: dict[str, float] = {}
    for module, (rank, _) in found.items():
        if not any(module == target or module.endswith(f".{target}") for target in config["target_modules"]):
            raise _refused(folder, f"it has weights for {module}, which its {CONFIG} does not target")
        expected = _by_pattern(config["rank_pattern"], module, config["r"])
        if rank != expected:
            raise _refused(folder, f"{module} has rank {rank} where its {CONFIG} says {expected}")
        alpha = _by_pattern(config["alpha_pattern"], module, config["lora_alpha"])
        ranks[module] = rank
        scales[module] = alpha / (math.sqrt(rank) if config["use_rslora"] else rank)
    lora = Lora(folder, config, {module: sizes for module, (_, sizes) in found.items()}, ranks, scales)
    changes = False
    for module, pair in lora.pairs():
        if not (np.isfinite(pair.a).all() and np.isfinite(pair.b).all()):
            raise _refused(folder, f"{module} has values that are not finite: the training diverged. Train it again")
        changes = changes or bool(pair.a.any() and pair.b.any())
    if not changes:
        raise _refused(folder, "it changes nothing: in every module A or B is zero, as before training")
    return lora


def _read_config(folder: Path) -> dict[str, Json]:
    """The configuration, with every key that is used here present and of its type."""
    try:
        if (folder / CONFIG).stat().st_size > _MAX_CONFIG:
            raise _refused(folder, f"{CONFIG} is larger than {_MAX_CONFIG // 1000} kB")
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _refused(folder, f"{CONFIG} cannot be read as JSON ({type(error).__name__})") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise _refused(folder, f"{CONFIG} describes no LoRA (peft_type LORA)")
    for key, value in config.items():
        if key not in _INNOCENT and value not in (None, False, 0, "", "none", [], {}):
            raise _refused(folder, f"it uses PEFT's option '{key}', which not every engine computes. Train without it")
    if config.get("init_lora_weights", True) not in _INITS:
        raise _refused(
            folder,
            f"init_lora_weights '{config['init_lora_weights']}' changed the base model's weights too. Let PEFT convert "
            "it to a plain LoRA when saving (path_initial_model_for_weight_conversion)",
        )
    rules: list[tuple[str, Json, Any]] = [
        ("r", None, lambda v: type(v) is int and 1 <= v <= VLLM_RANKS[-1]),
        ("lora_alpha", None, _is_positive),
        ("use_rslora", False, lambda v: type(v) is bool),
        ("rank_pattern", {}, lambda v: _is_pattern(v) and all(type(n) is int for n in v.values())),
        ("alpha_pattern", {}, lambda v: _is_pattern(v) and all(map(_is_positive, v.values()))),
        ("target_modules", None, lambda v: isinstance(v, list) and all(isinstance(name, str) for name in v)),
    ]
    for key, default, right in rules:
        config[key] = default if config.get(key) is None else config[key]
        if not right(config[key]):
            raise _refused(folder, f"{CONFIG} has no usable '{key}': {_EXPECTED[key]}")
    return config


_EXPECTED = {
    "r": f"a rank from 1 to {VLLM_RANKS[-1]}",
    "lora_alpha": "a positive number",
    "use_rslora": "true or false",
    "rank_pattern": "parts of module names to ranks",
    "alpha_pattern": "parts of module names to positive numbers",
    "target_modules": "a list of module names",
}


def _is_positive(value: Json) -> bool:
    return type(value) in (int, float) and 0 < value < 1e6


def _is_pattern(value: Json) -> bool:
    return isinstance(value, dict) and all(_PATTERN.fullmatch(key) for key in value)


def _by_pattern(patterns: Mapping[str, Any], module: str, otherwise: Any) -> Any:
    """As PEFT reads rank_pattern and alpha_pattern: the first key that matches the end of the module's name."""
    keys = (key for key in patterns if re.fullmatch(rf"(.*\.)?({key})", module))
    return patterns.get(next(keys, ""), otherwise)


def _read_header(folder: Path, shape: BaseShape | None) -> dict[str, tuple[int, tuple[int, int]]]:
    """Module to rank and its weight's shape, from names, types and shapes alone."""
    shapes: dict[str, dict[str, tuple[int, int]]] = {}
    with _open(folder) as tensors:
        for name in tensors.keys():  # noqa: SIM118 (no mapping)
            match = _TENSOR.fullmatch(name)
            if match is None:
                raise _refused(
                    folder,
                    f"the tensor '{name[:120]}' belongs to no linear module of attention or MLP ({', '.join(MODULES)})",
                )
            view = tensors.get_slice(name)
            if view.get_dtype() not in _DTYPES:
                raise _refused(folder, f"'{name}' is of type {view.get_dtype()}; {', '.join(sorted(_DTYPES))} are read")
            sizes = view.get_shape()
            if len(sizes) != 2 or not all(sizes):
                raise _refused(folder, f"'{name}' has the shape {sizes}; a matrix was expected")
            shapes.setdefault(match[1], {})[match[2]] = (sizes[0], sizes[1])
    found = {}
    for module, sides in sorted(shapes.items()):
        if len(sides) != 2:
            raise _refused(folder, f"{module} has lora_{next(iter(sides))} alone; the other half is missing")
        (rank, columns), (rows, rank_of_b) = sides["A"], sides["B"]
        if rank != rank_of_b:
            raise _refused(folder, f"in {module} lora_A has rank {rank} and lora_B rank {rank_of_b}")
        if shape is not None and shape.modules.get(module) != (rows, columns):
            there = shape.modules.get(module)
            has = f"it is {there[0]} by {there[1]}" if there else "there is none"
            raise _refused(folder, f"{module} is made for a weight of {rows} by {columns}; in this base model {has}")
        found[module] = (rank, (rows, columns))
    if not found:
        raise _refused(folder, f"{WEIGHTS} holds no tensors")
    return found


def _open(folder: Path) -> Any:
    """The weights, opened lazily. safetensors' own parser checks that the header describes exactly the file."""
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS
    try:
        with path.open("rb") as file:
            if int.from_bytes(file.read(8), "little") > _MAX_HEADER:
                raise _refused(folder, f"the header of {WEIGHTS} is larger than {_MAX_HEADER // 1_000_000} MB")
        return safe_open(path, framework="numpy")
    except (OSError, SafetensorError) as error:
        raise _refused(folder, f"{WEIGHTS} cannot be read as safetensors: {error}") from error


def _values(tensors: Any, name: str) -> Floats:
    if tensors.get_slice(name).get_dtype() == "BF16":
        import ml_dtypes  # noqa: F401 (numpy knows bfloat16 once this is imported)
    return np.asarray(tensors.get_tensor(name), dtype=np.float32)


def _name(module: str, side: str) -> str:
    return f"base_model.model.{module}.lora_{side}.weight"


def _refused(folder: Path, reason: str) -> AdapterRefused:
    return AdapterRefused(f"{reason}.", adapter=folder.name)
