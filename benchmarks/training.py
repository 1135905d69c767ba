"""Training behind the rows' shared prefix against TRL's SFTTrainer with its defaults, side by side in one run.

Both train the same adapter (rank, learning rate, schedule, batch, seed) on the same 300 messages of CLINC150's banking
intents for the same epochs, each in a process of its own with the same allocator settings, and are measured by the same
code: the loss on 100 other messages in float32. "Ours" is the product's trainer; "TRL" is SFTTrainer on prompt and
completion rows with every other setting left alone (bfloat16, gradient checkpointing); "TRL, no checkpointing" leaves
that out, as somebody with enough memory would. TRL gets the rows rendered, so that both learn the same tokens: from
messages it would also learn what the chat template writes behind an answer, which no model writes when it serves.

    python -m benchmarks.training [--epochs N]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.banking import instructions, rows
from intern.learning.train.job import Row
from intern.learning.train.process import ENVIRONMENT
from intern.learning.train.recipe import Recipe
from intern.models import source
from intern.settings import Settings
from intern.types import Message

GOALS = {"ratio": 4.0, "heldout_loss_ratio": 1.01, "train_seconds_300_x_3": 150.0, "peak_bytes": 4_000_000_000}
SIDES = ("ours", "trl", "trl-no-checkpointing")
CONTEXT = 2048
LEARNING_RATE = 5e-4  # on both sides


def made() -> tuple[list[Row], list[Row]]:
    """Rows to train on and held-out ones, as serving renders them."""
    intents, examples = rows(100)
    system = Message(role="system", content=instructions(intents))
    made = [
        Row(
            id=str(number),
            messages=(system, Message(role="user", content=row["input"])),
            completion=json.dumps(row["output"]),
        )
        for number, row in enumerate(examples)
    ]
    training = sum(row["split"] == "train" for row in examples)
    return made[:training], made[training:]


def side(name: str, epochs: float) -> dict[str, Any]:
    """One training, in this process."""
    import torch
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    from intern.learning.train.__main__ import peak_memory
    from intern.learning.train.base import (
        choose_device,
        hold_in_bfloat16,
        load_model,
        load_tokenizer,
        multiplies_in_bfloat16,
        unpacked,
    )
    from intern.learning.train.job import Job
    from intern.learning.train.run import adapted
    from intern.learning.train.stages import mean_loss
    from intern.learning.train.tokens import tokenise

    with tempfile.TemporaryDirectory(prefix="intern-training-") as scratch:
        folder = Path(scratch)
        torch.set_num_threads(os.cpu_count() or 1)
        device, _ = choose_device()
        job = Job(
            base=str(source.resolve(Settings(home=folder).model)),
            recipe=Recipe(epochs=epochs, learning_rate=LEARNING_RATE),
            context=CONTEXT,
            threads=1,
        )
        base = unpacked(Path(job.base), folder / "cache")
        tokenizer = load_tokenizer(base)
        train, held = made()
        tokens = tokenise(tokenizer, train, CONTEXT)
        torch.manual_seed(job.recipe.seed)
        model = adapted(load_model(base, bits=None, device=device), job)
        measured = tokenise(tokenizer, held, CONTEXT).rows
        before = mean_loss(model, measured)
        bf16 = multiplies_in_bfloat16(device, "auto")[0]
        ended: list[float] = []  # when each step was over
        began = time.perf_counter()
        if name == "ours":
            if bf16:
                hold_in_bfloat16(model)
            _ours(folder, model, tokenizer, tokens.rows, job, ended, bf16=bf16)
        else:
            _trl(folder, model, tokenizer, train, tokens.rows, job.recipe, ended, checkpointing=name == "trl")
        seconds = time.perf_counter() - began
        peak = peak_memory()
        fresh = adapted(load_model(base, bits=None, device=device), job)  # in float32, whatever it was trained in
        set_peft_model_state_dict(fresh, get_peft_model_state_dict(model))
        between = [later - earlier for earlier, later in itertools.pairwise(ended)]
        return {
            "seconds": seconds,
            "step_seconds": statistics.median(between),
            "step_seconds_quartiles": statistics.quantiles(between, n=4)[::2],
            "examples_a_second": job.recipe.batch / statistics.median(between),
            "heldout_loss_before": before,
            "heldout_loss": mean_loss(fresh, measured),
            "peak_bytes": peak,
            "tokens_a_row": tokens.tokens / len(tokens.rows),
        }


def _ours(folder: Path, model: Any, tokenizer: Any, tokens: Any, job: Any, ended: list[float], *, bf16: bool) -> None:
    from intern.learning.train import stages
    from intern.learning.train.job import Event

    def tell(event: Event) -> None:
        if event.kind == "step":
            ended.append(time.perf_counter())

    stages.train(
        model, tokenizer, tokens, job.recipe, folder / "ours", stage="examples", tell=tell, epochs=job.recipe.epochs,
        bf16=bf16, checkpoint_seconds=3600,
    )  # fmt: skip


def _trl(
    folder: Path,
    model: Any,
    tokenizer: Any,
    train: list[Row],
    tokens: Any,
    recipe: Recipe,
    ended: list[float],
    *,
    checkpointing: bool,
) -> None:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Steps(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            ended.append(time.perf_counter())

    data = Dataset.from_list(
        [
            {
                "prompt": tokenizer.apply_chat_template(
                    [m.model_dump() for m in row.messages], tokenize=False, add_generation_prompt=True
                ),
                "completion": row.completion,
            }
            for row in train
        ]
    )
    options: dict[str, Any] = {} if checkpointing else {"gradient_checkpointing": False}
    config = SFTConfig(
        output_dir=str(folder / "trl"),
        use_cpu=model.device.type == "cpu",  # without it, TRL's bfloat16 refuses to start on a CPU
        per_device_train_batch_size=recipe.batch,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup,
        max_grad_norm=recipe.max_grad_norm,
        seed=recipe.seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **options,
    )
    trainer = SFTTrainer(
        model=model, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[Steps()]
    )  # fmt: skip
    for theirs, row in zip(trainer.train_dataset, tokens, strict=True):
        assert theirs["input_ids"] == row["input_ids"], "both sides read the same tokens"
        assert theirs["labels"] == row["labels"], "and learn the same"
    trainer.train()


def measure(name: str, epochs: float) -> dict[str, Any]:
    """One side in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training", "--side", name, "--epochs", str(epochs)]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(side(arguments.side, arguments.epochs)))
        return
    found: dict[str, Any] = {}
    for name in SIDES:
        found[name] = measure(name, arguments.epochs)
        print(name, json.dumps(found[name]), flush=True)
    ours = found["ours"]
    columns = ("side", "step (s)", "examples a second", "held-out loss", "peak (GB)", "whole (s)")
    report.table(
        "300 messages",
        columns,
        [
            (n, r["step_seconds"], r["examples_a_second"], r["heldout_loss"], r["peak_bytes"] / 1e9, r["seconds"])
            for n, r in found.items()
        ],
    )
    ratios = {
        n: {
            "examples_a_second": ours["examples_a_second"] / r["examples_a_second"],
            "heldout_loss": ours["heldout_loss"] / r["heldout_loss"],
        }
        for n, r in found.items()
        if n != "ours"
    }
    print(json.dumps(ratios, indent=1))
    claim = "Shared-prefix training against TRL's defaults: examples a second, held-out loss, memory."
    print(report.write("training", claim, {"goals": GOALS, "epochs": arguments.epochs, "ratios": ratios, **found}))


if __name__ == "__main__":
    main()
