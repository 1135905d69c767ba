"""Records are written behind the request, belong to one team, and go with everything that was derived from them."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from made_records import record

from intern.errors import InvalidInput, NotFound, StoreFailure
from intern.library import SkillLibrary
from intern.reviews import Judgement, Reviews
from intern.skill import write_skill
from intern.store import records
from intern.store.engine import describe, open_database
from intern.store.records import Recorder
from intern.store.tables import ExampleRow, RecordRow
from intern.types import Caller, Choice, Example, Message, Record, now

LABEL = {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"]}


class Pupil:
    """A router that notes what it is taught."""

    def __init__(self) -> None:
        self.learned: list[tuple[str, str | None, str | None]] = []

    def learn(self, team: str, text: str, *, skill: str | None, not_skill: str | None = None) -> None:
        self.learned.append((text, skill, not_skill))


class Setting:
    def __init__(self, home: Path, url: str) -> None:
        self.database = open_database(url)
        spec = {"title": "T", "description": "D", "instructions": "I"}
        write_skill(home / "skills", "label", spec, schema=LABEL)
        write_skill(home / "skills", "other", spec)
        library = SkillLibrary(home)
        library.refresh()
        self.recorder, self.pupil = Recorder(self.database), Pupil()
        self.changed: list[str] = []
        self.reviews = Reviews(self.database, library, self.pupil, self.recorder.flush, self.changed.append)

    def put(self, record: Record) -> Record:
        self.recorder.put(record)
        self.recorder.flush()
        return record

    def judge(self, verdict: str, of: Record, **more: object) -> None:
        judgement = Judgement.model_validate({"record": of.id, "verdict": verdict, **more})
        self.reviews.add(Caller(key="key_1"), judgement)

    def examples(self, skill: str = "label") -> list[Example]:
        with self.database.connect() as connection:
            return records.list_examples(connection, "default", skill)

    def utterances(self) -> list[tuple[str | None, str | None, str]]:
        with self.database.connect() as connection:
            return list(records.list_utterances(connection, "default"))


@pytest.fixture
def setting(tmp_path: Path, database_url: str) -> object:
    setting = Setting(tmp_path, database_url)
    yield setting
    setting.recorder.close()
    setting.database.dispose()


def test_a_record_comes_back_as_it_was_put(setting: Setting) -> None:
    put = setting.put(record(person="eve", timings={"total": 0.25}))
    with setting.database.connect() as connection:
        assert records.get_record(connection, "default", put.id) == put


def test_a_model_may_write_any_character(setting: Setting) -> None:
    written = "a\x00b \U0001f600 \u2028 \ufffe"
    put = setting.put(record(choices=(Choice(text=written, parsed={"label": written}),)))
    with setting.database.connect() as connection:
        assert records.get_record(connection, "default", put.id) == put


def test_many_records_are_written_together_and_in_order(setting: Setting) -> None:
    put = [record() for _ in range(500)]
    ids = [one.id for one in put]
    for one in put:
        setting.recorder.put(one)
    setting.recorder.flush()
    with setting.database.connect() as connection:
        page = records.list_records(connection, "default", limit=200)
        rest = records.list_records(connection, "default", before=page[-1].id, limit=1000)
    assert [r.id for r in (*page, *rest)] == ids[::-1]


def test_another_teams_record_does_not_exist(setting: Setting) -> None:
    theirs = setting.put(record(team="blue"))
    with setting.database.begin() as connection:
        for attempt in (records.get_record, records.delete_record):
            with pytest.raises(NotFound):
                attempt(connection, "default", theirs.id)
        assert records.list_records(connection, "default") == []
    with pytest.raises(NotFound):
        setting.judge("accept", theirs)


def test_accepting_makes_an_example_and_teaches_the_router(setting: Setting) -> None:
    setting.judge("accept", setting.put(record()))
    (example,) = setting.examples()
    assert (example.input, example.output, example.provenance) == ("is this a?", {"label": "a"}, "review")
    assert setting.pupil.learned == [("is this a?", "label", None)]
    assert setting.utterances() == [("label", None, "is this a?")]
    assert setting.changed == ["default"]


def test_a_correction_must_keep_the_schema(setting: Setting) -> None:
    put = setting.put(record())
    with pytest.raises(InvalidInput, match="breaks the skill's schema") as caught:
        setting.judge("correct", put, correction={"label": "z"})
    assert caught.value.param == "correction"
    assert setting.examples() == []
    setting.judge("correct", put, correction={"label": "b"})
    assert setting.examples()[0].output == {"label": "b"}


def test_the_newest_verdict_wins_and_takes_back_what_the_older_taught(setting: Setting) -> None:
    put = setting.put(record())
    setting.judge("accept", put)
    setting.judge("wrong_skill", put, right_skill="other")
    assert setting.examples() == []
    assert setting.utterances() == [(None, "label", "is this a?"), ("other", None, "is this a?")]
    setting.judge("reject", put, reason="no")
    assert setting.utterances() == []
    with setting.database.connect() as connection:
        assert [r.verdict for r in records.list_reviews(connection, "default")] == ["reject", "wrong_skill", "accept"]


def test_wrong_skill_can_say_that_none_fits(setting: Setting) -> None:
    setting.judge("wrong_skill", setting.put(record()), right_skill="none")
    assert setting.pupil.learned == [("is this a?", None, "label"), ("is this a?", None, None)]


@pytest.mark.parametrize(
    ("verdict", "more", "param"),
    [
        ("correct", {}, "correction"),
        ("accept", {"correction": {"label": "a"}}, "correction"),
        ("accept", {"right_skill": "other"}, "right_skill"),
        ("wrong_skill", {"right_skill": "label"}, "right_skill"),
    ],
)
def test_a_verdict_that_makes_no_sense_is_refused(
    setting: Setting, verdict: str, more: dict[str, object], param: str
) -> None:
    put = setting.put(record())
    with pytest.raises(InvalidInput) as caught:
        setting.judge(verdict, put, **more)
    assert caught.value.param == param


def test_an_invalid_answer_cannot_be_accepted(setting: Setting) -> None:
    put = setting.put(record(choices=(Choice(text="x", valid=False),)))
    with pytest.raises(InvalidInput):
        setting.judge("accept", put)


def test_an_answer_that_was_never_delivered_cannot_be_accepted(setting: Setting) -> None:
    put = setting.put(record(error="engine_failure: it broke"))
    with pytest.raises(InvalidInput) as caught:
        setting.judge("accept", put)
    assert caught.value.param == "verdict"
    assert setting.examples() == []
    setting.judge("correct", put, correction={"label": "b"})
    assert setting.examples()[0].output == {"label": "b"}


def test_a_call_of_a_tool_cannot_be_accepted_as_an_answer(setting: Setting) -> None:
    put = setting.put(record(skill="other", choices=(Choice(tool_calls=({"id": "c"},), finish_reason="tool_calls"),)))
    with pytest.raises(InvalidInput):
        setting.judge("accept", put)


@pytest.mark.parametrize("parsed", [{"label": "a", "note": "a\x00b"}, {"label": "a", "no\x00te": ["x"]}])
def test_an_answer_with_a_nul_cannot_be_accepted_and_the_teams_examples_stay_readable(
    setting: Setting, parsed: object
) -> None:
    setting.judge("accept", setting.put(record()))
    put = setting.put(record(choices=(Choice(text=json.dumps(parsed), parsed=parsed),)))
    with pytest.raises(InvalidInput, match="NUL character") as caught:
        setting.judge("accept", put)
    assert caught.value.param == "verdict"
    setting.judge("correct", put, correction={"label": "b"})
    with setting.database.connect() as connection:
        assert records.count_examples(connection, "default") == {"label": (2, 0)}


def test_a_text_with_a_nul_cannot_be_accepted(setting: Setting) -> None:
    put = setting.put(record(skill="other", choices=(Choice(text="a\x00b"),)))
    with pytest.raises(InvalidInput, match="Use the verdict correct"):
        setting.judge("accept", put)
    assert setting.examples("other") == []
    setting.judge("accept", setting.put(record(skill="other", choices=(Choice(text="a\\u0000b"),))))
    assert setting.examples("other")[0].output == "a\\u0000b", "those are six ordinary characters"


@pytest.mark.parametrize(
    "more",
    [
        {"input": "a\x00"},
        {"input": (Message(role="user", content="\x00"),)},
        {"output": {"a": [{"b": "\x00"}]}},
        {"output": {"\x00": 1}},
        {"group": "\x00"},
    ],
)
def test_no_example_is_kept_with_a_nul_wherever_it_comes_from(setting: Setting, more: dict[str, object]) -> None:
    made = Example.model_validate({"id": "ex_1", "input": "a", "output": "b", **more})
    with setting.database.begin() as connection:
        with pytest.raises(InvalidInput, match="NUL character"):
            records.add_examples(connection, "default", "other", [made])
        assert records.count_examples(connection, "default") == {}


@pytest.mark.parametrize("parsed", [{"label": "z"}, None])
def test_an_answer_that_breaks_todays_schema_cannot_be_accepted(setting: Setting, parsed: object) -> None:
    put = setting.put(record(choices=(Choice(text="as it was", parsed=parsed),)))
    with pytest.raises(InvalidInput, match="by now") as caught:
        setting.judge("accept", put)
    assert caught.value.param == "verdict"
    assert setting.examples() == []


def test_the_record_of_a_skill_that_is_gone_can_be_rejected(setting: Setting) -> None:
    put = setting.put(record(skill="gone"))
    setting.judge("reject", put, reason="no")
    with pytest.raises(NotFound):
        setting.judge("accept", put)


def test_of_verdicts_at_the_same_moment_one_stands(setting: Setting) -> None:
    for put in [setting.put(record()) for _ in range(10)]:
        start = threading.Barrier(2)

        def judge(label: str, put: Record = put, start: threading.Barrier = start) -> None:
            start.wait()
            setting.judge("correct", put, correction={"label": label})

        with ThreadPoolExecutor(2) as people:
            list(people.map(judge, "ab"))
        assert len([example for example in setting.examples() if example.record == put.id]) == 1


def test_deleting_a_record_deletes_what_it_taught(setting: Setting) -> None:
    put = setting.put(record())
    setting.judge("accept", put)
    with setting.database.begin() as connection:
        records.delete_record(connection, "default", put.id)
    assert setting.examples() == []
    assert setting.utterances() == []
    with setting.database.connect() as connection:
        assert records.list_reviews(connection, "default") == []


def test_deleting_a_person_deletes_all_of_theirs_and_nothing_else(setting: Setting) -> None:
    hers, his = setting.put(record(person="eve")), setting.put(record(person="bob"))
    setting.judge("accept", hers)
    setting.judge("accept", his)
    with setting.database.begin() as connection:
        counts = records.delete_person(connection, "default", "eve")
    assert counts == {"reviews": 1, "utterances": 1, "examples": 1, "records": 1}
    with setting.database.connect() as connection:
        assert [r.person for r in records.list_records(connection, "default")] == ["bob"]


def test_old_records_expire_unless_they_were_reviewed(setting: Setting) -> None:
    old = now() - timedelta(days=100)
    kept, new = setting.put(record(created=old)), setting.put(record())
    setting.put(record(created=old))
    setting.judge("accept", kept)
    with setting.database.begin() as connection:
        assert records.expire_records(connection, 0) == 0
        assert records.expire_records(connection, 90) == 1
        assert {r.id for r in records.list_records(connection, "default")} == {kept.id, new.id}


def test_records_wait_while_the_database_cannot_be_written(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    with setting.database.begin() as connection:
        connection.execute(sa.text("alter table records rename to hidden"))
    put = record()
    setting.recorder.put(put)
    with pytest.raises(StoreFailure):
        setting.recorder.flush(timeout=0.3)
    assert setting.recorder.failure
    with setting.database.begin() as connection:
        connection.execute(sa.text("alter table hidden rename to records"))
    setting.recorder.flush()
    assert setting.recorder.failure is None
    with setting.database.connect() as connection:
        assert connection.execute(sa.select(RecordRow.id)).scalar_one() == put.id


def test_sqlite_is_a_build_without_the_wal_reset_bug(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    version = tuple(int(n) for n in describe(database).removeprefix("SQLite ").split("."))
    assert version >= (3, 51, 3)
    with database.connect() as connection:
        assert connection.execute(sa.text("pragma journal_mode")).scalar() == "wal"
        assert connection.execute(sa.text("pragma synchronous")).scalar() == 2
        assert connection.execute(sa.text("pragma foreign_keys")).scalar() == 1
    database.dispose()


def test_the_recorder_outlives_a_record_that_cannot_be_kept(tmp_path: Path) -> None:
    setting = Setting(tmp_path, f"sqlite:///{tmp_path / 'test.db'}")
    deep: object = 1
    for _ in range(500):
        deep = [deep]
    setting.recorder.put(record(choices=(Choice(parsed=deep),)))
    good = setting.put(record())
    with setting.database.connect() as connection:
        assert [r.id for r in records.list_records(connection, "default")] == [good.id]
    setting.recorder.close()
    setting.database.dispose()


def test_what_an_import_takes_over_is_still_found_by_its_person(setting: Setting) -> None:
    first = Example(id="ex_1", input="is this b?", output={"label": "b"}, provenance="review", contributor="key_1")
    second = first.model_copy(update={"id": "ex_2"})
    taken = first.model_copy(update={"provenance": "import", "contributor": "key_2", "split": "heldout"})
    with setting.database.begin() as connection:
        records.add_examples(connection, "default", "label", [first, second], person="eve")
        records.take_over(connection, "default", "label", [taken])
        records.take_over(connection, "other", "label", [second.model_copy(update={"contributor": "thief"})])
        eves = [example.model_copy(update={"person": "eve"}) for example in (taken, second)]
        assert records.list_examples(connection, "default", "label") == eves
        columns = sa.select(ExampleRow.provenance, ExampleRow.contributor).where(ExampleRow.id == "ex_1")
        assert connection.execute(columns).one() == ("import", "key_2")
        assert records.delete_person(connection, "default", "eve")["examples"] == 2
