"""The base model for training: device, weights and tokenizer, from the file that the engine serves.

In: a GGUF file or a folder of transformers' format. Out: a causal model and its tokenizer. A GGUF file is dequantised,
so that trainer and engine share one base to the bit; the result is kept as a folder when it is small, since converting
takes half a minute and loading the folder a second.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GgufConfig

from intern.errors import InvalidInput, ModelUnavailable
from intern.learning.train.disk import UNPACKING, settle, unpacking
from intern.learning.train.pieces import cut_as_engine
from intern.learning.train.recipe import Precision

_CACHED_BYTES = 1_000_000_000  # GGUF files up to this size are kept converted
_TIMES_AS_LARGE = 7  # at most, converted to float32 from about five bits a weight
_UNPACKED = 2  # counted up where what is unpacked changes: 2 has tokenizers that cut as the engine does
_SPARE_BYTES = 500_000_000  # that stay free for the training itself
_BEFORE_MATRICES = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm")  # several take it


def choose_device() -> tuple[torch.device, str]:
    """The device to train on, and why."""
    if torch.cuda.is_available():
        return torch.device("cuda"), f"CUDA: {torch.cuda.get_device_name(0)}"
    if torch.backends.mps.is_available():
        return torch.device("mps"), "Apple's GPU (MPS); there is no CUDA here"
    return torch.device("cpu"), f"CPU, {torch.get_num_threads()} threads; there is no CUDA or MPS here"


def multiplies_in_bfloat16(device: torch.device, precision: Precision) -> tuple[bool, str]:
    """Whether matrices are multiplied in bfloat16 (torch's autocast; weights that learn stay float32), and why."""
    if precision != "auto":
        return precision == "bfloat16", f"{precision}, as asked for"
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return True, "bfloat16, which this GPU multiplies faster"
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        if able.get("avx512_bf16") or able.get("amx_bf16"):
            return True, "bfloat16, which this processor multiplies faster"
    return False, "float32"


def quantisation_warning(bits: int | None, device: torch.device) -> str | None:
    """What to know about a quantised base on this device, or None."""
    if bits is None or device.type == "cuda":
        return None
    if device.type == "mps":
        raise InvalidInput("bitsandbytes does not train on MPS; use the recipe lora.", param="recipe")
    return (
        f"Training on {bits}-bit weights without CUDA is several times slower than the recipe lora, and saves memory "
        "that a model of this size hardly needs."
    )


def load_tokenizer(base: Path) -> Any:
    """The tokenizer with its chat template. Raises ModelUnavailable."""
    try:
        if base.is_file():
            tokenizer = AutoTokenizer.from_pretrained(base.parent, gguf_file=base.name)
            cut_as_engine(tokenizer, base)
        else:
            tokenizer = AutoTokenizer.from_pretrained(base)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"'{base.name}' has no tokenizer that transformers can read: {error}") from error
    if not tokenizer.chat_template:
        raise ModelUnavailable(f"'{base.name}' has no chat template; choose an instruction-tuned model.")
    return tokenizer


def weights_in(device: torch.device, precision: Precision) -> torch.dtype:
    """The type of the base model's weights: bfloat16 on CUDA unless float32 is asked for, float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" and precision != "float32" else torch.float32


def load_model(base: Path, *, bits: int | None, device: torch.device, precision: Precision = "auto") -> Any:
    """The model with weights as `weights_in` says, or with its linear layers in `bits` bits."""
    dtype = weights_in(device, precision)
    options: dict[str, Any] = {"dtype": dtype}
    if bits == 4:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    elif bits == 8:
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    if bits is not None:
        options["device_map"] = {"": device}
    try:
        if base.is_file():
            if bits is not None:
                raise InvalidInput("A quantised base needs the model as a folder; see `unpacked`.", param="recipe")
            options["quantization_config"] = GgufConfig(dequantize=True)
            model = AutoModelForCausalLM.from_pretrained(base.parent, gguf_file=base.name, **options)
        else:
            model = AutoModelForCausalLM.from_pretrained(base, **options)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"The base model '{base.name}' cannot be loaded for training: {error}") from error
    return model if bits is not None else model.to(device)


def hold_in_bfloat16(model: Any) -> None:
    """Hold in bfloat16 what autocast would cast to it anew in every pass, to the same numbers: the frozen matrices
    below an adapter, and what the norms hand to several of them. The adapter's own weights stay as they are."""
    for name, layer in model.named_modules():
        if name.endswith(".base_layer") and type(layer) is torch.nn.Linear:  # not what quantisation made of one
            layer.to(torch.bfloat16)
        elif isinstance(layer, LoraLayer):
            layer.cast_input_dtype_enabled = False  # to float32, from which autocast would cast it back
        elif name.endswith(_BEFORE_MATRICES):
            layer.register_forward_hook(_in_bfloat16)


def _in_bfloat16(norm: torch.nn.Module, given: object, hidden: torch.Tensor) -> torch.Tensor:
    return hidden.to(torch.bfloat16)


def unpacked(base: Path, cache: Path | None, *, always: bool = False) -> Path:
    """`base` as a folder of transformers' format, kept below `cache`; `base` itself where that would be too large, or
    the disk has no room for it.

    `always`: whatever its size (a quantised recipe cannot read GGUF). Raises ModelUnavailable.
    """
    if base.is_dir() or cache is None or (base.stat().st_size > _CACHED_BYTES and not always):
        return base
    stat = base.stat()
    of = f"{base.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{_UNPACKED}"
    key = hashlib.sha256(of.encode()).hexdigest()[:24]
    folder = cache / f"base-{key}"
    if (folder / "config.json").exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    if not always and shutil.disk_usage(cache).free < _TIMES_AS_LARGE * stat.st_size + _SPARE_BYTES:
        return base
    with unpacking(cache):
        if (folder / "config.json").exists():  # another process unpacked it meanwhile
            return folder
        temporary = Path(tempfile.mkdtemp(dir=cache, prefix=UNPACKING))
        try:
            load_model(base, bits=None, device=torch.device("cpu")).save_pretrained(temporary)
            load_tokenizer(base).save_pretrained(temporary)
            settle(temporary)  # what a power cut left half written would pass for whole for ever
            os.rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder
