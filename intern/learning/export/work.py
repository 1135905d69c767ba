"""One export, carried out: write the files, then try them against the original on held-out prompts.

In: a job's folder. Out: the folder `export` in it with the model's files, and an `Agreement`. Runs in a process of its
own: it needs the memory of a model, and what loads an untried file may die of it. Knows nothing of the store.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from intern.errors import AdapterRefused, EngineFailure, ModelUnavailable
from intern.learning.adapters.gguf_lora import GGUF, convert
from intern.learning.adapters.lora import CONFIG, WEIGHTS, Lora, read_lora
from intern.learning.adapters.shapes import BaseShape, read_shape
from intern.learning.export import gguf_model, merge
from intern.learning.export.formats import FOLDER, PROMPTS, Agreement, ExportJob, Prompt
from intern.learning.export.greedy import Chooses, LlamaCppReader, TorchReader
from intern.learning.export.spans import field_spans
from intern.learning.train.job import Event, read_lines
from intern.types import Model

Tell = Callable[[Event], None]


class Original(Model):
    """What the adapter answers to one prompt in llama.cpp: `ids` its answer, constrained as serving constrains it,
    `choices` the tokens that it finds most likely along it, `bare` those of the base model without it, `spans` where
    the values of fields lie among them."""

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    choices: tuple[int, ...]
    bare: tuple[int, ...]
    spans: tuple[tuple[int, int], ...] = ()


async def carry_out(folder: Path, job: ExportJob, tell: Tell) -> Agreement:
    """Raises AdapterRefused when a weight is unsound or the export is not faithful; ModelUnavailable, EngineFailure,
    OSError."""
    shape = read_shape(Path(job.base))
    lora = read_lora(Path(job.adapter), shape)
    prompts = list(read_lines(folder / PROMPTS, Prompt))
    target = folder / FOLDER
    tell(Event(kind="stage", stage="write", text=f"writing {job.format}"))
    target.mkdir()
    write(job, lora, shape, target)
    tell(Event(kind="stage", stage="try", text=f"the adapter answers {len(prompts)} held-out examples"))
    originals = await originals_of(job, lora, shape, prompts, folder, tell)
    tell(Event(kind="stage", stage="try", text="the export is compared with it"))
    agreement = await compare(job, target, prompts, originals, tell)
    if agreement.problem is not None:
        raise AdapterRefused(f"the export is refused: {agreement.problem}.", adapter=job.name)
    return agreement


def write(job: ExportJob, lora: Lora, shape: BaseShape, target: Path) -> None:
    """The model's files, into the empty folder `target`."""
    base = Path(job.base)
    if job.format == "peft":
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(lora.folder / name, target / name)
        merge.write_tokenizer(_unpacked(job), target)
    elif job.format == "merged":
        merge.write_merged(_unpacked(job), lora, target, dtype="bfloat16", generation=job.generation)
    else:
        numbers = gguf_model.NUMBERS[job.format]
        file = target / gguf_model.file_name(job.stem, job.format)
        gguf_model.write_merged(base, lora, shape, file, numbers=numbers, metadata=job.metadata)
        (target / merge.CHAT_TEMPLATE).write_text(gguf_model.chat_template(base), encoding="utf-8")


async def originals_of(
    job: ExportJob, lora: Lora, shape: BaseShape, prompts: Sequence[Prompt], folder: Path, tell: Tell
) -> list[Original]:
    """The original's side: base model and adapter in llama.cpp, as they serve."""
    adapter = lora.folder / GGUF
    if not adapter.exists():
        adapter = folder / GGUF
        convert(lora, shape, adapter)
    reader = _llamacpp(job, Path(job.base), adapter)
    await reader.start()
    try:
        found = []
        for done, prompt in enumerate(prompts):
            ids = await reader.prompt_ids(prompt.messages)
            answer = await reader.answer(ids, job.answer_tokens, grammar=job.grammar)
            choices = await reader.choices(ids, answer.ids)
            bare = await reader.choices(ids, answer.ids, bare=True)
            spans = field_spans(answer.text, await reader.pieces(answer), job.fields) if job.fields else ()
            found.append(
                Original(
                    prompt=tuple(ids),
                    ids=tuple(answer.ids),
                    choices=tuple(choices),
                    bare=tuple(bare),
                    spans=tuple(spans),
                )
            )
            tell(Event(kind="answers", stage="try", text="adapter", step=done + 1, steps=len(prompts)))
        return found
    finally:
        await reader.close()


async def compare(
    job: ExportJob, target: Path, prompts: Sequence[Prompt], originals: Sequence[Original], tell: Tell
) -> Agreement:
    """The export's side. Raises AdapterRefused when it cannot even be run."""
    same_prompts = exact = 0
    tokens: list[bool] = []
    learned: list[bool] = []
    fields: list[bool] = []
    try:
        async with _opened(job, target) as reader:
            for done, (prompt, original) in enumerate(zip(prompts, originals, strict=True)):
                same_prompts += tuple(await reader.prompt_ids(prompt.messages)) == original.prompt
                choices = await reader.choices(original.prompt, original.ids)
                same = [ours == theirs for ours, theirs in zip(choices, original.choices, strict=True)]
                tokens += same
                changed = (ours != theirs for ours, theirs in zip(original.choices, original.bare, strict=True))
                learned += [kept for kept, counts in zip(same, changed, strict=True) if counts]
                exact += all(same)
                fields += [all(same[low:high]) for low, high in original.spans]
                tell(Event(kind="answers", stage="try", text="export", step=done + 1, steps=len(prompts)))
    except (EngineFailure, ModelUnavailable) as error:
        raise AdapterRefused(f"the export cannot be run: {error.message}", adapter=job.name) from error
    return Agreement(
        format=job.format,
        examples=len(prompts),
        same_prompts=same_prompts,
        tokens=sum(tokens) / len(tokens) if tokens else 0.0,
        exact=exact / len(prompts) if prompts else 0.0,
        changed=len(learned),
        learned=sum(learned) / len(learned) if learned else None,
        fields=sum(fields) / len(fields) if fields else None,
    )


# --- inside ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _opened(job: ExportJob, target: Path) -> AsyncIterator[Chooses]:
    """The export, as those who get it would load it."""
    if job.format not in gguf_model.NUMBERS:
        yield _in_torch(job, target)
        return
    reader = _llamacpp(job, target / gguf_model.file_name(job.stem, job.format), None)
    await reader.start()
    try:
        yield reader
    finally:
        await reader.close()


def _llamacpp(job: ExportJob, path: Path, adapter: Path | None) -> LlamaCppReader:
    return LlamaCppReader(path, adapter=adapter, context=job.context, threads=job.threads, gpu_layers=job.gpu_layers)


def _in_torch(job: ExportJob, target: Path) -> TorchReader:
    import torch
    from peft import PeftModel
    from transformers import logging

    from intern.learning.train.base import choose_device, load_model, load_tokenizer

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(job.threads)
    device, _ = choose_device()
    tokenizer = load_tokenizer(target)
    if job.format == "merged":
        return TorchReader(load_model(target, bits=None, device=device), tokenizer)
    model = load_model(_unpacked(job), bits=None, device=device)
    return TorchReader(PeftModel.from_pretrained(model, str(target)), tokenizer)


def _unpacked(job: ExportJob) -> Path:
    """The base as the trainer has it."""
    from intern.learning.train.base import unpacked

    return unpacked(Path(job.base), Path(job.cache), always=True)
