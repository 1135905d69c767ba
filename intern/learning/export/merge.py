"""A model with the adapter in its weights, for transformers: the base's folder and a checked LoRA go in, a folder out.

Each weight that the LoRA changes gains `scale * B A` in float32; then every weight is rounded once. Weights are read
and written one at a time, so that memory holds the largest of them and not the model. Tokenizer, chat template and
configuration are the base's, without what names places of the machine that they come from. Knows nothing of skills or
engines, and needs no torch.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from intern.errors import AdapterRefused, ModelUnavailable
from intern.learning.adapters.lora import Floats, Lora
from intern.types import Json

Dtype = Literal["float32", "float16", "bfloat16"]

WEIGHTS = "model.safetensors"
CHAT_TEMPLATE = "chat_template.jinja"

_STORED: Mapping[Dtype, tuple[str, int]] = {"float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2)}
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", CHAT_TEMPLATE)
# Keys of configuration files that say where something was loaded from.
_PLACES = {"_name_or_path", "_model_name_or_path", "name_or_path", "tokenizer_file", "is_local", "local_files_only"}


def write_merged(base: Path, lora: Lora, target: Path, *, dtype: Dtype, generation: Mapping[str, Json]) -> None:
    """Fill the folder `target` with the merged model. `base` is a folder of transformers' format.

    `generation` goes into its generation configuration, over the base's own. Raises AdapterRefused when a weight is no
    longer sound (`check_sound`), ModelUnavailable when the base is not one, OSError when the disk refuses.
    """
    config = _read(base / "config.json")
    _write(target / "config.json", {**config, **_former_keys(config), "dtype": dtype})
    ending = {
        key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if config.get(key) is not None
    }
    _write(target / "generation_config.json", {**ending, **generation})
    write_tokenizer(base, target)
    with ExitStack() as opened:
        tensors = _open(base, opened)
        _write_weights(target / WEIGHTS, tensors, lora, dtype)


def write_tokenizer(base: Path, target: Path) -> None:
    """Tokenizer and chat template of a folder of transformers' format, into the folder `target`."""
    for name in _TOKENIZER:
        if not (base / name).is_file():
            continue
        if name == "tokenizer_config.json":
            body = _read(base / name)
            if body.get("tokenizer_class") == "TokenizersBackend":  # its name since transformers 5
                body["tokenizer_class"] = "PreTrainedTokenizerFast"
            _write(target / name, body)
        else:
            shutil.copyfile(base / name, target / name)


def check_sound(name: str, before: Floats, after: Floats, lora: Lora) -> None:
    """Raises AdapterRefused when a merged weight has values that are not finite, or was wiped out."""
    if not np.isfinite(after).all():
        raise AdapterRefused(f"merged, {name} has values that are not finite.", adapter=lora.folder.name)
    if before.any() and not after.any():
        raise AdapterRefused(f"merged, {name} is zero throughout.", adapter=lora.folder.name)


# --- inside ------------------------------------------------------------------------------------------------------


def _write_weights(path: Path, tensors: Mapping[str, Any], lora: Lora, dtype: Dtype) -> None:
    """The weights as safetensors: the length of a JSON header in 8 bytes, the header, the values."""
    label, width = _STORED[dtype]
    changed = [f"{module}.weight" for module in lora.ranks]
    if missing := [name for name in changed if name not in tensors]:
        raise ModelUnavailable(f"The base model has no weight '{missing[0]}', which the adapter changes.")
    kept = sorted(tensors.keys() - set(changed))
    header: dict[str, Json] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name in (*kept, *changed):
        shape = list(tensors[name].get_slice(name).get_shape())
        end = place + math.prod(shape) * width
        header[name] = {"dtype": label, "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in kept:
            _rounded(name, _values(tensors, name), dtype, lora).tofile(file)
        for name, (_, pair) in zip(changed, lora.pairs(), strict=True):
            before = _values(tensors, name)
            with np.errstate(over="ignore", invalid="ignore"):
                after = before + np.float32(pair.scale) * (pair.b @ pair.a)
            check_sound(name, before, after, lora)
            _rounded(name, after, dtype, lora).tofile(file)
        file.flush()
        os.fsync(file.fileno())


def _rounded(name: str, values: Floats, dtype: Dtype, lora: Lora) -> npt.NDArray[Any]:
    import ml_dtypes

    with np.errstate(over="ignore"):
        rounded: npt.NDArray[Any] = values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    if not np.isfinite(rounded.astype(np.float32)).all():
        raise AdapterRefused(f"merged, {name} has values beyond {dtype}.", adapter=lora.folder.name)
    return rounded


def _open(base: Path, opened: ExitStack) -> dict[str, Any]:
    """Each tensor's name with the open file that holds it."""
    from safetensors import SafetensorError, safe_open

    found = {}
    try:
        for path in sorted(base.glob("*.safetensors")):
            file = opened.enter_context(safe_open(path, framework="numpy"))
            found.update(dict.fromkeys(file.keys(), file))
    except (OSError, SafetensorError) as error:
        raise ModelUnavailable(f"The base model's weights in '{base}' cannot be read: {error}.") from error
    return found


def _values(tensors: Mapping[str, Any], name: str) -> Floats:
    import ml_dtypes  # noqa: F401 (numpy knows bfloat16 once this is imported)

    return np.asarray(tensors[name].get_tensor(name), dtype=np.float32)


def _former_keys(config: Mapping[str, Json]) -> dict[str, Json]:
    """What readers older than transformers 5 look for: without it they take another base frequency, and say nothing."""
    rope = config.get("rope_parameters") or {}
    return {"rope_theta": rope["rope_theta"]} if rope.get("rope_type") == "default" and "rope_theta" in rope else {}


def _read(path: Path) -> dict[str, Json]:
    """A configuration file, without what holds on this machine only."""
    try:
        body: dict[str, Json] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"The base model's '{path.name}' cannot be read: {error}.") from error
    return {key: value for key, value in body.items() if key not in _PLACES}


def _write(path: Path, body: Mapping[str, Json]) -> None:
    path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
