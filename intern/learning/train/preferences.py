"""Direct preference optimisation (Rafailov et al., arXiv 2305.18290) on top of the adapter that the examples made.

In: pairs of a corrected and a rejected answer to one prompt. Out: the adapter in the model, moved towards the former.
The reference is the adapter as it was when this stage began.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers.trainer_utils import get_last_checkpoint
from trl import DPOConfig, DPOTrainer

from intern.errors import InvalidInput
from intern.learning.train import job as jobs
from intern.learning.train.job import Event, Job, Pair
from intern.learning.train.stages import Curves, Tell
from intern.learning.train.tokens import completion_ids, prompt_ids

LEAST = 10


def prefer(folder: Path, model: Any, tokenizer: Any, job: Job, tell: Tell, *, bf16: bool) -> None:
    """Fit the adapter in `model` to the job's pairs. Raises InvalidInput when there are too few."""
    recipe = job.recipe
    rows = []
    too_long = 0
    for pair in jobs.read_lines(folder / jobs.PAIRS, Pair):
        turns = [{"role": m.role, "content": m.content} for m in pair.messages]
        prompt = prompt_ids(tokenizer, pair.messages)
        longest = max(
            len(completion_ids(tokenizer, pair.messages, prompt, text)) for text in (pair.chosen, pair.rejected)
        )
        if len(prompt) + longest > job.context:
            too_long += 1
            continue
        rows.append(
            {
                "prompt": turns,
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
        )
    if too_long:
        tell(Event(kind="warning", text=f"{too_long} pairs are longer than {job.context} tokens and are left out"))
    if len(rows) < LEAST:
        raise InvalidInput(
            f"The recipe dpo needs at least {LEAST} corrected answers, and there are {len(rows)}. "
            "Use the recipe lora until people have corrected more.",
            param="recipe",
        )
    place = folder / jobs.STAGES / "preferences"
    config = DPOConfig(
        output_dir=str(place),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=max(1, recipe.batch // 2),
        num_train_epochs=recipe.preference_epochs,
        learning_rate=recipe.preference_learning_rate,
        beta=recipe.beta,
        seed=recipe.seed,
        bf16=bf16,
        use_cpu=model.device.type == "cpu",
        gradient_checkpointing=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        max_length=job.context,
    )
    trainer = DPOTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Curves("preferences", tell, job.checkpoint_seconds, 0, None)],
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(place)) if place.exists() else None)
