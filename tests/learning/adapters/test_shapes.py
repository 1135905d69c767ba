"""The head of a GGUF file and the shape of a base model: what is read, and what damaged files do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_lora import CONFIG, base_folder

from intern.errors import ModelUnavailable
from intern.learning.adapters.gguf_head import BrokenHead, read_head
from intern.learning.adapters.shapes import MODULES, gguf_name, read_shape


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file with every kind of metadata, and two tensors."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_float32("a.float", 0.5)
    writer.add_bool("a.bool", True)
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_token_list(["one", "two"])
    writer.add_tensor("blk.0.attn_q.weight", np.arange(24, dtype=np.float32).reshape(4, 6))
    writer.add_tensor("output_norm.weight", np.arange(6, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_head_says_the_same_as_ggufs_own_reader(model_path: Path) -> None:
    head, reader = read_head(model_path), gguf.GGUFReader(model_path)
    theirs = {t.name: (tuple(map(int, t.shape[::-1])), int(t.tensor_type), t.data_offset) for t in reader.tensors}
    assert {name: (t.shape, t.kind, t.offset) for name, t in head.tensors.items()} == theirs
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert head.metadata.keys() == fields.keys()
    for name, value in head.metadata.items():
        assert value is None or value == fields[name].contents()
    assert head.metadata["tokenizer.ggml.tokens"] is None


def test_values_are_read_where_they_lie(small: Path) -> None:
    head = read_head(small)
    assert (head.values("blk.0.attn_q.weight") == np.arange(24).reshape(4, 6)).all()
    assert (head.values("output_norm.weight") == np.arange(6)).all()
    assert (head.metadata["a.float"], head.metadata["a.bool"], head.metadata["a.numbers"]) == (0.5, True, None)


def test_quantised_values_are_not_read(model_path: Path) -> None:
    with pytest.raises(BrokenHead, match="neither float32 nor float16"):
        read_head(model_path).values("blk.0.attn_q.weight")


def read_all(path: Path) -> None:
    head = read_head(path)
    for name in head.tensors:
        head.values(name)


def test_a_file_cut_off_anywhere_is_broken_and_nothing_worse(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    end = read_head(small).tensors["output_norm.weight"].offset + 6 * 2  # padding follows
    cut = tmp_path / "cut.gguf"
    for length in range(end):
        cut.write_bytes(whole[:length])
        with pytest.raises(BrokenHead):
            read_all(cut)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(min_value=0), value=st.binary(min_size=1, max_size=8))
def test_changed_bytes_are_read_or_refused(small: Path, tmp_path: Path, place: int, value: bytes) -> None:
    data = bytearray(small.read_bytes())
    place %= len(data) - 8
    data[place : place + len(value)] = value
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(data)
    try:
        head = read_head(changed)
    except BrokenHead:
        return
    assert len(head.tensors) <= 2


def test_a_default_base_has_seven_modules_a_layer(model_path: Path) -> None:
    shape = read_shape(model_path)
    assert (shape.architecture, shape.layers, shape.heads, shape.kv_heads) == ("llama", 30, 9, 3)
    assert len(shape.modules) == 30 * 7
    assert shape.modules["model.layers.29.self_attn.k_proj"] == (192, 576)
    assert shape.modules["model.layers.0.mlp.down_proj"] == (576, 1536)


def test_a_folder_with_wide_heads(tmp_path: Path) -> None:
    folder = base_folder(tmp_path)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"model_type": "qwen3", "head_dim": 6}))
    shape = read_shape(folder)
    assert shape.modules["model.layers.1.self_attn.q_proj"] == (12, 8)
    assert shape.modules["model.layers.1.self_attn.k_proj"] == (6, 8)
    assert shape.modules["model.layers.1.self_attn.o_proj"] == (8, 12)
    assert shape.architecture == "qwen3"


@pytest.mark.parametrize("arch", [gguf.MODEL_ARCH.LLAMA, gguf.MODEL_ARCH.QWEN2, gguf.MODEL_ARCH.QWEN3])
def test_names_are_those_of_ggufs_own_map(arch: gguf.MODEL_ARCH) -> None:
    names = gguf.get_tensor_name_map(arch, 12)
    for module in MODULES:
        full = f"model.layers.11.{module}"
        assert gguf_name(full) == f"{names.get_name(full)}.weight"


def no_file(folder: Path) -> Path:
    return folder / "absent.gguf"


def text(folder: Path) -> Path:
    (folder / "model.gguf").write_text("GGML is another format; this file is none of them")
    return folder / "model.gguf"


def another_architecture(folder: Path) -> Path:
    (folder / "config.json").write_text('{"model_type": "gemma"}')
    return folder


def half_a_config(folder: Path) -> Path:
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": "large"}')
    return folder


def deep(folder: Path) -> Path:
    (folder / "config.json").write_text("[" * 100_000)
    return folder


def part(folder: Path) -> Path:
    writer = gguf.GGUFWriter(folder / "part.gguf", "llama")
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return folder / "part.gguf"


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (no_file, "No such file"),
        (text, "does not begin as a GGUF file"),
        (another_architecture, "architecture 'gemma'"),
        (half_a_config, "not those of a language model"),
        (deep, "not those of a language model"),
        (part, "llama-gguf-split --merge"),
    ],
)
def test_what_is_no_base_model_is_said_so(tmp_path: Path, made: Callable[[Path], Path], words: str) -> None:
    with pytest.raises(ModelUnavailable, match=words):
        read_shape(made(tmp_path))
