"""Rivals answer the same examples with the prompts that serving would make."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intern.engines.base import EngineRequest
from intern.engines.fake import FakeEngine
from intern.errors import ContextOverflow, EngineFailure, EngineUnavailable
from intern.learning.examples.shots import FIXED
from intern.learning.judging.evaluate import (
    Evaluation,
    Generated,
    Remembered,
    Rival,
    generate,
    rivals,
    score,
    score_outside,
)
from intern.learning.judging.outcomes import Outcome
from intern.models.embedder import Vectors
from intern.skill import Skill, write_skill
from intern.types import Example, Message, Passage, Sampling

TOPICS = ["order", "refund", "other"]


@pytest.fixture
def skill(tmp_path: Path) -> Skill:
    schema = {
        "type": "object",
        "required": ["topic"],
        "additionalProperties": False,
        "properties": {"topic": {"enum": TOPICS}},
    }
    spec = {"title": "Sorting", "description": "Sorts messages.", "instructions": "Sort the message."}
    return write_skill(tmp_path, "sorting", spec, schema=schema)


def example(number: int) -> Example:
    topic = TOPICS[number % 3]
    return Example(id=f"e{number}", input=f"about {topic} {number}", output={"topic": topic}, group=f"g{number // 2}")


def embed(texts: Sequence[str]) -> Vectors:
    """One direction a topic."""
    rows = [[float(topic in text) for topic in TOPICS] for text in texts]
    return np.array(rows, dtype=np.float32)


async def nothing(skill: Skill, conversation: Sequence[Message]) -> Sequence[Passage]:
    return ()


class Kept:
    def __init__(self) -> None:
        self.known: dict[str, Generated] = {}

    def get(self, key: str) -> Generated | None:
        return self.known.get(key)

    def put(self, key: str, generated: Generated) -> None:
        self.known[key] = generated


def evaluation(skill: Skill, engine: FakeEngine, remembered: Remembered | None = None) -> Evaluation:
    return Evaluation(
        skill,
        engine,
        heldout=[example(n) for n in range(6)],
        train=[example(n) for n in range(100, 160)],
        retrieve=nothing,
        embed=embed,
        passage_tokens=100,
        remembered=remembered,
    )


def right_with_adapter(request: EngineRequest) -> str:
    asked = request.messages[-1].content
    topic = asked.split()[1] if request.adapter or len(request.messages) > 2 else "other"
    return json.dumps({"topic": topic})


def test_each_rival_is_scored_on_every_example_in_order(skill: Skill) -> None:
    engine = FakeEngine([right_with_adapter])
    asyncio.run(engine.set_adapters({"sorting@v1": "file"}))
    found = asyncio.run(evaluation(skill, engine).answer(Rival(name="candidate", adapter="sorting@v1")))
    assert [outcome.example for outcome in found] == [f"e{n}" for n in range(6)]
    assert [outcome.score for outcome in found] == [1.0] * 6
    assert {outcome.group for outcome in found} == {"g0", "g1", "g2"}
    assert all(request.adapter == "sorting@v1" for request in engine.requests)
    base = asyncio.run(evaluation(skill, engine).answer(Rival(name="base")))
    assert [outcome.score for outcome in base] == [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]


def test_decoding_is_greedy_and_kept_to_the_schema(skill: Skill) -> None:
    engine = FakeEngine([right_with_adapter])
    asyncio.run(evaluation(skill, engine).answer(Rival(name="base")))
    assert skill.schema is not None
    for request in engine.requests:
        assert request.sampling.temperature == 0
        assert request.schema_ == skill.schema.schema


def test_an_answer_that_breaks_the_schema_scores_nothing(skill: Skill) -> None:
    outcome = score(skill, example(0), '{"topic": "weather"}')
    assert not outcome.valid
    assert outcome.fields == {"topic": 0.0}
    assert not score(skill, example(0), "order").valid


def test_fixed_examples_are_the_same_for_all_and_vary_in_their_answers(skill: Skill) -> None:
    engine = FakeEngine([right_with_adapter])
    outcomes = asyncio.run(evaluation(skill, engine).answer(Rival(name="few-shot", shots="fixed")))
    assert {outcome.examples for outcome in outcomes} == {FIXED}
    heads = {tuple(m.content for m in request.messages[:-1]) for request in engine.requests}
    assert len(heads) == 1
    (head,) = heads
    assert len(head) == 1 + 2 * FIXED
    assert {json.loads(answer)["topic"] for answer in head[2::2]} == set(TOPICS)


def test_the_nearest_examples_stand_nearest_to_the_request(skill: Skill) -> None:
    engine = FakeEngine([right_with_adapter])
    asyncio.run(evaluation(skill, engine).answer(Rival(name="retrieval", shots="nearest")))
    assert len(engine.requests) == 6
    for request in engine.requests:
        topic = request.messages[-1].content.split()[1]
        shown = [m.content for m in request.messages if m.role == "user"][:-1]
        assert len(shown) == 5
        assert all(topic in text for text in shown)


def test_examples_that_do_not_fit_are_left_out_rather_than_the_request(skill: Skill) -> None:
    engine = FakeEngine([right_with_adapter], context=300)
    found = asyncio.run(evaluation(skill, engine).answer(Rival(name="few-shot", shots="fixed")))
    assert len(found) == 6
    assert all(len(request.messages) < 2 + 2 * FIXED for request in engine.requests)


def test_an_answer_that_is_remembered_is_not_asked_for_again(skill: Skill) -> None:
    engine, memory = FakeEngine([right_with_adapter]), Kept()
    asyncio.run(engine.set_adapters({"a": "file", "b": "file"}))

    def answers(adapter: str | None = None, *, base: str = "base", version: str = "1", **adapters: str) -> int:
        """How many are asked for."""
        before = len(engine.requests)
        info = engine.info.model_copy(update={"version": version})
        remembered = Remembered(memory, base=base, adapters=adapters, engine=info)
        asyncio.run(evaluation(skill, engine, remembered).answer(Rival(name="r", adapter=adapter)))
        return len(engine.requests) - before

    assert answers() == 6
    assert answers() == 0
    assert answers(base="another file of the same name") == 6
    assert answers(version="2") == 6  # of the engine, which may answer otherwise
    assert answers(version="2") == 0
    assert answers("a", a="digest") == 6
    assert answers("a", a="digest") == 0
    assert answers("b", b="digest") == 0  # the same weights by another name
    assert answers("a", a="the version was given again") == 6
    assert answers("a", b="digest") == 6  # whose weights nobody knows
    assert answers("a", b="digest") == 6


def test_what_is_remembered_scores_the_same(skill: Skill) -> None:
    engine, memory = FakeEngine([right_with_adapter]), Kept()
    remembered = Remembered(memory, base="base", adapters={}, engine=engine.info)
    first, second = (asyncio.run(evaluation(skill, engine, remembered).answer(Rival(name="base"))) for _ in range(2))
    assert [outcome.model_copy(update={"seconds": 0.0}) for outcome in first] == second
    assert all(outcome.seconds > 0 for outcome in first), "and how long it took then is not how long it takes now"


def failing(share: int) -> Callable[[EngineRequest], str]:
    """Of 40 answers, the first so many fail."""

    def reply(request: EngineRequest) -> str:
        if int(request.messages[-1].content.split()[-1]) < share:
            raise EngineFailure("llama.cpp broke off before the answer was finished.")
        return right_with_adapter(request)

    return reply


def forty(skill: Skill, engine: FakeEngine, **more: Any) -> Evaluation:
    rows = [example(n) for n in range(40)]
    return Evaluation(skill, engine, heldout=rows, train=[], retrieve=nothing, embed=embed, passage_tokens=100, **more)


def test_an_answer_that_the_engine_fails_to_give_is_a_broken_one(skill: Skill) -> None:
    memory, engine = Kept(), FakeEngine([failing(2)])
    remembered = Remembered(memory, base="base", adapters={}, engine=engine.info)
    told: list[int] = []

    async def tell(done: int) -> None:
        told.append(done)

    found = asyncio.run(forty(skill, engine, remembered=remembered).answer(Rival(name="base"), tell=tell))
    assert [outcome.example for outcome in found if outcome.failed] == ["e0", "e1"]
    assert [(outcome.valid, outcome.score) for outcome in found[:2]] == [(False, 0.0)] * 2
    assert len(memory.known) == 38, "what failed is asked again the next time"
    assert told[-1] == 40


def test_where_many_answers_fail_it_is_the_engine_that_is_judged(skill: Skill) -> None:
    engine = FakeEngine([failing(3)])
    engine.pause.clear()  # the others' answers never end

    async def answers() -> tuple[int, int]:
        with pytest.raises(EngineFailure, match=r"^3 of 40 answers of 'base' failed, the last one so: llama.cpp broke"):
            await forty(skill, engine).answer(Rival(name="base"))
        return engine.load

    assert asyncio.run(answers()) == (0, 0), "and whoever waited for an answer waits no more"


def test_the_only_answer_failing_is_no_evaluation(skill: Skill) -> None:
    one = Evaluation(
        skill, FakeEngine([failing(1)]), heldout=[example(0)], train=[], retrieve=nothing, embed=embed, passage_tokens=9
    )
    with pytest.raises(EngineFailure):
        asyncio.run(one.answer(Rival(name="base")))


def test_an_adapter_that_is_not_loaded_is_no_wrong_answer(skill: Skill) -> None:
    engine = FakeEngine([right_with_adapter])
    with pytest.raises(EngineUnavailable):
        asyncio.run(forty(skill, engine).answer(Rival(name="candidate", adapter="sorting@v1")))


def test_a_prompt_that_only_the_engine_finds_too_long_is_a_broken_answer(skill: Skill) -> None:
    def reply(request: EngineRequest) -> str:
        if request.messages[-1].content.endswith(" 7"):
            raise ContextOverflow(5_000, 4_096)
        return right_with_adapter(request)

    found = asyncio.run(forty(skill, FakeEngine([reply])).answer(Rival(name="base")))
    assert [(outcome.example, outcome.failed) for outcome in found if not outcome.valid] == [("e7", False)]


def test_grounding_is_measured_on_the_passages_that_the_prompt_showed(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "required": ["answer", "sources"],
        "properties": {"answer": {"type": "string"}, "sources": {"type": "array", "items": {"type": "string"}}},
    }
    spec = {
        "title": "T",
        "description": "D",
        "instructions": "I",
        "retrieval": {"enabled": True, "citations": "sources"},
    }
    made = write_skill(tmp_path, "handbook", spec, schema=schema)
    output = {"answer": "Everyone gets 28 days.", "sources": ["leave.md"]}

    async def leave(skill: Skill, conversation: Sequence[Message]) -> Sequence[Passage]:
        return [Passage(id="p", document="leave.md", heading="", start=0, end=9, score=1, text=output["answer"])]

    def measured(answer: str) -> Outcome:
        engine = FakeEngine([json.dumps({"answer": answer, "sources": ["leave.md"]})])
        heldout = [Example(id="e", input="How many?", output=output)]
        asked = Evaluation(
            made, engine, heldout=heldout, train=[], retrieve=leave, embed=embed, passage_tokens=100
        )  # fmt: skip
        return asyncio.run(asked.answer(Rival(name="base")))[0]

    told, invented = measured("Everyone gets 28 days."), measured("Managers receive 40.")
    assert (told.support, told.support_expected, told.sources) == (1.0, 1.0, 1.0)
    assert (invented.support, invented.sources) == (0.0, 1.0), "the right name is no support"
    assert told.texts["answer"].chrf == 1.0
    broken = score(made, Example(id="e", input="?", output=output), json.dumps({"answer": output["answer"]}))
    assert (broken.valid, broken.texts["answer"].chrf, broken.support) == (False, 0.0, None)


@pytest.mark.parametrize(("most", "reason"), [(2, "length"), (3, "stop"), (4, "stop")])
def test_an_answer_says_whether_it_was_cut(most: int, reason: str) -> None:
    request = EngineRequest(messages=(Message(role="user", content="x"),), sampling=Sampling(max_tokens=most))
    assert asyncio.run(generate(FakeEngine(["one two three"]), request)).finish_reason == reason


def test_the_rivals_are_those_of_the_contract() -> None:
    names = [rival.name for rival in rivals(candidate="s@v2", serving="s@v1")]
    assert names == ["base", "few-shot", "retrieval", "serving", "candidate"]
    assert [rival.name for rival in rivals(candidate="s@v1", serving=None)] == [*names[:3], "candidate"]


def test_an_outside_system_is_scored_on_what_it_answered(skill: Skill) -> None:
    heldout = [example(n) for n in range(4)]
    found = score_outside(skill, heldout, {"e0": {"topic": "order"}, "e1": '{"topic": "other"}', "e3": "no JSON"})
    assert [(o.example, o.score, o.valid) for o in found] == [("e0", 1.0, True), ("e1", 0.0, True), ("e3", 0.0, False)]


def test_an_outside_answer_that_is_a_bare_string_is_that_value(tmp_path: Path) -> None:
    spec = {"title": "T", "description": "D", "instructions": "I"}
    made = write_skill(tmp_path, "topics", spec, schema={"type": "string", "enum": ["refund", "5", '"other"']})
    answers: dict[str, Any] = {"as it is": "refund", "as a model writes it": '"refund"', "like a number": "5"}
    expected = dict(zip(answers, ("refund", "refund", "5"), strict=True))
    heldout = [Example(id=id, input="?", output=output) for id, output in expected.items()]
    found = score_outside(made, heldout, answers)
    assert [(o.output, o.score, o.valid) for o in found] == [(o, 1.0, True) for o in expected.values()]
    (wrong,) = score_outside(made, heldout[:1], {"as it is": "refunds"})
    assert (wrong.output, wrong.score, wrong.valid) == ("refunds", 0.0, False)
