"""An answer is read as the model would write it: another spelling and a near-tie are no difference, a slip is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from intern.errors import ModelUnavailable
from intern.learning.train import agree as reading
from intern.learning.train.agree import TIE, Piece, read
from intern.learning.train.job import Job
from intern.learning.train.recipe import Recipe

WORDS = ["", "A", "B", "C", "AB", "BC", "ABC", "D"]  # the id is the place; 0 ends an answer
END = 0


def tokenise(text: str) -> list[Piece]:
    """The longest words first, as a tokenizer that learned them would."""
    found, at = [], 0
    while at < len(text):
        word = max((w for w in WORDS[1:] if text.startswith(w, at)), key=len)
        found.append(Piece(WORDS.index(word), at, at + len(word)))
        at += len(word)
    return found


def spell(ids: Sequence[int]) -> str:
    return "".join(WORDS[i] for i in ids)


def model(chances: Mapping[str, Mapping[str, float]]) -> Callable[[Sequence[int]], torch.Tensor]:
    """Log-probabilities of the next word after words ("A B"); what is not named is far less likely."""

    def judge(ids: Sequence[int]) -> torch.Tensor:
        rows = torch.full((len(ids), len(WORDS)), -9.0)
        for place in range(len(ids)):
            for word, chance in chances[" ".join(WORDS[i] for i in ids[:place])].items():
                rows[place, WORDS.index(word)] = chance
        return rows

    return judge


def words(pieces: Sequence[Piece]) -> list[str]:
    return [WORDS[piece.id] for piece in pieces]


def test_answers_are_read_in_float32_whatever_was_trained_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def load(base: Path, **options: Any) -> None:
        asked.update(options)
        raise ModelUnavailable("Enough.")

    monkeypatch.setattr(reading, "load_tokenizer", lambda base: None)
    monkeypatch.setattr(reading, "load_model", load)
    recipe = Recipe(precision="bfloat16").fitted(8, 64)
    with pytest.raises(ModelUnavailable, match="Enough"):
        reading.agree(tmp_path, Job(base=str(tmp_path), recipe=recipe, context=512, threads=1))
    assert asked["precision"] == "float32"


def test_what_the_model_would_have_written_agrees() -> None:
    judge = model({"": {"ABC": -0.1}, "ABC": {"D": -0.1}, "ABC D": {"": -0.1}})
    pieces, gaps = read("ABCD", END, tokenise, spell, judge)
    assert (words(pieces), gaps) == (["ABC", "D", ""], [0.0, 0.0, 0.0])


def test_the_same_text_in_the_models_own_spelling_agrees() -> None:
    judge = model(
        {
            "": {"A": -0.1, "ABC": -7.0},
            "ABC": {"B": -0.1},  # where the tokenizer's spelling leads astray
            "ABC D": {"C": -0.1},
            "A": {"B": -0.1},
            "A BC": {"B": -0.1},
            "A BC D": {"B": -0.1},
            "A B": {"C": -0.1},
            "A B C": {"D": -0.1},
            "A B C D": {"": -0.1},
        }
    )
    pieces, gaps = read("ABCD", END, tokenise, spell, judge)
    assert words(pieces) == ["A", "B", "C", "D", ""]
    assert gaps == [0.0] * 5
    assert [(piece.start, piece.end) for piece in pieces] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 4)]


@pytest.mark.parametrize(("behind", "tie"), [(TIE / 2, True), (TIE * 2, False)])
def test_a_near_tie_is_told_from_a_slip(behind: float, tie: bool) -> None:
    judge = model({"": {"ABC": -0.1}, "ABC": {"A": -0.1, "D": -0.1 - behind}, "ABC D": {"": -0.1}})
    _, gaps = read("ABCD", END, tokenise, spell, judge)
    assert gaps[0] == gaps[2] == 0.0
    assert gaps[1] == pytest.approx(behind, abs=1e-5)
    assert (gaps[1] < TIE) is tie


def test_an_answer_that_should_have_ended_or_gone_on_differs() -> None:
    judge = model({"": {"D": -0.1}, "D": {"A": -0.1}})
    _, gaps = read("D", END, tokenise, spell, judge)
    assert gaps[1] > TIE
    pieces, gaps = read("D", None, tokenise, spell, judge)  # it was cut: nothing is known of its end
    assert (words(pieces), gaps) == (["D"], [0.0])


def test_an_empty_answer_has_nothing_to_compare() -> None:
    assert read("", None, tokenise, spell, model({})) == ([], [])
