"""Every table. Each row has a team, and every query filters by it.

JSON columns hold vocabulary models as plain JSON. Times are UTC. Ids are time-ordered (see `intern.types.new_id`),
so ordering by id is ordering by time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from intern.types import now


class UTCDateTime(TypeDecorator[datetime]):
    """Aware UTC datetimes on every database; SQLite would return naive ones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC))


class Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UTCDateTime(), dict[str, Any]: JSON(), list[Any]: JSON()}


class KeyRow(Base):
    """An API key. Only a hash is kept; `prefix` is for people to recognise it by."""

    __tablename__ = "keys"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    team: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(16))  # admin | user
    prefix: Mapped[str] = mapped_column(String(24))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    created: Mapped[datetime] = mapped_column(default=now)
    revoked: Mapped[datetime | None] = mapped_column(default=None)


class DocumentRow(Base):
    """One ingested document: its parsed text is the truth that passages' offsets point into."""

    __tablename__ = "documents"
    __table_args__ = (UniqueConstraint("team", "skill", "name"), Index("documents_by_skill", "team", "skill", "source"))
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    team: Mapped[str] = mapped_column(String(64))
    skill: Mapped[str] = mapped_column(String(100))
    name: Mapped[str] = mapped_column(String(500))
    source: Mapped[str] = mapped_column(String(1000))
    sha256: Mapped[str] = mapped_column(String(64))  # of the file's bytes
    recipe: Mapped[str] = mapped_column(String(64))  # of parser and chunker version: another one re-ingests
    media_type: Mapped[str] = mapped_column(String(100))
    title: Mapped[str] = mapped_column(String(500))
    text: Mapped[str] = mapped_column(Text)
    contributor: Mapped[str | None] = mapped_column(String(64), default=None)
    created: Mapped[datetime] = mapped_column(default=now)


class PassageRow(Base):
    """One chunk of a document, with its vector, so that the index can be rebuilt without the embedder."""

    __tablename__ = "passages"
    __table_args__ = (Index("passages_by_skill", "team", "skill"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    team: Mapped[str] = mapped_column(String(64))
    skill: Mapped[str] = mapped_column(String(100))
    document: Mapped[str] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"), index=True)
    ordinal: Mapped[int] = mapped_column(Integer)
    heading: Mapped[str] = mapped_column(String(1000))
    start: Mapped[int] = mapped_column("start_offset", Integer)
    end: Mapped[int] = mapped_column("end_offset", Integer)
    embedder: Mapped[str] = mapped_column(String(128))
    vector: Mapped[bytes] = mapped_column(LargeBinary)  # float32, little-endian


class KnowledgeRow(Base):
    """How far one skill's documents have come. Every committed change adds one to `version`.

    `indexed` is the version up to which the vector index is known to agree; another number means: compare and repair.
    """

    __tablename__ = "knowledge"
    team: Mapped[str] = mapped_column(String(64), primary_key=True)
    skill: Mapped[str] = mapped_column(String(100), primary_key=True)
    version: Mapped[int] = mapped_column(Integer)
    indexed: Mapped[int] = mapped_column(Integer)


class ExampleRow(Base):
    """An example that did not come from the skill's folder."""

    __tablename__ = "examples"
    __table_args__ = (Index("examples_by_skill", "team", "skill"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    team: Mapped[str] = mapped_column(String(64))
    skill: Mapped[str] = mapped_column(String(100))
    body: Mapped[dict[str, Any]] = mapped_column()  # intern.types.Example
    provenance: Mapped[str] = mapped_column(String(16))
    contributor: Mapped[str | None] = mapped_column(String(64), default=None)
    person: Mapped[str | None] = mapped_column(String(200), default=None, index=True)
    record: Mapped[str | None] = mapped_column(ForeignKey("records.id", ondelete="CASCADE"), default=None, index=True)
    created: Mapped[datetime] = mapped_column(default=now)


class RecordRow(Base):
    """One generation (`intern.types.Record` in `body`), with the columns that queries need."""

    __tablename__ = "records"
    __table_args__ = (
        Index("records_by_skill", "team", "skill", "created"),
        Index("records_by_person", "team", "person"),
    )
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    team: Mapped[str] = mapped_column(String(64))
    skill: Mapped[str | None] = mapped_column(String(100))
    person: Mapped[str | None] = mapped_column(String(200))
    created: Mapped[datetime] = mapped_column()
    confidence: Mapped[float] = mapped_column(Float)
    review: Mapped[str | None] = mapped_column(String(32))
    body: Mapped[dict[str, Any]] = mapped_column()


class ReviewRow(Base):
    """A person's verdict on a record; goes with the record."""

    __tablename__ = "reviews"
    __table_args__ = (Index("reviews_by_team", "team", "created"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    team: Mapped[str] = mapped_column(String(64))
    record: Mapped[str] = mapped_column(ForeignKey("records.id", ondelete="CASCADE"), index=True)
    verdict: Mapped[str] = mapped_column(String(16))
    body: Mapped[dict[str, Any]] = mapped_column()  # intern.types.Review
    created: Mapped[datetime] = mapped_column(default=now)


class UtteranceRow(Base):
    """A text that the router learned from outside the folder: `skill` it belongs to, or None for out of scope.

    `not_skill` is set when a reviewer said which skill was wrong without saying which is right.
    """

    __tablename__ = "utterances"
    __table_args__ = (Index("utterances_by_team", "team"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    team: Mapped[str] = mapped_column(String(64))
    skill: Mapped[str | None] = mapped_column(String(100))
    not_skill: Mapped[str | None] = mapped_column(String(100), default=None)
    text: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(String(16))  # api | review
    record: Mapped[str | None] = mapped_column(ForeignKey("records.id", ondelete="CASCADE"), default=None, index=True)
    created: Mapped[datetime] = mapped_column(default=now)


class HeldoutRow(Base):
    """An input that is held out for the life of its skill: it is never trained on, whatever happens to its example.

    `key` is the hash of the normalised input (see intern/learning/examples/items.py).
    """

    __tablename__ = "heldout"
    team: Mapped[str] = mapped_column(String(64), primary_key=True)
    skill: Mapped[str] = mapped_column(String(100), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    created: Mapped[datetime] = mapped_column(default=now)


class TrainedRow(Base):
    """An input that some dataset of its skill trained on: it is never held out later, also when its example is gone.

    `key` is the hash of the normalised input, as for those held out.
    """

    __tablename__ = "trained"
    team: Mapped[str] = mapped_column(String(64), primary_key=True)
    skill: Mapped[str] = mapped_column(String(100), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    created: Mapped[datetime] = mapped_column(default=now)


class SplitSecretRow(Base):
    """What decides by lot which of a skill's inputs are held out. Whoever knows it can choose them: it leaves the
    database nowhere."""

    __tablename__ = "split_secrets"
    team: Mapped[str] = mapped_column(String(64), primary_key=True)
    skill: Mapped[str] = mapped_column(String(100), primary_key=True)
    secret: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime] = mapped_column(default=now)


class DatasetRow(Base):
    """A frozen dataset (`intern.types.Dataset` in `body`); its examples are rows of `dataset_items`.

    `sameness` is the hash of what it holds and of whose data that is: a run whose dataset would be the same in both
    takes this one. Datasets of equal content (the digest in `body`) may be several.
    """

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("team", "skill", "digest"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    team: Mapped[str] = mapped_column(String(64))
    skill: Mapped[str] = mapped_column(String(100))
    sameness: Mapped[str] = mapped_column("digest", String(64))  # once it was the digest alone
    body: Mapped[dict[str, Any]] = mapped_column()
    created: Mapped[datetime] = mapped_column(default=now)


class DatasetItemRow(Base):
    """One example of a dataset, redacted, as it was trained on or evaluated. `person`: whose data it was made from.

    `origin` is the hash of what it was before redaction; NULL in datasets from before it was kept.
    """

    __tablename__ = "dataset_items"
    __table_args__ = (Index("dataset_items_by_person", "team", "person"), Index("dataset_items_by_key", "team", "key"))
    dataset: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    ordinal: Mapped[int] = mapped_column(Integer, primary_key=True)
    team: Mapped[str] = mapped_column(String(64))
    example: Mapped[str] = mapped_column(String(200), index=True)
    key: Mapped[str] = mapped_column(String(64))
    split: Mapped[str] = mapped_column(String(16))
    person: Mapped[str | None] = mapped_column(String(200), default=None)
    record: Mapped[str | None] = mapped_column(String(64), default=None)
    origin: Mapped[str | None] = mapped_column(String(64), default=None)
    body: Mapped[dict[str, Any]] = mapped_column()  # intern.types.Example


class RunRow(Base):
    """One run of the learning loop (`intern.types.Run` in `body`)."""

    __tablename__ = "runs"
    __table_args__ = (Index("runs_by_skill", "team", "skill"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    team: Mapped[str] = mapped_column(String(64))
    skill: Mapped[str] = mapped_column(String(100))
    state: Mapped[str] = mapped_column(String(16), index=True)
    body: Mapped[dict[str, Any]] = mapped_column()
    verdict: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    created: Mapped[datetime] = mapped_column(default=now)


class RunEventRow(Base):
    """What happened during a run, in order: losses, points of the held-out curve, warnings."""

    __tablename__ = "run_events"
    run: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    ordinal: Mapped[int] = mapped_column(Integer, primary_key=True)
    team: Mapped[str] = mapped_column(String(64))
    body: Mapped[dict[str, Any]] = mapped_column()


class AdapterRow(Base):
    """An adapter. Rows are never deleted, so that a version is never given twice."""

    __tablename__ = "adapters"
    team: Mapped[str] = mapped_column(String(64), primary_key=True)
    skill: Mapped[str] = mapped_column(String(100), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    body: Mapped[dict[str, Any]] = mapped_column()  # intern.types.Adapter


class DeploymentRow(Base):
    """Which adapter serves a skill. `version` and `previous` are versions of its adapters, NULL for the base model."""

    __tablename__ = "deployments"
    team: Mapped[str] = mapped_column(String(64), primary_key=True)
    skill: Mapped[str] = mapped_column(String(100), primary_key=True)
    version: Mapped[int | None] = mapped_column(Integer)
    previous: Mapped[int | None] = mapped_column(Integer)
    changed: Mapped[datetime] = mapped_column(default=now)
    by: Mapped[str] = mapped_column("changed_by", String(200))
    reason: Mapped[str] = mapped_column(Text)


class DeploymentChangeRow(Base):
    """Every promotion and rollback, for the record."""

    __tablename__ = "deployment_changes"
    __table_args__ = (Index("deployment_changes_by_skill", "team", "skill"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    team: Mapped[str] = mapped_column(String(64))
    skill: Mapped[str] = mapped_column(String(100))
    body: Mapped[dict[str, Any]] = mapped_column()  # intern.types.Deployment
    created: Mapped[datetime] = mapped_column(default=now)
