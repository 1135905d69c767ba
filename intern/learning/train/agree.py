"""Does the engine write what the trained model would? The trainer's side of the parity check.

In: the adapter of a finished job, and answers that the engine gave greedily (`answers.jsonl`). Each answer is read by
the model in torch at once (teacher forcing): at every token, is it the one that the model finds most likely among those
that the schema allows? Out: `agreement.jsonl`. Free greedy text of the two would part at the first near-tie and differ
from there on, and says nothing.

Two things look like a difference and are none. The engine tells its text, not its tokens, and the model may spell the
same text otherwise than the tokenizer does: then it is read in the model's own spelling. And an engine that multiplies
in 8 bits has its own rounding: where it took a token nearly as likely as the model's choice, that is a tie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import PeftModel

from intern.learning.train import job as jobs
from intern.learning.train.base import choose_device, load_model, load_tokenizer, unpacked
from intern.learning.train.job import Agreement, Answer, Job
from intern.learning.train.prefix import PrefixCollator, completion_logits
from intern.learning.train.tokens import IGNORED, prompt_ids

# nats. With a base of 4 bits (activations 8), 5 of 943 tokens that llama.cpp chose were others than torch's in float32,
# behind those by 0.07 to 0.43; a conversion gone wrong is off by several.
TIE = 0.5
_SPELLINGS = 8  # times that one answer is read again


def agree(folder: Path, job: Job) -> None:
    """Write how far each answer agrees. Raises ModelUnavailable, OSError."""
    torch.set_num_threads(job.threads)
    device, _ = choose_device()
    base = unpacked(Path(job.base), Path(job.cache) if job.cache else None, always=job.recipe.bits is not None)
    tokenizer = load_tokenizer(base)
    # Whatever it was trained in: a tie is a tie of float32.
    model = load_model(base, bits=None, device=device, precision="float32")
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


class Piece(NamedTuple):
    """A token with its place in the text."""

    id: int
    start: int
    end: int


def _compare(model: Any, tokenizer: Any, grammars: _Grammars, answer: Answer) -> Agreement:
    prompt = prompt_ids(tokenizer, answer.messages)
    moved = 0.0

    def judge(ids: Sequence[int]) -> torch.Tensor:
        nonlocal moved
        row = {"input_ids": [*prompt, *ids], "labels": [IGNORED] * len(prompt) + [*ids]}
        batch = {name: value.to(model.device) for name, value in PrefixCollator()([row]).items()}
        with torch.no_grad():
            logits = torch.log_softmax(completion_logits(model, batch), -1)
            if not moved:
                with model.disable_adapter():
                    bare = torch.log_softmax(completion_logits(model, batch), -1)
                moved = float((logits - bare).abs().max())
        logits = logits.cpu()
        if answer.grammar is not None:
            logits = logits.masked_fill(~grammars.allowed(answer.grammar, list(ids)), float("-inf"))
        return torch.log_softmax(logits, -1)

    def tokenise(text: str) -> list[Piece]:
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [Piece(i, *span) for i, span in zip(found["input_ids"], found["offset_mapping"], strict=True)]

    end = tokenizer.eos_token_id if answer.finished else None
    pieces, gaps = read(answer.text, end, tokenise, tokenizer.decode, judge)
    differs = tuple((p.start, p.end) for p, gap in zip(pieces, gaps, strict=True) if gap >= TIE)
    return Agreement(
        id=answer.id,
        tokens=len(pieces),
        agreed=len(pieces) - len(differs),
        ties=sum(0 < gap < TIE for gap in gaps),
        differs=differs,
        moved=moved,
    )


def read(
    text: str,
    end: int | None,
    tokenise: Callable[[str], list[Piece]],
    spell: Callable[[Sequence[int]], str],
    judge: Callable[[Sequence[int]], torch.Tensor],
) -> tuple[list[Piece], list[float]]:
    """An answer's tokens, in the spelling that the model prefers, and how far each is behind the model's choice (nats).

    `end` is the token that ends it, None where it was cut. `judge` gives log-probabilities, (tokens, vocabulary).
    """
    last = [] if end is None else [Piece(end, len(text), len(text))]
    pieces = [*(tokenise(text) if text else ()), *last]
    if not pieces:
        return [], []
    gaps: list[float] = []
    for _ in range(1 + _SPELLINGS):
        chances = judge([piece.id for piece in pieces])
        best, choice = chances.max(-1)
        own = chances.gather(1, torch.tensor([[piece.id] for piece in pieces]))[:, 0]
        gaps = (best - own).tolist()
        again = _respelled(text, pieces, gaps, choice.tolist(), tokenise, spell)
        if again is None:
            break
        pieces = [*again, *last]
    return pieces, gaps


def _respelled(
    text: str,
    pieces: Sequence[Piece],
    gaps: Sequence[float],
    choice: Sequence[int],
    tokenise: Callable[[str], list[Piece]],
    spell: Callable[[Sequence[int]], str],
) -> list[Piece] | None:
    """The text's tokens with the model's choice at the first place where that writes the same text otherwise."""
    for place, piece in enumerate(pieces):
        said = spell([choice[place]]) if gaps[place] > 0 and piece.start < piece.end else ""
        if not said or not text.startswith(said, piece.start):
            continue
        rest = piece.start + len(said)
        after = [Piece(p.id, p.start + rest, p.end + rest) for p in tokenise(text[rest:])] if text[rest:] else []
        found = [*pieces[:place], Piece(choice[place], piece.start, rest), *after]
        if spell([p.id for p in found]) == text:
            return found
    return None
