"""One training from job to adapter: device, base, rows, stages, the adapter's folder."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import logging as transformers_logging
from transformers import set_seed

from intern.errors import InvalidInput
from intern.learning.train import disk, stages
from intern.learning.train import job as jobs
from intern.learning.train.base import (
    choose_device,
    hold_in_bfloat16,
    load_model,
    load_tokenizer,
    multiplies_in_bfloat16,
    quantisation_warning,
    unpacked,
)
from intern.learning.train.job import Event, Job, Prompt, Row, some
from intern.learning.train.recipe import Recipe, check_texts
from intern.learning.train.tokens import Tokenised, chunks, prompt_ids, tokenise


def run(folder: Path, job: Job, tell: stages.Tell) -> None:
    """Carry out `job`. Raises InvalidInput, ModelUnavailable, OSError."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(job.threads)
    device, why = choose_device()
    bf16, precision = multiplies_in_bfloat16(device, job.recipe.precision)
    tell(Event(kind="device", text=f"{why}; {precision}", numbers={"bfloat16": bf16}))
    recipe = job.recipe
    if warning := quantisation_warning(recipe.bits, device):
        tell(Event(kind="warning", text=warning))
    cache = Path(job.cache) if job.cache else None
    base = unpacked(Path(job.base), cache, always=recipe.bits is not None)
    tokenizer = load_tokenizer(base)
    rows = tokenise(tokenizer, jobs.read_lines(folder / jobs.ROWS, Row), job.context)
    heldout = list(jobs.read_lines(folder / jobs.HELDOUT, Row))
    measured = tokenise(tokenizer, heldout, job.context)
    _tell_rows(rows, job.context, recipe, tell)
    if recipe.name == "dpo":  # before anything is trained that would be lost
        from intern.learning.train import preferences

        pairs = preferences.read_pairs(folder, tokenizer, job, tell)
    prompts = (Prompt(id=row.id, ids=tuple(prompt_ids(tokenizer, row.messages))) for row in heldout)
    jobs.write_lines(folder / jobs.PROMPTS, prompts)

    set_seed(recipe.seed)
    model = adapted(load_model(base, bits=recipe.bits, device=device, precision=recipe.precision), job)
    if bf16:
        hold_in_bfloat16(model)
    began = time.monotonic()
    options: dict[str, Any] = {
        "tell": tell,
        "bf16": bf16,
        "heldout": measured.rows,
        "heldout_every": job.heldout_every,
        "checkpoint_seconds": job.checkpoint_seconds,
    }
    if recipe.name == "completion-then-sft":
        texts = chunks(tokenizer, jobs.read_texts(folder / jobs.TEXTS), min(recipe.chunk_tokens, job.context))
        check_texts(len(texts))
        _once(folder, "completion", model, tokenizer, texts, job, epochs=recipe.completion_epochs, **options)
    _once(folder, "examples", model, tokenizer, rows.rows, job, epochs=recipe.epochs, **options)
    if recipe.name == "dpo":
        preferences.prefer(folder, model, tokenizer, job, pairs, tell, bf16=bf16)
    _write_adapter(model, folder / jobs.ADAPTER)
    from intern.learning.train.__main__ import peak_memory

    numbers = {
        "train_seconds": round(time.monotonic() - began, 2),
        "peak_bytes": peak_memory(),
        "rows": len(rows.rows),
        "tokens": rows.tokens,
    }
    tell(Event(kind="done", text="the adapter is written", numbers=numbers))


def adapted(model: Any, job: Job) -> Any:
    """`model` with a fresh LoRA adapter on every linear layer but the output's."""
    recipe = job.recipe
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        bias="none",
    )
    if recipe.bits is not None:
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return get_peft_model(model, config)


def _once(folder: Path, stage: str, model: Any, tokenizer: Any, rows: Any, job: Job, **options: Any) -> None:
    """One stage, unless it is finished already: then its adapter is taken from where it was left."""
    place = folder / jobs.STAGES / stage
    finished = place / "finished"
    if finished.exists():
        from peft.utils.save_and_load import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(str(finished)))
        return
    stages.train(model, tokenizer, rows, job.recipe, place, stage=stage, **options)
    _write_adapter(model, finished)


def _write_adapter(model: Any, folder: Path) -> None:
    """The adapter as PEFT writes it, whole or not at all, also when the power goes."""
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    # Without `save_embedding_layers`, PEFT asks the hub for the base model's configuration.
    model.save_pretrained(temporary, selected_adapters=["default"], save_embedding_layers=False)
    config = json.loads((temporary / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = ""  # a path of this machine; the manifest names the base
    (temporary / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True), encoding="utf-8")
    (temporary / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    disk.settle(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(temporary, folder)


def _tell_rows(rows: Tokenised, context: int, recipe: Recipe, tell: stages.Tell) -> None:
    numbers: dict[str, Any] = {
        "rows": len(rows.rows),
        "too_long": rows.too_long,
        "longest": rows.longest,
        "tokens": rows.tokens,
        "completion_tokens": rows.completion_tokens,
    }
    if rows.too_long:
        text = f"{len(rows.too_long)} rows are longer than {context} tokens and are left out: {some(rows.too_long)}"
        tell(Event(kind="warning", text=text, numbers=numbers))
    if not rows.rows:
        raise InvalidInput(f"No row fits {context} tokens; raise INTERN_CONTEXT or shorten the examples.")
    text = f"{len(rows.rows)} rows, at most {rows.longest} tokens; {recipe.epochs:g} epochs"
    tell(Event(kind="rows", text=text, numbers=numbers))
