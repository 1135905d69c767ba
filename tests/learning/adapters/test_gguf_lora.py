"""What llama.cpp computes with a converted LoRA is what transformers and PEFT compute with the original.

Shown twice: on tiny random models in float32, where hardly anything but the LoRA could differ, for every architecture
and kind of LoRA; and on the default base, whose quantisation adds noise of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from made_lora import TARGETS, base_shape, tensors, write_lora

from intern.engines.llamacpp import LlamaCppEngine
from intern.errors import AdapterRefused, StoreFailure
from intern.learning.adapters.gguf_head import read_head
from intern.learning.adapters.gguf_lora import check_gguf, convert, interleaved
from intern.learning.adapters.lora import read_lora
from intern.learning.adapters.shapes import gguf_name, read_shape

# PEFT asks transformers by a name that is about to go.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

Logprobs = npt.NDArray[np.float64]  # of the next token, float64 of shape (vocabulary,)

VOCABULARY = 300
PROMPTS = (
    "The capital of France is",
    "def add(a, b):\n    return",
    "Please cancel my order number 4711 and",
    "Water boils at",
    "My bank card was stolen, so I",
    "In 1969 the first man",
)
TINY_PROMPTS = ([65, 72, 101, 108, 111], list(range(97, 107)), list(range(40, 100)))
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "queries and keys": {"target_modules": ["q_proj", "k_proj"]},
    "rank-stabilised": {"use_rslora": True},
    "by module": {
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 3},
        "alpha_pattern": {"down_proj": 3, "k_proj": 16},
    },
}


def peft_folder(model: Any, folder: Path, *, spread: float, **config: Any) -> Path:
    """A LoRA with random weights, as PEFT saves it."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    options = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM", **config}
    adapted = get_peft_model(model, LoraConfig(**options))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=spread)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    adapted.unload()
    return folder


def by_torch(model: Any, folder: Path | None, prompts: Sequence[Sequence[int]]) -> list[Logprobs]:
    import torch
    from peft import PeftModel

    used = model
    if folder is not None:
        used = PeftModel.from_pretrained(model, folder)
    with torch.no_grad():
        found = [torch.log_softmax(used(torch.tensor([ids])).logits[0, -1].double(), -1).numpy() for ids in prompts]
    if folder is not None:
        used.unload()
    return found


async def by_llamacpp(
    engine: LlamaCppEngine, adapter: str | None, prompts: Sequence[Sequence[int]], best: int
) -> list[dict[int, float]]:
    """Log-probabilities of the `best` most likely next tokens, by token id."""
    server = engine._server()
    found = []
    for ids in prompts:
        body = {"prompt": list(ids), "n_predict": 1, "n_probs": best, "temperature": 0, "cache_prompt": False}
        answer = (await server.http.post("/completion", json=body | server.choose(adapter))).json()
        (token,) = answer["completion_probabilities"]
        found.append({entry["id"]: entry["logprob"] for entry in token["top_logprobs"]})
    return found


def ask(
    path: Path, adapters: Mapping[str, Path], prompts: Sequence[Any], best: int
) -> tuple[list[list[int]], dict[str | None, list[dict[int, float]]]]:
    """Token ids of the prompts, and by adapter (None: the base) what llama.cpp says to them."""

    async def main() -> tuple[list[list[int]], dict[str | None, list[dict[int, float]]]]:
        files = {name: str(file) for name, file in adapters.items()}
        engine = LlamaCppEngine(path, model="m", context=256, slots=1, adapters=files)
        await engine.start()
        try:
            http = engine._server().http
            ids = [
                prompt
                if isinstance(prompt, list)
                else (await http.post("/tokenize", json={"content": prompt})).json()["tokens"]
                for prompt in prompts
            ]
            return ids, {name: await by_llamacpp(engine, name, ids, best) for name in (None, *adapters)}
        finally:
            await engine.close()

    return asyncio.run(main())


# --- tiny models in float32 ------------------------------------------------------------------------------------


def tiny_model(kind: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "head_dim": 32 if kind == "qwen3" else 16,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "pad_token_id": 257,
        "tie_word_embeddings": False,
    }
    configs = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(configs[kind](**sizes)).eval()
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.15)
    return model


def write_model(model: Any, path: Path) -> None:
    """The model as a GGUF file in float32, with a vocabulary of single characters."""
    kind = model.config.model_type
    arch = "llama" if kind == "mistral" else kind
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    size = model.config.head_dim if kind == "qwen3" else 16
    writer = gguf.GGUFWriter(path, arch)
    writer.add_type("model")
    writer.add_block_count(2)
    writer.add_context_length(256)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    printable = range(33, 127)
    letters = [chr(byte) if byte in printable else chr(256 + byte) for byte in range(128)]
    rest = [f"w{number}" for number in range(VOCABULARY - 130)]
    writer.add_token_list([*letters, *rest[:128], "<s>", "</s>", *rest[128:]])
    writer.add_token_types([1] * 256 + [3] * 2 + [1] * (VOCABULARY - 258))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_add_bos_token(False)
    names = gguf.get_tensor_name_map(number, 2)
    for name, values in model.state_dict().items():
        array = values.numpy()
        if arch == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            array = reordered(array, 4 if "q_proj" in name else 2)
        known = names.get_name(name, (".weight", ".bias"))
        assert known is not None, name
        writer.add_tensor(known, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def reordered(rows: np.ndarray, heads: int) -> np.ndarray:
    """Row by row what llama.cpp expects: coordinate i of a head's first half, then coordinate i of its second."""
    size = len(rows) // heads
    order = [head * size + half * size // 2 + i for head in range(heads) for i in range(size // 2) for half in (0, 1)]
    return rows[order]


def test_queries_and_keys_are_put_in_llamacpps_order() -> None:
    rows = np.arange(48, dtype=np.float32).reshape(24, 2)
    np.testing.assert_array_equal(interleaved(rows, 3), reordered(rows, 3))


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_converted_lora_computes_the_same(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    path = tmp_path / "base.gguf"
    write_model(model, path)
    model.save_pretrained(tmp_path / "base")
    shape = read_shape(path)
    assert shape == read_shape(tmp_path / "base")
    folders, files = {}, {}
    for name, config in KINDS.items():
        folders[name] = peft_folder(model, tmp_path / name, spread=0.3, **config)
        lora = read_lora(folders[name], shape)
        for dtype in ("f32", "f16"):
            file = files[f"{name}, {dtype}"] = tmp_path / name / f"{dtype}.gguf"
            convert(lora, shape, file, dtype=dtype)
            check_gguf(file, lora)
    _, answers = ask(path, files, TINY_PROMPTS, VOCABULARY)
    base = by_torch(model, None, TINY_PROMPTS)
    noise = difference(base, answers[None])
    assert noise < 0.05
    for name, folder in folders.items():
        expected = by_torch(model, folder, TINY_PROMPTS)
        effect = max(float(np.abs(a - b).max()) for a, b in zip(expected, base, strict=True))
        assert effect > 1, name
        assert difference(expected, answers[f"{name}, f32"]) < 0.05, name
        assert difference(expected, answers[f"{name}, f16"]) < 0.1, name


def difference(expected: Sequence[Logprobs], found: Sequence[Mapping[int, float]]) -> float:
    """The largest difference of any token's log-probability."""
    return max(
        abs(float(value) - theirs[token])
        for ours, theirs in zip(expected, found, strict=True)
        for token, value in enumerate(ours)
    )


# --- the default base ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def default_base(model_path: Path) -> Any:
    """The default base in PyTorch, with the very values of the quantised file."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    return AutoModelForCausalLM.from_pretrained(
        model_path.parent,
        gguf_file=model_path.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    ).eval()


@pytest.mark.trains
def test_on_the_default_base_a_lora_adds_no_more_noise_than_there_is(
    default_base: Any, model_path: Path, tmp_path: Path
) -> None:
    """llama.cpp rounds activations to 8 bits before it multiplies them with 4-bit weights; PyTorch here does not."""
    shape = read_shape(model_path)
    folders = {
        "all": peft_folder(default_base, tmp_path / "all", spread=0.4),
        "queries and keys": peft_folder(default_base, tmp_path / "qk", spread=1.2, target_modules=["q_proj", "k_proj"]),
    }
    files = {}
    for name, folder in folders.items():
        files[name] = folder / "adapter.gguf"
        convert(read_lora(folder, shape), shape, files[name])
    ids, answers = ask(model_path, files, PROMPTS, 200)
    base = by_torch(default_base, None, ids)
    noise = closeness(base, answers[None])
    assert noise < 0.2
    for name, folder in folders.items():
        expected = by_torch(default_base, folder, ids)
        effect = np.mean([np.abs(a - b)[a.argsort()[-20:]].mean() for a, b in zip(expected, base, strict=True)])
        assert effect > 10 * noise, name
        assert closeness(expected, answers[name]) < 2 * noise, name
        for ours, theirs in zip(expected, answers[name], strict=True):
            choice = max(theirs, key=theirs.__getitem__)
            assert ours.max() - ours[choice] < 0.5, name  # the same first token, or one as good


def closeness(expected: Sequence[Logprobs], found: Sequence[Mapping[int, float]]) -> float:
    """Mean difference of log-probability over the 20 tokens that PyTorch finds most likely."""
    return float(
        np.mean(
            [
                abs(ours[token] - theirs[int(token)])
                for ours, theirs in zip(expected, found, strict=True)
                for token in ours.argsort()[-20:]
            ]
        )
    )


# --- the file --------------------------------------------------------------------------------------------------


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    shape = base_shape(tmp_path / "base")
    lora = read_lora(write_lora(tmp_path / "lora", tensors(shape), use_rslora=True), shape)
    convert(lora, shape, tmp_path / "adapter.gguf")
    head = read_head(tmp_path / "adapter.gguf")
    assert head.metadata == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": pytest.approx(4 * 2**0.5),
    }
    assert len(head.tensors) == 2 * len(shape.modules)
    assert head.tensors["blk.1.ffn_down.weight.lora_a"].shape == (2, 12)
    assert head.tensors["blk.1.ffn_down.weight.lora_b"].shape == (8, 2)
    b = dict(lora.pairs())["model.layers.1.mlp.down_proj"].b
    np.testing.assert_array_equal(head.values("blk.1.ffn_down.weight.lora_b"), b)  # alpha carries all of the scale


def test_values_beyond_half_precision_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    shape = base_shape(tmp_path / "base")
    weights = {name: value * 1e6 for name, value in tensors(shape).items()}
    lora = read_lora(write_lora(tmp_path / "lora", weights), shape)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(AdapterRefused, match="Convert it as f32"):
        convert(lora, shape, tmp_path / "adapter.gguf", dtype="f16")
    assert sorted(tmp_path.rglob("*")) == before
    convert(lora, shape, tmp_path / "adapter.gguf")


def test_a_folder_that_cannot_be_written_is_a_store_failure(tmp_path: Path) -> None:
    shape = base_shape(tmp_path / "base")
    lora = read_lora(write_lora(tmp_path / "lora", tensors(shape)), shape)
    with pytest.raises(StoreFailure, match="cannot be written"):
        convert(lora, shape, tmp_path / "absent" / "adapter.gguf")


# --- what lies beside an adapter of unknown origin ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize("how", [{}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 3, "layers.1.mlp.up_proj": 7}}])
def test_what_was_converted_here_has_the_values_of_the_adapter(
    tmp_path: Path, how: dict[str, object], dtype: Literal["f32", "f16"]
) -> None:
    shape = base_shape(tmp_path / "base")
    lora = read_lora(write_lora(tmp_path / "lora", tensors(shape), **how), shape)
    convert(lora, shape, tmp_path / "adapter.gguf", dtype=dtype)
    check_gguf(tmp_path / "adapter.gguf", lora, shape)
    head = read_head(tmp_path / "adapter.gguf")
    alpha = head.metadata["adapter.lora.alpha"]
    assert isinstance(alpha, float)
    for module, pair in lora.pairs():
        a, b = (head.values(f"{gguf_name(module)}.lora_{half}").astype(np.float32) for half in "ab")
        heads = {"q_proj": shape.heads, "k_proj": shape.kv_heads}.get(module.rpartition(".")[2])
        rows = pair.b if heads is None else reordered(pair.b, heads)
        expected = pair.scale * rows @ pair.a
        np.testing.assert_allclose(alpha / pair.rank * b @ a, expected, rtol=0, atol=0.02 if dtype == "f16" else 1e-4)


def test_a_file_with_other_values_is_refused(tmp_path: Path) -> None:
    shape = base_shape(tmp_path / "base")
    weights = tensors(shape)
    lora = read_lora(write_lora(tmp_path / "lora", weights), shape)
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"
    for value in (weights[name][0, 0] * 1.01, 0.0, 1e30):
        weights[name][0, 0] = value
        other = read_lora(write_lora(tmp_path / "other", weights), shape)
        convert(other, shape, tmp_path / "adapter.gguf")
        with pytest.raises(
            AdapterRefused, match=r"blk\.1\.ffn_down\.weight\.lora_a has other values than adapter_model"
        ):
            check_gguf(tmp_path / "adapter.gguf", lora, shape)


def test_a_file_of_the_same_ranks_for_a_base_of_other_sizes_is_refused(tmp_path: Path) -> None:
    shape = base_shape(tmp_path / "base")
    wider = replace(shape, modules={module: (rows, columns + 4) for module, (rows, columns) in shape.modules.items()})
    lora = read_lora(write_lora(tmp_path / "lora", tensors(shape)), shape)
    convert(read_lora(write_lora(tmp_path / "other", tensors(wider)), wider), wider, tmp_path / "adapter.gguf")
    with pytest.raises(AdapterRefused, match=r"lora_a has the shape \(2, 16\), not \(2, 12\)"):
        check_gguf(tmp_path / "adapter.gguf", lora)
