"""A PEFT folder is read as it is meant, or refused with the reason, whoever made it."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from made_lora import base_shape, tensors, write_lora

from intern.errors import AdapterRefused
from intern.learning.adapters.lora import read_lora
from intern.learning.adapters.shapes import BaseShape

Weights = dict[str, np.ndarray]
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def shape(tmp_path: Path) -> BaseShape:
    return base_shape(tmp_path / "base")


def test_every_module_comes_out_with_its_own_pair(tmp_path: Path, shape: BaseShape) -> None:
    weights = tensors(shape)
    lora = read_lora(write_lora(tmp_path / "lora", weights), shape)
    assert lora.ranks == dict.fromkeys(shape.modules, 2)
    assert (lora.rank, lora.max_lora_rank, lora.uniform) == (2, 8, True)
    for module, pair in lora.pairs():
        assert pair.scale == 4 / 2
        np.testing.assert_array_equal(pair.a, weights[f"base_model.model.{module}.lora_A.weight"])
        np.testing.assert_array_equal(pair.b, weights[f"base_model.model.{module}.lora_B.weight"])


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_read_exactly(tmp_path: Path, shape: BaseShape, kind: type[np.generic]) -> None:
    weights = {name: value.astype(kind) for name, value in tensors(shape).items()}
    lora = read_lora(write_lora(tmp_path / "lora", weights), shape)
    for module, pair in lora.pairs():
        assert pair.a.dtype == pair.b.dtype == np.float32
        np.testing.assert_array_equal(pair.b, weights[f"base_model.model.{module}.lora_B.weight"].astype(np.float32))


def test_rank_stabilised_scaling_divides_by_the_root(tmp_path: Path, shape: BaseShape) -> None:
    lora = read_lora(write_lora(tmp_path / "lora", tensors(shape), use_rslora=True), shape)
    assert set(lora.scales.values()) == {4 / math.sqrt(2)}
    assert lora.uniform


def test_ranks_and_alphas_by_module(tmp_path: Path, shape: BaseShape) -> None:
    weights = tensors(shape)
    wide = tensors(shape, rank=3)
    weights |= {name: value for name, value in wide.items() if "layers.1.mlp.up_proj" in name}
    folder = write_lora(
        tmp_path / "lora",
        weights,
        rank_pattern={"layers.1.mlp.up_proj": 3},
        alpha_pattern={"self_attn.q_proj": 6, "q_proj": 100},
    )
    lora = read_lora(folder, shape)
    assert lora.scales["model.layers.1.mlp.up_proj"] == 4 / 3
    assert lora.scales["model.layers.0.mlp.up_proj"] == 4 / 2
    assert lora.scales["model.layers.0.self_attn.q_proj"] == 6 / 2  # the first pattern that matches
    assert (lora.rank, lora.uniform) == (3, False)


def test_some_modules_alone_will_do(tmp_path: Path, shape: BaseShape) -> None:
    weights = {name: value for name, value in tensors(shape).items() if "layers.1.mlp" in name}
    assert len(read_lora(write_lora(tmp_path / "lora", weights), shape).ranks) == 3


def test_one_untrained_half_of_a_module_is_no_reason_to_refuse(tmp_path: Path, shape: BaseShape) -> None:
    weights = tensors(shape)
    weights[f"{Q0}.lora_B.weight"][:] = 0
    pair = dict(read_lora(write_lora(tmp_path / "lora", weights), shape).pairs())[Q0.removeprefix("base_model.model.")]
    assert pair.a.any()
    assert not pair.b.any()


def test_vllms_ranks_round_up(tmp_path: Path, shape: BaseShape) -> None:
    lora = read_lora(write_lora(tmp_path / "lora", tensors(shape, rank=33), r=33), shape)
    assert lora.max_lora_rank == 64


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"use_dora": True}, "'use_dora'"),
        ({"modules_to_save": ["lm_head"]}, "'modules_to_save'"),
        ({"bias": "lora_only"}, "'bias'"),
        ({"lora_bias": True}, "'lora_bias'"),
        ({"fan_in_fan_out": True}, "'fan_in_fan_out'"),
        ({"trainable_token_indices": [1, 2]}, "'trainable_token_indices'"),
        ({"layer_replication": [[0, 1]]}, "'layer_replication'"),
        ({"alora_invocation_tokens": [7]}, "'alora_invocation_tokens'"),
        ({"target_parameters": ["x"]}, "'target_parameters'"),
        ({"layers_to_transform": [0]}, "'layers_to_transform'"),
        ({"an_option_of_next_year": {"on": True}}, "'an_option_of_next_year'"),
        ({"init_lora_weights": "pissa"}, "changed the base model's weights"),
        ({"peft_type": "LOHA"}, "no LoRA"),
        ({"r": 4}, "rank 2 where its adapter_config.json says 4"),
        ({"r": 0}, "'r'"),
        ({"r": 1024}, "a rank from 1 to 512"),
        ({"r": True}, "'r'"),
        ({"r": "2"}, "'r'"),
        ({"lora_alpha": 0}, "'lora_alpha'"),
        ({"lora_alpha": float("nan")}, "'lora_alpha'"),
        ({"lora_alpha": None}, "'lora_alpha'"),
        ({"use_rslora": "yes"}, "'use_rslora'"),
        ({"rank_pattern": {"up_proj": 3}}, "rank 2 where its adapter_config.json says 3"),
        ({"rank_pattern": {"(a+)+$": 3}}, "'rank_pattern'"),
        ({"rank_pattern": ["up_proj"]}, "'rank_pattern'"),
        ({"alpha_pattern": {"up_proj": -1}}, "'alpha_pattern'"),
        ({"target_modules": ".*_proj"}, "'target_modules'"),
        ({"target_modules": ["q_proj"]}, "does not target"),
    ],
)
def test_a_configuration_that_not_every_engine_computes(
    tmp_path: Path, shape: BaseShape, config: dict[str, object], words: str
) -> None:
    with pytest.raises(AdapterRefused, match=words.replace("(", r"\(")) as caught:
        read_lora(write_lora(tmp_path / "lora", tensors(shape), **config), shape)
    assert caught.value.adapter == "lora"


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"peft_type": ["LORA"]}', "1" * 5000, "\xff"])
def test_a_configuration_that_is_none(tmp_path: Path, shape: BaseShape, text: str) -> None:
    folder = write_lora(tmp_path / "lora", tensors(shape))
    (folder / "adapter_config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(AdapterRefused, match=r"adapter_config\.json"):
        read_lora(folder)


def rename(old: str, new: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name.replace(old, new): value for name, value in weights.items()}


def replace(name: str, value: np.ndarray) -> Callable[[Weights], Weights]:
    return lambda weights: weights | {name: value}


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: value for name, value in weights.items() if part not in name}


def zero(side: str) -> Callable[[Weights], Weights]:
    return lambda weights: {n: np.zeros_like(v) if f"lora_{side}" in n else v for n, v in weights.items()}


A, B = f"{Q0}.lora_A.weight", f"{Q0}.lora_B.weight"
WHOLE = np.ones((8, 2), dtype=np.float32)


def spoilt(value: float) -> np.ndarray:
    array = WHOLE.copy()
    array[-1, -1] = value
    return array


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (zero("B"), "changes nothing"),
        (zero("A"), "changes nothing"),
        (replace(B, spoilt(math.nan)), "not finite"),
        (replace(B, spoilt(math.inf)), "not finite"),
        (replace(B, np.ones((8, 3), dtype=np.float32)), "lora_A has rank 2 and lora_B rank 3"),
        (replace(B, np.ones((10, 2), dtype=np.float32)), "made for a weight of 10 by 8; in this base model it is 8 by"),
        (replace(B, np.ones((8, 2, 1), dtype=np.float32)), "a matrix was expected"),
        (replace(B, np.ones((8, 0), dtype=np.float32)), "a matrix was expected"),
        (replace(B, WHOLE.astype(np.int32)), "of type I32"),
        (replace(B, WHOLE.astype(np.float64)), "of type F64"),
        (without(B), "has lora_A alone"),
        (without(A), "has lora_B alone"),
        (without("lora"), "holds no tensors"),
        (rename("layers.1.", "layers.2."), "in this base model there is none"),
        (rename("base_model.model.", "base_model."), "belongs to no linear module"),
        (rename("q_proj", "qkv_proj"), "belongs to no linear module"),
        (replace("base_model.model.lm_head.lora_A.weight", WHOLE), "belongs to no linear module"),
        (replace("base_model.model.model.embed_tokens.lora_embedding_A", WHOLE), "belongs to no linear module"),
        (replace(f"{Q0}.lora_magnitude_vector", WHOLE), "belongs to no linear module"),
        (replace("base_model.model.model.layers.00.self_attn.q_proj.lora_A.weight", WHOLE), "no linear module"),
    ],
)
def test_weights_that_do_not_fit(
    tmp_path: Path, shape: BaseShape, change: Callable[[Weights], Weights], words: str
) -> None:
    with pytest.raises(AdapterRefused, match=words):
        read_lora(write_lora(tmp_path / "lora", change(tensors(shape))), shape)


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


ENTRY = {"dtype": "F32", "shape": [2, 8], "data_offsets": [0, 64]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cannot be read as safetensors"),
        (b"\x80\x04\x95", "larger than 4 MB"),  # a pickle's first bytes
        (header(b"{}", 2**63), "header of adapter_model.safetensors is larger than 4 MB"),
        (header(b"{}", 5_000_000), "larger than 4 MB"),
        (header(b"{}", 100), "cannot be read as safetensors"),
        (header(b"[" * 100_000), "cannot be read as safetensors"),
        (header(json.dumps({A: ENTRY}).encode()) + bytes(32), "cannot be read as safetensors"),
        (header(json.dumps({A: ENTRY}).encode()) + bytes(128), "cannot be read as safetensors"),
        (header(json.dumps({A: ENTRY, B: ENTRY}).encode()) + bytes(64), "cannot be read as safetensors"),
        (header(json.dumps({A: ENTRY | {"shape": [2**40, 2**40]}}).encode()) + bytes(64), "cannot be read"),
        (header(json.dumps({A: ENTRY | {"data_offsets": [-64, 0]}}).encode()) + bytes(64), "cannot be read"),
    ],
)
def test_files_that_are_no_safetensors(tmp_path: Path, shape: BaseShape, data: bytes, words: str) -> None:
    folder = write_lora(tmp_path / "lora", tensors(shape))
    (folder / "adapter_model.safetensors").write_bytes(data)
    with pytest.raises(AdapterRefused, match=words):
        read_lora(folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, shape: BaseShape, name: str) -> None:
    folder = write_lora(tmp_path / "lora", tensors(shape))
    (folder / name).unlink()
    with pytest.raises(AdapterRefused, match=name):
        read_lora(folder)
