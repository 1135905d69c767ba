"""Which inputs were trained on, kept apart from the examples, and what decides by lot which ones are held out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "trained",
        sa.Column("team", sa.String(length=64), nullable=False),
        sa.Column("skill", sa.String(length=100), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("team", "skill", "key"),
    )
    op.create_table(
        "split_secrets",
        sa.Column("team", sa.String(length=64), nullable=False),
        sa.Column("skill", sa.String(length=100), nullable=False),
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("team", "skill"),
    )
    op.execute(
        "INSERT INTO trained (team, skill, key, created) "
        "SELECT datasets.team, datasets.skill, dataset_items.key, MIN(datasets.created) "
        "FROM dataset_items JOIN datasets ON datasets.id = dataset_items.dataset "
        "WHERE dataset_items.split = 'train' GROUP BY datasets.team, datasets.skill, dataset_items.key"
    )


def downgrade() -> None:
    op.drop_table("split_secrets")
    op.drop_table("trained")
