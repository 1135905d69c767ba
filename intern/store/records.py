"""Records and what hangs on them: reviews, learned utterances, examples from reviews.

`Recorder` writes records behind the request's back, in batches, in a thread of its own, so that recording costs a
request nothing it can feel; `flush` waits until everything handed over so far is committed. The rest are plain
queries; each filters by team.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from intern.errors import InvalidInput, NotFound, StoreFailure
from intern.store.tables import DatasetItemRow, DatasetRow, ExampleRow, RecordRow, ReviewRow, UtteranceRow
from intern.types import Example, Json, Record, Review, new_id, now

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
_BATCH = 200


class Recorder:
    """Takes records at any rate; `put` blocks never. Raises StoreFailure once too many wait for a broken database."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._queue: queue.SimpleQueue[Record | threading.Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.failure: str | None = None

    @property
    def backlog(self) -> int:
        """Records that wait to be written."""
        return self._queue.qsize()

    def put(self, record: Record) -> None:
        if self._queue.qsize() > MAX_WAITING:
            raise StoreFailure(f"{MAX_WAITING} records wait for the database: {self.failure or 'it is too slow'}.")
        self._start()
        self._queue.put(record)

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until what was put so far is committed. Raises StoreFailure when it is not within `timeout` seconds."""
        if self._thread is None:
            return
        done = threading.Event()
        self._queue.put(done)
        if not done.wait(timeout):
            raise StoreFailure(
                f"Records could not be written within {timeout:g} s: {self.failure or 'no reason known'}."
            )

    def close(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=30)
            self._thread = None

    def _start(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            batch: list[Record] = []
            events: list[threading.Event] = []
            item = self._queue.get()
            while True:
                if isinstance(item, Record):
                    batch.append(item)
                elif item is not None:
                    events.append(item)
                if item is None or len(batch) >= _BATCH:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._write(batch)
            for event in events:
                event.set()
            if item is None:
                return

    def _write(self, batch: list[Record]) -> None:
        """Commit the batch, trying again while the database is out of reach.

        A record that the database refuses for what it holds is logged and dropped, so that it cannot hold up the rest.
        """
        wait = 0.1
        while True:
            try:
                with self._database.begin() as connection:
                    connection.execute(sa.insert(RecordRow), [_row(record) for record in batch])
                self.failure = None
                return
            except (sa.exc.DataError, sa.exc.IntegrityError) as error:
                if len(batch) == 1:
                    log.error("record %s was refused by the database: %s", batch[0].id, error.__cause__)
                    return
                for record in batch:
                    self._write([record])
                return
            except sa.exc.SQLAlchemyError as error:
                self.failure = f"{type(error).__name__}: {error.__cause__ or error}"[:300]
                log.error("records cannot be written, trying again in %.1f s: %s", wait, self.failure)
                time.sleep(wait)
                wait = min(wait * 2, 10.0)
            except Exception as error:  # a record that cannot even be made JSON; this thread must outlive it
                if len(batch) == 1:
                    log.error("record %s cannot be kept: %s: %s", batch[0].id, type(error).__name__, error)
                    return
                for record in batch:
                    self._write([record])
                return


def _row(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "team": record.team,
        "skill": record.skill,
        "person": record.person,
        "created": record.created,
        "confidence": record.route.confidence,
        "review": record.review,
        "body": record.model_dump(mode="json"),
    }


def get_record(connection: Connection, team: str, record: str, *, lock: bool = False) -> Record:
    """`lock`: until the transaction ends, others that lock it wait (PostgreSQL; SQLite has one writer anyway).

    Raises NotFound, also for another team's record.
    """
    query = sa.select(RecordRow.body).where(RecordRow.team == team, RecordRow.id == record)
    if lock:
        query = query.with_for_update()
    body = connection.execute(query).scalar_one_or_none()
    if body is None:
        raise NotFound("record", record)
    return Record.model_validate(body)


def list_records(
    connection: Connection, team: str, *, skill: str | None = None, before: str | None = None, limit: int = 50
) -> list[Record]:
    """The newest records first; `before` is the id that the last page ended on."""
    query = sa.select(RecordRow.body).where(RecordRow.team == team)
    if skill is not None:
        query = query.where(RecordRow.skill == skill)
    if before is not None:
        query = query.where(RecordRow.id < before)
    rows = connection.execute(query.order_by(RecordRow.id.desc()).limit(limit)).scalars()
    return [Record.model_validate(body) for body in rows]


def delete_record(connection: Connection, team: str, record: str) -> None:
    """Delete a record with its reviews, and the utterances and examples derived from it. Raises NotFound."""
    statement = sa.delete(RecordRow).where(RecordRow.team == team, RecordRow.id == record)
    if connection.execute(statement).rowcount == 0:
        raise NotFound("record", record)


def delete_person(connection: Connection, team: str, person: str) -> dict[str, int]:
    """Delete everything kept of an end user, with what was derived from it; returns how many rows of what."""
    mine = sa.select(RecordRow.id).where(RecordRow.team == team, RecordRow.person == person)
    counts = {}
    for name, table in (("reviews", ReviewRow), ("utterances", UtteranceRow), ("examples", ExampleRow)):
        counts[name] = connection.execute(sa.delete(table).where(table.record.in_(mine))).rowcount
    own = sa.delete(ExampleRow).where(ExampleRow.team == team, ExampleRow.person == person)
    counts["examples"] += connection.execute(own).rowcount
    records = sa.delete(RecordRow).where(RecordRow.team == team, RecordRow.person == person)
    counts["records"] = connection.execute(records).rowcount
    return counts


def expire_records(connection: Connection, days: int) -> int:
    """Delete records older than `days` that nobody reviewed; returns how many. 0 days keeps everything."""
    if days == 0:
        return 0
    reviewed = sa.select(ReviewRow.record)
    old = sa.delete(RecordRow).where(RecordRow.created < now() - timedelta(days=days), RecordRow.id.not_in(reviewed))
    return connection.execute(old).rowcount


def add_review(connection: Connection, review: Review) -> None:
    body = review.model_dump(mode="json")
    columns = {"id": review.id, "team": review.team, "record": review.record, "verdict": review.verdict}
    connection.execute(sa.insert(ReviewRow).values(**columns, created=review.created, body=body))


def list_reviews(
    connection: Connection, team: str, *, record: str | None = None, before: str | None = None, limit: int = 50
) -> list[Review]:
    """The newest reviews first."""
    query = sa.select(ReviewRow.body).where(ReviewRow.team == team)
    if record is not None:
        query = query.where(ReviewRow.record == record)
    if before is not None:
        query = query.where(ReviewRow.id < before)
    rows = connection.execute(query.order_by(ReviewRow.id.desc()).limit(limit)).scalars()
    return [Review.model_validate(body) for body in rows]


def add_utterance(
    connection: Connection,
    team: str,
    text: str,
    *,
    skill: str | None,
    not_skill: str | None = None,
    source: str,
    record: str | None = None,
) -> None:
    """Keep a text for the router: it belongs to `skill` (None: to none), or does not belong to `not_skill`."""
    values = {"team": team, "text": text, "skill": skill, "not_skill": not_skill, "source": source, "record": record}
    connection.execute(sa.insert(UtteranceRow).values(id=new_id("utt"), created=now(), **values))


def list_utterances(connection: Connection, team: str) -> Sequence[tuple[str | None, str | None, str]]:
    """Every learned (skill, not_skill, text) of a team, oldest first."""
    columns = (UtteranceRow.skill, UtteranceRow.not_skill, UtteranceRow.text)
    query = sa.select(*columns).where(UtteranceRow.team == team).order_by(UtteranceRow.id)
    return [(skill, not_skill, text) for skill, not_skill, text in connection.execute(query)]


def add_examples(
    connection: Connection, team: str, skill: str, examples: Sequence[Example], *, person: str | None = None
) -> None:
    """Add examples, each of the person's words that it names, or all of those of `person`; all or none.

    Raises InvalidInput for a NUL character in any of its texts: with one such example in it, PostgreSQL could read
    no field of any of the team's examples (`body->>'split'` fails)."""
    bodies = [example.model_dump(mode="json") for example in examples]
    if any(map(has_nul, (*bodies, *(example.person for example in examples)))):
        raise InvalidInput("An example holds a NUL character (\\u0000); take it out.", param="examples")
    rows = [
        {
            "id": example.id,
            "team": team,
            "skill": skill,
            "body": body,
            "provenance": example.provenance,
            "contributor": example.contributor,
            "person": person or example.person,
            "record": example.record,
            "created": now(),
        }
        for example, body in zip(examples, bodies, strict=True)
    ]
    if rows:
        connection.execute(sa.insert(ExampleRow), rows)


def take_over(connection: Connection, team: str, skill: str, examples: Sequence[Example]) -> None:
    """Say anew who brought examples that are there, and how they are split: each row takes what its example says.

    Whose words they are (`person`) and the record they came from stay: who deletes by those must find them."""
    for example in examples:
        where = (ExampleRow.team == team, ExampleRow.skill == skill, ExampleRow.id == example.id)
        columns = {"provenance": example.provenance, "contributor": example.contributor}
        connection.execute(sa.update(ExampleRow).where(*where).values(**columns, body=example.model_dump(mode="json")))


def name_persons(connection: Connection, team: str, skill: str, persons: Mapping[str, str]) -> None:
    """Say whose words examples are, by id, of which that was not known; in datasets that hold them already, too, or who
    deletes by that person would not find those."""
    frozen = sa.select(DatasetRow.id).where(DatasetRow.team == team, DatasetRow.skill == skill)
    for example, person in persons.items():
        where = (ExampleRow.team == team, ExampleRow.skill == skill, ExampleRow.id == example)
        connection.execute(sa.update(ExampleRow).where(*where, ExampleRow.person.is_(None)).values(person=person))
        item = (DatasetItemRow.team == team, DatasetItemRow.dataset.in_(frozen), DatasetItemRow.example == example)
        connection.execute(
            sa.update(DatasetItemRow).where(*item, DatasetItemRow.person.is_(None)).values(person=person)
        )


def has_nul(value: Json) -> bool:
    """Whether a text of a JSON value, or a key, holds a NUL character. Models may write one; bodies of requests and
    imported files with one are refused."""
    if isinstance(value, dict):
        return any(has_nul(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return any(map(has_nul, value))
    return isinstance(value, str) and "\x00" in value


def list_examples(connection: Connection, team: str, skill: str) -> list[Example]:
    """Examples of a skill that did not come from its folder, oldest first."""
    query = sa.select(ExampleRow.body, ExampleRow.person).where(ExampleRow.team == team, ExampleRow.skill == skill)
    rows = connection.execute(query.order_by(ExampleRow.id))
    return [Example.model_validate({**body, "person": person}) for body, person in rows]


def examples_since(connection: Connection, team: str, skill: str, since: datetime | None = None) -> int:
    """How many examples of a skill people brought after `since`: those of its folder and written ones are left out."""
    mine = (ExampleRow.team == team, ExampleRow.skill == skill, ExampleRow.provenance != "synthesis")
    query = sa.select(sa.func.count()).where(*mine)
    return int(connection.execute(query if since is None else query.where(ExampleRow.created > since)).scalar_one())


def acceptance(
    connection: Connection, team: str, skill: str, *, until: datetime | None = None, limit: int = 1_000
) -> list[tuple[datetime, bool]]:
    """(when, whether the answer was taken as it was) of the last verdict on each of a skill's records, newest first; of
    verdicts up to `until`, where that is given."""
    query = (
        sa.select(ReviewRow.record, ReviewRow.verdict, ReviewRow.created)
        .join(RecordRow, RecordRow.id == ReviewRow.record)
        .where(ReviewRow.team == team, RecordRow.skill == skill, ReviewRow.verdict.in_(("accept", "correct", "reject")))
        .order_by(ReviewRow.id.desc())
        .limit(limit)
    )
    if until is not None:
        query = query.where(ReviewRow.created <= until)
    newest: dict[str, tuple[datetime, bool]] = {}
    for record, verdict, when in connection.execute(query):
        newest.setdefault(record, (when, verdict == "accept"))
    return list(newest.values())


def count_examples(connection: Connection, team: str) -> dict[str, tuple[int, int]]:
    """By skill, how many examples did not come from its folder: (all, held out)."""
    held_out = sa.func.sum(sa.case((ExampleRow.body["split"].as_string() == "heldout", 1), else_=0))
    query = sa.select(ExampleRow.skill, sa.func.count(), held_out).where(ExampleRow.team == team)
    return {skill: (count, held) for skill, count, held in connection.execute(query.group_by(ExampleRow.skill))}


def delete_example(connection: Connection, team: str, skill: str, example: str) -> None:
    where = (ExampleRow.team == team, ExampleRow.skill == skill, ExampleRow.id == example)
    if connection.execute(sa.delete(ExampleRow).where(*where)).rowcount == 0:
        raise NotFound("example", example)
