"""Which examples a prompt shows: varied ones, or the nearest, and in service those of the newest dataset."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine as Database

from intern.engines.fake import FakeEngine
from intern.learning.examples.items import key_of, origin_of
from intern.learning.examples.shots import FIXED, NEAREST, Mode, ServedShots, Shots, as_turns, varied
from intern.learning.loop.collecting import Collecting
from intern.learning.loop.contracts import Work
from intern.learning.train.recipe import Recipe
from intern.models.embedder import Vectors
from intern.skill import Skill, write_skill
from intern.store import learning as store
from intern.store import records
from intern.store.engine import open_database
from intern.types import Dataset, Dropped, Example, Message, Run, now

ROOM = 3000  # tokens
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


def shown(
    skill: Skill, examples: Sequence[Example], mode: Mode, request: str = "about refund", room: int = ROOM
) -> list[str]:
    turns = asyncio.run(Shots(skill, examples, embed).shown(mode, request, FakeEngine(), room=room))
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
    by_vector = asyncio.run(shots.shown("nearest", vector, FakeEngine(), room=ROOM))
    assert [turn[0].content for turn in by_vector] == shown(skill, examples, "nearest")


def test_who_leaves_while_the_examples_are_embedded_stops_nothing(skill: Skill) -> None:
    calls: list[int] = []
    going, go_on = threading.Event(), threading.Event()

    def slow(texts: Sequence[str]) -> Vectors:
        calls.append(len(texts))
        if len(texts) > 1:
            going.set()
            go_on.wait()
        return embed(texts)

    async def ask() -> None:
        shots = Shots(skill, [example(n) for n in range(60)], slow)
        leaving = [
            asyncio.create_task(shots.shown("nearest", "about refund", FakeEngine(), room=ROOM)) for _ in range(3)
        ]
        await asyncio.to_thread(going.wait)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        staying = asyncio.create_task(shots.shown("nearest", "about refund", FakeEngine(), room=ROOM))
        await asyncio.sleep(0)
        go_on.set()
        assert len(await staying) == NEAREST

    asyncio.run(ask())
    assert calls == [60, 1]


def test_examples_that_could_not_be_embedded_are_tried_again(skill: Skill) -> None:
    fails = [True]

    def failing(texts: Sequence[str]) -> Vectors:
        if fails:
            fails.pop()
            raise OSError("no memory")
        return embed(texts)

    async def ask() -> None:
        shots = Shots(skill, [example(n) for n in range(60)], failing)
        with pytest.raises(OSError, match="no memory"):
            await shots.shown("nearest", "about refund", FakeEngine(), room=ROOM)
        assert len(await shots.shown("nearest", "about refund", FakeEngine(), room=ROOM)) == NEAREST

    asyncio.run(ask())


def test_as_many_examples_are_shown_as_fit(skill: Skill) -> None:
    examples = [example(n).model_copy(update={"input": f"refund {n} " + "word " * 30}) for n in range(40)]
    some = [len(shown(skill, examples, "fixed", room=room)) for room in (0, 200, 400, 800, 8000)]
    assert some[0] == 0
    assert 0 < some[1] < some[2] < some[3] < some[4] == FIXED


@pytest.mark.parametrize("mode", ["fixed", "nearest"])
def test_an_example_that_is_too_long_makes_way_for_the_next(skill: Skill, mode: Mode) -> None:
    examples = [example(n).model_copy(update={"input": f"refund {n}"}) for n in range(3)]
    first = shown(skill, examples, mode)[0 if mode == "fixed" else -1]
    place = [e.input for e in examples].index(first)
    examples[place] = examples[place].model_copy(update={"input": first + " word" * ROOM})
    assert sorted(shown(skill, examples, mode)) == sorted({"refund 0", "refund 1", "refund 2"} - {first})


# --- in service ------------------------------------------------------------------------------------------------


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    engine = open_database(database_url)
    yield engine
    engine.dispose()


def freeze(
    database: Database, name: str, numbers: Sequence[int], team: str = "default", dropped: Sequence[Dropped] = ()
) -> None:
    """A dataset of examples that people brought, which are there still."""
    dataset = Dataset(
        id=name, team=team, skill="sorting", digest=name, created=now(), train=len(numbers), heldout=1,
        dropped=tuple(dropped),
    )  # fmt: skip
    brought = {n: example(n).model_copy(update={"provenance": "api"}) for n in (*numbers, 1_000)}
    items = [store.Item(example=brought[n], key=f"k{n}", split="train", person=f"p{n}") for n in numbers]
    items.append(store.Item(example=brought[1_000], key="held", split="heldout"))
    with database.begin() as connection:
        store.add_dataset(connection, dataset, items)
        there = store.still_there(connection, team, "sorting", [one.id for one in brought.values()])
        for number, one in brought.items():
            if one.id not in there:
                records.add_examples(connection, team, "sorting", [one], person=f"p{number}")


def served(shots: ServedShots, skill: Skill, request: str = "about order", team: str = "default") -> list[str]:
    return [turn[0].content for turn in asyncio.run(shots.shown(team, skill, request, room=ROOM))]


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
        store.erase(connection, "default", store.Whose(person="p3"))
    assert served(shots, skill) == ["about order 0"]


def test_what_was_deleted_by_hand_is_shown_no_more(database: Database, skill: Skill) -> None:
    shots = ServedShots(database, embed, FakeEngine())
    freeze(database, "ds_1", range(0, 600, 3))  # orders
    before = served(shots, skill)
    assert len(before) == NEAREST
    with database.begin() as connection:
        for number in range(0, 300, 3):
            records.delete_example(connection, "default", "sorting", f"e{number}")
    after = served(shots, skill)
    assert len(after) == NEAREST
    assert all(int(text.split()[-1]) >= 300 for text in after)
    with database.begin() as connection:
        store.forget_skill(connection, "default", "sorting")
    assert served(shots, skill) == []


def test_what_left_the_skill_s_folder_is_shown_no_more(database: Database, tmp_path: Path) -> None:
    rows = [{"id": f"e{n}", "input": example(n).text, "output": example(n).output} for n in range(2)]
    spec = {"title": "T", "description": "D", "instructions": "I", "prompting": {"examples": "fixed"}}
    both, one = (
        write_skill(tmp_path / name, "sorting", spec, schema=SCHEMA, examples=kept)
        for name, kept in (("a", rows), ("b", rows[:1]))
    )
    dataset = Dataset(id="ds_1", team="default", skill="sorting", digest="d", created=now(), train=2, heldout=0)
    with database.begin() as connection:
        items = [
            store.Item(example=example(n), key=f"k{n}", split="train", origin=origin_of(example(n))) for n in range(2)
        ]
        store.add_dataset(connection, dataset, items)
    shots = ServedShots(database, embed, FakeEngine())
    assert sorted(served(shots, both)) == ["about order 0", "about refund 1"]
    assert served(shots, one) == ["about order 0"]


class Parts:
    """What collecting takes of a workspace. Whatever is personal here begins with `about`."""

    contributor_cap = 200

    def __init__(self, database: Database) -> None:
        self.database = database

    def redacts(self, team: str, skill: Skill) -> Any:
        def redact(example: Example) -> tuple[Example, None]:
            without = {"input": example.text.replace("about", "<PERSON_1>")}
            if isinstance(example.output, str):
                without["output"] = example.output.replace("about", "<PERSON_1>")
            return example.model_copy(update=without), None

        return redact


def collect(database: Database, skill: Skill) -> None:
    """Freeze a dataset of the skill as a run does."""

    async def tell(event: Any) -> None: ...

    parts: Any = Parts(database)
    run = Run(id="run_1", team="default", skill=skill.name, state="running", created=now())
    asyncio.run(Collecting(Work(parts, skill, run, Recipe(), tell)).collect(force=True))


def folder_skill(home: Path, *rows: dict[str, Any], schema: Any = SCHEMA) -> Skill:
    """A skill whose folder has these examples, and one that is held out."""
    spec = {"title": "T", "description": "D", "instructions": "I", "prompting": {"examples": "fixed"}}
    held = {"id": "held", "input": "what is judged", "output": rows[-1]["output"], "split": "heldout"}
    return write_skill(home, "sorting", spec, schema=schema, examples=[*rows, held])


def row(topic: str, id: str | None = "1", input: str = "about refund 1") -> dict[str, Any]:
    return {"input": input, "output": {"topic": topic, "sure": True}, **({"id": id} if id else {})}


@pytest.mark.parametrize("id", ["1", None])
def test_what_was_corrected_in_the_skill_s_folder_is_shown_when_the_next_dataset_has_it(
    database: Database, tmp_path: Path, id: str | None
) -> None:
    stays = row("other", "2", "about other 2")
    before, after = (
        folder_skill(tmp_path / topic, row(topic, id), stays, schema=SCHEMA) for topic in ("order", "refund")
    )
    shots = ServedShots(database, embed, FakeEngine())
    collect(database, before)
    assert sorted(served(shots, before)) == ["<PERSON_1> other 2", "<PERSON_1> refund 1"]
    assert served(shots, after) == ["<PERSON_1> other 2"]
    collect(database, after)
    assert sorted(served(shots, after)) == ["<PERSON_1> other 2", "<PERSON_1> refund 1"]
    assert served(shots, before) == ["<PERSON_1> other 2"]


def test_a_correction_that_redaction_hides_is_one_all_the_same(database: Database, tmp_path: Path) -> None:
    before, after = (
        folder_skill(tmp_path / name, {"id": "1", "input": "x", "output": said}, schema=None)
        for name, said in (("a", "about x"), ("b", "<PERSON_1> x"))
    )
    shots = ServedShots(database, embed, FakeEngine())
    collect(database, before)
    assert (served(shots, before), served(shots, after)) == (["x"], [])
    collect(database, after)
    assert (served(shots, before), served(shots, after)) == ([], ["x"])


def test_nothing_is_left_of_a_deleted_skill_when_another_one_gets_its_name(database: Database, tmp_path: Path) -> None:
    old = folder_skill(tmp_path / "old", row("order"), row("refund", "2", "about refund 2"))
    shots = ServedShots(database, embed, FakeEngine())
    with database.begin() as connection:
        brought = example(9).model_copy(update={"provenance": "import", "split": "train"})
        records.add_examples(connection, "default", "sorting", [brought])
    collect(database, old)
    assert len(served(shots, old)) == 3
    with database.begin() as connection:
        store.forget_skill(connection, "default", "sorting")
    other = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}
    new = folder_skill(
        tmp_path / "new", {"id": "1", "input": "about refund 1", "output": {"mood": "bad"}}, schema=other
    )
    assert served(shots, new) == []


def test_what_does_not_keep_the_schema_of_today_is_not_shown(database: Database, tmp_path: Path) -> None:
    shots = ServedShots(database, embed, FakeEngine())
    freeze(database, "ds_1", [0, 1, 2])  # each of another topic
    assert len(served(shots, make_skill(tmp_path / "a"))) == 3
    spec = {"title": "T", "description": "D", "instructions": "Sort it.", "prompting": {"examples": "nearest"}}
    narrow = {**SCHEMA, "properties": {"topic": {"enum": ["order", "other"]}, "sure": {"type": "boolean"}}}
    assert len(served(shots, write_skill(tmp_path / "b", "sorting", spec, schema=narrow))) == 2
    assert served(shots, write_skill(tmp_path / "c", "sorting", spec)) == [], "texts are asked for now"


def test_of_a_dataset_from_before_origins_what_is_plainly_the_same_is_shown(database: Database, tmp_path: Path) -> None:
    skill = folder_skill(tmp_path, row("refund"), row("order", "2", "about order 2"))
    kept = [one for one in skill.examples if one.split is None]
    changed = kept[0].model_copy(update={"output": {"topic": "other", "sure": True}})
    dataset = Dataset(id="ds_1", team="default", skill="sorting", digest="d", created=now(), train=2, heldout=0)
    with database.begin() as connection:
        items = [store.Item(example=one, key=key_of(one), split="train") for one in (changed, kept[1])]
        store.add_dataset(connection, dataset, items)
    assert served(ServedShots(database, embed, FakeEngine()), skill) == ["about order 2"]


def test_a_request_reads_no_row_of_a_dataset_as_a_whole(database: Database, skill: Skill) -> None:
    shots = ServedShots(database, embed, FakeEngine())
    dropped = [Dropped(example=f"d{n}", reason="duplicate", detail="the same as e0") for n in range(10)]
    freeze(database, "ds_1", [0, 3], dropped=dropped)
    served(shots, skill)
    asked: list[str] = []
    sa.event.listen(database, "before_cursor_execute", lambda *parts: asked.append(parts[2]))
    assert len(served(shots, skill)) == 2
    assert asked
    assert not [statement for statement in asked if "body" in statement]


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
