"""Does the engine write what the trained model would? The trainer's side of the parity check.

In: the adapter of a finished job, and answers that the engine gave greedily (`answers.jsonl`). Each answer is read by
the model in torch at once (teacher forcing): at every token, is it the one that the model finds most likely among those
that the schema allows? Out: `agreement.jsonl`. Free greedy text of the two would part at the first near-tie and differ
from there on, and says nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from intern.learning.train import job as jobs
from intern.learning.train.base import choose_device, load_model, load_tokenizer, unpacked
from intern.learning.train.job import Agreement, Answer, Job
from intern.learning.train.prefix import PrefixCollator, completion_logits
from intern.learning.train.tokens import IGNORED, prompt_ids


def agree(folder: Path, job: Job) -> None:
    """Write how far each answer agrees. Raises ModelUnavailable, OSError."""
    torch.set_num_threads(job.threads)
    device, _ = choose_device()
    base = unpacked(Path(job.base), Path(job.cache) if job.cache else None, always=job.recipe.bits is not None)
    tokenizer = load_tokenizer(base)
    model = load_model(base, bits=None, device=device)
    model = PeftModel.from_pretrained(model, str(folder / jobs.ADAPTER)).eval()
    grammars = _Grammars(tokenizer, model.config.vocab_size)
    with (folder / jobs.AGREEMENT).open("w", encoding="utf-8") as file:
        for answer in jobs.read_lines(folder / jobs.ANSWERS, Answer):
            file.write(_compare(model, tokenizer, grammars, answer).model_dump_json() + "\n")


class _Grammars:
    """Which tokens a grammar allows at each place of an answer."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._wrapped: Any = None

    def allowed(self, grammar: str, ids: list[int]) -> torch.Tensor:
        """Boolean, (tokens, vocabulary). Everything is allowed from where an answer leaves the grammar."""
        from llguidance import LLMatcher
        from llguidance.hf import from_tokenizer

        if self._wrapped is None:
            self._wrapped = from_tokenizer(self._tokenizer, n_vocab=self._vocabulary)
        matcher = LLMatcher(self._wrapped, grammar)
        rows = torch.ones((len(ids), self._vocabulary), dtype=torch.bool)
        for place, token in enumerate(ids):
            if matcher.is_error() or matcher.is_stopped():
                break
            words = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            bits = np.unpackbits(words, bitorder="little")[: self._vocabulary]
            rows[place] = torch.from_numpy(bits.astype(bool))
            if not matcher.consume_token(token):
                break
        return rows


def _compare(model: Any, tokenizer: Any, grammars: _Grammars, answer: Answer) -> Agreement:
    prompt = prompt_ids(tokenizer, answer.messages)
    spoken = tokenizer(answer.text, add_special_tokens=False, return_offsets_mapping=True)
    ids = [*spoken["input_ids"], *([tokenizer.eos_token_id] if answer.finished else [])]
    if not ids:
        return Agreement(id=answer.id, tokens=0, agreed=0)
    row = {"input_ids": prompt + ids, "labels": [IGNORED] * len(prompt) + ids}
    batch = {name: value.to(model.device) for name, value in PrefixCollator()([row]).items()}
    with torch.no_grad():
        logits = completion_logits(model, batch)
        with model.disable_adapter():
            bare = completion_logits(model, batch)
    moved = float((torch.log_softmax(logits, -1) - torch.log_softmax(bare, -1)).abs().max())
    if answer.grammar is not None:
        allowed = grammars.allowed(answer.grammar, ids).to(logits.device)
        logits = logits.masked_fill(~allowed, float("-inf"))
    same = (logits.argmax(-1) == batch["targets"]).tolist()
    ends = [end for _, end in spoken["offset_mapping"]] + [len(answer.text)] * answer.finished
    starts = [start for start, _ in spoken["offset_mapping"]] + [len(answer.text)] * answer.finished
    differs = tuple((start, end) for start, end, equal in zip(starts, ends, same, strict=True) if not equal)
    return Agreement(id=answer.id, tokens=len(ids), agreed=sum(same), differs=differs, moved=moved)
