"""What a run says to examples that nothing can be learned from, before it trains and without keeping a dataset."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from intern.engines.fake import FakeEngine
from intern.errors import InvalidInput, ModelUnavailable
from intern.learning.loop.collecting import NotReady
from intern.learning.loop.contracts import BaseModel
from intern.learning.loop.loop import Loop
from intern.learning.parts import WorkspaceParts
from intern.learning.train.job import Event
from intern.learning.train.recipe import Recipe
from intern.models.fake import HashEmbedder
from intern.settings import Settings
from intern.skill import write_skill
from intern.store import learning as store
from intern.types import Run, now
from intern.workspace import Workspace

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["mood"],
    "properties": {"mood": {"enum": ["good", "bad"]}},
}
WORDS = ("apple", "bridge", "castle", "dragon", "engine", "forest", "garden", "harbour", "island", "jungle")

pytestmark = pytest.mark.anyio

Rows = list[dict[str, Any]]
Collect = Callable[..., Any]


def rows(count: int, mood: Callable[[int], str] = lambda n: ("good", "bad")[n % 2]) -> Rows:
    """Different inputs, none a near-copy of another."""
    made = []
    for n in range(count):
        names = [f"{WORDS[n // 10**place % 10]}{place}{n // 7 % 5}" for place in range(3)]
        made.append({"input": f"{' '.join(names)} number {n} seen by {WORDS[n % 9]}{n}", "output": {"mood": mood(n)}})
    return made


@pytest.fixture
async def collect(tmp_path: Path) -> AsyncIterator[Collect]:
    opened: list[Workspace] = []

    async def make(examples: Rows, *, force: bool = False) -> tuple[Any, list[Event]]:
        spec = {"title": "T", "description": "D", "instructions": "I", "learning": {"redact": "collected"}}
        write_skill(tmp_path / "skills", "mood", spec, schema=SCHEMA, examples=examples)
        workspace = Workspace(Settings(home=tmp_path), engine=FakeEngine(), embedder=HashEmbedder())
        opened.append(workspace)
        run = Run(id="run_1", team="default", skill="mood", state="running", created=now())
        told: list[Event] = []

        async def tell(event: Event) -> None:
            told.append(event)

        loop = Loop(workspace.parts, workspace.library.get("default", "mood"), run, Recipe(), tell)
        try:
            return await loop.collect(force=force), told
        except InvalidInput:
            with workspace.database.connect() as connection:
                assert store.list_datasets(connection, "default") == []
            raise

    yield make
    for workspace in opened:
        await workspace.close()


async def test_enough_good_examples_are_frozen(collect: Collect) -> None:
    found, _ = await collect(rows(100))
    dataset = found.dataset
    assert (dataset.train, dataset.heldout) == (len(found.train), len(found.heldout))
    assert dataset.train + dataset.heldout == 100
    assert dataset.heldout >= 20


async def test_a_base_that_takes_no_adapters_is_refused_before_anything_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_skill(tmp_path / "skills", "mood", {"title": "T", "description": "D", "instructions": "I"})
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"model_type": "mamba", "num_hidden_layers": 2}')
    workspace = Workspace(Settings(home=tmp_path), engine=FakeEngine(), embedder=HashEmbedder())
    base = BaseModel(path=str(tmp_path / "base"), name="odd", sha256="0" * 64)
    monkeypatch.setattr(WorkspaceParts, "base", base)
    run = Run(id="run_1", team="default", skill="mood", state="running", created=now())
    told: list[Event] = []

    async def tell(event: Event) -> None:
        told.append(event)

    loop = Loop(workspace.parts, workspace.library.get("default", "mood"), run, Recipe(), tell)
    with pytest.raises(ModelUnavailable, match="architecture 'mamba'"):
        await loop.learn(serving=None)
    assert told == []
    await workspace.close()


async def test_five_examples_are_too_few_and_it_says_how_many_are_needed(collect: Collect) -> None:
    with pytest.raises(NotReady, match=r"^5 examples, 50 needed\.$"):
        await collect(rows(5))


async def test_outputs_that_are_all_the_same_teach_nothing(collect: Collect) -> None:
    with pytest.raises(NotReady, match="Every example has the same output"):
        await collect(rows(100, lambda n: "good"))


async def test_contradictions_are_left_out_on_both_sides_and_counted(collect: Collect) -> None:
    good = rows(100)
    other = [{"input": row["input"], "output": {"mood": "bad"}} for row in good[:40:2]]  # those are good
    found, told = await collect([*good, *({**row, "id": f"other-{n}"} for n, row in enumerate(other))])
    assert [row.reason for row in found.dataset.dropped] == ["contradiction"] * 40
    assert found.dataset.train + found.dataset.heldout == 80
    assert {example.text for example in (*found.train, *found.heldout)}.isdisjoint(row["input"] for row in other)
    assert any("40 examples contradict others" in event.text for event in told)


@pytest.mark.parametrize(("force", "said"), [(False, r"^0 examples, 50 needed"), (True, "There must be examples")])
async def test_where_everything_contradicts_itself_nothing_is_left(collect: Collect, force: bool, said: str) -> None:
    good = rows(60)
    other = [
        {"input": row["input"], "output": {"mood": "good" if row["output"]["mood"] == "bad" else "bad"}, "id": f"o{n}"}
        for n, row in enumerate(good)
    ]
    with pytest.raises(InvalidInput, match=said):
        await collect([*good, *other], force=force)
