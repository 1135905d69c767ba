"""What a person's verdict does: it is kept, it teaches the router at once, and it becomes an example to train on later.

In: a record and a verdict. Out: a stored `Review`. The newest verdict on a record wins: what an older one taught is
taken back in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from intern.errors import InvalidInput
from intern.library import SkillLibrary
from intern.skill import Skill
from intern.store import records
from intern.store.tables import ExampleRow, UtteranceRow
from intern.types import Caller, Example, Json, Model, Record, Review, Verdict, last_user_text, new_id, now


class Judgement(Model):
    """A verdict as it comes in.

    `correction` is the right output (with `correct`, or with `wrong_skill` for the right skill). `right_skill` goes
    with `wrong_skill`: a skill's name, 'none' when no skill fits, or None when the reviewer does not say.
    """

    record: str
    verdict: Verdict
    correction: Json = None
    right_skill: str | None = None
    reason: str | None = None


class Learns(Protocol):
    def learn(self, team: str, text: str, *, skill: str | None, not_skill: str | None = None) -> None: ...


NONE = "none"


class Reviews:
    """Blocking and thread-safe. `on_change` is told the team whose router should be fitted again, in its own time."""

    def __init__(
        self,
        database: Engine,
        library: SkillLibrary,
        router: Learns,
        flush: Callable[[], None],
        on_change: Callable[[str], None],
    ) -> None:
        self._database = database
        self._library = library
        self._router = router
        self._flush = flush
        self._on_change = on_change

    def add(self, caller: Caller, judgement: Judgement) -> Review:
        """Store a verdict. Raises NotFound (record, skill) and InvalidInput, which names the field."""
        self._flush()
        with self._database.begin() as connection:
            # Locked: of two verdicts at the same moment, the later one takes back what the earlier one taught.
            record = records.get_record(connection, caller.team, judgement.record, lock=True)
            target = self._target(record, judgement)
            output = self._output(record, judgement, target)
            review = Review(
                id=new_id("rev"),
                team=caller.team,
                record=record.id,
                verdict=judgement.verdict,
                correction=judgement.correction,
                right_skill=judgement.right_skill,
                reason=judgement.reason,
                reviewer=caller.person or caller.key or "unknown",
                created=now(),
            )
            for table in (UtteranceRow, ExampleRow):
                connection.execute(sa.delete(table).where(table.team == caller.team, table.record == record.id))
            records.add_review(connection, review)
            learned = self._teach(connection, record, judgement)
            if output is not None and target is not None:
                example = Example(
                    id=new_id("ex"),
                    input=record.asked if len(record.asked) > 1 else last_user_text(record.asked),
                    output=output,
                    group=record.id,
                    provenance="review",
                    contributor=caller.key,
                    record=record.id,
                )
                records.add_examples(connection, caller.team, target.name, [example], person=record.person)
        text = last_user_text(record.asked)
        for skill, not_skill in learned:
            self._router.learn(caller.team, text, skill=skill, not_skill=not_skill)
        self._on_change(caller.team)
        return review

    def _target(self, record: Record, judgement: Judgement) -> Skill | None:
        """The skill that the example belongs to; None where the verdict makes none."""
        if judgement.verdict == "wrong_skill":
            if judgement.right_skill in (None, NONE):
                return None
            if judgement.right_skill == record.skill:
                raise InvalidInput(
                    "right_skill is the skill that answered; it cannot be wrong too.", param="right_skill"
                )
            return self._library.get(record.team, str(judgement.right_skill))
        if judgement.right_skill is not None:
            raise InvalidInput("right_skill goes with the verdict wrong_skill only.", param="right_skill")
        if judgement.verdict == "reject" or record.skill is None:
            return None
        return self._library.get(record.team, record.skill)

    def _output(self, record: Record, judgement: Judgement, target: Skill | None) -> Json:
        """The output of the example that this verdict makes, checked against the skill's schema; None for none."""
        verdict, correction = judgement.verdict, judgement.correction
        if verdict == "correct" and correction is None:
            raise InvalidInput("The verdict correct needs a correction: the right output.", param="correction")
        if verdict in ("accept", "reject") and correction is not None:
            raise InvalidInput(f"A correction does not go with the verdict {verdict}; use correct.", param="correction")
        if verdict in ("accept", "correct") and target is None:
            raise InvalidInput("No skill answered this record; use wrong_skill with right_skill.", param="verdict")
        if verdict == "accept":
            return _accepted(record, target)
        if correction is None or target is None:
            return None
        if target.schema is None:
            if not isinstance(correction, str):
                raise InvalidInput("The skill answers in text, so the correction must be a text.", param="correction")
        elif problems := target.schema.problems(correction):
            raise InvalidInput(f"The correction breaks the skill's schema: {problems[0]}", param="correction")
        return correction

    def _teach(
        self, connection: Connection, record: Record, judgement: Judgement
    ) -> list[tuple[str | None, str | None]]:
        """Utterances for the router, as (skill, not_skill) of the record's text."""
        if judgement.verdict in ("accept", "correct"):
            learned: list[tuple[str | None, str | None]] = [(record.skill, None)]
        elif judgement.verdict == "wrong_skill":
            learned = [] if record.skill is None else [(None, record.skill)]
            if judgement.right_skill is not None:
                learned.append((None if judgement.right_skill == NONE else judgement.right_skill, None))
        else:
            learned = []
        text = last_user_text(record.asked)
        for skill, not_skill in learned:
            records.add_utterance(
                connection, record.team, text, skill=skill, not_skill=not_skill, source="review", record=record.id
            )
        return learned


def _accepted(record: Record, target: Skill | None) -> Json:
    """The answer of a record as an example's output. Raises InvalidInput where it cannot be one."""
    first = record.choices[0] if record.choices else None
    if record.error is not None or first is None or not first.valid or first.tool_calls:
        raise InvalidInput("This record has no finished, valid answer that could be accepted.", param="verdict")
    if records.has_nul(first.text) or records.has_nul(first.parsed):
        raise InvalidInput(
            "The answer holds a NUL character (\\u0000), which no example may hold. "
            "Use the verdict correct, with the right output.",
            param="verdict",
        )
    if target is None or target.schema is None:
        return first.text
    if problems := target.schema.problems(first.parsed):
        raise InvalidInput(
            f"The answer breaks the schema that the skill has by now: {problems[0]}. "
            "Use the verdict correct, with the right output.",
            param="verdict",
        )
    return first.parsed
