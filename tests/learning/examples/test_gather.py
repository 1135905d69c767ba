"""What a skill learns from, with where it came from; nothing of a person reaches a pair."""

from __future__ import annotations

from intern.learning.examples.gather import corrected
from intern.store.learning import Collected
from intern.types import Example


def redact(example: Example) -> tuple[Example, str | None]:
    """Takes 'Anna' out; an example that names 'Zoe' cannot be freed of her."""
    if "Zoe" in f"{example.input}{example.output}":
        return example, "it cannot be searched"
    freed = {"input": str(example.input).replace("Anna", "<P>"), "output": str(example.output).replace("Anna", "<P>")}
    return example.model_copy(update=freed), None


def collected(id: str, wrong: str | None) -> Collected:
    return Collected(example=Example(id=id, input="I am Anna", output="Hello Anna"), wrong=wrong)


def test_a_pairs_wrong_answer_is_freed_of_personal_data_like_its_right_one() -> None:
    rows = [collected("a", "Dear Anna"), collected("b", "Dear Zoe"), collected("c", None)]
    kept = [redact(row.example)[0] for row in rows]
    assert corrected(rows, kept, redact) == [(kept[0], "Dear <P>")]


def test_only_what_the_dataset_kept_makes_a_pair() -> None:
    rows = [collected("a", "Dear Anna")]
    assert corrected(rows, [], redact) == []
