"""Pairs are tokenised as the rows of examples are, and as many go through the model at once as memory holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from intern.learning.train.job import Pair, Row
from intern.learning.train.memory import PACKED, PREDICTED
from intern.learning.train.preferences import pairs_at_once, tokenise_pairs
from intern.learning.train.tokens import IGNORED, tokenise
from intern.types import Message

MESSAGES = (
    Message(role="system", content="Answer with one word."),
    Message(role="user", content="Where is my parcel?"),
)
PAIR = Pair(id="p1", messages=MESSAGES, chosen='{"topic": "tracking"}', rejected="I do not know.")


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base)


def test_both_answers_of_a_pair_have_the_tokens_that_rows_of_them_would_have(tokenizer: Any) -> None:
    (pair,) = tokenise_pairs(tokenizer, [PAIR], 256).rows
    for answer, name in ((PAIR.chosen, "chosen_ids"), (PAIR.rejected, "rejected_ids")):
        (row,) = tokenise(tokenizer, [Row(id="r", messages=MESSAGES, completion=answer)], 256).rows
        assert pair["prompt_ids"] + pair[name] == row["input_ids"]
        assert pair[name] == [label for label in row["labels"] if label != IGNORED]
        assert pair[name][-1] == tokenizer.eos_token_id, "the last to be learned: what a template writes then is not"


def test_a_pair_is_as_long_as_its_longer_answer(tokenizer: Any) -> None:
    long = PAIR.model_copy(update={"id": "p2", "rejected": "very " * 300})
    found = tokenise_pairs(tokenizer, [PAIR, long], 256)
    assert (len(found.rows), found.too_long) == (1, ["p2"])
    assert tokenise_pairs(tokenizer, [long], 1024).too_long == []


def pair(prompt: int, chosen: int, rejected: int) -> dict[str, list[int]]:
    return {"prompt_ids": [1] * prompt, "chosen_ids": [2] * chosen, "rejected_ids": [3] * rejected}


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "pairs"),
    [(40, 10, 10, 8), (130, 10, 10, 4), (250, 20, 10, 2), (250, 20, 120, 1), (600, 10, 10, 1), (3000, 10, 10, 1)],
)
def test_a_pass_holds_both_answers_of_each_pair_with_its_whole_prompt(
    prompt: int, chosen: int, rejected: int, pairs: int
) -> None:
    many = [pair(prompt, chosen, rejected)] * 40
    assert pairs_at_once(many, 8, "cpu") == pairs
    completion = max(chosen, rejected)
    within = 2 * pairs * (prompt + completion) <= PACKED["cpu"] and 2 * pairs * completion <= PREDICTED["cpu"]
    assert within or pairs == 1
    assert pairs_at_once(many, 8, "cuda") >= pairs
