"""Which examples a prompt shows: varied ones, or the nearest, and in service those of the newest dataset."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.engine import Engine as Database

from intern.engines.fake import FakeEngine
from intern.learning.examples.shots import FIXED, NEAREST, TOKENS, Mode, ServedShots, Shots, as_turns, varied
from intern.models.embedder import Vectors
from intern.skill import Skill, write_skill
from intern.store import learning as store
from intern.store.engine import open_database
from intern.types import Dataset, Example, Message, now

TOPICS = ["order", "refund", "other"]
SCHEMA = {
    "type": "object",
    "required": ["topic", "sure"],
    "additionalProperties": False,
    "properties": {"topic": {"enum": TOPICS}, "sure": {"type": "boolean"}},
}


def make_skill(home: Path, examples: Mode = "nearest") -> Skill:
    spec = {"title": "T", "description": "D", "instructions": "Sort it.", "prompting": {"examples": examples}}
    return write_skill(home, "sorting", spec, schema=SCHEMA)


@pytest.fixture
def skill(tmp_path: Path) -> Skill:
    return make_skill(tmp_path)


def example(number: int) -> Example:
    topic = TOPICS[number % 3]
    return Example(id=f"e{number}", input=f"about {topic} {number}", output={"sure": True, "topic": topic})


def embed(texts: Sequence[str]) -> Vectors:
    """One direction a topic."""
    return np.array([[float(topic in text) for topic in TOPICS] for text in texts], dtype=np.float32)


def shown(skill: Skill, examples: Sequence[Example], mode: Mode, request: str = "about refund") -> list[str]:
    turns = asyncio.run(Shots(skill, examples, embed).shown(mode, request, FakeEngine()))
    return [turn[0].content for turn in turns]


def test_an_example_is_shown_as_the_model_is_to_write_it(skill: Skill) -> None:
    talk = (Message(role="system", content="S"), Message(role="user", content="U"))
    turns = as_turns(skill, example(0).model_copy(update={"input": talk}))
    assert [(turn.role, turn.content) for turn in turns] == [
        ("user", "U"),
        ("assistant", '{"topic": "order", "sure": true}'),  # in the schema's order
    ]


def test_varied_examples_take_turns(skill: Skill) -> None:
    shots = varied(skill, [example(n) for n in range(30)])
    first = [shot.output["topic"] for shot in shots[:6]]
    assert sorted(first[:3]) == sorted(first[3:]) == sorted(TOPICS)
    assert len(shots) == 30


def test_the_nearest_are_of_the_request_s_kind_and_the_fixed_are_not(skill: Skill) -> None:
    examples = [example(n) for n in range(60)]
    assert len(shown(skill, examples, "nearest")) == NEAREST
    assert all("refund" in text for text in shown(skill, examples, "nearest"))
    fixed = shown(skill, examples, "fixed")
    assert len(fixed) == FIXED
    assert fixed == shown(skill, examples, "fixed", "about other")
    assert shown(skill, examples, "none") == []
    assert shown(skill, [], "nearest") == []


def test_a_vector_does_as_well_as_the_text(skill: Skill) -> None:
    examples = [example(n) for n in range(60)]
    shots = Shots(skill, examples, embed)
    vector = embed(["about refund"])[0]
    by_vector = asyncio.run(shots.shown("nearest", vector, FakeEngine()))
    assert [turn[0].content for turn in by_vector] == shown(skill, examples, "nearest")


def test_long_examples_are_no_more_than_the_budget(skill: Skill) -> None:
    long = [example(n).model_copy(update={"input": f"refund {n} " + "word " * (TOKENS // 3)}) for n in range(9)]
    assert 0 < len(shown(skill, long, "fixed")) < 3


# --- in service ------------------------------------------------------------------------------------------------


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    engine = open_database(database_url)
    yield engine
    engine.dispose()


def freeze(database: Database, name: str, numbers: Sequence[int], team: str = "default") -> None:
    dataset = Dataset(id=name, team=team, skill="sorting", digest=name, created=now(), train=len(numbers), heldout=1)
    items = [store.Item(example=example(n), key=f"k{n}", split="train", person=f"p{n}") for n in numbers]
    items.append(store.Item(example=example(1_000), key="held", split="heldout"))
    with database.begin() as connection:
        store.add_dataset(connection, dataset, items)


def served(shots: ServedShots, skill: Skill, request: str = "about order", team: str = "default") -> list[str]:
    return [turn[0].content for turn in asyncio.run(shots.shown(team, skill, request))]


def test_the_newest_dataset_is_shown_and_nothing_held_out(database: Database, skill: Skill) -> None:
    shots = ServedShots(database, embed, FakeEngine())
    assert served(shots, skill) == []
    freeze(database, "ds_1", [0, 3])
    assert sorted(served(shots, skill)) == ["about order 0", "about order 3"]
    freeze(database, "ds_2", [6])
    assert served(shots, skill) == ["about order 6"]


def test_what_was_erased_is_shown_no_more(database: Database, skill: Skill) -> None:
    shots = ServedShots(database, embed, FakeEngine())
    freeze(database, "ds_1", [0, 3])
    assert len(served(shots, skill)) == 2
    with database.begin() as connection:
        store.erase(connection, "default", person="p3")
    assert served(shots, skill) == ["about order 0"]


def test_another_team_s_examples_are_never_shown(database: Database, skill: Skill) -> None:
    shots = ServedShots(database, embed, FakeEngine())
    freeze(database, "ds_1", [0, 3])
    assert served(shots, skill, team="blue") == []


def test_a_skill_that_changed_its_mind_is_followed(database: Database, tmp_path: Path) -> None:
    shots = ServedShots(database, embed, FakeEngine())
    freeze(database, "ds_1", range(30))
    assert len(served(shots, make_skill(tmp_path / "a", "nearest"))) == NEAREST
    assert len(served(shots, make_skill(tmp_path / "b", "fixed"))) == FIXED
    assert served(shots, make_skill(tmp_path / "c", "none")) == []
