"""The stages of a training: documents as text, examples, preferences. Each goes on from the adapter of the last.

In: a model with a LoRA adapter, tokenised rows, a recipe, a folder for checkpoints. Out: the adapter's weights in the
model, and events. A stage that was interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig

from intern.errors import TrainingFailed
from intern.learning.train import disk
from intern.learning.train.job import Event
from intern.learning.train.memory import give_back, micro_batch
from intern.learning.train.prefix import PrefixCollator, PrefixTrainer, common_prefix, completion_logits
from intern.learning.train.recipe import Recipe

MEASURED = 32  # held-out rows at once, at most: of those nothing is kept for a way back

Tell = Callable[[Event], None]


class Curves(TrainerCallback):
    """Tells what happens, saves a checkpoint now and then, and measures the loss on held-out rows.

    Of its checkpoints the newest is kept. The trainer itself must remove none (`save_total_limit` None): it would do so
    before the next one has reached the disk.
    """

    def __init__(
        self,
        stage: str,
        tell: Tell,
        checkpoint_seconds: float,
        heldout_every: int,
        heldout: Callable[[], float] | None,
    ) -> None:
        self._stage = stage
        self._tell = tell
        self._checkpoint_seconds = checkpoint_seconds
        self._every = heldout_every
        self._heldout = heldout
        self._saved = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._tell(Event(kind="phase", stage=self._stage, step=state.global_step, steps=state.max_steps))
        if state.global_step == 0:
            self._measure(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if time.monotonic() - self._saved > self._checkpoint_seconds and state.global_step < state.max_steps:
            control.should_save = True
        give_back()

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # a pass that is no whole step
        give_back()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._saved = time.monotonic()
        disk.keep_only(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._tell(Event(kind="saved", stage=self._stage, step=state.global_step, steps=state.max_steps))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise TrainingFailed(
                f"The loss is no number any more after step {state.global_step} of {state.max_steps}: "
                f"the learning rate is too high. Try a fifth of {args.learning_rate:g}."
            )
        self._tell(
            Event(
                kind="step",
                stage=self._stage,
                step=state.global_step,
                steps=state.max_steps,
                epoch=state.epoch,
                loss=float(logs["loss"]),
                learning_rate=float(logs.get("learning_rate", 0.0)),
            )
        )
        if self._every and (state.global_step % self._every == 0 or state.global_step == state.max_steps):
            self._measure(state)

    def _measure(self, state: Any) -> None:
        if self._heldout is not None:
            loss = self._heldout()
            self._tell(
                Event(
                    kind="heldout", stage=self._stage, step=state.global_step, steps=state.max_steps, loss=loss,
                    epoch=state.epoch,
                )
            )  # fmt: skip


def every_stage(folder: Path, model: Any, recipe: Recipe, micro: int, *, bf16: bool) -> dict[str, Any]:
    """What every stage sets in its trainer: `micro` rows at once, each step's loss as it is, and no file, no report and
    no measurement but those of `Curves`."""
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": recipe.batch // micro,
        "seed": recipe.seed,
        "bf16": bf16,
        "use_cpu": model.device.type == "cpu",
        "gradient_checkpointing": False,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "max_length": None,
        "dataloader_pin_memory": False,
    }


def train(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, list[int]]],
    recipe: Recipe,
    folder: Path,
    *,
    stage: str,
    tell: Tell,
    epochs: float,
    bf16: bool = False,
    heldout: Sequence[dict[str, list[int]]] = (),
    heldout_every: int = 0,
    checkpoint_seconds: float = 60.0,
) -> None:
    """Fit the adapter in `model` to `rows`. Raises OSError when the disk is full."""
    micro = micro_batch(rows, recipe.batch, model.device.type)
    steps = -(-len(rows) // recipe.batch) * epochs
    every = heldout_every or math.ceil(steps / 8)
    config = SFTConfig(
        **every_stage(folder, model, recipe, micro, bf16=bf16),
        num_train_epochs=epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup if recipe.warmup else 0,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        remove_unused_columns=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    at_once = micro_batch(heldout, MEASURED, model.device.type) if heldout else 0
    measured = (lambda: mean_loss(model, heldout, at_once, bf16=bf16)) if heldout else None
    trainer = PrefixTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(list(rows)),
        data_collator=PrefixCollator(common_prefix(rows)),
        processing_class=tokenizer,
        callbacks=[Curves(stage, tell, checkpoint_seconds, every, measured)],
    )
    for weight in model.parameters():  # TRL puts those of a quantised base into bfloat16, which small steps are lost in
        if weight.requires_grad:
            weight.data = weight.data.float()
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) if folder.exists() else None)


def mean_loss(model: Any, rows: Sequence[dict[str, list[int]]], batch: int = 8, *, bf16: bool = False) -> float:
    """Mean negative log-likelihood of the completion tokens of `rows`, in nats."""
    collate = PrefixCollator(common_prefix(rows))
    training = model.training
    model.eval()
    total = count = 0.0
    with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        for start in range(0, len(rows), batch):
            packed = {name: value.to(model.device) for name, value in collate(rows[start : start + batch]).items()}
            logits = completion_logits(model, packed)
            total += float(torch.nn.functional.cross_entropy(logits, packed["targets"], reduction="sum"))
            count += len(logits)
    model.train(training)
    return total / count
