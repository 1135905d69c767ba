"""Rows to token ids, as the engine will see them.

In: prompts as messages, completions as text, the tokenizer with its chat template. Out: `{"input_ids", "labels"}`,
labels -100 on the prompt. A row that is longer than the context is left out and counted, never cut: half an answer
teaches a model to stop in the middle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from intern.learning.train.job import Row
from intern.types import Message

IGNORED = -100


@dataclass
class Tokenised:
    """`rows` fit the context; `too_long` are the ids of those that did not; `longest` in tokens."""

    rows: list[dict[str, list[int]]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)
    longest: int = 0
    tokens: int = 0
    completion_tokens: int = 0


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The prompt up to where the assistant begins to speak."""
    turns = [{"role": m.role, "content": m.content} for m in messages]
    return list(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"])


def completion_ids(tokenizer: Any, messages: Sequence[Message], prompt: Sequence[int], completion: str) -> list[int]:
    """The tokens of the answer up to and with the one that ends it.

    Taken from the template's rendering of the whole conversation where that begins with the prompt. Otherwise (some
    templates write a past turn in another way than the one to come) the completion is tokenised by itself.
    """
    turns = [{"role": m.role, "content": m.content} for m in messages]
    turns.append({"role": "assistant", "content": completion})
    whole = list(tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"])
    alone = [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    if whole[: len(prompt)] != list(prompt):
        return alone
    rest = whole[len(prompt) :]
    # What a template writes after the end of the turn (a line break) is never generated.
    last = max((place for place, token in enumerate(rest) if token == tokenizer.eos_token_id), default=None)
    return alone if last is None else rest[: last + 1]


def tokenise(tokenizer: Any, rows: Iterable[Row], context: int) -> Tokenised:
    """Every row that fits `context` tokens, prompt and completion together."""
    found = Tokenised()
    for row in rows:
        prompt = prompt_ids(tokenizer, row.messages)
        completion = completion_ids(tokenizer, row.messages, prompt, row.completion)
        length = len(prompt) + len(completion)
        found.longest = max(found.longest, length)
        if length > context:
            found.too_long.append(row.id)
            continue
        found.rows.append({"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion})
        found.ids.append(row.id)
        found.tokens += length
        found.completion_tokens += len(completion)
    return found


def chunks(tokenizer: Any, texts: Iterable[str], size: int) -> list[dict[str, list[int]]]:
    """Texts as rows of at most `size` tokens. A text's first line is its title: it stands before each of its pieces (a
    quarter of `size` at most), and is no label. Every token of the piece itself is one, but for one that
    nothing stands before. Pieces do not overlap and have no end token: nothing ends where one does."""
    rows: list[dict[str, list[int]]] = []
    for text in texts:
        title, _, body = text.partition("\n")
        head = tokenizer(title.strip() + "\n", add_special_tokens=False)["input_ids"][: size // 4]
        ids = tokenizer(body.strip(), add_special_tokens=False)["input_ids"]
        room = size - len(head)
        for start in range(0, len(ids), room):
            piece = ids[start : start + room]
            labels = [IGNORED] * len(head) + piece
            labels[0] = IGNORED  # nothing stands before it that could predict it
            rows.append({"input_ids": [*head, *piece], "labels": labels})
    return rows
