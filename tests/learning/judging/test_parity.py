"""What counts as agreement of trainer and engine."""

from __future__ import annotations

import pytest

from intern.learning.judging.parity import Parity, parity, prompts_for
from intern.learning.train.job import Agreement, Answer
from intern.types import Message, Metric

TEXT = '{"topic": "order", "note": "two words"}'
GRAMMAR = "start: /.*/"


def answer(text: str = TEXT, grammar: str | None = GRAMMAR) -> Answer:
    return Answer(id="a", messages=(Message(role="user", content="x"),), text=text, grammar=grammar)


def agreement(*differs: tuple[int, int], tokens: int = 20, moved: float = 2.0) -> Agreement:
    return Agreement(id="a", tokens=tokens, agreed=tokens - len(differs), differs=differs, moved=moved)


def found(given: Answer, judged: Agreement, prompts: tuple[int, int] = (5, 5), *, note: Metric = "exact") -> Parity:
    metrics: dict[str, Metric] = {"topic": "exact", "note": note} if given.grammar else {"text": "text"}
    return parity(prompts, [given], [judged], metrics)


def test_full_agreement_is_no_problem() -> None:
    same = found(answer(), agreement())
    assert same.fields == 1.0
    assert same.tokens == 1.0
    assert same.problem is None


@pytest.mark.parametrize(
    ("differs", "share"),
    [((11, 16), 0.5), ((30, 33), 0.5), ((2, 7), 1.0), ((10, 34), 0.0)],
    ids=["first field", "second field", "a key, which decoding forces", "both"],
)
def test_a_field_agrees_when_no_token_of_its_value_differs(differs: tuple[int, int], share: float) -> None:
    assert found(answer(), agreement(differs)).fields == share


def test_a_schema_skill_is_judged_by_its_fields() -> None:
    assert "fields" in str(found(answer(), agreement((11, 16))).problem)
    assert found(answer(), agreement(*[(2, 7)] * 10)).problem is None


def test_free_text_inside_a_schema_is_judged_by_its_tokens_and_the_other_fields_as_a_whole() -> None:
    near_tie = found(answer(), agreement((30, 33), tokens=50), note="text")
    assert near_tie.fields == 1.0
    assert near_tie.problem is None
    assert "next tokens" in str(found(answer(), agreement(*[(30, 33)] * 3, tokens=50), note="text").problem)
    assert "fields" in str(found(answer(), agreement((11, 16), tokens=50), note="text").problem)


def test_a_text_skill_is_judged_by_its_tokens() -> None:
    assert found(answer("some text", None), agreement((0, 4), tokens=100)).problem is None
    problem = found(answer("some text", None), agreement(*[(0, 4)] * 4, tokens=100)).problem
    assert "96.0% of the next tokens" in str(problem)


def test_other_prompt_ids_are_a_problem_whatever_the_answers() -> None:
    assert "1 of 5 prompts" in str(found(answer(), agreement(), prompts=(5, 4)).problem)


def test_an_adapter_that_changes_nothing_is_a_problem() -> None:
    assert "changes nothing" in str(found(answer(), agreement(moved=1e-5)).problem)


def test_text_that_is_not_written_as_decoding_writes_it_counts_as_a_whole() -> None:
    assert found(answer('{"topic":"order"}'), agreement((11, 12))).fields == 0.0
    assert found(answer('{"topic": "or'), agreement()).fields == 1.0


def test_answers_with_few_fields_are_compared_on_more_prompts() -> None:
    assert [prompts_for(fields) for fields in (1, 2, 3, 9)] == [40, 40, 20, 20]


def many(count: int, *, ties: int = 0) -> Parity:
    """So many answers of one token to each field, all agreed, `ties` of the tokens nearly not."""
    answers = [answer().model_copy(update={"id": f"a{n}"}) for n in range(count)]
    agreements = [Agreement(id=f"a{n}", tokens=1, agreed=1, ties=n < ties, moved=2.0) for n in range(count)]
    metrics: dict[str, Metric] = {"topic": "exact", "note": "exact"}
    return parity((count, count), answers, agreements, metrics)


@pytest.mark.parametrize(("ties", "sound"), [(0, True), (2, True), (3, False)])
def test_near_ties_are_chance_up_to_a_tenth_of_the_tokens(ties: int, sound: bool) -> None:
    problem = many(20, ties=ties).problem
    assert (problem is None) is sound
    if not sound:
        assert "15% of the tokens are nearly as likely" in str(problem)


def test_that_fewer_than_twenty_answers_were_compared_is_told() -> None:
    assert many(20).few is None
    assert many(19).problem is None
    assert "compared on 19 held-out prompts only, and 20 are wanted" in str(many(19).few)


def test_with_no_answer_to_compare_nothing_is_said_of_the_adapter() -> None:
    problem = str(parity((0, 0), [], [], {"topic": "exact"}).problem)
    assert "no held-out example makes a prompt" in problem
    assert "changes nothing" not in problem
