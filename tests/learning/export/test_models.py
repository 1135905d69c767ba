"""Merged files compute what base and adapter compute together, and what does not is refused before it leaves.

On a tiny base, where nothing but the merge could differ, and on the default base with its four bits.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.numpy
from made_base import HEADS, HIDDEN, KV_HEADS, LAYERS, loud_tensors, metadata, write_tiny_base
from made_lora import tensors, write_lora

from intern.engines.base import EngineRequest
from intern.engines.llamacpp import LlamaCppEngine
from intern.errors import AdapterRefused
from intern.learning.adapters.gguf_head import read_head
from intern.learning.adapters.gguf_lora import GGUF, convert
from intern.learning.adapters.lora import Lora, read_lora
from intern.learning.adapters.shapes import read_shape
from intern.learning.export import gguf_model, merge, work
from intern.learning.export.formats import Agreement, ExportJob, Format, Prompt
from intern.learning.export.greedy import Greedy, LlamaCppReader, TorchReader
from intern.learning.export.spans import field_spans
from intern.learning.train.base import unpacked
from intern.skill import read_skill
from intern.types import Message, Sampling

# PEFT asks transformers by a name that is about to go.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

PROJECT = Path(__file__).parents[3]
REQUESTS = ("Name three colours.", "What is a bank account?", "How do I boil an egg?")


def prompts(requests: Sequence[str] = REQUESTS) -> list[Prompt]:
    system = Message(role="system", content="Answer briefly.")
    return [Prompt(id=r, messages=(system, Message(role="user", content=r))) for r in requests]


class Made:
    """A base with an adapter, and what the two of them answer."""

    def __init__(
        self,
        base: Path,
        weights: dict[str, np.ndarray],
        folder: Path,
        asked: Sequence[Prompt] = prompts(),
        **config: Any,
    ) -> None:
        self.base = base
        self.asked = asked
        self.shape = read_shape(base)
        self.folder = folder
        self.lora = read_lora(write_lora(folder / "lora", weights, **config), self.shape)
        convert(self.lora, self.shape, folder / "lora" / GGUF)
        self.originals = asyncio.run(self._originals())
        self._written: dict[Format, Path] = {}

    def job(self, format: Format) -> ExportJob:
        return ExportJob(
            format=format,
            name="task@v1",
            adapter=str(self.lora.folder),
            base=str(self.base),
            cache=str(self.folder / "cache"),
            context=512,
            threads=2,
            answer_tokens=24,
            generation={"do_sample": False},
            metadata={"general.name": "Task (task@v1)"},
            stem="task-v1",
        )

    async def _originals(self) -> list[work.Original]:
        job = self.job("peft")
        return await work.originals_of(job, self.lora, self.shape, self.asked, self.folder, lambda event: None)

    def write(self, format: Format, target: Path, lora: Lora | None = None) -> None:
        target.mkdir()
        work.write(self.job(format), lora or self.lora, self.shape, target)

    def written(self, format: Format) -> Path:
        """The export, made once."""
        if format not in self._written:
            self.write(format, self.folder / format)
            self._written[format] = self.folder / format
        return self._written[format]

    def copied(self, format: Format, target: Path) -> Path:
        """The export, to be harmed."""
        return Path(shutil.copytree(self.written(format), target))

    def compare(self, format: Format, target: Path) -> Agreement:
        job = self.job(format)
        return asyncio.run(work.compare(job, target, self.asked, self.originals, lambda event: None))


@pytest.fixture(scope="module")
def tiny(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("tiny")
    base = write_tiny_base(model_path, folder / "tiny.gguf")
    return Made(base, loud_tensors(read_shape(base)), folder)


# --- on a tiny base --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def merged_by_peft(tiny: Made) -> dict[str, np.ndarray]:
    """What PEFT makes of the same base and adapter, in float32."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(unpacked(tiny.base, tiny.folder / "cache", always=True))
    merged = PeftModel.from_pretrained(base, str(tiny.lora.folder)).merge_and_unload()
    return {name: values.numpy() for name, values in merged.state_dict().items() if name != "lm_head.weight"}


def test_a_merged_folder_holds_what_peft_merges(
    tiny: Made, merged_by_peft: dict[str, np.ndarray], tmp_path: Path
) -> None:
    base = unpacked(tiny.base, tiny.folder / "cache", always=True)
    merge.write_merged(base, tiny.lora, tmp_path, dtype="float32", generation={})
    found = safetensors.numpy.load_file(tmp_path / merge.WEIGHTS)
    assert found.keys() == merged_by_peft.keys()
    before = safetensors.numpy.load_file(base / merge.WEIGHTS)
    for name, values in merged_by_peft.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6, err_msg=name)
        assert ("proj" in name) == bool(np.abs(found[name] - before[name]).max() > 0.1), name


def test_a_merged_gguf_file_holds_the_same_in_llamacpps_order(
    tiny: Made, merged_by_peft: dict[str, np.ndarray]
) -> None:
    head = read_head(tiny.written("gguf-f16") / "task-v1.f16.gguf")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    assert len(head.tensors) == len(merged_by_peft)
    for name, values in merged_by_peft.items():
        found = head.values(str(names.get_name(name, (".weight",))))
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            found = found[in_transformers_order(HEADS if "q_proj" in name else KV_HEADS)]
        np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e-5, err_msg=name)


def in_transformers_order(heads: int) -> list[int]:
    """Row by row where llama.cpp keeps it: in each head the even ones first, then the odd ones."""
    size = HIDDEN // HEADS
    return [head * size + 2 * i + half for head in range(heads) for half in (0, 1) for i in range(size // 2)]


@pytest.mark.parametrize("format", ["peft", "merged", "gguf-f16", "gguf-q8_0"])
def test_an_export_keeps_what_was_learned(tiny: Made, format: Format) -> None:
    found = tiny.compare(format, tiny.written(format))
    assert found.problem is None, found
    assert found.same_prompts == found.examples == len(REQUESTS)
    assert found.changed > 10, "the adapter must say something of its own"


def test_a_merged_folder_says_nothing_of_this_machine(tiny: Made) -> None:
    folder = tiny.written("merged")
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    for path in folder.glob("*.json"):
        assert str(tiny.folder) not in path.read_text(), path.name
        assert "local" not in path.read_text() or path.name == "tokenizer.json", path.name
    config = json.loads((folder / "config.json").read_text())
    assert (config["dtype"], config["rope_theta"]) == ("bfloat16", 100_000.0)
    assert json.loads((folder / "generation_config.json").read_text()) == {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "do_sample": False,
    }


@pytest.mark.parametrize(
    ("format", "numbers", "kind"),
    [("gguf-f16", "f16", "F16"), ("gguf-q8_0", "q8_0", "Q8_0"), ("gguf-q4_0", "q4_0", "Q4_0")],
)
def test_a_merged_gguf_file_is_the_base_but_for_the_weights(
    tiny: Made, format: Format, numbers: gguf_model.Numbers, kind: str
) -> None:
    file = tiny.written(format) / f"task-v1.{numbers}.gguf"
    assert file.stat().st_size <= gguf_model.merged_bytes(tiny.base, tiny.lora, numbers)
    before, after = read_head(tiny.base), read_head(file)
    assert after.metadata == {
        **{
            key: value
            for key, value in before.metadata.items()
            if key not in ("general.size_label", "general.finetune")
        },
        "general.name": "Task (task@v1)",
        "general.file_type": gguf.LlamaFileType[f"MOSTLY_{kind}"],
    }
    types = {name: gguf.GGMLQuantizationType(tensor.kind).name for name, tensor in after.tensors.items()}
    assert {name: tensor.shape for name, tensor in after.tensors.items()} == {
        name: tensor.shape for name, tensor in before.tensors.items()
    }
    assert types["blk.0.attn_norm.weight"] == types["output_norm.weight"] == "F32"
    assert types["blk.1.ffn_down.weight"] == types["blk.0.attn_q.weight"] == kind
    assert types["token_embd.weight"] == ("Q8_0" if kind == "Q4_0" else kind)
    template = (file.parent / "chat_template.jinja").read_text()
    assert template == before.metadata["tokenizer.chat_template"]


def test_gguf_itself_reads_the_file_with_its_whole_vocabulary(tiny: Made) -> None:
    before, after = (
        {key: value for key, value, *_ in metadata(file)}
        for file in (tiny.base, tiny.written("gguf-q8_0") / "task-v1.q8_0.gguf")
    )
    for key in ("tokens", "token_type", "merges"):
        assert after[f"tokenizer.ggml.{key}"] == before[f"tokenizer.ggml.{key}"]
        assert len(after[f"tokenizer.ggml.{key}"]) > 48_000


@pytest.mark.parametrize(
    ("format", "factor", "reason"),
    [("merged", 1e25, "not finite"), ("gguf-f16", 3e3, "beyond float16")],
)
def test_weights_that_overflow_are_refused(
    tiny: Made, format: Format, factor: float, reason: str, tmp_path: Path
) -> None:
    weights = {name: values * np.float32(factor) for name, values in loud_tensors(tiny.shape).items()}
    lora = read_lora(write_lora(tmp_path / "lora", weights), tiny.shape)
    with pytest.raises(AdapterRefused, match=reason):
        tiny.write(format, tmp_path / "out", lora)


def test_a_weight_that_was_wiped_out_is_refused(tiny: Made) -> None:
    ones, zeros = np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)
    merge.check_sound("w", ones, 2 * ones, tiny.lora)
    merge.check_sound("w", zeros, zeros, tiny.lora)
    with pytest.raises(AdapterRefused, match="zero throughout"):
        merge.check_sound("w", ones, zeros, tiny.lora)


# --- what is refused -------------------------------------------------------------------------------------------


def overwritten(file: Path, value: float) -> None:
    """Every matrix of the layers of a float16 file becomes `value`."""
    for name, tensor in read_head(file).tensors.items():
        if name.startswith("blk.") and len(tensor.shape) == 2:
            np.memmap(file, np.float16, "r+", tensor.offset, tensor.shape)[:] = value


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_file_of_zeros_or_of_no_numbers_is_refused(tiny: Made, value: float, tmp_path: Path) -> None:
    folder = tiny.copied("gguf-f16", tmp_path / "out")
    overwritten(folder / "task-v1.f16.gguf", value)
    assert refusal(tiny, "gguf-f16", folder)


def test_merged_weights_that_are_no_numbers_are_refused(tiny: Made, tmp_path: Path) -> None:
    folder = tiny.copied("merged", tmp_path / "out")
    with (folder / merge.WEIGHTS).open("r+b") as file:
        file.seek(-64, 2)
        file.write(b"\xff" * 64)
    with pytest.raises(AdapterRefused, match="not finite"):
        tiny.compare("merged", folder)


def test_a_file_without_the_adapter_is_refused_though_it_speaks_well(tiny: Made, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    shutil.copyfile(tiny.base, tmp_path / "out" / "task-v1.f16.gguf")
    found = tiny.compare("gguf-f16", tmp_path / "out")
    assert found.learned == 0
    assert "it keeps" in str(found.problem)


def test_another_chat_template_is_refused(tiny: Made, tmp_path: Path) -> None:
    folder = tiny.copied("merged", tmp_path / "out")
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>", ""))
    assert "tokenizer or chat template" in refusal(tiny, "merged", folder)


def test_a_file_that_is_cut_off_is_refused(tiny: Made, tmp_path: Path) -> None:
    folder = tiny.copied("gguf-q8_0", tmp_path / "out")
    file = folder / "task-v1.q8_0.gguf"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert "cannot be run" in refusal(tiny, "gguf-q8_0", folder)


def refusal(made: Made, format: Format, folder: Path) -> str:
    try:
        return made.compare(format, folder).problem or ""
    except AdapterRefused as error:
        return error.message


@pytest.mark.parametrize(
    ("format", "numbers", "problem"),
    [
        ("gguf-q8_0", {}, None),
        ("gguf-q8_0", {"tokens": 0.89}, "89.0% of the next tokens"),
        ("gguf-q8_0", {"fields": 0.5}, "50.0% of the fields"),
        ("gguf-q8_0", {"learned": 0.4}, "40.0% of what the adapter learned"),
        ("gguf-q8_0", {"learned": 0.0, "changed": 19}, None),
        ("gguf-q8_0", {"same_prompts": 19}, "1 of 20 prompts"),
        ("gguf-q4_0", {"tokens": 0.85, "learned": 0.7, "fields": 0.75}, None),
        ("gguf-q4_0", {"tokens": 0.7}, "Take gguf-q8_0"),
    ],
)
def test_what_an_export_must_keep_depends_on_its_format(
    format: Format, numbers: dict[str, Any], problem: str | None
) -> None:
    good = {"examples": 20, "same_prompts": 20, "tokens": 0.99, "exact": 0.9, "changed": 100, "learned": 0.98}
    found = Agreement.model_validate({"format": format, **good, "fields": 0.95, **numbers}).problem
    assert found == problem if problem is None else problem in str(found)


# --- reading ---------------------------------------------------------------------------------------------------


def test_llamacpp_and_torch_make_the_same_choices_along_an_answer(tiny: Made) -> None:
    """Along an answer that neither would give, so that both part from it at once."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = unpacked(tiny.base, tiny.folder / "cache", always=True)
    in_torch = TorchReader(AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))

    async def read() -> tuple[list[int], list[int], list[int]]:
        reader = LlamaCppReader(tiny.base, adapter=None, context=512, threads=2, gpu_layers=-1)
        await reader.start()
        try:
            prompt = await reader.prompt_ids(prompts()[0].messages)
            assert prompt == await in_torch.prompt_ids(prompts()[0].messages)
            answer = list(range(768, 768 * 20, 768))
            return answer, await reader.choices(prompt, answer), await in_torch.choices(prompt, answer)
        finally:
            await reader.close()

    answer, ours, theirs = asyncio.run(read())
    assert ours == theirs
    assert len(ours) == len(answer)
    assert ours != answer


def test_the_pieces_of_an_answer_are_its_text(tiny: Made) -> None:
    text = '{"name": "Zoë 🙂", "kind": "b"}'

    async def read() -> tuple[list[bytes], list[bytes]]:
        reader = LlamaCppReader(tiny.base, adapter=None, context=512, threads=2, gpu_layers=-1)
        await reader.start()
        try:
            ids = (await reader._post("/tokenize", {"content": text}))["tokens"]
            return await reader.pieces(Greedy([*ids, 2], text)), await reader.pieces(Greedy([7, 2], text))
        finally:
            await reader.close()

    pieces, otherwise = asyncio.run(read())
    assert b"".join(pieces) == text.encode()
    assert pieces[-1] == b""
    assert otherwise == [text.encode(), b""], "written in other tokens than the tokenizer would take"


def test_a_field_is_where_its_value_stands() -> None:
    text = '{"name": "Zoë", "kind": "bad", "rest": 1}'
    pieces = [
        b'{"',
        b"name",
        b'":',
        b' "Zo',
        b"\xc3",
        b"\xab",
        b'", "',
        b"kind",
        b'": "',
        b"bad",
        b'", "rest',
        b'": 1',
        b"}",
        b"",
    ]
    assert field_spans(text, pieces, ("kind",)) == [(8, 11)]
    assert field_spans(text, pieces, ("name", "rest", "absent")) == [(3, 7), (11, 12)]
    assert field_spans("no JSON", [b"no ", b"JSON"], ("kind",)) == [(0, 2)]
    assert field_spans('{"kind":"bad"}', [b'{"kind":"bad"}', b""], ("kind",)) == [(0, 2)]
    assert field_spans(text, [b"other"], ("kind",)) == [(0, 1)]


# --- the default base ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def default(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The default base with a random adapter, which changes about every fourth token that it says."""
    shape = read_shape(model_path)
    weights = {
        name: values * np.float32(0.04 if "lora_A" in name else 0.06) for name, values in tensors(shape, rank=8).items()
    }
    return Made(model_path, weights, tmp_path_factory.mktemp("default"), r=8, lora_alpha=16)


async def first_logprobs(engine: LlamaCppEngine, adapter: str | None) -> list[dict[str, float]]:
    """Of the 20 likeliest first tokens of each answer."""
    await engine.start()
    try:
        found = []
        for prompt in prompts():
            sampling = Sampling(temperature=0.0, max_tokens=1, logprobs=True, top_logprobs=20)
            request = EngineRequest(messages=prompt.messages, sampling=sampling, adapter=adapter)
            async with aclosing(engine.generate(request)) as tokens:
                entries = [entry async for token in tokens for entry in token.logprobs]
            found.append({top["token"]: top["logprob"] for top in entries[0]["top_logprobs"]})
        return found
    finally:
        await engine.close()


def distance(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> float:
    """Mean difference of log-probability over the tokens that are among the likeliest of both."""
    pairs = [(a[token], b[token]) for a, b in zip(ours, theirs, strict=True) for token in a.keys() & b.keys()]
    return float(np.mean([abs(a - b) for a, b in pairs]))


@pytest.mark.trains
def test_on_the_default_base_a_merged_file_is_as_near_as_noise_allows(default: Made) -> None:
    """llama.cpp rounds activations to 8 bits before it multiplies them with weights in 4 bits, and not with others."""
    adapters = {"adapter": str(default.lora.folder / GGUF)}
    file = default.written("gguf-f16") / "task-v1.f16.gguf"

    def engine(path: Path, adapters: dict[str, str]) -> LlamaCppEngine:
        return LlamaCppEngine(path, model="m", context=512, slots=1, adapters=adapters)

    expected = asyncio.run(first_logprobs(engine(default.base, adapters), "adapter"))
    bare = distance(expected, asyncio.run(first_logprobs(engine(default.base, {}), None)))
    assert distance(expected, asyncio.run(first_logprobs(engine(file, {}), None))) < 0.25 * bare
    agreement = default.compare("gguf-f16", file.parent)
    assert agreement.changed > 10
    assert agreement.problem is None, agreement


@pytest.mark.trains
def test_four_bits_keep_an_adapter_that_was_really_trained(model_path: Path, tmp_path: Path) -> None:
    """That of a starter skill, on the beginnings of its answers to tickets that it was not trained on."""
    skill = read_skill(PROJECT / "skills" / "support-triage")
    (trained,) = (path for path in PROJECT.glob("adapters/*/manifest.json") if '"support-triage"' in path.read_text())
    folder = trained.parent
    system = Message(role="system", content=skill.spec.instructions.strip())
    heldout = [example.text for example in skill.examples if example.split == "heldout"]
    tickets = sorted(heldout, key=len)[:4]
    asked = [Prompt(id=text, messages=(system, Message(role="user", content=text))) for text in tickets]
    config = json.loads((folder / "adapter_config.json").read_text())
    made = Made(
        model_path,
        safetensors.numpy.load_file(folder / "adapter_model.safetensors"),
        tmp_path / "made",
        asked,
        r=config["r"],
        lora_alpha=config["lora_alpha"],
    )
    found = made.compare("gguf-q4_0", made.written("gguf-q4_0"))
    assert found.problem is None, found
    assert found.changed > 20, "the adapter must say something of its own"


def test_four_bits_that_lose_a_faint_adapter_are_refused(default: Made) -> None:
    """The default base has four bits already, and an adapter that changes little is lost in rounding them again."""
    found = default.compare("gguf-q4_0", default.written("gguf-q4_0"))
    assert found.tokens < 0.8, "if four bits became this good, the floors can rise"
    assert "Take gguf-q8_0" in str(found.problem)
