"""What the learning half keeps: held-out inputs, datasets, runs, adapters, deployments. Plain queries, each by team."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from intern.errors import NotFound
from intern.store.lock import serialise
from intern.store.tables import (
    AdapterRow,
    DatasetItemRow,
    DatasetRow,
    DeploymentChangeRow,
    DeploymentRow,
    ExampleRow,
    HeldoutRow,
    RecordRow,
    ReviewRow,
    RunEventRow,
    RunRow,
    SplitSecretRow,
    TrainedRow,
    UtteranceRow,
)
from intern.types import Adapter, Dataset, Deployment, Example, Json, Model, Run, new_id, now

_MOST = 1_000_000  # runs of one skill

# --- held-out inputs ---------------------------------------------------------------------------------------------


def heldout_keys(connection: Connection, team: str, skill: str) -> set[str]:
    query = sa.select(HeldoutRow.key).where(HeldoutRow.team == team, HeldoutRow.skill == skill)
    return set(connection.execute(query).scalars())


def hold_out(connection: Connection, team: str, skill: str, keys: Iterable[str]) -> None:
    """Freeze inputs as held out; those that are already stay so."""
    new = sorted(set(keys) - heldout_keys(connection, team, skill))
    if new:
        rows = [{"team": team, "skill": skill, "key": key, "created": now()} for key in new]
        connection.execute(sa.insert(HeldoutRow), rows)


def trained_keys(connection: Connection, team: str, skill: str) -> set[str]:
    """Keys of the inputs that some dataset of the skill trained on, those whose example was erased since too."""
    query = sa.select(TrainedRow.key).where(TrainedRow.team == team, TrainedRow.skill == skill)
    return set(connection.execute(query).scalars())


def split_secret(connection: Connection, team: str, skill: str) -> str:
    """What decides by lot which of a skill's inputs are held out; made where there is none yet."""
    mine = (SplitSecretRow.team == team, SplitSecretRow.skill == skill)
    query = sa.select(SplitSecretRow.secret).where(*mine)
    found: str | None = connection.execute(query).scalar_one_or_none()
    if found is None:
        serialise(connection, f"split of {team}/{skill}")  # of two at once, the second takes what the first made
        found = connection.execute(query).scalar_one_or_none()
    if found is None:
        found = secrets.token_hex(32)
        connection.execute(sa.insert(SplitSecretRow).values(team=team, skill=skill, secret=found, created=now()))
    return found


# --- what was collected ------------------------------------------------------------------------------------------


class Collected(Model):
    """An example from outside the skill's folder. `wrong` is the output that a reviewer corrected, if so."""

    example: Example
    person: str | None = None
    wrong: Json = None


def collected(connection: Connection, team: str, skill: str) -> list[Collected]:
    """Every example of the skill that did not come from its folder, oldest first."""
    verdict = (
        sa.select(ReviewRow.record, sa.func.max(ReviewRow.id).label("newest"))
        .where(ReviewRow.team == team)
        .group_by(ReviewRow.record)
        .subquery()
    )
    query = (
        sa.select(ExampleRow.body, ExampleRow.person, ReviewRow.verdict, RecordRow.body.label("record"))
        .outerjoin(verdict, verdict.c.record == ExampleRow.record)
        .outerjoin(ReviewRow, ReviewRow.id == verdict.c.newest)
        .outerjoin(RecordRow, RecordRow.id == ExampleRow.record)
        .where(ExampleRow.team == team, ExampleRow.skill == skill)
        .order_by(ExampleRow.id)
    )
    found = []
    for body, person, judged, record in connection.execute(query):
        choices = (record or {}).get("choices") or []
        wrong = None
        if judged == "correct" and choices:
            wrong = choices[0].get("parsed") if choices[0].get("parsed") is not None else choices[0].get("text")
        found.append(Collected(example=Example.model_validate(body), person=person, wrong=wrong))
    return found


# --- datasets ----------------------------------------------------------------------------------------------------


class Item(Model):
    """One example of a dataset with what deletion needs to find it, and the hash of what it was made from."""

    example: Example
    key: str
    split: str
    person: str | None = None
    origin: str | None = None


def add_dataset(connection: Connection, dataset: Dataset, items: Sequence[Item]) -> Dataset:
    """Keep a dataset; the one that is there already when it is the same in every respect that anybody goes by.

    That is: nothing was erased of it, and the same examples stand at the same places, made from the same originals,
    people's data and records. Equal content alone is not enough: who deletes by a person or a record would not find it.
    """
    same = _sameness(dataset, items)
    query = sa.select(DatasetRow.body).where(
        DatasetRow.team == dataset.team, DatasetRow.skill == dataset.skill, DatasetRow.sameness == same
    )
    if (body := connection.execute(query).scalar_one_or_none()) is not None:
        return Dataset.model_validate(body)
    columns = {"id": dataset.id, "team": dataset.team, "skill": dataset.skill, "sameness": same}
    body = dataset.model_dump(mode="json")
    connection.execute(sa.insert(DatasetRow).values(**columns, created=dataset.created, body=body))
    _learn(connection, dataset, {item.key for item in items if item.split == "train"})
    rows = [
        {
            "dataset": dataset.id,
            "ordinal": ordinal,
            "team": dataset.team,
            "example": item.example.id,
            "key": item.key,
            "split": item.split,
            "person": item.person,
            "record": item.example.record,
            "origin": item.origin,
            "body": item.example.model_dump(mode="json"),
        }
        for ordinal, item in enumerate(items)
    ]
    if rows:
        connection.execute(sa.insert(DatasetItemRow), rows)
    return dataset


def _learn(connection: Connection, dataset: Dataset, keys: set[str]) -> None:
    new = sorted(keys - trained_keys(connection, dataset.team, dataset.skill))
    if new:
        common = {"team": dataset.team, "skill": dataset.skill, "created": dataset.created}
        connection.execute(sa.insert(TrainedRow), [{**common, "key": key} for key in new])


def _sameness(dataset: Dataset, items: Sequence[Item]) -> str:
    held = [
        [item.split, item.key, item.example.id, item.person, item.example.record]
        + ([item.example.group] if item.split == "heldout" else [])  # what is judged together
        + ([item.origin] if item.origin else [])
        for item in items
    ]
    return hashlib.sha256(json.dumps([dataset.digest, dataset.variant, held]).encode()).hexdigest()


def get_dataset(connection: Connection, team: str, dataset: str) -> Dataset:
    """Raises NotFound, also for another team's."""
    query = sa.select(DatasetRow.body).where(DatasetRow.team == team, DatasetRow.id == dataset)
    body = connection.execute(query).scalar_one_or_none()
    if body is None:
        raise NotFound("dataset", dataset)
    return Dataset.model_validate(body)


def list_datasets(connection: Connection, team: str, *, skill: str | None = None, limit: int = 50) -> list[Dataset]:
    """The newest first."""
    query = sa.select(DatasetRow.body).where(DatasetRow.team == team)
    if skill is not None:
        query = query.where(DatasetRow.skill == skill)
    bodies = connection.execute(query.order_by(DatasetRow.id.desc()).limit(limit)).scalars()
    return [Dataset.model_validate(body) for body in bodies]


def dataset_examples(connection: Connection, team: str, dataset: str, split: str) -> list[Example]:
    query = sa.select(DatasetItemRow.body).where(
        DatasetItemRow.team == team, DatasetItemRow.dataset == dataset, DatasetItemRow.split == split
    )
    return [
        Example.model_validate(body) for body in connection.execute(query.order_by(DatasetItemRow.ordinal)).scalars()
    ]


def dataset_items(connection: Connection, team: str, dataset: str, split: str, *, limit: int) -> list[Item]:
    """The first examples of one side, with what they were made from."""
    columns = (DatasetItemRow.body, DatasetItemRow.key, DatasetItemRow.person, DatasetItemRow.origin)
    query = sa.select(*columns).where(
        DatasetItemRow.team == team, DatasetItemRow.dataset == dataset, DatasetItemRow.split == split
    )
    return [
        Item(example=Example.model_validate(body), key=key, split=split, person=person, origin=origin)
        for body, key, person, origin in connection.execute(query.order_by(DatasetItemRow.ordinal).limit(limit))
    ]


class Reached(Model):
    """Where someone's data went."""

    datasets: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()  # skill@vN


class Whose(Model):
    """Whose data is meant: a person's, or a record's. `folders`: skill -> ids of the examples of its folder that name
    the person by now; datasets frozen before hold them as nobody's."""

    person: str | None = None
    record: str | None = None
    folders: Mapping[str, tuple[str, ...]] = {}


class Traces(Model):
    """What an end user, or a record, left: examples by id, the skills and datasets that have some; and by run, those
    that only the folders of runs without a dataset know of."""

    examples: frozenset[str] = frozenset()
    skills: frozenset[str] = frozenset()
    datasets: frozenset[str] = frozenset()
    runs: Mapping[str, frozenset[str]] = {}


def traces(connection: Connection, team: str, whose: Whose) -> Traces:
    """Where somebody's data is now; of the folders of runs, this knows nothing."""
    held = sa.select(DatasetItemRow.example, DatasetRow.skill, DatasetRow.id).join(
        DatasetRow, DatasetRow.id == DatasetItemRow.dataset
    )
    items = connection.execute(held.where(DatasetItemRow.team == team, _belongs(team, whose))).all()
    if whose.person is not None:
        mine = sa.select(RecordRow.id).where(RecordRow.team == team, RecordRow.person == whose.person)
        own = sa.or_(ExampleRow.person == whose.person, ExampleRow.record.in_(mine))
    else:
        own = ExampleRow.record == whose.record
    waiting = connection.execute(sa.select(ExampleRow.id, ExampleRow.skill).where(ExampleRow.team == team, own)).all()
    return Traces(
        examples=frozenset([example for example, *_ in (*items, *waiting)]).union(*whose.folders.values()),
        skills=frozenset([skill for _, skill, *_ in (*items, *waiting)]).union(whose.folders),
        datasets=frozenset([dataset for *_, dataset in items]),
    )


def reached(connection: Connection, team: str, whose: Whose) -> Reached:
    """The datasets that hold examples made from somebody's data, and the adapters made from those."""
    theirs = _belongs(team, whose)
    query = sa.select(DatasetItemRow.dataset).where(DatasetItemRow.team == team, theirs).distinct()
    datasets = sorted(connection.execute(query).scalars())
    adapters = [a for a in list_adapters(connection, team) if a.dataset in datasets]
    return Reached(datasets=tuple(datasets), adapters=tuple(a.name for a in adapters))


def erase(connection: Connection, team: str, whose: Whose) -> Reached:
    """Delete somebody's examples from every dataset. Returns where they had been."""
    found = reached(connection, team, whose)
    theirs = _belongs(team, whose)
    for dataset in found.datasets:
        where = (DatasetItemRow.team == team, DatasetItemRow.dataset == dataset, theirs)
        gone = connection.execute(sa.delete(DatasetItemRow).where(*where)).rowcount
        held = get_dataset(connection, team, dataset)
        body = held.model_copy(update={"erased": held.erased + gone}).model_dump(mode="json")
        connection.execute(
            sa.update(DatasetRow)
            .where(DatasetRow.team == team, DatasetRow.id == dataset)
            .values(body=body, sameness=dataset)  # an id is no hash: no other dataset is ever the same as this one
        )
    return found


def _belongs(team: str, whose: Whose) -> sa.ColumnElement[bool]:
    """Whether an item of a dataset is made from somebody's data."""
    mine = DatasetItemRow.person == whose.person if whose.person is not None else DatasetItemRow.record == whose.record
    named = [
        sa.and_(
            DatasetItemRow.person.is_(None),
            DatasetItemRow.example.in_(examples),
            DatasetItemRow.dataset.in_(
                sa.select(DatasetRow.id).where(DatasetRow.team == team, DatasetRow.skill == skill)
            ),
        )
        for skill, examples in whose.folders.items()
    ]
    return sa.or_(mine, *named)


# --- runs ----------------------------------------------------------------------------------------------------------


def save_run(connection: Connection, run: Run, *, verdict: Mapping[str, Json] | None = None) -> None:
    """Keep a run as it is now. `verdict` is kept beside it once there is one."""
    values: dict[str, Any] = {"state": run.state, "body": run.model_dump(mode="json")}
    if verdict is not None:
        values["verdict"] = dict(verdict)
    there = sa.update(RunRow).where(RunRow.team == run.team, RunRow.id == run.id)
    if connection.execute(there.values(**values)).rowcount == 0:
        columns = {"id": run.id, "team": run.team, "skill": run.skill, "created": run.created}
        connection.execute(sa.insert(RunRow).values(**columns, **values))


def get_run(connection: Connection, team: str, run: str, *, lock: bool = False) -> Run:
    """`lock`: until the transaction ends, others that change it wait (PostgreSQL; SQLite has one writer anyway).

    Raises NotFound, also for another team's."""
    query = sa.select(RunRow.body).where(RunRow.team == team, RunRow.id == run)
    body = connection.execute(query.with_for_update() if lock else query).scalar_one_or_none()
    if body is None:
        raise NotFound("run", run)
    return Run.model_validate(body)


def is_run(connection: Connection, run: str) -> bool:
    """Whether there is such a run, whichever team's."""
    query = sa.select(RunRow.id).where(RunRow.id == run)
    return connection.execute(query).scalar_one_or_none() is not None


def get_verdict(connection: Connection, team: str, run: str) -> Mapping[str, Json] | None:
    """The verdict of a run, or None before there is one."""
    query = sa.select(RunRow.verdict).where(RunRow.team == team, RunRow.id == run)
    found: Mapping[str, Json] | None = connection.execute(query).scalar_one_or_none()
    return found


def list_runs(
    connection: Connection,
    team: str | None,
    *,
    skill: str | None = None,
    kind: str | None = None,
    states: Sequence[str] = (),
    since: datetime | None = None,
    limit: int = 50,
) -> list[Run]:
    """The newest first. `team` None: every team's, for the one process that carries them out."""
    query = sa.select(RunRow.body)
    if team is not None:
        query = query.where(RunRow.team == team)
    if skill is not None:
        query = query.where(RunRow.skill == skill)
    if kind is not None:
        query = query.where(RunRow.body["kind"].as_string() == kind)
    if states:
        query = query.where(RunRow.state.in_(states))
    if since is not None:
        query = query.where(RunRow.created >= since)
    return [
        Run.model_validate(body) for body in connection.execute(query.order_by(RunRow.id.desc()).limit(limit)).scalars()
    ]


def add_event(connection: Connection, team: str, run: str, ordinal: int, body: Mapping[str, Json]) -> None:
    connection.execute(sa.insert(RunEventRow).values(team=team, run=run, ordinal=ordinal, body=dict(body)))


def list_events(connection: Connection, team: str, run: str, *, after: int = -1) -> list[tuple[int, dict[str, Json]]]:
    """(ordinal, event) in order, those after `after`."""
    query = sa.select(RunEventRow.ordinal, RunEventRow.body).where(
        RunEventRow.team == team, RunEventRow.run == run, RunEventRow.ordinal > after
    )
    return [(ordinal, body) for ordinal, body in connection.execute(query.order_by(RunEventRow.ordinal))]


# --- adapters --------------------------------------------------------------------------------------------------------


def put_adapter(connection: Connection, adapter: Adapter) -> None:
    """Keep a new adapter. Raises IntegrityError when its skill has one of this version: a version is used once."""
    columns = {"team": adapter.team, "skill": adapter.skill, "version": adapter.version, "digest": adapter.digest}
    connection.execute(sa.insert(AdapterRow).values(**columns, body=adapter.model_dump(mode="json")))


def update_adapter(connection: Connection, adapter: Adapter) -> None:
    """Note what came to be known of an adapter: where its files are, what the gate decided."""
    where = (
        AdapterRow.team == adapter.team,
        AdapterRow.skill == adapter.skill,
        AdapterRow.version == adapter.version,
    )
    values = {"digest": adapter.digest, "body": adapter.model_dump(mode="json")}
    connection.execute(sa.update(AdapterRow).where(*where).values(**values))


def get_adapter(connection: Connection, team: str, skill: str, version: int) -> Adapter:
    """Raises NotFound, also for another team's."""
    where = (AdapterRow.team == team, AdapterRow.skill == skill, AdapterRow.version == version)
    body = connection.execute(sa.select(AdapterRow.body).where(*where)).scalar_one_or_none()
    if body is None or (adapter := Adapter.model_validate(body)).retired:
        raise NotFound("adapter", f"{skill}@v{version}", "`intern adapters list` names those that there are.")
    return adapter


def list_adapters(connection: Connection, team: str, *, skill: str | None = None) -> list[Adapter]:
    """By skill, the newest first; without those of skills that were deleted."""
    query = sa.select(AdapterRow.body).where(AdapterRow.team == team)
    if skill is not None:
        query = query.where(AdapterRow.skill == skill)
    bodies = connection.execute(query.order_by(AdapterRow.skill, AdapterRow.version.desc())).scalars()
    return [adapter for body in bodies if not (adapter := Adapter.model_validate(body)).retired]


def last_version(connection: Connection, team: str, skill: str) -> int:
    """The highest that an adapter of the skill ever had, one that was deleted since included; 0: it never had any."""
    query = sa.select(sa.func.max(AdapterRow.version)).where(AdapterRow.team == team, AdapterRow.skill == skill)
    return connection.execute(query).scalar_one() or 0


def named_elsewhere(connection: Connection, digests: Sequence[str], team: str, skill: str) -> set[str]:
    """Those of `digests` that other skills or teams have as well."""
    theirs = sa.or_(AdapterRow.team != team, AdapterRow.skill != skill)
    query = sa.select(AdapterRow.digest).where(AdapterRow.digest.in_(digests), theirs)
    return set(connection.execute(query).scalars())


# --- a skill that is deleted -----------------------------------------------------------------------------------------


_LEARNED = (ExampleRow, UtteranceRow, DatasetRow, HeldoutRow, TrainedRow, SplitSecretRow)


def has_learned(connection: Connection, team: str, skill: str) -> bool:
    """Whether anything is kept that `forget_skill` removes."""
    if list_adapters(connection, team, skill=skill):
        return True
    found = (sa.exists().where(table.team == team, table.skill == skill) for table in _LEARNED)
    return bool(connection.execute(sa.select(sa.or_(*found))).scalar_one())


def forget_skill(connection: Connection, team: str, skill: str) -> None:
    """Drop all that was learned for a skill that is no more, of its adapters all but their numbers. Records of what was
    asked stay, and so do runs with their verdicts, as a history that says nothing of another skill of this name."""
    for adapter in list_adapters(connection, team, skill=skill):
        update_adapter(connection, adapter.model_copy(update={"retired": True, "dataset": None}))
    for table in _LEARNED:  # a dataset's items go with it
        connection.execute(sa.delete(table).where(table.team == team, table.skill == skill))
    against = (UtteranceRow.team == team, UtteranceRow.not_skill == skill)  # what the router was told about it
    connection.execute(sa.delete(UtteranceRow).where(*against))
    for run in list_runs(connection, team, skill=skill, limit=_MOST):
        if run.ended is not None and not run.retired:
            save_run(connection, run.model_copy(update={"retired": True}))


# --- deployments ------------------------------------------------------------------------------------------------------


def get_deployment(connection: Connection, team: str, skill: str, *, lock: bool = False) -> Deployment | None:
    """What serves the skill, or None where it never had an adapter. `lock`: until the transaction ends."""
    query = sa.select(DeploymentRow.__table__).where(DeploymentRow.team == team, DeploymentRow.skill == skill)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return None if row is None else _deployment(row)


def list_deployments(connection: Connection, team: str | None) -> list[Deployment]:
    """Every skill's; `team` None: every team's, for the process that loads adapters."""
    query = sa.select(DeploymentRow.__table__)
    if team is not None:
        query = query.where(DeploymentRow.team == team)
    rows = connection.execute(query.order_by(DeploymentRow.team, DeploymentRow.skill)).mappings()
    return [_deployment(row) for row in rows]


def deploy(connection: Connection, deployment: Deployment) -> None:
    """Make `deployment` what serves its skill, and note the change."""
    values = {
        "version": deployment.version,
        "previous": deployment.previous,
        "changed": deployment.changed,
        "by": deployment.by,
        "reason": deployment.reason,
    }
    where = (DeploymentRow.team == deployment.team, DeploymentRow.skill == deployment.skill)
    if connection.execute(sa.update(DeploymentRow).where(*where).values(**values)).rowcount == 0:
        connection.execute(sa.insert(DeploymentRow).values(team=deployment.team, skill=deployment.skill, **values))
    connection.execute(
        sa.insert(DeploymentChangeRow).values(
            id=new_id("dep"),
            team=deployment.team,
            skill=deployment.skill,
            body=deployment.model_dump(mode="json"),
            created=deployment.changed,
        )
    )


def deployment_history(connection: Connection, team: str, skill: str, *, limit: int = 50) -> list[Deployment]:
    """Every change, the newest first."""
    query = sa.select(DeploymentChangeRow.body).where(
        DeploymentChangeRow.team == team, DeploymentChangeRow.skill == skill
    )
    bodies = connection.execute(query.order_by(DeploymentChangeRow.id.desc()).limit(limit)).scalars()
    return [Deployment.model_validate(body) for body in bodies]


def _deployment(row: RowMapping) -> Deployment:
    return Deployment(
        team=row["team"],
        skill=row["skill"],
        version=row["version"],
        previous=row["previous"],
        changed=row["changed"],
        by=row["changed_by"],
        reason=row["reason"],
    )


# --- what changes while others work ----------------------------------------------------------------------------------


def save_going(connection: Connection, run: Run, *, verdict: Mapping[str, Json] | None = None) -> bool:
    """As `save_run`, for a run that goes on. False, and nothing is kept, when somebody ended it meanwhile."""
    going = (RunRow.team == run.team, RunRow.id == run.id, RunRow.state.in_(("queued", "running")))
    values: dict[str, Any] = {"state": run.state, "body": run.model_dump(mode="json")}
    if verdict is not None:
        values["verdict"] = dict(verdict)
    return connection.execute(sa.update(RunRow).where(*going).values(**values)).rowcount == 1


def newest_dataset(connection: Connection, team: str, skill: str) -> tuple[str, int] | None:
    """(id, how many examples it still holds) of the skill's newest dataset: another pair means another content. Reads
    no body, which may be megabytes long."""
    newest = sa.select(DatasetRow.id).where(DatasetRow.team == team, DatasetRow.skill == skill)
    dataset = connection.execute(newest.order_by(DatasetRow.id.desc()).limit(1)).scalar_one_or_none()
    if dataset is None:
        return None
    items = sa.select(sa.func.count()).where(DatasetItemRow.dataset == dataset)
    return dataset, int(connection.execute(items).scalar_one())


def still_there(connection: Connection, team: str, skill: str, examples: Sequence[str]) -> set[str]:
    """Those of `examples` that the skill has now; of its folder's, this knows nothing."""
    where = (ExampleRow.team == team, ExampleRow.skill == skill, ExampleRow.id.in_(examples))
    return set(connection.execute(sa.select(ExampleRow.id).where(*where)).scalars())


def judged_still(connection: Connection, team: str, skill: str, records: Sequence[str]) -> set[str]:
    """Those of `records` of which the skill has an example now, made of whichever review, or that were rejected since.

    A verdict that changes deletes nothing. Of what was deleted by hand, the answer had been accepted or corrected.
    """
    examples = sa.select(ExampleRow.record).where(
        ExampleRow.team == team, ExampleRow.skill == skill, ExampleRow.record.in_(records)
    )
    reviews = sa.select(ReviewRow.record, ReviewRow.verdict).where(
        ReviewRow.team == team, ReviewRow.record.in_(records)
    )
    newest = {row.record: row.verdict for row in connection.execute(reviews.order_by(ReviewRow.created, ReviewRow.id))}
    rejected = {record for record, verdict in newest.items() if verdict in ("reject", "wrong_skill")}
    return rejected.union(record for record in connection.execute(examples).scalars() if record)
